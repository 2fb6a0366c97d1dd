/* The embedded storage: an LMDB environment in a folder.
 *
 * Databases in it: `results` and `errors`, keyed by task id (storage/key.h), `trace`, keyed by a
 * counter, all with the records of storage/record.h; and in the unnamed one the key
 * "selinon-results" with the version of this layout. node_args are not kept: a result would
 * otherwise cost as much as the arguments of its whole flow.
 *
 * Who does what:
 *   caller         hands a request over and waits; it may be a coroutine, and others of its thread
 *                  go on meanwhile
 *   writer thread  one per environment; takes all requests that wait, writes them in one
 *                  transaction, commits (one sync for all), wakes them. While it syncs, the next
 *                  batch gathers. Only it writes, so nobody ever waits for LMDB's writer lock
 *   reads          on the calling thread, in a read transaction that lives for one call: a page
 *                  that is in memory costs less than any hand-over. When the environment outgrows
 *                  half of the memory, a read may have to wait for the disk, and then the pool for
 *                  blocking work does it
 *   map_lock       held for reading by every read, for writing while the map grows, because LMDB
 *                  moves the map and no transaction may be under way
 *
 * A full disk fails the requests of that transaction, each with a message; what was acknowledged
 * stays, and the next transaction tries anew. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "storage/args.h"
#include "storage/builtin.h"
#include "storage/key.h"
#include "storage/lmdb_check.h"
#include "storage/record.h"

#define PATH_DEFAULT "selinon-results"
#define MAP_SIZE_DEFAULT (UINT64_C(1) << 30)
#define MAP_SIZE_MIN (UINT64_C(1) << 16)
#define MAP_SIZE_MAX (UINT64_C(1) << 46) /* half of what x86-64 has for a process */
#define GROW_MAX 64                      /* doublings, or other processes' resizes, in one commit */
#define BATCH_ITEMS_MAX 16384
#define BATCH_BYTES_MAX (64u << 20)
#define READERS_KEPT 16  /* idle read transactions; more are made and thrown away */
#define READERS_MAX 1024 /* of all processes; LMDB's own default is 126 */
/* Callers that a slow commit has just woken mostly come back at once. Waiting for them an eighth of
 * what the commit took fills the next one: with 1,000 callers and syncs of 5 ms twice as many a
 * second. On a disk that syncs faster, the next batch gathers well enough during the sync. */
#define GATHER_COMMIT_NS INT64_C(1000000)
#define GATHER_SHARE 8
#define GATHER_REQUESTS_MIN 16
#define MESSAGE_MAX 256
#define VALUE_MAX (UINT64_C(1) << 31) /* LMDB takes less than 4 GiB a record */

#define FORMAT_KEY "selinon-results"
#define FORMAT_VERSION "1"

static const struct sel_pos nowhere;
static const char what[] = "LMDB";

enum { DB_RESULTS, DB_ERRORS, DB_TRACE, DB_COUNT };
static const char *const db_names[DB_COUNT] = {"results", "errors", "trace"};

enum request_kind { REQUEST_STORE, REQUEST_ERROR, REQUEST_DELETE, REQUEST_TRACE };

/* What a caller asks of the writer; on the caller's stack until it is woken. */
struct request {
    struct sel_io_waiter waiter;
    struct request *next;
    enum request_kind kind;
    struct sel_storage_item *items; /* all but REQUEST_TRACE */
    uint32_t count;
    uint32_t done;  /* items whose transaction has ended */
    uint32_t taken; /* items in the transaction that is under way, after those */
    struct sel_str event, details;
    int failure;               /* the last one; 0: none */
    char message[MESSAGE_MAX]; /* of that failure; the writer must not touch the caller's arena */
};

struct env {
    struct env *next; /* of all environments of the process */
    uint32_t refs;    /* both under envs_lock */
    dev_t dev;
    ino_t ino;
    char *path;
    bool sync;
    MDB_env *mdb;
    MDB_dbi dbs[DB_COUNT];
    uint64_t page_size;
    uint64_t offload_above; /* bytes */
    _Atomic uint64_t used;  /* bytes of pages in use, about */

    pthread_rwlock_t map_lock;
    pthread_mutex_t readers_lock;
    MDB_txn *readers[READERS_KEPT]; /* reset */
    uint32_t reader_count;

    pthread_t writer;
    struct request *_Atomic waiting; /* newest first */
    pthread_mutex_t sleep_lock;
    pthread_cond_t sleep_cond;
    bool stopping;               /* under sleep_lock */
    uint32_t item_limit;         /* writer's: items a transaction */
    uint32_t woken;              /* writer's: requests that the last commit ended */
    int64_t commit_ns;           /* writer's: how long it took */
    struct sel_storage_key last; /* writer's: the highest key of `results`, as far as it knows */
};

struct lmdb {
    struct sel_storage base;
    struct env *env;
};

/* ---- errors ---- */

static int code_of(int rc)
{
    switch (rc) {
    case MDB_NOTFOUND:
        return SEL_ENOTFOUND;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        return SEL_EFORMAT;
    case MDB_VERSION_MISMATCH:
        return SEL_EVERSION;
    case ENOMEM:
        return SEL_ENOMEM;
    default:
        return rc > 0 ? -rc : SEL_ESTORAGE;
    }
}

static const char *text_of(int rc)
{
    if (rc == MDB_PANIC)
        return "an earlier failure of the disk left the environment unusable; start again";
    return mdb_strerror(rc);
}

/* ---- the map ---- */

/* Whether `size` bytes of address space are to be had: LMDB gives up its old map before it asks
 * for the new one, and is lost when that fails. */
static bool has_address_space(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    (void)munmap(p, size);
    return true;
}

/* Takes over a size that another process has set. No transaction of ours may be under way. */
static int adopt_map_size(struct env *env)
{
    pthread_rwlock_wrlock(&env->map_lock);
    int rc = mdb_env_set_mapsize(env->mdb, 0);
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

static int grow_map(struct env *env)
{
    MDB_envinfo info;
    int rc = mdb_env_info(env->mdb, &info);
    if (rc != 0)
        return rc;
    uint64_t size = (uint64_t)info.me_mapsize * 2;
    if (size > MAP_SIZE_MAX || !has_address_space(size))
        return MDB_MAP_FULL;
    pthread_rwlock_wrlock(&env->map_lock);
    rc = mdb_env_set_mapsize(env->mdb, size);
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

/* ---- the writer ---- */

/* One transaction. */
struct batch {
    struct env *env;
    MDB_txn *txn;
    MDB_cursor *cursors[DB_COUNT]; /* opened when needed; closed by the end of the transaction */
    uint32_t items;
    size_t bytes;
    uint64_t trace_next; /* 0: not looked up yet */
};

static int cursor_of(struct batch *batch, int db, MDB_cursor **ret)
{
    int rc = 0;
    if (!batch->cursors[db])
        rc = mdb_cursor_open(batch->txn, batch->env->dbs[db], &batch->cursors[db]);
    *ret = batch->cursors[db];
    return rc;
}

static MDB_val val_of(struct sel_str s)
{
    return (MDB_val){s.n, (void *)s.p};
}

/* Puts a record straight into its page. */
static int put_record(MDB_cursor *cursor, struct sel_str key, const struct sel_str *parts,
                      uint32_t part_count, unsigned flags)
{
    MDB_val k = val_of(key), data = {sel_record_size(parts, part_count), NULL};
    int rc = mdb_cursor_put(cursor, &k, &data, flags | MDB_RESERVE);
    if (rc == 0)
        sel_record_pack(data.mv_data, key, parts, part_count);
    return rc;
}

static int key_cmp(const struct sel_storage_key *a, const struct sel_storage_key *b)
{
    return sel_str_cmp((struct sel_str){(const char *)a->bytes, a->n},
                       (struct sel_str){(const char *)b->bytes, b->n});
}

static int note_last_key(struct env *env, MDB_cursor *cursor)
{
    MDB_val k, data;
    int rc = mdb_cursor_get(cursor, &k, &data, MDB_LAST);
    if (rc == 0 && k.mv_size <= SEL_STORAGE_KEY_MAX) {
        env->last.n = (uint32_t)k.mv_size;
        memcpy(env->last.bytes, k.mv_data, k.mv_size);
    }
    return rc;
}

/* Ids mostly arrive in order. Appending needs no search and fills pages to the brim, where an
 * insert at the end would leave every page half empty. */
static int put_result(struct batch *batch, MDB_cursor *cursor, const struct sel_storage_key *key,
                      const struct sel_str *parts, uint32_t part_count)
{
    struct env *env = batch->env;
    struct sel_str k = {(const char *)key->bytes, key->n};
    if (key_cmp(key, &env->last) > 0) {
        int rc = put_record(cursor, k, parts, part_count, MDB_APPEND);
        if (rc == 0)
            env->last = *key;
        if (rc != MDB_KEYEXIST)
            return rc;
        rc = note_last_key(env, cursor); /* there are higher ones that we did not know of */
        if (rc != 0)
            return rc;
    }
    return put_record(cursor, k, parts, part_count, MDB_NOOVERWRITE);
}

static int store_item(struct batch *batch, struct sel_storage_item *item,
                      const struct sel_storage_key *key)
{
    MDB_cursor *cursor;
    int rc = cursor_of(batch, DB_RESULTS, &cursor);
    if (rc != 0)
        return rc;
    const struct sel_str parts[] = {item->flow, item->task, item->value};
    rc = put_result(batch, cursor, key, parts, SEL_COUNT(parts));
    item->status = rc == MDB_KEYEXIST ? SEL_STORE_EXISTS : SEL_STORE_OK;
    item->record_id = item->status == SEL_STORE_OK ? item->id : (struct sel_str){NULL, 0};
    batch->bytes += item->value.n;
    return rc == MDB_KEYEXIST ? 0 : rc;
}

/* The last failure of a task counts: a retried one fails more than once. */
static int put_error_item(struct batch *batch, struct sel_storage_item *item,
                          const struct sel_storage_key *key)
{
    MDB_cursor *cursor;
    int rc = cursor_of(batch, DB_ERRORS, &cursor);
    if (rc != 0)
        return rc;
    const struct sel_str parts[] = {item->flow, item->task, item->error_class, item->error_message};
    rc = put_record(cursor, (struct sel_str){(const char *)key->bytes, key->n}, parts,
                    SEL_COUNT(parts), 0);
    item->status = SEL_STORE_OK;
    item->record_id = item->id;
    batch->bytes += item->error_message.n;
    return rc;
}

static int delete_from(struct batch *batch, int db, const struct sel_storage_key *key)
{
    MDB_cursor *cursor;
    int rc = cursor_of(batch, db, &cursor);
    MDB_val k = {key->n, (void *)key->bytes};
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &k, NULL, MDB_SET);
    if (rc == 0)
        rc = mdb_cursor_del(cursor, 0);
    return rc;
}

static int delete_item(struct batch *batch, struct sel_storage_item *item,
                       const struct sel_storage_key *key)
{
    int rc = delete_from(batch, DB_RESULTS, key);
    item->status = rc == MDB_NOTFOUND ? SEL_STORE_MISSING : SEL_STORE_OK;
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    rc = delete_from(batch, DB_ERRORS, key);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static uint64_t load_be64(const uint8_t *p)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | p[i];
    return value;
}

static int find_trace_next(struct batch *batch, MDB_cursor *cursor)
{
    MDB_val k, data;
    int rc = mdb_cursor_get(cursor, &k, &data, MDB_LAST);
    batch->trace_next = rc == 0 && k.mv_size == 8 ? load_be64(k.mv_data) + 1 : 1;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int put_trace(struct batch *batch, const struct request *request)
{
    MDB_cursor *cursor;
    int rc = cursor_of(batch, DB_TRACE, &cursor);
    if (rc == 0 && batch->trace_next == 0)
        rc = find_trace_next(batch, cursor);
    if (rc != 0)
        return rc;
    char key[8];
    for (unsigned i = 0; i < 8; i++)
        key[i] = (char)(batch->trace_next >> (8 * (7 - i)));
    const struct sel_str parts[] = {request->event, request->details};
    rc =
        put_record(cursor, (struct sel_str){key, sizeof(key)}, parts, SEL_COUNT(parts), MDB_APPEND);
    batch->trace_next++;
    batch->bytes += request->details.n;
    return rc;
}

static int put_item(struct batch *batch, const struct request *request,
                    struct sel_storage_item *item)
{
    struct sel_storage_key key;
    if (!sel_storage_key_encode(item->id, &key)) {
        item->status = SEL_STORE_FAILED;
        item->message = SEL_STORAGE_KEY_REFUSED;
        return 0;
    }
    if (item->value.n > VALUE_MAX || item->error_message.n > VALUE_MAX) {
        item->status = SEL_STORE_FAILED; /* alone: LMDB would refuse it, and the whole batch */
        item->message = "larger than 2 GiB";
        return 0;
    }
    switch (request->kind) {
    case REQUEST_STORE:
        return store_item(batch, item, &key);
    case REQUEST_ERROR:
        return put_error_item(batch, item, &key);
    default:
        return delete_item(batch, item, &key);
    }
}

/* Puts as much of the requests as one transaction should hold; request->taken says how much. */
static int fill(struct batch *batch, struct request *requests)
{
    int rc = 0;
    for (struct request *r = requests; r; r = r->next)
        r->taken = 0;
    for (struct request *r = requests; r && rc == 0; r = r->next)
        while (r->done + r->taken < r->count && rc == 0) {
            if (batch->items == batch->env->item_limit || batch->bytes > BATCH_BYTES_MAX)
                return 0;
            rc = r->kind == REQUEST_TRACE ? put_trace(batch, r)
                                          : put_item(batch, r, &r->items[r->done + r->taken]);
            r->taken++;
            batch->items++;
        }
    return rc;
}

/* What LMDB frees again within one transaction it never writes, so that the file may end before
 * the last page that it counts. Ours does not: that is how a cut one is told (lmdb_check.h). */
static void complete_file(struct env *env)
{
    MDB_envinfo info;
    mdb_filehandle_t fd;
    struct stat st;
    if (mdb_env_info(env->mdb, &info) != 0 || mdb_env_get_fd(env->mdb, &fd) != 0)
        return;
    uint64_t size = ((uint64_t)info.me_last_pgno + 1) * env->page_size;
    atomic_store_explicit(&env->used, size, memory_order_relaxed);
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size < size)
        (void)!ftruncate(fd, (off_t)size); /* if it fails, the next commit tries again */
}

static int try_commit(struct env *env, struct request *requests, uint32_t *ret_items)
{
    struct batch batch = {.env = env};
    int rc = mdb_txn_begin(env->mdb, NULL, 0, &batch.txn);
    if (rc != 0)
        return rc;
    rc = fill(&batch, requests);
    *ret_items = batch.items;
    if (rc == 0)
        return mdb_txn_commit(batch.txn);
    mdb_txn_abort(batch.txn);
    return rc;
}

/* Writes what fill takes of the requests. Nothing of it is in the environment if it fails. */
static int commit(struct env *env, struct request *requests)
{
    int rc = 0;
    env->item_limit = BATCH_ITEMS_MAX;
    for (int i = 0; i < GROW_MAX; i++) {
        uint32_t items = 0;
        rc = try_commit(env, requests, &items);
        if (rc == MDB_MAP_RESIZED)
            rc = adopt_map_size(env);
        else if (rc == MDB_MAP_FULL)
            rc = grow_map(env);
        else if (rc == MDB_TXN_FULL && items > 1) {
            env->item_limit = items / 2; /* too many pages: keys all over the place */
            rc = 0;
        } else
            break;
        if (rc != 0)
            break;
    }
    if (rc == 0)
        complete_file(env);
    else
        env->last.n = 0; /* it may have counted keys that are not there */
    return rc;
}

/* A write that was cut short by a full disk is EIO to LMDB. */
static bool is_disk_full(const struct env *env)
{
    struct statvfs fs;
    return statvfs(env->path, &fs) == 0 && fs.f_bavail < BATCH_BYTES_MAX / fs.f_frsize;
}

static void note_failure(const struct env *env, struct request *request, int rc)
{
    if (rc == EIO && is_disk_full(env))
        rc = ENOSPC;
    request->failure = code_of(rc);
    (void)snprintf(request->message, sizeof(request->message), "cannot write to '%s': %s",
                   env->path, text_of(rc));
}

/* Counts what a transaction took as done; wakes those with nothing left; returns the others. */
static struct request *settle(struct env *env, struct request *requests, int rc)
{
    struct request *rest = NULL, **end = &rest;
    for (struct request *r = requests, *next; r; r = next) {
        next = r->next;
        if (rc != 0 && r->taken > 0) {
            note_failure(env, r, rc);
            for (uint32_t i = r->done; r->items && i < r->done + r->taken; i++) {
                r->items[i].status = SEL_STORE_FAILED;
                r->items[i].message = NULL; /* the caller copies request->message */
            }
        }
        r->done += r->taken;
        r->taken = 0;
        if (r->done == r->count) {
            env->woken++;
            sel_io_wake(&r->waiter); /* from here on it is gone */
        } else {
            r->next = NULL;
            *end = r;
            end = &r->next;
        }
    }
    return rest;
}

static int64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Sleeps until there is a request, or the end. */
static void wait_for_requests(struct env *env)
{
    pthread_mutex_lock(&env->sleep_lock);
    while (!atomic_load_explicit(&env->waiting, memory_order_relaxed) && !env->stopping)
        pthread_cond_wait(&env->sleep_cond, &env->sleep_lock);
    pthread_mutex_unlock(&env->sleep_lock);
}

static void gather(const struct env *env)
{
    if (env->woken < GATHER_REQUESTS_MIN || env->commit_ns < GATHER_COMMIT_NS)
        return;
    int64_t ns = env->commit_ns / GATHER_SHARE;
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    (void)nanosleep(&t, NULL); /* signals are blocked; a shorter sleep does no harm */
}

/* All waiting requests, oldest first; sleeps while there are none. NULL: the end. */
static struct request *take_all(struct env *env)
{
    if (!atomic_load_explicit(&env->waiting, memory_order_relaxed))
        wait_for_requests(env);
    gather(env);
    struct request *newest = atomic_exchange_explicit(&env->waiting, NULL, memory_order_acquire);
    struct request *oldest = NULL;
    while (newest) {
        struct request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void *run_writer(void *arg)
{
    struct env *env = arg;
    for (;;) {
        struct request *requests = take_all(env);
        if (!requests)
            return NULL;
        while (requests) {
            int64_t begin = now_ns();
            int rc = commit(env, requests);
            env->commit_ns = now_ns() - begin;
            env->woken = 0;
            requests = settle(env, requests, rc);
        }
    }
}

/* Hands a request over and waits for its end. */
static void submit(struct env *env, struct sel_io *io, struct request *request)
{
    request->waiter.io = io;
    struct request *head = atomic_load_explicit(&env->waiting, memory_order_relaxed);
    do
        request->next = head;
    while (!atomic_compare_exchange_weak_explicit(&env->waiting, &head, request,
                                                  memory_order_release, memory_order_relaxed));
    if (!head) { /* whoever finds requests before its own has a waker already */
        pthread_mutex_lock(&env->sleep_lock);
        pthread_cond_signal(&env->sleep_cond);
        pthread_mutex_unlock(&env->sleep_lock);
    }
    io->ops->wait(io, &request->waiter);
}

static int write_items(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                       enum request_kind kind, struct sel_storage_item *items, uint32_t count)
{
    if (count == 0)
        return 0;
    struct request request = {.kind = kind, .items = items, .count = count};
    submit(((struct lmdb *)s)->env, io, &request);
    if (request.failure == 0)
        return 0;
    const char *message = sel_arena_strdup(arena, sel_str_c(request.message));
    for (uint32_t i = 0; i < count; i++)
        if (items[i].status == SEL_STORE_FAILED && !items[i].message)
            items[i].message = message ? message : "cannot write, and out of memory";
    return 0;
}

/* ---- reading ---- */

/* On success map_lock is held for reading until end_read. */
static int begin_read(struct env *env, MDB_txn **ret)
{
    int rc = 0;
    for (int i = 0; i < GROW_MAX; i++) {
        MDB_txn *txn = NULL;
        pthread_rwlock_rdlock(&env->map_lock);
        pthread_mutex_lock(&env->readers_lock);
        if (env->reader_count > 0)
            txn = env->readers[--env->reader_count];
        pthread_mutex_unlock(&env->readers_lock);
        rc = txn ? mdb_txn_renew(txn) : mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
        if (rc == 0) {
            *ret = txn;
            return 0;
        }
        mdb_txn_abort(txn);
        pthread_rwlock_unlock(&env->map_lock);
        if (rc != MDB_MAP_RESIZED)
            return rc;
        rc = adopt_map_size(env);
        if (rc != 0)
            return rc;
    }
    return rc;
}

static void end_read(struct env *env, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    pthread_mutex_lock(&env->readers_lock);
    bool is_kept = env->reader_count < READERS_KEPT;
    if (is_kept)
        env->readers[env->reader_count++] = txn;
    pthread_mutex_unlock(&env->readers_lock);
    if (!is_kept)
        mdb_txn_abort(txn);
    pthread_rwlock_unlock(&env->map_lock);
}

static void fail_item(struct sel_arena *arena, struct sel_storage_item *item, const char *path,
                      const char *text)
{
    item->status = SEL_STORE_FAILED;
    item->message =
        sel_arena_printf(arena, "record '%.*s' in '%s': %s", SEL_STR_ARG(item->id), path, text);
    if (!item->message)
        item->message = "cannot read, and out of memory";
}

/* Copies a text into the arena, terminated. */
static bool copy_out(struct sel_arena *arena, struct sel_str from, struct sel_str *ret)
{
    char *p = sel_arena_strdup(arena, from);
    *ret = (struct sel_str){p, from.n};
    return p != NULL;
}

static bool copy_parts(struct sel_arena *arena, int db, const struct sel_str *parts,
                       struct sel_storage_item *item)
{
    if (db == DB_RESULTS)
        return copy_out(arena, parts[2], &item->value);
    return copy_out(arena, parts[2], &item->error_class) &&
           copy_out(arena, parts[3], &item->error_message);
}

static void read_item(struct env *env, MDB_txn *txn, int db, struct sel_arena *arena,
                      struct sel_storage_item *item)
{
    struct sel_storage_key key;
    struct sel_str parts[SEL_RECORD_PARTS_MAX];
    MDB_val k, data;
    if (!sel_storage_key_encode(item->id, &key)) {
        item->status = SEL_STORE_MISSING; /* nothing is stored under such an id */
        return;
    }
    k = (MDB_val){key.n, key.bytes};
    int rc = mdb_get(txn, env->dbs[db], &k, &data);
    if (rc == MDB_NOTFOUND) {
        item->status = SEL_STORE_MISSING;
        return;
    }
    if (rc != 0) {
        fail_item(arena, item, env->path, text_of(rc));
        return;
    }
    int r = sel_record_unpack((struct sel_str){(const char *)key.bytes, key.n},
                              (struct sel_str){data.mv_data, data.mv_size}, parts,
                              db == DB_RESULTS ? 3 : 4);
    if (r < 0)
        fail_item(arena, item, env->path,
                  r == SEL_EVERSION ? "written by a newer version of this program"
                                    : "damaged; its checksum does not match");
    else if (!copy_parts(arena, db, parts, item))
        fail_item(arena, item, env->path, "out of memory");
    else
        item->status = SEL_STORE_OK;
}

struct read_job {
    struct env *env;
    int db;
    struct sel_arena *arena;
    struct sel_storage_item *items;
    uint32_t count;
    int rc;
};

static void run_read(void *arg)
{
    struct read_job *job = arg;
    MDB_txn *txn = NULL;
    job->rc = begin_read(job->env, &txn);
    if (job->rc != 0)
        return;
    for (uint32_t i = 0; i < job->count; i++)
        read_item(job->env, txn, job->db, job->arena, &job->items[i]);
    end_read(job->env, txn);
}

static int read_items(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena, int db,
                      struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    struct env *env = ((struct lmdb *)s)->env;
    struct read_job job = {env, db, arena, items, count, 0};
    bool is_large = atomic_load_explicit(&env->used, memory_order_relaxed) > env->offload_above;
    if (!is_large || io->ops->offload(io, run_read, &job) < 0)
        run_read(&job); /* also when the pool is full: late is better than never */
    if (job.rc == 0)
        return 0;
    return sel_error_set(err, code_of(job.rc), nowhere, "cannot read '%s': %s", env->path,
                         text_of(job.rc));
}

/* ---- operations ---- */

static int lmdb_store(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                      struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, REQUEST_STORE, items, count);
}

static int lmdb_put_error(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                          struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, REQUEST_ERROR, items, count);
}

static int lmdb_delete(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                       struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, REQUEST_DELETE, items, count);
}

static int lmdb_retrieve(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                         struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return read_items(s, io, arena, DB_RESULTS, items, count, err);
}

static int lmdb_get_error(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                          struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return read_items(s, io, arena, DB_ERRORS, items, count, err);
}

static int lmdb_trace(struct sel_storage *s, struct sel_io *io, struct sel_str event,
                      struct sel_str details, struct sel_error *err)
{
    struct request request = {
        .kind = REQUEST_TRACE, .count = 1, .event = event, .details = details};
    submit(((struct lmdb *)s)->env, io, &request);
    if (request.failure == 0)
        return 0;
    return sel_error_set(err, request.failure, nowhere, "%s", request.message);
}

/* ---- opening and closing ---- */

/* All environments of this process: LMDB must not open one twice, its file locks would be lost by
 * the first close. Shared by nature, hence the exception to "no global state". */
static pthread_mutex_t envs_lock = PTHREAD_MUTEX_INITIALIZER;
static struct env *envs;

struct open_job {
    const char *path;
    bool sync;
    uint64_t map_size;
    struct env *env; /* out */
    int r;
    struct sel_error *err;
};

static struct env *env_find_locked(const struct stat *st)
{
    for (struct env *env = envs; env; env = env->next)
        if (env->dev == st->st_dev && env->ino == st->st_ino)
            return env;
    return NULL;
}

static struct env *env_free(struct env *env)
{
    if (!env)
        return NULL;
    for (uint32_t i = 0; i < env->reader_count; i++)
        mdb_txn_abort(env->readers[i]);
    if (env->mdb)
        mdb_env_close(env->mdb);
    pthread_rwlock_destroy(&env->map_lock);
    pthread_mutex_destroy(&env->readers_lock);
    pthread_mutex_destroy(&env->sleep_lock);
    pthread_cond_destroy(&env->sleep_cond);
    sel_mem_free(env->path);
    return sel_mem_free(env);
}

static struct env *env_new(const struct open_job *job, const struct stat *st)
{
    struct env *env = SEL_NEW(struct env);
    if (!env)
        return NULL;
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* Readers that come and go must not keep the map from growing. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&env->map_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&env->readers_lock, NULL);
    pthread_mutex_init(&env->sleep_lock, NULL);
    pthread_cond_init(&env->sleep_cond, NULL);
    env->refs = 1;
    env->dev = st->st_dev;
    env->ino = st->st_ino;
    env->sync = job->sync;
    env->offload_above = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    size_t n = strlen(job->path) + 1;
    env->path = sel_mem_alloc(n);
    if (!env->path)
        return env_free(env);
    memcpy(env->path, job->path, n);
    return env;
}

/* A map that holds the file as it is, at least. */
static uint64_t map_size_for(const struct open_job *job)
{
    char file[PATH_MAX];
    struct stat st;
    uint64_t size = job->map_size;
    int n = snprintf(file, sizeof(file), "%s/data.mdb", job->path);
    if (n > 0 && (size_t)n < sizeof(file) && stat(file, &st) == 0)
        while (size < (uint64_t)st.st_size && size < MAP_SIZE_MAX)
            size *= 2;
    return size;
}

static int open_mdb(struct env *env, const struct open_job *job)
{
    int rc = mdb_env_create(&env->mdb);
    if (rc != 0)
        return rc;
    rc = mdb_env_set_maxdbs(env->mdb, DB_COUNT);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(env->mdb, READERS_MAX);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env->mdb, map_size_for(job));
    if (rc == 0)
        rc = mdb_env_open(env->mdb, env->path, MDB_NOTLS | (env->sync ? 0 : MDB_NOSYNC), 0644);
    if (rc == 0) {
        int dead; /* places of processes that died while they read: they would keep old pages */
        rc = mdb_reader_check(env->mdb, &dead);
    }
    MDB_stat stat;
    if (rc == 0)
        rc = mdb_env_stat(env->mdb, &stat);
    if (rc == 0)
        env->page_size = stat.ms_psize;
    return rc;
}

/* The version of the layout: written into an empty environment, checked in any other. */
static int check_version(MDB_txn *txn, MDB_dbi unnamed, const char *path, struct sel_error *err,
                         int *ret_rc)
{
    MDB_val k = {sizeof(FORMAT_KEY) - 1, FORMAT_KEY}, v;
    MDB_stat stat;
    int rc = mdb_get(txn, unnamed, &k, &v);
    if (rc == 0 && sel_str_eq((struct sel_str){v.mv_data, v.mv_size}, SEL_STR(FORMAT_VERSION)))
        return 0;
    if (rc == 0)
        return sel_error_set(err, SEL_EVERSION, nowhere,
                             "'%s' has layout version %.*s; this program knows version %s", path,
                             (int)(v.mv_size > 20 ? 20 : v.mv_size), (const char *)v.mv_data,
                             FORMAT_VERSION);
    if (rc == MDB_NOTFOUND)
        rc = mdb_stat(txn, unnamed, &stat);
    if (rc == 0 && stat.ms_entries > 0)
        return sel_error_set(err, SEL_EFORMAT, nowhere,
                             "'%s' is an LMDB environment of another program", path);
    if (rc == 0) {
        v = (MDB_val){sizeof(FORMAT_VERSION) - 1, FORMAT_VERSION};
        rc = mdb_put(txn, unnamed, &k, &v, 0);
    }
    *ret_rc = rc;
    return 0;
}

/* < 0: an error that is told already; else *ret_rc is LMDB's. */
static int open_dbs(struct env *env, struct sel_error *err, int *ret_rc)
{
    MDB_txn *txn;
    MDB_dbi unnamed;
    int r = 0, rc = mdb_txn_begin(env->mdb, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &unnamed);
        if (rc == 0)
            r = check_version(txn, unnamed, env->path, err, &rc);
        for (int i = 0; i < DB_COUNT && rc == 0 && r == 0; i++)
            rc = mdb_dbi_open(txn, db_names[i], MDB_CREATE, &env->dbs[i]);
        if (rc == 0 && r == 0)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    *ret_rc = rc;
    return r;
}

static int start_writer(struct env *env)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&env->writer, NULL, run_writer, env);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int open_env(struct env *env, const struct open_job *job)
{
    int r = sel_lmdb_check(env->path, job->err);
    if (r < 0)
        return r;
    int rc = open_mdb(env, job);
    if (rc == 0) {
        r = open_dbs(env, job->err, &rc);
        if (r < 0)
            return r;
    }
    if (rc == 0) {
        complete_file(env);
        rc = start_writer(env);
    }
    if (rc == 0)
        return 0;
    return sel_error_set(job->err, code_of(rc), nowhere, "cannot open '%s' for writing: %s",
                         env->path, text_of(rc));
}

static int open_env_locked(struct open_job *job)
{
    struct stat st;
    if (stat(job->path, &st) < 0)
        return sel_error_set(job->err, -errno, nowhere, "'%s': %s", job->path, strerror(errno));
    struct env *env = env_find_locked(&st);
    if (env && env->sync != job->sync)
        return sel_error_set(job->err, SEL_ECONFIG, nowhere,
                             "'%s' is open with another 'sync'; storages with one path must agree",
                             job->path);
    if (env) {
        env->refs++;
        job->env = env;
        return 0;
    }
    env = env_new(job, &st);
    if (!env)
        return sel_error_set(job->err, SEL_ENOMEM, nowhere, "out of memory");
    int r = open_env(env, job);
    if (r < 0) {
        env_free(env);
        return r;
    }
    env->next = envs;
    envs = env;
    job->env = env;
    return 0;
}

static void run_open(void *arg)
{
    struct open_job *job = arg;
    pthread_mutex_lock(&envs_lock);
    job->r = open_env_locked(job);
    pthread_mutex_unlock(&envs_lock);
}

static void env_unref(struct env *env)
{
    pthread_mutex_lock(&envs_lock); /* held to the end: nobody may open it while it is closing */
    if (--env->refs == 0) {
        struct env **link = &envs;
        while (*link != env)
            link = &(*link)->next;
        *link = env->next;
        pthread_mutex_lock(&env->sleep_lock);
        env->stopping = true;
        pthread_cond_signal(&env->sleep_cond);
        pthread_mutex_unlock(&env->sleep_lock);
        pthread_join(env->writer, NULL);
        env_free(env);
    }
    pthread_mutex_unlock(&envs_lock);
}

static void lmdb_close(struct sel_storage *s)
{
    struct lmdb *lmdb = (struct lmdb *)s;
    env_unref(lmdb->env);
    sel_mem_free(lmdb);
}

static const struct sel_storage_ops_i lmdb_ops = {
    .retrieve = lmdb_retrieve,
    .store = lmdb_store,
    .put_error = lmdb_put_error,
    .get_error = lmdb_get_error,
    .del = lmdb_delete,
    .trace = lmdb_trace,
    .close = lmdb_close,
};

static int read_config(struct sel_arena *arena, const struct sel_storage_options *options,
                       struct open_job *job, struct sel_error *err)
{
    static const char *const names[] = {"path", "map_size", "sync", SEL_STORAGE_ARG_RETRY};
    struct sel_str path;
    job->sync = true;
    job->map_size = MAP_SIZE_DEFAULT;
    job->err = err;
    int r = sel_storage_args_check(what, options->config, names, SEL_COUNT(names), err);
    if (r == 0)
        r = sel_storage_arg_size(what, options->config, "map_size", MAP_SIZE_MIN, MAP_SIZE_MAX,
                                 &job->map_size, err);
    if (r == 0)
        r = sel_storage_arg_bool(what, options->config, "sync", &job->sync, err);
    if (r == 0)
        r = sel_storage_path(arena, options, what, PATH_DEFAULT, &path, err);
    if (r == 0)
        job->path = path.p;
    return r;
}

static int open_path(struct open_job *job, struct sel_io *io)
{
    int r = sel_storage_make_folder(io, job->path);
    if (r < 0)
        return sel_error_set(job->err, r, nowhere, "cannot make the folder '%s': %s", job->path,
                             sel_error_text(r));
    if (io->ops->offload(io, run_open, job) < 0)
        run_open(job);
    return job->r;
}

int sel_storage_lmdb_open(const struct sel_storage_options *options, struct sel_io *io,
                          struct sel_storage **ret, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct open_job job = {0};
    struct lmdb *lmdb = SEL_NEW(struct lmdb);
    int r = lmdb ? read_config(&arena, options, &job, err)
                 : sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    if (r == 0)
        r = open_path(&job, io);
    sel_arena_done(&arena);
    if (r < 0) {
        sel_mem_free(lmdb);
        return r;
    }
    lmdb->base.ops = &lmdb_ops;
    lmdb->env = job.env;
    *ret = &lmdb->base;
    return 0;
}
