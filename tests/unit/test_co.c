#include "worker/co.h"

#include <execinfo.h>
#include <fenv.h>
#include <signal.h>

#include "tests/support/child.h"
#include "tests/support/test.h"

static struct sel_co *make(struct sel_co_pool *pool, sel_co_fn fn, void *arg)
{
    struct sel_co *co = NULL;
    assert_ok(sel_co_new(pool, fn, arg, &co));
    assert_ok(sel_co_prepare(co));
    return co;
}

static struct sel_co_pool *make_pool(uint32_t stacks_max)
{
    struct sel_co_pool *pool = sel_co_pool_new(stacks_max);
    assert_non_null(pool);
    return pool;
}

#ifdef SEL_CO_TSAN
#define MANY 100 /* each is a thread to TSan, and takes it milliseconds */
#else
#define MANY 1000
#endif

/* ---- switching ---- */

struct counting {
    uint32_t start, step, rounds, result;
};

/* Enough live values at once for every register that a switch must keep. */
static void count_with_many_values(void *arg)
{
    struct counting *counting = arg;
    uint32_t a = counting->start, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5, g = a + 6;
    double x = a;
    for (uint32_t i = 0; i < counting->rounds; i++) {
        sel_co_suspend();
        a += counting->step, b += a, c ^= b, d += c, e ^= d, f += e, g ^= f;
        x = x * 0.5 + a;
    }
    counting->result = a ^ b ^ c ^ d ^ e ^ f ^ g ^ (uint32_t)x;
}

static uint32_t count_without_switches(const struct counting *counting)
{
    uint32_t a = counting->start, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5, g = a + 6;
    double x = a;
    for (uint32_t i = 0; i < counting->rounds; i++) {
        a += counting->step, b += a, c ^= b, d += c, e ^= d, f += e, g ^= f;
        x = x * 0.5 + a;
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ (uint32_t)x;
}

static void test_interleaved_coroutines_keep_their_values(void **state)
{
    (void)state;
    enum { COUNT = MANY, ROUNDS = 5 };
    static struct counting counting[COUNT];
    static struct sel_co *coroutines[COUNT];
    struct sel_co_pool *pool = make_pool(COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        counting[i] = (struct counting){i * 7, i + 1, ROUNDS, 0};
        coroutines[i] = make(pool, count_with_many_values, &counting[i]);
    }
    assert_int_equal(sel_co_pool_alive(pool), COUNT);
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t i = 0; i < COUNT; i++)
            assert_false(sel_co_resume(coroutines[(i * 37) % COUNT]));
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(sel_co_resume(coroutines[i]));
        assert_int_equal(counting[i].result, count_without_switches(&counting[i]));
    }
    assert_int_equal(sel_co_pool_alive(pool), 0);
    assert_null(sel_co_pool_free(pool));
}

static void round_upward(void *arg)
{
    volatile double *thirds = arg;
    (void)fesetround(FE_UPWARD);
    sel_co_suspend();
    volatile double one = 1, three = 3;
    *thirds = one / three;
    SEL_ASSERT(fegetround() == FE_UPWARD);
}

static void test_the_rounding_mode_is_a_coroutines_own(void **state)
{
    (void)state;
    struct sel_co_pool *pool = make_pool(1);
    volatile double theirs = 0, one = 1, three = 3;
    struct sel_co *co = make(pool, round_upward, (void *)(uintptr_t)&theirs);
    assert_false(sel_co_resume(co));
    assert_int_equal(fegetround(), FE_TONEAREST);
    volatile double ours = one / three;
    assert_true(sel_co_resume(co));
    assert_int_equal(fegetround(), FE_TONEAREST);
    assert_true(ours < theirs);
    sel_co_pool_free(pool);
}

static void note_current(void *arg)
{
    struct sel_co **current = arg;
    *current = sel_co_current();
    sel_co_suspend();
    SEL_ASSERT(sel_co_current() == *current);
}

static void test_current_is_the_running_one(void **state)
{
    (void)state;
    struct sel_co_pool *pool = make_pool(1);
    struct sel_co *seen = NULL, *co = make(pool, note_current, &seen);
    assert_null(sel_co_current());
    assert_false(sel_co_resume(co));
    assert_ptr_equal(seen, co);
    assert_null(sel_co_current());
    assert_true(sel_co_resume(co));
    assert_null(sel_co_current());
    sel_co_pool_free(pool);
}

static void use_words(void *arg)
{
    (void)arg;
    struct sel_co *co = sel_co_current();
    sel_co_set_user(co, &co);
    memset(sel_co_space(co), 0xff, SEL_CO_SPACE);
}

static void test_a_reused_coroutine_has_fresh_words(void **state)
{
    (void)state;
    static const char zeros[SEL_CO_SPACE];
    struct sel_co_pool *pool = make_pool(1);
    struct sel_co *first = make(pool, use_words, NULL);
    assert_true(sel_co_resume(first));
    struct sel_co *second = make(pool, use_words, NULL);
    assert_ptr_equal(second, first); /* the object is reused */
    assert_null(sel_co_user(second));
    assert_memory_equal(sel_co_space(second), zeros, sizeof(zeros));
    assert_ptr_equal(sel_co_of_space(sel_co_space(second)), second);
    assert_true(sel_co_resume(second));
    sel_co_pool_free(pool);
}

__attribute__((noinline)) static void nest_and_trace(uint32_t depth, int *ret_frames)
{
    if (depth > 0) {
        nest_and_trace(depth - 1, ret_frames);
        __asm__ volatile(""); /* no tail call */
        return;
    }
    void *frames[100];
    sel_co_suspend(); /* so that the stack is one that was switched to */
    *ret_frames = backtrace(frames, SEL_COUNT(frames));
}

static void trace_stack(void *arg)
{
    nest_and_trace(10, arg);
    __asm__ volatile("");
}

/* The frames of the recursion and a few around them, and then an end instead of a walk through
 * whatever lies above the stack. */
static void test_a_coroutine_can_be_unwound_to_its_beginning(void **state)
{
    (void)state;
    struct sel_co_pool *pool = make_pool(1);
    int frames = 0;
    struct sel_co *co = make(pool, trace_stack, &frames);
    assert_false(sel_co_resume(co));
    assert_true(sel_co_resume(co));
    assert_in_range(frames, 12, 20);
    sel_co_pool_free(pool);
}

/* ---- stacks ---- */

static void note_stack(void *arg)
{
    uintptr_t *address = arg;
    *address = (uintptr_t)__builtin_frame_address(0);
    sel_co_suspend();
}

static void test_the_stack_freed_last_is_used_next(void **state)
{
    (void)state;
    struct sel_co_pool *pool = make_pool(100);
    uintptr_t addresses[4] = {0};
    struct sel_co *a = make(pool, note_stack, &addresses[0]);
    struct sel_co *b = make(pool, note_stack, &addresses[1]);
    (void)sel_co_resume(a);
    (void)sel_co_resume(b);
    assert_true(sel_co_resume(b));
    assert_true(sel_co_resume(a));
    struct sel_co *c = make(pool, note_stack, &addresses[2]);
    (void)sel_co_resume(c);
    assert_int_equal(addresses[2], addresses[0]);
    assert_true(addresses[1] != addresses[0]);
    assert_true(sel_co_resume(c));
    sel_co_pool_free(pool);
}

static void test_all_stacks_in_use_is_a_limit_that_passes(void **state)
{
    (void)state;
    enum { MAX = 70 }; /* more than one slab, and not a whole number of them */
    struct sel_co_pool *pool = make_pool(MAX);
    uintptr_t address;
    struct sel_co *coroutines[MAX], *waiting = NULL;
    for (uint32_t i = 0; i < MAX; i++) {
        coroutines[i] = make(pool, note_stack, &address);
        (void)sel_co_resume(coroutines[i]);
    }
    assert_int_equal(sel_co_pool_stacks(pool), MAX);
    assert_ok(sel_co_new(pool, note_stack, &address, &waiting)); /* waits without a stack */
    assert_code(sel_co_prepare(waiting), SEL_ELIMIT);
    assert_code(sel_co_prepare(waiting), SEL_ELIMIT);
    assert_true(sel_co_resume(coroutines[33]));
    assert_ok(sel_co_prepare(waiting));
    coroutines[33] = waiting;
    (void)sel_co_resume(waiting);
    for (uint32_t i = 0; i < MAX; i++)
        assert_true(sel_co_resume(coroutines[i]));
    sel_co_pool_free(pool);
}

static int start_and_run_one(void *ctx)
{
    (void)ctx;
    uintptr_t address;
    struct sel_co_pool *pool = sel_co_pool_new(10);
    if (!pool)
        return SEL_ENOMEM;
    struct sel_co *co;
    int r = sel_co_new(pool, note_stack, &address, &co);
    if (r == 0)
        r = sel_co_prepare(co);
    if (r == 0)
        while (!sel_co_resume(co))
            ;
    sel_co_pool_free(pool);
    return r;
}

static void test_out_of_memory_is_an_answer(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(start_and_run_one, NULL);
}

/* ---- stack overflow ---- */

__attribute__((noinline)) static uint32_t eat_stack(uint32_t kib)
{
    volatile char block[1000];
    block[0] = (char)kib;
    uint32_t below = kib > 0 ? eat_stack(kib - 1) : 0;
    return below + (uint32_t)block[0];
}

static void overflow(void *arg)
{
    (void)arg;
    sel_co_set_name(sel_co_current(), "task 'WordCount' (0198f3c2)");
    (void)eat_stack(UINT32_MAX);
}

static void use_most_of_the_stack(void *arg)
{
    *(uint32_t *)arg = eat_stack(200);
}

static void touch_nothing(void *arg)
{
    (void)arg;
    static volatile uintptr_t nowhere = 4096; /* a fault that is none of ours */
    *(volatile int *)nowhere = 1;
}

static void run_guarded(sel_co_fn fn, void *arg)
{
    SEL_ASSERT(sel_co_guard_install() == 0);
    struct sel_co_pool *pool = sel_co_pool_new(200);
    SEL_ASSERT(pool);
    struct sel_co *co;
    SEL_ASSERT(sel_co_new(pool, fn, arg, &co) == 0);
    SEL_ASSERT(sel_co_prepare(co) == 0);
    (void)sel_co_resume(co);
    sel_co_pool_free(pool);
    sel_co_guard_remove();
}

static void overflow_in_child(void *arg)
{
    run_guarded(overflow, arg);
}

static void overflow_without_light_guards(void *arg)
{
    sel_child_refuse(SYS_madvise, 2, 102 /* MADV_GUARD_INSTALL */, EINVAL);
    run_guarded(overflow, arg);
}

static void assert_overflow_told(const struct sel_child_end *end)
{
    char expected[256];
    (void)snprintf(expected, sizeof(expected),
                   "selinon: stack overflow in task 'WordCount' (0198f3c2): its stack is %zu KiB; "
                   "use less of it, or allocate large buffers with sel_alloc\n",
                   SEL_CO_STACK_SIZE / 1024);
    assert_string_equal(end->stderr_text, expected);
    assert_true(WIFEXITED(end->status));
    assert_int_equal(WEXITSTATUS(end->status), SEL_CO_OVERFLOW_STATUS);
}

static void test_an_overflow_names_the_coroutine_and_ends_the_process(void **state)
{
    (void)state;
    struct sel_child_end end = sel_in_child(overflow_in_child, NULL);
    assert_overflow_told(&end);
}

static void test_an_overflow_is_told_on_kernels_without_light_guards(void **state)
{
    (void)state;
    struct sel_child_end end = sel_in_child(overflow_without_light_guards, NULL);
    assert_overflow_told(&end);
}

static void fault_in_child(void *arg)
{
    (void)signal(SIGSEGV, SIG_DFL); /* not cmocka's or a sanitizer's */
    run_guarded(touch_nothing, arg);
}

static void test_other_faults_take_their_usual_way(void **state)
{
    (void)state;
    struct sel_child_end end = sel_in_child(fault_in_child, NULL);
    assert_string_equal(end.stderr_text, "");
    assert_true(WIFSIGNALED(end.status));
    assert_int_equal(WTERMSIG(end.status), SIGSEGV);
}

static void test_most_of_the_stack_can_be_used(void **state)
{
    (void)state;
    uint32_t sum = 0;
    run_guarded(use_most_of_the_stack, &sum);
    uint32_t expected = 0;
    for (uint32_t i = 0; i <= 200; i++)
        expected += (uint32_t)(char)i;
    assert_int_equal(sum, expected);
}

static void test_guards_nest_and_leave_no_trace(void **state)
{
    (void)state;
    struct sigaction before, during, after;
    stack_t stack_before, stack_after;
    assert_int_equal(sigaction(SIGSEGV, NULL, &before), 0);
    assert_int_equal(sigaltstack(NULL, &stack_before), 0);
    assert_ok(sel_co_guard_install());
    assert_ok(sel_co_guard_install());
    sel_co_guard_remove();
    assert_int_equal(sigaction(SIGSEGV, NULL, &during), 0);
    assert_true(during.sa_sigaction != before.sa_sigaction);
    sel_co_guard_remove();
    assert_int_equal(sigaction(SIGSEGV, NULL, &after), 0);
    assert_true(after.sa_sigaction == before.sa_sigaction);
    assert_int_equal(sigaltstack(NULL, &stack_after), 0);
    assert_ptr_equal(stack_after.ss_sp, stack_before.ss_sp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interleaved_coroutines_keep_their_values),
        cmocka_unit_test(test_the_rounding_mode_is_a_coroutines_own),
        cmocka_unit_test(test_current_is_the_running_one),
        cmocka_unit_test(test_a_reused_coroutine_has_fresh_words),
        cmocka_unit_test(test_a_coroutine_can_be_unwound_to_its_beginning),
        cmocka_unit_test(test_the_stack_freed_last_is_used_next),
        cmocka_unit_test(test_all_stacks_in_use_is_a_limit_that_passes),
        cmocka_unit_test(test_out_of_memory_is_an_answer),
        cmocka_unit_test(test_an_overflow_names_the_coroutine_and_ends_the_process),
        cmocka_unit_test(test_an_overflow_is_told_on_kernels_without_light_guards),
        cmocka_unit_test(test_other_faults_take_their_usual_way),
        cmocka_unit_test(test_most_of_the_stack_can_be_used),
        cmocka_unit_test(test_guards_nest_and_leave_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
