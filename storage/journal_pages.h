/* storage/journal_pages.h - the pages of a journal's data.mdb, read and checked without LMDB.
 *
 * LMDB 0.9 has no checksums and believes what it maps: a wrong page number ends in SIGBUS, or in
 * somebody else's bytes. So before it may map the file, everything that it will follow is checked
 * here: both trees (the batches, and the lists of free pages), that no page is used twice or is
 * used and free, and that the sums agree with what the tree says of itself. The bytes of the
 * batches have checksums of their own (journal_entry.h). Pure: the file is read by a function that
 * is passed in. */
#ifndef SEL_STORAGE_JOURNAL_PAGES_H
#define SEL_STORAGE_JOURNAL_PAGES_H

#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/str.h"

/* Where the value of a key is in the file. */
struct sel_journal_place {
    uint64_t key, offset;
    uint32_t size;
    uint32_t pages; /* of its own, which begin 16 bytes before it; 0: it lies within a tree page */
};

struct sel_journal_pages {
    const char *path; /* for messages */
    uint64_t size;    /* of the file */
    /* Exactly n bytes at `offset`; 0 or -errno. */
    int (*read)(void *ctx, uint64_t offset, void *p, size_t n);
    void *ctx;

    /* Filled by the scan, in the order of the keys. */
    struct sel_journal_place *places;
    uint32_t place_cap, place_count;
    uint32_t page_size;
    uint64_t last_page, txn, pages_used;
};

/* What is above the blank line is set, the rest zero. 0; SEL_EFORMAT (damaged, or the file of
 * another program), SEL_EVERSION (of another LMDB), SEL_ENOMEM, -errno: `err` says it. */
int sel_journal_pages_scan(struct sel_journal_pages *pages, struct sel_error *err) SEL_WARN_UNUSED;
/* The value of place `i`, in `buf`, whose content goes. As the scan. */
int sel_journal_pages_load(const struct sel_journal_pages *pages, uint32_t i, struct sel_buf *buf,
                           struct sel_str *ret, struct sel_error *err) SEL_WARN_UNUSED;
void sel_journal_pages_done(struct sel_journal_pages *pages);

#endif
