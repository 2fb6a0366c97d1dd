#include "worker/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "worker/co.h"
#include "worker/loop.h"

int64_t sel_sys_now_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this clock */
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

bool sel_sys_is_cancelled(const struct sel_co *owner)
{
    const struct sel_co *co = sel_co_current();
    if (!co)
        co = owner;
    return co && sel_loop_is_cancelled(co);
}

/* The result of a call that reports through errno. */
static int sys_result(long r)
{
    return r < 0 ? -errno : (int)r;
}

static int64_t earlier(int64_t a_us, int64_t b_us)
{
    return a_us < b_us ? a_us : b_us;
}

/* ---- waiting on a thread ---- */

static int block_sleep(const struct sel_co *owner, int64_t us)
{
    int64_t end_us = sel_sys_now_us() + us;
    for (int64_t left_us = us; left_us > 0; left_us = end_us - sel_sys_now_us()) {
        if (sel_sys_is_cancelled(owner))
            return SEL_ECANCELED;
        if (owner)
            left_us = earlier(left_us, SEL_SYS_SLICE_US);
        struct timespec ts = {left_us / 1000000, left_us % 1000000 * 1000};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL); /* EINTR: the loop goes on */
    }
    return 0;
}

static int block_poll(const struct sel_co *owner, int fd, unsigned events, int64_t timeout_us)
{
    int64_t end_us = timeout_us > 0 ? sel_sys_now_us() + timeout_us : INT64_MAX;
    struct pollfd p = {.fd = fd, .events = (short)events};
    for (;;) { /* ends with the descriptor, the time, or the cancellation */
        if (sel_sys_is_cancelled(owner))
            return SEL_ECANCELED;
        int64_t left_us = end_us == INT64_MAX ? INT64_MAX : end_us - sel_sys_now_us();
        if (left_us < 0)
            left_us = 0;
        int64_t slice_us = owner ? earlier(left_us, SEL_SYS_SLICE_US) : left_us;
        struct timespec ts = {slice_us / 1000000, slice_us % 1000000 * 1000};
        int r = ppoll(&p, 1, slice_us == INT64_MAX ? NULL : &ts, NULL);
        if (r > 0)
            return p.revents & POLLNVAL ? -EBADF : p.revents;
        if (r < 0 && errno != EINTR)
            return -errno;
        if (r == 0 && slice_us == left_us)
            return 0;
    }
}

/* Waits until `fd` is ready, so that the call that follows hardly blocks and a cancellation is
 * noticed. 0 or negative. Files are always ready. */
static int block_ready(const struct sel_co *owner, int fd, unsigned events)
{
    if (!owner)
        return 0;
    int r = block_poll(owner, fd, events, 0);
    return r < 0 ? r : 0;
}

static int block_connect(const struct sel_co *owner, int fd, const struct sockaddr *addr,
                         socklen_t n, int64_t timeout_us)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    int r = connect(fd, addr, n) < 0 ? -errno : 0;
    if (r == -EINPROGRESS || r == -EINTR) {
        r = block_poll(owner, fd, POLLOUT, timeout_us);
        int error = 0;
        socklen_t size = sizeof(error);
        if (r == 0)
            r = -ETIMEDOUT;
        else if (r > 0)
            r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? -errno : -error;
    }
    if (fcntl(fd, F_SETFL, flags) < 0 && r == 0)
        r = -errno;
    return r;
}

/* Repeats `call` while a signal interrupts it. */
#define UNINTERRUPTED(ret, call)                                                                   \
    do {                                                                                           \
        ret = (call);                                                                              \
    } while (ret < 0 && errno == EINTR)

/* ---- the calls ---- */

int sel_sys_sleep(const struct sel_co *owner, int64_t us)
{
    if (sel_co_current())
        return sel_co_sleep(us);
    return block_sleep(owner, us);
}

int sel_sys_open(const struct sel_co *owner, const char *path, int flags, mode_t mode)
{
    if (sel_co_current())
        return sel_co_openat(AT_FDCWD, path, flags, mode);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    int fd;
    UNINTERRUPTED(fd, openat(AT_FDCWD, path, flags, mode));
    return sys_result(fd);
}

ssize_t sel_sys_read(const struct sel_co *owner, int fd, void *p, size_t n, int64_t offset)
{
    if (sel_co_current())
        return sel_co_read(fd, p, n, offset);
    int r = block_ready(owner, fd, POLLIN);
    if (r < 0)
        return r;
    ssize_t got;
    UNINTERRUPTED(got, offset < 0 ? read(fd, p, n) : pread(fd, p, n, offset));
    return got < 0 ? -errno : got;
}

ssize_t sel_sys_write(const struct sel_co *owner, int fd, const void *p, size_t n, int64_t offset)
{
    if (sel_co_current())
        return sel_co_write(fd, p, n, offset);
    int r = block_ready(owner, fd, POLLOUT);
    if (r < 0)
        return r;
    ssize_t put;
    UNINTERRUPTED(put, offset < 0 ? write(fd, p, n) : pwrite(fd, p, n, offset));
    return put < 0 ? -errno : put;
}

int sel_sys_fsync(const struct sel_co *owner, int fd)
{
    if (sel_co_current())
        return sel_co_fsync(fd);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return sys_result(fsync(fd));
}

int sel_sys_close(int fd)
{
    if (sel_co_current())
        return sel_co_close(fd);
    return close(fd) < 0 && errno != EINTR ? -errno : 0; /* EINTR: Linux has closed it */
}

int sel_sys_statx(const struct sel_co *owner, int dir, const char *path, int flags,
                  struct statx *ret)
{
    if (sel_co_current())
        return sel_co_statx(dir, path, flags, STATX_BASIC_STATS, ret);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return sys_result(statx(dir, path, flags, STATX_BASIC_STATS, ret));
}

int sel_sys_rename(const struct sel_co *owner, const char *from, const char *to)
{
    if (sel_co_current())
        return sel_co_rename(from, to);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return sys_result(rename(from, to));
}

int sel_sys_unlink(const struct sel_co *owner, const char *path, int flags)
{
    if (sel_co_current())
        return sel_co_unlink(path, flags);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return sys_result(unlinkat(AT_FDCWD, path, flags));
}

int sel_sys_mkdir(const struct sel_co *owner, const char *path, mode_t mode)
{
    if (sel_co_current())
        return sel_co_mkdir(path, mode);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return sys_result(mkdir(path, mode));
}

int sel_sys_connect(const struct sel_co *owner, int fd, const struct sockaddr *addr, socklen_t n,
                    int64_t timeout_us)
{
    if (sel_co_current())
        return sel_co_connect(fd, addr, n, timeout_us);
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    return block_connect(owner, fd, addr, n, timeout_us);
}

ssize_t sel_sys_send(const struct sel_co *owner, int fd, const void *p, size_t n)
{
    if (sel_co_current())
        return sel_co_send(fd, p, n, MSG_NOSIGNAL);
    for (;;) { /* ends with the peer or the cancellation */
        int r = block_poll(owner, fd, POLLOUT, 0);
        if (r < 0)
            return r;
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put >= 0 || (errno != EINTR && errno != EAGAIN))
            return put < 0 ? -errno : put;
    }
}

ssize_t sel_sys_recv(const struct sel_co *owner, int fd, void *p, size_t n, int64_t timeout_us)
{
    if (sel_co_current())
        return sel_co_recv(fd, p, n, 0, timeout_us);
    int64_t end_us = timeout_us > 0 ? sel_sys_now_us() + timeout_us : 0;
    for (;;) { /* ends with the peer, the time, or the cancellation */
        int r = block_poll(owner, fd, POLLIN, timeout_us);
        if (r <= 0)
            return r < 0 ? r : -ETIMEDOUT;
        ssize_t got = recv(fd, p, n, MSG_DONTWAIT);
        if (got >= 0 || (errno != EINTR && errno != EAGAIN))
            return got < 0 ? -errno : got;
        if (end_us > 0) {
            timeout_us = end_us - sel_sys_now_us();
            if (timeout_us <= 0)
                return -ETIMEDOUT;
        }
    }
}

int sel_sys_poll(const struct sel_co *owner, int fd, unsigned events, int64_t timeout_us)
{
    if (sel_co_current())
        return sel_co_poll(fd, events, timeout_us);
    return block_poll(owner, fd, events, timeout_us);
}

int sel_sys_offload(const struct sel_co *owner, void (*fn)(void *arg), void *arg)
{
    if (sel_sys_is_cancelled(owner))
        return SEL_ECANCELED;
    if (sel_co_current()) {
        int r = sel_co_offload(fn, arg);
        if (r == 0 || r == SEL_ECANCELED)
            return r;
        /* no pool, or no room in it: better slowly than not at all */
    }
    fn(arg);
    return 0;
}
