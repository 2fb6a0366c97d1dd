#include "tests/support/test.h"

#include <signal.h>
#include <stdlib.h>

#include "proto/wire.h"
#include "tests/support/child.h"
#include "worker/co.h"
#include "worker/crash.h"

#define SLOTS 4u

static struct sel_crash_task task_of(uint64_t n)
{
    return (struct sel_crash_task){.id = {9, n}, .handle = 100 + n, .try_count = 2, .delivery = 3};
}

static int setup(void **state)
{
    struct sel_crash_page *page = sel_crash_page_new(2, SLOTS);
    assert_non_null(page);
    for (uint32_t thread = 0; thread < 2; thread++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            sel_crash_tasks(page, thread)[slot] = task_of(thread * 10 + slot);
    }
    *state = page;
    return 0;
}

static int teardown(void **state)
{
    assert_null(sel_crash_page_free(*state));
    return 0;
}

/* Who is blamed on a thread: "n" for each, "n!" where the stack overflowed. */
static const char *blamed(struct sel_crash_page *page, uint32_t thread)
{
    static char text[256];
    struct sel_buf notes = {0};
    size_t n = 0;
    uint32_t count = sel_crash_collect(page, thread, &notes);
    assert_int_equal(notes.n, count * SEL_WIRE_HELD_SIZE);
    text[0] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        struct sel_wire_held held = sel_wire_held_at(sel_buf_str(&notes), i);
        assert_int_equal(held.id.hi, 9);
        assert_int_equal(held.handle, 100 + held.id.lo);
        assert_int_equal(held.try_count, 2);
        assert_int_equal(held.delivery, 3);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%llu%s", i ? " " : "",
                              (unsigned long long)held.id.lo, held.is_done ? "!" : "");
    }
    sel_buf_done(&notes);
    return text;
}

static void test_nobody_is_blamed_for_nothing(void **state)
{
    assert_string_equal(blamed(*state, 0), "");
    assert_string_equal(blamed(*state, 1), "");
}

static void test_runs_of_flows_are_told_as_such(void **state)
{
    struct sel_crash_page *page = *state;
    struct sel_buf notes = {0};
    sel_crash_tasks(page, 0)[2].is_run = true;
    page->threads[0].running = 3;
    sel_crash_tasks(page, 0)[1].on_pool = 2;
    assert_int_equal(sel_crash_collect(page, 0, &notes), 2);
    assert_true(sel_wire_held_at(sel_buf_str(&notes), 0).is_run);
    assert_false(sel_wire_held_at(sel_buf_str(&notes), 1).is_run);
    sel_buf_done(&notes);
}

static void test_all_that_ran_are_suspects_if_nobody_knows_better(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[0].running = 3;
    page->threads[1].running = 1;
    sel_crash_tasks(page, 1)[3].on_pool = 4;
    assert_string_equal(blamed(page, 0), "2");
    assert_string_equal(blamed(page, 1), "10 13");
}

static void test_a_thread_that_could_say_so_is_the_only_suspect(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[0].running = 3;
    page->threads[1].running = 1 | SEL_CO_MARK_FAULT;
    assert_string_equal(blamed(page, 0), "");
    assert_string_equal(blamed(page, 1), "10");
    page->threads[1].running = 1;
    sel_crash_tasks(page, 0)[1].on_pool = 2 | SEL_CO_MARK_FAULT;
    assert_string_equal(blamed(page, 0), "1");
    assert_string_equal(blamed(page, 1), "");
}

static void test_a_fault_outside_of_tasks_blames_nobody(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[0].running = SEL_CO_MARK_FAULT;
    page->threads[1].running = 1;
    assert_string_equal(blamed(page, 0), "");
    assert_string_equal(blamed(page, 1), "");
}

static void test_an_overflow_is_told(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[0].running = 4 | SEL_CO_MARK_OVERFLOW;
    assert_string_equal(blamed(page, 0), "3!");
}

/* The process that died may have written anything. */
static void test_a_damaged_page_is_read_with_care(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[0].running = SLOTS + 1;
    page->threads[1].running = UINT32_MAX;
    assert_string_equal(blamed(page, 0), "");
    assert_string_equal(blamed(page, 1), "");
}

static void test_notes_have_a_limit_and_keep_the_oldest(void **state)
{
    struct sel_crash_page *page = *state;
    struct sel_buf notes = {0};
    page->threads[0].running = 1;
    for (uint32_t i = 0; i < SEL_WIRE_CRASHED_MAX; i++)
        assert_int_equal(sel_crash_collect(page, 0, &notes), 1);
    assert_int_equal(sel_crash_collect(page, 0, &notes), 0);
    assert_int_equal(notes.n, SEL_WIRE_CRASHED_MAX * SEL_WIRE_HELD_SIZE);
    sel_buf_done(&notes);
}

static void test_a_page_is_cleared_for_the_next_process(void **state)
{
    struct sel_crash_page *page = *state;
    page->threads[1].running = 2;
    page->threads[1].told = 1;
    page->has_ended = 1;
    sel_crash_page_clear(page);
    assert_int_equal(page->threads[1].running, 0);
    assert_int_equal(page->threads[1].told, 0);
    assert_int_equal(page->has_ended, 0);
    assert_int_equal(page->slot_count, SLOTS);
}

/* ---- in processes that die ---- */

static struct sel_crash_page *page_of_child; /* what the coroutines below work with */
static uint8_t pulse_of_child;

static void mark_and_suspend(void *arg)
{
    (void)arg;
    sel_co_set_mark(1, &pulse_of_child);
    SEL_ASSERT(page_of_child->threads[0].running == 1);
    uint8_t before = pulse_of_child;
    SEL_ASSERT(before != 0);
    sel_co_suspend();
    SEL_ASSERT(page_of_child->threads[0].running == 1);
    SEL_ASSERT(pulse_of_child != 0 && pulse_of_child != before);
}

static void mark_and_abort(void *arg)
{
    (void)arg;
    sel_co_set_mark(2, NULL);
    abort();
}

static void mark_and_be_killed(void *arg)
{
    (void)arg;
    sel_co_set_mark(3, NULL);
    (void)raise(SIGKILL);
}

/* Runs `fn` in a coroutine beside one that waits. */
static void run_both(void *arg)
{
    struct sel_co *waits, *dies;
    sel_co_fn *fn = arg;
    sel_crash_watch_signals();
    sel_co_set_mark_place(&page_of_child->threads[0].running);
    struct sel_co_pool *pool = sel_co_pool_new(8);
    SEL_ASSERT(pool);
    SEL_ASSERT(sel_co_new(pool, mark_and_suspend, NULL, &waits) == 0);
    SEL_ASSERT(sel_co_prepare(waits) == 0);
    (void)sel_co_resume(waits);
    SEL_ASSERT(page_of_child->threads[0].running == 0);
    if (*fn) {
        SEL_ASSERT(sel_co_new(pool, *fn, NULL, &dies) == 0);
        SEL_ASSERT(sel_co_prepare(dies) == 0);
        (void)sel_co_resume(dies);
    }
    (void)sel_co_resume(waits);
    SEL_ASSERT(page_of_child->threads[0].running == 0);
    (void)sel_co_pool_free(pool);
}

static void test_only_what_runs_now_is_marked(void **state)
{
    sel_co_fn fn = NULL;
    page_of_child = *state;
    struct sel_child_end end = sel_in_child(run_both, &fn);
    assert_int_equal(end.status, 0);
}

static void test_the_task_that_aborts_is_named(void **state)
{
    sel_co_fn fn = mark_and_abort;
    page_of_child = *state;
    struct sel_child_end end = sel_in_child(run_both, &fn);
    assert_true(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGABRT);
    page_of_child->threads[1].running = 1; /* another thread was at work too */
    assert_string_equal(blamed(*state, 0), "1");
    assert_string_equal(blamed(*state, 1), "");
}

static void test_a_kill_leaves_who_was_at_it(void **state)
{
    sel_co_fn fn = mark_and_be_killed;
    page_of_child = *state;
    struct sel_child_end end = sel_in_child(run_both, &fn);
    assert_true(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGKILL);
    page_of_child->threads[1].running = 1;
    assert_string_equal(blamed(*state, 0), "2");
    assert_string_equal(blamed(*state, 1), "10");
}

static void abort_on_pool(void *arg)
{
    (void)arg;
    sel_crash_watch_signals();
    sel_crash_begin_on_pool(&sel_crash_tasks(page_of_child, 1)[0], 0);
    sel_crash_end_on_pool(&sel_crash_tasks(page_of_child, 1)[0]);
    sel_crash_begin_on_pool(&sel_crash_tasks(page_of_child, 1)[2], 2);
    abort();
}

static void test_a_blocking_task_is_named_too(void **state)
{
    page_of_child = *state;
    struct sel_child_end end = sel_in_child(abort_on_pool, NULL);
    assert_true(WIFSIGNALED(end.status));
    page_of_child->threads[0].running = 1;
    assert_string_equal(blamed(*state, 0), "");
    assert_string_equal(blamed(*state, 1), "12");
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(nobody_is_blamed_for_nothing),
        T(runs_of_flows_are_told_as_such),
        T(all_that_ran_are_suspects_if_nobody_knows_better),
        T(a_thread_that_could_say_so_is_the_only_suspect),
        T(a_fault_outside_of_tasks_blames_nobody),
        T(an_overflow_is_told),
        T(a_damaged_page_is_read_with_care),
        T(notes_have_a_limit_and_keep_the_oldest),
        T(a_page_is_cleared_for_the_next_process),
        T(only_what_runs_now_is_marked),
        T(the_task_that_aborts_is_named),
        T(a_kill_leaves_who_was_at_it),
        T(a_blocking_task_is_named_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
