#include "tests/support/test.h"

#include "worker/parents.h"

/* Tasks a (0) and b (1), flows top (2), inner (3), deep (4). Every flow has all of them as slots,
 * in this order. */
struct scene {
    struct sel_arena arena;
    struct sel_task_def tasks[2];
    struct sel_flow_def flows[3];
    struct sel_flow_node nodes[5];
    struct sel_system system;
};

static void make(struct scene *s)
{
    static const char *const names[] = {"a", "b", "top", "inner", "deep"};
    memset(s, 0, sizeof(*s));
    for (uint32_t i = 0; i < 5; i++) {
        s->nodes[i].node = i;
        if (i < 2)
            s->tasks[i].name = sel_str_c(names[i]);
        else
            s->flows[i - 2] = (struct sel_flow_def){
                .name = sel_str_c(names[i]), .index = i - 2, .nodes = s->nodes, .node_count = 5};
    }
    s->system =
        (struct sel_system){.tasks = s->tasks, .task_count = 2, .flows = s->flows, .flow_count = 3};
}

static void apply(struct sel_state *state, struct sel_event event)
{
    assert_ok(sel_state_apply(state, &event));
}

/* An ended flow: `runs` names its slots in the order of their start, an upper-case letter failed.
 * t, i, d: sub-flows, their ends taken from `children` in turn. */
static struct sel_ended_flow *ended(struct scene *s, uint32_t flow, uint64_t id, const char *runs,
                                    struct sel_ended_flow **children, uint32_t child_count)
{
    static const char letters[] = "abtidABTID";
    struct sel_state state;
    uint32_t count = (uint32_t)strlen(runs);
    assert_ok(sel_state_init(&state, (struct sel_id){id, 0}, 5, 1, SEL_STR("\xc0")));
    apply(&state, (struct sel_event){.type = SEL_EVENT_START});
    if (count > 0) {
        apply(&state, (struct sel_event){.type = SEL_EVENT_EDGE});
        apply(&state, (struct sel_event){.type = SEL_EVENT_FIRE, .a = count});
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)(strchr(letters, runs[i]) - letters) % 5;
        apply(&state, (struct sel_event){.type = slot < 2 ? SEL_EVENT_TASK : SEL_EVENT_FLOW,
                                         .a = slot,
                                         .id = {99, i}});
    }
    apply(&state, (struct sel_event){.type = SEL_EVENT_EDGES_END});
    for (uint32_t i = count; i-- > 0;) { /* they end the other way round */
        bool failed = runs[i] >= 'A' && runs[i] <= 'Z';
        apply(&state,
              (struct sel_event){.type = failed ? SEL_EVENT_FAILED : SEL_EVENT_DONE, .a = i});
        if (failed)
            continue;
        apply(&state, (struct sel_event){.type = SEL_EVENT_TAKE});
        apply(&state, (struct sel_event){.type = SEL_EVENT_EDGES_END});
    }
    struct sel_ended_flow **taken = NULL;
    if (child_count > 0) {
        taken = sel_mem_zalloc(sizeof(*taken) * child_count);
        assert_non_null(taken);
        memcpy(taken, children, sizeof(*taken) * child_count);
    }
    struct sel_ended_flow *result = sel_ended_flow_new(&s->flows[flow], &state, taken);
    assert_non_null(result);
    assert_null(state.runs); /* taken over */
    return result;
}

#define ID(hi, run) "\"" hi "-0000-0000-0000-000000000000-0." run "\""

static const char *value_of(struct scene *s, const struct sel_parents *parents, bool failed)
{
    struct sel_value value;
    assert_ok(sel_parents_to_value(&s->system, parents, failed, &s->arena, &value));
    struct sel_buf text = {0};
    sel_json_write(&value, 0, &text); /* in its order, not sorted */
    const char *copy = sel_arena_strdup(&s->arena, sel_buf_str(&text));
    sel_buf_done(&text);
    assert_non_null(copy);
    return copy;
}

/* Parents that are one sub-flow `inner`, which takes over the reference. */
static struct sel_parents *of_flow(struct scene *s, struct sel_ended_flow *flow, bool compound,
                                   bool failed)
{
    struct sel_parents *parents = failed ? sel_parents_new(0, 1) : sel_parents_new(1, 0);
    assert_non_null(parents);
    sel_parents_set_flow(parents, 0, s->flows[1].name, flow, compound);
    sel_ended_flow_unref(flow);
    return parents;
}

static void test_tasks_are_shown_by_name_and_id(void **state)
{
    (void)state;
    struct scene s;
    make(&s);
    struct sel_parents *parents = sel_parents_new(2, 1);
    assert_ok(sel_parents_set_task(parents, 0, s.tasks[1].name, SEL_STR("id of b")));
    assert_ok(sel_parents_set_task(parents, 1, s.tasks[0].name, SEL_STR("id of a")));
    assert_ok(sel_parents_set_task(parents, 2, s.tasks[0].name, SEL_STR("of one that failed")));
    assert_string_equal(value_of(&s, parents, false), "{\"b\":\"id of b\",\"a\":\"id of a\"}");
    assert_string_equal(value_of(&s, parents, true), "{\"a\":\"of one that failed\"}");
    assert_string_equal(value_of(&s, NULL, false), "{}");
    assert_string_equal(value_of(&s, NULL, true), "{}");
    sel_parents_unref(parents);
    sel_arena_done(&s.arena);
}

static void test_runs_of_a_flow_are_listed_in_the_order_of_their_start(void **state)
{
    (void)state;
    struct scene s;
    make(&s);
    struct sel_parents *parents =
        of_flow(&s, ended(&s, 1, 0x1000000000000, "baAb", NULL, 0), false, false);
    assert_string_equal(value_of(&s, parents, false),
                        "{\"inner\":{\"b\":[" ID("00010000", "0") "," ID(
                            "00010000", "3") "],\"a\":[" ID("00010000", "1") "]}}");
    assert_string_equal(value_of(&s, parents, true), "{}");
    sel_parents_unref(parents);
    parents = of_flow(&s, ended(&s, 1, 0x1000000000000, "baAb", NULL, 0), false, true);
    assert_string_equal(value_of(&s, parents, true),
                        "{\"inner\":{\"a\":[" ID("00010000", "2") "]}}");
    sel_parents_unref(parents);
    sel_arena_done(&s.arena);
}

static void test_flows_in_flows_are_nested_or_in_one_map(void **state)
{
    (void)state;
    const char *const expected[] = {
        "{\"inner\":{\"a\":[" ID("00010000", "0") "],\"deep\":{\"a\":[" ID("00020000", "0") "," ID(
            "00030000", "0") "],\"b\":[" ID("00020000", "1") "]}}}",
        "{\"inner\":{\"a\":[" ID("00010000", "0") "," ID("00020000", "0") "," ID(
            "00030000", "0") "],\"b\":[" ID("00020000", "1") "]}}"};
    for (size_t i = 0; i < 2; i++) {
        struct scene s;
        make(&s);
        struct sel_ended_flow *children[] = {ended(&s, 2, 0x2000000000000, "ab", NULL, 0),
                                             ended(&s, 2, 0x3000000000000, "a", NULL, 0)};
        struct sel_ended_flow *inner = ended(&s, 1, 0x1000000000000, "add", children, 2);
        struct sel_parents *parents = of_flow(&s, inner, i == 1, false);
        assert_string_equal(value_of(&s, parents, false), expected[i]);
        sel_parents_unref(parents);
        sel_arena_done(&s.arena);
    }
}

static void test_flows_without_ids_are_left_out(void **state)
{
    (void)state;
    struct scene s;
    make(&s);
    struct sel_ended_flow *children[] = {ended(&s, 2, 1, "", NULL, 0), NULL};
    struct sel_ended_flow *inner = ended(&s, 1, 2, "dd", children, 2);
    struct sel_parents *parents = of_flow(&s, inner, false, false);
    assert_string_equal(value_of(&s, parents, false), "{}");
    sel_parents_unref(parents);
    sel_arena_done(&s.arena);
}

static void test_copies_share_what_they_refer_to(void **state)
{
    (void)state;
    struct scene s;
    make(&s);
    struct sel_ended_flow *inner = ended(&s, 1, 0x1000000000000, "a", NULL, 0);
    struct sel_parents *first = sel_parents_new(2, 0), *second = sel_parents_new(0, 2);
    sel_parents_set_flow(first, 0, s.flows[1].name, inner, false);
    assert_ok(sel_parents_set_task(first, 1, s.tasks[1].name, SEL_STR("id")));
    assert_int_equal(inner->refs, 2);
    assert_ok(sel_parents_copy(second, 0, &first->parents[0]));
    assert_ok(sel_parents_copy(second, 1, &first->parents[1]));
    assert_int_equal(inner->refs, 3);
    sel_parents_unref(sel_parents_ref(first));
    sel_parents_unref(first);
    assert_int_equal(inner->refs, 2);
    sel_parents_unref(second);
    assert_int_equal(inner->refs, 1);
    sel_ended_flow_unref(inner);
    sel_parents_unref(NULL);
    sel_ended_flow_unref(NULL);
    sel_arena_done(&s.arena);
}

/* Nests `count` flows; the innermost ran task a. */
static struct sel_ended_flow *nest(struct scene *s, uint32_t count)
{
    struct sel_ended_flow *flow = ended(s, 1, 1, "a", NULL, 0);
    for (uint32_t i = 1; i < count; i++)
        flow = ended(s, 1, 1, "i", &flow, 1);
    return flow;
}

static void test_flows_nested_beyond_the_limit_are_refused_and_freed(void **state)
{
    (void)state;
    struct scene s;
    struct sel_value value;
    make(&s);
    struct sel_parents *parents = of_flow(&s, nest(&s, 300), true, false);
    assert_string_equal(value_of(&s, parents, false),
                        "{\"inner\":{\"a\":[\"00000000-0000-0001-0000-000000000000-0.0\"]}}");
    sel_parents_unref(parents);
    parents = of_flow(&s, nest(&s, 100000), false, false);
    assert_code(sel_parents_to_value(&s.system, parents, false, &s.arena, &value), SEL_ELIMIT);
    sel_parents_unref(parents); /* no recursion here either */
    sel_arena_done(&s.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks_are_shown_by_name_and_id),
        cmocka_unit_test(test_runs_of_a_flow_are_listed_in_the_order_of_their_start),
        cmocka_unit_test(test_flows_in_flows_are_nested_or_in_one_map),
        cmocka_unit_test(test_flows_without_ids_are_left_out),
        cmocka_unit_test(test_copies_share_what_they_refer_to),
        cmocka_unit_test(test_flows_nested_beyond_the_limit_are_refused_and_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
