/* tests/support/child.h - a piece of a test in a process of its own: one that dies, or that the
 * kernel refuses things which this machine's kernel has. */
#ifndef SEL_TESTS_CHILD_H
#define SEL_TESTS_CHILD_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/assert.h"

struct sel_child_end {
    int status; /* as of waitpid */
    char stderr_text[4096];
};

/* Runs fn(arg) in a forked process; its end is status 0 when fn returns. */
static inline struct sel_child_end sel_in_child(void (*fn)(void *arg), void *arg)
{
    struct sel_child_end end = {0};
    int fds[2];
    SEL_ASSERT(pipe(fds) == 0);
    pid_t pid = fork();
    SEL_ASSERT(pid >= 0);
    if (pid == 0) {
        SEL_ASSERT(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
        fn(arg);
        _exit(0);
    }
    (void)close(fds[1]);
    size_t n = 0;
    for (;;) { /* to the end, also when there is more than we keep */
        char rest[512];
        bool fits = n < sizeof(end.stderr_text) - 1;
        ssize_t r = fits ? read(fds[0], end.stderr_text + n, sizeof(end.stderr_text) - 1 - n)
                         : read(fds[0], rest, sizeof(rest));
        if (r <= 0 && errno != EINTR)
            break;
        if (r > 0 && fits)
            n += (size_t)r;
        if (r == 0)
            break;
    }
    (void)close(fds[0]);
    SEL_ASSERT(waitpid(pid, &end.status, 0) == pid);
    return end;
}

/* From here on system call `number` fails with `error` in this process when its argument `index`
 * (0 to 5) is `value`; index -1: always. For ever: only in a child. */
static inline void sel_child_refuse(int number, int index, uint32_t value, int error)
{
    size_t at = index < 0 ? 0 : offsetof(struct seccomp_data, args) + 8 * (size_t)index;
    struct sock_filter any[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)at),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (index < 0) /* compare the number with itself */
        any[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1);
    struct sock_fprog program = {SEL_COUNT(any), any};
    SEL_ASSERT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    SEL_ASSERT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

#endif
