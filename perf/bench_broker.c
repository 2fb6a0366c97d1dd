/* The broker's core alone: how long a bare task takes it, with no socket and no disk. */
#include <errno.h>
#include <string.h>

#include "broker/broker.h"
#include "core/arena.h"
#include "core/error.h"
#include "core/mem.h"
#include "perf/bench.h"
#include "proto/session.h"

#define TASKS 2000000u
#define BATCH 64u    /* records in one message */
#define WINDOW 8192u /* tasks under way */
#define ARGUMENTS 64u

enum { PRODUCER, WORKER, PEERS };

struct peer {
    struct sel_session session;
    struct sel_buf in; /* frames for it, each behind its size */
};

struct world {
    struct sel_broker *broker;
    struct peer peers[PEERS];
    struct sel_buf frame;
    struct sel_broker_now now;
    uint64_t submitted, finished;
    uint64_t committed_bytes;
};

static int on_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    struct world *w = ctx;
    struct sel_buf *in = &w->peers[connection].in;
    sel_buf_put(in, &frame.n, sizeof(frame.n));
    sel_buf_put(in, frame.p, frame.n);
    return sel_buf_error(in);
}

static int on_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    (void)ctx, (void)seq, (void)offset, (void)n, (void)buf;
    return -EIO; /* nothing is read back while the queue is short */
}

static int greet(struct world *w, uint32_t i, struct sel_arena *arena)
{
    const struct sel_str queues[] = {SEL_STR("celery")};
    const struct sel_wire_hello hello = {
        .version_min = 1,
        .version_max = 1,
        .role = i == WORKER ? SEL_ROLE_WORKER : SEL_ROLE_PRODUCER,
        .peer = {1, i + 1},
        .n = 1,
        .queues = queues,
        .queue_count = 1,
        .serves_all = true,
        .slots = WINDOW,
    };
    sel_buf_clear(&w->frame);
    sel_wire_encode_hello(&hello, &w->frame);
    sel_broker_receive(w->broker, i, sel_buf_str(&w->frame), w->now);
    (void)sel_broker_turn(w->broker, w->now);
    struct sel_wire_welcome welcome;
    uint64_t shift;
    struct sel_buf *in = &w->peers[i].in;
    size_t n = 0;
    if (in->n)
        memcpy(&n, in->p, sizeof(n));
    struct sel_str frame = {(char *)in->p + sizeof(n), n};
    int r = n ? sel_wire_decode_welcome(arena, frame, &welcome, NULL) : SEL_ESTATE;
    sel_session_init(&w->peers[i].session, 64u << 20, 65536, 64u << 20);
    if (r == 0)
        r = sel_session_welcome(&w->peers[i].session, &welcome, &shift);
    sel_buf_clear(in);
    return r;
}

static void put(struct peer *peer, const struct sel_wire_item *item)
{
    uint64_t number;
    SEL_ASSERT(sel_session_put(&peer->session, item, &number) == 0);
}

static void take(struct world *w, uint32_t i, struct sel_str frame)
{
    struct peer *peer = &w->peers[i];
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    SEL_ASSERT(sel_wire_decode_data(frame, &head, &records, NULL) == 0);
    int64_t count = sel_session_receive(&peer->session, &head, &records, NULL);
    SEL_ASSERT(count >= 0);
    uint64_t bytes = records.n;
    while (sel_wire_next(&records, &item, NULL) > 0) {
        if (item.type == SEL_RECORD_RESULT)
            w->finished++;
        if (item.type != SEL_RECORD_TASK)
            continue;
        const struct sel_wire_item done = {.type = SEL_RECORD_DONE,
                                           .id = item.id,
                                           .priority = SEL_WIRE_PRIORITY,
                                           .handle = item.handle,
                                           .payload = SEL_STR("\xc0")};
        put(peer, &done);
    }
    sel_session_free(&peer->session, (uint64_t)count, bytes);
    sel_session_settle(&peer->session, peer->session.in.arrived);
}

static void turn_peer(struct world *w, uint32_t i)
{
    struct peer *peer = &w->peers[i];
    for (size_t at = 0, n; at < peer->in.n; at += sizeof(n) + n) {
        memcpy(&n, peer->in.p + at, sizeof(n));
        take(w, i, (struct sel_str){(char *)peer->in.p + at + sizeof(n), n});
    }
    sel_buf_clear(&peer->in);
    while (sel_session_owes(&peer->session) == SEL_OWES_NOW) {
        sel_buf_clear(&w->frame);
        SEL_ASSERT(sel_session_send(&peer->session, BATCH * 150, false, &w->frame) == 0);
        sel_broker_receive(w->broker, i, sel_buf_str(&w->frame), w->now);
    }
}

static void submit(struct world *w)
{
    static const char arguments[ARGUMENTS] = "\xd9\x3e";
    for (; w->submitted < TASKS && w->submitted < w->finished + WINDOW; w->submitted++) {
        const struct sel_wire_item item = {
            .type = SEL_RECORD_SUBMIT,
            .id = {UINT64_C(0x0198f3c27b1c7001), w->submitted + 1},
            .queue = 1,
            .priority = SEL_WIRE_PRIORITY,
            .task = SEL_STR("bench.noop"),
            .payload = {arguments, sizeof(arguments)},
        };
        put(&w->peers[PRODUCER], &item);
    }
}

static void commit(struct world *w)
{
    struct sel_broker_batches batches;
    while (sel_broker_take_batches(w->broker, w->now, &batches)) {
        for (uint32_t i = 0; i < batches.count; i++)
            w->committed_bytes += batches.bytes[i].n;
        sel_broker_committed(w->broker, 0, w->now);
    }
}

static int measure(void *arg, double *ret)
{
    bool has_journal = *(const bool *)arg;
    struct world w = {.now = {1000000, 1700000000000000}};
    struct sel_arena arena = {0};
    const struct sel_broker_options options = {0};
    const struct sel_broker_io io = {&w, on_send, has_journal ? on_read : NULL, NULL};
    int r = sel_broker_new(&options, &io, (struct sel_id){5, 6}, &w.broker, NULL);
    if (r == 0)
        r = sel_broker_start(w.broker, w.now);
    if (r == 0 && has_journal)
        commit(&w);
    for (uint32_t i = 0; r == 0 && i < PEERS; i++)
        r = greet(&w, i, &arena);
    int64_t begin_ns = sel_bench_now_ns();
    while (r == 0 && w.finished < TASKS) {
        w.now.mono_us += 100;
        submit(&w);
        turn_peer(&w, PRODUCER);
        turn_peer(&w, WORKER);
        (void)sel_broker_turn(w.broker, w.now);
        if (has_journal)
            commit(&w);
    }
    *ret = (double)(sel_bench_now_ns() - begin_ns) / TASKS;
    for (uint32_t i = 0; i < PEERS; i++) {
        sel_session_done(&w.peers[i].session);
        sel_buf_done(&w.peers[i].in);
    }
    sel_buf_done(&w.frame);
    sel_arena_done(&arena);
    sel_broker_free(w.broker);
    return r;
}

int sel_bench_broker(struct sel_bench_run *run)
{
    static const bool without = false, with = true;
    struct sel_bench_probe probes[] = {{.fn = measure, .arg = (void *)(uintptr_t)&without},
                                       {.fn = measure, .arg = (void *)(uintptr_t)&with}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    sel_bench_report(run, &(struct sel_bench_metric){
                              .name = "broker_memory_task_ns",
                              .value = probes[0].median,
                              .unit = "ns",
                              .note = "SUBMIT, TASK, DONE, RESULT; both peers' ends of the session "
                                      "are in it too"});
    sel_bench_report(run, &(struct sel_bench_metric){.name = "broker_commit_task_ns",
                                                     .value = probes[1].median,
                                                     .unit = "ns",
                                                     .note = "journaled twice, without a disk"});
    return 0;
}
