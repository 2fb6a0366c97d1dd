/* cli/broker.h - what the commands that ask a broker share. */
#ifndef SEL_CLI_BROKER_H
#define SEL_CLI_BROKER_H

#include "cli/cli.h"
#include "core/arena.h"
#include "core/value.h"

/* Where a broker answers questions unless it is told otherwise (broker/config.c, `query`). */
#define SEL_CLI_BROKER_QUERY "tcp://127.0.0.1:5712"

struct sel_cli_broker_values {
    const char *broker;
    double timeout; /* seconds */
    bool json;
};
#define SEL_CLI_BROKER_DEFAULTS                                                                    \
    {                                                                                              \
        .broker = SEL_CLI_BROKER_QUERY, .timeout = 5                                               \
    }

/* The options of `member`, a struct sel_cli_broker_values in `type`. */
#define SEL_CLI_BROKER_OPTIONS(type, member)                                                       \
    {.name = "broker",                                                                             \
     .kind = SEL_CLI_TEXT,                                                                         \
     .offset = offsetof(type, member.broker),                                                      \
     .env = {"SELINON_BROKER_QUERY"},                                                              \
     .value_name = "ENDPOINT",                                                                     \
     .help = "where the broker answers questions; default " SEL_CLI_BROKER_QUERY},                 \
        {.name = "timeout",                                                                        \
         .kind = SEL_CLI_NUMBER,                                                                   \
         .min = 0.001,                                                                             \
         .max = 86400,                                                                             \
         .offset = offsetof(type, member.timeout),                                                 \
         .env = {"SELINON_BROKER_TIMEOUT"},                                                        \
         .value_name = "SECONDS",                                                                  \
         .help = "how long to wait for its answer; default 5"},                                    \
    {                                                                                              \
        .name = "json", .kind = SEL_CLI_FLAG, .offset = offsetof(type, member.json),               \
        .help = "print the answer as JSON"                                                         \
    }

/* Asks one question and prints the answer, as JSON or as a table (`empty` stands for an empty
 * list). Returns an exit status. */
int sel_cli_broker_show(const struct sel_cli *cli, const struct sel_cli_broker_values *values,
                        const char *what, const struct sel_value *args, const char *empty);

/* Prints a value as above. Returns an exit status. */
int sel_cli_broker_print(const struct sel_cli *cli, const struct sel_cli_broker_values *values,
                         struct sel_arena *arena, const struct sel_value *value, const char *empty);

#endif
