/* tests/support/echo_broker.h - a broker and its workers in one thread, for tests of the client.
 *
 * It is made of sel_session over a ROUTER at a socket file, and speaks proto/PROTOCOL.md as far as
 * producers see it. What becomes of a task, its name says. */
#ifndef SEL_TESTS_SUPPORT_ECHO_BROKER_H
#define SEL_TESTS_SUPPORT_ECHO_BROKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <zmq.h>

#include "core/arena.h"
#include "proto/session.h"
#include "proto/wire.h"
#include "tests/support/test.h"

#define ECHO_PEERS_MAX 16
/* ends well, its result is its arguments; of a flow that is selective what it says there */
#define ECHO_TASK SEL_STR("echo")
#define ECHO_FAIL SEL_STR("fail")     /* ends as a failure */
#define ECHO_HANG SEL_STR("hang")     /* ends when it is cancelled */
#define ECHO_REFUSE SEL_STR("refuse") /* is refused: conflict */
#define ECHO_FULL SEL_STR("full")     /* is refused as full the first time, then as `echo` */

struct echo_peer {
    struct sel_id id; /* 0: free */
    uint8_t routing[256];
    size_t routing_size;
    struct sel_session session;
    bool is_connected;
};

struct echo_broker {
    char endpoint[512];
    void *zmq, *router;
    pthread_t thread;
    struct echo_peer peers[ECHO_PEERS_MAX];
    struct sel_id id;
    uint64_t next_session;
    struct sel_arena arena;
    struct sel_buf out;
    struct sel_id seen_full[64]; /* refused once */
    uint32_t seen_full_count;
    _Atomic bool stop;
    _Atomic bool forget; /* set by a test: all sessions are forgotten in the next turn */
    _Atomic bool silent; /* says nothing while it is set */
    _Atomic bool refuses_hello;
    _Atomic bool settles; /* submits are settled when they arrive */
    _Atomic uint64_t submits, cancels, watches, hellos, goodbyes, resent;
    _Atomic uint64_t flows, alls;       /* SUBMITs with FLOW; SUBMITs and WATCHes with ALL */
    _Atomic uint64_t window_bytes_seen; /* the last credit in bytes minus what was sent */
};

static inline void echo_send(struct echo_broker *b, struct echo_peer *peer)
{
    if (sel_buf_error(&b->out) < 0 || b->silent || !peer->is_connected)
        return;
    if (zmq_send(b->router, peer->routing, peer->routing_size, ZMQ_SNDMORE) < 0)
        return;
    (void)zmq_send(b->router, b->out.p, b->out.n, 0);
}

static inline void echo_put(struct echo_peer *peer, const struct sel_wire_item *item)
{
    uint64_t number;
    SEL_ASSERT(sel_session_put(&peer->session, item, &number) == 0);
}

static inline void echo_result(struct echo_peer *peer, struct sel_id id, uint32_t code,
                               struct sel_str payload)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_RESULT,
                                       .id = id,
                                       .priority = SEL_WIRE_PRIORITY,
                                       .level = SEL_LEVEL_MEMORY,
                                       .code = code,
                                       .payload = payload};
    echo_put(peer, &item);
}

static inline void echo_refuse(struct echo_peer *peer, struct sel_id id, uint64_t number,
                               uint32_t code)
{
    const struct sel_wire_item item = {.type = SEL_RECORD_REFUSED,
                                       .id = id,
                                       .priority = SEL_WIRE_PRIORITY,
                                       .code = code,
                                       .handle = number,
                                       .payload = SEL_STR("as the test wants it")};
    echo_put(peer, &item);
}

static inline bool echo_is_first_full(struct echo_broker *b, struct sel_id id)
{
    for (uint32_t i = 0; i < b->seen_full_count; i++)
        if (sel_id_eq(b->seen_full[i], id))
            return false;
    SEL_ASSERT(b->seen_full_count < 64);
    b->seen_full[b->seen_full_count++] = id;
    return true;
}

static inline void echo_submit(struct echo_broker *b, struct echo_peer *peer, uint64_t number,
                               const struct sel_wire_item *item)
{
    b->submits++;
    b->flows += item->flags & SEL_ITEM_FLOW ? 1 : 0;
    b->alls += item->flags & SEL_ITEM_ALL ? 1 : 0;
    if (sel_str_eq(item->task, ECHO_REFUSE))
        echo_refuse(peer, item->id, number, SEL_CODE_CONFLICT);
    else if (sel_str_eq(item->task, ECHO_FULL) && echo_is_first_full(b, item->id))
        echo_refuse(peer, item->id, number, SEL_CODE_FULL);
    else if (sel_str_eq(item->task, ECHO_FAIL))
        echo_result(peer, item->id, SEL_OUTCOME_FAILURE,
                    SEL_STR("\x81\xa5"
                            "class\xa5"
                            "Wrong"));
    else if (!sel_str_eq(item->task, ECHO_HANG) && !(item->flags & SEL_ITEM_QUIET))
        echo_result(peer, item->id, SEL_OUTCOME_SUCCESS,
                    item->selective.n ? item->selective : item->payload);
}

static inline void echo_record(struct echo_broker *b, struct echo_peer *peer, uint64_t number,
                               const struct sel_wire_item *item)
{
    if (item->type == SEL_RECORD_SUBMIT) {
        echo_submit(b, peer, number, item);
    } else if (item->type == SEL_RECORD_CANCEL) {
        b->cancels++;
        echo_result(peer, item->id, SEL_OUTCOME_CANCELLED, SEL_STR(""));
    } else if (item->type == SEL_RECORD_WATCH) {
        b->watches++;
        b->alls += item->flags & SEL_ITEM_ALL ? 1 : 0;
        if (item->id.lo == 404)
            echo_refuse(peer, item->id, number, SEL_CODE_UNKNOWN_TASK);
        else
            echo_result(peer, item->id, SEL_OUTCOME_SUCCESS, SEL_STR("\xa7watched"));
    }
}

static inline struct echo_peer *echo_find(struct echo_broker *b, struct sel_id id)
{
    struct echo_peer *spare = NULL;
    for (uint32_t i = 0; i < ECHO_PEERS_MAX; i++) {
        if (sel_id_eq(b->peers[i].id, id))
            return &b->peers[i];
        if (!spare && (b->peers[i].id.hi | b->peers[i].id.lo) == 0)
            spare = &b->peers[i];
    }
    SEL_ASSERT(spare);
    spare->id = id;
    sel_session_init(&spare->session, (size_t)64 << 20, 65536, (uint64_t)64 << 20);
    return spare;
}

static inline void echo_error(struct echo_broker *b, struct echo_peer *to, uint32_t code,
                              uint64_t n)
{
    const struct sel_wire_error error = {.code = code, .n = n};
    sel_buf_clear(&b->out);
    sel_wire_encode_error(&error, &b->out);
    echo_send(b, to);
}

static inline void echo_hello(struct echo_broker *b, const struct echo_peer *from,
                              struct sel_str frame)
{
    struct sel_wire_hello hello;
    SEL_ASSERT(sel_wire_decode_hello(&b->arena, frame, &hello, NULL) == 0);
    b->hellos++;
    struct echo_peer *peer = echo_find(b, hello.peer);
    memcpy(peer->routing, from->routing, from->routing_size);
    peer->routing_size = from->routing_size;
    peer->is_connected = true;
    if (b->refuses_hello) {
        echo_error(b, peer, SEL_CODE_ILLEGAL, hello.n);
        peer->is_connected = false;
        return;
    }
    struct sel_wire_welcome welcome = {.version = SEL_WIRE_VERSION,
                                       .n = hello.n,
                                       .broker = b->id,
                                       .record_max = SEL_WIRE_RECORD_MAX,
                                       .lease_us = 1000000,
                                       .beat_us = 100000,
                                       .level = SEL_LEVEL_MEMORY,
                                       .level_max = SEL_LEVEL_COMMIT};
    welcome.resumed = hello.session && hello.session == peer->session.number &&
                      sel_session_resume(&peer->session, hello.ack) == 0;
    if (!welcome.resumed)
        (void)sel_session_start(&peer->session, b->next_session++);
    sel_session_fill_welcome(&peer->session, &welcome);
    sel_buf_clear(&b->out);
    sel_wire_encode_welcome(&welcome, &b->out);
    echo_send(b, peer);
}

static inline struct echo_peer *echo_peer_of(struct echo_broker *b, const struct echo_peer *from)
{
    for (uint32_t i = 0; i < ECHO_PEERS_MAX; i++)
        if (b->peers[i].is_connected && b->peers[i].routing_size == from->routing_size &&
            memcmp(b->peers[i].routing, from->routing, from->routing_size) == 0)
            return &b->peers[i];
    return NULL;
}

static inline void echo_data(struct echo_broker *b, struct echo_peer *from, struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_wire_item item;
    struct echo_peer *peer = echo_peer_of(b, from);
    SEL_ASSERT(sel_wire_decode_data(frame, &head, &records, NULL) == 0);
    int64_t count = peer ? sel_session_receive(&peer->session, &head, &records, NULL) : -1;
    if (count < 0) {
        from->is_connected = true;
        echo_error(b, from, SEL_CODE_UNKNOWN_SESSION, 0);
        return;
    }
    if (head.count > (uint64_t)count)
        b->resent += head.count - (uint64_t)count;
    b->window_bytes_seen = head.credit_bytes - peer->session.out.sent_bytes;
    size_t bytes = records.n;
    uint64_t number = peer->session.in.arrived - (uint64_t)count;
    while (sel_wire_next(&records, &item, NULL) > 0)
        echo_record(b, peer, ++number, &item);
    sel_session_free(&peer->session, (uint64_t)count, bytes);
}

static inline void echo_take(struct echo_broker *b)
{
    struct echo_peer from = {0};
    zmq_msg_t message;
    int n = zmq_recv(b->router, from.routing, sizeof(from.routing), 0);
    from.routing_size = n > 0 ? (size_t)n : 0;
    (void)zmq_msg_init(&message);
    if (zmq_msg_recv(&message, b->router, 0) >= 0) {
        const struct sel_str frame = {zmq_msg_data(&message), zmq_msg_size(&message)};
        int type = sel_wire_message_type(frame, NULL);
        if (type == SEL_MESSAGE_HELLO)
            echo_hello(b, &from, frame);
        else if (type == SEL_MESSAGE_DATA)
            echo_data(b, &from, frame);
        else if (type == SEL_MESSAGE_GOODBYE)
            b->goodbyes++;
        sel_arena_reset(&b->arena);
    }
    (void)zmq_msg_close(&message);
}

static inline void echo_speak(struct echo_broker *b)
{
    for (uint32_t i = 0; i < ECHO_PEERS_MAX; i++) {
        struct echo_peer *peer = &b->peers[i];
        if (b->settles && peer->session.is_open)
            sel_session_settle(&peer->session, peer->session.in.arrived);
        while (peer->is_connected && sel_session_owes(&peer->session) != SEL_OWES_NOTHING) {
            sel_buf_clear(&b->out);
            SEL_ASSERT(sel_session_send(&peer->session, 1 << 18, false, &b->out) == 0);
            echo_send(b, peer);
        }
    }
}

static inline void *echo_main(void *arg)
{
    struct echo_broker *b = arg;
    while (!b->stop) {
        zmq_pollitem_t item = {.socket = b->router, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, 5) > 0)
            for (int i = 0; i < 16 && zmq_poll(&item, 1, 0) > 0; i++)
                echo_take(b);
        if (b->forget) {
            for (uint32_t i = 0; i < ECHO_PEERS_MAX; i++) {
                sel_session_done(&b->peers[i].session);
                b->peers[i] = (struct echo_peer){0};
            }
            b->forget = false;
        }
        echo_speak(b);
    }
    return NULL;
}

/* Listens at a socket file in `folder`. */
static inline void echo_start(struct echo_broker *b, const char *folder, unsigned n)
{
    memset(b, 0, sizeof(*b));
    (void)snprintf(b->endpoint, sizeof(b->endpoint), "ipc://%s/echo-%u", folder, n);
    b->id = (struct sel_id){70 + n, 88};
    b->next_session = 1;
    b->settles = true;
    b->zmq = zmq_ctx_new();
    b->router = zmq_socket(b->zmq, ZMQ_ROUTER);
    const int none = 0;
    assert_int_equal(zmq_setsockopt(b->router, ZMQ_LINGER, &none, sizeof(none)), 0);
    assert_int_equal(zmq_bind(b->router, b->endpoint), 0);
    assert_int_equal(pthread_create(&b->thread, NULL, echo_main, b), 0);
}

static inline void echo_stop(struct echo_broker *b)
{
    b->stop = true;
    (void)pthread_join(b->thread, NULL);
    (void)zmq_close(b->router);
    (void)zmq_ctx_term(b->zmq);
    for (uint32_t i = 0; i < ECHO_PEERS_MAX; i++)
        sel_session_done(&b->peers[i].session);
    sel_arena_done(&b->arena);
    sel_buf_done(&b->out);
}

#endif
