/* broker/loop.h - the broker's sockets and its thread: the only place of broker/ that knows ZeroMQ.
 *
 * One ROUTER for producers and workers, one for queries, each bound to several endpoints. A turn of
 * the loop reads what came, up to a bound, hands it to the core, lets the core send, and passes its
 * batches to the commit thread. While something comes or goes the loop does not sleep; else it
 * sleeps until a socket, a commit, or the time that the core named.
 *
 * A connection is the number that ZeroMQ gave it. A peer that sets a routing id of its own is not
 * heard. */
#ifndef SEL_BROKER_LOOP_H
#define SEL_BROKER_LOOP_H

#include <stdint.h>

#include "broker/broker.h"
#include "broker/config.h"
#include "core/error.h"

struct sel_broker_commit;
struct sel_broker_logger;
struct sel_journal;
struct sel_broker_loop;

struct sel_broker_loop_options {
    struct sel_broker_endpoints listen, query; /* query may have none */
    uint32_t io_threads;
    uint32_t socket_messages; /* high-water mark */
};

/* Binds all endpoints. I/O threads inherit signal mask and affinity of the caller. 0, SEL_ENOMEM,
 * -errno (-EADDRINUSE; `err` names the endpoint). */
int sel_broker_loop_new(const struct sel_broker_loop_options *options, struct sel_broker_loop **ret,
                        struct sel_error *err) SEL_WARN_UNUSED;
/* What was said is sent, for a second at most; returns NULL. NULL allowed. */
struct sel_broker_loop *sel_broker_loop_free(struct sel_broker_loop *loop);

/* As they were bound: with the ports that * became. Live as long as the loop. */
const struct sel_broker_endpoints *sel_broker_loop_listens(const struct sel_broker_loop *loop);
const struct sel_broker_endpoints *sel_broker_loop_queries(const struct sel_broker_loop *loop);
/* The ZeroMQ context, for inproc:// endpoints; its users close their sockets before the loop is
 * freed. */
void *sel_broker_loop_context(const struct sel_broker_loop *loop);

struct sel_broker_loop_work {
    struct sel_broker *broker;
    struct sel_broker_commit *commit; /* NULL: no journal */
    struct sel_journal *journal;
    struct sel_broker_logger *logger;
};
/* Runs until it is stopped: says goodbye, waits for the last commit. 0; -ETIMEDOUT: it was stopped
 * and the journal took no more (nothing that was acknowledged is lost); what a commit failed with:
 * the broker is not to be used any more. Everything is logged. */
int sel_broker_loop_run(struct sel_broker_loop *loop,
                        const struct sel_broker_loop_work *work) SEL_WARN_UNUSED;

/* struct sel_broker_io.send; in sel_broker_loop_run only. */
int sel_broker_loop_send(struct sel_broker_loop *loop, uint32_t connection, struct sel_str frame);

/* Any thread, any time: the loop takes a turn. */
void sel_broker_loop_wake(struct sel_broker_loop *loop);
/* Any thread: it ends soon. `reason` is static. */
void sel_broker_loop_stop(struct sel_broker_loop *loop, const char *reason);

struct sel_broker_loop_stats {
    uint64_t turns, sleeps;
    uint64_t foreign;   /* messages of peers that set their own routing id */
    uint64_t multipart; /* messages of more than one frame */
    uint64_t blocked;   /* sends that a full connection did not take */
};
/* On the loop's thread, or after it. */
void sel_broker_loop_get_stats(const struct sel_broker_loop *loop,
                               struct sel_broker_loop_stats *ret);

#endif
