/* core/pool.h - bytes of any size, taken and given back by the million, without the heap.
 *
 * Sizes are rounded up to classes, four for each doubling, cut out of slabs; an empty slab goes
 * back to the heap, but for one a class. Pieces over SEL_POOL_SIZE_MAX come from the heap alone. A
 * zeroed `struct sel_pool` is empty. Not thread safe. */
#ifndef SEL_CORE_POOL_H
#define SEL_CORE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"

#define SEL_POOL_SIZE_MAX ((size_t)16 << 10)
#define SEL_POOL_CLASSES 40

struct sel_pool_slab;

struct sel_pool {
    struct sel_pool_slab *partial[SEL_POOL_CLASSES]; /* slabs with room, by class */
    uint64_t used;                                   /* bytes given out, rounded up */
    uint64_t reserved;                               /* bytes taken from the heap */
};

/* Frees what is empty; all pieces must have been given back. */
void sel_pool_done(struct sel_pool *pool);
/* Not zeroed, aligned to 16; NULL: out of memory. */
void *sel_pool_alloc(struct sel_pool *pool, size_t size) SEL_WARN_UNUSED;
/* `size` as it was asked for. NULL allowed. */
void sel_pool_free(struct sel_pool *pool, void *p, size_t size);

#endif
