/* worker/executor.h - the whole engine in one process: what `selinon-cli execute` runs.
 *
 * One hub thread keeps the flows and the queues in place of a broker; it and the other threads run
 * the tasks as coroutines on their loops. A run ends when nothing is left to do, detached work
 * included. */
#ifndef SEL_WORKER_EXECUTOR_H
#define SEL_WORKER_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "core/selective.h"
#include "core/system.h"
#include "core/trace.h"
#include "core/value.h"
#include "storage/storage.h"
#include "worker/exec.h"

struct sel_mock;
struct sel_modules;
struct sel_executor;

/* A result of an earlier run: before the run, the node with this id counts as finished and its
 * result lies in the storage of the task. */
struct sel_executor_preset {
    const char *id;
    struct sel_str task;
    struct sel_value result;
};

/* One run of a task's code, when it has ended; for tests and displays. Borrowed for the call. */
struct sel_execution {
    const struct sel_task_def *task;
    const struct sel_flow_def *flow;
    const char *task_id;
    uint32_t try_count;              /* on a cluster; else 0 */
    struct sel_str node_args;        /* encoded */
    const struct sel_value *parents; /* as tasks see them, if the observer wants them, else NULL */
    const struct sel_exec_result *result;
    bool will_retry;
    double countdown_s; /* with will_retry */
};

enum sel_flow_outcome { SEL_FLOW_SUCCESS, SEL_FLOW_FAILURE, SEL_FLOW_RETRY, SEL_FLOW_CANCELED };

/* One end of an attempt of a flow. */
struct sel_flow_end {
    const struct sel_flow_def *flow;
    struct sel_id id;
    struct sel_str start_args; /* encoded */
    enum sel_flow_outcome outcome;
    const struct sel_value *finished_nodes, *failed_nodes; /* name -> ids */
    bool is_top;
};

/* Everything may be called on any thread, several at once. Members may be NULL. */
struct sel_executor_observer {
    void *ctx;
    bool wants_parents; /* a map over all runs of a sub-flow takes its time to make */
    void (*execution)(void *ctx, const struct sel_execution *execution);
    void (*flow_end)(void *ctx, const struct sel_flow_end *end);
    /* On a cluster once more, perhaps, if a run was delivered again. */
    void (*stored)(void *ctx, const struct sel_storage_def *storage,
                   const struct sel_task_def *task, const struct sel_flow_def *flow,
                   struct sel_str result);
    /* `age_us`: how long ago it was. */
    void (*trace)(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                  int64_t age_us);
};

struct sel_executor_progress {
    uint64_t started, finished, failed, running, queued, retried; /* node runs */
    uint64_t delayed;                                             /* waiting for their time */
    uint64_t flows_active;
    int64_t elapsed_us; /* virtual time if so chosen */
};

/* Times of the executions of one task. */
struct sel_task_times {
    uint64_t count, retried, failed;
    int64_t p50_us, p99_us, max_us;
};

struct sel_executor_options {
    const struct sel_system *system;
    struct sel_modules *modules; /* may be NULL with a mock */
    struct sel_mock *mock;       /* NULL: real code */
    const char *mock_results; /* folder in which, with a mock, the storages that are in memory, or
                                 cannot be had, are kept for all processes; NULL: in memory */
    double speed;             /* delays pass so many times as fast; 0: once */
    struct sel_str flow_name;
    struct sel_str node_args;                      /* encoded; n == 0: null */
    const struct sel_selective_request *selective; /* NULL: a normal run */
    const struct sel_executor_preset *presets;
    uint32_t preset_count;
    uint32_t threads;          /* 0: 1 */
    uint32_t slots;            /* tasks under way on each thread; 0: 1024 */
    bool virtual_time;         /* delays pass at once */
    uint64_t shuffle_seed;     /* 0: completions in the order in which they come */
    bool ignore_sampling;      /* flows with `sampling` react at once too */
    int64_t function_limit_us; /* for the user functions of one decision; 0: 60 s */
    const char *const *queues; /* serve only these; NULL: all */
    uint32_t queue_count;
    const char *(*getenv)(void *ctx, const char *name); /* NULL: the process's own */
    void *getenv_ctx;
    const struct sel_executor_observer *observer;                       /* may be NULL */
    void (*log)(void *ctx, enum sel_log_level level, const char *line); /* NULL: standard error */
    void *log_ctx;
    int verbosity; /* 1: info, 2: debug */
    /* Called about every `progress_us` on the hub thread. */
    void (*progress)(void *ctx, const struct sel_executor_progress *progress);
    void *progress_ctx;
    int64_t progress_us;
    /* Asked by the hub a few times a second: true cancels the run (Ctrl-C). */
    bool (*should_stop)(void *ctx);
    void *stop_ctx;
};

struct sel_executor_report {
    enum sel_flow_outcome outcome;
    struct sel_id flow_id;
    struct sel_value state; /* {finished_nodes, failed_nodes, active_nodes} of the top flow */
    const char *reason;     /* of a failure that no node explains, else NULL */
    struct sel_executor_progress progress;
    int64_t last_end_us; /* when the last task or flow ended, since the start */
    uint64_t stuck;      /* work left because no queue that is served has it */
};

/* Opens storages, finds the code of all tasks and functions: what is missing shows here, before
 * anything runs. SEL_EREQUEST unknown flow, SEL_ENOPATH, SEL_ENOTFOUND code, SEL_ESTORAGE, ... */
int sel_executor_new(const struct sel_executor_options *options, struct sel_executor **ret,
                     struct sel_error *err) SEL_WARN_UNUSED;
/* Runs to the end on the calling thread, which becomes the hub. 0 (whatever the outcome), or an
 * error that kept the engine from going on. The report lives as long as the executor. */
int sel_executor_run(struct sel_executor *executor, const struct sel_executor_report **ret,
                     struct sel_error *err) SEL_WARN_UNUSED;
/* Times by task; false: no such task or it never ran. After the run. */
bool sel_executor_task_times(const struct sel_executor *executor, uint32_t task,
                             struct sel_task_times *ret);
/* Time since the start, virtual if so chosen: for observers, on any thread if it is virtual; not
 * while the executor is freed. */
int64_t sel_executor_now_us(const struct sel_executor *executor);
/* On the thread that made and ran it; returns NULL. */
struct sel_executor *sel_executor_free(struct sel_executor *executor);

#endif
