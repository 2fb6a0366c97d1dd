/* selinon-peers: parts and clients of other systems, to measure against. See peers.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "perf/peers/peers.h"

static const struct {
    const char *name;
    int (*fn)(const struct sel_peers_options *options);
    const char *help;
} commands[] = {
    {"zmq-router", sel_peers_zmq_router, "binds, prints its endpoint, passes messages on"},
    {"zmq-worker", sel_peers_zmq_worker, "answers each message with one of as many records"},
    {"zmq-producer", sel_peers_zmq_producer, "measures round trips by way of both"},
    {"nats", sel_peers_nats, "JetStream: acknowledged publish, consume with ack"},
    {"gearman-worker", sel_peers_gearman_worker, "does nothing, job by job"},
    {"gearman-client", sel_peers_gearman_client, "foreground jobs, pipelined"},
    {"beanstalk", sel_peers_beanstalk, "put, reserve, delete, pipelined"},
};

static int print_help(FILE *out, int status)
{
    fputs("usage: selinon-peers COMMAND [--endpoint E] [--port N] [--count N] [--window N]\n"
          "           [--batch N] [--record-bytes N] [--reply-bytes N] [--head-bytes N]\n\n"
          "perf/peers/peer.py starts servers and these:\n",
          out);
    for (size_t i = 0; i < SEL_COUNT(commands); i++)
        fprintf(out, "  %-15s %s\n", commands[i].name, commands[i].help);
    return status;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    *ret = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && *ret <= max;
}

static bool parse_option(const char *name, const char *text, struct sel_peers_options *options)
{
    uint64_t n = 0;
    if (strcmp(name, "--endpoint") == 0) {
        options->endpoint = text;
        return true;
    }
    if (!parse_number(text, UINT32_MAX, &n))
        return false;
    if (strcmp(name, "--count") == 0)
        options->count = n;
    else if (strcmp(name, "--port") == 0 && n <= UINT16_MAX)
        options->port = (uint16_t)n;
    else if (strcmp(name, "--window") == 0 && n > 0)
        options->window = (uint32_t)n;
    else if (strcmp(name, "--batch") == 0 && n > 0 && n <= 65536)
        options->batch = (uint32_t)n;
    else if (strcmp(name, "--record-bytes") == 0 && n <= 65536)
        options->record_bytes = (uint32_t)n;
    else if (strcmp(name, "--reply-bytes") == 0 && n <= 65536)
        options->reply_bytes = (uint32_t)n;
    else if (strcmp(name, "--head-bytes") == 0 && n <= 65536)
        options->head_bytes = (uint32_t)n;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct sel_peers_options options = {.count = 100000,
                                        .window = 1024,
                                        .batch = 1,
                                        .record_bytes = 64,
                                        .reply_bytes = 8,
                                        .endpoint = "tcp://127.0.0.1:*"};
    if (argc < 2 || strcmp(argv[1], "--help") == 0)
        return print_help(argc < 2 ? stderr : stdout, argc < 2 ? 2 : 0);
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc || !parse_option(argv[i], argv[i + 1], &options)) {
            fprintf(stderr, "selinon-peers: %s: unknown, or its value does not fit\n", argv[i]);
            return 2;
        }
    }
    for (size_t i = 0; i < SEL_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        int r = commands[i].fn(&options);
        if (r < 0)
            fprintf(stderr, "selinon-peers %s: %s\n", argv[1], sel_error_text(r));
        return r < 0;
    }
    return print_help(stderr, 2);
}
