/* The nodes of a large flow that ends, in pages: what its RESULT has no room for. */
#include "core/mem.h"
#include "proto/nodes.h"
#include "worker/dispatcher_private.h"

#define SLACK ((size_t)1 << 20) /* of a DECIDE: its head, the result, the index of pages */

struct telling {
    const struct sel_dispatched *flow;
    struct sel_nodes_writer writer;
};

static void tell(struct telling *t, enum sel_nodes_state state, uint32_t slot, uint32_t ordinal)
{
    const struct sel_flow_run *run = &t->flow->run;
    const struct sel_state_reused *reused = sel_state_reused(&run->state, ordinal);
    const struct sel_state_child *child = sel_state_child(&run->state, ordinal);
    struct sel_nodes_run node = {
        .state = state,
        .name = sel_system_node_name(run->hub->system, run->flow->nodes[slot].node),
        .ordinal = ordinal,
    };
    if (reused)
        node.reuse = (struct sel_str){reused->id, reused->size};
    else if (child)
        node.flow = child->id;
    sel_nodes_add(&t->writer, &node, slot);
}

static void tell_all(struct telling *t, enum sel_nodes_state state, uint32_t slot,
                     const struct sel_u32s *list)
{
    for (uint32_t i = list->head; i < list->count; i++)
        tell(t, state, slot, list->p[i]);
}

/* Failures that still count though a fallback ran, by slot: those of the slot `i` end at ends[i].
 * false: out of memory. */
static bool sort_propagated(const struct sel_state *state, struct sel_u32s *ret, uint32_t *ends)
{
    const struct sel_u32s *from = &state->propagated;
    if (from->count && !sel_mem_grow(&ret->p, &ret->cap, from->count, sizeof(*ret->p)))
        return false;
    ret->count = from->count;
    for (uint32_t i = 0; i < from->count; i++)
        ends[sel_state_run_slot(state, from->p[i]) + 1]++;
    for (uint32_t s = 0; s < state->slot_count; s++)
        ends[s + 1] += ends[s];
    /* From here on ends[s] is where the next one of `s` goes, and at last where they end. */
    for (uint32_t i = 0; i < from->count; i++)
        ret->p[ends[sel_state_run_slot(state, from->p[i])]++] = from->p[i];
    return true;
}

/* In the order of the RESULT: of each slot what no fallback took, then the others. */
static int tell_failed(struct telling *t)
{
    const struct sel_state *state = &t->flow->run.state;
    struct sel_u32s propagated = {0};
    uint32_t *ends = sel_mem_zalloc(((size_t)state->slot_count + 1) * sizeof(*ends));
    int r = ends && sort_propagated(state, &propagated, ends) ? 0 : SEL_ENOMEM;
    for (uint32_t s = 0, i = 0; r == 0 && s < state->slot_count; s++) {
        tell_all(t, SEL_NODES_FAILED, s, &state->slots[s].failed);
        for (; i < ends[s]; i++)
            tell(t, SEL_NODES_FAILED, s, propagated.p[i]);
    }
    sel_mem_free(propagated.p);
    sel_mem_free(ends);
    return r;
}

static int tell_nodes(struct telling *t)
{
    const struct sel_state *state = &t->flow->run.state;
    for (uint32_t i = 0; i < state->run_count && state->active_count > 0; i++) {
        if (sel_state_run_status(state, i) == SEL_RUN_ACTIVE)
            tell(t, SEL_NODES_ACTIVE, sel_state_run_slot(state, i), i);
    }
    for (uint32_t s = 0; s < state->slot_count; s++)
        tell_all(t, SEL_NODES_FINISHED, s, &state->slots[s].finished);
    return tell_failed(t);
}

int sel_dispatcher_put_nodes(const struct sel_dispatched *flow, struct sel_buf *out,
                             uint32_t *ret_pages)
{
    const struct sel_decision_writer *w = &flow->d->writer;
    const struct sel_state *state = &flow->run.state;
    struct telling t = {.flow = flow};
    size_t taken = w->consumed.n + w->blob_sizes.n + w->blobs.n + w->starts.n +
                   sel_state_args(state).n + SLACK;
    size_t before = out->n;
    *ret_pages = 0;
    if (taken >= SEL_DECISION_MAX)
        return 0;
    t.writer.pages.limit = SEL_DECISION_MAX - taken;
    int r = tell_nodes(&t);
    if (r == 0)
        r = sel_nodes_writer_end(&t.writer, state->attempt, out);
    if (r == 0)
        *ret_pages = t.writer.page_count;
    else
        out->n = before;
    sel_nodes_writer_done(&t.writer);
    return r == SEL_ELIMIT ? 0 : r;
}
