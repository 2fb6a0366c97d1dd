/* selinon/storage.h - writing storages and caches.
 *
 * A storage keeps results of tasks. One instance serves all threads of a process; its functions
 * run as coroutines (see task.h) and may be called concurrently. Batches first: every function
 * gets `count` items and sets a status for each; its return value is about the call as a whole
 * (0, or negative with the error noted in `task`: then no item counts).
 *
 * A store is insert-if-absent by task id: the first result wins, a second one for the same id
 * reports SEL_STORE_EXISTS and changes nothing. */
#ifndef SELINON_STORAGE_H
#define SELINON_STORAGE_H

#include <selinon/base.h>
#include <selinon/value.h>

struct sel_task;

enum sel_store_status {
    SEL_STORE_OK,
    SEL_STORE_EXISTS,  /* store: there was one already */
    SEL_STORE_MISSING, /* retrieve, delete: there is none */
    SEL_STORE_FAILED,  /* message says why */
};

struct sel_record {
    const char *flow, *task, *id; /* the key; `task` is the storage_task_name */
    const struct sel_value *node_args;
    const struct sel_value *value; /* store: in; retrieve: out, sel_alloc'ed memory or static */
    const struct sel_value *error; /* store_error: a map {class, message} */
    const char *record_id;         /* store: out, what the storage calls the record; may be NULL */
    enum sel_store_status status;  /* out */
    const char *message;           /* out, for SEL_STORE_FAILED */
};

struct sel_storage_ops {
    size_t size; /* sizeof(struct sel_storage_ops) */
    /* `config` is the `configuration` of the YAML: null, map, list or text. */
    int (*open)(struct sel_task *task, const struct sel_value *config, void **ret_self);
    void (*close)(void *self);
    int (*retrieve)(struct sel_task *task, void *self, struct sel_record *items, uint32_t count);
    int (*store)(struct sel_task *task, void *self, struct sel_record *items, uint32_t count);
    int (*store_error)(struct sel_task *task, void *self, struct sel_record *items,
                       uint32_t count); /* may be NULL: errors are not kept */
    int (*del)(struct sel_task *task, void *self, struct sel_record *items, uint32_t count);
    /* `trace: storage` with this method; may be NULL. */
    int (*trace)(struct sel_task *task, void *self, const char *event,
                 const struct sel_value *details);
};

/* A cache of results or of the states of nodes, by the id of their run: at most what it wants to
 * keep. An instance is used by one thread, but a call may begin while another one suspends. Any
 * failure is traced and the storage is asked instead. */
struct sel_cache_ops {
    size_t size; /* sizeof(struct sel_cache_ops) */
    int (*open)(struct sel_task *task, const struct sel_value *config, void **ret_self);
    void (*close)(void *self);
    /* Adding an id that is there changes nothing. */
    int (*add)(struct sel_task *task, void *self, const char *id, const struct sel_value *item);
    /* 1: *ret is set; 0: a miss. */
    int (*get)(struct sel_task *task, void *self, const char *id, const struct sel_value **ret);
};

#endif
