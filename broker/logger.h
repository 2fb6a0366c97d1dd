/* broker/logger.h - the log of a broker: one line an event.
 *
 *   2026-03-01T12:00:00.123Z info session.new peer=... name=...
 *
 * A line is written at once and whole. Of lines below error only so many a second are written (a
 * peer that sends rubbish must not fill the disk); how many were left out is said. One thread at a
 * time. */
#ifndef SEL_BROKER_LOGGER_H
#define SEL_BROKER_LOGGER_H

#include <stdint.h>

#include "broker/broker.h"
#include "core/assert.h"

#define SEL_BROKER_LOG_PER_SECOND 200

struct sel_broker_logger {
    int fd;
    enum sel_broker_log level; /* what is less is not written */
    int64_t second;            /* of the count below */
    uint32_t written, left_out;
};

void sel_broker_logger_init(struct sel_broker_logger *logger, int fd, enum sel_broker_log level);
/* `event` as "journal.open"; `fmt` makes key=value pairs. */
void sel_broker_logger_put(struct sel_broker_logger *logger, enum sel_broker_log level,
                           const char *event, const char *fmt, ...) SEL_PRINTF(4, 5);
/* The same at a time that is given (microseconds since 1970) and with a finished text. */
void sel_broker_logger_put_at(struct sel_broker_logger *logger, int64_t unix_us,
                              enum sel_broker_log level, const char *event, const char *text);
/* struct sel_broker_io.log; `ctx` is the logger. */
void sel_broker_logger_log(void *ctx, enum sel_broker_log level, const char *event,
                           const char *text);

#endif
