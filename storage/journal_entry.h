/* storage/journal_entry.h - the stored form of a batch: a head of 32 bytes, then its bytes.
 *
 *   0  u32 magic      8  u64 seq       20  u32 checksum of the batch before
 *   4  u32 checksum  16  u32 length    24  u32 flags       28  u32 checksum of bytes 0 to 27
 *
 * Little-endian. The checksum (CRC-32C) at 4 is of bytes 8 to 27 and of the batch, so that it
 * covers the one of the batch before, and with it all of the chain. That of the head alone tells
 * an entry that was cut off from one whose length is damaged. Pure. */
#ifndef SEL_STORAGE_JOURNAL_ENTRY_H
#define SEL_STORAGE_JOURNAL_ENTRY_H

#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/str.h"

#define SEL_JOURNAL_HEAD_SIZE ((size_t)32)
#define SEL_JOURNAL_COMMIT_END 1u /* flag: the last batch of its commit */

struct sel_journal_entry {
    uint64_t seq;
    uint32_t crc, prev, flags;
    struct sel_str batch;
};

/* The last batch of a chain; zeroed: nothing was ever appended. */
struct sel_journal_link {
    uint64_t seq;
    uint32_t crc;
};

/* Makes the head of the batch that follows `link`, and moves `link` to it. */
void sel_journal_entry_head(uint8_t head[SEL_JOURNAL_HEAD_SIZE], struct sel_journal_link *link,
                            uint32_t flags, struct sel_str batch);

/* The entry that p[0..n) begins with; `ret->batch` points into it. 0; SEL_ERANGE: its head is
 * right, or goes on behind n itself, and so does the batch; SEL_EFORMAT: no entry, or damaged. */
int sel_journal_entry_parse(const uint8_t *p, size_t n,
                            struct sel_journal_entry *ret) SEL_WARN_UNUSED;

/* Whether `entry` follows `link`, and moves `link` to it; the first of all follows a zeroed one. */
bool sel_journal_entry_follows(const struct sel_journal_entry *entry,
                               struct sel_journal_link *link);

#endif
