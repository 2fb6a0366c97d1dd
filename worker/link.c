#include "worker/link.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <zmq.h>

#include "core/buf.h"
#include "core/mem.h"
#include "proto/wire.h"

#define ENDPOINT_MAX 512u
#define MESSAGES_MAX 64  /* high-water marks; records are bounded by credit */
#define RECONNECT_MS 100 /* ZeroMQ's own, while the peer still hopes for the connection */
#define RECONNECT_MAX_MS 1000
#define GOODBYE_LINGER_MS 500
#define FRAMES_MAX 32 /* taken in one turn, so that tasks begin soon */
#define SENDS_MAX 64  /* in one turn */
#define TICK_US INT64_C(1000000)
#define QUIET_US INT64_C(100000) /* since the last frame: the next one tells of what was missed */
#define SURE_US INT64_C(20)      /* longer looks may have seen what came meanwhile */

struct sel_worker_net {
    void *zmq;
};

struct sel_worker_socket {
    void *zmq;
};

struct sel_worker_link {
    struct sel_worker_link_options options;
    void *zmq; /* the socket; NULL: none */
    int fd;
    struct sel_co *watcher; /* waits for news of the present socket; NULL: none */
    bool must_look;         /* the socket may have news that its descriptor does not tell of */
    bool is_blocked;        /* a send found no room: the socket will tell */
    bool is_closed;
    struct sel_timer due, tick;
    int64_t due_us; /* of the timer; INT64_MAX: not armed */
    int64_t heard_us;
    struct sel_buf out;
    _Atomic uint32_t endpoint;
    struct sel_worker_link_stats stats;
};

/* ---- the process's ---- */

/* ZeroMQ has codes of its own, far above those of the system. */
static int zmq_failure(void)
{
    int code = zmq_errno();
    return code > 0 && code < 4096 ? -code : -EINVAL;
}

int sel_worker_net_new(uint32_t io_threads, struct sel_worker_net **ret)
{
    struct sel_worker_net *net = SEL_NEW(struct sel_worker_net);
    if (!net)
        return SEL_ENOMEM;
    net->zmq = zmq_ctx_new();
    if (!net->zmq || zmq_ctx_set(net->zmq, ZMQ_IO_THREADS, (int)io_threads) < 0) {
        int r = zmq_failure();
        (void)sel_worker_net_free(net);
        return r;
    }
    *ret = net;
    return 0;
}

struct sel_worker_net *sel_worker_net_free(struct sel_worker_net *net)
{
    if (!net)
        return NULL;
    while (net->zmq && zmq_ctx_term(net->zmq) < 0 && zmq_errno() == EINTR)
        ;
    return sel_mem_free(net);
}

/* A DEALER that is connected; NULL: zmq_errno() says why. */
static void *open_dealer(struct sel_worker_net *net, const char *endpoint, int messages_max)
{
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0}, /* what is not settled is sent again by whoever comes after */
        {ZMQ_SNDHWM, messages_max},
        {ZMQ_RCVHWM, messages_max},
        {ZMQ_IPV6, 1},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
    };
    const int64_t size_max = (int64_t)SEL_WIRE_MESSAGE_MAX;
    void *socket = zmq_socket(net->zmq, ZMQ_DEALER);
    if (!socket)
        return NULL;
    bool is_set = zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &size_max, sizeof(size_max)) == 0;
    for (size_t i = 0; i < SEL_COUNT(options) && is_set; i++)
        is_set = zmq_setsockopt(socket, options[i].option, &options[i].value, sizeof(int)) == 0;
    if (is_set && zmq_connect(socket, endpoint) == 0)
        return socket;
    int code = zmq_errno();
    (void)zmq_close(socket);
    errno = code;
    return NULL;
}

int sel_worker_net_check(struct sel_worker_net *net, const char *endpoint, struct sel_error *err)
{
    void *socket = open_dealer(net, endpoint, 1);
    if (socket) {
        (void)zmq_close(socket);
        return 0;
    }
    int r = zmq_failure();
    return sel_error_set(err, r, (struct sel_pos){0},
                         "'%s' is no endpoint to connect to: %s; write tcp://HOST:PORT or "
                         "ipc:///PATH",
                         endpoint, zmq_strerror(zmq_errno()));
}

/* ---- a socket that only speaks ---- */

int sel_worker_socket_open(struct sel_worker_net *net, const char *endpoint, uint32_t messages_max,
                           struct sel_worker_socket **ret)
{
    struct sel_worker_socket *socket = SEL_NEW(struct sel_worker_socket);
    if (!socket)
        return SEL_ENOMEM;
    socket->zmq = open_dealer(net, endpoint, (int)messages_max);
    if (!socket->zmq) {
        sel_mem_free(socket);
        return zmq_failure();
    }
    *ret = socket;
    return 0;
}

struct sel_worker_socket *sel_worker_socket_close(struct sel_worker_socket *socket)
{
    if (!socket)
        return NULL;
    (void)zmq_close(socket->zmq);
    return sel_mem_free(socket);
}

int sel_worker_socket_send(struct sel_worker_socket *socket, struct sel_str frame)
{
    return zmq_send(socket->zmq, frame.p, frame.n, ZMQ_DONTWAIT) < 0 ? zmq_failure() : 0;
}

void sel_worker_socket_skip(struct sel_worker_socket *socket)
{
    char byte;
    for (int i = 0; i < FRAMES_MAX && zmq_recv(socket->zmq, &byte, 1, ZMQ_DONTWAIT) >= 0; i++)
        ;
}

/* ---- a session ---- */

static void say(const struct sel_worker_link *link, const char *fmt, ...) SEL_PRINTF(2, 3);

static void say(const struct sel_worker_link *link, const char *fmt, ...)
{
    char line[ENDPOINT_MAX + 128];
    va_list args;
    if (!link->options.log)
        return;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    link->options.log(link->options.ctx, line);
}

/* ---- news of a session's socket ---- */

static uint32_t events_of(struct sel_worker_link *link)
{
    int events = 0;
    size_t size = sizeof(events);
    if (zmq_getsockopt(link->zmq, ZMQ_EVENTS, &events, &size) < 0)
        return 0; /* the context ends: so does everything here */
    return (uint32_t)events;
}

/* A coroutine for each socket: all that it does is to wake the loop. */
static void watch_main(void *arg)
{
    struct sel_worker_link *link = arg;
    struct sel_co *self = sel_co_current();
    while (link->watcher == self) {
        int r = sel_co_poll(link->fd, POLLIN, 0);
        if (link->watcher == self)
            link->must_look = true;
        if (r < 0)
            break; /* cancelled; or there is no memory, and the tick has to do */
    }
    if (link->watcher == self)
        link->watcher = NULL;
}

static void stop_watching(struct sel_worker_link *link)
{
    struct sel_co *watcher = link->watcher;
    link->watcher = NULL;
    if (watcher)
        sel_loop_cancel(link->options.loop, watcher);
}

static int64_t mono_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What the descriptor tells of is not missed: the loop is about to hear of it. What arrives between
 * the two questions is neither, so they have to follow each other at once, at a quiet time. */
static bool has_missed(struct sel_worker_link *link)
{
    struct pollfd told = {.fd = link->fd, .events = POLLIN};
    int64_t now_us = mono_us();
    if (!link->zmq || link->must_look || !link->watcher || now_us - link->heard_us < QUIET_US)
        return false;
    return poll(&told, 1, 0) == 0 && (events_of(link) & ZMQ_POLLIN) &&
           mono_us() - now_us <= SURE_US;
}

static void on_tick(struct sel_loop *loop, struct sel_timer *timer)
{
    struct sel_worker_link *link =
        (struct sel_worker_link *)(void *)((char *)timer - offsetof(struct sel_worker_link, tick));
    if (has_missed(link))
        link->stats.missed++;
    link->must_look = true;
    link->is_blocked = false;
    if (sel_loop_timer_start(loop, timer, sel_loop_now_us(loop) + TICK_US) < 0)
        say(link, "no memory for the tick"); /* cannot be: it has just given its place back */
}

/* The loop is awake: that was all. */
static void on_due(struct sel_loop *loop, struct sel_timer *timer)
{
    struct sel_worker_link *link =
        (struct sel_worker_link *)(void *)((char *)timer - offsetof(struct sel_worker_link, due));
    (void)loop;
    link->due_us = INT64_MAX;
}

static void set_due(struct sel_worker_link *link, int64_t due_us)
{
    if (due_us == link->due_us)
        return;
    link->due_us = due_us;
    if (due_us == INT64_MAX)
        sel_loop_timer_stop(link->options.loop, &link->due);
    else if (sel_loop_timer_start(link->options.loop, &link->due, due_us) < 0)
        link->due_us = INT64_MAX; /* the tick has to do */
}

/* ---- connections ---- */

static void drop_socket(struct sel_worker_link *link, int linger_ms)
{
    if (!link->zmq)
        return;
    stop_watching(link);
    (void)zmq_setsockopt(link->zmq, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    (void)zmq_close(link->zmq);
    link->zmq = NULL;
    link->fd = -1;
    link->must_look = link->is_blocked = false;
}

static int open_socket(struct sel_worker_link *link, const char *endpoint)
{
    size_t size = sizeof(link->fd);
    link->zmq = open_dealer(link->options.net, endpoint, MESSAGES_MAX);
    if (!link->zmq)
        return zmq_failure();
    int r = zmq_getsockopt(link->zmq, ZMQ_FD, &link->fd, &size) < 0 ? zmq_failure() : 0;
    if (r == 0)
        r = sel_loop_spawn(link->options.loop, watch_main, link, &link->watcher);
    if (r < 0)
        drop_socket(link, 0);
    return r;
}

static void connect_anew(struct sel_worker_link *link, int64_t now_us)
{
    char text[ENDPOINT_MAX];
    struct sel_peer *peer = sel_holder_peer(link->options.holder);
    struct sel_str endpoint =
        sel_peer_endpoint(peer, link->options.endpoints, link->options.endpoint_count);
    drop_socket(link, 0);
    (void)snprintf(text, sizeof(text), "%.*s", SEL_STR_ARG(endpoint));
    uint64_t count = ++link->stats.connects;
    int r = open_socket(link, text);
    if (r < 0) {
        say(link, "cannot connect to %s: %s", text, sel_error_text(r));
        sel_peer_broken(peer, now_us);
        return;
    }
    atomic_store_explicit(&link->endpoint, peer->endpoint % link->options.endpoint_count,
                          memory_order_relaxed);
    link->must_look = true;
    if ((count & (count - 1)) == 0) /* else a broker that is away would fill the log */
        say(link, "connection %llu, to %s", (unsigned long long)count, text);
}

/* ---- a turn ---- */

/* 1: a frame came; 0: there is none; < 0: the socket is of no use any more. */
static int take_frame(struct sel_worker_link *link, int64_t now_us)
{
    zmq_msg_t message;
    (void)zmq_msg_init(&message); /* cannot fail */
    if (zmq_msg_recv(&message, link->zmq, ZMQ_DONTWAIT) < 0) {
        int r = zmq_failure();
        (void)zmq_msg_close(&message);
        return r == -EAGAIN || r == -EINTR ? 0 : r;
    }
    struct sel_str frame = {zmq_msg_data(&message), zmq_msg_size(&message)};
    link->heard_us = now_us;
    link->stats.frames_in++;
    link->stats.bytes_in += frame.n;
    sel_holder_receive(link->options.holder, frame, now_us);
    (void)zmq_msg_close(&message);
    return 1;
}

bool sel_worker_link_receive(struct sel_worker_link *link)
{
    if (!link->zmq || !link->must_look)
        return false;
    int64_t now_us = sel_loop_now_us(link->options.loop);
    for (int i = 0; i < FRAMES_MAX; i++) {
        int r = take_frame(link, now_us);
        if (r < 0) {
            say(link, "cannot receive: %s", sel_error_text(r));
            sel_peer_broken(sel_holder_peer(link->options.holder), now_us);
        }
        if (r <= 0)
            return false; /* flush asks once more before the loop sleeps */
    }
    return true;
}

/* false: there is no room now. */
static bool send_frame(struct sel_worker_link *link, int64_t now_us)
{
    struct sel_peer *peer = sel_holder_peer(link->options.holder);
    link->must_look = true;
    if (link->zmq && zmq_send(link->zmq, link->out.p, link->out.n, ZMQ_DONTWAIT) >= 0) {
        link->stats.frames_out++;
        link->stats.bytes_out += link->out.n;
        return true;
    }
    int r = link->zmq ? zmq_failure() : -ENOTCONN;
    sel_peer_unsent(peer);
    if (r == -EINTR)
        return true;
    if (r == -EAGAIN) {
        link->stats.blocked++;
        link->is_blocked = true;
    } else {
        say(link, "cannot send: %s", sel_error_text(r));
        sel_peer_broken(peer, now_us);
    }
    return false;
}

/* true: there is more to say at once. */
static bool speak(struct sel_worker_link *link)
{
    int64_t now_us = sel_loop_now_us(link->options.loop);
    for (int i = 0; i < SENDS_MAX; i++) {
        switch (sel_holder_poll(link->options.holder, now_us, &link->out)) {
        case SEL_PEER_NOTHING:
            return false;
        case SEL_PEER_CONNECT:
            connect_anew(link, now_us);
            break;
        case SEL_PEER_SEND:
            if (!send_frame(link, now_us))
                return false;
            break;
        }
    }
    return true;
}

/* The last look before the loop may sleep: nothing may be there that the descriptor will not tell
 * of. true: something is. */
static bool look(struct sel_worker_link *link)
{
    if (!link->zmq || !link->must_look)
        return false;
    uint32_t events = events_of(link);
    if (link->is_blocked && (events & ZMQ_POLLOUT)) {
        link->is_blocked = false;
        return true;
    }
    link->must_look = events & ZMQ_POLLIN;
    return link->must_look;
}

bool sel_worker_link_flush(struct sel_worker_link *link)
{
    if (link->is_closed)
        return false;
    bool has_more = !link->is_blocked && speak(link);
    has_more |= look(link);
    int64_t due_us = sel_holder_due_us(link->options.holder);
    bool is_due = due_us <= sel_loop_now_us(link->options.loop);
    if (link->is_blocked) /* the socket tells, or the tick */
        set_due(link, INT64_MAX);
    else
        set_due(link, is_due ? INT64_MAX : due_us);
    return has_more || (is_due && !link->is_blocked);
}

/* ---- life ---- */

int sel_worker_link_new(const struct sel_worker_link_options *options, struct sel_worker_link **ret)
{
    SEL_ASSERT(options->endpoint_count > 0);
    struct sel_worker_link *link = SEL_NEW(struct sel_worker_link);
    if (!link)
        return SEL_ENOMEM;
    link->options = *options;
    link->fd = -1;
    link->due_us = INT64_MAX;
    link->due = link->tick = (struct sel_timer)SEL_TIMER_INIT;
    link->due.fn = on_due;
    link->tick.fn = on_tick;
    int r =
        sel_loop_timer_start(options->loop, &link->tick, sel_loop_now_us(options->loop) + TICK_US);
    if (r < 0) {
        sel_mem_free(link);
        return r;
    }
    *ret = link;
    return 0;
}

void sel_worker_link_close(struct sel_worker_link *link, bool linger)
{
    link->is_closed = true;
    drop_socket(link, linger ? GOODBYE_LINGER_MS : 0);
    sel_loop_timer_stop(link->options.loop, &link->tick);
    sel_loop_timer_stop(link->options.loop, &link->due);
}

struct sel_worker_link *sel_worker_link_free(struct sel_worker_link *link)
{
    if (!link)
        return NULL;
    if (!link->is_closed)
        sel_worker_link_close(link, false);
    sel_buf_done(&link->out);
    return sel_mem_free(link);
}

uint32_t sel_worker_link_endpoint(const struct sel_worker_link *link)
{
    return atomic_load_explicit(&link->endpoint, memory_order_relaxed);
}

void sel_worker_link_get_stats(const struct sel_worker_link *link,
                               struct sel_worker_link_stats *ret)
{
    *ret = link->stats;
}
