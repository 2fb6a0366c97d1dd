/* core/predicate_internal.h - what the files of the predicates share; nobody else includes it.
 *
 * predicate.c has the table and the predicates over whole inputs and the environment,
 * predicate_field.c those over one field, predicate_url.c the parts of a URL. */
#ifndef SEL_CORE_PREDICATE_INTERNAL_H
#define SEL_CORE_PREDICATE_INTERNAL_H

#include <stdbool.h>

#include "core/predicate.h"
#include "core/str.h"
#include "core/value.h"

/* sel_predicate.op of comparing predicates. */
enum sel_predicate_op {
    SEL_OP_EQUAL,
    SEL_OP_NOT_EQUAL,
    SEL_OP_LESS,
    SEL_OP_LESS_EQUAL,
    SEL_OP_GREATER,
    SEL_OP_GREATER_EQUAL,
};

/* Whether a value counts as one of `kind` for the type predicates: a bool is also an int. */
bool sel_predicate_is_kind(const struct sel_value *v, enum sel_kind kind);

/* Whether `a op b` holds. Things without an order (null, maps, an int and a text, NaN) are neither
 * less nor greater nor equal-or-less; lists compare item by item, texts by code points. */
bool sel_predicate_compare(const struct sel_value *a, enum sel_predicate_op op,
                           const struct sel_value *b);

/* sel_predicate.eval of the table; `args[0]` is the key. */
bool sel_predicate_field_exist(const struct sel_predicate *self, const struct sel_value *input,
                               const struct sel_value *const args[],
                               const struct sel_predicate_world *world);
bool sel_predicate_field_type(const struct sel_predicate *self, const struct sel_value *input,
                              const struct sel_value *const args[],
                              const struct sel_predicate_world *world);
bool sel_predicate_field_compare(const struct sel_predicate *self, const struct sel_value *input,
                                 const struct sel_value *const args[],
                                 const struct sel_predicate_world *world);
bool sel_predicate_field_length(const struct sel_predicate *self, const struct sel_value *input,
                                const struct sel_value *const args[],
                                const struct sel_predicate_world *world);
bool sel_predicate_field_contain(const struct sel_predicate *self, const struct sel_value *input,
                                 const struct sel_value *const args[],
                                 const struct sel_predicate_world *world);
bool sel_predicate_field_url(const struct sel_predicate *self, const struct sel_value *input,
                             const struct sel_value *const args[],
                             const struct sel_predicate_world *world);

/* sel_predicate.variant of the URL predicates. */
enum sel_url_part { SEL_URL_SCHEME, SEL_URL_NETLOC, SEL_URL_PATH };

/* Splits `url` as the original's library does (RFC 3986 in form, lenient in content) and compares
 * one part. false also if the URL is refused: unbalanced or bad brackets, characters that
 * normalise to delimiters. */
bool sel_url_part_is(struct sel_str url, enum sel_url_part part, struct sel_str expected);

#endif
