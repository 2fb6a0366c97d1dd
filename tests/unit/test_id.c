#include "core/id.h"
#include "tests/support/test.h"

static void test_ids_have_the_form_of_uuid_version_7(void **state)
{
    (void)state;
    struct sel_id_source source = {.shard = 0xabc, .incarnation = 0x3fffff, .counter = 5};
    struct sel_id id = sel_id_next(&source, 0x0198f3c2d1e0);
    char text[SEL_ID_TEXT_SIZE];
    assert_string_equal(sel_id_format(id, text), "0198f3c2-d1e0-7abc-bfff-ff0000000005");
}

static void test_ids_of_one_maker_grow_even_if_the_clock_goes_back(void **state)
{
    (void)state;
    static const int64_t clock_ms[] = {1000, 1000, 999, 0, -5, 1001, 1000};
    struct sel_id_source source = {.shard = 1, .incarnation = 2};
    struct sel_id last = {0};
    for (size_t i = 0; i < SEL_COUNT(clock_ms); i++) {
        struct sel_id id = sel_id_next(&source, clock_ms[i]);
        assert_true(id.hi > last.hi || (id.hi == last.hi && id.lo > last.lo));
        last = id;
    }
    assert_int_equal(last.hi >> 16, 1001);
}

static void test_a_counter_that_wraps_stays_in_its_field(void **state)
{
    (void)state;
    struct sel_id_source source = {.incarnation = 1, .counter = (UINT64_C(1) << 40) - 1};
    char text[SEL_ID_TEXT_SIZE];
    assert_string_equal(sel_id_format(sel_id_next(&source, 1), text),
                        "00000000-0001-7000-8000-01ffffffffff");
    assert_string_equal(sel_id_format(sel_id_next(&source, 1), text),
                        "00000000-0001-7000-8000-010000000000");
}

static void test_texts_come_back(void **state)
{
    (void)state;
    struct sel_id id = {UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210)}, parsed;
    char text[SEL_ID_TEXT_SIZE];
    assert_true(sel_id_parse(sel_str_c(sel_id_format(id, text)), &parsed));
    assert_true(sel_id_eq(id, parsed));
    assert_true(sel_id_parse(SEL_STR("01234567-89AB-CDEF-FEDC-BA9876543210"), &parsed));
    assert_true(sel_id_eq(id, parsed));
}

static void test_other_texts_are_no_ids(void **state)
{
    (void)state;
    static const struct sel_str cases[] = {
        SEL_STR(""),
        SEL_STR("0198f3c2"),
        SEL_STR("0198f3c2-d1e0-7abc-bfff-ff000000000"),
        SEL_STR("0198f3c2-d1e0-7abc-bfff-ff00000000055"),
        SEL_STR("0198f3c2-d1e0-7abc-bfff_ff0000000005"),
        SEL_STR("0198f3c2d-1e0-7abc-bfff-ff0000000005"),
        SEL_STR("0198f3c2-d1e0-7abc-bfff-ff000000000g"),
        SEL_STR("0198f3c2-d1e0-7abc-bfff-ff 000000005"),
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_id id = {1, 2};
        assert_false(sel_id_parse(cases[i], &id));
        assert_true(sel_id_eq(id, (struct sel_id){1, 2}));
    }
}

#define FLOW "0198f3c2-d1e0-7abc-bfff-ff0000000005"

static void test_run_ids_come_back(void **state)
{
    (void)state;
    const struct {
        uint32_t attempt, ordinal;
        const char *text;
    } cases[] = {
        {0, 0, FLOW "-0.0"},
        {3, 17, FLOW "-3.17"},
        {UINT32_MAX, UINT32_MAX, FLOW "-4294967295.4294967295"},
    };
    struct sel_id flow, parsed;
    assert_true(sel_id_parse(SEL_STR(FLOW), &flow));
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char text[SEL_RUN_ID_TEXT_SIZE];
        sel_id_format_run(flow, cases[i].attempt, cases[i].ordinal, text);
        assert_string_equal(text, cases[i].text);
        uint32_t attempt, ordinal;
        assert_true(sel_id_parse_run(sel_str_c(text), &parsed, &attempt, &ordinal));
        assert_true(sel_id_eq(parsed, flow));
        assert_int_equal(attempt, cases[i].attempt);
        assert_int_equal(ordinal, cases[i].ordinal);
    }
}

static void test_a_run_has_one_text_only(void **state)
{
    (void)state;
    static const struct sel_str cases[] = {
        SEL_STR(""),
        SEL_STR(FLOW),
        SEL_STR(FLOW "-"),
        SEL_STR(FLOW "-1"),
        SEL_STR(FLOW "-1."),
        SEL_STR(FLOW "-.1"),
        SEL_STR(FLOW "-1.2 "),
        SEL_STR(FLOW "-1.2.3"),
        SEL_STR(FLOW "-01.2"),
        SEL_STR(FLOW "-1.00"),
        SEL_STR(FLOW "-+1.2"),
        SEL_STR(FLOW "--1.2"),
        SEL_STR(FLOW ".1-2"),
        SEL_STR(FLOW "-4294967296.1"),
        SEL_STR(FLOW "-1.4294967296"),
        SEL_STR(FLOW "-1.18446744073709551617"),
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_id flow;
        uint32_t attempt = 42, ordinal = 43;
        assert_false(sel_id_parse_run(cases[i], &flow, &attempt, &ordinal));
        assert_int_equal(attempt, 42);
        assert_int_equal(ordinal, 43);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_have_the_form_of_uuid_version_7),
        cmocka_unit_test(test_ids_of_one_maker_grow_even_if_the_clock_goes_back),
        cmocka_unit_test(test_a_counter_that_wraps_stays_in_its_field),
        cmocka_unit_test(test_texts_come_back),
        cmocka_unit_test(test_other_texts_are_no_ids),
        cmocka_unit_test(test_run_ids_come_back),
        cmocka_unit_test(test_a_run_has_one_text_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
