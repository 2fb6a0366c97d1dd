/* selinon-worker as an operator runs it: with a broker, killed, drained, and with tasks that end
 * the process. */
#include "tests/support/server.h"

#include <selinon/client.h>

#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Nothing, import: worker_tasks}\n"                                                  \
    "  - {name: Sleeps, import: worker_tasks}\n"                                                   \
    "  - {name: Computes, import: worker_tasks}\n"                                                 \
    "  - {name: Blocks, import: worker_tasks, classname: Aborts, blocking: true}\n"                \
    "  - {name: Overflows, import: worker_tasks}\n"                                                \
    "  - {name: Aborts, import: worker_tasks}\n"                                                   \
    "  - {name: Leaves, import: worker_tasks}\n"                                                   \
    "  - {name: Cat, import: exec, command: [cat]}\n"                                              \
    "flows: []\n"
#define MANY (100000u / SEL_TEST_PART / 4000 * 4000) /* so that a half is whole batches too */
#define LIMIT_US (INT64_C(60) * 1000000)

struct world {
    struct sel_test_folder folder;
    char endpoint[512];
    struct sel_test_server broker, worker;
    struct sel_client *client;
    uint8_t *ended; /* by tag: how often */
    uint32_t ok, failed;
    char last_failure[512]; /* as JSON */
};

static void start_broker(struct world *w)
{
    const char *const argv[] = {SEL_TEST_BROKER, "--listen", w->endpoint, "--query", "ipc://query",
                                "--journal",     "journal",  "--lease",   "3s",      NULL};
    sel_test_server_run(&w->broker, &w->folder, ".broker", argv);
    sel_test_server_expect(&w->broker, "broker.ready");
}

static void start_worker(struct world *w, struct sel_test_server *worker, const char *log,
                         const char *const *more)
{
    const char *argv[32] = {SEL_TEST_WORKER, "-n", "nodes.yaml", "-b",
                            w->endpoint,     "-t", "2",          "--module-path",
                            SEL_TEST_MODULES};
    size_t count = 9;
    for (; more && *more; more++)
        argv[count++] = *more;
    sel_test_server_run(worker, &w->folder, log, argv);
    sel_test_server_expect(worker, "worker.session");
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    sel_test_folder_init(&w->folder);
    (void)snprintf(w->endpoint, sizeof(w->endpoint), "ipc://%s/broker", w->folder.path);
    sel_test_write(&w->folder, "nodes.yaml", SEL_STR(NODES));
    start_broker(w);
    const char *endpoint = w->endpoint;
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    options.endpoints = &endpoint;
    options.endpoint_count = 1;
    char error[SEL_CLIENT_ERROR_SIZE];
    if (sel_client_open(&options, &w->client, error) < 0)
        fail_msg("%s", error);
    w->ended = calloc(MANY + 1, 1);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    (void)sel_client_close(w->client, 0);
    sel_test_server_done(&w->worker);
    assert_int_equal(sel_test_server_end(&w->broker, SIGTERM), 0);
    sel_test_server_done(&w->broker);
    sel_test_folder_done(&w->folder);
    free(w->ended);
    free(w);
    return 0;
}

/* ---- tasks and results ---- */

static void submit(struct world *w, const char *name, const char *json, uint64_t tag)
{
    struct sel_bytes args = {0};
    char error[SEL_CLIENT_ERROR_SIZE];
    if (sel_client_from_json(json, strlen(json), &args, error) < 0)
        fail_msg("%s", error);
    struct sel_client_task task = {.name = sel_str_c(name), .args = args, .tag = tag};
    assert_int_equal(sel_client_submit(w->client, &task, NULL, LIMIT_US), 0);
    sel_client_bytes_free(&args);
}

static void submit_many(struct world *w, uint32_t count)
{
    static struct sel_client_task tasks[1000];
    for (uint32_t at = 0; at < count; at += SEL_COUNT(tasks)) {
        for (uint32_t i = 0; i < SEL_COUNT(tasks); i++)
            tasks[i] = (struct sel_client_task){.name = SEL_STR("Nothing"), .tag = at + i};
        assert_int_equal(sel_client_submit_many(w->client, tasks, SEL_COUNT(tasks), NULL, LIMIT_US),
                         SEL_COUNT(tasks));
    }
}

static void take(struct world *w, const struct sel_client_result *result)
{
    struct sel_bytes text;
    assert_true(result->tag <= MANY);
    assert_int_equal(++w->ended[result->tag], 1); /* one final result */
    if (result->status == SEL_CLIENT_OK) {
        w->ok++;
        return;
    }
    w->failed++;
    assert_int_equal(result->status, SEL_CLIENT_FAILED);
    assert_int_equal(sel_client_to_json(result->payload, &text, NULL), 0);
    (void)snprintf(w->last_failure, sizeof(w->last_failure), "%.*s", (int)text.n,
                   (const char *)text.p);
    sel_client_bytes_free(&text);
}

static void take_until(struct world *w, uint32_t count)
{
    while (w->ok + w->failed < count) {
        struct sel_client_batch *batch;
        int64_t n = sel_client_next(w->client, &batch, LIMIT_US);
        if (n <= 0)
            fail_msg("%lld after %u results: %s", (long long)n, w->ok + w->failed,
                     sel_test_server_log(&w->worker));
        for (uint32_t i = 0; i < batch->count; i++)
            take(w, &batch->results[i]);
        sel_client_batch_free(batch);
    }
}

/* The worker process, whose parent is the supervisor that the test started. */
static pid_t worker_process(const struct world *w)
{
    char path[64], line[64] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)w->worker.pid,
                   (int)w->worker.pid);
    for (int i = 0; i < SEL_TEST_SERVER_WAIT_MS / 5; i++, sel_test_pause()) {
        FILE *file = fopen(path, "r");
        char *got = file ? fgets(line, sizeof(line), file) : NULL;
        if (file)
            (void)fclose(file);
        if (got && strtol(line, NULL, 10) > 0)
            return (pid_t)strtol(line, NULL, 10);
    }
    fail_msg("there is no worker process");
    return -1;
}

static void end_worker(struct world *w, int status)
{
    assert_int_equal(sel_test_server_end(&w->worker, SIGTERM), status);
    if (status == 0)
        assert_non_null(strstr(sel_test_server_log(&w->worker), "missed=0"));
}

static void expect_failure(const struct world *w, const char *error_class)
{
    char key[128];
    (void)snprintf(key, sizeof(key), "\"class\":\"%s\"", error_class);
    char *compact = strdup(w->last_failure); /* with or without spaces */
    size_t n = 0;
    for (size_t i = 0; compact[i]; i++) {
        if (compact[i] != ' ')
            compact[n++] = compact[i];
    }
    compact[n] = '\0';
    if (!strstr(compact, key))
        fail_msg("%s is not in %s", key, compact);
    free(compact);
}

/* ---- tests ---- */

static void test_many_tasks_and_a_drain(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    submit_many(w, MANY);
    take_until(w, MANY);
    assert_int_equal(w->ok, MANY);
    end_worker(w, 0);
    char succeeded[32];
    (void)snprintf(succeeded, sizeof(succeeded), "succeeded=%u", MANY);
    assert_non_null(strstr(sel_test_server_log(&w->worker), succeeded));
}

static void test_a_worker_that_is_killed_loses_nothing(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    submit_many(w, MANY);
    for (uint32_t i = 1; i <= 2; i++) {
        take_until(w, i * MANY / 4);
        assert_int_equal(kill(worker_process(w), SIGKILL), 0);
        sel_test_server_expect(&w->worker, i == 1 ? "incarnation=2" : "incarnation=3");
    }
    take_until(w, MANY);
    assert_int_equal(w->ok, MANY);
    assert_non_null(strstr(sel_test_server_log(&w->worker), "supervisor.died"));
    end_worker(w, 0);
}

static void test_a_broker_that_is_killed_loses_nothing(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    submit_many(w, MANY / 2);
    assert_int_equal(sel_client_flush(w->client, LIMIT_US), 0);
    assert_int_equal(sel_test_server_end(&w->broker, SIGKILL), -SIGKILL);
    sel_test_server_done(&w->broker);
    start_broker(w);
    take_until(w, MANY / 2);
    assert_int_equal(w->ok, MANY / 2);
    end_worker(w, 0);
}

static void test_a_drain_lets_tasks_end_and_hands_the_others_on(void **state)
{
    struct world *w = *state;
    struct sel_test_server second;
    static const char *const few_slots[] = {"--slots", "4", "--window", "32", NULL};
    start_worker(w, &w->worker, ".worker", few_slots);
    for (uint64_t i = 0; i < 40; i++)
        submit(w, "Sleeps", "{\"seconds\": 0.3}", i);
    take_until(w, 8); /* so the next eight run, and more wait there */
    assert_int_equal(kill(w->worker.pid, SIGTERM), 0);
    sel_test_server_expect(&w->worker, "worker.drain");
    start_worker(w, &second, ".second", NULL);
    take_until(w, 40);
    assert_int_equal(w->ok, 40);
    assert_int_equal(sel_test_server_wait(&w->worker), 0);
    const char *log = sel_test_server_log(&w->worker);
    assert_non_null(strstr(log, "drained"));
    assert_null(strstr(log, "returned=0 "));
    assert_int_equal(sel_test_server_end(&second, SIGTERM), 0);
    sel_test_server_done(&second);
}

static void test_what_runs_too_long_is_cancelled_and_given_to_others(void **state)
{
    struct world *w = *state;
    static const char *const short_drain[] = {"--drain-timeout", "0.1", NULL};
    start_worker(w, &w->worker, ".worker", short_drain);
    submit(w, "Nothing", "null", 0);
    take_until(w, 1);
    submit(w, "Sleeps", "{\"seconds\": 2}", 1);
    submit(w, "Nothing", "null", 2);
    take_until(w, 2); /* the other one is here too, then */
    end_worker(w, 0);
    assert_non_null(strstr(sel_test_server_log(&w->worker), "worker.cancel"));
    sel_test_server_done(&w->worker);
    start_worker(w, &w->worker, ".worker", NULL);
    take_until(w, 3);
    assert_int_equal(w->ok, 3);
    end_worker(w, 0);
}

static void test_a_second_signal_ends_it_at_once(void **state)
{
    struct world *w = *state;
    static const char *const options[] = {"--no-supervisor", NULL};
    start_worker(w, &w->worker, ".worker", options);
    submit(w, "Sleeps", "{\"seconds\": 60}", 0);
    submit(w, "Nothing", "null", 1);
    take_until(w, 1);
    assert_int_equal(kill(w->worker.pid, SIGINT), 0);
    sel_test_server_expect(&w->worker, "worker.drain");
    end_worker(w, 3);
}

static void test_a_stack_overflow_fails_its_task_alone(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    submit(w, "Sleeps", "{\"seconds\": 0.5}", 0);
    submit(w, "Overflows", "null", 1);
    take_until(w, 2);
    assert_int_equal(w->ok, 1);
    expect_failure(w, "StackOverflow");
    assert_non_null(strstr(sel_test_server_log(&w->worker), "stack overflow"));
    end_worker(w, 0);
}

/* By a signal, on a thread of the pool, and by an exit with status 0. */
static void test_a_task_that_crashes_again_and_again_fails(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"Aborts", "Blocks", "Leaves"};
    for (uint32_t i = 0; i < SEL_COUNT(names); i++) {
        start_worker(w, &w->worker, ".worker", NULL); /* each time, as its pauses grow */
        submit(w, names[i], "null", 2 * i);
        take_until(w, 2 * i + 1);
        expect_failure(w, "WorkerLost");
        submit(w, "Nothing", "null", 2 * i + 1);
        take_until(w, 2 * i + 2);
        assert_int_equal(w->ok, i + 1);
        end_worker(w, 0);
        sel_test_server_done(&w->worker);
    }
}

static void test_executables_and_long_computations(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    submit(w, "Computes", "{\"seconds\": 7}", 0); /* longer than the lease */
    for (uint64_t i = 1; i <= 20; i++)
        submit(w, "Cat", "null", i);
    take_until(w, 21);
    assert_int_equal(w->ok, 21);
    end_worker(w, 0);
}

static void test_a_supervisor_that_is_killed_lets_its_worker_drain(void **state)
{
    struct world *w = *state;
    start_worker(w, &w->worker, ".worker", NULL);
    (void)worker_process(w);
    assert_int_equal(sel_test_server_end(&w->worker, SIGKILL), -SIGKILL);
    sel_test_server_expect(&w->broker, "session.goodbye");
}

static void test_what_is_wrong_is_told_with_its_place(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *nodes;
        const char *args[4];
        int status;
        const char *text;
    } cases[] = {
        {"tasks:\n  - {name: A, import: nowhere}\nflows: []\n",
         {"-n", "n.yaml", NULL},
         1,
         "n.yaml:2:"},
        {"tasks: 7\n", {"-n", "n.yaml", NULL}, 1, "n.yaml:1:8: error:"},
        {"flows: []\n", {"-n", "absent.yaml", NULL}, 1, "absent.yaml: "},
        {"flows: []\n", {"--quark", NULL}, 2, "there is no option '--quark'"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        const char *argv[8] = {SEL_TEST_WORKER};
        for (size_t k = 0; cases[i].args[k]; k++)
            argv[1 + k] = cases[i].args[k];
        sel_test_write(&w->folder, "n.yaml", sel_str_c(cases[i].nodes));
        sel_test_run(&run, &w->folder, argv, NULL);
        if (run.status != cases[i].status || !strstr(run.err, cases[i].text))
            fail_msg("status %d, '%s' is not in '%s'", run.status, cases[i].text, run.err);
        sel_test_run_done(&run);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(many_tasks_and_a_drain),
        T(a_worker_that_is_killed_loses_nothing),
        T(a_broker_that_is_killed_loses_nothing),
        T(a_drain_lets_tasks_end_and_hands_the_others_on),
        T(what_runs_too_long_is_cancelled_and_given_to_others),
        T(a_second_signal_ends_it_at_once),
        T(a_stack_overflow_fails_its_task_alone),
        T(a_task_that_crashes_again_and_again_fails),
        T(executables_and_long_computations),
        T(a_supervisor_that_is_killed_lets_its_worker_drain),
        T(what_is_wrong_is_told_with_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
