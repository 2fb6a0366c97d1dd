/* When trace events of dispatchers are emitted: once, after the broker has what they tell of. */
#include "tests/support/test.h"

#include "tests/support/flow_broker.h"

static const char nodes[] =
    "tasks:\n"
    "  - {name: A, import: t, storage: S, queue: tasks}\n"
    "  - {name: B, import: t, storage: S, queue: others}\n"
    "  - {name: C, import: t, storage: S, queue: tasks}\n"
    "storages:\n"
    "  - {name: S, import: selinon.storages.memory, classname: InMemoryStorage, configuration: "
    "{}}\n"
    "flows: [chain, outer, inner, fall, retry, sampled, wide, halfway, large]\n";

static const char flows[] =
    "flow-definitions:\n"
    "  - name: chain\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, C]}\n"
    "      - {from: [B, C], to: A, condition: {name: fieldEqual, node: B, "
    "args: {key: task, value: X}}}\n"
    "  - name: inner\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B}\n"
    "  - name: outer\n"
    "    edges:\n"
    "      - {from: , to: [A, inner]}\n"
    "      - {from: [A, inner], to: C, foreach: {import: m, function: items}}\n"
    "  - name: fall\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "    failures:\n"
    "      - {nodes: A, fallback: C}\n"
    "  - name: retry\n"
    "    max_retry: 1\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B}\n"
    "  - name: sampled\n"
    "    sampling: {name: constant, args: {retry: 2}}\n"
    "    edges:\n"
    "      - {from: , to: [A, C]}\n"
    "      - {from: [A, C], to: B}\n"
    "  - name: wide\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [C, C, C], foreach: {import: m, function: many}}\n"
    "  - name: halfway\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B}\n"
    "      - {from: A, to: C, foreach: {import: m, function: broken}}\n"
    "  - name: large\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: inner, foreach: {import: m, function: large, "
    "propagate_result: true}}\n";

static const struct {
    const char *flow, *fails;
} scenarios[] = {
    {"chain", NULL},    {"chain", " B "}, {"outer", NULL},   {"outer", " B "}, {"fall", " A "},
    {"retry", " B@0 "}, {"retry", " B "}, {"sampled", NULL}, {"wide", NULL},   {"large", NULL},
};

static void begin(struct flow_broker *b, const char *flow, const char *fails)
{
    b->is_traced = true;
    b->fails = fails;
    fb_init(b, nodes, flows);
    b->trace_count = 0; /* of storages that were opened */
    (void)fb_submit(b, flow, "{\"x\": 1}", NULL);
}

static bool is_wait(const char *line)
{
    return strncmp(line, "DISPATCHER_RETRY", strlen("DISPATCHER_RETRY")) == 0;
}

/* Without what a dispatcher knows of its own waiting alone. */
static const char *without_retry(struct sel_arena *arena, const char *line)
{
    const char *at = strstr(line, "\"retry\":"), *end = at ? strchr(at, ',') : NULL;
    return end ? sel_arena_printf(arena, "%.*s%s", (int)(at - line), line, end)
               : sel_arena_strdup(arena, sel_str_c(line));
}

/* The lines, in `arena`; without those that say that a flow waits, which every dispatcher says for
 * itself. */
static uint32_t decided(const struct flow_broker *b, struct sel_arena *arena, const char ***ret)
{
    const char **lines = SEL_ARENA_NEW_ARRAY(arena, const char *, b->trace_count + 1);
    uint32_t count = 0;
    assert_non_null(lines);
    for (uint32_t i = 0; i < b->trace_count; i++) {
        if (!is_wait(b->traces[i]))
            lines[count++] = without_retry(arena, b->traces[i]);
    }
    *ret = lines;
    return count;
}

static void run_undisturbed(size_t i, uint32_t budget, struct sel_arena *arena, const char ***lines,
                            uint32_t *count, uint32_t *decisions)
{
    struct flow_broker b = {.budget = budget};
    begin(&b, scenarios[i].flow, scenarios[i].fails);
    fb_run_all(&b);
    *count = decided(&b, arena, lines);
    *decisions = b.decide_count;
    assert_true(*count > 4);
    fb_done(&b);
}

static bool is_line_of(const char *line, const char *label)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "\"dispatcher_id\":\"%s\"", label);
    return strstr(line, text) != NULL;
}

/* The same lines; those of one flow in the same order. */
static void check_same(struct flow_broker *b, const char **expected, uint32_t expected_count,
                       const char *what)
{
    const char **lines;
    uint32_t count = decided(b, &b->arena, &lines);
    for (uint32_t f = 0; f < b->flow_count; f++) {
        uint32_t k = 0;
        for (uint32_t i = 0; i < expected_count; i++) {
            if (!is_line_of(expected[i], b->flows[f].label))
                continue;
            while (k < count && !is_line_of(lines[k], b->flows[f].label))
                k++;
            if (k == count || strcmp(lines[k], expected[i]) != 0)
                fail_msg("%s: expected %s, got %s", what, expected[i], k < count ? lines[k] : "-");
            k++;
        }
    }
    if (count != expected_count)
        fail_msg("%s: %u lines, expected %u", what, count, expected_count);
}

static void settle(struct flow_broker *b, uint64_t number)
{
    sel_session_settle(&b->end.session, number);
    sel_holder_receive(b->holder, broker_end_say(&b->end, false), b->now_us);
    while (sel_dispatcher_turn(b->dispatcher))
        ;
}

/* The whole flow is decided while nothing is acknowledged; then one record after the other is. */
static void test_nothing_is_traced_before_the_broker_has_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        const char **expected;
        uint32_t count, decisions, steps = 0;
        run_undisturbed(i, 0, &arena, &expected, &count, &decisions);
        struct flow_broker b = {.may_not_settle = true};
        begin(&b, scenarios[i].flow, scenarios[i].fails);
        fb_run_all(&b);
        assert_true(b.flows[0].is_over);
        assert_int_equal(b.trace_count, 0);
        for (uint64_t n = 1; n <= b.end.session.in.arrived; n++) {
            uint32_t before = b.trace_count;
            settle(&b, n);
            steps += b.trace_count > before;
        }
        assert_true(steps > 1 && steps <= decisions);
        check_same(&b, expected, count, scenarios[i].flow);
        fb_done(&b);
        sel_arena_done(&arena);
    }
}

static void test_what_is_lost_with_its_session_is_traced_where_it_is_decided_again(void **state)
{
    static const uint32_t budgets[] = {0, 1};
    (void)state;
    for (size_t n = 0; n < SEL_COUNT(scenarios) * SEL_COUNT(budgets); n++) {
        struct sel_arena arena = {0};
        const char **expected;
        size_t i = n / SEL_COUNT(budgets);
        uint32_t count, decisions, budget = budgets[n % SEL_COUNT(budgets)];
        run_undisturbed(i, budget, &arena, &expected, &count, &decisions);
        /* A part looks at others of these moments in each scenario. */
        for (uint32_t at = n % SEL_TEST_PART; at < 12; at += SEL_TEST_PART) {
            struct flow_broker b = {.budget = budget};
            begin(&b, scenarios[i].flow, scenarios[i].fails);
            for (uint32_t turn = 0; turn < at; turn++)
                (void)(fb_turn(&b) || fb_work(&b) || fb_say_acks(&b));
            (void)fb_say_acks(&b);
            (void)fb_let_decide(&b);
            fb_break(&b); /* the broker has heard nothing of the last turn */
            fb_run_all(&b);
            check_same(&b, expected, count, scenarios[i].flow);
            fb_done(&b);
        }
        sel_arena_done(&arena);
    }
}

static void test_flows_that_are_taken_over_are_traced_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        const char **expected;
        uint32_t count, decisions;
        run_undisturbed(i, 1, &arena, &expected, &count, &decisions);
        for (uint32_t every = 1; every < 4; every++) {
            struct flow_broker b = {.budget = 1, .lose_every = every, .tells_first = true};
            begin(&b, scenarios[i].flow, scenarios[i].fails);
            fb_run_all(&b);
            check_same(&b, expected, count, scenarios[i].flow);
            fb_done(&b);
        }
        sel_arena_done(&arena);
    }
}

/* A session that keeps one record at a time: decisions wait, in pieces too. */
static void test_traces_wait_with_decisions_that_find_no_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        const char **expected;
        uint32_t count, decisions;
        run_undisturbed(i, 0, &arena, &expected, &count, &decisions);
        struct flow_broker b = {.keep_bytes_max = 1};
        begin(&b, scenarios[i].flow, scenarios[i].fails);
        fb_run_all(&b);
        check_same(&b, expected, count, scenarios[i].flow);
        fb_done(&b);
        sel_arena_done(&arena);
    }
}

static uint32_t count_of(const struct flow_broker *b, const char *event)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->trace_count; i++)
        count += strncmp(b->traces[i], event, strlen(event)) == 0;
    return count;
}

/* Eight sub-flows start in one decision of 1.6 MB. */
static void test_the_last_piece_of_a_decision_counts(void **state)
{
    (void)state;
    struct flow_broker b = {.may_not_settle = true};
    begin(&b, "large", NULL);
    while (fb_turn(&b))
        ;
    uint64_t first = b.end.session.in.arrived, n = first;
    settle(&b, n);
    assert_true(fb_work(&b));
    while (fb_turn(&b))
        ;
    while (count_of(&b, "SUBFLOW_SCHEDULE") == 0)
        settle(&b, ++n);
    assert_int_equal(count_of(&b, "SUBFLOW_SCHEDULE"), 8);
    assert_true(n > first + 6);
    fb_done(&b);
}

static void take_away(struct flow_broker *b)
{
    struct sel_wire_item item = fb_item(&b->flows[0], SEL_RECORD_CANCEL);
    item.code = SEL_CANCEL_ENDED;
    (void)broker_end_put(&b->end, &item);
}

static void test_what_the_broker_refused_is_not_traced(void **state)
{
    (void)state;
    struct flow_broker b = {.may_not_settle = true};
    begin(&b, "chain", NULL);
    while (fb_turn(&b))
        ;
    assert_int_equal(b.decide_count, 1);
    b.flows[0].is_over = true;
    take_away(&b);
    settle(&b, b.end.session.in.arrived);
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    assert_int_equal(b.trace_count, 0);
    fb_done(&b);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Nothing is told twice, nor what is not so. */
static void check_no_more(struct flow_broker *b, const char **expected, uint32_t expected_count)
{
    const char **lines;
    uint32_t count = decided(b, &b->arena, &lines), k = 0;
    qsort(lines, count, sizeof(*lines), compare);
    for (uint32_t i = 0; i < count; i++, k++) {
        while (k < expected_count && strcmp(expected[k], lines[i]) < 0)
            k++;
        if (k == expected_count || strcmp(expected[k], lines[i]) != 0)
            fail_msg("more than expected: %s", lines[i]);
    }
}

/* Each decision in turn; of the flow's last one everything but the trace is gone by then. */
static void test_a_decision_that_is_refused_is_not_traced_twice(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        const char **expected;
        uint32_t count, decisions;
        if (strcmp(scenarios[i].flow, "large") == 0)
            continue; /* the order in which its sub-flows end, which is told, is another */
        run_undisturbed(i, 0, &arena, &expected, &count, &decisions);
        qsort(expected, count, sizeof(*expected), compare);
        for (uint32_t at = 1; at <= decisions; at++) {
            struct flow_broker b = {.refuse_at = at, .refuses_silently = at % 2};
            begin(&b, scenarios[i].flow, scenarios[i].fails);
            fb_run_all(&b);
            assert_true(b.flows[0].is_over);
            check_no_more(&b, expected, count);
            fb_done(&b);
        }
        sel_arena_done(&arena);
    }
}

/* What it decided last, and that it has failed, wait for room meanwhile. */
static void test_late_traces_have_the_time_of_the_decision(void **state)
{
    (void)state;
    struct flow_broker b = {.may_not_settle = true};
    begin(&b, "chain", NULL);
    while (fb_turn(&b))
        ;
    b.now_us += 3000000;
    settle(&b, b.end.session.in.arrived);
    assert_true(b.trace_count > 0);
    assert_int_equal(b.trace_age_us, 3000000);
    fb_done(&b);
}

static void test_a_flow_that_is_over_here_is_taken_away(void **state)
{
    (void)state;
    struct flow_broker b = {.no_answers = " broken ", .keep_bytes_max = 1};
    struct sel_dispatcher_stats stats = {0};
    begin(&b, "halfway", NULL);
    for (int i = 0; i < 100 && stats.failed == 0; i++) {
        (void)(fb_talk(&b) || fb_work(&b) || fb_say_acks(&b));
        (void)sel_dispatcher_turn(b.dispatcher);
        sel_dispatcher_get_stats(b.dispatcher, &stats);
    }
    assert_int_equal(stats.failed, 1);
    assert_int_equal(stats.active, 1);
    take_away(&b);
    b.flows[0].is_assigned = false;
    while (fb_turn(&b) || fb_say_acks(&b))
        ;
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    assert_int_equal(count_of(&b, "DISPATCHER_FAILURE"), 0);
    assert_int_equal(count_of(&b, "TASK_SCHEDULE"), 1);
    fb_done(&b);
}

static void test_the_end_of_a_dispatcher_tells_what_is_known(void **state)
{
    (void)state;
    struct flow_broker b = {0};
    begin(&b, "chain", NULL);
    (void)fb_turn(&b);
    while (fb_turn(&b))
        ;
    uint32_t before = b.trace_count;
    sel_holder_receive(b.holder, broker_end_say(&b.end, false), b.now_us); /* and no turn */
    assert_int_equal(b.trace_count, before);
    b.dispatcher = sel_dispatcher_free(b.dispatcher);
    assert_true(b.trace_count > before);
    fb_done(&b);
}

/* A step says something, for which there is no room, and asks for what cannot be had: that the flow
 * fails is said after it. */
static void test_a_flow_fails_while_its_decision_waits_for_room(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const char **expected[2];
    uint32_t counts[2];
    for (int i = 0; i < 2; i++) {
        struct flow_broker b = {.no_answers = " broken ", .keep_bytes_max = i ? 1 : 0};
        begin(&b, "halfway", NULL);
        fb_run_all(&b);
        assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_FAILURE);
        assert_int_equal(b.line_count, 2); /* A and B */
        assert_true(sel_dispatcher_is_empty(b.dispatcher));
        struct sel_dispatcher_stats stats;
        sel_dispatcher_get_stats(b.dispatcher, &stats);
        assert_true(stats.held_back >= (uint64_t)i);
        counts[i] = decided(&b, &arena, &expected[i]);
        fb_done(&b);
    }
    assert_int_equal(counts[0], counts[1]);
    for (uint32_t i = 0; i < counts[0]; i++)
        assert_string_equal(expected[0][i], expected[1][i]);
    sel_arena_done(&arena);
}

/* Flows do not suffer, whatever becomes of their traces. */
static void test_shortage_of_memory_costs_traces_at_most(void **state)
{
    static const size_t some[] = {4, 5, 7}; /* nothing is asked for: answers are the test's own */
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(some); i++) {
        const char *flow = scenarios[some[i]].flow;
        struct flow_broker whole = {0};
        begin(&whole, flow, scenarios[some[i]].fails);
        fb_run_all(&whole);
        const char *story = fb_story(&whole);
        uint64_t lost = 0;
        for (int64_t n = 1;; n++) {
            struct flow_broker b = {.fail_at = n};
            begin(&b, flow, scenarios[some[i]].fails);
            fb_run_all(&b);
            assert_string_equal(fb_story(&b), story);
            struct sel_dispatcher_stats stats;
            sel_dispatcher_get_stats(b.dispatcher, &stats);
            lost += stats.traces_lost;
            bool has_failed = b.fail_at < 0;
            fb_done(&b);
            if (!has_failed)
                break;
        }
        assert_true(lost > 0);
        fb_done(&whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_traced_before_the_broker_has_it),
        cmocka_unit_test(test_what_is_lost_with_its_session_is_traced_where_it_is_decided_again),
        cmocka_unit_test(test_flows_that_are_taken_over_are_traced_once),
        cmocka_unit_test(test_traces_wait_with_decisions_that_find_no_room),
        cmocka_unit_test(test_the_last_piece_of_a_decision_counts),
        cmocka_unit_test(test_what_the_broker_refused_is_not_traced),
        cmocka_unit_test(test_a_decision_that_is_refused_is_not_traced_twice),
        cmocka_unit_test(test_late_traces_have_the_time_of_the_decision),
        cmocka_unit_test(test_a_flow_that_is_over_here_is_taken_away),
        cmocka_unit_test(test_the_end_of_a_dispatcher_tells_what_is_known),
        cmocka_unit_test(test_a_flow_fails_while_its_decision_waits_for_room),
        cmocka_unit_test(test_shortage_of_memory_costs_traces_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
