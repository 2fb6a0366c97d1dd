#include <stdio.h>

#include "core/hash.h"
#include "tests/support/test.h"

static void test_each_bit_of_the_input_changes_the_hash(void **state)
{
    (void)state;
    uint8_t text[40] = {0};
    for (size_t n = 1; n <= sizeof(text); n++) {
        uint64_t hash = sel_hash_bytes(text, n, 0);
        assert_int_equal(sel_hash_bytes(text, n, 0), hash);
        assert_true(sel_hash_bytes(text, n - 1, 0) != hash); /* zeros of another length */
        assert_true(sel_hash_bytes(text, n, 1) != hash);     /* another seed */
        for (size_t bit = 0; bit < 8 * n; bit++) {
            text[bit / 8] ^= (uint8_t)(1u << bit % 8);
            uint64_t changed = sel_hash_bytes(text, n, 0) ^ hash;
            text[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int bits = __builtin_popcountll(changed);
            assert_in_range(bits, 8, 56); /* about half, never only a few */
        }
    }
}

/* Journals hold digests: another value for the same bytes is another format. */
static void test_values_are_frozen(void **state)
{
    (void)state;
    const char *text = "a digest of more than sixteen bytes";
    assert_int_equal(sel_hash_bytes("selinon", 7, 0), UINT64_C(0xeb9a5c53e62e21e4));
    assert_int_equal(sel_hash_bytes(text, strlen(text), 1), UINT64_C(0xaa22e1f8bf61e556));
}

static void test_a_map_finds_what_was_added(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static char names[COUNT][16];
    struct sel_map map = {0};
    uint32_t value = 7;
    assert_false(sel_map_get(&map, SEL_STR("any"), &value));
    for (uint32_t i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "task_%u", i);
        assert_int_equal(sel_map_add(&map, sel_str_c(names[i]), i, NULL), 1);
    }
    assert_int_equal(map.count, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(sel_map_get(&map, sel_str_c(names[i]), &value));
        assert_int_equal(value, i);
    }
    assert_false(sel_map_get(&map, SEL_STR("task_5000"), &value));
    sel_map_done(&map);
    assert_int_equal(map.cap, 0);
}

static void test_adding_again_changes_nothing(void **state)
{
    (void)state;
    struct sel_map map = {0};
    uint32_t old = 0, value = 0;
    assert_int_equal(sel_map_add(&map, SEL_STR("load"), 1, &old), 1);
    assert_int_equal(sel_map_add(&map, SEL_STR("load"), 2, &old), 0);
    assert_int_equal(old, 1);
    assert_int_equal(sel_map_add(&map, SEL_STR("load"), 3, NULL), 0);
    assert_true(sel_map_get(&map, SEL_STR("load"), &value));
    assert_int_equal(value, 1);
    assert_int_equal(map.count, 1);
    sel_map_done(&map);
}

static void test_empty_and_binary_keys_are_keys(void **state)
{
    (void)state;
    struct sel_map map = {0};
    uint32_t value = 0;
    assert_int_equal(sel_map_add(&map, (struct sel_str){NULL, 0}, 1, NULL), 1);
    assert_int_equal(sel_map_add(&map, SEL_STR("\0"), 2, NULL), 1);
    assert_int_equal(sel_map_add(&map, SEL_STR("\0\0"), 3, NULL), 1);
    assert_true(sel_map_get(&map, SEL_STR(""), &value));
    assert_int_equal(value, 1);
    assert_true(sel_map_get(&map, SEL_STR("\0\0"), &value));
    assert_int_equal(value, 3);
    sel_map_done(&map);
}

static int fill(void *ctx)
{
    char(*names)[8] = ctx;
    struct sel_map map = {0};
    int r = 0;
    for (uint32_t i = 0; i < 100 && r >= 0; i++)
        r = sel_map_add(&map, sel_str_c(names[i]), i, NULL);
    uint32_t value; /* what was added before a failure is still there */
    for (uint32_t i = 0; i < map.count; i++)
        assert_true(sel_map_get(&map, sel_str_c(names[i]), &value) && value == i);
    sel_map_done(&map);
    return r < 0 ? r : 0;
}

static void test_a_failing_heap_leaves_the_map_whole(void **state)
{
    (void)state;
    static char names[100][8];
    for (unsigned i = 0; i < SEL_COUNT(names); i++)
        (void)snprintf(names[i], sizeof(names[i]), "n%u", i);
    sel_test_each_alloc_fails(fill, names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_bit_of_the_input_changes_the_hash),
        cmocka_unit_test(test_values_are_frozen),
        cmocka_unit_test(test_a_map_finds_what_was_added),
        cmocka_unit_test(test_adding_again_changes_nothing),
        cmocka_unit_test(test_empty_and_binary_keys_are_keys),
        cmocka_unit_test(test_a_failing_heap_leaves_the_map_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
