#include "cli/case.h"

#include "tests/support/program.h"

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

static const char *process_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "OF_PROCESS") == 0 || strcmp(name, "OF_BOTH") == 0 ? "process" : NULL;
}

static const struct sel_cli cli = {.program = "test", .getenv = process_getenv};

static int load(const struct sel_test_folder *folder, struct sel_arena *arena, const char *text,
                struct sel_cli_case *ret, struct sel_error *err)
{
    char path[512];
    sel_test_write(folder, "case.json", sel_str_c(text));
    (void)snprintf(path, sizeof(path), "%s/case.json", folder->path);
    const char *own = sel_arena_strdup(arena, sel_str_c(path));
    assert_non_null(own);
    return sel_cli_case_load(&cli, arena, own, ret, err);
}

static void test_a_whole_case_is_read(void **state)
{
    struct sel_arena arena = {0};
    struct sel_cli_case c;
    struct sel_error err;
    assert_ok(load(*state, &arena,
                   "{\"flow\": \"main\", \"node_args\": {\"a\": 1}, \"mock\": {\"tasks\": {}},"
                   " \"selective\": {\"tasks\": [\"x\", \"y\"], \"run_subsequent\": true},"
                   " \"env\": {\"OF_CASE\": \"case\", \"OF_BOTH\": \"case\"},"
                   " \"preset\": [{\"id\": \"i1\", \"task\": \"x\", \"result\": 5}]}",
                   &c, &err));
    assert_string_equal(c.flow, "main");
    assert_true(sel_value_is(c.node_args, SEL_MAP));
    assert_true(c.is_selective && c.selective.run_subsequent && !c.selective.follow_subflows);
    assert_int_equal(c.selective.task_count, 2);
    assert_str_is(c.selective.tasks[1], "y");
    assert_int_equal(c.preset_count, 1);
    assert_string_equal(c.presets[0].id, "i1");
    assert_str_is(c.presets[0].task, "x");
    assert_non_null(sel_value_get_c(&c.script, "tasks"));
    assert_string_equal(sel_cli_case_getenv(&c, "OF_CASE"), "case");
    assert_string_equal(sel_cli_case_getenv(&c, "OF_BOTH"), "case");
    assert_string_equal(sel_cli_case_getenv(&c, "OF_PROCESS"), "process");
    assert_null(sel_cli_case_getenv(&c, "OF_NOBODY"));
    sel_arena_done(&arena);
}

static void test_a_script_alone_says_nothing_else(void **state)
{
    struct sel_arena arena = {0};
    struct sel_cli_case c;
    struct sel_error err;
    assert_ok(
        load(*state, &arena, "{\"tasks\": {\"a\": [{\"result\": 1}]}, \"flow\": 5}", &c, &err));
    assert_null(c.flow);
    assert_null(c.node_args);
    assert_false(c.is_selective);
    assert_int_equal(c.preset_count, 0);
    assert_string_equal(sel_cli_case_getenv(&c, "OF_BOTH"), "process");
    sel_arena_done(&arena);
}

static void test_wrong_forms_are_named(void **state)
{
    static const struct {
        const char *text, *in_text;
        int code;
    } cases[] = {
        {"", "", SEL_ESYNTAX},
        {"[]", "must be an object", SEL_EREQUEST},
        {"{\"mock\": {}, \"flow\": 5}", "`flow`", SEL_EREQUEST},
        {"{\"mock\": {}, \"env\": {\"a\": 1}}", "`env`", SEL_EREQUEST},
        {"{\"mock\": {}, \"env\": []}", "`env`", SEL_EREQUEST},
        {"{\"mock\": {}, \"selective\": true}", "`selective`", SEL_EREQUEST},
        {"{\"mock\": {}, \"selective\": {\"tasks\": []}}", "`selective`", SEL_EREQUEST},
        {"{\"mock\": {}, \"selective\": {\"tasks\": [1]}}", "`selective.tasks`", SEL_EREQUEST},
        {"{\"mock\": {}, \"selective\": {\"tasks\": [\"a\"], \"follow_subflows\": 1}}",
         "true or false", SEL_EREQUEST},
        {"{\"mock\": {}, \"preset\": {}}", "`preset`", SEL_EREQUEST},
        {"{\"mock\": {}, \"preset\": [{\"id\": \"a\"}]}", "`preset`", SEL_EREQUEST},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_cli_case c;
        struct sel_error err;
        int r = load(*state, &arena, cases[i].text, &c, &err);
        if (r != cases[i].code || !strstr(err.text, cases[i].in_text) || !err.pos.file)
            fail_msg("%s: %s, '%s'", cases[i].text, sel_error_name(r), err.text);
        sel_arena_done(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_case_is_read),
        cmocka_unit_test(test_a_script_alone_says_nothing_else),
        cmocka_unit_test(test_wrong_forms_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
