/* selinon-bench: measures and says whether the targets are met. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "perf/bench.h"

#define METRICS_MAX 64u

static const struct sel_bench benches[] = {
    /* topic, name, metrics, function */
    {"engine", "switch", "switch_ratio switch_ns fcontext_switch_ns spawn_ns", sel_bench_switch},
    {"engine", "sleep", "sleep_10000_ms", sel_bench_sleep},
    {"engine", "files",
     "io_files_per_s_ratio io_uring_files_per_s plain_files_per_s io_uring_unbatched_files_per_s",
     sel_bench_files},
    {"engine", "engine",
     "chain_nodes_per_s fanout_nodes_per_s fanout_bytes_per_node cost_ratio_1m_to_1k",
     sel_bench_engine},
    {"engine", "failures", "failures_1000_ms", sel_bench_failures},
    {"engine", "compile", "compile_10k_flows_ms", sel_bench_compile},
    {"engine", "executor", "executor_lmdb_tasks_per_s executor_tasks_per_s", sel_bench_executor},
    {"proto", "wire",
     "wire_records_per_s wire_record_ns wire_encode_ns wire_decode_ns session_record_ns",
     sel_bench_wire},
    {"broker", "broker", "broker_memory_task_ns broker_commit_task_ns", sel_bench_broker},
    {"fabric", "memory",
     "bare_memory_tasks_per_s bare_memory_ratio_zmq zmq_tasks_per_s "
     "bare_memory_ratio_zmq_large bare_memory_p99_ms "
     "records_per_message broker_cpu_ns_per_task worker_cpu_ns_per_task producer_cpu_ns_per_task",
     sel_bench_fabric_memory},
    {"fabric", "latency", "latency_ratio_zmq latency_p50_us zmq_latency_p50_us",
     sel_bench_fabric_latency},
    {"fabric", "commit",
     "acked_submits_per_s bare_commit_tasks_per_s bare_commit_p99_ms journal_bytes_per_task "
     "commit_ratio_jetstream_sync commit_ratio_jetstream_single",
     sel_bench_fabric_commit},
    {"fabric", "interval", "bare_interval_tasks_per_s interval_ratio_jetstream",
     sel_bench_fabric_interval},
    {"fabric", "peers", "ratio_gearmand ratio_beanstalkd ratio_celery", sel_bench_fabric_peers},
    {"fabric", "processes", "exec_tasks_per_s ratio_hyperqueue", sel_bench_fabric_processes},
    {"fabric", "stranger", "stranger_tasks_per_s", sel_bench_fabric_stranger},
    {"fabric", "queued", "queued_bytes_per_task queued_bytes_per_task_commit",
     sel_bench_fabric_queued},
    {"fabric", "restart", "restart_s restart_ready_s", sel_bench_fabric_restart},
    {"fabric", "idle", "idle_cpu_percent", sel_bench_fabric_idle},
    {"fabric", "allocations", "allocations_per_task zmq_allocations_per_task",
     sel_bench_fabric_allocations},
    {"flows", "memory",
     "diamond_memory_nodes_per_s diamond_memory_broker_cpu_us_per_node "
     "diamond_memory_worker_cpu_us_per_node diamond_memory_producer_cpu_us_per_node",
     sel_bench_flows_memory},
    {"flows", "commit",
     "diamond_commit_nodes_per_s diamond_commit_broker_cpu_us_per_node "
     "diamond_commit_worker_cpu_us_per_node diamond_commit_producer_cpu_us_per_node "
     "diamond_journal_bytes_per_node",
     sel_bench_flows_commit},
    {"flows", "lmdb",
     "diamond_lmdb_nodes_per_s diamond_lmdb_broker_cpu_us_per_node "
     "diamond_lmdb_worker_cpu_us_per_node diamond_lmdb_producer_cpu_us_per_node",
     sel_bench_flows_lmdb},
    {"flows", "latency", "diamond_memory_p50_ms diamond_commit_p50_ms commit_p50_ms",
     sel_bench_flows_latency},
    {"flows", "scaling", "scaling_2_workers one_worker_nodes_per_s two_workers_nodes_per_s",
     sel_bench_flows_scaling},
    {"flows", "million", "flow_1m_nodes_s flow_state_bytes_per_node", sel_bench_flows_million},
    {"flows", "takeover", "flow_1m_takeover_s flow_1m_after_takeover_s", sel_bench_flows_takeover},
    {"flows", "join", "join_1000x1000_s join_bytes_per_node", sel_bench_flows_join},
};

struct sel_bench_run {
    const char *topic;
    const char *only; /* NULL: everything */
    uint32_t runs;
    bool is_json;
    struct sel_bench_metric metrics[METRICS_MAX];
    uint32_t metric_count;
};

/* ---- what the benchmarks call ---- */

int64_t sel_bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint32_t sel_bench_runs(const struct sel_bench_run *run)
{
    return run->runs;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double sel_bench_median(double *values, uint32_t count)
{
    SEL_ASSERT(count >= 1 && count <= SEL_BENCH_RUNS_MAX);
    qsort(values, count, sizeof(*values), compare_doubles);
    double upper = values[count / 2];
    return count % 2 ? upper : (values[count / 2 - 1] + upper) / 2;
}

int sel_bench_measure(struct sel_bench_run *run, struct sel_bench_probe *probes, uint32_t count)
{
    for (uint32_t i = 0; i < run->runs; i++) {
        for (uint32_t k = 0; k < count; k++) {
            int r = probes[k].fn(probes[k].arg, &probes[k].values[i]);
            if (r < 0)
                return r;
        }
    }
    for (uint32_t k = 0; k < count; k++) {
        double sorted[SEL_BENCH_RUNS_MAX];
        memcpy(sorted, probes[k].values, sizeof(sorted));
        probes[k].median = sel_bench_median(sorted, run->runs);
    }
    return 0;
}

int sel_bench_take(void *arg, double *ret)
{
    *ret = *(const double *)arg;
    return 0;
}

double sel_bench_ratio(const struct sel_bench_run *run, const struct sel_bench_probe *a,
                       const struct sel_bench_probe *b)
{
    double ratios[SEL_BENCH_RUNS_MAX];
    for (uint32_t i = 0; i < run->runs; i++)
        ratios[i] = a->values[i] / b->values[i];
    return sel_bench_median(ratios, run->runs);
}

static const char *verdict(const struct sel_bench_metric *metric)
{
    if (isnan(metric->value))
        return "missing";
    if (metric->target_kind == SEL_BENCH_NO_TARGET)
        return "";
    bool is_met = metric->target_kind == SEL_BENCH_AT_LEAST ? metric->value >= metric->target
                                                            : metric->value <= metric->target;
    return is_met ? "yes" : "NO";
}

static void print_row(const struct sel_bench_metric *metric)
{
    char value[48] = "-", target[48] = "";
    if (!isnan(metric->value))
        (void)snprintf(value, sizeof(value), "%.*f %s", fabs(metric->value) < 1000 ? 2 : 0,
                       metric->value, metric->unit);
    if (metric->target_kind != SEL_BENCH_NO_TARGET)
        (void)snprintf(target, sizeof(target), "%s %.10g",
                       metric->target_kind == SEL_BENCH_AT_LEAST ? "at least" : "at most",
                       metric->target);
    printf("%-32s %20s  %-20s %s%s%s\n", metric->name, value, target, verdict(metric),
           metric->note ? "  # " : "", metric->note ? metric->note : "");
    (void)fflush(stdout); /* a row at a time: some take seconds */
}

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = words; (p = strstr(p, word)); p += n)
        if ((p == words || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
            return n > 0;
    return false;
}

void sel_bench_report(struct sel_bench_run *run, const struct sel_bench_metric *metric)
{
    SEL_ASSERT(run->metric_count < METRICS_MAX);
    run->metrics[run->metric_count++] = *metric;
    if (!run->is_json)
        print_row(metric);
}

/* ---- the program ---- */

static void print_json(const struct sel_bench_run *run)
{
    putchar('{');
    for (uint32_t i = 0; i < run->metric_count; i++) {
        const struct sel_bench_metric *metric = &run->metrics[i];
        printf("%s\"%s\": ", i ? ", " : "", metric->name);
        if (isnan(metric->value))
            printf("null");
        else
            printf("%.10g", metric->value);
    }
    puts("}");
}

static bool is_wanted(const struct sel_bench_run *run, const struct sel_bench *bench)
{
    if (strcmp(run->topic, bench->topic) != 0)
        return false;
    return !run->only || strcmp(run->only, bench->name) == 0 || has_word(bench->metrics, run->only);
}

static int run_topic(struct sel_bench_run *run)
{
    int status = 0;
    uint32_t wanted = 0;
    if (!run->is_json)
        printf("%-32s %20s  %-20s %s\n", "metric", "value", "target", "met?");
    for (size_t i = 0; i < SEL_COUNT(benches); i++) {
        if (!is_wanted(run, &benches[i]))
            continue;
        wanted++;
        int r = benches[i].fn(run);
        if (r < 0) {
            fprintf(stderr, "selinon-bench: %s: %s\n", benches[i].name, sel_error_text(r));
            status = 1;
        }
    }
    if (wanted == 0) {
        fprintf(stderr, "selinon-bench: no benchmark or metric of %s is called '%s'\n", run->topic,
                run->only);
        return 2;
    }
    if (run->is_json)
        print_json(run);
    return status;
}

static void print_help(FILE *out)
{
    fputs("usage: selinon-bench TOPIC [--json] [--only NAME] [--runs N]\n\n"
          "Measures and prints a table: metric, value, target, met?\n"
          "  engine       flows and tasks in one process\n"
          "  proto        the wire, without sockets\n"
          "  fabric       broker, worker and producer, against libzmq and other systems\n"
          "  flows        flows on the cluster\n\n"
          "  --json       one object, metric to value (null: could not be measured)\n"
          "  --only NAME  one benchmark, by its name or by one of its metrics\n"
          "  --runs N     medians of N measurements, 1 to 100 (default 5)\n\n"
          "Benchmarks and their metrics:\n",
          out);
    for (size_t i = 0; i < SEL_COUNT(benches); i++)
        fprintf(out, "  %-8s %-10s %s\n", benches[i].topic, benches[i].name, benches[i].metrics);
}

static int usage_error(const char *text, const char *word)
{
    fprintf(stderr, "selinon-bench: %s '%s'; `selinon-bench` alone prints help\n", text, word);
    return 2;
}

static int parse_options(int argc, char **argv, struct sel_bench_run *run)
{
    for (int i = 2; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--json") == 0) {
            run->is_json = true;
        } else if (strcmp(argv[i], "--only") == 0 && has_value) {
            run->only = argv[++i];
        } else if (strcmp(argv[i], "--runs") == 0 && has_value) {
            char *end;
            unsigned long runs = strtoul(argv[++i], &end, 10);
            if (*end || runs < 1 || runs > SEL_BENCH_RUNS_MAX)
                return usage_error("--runs takes 1 to 100, not", argv[i]);
            run->runs = (uint32_t)runs;
        } else {
            return usage_error("unknown option, or its value is missing:", argv[i]);
        }
    }
    return 0;
}

static bool is_topic(const char *word)
{
    for (size_t i = 0; i < SEL_COUNT(benches); i++)
        if (strcmp(word, benches[i].topic) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct sel_bench_run run = {.runs = 5};
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (!is_topic(argv[1]))
        return usage_error("unknown topic", argv[1]);
    run.topic = argv[1];
    int status = parse_options(argc, argv, &run);
    return status ? status : run_topic(&run);
}
