/* Results as files: path/flow/task/id.json, one JSON text each.
 *
 * A file is written under a temporary name in its folder, synced, and linked to its own name: link
 * fails if that exists, so the first result wins, and nobody ever reads half a file. With `sync`
 * the folder is synced too, before the result is acknowledged. Trace events are lines of
 * path/trace.jsonl.
 *
 * JSON has no bytes, no NaN and only text as keys: such a result is refused rather than changed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "storage/args.h"
#include "storage/builtin.h"

#define TEMPORARY_TRIES 1000 /* names left behind by a dead process of the same number */
#define READ_STEP (64u << 10)
#define TRACE_FILE "trace.jsonl"

static const struct sel_pos nowhere;
static const char what[] = "Filesystem";

struct filesystem {
    struct sel_storage base;
    bool sync;
    _Atomic uint64_t temporaries; /* makes their names different */
    size_t path_n;
    char path[]; /* terminated, no slash at the end but for the root */
};

/* The paths of one record. */
struct paths {
    char folder[PATH_MAX]; /* path/flow/task */
    char file[PATH_MAX];
    char temporary[PATH_MAX];
};

/* ---- names ---- */

/* Whether a part of a path stays where it is put. */
static bool is_name(struct sel_str s)
{
    return s.n > 0 && s.n <= NAME_MAX && !memchr(s.p, '/', s.n) && !memchr(s.p, '\0', s.n) &&
           !sel_str_eq_c(s, ".") && !sel_str_eq_c(s, "..");
}

static bool print(char *out, size_t size, const char *fmt, ...) SEL_PRINTF(3, 4);
static bool print(char *out, size_t size, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, size, fmt, args);
    va_end(args);
    return n >= 0 && (size_t)n < size;
}

static bool fail(struct sel_arena *arena, struct sel_storage_item *item, const char *path,
                 const char *text)
{
    item->status = SEL_STORE_FAILED;
    item->message = sel_arena_printf(arena, "'%s': %s", path, text);
    if (!item->message)
        item->message = "out of memory";
    return false;
}

/* false: the item has failed. */
static bool paths_of(struct filesystem *fs, struct sel_arena *arena, struct sel_storage_item *item,
                     struct paths *ret)
{
    if (!is_name(item->flow) || !is_name(item->task) || !is_name(item->id))
        return fail(arena, item, fs->path,
                    "flow, task and id must be names of files, without '/', NUL, '.' and '..'");
    if (!print(ret->folder, sizeof(ret->folder), "%s/%.*s/%.*s", fs->path, SEL_STR_ARG(item->flow),
               SEL_STR_ARG(item->task)) ||
        !print(ret->file, sizeof(ret->file), "%s/%.*s.json", ret->folder, SEL_STR_ARG(item->id)))
        return fail(arena, item, fs->path, "the path of the record is too long");
    return true;
}

/* ---- files ---- */

static int write_all(struct sel_io *io, int fd, struct sel_str text)
{
    for (size_t at = 0; at < text.n;) {
        ssize_t n = io->ops->pwrite(io, fd, text.p + at, text.n - at, (int64_t)at);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        at += (size_t)n;
    }
    return 0;
}

static int sync_folder(struct sel_io *io, const char *path)
{
    int fd = io->ops->open(io, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int r = io->ops->fsync(io, fd);
    (void)io->ops->close(io, fd); /* nothing was written through it */
    return r;
}

/* The folder of a record and the one above it; with `sync` their names are on disk. */
static int make_folders(struct filesystem *fs, struct sel_io *io, struct sel_str flow,
                        const char *folder)
{
    char parent[PATH_MAX];
    int r = sel_storage_make_folder(io, folder);
    if (r < 0 || !fs->sync)
        return r;
    if (!print(parent, sizeof(parent), "%s/%.*s", fs->path, SEL_STR_ARG(flow)))
        return -ENAMETOOLONG;
    r = sync_folder(io, parent);
    return r < 0 ? r : sync_folder(io, fs->path);
}

/* A descriptor of a new file in the folder, or < 0. */
static int open_temporary(struct filesystem *fs, struct sel_io *io, struct sel_str flow,
                          struct paths *paths)
{
    int r = -EEXIST;
    bool made = false;
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        unsigned long long number = atomic_fetch_add(&fs->temporaries, 1);
        if (!print(paths->temporary, sizeof(paths->temporary), "%s/.%ld-%llu.tmp", paths->folder,
                   (long)getpid(), number))
            return -ENAMETOOLONG;
        r = io->ops->open(io, paths->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (r == -ENOENT && !made) {
            made = true;
            r = make_folders(fs, io, flow, paths->folder);
            if (r < 0)
                return r;
        } else if (r != -EEXIST) {
            return r;
        }
    }
    return r;
}

/* Not through the caller's io: after a cancellation that would do nothing. */
static void remove_temporary(const struct paths *paths)
{
    struct sel_io *io = sel_io_blocking();
    (void)io->ops->unlink(io, paths->temporary); /* a file left behind harms nobody */
}

/* 0, -EEXIST: there is a record already, or another error. */
static int write_record(struct filesystem *fs, struct sel_io *io, struct sel_str flow,
                        struct paths *paths, struct sel_str text)
{
    int fd = open_temporary(fs, io, flow, paths);
    if (fd < 0)
        return fd == -EEXIST ? -EBUSY : fd;
    int r = write_all(io, fd, text);
    if (r == 0 && fs->sync)
        r = io->ops->fsync(io, fd);
    int closed = io->ops->close(io, fd);
    if (r == 0)
        r = closed;
    if (r == 0)
        r = io->ops->link(io, paths->temporary, paths->file);
    remove_temporary(paths);
    if (r == 0 && fs->sync)
        r = sync_folder(io, paths->folder);
    return r;
}

/* Appends the content of a file. 0 or < 0. */
static int read_file(struct sel_io *io, const char *path, struct sel_buf *out)
{
    int fd = io->ops->open(io, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    ssize_t n = 1;
    while (n > 0) {
        n = SEL_ENOMEM;
        if (sel_buf_reserve(out, READ_STEP))
            n = io->ops->pread(io, fd, out->p + out->n, out->cap - out->n, (int64_t)out->n);
        if (n > 0)
            out->n += (size_t)n;
    }
    (void)io->ops->close(io, fd); /* nothing was written */
    return (int)n;
}

/* ---- values ---- */

/* What JSON cannot carry, or NULL. The depth is that of a decoded value, at most
 * SEL_VALUE_DEPTH_MAX. */
static const char *not_json(const struct sel_value *v)
{
    const char *fault = NULL;
    switch (sel_value_kind(v)) {
    case SEL_BIN:
    case SEL_EXT:
        return "JSON has no bytes";
    case SEL_FLOAT:
        return isfinite(sel_value_num(v)) ? NULL : "JSON has no NaN or infinity";
    case SEL_LIST:
        for (uint32_t i = 0; i < sel_value_count(v) && !fault; i++)
            fault = not_json(sel_value_at(v, i));
        return fault;
    case SEL_MAP:
        for (uint32_t i = 0; i < sel_value_count(v) && !fault; i++)
            fault = sel_value_is(sel_value_key_at(v, i), SEL_TEXT)
                        ? not_json(sel_value_val_at(v, i))
                        : "keys in JSON are text";
        return fault;
    default:
        return NULL;
    }
}

/* msgpack bytes to a JSON text. NULL, or what is wrong. */
static const char *to_json(struct sel_str value, struct sel_buf *ret)
{
    struct sel_arena arena = {0};
    struct sel_value v;
    const char *fault = NULL;
    int r = sel_value_decode(&arena, value.p, value.n, false, &v, NULL);
    if (r < 0)
        fault = r == SEL_ENOMEM ? "out of memory" : "the result is no value";
    else
        fault = not_json(&v);
    if (!fault) {
        sel_json_write(&v, 0, ret);
        sel_buf_put_u8(ret, '\n');
        if (sel_buf_error(ret) < 0)
            fault = "out of memory";
    }
    sel_arena_done(&arena);
    return fault;
}

/* ---- operations ---- */

/* 0 or SEL_ECANCELED */
static int store_one(struct filesystem *fs, struct sel_io *io, struct sel_arena *arena,
                     struct sel_storage_item *item, struct paths *paths)
{
    struct sel_buf text = {0};
    if (!paths_of(fs, arena, item, paths))
        return 0;
    int r = 0;
    const char *fault = to_json(item->value, &text);
    if (fault) {
        fail(arena, item, paths->file, fault);
    } else {
        r = write_record(fs, io, item->flow, paths, sel_buf_str(&text));
        item->status = r == -EEXIST ? SEL_STORE_EXISTS : SEL_STORE_OK;
        if (r < 0 && r != -EEXIST)
            fail(arena, item, paths->file, sel_error_text(r));
    }
    sel_buf_done(&text);
    if (item->status == SEL_STORE_OK) {
        size_t n = strlen(paths->file);
        char *copy = sel_arena_strdup(arena, (struct sel_str){paths->file, n});
        item->record_id = (struct sel_str){copy, copy ? n : 0};
    }
    return r == SEL_ECANCELED ? r : 0;
}

static int retrieve_one(struct filesystem *fs, struct sel_io *io, struct sel_arena *arena,
                        struct sel_storage_item *item, struct paths *paths)
{
    struct sel_buf text = {0}, bytes = {0};
    struct sel_arena scratch = {0};
    struct sel_value v;
    struct sel_error err;
    if (!paths_of(fs, arena, item, paths))
        return 0;
    int r = read_file(io, paths->file, &text);
    if (r == -ENOENT || r == -ENOTDIR) {
        item->status = SEL_STORE_MISSING;
    } else if (r < 0) {
        fail(arena, item, paths->file, sel_error_text(r));
    } else if (sel_json_parse(&scratch, paths->file, sel_buf_str(&text), &v, NULL, &err) < 0) {
        char place[SEL_ERROR_TEXT_MAX];
        item->status = SEL_STORE_FAILED;
        item->message = sel_arena_printf(arena, "the file is damaged: %s",
                                         sel_error_format(&err, place, sizeof(place)));
        if (!item->message)
            item->message = "out of memory";
    } else {
        sel_value_encode(&v, &bytes);
        char *copy = NULL;
        if (sel_buf_error(&bytes) == 0)
            copy = sel_arena_strdup(arena, sel_buf_str(&bytes));
        item->value = (struct sel_str){copy, bytes.n};
        item->status = SEL_STORE_OK;
        if (!copy)
            fail(arena, item, paths->file, "out of memory");
    }
    sel_arena_done(&scratch);
    sel_buf_done(&bytes);
    sel_buf_done(&text);
    return r == SEL_ECANCELED ? r : 0;
}

static int delete_one(struct filesystem *fs, struct sel_io *io, struct sel_arena *arena,
                      struct sel_storage_item *item, struct paths *paths)
{
    if (!paths_of(fs, arena, item, paths))
        return 0;
    int r = io->ops->unlink(io, paths->file);
    if (r == 0 && fs->sync)
        r = sync_folder(io, paths->folder);
    item->status = r == -ENOENT || r == -ENOTDIR ? SEL_STORE_MISSING : SEL_STORE_OK;
    if (r < 0 && item->status == SEL_STORE_OK)
        fail(arena, item, paths->file, sel_error_text(r));
    return r == SEL_ECANCELED ? r : 0;
}

typedef int (*item_fn)(struct filesystem *fs, struct sel_io *io, struct sel_arena *arena,
                       struct sel_storage_item *item, struct paths *paths);

static int each(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                struct sel_storage_item *items, uint32_t count, struct sel_error *err, item_fn fn)
{
    /* On the heap: three paths are too much for the stack of a coroutine. */
    struct paths *paths = SEL_NEW(struct paths);
    int r = paths ? 0 : SEL_ENOMEM;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = fn((struct filesystem *)s, io, arena, &items[i], paths);
    sel_mem_free(paths);
    return r < 0 ? sel_error_set(err, r, nowhere, "%s", sel_error_text(r)) : 0;
}

static int filesystem_store(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                            struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return each(s, io, arena, items, count, err, store_one);
}

static int filesystem_retrieve(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                               struct sel_storage_item *items, uint32_t count,
                               struct sel_error *err)
{
    return each(s, io, arena, items, count, err, retrieve_one);
}

static int filesystem_delete(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                             struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return each(s, io, arena, items, count, err, delete_one);
}

/* {"event": ..., "details": ...} and a line end */
static int trace_line(const struct sel_storage_event *event, struct sel_buf *ret)
{
    struct sel_arena arena = {0};
    struct sel_value_builder b;
    struct sel_value v;
    int r = sel_value_decode(&arena, event->details.p, event->details.n, false, &v, NULL);
    if (r == 0) {
        sel_value_begin_map(&b, &arena);
        sel_value_put_c(&b, "event", sel_value_from_str(event->name));
        sel_value_put_c(&b, "details", v);
        r = sel_value_end(&b, &v);
    }
    if (r == 0) {
        sel_json_write(&v, 0, ret);
        sel_buf_put_u8(ret, '\n');
        r = sel_buf_error(ret);
    }
    sel_arena_done(&arena);
    return r;
}

/* One write to a file that is open for appending: the kernel puts it behind all others, whole. */
static int append_lines(struct filesystem *fs, struct sel_io *io, const char *path,
                        struct sel_str lines)
{
    int fd = io->ops->open(io, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return fd;
    ssize_t n = io->ops->pwrite(io, fd, lines.p, lines.n, 0);
    int r = n < 0 ? (int)n : (size_t)n < lines.n ? -ENOSPC : 0;
    if (r == 0 && fs->sync)
        r = io->ops->fsync(io, fd);
    int closed = io->ops->close(io, fd);
    return r < 0 ? r : closed;
}

static int filesystem_trace(struct sel_storage *s, struct sel_io *io,
                            const struct sel_storage_event *events, uint32_t count,
                            struct sel_error *err)
{
    struct filesystem *fs = (struct filesystem *)s;
    struct sel_buf lines = {0};
    char path[PATH_MAX];
    int r = 0;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = trace_line(&events[i], &lines);
    if (r == 0)
        r = print(path, sizeof(path), "%s/" TRACE_FILE, fs->path) ? 0 : -ENAMETOOLONG;
    if (r == 0)
        r = append_lines(fs, io, path, sel_buf_str(&lines));
    sel_buf_done(&lines);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "'%s/" TRACE_FILE "': %s", fs->path,
                             sel_error_text(r));
    return 0;
}

static void filesystem_close(struct sel_storage *s)
{
    sel_mem_free(s);
}

static const struct sel_storage_ops_i filesystem_ops = {
    .retrieve = filesystem_retrieve,
    .store = filesystem_store,
    .del = filesystem_delete,
    .trace = filesystem_trace,
    .close = filesystem_close,
};

/* ---- opening ---- */

static struct filesystem *filesystem_new(struct sel_str path, bool sync)
{
    struct filesystem *fs = sel_mem_zalloc(sizeof(*fs) + path.n + 1);
    if (!fs)
        return NULL;
    while (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    fs->base.ops = &filesystem_ops;
    fs->sync = sync;
    fs->path_n = path.n;
    memcpy(fs->path, path.p, path.n);
    return fs;
}

/* Whether files can be made there: better said now than when the first result is lost. */
static int check_folder(struct filesystem *fs, struct sel_io *io)
{
    struct sel_str here = SEL_STR(".");
    struct paths *paths = SEL_NEW(struct paths);
    if (!paths)
        return SEL_ENOMEM;
    int fd = -ENAMETOOLONG;
    if (print(paths->folder, sizeof(paths->folder), "%s", fs->path))
        fd = open_temporary(fs, io, here, paths);
    if (fd >= 0) {
        (void)io->ops->close(io, fd); /* it is empty */
        remove_temporary(paths);
    }
    sel_mem_free(paths);
    return fd < 0 ? fd : 0;
}

static int open_folder(struct filesystem *fs, struct sel_io *io, struct sel_error *err)
{
    int r = sel_storage_make_folder(io, fs->path);
    if (r == 0)
        r = check_folder(fs, io);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "cannot write into the folder '%s': %s", fs->path,
                             sel_error_text(r));
    return 0;
}

int sel_storage_filesystem_open(const struct sel_storage_options *options, struct sel_io *io,
                                struct sel_storage **ret, struct sel_error *err)
{
    static const char *const names[] = {"path", "sync", SEL_STORAGE_ARG_RETRY};
    struct sel_arena arena = {0};
    struct sel_str path;
    struct filesystem *fs = NULL;
    bool sync = true;
    int r = sel_storage_args_check(what, options->config, names, SEL_COUNT(names), err);
    if (r == 0)
        r = sel_storage_arg_bool(what, options->config, "sync", &sync, err);
    if (r == 0)
        r = sel_storage_path(&arena, options, what, ".", &path, err);
    if (r == 0) {
        fs = filesystem_new(path, sync);
        r = fs ? open_folder(fs, io, err)
               : sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    }
    sel_arena_done(&arena);
    if (r < 0) {
        sel_mem_free(fs);
        return r;
    }
    *ret = &fs->base;
    return 0;
}
