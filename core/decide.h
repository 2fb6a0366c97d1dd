/* core/decide.h - what a flow does next.
 *
 * A decider turns an input (start, a node run ended, cancel) and the state into events. Each event
 * is applied to the state at once and appended to the decision's record, so that applying the
 * record elsewhere gives the same state. It works in steps with a budget: SEL_DECIDE_MORE asks to
 * be called again, with no input, before anything else is fed in.
 *
 * When it needs what only the outside has (a result, the list of a foreach, an answer of a user
 * function) it returns SEL_DECIDE_NEED; the needs are in `needs`, all of which are to be answered
 * before the next call. Answers are kept until the decision ends, so that each is asked for once.
 *
 * Pure: no I/O, no clock, no randomness; ids come from the source that is handed in. One decider
 * serves one flow at a time and is not thread safe; deciders share nothing. */
#ifndef SEL_CORE_DECIDE_H
#define SEL_CORE_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/id.h"
#include "core/predicate.h"
#include "core/selective.h"
#include "core/state.h"
#include "core/system.h"
#include "core/trace.h"

struct sel_decider;

enum sel_input_type {
    SEL_INPUT_START,  /* also after SEL_DECIDE_RETRY, once the countdown is over */
    SEL_INPUT_DONE,   /* run `ordinal` succeeded */
    SEL_INPUT_FAILED, /* run `ordinal` failed for good */
    SEL_INPUT_CANCEL,
    SEL_INPUT_FINISH, /* the sampling strategy ends the flow: it succeeds as it stands */
};

struct sel_input {
    enum sel_input_type type;
    uint32_t ordinal;
};

enum sel_decide_result {
    SEL_DECIDE_WAIT = 1, /* waits for runs to end */
    SEL_DECIDE_MORE,     /* the budget is used up: call again */
    SEL_DECIDE_NEED,     /* answer the needs, then call again */
    SEL_DECIDE_END,      /* the flow succeeded */
    SEL_DECIDE_FAIL,     /* the flow failed for good */
    SEL_DECIDE_RETRY,    /* the flow failed and begins again after its retry_countdown */
    SEL_DECIDE_CANCELED,
};

/* What makes nodes start: the runs whose end makes an edge fire, or the failures that a fallback
 * takes. */
struct sel_combination {
    uint32_t edge;        /* SEL_NONE: a fallback */
    uint64_t number;      /* equal for all starts of one combination, rising */
    const uint32_t *runs; /* ordinals, in the order of the edge's `from`; a fallback: failed ones */
    uint32_t count;       /* 0: a starting edge, whose parents are the flow's own */
    uint32_t choice;      /* a fallback's */
};

/* A node that starts. Pointers live for the call. */
struct sel_start {
    uint32_t ordinal;
    uint32_t slot;
    uint32_t node; /* number in the system */
    bool nowait;
    const struct sel_combination *combination;
    /* arguments: of tasks always the flow's; of sub-flows what is handed down: */
    struct sel_str args;         /* encoded */
    bool has_parents;            /* sub-flows: propagate_parent */
    struct sel_id child_id;      /* sub-flows */
    const struct sel_plan *plan; /* sub-flows: or NULL */
    bool is_edge_plan;           /* sub-flows: the plan is from the edge's `selective` */
};

/* What a trace event is about; unused members are zero. Pointers live for the call. */
struct sel_note {
    const struct sel_combination *combination;
    uint32_t ordinal, slot;
    struct sel_str result;                   /* FOREACH_RESULT: encoded list; SELECTIVE_*: the id */
    const struct sel_start *start;           /* TASK_SCHEDULE, SUBFLOW_SCHEDULE */
    const struct sel_fallback_def *fallback; /* FALLBACK_* */
    const uint32_t *runs;                    /* FALLBACK_*: the failed runs */
    uint32_t run_count;
    bool will_retry; /* FLOW_FAILURE */
};

struct sel_decide_sink {
    void *ctx;
    /* A node starts: the state already has it. 0, or an error that ends the decision. */
    int (*start)(void *ctx, const struct sel_start *start);
    /* The attempt ends so: the state still shows it. May be NULL. */
    void (*end)(void *ctx, enum sel_decide_result result);
    /* Decider's share of the trace events, in order; NULL: nothing is built for tracing. */
    void (*trace)(void *ctx, enum sel_trace_event event, const struct sel_note *note);
};

enum sel_need_kind {
    SEL_NEED_RESULT,    /* the result of run `ordinal` */
    SEL_NEED_FOREACH,   /* the list of the edge's foreach function for `combination` */
    SEL_NEED_SELECTIVE, /* the answer of the selective run function of `slot`: text or null */
    SEL_NEED_LEAF,      /* the answer of predicate `leaf` on `message`: a bool */
};

struct sel_need {
    enum sel_need_kind kind;
    uint32_t ordinal;
    uint32_t slot;
    struct sel_combination combination; /* FOREACH, SELECTIVE */
    const struct sel_cond *leaf;
    const struct sel_value *message; /* LEAF: NULL unless it takes one */
    /* The answer: `value` in the decider's arena, see sel_decider_arena. */
    struct sel_value value;
};

struct sel_decider_options {
    const struct sel_system *system;
    const struct sel_flow_def *flow;
    const struct sel_plan *plan; /* of a selective run, or NULL; outlives the decider */
    const struct sel_predicate_world *world;
    struct sel_plan_cache *plans; /* for edges with `selective` */
    struct sel_id_source *ids;
    const struct sel_decide_sink *sink;
    uint32_t run_count_max;    /* nodes that an attempt may start; 0: any number */
    const char *run_count_key; /* by what people set it, for the error; borrowed */
};

/* NULL: out of memory. */
struct sel_decider *sel_decider_new(const struct sel_decider_options *options);
struct sel_decider *sel_decider_free(struct sel_decider *decider); /* returns NULL */
/* For another run of the same flow, with the other options as they were; memory is kept. */
void sel_decider_reset(struct sel_decider *decider, const struct sel_plan *plan);
/* Bytes that it occupies, reserves included. */
size_t sel_decider_bytes(const struct sel_decider *decider);

/* One step. `input` begins a decision and must be NULL to go on with one. `unix_ms` is for new ids.
 * At most about `budget` conditions and starts are done.
 *
 * enum sel_decide_result, or < 0: SEL_ENOMEM (call again), SEL_ESTATE (an input that does not fit:
 * a run that is not active; nothing happened), or SEL_EFAILED with `err`: the decision cannot be
 * made (no path for a selective edge, what a sink returned, one node more than run_count_max, which
 * then has not started); the flow is to be failed with sel_decide_abort. */
int sel_decide(struct sel_decider *decider, struct sel_state *state, const struct sel_input *input,
               int64_t unix_ms, uint32_t budget, struct sel_error *err) SEL_WARN_UNUSED;

/* Fails the flow in the middle of a decision (a user function failed, an answer cannot be had).
 * SEL_DECIDE_FAIL or SEL_DECIDE_RETRY as max_retry allows, SEL_ENOMEM, or SEL_ESTATE: it has ended
 * already. */
int sel_decide_abort(struct sel_decider *decider, struct sel_state *state) SEL_WARN_UNUSED;

/* The needs of the last SEL_DECIDE_NEED; answered in place. */
struct sel_need *sel_decider_needs(struct sel_decider *decider, uint32_t *ret_count);
/* Values of answers live here; emptied when the decision ends. */
struct sel_arena *sel_decider_arena(struct sel_decider *decider);
/* The events since the last clear, encoded. The caller clears it (sel_buf_clear) once it has taken
 * the record. */
struct sel_buf *sel_decider_record(struct sel_decider *decider);

#endif
