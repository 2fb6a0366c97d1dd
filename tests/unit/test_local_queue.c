#include "tests/support/test.h"

#include "worker/local_queue.h"

#define S INT64_C(1000000)

/* Task 0 in queue `alpha`, 1 in `beta`, 2 in `alpha`; flow 0 (node 3) in `gamma`. */
struct scene {
    struct sel_task_def tasks[3];
    struct sel_flow_def flows[1];
    struct sel_system system;
    struct sel_local_queues q;
    struct sel_work works[64];
};

static void init(struct scene *s, const char *const *served, uint32_t served_count)
{
    memset(s, 0, sizeof(*s));
    s->tasks[0].queue = s->tasks[2].queue = SEL_STR("alpha");
    s->tasks[1].queue = SEL_STR("beta");
    s->flows[0].queue = SEL_STR("gamma");
    s->system =
        (struct sel_system){.tasks = s->tasks, .task_count = 3, .flows = s->flows, .flow_count = 1};
    assert_ok(sel_local_queues_init(&s->q, &s->system, served, served_count, NULL));
}

static void push(struct scene *s, uint32_t work, uint32_t node, int64_t now_us, int64_t delay_us)
{
    assert_ok(sel_local_push(&s->q, &s->works[work], node, now_us, delay_us));
}

/* The number of the next work, -1 if there is none. */
static int pop(struct scene *s)
{
    struct sel_work *work = sel_local_pop(&s->q);
    return work ? (int)(work - s->works) : -1;
}

/* ---- throttling ---- */

#define STARTS_MAX 8

static void test_throttled_starts_lie_an_interval_apart(void **state)
{
    (void)state;
    const struct {
        int64_t interval_us;
        uint32_t count;
        int64_t at_us[STARTS_MAX];    /* when each start is asked for */
        int64_t delay_us[STARTS_MAX]; /* what it has to wait */
    } cases[] = {
        /* no throttling */
        {0, 3, {0, 0, 0}, {0, 0, 0}},
        {-1, 2, {0, 0}, {0, 0}},
        /* the first never waits, whatever the clock shows */
        {10 * S, 1, {0}, {0}},
        {10 * S, 1, {1000 * S}, {0}},
        {10 * S, 1, {-5 * S}, {0}},
        /* the k-th of a burst waits (k-1) intervals */
        {10 * S, 2, {0, 0}, {0, 10 * S}},
        {10 * S, 5, {0, 0, 0, 0, 0}, {0, 10 * S, 20 * S, 30 * S, 40 * S}},
        {10 * S, 3, {7 * S, 7 * S, 7 * S}, {0, 10 * S, 20 * S}},
        {1, 4, {0, 0, 0, 0}, {0, 1, 2, 3}},
        /* fractions of a second */
        {S / 2, 3, {0, 0, 0}, {0, S / 2, S}},
        {1500, 3, {0, 0, 0}, {0, 1500, 3000}},
        {S / 3, 4, {0, 0, 0, 0}, {0, 333333, 666666, 999999}},
        /* the time that has passed counts */
        {10 * S, 2, {0, 4 * S}, {0, 6 * S}},
        {10 * S, 3, {0, 4 * S, 4 * S}, {0, 6 * S, 16 * S}},
        {10 * S, 2, {0, 10 * S}, {0, 0}},
        {10 * S, 2, {0, 10 * S - 1}, {0, 1}},
        {10 * S, 2, {0, 10 * S + 1}, {0, 0}},
        /* idle time is not saved up: a burst after it is spread as the first was */
        {10 * S, 4, {0, 100 * S, 100 * S, 100 * S}, {0, 0, 10 * S, 20 * S}},
        /* a second burst while the first still waits comes behind it */
        {10 * S, 6, {0, 0, 0, 5 * S, 5 * S, 5 * S}, {0, 10 * S, 20 * S, 25 * S, 35 * S, 45 * S}},
        {10 * S, 5, {0, 0, 0, 19 * S, 30 * S}, {0, 10 * S, 20 * S, 11 * S, 10 * S}},
        /* the last of a burst has started: the next waits for the rest of its interval */
        {10 * S, 4, {0, 0, 0, 25 * S}, {0, 10 * S, 20 * S, 5 * S}},
        {10 * S, 4, {0, 0, 0, 31 * S}, {0, 10 * S, 20 * S, 0}},
        /* weeks */
        {14 * 86400 * S, 3, {0, 0, 86400 * S}, {0, 14 * 86400 * S, 27 * 86400 * S}},
        /* steady starts at the pace of the throttle, then slower, then faster */
        {2 * S, 4, {0, 2 * S, 4 * S, 6 * S}, {0, 0, 0, 0}},
        {2 * S, 4, {0, 3 * S, 6 * S, 9 * S}, {0, 0, 0, 0}},
        {2 * S, 5, {0, S, 2 * S, 3 * S, 4 * S}, {0, S, 2 * S, 3 * S, 4 * S}},
        /* a clock that goes back does not open the throttle */
        {10 * S, 2, {50 * S, 45 * S}, {0, 15 * S}},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct scene s;
        init(&s, NULL, 0);
        s.tasks[1].throttle_us = s.flows[0].throttle_us = cases[i].interval_us;
        for (uint32_t k = 0; k < cases[i].count; k++) {
            const uint32_t nodes[] = {1, 3}; /* a task and a flow: the same, and apart */
            for (size_t n = 0; n < SEL_COUNT(nodes); n++) {
                int64_t delay = sel_local_throttle_us(&s.q, nodes[n], cases[i].at_us[k]);
                if (delay != cases[i].delay_us[k])
                    fail_msg("case %zu, start %u: %lld us", i, k, (long long)delay);
            }
            assert_int_equal(sel_local_throttle_us(&s.q, 0, cases[i].at_us[k]), 0);
        }
        sel_local_queues_done(&s.q);
    }
}

static void test_intervals_beyond_the_end_of_time_do_not_wrap(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    s.tasks[0].throttle_us = INT64_MAX / 2;
    assert_int_equal(sel_local_throttle_us(&s.q, 0, 10), 0);
    for (int i = 0; i < 4; i++)
        assert_true(sel_local_throttle_us(&s.q, 0, 10) >= INT64_MAX / 2);
    sel_local_queues_done(&s.q);
}

/* ---- delays ---- */

static void test_delayed_work_comes_in_the_order_of_its_time_then_of_its_pushes(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    const int64_t delays[] = {30, 10, 20, 10, 50, 20, 10, 40};
    const int order[] = {1, 3, 6, 2, 5, 0, 7, 4};
    for (uint32_t i = 0; i < SEL_COUNT(delays); i++)
        push(&s, i, 0, 100, delays[i]);
    assert_int_equal(pop(&s), -1);
    assert_int_equal(sel_local_advance(&s.q, 109), 110);
    assert_int_equal(pop(&s), -1);
    assert_int_equal(sel_local_advance(&s.q, 110), 120);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pop(&s), order[i]);
    assert_int_equal(pop(&s), -1);
    assert_int_equal(sel_local_advance(&s.q, 1000), INT64_MAX);
    for (size_t i = 3; i < SEL_COUNT(order); i++)
        assert_int_equal(pop(&s), order[i]);
    assert_int_equal(pop(&s), -1);
    sel_local_queues_done(&s.q);
}

static void test_work_is_taken_out_of_any_place_among_the_delays(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    for (uint32_t out = 0; out < COUNT; out++) {
        struct scene s;
        init(&s, NULL, 0);
        for (uint32_t i = 0; i < COUNT; i++)
            push(&s, i, 0, 0, 1 + i * 17 % COUNT); /* all different */
        sel_local_remove(&s.q, &s.works[out]);
        sel_local_remove(&s.q, &s.works[out]); /* no longer there */
        (void)sel_local_advance(&s.q, COUNT + 1);
        int64_t last = 0;
        uint32_t count = 0;
        for (int i = pop(&s); i >= 0; i = pop(&s), count++) {
            assert_int_not_equal(i, out);
            assert_true(s.works[i].due_us > last);
            last = s.works[i].due_us;
        }
        assert_int_equal(count, COUNT - 1);
        sel_local_queues_done(&s.q);
    }
}

static void test_work_that_is_due_is_no_longer_taken_out(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    push(&s, 0, 0, 0, 5);
    push(&s, 1, 0, 0, 0);
    (void)sel_local_advance(&s.q, 5);
    sel_local_remove(&s.q, &s.works[0]);
    sel_local_remove(&s.q, &s.works[1]);
    assert_int_equal(pop(&s), 1);
    assert_int_equal(pop(&s), 0);
    sel_local_queues_done(&s.q);
}

static void test_a_delay_without_end_never_comes(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    push(&s, 0, 0, 1000, INT64_MAX);
    assert_int_equal(s.works[0].due_us, INT64_MAX);
    assert_int_equal(sel_local_advance(&s.q, INT64_MAX - 1), INT64_MAX);
    assert_int_equal(pop(&s), -1);
    assert_ptr_equal(sel_local_take_any(&s.q), &s.works[0]);
    sel_local_queues_done(&s.q);
}

/* ---- queues ---- */

static void test_queues_take_turns_and_none_starves(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    for (uint32_t i = 0; i < 30; i++)
        push(&s, i, i % 2 ? 0 : 2, 0, 0); /* thirty in alpha */
    push(&s, 30, 1, 0, 0);
    push(&s, 31, 1, 0, 0);
    push(&s, 32, 3, 0, 0);
    const int order[] = {0, 30, 32, 1, 31, 2, 3};
    for (size_t i = 0; i < SEL_COUNT(order); i++)
        assert_int_equal(pop(&s), order[i]);
    push(&s, 33, 3, 0, 0); /* alpha had the last turn, beta is empty */
    assert_int_equal(pop(&s), 33);
    for (int i = 4; i < 30; i++)
        assert_int_equal(pop(&s), i);
    assert_int_equal(pop(&s), -1);
    assert_int_equal(s.q.ready, 0);
    sel_local_queues_done(&s.q);
}

static void test_queues_that_are_not_served_keep_their_work(void **state)
{
    (void)state;
    static const char *const served[] = {"beta", "gamma", "beta"};
    struct scene s;
    init(&s, served, SEL_COUNT(served));
    push(&s, 0, 0, 0, 0);
    push(&s, 1, 1, 0, 0);
    push(&s, 2, 2, 0, 7);
    push(&s, 3, 3, 0, 0);
    (void)sel_local_advance(&s.q, 7);
    assert_int_equal(s.q.ready, 2);
    assert_int_equal(s.q.unserved, 2);
    assert_int_equal(pop(&s), 1);
    assert_int_equal(pop(&s), 3);
    assert_int_equal(pop(&s), -1);
    assert_int_equal(s.q.unserved, 2);
    sel_local_queues_done(&s.q);
}

static void test_a_name_that_is_no_queue_is_refused(void **state)
{
    (void)state;
    static const char *const served[] = {"beta", "delta"};
    struct scene s;
    struct sel_error err = {0};
    init(&s, NULL, 0);
    sel_local_queues_done(&s.q);
    assert_code(sel_local_queues_init(&s.q, &s.system, served, 2, &err), SEL_EREQUEST);
    assert_non_null(strstr(err.text, "'delta'"));
}

static void test_what_is_left_can_be_taken_wherever_it_is(void **state)
{
    (void)state;
    static const char *const served[] = {"beta"};
    struct scene s;
    init(&s, served, 1);
    bool taken[6] = {false};
    push(&s, 0, 0, 0, 0); /* not served */
    push(&s, 1, 1, 0, 0);
    push(&s, 2, 1, 0, 0);
    push(&s, 3, 0, 0, 9);
    push(&s, 4, 1, 0, 3);
    push(&s, 5, 3, 0, 0);
    struct sel_work *work;
    for (int i = 0; i < 6; i++) {
        work = sel_local_take_any(&s.q);
        assert_non_null(work);
        assert_false(taken[work - s.works]);
        taken[work - s.works] = true;
    }
    assert_null(sel_local_take_any(&s.q));
    assert_int_equal(s.q.ready + s.q.unserved, 0);
    sel_local_queues_done(&s.q);
}

static int init_and_delay(void *ctx)
{
    struct scene *s = ctx;
    struct sel_error err;
    int r = sel_local_queues_init(&s->q, &s->system, NULL, 0, &err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < SEL_COUNT(s->works) && r == 0; i++)
        r = sel_local_push(&s->q, &s->works[i], 0, 0, 1);
    sel_local_queues_done(&s->q);
    return r;
}

static void test_each_failing_allocation_is_answered(void **state)
{
    (void)state;
    struct scene s;
    init(&s, NULL, 0);
    sel_local_queues_done(&s.q);
    sel_test_each_alloc_fails(init_and_delay, &s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_throttled_starts_lie_an_interval_apart),
        cmocka_unit_test(test_intervals_beyond_the_end_of_time_do_not_wrap),
        cmocka_unit_test(test_delayed_work_comes_in_the_order_of_its_time_then_of_its_pushes),
        cmocka_unit_test(test_work_is_taken_out_of_any_place_among_the_delays),
        cmocka_unit_test(test_work_that_is_due_is_no_longer_taken_out),
        cmocka_unit_test(test_a_delay_without_end_never_comes),
        cmocka_unit_test(test_queues_take_turns_and_none_starves),
        cmocka_unit_test(test_queues_that_are_not_served_keep_their_work),
        cmocka_unit_test(test_a_name_that_is_no_queue_is_refused),
        cmocka_unit_test(test_what_is_left_can_be_taken_wherever_it_is),
        cmocka_unit_test(test_each_failing_allocation_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
