#include "worker/run.h"

#include <string.h>
#include <time.h>

#include "worker/details.h"

/* ---- trace events ---- */

static struct sel_str flow_name(const struct sel_run *run)
{
    return run->flow ? run->flow->name : SEL_STR("");
}

static struct sel_value run_parents(struct sel_run *run)
{
    struct sel_value parents;
    if (sel_engine_parents_value(run->engine, run->parents, run->parents_bytes, false, run->arena,
                                 &parents) < 0)
        parents = sel_value_null;
    return parents;
}

static void begin_task_details(struct sel_run *run, struct sel_details *details)
{
    sel_details_begin(details, run->arena);
    sel_details_str(details, "flow_name", flow_name(run));
    sel_details_str(details, "task_name", run->task->name);
    sel_details_text(details, "task_id", run->id);
    sel_details_value(details, "parent", run_parents(run));
    sel_details_encoded(details, "node_args", run->args);
    sel_details_str(details, "queue", run->task->queue);
    sel_details_text(details, "dispatcher_id", run->dispatcher_id);
}

static void emit(struct sel_run *run, enum sel_trace_event event, struct sel_details *details)
{
    struct sel_value value = sel_details_end(details);
    sel_tracer_emit(run->engine->tracer, event, &value);
}

static void trace_start(struct sel_run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    emit(run, SEL_TRACE_TASK_START, &details);
}

static const struct sel_storage_def *storage_def(const struct sel_run *run)
{
    uint32_t index = run->task->storage;
    return index == SEL_NONE ? NULL : &run->engine->system->storages[index];
}

static void trace_end(struct sel_run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    const struct sel_storage_def *storage = storage_def(run);
    begin_task_details(run, &details);
    sel_details_value(&details, "storage",
                      storage ? sel_value_from_str(storage->name) : sel_value_null);
    emit(run, SEL_TRACE_TASK_END, &details);
}

static void trace_discard(struct sel_run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_encoded(&details, "result", run->result.value);
    emit(run, SEL_TRACE_TASK_DISCARD_RESULT, &details);
}

/* "class: message", as the text of a failure. */
static const char *what(struct sel_run *run)
{
    const char *text =
        sel_arena_printf(run->arena, "%s: %s", run->result.error_class, run->result.error_message);
    return text ? text : run->result.error_class;
}

static void trace_retry(struct sel_run *run, bool user_retry, uint32_t retried_count)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_text(&details, "what", what(run));
    sel_details_seconds(&details, "retry_countdown", run->countdown_s);
    sel_details_int(&details, "retried_count", retried_count);
    sel_details_bool(&details, "user_retry", user_retry);
    sel_details_int(&details, "max_retry", run->task->max_retry);
    emit(run, SEL_TRACE_TASK_RETRY, &details);
}

static void trace_failure(struct sel_run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_text(&details, "what", what(run));
    sel_details_int(&details, "retried_count", run->retried_count);
    emit(run, SEL_TRACE_TASK_FAILURE, &details);
}

static void trace_store(struct sel_run *run, enum sel_trace_event event, struct sel_str record_id)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    sel_details_begin(&details, run->arena);
    sel_details_str(&details, "flow_name", flow_name(run));
    sel_details_encoded(&details, "node_args", run->args);
    sel_details_str(&details, "task_name", run->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_str(&details, "storage_name", storage_def(run)->name);
    sel_details_str(&details, "storage_task_name", run->task->storage_task_name);
    sel_details_value(&details, "record_id",
                      record_id.p ? sel_value_from_str(record_id) : sel_value_null);
    if (event == SEL_TRACE_STORAGE_STORE_ERROR) {
        sel_details_text(&details, "error_type", run->result.error_class);
        sel_details_text(&details, "error_value", run->result.error_message);
        sel_details_text(&details, "error_traceback", "");
    }
    emit(run, event, &details);
}

static void trace_omit_store_error(struct sel_run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    sel_details_begin(&details, run->arena);
    sel_details_str(&details, "flow_name", flow_name(run));
    sel_details_encoded(&details, "node_args", run->args);
    sel_details_str(&details, "task_name", run->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_text(&details, "error_type", run->result.error_class);
    sel_details_text(&details, "error_value", run->result.error_message);
    sel_details_text(&details, "error_traceback", "");
    emit(run, SEL_TRACE_STORAGE_OMIT_STORE_ERROR, &details);
}

static void trace_storage_issue(struct sel_run *run, const char *text)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    sel_details_begin(&details, run->arena);
    sel_details_str(&details, "flow_name", flow_name(run));
    sel_details_str(&details, "task_name", run->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_str(&details, "storage_name", storage_def(run)->name);
    sel_details_str(&details, "storage_task_name", run->task->storage_task_name);
    sel_details_text(&details, "what", text);
    emit(run, SEL_TRACE_STORAGE_ISSUE, &details);
}

/* ---- validating and storing ---- */

static void fail(struct sel_run *run, const char *error_class, const char *message)
{
    const char *copy = sel_arena_strdup(run->arena, sel_str_c(message));
    run->result = (struct sel_exec_result){.outcome = SEL_EXEC_FAILURE,
                                           .error_class = error_class,
                                           .error_message = copy ? copy : "",
                                           .retry_s = -1};
}

static void validate(struct sel_run *run)
{
    const struct sel_schema *schema = run->engine->codes[run->task_index].schema;
    if (!schema)
        return;
    struct sel_value value;
    struct sel_error err = {0};
    int r =
        sel_value_decode(run->arena, run->result.value.p, run->result.value.n, false, &value, &err);
    if (r == 0)
        r = sel_schema_validate(schema, &value, &err);
    if (r < 0)
        fail(run, "ValidationError", err.text);
}

/* Seconds before a task that could not use its storage is tried again. */
static double storage_retry_s(const struct sel_run *run)
{
    const struct sel_value *v = sel_value_get_c(&storage_def(run)->config, "retry_seconds");
    bool number = sel_value_is(v, SEL_INT) || sel_value_is(v, SEL_FLOAT);
    return number && sel_value_num(v) >= 0 ? sel_value_num(v) : 60.0;
}

static void fail_storage(struct sel_run *run, const char *message)
{
    trace_storage_issue(run, message);
    fail(run, "StorageError", message);
    run->result.retry_s = storage_retry_s(run);
}

static struct sel_storage_item item_of(struct sel_run *run)
{
    return (struct sel_storage_item){.flow = flow_name(run),
                                     .task = run->task->storage_task_name,
                                     .id = sel_str_c(run->id),
                                     .node_args = run->args};
}

static void note_stored(struct sel_run *run)
{
    const struct sel_executor_observer *observer = run->engine->options->observer;
    if (observer && observer->stored)
        observer->stored(observer->ctx, storage_def(run), run->task, run->flow, run->result.value);
}

static void store(struct sel_run *run)
{
    struct sel_storage *storage;
    struct sel_error err = {0};
    struct sel_storage_item item = item_of(run);
    item.value = run->result.value;
    trace_store(run, SEL_TRACE_STORAGE_STORE, (struct sel_str){0});
    int r = sel_engine_storage(run->engine, run->task->storage, &storage, &err);
    if (r == 0)
        r = storage->ops->store(storage, sel_loop_io(run->loop), run->arena, &item, 1, &err);
    if (r == SEL_ECANCELED && run->may_return) {
        run->result.outcome = SEL_EXEC_CANCELED;
    } else if (r < 0) {
        fail_storage(run, err.text);
    } else if (item.status == SEL_STORE_FAILED || item.status == SEL_STORE_MISSING) {
        fail_storage(run, item.message ? item.message : "the storage refused the result");
    } else { /* SEL_STORE_EXISTS: an earlier delivery of the same run has won, and may have died
              * before it said so */
        trace_store(run, SEL_TRACE_STORAGE_STORED, item.record_id);
        note_stored(run);
    }
}

static void store_error(struct sel_run *run)
{
    struct sel_storage *storage = NULL;
    struct sel_error err = {0};
    if (run->task->storage == SEL_NONE || run->task->storage_read_only)
        return;
    int r = sel_engine_storage(run->engine, run->task->storage, &storage, &err);
    if (r == 0 && !storage->ops->put_error) {
        trace_omit_store_error(run);
        return;
    }
    struct sel_storage_item item = item_of(run);
    item.error_class = sel_str_c(run->result.error_class);
    item.error_message = sel_str_c(run->result.error_message);
    if (r == 0)
        r = storage->ops->put_error(storage, sel_loop_io(run->loop), run->arena, &item, 1, &err);
    if (r < 0 || item.status == SEL_STORE_FAILED)
        trace_storage_issue(run, r < 0 ? err.text : item.message);
    else
        trace_store(run, SEL_TRACE_STORAGE_STORE_ERROR, item.record_id);
}

/* ---- outcomes ---- */

static bool is_null(struct sel_str value)
{
    return value.n == 0 || (value.n == 1 && (uint8_t)value.p[0] == sel_value_null_bytes[0]);
}

static void keep_result(struct sel_run *run)
{
    const struct sel_task_def *task = run->task;
    validate(run);
    if (run->result.outcome != SEL_EXEC_SUCCESS)
        return;
    if (task->storage != SEL_NONE && !task->storage_read_only)
        store(run);
    else if (!is_null(run->result.value))
        trace_discard(run);
}

static void conclude_failure(struct sel_run *run)
{
    bool again =
        run->result.outcome == SEL_EXEC_FAILURE && run->retried_count < run->task->max_retry;
    if (again) {
        run->outcome = SEL_JOB_RETRY;
        run->user_retry = false;
        run->countdown_s = run->result.retry_s >= 0 ? run->result.retry_s
                                                    : (double)run->task->retry_countdown_us / 1e6;
        trace_retry(run, false, run->retried_count + 1);
        return;
    }
    run->outcome = SEL_JOB_FAILED;
    trace_failure(run);
    store_error(run);
    if (run->flow) /* only nodes of flows ask for what others failed with */
        sel_engine_note_failure(run->engine, run->id, run->result.error_class,
                                run->result.error_message);
}

static void conclude_cancelled(struct sel_run *run)
{
    run->result.error_class = "Cancelled";
    run->result.error_message = "the run was cancelled";
    if (run->may_return)
        run->outcome = SEL_JOB_RETURNED;
    else
        conclude_failure(run);
}

static void conclude(struct sel_run *run)
{
    switch (run->result.outcome) {
    case SEL_EXEC_SUCCESS:
        run->outcome = SEL_JOB_DONE;
        trace_end(run);
        break;
    case SEL_EXEC_RETRY:
        run->outcome = SEL_JOB_RETRY;
        run->user_retry = true;
        run->countdown_s = run->result.retry_s;
        trace_retry(run, true, run->retried_count);
        break;
    case SEL_EXEC_CANCELED:
        conclude_cancelled(run);
        break;
    case SEL_EXEC_FAILURE:
    case SEL_EXEC_FATAL:
        conclude_failure(run);
        break;
    }
}

static void observe(struct sel_run *run)
{
    const struct sel_executor_observer *observer = run->engine->options->observer;
    if (!observer || !observer->execution)
        return;
    struct sel_value parents = observer->wants_parents ? run_parents(run) : sel_value_null;
    struct sel_execution execution = {.task = run->task,
                                      .flow = run->flow,
                                      .task_id = run->id,
                                      .try_count = run->try_count,
                                      .node_args = run->args,
                                      .parents = observer->wants_parents ? &parents : NULL,
                                      .result = &run->result,
                                      .will_retry = run->outcome == SEL_JOB_RETRY,
                                      .countdown_s = run->countdown_s};
    observer->execution(observer->ctx, &execution);
}

static int64_t mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- running ---- */

/* Arguments come from producers, who may send anything. */
static void fail_to_begin(struct sel_run *run)
{
    struct sel_value args;
    struct sel_error err = {0};
    int r = run->args.n ? sel_value_decode(run->arena, run->args.p, run->args.n, false, &args, &err)
                        : SEL_ENOMEM;
    if (r == SEL_EFORMAT || r == SEL_ELIMIT) {
        fail(run, "ArgumentError", err.text);
        run->result.outcome = SEL_EXEC_FATAL;
    } else {
        fail(run, "MemoryError", "there is no memory for the task");
    }
}

static void run_code(struct sel_run *run)
{
    const struct sel_engine_code *code = &run->engine->codes[run->task_index];
    run->env = (struct sel_task_env){.system = run->engine->system,
                                     .host = &run->engine->host,
                                     .task = run->task,
                                     .flow = run->flow,
                                     .task_id = run->id,
                                     .dispatcher_id = run->dispatcher_id,
                                     .retried_count = run->retried_count,
                                     .try_count = run->try_count,
                                     .args = run->args,
                                     .parents = run->parents,
                                     .parents_bytes = run->parents_bytes,
                                     .scratch = run->scratch};
    struct sel_task *task = sel_task_new(run->arena, &run->env);
    if (!task) {
        fail_to_begin(run);
        return;
    }
    int64_t begin_us = run->is_timed ? mono_us() : 0;
    code->ops->run(code->self, code->code, task, &run->result);
    run->end_us = run->is_timed ? mono_us() : 0;
    run->run_us = run->end_us - begin_us;
    sel_task_done(task);
}

/* An earlier delivery of the same task may have stored its result and died before it told. The
 * observer is told then: once more, perhaps. */
static bool find_result(struct sel_run *run)
{
    struct sel_storage *storage;
    struct sel_error err = {0};
    struct sel_storage_item item = item_of(run);
    if (run->task->storage == SEL_NONE || run->task->storage_read_only)
        return false;
    int r = sel_engine_storage(run->engine, run->task->storage, &storage, &err);
    if (r == 0)
        r = storage->ops->retrieve(storage, sel_loop_io(run->loop), run->arena, &item, 1, &err);
    if (r < 0 || item.status != SEL_STORE_OK)
        return false; /* trouble shows when the result is stored */
    run->result =
        (struct sel_exec_result){.outcome = SEL_EXEC_SUCCESS, .value = item.value, .retry_s = -1.0};
    note_stored(run);
    return true;
}

void sel_run_task(struct sel_run *run)
{
    trace_start(run);
    if (run->is_cancelled)
        run->result.outcome = SEL_EXEC_CANCELED;
    else if (!run->looks_first || !find_result(run)) {
        run_code(run);
        if (run->result.outcome == SEL_EXEC_SUCCESS)
            keep_result(run);
    }
    conclude(run);
    observe(run);
}
