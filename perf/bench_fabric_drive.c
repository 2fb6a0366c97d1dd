/* A producer on libselinon that keeps a window of tasks under way. */
#include <errno.h>
#include <stdio.h>

#include "core/error.h"
#include "core/mem.h"
#include "core/str.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define BATCH_MAX 1024
#define READY_US 10000000
#define HANG_US 30000000 /* nothing ends for so long: something is broken */
#define CLOSE_US 10000000
#define WARM_UP 100000u /* tasks before a measurement */

/* 64 bytes of arguments: a msgpack bin of 62. */
static const char arguments[64] = "\xc4\x3e";

static int say(const char *what, int64_t code)
{
    fprintf(stderr, "selinon-bench: %s: %s\n", what, sel_client_error_text((int)code));
    return SEL_EFAILED;
}

int sel_drive_connect(const struct sel_cluster *cluster, uint32_t waiting, struct sel_client **ret)
{
    const char *const endpoints[] = {cluster->listen};
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    char error[SEL_CLIENT_ERROR_SIZE];
    options.endpoints = endpoints;
    options.endpoint_count = 1;
    options.name = "selinon-bench";
    options.waiting_max = waiting;
    options.keep_bytes_max = (size_t)512 << 20;
    int r = sel_client_open(&options, ret, error);
    if (r < 0)
        return say(error, r);
    r = sel_client_ready(*ret, READY_US);
    if (r < 0) {
        (void)sel_client_close(*ret, 0);
        *ret = NULL;
        return say("no session with the broker", r);
    }
    return 0;
}

struct driver {
    struct sel_client *client;
    const struct sel_drive *drive;
    struct sel_drive_result *result;
    uint64_t sent, done;
    int64_t *sent_ns; /* of each batch */
    struct sel_client_task tasks[BATCH_MAX];
};

static void fill_tasks(struct driver *driver)
{
    const struct sel_drive *drive = driver->drive;
    for (uint32_t i = 0; i < drive->batch; i++)
        driver->tasks[i] = (struct sel_client_task){
            .name = sel_str_c(drive->task ? drive->task : "Noop"),
            .args = {arguments, sizeof(arguments)},
            .queue = sel_str_c(drive->queue ? drive->queue : SEL_CLUSTER_QUEUE),
            .level = (uint8_t)drive->level,
            .flags = drive->is_flow ? SEL_CLIENT_FLOW : 0,
        };
}

/* The next batch, or its rest. How many were taken, 0 if there is no room, < 0. */
static int64_t submit_batch(struct driver *driver, int64_t timeout_us)
{
    const struct sel_drive *drive = driver->drive;
    uint64_t at = driver->sent % drive->batch, count = drive->batch - at;
    if (count > drive->count - driver->sent)
        count = drive->count - driver->sent;
    if (at == 0 && driver->sent_ns)
        driver->sent_ns[driver->sent / drive->batch] = sel_bench_now_ns();
    for (uint64_t i = 0; i < count; i++)
        driver->tasks[i].tag = driver->sent + i;
    int64_t n = sel_client_submit_many(driver->client, driver->tasks, count, NULL, timeout_us);
    if (n == -EAGAIN)
        return 0;
    if (n < 0)
        return say("submitting", n);
    driver->sent += (uint64_t)n;
    return n;
}

static int take_results(struct driver *driver, int64_t timeout_us)
{
    struct sel_client_batch *batch = NULL;
    int r = 0;
    int64_t n = sel_client_next(driver->client, &batch, timeout_us);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0)
        return say("waiting for results", n);
    int64_t now_ns = sel_bench_now_ns();
    for (uint32_t i = 0; r == 0 && i < batch->count; i++) {
        const struct sel_client_result *result = &batch->results[i];
        if (result->status != SEL_CLIENT_OK) {
            fprintf(stderr, "selinon-bench: a task failed: %.*s\n", (int)result->payload.n,
                    (const char *)result->payload.p);
            r = SEL_EFAILED;
        }
        int64_t sent_ns = driver->sent_ns[result->tag / driver->drive->batch];
        sel_histogram_add(&driver->result->us, (now_ns - sent_ns) / 1000);
        driver->done++;
    }
    sel_client_batch_free(batch);
    return r;
}

static int run(struct driver *driver)
{
    const struct sel_drive *drive = driver->drive;
    while (driver->done < drive->count) {
        bool is_full = false;
        while (!is_full && driver->sent < drive->count &&
               driver->sent - driver->done + drive->batch <= drive->window) {
            int64_t n = submit_batch(driver, 0);
            if (n < 0)
                return (int)n;
            is_full = n == 0;
        }
        int r = take_results(driver, HANG_US);
        if (r < 0)
            return r;
    }
    return 0;
}

int sel_drive_run(struct sel_client *client, const struct sel_drive *drive,
                  struct sel_drive_result *ret)
{
    SEL_ASSERT(drive->batch >= 1 && drive->batch <= BATCH_MAX && drive->batch <= drive->window);
    struct driver *driver = SEL_NEW(struct driver);
    if (!driver)
        return SEL_ENOMEM;
    *ret = (struct sel_drive_result){.per_s = 0};
    *driver = (struct driver){.client = client, .drive = drive, .result = ret};
    fill_tasks(driver);
    driver->sent_ns = sel_mem_zalloc((drive->count / drive->batch + 1) * sizeof(*driver->sent_ns));
    int64_t begin_ns = sel_bench_now_ns();
    int r = driver->sent_ns ? run(driver) : SEL_ENOMEM;
    ret->per_s = (double)drive->count * 1e9 / (double)(sel_bench_now_ns() - begin_ns);
    (void)sel_mem_free(driver->sent_ns);
    (void)sel_mem_free(driver);
    return r;
}

int sel_drive_submit(struct sel_client *client, const struct sel_drive *drive, double *ret_per_s)
{
    SEL_ASSERT(drive->batch >= 1 && drive->batch <= BATCH_MAX);
    struct driver *driver = SEL_NEW(struct driver);
    if (!driver)
        return SEL_ENOMEM;
    *driver = (struct driver){.client = client, .drive = drive};
    fill_tasks(driver);
    int64_t begin_ns = sel_bench_now_ns(), n = 0;
    while (n >= 0 && driver->sent < drive->count)
        n = submit_batch(driver, HANG_US);
    int r = n < 0 ? (int)n : sel_client_flush(client, HANG_US);
    if (n >= 0 && r < 0)
        r = say("waiting for acknowledgements", r);
    *ret_per_s = (double)drive->count * 1e9 / (double)(sel_bench_now_ns() - begin_ns);
    (void)sel_mem_free(driver);
    return r;
}

/* ---- a whole measurement ---- */

static int warm_up(struct sel_client *client, const struct sel_ours *ours,
                   struct sel_drive_result *result)
{
    struct sel_drive drive = ours->drive;
    drive.count = drive.count / 4 < WARM_UP ? drive.count / 4 : WARM_UP;
    return sel_drive_run(client, &drive, result);
}

static void note_usage(struct sel_ours *ours, const struct sel_cluster_usage *before,
                       const struct sel_cluster_usage *after)
{
    double count = (double)ours->drive.count;
    for (int i = 0; i < 3; i++)
        ours->cpu_ns_per_task[i] = (double)(after->cpu_ns[i] - before->cpu_ns[i]) / count;
    ours->records_per_message =
        (double)(after->records - before->records) / (double)(after->frames - before->frames);
    ours->commit_bytes_per_task = (double)(after->commit_bytes - before->commit_bytes) / count;
    ours->commit_p50_us = (double)after->commit_p50_us;
}

int sel_ours_measure(void *arg, double *ret)
{
    struct sel_ours *ours = arg;
    struct sel_cluster cluster;
    struct sel_cluster_usage before, after;
    struct sel_client *client = NULL;
    struct sel_drive_result *result = SEL_NEW(struct sel_drive_result);
    int r = result ? sel_cluster_open(&cluster, &ours->cluster) : SEL_ENOMEM;
    if (r < 0) {
        (void)sel_mem_free(result);
        return r;
    }
    r = sel_drive_connect(&cluster, 2 * ours->drive.window, &client);
    if (r == 0)
        r = warm_up(client, ours, result);
    if (r == 0)
        r = sel_cluster_get_usage(&cluster, &before);
    if (r == 0)
        r = sel_drive_run(client, &ours->drive, result);
    if (r == 0)
        r = sel_cluster_get_usage(&cluster, &after);
    if (r == 0) {
        *ret = result->per_s;
        note_usage(ours, &before, &after);
        ours->p50_us = (double)sel_histogram_quantile(&result->us, 0.5);
        ours->p99_us = (double)sel_histogram_quantile(&result->us, 0.99);
    }
    (void)sel_client_close(client, 0);
    sel_cluster_close(&cluster, r < 0);
    (void)sel_mem_free(result);
    return r;
}
