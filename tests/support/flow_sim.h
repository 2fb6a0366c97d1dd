/* tests/support/flow_sim.h - whole flows decided without an executor.
 *
 * One thread, no loop, no clock: a pool of work (flows and tasks to start, completions) is taken in
 * a chosen order, tasks do what a mock script says, and every decision of every flow goes through
 * sel_decide alone. Each record can be replayed onto a second state, and the flow can be handed
 * over to a new decider with a decoded state between any two steps. */
#ifndef SEL_TESTS_SUPPORT_FLOW_SIM_H
#define SEL_TESTS_SUPPORT_FLOW_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/decide.h"
#include "core/predicate.h"
#include "core/selective.h"
#include "core/system.h"
#include "core/trace.h"
#include "core/value.h"

enum sel_sim_order { SEL_SIM_FIFO, SEL_SIM_LIFO, SEL_SIM_RANDOM };

struct sel_sim_options {
    const struct sel_system *system;
    const struct sel_flow_def *flow;
    struct sel_str args;             /* encoded; n == 0: null */
    const struct sel_plan *plan;     /* NULL: a normal run */
    const struct sel_value *mock;    /* the script, see worker/mock.h */
    const struct sel_value *presets; /* results of earlier runs, [{id, task, result}], or NULL */
    const struct sel_predicate_world *world;
    const char *dir; /* schemas are relative to it; NULL: the current folder */
    enum sel_sim_order order;
    uint64_t seed;       /* of SEL_SIM_RANDOM */
    uint32_t budget;     /* of each sel_decide; 0: a large one */
    bool replays;        /* every record onto a second state, every state through its codec */
    bool takes_over;     /* after each step (but one that needs something) somebody else goes on */
    uint32_t cancels_at; /* cancels the top flow before it looks at its n-th input; 0: never */
};

struct sel_sim_report {
    enum sel_decide_result outcome; /* of the top flow; 0: it never ended */
    struct sel_value state;         /* its final one, sel_state_to_value, in `arena` */
    uint64_t events[SEL_TRACE_COUNT];
    struct sel_buf records; /* of all decisions, in their order */
    size_t state_bytes_max; /* the largest state of the top flow */
    uint64_t steps, runs;   /* calls of sel_decide; node runs of all flows */
    struct sel_arena arena;
    char problem[512]; /* what went wrong, "" if nothing did */
};

/* Runs the flow until no work is left. `ret` is filled in every case and freed with
 * sel_sim_report_done. */
void sel_sim_run(const struct sel_sim_options *options, struct sel_sim_report *ret);
void sel_sim_report_done(struct sel_sim_report *report);

#endif
