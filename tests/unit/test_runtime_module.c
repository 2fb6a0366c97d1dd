#include "tests/support/fake_host.h"
#include "tests/support/in_loop.h"
#include "worker/module.h"

static struct sel_fake *fake;
static struct sel_modules *modules;

static int setup(void **state)
{
    static struct sel_fake the_fake;
    (void)state;
    fake = &the_fake;
    sel_fake_init(fake);
    modules = sel_modules_new(SEL_TEST_MODULES);
    return modules ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    modules = sel_modules_free(modules);
    sel_fake_done(fake);
    return 0;
}

static void *prepare(uint32_t task, const char *class_name)
{
    struct sel_error err = {0};
    void *code = NULL;
    fake->tasks[task].import = (struct sel_import){SEL_STR("good"), sel_str_c(class_name), {0}};
    fake->env.task = &fake->tasks[task];
    assert_ok(sel_runtime_module.prepare(modules, fake->env.task, &code, &err));
    return code;
}

static struct sel_exec_result run(void *code)
{
    struct sel_task *task = sel_fake_task(fake);
    struct sel_exec_result result;
    sel_runtime_module.run(modules, code, task, &result);
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

static void check_greet(void *code)
{
    struct sel_exec_result result = run(code);
    assert_string_equal(value_text(&result), "{\"greeting\":\"world\",\"retried\":0}");
}

static void test_a_function_of_a_module_runs(void **state)
{
    (void)state;
    sel_fake_set_args(fake, "{\"name\": \"world\"}");
    sel_in_both(check_greet, prepare(SEL_FAKE_T, "Greet"));
    sel_in_both(check_greet, prepare(SEL_FAKE_B, "Greet")); /* blocking */
}

static void check_failure(void *code)
{
    struct sel_exec_result result = run(code);
    assert_int_equal(result.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(result.error_class, "ArgumentError");
}

static void test_its_failure_is_an_outcome(void **state)
{
    (void)state;
    sel_in_both(check_failure, prepare(SEL_FAKE_T, "Greet"));
    sel_in_both(check_failure, prepare(SEL_FAKE_B, "Greet"));
}

static void check_deferred(void *code)
{
    bool flag = false;
    char args[64];
    snprintf(args, sizeof(args), "{\"flag\": %lld}", (long long)(intptr_t)&flag);
    sel_fake_set_args(fake, args);
    struct sel_task *task = sel_fake_task(fake);
    struct sel_exec_result result;
    sel_runtime_module.run(modules, code, task, &result);
    assert_true(flag); /* on the thread of the function, so before run returns */
    assert_string_equal(result.error_class, "Deliberate");
    sel_task_done(task);
}

static void test_clean_ups_run_with_the_function(void **state)
{
    (void)state;
    sel_in_both(check_deferred, prepare(SEL_FAKE_T, "Defers"));
    sel_in_both(check_deferred, prepare(SEL_FAKE_B, "Defers"));
}

static void check_thread_count(void *code)
{
    struct sel_exec_result result = run(code);
    assert_string_equal(value_text(&result), "1");
}

static void test_threads_of_the_pool_are_initialised(void **state)
{
    (void)state;
    sel_in_loop(check_thread_count, prepare(SEL_FAKE_B, "ThreadCount"));
}

static void test_missing_code_is_an_error_with_its_place(void **state)
{
    (void)state;
    struct sel_error err = {0};
    void *code;
    struct sel_task_def *def = &fake->tasks[SEL_FAKE_T];
    def->import = (struct sel_import){SEL_STR("good"), SEL_STR("Gret"), {"nodes.yaml", 3, 5}};
    assert_code(sel_runtime_module.prepare(modules, def, &code, &err), SEL_ENOTFOUND);
    assert_non_null(strstr(err.text, "did you mean 'Greet'"));
    assert_int_equal(err.pos.line, 3);
}

static void check_module_error(void *code)
{
    struct sel_exec_result result = run(code);
    assert_int_equal(result.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(result.error_class, "ModuleError");
}

static void test_a_thread_that_a_module_refuses_fails_the_task(void **state)
{
    (void)state;
    const struct sel_module_entry *entry;
    assert_ok(sel_modules_find(modules, SEL_MODULE_TASK, SEL_STR("init_fails"), SEL_STR("One"),
                               &entry, NULL));
    fake->env.task = &fake->tasks[SEL_FAKE_B];
    sel_in_loop(check_module_error, (void *)(uintptr_t)entry);
}

/* ---- many, cancelled ---- */

struct sleeper {
    void *code;
    struct sel_arena arena;
    struct sel_exec_result result;
};

static void sleep_once(void *arg)
{
    struct sleeper *s = arg;
    struct sel_task *task = sel_task_new(&s->arena, &fake->env);
    assert_non_null(task);
    sel_runtime_module.run(modules, s->code, task, &s->result);
    sel_task_done(task);
}

static void start_many(void *arg)
{
    struct sleeper *sleepers = arg;
    for (int i = 0; i < 40; i++)
        assert_ok(sel_loop_spawn(sel_loop_current(), sleep_once, &sleepers[i], NULL));
}

static void test_more_blocking_tasks_than_the_pool_holds_wait_for_their_turn(void **state)
{
    (void)state;
    static struct sleeper sleepers[40]; /* 2 threads, 16 waiting */
    void *code = prepare(SEL_FAKE_B, "Sleeps");
    sel_fake_set_args(fake, "{\"seconds\": 0.001}");
    for (int i = 0; i < 40; i++)
        sleepers[i] = (struct sleeper){.code = code};
    sel_in_loop(start_many, sleepers);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(sleepers[i].result.outcome, SEL_EXEC_SUCCESS);
        sel_arena_done(&sleepers[i].arena);
    }
}

static void cancel_soon(void *arg)
{
    struct sel_co *co;
    assert_ok(sel_loop_spawn(sel_loop_current(), sleep_once, arg, &co));
    assert_ok(sel_co_sleep(10 * 1000));
    sel_loop_cancel(sel_loop_current(), co);
}

static void test_a_cancelled_task_ends_at_its_next_suspension(void **state)
{
    (void)state;
    for (uint32_t task = SEL_FAKE_T; task <= SEL_FAKE_B; task += SEL_FAKE_B - SEL_FAKE_T) {
        struct sleeper s = {.code = prepare(task, "Sleeps")};
        sel_fake_set_args(fake, "{\"seconds\": 1000}");
        sel_in_loop(cancel_soon, &s);
        assert_int_equal(s.result.outcome, SEL_EXEC_CANCELED);
        sel_arena_done(&s.arena);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_function_of_a_module_runs),
        TEST(test_its_failure_is_an_outcome),
        TEST(test_clean_ups_run_with_the_function),
        TEST(test_threads_of_the_pool_are_initialised),
        TEST(test_missing_code_is_an_error_with_its_place),
        TEST(test_a_thread_that_a_module_refuses_fails_the_task),
        TEST(test_more_blocking_tasks_than_the_pool_holds_wait_for_their_turn),
        TEST(test_a_cancelled_task_ends_at_its_next_suspension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
