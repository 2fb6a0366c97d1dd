/* proto/decision.h - the payload of a DECIDE: what a dispatcher decided for a flow, in one piece.
 *
 * It says which ends of runs it used, what is to be known of the flow from now on (events, which
 * the broker keeps and does not look into), what is to be started, and whether the flow has ended.
 * The broker takes it whole or not at all. proto/PROTOCOL.md, "Flows", has the layout. Pure; any
 * thread. */
#ifndef SEL_PROTO_DECISION_H
#define SEL_PROTO_DECISION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"

#define SEL_DECISION_MAX ((size_t)48 << 20) /* all pieces of one DECIDE */
#define SEL_DECISION_RUNS_MAX 262144u       /* started by one: a step of a decision starts few */
#define SEL_DECISION_HEAD_SIZE 48
#define SEL_DECISION_START_SIZE 56
#define SEL_DECISION_PIECE ((size_t)256 << 10) /* a larger one is sent in pieces of this size */

#define SEL_START_FLOW 0x0001   /* a sub-flow; else runs of a task */
#define SEL_START_NOWAIT 0x0002 /* its end is not told to the flow */

/* Runs that start: of a task `count` with ordinals that follow each other; a sub-flow alone. */
struct sel_decision_start {
    uint32_t ordinal, count;
    uint16_t queue;        /* number of a name in this direction */
    uint16_t flags;        /* SEL_START_* */
    uint32_t args;         /* 1 + index of a blob; 0: the arguments of the flow */
    uint32_t parents;      /* the same; 0: none */
    uint64_t throttle_us;  /* starts of this name lie so far apart; 0: are not throttled */
    uint64_t countdown_us; /* not before */
    struct sel_id child;   /* sub-flows: their id */
    struct sel_str fields; /* as of a TASK: the name (1), others that are handed on; not 15 */
    uint16_t run_flags;    /* SEL_RUN_*, for field 15 */
};

struct sel_decision {
    uint32_t number; /* 1, 2, 3, ... in an attempt of a flow */
    bool is_end;
    uint32_t outcome;      /* with is_end: enum sel_wire_outcome; RETRY: another attempt */
    uint64_t countdown_us; /* of the next attempt */
    uint32_t
        set_args; /* 1 + index of a blob: the arguments of the flow from now on; 0: as before */
    uint32_t consumed_count, blob_count, start_count;
    struct sel_str events;
    struct sel_str result; /* with is_end: payload of the RESULT, or of the ENDED of a sub-flow */
    /* Private: where the lists stand. */
    struct sel_str consumed, blob_sizes, starts, blobs;
};

/* Checks all of it: lists that fit, ordinals that go up, blobs that are there, names. Texts point
 * into `payload`. 0 or SEL_EFORMAT. */
int sel_decision_decode(struct sel_str payload, struct sel_decision *ret,
                        struct sel_error *err) SEL_WARN_UNUSED;
uint32_t sel_decision_consumed(const struct sel_decision *decision, uint32_t i);
/* Blobs are asked for in their order: `*rest` is `decision->blobs` at first. */
struct sel_str sel_decision_next_blob(const struct sel_decision *decision, uint32_t i,
                                      struct sel_str *rest);
/* The first start of `*rest`, which is `decision->starts` at first; `*rest` moves behind it. */
void sel_decision_next_start(struct sel_str *rest, struct sel_decision_start *ret);

/* A decision under construction. Zeroed it is empty; lists keep their memory from one to the next.
 * Errors stick in the buffers until sel_decision_writer_end. */
struct sel_decision_writer {
    struct sel_buf consumed, blob_sizes, blobs, starts;
    uint32_t consumed_count, blob_count, start_count;
    uint32_t set_args;
    size_t last_start; /* private: offset of the start added last, to make it longer */
};
void sel_decision_writer_done(struct sel_decision_writer *writer);
void sel_decision_add_consumed(struct sel_decision_writer *writer, uint32_t ordinal);
/* 1 + its index, for args and parents. */
uint32_t sel_decision_add_blob(struct sel_decision_writer *writer, struct sel_str blob);
/* A task's run that follows the last one and differs in nothing else only makes that longer. */
void sel_decision_add_start(struct sel_decision_writer *writer,
                            const struct sel_decision_start *start);
static inline bool sel_decision_is_empty(const struct sel_decision_writer *writer)
{
    return writer->consumed_count == 0 && writer->start_count == 0 && writer->blob_count == 0;
}
/* Appends the payload to `out` and empties the writer. Of `end` number, is_end, outcome,
 * countdown_us, events and result are used. 0 or SEL_ENOMEM (the writer is empty then too);
 * SEL_ELIMIT: over SEL_DECISION_MAX. */
int sel_decision_writer_end(struct sel_decision_writer *writer, const struct sel_decision *end,
                            struct sel_buf *out) SEL_WARN_UNUSED;

#endif
