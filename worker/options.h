/* worker/options.h - the command line of selinon-worker.
 *
 * An option wins over its variable; what is neither keeps the default. docs/operations.md,
 * "Worker", tells them all. */
#ifndef SEL_WORKER_OPTIONS_H
#define SEL_WORKER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/arena.h"
#include "core/error.h"

/* Texts separated by commas, colons or words. */
struct sel_worker_texts {
    const char **items;
    uint32_t count;
};

struct sel_worker_settings {
    struct sel_worker_texts brokers;
    const char *nodes;
    struct sel_worker_texts flows;
    struct sel_worker_texts queues;
    const char *module_path;
    const char *mock, *mock_state, *mock_report;
    int64_t mock_speed; /* 0: not given */
    const char *name;
    int64_t threads; /* -1: as many as CPUs may be used */
    int64_t slots, window;
    int64_t dispatchers; /* threads that only decide; 0: those that run tasks do it too */
    int64_t flow_window; /* of a thread that decides */
    int64_t flow_nodes_max;
    int64_t drain_timeout_us;
    bool pin, no_supervisor, help, version;
    int64_t verbosity;
};

/* Parses argv[1..] and the environment. Lists live in `arena`. 0; SEL_EREQUEST: wrong usage, `err`
 * says what; SEL_ENOMEM. Uses getopt_long: one call at a time. */
int sel_worker_settings_parse(int argc, char **argv,
                              const char *(*getenv_fn)(void *ctx, const char *name), void *ctx,
                              struct sel_arena *arena, struct sel_worker_settings *ret,
                              struct sel_error *err) SEL_WARN_UNUSED;
void sel_worker_settings_help(FILE *out);

#endif
