/* broker/query.h - what the files that answer questions share. Private to broker/. */
#ifndef SEL_BROKER_QUERY_H
#define SEL_BROKER_QUERY_H

#include "broker/internal.h"
#include "core/value.h"

/* A question under way. */
struct sel_broker_question {
    struct sel_broker *b;
    struct sel_arena *arena;
    const struct sel_wire_query *q;
    struct sel_value *body; /* the answer */
    const char *text;       /* of an error */
};

void sel_broker_put_u64(struct sel_value_builder *map, const char *key, uint64_t value);
void sel_broker_put_bool(struct sel_value_builder *map, const char *key, bool value);
/* Copies the text. */
void sel_broker_put_text(struct sel_value_builder *map, struct sel_arena *arena, const char *key,
                         const char *text);
void sel_broker_put_id(struct sel_value_builder *map, struct sel_arena *arena, const char *key,
                       struct sel_id id);

/* The entry of the flow that the text `id` of the arguments names. 0, or an error with its text. */
int sel_broker_question_flow(struct sel_broker_question *question, uint32_t *ret) SEL_WARN_UNUSED;
/* `n` bytes at `offset` of a piece, from memory or from the journal: not all of it, as there may be
 * megabytes. Valid until the next call. SEL_EFORMAT: it is shorter. */
int sel_broker_question_read(struct sel_broker *b, uint32_t piece, uint64_t offset, size_t n,
                             struct sel_str *ret) SEL_WARN_UNUSED;
/* A number of the arguments that is not negative; else `value`. */
uint64_t sel_broker_question_number(const struct sel_broker_question *question, const char *key,
                                    uint64_t value);

/* ---- query_flows.c: docs/operations.md, "Questions about flows" ---- */
int sel_broker_ask_flows(struct sel_broker_question *question);
int sel_broker_ask_flow(struct sel_broker_question *question);
int sel_broker_ask_flow_runs(struct sel_broker_question *question);
int sel_broker_ask_flow_history(struct sel_broker_question *question);

/* ---- query_nodes.c ---- */
int sel_broker_ask_flow_nodes(struct sel_broker_question *question);

#endif
