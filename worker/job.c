#include "worker/job.h"

#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "worker/details.h"

#define ARENAS_KEPT 256

/* ---- blobs ---- */

struct sel_blob *sel_blob_new(struct sel_str bytes)
{
    struct sel_blob *blob = sel_mem_alloc(sizeof(*blob) + bytes.n);
    if (blob) {
        blob->refs = 1;
        blob->size = bytes.n;
        memcpy(blob->bytes, bytes.p, bytes.n);
    }
    return blob;
}

struct sel_blob *sel_blob_ref(struct sel_blob *blob)
{
    blob->refs++;
    return blob;
}

void sel_blob_unref(struct sel_blob *blob)
{
    if (blob && --blob->refs == 0)
        sel_mem_free(blob);
}

/* ---- arenas ---- */

static struct sel_arena take_arena(struct sel_job_worker *worker)
{
    struct sel_arena arena;
    if (worker->arena_count > 0)
        return worker->arenas[--worker->arena_count];
    sel_arena_init(&arena, 0);
    return arena;
}

static void give_arena(struct sel_job_worker *worker, struct sel_arena *arena)
{
    if (worker->arena_count >= ARENAS_KEPT ||
        !sel_mem_grow(&worker->arenas, &worker->arena_cap, (uint64_t)worker->arena_count + 1,
                      sizeof(*worker->arenas))) {
        sel_arena_done(arena);
        return;
    }
    sel_arena_reset(arena);
    worker->arenas[worker->arena_count++] = *arena;
}

void sel_job_worker_done(struct sel_job_worker *worker)
{
    while (worker->arena_count > 0)
        sel_arena_done(&worker->arenas[--worker->arena_count]);
    sel_mem_free(worker->arenas);
    memset(worker, 0, sizeof(*worker));
}

/* ---- trace events ---- */

const char *sel_job_id(const struct sel_job *job, char out[SEL_RUN_ID_TEXT_SIZE])
{
    return sel_id_format_run(job->flow_id, job->attempt, job->ordinal, out);
}

/* What is known while a job runs. */
struct run {
    struct sel_job *job;
    struct sel_engine *engine;
    struct sel_arena arena;
    char id[SEL_RUN_ID_TEXT_SIZE];
    char dispatcher_id[SEL_ID_TEXT_SIZE];
    struct sel_exec_result result;
};

static struct sel_value run_parents(struct run *run)
{
    struct sel_value parents;
    if (sel_parents_to_value(run->engine->system, run->job->parents, false, &run->arena, &parents) <
        0)
        parents = sel_value_null;
    return parents;
}

static void begin_task_details(struct run *run, struct sel_details *details)
{
    const struct sel_job *job = run->job;
    sel_details_begin(details, &run->arena);
    sel_details_str(details, "flow_name", job->flow_def->name);
    sel_details_str(details, "task_name", job->task->name);
    sel_details_text(details, "task_id", run->id);
    sel_details_value(details, "parent", run_parents(run));
    sel_details_encoded(details, "node_args", sel_blob_str(job->args));
    sel_details_str(details, "queue", job->task->queue);
    sel_details_text(details, "dispatcher_id", run->dispatcher_id);
}

static void emit(struct run *run, enum sel_trace_event event, struct sel_details *details)
{
    struct sel_value value = sel_details_end(details);
    sel_tracer_emit(run->engine->tracer, event, &value);
}

static void trace_start(struct run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    emit(run, SEL_TRACE_TASK_START, &details);
}

static const struct sel_storage_def *storage_def(const struct run *run)
{
    uint32_t index = run->job->task->storage;
    return index == SEL_NONE ? NULL : &run->engine->system->storages[index];
}

static void trace_end(struct run *run)
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

static void trace_discard(struct run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_encoded(&details, "result", run->result.value);
    emit(run, SEL_TRACE_TASK_DISCARD_RESULT, &details);
}

/* "class: message", as the text of a failure. */
static const char *what(struct run *run)
{
    const char *text =
        sel_arena_printf(&run->arena, "%s: %s", run->result.error_class, run->result.error_message);
    return text ? text : run->result.error_class;
}

static void trace_retry(struct run *run, bool user_retry, uint32_t retried_count)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_text(&details, "what", what(run));
    sel_details_seconds(&details, "retry_countdown", run->job->countdown_s);
    sel_details_int(&details, "retried_count", retried_count);
    sel_details_bool(&details, "user_retry", user_retry);
    sel_details_int(&details, "max_retry", run->job->task->max_retry);
    emit(run, SEL_TRACE_TASK_RETRY, &details);
}

static void trace_failure(struct run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    begin_task_details(run, &details);
    sel_details_text(&details, "what", what(run));
    sel_details_int(&details, "retried_count", run->job->retried_count);
    emit(run, SEL_TRACE_TASK_FAILURE, &details);
}

static void trace_store(struct run *run, enum sel_trace_event event, struct sel_str record_id)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    const struct sel_job *job = run->job;
    sel_details_begin(&details, &run->arena);
    sel_details_str(&details, "flow_name", job->flow_def->name);
    sel_details_encoded(&details, "node_args", sel_blob_str(job->args));
    sel_details_str(&details, "task_name", job->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_str(&details, "storage_name", storage_def(run)->name);
    sel_details_str(&details, "storage_task_name", job->task->storage_task_name);
    sel_details_value(&details, "record_id",
                      record_id.p ? sel_value_from_str(record_id) : sel_value_null);
    if (event == SEL_TRACE_STORAGE_STORE_ERROR) {
        sel_details_text(&details, "error_type", run->result.error_class);
        sel_details_text(&details, "error_value", run->result.error_message);
        sel_details_text(&details, "error_traceback", "");
    }
    emit(run, event, &details);
}

static void trace_omit_store_error(struct run *run)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    sel_details_begin(&details, &run->arena);
    sel_details_str(&details, "flow_name", run->job->flow_def->name);
    sel_details_encoded(&details, "node_args", sel_blob_str(run->job->args));
    sel_details_str(&details, "task_name", run->job->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_text(&details, "error_type", run->result.error_class);
    sel_details_text(&details, "error_value", run->result.error_message);
    sel_details_text(&details, "error_traceback", "");
    emit(run, SEL_TRACE_STORAGE_OMIT_STORE_ERROR, &details);
}

static void trace_storage_issue(struct run *run, const char *text)
{
    struct sel_details details;
    if (!sel_engine_is_traced(run->engine))
        return;
    sel_details_begin(&details, &run->arena);
    sel_details_str(&details, "flow_name", run->job->flow_def->name);
    sel_details_str(&details, "task_name", run->job->task->name);
    sel_details_text(&details, "task_id", run->id);
    sel_details_str(&details, "storage_name", storage_def(run)->name);
    sel_details_str(&details, "storage_task_name", run->job->task->storage_task_name);
    sel_details_text(&details, "what", text);
    emit(run, SEL_TRACE_STORAGE_ISSUE, &details);
}

/* ---- validating and storing ---- */

static void fail(struct run *run, const char *error_class, const char *message)
{
    const char *copy = sel_arena_strdup(&run->arena, sel_str_c(message));
    run->result = (struct sel_exec_result){.outcome = SEL_EXEC_FAILURE,
                                           .error_class = error_class,
                                           .error_message = copy ? copy : "",
                                           .retry_s = -1};
}

static void validate(struct run *run)
{
    const struct sel_schema *schema = run->engine->codes[run->job->task_index].schema;
    struct sel_value value;
    struct sel_error err = {0};
    if (!schema)
        return;
    int r = sel_value_decode(&run->arena, run->result.value.p, run->result.value.n, false, &value,
                             &err);
    if (r == 0)
        r = sel_schema_validate(schema, &value, &err);
    if (r < 0)
        fail(run, "ValidationError", err.text);
}

/* Seconds before a task that could not use its storage is tried again. */
static double storage_retry_s(const struct run *run)
{
    const struct sel_value *v = sel_value_get_c(&storage_def(run)->config, "retry_seconds");
    bool number = sel_value_is(v, SEL_INT) || sel_value_is(v, SEL_FLOAT);
    return number && sel_value_num(v) >= 0 ? sel_value_num(v) : 60.0;
}

static void fail_storage(struct run *run, const char *message)
{
    trace_storage_issue(run, message);
    fail(run, "StorageError", message);
    run->result.retry_s = storage_retry_s(run);
}

static struct sel_storage_item item_of(struct run *run)
{
    const struct sel_job *job = run->job;
    return (struct sel_storage_item){.flow = job->flow_def->name,
                                     .task = job->task->storage_task_name,
                                     .id = sel_str_c(run->id),
                                     .node_args = sel_blob_str(job->args)};
}

static void note_stored(struct run *run)
{
    const struct sel_executor_observer *observer = run->engine->options->observer;
    if (observer && observer->stored)
        observer->stored(observer->ctx, storage_def(run), run->job->task, run->job->flow_def,
                         run->result.value);
}

static void store(struct run *run)
{
    struct sel_storage *storage;
    struct sel_error err = {0};
    struct sel_storage_item item = item_of(run);
    item.value = run->result.value;
    trace_store(run, SEL_TRACE_STORAGE_STORE, (struct sel_str){0});
    int r = sel_engine_storage(run->engine, run->job->task->storage, &storage, &err);
    if (r == 0)
        r = storage->ops->store(storage, sel_loop_io(run->job->worker->loop), &run->arena, &item, 1,
                                &err);
    if (r < 0) {
        fail_storage(run, err.text);
    } else if (item.status == SEL_STORE_FAILED || item.status == SEL_STORE_MISSING) {
        fail_storage(run, item.message ? item.message : "the storage refused the result");
    } else { /* SEL_STORE_EXISTS: an earlier delivery of the same run has won */
        trace_store(run, SEL_TRACE_STORAGE_STORED, item.record_id);
        if (item.status == SEL_STORE_OK)
            note_stored(run);
    }
}

static void store_error(struct run *run)
{
    struct sel_storage *storage = NULL;
    struct sel_error err = {0};
    if (run->job->task->storage == SEL_NONE || run->job->task->storage_read_only)
        return;
    int r = sel_engine_storage(run->engine, run->job->task->storage, &storage, &err);
    if (r == 0 && !storage->ops->put_error) {
        trace_omit_store_error(run);
        return;
    }
    struct sel_storage_item item = item_of(run);
    item.error_class = sel_str_c(run->result.error_class);
    item.error_message = sel_str_c(run->result.error_message);
    if (r == 0)
        r = storage->ops->put_error(storage, sel_loop_io(run->job->worker->loop), &run->arena,
                                    &item, 1, &err);
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

static void keep_result(struct run *run)
{
    const struct sel_task_def *task = run->job->task;
    validate(run);
    if (run->result.outcome != SEL_EXEC_SUCCESS)
        return;
    if (task->storage != SEL_NONE && !task->storage_read_only)
        store(run);
    else if (!is_null(run->result.value))
        trace_discard(run);
}

static void conclude_failure(struct run *run)
{
    struct sel_job *job = run->job;
    bool again =
        run->result.outcome == SEL_EXEC_FAILURE && job->retried_count < job->task->max_retry;
    if (again) {
        job->outcome = SEL_JOB_RETRY;
        job->user_retry = false;
        job->countdown_s = run->result.retry_s >= 0 ? run->result.retry_s
                                                    : (double)job->task->retry_countdown_us / 1e6;
        trace_retry(run, false, job->retried_count + 1);
        return;
    }
    job->outcome = SEL_JOB_FAILED;
    trace_failure(run);
    store_error(run);
    sel_engine_note_failure(run->engine, run->id, run->result.error_class,
                            run->result.error_message);
}

static void conclude(struct run *run)
{
    struct sel_job *job = run->job;
    switch (run->result.outcome) {
    case SEL_EXEC_SUCCESS:
        job->outcome = SEL_JOB_DONE;
        trace_end(run);
        break;
    case SEL_EXEC_RETRY:
        job->outcome = SEL_JOB_RETRY;
        job->user_retry = true;
        job->countdown_s = run->result.retry_s;
        trace_retry(run, true, job->retried_count);
        break;
    case SEL_EXEC_CANCELED:
        run->result.error_class = "Cancelled";
        run->result.error_message = "the run was cancelled";
        conclude_failure(run);
        break;
    case SEL_EXEC_FAILURE:
    case SEL_EXEC_FATAL:
        conclude_failure(run);
        break;
    }
}

static void observe(struct run *run)
{
    const struct sel_executor_observer *observer = run->engine->options->observer;
    if (!observer || !observer->execution)
        return;
    struct sel_value parents = observer->wants_parents ? run_parents(run) : sel_value_null;
    struct sel_execution execution = {.task = run->job->task,
                                      .flow = run->job->flow_def,
                                      .task_id = run->id,
                                      .node_args = sel_blob_str(run->job->args),
                                      .parents = observer->wants_parents ? &parents : NULL,
                                      .result = &run->result,
                                      .will_retry = run->job->outcome == SEL_JOB_RETRY,
                                      .countdown_s = run->job->countdown_s};
    observer->execution(observer->ctx, &execution);
}

static int64_t mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void run_code(struct run *run)
{
    struct sel_job *job = run->job;
    const struct sel_engine_code *code = &run->engine->codes[job->task_index];
    struct sel_task_env env = {.system = run->engine->system,
                               .host = &run->engine->host,
                               .task = job->task,
                               .flow = job->flow_def,
                               .task_id = run->id,
                               .dispatcher_id = run->dispatcher_id,
                               .retried_count = job->retried_count,
                               .args = sel_blob_str(job->args),
                               .parents = job->parents};
    struct sel_task *task = sel_task_new(&run->arena, &env);
    if (!task) {
        fail(run, "MemoryError", "there is no memory for the task");
        return;
    }
    int64_t begin_us = mono_us();
    code->ops->run(code->self, code->code, task, &run->result);
    job->end_us = mono_us();
    job->run_us = job->end_us - begin_us;
    sel_task_done(task);
}

static void list_running(struct sel_job *job)
{
    struct sel_job_worker *worker = job->worker;
    job->co = sel_co_current();
    job->prev_running = NULL;
    job->next_running = worker->running;
    if (worker->running)
        worker->running->prev_running = job;
    worker->running = job;
}

static void unlist_running(struct sel_job *job)
{
    if (job->prev_running)
        job->prev_running->next_running = job->next_running;
    else
        job->worker->running = job->next_running;
    if (job->next_running)
        job->next_running->prev_running = job->prev_running;
    job->co = NULL;
}

void sel_job_cancel_all(struct sel_job_worker *worker)
{
    worker->canceled = true;
    for (struct sel_job *job = worker->running; job; job = job->next_running)
        sel_loop_cancel(worker->loop, job->co);
}

/* "task 'Name' (id)", for the crash line of a stack overflow. */
static const char *run_name(struct run *run)
{
    const struct sel_str parts[] = {SEL_STR("task '"), run->job->task->name, SEL_STR("' ("),
                                    sel_str_c(run->id), SEL_STR(")")};
    size_t size = 1;
    for (size_t i = 0; i < SEL_COUNT(parts); i++)
        size += parts[i].n;
    char *name = sel_arena_alloc_raw(&run->arena, size, 1);
    for (size_t i = 0, at = 0; name && i < SEL_COUNT(parts); at += parts[i++].n)
        memcpy(name + at, parts[i].p, parts[i].n);
    if (name)
        name[size - 1] = '\0';
    return name;
}

SEL_CO void sel_job_run(struct sel_job *job)
{
    list_running(job);
    struct run run = {.job = job, .engine = job->engine, .arena = take_arena(job->worker)};
    sel_job_id(job, run.id);
    sel_id_format(job->flow_id, run.dispatcher_id);
    const char *name = run_name(&run);
    if (name)
        sel_co_set_name(sel_co_current(), name);
    trace_start(&run);
    if (!job->worker->canceled)
        run_code(&run);
    else
        run.result.outcome = SEL_EXEC_CANCELED;
    if (run.result.outcome == SEL_EXEC_SUCCESS)
        keep_result(&run);
    conclude(&run);
    observe(&run);
    sel_co_set_name(sel_co_current(), NULL);
    unlist_running(job);
    give_arena(job->worker, &run.arena);
}
