/* NATS JetStream: acknowledged publish into a file stream and consume with ack, at the same time.
 *
 * One connection publishes with `window` messages not acknowledged (the official clients'
 * asynchronous publish), one gets them through a push consumer and acknowledges each. With a
 * `batch` above 1 that many are published as an atomic batch, for which a stream that syncs always
 * syncs once (nats-server 2.12 and newer). What a
 * consumer did with a message never reaches the publisher, so this is less than a task queue. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/error.h"
#include "perf/peers/peers.h"

#define BATCH_MAX 1000 /* of nats-server */
#define WORDS_MAX 6
#define CONNECT "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":%s}\r\n"

enum { PUBLISHER, CONSUMER };

struct nats {
    const struct sel_peers_options *options;
    struct sel_peers_stream streams[2];
    char payload[1024];
    uint64_t published, acked, consumed;
    bool has_pong;
};

struct message {
    struct sel_str reply; /* where its answer is to go; may be empty */
    struct sel_str payload;
};

/* "MSG subject sid [reply] size" or "HMSG subject sid [reply] size-of-headers size", then the
 * bytes. 1; 0: not all there. */
static int parse_message(struct sel_str in, struct sel_str line, struct message *ret, size_t *size)
{
    struct sel_str words[WORDS_MAX];
    uint32_t count = 0, others = line.p[0] == 'H' ? 5 : 4; /* words without a reply */
    for (const char *p = line.p, *end = line.p + line.n; p < end && count < WORDS_MAX;) {
        const char *blank = memchr(p, ' ', (size_t)(end - p));
        words[count++] = (struct sel_str){p, (size_t)((blank ? blank : end) - p)};
        p = blank ? blank + 1 : end;
    }
    if (count < others)
        return sel_peers_fail("nats-server sent: %.*s", SEL_STR_ARG(line));
    size_t bytes = strtoul(words[count - 1].p, NULL, 10); /* ends at the \r */
    *size = line.n + 2 + bytes + 2;
    if (bytes > SEL_PEERS_IN_MAX / 2)
        return sel_peers_fail("nats-server sent a message of %zu bytes", bytes);
    if (in.n < *size)
        return 0;
    ret->reply = count > others ? words[3] : SEL_STR("");
    ret->payload = (struct sel_str){in.p + line.n + 2, bytes};
    return 1;
}

/* The next message; what else the server says is answered. 1; 0: there is none. */
static int next_message(struct nats *nats, int which, struct message *ret)
{
    struct sel_peers_stream *stream = &nats->streams[which];
    struct sel_str in, line;
    while (in = sel_peers_in(stream), sel_peers_line(in, &line)) {
        size_t size = line.n + 2;
        int r = 2; /* no message */
        if (line.n >= 5 && (memcmp(line.p, "MSG ", 4) == 0 || memcmp(line.p, "HMSG ", 5) == 0))
            r = parse_message(in, line, ret, &size);
        else if (sel_str_eq_c(line, "PING"))
            sel_buf_put_c(&stream->out, "PONG\r\n");
        else if (sel_str_eq_c(line, "PONG"))
            nats->has_pong = true;
        else if (line.n >= 4 && memcmp(line.p, "-ERR", 4) == 0)
            r = sel_peers_fail("nats-server said: %.*s", SEL_STR_ARG(line));
        if (r <= 0)
            return r;
        sel_peers_take(stream, size);
        if (r == 1)
            return 1;
    }
    return 0;
}

/* ---- making the stream and the consumer ---- */

static bool has_text(struct sel_str in, const char *text)
{
    return memmem(in.p, in.n, text, strlen(text)) != NULL;
}

/* Asks the JetStream API and waits for the answer, which the next call overwrites. */
static int request(struct nats *nats, int which, const char *subject, const char *json,
                   struct message *ret)
{
    struct sel_peers_stream *stream = &nats->streams[which];
    sel_buf_printf(&stream->out, "PUB $JS.API.%s inbox.%d %zu\r\n%s\r\n", subject, which,
                   strlen(json), json);
    for (;;) {
        int r = sel_peers_pump(stream);
        if (r == 0)
            r = next_message(nats, which, ret);
        if (r < 0)
            return r;
        if (r == 1)
            break;
        r = sel_peers_wait(stream, 1);
        if (r < 0)
            return r;
    }
    if (has_text(ret->payload, "\"error\""))
        return sel_peers_fail("%s: %.*s", subject, SEL_STR_ARG(ret->payload));
    return 0;
}

#define STREAM                                                                                     \
    "\"name\":\"BENCH\",\"subjects\":[\"task\"],\"storage\":\"file\",\"retention\":\"limits\""

static int set_up(struct nats *nats)
{
    struct message answer;
    for (int i = 0; i < 2; i++) {
        int r = sel_peers_connect(&nats->streams[i], nats->options->port);
        if (r < 0)
            return r;
        sel_buf_printf(&nats->streams[i].out, CONNECT "SUB inbox.%d 1\r\n",
                       nats->options->batch > 1 ? "true" : "false", i);
    }
    int r = request(
        nats, PUBLISHER, "STREAM.CREATE.BENCH",
        nats->options->batch > 1 ? "{" STREAM ",\"allow_atomic\":true}" : "{" STREAM "}", &answer);
    if (r == 0)
        r = request(nats, CONSUMER, "CONSUMER.DURABLE.CREATE.BENCH.bench",
                    "{\"stream_name\":\"BENCH\",\"config\":{\"durable_name\":\"bench\","
                    "\"deliver_subject\":\"todo\",\"ack_policy\":\"explicit\","
                    "\"deliver_policy\":\"all\",\"max_ack_pending\":65536}}",
                    &answer);
    if (r == 0)
        sel_buf_put_c(&nats->streams[CONSUMER].out, "SUB todo 2\r\n");
    return r;
}

/* ---- the run ---- */

/* Message number `i` from 0. Of a batch only the last, which commits it, is answered. */
static void publish(struct nats *nats, uint64_t i)
{
    const struct sel_peers_options *options = nats->options;
    struct sel_buf *out = &nats->streams[PUBLISHER].out;
    uint64_t at = i % options->batch + 1;
    bool is_last = at == options->batch || i + 1 == options->count;
    char headers[160];
    int n = 0;
    if (options->batch > 1)
        n = snprintf(headers, sizeof(headers),
                     "NATS/1.0\r\nNats-Batch-Id: %" PRIu64 "\r\nNats-Batch-Sequence: %" PRIu64
                     "\r\n%s\r\n",
                     i / options->batch, at, is_last ? "Nats-Batch-Commit: 1\r\n" : "");
    if (n == 0)
        sel_buf_printf(out, "PUB task inbox.%d %u\r\n", PUBLISHER, options->record_bytes);
    else
        sel_buf_printf(out, "HPUB task %s %d %u\r\n", is_last ? "inbox.0" : "", n,
                       (unsigned)n + options->record_bytes);
    sel_buf_put(out, headers, (size_t)n);
    sel_buf_put(out, nats->payload, options->record_bytes);
    sel_buf_put_c(out, "\r\n");
}

/* The number of messages that one answer stands for. */
static uint64_t acked_by_one(const struct nats *nats)
{
    uint64_t left = nats->options->count - nats->acked;
    return left < nats->options->batch ? left : nats->options->batch;
}

static int take_acks(struct nats *nats)
{
    struct message message;
    int r;
    while ((r = next_message(nats, PUBLISHER, &message)) > 0) {
        if (!has_text(message.payload, "\"seq\""))
            return sel_peers_fail("not stored: %.*s", SEL_STR_ARG(message.payload));
        nats->acked += acked_by_one(nats);
    }
    return r;
}

static int consume(struct nats *nats)
{
    struct sel_buf *out = &nats->streams[CONSUMER].out;
    struct message message;
    int r;
    while ((r = next_message(nats, CONSUMER, &message)) > 0) {
        sel_buf_put_c(out, "PUB ");
        sel_buf_put_str(out, message.reply);
        sel_buf_put_c(out, " 0\r\n\r\n");
        nats->consumed++;
    }
    return r;
}

static int run(struct nats *nats)
{
    const struct sel_peers_options *options = nats->options;
    bool asked = false;
    int r = 0;
    nats->has_pong = false;
    while (r == 0 && !(nats->has_pong && asked && nats->acked >= options->count)) {
        while (nats->published < options->count && nats->published - nats->acked < options->window)
            publish(nats, nats->published++);
        if (nats->consumed >= options->count && !asked) {
            sel_buf_put_c(&nats->streams[CONSUMER].out, "PING\r\n"); /* behind the last ack */
            asked = true;
        }
        for (uint32_t i = 0; r == 0 && i < SEL_COUNT(nats->streams); i++)
            r = sel_peers_pump(&nats->streams[i]);
        uint64_t before = nats->acked + nats->consumed;
        if (r == 0)
            r = take_acks(nats);
        if (r == 0)
            r = consume(nats);
        if (r == 0 && nats->acked + nats->consumed == before && !nats->has_pong)
            r = sel_peers_wait(nats->streams, SEL_COUNT(nats->streams));
    }
    return r;
}

static int check_all_acked(struct nats *nats)
{
    struct message answer;
    for (int i = 0; i < 100; i++) { /* acks are taken beside the connections */
        int r = request(nats, CONSUMER, "CONSUMER.INFO.BENCH.bench", "", &answer);
        if (r < 0)
            return r;
        if (has_text(answer.payload, "\"num_ack_pending\":0,"))
            return 0;
    }
    return sel_peers_fail("acks are missing: %.*s", SEL_STR_ARG(answer.payload));
}

int sel_peers_nats(const struct sel_peers_options *options)
{
    struct nats nats = {.options = options, .streams = {{.fd = -1}, {.fd = -1}}};
    if (options->record_bytes > sizeof(nats.payload) || options->batch > BATCH_MAX)
        return SEL_ERANGE;
    memset(nats.payload, 'a', options->record_bytes);
    int r = set_up(&nats);
    int64_t begin_ns = sel_peers_now_ns();
    if (r == 0)
        r = run(&nats);
    int64_t took_ns = sel_peers_now_ns() - begin_ns;
    if (r == 0)
        r = check_all_acked(&nats);
    if (r == 0)
        sel_peers_print_rate(options->count, sel_peers_now_ns() - took_ns);
    sel_peers_close(&nats.streams[PUBLISHER]);
    sel_peers_close(&nats.streams[CONSUMER]);
    return r;
}
