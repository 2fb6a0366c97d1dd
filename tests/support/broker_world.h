/* tests/support/broker_world.h - the broker's core with a producer and a worker, in one thread and
 * on a clock of its own. */
#ifndef SEL_TESTS_SUPPORT_BROKER_WORLD_H
#define SEL_TESTS_SUPPORT_BROKER_WORLD_H

#include <errno.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "client/producer.h"
#include "core/mem.h"
#include "storage/journal.h"
#include "tests/support/test.h"
#include "worker/holder.h"

#define QUEUE SEL_STR("celery")

/* ---- a little world: one broker, one producer, one worker ---- */

enum { PRODUCER = 7, WORKER = 9, ENDPOINTS = 16 };

struct frame {
    struct frame *next;
    size_t n;
    uint8_t bytes[];
};

struct fifo {
    struct frame *first, **last;
};

struct world {
    struct sel_broker *broker;
    struct sel_broker_options options;
    struct sel_journal_disk *disk;
    struct sel_journal *journal;
    struct sel_producer *producer;
    struct sel_holder *worker;
    struct fifo to_producer, to_worker;
    uint32_t producer_connection, worker_connection, connections;
    int64_t now_us;
    uint32_t finished, refused, settled;
    uint32_t last_code;
    char last_payload[256];
    bool hold_commits;
    const struct sel_holder_ops *worker_ops; /* NULL: none */
    uint32_t flows;                          /* that the worker takes */
    int64_t fail_at; /* the allocation of the broker that fails next; 0: none */
};

static inline void fifo_put(struct fifo *f, struct sel_str bytes)
{
    struct frame *frame = malloc(sizeof(*frame) + bytes.n); /* not among those that fail */
    assert_non_null(frame);
    frame->next = NULL;
    frame->n = bytes.n;
    memcpy(frame->bytes, bytes.p, bytes.n);
    if (!f->first)
        f->last = &f->first;
    *f->last = frame;
    f->last = &frame->next;
}

static inline struct frame *fifo_take(struct fifo *f)
{
    struct frame *frame = f->first;
    if (frame)
        f->first = frame->next;
    return frame;
}

static inline void fifo_clear(struct fifo *f)
{
    for (struct frame *frame; (frame = fifo_take(f));)
        free(frame);
}

static inline int on_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    struct world *w = ctx;
    if (connection == w->producer_connection)
        fifo_put(&w->to_producer, frame);
    else if (connection == w->worker_connection)
        fifo_put(&w->to_worker, frame);
    else
        return -EHOSTUNREACH;
    return 0;
}

static inline int on_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    struct world *w = ctx;
    return w->journal->ops->read(w->journal, seq, offset, n, buf, NULL);
}

static inline void on_settled(void *ctx, struct sel_id id, void *tag)
{
    (void)id;
    (void)tag;
    ((struct world *)ctx)->settled++;
}

static inline void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct world *w = ctx;
    w->finished++;
    w->refused += result->is_refused;
    w->last_code = result->code;
    size_t n = result->payload.n < sizeof(w->last_payload) - 1 ? result->payload.n
                                                               : sizeof(w->last_payload) - 1;
    memcpy(w->last_payload, result->payload.p, n);
    w->last_payload[n] = 0;
}

static const struct sel_producer_ops producer_ops = {.settled = on_settled,
                                                     .finished = on_finished};
static const struct sel_holder_ops holder_ops = {.log = NULL};

static inline struct sel_broker_now now_of(const struct world *w)
{
    return (struct sel_broker_now){w->now_us, INT64_C(1700000000000000) + w->now_us};
}

static inline int on_visit(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    struct world *w = ctx;
    return sel_broker_replay(w->broker, seq, batch, now_of(w), err);
}

static inline void start_broker(struct world *w)
{
    const struct sel_broker_io io = {w, on_send, w->disk ? on_read : NULL, NULL};
    struct sel_error err = {0};
    assert_int_equal(sel_broker_new(&w->options, &io, (struct sel_id){1, 2}, &w->broker, &err), 0);
    if (w->disk) {
        assert_int_equal(sel_journal_mem_open(w->disk, &w->journal, &err), 0);
        assert_int_equal(w->journal->ops->walk(w->journal, 0, on_visit, w, &err), 0);
    }
    assert_int_equal(sel_broker_start(w->broker, now_of(w)), 0);
}

static inline void stop_broker(struct world *w)
{
    w->broker = sel_broker_free(w->broker);
    if (w->journal)
        w->journal->ops->close(w->journal);
    w->journal = NULL;
    fifo_clear(&w->to_producer);
    fifo_clear(&w->to_worker);
}

static inline void commit(struct world *w)
{
    struct sel_broker_batches batches;
    while (!w->hold_commits && sel_broker_take_batches(w->broker, now_of(w), &batches)) {
        struct sel_journal *j = w->journal;
        uint64_t last = 0;
        int r = 0;
        if (batches.count)
            r = j->ops->append(j, batches.bytes, batches.count, batches.sync, batches.urgent, &last,
                               NULL);
        else if (batches.sync)
            r = j->ops->sync(j, NULL);
        if (r == 0 && batches.count)
            assert_int_equal(last, batches.first + batches.count - 1);
        if (r == 0 && batches.drop_before)
            r = j->ops->drop(j, batches.drop_before, NULL);
        sel_broker_committed(w->broker, r, now_of(w));
        struct sel_journal_stats stats;
        j->ops->stats(j, &stats);
        sel_broker_note_journal(w->broker, stats.bytes_live);
        if (r < 0)
            return;
    }
}

static inline void pump_producer(struct world *w)
{
    struct sel_buf out = {0};
    for (struct frame *frame; (frame = fifo_take(&w->to_producer)); free(frame))
        sel_producer_receive(w->producer, (struct sel_str){(char *)frame->bytes, frame->n},
                             w->now_us);
    for (;;) {
        enum sel_peer_action action = sel_producer_poll(w->producer, w->now_us, &out);
        if (action == SEL_PEER_NOTHING)
            break;
        if (action == SEL_PEER_CONNECT) {
            w->producer_connection = ++w->connections;
            fifo_clear(&w->to_producer);
        } else if (w->broker) {
            sel_mem_fail_at(w->fail_at);
            sel_broker_receive(w->broker, w->producer_connection, sel_buf_str(&out), now_of(w));
            sel_mem_fail_at(0);
        }
    }
    sel_buf_done(&out);
}

static inline void pump_worker(struct world *w)
{
    struct sel_buf out = {0};
    for (struct frame *frame; (frame = fifo_take(&w->to_worker)); free(frame))
        sel_holder_receive(w->worker, (struct sel_str){(char *)frame->bytes, frame->n}, w->now_us);
    for (;;) {
        enum sel_peer_action action = sel_holder_poll(w->worker, w->now_us, &out);
        if (action == SEL_PEER_NOTHING)
            break;
        if (action == SEL_PEER_CONNECT) {
            w->worker_connection = ++w->connections;
            fifo_clear(&w->to_worker);
        } else if (w->broker) {
            sel_mem_fail_at(w->fail_at);
            sel_broker_receive(w->broker, w->worker_connection, sel_buf_str(&out), now_of(w));
            sel_mem_fail_at(0);
        }
    }
    sel_buf_done(&out);
}

/* Lets all that can happen happen, for `us`. */
static inline void run(struct world *w, int64_t us)
{
    for (int64_t end = w->now_us + us; w->now_us <= end; w->now_us += 1000) {
        if (w->producer)
            pump_producer(w);
        if (w->worker)
            pump_worker(w);
        if (w->broker) {
            sel_mem_fail_at(w->fail_at);
            (void)sel_broker_turn(w->broker, now_of(w));
            sel_mem_fail_at(0);
            if (w->journal)
                commit(w);
        }
    }
}

static inline void start_producer(struct world *w)
{
    const struct sel_producer_options options = {
        .id = {11, w->connections + 1}, .name = SEL_STR("p"), .ops = &producer_ops, .ctx = w};
    assert_int_equal(sel_producer_new(&options, w->now_us, &w->producer), 0);
}

static const struct sel_str worker_queues[] = {{"celery", 6}};

static inline void start_worker(struct world *w, uint32_t window)
{
    const struct sel_holder_options options = {
        .peer = {.role = SEL_ROLE_WORKER,
                 .id = {21, w->connections + 1},
                 .incarnation = 1,
                 .name = SEL_STR("w"),
                 .queues = worker_queues,
                 .queue_count = 1,
                 .slots = window,
                 .window = window,
                 .flows = w->flows},
        .ops = w->worker_ops ? w->worker_ops : &holder_ops,
        .ctx = w,
    };
    assert_int_equal(sel_holder_new(&options, w->now_us, &w->worker), 0);
}

static inline void world_init(struct world *w, bool has_journal)
{
    *w = (struct world){.now_us = 1000000};
    if (has_journal)
        w->disk = sel_journal_disk_new(1);
    start_broker(w);
    start_producer(w);
}

static inline void world_done(struct world *w)
{
    stop_broker(w);
    w->producer = sel_producer_free(w->producer);
    w->worker = sel_holder_free(w->worker);
    w->disk = sel_journal_disk_free(w->disk);
}

static inline struct sel_wire_item submit_item(struct world *w, uint64_t n, uint8_t level)
{
    struct sel_wire_item item = {.type = SEL_RECORD_SUBMIT,
                                 .id = {77, n},
                                 .priority = SEL_WIRE_PRIORITY,
                                 .level = level,
                                 .task = SEL_STR("Noop"),
                                 .payload = SEL_STR("\xa5hello")};
    assert_int_equal(sel_producer_queue(w->producer, QUEUE, &item.queue), 0);
    return item;
}

static inline void submit(struct world *w, uint64_t first, uint64_t count, uint8_t level)
{
    for (uint64_t n = first; n < first + count; n++) {
        struct sel_wire_item item = submit_item(w, n, level);
        assert_int_equal(sel_producer_submit(w->producer, &item, NULL, true), 0);
    }
}

/* The worker ends what it has, at most `max`; how many. */
static inline uint32_t work(struct world *w, uint32_t max, uint32_t code)
{
    uint32_t count = 0;
    for (struct sel_held_task *task; count < max && (task = sel_holder_begin(w->worker)); count++)
        assert_int_equal(sel_holder_end(w->worker, task, code, 0, SEL_STR("\xa2ok")), 0);
    return count;
}

static inline struct sel_broker_stats stats_of(struct world *w)
{
    struct sel_broker_stats stats;
    sel_broker_get_stats(w->broker, &stats);
    return stats;
}

#endif
