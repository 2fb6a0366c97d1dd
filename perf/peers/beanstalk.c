/* beanstalkd: one connection puts, one reserves and deletes, each with `window` commands under way
 * (`100 pipelined`). Every job passes put, reserve and delete; results do not exist there. */
#include <stdio.h>

#include "core/error.h"
#include "perf/peers/peers.h"

enum { PRODUCER, CONSUMER };

struct beanstalk {
    const struct sel_peers_options *options;
    struct sel_peers_stream streams[2];
    char job[256]; /* a put, ready to send */
    size_t job_size;
    uint64_t put, inserted, reserve_sent, reserved, deleted;
};

/* `prefix` begins the line. */
static bool begins(struct sel_str line, const char *prefix)
{
    size_t n = strlen(prefix);
    return line.n >= n && memcmp(line.p, prefix, n) == 0;
}

static void send_due(struct beanstalk *b)
{
    const struct sel_peers_options *options = b->options;
    while (b->put < options->count && b->put - b->inserted < options->window) {
        sel_buf_put(&b->streams[PRODUCER].out, b->job, b->job_size);
        b->put++;
    }
    /* Jobs that are reserved and not deleted count as under way, too. Reserves are never more than
     * jobs, so that none waits in front of a delete for ever. */
    while (b->reserve_sent < options->count && b->reserve_sent - b->deleted < options->window) {
        sel_buf_put_c(&b->streams[CONSUMER].out, "reserve\r\n");
        b->reserve_sent++;
    }
}

static int take_inserted(struct beanstalk *b)
{
    struct sel_peers_stream *stream = &b->streams[PRODUCER];
    struct sel_str line;
    while (sel_peers_line(sel_peers_in(stream), &line)) {
        if (!begins(line, "INSERTED "))
            return sel_peers_fail("beanstalkd said to a put: %.*s", SEL_STR_ARG(line));
        b->inserted++;
        sel_peers_take(stream, line.n + 2);
    }
    return 0;
}

/* "RESERVED <id> <bytes>", then the bytes: answered with a delete of the id. 0: not all there. */
static int take_reserved(struct beanstalk *b, struct sel_str line)
{
    struct sel_peers_stream *stream = &b->streams[CONSUMER];
    size_t size = line.n + 2 + b->options->record_bytes + 2;
    if (sel_peers_in(stream).n < size)
        return 0;
    struct sel_str id = {line.p + strlen("RESERVED "), line.n - strlen("RESERVED ")};
    const char *blank = memchr(id.p, ' ', id.n);
    if (!blank)
        return sel_peers_fail("beanstalkd said: %.*s", SEL_STR_ARG(line));
    id.n = (size_t)(blank - id.p);
    sel_buf_put_c(&stream->out, "delete ");
    sel_buf_put_str(&stream->out, id);
    sel_buf_put_c(&stream->out, "\r\n");
    b->reserved++;
    sel_peers_take(stream, size);
    return 1;
}

static int take_consumed(struct beanstalk *b)
{
    struct sel_peers_stream *stream = &b->streams[CONSUMER];
    struct sel_str line;
    int r = 1;
    while (r > 0 && sel_peers_line(sel_peers_in(stream), &line)) {
        if (begins(line, "RESERVED ")) {
            r = take_reserved(b, line);
        } else if (sel_str_eq_c(line, "DELETED")) {
            b->deleted++;
            sel_peers_take(stream, line.n + 2);
        } else {
            return sel_peers_fail("beanstalkd said to a consumer: %.*s", SEL_STR_ARG(line));
        }
    }
    return r < 0 ? r : 0;
}

static int run(struct beanstalk *b)
{
    int r = 0;
    while (r == 0 && b->deleted < b->options->count) {
        send_due(b);
        for (uint32_t i = 0; r == 0 && i < SEL_COUNT(b->streams); i++)
            r = sel_peers_pump(&b->streams[i]);
        uint64_t before = b->inserted + b->reserved + b->deleted;
        if (r == 0)
            r = take_inserted(b);
        if (r == 0)
            r = take_consumed(b);
        if (r == 0 && b->inserted + b->reserved + b->deleted == before)
            r = sel_peers_wait(b->streams, SEL_COUNT(b->streams));
    }
    return r;
}

int sel_peers_beanstalk(const struct sel_peers_options *options)
{
    struct beanstalk b = {.options = options};
    int head = snprintf(b.job, sizeof(b.job), "put 0 0 600 %u\r\n", options->record_bytes);
    if (head < 0 || (size_t)head + options->record_bytes + 2 > sizeof(b.job))
        return SEL_ERANGE;
    memset(b.job + head, 'a', options->record_bytes);
    b.job_size = (size_t)head + options->record_bytes + 2;
    memcpy(b.job + b.job_size - 2, "\r\n", 2);
    b.streams[CONSUMER].fd = -1;
    int r = sel_peers_connect(&b.streams[PRODUCER], options->port);
    if (r == 0)
        r = sel_peers_connect(&b.streams[CONSUMER], options->port);
    int64_t begin_ns = sel_peers_now_ns();
    if (r == 0)
        r = run(&b);
    if (r == 0)
        sel_peers_print_rate(options->count, begin_ns);
    sel_peers_close(&b.streams[PRODUCER]);
    sel_peers_close(&b.streams[CONSUMER]);
    return r;
}
