/* worker/config.h - the configuration of a process: files found, read and compiled.
 *
 * For selinon-worker and the commands of selinon-cli alike. */
#ifndef SEL_WORKER_CONFIG_H
#define SEL_WORKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/arena.h"
#include "core/compile.h"
#include "core/error.h"
#include "core/str.h"
#include "core/system.h"

struct sel_config_request {
    const char *nodes;        /* the nodes file */
    const char *const *flows; /* flow files, or folders that are searched through all levels
                                 (following links) for *.yaml and *.yml, names beginning with a
                                 dot left out; in each folder by the order of the names */
    uint32_t flow_count;
    bool no_check; /* skip the consistency check; parsing errors still count */
    const char *(*getenv)(void *ctx, const char *name);
    void *getenv_ctx;
    const struct sel_compile_user *user; /* functions of modules; may be NULL */
};

/* Zeroed is empty. */
struct sel_config {
    struct sel_arena arena; /* sources, diagnostics */
    struct sel_diag diag;
    struct sel_system *system; /* NULL unless it compiled */
};

/* 0, with warnings in config->diag; SEL_ECONFIG: the errors are there; or `err` says what went
 * wrong. `config` is to be freed with done in all cases. */
int sel_config_load(const struct sel_config_request *request, struct sel_config *config,
                    struct sel_error *err) SEL_WARN_UNUSED;
void sel_config_done(struct sel_config *config);

/* Lines `file:line:column: error: ...` and `... warning: ...`. */
void sel_config_print(const struct sel_diag *diag, FILE *out);

/* A whole regular file, terminated (the terminator does not count), in `arena`; at most 1 GiB.
 * 0, -errno, SEL_ELIMIT, SEL_ENOMEM; `err` names the file. */
int sel_config_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                         struct sel_error *err) SEL_WARN_UNUSED;

#endif
