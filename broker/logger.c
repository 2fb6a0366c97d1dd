#include "broker/logger.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_SIZE 2048
#define SECOND_US INT64_C(1000000)

void sel_broker_logger_init(struct sel_broker_logger *logger, int fd, enum sel_broker_log level)
{
    *logger = (struct sel_broker_logger){.fd = fd, .level = level};
}

static int64_t now_unix_us(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail with this clock */
    return ts.tv_sec * SECOND_US + ts.tv_nsec / 1000;
}

/* What cannot be written is lost: there is nobody to tell. */
static void write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        p += done;
        n -= (size_t)done;
    }
}

static void write_line(struct sel_broker_logger *logger, int64_t unix_us, enum sel_broker_log level,
                       const char *event, const char *text)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char line[LINE_MAX_SIZE], stamp[32];
    time_t seconds = (time_t)(unix_us / SECOND_US);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        stamp[0] = '\0';
    int n =
        snprintf(line, sizeof(line), "%s.%03dZ %s %s%s%s", stamp, (int)(unix_us % SECOND_US / 1000),
                 names[level], event, *text ? " " : "", text);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;
    for (size_t i = 0; i < size; i++) { /* names come from peers: a line stays a line */
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    }
    line[size] = '\n';
    write_all(logger->fd, line, size + 1);
}

void sel_broker_logger_put_at(struct sel_broker_logger *logger, int64_t unix_us,
                              enum sel_broker_log level, const char *event, const char *text)
{
    if (level < logger->level)
        return;
    int64_t second = unix_us / SECOND_US;
    if (second != logger->second) {
        char count[64];
        (void)snprintf(count, sizeof(count), "lines=%" PRIu32, logger->left_out);
        if (logger->left_out > 0)
            write_line(logger, unix_us, SEL_BROKER_WARNING, "log.left_out", count);
        logger->second = second;
        logger->written = logger->left_out = 0;
    }
    if (level < SEL_BROKER_ERROR && logger->written >= SEL_BROKER_LOG_PER_SECOND) {
        logger->left_out++;
        return;
    }
    logger->written++;
    write_line(logger, unix_us, level, event, text);
}

void sel_broker_logger_put(struct sel_broker_logger *logger, enum sel_broker_log level,
                           const char *event, const char *fmt, ...)
{
    char text[LINE_MAX_SIZE];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sel_broker_logger_put_at(logger, now_unix_us(), level, event, text);
}

void sel_broker_logger_log(void *ctx, enum sel_broker_log level, const char *event,
                           const char *text)
{
    sel_broker_logger_put_at(ctx, now_unix_us(), level, event, text);
}
