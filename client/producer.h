/* client/producer.h - a producer as a pure machine: submits in, settles and results out.
 *
 * Around a sel_peer: it remembers which tasks are waited for, takes each result once, sends again
 * what was not settled, watches what was settled and has no result yet after the broker has
 * forgotten the session. client/client.c gives it sockets, threads and a public face; tests/sim
 * runs it as it is. Not thread safe. */
#ifndef SEL_CLIENT_PRODUCER_H
#define SEL_CLIENT_PRODUCER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"
#include "proto/peer.h"

struct sel_producer;

/* What became of a task. Texts live for the call. */
struct sel_producer_result {
    struct sel_id id;
    void *tag;       /* of the submit or watch */
    bool is_refused; /* `code` is enum sel_wire_code and `payload` text; else enum sel_wire_outcome
                      */
    uint32_t code;
    uint8_t level;
    bool is_all; /* it was wanted after detached work, see sel_producer_watch */
    uint16_t try_count;
    struct sel_str payload;
};

/* Called in calls of sel_producer_receive and sel_producer_poll; they may submit, but not receive
 * or poll. */
struct sel_producer_ops {
    /* The SUBMIT has reached its level, or was refused (then `finished` was called before). Only
     * for submits that asked for it. May be NULL. */
    void (*settled)(void *ctx, struct sel_id id, void *tag);
    /* Called once for each submit that is not QUIET and each watch; for one that is QUIET if it was
     * refused and `settled` was asked for. What was REFUSED with `full` or
     * `draining` is sent again after a pause, not reported. If the broker will never have this
     * producer, all that is waited for is refused. */
    void (*finished)(void *ctx, const struct sel_producer_result *result);
    /* Connected, disconnected, errors of the broker: one line for a log. May be NULL. */
    void (*log)(void *ctx, const char *text);
};

struct sel_producer_options {
    struct sel_id id; /* of the peer, random */
    struct sel_str name;
    const struct sel_producer_ops *ops;
    void *ctx;
    size_t keep_bytes_max;                 /* submits not settled behind one; 0: 64 MiB */
    uint32_t waiting_max;                  /* tasks waited for; 0: 4 million */
    uint64_t window_records, window_bytes; /* credit for results; 0: as struct sel_peer_options */
    uint64_t seed;
    int64_t lost_after_us; /* no broker for so long: submits fail with -ETIMEDOUT; 0: never */
};

int sel_producer_new(const struct sel_producer_options *options, int64_t now_us,
                     struct sel_producer **ret) SEL_WARN_UNUSED;       /* 0 or SEL_ENOMEM */
struct sel_producer *sel_producer_free(struct sel_producer *producer); /* returns NULL */

/* The number of a queue by name, told to the broker when it is new. SEL_ERANGE: no name;
 * SEL_ELIMIT: too many, or no room now; others as sel_producer_submit. */
int sel_producer_queue(struct sel_producer *producer, struct sel_str name,
                       uint16_t *ret) SEL_WARN_UNUSED;
/* `item`: a SUBMIT with id, queue (of sel_producer_queue) and fields; of a flow with SEL_ITEM_FLOW.
 * 0; SEL_ELIMIT: nothing more
 * is kept or waited for now, try again when something is settled or finished; SEL_EEXISTS: the id
 * is waited for; SEL_ERANGE: something in it is over its limit; SEL_EREQUEST: the broker will never
 * have us; -ETIMEDOUT: see `lost_after_us`; SEL_ENOMEM. */
int sel_producer_submit(struct sel_producer *producer, const struct sel_wire_item *item, void *tag,
                        bool wants_settled) SEL_WARN_UNUSED;
/* Waits for a task or flow that somebody else, or this process in an earlier life, submitted.
 * `all`: for a flow's end and that of all that it has sent off, as SEL_ITEM_ALL of a SUBMIT. As
 * sel_producer_submit. */
int sel_producer_watch(struct sel_producer *producer, struct sel_id id, void *tag,
                       bool all) SEL_WARN_UNUSED;
/* Its result is not wanted any more; `finished` will not be called. false: it was not waited for.
 */
bool sel_producer_forget(struct sel_producer *producer, struct sel_id id);
/* The task is not wanted any more; `finished` tells what became of it. SEL_ELIMIT: not now;
 * SEL_ENOMEM. */
int sel_producer_cancel(struct sel_producer *producer, struct sel_id id) SEL_WARN_UNUSED;

bool sel_producer_is_waiting(const struct sel_producer *producer, struct sel_id id);
/* Whether an eighth of all limits is free again: worth waking those up who got SEL_ELIMIT. */
bool sel_producer_has_room(const struct sel_producer *producer);
/* The caller has no room for more results: the broker gets no more credit for them until it has. */
void sel_producer_hold(struct sel_producer *producer, bool hold);

/* The socket's side: as of sel_peer. */
void sel_producer_receive(struct sel_producer *producer, struct sel_str frame, int64_t now_us);
enum sel_peer_action sel_producer_poll(struct sel_producer *producer, int64_t now_us,
                                       struct sel_buf *out);
int64_t sel_producer_due_us(const struct sel_producer *producer);
struct sel_peer *sel_producer_peer(struct sel_producer *producer);

/* Records of ours, submits above all, that are not settled; tasks waited for. */
uint32_t sel_producer_unsettled(const struct sel_producer *producer);
uint32_t sel_producer_waiting(const struct sel_producer *producer);

struct sel_producer_stats {
    uint64_t submitted; /* taken by sel_producer_submit */
    uint64_t finished;  /* results, refusals among them */
    uint64_t refused;   /* finally; QUIET ones too */
    uint64_t deferred;  /* REFUSED for lack of room, and sent again */
    uint64_t unasked;   /* results that nobody waited for */
    uint64_t sessions;  /* that began or went on: one more than there were interruptions */
    uint64_t watched;   /* WATCHes because the broker had forgotten the session */
};
void sel_producer_get_stats(const struct sel_producer *producer, struct sel_producer_stats *ret);

#endif
