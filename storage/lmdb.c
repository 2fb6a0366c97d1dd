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
 *   map_lock       held for reading by every transaction, for writing while the map grows, because
 *                  LMDB moves the map
 *
 * A full disk fails the requests of that transaction, each with a message; what was acknowledged
 * stays, and the next transaction tries anew. */
#include <stdatomic.h>

#include "core/mem.h"
#include "storage/args.h"
#include "storage/builtin.h"
#include "storage/lmdb_env.h"
#include "storage/record.h"

#define PATH_DEFAULT "selinon-results"
#define MAP_SIZE_DEFAULT (UINT64_C(1) << 30)
#define MAP_SIZE_MIN (UINT64_C(1) << 16)

static const struct sel_pos nowhere;
static const char what[] = "LMDB";

struct lmdb {
    struct sel_storage base;
    struct sel_lmdb_env *env;
};

/* ---- writing ---- */

static int write_items(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                       enum sel_lmdb_request_kind kind, struct sel_storage_item *items,
                       uint32_t count)
{
    if (count == 0)
        return 0;
    struct sel_lmdb_request request = {.kind = kind, .items = items, .count = count};
    sel_lmdb_writer_submit(((struct lmdb *)s)->env, io, &request);
    if (request.failure == 0)
        return 0;
    const char *message = sel_arena_strdup(arena, sel_str_c(request.message));
    for (uint32_t i = 0; i < count; i++)
        if (items[i].status == SEL_STORE_FAILED && !items[i].message)
            items[i].message = message ? message : "cannot write, and out of memory";
    return 0;
}

/* ---- reading ---- */

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
    if (db == SEL_LMDB_DB_RESULTS)
        return copy_out(arena, parts[2], &item->value);
    return copy_out(arena, parts[2], &item->error_class) &&
           copy_out(arena, parts[3], &item->error_message);
}

static void read_item(struct sel_lmdb_env *env, MDB_txn *txn, int db, struct sel_arena *arena,
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
        fail_item(arena, item, env->path, sel_lmdb_text(rc));
        return;
    }
    int r = sel_record_unpack((struct sel_str){(const char *)key.bytes, key.n},
                              (struct sel_str){data.mv_data, data.mv_size}, parts,
                              db == SEL_LMDB_DB_RESULTS ? 3 : 4);
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
    struct sel_lmdb_env *env;
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
    job->rc = sel_lmdb_env_begin_read(job->env, &txn);
    if (job->rc != 0)
        return;
    for (uint32_t i = 0; i < job->count; i++)
        read_item(job->env, txn, job->db, job->arena, &job->items[i]);
    sel_lmdb_env_end_read(job->env, txn);
}

static int read_items(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena, int db,
                      struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    struct sel_lmdb_env *env = ((struct lmdb *)s)->env;
    struct read_job job = {env, db, arena, items, count, 0};
    bool is_large = atomic_load_explicit(&env->used, memory_order_relaxed) > env->offload_above;
    if (!is_large || io->ops->offload(io, run_read, &job) < 0)
        run_read(&job); /* also when the pool is full: late is better than never */
    if (job.rc == 0)
        return 0;
    return sel_error_set(err, sel_lmdb_code(job.rc), nowhere, "cannot read '%s': %s", env->path,
                         sel_lmdb_text(job.rc));
}

/* ---- operations ---- */

static int lmdb_store(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                      struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, SEL_LMDB_STORE, items, count);
}

static int lmdb_put_error(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                          struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, SEL_LMDB_ERROR, items, count);
}

static int lmdb_delete(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                       struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)err;
    return write_items(s, io, arena, SEL_LMDB_DELETE, items, count);
}

static int lmdb_retrieve(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                         struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return read_items(s, io, arena, SEL_LMDB_DB_RESULTS, items, count, err);
}

static int lmdb_get_error(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                          struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    return read_items(s, io, arena, SEL_LMDB_DB_ERRORS, items, count, err);
}

static int lmdb_trace(struct sel_storage *s, struct sel_io *io,
                      const struct sel_storage_event *events, uint32_t count, struct sel_error *err)
{
    struct sel_lmdb_request request = {.kind = SEL_LMDB_TRACE, .count = count, .events = events};
    sel_lmdb_writer_submit(((struct lmdb *)s)->env, io, &request);
    if (request.failure == 0)
        return 0;
    return sel_error_set(err, request.failure, nowhere, "%s", request.message);
}

static void lmdb_close(struct sel_storage *s)
{
    struct lmdb *lmdb = (struct lmdb *)s;
    sel_lmdb_env_unref(lmdb->env);
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

struct options {
    const char *path;
    bool sync;
    uint64_t map_size;
};

static int read_config(struct sel_arena *arena, const struct sel_storage_options *options,
                       struct options *ret, struct sel_error *err)
{
    static const char *const names[] = {"path", "map_size", "sync", SEL_STORAGE_ARG_RETRY};
    struct sel_str path;
    ret->sync = true;
    ret->map_size = MAP_SIZE_DEFAULT;
    int r = sel_storage_args_check(what, options->config, names, SEL_COUNT(names), err);
    if (r == 0)
        r = sel_storage_arg_size(what, options->config, "map_size", MAP_SIZE_MIN,
                                 SEL_LMDB_MAP_SIZE_MAX, &ret->map_size, err);
    if (r == 0)
        r = sel_storage_arg_bool(what, options->config, "sync", &ret->sync, err);
    if (r == 0)
        r = sel_storage_path(arena, options, what, PATH_DEFAULT, &path, err);
    if (r == 0)
        ret->path = path.p;
    return r;
}

int sel_storage_lmdb_open(const struct sel_storage_options *options, struct sel_io *io,
                          struct sel_storage **ret, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct options parsed = {0};
    struct lmdb *lmdb = SEL_NEW(struct lmdb);
    int r = lmdb ? read_config(&arena, options, &parsed, err)
                 : sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    if (r == 0)
        r = sel_lmdb_env_open(parsed.path, parsed.sync, parsed.map_size, io, &lmdb->env, err);
    sel_arena_done(&arena);
    if (r < 0) {
        sel_mem_free(lmdb);
        return r;
    }
    lmdb->base.ops = &lmdb_ops;
    *ret = &lmdb->base;
    return 0;
}
