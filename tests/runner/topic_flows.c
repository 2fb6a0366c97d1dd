/* Topic `flows`: whole runs of the executor with a mock, in virtual time; what is compared and how
 * is in tests/conformance/flows/README.md. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/compile.h"
#include "core/hash.h"
#include "core/selective.h"
#include "core/trace.h"
#include "tests/runner/runner.h"
#include "worker/executor.h"
#include "worker/mock.h"

/* One case at work. What observers touch is under `lock`. */
struct flow_case {
    struct sel_arena arena;
    const char *name;
    const struct sel_runner_options *options;
    struct sel_runner_report *report;
    struct sel_value script, expected; /* case.json, expected.json */
    struct sel_runner_env env;
    struct sel_diag diag;
    struct sel_system *system;
    bool failed;

    pthread_mutex_t lock;
    struct sel_arena seen_arena;
    struct sel_map result_index; /* task id -> position in results */
    struct sel_value_builder results, executions, ends, stored;
    uint64_t events[SEL_TRACE_COUNT];
};

static const char *const compared_events[] = {
    "FLOW_SCHEDULE",
    "FLOW_START",
    "FLOW_END",
    "FLOW_FAILURE",
    "FLOW_RETRY",
    "SUBFLOW_SCHEDULE",
    "TASK_SCHEDULE",
    "TASK_START",
    "TASK_END",
    "TASK_FAILURE",
    "TASK_RETRY",
    "TASK_DISCARD_RESULT",
    "NODE_SUCCESSFUL",
    "NODE_FAILURE",
    "EAGER_FAILURE",
    "FALLBACK_START",
    "EDGE_COND_FALSE",
    "FOREACH_RESULT",
    "SELECTIVE_TASK_REUSE",
    "STORAGE_STORE",
    "STORAGE_STORE_ERROR",
    "STORAGE_OMIT_STORE_ERROR",
};

static void fail(struct flow_case *c, const char *what, const char *difference)
{
    if (difference)
        sel_runner_fail(c->report, c->name, "%s: %s", what, difference);
    if (difference)
        c->failed = true;
}

static struct sel_value member(const struct sel_value *map, const char *key)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    return v ? *v : sel_value_null;
}

/* ---- watching ---- */

/* The list or map; null, which differs from what is expected, when memory ran out. */
static struct sel_value built(struct sel_value_builder *b)
{
    struct sel_value value;
    return sel_value_end(b, &value) == 0 ? value : sel_value_null;
}

static struct sel_value copied(struct flow_case *c, const struct sel_value *v)
{
    struct sel_value copy;
    return sel_value_copy(&c->seen_arena, v, &copy) == 0 ? copy : sel_value_null;
}

static struct sel_value decoded(struct flow_case *c, struct sel_str bytes)
{
    struct sel_value value;
    int r = sel_value_decode(&c->seen_arena, bytes.p, bytes.n, true, &value, NULL);
    return r == 0 ? value : sel_value_null;
}

static void keep_result(struct flow_case *c, const char *id, struct sel_value result)
{
    char *key = sel_arena_strdup(&c->seen_arena, sel_str_c(id));
    if (key && sel_map_add(&c->result_index, sel_str_c(key), c->results.count, NULL) == 1)
        sel_value_add(&c->results, result);
}

static struct sel_value result_of(struct flow_case *c, const struct sel_value *id)
{
    uint32_t index;
    if (sel_map_get(&c->result_index, sel_value_str(id), &index))
        return c->results.items[index];
    return sel_value_from_c("(no such run has a result)");
}

static int by_json(const void *a, const void *b, void *arena)
{
    return strcmp(sel_runner_json(arena, a), sel_runner_json(arena, b));
}

/* Ids become results; lists below a flow name are sorted, for their order has no meaning. */
static struct sel_value resolved(struct flow_case *c, const struct sel_value *parents)
{
    struct sel_value_builder out;
    if (sel_value_is(parents, SEL_TEXT))
        return result_of(c, parents);
    if (sel_value_is(parents, SEL_LIST)) {
        sel_value_begin_list(&out, &c->seen_arena);
        for (uint32_t i = 0; i < sel_value_count(parents); i++)
            sel_value_add(&out, result_of(c, sel_value_at(parents, i)));
        qsort_r(out.items, out.count, sizeof(*out.items), by_json, &c->seen_arena);
        return built(&out);
    }
    sel_value_begin_map(&out, &c->seen_arena);
    for (uint32_t i = 0; sel_value_is(parents, SEL_MAP) && i < sel_value_count(parents); i++)
        sel_value_put_key(&out, *sel_value_key_at(parents, i),
                          resolved(c, sel_value_val_at(parents, i)));
    return built(&out);
}

static struct sel_value seconds(double s)
{
    return s == (double)(int64_t)s ? sel_value_from_i64((int64_t)s) : sel_value_from_f64(s);
}

static void put_outcome(struct flow_case *c, const struct sel_execution *e,
                        struct sel_value_builder *entry)
{
    if (e->result->outcome == SEL_EXEC_SUCCESS) {
        struct sel_value result = decoded(c, e->result->value);
        sel_value_put_c(entry, "outcome", sel_value_from_c("success"));
        sel_value_put_c(entry, "result", result);
        keep_result(c, e->task_id, result);
        return;
    }
    bool asked = e->result->outcome == SEL_EXEC_RETRY;
    struct sel_value error = sel_value_from_c(asked ? "Retry" : e->result->error_class);
    sel_value_put_c(entry, "outcome", sel_value_from_c(e->will_retry ? "retry" : "failure"));
    sel_value_put_c(entry, "error", copied(c, &error));
    if (e->will_retry)
        sel_value_put_c(entry, "countdown", seconds(e->countdown_s));
}

static void on_execution(void *ctx, const struct sel_execution *e)
{
    struct flow_case *c = ctx;
    struct sel_value_builder entry;
    struct sel_value value;
    pthread_mutex_lock(&c->lock);
    sel_value_begin_map(&entry, &c->seen_arena);
    sel_value_put_c(&entry, "task", sel_value_from_str(e->task->name));
    sel_value_put_c(&entry, "flow", sel_value_from_str(e->flow->name));
    sel_value_put_c(&entry, "node_args", decoded(c, e->node_args));
    sel_value_put_c(&entry, "parents", resolved(c, e->parents));
    put_outcome(c, e, &entry);
    if (sel_value_end(&entry, &value) == 0)
        sel_value_add(&c->executions, value);
    pthread_mutex_unlock(&c->lock);
}

/* {name: ids} to {name: how many}. */
static struct sel_value counted(struct flow_case *c, const struct sel_value *nodes)
{
    struct sel_value_builder out;
    sel_value_begin_map(&out, &c->seen_arena);
    for (uint32_t i = 0; sel_value_is(nodes, SEL_MAP) && i < sel_value_count(nodes); i++) {
        struct sel_value key = copied(c, sel_value_key_at(nodes, i));
        sel_value_put_key(&out, key,
                          sel_value_from_i64(sel_value_count(sel_value_val_at(nodes, i))));
    }
    return built(&out);
}

static void on_flow_end(void *ctx, const struct sel_flow_end *end)
{
    static const char *const outcomes[] = {[SEL_FLOW_SUCCESS] = "success",
                                           [SEL_FLOW_FAILURE] = "failure",
                                           [SEL_FLOW_RETRY] = "retry",
                                           [SEL_FLOW_CANCELED] = "canceled"};
    struct flow_case *c = ctx;
    struct sel_value_builder entry;
    struct sel_value value;
    pthread_mutex_lock(&c->lock);
    sel_value_begin_map(&entry, &c->seen_arena);
    sel_value_put_c(&entry, "flow", sel_value_from_str(end->flow->name));
    sel_value_put_c(&entry, "node_args", decoded(c, end->start_args));
    sel_value_put_c(&entry, "outcome", sel_value_from_c(outcomes[end->outcome]));
    sel_value_put_c(&entry, "finished_nodes", counted(c, end->finished_nodes));
    sel_value_put_c(&entry, "failed_nodes", counted(c, end->failed_nodes));
    if (sel_value_end(&entry, &value) == 0)
        sel_value_add(&c->ends, value);
    pthread_mutex_unlock(&c->lock);
}

static void on_stored(void *ctx, const struct sel_storage_def *storage,
                      const struct sel_task_def *task, const struct sel_flow_def *flow,
                      struct sel_str result)
{
    struct flow_case *c = ctx;
    struct sel_value_builder entry;
    struct sel_value value;
    pthread_mutex_lock(&c->lock);
    sel_value_begin_map(&entry, &c->seen_arena);
    sel_value_put_c(&entry, "storage", sel_value_from_str(storage->name));
    sel_value_put_c(&entry, "task", sel_value_from_str(task->name));
    sel_value_put_c(&entry, "storage_task_name", sel_value_from_str(task->storage_task_name));
    sel_value_put_c(&entry, "flow", sel_value_from_str(flow->name));
    sel_value_put_c(&entry, "result", decoded(c, result));
    if (sel_value_end(&entry, &value) == 0)
        sel_value_add(&c->stored, value);
    pthread_mutex_unlock(&c->lock);
}

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details)
{
    struct flow_case *c = ctx;
    (void)details;
    __atomic_fetch_add(&c->events[event], 1, __ATOMIC_RELAXED);
}

/* ---- comparing ---- */

static void compare_list(struct flow_case *c, const char *what, struct sel_value_builder *seen)
{
    const struct sel_value *expected = sel_value_get_c(&c->expected, what);
    struct sel_value actual;
    if (expected && sel_value_end(seen, &actual) == 0)
        fail(c, what, sel_runner_diff_multiset(&c->arena, expected, &actual));
}

static void compare_events(struct flow_case *c)
{
    const struct sel_value *expected = sel_value_get_c(&c->expected, "events");
    for (size_t i = 0; i < SEL_COUNT(compared_events); i++) {
        const struct sel_value *v = sel_value_get_c(expected, compared_events[i]);
        int64_t want = 0;
        uint64_t have = 0;
        if (v)
            (void)sel_value_i64(v, &want);
        for (uint32_t e = 0; e < SEL_TRACE_COUNT; e++) {
            if (strcmp(sel_trace_name(e), compared_events[i]) == 0)
                have = c->events[e];
        }
        if ((uint64_t)want != have)
            fail(c, "events",
                 sel_arena_printf(&c->arena, "%s: expected %lld, got %llu", compared_events[i],
                                  (long long)want, (unsigned long long)have));
    }
}

static void compare_queues(struct flow_case *c)
{
    const struct sel_value *expected = sel_value_get_c(&c->expected, "queues");
    struct sel_value_builder tasks, flows, both;
    struct sel_value task_map, flow_map, actual;
    if (!expected)
        return;
    sel_value_begin_map(&tasks, &c->arena);
    for (uint32_t i = 0; i < c->system->task_count; i++)
        sel_value_put(&tasks, c->system->tasks[i].name,
                      sel_value_from_str(c->system->tasks[i].queue));
    sel_value_begin_map(&flows, &c->arena);
    for (uint32_t i = 0; i < c->system->flow_count; i++)
        sel_value_put(&flows, c->system->flows[i].name,
                      sel_value_from_str(c->system->flows[i].queue));
    sel_value_begin_map(&both, &c->arena);
    if (sel_value_end(&tasks, &task_map) == 0 && sel_value_end(&flows, &flow_map) == 0) {
        sel_value_put_c(&both, "tasks", task_map);
        sel_value_put_c(&both, "flows", flow_map);
    }
    if (sel_value_end(&both, &actual) == 0)
        fail(c, "queues", sel_runner_diff(&c->arena, expected, &actual));
}

static void compare_nodes(struct flow_case *c, const char *what, const struct sel_value *state)
{
    const struct sel_value *expected = sel_value_get_c(&c->expected, what);
    struct sel_value actual = counted(c, sel_value_get_c(state, what));
    if (expected)
        fail(c, what, sel_runner_diff(&c->arena, expected, &actual));
}

static void compare(struct flow_case *c, const struct sel_executor_report *report)
{
    const char *outcome = report->outcome == SEL_FLOW_SUCCESS   ? "success"
                          : report->outcome == SEL_FLOW_FAILURE ? "failure"
                                                                : "canceled";
    struct sel_value expected = member(&c->expected, "outcome");
    struct sel_value actual = sel_value_from_c(outcome);
    fail(c, "outcome", sel_runner_diff(&c->arena, &expected, &actual));
    compare_nodes(c, "finished_nodes", &report->state);
    compare_nodes(c, "failed_nodes", &report->state);
    compare_list(c, "executions", &c->executions);
    compare_list(c, "flows", &c->ends);
    compare_list(c, "stored", &c->stored);
    compare_events(c);
    compare_queues(c);
    const struct sel_value *virtual_s = sel_value_get_c(&c->expected, "virtual_seconds");
    if (virtual_s && sel_value_num(virtual_s) != (double)report->last_end_us / 1e6)
        fail(c, "virtual_seconds",
             sel_arena_printf(&c->arena, "expected %g, got %g", sel_value_num(virtual_s),
                              (double)report->last_end_us / 1e6));
    if (report->stuck > 0)
        fail(c, "stuck", "work was left in the queues");
}

/* ---- running ---- */

static const char *case_getenv(void *ctx, const char *name)
{
    const char *value = sel_runner_getenv(ctx, name);
    return value ? value : getenv(name);
}

static void fill_request(struct flow_case *c, const struct sel_value *v,
                         struct sel_selective_request *request)
{
    const struct sel_value *tasks = sel_value_get_c(v, "tasks");
    uint32_t count = sel_value_is(tasks, SEL_LIST) ? sel_value_count(tasks) : 0;
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(&c->arena, struct sel_str, (size_t)count + 1);
    for (uint32_t i = 0; names && i < count; i++)
        names[i] = sel_value_str(sel_value_at(tasks, i));
    *request = (struct sel_selective_request){
        .tasks = names,
        .task_count = count,
        .follow_subflows = sel_value_is_true(sel_value_get_c(v, "follow_subflows")),
        .run_subsequent = sel_value_is_true(sel_value_get_c(v, "run_subsequent"))};
}

static void fill_presets(struct flow_case *c, struct sel_executor_options *options)
{
    const struct sel_value *list = sel_value_get_c(&c->script, "preset");
    uint32_t count = sel_value_is(list, SEL_LIST) ? sel_value_count(list) : 0;
    struct sel_executor_preset *presets =
        SEL_ARENA_NEW_ARRAY(&c->arena, struct sel_executor_preset, (size_t)count + 1);
    for (uint32_t i = 0; presets && i < count; i++) {
        const struct sel_value *v = sel_value_at(list, i);
        presets[i].id = sel_arena_strdup(&c->arena, sel_value_str(sel_value_get_c(v, "id")));
        presets[i].task = sel_value_str(sel_value_get_c(v, "task"));
        presets[i].result = member(v, "result");
        keep_result(c, presets[i].id, presets[i].result);
    }
    options->presets = presets;
    options->preset_count = presets ? count : 0;
}

static void expect_error(struct flow_case *c, const char *class, const char *text)
{
    struct sel_value expected = member(&c->expected, "error");
    struct sel_value actual = sel_value_from_c(class);
    const char *difference = sel_runner_diff(&c->arena, &expected, &actual);
    if (difference)
        fail(c, "error", sel_arena_printf(&c->arena, "%s (%s)", difference, text));
}

static bool expects_error(const struct flow_case *c)
{
    struct sel_value outcome = member(&c->expected, "outcome");
    return sel_value_is(&outcome, SEL_TEXT) && sel_str_eq_c(sel_value_str(&outcome), "error");
}

static void run_executor(struct flow_case *c, const struct sel_executor_options *options)
{
    struct sel_executor *executor = NULL;
    const struct sel_executor_report *report;
    struct sel_error err = {0};
    int r = sel_executor_new(options, &executor, &err);
    if (r < 0) {
        if (r == SEL_ENOPATH && expects_error(c))
            expect_error(c, "SelectiveNoPathError", err.text);
        else
            fail(c, "the run was refused", err.text);
        return;
    }
    r = sel_executor_run(executor, &report, &err);
    if (r < 0)
        fail(c, "the run broke off", err.text);
    else if (expects_error(c))
        fail(c, "error", "the run was to be refused");
    else
        compare(c, report);
    sel_executor_free(executor);
}

static void run_flow(struct flow_case *c)
{
    struct sel_executor_observer observer = {.ctx = c,
                                             .wants_parents = true,
                                             .execution = on_execution,
                                             .flow_end = on_flow_end,
                                             .stored = on_stored,
                                             .trace = on_trace};
    struct sel_executor_options options = {.system = c->system,
                                           .threads = c->options->threads,
                                           .virtual_time = true,
                                           .ignore_sampling = true,
                                           .getenv = case_getenv,
                                           .getenv_ctx = &c->env,
                                           .observer = &observer,
                                           .verbosity = -1};
    struct sel_selective_request request;
    struct sel_value mock = member(&c->script, "mock"), args = member(&c->script, "node_args");
    const struct sel_value *selective = sel_value_get_c(&c->script, "selective");
    struct sel_buf bytes = {0};
    struct sel_mock *script = NULL;
    struct sel_error err = {0};
    if (c->options->shuffle)
        options.shuffle_seed = c->options->seed + 1;
    int r = sel_mock_new(c->system, &mock, &script, &err);
    if (r < 0) {
        fail(c, "mock", err.text);
        return;
    }
    sel_value_encode(&args, &bytes);
    options.mock = script;
    options.flow_name = sel_value_str(sel_value_get_c(&c->script, "flow"));
    options.node_args = sel_buf_str(&bytes);
    if (sel_value_is(selective, SEL_MAP)) {
        fill_request(c, selective, &request);
        options.selective = &request;
    }
    fill_presets(c, &options);
    run_executor(c, &options);
    sel_mock_free(script);
    sel_buf_done(&bytes);
}

static void compile_case(struct flow_case *c)
{
    struct sel_predicate_world world = {case_getenv, &c->env};
    struct sel_source flows = {.file = "flows.yaml"};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml"}, .flows = &flows, .flow_count = 1, .world = &world};
    struct sel_error err = {0};
    int r = sel_runner_read_file(&c->arena, "nodes.yaml", &options.nodes.text, &err);
    if (r == 0)
        r = sel_runner_read_file(&c->arena, "flows.yaml", &flows.text, &err);
    if (r < 0) {
        fail(c, "the configuration cannot be read", err.text);
        return;
    }
    sel_diag_init(&c->diag, &c->arena);
    r = sel_compile(&options, &c->diag, &c->system);
    const char *why = c->diag.first ? c->diag.first->text : sel_error_text(r);
    if (r < 0 && expects_error(c))
        expect_error(c, "ConfigurationError", why);
    else if (r < 0)
        fail(c, "the configuration was refused", why);
    else
        run_flow(c);
}

static void run_case(struct flow_case *c)
{
    struct sel_error err = {0};
    int r = sel_runner_read_json(&c->arena, "case.json", &c->script, &err);
    if (r == 0)
        r = sel_runner_read_json(&c->arena, "expected.json", &c->expected, &err);
    if (r == 0)
        r = sel_runner_env_init(&c->env, &c->arena, sel_value_get_c(&c->script, "env"));
    if (r < 0)
        fail(c, "the case cannot be read", err.text[0] ? err.text : sel_error_text(r));
    else
        compile_case(c);
}

static void begin_case(struct flow_case *c)
{
    pthread_mutex_init(&c->lock, NULL);
    sel_value_begin_list(&c->results, &c->seen_arena);
    sel_value_begin_list(&c->executions, &c->seen_arena);
    sel_value_begin_list(&c->ends, &c->seen_arena);
    sel_value_begin_list(&c->stored, &c->seen_arena);
}

static void end_case(struct flow_case *c)
{
    if (!c->failed)
        sel_runner_pass(c->report);
    sel_system_free(c->system);
    sel_map_done(&c->result_index);
    sel_arena_done(&c->seen_arena);
    sel_arena_done(&c->arena);
    pthread_mutex_destroy(&c->lock);
}

int sel_topic_flows(const char *dir, const struct sel_runner_options *options,
                    struct sel_runner_report *report, struct sel_error *err)
{
    struct sel_arena arena = {0};
    const char *const *names;
    uint32_t count;
    int back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = back < 0 ? -errno : sel_runner_list_dirs(&arena, dir, &names, &count, err);
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        struct flow_case c = {.name = names[i], .options = options, .report = report};
        const char *path = sel_arena_printf(&arena, "%s/%s", dir, names[i]);
        begin_case(&c);
        if (!path || chdir(path) < 0)
            fail(&c, "the folder cannot be entered", path ? sel_error_text(-errno) : "no memory");
        else
            run_case(&c);
        end_case(&c);
        if (fchdir(back) < 0)
            r = sel_error_set(err, -errno, (struct sel_pos){dir, 0, 0},
                              "the folder before cannot be entered: %s", sel_error_text(-errno));
    }
    if (back >= 0)
        close(back);
    sel_arena_done(&arena);
    return r;
}
