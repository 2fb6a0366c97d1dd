/* Topic `flows`: whole runs with a mock, by the engine in this process in virtual time or by a
 * cluster of processes; what is compared and how is in tests/conformance/flows/README.md. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/buf.h"
#include "tests/runner/flow_case.h"
#include "tests/runner/flow_cluster.h"
#include "tests/runner/flow_seen.h"
#include "tests/runner/runner.h"
#include "worker/executor.h"
#include "worker/mock.h"
#include "worker/mock_report.h"

/* ---- the engine in this process ---- */

/* One run. Storages may be traced before there is an executor. */
struct engine_run {
    struct sel_flow_case *c;
    char report_path[64]; /* in memory */
    int report_fd;
    struct sel_mock_report *report;
    struct sel_executor *executor;
};

static int64_t virtual_us(void *ctx)
{
    const struct engine_run *run = ctx;
    return run->executor ? sel_executor_now_us(run->executor) : 0;
}

static void compare(struct engine_run *run, const struct sel_executor_report *report)
{
    static const char *const outcomes[] = {[SEL_FLOW_SUCCESS] = "success",
                                           [SEL_FLOW_FAILURE] = "failure",
                                           [SEL_FLOW_RETRY] = "retry",
                                           [SEL_FLOW_CANCELED] = "canceled"};
    const struct sel_flow_top top = {.outcome = outcomes[report->outcome], .state = report->state};
    struct sel_flow_seen seen;
    struct sel_str text = {0};
    struct sel_error err = {0};
    if (sel_runner_read_file(&run->c->arena, run->report_path, &text, &err) < 0)
        sel_flow_case_fail(run->c, "report", err.text);
    if (sel_mock_report_lost(run->report) > 0)
        sel_flow_case_fail(run->c, "report", "lines are missing");
    sel_flow_seen_init(&seen, run->c, false);
    sel_flow_seen_read(&seen, text);
    sel_flow_seen_compare(&seen, &top);
    sel_flow_seen_done(&seen);
    if (report->stuck > 0)
        sel_flow_case_fail(run->c, "stuck", "work was left in the queues");
}

static void run_executor(struct engine_run *run, const struct sel_executor_options *options)
{
    struct sel_flow_case *c = run->c;
    const struct sel_executor_report *report;
    struct sel_error err = {0};
    int r = sel_executor_new(options, &run->executor, &err);
    if (r == SEL_ENOPATH && sel_flow_case_is_refused(c)) {
        sel_flow_case_refused(c, "SelectiveNoPathError", err.text);
        return;
    }
    if (r < 0) {
        sel_flow_case_fail(c, "the run was refused", err.text);
        return;
    }
    r = sel_executor_run(run->executor, &report, &err);
    if (r < 0)
        sel_flow_case_fail(c, "the run broke off", err.text);
    else if (sel_flow_case_is_refused(c))
        sel_flow_case_fail(c, "error", "the run was to be refused");
    else
        compare(run, report);
    struct sel_executor *executor = run->executor;
    run->executor = NULL; /* what it tells while it ends has no time any more */
    sel_executor_free(executor);
}

static int open_report(struct engine_run *run, struct sel_error *err)
{
    run->report_fd = memfd_create("report", MFD_CLOEXEC);
    if (run->report_fd < 0)
        return sel_error_set(err, -errno, (struct sel_pos){0}, "%s", sel_error_text(-errno));
    (void)snprintf(run->report_path, sizeof(run->report_path), "/proc/self/fd/%d", run->report_fd);
    int r = sel_mock_report_open(run->report_path, &run->report, err);
    if (r == 0)
        sel_mock_report_clock(run->report, virtual_us, run);
    return r;
}

static void run_mock(struct engine_run *run, struct sel_mock *mock)
{
    struct sel_flow_case *c = run->c;
    struct sel_executor_options options = {.system = c->system,
                                           .mock = mock,
                                           .threads = c->options->threads,
                                           .virtual_time = true,
                                           .ignore_sampling = true,
                                           .getenv = sel_flow_case_getenv,
                                           .getenv_ctx = c,
                                           .observer = sel_mock_report_observer(run->report),
                                           .verbosity = -1};
    struct sel_selective_request request;
    struct sel_value args = sel_flow_case_member(&c->script, "node_args");
    struct sel_buf bytes = {0};
    if (c->options->shuffle)
        options.shuffle_seed = c->options->seed + 1;
    sel_value_encode(&args, &bytes);
    options.flow_name = sel_value_str(sel_value_get_c(&c->script, "flow"));
    options.node_args = sel_buf_str(&bytes);
    if (sel_flow_case_selective(c, &request))
        options.selective = &request;
    options.presets = sel_flow_case_presets(c, &options.preset_count);
    run_executor(run, &options);
    sel_buf_done(&bytes);
}

static void run_engine(struct sel_flow_case *c)
{
    struct engine_run run = {.c = c, .report_fd = -1};
    struct sel_value script = sel_flow_case_member(&c->script, "mock");
    struct sel_mock *mock = NULL;
    struct sel_error err = {0};
    int r = sel_mock_new(c->system, &script, &mock, &err);
    if (r == 0)
        r = open_report(&run, &err);
    if (r < 0)
        sel_flow_case_fail(c, "mock", err.text);
    else
        run_mock(&run, mock);
    run.report = sel_mock_report_close(run.report);
    if (run.report_fd >= 0)
        (void)close(run.report_fd);
    sel_mock_free(mock);
}

/* ---- all cases ---- */

static void run_case(struct sel_flow_case *c, const char *path)
{
    if (!path || chdir(path) < 0)
        sel_flow_case_fail(c, "the folder cannot be entered",
                           path ? sel_error_text(-errno) : "no memory");
    else if (!sel_flow_case_load(c))
        return;
    else if (c->options->is_cluster)
        sel_flow_cluster_run(c);
    else if (c->system)
        run_engine(c);
}

/* Of a part, the first of each kind of case (what the name begins with) too: none is left out. */
static bool is_chosen(const struct sel_runner_options *options, const char *const *names,
                      uint32_t i)
{
    const char *name = names[i];
    if (options->only && fnmatch(options->only, name, 0) != 0)
        return false;
    size_t kind = strcspn(name, "-");
    return i % options->part == 0 || i == 0 || strncmp(names[i - 1], name, kind) != 0 ||
           names[i - 1][kind] != '-';
}

int sel_topic_flows(const char *dir, const struct sel_runner_options *options,
                    struct sel_runner_report *report, struct sel_error *err)
{
    struct sel_arena arena = {0};
    const char *const *names;
    uint32_t count;
    int back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = back < 0 ? -errno : sel_runner_list_dirs(&arena, dir, &names, &count, err);
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        if (!is_chosen(options, names, i))
            continue;
        struct sel_flow_case c = {.name = names[i], .options = options, .report = report};
        run_case(&c, sel_arena_printf(&arena, "%s/%s", dir, names[i]));
        sel_flow_case_done(&c);
        if (fchdir(back) < 0)
            r = sel_error_set(err, -errno, (struct sel_pos){dir, 0, 0},
                              "the folder before cannot be entered: %s", sel_error_text(-errno));
    }
    if (back >= 0)
        close(back);
    sel_arena_done(&arena);
    return r;
}
