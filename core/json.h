/* core/json.h - JSON text to values and back, at the edges of the program only.
 *
 * Reading follows RFC 8259; integers stay integers, numbers with a fraction or exponent are floats.
 * NaN, Infinity, integers beyond 64 bits, invalid UTF-8, lone surrogates and nesting beyond
 * SEL_VALUE_DEPTH_MAX are refused with their place. Of duplicate keys the later counts and
 * `diag`, if given, gets a warning. Uses yajl. */
#ifndef SEL_CORE_JSON_H
#define SEL_CORE_JSON_H

#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

struct sel_buf;

/* Parses exactly one JSON text. `file` names it in messages (may be NULL).
 * 0; SEL_ESYNTAX, SEL_ERANGE (a number), SEL_ELIMIT (depth), SEL_ENOMEM; `err` (may be NULL) says
 * where and why. */
int sel_json_parse(struct sel_arena *arena, const char *file, struct sel_str text,
                   struct sel_value *ret, struct sel_diag *diag,
                   struct sel_error *err) SEL_WARN_UNUSED;

enum sel_json_flags {
    SEL_JSON_SORT = 1,   /* keys in the order of code points */
    SEL_JSON_PRETTY = 2, /* indent 2 */
    SEL_JSON_SPACED = 4, /* ", " and ": " as Python's json.dumps writes them */
    SEL_JSON_ASCII = 8,  /* \uXXXX beyond ASCII */
};

/* Appends the JSON text of `v`. Floats keep a fraction or exponent (1.0 stays 1.0) and round-trip;
 * a float that is no number is written as null, bytes and ext data as base64 text, bytes of a text
 * that are no UTF-8 as U+FFFD, keys that are no text as the text of their JSON. Beyond
 * SEL_VALUE_DEPTH_MAX it fails with SEL_ELIMIT. Errors stick in `buf`. */
void sel_json_write(const struct sel_value *v, unsigned flags, struct sel_buf *buf);

#endif
