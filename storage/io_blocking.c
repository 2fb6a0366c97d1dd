#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/io.h"

/* The value of the call, or -errno. An interrupted call is begun again where that is harmless. */
#define RESULT(call)                                                                               \
    ({                                                                                             \
        __typeof__(call) r_;                                                                       \
        do                                                                                         \
            r_ = (call);                                                                           \
        while (r_ < 0 && errno == EINTR);                                                          \
        r_ < 0 ? -errno : r_;                                                                      \
    })

static int blocking_open(struct sel_io *io, const char *path, int flags, mode_t mode)
{
    (void)io;
    return RESULT(open(path, flags, mode));
}

static ssize_t blocking_pread(struct sel_io *io, int fd, void *p, size_t n, int64_t offset)
{
    (void)io;
    return offset < 0 ? RESULT(read(fd, p, n)) : RESULT(pread(fd, p, n, offset));
}

static ssize_t blocking_pwrite(struct sel_io *io, int fd, const void *p, size_t n, int64_t offset)
{
    (void)io;
    return offset < 0 ? RESULT(write(fd, p, n)) : RESULT(pwrite(fd, p, n, offset));
}

static int blocking_fsync(struct sel_io *io, int fd)
{
    (void)io;
    return RESULT(fsync(fd));
}

static int blocking_close(struct sel_io *io, int fd)
{
    (void)io;
    /* Not again after EINTR: on Linux the descriptor is free by then, and may be another's. */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static int blocking_rename(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return RESULT(rename(from, to));
}

static int blocking_link(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return RESULT(link(from, to));
}

static int blocking_unlink(struct sel_io *io, const char *path)
{
    (void)io;
    return RESULT(unlink(path));
}

static int blocking_mkdir(struct sel_io *io, const char *path, mode_t mode)
{
    (void)io;
    return RESULT(mkdir(path, mode));
}

/* A futex on w->state, which is 0 until it is woken, then 1. A mutex could not lie in the waiter:
 * the waker would still unlock it when the waiter is gone. */
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
    /* `w` may be gone from here on; the kernel only compares the address. */
    (void)syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static int blocking_offload(struct sel_io *io, void (*fn)(void *arg), void *arg)
{
    (void)io;
    fn(arg); /* this thread may block */
    return 0;
}

struct sel_io *sel_io_blocking(void)
{
    static const struct sel_io_ops ops = {
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
    static struct sel_io io = {&ops}; /* never written */
    return &io;
}
