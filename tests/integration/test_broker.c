/* selinon-broker as an operator meets it: starts, refuses to start, stops, dies, comes back. */
#include "tests/support/server.h"

#include <selinon/client.h>

#include "core/json.h"

#define WAIT_US (INT64_C(30) * 1000000)

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

#define START_WITH(server, folder, ...)                                                            \
    sel_test_broker_start((server), (folder), SEL_TEST_BROKER, ".log",                             \
                          (const char *const[]){"--journal", "journal", __VA_ARGS__, NULL})
#define START(server, folder) START_WITH(server, folder, "--name", "test")

/* Runs it to its end; it must end with `status` and say `text`. */
static void expect_end(const struct sel_test_folder *folder, const char *const *argv, int status,
                       const char *out, const char *err)
{
    struct sel_test_run run;
    sel_test_run(&run, folder, argv, NULL);
    if (run.status != status || !strstr(run.out, out) || !strstr(run.err, err) ||
        strstr(run.err, "Sanitizer"))
        fail_msg("status %d, '%s', '%s'; expected %d, '%s', '%s'", run.status, run.out, run.err,
                 status, out, err);
    sel_test_run_done(&run);
}

#define EXPECT_END(folder, status, out, err, ...)                                                  \
    expect_end((folder), (const char *const[]){__VA_ARGS__, NULL}, (status), (out), (err))

/* A number (or 0/1) in the answer of `selinon-cli COMMAND --json`. */
static int64_t ask(const struct sel_test_server *broker, const char *command, const char *key)
{
    struct sel_test_run run;
    struct sel_arena arena = {0};
    sel_test_run(&run, broker->folder,
                 (const char *const[]){SEL_TEST_CLI, command, "--json", "--broker", broker->query,
                                       "--timeout", "30", NULL},
                 NULL);
    if (run.status != 0)
        fail_msg("%s: %s", command, run.err);
    struct sel_value answer = sel_test_json(&arena, run.out);
    const struct sel_value *value = sel_value_get_c(&answer, key);
    int64_t number = -1;
    if (sel_value_is(value, SEL_BOOL))
        number = sel_value_bool(value);
    else if (!value || !sel_value_is(value, SEL_INT) || !sel_value_i64(value, &number))
        fail_msg("%s: no number '%s' in %s", command, key, run.out);
    sel_test_run_done(&run);
    sel_arena_done(&arena);
    return number;
}

static struct sel_client *connect_to(const struct sel_test_server *broker)
{
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    const char *endpoints[] = {broker->listen};
    struct sel_client *client;
    options.endpoints = endpoints;
    options.endpoint_count = 1;
    assert_int_equal(sel_client_open(&options, &client, NULL), 0);
    assert_int_equal(sel_client_ready(client, WAIT_US), 0);
    return client;
}

static void submit_with(struct sel_client *client, uint32_t count, uint8_t level, size_t size,
                        uint32_t flags)
{
    uint8_t *args = sel_mem_zalloc(size + 5);
    assert_non_null(args);
    args[0] = 0xc6; /* bin 32 */
    for (int i = 0; i < 4; i++)
        args[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    struct sel_client_task task = {
        .name = {"Work", 4}, .args = {args, size + 5}, .level = level, .flags = flags};
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(sel_client_submit(client, &task, NULL, WAIT_US), 0);
    (void)sel_mem_free(args);
}

static void submit(struct sel_client *client, uint32_t count, uint8_t level, size_t size)
{
    submit_with(client, count, level, size, SEL_CLIENT_QUIET);
}

/* Submits that were said to be settled since the last call. */
static int64_t count_settled(struct sel_client *client)
{
    struct sel_client_batch *batch;
    int64_t count = 0;
    while (sel_client_next(client, &batch, 0) > 0) {
        for (uint32_t i = 0; i < batch->count; i++)
            count += batch->results[i].status == SEL_CLIENT_SETTLED;
        sel_client_batch_free(batch);
    }
    return count;
}

/* ---- starting ---- */

static void test_it_starts_answers_and_stops(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    assert_int_equal(ask(&broker, "status", "incarnation"), 1);
    EXPECT_END(*state, 0, "No worker is connected.\n", "", SEL_TEST_CLI, "workers", "--broker",
               broker.query);
    EXPECT_END(*state, 0, "No queue has been named yet.\n", "", SEL_TEST_CLI, "queues", "--broker",
               broker.query);
    EXPECT_END(*state, 0, "lease_us", "", SEL_TEST_CLI, "status", "--config", "--broker",
               broker.query);
    EXPECT_END(*state, 1, "", "no such task", SEL_TEST_CLI, "status",
               "0198f3c2-0000-7000-8000-000000000000", "--broker", broker.query);
    EXPECT_END(*state, 1, "", "is that its endpoint for queries?", SEL_TEST_CLI, "status",
               "--broker", broker.listen);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    static const char *const lines[] = {"info journal.open path=journal",
                                        "info broker.listen",
                                        "info broker.query",
                                        "info broker.ready",
                                        "broker.stop reason=SIGTERM",
                                        "broker.end result=0"};
    for (size_t i = 0; i < SEL_COUNT(lines); i++) {
        if (!strstr(sel_test_server_log(&broker), lines[i]))
            fail_msg("'%s' is not in the log:\n%s", lines[i], broker.log_text);
    }
    sel_test_server_done(&broker);
}

static void test_ctrl_c_and_a_hangup(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    assert_int_equal(kill(broker.pid, SIGHUP), 0); /* means nothing */
    assert_int_equal(ask(&broker, "status", "tasks"), 0);
    assert_int_equal(sel_test_server_end(&broker, SIGINT), 0);
    sel_test_server_done(&broker);
}

static void test_settings_are_refused_all_at_once(void **state)
{
    sel_test_write(*state, "b.yaml", SEL_STR("lease: 1\nmemory: 1GiB\n"));
    EXPECT_END(*state, 1, "",
               "selinon-broker: error: b.yaml:1:8: lease: '1' is not a time like 100ms",
               SEL_TEST_BROKER, "--config", "b.yaml");
    EXPECT_END(*state, 1, "", "b.yaml:2:1: there is no setting 'memory'", SEL_TEST_BROKER,
               "--config", "b.yaml");
    EXPECT_END(*state, 1, "", "none.yaml: cannot be read", SEL_TEST_BROKER, "--config",
               "none.yaml");
    EXPECT_END(*state, 2, "", "there is no option --leese; did you mean --lease?", SEL_TEST_BROKER,
               "--leese", "1s");
}

static void test_it_tells_about_itself(void **state)
{
    EXPECT_END(*state, 0, "--journal-size-max", "", SEL_TEST_BROKER, "--help");
    EXPECT_END(*state, 0, "selinon-broker ", "", SEL_TEST_BROKER, "--version");
    EXPECT_END(*state, 0, "lease: 3s\n", "", SEL_TEST_BROKER, "--print-config", "--lease",
               "3000ms");
}

static void test_a_second_broker_leaves_the_first_alone(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    EXPECT_END(*state, 1, "", "journal", SEL_TEST_BROKER, "--journal", "journal", "--listen",
               "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*");
    EXPECT_END(*state, 1, "", "Address already in use; does another broker run there?",
               SEL_TEST_BROKER, "--journal", "other", "--listen", broker.listen, "--query",
               "tcp://127.0.0.1:*");
    EXPECT_END(*state, 1, "", broker.query, SEL_TEST_BROKER, "--journal", "other", "--listen",
               "tcp://127.0.0.1:*", "--query", broker.query);
    assert_int_equal(ask(&broker, "status", "incarnation"), 1);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

static void test_what_cannot_be_written_stops_the_start(void **state)
{
    EXPECT_END(*state, 1, "", "ready file cannot be written", SEL_TEST_BROKER, "--journal", "none",
               "--listen", "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*", "--ready-file",
               "no/such/folder");
    EXPECT_END(*state, 1, "", "/proc/no", SEL_TEST_BROKER, "--journal", "/proc/no", "--listen",
               "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*");
}

/* Every name in the answers, of maps in maps too, is `name` in docs/operations.md. */
static void check_documented(const struct sel_value *answer, const char *page)
{
    for (uint32_t i = 0; sel_value_is(answer, SEL_LIST) && i < sel_value_count(answer); i++)
        check_documented(sel_value_at(answer, i), page);
    for (uint32_t i = 0; sel_value_is(answer, SEL_MAP) && i < sel_value_count(answer); i++) {
        char name[128];
        struct sel_str key = sel_value_str(sel_value_key_at(answer, i));
        (void)snprintf(name, sizeof(name), "`%.*s`", SEL_STR_ARG(key));
        if (!strstr(page, name))
            fail_msg("docs/operations.md lacks %s", name);
        check_documented(sel_value_val_at(answer, i), page);
    }
}

static void test_every_number_is_documented(void **state)
{
    struct sel_test_server broker;
    const char *const commands[][2] = {{"status", NULL},
                                       {"status", "--sessions"},
                                       {"queues", NULL},
                                       {"workers", NULL},
                                       {"drain", NULL}};
    struct sel_test_folder docs = {SEL_TEST_SOURCE "/docs"};
    char *page = sel_test_read(&docs, "operations.md");
    assert_non_null(page);
    START(&broker, *state);
    struct sel_client *client = connect_to(&broker); /* so that lists are not empty */
    submit(client, 1, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    for (size_t i = 0; i < SEL_COUNT(commands); i++) {
        struct sel_test_run run;
        struct sel_arena arena = {0};
        sel_test_run(&run, *state,
                     (const char *const[]){SEL_TEST_CLI, commands[i][0], "--json", "--broker",
                                           broker.query, commands[i][1], NULL},
                     NULL);
        struct sel_value answer = sel_test_json(&arena, run.out);
        check_documented(&answer, page);
        sel_test_run_done(&run);
        sel_arena_done(&arena);
    }
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
    (void)sel_mem_free(page);
}

/* ---- what is acknowledged stays ---- */

static void test_tasks_survive_a_kill_and_a_stop(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    struct sel_client *client = connect_to(&broker);
    submit(client, 500, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    assert_int_equal(ask(&broker, "status", "queued"), 500);
    assert_int_equal(sel_test_server_end(&broker, SIGKILL), -SIGKILL);
    (void)sel_client_close(client, 0);
    sel_test_server_done(&broker);

    START(&broker, *state);
    assert_int_equal(ask(&broker, "status", "queued"), 500);
    assert_int_equal(ask(&broker, "status", "incarnation"), 2);
    assert_non_null(strstr(sel_test_server_log(&broker), "journal.replayed"));
    assert_non_null(strstr(sel_test_server_log(&broker), "tasks=500"));
    client = connect_to(&broker);
    submit(client, 100, SEL_CLIENT_LEVEL_INTERVAL, 64);
    submit(client, 50, SEL_CLIENT_LEVEL_MEMORY, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    assert_int_equal(ask(&broker, "status", "queued"), 650);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);

    START(&broker, *state);
    assert_int_equal(ask(&broker, "status", "queued"), 600);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

/* A disk that is full is the journal's own limit here. */
static void test_a_full_disk_stops_acknowledgements_and_nothing_else(void **state)
{
    struct sel_test_server broker;
    START_WITH(&broker, *state, "--journal-size-max", "8MiB", "--journal-reserve", "1MiB");
    struct sel_client *client = connect_to(&broker);
    /* 9.4 MiB: what a journal of 7 MiB leaves over fits in a window of 8 MiB. */
    submit_with(client, 300, SEL_CLIENT_LEVEL_COMMIT, 32768, SEL_CLIENT_TELL_SETTLED);
    assert_int_equal(sel_client_flush(client, 2000000), -ETIMEDOUT);
    sel_test_server_expect(&broker, "error journal.full");
    assert_true(strstr(sel_test_server_log(&broker), "error journal.refused") != NULL);
    assert_int_equal(ask(&broker, "status", "full"), 1);
    int64_t settled = count_settled(client);
    assert_in_range(settled, 50, 224);

    struct sel_client *other = connect_to(&broker); /* what needs no disk goes on */
    submit(other, 10, SEL_CLIENT_LEVEL_MEMORY, 64);
    assert_int_equal(sel_client_flush(other, WAIT_US), 0);
    assert_int_equal(sel_client_close(other, WAIT_US), 0);
    (void)sel_client_close(client, 0);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 1); /* not all could be written */
    assert_non_null(strstr(sel_test_server_log(&broker), "error stop.unsaved"));
    sel_test_server_done(&broker);

    /* Given more room, it goes on with all that it had acknowledged. */
    START_WITH(&broker, *state, "--journal-size-max", "64MiB");
    assert_true(ask(&broker, "status", "queued") >= settled);
    client = connect_to(&broker);
    submit(client, 10, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

static void test_a_damaged_journal_is_named(void **state)
{
    struct sel_test_server broker;
    const struct sel_test_folder *folder = *state;
    START(&broker, folder);
    struct sel_client *client = connect_to(&broker);
    submit(client, 2000, SEL_CLIENT_LEVEL_COMMIT, 1000);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);

    char path[512];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/journal/data.mdb", folder->path);
    assert_int_equal(stat(path, &st), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "rust", 4, st.st_size / 2), 4);
    assert_int_equal(close(fd), 0);
    EXPECT_END(folder, 1, "", "journal", SEL_TEST_BROKER, "--journal", "journal", "--listen",
               "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*");
}

/* ---- draining ---- */

static void test_a_drained_broker_takes_nothing_until_it_resumes(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    struct sel_client *client = connect_to(&broker);
    submit(client, 1, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    assert_int_equal(ask(&broker, "drain", "draining"), 1);
    submit(client, 1, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, 200000), -ETIMEDOUT);
    assert_int_equal(ask(&broker, "status", "queued"), 1);
    EXPECT_END(*state, 0, "draining", "", SEL_TEST_CLI, "drain", "--resume", "--broker",
               broker.query);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    assert_int_equal(ask(&broker, "status", "queued"), 2);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

static void test_an_empty_broker_is_drained_at_once(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    EXPECT_END(*state, 0, "draining", "", SEL_TEST_CLI, "drain", "--wait", "--broker",
               broker.query);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

static void test_nobody_there_is_told(void **state)
{
    EXPECT_END(*state, 1, "", "no broker answered at ipc://nobody within 0.05 s", SEL_TEST_CLI,
               "status", "--timeout", "0.05", "--broker", "ipc://nobody");
    EXPECT_END(*state, 1, "", "'x' is no endpoint", SEL_TEST_CLI, "queues", "--broker", "x");
    EXPECT_END(*state, 2, "", "exclude each other", SEL_TEST_CLI, "drain", "--wait", "--resume");
    EXPECT_END(*state, 2, "", "no id of a task", SEL_TEST_CLI, "status", "1");
}

/* ---- cost ---- */

static long cpu_ticks(pid_t pid)
{
    char path[64], text[1024];
    long user = 0, system = 0;
    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    (void)fclose(file);
    const char *rest = strrchr(text, ')');
    assert_non_null(rest);
    assert_int_equal(
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system),
        2);
    return user + system;
}

/* At most 0.5 % of a core: two seconds are 200 ticks. */
static void test_an_idle_broker_costs_nothing(void **state)
{
    struct sel_test_server broker;
    START(&broker, *state);
    struct sel_client *client = connect_to(&broker);
    submit(client, 10, SEL_CLIENT_LEVEL_COMMIT, 64);
    assert_int_equal(sel_client_flush(client, WAIT_US), 0);
    long before = cpu_ticks(broker.pid);
    (void)nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
    assert_in_range(cpu_ticks(broker.pid) - before, 0, 2);
    (void)sel_client_close(client, WAIT_US);
    assert_int_equal(sel_test_server_end(&broker, SIGTERM), 0);
    sel_test_server_done(&broker);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_starts_answers_and_stops),
        TEST(test_ctrl_c_and_a_hangup),
        TEST(test_settings_are_refused_all_at_once),
        TEST(test_it_tells_about_itself),
        TEST(test_a_second_broker_leaves_the_first_alone),
        TEST(test_what_cannot_be_written_stops_the_start),
        TEST(test_every_number_is_documented),
        TEST(test_tasks_survive_a_kill_and_a_stop),
        TEST(test_a_full_disk_stops_acknowledgements_and_nothing_else),
        TEST(test_a_damaged_journal_is_named),
        TEST(test_a_drained_broker_takes_nothing_until_it_resumes),
        TEST(test_an_empty_broker_is_drained_at_once),
        TEST(test_nobody_there_is_told),
        TEST(test_an_idle_broker_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
