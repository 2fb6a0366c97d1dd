#include "core/compile_internal.h"

#include <math.h>

#include "core/expand.h"

#define US_PER_S 1000000.0

/* Longer waits are cut to this, with a warning: adding one to any clock must not overflow. */
#define WAIT_US_MAX (INT64_C(100) * 366 * 86400 * 1000000)
/* Beyond this the original refuses: the range of its time type. */
#define THROTTLING_DAYS_MAX 999999999.0

static int64_t wait_us(struct sel_compiler *c, struct sel_pos pos, double us)
{
    if (us <= (double)WAIT_US_MAX)
        return (int64_t)llrint(us);
    sel_diag_warning(c->diag, pos, "longer than a century; cut to 100 years");
    return WAIT_US_MAX;
}

/* A whole number of 0 or more as a double, which is exact as far as waits and counts go. */
static bool whole_number(struct sel_compiler *c, const struct sel_ynode *node, const char *what,
                         double *ret)
{
    if (node->kind == SEL_INT && sel_value_num(&node->num) >= 0) {
        *ret = sel_value_num(&node->num);
        return true;
    }
    sel_diag_error(c->diag, node->pos, "`%s` must be a whole number of 0 or more; got %s", what,
                   sel_compile_got(c, node));
    return false;
}

void sel_compile_retries(struct sel_compiler *c, const struct sel_ynode *map, uint32_t *ret_max,
                         int64_t *ret_countdown_us)
{
    const struct sel_ynode *max = sel_yaml_get(map, "max_retry");
    const struct sel_ynode *countdown = sel_yaml_get(map, "retry_countdown");
    double number;
    if (max && max->kind != SEL_NULL && whole_number(c, max, "max_retry", &number)) {
        *ret_max = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
        if (number > UINT32_MAX)
            sel_diag_warning(c->diag, max->pos, "`max_retry` is cut to %u", UINT32_MAX);
    }
    if (countdown && countdown->kind != SEL_NULL &&
        whole_number(c, countdown, "retry_countdown", &number))
        *ret_countdown_us = wait_us(c, countdown->pos, number * US_PER_S);
}

void sel_compile_seconds(struct sel_compiler *c, const struct sel_ynode *node, const char *what,
                         int64_t *ret_us)
{
    bool is_number = node->kind == SEL_INT || node->kind == SEL_FLOAT;
    double seconds = is_number ? sel_value_num(&node->num) : 0;
    if (isfinite(seconds) && seconds * US_PER_S >= 1)
        *ret_us = wait_us(c, node->pos, seconds * US_PER_S);
    else
        sel_diag_error(c->diag, node->pos, "`%s` must be a number of seconds above 0; got %s", what,
                       sel_compile_got(c, node));
}

/* --- throttling --- */

static const struct {
    const char *name;
    double us;
} units[] = {
    {"weeks", 7 * 86400 * US_PER_S},
    {"days", 86400 * US_PER_S},
    {"hours", 3600 * US_PER_S},
    {"minutes", 60 * US_PER_S},
    {"seconds", US_PER_S},
    {"milliseconds", 1000},
    {"microseconds", 1},
};
static const char *const unit_names[] = {"weeks",   "days",         "hours",        "minutes",
                                         "seconds", "milliseconds", "microseconds", NULL};

static double unit_us(const struct sel_ynode *key)
{
    for (size_t i = 0; sel_compile_is_text(key) && i < SEL_COUNT(units); i++) {
        if (sel_str_eq_c(key->text, units[i].name))
            return units[i].us;
    }
    return 0;
}

static bool throttling_value(struct sel_compiler *c, const struct sel_ypair *pair, double *ret_us)
{
    const struct sel_ynode *val = pair->val;
    bool is_number = val->kind == SEL_INT || val->kind == SEL_FLOAT;
    double number = is_number ? sel_value_num(&val->num) : -1;
    if (!isfinite(number) || number < 0) {
        sel_diag_error(c->diag, val->pos,
                       "`throttling` needs a number of 0 or more for '%s'; got %s",
                       sel_compile_show(c, pair->key->text), sel_compile_got(c, val));
        return false;
    }
    *ret_us = number * unit_us(pair->key);
    return true;
}

void sel_compile_throttling(struct sel_compiler *c, const struct sel_ynode *map, int64_t *ret_us)
{
    const struct sel_ynode *node = sel_yaml_get(map, "throttling");
    if (!node || node->kind == SEL_NULL)
        return;
    if (!sel_compile_is_map(c, node, "`throttling`") ||
        !sel_compile_check_keys(c, node, "`throttling`", unit_names))
        return;
    double total = 0;
    bool ok = true;
    for (uint32_t i = 0; i < node->map.count; i++) {
        double us = 0;
        ok = throttling_value(c, &node->map.pairs[i], &us) && ok;
        total += us;
    }
    if (total >= (THROTTLING_DAYS_MAX + 1) * 86400 * US_PER_S)
        sel_diag_error(c->diag, node->pos, "`throttling` is too long; at most 999999999 days");
    else if (ok)
        *ret_us = wait_us(c, node->pos, total);
}

/* --- queues and caches --- */

bool sel_compile_expand(struct sel_compiler *c, const struct sel_ynode *node, const char *what,
                        struct sel_str *ret)
{
    if (!sel_compile_is_text(node)) {
        sel_diag_error(c->diag, node->pos, "`%s` must be a text; got %s", what,
                       sel_compile_got(c, node));
        return false;
    }
    struct sel_error err = {0};
    int r = sel_expand(c->arena, c->options->world, node->text, node->pos, ret, &err);
    if (r == SEL_ENOMEM)
        c->no_memory = true;
    else if (r < 0)
        sel_diag_error(c->diag, node->pos, "`%s`: %s", what, err.text);
    return r == 0;
}

void sel_compile_queue(struct sel_compiler *c, const struct sel_ynode *map,
                       struct sel_str otherwise, struct sel_str *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, "queue");
    *ret = otherwise;
    if (!sel_compile_is_falsy(node))
        (void)sel_compile_expand(c, node, "queue", ret); /* reported; the default stays */
    else if (node && node->kind != SEL_NULL)
        sel_diag_warning(c->diag, node->pos, "`queue` should be a text; got %s, '%s' is used",
                         sel_compile_got(c, node), sel_compile_show(c, otherwise));
}

/* A text key of a cache; `otherwise` if it is absent. */
static bool cache_text(struct sel_compiler *c, const struct sel_ynode *map, const char *key,
                       const char *otherwise, struct sel_str *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, key);
    *ret = sel_str_c(otherwise);
    if (!node)
        return true;
    if (sel_compile_is_text(node)) {
        *ret = sel_compile_keep(c, node->text);
        return true;
    }
    sel_diag_error(c->diag, node->pos, "`%s` of a cache must be a text; got %s", key,
                   sel_compile_got(c, node));
    return false;
}

static bool cache_config(struct sel_compiler *c, const struct sel_ynode *map, struct sel_value *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, "configuration");
    if (!node) {
        struct sel_value_builder b;
        sel_value_begin_map(&b, c->arena);
        sel_value_put_c(&b, "max_cache_size", sel_value_from_i64(0));
        if (sel_value_end(&b, ret) < 0)
            c->no_memory = true;
        return true;
    }
    if (!sel_compile_is_map(c, node, "`configuration` of a cache"))
        return false;
    *ret = sel_compile_value(c, node);
    return true;
}

/* The original looks for a cache when it starts; so the name is only doubted here. */
static void doubt_cache(struct sel_compiler *c, const struct sel_cache_def *cache)
{
    static const char *const builtin[] = {"FIFO", "LIFO", "LRU", "MRU", "RR", "LMDB", "Redis"};
    for (size_t i = 0; i < SEL_COUNT(builtin); i++) {
        if (sel_str_eq_c(cache->import.name, builtin[i]))
            return;
    }
    if (cache->import.name.n == 0)
        sel_diag_warning(c->diag, cache->import.pos, "a cache with an empty name: none is used");
    else if (sel_str_eq_c(cache->import.module, "selinon.caches"))
        sel_diag_warning(c->diag, cache->import.pos, "selinon.caches has no cache '%s'%s",
                         sel_compile_show(c, cache->import.name),
                         sel_compile_hint(c, cache->import.name, builtin, SEL_COUNT(builtin),
                                          "; there are FIFO, LIFO, LRU, MRU, RR and LMDB"));
}

void sel_compile_cache(struct sel_compiler *c, const struct sel_ynode *map,
                       struct sel_cache_def *ret)
{
    static const char *const keys[] = {"name", "import", "configuration", NULL};
    const struct sel_ynode *node = sel_yaml_get(map, "cache");
    struct sel_cache_def cache = {0};
    if (!node || !sel_compile_is_map(c, node, "`cache`"))
        return;
    bool ok = sel_compile_check_keys(c, node, "a cache", keys);
    ok = cache_text(c, node, "name", "LRU", &cache.import.name) && ok;
    ok = cache_text(c, node, "import", "selinon.caches", &cache.import.module) && ok;
    ok = cache_config(c, node, &cache.config) && ok;
    cache.import.pos = node->pos;
    if (!ok)
        return;
    doubt_cache(c, &cache);
    cache.import.pos = sel_compile_keep_pos(c, node->pos);
    *ret = cache;
}
