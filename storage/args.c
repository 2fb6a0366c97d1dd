#include "storage/args.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/suggest.h"

static const struct sel_pos nowhere; /* the compiler knows the place, and adds it */

static bool is_known(struct sel_str key, const char *const *names, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (sel_str_eq_c(key, names[i]))
            return true;
    return false;
}

/* "a, b, c" */
static const char *join(const char *const *names, uint32_t count, char *out, size_t size)
{
    size_t n = 0;
    for (uint32_t i = 0; i < count && n < size; i++) {
        int more = snprintf(out + n, size - n, "%s%s", i ? ", " : "", names[i]);
        n += more > 0 ? (size_t)more : 0;
    }
    return out;
}

static int refuse_key(const char *what, struct sel_str key, const char *const *names,
                      uint32_t count, struct sel_error *err)
{
    struct sel_suggest suggest;
    struct sel_str near;
    sel_suggest_init(&suggest, key);
    for (uint32_t i = 0; i < count; i++)
        sel_suggest_offer(&suggest, sel_str_c(names[i]));
    if (sel_suggest_get(&suggest, &near))
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "%s has no argument '%.*s'; did you mean '%.*s'?", what,
                             SEL_STR_ARG(key), SEL_STR_ARG(near));
    char known[256];
    return sel_error_set(err, SEL_ECONFIG, nowhere, "%s has no argument '%.*s'; it takes %s", what,
                         SEL_STR_ARG(key),
                         count ? join(names, count, known, sizeof(known)) : "none");
}

static bool is_wait(const struct sel_value *v)
{
    return (sel_value_kind(v) == SEL_INT || sel_value_kind(v) == SEL_FLOAT) &&
           sel_value_num(v) >= 0;
}

int sel_storage_args_check(const char *what, const struct sel_value *config,
                           const char *const *names, uint32_t count, struct sel_error *err)
{
    enum sel_kind kind = sel_value_kind(config);
    if (kind == SEL_NULL)
        return 0;
    if (kind != SEL_MAP)
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "%s takes its arguments by name; write a mapping, not %s", what,
                             sel_value_kind_name(kind));
    for (uint32_t i = 0; i < sel_value_count(config); i++) {
        const struct sel_value *key = sel_value_key_at(config, i);
        if (sel_value_kind(key) != SEL_TEXT)
            return sel_error_set(err, SEL_ECONFIG, nowhere,
                                 "%s: names of arguments are text, not %s", what,
                                 sel_value_kind_name(sel_value_kind(key)));
        if (!is_known(sel_value_str(key), names, count))
            return refuse_key(what, sel_value_str(key), names, count, err);
        if (sel_str_eq_c(sel_value_str(key), SEL_STORAGE_ARG_RETRY) &&
            !is_wait(sel_value_val_at(config, i)))
            return sel_error_set(err, SEL_ECONFIG, nowhere,
                                 "%s: %s must be a number of seconds, 0 or more", what,
                                 SEL_STORAGE_ARG_RETRY);
    }
    return 0;
}

static const struct sel_value *find(const struct sel_value *config, const char *name)
{
    if (sel_value_kind(config) != SEL_MAP)
        return NULL;
    const struct sel_value *v = sel_value_get_c(config, name);
    return sel_value_kind(v) == SEL_NULL ? NULL : v;
}

static int refuse_kind(const char *what, const char *name, const char *wanted,
                       const struct sel_value *v, struct sel_error *err)
{
    return sel_error_set(err, SEL_ECONFIG, nowhere, "%s: '%s' must be %s, not %s", what, name,
                         wanted, sel_value_kind_name(sel_value_kind(v)));
}

int sel_storage_arg_bool(const char *what, const struct sel_value *config, const char *name,
                         bool *ret, struct sel_error *err)
{
    const struct sel_value *v = find(config, name);
    if (!v)
        return 0;
    if (sel_value_kind(v) != SEL_BOOL)
        return refuse_kind(what, name, "true or false", v, err);
    *ret = sel_value_bool(v);
    return 0;
}

int sel_storage_arg_text(const char *what, const struct sel_value *config, const char *name,
                         struct sel_str *ret, struct sel_error *err)
{
    const struct sel_value *v = find(config, name);
    if (!v)
        return 0;
    if (sel_value_kind(v) != SEL_TEXT)
        return refuse_kind(what, name, "text", v, err);
    struct sel_str text = sel_value_str(v);
    if (text.n == 0 || memchr(text.p, '\0', text.n))
        return sel_error_set(err, SEL_ECONFIG, nowhere, "%s: '%s' is %s", what, name,
                             text.n ? "text with a NUL in it" : "empty");
    *ret = text;
    return 0;
}

int sel_storage_arg_size(const char *what, const struct sel_value *config, const char *name,
                         uint64_t least, uint64_t most, uint64_t *ret, struct sel_error *err)
{
    const struct sel_value *v = find(config, name);
    if (!v)
        return 0;
    if (sel_value_kind(v) != SEL_INT)
        return refuse_kind(what, name, "a whole number", v, err);
    int64_t i;
    uint64_t size = sel_value_i64(v, &i) ? (uint64_t)i : UINT64_MAX;
    bool negative = sel_value_i64(v, &i) && i < 0;
    if (negative || size < least || size > most)
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "%s: '%s' must be a whole number from %" PRIu64 " to %" PRIu64, what,
                             name, least, most);
    *ret = size;
    return 0;
}
