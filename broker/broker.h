/* broker/broker.h - the broker as a pure machine: frames and ends of commits in, frames and batches
 * out.
 *
 * No socket, clock, thread, disk or randomness is in here: broker/loop.c gives it those of the
 * system, tests/sim those of a seed. All functions belong to one thread. The way of things:
 *
 *   start    sel_broker_new, sel_broker_replay for each batch of the journal, sel_broker_start
 *   loop     sel_broker_receive for frames that came, then sel_broker_turn, which gives work out,
 *            looks at what is due and sends; sel_broker_take_batches when no commit is under way
 *   commit   the batches are appended beside the loop, then sel_broker_committed
 *   end      sel_broker_drain or sel_broker_goodbye, the last commit, sel_broker_free
 *
 * What it promises: docs/guarantees.md; what goes over the wire: proto/PROTOCOL.md. */
#ifndef SEL_BROKER_BROKER_H
#define SEL_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/histogram.h"
#include "core/id.h"
#include "core/str.h"

struct sel_broker;

/* Two clocks, read once a turn: deadlines that outlive the process are unix_us, all waiting is
 * mono_us. */
struct sel_broker_now {
    int64_t mono_us, unix_us;
};

enum sel_broker_log { SEL_BROKER_DEBUG, SEL_BROKER_INFO, SEL_BROKER_WARNING, SEL_BROKER_ERROR };

/* The world. All functions are called in calls of sel_broker_*, on the same thread, and must not
 * call back. */
struct sel_broker_io {
    void *ctx;
    /* One frame to a connection; the bytes are copied. 0; -EAGAIN: takes no more now (asked again
     * in a later turn); -EHOSTUNREACH: nobody is there. */
    int (*send)(void *ctx, uint32_t connection, struct sel_str frame);
    /* Part of a batch that was committed (struct sel_journal_ops.read); NULL: no journal. */
    int (*read)(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf);
    /* `event` is static, as "session.new"; `text` holds key=value pairs. */
    void (*log)(void *ctx, enum sel_broker_log level, const char *event, const char *text);
};

/* Zero stands for the default in brackets. */
struct sel_broker_options {
    uint64_t seed;             /* random: of the hash of ids, which others choose */
    uint32_t shard;            /* of a cluster, below 4096 */
    int64_t lease_us;          /* a peer unheard for so long is forgotten [10 s] */
    int64_t beat_us;           /* how often peers shall say something [lease_us / 5] */
    uint32_t record_max;       /* bytes of the largest record taken [SEL_WIRE_RECORD_MAX] */
    uint8_t level_default;     /* enum sel_wire_level of SUBMITs that say none [level_max] */
    uint8_t level_max;         /* [COMMIT with a journal, else MEMORY] */
    int64_t interval_us;       /* level interval is synced so often [100 ms] */
    uint64_t memory_max;       /* bytes of tasks, results and buffers; credit stops at 3/4, at
                                  all of it SUBMITs are refused [1 GiB] */
    uint64_t payload_memory;   /* payloads in memory of tasks that are in the journal too; above
                                  it they are read back when they are delivered [16 MiB] */
    uint32_t result_max;       /* results kept after they have been delivered [100,000] */
    uint64_t result_bytes_max; /* [memory_max / 8] */
    int64_t result_ttl_us;     /* [1 h] */
    uint32_t poison_max;       /* a task that took so many workers with it fails [3] */
    int64_t unknown_task_us;   /* a task that no worker knows for so long fails [30 s] */
    uint32_t session_max;      /* [65,536] */
    uint32_t queue_max;        /* names of queues [4,096] */
    uint64_t window_records;   /* credit of a session beyond what has arrived [65,536] */
    uint64_t window_bytes;     /* the same in bytes [8 MiB], at least record_max; see window.c */
    uint64_t outbox_bytes_max; /* unsettled bytes kept for a peer [16 MiB], without what cannot
                                * wait; no more than memory_max / 8, but one record */
    uint64_t batch_bytes_max;  /* a batch of the journal ends there [1 MiB] */
    uint64_t
        journal_compact_min; /* bytes that are no longer needed before copying begins [64 MiB] */
};

/* `id`: of a broker without a journal or with an empty one: 128 random bits; a journal that is
 * replayed brings its own. `io.read` NULL: there is no journal and level_max is memory.
 * 0, SEL_ENOMEM, SEL_ERANGE (`err` says which option). */
int sel_broker_new(const struct sel_broker_options *options, const struct sel_broker_io *io,
                   struct sel_id id, struct sel_broker **ret,
                   struct sel_error *err) SEL_WARN_UNUSED;
struct sel_broker *sel_broker_free(struct sel_broker *broker); /* NULL allowed; returns NULL */

/* One batch of the journal, in order, before the start. SEL_EFORMAT (`err` says where), SEL_ENOMEM,
 * SEL_EVERSION. */
int sel_broker_replay(struct sel_broker *broker, uint64_t seq, struct sel_str batch,
                      struct sel_broker_now now, struct sel_error *err) SEL_WARN_UNUSED;
/* After the last batch: a new incarnation. It is journaled, and nothing is answered before that is
 * committed. 0 or SEL_ENOMEM. */
int sel_broker_start(struct sel_broker *broker, struct sel_broker_now now) SEL_WARN_UNUSED;

/* A frame came from a connection: any bytes. */
void sel_broker_receive(struct sel_broker *broker, uint32_t connection, struct sel_str frame,
                        struct sel_broker_now now);
/* Timers, leases, deliveries, then sends what is to be said. The mono_us at which it wants to be
 * called again at the latest (INT64_MAX: no wish; <= now: at once). */
int64_t sel_broker_turn(struct sel_broker *broker, struct sel_broker_now now);

/* ---- the journal ---- */

#define SEL_BROKER_BATCHES_MAX 16
struct sel_broker_batches {
    struct sel_str bytes[SEL_BROKER_BATCHES_MAX]; /* valid until sel_broker_committed */
    uint32_t count;                               /* may be 0: only sync or drop */
    uint64_t first;                               /* sequence number that bytes[0] must get */
    bool sync;                                    /* must be synced */
    bool urgent;                                  /* may use the reserve of the journal */
    uint64_t drop_before;                         /* batches below are not needed; 0: no news */
};

/* What is to be appended, as one commit. false: nothing, or not yet, or a commit is under way. */
bool sel_broker_take_batches(struct sel_broker *broker, struct sel_broker_now now,
                             struct sel_broker_batches *ret);
/* How that went: 0, -ENOSPC or SEL_ELIMIT (the same will be taken again after a pause). After any
 * other code the broker must not be used but for sel_broker_free; start over from the journal. */
void sel_broker_committed(struct sel_broker *broker, int result, struct sel_broker_now now);
/* What the journal holds, for the decision to compact: after the replay and after each commit. */
void sel_broker_note_journal(struct sel_broker *broker, uint64_t bytes_live);

/* ---- the end ---- */

/* From now on SUBMITs are refused with `draining`; what is there goes on. */
void sel_broker_drain(struct sel_broker *broker);
/* Nothing is queued, waiting for its time, delivered or to be said. */
bool sel_broker_is_idle(const struct sel_broker *broker);
/* Says GOODBYE to all sessions; work on what comes in afterwards is not answered. */
void sel_broker_goodbye(struct sel_broker *broker, const char *reason);

/* ---- what people ask ---- */

/* A QUERY: appends one REPLY to `reply` (whatever is asked; nothing if the frame is an ERROR).
 * The questions: docs/operations.md. */
void sel_broker_query(struct sel_broker *broker, struct sel_str frame, struct sel_broker_now now,
                      struct sel_buf *reply);

struct sel_broker_stats {
    uint32_t sessions, workers, producers, queues;
    uint64_t tasks, queued, waiting, delivered, ended; /* now; tasks is the sum */
    uint64_t submitted, duplicates, refused, started, finished, failed, retried, cancelled,
        put_back, lost, results_dropped; /* since the start */
    uint64_t frames_in, frames_out, bytes_in, bytes_out, records_in, records_out, errors_sent;
    uint64_t memory_used, memory_max;
    uint64_t commits, commit_bytes, commit_failures;
    uint32_t incarnation;
    bool is_draining, is_full, is_recovering;
    struct sel_histogram commit_us, queue_us; /* a commit; SUBMIT to its first delivery */
};
void sel_broker_get_stats(const struct sel_broker *broker, struct sel_broker_stats *ret);

#endif
