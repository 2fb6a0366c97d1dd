/* worker/hub.h - flows that decide: what `selinon-cli execute` and a dispatcher have in common.
 *
 * The hub belongs to one loop's thread. A flow run holds the state of one flow; its decisions go
 * forward a step at a time, in turns with the others. What a decision needs from outside is got by
 * a coroutine of its own (hub_needs.c). What becomes of starts, events and ends says a table of
 * functions: here there are local queues (hub_local.c, hub_jobs.c), of which jobs leave by
 * sel_hub_pop and come back by sel_hub_job_done; on a cluster worker/dispatcher.c tells the
 * broker. Private to worker/hub*.c, worker/executor.c and worker/dispatcher*.c. */
#ifndef SEL_WORKER_HUB_H
#define SEL_WORKER_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "core/decide.h"
#include "core/histogram.h"
#include "core/pool.h"
#include "core/prng.h"
#include "core/strategy.h"
#include "worker/engine.h"
#include "worker/executor.h"
#include "worker/failures.h"
#include "worker/job.h"
#include "worker/local_queue.h"
#include "worker/loop.h"
#include "worker/parents.h"

struct sel_hub;
struct sel_flow_run;

/* What differs from one owner of flows to the other. */
struct sel_hub_ops {
    /* A node starts: the state has it. `parents` is borrowed, or NULL. 0 or SEL_ENOMEM. */
    int (*start)(struct sel_flow_run *run, const struct sel_start *start,
                 struct sel_parents *parents);
    /* The next decision uses the end of a run. May be NULL. */
    void (*consume)(struct sel_flow_run *run, uint32_t ordinal);
    /* The attempt ends so: the state still shows it. */
    void (*attempt_ends)(struct sel_flow_run *run, enum sel_decide_result result);
    /* A step of a decision is done; its events lie in the decider's record, which is emptied here.
     * true: the next input is to be decided at once, before any other flow. */
    bool (*stepped)(struct sel_flow_run *run, int result);
    /* Then, for an end or a retry: nothing more is decided in this attempt. */
    void (*over)(struct sel_flow_run *run, enum sel_decide_result result);
    /* The flow fails for a reason that no node explains. */
    void (*note_reason)(struct sel_flow_run *run, const char *reason);
    /* It cannot go on here at all (out of memory). */
    void (*give_up)(struct sel_flow_run *run, int code, const char *what);
    /* Whether what the run decides finds room. */
    bool (*has_room)(const struct sel_flow_run *run);
    /* sel_hub_wake_flow is to be called after `us`. 0 or SEL_ENOMEM. */
    int (*set_alarm)(struct sel_flow_run *run, int64_t us);
    /* Answers the needs of the decider without a coroutine; NULL: hub_needs.c does. 0, or < 0 and
     * `err`. */
    int (*answer)(struct sel_flow_run *run, struct sel_error *err);
    /* "class: message" of a failed run, in `arena` or for ever. */
    const char *(*failure_text)(struct sel_flow_run *run, uint32_t ordinal,
                                struct sel_arena *arena);
    /* Around what is done for the run on the loop's own stack, and in its coroutine (there `begins`
     * is told first, and false when it is about to end). May be NULL. */
    void (*deciding)(struct sel_flow_run *run, bool begins);
    void (*fetching)(struct sel_flow_run *run, bool begins);
    /* A trace event of the run; `details` is borrowed. NULL: it is emitted at once. */
    void (*trace)(struct sel_flow_run *run, enum sel_trace_event event,
                  const struct sel_value *details);
    /* Frees what the owner added to the run. May be NULL. */
    void (*free)(struct sel_flow_run *run);
};

/* A node run that ended, waiting for its flow to look at it. */
struct sel_flow_input {
    uint32_t ordinal;
    bool failed;
};

/* The failed runs of the flow that a run started by a fallback hands on to what follows it, one of
 * each node; SEL_NONE stands for the failed parents of the flow itself. Shared, never changed. */
struct sel_failed_runs {
    uint32_t refs, count;
    uint32_t runs[];
};

struct sel_lineage {
    uint32_t ordinal;
    struct sel_failed_runs *failed;
};

/* A coroutine that sleeps in virtual time. */
struct sel_hub_sleep {
    struct sel_work work; /* first */
    struct sel_hub *hub;
    struct sel_io_waiter waiter;
    bool is_waiting; /* nobody has woken it yet */
};
void sel_hub_wake(struct sel_work *work);

struct sel_flow_run {
    struct sel_work work; /* first: waits in the queue of dispatchers to start */
    struct sel_hub *hub;
    const struct sel_flow_def *flow;
    const struct sel_plan *plan;
    bool is_edge_plan;
    struct sel_state state;
    struct sel_decider *decider;
    struct sel_decide_sink sink;

    /* of local flows */
    struct sel_flow_run *parent; /* NULL: the top flow */
    uint32_t parent_ordinal, parent_attempt;
    bool detached;         /* the parent does not wait for it */
    struct sel_blob *args; /* the state's arguments as the jobs share them; NULL: to be made */
    bool args_changed;     /* `args` are those of node_args_from_first */

    bool keep; /* its final state will be asked for */
    struct sel_parents *parents;
    uint32_t refs;                    /* one of its owner; its jobs, children, coroutines */
    bool ended;                       /* or its owner no longer wants it: nothing is decided */
    bool canceled;                    /* it is to end so, as soon as nothing is fetched for it */
    struct sel_ended_flow **children; /* parallel to state.children, which may be longer */
    uint32_t child_count, children_cap;
    struct sel_run_failures failures; /* on a cluster; else the engine knows them */

    struct sel_flow_input *inputs; /* a ring */
    uint32_t input_head, input_count, input_cap;
    bool to_start;              /* START is the next input */
    bool deciding;              /* in the middle of a decision */
    uint32_t budget;            /* conditions and starts of a step */
    bool fetching;              /* a coroutine gets what the decision needs */
    struct sel_co *fetcher;     /* that coroutine, once it runs */
    struct sel_hub_sleep sleep; /* its own: work in a queue outlives the coroutine */
    bool is_ready;
    struct sel_flow_run *next_ready;
    struct sel_result_cache *states; /* of its nodes; NULL: the flow has no cache */
    uint32_t noted_count;            /* inputs at the head of the ring that `states` knows */

    uint64_t combination; /* the one that combination_parents are of; UINT64_MAX: none */
    struct sel_parents *combination_parents;
    uint64_t failed_combination; /* the same for combination_failed */
    struct sel_failed_runs *combination_failed;
    struct sel_lineage *lineage; /* ascending ordinals */
    uint32_t lineage_count, lineage_cap;
    double countdown_s; /* of the node started last, for its trace event; negative: none */

    /* flows that configure `sampling` */
    bool sampled, asleep;
    bool has_previous_retry;
    double previous_retry_s;
    uint32_t new_started, new_fallback; /* since the last look */
    struct sel_work alarm;

    struct sel_flow_run *prev, *next; /* all flow runs of the hub */
};

struct sel_hub_counters {
    uint64_t started, finished, failed, retried;
    uint64_t flows_active; /* not ended, whether queued, delayed or running */
    uint64_t in_flight;    /* jobs with the loops */
};

/* How the executions of a task went. */
struct sel_hub_times {
    struct sel_histogram *run_us; /* NULL: none yet */
    uint64_t retried, failed;
};

struct sel_hub {
    const struct sel_hub_ops *ops;
    size_t run_size; /* of a flow run with what its owner adds */
    /* Flow runs: the heap tidies up whenever a piece as large as one is taken or given back. */
    struct sel_pool runs;
    /* By flow: those that are over, by next_ready, with the memory of their states and deciders;
     * small ones, and few. */
    struct sel_flow_run **spares;
    uint32_t spare_count;
    struct sel_engine *engine;
    const struct sel_system *system;
    struct sel_loop *loop; /* NULL: ops->answer answers */
    struct sel_id_source ids;
    int64_t (*unix_ms)(void *ctx); /* for new ids */
    void *clock_ctx;
    struct sel_plan_cache *plans;
    struct sel_predicate_world world;
    uint32_t flow_nodes_max; /* that an attempt of a flow may start; 0: any number */
    struct sel_prng prng;
    struct sel_flow_run *first_ready, *last_ready;
    struct sel_flow_run *all;
    uint64_t fetching; /* coroutines under way */
    struct sel_arena trace_arena;
    bool canceled; /* all of it */
    int fatal;     /* the engine cannot go on */

    /* of local flows */
    struct sel_local_queues queues;
    bool virtual_time;
    int64_t virtual_us; /* time passed, with virtual_time */
    int64_t begin_us;   /* of the loop's clock */
    int64_t last_end_us;
    struct sel_flow_run *top;
    struct sel_hub_counters counters;
    uint64_t shuffle_seed;
    struct sel_job **held; /* completions kept back to be shuffled */
    uint32_t held_count, held_cap;
    struct sel_hub_times *times; /* by task */
    struct sel_error fatal_error;
    struct sel_executor_report *report;
};

/* ---- local flows: hub_local.c, hub_jobs.c ---- */

/* `loop` is the calling thread's. */
int sel_hub_init(struct sel_hub *hub, struct sel_engine *engine, struct sel_loop *loop,
                 struct sel_executor_report *report, struct sel_error *err) SEL_WARN_UNUSED;
void sel_hub_done(struct sel_hub *hub);

/* Time since the start, virtual if so chosen. */
int64_t sel_hub_now_us(const struct sel_hub *hub);

/* Schedules the top flow. */
int sel_hub_submit(struct sel_hub *hub, const struct sel_flow_def *flow, struct sel_str args,
                   const struct sel_plan *plan) SEL_WARN_UNUSED;

/* The next job of a served queue; flows that are due are started on the way. NULL: none. */
struct sel_job *sel_hub_pop(struct sel_hub *hub);
/* A job came back: its outcome counts now. */
void sel_hub_job_done(struct sel_hub *hub, struct sel_job *job);
/* With a shuffle seed: lets one of the completions that were kept back count, drawn by the seed.
 * false: none did. */
bool sel_hub_settle_held(struct sel_hub *hub);
/* True: nothing is left that would go on by itself. */
bool sel_hub_is_idle(const struct sel_hub *hub);
/* Cancels all flows; what runs is not waited for by them. */
void sel_hub_cancel(struct sel_hub *hub);

void sel_hub_fatal(struct sel_hub *hub, int code, const char *what);
void sel_hub_count_end(struct sel_hub *hub, bool failed);  /* of a node run, awaited or not */
void sel_hub_note_end(struct sel_hub *hub, int64_t at_us); /* when: for the report */
void sel_hub_free_job(struct sel_job *job);
/* After sel_hub_cancel, for a flow that nobody fetches anything for. */
void sel_hub_cancel_flow(struct sel_flow_run *run);

/* ---- all flows: hub.c ---- */

/* A zeroed hub whose ops, run_size, clock and ids are set. 0 or SEL_ENOMEM. */
int sel_hub_open(struct sel_hub *hub, struct sel_engine *engine,
                 struct sel_loop *loop) SEL_WARN_UNUSED;
/* Frees all flow runs, whoever refers to them. */
void sel_hub_close(struct sel_hub *hub);

struct sel_hub_run_options {
    const struct sel_flow_def *flow;
    struct sel_id id;
    uint32_t attempt;
    struct sel_str args; /* encoded; copied */
    const struct sel_plan *plan;
    bool is_edge_plan;
};
/* One reference; NULL: out of memory. It decides nothing before it is made ready. */
struct sel_flow_run *sel_hub_new_run(struct sel_hub *hub,
                                     const struct sel_hub_run_options *options);
struct sel_flow_run *sel_hub_flow_ref(struct sel_flow_run *run);
void sel_hub_flow_unref(struct sel_flow_run *run);

/* Lets ready flows decide, up to a bounded amount. */
void sel_hub_turn(struct sel_hub *hub);
/* Whether another turn would do something at once. */
bool sel_hub_can_go_on(const struct sel_hub *hub);

void sel_hub_make_ready(struct sel_flow_run *run);
/* Its attempt fails (DISPATCHER_FAILURE), in the middle of a decision if need be. */
void sel_hub_fail_flow(struct sel_flow_run *run, const char *reason);
/* The flow succeeds now; what is still active is no longer waited for. */
void sel_hub_end_flow(struct sel_flow_run *run);
/* It is to be cancelled: at once, or when nothing is fetched for it any more. */
void sel_hub_cancel_run(struct sel_flow_run *run);
/* In the middle of a decision too, but not while something is fetched for it. */
void sel_hub_cancel_now(struct sel_flow_run *run);
/* Nobody wants it any more: nothing is decided, and what is fetched is not waited for. */
void sel_hub_drop_run(struct sel_flow_run *run);
/* A node run ended: the flow is to look at it. Flows that are sampled do when their alarm rings. */
void sel_hub_node_ended(struct sel_flow_run *run, uint32_t ordinal, bool failed);
/* The alarm of a sampled flow rings. */
void sel_hub_wake_flow(struct sel_flow_run *run);
/* Forgets what ended and was not decided: a new attempt begins. */
void sel_hub_begin_anew(struct sel_flow_run *run);

/* Room for all children that the state has. false: out of memory. */
bool sel_hub_grow_children(struct sel_flow_run *run) SEL_WARN_UNUSED;
void sel_hub_drop_children(struct sel_flow_run *run);
/* The flow's final state goes to those who may ask for it; NULL: out of memory. */
struct sel_ended_flow *sel_hub_take_ended(struct sel_flow_run *run);

/* The parents of what a combination starts; borrowed. 0 or SEL_ENOMEM. */
int sel_hub_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                    struct sel_parents **ret) SEL_WARN_UNUSED;

/* The final state of a sub-flow that has ended, if it was kept; else NULL. */
struct sel_ended_flow *sel_hub_ended_child(const struct sel_flow_run *run, uint32_t ordinal);

/* Keeps the failed runs that `combination` hands on to `ordinal`. 0 or SEL_ENOMEM. */
int sel_hub_note_lineage(struct sel_flow_run *run, uint32_t ordinal,
                         const struct sel_combination *combination) SEL_WARN_UNUSED;
/* Applies events of another dispatcher to the state, and does with them what sel_hub_note_lineage
 * does. 0, SEL_EFORMAT, SEL_ENOMEM. */
int sel_hub_replay(struct sel_flow_run *run, struct sel_str events) SEL_WARN_UNUSED;
/* The lineage as bytes; errors stick in `buf`. */
void sel_hub_put_lineage(const struct sel_flow_run *run, struct sel_buf *buf);
/* The inverse, into a run that has its state and none yet. 0, SEL_EFORMAT, SEL_ENOMEM. */
int sel_hub_take_lineage(struct sel_flow_run *run, struct sel_str bytes) SEL_WARN_UNUSED;
/* The attempt is over: parents and lineage are no longer needed. */
void sel_hub_forget_parents(struct sel_flow_run *run);

/* Answers the needs of the run's decision in a coroutine, then makes it ready. */
void sel_hub_fetch(struct sel_flow_run *run);
/* Asks the sampling strategy and sets the alarm, in a coroutine if user code is asked. */
void sel_hub_sample(struct sel_flow_run *run);

/* Adds the states of the runs whose end the flow has not looked at yet to its cache, in a
 * coroutine, then makes it ready. */
void sel_hub_note_states(struct sel_flow_run *run);
/* One of them, in that coroutine. `arena` is for the call. */
SEL_CO void sel_hub_note_state(struct sel_flow_run *run, struct sel_arena *arena,
                               const struct sel_flow_input *input);
/* How the run `id`, whose result is to stand for the node `slot`, ended: asks the cache of states,
 * then the storage of its task. Only says so if the result cannot be there. */
SEL_CO void sel_hub_look_up_reused(struct sel_flow_run *run, struct sel_arena *arena, uint32_t slot,
                                   struct sel_str id);

/* Trace events of the dispatcher. */
void sel_hub_trace_note(void *ctx, enum sel_trace_event event, const struct sel_note *note);
void sel_hub_trace_schedule(struct sel_flow_run *run); /* FLOW_SCHEDULE */
/* DISPATCHER_WAKEUP, DISPATCHER_RETRY, DISPATCHER_FAILURE (with `what`). */
void sel_hub_trace_dispatcher(struct sel_flow_run *run, enum sel_trace_event event,
                              const char *what);
/* Tells the observer, if there is one, that an attempt has ended. */
void sel_hub_observe_end(struct sel_flow_run *run, enum sel_decide_result result, bool is_top);
/* Of a decision that ends an attempt. */
enum sel_flow_outcome sel_hub_outcome(enum sel_decide_result result);
/* STORAGE_RETRIEVE and its kin, TASK_RESULT_CACHE_*, STORAGE_ISSUE about run `ordinal`. */
void sel_hub_trace_result(struct sel_flow_run *run, enum sel_trace_event event, uint32_t ordinal,
                          const char *what);
/* NODE_STATE_CACHE_*, RESULT_BACKEND_ISSUE about the run `id` of the node `slot`. */
void sel_hub_trace_node_state(struct sel_flow_run *run, enum sel_trace_event event, uint32_t slot,
                              struct sel_str id, const char *what);

#endif
