#include "worker/hub.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"

#define DECIDE_BUDGET 512      /* conditions and starts a step: other flows get their turn */
#define QUEUED_MAX 65536       /* works in queues beyond which flows hold back their starts */
#define DECISIONS_PER_TURN 256 /* then the loop looks at its other work */

/* ---- time and errors ---- */

int64_t sel_hub_now_us(const struct sel_hub *hub)
{
    return hub->virtual_time ? hub->virtual_us : sel_loop_now_us(hub->loop) - hub->begin_us;
}

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void sel_hub_note_end(struct sel_hub *hub, int64_t at_us)
{
    if (at_us > hub->last_end_us)
        hub->last_end_us = at_us;
}

void sel_hub_fatal(struct sel_hub *hub, int code, const char *what)
{
    if (hub->fatal == 0) {
        hub->fatal = code;
        (void)sel_error_set(&hub->fatal_error, code, (struct sel_pos){0}, "%s: %s", what,
                            sel_error_text(code));
    }
}

/* ---- flow runs ---- */

struct sel_flow_run *sel_hub_flow_ref(struct sel_flow_run *run)
{
    run->refs++;
    return run;
}

static void drop_children(struct sel_flow_run *run)
{
    for (uint32_t i = 0; run->children && i < run->state.child_count; i++) {
        sel_ended_flow_unref(run->children[i]);
        run->children[i] = NULL;
    }
}

static void link_flow(struct sel_hub *hub, struct sel_flow_run *run)
{
    run->next = hub->all;
    if (hub->all)
        hub->all->prev = run;
    hub->all = run;
}

static void unlink_flow(struct sel_flow_run *run)
{
    if (run->prev)
        run->prev->next = run->next;
    else
        run->hub->all = run->next;
    if (run->next)
        run->next->prev = run->prev;
}

static void free_flow(struct sel_flow_run *run)
{
    unlink_flow(run);
    drop_children(run);
    sel_hub_forget_parents(run);
    sel_parents_unref(run->parents);
    sel_blob_unref(run->args);
    sel_decider_free(run->decider);
    sel_state_done(&run->state);
    sel_mem_free(run->children);
    sel_mem_free(run->lineage);
    sel_mem_free(run->inputs);
    sel_mem_free(run);
}

void sel_hub_flow_unref(struct sel_flow_run *run)
{
    while (run && --run->refs == 0) {
        struct sel_flow_run *parent = run->parent;
        free_flow(run);
        run = parent; /* a child holds a reference to its parent */
    }
}

static int on_start(void *ctx, const struct sel_start *start);
static void on_end(void *ctx, enum sel_decide_result result);

struct flow_options {
    const struct sel_flow_def *flow;
    struct sel_id id;
    struct sel_str args;
    const struct sel_plan *plan;
    bool is_edge_plan;
};

static struct sel_flow_run *new_flow(struct sel_hub *hub, const struct flow_options *options)
{
    struct sel_flow_run *run = SEL_NEW(struct sel_flow_run);
    if (!run)
        return NULL;
    run->work.kind = SEL_WORK_FLOW;
    run->alarm.kind = SEL_WORK_ALARM;
    run->alarm.heap_index = UINT32_MAX;
    run->hub = hub;
    link_flow(hub, run);
    run->refs = 1;
    run->flow = options->flow;
    run->plan = options->plan;
    run->is_edge_plan = options->is_edge_plan;
    run->combination = UINT64_MAX;
    run->countdown_s = -1;
    run->states = sel_engine_state_cache(hub->engine, run->flow);
    run->sampled = run->flow->has_sampling && !hub->engine->options->ignore_sampling;
    bool traced = sel_engine_is_traced(hub->engine);
    run->sink = (struct sel_decide_sink){
        .ctx = run, .start = on_start, .end = on_end, .trace = traced ? sel_hub_trace_note : NULL};
    struct sel_decider_options decider = {.system = hub->system,
                                          .flow = run->flow,
                                          .plan = run->plan,
                                          .world = &hub->world,
                                          .plans = hub->plans,
                                          .ids = &hub->ids,
                                          .sink = &run->sink};
    run->decider = sel_decider_new(&decider);
    if (!run->decider || sel_state_init(&run->state, options->id, run->flow->node_count,
                                        run->flow->edge_count, options->args) < 0) {
        free_flow(run);
        return NULL;
    }
    hub->counters.flows_active++;
    return run;
}

void sel_hub_make_ready(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    if (run->is_ready || run->ended || run->fetching)
        return;
    run->is_ready = true;
    run->next_ready = NULL;
    if (hub->last_ready)
        hub->last_ready->next_ready = run;
    else
        hub->first_ready = run;
    hub->last_ready = run;
    (void)sel_hub_flow_ref(run);
}

static bool push_input(struct sel_flow_run *run, uint32_t ordinal, bool failed)
{
    if (run->input_count == run->input_cap) {
        uint32_t old = run->input_cap;
        if (!sel_mem_grow(&run->inputs, &run->input_cap, (uint64_t)old + 1, sizeof(*run->inputs)))
            return false;
        /* unroll the ring: what was before the head goes behind the old end */
        uint32_t wrapped = run->input_head;
        SEL_ASSERT(run->input_cap - old >= wrapped);
        if (wrapped > 0)
            memcpy(run->inputs + old, run->inputs, wrapped * sizeof(*run->inputs));
    }
    uint32_t at = (uint32_t)(((uint64_t)run->input_head + run->input_count) % run->input_cap);
    run->inputs[at] = (struct sel_flow_input){ordinal, failed};
    run->input_count++;
    return true;
}

void sel_hub_count_end(struct sel_hub *hub, bool failed)
{
    if (failed)
        hub->counters.failed++;
    else
        hub->counters.finished++;
}

/* A node run ended. Flows that are sampled look at it when their alarm rings. */
void sel_hub_node_ended(struct sel_flow_run *run, uint32_t ordinal, bool failed)
{
    if (!push_input(run, ordinal, failed)) {
        sel_hub_fatal(run->hub, SEL_ENOMEM, "a completion cannot be kept");
        return;
    }
    if (!run->asleep)
        sel_hub_make_ready(run);
}

/* ---- starting nodes ---- */

/* The flow's arguments as a blob that its jobs share. */
static struct sel_blob *shared_args(struct sel_flow_run *run)
{
    bool changed = run->state.args.n > 0;
    if (!run->args || run->args_changed != changed) {
        sel_blob_unref(run->args);
        run->args = sel_blob_new(sel_state_args(&run->state));
        run->args_changed = changed;
    }
    return run->args;
}

static int push_work(struct sel_flow_run *run, struct sel_work *work, const struct sel_start *start)
{
    struct sel_hub *hub = run->hub;
    int64_t now_us = sel_hub_now_us(hub);
    int64_t delay_us = sel_local_throttle_us(&hub->queues, start->node, now_us);
    run->countdown_s = delay_us > 0 ? (double)delay_us / 1e6 : -1;
    hub->counters.started++;
    if (start->combination->edge == SEL_NONE)
        run->new_fallback++;
    else
        run->new_started++;
    return sel_local_push(&hub->queues, work, start->node, now_us, delay_us);
}

static int start_task(struct sel_flow_run *run, const struct sel_start *start,
                      struct sel_parents *parents)
{
    struct sel_hub *hub = run->hub;
    struct sel_blob *args = shared_args(run);
    struct sel_job *job = args ? SEL_NEW(struct sel_job) : NULL;
    if (!job)
        return SEL_ENOMEM;
    job->engine = hub->engine;
    job->flow = sel_hub_flow_ref(run);
    job->flow_def = run->flow;
    job->task = sel_system_task(hub->system, start->node);
    job->task_index = start->node;
    job->flow_id = run->state.id;
    job->ordinal = start->ordinal;
    job->attempt = run->state.attempt;
    job->nowait = start->nowait;
    job->parents = sel_parents_ref(parents);
    job->args = sel_blob_ref(args);
    int r = push_work(run, &job->work, start);
    if (r < 0)
        sel_hub_free_job(job);
    return r;
}

static bool same_bytes(struct sel_str a, struct sel_str b)
{
    return a.p == b.p && a.n == b.n;
}

static int start_flow(struct sel_flow_run *run, const struct sel_start *start,
                      struct sel_parents *parents)
{
    struct sel_hub *hub = run->hub;
    const struct sel_flow_node *node = &run->flow->nodes[start->slot];
    if (!sel_mem_grow(&run->children, &run->children_cap, run->state.child_count,
                      sizeof(struct sel_ended_flow *)))
        return SEL_ENOMEM;
    run->children[run->state.child_count - 1] = NULL;
    struct flow_options options = {.flow = sel_system_flow(hub->system, start->node),
                                   .id = start->child_id,
                                   .args = start->args,
                                   .plan = start->plan,
                                   .is_edge_plan = start->is_edge_plan};
    struct sel_flow_run *child = new_flow(hub, &options);
    if (!child)
        return SEL_ENOMEM;
    child->parent = sel_hub_flow_ref(run);
    child->parent_ordinal = start->ordinal;
    child->parent_attempt = run->state.attempt;
    child->detached = start->nowait;
    child->keep = run->keep || node->propagate_finished || node->propagate_compound_finished ||
                  node->propagate_failures || node->propagate_compound_failures;
    if (same_bytes(start->args, sel_state_args(&run->state)) && shared_args(run))
        child->args = sel_blob_ref(run->args);
    int r = sel_parents_part(parents, start->has_parents, node->propagate_parent_failures,
                             &child->parents);
    return r < 0 ? r : push_work(run, &child->work, start);
}

static int on_start(void *ctx, const struct sel_start *start)
{
    struct sel_flow_run *run = ctx;
    struct sel_parents *parents;
    int r = sel_hub_parents(run, start->combination, &parents);
    if (r == 0)
        r = sel_hub_note_lineage(run, start->ordinal, parents);
    if (r == 0)
        r = sel_system_is_flow(run->hub->system, start->node) ? start_flow(run, start, parents)
                                                              : start_task(run, start, parents);
    if (r < 0)
        sel_hub_fatal(run->hub, r, "a node cannot be started");
    return r;
}

/* ---- ends ---- */

static const enum sel_flow_outcome outcomes[] = {
    [SEL_DECIDE_END] = SEL_FLOW_SUCCESS,
    [SEL_DECIDE_FAIL] = SEL_FLOW_FAILURE,
    [SEL_DECIDE_RETRY] = SEL_FLOW_RETRY,
    [SEL_DECIDE_CANCELED] = SEL_FLOW_CANCELED,
};

static void observe_end(struct sel_flow_run *run, enum sel_decide_result result)
{
    struct sel_hub *hub = run->hub;
    const struct sel_executor_observer *observer = hub->engine->options->observer;
    struct sel_value state;
    if (!observer || !observer->flow_end)
        return;
    if (sel_state_to_value(&hub->trace_arena, hub->system, run->flow, &run->state, &state) == 0) {
        struct sel_flow_end end = {.flow = run->flow,
                                   .id = run->state.id,
                                   .start_args = sel_buf_str(&run->state.start_args),
                                   .outcome = outcomes[result],
                                   .finished_nodes = sel_value_get_c(&state, "finished_nodes"),
                                   .failed_nodes = sel_value_get_c(&state, "failed_nodes"),
                                   .is_top = run == hub->top};
        observer->flow_end(observer->ctx, &end);
    }
    sel_arena_reset(&hub->trace_arena);
}

static void report_end(struct sel_flow_run *run, enum sel_decide_result result)
{
    struct sel_hub *hub = run->hub;
    if (run != hub->top || result == SEL_DECIDE_RETRY)
        return;
    int r = sel_state_to_value(&hub->engine->report_arena, hub->system, run->flow, &run->state,
                               &hub->report->state);
    struct sel_value copy;
    if (r == 0) /* ids and names outlive the run */
        r = sel_value_copy(&hub->engine->report_arena, &hub->report->state, &copy);
    hub->report->state = r == 0 ? copy : sel_value_null;
}

static void on_end(void *ctx, enum sel_decide_result result)
{
    struct sel_flow_run *run = ctx;
    observe_end(run, result);
    report_end(run, result);
    if (result == SEL_DECIDE_RETRY)
        drop_children(run); /* the state forgets them next */
    sel_hub_note_end(run->hub, sel_hub_now_us(run->hub));
}

/* The flow's final state goes to those who may ask for it, the rest is freed with the run. */
static struct sel_ended_flow *take_ended(struct sel_flow_run *run)
{
    if (!run->keep)
        return NULL;
    struct sel_ended_flow *ended = sel_ended_flow_new(run->flow, &run->state, run->children);
    if (ended)
        run->children = NULL;
    else
        sel_hub_fatal(run->hub, SEL_ENOMEM, "the end of a flow cannot be kept");
    return ended;
}

static void end_flow(struct sel_flow_run *run, enum sel_decide_result result)
{
    struct sel_hub *hub = run->hub;
    struct sel_flow_run *parent = run->parent;
    run->ended = true;
    hub->counters.flows_active--;
    sel_local_remove(&hub->queues, &run->alarm);
    if (run == hub->top) {
        hub->report->outcome = outcomes[result];
        hub->report->flow_id = run->state.id;
    }
    bool counts =
        parent && !run->detached && !parent->ended && parent->state.attempt == run->parent_attempt;
    if (counts) {
        const struct sel_state_child *child = sel_state_child(&parent->state, run->parent_ordinal);
        SEL_ASSERT(child);
        parent->children[child - parent->state.children] = take_ended(run);
        sel_hub_node_ended(parent, run->parent_ordinal, result != SEL_DECIDE_END);
    }
    if (parent)
        sel_hub_count_end(hub, result != SEL_DECIDE_END);
    if (run != hub->top) /* the hub keeps its own reference to that */
        sel_hub_flow_unref(run);
}

static void retry_flow(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    sel_hub_forget_parents(run);
    run->input_count = run->input_head = run->noted_count = 0;
    run->has_previous_retry = false;
    run->new_started = run->new_fallback = 0;
    if (run == hub->top)
        hub->report->reason = NULL; /* of an attempt that no longer counts */
    hub->counters.retried++;
    uint32_t node = hub->system->task_count + run->flow->index;
    if (sel_local_push(&hub->queues, &run->work, node, sel_hub_now_us(hub),
                       run->flow->retry_countdown_us) < 0)
        sel_hub_fatal(hub, SEL_ENOMEM, "a flow cannot be put off");
}

/* ---- deciding ---- */

static void conclude(struct sel_flow_run *run, int result)
{
    run->deciding = false;
    switch (result) {
    case SEL_DECIDE_END:
    case SEL_DECIDE_FAIL:
    case SEL_DECIDE_CANCELED:
        end_flow(run, (enum sel_decide_result)result);
        break;
    case SEL_DECIDE_RETRY:
        retry_flow(run);
        break;
    default:
        break;
    }
}

void sel_hub_fail_flow(struct sel_flow_run *run, const char *reason)
{
    struct sel_hub *hub = run->hub;
    sel_engine_log(hub->engine, SEL_LOG_ERROR, "flow '%.*s' cannot go on: %s",
                   SEL_STR_ARG(run->flow->name), reason);
    sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_FAILURE, reason);
    if (run == hub->top && !hub->report->reason)
        hub->report->reason = sel_arena_strdup(&hub->engine->report_arena, sel_str_c(reason));
    int r = sel_decide_abort(run->decider, &run->state);
    sel_buf_clear(sel_decider_record(run->decider));
    if (r < 0)
        sel_hub_fatal(hub, r, "a flow cannot be failed");
    else
        conclude(run, r);
}

void sel_hub_end_flow(struct sel_flow_run *run)
{
    struct sel_input input = {.type = SEL_INPUT_FINISH};
    struct sel_error err = {0};
    int r = sel_decide(run->decider, &run->state, &input, unix_ms(), 1, &err);
    sel_buf_clear(sel_decider_record(run->decider));
    if (r < 0)
        sel_hub_fail_flow(run, "its sampling strategy ended it in the middle of a decision");
    else
        conclude(run, r);
}

static bool next_input(struct sel_flow_run *run, struct sel_input *ret)
{
    if (run->to_start) {
        run->to_start = false;
        *ret = (struct sel_input){.type = SEL_INPUT_START};
        return true;
    }
    if (run->input_count == 0)
        return false;
    struct sel_flow_input *input = &run->inputs[run->input_head];
    run->input_head = (run->input_head + 1) % run->input_cap;
    run->input_count--;
    if (run->noted_count > 0)
        run->noted_count--;
    *ret = (struct sel_input){.type = input->failed ? SEL_INPUT_FAILED : SEL_INPUT_DONE,
                              .ordinal = input->ordinal};
    return true;
}

/* The decision is over and the flow waits: for its next completion, or for its alarm. */
static void rest(struct sel_flow_run *run)
{
    run->deciding = false;
    if (run->input_count > 0)
        sel_hub_make_ready(run);
    else if (run->sampled)
        sel_hub_sample(run);
    else
        sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_RETRY, NULL);
}

static void handle(struct sel_flow_run *run, int result, const struct sel_error *err)
{
    switch (result) {
    case SEL_DECIDE_MORE:
        run->deciding = true;
        sel_hub_make_ready(run);
        break;
    case SEL_DECIDE_NEED:
        run->deciding = true;
        sel_hub_fetch(run);
        break;
    case SEL_DECIDE_WAIT:
        rest(run);
        break;
    case SEL_ENOMEM:
        sel_hub_fatal(run->hub, SEL_ENOMEM, "a decision cannot be made");
        break;
    default:
        if (result < 0)
            sel_hub_fail_flow(run, err->text[0] ? err->text : sel_error_text(result));
        else
            conclude(run, result);
    }
}

static void decide(struct sel_flow_run *run)
{
    struct sel_input input;
    struct sel_error err = {0};
    bool has_input = !run->deciding;
    if (has_input && run->states && run->noted_count < run->input_count) {
        sel_hub_note_states(run);
        return;
    }
    if (has_input && !next_input(run, &input))
        return;
    if (has_input)
        sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_WAKEUP, NULL);
    int r = sel_decide(run->decider, &run->state, has_input ? &input : NULL, unix_ms(),
                       DECIDE_BUDGET, &err);
    sel_buf_clear(sel_decider_record(run->decider));
    if (run->hub->fatal == 0)
        handle(run, r, &err);
}

/* A flow in the middle of its starts waits until the queues are worked off. */
bool sel_hub_can_go_on(const struct sel_hub *hub)
{
    const struct sel_flow_run *run = hub->first_ready;
    return run && hub->fatal == 0 && !(run->deciding && hub->queues.ready > QUEUED_MAX);
}

void sel_hub_turn(struct sel_hub *hub)
{
    for (int i = 0; i < DECISIONS_PER_TURN && sel_hub_can_go_on(hub); i++) {
        struct sel_flow_run *run = hub->first_ready;
        hub->first_ready = run->next_ready;
        if (!hub->first_ready)
            hub->last_ready = NULL;
        run->is_ready = false;
        if (!run->ended && !run->fetching)
            decide(run);
        sel_hub_flow_unref(run);
    }
}

/* ---- what is due ---- */

static void wake_flow(struct sel_flow_run *run)
{
    run->asleep = false;
    if (run->input_count > 0)
        sel_hub_make_ready(run);
    else
        rest(run); /* nothing has ended: the strategy says when to look again */
}

static void start_flow_work(struct sel_work *work)
{
    if (work->kind == SEL_WORK_WAKE) {
        sel_hub_wake(work);
        return;
    }
    if (work->kind == SEL_WORK_ALARM) {
        wake_flow((struct sel_flow_run *)((char *)work - offsetof(struct sel_flow_run, alarm)));
        return;
    }
    struct sel_flow_run *run = (struct sel_flow_run *)work;
    run->to_start = true;
    sel_hub_make_ready(run);
}

struct sel_job *sel_hub_pop(struct sel_hub *hub)
{
    for (;;) { /* each round takes one work out of its queue */
        struct sel_work *work = sel_local_pop(&hub->queues);
        if (!work)
            return NULL;
        if (work->kind == SEL_WORK_JOB)
            return (struct sel_job *)work;
        start_flow_work(work);
    }
}

/* ---- life ---- */

static const char *world_getenv(void *ctx, const char *name)
{
    const struct sel_executor_options *options = ctx;
    return options->getenv ? options->getenv(options->getenv_ctx, name) : getenv(name);
}

int sel_hub_init(struct sel_hub *hub, struct sel_engine *engine, struct sel_loop *loop,
                 struct sel_executor_report *report, struct sel_error *err)
{
    const struct sel_executor_options *options = engine->options;
    memset(hub, 0, sizeof(*hub));
    hub->engine = engine;
    hub->system = engine->system;
    hub->loop = loop;
    hub->report = report;
    hub->virtual_time = options->virtual_time;
    hub->begin_us = sel_loop_now_us(loop);
    hub->shuffle_seed = options->shuffle_seed;
    hub->prng.state = options->shuffle_seed;
    hub->world = (struct sel_predicate_world){.getenv = world_getenv, .ctx = (void *)options};
    /* one process makes these ids, in one go: the clock tells its incarnations apart */
    hub->ids.incarnation = (uint32_t)(unix_ms() / 1000) & 0x3fffff;
    int r = sel_local_queues_init(&hub->queues, hub->system, options->queues, options->queue_count,
                                  err);
    if (r < 0)
        return r;
    hub->plans = sel_plan_cache_new(hub->system);
    hub->times = sel_mem_zalloc(sizeof(*hub->times) * ((size_t)hub->system->task_count + 1));
    if (!hub->plans || !hub->times)
        r = sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    if (r < 0)
        sel_hub_done(hub);
    return r;
}

static void discard_work(struct sel_work *work)
{
    if (work->kind == SEL_WORK_JOB)
        sel_hub_free_job((struct sel_job *)work);
}

void sel_hub_done(struct sel_hub *hub)
{
    struct sel_work *work;
    while ((work = sel_local_take_any(&hub->queues)))
        discard_work(work);
    for (uint32_t i = 0; i < hub->held_count; i++)
        sel_hub_free_job(hub->held[i]);
    while (hub->all) /* what was cancelled or stuck: references among them no longer matter */
        free_flow(hub->all);
    for (uint32_t i = 0; hub->times && i < hub->system->task_count; i++)
        sel_mem_free(hub->times[i].run_us);
    sel_mem_free(hub->times);
    sel_mem_free(hub->held);
    sel_plan_cache_free(hub->plans);
    sel_arena_done(&hub->trace_arena);
    sel_local_queues_done(&hub->queues);
    memset(hub, 0, sizeof(*hub));
}

int sel_hub_submit(struct sel_hub *hub, const struct sel_flow_def *flow, struct sel_str args,
                   const struct sel_plan *plan)
{
    struct flow_options options = {
        .flow = flow, .id = sel_id_next(&hub->ids, unix_ms()), .args = args, .plan = plan};
    struct sel_flow_run *run = new_flow(hub, &options);
    if (!run)
        return SEL_ENOMEM;
    hub->top = run;
    uint32_t node = hub->system->task_count + flow->index;
    int64_t now_us = sel_hub_now_us(hub);
    int64_t delay_us = sel_local_throttle_us(&hub->queues, node, now_us);
    sel_hub_trace_schedule(run);
    return sel_local_push(&hub->queues, &run->work, node, now_us, delay_us);
}

bool sel_hub_is_idle(const struct sel_hub *hub)
{
    if (hub->counters.in_flight > 0 || hub->fetching > 0)
        return false;
    if (hub->canceled || hub->fatal)
        return true;
    return !hub->first_ready && hub->held_count == 0 && hub->queues.ready == 0 &&
           hub->queues.heap_count == 0;
}

/* Coroutines that get something for a decision have nobody to get it for any more. */
static void cancel_fetchers(struct sel_hub *hub)
{
    for (struct sel_flow_run *run = hub->all; run; run = run->next) {
        if (!run->fetcher)
            continue;
        sel_loop_cancel(hub->loop, run->fetcher);
        if (run->sleep.is_waiting) {
            sel_local_remove(&hub->queues, &run->sleep.work);
            sel_hub_wake(&run->sleep.work);
        }
    }
}

/* Only the end of the top flow is anybody's business now. */
void sel_hub_cancel_flow(struct sel_flow_run *run)
{
    if (run != run->hub->top || run->ended)
        return;
    struct sel_input input = {.type = SEL_INPUT_CANCEL};
    struct sel_error err = {0};
    int r = sel_decide(run->decider, &run->state, &input, unix_ms(), 1, &err);
    sel_buf_clear(sel_decider_record(run->decider));
    if (r == SEL_DECIDE_CANCELED)
        conclude(run, r);
}

void sel_hub_cancel(struct sel_hub *hub)
{
    struct sel_flow_run *run = hub->top;
    if (hub->canceled)
        return;
    hub->canceled = true;
    cancel_fetchers(hub);
    if (run && !run->fetching)
        sel_hub_cancel_flow(run);
}
