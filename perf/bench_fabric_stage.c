#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "perf/bench.h"
#include "perf/bench_fabric.h"

#define STOP_MS 5000
#define ENVIRONMENT_MAX 512

extern char **environ;

/* ---- the folder ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0; /* go on with the rest */
}

static void remove_folder(const char *folder)
{
    (void)nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* In a process of its own: waits until the other end of the pipe is closed, by whatever end its
 * owner has found, and removes the folder. The owner's children die with it, but not before it:
 * hence the second look. */
static void guard(const char *folder, int fd)
{
    char byte;
    const struct timespec pause = {.tv_nsec = 200 * 1000 * 1000};
    (void)setsid();
    while (read(fd, &byte, 1) < 0 && errno == EINTR)
        continue;
    remove_folder(folder);
    if (access(folder, F_OK) == 0) {
        (void)nanosleep(&pause, NULL);
        remove_folder(folder);
    }
    _exit(0);
}

int sel_stage_open(struct sel_stage *stage)
{
    const char *base = getenv("TMPDIR");
    int fds[2];
    *stage = (struct sel_stage){.guard_fd = -1};
    int n = snprintf(stage->folder, sizeof(stage->folder), "%s/selinon-bench-XXXXXX",
                     base ? base : "/var/tmp");
    if (n < 0 || (size_t)n >= sizeof(stage->folder))
        return -ENAMETOOLONG;
    if (!mkdtemp(stage->folder))
        return -errno;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        int r = -errno;
        remove_folder(stage->folder);
        return r;
    }
    stage->guard = fork();
    if (stage->guard == 0) {
        (void)close(fds[1]);
        guard(stage->folder, fds[0]);
    }
    (void)close(fds[0]);
    stage->guard_fd = fds[1];
    return stage->guard < 0 ? SEL_EFAILED : 0;
}

void sel_stage_close(struct sel_stage *stage)
{
    for (uint32_t i = SEL_STAGE_PROCESSES_MAX; i-- > 0;)
        sel_stage_stop(&stage->processes[i], SIGTERM);
    if (stage->guard_fd >= 0)
        (void)close(stage->guard_fd);
    if (stage->guard > 0)
        (void)waitpid(stage->guard, NULL, 0);
    *stage = (struct sel_stage){.guard_fd = -1};
}

const char *sel_stage_path(const struct sel_stage *stage, const char *name, char *out)
{
    (void)snprintf(out, SEL_STAGE_PATH_MAX, "%s/%s", stage->folder, name);
    return out;
}

const char *sel_stage_program(const char *name, char *out)
{
    char self[SEL_STAGE_PATH_MAX / 2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    (void)snprintf(out, SEL_STAGE_PATH_MAX, "%.*s/%s", slash ? (int)(slash - self) : 0, self, name);
    return out;
}

/* ---- processes ---- */

/* In the child: `out` takes what it prints. */
static void become(const char *const *argv, char **vars, int out, int err, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(126);
    (void)execve(argv[0], (char *const *)(uintptr_t)argv, vars);
    _exit(127);
}

static int open_log(struct sel_stage *stage)
{
    char path[SEL_STAGE_PATH_MAX], name[32];
    (void)snprintf(name, sizeof(name), "log.%u", stage->log_count);
    int fd =
        open(sel_stage_path(stage, name, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    stage->log_count++;
    return fd;
}

/* The environment with `more` in front, where it wins. */
static void join_environment(const char *const *more, char **ret)
{
    uint32_t n = 0;
    for (; more && more[n]; n++)
        ret[n] = (char *)(uintptr_t)more[n];
    for (char **old = environ; *old && n < ENVIRONMENT_MAX; old++)
        ret[n++] = *old;
    ret[n] = NULL;
}

static pid_t spawn(const char *const *argv, const char *const *vars, int out, int err)
{
    char *environment[ENVIRONMENT_MAX + 1];
    pid_t parent = getpid();
    join_environment(vars, environment);
    pid_t pid = fork();
    if (pid == 0)
        become(argv, environment, out, err, parent);
    return pid;
}

int sel_stage_start(struct sel_stage *stage, const char *const *argv, const char *const *vars,
                    struct sel_stage_process **ret)
{
    struct sel_stage_process *process = NULL;
    for (uint32_t i = 0; i < SEL_STAGE_PROCESSES_MAX && !process; i++)
        if (stage->processes[i].pid == 0)
            process = &stage->processes[i];
    if (!process)
        return SEL_ELIMIT;
    if (access(argv[0], X_OK) < 0) {
        fprintf(stderr, "selinon-bench: %s: %s\n", argv[0], sel_error_text(-errno));
        return -errno;
    }
    int log = open_log(stage);
    if (log < 0)
        return log;
    pid_t pid = spawn(argv, vars, log, log);
    (void)close(log);
    if (pid < 0)
        return -EAGAIN;
    *process = (struct sel_stage_process){.pid = pid, .name = argv[0]};
    *ret = process;
    return 0;
}

bool sel_stage_is_alive(struct sel_stage_process *process)
{
    if (process->pid == 0)
        return false;
    if (waitpid(process->pid, NULL, WNOHANG) == process->pid)
        process->pid = 0;
    return process->pid != 0;
}

void sel_stage_stop(struct sel_stage_process *process, int signal)
{
    const struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};
    if (process->pid == 0)
        return;
    (void)kill(process->pid, signal);
    for (int ms = 0; signal != SIGKILL && ms < STOP_MS; ms += 5) {
        if (!sel_stage_is_alive(process))
            return;
        (void)nanosleep(&pause, NULL);
    }
    (void)kill(process->pid, SIGKILL);
    (void)waitpid(process->pid, NULL, 0);
    process->pid = 0;
}

static int take_output(int fd, char *out, size_t out_size)
{
    size_t n = 0;
    char rest[512];
    for (;;) {
        bool fits = n + 1 < out_size;
        ssize_t r = fits ? read(fd, out + n, out_size - 1 - n) : read(fd, rest, sizeof(rest));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        n += fits ? (size_t)r : 0;
    }
    out[n] = '\0';
    return 0;
}

int sel_stage_run(struct sel_stage *stage, const char *const *argv, const char *const *vars,
                  char *out, size_t out_size)
{
    int fds[2], status = 0;
    int log = open_log(stage);
    if (log < 0)
        return log;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        (void)close(log);
        return -errno;
    }
    pid_t pid = spawn(argv, vars, fds[1], log);
    (void)close(fds[1]);
    (void)close(log);
    int r = pid < 0 ? SEL_EFAILED : take_output(fds[0], out, out_size);
    (void)close(fds[0]);
    if (pid > 0 && waitpid(pid, &status, 0) < 0)
        r = -errno;
    if (r < 0)
        return r;
    return WIFEXITED(status) ? WEXITSTATUS(status) : SEL_EFAILED;
}

void sel_stage_show(const struct sel_stage *stage)
{
    char path[SEL_STAGE_PATH_MAX], name[32], text[2048];
    for (uint32_t i = 0; i < stage->log_count; i++) {
        (void)snprintf(name, sizeof(name), "log.%u", i);
        FILE *file = fopen(sel_stage_path(stage, name, path), "r");
        if (!file)
            continue;
        if (fseek(file, -(long)sizeof(text) + 1, SEEK_END) < 0)
            rewind(file); /* is shorter */
        size_t n = fread(text, 1, sizeof(text) - 1, file);
        (void)fclose(file);
        if (n > 0)
            fprintf(stderr, "---- %s\n%.*s\n", name, (int)n, text);
    }
}

/* ---- what /proc says ---- */

int sel_stage_anon_bytes(pid_t pid, double *ret)
{
    char path[64], line[256];
    unsigned long kib;
    int r = SEL_EFORMAT;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return -errno;
    while (r < 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "RssAnon: %lu kB", &kib) == 1) {
            *ret = (double)kib * 1024;
            r = 0;
        }
    }
    (void)fclose(file);
    return r;
}

int sel_stage_cpu_ns(pid_t pid, int64_t *ret)
{
    clockid_t clock;
    struct timespec used;
    int r = clock_getcpuclockid(pid, &clock);
    if (r != 0)
        return -r;
    if (clock_gettime(clock, &used) < 0)
        return -errno;
    *ret = (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    return 0;
}

pid_t sel_stage_child(pid_t pid)
{
    char path[64];
    int child = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &child) != 1)
        child = 0;
    (void)fclose(file);
    return child;
}

static int drop_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type != FTW_F)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int r = fsync(fd) < 0 ? -errno : 0; /* only clean pages go */
    if (r == 0)
        r = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)close(fd);
    return r;
}

int sel_stage_drop_cache(const char *folder)
{
    int r = nftw(folder, drop_entry, 16, FTW_PHYS);
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { /* only root may; then inodes and directories are cold, too */
        if (write(fd, "3", 1) < 0)
            r = r < 0 ? r : -errno;
        (void)close(fd);
    }
    return r;
}
