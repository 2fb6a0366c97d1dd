/* worker/mock_state.h - which execution of a task is the n-th, for all workers that share a file.
 *
 * A mock takes the n-th step for the n-th execution of a task. On a cluster that count is kept in a
 * file: a line for each execution, written under a lock, so that the same execution, delivered
 * again to whomever, is the same n. Slow, as it is for trying things out. Thread safe. */
#ifndef SEL_WORKER_MOCK_STATE_H
#define SEL_WORKER_MOCK_STATE_H

#include <stdint.h>

#include "core/error.h"
#include "core/str.h"

struct sel_mock_state;

/* Opens the file, made if it is not there. 0; -errno or SEL_ENOMEM with `err`. */
int sel_mock_state_open(const char *path, struct sel_mock_state **ret,
                        struct sel_error *err) SEL_WARN_UNUSED;
struct sel_mock_state *sel_mock_state_close(struct sel_mock_state *state); /* NULL allowed */

/* How many other executions of `task` were counted before this one: `id` is the run's or task's,
 * `try_count` tells its tries apart. Blocks. -errno; SEL_EREQUEST: the task's name has a line break
 * in it; SEL_EFORMAT: the file is none of ours; SEL_ENOMEM. */
int sel_mock_state_count(struct sel_mock_state *state, struct sel_str task, const char *id,
                         uint32_t try_count, uint32_t *ret) SEL_WARN_UNUSED;

#endif
