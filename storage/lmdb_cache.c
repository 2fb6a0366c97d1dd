/* Files in the folder: LMDB's two, and `selinon-cache` with the boot id of the machine. An
 * environment that is not synced survives the end of a process, but after a crash of the machine
 * its pages may be anything, which LMDB 0.9 does not notice. So one that another boot wrote is
 * thrown away unread. The same file tells that the folder is a cache: nothing else is ever deleted.
 *
 * Databases: `items`, the records of storage/record.h by storage/key.h, and `order`, their keys by
 * a counter that only grows, oldest first. */
#include "storage/lmdb_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "storage/args.h"
#include "storage/builtin.h"
#include "storage/io.h"
#include "storage/key.h"
#include "storage/lmdb_check.h"
#include "storage/record.h"

#define PATH_DEFAULT "selinon-cache"
#define BOOT_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_MAX 64
#define MAP_SIZE (UINT64_C(1) << 24) /* at the start */
#define MAP_SIZE_MAX (UINT64_C(1) << 46)
#define GROW_MAX 32
#define ITEM_MAX (UINT64_C(1) << 31) /* LMDB takes less than 4 GiB */

static const struct sel_pos nowhere;
static const char what[] = "the cache LMDB";

struct sel_lmdb_cache {
    struct sel_lmdb_cache *next; /* of this process, under caches_lock */
    dev_t dev;
    ino_t ino;
    char *path;
    uint64_t size;
    MDB_env *mdb;    /* NULL: it could not be opened again */
    MDB_txn *reader; /* reset between two calls; NULL: none yet */
    MDB_dbi items, order;
};

/* LMDB must not open an environment twice in a process: the first close would drop the file locks
 * of the other. Hence the exception to "no global state". */
static pthread_mutex_t caches_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sel_lmdb_cache *caches;

/* ---- files ---- */

static int file_in(const char *folder, const char *name, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* The first bytes of a small file as text, "" if it cannot be read. */
static void read_text(const char *path, char out[BOOT_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, BOOT_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
}

static int write_all(int fd, const char *text)
{
    size_t n = strlen(text);
    ssize_t written = write(fd, text, n);
    if (written < 0 || fsync(fd) < 0)
        return -errno;
    return (size_t)written == n ? 0 : -ENOSPC;
}

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int r = write_all(fd, text);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}

static int sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return r;
}

/* Other processes that have the files open keep them, under no name. */
static int remove_files(const char *folder)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char path[PATH_MAX];
    int r = 0;
    for (size_t i = 0; i < SEL_COUNT(names) && r == 0; i++) {
        r = file_in(folder, names[i], path);
        if (r == 0 && unlink(path) < 0 && errno != ENOENT)
            r = -errno;
    }
    return r;
}

/* Makes sure that the files, if there are any, are a cache's and of this boot. */
static int claim_folder(const char *folder, struct sel_error *err)
{
    char data[PATH_MAX], mark[PATH_MAX], now[BOOT_MAX], then[BOOT_MAX];
    int r = file_in(folder, "data.mdb", data);
    if (r == 0)
        r = file_in(folder, "selinon-cache", mark);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "the path '%s' is too long", folder);
    bool is_marked = access(mark, F_OK) == 0;
    if (!is_marked && access(data, F_OK) == 0)
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "'%s' holds an LMDB environment that is no cache; a cache needs a "
                             "folder of its own",
                             folder);
    read_text(BOOT_FILE, now);
    read_text(mark, then);
    if (is_marked && now[0] && strcmp(now, then) == 0)
        return 0;
    r = remove_files(folder);
    if (r == 0)
        r = write_text(mark, now);
    if (r == 0)
        r = sync_folder(folder);
    return r < 0 ? sel_error_set(err, r, nowhere, "'%s': %s", folder, sel_error_text(r)) : 0;
}

/* ---- the environment ---- */

static bool is_damage(int rc)
{
    return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
           rc == MDB_VERSION_MISMATCH || rc == MDB_PANIC;
}

static void close_mdb(struct sel_lmdb_cache *cache)
{
    mdb_txn_abort(cache->reader); /* NULL is fine */
    if (cache->mdb)
        mdb_env_close(cache->mdb);
    cache->reader = NULL;
    cache->mdb = NULL;
}

static int open_dbs(struct sel_lmdb_cache *cache)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(cache->mdb, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    rc = mdb_dbi_open(txn, "items", MDB_CREATE, &cache->items);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "order", MDB_CREATE, &cache->order);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

static uint64_t map_size_for(const char *folder)
{
    char path[PATH_MAX];
    struct stat st;
    uint64_t size = MAP_SIZE;
    if (file_in(folder, "data.mdb", path) == 0 && stat(path, &st) == 0)
        while (size < (uint64_t)st.st_size && size < MAP_SIZE_MAX)
            size *= 2;
    return size;
}

static int open_mdb(struct sel_lmdb_cache *cache)
{
    int dead;
    if (sel_lmdb_check(cache->path, NULL) == SEL_EFORMAT)
        return MDB_CORRUPTED;
    int rc = mdb_env_create(&cache->mdb);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(cache->mdb, 2);
    if (rc == 0)
        rc = mdb_env_set_mapsize(cache->mdb, map_size_for(cache->path));
    if (rc == 0)
        rc = mdb_env_open(cache->mdb, cache->path, MDB_NOTLS | MDB_NOSYNC, 0644);
    if (rc == 0)
        rc = mdb_reader_check(cache->mdb, &dead);
    if (rc == 0)
        rc = open_dbs(cache);
    if (rc != 0)
        close_mdb(cache);
    return rc;
}

/* Opens it; what is damaged is thrown away. 0 or LMDB's code. */
static int open_anew(struct sel_lmdb_cache *cache)
{
    int rc = open_mdb(cache);
    if (!is_damage(rc))
        return rc;
    int r = remove_files(cache->path);
    return r < 0 ? -r : open_mdb(cache);
}

/* After trouble: throws away what is damaged. Returns our code, with `err`. */
static int note_trouble(struct sel_lmdb_cache *cache, const char *doing, int rc,
                        struct sel_error *err)
{
    if (!is_damage(rc))
        return sel_error_set(err,
                             rc == ENOMEM ? SEL_ENOMEM
                             : rc > 0     ? -rc
                                          : SEL_ESTORAGE,
                             nowhere, "cannot %s the cache '%s': %s", doing, cache->path,
                             mdb_strerror(rc));
    close_mdb(cache);
    int r = remove_files(cache->path);
    rc = r < 0 ? -r : open_mdb(cache);
    return sel_error_set(err, SEL_EFORMAT, nowhere, "the cache '%s' is damaged; it %s", cache->path,
                         rc == 0 ? "begins anew" : "cannot be made anew");
}

static int begin(struct sel_lmdb_cache *cache, unsigned flags, MDB_txn **ret)
{
    int rc = mdb_txn_begin(cache->mdb, NULL, flags, ret);
    if (rc != MDB_MAP_RESIZED) /* by another process */
        return rc;
    rc = mdb_env_set_mapsize(cache->mdb, 0);
    return rc == 0 ? mdb_txn_begin(cache->mdb, NULL, flags, ret) : rc;
}

/* ---- reading ---- */

static int begin_read(struct sel_lmdb_cache *cache)
{
    if (cache->reader) {
        int rc = mdb_txn_renew(cache->reader);
        if (rc == 0)
            return 0;
        mdb_txn_abort(cache->reader);
        cache->reader = NULL;
    }
    return begin(cache, MDB_RDONLY, &cache->reader);
}

/* 0 and *ret in `arena`, ENOMEM, or LMDB's code. */
static int find(struct sel_lmdb_cache *cache, struct sel_arena *arena,
                const struct sel_storage_key *key, struct sel_str *ret)
{
    MDB_val k = {key->n, (void *)key->bytes}, data;
    struct sel_str part;
    int rc = mdb_get(cache->reader, cache->items, &k, &data);
    if (rc != 0)
        return rc;
    if (sel_record_unpack((struct sel_str){(const char *)key->bytes, key->n},
                          (struct sel_str){data.mv_data, data.mv_size}, &part, 1) < 0)
        return MDB_CORRUPTED;
    char *copy = sel_arena_strdup(arena, part);
    *ret = (struct sel_str){copy, part.n};
    return copy ? 0 : ENOMEM;
}

int sel_lmdb_cache_get(struct sel_lmdb_cache *cache, struct sel_arena *arena, struct sel_str id,
                       struct sel_str *ret, struct sel_error *err)
{
    struct sel_storage_key key;
    if (!sel_storage_key_encode(id, &key))
        return 0; /* no such id is ever added */
    int rc = cache->mdb ? begin_read(cache) : open_anew(cache);
    if (rc == 0 && cache->reader) {
        rc = find(cache, arena, &key, ret);
        mdb_txn_reset(cache->reader);
        if (rc == 0)
            return 1;
    }
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : note_trouble(cache, "read", rc, err);
}

/* ---- writing ---- */

static uint64_t load_be64(const uint8_t *p)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | p[i];
    return value;
}

static int next_place(MDB_cursor *order, uint8_t place[8])
{
    MDB_val k, data;
    int rc = mdb_cursor_get(order, &k, &data, MDB_LAST);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    if (rc == 0 && k.mv_size != 8)
        return MDB_CORRUPTED;
    uint64_t next = rc == 0 ? load_be64(k.mv_data) + 1 : 0;
    for (unsigned i = 0; i < 8; i++)
        place[i] = (uint8_t)(next >> (8 * (7 - i)));
    return 0;
}

static int drop_oldest(const struct sel_lmdb_cache *cache, MDB_txn *txn, MDB_cursor *order)
{
    MDB_val k, item;
    int rc = mdb_cursor_get(order, &k, &item, MDB_FIRST);
    if (rc == 0)
        rc = mdb_del(txn, cache->items, &item, NULL);
    if (rc == 0)
        rc = mdb_cursor_del(order, 0);
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc; /* the two databases do not fit each other */
}

/* Makes room for one more. */
static int make_room(const struct sel_lmdb_cache *cache, MDB_txn *txn, MDB_cursor *order)
{
    MDB_stat stat;
    int rc = mdb_stat(txn, cache->order, &stat);
    for (uint64_t n = stat.ms_entries; rc == 0 && n >= cache->size; n--)
        rc = drop_oldest(cache, txn, order);
    return rc;
}

static int put_item(const struct sel_lmdb_cache *cache, MDB_txn *txn,
                    const struct sel_storage_key *key, struct sel_str item)
{
    MDB_val k = {key->n, (void *)key->bytes}, data = {sel_record_size(&item, 1), NULL};
    int rc = mdb_put(txn, cache->items, &k, &data, MDB_NOOVERWRITE | MDB_RESERVE);
    if (rc == 0)
        sel_record_pack(data.mv_data, (struct sel_str){(const char *)key->bytes, key->n}, &item, 1);
    return rc;
}

static int put(const struct sel_lmdb_cache *cache, MDB_txn *txn, const struct sel_storage_key *key,
               struct sel_str item)
{
    uint8_t place[8];
    MDB_cursor *order;
    MDB_val k = {key->n, (void *)key->bytes}, data, at = {sizeof(place), place};
    int rc = mdb_get(txn, cache->items, &k, &data);
    if (rc != MDB_NOTFOUND)
        return rc == 0 ? MDB_KEYEXIST : rc;
    rc = mdb_cursor_open(txn, cache->order, &order);
    if (rc != 0)
        return rc;
    rc = next_place(order, place);
    if (rc == 0)
        rc = make_room(cache, txn, order);
    if (rc == 0)
        rc = put_item(cache, txn, key, item);
    if (rc == 0)
        rc = mdb_cursor_put(order, &at, &k, MDB_APPEND);
    mdb_cursor_close(order);
    return rc;
}

/* Pages that were freed again within one transaction are counted but not written: the file is made
 * as long as it counts, or the next sel_lmdb_check would take it for a cut one. */
static void complete_file(const struct sel_lmdb_cache *cache)
{
    MDB_envinfo info;
    MDB_stat env;
    mdb_filehandle_t fd;
    struct stat st;
    if (mdb_env_info(cache->mdb, &info) != 0 || mdb_env_stat(cache->mdb, &env) != 0 ||
        mdb_env_get_fd(cache->mdb, &fd) != 0 || fstat(fd, &st) < 0)
        return;
    off_t size = (off_t)((info.me_last_pgno + 1) * env.ms_psize);
    if (st.st_size < size)
        (void)!ftruncate(fd, size); /* if it fails, the next one tries again */
}

static int try_add(struct sel_lmdb_cache *cache, const struct sel_storage_key *key,
                   struct sel_str item)
{
    MDB_txn *txn;
    int rc = begin(cache, 0, &txn);
    if (rc != 0)
        return rc;
    rc = put(cache, txn, key, item);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc == MDB_KEYEXIST ? 0 : rc;
}

static int grow_map(struct sel_lmdb_cache *cache)
{
    MDB_envinfo info;
    int rc = mdb_env_info(cache->mdb, &info);
    if (rc != 0 || info.me_mapsize >= MAP_SIZE_MAX)
        return rc != 0 ? rc : MDB_MAP_FULL;
    rc = mdb_env_set_mapsize(cache->mdb, info.me_mapsize * 2);
    return rc == 0 ? 0 : MDB_PANIC; /* the old map is gone: only a new environment helps */
}

int sel_lmdb_cache_add(struct sel_lmdb_cache *cache, struct sel_str id, struct sel_str item,
                       struct sel_error *err)
{
    struct sel_storage_key key;
    if (!sel_storage_key_encode(id, &key))
        return sel_error_set(err, SEL_ELIMIT, nowhere, SEL_STORAGE_KEY_REFUSED);
    if (item.n > ITEM_MAX)
        return sel_error_set(err, SEL_ELIMIT, nowhere, "an item larger than 2 GiB is not cached");
    int rc = cache->mdb ? 0 : open_anew(cache);
    for (int i = 0; i < GROW_MAX && rc == 0; i++) {
        rc = try_add(cache, &key, item);
        if (rc != MDB_MAP_FULL)
            break;
        rc = grow_map(cache);
    }
    if (rc != 0)
        return note_trouble(cache, "write", rc, err);
    complete_file(cache);
    return 0;
}

/* ---- opening and closing ---- */

static void cache_free(struct sel_lmdb_cache *cache)
{
    close_mdb(cache);
    sel_mem_free(cache->path);
    sel_mem_free(cache);
}

static bool is_open_locked(const struct stat *st)
{
    for (const struct sel_lmdb_cache *c = caches; c; c = c->next)
        if (c->dev == st->st_dev && c->ino == st->st_ino)
            return true;
    return false;
}

static int open_locked(struct sel_lmdb_cache *cache, struct sel_error *err)
{
    struct stat st;
    if (stat(cache->path, &st) < 0)
        return sel_error_set(err, -errno, nowhere, "'%s': %s", cache->path, sel_error_text(-errno));
    if (is_open_locked(&st))
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "'%s' is in use by another cache; each needs a 'path' of its own",
                             cache->path);
    int r = claim_folder(cache->path, err);
    if (r < 0)
        return r;
    int rc = open_anew(cache);
    if (rc != 0)
        return sel_error_set(err, rc > 0 ? -rc : SEL_ESTORAGE, nowhere, "cannot open '%s': %s",
                             cache->path, mdb_strerror(rc));
    cache->dev = st.st_dev;
    cache->ino = st.st_ino;
    cache->next = caches;
    caches = cache;
    return 0;
}

static int open_path(struct sel_lmdb_cache *cache, struct sel_str path, struct sel_error *err)
{
    cache->path = sel_mem_alloc(path.n + 1);
    if (!cache->path)
        return sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    memcpy(cache->path, path.p, path.n);
    cache->path[path.n] = '\0';
    int r = sel_storage_make_folder(sel_io_blocking(), cache->path);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "cannot make the folder '%s': %s", cache->path,
                             sel_error_text(r));
    pthread_mutex_lock(&caches_lock);
    r = open_locked(cache, err);
    pthread_mutex_unlock(&caches_lock);
    return r;
}

static int read_config(struct sel_arena *arena, const struct sel_storage_options *options,
                       uint64_t *ret_size, struct sel_str *ret_path, struct sel_error *err)
{
    static const char *const names[] = {"path", "max_cache_size"};
    int r = sel_storage_args_check(what, options->config, names, SEL_COUNT(names), err);
    if (r == 0)
        r = sel_storage_arg_size(what, options->config, names[1], 0, UINT32_MAX, ret_size, err);
    if (r == 0)
        r = sel_storage_path(arena, options, what, PATH_DEFAULT, ret_path, err);
    return r;
}

int sel_lmdb_cache_open(const struct sel_storage_options *options, struct sel_lmdb_cache **ret,
                        struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct sel_lmdb_cache *cache = NULL;
    struct sel_str path;
    uint64_t size = 0;
    int r = read_config(&arena, options, &size, &path, err);
    if (r == 0 && size > 0) {
        cache = SEL_NEW(struct sel_lmdb_cache);
        r = cache ? 0 : sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    }
    if (r == 0 && cache) {
        cache->size = size;
        r = open_path(cache, path, err);
    }
    sel_arena_done(&arena);
    if (r == 0)
        *ret = cache;
    else if (cache)
        cache_free(cache);
    return r;
}

struct sel_lmdb_cache *sel_lmdb_cache_close(struct sel_lmdb_cache *cache)
{
    if (!cache)
        return NULL;
    pthread_mutex_lock(&caches_lock); /* held to the end: nobody may open it while it is closing */
    struct sel_lmdb_cache **link = &caches;
    while (*link != cache)
        link = &(*link)->next;
    *link = cache->next;
    cache_free(cache);
    pthread_mutex_unlock(&caches_lock);
    return NULL;
}
