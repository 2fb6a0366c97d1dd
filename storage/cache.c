#include "storage/cache.h"

#include <string.h>

#include "core/hash.h"
#include "core/mem.h"
#include "core/prng.h"
#include "storage/args.h"

#define BUCKETS_MIN 16

struct entry {
    struct entry *chain;         /* same bucket */
    struct entry *older, *newer; /* order of the kind; unused by RR */
    uint64_t hash;
    uint32_t slot; /* RR: where it is in `any` */
    size_t id_n, item_n;
    char bytes[]; /* id, then item */
};

struct sel_cache {
    enum sel_cache_kind kind;
    uint32_t size, count;
    uint32_t bucket_count; /* 0 or a power of two, at least `count` */
    struct entry **buckets;
    struct entry *oldest, *newest;
    struct entry **any; /* RR: all entries, in no order */
    uint32_t any_cap;
    struct sel_prng prng;
};

static const struct {
    const char *module, *name;
    enum sel_cache_kind kind;
} kinds[] = {
    {"selinon.caches.fifo", "FIFO", SEL_CACHE_FIFO},
    {"selinon.caches.lifo", "LIFO", SEL_CACHE_LIFO},
    {"selinon.caches.lru", "LRU", SEL_CACHE_LRU},
    {"selinon.caches.mru", "MRU", SEL_CACHE_MRU},
    {"selinon.caches.rr", "RR", SEL_CACHE_RR},
};

bool sel_cache_find(struct sel_str module, struct sel_str name, enum sel_cache_kind *ret)
{
    bool is_package = sel_str_eq_c(module, "selinon.caches");
    for (size_t i = 0; i < SEL_COUNT(kinds); i++)
        if (sel_str_eq_c(name, kinds[i].name) &&
            (is_package || sel_str_eq_c(module, kinds[i].module))) {
            *ret = kinds[i].kind;
            return true;
        }
    return false;
}

int sel_cache_size_from_config(const struct sel_value *config, uint32_t *ret, struct sel_error *err)
{
    static const char *const names[] = {"max_cache_size"};
    int r = sel_storage_args_check("a cache", config, names, SEL_COUNT(names), err);
    if (r < 0)
        return r;
    uint64_t size = 0;
    r = sel_storage_arg_size("a cache", config, names[0], 0, UINT32_MAX, &size, err);
    if (r < 0)
        return r;
    *ret = (uint32_t)size;
    return 0;
}

struct sel_cache *sel_cache_new(enum sel_cache_kind kind, uint32_t size, uint64_t seed)
{
    struct sel_cache *cache = SEL_NEW(struct sel_cache);
    if (!cache)
        return NULL;
    cache->kind = kind;
    cache->size = size;
    cache->prng.state = seed;
    return cache;
}

struct sel_cache *sel_cache_free(struct sel_cache *cache)
{
    if (!cache)
        return NULL;
    for (uint32_t b = 0; b < cache->bucket_count; b++)
        for (struct entry *e = cache->buckets[b], *next; e; e = next) {
            next = e->chain;
            sel_mem_free(e);
        }
    sel_mem_free(cache->buckets);
    sel_mem_free(cache->any);
    return sel_mem_free(cache);
}

static struct entry **bucket_of(const struct sel_cache *cache, uint64_t hash)
{
    return &cache->buckets[hash & (cache->bucket_count - 1)];
}

/* The link that points to the entry, or to the NULL at the end of its chain. */
static struct entry **find(const struct sel_cache *cache, uint64_t hash, struct sel_str id)
{
    struct entry **link = bucket_of(cache, hash);
    while (*link && ((*link)->hash != hash || (*link)->id_n != id.n ||
                     memcmp((*link)->bytes, id.p, id.n) != 0))
        link = &(*link)->chain;
    return link;
}

/* Room for one more entry in the table. The table grows with what is in it, so that a large
 * max_cache_size costs nothing by itself. */
static bool grow(struct sel_cache *cache)
{
    if (cache->count < cache->bucket_count)
        return true;
    uint32_t count = cache->bucket_count ? cache->bucket_count * 2 : BUCKETS_MIN;
    if (count <= cache->bucket_count) /* 2^31 entries */
        return false;
    struct entry **buckets = sel_mem_zalloc(count * sizeof(struct entry *));
    if (!buckets)
        return false;
    for (uint32_t b = 0; b < cache->bucket_count; b++)
        for (struct entry *e = cache->buckets[b], *next; e; e = next) {
            next = e->chain;
            e->chain = buckets[e->hash & (count - 1)];
            buckets[e->hash & (count - 1)] = e;
        }
    sel_mem_free(cache->buckets);
    cache->buckets = buckets;
    cache->bucket_count = count;
    return true;
}

static void order_append(struct sel_cache *cache, struct entry *e)
{
    e->older = cache->newest;
    e->newer = NULL;
    if (cache->newest)
        cache->newest->newer = e;
    else
        cache->oldest = e;
    cache->newest = e;
}

static void order_remove(struct sel_cache *cache, struct entry *e)
{
    if (e->older)
        e->older->newer = e->newer;
    else
        cache->oldest = e->newer;
    if (e->newer)
        e->newer->older = e->older;
    else
        cache->newest = e->older;
}

static struct entry *victim(struct sel_cache *cache)
{
    switch (cache->kind) {
    case SEL_CACHE_FIFO:
    case SEL_CACHE_LRU:
        return cache->oldest;
    case SEL_CACHE_LIFO:
    case SEL_CACHE_MRU:
        return cache->newest;
    case SEL_CACHE_RR:
        return cache->any[sel_prng_below(&cache->prng, cache->count)];
    }
    SEL_ASSERT(false); /* no other kind is made */
    return NULL;
}

static void evict(struct sel_cache *cache)
{
    struct entry *e = victim(cache);
    if (cache->kind == SEL_CACHE_RR) {
        struct entry *last = cache->any[cache->count - 1];
        cache->any[e->slot] = last;
        last->slot = e->slot;
    } else {
        order_remove(cache, e);
    }
    struct entry **link = bucket_of(cache, e->hash);
    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    cache->count--;
    sel_mem_free(e);
}

static struct entry *entry_new(uint64_t hash, struct sel_str id, struct sel_str item)
{
    size_t n;
    if (__builtin_add_overflow(id.n, item.n, &n) ||
        __builtin_add_overflow(n, sizeof(struct entry), &n))
        return NULL;
    struct entry *e = sel_mem_alloc(n);
    if (!e)
        return NULL;
    *e = (struct entry){.hash = hash, .id_n = id.n, .item_n = item.n};
    if (id.n)
        memcpy(e->bytes, id.p, id.n);
    if (item.n)
        memcpy(e->bytes + id.n, item.p, item.n);
    return e;
}

int sel_cache_add(struct sel_cache *cache, struct sel_str id, struct sel_str item)
{
    if (cache->size == 0)
        return 0;
    uint64_t hash = sel_hash_bytes(id.p, id.n, 0);
    if (cache->count > 0 && *find(cache, hash, id))
        return 0;
    /* Everything that can fail comes before the first change. */
    if (!grow(cache))
        return SEL_ENOMEM;
    if (cache->kind == SEL_CACHE_RR &&
        !sel_mem_grow(&cache->any, &cache->any_cap, (uint64_t)cache->count + 1,
                      sizeof(*cache->any)))
        return SEL_ENOMEM;
    struct entry *e = entry_new(hash, id, item);
    if (!e)
        return SEL_ENOMEM;
    if (cache->count == cache->size)
        evict(cache);
    e->chain = *bucket_of(cache, hash);
    *bucket_of(cache, hash) = e;
    if (cache->kind == SEL_CACHE_RR) {
        e->slot = cache->count;
        cache->any[e->slot] = e;
    } else {
        order_append(cache, e);
    }
    cache->count++;
    SEL_ASSERT(cache->count <= cache->size);
    return 0;
}

bool sel_cache_get(struct sel_cache *cache, struct sel_str id, struct sel_str *ret_item)
{
    if (cache->count == 0)
        return false;
    struct entry *e = *find(cache, sel_hash_bytes(id.p, id.n, 0), id);
    if (!e)
        return false;
    if (cache->kind == SEL_CACHE_LRU || cache->kind == SEL_CACHE_MRU) {
        order_remove(cache, e);
        order_append(cache, e);
    }
    *ret_item = (struct sel_str){e->bytes + e->id_n, e->item_n};
    return true;
}

uint32_t sel_cache_count(const struct sel_cache *cache)
{
    return cache->count;
}

struct sel_str sel_cache_id_at(const struct sel_cache *cache, uint32_t i)
{
    SEL_ASSERT(i < cache->count);
    const struct entry *e;
    if (cache->kind == SEL_CACHE_RR) {
        e = cache->any[i];
    } else {
        e = cache->oldest;
        while (i-- > 0)
            e = e->newer;
    }
    return (struct sel_str){e->bytes, e->id_n};
}
