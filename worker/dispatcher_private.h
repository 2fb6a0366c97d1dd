/* worker/dispatcher_private.h - between the parts of the dispatcher. */
#ifndef SEL_WORKER_DISPATCHER_PRIVATE_H
#define SEL_WORKER_DISPATCHER_PRIVATE_H

#include "core/arena.h"
#include "core/buf.h"
#include "proto/decision.h"
#include "worker/dispatcher.h"
#include "worker/hub.h"
#include "worker/timer.h"

/* What a selective run visits, by what field 14 says. */
struct sel_dispatch_plan {
    struct sel_dispatch_plan *next;
    uint32_t refs; /* flows that have it */
    uint32_t flow; /* index of the flow that asked */
    struct sel_str bytes;
    struct sel_arena arena;
    const struct sel_plan *plan;
    struct sel_buf for_children; /* field 14 of sub-flows */
};

/* A record about a flow that found no room, or not all of it. */
struct sel_dispatch_owed {
    uint8_t type;
    uint32_t code;
    size_t end;    /* in `unsent` */
    size_t traces; /* bytes of trace events that tell of it */
};

/* Trace events that wait until the broker has what they tell of. */
struct sel_dispatch_traces {
    struct sel_buf bytes; /* from `head` on: in the order in which they are emitted */
    size_t head;
    uint64_t last; /* the record that the last of them wait for */
    bool is_lossy; /* some could not be kept, and this was said */
};

/* A flow that the broker gave to us. */
struct sel_dispatched {
    struct sel_flow_run run; /* first */
    struct sel_dispatcher *d;
    struct sel_dispatched *next_in_place; /* of the table by id */
    struct sel_dispatched *prev, *next;   /* all */
    uint64_t handle;
    uint16_t try_count, delivery;
    bool is_root;
    bool is_gathering; /* its history comes */
    bool is_described; /* the broker has a description of it in this attempt */
    bool args_told;    /* the broker knows those of node_args_from_first */
    bool is_over;      /* it has ended; what is unsent still says so */
    uint32_t number;   /* of the last decision */
    struct sel_id root;
    struct sel_dispatch_plan *plan; /* NULL: runs in full */
    uint32_t since_state_count;     /* decisions and their bytes since the last STATE */
    uint64_t since_state_bytes, last_state_bytes;
    size_t kept_max; /* the largest end of a sub-flow so far */
    /* Pieces of STATE or EVENTS that came. */
    struct sel_buf pieces;
    uint8_t pieces_type;
    uint32_t pieces_code;
    /* At most a decision, and then that it fails, or ends, while something is got for it. */
    struct sel_dispatch_owed owed[2];
    uint32_t owed_count;
    struct sel_buf unsent; /* their payloads */
    size_t unsent_at;
    struct sel_dispatched *next_unsent;
    bool is_unsent;
    struct sel_buf traces; /* trace events that no record took along yet */
    struct sel_timer alarm;
    uint32_t page_slot; /* of its coroutine, from 1; 0: none */
    /* Why it failed, if no node explains it. */
    struct sel_buf reason_class, reason;
};

/* A RETURN that found no room. */
struct sel_dispatch_return {
    struct sel_wire_item item; /* its texts are in `texts` */
    struct sel_buf texts;
    size_t limit_key_size;
};

/* Blobs of the DECIDE under construction that may be named again. */
struct sel_dispatch_blobs {
    uint64_t combination;
    uint32_t parents[4]; /* by what is handed on: 1 finished, 2 failed; 1 + index */
    bool has_parents[4];
    uint32_t args; /* the last arguments of a sub-flow */
    size_t args_at, args_size;
};

struct sel_dispatcher {
    struct sel_dispatcher_options options;
    struct sel_dispatcher_ops ops;
    struct sel_hub hub;
    struct sel_hub_ops hub_ops;
    struct sel_dispatched **places; /* by id */
    uint32_t place_count;           /* a power of two */
    uint64_t hash_factor;           /* odd, secret */
    struct sel_dispatched *all;
    struct sel_dispatched *first_unsent, *last_unsent;
    struct sel_dispatch_return *returns;
    uint32_t return_count, return_cap;
    uint16_t *queues; /* by node: the number of its queue in this session; 0: not told yet */
    char **missing;   /* by flow: the function that is not here, or NULL */
    struct sel_str *descriptions; /* by flow: what its first events begin with; empty: not yet */
    struct sel_arena arena;
    struct sel_arena scratch; /* of one call */
    struct sel_dispatch_plan *plans;
    uint32_t plan_count;
    struct sel_decision_writer writer;
    struct sel_dispatch_blobs blobs;
    struct sel_buf payload, events, result, fields;
    bool result_failed; /* `result` says that the flow failed though it did not */
    struct sel_dispatch_traces traces;
    struct sel_timers timers;
    struct sel_timer loop_timer;
    size_t turn_bytes; /* said in this turn */
    bool is_draining, cancels_all;
    uint32_t used_slots; /* bits of the page's */
    uint32_t *mark_place;
    struct sel_dispatcher_stats stats;
};

static inline struct sel_dispatched *sel_dispatched_of(struct sel_flow_run *run)
{
    return (struct sel_dispatched *)(void *)run;
}

/* ---- dispatcher.c ---- */
/* It is no longer ours; `run` lives until nobody refers to it. */
void sel_dispatcher_forget(struct sel_dispatched *flow);
/* RETURN, now or when there is room; `limit_key` and `countdown_us` of a throttled one. */
void sel_dispatcher_return(struct sel_dispatcher *d, const struct sel_wire_item *of, uint32_t code,
                           struct sel_str text, struct sel_str limit_key, uint64_t countdown_us);
/* The same for a flow that we have: it is forgotten. */
void sel_dispatcher_give_back(struct sel_dispatched *flow, uint32_t code, struct sel_str text);
/* A record about the flow, in pieces; what finds no room waits. */
void sel_dispatcher_send(struct sel_dispatched *flow, uint8_t type, uint32_t code,
                         struct sel_str payload);
int64_t sel_dispatcher_now_us(const struct sel_dispatcher *d);

/* ---- dispatcher_take.c ---- */
struct sel_dispatched *sel_dispatcher_find(const struct sel_dispatcher *d, struct sel_id id);

/* ---- dispatcher_decide.c ---- */
extern const struct sel_hub_ops sel_dispatcher_hub_ops;
/* The flow ends as failed before it has decided anything. */
void sel_dispatcher_refuse(struct sel_dispatched *flow, const char *error_class,
                           const char *message);
/* The part of a STATE before the state itself. 0, SEL_EFORMAT, SEL_ENOMEM. */
int sel_dispatcher_take_state(struct sel_dispatched *flow, struct sel_str bytes) SEL_WARN_UNUSED;

/* ---- dispatcher_trace.c ---- */
/* A trace event of the flow: as of sel_hub_ops. */
void sel_dispatch_trace(struct sel_flow_run *run, enum sel_trace_event event,
                        const struct sel_value *details);
/* The first `size` bytes of the flow's events tell of the record that was put last. */
void sel_dispatch_traces_said(struct sel_dispatched *flow, size_t size);
/* The flow's events tell of nothing that the broker is told: they come after what was there before.
 */
void sel_dispatch_traces_idle(struct sel_dispatched *flow);
/* Those that tell of no record yet are forgotten. */
void sel_dispatch_traces_drop(struct sel_dispatched *flow);
/* The broker has refused what was said of the flow: what it is not known to have is not told of. */
void sel_dispatch_traces_refused(struct sel_dispatcher *d, struct sel_id flow);
/* Emits what the broker has, up to a bounded amount if `is_bounded`. true: there is more. */
bool sel_dispatch_traces_emit(struct sel_dispatcher *d, bool is_bounded);
/* The session is lost: emits what the broker is known to have, and forgets the rest. */
void sel_dispatch_traces_lose(struct sel_dispatcher *d);
/* So many are kept that nothing more is to be decided. */
bool sel_dispatch_traces_are_full(const struct sel_dispatcher *d);

/* ---- dispatcher_nodes.c ---- */
/* Appends the nodes of a flow that ends, as the `events` of its last DECIDE carry them. *ret_pages:
 * how many; 0: they are more than it has room for, nothing is appended. 0 or SEL_ENOMEM. */
int sel_dispatcher_put_nodes(const struct sel_dispatched *flow, struct sel_buf *out,
                             uint32_t *ret_pages) SEL_WARN_UNUSED;

/* ---- dispatcher_plan.c ---- */
/* The plan for field 14, one reference. 0; SEL_ENOPATH; SEL_EFORMAT; SEL_ENOTFOUND: a flow that is
 * not here; SEL_ENOMEM. */
int sel_dispatch_plan_get(struct sel_dispatcher *d, const struct sel_flow_def *flow,
                          struct sel_str bytes, struct sel_dispatch_plan **ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
void sel_dispatch_plan_unref(struct sel_dispatch_plan *plan); /* NULL allowed */
void sel_dispatch_plans_done(struct sel_dispatcher *d);

#endif
