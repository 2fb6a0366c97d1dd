#include "tests/sim/residue.h"

#include "broker/internal.h"

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
        /* Kept for what it had sent off when it ended; they go with its result. */
        ret->pieces -= entry->kind == SEL_KIND_FLOW && entry->flow->args != SEL_NONE;
        break;
    default:
        ret->open++;
        break;
    }
}

void sel_residue_look(const struct sel_broker *broker, struct sel_residue *ret)
{
    *ret = (struct sel_residue){0};
    for (uint32_t i = 0; i < broker->tasks.chunk_count << SEL_TASK_CHUNK_BITS; i++)
        count(sel_broker_task_at(broker, i), ret);
}
