/* The suspending calls of worker/loop.h and, on top of them, the storage interface of a loop. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "worker/loop_private.h"
#include "worker/offload.h"

/* One operation of the ring and the coroutine that waits for it; and, if it shall end early, the
 * cancellation, whose own end must be waited for too. */
struct call {
    struct sel_loop_wait wait;
    struct sel_ring_op op, cancel;
    struct sel_timer timer;
    struct sel_strand *strand;
    int32_t result;
    bool is_done, is_cancelling, is_timed_out;
};

#define CONTAINER(type, member, p) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static void on_done(struct sel_ring_op *op, int32_t result)
{
    struct call *call = CONTAINER(struct call, op, op);
    call->result = result;
    call->is_done = true;
    sel_timers_stop(&call->strand->loop->timers, &call->timer);
    if (!call->is_cancelling)
        sel_loop_ready(call->strand);
}

static void on_cancelled(struct sel_ring_op *op, int32_t result)
{
    struct call *call = CONTAINER(struct call, cancel, op);
    (void)result; /* found, or interrupted, or ended: in any case `op` ends */
    call->is_cancelling = false;
    if (call->is_done)
        sel_loop_ready(call->strand);
}

static void cancel_call(struct sel_loop *loop, struct sel_loop_wait *wait)
{
    struct call *call = CONTAINER(struct call, wait, wait);
    if (call->is_cancelling)
        return; /* the time limit has done it */
    call->is_cancelling = true;
    sel_loop_reserve_now(loop, 1);
    sel_ring_cancel(loop->ring, &call->cancel, &call->op);
}

static void on_timeout(struct sel_loop *loop, struct sel_timer *timer)
{
    struct call *call = CONTAINER(struct call, timer, timer);
    SEL_ASSERT(!call->is_done); /* that stops the timer */
    call->is_timed_out = true;
    cancel_call(loop, &call->wait);
}

/* Makes room for one operation. false: the coroutine is cancelled. */
static bool begin(struct call *call)
{
    call->strand = sel_loop_strand();
    call->wait.cancel = cancel_call;
    call->op.done = on_done;
    call->cancel.done = on_cancelled;
    call->timer.heap_index = UINT32_MAX;
    call->is_done = call->is_cancelling = call->is_timed_out = false;
    if (call->strand->is_cancelled)
        return false;
    sel_loop_reserve(call->strand->loop, 1);
    return !call->strand->is_cancelled; /* perhaps while it waited for room */
}

/* Waits for the operation that was prepared. */
static int32_t finish(struct call *call)
{
    sel_loop_suspend(call->strand, &call->wait);
    if (__builtin_expect(call->result >= 0, 1))
        return call->result;
    /* A worker thread of the kernel is told by a signal, hence EINTR. */
    bool is_ended_early = call->result == -ECANCELED || call->result == -EINTR;
    if (call->strand->is_cancelled && is_ended_early)
        return SEL_ECANCELED;
    if (call->is_timed_out && is_ended_early)
        return -ETIMEDOUT;
    return call->result;
}

/* After begin: limits the call to timeout_us if that is positive. */
static int limit(struct call *call, int64_t timeout_us)
{
    if (timeout_us <= 0)
        return 0;
    int64_t now_us = sel_loop_clock_us();
    int64_t at_us = timeout_us < INT64_MAX - now_us ? now_us + timeout_us : INT64_MAX - 1;
    call->timer.fn = on_timeout;
    return sel_timers_start(&call->strand->loop->timers, &call->timer, at_us);
}

static inline struct sel_ring *ring_of(const struct call *call)
{
    return call->strand->loop->ring;
}

/* ---- files ---- */

int sel_co_openat(int dir, const char *path, int flags, mode_t mode)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_openat(ring_of(&call), &call.op, dir, path, flags, mode);
    return finish(&call);
}

ssize_t sel_co_read(int fd, void *p, size_t n, int64_t offset)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_read(ring_of(&call), &call.op, fd, p, n, offset);
    return finish(&call);
}

ssize_t sel_co_write(int fd, const void *p, size_t n, int64_t offset)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_write(ring_of(&call), &call.op, fd, p, n, offset);
    return finish(&call);
}

int sel_co_fsync(int fd)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_fsync(ring_of(&call), &call.op, fd);
    return finish(&call);
}

int sel_co_close(int fd)
{
    struct call call;
    (void)begin(&call); /* whatever it says: but room there must be */
    sel_loop_reserve(call.strand->loop, 1);
    sel_ring_close_fd(ring_of(&call), &call.op, fd);
    sel_loop_suspend(call.strand, NULL);
    return call.result;
}

int sel_co_statx(int dir, const char *path, int flags, unsigned mask, struct statx *ret)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_statx(ring_of(&call), &call.op, dir, path, flags, mask, ret);
    return finish(&call);
}

int sel_co_rename(const char *from, const char *to)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_rename(ring_of(&call), &call.op, from, to);
    return finish(&call);
}

int sel_co_link(const char *from, const char *to)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_link(ring_of(&call), &call.op, from, to);
    return finish(&call);
}

int sel_co_unlink(const char *path, int flags)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_unlink(ring_of(&call), &call.op, path, flags);
    return finish(&call);
}

int sel_co_mkdir(const char *path, mode_t mode)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_mkdir(ring_of(&call), &call.op, path, mode);
    return finish(&call);
}

/* ---- whole files ---- */

/* The three operations of one chain: open, read, close. */
struct file_call {
    struct sel_loop_wait wait;
    struct sel_ring_op ops[3], cancel;
    struct sel_strand *strand;
    uint32_t ended; /* how many of ops */
    bool is_cancelling;
    int32_t open_result, read_result;
};

/* Ends the open or the read, whichever is under way; the close takes no time. */
static void cancel_file(struct sel_loop *loop, struct sel_loop_wait *wait)
{
    struct file_call *call = CONTAINER(struct file_call, wait, wait);
    if (call->is_cancelling || call->ended >= 2)
        return;
    call->is_cancelling = true;
    sel_loop_reserve_now(loop, 1);
    sel_ring_cancel(loop->ring, &call->cancel, &call->ops[call->ended]);
}

static void on_file_cancelled(struct sel_ring_op *op, int32_t result)
{
    struct file_call *call = CONTAINER(struct file_call, cancel, op);
    call->is_cancelling = false;
    if (call->ended == 3)
        sel_loop_ready(call->strand);
    else if (result == -ENOENT) /* the open has ended and the read has not begun: try again */
        cancel_file(call->strand->loop, &call->wait);
}

static void on_file_opened(struct sel_ring_op *op, int32_t result)
{
    struct file_call *call = CONTAINER(struct file_call, ops[0], op);
    call->ended = 1;
    call->open_result = result;
    if (call->strand->is_cancelled) /* what was cancelled was the open: now the read is next */
        cancel_file(call->strand->loop, &call->wait);
}

static void on_file_read(struct sel_ring_op *op, int32_t result)
{
    struct file_call *call = CONTAINER(struct file_call, ops[1], op);
    call->ended = 2;
    call->read_result = result;
}

/* The last of a chain ends last, also when the first has failed. */
static void on_file_closed(struct sel_ring_op *op, int32_t result)
{
    struct file_call *call = CONTAINER(struct file_call, ops[2], op);
    (void)result; /* nothing was written to the file, so nothing can be lost */
    call->ended = 3;
    if (!call->is_cancelling)
        sel_loop_ready(call->strand);
}

/* SEL_RING_SLOTS if all are in use. */
static uint32_t take_slot(struct sel_loop *loop)
{
    for (uint32_t i = 0; i < SEL_COUNT(loop->slots); i++) {
        if (loop->slots[i] == 0)
            continue;
        uint32_t bit = (uint32_t)__builtin_ctzll(loop->slots[i]);
        loop->slots[i] &= loop->slots[i] - 1;
        return i * 64 + bit;
    }
    return SEL_RING_SLOTS;
}

static void give_slot(struct sel_loop *loop, uint32_t slot)
{
    loop->slots[slot / 64] |= UINT64_C(1) << slot % 64;
}

static ssize_t read_file_linked(struct sel_strand *strand, uint32_t slot, const char *path, void *p,
                                size_t n)
{
    struct file_call call = {
        .wait = {cancel_file},
        .ops = {{on_file_opened}, {on_file_read}, {on_file_closed}},
        .cancel = {on_file_cancelled},
        .strand = strand,
    };
    sel_ring_read_file(strand->loop->ring, &call.ops[0], &call.ops[1], &call.ops[2], slot, path, p,
                       n);
    sel_loop_suspend(strand, &call.wait);
    int32_t r = call.open_result < 0 ? call.open_result : call.read_result;
    if (strand->is_cancelled && (r == -ECANCELED || r == -EINTR))
        return SEL_ECANCELED;
    return r;
}

static ssize_t read_file_in_steps(const char *path, void *p, size_t n)
{
    int fd = sel_co_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    ssize_t r = sel_co_read(fd, p, n, 0);
    (void)sel_co_close(fd); /* as in on_file_closed */
    return r;
}

ssize_t sel_co_read_file(const char *path, void *p, size_t n)
{
    struct sel_strand *strand = sel_loop_strand();
    struct sel_loop *loop = strand->loop;
    if (strand->is_cancelled)
        return SEL_ECANCELED;
    sel_loop_reserve(loop, 3);
    uint32_t slot = sel_ring_has_slots(loop->ring) ? take_slot(loop) : SEL_RING_SLOTS;
    if (slot == SEL_RING_SLOTS || strand->is_cancelled)
        return read_file_in_steps(path, p, n);
    ssize_t r = read_file_linked(strand, slot, path, p, n);
    give_slot(loop, slot);
    return r;
}

/* ---- sockets ---- */

int sel_co_connect(int fd, const struct sockaddr *addr, socklen_t n, int64_t timeout_us)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    int r = limit(&call, timeout_us);
    if (r < 0)
        return r;
    sel_ring_connect(ring_of(&call), &call.op, fd, addr, n);
    return finish(&call);
}

int sel_co_accept(int fd)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_accept(ring_of(&call), &call.op, fd);
    return finish(&call);
}

ssize_t sel_co_send(int fd, const void *p, size_t n, int flags)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    sel_ring_send(ring_of(&call), &call.op, fd, p, n, flags);
    return finish(&call);
}

ssize_t sel_co_recv(int fd, void *p, size_t n, int flags, int64_t timeout_us)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    int r = limit(&call, timeout_us);
    if (r < 0)
        return r;
    sel_ring_recv(ring_of(&call), &call.op, fd, p, n, flags);
    return finish(&call);
}

int sel_co_poll(int fd, unsigned events, int64_t timeout_us)
{
    struct call call;
    if (!begin(&call))
        return SEL_ECANCELED;
    int r = limit(&call, timeout_us);
    if (r < 0)
        return r;
    sel_ring_poll(ring_of(&call), &call.op, fd, events);
    r = finish(&call);
    return r == -ETIMEDOUT ? 0 : r;
}

/* ---- time ---- */

struct sleep_call {
    struct sel_loop_wait wait;
    struct sel_timer timer;
    struct sel_strand *strand;
};

static void on_slept(struct sel_loop *loop, struct sel_timer *timer)
{
    (void)loop;
    sel_loop_ready(CONTAINER(struct sleep_call, timer, timer)->strand);
}

static void cancel_sleep(struct sel_loop *loop, struct sel_loop_wait *wait)
{
    struct sleep_call *call = CONTAINER(struct sleep_call, wait, wait);
    sel_timers_stop(&loop->timers, &call->timer);
    sel_loop_ready(call->strand);
}

int sel_co_sleep(int64_t us)
{
    struct sel_strand *strand = sel_loop_strand();
    if (strand->is_cancelled)
        return SEL_ECANCELED;
    if (us <= 0) {
        sel_loop_yield();
        return strand->is_cancelled ? SEL_ECANCELED : 0;
    }
    struct sleep_call call = {{cancel_sleep}, SEL_TIMER_INIT, strand};
    call.timer.fn = on_slept;
    /* From now, not from the turn's time: what ran in between must not shorten the sleep. */
    int64_t now_us = sel_loop_clock_us();
    int64_t at_us = us < INT64_MAX - now_us ? now_us + us : INT64_MAX - 1;
    int r = sel_timers_start(&strand->loop->timers, &call.timer, at_us);
    if (r < 0)
        return r;
    sel_loop_suspend(strand, &call.wait);
    return strand->is_cancelled ? SEL_ECANCELED : 0;
}

/* ---- blocking work ---- */

struct offload_call {
    struct sel_loop_wait wait;
    struct sel_offload_job job;
    struct sel_post post;
    struct sel_strand *strand;
    void (*fn)(void *arg);
    void *arg;
    bool is_dropped;
};

static void on_offload_ended(struct sel_loop *loop, struct sel_post *post)
{
    (void)loop;
    sel_loop_ready(CONTAINER(struct offload_call, post, post)->strand);
}

/* On a thread of the pool. */
static void run_offloaded(struct sel_offload_job *job)
{
    struct offload_call *call = CONTAINER(struct offload_call, job, job);
    call->fn(call->arg);
    sel_loop_post(call->strand->loop, &call->post); /* `call` may be gone after this */
}

static void cancel_offload(struct sel_loop *loop, struct sel_loop_wait *wait)
{
    struct offload_call *call = CONTAINER(struct offload_call, wait, wait);
    if (!sel_offload_cancel(loop->offload, &call->job))
        return; /* runs, or has: its end comes by post */
    call->is_dropped = true;
    sel_loop_ready(call->strand);
}

int sel_co_offload(void (*fn)(void *arg), void *arg)
{
    struct sel_strand *strand = sel_loop_strand();
    if (strand->is_cancelled)
        return SEL_ECANCELED;
    if (!strand->loop->offload)
        return SEL_EUNSUPPORTED;
    struct offload_call call = {.wait = {cancel_offload},
                                .job = {.fn = run_offloaded},
                                .post = {.fn = on_offload_ended},
                                .strand = strand,
                                .fn = fn,
                                .arg = arg};
    int r = sel_offload_submit(strand->loop->offload, &call.job);
    if (r < 0)
        return r;
    sel_loop_suspend(strand, &call.wait);
    return call.is_dropped ? SEL_ECANCELED : 0;
}

/* ---- storage/io.h ---- */

static int io_open(struct sel_io *io, const char *path, int flags, mode_t mode)
{
    (void)io; /* the running coroutine knows its loop */
    return sel_co_openat(AT_FDCWD, path, flags, mode);
}

static ssize_t io_pread(struct sel_io *io, int fd, void *p, size_t n, int64_t offset)
{
    (void)io;
    return sel_co_read(fd, p, n, offset);
}

static ssize_t io_pwrite(struct sel_io *io, int fd, const void *p, size_t n, int64_t offset)
{
    (void)io;
    return sel_co_write(fd, p, n, offset);
}

static int io_fsync(struct sel_io *io, int fd)
{
    (void)io;
    return sel_co_fsync(fd);
}

static int io_close(struct sel_io *io, int fd)
{
    (void)io;
    return sel_co_close(fd);
}

static int io_rename(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return sel_co_rename(from, to);
}

static int io_link(struct sel_io *io, const char *from, const char *to)
{
    (void)io;
    return sel_co_link(from, to);
}

static int io_unlink(struct sel_io *io, const char *path)
{
    (void)io;
    return sel_co_unlink(path, 0);
}

static int io_mkdir(struct sel_io *io, const char *path, mode_t mode)
{
    (void)io;
    return sel_co_mkdir(path, mode);
}

/* Not cut short by a cancellation: whoever will wake holds a pointer into this coroutine's stack.
 */
static void io_wait(struct sel_io *io, struct sel_io_waiter *w)
{
    struct sel_strand *strand = sel_loop_strand();
    SEL_ASSERT(w->io == io && io == &strand->loop->io);
    if (w->state == 1)
        return; /* woken before */
    w->owner = strand;
    sel_loop_suspend(strand, NULL);
    SEL_ASSERT(w->state == 1);
}

static int io_offload(struct sel_io *io, void (*fn)(void *arg), void *arg)
{
    (void)io;
    return sel_co_offload(fn, arg);
}

const struct sel_io_ops sel_loop_io_ops = {
    .open = io_open,
    .pread = io_pread,
    .pwrite = io_pwrite,
    .fsync = io_fsync,
    .close = io_close,
    .rename = io_rename,
    .link = io_link,
    .unlink = io_unlink,
    .mkdir = io_mkdir,
    .wait = io_wait,
    .wake = sel_loop_wake_waiter,
    .offload = io_offload,
};
