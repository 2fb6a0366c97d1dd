#include <errno.h>
#include <pthread.h>
#include <sys/mount.h>

#include "tests/support/storage.h"

#define MODULE "selinon.storages.filesystem"
#define NAME "Filesystem"
#define FAST "{\"path\": \"{FOLDER}/results\", \"sync\": false}"
#define SYNCED "{\"path\": \"{FOLDER}/results\"}"

static struct sel_storage *must_open(const char *config, void *folder)
{
    return sel_test_must_open(MODULE, NAME, config, folder);
}

static void path_of(const char *folder, const char *file, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%s/results/flow1/Task1/%s", folder, file);
}

static int count_files(const char *folder)
{
    char path[PATH_MAX];
    int count = 0;
    path_of(folder, "", path);
    DIR *dir = opendir(path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir)
        closedir(dir);
    return count;
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];
    path_of(folder, name, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_the_first_result_of_an_id_wins(void **state)
{
    const char *const configs[] = {SYNCED, FAST};
    for (size_t i = 0; i < SEL_COUNT(configs); i++) {
        struct sel_storage *s = must_open(configs[i], *state);
        assert_missing(s, "a");
        assert_int_equal(sel_test_store(s, "a", "{\"x\":[1,1.0,null]}"), SEL_STORE_OK);
        assert_int_equal(sel_test_store(s, "a", "2"), SEL_STORE_EXISTS);
        assert_stored(s, "a", "{\"x\":[1,1.0,null]}");
        assert_int_equal(count_files(*state), 1); /* nothing temporary is left */
        assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_OK);
        assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_MISSING);
        assert_missing(s, "a");
        s->ops->close(s);
    }
}

static void test_the_layout_is_flow_task_id(void **state)
{
    struct sel_storage *s = must_open(SYNCED, *state);
    struct sel_arena arena = {0};
    struct sel_storage_item item =
        sel_test_item("id-1", sel_test_bytes(&arena, "{\"a\": \"\\u00e9\"}"));
    char path[PATH_MAX], text[64] = "";
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
    path_of(*state, "id-1.json", path);
    assert_str_is(item.record_id, path);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    fclose(file);
    assert_string_equal(text, "{\"a\":\"\xc3\xa9\"}\n");
    sel_arena_done(&arena);
    s->ops->close(s);
}

static void test_a_file_of_the_original_is_read(void **state)
{
    struct sel_storage *s = must_open(SYNCED, *state);
    assert_int_equal(sel_test_store(s, "x", "0"), SEL_STORE_OK);
    write_file(*state, "old.json", "{\"key\": [1, 2.5, \"text\"], \"b\": true}");
    assert_stored(s, "old", "{\"b\":true,\"key\":[1,2.5,\"text\"]}");
    s->ops->close(s);
}

static void test_a_damaged_file_is_named(void **state)
{
    const char *const texts[] = {"", "{\"a\":", "NaN", "[1] x", "\xff"};
    struct sel_storage *s = must_open(FAST, *state);
    assert_int_equal(sel_test_store(s, "x", "0"), SEL_STORE_OK);
    for (size_t i = 0; i < SEL_COUNT(texts); i++) {
        struct sel_arena arena = {0};
        struct sel_storage_item item = sel_test_item("bad", (struct sel_str){NULL, 0});
        write_file(*state, "bad.json", texts[i]);
        assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_FAILED);
        assert_non_null(strstr(item.message, "the file is damaged"));
        assert_non_null(strstr(item.message, "flow1/Task1/bad.json"));
        sel_arena_done(&arena);
    }
    s->ops->close(s);
}

static void test_no_name_leads_out_of_the_folder(void **state)
{
    const struct sel_str fine = SEL_STR("a");
    const struct sel_str names[] = {SEL_STR(""),     SEL_STR("."),      SEL_STR(".."),
                                    SEL_STR("a/b"),  SEL_STR("/etc"),   SEL_STR("../../x"),
                                    SEL_STR("a\0b"), SEL_STR("../a/..")};
    struct sel_storage *s = must_open(FAST, *state);
    for (size_t i = 0; i < SEL_COUNT(names) * 3; i++) {
        struct sel_arena arena = {0};
        struct sel_storage_item item = {.flow = i % 3 == 0 ? names[i / 3] : fine,
                                        .task = i % 3 == 1 ? names[i / 3] : fine,
                                        .id = i % 3 == 2 ? names[i / 3] : fine,
                                        .value = SEL_STR("\x01")};
        assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_FAILED);
        assert_ok(s->ops->retrieve(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_FAILED);
        assert_ok(s->ops->del(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_FAILED);
        sel_arena_done(&arena);
    }
    s->ops->close(s);
}

static void test_what_json_cannot_carry_is_refused(void **state)
{
    const struct {
        struct sel_str value;
        const char *text;
    } cases[] = {
        {SEL_STR("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"), "NaN"},
        {SEL_STR("\x91\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "infinity"},
        {SEL_STR("\xc4\x01x"), "bytes"},
        {SEL_STR("\x81\x01\x02"), "keys"},
        {SEL_STR("\xc1"), "no value"},
        {SEL_STR(""), "no value"},
    };
    struct sel_storage *s = must_open(FAST, *state);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_storage_item item = sel_test_item("a", cases[i].value);
        assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
        assert_int_equal(item.status, SEL_STORE_FAILED);
        if (!strstr(item.message, cases[i].text))
            fail_msg("%zu: %s", i, item.message);
        sel_arena_done(&arena);
    }
    assert_int_equal(count_files(*state), 0);
    s->ops->close(s);
}

static void test_a_large_result_comes_back_whole(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    struct sel_arena arena = {0};
    struct sel_buf text = {0};
    sel_buf_put_c(&text, "[0");
    for (int i = 1; i < 100000; i++)
        sel_buf_printf(&text, ",%d", i);
    sel_buf_put_c(&text, "]");
    assert_int_equal(sel_test_store(s, "large", sel_buf_cstr(&text)), SEL_STORE_OK);
    assert_stored(s, "large", sel_buf_cstr(&text));
    sel_buf_done(&text);
    sel_arena_done(&arena);
    s->ops->close(s);
}

static void test_names_left_by_a_dead_process_are_passed_over(void **state)
{
    char name[64], path[PATH_MAX];
    struct sel_storage *s = must_open(FAST, *state);
    assert_int_equal(sel_test_store(s, "a", "1"), SEL_STORE_OK);
    s->ops->close(s);
    for (int i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof(name), ".%ld-%d.tmp", (long)getpid(), i);
        write_file(*state, name, "left behind");
    }
    s = must_open(FAST, *state);
    assert_int_equal(sel_test_store(s, "b", "2"), SEL_STORE_OK);
    assert_stored(s, "b", "2");
    path_of(*state, name, path);
    assert_int_equal(access(path, F_OK), 0);
    s->ops->close(s);
}

static void test_trace_events_are_lines(void **state)
{
    char path[PATH_MAX], line[100];
    struct sel_storage *s = must_open(SYNCED, *state);
    struct sel_arena arena = {0};
    for (int i = 0; i < 2; i++) {
        struct sel_storage_event event = {SEL_STR("TASK_START"),
                                          sel_test_bytes(&arena, i ? "{\"n\":1}" : "{\"n\":0}")};
        assert_ok(s->ops->trace(s, sel_io_blocking(), &event, 1, NULL));
    }
    s->ops->close(s);
    (void)snprintf(path, sizeof(path), "%s/results/trace.jsonl", (char *)*state);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int i = 0; i < 2; i++) {
        assert_non_null(fgets(line, sizeof(line), file));
        assert_string_equal(line, i ? "{\"event\":\"TASK_START\",\"details\":{\"n\":1}}\n"
                                    : "{\"event\":\"TASK_START\",\"details\":{\"n\":0}}\n");
    }
    assert_null(fgets(line, sizeof(line), file));
    fclose(file);
    sel_arena_done(&arena);
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

static void test_bad_configurations_are_refused(void **state)
{
    assert_refused("{\"pfad\": \"x\"}", *state, SEL_ECONFIG, "it takes path, sync");
    assert_refused("{\"paths\": \"x\"}", *state, SEL_ECONFIG, "did you mean 'path'?");
    assert_refused("{\"path\": 1}", *state, SEL_ECONFIG, "'path' must be text");
    assert_refused("{\"path\": \"{NONE}\"}", *state, SEL_ENOTFOUND, "'NONE' is not set");
    assert_refused("[\"x\"]", *state, SEL_ECONFIG, "write a mapping");
}

static void test_folders_that_cannot_be_written_are_refused(void **state)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/file", (char *)*state);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_refused("{\"path\": \"{FOLDER}/file/x\"}", *state, -ENOTDIR, "cannot write into");
    assert_refused("{\"path\": \"{FOLDER}/file\"}", *state, -ENOTDIR, "cannot write into");
    (void)snprintf(path, sizeof(path), "%s/results", (char *)*state);
    if (geteuid() != 0) {
        assert_int_equal(mkdir(path, 0555), 0);
        assert_refused(SYNCED, *state, -EACCES, "cannot write into");
        return;
    }
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
}

static void test_a_full_disk_fails_the_store_and_leaves_no_half_file(void **state)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/results", (char *)*state);
    assert_int_equal(mkdir(path, 0755), 0);
    if (geteuid() != 0 || mount("none", path, "tmpfs", 0, "size=64k") < 0) {
        print_message("skipped: no right to mount a small file system\n");
        skip();
    }
    struct sel_storage *s = must_open(SYNCED, *state);
    struct sel_arena arena = {0};
    char *large = sel_arena_alloc(&arena, 200000);
    memset(large, 'a', 200000);
    memcpy(large, "\xdb\x00\x03\x0d\x3b", 5); /* a text of 199,995 bytes */
    struct sel_storage_item item = sel_test_item("large", (struct sel_str){large, 200000});
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_FAILED);
    if (!strstr(item.message, "No space left on device"))
        fail_msg("%s", item.message);
    assert_int_equal(count_files(*state), 0);
    assert_int_equal(sel_test_store(s, "small", "1"), SEL_STORE_OK);
    sel_arena_done(&arena);
    s->ops->close(s);
    assert_int_equal(umount(path), 0);
}

/* ---- an io that cancels ---- */

struct canceling {
    struct sel_io io;
    int left; /* calls before the cancellation */
};

static int cancel(struct sel_io *io)
{
    return ((struct canceling *)io)->left-- > 0 ? 0 : SEL_ECANCELED;
}

static int canceling_open(struct sel_io *io, const char *path, int flags, mode_t mode)
{
    struct sel_io *real = sel_io_blocking();
    int r = cancel(io);
    return r < 0 ? r : real->ops->open(real, path, flags, mode);
}

static ssize_t canceling_pwrite(struct sel_io *io, int fd, const void *p, size_t n, int64_t offset)
{
    struct sel_io *real = sel_io_blocking();
    int r = cancel(io);
    return r < 0 ? r : real->ops->pwrite(real, fd, p, n, offset);
}

static int canceling_fsync(struct sel_io *io, int fd)
{
    struct sel_io *real = sel_io_blocking();
    int r = cancel(io);
    return r < 0 ? r : real->ops->fsync(real, fd);
}

static int canceling_link(struct sel_io *io, const char *from, const char *to)
{
    struct sel_io *real = sel_io_blocking();
    int r = cancel(io);
    return r < 0 ? r : real->ops->link(real, from, to);
}

static void test_a_cancelled_store_leaves_nothing_behind(void **state)
{
    struct sel_storage *s = must_open(SYNCED, *state);
    assert_int_equal(sel_test_store(s, "first", "1"), SEL_STORE_OK);
    struct sel_io_ops ops = *sel_io_blocking()->ops;
    ops.open = canceling_open;
    ops.pwrite = canceling_pwrite;
    ops.fsync = canceling_fsync;
    ops.link = canceling_link;
    for (int calls = 0; calls < 4; calls++) { /* open, pwrite, fsync, link */
        struct canceling canceling = {{&ops}, calls};
        struct sel_arena arena = {0};
        struct sel_storage_item item = sel_test_item("a", SEL_STR("\x01"));
        struct sel_error err;
        assert_code(s->ops->store(s, &canceling.io, &arena, &item, 1, &err), SEL_ECANCELED);
        assert_int_equal(count_files(*state), 1);
        sel_arena_done(&arena);
    }
    s->ops->close(s);
}

/* ---- threads ---- */

#define THREADS 4
#define IDS 50

static void *store_all(void *arg)
{
    struct sel_storage *s = arg;
    uintptr_t won = 0;
    for (int i = 0; i < IDS; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "id-%d", i);
        won += sel_test_store(s, id, "[1,2,3]") == SEL_STORE_OK;
        assert_stored(s, id, "[1,2,3]");
    }
    return (void *)won;
}

static void test_threads_store_each_id_once(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    pthread_t threads[THREADS];
    uintptr_t sum = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, store_all, s), 0);
    for (int i = 0; i < THREADS; i++) {
        void *won;
        assert_int_equal(pthread_join(threads[i], &won), 0);
        sum += (uintptr_t)won;
    }
    assert_int_equal(sum, IDS);
    assert_int_equal(count_files(*state), IDS);
    s->ops->close(s);
}

static void test_without_memory_a_store_fails_or_is_whole(void **state)
{
    struct sel_storage *s = must_open(FAST, *state);
    struct sel_arena value = {0};
    struct sel_str bytes = sel_test_bytes(&value, "{\"a\": [1, 2, 3]}");
    bool stored = false;
    for (int n = 1; !stored; n++) {
        struct sel_arena arena = {0};
        struct sel_storage_item item = sel_test_item("a", bytes);
        struct sel_error err;
        sel_mem_fail_at(n);
        int r = s->ops->store(s, sel_io_blocking(), &arena, &item, 1, &err);
        sel_mem_fail_at(0);
        stored = r == 0 && item.status != SEL_STORE_FAILED;
        assert_true(stored || r == SEL_ENOMEM || item.message);
        sel_arena_done(&arena);
    }
    assert_stored(s, "a", "{\"a\":[1,2,3]}");
    sel_arena_done(&value);
    s->ops->close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_folder(test_the_first_result_of_an_id_wins),
        with_folder(test_the_layout_is_flow_task_id),
        with_folder(test_a_file_of_the_original_is_read),
        with_folder(test_a_damaged_file_is_named),
        with_folder(test_no_name_leads_out_of_the_folder),
        with_folder(test_what_json_cannot_carry_is_refused),
        with_folder(test_a_large_result_comes_back_whole),
        with_folder(test_names_left_by_a_dead_process_are_passed_over),
        with_folder(test_trace_events_are_lines),
        with_folder(test_bad_configurations_are_refused),
        with_folder(test_folders_that_cannot_be_written_are_refused),
        with_folder(test_a_full_disk_fails_the_store_and_leaves_no_half_file),
        with_folder(test_a_cancelled_store_leaves_nothing_behind),
        with_folder(test_threads_store_each_id_once),
        with_folder(test_without_memory_a_store_fails_or_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
