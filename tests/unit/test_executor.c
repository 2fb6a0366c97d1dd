#include "tests/support/test.h"

#include <stdlib.h>

#include "core/compile.h"
#include "core/mem.h"
#include "worker/executor.h"
#include "worker/mock.h"
#include "worker/module.h"

/* ---- a run, and what was seen of it ---- */

struct seen_event {
    enum sel_trace_event event;
    struct sel_value details;
};

struct seen_execution {
    struct sel_str task;
    const char *result; /* JSON, or the class of the error */
};

/* What a run is made of; then what came of it. */
struct ran {
    const char *nodes, *flows; /* YAML */
    const char *mock;          /* NULL: the code of tests/modules */
    const char *args;          /* JSON or NULL */
    struct sel_executor_options options;

    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_value script;
    struct sel_predicate_world world;
    struct sel_buf bytes;
    struct sel_executor *executor;
    const struct sel_executor_report *report;
    struct sel_error err;
    int code;
    struct seen_event *events;
    uint32_t event_count, event_cap;
    struct seen_execution *executions;
    uint32_t execution_count, execution_cap;
    struct sel_str *start_args;
    uint32_t start_arg_count, start_arg_cap;
    struct sel_mock *mock_script;
    struct sel_modules *modules;
    uint32_t logged;
};

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                     int64_t age_us)
{
    (void)age_us;
    struct ran *ran = ctx;
    assert_true(
        sel_mem_grow(&ran->events, &ran->event_cap, ran->event_count + 1, sizeof(*ran->events)));
    struct seen_event *seen = &ran->events[ran->event_count++];
    seen->event = event;
    assert_ok(sel_value_copy(&ran->arena, details, &seen->details));
}

static void on_execution(void *ctx, const struct sel_execution *e)
{
    struct ran *ran = ctx;
    struct sel_value result;
    assert_true(sel_mem_grow(&ran->executions, &ran->execution_cap, ran->execution_count + 1,
                             sizeof(*ran->executions)));
    struct seen_execution *seen = &ran->executions[ran->execution_count++];
    seen->task = e->task->name;
    if (e->result->outcome == SEL_EXEC_SUCCESS) {
        assert_ok(sel_value_decode(&ran->arena, e->result->value.p, e->result->value.n, true,
                                   &result, NULL));
        seen->result = sel_test_json_text(&ran->arena, &result);
    } else {
        seen->result = sel_arena_strdup(&ran->arena, sel_str_c(e->result->error_class));
    }
}

static void on_flow_end(void *ctx, const struct sel_flow_end *end)
{
    struct ran *ran = ctx;
    char *copy = sel_arena_memdup(&ran->arena, end->start_args.p, end->start_args.n);
    assert_true(sel_mem_grow(&ran->start_args, &ran->start_arg_cap, ran->start_arg_count + 1,
                             sizeof(*ran->start_args)));
    ran->start_args[ran->start_arg_count++] = (struct sel_str){copy, end->start_args.n};
}

static void on_log(void *ctx, enum sel_log_level level, const char *line)
{
    struct ran *ran = ctx;
    (void)level, (void)line;
    ran->logged++;
}

static void compile(struct ran *ran)
{
    struct sel_source flows = {.file = "flows.yaml", .text = sel_str_c(ran->flows)};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml", .text = sel_str_c(ran->nodes)},
        .flows = &flows,
        .flow_count = 1,
        .world = &ran->world};
    sel_diag_init(&ran->diag, &ran->arena);
    if (sel_compile(&options, &ran->diag, &ran->system) < 0)
        fail_msg("%s", ran->diag.first->text);
}

static void prepare(struct ran *ran)
{
    static const struct sel_executor_observer observer = {
        .execution = on_execution, .flow_end = on_flow_end, .trace = on_trace};
    compile(ran);
    ran->modules = sel_modules_new(SEL_TEST_MODULES);
    assert_non_null(ran->modules);
    if (ran->mock) {
        ran->script = sel_test_json(&ran->arena, ran->mock);
        if (sel_mock_new(ran->system, &ran->script, &ran->mock_script, &ran->err) < 0)
            fail_msg("%s", ran->err.text);
    }
    if (ran->args) {
        struct sel_value args = sel_test_json(&ran->arena, ran->args);
        sel_value_encode(&args, &ran->bytes);
    }
    struct sel_executor_observer *own = SEL_ARENA_NEW(&ran->arena, struct sel_executor_observer);
    assert_non_null(own);
    *own = observer;
    own->ctx = ran;
    ran->options.system = ran->system;
    ran->options.modules = ran->modules;
    ran->options.mock = ran->mock_script;
    ran->options.flow_name = SEL_STR("main");
    ran->options.node_args = sel_buf_str(&ran->bytes);
    ran->options.observer = own;
    ran->options.log = on_log;
    ran->options.log_ctx = ran;
}

/* Runs flow `main` to the end. */
static void run(struct ran *ran)
{
    prepare(ran);
    ran->code = sel_executor_new(&ran->options, &ran->executor, &ran->err);
    if (ran->code == 0)
        ran->code = sel_executor_run(ran->executor, &ran->report, &ran->err);
    if (ran->code < 0)
        fail_msg("%s", ran->err.text);
}

/* In virtual time, with a mock. */
static void run_mock(struct ran *ran, const char *nodes, const char *flows, const char *mock)
{
    ran->nodes = nodes;
    ran->flows = flows;
    ran->mock = mock;
    ran->options.virtual_time = true;
    run(ran);
}

static void done(struct ran *ran)
{
    sel_executor_free(ran->executor);
    sel_mock_free(ran->mock_script);
    sel_modules_free(ran->modules);
    sel_system_free(ran->system);
    sel_buf_done(&ran->bytes);
    sel_mem_free(ran->events);
    sel_mem_free(ran->executions);
    sel_mem_free(ran->start_args);
    sel_arena_done(&ran->arena);
}

static uint32_t count_of(const struct ran *ran, enum sel_trace_event event)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < ran->event_count; i++)
        count += ran->events[i].event == event;
    return count;
}

/* Member `key` of the n-th event of that type, as JSON. */
static const char *detail(struct ran *ran, enum sel_trace_event event, uint32_t n, const char *key)
{
    for (uint32_t i = 0; i < ran->event_count; i++) {
        if (ran->events[i].event != event || n-- > 0)
            continue;
        const struct sel_value *v = sel_value_get_c(&ran->events[i].details, key);
        if (!v)
            fail_msg("%s has no %s", sel_trace_name(event), key);
        return sel_test_json_text(&ran->arena, v);
    }
    fail_msg("there are fewer events %s", sel_trace_name(event));
    return "";
}

/* What the executions of a task ended with, one after the other, blank-separated. */
static const char *results_of(struct ran *ran, const char *task)
{
    struct sel_buf text = {0};
    for (uint32_t i = 0; i < ran->execution_count; i++) {
        if (!sel_str_eq_c(ran->executions[i].task, task))
            continue;
        sel_buf_printf(&text, "%s%s", text.n ? " " : "", ran->executions[i].result);
    }
    const char *copy = sel_arena_strdup(&ran->arena, sel_buf_str(&text));
    sel_buf_done(&text);
    return copy ? copy : "";
}

static uint32_t ended_count(const struct ran *ran, const char *which, const char *name)
{
    const struct sel_value *v = sel_value_get_c(sel_value_get_c(&ran->report->state, which), name);
    return v ? sel_value_count(v) : 0;
}

#define MEMORY                                                                                     \
    "storages:\n"                                                                                  \
    "  - {name: Memory, import: selinon.storages.memory, classname: InMemoryStorage}\n"

#define ONE_TASK(settings)                                                                         \
    "tasks:\n  - {name: a, import: m, storage: Memory" settings "}\nflows: [main]\n" MEMORY

static const char one_task_flow[] = "flow-definitions:\n"
                                    "  - name: main\n"
                                    "    edges:\n"
                                    "      - {from: , to: a}\n";

/* ---- retries of tasks ---- */

static void test_a_failing_task_is_tried_again_after_its_countdown(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 2, retry_countdown: 5"), one_task_flow,
             "{\"tasks\": {\"a\": [{\"raise\": \"KeyError\"}, {\"raise\": \"OSError\"},"
             " {\"result\": 3}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(ran.report->last_end_us, 10000000);
    assert_string_equal(results_of(&ran, "a"), "KeyError OSError 3");
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_RETRY), 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, i, "retry_countdown"), "5");
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, i, "retried_count"), i ? "2" : "1");
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, i, "user_retry"), "false");
    }
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_FAILURE), 0);
    assert_int_equal(ran.report->progress.retried, 2);
    done(&ran);
}

static void test_a_task_without_tries_left_fails_its_flow(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 1, retry_countdown: 2"), one_task_flow,
             "{\"tasks\": {\"a\": [{\"raise\": \"KeyError\"}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_FAILURE);
    assert_int_equal(ran.report->last_end_us, 2000000);
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_FAILURE), 1);
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_FAILURE, 0, "retried_count"), "1");
    assert_string_equal(detail(&ran, SEL_TRACE_NODE_FAILURE, 0, "what"),
                        "\"KeyError: as the mock says\"");
    assert_int_equal(ended_count(&ran, "failed_nodes", "a"), 1);
    done(&ran);
}

static void test_a_fatal_error_is_not_tried_again(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 9"), one_task_flow,
             "{\"tasks\": {\"a\": [{\"fatal\": true}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_FAILURE);
    assert_string_equal(results_of(&ran, "a"), "FatalTaskError");
    done(&ran);
}

static void test_a_retry_that_the_task_asked_for_does_not_count(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 0"), one_task_flow,
             "{\"tasks\": {\"a\": [{\"retry\": 7}, {\"retry\": 0.5}, {\"result\": 1}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(ran.report->last_end_us, 7500000);
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, 0, "user_retry"), "true");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, 1, "retried_count"), "0");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, 1, "retry_countdown"), "0.5");
    done(&ran);
}

/* ---- retries of flows ---- */

static void test_a_retried_flow_begins_with_its_first_arguments(void **state)
{
    (void)state;
    struct ran ran = {.args = "{\"given\": true}"};
    run_mock(&ran,
             "tasks:\n"
             "  - {name: a, import: m, storage: Memory}\n"
             "  - {name: b, import: m, storage: Memory}\n"
             "flows: [main]\n" MEMORY,
             "flow-definitions:\n"
             "  - name: main\n"
             "    max_retry: 1\n"
             "    retry_countdown: 30\n"
             "    node_args_from_first: true\n"
             "    edges:\n"
             "      - {from: , to: a}\n"
             "      - {from: a, to: b}\n",
             "{\"tasks\": {\"a\": [{\"result\": {\"made\": 1}}, {\"result\": {\"made\": 2}}],"
             " \"b\": [{\"raise\": \"E\"}, {\"result\": 1}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(ran.report->last_end_us, 30000000);
    assert_int_equal(ran.start_arg_count, 2);
    assert_true(sel_str_eq(ran.start_args[0], ran.start_args[1]));
    assert_string_equal(detail(&ran, SEL_TRACE_FLOW_RETRY, 0, "countdown"), "30");
    assert_string_equal(detail(&ran, SEL_TRACE_FLOW_FAILURE, 0, "will_retry"), "true");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_START, 0, "node_args"), "{\"given\":true}");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_START, 1, "node_args"), "{\"made\":1}");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_START, 2, "node_args"), "{\"given\":true}");
    assert_string_equal(detail(&ran, SEL_TRACE_TASK_START, 3, "node_args"), "{\"made\":2}");
    done(&ran);
}

/* ---- throttling ---- */

static void test_a_throttled_burst_is_spread_and_says_so(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", throttling: {seconds: 10}"),
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: [a, a, a, a]}\n",
             "{}");
    static const char *const countdowns[] = {"null", "10", "20", "30"};
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_SCHEDULE), 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_SCHEDULE, i, "countdown"), countdowns[i]);
    assert_int_equal(ran.report->last_end_us, 30000000);
    done(&ran);
}

static void test_throttled_subflows_are_spread_and_their_tasks_are_not(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, "tasks:\n  - {name: a, import: m}\nflows: [main, inner]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: [inner, inner, inner]}\n"
             "  - name: inner\n"
             "    throttling: {milliseconds: 1.5}\n"
             "    edges:\n"
             "      - {from: , to: [a, a]}\n",
             "{}");
    static const char *const countdowns[] = {"null", "0.0015", "0.003"};
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(detail(&ran, SEL_TRACE_SUBFLOW_SCHEDULE, i, "countdown"),
                            countdowns[i]);
    for (uint32_t i = 0; i < 6; i++)
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_SCHEDULE, i, "countdown"), "null");
    assert_int_equal(ran.report->last_end_us, 3000);
    done(&ran);
}

static void test_own_retries_of_a_throttled_task_are_not_throttled(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", throttling: {minutes: 1}, max_retry: 3, retry_countdown: 1"),
             one_task_flow,
             "{\"tasks\": {\"a\": [{\"raise\": \"E\"}, {\"raise\": \"E\"}, {\"result\": 1}]}}");
    assert_int_equal(ran.report->last_end_us, 2000000);
    done(&ran);
}

/* ---- queues and cancelling ---- */

static void test_work_of_a_queue_that_nobody_serves_is_left_and_counted(void **state)
{
    (void)state;
    static const char *const served[] = {"celery"};
    struct ran ran = {.options = {.queues = served, .queue_count = 1}};
    run_mock(&ran,
             "tasks:\n"
             "  - {name: a, import: m}\n"
             "  - {name: b, import: m, queue: other}\n"
             "flows: [main]\n",
             "flow-definitions:\n  - name: main\n    edges:\n      - {from: , to: [a, b, b]}\n",
             "{}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_CANCELED);
    assert_int_equal(ran.report->stuck, 2);
    assert_string_equal(results_of(&ran, "a"), "null");
    assert_string_equal(results_of(&ran, "b"), "");
    done(&ran);
}

static void test_a_queue_that_nothing_uses_is_refused(void **state)
{
    (void)state;
    static const char *const served[] = {"nobody's"};
    struct ran ran = {.nodes = ONE_TASK(""),
                      .flows = one_task_flow,
                      .mock = "{}",
                      .options = {.queues = served, .queue_count = 1}};
    prepare(&ran);
    int r = sel_executor_new(&ran.options, &ran.executor, &ran.err);
    if (r == 0)
        r = sel_executor_run(ran.executor, &ran.report, &ran.err);
    assert_code(r, SEL_EREQUEST);
    assert_non_null(strstr(ran.err.text, "nobody's"));
    done(&ran);
}

static bool stop_at_once(void *ctx)
{
    (void)ctx;
    return true;
}

static void test_a_cancel_wakes_what_sleeps_and_ends_the_run(void **state)
{
    (void)state;
    struct ran ran = {.nodes = "tasks:\n"
                               "  - {name: a, import: flows, classname: SleepsLong, max_retry: 5}\n"
                               "flows: [main, inner]\n",
                      .flows = "flow-definitions:\n"
                               "  - {name: main, edges: [{from: , to: [inner, a]}]}\n"
                               "  - {name: inner, edges: [{from: , to: [a, a]}]}\n",
                      .options = {.should_stop = stop_at_once}};
    run(&ran);
    assert_int_equal(ran.report->outcome, SEL_FLOW_CANCELED);
    assert_true(ran.report->progress.elapsed_us < 30000000);
    assert_int_equal(ran.report->progress.running, 0);
    done(&ran);
}

/* ---- caches ---- */

#define LOOK "condition: {node: a, name: fieldEqual, args: {key: x, value: 1}}"

static void test_a_result_that_was_looked_at_comes_from_the_cache(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran,
             "tasks:\n"
             "  - {name: a, import: m, storage: Memory}\n"
             "  - {name: b, import: m, storage: Memory}\n"
             "flows: [main]\n"
             "storages:\n"
             "  - name: Memory\n"
             "    import: selinon.storages.memory\n"
             "    classname: InMemoryStorage\n"
             "    cache: {name: LRU, configuration: {max_cache_size: 10}}\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: a}\n"
             "      - {from: a, to: [b, b], " LOOK "}\n"
             "      - {from: [a, b], to: b, condition: {node: a, name: fieldExist,"
             " args: {key: y}}}\n",
             "{\"tasks\": {\"a\": [{\"result\": {\"x\": 1}}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(count_of(&ran, SEL_TRACE_STORAGE_RETRIEVE), 1);
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_RESULT_CACHE_GET), 3);
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_RESULT_CACHE_MISS), 1);
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_RESULT_CACHE_HIT), 2);
    assert_true(count_of(&ran, SEL_TRACE_TASK_RESULT_CACHE_ADD) >= 1);
    done(&ran);
}

static void test_without_a_cache_each_decision_asks_the_storage(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran,
             "tasks:\n"
             "  - {name: a, import: m, storage: Memory}\n"
             "  - {name: b, import: m}\n"
             "flows: [main]\n" MEMORY,
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: a}\n"
             "      - {from: a, to: b, " LOOK "}\n"
             "      - {from: [a, b], to: b, condition: {node: a, name: fieldExist,"
             " args: {key: y}}}\n",
             "{\"tasks\": {\"a\": [{\"result\": {\"x\": 1}}]}}");
    assert_int_equal(count_of(&ran, SEL_TRACE_STORAGE_RETRIEVE), 2);
    assert_int_equal(count_of(&ran, SEL_TRACE_TASK_RESULT_CACHE_GET), 0);
    done(&ran);
}

/* ---- failures handed on ---- */

#define CODE_TASKS                                                                                 \
    "tasks:\n"                                                                                     \
    "  - {name: broken, import: flows, classname: Fails}\n"                                        \
    "  - {name: tells, import: flows, classname: TellsFailure}\n"                                  \
    "  - {name: later, import: flows, classname: TellsFailure}\n"                                  \
    "  - {name: tellsFlow, import: flows, classname: TellsFlowFailure}\n"                          \
    "  - {name: tellsDeep, import: flows, classname: TellsDeepFailure}\n"                          \
    "  - {name: counts, import: flows, classname: FailedParents}\n"                                \
    "  - {name: nothing, import: flows, classname: Nothing}\n"

#define TOLD "{\"class\":\"Deliberate\",\"message\":\"as broken does\"}"

static void run_code(struct ran *ran, const char *nodes, const char *flows)
{
    ran->nodes = nodes;
    ran->flows = flows;
    ran->options.virtual_time = true;
    run(ran);
}

static void test_a_fallback_and_its_descendants_know_what_failed(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_code(&ran, CODE_TASKS "flows: [main]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: broken}\n"
             "      - {from: tells, to: [later, counts]}\n"
             "      - {from: later, to: nothing}\n"
             "    failures:\n"
             "      - {nodes: broken, fallback: tells}\n");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_string_equal(results_of(&ran, "tells"), TOLD);
    assert_string_equal(results_of(&ran, "later"), TOLD);
    assert_string_equal(results_of(&ran, "counts"), "1");
    done(&ran);
}

static void test_a_task_whose_parents_did_not_fail_has_no_exception(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_code(&ran, CODE_TASKS "flows: [main]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    edges:\n"
             "      - {from: , to: nothing}\n"
             "      - {from: nothing, to: [tells, counts]}\n");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_string_equal(results_of(&ran, "counts"), "0");
    assert_null(strstr(results_of(&ran, "tells"), "Deliberate"));
    done(&ran);
}

#define FAILED_FLOW(option)                                                                        \
    "flow-definitions:\n"                                                                          \
    "  - name: main\n" option "    edges:\n"                                                       \
    "      - {from: , to: inner}\n"                                                                \
    "    failures:\n"                                                                              \
    "      - {nodes: inner, fallback: tellsFlow}\n"                                                \
    "  - name: inner\n"                                                                            \
    "    edges:\n"                                                                                 \
    "      - {from: , to: [broken, nothing]}\n"

static void test_propagate_failures_lets_a_fallback_look_into_the_flow(void **state)
{
    (void)state;
    const struct {
        const char *flows;
        bool told;
    } cases[] = {
        {FAILED_FLOW("    propagate_failures: true\n"), true},
        {FAILED_FLOW("    propagate_failures: [inner]\n"), true},
        {FAILED_FLOW(""), false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct ran ran = {0};
        run_code(&ran, CODE_TASKS "flows: [main, inner]\n", cases[i].flows);
        assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
        const char *result = results_of(&ran, "tellsFlow");
        if (cases[i].told)
            assert_string_equal(result, TOLD);
        else
            assert_null(strstr(result, "Deliberate"));
        done(&ran);
    }
}

static void test_failures_of_flows_in_flows_are_nested_or_compound(void **state)
{
    (void)state;
    struct ran nested = {0}, compound = {0};
    run_code(&nested, CODE_TASKS "flows: [main, middle, inner]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    propagate_failures: true\n"
             "    edges:\n"
             "      - {from: , to: middle}\n"
             "    failures:\n"
             "      - {nodes: middle, fallback: tellsDeep}\n"
             "  - {name: middle, edges: [{from: , to: inner}]}\n"
             "  - {name: inner, edges: [{from: , to: broken}]}\n");
    assert_string_equal(results_of(&nested, "tellsDeep"), TOLD);
    done(&nested);
    run_code(&compound, CODE_TASKS "flows: [main, inner, deepest]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    propagate_compound_failures: true\n"
             "    edges:\n"
             "      - {from: , to: inner}\n"
             "    failures:\n"
             "      - {nodes: inner, fallback: tellsFlow}\n"
             "  - {name: inner, edges: [{from: , to: deepest}]}\n"
             "  - {name: deepest, edges: [{from: , to: broken}]}\n");
    assert_string_equal(results_of(&compound, "tellsFlow"), TOLD);
    done(&compound);
}

static void test_propagate_parent_failures_reaches_into_a_subflow(void **state)
{
    (void)state;
    const struct {
        const char *option;
        const char *expected; /* failed parents that a task of the sub-flow has */
    } cases[] = {{"    propagate_parent_failures: true\n", "1"}, {"", "0"}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct ran ran = {0};
        struct sel_buf flows = {0};
        sel_buf_printf(&flows,
                       "flow-definitions:\n"
                       "  - name: main\n%s"
                       "    edges:\n"
                       "      - {from: , to: broken}\n"
                       "    failures:\n"
                       "      - {nodes: broken, fallback: inner}\n"
                       "  - {name: inner, edges: [{from: , to: [counts, tells]}]}\n",
                       cases[i].option);
        run_code(&ran, CODE_TASKS "flows: [main, inner]\n", sel_buf_cstr(&flows));
        assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
        assert_string_equal(results_of(&ran, "counts"), cases[i].expected);
        assert_int_equal(strcmp(results_of(&ran, "tells"), TOLD) == 0, i == 0);
        sel_buf_done(&flows);
        done(&ran);
    }
}

static void test_a_nowait_fallback_lets_the_flow_end_and_still_runs(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran,
             "tasks:\n"
             "  - {name: a, import: m}\n"
             "  - {name: b, import: m}\n"
             "  - {name: f, import: m, max_retry: 1, retry_countdown: 100}\n"
             "  - {name: g, import: m}\n"
             "flows: [main]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    nowait: f\n"
             "    edges:\n"
             "      - {from: , to: [a, b]}\n"
             "    failures:\n"
             "      - {nodes: a, fallback: f}\n"
             "      - {nodes: b, fallback: g}\n",
             "{\"tasks\": {\"a\": [{\"raise\": \"E\"}], \"b\": [{\"raise\": \"E\"}],"
             " \"f\": [{\"raise\": \"E\"}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_string_equal(results_of(&ran, "f"), "E E");
    assert_string_equal(results_of(&ran, "g"), "null");
    assert_int_equal(ran.report->last_end_us, 100000000);
    assert_int_equal(ended_count(&ran, "failed_nodes", "a"), 0);
    done(&ran);
}

/* ---- storages in trouble ---- */

#define FLAKY(configuration)                                                                       \
    "flows: [main]\nstorages:\n  - {name: Flaky, import: flows, classname: Flaky, configuration: " \
    "{" configuration "}}\n"

static void test_a_task_whose_storage_fails_is_tried_again_later(void **state)
{
    (void)state;
    const struct {
        const char *nodes;
        int64_t end_us;
        const char *countdown;
    } cases[] = {
        {"tasks:\n  - {name: a, import: m, storage: Flaky, max_retry: 3, retry_countdown: "
         "1}\n" FLAKY("store: 2"),
         120000000, "60"},
        {"tasks:\n  - {name: a, import: m, storage: Flaky, max_retry: 3}\n" FLAKY(
             "store: 2, retry_seconds: 4"),
         8000000, "4"},
        {"tasks:\n  - {name: a, import: m, storage: Flaky, max_retry: 3}\n" FLAKY(
             "store: 1, by_item: 1, retry_seconds: 0.5"),
         500000, "0.5"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct ran ran = {0};
        run_mock(&ran, cases[i].nodes, one_task_flow, "{}");
        assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
        assert_int_equal(ran.report->last_end_us, cases[i].end_us);
        assert_string_equal(detail(&ran, SEL_TRACE_TASK_RETRY, 0, "retry_countdown"),
                            cases[i].countdown);
        assert_true(count_of(&ran, SEL_TRACE_STORAGE_ISSUE) >= 1);
        done(&ran);
    }
}

static void test_a_task_whose_storage_stays_away_fails(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran,
             "tasks:\n  - {name: a, import: m, storage: Flaky, max_retry: 1}\n" FLAKY("store: 9"),
             one_task_flow, "{}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_FAILURE);
    assert_string_equal(results_of(&ran, "a"), "StorageError StorageError");
    done(&ran);
}

static void test_a_decision_whose_storage_fails_waits_and_asks_again(void **state)
{
    (void)state;
    const struct {
        const char *configuration, *countdown;
        int64_t end_us;
    } cases[] = {
        {"retrieve: 2", "7", 14000000},
        {"retrieve: 3", "0", 3000000}, /* at least a second */
        {"retrieve: 1, by_item: 1", "5", 5000000},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct ran ran = {0};
        struct sel_buf nodes = {0}, flows = {0};
        sel_buf_printf(&nodes,
                       "tasks:\n"
                       "  - {name: a, import: m, storage: Flaky}\n"
                       "  - {name: b, import: m}\n"
                       "flows: [main]\n"
                       "storages:\n"
                       "  - {name: Flaky, import: flows, classname: Flaky, configuration: {%s}}\n",
                       cases[i].configuration);
        sel_buf_printf(&flows,
                       "flow-definitions:\n"
                       "  - name: main\n"
                       "    retry_countdown: %s\n"
                       "    edges:\n"
                       "      - {from: , to: a}\n"
                       "      - {from: a, to: b, " LOOK "}\n",
                       cases[i].countdown);
        run_mock(&ran, sel_buf_cstr(&nodes), sel_buf_cstr(&flows), "{}");
        assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
        assert_string_equal(results_of(&ran, "b"), "null");
        assert_int_equal(ran.report->last_end_us, cases[i].end_us);
        assert_true(count_of(&ran, SEL_TRACE_STORAGE_ISSUE) >= 1);
        sel_buf_done(&nodes);
        sel_buf_done(&flows);
        done(&ran);
    }
}

static void test_a_cancel_wakes_a_decision_that_waits_for_a_storage(void **state)
{
    (void)state;
    struct ran ran = {.nodes = "tasks:\n"
                               "  - {name: a, import: m, storage: Flaky}\n"
                               "  - {name: b, import: m}\n" FLAKY("retrieve: 9"),
                      .flows = "flow-definitions:\n"
                               "  - name: main\n"
                               "    retry_countdown: 3600\n"
                               "    edges:\n"
                               "      - {from: , to: a}\n"
                               "      - {from: a, to: b, " LOOK "}\n",
                      .mock = "{}",
                      .options = {.should_stop = stop_at_once}};
    run(&ran);
    assert_int_equal(ran.report->outcome, SEL_FLOW_CANCELED);
    assert_true(ran.report->progress.elapsed_us < 30000000);
    assert_int_equal(count_of(&ran, SEL_TRACE_STORAGE_ISSUE), 1);
    done(&ran);
}

/* ---- sampling ---- */

static void test_a_sampled_flow_looks_when_its_strategy_says(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 9, retry_countdown: 12"),
             "flow-definitions:\n"
             "  - name: main\n"
             "    sampling: {name: constant, args: {retry: 10}}\n"
             "    edges:\n"
             "      - {from: , to: a}\n",
             "{\"tasks\": {\"a\": [{\"raise\": \"E\"}, {\"result\": 1}]}}");
    assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(ran.report->last_end_us,
                     20000000); /* a ended at 12, the looks are at 10, 20 */
    assert_int_equal(count_of(&ran, SEL_TRACE_DISPATCHER_RETRY), 2);
    assert_string_equal(detail(&ran, SEL_TRACE_DISPATCHER_RETRY, 0, "retry"), "10");
    assert_string_equal(detail(&ran, SEL_TRACE_DISPATCHER_RETRY, 1, "retry"), "10");
    done(&ran);
}

static void test_an_increasing_strategy_waits_longer_while_nothing_starts(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_mock(&ran, ONE_TASK(", max_retry: 9, retry_countdown: 50"),
             "flow-definitions:\n"
             "  - name: main\n"
             "    sampling: {name: biexponential_increase, args: {start_retry: 2, max_retry: 16}}\n"
             "    edges:\n"
             "      - {from: , to: a}\n",
             "{\"tasks\": {\"a\": [{\"raise\": \"E\"}, {\"result\": 1}]}}");
    static const char *const waits[] = {"2", "4", "8", "16", "16", "16"};
    assert_int_equal(count_of(&ran, SEL_TRACE_DISPATCHER_RETRY), SEL_COUNT(waits));
    for (uint32_t i = 0; i < SEL_COUNT(waits); i++)
        assert_string_equal(detail(&ran, SEL_TRACE_DISPATCHER_RETRY, i, "retry"), waits[i]);
    assert_int_equal(ran.report->last_end_us, 62000000);
    done(&ran);
}

static void test_sampling_is_left_out_if_so_chosen(void **state)
{
    (void)state;
    struct ran ran = {.options = {.ignore_sampling = true}};
    run_mock(&ran, ONE_TASK(""),
             "flow-definitions:\n"
             "  - name: main\n"
             "    sampling: {name: constant, args: {retry: 10}}\n"
             "    edges: [{from: , to: a}]\n",
             "{}");
    assert_int_equal(ran.report->last_end_us, 0);
    done(&ran);
}

#define CODE_TASK "tasks:\n  - {name: a, import: flows, classname: Nothing}\nflows: [main]\n"

static void test_a_strategy_of_a_module_says_when_and_ends_the_flow(void **state)
{
    (void)state;
    struct ran looks = {0}, ends = {0};
    run_code(&looks, CODE_TASK,
             "flow-definitions:\n"
             "  - name: main\n"
             "    sampling: {name: patient, import: flows, args: {seconds: 1.5}}\n"
             "    edges: [{from: , to: [a, a]}]\n");
    assert_int_equal(looks.report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(looks.report->last_end_us, 1500000);
    assert_string_equal(detail(&looks, SEL_TRACE_DISPATCHER_RETRY, 0, "retry"), "1.5");
    done(&looks);
    /* b waits for a day; the strategy gives up after an hour */
    ends.options.virtual_time = true;
    run_mock(&ends,
             "tasks:\n  - {name: a, import: m, max_retry: 1, retry_countdown: 86400}\n"
             "flows: [main]\n",
             "flow-definitions:\n"
             "  - name: main\n"
             "    sampling: {name: constant, args: {retry: 3600}}\n"
             "    edges: [{from: , to: a}]\n",
             "{\"tasks\": {\"a\": [{\"raise\": \"E\"}, {\"result\": 1}]}}");
    assert_int_equal(ends.report->outcome, SEL_FLOW_SUCCESS);
    done(&ends);
}

/* ---- user functions that fail ---- */

static void test_a_function_that_fails_fails_its_flow_alone(void **state)
{
    (void)state;
    const char *const definitions[] = {
        "    sampling: {name: impatient, import: flows}\n    edges: [{from: , to: a}]\n",
        "    edges: [{from: , to: a, foreach: {import: flows, function: fails}}]\n",
        "    edges: [{from: , to: a, foreach: {import: flows, function: notAList}}]\n",
    };
    for (size_t i = 0; i < SEL_COUNT(definitions); i++) {
        struct ran ran = {0};
        struct sel_buf flows = {0};
        sel_buf_printf(&flows,
                       "flow-definitions:\n"
                       "  - name: main\n"
                       "    edges: [{from: , to: [inner, a]}]\n"
                       "    failures: [{nodes: inner, fallback: a}]\n"
                       "  - name: inner\n%s",
                       definitions[i]);
        run_code(&ran,
                 "tasks:\n  - {name: a, import: flows, classname: Nothing}\nflows: [main, inner]\n",
                 sel_buf_cstr(&flows));
        assert_int_equal(ran.report->outcome, SEL_FLOW_SUCCESS);
        assert_int_equal(count_of(&ran, SEL_TRACE_DISPATCHER_FAILURE), 1);
        assert_string_equal(detail(&ran, SEL_TRACE_DISPATCHER_FAILURE, 0, "flow_name"),
                            "\"inner\"");
        assert_int_equal(ended_count(&ran, "finished_nodes", "a"), 2);
        sel_buf_done(&flows);
        done(&ran);
    }
}

static void test_a_top_flow_that_cannot_go_on_tells_why_and_obeys_max_retry(void **state)
{
    (void)state;
    struct ran ran = {0};
    run_code(&ran, CODE_TASK,
             "flow-definitions:\n"
             "  - name: main\n"
             "    max_retry: 2\n"
             "    retry_countdown: 3\n"
             "    edges: [{from: , to: a, foreach: {import: flows, function: fails}}]\n");
    assert_int_equal(ran.report->outcome, SEL_FLOW_FAILURE);
    assert_int_equal(count_of(&ran, SEL_TRACE_DISPATCHER_FAILURE), 3);
    assert_int_equal(ran.report->last_end_us, 6000000);
    assert_non_null(strstr(ran.report->reason, "Deliberate"));
    done(&ran);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failing_task_is_tried_again_after_its_countdown),
        cmocka_unit_test(test_a_task_without_tries_left_fails_its_flow),
        cmocka_unit_test(test_a_fatal_error_is_not_tried_again),
        cmocka_unit_test(test_a_retry_that_the_task_asked_for_does_not_count),
        cmocka_unit_test(test_a_retried_flow_begins_with_its_first_arguments),
        cmocka_unit_test(test_a_throttled_burst_is_spread_and_says_so),
        cmocka_unit_test(test_throttled_subflows_are_spread_and_their_tasks_are_not),
        cmocka_unit_test(test_own_retries_of_a_throttled_task_are_not_throttled),
        cmocka_unit_test(test_work_of_a_queue_that_nobody_serves_is_left_and_counted),
        cmocka_unit_test(test_a_queue_that_nothing_uses_is_refused),
        cmocka_unit_test(test_a_cancel_wakes_what_sleeps_and_ends_the_run),
        cmocka_unit_test(test_a_result_that_was_looked_at_comes_from_the_cache),
        cmocka_unit_test(test_without_a_cache_each_decision_asks_the_storage),
        cmocka_unit_test(test_a_fallback_and_its_descendants_know_what_failed),
        cmocka_unit_test(test_a_task_whose_parents_did_not_fail_has_no_exception),
        cmocka_unit_test(test_propagate_failures_lets_a_fallback_look_into_the_flow),
        cmocka_unit_test(test_failures_of_flows_in_flows_are_nested_or_compound),
        cmocka_unit_test(test_propagate_parent_failures_reaches_into_a_subflow),
        cmocka_unit_test(test_a_nowait_fallback_lets_the_flow_end_and_still_runs),
        cmocka_unit_test(test_a_task_whose_storage_fails_is_tried_again_later),
        cmocka_unit_test(test_a_task_whose_storage_stays_away_fails),
        cmocka_unit_test(test_a_decision_whose_storage_fails_waits_and_asks_again),
        cmocka_unit_test(test_a_cancel_wakes_a_decision_that_waits_for_a_storage),
        cmocka_unit_test(test_a_sampled_flow_looks_when_its_strategy_says),
        cmocka_unit_test(test_an_increasing_strategy_waits_longer_while_nothing_starts),
        cmocka_unit_test(test_sampling_is_left_out_if_so_chosen),
        cmocka_unit_test(test_a_strategy_of_a_module_says_when_and_ends_the_flow),
        cmocka_unit_test(test_a_function_that_fails_fails_its_flow_alone),
        cmocka_unit_test(test_a_top_flow_that_cannot_go_on_tells_why_and_obeys_max_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
