#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/support/fake_host.h"
#include "tests/support/in_loop.h"

static struct sel_fake *fake;

static int setup(void **state)
{
    static struct sel_fake the_fake;
    (void)state;
    fake = &the_fake;
    sel_fake_init(fake);
    fake->env.task = &fake->tasks[SEL_FAKE_X];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sel_fake_done(fake);
    return 0;
}

static void set_command(const char *a, const char *b, const char *c)
{
    static struct sel_str command[3];
    command[0] = sel_str_c(a);
    command[1] = sel_str_c(b);
    command[2] = sel_str_c(c);
    fake->tasks[SEL_FAKE_X].command = command;
    fake->tasks[SEL_FAKE_X].command_count = c ? 3 : b ? 2 : 1;
}

static void set_script(const char *script)
{
    set_command("sh", "-c", script);
}

static struct sel_exec_result run(void)
{
    struct sel_task *task = sel_fake_task(fake);
    struct sel_exec_result result;
    sel_runtime_exec.run(NULL, NULL, task, &result);
    sel_task_done(task);
    return result;
}

static const char *value_text(const struct sel_exec_result *result)
{
    struct sel_value v;
    if (result->outcome != SEL_EXEC_SUCCESS)
        fail_msg("outcome %d, %s: %s", result->outcome, result->error_class, result->error_message);
    assert_ok(sel_value_decode(&fake->arena, result->value.p, result->value.n, true, &v, NULL));
    return sel_test_json_text(&fake->arena, &v);
}

/* ---- input and results ---- */

static void check_input(void *arg)
{
    (void)arg;
    set_command("cat", NULL, NULL);
    struct sel_exec_result result = run();
    assert_string_equal(value_text(&result),
                        "{\"dispatcher_id\":\"flow-1\",\"flow_name\":\"F\",\"node_args\":{\"a\":1},"
                        "\"parent_results\":{\"N\":null,\"T\":{\"id\":\"t\"},\"sub\":{\"T\":["
                        "{\"id\":\"1\"},null],\"inner\":{\"T\":[]}}},"
                        "\"parents\":{\"N\":\"n\",\"T\":\"t\",\"sub\":{\"T\":[\"1\",\"missing\"],"
                        "\"inner\":{\"T\":[]}}},\"task_id\":\"task-1\",\"task_name\":\"X\"}");
}

static void test_a_program_gets_all_about_its_task(void **state)
{
    (void)state;
    sel_fake_set_args(fake, "{\"a\": 1}");
    fake->parents = "{\"T\": \"t\", \"N\": \"n\", \"sub\": {\"T\": [\"1\", \"missing\"],"
                    " \"inner\": {\"T\": []}}}";
    sel_in_both(check_input, NULL);
}

static void test_results_are_json_or_nothing(void **state)
{
    (void)state;
    const struct {
        const char *script, *json;
    } cases[] = {
        {"true", "null"},
        {"echo; echo '  '", "null"},
        {"echo 7", "7"},
        {"echo ' {\"a\": [1.0, \"x\"]} '", "{\"a\":[1.0,\"x\"]}"},
        {"cat >/dev/null; echo warning >&2; echo true", "true"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        set_script(cases[i].script);
        struct sel_exec_result result = run();
        assert_string_equal(value_text(&result), cases[i].json);
    }
    assert_string_equal(sel_buf_cstr(&fake->log), "1 warning\n"); /* what it says is not lost */
}

/* ---- failures ---- */

static void check_failures(void *arg)
{
    (void)arg;
    const struct {
        const char *script;
        enum sel_exec_outcome outcome;
        const char *error_class, *part;
    } cases[] = {
        {"echo garbage", SEL_EXEC_FAILURE, "ResultError", "standard output:1:1: "},
        {"echo '{\"a\": 1'", SEL_EXEC_FAILURE, "ResultError", "standard output:"},
        {"echo 1; echo 2", SEL_EXEC_FAILURE, "ResultError", "standard output:2:1: "},
        {"printf '\"\\377\"'", SEL_EXEC_FAILURE, "ResultError", "standard output:1:"},
        {"echo 99999999999999999999", SEL_EXEC_FAILURE, "ResultError", "standard output:1:"},
        {"head -c 10000 /dev/zero | tr '\\0' '['", SEL_EXEC_FAILURE, "ResultError",
         "standard output:"},
        {"exit 3", SEL_EXEC_FAILURE, "ExecError", "exit status 3"},
        {"echo one >&2; echo two >&2; exit 1", SEL_EXEC_FAILURE, "ExecError",
         "exit status 1: one\ntwo"},
        {"for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 1", SEL_EXEC_FAILURE, "ExecError",
         "exit status 1: line 3\nline 4"},
        {"echo '{\"class\": \"NoDisk\", \"message\": \"sda\"}' >&2; exit 9", SEL_EXEC_FAILURE,
         "NoDisk", "sda"},
        {"echo log; echo log >&2; echo '{\"message\": \"only\"}' >&2; exit 9", SEL_EXEC_FAILURE,
         "ExecError", "only"},
        {"echo '{\"no\": 1}' >&2; exit 9", SEL_EXEC_FAILURE, "ExecError", "exit status 9: {"},
        {"exit 76", SEL_EXEC_FATAL, "FatalTaskError", "exit status 76"},
        {"echo '{\"class\": \"Gone\", \"message\": \"m\"}' >&2; exit 76", SEL_EXEC_FATAL, "Gone",
         "m"},
        {"kill -SEGV $$", SEL_EXEC_FAILURE, "ExecError", "killed by signal 11 (SIGSEGV"},
        {"echo why >&2; kill -KILL $$", SEL_EXEC_FAILURE, "ExecError", "Killed): why"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        set_script(cases[i].script);
        struct sel_exec_result result = run();
        assert_int_equal(result.outcome, cases[i].outcome);
        assert_string_equal(result.error_class, cases[i].error_class);
        if (!strstr(result.error_message, cases[i].part))
            fail_msg("case %zu: '%s' is not in '%s'", i, cases[i].part, result.error_message);
    }
}

static void test_failures_have_a_class_and_a_reason(void **state)
{
    (void)state;
    sel_in_both(check_failures, NULL);
}

static void test_a_program_asks_for_a_retry(void **state)
{
    (void)state;
    const struct {
        const char *script;
        double seconds;
    } cases[] = {
        {"exit 75", 0.0},
        {"echo busy >&2; exit 75", 0.0},
        {"echo '{\"countdown\": 2.5}' >&2; exit 75", 2.5},
        {"echo busy >&2; echo '{\"countdown\": 7}' >&2; exit 75", 7.0},
        {"echo '{\"countdown\": \"x\"}' >&2; exit 75", 0.0},
        {"echo '{\"countdown\": -1}' >&2; exit 75", 0.0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        set_script(cases[i].script);
        struct sel_exec_result result = run();
        assert_int_equal(result.outcome, SEL_EXEC_RETRY);
        assert_true(result.retry_s == cases[i].seconds);
    }
}

static void check_time_limit(void *arg)
{
    (void)arg;
    set_script("sleep 1000 & wait");
    fake->tasks[SEL_FAKE_X].timeout_us = 20 * 1000;
    struct sel_exec_result result = run();
    assert_int_equal(result.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(result.error_class, "TimeoutError");
    assert_non_null(strstr(result.error_message, "0.02 s"));
}

static void test_a_program_that_hangs_is_ended(void **state)
{
    (void)state;
    sel_in_both(check_time_limit, NULL);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void test_trouble_before_the_start_is_a_failure(void **state)
{
    (void)state;
    set_command("sel-no-such-program", NULL, NULL);
    struct sel_exec_result result = run();
    assert_int_equal(result.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(result.error_class, "FileNotFound");

    fake->parents = "{\"T\": \"trouble\"}";
    set_script("true");
    result = run();
    assert_string_equal(result.error_class, "StorageError");
    assert_true(result.retry_s == 5.0);

    fake->parents = NULL;
    result = run();
    assert_string_equal(result.error_class, "RequestError");
}

static int run_once(void *ctx)
{
    (void)ctx;
    struct sel_arena arena = {0};
    struct sel_task *task = sel_task_new(&arena, &fake->env);
    struct sel_exec_result result = {.outcome = SEL_EXEC_FAILURE, .error_class = "MemoryError"};
    if (task)
        sel_runtime_exec.run(NULL, NULL, task, &result);
    sel_task_done(task);
    bool is_success = result.outcome == SEL_EXEC_SUCCESS;
    if (!is_success)
        assert_string_equal(result.error_class, "MemoryError");
    sel_arena_done(&arena);
    return is_success ? 0 : SEL_ENOMEM;
}

static void test_each_failed_allocation_is_a_memory_error(void **state)
{
    (void)state;
    fake->host = (struct sel_task_host){0};
    set_command("cat", NULL, NULL);
    sel_test_each_alloc_fails(run_once, NULL);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

struct cancelled {
    struct sel_exec_result result;
};

static void run_cancelled(void *arg)
{
    struct cancelled *c = arg;
    c->result = run();
}

static void check_cancel(void *arg)
{
    struct sel_co *co;
    assert_ok(sel_loop_spawn(sel_loop_current(), run_cancelled, arg, &co));
    assert_ok(sel_co_sleep(10 * 1000));
    sel_loop_cancel(sel_loop_current(), co);
}

static void test_a_cancelled_program_is_ended(void **state)
{
    (void)state;
    struct cancelled c;
    set_script("sleep 1000 & wait");
    sel_in_loop(check_cancel, &c);
    assert_int_equal(c.result.outcome, SEL_EXEC_CANCELED);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* ---- start-up ---- */

static void test_programs_that_are_not_there_show_at_the_start(void **state)
{
    (void)state;
    void *code;
    struct sel_error err = {0};
    struct sel_task_def *def = &fake->tasks[SEL_FAKE_X];
    def->pos = (struct sel_pos){"nodes.yaml", 7, 3};
    set_script("true");
    assert_ok(sel_runtime_exec.prepare(NULL, def, &code, &err));
    set_command("sel-no-such-program", NULL, NULL);
    assert_code(sel_runtime_exec.prepare(NULL, def, &code, &err), SEL_ENOTFOUND);
    assert_string_equal(err.text, "task 'X': program 'sel-no-such-program': not found on PATH");
    assert_int_equal(err.pos.line, 7);
    set_command("/etc/passwd", NULL, NULL);
    assert_code(sel_runtime_exec.prepare(NULL, def, &code, &err), SEL_ENOTFOUND);
    set_command("", NULL, NULL);
    assert_code(sel_runtime_exec.prepare(NULL, def, &code, &err), SEL_ECONFIG);
    def->command_count = 0;
    assert_code(sel_runtime_exec.prepare(NULL, def, &code, &err), SEL_ECONFIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_program_gets_all_about_its_task),
        TEST(test_results_are_json_or_nothing),
        TEST(test_failures_have_a_class_and_a_reason),
        TEST(test_a_program_asks_for_a_retry),
        TEST(test_a_program_that_hangs_is_ended),
        TEST(test_trouble_before_the_start_is_a_failure),
        TEST(test_each_failed_allocation_is_a_memory_error),
        TEST(test_a_cancelled_program_is_ended),
        TEST(test_programs_that_are_not_there_show_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
