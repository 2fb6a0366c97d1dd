#include "worker/task_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "worker/loop.h"
#include "worker/subprocess.h"
#include "worker/sys.h"

#define FIRST_READ_SIZE ((size_t)8 * 1024) /* most files are smaller and need one submission */
#define SECONDS_MAX 1e9                    /* 30 years: what is more is a mistake, but harmless */
#define TEMPORARY_TRIES 16

/* ---- time ---- */

/* -1: not a number. */
static int64_t us_of_seconds(double seconds)
{
    if (isnan(seconds))
        return -1;
    if (seconds <= 0.0)
        return 0;
    double us = (seconds < SECONDS_MAX ? seconds : SECONDS_MAX) * 1e6;
    return us < 1.0 ? 1 : (int64_t)us; /* never 0, which means no limit */
}

int sel_sleep(struct sel_task *task, double seconds)
{
    int64_t us = us_of_seconds(seconds);
    if (us < 0)
        return sel_fail(task, "ArgumentError", "cannot sleep for NaN seconds");
    int r = sel_sys_sleep(sel_task_co(task), us);
    return r < 0 ? sel_task_note_os(task, r, "OSError", "sleep") : 0;
}

int64_t sel_now_us(const struct sel_task *task)
{
    (void)task; /* a clock of its own comes with virtual time for tasks */
    return sel_sys_now_us();
}

/* ---- files: descriptors ---- */

static int note_file(struct sel_task *task, int code, const char *what, const char *path)
{
    return sel_task_note_os(task, code, "OSError", "%s '%s'", what, path);
}

static int note_fd(struct sel_task *task, int code, const char *what, int fd)
{
    return sel_task_note_os(task, code, "OSError", "%s descriptor %d", what, fd);
}

int sel_open(struct sel_task *task, const char *path, int flags, unsigned mode)
{
    int r = sel_sys_open(sel_task_co(task), path, flags | O_CLOEXEC, (mode_t)mode);
    return r < 0 ? note_file(task, r, "open", path) : r;
}

int64_t sel_read(struct sel_task *task, int fd, void *p, size_t n, int64_t offset)
{
    ssize_t r = sel_sys_read(sel_task_co(task), fd, p, n, offset);
    return r < 0 ? note_fd(task, (int)r, "read from", fd) : r;
}

/* All of it, or negative. */
static int64_t write_all(struct sel_task *task, int fd, const void *p, size_t n, int64_t offset)
{
    const struct sel_co *co = sel_task_co(task);
    for (size_t done = 0; done < n;) {
        ssize_t r = sel_sys_write(co, fd, (const char *)p + done, n - done,
                                  offset < 0 ? -1 : offset + (int64_t)done);
        if (r == -EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? r : -EIO;
        done += (size_t)r;
    }
    return (int64_t)n;
}

int64_t sel_write(struct sel_task *task, int fd, const void *p, size_t n, int64_t offset)
{
    int64_t r = write_all(task, fd, p, n, offset);
    return r < 0 ? note_fd(task, (int)r, "write to", fd) : r;
}

int sel_fsync(struct sel_task *task, int fd)
{
    int r = sel_sys_fsync(sel_task_co(task), fd);
    return r < 0 ? note_fd(task, r, "sync", fd) : 0;
}

int sel_close(struct sel_task *task, int fd)
{
    int r = sel_sys_close(fd);
    return r < 0 ? note_fd(task, r, "close", fd) : 0;
}

/* ---- files: whole ones ---- */

/* Reads to the end into the arena, beginning with `size` bytes of room; 0 or negative. */
static int read_to_end(struct sel_task *task, int fd, size_t size, struct sel_bytes *ret)
{
    const struct sel_co *co = sel_task_co(task);
    size_t room = size + 1; /* the one more byte shows that the end is reached */
    char *p = sel_arena_alloc_raw(task->arena, room, 16);
    size_t n = 0;
    while (p) {
        ssize_t r = sel_sys_read(co, fd, p + n, room - n, -1);
        if (r == -EINTR)
            continue;
        if (r < 0)
            return (int)r;
        if (r == 0)
            break;
        n += (size_t)r;
        if (n > SEL_READ_FILE_MAX)
            return -EFBIG;
        if (n < room)
            continue;
        char *wider = sel_arena_alloc_raw(task->arena, room * 2, 16); /* it grows under us */
        if (wider)
            memcpy(wider, p, n);
        p = wider;
        room *= 2;
    }
    if (!p)
        return SEL_ENOMEM;
    *ret = (struct sel_bytes){p, n};
    return 0;
}

static int read_large(struct sel_task *task, const char *path, struct sel_bytes *ret)
{
    const struct sel_co *co = sel_task_co(task);
    int fd = sel_sys_open(co, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    struct statx info;
    int r = sel_sys_statx(co, fd, "", AT_EMPTY_PATH, &info);
    if (r == 0 && info.stx_size > SEL_READ_FILE_MAX)
        r = -EFBIG;
    if (r == 0)
        r = read_to_end(task, fd, info.stx_size > FIRST_READ_SIZE ? info.stx_size : FIRST_READ_SIZE,
                        ret);
    (void)sel_sys_close(fd); /* was only read */
    return r;
}

int sel_read_file(struct sel_task *task, const char *path, struct sel_bytes *ret)
{
    int r;
    if (sel_co_current()) {
        char *p = sel_arena_alloc_raw(task->arena, FIRST_READ_SIZE, 16);
        if (!p)
            return sel_task_note_memory(task);
        ssize_t n = sel_co_read_file(path, p, FIRST_READ_SIZE);
        if (n >= 0 && (size_t)n < FIRST_READ_SIZE) {
            *ret = (struct sel_bytes){p, (size_t)n};
            return 0;
        }
        r = n < 0 ? (int)n : read_large(task, path, ret);
    } else {
        r = read_large(task, path, ret);
    }
    return r < 0 ? note_file(task, r, "read", path) : 0;
}

/* A name beside `path` that nobody else takes: by process, time and this object. */
static char *temporary_name(struct sel_task *task, const char *path, uint32_t try)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    return sel_arena_printf(task->arena, "%.*s.%.100s.%x.%llx.%llx.%u.tmp", folder, path,
                            path + folder, (unsigned)getpid(), (unsigned long long)sel_sys_now_us(),
                            (unsigned long long)(uintptr_t)task, (unsigned)try);
}

static int open_temporary(struct sel_task *task, const char *path, char **ret_name)
{
    int fd = -EEXIST;
    for (uint32_t try = 0; try < TEMPORARY_TRIES && fd == -EEXIST; try++) {
        *ret_name = temporary_name(task, path, try);
        if (!*ret_name)
            return SEL_ENOMEM;
        fd = sel_sys_open(sel_task_co(task), *ret_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                          0666);
    }
    return fd;
}

/* A rename is durable when the folder is. */
static int sync_folder(struct sel_task *task, const char *path)
{
    const struct sel_co *co = sel_task_co(task);
    const char *slash = strrchr(path, '/');
    struct sel_str folder = slash ? (struct sel_str){path, (size_t)(slash - path)} : SEL_STR(".");
    if (slash == path)
        folder = SEL_STR("/");
    char *name = sel_arena_strdup(task->arena, folder);
    if (!name)
        return SEL_ENOMEM;
    int fd = sel_sys_open(co, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    int r = sel_sys_fsync(co, fd);
    (void)sel_sys_close(fd); /* was only synced */
    return r;
}

int sel_write_file(struct sel_task *task, const char *path, const void *p, size_t n, bool sync)
{
    const struct sel_co *co = sel_task_co(task);
    char *name = NULL;
    int fd = open_temporary(task, path, &name);
    if (fd < 0)
        return note_file(task, fd, "write", path);
    int64_t put = write_all(task, fd, p, n, -1);
    int r = put < 0 ? (int)put : 0;
    if (r == 0 && sync)
        r = sel_sys_fsync(co, fd);
    int closed = sel_sys_close(fd);
    if (r == 0)
        r = closed; /* network file systems report a full disk here */
    if (r == 0)
        r = sel_sys_rename(co, name, path);
    if (r < 0)
        (void)unlink(name); /* not through the ring: it must work after a cancellation */
    else if (sync)
        r = sync_folder(task, path);
    return r < 0 ? note_file(task, r, "write", path) : 0;
}

/* ---- files: names ---- */

int sel_stat(struct sel_task *task, const char *path, struct sel_file_info *ret)
{
    struct statx info;
    int r = sel_sys_statx(sel_task_co(task), AT_FDCWD, path, 0, &info);
    if (r < 0)
        return note_file(task, r, "stat", path);
    *ret = (struct sel_file_info){.size = info.stx_size,
                                  .modified_unix_us = (int64_t)info.stx_mtime.tv_sec * 1000000 +
                                                      info.stx_mtime.tv_nsec / 1000,
                                  .mode = info.stx_mode,
                                  .is_dir = S_ISDIR(info.stx_mode),
                                  .is_file = S_ISREG(info.stx_mode)};
    return 0;
}

int sel_rename(struct sel_task *task, const char *from, const char *to)
{
    int r = sel_sys_rename(sel_task_co(task), from, to);
    return r < 0 ? sel_task_note_os(task, r, "OSError", "rename '%s' to '%s'", from, to) : 0;
}

int sel_remove(struct sel_task *task, const char *path)
{
    int r = sel_sys_unlink(sel_task_co(task), path, 0);
    if (r == -EISDIR)
        r = sel_sys_unlink(sel_task_co(task), path, AT_REMOVEDIR);
    return r < 0 ? note_file(task, r, "remove", path) : 0;
}

static int make_dir(struct sel_task *task, const char *path, unsigned mode, bool is_last)
{
    int r = sel_sys_mkdir(sel_task_co(task), path, (mode_t)mode);
    if (r != -EEXIST)
        return r;
    struct statx info;
    r = sel_sys_statx(sel_task_co(task), AT_FDCWD, path, 0, &info);
    if (r < 0 || S_ISDIR(info.stx_mode))
        return r;
    return is_last ? -EEXIST : -ENOTDIR;
}

int sel_make_dirs(struct sel_task *task, const char *path, unsigned mode)
{
    char *p = sel_arena_strdup(task->arena, sel_str_c(path));
    if (!p)
        return sel_task_note_memory(task);
    int r = p[0] ? 0 : -ENOENT;
    for (size_t i = 1; p[0] && r == 0; i++) {
        bool is_end = p[i] == '\0';
        if (!is_end && p[i] != '/')
            continue;
        p[i] = '\0';
        r = make_dir(task, p, mode, is_end);
        if (is_end)
            break;
        p[i] = '/';
    }
    return r < 0 ? note_file(task, r, "make folder", path) : 0;
}

/* Reading a folder has no io_uring operation, so it runs beside the loop. */
struct listing {
    const char *path;
    struct sel_buf names; /* terminated, one after the other */
    int result;           /* count or negative */
};

static void read_dir(void *arg)
{
    struct listing *l = arg;
    DIR *dir = opendir(l->path);
    if (!dir) {
        l->result = -errno;
        return;
    }
    for (;;) { /* ends with the folder */
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0)
                l->result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        sel_buf_put(&l->names, entry->d_name, strlen(entry->d_name) + 1);
        l->result++;
    }
    (void)closedir(dir); /* was only read */
    if (l->result >= 0 && l->names.failed)
        l->result = SEL_ENOMEM;
}

static int by_bytes(const void *a, const void *b)
{
    return sel_str_cmp(*(const struct sel_str *)a, *(const struct sel_str *)b);
}

static int list_value(struct sel_task *task, const struct listing *l, const struct sel_value **ret)
{
    uint32_t count = (uint32_t)l->result;
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(task->arena, struct sel_str, count + 1);
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    char *all = sel_arena_memdup(task->arena, l->names.n ? (const void *)l->names.p : "",
                                 l->names.n + (l->names.n == 0));
    if (!names || !value || !all)
        return sel_task_note_memory(task);
    for (uint32_t i = 0; i < count; i++) {
        names[i] = sel_str_c(all);
        all += names[i].n + 1;
        if (!sel_str_is_utf8(names[i]))
            return sel_fail(task, "OSError", "list '%s': name '%s' is not UTF-8", l->path,
                            names[i].p);
    }
    qsort(names, count, sizeof(*names), by_bytes);
    struct sel_value_builder list;
    sel_value_begin_list(&list, task->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, sel_value_from_str(names[i]));
    if (sel_value_end(&list, value) < 0)
        return sel_task_note_memory(task);
    *ret = value;
    return 0;
}

int sel_list_dir(struct sel_task *task, const char *path, const struct sel_value **ret)
{
    struct listing l = {.path = path};
    int r = sel_sys_offload(sel_task_co(task), read_dir, &l);
    if (r == 0 && l.result < 0)
        r = l.result;
    r = r < 0 ? note_file(task, r, "list", path) : list_value(task, &l, ret);
    sel_buf_done(&l.names);
    return r;
}

/* ---- sockets ---- */

static int note_socket(struct sel_task *task, int code, const char *what, const char *peer)
{
    bool has_own_class = code == SEL_ECANCELED || code == SEL_ENOMEM || code == -ETIMEDOUT ||
                         code == -ETIME || code == SEL_ETIMEOUT;
    if (has_own_class)
        return sel_task_note_os(task, code, "ConnectionError", "%s %s", what, peer);
    return sel_fail(task, "ConnectionError", "%s %s: %s", what, peer, sel_error_text(code));
}

static int note_stream(struct sel_task *task, ssize_t code, const char *what, int fd)
{
    char peer[32];
    (void)snprintf(peer, sizeof(peer), "descriptor %d", fd);
    return note_socket(task, (int)code, what, peer);
}

/* A name is looked up by the C library, which blocks. */
struct lookup {
    const char *host;
    char port[8];
    struct addrinfo *found;
    int result; /* EAI_... */
};

static void look_up(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    l->result = getaddrinfo(l->host, l->port, &hints, &l->found);
}

static int resolve(struct sel_task *task, struct lookup *l)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    if (getaddrinfo(l->host, l->port, &hints, &l->found) == 0)
        return 0; /* a number: nothing to ask for */
    int r = sel_sys_offload(sel_task_co(task), look_up, l);
    if (r < 0)
        return sel_task_note_os(task, r, "NameError", "look up '%s'", l->host);
    if (l->result == 0)
        return 0;
    return sel_fail(task, "NameError", "look up '%s': %s", l->host, gai_strerror(l->result));
}

/* Connects to one address: the descriptor or negative. */
static int try_address(struct sel_task *task, const struct addrinfo *a, int64_t timeout_us)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0)
        return -errno;
    int r = sel_sys_connect(sel_task_co(task), fd, a->ai_addr, a->ai_addrlen, timeout_us);
    if (r < 0) {
        (void)sel_sys_close(fd); /* nothing was sent on it */
        return r;
    }
    const int on = 1; /* requests are small; waiting to fill packets only delays them */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

int sel_connect(struct sel_task *task, const char *host, uint16_t port, double timeout_s)
{
    int64_t timeout_us = us_of_seconds(timeout_s);
    int64_t end_us = timeout_us > 0 ? sel_sys_now_us() + timeout_us : 0;
    struct lookup l = {.host = host};
    (void)snprintf(l.port, sizeof(l.port), "%u", (unsigned)port);
    SEL_TRY(resolve(task, &l));
    int r = -EHOSTUNREACH;
    for (const struct addrinfo *a = l.found; a; a = a->ai_next) {
        int64_t left_us = 0;
        if (end_us > 0) {
            left_us = end_us - sel_sys_now_us();
            r = -ETIMEDOUT;
            if (left_us <= 0)
                break;
        }
        r = try_address(task, a, left_us);
        if (r >= 0 || r == SEL_ECANCELED)
            break;
    }
    freeaddrinfo(l.found);
    if (r >= 0)
        return r;
    char peer[300];
    (void)snprintf(peer, sizeof(peer), "%s:%u", host, (unsigned)port);
    return note_socket(task, r, "connect to", peer);
}

int sel_connect_unix(struct sel_task *task, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(addr.sun_path))
        return sel_fail(task, "ConnectionError",
                        "connect to '%s': a socket's path has 1 to %zu bytes", path,
                        sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return note_socket(task, -errno, "connect to", path);
    int r = sel_sys_connect(sel_task_co(task), fd, (const struct sockaddr *)&addr, sizeof(addr), 0);
    if (r >= 0)
        return fd;
    (void)sel_sys_close(fd); /* nothing was sent on it */
    return note_socket(task, r, "connect to", path);
}

int64_t sel_send(struct sel_task *task, int fd, const void *p, size_t n)
{
    const struct sel_co *co = sel_task_co(task);
    for (size_t done = 0; done < n;) {
        ssize_t r = sel_sys_send(co, fd, (const char *)p + done, n - done);
        if (r == -EINTR)
            continue;
        if (r < 0)
            return note_stream(task, r, "send to", fd);
        done += (size_t)r;
    }
    return (int64_t)n;
}

int64_t sel_recv(struct sel_task *task, int fd, void *p, size_t n, double timeout_s)
{
    ssize_t r = sel_sys_recv(sel_task_co(task), fd, p, n, us_of_seconds(timeout_s));
    return r < 0 ? note_stream(task, r, "receive from", fd) : r;
}

/* ---- subprocesses ---- */

static int note_run(struct sel_task *task, int code, const char *program, double timeout_s,
                    size_t out_max)
{
    switch (code) {
    case SEL_ETIMEOUT:
        return sel_fail(task, "TimeoutError",
                        "'%s' did not end within %g s and was killed with its group", program,
                        timeout_s);
    case SEL_ELIMIT:
        return sel_fail(task, "TooLarge", "'%s' wrote more than %zu bytes and was killed", program,
                        out_max);
    default:
        return sel_task_note_os(task, code, "OSError", "run '%s'", program);
    }
}

static bool take_bytes(struct sel_task *task, const struct sel_buf *buf, struct sel_bytes *ret)
{
    void *p =
        sel_arena_memdup(task->arena, buf->n ? (const void *)buf->p : "", buf->n + (buf->n == 0));
    *ret = (struct sel_bytes){p, buf->n};
    return p != NULL;
}

int sel_run(struct sel_task *task, const char *const *argv, struct sel_bytes in, double timeout_s,
            size_t out_max, struct sel_run_result *ret)
{
    if (!argv || !argv[0])
        return sel_fail(task, "ArgumentError", "there is no program to run");
    struct sel_subprocess_options options = {.argv = argv,
                                             .in = in,
                                             .timeout_us = us_of_seconds(timeout_s),
                                             .out_max = out_max,
                                             .err_max = out_max,
                                             .owner = sel_task_co(task)};
    struct sel_subprocess_result result;
    int r = sel_subprocess_run(&options, &result);
    if (r < 0) {
        r = note_run(task, r, argv[0], timeout_s, out_max);
    } else {
        struct sel_run_result run = {.exit_status = result.exit_status, .signal = result.signal};
        if (take_bytes(task, &result.out, &run.out) && take_bytes(task, &result.err, &run.err))
            *ret = run;
        else
            r = sel_task_note_memory(task);
    }
    sel_subprocess_result_done(&result);
    return r;
}
