/* The result of a flow as one line. */
#include "tests/support/test.h"

#include "cli/ends.h"

static void test_a_flow_is_told_in_one_line(void **state)
{
    (void)state;
    const struct {
        const char *json, *line; /* NULL: is no flow's */
    } cases[] = {
        {"{\"active_nodes\": [], \"finished_nodes\": {\"A\": [\"1\"]}, \"failed_nodes\": {}}",
         "1 node finished"},
        {"{\"active_nodes\": [{\"name\": \"C\", \"id\": \"9\"}], \"finished_nodes\": {\"A\": [1, "
         "2],"
         " \"B\": [3]}, \"failed_nodes\": {\"D\": [4, 5], \"E\": [6]}, \"class\": \"FlowError\","
         " \"message\": \"no way\"}",
         "3 nodes finished, 3 failed (D 2x, E), 1 active: FlowError: no way"},
        {"{\"active_nodes\": 0, \"finished_nodes\": 1999, \"failed_nodes\": 12}",
         "1,999 nodes finished, 12 failed"},
        {"{\"active_nodes\": 0, \"finished_nodes\": 1999, \"failed_nodes\": 12, \"pages\": 3,"
         " \"class\": \"FlowError\", \"message\": \"no way\"}",
         "1,999 nodes finished, 12 failed (`result ID --nodes` lists them): FlowError: no way"},
        {"{\"active_nodes\": 0, \"finished_nodes\": 1999, \"failed_nodes\": 0, \"pages\": 0}",
         "1,999 nodes finished"},
        {"{\"active_nodes\": [], \"finished_nodes\": {}, \"failed_nodes\": {\"a\": [1], \"b\": [1],"
         " \"c\": [1], \"d\": [1], \"e\": [1], \"f\": [1]}}",
         "0 nodes finished, 6 failed (a, b, c, d, e, ...)"},
        {"{\"finished_nodes\": {}, \"failed_nodes\": {}}", NULL},
        {"{\"active_nodes\": \"x\", \"finished_nodes\": {}, \"failed_nodes\": {}}", NULL},
        {"{\"class\": \"A\", \"message\": \"b\"}", NULL},
        {"[1]", NULL},
        {"null", NULL},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_buf out = {0};
        struct sel_value value = sel_test_json(&arena, cases[i].json);
        assert_int_equal(sel_cli_ends_put_flow(&value, &out), cases[i].line != NULL);
        assert_string_equal(sel_buf_cstr(&out), cases[i].line ? cases[i].line : "");
        sel_buf_done(&out);
        sel_arena_done(&arena);
    }
}

static void test_levels_have_names(void **state)
{
    (void)state;
    assert_int_equal(sel_cli_ends_level(NULL), SEL_CLIENT_LEVEL_DEFAULT);
    for (uint8_t i = 0; sel_cli_ends_levels[i]; i++)
        assert_int_equal(sel_cli_ends_level(sel_cli_ends_levels[i]), i);
    assert_int_equal(sel_cli_ends_level("commit"), SEL_CLIENT_LEVEL_COMMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flow_is_told_in_one_line),
        cmocka_unit_test(test_levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
