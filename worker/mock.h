/* worker/mock.h - scripted outcomes in place of code: `--mock` of the programs.
 *
 * The script is the `mock` object of tests/conformance/flows/README.md: `tasks`, `classes`,
 * `functions`. The n-th execution of a task name takes the n-th step, over the whole run and all
 * threads; the last step repeats. Tasks without a script return null. Workers of a cluster count
 * together (worker/mock_state.h). */
#ifndef SEL_WORKER_MOCK_H
#define SEL_WORKER_MOCK_H

#include "core/error.h"
#include "core/system.h"
#include "core/value.h"
#include "worker/exec.h"

struct sel_mock;
struct sel_mock_state;

/* `script` is borrowed and must outlive the mock. SEL_EREQUEST: the script is malformed (`err`
 * says where), names an unknown step, or SEL_ENOMEM. */
int sel_mock_new(const struct sel_system *system, const struct sel_value *script,
                 struct sel_mock **ret, struct sel_error *err) SEL_WARN_UNUSED;
struct sel_mock *sel_mock_free(struct sel_mock *mock); /* returns NULL */
/* The same from a JSON file: the script itself, or an object with a member `mock`. `arena` outlives
 * the mock. Also what sel_config_read_file and sel_json_parse say. */
int sel_mock_load(const struct sel_system *system, const char *path, struct sel_arena *arena,
                  struct sel_mock **ret, struct sel_error *err) SEL_WARN_UNUSED;
/* From now on executions are counted in `state`, which outlives the mock. */
void sel_mock_share(struct sel_mock *mock, struct sel_mock_state *state);

extern const struct sel_runtime_ops sel_runtime_mock; /* self: struct sel_mock * */

/* What the function `import` returns for these arguments, in `arena`. SEL_ENOTFOUND: it is not in
 * the script. Thread safe. */
int sel_mock_function(struct sel_mock *mock, const struct sel_import *import,
                      const struct sel_value *node_args, struct sel_arena *arena,
                      struct sel_value *ret, struct sel_error *err) SEL_WARN_UNUSED;

#endif
