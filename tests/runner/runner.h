/* tests/runner/runner.h - what the topics of selinon-conformance share.
 *
 * The program runs the cases of one topic of the reference corpus (tests/conformance) and says
 * what differs. A topic reads its folder, runs case by case, and reports each as passed or failed;
 * the README of its folder tells what a case is. Used by the main thread only. */
#ifndef SEL_TESTS_RUNNER_RUNNER_H
#define SEL_TESTS_RUNNER_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

#define SEL_RUNNER_WORKERS_MAX 64

struct sel_runner_options {
    bool shuffle; /* --shuffle SEED: completions in an order drawn from `seed` */
    uint64_t seed;
    uint32_t threads; /* --threads N, 1 or more; 1 if not given */
    const char *only; /* --only PATTERN: of the cases only these; NULL: all (flows) */
    uint32_t part;    /* --part N: of the cases one in N (flows) */
    bool is_cluster;  /* --runtime cluster, and how it is: */
    bool keep;        /* --keep: leave the folders of cases that failed */
    uint32_t workers; /* --workers N processes, 1 or more; 2 if not given */
    uint32_t speed;   /* --speed N: delays pass so many times as fast */
    bool kill;        /* --kill SEED: processes die at moments drawn from `seed` */
};

struct sel_runner_report {
    uint32_t passed, failed;
    char last_failed[256]; /* private: the case that the last failure was about */
};

/* Runs all cases below `dir`. 0, whatever the cases did; < 0 and `err`: the folder as such cannot
 * be used (it is missing, holds no case, ...). */
typedef int sel_topic_fn(const char *dir, const struct sel_runner_options *options,
                         struct sel_runner_report *report, struct sel_error *err);

sel_topic_fn sel_topic_flows;
sel_topic_fn sel_topic_predicates;
sel_topic_fn sel_topic_config;
sel_topic_fn sel_topic_strategies;
sel_topic_fn sel_topic_caches;
sel_topic_fn sel_topic_inspect;

/* ---- report ---- */

/* One more case passed. */
void sel_runner_pass(struct sel_runner_report *report);
/* Prints `FAIL name: what differs`. Calls in a row for the same name are one failed case. */
void sel_runner_fail(struct sel_runner_report *report, const char *name, const char *fmt, ...)
    SEL_PRINTF(3, 4);

/* ---- files ---- */

/* The whole file, terminated (the terminator does not count), in `arena`. 0, -errno, SEL_ENOMEM. */
int sel_runner_read_file(struct sel_arena *arena, const char *path, struct sel_str *ret,
                         struct sel_error *err) SEL_WARN_UNUSED;
/* The file as one JSON value. */
int sel_runner_read_json(struct sel_arena *arena, const char *path, struct sel_value *ret,
                         struct sel_error *err) SEL_WARN_UNUSED;
/* Whether there is a file or folder of this name. */
bool sel_runner_exists(const char *path);
/* Names of the folders right below `dir`, sorted by bytes, hidden ones left out. */
int sel_runner_list_dirs(struct sel_arena *arena, const char *dir, const char *const **ret_names,
                         uint32_t *ret_count, struct sel_error *err) SEL_WARN_UNUSED;

/* The lines of a text that hold something, without their ends. */
struct sel_runner_lines {
    struct sel_str rest;
    uint32_t line; /* number of the line handed out last, from 1 */
};
bool sel_runner_next_line(struct sel_runner_lines *lines, struct sel_str *ret);

/* Runs `run` for each line of a JSON lines file. `name` is "file:line" with the last part of the
 * path; `arena` is emptied after each line. A line that is no JSON counts as failed. */
typedef void sel_runner_line_fn(void *ctx, const char *name, const struct sel_value *line,
                                struct sel_arena *arena, struct sel_runner_report *report);
int sel_runner_each_line(const char *path, sel_runner_line_fn *run, void *ctx,
                         struct sel_runner_report *report, struct sel_error *err) SEL_WARN_UNUSED;

/* ---- comparing ---- */

/* The JSON text of a value with sorted keys, in `arena`; "" when out of memory. */
const char *sel_runner_json(struct sel_arena *arena, const struct sel_value *v);
/* NULL if both are the same (1 is not 1.0, maps regardless of order), else a sentence about the
 * first difference: where, what was expected, what came. */
const char *sel_runner_diff(struct sel_arena *arena, const struct sel_value *expected,
                            const struct sel_value *actual);
/* The same for two lists in which the order has no meaning. */
const char *sel_runner_diff_multiset(struct sel_arena *arena, const struct sel_value *expected,
                                     const struct sel_value *actual);

/* ---- environment ---- */

/* The variables of a case, for `getenv` parameters of the core. */
struct sel_runner_env {
    const char **names; /* name, value, name, value, ... */
    uint32_t count;     /* of variables */
};
/* `vars`: a map of texts, or NULL or null for none. Copies to `arena`. 0, SEL_ENOMEM, SEL_ETYPE. */
int sel_runner_env_init(struct sel_runner_env *env, struct sel_arena *arena,
                        const struct sel_value *vars) SEL_WARN_UNUSED;
/* ctx is a struct sel_runner_env; variables of the process itself are not seen. */
const char *sel_runner_getenv(void *ctx, const char *name);

#endif
