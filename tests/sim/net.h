/* tests/sim/net.h - connections as ZeroMQ has them.
 *
 * A peer's socket (a link) connects by itself, again and again, and never says so. Frames of one
 * connection arrive in order. A connection that breaks loses what is on its way, silently; the
 * broker knows the next one by another number and may go on writing to the dead one for a while.
 * Queues are bounded. Partitions hold frames back in one direction or in both. */
#ifndef SEL_TESTS_SIM_NET_H
#define SEL_TESTS_SIM_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"
#include "tests/sim/world.h"

struct sel_sim_conn;
struct sel_sim_copy;

struct sel_frame {
    struct sel_frame *next;
    int64_t sent_us, at_us; /* at_us: when it arrives */
    uint32_t connection;    /* at the broker */
    bool is_copy;           /* made by the network, not by the sender */
    uint32_t n;
    char bytes[];
};

struct sel_frames {
    struct sel_frame *first, *last;
    uint32_t count;
};

/* The socket of a peer. */
struct sel_link {
    struct sel_process *process;
    struct sel_actor *actor; /* woken when something arrives; NULL: nothing is read */
    uint32_t socket;         /* counts those opened under this name */
    bool is_open, is_dialing;
    struct sel_sim_conn *conn; /* NULL: not connected now */
    struct sel_frames waiting; /* sent while there was no connection */
    struct sel_frames arrived; /* not read yet */
    int64_t latency_us;
    int64_t heard_us; /* when the broker took something of this peer last; see oracle.h */
};

struct sel_net {
    struct sel_prng prng;
    struct sel_sim_conn **conns; /* number - 1 of the broker that lives now */
    uint32_t conn_count, conn_cap;
    struct sel_sim_copy *copies;
    uint64_t frames, cuts, lost;
};

void sel_net_init(struct sel_run *run);
void sel_net_done(struct sel_run *run);

/* ---- peers ---- */

void sel_net_open(struct sel_run *run, struct sel_link *link);
void sel_net_close(struct sel_run *run, struct sel_link *link);
/* 0; -EAGAIN: the queue is full. */
int sel_net_send(struct sel_run *run, struct sel_link *link, struct sel_str frame);
/* The next that has arrived, to be freed with sel_frame_free; NULL: none. */
struct sel_frame *sel_net_take(struct sel_run *run, struct sel_link *link);
void sel_frame_free(struct sel_frame *frame);

/* ---- the broker ---- */

/* As struct sel_broker_io.send. */
int sel_net_answer(struct sel_run *run, uint32_t connection, struct sel_str frame);
/* The peer at a connection; NULL: a stranger or nobody. */
struct sel_link *sel_net_peer(struct sel_run *run, uint32_t connection);
/* Its process ends: all connections do. */
void sel_net_broker_gone(struct sel_run *run);
void sel_frames_free(struct sel_frames *frames);
struct sel_frame *sel_frames_pop(struct sel_frames *frames);

/* ---- faults ---- */

/* The connection breaks; the socket makes another. */
void sel_net_cut(struct sel_run *run, struct sel_link *link);
void sel_net_block(struct sel_run *run, struct sel_process *process, bool up, bool down);
void sel_net_unblock(struct sel_run *run, struct sel_process *process, bool with_cut);
/* A frame from nowhere. */
void sel_net_inject(struct sel_run *run, struct sel_str frame);

#endif
