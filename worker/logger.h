/* worker/logger.h - the log of a worker: one line an event, on standard error.
 *
 *   2026-03-01T12:00:00.123Z info worker.session thread=1 session 0x100000001 begins
 *
 * A line is written at once and whole. Any thread. */
#ifndef SEL_WORKER_LOGGER_H
#define SEL_WORKER_LOGGER_H

#include <selinon/task.h> /* enum sel_log_level */

#include "core/assert.h"

struct sel_worker_logger {
    int fd;
    enum sel_log_level level; /* what is less is not written */
};

/* `event` as "worker.start"; bytes of the text below a space become spaces. */
void sel_worker_logger_put(const struct sel_worker_logger *logger, enum sel_log_level level,
                           const char *event, const char *fmt, ...) SEL_PRINTF(4, 5);

#endif
