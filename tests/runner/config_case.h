/* tests/runner/config_case.h - the configuration of a case: a folder with nodes.yaml, flow files
 * and expected.json. */
#ifndef SEL_TESTS_RUNNER_CONFIG_CASE_H
#define SEL_TESTS_RUNNER_CONFIG_CASE_H

#include "core/arena.h"
#include "core/compile.h"
#include "core/error.h"
#include "core/system.h"
#include "tests/runner/runner.h"

struct sel_runner_config {
    struct sel_arena arena;
    const char *dir;
    struct sel_value expected; /* expected.json */
    struct sel_runner_env env; /* its `env`: the only variables that the compiler sees */
    struct sel_diag diag;
    struct sel_system *system; /* NULL: refused, `diag` says why */
};

/* Reads the case in folder `dir`/`name` and compiles it: with `flow_files` of expected.json, or
 * flows.yaml. 0, whether the configuration is valid or not; < 0 and `err`: the case is no case. To
 * be freed with done in both cases. */
int sel_runner_config_load(struct sel_runner_config *config, const char *dir, const char *name,
                           struct sel_error *err) SEL_WARN_UNUSED;
void sel_runner_config_done(struct sel_runner_config *config);

#endif
