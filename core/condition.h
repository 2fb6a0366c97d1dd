/* core/condition.h - conditions of edges and fallbacks: trees of and, or, not over predicates.
 *
 * Compiled once, immutable. Evaluation goes left to right with short circuit and asks its caller
 * for messages and for answers that need I/O or user code; when the caller does not have one yet,
 * it returns SEL_ENEED and is simply evaluated again later. */
#ifndef SEL_CORE_CONDITION_H
#define SEL_CORE_CONDITION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/predicate.h"
#include "core/str.h"
#include "core/value.h"

struct sel_arena;

enum sel_cond_op { SEL_COND_TRUE, SEL_COND_AND, SEL_COND_OR, SEL_COND_NOT, SEL_COND_LEAF };

#define SEL_COND_NO_NODE UINT32_MAX

struct sel_cond {
    enum sel_cond_op op; /* SEL_COND_TRUE: no condition was written, always true */
    uint32_t child_count;
    const struct sel_cond *const *children; /* AND, OR: 1 or more; NOT: 1 */

    /* SEL_COND_LEAF */
    const struct sel_predicate *builtin; /* NULL: of the module `global.predicates_module` */
    struct sel_str name;
    enum sel_predicate_input input;
    uint32_t from_index;   /* which source of the edge the message is from, or SEL_COND_NO_NODE */
    struct sel_str node;   /* its name */
    struct sel_value args; /* a map: the keyword arguments, as written */
    const struct sel_value *arg_values[SEL_PREDICATE_ARGS_MAX]; /* builtin: by position */
};

/* What evaluation asks for. */
struct sel_cond_env {
    void *ctx;
    const struct sel_value *node_args; /* NULL is null */
    const struct sel_predicate_world *world;
    /* The message of source `from_index`: 0 and *ret, SEL_ENEED, or an error that is passed on. */
    int (*message)(void *ctx, uint32_t from_index, const struct sel_value **ret);
    /* The answer of a leaf that needs I/O (httpStatus) or user code (no builtin): 0 or 1,
     * SEL_ENEED, or an error. `message` is NULL unless the leaf takes one. */
    int (*external)(void *ctx, const struct sel_cond *leaf, const struct sel_value *message);
};

/* 1 true, 0 false, SEL_ENEED, or the error of a callback. */
int sel_cond_eval(const struct sel_cond *cond, const struct sel_cond_env *env);

/* Whether a leaf anywhere below takes a message. */
bool sel_cond_needs_message(const struct sel_cond *cond);

/* The text shown in traces and plots, as in tests/conformance/predicates/conditions.jsonl:
 * `(fieldEqual(db.get('A'), key='k', value=1) and (not alwaysFalse()))`. NULL: out of memory. */
const char *sel_cond_format(struct sel_arena *arena, const struct sel_cond *cond);

#endif
