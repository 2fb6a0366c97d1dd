/* cli/request.h - what `execute` and `run` share: arguments of a flow, and selective runs. */
#ifndef SEL_CLI_REQUEST_H
#define SEL_CLI_REQUEST_H

#include <stdbool.h>

#include "cli/cli.h"
#include "core/str.h"
#include "core/value.h"

struct sel_cli_request_values {
    const char *node_args, *node_args_file;
    bool node_args_json;
    struct sel_cli_texts selective_tasks;
    bool selective_follow_subflows, selective_run_subsequent;
};

/* The options of `member`, a struct sel_cli_request_values in `type`; their variables begin with
 * `prefix`, "SELINON_EXECUTE_". */
#define SEL_CLI_REQUEST_OPTIONS(type, member, prefix)                                              \
    {.name = "node-args",                                                                          \
     .letter = 'a',                                                                                \
     .kind = SEL_CLI_TEXT,                                                                         \
     .offset = offsetof(type, member.node_args),                                                   \
     .env = {prefix "NODE_ARGS"},                                                                  \
     .help = "arguments of the flow, as one text"},                                                \
        {.name = "node-args-file",                                                                 \
         .kind = SEL_CLI_TEXT,                                                                     \
         .offset = offsetof(type, member.node_args_file),                                          \
         .env = {prefix "NODE_ARGS_FILE"},                                                         \
         .value_name = "FILE",                                                                     \
         .help = "take the arguments of the flow from a file"},                                    \
        {.name = "node-args-json",                                                                 \
         .letter = 'j',                                                                            \
         .kind = SEL_CLI_FLAG,                                                                     \
         .offset = offsetof(type, member.node_args_json),                                          \
         .env = {prefix "NODE_ARGS_JSON"},                                                         \
         .help = "the arguments are JSON"},                                                        \
        {.name = "selective-task-names",                                                           \
         .kind = SEL_CLI_NAMES,                                                                    \
         .offset = offsetof(type, member.selective_tasks),                                         \
         .env = {prefix "SELECTIVE_TASK_NAMES"},                                                   \
         .value_name = "TASK,...",                                                                 \
         .help = "run only what leads to these tasks"},                                            \
        {.name = "selective-follow-subflows",                                                      \
         .kind = SEL_CLI_FLAG,                                                                     \
         .offset = offsetof(type, member.selective_follow_subflows),                               \
         .env = {prefix "SELECTIVE_FOLLOW_SUBFLOWS"},                                              \
         .help = "look for the tasks in sub-flows too"},                                           \
    {                                                                                              \
        .name = "selective-run-subsequent", .kind = SEL_CLI_FLAG,                                  \
        .offset = offsetof(type, member.selective_run_subsequent),                                 \
        .env = {prefix "SELECTIVE_RUN_SUBSEQUENT"}, .help = "run also what comes after the tasks"  \
    }

/* That the options fit each other; `is_selective`: even without --selective-task-names. An exit
 * status, as of what follows: what is wrong has been said then. */
int sel_cli_request_check(const struct sel_cli *cli, const struct sel_cli_request_values *values,
                          bool is_selective);
/* The arguments, encoded, in `arena`; n == 0: none were given. */
int sel_cli_request_args(const struct sel_cli *cli, struct sel_arena *arena,
                         const struct sel_cli_request_values *values, struct sel_str *ret);
int sel_cli_request_encode(const struct sel_cli *cli, struct sel_arena *arena,
                           const struct sel_value *args, struct sel_str *ret);
/* --selective-task-names in `arena`; NULL: out of memory. */
struct sel_str *sel_cli_request_tasks(struct sel_arena *arena,
                                      const struct sel_cli_request_values *values);

#endif
