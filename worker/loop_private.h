/* worker/loop_private.h - what worker/loop.c and worker/loop_calls.c share; for nobody else.
 *
 * How a suspending call works: it sits on its coroutine's stack as a struct sel_loop_wait, puts
 * itself into task->wait with a function that ends it early, and suspends until somebody calls
 * sel_loop_ready. Whatever the kernel or another thread may still touch lies on that stack, so a
 * call returns only when all of it has been given back, cancelled or not. */
#ifndef SEL_WORKER_LOOP_PRIVATE_H
#define SEL_WORKER_LOOP_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/io.h"
#include "worker/co.h"
#include "worker/loop.h"
#include "worker/mpsc.h"
#include "worker/ring.h"
#include "worker/timer.h"

/* What a coroutine waits for. */
struct sel_loop_wait {
    void (*cancel)(struct sel_loop *loop, struct sel_loop_wait *wait);
};

/* The loop's part of a coroutine (sel_co_space). */
struct sel_strand {
    struct sel_loop *loop;
    struct sel_strand *next;    /* in `ready` or `fresh` */
    struct sel_loop_wait *wait; /* NULL: runs, is ready, or waits for what cannot be cut short */
    bool is_cancelled;
    bool is_ready; /* in `ready` */
};
_Static_assert(sizeof(struct sel_strand) <= SEL_CO_SPACE, "the coroutine's space is too small");

struct sel_strands {
    struct sel_strand *first, *last;
};

/* Something that another thread writes to wake a sleeping loop. */
struct sel_loop_bell {
    struct sel_ring_op op, cancel;
    int fd; /* an eventfd */
    uint64_t count;
    bool is_armed, is_cancelling;
};

struct sel_loop {
    struct sel_io io; /* first: a struct sel_io * of ours is a loop */
    struct sel_ring *ring;
    struct sel_co_pool *pool;
    struct sel_timers timers;
    struct sel_strands ready; /* go on in the next turn */
    struct sel_strands fresh; /* have not started, and have no stack yet */
    uint32_t held_back_turns; /* in which none of `fresh` was started */
    int64_t now_us;
    bool (*idle)(void *arg);
    void *idle_arg;
    struct sel_offload *offload;
    struct sel_loop_bell bell;
    uint64_t slots[SEL_RING_SLOTS / 64]; /* a bit: the ring's slot is free */
    uint64_t turns, spawned, switches, posts;

    uint8_t pad[64];       /* what other threads touch lies on cache lines of its own */
    struct sel_mpsc inbox; /* struct sel_post */
    struct sel_mpsc woken; /* struct sel_io_waiter, by its `next` */
    atomic_bool is_asleep;
    atomic_bool is_stopping;
    atomic_uint visitors; /* threads that are handing something over */
};

/* The running coroutine's part; asserts that there is one. */
struct sel_strand *sel_loop_strand(void);
/* Appends a suspended coroutine to those that run in the next turn. */
void sel_loop_ready(struct sel_strand *strand);
/* Suspends until sel_loop_ready; `wait` may be NULL: cannot be cut short. */
void sel_loop_suspend(struct sel_strand *strand, struct sel_loop_wait *wait);
/* Room in the ring. A call of a coroutine lets others run while the kernel takes no more; whoever
 * may not suspend collects completions on the spot. */
SEL_CO void sel_loop_reserve(struct sel_loop *loop, uint32_t count);
void sel_loop_reserve_now(struct sel_loop *loop, uint32_t count);
int64_t sel_loop_clock_us(void);                    /* CLOCK_MONOTONIC */
void sel_loop_wake_waiter(struct sel_io_waiter *w); /* sel_io_ops.wake */

extern const struct sel_io_ops sel_loop_io_ops; /* worker/loop_calls.c */

#endif
