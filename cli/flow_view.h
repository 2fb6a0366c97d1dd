/* cli/flow_view.h - what a broker knows of a flow, as people and programs read it.
 *
 * A broker keeps the decisions of a flow without looking into them: the last state that the
 * dispatcher gave, and the events since then. Here they are put together again; the slots of nodes
 * get their names from the description that goes with them. Pure: answers in, values and text out.
 * What cannot be read is said in place of what it would have told. */
#ifndef SEL_CLI_FLOW_VIEW_H
#define SEL_CLI_FLOW_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/state.h"
#include "core/value.h"

/* One decision: what it did, in short. */
struct sel_flow_view_phrase {
    const char *verb; /* static: "started", "finished", ... */
    uint32_t slot;    /* UINT32_MAX: it is said of the flow itself */
    uint32_t count;
};

struct sel_flow_view_decision {
    uint64_t number;
    int64_t age_us;
    struct sel_flow_view_phrase *phrases;
    uint32_t phrase_count, phrase_cap;
    uint64_t unsaid;  /* events beyond the phrases */
    bool is_snapshot; /* a state: it stands for all decisions up to `number` */
};

struct sel_flow_view {
    struct sel_arena *arena;
    struct sel_value head; /* the answer to `flow` */
    struct sel_value_builder runs;
    struct sel_state state;
    bool has_state;
    const char *problem; /* why there is no state; NULL: there is none to complain about */
    const char **nodes;
    uint32_t node_count, edge_count;
    struct sel_flow_view_decision *decisions;
    uint32_t decision_count, decision_cap;
    struct sel_buf item; /* a piece of a state or of events, and those before it */
    int64_t next_offset;
    struct {
        uint64_t number;
        int64_t age_us;
        bool is_state, is_there;
    } pending;
};

/* `head`: the answer to `flow`. 0, SEL_EFORMAT (no map), SEL_ENOMEM, as of what follows. */
int sel_flow_view_init(struct sel_flow_view *view, struct sel_arena *arena,
                       const struct sel_value *head) SEL_WARN_UNUSED;
void sel_flow_view_done(struct sel_flow_view *view);
/* The next answer to `flow.runs` or `flow.history`; *ret_next: what to ask for next, -1: nothing,
 * and `next_offset` where in that. An answer may have nothing in it and yet a next one. */
int sel_flow_view_add_runs(struct sel_flow_view *view, const struct sel_value *answer,
                           int64_t *ret_next) SEL_WARN_UNUSED;
int sel_flow_view_add_history(struct sel_flow_view *view, const struct sel_value *answer,
                              int64_t *ret_next) SEL_WARN_UNUSED;
/* All of the history was added. */
int sel_flow_view_end(struct sel_flow_view *view) SEL_WARN_UNUSED;

/* {flow: {...}, nodes: [{name, active, ...}], waits_for: [...], history: [{number, unix_us,
 * events: [{event, node?, count}]}]}. */
int sel_flow_view_to_value(struct sel_flow_view *view, int64_t now_unix_us,
                           struct sel_value *ret) SEL_WARN_UNUSED;
/* Tables and lines; of the history the last `decisions_max` decisions. */
int sel_flow_view_print(struct sel_flow_view *view, int64_t now_unix_us, uint32_t decisions_max,
                        struct sel_buf *out) SEL_WARN_UNUSED;

/* A deep copy of an answer, with levels by name. SEL_EFORMAT: too deep, or keys that are no text.
 */
int sel_flow_view_copy(struct sel_arena *arena, const struct sel_value *value,
                       struct sel_value *ret) SEL_WARN_UNUSED;

#endif
