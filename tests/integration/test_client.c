/* libselinon with a broker and a worker that are processes, and die. */
#include <errno.h>

#include <selinon/client.h>

#include "tests/support/server.h"

#define SECOND INT64_C(1000000)
#define LONG (60 * SECOND) /* never used up, unless something is wrong */
#define MANY 20000u
#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Nothing, import: trouble}\n"                                                       \
    "  - {name: Fails, import: trouble}\n"                                                         \
    "flows: []\n"

struct world {
    struct sel_test_folder folder;
    char endpoint[512];
    const char *journal;
    struct sel_test_server broker, worker;
    struct sel_client *client;
};

/* At a socket file, so that it comes back where it was. */
static void start_broker(struct world *w)
{
    const char *const argv[] = {SEL_TEST_BROKER, "--listen", w->endpoint, "--query", "ipc://query",
                                "--journal",     w->journal, "--lease",   "2s",      "--interval",
                                "10ms",          NULL};
    sel_test_server_run(&w->broker, &w->folder, ".broker", argv);
    sel_test_server_expect(&w->broker, "broker.ready");
}

static void start_worker(struct world *w)
{
    const char *const argv[] = {SEL_TEST_WORKER,
                                "-n",
                                "nodes.yaml",
                                "-b",
                                w->endpoint,
                                "-t",
                                "1",
                                "--module-path",
                                SEL_TEST_MODULES,
                                "--no-supervisor",
                                NULL};
    sel_test_server_run(&w->worker, &w->folder, ".worker", argv);
    sel_test_server_expect(&w->worker, "worker.session");
}

static struct sel_client *open_client(struct world *w)
{
    const char *endpoint = w->endpoint;
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    struct sel_client *client;
    char error[SEL_CLIENT_ERROR_SIZE];
    options.endpoints = &endpoint;
    options.endpoint_count = 1;
    if (sel_client_open(&options, &client, error) < 0)
        fail_msg("%s", error);
    assert_int_equal(sel_client_ready(client, LONG), 0);
    return client;
}

static void begin(struct world *w, const char *journal)
{
    memset(w, 0, sizeof(*w));
    sel_test_folder_init(&w->folder);
    (void)snprintf(w->endpoint, sizeof(w->endpoint), "ipc://%s/broker", w->folder.path);
    w->journal = journal;
    sel_test_write(&w->folder, "nodes.yaml", SEL_STR(NODES));
    start_broker(w);
    start_worker(w);
    w->client = open_client(w);
}

static void end(struct world *w)
{
    (void)sel_client_close(w->client, LONG);
    assert_int_equal(sel_test_server_end(&w->worker, SIGTERM), 0);
    assert_int_equal(sel_test_server_end(&w->broker, SIGTERM), 0);
    sel_test_server_done(&w->worker);
    sel_test_server_done(&w->broker);
    sel_test_folder_done(&w->folder);
}

static struct sel_client_task task_of(const char *name, uint64_t tag)
{
    return (struct sel_client_task){.name = {name, strlen(name)}, .tag = tag};
}

static struct sel_client_id submit(struct world *w, const struct sel_client_task *task)
{
    struct sel_client_id id;
    assert_int_equal(sel_client_submit(w->client, task, &id, LONG), 0);
    return id;
}

/* The next result, which must be alone and of this status. */
static void expect_one(struct sel_client *client, uint64_t tag, uint32_t status, uint32_t code)
{
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_next(client, &batch, LONG), 1);
    assert_int_equal(batch->results[0].tag, tag);
    if (batch->results[0].status != status)
        fail_msg("status %u, not %u: %.*s", batch->results[0].status, status,
                 (int)batch->results[0].payload.n, (const char *)batch->results[0].payload.p);
    assert_int_equal(batch->results[0].code, code);
    sel_client_batch_free(batch);
}

/* ---- many, while processes die ---- */

struct ledger {
    struct sel_client_id ids[MANY];
    uint8_t seen[MANY];
    uint32_t submitted, finished;
};

static void submit_some(struct world *w, struct ledger *ledger, uint32_t count, uint8_t level)
{
    static struct sel_client_task tasks[MANY];
    uint32_t first = ledger->submitted;
    assert_true(first + count <= MANY);
    for (uint32_t i = 0; i < count; i++) {
        tasks[i] = task_of("Nothing", first + i);
        tasks[i].level = level;
    }
    assert_int_equal(sel_client_submit_many(w->client, tasks, count, ledger->ids + first, LONG),
                     count);
    ledger->submitted += count;
}

/* Takes results until there were `count` of them; each must be the first of its task, and good. */
static void take_until(struct world *w, struct ledger *ledger, uint32_t count)
{
    struct sel_client_batch *batch;
    while (ledger->finished < count) {
        int64_t r = sel_client_next(w->client, &batch, LONG);
        if (r <= 0)
            fail_msg("%lld after %u of %u results", (long long)r, ledger->finished, count);
        for (uint32_t i = 0; i < batch->count; i++) {
            const struct sel_client_result *result = &batch->results[i];
            assert_true(result->tag < ledger->submitted);
            assert_int_equal(result->status, SEL_CLIENT_OK);
            assert_memory_equal(&result->id, &ledger->ids[result->tag], sizeof(result->id));
            assert_int_equal(ledger->seen[result->tag]++, 0);
            ledger->finished++;
        }
        sel_client_batch_free(batch);
    }
}

static void test_many_tasks_of_all_levels(void **state)
{
    (void)state;
    struct world w;
    static struct ledger ledger;
    memset(&ledger, 0, sizeof(ledger));
    begin(&w, "journal");
    for (uint8_t level = 0; level < 4; level++)
        submit_some(&w, &ledger, MANY / 4, level);
    take_until(&w, &ledger, MANY);
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_next(w.client, &batch, LONG), 0);
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    end(&w);
}

static void test_a_broker_that_is_killed_and_comes_back_loses_nothing(void **state)
{
    (void)state;
    struct world w;
    static struct ledger ledger;
    memset(&ledger, 0, sizeof(ledger));
    begin(&w, "journal");
    submit_some(&w, &ledger, MANY / 2, SEL_CLIENT_LEVEL_COMMIT);
    take_until(&w, &ledger, 100);
    assert_int_equal(sel_test_server_end(&w.broker, SIGKILL), -SIGKILL);
    sel_test_server_done(&w.broker);
    submit_some(&w, &ledger, MANY / 4, SEL_CLIENT_LEVEL_COMMIT); /* while there is none */
    start_broker(&w);
    submit_some(&w, &ledger, MANY / 4, SEL_CLIENT_LEVEL_COMMIT);
    take_until(&w, &ledger, MANY);
    struct sel_client_stats stats = {.size = sizeof(stats)};
    assert_int_equal(sel_client_get_stats(w.client, &stats), 0);
    assert_true(stats.sessions >= 2);
    assert_int_equal(stats.waiting, 0);
    end(&w);
}

static void test_a_worker_that_is_killed_is_stood_in_for(void **state)
{
    (void)state;
    struct world w;
    static struct ledger ledger;
    memset(&ledger, 0, sizeof(ledger));
    begin(&w, "none");
    submit_some(&w, &ledger, MANY, SEL_CLIENT_LEVEL_MEMORY);
    take_until(&w, &ledger, 1);
    assert_int_equal(sel_test_server_end(&w.worker, SIGKILL), -SIGKILL);
    sel_test_server_done(&w.worker);
    start_worker(&w);
    take_until(&w, &ledger, MANY);
    end(&w);
}

/* ---- one thing at a time ---- */

static void test_a_failure_is_told_with_its_class(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    const struct sel_client_task task = task_of("Fails", 1);
    (void)submit(&w, &task);
    struct sel_client_batch *batch;
    struct sel_bytes text;
    assert_int_equal(sel_client_next(w.client, &batch, LONG), 1);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_FAILED);
    assert_int_equal(sel_client_to_json(batch->results[0].payload, &text, NULL), 0);
    assert_non_null(strstr(text.p, "\"class\":"));
    sel_client_bytes_free(&text);
    sel_client_batch_free(batch);
    end(&w);
}

static void test_a_key_stands_for_one_task(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "journal");
    struct sel_client_task task = task_of("Nothing", 1);
    task.key = (struct sel_str){"order-17", 8};
    (void)submit(&w, &task);
    expect_one(w.client, 1, SEL_CLIENT_OK, 0);
    task.tag = 2; /* the same again: its result, another id */
    (void)submit(&w, &task);
    expect_one(w.client, 2, SEL_CLIENT_OK, 0);
    task.tag = 3;
    task.args = (struct sel_bytes){"\x01", 1};
    (void)submit(&w, &task);
    expect_one(w.client, 3, SEL_CLIENT_REFUSED, SEL_CLIENT_CODE_CONFLICT);
    end(&w);
}

static void test_what_waits_for_its_time_can_be_cancelled(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    struct sel_client_task task = task_of("Nothing", 1);
    task.countdown_us = 3600 * SECOND;
    struct sel_client_id id = submit(&w, &task);
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    assert_int_equal(sel_client_cancel(w.client, &id, LONG), 0);
    expect_one(w.client, 1, SEL_CLIENT_CANCELLED, 0);
    end(&w);
}

static int64_t mono_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static void test_a_countdown_is_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    struct sel_client_task task = task_of("Nothing", 1);
    task.countdown_us = 200000;
    int64_t begin_us = mono_us();
    (void)submit(&w, &task);
    expect_one(w.client, 1, SEL_CLIENT_OK, 0);
    assert_true(mono_us() - begin_us >= 200000);
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    task = task_of("Nothing", 2);
    task.not_before_unix_us = now.tv_sec * SECOND + now.tv_nsec / 1000 + 200000;
    begin_us = mono_us();
    (void)submit(&w, &task);
    expect_one(w.client, 2, SEL_CLIENT_OK, 0);
    assert_true(mono_us() - begin_us >= 190000); /* two clocks */
    end(&w);
}

static void test_another_client_watches(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    const struct sel_client_task task = task_of("Nothing", 1);
    struct sel_client_id id = submit(&w, &task);
    struct sel_client *other = open_client(&w);
    assert_int_equal(sel_client_watch(other, &id, 7, 0, LONG), 0);
    expect_one(other, 7, SEL_CLIENT_OK, 0);
    expect_one(w.client, 1, SEL_CLIENT_OK, 0);
    id.bytes[15] ^= 1;
    assert_int_equal(sel_client_watch(other, &id, 8, 0, LONG), 0);
    expect_one(other, 8, SEL_CLIENT_REFUSED, SEL_CLIENT_CODE_UNKNOWN_TASK);
    assert_int_equal(sel_client_close(other, LONG), 0);
    end(&w);
}

static void test_a_level_that_the_broker_does_not_have_is_refused(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    struct sel_client_task task = task_of("Nothing", 1);
    task.level = SEL_CLIENT_LEVEL_COMMIT;
    (void)submit(&w, &task);
    expect_one(w.client, 1, SEL_CLIENT_REFUSED, SEL_CLIENT_CODE_UNSUPPORTED);
    end(&w);
}

static uint32_t count_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_clients_come_and_go_without_a_trace(void **state)
{
    (void)state;
    struct world w;
    begin(&w, "none");
    const struct sel_client_task task = task_of("Nothing", 1);
    uint32_t before = count_descriptors();
    for (uint32_t i = 0; i < 40; i++) {
        struct sel_client *one = open_client(&w);
        struct sel_client_id id;
        assert_int_equal(sel_client_submit(one, &task, &id, LONG), 0);
        if (i % 2)
            expect_one(one, 1, SEL_CLIENT_OK, 0);
        assert_int_equal(sel_client_close(one, i % 3 ? LONG : 0) == -EINVAL, 0);
    }
    assert_true(count_descriptors() <= before + 8); /* ZeroMQ closes some when it comes to it */
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_tasks_of_all_levels),
        cmocka_unit_test(test_a_broker_that_is_killed_and_comes_back_loses_nothing),
        cmocka_unit_test(test_a_worker_that_is_killed_is_stood_in_for),
        cmocka_unit_test(test_a_failure_is_told_with_its_class),
        cmocka_unit_test(test_a_key_stands_for_one_task),
        cmocka_unit_test(test_what_waits_for_its_time_can_be_cancelled),
        cmocka_unit_test(test_a_countdown_is_kept),
        cmocka_unit_test(test_another_client_watches),
        cmocka_unit_test(test_a_level_that_the_broker_does_not_have_is_refused),
        cmocka_unit_test(test_clients_come_and_go_without_a_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
