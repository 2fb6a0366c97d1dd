#include "tests/sim/residue.h"

#include "broker/internal.h"

/* Nodes of a flow, and arguments that are kept for what it had sent off when it ended, go with its
 * result; those of an attempt with the results of its sub-flows. */
static uint32_t kept_pieces(const struct sel_flow *flow)
{
    const struct sel_flow_try *parent = flow->prev_child ? NULL : flow->parent;
    return (uint32_t)(flow->nodes != SEL_NONE) + (flow->args != SEL_NONE) +
           (parent && parent->args != SEL_NONE);
}

static void count(const struct sel_task_entry *entry, struct sel_residue *ret)
{
    switch ((enum sel_task_state)entry->state) {
    case SEL_TASK_FREE:
    case SEL_TASK_ALIAS:
        break;
    case SEL_TASK_PIECE:
        ret->pieces += entry->queue != SEL_PIECE_THROTTLE; /* those end with their time */
        break;
    case SEL_TASK_ENDED:
        ret->runs += entry->kind == SEL_KIND_RUN;
        ret->pieces -= entry->kind == SEL_KIND_FLOW ? kept_pieces(entry->flow) : 0;
        break;
    default:
        ret->open++;
        break;
    }
}

/* What grew out of what was submitted, whatever memory_max says: runs, sub-flows, and what is kept
 * of them. */
static uint64_t flow_bytes(struct sel_task_entry *entry)
{
    uint64_t bytes = sizeof(*entry) + 2 * sizeof(struct sel_task_place);
    if (entry->state == SEL_TASK_FREE || entry->state == SEL_TASK_ALIAS)
        return 0;
    if (entry->kind == SEL_KIND_RUN && entry->state != SEL_TASK_ENDED)
        return bytes + entry->group->fields_size / entry->group->refs;
    bool is_flow = entry->kind == SEL_KIND_FLOW;
    if (is_flow ? !entry->flow->parent
                : entry->kind != SEL_KIND_RUN && entry->kind != SEL_KIND_PIECE)
        return 0;
    return bytes + (*sel_broker_blob_at(entry) ? entry->blob_size : 0);
}

void sel_residue_look(const struct sel_broker *broker, struct sel_residue *ret)
{
    *ret = (struct sel_residue){0};
    for (uint32_t i = 0; i < broker->tasks.chunk_count << SEL_TASK_CHUNK_BITS; i++) {
        count(sel_broker_task_at(broker, i), ret);
        ret->flow_bytes += flow_bytes(sel_broker_task_at(broker, i));
    }
    if (ret->flow_bytes) /* whose records are on their way to the journal */
        ret->flow_bytes += broker->log.backlog_bytes;
}
