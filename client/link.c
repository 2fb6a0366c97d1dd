#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <zmq.h>

#include "client/internal.h"
#include "core/mem.h"
#include "proto/wire.h"

#define MESSAGES_MAX 64 /* high-water marks; what is under way is bounded by credit */
#define RECONNECT_MS 100
#define RECONNECT_MAX_MS 1000
#define GOODBYE_LINGER_MS 500
#define GOODBYE_US INT64_C(500000)
#define BLOCKED_US INT64_C(100000) /* a socket that takes nothing is tried so often */
#define FRAMES_MAX 32              /* of one broker in a turn */
#define SENDS_MAX 32
#define SLEEP_US_MAX INT64_C(60000000)

/* ZeroMQ has codes of its own, far above those of the system. */
static int zmq_failure(void)
{
    int code = zmq_errno();
    return code > 0 && code < 4096 ? -code : -EINVAL;
}

static void close_socket(struct sel_client_link *link, int linger_ms)
{
    if (!link->socket)
        return;
    (void)zmq_setsockopt(link->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    (void)zmq_close(link->socket);
    link->socket = NULL;
    link->is_blocked = false;
}

/* 0 or -errno. */
static int open_socket(struct sel_client_link *link, const char *endpoint)
{
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, MESSAGES_MAX},
        {ZMQ_RCVHWM, MESSAGES_MAX},
        {ZMQ_IPV6, 1},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
    };
    const int64_t size_max = (int64_t)SEL_WIRE_MESSAGE_MAX;
    link->socket = zmq_socket(link->client->zmq, ZMQ_DEALER);
    if (!link->socket)
        return zmq_failure();
    int r = zmq_setsockopt(link->socket, ZMQ_MAXMSGSIZE, &size_max, sizeof(size_max));
    for (size_t i = 0; r == 0 && i < SEL_COUNT(options); i++)
        r = zmq_setsockopt(link->socket, options[i].option, &options[i].value, sizeof(int));
    if (r == 0)
        r = zmq_connect(link->socket, endpoint);
    if (r == 0)
        return 0;
    r = zmq_failure();
    close_socket(link, 0);
    return r;
}

static uint32_t events_of(const struct sel_client_link *link)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(link->socket, ZMQ_EVENTS, &events, &size) < 0 ? 0 : (uint32_t)events;
}

/* ---- a turn ---- */

static void break_link(struct sel_client_link *link, int64_t now_us)
{
    sel_client_lock(link->client);
    sel_peer_broken(sel_producer_peer(link->producer), now_us);
    sel_client_unlock(link->client);
}

/* 1: a frame came; 0: none. */
static int take_frame(struct sel_client_link *link, int64_t now_us)
{
    zmq_msg_t message;
    (void)zmq_msg_init(&message); /* cannot fail */
    if (zmq_msg_recv(&message, link->socket, ZMQ_DONTWAIT) < 0) {
        int r = zmq_failure();
        (void)zmq_msg_close(&message);
        if (r != -EAGAIN && r != -EINTR)
            break_link(link, now_us);
        return 0;
    }
    const struct sel_str frame = {zmq_msg_data(&message), zmq_msg_size(&message)};
    sel_client_lock(link->client);
    sel_producer_receive(link->producer, frame, now_us);
    sel_client_tell(link->client);
    sel_client_unlock(link->client);
    (void)zmq_msg_close(&message);
    return 1;
}

/* true: there may be more. */
static bool receive(struct sel_client_link *link, int64_t now_us)
{
    for (int i = 0; i < FRAMES_MAX; i++)
        if (!link->socket || !take_frame(link, now_us))
            return false;
    return true;
}

static void connect_anew(struct sel_client_link *link, int64_t now_us)
{
    char text[512];
    const struct sel_str own = sel_str_c(link->endpoint);
    close_socket(link, 0);
    sel_client_lock(link->client);
    struct sel_str endpoint = sel_peer_endpoint(sel_producer_peer(link->producer), &own, 1);
    (void)snprintf(text, sizeof(text), "%.*s", SEL_STR_ARG(endpoint));
    sel_client_unlock(link->client);
    if (open_socket(link, text) < 0)
        break_link(link, now_us);
}

/* false: there is no room now. */
static bool send_frame(struct sel_client_link *link, int64_t now_us)
{
    if (zmq_send(link->socket, link->out.p, link->out.n, ZMQ_DONTWAIT) >= 0)
        return true;
    int r = zmq_failure();
    sel_client_lock(link->client);
    sel_peer_unsent(sel_producer_peer(link->producer));
    if (r != -EAGAIN && r != -EINTR)
        sel_peer_broken(sel_producer_peer(link->producer), now_us);
    sel_client_unlock(link->client);
    link->is_blocked = r == -EAGAIN;
    link->blocked_until_us = now_us + BLOCKED_US;
    return r == -EINTR;
}

/* true: there may be more to say at once. */
static bool speak(struct sel_client_link *link, int64_t now_us)
{
    if (link->is_blocked && now_us < link->blocked_until_us && !(events_of(link) & ZMQ_POLLOUT))
        return false;
    link->is_blocked = false;
    for (int i = 0; i < SENDS_MAX; i++) {
        sel_client_lock(link->client);
        enum sel_peer_action action = sel_producer_poll(link->producer, now_us, &link->out);
        if (action == SEL_PEER_NOTHING)
            sel_client_tell(link->client); /* a deferred one may have ended */
        sel_client_unlock(link->client);
        if (action == SEL_PEER_NOTHING)
            return false;
        if (action == SEL_PEER_CONNECT)
            connect_anew(link, now_us);
        else if (!link->socket)
            break_link(link, now_us);
        else if (!send_frame(link, now_us))
            return false;
    }
    return true;
}

/* ---- the thread ---- */

/* When the next turn is due, locked. */
static int64_t due_us(const struct sel_client *client, int64_t now_us)
{
    int64_t due = now_us + SLEEP_US_MAX;
    for (uint32_t i = 0; i < client->link_count; i++) {
        const struct sel_client_link *link = &client->links[i];
        int64_t one =
            link->is_blocked ? link->blocked_until_us : sel_producer_due_us(link->producer);
        due = one < due ? one : due;
    }
    return due;
}

/* Sleeps until a socket, a caller or the time wants something. */
static void sleep_until(struct sel_client *client, int64_t due, int64_t now_us)
{
    zmq_pollitem_t items[SEL_CLIENT_LINKS_MAX + 1] = {
        {.fd = client->wake_fd, .events = ZMQ_POLLIN}};
    int count = 1;
    for (uint32_t i = 0; i < client->link_count; i++) {
        const struct sel_client_link *link = &client->links[i];
        if (link->socket)
            items[count++] = (zmq_pollitem_t){
                .socket = link->socket,
                .events = (short)(ZMQ_POLLIN | (link->is_blocked ? ZMQ_POLLOUT : 0))};
    }
    int64_t wait_us = due - now_us;
    (void)zmq_poll(items, count, wait_us > 0 ? (long)((wait_us + 999) / 1000) : 0);
    if (items[0].revents & ZMQ_POLLIN) {
        uint64_t news;
        (void)!read(client->wake_fd, &news, sizeof(news)); /* it only wakes */
    }
}

static bool turn(struct sel_client *client, int64_t now_us)
{
    bool has_more = false;
    for (uint32_t i = 0; i < client->link_count; i++)
        has_more |= receive(&client->links[i], now_us);
    for (uint32_t i = 0; i < client->link_count; i++)
        has_more |= speak(&client->links[i], now_us);
    return has_more;
}

/* Whether no session is left that a goodbye could end, locked. Says goodbye to those that are. */
static bool is_closed(struct sel_client *client)
{
    bool all = true;
    for (uint32_t i = 0; i < client->link_count; i++) {
        struct sel_peer *peer = sel_producer_peer(client->links[i].producer);
        if (peer->state == SEL_PEER_OPEN && !peer->must_say_goodbye)
            sel_peer_goodbye(peer, "the producer is closed");
        all &= peer->state != SEL_PEER_OPEN;
    }
    return all;
}

static void run(struct sel_client *client)
{
    int64_t close_us = INT64_MAX; /* when closing is over at the latest */
    for (;;) {
        int64_t now_us = sel_client_now_us();
        bool has_more = turn(client, now_us);
        sel_client_lock(client);
        if (client->is_closing) {
            if (close_us == INT64_MAX)
                close_us = now_us + GOODBYE_US;
            if (is_closed(client) || now_us >= close_us) {
                sel_client_unlock(client);
                return;
            }
        }
        int64_t due = due_us(client, now_us);
        due = due < close_us ? due : close_us;
        client->is_sleeping = !has_more && due > now_us;
        bool is_sleeping = client->is_sleeping;
        sel_client_unlock(client);
        if (!is_sleeping)
            continue;
        sleep_until(client, due, now_us);
        sel_client_lock(client);
        client->is_sleeping = false;
        sel_client_unlock(client);
    }
}

static void *thread_main(void *arg)
{
    struct sel_client *client = arg;
    (void)pthread_setname_np(pthread_self(), "selinon-client");
    run(client);
    for (uint32_t i = 0; i < client->link_count; i++) {
        struct sel_client_link *link = &client->links[i];
        bool has_said = sel_producer_peer(link->producer)->must_say_goodbye;
        close_socket(link, has_said ? GOODBYE_LINGER_MS : 0);
    }
    return NULL;
}

/* ---- life ---- */

static int check_endpoint(struct sel_client_link *link, char *error)
{
    int r = open_socket(link, link->endpoint);
    close_socket(link, 0);
    if (r < 0 && error)
        (void)snprintf(error, SEL_CLIENT_ERROR_SIZE,
                       "'%s' is no endpoint to connect to: write tcp://HOST:PORT or ipc://PATH",
                       link->endpoint);
    return r < 0 ? -EINVAL : 0;
}

/* The thread leaves signals to those of the program. */
static int start_thread(struct sel_client *client)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&client->thread, NULL, thread_main, client);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    client->has_started = r == 0;
    return -r;
}

int sel_client_net_open(struct sel_client *client, char *error)
{
    client->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = client->wake_fd < 0 ? -errno : 0;
    if (r == 0) {
        client->zmq = zmq_ctx_new();
        r = client->zmq ? 0 : zmq_failure();
    }
    for (uint32_t i = 0; r == 0 && i < client->link_count; i++) {
        r = check_endpoint(&client->links[i], error);
        if (r < 0)
            return r;
    }
    if (r == 0)
        r = start_thread(client);
    if (r < 0 && error)
        (void)snprintf(error, SEL_CLIENT_ERROR_SIZE, "cannot start: %s", sel_client_error_text(r));
    return r;
}

void sel_client_net_wake(struct sel_client *client)
{
    const uint64_t one = 1;
    (void)!write(client->wake_fd, &one, sizeof(one)); /* full: it is awake */
}

void sel_client_net_close(struct sel_client *client)
{
    if (client->has_started)
        (void)pthread_join(client->thread, NULL);
    while (client->zmq && zmq_ctx_term(client->zmq) < 0 && zmq_errno() == EINTR)
        ;
    if (client->wake_fd >= 0)
        (void)close(client->wake_fd);
}
