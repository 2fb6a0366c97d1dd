/* What the fabric costs beside time: memory of what waits, the way back after a crash, an idle
 * cluster, calls of the heap. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define QUEUED 1000000u
#define IDLE_NS (INT64_C(5) * 1000000000)
#define WAIT_US 60000000
#define LATER "later" /* a queue that nobody serves before the crash */
#define COUNTED 1000000u

/* ---- memory ---- */

static int measure_queued(void *arg, double *ret)
{
    const enum sel_client_level level = *(const enum sel_client_level *)arg;
    const struct sel_cluster_options options = {.has_journal = level != SEL_CLIENT_LEVEL_MEMORY};
    const struct sel_drive drive = {.level = level, .count = QUEUED, .batch = 256};
    struct sel_cluster cluster;
    struct sel_client *client = NULL;
    double before = 0, after = 0, unused;
    int r = sel_cluster_open(&cluster, &options);
    if (r < 0)
        return r;
    r = sel_drive_connect(&cluster, QUEUED, &client);
    if (r == 0)
        r = sel_stage_anon_bytes(cluster.broker->pid, &before);
    if (r == 0)
        r = sel_drive_submit(client, &drive, &unused);
    if (r == 0)
        r = sel_stage_anon_bytes(cluster.broker->pid, &after);
    *ret = (after - before) / QUEUED;
    (void)sel_client_close(client, 0);
    sel_cluster_close(&cluster, r < 0);
    return r;
}

int sel_bench_fabric_queued(struct sel_bench_run *run)
{
    enum sel_client_level memory = SEL_CLIENT_LEVEL_MEMORY, commit = SEL_CLIENT_LEVEL_COMMIT;
    struct sel_bench_probe probes[] = {{.fn = measure_queued, .arg = &memory},
                                       {.fn = measure_queued, .arg = &commit}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"queued_bytes_per_task", probes[0].median, "B", SEL_BENCH_AT_MOST, 300,
         "RssAnon of the broker, a million tasks of 64 B, level memory"},
        {"queued_bytes_per_task_commit", probes[1].median, "B", SEL_BENCH_AT_MOST, 150,
         "level commit"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}

/* ---- the way back ---- */

/* A million tasks wait, the first of them is `*ret_first`; others come in and are run while the
 * broker is killed. */
static int crash_under_load(struct sel_cluster *cluster, struct sel_client_id *ret_first)
{
    struct sel_client *client = NULL;
    struct sel_drive drive = {
        .queue = LATER, .level = SEL_CLIENT_LEVEL_COMMIT, .count = QUEUED - 1, .batch = 256};
    const struct sel_client_task first = {
        .name = sel_str_c("Noop"), .queue = sel_str_c(LATER), .level = SEL_CLIENT_LEVEL_COMMIT};
    struct sel_drive_result *unused = SEL_NEW(struct sel_drive_result);
    double per_s;
    int r = unused ? sel_drive_connect(cluster, 2 * QUEUED, &client) : SEL_ENOMEM;
    if (r == 0)
        r = sel_client_submit(client, &first, ret_first, WAIT_US);
    if (r == 0)
        r = sel_drive_submit(client, &drive, &per_s);
    drive = (struct sel_drive){
        .level = SEL_CLIENT_LEVEL_COMMIT, .count = 100000, .window = 65536, .batch = 256};
    if (r == 0)
        r = sel_drive_run(client, &drive, unused);
    if (r == 0) {
        struct sel_client_task task = {.name = sel_str_c("Noop"),
                                       .queue = sel_str_c(SEL_CLUSTER_QUEUE),
                                       .level = SEL_CLIENT_LEVEL_COMMIT};
        for (int i = 0; i < 50000 && r == 0; i++)
            r = sel_client_submit(client, &task, NULL, WAIT_US);
        sel_stage_stop(cluster->broker, SIGKILL); /* with most of these under way */
    }
    (void)sel_client_close(client, 0);
    (void)sel_mem_free(unused);
    return r;
}

/* From the start of the broker to the result of the task that waits longest; *ready_s until the
 * broker answers. */
static int come_back(struct sel_cluster *cluster, const struct sel_client_id *first,
                     double *ready_s, double *ret)
{
    struct sel_client *client = NULL;
    struct sel_client_batch *batch = NULL;
    struct sel_stage_process *worker;
    int64_t begin_ns = sel_bench_now_ns();
    int r = sel_cluster_start_broker(cluster);
    *ready_s = (double)(sel_bench_now_ns() - begin_ns) / 1e9;
    if (r == 0)
        r = sel_cluster_start_worker(cluster, LATER, NULL, &worker);
    if (r == 0)
        r = sel_drive_connect(cluster, 16, &client);
    if (r == 0)
        r = sel_client_watch(client, first, 0, 0, WAIT_US);
    if (r == 0 && sel_client_next(client, &batch, WAIT_US) != 1)
        r = SEL_EFAILED;
    if (r == 0 && batch->results[0].status != SEL_CLIENT_OK)
        r = SEL_EFAILED;
    *ret = (double)(sel_bench_now_ns() - begin_ns) / 1e9;
    sel_client_batch_free(batch);
    (void)sel_client_close(client, 0);
    return r;
}

static int measure_restart(void *arg, double *ret)
{
    double *ready_s = arg;
    const struct sel_cluster_options options = {.has_journal = true, .threads = 1};
    struct sel_cluster cluster;
    struct sel_client_id first;
    char journal[SEL_STAGE_PATH_MAX];
    int r = sel_cluster_open(&cluster, &options);
    if (r < 0)
        return r;
    r = crash_under_load(&cluster, &first);
    if (r == 0)
        r = sel_stage_drop_cache(sel_stage_path(&cluster.stage, "journal", journal));
    if (r == 0)
        r = come_back(&cluster, &first, ready_s, ret);
    sel_cluster_close(&cluster, r < 0);
    return r;
}

int sel_bench_fabric_restart(struct sel_bench_run *run)
{
    double ready_s = 0; /* of the last run */
    struct sel_bench_probe probes[] = {{.fn = measure_restart, .arg = &ready_s},
                                       {.fn = sel_bench_take, .arg = &ready_s}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"restart_s", probes[0].median, "s", SEL_BENCH_AT_MOST, 3,
         "SIGKILL under load, a million queued, cold page cache, to the first result"},
        {"restart_ready_s", probes[1].median, "s", SEL_BENCH_NO_TARGET, 0,
         "of it until the broker answers"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}

/* ---- nothing to do ---- */

/* Percent of a core that the busiest process took. */
static int measure_idle(void *arg, double *ret)
{
    (void)arg;
    const struct sel_cluster_options options = {.has_journal = true, .threads = 2};
    const struct timespec settle = {.tv_sec = 1}, pause = {.tv_sec = IDLE_NS / 1000000000};
    struct sel_cluster cluster;
    struct sel_client *client = NULL;
    pid_t pids[3] = {0}; /* broker, worker, and this process, the producer */
    int64_t before[3], after;
    int r = sel_cluster_open(&cluster, &options);
    if (r < 0)
        return r;
    r = sel_drive_connect(&cluster, 16, &client);
    (void)nanosleep(&settle, NULL);
    pids[0] = cluster.broker->pid;
    pids[1] = cluster.worker->pid;
    int64_t begin_ns = sel_bench_now_ns();
    for (size_t i = 0; r == 0 && i < SEL_COUNT(pids); i++)
        r = sel_stage_cpu_ns(pids[i], &before[i]);
    (void)nanosleep(&pause, NULL);
    int64_t took_ns = sel_bench_now_ns() - begin_ns;
    *ret = 0;
    for (size_t i = 0; r == 0 && i < SEL_COUNT(pids); i++) {
        r = sel_stage_cpu_ns(pids[i], &after);
        *ret = fmax(*ret, (double)(after - before[i]) * 100 / (double)took_ns);
    }
    (void)sel_client_close(client, 0);
    sel_cluster_close(&cluster, r < 0);
    return r;
}

int sel_bench_fabric_idle(struct sel_bench_run *run)
{
    struct sel_bench_probe probe = {.fn = measure_idle};
    int r = sel_bench_measure(run, &probe, 1);
    if (r < 0)
        return r;
    const struct sel_bench_metric metric = {
        "idle_cpu_percent", probe.median, "%",
        SEL_BENCH_AT_MOST,  0.5,          "of a core, the busiest of broker, worker and producer"};
    sel_bench_report(run, &metric);
    return 0;
}

/* ---- calls of the heap ---- */

static int measure_calls(void *arg, double *ret)
{
    double *libzmq_per_task = arg;
    const struct sel_cluster_options options = {.threads = 1, .counts_calls = true};
    struct sel_drive drive = {
        .level = SEL_CLIENT_LEVEL_MEMORY, .count = COUNTED / 4, .window = 16384, .batch = 64};
    struct sel_cluster cluster;
    struct sel_client *client = NULL;
    struct sel_drive_result *result = SEL_NEW(struct sel_drive_result);
    uint64_t own[2], libzmq[2];
    int r = result ? sel_cluster_open(&cluster, &options) : SEL_ENOMEM;
    if (r < 0) {
        (void)sel_mem_free(result);
        return r;
    }
    r = sel_drive_connect(&cluster, 2 * drive.window, &client);
    if (r == 0)
        r = sel_drive_run(client, &drive, result); /* pools and tables grow to what they need */
    sel_cluster_heap_calls(&cluster, &own[0], &libzmq[0]);
    drive.count = COUNTED;
    if (r == 0)
        r = sel_drive_run(client, &drive, result);
    sel_cluster_heap_calls(&cluster, &own[1], &libzmq[1]);
    *ret = (double)(own[1] - own[0]) / COUNTED;
    *libzmq_per_task = (double)(libzmq[1] - libzmq[0]) / COUNTED;
    (void)sel_client_close(client, 0);
    sel_cluster_close(&cluster, r < 0);
    (void)sel_mem_free(result);
    return r;
}

int sel_bench_fabric_allocations(struct sel_bench_run *run)
{
    double libzmq_per_task = 0; /* of the last run */
    struct sel_bench_probe probes[] = {{.fn = measure_calls, .arg = &libzmq_per_task},
                                       {.fn = sel_bench_take, .arg = &libzmq_per_task}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"allocations_per_task", probes[0].median, "", SEL_BENCH_AT_MOST, 0.01,
         "calls of malloc by the broker, level memory"},
        {"zmq_allocations_per_task", probes[1].median, "", SEL_BENCH_NO_TARGET, 0,
         "calls of malloc by libzmq in the broker"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}
