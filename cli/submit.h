/* cli/submit.h - options that say how a task or a flow is submitted: `run` and `task submit`. */
#ifndef SEL_CLI_SUBMIT_H
#define SEL_CLI_SUBMIT_H

#include "cli/ends.h"

struct sel_cli_submit_values {
    const char *eta, *level, *key;
    int64_t priority, count;
    double countdown;
};

#define SEL_CLI_SUBMIT_DEFAULTS                                                                    \
    {                                                                                              \
        .count = 1                                                                                 \
    }

/* The options of `member`, a struct sel_cli_submit_values in `type`; `verb` is what the command
 * does, in
 * --help. */
#define SEL_CLI_SUBMIT_OPTIONS(type, member, verb)                                                 \
    {.name = "priority",                                                                           \
     .kind = SEL_CLI_INT,                                                                          \
     .min = 1,                                                                                     \
     .max = 255,                                                                                   \
     .offset = offsetof(type, member.priority),                                                    \
     .help = "larger first; default 128"},                                                         \
        {.name = "countdown",                                                                      \
         .kind = SEL_CLI_NUMBER,                                                                   \
         .min = 0,                                                                                 \
         .max = 1e9,                                                                               \
         .offset = offsetof(type, member.countdown),                                               \
         .value_name = "SECONDS",                                                                  \
         .help = "begin so much later"},                                                           \
        {.name = "eta",                                                                            \
         .kind = SEL_CLI_TEXT,                                                                     \
         .offset = offsetof(type, member.eta),                                                     \
         .value_name = "TIME",                                                                     \
         .help = "begin not before 2026-01-31T12:00:00Z (or +01:00; without either: local time)"}, \
        {.name = "level",                                                                          \
         .kind = SEL_CLI_CHOICE,                                                                   \
         .offset = offsetof(type, member.level),                                                   \
         .choices = sel_cli_ends_levels,                                                           \
         .help = "of durability: default (the broker's), memory, interval, commit"},               \
        {.name = "key",                                                                            \
         .kind = SEL_CLI_TEXT,                                                                     \
         .offset = offsetof(type, member.key),                                                     \
         .help =                                                                                   \
             "idempotency key: a second " verb " with the same key and arguments runs nothing"},   \
    {                                                                                              \
        .name = "count", .kind = SEL_CLI_INT, .min = 1, .max = 1e12,                               \
        .offset = offsetof(type, member.count), .value_name = "N",                                 \
        .help = verb " it so often; default 1"                                                     \
    }

/* Fills what the options say into `task`, the rest of which is left as it is. An exit status: wrong
 * usage of `command` has been told. `task` borrows from `values`. */
int sel_cli_submit_fill(const struct sel_cli *cli, const char *command,
                        const struct sel_cli_submit_values *values, struct sel_client_task *task);

#endif
