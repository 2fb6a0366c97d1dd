#include "core/pool.h"

#include <stdbool.h>

#include "core/mem.h"

#define SLAB_SIZE ((size_t)128 << 10) /* aligned to its size: a piece leads to its slab */
#define SIZE_MIN 32u
#define CLASS_BITS 2 /* classes for each doubling, as a power of two */

struct free_piece {
    struct free_piece *next;
};

struct sel_pool_slab {
    struct sel_pool_slab *prev, *next; /* those with room, of a class */
    struct free_piece *free;
    uint32_t fresh; /* offset of the first piece that was never given out */
    uint32_t live;
    uint32_t class;
    bool is_listed;
};

#define SLAB_HEADER ((sizeof(struct sel_pool_slab) + 15u) & ~(size_t)15)

/* Class 0 holds up to 32 bytes; then 40, 48, 56, 64, 80, ... rounded up to 16. */
static uint32_t class_of(size_t size)
{
    if (size <= SIZE_MIN)
        return 0;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(size - 1); /* 2^top < size <= 2^(top + 1) */
    uint32_t step = (uint32_t)((size - 1) >> (top - CLASS_BITS)) & ((1u << CLASS_BITS) - 1);
    return 1 + ((top - 5) << CLASS_BITS) + step;
}

static size_t class_size(uint32_t class)
{
    if (class == 0)
        return SIZE_MIN;
    uint32_t top = 5 + ((class - 1) >> CLASS_BITS);
    uint32_t step = (class - 1) & ((1u << CLASS_BITS) - 1);
    size_t size = ((size_t)1 << top) + ((size_t)(step + 1) << (top - CLASS_BITS));
    return (size + 15) & ~(size_t)15;
}

static void list_add(struct sel_pool *pool, struct sel_pool_slab *slab)
{
    slab->prev = NULL;
    slab->next = pool->partial[slab->class];
    if (slab->next)
        slab->next->prev = slab;
    pool->partial[slab->class] = slab;
    slab->is_listed = true;
}

static void list_remove(struct sel_pool *pool, struct sel_pool_slab *slab)
{
    if (slab->prev)
        slab->prev->next = slab->next;
    else
        pool->partial[slab->class] = slab->next;
    if (slab->next)
        slab->next->prev = slab->prev;
    slab->is_listed = false;
}

static void slab_free(struct sel_pool *pool, struct sel_pool_slab *slab)
{
    list_remove(pool, slab);
    sel_mem_free(slab);
    pool->reserved -= SLAB_SIZE;
}

static struct sel_pool_slab *slab_new(struct sel_pool *pool, uint32_t class)
{
    struct sel_pool_slab *slab = sel_mem_alloc_aligned(SLAB_SIZE, SLAB_SIZE);
    if (!slab)
        return NULL;
    *slab = (struct sel_pool_slab){.class = class, .fresh = SLAB_HEADER};
    pool->reserved += SLAB_SIZE;
    list_add(pool, slab);
    return slab;
}

void sel_pool_done(struct sel_pool *pool)
{
    for (uint32_t i = 0; i < SEL_POOL_CLASSES; i++) {
        while (pool->partial[i]) {
            SEL_ASSERT(pool->partial[i]->live == 0);
            slab_free(pool, pool->partial[i]);
        }
    }
    SEL_ASSERT(pool->used == 0 && pool->reserved == 0);
}

void *sel_pool_alloc(struct sel_pool *pool, size_t size)
{
    if (size > SEL_POOL_SIZE_MAX) {
        void *p = sel_mem_alloc(size);
        if (p) {
            pool->used += size;
            pool->reserved += size;
        }
        return p;
    }
    uint32_t class = class_of(size);
    struct sel_pool_slab *slab = pool->partial[class];
    if (!slab && !(slab = slab_new(pool, class)))
        return NULL;
    size_t piece = class_size(class);
    void *p = slab->free;
    if (p) {
        slab->free = slab->free->next;
    } else {
        p = (char *)slab + slab->fresh;
        slab->fresh += (uint32_t)piece;
    }
    slab->live++;
    pool->used += piece;
    if (!slab->free && slab->fresh + piece > SLAB_SIZE)
        list_remove(pool, slab);
    return p;
}

void sel_pool_free(struct sel_pool *pool, void *p, size_t size)
{
    if (!p)
        return;
    if (size > SEL_POOL_SIZE_MAX) {
        pool->used -= size;
        pool->reserved -= size;
        sel_mem_free(p);
        return;
    }
    struct sel_pool_slab *slab = (void *)((uintptr_t)p & ~(uintptr_t)(SLAB_SIZE - 1));
    SEL_ASSERT(slab->class == class_of(size) && slab->live > 0);
    struct free_piece *piece = p;
    piece->next = slab->free;
    slab->free = piece;
    slab->live--;
    pool->used -= class_size(slab->class);
    if (!slab->is_listed)
        list_add(pool, slab);
    if (slab->live == 0 && (slab->prev || slab->next))
        slab_free(pool, slab); /* the last one with room stays, so that a class does not flutter */
}
