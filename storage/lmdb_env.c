#include "storage/lmdb_env.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "storage/builtin.h"
#include "storage/lmdb_check.h"

#define READERS_MAX 1024 /* of all processes; LMDB's own default is 126 */
#define FORMAT_KEY "selinon-results"
#define FORMAT_VERSION "1"

static const struct sel_pos nowhere;
static const char *const db_names[SEL_LMDB_DB_COUNT] = {"results", "errors", "trace"};

/* ---- errors ---- */

int sel_lmdb_code(int rc)
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

const char *sel_lmdb_text(int rc)
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
int sel_lmdb_env_adopt_size(struct sel_lmdb_env *env)
{
    pthread_rwlock_wrlock(&env->map_lock);
    int rc = mdb_env_set_mapsize(env->mdb, 0);
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

int sel_lmdb_env_grow(struct sel_lmdb_env *env)
{
    MDB_envinfo info;
    int rc = mdb_env_info(env->mdb, &info);
    if (rc != 0)
        return rc;
    uint64_t size = (uint64_t)info.me_mapsize * 2;
    if (size > SEL_LMDB_MAP_SIZE_MAX || !has_address_space(size))
        return MDB_MAP_FULL;
    pthread_rwlock_wrlock(&env->map_lock);
    rc = mdb_env_set_mapsize(env->mdb, size);
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

/* What LMDB frees again within one transaction it never writes, so that the file may end before
 * the last page that it counts. Ours does not: that is how a cut one is told (lmdb_check.h). */
void sel_lmdb_env_complete_file(struct sel_lmdb_env *env)
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

/* ---- reading ---- */

/* On success map_lock is held for reading until sel_lmdb_env_end_read. */
int sel_lmdb_env_begin_read(struct sel_lmdb_env *env, MDB_txn **ret)
{
    int rc = 0;
    for (int i = 0; i < SEL_LMDB_GROW_MAX; i++) {
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
        rc = sel_lmdb_env_adopt_size(env);
        if (rc != 0)
            return rc;
    }
    return rc;
}

void sel_lmdb_env_end_read(struct sel_lmdb_env *env, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    pthread_mutex_lock(&env->readers_lock);
    bool is_kept = env->reader_count < SEL_LMDB_READERS_KEPT;
    if (is_kept)
        env->readers[env->reader_count++] = txn;
    pthread_mutex_unlock(&env->readers_lock);
    if (!is_kept)
        mdb_txn_abort(txn);
    pthread_rwlock_unlock(&env->map_lock);
}

/* ---- opening and closing ---- */

/* All environments of this process: LMDB must not open one twice, its file locks would be lost by
 * the first close. Shared by nature, hence the exception to "no global state". */
static pthread_mutex_t envs_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sel_lmdb_env *envs;

struct open_job {
    const char *path;
    bool sync;
    uint64_t map_size;
    struct sel_lmdb_env *env; /* out */
    int r;
    struct sel_error *err;
};

static struct sel_lmdb_env *env_find_locked(const struct stat *st)
{
    for (struct sel_lmdb_env *env = envs; env; env = env->next)
        if (env->dev == st->st_dev && env->ino == st->st_ino)
            return env;
    return NULL;
}

static struct sel_lmdb_env *env_free(struct sel_lmdb_env *env)
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

static struct sel_lmdb_env *env_new(const struct open_job *job, const struct stat *st)
{
    struct sel_lmdb_env *env = SEL_NEW(struct sel_lmdb_env);
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
        while (size < (uint64_t)st.st_size && size < SEL_LMDB_MAP_SIZE_MAX)
            size *= 2;
    return size;
}

static int open_mdb(struct sel_lmdb_env *env, const struct open_job *job)
{
    int rc = mdb_env_create(&env->mdb);
    if (rc != 0)
        return rc;
    rc = mdb_env_set_maxdbs(env->mdb, SEL_LMDB_DB_COUNT);
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
static int open_dbs(struct sel_lmdb_env *env, struct sel_error *err, int *ret_rc)
{
    MDB_txn *txn;
    MDB_dbi unnamed;
    int r = 0, rc = mdb_txn_begin(env->mdb, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &unnamed);
        if (rc == 0)
            r = check_version(txn, unnamed, env->path, err, &rc);
        for (int i = 0; i < SEL_LMDB_DB_COUNT && rc == 0 && r == 0; i++)
            rc = mdb_dbi_open(txn, db_names[i], MDB_CREATE, &env->dbs[i]);
        if (rc == 0 && r == 0)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    *ret_rc = rc;
    return r;
}

static int open_env(struct sel_lmdb_env *env, const struct open_job *job)
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
        sel_lmdb_env_complete_file(env);
        rc = sel_lmdb_writer_start(env);
    }
    if (rc == 0)
        return 0;
    return sel_error_set(job->err, sel_lmdb_code(rc), nowhere, "cannot open '%s' for writing: %s",
                         env->path, sel_lmdb_text(rc));
}

static int open_env_locked(struct open_job *job)
{
    struct stat st;
    if (stat(job->path, &st) < 0)
        return sel_error_set(job->err, -errno, nowhere, "'%s': %s", job->path, strerror(errno));
    struct sel_lmdb_env *env = env_find_locked(&st);
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

void sel_lmdb_env_unref(struct sel_lmdb_env *env)
{
    pthread_mutex_lock(&envs_lock); /* held to the end: nobody may open it while it is closing */
    if (--env->refs == 0) {
        struct sel_lmdb_env **link = &envs;
        while (*link != env)
            link = &(*link)->next;
        *link = env->next;
        sel_lmdb_writer_stop(env);
        env_free(env);
    }
    pthread_mutex_unlock(&envs_lock);
}

int sel_lmdb_env_open(const char *path, bool sync, uint64_t map_size, struct sel_io *io,
                      struct sel_lmdb_env **ret, struct sel_error *err)
{
    struct open_job job = {path, sync, map_size, NULL, 0, err};
    int r = sel_storage_make_folder(io, path);
    if (r < 0)
        return sel_error_set(err, r, nowhere, "cannot make the folder '%s': %s", path,
                             sel_error_text(r));
    if (io->ops->offload(io, run_open, &job) < 0)
        run_open(&job);
    if (job.r == 0)
        *ret = job.env;
    return job.r;
}
