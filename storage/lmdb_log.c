#include "storage/lmdb_log.h"

#include <errno.h>
#include <lmdb.h>
#include <string.h>
#include <sys/statvfs.h>

#include "core/error.h"
#include "core/mem.h"

#define READERS_MAX 8
#define FILE_MODE 0644
#define NEW_MAP_SIZE (UINT64_C(1) << 20)
#define META_PAGES 2
#define LARGE_HEAD 16                   /* bytes before a value that has pages of its own */
#define FULL_BELOW (UINT64_C(64) << 10) /* bytes free on the disk: a cut write left no page */

struct sel_lmdb_log {
    MDB_env *env;
    MDB_dbi dbi;
    uint32_t page_size;
    MDB_txn *txn;    /* the writer's, between begin and its end */
    MDB_txn *reader; /* the reader's, reset between two reads; NULL: none yet */
};

static int code_of(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_MAP_FULL:
        return SEL_ELIMIT;
    case MDB_NOTFOUND:
        return SEL_ENOTFOUND;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return -ENOSPC;
    case ENOMEM:
        return SEL_ENOMEM;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        return SEL_EFORMAT;
    case MDB_VERSION_MISMATCH:
        return SEL_EVERSION;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

/* ---- opening ---- */

/* Leaves a transaction under way. */
static int open_log(struct sel_lmdb_log *log, const char *path, uint64_t size, unsigned flags)
{
    MDB_stat stat;
    int rc = mdb_env_create(&log->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(log->env, size);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(log->env, READERS_MAX);
    if (rc == 0)
        rc = mdb_env_open(log->env, path, flags, FILE_MODE);
    if (rc == 0)
        rc = mdb_txn_begin(log->env, NULL, 0, &log->txn);
    if (rc == 0)
        rc = mdb_dbi_open(log->txn, NULL, MDB_INTEGERKEY, &log->dbi);
    if (rc == 0)
        rc = mdb_env_stat(log->env, &stat);
    if (rc == 0)
        log->page_size = stat.ms_psize;
    return code_of(rc);
}

static void close_log(struct sel_lmdb_log *log)
{
    mdb_txn_abort(log->txn); /* NULL is fine */
    mdb_txn_abort(log->reader);
    if (log->env)
        mdb_env_close(log->env);
}

int sel_lmdb_log_create(const char *path, struct sel_str format)
{
    struct sel_lmdb_log log = {0};
    int r = open_log(&log, path, NEW_MAP_SIZE, MDB_NOSUBDIR | MDB_NOLOCK);
    if (r == 0)
        r = sel_lmdb_log_touch(&log, format);
    if (r == 0)
        r = sel_lmdb_log_commit(&log);
    close_log(&log);
    return r;
}

int sel_lmdb_log_open(const char *folder, uint64_t size, struct sel_lmdb_log **ret)
{
    struct sel_lmdb_log *log = SEL_NEW(struct sel_lmdb_log);
    if (!log)
        return SEL_ENOMEM;
    int r = open_log(log, folder, size, MDB_NOTLS);
    if (r == 0)
        r = sel_lmdb_log_commit(log); /* of nothing, but it keeps the handle */
    if (r < 0) {
        (void)sel_lmdb_log_close(log);
        return r;
    }
    *ret = log;
    return 0;
}

struct sel_lmdb_log *sel_lmdb_log_close(struct sel_lmdb_log *log)
{
    if (log)
        close_log(log);
    return sel_mem_free(log);
}

/* ---- writing ---- */

int sel_lmdb_log_begin(struct sel_lmdb_log *log)
{
    SEL_ASSERT(!log->txn);
    return code_of(mdb_txn_begin(log->env, NULL, 0, &log->txn));
}

int sel_lmdb_log_add(struct sel_lmdb_log *log, uint64_t number, size_t n, uint8_t **ret,
                     uint64_t *ret_page)
{
    MDB_val key = {sizeof(number), &number}, value = {n, NULL};
    int rc = mdb_put(log->txn, log->dbi, &key, &value, MDB_APPEND | MDB_RESERVE);
    if (rc != 0)
        return code_of(rc);
    /* A page that is to be written looks as in the file (journal_pages.c): its number first. */
    *ret_page = 0;
    if (n >= log->page_size)
        memcpy(ret_page, (uint8_t *)value.mv_data - LARGE_HEAD, sizeof(*ret_page));
    *ret = value.mv_data;
    return 0;
}

int sel_lmdb_log_delete(struct sel_lmdb_log *log, uint64_t number)
{
    MDB_val key = {sizeof(number), &number};
    return code_of(mdb_del(log->txn, log->dbi, &key, NULL));
}

int sel_lmdb_log_touch(struct sel_lmdb_log *log, struct sel_str format)
{
    uint64_t zero = 0;
    MDB_val key = {sizeof(zero), &zero}, value = {format.n, (void *)(uintptr_t)format.p};
    return code_of(mdb_put(log->txn, log->dbi, &key, &value, 0));
}

void sel_lmdb_log_abort(struct sel_lmdb_log *log)
{
    mdb_txn_abort(log->txn);
    log->txn = NULL;
}

/* LMDB says EIO when a write was cut short, which only a full disk does. */
static bool is_disk_full(const struct sel_lmdb_log *log)
{
    mdb_filehandle_t fd;
    struct statvfs fs;
    return mdb_env_get_fd(log->env, &fd) == 0 && fstatvfs(fd, &fs) == 0 &&
           (uint64_t)fs.f_bavail * fs.f_frsize < FULL_BELOW;
}

/* A full disk that is met when pages are written leaves LMDB as it was; met when the head of the
 * file is written, it leaves LMDB unusable, and then a transaction cannot even begin. */
int sel_lmdb_log_commit(struct sel_lmdb_log *log)
{
    int r = code_of(mdb_txn_commit(log->txn));
    log->txn = NULL;
    if (r == -EIO && is_disk_full(log))
        r = -ENOSPC;
    if (r != -ENOSPC)
        return r;
    if (sel_lmdb_log_begin(log) < 0)
        return -EIO;
    sel_lmdb_log_abort(log);
    return r;
}

uint64_t sel_lmdb_log_pages(const struct sel_lmdb_log *log)
{
    MDB_stat stat;
    if (mdb_env_stat(log->env, &stat) != 0)
        return 0; /* only without an environment */
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages + META_PAGES;
}

int sel_lmdb_log_copy(struct sel_lmdb_log *log, int fd)
{
    return code_of(mdb_env_copyfd2(log->env, fd, MDB_CP_COMPACT));
}

/* ---- reading ---- */

int sel_lmdb_log_get(struct sel_lmdb_log *log, uint64_t number, struct sel_str *ret)
{
    MDB_val key = {sizeof(number), &number}, value;
    int rc = log->reader ? mdb_txn_renew(log->reader)
                         : mdb_txn_begin(log->env, NULL, MDB_RDONLY, &log->reader);
    if (rc != 0)
        return code_of(rc);
    rc = mdb_get(log->reader, log->dbi, &key, &value);
    if (rc != 0) {
        mdb_txn_reset(log->reader);
        return code_of(rc);
    }
    *ret = (struct sel_str){value.mv_data, value.mv_size};
    return 0;
}

void sel_lmdb_log_release(struct sel_lmdb_log *log)
{
    mdb_txn_reset(log->reader);
}
