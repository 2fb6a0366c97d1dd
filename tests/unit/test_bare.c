#include "tests/support/test.h"

#include <stdlib.h>

#include "core/compile.h"
#include "tests/support/fake_broker.h"
#include "tests/support/program.h"
#include "worker/bare.h"
#include "worker/flow_codec.h"
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
                            "  - {name: Heir, import: worker_tasks, storage: S}\n"
                            "  - {name: Odd, import: worker_tasks, classname: Echo, "
                            "output_schema: %s/int.json}\n"
                            "  - {name: Absent, import: nowhere, queue: elsewhere}\n"
                            "storages:\n"
                            "  - {name: S, import: selinon.storages.memory, "
                            "classname: InMemoryStorage, configuration: {}}\n"
                            "flows: [known]\n";
static const char flows[] = "flow-definitions:\n"
                            "  - name: known\n"
                            "    edges:\n"
                            "      - {from: , to: [Stored, Heir]}\n";

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
    struct sel_source flow = {.file = "flows.yaml", .text = {flows, sizeof(flows) - 1}};
    struct sel_compile_options options = {.nodes = {.file = "nodes.yaml", .text = SEL_STR("")},
                                          .flows = &flow,
                                          .flow_count = 1,
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

/* ---- runs of flows ---- */

static const struct sel_id flow_id = {0x0198f3c27b1c7001, 0x80004a0000000007};
#define FLOW_ID "0198f3c2-7b1c-7001-8000-4a0000000007"

/* The TASK of run 70000 of attempt 2; its id in the broker is {7, n}. */
static void give_run(struct bed *b, uint64_t n, const char *task, const char *flow,
                     const struct sel_wire_run *of, struct sel_str payload)
{
    struct sel_wire_item item = fake_task(n, task, payload);
    struct sel_buf start = {0}, fields = {0}; /* as the dispatcher and the broker make them */
    sel_wire_put_field(&start, SEL_FIELD_TASK, sel_str_c(task));
    if (flow)
        sel_wire_put_field(&start, SEL_FIELD_FLOW, sel_str_c(flow));
    sel_wire_put_run(&fields, sel_buf_str(&start), of);
    item.fields = sel_buf_str(&fields);
    item.try_count = of->retries; /* unless a test says otherwise */
    fake_put(&b->broker, &item);
    sel_buf_done(&start);
    sel_buf_done(&fields);
}

/* What the storage has under the id of that run, as JSON; NULL: nothing. */
static const char *stored(struct bed *b, const char *flow, const char *task, const char *id)
{
    struct sel_storage *storage;
    struct sel_storage_item item = {
        .flow = sel_str_c(flow), .task = sel_str_c(task), .id = sel_str_c(id)};
    struct sel_value value;
    assert_ok(sel_engine_storage(b->engine, 0, &storage, NULL));
    assert_ok(storage->ops->retrieve(storage, sel_io_blocking(), &b->arena, &item, 1, NULL));
    if (item.status != SEL_STORE_OK)
        return NULL;
    assert_ok(sel_value_decode(&b->arena, item.value.p, item.value.n, true, &value, NULL));
    return sel_test_json_text(&b->arena, &value);
}

static void test_a_run_knows_its_flow_and_leaves_its_result_in_the_storage(void **state)
{
    struct bed *b = *state;
    struct sel_wire_run of = {.flow = flow_id, .attempt = 2, .ordinal = 70000, .retries = 3};
    static const char *const names[] = {"known", "not in the configuration"};
    for (uint32_t i = 0; i < 2; i++) {
        of.ordinal += i;
        give_run(b, 1 + i, "Stored", names[i], &of, SEL_STR("\xc0"));
    }
    run_until(b, 2);
    for (uint32_t i = 0; i < 2; i++) {
        char id[64], expected[256];
        assert_int_equal(b->broker.ends[i].code, SEL_OUTCOME_SUCCESS);
        assert_int_equal(b->broker.ends[i].payload_size, 0);
        (void)snprintf(id, sizeof(id), FLOW_ID "-2.7000%u", i);
        (void)snprintf(expected, sizeof(expected),
                       "{\"dispatcher\":\"" FLOW_ID "\",\"flow\":\"%s\",\"id\":\"%s\",\"try\":3}",
                       names[i], id);
        assert_non_null(stored(b, names[i], "Stored", id));
        assert_string_equal(stored(b, names[i], "Stored", id), expected);
    }
}

/* A parent that finished and one that failed, behind the arguments. */
static void put_parents(struct bed *b, struct sel_buf *payload)
{
    struct sel_parents *parents = sel_parents_new(1, 1);
    assert_non_null(parents);
    assert_ok(sel_parents_set_task(parents, 0, SEL_STR("Echo"), SEL_STR(FLOW_ID "-2.5")));
    assert_ok(sel_parents_set_task(parents, 1, SEL_STR("Fails"), SEL_STR(FLOW_ID "-2.6")));
    assert_ok(sel_parents_set_failure(parents, 1, "BadInput", "try 0"));
    sel_flow_put_parents(b->system, parents, payload);
    assert_ok(sel_buf_error(payload));
    sel_parents_unref(parents);
}

static void test_a_run_sees_its_parents(void **state)
{
    struct bed *b = *state;
    struct sel_buf payload = {0};
    sel_buf_put_u8(&payload, 0xc0);
    put_parents(b, &payload);
    struct sel_wire_run of = {
        .flow = flow_id, .ordinal = 7, .parents_size = (uint32_t)payload.n - 1};
    give_run(b, 1, "Heir", "known", &of, sel_buf_str(&payload));
    of.ordinal = 8;
    of.parents_size = 0;
    give_run(b, 2, "Heir", "known", &of, SEL_STR("\xc0"));
    run_until(b, 2);
    const char *seen = stored(b, "known", "Heir", FLOW_ID "-0.7");
    assert_non_null(seen);
    assert_string_equal(seen, "[{\"Echo\":\"" FLOW_ID "-2.5\"},{\"class\":\"BadInput\","
                              "\"message\":\"try 0\"}]");
    assert_int_equal(b->broker.ends[1].code, SEL_OUTCOME_FAILURE);
    assert_non_null(strstr(json_of(b, &b->broker.ends[1]), "NoParentNodeError"));
    sel_buf_done(&payload);
}

static void test_parents_that_cannot_be_read_fail_who_asks(void **state)
{
    struct bed *b = *state;
    struct sel_wire_run of = {.flow = flow_id, .ordinal = 7, .parents_size = 2};
    give_run(b, 1, "Heir", "known", &of, SEL_STR("\xc0\xff\xff"));
    give_run(b, 2, "Stored", "known", &of, SEL_STR("\xc0\xff\xff"));
    run_until(b, 2);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_FAILURE);
    assert_non_null(strstr(json_of(b, &b->broker.ends[0]), "RequestError"));
    assert_int_equal(b->broker.ends[1].code, SEL_OUTCOME_SUCCESS);
}

static void test_a_run_that_contradicts_itself_fails_for_good(void **state)
{
    struct bed *b = *state;
    struct sel_wire_run of = {.flow = flow_id, .ordinal = 7, .parents_size = 2};
    give_run(b, 1, "Stored", "known", &of, SEL_STR("\xc0")); /* more parents than bytes */
    of.parents_size = 0;
    give_run(b, 2, "Stored", NULL, &of, SEL_STR("\xc0"));
    run_until(b, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(b->broker.ends[i].code, SEL_OUTCOME_FATAL);
        assert_non_null(strstr(json_of(b, &b->broker.ends[i]), "ProtocolError"));
    }
}

static void test_retries_of_a_run_that_it_asked_for_are_not_counted(void **state)
{
    struct bed *b = *state;
    struct sel_wire_run of = {.flow = flow_id, .ordinal = 7};
    give_run(b, 1, "AsksAgain", "known", &of, SEL_STR("\xc0"));
    give_run(b, 2, "Fails", "known", &of, SEL_STR("\xc0"));
    of.retries = 2; /* that count: max_retry is 2 */
    give_run(b, 3, "Fails", "known", &of, SEL_STR("\xc0"));
    run_until(b, 3);
    assert_int_equal(b->broker.ends[0].code, SEL_OUTCOME_RETRY);
    assert_int_equal(b->broker.ends[0].flags, SEL_ITEM_UNCOUNTED);
    assert_int_equal(b->broker.ends[1].code, SEL_OUTCOME_RETRY);
    assert_int_equal(b->broker.ends[1].flags, 0);
    assert_end(b, 2, SEL_RECORD_DONE, SEL_OUTCOME_FAILURE,
               "{\"class\":\"BadInput\",\"message\":\"try 2\"}");
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
        T(a_run_knows_its_flow_and_leaves_its_result_in_the_storage),
        T(a_run_sees_its_parents),
        T(parents_that_cannot_be_read_fail_who_asks),
        T(a_run_that_contradicts_itself_fails_for_good),
        T(retries_of_a_run_that_it_asked_for_are_not_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
