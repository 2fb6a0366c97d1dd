#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/query.h"
#include "core/error.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"
#include "perf/modules/malloc_count.h"

#define ASK_US 5000000
#define ARGS_MAX 32u
#define READY_MS 30000 /* a broker that is not there after so long is broken */

static const char nodes[] =
    "tasks:\n"
    "  - {name: Noop, import: bench}\n"
    "  - {name: Sleep, import: bench}\n"
    "  - {name: Process, import: exec, command: ['" SEL_BENCH_NOTHING "']}\n"
    "flows: []\n";

/* ---- the broker ---- */

/* The endpoint in the line of the ready file that begins with `word`. */
static bool read_endpoint(FILE *file, const char *word, char *ret, size_t size)
{
    char line[256];
    size_t n = strlen(word);
    rewind(file);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, word, n) != 0 || line[n] != ' ')
            continue;
        line[strcspn(line, "\n")] = '\0';
        (void)snprintf(ret, size, "%s", line + n + 1);
        return true;
    }
    return false;
}

static bool read_ready(struct sel_cluster *cluster, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    bool is_there = read_endpoint(file, "listen", cluster->listen, sizeof(cluster->listen)) &&
                    read_endpoint(file, "query", cluster->query, sizeof(cluster->query));
    (void)fclose(file);
    return is_there;
}

static int wait_ready(struct sel_cluster *cluster, const char *path)
{
    const struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};
    for (int ms = 0; ms < READY_MS; ms += 2) {
        if (read_ready(cluster, path))
            return 0;
        if (!sel_stage_is_alive(cluster->broker))
            break;
        (void)nanosleep(&pause, NULL);
    }
    fprintf(stderr, "selinon-bench: the broker does not start\n");
    return SEL_EFAILED;
}

static int map_counts(struct sel_cluster *cluster, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    int r = ftruncate(fd, sizeof(struct sel_malloc_count)) < 0 ? -errno : 0;
    void *p = r < 0 ? MAP_FAILED
                    : mmap(NULL, sizeof(struct sel_malloc_count), PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (p == MAP_FAILED)
        return r < 0 ? r : -ENOMEM;
    cluster->heap_calls = p;
    return 0;
}

int sel_cluster_start_broker(struct sel_cluster *cluster)
{
    char program[SEL_STAGE_PATH_MAX], journal[SEL_STAGE_PATH_MAX], ready[SEL_STAGE_PATH_MAX];
    char counts[SEL_STAGE_PATH_MAX], count_var[SEL_STAGE_PATH_MAX + 32];
    const char *const argv[] = {
        sel_stage_program("selinon-broker", program), "--listen", cluster->listen, "--query",
        cluster->query, "--journal",
        cluster->options.has_journal ? sel_stage_path(&cluster->stage, "journal", journal) : "none",
        /* A million queued tasks are within what is measured. */
        "--memory-max", "2GiB", "--ready-file", sel_stage_path(&cluster->stage, "ready", ready),
        "--log-level", "warning", NULL};
    const char *vars[] = {NULL, NULL, NULL};
    (void)unlink(ready);
    if (cluster->options.counts_calls) {
        (void)sel_stage_path(&cluster->stage, "counts", counts);
        int r = map_counts(cluster, counts);
        if (r < 0)
            return r;
        (void)snprintf(count_var, sizeof(count_var), "SEL_MALLOC_COUNT=%s", counts);
        vars[0] = count_var;
        vars[1] = "LD_PRELOAD=" SEL_BENCH_MALLOC_COUNT;
    }
    int r = sel_stage_start(&cluster->stage, argv, vars, &cluster->broker);
    return r < 0 ? r : wait_ready(cluster, ready);
}

/* ---- the worker ---- */

static int write_nodes(const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return -errno;
    bool is_written = fputs(nodes, file) >= 0;
    return fclose(file) == 0 && is_written ? 0 : -EIO;
}

/* Where what is to be run is told, in argv from `n`; how far it got. */
static uint32_t add_configuration(const struct sel_cluster *cluster, const char *written,
                                  const char **argv, uint32_t n)
{
    argv[n++] = "--nodes-definition";
    argv[n++] = cluster->options.has_flows ? SEL_BENCH_SOURCE "/perf/flows/nodes.yaml" : written;
    if (cluster->options.has_flows) {
        argv[n++] = "--flow-definitions";
        argv[n++] = SEL_BENCH_SOURCE "/perf/flows/flows.yaml";
    }
    return n;
}

static uint32_t add_args(const char *const *args, const char **argv, uint32_t n)
{
    while (args && *args && n < ARGS_MAX)
        argv[n++] = *args++;
    return n;
}

int sel_cluster_start_worker(struct sel_cluster *cluster, const char *queue,
                             const char *const *args, struct sel_stage_process **ret)
{
    char program[SEL_STAGE_PATH_MAX], path[SEL_STAGE_PATH_MAX], threads[16];
    char results[SEL_STAGE_PATH_MAX], results_var[SEL_STAGE_PATH_MAX + 32];
    (void)snprintf(threads, sizeof(threads), "%u", cluster->options.threads);
    (void)snprintf(results_var, sizeof(results_var), "SELINON_BENCH_RESULTS=%s",
                   sel_stage_path(&cluster->stage, "results", results));
    int r = write_nodes(sel_stage_path(&cluster->stage, "nodes.yaml", path));
    if (r < 0)
        return r;
    const char *argv[ARGS_MAX + 1] = {sel_stage_program("selinon-worker", program),
                                      "--broker",
                                      cluster->listen,
                                      "--queues",
                                      queue,
                                      "--module-path",
                                      SEL_BENCH_MODULES,
                                      "--threads",
                                      threads};
    const char *const vars[] = {results_var, NULL};
    uint32_t n = add_configuration(cluster, path, argv, 9);
    if (!cluster->options.has_supervisor) /* what is measured and stopped is the worker */
        argv[n++] = "--no-supervisor";
    n = add_args(cluster->options.worker_args, argv, n);
    n = add_args(args, argv, n);
    argv[n] = NULL;
    return sel_stage_start(&cluster->stage, argv, vars, ret);
}

/* ---- all of it ---- */

int sel_cluster_open(struct sel_cluster *cluster, const struct sel_cluster_options *options)
{
    struct sel_stage_process *unused;
    *cluster = (struct sel_cluster){.options = *options};
    int r = sel_stage_open(&cluster->stage);
    if (r < 0)
        return r;
    /* TCP: what the other systems are reached by, too. */
    (void)snprintf(cluster->listen, sizeof(cluster->listen), "tcp://127.0.0.1:*");
    (void)snprintf(cluster->query, sizeof(cluster->query), "tcp://127.0.0.1:*");
    r = sel_cluster_start_broker(cluster);
    if (r == 0 && options->threads > 0)
        r = sel_cluster_start_worker(cluster, SEL_CLUSTER_QUEUE, NULL, &cluster->worker);
    for (uint32_t i = 1; r == 0 && i < options->workers; i++)
        r = sel_cluster_start_worker(cluster, SEL_CLUSTER_QUEUE, NULL, &unused);
    if (r < 0)
        sel_cluster_close(cluster, true);
    return r;
}

void sel_cluster_close(struct sel_cluster *cluster, bool failed)
{
    if (failed)
        sel_stage_show(&cluster->stage);
    if (cluster->heap_calls)
        (void)munmap(cluster->heap_calls, sizeof(struct sel_malloc_count));
    sel_stage_close(&cluster->stage);
    *cluster = (struct sel_cluster){.stage = {.guard_fd = -1}};
}

void sel_cluster_heap_calls(const struct sel_cluster *cluster, uint64_t *ret_own,
                            uint64_t *ret_libzmq)
{
    const struct sel_malloc_count *count = cluster->heap_calls;
    *ret_own = atomic_load_explicit(&count->own, memory_order_relaxed);
    *ret_libzmq = atomic_load_explicit(&count->libzmq, memory_order_relaxed);
}

/* ---- what it uses ---- */

static uint64_t number_of(const struct sel_value *map, const char *key)
{
    int64_t n = 0;
    const struct sel_value *value = sel_value_get_c(map, key);
    if (value && sel_value_kind(value) == SEL_INT)
        (void)sel_value_i64(value, &n); /* what does not fit counts as nothing */
    return (uint64_t)n;
}

static int ask_broker(const struct sel_cluster *cluster, struct sel_cluster_usage *ret)
{
    struct sel_arena arena = {0};
    struct sel_error err = {0};
    struct sel_client_query *query = NULL;
    struct sel_value status;
    int r = sel_client_query_open(cluster->query, &query, &err);
    if (r == 0)
        r = sel_client_query_ask(query, "status", NULL, ASK_US, &arena, &status, &err);
    if (r == 0) {
        ret->frames = number_of(&status, "frames_in") + number_of(&status, "frames_out");
        ret->records = number_of(&status, "records_in") + number_of(&status, "records_out");
        ret->commit_bytes = number_of(&status, "commit_bytes");
        ret->submitted = number_of(&status, "submitted");
        ret->finished = number_of(&status, "finished");
        ret->put_back = number_of(&status, "put_back");
        ret->kept = number_of(&status, "tasks");
        const struct sel_value *commit = sel_value_get_c(&status, "commit");
        ret->commit_p50_us =
            commit && sel_value_is(commit, SEL_MAP) ? number_of(commit, "p50_us") : 0;
    } else {
        fprintf(stderr, "selinon-bench: the broker's status: %s\n", err.text);
    }
    sel_client_query_close(query);
    sel_arena_done(&arena);
    return r;
}

int sel_cluster_get_usage(const struct sel_cluster *cluster, struct sel_cluster_usage *ret)
{
    const pid_t pids[] = {cluster->broker->pid, cluster->worker ? cluster->worker->pid : 0, 0};
    *ret = (struct sel_cluster_usage){.frames = 0};
    for (size_t i = 0; i < SEL_COUNT(pids); i++) {
        int r = sel_stage_cpu_ns(pids[i], &ret->cpu_ns[i]);
        if (r < 0)
            return r;
    }
    return ask_broker(cluster, ret);
}
