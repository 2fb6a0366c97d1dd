/* cli/case.h - what `execute --mock FILE` reads.
 *
 * The file is a case.json of the reference corpus (tests/conformance/flows/README.md) or only its
 * `mock` object: a whole case is told by its key `mock`. */
#ifndef SEL_CLI_CASE_H
#define SEL_CLI_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/selective.h"
#include "core/value.h"
#include "worker/executor.h"

struct sel_arena;

struct sel_cli_case {
    const char *flow;                  /* NULL: not said */
    const struct sel_value *node_args; /* NULL: not said */
    bool is_selective;                 /* `selective` is filled */
    struct sel_selective_request selective;
    struct sel_executor_preset *presets;
    uint32_t preset_count;
    const struct sel_value *env; /* a map of texts, or NULL */
    struct sel_value script;     /* the `mock` object */
    const struct sel_cli *cli;   /* for sel_cli_case_getenv */
};

/* Everything lives in `arena`. 0; the errors of reading a file and of JSON; SEL_EREQUEST: a member
 * has the wrong form, which `err` names. */
int sel_cli_case_load(const struct sel_cli *cli, struct sel_arena *arena, const char *path,
                      struct sel_cli_case *ret, struct sel_error *err) SEL_WARN_UNUSED;

/* A variable of the case, else one of the process. `ctx` is a struct sel_cli_case. Any thread. */
const char *sel_cli_case_getenv(void *ctx, const char *name);

#endif
