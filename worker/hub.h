/* worker/hub.h - the flows of a process: the dispatcher host beside the local queues.
 *
 * The hub belongs to one loop's thread. A flow run holds the state of one flow; its decisions go
 * forward a step at a time, in turns with the others. What a decision needs from outside is got by
 * a coroutine of its own (hub_needs.c). Jobs leave by sel_hub_pop and come back by
 * sel_hub_job_done. Private to worker/hub*.c and worker/executor.c. */
#ifndef SEL_WORKER_HUB_H
#define SEL_WORKER_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "core/decide.h"
#include "core/histogram.h"
#include "core/prng.h"
#include "core/strategy.h"
#include "worker/engine.h"
#include "worker/executor.h"
#include "worker/job.h"
#include "worker/local_queue.h"
#include "worker/loop.h"
#include "worker/parents.h"

struct sel_hub;

/* A node run that ended, waiting for its flow to look at it. */
struct sel_flow_input {
    uint32_t ordinal;
    bool failed;
};

/* Failed parents that a run started by a fallback hands on to what follows it. */
struct sel_lineage {
    uint32_t ordinal;
    struct sel_parents *parents;
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

    struct sel_flow_run *parent; /* NULL: the top flow */
    uint32_t parent_ordinal, parent_attempt;
    bool detached; /* the parent does not wait for it */
    bool keep;     /* its final state will be asked for */
    struct sel_parents *parents;
    struct sel_blob *args; /* the state's arguments as the jobs share them; NULL: to be made */
    bool args_changed;     /* `args` are those of node_args_from_first */

    uint32_t refs; /* one of its own until it ends; its jobs, children, coroutines */
    bool ended;
    struct sel_ended_flow **children; /* parallel to state.children */
    uint32_t children_cap;

    struct sel_flow_input *inputs; /* a ring */
    uint32_t input_head, input_count, input_cap;
    bool to_start;              /* START is the next input */
    bool deciding;              /* in the middle of a decision */
    bool fetching;              /* a coroutine gets what the decision needs */
    struct sel_co *fetcher;     /* that coroutine, once it runs */
    struct sel_hub_sleep sleep; /* its own: work in a queue outlives the coroutine */
    bool is_ready;
    struct sel_flow_run *next_ready;
    struct sel_result_cache *states; /* of its nodes; NULL: the flow has no cache */
    uint32_t noted_count;            /* inputs at the head of the ring that `states` knows */

    uint64_t combination; /* the one that combination_parents are of; UINT64_MAX: none */
    struct sel_parents *combination_parents;
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
    struct sel_engine *engine;
    const struct sel_system *system;
    struct sel_loop *loop;
    struct sel_local_queues queues;
    struct sel_id_source ids;
    struct sel_plan_cache *plans;
    struct sel_predicate_world world;
    struct sel_prng prng;
    bool virtual_time;
    int64_t virtual_us; /* time passed, with virtual_time */
    int64_t begin_us;   /* of the loop's clock */
    int64_t last_end_us;
    struct sel_flow_run *first_ready, *last_ready;
    struct sel_flow_run *all;
    struct sel_flow_run *top;
    struct sel_hub_counters counters;
    uint64_t fetching; /* coroutines under way */
    uint64_t shuffle_seed;
    struct sel_job **held; /* completions kept back to be shuffled */
    uint32_t held_count, held_cap;
    struct sel_arena trace_arena;
    struct sel_hub_times *times; /* by task */
    bool canceled;
    int fatal; /* the engine cannot go on */
    struct sel_error fatal_error;
    struct sel_executor_report *report;
};

/* `loop` is the calling thread's. */
int sel_hub_init(struct sel_hub *hub, struct sel_engine *engine, struct sel_loop *loop,
                 struct sel_executor_report *report, struct sel_error *err) SEL_WARN_UNUSED;
void sel_hub_done(struct sel_hub *hub);

/* Time since the start, virtual if so chosen. */
int64_t sel_hub_now_us(const struct sel_hub *hub);

/* Schedules the top flow. */
int sel_hub_submit(struct sel_hub *hub, const struct sel_flow_def *flow, struct sel_str args,
                   const struct sel_plan *plan) SEL_WARN_UNUSED;

/* Lets ready flows decide, up to a bounded amount. */
void sel_hub_turn(struct sel_hub *hub);
/* Whether another turn would do something at once. */
bool sel_hub_can_go_on(const struct sel_hub *hub);

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

/* ---- between the parts of the hub ---- */
void sel_hub_make_ready(struct sel_flow_run *run);
void sel_hub_fail_flow(struct sel_flow_run *run, const char *reason); /* DISPATCHER_FAILURE */
/* After sel_hub_cancel, for a flow that nobody fetches anything for. */
void sel_hub_cancel_flow(struct sel_flow_run *run);
/* The flow succeeds now; what is still active is no longer waited for. */
void sel_hub_end_flow(struct sel_flow_run *run);
struct sel_flow_run *sel_hub_flow_ref(struct sel_flow_run *run);
void sel_hub_flow_unref(struct sel_flow_run *run);
void sel_hub_fatal(struct sel_hub *hub, int code, const char *what);
/* A node run ended: the flow is to look at it. Flows that are sampled do when their alarm rings. */
void sel_hub_node_ended(struct sel_flow_run *run, uint32_t ordinal, bool failed);
void sel_hub_count_end(struct sel_hub *hub, bool failed);  /* of a node run, awaited or not */
void sel_hub_note_end(struct sel_hub *hub, int64_t at_us); /* when: for the report */
void sel_hub_free_job(struct sel_job *job);

/* The parents of what a combination starts; borrowed. 0 or SEL_ENOMEM. */
int sel_hub_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                    struct sel_parents **ret) SEL_WARN_UNUSED;

/* The final state of a sub-flow that has ended, if it was kept; else NULL. */
struct sel_ended_flow *sel_hub_ended_child(const struct sel_flow_run *run, uint32_t ordinal);

/* Keeps the failed parents of a run for what follows it. 0 or SEL_ENOMEM. */
int sel_hub_note_lineage(struct sel_flow_run *run, uint32_t ordinal,
                         struct sel_parents *parents) SEL_WARN_UNUSED;
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
/* STORAGE_RETRIEVE and its kin, TASK_RESULT_CACHE_*, STORAGE_ISSUE about run `ordinal`. */
void sel_hub_trace_result(struct sel_flow_run *run, enum sel_trace_event event, uint32_t ordinal,
                          const char *what);
/* NODE_STATE_CACHE_*, RESULT_BACKEND_ISSUE about the run `id` of the node `slot`. */
void sel_hub_trace_node_state(struct sel_flow_run *run, enum sel_trace_event event, uint32_t slot,
                              struct sel_str id, const char *what);

#endif
