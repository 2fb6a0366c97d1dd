/* worker/job.h - one run of a task on its way through queue, loop and back.
 *
 * A job belongs to the hub; while it is under way, the loop that runs it may touch `outcome` and
 * what follows, and read the rest. */
#ifndef SEL_WORKER_JOB_H
#define SEL_WORKER_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/id.h"
#include "worker/engine.h"
#include "worker/loop.h"
#include "worker/parents.h"
#include "worker/run.h"

struct sel_flow_run;

/* Bytes shared by the jobs and sub-flows of a flow; counted by the hub thread alone. */
struct sel_blob {
    uint32_t refs;
    size_t size;
    char bytes[];
};
struct sel_blob *sel_blob_new(struct sel_str bytes); /* one reference; NULL: out of memory */
struct sel_blob *sel_blob_ref(struct sel_blob *blob);
void sel_blob_unref(struct sel_blob *blob); /* NULL allowed */
static inline struct sel_str sel_blob_str(const struct sel_blob *blob)
{
    return (struct sel_str){blob->bytes, blob->size};
}

/* A piece of work that waits in a queue or for its time: a job, or a flow to start. */
enum sel_work_kind {
    SEL_WORK_JOB,
    SEL_WORK_FLOW,  /* a flow starts, or starts over */
    SEL_WORK_ALARM, /* a sampled flow looks at what has ended */
    SEL_WORK_WAKE,  /* a coroutine of the hub goes on, struct sel_hub_sleep */
};

struct sel_work {
    struct sel_work *next;
    enum sel_work_kind kind;
    uint32_t queue;
    uint32_t heap_index; /* of the delays; UINT32_MAX: not delayed */
    int64_t due_us;
    uint64_t serial; /* equal times keep their order */
};

struct sel_job {
    struct sel_work work; /* first */
    struct sel_post post; /* between hub and loops */
    struct sel_engine *engine;
    struct sel_job_worker *worker;
    struct sel_flow_run *flow;
    const struct sel_flow_def *flow_def;
    const struct sel_task_def *task;
    uint32_t task_index;
    struct sel_id flow_id;
    uint32_t ordinal, attempt;
    bool nowait;
    uint32_t retried_count;
    struct sel_parents *parents; /* NULL: none */
    struct sel_blob *args;

    struct sel_co *co; /* while it runs */
    struct sel_job *prev_running, *next_running;
    enum sel_job_outcome outcome;
    double countdown_s; /* SEL_JOB_RETRY */
    bool user_retry;    /* the task asked for it: it does not count against max_retry */
    int64_t run_us;     /* how long the code ran */
    int64_t end_us;     /* when it ended, by the loops' clock, or 0 */
};

/* The part of a thread that runs jobs: arenas are kept for the next one. */
struct sel_job_worker {
    struct sel_loop *loop;
    struct sel_job *running;  /* a list, of those that have a coroutine */
    struct sel_arena *arenas; /* a stack of idle ones */
    uint32_t arena_count, arena_cap;
    uint32_t in_flight; /* the hub's count */
    bool canceled;      /* jobs that come from now on are not begun */
};

void sel_job_worker_done(struct sel_job_worker *worker);

/* Cancels all jobs that run on the worker's loop or will come to it; on its own thread. */
void sel_job_cancel_all(struct sel_job_worker *worker);

/* Runs the code, checks and stores the result, emits the trace events. Always sets `outcome`. */
SEL_CO void sel_job_run(struct sel_job *job);

/* The id that storages see: of the job's run. */
const char *sel_job_id(const struct sel_job *job, char out[SEL_RUN_ID_TEXT_SIZE]);

#endif
