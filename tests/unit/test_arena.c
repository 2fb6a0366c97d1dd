#include "tests/support/test.h"

static void test_a_zeroed_arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    static const unsigned char zeros[5000];
    for (size_t size = 0; size < sizeof(zeros); size += 37) {
        unsigned char *p = sel_arena_alloc(&arena, size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        assert_memory_equal(p, zeros, size);
        memset(p, 0xff, size); /* what a reused block would show */
    }
    sel_arena_reset(&arena);
    unsigned char *p = sel_arena_alloc(&arena, 4000);
    assert_non_null(p);
    assert_memory_equal(p, zeros, 4000);
    sel_arena_done(&arena);
}

static void test_pieces_do_not_overlap(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    unsigned char *pieces[300];
    for (size_t i = 0; i < SEL_COUNT(pieces); i++) {
        size_t size = i * 7 % 400 + 1; /* with some beyond what a block has left */
        pieces[i] = sel_arena_alloc_raw(&arena, size, (size_t)1 << i % 5);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % ((size_t)1 << i % 5), 0);
        memset(pieces[i], (int)i, size);
    }
    for (size_t i = 0; i < SEL_COUNT(pieces); i++)
        for (size_t j = 0; j < i * 7 % 400 + 1; j++)
            assert_int_equal(pieces[i][j], (unsigned char)i);
    sel_arena_done(&arena);
}

static void test_pieces_larger_than_a_block_are_given(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    char *small = sel_arena_alloc(&arena, 16);
    char *large = sel_arena_alloc(&arena, (size_t)3 << 20);
    assert_non_null(small);
    assert_non_null(large);
    large[((size_t)3 << 20) - 1] = 1;
    size_t reserved = arena.reserved;
    assert_non_null(sel_arena_alloc(&arena, 16)); /* the first block still has room */
    assert_int_equal(arena.reserved, reserved);
    assert_int_equal(arena.used, 32 + ((size_t)3 << 20));
    sel_arena_done(&arena);
}

static void test_blocks_grow_so_that_calls_stay_few(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    uint64_t before = sel_mem_alloc_count();
    for (unsigned i = 0; i < 100000; i++)
        assert_non_null(sel_arena_alloc_raw(&arena, 32, 8));
    assert_true(sel_mem_alloc_count() - before < 30);
    sel_arena_done(&arena);
}

static void test_the_limit_bounds_what_is_reserved(void **state)
{
    (void)state;
    struct sel_arena arena;
    sel_arena_init(&arena, 10000);
    assert_null(sel_arena_alloc(&arena, 10000)); /* its block has a head too */
    size_t got = 0;
    while (sel_arena_alloc_raw(&arena, 100, 1))
        got += 100;
    assert_true(arena.reserved <= 10000);
    assert_true(got >= 7000); /* the last block takes what is left of the limit */
    assert_int_equal(arena.used, got);
    sel_arena_done(&arena);
    assert_int_equal(arena.reserved, 0);
    assert_int_equal(arena.limit, 10000);
    assert_non_null(sel_arena_alloc(&arena, 5000));
    sel_arena_done(&arena);
}

static void test_absurd_sizes_are_refused(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    for (int round = 0; round < 2; round++) { /* without a block and with one */
        assert_null(sel_arena_alloc_raw(&arena, SIZE_MAX, 1));
        assert_null(sel_arena_alloc_raw(&arena, SIZE_MAX - 8, 16));
        assert_null(sel_arena_alloc(&arena, SIZE_MAX / 2 + 1));
        assert_null(sel_arena_alloc_array(&arena, SIZE_MAX / 8 + 1, 16));
        assert_null(SEL_ARENA_NEW_ARRAY(&arena, uint64_t, SIZE_MAX / 4));
        assert_non_null(SEL_ARENA_NEW_ARRAY(&arena, uint64_t, 0));
    }
    sel_arena_done(&arena);
}

static void test_reset_keeps_the_largest_block(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    sel_arena_reset(&arena); /* empty: nothing to do */
    for (unsigned i = 0; i < 1000; i++)
        assert_non_null(sel_arena_alloc(&arena, 100));
    assert_non_null(sel_arena_alloc(&arena, 200000));
    sel_arena_reset(&arena);
    assert_int_equal(arena.used, 0);
    assert_true(arena.reserved >= 200000);
    uint64_t before = sel_mem_alloc_count();
    assert_non_null(sel_arena_alloc(&arena, 150000));
    assert_int_equal(sel_mem_alloc_count(), before);
    sel_arena_done(&arena);
    assert_null(arena.head);
    sel_arena_done(&arena); /* again is fine */
}

static void test_copies_and_formatted_texts_are_terminated(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    assert_string_equal(sel_arena_strdup(&arena, (struct sel_str){"loadXXX", 4}), "load");
    assert_string_equal(sel_arena_strdup(&arena, (struct sel_str){NULL, 0}), "");
    assert_string_equal(sel_arena_printf(&arena, "%s-%d", "load", 7), "load-7");
    char text[4000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_string_equal(sel_arena_printf(&arena, "%s", text), text);
    assert_memory_equal(sel_arena_memdup(&arena, text, 100), text, 100);
    assert_non_null(sel_arena_memdup(&arena, NULL, 0));
    sel_arena_done(&arena);
}

static int fill(void *ctx)
{
    (void)ctx;
    struct sel_arena arena = {0};
    bool ok = true;
    for (unsigned i = 0; i < 100 && ok; i++)
        ok = sel_arena_alloc(&arena, 100) && sel_arena_printf(&arena, "%u", i) &&
             sel_arena_strdup(&arena, SEL_STR("text"));
    sel_arena_done(&arena);
    return ok ? 0 : SEL_ENOMEM;
}

static void test_a_failing_heap_is_reported(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(fill, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_zeroed_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_pieces_larger_than_a_block_are_given),
        cmocka_unit_test(test_blocks_grow_so_that_calls_stay_few),
        cmocka_unit_test(test_the_limit_bounds_what_is_reserved),
        cmocka_unit_test(test_absurd_sizes_are_refused),
        cmocka_unit_test(test_reset_keeps_the_largest_block),
        cmocka_unit_test(test_copies_and_formatted_texts_are_terminated),
        cmocka_unit_test(test_a_failing_heap_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
