/* Frames of a broker that may be anything, for a producer and for a worker: they go on, reports are
 * made once, and what they say can be read. The input is a list of steps: a byte for what happens,
 * two for the size of the frame, the frame. WELCOME gets the number of the HELLO that was said,
 * DATA the number of the session, so that mutated bodies are looked at. */
#include <string.h>

#include "client/producer.h"
#include "core/arena.h"
#include "core/assert.h"
#include "proto/le.h"
#include "worker/holder.h"

#define STEPS_MAX 100
#define POLLS_MAX 64

struct world {
    struct sel_producer *producer;
    struct sel_holder *worker;
    uint64_t submitted, finished;
    int64_t now_us;
};

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct world *w = ctx;
    SEL_ASSERT(result->id.hi == 7 && result->id.lo >= 1 && result->id.lo <= w->submitted);
    SEL_ASSERT(++w->finished <= w->submitted);
}

static void check_said(struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    SEL_ASSERT(sel_wire_message_type(frame, NULL) > 0);
    if (sel_wire_message_type(frame, NULL) != SEL_MESSAGE_DATA)
        return;
    SEL_ASSERT(sel_wire_decode_data(frame, &head, &records, NULL) == 0);
    int r;
    while ((r = sel_wire_next(&records, &item, NULL)) > 0)
        ;
    SEL_ASSERT(r == 0);
}

static void poll_both(struct world *w)
{
    struct sel_buf out = {0};
    for (int i = 0; i < POLLS_MAX; i++) {
        enum sel_peer_action action = sel_producer_poll(w->producer, w->now_us, &out);
        if (action == SEL_PEER_SEND)
            check_said(sel_buf_str(&out));
        if (action == SEL_PEER_NOTHING)
            break;
    }
    for (int i = 0; i < POLLS_MAX; i++) {
        enum sel_peer_action action = sel_holder_poll(w->worker, w->now_us, &out);
        if (action == SEL_PEER_SEND)
            check_said(sel_buf_str(&out));
        if (action == SEL_PEER_NOTHING)
            break;
    }
    sel_buf_done(&out);
}

static void submit(struct world *w)
{
    struct sel_wire_item item = {.type = SEL_RECORD_SUBMIT,
                                 .id = {7, w->submitted + 1},
                                 .priority = SEL_WIRE_PRIORITY,
                                 .task = SEL_STR("Noop"),
                                 .payload = SEL_STR("\xc0")};
    if (sel_producer_queue(w->producer, SEL_STR("celery"), &item.queue) < 0)
        return;
    w->submitted++; /* it may be finished before submit returns */
    if (sel_producer_submit(w->producer, &item, NULL, w->submitted % 2) < 0)
        w->submitted--;
}

static void work(struct world *w)
{
    struct sel_held_task *task = sel_holder_begin(w->worker);
    if (task && sel_holder_end(w->worker, task, SEL_OUTCOME_SUCCESS, 0, SEL_STR("\xc0")) < 0)
        w->now_us++; /* no room: it stays, as a slot that is never free again */
}

static void receive(struct world *w, bool is_worker, struct sel_str frame)
{
    if (is_worker)
        sel_holder_receive(w->worker, frame, w->now_us);
    else
        sel_producer_receive(w->producer, frame, w->now_us);
}

/* A WELCOME with the numbers that the peer waits for; the other fields come from the input. */
static void welcome(struct world *w, bool is_worker, struct sel_str bytes)
{
    const struct sel_peer *peer =
        is_worker ? sel_holder_peer(w->worker) : sel_producer_peer(w->producer);
    uint8_t b[8] = {0};
    if (bytes.n)
        memcpy(b, bytes.p, bytes.n < sizeof(b) ? bytes.n : sizeof(b));
    const struct sel_wire_welcome message = {
        .version = 1,
        .n = peer->hello_count,
        .broker = {1, b[0]},
        .session = b[1] ? b[1] : 1,
        .resumed = b[2] & 1,
        .ack = b[3],
        .credit_records = (uint64_t)b[4] * 4,
        .credit_bytes = (uint64_t)b[5] * 1000,
        .lease_us = 10000000,
        .beat_us = 2000000,
        .record_max = 4096 + b[6],
        .level = 1,
        .level_max = 3,
    };
    struct sel_buf buf = {0};
    sel_wire_encode_welcome(&message, &buf);
    receive(w, is_worker, sel_buf_str(&buf));
    sel_buf_done(&buf);
}

static void step(struct world *w, uint8_t what, struct sel_str frame)
{
    bool is_worker = what & 1;
    char copy[2048];
    size_t n = frame.n < sizeof(copy) ? frame.n : sizeof(copy);
    if (n)
        memcpy(copy, frame.p, n);
    const struct sel_peer *peer =
        is_worker ? sel_holder_peer(w->worker) : sel_producer_peer(w->producer);
    if (n >= SEL_WIRE_DATA_PREFIX && (uint8_t)copy[0] == 0x93 && copy[1] == 3 && what & 0x80)
        sel_le_put64(copy + 4 + 8, peer->session.number);
    if (what & 0x02)
        welcome(w, is_worker, frame);
    else
        receive(w, is_worker, (struct sel_str){copy, n});
    if (what & 0x04)
        submit(w);
    if (what & 0x08)
        work(w);
    if (what & 0x10)
        w->now_us += 3000000;
    if (what & 0x20)
        sel_holder_drain(w->worker);
    poll_both(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sel_producer_ops producer_ops = {.finished = on_finished};
    static const struct sel_holder_ops holder_ops = {.cancel = NULL};
    static const struct sel_str queues[] = {{"celery", 6}};
    struct world w = {.now_us = 1000000};
    const struct sel_producer_options po = {
        .id = {3, 4}, .name = SEL_STR("p"), .ops = &producer_ops, .ctx = &w};
    const struct sel_holder_options ho = {.peer = {.role = SEL_ROLE_WORKER,
                                                   .id = {5, 6},
                                                   .incarnation = 1,
                                                   .name = SEL_STR("w"),
                                                   .queues = queues,
                                                   .queue_count = 1,
                                                   .slots = 4,
                                                   .window = 8},
                                          .ops = &holder_ops,
                                          .ctx = &w};
    if (sel_producer_new(&po, w.now_us, &w.producer) < 0 ||
        sel_holder_new(&ho, w.now_us, &w.worker) < 0)
        return 0;
    poll_both(&w);
    for (int i = 0; i < STEPS_MAX && size >= 3; i++) {
        size_t n = (size_t)data[1] | (size_t)data[2] << 8;
        uint8_t what = data[0];
        data += 3;
        size -= 3;
        if (n > size)
            n = size;
        step(&w, what, (struct sel_str){(const char *)data, n});
        data += n;
        size -= n;
    }
    (void)sel_producer_free(w.producer);
    (void)sel_holder_free(w.worker);
    return 0;
}
