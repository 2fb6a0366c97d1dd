#include <stdio.h>

#include "core/trace.h"
#include "tests/support/test.h"

static const char *const level_names[] = {
    [SEL_LEVEL_INFO] = "info",
    [SEL_LEVEL_WARNING] = "warning",
    [SEL_LEVEL_ERROR] = "error",
};

static void test_events_are_those_of_the_original(void **state)
{
    (void)state;
    FILE *table = fopen("tests/conformance/trace-events.md", "r");
    assert_non_null(table);
    char line[4096], name[64], level[16];
    uint32_t number, count = 0;
    while (fgets(line, sizeof(line), table)) {
        if (sscanf(line, "| %u | %63s | %15s |", &number, name, level) != 3)
            continue;
        assert_int_equal(number, count);
        assert_string_equal(sel_trace_name(number), name);
        assert_string_equal(level_names[sel_trace_level_of(number)], level);
        count++;
    }
    fclose(table);
    assert_int_equal(count, SEL_TRACE_TASK_DUPLICATE); /* the one event of ours follows */
    assert_string_equal(sel_trace_name(SEL_TRACE_TASK_DUPLICATE), "TASK_DUPLICATE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_are_those_of_the_original),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
