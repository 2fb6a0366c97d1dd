#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/peers/peers.h"

#define HANG_MS 30000
#define STREAMS_MAX 4

int64_t sel_peers_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int sel_peers_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("selinon-peers: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return SEL_EFAILED;
}

void sel_peers_print_rate(uint64_t count, int64_t begin_ns)
{
    int64_t took_ns = sel_peers_now_ns() - begin_ns;
    printf("{\"per_s\": %.1f, \"count\": %" PRIu64 "}\n", (double)count * 1e9 / (double)took_ns,
           count);
    (void)fflush(stdout);
}

int sel_peers_connect(struct sel_peers_stream *stream, uint16_t port)
{
    *stream = (struct sel_peers_stream){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int on = 1;
    if (stream->fd < 0)
        return -errno;
    if (connect(stream->fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ||
        setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        fcntl(stream->fd, F_SETFL, O_NONBLOCK) < 0) {
        int r = -errno;
        sel_peers_close(stream);
        return r;
    }
    stream->in = sel_mem_alloc(SEL_PEERS_IN_MAX);
    if (!stream->in) {
        sel_peers_close(stream);
        return SEL_ENOMEM;
    }
    return 0;
}

void sel_peers_close(struct sel_peers_stream *stream)
{
    if (stream->fd >= 0)
        (void)close(stream->fd);
    sel_buf_done(&stream->out);
    stream->in = sel_mem_free(stream->in);
    stream->fd = -1;
}

static int write_some(struct sel_peers_stream *stream)
{
    while (stream->out_at < stream->out.n) {
        ssize_t n =
            write(stream->fd, stream->out.p + stream->out_at, stream->out.n - stream->out_at);
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        stream->out_at += (size_t)n;
    }
    stream->out_at = 0;
    sel_buf_clear(&stream->out);
    return 0;
}

static int read_some(struct sel_peers_stream *stream)
{
    if (stream->in_at > 0) {
        memmove(stream->in, stream->in + stream->in_at, stream->in_end - stream->in_at);
        stream->in_end -= stream->in_at;
        stream->in_at = 0;
    }
    if (stream->in_end == SEL_PEERS_IN_MAX)
        return 0;
    ssize_t n = read(stream->fd, stream->in + stream->in_end, SEL_PEERS_IN_MAX - stream->in_end);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return -ECONNRESET;
    stream->in_end += (size_t)n;
    return 0;
}

int sel_peers_pump(struct sel_peers_stream *stream)
{
    int r = sel_buf_error(&stream->out);
    if (r == 0)
        r = write_some(stream);
    return r < 0 ? r : read_some(stream);
}

int sel_peers_wait(struct sel_peers_stream *streams, uint32_t count)
{
    struct pollfd fds[STREAMS_MAX];
    SEL_ASSERT(count <= STREAMS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        bool writes = streams[i].out_at < streams[i].out.n;
        fds[i] = (struct pollfd){.fd = streams[i].fd,
                                 .events = (short)(POLLIN | (writes ? POLLOUT : 0))};
    }
    int r = poll(fds, count, HANG_MS);
    if (r == 0)
        return -ETIMEDOUT;
    return r < 0 && errno != EINTR ? -errno : 0;
}

bool sel_peers_line(struct sel_str text, struct sel_str *ret)
{
    const char *end = text.n ? memchr(text.p, '\n', text.n) : NULL;
    if (!end || end == text.p || end[-1] != '\r')
        return false;
    *ret = (struct sel_str){text.p, (size_t)(end - text.p) - 1};
    return true;
}
