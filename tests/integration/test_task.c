/* `selinon-cli task` as a person runs it, with a broker and a worker. */
#include "tests/support/server.h"

#include "core/json.h"

#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Nothing, import: trouble}\n"                                                       \
    "  - {name: Fails, import: trouble}\n"                                                         \
    "  - {name: Echo, import: exec, command: [cat]}\n"                                             \
    "flows: []\n"
#define UNKNOWN "0198f3c2-7b1c-7001-8000-00000000002a"

struct world {
    struct sel_test_folder folder;
    char endpoint[512], variable[600];
    struct sel_test_server broker, worker;
    struct sel_arena arena;
};

static int setup(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    sel_test_folder_init(&w.folder);
    (void)snprintf(w.endpoint, sizeof(w.endpoint), "ipc://%s/broker", w.folder.path);
    (void)snprintf(w.variable, sizeof(w.variable), "SELINON_BROKER=%s", w.endpoint);
    sel_test_write(&w.folder, "nodes.yaml", SEL_STR(NODES));
    const char *const broker[] = {SEL_TEST_BROKER, "--listen",  w.endpoint, "--query",
                                  "ipc://query",   "--journal", "none",     NULL};
    sel_test_server_run(&w.broker, &w.folder, ".broker", broker);
    sel_test_server_expect(&w.broker, "broker.ready");
    const char *const worker[] = {SEL_TEST_WORKER,
                                  "-n",
                                  "nodes.yaml",
                                  "-b",
                                  w.endpoint,
                                  "-t",
                                  "1",
                                  "--module-path",
                                  SEL_TEST_MODULES,
                                  "--no-supervisor",
                                  NULL};
    sel_test_server_run(&w.worker, &w.folder, ".worker", worker);
    sel_test_server_expect(&w.worker, "worker.session");
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    assert_int_equal(sel_test_server_end(&w->worker, SIGTERM), 0);
    assert_int_equal(sel_test_server_end(&w->broker, SIGTERM), 0);
    sel_test_server_done(&w->worker);
    sel_test_server_done(&w->broker);
    sel_test_folder_done(&w->folder);
    sel_arena_done(&w->arena);
    return 0;
}

static void run_task(struct world *w, struct sel_test_run *run, int status,
                     const char *const *words)
{
    const char *argv[32] = {SEL_TEST_CLI, "task"};
    const char *const vars[] = {w->variable, "TZ=UTC", NULL};
    size_t count = 2;
    for (; *words; words++)
        argv[count++] = *words;
    sel_test_run(run, &w->folder, argv, vars);
    if (run->status != status)
        fail_msg("status %d, not %d: '%s', '%s'", run->status, status, run->out, run->err);
}

#define TASK(w, run, status, ...)                                                                  \
    run_task((w), (run), (status), (const char *const[]){__VA_ARGS__, NULL})

/* Runs it and takes its JSON. */
static struct sel_value json_of(struct world *w, int status, const char *const *words)
{
    struct sel_test_run run;
    run_task(w, &run, status, words);
    char *copy = sel_arena_strdup(&w->arena, sel_str_c(run.out));
    sel_test_run_done(&run);
    return sel_test_json(&w->arena, copy);
}

#define JSON(w, status, ...)                                                                       \
    json_of((w), (status), (const char *const[]){__VA_ARGS__, "--json", NULL})

static const char *text_in(const struct sel_value *map, const char *key)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    static char text[256];
    assert_true(sel_value_is(v, SEL_TEXT));
    (void)snprintf(text, sizeof(text), "%.*s", SEL_STR_ARG(sel_value_str(v)));
    return text;
}

static int64_t number_in(const struct sel_value *map, const char *key)
{
    int64_t number = -1;
    assert_true(sel_value_i64(sel_value_get_c(map, key), &number));
    return number;
}

/* The only task of an answer. */
static const struct sel_value *only_task(const struct sel_value *answer)
{
    const struct sel_value *tasks = sel_value_get_c(answer, "tasks");
    assert_int_equal(sel_value_count(tasks), 1);
    return sel_value_at(tasks, 0);
}

static void test_a_task_is_submitted_and_its_result_printed(void **state)
{
    struct world *w = *state;
    struct sel_value answer = JSON(w, 0, "submit", "Echo", "--args", "{\"a\": [1]}", "--wait");
    const struct sel_value *task = only_task(&answer);
    assert_string_equal(text_in(task, "status"), "finished");
    const struct sel_value *result = sel_value_get_c(task, "result");
    assert_json(sel_value_get_c(result, "node_args"), "{\"a\":[1]}");
    sel_test_write(&w->folder, "args.json", SEL_STR("{\"a\": [1]}"));
    answer = JSON(w, 0, "submit", "Echo", "--args-file", "args.json", "--wait");
    result = sel_value_get_c(only_task(&answer), "result");
    assert_json(sel_value_get_c(result, "node_args"), "{\"a\":[1]}");
}

static void test_an_id_is_printed_that_can_be_waited_for(void **state)
{
    struct world *w = *state;
    struct sel_test_run run, second;
    TASK(w, &run, 0, "submit", "Nothing", "--level", "memory", "--priority", "200");
    assert_int_equal(strlen(run.out), 37);
    run.out[36] = '\0';
    TASK(w, &second, 0, "wait", run.out);
    assert_true(strncmp(second.out, run.out, 36) == 0);
    assert_string_equal(second.out + 36, " finished null\n");
    sel_test_run_done(&second);
    sel_test_run_done(&run);
}

static void test_many_are_counted(void **state)
{
    struct world *w = *state;
    struct sel_value answer = JSON(w, 0, "submit", "Nothing", "--count", "5000", "--wait");
    assert_int_equal(number_in(&answer, "submitted"), 5000);
    assert_int_equal(number_in(&answer, "finished"), 5000);
    assert_int_equal(number_in(&answer, "failed"), 0);
    struct sel_test_run run;
    TASK(w, &run, 1, "submit", "Fails", "--count", "3", "--wait");
    assert_true(strncmp(run.out, "3 submitted, 0 finished, 3 failed in ", 37) == 0);
    assert_non_null(strstr(run.err, " failed {\"class\": "));
    sel_test_run_done(&run);
    TASK(w, &run, 0, "submit", "Nothing", "--count", "3000");
    assert_true(strncmp(run.out, "3,000 submitted in ", 19) == 0);
    sel_test_run_done(&run);
}

static void test_a_task_is_cancelled(void **state)
{
    struct world *w = *state;
    struct sel_value answer = JSON(w, 0, "submit", "Nothing", "--countdown", "3600");
    struct sel_test_run run;
    TASK(w, &run, 0, "cancel", text_in(&answer, "id"));
    assert_non_null(strstr(run.out, " cancelled "));
    sel_test_run_done(&run);
    TASK(w, &run, 1, "cancel", UNKNOWN);
    assert_non_null(strstr(run.out, UNKNOWN " refused "));
    sel_test_run_done(&run);
}

static void test_times_are_understood(void **state)
{
    struct world *w = *state;
    static const char *const past[] = {"2020-01-31T12:00:00Z", "2020-01-31T12:00:00.25-01:00",
                                       "2020-01-31 12:00:00"};
    for (size_t i = 0; i < SEL_COUNT(past); i++) {
        struct sel_test_run run;
        TASK(w, &run, 0, "submit", "Nothing", "--wait", "--eta", past[i]);
        sel_test_run_done(&run);
    }
    struct sel_test_run run; /* in the future: it has not ended when the time is over */
    TASK(w, &run, 1, "submit", "Nothing", "--wait", "--eta", "2200-01-31T12:00:00+01:00",
         "--timeout", "0.2");
    assert_non_null(strstr(run.err, "the time is over"));
    sel_test_run_done(&run);
}

static void test_what_is_wrong_is_named(void **state)
{
    struct world *w = *state;
    const struct {
        const char *words[8];
        int status;
        const char *says;
    } cases[] = {
        {{"submit"}, 2, "NAME"},
        {{"submit", "A", "B"}, 2, "one task"},
        {{"stop", "A"}, 2, "none of submit, wait, cancel"},
        {{"submit", "A", "--args", "{"}, 1, "--args: 1:2"},
        {{"submit", "A", "--args", "1", "--args-file", "nodes.yaml"}, 2, "exclude"},
        {{"submit", "A", "--args-file", "nodes.yaml"}, 1, "nodes.yaml: 1:"},
        {{"submit", "A", "--eta", "tomorrow"}, 2, "--eta"},
        {{"submit", "A", "--eta", "2026-01-31T12:00:00X"}, 2, "--eta"},
        {{"submit", "A", "--eta", "2026-01-31T12:00:00Z", "--countdown", "1"}, 2, "exclude"},
        {{"submit", "A", "--priority", "256"}, 2, "--priority"},
        {{"submit", "A", "--level", "disk"}, 2, "--level"},
        {{"submit", "A", "--level", "commit"}, 1, "unsupported"},
        {{"wait", "me"}, 1, "'me' is no id"},
        {{"wait", UNKNOWN, "--broker", "nonsense"}, 1, "no endpoint"},
        {{"wait", UNKNOWN, "-b", "ipc://nobody", "--timeout", "0.1"}, 1, "no broker answers"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        run_task(w, &run, cases[i].status, cases[i].words);
        if (!strstr(run.err, cases[i].says) || *run.out)
            fail_msg("'%s', '%s' does not say %s", run.out, run.err, cases[i].says);
        sel_test_run_done(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_task_is_submitted_and_its_result_printed),
        cmocka_unit_test(test_an_id_is_printed_that_can_be_waited_for),
        cmocka_unit_test(test_many_are_counted),
        cmocka_unit_test(test_a_task_is_cancelled),
        cmocka_unit_test(test_times_are_understood),
        cmocka_unit_test(test_what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
