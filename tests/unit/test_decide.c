#include "tests/support/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/compile.h"
#include "tests/support/flow_sim.h"

#define CORPUS "tests/conformance/flows"

/* ---- a configuration with what runs it ---- */

struct scene {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_value script; /* case.json, or what stands for it */
    struct sel_predicate_world world;
};

static const char *scene_getenv(void *ctx, const char *name)
{
    struct scene *s = ctx;
    const struct sel_value *v = sel_value_get_c(sel_value_get_c(&s->script, "env"), name);
    return v ? sel_arena_strdup(&s->arena, sel_value_str(v)) : getenv(name);
}

static int scene_compile(struct scene *s, struct sel_str nodes, struct sel_str flows)
{
    struct sel_source flow_file = {.file = "flows.yaml", .text = flows};
    struct sel_compile_options options = {.nodes = {.file = "nodes.yaml", .text = nodes},
                                          .flows = &flow_file,
                                          .flow_count = 1,
                                          .world = &s->world};
    s->world = (struct sel_predicate_world){scene_getenv, s};
    sel_diag_init(&s->diag, &s->arena);
    return sel_compile(&options, &s->diag, &s->system);
}

static void scene_done(struct scene *s)
{
    sel_system_free(s->system);
    sel_arena_done(&s->arena);
}

/* Configurations of these tests: tasks and flows named in `tasks` and `flows` (blank-separated),
 * and the text of flow-definitions. */
static void scene_make(struct scene *s, const char *tasks, const char *flows,
                       const char *definitions, const char *mock)
{
    struct sel_buf nodes = {0};
    char name[32];
    int n;
    memset(s, 0, sizeof(*s));
    sel_buf_put_c(&nodes, "tasks:\n");
    for (; sscanf(tasks, " %31s%n", name, &n) == 1; tasks += n)
        sel_buf_printf(&nodes, "  - {name: %s, import: mock, storage: Memory}\n", name);
    sel_buf_put_c(&nodes, "flows:\n");
    for (; sscanf(flows, " %31s%n", name, &n) == 1; flows += n)
        sel_buf_printf(&nodes, "  - %s\n", name);
    sel_buf_put_c(&nodes, "storages:\n  - {name: Memory, import: selinon.storages.memory,"
                          " classname: InMemoryStorage}\n");
    s->script = sel_test_json(&s->arena, mock);
    int r = scene_compile(s, sel_buf_str(&nodes), sel_str_c(definitions));
    if (r < 0)
        fail_msg("%s", s->diag.first ? s->diag.first->text : sel_error_name(r));
    sel_buf_done(&nodes);
}

static struct sel_sim_options scene_options(struct scene *s, const char *flow)
{
    struct sel_sim_options options = {.system = s->system,
                                      .flow = sel_system_find_flow(s->system, sel_str_c(flow)),
                                      .mock = &s->script,
                                      .world = &s->world,
                                      .replays = true};
    assert_non_null(options.flow);
    return options;
}

static void run(const struct sel_sim_options *options, struct sel_sim_report *report)
{
    sel_sim_run(options, report);
    if (report->problem[0])
        fail_msg("%s", report->problem);
}

/* How many nodes of that name are in `which` of the final state. */
static uint32_t count_of(const struct sel_sim_report *report, const char *which, const char *name)
{
    const struct sel_value *nodes = sel_value_get_c(&report->state, which);
    return sel_value_count(sel_value_get_c(nodes, name));
}

/* ---- the corpus ---- */

struct corpus_case {
    struct scene scene;
    const char *name;
    char dir[512];
    struct sel_value expected;
    struct sel_buf args;
    const struct sel_plan *plan;
    int refused; /* what kept it from running */
};

static struct sel_str read_file(struct corpus_case *c, const char *name)
{
    char path[768];
    struct sel_buf text = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", c->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (ssize_t n = 1; n > 0; text.n += n > 0 ? (size_t)n : 0) {
        assert_true(sel_buf_reserve(&text, 4096));
        n = read(fd, text.p + text.n, 4096);
        assert_true(n >= 0);
    }
    close(fd);
    char *copy = sel_arena_strdup(&c->scene.arena, sel_buf_str(&text));
    assert_non_null(copy);
    struct sel_str result = {copy, text.n};
    sel_buf_done(&text);
    return result;
}

static void plan_case(struct corpus_case *c, const struct sel_flow_def *flow)
{
    const struct sel_value *v = sel_value_get_c(&c->scene.script, "selective");
    const struct sel_value *tasks = sel_value_get_c(v, "tasks");
    struct sel_str names[64];
    if (!sel_value_is(v, SEL_MAP))
        return;
    assert_true(sel_value_count(tasks) <= SEL_COUNT(names));
    for (uint32_t i = 0; i < sel_value_count(tasks); i++)
        names[i] = sel_value_str(sel_value_at(tasks, i));
    struct sel_selective_request request = {
        .tasks = names,
        .task_count = sel_value_count(tasks),
        .follow_subflows = sel_value_is_true(sel_value_get_c(v, "follow_subflows")),
        .run_subsequent = sel_value_is_true(sel_value_get_c(v, "run_subsequent"))};
    c->refused = sel_plan_compute(&c->scene.arena, c->scene.system, flow, &request, &c->plan, NULL);
}

static struct sel_sim_options case_options(struct corpus_case *c)
{
    const struct sel_value *script = &c->scene.script;
    return (struct sel_sim_options){
        .system = c->scene.system,
        .flow =
            sel_system_find_flow(c->scene.system, sel_value_str(sel_value_get_c(script, "flow"))),
        .args = sel_buf_str(&c->args),
        .plan = c->plan,
        .mock = sel_value_get_c(script, "mock"),
        .presets = sel_value_get_c(script, "preset"),
        .world = &c->scene.world,
        .dir = c->dir,
    };
}

static void load_case(struct corpus_case *c, const char *name)
{
    memset(c, 0, sizeof(*c));
    c->name = name;
    (void)snprintf(c->dir, sizeof(c->dir), "%s/%s", CORPUS, name);
    c->scene.script = sel_test_json(&c->scene.arena, read_file(c, "case.json").p);
    c->expected = sel_test_json(&c->scene.arena, read_file(c, "expected.json").p);
    const struct sel_value *args = sel_value_get_c(&c->scene.script, "node_args");
    sel_value_encode(args ? args : &sel_value_null, &c->args);
    assert_ok(sel_buf_error(&c->args));
    struct sel_str nodes = read_file(c, "nodes.yaml"), flows = read_file(c, "flows.yaml");
    c->refused = scene_compile(&c->scene, nodes, flows);
    if (c->refused == 0)
        plan_case(c, case_options(c).flow);
}

static bool is_text(const struct sel_value *map, const char *key, const char *text)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    return sel_value_is(v, SEL_TEXT) && sel_str_eq_c(sel_value_str(v), text);
}

/* {name: ids} against {name: how many}. */
static bool are_counts(const struct sel_value *actual, const struct sel_value *expected)
{
    bool equal = sel_value_count(actual) == sel_value_count(expected);
    for (uint32_t i = 0; equal && i < sel_value_count(expected); i++) {
        struct sel_str name = sel_value_str(sel_value_key_at(expected, i));
        int64_t count;
        equal = sel_value_is(sel_value_val_at(expected, i), SEL_INT) &&
                sel_value_i64(sel_value_val_at(expected, i), &count) &&
                count == sel_value_count(sel_value_get(actual, name));
    }
    return equal;
}

/* The events that deciders emit, of those that are compared. */
static const enum sel_trace_event decided_events[] = {
    SEL_TRACE_FLOW_START,           SEL_TRACE_FLOW_END,         SEL_TRACE_FLOW_FAILURE,
    SEL_TRACE_FLOW_RETRY,           SEL_TRACE_SUBFLOW_SCHEDULE, SEL_TRACE_TASK_SCHEDULE,
    SEL_TRACE_NODE_SUCCESSFUL,      SEL_TRACE_NODE_FAILURE,     SEL_TRACE_EAGER_FAILURE,
    SEL_TRACE_FALLBACK_START,       SEL_TRACE_EDGE_COND_FALSE,  SEL_TRACE_FOREACH_RESULT,
    SEL_TRACE_SELECTIVE_TASK_REUSE,
};

static void compare_events(const struct corpus_case *c, const struct sel_sim_report *report)
{
    const struct sel_value *events = sel_value_get_c(&c->expected, "events");
    for (size_t i = 0; i < SEL_COUNT(decided_events); i++) {
        const char *name = sel_trace_name(decided_events[i]);
        int64_t count = 0;
        const struct sel_value *v = sel_value_get_c(events, name);
        if (v)
            assert_true(sel_value_i64(v, &count));
        if ((uint64_t)count != report->events[decided_events[i]])
            fail_msg("%s: %s: expected %lld, got %llu", c->name, name, (long long)count,
                     (unsigned long long)report->events[decided_events[i]]);
    }
}

static void compare_case(const struct corpus_case *c, const struct sel_sim_report *report)
{
    if (report->problem[0])
        fail_msg("%s: %s", c->name, report->problem);
    bool success = report->outcome == SEL_DECIDE_END;
    if (!is_text(&c->expected, "outcome", success ? "success" : "failure"))
        fail_msg("%s: the outcome is %d", c->name, report->outcome);
    if (!are_counts(sel_value_get_c(&report->state, "finished_nodes"),
                    sel_value_get_c(&c->expected, "finished_nodes")))
        fail_msg("%s: other nodes finished", c->name);
    if (!are_counts(sel_value_get_c(&report->state, "failed_nodes"),
                    sel_value_get_c(&c->expected, "failed_nodes")))
        fail_msg("%s: other nodes failed", c->name);
    compare_events(c, report);
}

typedef void (*case_fn)(struct corpus_case *c);

/* Calls `each` for every case that is not refused; returns how many. */
static uint32_t walk_corpus(case_fn each)
{
    struct dirent **entries;
    uint32_t ran = 0;
    int count = scandir(CORPUS, &entries, NULL, alphasort);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        struct corpus_case c;
        char path[768];
        (void)snprintf(path, sizeof(path), CORPUS "/%s/case.json", entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && access(path, R_OK) == 0) {
            load_case(&c, entries[i]->d_name);
            if ((c.refused < 0) != is_text(&c.expected, "outcome", "error"))
                fail_msg("%s: %s", c.name, sel_error_name(c.refused));
            if (c.refused == 0) {
                each(&c);
                ran++;
            }
            sel_buf_done(&c.args);
            scene_done(&c.scene);
        }
        free(entries[i]);
    }
    free(entries);
    return ran;
}

static void run_in_orders(struct corpus_case *c)
{
    const struct {
        enum sel_sim_order order;
        uint64_t seed;
        uint32_t budget;
        bool takes_over;
    } modes[] = {
        {SEL_SIM_FIFO, 0, 0, false},  {SEL_SIM_LIFO, 0, 1, false},  {SEL_SIM_RANDOM, 1, 0, false},
        {SEL_SIM_RANDOM, 2, 3, true}, {SEL_SIM_RANDOM, 3, 1, true},
    };
    for (size_t i = 0; i < SEL_COUNT(modes); i++) {
        struct sel_sim_options options = case_options(c);
        struct sel_sim_report report;
        options.order = modes[i].order;
        options.seed = modes[i].seed;
        options.budget = modes[i].budget;
        options.takes_over = modes[i].takes_over;
        options.replays = true;
        sel_sim_run(&options, &report);
        compare_case(c, &report);
        sel_sim_report_done(&report);
    }
}

static void test_every_case_ends_as_expected_and_replays_in_any_order(void **state)
{
    (void)state;
    assert_true(walk_corpus(run_in_orders) > 150);
}

static void compare_budgets(struct corpus_case *c)
{
    struct sel_sim_options options = case_options(c);
    struct sel_sim_report large, small;
    sel_sim_run(&options, &large);
    options.budget = 1;
    sel_sim_run(&options, &small);
    assert_string_equal(small.problem, "");
    if (!sel_str_eq(sel_buf_str(&large.records), sel_buf_str(&small.records)))
        fail_msg("%s: the records of small steps are others", c->name);
    assert_true(small.steps >= large.steps);
    sel_sim_report_done(&large);
    sel_sim_report_done(&small);
}

static void test_steps_of_one_make_the_same_records_as_large_ones(void **state)
{
    (void)state;
    assert_true(walk_corpus(compare_budgets) > 150);
}

/* ---- one decider by hand ---- */

struct hand {
    struct scene scene;
    struct sel_id_source ids;
    struct sel_plan_cache *plans;
    struct sel_decide_sink sink;
    struct sel_decider *decider;
    struct sel_state state;
    struct sel_error err;
    uint32_t started;
    int start_code;
    uint32_t ended;
};

static int hand_start(void *ctx, const struct sel_start *start)
{
    struct hand *h = ctx;
    (void)start;
    h->started++;
    return h->start_code;
}

static void hand_end(void *ctx, enum sel_decide_result result)
{
    struct hand *h = ctx;
    (void)result;
    h->ended++;
}

static void hand_make(struct hand *h, const char *tasks, const char *definitions, const char *mock)
{
    memset(h, 0, sizeof(*h));
    scene_make(&h->scene, tasks, "main", definitions, mock);
    h->sink = (struct sel_decide_sink){.ctx = h, .start = hand_start, .end = hand_end};
    h->plans = sel_plan_cache_new(h->scene.system);
    struct sel_decider_options options = {.system = h->scene.system,
                                          .flow = &h->scene.system->flows[0],
                                          .world = &h->scene.world,
                                          .plans = h->plans,
                                          .ids = &h->ids,
                                          .sink = &h->sink};
    h->decider = sel_decider_new(&options);
    assert_non_null(h->decider);
    assert_ok(sel_state_init(&h->state, (struct sel_id){1, 2}, options.flow->node_count,
                             options.flow->edge_count,
                             (struct sel_str){(const char *)sel_value_null_bytes, 1}));
}

static void hand_done(struct hand *h)
{
    sel_decider_free(h->decider);
    sel_state_done(&h->state);
    sel_plan_cache_free(h->plans);
    scene_done(&h->scene);
}

static int feed(struct hand *h, enum sel_input_type type, uint32_t ordinal)
{
    struct sel_input input = {type, ordinal};
    return sel_decide(h->decider, &h->state, &input, 1, 1000, &h->err);
}

static int go_on(struct hand *h)
{
    return sel_decide(h->decider, &h->state, NULL, 1, 1000, &h->err);
}

static const char two_steps[] = "flow-definitions:\n"
                                "  - name: main\n"
                                "    max_retry: 1\n"
                                "    edges:\n"
                                "      - {from: , to: [a, b]}\n"
                                "      - {from: a, to: c, condition: {node: a, name: fieldEqual,"
                                " args: {key: x, value: 1}}}\n";

static void test_inputs_that_do_not_fit_change_nothing(void **state)
{
    (void)state;
    struct hand h;
    hand_make(&h, "a b c", two_steps, "{}");
    struct sel_buf before = {0}, after = {0};
    assert_code(feed(&h, SEL_INPUT_DONE, 0), SEL_ESTATE); /* it has not started */
    assert_code(feed(&h, SEL_INPUT_FINISH, 0), SEL_ESTATE);
    assert_code(go_on(&h), SEL_ESTATE);
    assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
    assert_int_equal(feed(&h, SEL_INPUT_DONE, 1), SEL_DECIDE_WAIT);
    sel_state_encode(&h.state, &before);
    size_t record = sel_decider_record(h.decider)->n;
    const struct sel_input inputs[] = {
        {SEL_INPUT_START, 0},         {SEL_INPUT_DONE, 1},   {SEL_INPUT_FAILED, 1},
        {SEL_INPUT_DONE, 2},          {SEL_INPUT_FAILED, 2}, {SEL_INPUT_DONE, UINT32_MAX},
        {(enum sel_input_type)99, 0},
    };
    for (size_t i = 0; i < SEL_COUNT(inputs); i++)
        assert_code(feed(&h, inputs[i].type, inputs[i].ordinal), SEL_ESTATE);
    sel_state_encode(&h.state, &after);
    assert_true(sel_str_eq(sel_buf_str(&before), sel_buf_str(&after)));
    assert_int_equal(sel_decider_record(h.decider)->n, record);
    assert_int_equal(feed(&h, SEL_INPUT_CANCEL, 0), SEL_DECIDE_CANCELED);
    assert_code(feed(&h, SEL_INPUT_CANCEL, 0), SEL_ESTATE);
    assert_code(feed(&h, SEL_INPUT_DONE, 0), SEL_ESTATE);
    assert_int_equal(h.state.phase, SEL_PHASE_CANCELED);
    sel_buf_done(&before);
    sel_buf_done(&after);
    hand_done(&h);
}

static void test_an_abort_in_the_middle_retries_once_then_fails(void **state)
{
    (void)state;
    struct hand h;
    struct sel_buf replayed = {0}, actual = {0};
    struct sel_state replica;
    hand_make(&h, "a b c", two_steps, "{}");
    assert_ok(sel_state_init(&replica, h.state.id, h.state.slot_count, h.state.edge_count,
                             sel_buf_str(&h.state.start_args)));
    for (uint32_t attempt = 0; attempt < 2; attempt++) {
        assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
        assert_int_equal(feed(&h, SEL_INPUT_DONE, 0), SEL_DECIDE_NEED); /* the result of a */
        int expected = attempt == 0 ? SEL_DECIDE_RETRY : SEL_DECIDE_FAIL;
        assert_int_equal(sel_decide_abort(h.decider, &h.state), expected);
        uint32_t count;
        (void)sel_decider_needs(h.decider, &count);
        assert_int_equal(count, 0);
        assert_int_equal(h.ended, attempt + 1);
    }
    assert_int_equal(h.state.phase, SEL_PHASE_FAILED);
    assert_int_equal(h.state.attempt, 1);
    assert_int_equal(h.started, 4);
    struct sel_buf *record = sel_decider_record(h.decider);
    assert_ok(sel_state_replay(&replica, record->p, record->n));
    sel_state_encode(&h.state, &actual);
    sel_state_encode(&replica, &replayed);
    assert_true(sel_str_eq(sel_buf_str(&actual), sel_buf_str(&replayed)));
    sel_state_done(&replica);
    sel_buf_done(&actual);
    sel_buf_done(&replayed);
    hand_done(&h);
}

static void test_an_abort_of_a_flow_that_has_ended_is_refused(void **state)
{
    (void)state;
    struct hand h;
    hand_make(&h, "a b c", two_steps, "{}");
    assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
    assert_int_equal(feed(&h, SEL_INPUT_CANCEL, 0), SEL_DECIDE_CANCELED);
    assert_code(sel_decide_abort(h.decider, &h.state), SEL_ESTATE);
    assert_int_equal(h.ended, 1);
    hand_done(&h);
}

static void test_what_the_sink_refuses_ends_the_decision(void **state)
{
    (void)state;
    struct hand h;
    hand_make(&h, "a b c", two_steps, "{}");
    h.start_code = SEL_EFAILED;
    assert_code(feed(&h, SEL_INPUT_START, 0), SEL_EFAILED);
    assert_int_equal(sel_decide_abort(h.decider, &h.state), SEL_DECIDE_RETRY);
    h.start_code = 0;
    assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
    assert_int_equal(h.state.run_count, 2);
    hand_done(&h);
}

static void test_a_finish_ends_the_flow_as_it_stands(void **state)
{
    (void)state;
    struct hand h;
    hand_make(&h, "a b c", two_steps, "{}");
    assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
    assert_int_equal(feed(&h, SEL_INPUT_FINISH, 0), SEL_DECIDE_END);
    assert_int_equal(h.state.phase, SEL_PHASE_ENDED);
    assert_int_equal(h.state.active_count, 2);
    hand_done(&h);
}

static void test_each_result_is_asked_for_once_in_a_decision(void **state)
{
    (void)state;
    struct hand h;
    uint32_t count;
    hand_make(&h, "a b c",
              "flow-definitions:\n"
              "  - name: main\n"
              "    edges:\n"
              "      - {from: , to: [a, a, a, b]}\n"
              "      - from: [a, b]\n"
              "        to: c\n"
              "        condition: {node: a, name: fieldEqual, args: {key: x, value: 1}}\n",
              "{}");
    assert_int_equal(feed(&h, SEL_INPUT_START, 0), SEL_DECIDE_WAIT);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(feed(&h, SEL_INPUT_DONE, i), SEL_DECIDE_WAIT);
    assert_int_equal(feed(&h, SEL_INPUT_DONE, 3), SEL_DECIDE_NEED);
    struct sel_need *needs = sel_decider_needs(h.decider, &count);
    assert_int_equal(count, 3); /* of all combinations at once */
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(needs[i].kind, SEL_NEED_RESULT);
        assert_int_equal(needs[i].ordinal, i);
        needs[i].value = sel_test_json(sel_decider_arena(h.decider), i == 1 ? "{\"x\": 1}" : "{}");
    }
    assert_int_equal(go_on(&h), SEL_DECIDE_WAIT);
    assert_int_equal(h.started, 5);
    hand_done(&h);
}

/* What came before the allocation that failed is in the record and in the state alike. */
static void assert_record_is_the_state(struct hand *h)
{
    struct sel_state replica;
    struct sel_buf actual = {0}, replayed = {0};
    const struct sel_buf *record = sel_decider_record(h->decider);
    assert_ok(sel_state_init(&replica, h->state.id, h->state.slot_count, h->state.edge_count,
                             sel_buf_str(&h->state.start_args)));
    assert_ok(sel_state_replay(&replica, record->p, record->n));
    sel_state_encode(&h->state, &actual);
    sel_state_encode(&replica, &replayed);
    assert_true(sel_str_eq(sel_buf_str(&actual), sel_buf_str(&replayed)));
    sel_state_done(&replica);
    sel_buf_done(&actual);
    sel_buf_done(&replayed);
}

/* All results are null, as needs are when nobody answers them. */
static int feed_all(struct hand *h)
{
    const struct sel_input inputs[] = {
        {SEL_INPUT_START, 0}, {SEL_INPUT_DONE, 0},   {SEL_INPUT_DONE, 1},
        {SEL_INPUT_DONE, 2},  {SEL_INPUT_FAILED, 3}, {SEL_INPUT_DONE, 4},
    };
    int r = 0;
    for (size_t i = 0; i < SEL_COUNT(inputs) && r >= 0; i++) {
        r = feed(h, inputs[i].type, inputs[i].ordinal);
        while (r == SEL_DECIDE_NEED)
            r = go_on(h);
    }
    return r;
}

static void test_each_failing_allocation_leaves_record_and_state_alike(void **state)
{
    (void)state;
    static const char definitions[] =
        "flow-definitions:\n"
        "  - name: main\n"
        "    edges:\n"
        "      - {from: , to: [a, a, b]}\n"
        "      - {from: [a, b], to: c, condition: {node: a, name: empty}}\n"
        "    failures:\n"
        "      - {nodes: c, fallback: b}\n";
    for (uint64_t n = 1; n < 1000; n++) {
        struct hand h;
        hand_make(&h, "a b c", definitions, "{}");
        uint64_t before = sel_mem_alloc_count();
        sel_mem_fail_at((int64_t)n);
        int r = feed_all(&h);
        sel_mem_fail_at(0);
        bool failed = sel_mem_alloc_count() - before >= n;
        if (failed)
            assert_code(r, SEL_ENOMEM);
        assert_record_is_the_state(&h);
        if (!failed) {
            assert_int_equal(r, SEL_DECIDE_WAIT); /* the other run of c is still active */
            assert_true(n > 10);
            hand_done(&h);
            return;
        }
        hand_done(&h);
    }
    fail_msg("the allocations have no end");
}

/* ---- flows as a whole ---- */

static void test_a_canceled_flow_starts_nothing_more(void **state)
{
    (void)state;
    struct scene s;
    struct sel_sim_report report;
    scene_make(&s, "a b c", "main", two_steps, "{\"tasks\": {\"a\": [{\"result\": {\"x\": 1}}]}}");
    struct sel_sim_options options = scene_options(&s, "main");
    options.cancels_at = 2;
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_CANCELED);
    assert_int_equal(report.runs, 2);
    sel_sim_report_done(&report);
    scene_done(&s);
}

/* A mock whose function gives `count` items, and `more` members. */
static void put_many(struct sel_buf *mock, uint32_t count, const char *more)
{
    sel_buf_printf(mock, "{%s\"functions\": {\"m:many\": {\"return\": [0", more);
    for (uint32_t i = 1; i < count; i++)
        sel_buf_put_c(mock, ",0");
    sel_buf_put_c(mock, "]}}}");
}

/* A join of all with all, none of whose 40,000 conditions holds. */
static void test_a_large_join_with_a_false_condition_starts_nothing(void **state)
{
    (void)state;
    struct scene s;
    struct sel_sim_report report;
    struct sel_buf mock = {0};
    put_many(&mock, 200, "");
    scene_make(&s, "a b c", "main",
               "flow-definitions:\n"
               "  - name: main\n"
               "    edges:\n"
               "      - {from: , to: a, foreach: {import: m, function: many}}\n"
               "      - {from: , to: b, foreach: {import: m, function: many}}\n"
               "      - from: [a, b]\n"
               "        to: c\n"
               "        condition:\n"
               "          and:\n"
               "            - {node: a, name: empty}\n"
               "            - {node: b, name: fieldExist, args: {key: x}}\n",
               sel_buf_cstr(&mock));
    struct sel_sim_options options = scene_options(&s, "main");
    options.replays = false; /* each replay would encode 400 nodes: not what this is about */
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_END);
    assert_int_equal(report.events[SEL_TRACE_EDGE_COND_FALSE], 40000);
    assert_int_equal(count_of(&report, "finished_nodes", "a"), 200);
    assert_int_equal(count_of(&report, "finished_nodes", "b"), 200);
    assert_int_equal(report.runs, 400);
    sel_sim_report_done(&report);
    sel_buf_done(&mock);
    scene_done(&s);
}

static void test_a_wide_fan_out_is_small(void **state)
{
    (void)state;
    enum { COUNT = 100000, BYTES_PER_NODE_MAX = 200 };
    struct scene s;
    struct sel_sim_report report;
    struct sel_buf mock = {0};
    put_many(&mock, COUNT, "");
    scene_make(&s, "a", "main",
               "flow-definitions:\n"
               "  - name: main\n"
               "    edges:\n"
               "      - {from: , to: a, foreach: {import: m, function: many}}\n",
               sel_buf_cstr(&mock));
    struct sel_sim_options options = scene_options(&s, "main");
    options.replays = false;
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_END);
    assert_int_equal(report.runs, COUNT);
    assert_true(report.state_bytes_max / COUNT < BYTES_PER_NODE_MAX);
    sel_sim_report_done(&report);
    sel_buf_done(&mock);
    scene_done(&s);
}

static void test_many_failures_are_recovered_one_by_one(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct scene s;
    struct sel_sim_report report;
    struct sel_buf mock = {0};
    put_many(&mock, COUNT, "\"tasks\": {\"a\": [{\"raise\": \"KeyError\"}]},");
    scene_make(&s, "a b", "main",
               "flow-definitions:\n"
               "  - name: main\n"
               "    edges:\n"
               "      - {from: , to: a, foreach: {import: m, function: many}}\n"
               "    failures:\n"
               "      - {nodes: a, fallback: b}\n",
               sel_buf_cstr(&mock));
    struct sel_sim_options options = scene_options(&s, "main");
    options.replays = false;
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_END);
    assert_int_equal(report.runs, 2 * COUNT);
    assert_int_equal(report.events[SEL_TRACE_FALLBACK_START], COUNT);
    sel_sim_report_done(&report);
    sel_buf_done(&mock);
    scene_done(&s);
}

/* A thousand different nodes fail, in pairs for which there is a fallback. */
static void test_many_different_failures_find_their_fallbacks(void **state)
{
    (void)state;
    enum { PAIRS = 500 };
    struct scene s;
    struct sel_sim_report report;
    struct sel_buf tasks = {0}, flow = {0}, failures = {0}, mock = {0};
    sel_buf_put_c(&flow, "flow-definitions:\n  - name: main\n    edges:\n");
    sel_buf_put_c(&mock, "{\"tasks\": {");
    for (int i = 0; i < 2 * PAIRS; i++) {
        sel_buf_printf(&tasks, "t%d ", i);
        sel_buf_printf(&flow, "      - {from: , to: t%d}\n", i);
        sel_buf_printf(&mock, "%s\"t%d\": [{\"raise\": \"E\"}]", i ? "," : "", i);
        if (i % 2 == 0)
            sel_buf_printf(&failures, "      - {nodes: [t%d, t%d], fallback: f}\n", i, i + 1);
    }
    sel_buf_put_c(&tasks, "f");
    sel_buf_put_c(&mock, "}}");
    sel_buf_put_c(&flow, "    failures:\n");
    sel_buf_put_str(&flow, sel_buf_str(&failures));
    scene_make(&s, sel_buf_cstr(&tasks), "main", sel_buf_cstr(&flow), sel_buf_cstr(&mock));
    struct sel_sim_options options = scene_options(&s, "main");
    options.replays = false;
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_END);
    int64_t finished = 0; /* beyond 1,000 runs there are counts in place of ids */
    assert_true(sel_value_i64(sel_value_get_c(&report.state, "finished_nodes"), &finished));
    assert_int_equal(finished, PAIRS);
    assert_int_equal(report.events[SEL_TRACE_FALLBACK_START], PAIRS);
    assert_int_equal(report.runs, 3 * PAIRS);
    sel_sim_report_done(&report);
    sel_buf_done(&tasks);
    sel_buf_done(&flow);
    sel_buf_done(&failures);
    sel_buf_done(&mock);
    scene_done(&s);
}

static void test_a_flow_that_is_retried_begins_with_its_first_arguments(void **state)
{
    (void)state;
    struct scene s;
    struct sel_sim_report report;
    scene_make(&s, "a b", "main",
               "flow-definitions:\n"
               "  - name: main\n"
               "    max_retry: 2\n"
               "    node_args_from_first: true\n"
               "    edges:\n"
               "      - {from: , to: a, condition: {name: argsEmpty}}\n"
               "      - {from: a, to: b}\n",
               "{\"tasks\": {\"a\": [{\"result\": {\"x\": 1}}], \"b\": [{\"raise\": \"E\"},"
               " {\"raise\": \"E\"}, {\"result\": 1}]}}");
    struct sel_sim_options options = scene_options(&s, "main");
    run(&options, &report);
    assert_int_equal(report.outcome, SEL_DECIDE_END); /* without a start it would end at once */
    assert_int_equal(report.events[SEL_TRACE_FLOW_RETRY], 2);
    assert_int_equal(count_of(&report, "finished_nodes", "b"), 1);
    sel_sim_report_done(&report);
    scene_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case_ends_as_expected_and_replays_in_any_order),
        cmocka_unit_test(test_steps_of_one_make_the_same_records_as_large_ones),
        cmocka_unit_test(test_inputs_that_do_not_fit_change_nothing),
        cmocka_unit_test(test_an_abort_in_the_middle_retries_once_then_fails),
        cmocka_unit_test(test_an_abort_of_a_flow_that_has_ended_is_refused),
        cmocka_unit_test(test_what_the_sink_refuses_ends_the_decision),
        cmocka_unit_test(test_a_finish_ends_the_flow_as_it_stands),
        cmocka_unit_test(test_each_result_is_asked_for_once_in_a_decision),
        cmocka_unit_test(test_each_failing_allocation_leaves_record_and_state_alike),
        cmocka_unit_test(test_a_canceled_flow_starts_nothing_more),
        cmocka_unit_test(test_a_large_join_with_a_false_condition_starts_nothing),
        cmocka_unit_test(test_a_wide_fan_out_is_small),
        cmocka_unit_test(test_many_failures_are_recovered_one_by_one),
        cmocka_unit_test(test_many_different_failures_find_their_fallbacks),
        cmocka_unit_test(test_a_flow_that_is_retried_begins_with_its_first_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
