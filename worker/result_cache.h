/* worker/result_cache.h - one interface to all caches: built-in ones, LMDB's, those of modules.
 *
 * A cache maps the id of a node run to an encoded value: its result, or its state. It belongs to
 * one thread. Trouble is for a trace event; whoever asked then does without the cache. */
#ifndef SEL_WORKER_RESULT_CACHE_H
#define SEL_WORKER_RESULT_CACHE_H

#include <pthread.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/str.h"
#include "core/system.h"
#include "worker/exec.h"

struct sel_modules;
struct sel_result_cache;

struct sel_result_cache_ops {
    int (*get)(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
               struct sel_str *ret, struct sel_error *err);
    int (*add)(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
               struct sel_str item, struct sel_error *err);
    void (*close)(struct sel_result_cache *cache); /* frees it */
};

struct sel_result_cache {
    const struct sel_result_cache_ops *ops;
};

/* Caches on disk that threads of a process have together: LMDB opens a folder once a process.
 * Zeroed but for the lock, which its owner makes. */
struct sel_shared_cache;
struct sel_shared_caches {
    pthread_mutex_t lock;
    struct sel_shared_cache *first;
};

/* All of it outlives the caches. */
struct sel_result_cache_options {
    const struct sel_system *system;
    struct sel_modules *modules;      /* NULL: there are none */
    const struct sel_task_host *host; /* what functions of modules may ask */
    const char *(*getenv)(void *ctx, const char *name);
    void *getenv_ctx;
    struct sel_shared_caches *shared; /* NULL: there are no other threads */
};

/* Finds and opens the cache that `def`, which outlives it, describes.
 *
 * 0 and *ret, NULL if there is none: nothing is configured, or its size is 0.
 * SEL_ENOTFOUND no such cache; SEL_EUNSUPPORTED not in this build; SEL_ECONFIG its configuration;
 * SEL_ESTORAGE a module's open failed; what sel_modules_find and sel_lmdb_cache_open say. */
int sel_result_cache_open(const struct sel_result_cache_options *options,
                          const struct sel_cache_def *def, struct sel_result_cache **ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
/* NULL allowed; returns NULL. */
static inline struct sel_result_cache *sel_result_cache_close(struct sel_result_cache *cache)
{
    if (cache)
        cache->ops->close(cache);
    return NULL;
}

/* 1: *ret lives until the next call, or in `arena`; 0: a miss; < 0: trouble, `err` says which.
 * Functions of modules run in the calling coroutine. */
SEL_CO static inline int sel_result_cache_get(struct sel_result_cache *cache,
                                              struct sel_arena *arena, struct sel_str id,
                                              struct sel_str *ret, struct sel_error *err)
{
    return cache->ops->get(cache, arena, id, ret, err);
}
/* Copies both; an id that is there keeps its item. 0, or < 0 and `err`. */
SEL_CO static inline int sel_result_cache_add(struct sel_result_cache *cache,
                                              struct sel_arena *arena, struct sel_str id,
                                              struct sel_str item, struct sel_error *err)
{
    return cache->ops->add(cache, arena, id, item, err);
}

/* ---- worker/module_cache.c ---- */
int sel_module_cache_open(const struct sel_result_cache_options *options,
                          const struct sel_cache_def *def, struct sel_result_cache **ret,
                          struct sel_error *err) SEL_WARN_UNUSED;

#endif
