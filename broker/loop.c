#include "broker/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "broker/commit.h"
#include "broker/logger.h"
#include "core/mem.h"
#include "proto/wire.h"
#include "storage/journal.h"

#define ROUTING_ID_SIZE 5 /* what ZeroMQ gives: a zero byte and a number */
#define ENDPOINT_SIZE 256
#define BACKLOG 4096          /* the kernel may allow fewer (somaxconn) */
#define QUERY_MESSAGES 16     /* high-water mark there */
#define LINGER_MS 1000        /* for goodbyes at the end */
#define TURN_MESSAGES_MAX 256 /* read before the core may answer */
#define TURN_BYTES_MAX ((size_t)1 << 20)
#define TURN_QUERIES_MAX 4
#define LOOK_US 5000    /* a busy loop looks at the other sockets so often */
#define BLOCKED_US 5000 /* a full connection may have room again, unannounced */
#define STOP_US_MAX (5 * INT64_C(1000000))

struct sel_broker_loop {
    void *zmq;
    void *peers, *queries; /* ROUTERs; queries may be NULL */
    int peers_fd, queries_fd, wake_fd;
    struct sel_broker_endpoints listen, query; /* as bound; texts below */
    char texts[2 * SEL_BROKER_ENDPOINTS_MAX][ENDPOINT_SIZE];
    uint32_t text_count;

    atomic_bool is_asleep;
    _Atomic(const char *) stop_reason;

    zmq_msg_t id, frame; /* what is being received */
    struct sel_buf reply;
    bool has_tried, is_blocked; /* to send, in this turn */
    bool queries_wait;          /* there may be more */
    bool is_stopping, was_full; /* was_full: said so in the log */
    int64_t stop_by_us, looked_us;
    struct sel_broker_loop_stats stats;
};

/* ---- making one ---- */

static int zmq_failure(void)
{
    int error = zmq_errno();
    return error > 0 && error < 4096 ? -error : -EINVAL; /* ZeroMQ has some of its own, far above */
}

static void *open_router(struct sel_broker_loop *loop, uint32_t messages, size_t size_max)
{
    void *socket = zmq_socket(loop->zmq, ZMQ_ROUTER);
    if (!socket)
        return NULL;
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_ROUTER_MANDATORY, 1}, /* a send says that nobody is there, or that it is full */
        {ZMQ_ROUTER_HANDOVER, 0},
        {ZMQ_SNDHWM, (int)messages},
        {ZMQ_RCVHWM, (int)messages},
        {ZMQ_BACKLOG, BACKLOG},
        {ZMQ_LINGER, LINGER_MS},
        {ZMQ_TCP_KEEPALIVE, 1}, /* hosts that vanished give their descriptors back */
        {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10},
        {ZMQ_TCP_KEEPALIVE_CNT, 3},
    };
    int r = 0;
    for (size_t i = 0; i < SEL_COUNT(options) && r == 0; i++)
        r = zmq_setsockopt(socket, options[i].option, &options[i].value, sizeof(int));
    int64_t max = (int64_t)size_max;
    if (r == 0)
        r = zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof(max));
    if (r == 0)
        return socket;
    (void)zmq_close(socket);
    return NULL;
}

/* ZeroMQ takes over the file of a socket that somebody listens on; we do not. */
static bool is_ipc_in_use(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || endpoint[6] == '*' ||
        strlen(endpoint + 6) >= sizeof(address.sun_path))
        return false;
    size_t n = strlen(endpoint + 6);
    memcpy(address.sun_path, endpoint + 6, n);
    socklen_t size = sizeof(address);
    if (endpoint[6] == '@') { /* an abstract name, without a file */
        address.sun_path[0] = '\0';
        size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool in_use = fd >= 0 && connect(fd, (struct sockaddr *)&address, size) == 0;
    if (fd >= 0)
        (void)close(fd);
    return in_use;
}

static int bind_one(struct sel_broker_loop *loop, void *socket, const char *endpoint,
                    struct sel_broker_endpoints *bound, struct sel_error *err)
{
    int ipv6 = strchr(endpoint, '[') != NULL, r = 0;
    if (is_ipc_in_use(endpoint))
        r = -EADDRINUSE;
    else if (zmq_setsockopt(socket, ZMQ_IPV6, &ipv6, sizeof(ipv6)) < 0 ||
             zmq_bind(socket, endpoint) < 0)
        r = zmq_failure();
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "cannot listen on %s: %s%s", endpoint,
                             sel_error_text(r),
                             r == -EADDRINUSE ? "; does another broker run there?" : "");
    char *text = loop->texts[loop->text_count++];
    size_t size = ENDPOINT_SIZE;
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, text, &size) < 0)
        return sel_error_set(err, zmq_failure(), (struct sel_pos){0}, "%s: %s", endpoint,
                             zmq_strerror(zmq_errno()));
    bound->items[bound->count++] = text;
    return 0;
}

static int bind_all(struct sel_broker_loop *loop, void *socket,
                    const struct sel_broker_endpoints *endpoints,
                    struct sel_broker_endpoints *bound, int *ret_fd, struct sel_error *err)
{
    for (uint32_t i = 0; i < endpoints->count; i++) {
        int r = bind_one(loop, socket, endpoints->items[i], bound, err);
        if (r < 0)
            return r;
    }
    size_t size = sizeof(*ret_fd);
    if (zmq_getsockopt(socket, ZMQ_FD, ret_fd, &size) < 0)
        return sel_error_set(err, zmq_failure(), (struct sel_pos){0}, "ZMQ_FD: %s",
                             zmq_strerror(zmq_errno()));
    return 0;
}

static int open_all(struct sel_broker_loop *loop, const struct sel_broker_loop_options *options,
                    struct sel_error *err)
{
    loop->zmq = zmq_ctx_new();
    if (!loop->zmq || zmq_ctx_set(loop->zmq, ZMQ_IO_THREADS, (int)options->io_threads) < 0)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "no ZeroMQ context");
    /* Leaving the context never waits for sockets beyond their linger. */
    (void)zmq_ctx_set(loop->zmq, ZMQ_BLOCKY, 0);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0)
        return sel_error_set(err, -errno, (struct sel_pos){0}, "eventfd: %s", strerror(errno));
    loop->peers = open_router(loop, options->socket_messages, SEL_WIRE_MESSAGE_MAX);
    if (options->query.count > 0)
        loop->queries = open_router(loop, QUERY_MESSAGES, SEL_WIRE_PLAIN_MAX);
    if (!loop->peers || (options->query.count > 0 && !loop->queries))
        return sel_error_set(err, zmq_failure(), (struct sel_pos){0}, "no socket: %s",
                             zmq_strerror(zmq_errno()));
    int r = bind_all(loop, loop->peers, &options->listen, &loop->listen, &loop->peers_fd, err);
    if (r == 0 && loop->queries)
        r = bind_all(loop, loop->queries, &options->query, &loop->query, &loop->queries_fd, err);
    return r;
}

int sel_broker_loop_new(const struct sel_broker_loop_options *options, struct sel_broker_loop **ret,
                        struct sel_error *err)
{
    struct sel_broker_loop *loop = SEL_NEW(struct sel_broker_loop);
    if (!loop)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "%s",
                             sel_error_text(SEL_ENOMEM));
    loop->wake_fd = loop->queries_fd = -1;
    (void)zmq_msg_init(&loop->id);
    (void)zmq_msg_init(&loop->frame);
    int r = open_all(loop, options, err);
    if (r < 0) {
        (void)sel_broker_loop_free(loop);
        return r;
    }
    *ret = loop;
    return 0;
}

struct sel_broker_loop *sel_broker_loop_free(struct sel_broker_loop *loop)
{
    if (!loop)
        return NULL;
    (void)zmq_msg_close(&loop->id);
    (void)zmq_msg_close(&loop->frame);
    if (loop->peers)
        (void)zmq_close(loop->peers);
    if (loop->queries)
        (void)zmq_close(loop->queries);
    if (loop->zmq)
        (void)zmq_ctx_term(loop->zmq);
    if (loop->wake_fd >= 0)
        (void)close(loop->wake_fd);
    sel_buf_done(&loop->reply);
    return sel_mem_free(loop);
}

const struct sel_broker_endpoints *sel_broker_loop_listens(const struct sel_broker_loop *loop)
{
    return &loop->listen;
}

const struct sel_broker_endpoints *sel_broker_loop_queries(const struct sel_broker_loop *loop)
{
    return &loop->query;
}

void *sel_broker_loop_context(const struct sel_broker_loop *loop)
{
    return loop->zmq;
}

void sel_broker_loop_get_stats(const struct sel_broker_loop *loop,
                               struct sel_broker_loop_stats *ret)
{
    *ret = loop->stats;
}

/* ---- other threads ---- */

void sel_broker_loop_wake(struct sel_broker_loop *loop)
{
    /* The loop says that it sleeps before it looks for a reason not to: one of both sees the
     * other. */
    if (!atomic_exchange(&loop->is_asleep, false))
        return;
    uint64_t one = 1;
    ssize_t r = write(loop->wake_fd, &one, sizeof(one));
    (void)r; /* it can only be full, and then the loop wakes as well */
}

void sel_broker_loop_stop(struct sel_broker_loop *loop, const char *reason)
{
    atomic_store(&loop->stop_reason, reason);
    sel_broker_loop_wake(loop);
}

/* ---- sockets ---- */

/* The next message of a ROUTER: loop->id and loop->frame. False: there is none now. More than one
 * frame behind the id is no message of ours; they are read, and only `*ret_count` tells. */
static bool receive(struct sel_broker_loop *loop, void *socket, uint32_t *ret_count)
{
    int r;
    do {
        r = zmq_msg_recv(&loop->id, socket, ZMQ_DONTWAIT);
    } while (r < 0 && zmq_errno() == EINTR);
    if (r < 0)
        return false;
    uint32_t count = 0;
    for (int more = zmq_msg_more(&loop->id); more; more = zmq_msg_more(&loop->frame)) {
        if (zmq_msg_recv(&loop->frame, socket, ZMQ_DONTWAIT) < 0)
            break; /* the parts of a message come together, so this does not happen */
        count++;
    }
    *ret_count = count;
    return true;
}

/* One copy into a message of ZeroMQ's, which its I/O thread frees. */
static int send_to(void *socket, const void *id, size_t id_size, struct sel_str frame)
{
    zmq_msg_t message;
    if (zmq_msg_init_size(&message, frame.n) < 0)
        return -EAGAIN; /* no memory now */
    if (frame.n > 0)
        memcpy(zmq_msg_data(&message), frame.p, frame.n);
    int r = zmq_send(socket, id, id_size, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    if (r >= 0)
        r = zmq_msg_send(&message, socket, ZMQ_DONTWAIT);
    if (r >= 0)
        return 0;
    r = zmq_failure();
    (void)zmq_msg_close(&message);
    return r;
}

int sel_broker_loop_send(struct sel_broker_loop *loop, uint32_t connection, struct sel_str frame)
{
    uint8_t id[ROUTING_ID_SIZE] = {0};
    memcpy(id + 1, &connection, sizeof(connection));
    int r = send_to(loop->peers, id, sizeof(id), frame);
    if (r == -EAGAIN) {
        loop->is_blocked = true;
        loop->stats.blocked++;
        return r;
    }
    loop->has_tried = true;
    return r == 0 ? 0 : -EHOSTUNREACH;
}

/* Told less and less often: whoever does so, does it with each message. */
static void count_foreign(struct sel_broker_loop *loop, struct sel_broker_logger *logger)
{
    uint64_t count = ++loop->stats.foreign;
    if ((count & (count - 1)) == 0)
        sel_broker_logger_put(logger, SEL_BROKER_WARNING, "peer.foreign",
                              "messages=%" PRIu64 " text=\"a peer set its own routing id\"", count);
}

static bool take_connection(struct sel_broker_loop *loop, struct sel_broker_logger *logger,
                            uint32_t *ret)
{
    const uint8_t *id = zmq_msg_data(&loop->id);
    if (zmq_msg_size(&loop->id) != ROUTING_ID_SIZE || id[0] != 0) {
        count_foreign(loop, logger);
        return false;
    }
    memcpy(ret, id + 1, sizeof(*ret));
    return true;
}

static struct sel_str frame_of(struct sel_broker_loop *loop)
{
    return (struct sel_str){zmq_msg_data(&loop->frame), zmq_msg_size(&loop->frame)};
}

/* True: something came. */
static bool receive_turn(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                         struct sel_broker_now now)
{
    size_t bytes = 0;
    uint32_t messages = 0, frames, connection;
    while (messages < TURN_MESSAGES_MAX && bytes < TURN_BYTES_MAX &&
           receive(loop, loop->peers, &frames)) {
        messages++;
        if (!take_connection(loop, work->logger, &connection))
            continue;
        struct sel_str frame = frame_of(loop);
        if (frames != 1) { /* an empty frame is malformed: that is what the peer is told */
            loop->stats.multipart++;
            frame = (struct sel_str){0};
        }
        bytes += frame.n;
        sel_broker_receive(work->broker, connection, frame, now);
    }
    return messages > 0;
}

static void answer_query(struct sel_broker_loop *loop, struct sel_broker *broker,
                         struct sel_broker_now now, uint32_t frames)
{
    sel_buf_clear(&loop->reply);
    sel_broker_query(broker, frames == 1 ? frame_of(loop) : (struct sel_str){0}, now, &loop->reply);
    if (loop->reply.n == 0 || sel_buf_error(&loop->reply) < 0)
        return; /* no memory: whoever asks hears nothing, and asks again */
    /* Who does not read what was asked for, or is gone, gets none. */
    (void)send_to(loop->queries, zmq_msg_data(&loop->id), zmq_msg_size(&loop->id),
                  sel_buf_str(&loop->reply));
}

static bool query_turn(struct sel_broker_loop *loop, struct sel_broker *broker,
                       struct sel_broker_now now)
{
    uint32_t count = 0, frames;
    while (count < TURN_QUERIES_MAX && receive(loop, loop->queries, &frames)) {
        answer_query(loop, broker, now, frames);
        count++;
    }
    /* Sending may have taken the notice of what came meanwhile: only an empty look is the end. */
    loop->queries_wait = count > 0;
    return count > 0;
}

/* ---- the journal ---- */

/* What the journal itself says; what it means for submits the core tells. */
static void log_commit(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                       int result, const struct sel_error *err)
{
    bool is_full = result == -ENOSPC || result == SEL_ELIMIT;
    if (result < 0 && !is_full) {
        sel_broker_logger_put(work->logger, SEL_BROKER_ERROR, "journal.failed",
                              "error=%s text=\"%s\" restart=needed", sel_error_name(result),
                              err->text);
    } else if (is_full && !loop->was_full) {
        sel_broker_logger_put(work->logger, SEL_BROKER_ERROR, "journal.refused",
                              "error=%s text=\"%s\" retry=yes", sel_error_name(result), err->text);
    } else if (result == 0 && loop->was_full) {
        sel_broker_logger_put(work->logger, SEL_BROKER_INFO, "journal.goes_on", "%s", "");
    }
    loop->was_full = is_full;
}

static void note_journal(const struct sel_broker_loop_work *work)
{
    struct sel_journal_stats stats;
    work->journal->ops->stats(work->journal, &stats);
    sel_broker_note_journal(work->broker, stats.bytes_live);
}

/* 1: a commit has ended; 0; negative: it failed for good. */
static int commit_end(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                      struct sel_broker_now now)
{
    int result;
    const struct sel_error *err;
    if (!work->commit || !sel_broker_commit_take(work->commit, &result, &err))
        return 0;
    log_commit(loop, work, result, err);
    if (result < 0 && !loop->was_full) /* the core has nothing to do with it any more */
        return result;
    sel_broker_committed(work->broker, result, now);
    note_journal(work);
    return 1;
}

static bool commit_begin(const struct sel_broker_loop_work *work, struct sel_broker_now now)
{
    struct sel_broker_batches batches;
    if (!work->commit || sel_broker_commit_is_under_way(work->commit) ||
        !sel_broker_take_batches(work->broker, now, &batches))
        return false;
    sel_broker_commit_post(work->commit, &batches);
    return true;
}

/* ---- the loop ---- */

static int64_t clock_us(clockid_t clock)
{
    struct timespec ts;
    (void)clock_gettime(clock, &ts); /* cannot fail with these clocks */
    return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

/* Looks at all descriptors, sleeping at most `wait_us` (negative: for ever). */
static void look(struct sel_broker_loop *loop, int64_t wait_us)
{
    /* What comes after a stop is not read, so it must not wake. */
    struct pollfd fds[] = {{.fd = loop->is_stopping ? -1 : loop->peers_fd, .events = POLLIN},
                           {.fd = loop->wake_fd, .events = POLLIN},
                           {.fd = loop->queries_fd, .events = POLLIN}};
    struct timespec ts = {wait_us / 1000000, wait_us % 1000000 * 1000};
    if (ppoll(fds, SEL_COUNT(fds), wait_us < 0 ? NULL : &ts, NULL) <= 0)
        return;
    uint64_t count;
    if (fds[1].revents && read(loop->wake_fd, &count, sizeof(count)) < 0)
        return; /* somebody was faster: there is none */
    if (fds[2].revents)
        loop->queries_wait = true;
}

static bool is_called(const struct sel_broker_loop *loop, const struct sel_broker_loop_work *work)
{
    return (!loop->is_stopping && atomic_load(&loop->stop_reason)) ||
           (work->commit && sel_broker_commit_has_ended(work->commit));
}

static void sleep_until(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                        int64_t due_us)
{
    int64_t now_us = clock_us(CLOCK_MONOTONIC);
    loop->looked_us = now_us;
    if (loop->is_blocked && due_us > now_us + BLOCKED_US)
        due_us = now_us + BLOCKED_US;
    if (loop->is_stopping && due_us > loop->stop_by_us)
        due_us = loop->stop_by_us;
    if (due_us <= now_us)
        return;
    atomic_store(&loop->is_asleep, true);
    if (!is_called(loop, work)) {
        loop->stats.sleeps++;
        look(loop, due_us == INT64_MAX ? -1 : due_us - now_us);
    }
    atomic_store(&loop->is_asleep, false);
}

static void begin_stop(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                       const char *reason, struct sel_broker_now now)
{
    sel_broker_logger_put(work->logger, SEL_BROKER_INFO, "broker.stop", "reason=%s", reason);
    loop->is_stopping = true;
    loop->stop_by_us = now.mono_us + STOP_US_MAX;
    sel_broker_goodbye(work->broker, reason);
}

/* Whether a stop has come to its end: nothing is written, nothing is left to be. */
static bool has_stopped(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work,
                        struct sel_broker_now now, bool is_busy, int *ret)
{
    if (!loop->is_stopping)
        return false;
    bool writes = work->commit && sel_broker_commit_is_under_way(work->commit);
    if (!writes && !is_busy && !loop->was_full) {
        *ret = 0;
        return true;
    }
    if (now.mono_us < loop->stop_by_us)
        return false;
    sel_broker_logger_put(work->logger, SEL_BROKER_ERROR, "stop.unsaved",
                          "text=\"the journal takes no more; what was not acknowledged is lost\"");
    *ret = -ETIMEDOUT;
    return true;
}

int sel_broker_loop_run(struct sel_broker_loop *loop, const struct sel_broker_loop_work *work)
{
    for (;;) {
        struct sel_broker_now now = {clock_us(CLOCK_MONOTONIC), clock_us(CLOCK_REALTIME)};
        loop->stats.turns++;
        loop->has_tried = loop->is_blocked = false;
        const char *reason = atomic_load_explicit(&loop->stop_reason, memory_order_relaxed);
        if (reason && !loop->is_stopping)
            begin_stop(loop, work, reason, now);
        bool is_busy = !loop->is_stopping && receive_turn(loop, work, now);
        int r = commit_end(loop, work, now);
        if (r < 0)
            return r;
        is_busy |= r > 0;
        if (loop->queries_wait)
            is_busy |= query_turn(loop, work->broker, now);
        int64_t due_us = sel_broker_turn(work->broker, now);
        is_busy |= commit_begin(work, now);
        is_busy |= loop->has_tried;
        if (has_stopped(loop, work, now, is_busy, &r))
            return r;
        /* Sending may have taken the socket's notice of what came, so it is read again before a
         * sleep. */
        if (!is_busy)
            sleep_until(loop, work, due_us);
        else if (now.mono_us - loop->looked_us >= LOOK_US) {
            loop->looked_us = now.mono_us;
            look(loop, 0);
        }
    }
}
