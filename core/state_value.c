#include "core/arena.h"
#include "core/state.h"
#include "core/system.h"
#include "core/value.h"

static struct sel_str slot_name(const struct sel_system *system, const struct sel_flow_def *flow,
                                uint32_t slot)
{
    return sel_system_node_name(system, flow->nodes[slot].node);
}

static struct sel_value id_value(struct sel_arena *arena, const struct sel_state *state,
                                 uint32_t ordinal)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    struct sel_str id = sel_state_run_id(state, ordinal, text);
    char *copy = sel_arena_strdup(arena, id);
    return copy ? sel_value_from_str((struct sel_str){copy, id.n}) : sel_value_null;
}

static int active_nodes(struct sel_arena *arena, const struct sel_system *system,
                        const struct sel_flow_def *flow, const struct sel_state *state,
                        struct sel_value *ret)
{
    struct sel_value_builder list;
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < state->run_count; i++) {
        if (sel_state_run_status(state, i) != SEL_RUN_ACTIVE)
            continue;
        struct sel_value_builder node;
        struct sel_value value;
        sel_value_begin_map(&node, arena);
        sel_value_put_c(&node, "name",
                        sel_value_from_str(slot_name(system, flow, sel_state_run_slot(state, i))));
        sel_value_put_c(&node, "id", id_value(arena, state, i));
        if (sel_value_end(&node, &value) < 0)
            return SEL_ENOMEM;
        sel_value_add(&list, value);
    }
    return sel_value_end(&list, ret);
}

static bool is_listed(const struct sel_u32s *list, uint32_t item)
{
    for (uint32_t i = list->head; i < list->count; i++) {
        if (list->p[i] == item)
            return true;
    }
    return false;
}

/* name -> ids of the ended runs of a slot; failures that still count though a fallback ran are
 * among the failed ones. */
static int ended_nodes(struct sel_arena *arena, const struct sel_system *system,
                       const struct sel_flow_def *flow, const struct sel_state *state, bool failed,
                       struct sel_value *ret)
{
    struct sel_value_builder map;
    sel_value_begin_map(&map, arena);
    for (uint32_t s = 0; s < state->slot_count; s++) {
        const struct sel_u32s *runs = failed ? &state->slots[s].failed : &state->slots[s].finished;
        struct sel_value_builder ids;
        struct sel_value list;
        sel_value_begin_list(&ids, arena);
        for (uint32_t i = runs->head; i < runs->count; i++)
            sel_value_add(&ids, id_value(arena, state, runs->p[i]));
        for (uint32_t i = 0; failed && i < state->propagated.count; i++) {
            uint32_t ordinal = state->propagated.p[i];
            if (sel_state_run_slot(state, ordinal) == s && !is_listed(runs, ordinal))
                sel_value_add(&ids, id_value(arena, state, ordinal));
        }
        if (sel_value_end(&ids, &list) < 0)
            return SEL_ENOMEM;
        if (sel_value_count(&list) > 0)
            sel_value_put(&map, slot_name(system, flow, s), list);
    }
    return sel_value_end(&map, ret);
}

static int waiting_edges(struct sel_arena *arena, const struct sel_state *state,
                         struct sel_value *ret)
{
    struct sel_value_builder list;
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < state->waiting_order.count; i++)
        sel_value_add(&list, sel_value_from_u64(state->waiting_order.p[i]));
    return sel_value_end(&list, ret);
}

static int triggered_edges(struct sel_arena *arena, const struct sel_state *state,
                           struct sel_value *ret)
{
    struct sel_value_builder list;
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < state->edge_count; i++) {
        if (state->triggered[i / 64] >> (i % 64) & 1)
            sel_value_add(&list, sel_value_from_u64(i));
    }
    return sel_value_end(&list, ret);
}

int sel_state_to_value(struct sel_arena *arena, const struct sel_system *system,
                       const struct sel_flow_def *flow, const struct sel_state *state,
                       struct sel_value *ret)
{
    struct sel_value active, finished, failed, waiting, triggered;
    if (state->run_count > SEL_STATE_VALUE_NODES_MAX) {
        active = sel_value_from_u64(state->active_count);
        finished = sel_value_from_u64(state->finished_count);
        failed = sel_value_from_u64(state->failed_count + state->propagated.count);
    } else if (active_nodes(arena, system, flow, state, &active) < 0 ||
               ended_nodes(arena, system, flow, state, false, &finished) < 0 ||
               ended_nodes(arena, system, flow, state, true, &failed) < 0) {
        return SEL_ENOMEM;
    }
    if (waiting_edges(arena, state, &waiting) < 0 || triggered_edges(arena, state, &triggered) < 0)
        return SEL_ENOMEM;
    struct sel_value_builder map;
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "active_nodes", active);
    sel_value_put_c(&map, "finished_nodes", finished);
    sel_value_put_c(&map, "failed_nodes", failed);
    sel_value_put_c(&map, "waiting_edges", waiting);
    sel_value_put_c(&map, "triggered_edges", triggered);
    return sel_value_end(&map, ret);
}
