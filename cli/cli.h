/* cli/cli.h - what the commands of selinon-cli share.
 *
 *   selinon-cli [general options] COMMAND [options]
 *
 * A command is one file cmd_<name>.c with one `const struct sel_cli_command sel_cli_cmd_<name>`,
 * listed in the table of main.c. It declares its options as a table (cli/options.h); main.c parses
 * them, also from environment variables, into the command's own struct and calls `run`. So a
 * command sees values that are checked already. Main thread only. */
#ifndef SEL_CLI_CLI_H
#define SEL_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/options.h"
#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"

struct sel_arena;

/* Exit statuses, the same for every command. */
enum sel_cli_exit {
    SEL_CLI_OK = 0,
    SEL_CLI_FAILED = 1, /* the configuration, the request or the run */
    SEL_CLI_USAGE = 2,  /* the command line itself */
};

/* The program and its general options. */
struct sel_cli {
    const char *program; /* "selinon-cli" */
    int verbosity;       /* -v: 1 info, 2 debug */
    bool no_color;
    FILE *out, *err; /* standard output has only what was asked for; all else goes to err */
    const char *(*getenv)(void *ctx, const char *name);
    void *getenv_ctx;
};

struct sel_cli_command {
    const char *name;
    const char *about; /* one line for the list of commands */
    const char *more;  /* further lines of its --help, or NULL */
    const struct sel_cli_option *options;
    uint32_t option_count;
    size_t values_size;   /* of the struct that the options' offsets refer to */
    const void *defaults; /* such a struct to start from; NULL: zeroed */
    /* `values` lives for the call. Returns an exit status. */
    int (*run)(const struct sel_cli *cli, const void *values);
};

extern const struct sel_cli_command sel_cli_cmd_dev;
extern const struct sel_cli_command sel_cli_cmd_drain;
extern const struct sel_cli_command sel_cli_cmd_execute;
extern const struct sel_cli_command sel_cli_cmd_flows;
extern const struct sel_cli_command sel_cli_cmd_inspect;
extern const struct sel_cli_command sel_cli_cmd_journal;
extern const struct sel_cli_command sel_cli_cmd_queues;
extern const struct sel_cli_command sel_cli_cmd_result;
extern const struct sel_cli_command sel_cli_cmd_run;
extern const struct sel_cli_command sel_cli_cmd_status;
extern const struct sel_cli_command sel_cli_cmd_task;
extern const struct sel_cli_command sel_cli_cmd_version;
extern const struct sel_cli_command sel_cli_cmd_wait;
extern const struct sel_cli_command sel_cli_cmd_workers;

/* Prints how the command (NULL: the program) is called and `Error: ...` on cli->err; returns
 * SEL_CLI_USAGE. */
int sel_cli_usage(const struct sel_cli *cli, const char *command, const char *text);
/* Prints `Error: ...` on cli->err and returns SEL_CLI_FAILED. */
int sel_cli_fail(const struct sel_cli *cli, const char *fmt, ...) SEL_PRINTF(2, 3);
/* The same with the place and text of `err`. */
int sel_cli_fail_with(const struct sel_cli *cli, const struct sel_error *err);
/* Flushes standard output; `status`, or SEL_CLI_FAILED with a message if not all could be written
 * (a full disk, a closed pipe). What a command that printed something returns. */
int sel_cli_finish(const struct sel_cli *cli, int status);

/* A whole regular file, terminated (the terminator does not count), in `arena`; at most 1 GiB.
 * 0, -errno, SEL_ELIMIT, SEL_ENOMEM; `err` names the file. */
int sel_cli_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                      struct sel_error *err) SEL_WARN_UNUSED;
/* Writes a file anew, whole or not at all (a temporary file beside it, then a rename); devices and
 * links are written through, and "-" is standard output. 0 or -errno; `err` names it. */
int sel_cli_write_file(const struct sel_cli *cli, const char *path, struct sel_str text,
                       struct sel_error *err) SEL_WARN_UNUSED;

#endif
