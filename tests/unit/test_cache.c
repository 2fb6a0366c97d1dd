#include "storage/cache.h"

#include "tests/support/test.h"

/* Adds the ids of `text`, one letter each; a letter after '?' is read instead. */
static void play(struct sel_cache *cache, const char *text)
{
    for (const char *p = text; *p; p++) {
        struct sel_str item, id = {p, 1};
        if (*p == '?')
            (void)sel_cache_get(cache, (struct sel_str){++p, 1}, &item);
        else
            assert_ok(sel_cache_add(cache, id, id));
    }
}

static void test_each_kind_keeps_what_its_name_says(void **state)
{
    (void)state;
    const struct {
        enum sel_cache_kind kind;
        uint32_t size;
        const char *play, *content;
    } cases[] = {
        {SEL_CACHE_FIFO, 3, "abcd", "bcd"},      {SEL_CACHE_FIFO, 3, "abc?ad", "bcd"},
        {SEL_CACHE_FIFO, 3, "abcad", "bcd"},     {SEL_CACHE_LIFO, 3, "abcd", "abd"},
        {SEL_CACHE_LIFO, 1, "abcd", "d"},        {SEL_CACHE_LRU, 3, "abc?ad", "cad"},
        {SEL_CACHE_LRU, 3, "abcad", "bcd"},      {SEL_CACHE_MRU, 3, "abc?ad", "bcd"},
        {SEL_CACHE_MRU, 3, "abcd", "abd"},       {SEL_CACHE_FIFO, 0, "abcd", ""},
        {SEL_CACHE_RR, 0, "abcd", ""},           {SEL_CACHE_RR, 1, "abcd", "d"},
        {SEL_CACHE_LRU, 2, "?xa?x?ab?ac", "ac"}, {SEL_CACHE_MRU, 2, "ab?x?bc", "ac"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_cache *cache = sel_cache_new(cases[i].kind, cases[i].size, 1);
        assert_non_null(cache);
        play(cache, cases[i].play);
        assert_int_equal(sel_cache_count(cache), strlen(cases[i].content));
        for (uint32_t at = 0; at < sel_cache_count(cache); at++) {
            struct sel_str id = sel_cache_id_at(cache, at);
            if (id.n != 1 || id.p[0] != cases[i].content[at])
                fail_msg("case %zu, %u: %.*s", i, at, SEL_STR_ARG(id));
        }
        assert_null(sel_cache_free(cache));
    }
}

static void test_an_id_keeps_its_first_item(void **state)
{
    (void)state;
    struct sel_cache *cache = sel_cache_new(SEL_CACHE_LRU, 2, 0);
    struct sel_str item;
    assert_ok(sel_cache_add(cache, SEL_STR("a"), SEL_STR("first")));
    assert_ok(sel_cache_add(cache, SEL_STR("a"), SEL_STR("second")));
    assert_true(sel_cache_get(cache, SEL_STR("a"), &item));
    assert_str_is(item, "first");
    assert_false(sel_cache_get(cache, SEL_STR("b"), &item));
    assert_ok(sel_cache_add(cache, SEL_STR(""), SEL_STR("")));
    assert_true(sel_cache_get(cache, SEL_STR(""), &item));
    assert_int_equal(item.n, 0);
    sel_cache_free(cache);
}

static void test_random_replacement_keeps_the_last_and_the_bound(void **state)
{
    (void)state;
    struct sel_cache *cache = sel_cache_new(SEL_CACHE_RR, 10, 42);
    for (int i = 0; i < 1000; i++) {
        char id[16];
        struct sel_str item;
        int n = snprintf(id, sizeof(id), "t-%d", i % 37);
        assert_ok(sel_cache_add(cache, (struct sel_str){id, (size_t)n}, sel_str_c(id)));
        assert_true(sel_cache_count(cache) <= 10);
        assert_true(sel_cache_get(cache, (struct sel_str){id, (size_t)n}, &item));
        assert_str_is(item, id);
    }
    sel_cache_free(cache);
}

static void test_a_large_cache_finds_everything(void **state)
{
    (void)state;
    struct sel_cache *cache = sel_cache_new(SEL_CACHE_LRU, UINT32_MAX, 0);
    char id[16];
    struct sel_str item;
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(id, sizeof(id), "%d", i);
        assert_ok(sel_cache_add(cache, (struct sel_str){id, (size_t)n}, sel_str_c(id)));
    }
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(id, sizeof(id), "%d", i);
        assert_true(sel_cache_get(cache, (struct sel_str){id, (size_t)n}, &item));
        assert_str_is(item, id);
    }
    sel_cache_free(cache);
}

static void test_without_memory_nothing_changes(void **state)
{
    (void)state;
    for (int kind = SEL_CACHE_FIFO; kind <= SEL_CACHE_RR; kind++) {
        struct sel_cache *cache = sel_cache_new((enum sel_cache_kind)kind, 20, 0);
        play(cache, "abcdefghijklmnop"); /* the next one makes the table grow */
        int r = SEL_ENOMEM;
        for (int n = 1; r == SEL_ENOMEM; n++) {
            sel_mem_fail_at(n);
            r = sel_cache_add(cache, SEL_STR("q"), SEL_STR("q"));
            sel_mem_fail_at(0);
            assert_int_equal(sel_cache_count(cache), r == 0 ? 17 : 16);
        }
        assert_ok(r);
        sel_cache_free(cache);
    }
}

static void test_size_comes_from_the_configuration(void **state)
{
    (void)state;
    const struct {
        const char *config;
        int code;
        uint32_t size;
    } cases[] = {
        {"null", 0, 0},
        {"{}", 0, 0},
        {"{\"max_cache_size\": 7}", 0, 7},
        {"{\"max_cache_size\": 0}", 0, 0},
        {"{\"max_cache_size\": -1}", SEL_ECONFIG, 0},
        {"{\"max_cache_size\": 1.0}", SEL_ECONFIG, 0},
        {"{\"max_cache_size\": \"7\"}", SEL_ECONFIG, 0},
        {"{\"max_cache_size\": true}", SEL_ECONFIG, 0},
        {"{\"max_cache_size\": 18446744073709551615}", SEL_ECONFIG, 0},
        {"{\"max_cache_sise\": 7}", SEL_ECONFIG, 0},
        {"[7]", SEL_ECONFIG, 0},
        {"\"7\"", SEL_ECONFIG, 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value config = sel_test_json(&arena, cases[i].config);
        struct sel_error err = {0};
        uint32_t size = 99;
        assert_code(sel_cache_size_from_config(&config, &size, &err), cases[i].code);
        assert_int_equal(size, cases[i].code ? 99 : cases[i].size);
        assert_int_equal(err.code, cases[i].code);
        sel_arena_done(&arena);
    }
    struct sel_arena arena = {0};
    struct sel_value config = sel_test_json(&arena, "{\"max_cache_sise\": 7}");
    struct sel_error err;
    uint32_t size;
    assert_code(sel_cache_size_from_config(&config, &size, &err), SEL_ECONFIG);
    assert_non_null(strstr(err.text, "did you mean 'max_cache_size'?"));
    sel_arena_done(&arena);
}

static void test_names_of_the_original_are_found(void **state)
{
    (void)state;
    enum sel_cache_kind kind;
    assert_true(sel_cache_find(SEL_STR("selinon.caches"), SEL_STR("MRU"), &kind));
    assert_int_equal(kind, SEL_CACHE_MRU);
    assert_true(sel_cache_find(SEL_STR("selinon.caches.rr"), SEL_STR("RR"), &kind));
    assert_int_equal(kind, SEL_CACHE_RR);
    assert_false(sel_cache_find(SEL_STR("selinon.caches.rr"), SEL_STR("LRU"), &kind));
    assert_false(sel_cache_find(SEL_STR("selinon.caches"), SEL_STR("lru"), &kind));
    assert_false(sel_cache_find(SEL_STR("caches"), SEL_STR("LRU"), &kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_keeps_what_its_name_says),
        cmocka_unit_test(test_an_id_keeps_its_first_item),
        cmocka_unit_test(test_random_replacement_keeps_the_last_and_the_bound),
        cmocka_unit_test(test_a_large_cache_finds_everything),
        cmocka_unit_test(test_without_memory_nothing_changes),
        cmocka_unit_test(test_size_comes_from_the_configuration),
        cmocka_unit_test(test_names_of_the_original_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
