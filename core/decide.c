#include "core/decide.h"

#include "core/answers.h"
#include "core/mem.h"

#define PREFETCH_COMBINATIONS                                                                      \
    256 /* looked ahead for needs, so that they are fetched in one batch */

struct sel_decider {
    const struct sel_system *system;
    const struct sel_flow_def *flow;
    const struct sel_plan *plan;           /* NULL: not selective */
    const struct sel_plan_flow *plan_flow; /* this flow's part */
    const struct sel_predicate_world *world;
    struct sel_plan_cache *plans;
    struct sel_id_source *ids;
    const struct sel_decide_sink *sink;
    uint32_t run_count_max;
    const char *run_count_key;
    struct sel_buf record;

    struct sel_answers answers; /* of this decision */

    struct sel_value args; /* the flow's arguments, decoded for the conditions */
    bool args_valid;
    uint32_t *runs; /* the current combination */
    uint32_t run_cap;
    struct sel_buf start_args; /* an item as arguments of a sub-flow */
    uint32_t *list;            /* event lists under construction */
    uint32_t list_cap;
    uint32_t *choice_counts; /* by choice: failed nodes that are there */
    int64_t unix_ms;
    struct sel_error *err;
};

/* ---- life ---- */

/* A flow that is unknown to the plan runs in full. */
static void set_plan(struct sel_decider *d, const struct sel_plan *plan)
{
    d->plan_flow = plan ? sel_plan_flow(plan, d->flow->index) : NULL;
    d->plan = d->plan_flow ? plan : NULL;
}

struct sel_decider *sel_decider_new(const struct sel_decider_options *options)
{
    struct sel_decider *d = SEL_NEW(struct sel_decider);
    if (!d)
        return NULL;
    d->system = options->system;
    d->flow = options->flow;
    d->world = options->world;
    d->plans = options->plans;
    d->ids = options->ids;
    d->sink = options->sink;
    d->run_count_max = options->run_count_max ? options->run_count_max : UINT32_MAX;
    d->run_count_key = options->run_count_key;
    set_plan(d, options->plan);
    if (options->flow->choice_count > 0) {
        d->choice_counts = sel_mem_zalloc(sizeof(uint32_t) * options->flow->choice_count);
        if (!d->choice_counts)
            return sel_decider_free(d);
    }
    return d;
}

struct sel_decider *sel_decider_free(struct sel_decider *d)
{
    if (!d)
        return NULL;
    sel_answers_done(&d->answers);
    sel_buf_done(&d->record);
    sel_buf_done(&d->start_args);
    sel_mem_free(d->runs);
    sel_mem_free(d->list);
    sel_mem_free(d->choice_counts);
    return sel_mem_free(d);
}

void sel_decider_reset(struct sel_decider *d, const struct sel_plan *plan)
{
    set_plan(d, plan);
    sel_answers_clear(&d->answers);
    sel_buf_clear(&d->record);
    d->args_valid = false;
    if (d->choice_counts)
        memset(d->choice_counts, 0, sizeof(*d->choice_counts) * d->flow->choice_count);
}

size_t sel_decider_bytes(const struct sel_decider *d)
{
    return sizeof(*d) + sel_answers_bytes(&d->answers) + d->record.cap + d->start_args.cap +
           ((size_t)d->run_cap + d->list_cap + d->flow->choice_count) * sizeof(uint32_t);
}

struct sel_need *sel_decider_needs(struct sel_decider *d, uint32_t *ret_count)
{
    *ret_count = d->answers.need_count;
    return d->answers.needs;
}

struct sel_arena *sel_decider_arena(struct sel_decider *d)
{
    return &d->answers.arena;
}

struct sel_buf *sel_decider_record(struct sel_decider *d)
{
    return &d->record;
}

/* Forgets the answers: the decision has ended. */
static void end_decision(struct sel_decider *d)
{
    sel_answers_clear(&d->answers);
    d->args_valid = false;
}

/* ---- events ---- */

static int emit(struct sel_decider *d, struct sel_state *state, const struct sel_event *event)
{
    if (!sel_buf_reserve(&d->record, 64 + event->bytes.n + (size_t)event->list_count * 5))
        return SEL_ENOMEM;
    int r = sel_state_apply(state, event);
    if (r < 0)
        return r;
    sel_event_encode(event, &d->record);
    return 0;
}

static int emit_plain(struct sel_decider *d, struct sel_state *state, enum sel_event_type type,
                      uint32_t a)
{
    struct sel_event event = {.type = type, .a = a};
    return emit(d, state, &event);
}

static bool is_traced(const struct sel_decider *d)
{
    return d->sink->trace != NULL;
}

static void trace(struct sel_decider *d, enum sel_trace_event event, const struct sel_note *note)
{
    static const struct sel_note nothing;
    if (d->sink->trace)
        d->sink->trace(d->sink->ctx, event, note ? note : &nothing);
}

static bool list_room(struct sel_decider *d, uint32_t count)
{
    return sel_mem_grow(&d->list, &d->list_cap, count, sizeof(uint32_t));
}

/* ---- the current combination ---- */

static int current_combination(struct sel_decider *d, const struct sel_state *state,
                               struct sel_combination *ret)
{
    const struct sel_cursor *c = &state->cursor;
    if (!sel_mem_grow(&d->runs, &d->run_cap, (uint64_t)c->source_count + 1, sizeof(*d->runs)))
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < c->source_count; i++)
        d->runs[i] = i == c->own ? c->run : state->slots[c->sources[i]].finished.p[c->digits[i]];
    *ret = (struct sel_combination){.edge = c->edge,
                                    .number = c->combination,
                                    .runs = d->runs,
                                    .count = c->source_count,
                                    .choice = SEL_NONE};
    return 0;
}

/* The one after it in the same edge; false: it was the last. `digits` are changed in place. */
static bool following_combination(struct sel_decider *d, const struct sel_state *state,
                                  uint32_t *digits, struct sel_combination *combination)
{
    const struct sel_cursor *c = &state->cursor;
    for (uint32_t i = c->source_count; i-- > 0;) {
        if (i == c->own)
            continue;
        bool turned = ++digits[i] == c->limits[i];
        if (turned)
            digits[i] = 0;
        d->runs[i] = state->slots[c->sources[i]].finished.p[digits[i]];
        if (!turned) {
            combination->number++;
            return true;
        }
    }
    return false;
}

/* ---- conditions ---- */

struct evaluation {
    struct sel_decider *d;
    const struct sel_combination *combination;
};

static int on_message(void *ctx, uint32_t from_index, const struct sel_value **ret)
{
    struct evaluation *e = ctx;
    if (from_index >= e->combination->count)
        return SEL_EFAILED;
    struct sel_need need = {.kind = SEL_NEED_RESULT, .ordinal = e->combination->runs[from_index]};
    return sel_answers_ask(&e->d->answers, &need, ret);
}

static int on_external(void *ctx, const struct sel_cond *leaf, const struct sel_value *message)
{
    struct evaluation *e = ctx;
    struct sel_need need = {
        .kind = SEL_NEED_LEAF, .combination = *e->combination, .leaf = leaf, .message = message};
    const struct sel_value *answer;
    int r = sel_answers_ask(&e->d->answers, &need, &answer);
    return r < 0 ? r : sel_value_is_true(answer);
}

static int decoded_args(struct sel_decider *d, const struct sel_state *state)
{
    if (d->args_valid)
        return 0;
    struct sel_str bytes = sel_state_args(state);
    int r = sel_value_decode(&d->answers.arena, bytes.p, bytes.n, true, &d->args, d->err);
    d->args_valid = r == 0;
    return r;
}

static bool is_plain(const struct sel_cond *cond)
{
    return cond->op == SEL_COND_TRUE;
}

static int evaluate(struct sel_decider *d, const struct sel_state *state,
                    const struct sel_cond *cond, const struct sel_combination *combination)
{
    if (is_plain(cond))
        return 1;
    int r = decoded_args(d, state);
    if (r < 0)
        return r;
    struct evaluation e = {d, combination};
    struct sel_cond_env env = {.ctx = &e,
                               .node_args = &d->args,
                               .world = d->world,
                               .message = on_message,
                               .external = on_external};
    return sel_cond_eval(cond, &env);
}

/* Like evaluate, for an edge: what the combinations after it will ask first is asked at once. */
static int evaluate_edge(struct sel_decider *d, const struct sel_state *state,
                         const struct sel_edge_def *edge, struct sel_combination *combination)
{
    int r = evaluate(d, state, edge->cond, combination);
    if (r != SEL_ENEED || combination->count < 2)
        return r;
    const struct sel_cursor *c = &state->cursor;
    uint32_t *digits =
        sel_arena_memdup(&d->answers.arena, c->digits, sizeof(uint32_t) * c->source_count);
    if (!digits)
        return SEL_ENOMEM;
    for (int i = 0; i < PREFETCH_COMBINATIONS; i++) {
        if (!following_combination(d, state, digits, combination))
            break;
        int ahead = evaluate(d, state, edge->cond, combination);
        if (ahead < 0 && ahead != SEL_ENEED)
            return ahead;
    }
    return r;
}

/* ---- edges ---- */

static bool has_combinations(const struct sel_state *state, const struct sel_edge_def *edge)
{
    for (uint32_t i = 0; i < edge->from_count; i++) {
        if (state->slots[edge->from[i]].finished.count == 0)
            return false;
    }
    return true;
}

static bool is_planned(const struct sel_decider *d, uint32_t edge)
{
    return !d->plan || sel_plan_edge(d->plan_flow, edge);
}

static int begin_edge(struct sel_decider *d, struct sel_state *state)
{
    const struct sel_cursor *c = &state->cursor;
    struct sel_event event = {.type = SEL_EVENT_EDGE};
    if (!c->has_run) {
        if (c->position >= d->flow->start_edge_count)
            return emit_plain(d, state, SEL_EVENT_EDGES_END, 0);
        event.a = c->position;
        event.b = d->flow->start_edges[c->position];
        return emit(d, state, &event);
    }
    const struct sel_flow_node *node = &d->flow->nodes[sel_state_run_slot(state, c->run)];
    for (uint32_t i = c->position; i < node->out_edge_count; i++) {
        const struct sel_edge_def *edge = &d->flow->edges[node->out_edges[i]];
        if (!is_planned(d, node->out_edges[i]) || !has_combinations(state, edge))
            continue;
        event.a = i;
        event.b = node->out_edges[i];
        event.c = node->out_pos[i];
        event.list = edge->from;
        event.list_count = edge->from_count;
        return emit(d, state, &event);
    }
    return emit_plain(d, state, SEL_EVENT_EDGES_END, 0);
}

static int too_many(struct sel_decider *d, uint32_t node)
{
    return sel_error_set(d->err, SEL_EFAILED, d->flow->pos,
                         "with '%.*s' the flow would have more than %u nodes, which is the most "
                         "that %s allows",
                         SEL_STR_ARG(sel_system_node_name(d->system, node)), d->run_count_max,
                         d->run_count_key);
}

/* A foreach that would be one too many in the end starts nothing. */
static bool has_room(const struct sel_decider *d, const struct sel_state *state,
                     const struct sel_edge_def *edge, const struct sel_value *items)
{
    uint64_t count = sel_value_is(items, SEL_LIST) ? sel_value_count(items) : 0;
    return d->plan || (state->run_count <= d->run_count_max &&
                       count * edge->to_count <= d->run_count_max - state->run_count);
}

static int fire(struct sel_decider *d, struct sel_state *state, const struct sel_edge_def *edge,
                const struct sel_combination *combination)
{
    if (!combination->count && !is_planned(d, combination->edge)) {
        trace(d, SEL_TRACE_SELECTIVE_OMIT_EDGE, &(struct sel_note){.combination = combination});
        return emit_plain(d, state, SEL_EVENT_OMIT_EDGE, 0);
    }
    if (!edge->foreach)
        return emit_plain(d, state, SEL_EVENT_FIRE, edge->to_count);
    struct sel_need need = {.kind = SEL_NEED_FOREACH, .combination = *combination};
    const struct sel_value *items;
    int r = sel_answers_ask(&d->answers, &need, &items);
    if (r < 0)
        return r;
    /* What counts as false in a condition is as good as an empty list. */
    if (!sel_value_is(items, SEL_LIST) && sel_value_is_true(items))
        return sel_error_set(d->err, SEL_EFAILED, edge->pos,
                             "%s returned %s; a foreach function returns a list or null",
                             edge->foreach->text, sel_value_kind_name(sel_value_kind(items)));
    if (!has_room(d, state, edge, items))
        return too_many(d, d->flow->nodes[edge->to[0]].node);
    struct sel_buf bytes = {0};
    sel_value_encode(items, &bytes);
    r = sel_buf_error(&bytes);
    if (r == 0) {
        struct sel_note note = {.combination = combination, .result = sel_buf_str(&bytes)};
        trace(d, SEL_TRACE_FOREACH_RESULT, &note);
        struct sel_event event = {.type = SEL_EVENT_FOREACH,
                                  .a = edge->to_count,
                                  .b = sel_value_is(items, SEL_LIST) ? sel_value_count(items) : 0,
                                  .bytes = sel_buf_str(&bytes)};
        r = emit(d, state, &event);
    }
    sel_buf_done(&bytes);
    return r;
}

/* The item that the cursor stands at, as the arguments of a sub-flow. */
static int item_args(struct sel_decider *d, const struct sel_state *state,
                     const struct sel_combination *combination, struct sel_str *ret)
{
    struct sel_need need = {.kind = SEL_NEED_FOREACH, .combination = *combination};
    const struct sel_value *items = sel_answers_find(&d->answers, &need);
    if (!items) { /* another dispatcher asked for it: the state has the list */
        const struct sel_buf *bytes = &state->cursor.items;
        struct sel_value list;
        int r = sel_value_decode(&d->answers.arena, bytes->p, bytes->n, true, &list, d->err);
        if (r == 0)
            r = sel_answers_add(&d->answers, &need, list);
        if (r < 0)
            return r;
        items = sel_answers_find(&d->answers, &need);
    }
    if (!sel_value_is(items, SEL_LIST) || state->cursor.item >= sel_value_count(items))
        return sel_error_set(d->err, SEL_EFORMAT, d->flow->pos,
                             "the list of a foreach is not the one that was recorded");
    sel_buf_clear(&d->start_args);
    sel_value_encode(sel_value_at(items, state->cursor.item), &d->start_args);
    *ret = sel_buf_str(&d->start_args);
    return sel_buf_error(&d->start_args);
}

static int start_flow(struct sel_decider *d, struct sel_state *state, struct sel_start *start,
                      bool is_fallback)
{
    const struct sel_flow_node *node = &d->flow->nodes[start->slot];
    const struct sel_cursor *c = &state->cursor;
    const struct sel_edge_def *edge =
        is_fallback ? NULL : &d->flow->edges[start->combination->edge];
    int r = 0;
    start->args = (struct sel_str){(const char *)sel_value_null_bytes, 1};
    if (node->propagate_node_args)
        start->args = sel_state_args(state);
    if (edge && edge->foreach && edge->foreach->propagate_result && c->has_items)
        r = item_args(d, state, start->combination, &start->args);
    start->has_parents = node->propagate_parent && !is_fallback;
    start->plan = d->plan;
    if (r == 0 && edge && edge->selective) {
        r = sel_plan_cache_get(d->plans, d->flow, start->combination->edge, &start->plan, d->err);
        start->is_edge_plan = true;
        if (r == SEL_ENOPATH)
            r = SEL_EFAILED;
    }
    if (r < 0)
        return r;
    start->child_id = sel_id_next(d->ids, d->unix_ms);
    struct sel_event event = {
        .type = SEL_EVENT_FLOW, .a = start->slot, .b = start->nowait, .id = start->child_id};
    return emit(d, state, &event);
}

static int start_node(struct sel_decider *d, struct sel_state *state, uint32_t slot,
                      const struct sel_combination *combination, bool is_fallback)
{
    struct sel_start start = {.ordinal = state->run_count,
                              .slot = slot,
                              .node = d->flow->nodes[slot].node,
                              .nowait = d->flow->nodes[slot].nowait,
                              .combination = combination};
    bool is_flow = sel_system_is_flow(d->system, start.node);
    int r;
    if (state->run_count >= d->run_count_max)
        return too_many(d, start.node);
    if (is_flow) {
        r = start_flow(d, state, &start, is_fallback);
    } else {
        start.args = sel_state_args(state);
        struct sel_event event = {.type = SEL_EVENT_TASK, .a = slot, .b = start.nowait};
        r = emit(d, state, &event);
    }
    if (r < 0)
        return r;
    r = d->sink->start(d->sink->ctx, &start);
    if (r == 0 && is_traced(d)) {
        struct sel_note note = {
            .combination = combination, .ordinal = start.ordinal, .slot = slot, .start = &start};
        trace(d, is_flow ? SEL_TRACE_SUBFLOW_SCHEDULE : SEL_TRACE_TASK_SCHEDULE, &note);
    }
    return r;
}

/* Asks the selective run function of a task on the path. 0: it runs; 1: *ret_id is taken instead.
 */
static int ask_selective(struct sel_decider *d, const struct sel_plan_edge *planned, uint32_t slot,
                         const struct sel_combination *combination, struct sel_str *ret_id)
{
    uint32_t number = d->flow->nodes[slot].node;
    if (!d->plan || planned->subsequent || sel_system_is_flow(d->system, number))
        return 0;
    const struct sel_task_def *task = sel_system_task(d->system, number);
    if (sel_plan_has_task(d->plan, task->name))
        return 0;
    const struct sel_value *id = &sel_value_null;
    if (task->selective_run_function.name.n > 0) {
        struct sel_need need = {
            .kind = SEL_NEED_SELECTIVE, .slot = slot, .combination = *combination};
        int r = sel_answers_ask(&d->answers, &need, &id);
        if (r < 0)
            return r;
    }
    if (!sel_value_is(id, SEL_TEXT) && sel_value_is_true(id))
        return sel_error_set(d->err, SEL_EFAILED, task->selective_run_function.pos,
                             "the selective run function of '%.*s' returned %s; it returns the id "
                             "of a run or null",
                             SEL_STR_ARG(task->name), sel_value_kind_name(sel_value_kind(id)));
    bool taken = sel_value_is_true(id);
    if (taken)
        *ret_id = sel_value_str(id);
    struct sel_note note = {.combination = combination, .slot = slot};
    if (taken)
        note.result = *ret_id;
    trace(d, SEL_TRACE_SELECTIVE_RUN_FUNC, &note);
    return taken;
}

static int fire_destination(struct sel_decider *d, struct sel_state *state,
                            const struct sel_edge_def *edge,
                            const struct sel_combination *combination)
{
    if (state->cursor.to_position >= edge->to_count)
        return SEL_EFORMAT; /* the state is of another configuration */
    uint32_t slot = edge->to[state->cursor.to_position];
    struct sel_note note = {.combination = combination, .slot = slot};
    const struct sel_plan_edge *planned = NULL;
    if (d->plan) {
        planned = sel_plan_edge(d->plan_flow, combination->edge);
        if (!planned || !sel_plan_has_slot(planned, slot)) {
            trace(d, SEL_TRACE_SELECTIVE_OMIT_NODE, &note);
            return emit_plain(d, state, SEL_EVENT_OMIT, 0);
        }
    }
    int r = ask_selective(d, planned, slot, combination, &note.result);
    if (r < 0)
        return r;
    if (r == 0)
        return start_node(d, state, slot, combination, false);
    trace(d, SEL_TRACE_SELECTIVE_TASK_REUSE, &note);
    struct sel_event event = {.type = SEL_EVENT_REUSE, .a = slot, .bytes = note.result};
    return emit(d, state, &event);
}

static int step_edges(struct sel_decider *d, struct sel_state *state)
{
    const struct sel_cursor *c = &state->cursor;
    if (!c->in_edge)
        return begin_edge(d, state);
    if (c->edge >= d->flow->edge_count)
        return SEL_EFORMAT;
    const struct sel_edge_def *edge = &d->flow->edges[c->edge];
    struct sel_combination combination;
    int r = current_combination(d, state, &combination);
    if (r < 0)
        return r;
    if (c->firing)
        return fire_destination(d, state, edge, &combination);
    r = evaluate_edge(d, state, edge, &combination);
    if (r < 0)
        return r;
    if (r > 0)
        return fire(d, state, edge, &combination);
    trace(d, SEL_TRACE_EDGE_COND_FALSE, &(struct sel_note){.combination = &combination});
    return emit_plain(d, state, SEL_EVENT_FALSE, 0);
}

/* ---- fallbacks ---- */

static int step_fallback(struct sel_decider *d, struct sel_state *state)
{
    const struct sel_cursor *c = &state->cursor;
    struct sel_combination combination = {.edge = SEL_NONE,
                                          .number = c->combination,
                                          .runs = c->taken.p,
                                          .count = c->taken.count,
                                          .choice = c->choice};
    return start_node(d, state, c->sources[c->to_position], &combination, true);
}

static bool is_skipped(const struct sel_state *state, uint32_t choice)
{
    for (uint32_t i = 0; i < state->skipped.count; i++) {
        if (state->skipped.p[i] == choice)
            return true;
    }
    return false;
}

static bool has_failed(const struct sel_state *state, uint32_t slot)
{
    return state->slots[slot].failed.head < state->slots[slot].failed.count;
}

static bool is_complete(const struct sel_decider *d, const struct sel_state *state, uint32_t choice)
{
    const struct sel_choice_def *def = &d->flow->choices[choice];
    for (uint32_t i = 0; i < def->failed_count; i++) {
        if (!has_failed(state, def->failed[i]))
            return false;
    }
    return true;
}

/* The preferred choice all of whose nodes have failed, SEL_NONE if there is none. Looks only at
 * choices of failed nodes. */
static uint32_t find_choice(struct sel_decider *d, const struct sel_state *state)
{
    uint32_t best = SEL_NONE;
    for (int round = 0; round < 2; round++) { /* count, then take the counts back */
        for (uint32_t slot = 0; slot < state->slot_count; slot++) {
            const struct sel_flow_node *node = &d->flow->nodes[slot];
            for (uint32_t i = 0; has_failed(state, slot) && i < node->choice_count; i++) {
                uint32_t choice = node->choices[i];
                if (round > 0)
                    d->choice_counts[choice] = 0;
                else if (++d->choice_counts[choice] == d->flow->choices[choice].failed_count &&
                         choice < best && !is_skipped(state, choice))
                    best = choice;
            }
        }
    }
    return best;
}

/* Evaluates all fallbacks of a choice before anything is said about one. 0; *ret_mask has the ones
 * that hold. */
static int evaluate_fallbacks(struct sel_decider *d, const struct sel_state *state,
                              const struct sel_choice_def *choice, uint32_t number,
                              bool **ret_holds)
{
    bool *holds = SEL_ARENA_NEW_ARRAY(&d->answers.arena, bool, choice->fallback_count);
    if (!holds)
        return SEL_ENOMEM;
    struct sel_combination combination = {
        .edge = SEL_NONE, .number = state->cursor.combination, .choice = number};
    for (uint32_t i = 0; i < choice->fallback_count; i++) {
        int r = evaluate(d, state, choice->fallbacks[i].cond, &combination);
        if (r < 0)
            return r;
        holds[i] = r > 0;
    }
    *ret_holds = holds;
    return 0;
}

static void trace_fallback(struct sel_decider *d, const struct sel_fallback_def *fallback,
                           const uint32_t *runs, uint32_t run_count, bool holds)
{
    struct sel_note note = {.fallback = fallback, .runs = runs, .run_count = run_count};
    trace(d, holds ? SEL_TRACE_FALLBACK_COND_TRUE : SEL_TRACE_FALLBACK_COND_FALSE, &note);
    if (holds)
        trace(d, SEL_TRACE_FALLBACK_START, &note);
}

static int trace_fallbacks(struct sel_decider *d, const struct sel_state *state,
                           const struct sel_choice_def *choice, const bool *holds)
{
    uint32_t *runs = SEL_ARENA_NEW_ARRAY(&d->answers.arena, uint32_t, choice->failed_count);
    if (!runs)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < choice->failed_count; i++) {
        const struct sel_u32s *failed = &state->slots[choice->failed[i]].failed;
        runs[i] = failed->p[failed->head];
    }
    for (uint32_t i = 0; i < choice->fallback_count; i++)
        trace_fallback(d, &choice->fallbacks[i], runs, choice->failed_count, holds[i]);
    return 0;
}

static int take_choice(struct sel_decider *d, struct sel_state *state, uint32_t number)
{
    const struct sel_choice_def *choice = &d->flow->choices[number];
    bool *holds = NULL;
    int r = evaluate_fallbacks(d, state, choice, number, &holds);
    if (r == 0 && is_traced(d))
        r = trace_fallbacks(d, state, choice, holds);
    if (r < 0)
        return r;
    struct sel_event event = {.type = SEL_EVENT_CHOICE, .a = number, .b = choice->failed_count};
    bool any = false;
    uint32_t count = 0;
    if (!list_room(d, choice->failed_count))
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < choice->failed_count; i++)
        d->list[count++] = choice->failed[i];
    for (uint32_t i = 0; i < choice->fallback_count; i++) {
        const struct sel_fallback_def *fallback = &choice->fallbacks[i];
        if (!holds[i])
            continue;
        any = true;
        event.c |= fallback->propagate_failure;
        if (!list_room(d, count + fallback->node_count))
            return SEL_ENOMEM;
        for (uint32_t k = 0; k < fallback->node_count; k++)
            d->list[count++] = fallback->nodes[k];
    }
    if (!any)
        return emit_plain(d, state, SEL_EVENT_SKIP, number);
    event.list = d->list;
    event.list_count = count;
    return emit(d, state, &event);
}

/* ---- ends ---- */

static int end_attempt(struct sel_decider *d, struct sel_state *state,
                       enum sel_decide_result result)
{
    static const enum sel_event_type events[] = {[SEL_DECIDE_END] = SEL_EVENT_END,
                                                 [SEL_DECIDE_FAIL] = SEL_EVENT_FAIL,
                                                 [SEL_DECIDE_RETRY] = SEL_EVENT_RETRY,
                                                 [SEL_DECIDE_CANCELED] = SEL_EVENT_CANCEL};
    if (d->sink->end)
        d->sink->end(d->sink->ctx, result);
    if (result == SEL_DECIDE_END)
        trace(d, SEL_TRACE_FLOW_END, NULL);
    int r = emit_plain(d, state, events[result], 0);
    if (r < 0)
        return r;
    if (result == SEL_DECIDE_RETRY)
        trace(d, SEL_TRACE_FLOW_RETRY, NULL);
    end_decision(d);
    return (int)result;
}

static int fail(struct sel_decider *d, struct sel_state *state)
{
    bool will_retry = state->attempt < d->flow->max_retry;
    trace(d, SEL_TRACE_FLOW_FAILURE, &(struct sel_note){.will_retry = will_retry});
    return end_attempt(d, state, will_retry ? SEL_DECIDE_RETRY : SEL_DECIDE_FAIL);
}

int sel_decide_abort(struct sel_decider *d, struct sel_state *state)
{
    if (state->phase > SEL_PHASE_SETTLE)
        return SEL_ESTATE;
    bool will_retry = state->attempt < d->flow->max_retry;
    return end_attempt(d, state, will_retry ? SEL_DECIDE_RETRY : SEL_DECIDE_FAIL);
}

/* ---- between edges ---- */

/* The first node of `node_args_from_first` has finished: its result becomes the arguments. It is
 * the first if nothing else was ever started. */
static int take_first_args(struct sel_decider *d, struct sel_state *state, uint32_t ordinal)
{
    if (!d->flow->node_args_from_first || ordinal != 0 || state->run_count != 1 ||
        state->args.n > 0)
        return 0;
    struct sel_need need = {.kind = SEL_NEED_RESULT, .ordinal = ordinal};
    const struct sel_value *value;
    int r = sel_answers_ask(&d->answers, &need, &value);
    if (r < 0)
        return r;
    struct sel_buf bytes = {0};
    sel_value_encode(value, &bytes);
    struct sel_event event = {.type = SEL_EVENT_ARGS, .bytes = sel_buf_str(&bytes)};
    r = sel_buf_error(&bytes);
    if (r == 0)
        r = emit(d, state, &event);
    sel_buf_done(&bytes);
    d->args_valid = false;
    return r;
}

/* Notes which edges have begun to wait because this slot has a finished run now. */
static int note_waiting(struct sel_decider *d, struct sel_state *state, uint32_t slot)
{
    const struct sel_flow_node *node = &d->flow->nodes[slot];
    if (state->slots[slot].finished.count != 1)
        return 0; /* noted when the first one finished */
    struct sel_event event = {.type = SEL_EVENT_WAIT};
    for (uint32_t i = 0; i < node->out_edge_count; i++) {
        uint32_t edge = node->out_edges[i];
        if ((state->waiting[edge / 64] >> (edge % 64) & 1) || !is_planned(d, edge))
            continue;
        if (!list_room(d, event.list_count + 1))
            return SEL_ENOMEM;
        d->list[event.list_count++] = edge;
    }
    event.list = d->list;
    return event.list_count > 0 ? emit(d, state, &event) : 0;
}

static int take_due(struct sel_decider *d, struct sel_state *state)
{
    uint32_t ordinal = state->due.p[state->due.head];
    int r = take_first_args(d, state, ordinal);
    if (r == 0)
        r = emit_plain(d, state, SEL_EVENT_TAKE, 0);
    if (r == 0)
        r = note_waiting(d, state, sel_state_run_slot(state, ordinal));
    return r;
}

/* SEL_DECIDE_MORE: go on. */
static int step_settle(struct sel_decider *d, struct sel_state *state)
{
    int r = 0;
    if (state->due.head < state->due.count) {
        r = take_due(d, state);
        return r < 0 ? r : SEL_DECIDE_MORE;
    }
    const struct sel_cursor *c = &state->cursor;
    if (state->active_count > 0) {
        /* fallbacks for further failures of the same nodes start together */
        if (!c->may_repeat || c->choice >= d->flow->choice_count ||
            !is_complete(d, state, c->choice))
            return SEL_DECIDE_WAIT;
        r = take_choice(d, state, c->choice);
        return r < 0 ? r : SEL_DECIDE_MORE;
    }
    if (state->failed_count > 0) {
        uint32_t choice = find_choice(d, state);
        if (choice != SEL_NONE) {
            r = take_choice(d, state, choice);
            return r < 0 ? r : SEL_DECIDE_MORE;
        }
    }
    if (state->failed_count > 0 || state->propagated.count > 0)
        return fail(d, state);
    return end_attempt(d, state, SEL_DECIDE_END);
}

/* ---- inputs ---- */

static int begin_run_end(struct sel_decider *d, struct sel_state *state,
                         const struct sel_input *input)
{
    if (state->phase != SEL_PHASE_SETTLE || input->ordinal >= state->run_count ||
        sel_state_run_status(state, input->ordinal) != SEL_RUN_ACTIVE)
        return SEL_ESTATE;
    bool done = input->type == SEL_INPUT_DONE;
    uint32_t slot = sel_state_run_slot(state, input->ordinal);
    struct sel_note note = {.ordinal = input->ordinal, .slot = slot};
    trace(d, done ? SEL_TRACE_NODE_SUCCESSFUL : SEL_TRACE_NODE_FAILURE, &note);
    int r = emit_plain(d, state, done ? SEL_EVENT_DONE : SEL_EVENT_FAILED, input->ordinal);
    if (r < 0 || done)
        return r;
    if (!d->flow->eager_all && !d->flow->nodes[slot].eager)
        return 0;
    trace(d, SEL_TRACE_EAGER_FAILURE, &note);
    return fail(d, state);
}

static int begin(struct sel_decider *d, struct sel_state *state, const struct sel_input *input)
{
    switch (input->type) {
    case SEL_INPUT_START:
        if (state->phase != SEL_PHASE_NEW)
            return SEL_ESTATE;
        trace(d, SEL_TRACE_FLOW_START, NULL);
        return emit_plain(d, state, SEL_EVENT_START, 0);
    case SEL_INPUT_DONE:
    case SEL_INPUT_FAILED:
        return begin_run_end(d, state, input);
    case SEL_INPUT_CANCEL:
        if (state->phase > SEL_PHASE_SETTLE)
            return SEL_ESTATE;
        return end_attempt(d, state, SEL_DECIDE_CANCELED);
    case SEL_INPUT_FINISH:
        if (state->phase != SEL_PHASE_SETTLE)
            return SEL_ESTATE;
        return end_attempt(d, state, SEL_DECIDE_END);
    }
    return SEL_ESTATE;
}

/* 0: go on; else what sel_decide returns. */
static int step(struct sel_decider *d, struct sel_state *state)
{
    switch (state->phase) {
    case SEL_PHASE_EDGES:
        return step_edges(d, state);
    case SEL_PHASE_FALLBACK:
        return step_fallback(d, state);
    case SEL_PHASE_SETTLE: {
        int r = step_settle(d, state);
        if (r == SEL_DECIDE_WAIT)
            end_decision(d);
        return r == SEL_DECIDE_MORE ? 0 : r;
    }
    default:
        return SEL_ESTATE;
    }
}

int sel_decide(struct sel_decider *d, struct sel_state *state, const struct sel_input *input,
               int64_t unix_ms, uint32_t budget, struct sel_error *err)
{
    d->unix_ms = unix_ms;
    d->err = err;
    int r = 0;
    if (input)
        r = begin(d, state, input);
    else
        sel_answers_take(&d->answers);
    while (r == 0) {
        if (budget-- == 0)
            return SEL_DECIDE_MORE;
        r = step(d, state);
    }
    return r == SEL_ENEED ? (int)SEL_DECIDE_NEED : r;
}
