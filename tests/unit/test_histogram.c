#include "tests/support/test.h"

#include "core/histogram.h"
#include "core/prng.h"

static void test_an_empty_one_answers_zero(void **state)
{
    (void)state;
    static const struct sel_histogram h;
    assert_int_equal(sel_histogram_quantile(&h, 0.5), 0);
    assert_int_equal(sel_histogram_quantile(&h, 1), 0);
}

static void test_small_values_are_exact(void **state)
{
    (void)state;
    static struct sel_histogram h;
    for (int64_t i = 1; i <= 60; i++)
        sel_histogram_add(&h, i);
    assert_int_equal(sel_histogram_quantile(&h, 0), 1);
    assert_int_equal(sel_histogram_quantile(&h, 0.5), 31);
    assert_int_equal(sel_histogram_quantile(&h, 1), 60);
    assert_int_equal(h.count, 60);
    assert_int_equal(h.max, 60);
}

/* Each value alone: its bucket ends at most 1/32 above it, and never below. */
static void test_large_values_are_within_a_bucket(void **state)
{
    (void)state;
    struct sel_prng prng = {1};
    for (int i = 0; i < 2000; i++) {
        static struct sel_histogram h;
        memset(&h, 0, sizeof(h));
        int64_t value = (int64_t)(sel_prng_next(&prng) >> 1 >> sel_prng_below(&prng, 63));
        sel_histogram_add(&h, value);
        sel_histogram_add(&h, INT64_MAX); /* so that the largest value does not cut the answer */
        int64_t low = sel_histogram_quantile(&h, 0);
        assert_true(low >= value);
        assert_true(low - value <= value / 32);
        assert_int_equal(sel_histogram_quantile(&h, 1), INT64_MAX);
    }
}

static void test_a_quantile_is_never_above_the_largest_value(void **state)
{
    (void)state;
    static struct sel_histogram h;
    sel_histogram_add(&h, 1000001);
    assert_int_equal(sel_histogram_quantile(&h, 0.5), 1000001);
}

static void test_negative_values_count_as_zero(void **state)
{
    (void)state;
    static struct sel_histogram h;
    sel_histogram_add(&h, -5);
    sel_histogram_add(&h, INT64_MIN);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.max, 0);
    assert_int_equal(sel_histogram_quantile(&h, 0.99), 0);
}

static void test_merging_is_adding_both(void **state)
{
    (void)state;
    static struct sel_histogram a, b, both;
    for (int64_t i = 0; i < 1000; i++) {
        sel_histogram_add(i % 3 ? &a : &b, i * i);
        sel_histogram_add(&both, i * i);
    }
    sel_histogram_merge(&a, &b);
    assert_memory_equal(&a, &both, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_one_answers_zero),
        cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_large_values_are_within_a_bucket),
        cmocka_unit_test(test_a_quantile_is_never_above_the_largest_value),
        cmocka_unit_test(test_negative_values_count_as_zero),
        cmocka_unit_test(test_merging_is_adding_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
