#include <inttypes.h>
#include <stdio.h>

#include "perf/load.h"

static double ms(const struct sel_histogram *h, double q)
{
    return (double)sel_histogram_quantile(h, q) / 1000;
}

void sel_load_report_head(const struct sel_load_run *run)
{
    (void)run;
    printf("%-12s %-10s %10s %10s %10s %6s %6s %9s %9s %9s %9s %9s\n", "phase", "kind", "due",
           "finished", "per s", "failed", "lost", "p50 ms", "p99 ms", "p99.9 ms", "max ms",
           "late ms");
}

/* Results a second: of a phase that was too much, from its beginning until its last task ended. */
static double rate_of(const struct sel_load_run *run, uint32_t phase,
                      const struct sel_load_tally *tally)
{
    int64_t begin_us = 0;
    for (uint32_t i = 0; i < phase; i++)
        begin_us += run->plan->phases[i].duration_us;
    int64_t took_us = run->plan->phases[phase].duration_us;
    if (tally->last_us - begin_us > took_us)
        took_us = tally->last_us - begin_us;
    return (double)tally->finished * 1e6 / (double)took_us;
}

static void print_row(const struct sel_load_phase *phase, const struct sel_load_kind *kind,
                      const struct sel_load_tally *tally, double rate)
{
    const struct sel_histogram *h = &tally->latency_us;
    printf("%-12s %-10s %10" PRIu64 " %10" PRIu64 " %10.0f %6" PRIu64 " %6" PRIu64
           " %9.2f %9.2f %9.2f %9.2f %9.2f\n",
           phase->name, kind->name, tally->due, tally->finished, rate,
           tally->failed + tally->refused, tally->lost, ms(h, 0.5), ms(h, 0.99), ms(h, 0.999),
           (double)h->max / 1000, ms(&tally->late_us, 0.99));
}

void sel_load_report_phase(struct sel_load_run *run, uint32_t phase)
{
    for (uint32_t k = 0; k < run->plan->kind_count; k++) {
        const struct sel_load_tally *tally = &run->tallies[phase * run->plan->kind_count + k];
        if (tally->due > 0)
            print_row(&run->plan->phases[phase], &run->plan->kinds[k], tally,
                      rate_of(run, phase, tally));
    }
    (void)fflush(stdout); /* a soak is watched */
}

static void print_json_row(const struct sel_load_phase *phase, const struct sel_load_kind *kind,
                           const struct sel_load_tally *tally, double rate)
{
    const struct sel_histogram *h = &tally->latency_us;
    printf("{\"phase\": \"%s\", \"kind\": \"%s\", \"queue\": \"%s\", \"rate\": %.10g, "
           "\"seconds\": %.6f, \"due\": %" PRIu64 ", \"submitted\": %" PRIu64
           ", \"finished\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"lost\": %" PRIu64 ", \"finished_per_s\": %.1f, ",
           phase->name, kind->name, kind->queue, phase->rate, (double)phase->duration_us / 1e6,
           tally->due, tally->submitted, tally->finished, tally->failed, tally->refused,
           tally->lost, rate);
    printf("\"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, "
           "\"max_ms\": %.3f, \"late_p99_ms\": %.3f}",
           ms(h, 0.5), ms(h, 0.9), ms(h, 0.99), ms(h, 0.999), (double)h->max / 1000,
           ms(&tally->late_us, 0.99));
}

void sel_load_report_json(const struct sel_load_run *run)
{
    const struct sel_load_plan *plan = run->plan;
    bool is_first = true;
    printf("{\"scenario\": \"%s\", \"producers\": %u, \"seconds\": %.3f, \"rows\": [",
           plan->scenario, run->options->producers, (double)run->took_us / 1e6);
    for (uint32_t p = 0; p < plan->phase_count; p++) {
        for (uint32_t k = 0; k < plan->kind_count; k++) {
            const struct sel_load_tally *tally = &run->tallies[p * plan->kind_count + k];
            if (tally->due == 0)
                continue;
            (void)fputs(is_first ? "\n" : ",\n", stdout);
            print_json_row(&plan->phases[p], &plan->kinds[k], tally, rate_of(run, p, tally));
            is_first = false;
        }
    }
    puts("]}");
}
