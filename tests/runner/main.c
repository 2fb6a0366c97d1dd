/* selinon-conformance - runs one topic of the reference corpus. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/str.h"
#include "tests/runner/runner.h"

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
    fputs("usage: selinon-conformance TOPIC DIR [OPTION...]\n\n"
          "Runs the cases of TOPIC that lie below DIR. Prints `FAIL case: what differs` for each\n"
          "that differs and `N passed, N failed` at the end.\n\n"
          "Of flows:\n"
          "  --only PATTERN  of the cases only these, e.g. 'fr-*'\n"
          "  --part N        of the cases one in N\n"
          "  --threads N     that many threads; 1 if not given\n"
          "  --shuffle SEED  completions in an order drawn from SEED; not on a cluster\n"
          "  --runtime engine|cluster\n"
          "                  in this process in virtual time, or by a broker and workers that are\n"
          "                  started for each case; engine if not given\n"
          "  --workers N     cluster: that many workers; 2 if not given\n"
          "  --speed N       cluster: delays pass so many times as fast; 100 if not given\n"
          "  --kill SEED     cluster: kill processes at moments drawn from SEED and start them "
          "again\n"
          "  --keep          cluster: leave logs and files of cases that failed\n\n"
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

static bool parse_count(const char *text, uint32_t max, uint32_t *ret)
{
    uint64_t number;
    if (!parse_number(text, max, &number) || number == 0)
        return false;
    *ret = (uint32_t)number;
    return true;
}

static bool parse_runtime(const char *text, bool *ret_is_cluster)
{
    *ret_is_cluster = strcmp(text, "cluster") == 0;
    return *ret_is_cluster || strcmp(text, "engine") == 0;
}

static bool parse_option(int letter, struct sel_runner_options *options)
{
    switch (letter) {
    case 's':
        options->shuffle = true;
        return parse_number(optarg, UINT64_MAX, &options->seed);
    case 't':
        return parse_count(optarg, 1024, &options->threads);
    case 'o':
        options->only = optarg;
        return true;
    case 'p':
        return parse_count(optarg, 1000, &options->part);
    case 'r':
        return parse_runtime(optarg, &options->is_cluster);
    case 'w':
        return parse_count(optarg, SEL_RUNNER_WORKERS_MAX, &options->workers);
    case 'f':
        return parse_count(optarg, 1000000, &options->speed);
    case 'k':
        options->keep = true;
        return true;
    case 'd':
        options->kill = true;
        return parse_number(optarg, UINT64_MAX, &options->seed);
    default:
        return false;
    }
}

/* true: `options` is filled, the other arguments stand behind `optind`. */
static bool parse_options(int argc, char **argv, struct sel_runner_options *options, bool *ret_help)
{
    static const struct option known[] = {
        {"shuffle", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"only", required_argument, NULL, 'o'},
        {"part", required_argument, NULL, 'p'},
        {"runtime", required_argument, NULL, 'r'},
        {"workers", required_argument, NULL, 'w'},
        {"speed", required_argument, NULL, 'f'},
        {"kill", required_argument, NULL, 'd'},
        {"keep", no_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        *ret_help = c == 'h';
        if (*ret_help || !parse_option(c, options))
            return *ret_help;
    }
    return argc - optind == 2 && !(options->is_cluster ? options->shuffle : options->kill);
}

int main(int argc, char **argv)
{
    struct sel_runner_options options = {.threads = 1, .workers = 2, .speed = 100, .part = 1};
    bool help = false;
    if (!parse_options(argc, argv, &options, &help))
        return usage(stderr);
    if (help)
        return usage(stdout);
    const struct topic *topic = find_topic(argv[optind]);
    if (!topic) {
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
