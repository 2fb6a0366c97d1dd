/* The yardstick: what libzmq alone does with the bytes of our tasks.
 *
 * Three processes, as ours are: producer (DEALER), router (ROUTER), worker (DEALER), each with one
 * thread and libzmq's own for input and output. The producer's messages carry `batch` tasks of
 * `record_bytes`; the router passes them to the worker as they are, without a copy; the worker
 * answers each with a message of as many results of `reply_bytes`. At most `window` tasks are under
 * way. No record is looked at, nothing is kept: what is left of this rate is what a broker may
 * use.
 *
 * The last byte of a message of one byte is its meaning: who its sender is, or that all is over. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <zmq.h>

#include "core/error.h"
#include "core/histogram.h"
#include "core/mem.h"
#include "perf/peers/peers.h"

#define ROUTING_ID_MAX 256
#define QUIT 'Q'
#define IS_WORKER 'W'
#define HANG_MS 30000
#define HIGH_WATER 100000 /* messages; the window is the limit */

struct part {
    void *context, *socket;
};

static int zmq_result(int r)
{
    return r < 0 ? -zmq_errno() : 0;
}

static void part_done(struct part *part)
{
    if (part->socket)
        (void)zmq_close(part->socket);
    if (part->context)
        (void)zmq_ctx_term(part->context);
}

static int part_init(struct part *part, int type)
{
    const int hwm = HIGH_WATER, hang = HANG_MS, linger = 1000;
    *part = (struct part){.context = zmq_ctx_new()};
    if (part->context)
        part->socket = zmq_socket(part->context, type);
    if (!part->socket)
        return -zmq_errno();
    if (zmq_setsockopt(part->socket, ZMQ_SNDHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(part->socket, ZMQ_RCVHWM, &hwm, sizeof(hwm)) < 0 ||
        zmq_setsockopt(part->socket, ZMQ_RCVTIMEO, &hang, sizeof(hang)) < 0 ||
        zmq_setsockopt(part->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0)
        return -zmq_errno();
    return 0;
}

static int say(void *socket, char what)
{
    return zmq_result(zmq_send(socket, &what, 1, 0));
}

/* ---- the router ---- */

struct peer_id {
    char bytes[ROUTING_ID_MAX];
    size_t n;
};

static void note_id(struct peer_id *id, zmq_msg_t *from)
{
    id->n = zmq_msg_size(from) < sizeof(id->bytes) ? zmq_msg_size(from) : 0;
    memcpy(id->bytes, zmq_msg_data(from), id->n);
}

static bool is_id(const struct peer_id *id, zmq_msg_t *from)
{
    return id->n == zmq_msg_size(from) && memcmp(id->bytes, zmq_msg_data(from), id->n) == 0;
}

/* Passes one message on; 1: it was the end. */
static int route_one(void *socket, struct peer_id *producer, struct peer_id *worker,
                     zmq_msg_t *from, zmq_msg_t *message)
{
    if (zmq_msg_recv(from, socket, 0) < 0 || zmq_msg_recv(message, socket, 0) < 0)
        return -zmq_errno();
    bool is_sign = zmq_msg_size(message) == 1;
    char sign = is_sign ? *(const char *)zmq_msg_data(message) : 0;
    bool from_worker = worker->n > 0 && is_id(worker, from);
    if (sign == IS_WORKER) {
        note_id(worker, from);
        return 0;
    }
    if (!from_worker)
        note_id(producer, from);
    const struct peer_id *to = from_worker ? producer : worker;
    if (zmq_send(socket, to->bytes, to->n, ZMQ_SNDMORE) < 0 || zmq_msg_send(message, socket, 0) < 0)
        return -zmq_errno();
    return sign == QUIT;
}

int sel_peers_zmq_router(const struct sel_peers_options *options)
{
    struct part part;
    struct peer_id producer = {.n = 0}, worker = {.n = 0};
    char endpoint[256];
    size_t endpoint_size = sizeof(endpoint);
    zmq_msg_t from, message;
    (void)zmq_msg_init(&from);
    (void)zmq_msg_init(&message);
    int r = part_init(&part, ZMQ_ROUTER);
    if (r == 0)
        r = zmq_result(zmq_bind(part.socket, options->endpoint));
    if (r == 0)
        r = zmq_result(zmq_getsockopt(part.socket, ZMQ_LAST_ENDPOINT, endpoint, &endpoint_size));
    if (r == 0) {
        puts(endpoint);
        (void)fflush(stdout);
    }
    while (r == 0)
        r = route_one(part.socket, &producer, &worker, &from, &message);
    (void)zmq_msg_close(&from);
    (void)zmq_msg_close(&message);
    part_done(&part);
    return r < 0 ? r : 0;
}

/* ---- the worker ---- */

static size_t tasks_in(const struct sel_peers_options *options, size_t message_bytes)
{
    return (message_bytes - options->head_bytes) / options->record_bytes;
}

/* A message of `bytes` copied from `pattern`: somebody has to write what is sent. */
static int send_copy(void *socket, const uint8_t *pattern, size_t bytes)
{
    zmq_msg_t message;
    if (zmq_msg_init_size(&message, bytes) < 0)
        return -zmq_errno();
    memcpy(zmq_msg_data(&message), pattern, bytes);
    if (zmq_msg_send(&message, socket, 0) < 0) {
        int r = -zmq_errno();
        (void)zmq_msg_close(&message);
        return r;
    }
    return 0;
}

int sel_peers_zmq_worker(const struct sel_peers_options *options)
{
    struct part part;
    size_t bytes_max = options->head_bytes + (size_t)options->batch * options->reply_bytes;
    uint8_t *pattern = sel_mem_zalloc(bytes_max + 1);
    zmq_msg_t message;
    (void)zmq_msg_init(&message);
    int r = part_init(&part, ZMQ_DEALER);
    if (r == 0 && !pattern)
        r = SEL_ENOMEM;
    if (r == 0)
        r = zmq_result(zmq_connect(part.socket, options->endpoint));
    if (r == 0)
        r = say(part.socket, IS_WORKER);
    while (r == 0) {
        if (zmq_msg_recv(&message, part.socket, 0) < 0) {
            r = -zmq_errno();
            break;
        }
        if (zmq_msg_size(&message) == 1)
            break; /* QUIT */
        size_t tasks = tasks_in(options, zmq_msg_size(&message));
        size_t bytes = options->head_bytes + tasks * options->reply_bytes;
        r = bytes <= bytes_max ? send_copy(part.socket, pattern, bytes) : SEL_ELIMIT;
    }
    (void)zmq_msg_close(&message);
    part_done(&part);
    (void)sel_mem_free(pattern);
    return r;
}

/* ---- the producer ---- */

struct trip {
    uint64_t sent, done; /* tasks */
    int64_t *sent_ns;    /* of the messages under way, a ring: answers come in order */
    uint64_t head, tail;
    uint64_t ring; /* its size */
    struct sel_histogram ns;
};

static int send_due(struct trip *trip, void *socket, const uint8_t *pattern,
                    const struct sel_peers_options *options)
{
    int r = 0;
    while (r == 0 && trip->sent < options->count) {
        uint64_t left = options->count - trip->sent;
        uint64_t tasks = left < options->batch ? left : options->batch;
        if (trip->sent - trip->done + tasks > options->window)
            break;
        trip->sent_ns[trip->head++ % trip->ring] = sel_peers_now_ns();
        r = send_copy(socket, pattern, options->head_bytes + tasks * options->record_bytes);
        trip->sent += tasks;
    }
    return r;
}

/* Waits for one answer, and takes all that are there. */
static int receive_done(struct trip *trip, void *socket, zmq_msg_t *message,
                        const struct sel_peers_options *options)
{
    for (int flags = 0; trip->done < options->count; flags = ZMQ_DONTWAIT) {
        if (zmq_msg_recv(message, socket, flags) < 0)
            return zmq_errno() == EAGAIN && flags ? 0 : -zmq_errno();
        if (trip->tail == trip->head)
            return SEL_EFAILED; /* more answers than messages */
        trip->done += (zmq_msg_size(message) - options->head_bytes) / options->reply_bytes;
        sel_histogram_add(&trip->ns, sel_peers_now_ns() - trip->sent_ns[trip->tail++ % trip->ring]);
    }
    return 0;
}

static int make_trips(struct trip *trip, void *socket, const uint8_t *pattern,
                      const struct sel_peers_options *options)
{
    zmq_msg_t message;
    (void)zmq_msg_init(&message);
    int r = 0;
    while (r == 0 && trip->done < options->count) {
        r = send_due(trip, socket, pattern, options);
        if (r == 0)
            r = receive_done(trip, socket, &message, options);
    }
    (void)zmq_msg_close(&message);
    return r;
}

int sel_peers_zmq_producer(const struct sel_peers_options *options)
{
    struct part part;
    struct trip trip = {.ring = options->window + 1};
    size_t bytes_max = options->head_bytes + (size_t)options->batch * options->record_bytes;
    uint8_t *pattern = sel_mem_zalloc(bytes_max + 1);
    trip.sent_ns = sel_mem_zalloc(trip.ring * sizeof(*trip.sent_ns));
    int r = part_init(&part, ZMQ_DEALER);
    if (r == 0 && (!pattern || !trip.sent_ns))
        r = SEL_ENOMEM;
    if (r == 0)
        r = zmq_result(zmq_connect(part.socket, options->endpoint));
    int64_t begin_ns = sel_peers_now_ns();
    if (r == 0)
        r = make_trips(&trip, part.socket, pattern, options);
    double took_s = (double)(sel_peers_now_ns() - begin_ns) / 1e9;
    if (r == 0) {
        printf("{\"per_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"count\": %" PRIu64 "}\n",
               (double)trip.done / took_s, (double)sel_histogram_quantile(&trip.ns, 0.5) / 1e3,
               (double)sel_histogram_quantile(&trip.ns, 0.99) / 1e3, trip.done);
        r = say(part.socket, QUIT);
    }
    part_done(&part);
    (void)sel_mem_free(pattern);
    (void)sel_mem_free(trip.sent_ns);
    return r;
}
