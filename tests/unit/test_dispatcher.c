#include "tests/support/test.h"

#include "proto/nodes.h"
#include "tests/support/flow_broker.h"

/* Letters are tasks; those with a storage can be asked for their result. */
static const char nodes[] =
    "tasks:\n"
    "  - {name: A, import: t, storage: S, queue: tasks}\n"
    "  - {name: B, import: t, storage: S, queue: tasks}\n"
    "  - {name: C, import: t, storage: S, queue: tasks}\n"
    "  - {name: D, import: t, storage: S, queue: others}\n"
    "  - {name: E, import: t, storage: S, queue: others, throttling: {seconds: 3}}\n"
    "  - {name: F, import: t, storage: S}\n"
    "  - {name: G, import: t, storage: S}\n"
    "storages:\n"
    "  - {name: S, import: selinon.storages.memory, classname: InMemoryStorage, configuration: "
    "{}}\n"
    "flows: [diamond, fall, foreach, sub, inner, deep, retry, first, throttled, sampled, wide, "
    "selected, nowait, eager, subfall, innerfall, functions, large, spread, "
    "crowd, broken, rounds, stumbles]\n";

static const char flows[] =
    "flow-definitions:\n"
    "  - name: diamond\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, C]}\n"
    "      - {from: [B, C], to: D, condition: {name: fieldEqual, node: B, "
    "args: {key: task, value: B}}}\n"
    "  - name: fall\n"
    "    edges:\n"
    "      - {from: , to: [A, B]}\n"
    "      - {from: C, to: D}\n"
    "      - {from: [D, B], to: E}\n"
    "      - {from: F, to: G}\n"
    "    failures:\n"
    "      - {nodes: A, fallback: C}\n"
    "      - {nodes: E, fallback: [F, G]}\n"
    "  - name: foreach\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, C], foreach: {import: m, function: many}}\n"
    "      - {from: [B, C], to: D}\n"
    "  - name: inner\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, C]}\n"
    "  - name: sub\n"
    "    propagate_finished: true\n"
    "    propagate_parent: true\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [inner, B]}\n"
    "      - {from: [inner, B], to: D}\n"
    "      - {from: D, to: innerfall, foreach: {import: m, function: items, propagate_result: "
    "true}}\n"
    "  - name: deep\n"
    "    propagate_compound_finished: true\n"
    "    edges:\n"
    "      - {from: , to: sub}\n"
    "      - {from: sub, to: [inner, F]}\n"
    "      - {from: [sub, inner], to: G}\n"
    "  - name: retry\n"
    "    max_retry: 2\n"
    "    retry_countdown: 5\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B}\n"
    "  - name: first\n"
    "    node_args_from_first: true\n"
    "    propagate_node_args: true\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, inner]}\n"
    "  - name: throttled\n"
    "    throttling: {seconds: 7}\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "  - name: sampled\n"
    "    sampling: {name: constant, args: {retry: 2}}\n"
    "    edges:\n"
    "      - {from: , to: [A, B]}\n"
    "      - {from: [A, B], to: C}\n"
    "  - name: wide\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, B, B, B, B, B], foreach: {import: m, function: many}}\n"
    "      - {from: B, to: [C, C, C]}\n"
    "      - {from: C, to: D}\n"
    "  - name: selected\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: [B, C]}\n"
    "      - {from: B, to: inner}\n"
    "      - {from: C, to: D, }\n"
    "      - {from: D, to: inner, selective: {tasks: [C], follow_subflows: false, "
    "run_subsequent: false}}\n"
    "  - name: nowait\n"
    "    nowait: [B, inner]\n"
    "    edges:\n"
    "      - {from: , to: [A, B, inner]}\n"
    "  - name: eager\n"
    "    eager_failures: [A]\n"
    "    edges:\n"
    "      - {from: , to: [A, B]}\n"
    "  - name: innerfall\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B}\n"
    "  - name: subfall\n"
    "    propagate_failures: true\n"
    "    propagate_parent_failures: true\n"
    "    edges:\n"
    "      - {from: , to: innerfall}\n"
    "      - {from: C, to: inner}\n"
    "      - {from: inner, to: D}\n"
    "    failures:\n"
    "      - {nodes: innerfall, fallback: C}\n"
    "  - name: large\n"
    "    propagate_parent: true\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: innerfall, foreach: {import: m, function: large, "
    "propagate_result: true}}\n"
    "  - name: spread\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: B, foreach: {import: m, function: many}}\n"
    "      - {from: B, to: C}\n"
    "  - name: crowd\n"
    "    max_retry: 1\n"
    "    retry_countdown: 1\n"
    "    edges:\n"
    "      - {from: , to: [A, inner]}\n"
    "      - {from: A, to: [B, B, B, B, B, B, B, B, B, B], foreach: {import: m, function: many}}\n"
    "      - {from: B, to: [C, C, C, C, C, C, C, C, C, D]}\n"
    "      - {from: inner, to: F}\n"
    "      - {from: F, to: G}\n"
    "    failures:\n"
    "      - {nodes: D, fallback: E, propagate_failure: true}\n"
    "  - name: broken\n"
    "    propagate_parent: true\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: A, to: innerfall, foreach: {import: m, function: large, "
    "propagate_result: true}}\n"
    "      - {from: A, to: B, foreach: {import: m, function: broken}}\n"
    "  - name: rounds\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: B, to: [C, D]}\n"
    "      - {from: [C, D], to: B}\n"
    "    failures:\n"
    "      - {nodes: A, fallback: B}\n"
    "  - name: stumbles\n"
    "    edges:\n"
    "      - {from: , to: A}\n"
    "      - {from: B, to: A}\n"
    "    failures:\n"
    "      - {nodes: A, fallback: B}\n"
    "  - name: functions\n"
    "    edges:\n"
    "      - {from: , to: A, foreach: {import: m, function: broken}}\n";

static void begin(struct flow_broker *b, const char *fails)
{
    memset(b, 0, sizeof(*b));
    b->fails = fails;
}

/* The story of one flow; `b` has the script. The caller's arena gets it. */
static const char *tell(struct flow_broker *b, const char *flow, const char *args,
                        const char *selective, struct sel_arena *arena)
{
    fb_init(b, nodes, flows);
    (void)fb_submit(b, flow, args, selective);
    fb_run_all(b);
    const char *story = sel_arena_strdup(arena, sel_str_c(fb_story(b)));
    return story;
}

static const struct {
    const char *flow, *fails, *selective;
} scenarios[] = {
    {"diamond", NULL, NULL},
    {"diamond", " B ", NULL},
    {"fall", " A ", NULL},
    {"fall", " A E ", NULL},
    {"fall", " A B ", NULL},
    {"foreach", NULL, NULL},
    {"sub", NULL, NULL},
    {"deep", NULL, NULL},
    {"deep", " C ", NULL},
    {"retry", " B@0 B@1 ", NULL},
    {"retry", " B ", NULL},
    {"first", NULL, NULL},
    {"sampled", NULL, NULL},
    {"wide", NULL, NULL},
    {"selected", NULL, "{\"tasks\": [\"D\"]}"},
    {"selected", NULL, "{\"tasks\": [\"C\"], \"follow_subflows\": true}"},
    {"selected", NULL, NULL},
    {"nowait", NULL, NULL},
    {"eager", " A ", NULL},
    {"subfall", " B ", NULL},
    {"large", NULL, NULL},
};

static void test_a_diamond_is_decided(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    const char *story = tell(&b, "diamond", "{\"x\": 1}", NULL, &arena);
    assert_string_equal(
        story,
        "R0-0.0 A args={\"x\":1} parents={} failed={} flags=0\n"
        "R0-0.1 B args={\"x\":1} parents={\"A\":\"R0-0.0\"} failed={} flags=0\n"
        "R0-0.2 C args={\"x\":1} parents={\"A\":\"R0-0.0\"} failed={} flags=0\n"
        "R0-0.3 D args={\"x\":1} parents={\"B\":\"R0-0.1\",\"C\":\"R0-0.2\"} failed={} flags=0\n"
        "0 {\"active_nodes\":[],\"failed_nodes\":{},\"finished_nodes\":{\"A\":[\"R0-0.0\"],"
        "\"B\":[\"R0-0.1\"],\"C\":[\"R0-0.2\"],\"D\":[\"R0-0.3\"]}}\n");
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    struct sel_dispatcher_stats stats;
    sel_dispatcher_get_stats(b.dispatcher, &stats);
    assert_int_equal(stats.nodes_started, 4);
    assert_int_equal(stats.nodes_finished, 4);
    assert_int_equal(stats.succeeded, 1);
    assert_str_is(b.queue_names[2], "others");
    fb_done(&b);
    sel_arena_done(&arena);
}

static void test_a_fallback_and_what_follows_it_know_what_failed(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, " A ");
    const char *story = tell(&b, "fall", NULL, NULL, &arena);
    assert_non_null(strstr(story, "R0-0.2 C args=- parents={} failed={\"A\":\"R0-0.0\"} flags=0 "
                                  "!A=ValueError:A\n"));
    assert_non_null(strstr(story, "R0-0.3 D args=- parents={\"C\":\"R0-0.2\"} "
                                  "failed={\"A\":\"R0-0.0\"} flags=0 !A=ValueError:A\n"));
    assert_non_null(strstr(story, "R0-0.4 E args=- parents={\"B\":\"R0-0.1\",\"D\":\"R0-0.3\"} "
                                  "failed={\"A\":\"R0-0.0\"} flags=0 !A=ValueError:A\n"));
    fb_done(&b);
    sel_arena_done(&arena);
}

/* Both ways to a node hand on the same failure: it is handed on once, or it would be doubled with
 * each round. */
static void test_a_failure_is_handed_on_once(void **state)
{
    (void)state;
    struct flow_broker b;
    begin(&b, " A ");
    fb_init(&b, nodes, flows);
    (void)fb_submit(&b, "rounds", NULL, NULL);
    for (uint32_t i = 0; i < 100 && b.line_count < 40; i++)
        (void)(fb_turn(&b) || fb_work(&b) || fb_say_acks(&b));
    assert_true(b.line_count >= 40);
    for (uint32_t i = 1; i < b.line_count; i++) {
        const char *first = strstr(b.lines[i], " !A=");
        assert_non_null(first);
        assert_null(strstr(first + 1, " !A="));
    }
    fb_done(&b);
}

/* Of two failures of one task a fallback is told its own. */
static void test_a_fallback_is_told_the_failure_that_it_is_for(void **state)
{
    (void)state;
    struct flow_broker b;
    begin(&b, " A ");
    fb_init(&b, nodes, flows);
    (void)fb_submit(&b, "stumbles", NULL, NULL);
    for (uint32_t i = 0; i < 100 && b.line_count < 4; i++)
        (void)(fb_turn(&b) || fb_work(&b) || fb_say_acks(&b));
    assert_int_equal(b.line_count, 4);
    assert_non_null(strstr(b.lines[1], "B args=- parents={} failed={\"A\":\"R0-0.0\"}"));
    assert_non_null(
        strstr(b.lines[3], "B args=- parents={} failed={\"A\":\"R0-0.2\"} flags=0 !A="));
    fb_done(&b);
}

static void test_a_flow_that_failed_says_why(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, " B ");
    const char *story = tell(&b, "diamond", NULL, NULL, &arena);
    assert_non_null(strstr(story, "\n1 {"));
    assert_non_null(strstr(story, "\"class\":\"FlowError\""));
    assert_non_null(strstr(story, "\"message\":\"'B' failed: ValueError: B\""));
    fb_done(&b);
    begin(&b, NULL);
    b.no_answers = " broken ";
    story = tell(&b, "functions", NULL, NULL, &arena);
    assert_non_null(strstr(story, "\"message\":\"function 'broken' failed\""));
    fb_done(&b);
    sel_arena_done(&arena);
}

/* The story under other circumstances is the same. */
static void check_story(size_t i, struct flow_broker *b, const char *expected)
{
    struct sel_arena arena = {0};
    uint32_t at = b->lose_at, every = b->lose_every, budget = b->budget;
    const char *story = tell(b, scenarios[i].flow, "[1]", scenarios[i].selective, &arena);
    if (strcmp(story, expected) != 0)
        print_error("scenario %zu, %s: lost after decision %u, every %u, budget %u\n", i,
                    scenarios[i].flow, at, every, budget);
    assert_string_equal(story, expected);
    fb_done(b);
    sel_arena_done(&arena);
}

/* As many decisions as it takes, in steps of `budget`. */
static const char *tell_undisturbed(size_t i, uint32_t budget, struct sel_arena *arena,
                                    uint32_t *ret_decisions)
{
    struct flow_broker b;
    begin(&b, scenarios[i].fails);
    b.budget = budget;
    const char *story = tell(&b, scenarios[i].flow, "[1]", scenarios[i].selective, arena);
    *ret_decisions = b.decide_count;
    assert_int_not_equal(b.flows[0].outcome, UINT32_MAX);
    fb_done(&b);
    return story;
}

/* A budget of 1 makes each start, each condition a decision of its own. */
static void test_flows_are_taken_over_after_any_decision(void **state)
{
    static const uint32_t budgets[] = {0, 1};
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios) * SEL_COUNT(budgets); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions, budget = budgets[i % SEL_COUNT(budgets)];
        size_t scenario = i / SEL_COUNT(budgets);
        const char *expected = tell_undisturbed(scenario, budget, &arena, &decisions);
        uint32_t step = 1 + decisions * SEL_TEST_PART / 15;
        for (uint32_t at = 1; at < decisions; at += step) {
            struct flow_broker b;
            begin(&b, scenarios[scenario].fails);
            b.lose_at = at;
            b.budget = budget;
            check_story(scenario, &b, expected);
        }
        sel_arena_done(&arena);
    }
}

static void test_flows_are_taken_over_again_and_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions;
        const char *expected = tell_undisturbed(i, 0, &arena, &decisions);
        for (uint32_t every = 1; every < 4; every++) {
            struct flow_broker b;
            begin(&b, scenarios[i].fails);
            b.lose_every = every;
            b.budget = every == 3 ? 2 : 0;
            check_story(i, &b, expected);
        }
        sel_arena_done(&arena);
    }
}

static void test_a_session_that_goes_on_takes_nothing_away(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions;
        const char *expected = tell_undisturbed(i, 0, &arena, &decisions);
        struct flow_broker b;
        begin(&b, scenarios[i].fails);
        b.lose_every = 2;
        b.resumes = true;
        check_story(i, &b, expected);
        sel_arena_done(&arena);
    }
}

/* A session that keeps one record at a time. */
static void test_decisions_wait_for_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions;
        const char *expected = tell_undisturbed(i, 0, &arena, &decisions);
        struct flow_broker b;
        begin(&b, scenarios[i].fails);
        b.keep_bytes_max = 1;
        check_story(i, &b, expected);
        sel_arena_done(&arena);
    }
}

/* A flow that cannot be gone on with is returned, and goes on where it stood. */
static void test_shortage_of_memory_loses_no_flow(void **state)
{
    static const size_t some[] = {2, 9, 19}; /* nothing is asked for: answers are the test's own */
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(some); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions;
        const char *expected = tell_undisturbed(some[i], 0, &arena, &decisions);
        uint32_t returns = 0;
        for (int64_t n = 1;; n++) {
            struct flow_broker b;
            begin(&b, scenarios[some[i]].fails);
            b.fail_at = n;
            const char *story =
                tell(&b, scenarios[some[i]].flow, "[1]", scenarios[some[i]].selective, &arena);
            bool has_failed = b.fail_at < 0;
            if (strcmp(story, expected) != 0)
                print_error("%s, without allocation %lld\n", scenarios[some[i]].flow, (long long)n);
            assert_string_equal(story, expected);
            returns += b.return_count;
            fb_done(&b);
            if (!has_failed)
                break;
        }
        assert_true(returns > 10);
        sel_arena_done(&arena);
    }
}

static void test_large_decisions_go_in_pieces(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    (void)tell(&b, "large", NULL, NULL, &arena);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_SUCCESS);
    assert_true(b.max_record > SEL_DECISION_PIECE);
    assert_true(b.max_record < SEL_DECISION_PIECE + 1024);
    fb_done(&b);
    sel_arena_done(&arena);
}

/* What the flow asks for next is answered while its last decision still waits for room. */
static void test_a_function_may_fail_before_the_last_decision_has_left(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    b.no_answers = " broken ";
    b.keep_bytes_max = 1;
    (void)tell(&b, "broken", NULL, NULL, &arena);
    assert_true(b.decide_count > 2);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_FAILURE);
    assert_non_null(strstr(fb_json(&b, sel_buf_str(&b.flows[0].result)), "'broken' failed"));
    fb_done(&b);
    sel_arena_done(&arena);
}

static void test_a_state_stands_for_a_thousand_decisions(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const char *stories[2];
    for (int i = 0; i < 2; i++) {
        struct flow_broker b;
        begin(&b, NULL);
        b.budget = 1;
        b.lose_every = i ? 700 : 0;
        stories[i] = tell(&b, "wide", NULL, NULL, &arena);
        assert_true(b.decide_count > 1500);
        assert_true(b.state_count >= 1);
        fb_done(&b);
    }
    assert_string_equal(stories[0], stories[1]);
    sel_arena_done(&arena);
}

static void test_a_flow_that_nobody_knows_goes_elsewhere(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    (void)tell(&b, "diamnod", NULL, NULL, &arena);
    assert_int_equal(b.return_count, 1);
    assert_int_equal(b.last_return.code, SEL_RETURN_UNKNOWN_TASK);
    assert_str_is(b.last_return.payload, "no flow is called 'diamnod'; did you mean 'diamond'?");
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    fb_done(&b);
    sel_arena_done(&arena);
}

static void test_a_throttled_flow_is_put_off_once(void **state)
{
    (void)state;
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    (void)tell(&b, "throttled", NULL, NULL, &arena);
    assert_int_equal(b.return_count, 1);
    assert_int_equal(b.last_return.code, SEL_RETURN_THROTTLED);
    assert_str_is(b.last_return.limit_key, "throttled");
    assert_int_equal(b.last_return.countdown_us, 7000000);
    assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_SUCCESS);
    fb_done(&b);
    sel_arena_done(&arena);
}

static void test_a_request_without_a_path_fails_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *selective, *expected;
    } cases[] = {
        {"{\"tasks\": [\"G\"]}", "\"class\":\"SelectiveNoPathError\""},
        {"{\"tasks\": \"G\"}", "\"class\":\"SelectiveError\""},
        {"[1]", "\"class\":\"SelectiveError\""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct flow_broker b;
        struct sel_arena arena = {0};
        begin(&b, NULL);
        const char *story = tell(&b, "diamond", NULL, cases[i].selective, &arena);
        assert_int_equal(b.flows[0].outcome, SEL_OUTCOME_FAILURE);
        assert_int_equal(b.line_count, 0);
        assert_non_null(strstr(story, cases[i].expected));
        assert_non_null(strstr(story, "\"active_nodes\":[]"));
        assert_true(sel_dispatcher_is_empty(b.dispatcher));
        fb_done(&b);
        sel_arena_done(&arena);
    }
}

static uint32_t occurrences(const char *text, const char *word)
{
    uint32_t count = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
        count++;
    return count;
}

/* What the broker was told to start is what the result tells of, whatever the limit cut short. */
static void check_limit(const char *flow, uint32_t limit, uint32_t budget, uint32_t lose_every,
                        uint32_t started, const char *one_more)
{
    struct flow_broker b;
    struct sel_arena arena = {0};
    begin(&b, NULL);
    b.flow_nodes_max = limit;
    b.budget = budget;
    b.lose_every = lose_every;
    (void)tell(&b, flow, NULL, NULL, &arena);
    const char *result = fb_json(&b, sel_buf_str(&b.flows[0].result));
    assert_int_equal(b.line_count, started);
    assert_int_equal(b.flows[0].run_count, started);
    assert_int_equal(occurrences(fb_label_ids(&b, result), "\"R0-0."), started);
    assert_int_equal(b.flows[0].outcome, one_more ? SEL_OUTCOME_FAILURE : SEL_OUTCOME_SUCCESS);
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    if (one_more) {
        assert_non_null(strstr(result, "\"class\":\"FlowError\""));
        assert_non_null(
            strstr(result, sel_arena_printf(&b.arena,
                                            "\"message\":\"with '%s' the flow would have more than "
                                            "%u nodes, which is the most that --flow-nodes-max "
                                            "allows\"",
                                            one_more, limit)));
    }
    fb_done(&b);
    sel_arena_done(&arena);
}

static void test_a_flow_has_so_many_nodes_and_no_more(void **state)
{
    (void)state;
    check_limit("spread", 25, 0, 0, 25, NULL);
    check_limit("spread", 24, 0, 0, 24, "C");
    check_limit("spread", 13, 0, 0, 13, "C");
    check_limit("spread", 12, 0, 0, 1, "B"); /* twelve more are seen to be too many at once */
    check_limit("diamond", 1, 0, 0, 1, "B");
    check_limit("foreach", 169, 0, 0, 169, NULL);
}

/* A decision that is told in steps, each of few starts: earlier ones are told already. */
static void test_the_limit_of_nodes_is_met_in_the_midst_of_a_decision(void **state)
{
    (void)state;
    for (uint32_t limit = 100; limit < 106; limit++)
        check_limit("foreach", limit, 4, 0, limit, "D");
    check_limit("foreach", 100, 1, 0, 100, "D");
    check_limit("foreach", 100, 4, 3, 100, "D");
    check_limit("foreach", 168, 0, 2, 168, "D");
}

static void test_a_flow_over_the_limit_is_no_matter_of_others(void **state)
{
    (void)state;
    struct flow_broker b;
    begin(&b, NULL);
    b.flow_nodes_max = 10;
    fb_init(&b, nodes, flows);
    static const char *const names[] = {"spread", "diamond", "spread", "fall"};
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        (void)fb_submit(&b, names[i], NULL, NULL);
    fb_run_all(&b);
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        assert_int_equal(b.flows[i].outcome, i % 2 ? SEL_OUTCOME_SUCCESS : SEL_OUTCOME_FAILURE);
    fb_done(&b);
}

/* Begins a flow and lets it wait for its first runs. */
static struct fb_flow *begin_flow(struct flow_broker *b, const char *name)
{
    begin(b, NULL);
    fb_init(b, nodes, flows);
    uint32_t flow = fb_submit(b, name, NULL, NULL);
    while (fb_turn(b))
        ;
    return &b->flows[flow];
}

static void cancel(struct flow_broker *b, const struct fb_flow *f, uint32_t code)
{
    struct sel_wire_item item = fb_item(f, SEL_RECORD_CANCEL);
    item.try_count = 0;
    item.code = code;
    (void)broker_end_put(&b->end, &item);
}

static void test_a_flow_is_cancelled(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    cancel(&b, f, SEL_CANCEL_UNWANTED);
    fb_run_all(&b);
    assert_int_equal(f->outcome, SEL_OUTCOME_CANCELLED);
    assert_non_null(strstr(fb_json(&b, sel_buf_str(&f->result)), "\"class\":\"Cancelled\""));
    assert_int_equal(b.line_count, 1);
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    fb_done(&b);
}

static uint8_t state_of(const struct fb_run *run)
{
    return run->has_ended ? run->code == 0 ? SEL_NODES_FINISHED : SEL_NODES_FAILED
                          : SEL_NODES_ACTIVE;
}

/* All that ran in the last attempt is in the pages, once, as it ended. */
static uint32_t check_nodes(const struct flow_broker *b, const struct fb_flow *f)
{
    static struct sel_nodes_page page;
    struct sel_str all = sel_buf_str(&f->nodes);
    struct sel_nodes told;
    struct sel_nodes_run run;
    bool *seen = sel_mem_zalloc(f->run_count);
    uint32_t count = 0;
    assert_int_equal(sel_nodes_decode(all, all.n, &told), 0);
    assert_int_equal(told.attempt, f->attempt);
    for (uint32_t i = 0; i < told.page_count; i++) {
        uint64_t at = sel_nodes_place_at(&told, i), offset;
        size_t size;
        struct sel_str place = {all.p + at, SEL_NODES_PLACE_SIZE};
        assert_int_equal(sel_nodes_place(&told, place, &offset, &size), 0);
        sel_nodes_page_init(&page, (struct sel_str){all.p + offset, size});
        while (sel_nodes_next(&page, &run) > 0) {
            assert_true(run.ordinal < f->run_count && !seen[run.ordinal]);
            const struct fb_run *own = &f->runs[run.ordinal];
            seen[run.ordinal] = true;
            assert_true(sel_str_eq_c(run.name, own->name));
            assert_int_equal(run.state, state_of(own));
            assert_int_equal((run.flow.hi | run.flow.lo) != 0, own->is_flow);
            assert_true(!own->is_flow || sel_id_eq(run.flow, b->flows[own->child].id));
            count++;
        }
        assert_int_equal(page.rest.n, 0);
    }
    assert_int_equal(count, f->run_count);
    sel_mem_free(seen);
    return told.page_count;
}

static void test_the_nodes_of_a_large_flow_are_told_in_pages(void **state)
{
    (void)state;
    static const struct {
        const char *fails, *expected;
        uint32_t outcome;
    } cases[] = {
        {NULL, "\"failed_nodes\":0,\"finished_nodes\":1324,\"pages\":2}", SEL_OUTCOME_SUCCESS},
        {" D@0 ", "\"failed_nodes\":0,\"finished_nodes\":1324,\"pages\":2}", SEL_OUTCOME_SUCCESS},
        {" D ", "\"failed_nodes\":120,\"finished_nodes\":1324,", SEL_OUTCOME_FAILURE},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        for (uint64_t seed = 0; seed < 3; seed++) { /* ends in any order */
            struct flow_broker b;
            struct sel_arena arena = {0};
            begin(&b, cases[i].fails);
            b.seed = seed;
            const char *story = tell(&b, "crowd", NULL, NULL, &arena);
            assert_int_equal(b.flows[0].outcome, cases[i].outcome);
            if (!strstr(story, cases[i].expected))
                fail_msg("not '%s' but %s", cases[i].expected, story + strlen(story) - 200);
            assert_int_equal(check_nodes(&b, &b.flows[0]), 2);
            fb_done(&b);
            sel_arena_done(&arena);
        }
    }
}

static void test_what_still_runs_at_the_end_is_in_the_pages(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "crowd");
    while (fb_turn(&b) || (f->run_count < 1100 && (fb_work(&b) || fb_say_acks(&b))))
        ;
    cancel(&b, f, SEL_CANCEL_UNWANTED);
    while (fb_turn(&b))
        ;
    assert_int_equal(f->outcome, SEL_OUTCOME_CANCELLED);
    assert_non_null(strstr(fb_json(&b, sel_buf_str(&f->result)), "\"pages\":2"));
    assert_int_equal(check_nodes(&b, f), 2);
    fb_done(&b);
}

static void test_a_flow_that_ended_elsewhere_is_forgotten(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    uint32_t decisions = b.decide_count;
    cancel(&b, f, SEL_CANCEL_ENDED);
    fb_run_all(&b);
    assert_int_equal(b.decide_count, decisions);
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    fb_done(&b);
}

/* Up to the lists of what had ended, whose order depends on who was held up. */
static void check_starts(struct flow_broker *b, size_t scenario, const char *expected)
{
    struct sel_arena arena = {0};
    const char *flow = scenarios[scenario].flow;
    const char *story = tell(b, flow, "[1]", scenarios[scenario].selective, &arena);
    const char *end = strstr(expected, " {\"active_nodes\"");
    assert_non_null(end);
    if (strncmp(story, expected, (size_t)(end - expected)) != 0)
        fail_msg("%s: decision %u was refused\n%s\nbut expected was\n%s", flow, b->refuse_at, story,
                 expected);
    assert_true(sel_dispatcher_is_empty(b->dispatcher));
    fb_done(b);
    sel_arena_done(&arena);
}

/* Any of its decisions, the last among them; whatever is heard of it. */
static void test_a_flow_whose_decision_is_refused_is_begun_where_it_stood(void **state)
{
    static const struct {
        bool silently, breaks;
    } ways[] = {{false, false}, {true, false}, {false, true}, {true, true}};
    (void)state;
    for (size_t i = 0; i < SEL_COUNT(scenarios) * SEL_COUNT(ways); i++) {
        struct sel_arena arena = {0};
        uint32_t decisions, budget = i % 3 ? 0 : 3;
        size_t scenario = i / SEL_COUNT(ways), way = i % SEL_COUNT(ways);
        const char *expected = tell_undisturbed(scenario, budget, &arena, &decisions);
        uint32_t step = 1 + decisions / 10;
        for (uint32_t before = 0; before < decisions; before += step) {
            struct flow_broker b;
            begin(&b, scenarios[scenario].fails);
            b.budget = budget;
            b.refuse_at = decisions - before;
            b.refuses_silently = ways[way].silently;
            b.refuses_and_breaks = ways[way].breaks;
            check_starts(&b, scenario, expected);
        }
        sel_arena_done(&arena);
    }
}

static void test_a_cancel_of_another_delivery_is_nothing(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    struct fb_flow other = *f;
    other.delivery++;
    cancel(&b, &other, SEL_CANCEL_UNWANTED);
    fb_run_all(&b);
    assert_int_equal(f->outcome, SEL_OUTCOME_SUCCESS);
    fb_done(&b);
}

static void test_a_drain_gives_flows_back_where_they_stand(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    sel_dispatcher_drain(b.dispatcher);
    fb_run_all(&b);
    assert_int_equal(b.return_count, 1);
    assert_int_equal(b.last_return.code, SEL_RETURN_NOT_BEGUN);
    assert_false(f->is_assigned);
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    fb_assign(&b, f); /* nor does it take others */
    fb_run_all(&b);
    assert_int_equal(b.return_count, 2);
    b.dispatcher = sel_dispatcher_free(b.dispatcher);
    b.holder = sel_holder_free(b.holder);
    fb_open_dispatcher(&b); /* somebody else does */
    fb_run_all(&b);
    assert_int_equal(f->outcome, SEL_OUTCOME_SUCCESS);
    assert_int_equal(b.line_count, 4);
    fb_done(&b);
}

static void test_a_history_with_a_gap_is_not_believed(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    assert_int_equal(f->event_count, 1);
    f->events[0].number = 2;
    fb_break(&b);
    fb_run_all(&b);
    assert_int_equal(b.last_return.code, SEL_RETURN_NO_RESOURCES);
    assert_str_is(b.last_return.payload, "decision 2 follows decision 0");
    assert_true(sel_dispatcher_is_empty(b.dispatcher));
    fb_done(&b);
}

static void test_a_flow_of_another_configuration_goes_elsewhere(void **state)
{
    (void)state;
    struct flow_broker b;
    struct fb_flow *f = begin_flow(&b, "diamond");
    const char *text = "diamond";
    uint8_t *at = memmem(f->events[0].bytes.p, f->events[0].bytes.n, text, strlen(text));
    assert_non_null(at);
    at[0] = 'x';
    fb_break(&b);
    fb_run_all(&b);
    assert_int_equal(b.last_return.code, SEL_RETURN_NO_RESOURCES);
    assert_str_is(b.last_return.payload, "flow 'diamond' began under a configuration in which it "
                                         "has other nodes or edges");
    fb_done(&b);
}

/* What is damaged is refused, whatever it is; nothing breaks. */
static void test_damaged_histories_break_nothing(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 300 / SEL_TEST_PART; seed++) {
        struct flow_broker b;
        struct sel_prng prng = {seed};
        struct fb_flow *f = begin_flow(&b, seed % 2 ? "sub" : "fall");
        for (uint32_t i = 0; i < 2 && fb_work(&b); i++) {
            while (fb_turn(&b))
                ;
        }
        f = &b.flows[0];
        for (uint32_t i = 0; i < 2 && f->event_count > 0; i++) {
            struct sel_buf *bytes = &f->events[sel_prng_below(&prng, f->event_count)].bytes;
            bytes->p[sel_prng_below(&prng, bytes->n)] = (uint8_t)sel_prng_next(&prng);
        }
        for (uint32_t i = 0; i < b.flow_count; i++)
            b.flows[i].is_over |= i > 0;
        b.pending_count = 0;
        fb_break(&b);
        for (int i = 0; i < 20; i++) {
            (void)fb_say_acks(&b);
            (void)sel_dispatcher_turn(b.dispatcher);
            while (sel_holder_poll(b.holder, b.now_us, &b.out) == SEL_PEER_SEND) {
                if (sel_wire_message_type(sel_buf_str(&b.out), NULL) != SEL_MESSAGE_HELLO)
                    continue; /* what it decides now is not looked at */
                broker_end_hear(&b.end, &b.out);
                fb_welcome(&b);
                (void)fb_say_acks(&b);
            }
            b.now_us += 20000;
        }
        fb_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_diamond_is_decided),
        cmocka_unit_test(test_a_fallback_and_what_follows_it_know_what_failed),
        cmocka_unit_test(test_a_failure_is_handed_on_once),
        cmocka_unit_test(test_a_fallback_is_told_the_failure_that_it_is_for),
        cmocka_unit_test(test_a_flow_that_failed_says_why),
        cmocka_unit_test(test_flows_are_taken_over_after_any_decision),
        cmocka_unit_test(test_flows_are_taken_over_again_and_again),
        cmocka_unit_test(test_a_session_that_goes_on_takes_nothing_away),
        cmocka_unit_test(test_decisions_wait_for_room),
        cmocka_unit_test(test_shortage_of_memory_loses_no_flow),
        cmocka_unit_test(test_large_decisions_go_in_pieces),
        cmocka_unit_test(test_the_nodes_of_a_large_flow_are_told_in_pages),
        cmocka_unit_test(test_what_still_runs_at_the_end_is_in_the_pages),
        cmocka_unit_test(test_a_function_may_fail_before_the_last_decision_has_left),
        cmocka_unit_test(test_a_state_stands_for_a_thousand_decisions),
        cmocka_unit_test(test_a_flow_that_nobody_knows_goes_elsewhere),
        cmocka_unit_test(test_a_throttled_flow_is_put_off_once),
        cmocka_unit_test(test_a_request_without_a_path_fails_at_once),
        cmocka_unit_test(test_a_flow_has_so_many_nodes_and_no_more),
        cmocka_unit_test(test_the_limit_of_nodes_is_met_in_the_midst_of_a_decision),
        cmocka_unit_test(test_a_flow_over_the_limit_is_no_matter_of_others),
        cmocka_unit_test(test_a_flow_is_cancelled),
        cmocka_unit_test(test_a_flow_that_ended_elsewhere_is_forgotten),
        cmocka_unit_test(test_a_flow_whose_decision_is_refused_is_begun_where_it_stood),
        cmocka_unit_test(test_a_cancel_of_another_delivery_is_nothing),
        cmocka_unit_test(test_a_drain_gives_flows_back_where_they_stand),
        cmocka_unit_test(test_a_history_with_a_gap_is_not_believed),
        cmocka_unit_test(test_a_flow_of_another_configuration_goes_elsewhere),
        cmocka_unit_test(test_damaged_histories_break_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
