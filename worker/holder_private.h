/* worker/holder_private.h - between holder.c and holder_flows.c. */
#ifndef SEL_WORKER_HOLDER_PRIVATE_H
#define SEL_WORKER_HOLDER_PRIVATE_H

#include "core/arena.h"
#include "core/pool.h"
#include "worker/holder.h"

#define SEL_HELD_CHUNK_TASKS 64u

struct sel_held_list {
    struct sel_held_task *first, *last;
    uint32_t count;
};

struct sel_held_chunk {
    struct sel_held_task tasks[SEL_HELD_CHUNK_TASKS];
};

/* A place of the table by id: what is looked at before the task itself, which is seldom in the
 * cache. */
struct sel_held_place {
    uint32_t hash;  /* of the id; tells where it belongs */
    uint32_t index; /* of the task, from 1; 0: empty */
};

struct sel_holder {
    struct sel_peer peer;
    struct sel_holder_options options;
    struct sel_held_list waiting, running;
    struct sel_held_list owing; /* have ended, and their end found no room yet */
    struct sel_held_list ended; /* in the order of done_number */
    struct sel_held_task *free;
    struct sel_held_chunk **chunks;
    uint32_t chunk_count, chunk_cap;
    struct sel_held_place *places; /* open addressing, at most half full */
    uint32_t place_count;          /* a power of two */
    uint32_t held_count;
    uint64_t hash_factors[2]; /* odd */
    struct sel_pool bytes;    /* of records */
    uint64_t arrived;         /* the last record that was worked on, in this session */
    uint64_t freed_bytes;     /* of records, not told to the session yet */
    struct sel_str *names;    /* of queues by the broker's numbers in this session */
    uint32_t name_count, name_cap;
    struct sel_arena name_arena;
    struct sel_str *flow_queues; /* names told by QUEUE: the numbers behind those of HELLO */
    uint32_t flow_queue_count, flow_queue_cap;
    struct sel_arena flow_queue_arena;
    uint64_t flow_last;    /* number of the last record about a flow; 0: none in this session */
    uint64_t lost_settled; /* of the session that is being lost; 0: none is */
    bool is_draining;
    bool must_break;     /* something is lost: what we hold is to be told anew */
    uint32_t wants_told; /* when draining: queues that were told so far */
    struct sel_holder_stats stats;
};

/* ---- holder.c ---- */
void sel_holder_say(const struct sel_holder *holder, const char *text);
size_t sel_holder_record_max(const struct sel_holder *holder); /* that the broker takes */

/* ---- holder_flows.c ---- */
bool sel_holder_is_about_flow(const struct sel_wire_item *item);
void sel_holder_take_flow(struct sel_holder *holder, const struct sel_wire_item *item, int error);
/* A session begins that is not the one before, of which all up to `settled` was settled: what else
 * was said of flows is worth nothing. */
void sel_holder_lose_flows(struct sel_holder *holder, uint64_t settled);

#endif
