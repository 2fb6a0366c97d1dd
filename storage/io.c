#include "storage/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INTERRUPTED_MAX 1000 /* restarts of one call; more is a broken signal set-up */

/* The result of a call, restarted while a signal interrupts it, or -errno. */
#define CALL(type, expr)                                                                           \
    ({                                                                                             \
        type r_ = -1;                                                                              \
        errno = EINTR;                                                                             \
        for (int i_ = 0; i_ < INTERRUPTED_MAX && r_ < 0 && errno == EINTR; i_++)                   \
            r_ = (expr);                                                                           \
        r_ < 0 ? (type)-errno : r_;                                                                \
    })

static int blocking_open(struct sel_io *io, const char *path, int flags, mode_t mode)
{
    (void)io;
    return CALL(int, open(path, flags | O_CLOEXEC, mode));
}

static ssize_t blocking_pread(struct sel_io *io, int fd, void *p, size_t n, int64_t offset)
{
    (void)io;
    return CALL(ssize_t, pread(fd, p, n, offset));
}

static ssize_t blocking_pwrite(struct sel_io *io, int fd, const void *p, size_t n, int64_t offset)
{
    (void)io;
    return CALL(ssize_t, pwrite(fd, p, n, offset));
}

static int blocking_fsync(struct sel_io *io, int fd)
{
    (void)io;
    return CALL(int, fsync(fd));
}

static int blocking_close(struct sel_io *io, int fd)
{
    (void)io;
    /* Not restarted: Linux has given the descriptor back even when it says EINTR. */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static int blocking_rename(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return CALL(int, rename(from, to));
}

static int blocking_link(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return CALL(int, link(from, to));
}

static int blocking_unlink(struct sel_io *io, const char *path)
{
    (void)io;
    return CALL(int, unlink(path));
}

static int blocking_mkdir(struct sel_io *io, const char *path, mode_t mode)
{
    (void)io;
    return CALL(int, mkdir(path, mode));
}

static void blocking_wait(struct sel_io *io, struct sel_io_waiter *w)
{
    (void)io;
    while (__atomic_load_n(&w->state, __ATOMIC_ACQUIRE) == 0)
        (void)syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void blocking_wake(struct sel_io_waiter *w)
{
    int *state = &w->state;
    __atomic_store_n(state, 1, __ATOMIC_RELEASE);
    /* From here on `w` may be gone; the kernel only compares the address with those that wait, and
     * a stranger who happens to wait there looks at its own state again. */
    (void)syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int blocking_offload(struct sel_io *io, void (*fn)(void *arg), void *arg)
{
    (void)io;
    fn(arg);
    return 0;
}

static const struct sel_io_ops blocking_ops = {
    .open = blocking_open,
    .pread = blocking_pread,
    .pwrite = blocking_pwrite,
    .fsync = blocking_fsync,
    .close = blocking_close,
    .rename = blocking_rename,
    .link = blocking_link,
    .unlink = blocking_unlink,
    .mkdir = blocking_mkdir,
    .wait = blocking_wait,
    .wake = blocking_wake,
    .offload = blocking_offload,
};

struct sel_io *sel_io_blocking(void)
{
    static struct sel_io io = {&blocking_ops}; /* never changes */
    return &io;
}
