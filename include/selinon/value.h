/* selinon/value.h - reading values: arguments, results, messages.
 *
 * A value is null, bool, int, float, text, bytes, list or map. It never changes; any thread may
 * read it while its owner lives. A NULL pointer reads as null. Integers and floats are kept apart.
 * Functions that need a certain kind abort the program if it is another: ask sel_value_kind
 * first, or use the sel_arg_* functions of task.h, which fail the task instead. */
#ifndef SELINON_VALUE_H
#define SELINON_VALUE_H

#include <selinon/base.h>

struct sel_value;

enum sel_kind {
    SEL_NULL,
    SEL_BOOL,
    SEL_INT,   /* fits int64_t or uint64_t */
    SEL_FLOAT, /* double */
    SEL_TEXT,  /* UTF-8 */
    SEL_BIN,
    SEL_LIST,
    SEL_MAP,
    SEL_EXT,
};

SEL_API enum sel_kind sel_value_kind(const struct sel_value *v);
/* "null", "bool", "int", "float", "text", "bytes", "list", "map", "ext" */
SEL_API const char *sel_value_kind_name(enum sel_kind kind);

SEL_API bool sel_value_bool(const struct sel_value *v);
/* false if the int does not fit; *ret is then untouched. */
SEL_API bool sel_value_i64(const struct sel_value *v, int64_t *ret);
/* int or float as a double (rounded). */
SEL_API double sel_value_num(const struct sel_value *v);
SEL_API struct sel_str sel_value_str(const struct sel_value *v); /* text or bytes; borrowed */
SEL_API uint32_t sel_value_count(const struct sel_value *v);     /* of a list or map */
SEL_API const struct sel_value *sel_value_at(const struct sel_value *list, uint32_t i);
SEL_API const struct sel_value *sel_value_key_at(const struct sel_value *map, uint32_t i);
SEL_API const struct sel_value *sel_value_val_at(const struct sel_value *map, uint32_t i);
/* The value of a text key, NULL if absent or `map` is no map. With duplicate keys the last. */
SEL_API const struct sel_value *sel_value_get(const struct sel_value *map, struct sel_str key);
SEL_API const struct sel_value *sel_value_get_c(const struct sel_value *map, const char *key);

#endif
