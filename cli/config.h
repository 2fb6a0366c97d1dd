/* cli/config.h - the configuration of a command: files read, compiled, diagnostics printed. */
#ifndef SEL_CLI_CONFIG_H
#define SEL_CLI_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/cli.h"
#include "core/arena.h"
#include "core/compile.h"
#include "core/error.h"
#include "core/system.h"
#include "worker/config.h"

struct sel_cli_config_request {
    const char *nodes;          /* the nodes file */
    struct sel_cli_texts flows; /* flow files, or folders that are searched through all levels
                                   (following links) for *.yaml and *.yml, names beginning with a
                                   dot left out; in each folder by the order of the names */
    bool no_check;              /* skip the consistency check; parsing errors still count */
    bool strict;                /* warnings count as errors */
    /* Variables in place of cli's; NULL: cli's. */
    const char *(*getenv)(void *ctx, const char *name);
    void *getenv_ctx;
    const struct sel_compile_user *user; /* functions of modules; may be NULL */
};

/* Reads and compiles. Diagnostics are printed on cli->err as `file:line:column: error: ...` or
 * `... warning: ...`, the rest as `Error: ...`. 0, or negative: everything has been said, the exit
 * status is SEL_CLI_FAILED. `config` is to be freed with sel_config_done in both cases. */
int sel_cli_config_load(const struct sel_cli *cli, const struct sel_cli_config_request *request,
                        struct sel_config *config) SEL_WARN_UNUSED;

#endif
