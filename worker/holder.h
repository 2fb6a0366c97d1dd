/* worker/holder.h - what one session of a worker holds: tasks from TASK to the settled DONE. Pure.
 *
 * Around a sel_peer: takes each delivery once, keeps what was delivered until the broker knows its
 * end, tells in HELLO what it holds, returns what it has not begun. worker/link.c gives it a socket
 * and worker/bare.c runs the tasks; tests/sim runs it as it is. Belongs to one thread. */
#ifndef SEL_WORKER_HOLDER_H
#define SEL_WORKER_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "proto/peer.h"

struct sel_holder;

/* Ends that may be on their way: with more, sel_holder_end says SEL_ELIMIT. */
#define SEL_HOLDER_UNSETTLED_MAX 262144u
#define SEL_HOLDER_TEXT_MAX 1024u

enum sel_held_state {
    SEL_HELD_WAITING, /* delivered, not begun */
    SEL_HELD_RUNNING,
    SEL_HELD_ENDED, /* its end was put and is not settled */
};

/* Records of so many bytes lie in the task itself. */
#define SEL_HELD_INLINE_MAX 192u

/* One task; belongs to the holder. What is touched on its way comes first, in few cache lines. */
struct sel_held_task {
    struct sel_id id;
    uint64_t handle;
    uint16_t try_count, delivery;
    uint8_t state; /* enum sel_held_state */
    bool is_cancelled;
    bool is_run;             /* of a flow */
    bool is_uncounted;       /* the owner's: its SEL_OUTCOME_RETRY is not counted as one */
    uint8_t end_type;        /* private, as what follows: enum sel_wire_record of its end */
    bool is_again : 1;       /* the DONE with done_number is to be put for another delivery too */
    bool is_refused : 1;     /* the broker would not have its end: another was put */
    bool is_kept_inside : 1; /* `record` is `inside` */
    struct sel_held_task *prev, *next; /* in the list of its state */
    uint64_t done_number;              /* of its end in our direction; 0: not put yet */
    uint32_t index;                    /* of the task's memory */
    uint32_t end_code;
    uint32_t cancel_code;  /* enum sel_wire_cancel, for the answer */
    struct sel_str record; /* the TASK as it came, kept until its end; SEL_HELD_ENDED: empty */
    void *user;            /* the owner's, from start to end */
    const char *end_class; /* private: of a failure that the holder found itself, else NULL */
    char inside[SEL_HELD_INLINE_MAX];
    struct sel_wire_item item; /* decoded, points into `record`; SEL_HELD_RUNNING only */
};

struct sel_holder_ops {
    /* CANCEL came for a task that runs; it is ended by sel_holder_end as ever. May be NULL. */
    void (*cancel)(void *ctx, struct sel_held_task *task);
    /* One line for a log. May be NULL. */
    void (*log)(void *ctx, const char *text);
    /* A record about a flow: TASK with FLOW, STATE, EVENTS, ENDED, LIVE, CANCEL of what is not held
     * as a task. Its bytes are free when it returns. May put flow records. NULL: no dispatcher. */
    void (*flow)(void *ctx, const struct sel_wire_item *item);
    /* A session has begun that is not the one before: flows are owned no longer. May be NULL. */
    void (*flows_lost)(void *ctx);
};

struct sel_holder_options {
    struct sel_peer_options peer; /* role, id, incarnation, queues, slots, window, seed */
    const struct sel_holder_ops *ops;
    void *ctx;
};

int sel_holder_new(const struct sel_holder_options *options, int64_t now_us,
                   struct sel_holder **ret) SEL_WARN_UNUSED;   /* 0 or SEL_ENOMEM */
struct sel_holder *sel_holder_free(struct sel_holder *holder); /* returns NULL */

/* The next task to begin, oldest first, now SEL_HELD_RUNNING; NULL: none. */
struct sel_held_task *sel_holder_begin(struct sel_holder *holder);
/* It ended: DONE (code and payload; countdown_us with SEL_OUTCOME_RETRY), or CANCELLED with
 * SEL_OUTCOME_CANCELLED, which always finds room. 0; SEL_ELIMIT: no room for the record now, call
 * again later with the same; SEL_ERANGE: the payload is over the broker's limit: end it with a
 * failure instead; SEL_ENOMEM. */
int sel_holder_end(struct sel_holder *holder, struct sel_held_task *task, uint32_t code,
                   int64_t countdown_us, struct sel_str payload) SEL_WARN_UNUSED;
/* It cannot be done here: RETURN with enum sel_wire_return; `text` says more to people (at most
 * SEL_HOLDER_TEXT_MAX bytes of it; nothing if there is no room now). The task waits or runs.
 * Always 0. */
int sel_holder_return(struct sel_holder *holder, struct sel_held_task *task, uint32_t code,
                      struct sel_str text);
/* A record about a flow that is worth nothing in another session: DECIDE, STATE or RETURN. It is
 * kept until it is settled, and dropped when a session begins that is not the one before. 0;
 * SEL_ELIMIT: no room now (see sel_holder_has_room); SEL_ERANGE: it is over a limit; SEL_ENOMEM. */
int sel_holder_put_flow(struct sel_holder *holder,
                        const struct sel_wire_item *item) SEL_WARN_UNUSED;
/* The number of the last one that was put in this session; 0: none was. */
uint64_t sel_holder_flow_last(const struct sel_holder *holder);
/* All records of ours up to this number are settled; in ops->flows_lost those of the session that
 * is lost. */
uint64_t sel_holder_flow_settled(const struct sel_holder *holder);
/* Whether records of so many bytes find room now. */
bool sel_holder_has_room(const struct sel_holder *holder, size_t size);
/* The number of a queue's name in our direction; the broker is told of it if HELLO did not. 0 and
 * *ret, valid in this session; as sel_holder_put_flow else. */
int sel_holder_queue_number(struct sel_holder *holder, struct sel_str name,
                            uint16_t *ret) SEL_WARN_UNUSED;
/* No new tasks from now on: WANT 0 for all queues, RETURN for all that wait. */
void sel_holder_drain(struct sel_holder *holder);
/* Drained, nothing runs, every end is settled, and every record about a flow: GOODBYE may be said.
 */
bool sel_holder_is_empty(const struct sel_holder *holder);

uint32_t sel_holder_waiting(const struct sel_holder *holder);
uint32_t sel_holder_running(const struct sel_holder *holder);
uint32_t sel_holder_unsettled(const struct sel_holder *holder);
struct sel_holder_stats {
    uint64_t taken, begun, done, returned, cancelled; /* tasks, since the start */
    uint64_t redelivered;                /* came again while they were held: not begun again */
    uint64_t undecodable;                /* records of the broker that could not be read */
    uint64_t flow_records, flow_dropped; /* of ours about flows; not sent in a new session */
};
void sel_holder_get_stats(const struct sel_holder *holder, struct sel_holder_stats *ret);
/* Calls fn for each task that runs. It may end the task that it is called for. */
void sel_holder_each_running(struct sel_holder *holder,
                             void (*fn)(void *ctx, struct sel_held_task *task), void *ctx);
/* Appends what a failed task is told with: the encoded map {class, message}. */
void sel_holder_put_failure(struct sel_buf *buf, struct sel_str error_class,
                            struct sel_str message);
/* The name of a queue by the broker's number in this session; n == 0: unknown. */
struct sel_str sel_holder_queue_name(const struct sel_holder *holder, uint16_t queue);

/* The socket's side: as of sel_peer. */
void sel_holder_receive(struct sel_holder *holder, struct sel_str frame, int64_t now_us);
enum sel_peer_action sel_holder_poll(struct sel_holder *holder, int64_t now_us,
                                     struct sel_buf *out);
int64_t sel_holder_due_us(const struct sel_holder *holder);
struct sel_peer *sel_holder_peer(struct sel_holder *holder);

#endif
