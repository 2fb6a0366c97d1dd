/* Dispatchers whose flows call functions of modules, which run as coroutines of the loop. */
#include "tests/support/test.h"

#include "tests/support/flow_broker.h"

static const char nodes[] = "tasks:\n"
                            "  - {name: A, import: trouble, classname: Nothing}\n"
                            "  - {name: B, import: trouble, classname: Nothing}\n"
                            "  - {name: Stored, import: trouble, classname: Nothing, storage: S}\n"
                            "storages:\n"
                            "  - {name: S, import: selinon.storages.memory, classname: "
                            "InMemoryStorage, configuration: {}}\n"
                            "flows: [counts, hangs, asks, waits, nan, result, absent, outer]\n";

static const char flows[] =
    "flow-definitions:\n"
    "  - name: counts\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B, foreach: {import: trouble, function: numbers}}\n"
    "  - name: hangs\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B, foreach: {import: trouble, function: hangs}}\n"
    "  - name: asks\n"
    "    edges:\n"
    "      - {from: , to: A, foreach: {import: trouble, function: retries}}\n"
    "  - name: waits\n"
    "    sampling: {name: hangingSampling, import: trouble}\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "  - name: nan\n"
    "    sampling: {name: nanSampling, import: trouble}\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "  - name: result\n"
    "    edges:\n"
    "      - {from: , to: Stored}\n"
    "      - {from: Stored, to: A, condition: {name: fieldExist, node: Stored, args: {key: x}}}\n"
    "  - name: absent\n"
    "    edges:\n"
    "      - {from: , to: A, foreach: {import: trouble, function: nobodyHasThis}}\n"
    "  - name: outer\n"
    "    edges:\n"
    "      - {from: , to: [hangs, counts]}\n";

static void begin(struct flow_broker *b, const char *flow, const char *args)
{
    fb_init(b, nodes, flows);
    (void)fb_submit(b, flow, args, NULL);
}

static const char *result_of(struct flow_broker *b)
{
    return fb_json(b, sel_buf_str(&b->flows[0].result));
}

static void test_functions_of_modules_are_asked(void **state)
{
    (void)state;
    struct flow_broker b = {.has_loop = true, .modules_path = SEL_TEST_MODULES};
    begin(&b, "counts", "{\"count\": 3}");
    fb_run_loop(&b);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_SUCCESS);
    assert_int_equal(b.line_count, 4);
    assert_int_equal(b.page->threads[0].running, 0);
    fb_done(&b);
}

static void test_a_function_that_fails_fails_the_flow(void **state)
{
    static const struct {
        const char *flow, *expected;
    } cases[] = {
        {"asks", "asked for a retry, which only tasks can"},
        {"nan", "returned what is not a number"},
        {"result", "has no result of task"},
        {"hangs", "the time limit for functions of a flow is reached"},
        {"waits", "the time limit for functions of a flow is reached"},
    };
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct flow_broker b = {
            .has_loop = true, .modules_path = SEL_TEST_MODULES, .function_limit_us = 20000};
        begin(&b, cases[i].flow, NULL);
        fb_run_loop(&b);
        assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_FAILURE);
        if (!strstr(result_of(&b), cases[i].expected))
            fail_msg("%s: %s", cases[i].flow, result_of(&b));
        fb_done(&b);
    }
}

static void cancel(struct flow_broker *b, uint32_t code)
{
    struct sel_wire_item item = fb_item(&b->flows[0], SEL_RECORD_CANCEL);
    item.code = code;
    (void)broker_end_put(&b->end, &item);
}

/* `*(int *)b->user` counts what has happened so far. */
static void cancel_once_it_hangs(struct flow_broker *b)
{
    int *step = b->user;
    if (*step == 0 && sel_dispatcher_running(b->dispatcher) > 0 && b->pending_count == 0) {
        cancel(b, SEL_CANCEL_UNWANTED);
        *step = 1;
    }
}

static void test_a_flow_is_cancelled_while_its_function_hangs(void **state)
{
    static const char *const names[] = {"hangs", "waits"};
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(names); i++) {
        int step = 0;
        struct flow_broker b = {.has_loop = true,
                                .modules_path = SEL_TEST_MODULES,
                                .each_turn = cancel_once_it_hangs,
                                .user = &step};
        begin(&b, names[i], NULL);
        fb_run_loop(&b);
        assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_CANCELLED);
        fb_done(&b);
    }
}

static void lose_then_cancel(struct flow_broker *b)
{
    int *step = b->user;
    if (b->pending_count > 0 || sel_dispatcher_running(b->dispatcher) == 0)
        return;
    if (*step < 3)
        fb_break(b);
    else if (*step == 3)
        cancel(b, SEL_CANCEL_UNWANTED);
    (*step)++;
}

/* A coroutine of a flow that was forgotten must not touch what came after it. */
static void test_sessions_are_lost_while_a_function_hangs(void **state)
{
    (void)state;
    int step = 0;
    struct flow_broker b = {.has_loop = true,
                            .modules_path = SEL_TEST_MODULES,
                            .each_turn = lose_then_cancel,
                            .user = &step};
    begin(&b, "hangs", NULL);
    fb_run_loop(&b);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_CANCELLED);
    struct sel_dispatcher_stats stats;
    sel_dispatcher_get_stats(b.dispatcher, &stats);
    assert_int_equal(stats.lost, 3);
    assert_int_equal(stats.taken_over, 3);
    assert_int_equal(stats.active, 0);
    fb_done(&b);
}

static void drain_once_it_hangs(struct flow_broker *b)
{
    int *step = b->user;
    if (*step == 0 && sel_dispatcher_running(b->dispatcher) > 0 && b->pending_count == 0) {
        sel_dispatcher_drain(b->dispatcher);
        *step = 1;
    } else if (*step == 1) { /* what is asked is waited for, until the worker has no more time */
        assert_false(sel_dispatcher_is_empty(b->dispatcher));
        sel_dispatcher_cancel_all(b->dispatcher);
        assert_true(sel_dispatcher_is_empty(b->dispatcher));
        for (uint32_t i = 0; i < b->flow_count; i++)
            b->flows[i].is_over = true;
        *step = 2;
    }
}

static void test_a_worker_that_ends_gives_back_what_hangs(void **state)
{
    (void)state;
    int step = 0;
    struct flow_broker b = {.has_loop = true,
                            .modules_path = SEL_TEST_MODULES,
                            .each_turn = drain_once_it_hangs,
                            .user = &step};
    begin(&b, "hangs", NULL);
    fb_run_loop(&b);
    assert_int_equal(step, 2);
    (void)fb_talk(&b);
    assert_int_equal(b.return_count, 1);
    assert_int_equal(b.last_return.code, SEL_RETURN_NOT_BEGUN);
    fb_done(&b);
}

static void stop_when_returned(struct flow_broker *b)
{
    b->flows[0].is_over = b->return_count > 0;
}

static void test_a_flow_whose_functions_are_not_here_goes_elsewhere(void **state)
{
    (void)state;
    struct flow_broker b = {
        .has_loop = true, .modules_path = SEL_TEST_MODULES, .each_turn = stop_when_returned};
    begin(&b, "absent", NULL);
    fb_run_loop(&b);
    assert_int_equal(b.last_return.code, SEL_RETURN_NO_RESOURCES);
    assert_non_null(strstr(b.last_return.payload.p, "nobodyHasThis"));
    fb_done(&b);
}

/* One that waits holds up no other. */
static void test_flows_take_turns(void **state)
{
    (void)state;
    struct flow_broker b = {
        .has_loop = true, .modules_path = SEL_TEST_MODULES, .function_limit_us = 50000};
    begin(&b, "outer", "{\"count\": 2}");
    fb_run_loop(&b);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_FAILURE);
    assert_int_equal(b.flows[1].outcome, SEL_OUTCOME_FAILURE);
    fb_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions_of_modules_are_asked),
        cmocka_unit_test(test_a_function_that_fails_fails_the_flow),
        cmocka_unit_test(test_a_flow_is_cancelled_while_its_function_hangs),
        cmocka_unit_test(test_sessions_are_lost_while_a_function_hangs),
        cmocka_unit_test(test_a_worker_that_ends_gives_back_what_hangs),
        cmocka_unit_test(test_a_flow_whose_functions_are_not_here_goes_elsewhere),
        cmocka_unit_test(test_flows_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
