#include "tests/support/test.h"

#include "core/strategy.h"

/* One look: what it saw and the wait that must follow; -1: none. */
struct look {
    double previous; /* -1: the first look */
    uint32_t active, started, fallbacks;
    double expected;
};

static const struct sel_strategy *find(const char *name)
{
    const struct sel_strategy *strategy = sel_strategy_find(sel_str_c(name));
    assert_non_null(strategy);
    return strategy;
}

static double wait_after(const struct sel_strategy *strategy, const double args[],
                         const struct look *look)
{
    struct sel_prng prng = {1};
    struct sel_strategy_status status = {
        .has_previous_retry = look->previous >= 0,
        .previous_retry_s = look->previous,
        .active_count = look->active,
        .new_started_count = look->started,
        .new_fallback_count = look->fallbacks,
    };
    return strategy->eval(args, &status, &prng);
}

static void check(const char *name, const double args[], const struct look *looks, size_t count)
{
    const struct sel_strategy *strategy = find(name);
    for (size_t i = 0; i < count; i++) {
        double wait = wait_after(strategy, args, &looks[i]);
        if (wait != looks[i].expected)
            fail_msg("%s, look %zu: expected %g, got %g", name, i, looks[i].expected, wait);
    }
}

static void test_nothing_active_ends_every_strategy(void **state)
{
    (void)state;
    uint32_t count;
    const struct sel_strategy *table = sel_strategy_table(&count);
    assert_int_equal(count, 7);
    for (uint32_t i = 0; i < count; i++) {
        const struct look looks[] = {{-1, 0, 0, 0, -1}, {4, 0, 0, 0, -1}, {4, 0, 1, 1, -1}};
        check(table[i].name, table[i].defaults, looks, SEL_COUNT(looks));
    }
}

static void test_increase_grows_while_nothing_starts(void **state)
{
    (void)state;
    const double linear[] = {2, 11, 3}, doubling[] = {2, 11};
    const struct look linear_looks[] = {{-1, 1, 1, 0, 2}, {2, 1, 0, 0, 5},   {5, 1, 0, 0, 8},
                                        {8, 1, 0, 0, 11}, {11, 1, 0, 0, 11}, {11, 1, 1, 0, 2},
                                        {11, 1, 0, 1, 2}};
    const struct look doubling_looks[] = {
        {-1, 1, 0, 0, 2}, {2, 1, 0, 0, 4}, {8, 1, 0, 0, 11}, {11, 1, 1, 0, 2}, {11, 1, 0, 1, 2}};
    check("linear_increase", linear, linear_looks, SEL_COUNT(linear_looks));
    check("biexponential_increase", doubling, doubling_looks, SEL_COUNT(doubling_looks));
}

static void test_adapt_shrinks_when_something_started(void **state)
{
    (void)state;
    const double linear[] = {1, 9, 4}, doubling[] = {2, 30};
    const struct look linear_looks[] = {
        {-1, 1, 1, 0, 1}, {1, 1, 0, 0, 5}, {9, 1, 0, 0, 9}, {9, 1, 1, 0, 5}, {3, 1, 0, 1, 1}};
    const struct look doubling_looks[] = {
        {-1, 1, 1, 0, 2}, {2, 1, 0, 0, 4}, {16, 1, 0, 0, 30}, {30, 1, 1, 0, 15}, {3, 1, 0, 1, 2}};
    check("linear_adapt", linear, linear_looks, SEL_COUNT(linear_looks));
    check("biexponential_adapt", doubling, doubling_looks, SEL_COUNT(doubling_looks));
}

static void test_decrease_halves_down_to_stop_retry(void **state)
{
    (void)state;
    const double args[] = {60, 5};
    const struct look looks[] = {
        {-1, 1, 0, 0, 60}, {60, 1, 0, 0, 30}, {15, 1, 1, 0, 7.5}, {7.5, 1, 0, 0, 5}};
    check("biexponential_decrease", args, looks, SEL_COUNT(looks));
}

static void test_constant_never_changes(void **state)
{
    (void)state;
    const double args[] = {0.75};
    const struct look looks[] = {{-1, 1, 1, 0, 0.75}, {9, 3, 0, 0, 0.75}};
    check("constant", args, looks, SEL_COUNT(looks));
}

static void test_random_reaches_both_ends_and_whole_numbers_only(void **state)
{
    (void)state;
    const struct sel_strategy *strategy = find("random");
    const double args[] = {0.5, 4.75};
    const struct sel_strategy_status status = {.active_count = 1};
    struct sel_prng prng = {3};
    uint32_t seen[6] = {0};
    for (int i = 0; i < 400; i++) {
        double wait = strategy->eval(args, &status, &prng);
        assert_true(wait >= 1 && wait <= 4 && wait == (double)(int)wait);
        seen[(int)wait]++;
    }
    for (int i = 1; i <= 4; i++)
        assert_true(seen[i] > 0);
}

static void test_random_survives_empty_and_huge_ranges(void **state)
{
    (void)state;
    const struct sel_strategy *strategy = find("random");
    const struct sel_strategy_status status = {.active_count = 1};
    struct sel_prng prng = {3};
    const double turned[] = {5, 2}, between[] = {1.2, 1.8}, huge[] = {0, 1e300};
    assert_true(strategy->eval(turned, &status, &prng) == 5);
    assert_true(strategy->eval(between, &status, &prng) == 1.2);
    double wait = strategy->eval(huge, &status, &prng);
    assert_true(wait >= 0 && wait <= 1e300);
}

static void test_defaults_are_those_of_a_missing_args(void **state)
{
    (void)state;
    const struct {
        const char *arg;
        double value;
    } defaults[] = {
        {"start_retry", 2}, {"max_retry", 120}, {"step", 1}, {"stop_retry", 2}, {"retry", 2}};
    uint32_t count;
    const struct sel_strategy *table = sel_strategy_table(&count);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t a = 0; a < table[i].arg_count; a++)
            for (size_t d = 0; d < SEL_COUNT(defaults); d++)
                if (strcmp(table[i].args[a], defaults[d].arg) == 0)
                    assert_true(table[i].defaults[a] == defaults[d].value);
}

static void test_unknown_names_are_not_found(void **state)
{
    (void)state;
    assert_null(sel_strategy_find(SEL_STR("")));
    assert_null(sel_strategy_find(SEL_STR("linear")));
    assert_null(sel_strategy_find(SEL_STR("Constant")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_active_ends_every_strategy),
        cmocka_unit_test(test_increase_grows_while_nothing_starts),
        cmocka_unit_test(test_adapt_shrinks_when_something_started),
        cmocka_unit_test(test_decrease_halves_down_to_stop_retry),
        cmocka_unit_test(test_constant_never_changes),
        cmocka_unit_test(test_random_reaches_both_ends_and_whole_numbers_only),
        cmocka_unit_test(test_random_survives_empty_and_huge_ranges),
        cmocka_unit_test(test_defaults_are_those_of_a_missing_args),
        cmocka_unit_test(test_unknown_names_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
