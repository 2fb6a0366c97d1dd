/* worker/supervisor.h - the small process that starts the worker process again when it dies.
 *
 * It forks before there are threads, loads nothing of the user's, and shares a crash page with the
 * worker. Each life of the worker has the id of the one before and the next incarnation, so that
 * the broker knows at once that what it had is lost, and hears what was running. */
#ifndef SEL_WORKER_SUPERVISOR_H
#define SEL_WORKER_SUPERVISOR_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"
#include "worker/crash.h"
#include "worker/logger.h"

/* How a worker process ends. */
enum sel_worker_status {
    SEL_WORKER_STATUS_OK,
    SEL_WORKER_STATUS_FAILED, /* the configuration, or what it needs, is missing or wrong */
    SEL_WORKER_STATUS_USAGE,
    SEL_WORKER_STATUS_LEFT, /* something was left behind: see enum sel_worker_end */
    SEL_WORKER_STATUS_REFUSED,
};

/* What a life of the worker begins with. */
struct sel_worker_life {
    struct sel_id id;
    uint32_t incarnation; /* from 1 */
    struct sel_crash_page *page;
    struct sel_str *crashed; /* by thread */
    struct sel_buf *notes;   /* what these texts lie in */
};

/* SIGTERM, SIGINT, SIGHUP: blocked in all threads, taken by who waits for them. */
void sel_worker_signals(sigset_t *ret);

/* Blocks the signals and forks. 1: this is the worker process, `ret_life` is set, to be freed with
 * done. 0: it has ended for good, *ret_status says how. SEL_ENOMEM, -errno. */
int sel_worker_supervise(const struct sel_worker_logger *log, uint32_t thread_count,
                         uint32_t slot_count, struct sel_worker_life *ret_life,
                         int *ret_status) SEL_WARN_UNUSED;

/* At the very end, as the page goes; zeroed is allowed. */
void sel_worker_life_done(struct sel_worker_life *life);

#endif
