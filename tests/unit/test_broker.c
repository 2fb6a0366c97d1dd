/* The core with a producer and a worker, in one thread and on a clock of its own. */
#include "tests/support/broker_world.h"

/* ---- tests ---- */

static void test_tasks_go_to_a_worker_and_results_come_back(void **state)
{
    (void)state;
    for (int journal = 0; journal < 2; journal++) {
        struct world w;
        world_init(&w, journal);
        start_worker(&w, 100);
        submit(&w, 1, 250, SEL_LEVEL_DEFAULT);
        uint32_t done = 0;
        for (int i = 0; i < 10; i++) {
            run(&w, 10000);
            done += work(&w, 1000, SEL_OUTCOME_SUCCESS);
        }
        run(&w, 20000);
        assert_int_equal(done, 250);
        assert_int_equal(w.finished, 250);
        assert_int_equal(w.settled, 250);
        assert_int_equal(w.refused, 0);
        assert_string_equal(w.last_payload, "\xa2ok");
        assert_int_equal(stats_of(&w).finished, 250);
        assert_int_equal(stats_of(&w).ended, 250);
        assert_true(sel_broker_is_idle(w.broker));
        world_done(&w);
    }
}

static void test_nothing_is_settled_before_it_is_committed(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, true);
    run(&w, 20000);
    w.hold_commits = true;
    start_worker(&w, 100);
    submit(&w, 1, 10, SEL_LEVEL_COMMIT);
    run(&w, 50000);
    assert_int_equal(w.settled, 0);
    w.hold_commits = false;
    run(&w, 50000);
    assert_int_equal(w.settled, 10);
    assert_int_equal(work(&w, 100, SEL_OUTCOME_SUCCESS), 10);
    w.hold_commits = true;
    run(&w, 50000);
    assert_int_equal(w.finished, 0); /* the results are not on the disk */
    w.hold_commits = false;
    run(&w, 50000);
    assert_int_equal(w.finished, 10);
    world_done(&w);
}

static void test_a_committed_task_survives_the_loss_of_power(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, true);
    submit(&w, 1, 300, SEL_LEVEL_COMMIT);
    run(&w, 50000);
    assert_int_equal(w.settled, 300);
    sel_journal_disk_cut(w.disk);
    stop_broker(&w);
    start_broker(&w);
    start_worker(&w, 1000);
    for (int i = 0; i < 300; i++) {
        run(&w, 50000);
        work(&w, 1000, SEL_OUTCOME_SUCCESS);
    }
    assert_int_equal(w.finished, 300);
    assert_int_equal(stats_of(&w).incarnation, 2);
    world_done(&w);
}

static void test_a_broker_restart_runs_nothing_again_that_a_worker_holds(void **state)
{
    (void)state;
    for (uint8_t level = SEL_LEVEL_MEMORY; level <= SEL_LEVEL_COMMIT; level++) {
        struct world w;
        world_init(&w, true);
        start_worker(&w, 50);
        submit(&w, 1, 50, level);
        run(&w, 50000);
        struct sel_held_task *tasks[50];
        for (int i = 0; i < 50; i++)
            assert_non_null(tasks[i] = sel_holder_begin(w.worker));
        sel_journal_disk_kill(w.disk);
        stop_broker(&w);
        start_broker(&w);
        run(&w, 12000000);
        assert_null(sel_holder_begin(w.worker));
        for (int i = 0; i < 50; i++)
            assert_int_equal(
                sel_holder_end(w.worker, tasks[i], SEL_OUTCOME_SUCCESS, 0, SEL_STR("\xa2ok")), 0);
        run(&w, 12000000);
        assert_int_equal(w.finished, 50);
        assert_int_equal(w.refused, 0);
        assert_int_equal(stats_of(&w).put_back, 0);
        world_done(&w);
    }
}

static void test_a_connection_that_breaks_runs_nothing_again(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, true);
    start_worker(&w, 20);
    submit(&w, 1, 20, SEL_LEVEL_COMMIT);
    run(&w, 50000);
    struct sel_held_task *tasks[20];
    for (int i = 0; i < 20; i++)
        assert_non_null(tasks[i] = sel_holder_begin(w.worker));
    for (int i = 0; i < 3; i++) {
        sel_peer_broken(sel_holder_peer(w.worker), w.now_us);
        run(&w, 6000000);
        assert_int_equal(sel_holder_running(w.worker), 20);
        assert_null(sel_holder_begin(w.worker));
        for (int k = 0; k < 20; k++)
            assert_false(tasks[k]->is_cancelled);
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(
            sel_holder_end(w.worker, tasks[i], SEL_OUTCOME_SUCCESS, 0, SEL_STR("\xa2ok")), 0);
    run(&w, 50000);
    assert_int_equal(w.finished, 20);
    assert_int_equal(stats_of(&w).put_back, 0);
    world_done(&w);
}

static void test_tasks_of_a_dead_worker_go_to_another_in_their_order(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, false);
    start_worker(&w, 20);
    submit(&w, 1, 40, SEL_LEVEL_MEMORY);
    run(&w, 50000);
    assert_int_equal(sel_holder_waiting(w.worker), 20);
    w.worker = sel_holder_free(w.worker); /* dies without a word */
    run(&w, 11000000);
    assert_int_equal(stats_of(&w).put_back, 20);
    start_worker(&w, 40);
    run(&w, 50000);
    for (uint64_t n = 1; n <= 40; n++) {
        struct sel_held_task *task = sel_holder_begin(w.worker);
        assert_non_null(task);
        assert_int_equal(task->id.lo, n);
        assert_int_equal(task->delivery, n <= 20 ? 1 : 0);
    }
    world_done(&w);
}

static void test_priorities_go_first(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, false);
    for (uint64_t n = 1; n <= 9; n++) {
        struct sel_wire_item item = submit_item(&w, n, 0);
        item.priority = (uint8_t)(n % 3 * 100);
        assert_int_equal(sel_producer_submit(w.producer, &item, NULL, false), 0);
    }
    run(&w, 20000);
    start_worker(&w, 100);
    run(&w, 20000);
    const uint64_t expected[] = {2, 5, 8, 1, 4, 7, 3, 6, 9};
    for (size_t i = 0; i < SEL_COUNT(expected); i++)
        assert_int_equal(sel_holder_begin(w.worker)->id.lo, expected[i]);
    world_done(&w);
}

static void test_countdowns_and_retries_wait(void **state)
{
    (void)state;
    for (int journal = 0; journal < 2; journal++) {
        struct world w;
        world_init(&w, journal);
        start_worker(&w, 10);
        struct sel_wire_item item = submit_item(&w, 1, 0);
        item.countdown_us = 2000000;
        assert_int_equal(sel_producer_submit(w.producer, &item, NULL, false), 0);
        run(&w, 1900000);
        assert_null(sel_holder_begin(w.worker));
        run(&w, 200000);
        struct sel_held_task *task = sel_holder_begin(w.worker);
        assert_non_null(task);
        assert_int_equal(
            sel_holder_end(w.worker, task, SEL_OUTCOME_RETRY, 1000000, (struct sel_str){NULL, 0}),
            0);
        run(&w, 900000);
        assert_null(sel_holder_begin(w.worker));
        run(&w, 200000);
        assert_non_null(task = sel_holder_begin(w.worker));
        assert_int_equal(task->try_count, 1);
        assert_int_equal(sel_holder_end(w.worker, task, SEL_OUTCOME_FAILURE, 0, SEL_STR("\x80")),
                         0);
        run(&w, 50000);
        assert_int_equal(w.finished, 1);
        assert_int_equal(w.last_code, SEL_OUTCOME_FAILURE);
        world_done(&w);
    }
}

static void test_a_key_stands_for_one_task(void **state)
{
    (void)state;
    for (int journal = 0; journal < 2; journal++) {
        struct world w;
        world_init(&w, journal);
        for (uint64_t n = 1; n <= 4; n++) {
            struct sel_wire_item item = submit_item(&w, n, 0);
            item.idempotency_key = SEL_STR("once");
            if (n == 4)
                item.payload = SEL_STR("\xa5other");
            assert_int_equal(sel_producer_submit(w.producer, &item, NULL, false), 0);
        }
        run(&w, 50000);
        assert_int_equal(w.refused, 1);
        assert_int_equal(w.last_code, SEL_CODE_CONFLICT);
        if (journal) {
            sel_journal_disk_cut(w.disk);
            stop_broker(&w);
            start_broker(&w);
            run(&w, 12000000);
        }
        start_worker(&w, 10);
        run(&w, 50000);
        assert_int_equal(work(&w, 10, SEL_OUTCOME_SUCCESS), 1);
        run(&w, 50000);
        assert_int_equal(w.finished, 4);
        world_done(&w);
    }
}

/* After a restart somebody asks for an id that the broker does not know: a worker may have it. */
static void test_a_key_waits_until_it_is_known_who_has_its_id(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, true);
    start_worker(&w, 10);
    struct sel_wire_item item = submit_item(&w, 1, 0);
    item.idempotency_key = SEL_STR("once");
    assert_int_equal(sel_producer_submit(w.producer, &item, NULL, false), 0);
    run(&w, 50000);
    struct sel_holder *away = w.worker;
    w.worker = NULL;
    stop_broker(&w);
    start_broker(&w);
    run(&w, 1000000);
    assert_int_equal(sel_producer_watch(w.producer, (struct sel_id){77, 2}, NULL, false), 0);
    run(&w, 50000);
    w.producer = sel_producer_free(w.producer);
    start_producer(&w);
    struct sel_wire_item same = submit_item(&w, 2, 0);
    same.idempotency_key = item.idempotency_key;
    assert_int_equal(sel_producer_submit(w.producer, &same, NULL, false), 0);
    run(&w, 50000);
    assert_int_equal(w.refused, 0);
    w.worker = away;
    run(&w, 30000000);
    assert_int_equal(work(&w, 10, SEL_OUTCOME_SUCCESS), 1);
    run(&w, 50000);
    assert_int_equal(w.finished, 1);
    assert_int_equal(w.last_code, SEL_OUTCOME_SUCCESS);
    assert_int_equal(w.refused, 0);
    world_done(&w);
}

static void test_memory_is_bounded(void **state)
{
    (void)state;
    struct world w = {.now_us = 1000000, .options = {.memory_max = 8u << 20}};
    start_broker(&w);
    start_producer(&w);
    static char payload[10000];
    memset(payload, 0xc0, sizeof(payload));
    payload[0] = (char)0xc5;
    payload[1] = (char)((sizeof(payload) - 3) >> 8);
    payload[2] = (char)((sizeof(payload) - 3) & 0xff);
    uint64_t taken = 0;
    for (uint64_t n = 1; n <= 3000; n++) {
        struct sel_wire_item item = submit_item(&w, n, 0);
        item.payload = (struct sel_str){payload, sizeof(payload)};
        if (sel_producer_submit(w.producer, &item, NULL, false) < 0)
            break;
        if (n % 50 == 0)
            run(&w, 5000);
        taken = n;
    }
    run(&w, 2000000);
    struct sel_broker_stats stats = stats_of(&w);
    assert_true(taken > 800);
    assert_true(stats.memory_used <= (9u << 20));
    assert_true(stats.queued < taken);
    /* With a worker it all goes through in the end. */
    start_worker(&w, 100);
    for (int i = 0; i < 2000 && w.finished < taken; i++) {
        run(&w, 20000);
        work(&w, 1000, SEL_OUTCOME_SUCCESS);
    }
    assert_int_equal(w.finished, taken);
    world_done(&w);
}

static void test_the_journal_is_compacted(void **state)
{
    (void)state;
    struct world w = {.now_us = 1000000,
                      .disk = sel_journal_disk_new(1),
                      .options = {.journal_compact_min = 20000, .result_max = 10}};
    start_broker(&w);
    start_producer(&w);
    struct sel_wire_item item = submit_item(&w, 100000, SEL_LEVEL_COMMIT);
    item.countdown_us = UINT64_C(3600000000);
    assert_int_equal(sel_producer_submit(w.producer, &item, NULL, false), 0);
    start_worker(&w, 100);
    for (uint64_t n = 1; n <= 3000; n += 10) {
        submit(&w, n, 10, SEL_LEVEL_COMMIT);
        run(&w, 4000);
        work(&w, 100, SEL_OUTCOME_SUCCESS);
        run(&w, 4000);
    }
    run(&w, 100000);
    assert_int_equal(w.finished, 3000);
    struct sel_journal_stats stats;
    w.journal->ops->stats(w.journal, &stats);
    assert_true(stats.bytes_live < 100000);
    assert_true(stats.first > 100);
    /* What waits is still known after a restart. */
    sel_journal_disk_cut(w.disk);
    stop_broker(&w);
    start_broker(&w);
    run(&w, 1000);
    assert_int_equal(stats_of(&w).waiting, 1);
    assert_true(stats_of(&w).ended <= 20);
    world_done(&w);
}

static void test_a_full_journal_stops_submits_and_they_go_on(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, true);
    start_worker(&w, 10);
    submit(&w, 1, 10, SEL_LEVEL_COMMIT);
    run(&w, 50000);
    sel_journal_disk_fail(w.disk, 1, -ENOSPC);
    submit(&w, 11, 10, SEL_LEVEL_COMMIT);
    run(&w, 500000);
    assert_int_equal(w.settled, 10);
    assert_true(stats_of(&w).is_full);
    assert_true(stats_of(&w).commit_failures > 1);
    sel_journal_disk_fail(w.disk, 0, 0);
    for (int i = 0; i < 500 && w.finished < 20; i++) {
        run(&w, 50000);
        work(&w, 100, SEL_OUTCOME_SUCCESS);
    }
    assert_int_equal(w.finished, 20);
    assert_int_equal(w.settled, 20);
    world_done(&w);
}

/* Whatever allocation fails, and however often: what was acknowledged is there, and all of it ends
 * once, when there is memory again. */
static void test_no_memory_loses_nothing(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 40; n++) {
        struct world w;
        world_init(&w, n % 2);
        start_worker(&w, 100);
        run(&w, 20000);
        submit(&w, 1, 150, SEL_LEVEL_DEFAULT);
        for (uint64_t i = 1; i <= 3; i++) {
            struct sel_wire_item item = submit_item(&w, 150 + i, 0);
            item.idempotency_key = SEL_STR("once");
            assert_int_equal(sel_producer_submit(w.producer, &item, NULL, true), 0);
        }
        w.fail_at = n;
        run(&w, 30000);
        uint32_t acknowledged = w.settled;
        work(&w, 40, SEL_OUTCOME_SUCCESS);
        run(&w, 30000);
        w.fail_at = 0;
        if (n % 2) { /* what was said to be kept is kept */
            sel_journal_disk_cut(w.disk);
            stop_broker(&w);
            start_broker(&w);
            struct sel_broker_stats stats = stats_of(&w);
            assert_true(stats.tasks + 2 >= acknowledged); /* two are other names of one */
        }
        for (int i = 0; i < 600 && w.finished < 153; i++) {
            run(&w, 50000);
            work(&w, 1000, SEL_OUTCOME_SUCCESS);
        }
        run(&w, 100000);
        assert_int_equal(w.finished, 153);
        assert_int_equal(w.settled, 153);
        assert_int_equal(w.refused, 0);
        world_done(&w);
    }
}

static void test_hostile_frames_harm_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, false);
    run(&w, 10000);
    struct sel_prng prng = {3};
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[200];
        size_t n = sel_prng_below(&prng, sizeof(bytes));
        for (size_t k = 0; k < n; k++)
            bytes[k] = (uint8_t)sel_prng_next(&prng);
        if (n > 2 && i % 2) {
            bytes[0] = 0x93;
            bytes[1] = (uint8_t)sel_prng_below(&prng, 12);
        }
        sel_broker_receive(w.broker, i % 3 ? w.producer_connection : 99,
                           (struct sel_str){(char *)bytes, n}, now_of(&w));
    }
    submit(&w, 1, 10, 0);
    start_worker(&w, 10);
    run(&w, 3000000);
    work(&w, 10, SEL_OUTCOME_SUCCESS);
    run(&w, 3000000);
    assert_int_equal(w.finished, 10);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks_go_to_a_worker_and_results_come_back),
        cmocka_unit_test(test_nothing_is_settled_before_it_is_committed),
        cmocka_unit_test(test_a_committed_task_survives_the_loss_of_power),
        cmocka_unit_test(test_a_broker_restart_runs_nothing_again_that_a_worker_holds),
        cmocka_unit_test(test_a_connection_that_breaks_runs_nothing_again),
        cmocka_unit_test(test_tasks_of_a_dead_worker_go_to_another_in_their_order),
        cmocka_unit_test(test_priorities_go_first),
        cmocka_unit_test(test_countdowns_and_retries_wait),
        cmocka_unit_test(test_a_key_stands_for_one_task),
        cmocka_unit_test(test_a_key_waits_until_it_is_known_who_has_its_id),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_the_journal_is_compacted),
        cmocka_unit_test(test_a_full_journal_stops_submits_and_they_go_on),
        cmocka_unit_test(test_no_memory_loses_nothing),
        cmocka_unit_test(test_hostile_frames_harm_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
