/* worker/details.h - building the details of trace events: a map with the keys in the order given.
 */
#ifndef SEL_WORKER_DETAILS_H
#define SEL_WORKER_DETAILS_H

#include "core/arena.h"
#include "core/value.h"

struct sel_details {
    struct sel_arena *arena;
    struct sel_value_builder map;
};

void sel_details_begin(struct sel_details *details, struct sel_arena *arena);
void sel_details_text(struct sel_details *details, const char *key,
                      const char *text); /* NULL: null */
void sel_details_str(struct sel_details *details, const char *key, struct sel_str text);
void sel_details_int(struct sel_details *details, const char *key, int64_t number);
void sel_details_bool(struct sel_details *details, const char *key, bool value);
/* Whole numbers are shown as such. Negative: null. */
void sel_details_seconds(struct sel_details *details, const char *key, double seconds);
/* Encoded bytes; n == 0: null. They are decoded into the arena without copying texts. */
void sel_details_encoded(struct sel_details *details, const char *key, struct sel_str bytes);
void sel_details_value(struct sel_details *details, const char *key, struct sel_value value);
/* The map; an empty one if memory ran out. */
struct sel_value sel_details_end(struct sel_details *details);

#endif
