#include "worker/loop.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "worker/loop_private.h"

#define RING_ENTRIES_DEFAULT 4096u
#define RING_ENTRIES_MIN 8u /* a chain lies in one submission */
/* New coroutines start until they have asked this much of the kernel in a turn, and not before what
 * earlier ones asked for has been collected. So those whose files are in the cache end before the
 * next ones start, on the same few warm stacks; 10,000 that start together touch a stack of their
 * own each, and take three times as long (perf/bench_loop.c). */
#define START_OPERATIONS_MAX 96u
#define START_MAX 256u /* a turn, those that ask for nothing included */
#define HOLD_BACK_TURNS                                                                            \
    8u /* then some start all the same: others may keep the kernel busy for ever */

static _Thread_local struct sel_loop *current_loop;

/* ---- coroutines that are ready ---- */

static void append(struct sel_strands *list, struct sel_strand *strand)
{
    strand->next = NULL;
    if (list->last)
        list->last->next = strand;
    else
        list->first = strand;
    list->last = strand;
}

static struct sel_strand *take_first(struct sel_strands *list)
{
    struct sel_strand *strand = list->first;
    if (strand) {
        list->first = strand->next;
        if (!list->first)
            list->last = NULL;
    }
    return strand;
}

struct sel_strand *sel_loop_strand(void)
{
    struct sel_co *co = sel_co_current();
    SEL_ASSERT(co); /* SEL_CO functions are for coroutines */
    return sel_co_space(co);
}

void sel_loop_ready(struct sel_strand *strand)
{
    SEL_ASSERT(!strand->is_ready);
    strand->is_ready = true;
    strand->wait = NULL;
    append(&strand->loop->ready, strand);
}

void sel_loop_suspend(struct sel_strand *strand, struct sel_loop_wait *wait)
{
    strand->wait = wait;
    sel_co_suspend();
}

void sel_loop_reserve(struct sel_loop *loop, uint32_t count)
{
    while (__builtin_expect(sel_ring_reserve(loop->ring, count) < 0, 0))
        sel_loop_yield();
}

void sel_loop_reserve_now(struct sel_loop *loop, uint32_t count)
{
    while (__builtin_expect(sel_ring_reserve(loop->ring, count) < 0, 0))
        (void)sel_ring_reap(loop->ring);
}

int sel_loop_spawn(struct sel_loop *loop, sel_co_fn fn, void *arg, struct sel_co **ret_co)
{
    struct sel_co *co;
    int r = sel_co_new(loop->pool, fn, arg, &co);
    if (r < 0)
        return r;
    struct sel_strand *strand = sel_co_space(co);
    strand->loop = loop;
    append(&loop->fresh, strand);
    loop->spawned++;
    if (ret_co)
        *ret_co = co;
    return 0;
}

void sel_loop_cancel(struct sel_loop *loop, struct sel_co *co)
{
    struct sel_strand *strand = sel_co_space(co);
    SEL_ASSERT(strand->loop == loop);
    if (strand->is_cancelled)
        return;
    /* Atomic: a task on the pool looks at it through sel_loop_is_cancelled. */
    __atomic_store_n(&strand->is_cancelled, true, __ATOMIC_RELAXED);
    if (strand->wait)
        strand->wait->cancel(loop, strand->wait);
}

bool sel_loop_is_cancelled(const struct sel_co *co)
{
    /* sel_co_space wants to write nothing; the cast is for its signature alone. */
    const struct sel_strand *strand = sel_co_space((struct sel_co *)(uintptr_t)co);
    return __atomic_load_n(&strand->is_cancelled, __ATOMIC_RELAXED);
}

void sel_loop_yield(void)
{
    struct sel_strand *strand = sel_loop_strand();
    sel_loop_ready(strand);
    sel_loop_suspend(strand, NULL);
}

/* Those that are ready now; who becomes ready meanwhile waits for the next turn. */
static void run_ready(struct sel_loop *loop)
{
    struct sel_strands now = loop->ready;
    loop->ready = (struct sel_strands){0};
    struct sel_strand *strand;
    while ((strand = take_first(&now))) {
        strand->is_ready = false;
        loop->switches++;
        (void)sel_co_resume(sel_co_of_space(strand));
    }
}

/* false: there are some, and no stack for them until another coroutine ends. */
static bool start_fresh(struct sel_loop *loop)
{
    if (sel_ring_has_more(loop->ring) && loop->held_back_turns++ < HOLD_BACK_TURNS)
        return true;
    loop->held_back_turns = 0;
    for (uint32_t i = 0; i < START_MAX && loop->fresh.first; i++) {
        struct sel_co *co = sel_co_of_space(loop->fresh.first);
        if (sel_co_prepare(co) < 0)
            return false;
        (void)take_first(&loop->fresh);
        loop->switches++;
        (void)sel_co_resume(co);
        if (sel_ring_prepared(loop->ring) >= START_OPERATIONS_MAX)
            break;
    }
    return true;
}

/* ---- other threads ---- */

/* A message may be the last thing that the loop waited for: it may end and be freed while the
 * sender is still about to ring the bell. So senders are counted, and sel_loop_free waits. */
static void visit(struct sel_loop *loop)
{
    (void)atomic_fetch_add_explicit(&loop->visitors, 1, memory_order_relaxed);
}

static void leave(struct sel_loop *loop)
{
    (void)atomic_fetch_sub_explicit(&loop->visitors, 1, memory_order_release);
}

static void ring_bell(struct sel_loop *loop)
{
    if (!atomic_load_explicit(&loop->is_asleep, memory_order_seq_cst) ||
        !atomic_exchange_explicit(&loop->is_asleep, false, memory_order_seq_cst))
        return; /* awake, or somebody else is ringing */
    const uint64_t one = 1;
    while (write(loop->bell.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void arm_bell(struct sel_loop *loop)
{
    struct sel_loop_bell *bell = &loop->bell;
    if (bell->is_armed || sel_ring_reserve(loop->ring, 1) < 0)
        return; /* full: the next turn does it, and this one does not sleep */
    sel_ring_read(loop->ring, &bell->op, bell->fd, &bell->count, sizeof(bell->count), -1);
    bell->is_armed = true;
}

static void on_bell(struct sel_ring_op *op, int32_t result)
{
    struct sel_loop_bell *bell = (struct sel_loop_bell *)op;
    (void)result; /* -ECANCELED at the end */
    bell->is_armed = false;
}

static void on_bell_cancelled(struct sel_ring_op *op, int32_t result)
{
    (void)result; /* found, or it has just ended: its own end comes too */
    ((struct sel_loop_bell *)(void *)((char *)op - offsetof(struct sel_loop_bell, cancel)))
        ->is_cancelling = false;
}

void sel_loop_post(struct sel_loop *loop, struct sel_post *post)
{
    _Static_assert(offsetof(struct sel_post, next) == 0, "a post is a list node");
    visit(loop);
    sel_mpsc_push(&loop->inbox, (struct sel_mpsc_node *)post);
    ring_bell(loop);
    leave(loop);
}

void sel_loop_stop(struct sel_loop *loop)
{
    visit(loop);
    atomic_store_explicit(&loop->is_stopping, true, memory_order_seq_cst);
    ring_bell(loop);
    leave(loop);
}

static void wake_waiter(struct sel_io_waiter *w)
{
    SEL_ASSERT(w->state == 0); /* woken once */
    w->state = 1;
    if (w->owner)
        sel_loop_ready(w->owner);
}

static void take_messages(struct sel_loop *loop)
{
    struct sel_mpsc_node *node = sel_mpsc_take(&loop->woken);
    while (node) {
        struct sel_io_waiter *w =
            (struct sel_io_waiter *)(void *)((char *)node - offsetof(struct sel_io_waiter, next));
        node = node->next;
        wake_waiter(w);
    }
    node = sel_mpsc_take(&loop->inbox);
    while (node) {
        struct sel_post *post = (struct sel_post *)node;
        node = node->next;
        loop->posts++;
        post->fn(loop, post);
    }
}

/* sel_io_ops.wake: from our own thread at once, from others by the list and the bell. */
void sel_loop_wake_waiter(struct sel_io_waiter *w)
{
    struct sel_loop *loop = (struct sel_loop *)w->io;
    if (loop == current_loop) {
        wake_waiter(w);
        return;
    }
    visit(loop);
    sel_mpsc_push(&loop->woken, (struct sel_mpsc_node *)(void *)&w->next);
    ring_bell(loop); /* not by w->io: w may be gone */
    leave(loop);
}

/* ---- timers ---- */

int64_t sel_loop_clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t sel_loop_now_us(const struct sel_loop *loop)
{
    return loop->now_us;
}

int sel_loop_timer_start(struct sel_loop *loop, struct sel_timer *timer, int64_t at_us)
{
    return sel_timers_start(&loop->timers, timer, at_us);
}

void sel_loop_timer_stop(struct sel_loop *loop, struct sel_timer *timer)
{
    sel_timers_stop(&loop->timers, timer);
}

static void fire_timers(struct sel_loop *loop)
{
    struct sel_timer *timer;
    while ((timer = sel_timers_take(&loop->timers, loop->now_us)))
        timer->fn(loop, timer);
}

/* ---- the loop ---- */

static bool has_messages(struct sel_loop *loop)
{
    return !sel_mpsc_is_empty(&loop->inbox) || !sel_mpsc_is_empty(&loop->woken);
}

static bool is_finished(struct sel_loop *loop)
{
    return atomic_load_explicit(&loop->is_stopping, memory_order_seq_cst) &&
           sel_co_pool_alive(loop->pool) == 0 && !has_messages(loop);
}

/* Sleeps until something happens. Saying so first and looking for messages after closes the gap in
 * which a message could arrive unseen (worker/mpsc.h). */
static void sleep_in_ring(struct sel_loop *loop)
{
    int64_t timeout_us = INT64_MAX, next_us = sel_timers_next_us(&loop->timers);
    if (next_us != INT64_MAX) {
        timeout_us = next_us - sel_loop_clock_us();
        if (timeout_us < 0)
            timeout_us = 0;
    }
    atomic_store_explicit(&loop->is_asleep, true, memory_order_seq_cst);
    bool wait = loop->bell.is_armed && !has_messages(loop) && !is_finished(loop);
    sel_ring_enter(loop->ring, wait, timeout_us);
    atomic_store_explicit(&loop->is_asleep, false, memory_order_relaxed);
}

static void run_turn(struct sel_loop *loop)
{
    loop->turns++;
    loop->now_us = sel_loop_clock_us();
    take_messages(loop);
    fire_timers(loop);
    run_ready(loop);
    bool may_start = start_fresh(loop);
    bool is_busy = loop->idle && loop->idle(loop->idle_arg);
    is_busy |= loop->ready.first || (loop->fresh.first && may_start);
    arm_bell(loop);
    if (is_busy)
        sel_ring_enter(loop->ring, false, 0);
    else
        sleep_in_ring(loop);
    (void)sel_ring_reap(loop->ring);
}

void sel_loop_run(struct sel_loop *loop)
{
    SEL_ASSERT(!current_loop && !sel_co_current());
    current_loop = loop;
    while (!is_finished(loop))
        run_turn(loop);
    atomic_store_explicit(&loop->is_stopping, false, memory_order_relaxed);
    current_loop = NULL;
}

struct sel_loop *sel_loop_current(void)
{
    return current_loop;
}

void sel_loop_set_idle(struct sel_loop *loop, bool (*fn)(void *arg), void *arg)
{
    loop->idle = fn;
    loop->idle_arg = arg;
}

struct sel_io *sel_loop_io(struct sel_loop *loop)
{
    return &loop->io;
}

void sel_loop_get_stats(const struct sel_loop *loop, struct sel_loop_stats *ret)
{
    struct sel_ring_stats ring;
    sel_ring_get_stats(loop->ring, &ring);
    *ret = (struct sel_loop_stats){
        .turns = loop->turns,
        .submits = ring.submits,
        .sqes = ring.sqes,
        .cqes = ring.cqes,
        .spawned = loop->spawned,
        .switches = loop->switches,
        .posts = loop->posts,
        .alive = sel_co_pool_alive(loop->pool),
        .stacks = sel_co_pool_stacks(loop->pool),
    };
}

/* ---- making and freeing ---- */

static int open_bell(struct sel_loop *loop, struct sel_error *err)
{
    loop->bell.op.done = on_bell;
    loop->bell.cancel.done = on_bell_cancelled;
    /* Blocking: the ring waits for a value by itself; from a non-blocking one it returns EAGAIN. */
    loop->bell.fd = eventfd(0, EFD_CLOEXEC);
    if (loop->bell.fd >= 0)
        return 0;
    int r = -errno;
    return sel_error_set(err, r, (struct sel_pos){0}, "cannot make an eventfd: %s",
                         sel_error_text(r));
}

static int fill_loop(struct sel_loop *loop, const struct sel_loop_options *options,
                     struct sel_error *err)
{
    const struct sel_pos nowhere = {0};
    uint32_t entries = options->ring_entries ? options->ring_entries : RING_ENTRIES_DEFAULT;
    uint32_t stacks_max = options->stacks_max ? options->stacks_max : SEL_CO_STACKS_MAX;
    if (entries < RING_ENTRIES_MIN)
        entries = RING_ENTRIES_MIN;
    loop->io.ops = &sel_loop_io_ops;
    loop->offload = options->offload;
    memset(loop->slots, 0xff, sizeof(loop->slots));
    int r = sel_ring_open(entries, &loop->ring, err);
    if (r < 0)
        return r;
    r = open_bell(loop, err);
    if (r < 0)
        return r;
    loop->pool = sel_co_pool_new(stacks_max);
    if (!loop->pool)
        return sel_error_set(err, SEL_ENOMEM, nowhere, "no memory for the stacks of coroutines");
    loop->now_us = sel_loop_clock_us();
    return 0;
}

int sel_loop_new(const struct sel_loop_options *options, struct sel_loop **ret,
                 struct sel_error *err)
{
    const struct sel_pos nowhere = {0};
    struct sel_loop *loop = SEL_NEW(struct sel_loop);
    if (!loop)
        return sel_error_set(err, SEL_ENOMEM, nowhere, "no memory for an event loop");
    loop->bell.fd = -1;
    int r = sel_co_guard_install();
    if (r < 0) {
        sel_mem_free(loop);
        return sel_error_set(err, r, nowhere, "cannot watch for stack overflows: %s",
                             sel_error_text(r));
    }
    r = fill_loop(loop, options, err);
    if (r < 0) {
        (void)sel_loop_free(loop);
        return r;
    }
    *ret = loop;
    return 0;
}

/* The kernel must not write into `bell` once it is freed. */
static void disarm_bell(struct sel_loop *loop)
{
    if (!loop->bell.is_armed)
        return;
    sel_loop_reserve_now(loop, 1);
    sel_ring_cancel(loop->ring, &loop->bell.cancel, &loop->bell.op);
    loop->bell.is_cancelling = true;
    while (loop->bell.is_armed || loop->bell.is_cancelling) {
        sel_ring_enter(loop->ring, true, INT64_MAX);
        (void)sel_ring_reap(loop->ring);
    }
}

struct sel_loop *sel_loop_free(struct sel_loop *loop)
{
    if (!loop)
        return NULL;
    SEL_ASSERT(loop != current_loop);
    while (atomic_load_explicit(&loop->visitors, memory_order_acquire) > 0)
        (void)sched_yield();
    disarm_bell(loop);
    (void)sel_co_pool_free(loop->pool);
    (void)sel_ring_close(loop->ring);
    if (loop->bell.fd >= 0)
        (void)close(loop->bell.fd);
    sel_timers_done(&loop->timers);
    sel_co_guard_remove();
    return sel_mem_free(loop);
}
