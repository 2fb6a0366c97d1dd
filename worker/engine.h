/* worker/engine.h - what running tasks need, opened once and shared by the threads of a process:
 * code, schemas, storages, sinks.
 *
 * After sel_engine_new it changes only inside (storages that nobody needed at the start are opened
 * on first use); all functions are thread safe. */
#ifndef SEL_WORKER_ENGINE_H
#define SEL_WORKER_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/state.h"
#include "core/system.h"
#include "core/trace.h"
#include "storage/schema.h"
#include "storage/storage.h"
#include "worker/exec.h"
#include "worker/executor.h"
#include "worker/result_cache.h"
#include "worker/tracer.h"

struct sel_mock;
struct sel_modules;
struct sel_parents;

struct sel_engine_code {
    const struct sel_runtime_ops *ops; /* NULL: the flow at hand cannot reach the task */
    void *self, *code;
    struct sel_schema *schema; /* or NULL */
};

/* By index in the system; NULL: none. Used by one thread alone. */
struct sel_engine_caches {
    struct sel_result_cache **tasks, **storages; /* of results */
    struct sel_result_cache **flows;             /* of the states of their nodes */
};

struct sel_engine {
    const struct sel_executor_options *options;
    const struct sel_system *system;
    struct sel_engine_code *codes;   /* by task */
    struct sel_storage **storages;   /* by index; NULL: not open yet */
    struct sel_engine_caches caches; /* of the executor's hub */
    pthread_key_t caches_key;        /* those of a thread of a worker; NULL: the ones above */
    bool has_caches_key;
    struct sel_shared_caches shared_caches;
    pthread_mutex_t storage_lock; /* while a storage is opened */
    pthread_mutex_t lock;         /* of `failures` */
    struct sel_tracer *tracer;
    struct sel_task_host host;
    struct sel_failure_table *failures; /* class and message by run id, for parent exceptions */
    bool keeps_failures;                /* whether anybody may ask for them */
    struct sel_arena report_arena;      /* texts of the report */
};

/* `flow`: only what it can reach is prepared. NULL: all tasks are, for workers; those of queues
 * that options->queues does not name may lack code (codes[i].ops is NULL then). `options` and its
 * system outlive the engine. Errors as sel_executor_new. */
int sel_engine_new(const struct sel_executor_options *options, const struct sel_flow_def *flow,
                   struct sel_engine **ret, struct sel_error *err) SEL_WARN_UNUSED;
struct sel_engine *sel_engine_free(struct sel_engine *engine); /* returns NULL */

/* The storage `index`, opened if need be (which blocks). */
int sel_engine_storage(struct sel_engine *engine, uint32_t index, struct sel_storage **ret,
                       struct sel_error *err) SEL_WARN_UNUSED;

/* Finds what flows call besides tasks: functions of modules. What is missing is told to the log:
 * flows that need it are not for this worker. For an engine that was made without a flow. */
void sel_engine_prepare_flows(struct sel_engine *engine);
/* Whether all functions that decisions of `flow` call are here: 0, or what sel_modules_find says.
 */
int sel_engine_check_flow(struct sel_engine *engine, const struct sel_flow_def *flow,
                          struct sel_error *err) SEL_WARN_UNUSED;

/* Caches belong to one thread: opens those that the calling one looks into from now on. 0, or what
 * sel_result_cache_open says. For an engine that was made without a flow, which has no others. */
int sel_engine_open_caches(struct sel_engine *engine, struct sel_error *err) SEL_WARN_UNUSED;
/* By the same thread, before the engine is freed; if it opened none, nothing. */
void sel_engine_close_caches(struct sel_engine *engine);

/* The cache that results of a task go through, NULL if none: its own, else that of its storage. */
struct sel_result_cache *sel_engine_result_cache(const struct sel_engine *engine,
                                                 const struct sel_task_def *task);
/* The cache of the states of a flow's nodes, NULL if none. */
struct sel_result_cache *sel_engine_state_cache(const struct sel_engine *engine,
                                                const struct sel_flow_def *flow);

static inline bool sel_engine_is_traced(const struct sel_engine *engine)
{
    return sel_tracer_is_on(engine->tracer);
}

/* How long a delay of the configuration takes: see `speed` of the options. */
static inline int64_t sel_engine_delay_us(const struct sel_engine *engine, int64_t us)
{
    double speed = engine->options->speed;
    return speed > 0 ? (int64_t)((double)us / speed) : us;
}

/* Keeps what a run failed with, for parent exceptions. Without memory for it nothing is kept. */
void sel_engine_note_failure(struct sel_engine *engine, const char *run_id, const char *error_class,
                             const char *message);

/* "class: message" of a failed run, in `arena`; a text that says so if it is not known. */
const char *sel_engine_failure_text(struct sel_engine *engine, const struct sel_state *state,
                                    uint32_t ordinal, struct sel_arena *arena);

/* ---- between engine.c and engine_cache.c ---- */
int sel_engine_caches_init(struct sel_engine *engine,
                           struct sel_engine_caches *caches) SEL_WARN_UNUSED; /* 0 or SEL_ENOMEM */
void sel_engine_caches_done(struct sel_engine *engine, struct sel_engine_caches *caches);
int sel_engine_open_task_caches(struct sel_engine *engine, struct sel_engine_caches *caches,
                                uint32_t task, struct sel_error *err) SEL_WARN_UNUSED;
int sel_engine_open_flow_cache(struct sel_engine *engine, struct sel_engine_caches *caches,
                               uint32_t flow, struct sel_error *err) SEL_WARN_UNUSED;
/* The environment of the run; `ctx`: its options. */
const char *sel_engine_getenv(void *ctx, const char *name);

/* The parents of a run as tasks see them, from whichever there is: `parents`, or `bytes` as they
 * came over the wire. As sel_parents_to_value and sel_flow_take_parents. */
int sel_engine_parents_value(const struct sel_engine *engine, struct sel_parents *parents,
                             struct sel_str bytes, bool failed, struct sel_arena *arena,
                             struct sel_value *ret) SEL_WARN_UNUSED;

/* One line to the log. */
void sel_engine_log(const struct sel_engine *engine, enum sel_log_level level, const char *fmt, ...)
    SEL_PRINTF(3, 4);

#endif
