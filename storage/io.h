/* storage/io.h - what a storage asks of the thread it runs on.
 *
 * In a worker these calls suspend the calling coroutine on the ring (worker/loop.h); elsewhere,
 * and in tests, sel_io_blocking simply blocks. Results are those of the system calls: >= 0 or
 * -errno, or SEL_ECANCELED. */
#ifndef SEL_STORAGE_IO_H
#define SEL_STORAGE_IO_H

#include <stdint.h>
#include <sys/types.h>

#include "core/assert.h"

struct sel_io;

/* One wait for a wake-up that another thread gives. Zero it, hand it over, then wait. */
struct sel_io_waiter {
    struct sel_io *io;
    int state;                  /* atomic; private to the implementation */
    void *owner;                /* private */
    struct sel_io_waiter *next; /* free for whoever holds the waiter */
};

struct sel_io_ops {
    int (*open)(struct sel_io *io, const char *path, int flags, mode_t mode);
    ssize_t (*pread)(struct sel_io *io, int fd, void *p, size_t n, int64_t offset);
    ssize_t (*pwrite)(struct sel_io *io, int fd, const void *p, size_t n, int64_t offset);
    int (*fsync)(struct sel_io *io, int fd);
    int (*close)(struct sel_io *io, int fd);
    int (*rename)(struct sel_io *io, const char *from, const char *to);
    int (*link)(struct sel_io *io, const char *from, const char *to); /* EEXIST if `to` is there */
    int (*unlink)(struct sel_io *io, const char *path);
    int (*mkdir)(struct sel_io *io, const char *path, mode_t mode);
    /* Returns once sel_io_wake ran for `w` (before or after this call). */
    void (*wait)(struct sel_io *io, struct sel_io_waiter *w);
    /* Any thread; after it `w` may be gone. */
    void (*wake)(struct sel_io_waiter *w);
    /* Runs fn(arg) on the pool for blocking calls and waits for its end. 0, or SEL_ELIMIT. */
    int (*offload)(struct sel_io *io, void (*fn)(void *arg), void *arg);
};

struct sel_io {
    const struct sel_io_ops *ops;
};

static inline void sel_io_wake(struct sel_io_waiter *w)
{
    w->io->ops->wake(w);
}

/* An io that blocks the thread; no state, shared by all. */
struct sel_io *sel_io_blocking(void);

#endif
