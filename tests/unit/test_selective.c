#include "tests/support/test.h"

#include "core/compile.h"
#include "core/selective.h"

struct scene {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_error err;
};

static const char *no_env(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return NULL;
}

/* Tasks a to f, flows main, sub and deep. */
static void make(struct scene *s, const char *flows)
{
    static const char nodes[] = "tasks:\n"
                                "  - {name: a, import: m}\n"
                                "  - {name: b, import: m}\n"
                                "  - {name: c, import: m}\n"
                                "  - {name: d, import: m}\n"
                                "  - {name: e, import: m}\n"
                                "  - {name: f, import: m}\n"
                                "flows: [main, sub, deep]\n";
    static const struct sel_predicate_world world = {no_env, NULL};
    struct sel_source source = {.file = "flows.yaml", .text = sel_str_c(flows)};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml", .text = sel_str_c(nodes)},
        .flows = &source,
        .flow_count = 1,
        .world = &world,
        .no_check = true}; /* plans are made for what compiles, odd as it may be */
    memset(s, 0, sizeof(*s));
    sel_diag_init(&s->diag, &s->arena);
    if (sel_compile(&options, &s->diag, &s->system) < 0)
        fail_msg("%s", s->diag.first->text);
}

static void done(struct scene *s)
{
    sel_system_free(s->system);
    sel_arena_done(&s->arena);
}

struct request {
    const char *tasks[3];
    bool follow, subsequent;
    const char *subsequent_flows[2];
};

static uint32_t to_strs(const char *const *names, uint32_t max, struct sel_str *out)
{
    uint32_t count = 0;
    for (; count < max && names[count]; count++)
        out[count] = sel_str_c(names[count]);
    return count;
}

static int plan(struct scene *s, const struct request *r, const struct sel_plan **ret)
{
    struct sel_str tasks[3], flows[2];
    struct sel_selective_request request = {.tasks = tasks,
                                            .task_count = to_strs(r->tasks, 3, tasks),
                                            .follow_subflows = r->follow,
                                            .run_subsequent = r->subsequent,
                                            .subsequent_flows = flows,
                                            .subsequent_flow_count =
                                                to_strs(r->subsequent_flows, 2, flows)};
    return sel_plan_compute(&s->arena, s->system, &s->system->flows[0], &request, ret, &s->err);
}

#define HEAD "flow-definitions:\n"
#define MAIN HEAD "  - name: main\n    edges:\n"
#define SUB "  - name: sub\n    edges:\n"
#define DEEP "  - name: deep\n    edges:\n"
#define E(from, to) "      - {from: " from ", to: " to "}\n"
#define REST SUB E("", "f") DEEP E("", "f")

/* What the original computes, checked against it; only its order within lists is not ours. */
static void test_plans_have_the_edges_on_the_paths(void **state)
{
    (void)state;
    const struct {
        const char *flows;
        struct request request;
        const char *expected; /* waiting_edges_subset, or NULL: there is no path */
    } cases[] = {
        /* a chain is cut behind the task */
        {MAIN E("", "a") E("a", "b") E("b", "c") REST,
         {.tasks = {"b"}},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"]}}"},
        /* only the destinations on the path start */
        {MAIN E("", "[a, d]") E("a", "[b, e]") REST,
         {.tasks = {"b"}},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"]}}"},
        /* all paths */
        {MAIN E("", "[a, b]") E("a", "c") E("b", "c") REST,
         {.tasks = {"c"}},
         "{\"main\":{\"0\":[\"a\",\"b\"],\"1\":[\"c\"],\"2\":[\"c\"]}}"},
        /* a join needs all its sources */
        {MAIN E("", "a") E("", "b") E("[a, b]", "c") REST,
         {.tasks = {"c"}},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"],\"2\":[\"c\"]}}"},
        /* ... and is no path if one of them cannot be reached */
        {MAIN E("", "a") E("[a, e]", "c") E("a", "c") REST,
         {.tasks = {"c"}},
         "{\"main\":{\"0\":[\"a\"],\"2\":[\"c\"]}}"},
        {MAIN E("", "a") E("[a, e]", "c") REST, {.tasks = {"c"}}, NULL},
        /* a cycle that leads to the task is on the path */
        {MAIN E("", "a") E("a", "b") E("b", "a") REST,
         {.tasks = {"b"}},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"],\"2\":[\"a\"]}}"},
        /* several tasks, one plan */
        {MAIN E("", "a") E("a", "b") E("a", "c") E("c", "d") REST,
         {.tasks = {"b", "c"}},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"],\"2\":[\"c\"]}}"},
        /* a task in a sub-flow needs to be followed */
        {MAIN E("", "a") E("a", "sub") SUB E("", "b") E("b", "c") DEEP E("", "f"),
         {.tasks = {"b"}},
         NULL},
        {MAIN E("", "a") E("a", "sub") E("a", "d") SUB E("", "b") E("b", "c") DEEP E("", "f"),
         {.tasks = {"b"}, .follow = true},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"sub\"]},\"sub\":{\"0\":[\"b\"]}}"},
        /* over two levels; the flow between them has no other edge in the plan */
        {MAIN E("", "sub") SUB E("", "b") E("b", "deep") E("", "c") DEEP E("", "d"),
         {.tasks = {"d"}, .follow = true},
         "{\"deep\":{\"0\":[\"d\"]},\"main\":{\"0\":[\"sub\"]},\"sub\":{\"0\":[\"b\"],\"1\":"
         "[\"deep\"]}}"},
        /* a sub-flow on no path is known, with nothing in it */
        {MAIN E("", "[a, sub]") SUB E("", "b") DEEP E("", "f"),
         {.tasks = {"a"}, .follow = true},
         "{\"main\":{\"0\":[\"a\"]},\"sub\":{}}"},
        /* a flow that starts itself */
        {MAIN E("", "a") E("a", "sub") SUB E("", "b") E("b", "sub") DEEP E("", "f"),
         {.tasks = {"b"}, .follow = true},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"sub\"]},\"sub\":{\"0\":[\"b\"],\"1\":[\"sub\"]}}"},
        /* what comes after runs in full, and so does what comes after that */
        {MAIN E("", "a") E("a", "b") E("b", "[c, d]") E("d", "e") E("a", "f") REST,
         {.tasks = {"b"}, .subsequent = true},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"],\"2\":[\"c\",\"d\"],\"3\":[\"e\"]}}"},
        /* ... but no join with something that does not */
        {MAIN E("", "[a, f]") E("a", "b") E("[b, f]", "c") REST,
         {.tasks = {"b"}, .subsequent = true},
         "{\"main\":{\"0\":[\"a\"],\"1\":[\"b\"]}}"},
        /* ... only in the flows that are named */
        {MAIN E("", "[a, sub]") E("a", "b") SUB E("", "a") E("a", "c") DEEP E("", "f"),
         {.tasks = {"a"}, .follow = true, .subsequent = true, .subsequent_flows = {"sub"}},
         "{\"main\":{\"0\":[\"a\",\"sub\"]},\"sub\":{\"0\":[\"a\"],\"1\":[\"c\"]}}"},
        /* a fallback node is on no edge */
        {MAIN E("", "a") "    failures:\n      - {nodes: a, fallback: b}\n" REST,
         {.tasks = {"b"}},
         NULL},
        /* nobody knows the task */
        {MAIN E("", "a") REST, {.tasks = {"unknown"}}, NULL},
        {MAIN E("", "a") REST, {.tasks = {"a", "e"}}, NULL},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct scene s;
        const struct sel_plan *p = NULL;
        struct sel_value value;
        make(&s, cases[i].flows);
        int r = plan(&s, &cases[i].request, &p);
        if (!cases[i].expected) {
            assert_code(r, SEL_ENOPATH);
            assert_non_null(strstr(s.err.text, "no path leads to '"));
            assert_null(p);
        } else {
            assert_ok(r);
            assert_ok(sel_plan_to_value(&s.arena, s.system, p, &value));
            const char *text =
                sel_test_json_text(&s.arena, sel_value_get_c(&value, "waiting_edges_subset"));
            if (strcmp(text, cases[i].expected) != 0)
                fail_msg("case %zu:\n%s\n%s", i, text, cases[i].expected);
        }
        done(&s);
    }
}

static void test_a_plan_answers_what_deciders_ask(void **state)
{
    (void)state;
    struct scene s;
    const struct sel_plan *p;
    struct request request = {.tasks = {"b"}, .subsequent = true};
    make(&s, MAIN E("", "[d, a]") E("d", "e") E("a", "b") E("b", "c") REST);
    assert_ok(plan(&s, &request, &p));
    assert_true(sel_plan_has_task(p, SEL_STR("b")));
    assert_false(sel_plan_has_task(p, SEL_STR("c")));
    assert_null(sel_plan_flow(p, 1));
    const struct sel_plan_flow *flow = sel_plan_flow(p, 0);
    assert_non_null(flow);
    assert_null(sel_plan_edge(flow, 1));
    assert_null(sel_plan_edge(flow, 4));
    const struct sel_flow_def *def = &s.system->flows[0];
    const struct sel_plan_edge *edge = sel_plan_edge(flow, 0);
    assert_true(sel_plan_has_slot(edge, sel_system_slot(s.system, def, SEL_STR("a"))));
    assert_false(sel_plan_has_slot(edge, sel_system_slot(s.system, def, SEL_STR("d"))));
    assert_false(edge->subsequent);
    assert_true(sel_plan_edge(flow, 3)->subsequent);
    done(&s);
}

static void test_plans_of_edges_are_made_once(void **state)
{
    (void)state;
    struct scene s;
    const struct sel_plan *first, *second;
    make(&s, HEAD "  - name: main\n"
                  "    edges:\n"
                  "      - {from: , to: sub, selective: {tasks: [b], follow_subflows: false,"
                  " run_subsequent: false}}\n"
                  "      - {from: , to: sub, selective: {tasks: [e], follow_subflows: false,"
                  " run_subsequent: false}}\n" SUB E("", "[a, b]") DEEP E("", "f"));
    struct sel_plan_cache *cache = sel_plan_cache_new(s.system);
    assert_non_null(cache);
    const struct sel_flow_def *flow = &s.system->flows[0];
    assert_ok(sel_plan_cache_get(cache, flow, 0, &first, &s.err));
    assert_ok(sel_plan_cache_get(cache, flow, 0, &second, &s.err));
    assert_ptr_equal(first, second);
    assert_int_equal(first->flows[0].flow, 1);
    assert_code(sel_plan_cache_get(cache, flow, 1, &first, &s.err), SEL_ENOPATH);
    assert_code(sel_plan_cache_get(cache, flow, 1, &first, &s.err), SEL_ENOPATH);
    assert_null(sel_plan_cache_free(cache));
    assert_null(sel_plan_cache_free(NULL));
    done(&s);
}

/* A ladder: two ways over each of its rungs, so 2^400 paths. */
static void test_many_paths_cost_no_more_than_their_edges(void **state)
{
    (void)state;
    enum { RUNGS = 400 };
    struct scene s;
    struct sel_buf nodes = {0}, flows = {0};
    static const struct sel_predicate_world world = {no_env, NULL};
    memset(&s, 0, sizeof(s));
    sel_buf_put_c(&nodes, "tasks:\n");
    sel_buf_put_c(&flows, MAIN E("", "t0"));
    for (int i = 0; i < 3 * RUNGS + 1; i++)
        sel_buf_printf(&nodes, "  - {name: t%d, import: m}\n", i);
    for (int i = 0; i < 3 * RUNGS; i += 3)
        sel_buf_printf(&flows,
                       "      - {from: t%d, to: [t%d, t%d]}\n"
                       "      - {from: t%d, to: t%d}\n      - {from: t%d, to: t%d}\n",
                       i, i + 1, i + 2, i + 1, i + 3, i + 2, i + 3);
    sel_buf_put_c(&nodes, "flows: [main]\n");
    struct sel_source source = {.file = "f", .text = sel_buf_str(&flows)};
    struct sel_compile_options options = {.nodes = {.file = "n", .text = sel_buf_str(&nodes)},
                                          .flows = &source,
                                          .flow_count = 1,
                                          .world = &world};
    sel_diag_init(&s.diag, &s.arena);
    assert_ok(sel_compile(&options, &s.diag, &s.system));
    const struct sel_plan *p;
    struct request request = {.tasks = {"t1200"}};
    assert_ok(plan(&s, &request, &p));
    assert_int_equal(p->flows[0].edge_count, 3 * RUNGS + 1);
    sel_buf_done(&nodes);
    sel_buf_done(&flows);
    done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_have_the_edges_on_the_paths),
        cmocka_unit_test(test_a_plan_answers_what_deciders_ask),
        cmocka_unit_test(test_plans_of_edges_are_made_once),
        cmocka_unit_test(test_many_paths_cost_no_more_than_their_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
