/* tests/support/journal.h - what the tests of the journal share: batches whose content follows from
 * their number, so that any batch can be checked wherever it turns up. */
#ifndef SEL_TESTS_SUPPORT_JOURNAL_H
#define SEL_TESTS_SUPPORT_JOURNAL_H

#include <stdio.h>

#include "core/prng.h"
#include "storage/journal.h"
#include "tests/support/test.h"

/* Most batches are small, some have pages of their own, a few are large. */
static inline size_t sel_test_batch_size(uint64_t seq)
{
    struct sel_prng prng = {seq};
    uint64_t n = sel_prng_below(&prng, 100);
    return 1 + (size_t)sel_prng_below(&prng, n < 70 ? 300 : n < 95 ? 6000 : 40000);
}

static inline uint8_t sel_test_batch_byte(uint64_t seq, uint64_t i)
{
    return (uint8_t)((seq * UINT64_C(0x9e3779b97f4a7c15) >> 32) + i * 31 + (i >> 8));
}

/* In memory of its own; freed by the caller. */
static inline struct sel_str sel_test_batch_of(uint64_t seq, size_t n)
{
    uint8_t *p = sel_mem_alloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = sel_test_batch_byte(seq, i);
    return (struct sel_str){(const char *)p, n};
}

static inline void sel_test_batch_free(struct sel_str batch)
{
    sel_mem_free((void *)(uintptr_t)batch.p);
}

static inline bool sel_test_batch_is(uint64_t seq, uint64_t offset, struct sel_str part)
{
    for (size_t i = 0; i < part.n; i++)
        if ((uint8_t)part.p[i] != sel_test_batch_byte(seq, offset + i))
            return false;
    return true;
}

/* Appends `count` (up to 16) of them behind batch `last`. */
static inline int sel_test_append(struct sel_journal *j, uint64_t last, uint32_t count, bool sync,
                                  bool urgent, struct sel_error *err)
{
    struct sel_str batches[16] = {0};
    uint64_t got = 0;
    for (uint32_t i = 0; i < count; i++)
        batches[i] = sel_test_batch_of(last + 1 + i, sel_test_batch_size(last + 1 + i));
    int r = j->ops->append(j, batches, count, sync, urgent, &got, err);
    for (uint32_t i = 0; i < count; i++)
        sel_test_batch_free(batches[i]);
    if (r == 0 && got != last + count)
        fail_msg("appended up to %llu, expected %llu", (unsigned long long)got,
                 (unsigned long long)(last + count));
    return r;
}

static inline void sel_test_append_ok(struct sel_journal *j, uint64_t last, uint32_t count,
                                      bool sync)
{
    struct sel_error err = {0};
    if (sel_test_append(j, last, count, sync, false, &err) < 0)
        fail_msg("%s", err.text);
}

struct sel_test_walk {
    uint64_t first, last; /* both 0: none */
    bool is_wrong;        /* a gap, or content that is not of its number */
    size_t size;          /* of all batches, if not by sel_test_batch_size */
};

static inline int sel_test_visit(void *ctx, uint64_t seq, struct sel_str batch,
                                 struct sel_error *err)
{
    struct sel_test_walk *walk = ctx;
    (void)err;
    if (walk->first == 0)
        walk->first = seq;
    else if (seq != walk->last + 1)
        walk->is_wrong = true;
    walk->last = seq;
    if (batch.n != (walk->size ? walk->size : sel_test_batch_size(seq)) ||
        !sel_test_batch_is(seq, 0, batch))
        walk->is_wrong = true;
    return 0;
}

/* The journal holds first to last, as walked and as read. */
static inline void sel_test_holds(struct sel_journal *j, uint64_t first, uint64_t last)
{
    struct sel_test_walk walk = {0};
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    if (j->ops->walk(j, 0, sel_test_visit, &walk, &err) < 0)
        fail_msg("%s", err.text);
    assert_false(walk.is_wrong);
    if (walk.first != first || walk.last != last)
        fail_msg("holds %llu to %llu, expected %llu to %llu", (unsigned long long)walk.first,
                 (unsigned long long)walk.last, (unsigned long long)first,
                 (unsigned long long)last);
    for (uint64_t seq = first; seq <= last && last > 0; seq++) {
        sel_buf_clear(&buf);
        if (j->ops->read(j, seq, 0, sel_test_batch_size(seq), &buf, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(sel_test_batch_is(seq, 0, sel_buf_str(&buf)));
    }
    sel_buf_done(&buf);
}

#endif
