/* storage/cache.h - caches of results and node states: FIFO, LIFO, LRU, MRU, RR.
 *
 * A cache maps a task id to bytes, holds at most `size` items, and is not thread safe (its user
 * locks). Import names: selinon.caches and selinon.caches.fifo, .lifo, .lru, .mru, .rr; classes
 * FIFO, LIFO, LRU, MRU, RR with the argument max_cache_size. */
#ifndef SEL_STORAGE_CACHE_H
#define SEL_STORAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

enum sel_cache_kind { SEL_CACHE_FIFO, SEL_CACHE_LIFO, SEL_CACHE_LRU, SEL_CACHE_MRU, SEL_CACHE_RR };

struct sel_cache;

bool sel_cache_find(struct sel_str module, struct sel_str name, enum sel_cache_kind *ret);
/* max_cache_size from a configuration (null or a map): 0 if none was given.
 * SEL_ECONFIG: not a whole number >= 0, or another key; `err` says which. */
int sel_cache_size_from_config(const struct sel_value *config, uint32_t *ret,
                               struct sel_error *err) SEL_WARN_UNUSED;

/* `seed` is for RR. NULL: out of memory. */
struct sel_cache *sel_cache_new(enum sel_cache_kind kind, uint32_t size, uint64_t seed);
struct sel_cache *sel_cache_free(struct sel_cache *cache); /* returns NULL */
/* Copies both. Adding an id that is there changes nothing (not even the item, nor the order).
 * 0 or SEL_ENOMEM (the cache is unchanged). */
int sel_cache_add(struct sel_cache *cache, struct sel_str id, struct sel_str item);
/* true and the item, borrowed until the next call; LRU and MRU count it as a use. */
bool sel_cache_get(struct sel_cache *cache, struct sel_str id, struct sel_str *ret_item);
uint32_t sel_cache_count(const struct sel_cache *cache);
/* Id number `i` in the cache's listing order: FIFO, LIFO oldest first; LRU, MRU least recently
 * used first; RR any. For tests. */
struct sel_str sel_cache_id_at(const struct sel_cache *cache, uint32_t i);

#endif
