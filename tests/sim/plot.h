/* tests/sim/plot.h - the flows of a history: drawn from its seed, compiled, and what their tasks
 * do.
 *
 * What a run of a task does is scripted by who it is: its name, the arguments, and who its parents
 * are, never by when or where it runs. So a flow has one outcome, whatever order things happen in,
 * and the engine alone (solo.h) finds it. */
#ifndef SEL_TESTS_SIM_PLOT_H
#define SEL_TESTS_SIM_PLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/decide.h"
#include "core/id.h"
#include "core/prng.h"
#include "core/system.h"
#include "worker/engine.h"

struct sel_plot {
    struct sel_arena arena;
    struct sel_buf nodes, flows; /* the YAML */
    struct sel_system *system;
    struct sel_predicate_world world;
    struct sel_value script; /* empty: nobody runs the tasks */
    struct sel_mock *mock;
    struct sel_executor_options engine_options;
    struct sel_engine *engine; /* for dispatchers */
    uint32_t fail_per_mille, retry_per_mille;
};

struct sel_plot_options {
    uint32_t queue_count; /* names queue0, ... */
    bool has_failures;    /* of tasks, for good */
    bool has_retries;     /* of tasks and flows */
    bool has_waits;       /* throttling and sampling */
};

/* Flows as they come: all are accepted by the compiler; one may be without end. */
void sel_plot_draw(struct sel_plot *plot, struct sel_prng *prng,
                   const struct sel_plot_options *options);
void sel_plot_done(struct sel_plot *plot);

/* ---- who a run is ---- */

struct sel_part {
    uint64_t ident;
    uint32_t depth;   /* runs of tasks before it, in the longest row of parents */
    uint32_t task;    /* index */
    uint32_t deed;    /* the root flow it belongs to, of the history */
    uint64_t parents; /* the sum of its parents, see sel_part_add_parent */
};

/* The parents of a run, whatever order they come in. */
struct sel_forebears {
    uint64_t sum;
    uint32_t depth;
};
void sel_forebears_add(struct sel_forebears *lineage, struct sel_str name,
                       const struct sel_part *part);
void sel_part_make(struct sel_part *ret, const struct sel_system *system, uint32_t task,
                   uint32_t attempt, struct sel_str args, const struct sel_forebears *lineage);

/* Runs by what storages call them: "<flow>-<attempt>.<ordinal>". */
struct sel_cast {
    struct sel_arena arena;
    struct sel_map index;
    struct sel_part *parts;
    uint32_t count, cap;
};
void sel_cast_done(struct sel_cast *cast);
/* SEL_NONE: there is none. */
uint32_t sel_cast_find(const struct sel_cast *cast, struct sel_str id);
/* The index; it was not there before. */
uint32_t sel_cast_add(struct sel_cast *cast, struct sel_str id, const struct sel_part *part);

/* ---- what it does ---- */

bool sel_part_fails(const struct sel_plot *plot, const struct sel_part *part);
/* Tries that fail first. */
uint32_t sel_part_retries(const struct sel_plot *plot, const struct sel_part *part);
/* Whether try `k` that fails so is counted. */
bool sel_part_is_counted(const struct sel_part *part, uint32_t k);

/* The answer of `need` of a flow: results of runs in `cast`, functions by the combination. 0;
 * SEL_ENOTFOUND: the result of a run that nobody knows, or that failed. */
int sel_plot_answer(const struct sel_plot *plot, const struct sel_cast *cast,
                    const struct sel_flow_def *flow, const struct sel_state *state,
                    struct sel_arena *arena, struct sel_need *need) SEL_WARN_UNUSED;

/* A list of up to three items, by the number `from`. */
int sel_plot_numbers(struct sel_arena *arena, uint64_t from, struct sel_value *ret) SEL_WARN_UNUSED;

/* How many nodes of each name ended how: "finished: A 2, B 1; failed: C 1", from a map with
 * finished_nodes and failed_nodes. Appended to `buf`. */
void sel_plot_count(const struct sel_value *nodes, struct sel_buf *buf);

#endif
