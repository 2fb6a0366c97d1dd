#include "worker/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/assert.h"
#include "core/error.h"
#include "core/mem.h"
#include "worker/co.h"
#include "worker/loop.h"
#include "worker/sys.h"

#define CHUNK_SIZE ((size_t)64 * 1024) /* the usual size of a pipe */
#define REST_READS_MAX 32              /* 2 MiB; a pipe holds at most 1 MiB (pipe(7)) */

/* Indexes of our ends of the pipes, and what epoll calls the process itself. */
enum { IN, OUT, ERR, END, EVENT_COUNT };

struct child {
    const struct sel_subprocess_options *options;
    struct sel_subprocess_result *ret;
    pid_t pid;   /* leader of the group of the same number; not reaped while it counts */
    int process; /* pidfd */
    int epoll;
    int fds[3];       /* ours; -1: closed */
    size_t in_offset; /* written so far */
    bool has_ended;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* a pipe, an epoll or a pidfd: nothing is lost by it */
    *fd = -1;
}

/* ---- starting ---- */

/* Descriptors 0 to 2 would be overwritten while those of the child are put in place; a program
 * that was started without them hands them out. */
static int move_up(int *fd)
{
    if (*fd > 2)
        return 0;
    int higher = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
    if (higher < 0)
        return -errno;
    close_fd(fd);
    *fd = higher;
    return 0;
}

/* A pipe; our end does not block. */
static int open_pipe(bool ours_writes, int *ret_ours, int *ret_theirs)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int r = move_up(&ends[0]);
    if (r == 0)
        r = move_up(&ends[1]);
    int ours = ours_writes ? 1 : 0;
    if (r == 0 && fcntl(ends[ours], F_SETFL, O_NONBLOCK) < 0)
        r = -errno;
    if (r < 0) {
        close_fd(&ends[0]);
        close_fd(&ends[1]);
        return r;
    }
    *ret_ours = ends[ours];
    *ret_theirs = ends[1 - ours];
    return 0;
}

/* Signals as a program expects them, and a group of its own. */
static int set_attributes(posix_spawnattr_t *attr)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    int r = posix_spawnattr_setsigdefault(attr, &all);
    if (r == 0)
        r = posix_spawnattr_setsigmask(attr, &none);
    if (r == 0)
        r = posix_spawnattr_setpgroup(attr, 0);
    if (r == 0)
        r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETPGROUP);
    return -r;
}

static int set_descriptors(posix_spawn_file_actions_t *actions, const int theirs[3])
{
    int r = 0;
    for (int i = 0; i < 3 && r == 0; i++)
        r = posix_spawn_file_actions_adddup2(actions, theirs[i], i);
    /* Descriptors that a module opened without O_CLOEXEC must not get into the program. */
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(actions, 3);
    return -r;
}

/* posix_spawn does not copy the address space and reports a failed exec to us. */
static int spawn(struct child *child, const int theirs[3])
{
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t actions;
    int r = -posix_spawnattr_init(&attr);
    if (r < 0)
        return r;
    r = -posix_spawn_file_actions_init(&actions);
    if (r == 0) {
        r = set_attributes(&attr);
        if (r == 0)
            r = set_descriptors(&actions, theirs);
        /* posix_spawn takes argv as char *const[], yet does not change it */
        if (r == 0)
            r = -posix_spawnp(&child->pid, child->options->argv[0], &actions, &attr,
                              (char *const *)child->options->argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attr);
    return r;
}

static int watch(struct child *child, int fd, uint32_t events, uint32_t index)
{
    struct epoll_event event = {.events = events, .data.u32 = index};
    return epoll_ctl(child->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* What is to be watched before the program exists, so that little can fail after. */
static int watch_pipes(struct child *child)
{
    child->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (child->epoll < 0)
        return -errno;
    int r = watch(child, child->fds[OUT], EPOLLIN, OUT);
    if (r == 0)
        r = watch(child, child->fds[ERR], EPOLLIN, ERR);
    if (r == 0 && child->options->in.n > 0)
        r = watch(child, child->fds[IN], EPOLLOUT, IN);
    return r;
}

static int start(struct child *child)
{
    int theirs[3] = {-1, -1, -1};
    int r = 0;
    for (int i = 0; i < 3 && r == 0; i++)
        r = open_pipe(i == IN, &child->fds[i], &theirs[i]);
    if (r == 0)
        r = watch_pipes(child);
    if (r == 0)
        r = spawn(child, theirs);
    for (int i = 0; i < 3; i++)
        close_fd(&theirs[i]);
    if (r == 0 && child->options->in.n == 0)
        close_fd(&child->fds[IN]);
    return r;
}

/* ---- input and output ---- */

/* A program that does not read its input must not end us: SIGPIPE is sent to the thread that
 * writes, and is taken back here. */
static ssize_t write_pipe(int fd, const void *p, size_t n)
{
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    (void)sigpending(&pending); /* neither can fail with these arguments */
    (void)pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t r = write(fd, p, n);
    if (r < 0)
        r = -errno;
    if (r == -EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec now = {0, 0};
        (void)sigtimedwait(&pipe_signal, NULL, &now); /* EAGAIN: it was ignored anyway */
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int feed(struct child *child)
{
    const struct sel_bytes in = child->options->in;
    size_t left = in.n - child->in_offset;
    ssize_t r = write_pipe(child->fds[IN], (const char *)in.p + child->in_offset,
                           left < CHUNK_SIZE ? left : CHUNK_SIZE);
    if (r == -EAGAIN || r == -EINTR)
        return 0;
    if (r > 0)
        child->in_offset += (size_t)r;
    /* EPIPE: it does not want the rest, which is its own affair. */
    if (r == -EPIPE || child->in_offset == in.n)
        close_fd(&child->fds[IN]);
    return r < 0 && r != -EPIPE ? (int)r : 0;
}

/* Keeps the last err_max bytes, with twice the room so that bytes are moved seldom. */
static void cut_head(struct child *child)
{
    struct sel_buf *err = &child->ret->err;
    size_t drop = err->n - child->options->err_max;
    memmove(err->p, err->p + drop, err->n - drop);
    err->n -= drop;
    child->ret->err_cut = true;
}

static int check_size(struct child *child, int index)
{
    const struct sel_subprocess_options *options = child->options;
    if (index == OUT)
        return child->ret->out.n > options->out_max ? SEL_ELIMIT : 0;
    if (child->ret->err.n <= options->err_max)
        return 0;
    if (!options->err_tail)
        return SEL_ELIMIT;
    if (child->ret->err.n > 2 * options->err_max)
        cut_head(child);
    return 0;
}

/* Reads once: 1 there may be more, 0 not now or the end, or negative. */
static int drain(struct child *child, int index)
{
    struct sel_buf *buf = index == OUT ? &child->ret->out : &child->ret->err;
    if (!sel_buf_reserve(buf, CHUNK_SIZE))
        return SEL_ENOMEM;
    ssize_t r = read(child->fds[index], buf->p + buf->n, CHUNK_SIZE);
    if (r < 0)
        return errno == EINTR ? 1 : errno == EAGAIN ? 0 : -errno;
    if (r == 0) {
        close_fd(&child->fds[index]);
        return 0;
    }
    buf->n += (size_t)r;
    int fault = check_size(child, index);
    return fault < 0 ? fault : 1;
}

static int handle(struct child *child, uint32_t index)
{
    if (index == END) {
        child->has_ended = true;
        return 0;
    }
    if (child->fds[index] < 0)
        return 0;
    int r = index == IN ? feed(child) : drain(child, (int)index);
    return r < 0 ? r : 0;
}

/* Until the program ends: 0, or why it must be ended. */
static int converse(struct child *child)
{
    int64_t timeout_us = child->options->timeout_us;
    int64_t end_us = timeout_us > 0 ? sel_sys_now_us() + timeout_us : 0;
    while (!child->has_ended) {
        int64_t left_us = 0;
        if (timeout_us > 0) {
            left_us = end_us - sel_sys_now_us();
            if (left_us <= 0)
                return SEL_ETIMEOUT;
        }
        int r = sel_sys_poll(child->options->owner, child->epoll, POLLIN, left_us);
        if (r < 0)
            return r;
        struct epoll_event events[EVENT_COUNT];
        int count = epoll_wait(child->epoll, events, EVENT_COUNT, 0);
        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++) {
            r = handle(child, events[i].data.u32);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* What was written before the end is still in the pipes; no more than that, since a process that
 * left the group may go on writing for ever. */
static int drain_rest(struct child *child)
{
    for (int index = OUT; index <= ERR; index++) {
        int r = 1;
        for (int i = 0; i < REST_READS_MAX && r > 0 && child->fds[index] >= 0; i++)
            r = drain(child, index);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the end ---- */

/* 1: reaped, 0: still running, negative: there is no such child. */
static int try_reap(int process, int flags, siginfo_t *info)
{
    int r;
    info->si_pid = 0;
    do {
        r = waitid(P_PIDFD, (id_t)process, info, WEXITED | flags);
    } while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    return info->si_pid != 0;
}

struct reaper {
    int process;
};

static void reap_later(void *arg)
{
    struct reaper *reaper = arg;
    siginfo_t info;
    int r = try_reap(reaper->process, WNOHANG, &info);
    while (r == 0 && sel_co_poll(reaper->process, POLLIN, 0) >= 0)
        r = try_reap(reaper->process, WNOHANG, &info);
    if (r == 0)
        (void)try_reap(reaper->process, 0, &info); /* killed already, it cannot take long */
    close_fd(&reaper->process);
    sel_mem_free(reaper);
}

/* A cancelled coroutine cannot wait any more; another one does it for the killed program. */
static bool leave_to_reaper(struct child *child)
{
    struct sel_loop *loop = sel_co_current() ? sel_loop_current() : NULL;
    struct reaper *reaper = loop ? SEL_NEW(struct reaper) : NULL;
    if (!reaper)
        return false;
    reaper->process = child->process;
    if (sel_loop_spawn(loop, reap_later, reaper, NULL) < 0) {
        sel_mem_free(reaper);
        return false;
    }
    child->process = -1;
    return true;
}

/* The group is killed; waits for its leader and takes its status. */
static void reap(struct child *child)
{
    siginfo_t info = {0};
    int r = try_reap(child->process, WNOHANG, &info);
    while (r == 0 && sel_sys_poll(NULL, child->process, POLLIN, 0) >= 0)
        r = try_reap(child->process, WNOHANG, &info);
    if (r == 0) {
        if (leave_to_reaper(child))
            return;
        r = try_reap(child->process, 0, &info);
    }
    if (r > 0 && info.si_code == CLD_EXITED)
        child->ret->exit_status = info.si_status;
    else if (r > 0)
        child->ret->signal = info.si_status;
}

static int supervise(struct child *child)
{
    child->process = (int)syscall(SYS_pidfd_open, child->pid, 0);
    int r = child->process < 0 ? -errno : watch(child, child->process, EPOLLIN, END);
    if (r == 0)
        r = converse(child);
    /* The number cannot have been given to others: the leader is not reaped yet. */
    (void)kill(-child->pid, SIGKILL); /* ESRCH: nothing is left of the group */
    if (r == 0)
        r = drain_rest(child);
    if (child->process >= 0)
        reap(child);
    else
        (void)waitpid(child->pid, NULL, 0); /* out of descriptors: just killed, so it is short */
    return r;
}

int sel_subprocess_run(const struct sel_subprocess_options *options,
                       struct sel_subprocess_result *ret)
{
    SEL_ASSERT(options->argv && options->argv[0]);
    struct child child = {
        .options = options, .ret = ret, .process = -1, .epoll = -1, .fds = {-1, -1, -1}};
    *ret = (struct sel_subprocess_result){.exit_status = -1};
    if (sel_sys_is_cancelled(options->owner))
        return SEL_ECANCELED;
    int r = start(&child);
    if (r == 0)
        r = supervise(&child);
    if (ret->err.n > options->err_max)
        cut_head(&child);
    for (int i = 0; i < 3; i++)
        close_fd(&child.fds[i]);
    close_fd(&child.epoll);
    close_fd(&child.process);
    return r;
}

void sel_subprocess_result_done(struct sel_subprocess_result *result)
{
    sel_buf_done(&result->out);
    sel_buf_done(&result->err);
}

/* ---- looking before a start ---- */

int sel_subprocess_check(const char *program)
{
    if (strchr(program, '/'))
        return access(program, X_OK) < 0 ? -errno : 0;
    const char *path = getenv("PATH");
    if (!path)
        path = "/bin:/usr/bin"; /* as posix_spawnp has it */
    int r = -ENOENT;
    for (const char *p = path; r < 0; p++) {
        size_t n = strcspn(p, ":");
        char file[PATH_MAX];
        int len = snprintf(file, sizeof(file), "%.*s%s%s", (int)n, p, n ? "/" : "", program);
        if (len > 0 && (size_t)len < sizeof(file)) {
            if (access(file, X_OK) == 0)
                r = 0;
            else if (errno == EACCES)
                r = -EACCES;
        }
        p += n;
        if (*p == '\0')
            break;
    }
    return r;
}
