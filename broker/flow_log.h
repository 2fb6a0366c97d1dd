/* broker/flow_log.h - what the journal says of flows, as structs. Private to broker/. */
#ifndef SEL_BROKER_FLOW_LOG_H
#define SEL_BROKER_FLOW_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/mutation.h"
#include "core/id.h"

#define SEL_FLOW_REF_SIZE 28
#define SEL_FLOW_REF_LAST 1u /* of the pieces of a state */
#define SEL_FLOW_REF_FIRST 2u

/* Number of a piece BLOB: what it is for. */
#define SEL_BLOB_PLAIN 0u
#define SEL_BLOB_OF_TRY 1u  /* the arguments of the attempt from now on */
#define SEL_BLOB_OF_FLOW 2u /* the arguments as submitted, that outlive the submit */

/* Which run, or which piece of which attempt. */
struct sel_flow_ref {
    struct sel_id flow;
    uint32_t attempt;
    uint32_t number; /* ordinal of a run; of a decision; SEL_BLOB_* */
    uint32_t flags;
};
void sel_flow_ref_encode(const struct sel_flow_ref *ref, uint8_t p[SEL_FLOW_REF_SIZE]);
bool sel_flow_ref_decode(struct sel_str bytes, struct sel_flow_ref *ret);

/* Divides the fields of the DONE of a flow: who started it (or the digest of its key), its name. */
bool sel_flow_done_name(const struct sel_mutation *m, struct sel_str *ret_origin,
                        struct sel_str *ret_name);
/* The ordinal `i` of a USED. */
uint32_t sel_flow_used_at(struct sel_str payload, size_t i);

/* A mutation RUNS. */
struct sel_flow_runs {
    uint32_t attempt, ordinal, count;
    uint16_t run_flags, retries;
    bool is_nowait;
    uint64_t step_us;
    struct sel_id args, parents; /* pieces; 0: none */
};
bool sel_flow_runs_decode(const struct sel_mutation *m, struct sel_flow_runs *ret);
/* Bytes of it for each of its runs, beyond a header. */
size_t sel_flow_runs_share(const struct sel_mutation *m, uint32_t count);

#endif
