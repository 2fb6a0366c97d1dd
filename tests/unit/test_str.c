#include "tests/support/test.h"

static void test_wellformed_utf8_is_accepted(void **state)
{
    (void)state;
    static const struct sel_str cases[] = {
        {NULL, 0},
        SEL_STR("plain"),
        SEL_STR("a text longer than eight bytes"),
        SEL_STR("nul \0 inside"),
        SEL_STR("\xc2\x80 \xdf\xbf"),                 /* first and last of two bytes */
        SEL_STR("\xe0\xa0\x80 \xef\xbf\xbf"),         /* of three */
        SEL_STR("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"), /* of four */
        SEL_STR("\xed\x9f\xbf \xee\x80\x80"),         /* around the surrogates */
        SEL_STR("12345678\xc3\xa9"),
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_true(sel_str_is_utf8(cases[i]));
}

static void test_malformed_utf8_is_refused_at_its_first_byte(void **state)
{
    (void)state;
    const struct {
        struct sel_str text;
        size_t prefix;
    } cases[] = {
        {SEL_STR("\x80"), 0},                     /* continuation without a lead */
        {SEL_STR("ab\xc3"), 2},                   /* cut */
        {SEL_STR("12345678\xe2\x82"), 8},         /* cut behind a whole word */
        {SEL_STR("a\xc0\x80"), 1},                /* overlong NUL */
        {SEL_STR("a\xc1\xbf"), 1},                /* overlong of two bytes */
        {SEL_STR("a\xe0\x9f\xbf"), 1},            /* overlong of three */
        {SEL_STR("a\xf0\x8f\xbf\xbf"), 1},        /* overlong of four */
        {SEL_STR("a\xed\xa0\x80"), 1},            /* surrogate */
        {SEL_STR("a\xed\xbf\xbf"), 1},            /* last surrogate */
        {SEL_STR("a\xf4\x90\x80\x80"), 1},        /* beyond U+10FFFF */
        {SEL_STR("a\xf5\x80\x80\x80"), 1},        /* no such lead */
        {SEL_STR("\xc3\xa9\xff"), 2},             /* no such byte */
        {SEL_STR("\xe2\x28\xa1"), 0},             /* second byte is no continuation */
        {SEL_STR("\xf0\x9f\x98\x28 and more"), 0} /* nor is the fourth */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        assert_false(sel_str_is_utf8(cases[i].text));
        assert_int_equal(sel_str_utf8_prefix(cases[i].text), cases[i].prefix);
    }
}

static void test_code_points_are_counted_not_bytes(void **state)
{
    (void)state;
    assert_int_equal(sel_str_code_points(SEL_STR("")), 0);
    assert_int_equal(sel_str_code_points(SEL_STR("abc")), 3);
    assert_int_equal(sel_str_code_points(SEL_STR("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")), 3);
}

static void test_order_is_that_of_code_points(void **state)
{
    (void)state;
    static const struct sel_str sorted[] = {
        SEL_STR(""),
        SEL_STR("A"),
        SEL_STR("a"),
        SEL_STR("a\0"),
        SEL_STR("b"),
        SEL_STR("\xc3\xa9"),
        SEL_STR("\xef\xbf\xbf"),
        SEL_STR("\xf0\x90\x80\x80"),
    };
    for (size_t i = 0; i < SEL_COUNT(sorted); i++)
        for (size_t j = 0; j < SEL_COUNT(sorted); j++) {
            int r = sel_str_cmp(sorted[i], sorted[j]);
            assert_int_equal((r > 0) - (r < 0), (i > j) - (i < j));
            assert_int_equal(sel_str_eq(sorted[i], sorted[j]), i == j);
        }
}

static void test_distance_counts_edits_and_swaps(void **state)
{
    (void)state;
    const struct {
        const char *a, *b;
        unsigned limit, distance;
    } cases[] = {
        {"", "", 3, 0},
        {"load", "load", 3, 0},
        {"lod", "load", 3, 1},   /* one missing */
        {"loadd", "load", 3, 1}, /* one too many */
        {"laod", "load", 3, 1},  /* two swapped */
        {"lode", "load", 3, 2},  /* two wrong */
        {"kitten", "sitting", 3, 3},
        {"ca", "abc", 3, 3},  /* 2 if a swapped pair could be edited again */
        {"abc", "xyz", 2, 3}, /* beyond the limit: limit + 1 */
        {"", "abcd", 2, 3},
        {"", "ab", 2, 2},
        {"retry_contdown", "retry_countdown", 2, 1},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_str a = sel_str_c(cases[i].a), b = sel_str_c(cases[i].b);
        assert_int_equal(sel_str_distance(a, b, cases[i].limit), cases[i].distance);
        assert_int_equal(sel_str_distance(b, a, cases[i].limit), cases[i].distance);
    }
}

static void test_distance_of_long_texts_is_beyond_any_limit(void **state)
{
    (void)state;
    char text[65];
    memset(text, 'x', sizeof(text));
    struct sel_str longest = {text, 64}, too_long = {text, 65};
    assert_int_equal(sel_str_distance(longest, longest, 2), 0);
    assert_int_equal(sel_str_distance(longest, too_long, 2), 3);
    assert_int_equal(sel_str_distance(too_long, too_long, 2), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wellformed_utf8_is_accepted),
        cmocka_unit_test(test_malformed_utf8_is_refused_at_its_first_byte),
        cmocka_unit_test(test_code_points_are_counted_not_bytes),
        cmocka_unit_test(test_order_is_that_of_code_points),
        cmocka_unit_test(test_distance_counts_edits_and_swaps),
        cmocka_unit_test(test_distance_of_long_texts_is_beyond_any_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
