#include "storage/lmdb_env.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <time.h>

#include "storage/record.h"

#define BATCH_ITEMS_MAX 16384
#define BATCH_BYTES_MAX (64u << 20)
/* Callers that a slow commit has just woken mostly come back at once. Waiting for them an eighth of
 * what the commit took fills the next one: with 1,000 callers and syncs of 5 ms it is 121,000
 * stores/s in place of 81,000. On a faster disk the next batch gathers well enough meanwhile. */
#define GATHER_COMMIT_NS INT64_C(1000000)
#define GATHER_SHARE 8
#define GATHER_REQUESTS_MIN 16
#define VALUE_MAX (UINT64_C(1) << 31) /* LMDB takes less than 4 GiB a record */

/* One transaction. */
struct batch {
    struct sel_lmdb_env *env;
    MDB_txn *txn;
    MDB_cursor
        *cursors[SEL_LMDB_DB_COUNT]; /* opened when needed; closed by the end of the transaction */
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

static int note_last_key(struct sel_lmdb_env *env, MDB_cursor *cursor)
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
    struct sel_lmdb_env *env = batch->env;
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
    int rc = cursor_of(batch, SEL_LMDB_DB_RESULTS, &cursor);
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
    int rc = cursor_of(batch, SEL_LMDB_DB_ERRORS, &cursor);
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
    int rc = delete_from(batch, SEL_LMDB_DB_RESULTS, key);
    item->status = rc == MDB_NOTFOUND ? SEL_STORE_MISSING : SEL_STORE_OK;
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    rc = delete_from(batch, SEL_LMDB_DB_ERRORS, key);
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

static int put_trace(struct batch *batch, const struct sel_storage_event *event)
{
    MDB_cursor *cursor;
    int rc = cursor_of(batch, SEL_LMDB_DB_TRACE, &cursor);
    if (rc == 0 && batch->trace_next == 0)
        rc = find_trace_next(batch, cursor);
    if (rc != 0)
        return rc;
    char key[8];
    for (unsigned i = 0; i < 8; i++)
        key[i] = (char)(batch->trace_next >> (8 * (7 - i)));
    const struct sel_str parts[] = {event->name, event->details};
    rc =
        put_record(cursor, (struct sel_str){key, sizeof(key)}, parts, SEL_COUNT(parts), MDB_APPEND);
    batch->trace_next++;
    batch->bytes += event->details.n;
    return rc;
}

static int put_item(struct batch *batch, const struct sel_lmdb_request *request,
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
    case SEL_LMDB_STORE:
        return store_item(batch, item, &key);
    case SEL_LMDB_ERROR:
        return put_error_item(batch, item, &key);
    default:
        return delete_item(batch, item, &key);
    }
}

/* Puts as much of the requests as one transaction should hold; request->taken says how much. */
static int fill(struct batch *batch, struct sel_lmdb_request *requests)
{
    int rc = 0;
    for (struct sel_lmdb_request *r = requests; r; r = r->next)
        r->taken = 0;
    for (struct sel_lmdb_request *r = requests; r && rc == 0; r = r->next)
        while (r->done + r->taken < r->count && rc == 0) {
            if (batch->items == batch->env->item_limit || batch->bytes > BATCH_BYTES_MAX)
                return 0;
            rc = r->kind == SEL_LMDB_TRACE ? put_trace(batch, &r->events[r->done + r->taken])
                                           : put_item(batch, r, &r->items[r->done + r->taken]);
            r->taken++;
            batch->items++;
        }
    return rc;
}

/* map_lock is held for as long as the transaction lives: another thread may have to take over a new
 * size of the map meanwhile. */
static int try_commit(struct sel_lmdb_env *env, struct sel_lmdb_request *requests,
                      uint32_t *ret_items)
{
    struct batch batch = {.env = env};
    pthread_rwlock_rdlock(&env->map_lock);
    int rc = mdb_txn_begin(env->mdb, NULL, 0, &batch.txn);
    if (rc == 0) {
        rc = fill(&batch, requests);
        *ret_items = batch.items;
        if (rc == 0)
            rc = mdb_txn_commit(batch.txn);
        else
            mdb_txn_abort(batch.txn);
    }
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

/* Writes what fill takes of the requests. Nothing of it is in the environment if it fails. */
static int commit(struct sel_lmdb_env *env, struct sel_lmdb_request *requests)
{
    int rc = 0;
    env->item_limit = BATCH_ITEMS_MAX;
    for (int i = 0; i < SEL_LMDB_GROW_MAX; i++) {
        uint32_t items = 0;
        rc = try_commit(env, requests, &items);
        if (rc == MDB_MAP_RESIZED)
            rc = sel_lmdb_env_adopt_size(env);
        else if (rc == MDB_MAP_FULL)
            rc = sel_lmdb_env_grow(env);
        else if (rc == MDB_TXN_FULL && items > 1) {
            env->item_limit = items / 2; /* too many pages: keys all over the place */
            rc = 0;
        } else
            break;
        if (rc != 0)
            break;
    }
    if (rc == 0)
        sel_lmdb_env_complete_file(env);
    else
        env->last.n = 0; /* it may have counted keys that are not there */
    return rc;
}

/* A write that was cut short by a full disk is EIO to LMDB. */
static bool is_disk_full(const struct sel_lmdb_env *env)
{
    struct statvfs fs;
    return statvfs(env->path, &fs) == 0 && fs.f_bavail < BATCH_BYTES_MAX / fs.f_frsize;
}

static void note_failure(const struct sel_lmdb_env *env, struct sel_lmdb_request *request, int rc)
{
    if (rc == EIO && is_disk_full(env))
        rc = ENOSPC;
    request->failure = sel_lmdb_code(rc);
    (void)snprintf(request->message, sizeof(request->message), "cannot write to '%s': %s",
                   env->path, sel_lmdb_text(rc));
}

/* Counts what a transaction took as done; wakes those with nothing left; returns the others. */
static struct sel_lmdb_request *settle(struct sel_lmdb_env *env, struct sel_lmdb_request *requests,
                                       int rc)
{
    struct sel_lmdb_request *rest = NULL, **end = &rest;
    for (struct sel_lmdb_request *r = requests, *next; r; r = next) {
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
static void wait_for_requests(struct sel_lmdb_env *env)
{
    pthread_mutex_lock(&env->sleep_lock);
    while (!atomic_load_explicit(&env->waiting, memory_order_relaxed) && !env->stopping)
        pthread_cond_wait(&env->sleep_cond, &env->sleep_lock);
    pthread_mutex_unlock(&env->sleep_lock);
}

static void gather(const struct sel_lmdb_env *env)
{
    if (env->woken < GATHER_REQUESTS_MIN || env->commit_ns < GATHER_COMMIT_NS)
        return;
    int64_t ns = env->commit_ns / GATHER_SHARE;
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    (void)nanosleep(&t, NULL); /* signals are blocked; a shorter sleep does no harm */
}

/* All waiting requests, oldest first; sleeps while there are none. NULL: the end. */
static struct sel_lmdb_request *take_all(struct sel_lmdb_env *env)
{
    if (!atomic_load_explicit(&env->waiting, memory_order_relaxed))
        wait_for_requests(env);
    gather(env);
    struct sel_lmdb_request *newest =
        atomic_exchange_explicit(&env->waiting, NULL, memory_order_acquire);
    struct sel_lmdb_request *oldest = NULL;
    while (newest) {
        struct sel_lmdb_request *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void *run_writer(void *arg)
{
    struct sel_lmdb_env *env = arg;
    for (;;) {
        struct sel_lmdb_request *requests = take_all(env);
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

void sel_lmdb_writer_submit(struct sel_lmdb_env *env, struct sel_io *io,
                            struct sel_lmdb_request *request)
{
    request->waiter.io = io;
    struct sel_lmdb_request *head = atomic_load_explicit(&env->waiting, memory_order_relaxed);
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

int sel_lmdb_writer_start(struct sel_lmdb_env *env)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&env->writer, NULL, run_writer, env);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

void sel_lmdb_writer_stop(struct sel_lmdb_env *env)
{
    pthread_mutex_lock(&env->sleep_lock);
    env->stopping = true;
    pthread_cond_signal(&env->sleep_cond);
    pthread_mutex_unlock(&env->sleep_lock);
    pthread_join(env->writer, NULL);
}
