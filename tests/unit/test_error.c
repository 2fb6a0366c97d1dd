#include <errno.h>
#include <string.h>

#include "tests/support/test.h"

static void test_every_code_has_a_name_and_a_text(void **state)
{
    (void)state;
    static const int codes[] = {
#define ERROR_CODE(name, value, text) name,
        SEL_ERROR_LIST(ERROR_CODE)
#undef ERROR_CODE
    };
    for (size_t i = 0; i < SEL_COUNT(codes); i++) {
        assert_int_equal(codes[i], -20000 - (int)i);
        assert_int_equal(strncmp(sel_error_name(codes[i]), "SEL_E", 5), 0);
        assert_string_not_equal(sel_error_text(codes[i]), "unknown error");
    }
    assert_string_equal(sel_error_name(SEL_ELIMIT), "SEL_ELIMIT");
    assert_string_equal(sel_error_text(SEL_ELIMIT), "limit reached");
}

static void test_codes_of_the_system_and_unknown_ones_have_texts(void **state)
{
    (void)state;
    assert_string_equal(sel_error_name(-ENOENT), "ENOENT");
    assert_string_equal(sel_error_text(-ENOENT), "No such file or directory");
    assert_string_equal(sel_error_text(0), "no error");
    static const int unknown[] = {1, -4095, -19999, -29999, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < SEL_COUNT(unknown); i++) {
        assert_string_equal(sel_error_name(unknown[i]), "?");
        assert_string_equal(sel_error_text(unknown[i]), "unknown error");
    }
}

static void test_set_fills_the_error_and_returns_its_code(void **state)
{
    (void)state;
    struct sel_error err;
    struct sel_pos pos = {.file = "etl.yaml", .line = 12, .col = 9};
    assert_code(sel_error_set(&err, SEL_ECONFIG, pos, "task '%s'", "lod"), SEL_ECONFIG);
    assert_int_equal(err.code, SEL_ECONFIG);
    assert_string_equal(err.text, "task 'lod'");
    assert_code(sel_error_set(NULL, SEL_ELIMIT, pos, "nobody asks"), SEL_ELIMIT);
}

static void test_an_error_can_be_wrapped_into_itself(void **state)
{
    (void)state;
    struct sel_error err;
    (void)sel_error_set(&err, SEL_EFORMAT, (struct sel_pos){0}, "cut");
    (void)sel_error_set(&err, SEL_EFORMAT, (struct sel_pos){0}, "result of 'load': %s", err.text);
    assert_string_equal(err.text, "result of 'load': cut");
}

static void test_a_long_text_is_cut_between_characters(void **state)
{
    (void)state;
    char text[3 * SEL_ERROR_TEXT_MAX];
    for (size_t shift = 0; shift < 3; shift++) { /* U+20AC has three bytes: cut it at each */
        memset(text, 'x', shift);
        size_t n = shift;
        for (; n + 3 < sizeof(text); n += 3)
            memcpy(text + n, "\xe2\x82\xac", 3);
        text[n] = '\0';
        struct sel_error err;
        (void)sel_error_set(&err, SEL_ESYNTAX, (struct sel_pos){0}, "%s", text);
        size_t size = strlen(err.text);
        assert_in_range(size, SEL_ERROR_TEXT_MAX - 3, SEL_ERROR_TEXT_MAX - 1);
        assert_true(sel_str_is_utf8(sel_str_c(err.text)));
    }
}

static void test_format_leaves_unknown_parts_out(void **state)
{
    (void)state;
    const struct {
        struct sel_pos pos;
        const char *text;
    } cases[] = {
        {{"f.yaml", 3, 9}, "f.yaml:3:9: wrong"},
        {{"f.yaml", 3, 0}, "f.yaml:3: wrong"},
        {{"f.yaml", 0, 0}, "f.yaml: wrong"},
        {{NULL, 3, 9}, "3:9: wrong"},
        {{NULL, 0, 0}, "wrong"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_error err;
        char out[64];
        (void)sel_error_set(&err, SEL_ECONFIG, cases[i].pos, "wrong");
        assert_string_equal(sel_error_format(&err, out, sizeof(out)), cases[i].text);
    }
    struct sel_error err;
    char out[8];
    (void)sel_error_set(&err, SEL_ECONFIG, cases[0].pos, "wrong");
    assert_string_equal(sel_error_format(&err, out, sizeof(out)), "f.yaml:");
}

static void test_diagnostics_sort_by_file_line_column_and_lose_repetitions(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    char same_name[] = "b.yaml"; /* files are told apart by name, not by address */
    sel_diag_error(&diag, (struct sel_pos){"b.yaml", 7, 1}, "%s", "e7");
    sel_diag_error(&diag, (struct sel_pos){"a.yaml", 1, 1}, "a1");
    sel_diag_error(&diag, (struct sel_pos){same_name, 2, 5}, "e25");
    sel_diag_warning(&diag, (struct sel_pos){"b.yaml", 2, 3}, "w23");
    sel_diag_error(&diag, (struct sel_pos){"b.yaml", 2, 5}, "other");
    sel_diag_error(&diag, (struct sel_pos){"b.yaml", 2, 5}, "e25");   /* repeated */
    sel_diag_warning(&diag, (struct sel_pos){"b.yaml", 2, 5}, "e25"); /* a warning is another */
    assert_int_equal(diag.error_count, 5);
    sel_diag_sort(&diag);
    static const char *const expected[] = {"w23", "e25", "other", "e25", "e7", "a1"};
    size_t n = 0;
    const struct sel_diag_item *last = NULL;
    for (const struct sel_diag_item *item = diag.first; item; item = item->next) {
        assert_true(n < SEL_COUNT(expected));
        assert_string_equal(item->text, expected[n++]);
        last = item;
    }
    assert_int_equal(n, SEL_COUNT(expected));
    assert_ptr_equal(diag.last, last);
    assert_int_equal(diag.error_count, 4);
    assert_int_equal(diag.warning_count, 2);
    sel_arena_done(&arena);
}

static void test_an_empty_list_can_be_sorted_and_added_to(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    sel_diag_sort(&diag);
    assert_null(diag.first);
    sel_diag_error(&diag, (struct sel_pos){0}, "one");
    sel_diag_sort(&diag);
    sel_diag_error(&diag, (struct sel_pos){0}, "two");
    assert_string_equal(diag.first->text, "one");
    assert_string_equal(diag.first->next->text, "two");
    sel_arena_done(&arena);
}

static void test_warnings_never_crowd_out_errors(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    for (uint32_t i = 1; i <= SEL_DIAG_MAX + 5; i++)
        sel_diag_warning(&diag, (struct sel_pos){.line = i}, "w");
    sel_diag_error(&diag, (struct sel_pos){.line = 1}, "e");
    assert_int_equal(diag.warning_count, SEL_DIAG_MAX + 5);
    assert_int_equal(diag.dropped_count, 5);
    assert_string_equal(diag.last->text, "e");
    sel_arena_done(&arena);
}

static void test_an_error_without_memory_is_counted(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    sel_mem_fail_at(1);
    sel_diag_error(&diag, (struct sel_pos){0}, "lost");
    sel_mem_fail_at(0);
    assert_null(diag.first);
    assert_int_equal(diag.error_count, 1);
    assert_int_equal(diag.dropped_count, 1);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_has_a_name_and_a_text),
        cmocka_unit_test(test_codes_of_the_system_and_unknown_ones_have_texts),
        cmocka_unit_test(test_set_fills_the_error_and_returns_its_code),
        cmocka_unit_test(test_an_error_can_be_wrapped_into_itself),
        cmocka_unit_test(test_a_long_text_is_cut_between_characters),
        cmocka_unit_test(test_format_leaves_unknown_parts_out),
        cmocka_unit_test(test_diagnostics_sort_by_file_line_column_and_lose_repetitions),
        cmocka_unit_test(test_an_empty_list_can_be_sorted_and_added_to),
        cmocka_unit_test(test_warnings_never_crowd_out_errors),
        cmocka_unit_test(test_an_error_without_memory_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
