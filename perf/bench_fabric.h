/* perf/bench_fabric.h - processes and clusters for the benchmarks of the fabric.
 *
 * A stage is a folder of its own with the processes that were started in it. All are stopped by
 * their ids and the folder is removed at the end of the stage, also when the benchmark dies: the
 * kernel stops the children, and a guard process removes the folder. */
#ifndef SEL_PERF_BENCH_FABRIC_H
#define SEL_PERF_BENCH_FABRIC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <selinon/client.h>

#include "core/assert.h"
#include "core/histogram.h"

#define SEL_STAGE_PROCESSES_MAX 8
#define SEL_STAGE_PATH_MAX 512

struct sel_stage_process {
    pid_t pid; /* 0: none */
    const char *name;
};

struct sel_stage {
    char folder[SEL_STAGE_PATH_MAX / 2];
    pid_t guard;
    int guard_fd; /* closed: the guard cleans up */
    struct sel_stage_process processes[SEL_STAGE_PROCESSES_MAX];
    uint32_t log_count;
};

/* The folder is made below TMPDIR or /var/tmp, which is on a disk where /tmp may not be. */
int sel_stage_open(struct sel_stage *stage) SEL_WARN_UNUSED;
void sel_stage_close(struct sel_stage *stage);
/* The path of `name` in its folder, in a buffer of SEL_STAGE_PATH_MAX. Returns out. */
const char *sel_stage_path(const struct sel_stage *stage, const char *name, char *out);
/* Starts argv[0], a path; `vars` ("NAME=value", NULL at the end, may be NULL) come on top of the
 * environment. What it prints goes to a file of the folder, which sel_stage_show prints. */
int sel_stage_start(struct sel_stage *stage, const char *const *argv, const char *const *vars,
                    struct sel_stage_process **ret) SEL_WARN_UNUSED;
/* SIGTERM, five seconds later SIGKILL; or `signal` at once if it is SIGKILL. Waits for its end. */
void sel_stage_stop(struct sel_stage_process *process, int signal);
bool sel_stage_is_alive(struct sel_stage_process *process);
/* What the processes have printed, to standard error: for failures. */
void sel_stage_show(const struct sel_stage *stage);
/* Runs a program to its end; `out` gets what it prints, terminated. Its exit status, or < 0. */
int sel_stage_run(struct sel_stage *stage, const char *const *argv, const char *const *vars,
                  char *out, size_t out_size) SEL_WARN_UNUSED;
/* The path of a program of ours, beside this one. Returns out, of SEL_STAGE_PATH_MAX. */
const char *sel_stage_program(const char *name, char *out);

/* ---- what /proc says of a process ---- */

int sel_stage_anon_bytes(pid_t pid, double *ret) SEL_WARN_UNUSED; /* RssAnon */
int sel_stage_cpu_ns(pid_t pid, int64_t *ret) SEL_WARN_UNUSED;    /* of all its threads */
/* The first child; 0: there is none. */
pid_t sel_stage_child(pid_t pid);
/* Nothing of the page cache is left of what lies in `folder`. */
int sel_stage_drop_cache(const char *folder) SEL_WARN_UNUSED;

/* ---- a cluster of ours ---- */

#define SEL_CLUSTER_QUEUE "bench"

struct sel_cluster_options {
    bool has_journal;
    uint32_t threads;    /* of each worker; 0: no worker is started */
    uint32_t workers;    /* 0: one, if there are threads */
    bool counts_calls;   /* of the heap, in the broker: sel_cluster_heap_calls */
    bool has_flows;      /* the configuration is that of perf/flows */
    bool has_supervisor; /* workers that are started have one, which is what is stopped */
    const char *const *worker_args; /* more of them, NULL at the end; NULL: none */
};

struct sel_cluster {
    struct sel_stage stage;
    struct sel_cluster_options options;
    struct sel_stage_process *broker, *worker; /* of the stage; NULL: not started */
    char listen[128], query[128];
    void *heap_calls; /* struct sel_malloc_count of the broker */
};

int sel_cluster_open(struct sel_cluster *cluster,
                     const struct sel_cluster_options *options) SEL_WARN_UNUSED;
/* `failed`: prints what the processes have said. */
void sel_cluster_close(struct sel_cluster *cluster, bool failed);
/* Parts of it, for those who stop and start them. The broker takes the endpoints that it had;
 * `args` come after those of all workers, which they overrule; NULL: none. */
int sel_cluster_start_broker(struct sel_cluster *cluster) SEL_WARN_UNUSED;
int sel_cluster_start_worker(struct sel_cluster *cluster, const char *queue,
                             const char *const *args,
                             struct sel_stage_process **ret) SEL_WARN_UNUSED;
/* What broker, worker and this process, which is the producer, have used and done so far. */
struct sel_cluster_usage {
    int64_t cpu_ns[3];
    uint64_t frames, records, commit_bytes; /* of the broker, in and out */
    uint64_t submitted, finished;           /* runs of flows among them */
    uint64_t put_back;                      /* of workers that are gone, or gave it up */
    uint64_t kept;                          /* entries that it has now, ended ones too */
    uint64_t commit_p50_us;
};
int sel_cluster_get_usage(const struct sel_cluster *cluster,
                          struct sel_cluster_usage *ret) SEL_WARN_UNUSED;
/* Calls of the heap by the broker so far; those of libzmq by themselves. */
void sel_cluster_heap_calls(const struct sel_cluster *cluster, uint64_t *ret_own,
                            uint64_t *ret_libzmq);

/* ---- a producer ---- */

struct sel_drive {
    const char *queue, *task; /* NULL: those of the cluster */
    bool is_flow;             /* `task` is one */
    enum sel_client_level level;
    uint64_t count;
    uint32_t window, batch; /* tasks under way; tasks submitted in one call */
};

struct sel_drive_result {
    double per_s;
    struct sel_histogram us; /* from submit to result */
};

/* A client with a session, with room for `waiting` tasks. */
int sel_drive_connect(const struct sel_cluster *cluster, uint32_t waiting,
                      struct sel_client **ret) SEL_WARN_UNUSED;
/* Keeps `window` tasks under way until all have their results; a task that failed is an error. */
int sel_drive_run(struct sel_client *client, const struct sel_drive *drive,
                  struct sel_drive_result *ret) SEL_WARN_UNUSED;
/* Submits them all and waits until they are settled. */
int sel_drive_submit(struct sel_client *client, const struct sel_drive *drive,
                     double *ret_per_s) SEL_WARN_UNUSED;

/* A cluster of its own, a warm-up, a drive; per_s is the value of the probe. */
struct sel_ours {
    struct sel_cluster_options cluster;
    struct sel_drive drive;
    /* Of the last run: */
    double p50_us, p99_us, records_per_message, commit_bytes_per_task, commit_p50_us;
    double cpu_ns_per_task[3]; /* of broker, worker (the first), producer */
};

int sel_ours_measure(void *ours, double *ret_per_s);

/* ---- other systems ---- */

struct sel_rival {
    const char *name;    /* as `perf/peers/peer.py --list` has it */
    uint64_t count;      /* tasks; 0: as peer.py thinks fit */
    uint32_t window;     /* the same */
    const char *program; /* hyperqueue: what its tasks run */
    /* of the yardstick alone, 0 otherwise: */
    const char *transport;
    uint32_t batch, record_bytes, reply_bytes, head_bytes;
};

struct sel_rival_result {
    double per_s, p50_us, p99_us; /* NAN: not measured, or the system is not installed */
};

/* Runs it to its end. 0 also when it is not installed. */
int sel_rival_measure(const struct sel_rival *rival, struct sel_rival_result *ret) SEL_WARN_UNUSED;

#endif
