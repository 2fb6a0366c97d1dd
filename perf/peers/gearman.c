/* gearmand: foreground jobs from submit to result at the client.
 *
 * The client has `window` jobs under way on one connection. A worker takes job after job, as all of
 * Gearman's do; that one is done and the next is wanted goes out in one write. With a window above
 * 1 a worker asks for that many at once, which libgearman's do not. */
#include <arpa/inet.h>
#include <stdio.h>

#include "core/error.h"
#include "perf/peers/peers.h"

#define FUNCTION "noop"
#define HEAD 12

enum packet_type {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
};

static void put_packet(struct sel_buf *out, enum packet_type type, struct sel_str first,
                       const void *data, size_t data_size)
{
    uint32_t head[3] = {0, htonl((uint32_t)type), htonl((uint32_t)(first.n + data_size))};
    memcpy(head, "\0REQ", 4);
    sel_buf_put(out, head, sizeof(head));
    sel_buf_put_str(out, first);
    sel_buf_put(out, data, data_size);
}

/* The next packet that the server sent: 1; 0: it is not all there; < 0: that is none. */
static int next_packet(struct sel_peers_stream *stream, uint32_t *ret_type, struct sel_str *ret)
{
    struct sel_str in = sel_peers_in(stream);
    uint32_t head[3];
    if (in.n < HEAD)
        return 0;
    memcpy(head, in.p, sizeof(head));
    size_t size = ntohl(head[2]);
    if (memcmp(in.p, "\0RES", 4) != 0 || size > SEL_PEERS_IN_MAX - HEAD)
        return sel_peers_fail("gearmand sent something else than packets");
    if (in.n < HEAD + size)
        return 0;
    *ret_type = ntohl(head[1]);
    *ret = (struct sel_str){in.p + HEAD, size};
    sel_peers_take(stream, HEAD + size);
    return 1;
}

/* ---- the client ---- */

static int take_results(struct sel_peers_stream *stream, uint64_t *done)
{
    uint32_t type = 0;
    struct sel_str body = SEL_STR("");
    int r;
    while ((r = next_packet(stream, &type, &body)) > 0) {
        if (type == WORK_COMPLETE)
            ++*done;
        else if (type != JOB_CREATED)
            return sel_peers_fail("gearmand sent a packet of type %u", type);
    }
    return r;
}

int sel_peers_gearman_client(const struct sel_peers_options *options)
{
    static const char name[] = FUNCTION "\0"; /* the second text, a unique id, is empty */
    static const uint8_t data[65536];
    struct sel_peers_stream stream;
    uint64_t sent = 0, done = 0, before = 0;
    int r = sel_peers_connect(&stream, options->port);
    int64_t begin_ns = sel_peers_now_ns();
    while (r == 0 && done < options->count) {
        for (; sent < options->count && sent - done < options->window; sent++)
            put_packet(&stream.out, SUBMIT_JOB, (struct sel_str){name, sizeof(name)}, data,
                       options->record_bytes);
        r = sel_peers_pump(&stream);
        before = done;
        if (r == 0)
            r = take_results(&stream, &done);
        if (r == 0 && done == before)
            r = sel_peers_wait(&stream, 1);
    }
    if (r == 0)
        sel_peers_print_rate(done, begin_ns);
    sel_peers_close(&stream);
    return r;
}

/* ---- the worker ---- */

static int work(struct sel_peers_stream *stream, uint32_t type, struct sel_str body)
{
    static const char result[8];
    struct sel_buf *out = &stream->out;
    switch (type) {
    case JOB_ASSIGN: /* handle, name, arguments, with zeros between */
        body.n = strnlen(body.p, body.n - 1) + 1;
        put_packet(out, WORK_COMPLETE, body, result, sizeof(result));
        put_packet(out, GRAB_JOB, SEL_STR(""), NULL, 0);
        return 1;
    case NO_JOB:
        put_packet(out, PRE_SLEEP, SEL_STR(""), NULL, 0);
        return 0;
    case NOOP:
        put_packet(out, GRAB_JOB, SEL_STR(""), NULL, 0);
        return 0;
    default:
        return sel_peers_fail("gearmand sent a packet of type %u", type);
    }
}

int sel_peers_gearman_worker(const struct sel_peers_options *options)
{
    struct sel_peers_stream stream;
    struct sel_str body = SEL_STR("");
    uint32_t type = 0;
    int r = sel_peers_connect(&stream, options->port);
    if (r == 0) {
        put_packet(&stream.out, CAN_DO, SEL_STR(FUNCTION), NULL, 0);
        for (uint32_t i = 0; i < options->window; i++)
            put_packet(&stream.out, GRAB_JOB, SEL_STR(""), NULL, 0);
    }
    while (r >= 0) { /* until the server goes or this process is stopped */
        r = sel_peers_pump(&stream);
        bool is_waiting = true;
        while (r >= 0 && (r = next_packet(&stream, &type, &body)) > 0) {
            r = work(&stream, type, body);
            is_waiting = false;
        }
        if (r >= 0 && is_waiting)
            r = sel_peers_wait(&stream, 1);
    }
    sel_peers_close(&stream);
    return r;
}
