#include "tests/support/test.h"

#include <errno.h>

#include "client/producer.h"
#include "tests/support/broker_end.h"

#define SECOND INT64_C(1000000)
#define FINISHED_MAX 4096

struct world {
    struct sel_producer *producer;
    struct broker_end end;
    int64_t now_us;
    struct sel_buf out;
    uint16_t queue;
    uint32_t finished_count, settled_count, logs;
    struct {
        struct sel_id id;
        void *tag;
        bool is_refused;
        uint32_t code;
        char payload[64];
    } finished[FINISHED_MAX];
    struct sel_id settled[64];
    uint64_t submit_again; /* submitted in the first call of `finished` */
};

static int submit_flags(struct world *w, uint64_t n, uint16_t flags, bool wants_settled)
{
    const struct sel_wire_item item = {
        .type = SEL_RECORD_SUBMIT,
        .flags = flags,
        .id = {9, n},
        .queue = w->queue,
        .priority = SEL_WIRE_PRIORITY,
        .task = SEL_STR("Resize"),
        .payload = SEL_STR("\xc0"),
    };
    return sel_producer_submit(w->producer, &item, (void *)(uintptr_t)(n + 1000), wants_settled);
}

static int submit(struct world *w, uint64_t n)
{
    return submit_flags(w, n, 0, false);
}

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct world *w = ctx;
    assert_true(w->finished_count < FINISHED_MAX);
    w->finished[w->finished_count].id = result->id;
    w->finished[w->finished_count].tag = result->tag;
    w->finished[w->finished_count].is_refused = result->is_refused;
    w->finished[w->finished_count].code = result->code;
    size_t n = result->payload.n < 63 ? result->payload.n : 63;
    if (n)
        memcpy(w->finished[w->finished_count].payload, result->payload.p, n);
    w->finished[w->finished_count++].payload[n] = '\0';
    uint64_t again = w->submit_again;
    w->submit_again = 0;
    if (again)
        assert_ok(submit(w, again));
}

static void on_settled(void *ctx, struct sel_id id, void *tag)
{
    struct world *w = ctx;
    assert_ptr_equal(tag, (void *)(uintptr_t)(id.lo + 1000));
    assert_true(w->settled_count < SEL_COUNT(w->settled));
    w->settled[w->settled_count++] = id;
}

static void on_log(void *ctx, const char *text)
{
    struct world *w = ctx;
    assert_true(text[0] != '\0');
    w->logs++;
}

static const struct sel_producer_ops ops = {on_settled, on_finished, on_log};

static struct sel_producer_options options_of(struct world *w)
{
    return (struct sel_producer_options){
        .id = {3, 4}, .name = SEL_STR("test"), .ops = &ops, .ctx = w, .seed = 7};
}

static unsigned pump(struct world *w)
{
    unsigned count = 0;
    enum sel_peer_action action;
    while ((action = sel_producer_poll(w->producer, w->now_us, &w->out)) != SEL_PEER_NOTHING) {
        assert_true(count++ < 1000);
        if (action == SEL_PEER_SEND)
            broker_end_hear(&w->end, &w->out);
    }
    assert_true(sel_producer_due_us(w->producer) > w->now_us);
    return count;
}

static void hear(struct world *w, struct sel_str frame)
{
    sel_producer_receive(w->producer, frame, w->now_us);
}

static void say(struct world *w)
{
    hear(w, broker_end_say(&w->end, false));
}

static void welcome(struct world *w, bool resumed)
{
    const struct sel_wire_welcome message = broker_end_welcome(&w->end, resumed);
    hear(w, broker_end_say_welcome(&w->end, &message));
}

static void begin_with(struct world *w, const struct sel_producer_options *options)
{
    broker_end_init(&w->end);
    assert_ok(sel_producer_new(options, w->now_us, &w->producer));
    assert_ok(sel_producer_queue(w->producer, SEL_STR("celery"), &w->queue));
    pump(w);
    welcome(w, false);
    pump(w);
    broker_end_settle_all(&w->end); /* the name of the queue */
    say(w);
    pump(w);
    w->end.heard_count = 0;
}

static struct world *begin(void)
{
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    w->now_us = 1000 * SECOND;
    const struct sel_producer_options options = options_of(w);
    begin_with(w, &options);
    return w;
}

static void end(struct world *w)
{
    w->producer = sel_producer_free(w->producer);
    broker_end_done(&w->end);
    sel_buf_done(&w->out);
    sel_mem_free(w);
}

/* The connection breaks; the producer's HELLO arrives. */
static void reconnect(struct world *w)
{
    sel_peer_broken(sel_producer_peer(w->producer), w->now_us);
    w->now_us = sel_producer_due_us(w->producer);
    pump(w);
    w->end.heard_count = 0;
}

/* Another process of the broker, which knows nothing. */
static void restart_broker(struct world *w)
{
    sel_session_done(&w->end.session);
    sel_session_init(&w->end.session, 1 << 20, 65536, 1 << 26);
    reconnect(w);
    welcome(w, false);
    pump(w);
}

static void broker_result(struct world *w, uint64_t n, uint32_t code, const char *payload)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_RESULT,
                                       .id = {9, n},
                                       .priority = SEL_WIRE_PRIORITY,
                                       .code = code,
                                       .level = SEL_LEVEL_MEMORY,
                                       .payload = sel_str_c(payload)};
    (void)broker_end_put(&w->end, &item);
}

static void broker_refuses(struct world *w, uint64_t n, uint64_t number, uint32_t code)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_REFUSED,
                                       .id = {9, n},
                                       .priority = SEL_WIRE_PRIORITY,
                                       .code = code,
                                       .handle = number,
                                       .payload = SEL_STR("because")};
    (void)broker_end_put(&w->end, &item);
}

static void test_each_result_is_told_once(void **state)
{
    (void)state;
    struct world *w = begin();
    for (uint64_t n = 1; n <= 3; n++)
        assert_ok(submit(w, n));
    assert_code(submit(w, 2), SEL_EEXISTS);
    pump(w);
    assert_int_equal(w->end.heard_count, 3);
    assert_int_equal(w->end.heard[0].queue, w->queue);
    broker_end_settle_all(&w->end);
    broker_result(w, 2, SEL_OUTCOME_SUCCESS, "two");
    broker_result(w, 2, SEL_OUTCOME_FAILURE, "again");
    broker_result(w, 77, SEL_OUTCOME_SUCCESS, "not ours");
    broker_result(w, 1, SEL_OUTCOME_FAILURE, "one");
    say(w);
    assert_int_equal(w->finished_count, 2);
    assert_int_equal(w->finished[0].id.lo, 2);
    assert_ptr_equal(w->finished[0].tag, (void *)1002);
    assert_string_equal(w->finished[0].payload, "two");
    assert_int_equal(w->finished[1].code, SEL_OUTCOME_FAILURE);
    assert_false(w->finished[1].is_refused);
    assert_int_equal(sel_producer_waiting(w->producer), 1);
    assert_int_equal(sel_producer_unsettled(w->producer), 0);
    assert_ok(submit(w, 2)); /* its own business */
    struct sel_producer_stats stats;
    sel_producer_get_stats(w->producer, &stats);
    assert_int_equal(stats.submitted, 4);
    assert_int_equal(stats.finished, 2);
    assert_int_equal(stats.unasked, 2);
    end(w);
}

static void test_who_asks_is_told_what_is_settled(void **state)
{
    (void)state;
    struct world *w = begin();
    for (uint64_t n = 1; n <= 6; n++)
        assert_ok(submit_flags(w, n, n == 5 ? SEL_ITEM_QUIET : 0, n != 2));
    pump(w);
    assert_int_equal(sel_producer_unsettled(w->producer), 6);
    assert_int_equal(sel_producer_waiting(w->producer), 5);
    sel_session_settle(&w->end.session, w->end.heard[2].number);
    say(w);
    assert_int_equal(w->settled_count, 2);
    assert_int_equal(w->settled[1].lo, 3);
    broker_end_settle_all(&w->end);
    say(w);
    assert_int_equal(w->settled_count, 5);
    assert_int_equal(w->finished_count, 0);
    end(w);
}

static void test_names_of_queues_are_told_once_and_in_each_hello(void **state)
{
    (void)state;
    struct world *w = begin();
    uint16_t slow, again;
    assert_int_equal(w->end.hello.queue_count, 1);
    assert_str_is(w->end.hello.queues[0], "celery");
    assert_ok(sel_producer_queue(w->producer, SEL_STR("slow"), &slow));
    assert_ok(sel_producer_queue(w->producer, SEL_STR("slow"), &again));
    assert_int_equal(slow, again);
    assert_int_not_equal(slow, w->queue);
    pump(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].type, SEL_RECORD_QUEUE);
    assert_int_equal(w->end.heard[0].queue, slow);
    assert_code(sel_producer_queue(w->producer, SEL_STR(""), &again), SEL_ERANGE);
    assert_code(sel_producer_queue(w->producer, SEL_STR("\xff"), &again), SEL_ERANGE);
    reconnect(w);
    assert_int_equal(w->end.hello.queue_count, 2);
    assert_str_is(w->end.hello.queues[slow - 1], "slow");
    end(w);
}

static void test_a_resumed_session_sends_again_only_what_had_not_arrived(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    pump(w);
    assert_ok(submit(w, 2));
    assert_int_equal(sel_producer_poll(w->producer, w->now_us, &w->out), SEL_PEER_SEND);
    reconnect(w); /* and that frame was lost */
    welcome(w, true);
    pump(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].id.lo, 2);
    end(w);
}

static void test_a_new_session_gets_what_is_not_settled_and_watches_the_rest(void **state)
{
    (void)state;
    struct world *w = begin();
    for (uint64_t n = 1; n <= 6; n++)
        assert_ok(submit_flags(w, n, 0, true));
    pump(w);
    sel_session_settle(&w->end.session, w->end.heard[1].number); /* 1 and 2 */
    broker_result(w, 1, SEL_OUTCOME_SUCCESS, "");                /* settled and finished */
    broker_result(w, 4, SEL_OUTCOME_SUCCESS, "");                /* finished before it is settled */
    broker_refuses(w, 5, w->end.heard[4].number, SEL_CODE_CONFLICT);
    say(w);
    assert_int_equal(w->finished_count, 3);
    assert_int_equal(w->settled_count, 2);
    restart_broker(w);
    assert_int_equal(w->settled_count, 4); /* 4 and 5 have ended: nothing is left to settle */
    const struct {
        uint8_t type;
        uint64_t n;
    } expected[] = {{SEL_RECORD_SUBMIT, 3}, {SEL_RECORD_SUBMIT, 6}, {SEL_RECORD_WATCH, 2}};
    assert_int_equal(w->end.heard_count, SEL_COUNT(expected));
    for (size_t i = 0; i < SEL_COUNT(expected); i++) {
        assert_int_equal(w->end.heard[i].type, expected[i].type);
        assert_int_equal(w->end.heard[i].id.lo, expected[i].n);
    }
    /* and so once more: the numbers of all were moved */
    sel_session_settle(&w->end.session, 1); /* 3 */
    say(w);
    assert_int_equal(w->settled_count, 5);
    assert_int_equal(w->settled[4].lo, 3);
    broker_result(w, 6, SEL_OUTCOME_SUCCESS, "");
    say(w);
    restart_broker(w);
    assert_int_equal(w->settled_count, 6);
    assert_int_equal(w->end.heard_count, 2);
    assert_int_equal(w->end.heard[0].id.lo, 2); /* its WATCH was not settled */
    assert_int_equal(w->end.heard[0].type, SEL_RECORD_WATCH);
    assert_int_equal(w->end.heard[1].id.lo, 3);
    assert_int_equal(w->end.heard[1].type, SEL_RECORD_WATCH);
    broker_result(w, 2, SEL_OUTCOME_SUCCESS, "");
    broker_refuses(w, 3, w->end.heard[1].number, SEL_CODE_UNKNOWN_TASK);
    say(w);
    assert_int_equal(w->finished_count, 6);
    assert_true(w->finished[5].is_refused);
    assert_int_equal(w->finished[5].code, SEL_CODE_UNKNOWN_TASK);
    assert_int_equal(sel_producer_waiting(w->producer), 0);
    end(w);
}

static void test_who_waits_for_detached_work_says_so_in_each_session(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit_flags(w, 1, SEL_ITEM_FLOW | SEL_ITEM_ALL, false));
    assert_ok(submit_flags(w, 2, SEL_ITEM_FLOW, false));
    assert_ok(sel_producer_watch(w->producer, (struct sel_id){9, 3}, (void *)5, true));
    assert_ok(sel_producer_watch(w->producer, (struct sel_id){9, 4}, (void *)5, false));
    assert_ok(submit_flags(w, 5, SEL_ITEM_FLOW | SEL_ITEM_ALL, false));
    pump(w);
    const uint16_t said[] = {SEL_ITEM_FLOW | SEL_ITEM_ALL, SEL_ITEM_FLOW, SEL_ITEM_ALL, 0,
                             SEL_ITEM_FLOW | SEL_ITEM_ALL};
    for (uint32_t i = 0; i < SEL_COUNT(said); i++)
        assert_int_equal(w->end.heard[i].flags, said[i]);
    sel_session_settle(&w->end.session, w->end.heard[3].number);
    say(w);
    restart_broker(w); /* the fifth is submitted again, the others are watched */
    assert_int_equal(w->end.heard_count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        uint64_t n = w->end.heard[i].id.lo;
        bool all = n == 1 || n == 3 || n == 5;
        assert_int_equal(w->end.heard[i].type, n == 5 ? SEL_RECORD_SUBMIT : SEL_RECORD_WATCH);
        assert_int_equal(w->end.heard[i].flags & SEL_ITEM_ALL, all ? SEL_ITEM_ALL : 0);
    }
    broker_refuses(w, 5, w->end.heard[0].number, SEL_CODE_FULL); /* it keeps its flags */
    broker_end_settle_all(&w->end);
    say(w);
    w->end.heard_count = 0;
    w->now_us += SECOND;
    pump(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].flags, SEL_ITEM_FLOW | SEL_ITEM_ALL);
    end(w);
}

static void test_watches_that_find_no_room_come_later(void **state)
{
    (void)state;
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    struct sel_producer_options options = options_of(w);
    options.keep_bytes_max = 2000; /* about forty WATCHes */
    begin_with(w, &options);
    for (uint64_t n = 1; n <= 300; n++) {
        assert_ok(submit(w, n));
        pump(w);
        broker_end_settle_all(&w->end);
        say(w);
    }
    restart_broker(w);
    uint32_t before = 0;
    while (w->end.heard_count > before && w->end.heard_count < 300) {
        before = w->end.heard_count;
        /* others come to be waited for meanwhile, so that the table moves */
        assert_code(submit(w, 1000 + before), SEL_ELIMIT);
        broker_result(w, before, SEL_OUTCOME_SUCCESS, "");
        broker_end_settle_all(&w->end);
        say(w);
        pump(w);
    }
    static bool is_watched[301];
    memset(is_watched, 0, sizeof(is_watched));
    for (uint32_t i = 0; i < w->end.heard_count; i++) {
        assert_int_equal(w->end.heard[i].type, SEL_RECORD_WATCH);
        assert_false(is_watched[w->end.heard[i].id.lo]);
        is_watched[w->end.heard[i].id.lo] = true;
    }
    for (uint32_t i = 0; i < w->finished_count; i++)
        is_watched[w->finished[i].id.lo] = true;
    for (uint32_t n = 1; n <= 300; n++)
        assert_true(is_watched[n]);
    end(w);
}

static void test_what_the_broker_has_no_room_for_comes_again_after_a_pause(void **state)
{
    (void)state;
    struct world *w = begin();
    for (uint64_t n = 1; n <= 4; n++)
        assert_ok(submit_flags(w, n, n == 2 ? SEL_ITEM_QUIET : 0, true));
    pump(w);
    for (uint32_t i = 0; i < 3; i++)
        broker_refuses(w, i + 1, w->end.heard[i].number,
                       i == 1 ? SEL_CODE_DRAINING : SEL_CODE_FULL);
    broker_end_settle_all(&w->end);
    w->end.heard_count = 0;
    say(w);
    pump(w);
    assert_int_equal(w->end.heard_count, 0);
    assert_int_equal(w->finished_count, 0);
    assert_int_equal(w->settled_count, 1);
    assert_int_equal(w->settled[0].lo, 4);
    assert_int_equal(sel_producer_unsettled(w->producer), 3);
    assert_code(submit(w, 5), SEL_ELIMIT); /* it would only be refused too */
    assert_ok(sel_producer_cancel(w->producer, (struct sel_id){9, 3}));
    w->now_us += 10000; /* the ack is said */
    pump(w);
    int64_t wait_us = sel_producer_due_us(w->producer) - w->now_us + 10000;
    assert_in_range(wait_us, 100000, 150000);
    w->now_us += wait_us - 10000;
    pump(w);
    assert_int_equal(w->end.heard_count, 2);
    assert_int_equal(w->end.heard[0].id.lo, 1);
    assert_int_equal(w->end.heard[1].id.lo, 2);
    assert_int_equal(w->finished_count, 1); /* was never begun */
    assert_int_equal(w->finished[0].code, SEL_OUTCOME_CANCELLED);
    assert_ok(submit(w, 5));
    pump(w);
    broker_refuses(w, 1, w->end.heard[0].number, SEL_CODE_FULL); /* the pause grows */
    broker_end_settle_all(&w->end);
    say(w);
    assert_int_equal(w->settled_count, 2); /* 2 does not wait for it */
    pump(w);
    w->now_us += 10000;
    pump(w);
    assert_true(sel_producer_due_us(w->producer) - w->now_us >= 190000);
    restart_broker(w);
    w->now_us = sel_producer_due_us(w->producer);
    w->end.heard_count = 0;
    w->now_us += SECOND;
    pump(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].id.lo, 1);
    assert_int_equal(w->end.heard[0].type, SEL_RECORD_SUBMIT);
    broker_end_settle_all(&w->end);
    say(w);
    assert_int_equal(w->settled_count, 3);
    assert_int_equal(w->settled[2].lo, 1);
    end(w);
}

static void test_other_refusals_are_final(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit_flags(w, 1, 0, true));
    assert_ok(submit_flags(w, 2, SEL_ITEM_QUIET, true));
    pump(w);
    broker_refuses(w, 1, w->end.heard[0].number, SEL_CODE_CONFLICT);
    broker_refuses(w, 2, w->end.heard[1].number, SEL_CODE_UNSUPPORTED);
    broker_end_settle_all(&w->end);
    say(w);
    assert_int_equal(w->finished_count, 2);
    assert_true(w->finished[0].is_refused);
    assert_int_equal(w->finished[0].code, SEL_CODE_CONFLICT);
    assert_string_equal(w->finished[0].payload, "because");
    assert_true(w->finished[1].is_refused); /* of a quiet one who asks for its end is told too */
    assert_int_equal(w->finished[1].code, SEL_CODE_UNSUPPORTED);
    assert_ptr_equal(w->finished[1].tag, (void *)(uintptr_t)(2 + 1000));
    assert_int_equal(w->settled_count, 2);
    struct sel_producer_stats stats;
    sel_producer_get_stats(w->producer, &stats);
    assert_int_equal(stats.refused, 2);
    end(w);
}

static void test_an_old_refusal_says_nothing_about_a_newer_watch(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    assert_true(sel_producer_forget(w->producer, (struct sel_id){9, 1}));
    assert_false(sel_producer_forget(w->producer, (struct sel_id){9, 1}));
    assert_ok(sel_producer_watch(w->producer, (struct sel_id){9, 1}, (void *)5, false));
    pump(w);
    broker_refuses(w, 1, w->end.heard[0].number, SEL_CODE_CONFLICT);
    say(w);
    assert_int_equal(w->finished_count, 0);
    broker_refuses(w, 1, w->end.heard[1].number, SEL_CODE_UNKNOWN_TASK);
    say(w);
    assert_int_equal(w->finished_count, 1);
    assert_ptr_equal(w->finished[0].tag, (void *)5);
    end(w);
}

static void test_what_is_forgotten_is_submitted_all_the_same(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    assert_true(sel_producer_forget(w->producer, (struct sel_id){9, 1}));
    restart_broker(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].type, SEL_RECORD_SUBMIT);
    broker_result(w, 1, 0, "");
    say(w);
    assert_int_equal(w->finished_count, 0);
    end(w);
}

static void test_a_cancel_goes_to_the_broker_who_tells_the_end(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    assert_ok(sel_producer_cancel(w->producer, (struct sel_id){9, 1}));
    pump(w);
    assert_int_equal(w->end.heard[1].type, SEL_RECORD_CANCEL);
    broker_result(w, 1, SEL_OUTCOME_CANCELLED, "");
    say(w);
    assert_int_equal(w->finished[0].code, SEL_OUTCOME_CANCELLED);
    end(w);
}

static void test_limits_are_answered(void **state)
{
    (void)state;
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    struct sel_producer_options options = options_of(w);
    options.waiting_max = 2;
    options.keep_bytes_max = 3 * (48 + 10 + 1); /* behind the first */
    begin_with(w, &options);
    assert_ok(submit(w, 1));
    assert_ok(submit(w, 2));
    assert_code(submit(w, 3), SEL_ELIMIT); /* too many are waited for */
    assert_ok(submit_flags(w, 3, SEL_ITEM_QUIET, false));
    assert_ok(submit_flags(w, 4, SEL_ITEM_QUIET, false));
    assert_code(submit_flags(w, 5, SEL_ITEM_QUIET, false), SEL_ELIMIT); /* too much is kept */
    pump(w);
    broker_result(w, 1, 0, "");
    broker_end_settle_all(&w->end);
    say(w);
    assert_ok(submit(w, 3));
    const struct sel_wire_item no_task = {.type = SEL_RECORD_SUBMIT, .id = {1, 1}, .queue = 1};
    assert_code(sel_producer_submit(w->producer, &no_task, NULL, false), SEL_ERANGE);
    assert_code(sel_producer_watch(w->producer, (struct sel_id){0, 0}, NULL, false), SEL_ERANGE);
    end(w);
}

static void test_a_broker_that_refuses_us_ends_all_that_is_waited_for(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    assert_ok(submit(w, 2));
    reconnect(w);
    const struct sel_wire_error error = {.code = SEL_CODE_VERSION, .n = w->end.hello.n};
    hear(w, broker_end_say_error(&w->end, &error));
    assert_int_equal(w->finished_count, 2);
    assert_true(w->finished[0].is_refused);
    assert_int_equal(sel_producer_waiting(w->producer), 0);
    assert_code(submit(w, 3), SEL_EREQUEST);
    assert_int_equal(pump(w), 0);
    end(w);
}

static void test_submits_fail_when_there_was_no_broker_for_long(void **state)
{
    (void)state;
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    struct sel_producer_options options = options_of(w);
    options.lost_after_us = 10 * SECOND;
    begin_with(w, &options);
    sel_peer_broken(sel_producer_peer(w->producer), w->now_us);
    pump(w);
    assert_ok(submit(w, 1));
    int64_t lost_us = w->now_us;
    while (w->now_us < lost_us + 11 * SECOND) {
        w->now_us = sel_producer_due_us(w->producer);
        pump(w);
    }
    assert_code(submit(w, 2), -ETIMEDOUT);
    w->end.heard_count = 0;
    welcome(w, true);
    assert_ok(submit(w, 2));
    end(w);
}

static void test_finished_may_submit_more(void **state)
{
    (void)state;
    struct world *w = begin();
    assert_ok(submit(w, 1));
    assert_ok(submit(w, 2));
    pump(w);
    w->submit_again = 3;
    broker_result(w, 1, 0, "");
    broker_result(w, 2, 0, "");
    say(w);
    assert_int_equal(w->finished_count, 2);
    w->end.heard_count = 0;
    pump(w);
    assert_int_equal(w->end.heard_count, 1);
    assert_int_equal(w->end.heard[0].id.lo, 3);
    end(w);
}

static void test_it_is_silent_when_nothing_is_waited_for(void **state)
{
    (void)state;
    struct world *w = begin();
    w->now_us += 10000;
    pump(w);
    assert_int_equal(sel_producer_due_us(w->producer), INT64_MAX);
    assert_ok(submit(w, 1));
    pump(w);
    broker_end_settle_all(&w->end);
    say(w);
    pump(w);
    assert_true(sel_producer_due_us(w->producer) <= w->now_us + SECOND);
    end(w);
}

/* More records than there are bits for at first, and a new session: no bit is lost. */
static void test_many_unsettled_with_results_are_left_out(void **state)
{
    (void)state;
    struct world *w = begin();
    const uint32_t count = 150000;
    for (uint64_t n = 1; n <= count; n++)
        assert_ok(submit(w, n));
    /* the broker takes them without a look; of each hundred one has no result yet */
    struct sel_wire_head head;
    struct sel_str records;
    unsigned guard = 0;
    while (w->end.session.in.arrived < count && guard++ < 1000) {
        while (sel_producer_poll(w->producer, w->now_us, &w->out) == SEL_PEER_SEND) {
            assert_ok(sel_wire_decode_data(sel_buf_str(&w->out), &head, &records, NULL));
            int64_t r = sel_session_receive(&w->end.session, &head, &records, NULL);
            assert_true(r >= 0);
            sel_session_free(&w->end.session, (uint64_t)r, records.n);
        }
        say(w);
    }
    for (uint64_t n = 1; n <= count; n++) {
        if (n % 100)
            broker_result(w, n, 0, "");
        if (n % 1000 == 0) {
            say(w);
            w->now_us += 10000;
            while (sel_producer_poll(w->producer, w->now_us, &w->out) == SEL_PEER_SEND) {
                assert_ok(sel_wire_decode_data(sel_buf_str(&w->out), &head, &records, NULL));
                assert_true(sel_session_receive(&w->end.session, &head, &records, NULL) == 0);
            }
            w->finished_count = 0;
        }
    }
    assert_int_equal(sel_producer_waiting(w->producer), count / 100);
    restart_broker(w);
    assert_int_equal(w->end.heard_count, count / 100);
    for (uint32_t i = 0; i < w->end.heard_count; i++)
        assert_int_equal(w->end.heard[i].id.lo, (i + 1) * 100);
    assert_int_equal(sel_producer_unsettled(w->producer), count / 100);
    end(w);
}

static int use_all(void *ctx)
{
    struct world *w = ctx;
    struct sel_producer_options options = options_of(w);
    struct sel_producer *producer = NULL;
    int r = sel_producer_new(&options, 0, &producer);
    if (r == 0)
        r = sel_producer_queue(producer, SEL_STR("celery"), &w->queue);
    w->producer = producer;
    for (uint64_t n = 1; r == 0 && n < 800; n++)
        r = submit_flags(w, n, 0, true);
    if (r < 0 && producer && w->queue) /* what failed was not taken in part */
        assert_int_equal(sel_producer_unsettled(producer),
                         sel_producer_waiting(producer) + (w->queue ? 1 : 0));
    sel_producer_free(producer);
    w->queue = 0;
    return r;
}

static void test_lack_of_memory_takes_nothing_in_part(void **state)
{
    (void)state;
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    sel_test_each_alloc_fails(use_all, w);
    sel_mem_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_result_is_told_once),
        cmocka_unit_test(test_who_asks_is_told_what_is_settled),
        cmocka_unit_test(test_names_of_queues_are_told_once_and_in_each_hello),
        cmocka_unit_test(test_a_resumed_session_sends_again_only_what_had_not_arrived),
        cmocka_unit_test(test_a_new_session_gets_what_is_not_settled_and_watches_the_rest),
        cmocka_unit_test(test_who_waits_for_detached_work_says_so_in_each_session),
        cmocka_unit_test(test_watches_that_find_no_room_come_later),
        cmocka_unit_test(test_what_the_broker_has_no_room_for_comes_again_after_a_pause),
        cmocka_unit_test(test_other_refusals_are_final),
        cmocka_unit_test(test_an_old_refusal_says_nothing_about_a_newer_watch),
        cmocka_unit_test(test_what_is_forgotten_is_submitted_all_the_same),
        cmocka_unit_test(test_a_cancel_goes_to_the_broker_who_tells_the_end),
        cmocka_unit_test(test_limits_are_answered),
        cmocka_unit_test(test_a_broker_that_refuses_us_ends_all_that_is_waited_for),
        cmocka_unit_test(test_submits_fail_when_there_was_no_broker_for_long),
        cmocka_unit_test(test_finished_may_submit_more),
        cmocka_unit_test(test_it_is_silent_when_nothing_is_waited_for),
        cmocka_unit_test(test_many_unsettled_with_results_are_left_out),
        cmocka_unit_test(test_lack_of_memory_takes_nothing_in_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
