/* Flows on real brokers and workers: the example, dispatchers that are killed and drained, workers
 * that only decide or only run, scripts in place of code. */
#include "tests/support/server.h"

#include <selinon/client.h>

#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: First, import: worker_tasks, classname: Echo, storage: S}\n"                       \
    "  - {name: Left, import: worker_tasks, classname: Sleeps}\n"                                  \
    "  - {name: Right, import: worker_tasks, classname: Nothing}\n"                                \
    "  - {name: Last, import: worker_tasks, classname: Who, storage: S}\n"                         \
    "  - {name: Bad, import: worker_tasks, classname: FailsForGood}\n"                             \
    "  - {name: Crash, import: worker_tasks, classname: Aborts}\n"                                 \
    "  - {name: Mend, import: worker_tasks, classname: Nothing}\n"                                 \
    "storages:\n"                                                                                  \
    "  - {name: S, import: selinon.storages.filesystem, classname: Filesystem, configuration: "    \
    "{path: results, sync: false}}\n"                                                              \
    "flows: [diamond, outer, crash, lost]\n"
/* The condition reads what First has stored, wherever that ran. */
#define FLOWS                                                                                      \
    "flow-definitions:\n"                                                                          \
    "  - name: diamond\n"                                                                          \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: First}\n"                                                            \
    "      - from: First\n"                                                                        \
    "        to: [Left, Right]\n"                                                                  \
    "        condition: {name: fieldGreater, args: {key: seconds, value: 0}}\n"                    \
    "      - {from: [Left, Right], to: Last}\n"                                                    \
    "  - name: outer\n"                                                                            \
    "    propagate_node_args: diamond\n"                                                           \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: [diamond, Bad]}\n"                                                   \
    "      - {from: diamond, to: Right}\n"                                                         \
    "    failures: [{nodes: Bad, fallback: Mend}]\n"                                               \
    "  - name: crash\n"                                                                            \
    "    edges: [{from: null, to: [Crash, Left]}]\n"                                               \
    "    failures: [{nodes: Crash, fallback: Mend}]\n"                                             \
    "  - name: lost\n"                                                                             \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: Right}\n"                                                            \
    "      - {from: Right, to: Mend, foreach: {import: worker_tasks, function: dies}}\n"
#define MANY 300u
#define LIMIT_US (INT64_C(60) * 1000000)

struct world {
    struct sel_test_folder folder;
    char endpoint[512];
    struct sel_test_server broker, workers[2];
    struct sel_client *client;
    uint8_t ended[MANY]; /* by tag: how often */
    uint32_t count;
    const char *expected;    /* nodes that each flow finished; NULL: any */
    const char *error_class; /* that it failed with; NULL: it succeeded */
};

static void start_broker(struct world *w)
{
    const char *const argv[] = {SEL_TEST_BROKER, "--listen", w->endpoint, "--query", "ipc://query",
                                "--journal",     "journal",  "--lease",   "3s",      NULL};
    sel_test_server_run(&w->broker, &w->folder, ".broker", argv);
    sel_test_server_expect(&w->broker, "broker.ready");
}

static void start_worker(struct world *w, uint32_t i, const char *const *more)
{
    static const char *const logs[] = {".worker", ".second"};
    const char *argv[32] = {SEL_TEST_WORKER, "-n", "nodes.yaml", "-f",
                            "flows.yaml",    "-b", w->endpoint};
    size_t count = 7;
    for (; more && *more; more++)
        argv[count++] = *more;
    sel_test_server_run(&w->workers[i], &w->folder, logs[i], argv);
    sel_test_server_expect(&w->workers[i], "worker.session");
}

static void start_ordinary(struct world *w, uint32_t i)
{
    static const char *const more[] = {"-t", "1", "--module-path", SEL_TEST_MODULES, NULL};
    start_worker(w, i, more);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    sel_test_folder_init(&w->folder);
    (void)snprintf(w->endpoint, sizeof(w->endpoint), "ipc://%s/broker", w->folder.path);
    sel_test_write(&w->folder, "nodes.yaml", SEL_STR(NODES));
    sel_test_write(&w->folder, "flows.yaml", SEL_STR(FLOWS));
    start_broker(w);
    const char *endpoint = w->endpoint;
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    options.endpoints = &endpoint;
    options.endpoint_count = 1;
    char error[SEL_CLIENT_ERROR_SIZE];
    if (sel_client_open(&options, &w->client, error) < 0)
        fail_msg("%s", error);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    (void)sel_client_close(w->client, 0);
    for (uint32_t i = 0; i < SEL_COUNT(w->workers); i++)
        sel_test_server_done(&w->workers[i]);
    assert_int_equal(sel_test_server_end(&w->broker, SIGTERM), 0);
    sel_test_server_done(&w->broker);
    sel_test_folder_done(&w->folder);
    free(w);
    return 0;
}

/* ---- flows and results ---- */

static void run(struct world *w, const char *name, const char *json, uint32_t count)
{
    struct sel_bytes args = {0};
    assert_int_equal(sel_client_from_json(json, strlen(json), &args, NULL), 0);
    for (uint32_t i = 0; i < count; i++) {
        struct sel_client_flow flow = {
            .size = sizeof(flow), .name = sel_str_c(name), .args = args, .tag = i};
        assert_int_equal(sel_client_run_flow(w->client, &flow, NULL, LIMIT_US), 0);
    }
    sel_client_bytes_free(&args);
}

/* How many ids the map `nodes` of a result has under `name`. */
static uint32_t count_of(const struct sel_value *result, const char *nodes, const char *name)
{
    const struct sel_value *ids = sel_value_get_c(sel_value_get_c(result, nodes), name);
    return ids ? sel_value_count(ids) : 0;
}

/* Nodes of the flow, each of which ended once. */
static void check_result(const struct world *w, const struct sel_client_result *result)
{
    struct sel_arena arena = {0};
    struct sel_value value;
    struct sel_str rest = sel_str_c(w->expected ? w->expected : "");
    assert_ok(sel_value_decode(&arena, result->payload.p, result->payload.n, true, &value, NULL));
    const struct sel_value *error_class = sel_value_get_c(&value, "class");
    if ((result->status == SEL_CLIENT_OK) != !w->error_class ||
        (error_class && !sel_str_eq_c(sel_value_str(error_class), w->error_class)))
        fail_msg("%s", sel_test_json_text(&arena, &value));
    if (error_class) {
        sel_arena_done(&arena);
        return;
    }
    assert_int_equal(sel_value_count(sel_value_get_c(&value, "active_nodes")), 0);
    assert_int_equal(sel_value_count(sel_value_get_c(&value, "failed_nodes")), 0);
    uint32_t names = 0;
    while (rest.n) {
        const char *end = memchr(rest.p, ' ', rest.n);
        size_t n = end ? (size_t)(end - rest.p) : rest.n;
        const char *name = sel_arena_strdup(&arena, (struct sel_str){rest.p, n});
        assert_int_equal(count_of(&value, "finished_nodes", name), 1);
        rest.p += n + (end != NULL);
        rest.n -= n + (end != NULL);
        names++;
    }
    if (w->expected)
        assert_int_equal(sel_value_count(sel_value_get_c(&value, "finished_nodes")), names);
    sel_arena_done(&arena);
}

static void take_until(struct world *w, uint32_t count)
{
    while (w->count < count) {
        struct sel_client_batch *batch;
        int64_t n = sel_client_next(w->client, &batch, LIMIT_US);
        if (n <= 0)
            fail_msg("%lld after %u flows: %s%s", (long long)n, w->count,
                     sel_test_server_log(&w->workers[0]), sel_test_server_log(&w->broker));
        for (uint32_t i = 0; i < batch->count; i++) {
            assert_true(batch->results[i].tag < MANY);
            assert_int_equal(++w->ended[batch->results[i].tag], 1);
            check_result(w, &batch->results[i]);
            w->count++;
        }
        sel_client_batch_free(batch);
    }
}

static void end_worker(struct world *w, uint32_t i)
{
    assert_int_equal(sel_test_server_end(&w->workers[i], SIGTERM), 0);
    assert_non_null(strstr(sel_test_server_log(&w->workers[i]), "missed=0"));
}

/* A number of the last line of a worker. */
static long counted(struct world *w, uint32_t i, const char *name)
{
    char key[64];
    (void)snprintf(key, sizeof(key), " %s=", name);
    const char *end = strstr(sel_test_server_log(&w->workers[i]), "worker.end");
    const char *at = end ? strstr(end, key) : NULL;
    assert_non_null(at);
    return strtol(at + strlen(key), NULL, 10);
}

/* The worker process, whose parent is the supervisor that the test started. */
static pid_t worker_process(const struct sel_test_server *server)
{
    char path[64], line[64] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)server->pid,
                   (int)server->pid);
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

/* ---- tests ---- */

static void test_flows_of_flows_on_two_workers(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    start_ordinary(w, 1);
    w->expected = "diamond Right Mend";
    run(w, "outer", "{\"seconds\": 0.001}", MANY);
    take_until(w, MANY);
    end_worker(w, 0);
    end_worker(w, 1);
    assert_int_equal(counted(w, 0, "flows") + counted(w, 1, "flows"), 2 * MANY);
    assert_int_equal(counted(w, 0, "succeeded") + counted(w, 1, "succeeded"), 6 * MANY);
}

static void test_the_example_runs_as_it_does_alone(void **state)
{
    struct world *w = *state;
    char path[600];
    (void)snprintf(path, sizeof(path), "%s/examples", w->folder.path);
    assert_int_equal(symlink(SEL_TEST_SOURCE "/examples", path), 0);
    sel_test_server_run(&w->workers[0], &w->folder, ".worker",
                        (const char *const[]){SEL_TEST_WORKER, "-n", "examples/texts/nodes.yaml",
                                              "-f", "examples/texts/flows", "-b", w->endpoint,
                                              "-t2", "--module-path", SEL_TEST_EXAMPLES, NULL});
    sel_test_server_expect(&w->workers[0], "worker.session");
    w->expected = "files Summary";
    run(w, "library", "{\"folder\": \"examples/texts/library\", \"report\": \"report.txt\"}", 1);
    take_until(w, 1);
    end_worker(w, 0);
    char *report = sel_test_read(&w->folder, "report.txt");
    assert_non_null(report); /* the last task has seen what the flows before it found */
    free(report);
}

static void test_a_dispatcher_that_is_killed_loses_no_flow(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    w->expected = "diamond Right Mend";
    run(w, "outer", "{\"seconds\": 0.05}", MANY);
    for (uint32_t i = 1; i <= 2; i++) {
        take_until(w, i * MANY / 4);
        assert_int_equal(kill(worker_process(&w->workers[0]), SIGKILL), 0);
        sel_test_server_expect(&w->workers[0], i == 1 ? "incarnation=2" : "incarnation=3");
    }
    take_until(w, MANY);
    end_worker(w, 0);
}

static void test_a_broker_that_is_killed_loses_no_flow(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    start_ordinary(w, 1);
    w->expected = "First Left Right Last";
    run(w, "diamond", "{\"seconds\": 0.02}", MANY);
    assert_int_equal(sel_client_flush(w->client, LIMIT_US), 0);
    take_until(w, 10);
    assert_int_equal(sel_test_server_end(&w->broker, SIGKILL), -SIGKILL);
    sel_test_server_done(&w->broker);
    start_broker(w);
    take_until(w, MANY);
    end_worker(w, 0);
    end_worker(w, 1);
}

static void test_a_drain_hands_flows_on_in_their_middle(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    w->expected = "diamond Right Mend";
    run(w, "outer", "{\"seconds\": 0.5}", 50);
    assert_int_equal(sel_client_flush(w->client, LIMIT_US), 0);
    assert_int_equal(kill(w->workers[0].pid, SIGTERM), 0); /* none can have ended by now */
    start_ordinary(w, 1);
    assert_int_equal(sel_test_server_wait(&w->workers[0]), 0);
    assert_non_null(strstr(sel_test_server_log(&w->workers[0]), "worker.end drained"));
    take_until(w, 50);
    end_worker(w, 1);
    assert_true(counted(w, 1, "flows") >= 50);
}

static void test_some_decide_and_others_run(void **state)
{
    struct world *w = *state;
    static const char *const decides[] = {
        "-t", "0", "--dispatchers", "2", "--module-path", SEL_TEST_MODULES, NULL};
    static const char *const runs[] = {"-t", "1", "--module-path", SEL_TEST_MODULES, "--flows",
                                       "0",  NULL};
    start_worker(w, 0, decides);
    start_worker(w, 1, runs);
    w->expected = "First Left Right Last";
    run(w, "diamond", "{\"seconds\": 0.001}", MANY);
    take_until(w, MANY);
    end_worker(w, 0);
    end_worker(w, 1);
    assert_int_equal(counted(w, 0, "flows"), MANY);
    assert_int_equal(counted(w, 0, "taken"), 0);
    assert_int_equal(counted(w, 1, "flows"), 0);
    assert_int_equal(counted(w, 1, "succeeded"), 4 * MANY);
}

/* It takes the process with it again and again, and with that the flow's dispatcher. */
static void test_a_node_that_crashes_fails_and_its_flow_goes_on(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    w->expected = "Left Mend";
    run(w, "crash", "{\"seconds\": 0.3}", 1);
    take_until(w, 1);
    assert_non_null(strstr(sel_test_server_log(&w->workers[0]), "supervisor.suspect"));
    end_worker(w, 0);
}

/* A function of the flow does so on the thread that decides. */
static void test_a_flow_that_takes_its_dispatchers_with_it_fails(void **state)
{
    struct world *w = *state;
    start_ordinary(w, 0);
    w->error_class = "DispatcherLost";
    run(w, "lost", "null", 1);
    take_until(w, 1);
    w->error_class = NULL;
    w->ended[0] = 0;
    run(w, "diamond", "{\"seconds\": 0.001}", 1);
    take_until(w, 2);
    end_worker(w, 0);
}

/* How many lines of the report have a text. */
static uint32_t lines_with(const struct world *w, const char *what)
{
    char *text = sel_test_read(&w->folder, "report"), *rest = text;
    uint32_t count = 0;
    for (char *line; text && (line = strsep(&rest, "\n"));)
        count += strstr(line, what) != NULL;
    free(text);
    return count;
}

/* The second try of Left succeeds, whoever runs it: the steps are counted together. */
static void test_scripts_stand_for_code_on_all_workers(void **state)
{
    struct world *w = *state;
    static const char *const more[] = {"-t",
                                       "1",
                                       "--mock",
                                       "mock.json",
                                       "--mock-state",
                                       "steps",
                                       "--mock-report",
                                       "report",
                                       "--mock-speed",
                                       "100",
                                       NULL};
    sel_test_write(&w->folder, "mock.json",
                   SEL_STR("{\"tasks\": {\"First\": [{\"result\": {\"seconds\": 1}}], \"Left\": "
                           "[{\"retry\": 3}, {\"result\": 1}]}}"));
    start_worker(w, 0, more);
    start_worker(w, 1, more);
    w->expected = "First Left Right Last";
    run(w, "diamond", "null", 1);
    take_until(w, 1);
    end_worker(w, 0);
    end_worker(w, 1);
    assert_int_equal(lines_with(w, "\"what\":\"execution\""), 5);
    assert_int_equal(lines_with(w, "\"what\":\"stored\""), 2);
    assert_int_equal(lines_with(w, "\"what\":\"flow\""), 1);
    assert_int_equal(lines_with(w, "\"event\":\"TASK_RETRY\""), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(flows_of_flows_on_two_workers),
        T(the_example_runs_as_it_does_alone),
        T(a_dispatcher_that_is_killed_loses_no_flow),
        T(a_broker_that_is_killed_loses_no_flow),
        T(a_drain_hands_flows_on_in_their_middle),
        T(some_decide_and_others_run),
        T(a_node_that_crashes_fails_and_its_flow_goes_on),
        T(a_flow_that_takes_its_dispatchers_with_it_fails),
        T(scripts_stand_for_code_on_all_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
