/* cli/table.h - what a broker answers, as people read it: generic, so that a new number of the
 * broker needs no new code here.
 *
 * A map is printed as names and values, one a line; a list of maps as a table with a column a key.
 * Units come from the words of names: `us` is a time, `bytes` and `memory` are sizes. Text may come
 * from anybody and is printed without control characters. */
#ifndef SEL_CLI_TABLE_H
#define SEL_CLI_TABLE_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/value.h"

/* Appends it; `empty` is said of an empty list. SEL_ENOMEM, also in `out`. */
int sel_cli_table_print(struct sel_arena *arena, const struct sel_value *value, const char *empty,
                        struct sel_buf *out) SEL_WARN_UNUSED;

/* One value of the name `key` ("queue_us", "bytes_in"; of what is nested "commit_us.p99"), in
 * `arena`; NULL: out of memory. */
const char *sel_cli_table_cell(struct sel_arena *arena, const char *key,
                               const struct sel_value *value);

/* Replaces in a text what could move the cursor of a terminal. */
void sel_cli_table_clean(char *text, size_t n);

#endif
