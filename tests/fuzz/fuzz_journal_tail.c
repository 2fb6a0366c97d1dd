#include <string.h>

#include "core/mem.h"
#include "storage/journal.h"
#include "storage/journal_tail.h"

/* Bytes as a tail: whatever is visited follows, in whole commits, and nothing is read beyond them.
 * Bytes as batches: they come back, and after a cut as many commits as are whole. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct sel_journal_link link;
    uint32_t count, in_commit;
    uint64_t crc_sum;
};

static int visit(void *ctx, const struct sel_journal_entry *entry)
{
    struct seen *seen = ctx;
    SEL_ASSERT(sel_journal_entry_follows(entry, &seen->link));
    SEL_ASSERT(entry->batch.n > 0);
    seen->count++;
    seen->in_commit++;
    if (entry->flags & SEL_JOURNAL_COMMIT_END)
        seen->in_commit = 0;
    for (size_t i = 0; i < entry->batch.n; i++)
        seen->crc_sum += (uint8_t)entry->batch.p[i]; /* each byte is there */
    return 0;
}

static uint32_t parse(const uint8_t *p, size_t n, bool is_same_boot, struct sel_journal_link stored)
{
    struct seen seen = {.link = stored};
    size_t at = 0;
    int r = sel_journal_tail_parse(p, n, is_same_boot, &stored, visit, &seen, &at);
    SEL_ASSERT(r == 0 || (r == SEL_EFORMAT && is_same_boot && at < n));
    SEL_ASSERT(seen.in_commit == 0 && seen.link.seq == stored.seq);
    SEL_ASSERT(r == 0 || seen.count == 0); /* damage is known before anything is taken */
    return seen.count;
}

static void parse_anything(const uint8_t *data, size_t size)
{
    struct sel_journal_tail_head head;
    struct sel_journal_link none = {0}, some = {0, 0};
    uint8_t again[SEL_JOURNAL_TAIL_HEAD];
    if (size >= SEL_JOURNAL_TAIL_HEAD && sel_journal_tail_head_decode(data, &head) == 0) {
        sel_journal_tail_head_encode(&head, again);
        SEL_ASSERT(sel_journal_tail_head_decode(again, &head) == 0);
        some = head.synced;
        data += SEL_JOURNAL_TAIL_HEAD;
        size -= SEL_JOURNAL_TAIL_HEAD;
    }
    for (int i = 0; i < 2; i++) {
        (void)parse(data, size, i == 0, none);
        (void)parse(data, size, i == 0, some);
    }
}

/* A batch for each byte, of so many bytes; every third ends a commit. */
static void build_and_cut(const uint8_t *data, size_t size)
{
    uint8_t out[16384];
    size_t n = 0, ends[64];
    uint32_t count = 0, whole[64], commits = 0;
    struct sel_journal_link link = {0};
    for (size_t i = 0; i < size && count < 64; i++) {
        struct sel_str batch = {(const char *)data, data[i] % (size + 1)};
        if (batch.n == 0 || batch.n > sizeof(out) - n ||
            sizeof(out) - n - batch.n < SEL_JOURNAL_HEAD_SIZE)
            continue;
        bool is_end = data[i] % 3 == 0;
        sel_journal_entry_head(out + n, &link, is_end ? SEL_JOURNAL_COMMIT_END : 0, batch);
        memcpy(out + n + SEL_JOURNAL_HEAD_SIZE, batch.p, batch.n);
        n += SEL_JOURNAL_HEAD_SIZE + batch.n;
        count++;
        if (is_end) {
            ends[commits] = n;
            whole[commits++] = count;
        }
    }
    struct sel_journal_link none = {0};
    uint32_t expected = 0;
    size_t cut = n ? (size_t)data[size / 2] * 37 % (n + 1) : 0;
    for (uint32_t i = 0; i < commits && ends[i] <= cut; i++)
        expected = whole[i];
    SEL_ASSERT(parse(out, n, true, none) == (commits ? whole[commits - 1] : 0));
    SEL_ASSERT(parse(out, cut, true, none) == expected);
    SEL_ASSERT(parse(out, cut, false, none) == expected);
    if (cut < n) {
        out[cut] ^= (uint8_t)(1 + data[0] % 255);
        (void)parse(out, n, true, none);
        SEL_ASSERT(parse(out, n, false, none) == expected);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse_anything(data, size);
    build_and_cut(data, size);
    return 0;
}
