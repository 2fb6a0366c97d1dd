/* worker/run.h - one run of a task's code, whoever asked for it: a flow's job or a bare task.
 *
 * Code, schema, storage and trace events, so that an outcome is final when it is reported. */
#ifndef SEL_WORKER_RUN_H
#define SEL_WORKER_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/str.h"
#include "core/system.h"
#include "worker/engine.h"
#include "worker/exec.h"
#include "worker/loop.h"

struct sel_parents;

enum sel_job_outcome {
    SEL_JOB_DONE,
    SEL_JOB_FAILED,
    SEL_JOB_RETRY,
    SEL_JOB_RETURNED, /* was cancelled and goes elsewhere: nobody was told of it */
};

/* Everything is borrowed for the call; texts of the outcome live in `arena` or for ever. */
struct sel_run {
    struct sel_engine *engine;
    struct sel_loop *loop;
    struct sel_arena *arena;
    const struct sel_task_def *task;
    uint32_t task_index;
    const struct sel_flow_def *flow; /* NULL: a bare task */
    const char *id;                  /* text, as tasks and storages see it */
    const char *dispatcher_id;
    struct sel_str args; /* encoded */
    struct sel_parents *parents;
    struct sel_str parents_bytes;      /* in place of `parents`: as they came over the wire */
    uint32_t retried_count, try_count; /* that count against max_retry; all */
    struct sel_buf *scratch;           /* see struct sel_task_env */
    void *user;                        /* the caller's */
    bool is_cancelled;                 /* before it began */
    bool may_return;                   /* a cancelled run is SEL_JOB_RETURNED and no failure */
    bool looks_first; /* an earlier delivery may have stored a result: it is taken */
    bool is_timed;    /* run_us and end_us are wanted */

    /* The outcome. */
    struct sel_task_env env;
    struct sel_exec_result result;
    enum sel_job_outcome outcome;
    double countdown_s; /* SEL_JOB_RETRY */
    bool user_retry;    /* the task asked for it: it does not count against max_retry */
    int64_t run_us;     /* how long the code ran */
    int64_t end_us;     /* when it ended, by the loops' clock, or 0 */
};

/* Runs the code, checks and stores the result, emits the trace events. Always sets the outcome. */
SEL_CO void sel_run_task(struct sel_run *run);

#endif
