/* storage/lmdb_cache.h - a cache in an LMDB environment of its own: LMDB(path, max_cache_size).
 *
 *   path            text, {ENV} expanded; default "selinon-cache"; made if missing
 *   max_cache_size  items, 0 (the default): no cache. The oldest leave first
 *
 * It outlives the process but not a restart of the machine: nothing is ever synced. What is damaged
 * is thrown away, and the cache begins anew. Several processes may share one, a process opens it
 * once. Not thread safe; calls block for as long as the page cache takes. */
#ifndef SEL_STORAGE_LMDB_CACHE_H
#define SEL_STORAGE_LMDB_CACHE_H

#include "core/arena.h"
#include "core/error.h"
#include "core/str.h"
#include "storage/storage.h"

struct sel_lmdb_cache;

/* 0 and *ret, which is NULL with a max_cache_size of 0. SEL_ECONFIG: a bad configuration, a folder
 * that holds something else, or one that this process uses already; -errno; SEL_ENOMEM;
 * SEL_ENOTFOUND (an environment variable). */
int sel_lmdb_cache_open(const struct sel_storage_options *options, struct sel_lmdb_cache **ret,
                        struct sel_error *err) SEL_WARN_UNUSED;
struct sel_lmdb_cache *sel_lmdb_cache_close(struct sel_lmdb_cache *cache); /* returns NULL */

/* 1: *ret is in `arena`; 0: a miss; < 0: `err` says why, and the cache may be asked again. */
int sel_lmdb_cache_get(struct sel_lmdb_cache *cache, struct sel_arena *arena, struct sel_str id,
                       struct sel_str *ret, struct sel_error *err) SEL_WARN_UNUSED;
/* An id that is there keeps its item. 0, or < 0 and `err`: nothing was added. */
int sel_lmdb_cache_add(struct sel_lmdb_cache *cache, struct sel_str id, struct sel_str item,
                       struct sel_error *err) SEL_WARN_UNUSED;

#endif
