#include "core/pool.h"

#include "core/mem.h"
#include "core/prng.h"
#include "tests/support/test.h"

static void test_pieces_do_not_overlap(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    static uint8_t *pieces[COUNT];
    static size_t sizes[COUNT];
    struct sel_pool pool = {0};
    struct sel_prng prng = {7};
    for (int round = 0; round < 20000; round++) {
        uint32_t i = (uint32_t)sel_prng_below(&prng, COUNT);
        if (pieces[i]) {
            for (size_t k = 0; k < sizes[i]; k++)
                assert_int_equal(pieces[i][k], (uint8_t)i);
            sel_pool_free(&pool, pieces[i], sizes[i]);
        }
        sizes[i] = 1 + (size_t)sel_prng_below(&prng, round % 50 ? 600 : 3 * SEL_POOL_SIZE_MAX / 2);
        pieces[i] = sel_pool_alloc(&pool, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (uint8_t)i, sizes[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        sel_pool_free(&pool, pieces[i], sizes[i]);
    assert_int_equal(pool.used, 0);
    sel_pool_done(&pool);
}

static void test_every_size_up_to_the_limit_fits(void **state)
{
    (void)state;
    struct sel_pool pool = {0};
    for (size_t size = 1; size <= SEL_POOL_SIZE_MAX; size++) {
        uint64_t before = pool.used;
        void *p = sel_pool_alloc(&pool, size);
        assert_non_null(p);
        assert_true(pool.used - before >= size);
        assert_true(pool.used - before <= size + size / 4 + 32);
        sel_pool_free(&pool, p, size);
    }
    sel_pool_done(&pool);
}

static void test_empty_slabs_go_back(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static void *pieces[COUNT];
    struct sel_pool pool = {0};
    for (int i = 0; i < COUNT; i++)
        pieces[i] = sel_pool_alloc(&pool, 100);
    uint64_t most = pool.reserved;
    assert_true(pool.used >= COUNT * 100u && most < COUNT * 130u);
    uint64_t calls = sel_mem_alloc_count();
    for (int i = 0; i < COUNT; i++) {
        sel_pool_free(&pool, pieces[i], 100);
        pieces[i] = sel_pool_alloc(&pool, 100);
    }
    assert_int_equal(sel_mem_alloc_count(), calls);
    for (int i = 0; i < COUNT; i++)
        sel_pool_free(&pool, pieces[i], 100);
    assert_true(pool.reserved < most / 8);
    sel_pool_done(&pool);
}

static void test_no_memory_is_told(void **state)
{
    (void)state;
    struct sel_pool pool = {0};
    sel_mem_fail_at(1);
    assert_null(sel_pool_alloc(&pool, 100));
    sel_mem_fail_at(1);
    assert_null(sel_pool_alloc(&pool, SEL_POOL_SIZE_MAX + 1));
    sel_mem_fail_at(0);
    sel_pool_free(&pool, NULL, 5);
    sel_pool_done(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_every_size_up_to_the_limit_fits),
        cmocka_unit_test(test_empty_slabs_go_back),
        cmocka_unit_test(test_no_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
