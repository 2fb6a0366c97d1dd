/* What decisions need from outside: results from storages and caches, answers of user functions.
 * Each flow that needs something has one coroutine here until it has it. */
#include "worker/hub.h"

#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "worker/http.h"
#include "worker/mock.h"
#include "worker/module.h"
#include "worker/result_cache.h"

#define FUNCTION_LIMIT_US (INT64_C(60) * 1000 * 1000)
#define RETRY_US_MIN (INT64_C(1) * 1000 * 1000)
#define VIRTUAL_RETRIES_MAX 100 /* in virtual time waiting costs nothing: it has to end */

struct fetch {
    struct sel_flow_run *run;
    struct sel_hub *hub;
    struct sel_arena *arena; /* of the decider */
    struct sel_error err;
    struct sel_co *co;
    struct sel_timer limit;
    uint32_t retries;
    char name[128]; /* of the coroutine */
};

/* ---- waiting ---- */

void sel_hub_wake(struct sel_work *work)
{
    struct sel_hub_sleep *sleep = (struct sel_hub_sleep *)work;
    if (!sleep->is_waiting)
        return; /* a cancel came first */
    sleep->is_waiting = false;
    sleep->hub->fetching++;
    sel_io_wake(&sleep->waiter);
}

/* Whether the flow has no use for what is fetched any more. */
static bool is_unwanted(const struct fetch *f)
{
    return f->hub->canceled || f->run->canceled || f->run->ended;
}

/* Sleeps by the hub's clock. While it does, the hub may be idle and virtual time goes on. */
static int hub_sleep(struct fetch *f, int64_t us)
{
    struct sel_io *io = sel_loop_io(f->hub->loop);
    struct sel_hub_sleep *sleep = &f->run->sleep;
    uint32_t node = f->hub->system->task_count + f->run->flow->index;
    if (!f->hub->virtual_time)
        return sel_co_sleep(sel_engine_delay_us(f->hub->engine, us));
    *sleep = (struct sel_hub_sleep){
        .work = {.kind = SEL_WORK_WAKE}, .hub = f->hub, .waiter = {.io = io}, .is_waiting = true};
    if (sel_local_push(&f->hub->queues, &sleep->work, node, sel_hub_now_us(f->hub), us) < 0) {
        sleep->is_waiting = false;
        return SEL_ENOMEM;
    }
    f->hub->fetching--;
    io->ops->wait(io, &sleep->waiter);
    return is_unwanted(f) ? SEL_ECANCELED : 0;
}

/* Waiting for a storage that is away does not count. */
static int start_limit(struct fetch *f)
{
    struct sel_loop *loop = f->hub->loop;
    int64_t limit_us = f->hub->engine->options->function_limit_us;
    return sel_loop_timer_start(loop, &f->limit,
                                sel_loop_now_us(loop) + (limit_us ? limit_us : FUNCTION_LIMIT_US));
}

/* ---- results ---- */

static const struct sel_task_def *task_of(const struct fetch *f, uint32_t ordinal)
{
    uint32_t slot = sel_state_run_slot(&f->run->state, ordinal);
    return sel_system_task(f->hub->system, f->run->flow->nodes[slot].node);
}

static int decode_into(struct fetch *f, struct sel_str bytes, struct sel_need *need)
{
    return sel_value_decode(f->arena, bytes.p, bytes.n, true, &need->value, &f->err);
}

static void add_to_cache(struct fetch *f, const struct sel_need *need, struct sel_str id,
                         struct sel_str bytes)
{
    struct sel_result_cache *cache =
        sel_engine_result_cache(f->hub->engine, task_of(f, need->ordinal));
    struct sel_error err = {0};
    if (!cache)
        return;
    sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_ADD, need->ordinal, NULL);
    if (sel_result_cache_add(cache, f->arena, id, bytes, &err) < 0)
        sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_ISSUE, need->ordinal, err.text);
}

/* Whether the cache had it. If it has trouble, the storage is asked. */
static bool look_in_cache(struct fetch *f, struct sel_need *need, struct sel_str id)
{
    struct sel_result_cache *cache =
        sel_engine_result_cache(f->hub->engine, task_of(f, need->ordinal));
    struct sel_error err = {0};
    struct sel_str bytes;
    if (!cache)
        return false;
    sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_GET, need->ordinal, NULL);
    int r = sel_result_cache_get(cache, f->arena, id, &bytes, &err);
    if (r > 0 && sel_value_decode(f->arena, bytes.p, bytes.n, true, &need->value, &err) < 0)
        r = SEL_EFORMAT;
    if (r > 0) {
        sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_HIT, need->ordinal, NULL);
        add_to_cache(f, need, id, bytes);
    } else if (r == 0) {
        sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_MISS, need->ordinal,
                             "CacheMissError: not in the cache");
    } else {
        sel_hub_trace_result(f->run, SEL_TRACE_TASK_RESULT_CACHE_ISSUE, need->ordinal, err.text);
    }
    return r > 0;
}

/* The items of one batch, parallel to the needs that they are for. */
struct batch {
    uint32_t storage;
    struct sel_storage_item *items;
    struct sel_need **needs;
    uint32_t count;
};

static int no_storage(struct fetch *f, const struct sel_task_def *task)
{
    return sel_error_set(&f->err, SEL_EFAILED, task->pos,
                         "the result of task '%.*s' is asked for, but it has no storage to keep "
                         "it in",
                         SEL_STR_ARG(task->name));
}

/* Gathers the needs of results that lie in one storage; what a cache has is answered at once. */
static int gather(struct fetch *f, struct sel_need *needs, uint32_t count, bool *done,
                  struct batch *batch)
{
    batch->storage = SEL_NONE;
    batch->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (needs[i].kind != SEL_NEED_RESULT || done[i])
            continue;
        const struct sel_task_def *task = task_of(f, needs[i].ordinal);
        if (task->storage == SEL_NONE)
            return no_storage(f, task);
        if (batch->count > 0 && task->storage != batch->storage)
            continue;
        char text[SEL_RUN_ID_TEXT_SIZE];
        struct sel_str id = sel_state_run_id(&f->run->state, needs[i].ordinal, text);
        done[i] = true;
        if (look_in_cache(f, &needs[i], id))
            continue;
        char *copy = sel_arena_strdup(f->arena, id);
        if (!copy)
            return SEL_ENOMEM;
        batch->storage = task->storage;
        batch->items[batch->count] = (struct sel_storage_item){
            .flow = f->run->flow->name, .task = task->storage_task_name, .id = {copy, id.n}};
        batch->needs[batch->count++] = &needs[i];
        sel_hub_trace_result(f->run, SEL_TRACE_STORAGE_RETRIEVE, needs[i].ordinal, NULL);
    }
    return 0;
}

static int take_item(struct fetch *f, struct batch *batch, uint32_t i)
{
    struct sel_storage_item *item = &batch->items[i];
    struct sel_need *need = batch->needs[i];
    if (item->status == SEL_STORE_FAILED)
        return sel_error_set(&f->err, SEL_ESTORAGE, (struct sel_pos){0}, "%s",
                             item->message ? item->message : "the storage failed");
    if (item->status != SEL_STORE_OK)
        return sel_error_set(&f->err, SEL_EFAILED, (struct sel_pos){0},
                             "storage '%.*s' has no result of task '%.*s' under id %.*s",
                             SEL_STR_ARG(f->hub->system->storages[batch->storage].name),
                             SEL_STR_ARG(item->task), SEL_STR_ARG(item->id));
    sel_hub_trace_result(f->run, SEL_TRACE_STORAGE_RETRIEVED, need->ordinal, NULL);
    add_to_cache(f, need, item->id, item->value);
    return decode_into(f, item->value, need);
}

static int retrieve(struct fetch *f, struct batch *batch)
{
    struct sel_storage *storage;
    int r = sel_engine_storage(f->hub->engine, batch->storage, &storage, &f->err);
    if (r == 0)
        r = storage->ops->retrieve(storage, sel_loop_io(f->hub->loop), f->arena, batch->items,
                                   batch->count, &f->err);
    if (r < 0) {
        if (r != SEL_ENOMEM && r != SEL_ECANCELED)
            r = f->err.code = SEL_ESTORAGE;
        return r;
    }
    for (uint32_t i = 0; i < batch->count && r == 0; i++)
        r = take_item(f, batch, i);
    return r;
}

/* Trouble of a storage is no failure of the flow: it waits and asks again. */
static int retrieve_again(struct fetch *f, struct batch *batch)
{
    int r = retrieve(f, batch);
    while (r == SEL_ESTORAGE) {
        if (is_unwanted(f))
            return SEL_ECANCELED;
        if (f->hub->virtual_time && ++f->retries > VIRTUAL_RETRIES_MAX)
            return r;
        sel_hub_trace_result(f->run, SEL_TRACE_STORAGE_ISSUE, batch->needs[0]->ordinal,
                             f->err.text);
        sel_engine_log(f->hub->engine, SEL_LOG_WARNING, "flow '%.*s' waits for a storage: %s",
                       SEL_STR_ARG(f->run->flow->name), f->err.text);
        int64_t us = f->run->flow->retry_countdown_us;
        sel_loop_timer_stop(f->hub->loop, &f->limit);
        r = hub_sleep(f, us > RETRY_US_MIN ? us : RETRY_US_MIN);
        if (r == 0)
            r = start_limit(f);
        if (r == 0)
            r = retrieve(f, batch);
    }
    return r;
}

static int fetch_results(struct fetch *f, struct sel_need *needs, uint32_t count)
{
    struct batch batch = {0};
    batch.items = SEL_ARENA_NEW_ARRAY(f->arena, struct sel_storage_item, count);
    batch.needs = SEL_ARENA_NEW_ARRAY(f->arena, struct sel_need *, count);
    bool *done = SEL_ARENA_NEW_ARRAY(f->arena, bool, count);
    if (!batch.items || !batch.needs || !done)
        return SEL_ENOMEM;
    int r = 0;
    do { /* one round for each storage */
        r = gather(f, needs, count, done, &batch);
        if (r == 0 && batch.count > 0)
            r = retrieve_again(f, &batch);
    } while (r == 0 && batch.count > 0);
    return r;
}

/* ---- user functions ---- */

/* The context in which a function of the flow runs. */
struct call {
    struct sel_task_env env;
    char dispatcher_id[SEL_ID_TEXT_SIZE];
    struct sel_task *task;
};

static int begin_call(struct fetch *f, struct call *call, const struct sel_combination *combination)
{
    struct sel_parents *parents = NULL;
    int r = combination ? sel_hub_parents(f->run, combination, &parents) : 0;
    if (r < 0)
        return r;
    sel_id_format(f->run->state.id, call->dispatcher_id);
    call->env = (struct sel_task_env){.system = f->hub->system,
                                      .host = &f->hub->engine->host,
                                      .flow = f->run->flow,
                                      .task_id = "",
                                      .dispatcher_id = call->dispatcher_id,
                                      .args = sel_state_args(&f->run->state),
                                      .parents = parents};
    call->task = sel_task_new(f->arena, &call->env);
    return call->task ? 0 : SEL_ENOMEM;
}

static int call_failed(struct fetch *f, const struct sel_import *import,
                       const struct sel_exec_result *result)
{
    if (result->outcome == SEL_EXEC_CANCELED)
        return SEL_ECANCELED;
    if (result->outcome == SEL_EXEC_RETRY)
        return sel_error_set(&f->err, SEL_EFAILED, import->pos,
                             "function '%.*s' of '%.*s' asked for a retry, which only tasks can",
                             SEL_STR_ARG(import->name), SEL_STR_ARG(import->module));
    return sel_error_set(&f->err, SEL_EFAILED, import->pos,
                         "function '%.*s' of '%.*s' failed: %s: %s", SEL_STR_ARG(import->name),
                         SEL_STR_ARG(import->module), result->error_class, result->error_message);
}

/* Ends the call; with code >= 0 its result is in *ret. */
static int end_call(struct fetch *f, struct call *call, const struct sel_import *import, int code,
                    struct sel_value *ret)
{
    struct sel_exec_result result;
    sel_task_take_result(call->task, code, &result);
    int r = 0;
    if (result.outcome != SEL_EXEC_SUCCESS)
        r = call_failed(f, import, &result);
    else if (ret)
        *ret = *sel_task_result(call->task);
    sel_task_done(call->task);
    return r;
}

static int find_function(struct fetch *f, enum sel_module_kind kind,
                         const struct sel_import *import, const struct sel_module_entry **ret)
{
    return sel_modules_find(f->hub->engine->options->modules, kind, import->module, import->name,
                            ret, &f->err);
}

static int call_mock(struct fetch *f, const struct sel_import *import, struct sel_value *ret)
{
    struct sel_str bytes = sel_state_args(&f->run->state);
    struct sel_value args;
    int r = sel_value_decode(f->arena, bytes.p, bytes.n, true, &args, &f->err);
    return r < 0 ? r
                 : sel_mock_function(f->hub->engine->options->mock, import, &args, f->arena, ret,
                                     &f->err);
}

static int fetch_foreach(struct fetch *f, struct sel_need *need)
{
    const struct sel_import *import =
        &f->run->flow->edges[need->combination.edge].foreach->function;
    const struct sel_module_entry *entry;
    struct call call;
    if (f->hub->engine->options->mock)
        return call_mock(f, import, &need->value);
    int r = find_function(f, SEL_MODULE_FOREACH, import, &entry);
    if (r == 0)
        r = begin_call(f, &call, &need->combination);
    return r < 0 ? r : end_call(f, &call, import, entry->u.task(call.task), &need->value);
}

static const char *const *plan_tasks(struct fetch *f, uint32_t *ret_count)
{
    const struct sel_plan *plan = f->run->plan;
    const char **names = SEL_ARENA_NEW_ARRAY(f->arena, const char *, plan->task_count + 1);
    for (uint32_t i = 0; names && i < plan->task_count; i++)
        names[i] = plan->tasks[i].p; /* plans keep them terminated */
    *ret_count = plan->task_count;
    return names;
}

static int ask_selective(struct fetch *f, struct sel_need *need)
{
    uint32_t node = f->run->flow->nodes[need->slot].node;
    const struct sel_task_def *task = sel_system_task(f->hub->system, node);
    const struct sel_import *import = &task->selective_run_function;
    const struct sel_module_entry *entry;
    struct call call;
    if (sel_str_eq_c(import->module, "selinon.routines")) {
        need->value = sel_value_null; /* always_run */
        return 0;
    }
    if (f->hub->engine->options->mock)
        return call_mock(f, import, &need->value);
    int r = find_function(f, SEL_MODULE_SELECTIVE, import, &entry);
    if (r == 0)
        r = begin_call(f, &call, &need->combination);
    if (r < 0)
        return r;
    struct sel_selective_info info = {.flow_name = sel_arena_strdup(f->arena, f->run->flow->name),
                                      .node_name = sel_arena_strdup(f->arena, task->name),
                                      .task_names = plan_tasks(f, &info.task_count)};
    if (!info.flow_name || !info.node_name || !info.task_names) {
        sel_task_done(call.task);
        return SEL_ENOMEM;
    }
    return end_call(f, &call, import, entry->u.selective(call.task, &info), &need->value);
}

static int fetch_selective(struct fetch *f, struct sel_need *need)
{
    int r = ask_selective(f, need);
    if (r == 0 && f->run->states && sel_value_is(&need->value, SEL_TEXT))
        sel_hub_look_up_reused(f->run, f->arena, need->slot, sel_value_str(&need->value));
    return r;
}

static int fetch_http(struct fetch *f, struct sel_need *need)
{
    const struct sel_value *const *args = need->leaf->arg_values;
    int r = sel_http_head_status(args[0], args[1], args[2]);
    (void)f;
    if (r >= 0)
        need->value = sel_value_from_bool(r > 0);
    return r < 0 ? r : 0;
}

static int fetch_leaf(struct fetch *f, struct sel_need *need)
{
    struct sel_import import = {f->hub->system->predicates_module, need->leaf->name, {0}};
    const struct sel_module_entry *entry;
    struct call call;
    if (need->leaf->builtin)
        return fetch_http(f, need);
    if (f->hub->engine->options->mock)
        return call_mock(f, &import, &need->value);
    int r = find_function(f, SEL_MODULE_PREDICATE, &import, &entry);
    if (r == 0)
        r = begin_call(f, &call, NULL);
    if (r < 0)
        return r;
    const struct sel_value *input =
        need->leaf->input == SEL_INPUT_MESSAGE ? need->message : sel_task_args(call.task);
    int holds = entry->u.predicate(call.task, input, &need->leaf->args);
    need->value = sel_value_from_bool(holds > 0);
    return end_call(f, &call, &import, holds < 0 ? holds : 0, NULL);
}

static int answer(struct fetch *f, struct sel_need *need)
{
    switch (need->kind) {
    case SEL_NEED_RESULT:
        return 0; /* in batches, before */
    case SEL_NEED_FOREACH:
        return fetch_foreach(f, need);
    case SEL_NEED_SELECTIVE:
        return fetch_selective(f, need);
    case SEL_NEED_LEAF:
        return fetch_leaf(f, need);
    }
    return SEL_EFAILED;
}

/* ---- the coroutine ---- */

static void on_limit(struct sel_loop *loop, struct sel_timer *timer)
{
    struct fetch *f = (struct fetch *)((char *)timer - offsetof(struct fetch, limit));
    sel_loop_cancel(loop, f->co);
}

static int answer_all(struct fetch *f)
{
    uint32_t count;
    struct sel_need *needs = sel_decider_needs(f->run->decider, &count);
    int r = fetch_results(f, needs, count);
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = answer(f, &needs[i]);
    return r;
}

static const char *reason(struct fetch *f, int code)
{
    if (code == SEL_ECANCELED)
        return "the time limit for functions of a flow is reached";
    return f->err.text[0] ? f->err.text : sel_error_text(code);
}

static int begin_fetch(struct fetch *f, struct sel_flow_run *run, struct sel_arena *arena)
{
    struct sel_co *co = sel_co_current();
    *f = (struct fetch){
        .run = run, .hub = run->hub, .arena = arena, .co = co, .limit = SEL_TIMER_INIT};
    f->limit.fn = on_limit;
    (void)snprintf(f->name, sizeof(f->name), "a function of flow '%.*s'",
                   SEL_STR_ARG(run->flow->name));
    sel_co_set_name(co, f->name);
    run->fetcher = co;
    if (run->hub->ops->fetching)
        run->hub->ops->fetching(run, true);
    if (is_unwanted(f))
        return SEL_ECANCELED; /* before it came to run */
    return start_limit(f);
}

/* false: the flow is no longer to go on. */
static bool end_fetch(struct fetch *f)
{
    struct sel_flow_run *run = f->run;
    sel_loop_timer_stop(f->hub->loop, &f->limit);
    sel_co_set_name(f->co, NULL);
    if (run->hub->ops->fetching)
        run->hub->ops->fetching(run, false);
    f->hub->fetching--;
    run->fetching = false;
    run->fetcher = NULL;
    if (f->hub->canceled)
        sel_hub_cancel_flow(run);
    else if (run->canceled)
        sel_hub_make_ready(run); /* to be cancelled */
    return !is_unwanted(f);
}

static void fetch_main(void *arg)
{
    struct sel_flow_run *run = arg;
    struct fetch f;
    int r = begin_fetch(&f, run, sel_decider_arena(run->decider));
    if (r == 0)
        r = answer_all(&f);
    bool goes_on = end_fetch(&f);
    if (goes_on && r == 0)
        sel_hub_make_ready(run);
    else if (goes_on)
        sel_hub_fail_flow(run, reason(&f, r));
    sel_hub_flow_unref(run);
}

static void answer_at_once(struct sel_flow_run *run)
{
    struct sel_error err = {0};
    int r = run->hub->ops->answer(run, &err);
    if (r < 0)
        sel_hub_fail_flow(run, err.text[0] ? err.text : sel_error_text(r));
    else
        sel_hub_make_ready(run);
}

void sel_hub_fetch(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    if (hub->ops->answer) {
        answer_at_once(run);
        return;
    }
    run->fetching = true;
    hub->fetching++;
    (void)sel_hub_flow_ref(run);
    int r = sel_loop_spawn(hub->loop, fetch_main, run, NULL);
    if (r == 0)
        return;
    run->fetching = false;
    hub->fetching--;
    hub->ops->give_up(run, r, "what a decision needs cannot be fetched");
    sel_hub_flow_unref(run);
}

/* ---- states of nodes ---- */

static void states_main(void *arg)
{
    struct sel_flow_run *run = arg;
    struct sel_arena arena = {0};
    struct fetch f;
    int r = begin_fetch(&f, run, &arena);
    for (; r == 0 && !is_unwanted(&f) && run->noted_count < run->input_count; run->noted_count++) {
        /* a copy: the ring may move meanwhile */
        struct sel_flow_input input =
            run->inputs[((uint64_t)run->input_head + run->noted_count) % run->input_cap];
        sel_hub_note_state(run, &arena, &input);
        sel_arena_reset(&arena);
    }
    run->noted_count = run->input_count; /* a cache that cannot be asked is no reason to stop */
    if (end_fetch(&f))
        sel_hub_make_ready(run);
    sel_arena_done(&arena);
    sel_hub_flow_unref(run);
}

void sel_hub_note_states(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    run->fetching = true;
    hub->fetching++;
    (void)sel_hub_flow_ref(run);
    int r = sel_loop_spawn(hub->loop, states_main, run, NULL);
    if (r == 0)
        return;
    run->fetching = false;
    hub->fetching--;
    hub->ops->give_up(run, r, "the states of nodes cannot be noted");
    sel_hub_flow_unref(run);
}

/* ---- sampling ---- */

static uint32_t sampling_args(const struct sel_strategy *strategy, const struct sel_value *given,
                              double *args)
{
    for (uint32_t i = 0; i < strategy->arg_count; i++) {
        const struct sel_value *v = sel_value_get_c(given, strategy->args[i]);
        bool number = sel_value_is(v, SEL_INT) || sel_value_is(v, SEL_FLOAT);
        args[i] = number ? sel_value_num(v) : strategy->defaults[i];
    }
    return strategy->arg_count;
}

static double builtin_sampling(struct sel_flow_run *run, const struct sel_strategy *strategy)
{
    double args[SEL_STRATEGY_ARGS_MAX] = {0};
    struct sel_strategy_status status = {.has_previous_retry = run->has_previous_retry,
                                         .previous_retry_s = run->previous_retry_s,
                                         .active_count = run->state.active_count,
                                         .new_started_count = run->new_started,
                                         .new_fallback_count = run->new_fallback};
    (void)sampling_args(strategy, &run->flow->sampling_args, args);
    return strategy->eval(args, &status, &run->hub->prng);
}

/* Waits `seconds`, or ends the flow. */
static void set_alarm(struct sel_flow_run *run, double seconds)
{
    run->new_started = run->new_fallback = 0;
    if (seconds < 0) {
        sel_hub_end_flow(run);
        return;
    }
    run->has_previous_retry = true;
    run->previous_retry_s = seconds;
    run->asleep = true;
    sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_RETRY, NULL);
    int64_t us = seconds >= 9e12 ? INT64_MAX : (int64_t)(seconds * 1e6);
    /* an alarm that rings at once would spin: the queue gives others their turn in between */
    if (run->hub->ops->set_alarm(run, us > 0 ? us : 1) < 0)
        run->hub->ops->give_up(run, SEL_ENOMEM, "an alarm cannot be set");
}

static struct sel_value names_of(struct fetch *f, enum sel_run_status status)
{
    struct sel_value_builder list;
    struct sel_value value;
    sel_value_begin_list(&list, f->arena);
    const struct sel_state *state = &f->run->state;
    for (uint32_t i = 0; i < state->run_count; i++) {
        uint32_t node = f->run->flow->nodes[sel_state_run_slot(state, i)].node;
        if (sel_state_run_status(state, i) == status)
            sel_value_add(&list, sel_value_from_str(sel_system_node_name(f->hub->system, node)));
    }
    return sel_value_end(&list, &value) == 0 ? value : sel_value_null;
}

static struct sel_value repeated(struct fetch *f, uint32_t first, uint32_t count)
{
    struct sel_value_builder list;
    struct sel_value value;
    const struct sel_state *state = &f->run->state;
    sel_value_begin_list(&list, f->arena);
    for (uint32_t i = first; i < first + count && i < state->run_count; i++) {
        uint32_t node = f->run->flow->nodes[sel_state_run_slot(state, i)].node;
        sel_value_add(&list, sel_value_from_str(sel_system_node_name(f->hub->system, node)));
    }
    return sel_value_end(&list, &value) == 0 ? value : sel_value_null;
}

static int user_sampling(struct fetch *f, double *ret)
{
    struct sel_flow_run *run = f->run;
    const struct sel_import *import = &run->flow->sampling;
    const struct sel_module_entry *entry;
    struct sel_value state, active = names_of(f, SEL_RUN_ACTIVE);
    uint32_t started = run->new_started + run->new_fallback;
    uint32_t first =
        run->state.run_count - (started < run->state.run_count ? started : run->state.run_count);
    struct sel_value new_started = repeated(f, first, run->new_started);
    struct sel_value new_fallback = repeated(f, first + run->new_started, run->new_fallback);
    struct call call;
    int r = find_function(f, SEL_MODULE_SAMPLING, import, &entry);
    if (r == 0)
        r = sel_state_to_value(f->arena, f->hub->system, run->flow, &run->state, &state);
    if (r == 0)
        r = begin_call(f, &call, NULL);
    if (r < 0)
        return r;
    struct sel_sampling_status status = {.has_previous_retry = run->has_previous_retry,
                                         .previous_retry_s = run->previous_retry_s,
                                         .active_nodes = &active,
                                         .new_started_nodes = &new_started,
                                         .new_fallback_nodes = &new_fallback,
                                         .finished_nodes =
                                             sel_value_get_c(&state, "finished_nodes"),
                                         .failed_nodes = sel_value_get_c(&state, "failed_nodes")};
    int code = entry->u.sampling(call.task, &status, &run->flow->sampling_args, ret);
    r = end_call(f, &call, import, code, NULL);
    if (r == 0 && isnan(*ret))
        r = sel_error_set(&f->err, SEL_EFAILED, import->pos,
                          "sampling function '%.*s' returned what is not a number",
                          SEL_STR_ARG(import->name));
    return r;
}

static void sample_main(void *arg)
{
    struct sel_flow_run *run = arg;
    struct sel_arena arena = {0};
    double seconds = -1;
    struct fetch f;
    int r = begin_fetch(&f, run, &arena);
    if (r == 0)
        r = user_sampling(&f, &seconds);
    bool goes_on = end_fetch(&f);
    if (goes_on && r < 0)
        sel_hub_fail_flow(run, reason(&f, r));
    else if (goes_on)
        set_alarm(run, seconds);
    sel_arena_done(&arena);
    sel_hub_flow_unref(run);
}

void sel_hub_sample(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    const struct sel_strategy *strategy = NULL;
    if (sel_str_eq_c(run->flow->sampling.module, "selinon.strategies"))
        strategy = sel_strategy_find(run->flow->sampling.name);
    if (!strategy && (hub->engine->options->mock || !hub->loop))
        strategy = sel_strategy_find(SEL_STR("biexponential_increase"));
    if (strategy) {
        set_alarm(run, builtin_sampling(run, strategy));
        return;
    }
    run->fetching = true;
    hub->fetching++;
    (void)sel_hub_flow_ref(run);
    int r = sel_loop_spawn(hub->loop, sample_main, run, NULL);
    if (r < 0) {
        hub->fetching--;
        run->fetching = false;
        hub->ops->give_up(run, r, "a sampling strategy cannot be asked");
        sel_hub_flow_unref(run);
    }
}
