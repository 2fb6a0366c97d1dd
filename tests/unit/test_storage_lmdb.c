#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <lmdb.h>

#include "core/id.h"
#include "storage/crc.h"
#include "storage/key.h"
#include "storage/record.h"
#include "tests/support/storage.h"

#define MODULE "selinon.storages.lmdb"
#define NAME "LMDB"
/* Most tests are about something else than the disk. */
#define FAST "{\"path\": \"{FOLDER}/db\", \"sync\": false}"
#define SYNCED "{\"path\": \"{FOLDER}/db\"}"

static struct sel_storage *must_open(const char *config, void *folder)
{
    return sel_test_must_open(MODULE, NAME, config, folder);
}

static void assert_refused(const char *config, void *folder, int code, const char *text)
{
    struct sel_storage *s = NULL;
    struct sel_error err = {0};
    assert_code(sel_test_open(MODULE, NAME, config, folder, &s, &err), code);
    assert_null(s);
    if (!strstr(err.text, text))
        fail_msg("%s: %s", config, err.text);
}

static void run_id(uint32_t ordinal, char out[SEL_RUN_ID_TEXT_SIZE])
{
    sel_id_format_run((struct sel_id){0x0198f3c200007000, 0x8000000000000001}, 1, ordinal, out);
}

/* ---- keys, checksums, records ---- */

static void test_keys_order_as_flow_attempt_and_ordinal(void **state)
{
    (void)state;
    const char *const ids[] = {
        "0198f3c2-0000-7000-8000-000000000001-1.9",
        "0198f3c2-0000-7000-8000-000000000001-1.10",
        "0198f3c2-0000-7000-8000-000000000001-1.300",
        "0198f3c2-0000-7000-8000-000000000001-2.1",
        "0198f3c2-0000-7000-8000-000000000002-1.1",
        "0198F3C2-0000-7000-8000-000000000001-1.9",
        "any other",
    };
    struct sel_storage_key before = {0};
    for (size_t i = 0; i < SEL_COUNT(ids); i++) {
        struct sel_storage_key key;
        assert_true(sel_storage_key_encode(sel_str_c(ids[i]), &key));
        assert_true(sel_str_cmp((struct sel_str){(char *)before.bytes, before.n},
                                (struct sel_str){(char *)key.bytes, key.n}) < 0);
        before = key;
    }
}

static void test_checksum_is_crc32c_with_and_without_the_instruction(void **state)
{
    (void)state;
    const char text[] = "123456789"; /* the check value of the catalogue of CRCs */
    assert_int_equal(sel_crc32c(0, text, 9), 0xe3069283);
    for (size_t n = 0; n <= 9; n++) {
        uint32_t whole = sel_crc32c(0, text, 9);
        assert_int_equal(sel_crc32c_portable(0, text, n), sel_crc32c(0, text, n));
        assert_int_equal(sel_crc32c(sel_crc32c(0, text, n), text + n, 9 - n), whole);
    }
}

static void test_every_damaged_bit_of_a_record_is_noticed(void **state)
{
    (void)state;
    const struct sel_str key = SEL_STR("key");
    const struct sel_str parts[] = {SEL_STR("flow"), SEL_STR(""), SEL_STR("value")};
    struct sel_str got[3];
    char record[64];
    size_t n = sel_record_size(parts, 3);
    assert_true(n <= sizeof(record));
    sel_record_pack(record, key, parts, 3);
    assert_ok(sel_record_unpack(key, (struct sel_str){record, n}, got, 3));
    assert_str_is(got[0], "flow");
    assert_str_is(got[1], "");
    assert_str_is(got[2], "value");
    assert_code(sel_record_unpack(SEL_STR("kex"), (struct sel_str){record, n}, got, 3),
                SEL_EFORMAT);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        record[bit / 8] = (char)(record[bit / 8] ^ 1 << bit % 8);
        assert_true(sel_record_unpack(key, (struct sel_str){record, n}, got, 3) < 0);
        record[bit / 8] = (char)(record[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_code(sel_record_unpack(key, (struct sel_str){record, cut}, got, 3), SEL_EFORMAT);
    record[0] = SEL_RECORD_FORMAT + 1;
    assert_code(sel_record_unpack(key, (struct sel_str){record, n}, got, 3), SEL_EVERSION);
}

/* ---- records ---- */

static void test_the_first_result_of_an_id_wins(void **state)
{
    struct sel_storage *s = must_open(SYNCED, *state);
    assert_missing(s, "a");
    assert_int_equal(sel_test_store(s, "a", "{\"x\":1}"), SEL_STORE_OK);
    assert_int_equal(sel_test_store(s, "a", "2"), SEL_STORE_EXISTS);
    assert_stored(s, "a", "{\"x\":1}");
    assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_OK);
    assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_MISSING);
    assert_missing(s, "a");
    s->ops->close(s);
}

static void test_results_survive_reopening(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    char id[SEL_RUN_ID_TEXT_SIZE];
    for (uint32_t i = 0; i < 300; i++) {
        run_id(i * 7 % 300, id); /* in order and out of it */
        assert_int_equal(sel_test_store(s, id, "{\"words\":17}"), SEL_STORE_OK);
    }
    s->ops->close(s);
    s = must_open(FAST, *state);
    for (uint32_t i = 0; i < 300; i++) {
        run_id(i, id);
        assert_stored(s, id, "{\"words\":17}");
        assert_int_equal(sel_test_store(s, id, "0"), SEL_STORE_EXISTS);
    }
    run_id(300, id);
    assert_missing(s, id);
    s->ops->close(s);
}

static void test_a_batch_gives_a_status_to_each_record(void **state)
{
    char long_id[600];
    memset(long_id, 'a', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    struct sel_storage *s = must_open(FAST, *state);
    struct sel_arena arena = {0};
    struct sel_storage_item items[] = {
        sel_test_item("b", SEL_STR("\x01")), sel_test_item("a", SEL_STR("\x02")),
        sel_test_item("b", SEL_STR("\x03")), sel_test_item(long_id, SEL_STR("\x04")),
        sel_test_item("", SEL_STR("\x05")),
    };
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, items, SEL_COUNT(items), NULL));
    assert_int_equal(items[0].status, SEL_STORE_OK);
    assert_str_is(items[0].record_id, "b");
    assert_int_equal(items[1].status, SEL_STORE_OK);
    assert_int_equal(items[2].status, SEL_STORE_EXISTS);
    assert_int_equal(items[3].status, SEL_STORE_FAILED);
    assert_non_null(items[3].message);
    assert_int_equal(items[4].status, SEL_STORE_FAILED);
    assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, items, SEL_COUNT(items), NULL));
    assert_str_is(items[0].value, "\x01");
    assert_str_is(items[1].value, "\x02");
    assert_int_equal(items[3].status, SEL_STORE_MISSING);
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, NULL, 0, NULL));
    sel_arena_done(&arena);
    s->ops->close(s);
}

static void test_a_batch_larger_than_a_transaction_is_stored_whole(void **state)
{
    enum { COUNT = 40000 };
    struct sel_storage *s = must_open(FAST, *state);
    struct sel_arena arena = {0};
    struct sel_storage_item *items = SEL_ARENA_NEW_ARRAY(&arena, struct sel_storage_item, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        items[i] = sel_test_item(sel_arena_strdup(&arena, sel_str_c(id)), SEL_STR("\x01"));
    }
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, items, COUNT, NULL));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(items[i].status, SEL_STORE_OK);
    assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, items, COUNT, NULL));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(items[i].status, SEL_STORE_OK);
    sel_arena_done(&arena);
    s->ops->close(s);
}

static void test_errors_are_kept_and_the_last_counts(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    struct sel_arena arena = {0};
    struct sel_storage_item item = sel_test_item("a", (struct sel_str){NULL, 0});
    assert_ok(s->ops->get_error(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_MISSING);
    for (int i = 0; i < 2; i++) {
        item.error_class = i ? SEL_STR("TypeError") : SEL_STR("ValueError");
        item.error_message = i ? SEL_STR("not a number") : SEL_STR("");
        assert_ok(s->ops->put_error(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_OK);
    }
    item.error_class = item.error_message = (struct sel_str){NULL, 0};
    assert_ok(s->ops->get_error(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_OK);
    assert_str_is(item.error_class, "TypeError");
    assert_str_is(item.error_message, "not a number");
    assert_missing(s, "a"); /* an error is no result */
    assert_int_equal(sel_test_store(s, "a", "1"), SEL_STORE_OK);
    assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_OK);
    assert_ok(s->ops->get_error(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_MISSING);
    sel_arena_done(&arena);
    s->ops->close(s);
}

/* ---- looking at the environment from outside, while it is closed ---- */

struct outside {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
};

static struct outside outside_open(const char *folder, const char *db)
{
    struct outside o;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/db", folder);
    assert_int_equal(mdb_env_create(&o.env), 0);
    assert_int_equal(mdb_env_set_maxdbs(o.env, 4), 0);
    assert_int_equal(mdb_env_open(o.env, path, 0, 0644), 0);
    assert_int_equal(mdb_txn_begin(o.env, NULL, 0, &o.txn), 0);
    assert_int_equal(mdb_dbi_open(o.txn, db, 0, &o.dbi), 0);
    return o;
}

static void outside_close(struct outside *o)
{
    assert_int_equal(mdb_txn_commit(o->txn), 0);
    mdb_env_close(o->env);
}

static void test_trace_events_are_kept_in_order(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    for (int i = 0; i < 3; i++) {
        if (i == 2) { /* counting goes on after a restart */
            s->ops->close(s);
            s = must_open(FAST, *state);
        }
        const struct sel_storage_event event = {SEL_STR("TASK_START"), SEL_STR("\x80")};
        assert_ok(s->ops->trace(s, sel_io_blocking(), &event, 1, NULL));
    }
    s->ops->close(s);
    struct outside o = outside_open(*state, "trace");
    MDB_cursor *cursor;
    MDB_val k, v;
    int count = 0;
    assert_int_equal(mdb_cursor_open(o.txn, o.dbi, &cursor), 0);
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
        struct sel_str parts[2];
        count++;
        assert_int_equal(k.mv_size, 8);
        assert_int_equal(((uint8_t *)k.mv_data)[7], count);
        assert_ok(sel_record_unpack((struct sel_str){k.mv_data, k.mv_size},
                                    (struct sel_str){v.mv_data, v.mv_size}, parts, 2));
        assert_str_is(parts[0], "TASK_START");
        assert_str_is(parts[1], "\x80");
    }
    assert_int_equal(count, 3);
    mdb_cursor_close(cursor);
    outside_close(&o);
}

static void test_a_damaged_record_is_named(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    assert_int_equal(sel_test_store(s, "good", "\"a result\""), SEL_STORE_OK);
    assert_int_equal(sel_test_store(s, "bad", "\"a result\""), SEL_STORE_OK);
    s->ops->close(s);
    struct outside o = outside_open(*state, "results");
    struct sel_storage_key key;
    assert_true(sel_storage_key_encode(SEL_STR("bad"), &key));
    MDB_val k = {key.n, key.bytes}, v;
    char copy[256];
    assert_int_equal(mdb_get(o.txn, o.dbi, &k, &v), 0);
    assert_true(v.mv_size <= sizeof(copy));
    memcpy(copy, v.mv_data, v.mv_size);
    copy[v.mv_size - 2] ^= 1;
    v.mv_data = copy;
    assert_int_equal(mdb_put(o.txn, o.dbi, &k, &v, 0), 0);
    outside_close(&o);
    s = must_open(FAST, *state);
    struct sel_arena arena = {0};
    struct sel_storage_item item = sel_test_item("bad", (struct sel_str){NULL, 0});
    assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_FAILED);
    assert_non_null(strstr(item.message, "record 'bad'"));
    assert_non_null(strstr(item.message, "damaged"));
    assert_stored(s, "good", "\"a result\"");
    sel_arena_done(&arena);
    s->ops->close(s);
}

/* ---- opening ---- */

static void test_storages_with_one_path_share_the_environment(void **state)
{
    struct sel_storage *a = must_open(FAST, *state);
    struct sel_storage *b = must_open("{\"path\": \"{FOLDER}/./db/\", \"sync\": false}", *state);
    assert_int_equal(sel_test_store(a, "x", "1"), SEL_STORE_OK);
    assert_stored(b, "x", "1");
    assert_refused(SYNCED, *state, SEL_ECONFIG, "another 'sync'");
    a->ops->close(a);
    assert_int_equal(sel_test_store(b, "y", "2"), SEL_STORE_OK);
    b->ops->close(b);
    a = must_open(SYNCED, *state);
    assert_stored(a, "y", "2");
    a->ops->close(a);
}

static void test_bad_configurations_are_refused(void **state)
{
    assert_refused("{\"pat\": \"x\"}", *state, SEL_ECONFIG, "did you mean 'path'?");
    assert_refused("{\"path\": 1}", *state, SEL_ECONFIG, "'path' must be text, not int");
    assert_refused("{\"path\": \"\"}", *state, SEL_ECONFIG, "'path' is empty");
    assert_refused("{\"path\": \"{NONE}/db\"}", *state, SEL_ENOTFOUND, "'NONE' is not set");
    assert_refused("{\"map_size\": -1}", *state, SEL_ECONFIG, "'map_size' must be a whole number");
    assert_refused("{\"map_size\": 1}", *state, SEL_ECONFIG, "'map_size' must be a whole number");
    assert_refused("{\"map_size\": 1e9}", *state, SEL_ECONFIG, "not float");
    assert_refused("{\"sync\": \"no\"}", *state, SEL_ECONFIG, "'sync' must be true or false");
    assert_refused("[\"x\"]", *state, SEL_ECONFIG, "write a mapping");
    assert_refused("\"x\"", *state, SEL_ECONFIG, "write a mapping");
}

static void data_file(const char *folder, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%s/db/data.mdb", folder);
}

static void test_a_cut_file_is_refused_before_it_is_mapped(void **state)
{
    char path[PATH_MAX];
    struct stat st;
    struct sel_storage *s = must_open(FAST, *state);
    for (uint32_t i = 0; i < 200; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        assert_int_equal(sel_test_store(s, id, "\"0123456789012345678901234567890123456789\""),
                         SEL_STORE_OK);
    }
    s->ops->close(s);
    data_file(*state, path);
    assert_int_equal(stat(path, &st), 0);
    const off_t sizes[] = {st.st_size - 1, st.st_size / 2, 8192, 8191, 5000, 4096, 100, 1};
    for (size_t i = 0; i < SEL_COUNT(sizes); i++) {
        assert_int_equal(truncate(path, sizes[i]), 0);
        assert_refused(FAST, *state, SEL_EFORMAT, "is damaged");
    }
}

static void test_foreign_files_are_refused(void **state)
{
    char path[PATH_MAX];
    struct sel_storage *s = must_open(FAST, *state);
    s->ops->close(s);
    data_file(*state, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 20000; i++)
        assert_int_not_equal(fputc('x', file), EOF);
    assert_int_equal(fclose(file), 0);
    assert_refused(FAST, *state, SEL_EFORMAT, "no LMDB environment");
}

static void test_environments_of_others_and_newer_ones_are_refused(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    s->ops->close(s);
    struct outside o = outside_open(*state, NULL);
    MDB_val k = {15, "selinon-results"}, v = {2, "99"};
    assert_int_equal(mdb_put(o.txn, o.dbi, &k, &v, 0), 0);
    outside_close(&o);
    assert_refused(FAST, *state, SEL_EVERSION, "layout version 99");
    o = outside_open(*state, NULL);
    assert_int_equal(mdb_del(o.txn, o.dbi, &k, NULL), 0);
    outside_close(&o);
    assert_refused(FAST, *state, SEL_EFORMAT, "another program");
}

static void test_a_folder_that_cannot_be_written_is_refused(void **state)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/file", (char *)*state);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_refused("{\"path\": \"{FOLDER}/file/db\"}", *state, -ENOTDIR, "cannot make the folder");
    if (geteuid() == 0) {
        /* Permissions do not stop root; a read-only mount does. */
        (void)snprintf(path, sizeof(path), "%s/db", (char *)*state);
        assert_int_equal(mkdir(path, 0755), 0);
        if (mount("none", path, "tmpfs", MS_RDONLY, "size=1m") < 0) {
            print_message("skipped: no right to mount\n");
            skip();
        }
        struct sel_storage *s = NULL;
        struct sel_error err = {0};
        int r = sel_test_open(MODULE, NAME, SYNCED, *state, &s, &err);
        assert_int_equal(umount(path), 0);
        assert_code(r, -EROFS);
        assert_non_null(strstr(err.text, "for writing"));
        return;
    }
    (void)snprintf(path, sizeof(path), "%s/db", (char *)*state);
    assert_int_equal(mkdir(path, 0555), 0);
    assert_refused(SYNCED, *state, -EACCES, "for writing");
}

/* ---- room ---- */

static void test_the_map_grows_while_others_read(void **state)
{
    struct sel_storage *s =
        must_open("{\"path\": \"{FOLDER}/db\", \"sync\": false, \"map_size\": 65536}", *state);
    struct sel_arena arena = {0};
    char *large = sel_arena_alloc(&arena, 300000);
    for (uint32_t i = 0; i < 10; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        struct sel_storage_item item = sel_test_item(id, (struct sel_str){large, 300000});
        assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_OK);
        assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_OK);
        assert_int_equal(item.value.n, 300000);
    }
    sel_arena_done(&arena);
    s->ops->close(s);
}

/* Stores numbered records until one fails; returns how many were acknowledged. */
static uint32_t fill_up(struct sel_storage *s, char *ret_message, size_t size)
{
    static char large[50000];
    for (uint32_t i = 0; i < 1000; i++) {
        struct sel_arena arena = {0};
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        large[0] = (char)i;
        struct sel_storage_item item = sel_test_item(id, (struct sel_str){large, sizeof(large)});
        assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
        if (item.status != SEL_STORE_OK)
            (void)snprintf(ret_message, size, "%s", item.message);
        sel_arena_done(&arena);
        if (item.status != SEL_STORE_OK)
            return i;
    }
    return 1000;
}

static void assert_all_there(struct sel_storage *s, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct sel_arena arena = {0};
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        struct sel_storage_item item = sel_test_item(id, (struct sel_str){NULL, 0});
        assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_OK);
        assert_int_equal(item.value.n, 50000);
        assert_int_equal(item.value.p[0], (char)i);
        sel_arena_done(&arena);
    }
}

static void test_a_full_disk_loses_nothing_and_is_left_behind(void **state)
{
    char path[PATH_MAX], ballast[PATH_MAX], message[512] = "";
    (void)snprintf(path, sizeof(path), "%s/db", (char *)*state);
    (void)snprintf(ballast, sizeof(ballast), "%s/db/ballast", (char *)*state);
    assert_int_equal(mkdir(path, 0755), 0);
    if (geteuid() != 0 || mount("none", path, "tmpfs", 0, "size=4m") < 0) {
        print_message("skipped: no right to mount a small file system\n");
        skip();
    }
    int fd = open(ballast, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    assert_int_equal(posix_fallocate(fd, 0, 2 << 20), 0);
    close(fd);
    struct sel_storage *s = must_open(SYNCED, *state);
    uint32_t count = fill_up(s, message, sizeof(message));
    assert_in_range(count, 1, 999);
    if (!strstr(message, path) || !strstr(message, "No space left on device"))
        fail_msg("%s", message);
    assert_all_there(s, count);
    assert_int_equal(unlink(ballast), 0);
    char id[SEL_RUN_ID_TEXT_SIZE];
    run_id(count, id);
    assert_int_equal(sel_test_store(s, id, "\"room again\""), SEL_STORE_OK);
    s->ops->close(s);
    s = must_open(SYNCED, *state);
    assert_all_there(s, count);
    assert_stored(s, id, "\"room again\"");
    s->ops->close(s);
    assert_int_equal(umount(path), 0);
}

static void test_a_limit_on_the_size_of_files_fails_the_store(void **state)
{
    char message[512] = "";
    struct rlimit before, limit;
    struct sel_storage *s = must_open(FAST, *state);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 1 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    uint32_t count = fill_up(s, message, sizeof(message));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_in_range(count, 1, 999);
    assert_non_null(strstr(message, "cannot write to"));
    assert_all_there(s, count);
    char id[SEL_RUN_ID_TEXT_SIZE];
    run_id(count, id);
    assert_int_equal(sel_test_store(s, id, "1"), SEL_STORE_OK);
    s->ops->close(s);
}

/* ---- threads and processes ---- */

#define THREADS 4
#define IDS 200

struct storer {
    struct sel_storage *s;
    uint32_t first; /* of its own ids */
    uint32_t won;   /* of the ids of all */
};

static void *store_all(void *arg)
{
    struct storer *storer = arg;
    for (uint32_t i = 0; i < IDS; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(storer->first + i, id);
        assert_int_equal(sel_test_store(storer->s, id, "[1,2,3]"), SEL_STORE_OK);
        run_id(i, id);
        storer->won += sel_test_store(storer->s, id, "\"shared\"") == SEL_STORE_OK;
        assert_stored(storer->s, id, "\"shared\"");
    }
    return NULL;
}

static void test_threads_store_each_id_once(void **state)
{
    struct sel_storage *s =
        must_open("{\"path\": \"{FOLDER}/db\", \"sync\": false, \"map_size\": 65536}", *state);
    struct storer storers[THREADS];
    pthread_t threads[THREADS];
    uint32_t won = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        storers[i] = (struct storer){s, (i + 1) * 1000, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, store_all, &storers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        won += storers[i].won;
    }
    assert_int_equal(won, IDS);
    s->ops->close(s);
}

/* Stores numbered records and says each number that was acknowledged, until it is killed. */
static void store_until_killed(void *folder, int fd)
{
    struct sel_storage *s = must_open(SYNCED, folder);
    for (uint32_t i = 0;; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        if (sel_test_store(s, id, "\"acknowledged\"") != SEL_STORE_OK ||
            write(fd, &i, sizeof(i)) != sizeof(i))
            _exit(1);
    }
}

static void test_what_was_acknowledged_survives_a_kill(void **state)
{
    int pipe_fds[2];
    uint32_t last = 0, n = 0;
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(pipe_fds[0]);
        store_until_killed(*state, pipe_fds[1]);
        _exit(1);
    }
    close(pipe_fds[1]);
    while (n < 50 && read(pipe_fds[0], &last, sizeof(last)) == sizeof(last))
        n++;
    assert_int_equal(n, 50);
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (read(pipe_fds[0], &last, sizeof(last)) == sizeof(last))
        n++;
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(pipe_fds[0]);
    assert_int_equal(last + 1, n);
    struct sel_storage *s = must_open(SYNCED, *state);
    for (uint32_t i = 0; i <= last; i++) {
        char id[SEL_RUN_ID_TEXT_SIZE];
        run_id(i, id);
        assert_stored(s, id, "\"acknowledged\"");
    }
    s->ops->close(s);
}

static void test_another_process_may_grow_the_map(void **state)
{
    struct sel_storage *s =
        must_open("{\"path\": \"{FOLDER}/db\", \"sync\": false, \"map_size\": 65536}", *state);
    assert_int_equal(sel_test_store(s, "mine", "1"), SEL_STORE_OK);
    pid_t pid = fork(); /* the child must not touch what it inherits of LMDB, only its own */
    assert_true(pid >= 0);
    if (pid == 0) {
        char path[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s/db", (char *)*state);
        execl("/proc/self/exe", "grow", "--grow", *state, NULL);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_stored(s, "mine", "1");
    assert_stored(s, "theirs", "2");
    assert_int_equal(sel_test_store(s, "mine too", "3"), SEL_STORE_OK);
    assert_stored(s, "mine too", "3");
    s->ops->close(s);
}

/* The other process of the test above. */
static int grow(char *folder)
{
    char message[512];
    struct sel_storage *s = must_open(FAST, folder);
    bool fine = sel_test_store(s, "theirs", "2") == SEL_STORE_OK &&
                fill_up(s, message, sizeof(message)) == 1000;
    s->ops->close(s);
    return fine ? 0 : 1;
}

static void test_without_memory_opening_fails_clean(void **state)
{
    struct sel_error err;
    int r = SEL_ENOMEM;
    for (int n = 1; r == SEL_ENOMEM; n++) {
        struct sel_storage *s = NULL;
        struct sel_storage_options options = {
            .name = SEL_STR("S"), .getenv = sel_test_getenv, .getenv_ctx = *state};
        struct sel_arena arena = {0};
        struct sel_value v = sel_test_json(&arena, FAST);
        options.config = &v;
        sel_mem_fail_at(n);
        r = sel_storage_find(SEL_STR(MODULE), SEL_STR(NAME))
                ->open(&options, sel_io_blocking(), &s, &err);
        sel_mem_fail_at(0);
        if (r == 0)
            s->ops->close(s);
        else
            assert_null(s);
        sel_arena_done(&arena);
    }
    assert_ok(r);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--grow") == 0)
        return grow(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_order_as_flow_attempt_and_ordinal),
        cmocka_unit_test(test_checksum_is_crc32c_with_and_without_the_instruction),
        cmocka_unit_test(test_every_damaged_bit_of_a_record_is_noticed),
        with_folder(test_the_first_result_of_an_id_wins),
        with_folder(test_results_survive_reopening),
        with_folder(test_a_batch_gives_a_status_to_each_record),
        with_folder(test_a_batch_larger_than_a_transaction_is_stored_whole),
        with_folder(test_errors_are_kept_and_the_last_counts),
        with_folder(test_trace_events_are_kept_in_order),
        with_folder(test_a_damaged_record_is_named),
        with_folder(test_storages_with_one_path_share_the_environment),
        with_folder(test_bad_configurations_are_refused),
        with_folder(test_a_cut_file_is_refused_before_it_is_mapped),
        with_folder(test_foreign_files_are_refused),
        with_folder(test_environments_of_others_and_newer_ones_are_refused),
        with_folder(test_a_folder_that_cannot_be_written_is_refused),
        with_folder(test_the_map_grows_while_others_read),
        with_folder(test_a_full_disk_loses_nothing_and_is_left_behind),
        with_folder(test_a_limit_on_the_size_of_files_fails_the_store),
        with_folder(test_threads_store_each_id_once),
        with_folder(test_what_was_acknowledged_survives_a_kill),
        with_folder(test_another_process_may_grow_the_map),
        with_folder(test_without_memory_opening_fails_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
