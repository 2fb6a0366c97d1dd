/* The journal in files: LMDB for what is synced, a plain file for what is not yet.
 *
 * append with sync    one transaction of LMDB, committed with its two syncs: all that is pending,
 *                     then the new batches, then a bounded step of deleting what was dropped
 * append without      the entries go to `tail` with one write(2), and stay in memory, pending, for
 *                     reads and for the next transaction; LMDB is not touched at all, so that what
 *                     was synced cannot suffer
 * after a commit      the tail is cut, and its head told how far data.mdb goes; without a sync: an
 *                     older head says less, and nothing wrong
 * open                files are checked (journal_pages.h), the chain walked, then what the tail has
 *                     in addition is committed
 *
 * Room. Values of LMDB are runs of pages. A normal append may use pages below `pages_normal` only,
 * an urgent one all up to `pages_max`; so what lies between is there for the urgent, in one piece.
 * Against a disk that is full for other reasons there is the ballast: an urgent append gives it up,
 * and until it can be made again normal ones are refused. Deleting needs pages too, and what is
 * freed is reused by the next transaction but one; so an append that finds no room deletes first,
 * and tries again.
 *
 * Threads. The appending thread owns everything but `reader`, which is the reading thread's. What
 * both look at is atomic, or under `lock`, which is never held over a system call. The reader's
 * snapshot is given up after each read: one that is kept would keep all pages that are freed. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "storage/journal.h"
#include "storage/journal_files.h"
#include "storage/lmdb_log.h"

#define SIZE_DEFAULT ((uint64_t)64 << 30)
#define SIZE_MIN ((uint64_t)1 << 20)
#define RESERVE_DEFAULT ((uint64_t)64 << 20)
#define RESERVE_PART 8                   /* of size_max at most */
#define PENDING_MAX ((uint64_t)32 << 20) /* bytes; more are synced without being asked */
#define DROP_BATCHES 64                  /* deleted with one append */
#define DROP_PAGES 4096                  /* the same in pages */
#define ROOM_TRIES 4                     /* transactions that only delete, before one append */
#define REUSE_AFTER 2                    /* transactions until freed pages can be used */
#define LARGE_HEAD 16                    /* bytes before a value that has pages of its own */
#define FILE_MODE 0644
#define NEW_NAME "data.mdb.new"

static const struct sel_pos nowhere;

struct pending {
    uint8_t *p; /* the entry */
    size_t n;
    bool is_owner; /* of the memory, which those behind it share */
};

struct lmdb_journal {
    struct sel_journal journal;
    struct sel_journal_files files;
    struct sel_lmdb_log *log; /* NULL: read_only */
    uint64_t page_size, pages_max, pages_normal, size_max;
    uint64_t ballast;                     /* bytes; 0: the file system makes none */
    struct sel_journal_link stored, last; /* the last in LMDB, the last of all */
    uint64_t kept;                        /* the first in LMDB; what is below `first` goes */
    uint32_t unusable;                    /* transactions until what was freed can be used */
    bool is_dead;

    _Atomic uint64_t first, stored_seq;

    pthread_mutex_t lock;
    struct pending *pending; /* of batch stored.seq + 1 + i */
    uint32_t pending_cap, pending_count;
    uint32_t *sizes; /* of batch `kept` + i at [size_head + i] */
    uint32_t size_cap, size_head, size_count;
    uint64_t pending_bytes, bytes_live, pages_used;
    uint64_t commits, syncs;
};

static struct lmdb_journal *lmdb_of(struct sel_journal *j)
{
    return (struct lmdb_journal *)j; /* its first member */
}

/* ---- errors ---- */

static bool is_room(int code)
{
    return code == -ENOSPC || code == SEL_ELIMIT;
}

static int fail(const struct lmdb_journal *j, struct sel_error *err, int code, const char *what)
{
    const char *text = sel_error_text(code);
    if (code == SEL_ELIMIT)
        text = "it is at its size limit";
    return sel_error_set(err, code, nowhere, "the journal '%s' cannot be %s: %s", j->files.path,
                         what, text);
}

/* ---- sizes of batches, by number ---- */

static void drop_sizes_locked(struct lmdb_journal *j, uint64_t below)
{
    while (j->size_count > 0 && j->kept < below) {
        j->size_head++;
        j->size_count--;
        j->kept++;
    }
    if (j->size_head > j->size_count) { /* so each is moved once, on average */
        memmove(j->sizes, j->sizes + j->size_head, j->size_count * sizeof(*j->sizes));
        j->size_head = 0;
    }
}

static bool reserve_sizes(struct lmdb_journal *j, uint32_t count)
{
    return sel_mem_grow(&j->sizes, &j->size_cap, (uint64_t)j->size_head + j->size_count + count,
                        sizeof(*j->sizes));
}

static void add_size_locked(struct lmdb_journal *j, size_t n)
{
    j->sizes[j->size_head + j->size_count++] = (uint32_t)n;
    j->bytes_live += n;
}

static uint32_t size_of(const struct lmdb_journal *j, uint64_t seq)
{
    return j->sizes[j->size_head + (uint32_t)(seq - j->kept)];
}

static uint64_t pages_of(const struct lmdb_journal *j, uint64_t batch)
{
    return (LARGE_HEAD + SEL_JOURNAL_HEAD_SIZE + batch - 1) / j->page_size + 1;
}

/* ---- what is pending ---- */

static void forget_pending_locked(struct lmdb_journal *j)
{
    for (uint32_t i = 0; i < j->pending_count; i++) {
        if (j->pending[i].is_owner)
            sel_mem_free(j->pending[i].p);
    }
    j->pending_count = 0;
    j->pending_bytes = 0;
}

/* All that append needs has been reserved. */
static void add_pending_locked(struct lmdb_journal *j, uint8_t *p, size_t n, bool is_owner)
{
    j->pending[j->pending_count++] = (struct pending){p, n, is_owner};
    j->pending_bytes += n;
    add_size_locked(j, n - SEL_JOURNAL_HEAD_SIZE);
}

static bool reserve_pending(struct lmdb_journal *j, uint32_t count)
{
    pthread_mutex_lock(&j->lock); /* the reader looks at the array */
    bool ok = sel_mem_grow(&j->pending, &j->pending_cap, (uint64_t)j->pending_count + count,
                           sizeof(*j->pending));
    pthread_mutex_unlock(&j->lock);
    return ok && reserve_sizes(j, count);
}

/* ---- transactions ---- */

struct work {
    const struct sel_str *batches;
    uint32_t count;
    bool urgent;
    bool only_deletes;            /* what is pending stays so */
    struct sel_journal_link link; /* what it comes to */
    uint64_t deleted;             /* below which it has deleted; 0: nothing */
};

/* Room for the entry of batch `seq`. */
static int add_entry(struct lmdb_journal *j, bool urgent, uint64_t seq, size_t n, uint8_t **ret)
{
    uint64_t page;
    int r = sel_lmdb_log_add(j->log, seq, n, ret, &page);
    if (r == 0 && !urgent && page > 0 &&
        page + pages_of(j, n - SEL_JOURNAL_HEAD_SIZE) > j->pages_normal)
        r = SEL_ELIMIT;
    return r;
}

/* They were taken already, so that the reserve is open to them. */
static int put_pending(struct lmdb_journal *j)
{
    int r = 0;
    for (uint32_t i = 0; i < j->pending_count && r == 0; i++) {
        uint8_t *to;
        r = add_entry(j, true, j->stored.seq + 1 + i, j->pending[i].n, &to);
        if (r == 0)
            memcpy(to, j->pending[i].p, j->pending[i].n);
    }
    return r;
}

static int put_batches(struct lmdb_journal *j, struct work *work)
{
    int r = 0;
    for (uint32_t i = 0; i < work->count && r == 0; i++) {
        const struct sel_str *batch = &work->batches[i];
        uint8_t *to;
        r = add_entry(j, work->urgent, work->link.seq + 1, SEL_JOURNAL_HEAD_SIZE + batch->n, &to);
        if (r < 0)
            break;
        memcpy(to + SEL_JOURNAL_HEAD_SIZE, batch->p, batch->n);
        sel_journal_entry_head(to, &work->link, i + 1 == work->count ? SEL_JOURNAL_COMMIT_END : 0,
                               *batch);
    }
    return r;
}

/* The first batch that must stay; the last one in LMDB always does: it tells what follows. */
static uint64_t delete_end(const struct lmdb_journal *j)
{
    uint64_t first = atomic_load_explicit(&j->first, memory_order_relaxed);
    return first < j->stored.seq ? first : j->stored.seq;
}

/* A step of deleting what was dropped; the work of one append stays bounded. */
static int delete_some(struct lmdb_journal *j, struct work *work)
{
    uint64_t end = delete_end(j), seq = j->kept, pages = 0;
    for (uint32_t n = 0; seq < end && n < DROP_BATCHES; seq++, n++) {
        pages += pages_of(j, size_of(j, seq));
        if (pages > DROP_PAGES && n > 0)
            break;
        int r = sel_lmdb_log_delete(j->log, seq);
        if (r < 0)
            return r == SEL_ENOTFOUND ? SEL_EFORMAT : r;
        work->deleted = seq + 1;
    }
    return 0;
}

static int touch(struct lmdb_journal *j)
{
    uint8_t format[SEL_JOURNAL_FORMAT_SIZE];
    sel_journal_files_encode_format(format);
    return sel_lmdb_log_touch(j->log, (struct sel_str){(const char *)format, sizeof(format)});
}

static int fill(struct lmdb_journal *j, struct work *work)
{
    int r = 0;
    if (!work->only_deletes)
        r = put_pending(j);
    if (r == 0)
        r = put_batches(j, work);
    if (r == 0)
        r = delete_some(j, work);
    if (r == 0 && work->only_deletes && work->deleted == 0)
        r = touch(j); /* what was freed can be used by the next transaction but one */
    return r;
}

static void note_commit(struct lmdb_journal *j, const struct work *work)
{
    atomic_store_explicit(&j->stored_seq, work->link.seq, memory_order_release);
    pthread_mutex_lock(&j->lock);
    if (!work->only_deletes) {
        forget_pending_locked(j);
        j->stored = j->last = work->link;
    }
    for (uint32_t i = 0; i < work->count; i++)
        add_size_locked(j, work->batches[i].n);
    drop_sizes_locked(j, work->deleted);
    j->pages_used = sel_lmdb_log_pages(j->log);
    j->syncs++;
    pthread_mutex_unlock(&j->lock);
    if (work->deleted > 0)
        j->unusable = REUSE_AFTER;
    else if (j->unusable > 0)
        j->unusable--;
    if (!work->only_deletes)
        sel_journal_files_cut_tail(&j->files, j->stored);
}

/* One transaction. */
static int run_work(struct lmdb_journal *j, struct work *work)
{
    int r = sel_lmdb_log_begin(j->log);
    if (r < 0)
        return r;
    r = fill(j, work);
    if (r < 0) {
        sel_lmdb_log_abort(j->log);
        return r;
    }
    r = sel_lmdb_log_commit(j->log);
    if (r == 0)
        note_commit(j, work);
    return r;
}

static int commit_batches(struct lmdb_journal *j, const struct sel_str *batches, uint32_t count,
                          bool urgent)
{
    struct work work = {.batches = batches, .count = count, .urgent = urgent, .link = j->last};
    return run_work(j, &work);
}

/* What is pending may be the copies of what is deleted, and has to be as safe first. There is no
 * room for it in LMDB, so it is made so where it is. */
static int free_some(struct lmdb_journal *j)
{
    if (j->pending_count > 0 && j->kept < delete_end(j)) {
        int r = sel_journal_files_sync_tail(&j->files);
        if (r < 0)
            return r;
    }
    struct work work = {.only_deletes = true, .urgent = true, .link = j->stored};
    return run_work(j, &work);
}

/* ---- the tail ---- */

static uint64_t entries_size(const struct sel_str *batches, uint32_t count)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += SEL_JOURNAL_HEAD_SIZE + batches[i].n;
    return n;
}

static int tail_batches(struct lmdb_journal *j, const struct sel_str *batches, uint32_t count,
                        bool urgent)
{
    (void)urgent; /* the room of the disk is one */
    size_t n = (size_t)entries_size(batches, count), at = 0;
    struct sel_journal_link link = j->last;
    uint8_t *p = reserve_pending(j, count) ? sel_mem_alloc(n) : NULL;
    if (!p)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(p + at + SEL_JOURNAL_HEAD_SIZE, batches[i].p, batches[i].n);
        sel_journal_entry_head(p + at, &link, i + 1 == count ? SEL_JOURNAL_COMMIT_END : 0,
                               batches[i]);
        at += SEL_JOURNAL_HEAD_SIZE + batches[i].n;
    }
    int r = sel_journal_files_write_tail(&j->files, p, n);
    if (r < 0) {
        sel_mem_free(p);
        return r;
    }
    at = 0;
    pthread_mutex_lock(&j->lock);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = SEL_JOURNAL_HEAD_SIZE + batches[i].n;
        add_pending_locked(j, p + at, size, i == 0);
        at += size;
    }
    j->last = link;
    pthread_mutex_unlock(&j->lock);
    return 0;
}

/* ---- room ---- */

typedef int (*attempt_fn)(struct lmdb_journal *j, const struct sel_str *batches, uint32_t count,
                          bool urgent);

/* The ballast must be there before a normal append is taken: it would eat what was given up for
 * the urgent ones. */
static int check_ballast(struct lmdb_journal *j, bool urgent)
{
    if (urgent || j->files.has_ballast)
        return 0;
    int r = sel_journal_files_make_ballast(&j->files, j->ballast);
    if (r == -EOPNOTSUPP)
        j->ballast = 0;
    return r == -EOPNOTSUPP ? 0 : r;
}

/* Quick, and not exact: pages may be free but scattered, which LMDB finds out. */
static int check_limit(const struct lmdb_journal *j, const struct sel_str *batches, uint32_t count,
                       bool urgent)
{
    uint64_t need = j->pages_used + j->pending_bytes / j->page_size + j->pending_count;
    for (uint32_t i = 0; i < count; i++)
        need += pages_of(j, batches[i].n);
    return need > (urgent ? j->pages_max : j->pages_normal) ? SEL_ELIMIT : 0;
}

static bool can_free(const struct lmdb_journal *j)
{
    return j->kept < delete_end(j) || j->unusable > 0;
}

static int try_once(struct lmdb_journal *j, attempt_fn attempt, const struct sel_str *batches,
                    uint32_t count, bool urgent)
{
    int r = check_ballast(j, urgent);
    if (r == 0 && count > 0)
        r = check_limit(j, batches, count, urgent);
    return r == 0 ? attempt(j, batches, count, urgent) : r;
}

static int attempt_with_room(struct lmdb_journal *j, attempt_fn attempt,
                             const struct sel_str *batches, uint32_t count, bool urgent)
{
    int r = try_once(j, attempt, batches, count, urgent);
    for (int i = 0; i < ROOM_TRIES && is_room(r); i++) {
        if (r != -ENOSPC || !urgent || !sel_journal_files_give_ballast(&j->files)) {
            int freed = can_free(j) ? free_some(j) : r;
            if (freed < 0)
                return is_room(freed) ? r : freed;
        }
        r = try_once(j, attempt, batches, count, urgent);
    }
    return r;
}

/* ---- appending ---- */

static int check_open(const struct lmdb_journal *j)
{
    return !j->log ? -EROFS : j->is_dead ? -EIO : 0;
}

/* After SEL_ENOMEM nothing has happened either. */
static int finish(struct lmdb_journal *j, int r, struct sel_error *err)
{
    if (r == 0)
        return 0;
    if (!is_room(r) && r != SEL_ENOMEM && r != -EROFS)
        j->is_dead = true;
    return fail(j, err, r, "written");
}

static int lmdb_append(struct sel_journal *journal, const struct sel_str *batches, uint32_t count,
                       bool sync, bool urgent, uint64_t *ret_last, struct sel_error *err)
{
    struct lmdb_journal *j = lmdb_of(journal);
    SEL_ASSERT(count > 0);
    int r = check_open(j);
    if (r < 0)
        return finish(j, r, err);
    bool is_much = j->pending_bytes + entries_size(batches, count) > PENDING_MAX;
    if (!reserve_sizes(j, count))
        r = SEL_ENOMEM;
    else
        r = attempt_with_room(j, sync || is_much ? commit_batches : tail_batches, batches, count,
                              urgent);
    if (r < 0)
        return finish(j, r, err);
    pthread_mutex_lock(&j->lock);
    j->commits++;
    pthread_mutex_unlock(&j->lock);
    *ret_last = j->last.seq;
    return 0;
}

static int lmdb_sync(struct sel_journal *journal, struct sel_error *err)
{
    struct lmdb_journal *j = lmdb_of(journal);
    int r = check_open(j);
    if (r == 0 && j->pending_count > 0)
        r = attempt_with_room(j, commit_batches, NULL, 0, true);
    return finish(j, r, err);
}

static int lmdb_drop(struct sel_journal *journal, uint64_t before, struct sel_error *err)
{
    struct lmdb_journal *j = lmdb_of(journal);
    int r = check_open(j);
    if (r < 0)
        return finish(j, r, err);
    if (before > j->last.seq)
        before = j->last.seq;
    uint64_t first = atomic_load_explicit(&j->first, memory_order_relaxed);
    if (before <= first)
        return 0;
    pthread_mutex_lock(&j->lock);
    for (uint64_t seq = first; seq < before; seq++)
        j->bytes_live -= size_of(j, seq);
    pthread_mutex_unlock(&j->lock);
    atomic_store_explicit(&j->first, before, memory_order_release);
    return 0;
}

/* ---- reading ---- */

static int copy_part(const uint8_t *entry, size_t size, uint64_t offset, uint64_t n,
                     struct sel_buf *buf)
{
    if (size < SEL_JOURNAL_HEAD_SIZE)
        return SEL_EFORMAT;
    uint64_t length = size - SEL_JOURNAL_HEAD_SIZE;
    if (offset > length || n > length - offset)
        return SEL_ERANGE;
    sel_buf_put(buf, entry + SEL_JOURNAL_HEAD_SIZE + offset, (size_t)n);
    return sel_buf_error(buf);
}

/* 1: it is not pending (any more). */
static int read_pending(struct lmdb_journal *j, uint64_t seq, uint64_t offset, uint64_t n,
                        struct sel_buf *buf)
{
    int r = 1;
    pthread_mutex_lock(&j->lock);
    if (seq > j->stored.seq)
        r = SEL_ENOTFOUND;
    if (seq > j->stored.seq && seq - j->stored.seq <= j->pending_count) {
        const struct pending *pending = &j->pending[seq - j->stored.seq - 1];
        r = copy_part(pending->p, pending->n, offset, n, buf);
    }
    pthread_mutex_unlock(&j->lock);
    return r;
}

static int read_stored(struct lmdb_journal *j, uint64_t seq, uint64_t offset, uint64_t n,
                       struct sel_buf *buf)
{
    struct sel_str value;
    int r = sel_lmdb_log_get(j->log, seq, &value);
    if (r < 0)
        return r;
    r = copy_part((const uint8_t *)value.p, value.n, offset, n, buf);
    sel_lmdb_log_release(j->log);
    return r;
}

/* Without LMDB, which is not open in a journal that is only read. */
static int read_file(struct lmdb_journal *j, uint64_t seq, uint64_t offset, uint64_t n,
                     struct sel_buf *buf, struct sel_error *err)
{
    const struct sel_journal_pages *pages = &j->files.pages;
    struct sel_buf value_buf = {0};
    struct sel_str value;
    uint64_t i = seq - j->kept + 1; /* 0 is the format */
    if (i >= pages->place_count)
        return SEL_ENOTFOUND;
    int r = sel_journal_pages_load(pages, (uint32_t)i, &value_buf, &value, err);
    if (r == 0)
        r = copy_part((const uint8_t *)value.p, value.n, offset, n, buf);
    sel_buf_done(&value_buf);
    return r;
}

static int lmdb_read(struct sel_journal *journal, uint64_t seq, uint64_t offset, uint64_t n,
                     struct sel_buf *buf, struct sel_error *err)
{
    struct lmdb_journal *j = lmdb_of(journal);
    int r = 1;
    if (seq < atomic_load_explicit(&j->first, memory_order_acquire))
        r = SEL_ENOTFOUND;
    else if (seq > atomic_load_explicit(&j->stored_seq, memory_order_acquire))
        r = read_pending(j, seq, offset, n, buf);
    if (r == 1)
        r = j->log ? read_stored(j, seq, offset, n, buf) : read_file(j, seq, offset, n, buf, err);
    if (r == 0)
        return 0;
    return sel_error_set(err, r, nowhere, "the journal '%s', batch %" PRIu64 ": %s", j->files.path,
                         seq, sel_error_text(r));
}

static int walk_pending(struct lmdb_journal *j, uint64_t from, sel_journal_visit_fn visit,
                        void *ctx, struct sel_error *err)
{
    struct sel_journal_link link = j->stored;
    for (uint32_t i = 0; i < j->pending_count; i++) {
        struct sel_journal_entry entry;
        int r = sel_journal_entry_parse(j->pending[i].p, j->pending[i].n, &entry);
        SEL_ASSERT(r == 0 && sel_journal_entry_follows(&entry, &link)); /* our own memory */
        r = entry.seq < from ? 0 : visit(ctx, entry.seq, entry.batch, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int lmdb_walk(struct sel_journal *journal, uint64_t from, sel_journal_visit_fn visit,
                     void *ctx, struct sel_error *err)
{
    struct lmdb_journal *j = lmdb_of(journal);
    struct sel_journal_found found;
    uint64_t first = atomic_load_explicit(&j->first, memory_order_relaxed);
    if (j->is_dead)
        return fail(j, err, -EIO, "read");
    from = from > first ? from : first;
    int r = sel_journal_files_walk(&j->files, from, visit, ctx, &found, err);
    if (j->log)
        sel_journal_pages_done(&j->files.pages);
    if (r == 0 && (found.last.seq != j->stored.seq || found.last.crc != j->stored.crc))
        return sel_error_set(err, SEL_EFORMAT, nowhere,
                             "'%s' ends with batch %" PRIu64 ", not with %" PRIu64,
                             j->files.data_path, found.last.seq, j->stored.seq);
    return r < 0 ? r : walk_pending(j, from, visit, ctx, err);
}

static void lmdb_stats(struct sel_journal *journal, struct sel_journal_stats *ret)
{
    struct lmdb_journal *j = lmdb_of(journal);
    pthread_mutex_lock(&j->lock);
    bool is_empty = j->last.seq == 0;
    *ret = (struct sel_journal_stats){
        .first = is_empty ? 0 : atomic_load_explicit(&j->first, memory_order_relaxed),
        .last = j->last.seq,
        .bytes_live = j->bytes_live,
        .bytes_used = j->pages_used * j->page_size + j->pending_bytes,
        .bytes_limit = j->size_max,
        .commits = j->commits,
        .syncs = j->syncs,
    };
    pthread_mutex_unlock(&j->lock);
}

/* ---- closing ---- */

static void free_journal(struct lmdb_journal *j)
{
    (void)sel_lmdb_log_close(j->log);
    sel_journal_files_close(&j->files);
    forget_pending_locked(j); /* nobody else is there any more */
    sel_mem_free(j->pending);
    sel_mem_free(j->sizes);
    pthread_mutex_destroy(&j->lock);
    sel_mem_free(j);
}

static void lmdb_close(struct sel_journal *journal)
{
    struct lmdb_journal *j = lmdb_of(journal);
    (void)lmdb_sync(journal, NULL); /* what fails is in the tail */
    free_journal(j);
}

static const struct sel_journal_ops ops = {
    .walk = lmdb_walk,
    .append = lmdb_append,
    .sync = lmdb_sync,
    .read = lmdb_read,
    .drop = lmdb_drop,
    .stats = lmdb_stats,
    .close = lmdb_close,
};

/* ---- opening ---- */

static int new_path(const struct lmdb_journal *j, char out[PATH_MAX], struct sel_error *err)
{
    int n = snprintf(out, PATH_MAX, "%s/" NEW_NAME, j->files.path);
    return n > 0 && n < PATH_MAX ? 0 : fail(j, err, -ENAMETOOLONG, "made");
}

/* Under another name first: data.mdb is whole as soon as it is there. */
static int create_data(struct lmdb_journal *j, struct sel_error *err)
{
    char path[PATH_MAX];
    int r = new_path(j, path, err);
    if (r < 0)
        return r;
    uint8_t format[SEL_JOURNAL_FORMAT_SIZE];
    sel_journal_files_encode_format(format);
    (void)unlink(path); /* mostly there is none */
    r = sel_lmdb_log_create(path, (struct sel_str){(const char *)format, sizeof(format)});
    if (r == 0)
        r = sel_journal_files_adopt(&j->files, NEW_NAME);
    return r < 0 ? fail(j, err, r, "made") : 0;
}

/* Whether `size` bytes of address space are to be had. */
static bool has_address_space(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    (void)munmap(p, size);
    return true;
}

static int set_limits(struct lmdb_journal *j, const struct sel_journal_lmdb_options *options,
                      struct sel_error *err)
{
    uint64_t size = options->size_max, reserve = options->reserve;
    if (size == 0)
        for (size = SIZE_DEFAULT; size > SIZE_MIN && !has_address_space(size);)
            size /= 2;
    if (size < SIZE_MIN || reserve > size / 2)
        return sel_error_set(err, SEL_ERANGE, nowhere,
                             "the journal '%s': its size must be 1 MiB or more, its reserve half "
                             "of that or less",
                             options->path);
    if (reserve == 0)
        reserve = size / RESERVE_PART < RESERVE_DEFAULT ? size / RESERVE_PART : RESERVE_DEFAULT;
    j->size_max = size;
    j->ballast = reserve;
    j->page_size = j->files.pages.page_size;
    j->pages_max = size / j->page_size - 1; /* LMDB leaves the last one */
    j->pages_normal = (size - reserve) / j->page_size;
    return 0;
}

static int note_size(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    struct lmdb_journal *j = ctx;
    (void)seq;
    if (!reserve_sizes(j, 1))
        return fail(j, err, SEL_ENOMEM, "opened");
    add_size_locked(j, batch.n);
    return 0;
}

static int note_entry(void *ctx, const struct sel_journal_entry *entry)
{
    struct lmdb_journal *j = ctx;
    size_t n = SEL_JOURNAL_HEAD_SIZE + entry->batch.n;
    uint8_t *p = reserve_pending(j, 1) ? sel_mem_alloc(n) : NULL;
    if (!p)
        return SEL_ENOMEM;
    memcpy(p, entry->batch.p - SEL_JOURNAL_HEAD_SIZE, n);
    add_pending_locked(j, p, n, true);
    return 0;
}

/* What the files hold: all is checked before LMDB maps anything. */
static int load(struct lmdb_journal *j, struct sel_error *err)
{
    struct sel_journal_found found;
    int r = sel_journal_files_walk(&j->files, 0, note_size, j, &found, err);
    if (r < 0)
        return r;
    j->pages_used = j->files.pages.pages_used;
    j->stored = j->last = found.last;
    j->kept = found.first > 0 ? found.first : 1;
    atomic_store_explicit(&j->first, j->kept, memory_order_relaxed);
    atomic_store_explicit(&j->stored_seq, j->stored.seq, memory_order_relaxed);
    r = sel_journal_files_walk_tail(&j->files, &j->last, note_entry, j, err);
    return r == SEL_ENOMEM ? fail(j, err, r, "opened") : r;
}

/* What is still pending stays so. */
static int write_tail(struct lmdb_journal *j)
{
    int r = sel_journal_files_new_tail(&j->files, j->stored);
    for (uint32_t i = 0; i < j->pending_count && r == 0; i++)
        r = sel_journal_files_write_tail(&j->files, j->pending[i].p, j->pending[i].n);
    return r == 0 ? sel_journal_files_adopt_tail(&j->files) : r;
}

/* A lack of room does not keep it from being opened: only so can some be made. Appends will say it
 * then, or use the reserve. */
static int take_over(struct lmdb_journal *j, bool has_ballast)
{
    int r = has_ballast ? check_ballast(j, false) : 0;
    if ((r == 0 || is_room(r)) && j->pending_count > 0)
        r = attempt_with_room(j, commit_batches, NULL, 0, true);
    if (r < 0 && !is_room(r))
        return r;
    r = write_tail(j);
    if (r == -ENOSPC && sel_journal_files_give_ballast(&j->files))
        r = write_tail(j);
    return r;
}

static int open_for_writing(struct lmdb_journal *j, bool has_ballast, struct sel_error *err)
{
    sel_journal_pages_done(&j->files.pages);
    (void)unlinkat(j->files.folder_fd, NEW_NAME, 0); /* mostly there is none */
    int r = sel_lmdb_log_open(j->files.path, j->size_max, &j->log);
    if (r == 0)
        r = take_over(j, has_ballast);
    return r < 0 ? fail(j, err, r, "opened") : 0;
}

static int open_journal(const struct sel_journal_lmdb_options *options, bool has_ballast,
                        struct lmdb_journal **ret, struct sel_error *err)
{
    struct lmdb_journal *j = SEL_NEW(struct lmdb_journal);
    if (!j)
        return sel_error_set(err, SEL_ENOMEM, nowhere, "%s", sel_error_text(SEL_ENOMEM));
    j->journal.ops = &ops;
    pthread_mutex_init(&j->lock, NULL); /* cannot fail with these attributes */
    int r = sel_journal_files_open(&j->files, options->path, options->read_only, err);
    if (r == 0 && j->files.data_fd < 0)
        r = create_data(j, err);
    if (r == 0)
        r = load(j, err);
    if (r == 0)
        r = set_limits(j, options, err);
    if (r == 0 && !options->read_only)
        r = open_for_writing(j, has_ballast, err);
    if (r < 0) {
        free_journal(j);
        return r;
    }
    *ret = j;
    return 0;
}

int sel_journal_lmdb_open(const struct sel_journal_lmdb_options *options, struct sel_journal **ret,
                          struct sel_error *err)
{
    struct lmdb_journal *j;
    int r = open_journal(options, true, &j, err);
    if (r == 0)
        *ret = &j->journal;
    return r;
}

/* ---- compacting ---- */

/* The copy must hold what the journal holds, before it takes its place. */
static int check_copy(struct lmdb_journal *j, int fd, struct sel_error *err)
{
    struct sel_journal_files copy = j->files;
    struct sel_journal_found found;
    copy.data_fd = fd;
    copy.pages = (struct sel_journal_pages){0};
    int r = sel_journal_files_walk(&copy, 0, NULL, NULL, &found, err);
    sel_journal_pages_done(&copy.pages);
    if (r < 0)
        return r;
    if (found.last.seq != j->stored.seq || found.last.crc != j->stored.crc ||
        (found.first != j->kept && j->stored.seq > 0))
        return sel_error_set(err, SEL_EFORMAT, nowhere, "the copy of '%s' is not like it",
                             j->files.data_path);
    return 0;
}

static int write_copy(struct lmdb_journal *j, int fd, struct sel_error *err)
{
    int r = sel_lmdb_log_copy(j->log, fd);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r < 0 ? fail(j, err, r, "copied") : check_copy(j, fd, err);
}

static int replace_by_copy(struct lmdb_journal *j, struct sel_error *err)
{
    int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
    int fd = openat(j->files.folder_fd, NEW_NAME, flags, FILE_MODE);
    if (fd < 0)
        return fail(j, err, -errno, "copied");
    int r = write_copy(j, fd, err);
    (void)close(fd); /* it was synced, or does not count */
    j->log = sel_lmdb_log_close(j->log);
    if (r == 0) {
        r = sel_journal_files_adopt(&j->files, NEW_NAME);
        if (r < 0)
            (void)fail(j, err, r, "replaced");
    }
    if (r < 0)
        (void)unlinkat(j->files.folder_fd, NEW_NAME, 0);
    return r;
}

static uint64_t data_size(const struct lmdb_journal *j)
{
    struct stat st;
    return fstat(j->files.data_fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

int sel_journal_lmdb_compact(const char *path, uint64_t *ret_before, uint64_t *ret_after,
                             struct sel_error *err)
{
    const struct sel_journal_lmdb_options options = {.path = path};
    struct stat st;
    struct lmdb_journal *j;
    if (stat(path, &st) < 0) /* it would be made */
        return sel_error_set(err, -errno, nowhere, "'%s': %s", path, strerror(errno));
    int r = open_journal(&options, false, &j, err);
    if (r < 0)
        return r;
    uint64_t before = data_size(j);
    r = replace_by_copy(j, err);
    if (r == 0) {
        *ret_before = before;
        *ret_after = data_size(j);
    }
    free_journal(j);
    return r;
}
