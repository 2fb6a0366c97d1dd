#include "core/expand.h"

#include "core/arena.h"
#include "core/buf.h"

#define NAME_SIZE_MAX 256

/* What may not stand in a name: the original reads these as formatting instructions, which nobody
 * means in a queue name. */
static bool is_plain_name(struct sel_str name)
{
    static const char foreign[] = "{[]!:.";
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '\0' || strchr(foreign, name.p[i]))
            return false;
    }
    return name.n > 0;
}

static int put_variable(struct sel_buf *out, const struct sel_predicate_world *world,
                        struct sel_str name, struct sel_pos pos, struct sel_error *err)
{
    char key[NAME_SIZE_MAX];
    if (!is_plain_name(name) || name.n >= sizeof(key))
        return sel_error_set(err, SEL_ESYNTAX, pos,
                             "'{%.*s}' does not name an environment variable; write {NAME}, and "
                             "{{ and }} for braces",
                             SEL_STR_ARG(name));
    memcpy(key, name.p, name.n);
    key[name.n] = '\0';
    const char *value = world && world->getenv ? world->getenv(world->ctx, key) : NULL;
    if (!value)
        return sel_error_set(err, SEL_ENOTFOUND, pos,
                             "the environment variable '%s' is not set; set it, or write {{ and }} "
                             "for braces",
                             key);
    sel_buf_put_c(out, value);
    return 0;
}

/* Reads what begins with the brace at text.p[*i] and moves *i behind it. */
static int put_brace(struct sel_buf *out, const struct sel_predicate_world *world,
                     struct sel_str text, size_t *i, struct sel_pos pos, struct sel_error *err)
{
    char brace = text.p[*i];
    if (*i + 1 < text.n && text.p[*i + 1] == brace) {
        sel_buf_put_u8(out, (uint8_t)brace);
        *i += 2;
        return 0;
    }
    const char *end = memchr(text.p + *i, '}', text.n - *i);
    if (brace == '}' || !end)
        return sel_error_set(err, SEL_ESYNTAX, pos,
                             "a lone '%c' in '%.*s'; write %c%c for one that stands for itself",
                             brace, SEL_STR_ARG(text), brace, brace);
    struct sel_str name = {text.p + *i + 1, (size_t)(end - text.p) - *i - 1};
    *i += name.n + 2;
    return put_variable(out, world, name, pos, err);
}

int sel_expand(struct sel_arena *arena, const struct sel_predicate_world *world,
               struct sel_str text, struct sel_pos pos, struct sel_str *ret, struct sel_error *err)
{
    struct sel_buf out = {0};
    int r = 0;
    for (size_t i = 0; i < text.n && r == 0;) {
        if (text.p[i] == '{' || text.p[i] == '}')
            r = put_brace(&out, world, text, &i, pos, err);
        else
            sel_buf_put_u8(&out, (uint8_t)text.p[i++]);
    }
    const char *copy = NULL;
    if (r == 0) {
        copy = out.failed ? NULL : sel_arena_strdup(arena, sel_buf_str(&out));
        if (!copy)
            r = sel_error_set(err, SEL_ENOMEM, pos, "out of memory");
    }
    if (r == 0)
        *ret = (struct sel_str){copy, out.n};
    sel_buf_done(&out);
    return r;
}
