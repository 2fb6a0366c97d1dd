/* selinon-load: puts load on a cluster and says how long its tasks took. See load.h. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/load.h"

#define BROKERS_MAX 16
#define BROKER "tcp://127.0.0.1:5711"

static const struct option names[] = {
    {"broker", required_argument, NULL, 'b'},
    {"queue", required_argument, NULL, 'Q'},
    {"task", required_argument, NULL, 'n'},
    {"rate", required_argument, NULL, 'r'},
    {"rate-max", required_argument, NULL, 'R'},
    {"steps", required_argument, NULL, 's'},
    {"time", required_argument, NULL, 't'},
    {"report", required_argument, NULL, 'e'},
    {"drain", required_argument, NULL, 'd'},
    {"work-max", required_argument, NULL, 'w'},
    {"producers", required_argument, NULL, 'p'},
    {"bytes", required_argument, NULL, 'B'},
    {"level", required_argument, NULL, 'l'},
    {"even", no_argument, NULL, 'E'},
    {"seed", required_argument, NULL, 'S'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void print_help(void)
{
    puts("usage: selinon-load SCENARIO [options]\n\n"
         "Submits tasks at a rate that does not depend on the cluster, and prints how long they\n"
         "took from when they were due to their results.\n\n"
         "scenarios:");
    sel_load_plan_help();
    puts("\noptions:\n"
         "  --broker ENDPOINT  may be given several times (" BROKER ")\n"
         "  --queue NAME       (bench)\n"
         "  --task NAME        of tasks that do nothing (Noop); slow ones are called Sleep\n"
         "  --rate N           tasks a second (1000)\n"
         "  --rate-max N       ramp: to so many (100000)\n"
         "  --steps N          ramp: in so many steps (10)\n"
         "  --time S           seconds of load (10)\n"
         "  --report S         soak: a row every so many seconds (10)\n"
         "  --drain S          seconds to wait for what is under way at the end (30)\n"
         "  --producers N      sessions; 10,000 need as many descriptors (1)\n"
         "  --bytes N          of arguments, up to 1 MiB (64)\n"
         "  --work-max MS      slow: the longest task (1000)\n"
         "  --level LEVEL      memory, interval, commit (the broker's default)\n"
         "  --even             equal gaps between tasks instead of random ones (Poisson)\n"
         "  --seed N           of all chance (1)\n"
         "  --json             one object instead of the table\n\n"
         "Ends with 1 if a task failed, was refused or is lost.");
}

static int bad_value(int option, const char *text)
{
    const char *name = "?";
    for (const struct option *o = names; o->name; o++)
        if (o->val == option)
            name = o->name;
    fprintf(stderr, "selinon-load: --%s: '%s' does not fit\n", name, text);
    return SEL_EREQUEST;
}

static bool parse_number(const char *text, double min, double max, double *ret)
{
    char *end;
    *ret = strtod(text, &end);
    return end != text && *end == '\0' && *ret >= min && *ret <= max; /* no NaN is */
}

static bool parse_level(const char *text, uint8_t *ret)
{
    static const char *const levels[] = {"default", "memory", "interval", "commit"};
    for (uint8_t i = 0; i < SEL_COUNT(levels); i++) {
        if (strcmp(text, levels[i]) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static bool set_number(struct sel_load_options *options, int option, double n)
{
    switch (option) {
    case 'r':
        options->rate = n;
        return n > 0;
    case 'R':
        options->rate_max = n;
        return n > 0;
    case 's':
        options->steps = (uint32_t)n;
        return n >= 1 && n <= SEL_LOAD_PHASES_MAX;
    case 't':
        options->duration_us = (int64_t)(n * 1e6);
        return n > 0;
    case 'e':
        options->report_us = (int64_t)(n * 1e6);
        return n > 0.01;
    case 'd':
        options->drain_us = (int64_t)(n * 1e6);
        return true;
    case 'w':
        options->work_us_max = (int64_t)(n * 1e3);
        return n > 0;
    case 'p':
        options->producers = (uint32_t)n;
        return n >= 1 && n <= 100000;
    case 'B':
        options->bytes = (uint32_t)n;
        return n <= SEL_LOAD_BYTES_MAX;
    default:
        options->seed = (uint64_t)n;
        return true;
    }
}

static int set_option(struct sel_load_options *options, const char **brokers, int option)
{
    double n = 0;
    switch (option) {
    case 'b':
        if (options->broker_count == BROKERS_MAX)
            return bad_value(option, optarg);
        brokers[options->broker_count++] = optarg;
        return 0;
    case 'Q':
        options->queue = optarg;
        return 0;
    case 'n':
        options->task = optarg;
        return 0;
    case 'l':
        return parse_level(optarg, &options->level) ? 0 : bad_value(option, optarg);
    case 'E':
        options->arrivals = SEL_LOAD_EVEN;
        return 0;
    case 'j':
        options->is_json = true;
        return 0;
    case '?':
        return SEL_EREQUEST; /* getopt has said it */
    default:
        if (!parse_number(optarg, 0, 1e9, &n) || !set_number(options, option, n))
            return bad_value(option, optarg);
        return 0;
    }
}

static void report(struct sel_load_run *run, uint32_t phase)
{
    if (!run->options->is_json)
        sel_load_report_phase(run, phase);
}

static bool is_clean(const struct sel_load_run *run)
{
    uint64_t bad = 0;
    for (uint32_t i = 0; i < run->plan->phase_count * run->plan->kind_count; i++)
        bad += run->tallies[i].failed + run->tallies[i].refused + run->tallies[i].lost;
    return bad == 0;
}

static int put_by_as_many_as_needed(struct sel_load_run *run)
{
    if (sel_load_processes(run->options->producers) == 1)
        return sel_load_run(run, report);
    int r = sel_load_run_split(run);
    for (uint32_t i = 0; r == 0 && i < run->plan->phase_count; i++)
        report(run, i);
    return r;
}

static int put_load(const struct sel_load_options *options)
{
    struct sel_load_plan *plan = SEL_NEW(struct sel_load_plan);
    struct sel_load_run run = {.options = options, .plan = plan};
    int status = 1;
    if (!plan || sel_load_plan_make(options, plan) < 0) {
        (void)sel_mem_free(plan);
        return 2;
    }
    run.tallies =
        sel_mem_zalloc((size_t)plan->phase_count * plan->kind_count * sizeof(*run.tallies));
    if (!options->is_json)
        sel_load_report_head(&run);
    if (run.tallies && put_by_as_many_as_needed(&run) == 0) {
        if (options->is_json)
            sel_load_report_json(&run);
        status = is_clean(&run) ? 0 : 1;
    }
    (void)sel_mem_free(run.tallies);
    (void)sel_mem_free(plan);
    return status;
}

int main(int argc, char **argv)
{
    static const char *brokers[BROKERS_MAX] = {BROKER};
    struct sel_load_options options = {.brokers = brokers,
                                       .queue = "bench",
                                       .task = "Noop",
                                       .rate = 1000,
                                       .rate_max = 100000,
                                       .duration_us = 10000000,
                                       .report_us = 10000000,
                                       .drain_us = 30000000,
                                       .work_us_max = 1000000,
                                       .steps = 10,
                                       .producers = 1,
                                       .bytes = 64,
                                       .seed = 1};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) >= 0;) {
        if (option == 'h') {
            print_help();
            return 0;
        }
        if (set_option(&options, brokers, option) < 0)
            return 2;
    }
    if (optind + 1 != argc) {
        fputs("selinon-load: which scenario? `selinon-load --help` lists them\n", stderr);
        return 2;
    }
    options.scenario = argv[optind];
    options.broker_count = options.broker_count ? options.broker_count : 1;
    return put_load(&options);
}
