/* core/predicate.h - the built-in predicates.
 *
 * 69 functions over a message (the result of a node) or the arguments of the flow, with keyword
 * arguments from the YAML. They never fail: what cannot be answered is false. Names, arguments and
 * answers: tests/conformance/predicates. */
#ifndef SEL_CORE_PREDICATE_H
#define SEL_CORE_PREDICATE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"
#include "core/value.h"

enum sel_predicate_input {
    SEL_INPUT_NONE,    /* env*, always*, httpStatus */
    SEL_INPUT_MESSAGE, /* field*, is*, empty */
    SEL_INPUT_ARGS,    /* args* */
};

#define SEL_PREDICATE_ARGS_MAX 3

/* What predicates may read from the world, passed in. */
struct sel_predicate_world {
    /* The value of an environment variable, NULL if unset. */
    const char *(*getenv)(void *ctx, const char *name);
    void *ctx;
};

/* One built-in; a table of them is in predicate.c. */
struct sel_predicate {
    const char *name;
    enum sel_predicate_input input;
    uint8_t arg_count;
    const char *args[SEL_PREDICATE_ARGS_MAX]; /* all are required */
    bool needs_io;                            /* httpStatus: not evaluated here */
    /* `input` is the message or the node arguments (null counts), args[] by position. */
    bool (*eval)(const struct sel_predicate *self, const struct sel_value *input,
                 const struct sel_value *const args[], const struct sel_predicate_world *world);
    uint32_t op;      /* private to predicate.c */
    uint32_t variant; /* private to predicate.c */
};

/* All of them, in the order of their names. */
const struct sel_predicate *sel_predicate_table(uint32_t *ret_count);
/* NULL if there is none. */
const struct sel_predicate *sel_predicate_find(struct sel_str name);

#endif
