/* `selinon-cli dev`: a broker and workers in one process, as on a laptop. */
#include "tests/support/server.h"

#include <selinon/client.h>

#define WAIT_US (INT64_C(30) * 1000000)

/* What a shell does with its arguments is its result. */
#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Answer, import: exec, command: [sh, -c, 'cat > /dev/null; echo 42']}\n"            \
    "  - {name: Slow, import: exec, command: [sh, -c, 'cat > /dev/null; sleep 60'], queue: "       \
    "slow}\n"                                                                                      \
    "flows: []\n"
/* The same task in a flow, and one that has no code. */
#define FLOW_NODES                                                                                 \
    "tasks:\n"                                                                                     \
    "  - {name: Answer, import: exec, command: [sh, -c, 'cat > /dev/null; echo 42'], queue: a}\n"  \
    "  - {name: Scripted, import: nowhere, queue: b}\n"                                            \
    "flows: [pair, scripted]\n"
#define FLOWS                                                                                      \
    "flow-definitions:\n"                                                                          \
    "  - {name: pair, queue: p, edges: [{from: null, to: Answer}]}\n"                              \
    "  - {name: scripted, queue: p, edges: [{from: null, to: [Scripted, Answer]}]}\n"

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    sel_test_write(&folder, "nodes.yaml", SEL_STR(NODES));
    sel_test_write(&folder, "flow-nodes.yaml", SEL_STR(FLOW_NODES));
    sel_test_write(&folder, "flows.yaml", SEL_STR(FLOWS));
    sel_test_write(&folder, "mock.json",
                   SEL_STR("{\"tasks\": {\"Scripted\": [{\"retry\": 100}, "
                           "{\"result\": 1}]}}"));
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

/* Reads the endpoints from the log: the port that * became. */
static void start_with(struct sel_test_server *dev, const struct sel_test_folder *folder,
                       const char *const *more)
{
    const char *argv[24] = {
        SEL_TEST_CLI,        "dev", "-c", "1", "--listen", "tcp://127.0.0.1:*", "--query",
        "tcp://127.0.0.1:*", "-v"};
    size_t count = 9;
    while (*more)
        argv[count++] = *more++;
    sel_test_server_run(dev, folder, ".log", argv);
    sel_test_server_expect(dev, "worker.session");
    const char *listen = strstr(dev->log_text, "broker.listen endpoint=");
    const char *query = strstr(dev->log_text, "broker.query endpoint=");
    assert_true(listen && query);
    assert_int_equal(sscanf(strchr(listen, '='), "=%255s", dev->listen), 1);
    assert_int_equal(sscanf(strchr(query, '='), "=%255s", dev->query), 1);
}

static void start(struct sel_test_server *dev, const struct sel_test_folder *folder,
                  const char *more)
{
    start_with(dev, folder, (const char *const[]){"-n", "nodes.yaml", more, NULL});
}

static struct sel_client *connect_to(const struct sel_test_server *dev)
{
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    const char *endpoints[] = {dev->listen};
    struct sel_client *client;
    options.endpoints = endpoints;
    options.endpoint_count = 1;
    assert_int_equal(sel_client_open(&options, &client, NULL), 0);
    return client;
}

static void test_a_task_is_run_and_its_result_comes_back(void **state)
{
    struct sel_test_server dev;
    start(&dev, *state, NULL);
    struct sel_client *client = connect_to(&dev);
    struct sel_client_task task = {.name = {"Answer", 6}};
    assert_int_equal(sel_client_submit(client, &task, NULL, WAIT_US), 0);
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_next(client, &batch, WAIT_US), 1);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_OK);
    assert_int_equal(batch->results[0].payload.n, 1);
    assert_int_equal(((const uint8_t *)batch->results[0].payload.p)[0], 42);
    sel_client_batch_free(batch);
    assert_int_equal(sel_client_close(client, WAIT_US), 0);
    assert_int_equal(sel_test_server_end(&dev, SIGINT), 0);
    assert_non_null(strstr(sel_test_server_log(&dev), "broker.end result=0"));
    sel_test_server_done(&dev);
}

/* Runs the flow, and expects it to succeed. */
static void run_flow(const struct sel_test_server *dev, const char *name)
{
    struct sel_client *client = connect_to(dev);
    struct sel_client_flow flow = {
        .size = sizeof(flow), .name = sel_str_c(name), .queue = SEL_STR("p")};
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_run_flow(client, &flow, NULL, WAIT_US), 0);
    assert_int_equal(sel_client_next(client, &batch, WAIT_US), 1);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_OK);
    sel_client_batch_free(batch);
    assert_int_equal(sel_client_close(client, WAIT_US), 0);
}

static void test_a_flow_is_run(void **state)
{
    struct sel_test_server dev;
    start_with(&dev, *state,
               (const char *const[]){"-n", "flow-nodes.yaml", "-f", "flows.yaml", "-Qa,p", NULL});
    run_flow(&dev, "pair");
    assert_int_equal(sel_test_server_end(&dev, SIGINT), 0);
    sel_test_server_done(&dev);
}

/* The first try asks for another after a hundred seconds, which pass at once. */
static void test_a_flow_is_run_without_code(void **state)
{
    struct sel_test_server dev;
    start_with(&dev, *state,
               (const char *const[]){"-n", "flow-nodes.yaml", "-f", "flows.yaml", "--mock",
                                     "mock.json", "--mock-report", "report", "--mock-speed",
                                     "10000", NULL});
    run_flow(&dev, "scripted");
    assert_int_equal(sel_test_server_end(&dev, SIGINT), 0);
    sel_test_server_done(&dev);
    char *report = sel_test_read(*state, "report");
    assert_non_null(report);
    assert_non_null(strstr(report, "\"countdown\":100.0"));
    assert_non_null(strstr(report, "\"what\":\"flow\""));
    free(report);
}

/* What is in the journal is there the next time; --memory keeps none. */
static void test_what_waits_is_there_again(void **state)
{
    struct sel_test_server dev;
    start(&dev, *state, NULL);
    struct sel_client *client = connect_to(&dev);
    struct sel_client_task task = {
        .name = {"Later", 5}, .queue = {"nobody", 6}, .flags = SEL_CLIENT_QUIET};
    assert_int_equal(sel_client_submit(client, &task, NULL, WAIT_US), 0);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    assert_int_equal(sel_client_close(client, WAIT_US), 0);
    assert_int_equal(sel_test_server_end(&dev, SIGTERM), 0);
    sel_test_server_done(&dev);

    start(&dev, *state, NULL);
    if (!strstr(sel_test_server_log(&dev), "tasks=1"))
        fail_msg("%s", dev.log_text);
    assert_int_equal(sel_test_server_end(&dev, SIGTERM), 0);
    sel_test_server_done(&dev);

    start(&dev, *state, "--memory");
    assert_null(strstr(sel_test_server_log(&dev), "journal.open"));
    assert_int_equal(sel_test_server_end(&dev, SIGTERM), 0);
    sel_test_server_done(&dev);
}

static void test_a_second_ctrl_c_does_not_wait(void **state)
{
    struct sel_test_server dev;
    start(&dev, *state, NULL);
    struct sel_client *client = connect_to(&dev);
    struct sel_client_task task = {
        .name = {"Slow", 4}, .queue = {"slow", 4}, .flags = SEL_CLIENT_QUIET};
    assert_int_equal(sel_client_submit(client, &task, NULL, WAIT_US), 0);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(kill(dev.pid, SIGINT), 0);
    sel_test_server_expect(&dev, "a second Ctrl-C");
    assert_int_equal(sel_test_server_end(&dev, SIGINT), 1);
    sel_test_server_done(&dev);
}

static void test_refusals(void **state)
{
    const struct {
        const char *args[6];
        int status;
        const char *said;
    } cases[] = {
        {{"-n", "nodes.yaml", "--listen", "udp://x"}, 1, "'udp://x' is no endpoint"},
        {{"-n", "nodes.yaml", "--data", "nodes.yaml/x"}, 1, "nodes.yaml/x: Not a directory"},
        {{"-n", "bad.yaml"}, 1, "the configuration has errors"},
        {{"-n", "nodes.yaml", "--mock-report", "report"}, 1, "are for --mock"},
        {{"-n", "nodes.yaml", "--mock", "bad.yaml"}, 1, "bad.yaml:1:1: "},
        {{"--memory"}, 2, "nodes-definition is missing"},
    };
    sel_test_write(*state, "bad.yaml", SEL_STR("tasks: 3\n"));
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const char *argv[16] = {SEL_TEST_CLI, "dev"};
        struct sel_test_run run;
        for (size_t a = 0; a < SEL_COUNT(cases[i].args); a++)
            argv[2 + a] = cases[i].args[a];
        sel_test_run(&run, *state, argv, NULL);
        if (run.status != cases[i].status || !strstr(run.err, cases[i].said))
            fail_msg("status %d, '%s'; expected %d, '%s'", run.status, run.err, cases[i].status,
                     cases[i].said);
        sel_test_run_done(&run);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_task_is_run_and_its_result_comes_back),
        TEST(test_a_flow_is_run),
        TEST(test_a_flow_is_run_without_code),
        TEST(test_what_waits_is_there_again),
        TEST(test_a_second_ctrl_c_does_not_wait),
        TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
