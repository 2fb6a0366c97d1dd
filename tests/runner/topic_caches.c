/* Caches: sequences of adding and reading, and what is in them in between. */
#include <stdio.h>

#include "core/buf.h"
#include "storage/cache.h"
#include "tests/runner/runner.h"

/* The item that an id had when it came into an RR cache, which throws out what it likes. */
struct known {
    struct sel_str id;
    const struct sel_value *item;
};

struct run {
    struct sel_cache *cache;
    struct sel_arena *arena;
    struct sel_runner_report *report;
    const char *name;
    struct known *known;
    uint32_t known_count;
    int64_t bound; /* -1: not given */
    bool failed;
};

static void differ(struct run *run, uint32_t op, const char *what)
{
    sel_runner_fail(run->report, run->name, "operation %u: %s", op, what);
    run->failed = true;
}

/* Encoded in the arena of the line. */
static struct sel_str encoded(struct run *run, const struct sel_value *item)
{
    struct sel_buf buf = {0};
    sel_value_encode(item, &buf);
    struct sel_str bytes = {sel_arena_memdup(run->arena, buf.p, buf.n), buf.n};
    sel_buf_done(&buf);
    return bytes;
}

static bool is_present(const struct sel_cache *cache, struct sel_str id)
{
    for (uint32_t i = 0; i < sel_cache_count(cache); i++) {
        if (sel_str_eq(sel_cache_id_at(cache, i), id))
            return true;
    }
    return false;
}

static struct known *find_known(struct run *run, struct sel_str id)
{
    for (uint32_t i = 0; i < run->known_count; i++) {
        if (sel_str_eq(run->known[i].id, id))
            return &run->known[i];
    }
    return NULL;
}

static void run_add(struct run *run, uint32_t op, struct sel_str id, const struct sel_value *item)
{
    struct known *known = find_known(run, id);
    if (!known) {
        known = &run->known[run->known_count++];
        known->id = id;
    }
    if (!is_present(run->cache, id))
        known->item = item;
    if (sel_cache_add(run->cache, id, encoded(run, item)) < 0)
        differ(run, op, "out of memory");
}

static void run_get(struct run *run, uint32_t op, struct sel_str id, const struct sel_value *step)
{
    struct sel_str want = sel_value_str(sel_value_at(step, 2)), item;
    bool hit = sel_cache_get(run->cache, id, &item);
    bool any = sel_str_eq_c(want, "any");
    if (!any && hit != sel_str_eq_c(want, "hit")) {
        differ(run, op, hit ? "expected a miss, got a hit" : "expected a hit, got a miss");
        return;
    }
    if (!hit)
        return;
    const struct known *known = find_known(run, id);
    const struct sel_value *expected = !any ? sel_value_at(step, 3) : known ? known->item : NULL;
    if (!expected || !sel_str_eq(item, encoded(run, expected)))
        differ(run, op, "the item is not the one that was added");
}

static void run_contents(struct run *run, uint32_t op, const struct sel_value *step)
{
    const struct sel_value *ids = sel_value_at(step, 1);
    uint32_t count = sel_cache_count(run->cache);
    int64_t size = -1;
    (void)sel_value_i64(sel_value_at(step, 2), &size); /* -1 differs from every count */
    bool same = count == size && count == sel_value_count(ids);
    for (uint32_t i = 0; same && i < count; i++)
        same = sel_str_eq(sel_cache_id_at(run->cache, i), sel_value_str(sel_value_at(ids, i)));
    if (same)
        return;
    struct sel_value_builder have;
    struct sel_value list;
    sel_value_begin_list(&have, run->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&have, sel_value_from_str(sel_cache_id_at(run->cache, i)));
    if (sel_value_end(&have, &list) == 0)
        differ(run, op,
               sel_arena_printf(run->arena, "expected %s, got %s", sel_runner_json(run->arena, ids),
                                sel_runner_json(run->arena, &list)));
    else
        differ(run, op, "other contents");
}

static void run_op(struct run *run, uint32_t op, const struct sel_value *step)
{
    struct sel_str verb = sel_value_str(sel_value_at(step, 0));
    if (sel_str_eq_c(verb, "contents")) {
        run_contents(run, op, step);
        return;
    }
    struct sel_str id = sel_value_str(sel_value_at(step, 1));
    if (sel_str_eq_c(verb, "add"))
        run_add(run, op, id, sel_value_at(step, 2));
    else if (sel_str_eq_c(verb, "get"))
        run_get(run, op, id, step);
    else if (!sel_str_eq_c(verb, "last-present"))
        differ(run, op, "the runner does not know this operation");
    else if (!is_present(run->cache, id))
        differ(run, op, "what was added last is not there");
}

static void run_ops(struct run *run, const struct sel_value *ops)
{
    uint32_t count = sel_value_count(ops);
    run->known = SEL_ARENA_NEW_ARRAY(run->arena, struct known, (size_t)count + 1);
    if (!run->known) {
        differ(run, 0, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < count && !run->failed; i++) {
        run_op(run, i, sel_value_at(ops, i));
        if (run->bound >= 0 && sel_cache_count(run->cache) > run->bound)
            differ(run, i, "more items than the size of the cache");
    }
}

/* The size goes the way of a configuration: `max_cache_size: N`. */
static int read_size(struct sel_arena *arena, const struct sel_value *line, uint32_t *ret,
                     struct sel_error *err)
{
    struct sel_value_builder b;
    struct sel_value config;
    const struct sel_value *size = sel_value_get_c(line, "max_cache_size");
    sel_value_begin_map(&b, arena);
    if (size)
        sel_value_put_c(&b, "max_cache_size", *size);
    int r = sel_value_end(&b, &config);
    return r < 0 ? r : sel_cache_size_from_config(&config, ret, err);
}

static void run_line(void *ctx, const char *name, const struct sel_value *line,
                     struct sel_arena *arena, struct sel_runner_report *report)
{
    (void)ctx;
    struct run run = {.arena = arena, .report = report, .name = name, .bound = -1};
    const struct sel_value *bound = sel_value_get_c(line, "bound");
    struct sel_str wanted = sel_value_str(sel_value_get_c(line, "cache"));
    enum sel_cache_kind kind;
    uint32_t size = 0;
    struct sel_error err = {0};
    if ((bound && !sel_value_i64(bound, &run.bound)) ||
        !sel_cache_find(SEL_STR("selinon.caches"), wanted, &kind)) {
        sel_runner_fail(report, name, "no cache '%.*s'", SEL_STR_ARG(wanted));
        return;
    }
    bool refused = read_size(arena, line, &size, &err) < 0;
    bool must_refuse = sel_value_get_c(line, "construct") != NULL;
    if (refused != must_refuse) {
        sel_runner_fail(report, name, refused ? "refused: %s" : "the size should be refused%s",
                        err.text);
        return;
    }
    if (!refused) {
        run.cache = sel_cache_new(kind, size, 7);
        if (run.cache)
            run_ops(&run, sel_value_get_c(line, "ops"));
        else
            differ(&run, 0, "out of memory");
        (void)sel_cache_free(run.cache);
    }
    if (!run.failed)
        sel_runner_pass(report);
}

int sel_topic_caches(const char *dir, const struct sel_runner_options *options,
                     struct sel_runner_report *report, struct sel_error *err)
{
    (void)options;
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/ops.jsonl", dir);
    return sel_runner_each_line(path, run_line, NULL, report, err);
}
