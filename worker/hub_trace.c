/* The dispatcher's trace events: numbers, keys and remarks in tests/conformance/trace-events.md. */
#include "worker/details.h"
#include "worker/hub.h"

struct note {
    struct sel_flow_run *run;
    struct sel_hub *hub;
    struct sel_arena *arena;
    struct sel_details details;
    char id[SEL_ID_TEXT_SIZE];
};

static void begin(struct note *n, struct sel_flow_run *run)
{
    n->run = run;
    n->hub = run->hub;
    n->arena = &run->hub->trace_arena;
    sel_id_format(run->state.id, n->id);
    sel_details_begin(&n->details, n->arena);
}

static void end(struct note *n, enum sel_trace_event event)
{
    struct sel_value value = sel_details_end(&n->details);
    if (n->hub->ops->trace)
        n->hub->ops->trace(n->run, event, &value);
    else
        sel_tracer_emit(n->hub->engine->tracer, event, &value);
    sel_arena_reset(n->arena);
}

/* ---- pieces ---- */

static void put_flow(struct note *n)
{
    sel_details_str(&n->details, "flow_name", n->run->flow->name);
    sel_details_text(&n->details, "dispatcher_id", n->id);
}

static struct sel_value plan_value(struct note *n, const struct sel_plan *plan, bool none_is_null)
{
    struct sel_value value;
    if (!plan)
        return none_is_null ? sel_value_null : sel_value_from_bool(false);
    return sel_plan_to_value(n->arena, n->hub->system, plan, &value) == 0 ? value : sel_value_null;
}

static void put_selective(struct note *n)
{
    sel_details_value(&n->details, "selective", plan_value(n, n->run->plan, false));
}

static void put_args(struct note *n)
{
    sel_details_encoded(&n->details, "node_args", sel_state_args(&n->run->state));
}

static void put_parents(struct note *n, const struct sel_parents *parents)
{
    struct sel_value value;
    if (sel_parents_to_value(n->hub->system, parents, false, n->arena, &value) < 0)
        value = sel_value_null;
    sel_details_value(&n->details, "parent", value);
}

static void put_combination_parents(struct note *n, const struct sel_combination *combination)
{
    struct sel_parents *parents = NULL;
    if (sel_hub_parents(n->run, combination, &parents) < 0)
        parents = NULL;
    put_parents(n, parents);
}

static struct sel_str slot_name(const struct note *n, uint32_t slot)
{
    return sel_system_node_name(n->hub->system, n->run->flow->nodes[slot].node);
}

static struct sel_value names(struct note *n, const uint32_t *slots, uint32_t count)
{
    struct sel_value_builder list;
    struct sel_value value;
    sel_value_begin_list(&list, n->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, sel_value_from_str(slot_name(n, slots[i])));
    return sel_value_end(&list, &value) == 0 ? value : sel_value_null;
}

static struct sel_value run_id(struct note *n, uint32_t ordinal)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    char *copy = sel_arena_strdup(n->arena, sel_state_run_id(&n->run->state, ordinal, text));
    return sel_value_from_c(copy);
}

static const struct sel_edge_def *edge_of(const struct note *n,
                                          const struct sel_combination *combination)
{
    return combination->edge == SEL_NONE ? NULL : &n->run->flow->edges[combination->edge];
}

/* condition_str and foreach_str; null for a fallback. */
static void put_strings(struct note *n, const struct sel_edge_def *edge)
{
    sel_details_text(&n->details, "condition_str", edge ? edge->cond_text : NULL);
    sel_details_text(&n->details, "foreach_str",
                     edge && edge->foreach ? edge->foreach->text : NULL);
}

static void put_edge(struct note *n, const struct sel_combination *combination)
{
    const struct sel_edge_def *edge = edge_of(n, combination);
    put_flow(n);
    put_selective(n);
    put_args(n);
    put_combination_parents(n, combination);
    sel_details_value(&n->details, "nodes_from", names(n, edge->from, edge->from_count));
    sel_details_value(&n->details, "nodes_to", names(n, edge->to, edge->to_count));
}

/* ---- the dispatcher as a whole ---- */

static void put_dispatcher(struct note *n)
{
    struct sel_value state;
    const struct sel_flow_run *run = n->run;
    put_flow(n);
    put_args(n);
    put_parents(n, run->parents);
    put_selective(n);
    sel_details_str(&n->details, "queue", run->flow->queue);
    sel_details_int(&n->details, "retried_count", run->state.attempt);
    sel_details_seconds(&n->details, "retry", run->has_previous_retry ? run->previous_retry_s : -1);
    sel_details_int(&n->details, "migration_version", run->state.migration_version);
    if (sel_state_to_value(n->arena, n->hub->system, run->flow, &run->state, &state) < 0)
        state = sel_value_null;
    sel_details_value(&n->details, "state", state);
}

void sel_hub_trace_dispatcher(struct sel_flow_run *run, enum sel_trace_event event,
                              const char *what)
{
    struct note n;
    if (!sel_engine_is_traced(run->hub->engine))
        return;
    begin(&n, run);
    put_dispatcher(&n);
    if (what)
        sel_details_text(&n.details, "what", what);
    end(&n, event);
}

void sel_hub_trace_schedule(struct sel_flow_run *run)
{
    struct note n;
    if (!sel_engine_is_traced(run->hub->engine))
        return;
    begin(&n, run);
    put_flow(&n);
    put_args(&n);
    sel_details_str(&n.details, "queue", run->flow->queue);
    sel_details_value(&n.details, "selective", plan_value(&n, run->plan, true));
    end(&n, SEL_TRACE_FLOW_SCHEDULE);
}

/* ---- one function for each kind of note ---- */

static void note_flow_start(struct note *n)
{
    put_flow(n);
    put_args(n);
    put_selective(n);
    sel_details_str(&n->details, "queue", n->run->flow->queue);
}

static void note_flow_retry(struct note *n)
{
    sel_details_str(&n->details, "flow_name", n->run->flow->name);
    put_args(n);
    put_parents(n, n->run->parents);
    put_selective(n);
    sel_details_str(&n->details, "queue", n->run->flow->queue);
    sel_details_int(&n->details, "retried_count", n->run->state.attempt);
    sel_details_value(&n->details, "retry", sel_value_null);
    sel_details_value(&n->details, "state", sel_value_null);
    sel_details_seconds(&n->details, "countdown", (double)n->run->flow->retry_countdown_us / 1e6);
}

static void note_task_schedule(struct note *n, const struct sel_note *note)
{
    const struct sel_task_def *task = sel_system_task(n->hub->system, note->start->node);
    put_flow(n);
    sel_details_str(&n->details, "task_name", task->name);
    sel_details_value(&n->details, "task_id", run_id(n, note->ordinal));
    put_combination_parents(n, note->combination);
    put_args(n);
    sel_details_str(&n->details, "queue", task->queue);
    put_strings(n, edge_of(n, note->combination));
    sel_details_bool(&n->details, "selective_edge", false);
    sel_details_seconds(&n->details, "countdown", n->run->countdown_s);
    put_selective(n);
}

static struct sel_value selective_conf(struct note *n, const struct sel_edge_def *edge)
{
    struct sel_value_builder map, list;
    struct sel_value tasks, value;
    if (!edge)
        return sel_value_null;
    if (!edge->selective)
        return sel_value_from_bool(false);
    sel_value_begin_list(&list, n->arena);
    for (uint32_t i = 0; i < edge->selective->task_count; i++)
        sel_value_add(&list, sel_value_from_str(edge->selective->tasks[i]));
    if (sel_value_end(&list, &tasks) < 0)
        return sel_value_null;
    sel_value_begin_map(&map, n->arena);
    sel_value_put_c(&map, "task_names", tasks);
    sel_value_put_c(&map, "follow_subflows", sel_value_from_bool(edge->selective->follow_subflows));
    sel_value_put_c(&map, "run_subsequent", sel_value_from_bool(edge->selective->run_subsequent));
    return sel_value_end(&map, &value) == 0 ? value : sel_value_null;
}

static void note_subflow_schedule(struct note *n, const struct sel_note *note)
{
    const struct sel_start *start = note->start;
    const struct sel_flow_def *child = sel_system_flow(n->hub->system, start->node);
    const struct sel_edge_def *edge = edge_of(n, note->combination);
    put_flow(n);
    sel_details_str(&n->details, "child_flow_name", child->name);
    sel_details_value(&n->details, "child_dispatcher_id", run_id(n, note->ordinal));
    sel_details_encoded(&n->details, "node_args", start->args);
    sel_details_str(&n->details, "queue", child->queue);
    put_strings(n, edge);
    sel_details_value(&n->details, "selective_edge_conf", selective_conf(n, edge));
    sel_details_value(&n->details, "child_selective",
                      plan_value(n, start->is_edge_plan ? start->plan : NULL, true));
    sel_details_seconds(&n->details, "countdown", n->run->countdown_s);
    put_selective(n);
}

static void note_node_end(struct note *n, const struct sel_note *note, bool failed)
{
    put_flow(n);
    sel_details_value(&n->details, "node_id", run_id(n, note->ordinal));
    sel_details_str(&n->details, "node_name", slot_name(n, note->slot));
    put_selective(n);
    if (failed)
        sel_details_text(&n->details, "what",
                         n->hub->ops->failure_text(n->run, note->ordinal, n->arena));
}

static void note_edge_false(struct note *n, const struct sel_note *note)
{
    const struct sel_edge_def *edge = edge_of(n, note->combination);
    put_edge(n, note->combination);
    sel_details_text(&n->details, "condition_str", edge->cond_text);
    sel_details_text(&n->details, "condition", edge->cond_text);
}

static void note_foreach(struct note *n, const struct sel_note *note)
{
    put_edge(n, note->combination);
    put_strings(n, edge_of(n, note->combination));
    sel_details_encoded(&n->details, "result", note->result);
}

static void note_selective(struct note *n, enum sel_trace_event event, const struct sel_note *note)
{
    if (event == SEL_TRACE_SELECTIVE_RUN_FUNC) {
        put_flow(n);
        put_selective(n);
        put_args(n);
        put_combination_parents(n, note->combination);
        sel_details_str(&n->details, "node_name", slot_name(n, note->slot));
        sel_details_value(&n->details, "result",
                          note->result.p ? sel_value_from_str(note->result) : sel_value_null);
        return;
    }
    put_edge(n, note->combination);
    put_strings(n, edge_of(n, note->combination));
    if (event == SEL_TRACE_SELECTIVE_OMIT_NODE)
        sel_details_str(&n->details, "omitted_node", slot_name(n, note->slot));
    if (event == SEL_TRACE_SELECTIVE_TASK_REUSE) {
        sel_details_str(&n->details, "task_name", slot_name(n, note->slot));
        sel_details_str(&n->details, "task_id", note->result);
    }
}

static struct sel_value failed_nodes(struct note *n, const struct sel_note *note)
{
    struct sel_value_builder list;
    struct sel_value value;
    sel_value_begin_list(&list, n->arena);
    for (uint32_t i = 0; i < note->run_count; i++) {
        struct sel_value_builder node;
        uint32_t slot = sel_state_run_slot(&n->run->state, note->runs[i]);
        sel_value_begin_map(&node, n->arena);
        sel_value_put_c(&node, "name", sel_value_from_str(slot_name(n, slot)));
        sel_value_put_c(&node, "id", run_id(n, note->runs[i]));
        if (sel_value_end(&node, &value) < 0)
            return sel_value_null;
        sel_value_add(&list, value);
    }
    return sel_value_end(&list, &value) == 0 ? value : sel_value_null;
}

static void note_fallback(struct note *n, const struct sel_note *note)
{
    const struct sel_fallback_def *fallback = note->fallback;
    put_flow(n);
    put_selective(n);
    sel_details_value(&n->details, "nodes", failed_nodes(n, note));
    sel_details_text(&n->details, "condition_strs", fallback->cond_text);
    sel_details_value(&n->details, "fallback",
                      fallback->node_count ? names(n, fallback->nodes, fallback->node_count)
                                           : sel_value_from_bool(true));
}

static void note_flow_end(struct note *n, enum sel_trace_event event, const struct sel_note *note)
{
    put_dispatcher(n);
    if (event == SEL_TRACE_FLOW_FAILURE)
        sel_details_bool(&n->details, "will_retry", note->will_retry);
}

void sel_hub_trace_note(void *ctx, enum sel_trace_event event, const struct sel_note *note)
{
    struct note n;
    begin(&n, ctx);
    switch (event) {
    case SEL_TRACE_FLOW_START:
        note_flow_start(&n);
        break;
    case SEL_TRACE_TASK_SCHEDULE:
        note_task_schedule(&n, note);
        break;
    case SEL_TRACE_SUBFLOW_SCHEDULE:
        note_subflow_schedule(&n, note);
        break;
    case SEL_TRACE_NODE_SUCCESSFUL:
    case SEL_TRACE_NODE_FAILURE:
    case SEL_TRACE_EAGER_FAILURE:
        note_node_end(&n, note, event != SEL_TRACE_NODE_SUCCESSFUL);
        break;
    case SEL_TRACE_EDGE_COND_FALSE:
        note_edge_false(&n, note);
        break;
    case SEL_TRACE_FOREACH_RESULT:
        note_foreach(&n, note);
        break;
    case SEL_TRACE_FLOW_RETRY:
        note_flow_retry(&n);
        break;
    case SEL_TRACE_FLOW_END:
    case SEL_TRACE_FLOW_FAILURE:
        note_flow_end(&n, event, note);
        break;
    case SEL_TRACE_FALLBACK_COND_TRUE:
    case SEL_TRACE_FALLBACK_COND_FALSE:
    case SEL_TRACE_FALLBACK_START:
        note_fallback(&n, note);
        break;
    default:
        note_selective(&n, event, note);
        break;
    }
    end(&n, event);
}

/* ---- results, states, duplicates ---- */

void sel_hub_trace_result(struct sel_flow_run *run, enum sel_trace_event event, uint32_t ordinal,
                          const char *what)
{
    struct note n;
    if (!sel_engine_is_traced(run->hub->engine))
        return;
    begin(&n, run);
    uint32_t node = run->flow->nodes[sel_state_run_slot(&run->state, ordinal)].node;
    const struct sel_task_def *task = sel_system_task(n.hub->system, node);
    const struct sel_storage_def *storage =
        task->storage == SEL_NONE ? NULL : &n.hub->system->storages[task->storage];
    sel_details_str(&n.details, "flow_name", run->flow->name);
    sel_details_str(&n.details, "task_name", task->name);
    sel_details_value(&n.details, "task_id", run_id(&n, ordinal));
    sel_details_value(&n.details, "storage_name",
                      storage ? sel_value_from_str(storage->name) : sel_value_null);
    sel_details_str(&n.details, "storage_task_name", task->storage_task_name);
    if (what)
        sel_details_text(&n.details, "what", what);
    end(&n, event);
}

void sel_hub_trace_node_state(struct sel_flow_run *run, enum sel_trace_event event, uint32_t slot,
                              struct sel_str id, const char *what)
{
    struct note n;
    if (!sel_engine_is_traced(run->hub->engine))
        return;
    begin(&n, run);
    put_flow(&n);
    put_args(&n);
    put_parents(&n, run->parents);
    put_selective(&n);
    sel_details_str(&n.details, "queue", run->flow->queue);
    sel_details_str(&n.details, "node_id", id);
    sel_details_str(&n.details, "node_name", slot_name(&n, slot));
    if (what)
        sel_details_text(&n.details, "what", what);
    end(&n, event);
}

/* ---- the observer ---- */

enum sel_flow_outcome sel_hub_outcome(enum sel_decide_result result)
{
    static const enum sel_flow_outcome outcomes[] = {
        [SEL_DECIDE_END] = SEL_FLOW_SUCCESS,
        [SEL_DECIDE_FAIL] = SEL_FLOW_FAILURE,
        [SEL_DECIDE_RETRY] = SEL_FLOW_RETRY,
        [SEL_DECIDE_CANCELED] = SEL_FLOW_CANCELED,
    };
    return outcomes[result];
}

void sel_hub_observe_end(struct sel_flow_run *run, enum sel_decide_result result, bool is_top)
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
                                   .outcome = sel_hub_outcome(result),
                                   .finished_nodes = sel_value_get_c(&state, "finished_nodes"),
                                   .failed_nodes = sel_value_get_c(&state, "failed_nodes"),
                                   .is_top = is_top};
        observer->flow_end(observer->ctx, &end);
    }
    sel_arena_reset(&hub->trace_arena);
}
