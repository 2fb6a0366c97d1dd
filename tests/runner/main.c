/* selinon-conformance - runs one topic of the reference corpus. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/str.h"
#include "tests/runner/runner.h"

/* A build may leave the file of this topic out. */
#pragma weak sel_topic_flows

struct topic {
    const char *name;
    sel_topic_fn *run;
    const char *about;
};

static const struct topic topics[] = {
    {"caches", sel_topic_caches, "sequences of add and get"},
    {"config", sel_topic_config, "configurations to accept or refuse"},
    {"flows", sel_topic_flows, "whole flows with scripted tasks"},
    {"inspect", sel_topic_inspect, "what `inspect` prints and dumps"},
    {"predicates", sel_topic_predicates, "leaf predicates, conditions, httpStatus"},
    {"strategies", sel_topic_strategies, "sampling strategies"},
};

enum { EXIT_PASSED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int usage(FILE *out)
{
    fputs("usage: selinon-conformance TOPIC DIR [--shuffle SEED] [--threads N]\n\n"
          "Runs the cases of TOPIC that lie below DIR. Prints `FAIL case: what differs` for each\n"
          "that differs and `N passed, N failed` at the end.\n\n"
          "  --shuffle SEED  completions in an order drawn from SEED (flows)\n"
          "  --threads N     that many threads (flows); 1 if not given\n\n"
          "topics:\n",
          out);
    for (size_t i = 0; i < SEL_COUNT(topics); i++)
        fprintf(out, "  %-11s %s\n", topics[i].name, topics[i].about);
    return out == stdout ? EXIT_PASSED : EXIT_USAGE;
}

static const struct topic *find_topic(const char *name)
{
    for (size_t i = 0; i < SEL_COUNT(topics); i++) {
        if (strcmp(topics[i].name, name) == 0)
            return &topics[i];
    }
    return NULL;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > max)
        return false;
    *ret = value;
    return true;
}

/* true: `options` is filled, the other arguments stand behind `optind`. */
static bool parse_options(int argc, char **argv, struct sel_runner_options *options, bool *ret_help)
{
    static const struct option known[] = {
        {"shuffle", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    uint64_t number;
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (c) {
        case 's':
            if (!parse_number(optarg, UINT64_MAX, &options->seed))
                return false;
            options->shuffle = true;
            break;
        case 't':
            if (!parse_number(optarg, 1024, &number) || number == 0)
                return false;
            options->threads = (uint32_t)number;
            break;
        case 'h':
            *ret_help = true;
            return true;
        default:
            return false;
        }
    }
    return argc - optind == 2;
}

int main(int argc, char **argv)
{
    struct sel_runner_options options = {.threads = 1};
    bool help = false;
    if (!parse_options(argc, argv, &options, &help))
        return usage(stderr);
    if (help)
        return usage(stdout);
    const struct topic *topic = find_topic(argv[optind]);
    if (!topic || !topic->run) {
        fprintf(stderr, "selinon-conformance: no topic '%s'\n\n", argv[optind]);
        return usage(stderr);
    }

    struct sel_runner_report report = {0};
    struct sel_error err = {0};
    int r = topic->run(argv[optind + 1], &options, &report, &err);
    if (r < 0) {
        char text[SEL_ERROR_TEXT_MAX + 512];
        fflush(stdout);
        fprintf(stderr, "selinon-conformance: %s\n", sel_error_format(&err, text, sizeof(text)));
    }
    printf("%" PRIu32 " passed, %" PRIu32 " failed\n", report.passed, report.failed);
    return r == 0 && report.failed == 0 && report.passed > 0 ? EXIT_PASSED : EXIT_FAILED;
}
