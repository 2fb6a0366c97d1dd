/* worker/link.h - the worker's sockets: one DEALER a session, watched through the ring of its loop.
 *
 * Alone in the folder in knowing ZeroMQ. What is said and understood is the business of the holder.
 *
 * ZeroMQ tells of news by a descriptor that only says that something has changed since it was asked
 * last. So the events of the socket are read again after any call on it, sends included, before the
 * loop may sleep; and a tick once a second counts what was missed all the same: 0, or there is a
 * mistake here. */
#ifndef SEL_WORKER_LINK_H
#define SEL_WORKER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/str.h"
#include "worker/holder.h"
#include "worker/loop.h"

/* ---- for all threads of a process ---- */

struct sel_worker_net;
/* Starts the threads of ZeroMQ, which take the CPU affinity of the caller. 0, SEL_ENOMEM, -errno.
 */
int sel_worker_net_new(uint32_t io_threads, struct sel_worker_net **ret) SEL_WARN_UNUSED;
/* After all sockets; waits for what lingers in them. NULL allowed; returns NULL. */
struct sel_worker_net *sel_worker_net_free(struct sel_worker_net *net);
/* Whether an endpoint can be connected to, by its form: 0, or -errno with `err`. */
int sel_worker_net_check(struct sel_worker_net *net, const char *endpoint,
                         struct sel_error *err) SEL_WARN_UNUSED;

/* ---- a socket that only speaks (worker/beat.c) ---- */

struct sel_worker_socket;
int sel_worker_socket_open(struct sel_worker_net *net, const char *endpoint, uint32_t messages_max,
                           struct sel_worker_socket **ret) SEL_WARN_UNUSED;
struct sel_worker_socket *sel_worker_socket_close(struct sel_worker_socket *socket);
/* Never waits. 0; -EAGAIN: the message is lost. */
int sel_worker_socket_send(struct sel_worker_socket *socket, struct sel_str frame);
/* Throws away what came. */
void sel_worker_socket_skip(struct sel_worker_socket *socket);

/* ---- a session's ---- */

struct sel_worker_link;

struct sel_worker_link_options {
    struct sel_worker_net *net;
    struct sel_loop *loop;
    struct sel_holder *holder;
    const struct sel_str *endpoints; /* terminated, borrowed; at least one */
    uint32_t endpoint_count;
    /* One line for a log. May be NULL. */
    void (*log)(void *ctx, const char *text);
    void *ctx;
};

struct sel_worker_link_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    uint64_t blocked; /* sends that found no room */
    uint64_t connects;
    uint64_t missed; /* messages that nobody would have been told of */
};

/* On the loop's thread, as everything below. 0 or SEL_ENOMEM. */
int sel_worker_link_new(const struct sel_worker_link_options *options,
                        struct sel_worker_link **ret) SEL_WARN_UNUSED;
/* When no coroutine of the loop is alive; returns NULL. */
struct sel_worker_link *sel_worker_link_free(struct sel_worker_link *link);

/* Frames that came go to the holder, a batch at most; true: there is more. Once a turn. */
bool sel_worker_link_receive(struct sel_worker_link *link);
/* What the holder has to say is sent, and the loop's timer is set. true: the loop may not sleep.
 * The last thing of a turn. */
bool sel_worker_link_flush(struct sel_worker_link *link);
/* The end: the socket goes, after what lies in it if `linger`; the loop may then end. */
void sel_worker_link_close(struct sel_worker_link *link, bool linger);

/* The endpoint of the present connection, by its place in the options; any thread. */
uint32_t sel_worker_link_endpoint(const struct sel_worker_link *link);
void sel_worker_link_get_stats(const struct sel_worker_link *link,
                               struct sel_worker_link_stats *ret);

#endif
