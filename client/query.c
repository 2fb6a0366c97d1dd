#include "client/query.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <zmq.h>

#include "core/mem.h"
#include "proto/wire.h"

#define REPLIES_MAX 10000 /* to one question */

struct sel_client_query {
    void *zmq, *socket;
    char endpoint[256];
    uint64_t n;    /* of the last question */
    uint32_t code; /* that it was refused with */
    struct sel_buf out;
};

static int64_t mono_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this clock */
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static int zmq_failure(struct sel_client_query *query, struct sel_error *err)
{
    int error = zmq_errno();
    int code = error > 0 && error < 4096 ? -error : -EINVAL; /* some are ZeroMQ's own */
    return sel_error_set(err, code, (struct sel_pos){0}, "%s: %s", query->endpoint,
                         zmq_strerror(error));
}

static int connect_socket(struct sel_client_query *query)
{
    int linger = 0, ipv6 = strchr(query->endpoint, '[') != NULL;
    int64_t size_max = (int64_t)SEL_WIRE_MESSAGE_MAX;
    query->zmq = zmq_ctx_new();
    query->socket = query->zmq ? zmq_socket(query->zmq, ZMQ_DEALER) : NULL;
    if (!query->socket || zmq_setsockopt(query->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
        zmq_setsockopt(query->socket, ZMQ_IPV6, &ipv6, sizeof(ipv6)) < 0 ||
        zmq_setsockopt(query->socket, ZMQ_MAXMSGSIZE, &size_max, sizeof(size_max)) < 0)
        return -1;
    return zmq_connect(query->socket, query->endpoint);
}

int sel_client_query_open(const char *endpoint, struct sel_client_query **ret,
                          struct sel_error *err)
{
    struct sel_client_query *query = SEL_NEW(struct sel_client_query);
    if (!query)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "%s",
                             sel_error_text(SEL_ENOMEM));
    size_t n = strlen(endpoint);
    if (n >= sizeof(query->endpoint)) {
        (void)sel_mem_free(query);
        return sel_error_set(err, -ENAMETOOLONG, (struct sel_pos){0}, "the endpoint is too long");
    }
    memcpy(query->endpoint, endpoint, n + 1);
    if (connect_socket(query) < 0) {
        bool is_text = zmq_errno() == EINVAL || zmq_errno() == EPROTONOSUPPORT;
        int r = is_text ? sel_error_set(err, -EINVAL, (struct sel_pos){0},
                                        "'%s' is no endpoint; write tcp://HOST:PORT or ipc://PATH",
                                        endpoint)
                        : zmq_failure(query, err);
        (void)sel_client_query_close(query);
        return r;
    }
    *ret = query;
    return 0;
}

struct sel_client_query *sel_client_query_close(struct sel_client_query *query)
{
    if (!query)
        return NULL;
    if (query->socket)
        (void)zmq_close(query->socket);
    if (query->zmq)
        (void)zmq_ctx_term(query->zmq);
    sel_buf_done(&query->out);
    return sel_mem_free(query);
}

/* 1: a frame is in `frame`; 0: none came in time. */
static int receive(struct sel_client_query *query, int64_t until_us, zmq_msg_t *frame,
                   struct sel_error *err)
{
    for (;;) {
        int64_t left_us = until_us - mono_us();
        zmq_pollitem_t item = {.socket = query->socket, .events = ZMQ_POLLIN};
        int r = left_us <= 0 ? 0 : zmq_poll(&item, 1, (long)((left_us + 999) / 1000));
        if (r == 0)
            return 0;
        if (r > 0)
            r = zmq_msg_recv(frame, query->socket, ZMQ_DONTWAIT);
        if (r >= 0)
            return 1;
        if (zmq_errno() != EINTR && zmq_errno() != EAGAIN)
            return zmq_failure(query, err);
    }
}

/* The answer so far, and whether it is complete. */
struct answer {
    struct sel_arena *arena;
    struct sel_value_builder list; /* of several messages */
    struct sel_value body;
    uint32_t count;
    bool is_whole;
};

static int refused(struct sel_client_query *query, const struct sel_wire_reply *reply,
                   struct sel_error *err)
{
    query->code = reply->code;
    return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0}, "the broker at %s says: %.*s (%s)",
                         query->endpoint, SEL_STR_ARG(reply->text),
                         sel_wire_code_name(reply->code));
}

static int add_body(struct answer *answer, const struct sel_wire_reply *reply,
                    struct sel_error *err)
{
    int r = sel_value_copy(answer->arena, &reply->body, &answer->body);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    answer->is_whole = !reply->more;
    if (answer->count++ == 0 && answer->is_whole)
        return 0;
    if (!sel_value_is(&answer->body, SEL_LIST) || answer->count > REPLIES_MAX)
        return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0},
                             "the broker's answer is no list in parts");
    for (uint32_t i = 0; i < sel_value_count(&answer->body); i++)
        sel_value_add(&answer->list, *sel_value_at(&answer->body, i));
    return 0;
}

static int take(struct sel_client_query *query, struct answer *answer, struct sel_str frame,
                struct sel_error *err)
{
    struct sel_arena arena;
    struct sel_wire_reply reply;
    struct sel_wire_error error;
    sel_arena_init(&arena, 50 * SEL_WIRE_MESSAGE_MAX);
    int r = sel_wire_message_type(frame, err);
    if (r == SEL_MESSAGE_ERROR) {
        r = sel_wire_decode_error(&arena, frame, &error, err);
        if (r == 0) /* questions are answered by REPLY alone */
            r = sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0},
                              "the broker at %s says: %.*s (%s); is that its endpoint for queries?",
                              query->endpoint, SEL_STR_ARG(error.text),
                              sel_wire_code_name(error.code));
    } else if (r == SEL_MESSAGE_REPLY) {
        r = sel_wire_decode_reply(&arena, frame, &reply, err);
        if (r == 0 && reply.n == query->n) /* else of a question that was given up */
            r = reply.code ? refused(query, &reply, err) : add_body(answer, &reply, err);
    } else if (r >= 0) {
        r = sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0},
                          "%s answers, but not to questions; is that its endpoint for queries?",
                          query->endpoint);
    }
    sel_arena_done(&arena);
    return r;
}

static int send_question(struct sel_client_query *query, const char *what,
                         const struct sel_value *args, struct sel_error *err)
{
    struct sel_wire_query question = {
        .n = ++query->n, .what = sel_str_c(what), .args = args ? *args : sel_value_null};
    query->code = 0;
    sel_buf_clear(&query->out);
    sel_wire_encode_query(&question, &query->out);
    int r = sel_buf_error(&query->out);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    if (zmq_send(query->socket, query->out.p, query->out.n, ZMQ_DONTWAIT) < 0)
        return zmq_failure(query, err);
    return 0;
}

static int timed_out(struct sel_client_query *query, int64_t timeout_us, struct sel_error *err)
{
    return sel_error_set(
        err, SEL_ETIMEOUT, (struct sel_pos){0},
        "no broker answered at %s within %.3g s. Is it running (its log has `broker.query` with "
        "its "
        "endpoints)? Another endpoint: --broker, or the variable SELINON_BROKER_QUERY",
        query->endpoint, (double)timeout_us / 1e6);
}

uint32_t sel_client_query_code(const struct sel_client_query *query)
{
    return query->code;
}

int sel_client_query_ask(struct sel_client_query *query, const char *what,
                         const struct sel_value *args, int64_t timeout_us, struct sel_arena *arena,
                         struct sel_value *ret, struct sel_error *err)
{
    int64_t until_us = mono_us() + timeout_us;
    struct answer answer = {.arena = arena};
    sel_value_begin_list(&answer.list, arena);
    int r = send_question(query, what, args, err);
    zmq_msg_t frame;
    (void)zmq_msg_init(&frame);
    while (r == 0 && !answer.is_whole) {
        r = receive(query, until_us, &frame, err);
        if (r == 0)
            r = timed_out(query, timeout_us, err);
        else if (r > 0)
            r = take(query, &answer, (struct sel_str){zmq_msg_data(&frame), zmq_msg_size(&frame)},
                     err);
    }
    (void)zmq_msg_close(&frame);
    if (r < 0)
        return r;
    if (answer.count > 1) {
        r = sel_value_end(&answer.list, &answer.body);
        if (r < 0)
            return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    }
    *ret = answer.body;
    return 0;
}
