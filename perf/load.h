/* perf/load.h - selinon-load: tasks at a given rate, whatever the cluster does.
 *
 * Open loop: when each task is to be submitted is drawn beforehand from the rate, and its latency
 * counts from then to its result, so that a cluster that stands still is seen in the latencies of
 * all tasks that should have been submitted meanwhile (no coordinated omission). A task that cannot
 * be submitted in time, because there is no credit, waits its turn; how late it was is reported,
 * too.
 *
 *   load_main.c    the command line
 *   load_plan.c    scenarios: which kinds of tasks in which phases
 *   load_run.c     the loop
 *   load_split.c   more producers than a process has descriptors for
 *   load_client.c  one producer, by way of libselinon
 *   load_many.c    thousands of them in one thread, by way of client/producer.h
 *   load_report.c  tables and JSON */
#ifndef SEL_PERF_LOAD_H
#define SEL_PERF_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/histogram.h"
#include "core/prng.h"
#include "core/str.h"

#define SEL_LOAD_KINDS_MAX 16
#define SEL_LOAD_PHASES_MAX 512
#define SEL_LOAD_BYTES_MAX (UINT32_C(1) << 20)

/* One kind of task. */
struct sel_load_kind {
    char name[32];
    char queue[64];
    const char *task;
    uint8_t priority;                 /* larger first, 128 is neutral */
    double weight;                    /* its share of all tasks */
    uint32_t bytes_min, bytes_max;    /* of the arguments */
    int64_t work_us_min, work_us_max; /* how long a task sleeps; 0: a no-op */
};

/* A piece of time with a row of its own in the report. */
struct sel_load_phase {
    char name[32];
    double rate; /* tasks per second, all kinds together */
    int64_t duration_us;
    int32_t kind; /* only this one; -1: all, by weight */
};

enum sel_load_arrivals { SEL_LOAD_POISSON, SEL_LOAD_EVEN };

struct sel_load_plan {
    const char *scenario;
    struct sel_load_kind kinds[SEL_LOAD_KINDS_MAX];
    uint32_t kind_count;
    struct sel_load_phase phases[SEL_LOAD_PHASES_MAX];
    uint32_t phase_count;
};

struct sel_load_options {
    const char *scenario;
    const char *const *brokers;
    uint32_t broker_count;
    const char *queue, *task;
    double rate, rate_max;
    int64_t duration_us, report_us, drain_us;
    int64_t work_us_max; /* scenario `slow` */
    uint32_t steps, producers, bytes;
    uint8_t level; /* 0: the broker's default */
    enum sel_load_arrivals arrivals;
    uint64_t seed;
    bool is_json;
};

/* 0, or SEL_EREQUEST after a line on standard error. */
int sel_load_plan_make(const struct sel_load_options *options,
                       struct sel_load_plan *ret) SEL_WARN_UNUSED;
/* The scenarios and what they do, for --help. */
void sel_load_plan_help(void);

/* What became of the tasks of one kind that were due in one phase. */
struct sel_load_tally {
    uint64_t due, submitted, finished, failed, refused, lost;
    int64_t last_us;                 /* when the last one ended, since the beginning of the load */
    struct sel_histogram latency_us; /* due to result */
    struct sel_histogram late_us;    /* due to submit */
};

struct sel_load_run {
    const struct sel_load_options *options;
    const struct sel_load_plan *plan;
    struct sel_load_tally *tallies; /* of phase p and kind k at p * kind_count + k */
    int64_t took_us;
};

/* Connects, submits, waits for what is under way. `ended` is called for each phase when all of its
 * tasks have ended, in order. 0, or < 0 after a line on standard error. */
int sel_load_run(struct sel_load_run *run,
                 void (*ended)(struct sel_load_run *run, uint32_t phase)) SEL_WARN_UNUSED;

/* The same by several processes, each with a share of producers and rates, until all have ended.
 * Nothing may have been started before that a child of fork must not have. */
int sel_load_run_split(struct sel_load_run *run) SEL_WARN_UNUSED;
/* How many processes so many producers take. */
uint32_t sel_load_processes(uint32_t producers);

/* ---- who submits ---- */

/* One task to submit. */
struct sel_load_task {
    const struct sel_load_kind *kind;
    struct sel_str args;
    uint64_t tag;
};

enum sel_load_end { SEL_LOAD_FINISHED, SEL_LOAD_FAILED, SEL_LOAD_REFUSED };

struct sel_load_port {
    /* Submits what there is room for, in order. How many, or < 0. */
    int64_t (*submit)(struct sel_load_port *port, const struct sel_load_task *tasks,
                      uint32_t count);
    /* Hands out the ends that are there; waits for one if there is none, at most until `wake_us`.
     */
    int (*receive)(struct sel_load_port *port, int64_t wake_us,
                   void (*ended)(void *ctx, uint64_t tag, enum sel_load_end how), void *ctx);
    /* Says goodbye, in order. */
    void (*close)(struct sel_load_port *port);
};

/* Both wait until they are connected. */
int sel_load_open_client(const struct sel_load_options *options,
                         struct sel_load_port **ret) SEL_WARN_UNUSED;
int sel_load_open_many(const struct sel_load_options *options,
                       struct sel_load_port **ret) SEL_WARN_UNUSED;

int64_t sel_load_now_us(void); /* CLOCK_MONOTONIC */

/* ---- the report ---- */

void sel_load_report_head(const struct sel_load_run *run);
/* The rows of a phase. */
void sel_load_report_phase(struct sel_load_run *run, uint32_t phase);
/* {"phases": [...], ...} */
void sel_load_report_json(const struct sel_load_run *run);

#endif
