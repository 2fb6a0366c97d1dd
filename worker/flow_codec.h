/* worker/flow_codec.h - what dispatchers tell each other and the workers through the broker, which
 * does not look into it.
 *
 *   parents        in the payload of a TASK of a run, behind the arguments
 *   end of a run   the payload of an ENDED, and the `result` of a DECIDE that ends a sub-flow
 *   history        the events of a DECIDE, and the payload of a STATE
 *   selective      field 14
 *
 * Names stand for flows and nodes, so that both sides need not have the same configuration, only
 * one that knows the names. Numbers are LEB128 unless said otherwise. Each form begins with a byte
 * that says which it is. Decoding checks everything. Pure; any thread. */
#ifndef SEL_WORKER_FLOW_CODEC_H
#define SEL_WORKER_FLOW_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/selective.h"
#include "core/system.h"
#include "worker/parents.h"

/* ---- parents ---- */

/* Appends `parents`; nothing if there are none (NULL). Errors stick in `buf`. */
void sel_flow_put_parents(const struct sel_system *system, const struct sel_parents *parents,
                          struct sel_buf *buf);
/* The inverse: one reference in *ret, NULL for no bytes. 0; SEL_EFORMAT; SEL_ENOTFOUND: `system`
 * has no flow or node of that name; SEL_ELIMIT: flows are nested too deeply; SEL_ENOMEM. */
int sel_flow_take_parents(const struct sel_system *system, struct sel_str bytes,
                          struct sel_parents **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* ---- ends of runs ---- */

/* How a run ended, as ENDED tells it. */
struct sel_flow_run_end {
    struct sel_str error_class, message; /* of a failure; empty: unknown */
    struct sel_str ended;                /* of a sub-flow that was to be kept: sel_flow_take_ended;
                                            empty: not known */
};

/* Appends the payload: of a failure (a plain map {class, message} unless `ended` is there), of a
 * success with `ended` or without (nothing). */
void sel_flow_put_end(const struct sel_system *system, bool failed, struct sel_str error_class,
                      struct sel_str message, const struct sel_ended_flow *ended,
                      struct sel_buf *buf);
/* What is not one of these is an end of which nothing is known. Texts point into `payload`. 0 or
 * SEL_ENOMEM. */
int sel_flow_take_end(struct sel_str payload, struct sel_arena *arena,
                      struct sel_flow_run_end *ret) SEL_WARN_UNUSED;
/* One reference in *ret. As sel_flow_take_parents. */
int sel_flow_take_ended(const struct sel_system *system, struct sel_str bytes,
                        struct sel_ended_flow **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* ---- history ---- */

/* u32 size of the description, little-endian, the description, then events or a state. */
#define SEL_FLOW_HISTORY_HEAD 4
/* Appends the head, and the description if `is_described`: a msgpack map {flow, nodes, edges}. */
void sel_flow_put_history(const struct sel_system *system, const struct sel_flow_def *flow,
                          bool is_described, struct sel_buf *buf);
/* *ret_rest: what follows. 1: the description fits `flow`; 0: there is none; SEL_EFORMAT;
 * SEL_ENOTFOUND: the flow looks otherwise, `err` says how; SEL_ENOMEM. */
int sel_flow_take_history(const struct sel_system *system, const struct sel_flow_def *flow,
                          struct sel_str item, struct sel_str *ret_rest,
                          struct sel_error *err) SEL_WARN_UNUSED;

/* ---- selective ---- */

/* What field 14 asks for: a request for `flow` (n == 0: for the flow at hand), as its sub-flows get
 * it too; or what the edge `edge` of `flow` says. */
struct sel_flow_selective {
    struct sel_str flow;
    uint32_t edge; /* SEL_NONE: `request` */
    struct sel_selective_request request;
};
/* Texts point into `bytes`, lists are in `arena`. 0, SEL_EFORMAT with `err`, SEL_ENOMEM. */
int sel_flow_take_selective(struct sel_str bytes, struct sel_arena *arena,
                            struct sel_flow_selective *ret, struct sel_error *err) SEL_WARN_UNUSED;
void sel_flow_put_selective(const struct sel_flow_selective *selective, struct sel_buf *buf);

#endif
