#include "worker/logger.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"

#define LINE_MAX_SIZE (SEL_ERROR_TEXT_MAX + 512)

static const char *const level_names[] = {"debug", "info", "warning", "error"};

static size_t put_head(char *line, size_t size, enum sel_log_level level, const char *event)
{
    struct timespec now;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
    int r = snprintf(line + n, size - n, ".%03dZ %s %s ", (int)(now.tv_nsec / 1000000),
                     level_names[level], event);
    return n + (r > 0 ? (size_t)r : 0);
}

void sel_worker_logger_put(const struct sel_worker_logger *logger, enum sel_log_level level,
                           const char *event, const char *fmt, ...)
{
    char line[LINE_MAX_SIZE];
    va_list args;
    if (level < logger->level)
        return;
    size_t n = put_head(line, sizeof(line), level, event);
    va_start(args, fmt);
    int r = vsnprintf(line + n, sizeof(line) - n - 1, fmt, args);
    va_end(args);
    size_t end = r < 0 ? n : n + (size_t)r;
    if (end > sizeof(line) - 2)
        end = sizeof(line) - 2;
    for (size_t i = 0; i < end; i++) {
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    }
    line[end++] = '\n';
    ssize_t written = write(logger->fd, line, end);
    (void)written; /* there is nobody else to tell */
}
