/* core/compile.h - YAML texts to a compiled system.
 *
 * Reports all errors of a configuration in one run, each with its place and what would be right.
 * What is accepted: docs/flow-language.md. Pure: texts and environment are handed in. */
#ifndef SEL_CORE_COMPILE_H
#define SEL_CORE_COMPILE_H

#include "core/error.h"
#include "core/predicate.h"
#include "core/str.h"
#include "core/system.h"

/* One file, already read. */
struct sel_source {
    const char *file; /* its name for messages; must outlive the diagnostics */
    struct sel_str text;
};

/* Functions of user modules, if they could be looked at; the compiler checks conditions and
 * sampling against them. Absent (NULL members): names outside the built-ins are accepted. */
struct sel_compile_user {
    void *ctx;
    /* Argument names of a predicate or sampling function of a user module. 0 and the outputs;
     * SEL_ENOTFOUND: the module has no such function; SEL_EUNSUPPORTED: cannot be known here. */
    int (*predicate)(void *ctx, struct sel_str module, struct sel_str name,
                     enum sel_predicate_input *ret_input, const char *const **ret_args,
                     uint32_t *ret_arg_count);
    int (*sampling)(void *ctx, struct sel_str module, struct sel_str name,
                    const char *const **ret_args, uint32_t *ret_arg_count);
};

struct sel_compile_options {
    struct sel_source nodes;
    const struct sel_source *flows; /* in order; a file that equals nodes.file is not read twice */
    uint32_t flow_count;
    const struct sel_predicate_world *world; /* environment variables */
    const struct sel_compile_user *user;     /* may be NULL */
    bool no_check; /* skip the consistency check; parsing errors still count */
};

/* 0 and *ret (freed with sel_system_free), with warnings in `diag`; SEL_ECONFIG: `diag` has the
 * errors; SEL_ENOMEM. `diag` is sorted. Texts in diag live in diag's arena, file names are the
 * caller's. */
int sel_compile(const struct sel_compile_options *options, struct sel_diag *diag,
                struct sel_system **ret) SEL_WARN_UNUSED;

/* The whole system as one value for `inspect --dump` (the tables of
 * tests/conformance/inspect/README.md, same names, and `task_imports`, `storage_imports`: name to
 * [module, class]). Of `failures` the tree has one path to each set of failed nodes, in the order
 * of their names. Texts are borrowed from `s`. 0 or SEL_ENOMEM. */
int sel_system_dump(struct sel_arena *arena, const struct sel_system *s,
                    struct sel_value *ret) SEL_WARN_UNUSED;

#endif
