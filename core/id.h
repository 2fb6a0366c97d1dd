/* core/id.h - 128-bit ids, time-ordered, in the form of UUID version 7 (RFC 9562, 5.7).
 *
 *   48 bits  milliseconds since 1970
 *    4 bits  version 7
 *   12 bits  shard
 *    2 bits  variant 10
 *   22 bits  incarnation of the maker
 *   40 bits  counter of the maker
 *
 * No random call per id: two makers never share shard and incarnation, one maker counts. The
 * counter wraps after 2^40 ids, long after the milliseconds have moved on. */
#ifndef SEL_CORE_ID_H
#define SEL_CORE_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"

struct sel_id {
    uint64_t hi, lo; /* big-endian halves of the UUID */
};

struct sel_id_source {
    uint16_t shard;       /* 12 bits */
    uint32_t incarnation; /* 22 bits */
    uint64_t counter;
    int64_t last_ms; /* never goes back */
};

struct sel_id sel_id_next(struct sel_id_source *source, int64_t unix_ms);

#define SEL_ID_TEXT_SIZE 37 /* with the terminator */
/* "0198f3c2-....": 36 characters. Returns out. */
const char *sel_id_format(struct sel_id id, char out[SEL_ID_TEXT_SIZE]);
bool sel_id_parse(struct sel_str text, struct sel_id *ret);
static inline bool sel_id_eq(struct sel_id a, struct sel_id b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

/* The id of one node run: "<flow id>-<attempt>.<ordinal>". */
#define SEL_RUN_ID_TEXT_SIZE 64
const char *sel_id_format_run(struct sel_id flow, uint32_t attempt, uint32_t ordinal,
                              char out[SEL_RUN_ID_TEXT_SIZE]);
bool sel_id_parse_run(struct sel_str text, struct sel_id *ret_flow, uint32_t *ret_attempt,
                      uint32_t *ret_ordinal);

#endif
