#include "tests/support/test.h"

#include <stdlib.h>

#include "core/prng.h"
#include "tests/support/fake_broker.h"
#include "worker/holder.h"

static const struct sel_str queues[] = {{"a", 1}, {"b", 1}};

struct world {
    struct fake_broker broker;
    struct sel_holder *holder;
    int64_t now_us;
    struct sel_buf out;
    uint32_t connects;
    bool is_cut; /* nothing comes through */
    struct sel_held_task *cancelled;
    size_t keep_bytes_max;
};

static void on_cancel(void *ctx, struct sel_held_task *task)
{
    ((struct world *)ctx)->cancelled = task;
}

static const struct sel_holder_ops ops = {.cancel = on_cancel};

static void carry_to_worker(struct world *w)
{
    if (w->broker.answer.n && !w->is_cut)
        sel_holder_receive(w->holder, sel_buf_str(&w->broker.answer), w->now_us);
}

/* Both say what they have to say until neither has anything. */
static void talk(struct world *w)
{
    enum sel_peer_action action;
    for (int i = 0; i < 100; i++) {
        bool is_quiet = true;
        while ((action = sel_holder_poll(w->holder, w->now_us, &w->out)) != SEL_PEER_NOTHING) {
            is_quiet = false;
            w->connects += action == SEL_PEER_CONNECT;
            if (action != SEL_PEER_SEND || w->is_cut)
                continue;
            fake_receive(&w->broker, sel_buf_str(&w->out));
            carry_to_worker(w);
        }
        while (w->broker.session.is_open && !w->is_cut && fake_say(&w->broker)) {
            is_quiet = false;
            carry_to_worker(w);
        }
        if (is_quiet)
            return;
        w->now_us += 3000; /* acks wait for so long */
    }
    fail_msg("they never stop talking");
}

static void cut_and_join(struct world *w)
{
    w->now_us += 1000000;
    sel_peer_broken(sel_holder_peer(w->holder), w->now_us);
    w->now_us += 10000000;
    talk(w);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->now_us = 1000000;
    fake_init(&w->broker);
    struct sel_holder_options options = {.peer = {.role = SEL_ROLE_WORKER,
                                                  .id = {3, 4},
                                                  .queues = queues,
                                                  .queue_count = 2,
                                                  .slots = 4,
                                                  .window = 8,
                                                  .keep_bytes_max = 4096,
                                                  .seed = 5},
                                         .ops = &ops,
                                         .ctx = w};
    assert_ok(sel_holder_new(&options, w->now_us, &w->holder));
    talk(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    sel_holder_free(w->holder);
    fake_done(&w->broker);
    sel_buf_done(&w->out);
    free(w);
    return 0;
}

static void give(struct world *w, uint64_t n)
{
    fake_put_task(&w->broker, n);
    talk(w);
}

static void end(struct world *w, struct sel_held_task *task)
{
    assert_ok(sel_holder_end(w->holder, task, SEL_OUTCOME_SUCCESS, 0, SEL_STR("\x01")));
}

/* ---- tests ---- */

static void test_hello_says_queues_slots_and_window(void **state)
{
    struct world *w = *state;
    assert_int_equal(w->connects, 1);
    assert_int_equal(w->broker.hello.role, SEL_ROLE_WORKER);
    assert_int_equal(w->broker.hello.queue_count, 2);
    assert_true(w->broker.hello.serves_all);
    assert_int_equal(w->broker.hello.slots, 4);
    assert_int_equal(w->broker.hello.window, 8);
    assert_int_equal(w->broker.held_count, 0);
}

static void test_crashed_tasks_are_told_until_a_welcome(void **state)
{
    struct world *w = *state;
    struct sel_buf crashed = {0};
    struct sel_wire_held one = {.id = {7, 1}, .handle = 5, .is_done = true};
    sel_wire_put_held(&crashed, &one);
    sel_holder_peer(w->holder)->options.crashed = sel_buf_str(&crashed);
    cut_and_join(w);
    assert_int_equal(w->broker.crashed_count, 1);
    cut_and_join(w);
    assert_int_equal(w->broker.crashed_count, 0);
    sel_buf_done(&crashed);
}

static void test_tasks_begin_oldest_first_and_their_ends_arrive(void **state)
{
    struct world *w = *state;
    for (uint64_t n = 1; n <= 3; n++)
        give(w, n);
    assert_int_equal(sel_holder_waiting(w->holder), 3);
    for (uint64_t n = 1; n <= 3; n++) {
        struct sel_held_task *task = sel_holder_begin(w->holder);
        assert_non_null(task);
        assert_int_equal(task->id.lo, n);
        assert_str_is(task->item.task, "T");
        assert_int_equal(task->item.payload.n, 1);
        end(w, task);
    }
    assert_null(sel_holder_begin(w->holder));
    assert_int_equal(sel_holder_unsettled(w->holder), 3);
    talk(w);
    assert_int_equal(w->broker.end_count, 3);
    for (uint64_t n = 1; n <= 3; n++) {
        const struct fake_end *got = &w->broker.ends[n - 1];
        assert_int_equal(got->type, SEL_RECORD_DONE);
        assert_int_equal(got->code, SEL_OUTCOME_SUCCESS);
        assert_int_equal(got->id.lo, n);
        assert_int_equal(got->handle, 1000 + n);
        assert_memory_equal(got->payload, "\x01", 1);
    }
    assert_true(sel_holder_is_empty(w->holder));
}

static void test_outcomes_as_records(void **state)
{
    struct world *w = *state;
    const struct {
        uint32_t code;
        int64_t countdown_us;
        uint8_t type;
        uint32_t want_code;
    } cases[] = {
        {SEL_OUTCOME_FAILURE, 0, SEL_RECORD_DONE, SEL_OUTCOME_FAILURE},
        {SEL_OUTCOME_RETRY, 2500000, SEL_RECORD_DONE, SEL_OUTCOME_RETRY},
        {SEL_OUTCOME_FATAL, 0, SEL_RECORD_DONE, SEL_OUTCOME_FATAL},
        {SEL_OUTCOME_CANCELLED, 0, SEL_RECORD_CANCELLED, 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        give(w, i + 1);
        struct sel_held_task *task = sel_holder_begin(w->holder);
        assert_ok(
            sel_holder_end(w->holder, task, cases[i].code, cases[i].countdown_us, SEL_STR("\xc0")));
        talk(w);
        const struct fake_end *got = &w->broker.ends[i];
        assert_int_equal(got->type, cases[i].type);
        assert_int_equal(got->code, cases[i].want_code);
        assert_int_equal(got->countdown_us, cases[i].countdown_us);
    }
}

/* A run of a flow: the broker asks about it in another way, and its retries may not count. */
static void give_run(struct world *w, uint64_t n)
{
    struct sel_wire_item item = fake_task(n, "T", SEL_STR("\xc0"));
    struct sel_wire_run run = {.flow = {1, 2}, .ordinal = 3};
    struct sel_buf start = {0}, fields = {0};
    sel_wire_put_field(&start, SEL_FIELD_TASK, SEL_STR("T"));
    sel_wire_put_run(&fields, sel_buf_str(&start), &run);
    item.fields = sel_buf_str(&fields);
    fake_put(&w->broker, &item);
    talk(w);
    sel_buf_done(&start);
    sel_buf_done(&fields);
}

static void test_runs_are_held_as_what_they_are(void **state)
{
    struct world *w = *state;
    give(w, 1);
    give_run(w, 2);
    cut_and_join(w);
    assert_int_equal(w->broker.held_count, 2);
    assert_false(w->broker.held[0].is_run);
    assert_true(w->broker.held[1].is_run);
}

static void test_a_retry_that_does_not_count_says_so(void **state)
{
    struct world *w = *state;
    for (uint64_t n = 1; n <= 3; n++)
        give_run(w, n);
    for (uint32_t i = 0; i < 3; i++) {
        struct sel_held_task *task = sel_holder_begin(w->holder);
        task->is_uncounted = i > 0;
        assert_ok(sel_holder_end(w->holder, task, i < 2 ? SEL_OUTCOME_RETRY : SEL_OUTCOME_FAILURE,
                                 0, SEL_STR("")));
    }
    talk(w);
    assert_int_equal(w->broker.ends[0].flags, 0);
    assert_int_equal(w->broker.ends[1].flags, SEL_ITEM_UNCOUNTED);
    assert_int_equal(w->broker.ends[2].flags, 0); /* is no retry */
}

static void test_what_is_held_is_told_when_the_connection_breaks(void **state)
{
    struct world *w = *state;
    for (uint64_t n = 1; n <= 3; n++)
        give(w, n);
    struct sel_held_task *first = sel_holder_begin(w->holder);
    struct sel_held_task *second = sel_holder_begin(w->holder);
    w->broker.keeps = true;
    end(w, first);
    talk(w);
    assert_int_equal(w->broker.end_count, 1);
    cut_and_join(w);
    assert_int_equal(w->broker.held_count, 3); /* 2 runs, 3 waits, 1 has ended */
    assert_int_equal(w->broker.held[0].id.lo, 2);
    assert_false(w->broker.held[0].is_done);
    assert_int_equal(w->broker.held[1].id.lo, 3);
    assert_int_equal(w->broker.held[2].id.lo, 1);
    assert_true(w->broker.held[2].is_done);
    assert_int_equal(w->broker.held[2].handle, 1001);
    assert_int_equal(w->broker.end_count, 1); /* resumed: it had arrived */
    (void)second;
}

static void test_ends_come_again_in_a_new_session_until_they_are_settled(void **state)
{
    struct world *w = *state;
    give(w, 1);
    give(w, 2);
    w->broker.keeps = true;
    end(w, sel_holder_begin(w->holder));
    talk(w);
    w->broker.forgets = true;
    cut_and_join(w);
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[1].id.lo, 1);
    assert_int_equal(sel_holder_unsettled(w->holder), 1);
    w->broker.keeps = false;
    end(w, sel_holder_begin(w->holder));
    talk(w);
    assert_int_equal(sel_holder_unsettled(w->holder), 0);
    assert_true(sel_holder_is_empty(w->holder));
}

static void say_of_flow(struct world *w, uint8_t type)
{
    struct sel_wire_item item = {.type = type,
                                 .id = {7, 7},
                                 .priority = SEL_WIRE_PRIORITY,
                                 .payload = {"some decision", 13}};
    assert_ok(sel_holder_put_flow(w->holder, &item));
}

/* Ends of tasks come again, and are settled under their new numbers; what was said of flows, and
 * the names of queues that were told for them, do not. */
static void test_what_was_said_of_flows_is_dropped_with_the_session(void **state)
{
    struct world *w = *state;
    uint16_t number;
    w->broker.keeps = true;
    for (uint64_t id = 1; id <= 3; id++)
        give(w, id);
    say_of_flow(w, SEL_RECORD_DECIDE);
    end(w, sel_holder_begin(w->holder));
    assert_ok(sel_holder_queue_number(w->holder, SEL_STR("b"), &number));
    assert_int_equal(number, 2);
    assert_ok(sel_holder_queue_number(w->holder, SEL_STR("c"), &number));
    assert_int_equal(number, 3);
    say_of_flow(w, SEL_RECORD_STATE);
    end(w, sel_holder_begin(w->holder));
    say_of_flow(w, SEL_RECORD_RETURN);
    talk(w);
    assert_int_equal(w->broker.end_count, 6);
    assert_false(sel_holder_is_empty(w->holder));
    w->broker.forgets = true;
    cut_and_join(w);
    assert_int_equal(w->broker.end_count, 8);
    assert_int_equal(w->broker.ends[6].type, SEL_RECORD_DONE);
    assert_int_equal(w->broker.ends[6].id.lo, 1);
    assert_int_equal(w->broker.ends[7].id.lo, 2);
    struct sel_holder_stats stats;
    sel_holder_get_stats(w->holder, &stats);
    assert_int_equal(stats.flow_dropped, 4);
    w->broker.keeps = false;
    end(w, sel_holder_begin(w->holder));
    talk(w);
    assert_int_equal(sel_holder_unsettled(w->holder), 0);
    assert_true(sel_holder_is_empty(w->holder));
    assert_ok(sel_holder_queue_number(w->holder, SEL_STR("d"), &number));
    assert_int_equal(number, 3);
}

static void test_a_try_that_comes_again_is_not_begun_twice(void **state)
{
    struct world *w = *state;
    struct sel_wire_item again = fake_task(1, "T", SEL_STR("\xc0"));
    give(w, 1);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    again.delivery = 1;
    again.handle = 77;
    fake_put(&w->broker, &again);
    talk(w);
    assert_null(sel_holder_begin(w->holder));
    end(w, task);
    talk(w);
    assert_int_equal(w->broker.end_count, 1);
    assert_int_equal(w->broker.ends[0].delivery, 1); /* the delivery that the broker waits for */
    assert_int_equal(w->broker.ends[0].handle, 77);
    struct sel_holder_stats stats;
    sel_holder_get_stats(w->holder, &stats);
    assert_int_equal(stats.redelivered, 1);
    assert_int_equal(stats.begun, 1);
}

static void test_an_end_that_is_not_settled_is_said_for_the_new_delivery_too(void **state)
{
    struct world *w = *state;
    struct sel_wire_item again = fake_task(1, "T", SEL_STR("\xc0"));
    give(w, 1);
    w->broker.keeps = true;
    end(w, sel_holder_begin(w->holder));
    talk(w);
    again.delivery = 1;
    again.handle = 77;
    fake_put(&w->broker, &again);
    talk(w);
    assert_null(sel_holder_begin(w->holder));
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[1].handle, 77);
    assert_int_equal(w->broker.ends[1].delivery, 1);
    assert_memory_equal(w->broker.ends[1].payload, "\x01", 1);
    w->broker.keeps = false;
    give(w, 2); /* anything that makes it settle */
    end(w, sel_holder_begin(w->holder));
    talk(w);
    assert_true(sel_holder_is_empty(w->holder));
}

/* The broker forgot the task, was told of its end, and got it from its producer once more. */
static void test_a_try_that_comes_again_with_its_end_settled_is_returned(void **state)
{
    struct world *w = *state;
    struct sel_wire_item again = fake_task(1, "T", SEL_STR("\xc0"));
    give(w, 1);
    w->broker.keeps = true;
    end(w, sel_holder_begin(w->holder));
    talk(w);
    w->broker.keeps = false;
    sel_session_settle(&w->broker.session, w->broker.session.in.arrived);
    again.delivery = 1;
    again.handle = 77;
    fake_put(&w->broker, &again); /* goes with what is settled */
    talk(w);
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[1].type, SEL_RECORD_RETURN);
    assert_int_equal(w->broker.ends[1].handle, 77);
    assert_int_equal(w->broker.ends[1].delivery, 1);
    assert_true(sel_holder_is_empty(w->holder));
    again.delivery = 2;
    fake_put(&w->broker, &again);
    talk(w);
    assert_non_null(sel_holder_begin(w->holder));
}

static void test_a_new_try_runs_beside_the_old_one(void **state)
{
    struct world *w = *state;
    struct sel_wire_item next = fake_task(1, "T", SEL_STR("\xc0"));
    give(w, 1);
    struct sel_held_task *old = sel_holder_begin(w->holder);
    next.try_count = 1;
    fake_put(&w->broker, &next);
    talk(w);
    struct sel_held_task *new = sel_holder_begin(w->holder);
    assert_non_null(new);
    assert_ptr_not_equal(new, old);
    end(w, new);
    end(w, old);
    talk(w);
    assert_int_equal(w->broker.ends[0].try_count, 1);
    assert_int_equal(w->broker.ends[1].try_count, 0);
    assert_true(sel_holder_is_empty(w->holder));
}

static void put_cancel(struct world *w, uint64_t n, uint64_t handle)
{
    struct sel_wire_item item = {
        .type = SEL_RECORD_CANCEL, .id = {7, n}, .priority = SEL_WIRE_PRIORITY, .handle = handle};
    fake_put(&w->broker, &item);
    talk(w);
}

static void test_cancel(void **state)
{
    struct world *w = *state;
    give(w, 1);
    give(w, 2);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    put_cancel(w, 2, 1002); /* waits: it is over at once */
    assert_int_equal(sel_holder_waiting(w->holder), 0);
    assert_int_equal(w->broker.ends[0].type, SEL_RECORD_CANCELLED);
    assert_int_equal(w->broker.ends[0].id.lo, 2);
    put_cancel(w, 1, 55); /* another delivery is meant */
    assert_null(w->cancelled);
    put_cancel(w, 1, 1001);
    assert_ptr_equal(w->cancelled, task);
    assert_true(task->is_cancelled);
    put_cancel(w, 9, 1009); /* nobody knows it */
    end(w, task);
    talk(w);
    assert_int_equal(w->broker.ends[1].type, SEL_RECORD_DONE); /* it was faster */
    assert_int_equal(w->broker.end_count, 2);
}

static void test_drain_returns_what_waits_and_takes_nothing_new(void **state)
{
    struct world *w = *state;
    give(w, 1);
    give(w, 2);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    sel_holder_drain(w->holder);
    give(w, 3); /* it was on its way */
    assert_null(sel_holder_begin(w->holder));
    assert_int_equal(w->broker.end_count, 4);
    assert_int_equal(w->broker.ends[0].type, SEL_RECORD_WANT);
    assert_int_equal(w->broker.ends[0].queue, 1);
    assert_int_equal(w->broker.ends[0].code, 0);
    assert_int_equal(w->broker.ends[1].queue, 2);
    assert_int_equal(w->broker.ends[2].type, SEL_RECORD_RETURN);
    assert_int_equal(w->broker.ends[2].id.lo, 2);
    assert_int_equal(w->broker.ends[2].code, SEL_RETURN_NOT_BEGUN);
    assert_int_equal(w->broker.ends[3].id.lo, 3);
    assert_false(sel_holder_is_empty(w->holder));
    w->broker.forgets = true;
    cut_and_join(w);
    assert_false(w->broker.hello.serves_all); /* nor does a new session ask for work */
    assert_int_equal(w->broker.hello.serve_count, 0);
    end(w, task);
    talk(w);
    assert_true(sel_holder_is_empty(w->holder));
}

static void test_return_says_why(void **state)
{
    struct world *w = *state;
    give(w, 1);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    sel_holder_return(w->holder, task, SEL_RETURN_UNKNOWN_TASK, SEL_STR("no such task"));
    talk(w);
    assert_int_equal(w->broker.ends[0].type, SEL_RECORD_RETURN);
    assert_int_equal(w->broker.ends[0].code, SEL_RETURN_UNKNOWN_TASK);
    assert_memory_equal(w->broker.ends[0].payload, "no such task", 12);
}

static void test_what_was_given_back_and_comes_again_is_begun(void **state)
{
    struct world *w = *state;
    w->broker.keeps = true; /* `settled` is on its way when it comes */
    give(w, 1);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    sel_holder_return(w->holder, task, SEL_RETURN_NOT_BEGUN, SEL_STR(""));
    talk(w);
    struct sel_wire_item again = fake_task(1, "T", SEL_STR("\xc0"));
    again.delivery = 1;
    fake_put(&w->broker, &again);
    talk(w);
    task = sel_holder_begin(w->holder);
    assert_non_null(task);
    end(w, task);
    talk(w);
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[1].type, SEL_RECORD_DONE);
    assert_int_equal(w->broker.ends[1].delivery, 1);
}

static void test_hello_says_what_it_was_told_to_stop(void **state)
{
    struct world *w = *state;
    give(w, 1);
    give(w, 2);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    const struct sel_wire_item cancel = {.type = SEL_RECORD_CANCEL,
                                         .id = {7, 1},
                                         .priority = SEL_WIRE_PRIORITY,
                                         .code = SEL_CANCEL_ENDED,
                                         .handle = task->handle};
    fake_put(&w->broker, &cancel);
    talk(w);
    w->broker.forgets = true;
    cut_and_join(w);
    assert_int_equal(w->broker.held_count, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(w->broker.held[i].is_called_off, w->broker.held[i].id.lo == 1);
}

/* A must-understand field, and a task without a name. */
static void test_tasks_that_cannot_be_read_are_returned_or_failed(void **state)
{
    struct world *w = *state;
    struct sel_buf fields = {0};
    struct sel_wire_item item = fake_task(1, "", SEL_STR("\xc0"));
    sel_wire_put_field(&fields, 1, SEL_STR("T"));
    sel_wire_put_field(&fields, 200, SEL_STR("?"));
    item.fields = sel_buf_str(&fields);
    fake_put(&w->broker, &item);
    item = fake_task(2, "", SEL_STR("\xc0"));
    fake_put(&w->broker, &item);
    talk(w);
    sel_buf_done(&fields);
    assert_null(sel_holder_begin(w->holder));
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[0].type, SEL_RECORD_RETURN);
    assert_int_equal(w->broker.ends[0].code, SEL_RETURN_NO_RESOURCES);
    assert_int_equal(w->broker.ends[1].type, SEL_RECORD_DONE);
    assert_int_equal(w->broker.ends[1].code, SEL_OUTCOME_FATAL);
    assert_true(sel_holder_is_empty(w->holder));
}

/* No answer could name it: it is let go, and what comes after it is served. */
static void test_a_task_without_an_id_is_let_go(void **state)
{
    struct world *w = *state;
    struct sel_wire_item item = fake_task(1, "T", SEL_STR("\xc0"));
    item.id = (struct sel_id){0};
    fake_put(&w->broker, &item);
    item.flags |= SEL_ITEM_FLOW;
    fake_put(&w->broker, &item);
    give(w, 2);
    talk(w);
    assert_int_equal(w->broker.end_count, 0);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    assert_non_null(task);
    assert_int_equal(task->id.lo, 2);
    end(w, task);
    talk(w);
    assert_int_equal(w->broker.end_count, 1);
    assert_true(sel_holder_is_empty(w->holder));
}

static void test_results_over_the_brokers_limit_are_refused_here(void **state)
{
    struct world *w = *state;
    static const char large[8192];
    w->broker.record_max = 4096;
    w->broker.forgets = true;
    cut_and_join(w);
    give(w, 1);
    struct sel_held_task *task = sel_holder_begin(w->holder);
    assert_code(sel_holder_end(w->holder, task, SEL_OUTCOME_SUCCESS, 0,
                               (struct sel_str){large, sizeof(large)}),
                SEL_ERANGE);
    end(w, task);
    talk(w);
    assert_int_equal(w->broker.end_count, 1);
}

static void test_ends_wait_for_room(void **state)
{
    struct world *w = *state;
    static const char large[3000];
    w->broker.keeps = true;
    struct sel_held_task *task[3];
    for (uint64_t n = 1; n <= 3; n++) {
        give(w, n);
        task[n - 1] = sel_holder_begin(w->holder);
    }
    const struct sel_str payload = {large, sizeof(large)};
    for (int i = 0; i < 2; i++) /* what is behind the first one is counted */
        assert_ok(sel_holder_end(w->holder, task[i], SEL_OUTCOME_SUCCESS, 0, payload));
    assert_code(sel_holder_end(w->holder, task[2], SEL_OUTCOME_SUCCESS, 0, payload), SEL_ELIMIT);
    assert_int_equal(sel_holder_running(w->holder), 1);
    talk(w);
    w->broker.keeps = false;
    sel_session_settle(&w->broker.session, w->broker.session.in.arrived);
    talk(w);
    assert_ok(sel_holder_end(w->holder, task[2], SEL_OUTCOME_SUCCESS, 0, payload));
    talk(w);
    assert_int_equal(w->broker.end_count, 3);
}

/* 4096 bytes are kept: 85 records of 48, and the first. */
static void test_returns_of_a_drain_wait_for_room_too(void **state)
{
    struct world *w = *state;
    for (uint64_t n = 1; n <= 200; n++)
        fake_put_task(&w->broker, n);
    talk(w);
    w->broker.keeps = true;
    sel_holder_drain(w->holder);
    talk(w);
    assert_in_range(w->broker.end_count, 50, 100);
    w->broker.keeps = false;
    sel_session_settle(&w->broker.session, w->broker.session.in.arrived);
    talk(w);
    talk(w);
    assert_int_equal(w->broker.end_count, 202);
    assert_true(sel_holder_is_empty(w->holder));
}

static void test_an_end_that_the_broker_refuses_becomes_a_failure(void **state)
{
    struct world *w = *state;
    w->broker.keeps = true;
    give(w, 1);
    end(w, sel_holder_begin(w->holder));
    talk(w);
    struct sel_wire_error error = {.code = SEL_CODE_TOO_LARGE, .text = SEL_STR("no"), .at = 1};
    struct sel_buf frame = {0};
    sel_wire_encode_error(&error, &frame);
    sel_holder_receive(w->holder, sel_buf_str(&frame), w->now_us);
    sel_buf_done(&frame);
    talk(w);
    assert_int_equal(w->broker.end_count, 2);
    assert_int_equal(w->broker.ends[1].code, SEL_OUTCOME_FATAL);
    assert_memory_equal(w->broker.ends[1].payload,
                        "\x82\xa5"
                        "class\xabResultError",
                        19);
}

static void test_names_of_queues(void **state)
{
    struct world *w = *state;
    struct sel_wire_item item = {.type = SEL_RECORD_QUEUE,
                                 .priority = SEL_WIRE_PRIORITY,
                                 .queue = 3,
                                 .payload = SEL_STR("mail")};
    fake_put(&w->broker, &item);
    talk(w);
    assert_str_is(sel_holder_queue_name(w->holder, 3), "mail");
    assert_int_equal(sel_holder_queue_name(w->holder, 2).n, 0);
    assert_int_equal(sel_holder_queue_name(w->holder, 300).n, 0);
    w->broker.forgets = true;
    cut_and_join(w);
    assert_int_equal(sel_holder_queue_name(w->holder, 3).n, 0);
}

/* What is held takes the broker's credit of bytes; what has ended gives it back. */
static void test_bytes_are_credit_only_when_tasks_have_ended(void **state)
{
    struct world *w = *state;
    const struct sel_session *session = &sel_holder_peer(w->holder)->session;
    for (uint64_t n = 1; n <= 10; n++)
        give(w, n);
    assert_int_equal(session->in.held_records, 0);
    uint64_t held = session->in.held_bytes;
    assert_true(held >= 10 * SEL_WIRE_RECORD_SIZE);
    struct sel_held_task *task;
    while ((task = sel_holder_begin(w->holder)))
        end(w, task);
    talk(w);
    assert_int_equal(session->in.held_bytes, 0);
}

static void test_many_tasks_leave_nothing_behind(void **state)
{
    struct world *w = *state;
    uint64_t calls = 0;
    for (uint64_t n = 1; n <= 3000; n++) {
        fake_put_task(&w->broker, n);
        if (n % 30)
            continue;
        talk(w);
        struct sel_held_task *task;
        while ((task = sel_holder_begin(w->holder)))
            end(w, task);
        talk(w);
        if (n == 300)
            calls = sel_mem_alloc_count();
    }
    assert_int_equal(sel_mem_alloc_count() - calls, 0);
    assert_int_equal(w->broker.total, 3000);
    assert_true(sel_holder_is_empty(w->holder));
}

/* The table by id grows, and closes its gaps: what is held is found whatever went before. */
static void test_thousands_are_found_in_any_order(void **state)
{
    struct world *w = *state;
    enum { COUNT = 5000 };
    static struct sel_held_task *tasks[COUNT];
    struct sel_prng prng = {3};
    for (uint64_t n = 0; n < COUNT; n++)
        fake_put_task(&w->broker, n + 1);
    talk(w);
    for (uint32_t n = 0; n < COUNT; n++)
        tasks[n] = sel_holder_begin(w->holder);
    for (uint32_t n = COUNT; n > 1; n--) {
        uint32_t other = (uint32_t)sel_prng_below(&prng, n);
        struct sel_held_task *task = tasks[n - 1];
        tasks[n - 1] = tasks[other];
        tasks[other] = task;
    }
    for (uint32_t n = 0; n < COUNT; n++) {
        end(w, tasks[n]);
        if (n % 40 == 0)
            talk(w);
        if (n % 500 || n + 1 == COUNT)
            continue;
        struct sel_wire_item again = fake_task(tasks[n + 1]->id.lo, "T", SEL_STR("\xc0"));
        again.delivery = 1;
        fake_put(&w->broker, &again);
        talk(w);
        assert_null(sel_holder_begin(w->holder));
        assert_int_equal(tasks[n + 1]->delivery, 1);
    }
    talk(w);
    assert_true(sel_holder_is_empty(w->holder));
    assert_int_equal(w->broker.total, COUNT);
}

static int make_and_take(void *ctx)
{
    struct world *w = ctx;
    struct sel_holder *holder = NULL;
    struct sel_holder_options options = {.peer = {.role = SEL_ROLE_WORKER, .id = {3, 4}}};
    int r = sel_holder_new(&options, w->now_us, &holder);
    sel_holder_free(holder);
    return r;
}

static void test_shortage_of_memory_at_the_start(void **state)
{
    sel_test_each_alloc_fails(make_and_take, *state);
}

/* A task for which there is no memory is not in the next HELLO, so the broker gives it again. */
static void test_a_task_that_cannot_be_kept_breaks_the_connection(void **state)
{
    struct world *w = *state;
    fake_put_task(&w->broker, 1);
    assert_true(fake_say(&w->broker));
    sel_mem_fail_at(1);
    carry_to_worker(w);
    sel_mem_fail_at(0);
    assert_int_equal(sel_holder_peer(w->holder)->state, SEL_PEER_PAUSED);
    w->now_us += 10000000;
    talk(w);
    assert_int_equal(w->broker.held_count, 0);
    assert_int_equal(w->connects, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(hello_says_queues_slots_and_window),
        T(crashed_tasks_are_told_until_a_welcome),
        T(tasks_begin_oldest_first_and_their_ends_arrive),
        T(outcomes_as_records),
        T(runs_are_held_as_what_they_are),
        T(a_retry_that_does_not_count_says_so),
        T(what_is_held_is_told_when_the_connection_breaks),
        T(ends_come_again_in_a_new_session_until_they_are_settled),
        T(what_was_said_of_flows_is_dropped_with_the_session),
        T(a_try_that_comes_again_is_not_begun_twice),
        T(an_end_that_is_not_settled_is_said_for_the_new_delivery_too),
        T(a_try_that_comes_again_with_its_end_settled_is_returned),
        T(a_new_try_runs_beside_the_old_one),
        T(cancel),
        T(drain_returns_what_waits_and_takes_nothing_new),
        T(what_was_given_back_and_comes_again_is_begun),
        T(hello_says_what_it_was_told_to_stop),
        T(return_says_why),
        T(tasks_that_cannot_be_read_are_returned_or_failed),
        T(a_task_without_an_id_is_let_go),
        T(results_over_the_brokers_limit_are_refused_here),
        T(ends_wait_for_room),
        T(returns_of_a_drain_wait_for_room_too),
        T(an_end_that_the_broker_refuses_becomes_a_failure),
        T(names_of_queues),
        T(bytes_are_credit_only_when_tasks_have_ended),
        T(many_tasks_leave_nothing_behind),
        T(thousands_are_found_in_any_order),
        T(shortage_of_memory_at_the_start),
        T(a_task_that_cannot_be_kept_breaks_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
