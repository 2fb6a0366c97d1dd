/* The threads of a worker against a ROUTER: link, heartbeat, drain. */
#include "tests/support/test.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "core/compile.h"
#include "tests/support/fake_broker.h"
#include "tests/support/program.h"
#include "worker/module.h"
#include "worker/process.h"

#define SESSIONS 2u
#define LIMIT_MS 20000 /* a test that waits longer has failed */

static const char nodes[] = "tasks:\n"
                            "  - {name: Nothing, import: worker_tasks}\n"
                            "  - {name: Echo, import: worker_tasks}\n"
                            "  - {name: Sleeps, import: worker_tasks}\n"
                            "  - {name: Computes, import: worker_tasks}\n"
                            "  - {name: Elsewhere, import: worker_tasks, classname: Echo, "
                            "queue: elsewhere}\n"
                            "flows: [idle]\n";
/* Its task is run by nobody here. */
static const char flows[] = "flow-definitions:\n"
                            "  - name: idle\n"
                            "    queue: deciders\n"
                            "    edges: [{from: null, to: Nothing}]\n";

struct session {
    struct fake_broker fake;
    char routing[16];
    size_t routing_size;
    uint64_t beats;
    struct sel_wire_beat beat; /* the last */
    uint64_t turns_before;     /* of the beat before */
};

struct world {
    struct sel_test_folder folder;
    char endpoint[300];
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_modules *modules;
    const char *broker;
    struct sel_worker_process_options options;
    struct sel_worker_process *process;
    void *zmq, *router;
    struct session *sessions; /* by thread */
    bool refuses;
};

/* ---- the broker ---- */

static void listen_there(struct world *w)
{
    int zero = 0;
    w->router = zmq_socket(w->zmq, ZMQ_ROUTER);
    assert_non_null(w->router);
    assert_return_code(zmq_setsockopt(w->router, ZMQ_LINGER, &zero, sizeof(zero)), zmq_errno());
    assert_return_code(zmq_bind(w->router, w->endpoint), zmq_errno());
}

static void hang_up(struct world *w)
{
    if (w->router)
        assert_return_code(zmq_close(w->router), zmq_errno());
    w->router = NULL;
}

static void answer(struct world *w, const struct session *s, const struct sel_buf *frame)
{
    assert_true(zmq_send(w->router, s->routing, s->routing_size, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(w->router, frame->p, frame->n, 0) >= 0);
}

static struct session *session_of_id(struct world *w, struct sel_id id)
{
    uint64_t thread = id.lo ^ w->options.id.lo;
    assert_true(thread < SESSIONS && id.hi == w->options.id.hi);
    return &w->sessions[thread];
}

static void refuse(struct world *w, const struct session *s, struct sel_str frame)
{
    struct sel_arena arena = {0};
    struct sel_wire_hello hello;
    struct sel_buf buf = {0};
    assert_ok(sel_wire_decode_hello(&arena, frame, &hello, NULL));
    struct sel_wire_error error = {
        .code = SEL_CODE_ILLEGAL, .text = SEL_STR("go away"), .n = hello.n};
    sel_wire_encode_error(&error, &buf);
    answer(w, s, &buf);
    sel_buf_done(&buf);
    sel_arena_done(&arena);
}

static void take_beat(struct world *w, struct sel_str frame)
{
    struct sel_wire_beat beat;
    assert_ok(sel_wire_decode_beat(frame, &beat, NULL));
    struct session *s = session_of_id(w, beat.peer);
    assert_true(beat.count > s->beat.count);
    assert_int_equal(beat.incarnation, w->options.incarnation);
    s->turns_before = s->beat.turns;
    s->beat = beat;
    s->beats++;
}

/* A HELLO tells whose connection it is; what else comes on it belongs there. */
static struct session *session_of(struct world *w, struct sel_str routing, struct sel_str frame)
{
    if (sel_wire_message_type(frame, NULL) == SEL_MESSAGE_HELLO) {
        struct sel_arena arena = {0};
        struct sel_wire_hello hello;
        assert_ok(sel_wire_decode_hello(&arena, frame, &hello, NULL));
        struct session *s = session_of_id(w, hello.peer);
        sel_arena_done(&arena);
        assert_true(routing.n <= sizeof(s->routing));
        memcpy(s->routing, routing.p, routing.n);
        s->routing_size = routing.n;
        return s;
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct session *s = &w->sessions[i];
        if (s->routing_size == routing.n && memcmp(s->routing, routing.p, routing.n) == 0)
            return s;
    }
    return NULL;
}

static void take_frame(struct world *w, struct sel_str routing, struct sel_str frame)
{
    if (sel_wire_message_type(frame, NULL) == SEL_MESSAGE_BEAT) {
        take_beat(w, frame);
        return;
    }
    struct session *s = session_of(w, routing, frame);
    if (!s) /* of a connection to the broker before */
        return;
    if (w->refuses) {
        refuse(w, s, frame);
        return;
    }
    fake_receive(&s->fake, frame);
    if (s->fake.answer.n)
        answer(w, s, &s->fake.answer);
}

static bool take_message(struct world *w)
{
    zmq_msg_t routing, frame;
    (void)zmq_msg_init(&routing);
    (void)zmq_msg_init(&frame);
    bool came = zmq_msg_recv(&routing, w->router, ZMQ_DONTWAIT) >= 0;
    if (came) {
        assert_true(zmq_msg_recv(&frame, w->router, 0) >= 0);
        assert_false(zmq_msg_more(&frame));
        take_frame(w, (struct sel_str){zmq_msg_data(&routing), zmq_msg_size(&routing)},
                   (struct sel_str){zmq_msg_data(&frame), zmq_msg_size(&frame)});
    }
    (void)zmq_msg_close(&routing);
    (void)zmq_msg_close(&frame);
    return came;
}

static void speak(struct world *w)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct session *s = &w->sessions[i];
        while (s->fake.session.is_open && fake_say(&s->fake))
            answer(w, s, &s->fake.answer);
    }
}

static int64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Is the broker until something holds. */
static void serve_until(struct world *w, bool (*is_enough)(struct world *w))
{
    int64_t end_ms = clock_ms() + LIMIT_MS;
    while (!is_enough(w)) {
        if (clock_ms() > end_ms)
            fail_msg("this takes too long");
        if (!w->router)
            continue;
        zmq_pollitem_t items[] = {
            {.socket = w->router, .events = ZMQ_POLLIN},
            {.fd = w->process ? sel_worker_process_fd(w->process) : -1, .events = ZMQ_POLLIN}};
        (void)zmq_poll(items, w->process ? 2 : 1, 20);
        while (take_message(w))
            ;
        speak(w);
    }
}

/* ---- the worker ---- */

static void compile(struct world *w)
{
    static struct sel_predicate_world world;
    struct sel_source flow = {.file = "flows.yaml", .text = {flows, sizeof(flows) - 1}};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml", .text = {nodes, sizeof(nodes) - 1}},
        .flows = &flow,
        .flow_count = 1,
        .world = &world};
    sel_diag_init(&w->diag, &w->arena);
    if (sel_compile(&options, &w->diag, &w->system) < 0)
        fail_msg("%s", w->diag.first->text);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->sessions = calloc(SESSIONS, sizeof(*w->sessions));
    sel_test_folder_init(&w->folder);
    (void)snprintf(w->endpoint, sizeof(w->endpoint), "ipc://%s/s", w->folder.path);
    compile(w);
    w->modules = sel_modules_new(SEL_TEST_MODULES);
    w->zmq = zmq_ctx_new();
    for (uint32_t i = 0; i < SESSIONS; i++) {
        fake_init(&w->sessions[i].fake);
    }
    w->broker = w->endpoint;
    w->options = (struct sel_worker_process_options){
        .system = w->system,
        .modules = w->modules,
        .brokers = &w->broker,
        .broker_count = 1,
        .threads = SESSIONS,
        .slots = 16,
        .window = 64,
        .name = "w",
        .id = {0x1234, 0xabcd00},
        .incarnation = 3,
        .log = {.fd = open("/dev/null", O_WRONLY | O_CLOEXEC), .level = SEL_LOG_DEBUG}};
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    if (w->process && sel_worker_process_end(w->process) == SEL_WORKER_RUNS) { /* a failed test */
        sel_worker_process_drain(w->process, 0);
        (void)sel_worker_process_wait(w->process, INT64_MAX);
    }
    w->process = sel_worker_process_free(w->process);
    hang_up(w);
    (void)zmq_ctx_term(w->zmq);
    sel_modules_free(w->modules);
    sel_system_free(w->system);
    sel_arena_done(&w->arena);
    for (uint32_t i = 0; i < SESSIONS; i++)
        fake_done(&w->sessions[i].fake);
    sel_test_folder_done(&w->folder);
    (void)close(w->options.log.fd);
    free(w->sessions);
    free(w);
    return 0;
}

static void start(struct world *w)
{
    struct sel_error err = {0};
    if (sel_worker_process_start(&w->options, &w->process, &err) < 0)
        fail_msg("%s", err.text);
}

static bool all_open(struct world *w)
{
    bool is_open = true;
    for (uint32_t i = 0; i < SESSIONS; i++) /* its DATA right after WELCOME brings credit */
        is_open = is_open && w->sessions[i].fake.session.is_open &&
                  w->sessions[i].fake.session.out.credit_records > 0;
    return is_open;
}

static bool has_ended(struct world *w)
{
    return sel_worker_process_end(w->process) != SEL_WORKER_RUNS;
}

static bool all_left(struct world *w)
{
    bool has_left = true;
    for (uint32_t i = 0; i < SESSIONS; i++)
        has_left = has_left && w->sessions[i].fake.has_left;
    return has_left;
}

static uint64_t records_of(const struct world *w)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SESSIONS; i++)
        sum += w->sessions[i].fake.total;
    return sum;
}

/* Drains and looks at what it counted. */
static void end_well(struct world *w, uint64_t succeeded)
{
    struct sel_worker_process_stats stats;
    sel_worker_process_drain(w->process, 10000000);
    serve_until(w, has_ended);
    assert_int_equal(sel_worker_process_end(w->process), SEL_WORKER_DRAINED);
    sel_worker_process_get_stats(w->process, &stats);
    assert_int_equal(stats.bare.succeeded, succeeded);
    assert_int_equal(stats.link.missed, 0);
}

/* ---- tests ---- */

static void test_each_thread_has_a_session_of_its_own(void **state)
{
    struct world *w = *state;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        const struct sel_wire_hello *hello = &w->sessions[i].fake.hello;
        assert_int_equal(hello->incarnation, 3);
        assert_int_equal(hello->slots, 16);
        assert_int_equal(hello->window, 64);
        assert_int_equal(hello->queue_count, 2); /* celery, elsewhere */
        assert_int_equal(hello->config_digest.n, 16);
    }
    end_well(w, 0);
    serve_until(w, all_left);
}

static bool has_one(struct world *w)
{
    return records_of(w) >= 1;
}

static void test_some_threads_decide_and_others_run(void **state)
{
    struct world *w = *state;
    w->options.threads = 1;
    w->options.dispatchers = 1;
    w->options.flows = 7;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    const struct sel_wire_hello *runs = &w->sessions[0].fake.hello;
    const struct sel_wire_hello *decides = &w->sessions[1].fake.hello;
    assert_int_equal(runs->slots, 16);
    assert_int_equal(runs->flows, 0);
    assert_int_equal(decides->slots, 0);
    assert_int_equal(decides->window, 0);
    assert_int_equal(decides->flows, 7);
    assert_int_equal(decides->queue_count, 3); /* celery, elsewhere, deciders */
    struct sel_wire_item item = fake_task(1, "Nothing", SEL_STR("\xc0"));
    fake_put(&w->sessions[0].fake, &item);
    serve_until(w, has_one);
    end_well(w, 1);
    serve_until(w, all_left);
}

static void test_threads_do_both_unless_they_are_told_otherwise(void **state)
{
    struct world *w = *state;
    w->options.flows = 7;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(w->sessions[i].fake.hello.slots, 16);
        assert_int_equal(w->sessions[i].fake.hello.flows, 7);
    }
    end_well(w, 0);
}

/* A flow that is here when the end begins goes back, and so does one that comes after. */
static void test_a_drain_returns_flows(void **state)
{
    struct world *w = *state;
    w->options.flows = 7;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    for (uint64_t n = 1; n <= 2; n++) {
        struct sel_wire_item item = fake_task(n, n == 1 ? "idle" : "nobody", SEL_STR("\xc0"));
        item.flags = SEL_ITEM_FLOW;
        fake_put(&w->sessions[0].fake, &item);
    }
    serve_until(w, has_one); /* the unknown one; or the other's first DECIDE */
    end_well(w, 0);
    const struct fake_broker *fake = &w->sessions[0].fake;
    uint32_t unknown = 0, drained = 0;
    for (uint32_t i = 0; i < fake->end_count; i++) {
        const struct fake_end *end = &fake->ends[i];
        unknown += end->type == SEL_RECORD_RETURN && end->id.lo == 2 &&
                   end->code == SEL_RETURN_UNKNOWN_TASK;
        drained +=
            end->type == SEL_RECORD_RETURN && end->id.lo == 1 && end->code == SEL_RETURN_NOT_BEGUN;
    }
    assert_int_equal(unknown, 1);
    assert_int_equal(drained, 1);
}

static bool has_2000(struct world *w)
{
    return records_of(w) >= 2000;
}

static void test_many_tasks_go_through_and_none_is_missed(void **state)
{
    struct world *w = *state;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    for (uint64_t n = 1; n <= 1000; n++) {
        fake_put_task(&w->sessions[0].fake, n);
        struct sel_wire_item item = fake_task(n, n % 100 ? "Nothing" : "Echo", SEL_STR("\x05"));
        fake_put(&w->sessions[1].fake, &item);
    }
    serve_until(w, has_2000); /* "T" is not known: 1000 of them come back */
    end_well(w, 1000);
    assert_int_equal(w->sessions[0].fake.ends[0].type, SEL_RECORD_RETURN);
}

/* One at a time: each must wake the sleeping loop. */
static void test_single_tasks_wake_the_loop(void **state)
{
    struct world *w = *state;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    int64_t begin_ms = clock_ms();
    for (uint64_t n = 1; n <= 100; n++) {
        struct sel_wire_item item = fake_task(n, "Nothing", SEL_STR("\xc0"));
        fake_put(&w->sessions[0].fake, &item);
        w->sessions[0].fake.total = 0;
        serve_until(w, has_one);
    }
    assert_true(clock_ms() - begin_ms < 10000); /* the tick would need 100 s */
    end_well(w, 100);
}

/* Often, but not so often that a busy machine is taken for a dead one. */
static void beat_often(struct world *w)
{
    for (uint32_t i = 0; i < SESSIONS; i++)
        w->sessions[i].fake.beat_us = 100000;
}

static bool has_four_beats(struct world *w)
{
    return w->sessions[0].beats >= 4 && w->sessions[1].beats >= 4;
}

static void test_the_heart_beats_while_a_task_holds_the_loop(void **state)
{
    struct world *w = *state;
    struct sel_buf args = {0};
    struct sel_value value = sel_test_json(&w->arena, "{\"seconds\": 1.5}");
    sel_value_encode(&value, &args);
    beat_often(w);
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    struct sel_wire_item item = fake_task(1, "Computes", sel_buf_str(&args));
    fake_put(&w->sessions[0].fake, &item);
    speak(w);
    w->sessions[0].beats = w->sessions[1].beats = 0;
    serve_until(w, has_four_beats);
    assert_int_equal(records_of(w), 0);
    assert_int_equal(w->sessions[0].beat.turns, w->sessions[0].turns_before); /* it is held up */
    assert_true(w->sessions[1].beat.turns > w->sessions[1].turns_before);     /* this one sleeps */
    assert_int_equal(w->sessions[0].beat.progress.n, 16);
    serve_until(w, has_one);
    end_well(w, 1);
    sel_buf_done(&args);
}

static void test_a_broker_that_comes_back_is_told_what_is_held(void **state)
{
    struct world *w = *state;
    struct sel_buf args = {0};
    struct sel_value value = sel_test_json(&w->arena, "{\"seconds\": 60}");
    sel_value_encode(&value, &args);
    beat_often(w);
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    struct sel_wire_item item = fake_task(1, "Sleeps", sel_buf_str(&args));
    fake_put(&w->sessions[0].fake, &item);
    speak(w);
    serve_until(w, has_four_beats);
    hang_up(w);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        w->sessions[i].fake.forgets = true;
        w->sessions[i].routing_size = 0;
        sel_session_suspend(&w->sessions[i].fake.session);
    }
    listen_there(w);
    serve_until(w, all_open);
    assert_int_equal(w->sessions[0].fake.held_count, 1);
    assert_int_equal(w->sessions[0].fake.held[0].id.lo, 1);
    assert_int_equal(w->sessions[1].fake.held_count, 0);
    item = (struct sel_wire_item){
        .type = SEL_RECORD_CANCEL, .id = {7, 1}, .priority = SEL_WIRE_PRIORITY, .handle = 1001};
    fake_put(&w->sessions[0].fake, &item);
    serve_until(w, has_one);
    assert_int_equal(w->sessions[0].fake.ends[0].type, SEL_RECORD_CANCELLED);
    end_well(w, 0);
    sel_buf_done(&args);
}

static void test_what_runs_too_long_is_cancelled_and_returned(void **state)
{
    struct world *w = *state;
    struct sel_buf args = {0};
    struct sel_value value = sel_test_json(&w->arena, "{\"seconds\": 60}");
    sel_value_encode(&value, &args);
    beat_often(w);
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    struct sel_wire_item item = fake_task(1, "Sleeps", sel_buf_str(&args));
    fake_put(&w->sessions[0].fake, &item);
    speak(w);
    serve_until(w, has_four_beats); /* it has begun meanwhile */
    sel_worker_process_drain(w->process, 20000);
    serve_until(w, has_ended);
    assert_int_equal(sel_worker_process_end(w->process), SEL_WORKER_DRAINED);
    const struct fake_broker *fake = &w->sessions[0].fake;
    assert_int_equal(fake->ends[fake->end_count - 1].type, SEL_RECORD_RETURN);
    sel_buf_done(&args);
}

static void test_a_worker_without_a_broker_ends_at_once(void **state)
{
    struct world *w = *state;
    start(w);
    sel_worker_process_drain(w->process, 10000000);
    assert_int_equal(sel_worker_process_wait(w->process, 10000000), SEL_WORKER_DRAINED);
}

static void test_a_refusal_ends_the_worker(void **state)
{
    struct world *w = *state;
    w->refuses = true;
    listen_there(w);
    start(w);
    serve_until(w, has_ended);
    assert_int_equal(sel_worker_process_end(w->process), SEL_WORKER_REFUSED);
}

static void test_queues_may_be_chosen(void **state)
{
    struct world *w = *state;
    static const char *const queues[] = {"elsewhere", "x", "elsewhere"};
    w->options.queues = queues;
    w->options.queue_count = 3;
    listen_there(w);
    start(w);
    serve_until(w, all_open);
    assert_int_equal(w->sessions[0].fake.hello.queue_count, 2);
    end_well(w, 0);
}

static void test_what_is_wrong_shows_at_the_start(void **state)
{
    struct world *w = *state;
    static const char *const bad_queue[] = {""};
    static const char *const none[] = {"nowhere://x"};
    struct sel_error err = {0};
    struct sel_worker_process_options options = w->options;
    options.queues = bad_queue;
    options.queue_count = 1;
    assert_code(sel_worker_process_start(&options, &w->process, &err), SEL_ECONFIG);
    assert_non_null(strstr(err.text, "no name of a queue"));
    options = w->options;
    options.brokers = none;
    assert_true(sel_worker_process_start(&options, &w->process, &err) < 0);
    assert_non_null(strstr(err.text, "'nowhere://x' is no endpoint"));
    options = w->options;
    struct sel_modules *no_modules = sel_modules_new("/nowhere");
    options.modules = no_modules;
    assert_code(sel_worker_process_start(&options, &w->process, &err), SEL_ENOTFOUND);
    assert_int_equal(err.pos.line, 2);
    sel_modules_free(no_modules);
    assert_null(w->process);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(each_thread_has_a_session_of_its_own),
        T(some_threads_decide_and_others_run),
        T(threads_do_both_unless_they_are_told_otherwise),
        T(a_drain_returns_flows),
        T(many_tasks_go_through_and_none_is_missed),
        T(single_tasks_wake_the_loop),
        T(the_heart_beats_while_a_task_holds_the_loop),
        T(a_broker_that_comes_back_is_told_what_is_held),
        T(what_runs_too_long_is_cancelled_and_returned),
        T(a_worker_without_a_broker_ends_at_once),
        T(a_refusal_ends_the_worker),
        T(queues_may_be_chosen),
        T(what_is_wrong_shows_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
