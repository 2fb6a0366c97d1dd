#include "storage/lmdb_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "tests/support/storage.h"

static int open_json(const char *json, struct sel_lmdb_cache **ret, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct sel_value config = sel_test_json(&arena, json);
    struct sel_storage_options options = {.config = &config};
    int r = sel_lmdb_cache_open(&options, ret, err);
    sel_arena_done(&arena);
    return r;
}

static int open_in(const char *folder, uint32_t size, struct sel_lmdb_cache **ret,
                   struct sel_error *err)
{
    char json[PATH_MAX + 64];
    (void)snprintf(json, sizeof(json), "{\"path\": \"%s/cache\", \"max_cache_size\": %u}", folder,
                   size);
    return open_json(json, ret, err);
}

static struct sel_lmdb_cache *open_ok(const char *folder, uint32_t size)
{
    struct sel_lmdb_cache *cache = NULL;
    struct sel_error err = {0};
    if (open_in(folder, size, &cache, &err) < 0)
        fail_msg("%s", err.text);
    assert_non_null(cache);
    return cache;
}

static void add(struct sel_lmdb_cache *cache, const char *id, const char *item)
{
    struct sel_error err = {0};
    if (sel_lmdb_cache_add(cache, sel_str_c(id), sel_str_c(item), &err) < 0)
        fail_msg("%s", err.text);
}

/* What the cache has under an id, NULL for a miss. */
#define assert_has(cache, id, expected)                                                            \
    do {                                                                                           \
        struct sel_arena arena_of_has = {0};                                                       \
        struct sel_error err_of_has = {0};                                                         \
        struct sel_str item_of_has = {0};                                                          \
        const char *want_of_has = (expected);                                                      \
        assert_code(                                                                               \
            sel_lmdb_cache_get((cache), &arena_of_has, sel_str_c(id), &item_of_has, &err_of_has),  \
            want_of_has ? 1 : 0);                                                                  \
        if (want_of_has)                                                                           \
            assert_str_is(item_of_has, want_of_has);                                               \
        sel_arena_done(&arena_of_has);                                                             \
    } while (0)

static void test_the_oldest_items_leave_first(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 2);
    add(cache, "a", "1");
    add(cache, "b", "2");
    assert_has(cache, "a", "1"); /* a look does not make it younger */
    add(cache, "a", "other");    /* nor does adding it again, or change it */
    add(cache, "c", "3");
    assert_has(cache, "a", NULL);
    assert_has(cache, "b", "2");
    assert_has(cache, "c", "3");
    assert_null(sel_lmdb_cache_close(cache));
}

static void test_items_outlive_the_cache(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 3);
    add(cache, "a", "1");
    add(cache, "b", "");
    sel_lmdb_cache_close(cache);
    cache = open_ok(*state, 2);
    assert_has(cache, "a", "1");
    assert_has(cache, "b", "");
    add(cache, "c", "3"); /* the smaller bound holds from now on */
    assert_has(cache, "a", NULL);
    assert_has(cache, "b", "");
    sel_lmdb_cache_close(cache);
}

static void test_a_bound_of_none_is_no_cache(void **state)
{
    struct sel_lmdb_cache *cache = NULL;
    struct sel_error err = {0};
    assert_ok(open_in(*state, 0, &cache, &err));
    assert_null(cache);
    assert_null(sel_lmdb_cache_close(NULL));
}

static void test_large_items_make_the_map_grow(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 5);
    size_t n = 4 << 20;
    char *item = sel_mem_alloc(n + 1), id[12];
    assert_non_null(item);
    memset(item, 'x', n);
    item[n] = '\0';
    for (int i = 0; i < 6; i++) {
        (void)snprintf(id, sizeof(id), "%d", i);
        add(cache, id, item);
    }
    assert_has(cache, "0", NULL);
    assert_has(cache, "1", item);
    assert_has(cache, "5", item);
    sel_lmdb_cache_close(cache);
    cache = open_ok(*state, 5); /* the file is whole */
    assert_has(cache, "5", item);
    sel_lmdb_cache_close(cache);
    sel_mem_free(item);
}

static void write_file(const char *folder, const char *name, const char *text, off_t cut)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/cache/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    if (cut >= 0)
        assert_int_equal(ftruncate(fd, cut), 0);
    assert_int_equal(close(fd), 0);
}

static void test_what_is_damaged_begins_anew(void **state)
{
    const struct {
        const char *name, *text;
        off_t cut;
    } cases[] = {
        {"data.mdb", "this is no LMDB environment at all", -1},
        {"data.mdb", "", 4096},
        {"data.mdb", "", 10000},
        {"data.mdb", "", 0},
        {"selinon-cache", "another boot of the machine", -1},
        {"selinon-cache", "", 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_lmdb_cache *cache = open_ok(*state, 10);
        add(cache, "a", "1");
        sel_lmdb_cache_close(cache);
        write_file(*state, cases[i].name, cases[i].text, cases[i].cut);
        cache = open_ok(*state, 10);
        assert_has(cache, "a", NULL);
        add(cache, "b", "2");
        assert_has(cache, "b", "2");
        sel_lmdb_cache_close(cache);
    }
}

/* The bytes of the item are changed behind the back of the cache that is open. */
static void test_damage_that_shows_later_is_told_once(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 10);
    struct sel_arena arena = {0};
    struct sel_error err = {0};
    struct sel_str item;
    char path[PATH_MAX], page[4096];
    add(cache, "a", "precious");
    (void)snprintf(path, sizeof(path), "%s/cache/data.mdb", (char *)*state);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    int changed = 0;
    for (off_t at = 0; pread(fd, page, sizeof(page), at) == sizeof(page); at += 4096) {
        char *p = memmem(page, sizeof(page), "precious", 8);
        if (p) {
            assert_int_equal(pwrite(fd, "previous", 8, at + (p - page)), 8);
            changed++;
        }
    }
    assert_true(changed > 0);
    assert_int_equal(close(fd), 0);
    assert_code(sel_lmdb_cache_get(cache, &arena, SEL_STR("a"), &item, &err), SEL_EFORMAT);
    assert_non_null(strstr(err.text, "damaged; it begins anew"));
    assert_has(cache, "a", NULL);
    add(cache, "a", "new");
    assert_has(cache, "a", "new");
    sel_lmdb_cache_close(cache);
    sel_arena_done(&arena);
}

static void test_nothing_of_others_is_deleted(void **state)
{
    struct sel_lmdb_cache *cache = NULL;
    struct sel_error err = {0};
    struct stat st;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/cache", (char *)*state);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(*state, "data.mdb", "results of a storage", -1);
    assert_code(open_in(*state, 10, &cache, &err), SEL_ECONFIG);
    assert_non_null(strstr(err.text, "is no cache; a cache needs a folder of its own"));
    (void)snprintf(path, sizeof(path), "%s/cache/data.mdb", (char *)*state);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 20);
}

static void test_refusals_say_why(void **state)
{
    (void)state;
    const struct {
        const char *json;
        int code;
        const char *text;
    } cases[] = {
        {"[1]", SEL_ECONFIG, "takes its arguments by name"},
        {"{\"size\": 1}", SEL_ECONFIG, "has no argument 'size'"},
        {"{\"max_cache_size\": -1}", SEL_ECONFIG, "'max_cache_size' must be a whole number"},
        {"{\"max_cache_size\": 1, \"path\": 1}", SEL_ECONFIG, "'path' must be text"},
        {"{\"max_cache_size\": 1, \"path\": \"{NO_SUCH}\"}", SEL_ENOTFOUND, "NO_SUCH"},
        {"{\"max_cache_size\": 1, \"path\": \"/dev/null/x\"}", -ENOTDIR, "/dev/null/x"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_lmdb_cache *cache = NULL;
        struct sel_error err = {0};
        assert_code(open_json(cases[i].json, &cache, &err), cases[i].code);
        if (!strstr(err.text, cases[i].text))
            fail_msg("case %zu: %s", i, err.text);
    }
}

static void test_one_process_opens_a_folder_once(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 2), *second = NULL;
    struct sel_error err = {0};
    assert_code(open_in(*state, 2, &second, &err), SEL_ECONFIG);
    assert_non_null(strstr(err.text, "is in use by another cache"));
    add(cache, "a", "1");
    sel_lmdb_cache_close(cache);
    cache = open_ok(*state, 2);
    assert_has(cache, "a", "1");
    sel_lmdb_cache_close(cache);
}

static void test_ids_that_no_key_can_hold(void **state)
{
    struct sel_lmdb_cache *cache = open_ok(*state, 2);
    struct sel_error err = {0};
    char id[1000];
    memset(id, 'x', sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    assert_has(cache, id, NULL);
    assert_has(cache, "", NULL);
    assert_code(sel_lmdb_cache_add(cache, sel_str_c(id), SEL_STR("1"), &err), SEL_ELIMIT);
    sel_lmdb_cache_close(cache);
}

static int open_and_use(void *ctx)
{
    struct sel_lmdb_cache *cache = NULL;
    struct sel_arena arena = {0};
    struct sel_str item;
    struct sel_storage_options options = {.config = ctx};
    int r = sel_lmdb_cache_open(&options, &cache, NULL);
    if (r == 0)
        r = sel_lmdb_cache_add(cache, SEL_STR("a"), SEL_STR("1"), NULL);
    if (r == 0)
        r = sel_lmdb_cache_get(cache, &arena, SEL_STR("a"), &item, NULL);
    sel_lmdb_cache_close(cache);
    sel_arena_done(&arena);
    return r > 0 ? 0 : r;
}

static void test_each_allocation_may_fail(void **state)
{
    struct sel_arena arena = {0};
    char *json =
        sel_arena_printf(&arena, "{\"path\": \"%s/cache\", \"max_cache_size\": 2}", (char *)*state);
    struct sel_value config = sel_test_json(&arena, json);
    sel_test_each_alloc_fails(open_and_use, &config);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_folder(test_the_oldest_items_leave_first),
        with_folder(test_items_outlive_the_cache),
        with_folder(test_a_bound_of_none_is_no_cache),
        with_folder(test_large_items_make_the_map_grow),
        with_folder(test_what_is_damaged_begins_anew),
        with_folder(test_damage_that_shows_later_is_told_once),
        with_folder(test_nothing_of_others_is_deleted),
        with_folder(test_refusals_say_why),
        with_folder(test_one_process_opens_a_folder_once),
        with_folder(test_ids_that_no_key_can_hold),
        with_folder(test_each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
