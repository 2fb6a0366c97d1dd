/* core/yaml_scalar.h - what a YAML scalar means: the tag of a plain one, and its value.
 *
 * The rules are those of PyYAML's safe loader, which follows YAML 1.1 (yaml.org/type) with a few
 * quirks of its own: `y` and `n` are text, a float needs a dot and its exponent a sign, `.5` is a
 * float but `-.5` is text. Used by core/yaml.c only. Pure. */
#ifndef SEL_CORE_YAML_SCALAR_H
#define SEL_CORE_YAML_SCALAR_H

#include <stdbool.h>

#include "core/str.h"
#include "core/value.h"

struct sel_arena;

enum sel_yaml_tag {
    SEL_YAML_NONE, /* no tag is written */
    SEL_YAML_NULL,
    SEL_YAML_BOOL,
    SEL_YAML_INT,
    SEL_YAML_FLOAT,
    SEL_YAML_STR,
    SEL_YAML_BINARY,
    SEL_YAML_TIMESTAMP,
    SEL_YAML_MERGE, /* `<<` */
    SEL_YAML_VALUE, /* `=` */
    SEL_YAML_SEQ,
    SEL_YAML_MAP,
    SEL_YAML_SET,
    SEL_YAML_OMAP,
    SEL_YAML_PAIRS,
    SEL_YAML_FOREIGN, /* any other */
};

/* The tag of a resolved tag name, "tag:yaml.org,2002:int"; NULL and "!" are SEL_YAML_NONE. */
enum sel_yaml_tag sel_yaml_tag_parse(const char *name);

/* What a plain scalar without a tag is: NULL, BOOL, INT, FLOAT, MERGE, VALUE or STR. A date is
 * SEL_YAML_STR. */
enum sel_yaml_tag sel_yaml_scalar_resolve(struct sel_str text);

/* Values of scalars, by the rules above or, with an explicit tag, a little wider (`!!float 3`,
 * `!!float 1e5`). 0; SEL_ESYNTAX: not such a thing; SEL_ERANGE: an integer beyond 64 bits;
 * SEL_ENOMEM. */
int sel_yaml_scalar_bool(struct sel_str text, bool *ret) SEL_WARN_UNUSED;
int sel_yaml_scalar_int(struct sel_str text, struct sel_value *ret) SEL_WARN_UNUSED;
int sel_yaml_scalar_float(struct sel_arena *arena, struct sel_str text,
                          double *ret) SEL_WARN_UNUSED;
/* Base64 with white space anywhere; padding is required. The bytes are in `arena`. */
int sel_yaml_scalar_binary(struct sel_arena *arena, struct sel_str text,
                           struct sel_str *ret) SEL_WARN_UNUSED;
/* Whether `text` has the form of a date or of a date with a time. */
bool sel_yaml_scalar_is_timestamp(struct sel_str text);

#endif
