/* broker/mutation.h - what the broker writes into its journal: a batch is mutations, one after the
 * other.
 *
 * Each says all that is needed to know it again, so that older ones of the same task may be gone,
 * and replaying one twice changes nothing. Layout, little-endian, ids as in a UUID's text:
 *
 *    0  u32  size of the whole mutation        32  i64  unix_us: see types
 *    4  u8   type                              40  u16  try
 *    5  u8   level                             42  u16  code
 *    6  u8   priority                          44  u8   lost
 *    7  u8   flags                             45  u8   suspected
 *    8  16   id                                46  u8   size of the name
 *   24  u64  sequence                          47  u8   size of the key
 *   48       name, key, then u32 size of the fields (types that have some), fields, payload
 *
 * Format number of the journal: SEL_JOURNAL_FORMAT; types are never used anew. */
#ifndef SEL_BROKER_MUTATION_H
#define SEL_BROKER_MUTATION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"

enum sel_mutation_type {
    /* A broker began: id of the broker, `sequence` its incarnation. Before all else of its life. */
    SEL_MUTATION_START = 1,
    /* A task is there. name: its queue, fields and payload: of the SUBMIT, unix_us: not before (0:
     * at once), key: its idempotency key. */
    SEL_MUTATION_SUBMIT,
    /* It has ended. code: enum sel_wire_outcome, unix_us: when, payload: the result; key and
     * fields (16 bytes, the digest of the SUBMIT) if it has an idempotency key. */
    SEL_MUTATION_DONE,
    /* It is to be tried (again) from unix_us on: try, lost, suspected are new. */
    SEL_MUTATION_RETRY,
    /* `id` is another name of the task payload (16 bytes). */
    SEL_MUTATION_ALIAS,
    /* A worker came (flag GONE: went): id of the peer, `sequence` its incarnation. */
    SEL_MUTATION_WORKER,
    /* Of flows. Bytes that are kept: payload; code: enum sel_piece_type; fields: of which flow, see
     * flow_log.c; unix_us: when. */
    SEL_MUTATION_PIECE,
    /* Runs that start: id of the flow, name: their queue, fields and payload: see flow_log.c;
     * unix_us: not before, of the first. */
    SEL_MUTATION_RUNS,
    /* Ends of runs that a decision has used: id of the flow, try_count its attempt, `sequence` the
     * number of the decision, payload: ordinals, u32 each. */
    SEL_MUTATION_USED,
    SEL_MUTATION_END,
};

#define SEL_MUTATION_HEADER 48
#define SEL_MUTATION_GONE 0x01
#define SEL_MUTATION_FLOW 0x02      /* SUBMIT, DONE, RETRY: of a flow */
#define SEL_MUTATION_CHILD 0x04     /* SUBMIT, DONE: of a sub-flow; fields have the run */
#define SEL_MUTATION_NOWAIT 0x08    /* SUBMIT, DONE: of a sub-flow that nobody waits for */
#define SEL_MUTATION_RUN 0x10       /* DONE: of a run; fields: the run */
#define SEL_MUTATION_CONSUMED 0x20  /* DONE: a decision has used it */
#define SEL_MUTATION_THROTTLED 0x40 /* SUBMIT, RETRY: was put off by its throttle */

struct sel_mutation {
    uint8_t type, level, priority, flags;
    struct sel_id id;
    uint64_t sequence;
    int64_t unix_us;
    uint16_t try_count, code;
    uint8_t lost, suspected;
    struct sel_str name, key, fields, payload;
};

/* "SUBMIT", ...; "?" for unknown ones. */
const char *sel_mutation_name(unsigned type);
/* Appends it; name and key have at most 255 bytes. Errors stick in `buf`. */
void sel_mutation_encode(const struct sel_mutation *mutation, struct sel_buf *buf);
size_t sel_mutation_size(const struct sel_mutation *mutation);
/* The next one of `*batch`, which is moved behind it; texts point into it. 1; 0: there are no more;
 * SEL_EFORMAT: damaged, SEL_EVERSION: a type of a newer program. Any thread. */
int sel_mutation_next(struct sel_str *batch, struct sel_mutation *ret,
                      struct sel_error *err) SEL_WARN_UNUSED;

#endif
