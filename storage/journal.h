/* storage/journal.h - the broker's journal: batches appended atomically, walked from the oldest.
 *
 * A batch is opaque bytes under a consecutive sequence number, from 1; it is written whole or not
 * at all, with its length, its checksum and the checksum of the batch before, so that damage is
 * found by walking the chain. Live state is the owner's, in memory; the owner copies forward what
 * is still needed and then drops the oldest batches.
 *
 * Backends: LMDB (journal_lmdb.c) and memory with injected faults (journal_mem.c). append, sync,
 * drop and close belong to one thread at a time and may block; read and stats to one other thread,
 * which may call them at the same time as those (not close). walk comes before both. */
#ifndef SEL_STORAGE_JOURNAL_H
#define SEL_STORAGE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/str.h"

struct sel_journal;

#define SEL_JOURNAL_FORMAT 1
#define SEL_JOURNAL_BATCH_MAX ((size_t)64 << 20)

/* Called for each batch of a walk, in order; `batch` lives for the call. < 0 ends the walk with
 * that code. */
typedef int (*sel_journal_visit_fn)(void *ctx, uint64_t seq, struct sel_str batch,
                                    struct sel_error *err);

struct sel_journal_stats {
    uint64_t first, last; /* sequence numbers kept; both 0: empty */
    uint64_t bytes_live;  /* of the batches kept */
    uint64_t bytes_used;  /* of the medium */
    uint64_t bytes_limit; /* 0: none but the disk's */
    uint64_t commits, syncs;
};

struct sel_journal_ops {
    /* Visits all batches from `from` (0: the first kept), verifying the chain.
     * 0; SEL_EFORMAT: `err` names the batch and the damage; the visitor's code. */
    int (*walk)(struct sel_journal *j, uint64_t from, sel_journal_visit_fn visit, void *ctx,
                struct sel_error *err);
    /* Appends `count` batches (none empty, none over SEL_JOURNAL_BATCH_MAX) as one commit, of which
     * a crash leaves all or none; *ret_last is the number of the last. With `sync` they and all
     * before them survive the loss of the machine's power when it returns; without, that of the
     * process only. `urgent` may use the reserve.
     *
     * -ENOSPC or SEL_ELIMIT (the size limit): nothing was appended, try again when there is room.
     * Other codes (-EIO): whether it was appended is not known and the object is unusable; close
     * it, start over from a walk. */
    int (*append)(struct sel_journal *j, const struct sel_str *batches, uint32_t count, bool sync,
                  bool urgent, uint64_t *ret_last, struct sel_error *err);
    /* Everything appended so far survives the loss of power when it returns. As append. */
    int (*sync)(struct sel_journal *j, struct sel_error *err);
    /* Appends bytes [offset, offset + n) of a batch to `buf`. SEL_ENOTFOUND: the batch was dropped
     * or never was; SEL_ERANGE: it is shorter; SEL_ENOMEM; -EIO. Its checksum is not looked at. */
    int (*read)(struct sel_journal *j, uint64_t seq, uint64_t offset, uint64_t n,
                struct sel_buf *buf, struct sel_error *err);
    /* Batches below `before` are no longer needed; they go with this call or with later appends,
     * and may be back after a crash, but never go before what was appended until now is as safe as
     * they were. The last batch always stays. As append; nothing is lost if it fails. */
    int (*drop)(struct sel_journal *j, uint64_t before, struct sel_error *err);
    void (*stats)(struct sel_journal *j, struct sel_journal_stats *ret);
    /* Frees j. What was appended without sync is synced if the medium lets it. */
    void (*close)(struct sel_journal *j);
};

struct sel_journal {
    const struct sel_journal_ops *ops;
};

struct sel_journal_lmdb_options {
    const char *path;  /* a folder, made if missing (not with read_only) */
    uint64_t size_max; /* bytes of the medium; 0: 64 GiB of address space, used as needed */
    uint64_t reserve;  /* bytes that only `urgent` appends may use; 0: 64 MiB, or 1/8 of size_max */
    bool read_only;    /* for tools */
};

/* Checks format and size of the files before anything is mapped, and walks the chain before it
 * returns. SEL_EFORMAT (damaged or foreign; `err` says which file or batch, where, and what to do),
 * SEL_EVERSION (newer than this program), -EAGAIN (another process has it), -errno. */
int sel_journal_lmdb_open(const struct sel_journal_lmdb_options *options, struct sel_journal **ret,
                          struct sel_error *err) SEL_WARN_UNUSED;

/* Writes the folder's data anew, without the free pages in it, and puts it in place of the old
 * at once; nobody else may have it open. The sizes of the file in bytes are set on success. Codes
 * as open. */
int sel_journal_lmdb_compact(const char *path, uint64_t *ret_before, uint64_t *ret_after,
                             struct sel_error *err) SEL_WARN_UNUSED;

/* ---- memory, with faults ---- */

/* The medium; outlives the journals that are opened on it. Every append and drop is a write, which
 * becomes durable with a sync; a sync is a write too, of a mark of how far it came. An append with
 * `sync` makes two. An open that finds what was not synced makes one. */
struct sel_journal_disk;
struct sel_journal_disk *sel_journal_disk_new(uint64_t seed);                  /* NULL: no memory */
struct sel_journal_disk *sel_journal_disk_free(struct sel_journal_disk *disk); /* returns NULL */
/* Walks the chain as sel_journal_lmdb_open does; one journal at a time on a disk. */
int sel_journal_mem_open(struct sel_journal_disk *disk, struct sel_journal **ret,
                         struct sel_error *err) SEL_WARN_UNUSED;
/* The power fails: of the writes that were not synced any subset that a disk may keep stays, as the
 * seed draws; a write may be torn. A journal open on it is dead (-EIO) and is to be closed. */
void sel_journal_disk_cut(struct sel_journal_disk *disk);
/* The process dies: as cut, but all that append has returned for stays. */
void sel_journal_disk_kill(struct sel_journal_disk *disk);
/* The n-th write from now (1: the next) fails with `code`: with -ENOSPC nothing was written, and
 * all further ones fail too until this is called again; with another it fails once, whether it was
 * written the seed draws, and the journal is unusable. n == 0: none. */
void sel_journal_disk_fail(struct sel_journal_disk *disk, uint64_t n, int code);
/* Bytes that it holds at most, heads of batches included, the last eighth for urgent appends; 0: no
 * limit. */
void sel_journal_disk_limit(struct sel_journal_disk *disk, uint64_t bytes_max);
/* Number of writes so far, for tests that cut after each. */
uint64_t sel_journal_disk_writes(const struct sel_journal_disk *disk);
/* Flips bit `bit` of the stored form of a kept batch, header included. */
void sel_journal_disk_damage(struct sel_journal_disk *disk, uint64_t seq, uint64_t bit);

#endif
