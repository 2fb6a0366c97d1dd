/* storage/storage.h - result storages and caches as the engine sees them.
 *
 * Values cross as msgpack bytes: what a task returned is stored as it was encoded. Batches first,
 * a status per item; a storage is used by all threads of the process at once. Built in: memory,
 * LMDB, filesystem; worker/module.c wraps those of modules (include/selinon/storage.h). */
#ifndef SEL_STORAGE_STORAGE_H
#define SEL_STORAGE_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/str.h"
#include "core/value.h"
#include "storage/io.h"

#include <selinon/storage.h> /* enum sel_store_status */

struct sel_storage;

/* One record of a batch. Texts are terminated. */
struct sel_storage_item {
    struct sel_str flow, task, id; /* key; task is the storage_task_name */
    struct sel_str node_args; /* store, put_error: msgpack bytes, for adapters that keep them */
    struct sel_str value;     /* store: in; retrieve: out, in `arena` */
    struct sel_str error_class, error_message; /* put_error: in; get_error: out, in `arena` */
    struct sel_str record_id;     /* store: out, in `arena`, or `id` itself; p == NULL: null */
    enum sel_store_status status; /* out */
    const char *message;          /* out with SEL_STORE_FAILED, in `arena` or static */
};

/* One trace event: its name, and its details as an encoded map. */
struct sel_storage_event {
    struct sel_str name, details;
};

struct sel_storage_ops_i {
    /* Each returns 0 when every item has a status; < 0: the call failed as a whole, `err` says why,
     * and no item counts. `arena` owns what comes out. */
    int (*retrieve)(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                    struct sel_storage_item *items, uint32_t count, struct sel_error *err);
    /* Insert if absent by id. When it returns, OK items are as durable as the storage promises. */
    int (*store)(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                 struct sel_storage_item *items, uint32_t count, struct sel_error *err);
    int (*put_error)(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                     struct sel_storage_item *items, uint32_t count,
                     struct sel_error *err); /* NULL: keeps no errors */
    int (*get_error)(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                     struct sel_storage_item *items, uint32_t count,
                     struct sel_error *err); /* NULL: keeps no errors */
    int (*del)(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
               struct sel_storage_item *items, uint32_t count, struct sel_error *err);
    /* Keeps trace events beside the results, in order; NULL: cannot. < 0: how many of them were
     * kept is not known. */
    int (*trace)(struct sel_storage *s, struct sel_io *io, const struct sel_storage_event *events,
                 uint32_t count, struct sel_error *err);
    void (*close)(struct sel_storage *s); /* frees s; no call may be under way */
};

struct sel_storage {
    const struct sel_storage_ops_i *ops;
};

/* What built-in adapters get when they are opened. */
struct sel_storage_options {
    struct sel_str name;            /* in the YAML */
    const struct sel_value *config; /* `configuration`: null, map, list or text */
    const char *(*getenv)(void *ctx, const char *name); /* for {ENV} expansion */
    void *getenv_ctx;
    void (*echo)(void *ctx, bool to_stderr,
                 struct sel_str line); /* InMemoryStorage echo: a text, no line end */
    void *echo_ctx;
};

/* A built-in adapter by import and class name: `selinon.storages.memory` InMemoryStorage,
 * `selinon.storages.lmdb` LMDB, `selinon.storages.filesystem` Filesystem. */
struct sel_storage_adapter {
    const char *module;
    const char *name;
    int (*open)(const struct sel_storage_options *options, struct sel_io *io,
                struct sel_storage **ret, struct sel_error *err);
};
/* NULL if it is none of ours. SEL_EUNSUPPORTED ones (redis, ...) are in the table with an open
 * that says so. */
const struct sel_storage_adapter *sel_storage_find(struct sel_str module, struct sel_str name);

/* Expands `{NAME}` and the escapes `{{`, `}}` with the environment into `arena`.
 * 0, SEL_ENOTFOUND (unset), SEL_ESYNTAX. */
int sel_storage_expand(struct sel_arena *arena, const struct sel_storage_options *options,
                       struct sel_str text, struct sel_str *ret, struct sel_error *err);

#endif
