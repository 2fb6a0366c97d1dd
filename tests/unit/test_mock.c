#include "tests/support/test.h"

#include "worker/mock.h"

/* Tasks a and b of class A, c of class C, d without a class. */
struct scene {
    struct sel_arena arena;
    struct sel_task_def tasks[4];
    struct sel_system system;
    struct sel_mock *mock;
    struct sel_value script;
    struct sel_error err;
};

static int make(struct scene *s, const char *script)
{
    static const char *const names[] = {"a", "b", "c", "d"}, *const classes[] = {"A", "A", "C",
                                                                                 "d"};
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < SEL_COUNT(s->tasks); i++) {
        s->tasks[i].name = sel_str_c(names[i]);
        s->tasks[i].import.name = sel_str_c(classes[i]);
    }
    s->system = (struct sel_system){.tasks = s->tasks, .task_count = SEL_COUNT(s->tasks)};
    s->script = sel_test_json(&s->arena, script);
    return sel_mock_new(&s->system, &s->script, &s->mock, &s->err);
}

static void done(struct scene *s)
{
    sel_mock_free(s->mock);
    sel_arena_done(&s->arena);
}

static struct sel_exec_result run(struct scene *s, uint32_t task)
{
    struct sel_exec_result result;
    void *code;
    assert_ok(sel_runtime_mock.prepare(s->mock, &s->tasks[task], &code, &s->err));
    sel_runtime_mock.run(s->mock, code, NULL, &result);
    return result;
}

/* The outcome of the next execution as text. */
static const char *next(struct scene *s, uint32_t task)
{
    struct sel_exec_result result = run(s, task);
    struct sel_value value;
    switch (result.outcome) {
    case SEL_EXEC_SUCCESS:
        assert_ok(sel_value_decode(&s->arena, result.value.p, result.value.n, false, &value, NULL));
        return sel_test_json_text(&s->arena, &value);
    case SEL_EXEC_RETRY:
        return sel_arena_printf(&s->arena, "retry %g", result.retry_s);
    case SEL_EXEC_FATAL:
        return sel_arena_printf(&s->arena, "fatal %s", result.error_class);
    default:
        return sel_arena_printf(&s->arena, "failure %s", result.error_class);
    }
}

static void test_steps_are_taken_in_turn_and_the_last_repeats(void **state)
{
    (void)state;
    struct scene s;
    assert_ok(make(&s, "{\"tasks\": {\"a\": [{\"result\": {\"x\": 1.0}}, {\"raise\": \"KeyError\"},"
                       " {\"retry\": 2.5}, {\"fatal\": true}, {\"result\": [1, null]}]}}"));
    const char *const expected[] = {"{\"x\":1.0}",          "failure KeyError", "retry 2.5",
                                    "fatal FatalTaskError", "[1,null]",         "[1,null]"};
    for (size_t i = 0; i < SEL_COUNT(expected); i++)
        assert_string_equal(next(&s, 0), expected[i]);
    assert_string_equal(next(&s, 1), "null"); /* not in the script */
    done(&s);
}

static void test_a_class_speaks_for_its_tasks_that_have_no_script(void **state)
{
    (void)state;
    struct scene s;
    assert_ok(make(&s, "{\"classes\": {\"A\": [{\"result\": 1}, {\"result\": 2}],"
                       " \"Nobody\": [{\"result\": 0}]},"
                       " \"tasks\": {\"b\": [{\"result\": \"own\"}]}}"));
    assert_string_equal(next(&s, 0), "1");
    assert_string_equal(next(&s, 1), "\"own\"");
    assert_string_equal(next(&s, 0), "2");
    assert_string_equal(next(&s, 2), "null");
    done(&s);
}

static void test_each_task_of_a_class_counts_for_itself(void **state)
{
    (void)state;
    struct scene s;
    assert_ok(make(&s, "{\"classes\": {\"A\": [{\"result\": 1}, {\"result\": 2}]}}"));
    assert_string_equal(next(&s, 0), "1");
    assert_string_equal(next(&s, 1), "1");
    assert_string_equal(next(&s, 0), "2");
    assert_string_equal(next(&s, 1), "2");
    done(&s);
}

static void test_functions_return_a_value_or_a_place_in_the_arguments(void **state)
{
    (void)state;
    struct scene s;
    struct sel_value value;
    assert_ok(make(&s, "{\"functions\": {\"m.n:always\": {\"return\": [1, 2]},"
                       " \"m.n:look\": {\"args_key\": [\"a\", \"b\"]},"
                       " \"m.n:odd\": {\"yield\": 1}}}"));
    struct sel_value args = sel_test_json(&s.arena, "{\"a\": {\"b\": \"here\"}}");
    struct sel_value others[] = {sel_test_json(&s.arena, "{\"a\": 5}"), sel_value_null,
                                 sel_test_json(&s.arena, "[]")};
    struct sel_import import = {SEL_STR("m.n"), SEL_STR("always"), {0}};
    assert_ok(sel_mock_function(s.mock, &import, &args, &s.arena, &value, &s.err));
    assert_json(&value, "[1,2]");
    import.name = SEL_STR("look");
    assert_ok(sel_mock_function(s.mock, &import, &args, &s.arena, &value, &s.err));
    assert_json(&value, "\"here\"");
    for (size_t i = 0; i < SEL_COUNT(others); i++) {
        assert_ok(sel_mock_function(s.mock, &import, &others[i], &s.arena, &value, &s.err));
        assert_json(&value, "null");
    }
    import.name = SEL_STR("missing");
    assert_code(sel_mock_function(s.mock, &import, &args, &s.arena, &value, &s.err), SEL_ENOTFOUND);
    assert_non_null(strstr(s.err.text, "m.n:missing"));
    import.name = SEL_STR("odd");
    assert_code(sel_mock_function(s.mock, &import, &args, &s.arena, &value, &s.err), SEL_EREQUEST);
    done(&s);
}

static void test_an_empty_script_lets_every_task_return_null(void **state)
{
    (void)state;
    const char *const scripts[] = {"{}", "{\"tasks\": null}", "{\"tasks\": {}, \"functions\": {}}",
                                   "{\"tasks\": {\"unknown\": [{\"result\": 1}]}}"};
    for (size_t i = 0; i < SEL_COUNT(scripts); i++) {
        struct scene s;
        assert_ok(make(&s, scripts[i]));
        assert_string_equal(next(&s, 3), "null");
        done(&s);
    }
}

static void test_malformed_scripts_are_refused_with_their_place(void **state)
{
    (void)state;
    const struct {
        const char *script, *place;
    } cases[] = {
        {"[]", "the script"},
        {"7", "the script"},
        {"{\"tasks\": []}", "tasks"},
        {"{\"functions\": 1}", "functions"},
        {"{\"tasks\": {\"a\": []}}", "'a'"},
        {"{\"tasks\": {\"a\": {\"result\": 1}}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"result\": 1, \"raise\": \"E\"}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"raise\": 1}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"fatal\": false}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"retry\": \"soon\"}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"retry\": -1}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [{\"wait\": 1}]}}", "'a'"},
        {"{\"tasks\": {\"a\": [null]}}", "'a'"},
        {"{\"classes\": {\"A\": [1]}}", "'A'"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct scene s;
        if (make(&s, cases[i].script) != SEL_EREQUEST)
            fail_msg("%s", cases[i].script);
        if (!strstr(s.err.text, cases[i].place))
            fail_msg("%s: %s", cases[i].script, s.err.text);
        assert_null(s.mock);
        done(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_are_taken_in_turn_and_the_last_repeats),
        cmocka_unit_test(test_a_class_speaks_for_its_tasks_that_have_no_script),
        cmocka_unit_test(test_each_task_of_a_class_counts_for_itself),
        cmocka_unit_test(test_functions_return_a_value_or_a_place_in_the_arguments),
        cmocka_unit_test(test_an_empty_script_lets_every_task_return_null),
        cmocka_unit_test(test_malformed_scripts_are_refused_with_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
