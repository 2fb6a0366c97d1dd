#include "tests/support/test.h"

#include "proto/peer.h"
#include "tests/support/broker_end.h"

#define MS INT64_C(1000)
#define SECOND INT64_C(1000000)

/* A peer, a broker's end, and what the peer reported. */
struct world {
    struct sel_peer peer;
    struct broker_end end;
    int64_t now_us;
    struct sel_buf out;
    uint32_t opened, resumed, records, bad_records, errors;
    uint64_t shift, settled, last_number, settling;
    struct sel_id last_id;
    int last_error;
};

static void on_opened(void *ctx, bool resumed, uint64_t shift)
{
    struct world *w = ctx;
    w->opened++;
    w->resumed += resumed;
    w->shift = shift;
}

static void on_record(void *ctx, uint64_t number, const struct sel_wire_item *item, int error)
{
    struct world *w = ctx;
    w->records++;
    w->bad_records += error < 0;
    w->last_error = error;
    w->last_number = number;
    w->last_id = item->id;
    w->settling = w->peer.settling;
    sel_peer_settle(&w->peer, number, item->raw.n);
}

static void on_settled(void *ctx, uint64_t number)
{
    struct world *w = ctx;
    assert_true(number > w->settled);
    w->settled = number;
}

static void on_error(void *ctx, const struct sel_wire_error *error)
{
    struct world *w = ctx;
    (void)error;
    w->errors++;
}

static void on_held(void *ctx, struct sel_buf *held)
{
    const struct sel_wire_held one = {.id = {1, 2}, .handle = 3};
    (void)ctx;
    sel_wire_put_held(held, &one);
}

static const struct sel_peer_ops producer_ops = {on_opened, on_record, on_settled, on_error, NULL};
static const struct sel_peer_ops worker_ops = {on_opened, on_record, on_settled, on_error, on_held};

static const struct sel_str queue_names[] = {{"celery", 6}, {"slow", 4}};

static struct sel_peer_options options_of(enum sel_wire_role role)
{
    return (struct sel_peer_options){
        .role = role,
        .id = {5, 6},
        .name = SEL_STR("host:1"),
        .queues = queue_names,
        .queue_count = 2,
        .slots = 8,
        .window_records = 100,
        .window_bytes = 1 << 20,
        .seed = 42,
    };
}

static void begin(struct world *w, enum sel_wire_role role)
{
    memset(w, 0, sizeof(*w));
    w->now_us = 1000 * SECOND;
    broker_end_init(&w->end);
    const struct sel_peer_options options = options_of(role);
    assert_ok(sel_peer_init(&w->peer, &options,
                            role == SEL_ROLE_WORKER ? &worker_ops : &producer_ops, w, w->now_us));
}

static void end(struct world *w)
{
    sel_peer_done(&w->peer);
    broker_end_done(&w->end);
    sel_buf_done(&w->out);
}

static enum sel_peer_action poll_peer(struct world *w)
{
    return sel_peer_poll(&w->peer, w->now_us, &w->out);
}

/* The peer says what it has to, all of which arrives. Number of frames. */
static unsigned pump(struct world *w)
{
    unsigned count = 0;
    enum sel_peer_action action;
    while ((action = poll_peer(w)) != SEL_PEER_NOTHING) {
        assert_true(count++ < 100);
        if (action == SEL_PEER_SEND)
            broker_end_hear(&w->end, &w->out);
    }
    assert_true(sel_peer_due_us(&w->peer) > w->now_us);
    return count;
}

static int hear(struct world *w, struct sel_str frame)
{
    return sel_peer_receive(&w->peer, frame, w->now_us, NULL);
}

static void welcome(struct world *w, bool resumed)
{
    const struct sel_wire_welcome message = broker_end_welcome(&w->end, resumed);
    assert_ok(hear(w, broker_end_say_welcome(&w->end, &message)));
}

/* Connected, HELLO, WELCOME, the first DATA has arrived and was answered. */
static void open_session(struct world *w, enum sel_wire_role role)
{
    begin(w, role);
    assert_int_equal(poll_peer(w), SEL_PEER_CONNECT);
    pump(w);
    assert_int_equal(w->end.hello.n, 1);
    welcome(w, false);
    pump(w);
    assert_int_equal(w->end.data_count, 1);
    assert_ok(hear(w, broker_end_say(&w->end, false)));
    pump(w);
}

static uint64_t put(struct world *w, uint64_t n)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_WATCH, .id = {9, n}, .priority = 128};
    uint64_t number = 0;
    assert_ok(sel_peer_put(&w->peer, &item, &number));
    return number;
}

static void broker_puts(struct world *w, uint8_t type, uint64_t n)
{
    const struct sel_wire_item item = {
        .type = type, .id = {9, n}, .priority = 128, .task = SEL_STR("t"), .queue = 1};
    (void)broker_end_put(&w->end, &item);
}

/* ---- hello ---- */

static void test_hello_says_who_we_are_and_first_data_follows_welcome(void **state)
{
    (void)state;
    struct world w;
    begin(&w, SEL_ROLE_WORKER);
    assert_int_equal(w.peer.state, SEL_PEER_PAUSED);
    assert_true(sel_peer_due_us(&w.peer) <= w.now_us);
    assert_int_equal(poll_peer(&w), SEL_PEER_CONNECT);
    pump(&w);
    const struct sel_wire_hello *hello = &w.end.hello;
    assert_int_equal(hello->role, SEL_ROLE_WORKER);
    assert_int_equal(hello->n, 1);
    assert_int_equal(hello->session, 0);
    assert_int_equal(hello->queue_count, 2);
    assert_str_is(hello->queues[1], "slow");
    assert_str_is(hello->name, "host:1");
    assert_true(hello->serves_all);
    assert_int_equal(hello->slots, 8);
    assert_int_equal(hello->held.n, SEL_WIRE_HELD_SIZE);
    assert_int_equal(w.end.data_count, 0);
    welcome(&w, false);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    assert_int_equal(w.opened, 1);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.data_count, 1);
    assert_int_equal(w.end.head.credit_records, 100);
    end(&w);
}

static void test_hello_is_repeated_and_only_the_last_counts(void **state)
{
    (void)state;
    struct world w;
    begin(&w, SEL_ROLE_PRODUCER);
    assert_int_equal(pump(&w), 2); /* connect, HELLO */
    const struct sel_wire_welcome first = broker_end_welcome(&w.end, false);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.hello.n, 2);
    assert_ok(hear(&w, broker_end_say_welcome(&w.end, &first)));
    assert_int_equal(w.peer.state, SEL_PEER_HELLO);
    assert_int_equal(w.opened, 0);
    welcome(&w, false);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    welcome(&w, false); /* once more: dropped */
    assert_int_equal(w.opened, 1);
    end(&w);
}

static void test_without_an_answer_it_connects_anew_with_longer_and_longer_pauses(void **state)
{
    (void)state;
    struct world w;
    begin(&w, SEL_ROLE_PRODUCER);
    int64_t before = 0;
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(w.peer.connects, i);
        unsigned hellos = 0;
        assert_int_equal(poll_peer(&w), SEL_PEER_CONNECT);
        for (;;) {
            enum sel_peer_action action = poll_peer(&w);
            hellos += action == SEL_PEER_SEND;
            if (w.peer.state == SEL_PEER_PAUSED)
                break;
            if (action == SEL_PEER_NOTHING)
                w.now_us = sel_peer_due_us(&w.peer);
        }
        assert_int_equal(hellos, 3);
        int64_t pause = sel_peer_due_us(&w.peer) - w.now_us;
        int64_t most = i < 6 ? (100 * MS) << i : 5 * SECOND;
        assert_in_range(pause, most / 2, most);
        assert_int_not_equal(pause, before);
        assert_int_equal(poll_peer(&w), SEL_PEER_NOTHING);
        before = pause;
        w.now_us += pause;
    }
    assert_int_equal(w.peer.endpoint, 12);
    end(&w);
}

static void test_data_between_hello_and_welcome_is_dropped(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    broker_puts(&w, SEL_RECORD_RESULT, 1);
    struct sel_str data = broker_end_say(&w.end, false);
    char *copy = sel_arena_memdup(&w.end.arena, data.p, data.n);
    const struct sel_wire_error unknown = {.code = SEL_CODE_UNKNOWN_SESSION};
    assert_ok(hear(&w, broker_end_say_error(&w.end, &unknown)));
    assert_int_equal(w.peer.state, SEL_PEER_HELLO);
    assert_ok(hear(&w, (struct sel_str){copy, data.n}));
    assert_int_equal(w.records, 0);
    pump(&w);
    assert_int_equal(w.end.hello.n, 2);
    assert_int_equal(w.peer.connects, 1); /* the same connection */
    welcome(&w, true);
    assert_int_equal(w.resumed, 1);
    pump(&w);
    assert_ok(hear(&w, broker_end_say(&w.end, false))); /* it comes again after our ack */
    assert_int_equal(w.records, 1);
    end(&w);
}

static void test_a_welcome_that_cannot_be_is_not_believed(void **state)
{
    (void)state;
    enum { FOREIGN_BROKER, OTHER_SESSION, HIGH_ACK, VERSION, NEVER_OPEN, COUNT };
    for (unsigned i = 0; i < COUNT; i++) {
        struct world w;
        if (i == NEVER_OPEN) {
            begin(&w, SEL_ROLE_PRODUCER);
        } else {
            open_session(&w, SEL_ROLE_PRODUCER);
            sel_peer_broken(&w.peer, w.now_us);
            w.now_us = sel_peer_due_us(&w.peer);
        }
        pump(&w);
        struct sel_wire_welcome message = broker_end_welcome(&w.end, i != NEVER_OPEN);
        message.resumed = true;
        if (i == FOREIGN_BROKER)
            message.broker.lo++;
        if (i == OTHER_SESSION)
            message.session++;
        if (i == HIGH_ACK)
            message.ack = 1000;
        if (i == VERSION)
            message.version = 2;
        uint32_t opened = w.opened;
        assert_true(hear(&w, broker_end_say_welcome(&w.end, &message)) < 0);
        assert_int_equal(w.opened, opened);
        assert_int_equal(w.peer.state, SEL_PEER_PAUSED);
        w.now_us = sel_peer_due_us(&w.peer);
        pump(&w);
        if (i != VERSION)
            assert_int_equal(w.end.hello.session, 0);
        welcome(&w, false);
        assert_int_equal(w.peer.state, SEL_PEER_OPEN);
        end(&w);
    }
}

/* ---- records ---- */

static void test_records_are_handed_out_once_and_acked_within_milliseconds(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    uint64_t said = w.end.data_count;
    for (uint64_t i = 1; i <= 3; i++)
        broker_puts(&w, SEL_RECORD_RESULT, i);
    struct sel_str data = broker_end_say(&w.end, false);
    assert_ok(hear(&w, data));
    assert_int_equal(w.records, 3);
    assert_int_equal(w.last_number, 3);
    assert_int_equal(w.last_id.lo, 3);
    assert_ok(hear(&w, data));
    assert_int_equal(w.records, 3);
    assert_int_equal(pump(&w), 0); /* perhaps it can go with records */
    assert_in_range(sel_peer_due_us(&w.peer) - w.now_us, 1, 5 * MS);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.data_count, said + 1);
    assert_int_equal(w.end.head.ack, 3);
    assert_int_equal(w.end.head.settled, 3);
    assert_int_equal(w.end.head.credit_records, 103);
    assert_int_equal(sel_peer_due_us(&w.peer), INT64_MAX); /* nothing is waited for */
    end(&w);
}

static void test_credit_that_runs_out_is_renewed_at_once(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    for (uint64_t i = 1; i <= 60; i++)
        broker_puts(&w, SEL_RECORD_RESULT, i);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    assert_true(sel_peer_due_us(&w.peer) <= w.now_us);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.head.credit_records, 160);
    end(&w);
}

static void test_what_is_settled_is_told_after_the_records_of_the_message(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    for (uint64_t i = 1; i <= 4; i++)
        assert_int_equal(put(&w, i), i);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.heard_count, 4);
    sel_session_settle(&w.end.session, 3);
    broker_puts(&w, SEL_RECORD_RESULT, 1);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    assert_int_equal(w.settling, 3);
    assert_int_equal(w.settled, 3);
    assert_int_equal(w.peer.session.out.settled, 3);
    end(&w);
}

static void test_records_nobody_may_send_are_marked(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    broker_puts(&w, SEL_RECORD_TASK, 1); /* for workers */
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    assert_int_equal(w.bad_records, 1);
    assert_int_equal(w.last_error, SEL_ESTATE);
    const struct sel_wire_item no_id = {.type = SEL_RECORD_RESULT, .priority = 128};
    (void)broker_end_put(&w.end, &no_id);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    assert_int_equal(w.bad_records, 2);
    assert_int_equal(w.last_error, SEL_EFORMAT);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    end(&w);
}

static void test_a_frame_that_was_not_sent_comes_again(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    (void)put(&w, 1);
    assert_int_equal(poll_peer(&w), SEL_PEER_SEND);
    sel_peer_unsent(&w.peer);
    (void)put(&w, 2);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.heard_count, 2);
    assert_int_equal(w.end.receive_code, 2);
    /* one that was sent before is not sent twice for it */
    (void)put(&w, 3);
    assert_int_equal(pump(&w), 1);
    (void)put(&w, 4);
    assert_int_equal(poll_peer(&w), SEL_PEER_SEND);
    sel_peer_unsent(&w.peer);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.head.first, 4);
    /* nor is a HELLO lost */
    sel_peer_broken(&w.peer, w.now_us);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(poll_peer(&w), SEL_PEER_CONNECT);
    assert_int_equal(poll_peer(&w), SEL_PEER_SEND);
    sel_peer_unsent(&w.peer);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.hello.n, 3);
    end(&w);
}

static void test_many_records_go_in_frames_below_the_limit(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    static const char payload[200000];
    const struct sel_wire_item item = {
        .type = SEL_RECORD_WATCH, .id = {9, 9}, .priority = 128, .payload = {payload, 200000}};
    uint64_t unused;
    for (unsigned i = 0; i < 5; i++)
        assert_ok(sel_peer_put(&w.peer, &item, &unused));
    assert_int_equal(pump(&w), 5);
    assert_int_equal(w.end.heard_count, 5);
    end(&w);
}

/* ---- silence ---- */

static void test_an_idle_producer_is_silent_for_ever(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    assert_int_equal(sel_peer_due_us(&w.peer), INT64_MAX);
    w.now_us += 3600 * SECOND;
    assert_int_equal(poll_peer(&w), SEL_PEER_NOTHING);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    end(&w);
}

static void test_who_waits_asks_each_beat_and_gives_up_after_three(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    sel_peer_expect(&w.peer, true);
    for (unsigned i = 0; i < 5; i++) {
        w.now_us = sel_peer_due_us(&w.peer);
        assert_int_equal(pump(&w), 1);
        assert_int_equal(w.end.head.flags, SEL_HEAD_ANSWER);
        assert_ok(hear(&w, broker_end_say(&w.end, false)));
    }
    int64_t heard_us = w.now_us;
    unsigned asked = 0;
    while (w.peer.state == SEL_PEER_OPEN) {
        w.now_us = sel_peer_due_us(&w.peer);
        asked += pump(&w);
    }
    assert_int_equal(asked, 2);
    assert_int_equal(w.now_us - heard_us, 3 * SECOND);
    assert_int_equal(w.peer.endpoint, 1);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(pump(&w), 2);
    assert_int_equal(w.end.hello.session, 1);
    welcome(&w, true);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    end(&w);
}

static void test_beats_are_counted_from_when_it_began_to_wait(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    w.now_us += 1000 * SECOND;
    assert_int_equal(pump(&w), 0);
    sel_peer_expect(&w.peer, true);
    int64_t begin_us = w.now_us;
    while (w.peer.state == SEL_PEER_OPEN) {
        pump(&w);
        w.now_us = sel_peer_due_us(&w.peer);
        (void)poll_peer(&w);
    }
    assert_int_equal(w.now_us - begin_us, 3 * SECOND);
    end(&w);
}

static void test_a_process_that_was_stopped_asks_before_it_gives_up(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    sel_peer_expect(&w.peer, true);
    w.now_us += 1000 * SECOND;
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    assert_int_equal(w.end.head.flags, SEL_HEAD_ANSWER);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    w.now_us += 500 * MS;
    assert_int_equal(pump(&w), 0);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    end(&w);
}

static void test_beats_from_elsewhere_save_asking_while_something_is_heard(void **state)
{
    (void)state;
    for (unsigned elsewhere = 0; elsewhere < 2; elsewhere++) {
        struct world w;
        open_session(&w, SEL_ROLE_WORKER);
        w.peer.options.beats_elsewhere = elsewhere;
        unsigned asked = 0;
        for (unsigned i = 0; i < 30; i++) { /* the broker says something every 300 ms */
            w.now_us += 300 * MS;
            asked += pump(&w);
            assert_ok(hear(&w, broker_end_say(&w.end, false)));
        }
        if (elsewhere)
            assert_int_equal(asked, 0);
        else
            assert_in_range(asked, 6, 9);
        int64_t heard_us = w.now_us;
        while (w.peer.state == SEL_PEER_OPEN) { /* now it does not */
            w.now_us = sel_peer_due_us(&w.peer);
            pump(&w);
        }
        assert_int_equal(w.now_us - heard_us, 3 * SECOND);
        end(&w);
    }
}

/* ---- errors, goodbyes, redirects ---- */

static void test_errors_in_answer_to_a_hello(void **state)
{
    (void)state;
    const struct {
        struct sel_wire_error error;
        enum sel_peer_state state;
        int64_t wait_us_min;
    } cases[] = {
        {{.code = SEL_CODE_VERSION, .n = 1, .text = SEL_STR("2 to 3")}, SEL_PEER_REFUSED, 0},
        {{.code = SEL_CODE_ILLEGAL, .n = 1}, SEL_PEER_REFUSED, 0},
        {{.code = SEL_CODE_FULL, .n = 1, .retry = true, .wait_us = 7 * 1000 * 1000},
         SEL_PEER_HELLO,
         7 * SECOND},
        {{.code = SEL_CODE_DRAINING, .n = 1, .retry = true}, SEL_PEER_HELLO, 50 * MS},
        {{.code = SEL_CODE_ILLEGAL, .n = 9}, SEL_PEER_HELLO, 0}, /* of another HELLO */
        {{.code = SEL_CODE_MALFORMED}, SEL_PEER_HELLO, 0},       /* of something before */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct world w;
        begin(&w, SEL_ROLE_PRODUCER);
        pump(&w);
        assert_ok(hear(&w, broker_end_say_error(&w.end, &cases[i].error)));
        assert_int_equal(w.peer.state, cases[i].state);
        if (cases[i].state == SEL_PEER_REFUSED) {
            assert_int_equal(sel_peer_due_us(&w.peer), INT64_MAX);
            assert_non_null(strstr(w.peer.refusal.text, sel_wire_code_name(cases[i].error.code)));
            assert_int_equal(poll_peer(&w), SEL_PEER_NOTHING);
        } else {
            assert_true(sel_peer_due_us(&w.peer) >= w.now_us + cases[i].wait_us_min);
            w.now_us = sel_peer_due_us(&w.peer);
            assert_int_equal(pump(&w), 1);
            assert_int_equal(w.end.hello.n, 2);
            assert_int_equal(w.peer.connects, 1);
        }
        end(&w);
    }
}

static void test_an_error_with_close_ends_in_a_new_session(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    (void)put(&w, 1);
    (void)put(&w, 2);
    pump(&w);
    const struct sel_wire_error about = {.code = SEL_CODE_UNKNOWN_QUEUE, .at = 1};
    assert_ok(hear(&w, broker_end_say_error(&w.end, &about)));
    assert_int_equal(w.errors, 1);
    assert_int_equal(w.peer.state, SEL_PEER_OPEN);
    const struct sel_wire_error close = {.code = SEL_CODE_ILLEGAL, .close = true};
    assert_ok(hear(&w, broker_end_say_error(&w.end, &close)));
    assert_int_equal(w.errors, 2);
    assert_int_equal(w.peer.state, SEL_PEER_HELLO);
    assert_true(sel_peer_due_us(&w.peer) >= w.now_us + 50 * MS); /* not in a circle */
    w.now_us = sel_peer_due_us(&w.peer);
    pump(&w);
    assert_int_equal(w.end.hello.session, 0);
    w.end.heard_count = 0;
    welcome(&w, false);
    pump(&w);
    assert_int_equal(w.end.heard_count, 2);
    end(&w);
}

static void test_a_new_session_begins_at_one_with_what_is_not_settled(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    for (uint64_t i = 1; i <= 5; i++)
        (void)put(&w, i);
    pump(&w);
    sel_session_settle(&w.end.session, 2);
    broker_puts(&w, SEL_RECORD_RESULT, 1);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    sel_peer_broken(&w.peer, w.now_us);
    w.now_us = sel_peer_due_us(&w.peer);
    pump(&w);
    assert_int_equal(w.end.hello.ack, 1);
    /* another broker process: it has nothing for us */
    sel_session_done(&w.end.session);
    sel_session_init(&w.end.session, 1 << 20, 100, 1 << 20);
    w.end.heard_count = 0;
    welcome(&w, false);
    assert_int_equal(w.shift, 2);
    pump(&w);
    assert_int_equal(w.end.heard_count, 3);
    assert_int_equal(w.end.heard[0].id.lo, 3);
    assert_int_equal(w.end.heard[0].number, 1);
    assert_int_equal(w.end.head.ack, 0);
    assert_int_equal(w.end.head.credit_records, 100);
    end(&w);
}

static void test_goodbye_of_the_broker_is_a_break_not_an_end(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    (void)put(&w, 1);
    pump(&w);
    struct sel_wire_goodbye goodbye = {.session = 999};
    sel_buf_clear(&w.end.out);
    sel_wire_encode_goodbye(&goodbye, &w.end.out);
    assert_ok(hear(&w, sel_buf_str(&w.end.out)));
    assert_int_equal(w.peer.state, SEL_PEER_OPEN); /* not about this session */
    goodbye.session = 1;
    sel_buf_clear(&w.end.out);
    sel_wire_encode_goodbye(&goodbye, &w.end.out);
    assert_ok(hear(&w, sel_buf_str(&w.end.out)));
    assert_int_equal(w.peer.state, SEL_PEER_PAUSED);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(pump(&w), 2);
    assert_int_equal(w.end.hello.session, 1);
    assert_int_equal(w.peer.session.out.next, 2);
    end(&w);
}

static void test_our_goodbye_comes_last(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    broker_puts(&w, SEL_RECORD_RESULT, 1);
    assert_ok(hear(&w, broker_end_say(&w.end, false)));
    sel_peer_goodbye(&w.peer, "enough");
    assert_int_equal(pump(&w), 2);
    assert_int_equal(w.end.head.ack, 1); /* the ack did not wait */
    assert_int_equal(w.end.goodbye.session, 1);
    assert_int_equal(w.peer.state, SEL_PEER_CLOSED);
    assert_int_equal(sel_peer_due_us(&w.peer), INT64_MAX);
    end(&w);
    begin(&w, SEL_ROLE_PRODUCER);
    sel_peer_goodbye(&w.peer, "never begun");
    assert_int_equal(w.peer.state, SEL_PEER_CLOSED);
    assert_int_equal(poll_peer(&w), SEL_PEER_NOTHING);
    end(&w);
}

static void test_redirect_leads_elsewhere_and_back(void **state)
{
    (void)state;
    struct world w;
    const struct sel_str own[] = {SEL_STR("own-0"), SEL_STR("own-1")};
    const struct sel_str there[] = {SEL_STR("there-0"), SEL_STR("there-1")};
    const struct sel_wire_redirect redirect = {.endpoints = there, .endpoint_count = 2};
    const char *const expected[] = {"there-0", "there-1", "own-1"};
    open_session(&w, SEL_ROLE_PRODUCER);
    assert_str_is(sel_peer_endpoint(&w.peer, own, 2), "own-0");
    sel_buf_clear(&w.end.out);
    sel_wire_encode_redirect(&redirect, &w.end.out);
    assert_ok(hear(&w, sel_buf_str(&w.end.out)));
    for (size_t i = 0; i < SEL_COUNT(expected); i++) {
        w.now_us = sel_peer_due_us(&w.peer);
        assert_int_equal(poll_peer(&w), SEL_PEER_CONNECT);
        assert_str_is(sel_peer_endpoint(&w.peer, own, 2), expected[i]);
        sel_peer_broken(&w.peer, w.now_us);
    }
    end(&w);
}

static void test_a_worker_that_drains_serves_nothing_in_its_next_hello(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_WORKER);
    sel_peer_serve(&w.peer, false);
    sel_peer_broken(&w.peer, w.now_us);
    w.now_us = sel_peer_due_us(&w.peer);
    pump(&w);
    assert_false(w.end.hello.serves_all);
    assert_int_equal(w.end.hello.serve_count, 0);
    end(&w);
}

static void test_frames_that_cannot_be_read_break_the_connection(void **state)
{
    (void)state;
    const struct sel_str frames[] = {
        SEL_STR(""),
        SEL_STR("garbage"),
        SEL_STR("\x93\x03\xc0\x80"),
        SEL_STR("\x93\x02\xc0\x80"),
        SEL_STR("\x93\x01\xc0\x80"), /* a HELLO: not for brokers */
    };
    for (size_t i = 0; i < SEL_COUNT(frames); i++) {
        struct world w;
        struct sel_error err = {0};
        open_session(&w, SEL_ROLE_PRODUCER);
        assert_true(sel_peer_receive(&w.peer, frames[i], w.now_us, &err) < 0);
        assert_true(err.text[0] != '\0');
        assert_int_equal(w.peer.state, SEL_PEER_PAUSED);
        assert_ok(hear(&w, frames[i])); /* what still comes is dropped */
        end(&w);
    }
}

static void test_more_than_the_credit_ends_the_session(void **state)
{
    (void)state;
    struct world w;
    open_session(&w, SEL_ROLE_PRODUCER);
    sel_outbox_grant(&w.end.session.out, 1000, 1 << 20); /* nobody gave that */
    for (uint64_t i = 1; i <= 101; i++)
        broker_puts(&w, SEL_RECORD_RESULT, i);
    assert_true(hear(&w, broker_end_say(&w.end, false)) < 0);
    assert_int_equal(w.records, 0);
    w.now_us = sel_peer_due_us(&w.peer);
    pump(&w);
    assert_int_equal(w.end.hello.session, 0);
    end(&w);
}

static void test_lack_of_memory_delays_what_is_said(void **state)
{
    (void)state;
    struct world w;
    begin(&w, SEL_ROLE_PRODUCER);
    assert_int_equal(poll_peer(&w), SEL_PEER_CONNECT);
    sel_mem_fail_at(1);
    assert_int_equal(poll_peer(&w), SEL_PEER_NOTHING);
    sel_mem_fail_at(0);
    assert_true(sel_peer_due_us(&w.peer) > w.now_us);
    w.now_us = sel_peer_due_us(&w.peer);
    assert_int_equal(pump(&w), 1);
    assert_int_equal(w.end.hello.n, 1);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_says_who_we_are_and_first_data_follows_welcome),
        cmocka_unit_test(test_hello_is_repeated_and_only_the_last_counts),
        cmocka_unit_test(test_without_an_answer_it_connects_anew_with_longer_and_longer_pauses),
        cmocka_unit_test(test_data_between_hello_and_welcome_is_dropped),
        cmocka_unit_test(test_a_welcome_that_cannot_be_is_not_believed),
        cmocka_unit_test(test_records_are_handed_out_once_and_acked_within_milliseconds),
        cmocka_unit_test(test_credit_that_runs_out_is_renewed_at_once),
        cmocka_unit_test(test_what_is_settled_is_told_after_the_records_of_the_message),
        cmocka_unit_test(test_records_nobody_may_send_are_marked),
        cmocka_unit_test(test_a_frame_that_was_not_sent_comes_again),
        cmocka_unit_test(test_many_records_go_in_frames_below_the_limit),
        cmocka_unit_test(test_an_idle_producer_is_silent_for_ever),
        cmocka_unit_test(test_who_waits_asks_each_beat_and_gives_up_after_three),
        cmocka_unit_test(test_beats_are_counted_from_when_it_began_to_wait),
        cmocka_unit_test(test_a_process_that_was_stopped_asks_before_it_gives_up),
        cmocka_unit_test(test_beats_from_elsewhere_save_asking_while_something_is_heard),
        cmocka_unit_test(test_errors_in_answer_to_a_hello),
        cmocka_unit_test(test_an_error_with_close_ends_in_a_new_session),
        cmocka_unit_test(test_a_new_session_begins_at_one_with_what_is_not_settled),
        cmocka_unit_test(test_goodbye_of_the_broker_is_a_break_not_an_end),
        cmocka_unit_test(test_our_goodbye_comes_last),
        cmocka_unit_test(test_redirect_leads_elsewhere_and_back),
        cmocka_unit_test(test_a_worker_that_drains_serves_nothing_in_its_next_hello),
        cmocka_unit_test(test_frames_that_cannot_be_read_break_the_connection),
        cmocka_unit_test(test_more_than_the_credit_ends_the_session),
        cmocka_unit_test(test_lack_of_memory_delays_what_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
