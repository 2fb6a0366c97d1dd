/* The flows of `selinon-cli execute`: queues in this process, jobs on its loops. */
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "worker/hub.h"

#define QUEUED_MAX 65536 /* works in queues beyond which flows hold back their starts */

/* ---- time and errors ---- */

int64_t sel_hub_now_us(const struct sel_hub *hub)
{
    return hub->virtual_time ? hub->virtual_us : sel_loop_now_us(hub->loop) - hub->begin_us;
}

static int64_t unix_ms(void *ctx)
{
    struct timespec now;
    (void)ctx;
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

void sel_hub_count_end(struct sel_hub *hub, bool failed)
{
    if (failed)
        hub->counters.failed++;
    else
        hub->counters.finished++;
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
    if (!sel_hub_grow_children(run))
        return SEL_ENOMEM;
    struct sel_hub_run_options options = {.flow = sel_system_flow(hub->system, start->node),
                                          .id = start->child_id,
                                          .args = start->args,
                                          .plan = start->plan,
                                          .is_edge_plan = start->is_edge_plan};
    struct sel_flow_run *child = sel_hub_new_run(hub, &options);
    if (!child)
        return SEL_ENOMEM;
    hub->counters.flows_active++;
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

static int on_start(struct sel_flow_run *run, const struct sel_start *start,
                    struct sel_parents *parents)
{
    return sel_system_is_flow(run->hub->system, start->node) ? start_flow(run, start, parents)
                                                             : start_task(run, start, parents);
}

/* ---- ends ---- */

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

static void on_attempt_ends(struct sel_flow_run *run, enum sel_decide_result result)
{
    sel_hub_observe_end(run, result, run == run->hub->top);
    report_end(run, result);
    sel_hub_note_end(run->hub, sel_hub_now_us(run->hub));
}

/* Nobody takes a local flow over: its events are not kept. */
static bool on_stepped(struct sel_flow_run *run, int result)
{
    (void)result;
    sel_buf_clear(sel_decider_record(run->decider));
    return false;
}

/* NULL: nobody will ask, or there is no memory, which ends it all. */
static struct sel_ended_flow *take_ended(struct sel_flow_run *run)
{
    if (!run->keep)
        return NULL;
    struct sel_ended_flow *ended = sel_hub_take_ended(run);
    if (!ended)
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
        hub->report->outcome = sel_hub_outcome(result);
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
    sel_hub_begin_anew(run);
    if (run == hub->top)
        hub->report->reason = NULL; /* of an attempt that no longer counts */
    hub->counters.retried++;
    uint32_t node = hub->system->task_count + run->flow->index;
    if (sel_local_push(&hub->queues, &run->work, node, sel_hub_now_us(hub),
                       run->flow->retry_countdown_us) < 0)
        sel_hub_fatal(hub, SEL_ENOMEM, "a flow cannot be put off");
}

static void on_over(struct sel_flow_run *run, enum sel_decide_result result)
{
    if (result == SEL_DECIDE_RETRY)
        retry_flow(run);
    else
        end_flow(run, result);
}

static void note_reason(struct sel_flow_run *run, const char *reason)
{
    struct sel_hub *hub = run->hub;
    if (run == hub->top && !hub->report->reason)
        hub->report->reason = sel_arena_strdup(&hub->engine->report_arena, sel_str_c(reason));
}

static void give_up(struct sel_flow_run *run, int code, const char *what)
{
    sel_hub_fatal(run->hub, code, what);
}

/* A flow in the middle of its starts waits until the queues are worked off. */
static bool has_room(const struct sel_flow_run *run)
{
    return !(run->deciding && run->hub->queues.ready > QUEUED_MAX);
}

static int set_alarm(struct sel_flow_run *run, int64_t us)
{
    struct sel_hub *hub = run->hub;
    uint32_t node = hub->system->task_count + run->flow->index;
    return sel_local_push(&hub->queues, &run->alarm, node, sel_hub_now_us(hub), us);
}

static const char *failure_text(struct sel_flow_run *run, uint32_t ordinal, struct sel_arena *arena)
{
    return sel_engine_failure_text(run->hub->engine, &run->state, ordinal, arena);
}

static const struct sel_hub_ops local_ops = {
    .start = on_start,
    .attempt_ends = on_attempt_ends,
    .stepped = on_stepped,
    .over = on_over,
    .note_reason = note_reason,
    .give_up = give_up,
    .has_room = has_room,
    .set_alarm = set_alarm,
    .failure_text = failure_text,
};

/* ---- what is due ---- */

static void start_flow_work(struct sel_work *work)
{
    if (work->kind == SEL_WORK_WAKE) {
        sel_hub_wake(work);
        return;
    }
    if (work->kind == SEL_WORK_ALARM) {
        sel_hub_wake_flow(
            (struct sel_flow_run *)((char *)work - offsetof(struct sel_flow_run, alarm)));
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

int sel_hub_init(struct sel_hub *hub, struct sel_engine *engine, struct sel_loop *loop,
                 struct sel_executor_report *report, struct sel_error *err)
{
    const struct sel_executor_options *options = engine->options;
    memset(hub, 0, sizeof(*hub));
    hub->ops = &local_ops;
    hub->run_size = sizeof(struct sel_flow_run);
    hub->unix_ms = unix_ms;
    hub->report = report;
    hub->virtual_time = options->virtual_time;
    hub->begin_us = sel_loop_now_us(loop);
    hub->shuffle_seed = options->shuffle_seed;
    hub->prng.state = options->shuffle_seed;
    /* one process makes these ids, in one go: the clock tells its incarnations apart */
    hub->ids.incarnation = (uint32_t)(unix_ms(NULL) / 1000) & 0x3fffff;
    int r = sel_local_queues_init(&hub->queues, engine->system, options->queues,
                                  options->queue_count, err);
    if (r < 0)
        return r;
    r = sel_hub_open(hub, engine, loop);
    hub->times = sel_mem_zalloc(sizeof(*hub->times) * ((size_t)engine->system->task_count + 1));
    if (r < 0 || !hub->times)
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
    for (uint32_t i = 0; hub->times && i < hub->system->task_count; i++)
        sel_mem_free(hub->times[i].run_us);
    sel_mem_free(hub->times);
    sel_mem_free(hub->held);
    sel_hub_close(hub);
    sel_local_queues_done(&hub->queues);
    memset(hub, 0, sizeof(*hub));
}

int sel_hub_submit(struct sel_hub *hub, const struct sel_flow_def *flow, struct sel_str args,
                   const struct sel_plan *plan)
{
    struct sel_hub_run_options options = {
        .flow = flow, .id = sel_id_next(&hub->ids, unix_ms(NULL)), .args = args, .plan = plan};
    struct sel_flow_run *run = sel_hub_new_run(hub, &options);
    if (!run)
        return SEL_ENOMEM;
    hub->counters.flows_active++;
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
    if (run == run->hub->top && !run->ended)
        sel_hub_cancel_now(run);
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
