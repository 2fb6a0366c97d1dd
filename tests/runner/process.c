#include "tests/runner/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: only what is safe beside other threads. */
__attribute__((noreturn)) static void become(const char *const *argv, char *const *env,
                                             const char *log)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing is left behind */
    int in = open("/dev/null", O_RDONLY);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (in >= 0 && out >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(out, STDERR_FILENO) >= 0)
        (void)execve(argv[0], (char *const *)(uintptr_t)argv, env);
    _exit(127);
}

int sel_runner_process_start(struct sel_runner_process *process, const char *const *argv,
                             char *const *env, const char *log)
{
    *process = (struct sel_runner_process){.fd = -1};
    pid_t pid = fork();
    if (pid == 0)
        become(argv, env, log);
    if (pid < 0)
        return -errno;
    process->pid = pid;
    process->fd = (int)syscall(SYS_pidfd_open, pid, 0u);
    if (process->fd >= 0)
        return 0;
    int r = -errno;
    sel_runner_process_done(process);
    return r;
}

bool sel_runner_process_wait(struct sel_runner_process *process, int timeout_ms)
{
    struct pollfd fd = {.fd = process->fd, .events = POLLIN};
    if (process->has_ended || process->pid == 0)
        return true;
    if (process->fd >= 0 && poll(&fd, 1, timeout_ms) <= 0)
        return false;
    int status = 0;
    if (waitpid(process->pid, &status, 0) != process->pid)
        return false;
    process->status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    process->has_ended = true;
    return true;
}

bool sel_runner_process_stop(struct sel_runner_process *process, int timeout_ms)
{
    if (process->pid == 0 || process->has_ended)
        return true;
    (void)kill(process->pid, SIGTERM); /* it is ours, so it is there */
    bool has_ended = sel_runner_process_wait(process, timeout_ms);
    if (!has_ended) {
        (void)kill(process->pid, SIGKILL);
        (void)sel_runner_process_wait(process, -1);
    }
    return has_ended;
}

void sel_runner_process_done(struct sel_runner_process *process)
{
    if (process->pid > 0 && !process->has_ended) {
        (void)kill(process->pid, SIGKILL);
        (void)sel_runner_process_wait(process, -1);
    }
    if (process->pid > 0 && process->fd >= 0)
        (void)close(process->fd);
    *process = (struct sel_runner_process){0};
}
