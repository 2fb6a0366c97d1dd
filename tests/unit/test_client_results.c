#include "tests/support/test.h"

#include <errno.h>

#include "client/internal.h"
#include "tests/support/broker_end.h"

/* A client without its thread: what the thread would do, the test does by hand. */
struct world {
    struct sel_client client;
    struct broker_end end;
    struct sel_buf out;
    int64_t now_us;
    uint16_t queue;
};

static struct sel_client_link *link_of(struct world *w)
{
    return &w->client.links[0];
}

static void pump(struct world *w)
{
    enum sel_peer_action action;
    while ((action = sel_producer_poll(link_of(w)->producer, w->now_us, &w->out)) !=
           SEL_PEER_NOTHING)
        if (action == SEL_PEER_SEND)
            broker_end_hear(&w->end, &w->out);
}

static void hear(struct world *w, struct sel_str frame)
{
    sel_producer_receive(link_of(w)->producer, frame, w->now_us);
}

static char endpoint[] = "ipc://test";

static struct world *begin(uint64_t bytes_max)
{
    struct world *w = SEL_NEW(struct world);
    assert_non_null(w);
    broker_end_init(&w->end);
    w->client.link_count = 1;
    w->client.results.bytes_max = bytes_max;
    link_of(w)->client = &w->client;
    link_of(w)->endpoint = endpoint;
    const struct sel_producer_options options = {
        .id = {1, 2}, .ops = &sel_client_producer_ops, .ctx = link_of(w)};
    assert_ok(sel_producer_new(&options, 0, &link_of(w)->producer));
    assert_ok(sel_producer_queue(link_of(w)->producer, SEL_STR("celery"), &w->queue));
    pump(w);
    const struct sel_wire_welcome welcome = broker_end_welcome(&w->end, false);
    hear(w, broker_end_say_welcome(&w->end, &welcome));
    pump(w);
    hear(w, broker_end_say(&w->end, false));
    w->end.heard_count = 0;
    return w;
}

static void end(struct world *w)
{
    sel_client_results_done(&w->client.results);
    sel_producer_free(link_of(w)->producer);
    broker_end_done(&w->end);
    sel_buf_done(&w->out);
    sel_mem_free(w);
}

static void submit(struct world *w, uint64_t n, bool tell)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_SUBMIT,
                                       .id = {9, n},
                                       .queue = w->queue,
                                       .priority = SEL_WIRE_PRIORITY,
                                       .task = SEL_STR("T")};
    assert_ok(sel_producer_submit(link_of(w)->producer, &item, (void *)(uintptr_t)n, tell));
    w->client.results.tell_pending += tell;
}

static void broker_result(struct world *w, uint64_t n, struct sel_str payload)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_RESULT,
                                       .id = {9, n},
                                       .priority = SEL_WIRE_PRIORITY,
                                       .level = SEL_LEVEL_MEMORY,
                                       .payload = payload};
    (void)broker_end_put(&w->end, &item);
}

static struct sel_client_batch *take(struct world *w)
{
    struct sel_client_batch_all *batch = sel_client_results_take(&w->client);
    return batch ? sel_client_results_seal(batch) : NULL;
}

static void test_results_keep_their_order_and_payloads_over_batches(void **state)
{
    (void)state;
    struct world *w = begin(1 << 24);
    const uint32_t count = 5000;
    static const char text[] = "0123456789abcdef";
    for (uint64_t n = 1; n <= count; n++) {
        submit(w, n, false);
        broker_result(w, n, (struct sel_str){text, n % 17});
        if (n % 500 == 0) {
            pump(w);
            hear(w, broker_end_say(&w->end, false));
            w->end.heard_count = 0;
        }
    }
    assert_int_equal(w->client.results.count, count);
    uint64_t n = 0;
    struct sel_client_batch *batch;
    while ((batch = take(w))) {
        assert_in_range(batch->count, 1, 2048);
        for (uint32_t i = 0; i < batch->count; i++) {
            n++;
            assert_int_equal(batch->results[i].tag, n);
            assert_int_equal(batch->results[i].payload.n, n % 17);
            if (n % 17)
                assert_memory_equal(batch->results[i].payload.p, text, n % 17);
        }
        sel_client_batch_free(batch);
    }
    assert_int_equal(n, count);
    assert_int_equal(w->client.results.count, 0);
    assert_int_equal(w->client.results.bytes, 0);
    end(w);
}

static void test_too_many_results_hold_the_broker_until_half_is_taken(void **state)
{
    (void)state;
    struct world *w = begin(4 * sizeof(struct sel_client_result));
    for (uint64_t n = 1; n <= 5; n++)
        submit(w, n, false);
    const struct sel_inbox *in = &sel_producer_peer(link_of(w)->producer)->session.in;
    uint64_t window = in->window_records;
    for (uint64_t n = 1; n <= 5; n++)
        broker_result(w, n, SEL_STR(""));
    hear(w, broker_end_say(&w->end, false));
    assert_true(w->client.is_held);
    assert_int_equal(in->window_records, 0);
    sel_client_batch_free(take(w));
    assert_false(w->client.is_held);
    assert_int_equal(in->window_records, window);
    end(w);
}

static void test_what_finds_no_memory_is_asked_for_again(void **state)
{
    (void)state;
    for (unsigned keep = 0; keep < 2; keep++) {
        struct world *w = begin(1 << 20);
        submit(w, 1, false);
        if (keep)
            assert_ok(sel_client_results_keep(&w->client.results, (struct sel_id){9, 1}));
        pump(w);
        w->end.heard_count = 0;
        broker_end_settle_all(&w->end);
        broker_result(w, 1, SEL_STR("\x01"));
        struct sel_str frame = broker_end_say(&w->end, false);
        sel_mem_fail_at(1);
        hear(w, frame);
        sel_mem_fail_at(0);
        assert_int_equal(w->client.results.count, 0);
        assert_int_equal(sel_producer_waiting(link_of(w)->producer), 1);
        pump(w);
        assert_int_equal(w->end.heard_count, 1);
        assert_int_equal(w->end.heard[0].type, SEL_RECORD_WATCH);
        broker_result(w, 1, SEL_STR("\x01"));
        hear(w, broker_end_say(&w->end, false));
        assert_int_equal(w->client.results.count, 1);
        bool is_here = false;
        assert_int_equal(
            sel_client_results_find(&w->client.results, (struct sel_id){9, 1}, &is_here), keep);
        assert_int_equal(is_here, keep);
        end(w);
    }
}

static void test_settled_is_told_in_the_stream(void **state)
{
    (void)state;
    struct world *w = begin(1 << 20);
    submit(w, 1, true);
    pump(w);
    broker_end_settle_all(&w->end);
    broker_result(w, 1, SEL_STR("\x01"));
    hear(w, broker_end_say(&w->end, false));
    struct sel_client_batch *batch = take(w);
    assert_int_equal(batch->count, 2);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_OK);
    assert_int_equal(batch->results[1].status, SEL_CLIENT_SETTLED);
    assert_int_equal(batch->results[1].tag, 1);
    assert_int_equal(w->client.results.tell_pending, 0);
    sel_client_batch_free(batch);
    end(w);
}

static void test_a_problem_is_kept_until_a_session_goes_on(void **state)
{
    (void)state;
    struct world *w = begin(1 << 20);
    assert_string_equal(w->client.problem, "");
    hear(w, SEL_STR("garbage"));
    assert_non_null(strstr(w->client.problem, "ipc://test: "));
    w->now_us = sel_producer_due_us(link_of(w)->producer);
    pump(w);
    const struct sel_wire_welcome welcome = broker_end_welcome(&w->end, true);
    hear(w, broker_end_say_welcome(&w->end, &welcome));
    assert_string_equal(w->client.problem, "");
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_keep_their_order_and_payloads_over_batches),
        cmocka_unit_test(test_too_many_results_hold_the_broker_until_half_is_taken),
        cmocka_unit_test(test_what_finds_no_memory_is_asked_for_again),
        cmocka_unit_test(test_settled_is_told_in_the_stream),
        cmocka_unit_test(test_a_problem_is_kept_until_a_session_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
