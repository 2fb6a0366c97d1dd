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

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    sel_test_write(&folder, "nodes.yaml", SEL_STR(NODES));
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

/* Reads the endpoints from the log: the port that * became. */
static void start(struct sel_test_server *dev, const struct sel_test_folder *folder,
                  const char *more)
{
    sel_test_server_run(dev, folder, ".log",
                        (const char *const[]){SEL_TEST_CLI, "dev", "-n", "nodes.yaml", "-c", "1",
                                              "--listen", "tcp://127.0.0.1:*", "--query",
                                              "tcp://127.0.0.1:*", "-v", more, NULL});
    sel_test_server_expect(dev, "worker.session");
    const char *listen = strstr(dev->log_text, "broker.listen endpoint=");
    const char *query = strstr(dev->log_text, "broker.query endpoint=");
    assert_true(listen && query);
    assert_int_equal(sscanf(strchr(listen, '='), "=%255s", dev->listen), 1);
    assert_int_equal(sscanf(strchr(query, '='), "=%255s", dev->query), 1);
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
        TEST(test_what_waits_is_there_again),
        TEST(test_a_second_ctrl_c_does_not_wait),
        TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
