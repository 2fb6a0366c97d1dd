/* selinon-worker - runs the tasks and decides the flows that a broker has for it. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/arena.h"
#include "worker/config.h"
#include "worker/crash.h"
#include "worker/mock_files.h"
#include "worker/mock_report.h"
#include "worker/module.h"
#include "worker/options.h"
#include "worker/process.h"
#include "worker/supervisor.h"

#define PROGRAM "selinon-worker"

struct program {
    struct sel_worker_settings settings;
    struct sel_worker_logger log;
    struct sel_worker_life life;
    struct sel_modules *modules;
    struct sel_config config;
    struct sel_mock_files mock;
    struct sel_worker_process *process;
    int signal_fd;
};

static const char *process_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return getenv(name);
}

/* ---- start ---- */

static int print_error(const struct sel_error *err)
{
    char text[SEL_ERROR_TEXT_MAX + 512];
    fprintf(stderr, "Error: %s\n", sel_error_format(err, text, sizeof(text)));
    return err->code;
}

/* A mock needs no modules: what they would have is scripted. */
static int open_modules(struct program *p)
{
    const struct sel_worker_settings *s = &p->settings;
    if (s->mock && !s->module_path)
        return 0;
    p->modules = sel_modules_new(s->module_path);
    if (p->modules)
        return 0;
    fprintf(stderr, "Error: %s\n", sel_error_text(SEL_ENOMEM));
    return SEL_ENOMEM;
}

static int load_config(struct program *p)
{
    const struct sel_worker_settings *s = &p->settings;
    struct sel_error err = {0};
    int r = open_modules(p);
    if (r < 0)
        return r;
    struct sel_compile_user user = {0};
    if (p->modules)
        user = sel_modules_compile_user(p->modules);
    const struct sel_config_request request = {.nodes = s->nodes,
                                               .flows = s->flows.items,
                                               .flow_count = s->flows.count,
                                               .getenv = process_getenv,
                                               .user = p->modules ? &user : NULL};
    r = sel_config_load(&request, &p->config, &err);
    if (r < 0 || s->verbosity > 0) /* that no flow runs a task is no matter here */
        sel_config_print(&p->config.diag, stderr);
    if (r == SEL_ECONFIG) {
        uint32_t count = p->config.diag.error_count;
        fprintf(stderr, "Error: the configuration has %u error%s\n", count, count == 1 ? "" : "s");
    } else if (r < 0) {
        (void)print_error(&err);
    }
    return r;
}

static int open_mock(struct program *p)
{
    const struct sel_worker_settings *s = &p->settings;
    struct sel_error err = {0};
    if (!s->mock)
        return 0;
    int r = sel_mock_files_open(&p->mock, p->config.system, s->mock, s->mock_state, s->mock_report,
                                &err);
    return r < 0 ? print_error(&err) : 0;
}

static uint32_t thread_count(const struct sel_worker_settings *s)
{
    cpu_set_t allowed;
    if (s->threads >= 0)
        return (uint32_t)s->threads;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return 1;
    return (uint32_t)CPU_COUNT(&allowed);
}

static uint32_t slot_count(const struct sel_worker_settings *s)
{
    return s->slots ? (uint32_t)s->slots : SEL_WORKER_SLOTS_DEFAULT;
}

static int start(struct program *p)
{
    const struct sel_worker_settings *s = &p->settings;
    struct sel_error err = {0};
    const struct sel_worker_process_options options = {
        .system = p->config.system,
        .modules = p->modules,
        .brokers = s->brokers.items,
        .broker_count = s->brokers.count,
        .queues = s->queues.items,
        .queue_count = s->queues.count,
        .threads = thread_count(s),
        .slots = slot_count(s),
        .window = (uint32_t)s->window,
        .dispatchers = (uint32_t)s->dispatchers,
        .flows = (uint32_t)s->flow_window,
        .flow_nodes_max = (uint32_t)s->flow_nodes_max,
        .name = s->name,
        .id = p->life.id,
        .incarnation = p->life.incarnation,
        .pin = s->pin,
        .page = p->life.page,
        .crashed = p->life.crashed,
        .log = p->log,
        .verbosity = (int)s->verbosity,
        .mock = p->mock.mock,
        .mock_results = p->mock.results,
        .speed = (double)s->mock_speed,
        .observer = p->mock.observer,
    };
    int r = sel_worker_process_start(&options, &p->process, &err);
    if (r < 0)
        return print_error(&err);
    sel_worker_logger_put(&p->log, SEL_LOG_INFO, "worker.start",
                          "version=%s broker=%s threads=%u slots=%u dispatchers=%u flows=%u "
                          "incarnation=%u",
                          SEL_VERSION, s->brokers.items[0], options.threads, options.slots,
                          options.dispatchers, options.flows, options.incarnation);
    return 0;
}

/* ---- the end ---- */

/* The supervisor takes the status as it is meant. */
static void note_end(const struct program *p)
{
    if (p->life.page)
        p->life.page->has_ended = 1;
}

__attribute__((noreturn)) static void leave(const struct program *p, int status)
{
    note_end(p);
    _exit(status); /* threads may be in the midst of anything */
}

static int status_of(enum sel_worker_end end)
{
    switch (end) {
    case SEL_WORKER_DRAINED:
        return SEL_WORKER_STATUS_OK;
    case SEL_WORKER_REFUSED:
        return SEL_WORKER_STATUS_REFUSED;
    case SEL_WORKER_RUNS:
    case SEL_WORKER_LEFT:
    case SEL_WORKER_STUCK:
        break;
    }
    return SEL_WORKER_STATUS_LEFT;
}

static void log_lost_lines(const struct program *p)
{
    uint64_t lost = p->mock.report ? sel_mock_report_lost(p->mock.report) : 0;
    if (lost > 0)
        sel_worker_logger_put(&p->log, SEL_LOG_ERROR, "worker.report",
                              "%llu lines could not be written to %s", (unsigned long long)lost,
                              p->settings.mock_report);
}

static void log_stats(const struct program *p, enum sel_worker_end end)
{
    struct sel_worker_process_stats stats;
    sel_worker_process_get_stats(p->process, &stats);
    sel_worker_logger_put(
        &p->log, end == SEL_WORKER_DRAINED ? SEL_LOG_INFO : SEL_LOG_WARNING, "worker.end",
        "%s taken=%llu succeeded=%llu failed=%llu retried=%llu returned=%llu cancelled=%llu "
        "unknown=%llu redelivered=%llu flows=%llu decisions=%llu connects=%llu blocked=%llu "
        "missed=%llu",
        end == SEL_WORKER_DRAINED   ? "drained"
        : end == SEL_WORKER_REFUSED ? "refused by the broker"
                                    : "something was left behind",
        (unsigned long long)stats.held.taken, (unsigned long long)stats.bare.succeeded,
        (unsigned long long)stats.bare.failed, (unsigned long long)stats.bare.retried,
        (unsigned long long)stats.held.returned, (unsigned long long)stats.held.cancelled,
        (unsigned long long)stats.bare.unknown, (unsigned long long)stats.held.redelivered,
        (unsigned long long)stats.flows.taken, (unsigned long long)stats.flows.decisions,
        (unsigned long long)stats.link.connects, (unsigned long long)stats.link.blocked,
        (unsigned long long)stats.link.missed);
}

/* ---- the run ---- */

static void on_signal(struct program *p, bool *is_draining)
{
    struct signalfd_siginfo info;
    if (read(p->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (*is_draining) {
        sel_worker_logger_put(&p->log, SEL_LOG_WARNING, "worker.stop",
                              "a second signal: what runs is left behind");
        leave(p, SEL_WORKER_STATUS_LEFT);
    }
    *is_draining = true;
    sel_worker_logger_put(&p->log, SEL_LOG_INFO, "worker.drain", "signal=%u timeout_s=%.1f",
                          info.ssi_signo, (double)p->settings.drain_timeout_us / 1e6);
    sel_worker_process_drain(p->process, p->settings.drain_timeout_us);
}

static enum sel_worker_end wait_for_end(struct program *p)
{
    struct pollfd fds[] = {{.fd = p->signal_fd, .events = POLLIN},
                           {.fd = sel_worker_process_fd(p->process), .events = POLLIN}};
    enum sel_worker_end end;
    bool is_draining = false;
    while ((end = sel_worker_process_end(p->process)) == SEL_WORKER_RUNS) {
        if (poll(fds, SEL_COUNT(fds), -1) > 0 && fds[0].revents)
            on_signal(p, &is_draining);
    }
    return end;
}

static int open_signals(struct program *p)
{
    sigset_t set;
    sel_worker_signals(&set);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD); /* the supervisor's */
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    sel_worker_signals(&set);
    p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return p->signal_fd < 0 ? -errno : 0;
}

static int run(struct program *p)
{
    int r = open_signals(p);
    if (r == 0)
        r = load_config(p);
    if (r == 0)
        r = open_mock(p);
    if (r == 0) {
        sel_crash_watch_signals();
        r = start(p);
    }
    if (r < 0)
        return SEL_WORKER_STATUS_FAILED;
    enum sel_worker_end end = wait_for_end(p);
    if (end == SEL_WORKER_STUCK || end == SEL_WORKER_REFUSED) {
        sel_worker_logger_put(&p->log, SEL_LOG_WARNING, "worker.end", "%s",
                              end == SEL_WORKER_STUCK ? "a task does not end: it is left behind"
                                                      : "refused by the broker");
        leave(p, status_of(end));
    }
    log_stats(p, end);
    log_lost_lines(p);
    p->process = sel_worker_process_free(p->process);
    return status_of(end);
}

static void release(struct program *p)
{
    p->process = sel_worker_process_free(p->process);
    sel_mock_files_done(&p->mock);
    sel_config_done(&p->config);
    p->modules = sel_modules_free(p->modules);
    if (p->signal_fd >= 0)
        (void)close(p->signal_fd);
}

static int run_supervised(struct program *p)
{
    int status = SEL_WORKER_STATUS_FAILED, r = 1;
    if (!p->settings.no_supervisor)
        r = sel_worker_supervise(
            &p->log, thread_count(&p->settings) + (uint32_t)p->settings.dispatchers,
            SEL_WORKER_PAGE_SLOTS(slot_count(&p->settings)), &p->life, &status);
    if (r < 0) {
        fprintf(stderr, "Error: the worker process cannot be started: %s\n", sel_error_text(r));
        return SEL_WORKER_STATUS_FAILED;
    }
    if (r == 0)
        return status;
    status = run(p);
    release(p);
    note_end(p);
    sel_worker_life_done(&p->life);
    return status;
}

int main(int argc, char **argv)
{
    struct program program = {.signal_fd = -1};
    struct sel_arena arena = {0};
    struct sel_error err = {0};
    int status = SEL_WORKER_STATUS_OK;
    (void)signal(SIGPIPE, SIG_IGN);
    int r = sel_worker_settings_parse(argc, argv, process_getenv, NULL, &arena, &program.settings,
                                      &err);
    program.log = (struct sel_worker_logger){
        .fd = STDERR_FILENO,
        .level = program.settings.verbosity > 1 ? SEL_LOG_DEBUG : SEL_LOG_INFO};
    if (r < 0) {
        fprintf(stderr,
                "Usage: " PROGRAM " -n FILE [OPTIONS]\nTry '" PROGRAM " --help'.\n\nError: %s\n",
                err.text);
        status = SEL_WORKER_STATUS_USAGE;
    } else if (program.settings.help) {
        sel_worker_settings_help(stdout);
    } else if (program.settings.version) {
        printf(PROGRAM " " SEL_VERSION "\n");
    } else {
        status = run_supervised(&program);
    }
    sel_arena_done(&arena);
    return status;
}
