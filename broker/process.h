/* broker/process.h - a whole broker in this process: journal, core, loop and their threads.
 *
 * selinon-broker is one of these and signals; `selinon-cli dev`, tests and benchmarks have one
 * beside other things. Functions are for one thread unless they say otherwise. */
#ifndef SEL_BROKER_PROCESS_H
#define SEL_BROKER_PROCESS_H

#include "broker/broker.h"
#include "broker/config.h"
#include "core/error.h"

struct sel_broker_process;

/* Opens and replays the journal, binds the endpoints, starts the threads and writes the ready
 * file: from then on it answers. `config` and what it refers to outlive the process; the log goes
 * to `log_fd`. New threads inherit the signal mask.
 *
 * Negative: `err` says what to do. -EADDRINUSE, -EAGAIN (another process has the journal),
 * SEL_EFORMAT (it is damaged), SEL_EVERSION, SEL_ERANGE (settings), SEL_ENOMEM, -errno. */
int sel_broker_process_start(const struct sel_broker_config *config, int log_fd,
                             struct sel_broker_process **ret,
                             struct sel_error *err) SEL_WARN_UNUSED;

/* Endpoints as they were bound, and the ZeroMQ context for inproc:// ones; until join. Any
 * thread. */
const struct sel_broker_endpoints *
sel_broker_process_listens(const struct sel_broker_process *process);
const struct sel_broker_endpoints *
sel_broker_process_queries(const struct sel_broker_process *process);
void *sel_broker_process_context(const struct sel_broker_process *process);

/* Says goodbye to all, writes what is to be written, ends. `reason` is static. Returns at once; any
 * thread. */
void sel_broker_process_stop(struct sel_broker_process *process, const char *reason);
/* Becomes readable when it has ended, by itself or by a stop. */
int sel_broker_process_end_fd(const struct sel_broker_process *process);
/* Waits for the end and frees all. 0; negative: the log says why (as sel_broker_loop_run). */
int sel_broker_process_join(struct sel_broker_process *process) SEL_WARN_UNUSED;

#endif
