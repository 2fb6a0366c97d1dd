/* The fabric: broker, worker and producer as processes of this machine, against limits and other
 * systems that are measured in turns with them. What each metric means: docs/performance.md. */
#include "perf/bench_fabric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/bench.h"

#define THREADS 1u   /* of the worker: producer, broker and worker share two cores */
#define WINDOW 8192u /* tasks under way, ours and libzmq's */
#define BATCH 64u    /* tasks that are submitted in one call; libzmq's records a message */
#define QUEUED 1000000u
#define NOTE_INSTALL "perf/peers/install.sh installs what it is compared with"

/* The sizes of our records, without the queue's name which is told once: header, field with the
 * task's name "Noop", 64 bytes of arguments; header and the result {n: 1}; the head of DATA. */
#define RECORD_BYTES (48u + 4u + 4u + 64u)
#define REPLY_BYTES (48u + 4u)
#define HEAD_BYTES 65u

/* ---- ours, end to end ---- */

static const struct sel_ours memory_ours = {
    .cluster = {.threads = THREADS},
    .drive = {.level = SEL_CLIENT_LEVEL_MEMORY, .count = 2000000, .window = WINDOW, .batch = BATCH},
};

/* ---- the others ---- */

static int rival_per_s(void *arg, double *ret)
{
    struct sel_rival_result result;
    int r = sel_rival_measure(arg, &result);
    *ret = result.per_s;
    return r;
}

static int rival_p50_us(void *arg, double *ret)
{
    struct sel_rival_result result;
    int r = sel_rival_measure(arg, &result);
    *ret = result.p50_us;
    return r;
}

static void report(struct sel_bench_run *run, const struct sel_bench_metric *metrics, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sel_bench_report(run, &metrics[i]);
}

/* ---- level memory, against libzmq alone ---- */

/* We put as many records into a message as there are. Twice libzmq: with the tasks that our
 * producer submits at a time, and with what our messages had in the end. */
struct same_batch {
    struct sel_rival zmq;
    const struct sel_ours *ours;
};

static int zmq_with_same_batch(void *arg, double *ret)
{
    struct same_batch *same = arg;
    double batch = fmin(same->ours->records_per_message, WINDOW / 2.0);
    same->zmq.batch = (uint32_t)fmax(batch, 1);
    return rival_per_s(&same->zmq, ret);
}

int sel_bench_fabric_memory(struct sel_bench_run *run)
{
    struct sel_ours ours = memory_ours;
    struct sel_rival zmq = {.name = "zmq",
                            .count = 4000000,
                            .window = WINDOW,
                            .transport = "tcp",
                            .batch = BATCH,
                            .record_bytes = RECORD_BYTES,
                            .reply_bytes = REPLY_BYTES,
                            .head_bytes = HEAD_BYTES};
    struct same_batch same = {.zmq = zmq, .ours = &ours};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = sel_bench_take, .arg = &ours.p99_us},
                                       {.fn = rival_per_s, .arg = &zmq},
                                       {.fn = sel_bench_take, .arg = &ours.records_per_message},
                                       {.fn = sel_bench_take, .arg = &ours.cpu_ns_per_task[0]},
                                       {.fn = sel_bench_take, .arg = &ours.cpu_ns_per_task[1]},
                                       {.fn = sel_bench_take, .arg = &ours.cpu_ns_per_task[2]},
                                       {.fn = zmq_with_same_batch, .arg = &same}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"bare_memory_tasks_per_s", probes[0].median, "tasks/s", SEL_BENCH_AT_LEAST, 1e6,
         "or the ratio; submit to result, 8,192 under way"},
        {"bare_memory_ratio_zmq", sel_bench_ratio(run, &probes[0], &probes[2]), "",
         SEL_BENCH_AT_LEAST, 0.35, "or the rate"},
        {"zmq_tasks_per_s", probes[2].median, "tasks/s", SEL_BENCH_NO_TARGET, 0,
         "libzmq alone: the same bytes, 64 records a message, the same window"},
        {"bare_memory_ratio_zmq_large", sel_bench_ratio(run, &probes[0], &probes[7]), "",
         SEL_BENCH_NO_TARGET, 0, "libzmq with as large messages as ours had in the end"},
        {"bare_memory_p99_ms", probes[1].median / 1000, "ms", SEL_BENCH_AT_MOST, 50, NULL},
        {"records_per_message", probes[3].median, "", SEL_BENCH_NO_TARGET, 0,
         "of all that the broker received and sent"},
        {"broker_cpu_ns_per_task", probes[4].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"worker_cpu_ns_per_task", probes[5].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"producer_cpu_ns_per_task", probes[6].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

int sel_bench_fabric_latency(struct sel_bench_run *run)
{
    struct sel_ours ours = memory_ours;
    struct sel_rival zmq = {.name = "zmq",
                            .count = 20000,
                            .window = 1,
                            .transport = "tcp",
                            .batch = 1,
                            .record_bytes = RECORD_BYTES,
                            .reply_bytes = REPLY_BYTES,
                            .head_bytes = HEAD_BYTES};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = sel_bench_take, .arg = &ours.p50_us},
                                       {.fn = rival_p50_us, .arg = &zmq}};
    ours.drive.count = 20000;
    ours.drive.window = ours.drive.batch = 1;
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"latency_ratio_zmq", sel_bench_ratio(run, &probes[1], &probes[2]), "", SEL_BENCH_AT_MOST,
         1.5, "p50 of the round trip, one task at a time"},
        {"latency_p50_us", probes[1].median, "us", SEL_BENCH_NO_TARGET, 0, NULL},
        {"zmq_latency_p50_us", probes[2].median, "us", SEL_BENCH_NO_TARGET, 0, "libzmq alone"},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

/* ---- levels commit and interval, against JetStream ---- */

/* Submits at level commit and nobody works. */
static int measure_acked(void *arg, double *ret)
{
    (void)arg;
    const struct sel_cluster_options options = {.has_journal = true};
    const struct sel_drive drive = {
        .level = SEL_CLIENT_LEVEL_COMMIT, .count = QUEUED, .window = QUEUED, .batch = 256};
    struct sel_cluster cluster;
    struct sel_client *client = NULL;
    int r = sel_cluster_open(&cluster, &options);
    if (r < 0)
        return r;
    r = sel_drive_connect(&cluster, QUEUED, &client);
    if (r == 0)
        r = sel_drive_submit(client, &drive, ret);
    (void)sel_client_close(client, 0);
    sel_cluster_close(&cluster, r < 0);
    return r;
}

int sel_bench_fabric_commit(struct sel_bench_run *run)
{
    struct sel_ours ours = {
        .cluster = {.has_journal = true, .threads = THREADS},
        .drive = {
            .level = SEL_CLIENT_LEVEL_COMMIT, .count = 1000000, .window = 65536, .batch = 256}};
    struct sel_rival batches = {.name = "nats-batch"}, each = {.name = "nats-sync"};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = sel_bench_take, .arg = &ours.p99_us},
                                       {.fn = measure_acked},
                                       {.fn = rival_per_s, .arg = &batches},
                                       {.fn = rival_per_s, .arg = &each},
                                       {.fn = sel_bench_take, .arg = &ours.commit_bytes_per_task}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"acked_submits_per_s", probes[2].median, "tasks/s", SEL_BENCH_AT_LEAST, 5e5,
         "level commit, no worker"},
        {"bare_commit_tasks_per_s", probes[0].median, "tasks/s", SEL_BENCH_AT_LEAST, 4e5,
         "level commit, submit to result, 65,536 under way"},
        {"bare_commit_p99_ms", probes[1].median / 1000, "ms", SEL_BENCH_NO_TARGET, 0, NULL},
        {"journal_bytes_per_task", probes[5].median, "B", SEL_BENCH_NO_TARGET, 0,
         "committed, the arguments' 64 included"},
        {"commit_ratio_jetstream_sync", sel_bench_ratio(run, &probes[0], &probes[3]), "",
         SEL_BENCH_AT_LEAST, 2, "syncs always, in atomic batches of 1000; " NOTE_INSTALL},
        {"commit_ratio_jetstream_single", sel_bench_ratio(run, &probes[0], &probes[4]), "",
         SEL_BENCH_NO_TARGET, 0, "syncs always, each message by itself"},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

int sel_bench_fabric_interval(struct sel_bench_run *run)
{
    struct sel_ours ours = {
        .cluster = {.has_journal = true, .threads = THREADS},
        .drive = {
            .level = SEL_CLIENT_LEVEL_INTERVAL, .count = 1000000, .window = 65536, .batch = 256}};
    struct sel_rival nats = {.name = "nats-interval"};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = rival_per_s, .arg = &nats}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"bare_interval_tasks_per_s", probes[0].median, "tasks/s", SEL_BENCH_NO_TARGET, 0,
         "level interval, submit to result, 65,536 under way"},
        {"interval_ratio_jetstream", sel_bench_ratio(run, &probes[0], &probes[1]), "",
         SEL_BENCH_AT_LEAST, 2, "a file stream as Debian's server has it; " NOTE_INSTALL},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

/* ---- against other task queues ---- */

int sel_bench_fabric_peers(struct sel_bench_run *run)
{
    struct sel_ours ours = memory_ours;
    struct sel_rival gearmand = {.name = "gearmand"}, beanstalkd = {.name = "beanstalkd"},
                     celery = {.name = "celery"};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = rival_per_s, .arg = &gearmand},
                                       {.fn = rival_per_s, .arg = &beanstalkd},
                                       {.fn = rival_per_s, .arg = &celery}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"ratio_gearmand", sel_bench_ratio(run, &probes[0], &probes[1]), "", SEL_BENCH_AT_LEAST, 30,
         "two workers; " NOTE_INSTALL},
        {"ratio_beanstalkd", sel_bench_ratio(run, &probes[0], &probes[2]), "", SEL_BENCH_AT_LEAST,
         10, "100 pipelined; " NOTE_INSTALL},
        {"ratio_celery", sel_bench_ratio(run, &probes[0], &probes[3]), "", SEL_BENCH_AT_LEAST, 500,
         "on Redis; " NOTE_INSTALL},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

int sel_bench_fabric_processes(struct sel_bench_run *run)
{
    struct sel_ours ours = {.cluster = {.threads = 2},
                            .drive = {.task = "Process",
                                      .level = SEL_CLIENT_LEVEL_MEMORY,
                                      .count = 6000,
                                      .window = 64,
                                      .batch = 4}};
    struct sel_rival hyperqueue = {.name = "hyperqueue", .program = SEL_BENCH_NOTHING};
    struct sel_bench_probe probes[] = {{.fn = sel_ours_measure, .arg = &ours},
                                       {.fn = rival_per_s, .arg = &hyperqueue}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"exec_tasks_per_s", probes[0].median, "tasks/s", SEL_BENCH_NO_TARGET, 0,
         "each a process that does nothing"},
        {"ratio_hyperqueue", sel_bench_ratio(run, &probes[0], &probes[1]), "", SEL_BENCH_AT_LEAST,
         5, "such processes, too; " NOTE_INSTALL},
    };
    report(run, metrics, SEL_COUNT(metrics));
    return 0;
}

/* The producer of examples/producers/python. */
static int measure_stranger(void *arg, double *ret)
{
    (void)arg;
    const struct sel_cluster_options options = {.threads = THREADS};
    struct sel_cluster cluster;
    char out[1024], *end;
    int r = sel_cluster_open(&cluster, &options);
    if (r < 0)
        return r;
    const char *const argv[] = {
        "/usr/bin/python3", SEL_BENCH_SOURCE "/examples/producers/python/selinon_producer.py",
        "submit", "Noop", "--broker", cluster.listen, "--queue", SEL_CLUSTER_QUEUE, "--level",
        "memory", "--count", "200000", "--summary",
        /* 64 bytes as msgpack */
        "--args", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", NULL};
    *ret = NAN;
    r = sel_stage_run(&cluster.stage, argv, NULL, out, sizeof(out));
    const char *at = r == 0 ? strstr(out, "\"tasks_per_s\":") : NULL;
    if (at)
        *ret = strtod(at + strlen("\"tasks_per_s\":"), &end);
    sel_cluster_close(&cluster, r != 0); /* without python3-zmq it is missing, no failure */
    return r < 0 ? r : 0;
}

int sel_bench_fabric_stranger(struct sel_bench_run *run)
{
    struct sel_bench_probe probe = {.fn = measure_stranger};
    int r = sel_bench_measure(run, &probe, 1);
    if (r < 0)
        return r;
    const struct sel_bench_metric metric = {
        "stranger_tasks_per_s",
        probe.median,
        "tasks/s",
        SEL_BENCH_NO_TARGET,
        0,
        "the Python producer of the examples, level memory; needs python3-zmq and python3-msgpack"};
    sel_bench_report(run, &metric);
    return 0;
}
