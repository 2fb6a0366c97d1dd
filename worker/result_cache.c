#include "worker/result_cache.h"

#include "core/mem.h"
#include "storage/cache.h"
#include "storage/lmdb_cache.h"
#include "storage/storage.h"

/* ---- in memory ---- */

struct memory_cache {
    struct sel_result_cache base; /* first */
    struct sel_cache *cache;
};

static int memory_get(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                      struct sel_str *ret, struct sel_error *err)
{
    (void)arena, (void)err;
    return sel_cache_get(((struct memory_cache *)cache)->cache, id, ret);
}

static int memory_add(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                      struct sel_str item, struct sel_error *err)
{
    (void)arena;
    int r = sel_cache_add(((struct memory_cache *)cache)->cache, id, item);
    return r < 0 ? sel_error_set(err, r, (struct sel_pos){0}, "there is no memory for the item")
                 : 0;
}

static void memory_close(struct sel_result_cache *cache)
{
    sel_cache_free(((struct memory_cache *)cache)->cache);
    sel_mem_free(cache);
}

static const struct sel_result_cache_ops memory_ops = {
    .get = memory_get, .add = memory_add, .close = memory_close};

static int open_memory(enum sel_cache_kind kind, const struct sel_cache_def *def,
                       struct sel_result_cache **ret, struct sel_error *err)
{
    uint32_t size;
    *ret = NULL;
    int r = sel_cache_size_from_config(&def->config, &size, err);
    if (r < 0 || size == 0)
        return r;
    struct memory_cache *cache = SEL_NEW(struct memory_cache);
    if (cache)
        cache->cache = sel_cache_new(kind, size, 1); /* the same victims in every run */
    if (!cache || !cache->cache) {
        sel_mem_free(cache);
        return sel_error_set(err, SEL_ENOMEM, def->import.pos, "out of memory");
    }
    cache->base.ops = &memory_ops;
    *ret = &cache->base;
    return 0;
}

/* ---- LMDB ---- */

/* One open cache of a definition. */
struct sel_shared_cache {
    struct sel_shared_cache *next;
    struct sel_shared_caches *owner; /* NULL: one thread's */
    const struct sel_cache_def *def;
    uint32_t refs; /* as `next`, under the owner's lock */
    pthread_mutex_t lock;
    struct sel_lmdb_cache *cache;
};

struct lmdb_cache {
    struct sel_result_cache base; /* first */
    struct sel_shared_cache *shared;
};

/* Neither suspends, so that the lock is held for as long as the call takes. */
static int lmdb_get(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                    struct sel_str *ret, struct sel_error *err)
{
    struct sel_shared_cache *shared = ((struct lmdb_cache *)cache)->shared;
    pthread_mutex_lock(&shared->lock);
    int r = sel_lmdb_cache_get(shared->cache, arena, id, ret, err);
    pthread_mutex_unlock(&shared->lock);
    return r;
}

static int lmdb_add(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                    struct sel_str item, struct sel_error *err)
{
    struct sel_shared_cache *shared = ((struct lmdb_cache *)cache)->shared;
    (void)arena;
    pthread_mutex_lock(&shared->lock);
    int r = sel_lmdb_cache_add(shared->cache, id, item, err);
    pthread_mutex_unlock(&shared->lock);
    return r;
}

static void unlist(struct sel_shared_cache *shared)
{
    struct sel_shared_cache **at = &shared->owner->first;
    while (*at != shared)
        at = &(*at)->next;
    *at = shared->next;
}

static void unref_shared(struct sel_shared_cache *shared)
{
    struct sel_shared_caches *owner = shared->owner;
    if (owner)
        pthread_mutex_lock(&owner->lock);
    bool is_last = --shared->refs == 0;
    if (is_last && owner)
        unlist(shared);
    if (is_last)
        sel_lmdb_cache_close(shared->cache); /* before another one may open the folder */
    if (owner)
        pthread_mutex_unlock(&owner->lock);
    if (!is_last)
        return;
    pthread_mutex_destroy(&shared->lock);
    sel_mem_free(shared);
}

static void lmdb_close(struct sel_result_cache *cache)
{
    unref_shared(((struct lmdb_cache *)cache)->shared);
    sel_mem_free(cache);
}

static const struct sel_result_cache_ops lmdb_ops = {
    .get = lmdb_get, .add = lmdb_add, .close = lmdb_close};

/* 0 and *ret, NULL if its size is 0. */
static int new_shared(const struct sel_result_cache_options *options,
                      const struct sel_cache_def *def, struct sel_shared_cache **ret,
                      struct sel_error *err)
{
    struct sel_storage_options lmdb = {.name = def->import.name,
                                       .config = &def->config,
                                       .getenv = options->getenv,
                                       .getenv_ctx = options->getenv_ctx};
    struct sel_shared_cache *shared = SEL_NEW(struct sel_shared_cache);
    *ret = NULL;
    if (!shared)
        return sel_error_set(err, SEL_ENOMEM, def->import.pos, "out of memory");
    int r = sel_lmdb_cache_open(&lmdb, &shared->cache, err);
    if (r < 0 || !shared->cache) {
        sel_mem_free(shared);
        return r;
    }
    pthread_mutex_init(&shared->lock, NULL);
    shared->def = def;
    shared->refs = 1;
    *ret = shared;
    return 0;
}

/* The one that another thread has opened, or a new one. */
static int find_shared(const struct sel_result_cache_options *options,
                       const struct sel_cache_def *def, struct sel_shared_cache **ret,
                       struct sel_error *err)
{
    struct sel_shared_caches *owner = options->shared;
    int r = 0;
    pthread_mutex_lock(&owner->lock); /* for as long as it takes: this is the start */
    struct sel_shared_cache *shared = owner->first;
    while (shared && shared->def != def)
        shared = shared->next;
    if (shared) {
        shared->refs++;
    } else {
        r = new_shared(options, def, &shared, err);
        if (r == 0 && shared) {
            shared->owner = owner;
            shared->next = owner->first;
            owner->first = shared;
        }
    }
    pthread_mutex_unlock(&owner->lock);
    *ret = shared;
    return r;
}

static int open_lmdb(const struct sel_result_cache_options *options,
                     const struct sel_cache_def *def, struct sel_result_cache **ret,
                     struct sel_error *err)
{
    struct lmdb_cache *cache = SEL_NEW(struct lmdb_cache);
    *ret = NULL;
    if (!cache)
        return sel_error_set(err, SEL_ENOMEM, def->import.pos, "out of memory");
    cache->base.ops = &lmdb_ops;
    int r = options->shared ? find_shared(options, def, &cache->shared, err)
                            : new_shared(options, def, &cache->shared, err);
    if (r == 0 && cache->shared)
        *ret = &cache->base;
    else
        sel_mem_free(cache);
    return r;
}

/* ---- which one ---- */

static bool is_named(const struct sel_import *import, const char *module, const char *name)
{
    return sel_str_eq_c(import->name, name) &&
           (sel_str_eq_c(import->module, "selinon.caches") || sel_str_eq_c(import->module, module));
}

static bool is_ours(struct sel_str module)
{
    static const char package[] = "selinon.caches";
    size_t n = sizeof(package) - 1;
    return module.n >= n && memcmp(module.p, package, n) == 0 &&
           (module.n == n || module.p[n] == '.');
}

static int find_and_open(const struct sel_result_cache_options *options,
                         const struct sel_cache_def *def, struct sel_result_cache **ret,
                         struct sel_error *err)
{
    const struct sel_import *import = &def->import;
    enum sel_cache_kind kind;
    if (sel_cache_find(import->module, import->name, &kind))
        return open_memory(kind, def, ret, err);
    if (is_named(import, "selinon.caches.lmdb", "LMDB"))
        return open_lmdb(options, def, ret, err);
    if (is_named(import, "selinon.caches.redis", "Redis"))
        return sel_error_set(err, SEL_EUNSUPPORTED, import->pos,
                             "'Redis' of '%.*s' needs an adapter for its server, which this "
                             "version does not have",
                             SEL_STR_ARG(import->module));
    if (is_ours(import->module) || !options->modules)
        return sel_error_set(err, SEL_ENOTFOUND, import->pos,
                             "there is no '%.*s' in '%.*s'; selinon.caches has FIFO, LIFO, LRU, "
                             "MRU, RR and LMDB",
                             SEL_STR_ARG(import->name), SEL_STR_ARG(import->module));
    return sel_module_cache_open(options, def, ret, err);
}

int sel_result_cache_open(const struct sel_result_cache_options *options,
                          const struct sel_cache_def *def, struct sel_result_cache **ret,
                          struct sel_error *err)
{
    struct sel_error own = {0};
    *ret = NULL;
    if (def->import.name.n == 0)
        return 0;
    int r = find_and_open(options, def, ret, &own);
    return r < 0 ? sel_error_set(err, r, own.pos.line ? own.pos : def->import.pos, "cache: %s",
                                 own.text)
                 : 0;
}
