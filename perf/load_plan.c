#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "perf/load.h"

#define MIXED_QUEUES 4

static struct sel_load_kind *add_kind(struct sel_load_plan *plan,
                                      const struct sel_load_options *options, const char *name)
{
    SEL_ASSERT(plan->kind_count < SEL_LOAD_KINDS_MAX);
    struct sel_load_kind *kind = &plan->kinds[plan->kind_count++];
    *kind = (struct sel_load_kind){.task = options->task,
                                   .priority = 128,
                                   .weight = 1,
                                   .bytes_min = options->bytes,
                                   .bytes_max = options->bytes};
    (void)snprintf(kind->name, sizeof(kind->name), "%s", name);
    (void)snprintf(kind->queue, sizeof(kind->queue), "%s", options->queue);
    return kind;
}

static struct sel_load_phase *add_phase(struct sel_load_plan *plan, double rate,
                                        int64_t duration_us)
{
    SEL_ASSERT(plan->phase_count < SEL_LOAD_PHASES_MAX);
    struct sel_load_phase *phase = &plan->phases[plan->phase_count++];
    *phase = (struct sel_load_phase){.rate = rate, .duration_us = duration_us, .kind = -1};
    (void)snprintf(phase->name, sizeof(phase->name), "%.0f/s", rate);
    return phase;
}

static int steady(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    (void)add_kind(plan, options, "noop");
    (void)add_phase(plan, options->rate, options->duration_us);
    return 0;
}

/* Rates in equal ratios: where the latencies rise is where the cluster ends. */
static int ramp(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    uint32_t steps = options->steps;
    if (options->rate_max < options->rate)
        return -1;
    (void)add_kind(plan, options, "noop");
    for (uint32_t i = 0; i < steps; i++) {
        double part = steps > 1 ? (double)i / (double)(steps - 1) : 0;
        double rate = options->rate * pow(options->rate_max / options->rate, part);
        (void)add_phase(plan, rate, options->duration_us / steps);
    }
    return 0;
}

/* The same for long: rows that change from one to the next show what grows. */
static int soak(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    int64_t count = (options->duration_us + options->report_us - 1) / options->report_us;
    (void)add_kind(plan, options, "noop");
    if (count > SEL_LOAD_PHASES_MAX)
        return -1;
    for (int64_t i = 0; i < count; i++) {
        int64_t left_us = options->duration_us - i * options->report_us;
        int64_t duration_us = left_us < options->report_us ? left_us : options->report_us;
        struct sel_load_phase *phase = add_phase(plan, options->rate, duration_us);
        (void)snprintf(phase->name, sizeof(phase->name), "%lld s",
                       (long long)((i * options->report_us + duration_us) / 1000000));
    }
    return 0;
}

/* Each size at a rate that makes it as many bytes a second as the largest at a hundredth of the
 * rate, but not more tasks than the rate. */
static int payloads(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    static const struct {
        uint32_t bytes;
        const char *name;
    } sizes[] = {{0, "0 B"},           {64, "64 B"},           {1 << 10, "1 KiB"},
                 {16 << 10, "16 KiB"}, {256 << 10, "256 KiB"}, {SEL_LOAD_BYTES_MAX, "1 MiB"}};
    double bytes_per_s = options->rate / 100 * SEL_LOAD_BYTES_MAX;
    for (uint32_t i = 0; i < SEL_COUNT(sizes); i++) {
        struct sel_load_kind *kind = add_kind(plan, options, sizes[i].name);
        kind->bytes_min = kind->bytes_max = sizes[i].bytes;
        double rate = fmin(options->rate, bytes_per_s / fmax(sizes[i].bytes, 1));
        struct sel_load_phase *phase =
            add_phase(plan, rate, options->duration_us / (int64_t)SEL_COUNT(sizes));
        phase->kind = (int32_t)i;
        (void)snprintf(phase->name, sizeof(phase->name), "%.0f/s", rate);
    }
    return 0;
}

/* Most tasks are short, one in twenty is slow: do the short ones wait behind them? */
static int slow(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    struct sel_load_kind *kind = add_kind(plan, options, "short");
    kind->weight = 0.95;
    kind = add_kind(plan, options, "slow");
    kind->weight = 0.05;
    kind->task = "Sleep";
    kind->work_us_min = options->work_us_max / 10;
    kind->work_us_max = options->work_us_max;
    (void)add_phase(plan, options->rate, options->duration_us);
    return 0;
}

/* Four queues, each with urgent, normal and idle tasks of sizes that differ. */
static int mixed(struct sel_load_plan *plan, const struct sel_load_options *options)
{
    static const struct {
        const char *name;
        uint8_t priority;
        double weight;
    } classes[] = {{"urgent", 200, 0.1}, {"normal", 128, 0.6}, {"idle", 10, 0.3}};
    for (uint32_t q = 0; q < MIXED_QUEUES; q++) {
        for (uint32_t c = 0; c < SEL_COUNT(classes); c++) {
            struct sel_load_kind *kind = add_kind(plan, options, classes[c].name);
            (void)snprintf(kind->queue, sizeof(kind->queue), "%.56s-%u", options->queue, q + 1);
            (void)snprintf(kind->name, sizeof(kind->name), "%u %s", q + 1, classes[c].name);
            kind->priority = classes[c].priority;
            kind->weight = classes[c].weight;
            kind->bytes_min = 0;
            kind->bytes_max = 4096;
        }
    }
    (void)add_phase(plan, options->rate, options->duration_us);
    return 0;
}

static const struct {
    const char *name, *help;
    int (*make)(struct sel_load_plan *plan, const struct sel_load_options *options);
} scenarios[] = {
    {"steady", "one rate (--rate) for --time", steady},
    {"ramp", "from --rate to --rate-max in --steps, over --time", ramp},
    {"soak", "as steady, with a row every --report", soak},
    {"payloads", "arguments from nothing to 1 MiB, one size after the other", payloads},
    {"slow", "one task in twenty sleeps up to --work-max", slow},
    {"mixed", "queues QUEUE-1 to QUEUE-4, three priorities each, up to 4 KiB", mixed},
};

void sel_load_plan_help(void)
{
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++)
        printf("  %-10s %s\n", scenarios[i].name, scenarios[i].help);
}

int sel_load_plan_make(const struct sel_load_options *options, struct sel_load_plan *ret)
{
    for (size_t i = 0; i < SEL_COUNT(scenarios); i++) {
        if (strcmp(options->scenario, scenarios[i].name) != 0)
            continue;
        *ret = (struct sel_load_plan){.scenario = scenarios[i].name};
        if (scenarios[i].make(ret, options) == 0)
            return 0;
        fprintf(stderr,
                "selinon-load: %s: --rate-max is below --rate, or there would be more than %d "
                "rows\n",
                options->scenario, SEL_LOAD_PHASES_MAX);
        return SEL_EREQUEST;
    }
    fprintf(stderr, "selinon-load: no scenario is called '%s'\n", options->scenario);
    return SEL_EREQUEST;
}
