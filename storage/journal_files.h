/* storage/journal_files.h - the files of a journal's folder, but for what LMDB does with data.mdb.
 *
 *   data.mdb  the batches, as values of LMDB under their numbers; 0 is the format (format record)
 *   lock.mdb  LMDB's
 *   tail      batches that no sync has asked for yet (journal_tail.h)
 *   ballast   room on the disk that is given up for urgent appends when there is no other
 *   lock      of the process that has the journal open
 *
 * Functions block; one thread at a time. */
#ifndef SEL_STORAGE_JOURNAL_FILES_H
#define SEL_STORAGE_JOURNAL_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "storage/journal.h"
#include "storage/journal_entry.h"
#include "storage/journal_pages.h"
#include "storage/journal_tail.h"

#define SEL_JOURNAL_FORMAT_SIZE 24 /* of the format record */

struct sel_journal_files {
    bool is_read_only;
    char path[PATH_MAX];                                  /* of the folder */
    char data_path[PATH_MAX];                             /* of data.mdb */
    int folder_fd, lock_fd, data_fd, tail_fd, ballast_fd; /* -1: not open */
    uint64_t tail_size;                                   /* 0: there is none yet */
    struct sel_journal_tail_head tail;
    bool is_same_boot;              /* the tail is of this boot */
    uint64_t ballast_size;          /* 0: none is wanted, or the file system makes none */
    bool has_ballast;               /* it is there in full */
    struct sel_journal_pages pages; /* as of the last walk */
};

/* Opens the folder (unless `read_only` it is made if missing), locks it, and looks at the tail.
 * data.mdb is opened if it is there. 0; < 0 with `err` as sel_journal_lmdb_open. In any case
 * sel_journal_files_close follows. */
int sel_journal_files_open(struct sel_journal_files *files, const char *path, bool read_only,
                           struct sel_error *err) SEL_WARN_UNUSED;
void sel_journal_files_close(struct sel_journal_files *files);

void sel_journal_files_encode_format(uint8_t out[SEL_JOURNAL_FORMAT_SIZE]);
/* `name` of the folder, a whole new data.mdb, takes the place of the one that is there, or of
 * none, and is opened. Survives the loss of power when it returns. 0 or -errno. */
int sel_journal_files_adopt(struct sel_journal_files *files, const char *name) SEL_WARN_UNUSED;

struct sel_journal_found {
    uint64_t first; /* 0: none */
    struct sel_journal_link last;
};

/* Checks data.mdb and visits (`visit` may be NULL) the batches in it from `from`. Codes as walk;
 * *ret is set on success. */
int sel_journal_files_walk(struct sel_journal_files *files, uint64_t from,
                           sel_journal_visit_fn visit, void *ctx, struct sel_journal_found *ret,
                           struct sel_error *err) SEL_WARN_UNUSED;
/* Visits what the tail has behind `*stored`, and moves that. 0; SEL_EFORMAT and others with `err`,
 * or what `visit` returned. */
int sel_journal_files_walk_tail(struct sel_journal_files *files, struct sel_journal_link *stored,
                                sel_journal_tail_fn visit, void *ctx,
                                struct sel_error *err) SEL_WARN_UNUSED;

/* Begins a new tail, of this boot, which the functions below write to. It takes the place of the
 * old one, whole and synced, with `adopt`. 0 or -errno. */
int sel_journal_files_new_tail(struct sel_journal_files *files,
                               struct sel_journal_link stored) SEL_WARN_UNUSED;
int sel_journal_files_adopt_tail(struct sel_journal_files *files) SEL_WARN_UNUSED;
/* Appends entries; all or none. 0; -ENOSPC; other -errno: what is in the file is not known. */
int sel_journal_files_write_tail(struct sel_journal_files *files, const uint8_t *p,
                                 size_t n) SEL_WARN_UNUSED;
/* What was written to it survives the loss of power. 0 or -errno. */
int sel_journal_files_sync_tail(struct sel_journal_files *files) SEL_WARN_UNUSED;
/* What the tail has is in data.mdb now, up to `stored`, and synced. Never fails: entries that stay
 * are passed over at the next start. */
void sel_journal_files_cut_tail(struct sel_journal_files *files, struct sel_journal_link stored);

/* Makes sure of a ballast of `size` bytes. 0; -ENOSPC: there is no room; -EOPNOTSUPP: this file
 * system cannot, so that none is wanted from now on; other -errno. */
int sel_journal_files_make_ballast(struct sel_journal_files *files, uint64_t size);
/* Gives it up; false: there was none. */
bool sel_journal_files_give_ballast(struct sel_journal_files *files);

#endif
