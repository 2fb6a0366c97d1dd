/* worker/exec.h - running one task: arguments in, outcome out.
 *
 * The runtimes (C functions of modules, executables, the mock) stand behind one interface. A task
 * is validated against its schema and stored here, so that an outcome is final when it is
 * reported. */
#ifndef SEL_WORKER_EXEC_H
#define SEL_WORKER_EXEC_H

#include <selinon/task.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"
#include "core/system.h"
#include "core/value.h"
#include "storage/storage.h"
#include "worker/loop.h"

struct sel_task_env;

/* What user code may ask of the engine; given by the dispatcher host. All may suspend if they are
 * called from a coroutine. For tasks with `blocking: true` they are called on a thread of the pool
 * instead (sel_co_current() is NULL there), then they block. A NULL function knows of nothing: no
 * parents, no storages, no failures. Results are 0 or negative with `err`. */
struct sel_task_host {
    void *ctx;
    /* The parents of a run (or its failed parents), as the map that task.h describes, in `arena`.
     */
    int (*parents)(void *ctx, const struct sel_task_env *env, bool failed, struct sel_arena *arena,
                   struct sel_value *ret, struct sel_error *err);
    /* The opened storage `index` of the system, connected on first use. */
    int (*storage)(void *ctx, uint32_t index, struct sel_storage **ret, struct sel_error *err);
    /* {class, message} of a failed run by its id text, in `arena`; SEL_ENOTFOUND: it did not fail.
     */
    int (*exception)(void *ctx, const struct sel_task_env *env, struct sel_str run_id,
                     struct sel_arena *arena, struct sel_value *ret, struct sel_error *err);
    void (*log)(void *ctx, const struct sel_task_env *env, enum sel_log_level level,
                struct sel_str text);
    /* A trace event (core/trace.h number) about a storage operation of user code. */
    void (*trace)(void *ctx, uint32_t event, const struct sel_value *details);
    bool tracing; /* whether trace is worth building details for */
    /* The cache of results of storage `index`, asked for parent results only. 1: *ret is set, in
     * `arena`; 0: a miss; < 0 trouble, which is traced and otherwise ignored. Both or none. */
    int (*cache_get)(void *ctx, uint32_t index, struct sel_str run_id, struct sel_arena *arena,
                     struct sel_str *ret, struct sel_error *err);
    int (*cache_add)(void *ctx, uint32_t index, struct sel_str run_id, struct sel_str value,
                     struct sel_error *err);
    /* Called before and after the code of a blocking task, on the thread of the pool. May be NULL.
     */
    void (*on_pool)(void *ctx, const struct sel_task_env *env, bool begins);
};

/* One execution of a task, or one call of a user function (then `task` is NULL). Filled by the
 * caller, borrowed for the call. */
struct sel_task_env {
    const struct sel_system *system;
    const struct sel_task_host *host;
    const struct sel_task_def *task; /* NULL: a foreach, selective, ... function of a flow */
    const struct sel_flow_def *flow;
    const char *task_id;       /* text of the run id; "" for functions */
    const char *dispatcher_id; /* text of the flow id */
    uint32_t retried_count;
    uint32_t try_count;           /* with the retries that the task itself has asked for */
    struct sel_str args;          /* node_args, msgpack bytes */
    void *parents;                /* the host's own handle for its callbacks */
    struct sel_str parents_bytes; /* in place of it: worker/flow_codec.h */
    struct sel_buf *scratch;      /* of the loop's thread, for what does not suspend; NULL: none */
};

enum sel_exec_outcome {
    SEL_EXEC_SUCCESS,
    SEL_EXEC_FAILURE, /* an exception: max_retry applies */
    SEL_EXEC_FATAL,   /* FatalTaskError */
    SEL_EXEC_RETRY,   /* the task asked for it */
    SEL_EXEC_CANCELED,
};

struct sel_exec_result {
    enum sel_exec_outcome outcome;
    struct sel_str value;    /* success: msgpack bytes, in the arena of the call */
    const char *error_class; /* failure, fatal; in the arena or static */
    const char *error_message;
    /* Retry: seconds until the next run. Failure: if a storage was the reason, its
     * `retry_seconds` (default 60), in place of the retry_countdown of the task; else negative. */
    double retry_s;
};

#define SEL_STORAGE_RETRY_S_DEFAULT 60.0

/* A task runtime: how the code of a task is found and run. */
struct sel_runtime_ops {
    /* Finds the code of a task; called once a task at start-up. 0 or an error with `err`. The
     * code belongs to `self`. */
    int (*prepare)(void *self, const struct sel_task_def *task, void **ret_code,
                   struct sel_error *err);
    /* Runs it in the calling coroutine. Always fills `ret`. */
    void (*run)(void *self, void *code, struct sel_task *task, struct sel_exec_result *ret);
};

/* The API object behind `struct sel_task`, in `arena`, for the calling coroutine. `env` must
 * outlive it. The order is new, the user's function, take_result, done. NULL: out of memory, or
 * `env->args` is no encoded value. */
struct sel_task *sel_task_new(struct sel_arena *arena, const struct sel_task_env *env);
/* Runs deferred clean-ups; the arena frees the rest. NULL allowed. */
void sel_task_done(struct sel_task *task);
const struct sel_task_env *sel_task_get_env(const struct sel_task *task);
struct sel_arena *sel_task_arena(struct sel_task *task);
/* What the user code ended with, from its return code and what was noted. `ret` is filled in
 * every case; its texts live in the arena or for ever. */
void sel_task_take_result(struct sel_task *task, int code, struct sel_exec_result *ret);
/* The result itself as a value, for callers that look into it (foreach and selective functions);
 * null if none was given. */
const struct sel_value *sel_task_result(const struct sel_task *task);

/* The two built-in runtimes. `modules` for C functions; executables need none. */
struct sel_modules;
extern const struct sel_runtime_ops sel_runtime_module; /* self: struct sel_modules * */
extern const struct sel_runtime_ops sel_runtime_exec;   /* self: NULL */

#endif
