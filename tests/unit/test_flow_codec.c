#include "tests/support/test.h"

#include "core/compile.h"
#include "worker/co.h"
#include "worker/flow_codec.h"

static const char nodes[] = "tasks:\n"
                            "  - {name: A, import: t}\n"
                            "  - {name: B, import: t}\n"
                            "flows: [inner, outer]\n";
static const char flows[] = "flow-definitions:\n"
                            "  - name: inner\n"
                            "    edges: [{from: , to: [A, B]}]\n"
                            "  - name: outer\n"
                            "    edges: [{from: , to: [A, inner]}]\n";

struct scene {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
};

static struct sel_system *compile(struct scene *s, const char *flow_text)
{
    static struct sel_predicate_world world;
    struct sel_source source = {.file = "flows.yaml", .text = sel_str_c(flow_text)};
    struct sel_compile_options options = {.nodes = {.file = "nodes.yaml", .text = sel_str_c(nodes)},
                                          .flows = &source,
                                          .flow_count = 1,
                                          .world = &world};
    struct sel_system *system = NULL;
    sel_diag_init(&s->diag, &s->arena);
    if (sel_compile(&options, &s->diag, &system) < 0)
        fail_msg("%s", s->diag.first->text);
    return system;
}

static int setup(void **state)
{
    static struct scene s;
    memset(&s, 0, sizeof(s));
    s.system = compile(&s, flows);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    sel_system_free(s->system);
    sel_arena_done(&s->arena);
    return 0;
}

static void apply(struct sel_state *state, struct sel_event event)
{
    assert_ok(sel_state_apply(state, &event));
}

/* Two nodes of a flow have started: the first finished, the second failed. */
static struct sel_ended_flow *ended(struct scene *s, const char *name, uint64_t id,
                                    struct sel_ended_flow *take_child)
{
    const struct sel_flow_def *flow = sel_system_find_flow(s->system, sel_str_c(name));
    struct sel_state state;
    struct sel_ended_flow **children = NULL;
    assert_ok(sel_state_init_attempt(&state, (struct sel_id){id, 0}, 2, flow->node_count,
                                     flow->edge_count, SEL_STR("\x93\1\2\3")));
    apply(&state, (struct sel_event){.type = SEL_EVENT_START});
    apply(&state, (struct sel_event){.type = SEL_EVENT_EDGE});
    apply(&state, (struct sel_event){.type = SEL_EVENT_FIRE, .a = 2});
    apply(&state, (struct sel_event){.type = SEL_EVENT_TASK, .a = 0});
    apply(&state, (struct sel_event){
                      .type = take_child ? SEL_EVENT_FLOW : SEL_EVENT_TASK, .a = 1, .id = {99, 0}});
    apply(&state, (struct sel_event){.type = SEL_EVENT_EDGES_END});
    apply(&state, (struct sel_event){.type = SEL_EVENT_FAILED, .a = 1});
    apply(&state, (struct sel_event){.type = SEL_EVENT_DONE, .a = 0});
    apply(&state, (struct sel_event){.type = SEL_EVENT_TAKE});
    if (take_child) {
        children = sel_mem_zalloc(sizeof(*children));
        assert_non_null(children);
        children[0] = take_child;
    }
    struct sel_ended_flow *e = sel_ended_flow_new(flow, &state, children);
    assert_non_null(e);
    assert_ok(sel_run_failures_add(&e->failures, 1, SEL_STR("Deep"), sel_str_c(name)));
    return e;
}

static struct sel_parents *family(struct scene *s)
{
    struct sel_parents *parents = sel_parents_new(1, 2);
    assert_non_null(parents);
    assert_ok(sel_parents_set_task(parents, 0, s->system->tasks[0].name, SEL_STR("some id")));
    assert_ok(sel_parents_set_task(parents, 1, s->system->tasks[1].name, SEL_STR("other id")));
    assert_ok(sel_parents_set_failure(parents, 1, "ValueError", "no \"value\""));
    struct sel_ended_flow *outer = ended(s, "outer", 7, ended(s, "inner", 8, NULL));
    sel_parents_set_flow(parents, 2, outer->flow->name, outer, false);
    sel_ended_flow_unref(outer);
    return parents;
}

static const char *show(struct scene *s, const struct sel_parents *parents)
{
    struct sel_value finished, failed;
    assert_ok(sel_parents_to_value(s->system, parents, false, &s->arena, &finished));
    assert_ok(sel_parents_to_value(s->system, parents, true, &s->arena, &failed));
    return sel_arena_printf(&s->arena, "%s %s", sel_test_json_text(&s->arena, &finished),
                            sel_test_json_text(&s->arena, &failed));
}

static void test_parents_are_the_same_on_the_other_side(void **state)
{
    struct scene *s = *state;
    struct sel_parents *parents = family(s), *copy = NULL;
    struct sel_buf bytes = {0}, again = {0};
    struct sel_error err = {0};
    const char *error_class, *message;
    sel_flow_put_parents(s->system, parents, &bytes);
    assert_ok(sel_buf_error(&bytes));
    if (sel_flow_take_parents(s->system, sel_buf_str(&bytes), &copy, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(show(s, copy), show(s, parents));
    assert_non_null(strstr(show(s, copy), "\"outer\":{\"inner\":{\"B\":["));
    sel_flow_put_parents(s->system, copy, &again);
    assert_true(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&again)));
    assert_true(sel_parents_find_failure(copy, SEL_STR("other id"), &error_class, &message));
    assert_string_equal(error_class, "ValueError");
    assert_string_equal(message, "no \"value\"");
    char text[SEL_RUN_ID_TEXT_SIZE];
    sel_id_format_run((struct sel_id){8, 0}, 2, 1, text);
    assert_true(sel_parents_find_failure(copy, sel_str_c(text), &error_class, &message));
    assert_string_equal(error_class, "Deep");
    assert_string_equal(message, "inner");
    sel_id_format_run((struct sel_id){8, 0}, 2, 0, text); /* did not fail */
    assert_false(sel_parents_find_failure(copy, sel_str_c(text), &error_class, &message));
    assert_false(sel_parents_find_failure(NULL, sel_str_c(text), &error_class, &message));
    sel_parents_unref(parents);
    sel_parents_unref(copy);
    sel_buf_done(&bytes);
    sel_buf_done(&again);
}

static void test_what_is_cut_is_refused(void **state)
{
    struct scene *s = *state;
    struct sel_parents *parents = family(s), *copy = NULL;
    struct sel_buf bytes = {0};
    sel_flow_put_parents(s->system, parents, &bytes);
    for (size_t n = 1; n < bytes.n; n++) {
        struct sel_str cut = {(const char *)bytes.p, n};
        assert_true(sel_flow_take_parents(s->system, cut, &copy, NULL) < 0);
    }
    sel_buf_put_u8(&bytes, 0);
    assert_code(sel_flow_take_parents(s->system, sel_buf_str(&bytes), &copy, NULL), SEL_EFORMAT);
    assert_null(copy);
    sel_parents_unref(parents);
    sel_buf_done(&bytes);
}

/* ---- flows in flows ---- */

struct reading {
    const struct sel_system *system;
    struct sel_buf bytes;
    int code;
};

/* As a task does that has used a fourth of its stack. */
static void read_on_a_stack(void *arg)
{
    struct reading *reading = arg;
    volatile char used[SEL_CO_STACK_SIZE / 4];
    struct sel_ended_flow *flow = NULL;
    struct sel_error err;
    used[0] = 0;
    reading->code =
        sel_flow_take_ended(reading->system, sel_buf_str(&reading->bytes), &flow, &err) + used[0];
    sel_ended_flow_unref(flow);
}

static int read_in_a_coroutine(struct reading *reading)
{
    struct sel_co_pool *pool = sel_co_pool_new(1);
    struct sel_co *co;
    assert_non_null(pool);
    assert_ok(sel_co_new(pool, read_on_a_stack, reading, &co));
    assert_ok(sel_co_prepare(co));
    assert_true(sel_co_resume(co));
    (void)sel_co_pool_free(pool);
    return reading->code;
}

/* `count` flows, one in the other, as the `ended` of the end of a run. */
static void nest(struct scene *s, uint32_t count, struct sel_buf *ret)
{
    struct sel_ended_flow *flow = ended(s, "inner", 1, NULL);
    struct sel_buf end = {0};
    struct sel_flow_run_end parts;
    for (uint32_t i = 1; i < count; i++)
        flow = ended(s, "outer", 1 + i, flow);
    sel_flow_put_end(s->system, false, SEL_STR(""), SEL_STR(""), flow, &end);
    assert_ok(sel_flow_take_end(sel_buf_str(&end), &s->arena, &parts));
    sel_buf_put_str(ret, parts.ended);
    assert_ok(sel_buf_error(ret));
    sel_buf_done(&end);
    sel_ended_flow_unref(flow);
}

static void test_flows_in_flows_fit_on_the_stack_of_a_task(void **state)
{
    struct scene *s = *state;
    struct reading reading = {.system = s->system};
    nest(s, 401, &reading.bytes);
    assert_ok(read_in_a_coroutine(&reading));
    sel_buf_done(&reading.bytes);
}

static void test_no_parents_take_no_bytes(void **state)
{
    struct scene *s = *state;
    struct sel_parents *parents = sel_parents_new(0, 0), *copy = parents;
    struct sel_buf bytes = {0};
    sel_flow_put_parents(s->system, NULL, &bytes);
    sel_flow_put_parents(s->system, parents, &bytes);
    assert_int_equal(bytes.n, 0);
    assert_ok(sel_flow_take_parents(s->system, sel_buf_str(&bytes), &copy, NULL));
    assert_null(copy);
    sel_parents_unref(parents);
}

static void test_names_must_be_known(void **state)
{
    struct scene *s = *state;
    struct sel_parents *parents = family(s), *copy = NULL;
    struct sel_buf bytes = {0};
    struct sel_error err = {0};
    sel_flow_put_parents(s->system, parents, &bytes);
    struct sel_system *other = compile(s, "flow-definitions:\n"
                                          "  - name: inner\n"
                                          "    edges: [{from: , to: [B, A]}]\n"
                                          "  - name: outer\n"
                                          "    edges: [{from: , to: [A, inner]}]\n");
    assert_code(sel_flow_take_parents(other, sel_buf_str(&bytes), &copy, &err), SEL_ENOTFOUND);
    assert_string_equal(err.text, "flow 'inner' is not here, or has other nodes than where it ran");
    sel_system_free(other);
    sel_parents_unref(parents);
    sel_buf_done(&bytes);
}

static void test_ends_of_runs(void **state)
{
    struct scene *s = *state;
    struct sel_ended_flow *e = ended(s, "inner", 8, NULL), *copy;
    struct sel_flow_run_end end;
    struct sel_buf bytes = {0};
    sel_flow_put_end(s->system, false, SEL_STR(""), SEL_STR(""), NULL, &bytes);
    assert_int_equal(bytes.n, 0);
    sel_flow_put_end(s->system, true, SEL_STR("KeyError"), SEL_STR("x"), NULL, &bytes);
    struct sel_value map;
    assert_ok(sel_value_decode(&s->arena, bytes.p, bytes.n, false, &map, NULL));
    assert_json(&map, "{\"class\":\"KeyError\",\"message\":\"x\"}"); /* as workers write it */
    for (int failed = 0; failed < 2; failed++) {
        sel_buf_clear(&bytes);
        sel_flow_put_end(s->system, failed, SEL_STR("KeyError"), SEL_STR("x"), e, &bytes);
        assert_ok(sel_flow_take_end(sel_buf_str(&bytes), &s->arena, &end));
        assert_str_is(end.error_class, failed ? "KeyError" : "");
        assert_str_is(end.message, failed ? "x" : "");
        assert_ok(sel_flow_take_ended(s->system, end.ended, &copy, NULL));
        assert_int_equal(copy->state.run_count, 2);
        assert_int_equal(copy->state.attempt, 2);
        sel_ended_flow_unref(copy);
    }
    assert_ok(sel_flow_take_end(SEL_STR("\x93"), &s->arena, &end)); /* anything else: unknown */
    assert_int_equal(end.error_class.n + end.message.n + end.ended.n, 0);
    assert_ok(sel_flow_take_end(SEL_STR("\xc1\x7f"), &s->arena, &end));
    assert_int_equal(end.error_class.n + end.message.n + end.ended.n, 0);
    sel_ended_flow_unref(e);
    sel_buf_done(&bytes);
}

static void test_histories_say_of_which_flow_they_are(void **state)
{
    struct scene *s = *state;
    const struct sel_flow_def *inner = sel_system_find_flow(s->system, SEL_STR("inner"));
    const struct sel_flow_def *outer = sel_system_find_flow(s->system, SEL_STR("outer"));
    struct sel_buf item = {0};
    struct sel_str rest;
    sel_flow_put_history(s->system, inner, true, &item);
    sel_buf_put_c(&item, "events");
    assert_int_equal(sel_flow_take_history(s->system, inner, sel_buf_str(&item), &rest, NULL), 1);
    assert_str_is(rest, "events");
    assert_code(sel_flow_take_history(s->system, outer, sel_buf_str(&item), &rest, NULL),
                SEL_ENOTFOUND);
    for (size_t n = 0; n < item.n - 6; n++) {
        struct sel_str cut = {(const char *)item.p, n};
        assert_code(sel_flow_take_history(s->system, inner, cut, &rest, NULL), SEL_EFORMAT);
    }
    sel_buf_clear(&item);
    sel_flow_put_history(s->system, inner, false, &item);
    assert_int_equal(item.n, SEL_FLOW_HISTORY_HEAD);
    assert_ok(sel_flow_take_history(s->system, outer, sel_buf_str(&item), &rest, NULL));
    assert_int_equal(rest.n, 0);
    sel_buf_done(&item);
}

static void test_selective(void **state)
{
    static const struct {
        const char *json;
        int code;
    } cases[] = {
        {"{\"tasks\": [\"A\", \"B\"]}", 0},
        {"{\"tasks\": [], \"follow_subflows\": true, \"run_subsequent\": true, "
         "\"subsequent_flows\": [\"inner\"]}",
         0},
        {"{\"flow\": \"outer\", \"edge\": 3}", 0},
        {"{\"tasks\": [1]}", SEL_EFORMAT},
        {"{\"tasks\": \"A\"}", SEL_EFORMAT},
        {"{\"tasks\": [], \"follow_subflows\": 1}", SEL_EFORMAT},
        {"{\"flow\": \"outer\", \"edge\": -1}", SEL_EFORMAT},
        {"{}", SEL_EFORMAT},
        {"[]", SEL_EFORMAT},
    };
    struct scene *s = *state;
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value value = sel_test_json(&s->arena, cases[i].json);
        struct sel_flow_selective selective, copy;
        struct sel_buf bytes = {0}, again = {0};
        sel_value_encode(&value, &bytes);
        assert_code(sel_flow_take_selective(sel_buf_str(&bytes), &s->arena, &selective, NULL),
                    cases[i].code);
        if (cases[i].code == 0) {
            sel_flow_put_selective(&selective, &again);
            assert_ok(sel_flow_take_selective(sel_buf_str(&again), &s->arena, &copy, NULL));
            assert_int_equal(copy.edge, selective.edge);
            assert_int_equal(copy.request.task_count, selective.request.task_count);
            assert_int_equal(copy.request.follow_subflows, selective.request.follow_subflows);
            assert_int_equal(copy.request.subsequent_flow_count,
                             selective.request.subsequent_flow_count);
            assert_true(sel_str_eq(copy.flow, selective.flow));
        }
        sel_buf_done(&bytes);
        sel_buf_done(&again);
    }
}

static void test_many_failures_are_found(void **state)
{
    struct sel_run_failures failures = {0};
    const char *error_class, *message;
    (void)state;
    assert_false(sel_run_failures_find(&failures, 0, &error_class, &message));
    for (uint32_t i = 0; i < 3000; i++) {
        char text[16];
        (void)snprintf(text, sizeof(text), "%u", i * 7);
        assert_ok(sel_run_failures_add(&failures, i * 7, SEL_STR("E"), sel_str_c(text)));
    }
    assert_ok(sel_run_failures_add(&failures, 7, SEL_STR("E"), SEL_STR("later")));
    for (uint32_t i = 0; i < 21000; i++) {
        bool found = sel_run_failures_find(&failures, i, &error_class, &message);
        assert_int_equal(found, i % 7 == 0);
        if (found)
            assert_int_equal(strtoul(message, NULL, 10), i);
    }
    sel_run_failures_done(&failures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parents_are_the_same_on_the_other_side),
        cmocka_unit_test(test_what_is_cut_is_refused),
        cmocka_unit_test(test_flows_in_flows_fit_on_the_stack_of_a_task),
        cmocka_unit_test(test_no_parents_take_no_bytes),
        cmocka_unit_test(test_names_must_be_known),
        cmocka_unit_test(test_ends_of_runs),
        cmocka_unit_test(test_histories_say_of_which_flow_they_are),
        cmocka_unit_test(test_selective),
        cmocka_unit_test(test_many_failures_are_found),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
