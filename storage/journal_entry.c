#include "storage/journal_entry.h"

#include <endian.h>
#include <string.h>

#include "core/error.h"
#include "storage/crc.h"
#include "storage/journal.h"

#define MAGIC UINT32_C(0x314a4c53) /* "SLJ1" */

enum {
    AT_MAGIC = 0,
    AT_CRC = 4,
    AT_SEQ = 8,
    AT_LENGTH = 16,
    AT_PREV = 20,
    AT_FLAGS = 24,
    AT_HEAD = 28
};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static uint32_t checksum(const uint8_t head[SEL_JOURNAL_HEAD_SIZE], struct sel_str batch)
{
    uint32_t crc = sel_crc32c(0, head + AT_SEQ, AT_HEAD - AT_SEQ);
    return sel_crc32c(crc, batch.p, batch.n);
}

void sel_journal_entry_head(uint8_t head[SEL_JOURNAL_HEAD_SIZE], struct sel_journal_link *link,
                            uint32_t flags, struct sel_str batch)
{
    SEL_ASSERT(batch.n > 0 && batch.n <= SEL_JOURNAL_BATCH_MAX);
    uint64_t seq = htole64(link->seq + 1);
    memset(head, 0, SEL_JOURNAL_HEAD_SIZE);
    put32(head + AT_MAGIC, MAGIC);
    memcpy(head + AT_SEQ, &seq, sizeof(seq));
    put32(head + AT_LENGTH, (uint32_t)batch.n);
    put32(head + AT_PREV, link->crc);
    put32(head + AT_FLAGS, flags);
    link->seq++;
    link->crc = checksum(head, batch);
    put32(head + AT_CRC, link->crc);
    put32(head + AT_HEAD, sel_crc32c(0, head, AT_HEAD));
}

int sel_journal_entry_parse(const uint8_t *p, size_t n, struct sel_journal_entry *ret)
{
    if (n < SEL_JOURNAL_HEAD_SIZE)
        return SEL_ERANGE;
    uint32_t length = get32(p + AT_LENGTH);
    if (get32(p + AT_MAGIC) != MAGIC || get32(p + AT_HEAD) != sel_crc32c(0, p, AT_HEAD) ||
        length == 0 || length > SEL_JOURNAL_BATCH_MAX)
        return SEL_EFORMAT;
    if (length > n - SEL_JOURNAL_HEAD_SIZE)
        return SEL_ERANGE;
    uint64_t seq;
    memcpy(&seq, p + AT_SEQ, sizeof(seq));
    struct sel_journal_entry entry = {
        .seq = le64toh(seq),
        .crc = get32(p + AT_CRC),
        .prev = get32(p + AT_PREV),
        .flags = get32(p + AT_FLAGS),
        .batch = {(const char *)p + SEL_JOURNAL_HEAD_SIZE, length},
    };
    if (entry.seq == 0 || checksum(p, entry.batch) != entry.crc)
        return SEL_EFORMAT;
    *ret = entry;
    return 0;
}

bool sel_journal_entry_follows(const struct sel_journal_entry *entry, struct sel_journal_link *link)
{
    if (entry->seq != link->seq + 1 || entry->prev != link->crc)
        return false;
    *link = (struct sel_journal_link){entry->seq, entry->crc};
    return true;
}
