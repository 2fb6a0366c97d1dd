/* storage/schema.h - JSON Schema validation of results (drafts 4, 6, 7).
 *
 * A thin C face of valijson; schemas are compiled once and then read by any thread. */
#ifndef SEL_STORAGE_SCHEMA_H
#define SEL_STORAGE_SCHEMA_H

#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

struct sel_schema;

/* Compiles a schema text (JSON). `$schema` chooses the draft, without it draft 7. Documents are
 * not fetched from anywhere: a remote $ref is an error. 0; SEL_ESYNTAX, SEL_ECONFIG,
 * SEL_EUNSUPPORTED, SEL_ENOMEM with `err`. */
int sel_schema_compile(const char *file, struct sel_str text, struct sel_schema **ret,
                       struct sel_error *err) SEL_WARN_UNUSED;
struct sel_schema *sel_schema_free(struct sel_schema *schema); /* returns NULL */
/* 0: valid; SEL_EFAILED: `err` says where in the value and what is wrong; SEL_ENOMEM. */
int sel_schema_validate(const struct sel_schema *schema, const struct sel_value *value,
                        struct sel_error *err) SEL_WARN_UNUSED;

#endif
