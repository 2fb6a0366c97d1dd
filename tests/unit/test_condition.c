#include "tests/support/test.h"

#include <math.h>

#include "core/condition.h"

/* ---- building trees by hand ---- */

static struct sel_cond leaf(struct sel_arena *arena, const char *name, const char *args)
{
    const struct sel_predicate *builtin = sel_predicate_find(sel_str_c(name));
    struct sel_cond cond = {
        .op = SEL_COND_LEAF,
        .builtin = builtin,
        .name = sel_str_c(name),
        .input = builtin ? builtin->input : SEL_INPUT_NONE,
        .from_index = SEL_COND_NO_NODE,
        .args = sel_test_json(arena, args ? args : "{}"),
    };
    struct sel_value *copies = SEL_ARENA_NEW_ARRAY(arena, struct sel_value, SEL_PREDICATE_ARGS_MAX);
    assert_non_null(copies);
    for (uint32_t i = 0; builtin && i < builtin->arg_count; i++) {
        const struct sel_value *arg = sel_value_get_c(&cond.args, builtin->args[i]);
        assert_non_null(arg);
        copies[i] = *arg;
        cond.arg_values[i] = &copies[i];
    }
    return cond;
}

static struct sel_cond leaf_of(struct sel_arena *arena, const char *name, const char *args,
                               uint32_t from_index, const char *node)
{
    struct sel_cond cond = leaf(arena, name, args);
    cond.from_index = from_index;
    cond.node = sel_str_c(node);
    return cond;
}

static struct sel_cond join(enum sel_cond_op op, const struct sel_cond *const *children,
                            uint32_t count)
{
    return (struct sel_cond){.op = op, .child_count = count, .children = children};
}

/* ---- an environment that notes what is asked ---- */

struct asked {
    uint32_t messages[8], message_count;
    uint32_t external_count;
    int message_code, external_code;
    bool external_had_message;
    struct sel_value message;
};

static int give_message(void *ctx, uint32_t from_index, const struct sel_value **ret)
{
    struct asked *asked = ctx;
    assert_true(asked->message_count < SEL_COUNT(asked->messages));
    asked->messages[asked->message_count++] = from_index;
    if (asked->message_code < 0)
        return asked->message_code;
    *ret = &asked->message;
    return 0;
}

static int give_external(void *ctx, const struct sel_cond *cond, const struct sel_value *message)
{
    (void)cond;
    struct asked *asked = ctx;
    asked->external_count++;
    asked->external_had_message = message != NULL;
    return asked->external_code;
}

static int eval(const struct sel_cond *cond, struct asked *asked)
{
    struct sel_cond_env env = {.ctx = asked, .message = give_message, .external = give_external};
    return sel_cond_eval(cond, &env);
}

/* ---- evaluation ---- */

static void test_nothing_written_is_always_true(void **state)
{
    (void)state;
    struct sel_cond cond = {.op = SEL_COND_TRUE};
    struct asked asked = {0};
    assert_int_equal(eval(&cond, &asked), 1);
    assert_false(sel_cond_needs_message(&cond));
}

static void test_and_or_not_follow_their_truth_tables(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond leaves[] = {leaf(&arena, "alwaysFalse", NULL),
                                leaf(&arena, "alwaysTrue", NULL)};
    struct asked asked = {0};
    for (int a = 0; a < 2; a++) {
        for (int b = 0; b < 2; b++) {
            const struct sel_cond *children[] = {&leaves[a], &leaves[b]};
            struct sel_cond both = join(SEL_COND_AND, children, 2);
            struct sel_cond any = join(SEL_COND_OR, children, 2);
            struct sel_cond first = join(SEL_COND_NOT, children, 1);
            assert_int_equal(eval(&both, &asked), a && b);
            assert_int_equal(eval(&any, &asked), a || b);
            assert_int_equal(eval(&first, &asked), !a);
        }
    }
    sel_arena_done(&arena);
}

static void test_messages_are_asked_for_left_to_right_and_only_if_they_matter(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond yes = leaf_of(&arena, "isNone", NULL, 1, "B");
    struct sel_cond no = leaf_of(&arena, "isInt", NULL, 0, "A");
    const struct sel_cond *yes_no[] = {&yes, &no}, *no_yes[] = {&no, &yes};
    struct sel_cond any = join(SEL_COND_OR, yes_no, 2), both = join(SEL_COND_AND, no_yes, 2);
    struct sel_cond late = join(SEL_COND_OR, no_yes, 2);
    struct asked asked = {0};
    assert_int_equal(eval(&any, &asked), 1);
    assert_int_equal(asked.message_count, 1);
    assert_int_equal(asked.messages[0], 1);

    asked = (struct asked){0};
    assert_int_equal(eval(&both, &asked), 0);
    assert_int_equal(asked.message_count, 1);
    assert_int_equal(asked.messages[0], 0);

    asked = (struct asked){0};
    assert_int_equal(eval(&late, &asked), 1);
    assert_int_equal(asked.message_count, 2);
    assert_int_equal(asked.messages[1], 1);
    sel_arena_done(&arena);
}

static void test_a_missing_answer_is_passed_on(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond field = leaf_of(&arena, "isNone", NULL, 0, "A");
    struct sel_cond http =
        leaf(&arena, "httpStatus", "{\"host\":\"h\",\"path\":\"/\",\"status\":200}");
    struct sel_cond no = leaf(&arena, "alwaysFalse", NULL);
    const struct {
        const struct sel_cond *cond;
        int message_code, external_code, expected;
    } cases[] = {
        {&field, SEL_ENEED, 0, SEL_ENEED},
        {&field, SEL_ESTORAGE, 0, SEL_ESTORAGE},
        {&http, 0, SEL_ENEED, SEL_ENEED},
        {&http, 0, SEL_EFAILED, SEL_EFAILED},
        {&http, 0, 1, 1},
        {&http, 0, 0, 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const struct sel_cond *children[] = {&no, cases[i].cond};
        struct sel_cond any = join(SEL_COND_OR, children, 2);
        const struct sel_cond *outer[] = {&any};
        struct sel_cond twice = join(SEL_COND_NOT, outer, 1);
        struct asked asked = {.message_code = cases[i].message_code,
                              .external_code = cases[i].external_code};
        int expected = cases[i].expected;
        assert_int_equal(eval(&any, &asked), expected);
        assert_int_equal(eval(&twice, &asked), expected < 0 ? expected : !expected);
    }
    sel_arena_done(&arena);
}

static void test_user_predicates_get_a_message_if_they_take_one(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond user = leaf(&arena, "isRipe", "{\"days\":3}");
    struct asked asked = {.external_code = 1};
    assert_int_equal(eval(&user, &asked), 1);
    assert_int_equal(asked.message_count, 0);
    assert_false(asked.external_had_message);
    assert_false(sel_cond_needs_message(&user));

    user.input = SEL_INPUT_MESSAGE;
    user.from_index = 2;
    assert_int_equal(eval(&user, &asked), 1);
    assert_int_equal(asked.messages[0], 2);
    assert_true(asked.external_had_message);
    assert_true(sel_cond_needs_message(&user));
    sel_arena_done(&arena);
}

static void test_arguments_that_are_missing_are_null(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond cond = leaf(&arena, "argsIsNone", NULL);
    struct asked asked = {0};
    assert_int_equal(eval(&cond, &asked), 1);
    sel_arena_done(&arena);
}

static void test_the_need_of_a_message_is_found_at_any_depth(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond deep = leaf_of(&arena, "empty", NULL, 0, "A");
    struct sel_cond flat = leaf(&arena, "argsEmpty", NULL);
    const struct sel_cond *inner[] = {&deep};
    struct sel_cond not_deep = join(SEL_COND_NOT, inner, 1);
    const struct sel_cond *children[] = {&flat, &not_deep};
    struct sel_cond with = join(SEL_COND_OR, children, 2), without = join(SEL_COND_OR, children, 1);
    assert_true(sel_cond_needs_message(&with));
    assert_false(sel_cond_needs_message(&without));
    sel_arena_done(&arena);
}

/* ---- text ---- */

static void test_leaves_are_written_as_calls(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        struct sel_cond cond;
        const char *text;
    } cases[] = {
        {{.op = SEL_COND_TRUE}, "True"},
        {leaf(&arena, "alwaysTrue", NULL), "alwaysTrue()"},
        {leaf_of(&arena, "isDict", NULL, 0, "A"), "isDict(db.get('A'))"},
        {leaf_of(&arena, "isDict", NULL, SEL_COND_NO_NODE, ""), "isDict(db.get('None'))"},
        {leaf_of(&arena, "fieldEqual", "{\"key\":\"k\",\"value\":\"it's \\\"\\n\"}", 0, "A"),
         "fieldEqual(db.get('A'), key='k', value='it's \"\n')"},
        {leaf(&arena, "argsFieldEqual", "{\"value\":1.0,\"key\":[\"a\",-1]}"),
         "argsFieldEqual(value=1.0, key=['a', -1])"},
        {leaf(&arena, "envExist", "{\"env\":\"A\"}"), "envExist(env='A')"},
        {leaf(&arena, "envExist", "{\"env\":\"\\u0000A\\u0000\"}"), "envExist(env='\\x00A\\x00')"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_string_equal(sel_cond_format(&arena, &cases[i].cond), cases[i].text);
    sel_arena_done(&arena);
}

static void test_operators_are_written_in_brackets(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond yes = leaf(&arena, "alwaysTrue", NULL), no = leaf(&arena, "alwaysFalse", NULL);
    const struct sel_cond *negated[] = {&no};
    struct sel_cond not_no = join(SEL_COND_NOT, negated, 1);
    const struct sel_cond *three[] = {&yes, &not_no, &no};
    struct sel_cond any = join(SEL_COND_OR, three, 3), one = join(SEL_COND_AND, three, 1);
    const struct sel_cond *two[] = {&any, &one};
    struct sel_cond both = join(SEL_COND_AND, two, 2);
    assert_string_equal(sel_cond_format(&arena, &both),
                        "((alwaysTrue() or (not alwaysFalse()) or alwaysFalse()) and "
                        "(alwaysTrue()))");
    sel_arena_done(&arena);
}

static void test_values_in_lists_are_written_as_the_original_does(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        const char *json, *text;
    } cases[] = {
        {"null", "None"},
        {"true", "True"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
        {"1.0", "1.0"},
        {"-0.0", "-0.0"},
        {"0.1", "0.1"},
        {"0.0001", "0.0001"},
        {"0.00001", "1e-05"},
        {"123456.789", "123456.789"},
        {"1e15", "1000000000000000.0"},
        {"9007199254740993.0", "9007199254740992.0"},
        {"1e16", "1e+16"},
        {"1.5e300", "1.5e+300"},
        {"5e-324", "5e-324"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"\"plain\"", "'plain'"},
        {"\"it's\"", "\"it's\""},
        {"\"say \\\"it's\\\"\"", "'say \"it\\'s\"'"},
        {"\"a\\\\b\\n\\r\\t\\u0000\\u007f\"", "'a\\\\b\\n\\r\\t\\x00\\x7f'"},
        {"\"\\u00e9\\u010d\\ud83d\\udea2\"", "'\u00e9\u010d\U0001F6A2'"},
        {"\"\\ufdd0\\uffff\"", "'\\ufdd0\\uffff'"},
        {"\"\\u00a0\\u00ad\\u200b\\ufeff\\ud834\\udd73\"", "'\\xa0\\xad\\u200b\\ufeff\\U0001d173'"},
        {"{\"a\":[],\"b\":{}}", "{'a': [], 'b': {}}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_cond cond = leaf(&arena, "alwaysTrue", NULL);
        cond.args = sel_test_json(&arena, sel_arena_printf(&arena, "{\"x\":[%s]}", cases[i].json));
        const char *expected = sel_arena_printf(&arena, "alwaysTrue(x=[%s])", cases[i].text);
        assert_string_equal(sel_cond_format(&arena, &cond), expected);
    }
    sel_arena_done(&arena);
}

static void test_values_that_json_lacks_are_written_too(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value items[] = {
        sel_value_from_f64(NAN),
        sel_value_from_f64(INFINITY),
        sel_value_from_f64(-INFINITY),
        {{.type = MSGPACK_OBJECT_BIN, .via.bin = {4, "a'\xff\n"}}},
    };
    struct sel_value_builder b;
    struct sel_cond cond = leaf(&arena, "alwaysTrue", NULL);
    sel_value_begin_map(&b, &arena);
    sel_value_put_key(&b, sel_value_from_c("x"), sel_value_from_list(items, SEL_COUNT(items)));
    sel_value_put_key(&b, sel_value_from_i64(7), sel_value_null);
    assert_ok(sel_value_end(&b, &cond.args));
    assert_string_equal(sel_cond_format(&arena, &cond),
                        "alwaysTrue(x=[nan, inf, -inf, b\"a'\\xff\\n\"], 7=None)");
    sel_arena_done(&arena);
}

static int format_once(void *ctx)
{
    struct sel_arena arena = {0};
    const char *text = sel_cond_format(&arena, ctx);
    if (text)
        assert_string_equal(text, "argsFieldEqual(key='k', value=[1])");
    sel_arena_done(&arena);
    return text ? 0 : SEL_ENOMEM;
}

static void test_formatting_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_cond cond = leaf(&arena, "argsFieldEqual", "{\"key\":\"k\",\"value\":[1]}");
    sel_test_each_alloc_fails(format_once, &cond);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_written_is_always_true),
        cmocka_unit_test(test_and_or_not_follow_their_truth_tables),
        cmocka_unit_test(test_messages_are_asked_for_left_to_right_and_only_if_they_matter),
        cmocka_unit_test(test_a_missing_answer_is_passed_on),
        cmocka_unit_test(test_user_predicates_get_a_message_if_they_take_one),
        cmocka_unit_test(test_arguments_that_are_missing_are_null),
        cmocka_unit_test(test_the_need_of_a_message_is_found_at_any_depth),
        cmocka_unit_test(test_leaves_are_written_as_calls),
        cmocka_unit_test(test_operators_are_written_in_brackets),
        cmocka_unit_test(test_values_in_lists_are_written_as_the_original_does),
        cmocka_unit_test(test_values_that_json_lacks_are_written_too),
        cmocka_unit_test(test_formatting_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
