#include "storage/storage.h"

#include <errno.h>
#include <limits.h>

#include "core/buf.h"
#include "storage/args.h"
#include "storage/builtin.h"

static const struct sel_pos nowhere; /* the caller knows the place of the configuration */

static int open_unsupported(const struct sel_storage_options *options, struct sel_io *io,
                            struct sel_storage **ret, struct sel_error *err)
{
    (void)io, (void)ret;
    return sel_error_set(
        err, SEL_EUNSUPPORTED, nowhere,
        "storage '%.*s': this build has no adapter for that database; built in are "
        "LMDB (selinon.storages.lmdb), InMemoryStorage (selinon.storages.memory) "
        "and Filesystem (selinon.storages.filesystem)",
        SEL_STR_ARG(options->name));
}

static const struct sel_storage_adapter adapters[] = {
    {"selinon.storages.memory", "InMemoryStorage", sel_storage_memory_open},
    {"selinon.storages.lmdb", "LMDB", sel_storage_lmdb_open},
    {"selinon.storages.filesystem", "Filesystem", sel_storage_filesystem_open},
    {"selinon.storages.redis", "Redis", open_unsupported},
    {"selinon.storages.postgresql", "PostgreSQL", open_unsupported},
    {"selinon.storages.mongodb", "MongoDB", open_unsupported},
    {"selinon.storages.s3", "S3Storage", open_unsupported},
    {"selinon.storages.s3", "S3", open_unsupported},
};

const struct sel_storage_adapter *sel_storage_find(struct sel_str module, struct sel_str name)
{
    for (size_t i = 0; i < SEL_COUNT(adapters); i++)
        if (sel_str_eq_c(module, adapters[i].module) && sel_str_eq_c(name, adapters[i].name))
            return &adapters[i];
    return NULL;
}

/* Appends the variable whose `{` is at text.p[*pos]; *pos ends at its `}`. */
static int expand_variable(const struct sel_storage_options *options, struct sel_str text,
                           size_t *pos, struct sel_buf *out, struct sel_error *err)
{
    char name[256];
    size_t begin = *pos + 1, end = begin;
    while (end < text.n && text.p[end] != '}' && text.p[end] != '{')
        end++;
    if (end == text.n || text.p[end] == '{' || end == begin)
        return sel_error_set(err, SEL_ESYNTAX, nowhere,
                             "'%.*s': a '{' needs the name of an environment variable and a '}'; "
                             "write '{{' for the character itself",
                             SEL_STR_ARG(text));
    struct sel_str key = {text.p + begin, end - begin};
    const char *value = NULL;
    if (key.n < sizeof(name) && !memchr(key.p, '\0', key.n)) {
        memcpy(name, key.p, key.n);
        name[key.n] = '\0';
        value = options->getenv ? options->getenv(options->getenv_ctx, name) : NULL;
    }
    if (!value)
        return sel_error_set(err, SEL_ENOTFOUND, nowhere,
                             "'%.*s': the environment variable '%.*s' is not set",
                             SEL_STR_ARG(text), SEL_STR_ARG(key));
    sel_buf_put_c(out, value);
    *pos = end;
    return 0;
}

static int expand_into(const struct sel_storage_options *options, struct sel_str text,
                       struct sel_buf *out, struct sel_error *err)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool doubled = i + 1 < text.n && text.p[i + 1] == c;
        if (c == '{' && !doubled) {
            int r = expand_variable(options, text, &i, out, err);
            if (r < 0)
                return r;
            continue;
        }
        if (c == '}' && !doubled)
            return sel_error_set(err, SEL_ESYNTAX, nowhere,
                                 "'%.*s': a '}' without '{'; write '}}' for the character itself",
                                 SEL_STR_ARG(text));
        sel_buf_put_u8(out, (uint8_t)c);
        i += c == '{' || c == '}';
    }
    return 0;
}

int sel_storage_expand(struct sel_arena *arena, const struct sel_storage_options *options,
                       struct sel_str text, struct sel_str *ret, struct sel_error *err)
{
    struct sel_buf out = {0};
    int r = expand_into(options, text, &out, err);
    if (r == 0)
        r = sel_buf_error(&out);
    if (r == 0) {
        char *copy = sel_arena_strdup(arena, sel_buf_str(&out));
        if (copy)
            *ret = (struct sel_str){copy, out.n};
        else
            r = SEL_ENOMEM;
    }
    sel_buf_done(&out);
    if (r == SEL_ENOMEM)
        return sel_error_set(err, r, nowhere, "out of memory");
    return r;
}

int sel_storage_path(struct sel_arena *arena, const struct sel_storage_options *options,
                     const char *what, const char *fallback, struct sel_str *ret,
                     struct sel_error *err)
{
    struct sel_str text = {NULL, 0}, path;
    int r = sel_storage_arg_text(what, options->config, "path", &text, err);
    if (r < 0)
        return r;
    if (!text.p) {
        *ret = sel_str_c(fallback);
        return 0;
    }
    r = sel_storage_expand(arena, options, text, &path, err);
    if (r < 0)
        return r;
    if (path.n == 0)
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "%s: 'path' is empty after expanding '%.*s'", what, SEL_STR_ARG(text));
    *ret = path;
    return 0;
}

int sel_storage_make_folder(struct sel_io *io, const char *path)
{
    char copy[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(copy))
        return n ? -ENAMETOOLONG : -ENOENT;
    memcpy(copy, path, n + 1);
    int r = io->ops->mkdir(io, copy, 0777);
    if (r != -ENOENT)
        return r == -EEXIST ? 0 : r;
    for (size_t i = 1; i <= n; i++) { /* from the top; those that are there say EEXIST */
        if (path[i] != '/' && path[i] != '\0')
            continue;
        copy[i] = '\0';
        r = io->ops->mkdir(io, copy, 0777);
        if (r < 0 && r != -EEXIST)
            return r;
        copy[i] = path[i];
    }
    return 0;
}
