#include "worker/offload.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/support/test.h"

/* A job that says that it has begun and then waits to be let go. */
struct gated {
    struct sel_offload_job job;
    sem_t begun, gate;
};

static void run_gated(struct sel_offload_job *job)
{
    struct gated *gated = (struct gated *)job;
    (void)sem_post(&gated->begun);
    while (sem_wait(&gated->gate) < 0)
        ;
}

static void gated_init(struct gated *gated)
{
    *gated = (struct gated){.job = {.fn = run_gated}};
    assert_int_equal(sem_init(&gated->begun, 0, 0), 0);
    assert_int_equal(sem_init(&gated->gate, 0, 0), 0);
}

static void wait_until_begun(struct gated *gated)
{
    while (sem_wait(&gated->begun) < 0)
        ;
}

struct counted {
    struct sel_offload_job job;
    atomic_uint *count;
};

static void run_counted(struct sel_offload_job *job)
{
    (void)atomic_fetch_add(((struct counted *)job)->count, 1);
}

static void test_all_jobs_have_run_when_the_pool_is_freed(void **state)
{
    (void)state;
    static struct counted jobs[1000];
    atomic_uint count = 0;
    struct sel_offload *offload = sel_offload_new(3, SEL_COUNT(jobs));
    assert_non_null(offload);
    for (size_t i = 0; i < SEL_COUNT(jobs); i++) {
        jobs[i] = (struct counted){{.fn = run_counted}, &count};
        assert_ok(sel_offload_submit(offload, &jobs[i].job));
    }
    assert_null(sel_offload_free(offload));
    assert_int_equal(count, SEL_COUNT(jobs));
}

static void test_a_pool_without_jobs_has_no_threads_and_ends(void **state)
{
    (void)state;
    assert_null(sel_offload_free(sel_offload_new(4, 1)));
    assert_null(sel_offload_free(NULL));
}

static void test_jobs_run_side_by_side_up_to_the_number_of_threads(void **state)
{
    (void)state;
    struct gated gated[3];
    struct sel_offload *offload = sel_offload_new(2, 10);
    for (size_t i = 0; i < 3; i++) {
        gated_init(&gated[i]);
        assert_ok(sel_offload_submit(offload, &gated[i].job));
    }
    wait_until_begun(&gated[0]); /* both run at once, else one of these would hang */
    wait_until_begun(&gated[1]);
    assert_int_not_equal(sem_trywait(&gated[2].begun), 0);
    (void)sem_post(&gated[1].gate);
    wait_until_begun(&gated[2]);
    (void)sem_post(&gated[0].gate);
    (void)sem_post(&gated[2].gate);
    sel_offload_free(offload);
}

static void test_a_full_queue_refuses(void **state)
{
    (void)state;
    struct gated first;
    struct counted jobs[3];
    atomic_uint count = 0;
    struct sel_offload *offload = sel_offload_new(1, 2);
    gated_init(&first);
    assert_ok(sel_offload_submit(offload, &first.job));
    wait_until_begun(&first);
    for (size_t i = 0; i < 3; i++)
        jobs[i] = (struct counted){{.fn = run_counted}, &count};
    assert_ok(sel_offload_submit(offload, &jobs[0].job));
    assert_ok(sel_offload_submit(offload, &jobs[1].job));
    assert_code(sel_offload_submit(offload, &jobs[2].job), SEL_ELIMIT);
    (void)sem_post(&first.gate);
    sel_offload_free(offload);
    assert_int_equal(count, 2);
}

static void test_a_job_that_waits_can_be_taken_back(void **state)
{
    (void)state;
    struct gated first;
    struct counted jobs[3];
    atomic_uint count = 0;
    struct sel_offload *offload = sel_offload_new(1, 3);
    gated_init(&first);
    assert_ok(sel_offload_submit(offload, &first.job));
    wait_until_begun(&first);
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = (struct counted){{.fn = run_counted}, &count};
        assert_ok(sel_offload_submit(offload, &jobs[i].job));
    }
    assert_false(sel_offload_cancel(offload, &first.job)); /* has begun */
    assert_true(sel_offload_cancel(offload, &jobs[1].job));
    assert_false(sel_offload_cancel(offload, &jobs[1].job));
    assert_true(sel_offload_cancel(offload, &jobs[2].job));
    assert_ok(sel_offload_submit(offload, &jobs[1].job)); /* its place is free again */
    (void)sem_post(&first.gate);
    sel_offload_free(offload);
    assert_int_equal(count, 2);
}

struct masked {
    struct sel_offload_job job;
    sigset_t mask;
};

static void note_mask(struct sel_offload_job *job)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, &((struct masked *)job)->mask);
}

static void test_signals_of_the_process_are_not_for_the_pool(void **state)
{
    (void)state;
    struct masked masked = {.job = {.fn = note_mask}};
    sigset_t before, after;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    struct sel_offload *offload = sel_offload_new(1, 1);
    assert_ok(sel_offload_submit(offload, &masked.job));
    sel_offload_free(offload);
    assert_true(sigismember(&masked.mask, SIGTERM));
    assert_true(sigismember(&masked.mask, SIGCHLD));
    assert_false(sigismember(&masked.mask, SIGSEGV));
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}

static int make_pool(void *ctx)
{
    (void)ctx;
    struct sel_offload *offload = sel_offload_new(2, 2);
    if (!offload)
        return SEL_ENOMEM;
    sel_offload_free(offload);
    return 0;
}

static void test_out_of_memory_is_an_answer(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(make_pool, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_jobs_have_run_when_the_pool_is_freed),
        cmocka_unit_test(test_a_pool_without_jobs_has_no_threads_and_ends),
        cmocka_unit_test(test_jobs_run_side_by_side_up_to_the_number_of_threads),
        cmocka_unit_test(test_a_full_queue_refuses),
        cmocka_unit_test(test_a_job_that_waits_can_be_taken_back),
        cmocka_unit_test(test_signals_of_the_process_are_not_for_the_pool),
        cmocka_unit_test(test_out_of_memory_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
