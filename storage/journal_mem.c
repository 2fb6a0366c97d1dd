/* A disk in memory that may lose, tear and reorder what was not synced, as its seed draws.
 *
 * It holds the stored form (journal_entry.h) of each batch, a list of the writes since the last
 * sync, and a mark: which batch was the last at that sync. The mark is what tells a lost end, which
 * is normal, from damage: up to it the chain must be whole. Behind it, after a loss of power, the
 * chain ends where a batch is missing, torn, or belongs to a commit that is not there in full; what
 * lies beyond is forgotten when the journal is opened. Without a loss of power nothing may be
 * missing at all.
 *
 * A drop takes effect with the sync after it. So it can never outlive the appends before it, among
 * which are the copies of what it drops. */
#include "storage/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>

#include "core/mem.h"
#include "core/prng.h"
#include "storage/journal_entry.h"

#define SECTOR 512
#define RESERVE_PART 8 /* of the limit, for urgent appends */

static const struct sel_pos nowhere;

struct block {
    uint8_t *p; /* NULL: lost */
    size_t n;
};

/* One append, or one drop (count 0). */
struct write {
    uint64_t first; /* drop: what is below goes */
    uint32_t count;
    uint64_t after; /* drop: only if the chain reaches this batch */
};

struct mem_journal {
    struct sel_journal journal;
    struct sel_journal_disk *disk;
    struct sel_journal_link last;
    uint64_t commits, syncs;
    bool is_dead;
};

struct sel_journal_disk {
    pthread_mutex_t lock;
    struct sel_prng prng;
    struct block *blocks; /* of batch `base` + i at [head + i] */
    uint32_t block_cap, head, count;
    uint64_t base, first; /* first: below it batches are dropped, though still here */
    struct sel_journal_link mark;
    struct write *writes; /* since the last sync */
    uint32_t write_cap, write_count;
    bool lost_power; /* since the last sync */
    uint64_t bytes;  /* stored, of batches from `first` on */
    uint64_t bytes_max;
    uint64_t write_total, fail_at; /* fail_at 0: none */
    int fail_code;
    struct mem_journal *owner;
};

static struct mem_journal *mem_of(struct sel_journal *j)
{
    return (struct mem_journal *)j; /* its first member */
}

/* ---- blocks ---- */

/* Of a batch that is on the disk, dropped or not; else NULL. */
static struct block *find_block(struct sel_journal_disk *disk, uint64_t seq)
{
    if (seq < disk->base || seq - disk->base >= disk->count)
        return NULL;
    return &disk->blocks[disk->head + (uint32_t)(seq - disk->base)];
}

static void lose_block(struct block *block)
{
    block->p = sel_mem_free(block->p);
    block->n = 0;
}

static void erase_below(struct sel_journal_disk *disk, uint64_t seq)
{
    for (; disk->count > 0 && disk->base < seq; disk->base++) {
        lose_block(&disk->blocks[disk->head++]);
        disk->count--;
    }
    if (disk->head > disk->count) { /* so each block moves once, on average */
        memmove(disk->blocks, disk->blocks + disk->head, disk->count * sizeof(*disk->blocks));
        disk->head = 0;
    }
}

static void erase_above(struct sel_journal_disk *disk, uint64_t seq)
{
    while (disk->count > 0 && disk->base + disk->count - 1 > seq)
        lose_block(&disk->blocks[disk->head + --disk->count]);
}

static void count_bytes(struct sel_journal_disk *disk)
{
    disk->bytes = 0;
    for (uint64_t seq = disk->first; seq < disk->base + disk->count; seq++)
        disk->bytes += find_block(disk, seq)->n;
}

static void drop_below(struct sel_journal_disk *disk, uint64_t seq)
{
    for (; disk->first < seq; disk->first++)
        disk->bytes -= find_block(disk, disk->first)->n;
}

static int add_block(struct sel_journal_disk *disk, struct sel_journal_link *link, uint32_t flags,
                     struct sel_str batch)
{
    uint64_t need = (uint64_t)disk->head + disk->count + 1;
    if (!sel_mem_grow(&disk->blocks, &disk->block_cap, need, sizeof(*disk->blocks)))
        return SEL_ENOMEM;
    struct block block = {sel_mem_alloc(SEL_JOURNAL_HEAD_SIZE + batch.n),
                          SEL_JOURNAL_HEAD_SIZE + batch.n};
    if (!block.p)
        return SEL_ENOMEM;
    sel_journal_entry_head(block.p, link, flags, batch);
    memcpy(block.p + SEL_JOURNAL_HEAD_SIZE, batch.p, batch.n);
    disk->blocks[disk->head + disk->count++] = block;
    disk->bytes += block.n;
    return 0;
}

static void remove_above(struct sel_journal_disk *disk, uint64_t seq)
{
    erase_above(disk, seq);
    count_bytes(disk);
}

/* ---- faults ---- */

/* Each write asks here first: 0, or the code that it fails with. */
static int next_write(struct sel_journal_disk *disk)
{
    disk->write_total++;
    if (disk->fail_at == 0 || disk->write_total < disk->fail_at)
        return 0;
    int code = disk->fail_code;
    if (code != -ENOSPC)
        disk->fail_at = 0;
    return code;
}

static bool leaves_it_usable(int code)
{
    return code == -ENOSPC || code == SEL_ELIMIT;
}

static bool coin(struct sel_journal_disk *disk)
{
    return sel_prng_below(&disk->prng, 2) == 1;
}

/* Some of the sectors of a block never came to the disk, or its end did not. */
static void tear(struct sel_journal_disk *disk, struct block *block)
{
    if (!block->p)
        return;
    size_t sectors = (block->n + SECTOR - 1) / SECTOR;
    if (coin(disk)) {
        block->n = (size_t)sel_prng_below(&disk->prng, block->n);
        return;
    }
    size_t bad = (size_t)sel_prng_below(&disk->prng, sectors);
    for (size_t i = 0; i < sectors; i++) {
        size_t at = i * SECTOR, n = block->n - at < SECTOR ? block->n - at : SECTOR;
        if (i == bad || coin(disk))
            memset(block->p + at, 0, n);
    }
}

enum fate { FATE_KEPT, FATE_LOST, FATE_MIXED };

/* What a loss of power leaves of one append. */
static void settle_append(struct sel_journal_disk *disk, const struct write *write, enum fate fate)
{
    if (fate == FATE_MIXED && coin(disk))
        return;
    for (uint32_t i = 0; i < write->count; i++) {
        struct block *block = find_block(disk, write->first + i);
        if (!block)
            continue; /* dropped before it was synced */
        switch (fate == FATE_LOST ? 0 : sel_prng_below(&disk->prng, 3)) {
        case 0:
            lose_block(block);
            break;
        case 1:
            tear(disk, block);
            break;
        default:
            break;
        }
    }
}

/* Extremes are drawn as often as all between, for they are what programs get wrong. */
static enum fate draw_fate(struct sel_journal_disk *disk)
{
    uint64_t n = sel_prng_below(&disk->prng, 4);
    return n == 0 ? FATE_KEPT : n == 1 ? FATE_LOST : FATE_MIXED;
}

/* The journal is gone; what it dropped without a sync is back, unless the drop was kept. */
static void end_owner(struct sel_journal_disk *disk)
{
    if (disk->owner)
        disk->owner->is_dead = true;
    disk->owner = NULL;
    disk->first = disk->base;
}

static void cut_locked(struct sel_journal_disk *disk)
{
    enum fate fate = draw_fate(disk);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < disk->write_count; i++) {
        struct write *write = &disk->writes[i];
        if (write->count > 0 && fate != FATE_KEPT)
            settle_append(disk, write, fate);
        else if (write->count == 0 && fate != FATE_LOST && coin(disk))
            disk->writes[kept++] = *write;
    }
    disk->write_count = kept; /* drops; what became of the appends is on the disk */
    disk->lost_power = true;
    end_owner(disk);
    count_bytes(disk);
}

/* ---- writing ---- */

static int note_write(struct sel_journal_disk *disk, struct write write)
{
    if (!sel_mem_grow(&disk->writes, &disk->write_cap, (uint64_t)disk->write_count + 1,
                      sizeof(*disk->writes)))
        return SEL_ENOMEM;
    disk->writes[disk->write_count++] = write;
    return 0;
}

static int fail(struct sel_error *err, int code)
{
    const char *text =
        code == SEL_ELIMIT ? "the journal is at its size limit" : sel_error_text(code);
    return sel_error_set(err, code, nowhere, "journal in memory: %s", text);
}

static void make_durable(struct sel_journal_disk *disk, struct sel_journal_link last)
{
    erase_below(disk, disk->first);
    disk->write_count = 0;
    disk->mark = last;
    disk->lost_power = false;
}

/* A sync that fails may still have reached the disk, all of it or a part. */
static int sync_locked(struct mem_journal *j)
{
    int r = next_write(j->disk);
    if (r == 0) {
        make_durable(j->disk, j->last);
        j->syncs++;
        return 0;
    }
    if (!leaves_it_usable(r)) {
        if (coin(j->disk))
            make_durable(j->disk, j->last);
        j->is_dead = true;
    }
    return r;
}

static int add_blocks(struct mem_journal *j, const struct sel_str *batches, uint32_t count,
                      struct sel_journal_link *link)
{
    struct write write = {.first = link->seq + 1, .count = count};
    int r = note_write(j->disk, write);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = add_block(j->disk, link, i + 1 == count ? SEL_JOURNAL_COMMIT_END : 0, batches[i]);
    if (r < 0) {
        remove_above(j->disk, write.first - 1);
        j->disk->write_count--;
    }
    return r;
}

static int check_room(const struct sel_journal_disk *disk, const struct sel_str *batches,
                      uint32_t count, bool urgent)
{
    uint64_t need = disk->bytes, limit = disk->bytes_max;
    for (uint32_t i = 0; i < count; i++)
        need += SEL_JOURNAL_HEAD_SIZE + batches[i].n;
    if (!urgent)
        limit -= limit / RESERVE_PART;
    return disk->bytes_max > 0 && need > limit ? SEL_ELIMIT : 0;
}

static int append_locked(struct mem_journal *j, const struct sel_str *batches, uint32_t count,
                         bool sync, bool urgent, uint64_t *ret_last)
{
    struct sel_journal_disk *disk = j->disk;
    struct sel_journal_link link = j->last;
    if (j->is_dead)
        return -EIO;
    int r = check_room(disk, batches, count, urgent);
    if (r < 0)
        return r;
    int failure = next_write(disk);
    if (leaves_it_usable(failure))
        return failure;
    if (failure == 0 || coin(disk)) /* a failed write may have reached the disk */
        r = add_blocks(j, batches, count, &link);
    if (failure < 0)
        j->is_dead = true;
    if (failure < 0 || r < 0)
        return failure < 0 ? failure : r;
    struct sel_journal_link before = j->last;
    j->last = link;
    if (sync)
        r = sync_locked(j);
    if (leaves_it_usable(r)) {
        remove_above(disk, before.seq);
        disk->write_count--;
        j->last = before;
    }
    if (r < 0)
        return r;
    j->commits++;
    *ret_last = link.seq;
    return 0;
}

static int mem_append(struct sel_journal *journal, const struct sel_str *batches, uint32_t count,
                      bool sync, bool urgent, uint64_t *ret_last, struct sel_error *err)
{
    struct mem_journal *j = mem_of(journal);
    SEL_ASSERT(count > 0);
    pthread_mutex_lock(&j->disk->lock);
    int r = append_locked(j, batches, count, sync, urgent, ret_last);
    pthread_mutex_unlock(&j->disk->lock);
    return r < 0 ? fail(err, r) : 0;
}

static int mem_sync(struct sel_journal *journal, struct sel_error *err)
{
    struct mem_journal *j = mem_of(journal);
    int r = 0;
    pthread_mutex_lock(&j->disk->lock);
    if (j->is_dead)
        r = -EIO;
    else if (j->disk->write_count > 0)
        r = sync_locked(j);
    pthread_mutex_unlock(&j->disk->lock);
    return r < 0 ? fail(err, r) : 0;
}

static int drop_locked(struct mem_journal *j, uint64_t before)
{
    if (j->is_dead)
        return -EIO;
    if (before > j->last.seq)
        before = j->last.seq; /* the last one stays: it tells the number of the next */
    if (before <= j->disk->first)
        return 0;
    int failure = next_write(j->disk);
    if (leaves_it_usable(failure))
        return failure;
    int r = note_write(j->disk, (struct write){.first = before, .after = j->last.seq});
    if (failure < 0) {
        j->is_dead = true;
        return failure;
    }
    if (r == 0)
        drop_below(j->disk, before);
    return r;
}

static int mem_drop(struct sel_journal *journal, uint64_t before, struct sel_error *err)
{
    struct mem_journal *j = mem_of(journal);
    pthread_mutex_lock(&j->disk->lock);
    int r = drop_locked(j, before);
    pthread_mutex_unlock(&j->disk->lock);
    return r < 0 ? fail(err, r) : 0;
}

/* ---- reading ---- */

static int read_locked(struct mem_journal *j, uint64_t seq, uint64_t offset, uint64_t n,
                       struct sel_buf *buf)
{
    if (j->is_dead)
        return -EIO;
    const struct block *block = seq < j->disk->first ? NULL : find_block(j->disk, seq);
    if (!block || seq > j->last.seq)
        return SEL_ENOTFOUND;
    uint64_t size = block->n - SEL_JOURNAL_HEAD_SIZE;
    if (offset > size || n > size - offset)
        return SEL_ERANGE;
    sel_buf_put(buf, block->p + SEL_JOURNAL_HEAD_SIZE + offset, (size_t)n);
    return sel_buf_error(buf);
}

static int mem_read(struct sel_journal *journal, uint64_t seq, uint64_t offset, uint64_t n,
                    struct sel_buf *buf, struct sel_error *err)
{
    struct mem_journal *j = mem_of(journal);
    pthread_mutex_lock(&j->disk->lock);
    int r = read_locked(j, seq, offset, n, buf);
    pthread_mutex_unlock(&j->disk->lock);
    if (r == 0)
        return 0;
    return sel_error_set(err, r, nowhere, "journal in memory: batch %" PRIu64 ": %s", seq,
                         sel_error_text(r));
}

static int damaged(struct sel_error *err, uint64_t seq, const char *what)
{
    return sel_error_set(err, SEL_EFORMAT, nowhere, "journal in memory: batch %" PRIu64 " %s", seq,
                         what);
}

/* The entry of batch `seq`, which follows `link`; for the first of the disk, `link` is not known.
 * NULL, or what is wrong with it. */
static const char *check_block(struct sel_journal_disk *disk, uint64_t seq,
                               struct sel_journal_link *link, struct sel_journal_entry *ret)
{
    const struct block *block = find_block(disk, seq);
    if (!block || !block->p)
        return "is missing";
    if (sel_journal_entry_parse(block->p, block->n, ret) < 0 ||
        block->n != SEL_JOURNAL_HEAD_SIZE + ret->batch.n)
        return "is damaged";
    if (seq == disk->base)
        *link = (struct sel_journal_link){seq - 1, ret->prev};
    return sel_journal_entry_follows(ret, link) ? NULL : "does not follow the one before";
}

static int mem_walk(struct sel_journal *journal, uint64_t from, sel_journal_visit_fn visit,
                    void *ctx, struct sel_error *err)
{
    struct mem_journal *j = mem_of(journal);
    struct sel_journal_disk *disk = j->disk;
    struct sel_journal_link link = {0};
    if (j->is_dead)
        return fail(err, -EIO);
    for (uint64_t seq = disk->base; seq <= j->last.seq; seq++) {
        struct sel_journal_entry entry;
        const char *what = check_block(disk, seq, &link, &entry);
        if (what)
            return damaged(err, seq, what);
        int r = seq < from || seq < disk->first ? 0 : visit(ctx, seq, entry.batch, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void mem_stats(struct sel_journal *journal, struct sel_journal_stats *ret)
{
    struct mem_journal *j = mem_of(journal);
    struct sel_journal_disk *disk = j->disk;
    *ret = (struct sel_journal_stats){0};
    if (j->is_dead)
        return;
    pthread_mutex_lock(&disk->lock);
    uint64_t count = disk->base + disk->count - disk->first;
    *ret = (struct sel_journal_stats){
        .first = count > 0 ? disk->first : 0,
        .last = count > 0 ? j->last.seq : 0,
        .bytes_live = disk->bytes - count * SEL_JOURNAL_HEAD_SIZE,
        .bytes_used = disk->bytes,
        .bytes_limit = disk->bytes_max,
        .commits = j->commits,
        .syncs = j->syncs,
    };
    pthread_mutex_unlock(&disk->lock);
}

static void mem_close(struct sel_journal *journal)
{
    struct mem_journal *j = mem_of(journal);
    pthread_mutex_lock(&j->disk->lock);
    if (!j->is_dead && j->disk->write_count > 0)
        (void)sync_locked(j); /* what fails is found by the next open, as after a crash */
    if (j->disk->owner == j)
        end_owner(j->disk);
    pthread_mutex_unlock(&j->disk->lock);
    sel_mem_free(j);
}

static const struct sel_journal_ops ops = {
    .walk = mem_walk,
    .append = mem_append,
    .sync = mem_sync,
    .read = mem_read,
    .drop = mem_drop,
    .stats = mem_stats,
    .close = mem_close,
};

/* ---- opening ---- */

/* The end of the chain: the last batch of the last whole commit. */
static int find_end(struct sel_journal_disk *disk, struct sel_journal_link *ret,
                    struct sel_error *err)
{
    struct sel_journal_link link = disk->mark, end = disk->mark;
    const char *what = NULL;
    uint64_t seq = disk->base;
    for (; seq < disk->base + disk->count; seq++) {
        struct sel_journal_entry entry;
        what = check_block(disk, seq, &link, &entry);
        if (!what && seq == disk->mark.seq && entry.crc != disk->mark.crc)
            what = "is not the one that was synced";
        if (what)
            break;
        if (entry.flags & SEL_JOURNAL_COMMIT_END)
            end = link;
    }
    bool is_lost = disk->lost_power && seq > disk->mark.seq;
    if (what && !is_lost)
        return damaged(err, seq, what);
    *ret = end.seq < disk->mark.seq ? disk->mark : end;
    return 0;
}

static int recover(struct mem_journal *j, struct sel_error *err)
{
    struct sel_journal_disk *disk = j->disk;
    int r = find_end(disk, &j->last, err);
    if (r < 0)
        return r;
    remove_above(disk, j->last.seq);
    for (uint32_t i = 0; i < disk->write_count; i++) {
        const struct write *write = &disk->writes[i];
        if (write->count == 0 && write->after <= j->last.seq)
            drop_below(disk, write->first);
    }
    if (disk->write_count == 0 && !disk->lost_power)
        return 0;
    r = sync_locked(j); /* numbers will be given anew: what they were before must be gone */
    return r < 0 ? fail(err, r) : 0;
}

int sel_journal_mem_open(struct sel_journal_disk *disk, struct sel_journal **ret,
                         struct sel_error *err)
{
    if (disk->owner)
        return fail(err, -EAGAIN);
    struct mem_journal *j = SEL_NEW(struct mem_journal);
    if (!j)
        return fail(err, SEL_ENOMEM);
    j->journal.ops = &ops;
    j->disk = disk;
    pthread_mutex_lock(&disk->lock);
    int r = recover(j, err);
    if (r == 0)
        disk->owner = j;
    pthread_mutex_unlock(&disk->lock);
    if (r < 0) {
        sel_mem_free(j);
        return r;
    }
    *ret = &j->journal;
    return 0;
}

/* ---- the disk ---- */

struct sel_journal_disk *sel_journal_disk_new(uint64_t seed)
{
    struct sel_journal_disk *disk = SEL_NEW(struct sel_journal_disk);
    if (!disk)
        return NULL;
    pthread_mutex_init(&disk->lock, NULL); /* cannot fail with these attributes */
    disk->prng.state = seed;
    disk->base = disk->first = 1;
    return disk;
}

struct sel_journal_disk *sel_journal_disk_free(struct sel_journal_disk *disk)
{
    if (!disk)
        return NULL;
    SEL_ASSERT(!disk->owner);
    erase_above(disk, 0);
    sel_mem_free(disk->blocks);
    sel_mem_free(disk->writes);
    pthread_mutex_destroy(&disk->lock);
    return sel_mem_free(disk);
}

void sel_journal_disk_cut(struct sel_journal_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    cut_locked(disk);
    pthread_mutex_unlock(&disk->lock);
}

void sel_journal_disk_kill(struct sel_journal_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    end_owner(disk);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < disk->write_count; i++) {
        if (disk->writes[i].count > 0 || coin(disk)) /* of a drop nothing was promised */
            disk->writes[kept++] = disk->writes[i];
    }
    disk->write_count = kept;
    count_bytes(disk);
    pthread_mutex_unlock(&disk->lock);
}

void sel_journal_disk_fail(struct sel_journal_disk *disk, uint64_t n, int code)
{
    pthread_mutex_lock(&disk->lock);
    disk->fail_at = n > 0 ? disk->write_total + n : 0;
    disk->fail_code = code;
    pthread_mutex_unlock(&disk->lock);
}

void sel_journal_disk_limit(struct sel_journal_disk *disk, uint64_t bytes_max)
{
    pthread_mutex_lock(&disk->lock);
    disk->bytes_max = bytes_max;
    pthread_mutex_unlock(&disk->lock);
}

uint64_t sel_journal_disk_writes(const struct sel_journal_disk *disk)
{
    return disk->write_total;
}

void sel_journal_disk_damage(struct sel_journal_disk *disk, uint64_t seq, uint64_t bit)
{
    pthread_mutex_lock(&disk->lock);
    struct block *block = find_block(disk, seq);
    if (block && block->n > 0) {
        bit %= (uint64_t)block->n * 8;
        block->p[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    pthread_mutex_unlock(&disk->lock);
}
