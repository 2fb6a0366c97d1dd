#include "worker/timer.h"

#include "core/prng.h"
#include "tests/support/test.h"
#include "worker/loop.h"

static void test_timers_come_in_the_order_of_their_times(void **state)
{
    (void)state;
    struct sel_timers timers = {0};
    struct sel_timer all[500];
    struct sel_prng prng = {1};
    for (size_t i = 0; i < SEL_COUNT(all); i++) {
        all[i] = (struct sel_timer)SEL_TIMER_INIT;
        assert_ok(sel_timers_start(&timers, &all[i], (int64_t)sel_prng_below(&prng, 1000)));
    }
    int64_t last_us = -1;
    for (size_t i = 0; i < SEL_COUNT(all); i++) {
        int64_t next_us = sel_timers_next_us(&timers);
        struct sel_timer *timer = sel_timers_take(&timers, 1000);
        assert_non_null(timer);
        assert_int_equal(timer->at_us, next_us);
        assert_true(timer->at_us >= last_us);
        assert_int_equal(timer->heap_index, UINT32_MAX);
        last_us = timer->at_us;
    }
    assert_null(sel_timers_take(&timers, INT64_MAX));
    assert_true(sel_timers_next_us(&timers) == INT64_MAX);
    sel_timers_done(&timers);
}

static void test_a_timer_is_not_taken_before_its_time(void **state)
{
    (void)state;
    struct sel_timers timers = {0};
    struct sel_timer timer = SEL_TIMER_INIT;
    assert_ok(sel_timers_start(&timers, &timer, 100));
    assert_null(sel_timers_take(&timers, 99));
    assert_ptr_equal(sel_timers_take(&timers, 100), &timer);
    sel_timers_done(&timers);
}

/* Starts, moves and stops at random, beside a plain array that is searched. */
static void test_starts_moves_and_stops_agree_with_a_plain_list(void **state)
{
    (void)state;
    enum { COUNT = 40, STEPS = 20000 };
    struct sel_timers timers = {0};
    struct sel_timer all[COUNT];
    int64_t expected_us[COUNT]; /* INT64_MAX: not armed */
    struct sel_prng prng = {7};
    for (size_t i = 0; i < COUNT; i++) {
        all[i] = (struct sel_timer)SEL_TIMER_INIT;
        expected_us[i] = INT64_MAX;
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        size_t i = sel_prng_below(&prng, COUNT);
        switch (sel_prng_below(&prng, 3)) {
        case 0:
            sel_timers_stop(&timers, &all[i]);
            expected_us[i] = INT64_MAX;
            break;
        case 1:
            expected_us[i] = (int64_t)sel_prng_below(&prng, 100);
            assert_ok(sel_timers_start(&timers, &all[i], expected_us[i]));
            break;
        default:;
            struct sel_timer *taken = sel_timers_take(&timers, 30);
            if (taken)
                expected_us[taken - all] = INT64_MAX;
        }
        int64_t least_us = INT64_MAX;
        for (size_t k = 0; k < COUNT; k++)
            least_us = expected_us[k] < least_us ? expected_us[k] : least_us;
        assert_true(sel_timers_next_us(&timers) == least_us);
    }
    sel_timers_done(&timers);
}

static void test_stopping_twice_is_harmless(void **state)
{
    (void)state;
    struct sel_timers timers = {0};
    struct sel_timer timer = SEL_TIMER_INIT;
    sel_timers_stop(&timers, &timer);
    assert_ok(sel_timers_start(&timers, &timer, 1));
    sel_timers_stop(&timers, &timer);
    sel_timers_stop(&timers, &timer);
    assert_null(sel_timers_take(&timers, 1));
    sel_timers_done(&timers);
}

static void test_out_of_memory_arms_nothing(void **state)
{
    (void)state;
    struct sel_timers timers = {0};
    struct sel_timer timer = SEL_TIMER_INIT;
    sel_mem_fail_at(1);
    assert_code(sel_timers_start(&timers, &timer, 1), SEL_ENOMEM);
    sel_mem_fail_at(0);
    assert_int_equal(timer.heap_index, UINT32_MAX);
    assert_true(sel_timers_next_us(&timers) == INT64_MAX);
    assert_ok(sel_timers_start(&timers, &timer, 1));
    sel_timers_done(&timers);
    assert_int_equal(timer.heap_index, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_come_in_the_order_of_their_times),
        cmocka_unit_test(test_a_timer_is_not_taken_before_its_time),
        cmocka_unit_test(test_starts_moves_and_stops_agree_with_a_plain_list),
        cmocka_unit_test(test_stopping_twice_is_harmless),
        cmocka_unit_test(test_out_of_memory_arms_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
