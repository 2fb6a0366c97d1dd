/* core/hash.h - text hash and a map from texts to 32-bit numbers.
 *
 * The order of a map is never visible: there is no iteration. */
#ifndef SEL_CORE_HASH_H
#define SEL_CORE_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/str.h"

/* The same on every machine and in every version: digests made of it are kept in journals. No
 * protection against who can choose the bytes, but for a secret seed. */
uint64_t sel_hash_bytes(const void *p, size_t n, uint64_t seed);

struct sel_map_slot;

/* Zeroed is empty. Keys are borrowed and must outlive the map. */
struct sel_map {
    struct sel_map_slot *slots;
    uint32_t cap; /* 0 or a power of two */
    uint32_t count;
};

void sel_map_done(struct sel_map *map);
/* 1: added, 0: was there (value unchanged, *ret_old set if not NULL), SEL_ENOMEM. */
int sel_map_add(struct sel_map *map, struct sel_str key, uint32_t value, uint32_t *ret_old);
bool sel_map_get(const struct sel_map *map, struct sel_str key, uint32_t *ret_value);

#endif
