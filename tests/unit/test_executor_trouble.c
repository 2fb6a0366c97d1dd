#include "tests/support/test.h"

#include <stdlib.h>

#include "core/compile.h"
#include "worker/executor.h"
#include "worker/mock.h"
#include "worker/module.h"

/* A run of flow `main` of one YAML text with the code of tests/modules, and what came of it. */
struct trial {
    struct sel_arena arena;
    struct sel_system *system;
    struct sel_modules *modules;
    struct sel_executor *executor;
    const struct sel_executor_report *report;
    struct sel_buf args;
    struct sel_error err;
    struct sel_executor_options options;
    uint32_t stops; /* how often should_stop was asked */
    int code;
};

static void quiet(void *ctx, enum sel_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

/* Ctrl-C at the first opportunity. */
static bool stop_at_once(void *ctx)
{
    struct trial *t = ctx;
    t->stops++;
    return true;
}

static struct trial *begin(const char *yaml, const char *args)
{
    static const struct sel_predicate_world world;
    struct trial *t = SEL_NEW(struct trial);
    struct sel_diag diag;
    assert_non_null(t);
    t->modules = sel_modules_new(SEL_TEST_MODULES);
    assert_non_null(t->modules);
    struct sel_compile_user user = sel_modules_compile_user(t->modules);
    struct sel_source source = {"trial.yaml", sel_str_c(yaml)};
    struct sel_compile_options options = {
        .nodes = source, .flows = &source, .flow_count = 1, .world = &world, .user = &user};
    sel_diag_init(&diag, &t->arena);
    if (sel_compile(&options, &diag, &t->system) < 0)
        fail_msg("%s", diag.first ? diag.first->text : "refused without a reason");
    if (args) {
        struct sel_value value = sel_test_json(&t->arena, args);
        sel_value_encode(&value, &t->args);
    }
    t->options = (struct sel_executor_options){.system = t->system,
                                               .modules = t->modules,
                                               .flow_name = SEL_STR("main"),
                                               .node_args = sel_buf_str(&t->args),
                                               .log = quiet,
                                               .stop_ctx = t};
    return t;
}

static int run(struct trial *t)
{
    t->code = sel_executor_new(&t->options, &t->executor, &t->err);
    if (t->code == 0)
        t->code = sel_executor_run(t->executor, &t->report, &t->err);
    if (t->code < 0)
        print_message("%s\n", t->err.text);
    return t->code;
}

static void end(struct trial *t)
{
    sel_executor_free(t->executor);
    sel_modules_free(t->modules);
    sel_system_free(t->system);
    sel_buf_done(&t->args);
    sel_arena_done(&t->arena);
    sel_mem_free(t);
}

/* The counts of runs agree: nothing was lost. */
static void assert_all_ended(const struct trial *t)
{
    const struct sel_executor_progress *p = &t->report->progress;
    assert_int_equal(p->started, p->finished + p->failed);
    assert_int_equal(p->running, 0);
}

#define TASK(name, class) "  - {name: " name ", import: trouble, classname: " class "}\n"

/* ---- cancelling while something is under way ---- */

static void test_a_cancel_reaches_functions_that_hang(void **state)
{
    (void)state;
    static const char *const flows[] = {
        "  - name: main\n    edges: [{from: , to: a, foreach: {import: trouble, function: "
        "hangs}}]\n",
        "  - name: main\n    edges: [{from: , to: a, condition: {name: hangingPredicate}}]\n",
        "  - name: main\n    sampling: {name: hangingSampling, import: trouble}\n"
        "    edges: [{from: , to: a}]\n",
        "  - name: main\n    edges: [{from: , to: [a, inner]}]\n"
        "  - name: inner\n"
        "    edges: [{from: , to: a, foreach: {import: trouble, function: hangs}}]\n",
    };
    for (size_t i = 0; i < SEL_COUNT(flows); i++) {
        char yaml[1024];
        (void)snprintf(yaml, sizeof(yaml),
                       "tasks:\n" TASK("a", "Nothing") "global: {predicates_module: trouble}\n"
                                                       "flows: [main%s]\nflow-definitions:\n%s",
                       strstr(flows[i], "inner") ? ", inner" : "", flows[i]);
        struct trial *t = begin(yaml, NULL);
        t->options.should_stop = stop_at_once;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, SEL_FLOW_CANCELED);
        end(t);
    }
}

static void test_a_cancel_reaches_a_storage_that_hangs(void **state)
{
    (void)state;
    struct trial *t =
        begin("tasks:\n"
              "  - {name: a, import: trouble, classname: Nothing, storage: S}\n"
              "storages: [{name: S, import: trouble, classname: Slow}]\n"
              "flows: [main]\n"
              "flow-definitions:\n"
              "  - name: main\n"
              "    edges:\n"
              "      - {from: , to: a}\n"
              "      - {from: a, to: a, condition: {name: fieldExist, args: {key: x}}}\n",
              NULL);
    t->options.should_stop = stop_at_once;
    assert_ok(run(t));
    assert_int_equal(t->report->outcome, SEL_FLOW_CANCELED);
    end(t);
}

/* A decision waits for its storage by the hub's clock, which stands still while a task runs. */
static void test_a_cancel_reaches_a_decision_that_waits_for_its_storage(void **state)
{
    (void)state;
    for (int is_virtual = 0; is_virtual < 2; is_virtual++) {
        struct trial *t = begin(
            "tasks:\n" TASK(
                "b", "Hangs") "  - {name: a, import: trouble, classname: Nothing, storage: S}\n"
                              "storages: [{name: S, import: trouble, classname: Away}]\n"
                              "flows: [main]\n"
                              "flow-definitions:\n"
                              "  - name: main\n"
                              "    retry_countdown: 3600\n"
                              "    max_retry: 1\n"
                              "    edges:\n"
                              "      - {from: , to: [a, b]}\n"
                              "      - {from: a, to: a, condition: {name: fieldExist, args: {key: "
                              "x}}}\n",
            NULL);
        t->options.virtual_time = is_virtual;
        t->options.should_stop = stop_at_once;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, SEL_FLOW_CANCELED);
        end(t);
    }
}

static void test_a_cancel_reaches_tasks_that_have_not_begun(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 2; threads++) {
        struct trial *t =
            begin("tasks:\n" TASK("a", "HoldsUp") "flows: [main]\n"
                                                  "flow-definitions:\n"
                                                  "  - name: main\n"
                                                  "    edges:\n"
                                                  "      - {from: , to: a, foreach: {import: "
                                                  "trouble, function: numbers}}\n",
                  "{\"count\": 3000}");
        t->options.slots = 2000;
        t->options.threads = threads;
        t->options.should_stop = stop_at_once;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, SEL_FLOW_CANCELED);
        end(t);
    }
}

/* ---- wrong answers ---- */

static void test_wrong_answers_of_functions_fail_the_flow_and_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *flow, *reason;
    } cases[] = {
        {"    sampling: {name: nanSampling, import: trouble}\n    edges: [{from: , to: a}]\n",
         "not a number"},
        {"    edges: [{from: , to: a, foreach: {import: trouble, function: retries}}]\n",
         "asked for a retry"},
        {"    edges: [{from: , to: a, foreach: {import: trouble, function: hangs}}]\n",
         "time limit"},
        {"    edges: [{from: , to: a}, {from: a, to: a, condition: {name: hangingPredicate}}]\n",
         "time limit"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char yaml[1024];
        (void)snprintf(
            yaml, sizeof(yaml),
            "tasks:\n" TASK("a", "Nothing") "global: {predicates_module: trouble}\n"
                                            "flows: [main]\nflow-definitions:\n  - name: main\n%s",
            cases[i].flow);
        struct trial *t = begin(yaml, NULL);
        t->options.function_limit_us = 20000;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, SEL_FLOW_FAILURE);
        if (!t->report->reason || !strstr(t->report->reason, cases[i].reason))
            fail_msg("%zu: %s", i, t->report->reason ? t->report->reason : "no reason");
        end(t);
    }
}

static void test_wrong_answers_of_storages_are_errors_of_theirs(void **state)
{
    (void)state;
    static const struct {
        const char *storage;
        enum sel_flow_outcome outcome;
    } cases[] = {{"EmptyHanded", SEL_FLOW_SUCCESS} /* as if it were null */,
                 {"Odd", SEL_FLOW_FAILURE}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char yaml[1024];
        (void)snprintf(yaml, sizeof(yaml),
                       "tasks:\n"
                       "  - {name: a, import: trouble, classname: Counts, storage: S}\n"
                       "storages: [{name: S, import: trouble, classname: %s}]\n"
                       "flows: [main]\n"
                       "flow-definitions:\n"
                       "  - name: main\n"
                       "    edges:\n"
                       "      - {from: , to: a}\n"
                       "      - {from: a, to: a, condition: {name: fieldExist, args: {key: x}}}\n",
                       cases[i].storage);
        struct trial *t = begin(yaml, NULL);
        t->options.virtual_time = true;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, cases[i].outcome);
        end(t);
    }
}

/* ---- no memory ---- */

/* A flow with most of what flows have, in one process, twice retried. */
static const char small_of_all[] =
    "tasks:\n"
    "  - {name: a, import: trouble, classname: Counts, storage: S, max_retry: 1}\n"
    "  - {name: b, import: trouble, classname: Nothing, throttling: {seconds: 5}}\n"
    "  - {name: broken, import: trouble, classname: Fails}\n"
    "storages:\n"
    "  - name: S\n"
    "    import: selinon.storages.memory\n"
    "    classname: InMemoryStorage\n"
    "    cache: {name: LRU, import: selinon.caches, configuration: {max_cache_size: 3}}\n"
    "flows: [main, inner]\n"
    "flow-definitions:\n"
    "  - name: main\n"
    "    max_retry: 1\n"
    "    retry_countdown: 2\n"
    "    propagate_finished: [inner]\n"
    "    propagate_failures: [inner]\n"
    "    node_args_from_first: false\n"
    "    nowait: [b]\n"
    "    edges:\n"
    "      - {from: , to: [a, b]}\n"
    "      - from: a\n"
    "        to: inner\n"
    "        condition: {name: fieldExist, args: {key: n}}\n"
    "        foreach: {import: trouble, function: numbers, propagate_result: true}\n"
    "      - {from: inner, to: broken}\n"
    "    failures: [{nodes: inner, fallback: b}]\n"
    "  - name: inner\n"
    "    sampling: {name: constant, args: {retry: 3}}\n"
    "    edges:\n"
    "      - {from: , to: [a, b]}\n"
    "      - {from: [a, b], to: broken}\n"
    "    failures: [{nodes: broken, fallback: true}]\n";

static void ignore_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                         int64_t age_us)
{
    (void)ctx, (void)event, (void)details, (void)age_us;
}

/* Memory for this may run out in the middle of a user's function or in the displays too, which
 * go on without; so the run may also come to its end. */
static void run_without_memory(struct trial *t, int64_t n)
{
    t->err = (struct sel_error){0};
    sel_mem_fail_at(n);
    int r = sel_executor_new(&t->options, &t->executor, &t->err);
    if (r == 0)
        r = sel_executor_run(t->executor, &t->report, &t->err);
    sel_mem_fail_at(0);
    t->executor = sel_executor_free(t->executor);
    if (r < 0)
        assert_true(t->err.text[0] != '\0');
}

static void test_a_run_without_memory_ends_with_an_error_or_well(void **state)
{
    (void)state;
    static const struct sel_executor_observer observer = {.trace = ignore_trace};
    struct trial *t = begin(small_of_all, "{\"count\": 2}");
    t->options.virtual_time = true;
    t->options.shuffle_seed = 7;
    t->options.observer = &observer;
    uint64_t before = sel_mem_alloc_count();
    run_without_memory(t, INT64_MAX);
    int64_t count = (int64_t)(sel_mem_alloc_count() - before);
    int64_t step = getenv("SEL_TEST_ALL") ? 1 : 7;
    for (int64_t n = 1; n <= count; n += step)
        run_without_memory(t, n);
    end(t);
}

/* ---- threads of modules ---- */

static void test_a_module_is_called_on_threads_that_it_knows(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        struct trial *t =
            begin("tasks:\n"
                  "  - {name: a, import: picky, classname: Nothing, storage: S}\n"
                  "  - {name: b, import: picky, classname: Nothing, storage: S, blocking: true}\n"
                  "storages: [{name: S, import: picky, classname: Storage}]\n"
                  "global:\n"
                  "  trace: [{storage: {name: S}}, {function: {import: picky, name: watch}}]\n"
                  "flows: [main]\n"
                  "flow-definitions:\n"
                  "  - {name: main, edges: [{from: , to: [a, b, a, b]}]}\n",
                  NULL);
        t->options.threads = threads;
        assert_ok(run(t));
        assert_int_equal(t->report->outcome, SEL_FLOW_SUCCESS);
        end(t);
    }
}

/* ---- ends ---- */

static void test_a_task_that_computes_for_long_ends_when_it_does(void **state)
{
    (void)state;
    struct trial *t =
        begin("tasks:\n" TASK("a", "Computes") "flows: [main]\n"
                                               "flow-definitions:\n"
                                               "  - {name: main, edges: [{from: , to: [a, a]}]}\n",
              NULL);
    assert_ok(run(t));
    assert_true(t->report->last_end_us >= 2 * 30000);
    end(t);
}

static void test_every_start_is_counted_as_an_end(void **state)
{
    (void)state;
    struct trial *t =
        begin("tasks:\n" TASK("a", "Nothing") "flows: [main, inner]\n"
                                              "flow-definitions:\n"
                                              "  - name: main\n"
                                              "    nowait: [inner, a]\n"
                                              "    edges: [{from: , to: [inner, a]}]\n"
                                              "  - name: inner\n"
                                              "    edges: [{from: , to: [a, a]}]\n",
              NULL);
    assert_ok(run(t));
    assert_int_equal(t->report->outcome, SEL_FLOW_SUCCESS);
    assert_int_equal(t->report->progress.started, 4);
    assert_all_ended(t);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cancel_reaches_functions_that_hang),
        cmocka_unit_test(test_a_cancel_reaches_a_storage_that_hangs),
        cmocka_unit_test(test_a_cancel_reaches_a_decision_that_waits_for_its_storage),
        cmocka_unit_test(test_a_cancel_reaches_tasks_that_have_not_begun),
        cmocka_unit_test(test_wrong_answers_of_functions_fail_the_flow_and_say_why),
        cmocka_unit_test(test_wrong_answers_of_storages_are_errors_of_theirs),
        cmocka_unit_test(test_a_run_without_memory_ends_with_an_error_or_well),
        cmocka_unit_test(test_a_module_is_called_on_threads_that_it_knows),
        cmocka_unit_test(test_a_task_that_computes_for_long_ends_when_it_does),
        cmocka_unit_test(test_every_start_is_counted_as_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
