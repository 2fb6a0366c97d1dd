/* What every backend of the journal promises, on each of them. */
#include "storage/journal.h"

#include <errno.h>

#include "tests/support/journal_files.h"

/* A medium, and how a journal on it is opened. */
struct medium {
    const char *name;
    char folder[PATH_MAX];
    struct sel_journal_disk *disk; /* NULL: files */
    uint64_t limit;                /* 0: none */
};

static struct sel_journal *open_ok(struct medium *medium)
{
    struct sel_journal *j = NULL;
    struct sel_error err = {0};
    struct sel_journal_lmdb_options options = {.path = medium->folder, .size_max = medium->limit};
    if (!medium->limit)
        options.reserve = 1 << 20; /* its ballast is made at each opening */
    int r = medium->disk ? sel_journal_mem_open(medium->disk, &j, &err)
                         : sel_journal_lmdb_open(&options, &j, &err);
    if (r < 0)
        fail_msg("%s: %s", medium->name, err.text);
    return j;
}

static struct sel_journal *reopen(struct medium *medium, struct sel_journal *j)
{
    j->ops->close(j);
    return open_ok(medium);
}

/* Runs `test` on each backend. */
static void on_each(void **state, void (*test)(struct medium *medium), uint64_t limit)
{
    struct medium memory = {.name = "memory", .disk = sel_journal_disk_new(1), .limit = limit};
    assert_non_null(memory.disk);
    sel_journal_disk_limit(memory.disk, limit);
    test(&memory);
    sel_journal_disk_free(memory.disk);
    struct medium files = {.name = "lmdb", .limit = limit};
    (void)snprintf(files.folder, sizeof(files.folder), "%s/a/journal", (char *)*state);
    test(&files);
}

static void check_stats(struct sel_journal *j, uint64_t first, uint64_t last)
{
    struct sel_journal_stats stats;
    uint64_t live = 0;
    j->ops->stats(j, &stats);
    assert_int_equal(stats.first, first);
    assert_int_equal(stats.last, last);
    for (uint64_t seq = first; seq <= last && last > 0; seq++)
        live += sel_test_batch_size(seq);
    assert_int_equal(stats.bytes_live, live);
    assert_true(stats.bytes_used >= live);
}

/* ---- the tests ---- */

static void new_is_empty(struct medium *medium)
{
    struct sel_journal *j = open_ok(medium);
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    for (int i = 0; i < 2; i++) {
        sel_test_holds(j, 0, 0);
        check_stats(j, 0, 0);
        assert_ok(j->ops->sync(j, &err));
        assert_ok(j->ops->drop(j, 5, &err));
        assert_code(j->ops->read(j, 0, 0, 0, &buf, &err), SEL_ENOTFOUND);
        assert_code(j->ops->read(j, 1, 0, 0, &buf, &err), SEL_ENOTFOUND);
        j = reopen(medium, j);
    }
    j->ops->close(j);
}

static void test_a_new_journal_is_empty(void **state)
{
    on_each(state, new_is_empty, 0);
}

static void all_is_there_in_order(struct medium *medium)
{
    struct sel_journal *j = open_ok(medium);
    struct sel_error err = {0};
    uint64_t last = 0;
    for (uint32_t i = 0; i < 60; i++) {
        uint32_t count = 1 + i % 5;
        sel_test_append_ok(j, last, count, i % 4 == 0);
        last += count;
        if (i % 7 == 0)
            assert_ok(j->ops->sync(j, &err));
        if (i % 20 == 0)
            sel_test_holds(j, 1, last);
        if (i % 25 == 0)
            j = reopen(medium, j);
    }
    check_stats(j, 1, last);
    sel_test_holds(j, 1, last);
    j = reopen(medium, j);
    check_stats(j, 1, last);
    sel_test_holds(j, 1, last);
    j->ops->close(j);
}

static void test_all_that_was_appended_is_there_in_order(void **state)
{
    on_each(state, all_is_there_in_order, 0);
}

static void parts_are_read(struct medium *medium)
{
    static const struct {
        uint64_t seq, offset, n;
        int code;
    } cases[] = {
        {1, 0, 5000, 0},
        {1, 0, 0, 0},
        {1, 4999, 1, 0},
        {1, 5000, 0, 0},
        {1, 100, 200, 0},
        {1, 5000, 1, SEL_ERANGE},
        {1, 5001, 0, SEL_ERANGE},
        {1, 0, 5001, SEL_ERANGE},
        {1, 1, UINT64_MAX, SEL_ERANGE},
        {1, UINT64_MAX, 1, SEL_ERANGE},
        {0, 0, 1, SEL_ENOTFOUND},
        {2, 0, 1, SEL_ENOTFOUND},
        {UINT64_MAX, 0, 1, SEL_ENOTFOUND},
    };
    for (int sync = 0; sync < 2; sync++) {
        struct sel_journal *j = open_ok(medium);
        struct sel_str batch = sel_test_batch_of(1, 5000);
        struct sel_error err = {0};
        struct sel_buf buf = {0};
        uint64_t last = 0, first = 0;
        assert_ok(j->ops->append(j, &batch, 1, sync, false, &last, &err));
        first = last - 1; /* the second time it is batch 2 */
        sel_test_batch_free(batch);
        for (size_t i = 0; i < SEL_COUNT(cases); i++) {
            uint64_t seq = cases[i].seq == 1 ? last : cases[i].seq == 2 ? last + 1 : cases[i].seq;
            sel_buf_clear(&buf);
            assert_code(j->ops->read(j, seq, cases[i].offset, cases[i].n, &buf, &err),
                        cases[i].code);
            if (cases[i].code == 0)
                assert_int_equal(buf.n, cases[i].n);
            if (cases[i].code == 0)
                assert_true(sel_test_batch_is(1, cases[i].offset, sel_buf_str(&buf)));
            else
                assert_int_equal(buf.n, 0);
        }
        assert_int_equal(first, sync);
        sel_buf_done(&buf);
        j->ops->close(j);
    }
}

static void test_parts_of_a_batch_are_read(void **state)
{
    on_each(state, parts_are_read, 0);
}

static void dropped_is_gone(struct medium *medium)
{
    struct sel_journal *j = open_ok(medium);
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    for (uint64_t i = 0; i < 20; i++)
        sel_test_append_ok(j, i, 1, i < 10);
    assert_ok(j->ops->drop(j, 1, &err));
    sel_test_holds(j, 1, 20);
    assert_ok(j->ops->drop(j, 15, &err));
    assert_ok(j->ops->drop(j, 3, &err)); /* never back */
    check_stats(j, 15, 20);
    sel_test_holds(j, 15, 20);
    assert_code(j->ops->read(j, 14, 0, 1, &buf, &err), SEL_ENOTFOUND);
    assert_code(j->ops->read(j, 1, 0, 1, &buf, &err), SEL_ENOTFOUND);
    assert_ok(j->ops->sync(j, &err));
    sel_test_append_ok(j, 20, 1, true);
    sel_test_append_ok(j, 21, 1, true);
    sel_test_holds(j, 15, 22);
    j = reopen(medium, j);
    check_stats(j, 15, 22);
    assert_ok(j->ops->drop(j, UINT64_MAX, &err));
    check_stats(j, 22, 22);
    sel_test_append_ok(j, 22, 2, true);
    j = reopen(medium, j);
    sel_test_holds(j, 22, 24);
    j->ops->close(j);
    sel_buf_done(&buf);
}

static void test_what_is_dropped_is_gone(void **state)
{
    on_each(state, dropped_is_gone, 0);
}

static int visit_until(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    const uint64_t *end = ctx;
    (void)batch;
    return seq == *end ? sel_error_set(err, SEL_ECANCELED, (struct sel_pos){0}, "enough") : 0;
}

static void walks_begin_where_asked(struct medium *medium)
{
    struct sel_journal *j = open_ok(medium);
    struct sel_error err = {0};
    for (uint64_t i = 0; i < 10; i++)
        sel_test_append_ok(j, i, 1, i < 6);
    assert_ok(j->ops->drop(j, 3, &err));
    const struct {
        uint64_t from, first, last;
    } cases[] = {{0, 3, 10}, {1, 3, 10}, {3, 3, 10}, {7, 7, 10}, {10, 10, 10}, {11, 0, 0}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_walk walk = {0};
        assert_ok(j->ops->walk(j, cases[i].from, sel_test_visit, &walk, &err));
        assert_int_equal(walk.first, cases[i].first);
        assert_int_equal(walk.last, cases[i].last);
        assert_false(walk.is_wrong);
    }
    for (uint64_t end = 3; end <= 10; end++) {
        assert_code(j->ops->walk(j, 0, visit_until, &end, &err), SEL_ECANCELED);
        assert_string_equal(err.text, "enough");
    }
    j->ops->close(j);
}

static void test_a_walk_begins_where_asked_and_ends_when_told(void **state)
{
    on_each(state, walks_begin_where_asked, 0);
}

static void any_size_is_kept(struct medium *medium)
{
    static const size_t sizes[] = {1, 100, 1989, 2000, 2038, 4031, 4032, 4048, 4049, 8144, 3000000};
    struct sel_journal *j = open_ok(medium);
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < SEL_COUNT(sizes); i++) {
            struct sel_str batch = sel_test_batch_of(i, sizes[i]);
            uint64_t last;
            assert_ok(j->ops->append(j, &batch, 1, round == 0, false, &last, &err));
            sel_test_batch_free(batch);
        }
    }
    for (int round = 0; round < 2; round++, j = reopen(medium, j)) {
        for (size_t i = 0; i < 2 * SEL_COUNT(sizes); i++) {
            size_t n = sizes[i % SEL_COUNT(sizes)];
            sel_buf_clear(&buf);
            assert_ok(j->ops->read(j, i + 1, 0, n, &buf, &err));
            assert_true(sel_test_batch_is(i % SEL_COUNT(sizes), 0, sel_buf_str(&buf)));
            assert_code(j->ops->read(j, i + 1, n, 1, &buf, &err), SEL_ERANGE);
        }
    }
    j->ops->close(j);
    sel_buf_done(&buf);
}

static void test_batches_of_any_size_are_kept(void **state)
{
    on_each(state, any_size_is_kept, 0);
}

/* Until it is refused; the number appended. */
static uint64_t fill(struct sel_journal *j, uint64_t last, bool sync, bool urgent)
{
    struct sel_error err = {0};
    uint64_t count = 0;
    for (int r = 0; r == 0; count++) {
        r = sel_test_append(j, last + count, 1, sync, urgent, &err);
        if (r < 0) {
            assert_code(r, SEL_ELIMIT);
            assert_non_null(strstr(err.text, "size limit"));
            return count;
        }
    }
    return count;
}

static void limit_holds(struct medium *medium)
{
    struct sel_journal *j = open_ok(medium);
    struct sel_journal_stats stats;
    struct sel_error err = {0};
    uint64_t last = fill(j, 0, true, false);
    assert_true(last > 10);
    uint64_t urgent = fill(j, last, true, true);
    assert_true(urgent > 0); /* the reserve */
    last += urgent;
    j->ops->stats(j, &stats);
    assert_int_equal(stats.bytes_limit, medium->limit);
    assert_true(stats.bytes_live < stats.bytes_limit);
    sel_test_holds(j, 1, last);
    j = reopen(medium, j);
    assert_int_equal(fill(j, last, false, false), 0);
    assert_ok(j->ops->drop(j, last - 5, &err));
    uint64_t again = 0; /* room comes back, if not at once */
    for (int i = 0; i < 10; i++)
        again += fill(j, last + again, i % 2 == 0, false);
    assert_true(again > 10);
    sel_test_holds(j, last - 5, last + again);
    j = reopen(medium, j);
    struct sel_test_walk walk = {0};
    assert_ok(j->ops->walk(j, 0, sel_test_visit, &walk, &err));
    assert_false(walk.is_wrong);
    assert_int_equal(walk.last, last + again);
    j->ops->close(j);
}

static void test_the_limit_holds_and_urgent_appends_have_a_reserve(void **state)
{
    on_each(state, limit_holds, 1 << 20);
}

/* The numbers that the journal must hold. */
struct model {
    uint64_t first, last;
};

static struct sel_journal *step(struct medium *medium, struct sel_journal *j, struct model *model,
                                struct sel_prng *prng)
{
    struct sel_error err = {0};
    struct sel_buf buf = {0};
    uint64_t pick = sel_prng_below(prng, 20);
    if (pick < 10) {
        uint32_t count = 1 + (uint32_t)sel_prng_below(prng, 3);
        sel_test_append_ok(j, model->last, count, sel_prng_below(prng, 3) == 0);
        model->last += count;
    } else if (pick < 12) {
        assert_ok(j->ops->sync(j, &err));
    } else if (pick < 14 && model->last > 0) {
        uint64_t before = model->first + sel_prng_below(prng, 40);
        assert_ok(j->ops->drop(j, before, &err));
        before = before < model->last ? before : model->last;
        model->first = before > model->first ? before : model->first;
    } else if (pick < 19 && model->last > 0) {
        uint64_t seq = 1 + sel_prng_below(prng, model->last + 1), n = sel_test_batch_size(seq);
        uint64_t offset = sel_prng_below(prng, n), size = sel_prng_below(prng, n - offset + 1);
        int r = j->ops->read(j, seq, offset, size, &buf, &err);
        assert_code(r, seq < model->first || seq > model->last ? SEL_ENOTFOUND : 0);
        assert_true(sel_test_batch_is(seq, offset, sel_buf_str(&buf)));
    } else if (pick == 19) {
        struct sel_journal_stats stats;
        j = reopen(medium, j);
        j->ops->stats(j, &stats);
        assert_true(stats.first <= model->first); /* dropped ones may be back */
        assert_ok(j->ops->drop(j, model->first, &err));
    }
    sel_buf_done(&buf);
    return j;
}

static void like_the_model(struct medium *medium)
{
    struct sel_prng prng = {7};
    struct model model = {1, 0};
    struct sel_journal *j = open_ok(medium);
    for (int i = 0; i < 600; i++)
        j = step(medium, j, &model, &prng);
    check_stats(j, model.first, model.last);
    sel_test_holds(j, model.first, model.last);
    j->ops->close(j);
}

static void test_any_sequence_of_calls_does_what_a_list_would(void **state)
{
    on_each(state, like_the_model, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_quick_folder(test_a_new_journal_is_empty),
        with_quick_folder(test_all_that_was_appended_is_there_in_order),
        with_quick_folder(test_parts_of_a_batch_are_read),
        with_quick_folder(test_what_is_dropped_is_gone),
        with_quick_folder(test_a_walk_begins_where_asked_and_ends_when_told),
        with_quick_folder(test_batches_of_any_size_are_kept),
        with_quick_folder(test_the_limit_holds_and_urgent_appends_have_a_reserve),
        with_quick_folder(test_any_sequence_of_calls_does_what_a_list_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
