/* The whole executor: tasks of a module as coroutines, results in LMDB, synced. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/compile.h"
#include "perf/bench.h"
#include "worker/executor.h"
#include "worker/module.h"

#define TASKS 200000

static void remove_folder(const char *dir)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char path[512];
    for (size_t i = 0; i < SEL_COUNT(names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static const char nodes_format[] =
    "tasks: [{name: Noop, import: bench%s}]\n"
    "flows: [main]\n"
    "storages:\n"
    "  - {name: Results, import: selinon.storages.lmdb, classname: LMDB,\n"
    "     configuration: {path: '%s'}}\n";
static const char flows[] =
    "flow-definitions:\n"
    "  - name: main\n"
    "    edges:\n"
    "      - {from: , to: Noop, foreach: {import: bench, function: many}}\n";

static int run_once(struct sel_modules *modules, const char *dir, bool stores, double *ret)
{
    char nodes[1024];
    struct sel_system *system = NULL;
    struct sel_executor *executor = NULL;
    const struct sel_executor_report *report = NULL;
    struct sel_error err = {0};
    struct sel_buf args = {0};
    struct sel_value count = sel_value_from_i64(TASKS);
    (void)snprintf(nodes, sizeof(nodes), nodes_format, stores ? ", storage: Results" : "", dir);
    int r = sel_bench_compile_text(nodes, flows, &system);
    sel_value_encode(&count, &args);
    struct sel_executor_options options = {.system = system,
                                           .modules = modules,
                                           .flow_name = SEL_STR("main"),
                                           .node_args = sel_buf_str(&args),
                                           .slots = 2048,
                                           .verbosity = -1};
    if (r == 0)
        r = sel_executor_new(&options, &executor, &err);
    int64_t begin = sel_bench_now_ns();
    if (r == 0)
        r = sel_executor_run(executor, &report, &err);
    *ret = TASKS * 1e9 / (double)(sel_bench_now_ns() - begin);
    if (r == 0 && (report->outcome != SEL_FLOW_SUCCESS || report->progress.finished != TASKS))
        r = sel_error_set(&err, SEL_EFAILED, (struct sel_pos){0}, "the flow did not succeed");
    if (r < 0)
        fprintf(stderr, "selinon-bench: %s\n", err.text);
    sel_executor_free(executor);
    sel_system_free(system);
    sel_buf_done(&args);
    return r;
}

static int with_lmdb(void *arg, double *ret)
{
    const char *base = getenv("TMPDIR");
    char dir[256];
    (void)snprintf(dir, sizeof(dir), "%s/selinon-bench-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir))
        return SEL_EFAILED;
    int r = run_once(arg, dir, true, ret);
    remove_folder(dir);
    return r;
}

static int without_storage(void *arg, double *ret)
{
    return run_once(arg, "unused", false, ret);
}

int sel_bench_executor(struct sel_bench_run *run)
{
    struct sel_modules *modules = sel_modules_new(SEL_BENCH_MODULES);
    struct sel_bench_probe probes[] = {{.fn = with_lmdb, .arg = modules},
                                       {.fn = without_storage, .arg = modules}};
    int r = modules ? sel_bench_measure(run, probes, SEL_COUNT(probes)) : SEL_ENOMEM;
    if (r == 0) {
        sel_bench_report(run, &(struct sel_bench_metric){
                                  "executor_lmdb_tasks_per_s", probes[0].median, "tasks/s",
                                  SEL_BENCH_AT_LEAST, 2e5, "results synced before a task ends"});
        sel_bench_report(run, &(struct sel_bench_metric){"executor_tasks_per_s", probes[1].median,
                                                         "tasks/s", SEL_BENCH_NO_TARGET, 0,
                                                         "the same without a storage"});
    }
    sel_modules_free(modules);
    return r;
}
