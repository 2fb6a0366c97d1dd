/* tests/sim/stage.h - flows on the simulated cluster: dispatchers, runs, and what must come of
 * them.
 *
 * Deeds that are flows have an act: what the engine alone makes of the flow. On the stage the
 * dispatchers of workers decide, whatever dies; every run of a task that begins anywhere is looked
 * up in the act, and so is how the flow ends. Promises, beside those of oracle.h:
 *
 *   outcome   a flow ends as in the engine alone, with the same nodes
 *   starts    ... and starts the same runs, each once
 *   residue   of flows that have ended the broker keeps nothing but their results */
#ifndef SEL_TESTS_SIM_STAGE_H
#define SEL_TESTS_SIM_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/producer.h"
#include "tests/sim/plot.h"
#include "tests/sim/scenario.h"

struct sel_deed;
struct sel_member;
struct sel_run;

/* What the engine alone makes of a deed. */
struct sel_act {
    const struct sel_flow_def *flow; /* NULL: it is no flow */
    bool has_failed;
    bool is_eager;  /* fails at once: what else ran depends on the order */
    char *counts;   /* as sel_plot_count */
    uint64_t *runs; /* who they are, each as often as it is started */
    bool *begun;    /* parallel */
    uint32_t run_count, begun_count;
};

struct sel_stage {
    struct sel_arena arena;
    struct sel_plot plot;
    struct sel_cast cast; /* every run of a task that began on some worker */
    struct sel_act acts[SEL_SIM_TASKS];
    struct sel_map flows; /* ids as bytes, to the deed */
};

void sel_stage_init(struct sel_run *run);
void sel_stage_done(struct sel_run *run);
static inline bool sel_act_is_flow(const struct sel_stage *stage, uint32_t deed)
{
    return stage->acts[deed].flow != NULL;
}

/* ---- dispatchers ---- */

/* `member` has its holder, made with the ops below; of a worker that decides nothing: nothing. */
void sel_stage_open(struct sel_run *run, struct sel_member *member);
void sel_stage_close(struct sel_member *member);
void sel_stage_take(void *ctx, const struct sel_wire_item *item); /* of sel_holder_ops */
void sel_stage_lost(void *ctx);
/* true: it has more to do at once. */
bool sel_stage_turn(struct sel_run *run, struct sel_member *member);

/* ---- runs of tasks ---- */

struct sel_stage_end {
    uint32_t code;
    bool is_uncounted;
    int64_t countdown_us;
};
/* A worker begins it; the index of its part in the cast. */
uint32_t sel_stage_begun(struct sel_run *run, struct sel_member *member,
                         const struct sel_wire_item *item);
/* How this try ends, after how long. */
struct sel_stage_end sel_stage_end_of(struct sel_run *run, uint32_t part, uint32_t try_count);
int64_t sel_stage_run_us(struct sel_run *run, uint32_t part, uint32_t try_count);

/* ---- promises ---- */

void sel_stage_check_result(struct sel_run *run, const struct sel_deed *deed,
                            const struct sel_producer_result *result);
void sel_stage_check_end(struct sel_run *run);

#endif
