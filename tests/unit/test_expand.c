#include "tests/support/test.h"

#include "core/expand.h"

static const char *fake_getenv(void *ctx, const char *name)
{
    (void)ctx;
    if (strcmp(name, "STAGE") == 0)
        return "test";
    if (strcmp(name, "BRACES") == 0)
        return "{STAGE}";
    return strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static const struct sel_predicate_world world = {fake_getenv, NULL};
static const struct sel_pos at = {"n.yaml", 3, 7};

static void test_variables_and_braces_are_expanded(void **state)
{
    (void)state;
    const struct {
        const char *text, *expanded;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"{STAGE}", "test"},
        {"a_{STAGE}_{STAGE}_b", "a_test_test_b"},
        {"{{STAGE}}", "{STAGE}"},
        {"{{{STAGE}}}", "{test}"},
        {"}}{{", "}{"},
        {"<{EMPTY}>", "<>"},
        {"{BRACES}", "{STAGE}"}, /* values are not expanded again */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_str out;
        assert_ok(sel_expand(&arena, &world, sel_str_c(cases[i].text), at, &out, NULL));
        assert_str_is(out, cases[i].expanded);
        assert_int_equal(out.p[out.n], '\0');
        sel_arena_done(&arena);
    }
}

static void test_refusals_say_why(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int code;
        const char *part;
    } cases[] = {
        {"{NOPE}", SEL_ENOTFOUND, "'NOPE' is not set"},
        {"{ STAGE }", SEL_ENOTFOUND, "' STAGE ' is not set"},
        {"{STAGE", SEL_ESYNTAX, "lone '{'"},
        {"STAGE}", SEL_ESYNTAX, "lone '}'"},
        {"{", SEL_ESYNTAX, "lone '{'"},
        {"{STAGE}}", SEL_ESYNTAX, "lone '}'"},
        {"{}", SEL_ESYNTAX, "does not name"},
        {"{STAGE:>10}", SEL_ESYNTAX, "does not name"},
        {"{STAGE!r}", SEL_ESYNTAX, "does not name"},
        {"{A{B}", SEL_ESYNTAX, "does not name"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_str out = SEL_STR("untouched");
        struct sel_error err;
        assert_code(sel_expand(&arena, &world, sel_str_c(cases[i].text), at, &out, &err),
                    cases[i].code);
        assert_str_is(out, "untouched");
        assert_non_null(strstr(err.text, cases[i].part));
        assert_int_equal(err.pos.line, 3);
        sel_arena_done(&arena);
    }
}

static void test_without_a_world_no_variable_is_set(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_str out;
    assert_ok(sel_expand(&arena, NULL, SEL_STR("q"), at, &out, NULL));
    assert_code(sel_expand(&arena, NULL, SEL_STR("{STAGE}"), at, &out, NULL), SEL_ENOTFOUND);
    sel_arena_done(&arena);
}

static int expand_once(void *ctx)
{
    (void)ctx;
    struct sel_arena arena = {0};
    struct sel_str out;
    int r = sel_expand(&arena, &world, SEL_STR("a_{STAGE}_b"), at, &out, NULL);
    sel_arena_done(&arena);
    return r;
}

static void test_running_out_of_memory_is_told(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(expand_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables_and_braces_are_expanded),
        cmocka_unit_test(test_refusals_say_why),
        cmocka_unit_test(test_without_a_world_no_variable_is_set),
        cmocka_unit_test(test_running_out_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
