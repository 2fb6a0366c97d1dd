/* tests/support/broker_end.h - a broker's end of one session, by hand: what it hears is kept for
 * the test to look at, what it says the test chooses. Made of sel_session, no broker/. */
#ifndef SEL_TESTS_SUPPORT_BROKER_END_H
#define SEL_TESTS_SUPPORT_BROKER_END_H

#include "core/arena.h"
#include "proto/session.h"
#include "proto/wire.h"
#include "tests/support/test.h"

#define BROKER_END_HEARD_MAX 4096

struct broker_end {
    struct sel_session session;
    struct sel_id id;
    uint64_t next_session, beat_us;
    struct sel_arena arena;
    struct sel_wire_hello hello; /* the last one; `n` 0: none since it was cleared */
    struct sel_wire_goodbye goodbye;
    struct sel_wire_head head; /* of the last DATA */
    uint64_t data_count;       /* DATA heard */
    uint64_t hello_count;
    int64_t receive_code; /* of the last sel_session_receive */
    uint32_t heard_count; /* records, since it was cleared: */
    struct {
        uint8_t type;
        uint16_t flags, queue;
        struct sel_id id;
        uint64_t number;
    } heard[BROKER_END_HEARD_MAX];
    struct sel_buf out;
};

static inline void broker_end_init(struct broker_end *end)
{
    memset(end, 0, sizeof(*end));
    end->id = (struct sel_id){77, 88};
    end->next_session = 1;
    end->beat_us = 1000000;
    sel_session_init(&end->session, (size_t)64 << 20, 65536, (uint64_t)64 << 20);
}

static inline void broker_end_done(struct broker_end *end)
{
    sel_session_done(&end->session);
    sel_arena_done(&end->arena);
    sel_buf_done(&end->out);
}

static inline void broker_end_hear_data(struct broker_end *end, struct sel_str frame)
{
    struct sel_str records;
    struct sel_wire_item item;
    assert_ok(sel_wire_decode_data(frame, &end->head, &records, NULL));
    end->data_count++;
    end->receive_code = sel_session_receive(&end->session, &end->head, &records, NULL);
    if (end->receive_code <= 0)
        return;
    uint64_t number = end->session.in.arrived - (uint64_t)end->receive_code;
    size_t bytes = records.n;
    while (sel_wire_next(&records, &item, NULL) > 0) {
        assert_true(end->heard_count < BROKER_END_HEARD_MAX);
        end->heard[end->heard_count].type = item.type;
        end->heard[end->heard_count].flags = item.flags;
        end->heard[end->heard_count].queue = item.queue;
        end->heard[end->heard_count].id = item.id;
        end->heard[end->heard_count++].number = ++number;
    }
    assert_int_equal(number, end->session.in.arrived);
    sel_session_free(&end->session, (uint64_t)end->receive_code, bytes);
}

/* Takes a frame of the peer, of any type that peers may say. */
static inline void broker_end_hear(struct broker_end *end, const struct sel_buf *message)
{
    struct sel_str frame = sel_buf_str(message);
    int type = sel_wire_message_type(frame, NULL);
    switch (type) {
    case SEL_MESSAGE_HELLO: {
        /* its texts are looked at by the test: they must outlive the frame */
        char *copy = sel_arena_memdup(&end->arena, frame.p, frame.n);
        assert_non_null(copy);
        assert_ok(
            sel_wire_decode_hello(&end->arena, (struct sel_str){copy, frame.n}, &end->hello, NULL));
        end->hello_count++;
        break;
    }
    case SEL_MESSAGE_DATA:
        broker_end_hear_data(end, frame);
        break;
    case SEL_MESSAGE_GOODBYE:
        assert_ok(sel_wire_decode_goodbye(&end->arena, frame, &end->goodbye, NULL));
        break;
    default:
        fail_msg("a peer does not say messages of type %d", type);
    }
}

/* The WELCOME to the last HELLO: a new session, or that which the HELLO named. */
static inline struct sel_wire_welcome broker_end_welcome(struct broker_end *end, bool resumed)
{
    if (resumed) {
        assert_int_equal(end->hello.session, end->session.number);
        assert_ok(sel_session_resume(&end->session, end->hello.ack));
    } else {
        (void)sel_session_start(&end->session, end->next_session++);
    }
    struct sel_wire_welcome welcome = {
        .version = SEL_WIRE_VERSION,
        .n = end->hello.n,
        .broker = end->id,
        .resumed = resumed,
        .record_max = SEL_WIRE_RECORD_MAX,
        .lease_us = 5 * end->beat_us,
        .beat_us = end->beat_us,
        .level = SEL_LEVEL_MEMORY,
        .level_max = SEL_LEVEL_COMMIT,
    };
    sel_session_fill_welcome(&end->session, &welcome);
    return welcome;
}

/* What the end has to say, as one DATA in end->out. */
static inline struct sel_str broker_end_say(struct broker_end *end, bool ask)
{
    sel_buf_clear(&end->out);
    assert_ok(sel_session_send(&end->session, SEL_WIRE_MESSAGE_MAX, ask, &end->out));
    return sel_buf_str(&end->out);
}

static inline uint64_t broker_end_put(struct broker_end *end, const struct sel_wire_item *item)
{
    uint64_t number = 0;
    assert_ok(sel_session_put(&end->session, item, &number));
    return number;
}

/* All that was heard is decided. */
static inline void broker_end_settle_all(struct broker_end *end)
{
    sel_session_settle(&end->session, end->session.in.arrived);
}

static inline struct sel_str broker_end_frame(struct broker_end *end)
{
    assert_ok(sel_buf_error(&end->out));
    return sel_buf_str(&end->out);
}

static inline struct sel_str broker_end_say_welcome(struct broker_end *end,
                                                    const struct sel_wire_welcome *welcome)
{
    sel_buf_clear(&end->out);
    sel_wire_encode_welcome(welcome, &end->out);
    return broker_end_frame(end);
}

static inline struct sel_str broker_end_say_error(struct broker_end *end,
                                                  const struct sel_wire_error *error)
{
    sel_buf_clear(&end->out);
    sel_wire_encode_error(error, &end->out);
    return broker_end_frame(end);
}

#endif
