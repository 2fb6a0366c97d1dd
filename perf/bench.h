/* perf/bench.h - what the benchmarks share: metrics with targets, medians, a clock.
 *
 * A benchmark is a function in perf/bench_<what>.c, listed in the table of perf/main.c. It measures
 * and hands each number to sel_bench_report; `selinon-bench TOPIC` prints them. */
#ifndef SEL_PERF_BENCH_H
#define SEL_PERF_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"

enum sel_bench_target { SEL_BENCH_NO_TARGET, SEL_BENCH_AT_LEAST, SEL_BENCH_AT_MOST };

struct sel_bench_metric {
    const char *name; /* "switch_ratio"; static */
    double value;     /* NAN: could not be measured, `note` says why */
    const char *unit; /* "ns"; static */
    enum sel_bench_target target_kind;
    double target;
    const char *note; /* static, may be NULL */
};

struct sel_bench_run;

/* One line of the table of perf/main.c. */
struct sel_bench {
    const char *topic; /* the first word of the command */
    const char *name;
    const char *metrics; /* the names that it reports, separated by blanks; what --only finds */
    /* 0, or a negative code of core/error.h: the numbers could not be taken */
    int (*fn)(struct sel_bench_run *run);
};

void sel_bench_report(struct sel_bench_run *run, const struct sel_bench_metric *metric);
/* How often to measure: --runs, 5 by default. */
uint32_t sel_bench_runs(const struct sel_bench_run *run);

#define SEL_BENCH_RUNS_MAX 100

/* The median of `count` numbers (1 to SEL_BENCH_RUNS_MAX); sorts them. */
double sel_bench_median(double *values, uint32_t count);
/* One thing to measure: fn gives one number, or a negative code. */
struct sel_bench_probe {
    int (*fn)(void *arg, double *ret);
    void *arg;
    double values[SEL_BENCH_RUNS_MAX]; /* one a run */
    double median;
};
/* Measures each as often as the run asks for, in turns: what else the machine does meanwhile hits
 * them alike. */
int sel_bench_measure(struct sel_bench_run *run, struct sel_bench_probe *probes,
                      uint32_t count) SEL_WARN_UNUSED;
/* A probe of what another one, before it in a run, has seen besides: `arg` is the double. */
int sel_bench_take(void *arg, double *ret);
/* The median of a's value by b's, run for run; after sel_bench_measure of both together. */
double sel_bench_ratio(const struct sel_bench_run *run, const struct sel_bench_probe *a,
                       const struct sel_bench_probe *b);
int64_t sel_bench_now_ns(void); /* CLOCK_MONOTONIC */

/* ---- the benchmarks ---- */
int sel_bench_switch(struct sel_bench_run *run);
int sel_bench_sleep(struct sel_bench_run *run);
int sel_bench_files(struct sel_bench_run *run);
int sel_bench_engine(struct sel_bench_run *run);
int sel_bench_failures(struct sel_bench_run *run);
int sel_bench_compile(struct sel_bench_run *run);
int sel_bench_executor(struct sel_bench_run *run);
int sel_bench_wire(struct sel_bench_run *run);
int sel_bench_fabric_memory(struct sel_bench_run *run);
int sel_bench_fabric_latency(struct sel_bench_run *run);
int sel_bench_fabric_commit(struct sel_bench_run *run);
int sel_bench_fabric_interval(struct sel_bench_run *run);
int sel_bench_fabric_peers(struct sel_bench_run *run);
int sel_bench_fabric_processes(struct sel_bench_run *run);
int sel_bench_fabric_stranger(struct sel_bench_run *run);
int sel_bench_fabric_queued(struct sel_bench_run *run);
int sel_bench_fabric_restart(struct sel_bench_run *run);
int sel_bench_fabric_idle(struct sel_bench_run *run);
int sel_bench_fabric_allocations(struct sel_bench_run *run);
int sel_bench_broker(struct sel_bench_run *run);
int sel_bench_flows_memory(struct sel_bench_run *run);
int sel_bench_flows_commit(struct sel_bench_run *run);
int sel_bench_flows_lmdb(struct sel_bench_run *run);
int sel_bench_flows_latency(struct sel_bench_run *run);
int sel_bench_flows_scaling(struct sel_bench_run *run);
int sel_bench_flows_million(struct sel_bench_run *run);
int sel_bench_flows_takeover(struct sel_bench_run *run);
int sel_bench_flows_join(struct sel_bench_run *run);

struct sel_system;
/* Compiles two texts of YAML; says on standard error what is wrong with them. */
int sel_bench_compile_text(const char *nodes, const char *flows,
                           struct sel_system **ret) SEL_WARN_UNUSED;

#endif
