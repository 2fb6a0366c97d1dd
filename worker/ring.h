/* worker/ring.h - the io_uring of one thread. Alone in knowing liburing.
 *
 * An operation is prepared into the submission queue, handed to the kernel by the next
 * sel_ring_enter, and its end is told by sel_ring_reap, which calls op->done. What an operation
 * points to (its sel_ring_op, buffers, paths, addresses) must stay until then, cancelled or not.
 *
 * Room first: sel_ring_reserve, then as many prepare calls as it was asked for; these cannot fail.
 * All of it belongs to the thread that opened the ring. Needs Linux 6.1. */
#ifndef SEL_WORKER_RING_H
#define SEL_WORKER_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/assert.h"
#include "core/error.h"

struct sel_ring;

struct sel_ring_op {
    /* The result as of the system call: >= 0 or -errno. Called by sel_ring_reap. */
    void (*done)(struct sel_ring_op *op, int32_t result);
};

/* `entries`: of the submission queue, a power of two or rounded up to one. 0, SEL_ENOMEM,
 * SEL_EUNSUPPORTED (`err` names what the kernel lacks or who forbids it) or -errno. */
int sel_ring_open(uint32_t entries, struct sel_ring **ret, struct sel_error *err) SEL_WARN_UNUSED;
/* Nothing may be under way that points to freed memory. NULL allowed; returns NULL. */
struct sel_ring *sel_ring_close(struct sel_ring *ring);

/* Room for `count` operations that shall lie in one submission; submits to make it. 0, or -EBUSY
 * and the like: the kernel takes no more until completions have been reaped. */
int sel_ring_reserve(struct sel_ring *ring, uint32_t count) SEL_WARN_UNUSED;

void sel_ring_openat(struct sel_ring *ring, struct sel_ring_op *op, int dir, const char *path,
                     int flags, mode_t mode);
void sel_ring_read(struct sel_ring *ring, struct sel_ring_op *op, int fd, void *p, size_t n,
                   int64_t offset); /* -1: the file's own */
void sel_ring_write(struct sel_ring *ring, struct sel_ring_op *op, int fd, const void *p, size_t n,
                    int64_t offset);
void sel_ring_fsync(struct sel_ring *ring, struct sel_ring_op *op, int fd);
void sel_ring_close_fd(struct sel_ring *ring, struct sel_ring_op *op, int fd);
void sel_ring_statx(struct sel_ring *ring, struct sel_ring_op *op, int dir, const char *path,
                    int flags, unsigned mask, struct statx *ret);
void sel_ring_rename(struct sel_ring *ring, struct sel_ring_op *op, const char *from,
                     const char *to);
void sel_ring_link(struct sel_ring *ring, struct sel_ring_op *op, const char *from, const char *to);
void sel_ring_unlink(struct sel_ring *ring, struct sel_ring_op *op, const char *path, int flags);
void sel_ring_mkdir(struct sel_ring *ring, struct sel_ring_op *op, const char *path, mode_t mode);
void sel_ring_connect(struct sel_ring *ring, struct sel_ring_op *op, int fd,
                      const struct sockaddr *addr, socklen_t n);
void sel_ring_accept(struct sel_ring *ring, struct sel_ring_op *op, int fd);
void sel_ring_send(struct sel_ring *ring, struct sel_ring_op *op, int fd, const void *p, size_t n,
                   int flags);
void sel_ring_recv(struct sel_ring *ring, struct sel_ring_op *op, int fd, void *p, size_t n,
                   int flags);
void sel_ring_poll(struct sel_ring *ring, struct sel_ring_op *op, int fd, unsigned events);

/* Open, read and close of one file, each begun by the kernel when the one before has ended;
 * 3 operations to reserve. The descriptor is slot `slot` (below SEL_RING_SLOTS) of the ring's own
 * table and never one of the process. A failed open ends the two others with -ECANCELED; the close
 * runs whatever the read does. */
#define SEL_RING_SLOTS 1024u
void sel_ring_read_file(struct sel_ring *ring, struct sel_ring_op *open_op,
                        struct sel_ring_op *read_op, struct sel_ring_op *close_op, uint32_t slot,
                        const char *path, void *p, size_t n);
/* Whether the ring has that table. */
bool sel_ring_has_slots(const struct sel_ring *ring);

/* Asks the kernel to end `op` early; op->done is called as ever, with -ECANCELED or with what was
 * reached before. cancel->done hears 0 (found), -EALREADY (runs; has been interrupted) or -ENOENT:
 * has ended, or, in a chain, has not begun, and then this call had no effect. 1 to reserve. */
void sel_ring_cancel(struct sel_ring *ring, struct sel_ring_op *cancel,
                     const struct sel_ring_op *op);

/* Hands over what was prepared. `wait`: sleeps until something completes or `timeout_us`
 * (INT64_MAX: none) is over; else only collects what has completed, with no system call if there is
 * nothing to do. It may do less (a signal, a full completion queue): reap and call it again. */
void sel_ring_enter(struct sel_ring *ring, bool wait, int64_t timeout_us);
/* Operations that wait for sel_ring_enter. */
uint32_t sel_ring_prepared(const struct sel_ring *ring);
/* The kernel holds back completions (it works off some 20 an enter): entering again would bring
 * them at once. */
bool sel_ring_has_more(const struct sel_ring *ring);
/* Calls op->done of what has completed; how many. */
uint32_t sel_ring_reap(struct sel_ring *ring);

struct sel_ring_stats {
    uint64_t submits, sqes, cqes; /* submits: system calls made */
};
void sel_ring_get_stats(const struct sel_ring *ring, struct sel_ring_stats *ret);

#endif
