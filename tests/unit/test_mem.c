#include "tests/support/test.h"

static void test_memory_of_size_zero_is_memory(void **state)
{
    (void)state;
    void *p = sel_mem_alloc(0), *z = sel_mem_zalloc(0), *r = sel_mem_realloc(NULL, 0);
    assert_non_null(p);
    assert_non_null(z);
    assert_non_null(r);
    assert_null(sel_mem_free(p));
    assert_null(sel_mem_free(z));
    assert_null(sel_mem_free(r));
    assert_null(sel_mem_free(NULL));
}

static void test_zalloc_zeroes(void **state)
{
    (void)state;
    static const char zeros[1000];
    char *p = sel_mem_zalloc(sizeof(zeros));
    assert_non_null(p);
    assert_memory_equal(p, zeros, sizeof(zeros));
    sel_mem_free(p);
}

static void test_grow_keeps_elements_and_doubles(void **state)
{
    (void)state;
    uint64_t *array = NULL;
    uint32_t cap = 0;
    assert_true(sel_mem_grow(&array, &cap, 0, sizeof(*array)));
    assert_null(array);
    uint64_t before = sel_mem_alloc_count();
    for (uint32_t i = 0; i < 10000; i++) {
        assert_true(sel_mem_grow(&array, &cap, (uint64_t)i + 1, sizeof(*array)));
        assert_true(cap > i);
        array[i] = i;
    }
    assert_true(sel_mem_alloc_count() - before < 20);
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(array[i], i);
    assert_true(sel_mem_grow(&array, &cap, 50000, sizeof(*array)));
    assert_int_equal(cap, 50000);
    sel_mem_free(array);
}

static void test_grow_that_fails_changes_nothing(void **state)
{
    (void)state;
    char *array = NULL;
    uint32_t cap = 0;
    assert_true(sel_mem_grow(&array, &cap, 10, 1));
    char *old = array;
    uint32_t old_cap = cap;
    sel_mem_fail_at(1);
    assert_false(sel_mem_grow(&array, &cap, 1000, 1));
    assert_false(sel_mem_grow(&array, &cap, UINT64_C(1) << 32, 1)); /* cap has 32 bits */
    assert_false(sel_mem_grow(&array, &cap, UINT32_MAX, SIZE_MAX / 2));
    assert_ptr_equal(array, old);
    assert_int_equal(cap, old_cap);
    sel_mem_free(array);
}

static void test_exactly_the_nth_allocation_fails(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 3; n++) {
        sel_mem_fail_at(n);
        void *pieces[4] = {sel_mem_alloc(1), sel_mem_zalloc(1), sel_mem_realloc(NULL, 1),
                           sel_mem_alloc(1)};
        for (int64_t i = 0; i < 4; i++) {
            assert_int_equal(pieces[i] == NULL, i + 1 == n);
            sel_mem_free(pieces[i]);
        }
    }
    sel_mem_fail_at(1);
    sel_mem_fail_at(0); /* off again */
    void *p = sel_mem_alloc(1);
    assert_non_null(p);
    sel_mem_free(p);
}

static void test_allocations_are_counted(void **state)
{
    (void)state;
    uint64_t before = sel_mem_alloc_count();
    void *p = sel_mem_alloc(1);
    void *larger = sel_mem_realloc(p, 100);
    assert_non_null(larger);
    sel_mem_free(larger);
    assert_int_equal(sel_mem_alloc_count() - before, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_size_zero_is_memory),
        cmocka_unit_test(test_zalloc_zeroes),
        cmocka_unit_test(test_grow_keeps_elements_and_doubles),
        cmocka_unit_test(test_grow_that_fails_changes_nothing),
        cmocka_unit_test(test_exactly_the_nth_allocation_fails),
        cmocka_unit_test(test_allocations_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
