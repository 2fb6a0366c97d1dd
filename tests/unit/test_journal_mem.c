/* The faults of the journal in memory: what they may take away, and what never. */
#include <errno.h>

#include "storage/journal.h"
#include "storage/journal_entry.h"
#include "tests/support/journal.h"

#define SEEDS 3000

static struct sel_journal_disk *new_disk(uint64_t seed)
{
    struct sel_journal_disk *disk = sel_journal_disk_new(seed);
    assert_non_null(disk);
    return disk;
}

static struct sel_journal *open_ok(struct sel_journal_disk *disk)
{
    struct sel_journal *j = NULL;
    struct sel_error err = {0};
    if (sel_journal_mem_open(disk, &j, &err) < 0)
        fail_msg("%s", err.text);
    return j;
}

static struct sel_test_walk walk(struct sel_journal *j)
{
    struct sel_test_walk got = {0};
    struct sel_error err = {0};
    if (j->ops->walk(j, 0, sel_test_visit, &got, &err) < 0)
        fail_msg("%s", err.text);
    assert_false(got.is_wrong);
    return got;
}

/* Commits of two batches, the fifth synced; what a cut or kill of this seed leaves is the result.*/
static uint64_t survivors(uint64_t seed, void (*end)(struct sel_journal_disk *disk))
{
    struct sel_journal_disk *disk = new_disk(seed);
    struct sel_journal *j = open_ok(disk);
    for (uint64_t i = 0; i < 10; i++)
        sel_test_append_ok(j, 2 * i, 2, i == 4);
    end(disk);
    j->ops->close(j);
    j = open_ok(disk);
    uint64_t last = walk(j).last;
    sel_test_append_ok(j, last, 1, false); /* goes on from there */
    sel_test_holds(j, 1, last + 1);
    j->ops->close(j);
    sel_journal_disk_free(disk);
    return last;
}

static void test_a_cut_keeps_what_was_synced_and_whole_commits_in_order(void **state)
{
    (void)state;
    uint32_t counts[21] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        uint64_t last = survivors(seed, sel_journal_disk_cut);
        assert_in_range(last, 10, 20);
        assert_int_equal(last % 2, 0);
        counts[last]++;
    }
    for (uint64_t last = 10; last <= 20; last += 2)
        assert_true(counts[last] > 0); /* each end is drawn */
}

static void test_a_kill_keeps_all_that_was_appended(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++)
        assert_int_equal(survivors(seed, sel_journal_disk_kill), 20);
}

static void test_the_same_seed_takes_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++)
        assert_int_equal(survivors(seed, sel_journal_disk_cut),
                         survivors(seed, sel_journal_disk_cut));
}

/* What was there again after a kill was synced by the open, so that a cut does not take it. */
static void test_what_an_open_has_found_stays(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sel_journal_disk *disk = new_disk(seed);
        struct sel_journal *j = open_ok(disk);
        for (uint64_t i = 0; i < 6; i++)
            sel_test_append_ok(j, i, 1, false);
        if (seed % 2)
            sel_journal_disk_kill(disk);
        else
            sel_journal_disk_cut(disk);
        j->ops->close(j);
        j = open_ok(disk);
        uint64_t last = walk(j).last;
        sel_journal_disk_cut(disk);
        j->ops->close(j);
        j = open_ok(disk);
        assert_int_equal(walk(j).last, last);
        j->ops->close(j);
        sel_journal_disk_free(disk);
    }
}

static void test_a_kill_then_a_cut_may_take_what_was_not_synced(void **state)
{
    (void)state;
    uint32_t lost = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct sel_journal_disk *disk = new_disk(seed);
        struct sel_journal *j = open_ok(disk);
        sel_test_append_ok(j, 0, 1, true);
        sel_test_append_ok(j, 1, 1, false);
        sel_journal_disk_kill(disk);
        sel_journal_disk_cut(disk);
        j->ops->close(j);
        j = open_ok(disk);
        lost += walk(j).last == 1;
        j->ops->close(j);
        sel_journal_disk_free(disk);
    }
    assert_in_range(lost, 10, 90);
}

/* The copy is behind what it replaces; a drop that stays without the copy would lose it. */
static void test_a_drop_never_outlives_the_appends_before_it(void **state)
{
    (void)state;
    uint32_t kept = 0, undone = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sel_journal_disk *disk = new_disk(seed);
        struct sel_journal *j = open_ok(disk);
        struct sel_error err = {0};
        for (uint64_t i = 0; i < 5; i++)
            sel_test_append_ok(j, i, 1, true);
        sel_test_append_ok(j, 5, 1, false);
        assert_ok(j->ops->drop(j, 4, &err));
        if (seed % 3 == 0)
            sel_test_append_ok(j, 6, 1, false);
        sel_journal_disk_cut(disk);
        j->ops->close(j);
        j = open_ok(disk);
        struct sel_test_walk got = walk(j);
        assert_true(got.first == 1 || got.first == 4);
        assert_true(got.first == 1 || got.last >= 6);
        kept += got.first == 4;
        undone += got.first == 1;
        j->ops->close(j);
        sel_journal_disk_free(disk);
    }
    assert_true(kept > 0 && undone > 0);
}

/* Everything that a program does with a journal; ends at the first failure. Returns the last batch
 * that was said to be synced, and sets the last that may be there. */
static uint64_t work(struct sel_journal *j, uint64_t *ret_tried, int *ret_failure)
{
    struct sel_error err = {0};
    uint64_t synced = 0, last = 0;
    int r = 0;
    *ret_tried = 0;
    for (uint32_t i = 0; i < 12 && r == 0; i++) {
        uint32_t count = 1 + i % 3;
        *ret_tried = last + count;
        r = sel_test_append(j, last, count, i % 4 == 3, false, &err);
        if (r < 0)
            break;
        last += count;
        synced = i % 4 == 3 ? last : synced;
        if (i % 5 == 4) {
            r = j->ops->sync(j, &err);
            synced = r == 0 ? last : synced;
        }
        if (i == 6 && r == 0)
            r = j->ops->drop(j, 3, &err);
    }
    *ret_failure = r;
    return synced;
}

static void test_any_write_may_fail_or_be_the_last(void **state)
{
    (void)state;
    uint64_t n = 1, tried;
    int failure = -EIO;
    for (; failure < 0; n++) {
        for (uint64_t seed = 0; seed < 100; seed++) {
            struct sel_journal_disk *disk = new_disk(seed);
            struct sel_journal *j = open_ok(disk);
            struct sel_buf buf = {0};
            sel_journal_disk_fail(disk, n, -EIO);
            uint64_t synced = work(j, &tried, &failure);
            assert_true(failure == 0 || failure == -EIO);
            if (failure == 0)
                assert_true(sel_journal_disk_writes(disk) < n);
            else /* it is of no use any more */
                assert_code(j->ops->read(j, 1, 0, 1, &buf, NULL), -EIO);
            sel_journal_disk_fail(disk, 0, 0);
            if (seed % 4 != 0)
                sel_journal_disk_cut(disk);
            j->ops->close(j);
            j = open_ok(disk);
            struct sel_test_walk got = walk(j);
            assert_in_range(got.last, synced, tried);
            assert_true(got.first <= 3);
            j->ops->close(j);
            sel_journal_disk_free(disk);
            sel_buf_done(&buf);
        }
    }
    assert_true(n > 18);
}

static void test_a_full_disk_refuses_until_it_is_told_otherwise(void **state)
{
    (void)state;
    struct sel_journal_disk *disk = new_disk(1);
    struct sel_journal *j = open_ok(disk);
    struct sel_error err = {0};
    sel_test_append_ok(j, 0, 2, true);
    sel_test_append_ok(j, 2, 1, false);
    for (uint64_t n = 1; n <= 2; n++) { /* the append, or its sync */
        sel_journal_disk_fail(disk, n, -ENOSPC);
        for (int i = 0; i < 3; i++) {
            assert_code(sel_test_append(j, 3, 2, true, true, &err), -ENOSPC);
            sel_test_holds(j, 1, 3);
        }
    }
    assert_code(sel_test_append(j, 3, 2, false, false, &err), -ENOSPC);
    assert_code(j->ops->sync(j, &err), -ENOSPC);
    assert_code(j->ops->drop(j, 2, &err), -ENOSPC);
    sel_journal_disk_fail(disk, 0, 0);
    sel_test_append_ok(j, 3, 1, true);
    assert_ok(j->ops->drop(j, 2, &err));
    sel_test_holds(j, 2, 4);
    j->ops->close(j);
    sel_journal_disk_free(disk);
}

static void test_each_bit_of_damage_is_found(void **state)
{
    (void)state;
    struct sel_error err;
    uint64_t bits = (SEL_JOURNAL_HEAD_SIZE + 7) * 8;
    for (uint64_t bit = 0; bit < bits; bit++) {
        for (uint64_t seq = 1; seq <= 3; seq++) {
            struct sel_journal_disk *disk = new_disk(1);
            struct sel_journal *j = open_ok(disk);
            struct sel_str batch = SEL_STR("payload");
            uint64_t last;
            for (int i = 0; i < 3; i++)
                assert_ok(j->ops->append(j, &batch, 1, true, false, &last, &err));
            j->ops->close(j);
            sel_journal_disk_damage(disk, seq, bit);
            if (seq % 2) /* a loss of power does not excuse it */
                sel_journal_disk_cut(disk);
            assert_code(sel_journal_mem_open(disk, &j, &err), SEL_EFORMAT);
            assert_non_null(strstr(err.text, seq == 1 ? "batch 1" : seq == 2 ? "batch 2" : "3"));
            sel_journal_disk_free(disk);
        }
    }
}

static void test_one_journal_at_a_time(void **state)
{
    (void)state;
    struct sel_journal_disk *disk = new_disk(1);
    struct sel_journal *j = open_ok(disk), *second = NULL;
    struct sel_error err;
    assert_code(sel_journal_mem_open(disk, &second, &err), -EAGAIN);
    sel_journal_disk_kill(disk);
    second = open_ok(disk); /* the other one is dead, even if it is not closed yet */
    uint64_t last;
    struct sel_str batch = SEL_STR("x");
    assert_code(j->ops->append(j, &batch, 1, true, false, &last, &err), -EIO);
    j->ops->close(j);
    sel_test_append_ok(second, 0, 1, true);
    second->ops->close(second);
    sel_journal_disk_free(disk);
    assert_null(sel_journal_disk_free(NULL));
}

static int open_and_use(void *ctx)
{
    (void)ctx;
    struct sel_journal_disk *disk = sel_journal_disk_new(1);
    struct sel_journal *j;
    struct sel_buf buf = {0};
    const struct sel_str batches[] = {SEL_STR("one"), SEL_STR("two")};
    uint64_t last;
    if (!disk)
        return SEL_ENOMEM;
    int r = sel_journal_mem_open(disk, &j, NULL);
    if (r == 0) {
        r = j->ops->append(j, batches, 2, true, false, &last, NULL);
        if (r == 0)
            r = j->ops->read(j, 2, 0, 3, &buf, NULL);
        if (r == 0)
            r = j->ops->drop(j, 2, NULL);
        j->ops->close(j);
    }
    sel_buf_done(&buf);
    sel_journal_disk_free(disk);
    return r;
}

static void test_each_allocation_may_fail(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(open_and_use, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cut_keeps_what_was_synced_and_whole_commits_in_order),
        cmocka_unit_test(test_a_kill_keeps_all_that_was_appended),
        cmocka_unit_test(test_the_same_seed_takes_the_same),
        cmocka_unit_test(test_what_an_open_has_found_stays),
        cmocka_unit_test(test_a_kill_then_a_cut_may_take_what_was_not_synced),
        cmocka_unit_test(test_a_drop_never_outlives_the_appends_before_it),
        cmocka_unit_test(test_any_write_may_fail_or_be_the_last),
        cmocka_unit_test(test_a_full_disk_refuses_until_it_is_told_otherwise),
        cmocka_unit_test(test_each_bit_of_damage_is_found),
        cmocka_unit_test(test_one_journal_at_a_time),
        cmocka_unit_test(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
