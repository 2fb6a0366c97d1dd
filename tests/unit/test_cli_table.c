/* What a broker answers, as a table: units by name, aligned, safe for a terminal. */
#include "tests/support/test.h"

#include "cli/table.h"

static void test_units_come_from_names(void **state)
{
    (void)state;
    const struct {
        const char *key, *json, *cell;
    } cases[] = {
        {"tasks", "1204", "1,204"},
        {"tasks", "-7", "-7"},
        {"tasks", "18446744073709551615", "18,446,744,073,709,551,615"},
        {"lease_us", "10000000", "10 s"},
        {"commit_us.p99", "41000", "41 ms"},
        {"heard_us_ago", "41000", "41 ms"},
        {"status", "41000", "41,000"},
        {"commit_us.count", "41000", "41,000"},
        {"status.commit_us.max", "870", "870 us"},
        {"bytes_in", "512", "512 B"},
        {"memory_used", "1536", "1.5 KiB"},
        {"commit_bytes", "1073741824", "1.0 GiB"},
        {"commit_bytes", "107374182400", "100 GiB"},
        {"megabytes", "1024", "1,024"}, /* not a word of its own */
        {"is_full", "false", "no"},
        {"is_full", "true", "yes"},
        {"name", "null", "-"},
        {"rate", "0.25", "0.25"},
        {"queues", "[]", "-"},
        {"queues", "[\"a\", \"b\"]", "a, b"},
        {"other", "[1, \"b\"]", "[1, \"b\"]"},
        {"name", "\"worker-1\"", "worker-1"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value value = sel_test_json(&arena, cases[i].json);
        assert_string_equal(sel_cli_table_cell(&arena, cases[i].key, &value), cases[i].cell);
        sel_arena_done(&arena);
    }
}

static void test_no_text_moves_the_cursor(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value value = sel_test_json(&arena, "\"a\\u001b[2J\\n\\u009bb\\u007f\\u00e9\"");
    assert_string_equal(sel_cli_table_cell(&arena, "name", &value), "a?[2J???b?\xc3\xa9");
    sel_arena_done(&arena);
}

static void check(const char *json, const char *expected)
{
    struct sel_arena arena = {0};
    struct sel_buf out = {0};
    struct sel_value value = sel_test_json(&arena, json);
    assert_ok(sel_cli_table_print(&arena, &value, "Nothing.", &out));
    assert_string_equal(sel_buf_cstr(&out), expected);
    sel_buf_done(&out);
    sel_arena_done(&arena);
}

static void test_a_map_is_a_line_a_value(void **state)
{
    (void)state;
    check("{\"tasks\": 1204, \"is_full\": false, \"commit_us\": {\"p50\": 870, \"p99\": 4100}}",
          "tasks          1,204\n"
          "is_full        no\n"
          "commit_us.p50  870 us\n"
          "commit_us.p99  4.1 ms\n");
    check("{}", "");
}

static void test_a_list_is_a_table_with_numbers_to_the_right(void **state)
{
    (void)state;
    check("[{\"name\": \"h\\u00e4ufig\", \"depth\": 1204}, {\"name\": \"b\", \"depth\": 7},"
          " {\"name\": \"lacks it\"}]",
          "name      depth\n"
          "h\xc3\xa4ufig    1,204\n"
          "b             7\n"
          "lacks it  -\n");
    check("[{\"role\": \"producer\"}, {\"role\": \"worker\", \"slots\": 8}]", "role      slots\n"
                                                                              "producer  -\n"
                                                                              "worker        8\n");
    check("[]", "Nothing.\n");
    check("[1, 2]", "[1, 2]\n");
    check("\"done\"", "done\n");
}

static int print_all(void *ctx)
{
    struct sel_arena arena = {0};
    struct sel_buf out = {0};
    int r = sel_cli_table_print(&arena, ctx, "", &out);
    sel_buf_done(&out);
    sel_arena_done(&arena);
    return r;
}

static void test_a_lack_of_memory_is_reported(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value list = sel_test_json(&arena, "[{\"a\": 1, \"b\": [\"x\"]}, {\"a\": [2]}]");
    struct sel_value map = sel_test_json(&arena, "{\"a\": 1, \"b\": {\"c\": [2]}}");
    sel_test_each_alloc_fails(print_all, &list);
    sel_test_each_alloc_fails(print_all, &map);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units_come_from_names),
        cmocka_unit_test(test_no_text_moves_the_cursor),
        cmocka_unit_test(test_a_map_is_a_line_a_value),
        cmocka_unit_test(test_a_list_is_a_table_with_numbers_to_the_right),
        cmocka_unit_test(test_a_lack_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
