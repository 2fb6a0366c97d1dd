#include "core/system.h"

#include "core/mem.h"

uint32_t sel_system_find(const struct sel_system *s, struct sel_str name)
{
    uint32_t node;
    return sel_map_get(&s->nodes, name, &node) ? node : SEL_NONE;
}

const struct sel_flow_def *sel_system_find_flow(const struct sel_system *s, struct sel_str name)
{
    uint32_t node = sel_system_find(s, name);
    if (node == SEL_NONE || !sel_system_is_flow(s, node))
        return NULL;
    return sel_system_flow(s, node);
}

/* A flow uses few nodes, and this is asked for by name only at the edges (selective runs, scripted
 * outcomes): comparing numbers along the flow is cheaper than a map for each flow. */
uint32_t sel_system_slot(const struct sel_system *s, const struct sel_flow_def *flow,
                         struct sel_str name)
{
    uint32_t node = sel_system_find(s, name);
    if (node == SEL_NONE)
        return SEL_NONE;
    for (uint32_t slot = 0; slot < flow->node_count; slot++) {
        if (flow->nodes[slot].node == node)
            return slot;
    }
    return SEL_NONE;
}

void sel_system_free(struct sel_system *s)
{
    if (!s)
        return;
    sel_map_done(&s->nodes);
    sel_map_done(&s->storage_names);
    sel_arena_done(&s->arena);
    (void)sel_mem_free(s);
}
