/* tests/runner/flow_case.h - one case of the topic `flows`, however it is run.
 *
 * Its files, what is made of them, and whether it failed. The folder of the case is the current one
 * while it is used. */
#ifndef SEL_TESTS_RUNNER_FLOW_CASE_H
#define SEL_TESTS_RUNNER_FLOW_CASE_H

#include "core/compile.h"
#include "core/selective.h"
#include "tests/runner/runner.h"
#include "worker/executor.h"

struct sel_flow_case {
    struct sel_arena arena; /* of all that belongs to the case */
    const char *name;
    const struct sel_runner_options *options;
    struct sel_runner_report *report;
    struct sel_value script, expected; /* case.json, expected.json */
    struct sel_runner_env env;
    struct sel_diag diag;
    struct sel_system *system;
    bool failed;
};

/* null if it is not there */
struct sel_value sel_flow_case_member(const struct sel_value *map, const char *key);

/* Reads the case and compiles its configuration. false: it failed. A configuration that is refused
 * as it is meant to be leaves `system` NULL. */
bool sel_flow_case_load(struct sel_flow_case *c) SEL_WARN_UNUSED;
/* Counts it as passed if it did not fail, and frees what belongs to it. */
void sel_flow_case_done(struct sel_flow_case *c);
/* The case differs in `what`; NULL for `difference`: it does not. */
void sel_flow_case_fail(struct sel_flow_case *c, const char *what, const char *difference);

/* Whether the run is to be refused. */
bool sel_flow_case_is_refused(const struct sel_flow_case *c);
/* It was refused with this kind of error; `text` says why. */
void sel_flow_case_refused(struct sel_flow_case *c, const char *class, const char *text);

/* The flow, in the system. NULL: there is none. */
const struct sel_flow_def *sel_flow_case_flow(const struct sel_flow_case *c);
/* Whether the run is selective, and how. */
bool sel_flow_case_selective(struct sel_flow_case *c, struct sel_selective_request *ret);
/* Results of earlier runs. */
const struct sel_executor_preset *sel_flow_case_presets(struct sel_flow_case *c,
                                                        uint32_t *ret_count);
/* ctx is the case: its variables, then those of the process. */
const char *sel_flow_case_getenv(void *ctx, const char *name);

#endif
