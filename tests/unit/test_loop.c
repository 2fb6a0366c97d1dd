#include "worker/loop.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/support/test.h"
#include "worker/offload.h"

#ifdef SEL_CO_TSAN
#define MANY 300u /* each is a thread to TSan, and takes it milliseconds */
#else
#define MANY 5000u
#endif

static struct sel_loop *make_loop(uint32_t stacks_max)
{
    struct sel_loop_options options = {.ring_entries = 64, .stacks_max = stacks_max};
    struct sel_loop *loop = NULL;
    struct sel_error err = {0};
    int r = sel_loop_new(&options, &loop, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    return loop;
}

static struct sel_co *spawn(struct sel_loop *loop, sel_co_fn fn, void *arg)
{
    struct sel_co *co = NULL;
    SEL_ASSERT(sel_loop_spawn(loop, fn, arg, &co) == 0);
    return co;
}

/* Runs until all coroutines have ended. */
static void run_to_the_end(struct sel_loop *loop)
{
    sel_loop_stop(loop);
    sel_loop_run(loop);
}

static struct sel_loop_stats stats_of(struct sel_loop *loop)
{
    struct sel_loop_stats stats;
    sel_loop_get_stats(loop, &stats);
    return stats;
}

/* ---- coroutines ---- */

static void add_one(void *arg)
{
    sel_loop_yield();
    ++*(uint32_t *)arg;
}

static void test_many_coroutines_run_to_their_end(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    uint32_t count = 0;
    for (uint32_t i = 0; i < MANY; i++)
        (void)spawn(loop, add_one, &count);
    run_to_the_end(loop);
    assert_int_equal(count, MANY);
    assert_int_equal(stats_of(loop).spawned, MANY);
    assert_int_equal(stats_of(loop).alive, 0);
    assert_null(sel_loop_free(loop));
}

#define NODES 63u /* of a binary tree: the children of i are 2i + 1 and 2i + 2 */

static uint32_t nodes[NODES], node_count;

static void spawn_two_below(void *arg)
{
    const uint32_t *node = arg;
    node_count++;
    for (uint32_t child = 2 * *node + 1; child <= 2 * *node + 2 && child < NODES; child++) {
        nodes[child] = child;
        (void)spawn(sel_loop_current(), spawn_two_below, &nodes[child]);
    }
}

static void test_coroutines_spawn_coroutines(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    node_count = 0;
    (void)spawn(loop, spawn_two_below, &nodes[0]);
    run_to_the_end(loop);
    assert_int_equal(node_count, NODES);
    sel_loop_free(loop);
}

static void test_who_finds_no_stack_waits_for_one(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(3);
    uint32_t count = 0;
    for (uint32_t i = 0; i < 100; i++)
        (void)spawn(loop, add_one, &count);
    assert_int_equal(stats_of(loop).alive, 100);
    run_to_the_end(loop);
    assert_int_equal(count, 100);
    assert_int_equal(stats_of(loop).stacks, 3);
    sel_loop_free(loop);
}

static void sleep_ten_ms(void *arg)
{
    *(int *)arg += sel_co_sleep(10000);
}

/* Waiting for a stack must not keep the processor busy either. */
static void test_waiting_for_a_stack_uses_no_processor(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(1);
    int sum = 0;
    (void)spawn(loop, sleep_ten_ms, &sum);
    (void)spawn(loop, sleep_ten_ms, &sum);
    run_to_the_end(loop);
    assert_int_equal(sum, 0);
    assert_true(stats_of(loop).turns < 20);
    sel_loop_free(loop);
}

struct order {
    char text[16];
    size_t n;
};

static struct order order; /* of the test that runs */

static void write_letters(void *arg)
{
    for (const char *p = arg; *p; p++) {
        order.text[order.n++] = *p;
        sel_loop_yield();
    }
}

static void test_a_yield_lets_the_others_run_once(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    order = (struct order){0};
    (void)spawn(loop, write_letters, "ace");
    (void)spawn(loop, write_letters, "bdf");
    run_to_the_end(loop);
    assert_string_equal(order.text, "abcdef");
    sel_loop_free(loop);
}

static void test_a_loop_that_is_stopped_runs_again(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    uint32_t count = 0;
    run_to_the_end(loop);
    (void)spawn(loop, add_one, &count);
    run_to_the_end(loop);
    assert_int_equal(count, 1);
    assert_null(sel_loop_current());
    sel_loop_free(loop);
}

static int spawn_and_run(void *ctx)
{
    (void)ctx;
    uint32_t count = 0;
    struct sel_loop *loop;
    int r =
        sel_loop_new(&(struct sel_loop_options){.ring_entries = 8, .stacks_max = 8}, &loop, NULL);
    if (r < 0)
        return r;
    int sum = 0;
    r = sel_loop_spawn(loop, add_one, &count, NULL);
    if (r == 0)
        r = sel_loop_spawn(loop, sleep_ten_ms, &sum, NULL);
    run_to_the_end(loop);
    sel_loop_free(loop);
    return r < 0 ? r : sum;
}

static void test_out_of_memory_is_an_answer(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(spawn_and_run, NULL);
}

/* ---- time ---- */

struct sleeper {
    int64_t us;
    char letter;
};

static void sleep_and_write(void *arg)
{
    const struct sleeper *sleeper = arg;
    int64_t begin_us = sel_loop_now_us(sel_loop_current());
    SEL_ASSERT(sel_co_sleep(sleeper->us) == 0);
    SEL_ASSERT(sel_loop_now_us(sel_loop_current()) - begin_us >= sleeper->us);
    order.text[order.n++] = sleeper->letter;
}

static void test_sleepers_sleep_at_least_their_time_and_the_loop_with_them(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    struct sleeper sleepers[] = {{9000, 'd'}, {3000, 'b'}, {0, 'a'}, {6000, 'c'}};
    order = (struct order){0};
    for (size_t i = 0; i < SEL_COUNT(sleepers); i++)
        (void)spawn(loop, sleep_and_write, &sleepers[i]);
    run_to_the_end(loop);
    assert_int_equal(order.n, SEL_COUNT(sleepers));
    assert_int_equal(order.text[0], 'a');
    assert_true(stats_of(loop).turns < 40); /* no turn but for a reason */
    sel_loop_free(loop);
}

struct alarm {
    struct sel_timer timer, *other;
    uint32_t count;
};

static void on_alarm(struct sel_loop *loop, struct sel_timer *timer)
{
    struct alarm *alarm = (struct alarm *)timer;
    if (++alarm->count < 3) {
        SEL_ASSERT(sel_loop_timer_start(loop, timer, sel_loop_now_us(loop) + 500) == 0);
        return;
    }
    sel_loop_timer_stop(loop, alarm->other);
    sel_loop_stop(loop);
}

static uint32_t never_count;

static void never(struct sel_loop *loop, struct sel_timer *timer)
{
    (void)loop;
    (void)timer;
    never_count++;
}

static void test_timers_fire_can_be_started_again_and_stopped(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    struct sel_timer stopped = SEL_TIMER_INIT;
    struct alarm alarm = {SEL_TIMER_INIT, &stopped, 0};
    stopped.fn = never;
    alarm.timer.fn = on_alarm;
    int64_t now_us = sel_loop_now_us(loop);
    assert_ok(sel_loop_timer_start(loop, &stopped, now_us + 60000000));
    assert_ok(sel_loop_timer_start(loop, &alarm.timer, now_us + 500));
    sel_loop_run(loop);
    assert_int_equal(alarm.count, 3);
    assert_int_equal(never_count, 0);
    sel_loop_free(loop);
}

struct idle {
    struct sel_loop *loop;
    uint32_t calls, count;
};

static bool hand_out_work(void *arg)
{
    struct idle *idle = arg;
    if (++idle->calls <= 5) {
        (void)spawn(idle->loop, add_one, &idle->count);
        return true;
    }
    if (idle->count == 5)
        sel_loop_stop(idle->loop);
    return false;
}

static void test_the_idle_function_hands_out_work_each_turn(void **state)
{
    (void)state;
    struct idle idle = {make_loop(0), 0, 0};
    sel_loop_set_idle(idle.loop, hand_out_work, &idle);
    sel_loop_run(idle.loop);
    assert_int_equal(idle.count, 5);
    assert_int_equal(idle.calls, stats_of(idle.loop).turns);
    assert_true(idle.calls < 20);
    sel_loop_free(idle.loop);
}

/* ---- other threads ---- */

#define POSTERS 4u
#define POSTS_EACH 500u

struct counting_post {
    struct sel_post post;
    uint32_t poster, number;
};

struct poster {
    struct sel_loop *loop;
    struct counting_post posts[POSTS_EACH];
};

static uint32_t posts_seen, posts_of[POSTERS];

static void on_post(struct sel_loop *loop, struct sel_post *post)
{
    const struct counting_post *counting = (const struct counting_post *)post;
    SEL_ASSERT(loop == sel_loop_current());
    SEL_ASSERT(counting->number == posts_of[counting->poster]++); /* in the order of its thread */
    if (++posts_seen == POSTERS * POSTS_EACH)
        sel_loop_stop(loop);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    for (uint32_t i = 0; i < POSTS_EACH; i++) {
        sel_loop_post(poster->loop, &poster->posts[i].post);
        if (i % 50 == 0)
            (void)sched_yield();
    }
    return NULL;
}

static void test_posts_of_several_threads_arrive_once_and_in_order(void **state)
{
    (void)state;
    static struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    struct sel_loop *loop = make_loop(0);
    posts_seen = 0;
    for (uint32_t i = 0; i < POSTERS; i++) {
        posts_of[i] = 0;
        posters[i].loop = loop;
        for (uint32_t k = 0; k < POSTS_EACH; k++)
            posters[i].posts[k] = (struct counting_post){{NULL, on_post}, i, k};
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }
    sel_loop_run(loop);
    assert_int_equal(posts_seen, POSTERS * POSTS_EACH);
    assert_int_equal(stats_of(loop).posts, POSTERS * POSTS_EACH);
    sel_loop_free(loop); /* while the threads may still be inside of sel_loop_post */
    for (uint32_t i = 0; i < POSTERS; i++)
        (void)pthread_join(threads[i], NULL);
}

/* Two loops that throw one post to and fro, each asleep in between. */
struct ball {
    struct sel_post post;
    struct sel_loop *_Atomic loops[2];
    uint32_t bounces;
};

static void on_ball(struct sel_loop *loop, struct sel_post *post)
{
    struct ball *ball = (struct ball *)post;
    if (++ball->bounces >= 200) {
        sel_loop_stop(ball->loops[0]);
        sel_loop_stop(ball->loops[1]);
        return;
    }
    sel_loop_post(loop == ball->loops[0] ? ball->loops[1] : ball->loops[0], post);
}

static void *run_second_loop(void *arg)
{
    struct ball *ball = arg;
    struct sel_loop *loop = NULL;
    SEL_ASSERT(sel_loop_new(&(struct sel_loop_options){.ring_entries = 8}, &loop, NULL) == 0);
    ball->loops[1] = loop;
    sel_loop_post(ball->loops[0], &ball->post);
    sel_loop_run(loop);
    sel_loop_free(loop);
    return NULL;
}

static void test_a_sleeping_loop_is_woken_by_each_post(void **state)
{
    (void)state;
    static struct ball ball;
    ball = (struct ball){.post = {NULL, on_ball}};
    ball.loops[0] = make_loop(0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_second_loop, &ball), 0);
    sel_loop_run(ball.loops[0]);
    (void)pthread_join(thread, NULL);
    assert_int_equal(ball.bounces, 200);
    sel_loop_free(ball.loops[0]);
}

/* ---- waiting and waking (storage/io.h) ---- */

static void wait_for_waiter(void *arg)
{
    struct sel_io_waiter *w = arg;
    w->io->ops->wait(w->io, w);
}

static void wake_waiter(void *arg)
{
    sel_loop_yield();
    sel_io_wake(arg);
}

static void test_a_coroutine_wakes_another(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    struct sel_io_waiter w = {.io = sel_loop_io(loop)};
    (void)spawn(loop, wait_for_waiter, &w);
    (void)spawn(loop, wake_waiter, &w);
    run_to_the_end(loop);
    sel_loop_free(loop);
}

static void wake_then_wait(void *arg)
{
    struct sel_io_waiter *w = arg;
    sel_io_wake(w);
    sel_loop_yield();
    wait_for_waiter(w);
}

static void test_a_wake_before_the_wait_is_not_lost(void **state)
{
    (void)state;
    struct sel_loop *loop = make_loop(0);
    struct sel_io_waiter w = {.io = sel_loop_io(loop)};
    (void)spawn(loop, wake_then_wait, &w);
    run_to_the_end(loop);
    sel_loop_free(loop);
}

#define WAITS 200u

struct handover {
    struct sel_loop *loop;
    _Atomic(struct sel_io_waiter *) waiter;
    uint32_t waits;
};

static void hand_over_and_wait(void *arg)
{
    struct handover *handover = arg;
    for (uint32_t i = 0; i < WAITS; i++) {
        struct sel_io_waiter w = {.io = sel_loop_io(handover->loop)};
        atomic_store(&handover->waiter, &w);
        if (i % 3 == 0)
            sel_loop_yield(); /* often enough the wake comes first */
        wait_for_waiter(&w);
        handover->waits++;
    }
}

static void *wake_all(void *arg)
{
    struct handover *handover = arg;
    for (uint32_t i = 0; i < WAITS; i++) {
        struct sel_io_waiter *w;
        while (!(w = atomic_exchange(&handover->waiter, NULL)))
            (void)sched_yield();
        sel_io_wake(w);
    }
    return NULL;
}

static void test_another_thread_wakes_before_or_after_the_wait(void **state)
{
    (void)state;
    struct handover handover = {.loop = make_loop(0)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_all, &handover), 0);
    (void)spawn(handover.loop, hand_over_and_wait, &handover);
    run_to_the_end(handover.loop);
    (void)pthread_join(thread, NULL);
    assert_int_equal(handover.waits, WAITS);
    sel_loop_free(handover.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_coroutines_run_to_their_end),
        cmocka_unit_test(test_coroutines_spawn_coroutines),
        cmocka_unit_test(test_who_finds_no_stack_waits_for_one),
        cmocka_unit_test(test_waiting_for_a_stack_uses_no_processor),
        cmocka_unit_test(test_a_yield_lets_the_others_run_once),
        cmocka_unit_test(test_a_loop_that_is_stopped_runs_again),
        cmocka_unit_test(test_out_of_memory_is_an_answer),
        cmocka_unit_test(test_sleepers_sleep_at_least_their_time_and_the_loop_with_them),
        cmocka_unit_test(test_timers_fire_can_be_started_again_and_stopped),
        cmocka_unit_test(test_the_idle_function_hands_out_work_each_turn),
        cmocka_unit_test(test_posts_of_several_threads_arrive_once_and_in_order),
        cmocka_unit_test(test_a_sleeping_loop_is_woken_by_each_post),
        cmocka_unit_test(test_a_coroutine_wakes_another),
        cmocka_unit_test(test_a_wake_before_the_wait_is_not_lost),
        cmocka_unit_test(test_another_thread_wakes_before_or_after_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
