/* The journal in files: what it makes of files that are foreign, newer, older, cut or damaged. */
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "storage/crc.h"
#include "storage/journal_files.h"
#include "tests/support/journal_files.h"

static const char *folder_of(void **state, const char *name)
{
    static char path[PATH_MAX];
    sel_test_path(path, *state, name);
    return path;
}

/* Batches 1 to `synced` in data.mdb, those up to `last` in the tail, as a process leaves them that
 * is killed. */
static void make_image(const char *folder, uint64_t synced, uint64_t last,
                       struct sel_test_image *image)
{
    struct sel_journal *j = sel_test_journal_open(folder);
    for (uint64_t i = 0; i < synced; i += 10)
        sel_test_append_ok(j, i, 10, true);
    for (uint64_t i = synced; i < last; i += 2)
        sel_test_append_ok(j, i, 2, false);
    sel_test_image_load(image, folder);
    j->ops->close(j);
}

static void refused(const char *folder, int code, const char *text)
{
    struct sel_journal *j;
    struct sel_error err = {0};
    for (int read_only = 0; read_only < 2; read_only++) {
        assert_code(sel_test_journal_try(folder, read_only, &j, &err), code);
        if (!strstr(err.text, text))
            fail_msg("'%s' has no '%s'", err.text, text);
    }
}

/* ---- files of others ---- */

static void test_one_process_at_a_time(void **state)
{
    struct sel_journal *j = sel_test_journal_open(*state), *second;
    struct sel_error err;
    refused(*state, -EAGAIN, "in use by another process");
    j->ops->close(j);
    assert_ok(sel_test_journal_try(*state, true, &j, &err));
    assert_ok(sel_test_journal_try(*state, true, &second, &err)); /* readers share */
    second->ops->close(second);
    assert_code(sel_test_journal_try(*state, false, &second, &err), -EAGAIN);
    j->ops->close(j);
}

static void test_only_reading_changes_nothing(void **state)
{
    struct sel_test_image image = {0}, after = {0};
    struct sel_journal *j;
    struct sel_error err = {0};
    struct sel_str batch = SEL_STR("x");
    uint64_t last;
    const char *folder = folder_of(state, "j");
    assert_code(sel_test_journal_try(folder, true, &j, &err), -ENOENT);
    assert_code(access(folder, F_OK), -1);
    make_image(folder, 20, 30, &image);
    sel_test_image_store(&image, folder); /* the close had synced the tail */
    assert_ok(sel_test_journal_try(folder, true, &j, &err));
    sel_test_holds(j, 1, 30);
    assert_code(j->ops->append(j, &batch, 1, true, true, &last, &err), -EROFS);
    assert_code(j->ops->sync(j, &err), -EROFS);
    assert_code(j->ops->drop(j, 2, &err), -EROFS);
    j->ops->close(j);
    sel_test_image_load(&after, folder);
    assert_true(sel_str_eq(sel_buf_str(&image.data), sel_buf_str(&after.data)));
    assert_true(sel_str_eq(sel_buf_str(&image.tail), sel_buf_str(&after.tail)));
    sel_test_image_done(&image);
    sel_test_image_done(&after);
}

static void test_what_is_no_journal_is_refused(void **state)
{
    static const struct {
        const char *text;
        const char *in_err;
    } cases[] = {
        {"", "bytes, but refers to"},
        {"this is no environment at all", "bytes, but refers to"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        sel_test_file_store(*state, "data.mdb", cases[i].text, strlen(cases[i].text));
        refused(*state, SEL_EFORMAT, cases[i].in_err);
    }
    char zeros[16384] = {0};
    sel_test_file_store(*state, "data.mdb", zeros, sizeof(zeros));
    refused(*state, SEL_EFORMAT, "no head of LMDB");
}

static void make_foreign(const char *folder, const char *name, unsigned flags, uint64_t key)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {sizeof(key), &key}, v = {5, "value"};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 2), 0);
    assert_int_equal(mdb_env_open(env, folder, 0, 0644), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, name, flags | MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void test_environments_of_others_are_refused(void **state)
{
    make_foreign(*state, NULL, 0, 1);
    refused(*state, SEL_EFORMAT, "none of a journal's");
    sel_test_file_remove(*state, "data.mdb");
    make_foreign(*state, "named", 0, 1);
    refused(*state, SEL_EFORMAT, "none of a journal's");
    sel_test_file_remove(*state, "data.mdb");
    make_foreign(*state, NULL, MDB_INTEGERKEY, 1);
    refused(*state, SEL_EFORMAT, "is no journal");
    sel_test_file_remove(*state, "data.mdb");
    make_foreign(*state, NULL, MDB_INTEGERKEY, 0);
    refused(*state, SEL_EFORMAT, "is no journal");
}

/* In data.mdb, where it stands in a record; and in the tail, which is looked at first. */
static void test_a_newer_format_is_refused(void **state)
{
    struct sel_test_image image = {0};
    uint8_t record[SEL_JOURNAL_FORMAT_SIZE];
    sel_journal_files_encode_format(record);
    make_image(*state, 10, 10, &image);
    sel_test_file_remove(*state, "tail");
    uint8_t *at = memmem(image.data.p, image.data.n, record, sizeof(record));
    assert_non_null(at);
    for (; at; at = memmem(at + 1, image.data.n - (size_t)(at + 1 - image.data.p), record,
                           sizeof(record))) {
        at[16] = SEL_JOURNAL_FORMAT + 1;
        uint32_t crc = sel_crc32c(0, at, 20);
        memcpy(at + 20, &crc, sizeof(crc));
    }
    sel_test_file_store(*state, "data.mdb", image.data.p, image.data.n);
    refused(*state, SEL_EVERSION, "has format 2; this program knows format 1");
    image.tail.p[8] = SEL_JOURNAL_FORMAT + 1;
    uint32_t crc = sel_crc32c(0, image.tail.p, 60);
    memcpy(image.tail.p + 60, &crc, sizeof(crc));
    sel_test_file_store(*state, "tail", image.tail.p, SEL_JOURNAL_TAIL_HEAD);
    sel_test_file_store(*state, "data.mdb", "of another kind altogether", 26);
    refused(*state, SEL_EVERSION, "has format 2");
    sel_test_image_done(&image);
}

static void test_files_that_do_not_belong_together_are_refused(void **state)
{
    struct sel_test_image old = {0}, new = {0};
    make_image(*state, 20, 20, &old);
    struct sel_journal *j = sel_test_journal_open(*state);
    sel_test_append_ok(j, 20, 3, true);
    sel_test_image_load(&new, *state);
    j->ops->close(j);
    sel_test_file_store(*state, "data.mdb", old.data.p, old.data.n);
    refused(*state, SEL_EFORMAT, "ends with batch 20, but batch 23 was synced");
    sel_test_file_remove(*state, "data.mdb");
    refused(*state, SEL_EFORMAT, "is missing, but the journal had batches");
    sel_test_file_store(*state, "data.mdb", new.data.p, new.data.n);
    sel_test_file_remove(*state, "tail"); /* which had nothing of its own */
    j = sel_test_journal_open(*state);
    sel_test_holds(j, 1, 23);
    j->ops->close(j);
    sel_test_image_done(&old);
    sel_test_image_done(&new);
}

/* ---- damage ---- */

/* Pages that are structure, not payload: a byte flipped at random mostly hits the latter. */
static size_t draw_offset(struct sel_prng *prng, const struct sel_buf *data, bool structure)
{
    size_t pages = data->n / 4096, page = 0;
    if (!structure)
        return (size_t)sel_prng_below(prng, data->n);
    for (int i = 0; i < 10000; i++) {
        page = (size_t)sel_prng_below(prng, pages);
        uint8_t flags = data->p[page * 4096 + 10];
        if (flags == 1 || flags == 2 || flags == 8)
            break;
    }
    /* Heads of pages and the offsets of their entries are where it hurts most. */
    size_t within = (size_t)sel_prng_below(prng, sel_prng_below(prng, 2) ? 160 : 4096);
    return page * 4096 + within;
}

static void test_a_flipped_bit_is_found_or_does_no_harm(void **state)
{
    struct sel_test_image image = {0};
    struct sel_test_walk walk;
    struct sel_prng prng = {11};
    uint32_t found = 0, harmless = 0;
    const char *folder = folder_of(state, "damaged");
    make_image(*state, 200, 200, &image);
    for (int i = 0; i < 100; i++) {
        size_t at = draw_offset(&prng, &image.data, i % 4 != 0);
        uint8_t bit = (uint8_t)(1u << sel_prng_below(&prng, 8));
        image.data.p[at] ^= bit;
        sel_test_image_store(&image, folder);
        int r = sel_test_open_damaged(folder, i % 8 == 0, &walk);
        if (r == 0 && (walk.first != 1 || walk.last != 200))
            fail_msg("byte %zu: holds %llu to %llu", at, (unsigned long long)walk.first,
                     (unsigned long long)walk.last);
        found += r < 0;
        harmless += r == 0;
        image.data.p[at] ^= bit;
    }
    assert_true(found > 10 && harmless > 10);
    sel_test_image_done(&image);
}

static void test_a_cut_file_is_found(void **state)
{
    struct sel_test_image image = {0};
    struct sel_test_walk walk;
    const char *folder = folder_of(state, "cut");
    make_image(*state, 100, 100, &image);
    size_t whole = image.data.n;
    for (size_t n = 0; n < whole; n += n < 20000 ? 1777 : whole / 13) {
        image.data.n = n;
        sel_test_image_store(&image, folder);
        if (sel_test_open_damaged(folder, true, &walk) == 0)
            assert_true(walk.first == 1 && walk.last == 100); /* only free pages were cut off */
        else
            assert_true(n < whole);
    }
    sel_test_image_done(&image);
}

/* Of this boot: all that is there must be right, but the last commit may be cut off. */
static void test_damage_of_the_tail_is_found(void **state)
{
    struct sel_test_image image = {0};
    struct sel_test_walk walk;
    struct sel_prng prng = {5};
    uint32_t found = 0;
    const char *folder = folder_of(state, "damaged");
    make_image(*state, 10, 30, &image);
    for (int i = 0; i < 60; i++) {
        size_t at = (size_t)sel_prng_below(&prng, i < 20 ? 300 : image.tail.n);
        image.tail.p[at] ^= 4;
        sel_test_image_store(&image, folder);
        int r = sel_test_open_damaged(folder, false, &walk);
        if (r == 0 && (walk.first != 1 || walk.last != 30))
            fail_msg("byte %zu: holds up to %llu", at, (unsigned long long)walk.last);
        found += r < 0;
        image.tail.p[at] ^= 4;
    }
    assert_int_equal(found, 60); /* none of its bytes is without meaning */
    size_t whole = image.tail.n;
    for (size_t n = 0; n <= whole; n += n < 200 ? 31 : whole / 11) {
        image.tail.n = n;
        sel_test_image_store(&image, folder);
        assert_ok(sel_test_open_damaged(folder, false, &walk));
        assert_true(walk.first == 1 && walk.last >= 10 && walk.last % 2 == 0);
    }
    sel_test_image_done(&image);
}

/* Of another boot: power was lost, and anything that was not synced may be gone or torn. */
static void test_after_a_loss_of_power_the_tail_ends_where_it_is_torn(void **state)
{
    struct sel_test_image image = {0};
    struct sel_test_walk walk;
    struct sel_prng prng = {6};
    const char *folder = folder_of(state, "torn");
    make_image(*state, 10, 30, &image);
    image.tail.p[16] ^= 1; /* the boot */
    uint32_t crc = sel_crc32c(0, image.tail.p, 60), ends = 0;
    memcpy(image.tail.p + 60, &crc, sizeof(crc));
    struct sel_buf torn = {0};
    for (int i = 0; i < 40; i++) {
        sel_buf_clear(&torn);
        sel_buf_put(&torn, image.tail.p, image.tail.n);
        size_t at = 64 + (size_t)sel_prng_below(&prng, torn.n - 64), n = torn.n - at;
        memset(torn.p + at, 0, n < 512 ? n : 512);
        sel_test_image_store(&image, folder);
        sel_test_file_store(folder, "tail", torn.p, torn.n);
        assert_ok(sel_test_open_damaged(folder, false, &walk));
        assert_true(walk.first == 1 && walk.last >= 10 && walk.last < 30 && walk.last % 2 == 0);
        ends |= UINT32_C(1) << walk.last;
    }
    assert_true((ends & (ends - 1)) != 0); /* at more than one place */
    sel_buf_done(&torn);
    sel_test_image_done(&image);
}

/* ---- room ---- */

static uint64_t file_size(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    sel_test_path(path, folder, name);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void test_dropped_room_is_used_again(void **state)
{
    struct sel_journal *j = sel_test_journal_open(*state);
    struct sel_error err = {0};
    uint64_t last = 0, half = 0;
    for (int i = 0; i < 120; i++, last += 5) {
        sel_test_append_ok(j, last, 5, true);
        if (last > 50)
            assert_ok(j->ops->drop(j, last - 50, &err));
        if (i == 60)
            half = file_size(*state, "data.mdb");
    }
    assert_true(file_size(*state, "data.mdb") < half + half / 2);
    sel_test_holds(j, last - 55, last);
    j->ops->close(j);
}

/* Appended urgently and without a sync, then room was made: what is pending must not go with what
 * was dropped. */
static void test_making_room_leaves_what_is_pending(void **state)
{
    const char *folder = folder_of(state, "full");
    const struct sel_journal_lmdb_options options = {.path = folder, .size_max = 1 << 20};
    struct sel_test_image image = {0};
    struct sel_error err = {0};
    struct sel_journal *j;
    uint64_t last = 0, full;
    assert_ok(sel_journal_lmdb_open(&options, &j, &err));
    while (sel_test_append(j, last, 1, true, false, &err) == 0)
        last++;
    full = last;
    for (; last < full + 6; last += 2)
        assert_ok(sel_test_append(j, last, 2, false, true, &err));
    assert_ok(j->ops->drop(j, full - 20, &err));
    struct sel_str large = sel_test_batch_of(1, 700000); /* more than all that is to be freed */
    assert_code(j->ops->append(j, &large, 1, true, false, &(uint64_t){0}, &err), SEL_ELIMIT);
    sel_test_batch_free(large);
    sel_test_holds(j, full - 20, last);
    sel_test_image_load(&image, folder);
    j->ops->close(j);
    const char *killed = folder_of(state, "killed");
    sel_test_image_store(&image, killed);
    struct sel_test_walk walk;
    assert_ok(sel_test_open_damaged(killed, true, &walk));
    assert_int_equal(walk.last, last);
    assert_true(walk.first > 1 && walk.first <= full - 20); /* some were deleted */
    sel_test_image_done(&image);
}

/* A drop of thousands must not make one append wait for all of them. */
static void test_a_large_drop_goes_in_steps(void **state)
{
    struct sel_journal *j = sel_test_journal_open(*state);
    struct sel_journal_stats stats;
    struct sel_error err = {0};
    struct sel_str batches[1000];
    uint64_t last;
    for (size_t i = 0; i < SEL_COUNT(batches); i++)
        batches[i] = sel_test_batch_of(i, 5000); /* two pages */
    for (int i = 0; i < 3; i++)
        assert_ok(j->ops->append(j, batches, 1000, true, false, &last, &err));
    for (size_t i = 0; i < SEL_COUNT(batches); i++)
        sel_test_batch_free(batches[i]);
    assert_ok(j->ops->drop(j, 3000, &err));
    uint64_t before = 0, steps = 0;
    struct sel_str small = SEL_STR("small");
    for (;; steps++) {
        j->ops->stats(j, &stats);
        if (steps > 0 && stats.bytes_used >= before)
            break;
        if (steps > 0) /* 64 of them, and not more */
            assert_true(before - stats.bytes_used < UINT64_C(80) * 8192);
        before = stats.bytes_used;
        assert_ok(j->ops->append(j, &small, 1, true, false, &last, &err));
    }
    assert_in_range(steps, 3000 / 64, 3000 / 64 + 10);
    assert_true(before < 100000);
    assert_int_equal(stats.bytes_live, 5000 + 5 * (last - 3000));
    j->ops->close(j);
}

static void test_compacting_gives_the_room_back(void **state)
{
    struct sel_test_image image = {0};
    struct sel_error err = {0};
    uint64_t before = 0, after = 0;
    const char *folder = folder_of(state, "compact");
    assert_code(sel_journal_lmdb_compact(folder, &before, &after, &err), -ENOENT);
    make_image(folder, 300, 310, &image);
    sel_test_image_store(&image, folder); /* with ten of them in the tail */
    struct sel_journal *j = sel_test_journal_open(folder);
    assert_code(sel_journal_lmdb_compact(folder, &before, &after, &err), -EAGAIN);
    assert_ok(j->ops->drop(j, 290, &err));
    for (uint64_t i = 310; i < 330; i++)
        sel_test_append_ok(j, i, 1, true);
    j->ops->close(j);
    uint64_t size = file_size(folder, "data.mdb");
    assert_ok(sel_journal_lmdb_compact(folder, &before, &after, &err));
    assert_int_equal(before, size);
    assert_int_equal(after, file_size(folder, "data.mdb"));
    assert_true(after < before / 2);
    assert_int_equal(file_size(folder, "data.mdb.new"), 0);
    j = sel_test_journal_open(folder);
    sel_test_holds(j, 290, 330);
    sel_test_append_ok(j, 330, 3, true);
    j->ops->close(j);
    sel_test_image_done(&image);
}

static void test_a_compaction_that_finds_damage_leaves_the_old_one(void **state)
{
    struct sel_test_image image = {0};
    struct sel_error err = {0};
    uint64_t before, after;
    const char *folder = folder_of(state, "j");
    make_image(folder, 50, 50, &image);
    image.data.p[image.data.n / 2] ^= 1;
    uint8_t *payload = image.data.p + image.data.n - 100;
    *payload ^= 1;
    sel_test_image_store(&image, folder);
    assert_code(sel_journal_lmdb_compact(folder, &before, &after, &err), SEL_EFORMAT);
    assert_int_equal(file_size(folder, "data.mdb"), image.data.n);
    sel_test_image_done(&image);
}

static void test_options_are_checked(void **state)
{
    struct sel_journal *j;
    struct sel_error err = {0};
    const struct {
        uint64_t size_max, reserve;
        int code;
    } cases[] = {
        {1000, 0, SEL_ERANGE},
        {1 << 20, 1 << 20, SEL_ERANGE},
        {1 << 20, 1 << 19, 0},
        {0, UINT64_MAX, SEL_ERANGE},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const struct sel_journal_lmdb_options options = {
            .path = *state, .size_max = cases[i].size_max, .reserve = cases[i].reserve};
        assert_code(sel_journal_lmdb_open(&options, &j, &err), cases[i].code);
        if (cases[i].code == 0)
            j->ops->close(j);
    }
    const struct sel_journal_lmdb_options nowhere = {.path = "/dev/null/journal"};
    assert_code(sel_journal_lmdb_open(&nowhere, &j, &err), -ENOTDIR);
    const struct sel_journal_lmdb_options nothing = {.path = ""};
    assert_code(sel_journal_lmdb_open(&nothing, &j, &err), -ENOENT);
}

/* ---- threads ---- */

struct reading {
    struct sel_journal *j;
    _Atomic uint64_t first, last; /* that must be there */
    _Atomic bool is_over;
    uint64_t wrong, seen;
};

static void *read_all_the_time(void *arg)
{
    struct reading *reading = arg;
    struct sel_prng prng = {3};
    struct sel_buf buf = {0};
    struct sel_journal_stats stats;
    while (!atomic_load(&reading->is_over)) {
        uint64_t last = atomic_load(&reading->last), first = atomic_load(&reading->first);
        uint64_t seq = first + sel_prng_below(&prng, last - first + 1);
        sel_buf_clear(&buf);
        int r = reading->j->ops->read(reading->j, seq, 0, sel_test_batch_size(seq), &buf, NULL);
        bool is_dropped = r == SEL_ENOTFOUND && seq < atomic_load(&reading->first);
        reading->wrong += !is_dropped && (r < 0 || !sel_test_batch_is(seq, 0, sel_buf_str(&buf)));
        reading->seen++;
        reading->j->ops->stats(reading->j, &stats);
    }
    sel_buf_done(&buf);
    return NULL;
}

static void test_one_thread_reads_while_another_appends_and_drops(void **state)
{
    struct reading reading = {.j = sel_test_journal_open(*state)};
    struct sel_error err = {0};
    pthread_t thread;
    sel_test_append_ok(reading.j, 0, 10, true);
    atomic_store(&reading.first, 1);
    atomic_store(&reading.last, 10);
    assert_int_equal(pthread_create(&thread, NULL, read_all_the_time, &reading), 0);
    for (uint64_t last = 10; last < 1200; last += 4) {
        sel_test_append_ok(reading.j, last, 4, last % 3 == 0);
        atomic_store(&reading.last, last + 4);
        if (last % 40 == 2 && last > 100) {
            atomic_store(&reading.first, last - 60);
            assert_ok(reading.j->ops->drop(reading.j, last - 60, &err));
        }
    }
    atomic_store(&reading.is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(reading.wrong, 0);
    assert_true(reading.seen > 0);
    reading.j->ops->close(reading.j);
}

static int open_and_use(void *ctx)
{
    struct sel_journal *j;
    struct sel_buf buf = {0};
    const struct sel_str batches[] = {SEL_STR("one"), SEL_STR("two")};
    const struct sel_journal_lmdb_options options = {.path = ctx, .reserve = SEL_TEST_RESERVE};
    uint64_t last;
    int r = sel_journal_lmdb_open(&options, &j, NULL);
    if (r < 0)
        return r;
    r = j->ops->append(j, batches, 2, false, false, &last, NULL);
    if (r == 0)
        r = j->ops->read(j, last, 0, 3, &buf, NULL);
    if (r == 0)
        r = j->ops->append(j, batches, 2, true, false, &last, NULL);
    if (r == 0)
        r = j->ops->drop(j, 2, NULL);
    j->ops->close(j);
    sel_buf_done(&buf);
    return r;
}

static void test_each_allocation_may_fail(void **state)
{
    sel_test_each_alloc_fails(open_and_use, *state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_quick_folder(test_one_process_at_a_time),
        with_quick_folder(test_only_reading_changes_nothing),
        with_quick_folder(test_what_is_no_journal_is_refused),
        with_quick_folder(test_environments_of_others_are_refused),
        with_quick_folder(test_a_newer_format_is_refused),
        with_quick_folder(test_files_that_do_not_belong_together_are_refused),
        with_quick_folder(test_a_flipped_bit_is_found_or_does_no_harm),
        with_quick_folder(test_a_cut_file_is_found),
        with_quick_folder(test_damage_of_the_tail_is_found),
        with_quick_folder(test_after_a_loss_of_power_the_tail_ends_where_it_is_torn),
        with_quick_folder(test_dropped_room_is_used_again),
        with_quick_folder(test_making_room_leaves_what_is_pending),
        with_quick_folder(test_a_large_drop_goes_in_steps),
        with_quick_folder(test_compacting_gives_the_room_back),
        with_quick_folder(test_a_compaction_that_finds_damage_leaves_the_old_one),
        with_quick_folder(test_options_are_checked),
        with_quick_folder(test_one_thread_reads_while_another_appends_and_drops),
        with_quick_folder(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
