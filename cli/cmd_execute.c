/* `execute`: runs one flow in this process. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/case.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/progress.h"
#include "cli/request.h"
#include "cli/summary.h"
#include "core/buf.h"
#include "core/json.h"
#include "worker/executor.h"
#include "worker/mock.h"
#include "worker/module.h"

#define PROGRESS_US 100000 /* between two looks of the progress line */
#define THREADS_MAX 1024

struct values {
    const char *nodes;
    struct sel_cli_texts flows;
    const char *flow_name;
    struct sel_cli_request_values request;
    int64_t concurrency;
    double sleep_time; /* accepted: nothing here sleeps between looks */
    const char *config_py;
    bool keep_config_py;
    bool hide_progressbar;
    struct sel_cli_texts queues;
    const char *module_path;
    const char *mock;
    bool virtual_time;
    bool json;
    int64_t shuffle;
};

static const struct values defaults = {.concurrency = 1, .sleep_time = 0.5};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "nodes-definition",
     .letter = 'n',
     .kind = SEL_CLI_FILE,
     .required = true,
     MEMBER(nodes),
     .env = {"SELINON_NODES_DEFINITION", "SELINON_EXECUTE_NODES_DEFINITION"},
     .help = "the nodes file"},
    {.name = "flow-definitions",
     .letter = 'f',
     .kind = SEL_CLI_PATHS,
     .required = true,
     MEMBER(flows),
     .env = {"SELINON_FLOW_DEFINITIONS", "SELINON_EXECUTE_FLOW_DEFINITIONS"},
     .help = "flow files, or folders searched through all levels for *.yaml and *.yml"},
    {.name = "flow-name",
     .kind = SEL_CLI_TEXT,
     MEMBER(flow_name),
     .env = {"SELINON_EXECUTE_FLOW_NAME"},
     .value_name = "FLOW",
     .help = "the flow to run (required, unless --mock names one)"},
    SEL_CLI_REQUEST_OPTIONS(struct values, request, "SELINON_EXECUTE_"),
    {.name = "concurrency",
     .letter = 'c',
     .kind = SEL_CLI_INT,
     MEMBER(concurrency),
     .min = 1,
     .max = THREADS_MAX,
     .env = {"SELINON_EXECUTE_CONCURRENCY"},
     .help = "number of threads (default: 1)"},
    {.name = "queues",
     .letter = 'Q',
     .kind = SEL_CLI_NAMES,
     MEMBER(queues),
     .env = {"SELINON_EXECUTE_QUEUES"},
     .value_name = "QUEUE,...",
     .help = "serve these queues only (default: all)"},
    {.name = "module-path",
     .kind = SEL_CLI_TEXT,
     MEMBER(module_path),
     .env = {"SELINON_MODULE_PATH"},
     .value_name = "FOLDER:...",
     .help = "where modules are looked for"},
    {.name = "mock",
     .kind = SEL_CLI_FILE,
     MEMBER(mock),
     .env = {"SELINON_EXECUTE_MOCK"},
     .help = "outcomes of tasks from a script in place of code; options win over what it says"},
    {.name = "virtual-time",
     .kind = SEL_CLI_FLAG,
     MEMBER(virtual_time),
     .env = {"SELINON_EXECUTE_VIRTUAL_TIME"},
     .help = "delays pass at once"},
    {.name = "json",
     .kind = SEL_CLI_FLAG,
     MEMBER(json),
     .env = {"SELINON_EXECUTE_JSON"},
     .help = "print how the flow ended as JSON on standard output"},
    {.name = "hide-progressbar",
     .kind = SEL_CLI_FLAG,
     MEMBER(hide_progressbar),
     .env = {"SELINON_EXECUTE_HIDE_PROGRESSBAR"},
     .help = "no progress line on the terminal"},
    {.name = "config-py",
     .kind = SEL_CLI_TEXT,
     MEMBER(config_py),
     .env = {"SELINON_EXECUTE_CONFIG_PY"},
     .value_name = "FILE",
     .help = "write the compiled configuration (as JSON) there during the run"},
    {.name = "keep-config-py",
     .kind = SEL_CLI_FLAG,
     MEMBER(keep_config_py),
     .env = {"SELINON_EXECUTE_KEEP_CONFIG_PY"},
     .help = "do not remove that file afterwards"},
    {.name = "sleep-time",
     .letter = 's',
     .kind = SEL_CLI_NUMBER,
     MEMBER(sleep_time),
     .env = {"SELINON_EXECUTE_SLEEP_TIME"},
     .value_name = "SECONDS",
     .help = "accepted for compatibility; has no effect"},
    {.name = "shuffle",
     .kind = SEL_CLI_INT,
     .hidden = true,
     MEMBER(shuffle),
     .value_name = "SEED",
     .help = "completions in an order drawn from SEED"},
};

/* Everything of one run; what is set is freed by release. */
struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_arena arena;
    struct sel_cli_case script; /* with --mock */
    struct sel_config config;
    struct sel_modules *modules;
    struct sel_mock *mock;
    struct sel_executor *executor;
    struct sel_cli_failures failures;
    struct sel_cli_progress progress;
    const char *flow_name;
    struct sel_str node_args; /* encoded */
    struct sel_selective_request selective;
    bool is_selective;
    const char *dump_path; /* to be removed at the end */
};

/* ---- Ctrl-C ---- */

/* The one global of the program: a signal handler can reach nothing else. */
static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

/* The second signal ends the process: SA_RESETHAND. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL); /* cannot fail for these */
    (void)sigaction(SIGTERM, &action, NULL);
}

static bool should_stop(void *ctx)
{
    (void)ctx;
    return stop_asked != 0;
}

/* ---- the request ---- */

static int load_case(struct session *s)
{
    struct sel_error err;
    if (!s->values->mock)
        return SEL_CLI_OK;
    int r = sel_cli_case_load(s->cli, &s->arena, s->values->mock, &s->script, &err);
    return r < 0 ? sel_cli_fail_with(s->cli, &err) : SEL_CLI_OK;
}

static int take_args(struct session *s)
{
    int status = sel_cli_request_args(s->cli, &s->arena, &s->values->request, &s->node_args);
    if (status == SEL_CLI_OK && s->node_args.n == 0 && s->script.node_args)
        status = sel_cli_request_encode(s->cli, &s->arena, s->script.node_args, &s->node_args);
    return status;
}

static int take_selective(struct session *s)
{
    const struct sel_cli_request_values *v = &s->values->request;
    s->is_selective = s->script.is_selective || v->selective_tasks.count > 0;
    s->selective = s->script.selective;
    if (v->selective_tasks.count > 0) {
        struct sel_str *tasks = sel_cli_request_tasks(&s->arena, v);
        if (!tasks)
            return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
        s->selective =
            (struct sel_selective_request){.tasks = tasks, .task_count = v->selective_tasks.count};
    }
    s->selective.follow_subflows = s->selective.follow_subflows || v->selective_follow_subflows;
    s->selective.run_subsequent = s->selective.run_subsequent || v->selective_run_subsequent;
    return SEL_CLI_OK;
}

static int take_flow_name(struct session *s)
{
    s->flow_name = s->values->flow_name ? s->values->flow_name : s->script.flow;
    return s->flow_name ? SEL_CLI_OK
                        : sel_cli_usage(s->cli, "execute", "option --flow-name is missing");
}

static int take_request(struct session *s)
{
    int status = load_case(s);
    if (status == SEL_CLI_OK)
        status = sel_cli_request_check(s->cli, &s->values->request, s->script.is_selective);
    if (status == SEL_CLI_OK)
        status = take_flow_name(s);
    if (status == SEL_CLI_OK)
        status = take_args(s);
    return status == SEL_CLI_OK ? take_selective(s) : status;
}

/* ---- the configuration ---- */

static bool has_trace(const struct sel_system *system, enum sel_trace_sink_kind kind)
{
    for (uint32_t i = 0; i < system->trace_count; i++) {
        if (system->traces[i].kind == kind)
            return true;
    }
    return false;
}

/* -v shows every action: the events go to the log as if `global.trace` asked for it. */
static int add_log_trace(struct session *s)
{
    struct sel_system *system = s->config.system;
    if (s->cli->verbosity == 0 || has_trace(system, SEL_TRACE_LOGGING))
        return SEL_CLI_OK;
    struct sel_trace_def *traces =
        SEL_ARENA_NEW_ARRAY(&system->arena, struct sel_trace_def, system->trace_count + 1);
    if (!traces)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    if (system->trace_count > 0)
        memcpy(traces, system->traces, system->trace_count * sizeof(*traces));
    traces[system->trace_count].kind = SEL_TRACE_LOGGING;
    system->traces = traces;
    system->trace_count++;
    return SEL_CLI_OK;
}

static int load_config(struct session *s)
{
    const struct values *v = s->values;
    if (!v->mock || v->module_path) {
        s->modules = sel_modules_new(v->module_path);
        if (!s->modules)
            return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    }
    struct sel_compile_user user = {0};
    if (s->modules)
        user = sel_modules_compile_user(s->modules);
    struct sel_cli_config_request request = {
        .nodes = v->nodes,
        .flows = v->flows,
        .getenv = v->mock ? sel_cli_case_getenv : NULL,
        .getenv_ctx = &s->script,
        .user = s->modules ? &user : NULL,
    };
    if (sel_cli_config_load(s->cli, &request, &s->config) < 0)
        return SEL_CLI_FAILED;
    return add_log_trace(s);
}

/* A new file in the folder for temporary ones, in place of --config-py. */
static const char *temporary_path(struct session *s)
{
    const char *folder = s->cli->getenv(s->cli->getenv_ctx, "TMPDIR");
    char *path = sel_arena_printf(&s->arena, "%s/selinon-config-XXXXXX",
                                  folder && *folder ? folder : "/tmp");
    int fd = path ? mkstemp(path) : -1;
    if (fd < 0)
        return NULL;
    (void)close(fd); /* written by name below */
    return path;
}

/* Whether it may be removed: not a device, nor a link to something, nor standard output. */
static bool is_own_file(const char *path)
{
    struct stat st;
    return strcmp(path, "-") != 0 && lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* --config-py: what was compiled, for people and tools to look at. */
static int dump_config(struct session *s)
{
    const struct values *v = s->values;
    if (!v->config_py && !v->keep_config_py)
        return SEL_CLI_OK;
    const char *path = v->config_py ? v->config_py : temporary_path(s);
    if (!path)
        return sel_cli_fail(s->cli, "no temporary file for the configuration: use --config-py");
    struct sel_arena arena = {0};
    struct sel_buf text = {0};
    struct sel_value dump;
    struct sel_error err;
    int r = sel_system_dump(&arena, s->config.system, &dump);
    if (r == 0) {
        sel_json_write(&dump, SEL_JSON_PRETTY, &text);
        sel_buf_put_u8(&text, '\n');
        r = sel_buf_error(&text);
    }
    (void)sel_error_set(&err, r, (struct sel_pos){path, 0, 0}, "%s", sel_error_text(r));
    if (r == 0)
        r = sel_cli_write_file(s->cli, path, sel_buf_str(&text), &err);
    sel_buf_done(&text);
    sel_arena_done(&arena);
    if (r < 0)
        return sel_cli_fail_with(s->cli, &err);
    if (!v->keep_config_py)
        s->dump_path = is_own_file(path) ? path : NULL;
    else if (!v->config_py)
        fprintf(s->cli->err, "%s: the compiled configuration\n", path);
    return SEL_CLI_OK;
}

/* ---- the run ---- */

static int make_mock(struct session *s)
{
    struct sel_error err;
    if (!s->values->mock)
        return SEL_CLI_OK;
    int r = sel_mock_new(s->config.system, &s->script.script, &s->mock, &err);
    if (r == 0)
        return SEL_CLI_OK;
    if (!err.pos.file)
        err.pos.file = s->values->mock;
    return sel_cli_fail_with(s->cli, &err);
}

static int make_executor(struct session *s, const struct sel_executor_observer *observer)
{
    const struct values *v = s->values;
    struct sel_error err;
    struct sel_executor_options settings = {
        .system = s->config.system,
        .modules = s->modules,
        .mock = s->mock,
        .flow_name = sel_str_c(s->flow_name),
        .node_args = s->node_args,
        .selective = s->is_selective ? &s->selective : NULL,
        .presets = s->script.presets,
        .preset_count = s->script.preset_count,
        .threads = (uint32_t)v->concurrency,
        .virtual_time = v->virtual_time,
        .shuffle_seed = (uint64_t)v->shuffle,
        .queues = v->queues.items,
        .queue_count = v->queues.count,
        .getenv = v->mock ? sel_cli_case_getenv : NULL,
        .getenv_ctx = &s->script,
        .observer = observer,
        .log = sel_cli_progress_log,
        .log_ctx = &s->progress,
        .verbosity = s->cli->verbosity,
        .progress = s->progress.is_on ? sel_cli_progress_show : NULL,
        .progress_ctx = &s->progress,
        .progress_us = PROGRESS_US,
        .should_stop = should_stop,
    };
    int r = sel_executor_new(&settings, &s->executor, &err);
    return r < 0 ? sel_cli_fail_with(s->cli, &err) : SEL_CLI_OK;
}

static int report(struct session *s, const struct sel_executor_report *done)
{
    struct sel_cli_summary summary = {
        .system = s->config.system,
        .executor = s->executor,
        .report = done,
        .failures = &s->failures,
        .flow_name = s->flow_name,
        .virtual_time = s->values->virtual_time,
        .scripted = s->mock != NULL,
        .getenv = s->values->mock ? sel_cli_case_getenv : s->cli->getenv,
        .getenv_ctx = s->values->mock ? (void *)&s->script : s->cli->getenv_ctx,
    };
    sel_cli_summary_print(s->cli, &summary);
    if (s->values->json) {
        int r = sel_cli_summary_print_json(s->cli, &summary);
        if (r < 0)
            return sel_cli_fail(s->cli, "%s", sel_error_text(r));
    }
    bool fine = done->outcome == SEL_FLOW_SUCCESS && done->stuck == 0;
    return sel_cli_finish(s->cli, fine ? SEL_CLI_OK : SEL_CLI_FAILED);
}

static int run_executor(struct session *s)
{
    struct sel_executor_observer observer = {.ctx = &s->failures,
                                             .execution = sel_cli_failures_see};
    int status = make_executor(s, &observer);
    if (status != SEL_CLI_OK)
        return status;
    const struct sel_executor_report *done;
    struct sel_error err;
    catch_signals();
    int r = sel_executor_run(s->executor, &done, &err);
    sel_cli_progress_erase(&s->progress);
    return r < 0 ? sel_cli_fail_with(s->cli, &err) : report(s, done);
}

/* A line that other output would tear is not drawn. */
static bool wants_progress(const struct session *s)
{
    return !s->values->hide_progressbar && s->cli->verbosity == 0 &&
           !has_trace(s->config.system, SEL_TRACE_LOGGING) &&
           !has_trace(s->config.system, SEL_TRACE_JSON);
}

static void release(struct session *s)
{
    s->executor = sel_executor_free(s->executor);
    s->mock = sel_mock_free(s->mock);
    if (s->dump_path)
        (void)unlink(s->dump_path); /* somebody else may have removed it */
    sel_config_done(&s->config);
    s->modules = sel_modules_free(s->modules);
    sel_arena_done(&s->arena);
}

static int run_prepared(struct session *s)
{
    sel_cli_failures_init(&s->failures);
    sel_cli_progress_init(&s->progress, s->cli, s->flow_name, wants_progress(s));
    int status = make_mock(s);
    if (status == SEL_CLI_OK)
        status = run_executor(s);
    s->executor = sel_executor_free(s->executor); /* may log while it ends */
    sel_cli_progress_done(&s->progress);
    sel_cli_failures_done(&s->failures);
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    struct session s = {.cli = cli, .values = p};
    int status = take_request(&s);
    if (status == SEL_CLI_OK)
        status = load_config(&s);
    if (status == SEL_CLI_OK)
        status = dump_config(&s);
    if (status == SEL_CLI_OK)
        status = run_prepared(&s);
    release(&s);
    return status;
}

const struct sel_cli_command sel_cli_cmd_execute = {
    .name = "execute",
    .about = "Run a flow in this process, without a broker.",
    .more = "Ends with 0 if the flow succeeded, 1 if it failed, was cancelled, or could not be\n"
            "started, 2 if this command line is wrong. Ctrl-C cancels the flow; a second one ends\n"
            "the program at once.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
