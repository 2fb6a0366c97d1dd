/* storage/journal_tail.h - the file `tail` of a journal: batches that no sync has asked for yet.
 *
 * A head of 64 bytes, then entries (journal_entry.h) one after the other. It is written without a
 * sync: what is in it survives the process, but not the loss of power.
 *
 *   0  "seltail\n"   8  u32 format   16  id of the machine's boot, 16 bytes   32  u64 seq
 *  40  u32 checksum of that batch   60  u32 checksum of bytes 0 to 59, the others of which are zero
 *
 * The batch in the head is one that was synced elsewhere, to data.mdb: that can never end before
 * it. The boot tells what an entry that is missing or damaged means: within one boot only the last
 * append may be cut off, because the process died in it; after another anything may be gone. */
#ifndef SEL_STORAGE_JOURNAL_TAIL_H
#define SEL_STORAGE_JOURNAL_TAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "storage/journal_entry.h"

#define SEL_JOURNAL_TAIL_HEAD ((size_t)64)
#define SEL_JOURNAL_TAIL_MAX ((uint64_t)256 << 20) /* bytes of the file; writers end far below */
#define SEL_JOURNAL_BOOT_SIZE 16

struct sel_journal_tail_head {
    uint32_t format;
    uint8_t boot[SEL_JOURNAL_BOOT_SIZE];
    struct sel_journal_link synced; /* zero: nothing yet */
};

void sel_journal_tail_head_encode(const struct sel_journal_tail_head *head,
                                  uint8_t out[SEL_JOURNAL_TAIL_HEAD]);
/* 0; SEL_EFORMAT; SEL_EVERSION: right, but of a newer format, which alone is set. */
int sel_journal_tail_head_decode(const uint8_t in[SEL_JOURNAL_TAIL_HEAD],
                                 struct sel_journal_tail_head *ret) SEL_WARN_UNUSED;

/* Called for each entry that goes on from `stored`, in order; < 0 ends it. */
typedef int (*sel_journal_tail_fn)(void *ctx, const struct sel_journal_entry *entry);

/* The entries p[0..n) behind a head, of which those up to `*stored` are in data.mdb; `*stored`
 * moves to the last of those that were visited. Only whole commits are visited.
 *
 * 0; SEL_EFORMAT: damaged, *ret_at says where (only if `is_same_boot`; else the first that is not
 * right is the end); the code of `visit`. */
int sel_journal_tail_parse(const uint8_t *p, size_t n, bool is_same_boot,
                           struct sel_journal_link *stored, sel_journal_tail_fn visit, void *ctx,
                           size_t *ret_at) SEL_WARN_UNUSED;

#endif
