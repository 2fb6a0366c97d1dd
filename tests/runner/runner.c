#include "tests/runner/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"

/* ---- report ---- */

void sel_runner_pass(struct sel_runner_report *report)
{
    report->passed++;
}

void sel_runner_fail(struct sel_runner_report *report, const char *name, const char *fmt, ...)
{
    if (report->last_failed[0] == '\0' || strcmp(report->last_failed, name) != 0)
        report->failed++;
    (void)snprintf(report->last_failed, sizeof(report->last_failed), "%s", name);

    printf("FAIL %s: ", name);
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

/* ---- files ---- */

static int file_error(struct sel_error *err, int code, const char *path)
{
    return sel_error_set(err, code, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(code));
}

static int read_all(struct sel_arena *arena, int fd, struct sel_str *ret)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EISDIR;
    size_t size = (size_t)st.st_size, n = 0;
    char *text = sel_arena_alloc_raw(arena, size + 1, 1);
    if (!text)
        return SEL_ENOMEM;
    while (n < size) {
        ssize_t got = read(fd, text + n, size - n);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            break;
        n += got > 0 ? (size_t)got : 0;
    }
    text[n] = '\0';
    *ret = (struct sel_str){text, n};
    return 0;
}

int sel_runner_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                         struct sel_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_error(err, -errno, path);
    int r = read_all(arena, fd, ret);
    (void)close(fd); /* nothing was written */
    return r < 0 ? file_error(err, r, path) : 0;
}

int sel_runner_read_json(struct sel_arena *arena, const char *path, struct sel_value *ret,
                         struct sel_error *err)
{
    struct sel_str text;
    int r = sel_runner_read_file(arena, path, &text, err);
    return r < 0 ? r : sel_json_parse(arena, path, text, ret, NULL, err);
}

bool sel_runner_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_dir(int parent, const char *name)
{
    struct stat st;
    return fstatat(parent, name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

int sel_runner_list_dirs(struct sel_arena *arena, const char *dir, const char *const **ret_names,
                         uint32_t *ret_count, struct sel_error *err)
{
    DIR *stream = opendir(dir);
    if (!stream)
        return file_error(err, -errno, dir);
    const char **names = NULL;
    uint32_t count = 0, cap = 0;
    int r = 0;
    for (struct dirent *entry; r == 0 && (entry = readdir(stream));) {
        if (entry->d_name[0] == '.' || !is_dir(dirfd(stream), entry->d_name))
            continue;
        const char *name = sel_arena_strdup(arena, sel_str_c(entry->d_name));
        if (!name || !sel_mem_grow(&names, &cap, (uint64_t)count + 1, sizeof(*names)))
            r = SEL_ENOMEM;
        else
            names[count++] = name;
    }
    (void)closedir(stream);

    if (r == 0 && count > 0) {
        qsort(names, count, sizeof(*names), by_name);
        *ret_names = sel_arena_memdup(arena, names, count * sizeof(*names));
        if (!*ret_names)
            r = SEL_ENOMEM;
    }
    (void)sel_mem_free(names);
    *ret_count = r == 0 ? count : 0;
    return r < 0 ? file_error(err, r, dir) : 0;
}

bool sel_runner_next_line(struct sel_runner_lines *lines, struct sel_str *ret)
{
    while (lines->rest.n > 0) {
        const char *end = memchr(lines->rest.p, '\n', lines->rest.n);
        size_t n = end ? (size_t)(end - lines->rest.p) : lines->rest.n;
        struct sel_str line = {lines->rest.p, n};
        size_t taken = end ? n + 1 : n;
        lines->rest = (struct sel_str){lines->rest.p + taken, lines->rest.n - taken};
        lines->line++;
        if (line.n > 0) {
            *ret = line;
            return true;
        }
    }
    return false;
}

int sel_runner_each_line(const char *path, sel_runner_line_fn *run, void *ctx,
                         struct sel_runner_report *report, struct sel_error *err)
{
    struct sel_arena file = {0}, arena = {0};
    struct sel_runner_lines lines = {0};
    const char *slash = strrchr(path, '/');
    int r = sel_runner_read_file(&file, path, &lines.rest, err);
    for (struct sel_str line; r == 0 && sel_runner_next_line(&lines, &line);) {
        char name[200];
        (void)snprintf(name, sizeof(name), "%s:%u", slash ? slash + 1 : path, lines.line);
        struct sel_value value;
        struct sel_error bad = {0};
        if (sel_json_parse(&arena, NULL, line, &value, NULL, &bad) < 0)
            sel_runner_fail(report, name, "the line is no JSON: %s", bad.text);
        else
            run(ctx, name, &value, &arena, report);
        sel_arena_reset(&arena);
    }
    sel_arena_done(&arena);
    sel_arena_done(&file);
    return r;
}

/* ---- comparing ---- */

const char *sel_runner_json(struct sel_arena *arena, const struct sel_value *v)
{
    struct sel_buf buf = {0};
    sel_json_write(v, SEL_JSON_SORT, &buf);
    const char *text = sel_buf_error(&buf) < 0 ? NULL : sel_arena_strdup(arena, sel_buf_str(&buf));
    sel_buf_done(&buf);
    return text ? text : "";
}

/* Long values are cut: the place of the difference says the rest. */
static const char *shown(struct sel_arena *arena, const struct sel_value *v)
{
    const char *text = sel_runner_json(arena, v);
    return strlen(text) <= 300 ? text : sel_arena_printf(arena, "%.300s...", text);
}

static const char *diff_at(struct sel_arena *arena, const char *path,
                           const struct sel_value *expected, const struct sel_value *actual);

static const char *diff_lists(struct sel_arena *arena, const char *path,
                              const struct sel_value *expected, const struct sel_value *actual)
{
    uint32_t count = sel_value_count(expected);
    if (count != sel_value_count(actual))
        return sel_arena_printf(arena, "%s: expected %u items, got %u: %s instead of %s", path,
                                count, sel_value_count(actual), shown(arena, actual),
                                shown(arena, expected));
    for (uint32_t i = 0; i < count; i++) {
        const char *item = sel_arena_printf(arena, "%s[%u]", path, i);
        const char *diff = diff_at(arena, item, sel_value_at(expected, i), sel_value_at(actual, i));
        if (diff)
            return diff;
    }
    return NULL;
}

static const char *diff_maps(struct sel_arena *arena, const char *path,
                             const struct sel_value *expected, const struct sel_value *actual)
{
    for (uint32_t i = 0; i < sel_value_count(expected); i++) {
        struct sel_str key = sel_value_str(sel_value_key_at(expected, i));
        const struct sel_value *mine = sel_value_get(actual, key);
        const struct sel_value *theirs = sel_value_val_at(expected, i);
        if (!mine)
            return sel_arena_printf(arena, "%s: key '%.*s' is missing (expected %s)", path,
                                    SEL_STR_ARG(key), shown(arena, theirs));
        const char *inside = sel_arena_printf(arena, "%s.%.*s", path, SEL_STR_ARG(key));
        const char *diff = diff_at(arena, inside, theirs, mine);
        if (diff)
            return diff;
    }
    for (uint32_t i = 0; i < sel_value_count(actual); i++) {
        const struct sel_value *key = sel_value_key_at(actual, i);
        if (!sel_value_is(key, SEL_TEXT) || !sel_value_get(expected, sel_value_str(key)))
            return sel_arena_printf(arena, "%s: unexpected key %s (%s)", path, shown(arena, key),
                                    shown(arena, sel_value_val_at(actual, i)));
    }
    return NULL;
}

static const char *diff_at(struct sel_arena *arena, const char *path,
                           const struct sel_value *expected, const struct sel_value *actual)
{
    if (sel_value_same(expected, actual))
        return NULL;
    const char *diff = NULL;
    if (sel_value_is(expected, SEL_LIST) && sel_value_is(actual, SEL_LIST))
        diff = diff_lists(arena, path, expected, actual);
    else if (sel_value_is(expected, SEL_MAP) && sel_value_is(actual, SEL_MAP))
        diff = diff_maps(arena, path, expected, actual);
    if (diff)
        return diff;
    return sel_arena_printf(arena, "%s: expected %s, got %s", path, shown(arena, expected),
                            shown(arena, actual));
}

const char *sel_runner_diff(struct sel_arena *arena, const struct sel_value *expected,
                            const struct sel_value *actual)
{
    return diff_at(arena, "$", expected, actual);
}

/* The items as JSON texts in order. NULL: out of memory. */
static const char **sorted_texts(struct sel_arena *arena, const struct sel_value *list)
{
    uint32_t count = sel_value_count(list);
    const char **texts = SEL_ARENA_NEW_ARRAY(arena, const char *, (size_t)count + 1);
    if (!texts)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        texts[i] = sel_runner_json(arena, sel_value_at(list, i));
    qsort(texts, count, sizeof(*texts), by_name);
    return texts;
}

const char *sel_runner_diff_multiset(struct sel_arena *arena, const struct sel_value *expected,
                                     const struct sel_value *actual)
{
    if (!sel_value_is(expected, SEL_LIST) || !sel_value_is(actual, SEL_LIST))
        return sel_runner_diff(arena, expected, actual);
    const char **want = sorted_texts(arena, expected), **have = sorted_texts(arena, actual);
    if (!want || !have)
        return "out of memory";
    uint32_t want_count = sel_value_count(expected), have_count = sel_value_count(actual);
    for (uint32_t i = 0; i < want_count || i < have_count; i++) {
        int order = i >= want_count ? 1 : i >= have_count ? -1 : strcmp(want[i], have[i]);
        if (order < 0)
            return sel_arena_printf(arena, "missing: %.1000s (%u expected, %u came)", want[i],
                                    want_count, have_count);
        if (order > 0)
            return sel_arena_printf(arena, "surplus: %.1000s (%u expected, %u came)", have[i],
                                    want_count, have_count);
    }
    return NULL;
}

/* ---- environment ---- */

int sel_runner_env_init(struct sel_runner_env *env, struct sel_arena *arena,
                        const struct sel_value *vars)
{
    *env = (struct sel_runner_env){0};
    if (sel_value_is(vars, SEL_NULL))
        return 0;
    if (!sel_value_is(vars, SEL_MAP))
        return SEL_ETYPE;
    uint32_t count = sel_value_count(vars);
    const char **names = SEL_ARENA_NEW_ARRAY(arena, const char *, 2 * (size_t)count + 1);
    if (!names)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        const struct sel_value *value = sel_value_val_at(vars, i);
        if (!sel_value_is(value, SEL_TEXT))
            return SEL_ETYPE;
        names[2 * i] = sel_arena_strdup(arena, sel_value_str(sel_value_key_at(vars, i)));
        names[2 * i + 1] = sel_arena_strdup(arena, sel_value_str(value));
        if (!names[2 * i] || !names[2 * i + 1])
            return SEL_ENOMEM;
    }
    *env = (struct sel_runner_env){names, count};
    return 0;
}

const char *sel_runner_getenv(void *ctx, const char *name)
{
    const struct sel_runner_env *env = ctx;
    for (uint32_t i = 0; i < env->count; i++) {
        if (strcmp(env->names[2 * i], name) == 0)
            return env->names[2 * i + 1];
    }
    return NULL;
}
