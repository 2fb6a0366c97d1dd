/* worker/subprocess.h - running one program: input to it, output from it, its end.
 *
 * The program gets a process group of its own and inherits descriptors 0, 1 and 2 only, with
 * default signal handling. It ends when its first process does; whatever is then left of the
 * group is killed, as it is at the time limit, at a cancellation and when the output grows over
 * its limit. No zombie and no descriptor is left. May be called from any thread; waits on the ring
 * in a coroutine and blocks elsewhere (worker/sys.h). */
#ifndef SEL_WORKER_SUBPROCESS_H
#define SEL_WORKER_SUBPROCESS_H

#include <selinon/base.h>

#include "core/buf.h"

struct sel_co;

struct sel_subprocess_options {
    const char *const *argv;    /* closed by NULL; argv[0] is found on PATH */
    struct sel_bytes in;        /* for standard input */
    int64_t timeout_us;         /* <= 0: none */
    size_t out_max, err_max;    /* bytes of standard output and error */
    bool err_tail;              /* of a longer standard error keep the end; else it is too large */
    const struct sel_co *owner; /* whose cancellation counts, see worker/sys.h */
};

struct sel_subprocess_result {
    int exit_status; /* -1 if a signal ended it */
    int signal;      /* 0 if none */
    struct sel_buf out, err;
    bool err_cut; /* the beginning of `err` was dropped */
};

/* 0 when the program ended by itself, whatever its status. -errno: it could not be started (ENOENT,
 * EACCES, ...); SEL_ETIMEOUT; SEL_ECANCELED; SEL_ELIMIT: too much output; SEL_ENOMEM. `ret` holds
 * what was read in every case and is given back with done. */
int sel_subprocess_run(const struct sel_subprocess_options *options,
                       struct sel_subprocess_result *ret) SEL_WARN_UNUSED;
void sel_subprocess_result_done(struct sel_subprocess_result *result);

/* Whether argv[0] could be started: 0, or -ENOENT, -EACCES. */
int sel_subprocess_check(const char *program) SEL_WARN_UNUSED;

#endif
