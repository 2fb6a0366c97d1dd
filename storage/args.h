/* storage/args.h - the `configuration` of a built-in storage or cache.
 *
 * Null or an empty map: no arguments; a map: named ones. A list or text would be positional: ours
 * take none and refuse it. */
#ifndef SEL_STORAGE_ARGS_H
#define SEL_STORAGE_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

/* Every storage takes it; the worker reads it: seconds that a task waits before it runs again when
 * its storage gave trouble. */
#define SEL_STORAGE_ARG_RETRY "retry_seconds"

/* Refuses whatever is not null or a map with keys out of `names` alone, and a SEL_STORAGE_ARG_RETRY
 * that is no number of 0 or more. `what` names the class in messages. 0 or SEL_ECONFIG with `err`.
 */
int sel_storage_args_check(const char *what, const struct sel_value *config,
                           const char *const *names, uint32_t count,
                           struct sel_error *err) SEL_WARN_UNUSED;

/* Reads one argument of a checked configuration; absent or null leaves *ret as it is.
 * 0 or SEL_ECONFIG with `err`. */
int sel_storage_arg_bool(const char *what, const struct sel_value *config, const char *name,
                         bool *ret, struct sel_error *err) SEL_WARN_UNUSED;
int sel_storage_arg_text(const char *what, const struct sel_value *config, const char *name,
                         struct sel_str *ret, struct sel_error *err) SEL_WARN_UNUSED;
/* A whole number in [least, most]. */
int sel_storage_arg_size(const char *what, const struct sel_value *config, const char *name,
                         uint64_t least, uint64_t most, uint64_t *ret,
                         struct sel_error *err) SEL_WARN_UNUSED;

#endif
