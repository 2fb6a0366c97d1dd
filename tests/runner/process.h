/* tests/runner/process.h - programs that run beside the runner: of the same build, watched by their
 * descriptors, told to end by their number. */
#ifndef SEL_TESTS_RUNNER_PROCESS_H
#define SEL_TESTS_RUNNER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/assert.h"

/* Zeroed: none. */
struct sel_runner_process {
    pid_t pid;
    int fd;     /* readable when it has ended */
    int status; /* after its end: exit status, or minus the signal */
    bool has_ended;
};

/* Starts argv[0] in the current folder. `env` is its whole environment; what it writes to its
 * standard output and error is appended to the file `log`. It dies with the thread that starts it.
 * 0, -errno; that the program cannot be run shows as exit status 127. */
int sel_runner_process_start(struct sel_runner_process *process, const char *const *argv,
                             char *const *env, const char *log) SEL_WARN_UNUSED;
/* Waits for its end. true: it has ended, and `status` is set. */
bool sel_runner_process_wait(struct sel_runner_process *process, int timeout_ms);
/* Asks it to end with SIGTERM and waits; kills it when the time is over. true: it ended by itself.
 */
bool sel_runner_process_stop(struct sel_runner_process *process, int timeout_ms);
/* Kills it if it still runs. */
void sel_runner_process_done(struct sel_runner_process *process);

#endif
