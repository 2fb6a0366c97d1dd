/* core/expand.h - environment variables in texts of the configuration.
 *
 * `{NAME}` becomes the value of NAME, `{{` and `}}` stand for single braces. An unset variable, a
 * lone brace and anything but a name between braces are errors. */
#ifndef SEL_CORE_EXPAND_H
#define SEL_CORE_EXPAND_H

#include "core/error.h"
#include "core/predicate.h"
#include "core/str.h"

struct sel_arena;

/* Expands `text`, which begins at `pos` in the user's file. Values are not expanded again.
 * `world` may be NULL: no variable is set then.
 *
 * 0: *ret is terminated and lives in `arena`. < 0: *ret is untouched and `err` (may be NULL) says
 * why: SEL_ESYNTAX braces, SEL_ENOTFOUND an unset variable, SEL_ENOMEM. */
int sel_expand(struct sel_arena *arena, const struct sel_predicate_world *world,
               struct sel_str text, struct sel_pos pos, struct sel_str *ret,
               struct sel_error *err) SEL_WARN_UNUSED;

#endif
