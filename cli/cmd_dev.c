/* `dev`: a broker and workers in one process, for a laptop. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/process.h"
#include "cli/cli.h"
#include "worker/config.h"
#include "worker/mock_files.h"
#include "worker/module.h"
#include "worker/process.h"

#define DRAIN_US (INT64_C(10) * 1000000) /* for what runs when it ends */

struct values {
    const char *nodes;
    struct sel_cli_texts flows, queues;
    const char *module_path, *data, *listen, *query;
    const char *mock, *mock_state, *mock_report;
    int64_t concurrency, mock_speed;
    bool memory;
};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "nodes-definition",
     .letter = 'n',
     .kind = SEL_CLI_FILE,
     .required = true,
     MEMBER(nodes),
     .env = {"SELINON_NODES_DEFINITION"},
     .help = "the nodes file"},
    {.name = "flow-definitions",
     .letter = 'f',
     .kind = SEL_CLI_PATHS,
     MEMBER(flows),
     .env = {"SELINON_FLOW_DEFINITIONS"},
     .help = "flow files, or folders searched through all levels for *.yaml and *.yml"},
    {.name = "module-path",
     .kind = SEL_CLI_TEXT,
     MEMBER(module_path),
     .env = {"SELINON_MODULE_PATH"},
     .value_name = "FOLDER:...",
     .help = "where modules are looked for"},
    {.name = "concurrency",
     .letter = 'c',
     .kind = SEL_CLI_INT,
     .min = 1,
     .max = SEL_WORKER_THREADS_MAX,
     MEMBER(concurrency),
     .env = {"SELINON_DEV_CONCURRENCY"},
     .help = "threads that run tasks and decide flows; default: one for each processor"},
    {.name = "queues",
     .letter = 'Q',
     .kind = SEL_CLI_NAMES,
     MEMBER(queues),
     .env = {"SELINON_DEV_QUEUES"},
     .help = "serve only these; default: those of all tasks and flows"},
    {.name = "mock",
     .kind = SEL_CLI_FILE,
     MEMBER(mock),
     .help = "no code: tasks and functions do what this script says, as with execute"},
    {.name = "mock-state",
     .kind = SEL_CLI_TEXT,
     MEMBER(mock_state),
     .value_name = "FILE",
     .help = "count the steps of the script in this file; results of storages in memory go to the "
             "folder FILE.results"},
    {.name = "mock-report",
     .kind = SEL_CLI_TEXT,
     MEMBER(mock_report),
     .value_name = "FILE",
     .help = "append what runs, is stored, ends and is traced to this file, as lines of JSON"},
    {.name = "mock-speed",
     .kind = SEL_CLI_INT,
     .min = 1,
     .max = 1000000,
     MEMBER(mock_speed),
     .help = "delays pass so many times as fast, and flows with a sampling react at once"},
    {.name = "data",
     .kind = SEL_CLI_TEXT,
     MEMBER(data),
     .env = {"SELINON_DEV_DATA"},
     .value_name = "FOLDER",
     .help = "where the journal is kept, made if missing; default selinon-dev"},
    {.name = "memory",
     .kind = SEL_CLI_FLAG,
     MEMBER(memory),
     .help = "keep no journal: what is in it ends with it"},
    {.name = "listen",
     .kind = SEL_CLI_TEXT,
     MEMBER(listen),
     .value_name = "ENDPOINT",
     .help = "where producers connect; port * takes a free one; default tcp://127.0.0.1:5711"},
    {.name = "query",
     .kind = SEL_CLI_TEXT,
     MEMBER(query),
     .value_name = "ENDPOINT",
     .help = "where status, queues, ... ask; default tcp://127.0.0.1:5712"},
};

static const struct values defaults = {.data = "selinon-dev"};

struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_arena arena;
    struct sel_config config; /* of tasks and flows */
    struct sel_modules *modules;
    struct sel_mock_files mock;
    struct sel_broker_config broker_config;
    struct sel_broker_process *broker;
    struct sel_worker_process *worker;
    int signal_fd;
    bool is_stopping, is_stuck;
    int status;
};

/* ---- start ---- */

static int load_config(struct session *s)
{
    const struct values *v = s->values;
    struct sel_error err = {0};
    struct sel_compile_user user = {0};
    if (!v->mock || v->module_path) { /* a mock needs none */
        s->modules = sel_modules_new(v->module_path);
        if (!s->modules)
            return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
        user = sel_modules_compile_user(s->modules);
    }
    const struct sel_config_request request = {.nodes = v->nodes,
                                               .flows = v->flows.items,
                                               .flow_count = v->flows.count,
                                               .getenv = s->cli->getenv,
                                               .getenv_ctx = s->cli->getenv_ctx,
                                               .user = s->modules ? &user : NULL};
    int r = sel_config_load(&request, &s->config, &err);
    if (r < 0 || s->cli->verbosity > 0) /* that no flow runs a task is no matter here */
        sel_config_print(&s->config.diag, s->cli->err);
    if (r == SEL_ECONFIG)
        return sel_cli_fail(s->cli, "the configuration has errors");
    return r < 0 ? sel_cli_fail_with(s->cli, &err) : SEL_CLI_OK;
}

static int open_mock(struct session *s)
{
    const struct values *v = s->values;
    struct sel_error err = {0};
    if (!v->mock)
        return v->mock_state || v->mock_report || v->mock_speed
                   ? sel_cli_fail(s->cli, "--mock-state, --mock-report and --mock-speed are for "
                                          "--mock")
                   : SEL_CLI_OK;
    int r = sel_mock_files_open(&s->mock, s->config.system, v->mock, v->mock_state, v->mock_report,
                                &err);
    return r < 0 ? sel_cli_fail_with(s->cli, &err) : SEL_CLI_OK;
}

static int set_endpoint(struct session *s, struct sel_broker_endpoints *endpoints, const char *text)
{
    if (text)
        *endpoints = (struct sel_broker_endpoints){{text}, 1};
    if (strncmp(endpoints->items[0], "tcp://", 6) != 0 &&
        strncmp(endpoints->items[0], "ipc://", 6) != 0)
        return sel_cli_fail(s->cli, "'%s' is no endpoint; write tcp://ADDRESS:PORT or ipc://PATH",
                            endpoints->items[0]);
    return SEL_CLI_OK;
}

static int configure_broker(struct session *s)
{
    const struct values *v = s->values;
    struct sel_broker_config *config = &s->broker_config;
    sel_broker_config_init(config);
    config->name = "dev";
    config->log_level = s->cli->verbosity == 0   ? SEL_BROKER_WARNING
                        : s->cli->verbosity == 1 ? SEL_BROKER_INFO
                                                 : SEL_BROKER_DEBUG;
    if (set_endpoint(s, &config->listen, v->listen) || set_endpoint(s, &config->query, v->query))
        return SEL_CLI_FAILED;
    config->journal = NULL;
    if (v->memory)
        return SEL_CLI_OK;
    if (mkdir(v->data, 0777) < 0 && errno != EEXIST)
        return sel_cli_fail(s->cli, "%s: %s", v->data, strerror(errno));
    config->journal = sel_arena_printf(&s->arena, "%s/journal", v->data);
    return config->journal ? SEL_CLI_OK : sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
}

static uint32_t thread_count(const struct values *v)
{
    cpu_set_t allowed;
    if (v->concurrency > 0)
        return (uint32_t)v->concurrency;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return 1;
    return (uint32_t)CPU_COUNT(&allowed);
}

static int start_worker(struct session *s)
{
    const struct values *v = s->values;
    const struct sel_broker_endpoints *listens = sel_broker_process_listens(s->broker);
    struct sel_error err;
    const struct sel_worker_process_options worker = {
        .system = s->config.system,
        .modules = s->modules,
        .brokers = listens->items,
        .broker_count = 1,
        .queues = v->queues.items,
        .queue_count = v->queues.count,
        .threads = thread_count(v),
        .flows = SEL_WORKER_FLOWS_DEFAULT,
        .name = "dev",
        .log = {STDERR_FILENO, s->cli->verbosity == 0   ? SEL_LOG_WARNING
                               : s->cli->verbosity == 1 ? SEL_LOG_INFO
                                                        : SEL_LOG_DEBUG},
        .getenv = s->cli->getenv,
        .getenv_ctx = s->cli->getenv_ctx,
        .mock = s->mock.mock,
        .mock_results = s->mock.results,
        .speed = (double)v->mock_speed,
        .observer = s->mock.observer,
    };
    if (sel_worker_process_start(&worker, &s->worker, &err) < 0)
        return sel_cli_fail_with(s->cli, &err);
    return SEL_CLI_OK;
}

/* Ctrl-C comes through a descriptor; threads are started afterwards and inherit the mask. */
static int take_signals(struct session *s)
{
    sigset_t set;
    (void)sigemptyset(&set); /* these cannot fail */
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
        s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return s->signal_fd < 0 ? sel_cli_fail(s->cli, "signals: %s", strerror(errno)) : SEL_CLI_OK;
}

static int start(struct session *s)
{
    struct sel_error err;
    int status = load_config(s);
    if (status == SEL_CLI_OK)
        status = open_mock(s);
    if (status == SEL_CLI_OK)
        status = configure_broker(s);
    if (status == SEL_CLI_OK)
        status = take_signals(s);
    if (status != SEL_CLI_OK)
        return status;
    if (sel_broker_process_start(&s->broker_config, STDERR_FILENO, &s->broker, &err) < 0)
        return sel_cli_fail_with(s->cli, &err);
    return start_worker(s);
}

static int greet(const struct session *s)
{
    const struct sel_broker_config *config = &s->broker_config;
    uint32_t threads = thread_count(s->values);
    fprintf(s->cli->out, "broker   %s\nquery    %s\njournal  %s\nworkers  %u thread%s\n",
            sel_broker_process_listens(s->broker)->items[0],
            sel_broker_process_queries(s->broker)->items[0],
            config->journal ? config->journal : "none", threads, threads == 1 ? "" : "s");
    fprintf(s->cli->out, "Ctrl-C ends it.\n");
    return sel_cli_finish(s->cli, SEL_CLI_OK);
}

/* ---- the run and its end ---- */

static void on_signal(struct session *s)
{
    struct signalfd_siginfo info;
    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (s->is_stopping)
        _exit(SEL_CLI_FAILED);
    s->is_stopping = true;
    fprintf(s->cli->err, "Ending; a second Ctrl-C does not wait for what runs.\n");
    sel_worker_process_drain(s->worker, DRAIN_US);
}

/* Until the workers have ended, as asked or not; the broker lives longer than they. */
static void run_workers(struct session *s)
{
    struct pollfd fds[] = {{.fd = s->signal_fd, .events = POLLIN},
                           {.fd = sel_worker_process_fd(s->worker), .events = POLLIN},
                           {.fd = sel_broker_process_end_fd(s->broker), .events = POLLIN}};
    enum sel_worker_end end;
    while ((end = sel_worker_process_end(s->worker)) == SEL_WORKER_RUNS) {
        if (poll(fds, SEL_COUNT(fds), -1) < 0)
            continue; /* interrupted */
        if (fds[0].revents)
            on_signal(s);
        if (fds[2].revents) { /* its log says why */
            s->status = SEL_CLI_FAILED;
            fds[2].fd = -1;
            sel_worker_process_drain(s->worker, 0);
        }
    }
    s->is_stuck = end == SEL_WORKER_STUCK;
    if (end == SEL_WORKER_STUCK || end == SEL_WORKER_REFUSED || !s->is_stopping)
        s->status = SEL_CLI_FAILED;
}

static void stop(struct session *s)
{
    if (s->worker && !s->is_stuck)
        s->worker = sel_worker_process_free(s->worker);
    if (s->broker) {
        sel_broker_process_stop(s->broker, "dev");
        if (sel_broker_process_join(s->broker) < 0)
            s->status = SEL_CLI_FAILED;
    }
    if (s->is_stuck) { /* a thread of it is in code that does not end */
        fprintf(s->cli->err, "A task does not end: it is left behind.\n");
        _exit(SEL_CLI_FAILED);
    }
    sel_mock_files_done(&s->mock);
    sel_config_done(&s->config);
    s->modules = sel_modules_free(s->modules);
    if (s->signal_fd >= 0)
        (void)close(s->signal_fd);
    sel_arena_done(&s->arena);
}

static int run(const struct sel_cli *cli, const void *p)
{
    struct session s = {.cli = cli, .values = p, .signal_fd = -1};
    s.status = start(&s);
    if (s.status == SEL_CLI_OK)
        s.status = greet(&s);
    if (s.worker)
        run_workers(&s);
    stop(&s);
    return s.status;
}

const struct sel_cli_command sel_cli_cmd_dev = {
    .name = "dev",
    .about = "Run a broker and workers in this process, for trying things out.",
    .more =
        "Its endpoints are printed; they are the defaults of the other commands. Ctrl-C lets "
        "what runs end\nand keeps the rest in the journal for the next time. -v shows the log.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
