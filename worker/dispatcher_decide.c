/* What flows decide, as DECIDEs and STATEs: the hub's functions on a cluster. */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/value.h"
#include "proto/le.h"
#include "worker/dispatcher_private.h"
#include "worker/flow_codec.h"

#define ROOM_MIN (SEL_DECISION_PIECE + 65536) /* in the session, before a step */
#define TURN_BYTES_MAX ((size_t)4 << 20)      /* said in a turn: frames leave in between */
#define BATCH_BYTES_MAX 65536u                /* of decisions that are told together, */
#define BATCH_INPUTS_MAX 256u                 /* and the ends of runs that they use */
#define STATE_DECISIONS 1000u                 /* after so many there is a new STATE, */
#define STATE_BYTES ((size_t)1 << 20)         /* or after so many bytes of events, */
#define STATE_SHARE 4u                        /* but not for less than a fourth of its size */
#define BUDGET_MAX 512u                       /* conditions and starts of a step */
#define BUDGET_BYTES ((size_t)8 << 20)        /* of parents in a step, about */
#define RESULT_MAX ((size_t)1 << 20)

#define PART_FINISHED 1u /* what of its parents a start gets */
#define PART_FAILED 2u

/* ---- starts ---- */

static void put_id_field(struct sel_buf *buf, uint8_t tag, struct sel_id id)
{
    char bytes[16];
    sel_le_put_id(bytes, id);
    sel_wire_put_field(buf, tag, (struct sel_str){bytes, sizeof(bytes)});
}

static int queue_number(struct sel_dispatcher *d, uint32_t node, uint16_t *ret)
{
    const struct sel_system *s = d->hub.system;
    struct sel_str queue = sel_system_is_flow(s, node) ? sel_system_flow(s, node)->queue
                                                       : sel_system_task(s, node)->queue;
    uint16_t *known = &d->queues[node];
    int r = *known ? 0 : sel_holder_queue_number(d->options.holder, queue, known);
    *ret = *known;
    return r;
}

/* The blob of a combination's parents, or of a part of them; made once. */
static int parents_blob(struct sel_dispatcher *d, const struct sel_combination *combination,
                        struct sel_parents *parents, uint32_t part, uint32_t *ret)
{
    struct sel_dispatch_blobs *blobs = &d->blobs;
    struct sel_parents *wanted = NULL;
    if (blobs->combination != combination->number) {
        memset(blobs->has_parents, 0, sizeof(blobs->has_parents));
        blobs->combination = combination->number;
    }
    *ret = blobs->parents[part];
    if (blobs->has_parents[part])
        return 0;
    int r = sel_parents_part(parents, part & PART_FINISHED, part & PART_FAILED, &wanted);
    if (r < 0)
        return r;
    sel_buf_clear(&d->fields);
    sel_flow_put_parents(d->hub.system, wanted, &d->fields);
    sel_parents_unref(wanted);
    r = sel_buf_error(&d->fields);
    if (r < 0)
        return r;
    *ret = d->fields.n ? sel_decision_add_blob(&d->writer, sel_buf_str(&d->fields)) : 0;
    blobs->parents[part] = *ret;
    blobs->has_parents[part] = true;
    return 0;
}

/* Arguments that are not the flow's: often the same as those of the sub-flow before. */
static uint32_t args_blob(struct sel_dispatcher *d, struct sel_str args)
{
    struct sel_dispatch_blobs *blobs = &d->blobs;
    const struct sel_buf *bytes = &d->writer.blobs;
    if (blobs->args && blobs->args_size == args.n &&
        (args.n == 0 || memcmp(bytes->p + blobs->args_at, args.p, args.n) == 0))
        return blobs->args;
    blobs->args_at = bytes->n;
    blobs->args_size = args.n;
    blobs->args = sel_decision_add_blob(&d->writer, args);
    return blobs->args;
}

static bool is_same_place(struct sel_str a, struct sel_str b)
{
    return a.p == b.p && a.n == b.n;
}

static uint64_t throttle_us(const struct sel_dispatcher *d, int64_t us)
{
    return us > 0 ? (uint64_t)sel_engine_delay_us(d->hub.engine, us) : 0;
}

static int start_task(struct sel_dispatched *flow, const struct sel_start *start,
                      struct sel_parents *parents, struct sel_decision_start *out)
{
    struct sel_dispatcher *d = flow->d;
    const struct sel_task_def *task = sel_system_task(d->hub.system, start->node);
    int r =
        parents_blob(d, start->combination, parents, PART_FINISHED | PART_FAILED, &out->parents);
    if (r < 0)
        return r;
    sel_buf_clear(&d->fields);
    sel_wire_put_field(&d->fields, SEL_FIELD_TASK, task->name);
    sel_wire_put_field(&d->fields, SEL_FIELD_FLOW, flow->run.flow->name);
    out->fields = sel_buf_str(&d->fields);
    out->throttle_us = throttle_us(d, task->throttle_us);
    return sel_buf_error(&d->fields);
}

static void put_flow_fields(struct sel_dispatched *flow, const struct sel_start *start,
                            const struct sel_flow_def *child)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_buf *fields = &d->fields;
    sel_buf_clear(fields);
    sel_wire_put_field(fields, SEL_FIELD_TASK, child->name);
    put_id_field(fields, SEL_FIELD_ROOT, flow->root);
    put_id_field(fields, SEL_FIELD_PARENT, flow->run.state.id);
    if (start->is_edge_plan) {
        struct sel_flow_selective selective = {.flow = flow->run.flow->name,
                                               .edge = start->combination->edge};
        struct sel_buf bytes = {0};
        sel_flow_put_selective(&selective, &bytes);
        sel_wire_put_field(fields, SEL_FIELD_SELECTIVE, sel_buf_str(&bytes));
        if (sel_buf_error(&bytes) < 0)
            fields->failed = true;
        sel_buf_done(&bytes);
    } else if (start->plan && flow->plan) {
        sel_wire_put_field(fields, SEL_FIELD_SELECTIVE, sel_buf_str(&flow->plan->for_children));
    }
}

static int start_flow(struct sel_dispatched *flow, const struct sel_start *start,
                      struct sel_parents *parents, struct sel_decision_start *out)
{
    struct sel_dispatcher *d = flow->d;
    const struct sel_flow_node *node = &flow->run.flow->nodes[start->slot];
    const struct sel_flow_def *child = sel_system_flow(d->hub.system, start->node);
    bool keep = flow->run.keep || node->propagate_finished || node->propagate_compound_finished ||
                node->propagate_failures || node->propagate_compound_failures;
    uint32_t part = (start->has_parents ? PART_FINISHED : 0) |
                    (node->propagate_parent_failures ? PART_FAILED : 0);
    int r = parents_blob(d, start->combination, parents, part, &out->parents);
    if (r < 0)
        return r;
    if (!is_same_place(start->args, sel_state_args(&flow->run.state)))
        out->args = args_blob(d, start->args);
    put_flow_fields(flow, start, child);
    out->flags |= SEL_START_FLOW;
    out->child = start->child_id;
    out->fields = sel_buf_str(&d->fields);
    out->throttle_us = throttle_us(d, child->throttle_us);
    out->run_flags = keep ? SEL_RUN_KEEP : 0;
    return sel_buf_error(&d->fields);
}

static int on_start(struct sel_flow_run *run, const struct sel_start *start,
                    struct sel_parents *parents)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    struct sel_dispatcher *d = flow->d;
    struct sel_decision_start out = {
        .ordinal = start->ordinal, .count = 1, .flags = start->nowait ? SEL_START_NOWAIT : 0};
    int r = queue_number(d, start->node, &out.queue);
    if (r == 0)
        r = sel_system_is_flow(d->hub.system, start->node) ? start_flow(flow, start, parents, &out)
                                                           : start_task(flow, start, parents, &out);
    if (r < 0)
        return r == SEL_ELIMIT ? SEL_ENOMEM : r; /* no room for a name: later, elsewhere */
    sel_decision_add_start(&d->writer, &out);
    d->stats.nodes_started++;
    if (start->combination->edge == SEL_NONE)
        run->new_fallback++;
    else
        run->new_started++;
    return 0;
}

static void on_consume(struct sel_flow_run *run, uint32_t ordinal)
{
    sel_decision_add_consumed(&sel_dispatched_of(run)->d->writer, ordinal);
}

/* ---- ends ---- */

static const uint32_t outcomes[] = {
    [SEL_DECIDE_END] = SEL_OUTCOME_SUCCESS,
    [SEL_DECIDE_FAIL] = SEL_OUTCOME_FAILURE,
    [SEL_DECIDE_RETRY] = SEL_OUTCOME_RETRY,
    [SEL_DECIDE_CANCELED] = SEL_OUTCOME_CANCELLED,
};

static bool is_end(int result)
{
    return result == SEL_DECIDE_END || result == SEL_DECIDE_FAIL || result == SEL_DECIDE_RETRY ||
           result == SEL_DECIDE_CANCELED;
}

static const char *failure_text(struct sel_flow_run *run, uint32_t ordinal, struct sel_arena *arena)
{
    const char *error_class, *message;
    if (!sel_run_failures_find(&run->failures, ordinal, &error_class, &message))
        return sel_state_child(&run->state, ordinal) ? "FlowError: the sub-flow failed"
                                                     : "the task failed";
    const char *text = sel_arena_printf(arena, "%s: %s", error_class, message);
    return text ? text : error_class;
}

/* The first run that failed and was not made good; SEL_NONE: there is none. */
static uint32_t first_failed(const struct sel_state *state)
{
    uint32_t first = state->propagated.count > state->propagated.head
                         ? state->propagated.p[state->propagated.head]
                         : SEL_NONE;
    for (uint32_t i = 0; i < state->slot_count; i++) {
        const struct sel_u32s *failed = &state->slots[i].failed;
        if (failed->head < failed->count && failed->p[failed->head] < first)
            first = failed->p[failed->head];
    }
    return first;
}

/* In `arena`, or for ever. */
static const char *why(struct sel_dispatched *flow, struct sel_arena *arena)
{
    struct sel_flow_run *run = &flow->run;
    uint32_t ordinal = first_failed(&run->state);
    if (flow->reason.n)
        return sel_buf_cstr(&flow->reason);
    if (ordinal == SEL_NONE)
        return "the flow failed";
    struct sel_str name = sel_system_node_name(
        run->hub->system, run->flow->nodes[sel_state_run_slot(&run->state, ordinal)].node);
    uint32_t more = run->state.failed_count + run->state.propagated.count - 1;
    const char *text =
        more ? sel_arena_printf(arena, "'%.*s' failed (and %u more): %s", SEL_STR_ARG(name), more,
                                failure_text(run, ordinal, arena))
             : sel_arena_printf(arena, "'%.*s' failed: %s", SEL_STR_ARG(name),
                                failure_text(run, ordinal, arena));
    return text ? text : "the flow failed";
}

static const char *class_of(struct sel_dispatched *flow, enum sel_decide_result result)
{
    if (result == SEL_DECIDE_CANCELED)
        return "Cancelled";
    return flow->reason_class.n ? sel_buf_cstr(&flow->reason_class) : "FlowError";
}

/* {active_nodes, finished_nodes, failed_nodes}, with numbers in place of nodes {pages} and, of a
 * failure, {class, message}. Pages of nodes become the events of the DECIDE. */
static int root_result(struct sel_dispatched *flow, enum sel_decide_result result,
                       struct sel_arena *arena, struct sel_buf *out)
{
    static const char *const lists[] = {"active_nodes", "finished_nodes", "failed_nodes"};
    struct sel_flow_run *run = &flow->run;
    struct sel_value_builder map;
    struct sel_value state, value;
    uint32_t pages = 0;
    bool is_large = run->state.run_count > SEL_STATE_VALUE_NODES_MAX;
    int r = sel_state_to_value(arena, run->hub->system, run->flow, &run->state, &state);
    if (r == 0 && is_large)
        r = sel_dispatcher_put_nodes(flow, &flow->d->events, &pages);
    if (r < 0)
        return r;
    sel_value_begin_map(&map, arena);
    for (size_t i = 0; i < SEL_COUNT(lists); i++)
        sel_value_put_c(&map, lists[i], *sel_value_get_c(&state, lists[i]));
    if (is_large)
        sel_value_put_c(&map, "pages", sel_value_from_u64(pages));
    if (result != SEL_DECIDE_END) {
        const char *text =
            result == SEL_DECIDE_CANCELED ? "the flow was cancelled" : why(flow, arena);
        sel_value_put_c(&map, "class", sel_value_from_c(class_of(flow, result)));
        sel_value_put_c(&map, "message", sel_value_from_c(text));
    }
    r = sel_value_end(&map, &value);
    if (r == 0)
        sel_value_encode(&value, out);
    return r < 0 ? r : sel_buf_error(out);
}

/* What the parent's dispatcher is told. */
static int child_result(struct sel_dispatched *flow, enum sel_decide_result result,
                        struct sel_arena *arena, struct sel_buf *out)
{
    struct sel_flow_run *run = &flow->run;
    const struct sel_system *system = run->hub->system;
    bool failed = result != SEL_DECIDE_END;
    struct sel_str error_class = sel_str_c(failed ? class_of(flow, result) : "");
    struct sel_str message = sel_str_c(failed ? why(flow, arena) : "");
    if (run->keep && !sel_hub_grow_children(run))
        return SEL_ENOMEM;
    struct sel_ended_flow ended = {.refs = 1,
                                   .flow = run->flow,
                                   .state = run->state,
                                   .children = run->children,
                                   .failures = run->failures};
    sel_flow_put_end(system, failed, error_class, message, run->keep ? &ended : NULL, out);
    if (sel_buf_error(out) < 0 || out->n <= RESULT_MAX)
        return sel_buf_error(out);
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "what the flow ran is more than another flow can be told: %zu bytes, at most "
                   "%zu; split it, or propagate less",
                   out->n, RESULT_MAX);
    sel_buf_clear(out);
    flow->d->result_failed = !failed;
    sel_flow_put_end(system, true, failed ? error_class : SEL_STR("FlowError"),
                     failed ? message : sel_str_c(text), NULL, out);
    return sel_buf_error(out);
}

static void on_attempt_ends(struct sel_flow_run *run, enum sel_decide_result result)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    struct sel_dispatcher *d = flow->d;
    sel_buf_clear(&d->result);
    sel_buf_clear(&d->events);
    d->result_failed = false;
    sel_hub_observe_end(run, result, flow->is_root);
    if (result == SEL_DECIDE_RETRY)
        return;
    int r = flow->is_root ? root_result(flow, result, &d->scratch, &d->result)
                          : child_result(flow, result, &d->scratch, &d->result);
    if (r < 0)
        d->result.failed = true; /* noticed when it is sent */
    sel_arena_reset(&d->scratch);
}

/* ---- DECIDE ---- */

static void begin_decision(struct sel_dispatcher *d)
{
    d->blobs = (struct sel_dispatch_blobs){.combination = UINT64_MAX};
}

/* Nothing of it was said. */
static void drop_decision(struct sel_dispatched *flow)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_decision_writer empty = {0};
    sel_decision_writer_done(&d->writer);
    d->writer = empty;
    sel_buf_clear(sel_decider_record(flow->run.decider));
    sel_buf_clear(&d->result);
    begin_decision(d);
}

static void give_up(struct sel_flow_run *run, int code, const char *what)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    char text[256];
    if (run->ended)
        return;
    (void)snprintf(text, sizeof(text), "%s: %s", what, sel_error_text(code));
    sel_engine_log(run->hub->engine, SEL_LOG_ERROR, "flow '%.*s' is given back: %s",
                   SEL_STR_ARG(run->flow->name), text);
    drop_decision(flow);
    sel_dispatcher_give_back(flow, SEL_RETURN_NO_RESOURCES, sel_str_c(text));
}

/* A decision that no record can hold would be the same elsewhere: the flow fails. */
static int shrink(struct sel_dispatched *flow, struct sel_decision *end)
{
    struct sel_dispatcher *d = flow->d;
    static const char text[] = "a single decision of the flow is larger than 48 MiB: parents, or "
                               "arguments of sub-flows";
    sel_decision_writer_done(&d->writer);
    sel_buf_clear(&d->result);
    sel_buf_clear(&d->events);
    sel_buf_clear(&flow->reason);
    sel_buf_put_c(&flow->reason, text);
    sel_dispatch_traces_drop(flow);
    sel_hub_trace_dispatcher(&flow->run, SEL_TRACE_DISPATCHER_FAILURE, text);
    int r = flow->is_root ? root_result(flow, SEL_DECIDE_FAIL, &d->scratch, &d->result)
                          : child_result(flow, SEL_DECIDE_FAIL, &d->scratch, &d->result);
    sel_arena_reset(&d->scratch);
    d->result_failed = true;
    end->is_end = true;
    end->outcome = SEL_OUTCOME_FAILURE;
    end->result = sel_buf_str(&d->result);
    end->events = sel_buf_str(&d->events);
    return r < 0 ? r : sel_decision_writer_end(&d->writer, end, &d->payload);
}

static void tell_args(struct sel_dispatched *flow)
{
    const struct sel_buf *args = &flow->run.state.args;
    if (flow->args_told || args->n == 0)
        return;
    flow->d->writer.set_args = sel_decision_add_blob(&flow->d->writer, sel_buf_str(args));
    flow->args_told = true;
}

/* The head of events or of a state with a description of the flow, which is made once. */
static void put_description(struct sel_dispatched *flow, struct sel_buf *out)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_str *made = &d->descriptions[flow->run.flow->index];
    size_t before = out->n;
    if (made->n > 0) {
        sel_buf_put_str(out, *made);
        return;
    }
    sel_flow_put_history(d->hub.system, flow->run.flow, true, out);
    if (sel_buf_error(out) < 0)
        return;
    struct sel_str description = {(const char *)out->p + before, out->n - before};
    made->p = sel_arena_strdup(&d->arena, description);
    made->n = made->p ? description.n : 0;
}

/* What nobody who goes on from there needs is not told: nobody goes on from an end. An end has the
 * nodes of a large flow there, see root_result. */
static int encode_events(struct sel_dispatched *flow, int result)
{
    struct sel_dispatcher *d = flow->d;
    const struct sel_buf *record = sel_decider_record(flow->run.decider);
    if (is_end(result))
        return sel_buf_error(&d->result);
    sel_buf_clear(&d->events);
    if (flow->is_described)
        sel_flow_put_history(d->hub.system, flow->run.flow, false, &d->events);
    else
        put_description(flow, &d->events);
    sel_buf_put_str(&d->events, sel_buf_str(record));
    int r = sel_buf_error(&d->events);
    return r == 0 ? sel_buf_error(record) : r;
}

static int encode_decision(struct sel_dispatched *flow, int result, struct sel_decision *end)
{
    struct sel_dispatcher *d = flow->d;
    sel_buf_clear(&d->payload);
    int r = encode_events(flow, result);
    if (r < 0)
        return r;
    tell_args(flow);
    *end = (struct sel_decision){.number = flow->number + 1, .events = sel_buf_str(&d->events)};
    if (is_end(result)) {
        end->is_end = true;
        end->outcome = d->result_failed ? SEL_OUTCOME_FAILURE : outcomes[result];
        end->result = sel_buf_str(&d->result);
        int64_t us = sel_engine_delay_us(d->hub.engine, flow->run.flow->retry_countdown_us);
        end->countdown_us = result == SEL_DECIDE_RETRY && us > 0 ? (uint64_t)us : 0;
    }
    r = sel_decision_writer_end(&d->writer, end, &d->payload);
    return r == SEL_ELIMIT ? shrink(flow, end) : r;
}

/* About how many bytes a start may bring along: the broker keeps some of it for each sub-flow. */
static size_t weight_of(const struct sel_dispatched *flow)
{
    return flow->kept_max + sel_state_args(&flow->run.state).n + 1;
}

/* Steps with large parents or arguments are made smaller. */
static uint32_t budget_for(const struct sel_dispatched *flow)
{
    uint32_t most = flow->d->options.budget ? flow->d->options.budget : BUDGET_MAX;
    size_t fit = BUDGET_BYTES / weight_of(flow);
    return fit < 1 ? 1 : fit > most ? most : (uint32_t)fit;
}

/* ---- STATE ---- */

static void put_state(struct sel_dispatched *flow, struct sel_buf *out)
{
    struct sel_flow_run *run = &flow->run;
    struct sel_buf lineage = {0};
    uint64_t seconds = 0;
    put_description(flow, out);
    sel_hub_put_lineage(run, &lineage);
    sel_buf_put_varint(out, lineage.n);
    sel_buf_put_str(out, sel_buf_str(&lineage));
    memcpy(&seconds, &run->previous_retry_s, sizeof(seconds));
    sel_buf_put_u8(out, run->has_previous_retry);
    sel_buf_put_varint(out, run->has_previous_retry ? seconds : 0);
    sel_state_encode(&run->state, out);
    if (sel_buf_error(&lineage) < 0)
        out->failed = true;
    sel_buf_done(&lineage);
}

int sel_dispatcher_take_state(struct sel_dispatched *flow, struct sel_str bytes)
{
    struct sel_flow_run *run = &flow->run;
    const uint8_t *p = (const uint8_t *)bytes.p;
    struct sel_state state;
    uint64_t size, seconds;
    size_t pos = 0;
    if (!sel_buf_get_varint(p, bytes.n, &pos, &size) || size > bytes.n - pos)
        return SEL_EFORMAT;
    struct sel_str lineage = {bytes.p + pos, (size_t)size};
    pos += (size_t)size;
    if (pos == bytes.n || p[pos] > 1)
        return SEL_EFORMAT;
    bool has_previous = p[pos++];
    if (!sel_buf_get_varint(p, bytes.n, &pos, &seconds))
        return SEL_EFORMAT;
    int r = sel_state_decode(p + pos, bytes.n - pos, &state);
    if (r < 0)
        return r;
    if (!sel_id_eq(state.id, run->state.id) || state.attempt != run->state.attempt ||
        state.slot_count != run->flow->node_count || state.edge_count != run->flow->edge_count) {
        sel_state_done(&state);
        return SEL_EFORMAT;
    }
    sel_state_done(&run->state);
    run->state = state;
    run->has_previous_retry = has_previous;
    memcpy(&run->previous_retry_s, &seconds, sizeof(seconds));
    if (!(run->previous_retry_s >= 0))
        run->previous_retry_s = 0;
    flow->last_state_bytes = bytes.n;
    return sel_hub_take_lineage(run, lineage);
}

static void say_state(struct sel_dispatched *flow)
{
    struct sel_dispatcher *d = flow->d;
    uint32_t decisions = d->options.state_decisions ? d->options.state_decisions : STATE_DECISIONS;
    if (flow->since_state_count < decisions && flow->since_state_bytes < STATE_BYTES)
        return;
    if (flow->since_state_bytes < flow->last_state_bytes / STATE_SHARE)
        return;
    sel_buf_clear(&d->payload);
    put_state(flow, &d->payload);
    if (sel_buf_error(&d->payload) < 0)
        return; /* the events are there, and memory may be later */
    flow->since_state_count = 0;
    flow->since_state_bytes = 0;
    flow->last_state_bytes = d->payload.n;
    d->stats.states++;
    sel_dispatcher_send(flow, SEL_RECORD_STATE, flow->number, sel_buf_str(&d->payload));
}

/* ---- steps ---- */

static bool is_empty_step(const struct sel_dispatched *flow, int result)
{
    return !is_end(result) && sel_decision_is_empty(&flow->d->writer) &&
           sel_decider_record(flow->run.decider)->n == 0;
}

static void say_decision(struct sel_dispatched *flow, int result)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_decision end;
    if (is_empty_step(flow, result)) {
        sel_dispatch_traces_idle(flow);
        return;
    }
    int r = encode_decision(flow, result, &end);
    if (r < 0) {
        give_up(&flow->run, r, "a decision cannot be told");
        return;
    }
    flow->number++;
    flow->is_described = true;
    flow->since_state_count++;
    flow->since_state_bytes += end.events.n;
    d->stats.decisions++;
    sel_buf_clear(sel_decider_record(flow->run.decider));
    begin_decision(d);
    sel_dispatcher_send(flow, SEL_RECORD_DECIDE, 0, sel_buf_str(&d->payload));
    if (end.is_end && !is_end(result)) { /* it was too large */
        flow->is_over = true;
        d->stats.failed++;
        sel_hub_drop_run(&flow->run);
        if (!flow->is_unsent)
            sel_dispatcher_forget(flow);
    } else if (!end.is_end && !flow->is_unsent) {
        say_state(flow);
    }
}

/* Several ends of runs that are here already are decided in one DECIDE. */
static bool may_wait(const struct sel_dispatched *flow, int result)
{
    const struct sel_flow_run *run = &flow->run;
    const struct sel_decision_writer *w = &flow->d->writer;
    return result == SEL_DECIDE_WAIT && run->input_count > 0 && !run->states && !run->sampled &&
           !run->canceled && w->consumed_count < BATCH_INPUTS_MAX &&
           w->start_count * weight_of(flow) < BUDGET_BYTES && flow->traces.n < BATCH_BYTES_MAX &&
           w->blobs.n + w->starts.n + sel_decider_record(run->decider)->n < BATCH_BYTES_MAX;
}

static bool on_stepped(struct sel_flow_run *run, int result)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    if (may_wait(flow, result))
        return true;
    say_decision(flow, result);
    return false;
}

static void on_over(struct sel_flow_run *run, enum sel_decide_result result)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    struct sel_dispatcher_stats *stats = &flow->d->stats;
    if (result == SEL_DECIDE_END && !flow->d->result_failed)
        stats->succeeded++;
    else if (result == SEL_DECIDE_RETRY)
        stats->retried++;
    else if (result == SEL_DECIDE_CANCELED)
        stats->cancelled++;
    else
        stats->failed++;
    flow->is_over = true;
    sel_hub_drop_run(run);
    if (!flow->is_unsent)
        sel_dispatcher_forget(flow);
}

static void note_reason(struct sel_flow_run *run, const char *reason)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    if (flow->reason.n == 0)
        sel_buf_put_c(&flow->reason, reason);
}

void sel_dispatcher_refuse(struct sel_dispatched *flow, const char *error_class,
                           const char *message)
{
    struct sel_flow_run *run = sel_hub_flow_ref(&flow->run);
    sel_buf_put_c(&flow->reason_class, error_class);
    note_reason(run, message);
    on_attempt_ends(run, SEL_DECIDE_FAIL);
    say_decision(flow, SEL_DECIDE_FAIL);
    if (!run->ended)
        on_over(run, SEL_DECIDE_FAIL);
    sel_hub_flow_unref(run);
}

static bool has_room(const struct sel_flow_run *run)
{
    const struct sel_dispatcher *d = ((const struct sel_dispatched *)(const void *)run)->d;
    return !d->first_unsent && d->turn_bytes < TURN_BYTES_MAX && !sel_dispatch_traces_are_full(d) &&
           sel_holder_has_room(d->options.holder, ROOM_MIN);
}

static int set_alarm(struct sel_flow_run *run, int64_t us)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    int64_t now_us = sel_dispatcher_now_us(flow->d);
    us = sel_engine_delay_us(run->hub->engine, us);
    return sel_timers_start(&flow->d->timers, &flow->alarm,
                            us < INT64_MAX - now_us ? now_us + us : INT64_MAX);
}

static int on_answer(struct sel_flow_run *run, struct sel_error *err)
{
    struct sel_dispatcher *d = sel_dispatched_of(run)->d;
    struct sel_dispatcher_question question = {
        .flow = run->flow, .state = &run->state, .arena = sel_decider_arena(run->decider)};
    question.needs = sel_decider_needs(run->decider, &question.need_count);
    return d->ops.answer(d->options.ctx, &question, err);
}

/* ---- who is at work, should the process die ---- */

static void note_in_page(const struct sel_dispatched *flow, uint32_t slot)
{
    const struct sel_dispatcher_options *o = &flow->d->options;
    sel_crash_tasks(o->page, o->thread)[slot] =
        (struct sel_crash_task){.id = flow->run.state.id,
                                .handle = flow->handle,
                                .try_count = flow->try_count,
                                .delivery = flow->delivery};
    /* The mark must not be seen before what it stands for. */
    __atomic_signal_fence(__ATOMIC_RELEASE);
}

static void on_deciding(struct sel_flow_run *run, bool begins)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    const struct sel_dispatcher_options *o = &flow->d->options;
    uint32_t *place = o->page ? sel_co_mark_place() : NULL;
    if (begins)
        run->budget = budget_for(flow);
    if (!place)
        return;
    if (begins)
        note_in_page(flow, o->first_slot);
    __atomic_store_n(place, begins ? o->first_slot + 1 : 0, __ATOMIC_RELAXED);
}

/* Coroutines take turns: each has a slot of its own, as long as there are some. */
static void on_fetching(struct sel_flow_run *run, bool begins)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    struct sel_dispatcher *d = flow->d;
    if (!d->options.page)
        return;
    if (!begins) {
        sel_co_set_mark(0, NULL);
        d->used_slots &= ~(flow->page_slot ? UINT32_C(1) << flow->page_slot : 0);
        flow->page_slot = 0;
        return;
    }
    uint32_t slot = 1;
    while (slot < SEL_DISPATCHER_SLOTS && (d->used_slots >> slot & 1))
        slot++;
    if (slot == SEL_DISPATCHER_SLOTS)
        return;
    d->used_slots |= UINT32_C(1) << slot;
    flow->page_slot = slot;
    note_in_page(flow, d->options.first_slot + slot);
    sel_co_set_mark(d->options.first_slot + slot + 1, NULL);
}

static void on_free(struct sel_flow_run *run)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    sel_dispatch_plan_unref(flow->plan);
    sel_buf_done(&flow->pieces);
    sel_buf_done(&flow->unsent);
    sel_buf_done(&flow->traces);
    sel_buf_done(&flow->reason);
    sel_buf_done(&flow->reason_class);
}

const struct sel_hub_ops sel_dispatcher_hub_ops = {
    .start = on_start,
    .consume = on_consume,
    .attempt_ends = on_attempt_ends,
    .stepped = on_stepped,
    .over = on_over,
    .note_reason = note_reason,
    .give_up = give_up,
    .has_room = has_room,
    .set_alarm = set_alarm,
    .answer = on_answer,
    .failure_text = failure_text,
    .deciding = on_deciding,
    .fetching = on_fetching,
    .trace = sel_dispatch_trace,
    .free = on_free,
};
