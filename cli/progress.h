/* cli/progress.h - one line on a terminal that tells how far a run is.
 *
 *   ingest  ████████████▌     1,204/1,460 nodes   3 running   2 failed   18,300 nodes/s   00:00:04
 *
 * Log lines go through it, so that they appear above the line. */
#ifndef SEL_CLI_PROGRESS_H
#define SEL_CLI_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/cli.h"
#include "worker/executor.h"

struct sel_cli_progress {
    FILE *out;
    const char *name;
    bool is_on, is_shown; /* shown: the line is on the screen */
    bool color, utf8;
    pthread_mutex_t lock;    /* of the terminal: the line and the log */
    int64_t rate_elapsed_us; /* when `rate` was taken */
    uint64_t rate_ended;
    double rate; /* nodes ended a second, smoothed */
    bool has_rate;
};

/* On only if cli->err is a terminal that can go back in a line, and `wanted`. */
void sel_cli_progress_init(struct sel_cli_progress *progress, const struct sel_cli *cli,
                           const char *name, bool wanted);
/* For sel_executor_options; `ctx` is the struct sel_cli_progress. */
void sel_cli_progress_show(void *ctx, const struct sel_executor_progress *now);
void sel_cli_progress_log(void *ctx, enum sel_log_level level, const char *line);
/* Takes the line off the screen. */
void sel_cli_progress_erase(struct sel_cli_progress *progress);
/* The same, and nothing may be called any more. */
void sel_cli_progress_done(struct sel_cli_progress *progress);

/* The line itself, without control characters, at most `width` columns wide; what is least needed
 * is left out. Returns the number of bytes. */
size_t sel_cli_progress_format(const struct sel_cli_progress *progress,
                               const struct sel_executor_progress *now, uint32_t width, char *out,
                               size_t size);

#endif
