/* worker/dispatcher.h - the flows that the broker gave to one session: what they do next.
 *
 * From the TASK of a flow to the DECIDE that ends it. The code that decides is the engine's
 * (worker/hub*.c): here starts of nodes and events become DECIDEs, and what the broker says of
 * runs becomes inputs. A flow may be taken over in the middle of anything: its state comes from
 * STATE and EVENTS, and what neither says is computed anew from them.
 *
 * A decision is made only while the session has room for what it says, a step at a time, in turns
 * with the other flows. What a decision needs from storages, caches and user functions is got by a
 * coroutine of the loop, or by `ops->answer`. Trace events of a decision are emitted once the
 * broker has it at the level of its flow, in the order in which was decided; those of a decision
 * that is lost with its session are not, as it is made again elsewhere.
 *
 * Belongs to the thread of its loop and holder. Without a loop it is pure, if `ops` has clocks and
 * answers: tests/sim runs it so. */
#ifndef SEL_WORKER_DISPATCHER_H
#define SEL_WORKER_DISPATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/decide.h"
#include "core/error.h"
#include "core/id.h"
#include "proto/wire.h"
#include "worker/crash.h"
#include "worker/engine.h"
#include "worker/holder.h"
#include "worker/loop.h"

struct sel_dispatcher;

/* Coroutines of flows that the crash page can tell apart: so many slots behind those of tasks. */
#define SEL_DISPATCHER_SLOTS 16u
/* Nodes of a flow; the default is about 1.1 GB here, and as much in the broker. */
#define SEL_DISPATCHER_FLOW_NODES_DEFAULT 10000000u
#define SEL_DISPATCHER_FLOW_NODES_MAX 4000000000u

/* What a decision asks, for `answer` below. */
struct sel_dispatcher_question {
    const struct sel_flow_def *flow;
    const struct sel_state *state; /* before the answer; arguments, ids of runs */
    struct sel_need *needs;        /* answered in place */
    uint32_t need_count;
    struct sel_arena *arena; /* for the values of the answers */
};

/* All may be NULL, but without a loop only the last. */
struct sel_dispatcher_ops {
    int64_t (*now_us)(void *ctx);  /* monotonic; NULL: the loop's */
    int64_t (*unix_ms)(void *ctx); /* for new ids; NULL: the clock of the machine */
    /* Answers all needs at once, in place of the engine. 0, or an error with `err`: the flow fails.
     */
    int (*answer)(void *ctx, const struct sel_dispatcher_question *question, struct sel_error *err);
};

struct sel_dispatcher_options {
    struct sel_engine *engine;   /* made without a flow; shared with the runs of tasks */
    struct sel_loop *loop;       /* NULL: `ops` has now_us, unix_ms and answer */
    struct sel_holder *holder;   /* its ops->flow calls sel_dispatcher_take, its ops->flows_lost
                                    sel_dispatcher_lost */
    uint64_t seed;               /* of the ids of sub-flows: random, or the same for the same run */
    struct sel_crash_page *page; /* NULL: none */
    uint32_t thread;             /* in the page */
    uint32_t first_slot;         /* in the page: SEL_DISPATCHER_SLOTS from here on are ours */
    uint32_t budget;             /* conditions and starts of a step, which is one DECIDE; 0: 512 */
    uint32_t flow_nodes_max;     /* a flow that would start more fails; 0: the default */
    uint32_t state_decisions;    /* after so many DECIDEs of a flow comes a STATE; 0: 1000 */
    const struct sel_dispatcher_ops *ops; /* NULL: none */
    void *ctx;
};

struct sel_dispatcher_stats {
    uint64_t active;                                      /* flows that it has now */
    uint64_t taken, taken_over;                           /* TASKs; of these with HISTORY */
    uint64_t succeeded, failed, retried, cancelled;       /* ends of attempts that it decided */
    uint64_t returned, lost;                              /* flows; lost: with a session */
    uint64_t decisions, states;                           /* records DECIDE and STATE, not pieces */
    uint64_t nodes_started, nodes_finished, nodes_failed; /* runs, sub-flows among them */
    uint64_t held_back;   /* decisions that had to wait for room in the session */
    uint64_t traces_lost; /* events, for want of memory to keep them */
};

/* Finds the functions that flows call; flows whose functions are not there are RETURNed. 0 or
 * SEL_ENOMEM. */
int sel_dispatcher_new(const struct sel_dispatcher_options *options,
                       struct sel_dispatcher **ret) SEL_WARN_UNUSED;
/* Forgets all flows. When no coroutine of the loop is alive; returns NULL. */
struct sel_dispatcher *sel_dispatcher_free(struct sel_dispatcher *dispatcher);

/* A record of the broker about a flow; nothing of it is borrowed. */
void sel_dispatcher_take(struct sel_dispatcher *dispatcher, const struct sel_wire_item *item);
/* The session is not the one that the flows came in: they are forgotten, and will be handed over
 * anew. Coroutines that get something for them are cancelled. */
void sel_dispatcher_lost(struct sel_dispatcher *dispatcher);

/* Lets flows decide, up to a bounded amount; once a turn, after frames were received and before
 * they are sent. true: there is more to do at once. */
bool sel_dispatcher_turn(struct sel_dispatcher *dispatcher);
/* When a turn has something to do though nothing has come, by the clock of now_us; INT64_MAX: not
 * at all. With a loop its timer sees to that. */
int64_t sel_dispatcher_due_us(const struct sel_dispatcher *dispatcher);

/* From now on flows are RETURNed: those that come, and others as soon as no decision is under way.
 */
void sel_dispatcher_drain(struct sel_dispatcher *dispatcher);
/* What is under way is cancelled and RETURNed too: flows do not hold up the end of a worker. */
void sel_dispatcher_cancel_all(struct sel_dispatcher *dispatcher);
/* It has no flow. With a drain: all are RETURNed, though the broker need not know yet. */
bool sel_dispatcher_is_empty(const struct sel_dispatcher *dispatcher);
/* Coroutines that are at work for flows, forgotten ones among them. */
uint32_t sel_dispatcher_running(const struct sel_dispatcher *dispatcher);
void sel_dispatcher_get_stats(const struct sel_dispatcher *dispatcher,
                              struct sel_dispatcher_stats *ret);

#endif
