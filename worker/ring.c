#include "worker/ring.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"

#define SHORTAGE_ENTRIES 256u /* a ring that is small enough */
#define SHORTAGE_TRIES_MAX 40
#define SHORTAGE_PAUSE_NS 50000000
#define ENTRIES_MAX 32768u
#define RW_MAX ((size_t)0x7ffff000) /* what read(2) moves at most */
#define REAP_BATCH 64u
#define PROBE_OPERATIONS 256u /* as many as there can be */

struct sel_ring {
    struct io_uring uring;
    bool has_slots;
    struct sel_ring_stats stats;
};

/* ---- opening ---- */

/* The operations that we use; all are older than the flags that we ask for, so that only a kernel
 * with parts taken out lacks one. */
static const struct {
    uint8_t opcode;
    const char *name;
} needed[] = {
    {IORING_OP_OPENAT, "openat"},     {IORING_OP_READ, "read"},
    {IORING_OP_WRITE, "write"},       {IORING_OP_FSYNC, "fsync"},
    {IORING_OP_CLOSE, "close"},       {IORING_OP_STATX, "statx"},
    {IORING_OP_RENAMEAT, "renameat"}, {IORING_OP_LINKAT, "linkat"},
    {IORING_OP_UNLINKAT, "unlinkat"}, {IORING_OP_MKDIRAT, "mkdirat"},
    {IORING_OP_CONNECT, "connect"},   {IORING_OP_ACCEPT, "accept"},
    {IORING_OP_SEND, "send"},         {IORING_OP_RECV, "recv"},
    {IORING_OP_POLL_ADD, "poll_add"}, {IORING_OP_ASYNC_CANCEL, "async_cancel"},
};

static int refuse(struct sel_error *err, int r)
{
    const struct sel_pos nowhere = {0};
    switch (r) {
    case -ENOSYS:
        return sel_error_set(err, SEL_EUNSUPPORTED, nowhere,
                             "this kernel has no io_uring; Linux 6.1 or newer is needed");
    case -EINVAL:
        return sel_error_set(err, SEL_EUNSUPPORTED, nowhere,
                             "this kernel's io_uring is too old: it lacks SINGLE_ISSUER or "
                             "DEFER_TASKRUN; Linux 6.1 or newer is needed");
    case -EPERM:
    case -EACCES:
        return sel_error_set(err, SEL_EUNSUPPORTED, nowhere,
                             "io_uring is forbidden here: see `sysctl kernel.io_uring_disabled` "
                             "and, in a container, its seccomp profile");
    case -ENOMEM:
        return sel_error_set(err, SEL_ENOMEM, nowhere,
                             "not enough memory for an io_uring: see `ulimit -l`");
    case -EMFILE:
    case -ENFILE:
        return sel_error_set(err, r, nowhere,
                             "no descriptor is left for an io_uring: see `ulimit -n`");
    default:
        return sel_error_set(err, r, nowhere, "cannot make an io_uring: %s", sel_error_text(r));
    }
}

static int check_operations(struct io_uring *uring, struct sel_error *err)
{
    struct io_uring_probe *probe =
        sel_mem_zalloc(sizeof(*probe) + PROBE_OPERATIONS * sizeof(struct io_uring_probe_op));
    if (!probe)
        return refuse(err, -ENOMEM);
    int r = io_uring_register_probe(uring, probe, PROBE_OPERATIONS);
    if (r < 0)
        r = refuse(err, r);
    for (size_t i = 0; i < SEL_COUNT(needed) && r == 0; i++)
        if (!io_uring_opcode_supported(probe, needed[i].opcode))
            r = sel_error_set(err, SEL_EUNSUPPORTED, (struct sel_pos){0},
                              "this kernel's io_uring has no %s; Linux 6.1 or newer is needed",
                              needed[i].name);
    sel_mem_free(probe);
    return r;
}

static int init_ring(uint32_t entries, struct io_uring *uring, struct io_uring_params *ret_params)
{
    /* DEFER_TASKRUN: completions are worked off when we enter and not in the midst of a task.
     * TASKRUN_FLAG: a turn sees without a system call that there is nothing to collect.
     * SUBMIT_ALL: one bad operation does not hold back those behind it. */
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = entries * 4, /* thousands may be under way; an overflow is slow, not lossy */
    };
    int r = io_uring_queue_init_params(entries, uring, &params);
    *ret_params = params;
    return r;
}

/* Rings count as locked memory, of which an ordinary user has 8 MiB: enough for a dozen large ones.
 * When it is short a smaller ring does, and as the kernel gives the memory of closed rings back a
 * little later, so does waiting. */
static int init_ring_somehow(uint32_t entries, struct io_uring *uring,
                             struct io_uring_params *ret_params)
{
    const struct timespec pause = {.tv_nsec = SHORTAGE_PAUSE_NS};
    int r = init_ring(entries, uring, ret_params);
    for (int i = 0; r == -ENOMEM && i < SHORTAGE_TRIES_MAX; i++) {
        if (entries > SHORTAGE_ENTRIES)
            entries /= 2;
        else
            (void)nanosleep(&pause, NULL);
        r = init_ring(entries, uring, ret_params);
    }
    return r;
}

int sel_ring_open(uint32_t entries, struct sel_ring **ret, struct sel_error *err)
{
    SEL_ASSERT(entries >= 1 && entries <= ENTRIES_MAX);
    struct sel_ring *ring = SEL_NEW(struct sel_ring);
    struct io_uring_params params;
    if (!ring)
        return refuse(err, -ENOMEM);
    int r = init_ring_somehow(entries, &ring->uring, &params);
    if (r < 0) {
        sel_mem_free(ring);
        return refuse(err, r);
    }
    r = check_operations(&ring->uring, err);
    if (r == 0 && !(params.features & IORING_FEAT_EXT_ARG))
        r = refuse(err, -EINVAL);
    if (r < 0) {
        (void)sel_ring_close(ring);
        return r;
    }
    /* Both are a gain only: without the first each enter looks up the descriptor, without the
     * second a file is read in three steps. */
    (void)io_uring_register_ring_fd(&ring->uring);
    ring->has_slots = io_uring_register_files_sparse(&ring->uring, SEL_RING_SLOTS) == 0;
    *ret = ring;
    return 0;
}

struct sel_ring *sel_ring_close(struct sel_ring *ring)
{
    if (!ring)
        return NULL;
    io_uring_queue_exit(&ring->uring);
    return sel_mem_free(ring);
}

bool sel_ring_has_slots(const struct sel_ring *ring)
{
    return ring->has_slots;
}

/* ---- preparing ---- */

/* Busy, out of memory, interrupted: passes. Anything else is our own mistake, such as a ring that
 * is used by another thread than its own, and would go on for ever. */
static int check_enter(int r)
{
    SEL_ASSERT(r >= 0 || r == -EBUSY || r == -EAGAIN || r == -ENOMEM || r == -EINTR);
    return r < 0 ? r : 0;
}

int sel_ring_reserve(struct sel_ring *ring, uint32_t count)
{
    if (__builtin_expect(io_uring_sq_space_left(&ring->uring) >= count, 1))
        return 0;
    ring->stats.submits++;
    int r = check_enter(io_uring_submit(&ring->uring));
    if (r < 0)
        return r;
    return io_uring_sq_space_left(&ring->uring) >= count ? 0 : -EBUSY;
}

static inline struct io_uring_sqe *next_sqe(struct sel_ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    SEL_ASSERT(sqe); /* sel_ring_reserve was called */
    ring->stats.sqes++;
    return sqe;
}

static inline unsigned clamp(size_t n)
{
    return (unsigned)(n < RW_MAX ? n : RW_MAX);
}

void sel_ring_openat(struct sel_ring *ring, struct sel_ring_op *op, int dir, const char *path,
                     int flags, mode_t mode)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_openat(sqe, dir, path, flags, mode);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_read(struct sel_ring *ring, struct sel_ring_op *op, int fd, void *p, size_t n,
                   int64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_read(sqe, fd, p, clamp(n), (uint64_t)offset);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_write(struct sel_ring *ring, struct sel_ring_op *op, int fd, const void *p, size_t n,
                    int64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_write(sqe, fd, p, clamp(n), (uint64_t)offset);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_fsync(struct sel_ring *ring, struct sel_ring_op *op, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_fsync(sqe, fd, 0);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_close_fd(struct sel_ring *ring, struct sel_ring_op *op, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_close(sqe, fd);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_statx(struct sel_ring *ring, struct sel_ring_op *op, int dir, const char *path,
                    int flags, unsigned mask, struct statx *ret)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_statx(sqe, dir, path, flags, mask, ret);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_rename(struct sel_ring *ring, struct sel_ring_op *op, const char *from,
                     const char *to)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_rename(sqe, from, to);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_link(struct sel_ring *ring, struct sel_ring_op *op, const char *from, const char *to)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_link(sqe, from, to, 0);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_unlink(struct sel_ring *ring, struct sel_ring_op *op, const char *path, int flags)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_unlink(sqe, path, flags);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_mkdir(struct sel_ring *ring, struct sel_ring_op *op, const char *path, mode_t mode)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_mkdir(sqe, path, mode);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_connect(struct sel_ring *ring, struct sel_ring_op *op, int fd,
                      const struct sockaddr *addr, socklen_t n)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_connect(sqe, fd, addr, n);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_accept(struct sel_ring *ring, struct sel_ring_op *op, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_send(struct sel_ring *ring, struct sel_ring_op *op, int fd, const void *p, size_t n,
                   int flags)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_send(sqe, fd, p, clamp(n), flags);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_recv(struct sel_ring *ring, struct sel_ring_op *op, int fd, void *p, size_t n,
                   int flags)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_recv(sqe, fd, p, clamp(n), flags);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_poll(struct sel_ring *ring, struct sel_ring_op *op, int fd, unsigned events)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_poll_add(sqe, fd, events);
    io_uring_sqe_set_data(sqe, op);
}

void sel_ring_read_file(struct sel_ring *ring, struct sel_ring_op *open_op,
                        struct sel_ring_op *read_op, struct sel_ring_op *close_op, uint32_t slot,
                        const char *path, void *p, size_t n)
{
    SEL_ASSERT(ring->has_slots && slot < SEL_RING_SLOTS);
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_openat_direct(sqe, AT_FDCWD, path, O_RDONLY, 0, slot);
    io_uring_sqe_set_data(sqe, open_op);
    sqe->flags |= IOSQE_IO_LINK;
    sqe = next_sqe(ring);
    io_uring_prep_read(sqe, (int)slot, p, clamp(n), 0);
    io_uring_sqe_set_data(sqe, read_op);
    /* Hard: a short read counts as a failure for the chain, and the close must run all the same. */
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK;
    sqe = next_sqe(ring);
    io_uring_prep_close_direct(sqe, slot);
    io_uring_sqe_set_data(sqe, close_op);
}

void sel_ring_cancel(struct sel_ring *ring, struct sel_ring_op *cancel,
                     const struct sel_ring_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(ring);
    io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
    io_uring_sqe_set_data(sqe, cancel);
}

/* ---- entering ---- */

uint32_t sel_ring_prepared(const struct sel_ring *ring)
{
    return io_uring_sq_ready(&ring->uring);
}

bool sel_ring_has_more(const struct sel_ring *ring)
{
    return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED) &
           (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static void enter_and_wait(struct sel_ring *ring, int64_t timeout_us)
{
    int r;
    if (timeout_us == INT64_MAX) {
        r = io_uring_submit_and_wait(&ring->uring, 1);
    } else {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec timeout = {.tv_sec = timeout_us / 1000000,
                                            .tv_nsec = timeout_us % 1000000 * 1000};
        r = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &timeout, NULL);
    }
    if (r != -ETIME)
        (void)check_enter(r);
}

void sel_ring_enter(struct sel_ring *ring, bool wait, int64_t timeout_us)
{
    SEL_ASSERT(timeout_us >= 0);
    if (!wait && io_uring_sq_ready(&ring->uring) == 0 && !sel_ring_has_more(ring))
        return;
    ring->stats.submits++;
    if (wait)
        enter_and_wait(ring, timeout_us);
    else
        (void)check_enter(io_uring_submit_and_get_events(&ring->uring));
}

uint32_t sel_ring_reap(struct sel_ring *ring)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    struct {
        struct sel_ring_op *op;
        int32_t result;
    } ends[REAP_BATCH];
    uint32_t total = 0;
    for (;;) {
        uint32_t count = io_uring_peek_batch_cqe(&ring->uring, cqes, REAP_BATCH);
        for (uint32_t i = 0; i < count; i++) {
            ends[i].op = io_uring_cqe_get_data(cqes[i]);
            ends[i].result = cqes[i]->res;
        }
        /* The places are given back before the callbacks, which may submit. */
        io_uring_cq_advance(&ring->uring, count);
        for (uint32_t i = 0; i < count; i++)
            ends[i].op->done(ends[i].op, ends[i].result);
        total += count;
        if (count < REAP_BATCH)
            break;
    }
    ring->stats.cqes += total;
    return total;
}

void sel_ring_get_stats(const struct sel_ring *ring, struct sel_ring_stats *ret)
{
    *ret = ring->stats;
}
