#include "worker/hub.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

#define DECIDE_BUDGET 512      /* conditions and starts a step: other flows get their turn */
#define DECISIONS_PER_TURN 256 /* then the loop looks at its other work */
#define SPARES_MAX 256         /* flow runs that are over, kept for the next ones, */
#define SPARE_BYTES_MAX 4096u  /* none larger than that */

/* ---- flow runs ---- */

struct sel_flow_run *sel_hub_flow_ref(struct sel_flow_run *run)
{
    run->refs++;
    return run;
}

void sel_hub_drop_children(struct sel_flow_run *run)
{
    for (uint32_t i = 0; i < run->child_count; i++)
        sel_ended_flow_unref(run->children[i]);
    run->child_count = 0;
}

bool sel_hub_grow_children(struct sel_flow_run *run)
{
    uint32_t count = run->state.child_count;
    if (!sel_mem_grow(&run->children, &run->children_cap, count, sizeof(*run->children)))
        return false;
    for (; run->child_count < count; run->child_count++)
        run->children[run->child_count] = NULL;
    return true;
}

struct sel_ended_flow *sel_hub_take_ended(struct sel_flow_run *run)
{
    if (!sel_hub_grow_children(run))
        return NULL;
    struct sel_ended_flow *ended = sel_ended_flow_new(run->flow, &run->state, run->children);
    if (!ended)
        return NULL;
    run->children = NULL;
    run->child_count = run->children_cap = 0;
    ended->failures = run->failures;
    run->failures = (struct sel_run_failures){0};
    return ended;
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

static void free_run(struct sel_flow_run *run)
{
    sel_decider_free(run->decider);
    sel_state_done(&run->state);
    sel_mem_free(run->children);
    sel_mem_free(run->lineage);
    sel_mem_free(run->inputs);
    sel_pool_free(&run->hub->runs, run, run->hub->run_size);
}

/* Its state may have been given away, or be that of another configuration. */
static bool may_be_spare(const struct sel_flow_run *run)
{
    const struct sel_hub *hub = run->hub;
    const struct sel_state *state = &run->state;
    return hub->spares && hub->spare_count < SPARES_MAX && run->decider && state->slots &&
           state->slot_count == run->flow->node_count &&
           state->edge_count == run->flow->edge_count &&
           sel_state_bytes(state) + sel_decider_bytes(run->decider) +
                   run->input_cap * sizeof(*run->inputs) +
                   run->lineage_cap * sizeof(*run->lineage) +
                   run->children_cap * sizeof(struct sel_ended_flow *) <=
               SPARE_BYTES_MAX;
}

static void free_flow(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    unlink_flow(run);
    if (hub->ops->free)
        hub->ops->free(run);
    sel_hub_drop_children(run);
    sel_hub_forget_parents(run);
    sel_run_failures_done(&run->failures);
    sel_parents_unref(run->parents);
    sel_blob_unref(run->args);
    if (!may_be_spare(run)) {
        free_run(run);
        return;
    }
    run->next_ready = hub->spares[run->flow->index];
    hub->spares[run->flow->index] = run;
    hub->spare_count++;
}

void sel_hub_flow_unref(struct sel_flow_run *run)
{
    while (run && --run->refs == 0) {
        struct sel_flow_run *parent = run->parent;
        free_flow(run);
        run = parent; /* a child holds a reference to its parent */
    }
}

static int on_start(void *ctx, const struct sel_start *start)
{
    struct sel_flow_run *run = ctx;
    struct sel_parents *parents;
    int r = sel_hub_parents(run, start->combination, &parents);
    if (r == 0)
        r = sel_hub_note_lineage(run, start->ordinal, start->combination);
    return r < 0 ? r : run->hub->ops->start(run, start, parents);
}

static void on_end(void *ctx, enum sel_decide_result result)
{
    struct sel_flow_run *run = ctx;
    run->hub->ops->attempt_ends(run, result);
    if (result == SEL_DECIDE_RETRY)
        sel_hub_drop_children(run); /* the state forgets them next */
}

static int new_decider(struct sel_flow_run *run)
{
    struct sel_hub *hub = run->hub;
    struct sel_decider_options options = {.system = hub->system,
                                          .flow = run->flow,
                                          .plan = run->plan,
                                          .world = &hub->world,
                                          .plans = hub->plans,
                                          .ids = &hub->ids,
                                          .sink = &run->sink,
                                          .run_count_max = hub->flow_nodes_max,
                                          .run_count_key = "--flow-nodes-max"};
    run->decider = sel_decider_new(&options);
    return run->decider ? 0 : SEL_ENOMEM;
}

/* With the memory of one that is over, or with none of its own. */
static struct sel_flow_run *take_run(struct sel_hub *hub, const struct sel_flow_def *flow)
{
    struct sel_flow_run *run = hub->spares ? hub->spares[flow->index] : NULL;
    struct sel_flow_run kept = {0};
    if (run) {
        hub->spares[flow->index] = run->next_ready;
        hub->spare_count--;
        kept = *run;
    } else {
        run = sel_pool_alloc(&hub->runs, hub->run_size);
        if (!run)
            return NULL;
    }
    memset(run, 0, hub->run_size);
    run->hub = hub;
    run->decider = kept.decider;
    run->state = kept.state;
    run->children = kept.children;
    run->children_cap = kept.children_cap;
    run->inputs = kept.inputs;
    run->input_cap = kept.input_cap;
    run->lineage = kept.lineage;
    run->lineage_cap = kept.lineage_cap;
    return run;
}

static int fill_run(struct sel_flow_run *run, const struct sel_hub_run_options *options)
{
    bool traced = sel_engine_is_traced(run->hub->engine);
    run->sink = (struct sel_decide_sink){
        .ctx = run, .start = on_start, .end = on_end, .trace = traced ? sel_hub_trace_note : NULL};
    if (run->decider) {
        sel_decider_reset(run->decider, run->plan);
        return sel_state_reset(&run->state, options->id, options->attempt, options->args);
    }
    int r = new_decider(run);
    return r < 0 ? r
                 : sel_state_init_attempt(&run->state, options->id, options->attempt,
                                          run->flow->node_count, run->flow->edge_count,
                                          options->args);
}

struct sel_flow_run *sel_hub_new_run(struct sel_hub *hub, const struct sel_hub_run_options *options)
{
    SEL_ASSERT(hub->run_size >= sizeof(struct sel_flow_run));
    struct sel_flow_run *run = take_run(hub, options->flow);
    if (!run)
        return NULL;
    run->work.kind = SEL_WORK_FLOW;
    run->alarm.kind = SEL_WORK_ALARM;
    run->alarm.heap_index = UINT32_MAX;
    run->refs = 1;
    run->flow = options->flow;
    run->plan = options->plan;
    run->is_edge_plan = options->is_edge_plan;
    run->budget = DECIDE_BUDGET;
    run->combination = run->failed_combination = UINT64_MAX;
    run->countdown_s = -1;
    if (fill_run(run, options) < 0) {
        free_run(run);
        return NULL;
    }
    link_flow(hub, run);
    if (hub->loop)
        run->states = sel_engine_state_cache(hub->engine, run->flow);
    run->sampled = run->flow->has_sampling && !hub->engine->options->ignore_sampling;
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

/* ---- inputs ---- */

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

void sel_hub_node_ended(struct sel_flow_run *run, uint32_t ordinal, bool failed)
{
    if (!push_input(run, ordinal, failed)) {
        run->hub->ops->give_up(run, SEL_ENOMEM, "a completion cannot be kept");
        return;
    }
    if (!run->asleep)
        sel_hub_make_ready(run);
}

void sel_hub_begin_anew(struct sel_flow_run *run)
{
    sel_hub_forget_parents(run);
    run->input_count = run->input_head = run->noted_count = 0;
    run->has_previous_retry = false;
    run->new_started = run->new_fallback = 0;
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
    if (run->hub->ops->consume)
        run->hub->ops->consume(run, input->ordinal);
    return true;
}

/* ---- deciding ---- */

static int64_t unix_ms(const struct sel_hub *hub)
{
    return hub->unix_ms(hub->clock_ctx);
}

static void conclude(struct sel_flow_run *run, int result)
{
    run->deciding = false;
    switch (result) {
    case SEL_DECIDE_END:
    case SEL_DECIDE_FAIL:
    case SEL_DECIDE_CANCELED:
    case SEL_DECIDE_RETRY:
        run->hub->ops->over(run, (enum sel_decide_result)result);
        break;
    default:
        break;
    }
}

/* The attempt is at its end by what was just decided. */
static void end_now(struct sel_flow_run *run, int result)
{
    (void)run->hub->ops->stepped(run, result);
    if (run->hub->fatal == 0 && !run->ended)
        conclude(run, result);
}

void sel_hub_fail_flow(struct sel_flow_run *run, const char *reason)
{
    struct sel_hub *hub = run->hub;
    sel_engine_log(hub->engine, SEL_LOG_ERROR, "flow '%.*s' cannot go on: %s",
                   SEL_STR_ARG(run->flow->name), reason);
    sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_FAILURE, reason);
    hub->ops->note_reason(run, reason);
    int r = sel_decide_abort(run->decider, &run->state);
    if (r < 0)
        hub->ops->give_up(run, r, "a flow cannot be failed");
    else
        end_now(run, r);
}

void sel_hub_end_flow(struct sel_flow_run *run)
{
    struct sel_input input = {.type = SEL_INPUT_FINISH};
    struct sel_error err = {0};
    int r = sel_decide(run->decider, &run->state, &input, unix_ms(run->hub), 1, &err);
    if (r < 0)
        sel_hub_fail_flow(run, "its sampling strategy ended it in the middle of a decision");
    else
        end_now(run, r);
}

void sel_hub_cancel_now(struct sel_flow_run *run)
{
    struct sel_input input = {.type = SEL_INPUT_CANCEL};
    struct sel_error err = {0};
    if (run->ended)
        return;
    int r = sel_decide(run->decider, &run->state, &input, unix_ms(run->hub), 1, &err);
    if (r == SEL_DECIDE_CANCELED)
        end_now(run, r);
    else
        run->hub->ops->give_up(run, r, "a flow cannot be cancelled");
}

void sel_hub_cancel_run(struct sel_flow_run *run)
{
    run->canceled = true;
    if (run->fetcher)
        sel_loop_cancel(run->hub->loop, run->fetcher);
    else
        sel_hub_make_ready(run);
}

void sel_hub_drop_run(struct sel_flow_run *run)
{
    run->ended = true;
    if (run->fetcher)
        sel_loop_cancel(run->hub->loop, run->fetcher);
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
        run->hub->ops->give_up(run, SEL_ENOMEM, "a decision cannot be made");
        break;
    default:
        if (result < 0)
            sel_hub_fail_flow(run, err->text[0] ? err->text : sel_error_text(result));
        else
            conclude(run, result);
    }
}

/* One step. true: the next is to come before other flows. */
static bool decide(struct sel_flow_run *run)
{
    struct sel_input input;
    struct sel_error err = {0};
    bool has_input = !run->deciding, goes_on = false;
    if (has_input && run->states && run->noted_count < run->input_count) {
        sel_hub_note_states(run);
        return false;
    }
    if (has_input && !next_input(run, &input))
        return false;
    if (has_input)
        sel_hub_trace_dispatcher(run, SEL_TRACE_DISPATCHER_WAKEUP, NULL);
    int r = sel_decide(run->decider, &run->state, has_input ? &input : NULL, unix_ms(run->hub),
                       run->budget, &err);
    if (r >= 0)
        goes_on = run->hub->ops->stepped(run, r);
    if (goes_on)
        run->deciding = false;
    else if (run->hub->fatal == 0 && !run->ended)
        handle(run, r, &err);
    return goes_on;
}

static void go_on(struct sel_flow_run *run)
{
    const struct sel_hub_ops *ops = run->hub->ops;
    if (ops->deciding)
        ops->deciding(run, true);
    if (run->canceled)
        sel_hub_cancel_now(run);
    else
        while (decide(run)) /* as long as inputs are there */
            SEL_ASSERT(run->input_count > 0);
    if (ops->deciding)
        ops->deciding(run, false);
}

bool sel_hub_can_go_on(const struct sel_hub *hub)
{
    const struct sel_flow_run *run = hub->first_ready;
    return run && hub->fatal == 0 && hub->ops->has_room(run);
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
            go_on(run);
        sel_hub_flow_unref(run);
    }
}

void sel_hub_wake_flow(struct sel_flow_run *run)
{
    run->asleep = false;
    if (run->ended)
        return; /* what says so has not left yet */
    if (run->input_count > 0)
        sel_hub_make_ready(run);
    else
        rest(run); /* nothing has ended: the strategy says when to look again */
}

/* ---- life ---- */

static const char *world_getenv(void *ctx, const char *name)
{
    const struct sel_executor_options *options = ctx;
    return options->getenv ? options->getenv(options->getenv_ctx, name) : getenv(name);
}

int sel_hub_open(struct sel_hub *hub, struct sel_engine *engine, struct sel_loop *loop)
{
    hub->engine = engine;
    hub->system = engine->system;
    hub->loop = loop;
    hub->world =
        (struct sel_predicate_world){.getenv = world_getenv, .ctx = (void *)engine->options};
    hub->plans = sel_plan_cache_new(hub->system);
    hub->spares = sel_mem_zalloc(((size_t)hub->system->flow_count + 1) * sizeof(hub->spares[0]));
    return hub->plans && hub->spares ? 0 : SEL_ENOMEM;
}

static void free_spares(struct sel_hub *hub)
{
    for (uint32_t i = 0; hub->spares && i < hub->system->flow_count; i++) {
        struct sel_flow_run *next;
        for (struct sel_flow_run *run = hub->spares[i]; run; run = next) {
            next = run->next_ready;
            free_run(run);
        }
    }
    hub->spares = sel_mem_free(hub->spares);
    hub->spare_count = 0;
}

void sel_hub_close(struct sel_hub *hub)
{
    while (hub->all) /* what was cancelled or stuck: references among them no longer matter */
        free_flow(hub->all);
    free_spares(hub);
    sel_plan_cache_free(hub->plans);
    sel_arena_done(&hub->trace_arena);
    sel_pool_done(&hub->runs);
    hub->plans = NULL;
    hub->first_ready = hub->last_ready = NULL;
}
