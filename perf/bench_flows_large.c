/* Flows on the cluster that are large: a million nodes, the dispatcher that dies in the middle of
 * them, a million combinations. What each metric means: docs/performance.md. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/value.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define NODES 1000000u
#define NODES_FEW 1000u /* of a warm-up, so that what grows afterwards is the flow's */
#define JOIN_ITEMS 1000u
#define HANG_NS (INT64_C(180) * 1000000000) /* something is broken */
#define POLL_US 2000
#define LOOK_NS 20000000 /* between two looks at /proc or the broker */
#define SUBMIT_US 10000000

/* One worker runs, others decide: the memory of those is that of the flow. */
static const char *const runs_only[] = {"--flows", "0", NULL};
static const char *const decides_only[] = {"--threads", "0", "--dispatchers", "1", NULL};

struct large {
    struct sel_cluster cluster;
    struct sel_client *client;
    struct sel_stage_process *dispatcher;
    double anon_before, anon_max; /* of the dispatcher */
};

static int submit(struct large *large, const char *flow, uint32_t items)
{
    struct sel_buf args = {0};
    struct sel_value count = sel_value_from_i64(items);
    sel_value_encode(&count, &args);
    const struct sel_client_task task = {
        .name = sel_str_c(flow),
        .args = {args.p, args.n},
        .queue = sel_str_c(SEL_CLUSTER_QUEUE),
        .level = SEL_CLIENT_LEVEL_COMMIT,
        .flags = SEL_CLIENT_FLOW,
    };
    int r = sel_buf_error(&args);
    if (r == 0)
        r = sel_client_submit(large->client, &task, NULL, SUBMIT_US);
    sel_buf_done(&args);
    return r;
}

/* 1: the flow has succeeded; 0: not yet. */
static int look(struct large *large)
{
    struct sel_client_batch *batch = NULL;
    int64_t n = sel_client_next(large->client, &batch, POLL_US);
    if (n == -EAGAIN || n == -ETIMEDOUT)
        return 0;
    if (n != 1)
        return n < 0 ? (int)n : SEL_EFAILED;
    const struct sel_client_result *result = &batch->results[0];
    int r = result->status == SEL_CLIENT_OK ? 1 : SEL_EFAILED;
    if (r < 0)
        fprintf(stderr, "selinon-bench: the flow failed: %.*s\n", (int)result->payload.n,
                (const char *)result->payload.p);
    sel_client_batch_free(batch);
    return r;
}

static int wait_end(struct large *large)
{
    const int64_t begin_ns = sel_bench_now_ns();
    int64_t looked_ns = 0, now_ns = begin_ns;
    double anon;
    int r = 0;
    while (r == 0 && now_ns - begin_ns < HANG_NS) {
        r = look(large);
        now_ns = sel_bench_now_ns();
        if (r < 0 || now_ns - looked_ns < LOOK_NS)
            continue;
        looked_ns = now_ns;
        int e = sel_stage_anon_bytes(large->dispatcher->pid, &anon);
        r = e < 0 ? e : r;
        large->anon_max = e == 0 ? fmax(large->anon_max, anon) : large->anon_max;
    }
    return r == 0 ? -ETIMEDOUT : r < 0 ? r : 0;
}

static int run_flow(struct large *large, const char *flow, uint32_t items, double *ret_s)
{
    int64_t begin_ns = sel_bench_now_ns();
    int r = submit(large, flow, items);
    if (r == 0)
        r = wait_end(large);
    *ret_s = (double)(sel_bench_now_ns() - begin_ns) / 1e9;
    return r;
}

static void large_close(struct large *large, bool failed)
{
    (void)sel_client_close(large->client, 0);
    sel_cluster_close(&large->cluster, failed);
}

/* `has_supervisor`: of those that decide. */
static int large_open(struct large *large, bool has_supervisor)
{
    const struct sel_cluster_options options = {
        .has_journal = true, .threads = 1, .has_flows = true, .worker_args = runs_only};
    double unused;
    *large = (struct large){.anon_before = 0};
    int r = sel_cluster_open(&large->cluster, &options);
    if (r < 0)
        return r;
    large->cluster.options.worker_args = NULL; /* of those that come now */
    large->cluster.options.has_supervisor = has_supervisor;
    r = sel_cluster_start_worker(&large->cluster, SEL_CLUSTER_QUEUE, decides_only,
                                 &large->dispatcher);
    if (r == 0)
        r = sel_drive_connect(&large->cluster, 64, &large->client);
    if (r == 0)
        r = run_flow(large, "many", NODES_FEW, &unused);
    if (r == 0)
        r = sel_stage_anon_bytes(large->dispatcher->pid, &large->anon_before);
    large->anon_max = large->anon_before;
    if (r < 0)
        large_close(large, true);
    return r;
}

/* ---- a flow alone, with the memory that it takes ---- */

struct alone {
    const char *flow;
    uint32_t items, nodes;
    double bytes_per_node; /* of the last run */
};

static int measure_alone(void *arg, double *ret)
{
    struct alone *alone = arg;
    struct large large;
    int r = large_open(&large, false);
    if (r < 0)
        return r;
    r = run_flow(&large, alone->flow, alone->items, ret);
    alone->bytes_per_node = (large.anon_max - large.anon_before) / alone->nodes;
    large_close(&large, r < 0);
    return r;
}

static int report_alone(struct sel_bench_run *run, struct alone *alone,
                        const struct sel_bench_metric *seconds,
                        const struct sel_bench_metric *bytes)
{
    struct sel_bench_probe probes[] = {{.fn = measure_alone, .arg = alone},
                                       {.fn = sel_bench_take, .arg = &alone->bytes_per_node}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    struct sel_bench_metric metric = *seconds;
    metric.value = probes[0].median;
    sel_bench_report(run, &metric);
    metric = *bytes;
    metric.value = probes[1].median;
    sel_bench_report(run, &metric);
    return 0;
}

int sel_bench_flows_million(struct sel_bench_run *run)
{
    struct alone alone = {.flow = "many", .items = NODES, .nodes = NODES};
    return report_alone(
        run, &alone,
        &(struct sel_bench_metric){"flow_1m_nodes_s", 0, "s", SEL_BENCH_AT_MOST, 15,
                                   "level commit, a foreach of a million"},
        &(struct sel_bench_metric){"flow_state_bytes_per_node", 0, "B", SEL_BENCH_AT_MOST, 200,
                                   "RssAnon of a worker that only decides, at its largest"});
}

int sel_bench_flows_join(struct sel_bench_run *run)
{
    struct alone alone = {.flow = "join", .items = JOIN_ITEMS, .nodes = 2 * JOIN_ITEMS};
    return report_alone(
        run, &alone,
        &(struct sel_bench_metric){"join_1000x1000_s", 0, "s", SEL_BENCH_AT_MOST, 2,
                                   "level commit, a million combinations"},
        &(struct sel_bench_metric){"join_bytes_per_node", 0, "B", SEL_BENCH_NO_TARGET, 0,
                                   "RssAnon of a worker that only decides, at its largest"});
}

/* ---- the dispatcher dies ---- */

/* Waits until the broker's numbers say so. */
static int wait_usage(struct large *large, struct sel_cluster_usage *usage,
                      bool (*is_so)(const struct sel_cluster_usage *now,
                                    struct sel_cluster_usage *seen))
{
    const struct timespec pause = {.tv_nsec = POLL_US * 1000};
    const int64_t begin_ns = sel_bench_now_ns();
    while (sel_bench_now_ns() - begin_ns < HANG_NS) {
        struct sel_cluster_usage now;
        int r = sel_cluster_get_usage(&large->cluster, &now);
        if (r < 0)
            return r;
        if (is_so(&now, usage)) {
            *usage = now;
            return 0;
        }
        (void)nanosleep(&pause, NULL);
    }
    return -ETIMEDOUT;
}

static bool is_half_done(const struct sel_cluster_usage *now, struct sel_cluster_usage *seen)
{
    return now->finished - seen->finished >= NODES / 2;
}

/* What the dead process had said before is not mistaken for the next one's. */
static bool is_put_back(const struct sel_cluster_usage *now, struct sel_cluster_usage *seen)
{
    return now->put_back > seen->put_back;
}

/* A decision starts runs, or uses ends, of which the broker then forgets its entries; without
 * decisions there are never fewer of these. */
static bool has_decided(const struct sel_cluster_usage *now, struct sel_cluster_usage *seen)
{
    if (now->kept > seen->kept)
        seen->kept = now->kept;
    return now->submitted > seen->submitted || now->kept < seen->kept;
}

struct takeover {
    double rest_s; /* from the kill to the end of the flow */
};

static int measure_takeover(void *arg, double *ret)
{
    struct takeover *takeover = arg;
    struct large large;
    struct sel_cluster_usage usage;
    pid_t first = 0;
    int64_t killed_ns = 0;
    int r = large_open(&large, true);
    if (r < 0)
        return r;
    /* The process that decides: its supervisor tells of its end, whatever the lease is. */
    first = sel_stage_child(large.dispatcher->pid);
    if (first == 0)
        r = -ECHILD;
    if (r == 0)
        r = sel_cluster_get_usage(&large.cluster, &usage);
    if (r == 0)
        r = submit(&large, "many", NODES);
    /* The next one comes when the first has the flow for sure. */
    if (r == 0)
        r = wait_usage(&large, &usage, has_decided);
    if (r == 0)
        r = sel_cluster_start_worker(&large.cluster, SEL_CLUSTER_QUEUE, decides_only,
                                     &large.dispatcher);
    if (r == 0)
        r = wait_usage(&large, &usage, is_half_done);
    if (r == 0) {
        (void)kill(first, SIGKILL);
        killed_ns = sel_bench_now_ns();
        r = wait_usage(&large, &usage, is_put_back);
    }
    if (r == 0)
        r = wait_usage(&large, &usage, has_decided);
    *ret = (double)(sel_bench_now_ns() - killed_ns) / 1e9;
    if (r == 0)
        r = wait_end(&large);
    takeover->rest_s = (double)(sel_bench_now_ns() - killed_ns) / 1e9;
    large_close(&large, r < 0);
    return r;
}

int sel_bench_flows_takeover(struct sel_bench_run *run)
{
    struct takeover takeover = {.rest_s = 0};
    struct sel_bench_probe probes[] = {{.fn = measure_takeover, .arg = &takeover},
                                       {.fn = sel_bench_take, .arg = &takeover.rest_s}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"flow_1m_takeover_s", probes[0].median, "s", SEL_BENCH_AT_MOST, 2,
         "SIGKILL of the dispatcher when half of a million has ended, to the next decision"},
        {"flow_1m_after_takeover_s", probes[1].median, "s", SEL_BENCH_NO_TARGET, 0,
         "from the SIGKILL to the end of the flow"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}
