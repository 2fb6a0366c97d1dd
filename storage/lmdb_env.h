/* storage/lmdb_env.h - an LMDB environment as the storage uses it: opened once a process, a writer
 * thread, read transactions, a map that grows. Only storage/lmdb*.c include it; who does what when
 * is told in storage/lmdb.c. */
#ifndef SEL_STORAGE_LMDB_ENV_H
#define SEL_STORAGE_LMDB_ENV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"
#include "storage/io.h"
#include "storage/key.h"
#include "storage/storage.h"

#define SEL_LMDB_READERS_KEPT 16 /* idle read transactions; more are made and thrown away */
#define SEL_LMDB_GROW_MAX 64     /* doublings, or other processes' resizes, in one transaction */
#define SEL_LMDB_MAP_SIZE_MAX (UINT64_C(1) << 46) /* half of what x86-64 has for a process */
#define SEL_LMDB_MESSAGE_MAX 256

enum { SEL_LMDB_DB_RESULTS, SEL_LMDB_DB_ERRORS, SEL_LMDB_DB_TRACE, SEL_LMDB_DB_COUNT };

enum sel_lmdb_request_kind { SEL_LMDB_STORE, SEL_LMDB_ERROR, SEL_LMDB_DELETE, SEL_LMDB_TRACE };

/* What a caller asks of the writer; on the caller's stack until it is woken. */
struct sel_lmdb_request {
    struct sel_io_waiter waiter;
    struct sel_lmdb_request *next;
    enum sel_lmdb_request_kind kind;
    struct sel_storage_item *items; /* all but SEL_LMDB_TRACE */
    uint32_t count;
    uint32_t done;  /* items whose transaction has ended */
    uint32_t taken; /* items in the transaction that is under way, after those */
    const struct sel_storage_event *events; /* SEL_LMDB_TRACE */
    int failure;                            /* the last one; 0: none */
    /* of that failure: the writer must not touch the caller's arena */
    char message[SEL_LMDB_MESSAGE_MAX];
};

struct sel_lmdb_env {
    struct sel_lmdb_env *next; /* of all environments of the process */
    uint32_t refs;             /* both under the lock of the registry */
    dev_t dev;
    ino_t ino;
    char *path;
    bool sync;
    MDB_env *mdb;
    MDB_dbi dbs[SEL_LMDB_DB_COUNT];
    uint64_t page_size;
    uint64_t offload_above; /* bytes */
    _Atomic uint64_t used;  /* bytes of pages in use, about */

    pthread_rwlock_t map_lock;
    pthread_mutex_t readers_lock;
    MDB_txn *readers[SEL_LMDB_READERS_KEPT]; /* reset */
    uint32_t reader_count;

    pthread_t writer;
    struct sel_lmdb_request *_Atomic waiting; /* newest first */
    pthread_mutex_t sleep_lock;
    pthread_cond_t sleep_cond;
    bool stopping;               /* under sleep_lock */
    uint32_t item_limit;         /* writer's: items a transaction */
    uint32_t woken;              /* writer's: requests that the last commit ended */
    int64_t commit_ns;           /* writer's: how long it took */
    struct sel_storage_key last; /* writer's: the highest key of `results`, as far as it knows */
};

/* What LMDB returned as one of our codes, and as a text. */
int sel_lmdb_code(int rc);
const char *sel_lmdb_text(int rc);

/* Opens the environment in `path`, or shares it if this process has it open. Folder and files are
 * made if missing. May suspend. 0 or < 0 with `err`. */
int sel_lmdb_env_open(const char *path, bool sync, uint64_t map_size, struct sel_io *io,
                      struct sel_lmdb_env **ret, struct sel_error *err) SEL_WARN_UNUSED;
/* The last one stops the writer and closes it. */
void sel_lmdb_env_unref(struct sel_lmdb_env *env);

/* The functions below return 0 or an error of LMDB. */

/* On success the map stays where it is until sel_lmdb_env_end_read. */
int sel_lmdb_env_begin_read(struct sel_lmdb_env *env, MDB_txn **ret) SEL_WARN_UNUSED;
void sel_lmdb_env_end_read(struct sel_lmdb_env *env, MDB_txn *txn);
/* Takes over a size of the map that another process has set. No transaction of the calling thread
 * may be under way; it waits for those of others. */
int sel_lmdb_env_adopt_size(struct sel_lmdb_env *env) SEL_WARN_UNUSED;
/* Doubles the map, under the same terms. MDB_MAP_FULL: there is no more address space. */
int sel_lmdb_env_grow(struct sel_lmdb_env *env) SEL_WARN_UNUSED;
/* After a commit: makes the file as long as its meta page says. */
void sel_lmdb_env_complete_file(struct sel_lmdb_env *env);

int sel_lmdb_writer_start(struct sel_lmdb_env *env) SEL_WARN_UNUSED;
/* No request may be waiting. */
void sel_lmdb_writer_stop(struct sel_lmdb_env *env);
/* Hands a request over and waits for its end. */
void sel_lmdb_writer_submit(struct sel_lmdb_env *env, struct sel_io *io,
                            struct sel_lmdb_request *request);

#endif
