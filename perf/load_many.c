/* Thousands of producers, each with a session and a connection of its own, in one thread: the pure
 * machine of libselinon and one socket for each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "client/producer.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/mem.h"
#include "perf/load.h"

#define READY_US 60000000
#define WAVE 250
#define CLOSE_US 10000000
#define WINDOW_BYTES (UINT64_C(4) << 20) /* of results, each: room for a few of the largest */

struct session {
    struct many *many;
    struct sel_producer *producer;
    void *socket;
};

struct many {
    struct sel_load_port port;
    const struct sel_load_options *options;
    void *context;
    struct session *sessions;
    zmq_pollitem_t *items;
    uint32_t count; /* of those that were made */
    uint32_t turn;  /* whose the next task is */
    struct sel_id_source ids;
    struct sel_buf out;
    void (*ended)(void *ctx, uint64_t tag, enum sel_load_end how);
    void *ended_ctx;
};

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct many *many = ((struct session *)ctx)->many;
    enum sel_load_end how =
        result->code == SEL_OUTCOME_SUCCESS ? SEL_LOAD_FINISHED : SEL_LOAD_FAILED;
    if (result->is_refused)
        how = SEL_LOAD_REFUSED;
    if (many->ended)
        many->ended(many->ended_ctx, (uint64_t)(uintptr_t)result->tag, how);
}

static const struct sel_producer_ops producer_ops = {.finished = on_finished};

/* ---- sockets ---- */

static int connect_socket(struct many *many, struct session *session)
{
    const int linger = 0;
    uint32_t endpoint = sel_producer_peer(session->producer)->endpoint;
    if (session->socket)
        (void)zmq_close(session->socket);
    session->socket = zmq_socket(many->context, ZMQ_DEALER);
    if (!session->socket)
        return -zmq_errno();
    many->items[session - many->sessions].socket = session->socket;
    if (zmq_setsockopt(session->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
        zmq_connect(session->socket,
                    many->options->brokers[endpoint % many->options->broker_count]) < 0)
        return -zmq_errno();
    return 0;
}

/* What the machine wants to do now. */
static int turn_session(struct many *many, struct session *session, int64_t now_us)
{
    for (;;) {
        int r;
        switch (sel_producer_poll(session->producer, now_us, &many->out)) {
        case SEL_PEER_CONNECT:
            r = connect_socket(many, session);
            if (r < 0)
                return r;
            break;
        case SEL_PEER_SEND:
            if (zmq_send(session->socket, many->out.p, many->out.n, ZMQ_DONTWAIT) < 0) {
                sel_peer_unsent(sel_producer_peer(session->producer));
                return 0;
            }
            break;
        default:
            return 0;
        }
    }
}

static void read_session(struct session *session, int64_t now_us)
{
    zmq_msg_t frame;
    (void)zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, session->socket, ZMQ_DONTWAIT) >= 0)
        sel_producer_receive(session->producer,
                             (struct sel_str){zmq_msg_data(&frame), zmq_msg_size(&frame)}, now_us);
    (void)zmq_msg_close(&frame);
}

/* Everything once: due timers, a wait for frames until `wake_us`, frames. */
static int turn_all(struct many *many, int64_t wake_us)
{
    int64_t now_us = sel_load_now_us();
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < many->count; i++) {
        struct session *session = &many->sessions[i];
        int64_t due_us = sel_producer_due_us(session->producer);
        if (due_us <= now_us) {
            r = turn_session(many, session, now_us);
            due_us = sel_producer_due_us(session->producer);
        }
        wake_us = due_us < wake_us ? due_us : wake_us;
    }
    if (r < 0)
        return r;
    long wait_ms = wake_us > now_us ? (long)((wake_us - now_us + 999) / 1000) : 0;
    if (zmq_poll(many->items, (int)many->count, wait_ms) < 0 && zmq_errno() != EINTR)
        return -zmq_errno();
    now_us = sel_load_now_us();
    for (uint32_t i = 0; r == 0 && i < many->count; i++) {
        if (!(many->items[i].revents & ZMQ_POLLIN))
            continue;
        read_session(&many->sessions[i], now_us);
        r = turn_session(many, &many->sessions[i], now_us);
    }
    return r;
}

/* ---- the port ---- */

static int submit_one(struct many *many, struct session *session, const struct sel_load_task *task)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct sel_wire_item item = {
        .type = SEL_RECORD_SUBMIT,
        .id = sel_id_next(&many->ids, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000),
        .priority = task->kind->priority,
        .level = many->options->level,
        .task = sel_str_c(task->kind->task),
        .payload = task->args,
    };
    int r = sel_producer_queue(session->producer, sel_str_c(task->kind->queue), &item.queue);
    if (r == 0)
        r = sel_producer_submit(session->producer, &item, (void *)(uintptr_t)task->tag, false);
    return r;
}

static int64_t submit(struct sel_load_port *port, const struct sel_load_task *tasks, uint32_t count)
{
    struct many *many = (struct many *)port;
    int64_t now_us = sel_load_now_us();
    for (uint32_t i = 0; i < count; i++) {
        struct session *session = &many->sessions[many->turn];
        int r = submit_one(many, session, &tasks[i]);
        if (r == SEL_ELIMIT)
            return i;
        if (r == 0)
            r = turn_session(many, session, now_us);
        if (r < 0)
            return r;
        many->turn = (many->turn + 1) % many->count;
    }
    return count;
}

static int receive(struct sel_load_port *port, int64_t wake_us,
                   void (*ended)(void *ctx, uint64_t tag, enum sel_load_end how), void *ctx)
{
    struct many *many = (struct many *)port;
    many->ended = ended;
    many->ended_ctx = ctx;
    int r = turn_all(many, wake_us);
    many->ended = NULL;
    return r;
}

static uint32_t count_in(const struct many *many, enum sel_peer_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < many->count; i++) {
        struct sel_producer *producer = many->sessions[i].producer;
        count += producer && sel_producer_peer(producer)->state == state;
    }
    return count;
}

/* Until all are in `state`. */
static int turn_until(struct many *many, enum sel_peer_state state, int64_t time_us)
{
    int64_t end_us = sel_load_now_us() + time_us;
    while (count_in(many, state) < many->count) {
        int64_t now_us = sel_load_now_us();
        if (now_us >= end_us)
            return -ETIMEDOUT;
        int r = turn_all(many, now_us + 10000);
        if (r < 0)
            return r;
    }
    return 0;
}

static void free_many(struct many *many)
{
    for (uint32_t i = 0; many->sessions && i < many->count; i++) {
        sel_producer_free(many->sessions[i].producer);
        if (many->sessions[i].socket)
            (void)zmq_close(many->sessions[i].socket);
    }
    if (many->context)
        (void)zmq_ctx_term(many->context);
    sel_buf_done(&many->out);
    (void)sel_mem_free(many->sessions);
    (void)sel_mem_free(many->items);
    (void)sel_mem_free(many);
}

static void close_port(struct sel_load_port *port)
{
    struct many *many = (struct many *)port;
    for (uint32_t i = 0; i < many->count; i++)
        sel_peer_goodbye(sel_producer_peer(many->sessions[i].producer), "done");
    if (turn_until(many, SEL_PEER_CLOSED, CLOSE_US) < 0)
        fprintf(stderr, "selinon-load: %u of %u producers could not say goodbye\n",
                many->count - count_in(many, SEL_PEER_CLOSED), many->count);
    free_many(many);
}

/* Two descriptors a session, and some. */
static int allow_descriptors(uint32_t sessions)
{
    struct rlimit limit;
    rlim_t need = 2 * (rlim_t)sessions + 256;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    if (limit.rlim_cur >= need)
        return 0;
    limit.rlim_cur = need;
    limit.rlim_max = limit.rlim_max < need ? need : limit.rlim_max; /* root may */
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
        return 0;
    fprintf(stderr, "selinon-load: %u producers need %llu descriptors (ulimit -n)\n", sessions,
            (unsigned long long)need);
    return -errno;
}

static int open_session(struct many *many)
{
    uint32_t i = many->count;
    struct session *session = &many->sessions[i];
    struct sel_producer_options options = {
        .name = SEL_STR("selinon-load"),
        .ops = &producer_ops,
        .ctx = session,
        .window_bytes = WINDOW_BYTES,
        .seed = i,
    };
    if (getrandom(&options.id, sizeof(options.id), 0) != (ssize_t)sizeof(options.id))
        return -errno;
    session->many = many;
    many->items[i] = (zmq_pollitem_t){.fd = -1, .events = ZMQ_POLLIN};
    int r = sel_producer_new(&options, sel_load_now_us(), &session->producer);
    if (r == 0)
        many->count++;
    return r;
}

/* A few hundred at a time: thousands at once would wait for each other longer than they wait for an
 * answer, and all begin again. */
static int open_sessions(struct many *many)
{
    int r = 0;
    while (r == 0 && many->count < many->options->producers) {
        for (uint32_t i = 0; r == 0 && i < WAVE && many->count < many->options->producers; i++)
            r = open_session(many);
        if (r == 0)
            r = turn_until(many, SEL_PEER_OPEN, READY_US);
    }
    return r;
}

int sel_load_open_many(const struct sel_load_options *options, struct sel_load_port **ret)
{
    struct many *many = SEL_NEW(struct many);
    int r = many ? allow_descriptors(options->producers) : SEL_ENOMEM;
    if (!many)
        return r;
    many->port = (struct sel_load_port){submit, receive, close_port};
    many->options = options;
    many->sessions = sel_mem_zalloc(options->producers * sizeof(*many->sessions));
    many->items = sel_mem_zalloc(options->producers * sizeof(*many->items));
    many->context = zmq_ctx_new();
    if (r == 0 && (!many->sessions || !many->items || !many->context))
        r = SEL_ENOMEM;
    /* Those that are closed count until libzmq has done so beside us. */
    if (r == 0 && zmq_ctx_set(many->context, ZMQ_MAX_SOCKETS, 2 * (int)options->producers + 16) < 0)
        r = -zmq_errno();
    if (r == 0 && getrandom(&many->ids.incarnation, sizeof(many->ids.incarnation), 0) < 0)
        r = -errno;
    many->ids.incarnation &= (1u << 22) - 1;
    if (r == 0)
        r = open_sessions(many);
    if (r < 0) {
        fprintf(stderr, "selinon-load: only %u of %u producers could be connected: %s\n",
                many->sessions ? count_in(many, SEL_PEER_OPEN) : 0, options->producers,
                sel_error_text(r));
        free_many(many);
        return r;
    }
    *ret = &many->port;
    return 0;
}
