/* broker/internal.h - the parts of the broker and what they share. Private to broker/.
 *
 * A task is an entry in a table of chunks, named by its 32-bit index; sessions by their slot. Lists
 * link indices, so that an entry stays small: a queued task costs its entry, its place in the table
 * of ids, and its payload unless that can be read back from the journal. */
#ifndef SEL_BROKER_INTERNAL_H
#define SEL_BROKER_INTERNAL_H

#include <errno.h>

#include "broker/broker.h"
#include "broker/mutation.h"
#include "core/arena.h"
#include "core/hash.h"
#include "core/pool.h"
#include "proto/session.h"
#include "proto/wire.h"

#define SEL_NONE UINT32_MAX
#define SEL_WAIT_US_MAX (INT64_C(100) * 366 * 86400 * 1000000) /* a century */

/* ---- tasks ---- */

enum sel_task_state {
    SEL_TASK_FREE,
    SEL_TASK_ORPHAN,    /* only its id is known: somebody asks for it, its SUBMIT may yet come */
    SEL_TASK_HELD,      /* may be delivered when its batch is committed */
    SEL_TASK_WAITING,   /* for its time: in `timers` */
    SEL_TASK_QUEUED,    /* in its queue */
    SEL_TASK_DELIVERED, /* with the worker `holder` */
    SEL_TASK_ENDED,
    SEL_TASK_ALIAS, /* another id of the task `holder` */
    SEL_TASK_PIECE, /* no task: bytes, see flow.c */
};

enum sel_task_kind {
    SEL_KIND_TASK, /* bare */
    SEL_KIND_FLOW,
    SEL_KIND_RUN,   /* of a task, for a flow */
    SEL_KIND_PIECE, /* of what is kept for flows */
};

#define SEL_TASK_KEYED 0x01      /* has an idempotency key, see keys.c */
#define SEL_TASK_PUT_BACK 0x02   /* QUEUED: in the heap of those that were put back */
#define SEL_TASK_NO_RECORD 0x04  /* its SUBMIT is not known: a worker claims it */
#define SEL_TASK_CONSUMED 0x02   /* ENDED, of a flow: a decision has used its end */
#define SEL_TASK_SETTLED 0x08    /* ENDED: its end has reached its level */
#define SEL_TASK_CLAIMED 0x08    /* DELIVERED: its holder had it before this broker knew it */
#define SEL_TASK_RETAINED 0x10   /* ENDED: in the list of results to be dropped */
#define SEL_TASK_CALLED_OFF 0x10 /* DELIVERED: a broker before told its holder to stop */
#define SEL_TASK_UNKNOWN 0x20    /* workers have returned it as unknown since `unknown_since` */
#define SEL_TASK_STARTED 0x40    /* was delivered before */
#define SEL_TASK_CANCELLED 0x80  /* is no longer wanted: the worker has been told */

struct sel_flow;
struct sel_flow_try;
struct sel_run_group;

struct sel_task_entry {
    struct sel_id id;
    uint64_t sequence; /* order in its queue; never that of another task */
    union {
        uint8_t *blob; /* fields and payload; ENDED: the result. NULL: in the journal, or none */
        struct sel_flow *flow;       /* FLOW: it has the blob */
        struct sel_run_group *group; /* RUN, until it is ENDED */
    };
    uint64_t log_seq;    /* batch of the mutation that it needs; 0: it is in none */
    uint32_t log_offset; /* of the blob in that batch */
    uint32_t blob_size;
    uint32_t next, prev; /* by state: of the lane of a queue, what a worker has, the results to be
                            dropped; prev: place in a heap. Ended runs: of their flow */
    union {
        struct {
            uint32_t watcher; /* slot of the session that waits for the result */
            uint32_t watcher_serial;
        };
        struct sel_flow_try *attempt; /* RUN, PIECE */
    };
    uint32_t holder; /* slot of the worker; ALIAS: the task; PIECE: references */
    uint32_t extra;  /* more watchers and aliases: struct sel_note. RUN: ordinal; PIECE: number */
    union {
        uint32_t unknown_since_ms; /* mono, with the flag UNKNOWN */
        struct {                   /* ENDED */
            uint16_t pins;         /* deliveries of the result under way, and who else needs it */
            uint16_t code;         /* enum sel_wire_outcome */
        };
    };
    uint16_t fields_size; /* RUN: tries that count */
    uint16_t queue;       /* PIECE: enum sel_piece_type */
    uint16_t try_count, delivery;
    uint8_t priority;
    uint8_t flags;
    uint8_t state : 4, level : 2, kind : 2;
    uint8_t lost : 4, suspected : 4; /* workers that died with it: surely through it, or perhaps */
    int64_t at_us; /* mono. WAITING: when; ENDED: since; else when it was submitted */
};
_Static_assert(sizeof(struct sel_task_entry) == 96, "an entry of a queued task");

#define SEL_TASK_LOST_MAX 15u
#define SEL_TASK_FIELDS_MAX UINT16_MAX
#define SEL_TASK_CHUNK_BITS 12
#define SEL_TASK_CHUNK (1u << SEL_TASK_CHUNK_BITS)

struct sel_task_place {
    uint32_t tag, index; /* part of the hash; SEL_NONE: empty */
};

struct sel_task_table {
    struct sel_task_entry **chunks;
    uint32_t chunk_count, chunk_cap;
    uint32_t free;                 /* a list by `next` */
    uint32_t count;                /* entries in use */
    struct sel_task_place *places; /* by id, open addressing */
    uint32_t place_bits;
    uint64_t factors[2]; /* odd, of the hash of ids */
    uint64_t by_state[SEL_TASK_PIECE + 1];
};

/* A second watcher of a task, an alias, or a result that waits for room at a session. */
struct sel_note {
    uint32_t next;
    uint32_t task;            /* of a result that waits */
    uint32_t session, serial; /* of the watcher */
    uint32_t as;              /* alias under whose id it goes out; SEL_NONE: its own */
    uint64_t after_batch;     /* not before that is committed */
    bool all;                 /* the watcher waits for detached work too */
};

/* ---- flows: see flow.c ---- */

/* What is kept for a flow, each an entry of its own, so that the journal's side treats it as it
 * does tasks. */
enum sel_piece_type {
    SEL_PIECE_STATE,    /* part of a state; number: of the decision after which */
    SEL_PIECE_EVENTS,   /* of the decision `number` */
    SEL_PIECE_BLOB,     /* arguments or parents of runs; counted references */
    SEL_PIECE_THROTTLE, /* the name of what is throttled; at_us: when the next one may start */
    SEL_PIECE_NODES,    /* of a flow that has ended: proto/nodes.h */
};

/* Runs that were started alike. */
struct sel_run_group {
    uint32_t refs;
    uint32_t args, parents; /* pieces; SEL_NONE: the flow's arguments, no parents */
    uint16_t fields_size, run_flags;
    bool is_nowait;
    uint8_t fields[];
};

/* An attempt of a flow: what its dispatcher has said, and what it is to be told. Freed with the
 * last run of it. */
struct sel_flow_try {
    struct sel_flow *flow;
    uint32_t refs;         /* `current` of its flow, open runs, sub-flows, pieces */
    uint32_t number;       /* of the last decision */
    uint32_t next_ordinal; /* all below have been started */
    uint16_t attempt;
    uint32_t args; /* piece: the flow's arguments changed; SEL_NONE: as submitted */
    uint32_t ended_first, ended_last; /* entries by next and prev, in the order of their ends */
    uint32_t kept_first;              /* consumed ones that have a payload, by next */
    uint32_t untold;                  /* the first of `ended` that the owner has not heard of */
    uint32_t ended_count, kept_count;
    uint32_t piece_first, piece_last; /* STATE and EVENTS, by next and prev, ascending numbers */
    uint32_t new_state;               /* the first of STATE pieces that are not complete */
    struct sel_flow *children;
    struct sel_buf partial;         /* of a DECIDE in pieces */
    struct sel_flow_try *next_past; /* see struct sel_flow */
};

enum sel_flow_load { SEL_LOAD_NONE, SEL_LOAD_PIECES, SEL_LOAD_KEPT, SEL_LOAD_ENDED };

struct sel_flow {
    struct sel_id id;
    uint32_t entry;
    uint32_t refs; /* its entry, its attempts */
    uint8_t *blob; /* of its entry */
    char *name;    /* for people; NULL: there was no memory for it */
    struct sel_flow_try *current;
    struct sel_flow_try *past;   /* while replaying: others, with a reference each, by next_past */
    struct sel_flow_try *parent; /* a sub-flow: which attempt started it; NULL: a root */
    struct sel_flow *next_child, *prev_child; /* of the parent's attempt */
    uint32_t ordinal;                         /* there */
    uint32_t waits_for;  /* sub-flows of its attempt: with some it takes none of a worker's room */
    uint32_t open_count; /* runs and sub-flows, of all attempts, not ended with all below them */
    uint32_t args;       /* piece: the arguments outlive the submit; SEL_NONE */
    uint32_t nodes; /* piece: what its result has numbers for, as long as it is kept; SEL_NONE */
    uint16_t run_flags;
    uint8_t name_size;
    bool is_nowait, is_throttled, is_done, has_tree_pin;
    bool is_live;         /* the owner knows all */
    bool in_pump;         /* of its owner's session */
    uint8_t load;         /* enum sel_flow_load */
    uint32_t load_at;     /* entry that is said next */
    uint32_t load_offset; /* in it */
    int64_t since_us;     /* mono: when it was submitted or, ended, its end */
};

/* A flow that its owner is to be told something of. */
struct sel_flow_pump {
    uint32_t entry;
    uint64_t sequence;
};

/* ---- queues ---- */

struct sel_lane {
    uint8_t priority;
    uint32_t head, tail; /* tasks by sequence */
};

/* Of each name. Sub-flows have queues of their own: they go first, so that what is begun ends. */
enum sel_queue_kind { SEL_QUEUE_TASKS, SEL_QUEUE_FLOWS, SEL_QUEUE_SUBFLOWS };

struct sel_queue {
    struct sel_str name;
    struct sel_lane *lanes; /* descending priority; emptied ones stay */
    uint32_t lane_count, lane_cap;
    uint32_t *back; /* a heap of those that were put back */
    uint32_t back_count, back_cap;
    uint64_t depth;
    uint64_t submitted, finished, failed;
    uint32_t workers;  /* sessions that serve it */
    uint8_t kind;      /* enum sel_queue_kind */
    uint32_t twins[3]; /* of a queue of tasks: those of its name, by kind; SEL_NONE: none yet */
};

/* Bits by queue. */
struct sel_queue_set {
    uint64_t *words;
    uint32_t word_count;
};

/* ---- sessions ---- */

/* Records up to `number` are settled when `batch` is committed. */
struct sel_settle_run {
    uint64_t number, batch;
};

#define SEL_UNKNOWN_NAMES_MAX 256

struct sel_broker_session {
    struct sel_session s;
    struct sel_id peer;
    uint32_t incarnation;
    uint32_t slot;
    uint32_t serial; /* never that of another session */
    uint32_t connection;
    bool is_connected, is_worker;
    uint32_t next_peer;    /* of the same bucket */
    uint32_t worker_place; /* in `workers` */
    int64_t blocked_us;    /* nothing can be sent to it before */
    uint64_t outbox_bytes; /* as counted in sessions_bytes */
    uint64_t settled_seen; /* of its settling of our records */
    bool must_welcome, welcome_resumed;
    bool is_failed; /* out of memory for it: to be closed, `failed` counts */
    bool is_closed; /* so it was: it is not resumed */
    uint64_t hello_n;
    int64_t heard_us, since_us, later_us;
    char *name;
    bool is_dirty;    /* in `dirty` */
    uint16_t *queues; /* the peer's numbers, from 1: queue + 1; 0: none */
    uint32_t queue_cap;
    struct sel_settle_run *runs; /* a ring of those not committed */
    uint32_t run_head, run_count, run_cap;
    bool in_runs;          /* in `run_sessions` */
    uint64_t window_bytes; /* producers: see window.c */
    bool wants_window;
    uint64_t withheld_records, withheld_bytes; /* arrived; their credit waits for memory */
    uint64_t records_in, records_out;
    /* producers */
    uint32_t *results; /* a ring of the tasks of records in the outbox, SEL_NONE: no result */
    uint32_t result_head, result_count, result_cap;
    uint32_t pending_first, pending_last; /* notes: results that wait for room */
    /* workers */
    struct sel_queue_set serves, told; /* told: QUEUE was said */
    uint32_t slots, window, in_flight, rotor;
    uint32_t task_first;  /* what it has */
    uint64_t ready_batch; /* gets nothing before that is committed */
    bool is_draining, is_stalled, is_alone;
    struct sel_queue_set serves_flows;
    uint32_t flows, flows_in_flight; /* that it takes; has, without those that wait for sub-flows */
    uint32_t flow_rotor;
    struct sel_flow_pump *pump; /* a ring */
    uint32_t pump_head, pump_count, pump_cap;
    bool in_pumps;
    uint64_t beat_count, turns;
    int64_t turned_us;
    uint64_t *unknown; /* hashes of names that it does not know */
    uint32_t unknown_count;
    uint64_t finished;
};

/* ---- the journal's side ---- */

enum sel_effect_kind { SEL_EFFECT_ENDED, SEL_EFFECT_ENQUEUE };

struct sel_effect {
    uint32_t task;
    uint32_t kind;
    uint64_t sequence; /* of the task: another one may have its place by then */
};

struct sel_log_batch {
    struct sel_log_batch *next;
    struct sel_buf buf;
    uint64_t seq;
    bool sync, urgent;
    bool can_wait;    /* all that is in it, for what comes next */
    int64_t since_us; /* mono: it has something */
    struct sel_effect *effects;
    uint32_t effect_count, effect_cap;
};

struct sel_log_info {
    uint32_t live;  /* tasks that need the batch */
    uint32_t bytes; /* of theirs */
    uint32_t size;
};

struct sel_log_place {
    uint64_t seq;
    uint32_t blob_offset; /* of what the task keeps: fields and payload, or the result */
};

struct sel_log {
    bool is_on;
    struct sel_log_batch *first, *open; /* `open` is the last */
    struct sel_log_batch *spare;
    uint32_t spare_count;
    uint32_t taken; /* batches of the commit under way, from `first` */
    bool under_way;
    bool sync_wanted;   /* of the commit under way */
    uint64_t committed; /* all batches up to there */
    uint64_t synced;
    uint64_t backlog_bytes; /* of batches that are not committed */
    int64_t taken_us, retry_us, interval_due_us;
    bool is_full, was_refused; /* the last append found no room */
    int64_t full_until_us, full_pause_us;
    struct sel_log_info *infos; /* a ring: of batch first_seq + i */
    uint32_t info_head, info_count, info_cap;
    uint64_t first_seq; /* oldest kept */
    uint64_t dropped;   /* told to the journal */
    uint64_t start_seq; /* where the newest START is */
    uint64_t live_bytes, journal_bytes;
    bool is_held; /* what is appended now goes into `open`, however large it gets */
};

/* Where the open batch stood. */
struct sel_log_mark {
    struct sel_log_batch *batch; /* NULL: the journal is off */
    size_t size;
    uint32_t effect_count;
};

/* ---- the broker ---- */

struct sel_table32 { /* numbers to numbers, open addressing */
    uint32_t *keys, *values;
    uint32_t bits, count;
};

struct sel_known_worker {
    struct sel_id peer;
    uint32_t incarnation;
    bool is_expected; /* known to an earlier incarnation, not heard in this one */
};

/* While replaying: an ALIAS that was read before its task, which was copied forward. */
struct sel_late_alias {
    struct sel_mutation m; /* its texts are gone */
    struct sel_log_place place;
    struct sel_id target;
};

struct sel_key_entry {
    char *key;
    uint8_t size;
    uint8_t digest[16];
    uint32_t task; /* SEL_NONE: free */
    uint32_t next; /* of its bucket, or free */
};

struct sel_broker {
    struct sel_broker_options options;
    struct sel_broker_io io;
    struct sel_broker_now now;
    struct sel_id id;
    uint32_t incarnation;
    uint32_t session_counter;
    uint64_t sequence;
    bool has_started, is_replaying, is_draining, is_stopping;

    struct sel_pool pool;
    struct sel_task_table tasks;
    uint64_t sessions_bytes; /* of outboxes */
    uint64_t payload_bytes;  /* in memory though they are in the journal */
    uint32_t *timers;        /* a heap of WAITING tasks by at_us */
    uint32_t timer_count, timer_cap;

    struct sel_queue *queues;
    uint32_t queue_count, queue_cap;
    struct sel_map queue_names;
    struct sel_queue_set ready_queues, ready_flows; /* that have tasks; flows */
    uint64_t queued;                                /* in all of them */

    struct sel_broker_session **sessions; /* by slot */
    uint32_t session_count, session_cap;  /* slots ever used */
    uint32_t session_live, worker_live;
    uint32_t session_serial;
    uint32_t *free_slots; /* a stack */
    uint32_t free_slot_count, free_slot_cap;
    uint32_t *workers; /* slots, in no order */
    uint32_t worker_cap;
    struct sel_table32 connections; /* to slots */
    uint32_t *peer_buckets;         /* slots by peer id, chained by next_peer */
    uint32_t *dirty;                /* slots of sessions with something to send */
    uint32_t dirty_count, dirty_cap;
    uint32_t *run_sessions;
    uint32_t run_session_count, run_session_cap;
    uint32_t worker_rotor;
    uint32_t emptying_slot, emptying_serial; /* the worker that is being emptied for a suspect */
    uint32_t emptying_task;                  /* the suspect, and its sequence */
    uint64_t emptying_sequence;
    int64_t emptying_until_us;
    uint32_t withheld;       /* sessions whose credit waits */
    int64_t trim_us;         /* outboxes are not trimmed again before */
    uint32_t failed;         /* sessions to be closed */
    uint64_t windows_bytes;  /* of all producers */
    uint32_t windows_wanted; /* sessions that ask for a larger one */
    uint64_t window_tokens;  /* bytes that windows may grow now */
    int64_t window_tokens_us, window_look_us;
    int64_t lease_check_us, turned_us;

    struct sel_note *notes;
    uint32_t note_count, note_cap, note_free;

    struct sel_key_entry *keys;
    uint32_t key_count, key_cap, key_free;
    uint32_t *key_buckets;    /* by key */
    struct sel_table32 keyed; /* tasks to their keys */

    uint32_t result_first, result_last; /* results to be dropped, oldest first */
    uint32_t result_count;
    uint64_t result_bytes;

    uint32_t *fresh; /* entries of the decision that is being taken */
    uint32_t fresh_count, fresh_cap;
    uint32_t *pumps; /* slots of sessions with something in their pump */
    uint32_t pump_count, pump_cap;

    struct sel_log log;
    struct sel_known_worker *known;
    uint32_t known_count, known_cap, expected_count;
    struct sel_late_alias *late_aliases;
    uint32_t late_alias_count, late_alias_cap;
    bool is_recovering; /* what workers hold is not yet known */
    int64_t recover_until_us;

    struct sel_buf out, scratch, scratch2, scratch3;
    struct sel_arena arena; /* for one plain message */
    struct sel_arena failure_arena, decision_arena;
    struct sel_broker_stats stats;
};

/* ---- broker.c ---- */
void sel_broker_say(struct sel_broker *b, enum sel_broker_log level, const char *event,
                    const char *fmt, ...) SEL_PRINTF(4, 5);
uint64_t sel_broker_memory(const struct sel_broker *b);
/* Three quarters of memory_max are in use: producers get no credit, workers little at a time. */
bool sel_broker_is_short(const struct sel_broker *b);

/* ---- task.c: the table ---- */
int sel_broker_tasks_init(struct sel_task_table *t, uint64_t seed) SEL_WARN_UNUSED;
void sel_broker_tasks_done(struct sel_task_table *t);
static inline struct sel_task_entry *sel_broker_task_at(const struct sel_broker *b, uint32_t i)
{
    return &b->tasks.chunks[i >> SEL_TASK_CHUNK_BITS][i & (SEL_TASK_CHUNK - 1)];
}
/* SEL_NONE: no such id. */
uint32_t sel_broker_task_find(const struct sel_broker *b, struct sel_id id);
/* It will be looked for, or at, soon. `task` may be any number. */
void sel_broker_task_prefetch_id(const struct sel_broker *b, struct sel_id id);
void sel_broker_task_prefetch(const struct sel_broker *b, uint32_t task);
/* A new entry of that id (which must not be there; 0: it is not looked for), state ORPHAN;
 * SEL_NONE: out of memory. */
uint32_t sel_broker_task_add(struct sel_broker *b, struct sel_id id);
/* Takes it out of the table; it is in no list, has no blob and no notes. */
void sel_broker_task_remove(struct sel_broker *b, uint32_t i);
void sel_broker_task_set_state(struct sel_broker *b, uint32_t i, enum sel_task_state state);
/* Keeps a copy of two pieces as the blob. false: out of memory. */
bool sel_broker_task_keep_blob(struct sel_broker *b, uint32_t i, struct sel_str fields,
                               struct sel_str payload);
void sel_broker_task_free_blob(struct sel_broker *b, uint32_t i);
/* Fields and payload, from memory or read back into `scratch`; valid until the next call. Of an
 * open run the fields alone, see sel_broker_run_describe. */
int sel_broker_task_get_blob(struct sel_broker *b, uint32_t i, struct sel_str *ret_fields,
                             struct sel_str *ret_payload) SEL_WARN_UNUSED;
/* The name of a task in the fields of its SUBMIT; n == 0: none. */
struct sel_str sel_broker_task_name(struct sel_str fields);

/* ---- table32.c ---- */
void sel_broker_table32_done(struct sel_table32 *t);
bool sel_broker_table32_put(struct sel_table32 *t, uint32_t key, uint32_t value) SEL_WARN_UNUSED;
/* SEL_NONE: not there. */
uint32_t sel_broker_table32_get(const struct sel_table32 *t, uint32_t key);
void sel_broker_table32_remove(struct sel_table32 *t, uint32_t key);

/* ---- queue.c ---- */
/* The queue of that name, made if it is new; SEL_NONE: too many, or out of memory. */
uint32_t sel_broker_queue_get(struct sel_broker *b, struct sel_str name);
/* The queue of a kind that has the name of a queue of tasks; as above. */
uint32_t sel_broker_queue_twin(struct sel_broker *b, uint32_t queue, enum sel_queue_kind kind);
void sel_broker_queues_done(struct sel_broker *b);
/* A task that is in no list. One that was delivered before goes where its sequence says. */
void sel_broker_queue_push(struct sel_broker *b, uint32_t task);
void sel_broker_queue_remove(struct sel_broker *b, uint32_t task);
uint32_t sel_broker_queue_first(const struct sel_broker *b, uint32_t queue); /* SEL_NONE: empty */
bool sel_broker_queue_set_add(struct sel_queue_set *set, uint32_t queue) SEL_WARN_UNUSED;
void sel_broker_queue_set_remove(struct sel_queue_set *set, uint32_t queue);
bool sel_broker_queue_set_has(const struct sel_queue_set *set, uint32_t queue);
void sel_broker_queue_set_done(struct sel_queue_set *set);
/* The first queue from `from` on, going round once, that is in both; SEL_NONE: none. */
uint32_t sel_broker_queue_set_next(const struct sel_queue_set *a, const struct sel_queue_set *b,
                                   uint32_t from);

/* ---- timer.c: WAITING tasks ---- */
/* The next `count` ones cannot fail. */
bool sel_broker_timer_reserve(struct sel_broker *b, uint64_t count) SEL_WARN_UNUSED;
bool sel_broker_timer_add(struct sel_broker *b, uint32_t task, int64_t at_us) SEL_WARN_UNUSED;
void sel_broker_timer_remove(struct sel_broker *b, uint32_t task);
int64_t sel_broker_timer_next(const struct sel_broker *b); /* INT64_MAX: none */
/* Queues those that are due, at most `max`. */
void sel_broker_timer_fire(struct sel_broker *b, uint32_t max);

/* ---- log.c: batches, effects, compaction ---- */
void sel_broker_log_done(struct sel_broker *b);
/* Appends a mutation to the open batch. 0; SEL_ENOMEM: nothing is appended. */
int sel_broker_log_put(struct sel_broker *b, const struct sel_mutation *m, uint8_t level,
                       struct sel_log_place *ret) SEL_WARN_UNUSED; /* ret may be NULL */
/* From here on until the release all mutations get into one batch, which is committed whole; with
 * room for `effects` more. 0 or SEL_ENOMEM. */
int sel_broker_log_hold(struct sel_broker *b, uint64_t effects,
                        struct sel_log_mark *ret) SEL_WARN_UNUSED;
/* `undo`: what was put since then is taken back; nobody has claimed it. */
void sel_broker_log_release_hold(struct sel_broker *b, const struct sel_log_mark *mark, bool undo);
/* The task, which needs none, needs the mutation at `place` from now on; `blob_size`: of its bytes
 * beyond the header, about. */
void sel_broker_log_claim(struct sel_broker *b, uint32_t task, struct sel_log_place place,
                          size_t blob_size);
/* It is there anew: the old one is needed no longer. */
void sel_broker_log_move(struct sel_broker *b, uint32_t task, struct sel_log_place place,
                         size_t blob_size);
/* The task needs its mutation no longer. */
void sel_broker_log_release(struct sel_broker *b, uint32_t task);
/* To be done when the batch of the mutation that was put last is committed; at most one a mutation.
 */
void sel_broker_log_effect(struct sel_broker *b, uint32_t task, enum sel_effect_kind kind);
/* Bytes of a batch: of one not yet committed in memory, else read into `scratch`. */
int sel_broker_log_read(struct sel_broker *b, uint64_t seq, uint64_t offset, uint64_t n,
                        struct sel_str *ret) SEL_WARN_UNUSED;
/* Room for one more batch in the infos; while replaying too. */
bool sel_broker_log_note_batch(struct sel_broker *b, uint64_t seq, size_t size) SEL_WARN_UNUSED;
/* Bytes at the end of a mutation that the task keeps. */
size_t sel_broker_mutation_blob(const struct sel_mutation *m);
/* Whether SUBMITs may be taken again after the journal was full. */
void sel_broker_log_check_room(struct sel_broker *b);
/* START, and the workers that are there. */
int sel_broker_log_start(struct sel_broker *b) SEL_WARN_UNUSED;
int64_t sel_broker_log_due_us(const struct sel_broker *b);
/* SUBMITs of that level are not taken: the journal is full. */
static inline bool sel_broker_log_refuses(const struct sel_broker *b, uint8_t level)
{
    return b->log.is_full && level > SEL_LEVEL_MEMORY;
}

/* ---- session.c ---- */
int sel_broker_sessions_init(struct sel_broker *b) SEL_WARN_UNUSED;
struct sel_broker_session *sel_broker_session_at(const struct sel_broker *b, uint32_t slot,
                                                 uint32_t serial); /* NULL: is no more */
struct sel_broker_session *sel_broker_session_of_connection(const struct sel_broker *b,
                                                            uint32_t connection);
struct sel_broker_session *sel_broker_session_of_peer(const struct sel_broker *b,
                                                      struct sel_id peer);
struct sel_broker_session *
sel_broker_session_new(struct sel_broker *b, struct sel_id peer,
                       bool is_worker); /* NULL: too many, out of memory */
int sel_broker_session_connect(struct sel_broker *b, struct sel_broker_session *s,
                               uint32_t connection) SEL_WARN_UNUSED;
void sel_broker_session_disconnect(struct sel_broker *b, struct sel_broker_session *s);
/* The session is over. What a worker had is put back, `suspect`: it died, nobody knows of what. */
void sel_broker_session_end(struct sel_broker *b, struct sel_broker_session *s, bool suspect);
void sel_broker_sessions_done(struct sel_broker *b);
void sel_broker_session_mark(struct sel_broker *b, struct sel_broker_session *s); /* has to send */
/* A record for the peer. As sel_session_put, but REFUSED and CANCEL, which cannot wait, find room
 * beyond outbox_bytes_max. Producers: `task` is pinned until it is settled. */
int sel_broker_session_say(struct sel_broker *b, struct sel_broker_session *s,
                           const struct sel_wire_item *item, uint32_t task) SEL_WARN_UNUSED;
/* Records up to `number` are settled when `batch` is committed (0: at once). */
void sel_broker_session_settle_at(struct sel_broker *b, struct sel_broker_session *s,
                                  uint64_t number, uint64_t batch);
void sel_broker_sessions_committed(struct sel_broker *b); /* log.committed has moved */
/* There is no memory to go on with it: it is closed at the end of the turn, so that the peer says
 * in a new one what was lost. */
void sel_broker_session_fail(struct sel_broker *b, struct sel_broker_session *s);
void sel_broker_sessions_close_failed(struct sel_broker *b);
/* What the peer has settled: results may be dropped. */
void sel_broker_session_note_settled(struct sel_broker *b, struct sel_broker_session *s);
void sel_broker_sessions_give_credit(struct sel_broker *b);
/* Memory is short: outboxes give back what they do not use. */
void sel_broker_sessions_trim(struct sel_broker *b);
void sel_broker_sessions_check_leases(struct sel_broker *b);
/* The broker itself stood still for so long: nobody is blamed for it. */
void sel_broker_sessions_forgive(struct sel_broker *b, int64_t us);
int64_t sel_broker_sessions_flush(struct sel_broker *b); /* when it wants to go on */
/* An ERROR to a connection, best effort. */
void sel_broker_error(struct sel_broker *b, uint32_t connection, const struct sel_wire_error *e);

/* ---- window.c: how much producers may send unasked ---- */
void sel_broker_window_open(struct sel_broker *b, struct sel_broker_session *s);
void sel_broker_window_close(struct sel_broker *b, struct sel_broker_session *s);
/* It has used some of its window, or asks for more. */
void sel_broker_window_want(struct sel_broker *b, struct sel_broker_session *s);
/* Lets windows grow; when it wants to go on with that. */
int64_t sel_broker_windows_grow(struct sel_broker *b);

/* ---- result.c ---- */
/* The task ends here and now, for all who wait for it. `payload` is copied; not b->scratch. 0;
 * SEL_ENOMEM: nothing has changed. */
int sel_broker_task_end(struct sel_broker *b, uint32_t task, uint16_t code,
                        struct sel_str payload) SEL_WARN_UNUSED;
/* With a failure {class, message}; stays as it is if there is no memory for that. */
int sel_broker_task_fail(struct sel_broker *b, uint32_t task, const char *class, const char *fmt,
                         ...) SEL_PRINTF(4, 5);
/* As one that is not wanted any more; as above. */
int sel_broker_task_cancel(struct sel_broker *b, uint32_t task);
/* Its end has reached its level: the results go out. */
void sel_broker_task_release(struct sel_broker *b, uint32_t task);
/* The end alone, without what it needs memory for: a blob of the payload (NULL: it is in the
 * journal) and, if its level asks for that, the mutation DONE at `place`. Cannot fail. */
void sel_broker_task_finish(struct sel_broker *b, uint32_t task, uint16_t code, uint8_t *blob,
                            size_t size, const struct sel_log_place *place);
int sel_broker_task_log_end(struct sel_broker *b, uint32_t task, uint16_t code,
                            struct sel_str payload, struct sel_log_place *ret) SEL_WARN_UNUSED;
/* It may be dropped once it was heard. */
void sel_broker_task_pin(struct sel_broker *b, uint32_t task);
/* The session wants the result of `task` (or is told it, if it has ended), as `as`; `all`: of a
 * flow, when all that it has sent off has ended too. */
void sel_broker_task_watch(struct sel_broker *b, uint32_t task, struct sel_broker_session *s,
                           uint32_t as, bool all);
/* All that the flow has sent off has ended: those who wait for that are told. */
void sel_broker_task_release_all(struct sel_broker *b, uint32_t task);
/* It is no more: out of all tables; not in a list, not pinned. */
void sel_broker_task_forget(struct sel_broker *b, uint32_t task);
void sel_broker_task_unpin(struct sel_broker *b, uint32_t task);
/* Results that waited for room or for a commit. */
void sel_broker_results_flush(struct sel_broker *b, struct sel_broker_session *s);
void sel_broker_results_drop(struct sel_broker *b); /* over the limits, or too old */
int64_t sel_broker_results_due_us(const struct sel_broker *b);
uint32_t sel_broker_note_new(struct sel_broker *b); /* SEL_NONE: out of memory */
void sel_broker_note_free(struct sel_broker *b, uint32_t note);
/* REFUSED for a SUBMIT or WATCH. */
void sel_broker_session_refuse(struct sel_broker *b, struct sel_broker_session *s, struct sel_id id,
                               uint64_t number, enum sel_wire_code code, const char *text);

/* ---- keys.c: idempotency keys ---- */
#define SEL_KEY_DIGEST 16
void sel_broker_key_digest(const struct sel_wire_item *item, struct sel_str queue, uint8_t *ret);
/* The task of that key: its index, SEL_NONE: none; *ret_same whether the digest is the same. */
uint32_t sel_broker_key_find(const struct sel_broker *b, struct sel_str key, const uint8_t *digest,
                             bool *ret_same);
int sel_broker_key_add(struct sel_broker *b, struct sel_str key, const uint8_t *digest,
                       uint32_t task) SEL_WARN_UNUSED;
/* Key and digest of a task that is KEYED. */
void sel_broker_key_of(const struct sel_broker *b, uint32_t task, struct sel_str *ret_key,
                       const uint8_t **ret_digest);
void sel_broker_key_remove(struct sel_broker *b, uint32_t task);
void sel_broker_keys_done(struct sel_broker *b);

/* ---- submit.c: what producers send; complete.c: what workers send ---- */
/* Each takes one record. The batch that must be committed before it is settled; 0: none. */
uint64_t sel_broker_on_submit(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_cancel(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_watch(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_done(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_return(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_cancelled(struct sel_broker *b, struct sel_broker_session *s,
                                 const struct sel_wire_item *item, uint64_t number);
/* The task that a record of a worker is about; SEL_NONE: it is known no more. */
uint32_t sel_broker_task_of(const struct sel_broker *b, const struct sel_wire_item *item);
/* The try is over and the next one is due: its mutation, if its level asks for one, and what
 * follows, for which the timers have room. */
int sel_broker_log_retry(struct sel_broker *b, uint32_t task,
                         uint64_t countdown_us) SEL_WARN_UNUSED;
void sel_broker_task_retry(struct sel_broker *b, uint32_t task, uint64_t countdown_us);
uint64_t sel_broker_on_want(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_queue(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number);
/* The worker serves the queue, of tasks and of flows as it takes them, or does no longer. 0 or
 * SEL_ENOMEM. */
int sel_broker_session_serve(struct sel_broker *b, struct sel_broker_session *s, uint32_t queue,
                             bool serves) SEL_WARN_UNUSED;
/* The peer's number `number` stands for `name`. */
int sel_broker_session_name_queue(struct sel_broker *b, struct sel_broker_session *s,
                                  uint16_t number, struct sel_str name) SEL_WARN_UNUSED;

/* ---- hello.c ---- */
void sel_broker_on_hello(struct sel_broker *b, uint32_t connection, struct sel_str frame);
void sel_broker_on_beat(struct sel_broker *b, uint32_t connection, struct sel_str frame);
void sel_broker_on_goodbye(struct sel_broker *b, uint32_t connection, struct sel_str frame);

/* ---- dispatch.c ---- */
void sel_broker_dispatch(struct sel_broker *b);
/* It is with no worker any more: takes it from its holder. */
void sel_broker_task_detach(struct sel_broker *b, uint32_t task);
/* It, or this try of it, has ended through `s`: if another worker has it, that one may stop. */
void sel_broker_task_call_off(struct sel_broker *b, struct sel_broker_session *s, uint32_t task);
/* A worker claims or gets it. */
void sel_broker_task_attach(struct sel_broker *b, uint32_t task, struct sel_broker_session *s);
/* Nobody knows more of it than its id, and nobody claims it: those who wait are told. */
void sel_broker_task_lose_orphan(struct sel_broker *b, uint32_t task);
/* The worker does not know tasks of that name. */
void sel_broker_session_note_unknown(struct sel_broker_session *s, struct sel_str name);
int64_t sel_broker_task_unknown_us(const struct sel_broker *b, const struct sel_task_entry *task);
/* Is tried with another worker after a pause. */
void sel_broker_task_wait_for_another(struct sel_broker *b, uint32_t task);
/* "WorkerLost" or what it is for a flow. */
const char *sel_broker_lost_class(const struct sel_task_entry *task);
/* Back to its queue; or its end, if it took too many workers with it. */
void sel_broker_task_put_back(struct sel_broker *b, uint32_t task);

/* ---- flow.c: flows, their attempts, runs and pieces ---- */
/* The parts of an entry that depend on its kind. */
uint8_t **sel_broker_blob_at(struct sel_task_entry *task);
/* The entry, of which nothing but the id is known, is a flow. false: out of memory. */
bool sel_broker_flow_init(struct sel_broker *b, uint32_t entry);
void sel_broker_flow_set_name(struct sel_broker *b, struct sel_flow *flow, struct sel_str name);
struct sel_flow_try *sel_broker_try_new(struct sel_broker *b, struct sel_flow *flow,
                                        uint16_t attempt); /* one reference; NULL: no memory */
void sel_broker_try_ref(struct sel_flow_try *attempt);
void sel_broker_try_unref(struct sel_broker *b, struct sel_flow_try *attempt);
void sel_broker_flow_unref(struct sel_broker *b, struct sel_flow *flow);
/* The flow, an entry that is being removed, is no more. */
void sel_broker_flow_gone(struct sel_broker *b, uint32_t entry);
void sel_broker_flow_adopt(struct sel_flow *child, struct sel_flow_try *parent, uint32_t ordinal);
struct sel_run_group *sel_broker_group_new(struct sel_broker *b, struct sel_str fields);
void sel_broker_group_unref(struct sel_broker *b, struct sel_run_group *group, uint32_t count);
/* The piece with its nodes, whose reference it takes over; SEL_NONE: none. */
void sel_broker_flow_set_nodes(struct sel_broker *b, struct sel_flow *flow, uint32_t piece);
/* A piece with these bytes; `place`: where they are in the journal, NULL: nowhere. SEL_NONE: out of
 * memory. */
uint32_t sel_broker_piece_new(struct sel_broker *b, struct sel_id id, enum sel_piece_type type,
                              uint8_t level, struct sel_str bytes,
                              const struct sel_log_place *place);
void sel_broker_piece_ref(struct sel_broker *b, uint32_t piece); /* SEL_NONE allowed */
void sel_broker_piece_unref(struct sel_broker *b, uint32_t piece);
struct sel_id sel_broker_piece_id(struct sel_broker *b);
/* Into the list of the attempt, by number; takes over the reference. */
void sel_broker_try_add_piece(struct sel_broker *b, struct sel_flow_try *t, uint32_t piece);
/* Forgets what is older than the piece `until`; the part of a state that is not complete. */
void sel_broker_try_drop_pieces(struct sel_broker *b, struct sel_flow_try *t, uint32_t until);
void sel_broker_try_drop_piece(struct sel_broker *b, struct sel_flow_try *t, uint32_t piece);
void sel_broker_try_drop_new_state(struct sel_broker *b, struct sel_flow_try *t);
/* Appends arguments of the attempt: of a piece, or (SEL_NONE) those of the flow. */
int sel_broker_put_args(struct sel_broker *b, const struct sel_flow_try *t, uint32_t args,
                        struct sel_buf *buf) SEL_WARN_UNUSED;
/* The flow has a new attempt (NULL: none any more), whose reference it takes over: what is open is
 * detached, the rest forgotten. */
void sel_broker_flow_set_try(struct sel_broker *b, uint32_t entry, struct sel_flow_try *t);
/* A run or sub-flow of the attempt, `entry`, is not open any more. */
void sel_broker_flow_count_closed(struct sel_broker *b, struct sel_flow *flow);
/* The end of a run counts: it is told, or forgotten. Of a sub-flow: its parent hears of it. */
void sel_broker_run_ended(struct sel_broker *b, uint32_t entry);
/* To the ends that the owner is to hear of. */
void sel_broker_try_add_ended(struct sel_broker *b, struct sel_flow_try *t, uint32_t entry);
/* It waits for so many sub-flows. */
void sel_broker_flow_set_waits(struct sel_broker *b, struct sel_flow *flow, uint32_t count);
/* It has ended, and all that it has sent off. */
void sel_broker_flow_be_done(struct sel_broker *b, struct sel_flow *flow);
/* A consumed end is needed no more, or kept for its payload. */
void sel_broker_run_consume(struct sel_broker *b, struct sel_flow_try *t, uint32_t entry);
/* The entry of an end that was told and not consumed; SEL_NONE: there is none. */
uint32_t sel_broker_try_find_ended(const struct sel_broker *b, const struct sel_flow_try *t,
                                   uint32_t ordinal);
void sel_broker_run_remove(struct sel_broker *b, uint32_t entry);
static inline bool sel_broker_try_is_current(const struct sel_flow_try *t)
{
    return t->flow->current == t;
}
/* Fields and payload of the TASK of a run, in scratch2 and scratch3. */
int sel_broker_run_describe(struct sel_broker *b, uint32_t entry, struct sel_str *ret_fields,
                            struct sel_str *ret_payload) SEL_WARN_UNUSED;
/* When the next start of that name may be, and that it takes place then; mono_us. */
int sel_broker_throttle(struct sel_broker *b, struct sel_str name, uint64_t interval_us,
                        uint64_t count, uint8_t level, int64_t *ret_us) SEL_WARN_UNUSED;

/* ---- pump.c: what owners are told of their flows ---- */
void sel_broker_flow_tell(struct sel_broker *b, struct sel_flow *flow);
/* The flow was delivered: says what is known of it. */
void sel_broker_flow_load(struct sel_broker *b, uint32_t entry);
void sel_broker_flow_disown(struct sel_broker *b, struct sel_flow *flow);
void sel_broker_pump(struct sel_broker *b);
bool sel_broker_flow_has_history(const struct sel_flow *flow);

/* ---- decide.c: what dispatchers say ---- */
uint64_t sel_broker_on_decide(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_state(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number);
uint64_t sel_broker_on_void(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number);

/* ---- flow_replay.c ---- */
int sel_broker_replay_flow(struct sel_broker *b, const struct sel_mutation *m,
                           struct sel_log_place place) SEL_WARN_UNUSED;
void sel_broker_replay_flows_end(struct sel_broker *b);

/* ---- flow_log.c ---- */
/* RUNS: entries that follow each other, in the state of the first, times `step_us` apart. Each is
 * to claim `*ret_share` bytes. */
int sel_broker_log_runs(struct sel_broker *b, const struct sel_flow_try *t, const uint32_t *entries,
                        uint32_t count, uint64_t step_us, struct sel_log_place *ret,
                        size_t *ret_share) SEL_WARN_UNUSED;
int sel_broker_log_piece(struct sel_broker *b, const struct sel_flow_try *t, struct sel_id id,
                         enum sel_piece_type type, uint32_t number, uint32_t flags, uint8_t level,
                         struct sel_str bytes, struct sel_log_place *ret) SEL_WARN_UNUSED;
/* A flow that ends with open runs: what they need of its submit is kept. */
int sel_broker_flow_keep_args(struct sel_broker *b, uint32_t entry, bool has_open) SEL_WARN_UNUSED;
/* What is needed of a RUNS of batch `seq`, written anew. */
int sel_broker_copy_runs(struct sel_broker *b, const struct sel_mutation *m,
                         uint64_t seq) SEL_WARN_UNUSED;

/* ---- replay.c ---- */
/* What flows have in common with tasks: the entry is there. */
int sel_broker_replay_submit(struct sel_broker *b, const struct sel_mutation *m, uint32_t entry,
                             struct sel_log_place place) SEL_WARN_UNUSED;
int sel_broker_replay_done(struct sel_broker *b, const struct sel_mutation *m, uint32_t entry,
                           struct sel_log_place place) SEL_WARN_UNUSED;
int sel_broker_replay_retry(struct sel_broker *b, const struct sel_mutation *m) SEL_WARN_UNUSED;
int sel_broker_replay_wait_or_queue(struct sel_broker *b, uint32_t entry,
                                    int64_t unix_us) SEL_WARN_UNUSED;
/* After the last batch: results that are there begin to age. 0 or SEL_ENOMEM. */
int sel_broker_replay_end(struct sel_broker *b) SEL_WARN_UNUSED;

/* ---- recover.c ---- */
void sel_broker_recover_begin(struct sel_broker *b);
/* A peer came that had a session before this broker began. */
void sel_broker_recover_returned(struct sel_broker *b);
void sel_broker_recover_heard(struct sel_broker *b, struct sel_id peer);
void sel_broker_recover_check(struct sel_broker *b);
int sel_broker_known_add(struct sel_broker *b, struct sel_id peer, uint32_t incarnation,
                         bool is_expected) SEL_WARN_UNUSED;
void sel_broker_known_remove(struct sel_broker *b, struct sel_id peer);

#endif
