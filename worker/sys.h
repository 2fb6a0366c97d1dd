/* worker/sys.h - system calls for the code of tasks: in a coroutine they suspend it on the ring,
 * elsewhere (`blocking: true`, on a thread of the pool) they block the thread.
 *
 * Results are those of the system calls: >= 0 or -errno; SEL_ECANCELED after a cancellation.
 * `owner` is the coroutine whose cancellation counts for a blocking call, which looks at it every
 * SEL_SYS_SLICE_US while it waits; NULL: nothing cancels it. A coroutine is its own owner. */
#ifndef SEL_WORKER_SYS_H
#define SEL_WORKER_SYS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/assert.h"

struct sel_co;

#define SEL_SYS_SLICE_US (INT64_C(20) * 1000)

bool sel_sys_is_cancelled(const struct sel_co *owner);
int64_t sel_sys_now_us(void); /* monotonic */
int sel_sys_sleep(const struct sel_co *owner, int64_t us) SEL_WARN_UNUSED;
int sel_sys_open(const struct sel_co *owner, const char *path, int flags,
                 mode_t mode) SEL_WARN_UNUSED;
ssize_t sel_sys_read(const struct sel_co *owner, int fd, void *p, size_t n,
                     int64_t offset) SEL_WARN_UNUSED; /* -1: the file's own */
ssize_t sel_sys_write(const struct sel_co *owner, int fd, const void *p, size_t n,
                      int64_t offset) SEL_WARN_UNUSED;
int sel_sys_fsync(const struct sel_co *owner, int fd) SEL_WARN_UNUSED;
int sel_sys_close(int fd); /* also after a cancellation */
int sel_sys_statx(const struct sel_co *owner, int dir, const char *path, int flags,
                  struct statx *ret) SEL_WARN_UNUSED; /* STATX_BASIC_STATS */
int sel_sys_rename(const struct sel_co *owner, const char *from, const char *to) SEL_WARN_UNUSED;
int sel_sys_unlink(const struct sel_co *owner, const char *path, int flags) SEL_WARN_UNUSED;
int sel_sys_mkdir(const struct sel_co *owner, const char *path, mode_t mode) SEL_WARN_UNUSED;
/* Timeouts: <= 0 none; -ETIMEDOUT when they are over. */
int sel_sys_connect(const struct sel_co *owner, int fd, const struct sockaddr *addr, socklen_t n,
                    int64_t timeout_us) SEL_WARN_UNUSED;
ssize_t sel_sys_send(const struct sel_co *owner, int fd, const void *p, size_t n) SEL_WARN_UNUSED;
ssize_t sel_sys_recv(const struct sel_co *owner, int fd, void *p, size_t n,
                     int64_t timeout_us) SEL_WARN_UNUSED;
/* revents; 0 at the time out. */
int sel_sys_poll(const struct sel_co *owner, int fd, unsigned events,
                 int64_t timeout_us) SEL_WARN_UNUSED;
/* Runs fn(arg), which may block for long, beside the loop: on the pool if this is a coroutine and
 * there is room in it. */
int sel_sys_offload(const struct sel_co *owner, void (*fn)(void *arg), void *arg) SEL_WARN_UNUSED;

#endif
