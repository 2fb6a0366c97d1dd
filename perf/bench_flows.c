/* Flows on the cluster: many small ones at once, one alone, two workers against one. What each
 * metric means: docs/performance.md. */
#include <stdio.h>

#include "core/error.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define DIAMOND_NODES 4u
#define COMMITS_MAX                                                                                \
    6 /* that a diamond at level commit may wait for, beyond one at level memory                   \
       */
#define FLOWS 100000u
#define BATCH 64u

/* One thread decides and runs: producer, broker and worker share two cores. */
static const struct sel_ours memory_ours = {
    .cluster = {.threads = 1, .has_flows = true},
    .drive = {.task = "diamond",
              .is_flow = true,
              .level = SEL_CLIENT_LEVEL_MEMORY,
              .count = FLOWS,
              .window = 1024,
              .batch = BATCH},
};

/* Names of metrics: the rate, then processor time of broker, worker, producer. */
static int measure_rate(struct sel_bench_run *run, struct sel_ours *ours,
                        const char *const names[4], double target, const char *note)
{
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = ours},
                                       {.fn = sel_bench_take, .arg = &ours->cpu_ns_per_task[0]},
                                       {.fn = sel_bench_take, .arg = &ours->cpu_ns_per_task[1]},
                                       {.fn = sel_bench_take, .arg = &ours->cpu_ns_per_task[2]}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    struct sel_bench_metric metric = {
        names[0], probes[0].median * DIAMOND_NODES, "nodes/s", SEL_BENCH_AT_LEAST, target, note};
    sel_bench_report(run, &metric);
    for (int i = 1; i < 4; i++) {
        metric = (struct sel_bench_metric){
            .name = names[i], .value = probes[i].median / 1000 / DIAMOND_NODES, .unit = "us"};
        sel_bench_report(run, &metric);
    }
    return 0;
}

int sel_bench_flows_memory(struct sel_bench_run *run)
{
    static const char *const names[] = {
        "diamond_memory_nodes_per_s", "diamond_memory_broker_cpu_us_per_node",
        "diamond_memory_worker_cpu_us_per_node", "diamond_memory_producer_cpu_us_per_node"};
    struct sel_ours ours = memory_ours;
    return measure_rate(run, &ours, names, 2e5, "level memory, 1,024 flows of four under way");
}

int sel_bench_flows_commit(struct sel_bench_run *run)
{
    static const char *const names[] = {
        "diamond_commit_nodes_per_s", "diamond_commit_broker_cpu_us_per_node",
        "diamond_commit_worker_cpu_us_per_node", "diamond_commit_producer_cpu_us_per_node"};
    static const char *const args[] = {"--flows", "16384", NULL};
    struct sel_ours ours = memory_ours;
    ours.cluster.has_journal = true;
    ours.cluster.worker_args = args;
    ours.drive.level = SEL_CLIENT_LEVEL_COMMIT;
    ours.drive.window = 16384;
    int r = measure_rate(run, &ours, names, 1e5, "level commit, 16,384 under way");
    if (r < 0)
        return r;
    const struct sel_bench_metric metric = {.name = "diamond_journal_bytes_per_node",
                                            .value = ours.commit_bytes_per_task / DIAMOND_NODES,
                                            .unit = "B",
                                            .note = "committed, of the last run"};
    sel_bench_report(run, &metric);
    return 0;
}

int sel_bench_flows_lmdb(struct sel_bench_run *run)
{
    static const char *const names[] = {
        "diamond_lmdb_nodes_per_s", "diamond_lmdb_broker_cpu_us_per_node",
        "diamond_lmdb_worker_cpu_us_per_node", "diamond_lmdb_producer_cpu_us_per_node"};
    static const char *const args[] = {"--flows", "16384", "--slots", "8192", NULL};
    struct sel_ours ours = memory_ours;
    ours.cluster.has_journal = true;
    ours.cluster.worker_args = args;
    ours.drive.task = "stored_diamond";
    ours.drive.level = SEL_CLIENT_LEVEL_COMMIT;
    ours.drive.window = 16384;
    return measure_rate(run, &ours, names, 5e4,
                        "level commit, results synced in LMDB, a condition reads one");
}

int sel_bench_flows_latency(struct sel_bench_run *run)
{
    struct sel_ours memory = memory_ours;
    memory.drive.count = 4000;
    memory.drive.window = memory.drive.batch = 1;
    struct sel_ours commit = memory;
    commit.cluster.has_journal = true;
    commit.drive.level = SEL_CLIENT_LEVEL_COMMIT;
    commit.drive.count = 1000;
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &memory},
                                       {.fn = sel_bench_take, .arg = &memory.p50_us},
                                       {.fn = sel_ours_measure, .arg = &commit},
                                       {.fn = sel_bench_take, .arg = &commit.p50_us},
                                       {.fn = sel_bench_take, .arg = &commit.commit_p50_us}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const double memory_ms = probes[1].median / 1000, commit_ms = probes[4].median / 1000;
    const struct sel_bench_metric metrics[] = {
        {"diamond_memory_p50_ms", memory_ms, "ms", SEL_BENCH_AT_MOST, 2, "one at a time"},
        {"diamond_commit_p50_ms", probes[3].median / 1000, "ms", SEL_BENCH_AT_MOST,
         memory_ms + COMMITS_MAX * commit_ms, "one at a time; at level memory and six commits"},
        {"commit_p50_ms", commit_ms, "ms", SEL_BENCH_NO_TARGET, 0,
         "a commit of the broker meanwhile"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}

int sel_bench_flows_scaling(struct sel_bench_run *run)
{
    /* What limits is how many sleep at a time, not the two cores of the machine. */
    static const char *const args[] = {"--slots", "8", NULL};
    struct sel_ours one = memory_ours;
    one.cluster.worker_args = args;
    one.drive.task = "slow_diamond";
    one.drive.count = 10000;
    one.drive.window = 2048;
    struct sel_ours two = one;
    two.cluster.workers = 2;
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &one},
                                       {.fn = sel_ours_measure, .arg = &two}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"scaling_2_workers", sel_bench_ratio(run, &probes[1], &probes[0]), "", SEL_BENCH_AT_LEAST,
         1.8, "tasks of 1 ms sleep, eight at a time a worker"},
        {"one_worker_nodes_per_s", probes[0].median * DIAMOND_NODES, "nodes/s", SEL_BENCH_NO_TARGET,
         0, NULL},
        {"two_workers_nodes_per_s", probes[1].median * DIAMOND_NODES, "nodes/s",
         SEL_BENCH_NO_TARGET, 0, NULL},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}
