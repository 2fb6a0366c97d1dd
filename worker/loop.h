/* worker/loop.h - the event loop of one thread: an io_uring, coroutines, timers, an inbox.
 *
 * All but sel_loop_post, sel_loop_stop and sel_io_wake belong to the loop's own thread. */
#ifndef SEL_WORKER_LOOP_H
#define SEL_WORKER_LOOP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/error.h"
#include "storage/io.h"
#include "worker/co.h"

struct sel_loop;
struct sel_offload; /* the bounded pool for blocking work, worker/offload.h */

struct sel_loop_options {
    uint32_t ring_entries;       /* 0: 4096; at least 8 */
    uint32_t stacks_max;         /* 0: SEL_CO_STACKS_MAX */
    struct sel_offload *offload; /* shared by the loops of a process; NULL: no blocking calls */
};

/* To be called on the thread that will run the loop (SINGLE_ISSUER). `err` names what the kernel
 * lacks. */
int sel_loop_new(const struct sel_loop_options *options, struct sel_loop **ret,
                 struct sel_error *err) SEL_WARN_UNUSED;
struct sel_loop *sel_loop_free(struct sel_loop *loop); /* no coroutine may be alive; returns NULL */

/* Runs until sel_loop_stop and every coroutine has ended. */
void sel_loop_run(struct sel_loop *loop);
/* Any thread. */
void sel_loop_stop(struct sel_loop *loop);
/* The loop of this thread, NULL if none runs. */
struct sel_loop *sel_loop_current(void);

/* Called once in every turn of the loop before it sleeps, to hand out work in batches; true: there
 * is more to do at once, do not sleep. At most one. */
void sel_loop_set_idle(struct sel_loop *loop, bool (*fn)(void *arg), void *arg);

int64_t sel_loop_now_us(const struct sel_loop *loop); /* monotonic, read once a turn */

/* ---- coroutines ---- */
/* Starts fn(arg) in a coroutine at the end of this turn, or of a later one when many start at once
 * or all stacks are in use: it waits for a stack without having one. 0, SEL_ELIMIT, SEL_ENOMEM. */
int sel_loop_spawn(struct sel_loop *loop, sel_co_fn fn, void *arg,
                   struct sel_co **ret_co) SEL_WARN_UNUSED; /* ret_co may be NULL */
/* The pending and all later suspending calls of `co`, which is alive, return SEL_ECANCELED; buffers
 * are safe: the call returns only after the kernel has let go of them. A pending call that was
 * done before the kernel heard of it returns its result (an opened descriptor is not lost). */
void sel_loop_cancel(struct sel_loop *loop, struct sel_co *co);
bool sel_loop_is_cancelled(const struct sel_co *co); /* any thread, while `co` is alive */
SEL_CO void sel_loop_yield(void);                    /* lets others run once */

/* ---- messages from other threads ---- */
struct sel_post {
    struct sel_post *next;                                    /* private */
    void (*fn)(struct sel_loop *loop, struct sel_post *post); /* runs on the loop's thread */
};
void sel_loop_post(struct sel_loop *loop, struct sel_post *post);

/* ---- timers ---- */
struct sel_timer {
    int64_t at_us;       /* sel_loop_now_us time */
    uint32_t heap_index; /* private; UINT32_MAX: not armed */
    void (*fn)(struct sel_loop *loop, struct sel_timer *timer);
};
#define SEL_TIMER_INIT                                                                             \
    {                                                                                              \
        0, UINT32_MAX, NULL                                                                        \
    }
int sel_loop_timer_start(struct sel_loop *loop, struct sel_timer *timer,
                         int64_t at_us) SEL_WARN_UNUSED; /* moves an armed one; 0 or SEL_ENOMEM */
void sel_loop_timer_stop(struct sel_loop *loop, struct sel_timer *timer);

/* ---- suspending calls; results as the system calls', or SEL_ECANCELED ----
 * On descriptors without O_NONBLOCK; one with it answers -EAGAIN as ever. A time limit that is over
 * gives -ETIMEDOUT; those with one may also return SEL_ENOMEM. */
SEL_CO int sel_co_sleep(int64_t us);
SEL_CO int sel_co_openat(int dir, const char *path, int flags, mode_t mode);
SEL_CO ssize_t sel_co_read(int fd, void *p, size_t n, int64_t offset); /* -1: the file's own */
SEL_CO ssize_t sel_co_write(int fd, const void *p, size_t n, int64_t offset);
SEL_CO int sel_co_fsync(int fd);
SEL_CO int sel_co_close(int fd); /* not cancelled: a descriptor never leaks */
SEL_CO int sel_co_statx(int dir, const char *path, int flags, unsigned mask, struct statx *ret);
SEL_CO int sel_co_rename(const char *from, const char *to);
SEL_CO int sel_co_link(const char *from, const char *to);
SEL_CO int sel_co_unlink(const char *path, int flags);
SEL_CO int sel_co_mkdir(const char *path, mode_t mode);
SEL_CO int sel_co_connect(int fd, const struct sockaddr *addr, socklen_t n, int64_t timeout_us);
SEL_CO int sel_co_accept(int fd);
SEL_CO ssize_t sel_co_send(int fd, const void *p, size_t n, int flags);
SEL_CO ssize_t sel_co_recv(int fd, void *p, size_t n, int flags,
                           int64_t timeout_us);                      /* <= 0: none */
SEL_CO int sel_co_poll(int fd, unsigned events, int64_t timeout_us); /* revents; 0: time out */
/* Reads a whole small file with open, read and close linked in one submission where the kernel
 * allows; bytes read (at most n) or -errno. */
SEL_CO ssize_t sel_co_read_file(const char *path, void *p, size_t n);
/* fn(arg) on the pool for blocking work. 0, SEL_ELIMIT (its queue is full), SEL_EUNSUPPORTED (the
 * loop has none); not cancelled once it has begun. */
SEL_CO int sel_co_offload(void (*fn)(void *arg), void *arg);

/* The storage interface of this loop (storage/io.h); the same for all its coroutines. */
struct sel_io *sel_loop_io(struct sel_loop *loop);

/* ---- counters ---- */
struct sel_loop_stats {
    uint64_t turns, submits, sqes, cqes, spawned, switches, posts;
    uint32_t alive, stacks;
};
void sel_loop_get_stats(const struct sel_loop *loop, struct sel_loop_stats *ret);

#endif
