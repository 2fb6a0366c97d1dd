#include "tests/support/test.h"

#include <stdlib.h>

#include "core/compile.h"
#include "tests/support/fake_broker.h"
#include "tests/support/program.h"
#include "worker/bare.h"
#include "worker/module.h"
#include "worker/offload.h"

static const char nodes[] = "tasks:\n"
                            "  - {name: Nothing, import: worker_tasks}\n"
                            "  - {name: Echo, import: worker_tasks}\n"
                            "  - {name: Who, import: worker_tasks}\n"
                            "  - {name: Sleeps, import: worker_tasks}\n"
                            "  - {name: Fails, import: worker_tasks, max_retry: 2, "
                            "retry_countdown: 3}\n"
                            "  - {name: FailsOnce, import: worker_tasks, classname: Fails, "
                            "max_retry: 0}\n"
                            "  - {name: FailsForGood, import: worker_tasks, max_retry: 2}\n"
                            "  - {name: AsksAgain, import: worker_tasks, max_retry: 0}\n"
                            "  - {name: Large, import: worker_tasks}\n"
                            "  - {name: Blocks, import: worker_tasks, classname: Computes, "
                            "blocking: true}\n"
                            "  - {name: Stored, import: worker_tasks, classname: Who, "
                            "storage: S}\n"
                            "  - {name: Odd, import: worker_tasks, classname: Echo, "
                            "output_schema: %s/int.json}\n"
                            "  - {name: Absent, import: nowhere, queue: elsewhere}\n"
                            "storages:\n"
                            "  - {name: S, import: selinon.storages.memory, "
                            "classname: InMemoryStorage, configuration: {}}\n"
                            "flows: []\n";

/* A worker's loop without a socket: frames go by hand. */
struct bed {
    struct sel_test_folder folder;
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_modules *modules;
    struct sel_executor_options engine_options;
    struct sel_engine *engine;
    struct sel_offload *offload;
    struct sel_loop *loop;
    struct sel_holder *holder;
    struct sel_bare *bare;
    struct fake_broker broker;
    struct sel_buf out;
    uint8_t pulses[64];
    struct sel_crash_page *page;
    uint32_t wanted; /* ends: then the loop stops */
    uint32_t running_max;
    void (*each_turn)(struct bed *bed);
    bool is_over;
};

static void compile(struct bed *b)
{
    static struct sel_predicate_world world;
    struct sel_compile_options options = {.nodes = {.file = "nodes.yaml", .text = SEL_STR("")},
                                          .world = &world};
    sel_test_folder_init(&b->folder);
    sel_test_write(&b->folder, "int.json", SEL_STR("{\"type\": \"integer\"}"));
    options.nodes.text = sel_str_c(sel_arena_printf(&b->arena, nodes, b->folder.path));
    sel_diag_init(&b->diag, &b->arena);
    if (sel_compile(&options, &b->diag, &b->system) < 0)
        fail_msg("%s", b->diag.first->text);
}

static void no_log(void *ctx, enum sel_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

static void on_cancel(void *ctx, struct sel_held_task *task)
{
    struct bed *b = ctx;
    sel_bare_cancel(b->bare, task);
}

static const struct sel_holder_ops ops = {.cancel = on_cancel};

static bool talk(struct bed *b)
{
    bool has_talked = false;
    int64_t now_us = sel_loop_now_us(b->loop);
    enum sel_peer_action action;
    while ((action = sel_holder_poll(b->holder, now_us, &b->out)) != SEL_PEER_NOTHING) {
        has_talked = true;
        if (action != SEL_PEER_SEND)
            continue;
        fake_receive(&b->broker, sel_buf_str(&b->out));
        if (b->broker.answer.n)
            sel_holder_receive(b->holder, sel_buf_str(&b->broker.answer), now_us);
    }
    while (b->broker.session.is_open && fake_say(&b->broker)) {
        has_talked = true;
        sel_holder_receive(b->holder, sel_buf_str(&b->broker.answer), now_us);
    }
    return has_talked;
}

static bool on_turn(void *arg)
{
    struct bed *b = arg;
    bool has_talked = talk(b);
    if (b->each_turn)
        b->each_turn(b);
    (void)sel_bare_turn(b->bare);
    if (sel_bare_running(b->bare) > b->running_max)
        b->running_max = sel_bare_running(b->bare);
    if (b->broker.total >= b->wanted && sel_bare_running(b->bare) == 0) {
        b->is_over = true;
        sel_loop_stop(b->loop);
    }
    return has_talked && !b->is_over;
}

static int setup(void **state)
{
    struct bed *b = calloc(1, sizeof(*b));
    struct sel_error err = {0};
    compile(b);
    b->modules = sel_modules_new(SEL_TEST_MODULES);
    assert_non_null(b->modules);
    static const char *const queues[] = {"celery"};
    b->engine_options = (struct sel_executor_options){.system = b->system,
                                                      .modules = b->modules,
                                                      .queues = queues,
                                                      .queue_count = 1,
                                                      .log = no_log};
    if (sel_engine_new(&b->engine_options, NULL, &b->engine, &err) < 0)
        fail_msg("%s", err.text);
    b->engine->host.on_pool = sel_bare_on_pool;
    b->offload = sel_offload_new(2, 16);
    struct sel_loop_options loop = {.ring_entries = 64, .offload = b->offload};
    assert_ok(sel_loop_new(&loop, &b->loop, &err));
    fake_init(&b->broker);
    static const struct sel_str served = {"celery", 6};
    struct sel_holder_options holder = {.peer = {.role = SEL_ROLE_WORKER,
                                                 .id = {3, 4},
                                                 .queues = &served,
                                                 .queue_count = 1,
                                                 .slots = 8,
                                                 .window = 64},
                                        .ops = &ops,
                                        .ctx = b};
    assert_ok(sel_holder_new(&holder, sel_loop_now_us(b->loop), &b->holder));
    b->page = sel_crash_page_new(1, 8);
    struct sel_bare_options bare = {.engine = b->engine,
                                    .loop = b->loop,
                                    .holder = b->holder,
                                    .slots = 8,
                                    .pulses = b->pulses,
                                    .page = b->page};
    assert_ok(sel_bare_new(&bare, &b->bare));
    sel_co_set_mark_place(&b->page->threads[0].running);
    sel_loop_set_idle(b->loop, on_turn, b);
    (void)talk(b);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bed *b = *state;
    sel_co_set_mark_place(NULL);
    sel_bare_free(b->bare);
    sel_holder_free(b->holder);
    sel_loop_free(b->loop);
    sel_engine_free(b->engine);
    sel_modules_thread_done(b->modules);
    sel_offload_free(b->offload);
    sel_modules_free(b->modules);
    sel_system_free(b->system);
    sel_crash_page_free(b->page);
    sel_arena_done(&b->arena);
    sel_buf_done(&b->out);
    sel_test_folder_done(&b->folder);
    fake_done(&b->broker);
    free(b);
    return 0;
}

/* ---- giving and running ---- */

static struct sel_wire_item task_of(struct bed *b, uint64_t n, const char *name, const char *json)
{
    struct sel_buf buf = {0};
    struct sel_value args = sel_test_json(&b->arena, json);
    sel_value_encode(&args, &buf);
    char *copy = sel_arena_memdup(&b->arena, buf.p, buf.n);
    struct sel_wire_item item = fake_task(n, name, (struct sel_str){copy, buf.n});
    sel_buf_done(&buf);
    return item;
}

static void give(struct bed *b, uint64_t n, const char *name, const char *json)
{
    struct sel_wire_item item = task_of(b, n, name, json);
    fake_put(&b->broker, &item);
}

static void run_until(struct bed *b, uint32_t ends)
{
    b->wanted = ends;
    b->is_over = false;
    sel_loop_run(b->loop);
}

static const char *json_of(struct bed *b, const struct fake_end *end)
{
    struct sel_value value;
    assert_ok(sel_value_decode(&b->arena, end->payload, end->payload_size, true, &value, NULL));
    return sel_test_json_text(&b->arena, &value);
}

#define assert_end(b, i, want_type, want_code, json)                                               \
    do {                                                                                           \
        const struct fake_end *end_of_assert = &(b)->broker.ends[i];                               \
        assert_int_equal(end_of_assert->type, (want_type));                                        \
        assert_int_equal(end_of_assert->code, (want_code));                                        \
        assert_string_equal(json_of((b), end_of_assert), (json));                                  \
    } while (0)

/* ---- tests ---- */

static void test_a_task_gets_its_arguments_and_gives_its_result(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Echo", "{\"a\": [1, 2.5, \"x\"]}");
    give(b, 2, "Nothing", "null");
    run_until(b, 2);
    assert_end(b, 0, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "{\"a\":[1,2.5,\"x\"]}");
    assert_end(b, 1, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "null");
    assert_true(sel_holder_is_empty(b->holder));
}

static void test_a_bare_task_knows_no_flow(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Who", "null");
    run_until(b, 1);
    assert_end(b, 0, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS,
               "{\"dispatcher\":\"\",\"flow\":\"\",\"id\":\"00000000-0000-0007-0000-000000000001\","
               "\"try\":0}");
}

static void test_empty_arguments_are_null_and_rubbish_is_told(void **state)
{
    struct bed *b = *state;
    struct sel_wire_item item = fake_task(1, "Echo", SEL_STR(""));
    fake_put(&b->broker, &item);
    item = fake_task(2, "Echo", SEL_STR("\xc1"));
    fake_put(&b->broker, &item);
    run_until(b, 2);
    assert_end(b, 0, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "null");
    assert_int_equal(b->broker.ends[1].code, SEL_OUTCOME_FATAL);
    assert_non_null(strstr(json_of(b, &b->broker.ends[1]), "\"class\":\"ArgumentError\""));
}

static void test_failures_are_retried_as_the_task_says(void **state)
{
    struct bed *b = *state;
    for (uint16_t i = 0; i < 3; i++) {
        struct sel_wire_item item = task_of(b, 1u + i, "Fails", "null");
        item.try_count = i;
        fake_put(&b->broker, &item);
    }
    give(b, 4, "FailsOnce", "null");
    give(b, 5, "FailsForGood", "null");
    run_until(b, 5);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(b->broker.ends[i].code, SEL_OUTCOME_RETRY);
        assert_int_equal(b->broker.ends[i].countdown_us, 3000000);
    }
    assert_end(b, 2, SEL_RECORD_DONE, SEL_OUTCOME_FAILURE,
               "{\"class\":\"BadInput\",\"message\":\"try 2\"}");
    assert_end(b, 3, SEL_RECORD_DONE, SEL_OUTCOME_FAILURE,
               "{\"class\":\"BadInput\",\"message\":\"try 0\"}");
    assert_end(b, 4, SEL_RECORD_DONE, SEL_OUTCOME_FATAL,
               "{\"class\":\"FatalTaskError\",\"message\":\"never\"}");
}

static void test_a_task_may_ask_for_another_try(void **state)
{
    struct bed *b = *state;
    give(b, 1, "AsksAgain", "null");
    run_until(b, 1);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_RETRY);
    assert_int_equal(b->broker.ends[0].countdown_us, 250000);
    struct sel_wire_item item = task_of(b, 1, "AsksAgain", "null");
    item.try_count = 2;
    fake_put(&b->broker, &item);
    run_until(b, 2);
    assert_end(b, 1, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "2");
}

static void test_unknown_tasks_go_back_with_a_suggestion(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Ecco", "null");
    give(b, 2, "Quark", "null");
    give(b, 3, "Absent", "null");
    run_until(b, 3);
    static const char *const texts[] = {"no task is called 'Ecco'; did you mean 'Echo'?",
                                        "no task is called 'Quark'",
                                        "the code of the task is not on this worker"};
    static const uint32_t codes[] = {SEL_RETURN_UNKNOWN_TASK, SEL_RETURN_UNKNOWN_TASK,
                                     SEL_RETURN_NO_RESOURCES};
    for (uint32_t i = 0; i < 3; i++) {
        const struct fake_end *end = &b->broker.ends[i];
        assert_int_equal(end->type, SEL_RECORD_RETURN);
        assert_int_equal(end->code, codes[i]);
        assert_str_is(((struct sel_str){end->payload, end->payload_size}), texts[i]);
    }
}

static void test_other_content_is_refused(void **state)
{
    struct bed *b = *state;
    static const char *const types[] = {"application/json", "application/msgpack"};
    for (uint64_t i = 0; i < 2; i++) {
        struct sel_wire_item item = task_of(b, 1 + i, "Echo", "1");
        item.content_type = sel_str_c(types[i]);
        fake_put(&b->broker, &item);
    }
    run_until(b, 2);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_FATAL);
    assert_non_null(strstr(json_of(b, &b->broker.ends[0]), "ContentTypeError"));
    assert_end(b, 1, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "1");
}

static void test_tasks_that_wait_run_side_by_side_as_slots_allow(void **state)
{
    struct bed *b = *state;
    int64_t begin_us = sel_loop_now_us(b->loop);
    for (uint64_t n = 1; n <= 16; n++)
        give(b, n, "Sleeps", "{\"seconds\": 0.02}");
    run_until(b, 16);
    assert_int_equal(b->running_max, 8);
    assert_true(sel_loop_now_us(b->loop) - begin_us >= 40000); /* two rounds of eight */
    struct sel_bare_stats stats;
    sel_bare_get_stats(b->bare, &stats);
    assert_int_equal(stats.succeeded, 16);
}

static void test_small_tasks_do_not_wait_behind_long_ones(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Sleeps", "{\"seconds\": 0.5}");
    for (uint64_t n = 2; n <= 500; n++)
        give(b, n, "Nothing", "null");
    run_until(b, 500);
    assert_int_equal(b->broker.ends[499].id.lo, 1);
}

static void test_blocking_tasks_run_beside_the_loop(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Blocks", "{\"seconds\": 0.03}");
    give(b, 2, "Nothing", "null");
    run_until(b, 2);
    assert_int_equal(b->broker.ends[0].id.lo, 2);
    assert_end(b, 1, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "true");
    struct sel_buf notes = {0};
    assert_int_equal(sel_crash_collect(b->page, 0, &notes), 0); /* nobody is at work any more */
}

static void test_results_are_checked_and_stored(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Odd", "\"x\"");
    give(b, 2, "Odd", "7");
    give(b, 3, "Stored", "null");
    run_until(b, 3);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_FAILURE);
    assert_non_null(strstr(json_of(b, &b->broker.ends[0]), "ValidationError"));
    assert_end(b, 1, SEL_RECORD_DONE, SEL_OUTCOME_SUCCESS, "7");
    assert_int_equal(b->broker.ends[2].code, SEL_OUTCOME_SUCCESS);
    struct sel_wire_item again = task_of(b, 3, "Stored", "null"); /* its DONE was lost, say */
    again.try_count = 1;
    fake_put(&b->broker, &again);
    run_until(b, 4);
    assert_string_equal(json_of(b, &b->broker.ends[3]), json_of(b, &b->broker.ends[2]));
}

static void test_a_result_over_the_limit_is_a_failure(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Large", "{\"size\": 1100000}");
    run_until(b, 1);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_FATAL);
    assert_non_null(strstr(json_of(b, &b->broker.ends[0]), "ResultError"));
}

static void cancel_first(struct bed *b)
{
    struct sel_wire_item item = {
        .type = SEL_RECORD_CANCEL, .id = {7, 1}, .priority = SEL_WIRE_PRIORITY, .handle = 1001};
    if (sel_holder_running(b->holder) == 0)
        return;
    b->each_turn = NULL;
    fake_put(&b->broker, &item);
    (void)talk(b);
}

static void test_a_cancelled_task_ends_early(void **state)
{
    struct bed *b = *state;
    give(b, 1, "Sleeps", "{\"seconds\": 60}");
    b->each_turn = cancel_first;
    run_until(b, 1);
    assert_int_equal(b->broker.ends[0].type, SEL_RECORD_CANCELLED);
    give(b, 2, "Nothing", "null"); /* what comes after is not cancelled with it */
    run_until(b, 2);
    assert_int_equal(b->broker.ends[1].type, SEL_RECORD_DONE);
}

static void cancel_all(struct bed *b)
{
    if (sel_holder_running(b->holder) < 3)
        return;
    b->each_turn = NULL;
    sel_bare_cancel_all(b->bare);
}

static void test_what_is_cancelled_at_the_end_is_returned(void **state)
{
    struct bed *b = *state;
    for (uint64_t n = 1; n <= 3; n++)
        give(b, n, "Sleeps", "{\"seconds\": 60}");
    b->each_turn = cancel_all;
    run_until(b, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(b->broker.ends[i].type, SEL_RECORD_RETURN);
        assert_int_equal(b->broker.ends[i].code, SEL_RETURN_NOT_BEGUN);
    }
}

/* The broker settles nothing and the outbox is full: tasks wait with their ends. */
static void settle_later(struct bed *b)
{
    if (b->broker.total < 60)
        return;
    b->each_turn = NULL;
    b->broker.keeps = false;
    sel_session_settle(&b->broker.session, b->broker.session.in.arrived);
}

static void test_ends_wait_while_the_broker_takes_none(void **state)
{
    struct bed *b = *state;
    sel_holder_peer(b->holder)->session.out.bytes_max = 64 << 20;
    b->broker.keeps = true;
    b->each_turn = settle_later;
    for (uint64_t n = 1; n <= 100; n++)
        give(b, n, "Large", "{\"size\": 1000000}");
    run_until(b, 100);
    assert_int_equal(b->broker.total, 100);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(b->broker.ends[i].code, SEL_OUTCOME_SUCCESS);
}

static void see_mark(struct bed *b)
{
    struct sel_buf notes = {0};
    if (sel_holder_running(b->holder) > 0) /* it sleeps in the ring: nobody blames it */
        assert_int_equal(sel_crash_collect(b->page, 0, &notes), 0);
    b->running_max = b->pulses[0];
}

static void test_a_task_that_waits_is_not_blamed_and_shows_a_pulse(void **state)
{
    struct bed *b = *state;
    b->each_turn = see_mark;
    give(b, 1, "Sleeps", "{\"seconds\": 0.01}");
    run_until(b, 1);
    assert_int_equal(b->pulses[0], 0);
}

static void test_small_tasks_cost_no_calls_of_the_heap(void **state)
{
    struct bed *b = *state;
    uint64_t calls = 0;
    for (uint32_t i = 0; i < 200; i++) {
        for (uint64_t n = 1; n <= 50; n++) {
            struct sel_wire_item item = fake_task(i * 50 + n, "Nothing", SEL_STR("\xc0"));
            fake_put(&b->broker, &item);
        }
        run_until(b, (i + 1) * 50);
        if (i == 20)
            calls = sel_mem_alloc_count();
    }
    assert_in_range(sel_mem_alloc_count() - calls, 0, 50); /* a buffer may still grow */
    struct sel_bare_stats stats;
    sel_bare_get_stats(b->bare, &stats);
    assert_int_equal(stats.succeeded, 10000);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_task_gets_its_arguments_and_gives_its_result),
        T(a_bare_task_knows_no_flow),
        T(empty_arguments_are_null_and_rubbish_is_told),
        T(failures_are_retried_as_the_task_says),
        T(a_task_may_ask_for_another_try),
        T(unknown_tasks_go_back_with_a_suggestion),
        T(other_content_is_refused),
        T(tasks_that_wait_run_side_by_side_as_slots_allow),
        T(small_tasks_do_not_wait_behind_long_ones),
        T(blocking_tasks_run_beside_the_loop),
        T(results_are_checked_and_stored),
        T(a_result_over_the_limit_is_a_failure),
        T(a_cancelled_task_ends_early),
        T(what_is_cancelled_at_the_end_is_returned),
        T(ends_wait_while_the_broker_takes_none),
        T(a_task_that_waits_is_not_blamed_and_shows_a_pulse),
        T(small_tasks_cost_no_calls_of_the_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
