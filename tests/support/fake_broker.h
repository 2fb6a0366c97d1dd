/* tests/support/fake_broker.h - the least that a worker can talk to: one session, no queues.
 *
 * Frames in and out by function calls; whoever has a socket carries them. */
#ifndef SEL_TESTS_SUPPORT_FAKE_BROKER_H
#define SEL_TESTS_SUPPORT_FAKE_BROKER_H

#include "core/arena.h"
#include "proto/session.h"
#include "proto/wire.h"
#include "tests/support/test.h"

#define FAKE_KEPT_MAX 4096

struct fake_end {
    uint8_t type;
    uint16_t flags;
    uint32_t code;
    struct sel_id id;
    uint64_t handle;
    uint16_t queue, try_count, delivery;
    uint64_t countdown_us;
    char payload[256];
    size_t payload_size;
};

struct fake_broker {
    struct sel_id id;
    uint64_t last_session; /* number given last */
    bool forgets;          /* the next HELLO gets a new session */
    bool keeps;            /* what comes is not settled until fake_settle */
    uint32_t record_max;
    uint64_t beat_us;
    struct sel_session session;
    struct sel_wire_hello hello; /* the last one, without its texts and lists */
    struct sel_wire_held held[64];
    uint32_t held_count, crashed_count;
    bool has_left;                       /* it said GOODBYE */
    struct fake_end ends[FAKE_KEPT_MAX]; /* records of the worker, as they came */
    uint32_t end_count;
    uint64_t total; /* of all records */
    struct sel_buf answer;
};

static inline void fake_init(struct fake_broker *b)
{
    *b = (struct fake_broker){
        .id = {1, 2}, .last_session = 100, .record_max = SEL_WIRE_RECORD_MAX, .beat_us = 1000000};
    sel_session_init(&b->session, (size_t)64 << 20, 65536, (uint64_t)64 << 20);
}

static inline void fake_done(struct fake_broker *b)
{
    sel_session_done(&b->session);
    sel_buf_done(&b->answer);
}

static inline void fake_hello(struct fake_broker *b, struct sel_str frame)
{
    struct sel_arena arena = {0};
    struct sel_wire_welcome welcome = {.version = 1,
                                       .broker = b->id,
                                       .lease_us = 10000000,
                                       .beat_us = b->beat_us,
                                       .record_max = b->record_max,
                                       .level = SEL_LEVEL_MEMORY,
                                       .level_max = SEL_LEVEL_MEMORY};
    assert_ok(sel_wire_decode_hello(&arena, frame, &b->hello, NULL));
    b->held_count = (uint32_t)(b->hello.held.n / SEL_WIRE_HELD_SIZE);
    for (uint32_t i = 0; i < b->held_count && i < SEL_COUNT(b->held); i++)
        b->held[i] = sel_wire_held_at(b->hello.held, i);
    b->crashed_count = (uint32_t)(b->hello.crashed.n / SEL_WIRE_HELD_SIZE);
    welcome.n = b->hello.n;
    welcome.resumed = !b->forgets && b->hello.session && b->hello.session == b->session.number;
    if (welcome.resumed) {
        assert_ok(sel_session_resume(&b->session, b->hello.ack));
    } else {
        sel_session_done(&b->session); /* another broker, as far as it knows */
        sel_session_init(&b->session, (size_t)64 << 20, 65536, (uint64_t)64 << 20);
        (void)sel_session_start(&b->session, ++b->last_session);
    }
    b->forgets = false;
    sel_session_fill_welcome(&b->session, &welcome);
    sel_wire_encode_welcome(&welcome, &b->answer);
    sel_arena_done(&arena);
}

static inline void fake_keep(struct fake_broker *b, const struct sel_wire_item *item)
{
    b->total++;
    if (b->end_count == FAKE_KEPT_MAX)
        return;
    struct fake_end *end = &b->ends[b->end_count++];
    *end = (struct fake_end){.type = item->type,
                             .flags = item->flags,
                             .code = item->code,
                             .id = item->id,
                             .handle = item->handle,
                             .queue = item->queue,
                             .try_count = item->try_count,
                             .delivery = item->delivery,
                             .countdown_us = item->countdown_us,
                             .payload_size = item->payload.n};
    if (item->payload.n)
        memcpy(end->payload, item->payload.p,
               item->payload.n < sizeof(end->payload) ? item->payload.n : sizeof(end->payload));
}

static inline void fake_data(struct fake_broker *b, struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_wire_item item;
    assert_ok(sel_wire_decode_data(frame, &head, &records, NULL));
    int64_t count = sel_session_receive(&b->session, &head, &records, NULL);
    if (count == SEL_ENOTFOUND)
        return;
    assert_true(count >= 0);
    size_t bytes = records.n;
    while (count > 0 && sel_wire_next(&records, &item, NULL) == 1)
        fake_keep(b, &item);
    assert_int_equal(records.n, 0);
    sel_session_free(&b->session, (uint64_t)count, bytes);
    if (!b->keeps)
        sel_session_settle(&b->session, b->session.in.arrived);
}

/* A frame of the worker; `answer` holds what is to be sent back at once, if anything. */
static inline void fake_receive(struct fake_broker *b, struct sel_str frame)
{
    int type = sel_wire_message_type(frame, NULL);
    sel_buf_clear(&b->answer);
    if (type == SEL_MESSAGE_HELLO)
        fake_hello(b, frame);
    else if (type == SEL_MESSAGE_DATA)
        fake_data(b, frame);
    else if (type == SEL_MESSAGE_GOODBYE)
        b->has_left = true;
    else
        fail_msg("a worker does not say %d", type);
}

/* What is to be said now, as one frame in `answer`; false: nothing. */
static inline bool fake_say(struct fake_broker *b)
{
    sel_buf_clear(&b->answer);
    if (sel_session_owes(&b->session) == SEL_OWES_NOTHING)
        return false;
    assert_ok(sel_session_send(&b->session, 256 << 10, false, &b->answer));
    return true;
}

static inline void fake_put(struct fake_broker *b, const struct sel_wire_item *item)
{
    uint64_t number;
    assert_ok(sel_session_put(&b->session, item, &number));
}

/* A TASK with the id {7, n}. */
static inline struct sel_wire_item fake_task(uint64_t n, const char *name, struct sel_str payload)
{
    return (struct sel_wire_item){.type = SEL_RECORD_TASK,
                                  .id = {7, n},
                                  .queue = 1,
                                  .priority = SEL_WIRE_PRIORITY,
                                  .level = SEL_LEVEL_MEMORY,
                                  .handle = 1000 + n,
                                  .task = sel_str_c(name),
                                  .payload = payload};
}

static inline void fake_put_task(struct fake_broker *b, uint64_t n)
{
    struct sel_wire_item item = fake_task(n, "T", SEL_STR("\xc0"));
    fake_put(b, &item);
}

#endif
