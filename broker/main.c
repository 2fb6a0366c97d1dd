/* selinon-broker - the broker as a program: settings, signals, exit status. */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/process.h"
#include "core/mem.h"

#define PROGRAM "selinon-broker"

/* Exit statuses, as those of selinon-cli. */
enum { OK = 0, FAILED = 1, USAGE = 2 };

/* A descriptor a connection: as many as the system allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* else what there is must do */
}

/* Large blocks (batches, what LMDB writes of them) go back to the system when they are freed,
 * always: the C library would else keep more and more of them, a fifth of the memory of a full
 * queue. */
static void keep_memory_small(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 256 << 10); /* best effort */
}

/* SIGTERM and SIGINT come through the descriptor; -1: there is none. */
static int take_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set); /* these cannot fail */
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN); /* a terminal that closes; settings are read at the start only */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static const char *read_signal(int fd)
{
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return NULL;
    return info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT";
}

/* Until the broker has ended: the first signal asks it to, the second ends the process. */
static void wait_for_end(struct sel_broker_process *process, int signal_fd)
{
    struct pollfd fds[] = {{.fd = sel_broker_process_end_fd(process), .events = POLLIN},
                           {.fd = signal_fd, .events = POLLIN}};
    bool is_stopping = false;
    for (;;) {
        if (poll(fds, SEL_COUNT(fds), -1) < 0 && errno != EINTR)
            return;
        if (fds[0].revents)
            return;
        const char *name = fds[1].revents ? read_signal(signal_fd) : NULL;
        if (!name)
            continue;
        if (is_stopping)
            _exit(FAILED);
        is_stopping = true;
        sel_broker_process_stop(process, name);
    }
}

static int fail(const struct sel_error *err)
{
    char text[SEL_ERROR_TEXT_MAX + 256];
    fprintf(stderr, "%s: error: %s\n", PROGRAM, sel_error_format(err, text, sizeof(text)));
    return FAILED;
}

static int serve(const struct sel_broker_config *config)
{
    struct sel_broker_process *process;
    struct sel_error err;
    raise_descriptor_limit();
    keep_memory_small();
    int signal_fd = take_signals();
    if (signal_fd < 0) {
        (void)sel_error_set(&err, -errno, (struct sel_pos){0}, "signalfd: %s", strerror(errno));
        return fail(&err);
    }
    if (sel_broker_process_start(config, STDERR_FILENO, &process, &err) < 0)
        return fail(&err);
    wait_for_end(process, signal_fd);
    int r = sel_broker_process_join(process);
    (void)close(signal_fd);
    return r == 0 ? OK : FAILED;
}

static int print(struct sel_buf *text)
{
    bool is_whole = sel_buf_error(text) == 0 && fwrite(text->p, 1, text->n, stdout) == text->n &&
                    fflush(stdout) == 0;
    sel_buf_done(text);
    if (!is_whole)
        fprintf(stderr, "%s: error: standard output: not all could be written\n", PROGRAM);
    return is_whole ? OK : FAILED;
}

static void print_diagnostics(const struct sel_diag *diag)
{
    for (const struct sel_diag_item *item = diag->first; item; item = item->next) {
        struct sel_error err = {.pos = item->pos};
        char text[SEL_ERROR_TEXT_MAX + 256];
        (void)snprintf(err.text, sizeof(err.text), "%s", item->text);
        fprintf(stderr, "%s: %s: %s\n", PROGRAM, item->is_warning ? "warning" : "error",
                sel_error_format(&err, text, sizeof(text)));
    }
}

static int act(enum sel_broker_action action, const struct sel_broker_config *config)
{
    struct sel_buf text = {0};
    switch (action) {
    case SEL_BROKER_HELP:
        sel_broker_config_help(&text);
        return print(&text);
    case SEL_BROKER_VERSION:
        sel_buf_printf(&text, "%s %s\n", PROGRAM, SEL_VERSION);
        return print(&text);
    case SEL_BROKER_PRINT_CONFIG:
        sel_broker_config_print(config, &text);
        return print(&text);
    default:
        return serve(config);
    }
}

int main(int argc, char **argv)
{
    struct sel_arena arena = {0};
    struct sel_diag diag;
    struct sel_broker_config config;
    enum sel_broker_action action;
    sel_diag_init(&diag, &arena);
    int r = sel_broker_config_load(&config, &arena, argc, argv, &action, &diag);
    sel_diag_sort(&diag);
    print_diagnostics(&diag);
    int status = FAILED;
    if (r == 0)
        status = act(action, &config);
    else if (r == SEL_ENOMEM)
        fprintf(stderr, "%s: error: %s\n", PROGRAM, sel_error_text(r));
    else if (r == SEL_EREQUEST)
        fprintf(stderr, "Try '%s --help'.\n", PROGRAM);
    if (r == SEL_EREQUEST)
        status = USAGE;
    sel_arena_done(&arena);
    return status;
}
