/* core/state.h - the state of one flow: what its events have made of it.
 *
 * Only sel_state_apply changes it. It needs no system: a state is what it is whatever
 * configuration its reader has. Edges are positions, nodes are slots of the flow, node runs are
 * 32-bit ordinals in the order of their start.
 *
 * Memory: 4 bytes a run, 4 more once it has finished, and what a sub-flow or a reused result adds
 * for its id; arrays double. No cost depends on how many runs have finished. */
#ifndef SEL_CORE_STATE_H
#define SEL_CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/event.h"
#include "core/id.h"
#include "core/str.h"

struct sel_system;
struct sel_flow_def;
struct sel_value;
struct sel_arena;

enum sel_run_status {
    SEL_RUN_ACTIVE,
    SEL_RUN_DUE, /* succeeded, its edges not looked at yet */
    SEL_RUN_FINISHED,
    SEL_RUN_FAILED,
    SEL_RUN_RECOVERED, /* failed, and a fallback took it */
    SEL_RUN_DETACHED,  /* nowait: nobody waits for it */
};

enum sel_phase {
    SEL_PHASE_NEW,      /* before START */
    SEL_PHASE_EDGES,    /* looking at starting edges, or at those of a finished run */
    SEL_PHASE_FALLBACK, /* starting the nodes of a fallback */
    SEL_PHASE_SETTLE,   /* nothing is being looked at: waiting, or about to end */
    SEL_PHASE_ENDED,
    SEL_PHASE_FAILED,
    SEL_PHASE_CANCELED,
};

/* A growing list of numbers. */
struct sel_u32s {
    uint32_t *p;
    uint32_t count, cap;
    uint32_t head; /* items before it are gone */
};

struct sel_state_child {
    uint32_t ordinal;
    struct sel_id id;
};

struct sel_state_reused {
    uint32_t ordinal;
    uint32_t size;
    char *id; /* size bytes and a terminator */
};

/* The nodes of a slot. */
struct sel_state_slot {
    struct sel_u32s finished; /* ordinals, in the order in which they finished */
    struct sel_u32s failed;   /* not yet taken by a fallback */
};

/* Where a decision stands between two steps. */
struct sel_cursor {
    bool has_run;      /* EDGES: of a finished run (else the starting edges) */
    bool in_edge;      /* an edge's combinations are being looked at */
    bool firing;       /* its condition held: destinations are being started */
    uint32_t run;      /* ordinal */
    uint32_t position; /* of the next edge to look at */
    uint32_t edge;
    uint32_t own;      /* index of the run's own slot in `sources` */
    uint32_t *sources; /* slots; sources_count of them */
    uint32_t *digits;  /* index into the finished list of each source; own: unused */
    uint32_t *limits;  /* their lengths when the edge began */
    uint32_t source_count, source_cap;
    uint64_t combination; /* number of the combination since START, for grouping */
    uint32_t to_position, to_count;
    uint32_t item, item_count; /* foreach; 0 of 1 without */
    bool has_items;
    struct sel_buf items;  /* encoded list */
    uint32_t choice;       /* the one taken last; FALLBACK: its nodes are in `sources` */
    struct sel_u32s taken; /* the failed runs that it took */
    bool may_repeat;       /* no run has ended since then: it may take further failures */
};

struct sel_state {
    struct sel_id id;
    uint32_t attempt; /* flow retries so far */
    uint32_t slot_count, edge_count;
    struct sel_state_slot *slots;
    uint32_t *runs; /* slot << 3 | enum sel_run_status, by ordinal */
    uint32_t run_count, run_cap;
    uint32_t active_count, failed_count, finished_count;
    struct sel_u32s due;        /* ordinals */
    struct sel_u32s propagated; /* failures that still count though a fallback ran */
    struct sel_u32s
        skipped; /* choices none of whose conditions held, since the last START of a node */
    struct sel_state_child *children; /* ascending ordinals */
    uint32_t child_count, child_cap;
    struct sel_state_reused *reused; /* ascending ordinals */
    uint32_t reused_count, reused_cap;
    uint64_t *waiting, *triggered;   /* bits, by edge */
    struct sel_u32s waiting_order;   /* edges in the order in which they began to wait */
    struct sel_buf args, start_args; /* encoded values; `args` empty: same as start_args */
    uint32_t migration_version;
    enum sel_phase phase;
    struct sel_cursor cursor;
};

/* An empty state of a flow with that many nodes and edges; `args` is copied (encoded value). 0 or
 * SEL_ENOMEM. */
int sel_state_init(struct sel_state *state, struct sel_id id, uint32_t slot_count,
                   uint32_t edge_count, struct sel_str args) SEL_WARN_UNUSED;
/* The same for a flow that has been tried `attempt` times before: as `attempt` events RETRY make
 * it. */
int sel_state_init_attempt(struct sel_state *state, struct sel_id id, uint32_t attempt,
                           uint32_t slot_count, uint32_t edge_count,
                           struct sel_str args) SEL_WARN_UNUSED;
void sel_state_done(struct sel_state *state);
/* As done and then init_attempt with as many nodes and edges as it has, in the memory that it has.
 * 0; SEL_ENOMEM: it can only be reset again, or done. */
int sel_state_reset(struct sel_state *state, struct sel_id id, uint32_t attempt,
                    struct sel_str args) SEL_WARN_UNUSED;

/* 0; SEL_ENOMEM: nothing changed; SEL_EFORMAT: the event does not fit the state, nothing changed
 * (in a replay: a damaged or foreign record). */
int sel_state_apply(struct sel_state *state, const struct sel_event *event) SEL_WARN_UNUSED;

/* Applies all events of a record. */
int sel_state_replay(struct sel_state *state, const uint8_t *p, size_t n) SEL_WARN_UNUSED;

/* The whole state as bytes; equal states have equal bytes. Errors stick in `buf`. */
void sel_state_encode(const struct sel_state *state, struct sel_buf *buf);
/* The inverse, into a zeroed struct. 0, SEL_EFORMAT, SEL_ENOMEM. */
int sel_state_decode(const uint8_t *p, size_t n, struct sel_state *ret) SEL_WARN_UNUSED;

/* Bytes that the state occupies, reserves included. */
size_t sel_state_bytes(const struct sel_state *state);

static inline uint32_t sel_state_run_slot(const struct sel_state *state, uint32_t ordinal)
{
    return state->runs[ordinal] >> 3;
}
static inline enum sel_run_status sel_state_run_status(const struct sel_state *state,
                                                       uint32_t ordinal)
{
    return (enum sel_run_status)(state->runs[ordinal] & 7);
}
static inline struct sel_str sel_state_args(const struct sel_state *state)
{
    return sel_buf_str(state->args.n ? &state->args : &state->start_args);
}
/* NULL: the run is no sub-flow; no result was reused. */
const struct sel_state_child *sel_state_child(const struct sel_state *state, uint32_t ordinal);
const struct sel_state_reused *sel_state_reused(const struct sel_state *state, uint32_t ordinal);

/* The id under which storages and parents know a run: that of the sub-flow, of the reused result,
 * or "<flow>-<attempt>.<ordinal>". Borrowed from `out` or the state. */
struct sel_str sel_state_run_id(const struct sel_state *state, uint32_t ordinal,
                                char out[SEL_RUN_ID_TEXT_SIZE]);

#define SEL_STATE_VALUE_NODES_MAX 1000
/* As traces show it: {active_nodes: [{name, id}], finished_nodes, failed_nodes: {name: [ids]},
 * waiting_edges, triggered_edges}; beyond SEL_STATE_VALUE_NODES_MAX runs counts in place of ids. */
int sel_state_to_value(struct sel_arena *arena, const struct sel_system *system,
                       const struct sel_flow_def *flow, const struct sel_state *state,
                       struct sel_value *ret) SEL_WARN_UNUSED;

#endif
