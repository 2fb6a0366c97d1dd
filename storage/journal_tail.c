#include "storage/journal_tail.h"

#include <endian.h>
#include <string.h>

#include "storage/crc.h"
#include "storage/journal.h"

static const char magic[8] = "seltail\n";

enum { AT_FORMAT = 8, AT_BOOT = 16, AT_SEQ = 32, AT_SEQ_CRC = 40, AT_CRC = 60 };

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

void sel_journal_tail_head_encode(const struct sel_journal_tail_head *head,
                                  uint8_t out[SEL_JOURNAL_TAIL_HEAD])
{
    uint64_t seq = htole64(head->synced.seq);
    memset(out, 0, SEL_JOURNAL_TAIL_HEAD);
    memcpy(out, magic, sizeof(magic));
    put32(out + AT_FORMAT, head->format);
    memcpy(out + AT_BOOT, head->boot, sizeof(head->boot));
    memcpy(out + AT_SEQ, &seq, sizeof(seq));
    put32(out + AT_SEQ_CRC, head->synced.crc);
    put32(out + AT_CRC, sel_crc32c(0, out, AT_CRC));
}

int sel_journal_tail_head_decode(const uint8_t in[SEL_JOURNAL_TAIL_HEAD],
                                 struct sel_journal_tail_head *ret)
{
    if (memcmp(in, magic, sizeof(magic)) != 0 || get32(in + AT_CRC) != sel_crc32c(0, in, AT_CRC))
        return SEL_EFORMAT;
    uint32_t format = get32(in + AT_FORMAT);
    *ret = (struct sel_journal_tail_head){.format = format};
    if (format != SEL_JOURNAL_FORMAT)
        return format > SEL_JOURNAL_FORMAT ? SEL_EVERSION : SEL_EFORMAT;
    uint64_t seq;
    memcpy(&seq, in + AT_SEQ, sizeof(seq));
    memcpy(ret->boot, in + AT_BOOT, sizeof(ret->boot));
    ret->synced = (struct sel_journal_link){le64toh(seq), get32(in + AT_SEQ_CRC)};
    return 0;
}

/* The end of the last whole commit of a chain that goes on from `link`; what came before `link` is
 * passed over. Sets *ret_begin to where the chain begins, *ret_bad to the entry that is not right
 * (n: none). */
static size_t find_end(const uint8_t *p, size_t n, struct sel_journal_link link, size_t *ret_begin,
                       size_t *ret_bad)
{
    size_t at = 0, end = 0;
    const uint64_t stored = link.seq;
    struct sel_journal_entry entry;
    *ret_begin = 0;
    *ret_bad = n;
    while (at < n) {
        int r = sel_journal_entry_parse(p + at, n - at, &entry);
        if (r == SEL_ERANGE)
            break; /* the process died while it wrote this one */
        /* Such come first: the process died before it cut them off. */
        bool is_stored = r == 0 && entry.seq <= stored && link.seq == stored;
        if (r < 0 || (!is_stored && !sel_journal_entry_follows(&entry, &link))) {
            *ret_bad = at;
            break;
        }
        at += SEL_JOURNAL_HEAD_SIZE + entry.batch.n;
        if (is_stored)
            *ret_begin = end = at;
        else if (entry.flags & SEL_JOURNAL_COMMIT_END)
            end = at;
    }
    return end;
}

int sel_journal_tail_parse(const uint8_t *p, size_t n, bool is_same_boot,
                           struct sel_journal_link *stored, sel_journal_tail_fn visit, void *ctx,
                           size_t *ret_at)
{
    size_t at, bad, end = find_end(p, n, *stored, &at, &bad);
    if (bad < n && is_same_boot) {
        *ret_at = bad;
        return SEL_EFORMAT;
    }
    while (at < end) {
        struct sel_journal_entry entry;
        int r = sel_journal_entry_parse(p + at, end - at, &entry);
        SEL_ASSERT(r == 0 && sel_journal_entry_follows(&entry, stored)); /* as find_end saw it */
        r = visit(ctx, &entry);
        if (r < 0)
            return r;
        at += SEL_JOURNAL_HEAD_SIZE + entry.batch.n;
    }
    return 0;
}
