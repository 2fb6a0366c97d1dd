/* perf/peers/peers.h - clients of other systems, to measure against.
 *
 * One program, selinon-peers, with a command for each part that has to be written in C because
 * anything slower would measure itself: the processes of the raw libzmq yardstick, clients of
 * JetStream, gearmand and beanstalkd. They speak the protocols themselves, pipelined as far as
 * these allow. perf/peers/peer.py starts the servers and them. What a command measured it prints as
 * one line of JSON. */
#ifndef SEL_PERF_PEERS_PEERS_H
#define SEL_PERF_PEERS_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/str.h"

struct sel_peers_options {
    const char *endpoint;  /* of ZeroMQ */
    uint16_t port;         /* on 127.0.0.1, of all others */
    uint64_t count;        /* tasks */
    uint32_t window;       /* tasks under way at a time */
    uint32_t batch;        /* of them in one message, where messages carry several */
    uint32_t record_bytes; /* of a task: ZeroMQ all of a record, else the arguments alone */
    uint32_t reply_bytes;  /* of its result: the same */
    uint32_t head_bytes;   /* before the records of a message, ZeroMQ only */
};

/* Commands: 0, or a negative code after a line on standard error. */
int sel_peers_zmq_router(const struct sel_peers_options *options);
int sel_peers_zmq_worker(const struct sel_peers_options *options);
int sel_peers_zmq_producer(const struct sel_peers_options *options);
int sel_peers_nats(const struct sel_peers_options *options);
int sel_peers_gearman_worker(const struct sel_peers_options *options);
int sel_peers_gearman_client(const struct sel_peers_options *options);
int sel_peers_beanstalk(const struct sel_peers_options *options);

/* ---- a TCP connection with buffers, in stream.c ---- */

#define SEL_PEERS_IN_MAX ((size_t)256 * 1024)

struct sel_peers_stream {
    int fd;
    struct sel_buf out; /* to be written, from out_at */
    size_t out_at;
    uint8_t *in; /* SEL_PEERS_IN_MAX bytes; read but not taken: from in_at to in_end */
    size_t in_at, in_end;
};

int sel_peers_connect(struct sel_peers_stream *stream, uint16_t port) SEL_WARN_UNUSED;
void sel_peers_close(struct sel_peers_stream *stream);
/* Writes and reads what can be without waiting. < 0: the connection is broken. */
int sel_peers_pump(struct sel_peers_stream *stream) SEL_WARN_UNUSED;
/* Sleeps until one of them can be read (or written, if something is to be). -ETIMEDOUT after 30 s:
 * the peer hangs. */
int sel_peers_wait(struct sel_peers_stream *streams, uint32_t count) SEL_WARN_UNUSED;
/* What was read and not taken. */
static inline struct sel_str sel_peers_in(const struct sel_peers_stream *stream)
{
    return (struct sel_str){(const char *)stream->in + stream->in_at,
                            stream->in_end - stream->in_at};
}
static inline void sel_peers_take(struct sel_peers_stream *stream, size_t n)
{
    stream->in_at += n;
}
/* The first line of `text` without its \r\n; false: it is not all there. */
bool sel_peers_line(struct sel_str text, struct sel_str *ret);

int64_t sel_peers_now_ns(void);
/* Says on standard error what is wrong; returns SEL_EFAILED. */
int sel_peers_fail(const char *format, ...) SEL_PRINTF(1, 2) SEL_WARN_UNUSED;
/* {"per_s": ..., "count": ...} on standard output. */
void sel_peers_print_rate(uint64_t count, int64_t begin_ns);

#endif
