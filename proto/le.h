/* proto/le.h - numbers as they stand in heads and records: little-endian, at any address.
 *
 * Ids are the exception: they stand in the byte order of a UUID's text. */
#ifndef SEL_PROTO_LE_H
#define SEL_PROTO_LE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "core/id.h"

static inline uint16_t sel_le_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static inline uint32_t sel_le_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline uint64_t sel_le_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static inline void sel_le_put16(void *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void sel_le_put32(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void sel_le_put64(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static inline struct sel_id sel_le_get_id(const void *p)
{
    uint64_t half[2];
    memcpy(half, p, sizeof(half));
    return (struct sel_id){be64toh(half[0]), be64toh(half[1])};
}

static inline void sel_le_put_id(void *p, struct sel_id id)
{
    const uint64_t half[2] = {htobe64(id.hi), htobe64(id.lo)};
    memcpy(p, half, sizeof(half));
}

#endif
