#include "tests/support/test.h"

static void test_appends_add_up(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    assert_str_is(sel_buf_str(&buf), "");
    assert_string_equal(sel_buf_cstr(&buf), "");
    sel_buf_put_c(&buf, "flow ");
    sel_buf_put_str(&buf, SEL_STR("etl"));
    sel_buf_put_u8(&buf, ' ');
    sel_buf_printf(&buf, "%d nodes, %s", 12, "done");
    sel_buf_put(&buf, NULL, 0);
    sel_buf_printf(&buf, "%s", "");
    assert_ok(sel_buf_error(&buf));
    assert_string_equal(sel_buf_cstr(&buf), "flow etl 12 nodes, done");
    assert_str_is(sel_buf_str(&buf), "flow etl 12 nodes, done"); /* the terminator does not count */
    uint8_t *p = buf.p;
    sel_buf_clear(&buf);
    assert_int_equal(buf.n, 0);
    assert_ptr_equal(buf.p, p);
    sel_buf_done(&buf);
    assert_null(buf.p);
}

static void test_growth_keeps_the_content(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    for (unsigned i = 0; i < 5000; i++)
        sel_buf_printf(&buf, "%04u", i);
    assert_ok(sel_buf_error(&buf));
    assert_int_equal(buf.n, 20000);
    assert_memory_equal(buf.p + 4 * 4321, "4321", 4);
    sel_buf_done(&buf);
}

static void test_the_limit_sticks_and_names_itself(void **state)
{
    (void)state;
    struct sel_buf buf = {.limit = 10};
    sel_buf_put_c(&buf, "0123456789");
    assert_ok(sel_buf_error(&buf));
    assert_string_equal(sel_buf_cstr(&buf), "0123456789"); /* full, and yet it gets its end */
    sel_buf_put_u8(&buf, 'x');
    assert_code(sel_buf_error(&buf), SEL_ELIMIT);
    sel_buf_clear(&buf);
    assert_ok(sel_buf_error(&buf));
    sel_buf_printf(&buf, "%s", "01234567890");
    sel_buf_put_u8(&buf, 'x'); /* would fit, but the text before it is lost */
    assert_code(sel_buf_error(&buf), SEL_ELIMIT);
    assert_int_equal(buf.n, 0);
    assert_string_equal(sel_buf_cstr(&buf), "");
    sel_buf_done(&buf);
    assert_int_equal(buf.limit, 10);
}

static void test_sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    sel_buf_put_u8(&buf, 1);
    assert_false(sel_buf_reserve(&buf, SIZE_MAX));
    assert_code(sel_buf_error(&buf), SEL_ELIMIT);
    sel_buf_done(&buf);
}

static int append_much(void *ctx)
{
    (void)ctx;
    struct sel_buf buf = {0};
    for (unsigned i = 0; i < 100; i++) {
        sel_buf_put_c(&buf, "some text");
        sel_buf_printf(&buf, "%u", i);
    }
    int r = sel_buf_error(&buf);
    sel_buf_done(&buf);
    return r;
}

static void test_a_failing_heap_is_reported_at_the_end(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(append_much, NULL);
}

static void test_varints_come_back(void **state)
{
    (void)state;
    const struct {
        uint64_t value;
        size_t size;
    } cases[] = {
        {0, 1},     {1, 1},        {127, 1},       {128, 2},         {16383, 2},
        {16384, 3}, {1u << 31, 5}, {INT64_MAX, 9}, {UINT64_MAX, 10},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_buf buf = {0};
        sel_buf_put_varint(&buf, cases[i].value);
        assert_int_equal(buf.n, cases[i].size);
        size_t pos = 0;
        uint64_t value = 0;
        assert_true(sel_buf_get_varint(buf.p, buf.n, &pos, &value));
        assert_int_equal(value, cases[i].value);
        assert_int_equal(pos, buf.n);
        for (size_t cut = 0; cut < buf.n; cut++) {
            pos = 0;
            assert_false(sel_buf_get_varint(buf.p, cut, &pos, &value));
            assert_int_equal(pos, 0);
        }
        sel_buf_done(&buf);
    }
}

static void test_varints_beyond_64_bits_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}, /* bit 65 */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        size_t pos = 0;
        uint64_t value = 42;
        assert_false(sel_buf_get_varint((const uint8_t *)cases[i].bytes, cases[i].n, &pos, &value));
        assert_int_equal(pos, 0);
        assert_int_equal(value, 42);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_add_up),
        cmocka_unit_test(test_growth_keeps_the_content),
        cmocka_unit_test(test_the_limit_sticks_and_names_itself),
        cmocka_unit_test(test_sizes_that_overflow_are_refused),
        cmocka_unit_test(test_a_failing_heap_is_reported_at_the_end),
        cmocka_unit_test(test_varints_come_back),
        cmocka_unit_test(test_varints_beyond_64_bits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
