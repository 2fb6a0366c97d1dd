#include "cli/format.h"

#include "cli/progress.h"
#include "tests/support/test.h"

static void test_counts_have_groups_of_three(void **state)
{
    (void)state;
    char out[SEL_CLI_FORMAT_SIZE];
    assert_string_equal(sel_cli_format_count(0, out), "0");
    assert_string_equal(sel_cli_format_count(999, out), "999");
    assert_string_equal(sel_cli_format_count(1204, out), "1,204");
    assert_string_equal(sel_cli_format_count(UINT64_MAX, out), "18,446,744,073,709,551,615");
}

static void test_times_have_a_fitting_unit(void **state)
{
    (void)state;
    static const struct {
        int64_t us;
        const char *text;
    } cases[] = {
        {-5, "0 s"},
        {0, "0 s"},
        {870, "870 us"},
        {1000, "1 ms"},
        {1449, "1.4 ms"},
        {41200, "41 ms"},
        {999400, "999 ms"},
        {999600, "1 s"},
        {4800000, "4.8 s"},
        {59600000, "60 s"},
        {200000000, "3 min 20 s"},
        {INT64_C(7500000000), "2 h 5 min"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char out[SEL_CLI_FORMAT_SIZE];
        assert_string_equal(sel_cli_format_time(cases[i].us, out), cases[i].text);
    }
    char out[SEL_CLI_FORMAT_SIZE];
    assert_string_equal(sel_cli_format_clock(4900000, out), "00:00:04");
    assert_string_equal(sel_cli_format_clock(INT64_C(360061000000), out), "100:01:01");
    (void)sel_cli_format_clock(INT64_MAX, out); /* fits */
}

static void test_the_progress_line_drops_what_does_not_fit(void **state)
{
    (void)state;
    struct sel_cli_progress progress = {.name = "ingest", .rate = 18300, .has_rate = true};
    struct sel_executor_progress now = {
        .started = 1460, .finished = 1202, .failed = 2, .running = 3, .elapsed_us = 4000000};
    char line[512];
    size_t n = sel_cli_progress_format(&progress, &now, 200, line, sizeof(line));
    assert_int_equal(n, strlen(line));
    assert_string_equal(line, "ingest  ################      1,204/1,460 nodes   3 running   "
                              "2 failed   18,300 nodes/s   00:00:04");
    for (uint32_t width = 0; width < 120; width++)
        assert_true(sel_cli_progress_format(&progress, &now, width, line, sizeof(line)) <= width);

    progress.utf8 = true; /* 20 columns of up to 3 bytes */
    (void)sel_cli_progress_format(&progress, &now, 30, line, sizeof(line));
    assert_string_equal(line, "ingest  ████████████████▍   ");
    assert_int_equal(sel_cli_progress_format(&progress, &now, 30, line, 8), 6);
}

static void test_no_node_at_all_is_an_empty_bar(void **state)
{
    (void)state;
    struct sel_cli_progress progress = {.name = "f"};
    struct sel_executor_progress now = {0};
    char line[512];
    (void)sel_cli_progress_format(&progress, &now, 200, line, sizeof(line));
    assert_string_equal(line, "f                        0/0 nodes   0 running   00:00:00");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_have_groups_of_three),
        cmocka_unit_test(test_times_have_a_fitting_unit),
        cmocka_unit_test(test_the_progress_line_drops_what_does_not_fit),
        cmocka_unit_test(test_no_node_at_all_is_an_empty_bar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
