#include "worker/task_internal.h"

#include <math.h>
#include <stdio.h>

#include "core/suggest.h"
#include "core/trace.h"
#include "worker/loop.h"

/* One record that user code asked for. */
struct request {
    struct sel_task *task;
    uint32_t index;                        /* of the storage */
    const struct sel_storage_def *storage; /* its definition */
    struct sel_str flow, name, id;         /* name: as in the YAML */
    struct sel_str storage_name;           /* of the task, storage_task_name */
};

/* ---- which storage ---- */

static const struct sel_task_def *find_task(const struct sel_task *task, struct sel_str name)
{
    const struct sel_system *system = task->env->system;
    uint32_t node = system ? sel_system_find(system, name) : SEL_NONE;
    if (node == SEL_NONE || sel_system_is_flow(system, node))
        return NULL;
    return sel_system_task(system, node);
}

/* Names of tasks that the configuration does not know stand for themselves. */
static void fill_request(struct request *request, struct sel_task *task, uint32_t index,
                         struct sel_str flow, struct sel_str name, struct sel_str id)
{
    const struct sel_task_def *def = find_task(task, name);
    *request = (struct request){.task = task,
                                .index = index,
                                .storage = &task->env->system->storages[index],
                                .flow = flow,
                                .name = name,
                                .id = id,
                                .storage_name = def ? def->storage_task_name : name};
}

static int unknown_storage(struct sel_task *task, const char *storage)
{
    const struct sel_system *system = task->env->system;
    struct sel_suggest suggest;
    struct sel_str similar;
    sel_suggest_init(&suggest, sel_str_c(storage));
    for (uint32_t i = 0; system && i < system->storage_count; i++)
        sel_suggest_offer(&suggest, system->storages[i].name);
    if (sel_suggest_get(&suggest, &similar))
        return sel_fail(task, "UnknownStorageError",
                        "there is no storage '%s' in the configuration; did you mean '%.*s'?",
                        storage, SEL_STR_ARG(similar));
    return sel_fail(task, "UnknownStorageError", "there is no storage '%s' in the configuration",
                    storage);
}

static int choose_storage(struct sel_task *task, const char *storage, uint32_t *ret)
{
    const struct sel_system *system = task->env->system;
    if (storage) {
        if (!system || !sel_map_get(&system->storage_names, sel_str_c(storage), ret))
            return unknown_storage(task, storage);
        return 0;
    }
    if (!task->env->task)
        return sel_fail(task, "UnknownStorageError",
                        "a function of a flow has no storage of its own; name one");
    if (!system || task->env->task->storage == SEL_NONE)
        return sel_fail(task, "UnknownStorageError", "task '%s' has no storage", task->name);
    *ret = task->env->task->storage;
    return 0;
}

/* ---- trace ---- */

enum trace_extra { TRACE_PLAIN, TRACE_STORE, TRACE_WHAT };

/* `extra` is the record id (NULL: null) of TRACE_STORE, the text of TRACE_WHAT. */
static void trace(const struct request *request, uint32_t event, enum trace_extra kind,
                  const char *extra)
{
    struct sel_task *task = request->task;
    const struct sel_task_host *host = task->env->host;
    if (!host->tracing || !host->trace)
        return;
    struct sel_value_builder map;
    struct sel_value details;
    sel_value_begin_map(&map, task->arena);
    sel_value_put_c(&map, "flow_name", sel_value_from_str(request->flow));
    sel_value_put_c(&map, "task_name", sel_value_from_str(request->name));
    sel_value_put_c(&map, "storage_task_name", sel_value_from_str(request->storage_name));
    sel_value_put_c(&map, "storage_name", sel_value_from_str(request->storage->name));
    sel_value_put_c(&map, "task_id", sel_value_from_str(request->id));
    if (kind == TRACE_STORE) {
        sel_value_put_c(&map, "node_args", task->args);
        sel_value_put_c(&map, "record_id", sel_value_from_c(extra));
    }
    if (kind == TRACE_WHAT)
        sel_value_put_c(&map, "what", sel_value_from_c(extra));
    if (sel_value_end(&map, &details) == 0) /* no memory for a trace is no reason to fail */
        host->trace(host->ctx, event, &details);
}

/* ---- talking to it ---- */

/* How long the YAML says that a task is to wait after trouble with this storage. */
static double retry_seconds(const struct sel_storage_def *storage)
{
    const struct sel_value *v = sel_value_get_c(&storage->config, "retry_seconds");
    if (!sel_value_is(v, SEL_INT) && !sel_value_is(v, SEL_FLOAT))
        return SEL_STORAGE_RETRY_S_DEFAULT;
    double seconds = sel_value_num(v);
    return isfinite(seconds) && seconds >= 0.0 ? seconds : SEL_STORAGE_RETRY_S_DEFAULT;
}

static int note_trouble(const struct request *request, const char *what, int code, const char *text)
{
    struct sel_task *task = request->task;
    if (code == SEL_ECANCELED)
        return sel_task_note_cancel(task);
    (void)sel_task_note(task, SEL_ERR_FAILED, "StorageError", "storage '%.*s': %s: %s",
                        SEL_STR_ARG(request->storage->name), what,
                        text && text[0] ? text : sel_error_text(code));
    trace(request, SEL_TRACE_STORAGE_ISSUE, TRACE_WHAT, task->error_message);
    task->storage_retry_s = retry_seconds(request->storage);
    return SEL_ERR_FAILED;
}

static int note_missing(const struct request *request)
{
    return sel_fail(request->task, "SelinonMissingDataException",
                    "storage '%.*s' has no record of task '%.*s' with id '%.*s' in flow '%.*s'",
                    SEL_STR_ARG(request->storage->name), SEL_STR_ARG(request->name),
                    SEL_STR_ARG(request->id), SEL_STR_ARG(request->flow));
}

static struct sel_io *current_io(void)
{
    struct sel_loop *loop = sel_co_current() ? sel_loop_current() : NULL;
    return loop ? sel_loop_io(loop) : sel_io_blocking();
}

static int open_storage(const struct request *request, struct sel_storage **ret)
{
    const struct sel_task_host *host = request->task->env->host;
    struct sel_error err = {0};
    if (!host || !host->storage)
        return sel_fail(request->task, "StorageError", "there is no access to storages here");
    int r = host->storage(host->ctx, request->index, ret, &err);
    return r < 0 ? note_trouble(request, "cannot be opened", r, err.text) : 0;
}

static void fill_item(const struct request *request, struct sel_storage_item *item)
{
    *item = (struct sel_storage_item){.flow = request->flow,
                                      .task = request->storage_name,
                                      .id = request->id,
                                      .node_args = request->task->env->args,
                                      .status = SEL_STORE_FAILED};
}

/* What the storage holds, encoded. */
static int retrieve(const struct request *request, struct sel_str *ret)
{
    struct sel_task *task = request->task;
    struct sel_storage *storage;
    struct sel_storage_item item;
    struct sel_error err = {0};
    SEL_TRY(open_storage(request, &storage));
    trace(request, SEL_TRACE_STORAGE_RETRIEVE, TRACE_PLAIN, NULL);
    fill_item(request, &item);
    int r = storage->ops->retrieve(storage, current_io(), task->arena, &item, 1, &err);
    if (r < 0)
        return note_trouble(request, "retrieve", r, err.text);
    if (item.status == SEL_STORE_MISSING)
        return note_missing(request);
    if (item.status != SEL_STORE_OK)
        return note_trouble(request, "retrieve", SEL_ESTORAGE, item.message);
    trace(request, SEL_TRACE_STORAGE_RETRIEVED, TRACE_PLAIN, NULL);
    *ret = item.value;
    return 0;
}

static int decode(const struct request *request, struct sel_str bytes, struct sel_value *ret)
{
    struct sel_error err = {0};
    int r = sel_value_decode(request->task->arena, bytes.p, bytes.n, false, ret, &err);
    if (r == SEL_ENOMEM)
        return sel_task_note_memory(request->task);
    return r < 0 ? note_trouble(request, "damaged record", r, err.text) : 0;
}

/* 1: found and *ret set, 0: the storage is to be asked. */
static int ask_cache(const struct request *request, struct sel_str *ret)
{
    const struct sel_task_host *host = request->task->env->host;
    struct sel_error err = {0};
    trace(request, SEL_TRACE_TASK_RESULT_CACHE_GET, TRACE_PLAIN, NULL);
    int r =
        host->cache_get(host->ctx, request->index, request->id, request->task->arena, ret, &err);
    if (r > 0)
        trace(request, SEL_TRACE_TASK_RESULT_CACHE_HIT, TRACE_PLAIN, NULL);
    else if (r == 0)
        trace(request, SEL_TRACE_TASK_RESULT_CACHE_MISS, TRACE_WHAT, "CacheMissError");
    else
        trace(request, SEL_TRACE_TASK_RESULT_CACHE_ISSUE, TRACE_WHAT, err.text);
    return r > 0;
}

static void fill_cache(const struct request *request, struct sel_str bytes)
{
    const struct sel_task_host *host = request->task->env->host;
    struct sel_error err = {0};
    trace(request, SEL_TRACE_TASK_RESULT_CACHE_ADD, TRACE_PLAIN, NULL);
    if (host->cache_add(host->ctx, request->index, request->id, bytes, &err) < 0)
        trace(request, SEL_TRACE_TASK_RESULT_CACHE_ISSUE, TRACE_WHAT, err.text);
}

int sel_task_fetch_result(struct sel_task *task, struct sel_str flow, struct sel_str name,
                          struct sel_str id, struct sel_value *ret)
{
    const struct sel_task_def *def = find_task(task, name);
    if (!def || def->storage == SEL_NONE)
        return sel_fail(task, "UnknownStorageError",
                        "task '%.*s' has no storage, so that its result was not kept",
                        SEL_STR_ARG(name));
    struct request request;
    struct sel_str bytes;
    fill_request(&request, task, def->storage, flow, name, id);
    const struct sel_task_host *host = task->env->host;
    bool has_cache = host && host->cache_get && host->cache_add;
    if (!has_cache || !ask_cache(&request, &bytes))
        SEL_TRY(retrieve(&request, &bytes));
    if (has_cache)
        fill_cache(&request, bytes); /* after a hit too: adding what is there changes nothing */
    return decode(&request, bytes, ret);
}

static int begin_request(struct sel_task *task, const char *storage, const char *flow,
                         const char *name, const char *id, struct request *ret)
{
    uint32_t index;
    if (!flow || !name || !id)
        return sel_fail(task, "RequestError", "flow, task and id of a record must be given");
    SEL_TRY(choose_storage(task, storage, &index));
    fill_request(ret, task, index, sel_str_c(flow), sel_str_c(name), sel_str_c(id));
    return 0;
}

int sel_storage_retrieve(struct sel_task *task, const char *storage, const char *flow,
                         const char *name, const char *id, const struct sel_value **ret)
{
    struct request request;
    struct sel_str bytes;
    SEL_TRY(begin_request(task, storage, flow, name, id, &request));
    SEL_TRY(retrieve(&request, &bytes));
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    if (!value)
        return sel_task_note_memory(task);
    SEL_TRY(decode(&request, bytes, value));
    *ret = value;
    return 0;
}

int sel_storage_store(struct sel_task *task, const char *storage, const char *flow,
                      const char *name, const char *id, const struct sel_value *result)
{
    struct request request;
    struct sel_storage *opened;
    struct sel_storage_item item;
    struct sel_error err = {0};
    SEL_TRY(begin_request(task, storage, flow, name, id, &request));
    fill_item(&request, &item);
    SEL_TRY(sel_task_encode(task, result, &item.value));
    SEL_TRY(open_storage(&request, &opened));
    trace(&request, SEL_TRACE_STORAGE_STORE, TRACE_STORE, NULL);
    int r = opened->ops->store(opened, current_io(), task->arena, &item, 1, &err);
    if (r < 0)
        return note_trouble(&request, "store", r, err.text);
    if (item.status == SEL_STORE_EXISTS)
        return 0; /* the first result wins; whoever stores again has been run again */
    if (item.status != SEL_STORE_OK)
        return note_trouble(&request, "store", SEL_ESTORAGE, item.message);
    char *record_id = item.record_id.p ? sel_arena_strdup(task->arena, item.record_id) : NULL;
    trace(&request, SEL_TRACE_STORAGE_STORED, TRACE_STORE, record_id);
    return 0;
}

int sel_storage_delete(struct sel_task *task, const char *storage, const char *flow,
                       const char *name, const char *id)
{
    struct request request;
    struct sel_storage *opened;
    struct sel_storage_item item;
    struct sel_error err = {0};
    SEL_TRY(begin_request(task, storage, flow, name, id, &request));
    SEL_TRY(open_storage(&request, &opened));
    fill_item(&request, &item);
    trace(&request, SEL_TRACE_STORAGE_DELETE, TRACE_PLAIN, NULL);
    int r = opened->ops->del(opened, current_io(), task->arena, &item, 1, &err);
    if (r < 0)
        return note_trouble(&request, "delete", r, err.text);
    if (item.status == SEL_STORE_MISSING)
        return note_missing(&request);
    if (item.status != SEL_STORE_OK)
        return note_trouble(&request, "delete", SEL_ESTORAGE, item.message);
    trace(&request, SEL_TRACE_STORAGE_DELETED, TRACE_PLAIN, NULL);
    return 0;
}
