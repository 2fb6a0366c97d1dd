/* tests/sim/scenario.h - what a seed decides before anything happens. */
#ifndef SEL_TESTS_SIM_SCENARIO_H
#define SEL_TESTS_SIM_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

#include "core/prng.h"

/* Changes of what a seed means; a list of seeds names it. */
#define SEL_SCENARIO_VERSION 1

#define SEL_SIM_WORKERS 4
#define SEL_SIM_SESSIONS 3 /* of a worker */
#define SEL_SIM_SLOTS 8    /* of a session */
#define SEL_SIM_PRODUCERS 3
#define SEL_SIM_QUEUES 4
#define SEL_SIM_KINDS 4 /* names of tasks */
#define SEL_SIM_TASKS 320

/* name, what it does */
#define SEL_MODE_LIST(X)                                                                           \
    X(CUTS, "cuts", "connections break")                                                           \
    X(LOSS, "loss", "frames vanish without a cut")                                                 \
    X(COPIES, "copies", "frames come twice, old ones late")                                        \
    X(SPIKES, "spikes", "some frames are slow")                                                    \
    X(NARROW, "narrow", "queues of sockets are short")                                             \
    X(BLOCKS, "blocks", "partitions, in one or both directions")                                   \
    X(GARBAGE, "garbage", "strangers send bytes")                                                  \
    X(KILL, "kill", "the broker is killed")                                                        \
    X(POWER, "power", "the broker's machine loses its power")                                      \
    X(ENOSPC, "enospc", "the disk is full for a while")                                            \
    X(EIO, "eio", "writes of the journal fail")                                                    \
    X(HALT, "halt", "the broker is stopped for a while")                                           \
    X(CRASH, "crash", "workers die")                                                               \
    X(STOP, "stop", "workers are stopped for a while")                                             \
    X(SLOW, "slow", "loops of workers are busy, their beats go on")                                \
    X(LEAVE, "leave", "workers drain and leave, others come late")                                 \
    X(GONE, "gone", "producers die")                                                               \
    X(JUMPS, "jumps", "clocks of the day jump")                                                    \
    X(RETRIES, "retries", "tasks fail and are tried again")                                        \
    X(STRANGE, "strange", "workers do not know all tasks")                                         \
    X(TWICE, "twice", "tasks are submitted by two producers, keys twice")                          \
    X(CANCELS, "cancels", "tasks are cancelled")                                                   \
    X(LATER, "later", "countdowns and times not before")                                           \
    X(LEVELS, "levels", "all levels, not commit alone")                                            \
    X(LARGE, "large", "large payloads and little memory")                                          \
    X(SMALL, "small", "small windows, outboxes and batches")

#define SEL_MODE_ENUM(name, text, what) SEL_MODE_##name,
enum sel_mode { SEL_MODE_LIST(SEL_MODE_ENUM) SEL_MODE_COUNT };
#undef SEL_MODE_ENUM

struct sel_scenario {
    uint64_t seed;
    uint64_t modes; /* 1 << enum sel_mode */
    uint32_t worker_count, producer_count, queue_count, task_count;
    uint32_t session_count[SEL_SIM_WORKERS];
    uint32_t slots[SEL_SIM_WORKERS], window[SEL_SIM_WORKERS];
    uint32_t serves[SEL_SIM_WORKERS]; /* a bit for each queue */
    uint32_t knows[SEL_SIM_WORKERS];  /* a bit for each kind of task */
    bool keeps_id[SEL_SIM_WORKERS];   /* the same peer ids with a larger incarnation */
    bool has_journal;
    int64_t lease_us, beat_us, interval_us;
    int64_t faults_until_us; /* then everything heals */
    int64_t submits_until_us;
    int64_t
        quiet_us; /* by then everything must be done, after the faults and the last run's begin */
    int64_t unknown_task_us;
    uint64_t memory_max, result_bytes_max, payload_memory, journal_compact_min, batch_bytes_max;
    uint64_t window_records, window_bytes, outbox_bytes_max;
    uint64_t peer_window_records, peer_window_bytes;
    uint32_t record_max, poison_max;
    uint32_t payload_max, result_max;
    int64_t run_us_max; /* of a task */
    uint32_t hwm;       /* frames that a socket keeps a direction */
    int64_t latency_us_max;
    uint32_t receive_max; /* frames of the broker a turn */
    int64_t commit_us_max;
    bool is_ordered; /* one worker, one slot, all submitted before: order can be checked */
    /* of histories with flows */
    bool has_flows;
    uint32_t flow_per_mille;         /* of the tasks that are flows */
    uint32_t flows[SEL_SIM_WORKERS]; /* that a session takes; 0: it decides none */
    uint32_t decide_budget, state_decisions;
};

/* `modes_without`: never these; `modes_only`: exactly these, unless it is 0. */
void sel_scenario_draw(struct sel_scenario *ret, uint64_t seed, uint64_t modes_only,
                       uint64_t modes_without);
/* A short one with commits of all sorts and no other faults, for cuts at every write. */
void sel_scenario_draw_short(struct sel_scenario *ret, uint64_t seed);

/* Makes a scenario one with flows. What would change how a flow ends is left out. */
void sel_scenario_add_flows(struct sel_scenario *scenario);

static inline bool sel_scenario_has(const struct sel_scenario *scenario, enum sel_mode mode)
{
    return (scenario->modes >> mode) & 1;
}

const char *sel_mode_name(enum sel_mode mode);
const char *sel_mode_text(enum sel_mode mode);
/* -1: there is none of the name. */
int sel_mode_find(const char *name);

#endif
