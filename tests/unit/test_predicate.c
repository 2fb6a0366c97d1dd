#include "tests/support/test.h"

#include <math.h>

#include "core/predicate.h"

/* Variables: A=x, EMPTY=, and nothing else. */
static const char *fake_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "A") == 0 ? "x" : strcmp(name, "EMPTY") == 0 ? "" : NULL;
}

static const struct sel_predicate_world world = {fake_getenv, NULL};

static bool answer(const char *name, const struct sel_value *input, const struct sel_value *a,
                   const struct sel_value *b)
{
    const struct sel_predicate *predicate = sel_predicate_find(sel_str_c(name));
    if (!predicate)
        fail_msg("no predicate '%s'", name);
    const struct sel_value *args[SEL_PREDICATE_ARGS_MAX] = {a, b, NULL};
    return predicate->eval(predicate, input, args, &world);
}

struct call {
    const char *name;
    const char *input, *key, *arg; /* JSON; NULL: not given */
    bool expected;
};

static void check(const struct call *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct call *c = &calls[i];
        struct sel_arena arena = {0};
        struct sel_value null = sel_value_null;
        struct sel_value input = c->input ? sel_test_json(&arena, c->input) : null;
        struct sel_value key = c->key ? sel_test_json(&arena, c->key) : null;
        struct sel_value arg = c->arg ? sel_test_json(&arena, c->arg) : null;
        if (answer(c->name, &input, &key, &arg) != c->expected)
            fail_msg("%s(%s, %s, %s) should be %d", c->name, c->input, c->key, c->arg, c->expected);
        sel_arena_done(&arena);
    }
}

static void test_the_table_is_sorted_and_finds_each_of_69(void **state)
{
    (void)state;
    uint32_t count;
    const struct sel_predicate *table = sel_predicate_table(&count);
    assert_int_equal(count, 69);
    for (uint32_t i = 0; i < count; i++) {
        assert_ptr_equal(sel_predicate_find(sel_str_c(table[i].name)), &table[i]);
        if (i > 0)
            assert_true(strcmp(table[i - 1].name, table[i].name) < 0);
    }
}

static void test_other_names_are_not_found(void **state)
{
    (void)state;
    const char *const names[] = {"", "field", "fieldEqua", "fieldEquals", "Empty", "zzz", "a"};
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        assert_null(sel_predicate_find(sel_str_c(names[i])));
}

static void test_signatures_are_those_of_the_original(void **state)
{
    (void)state;
    const struct {
        const char *name;
        enum sel_predicate_input input;
        const char *args; /* joined by commas */
    } cases[] = {
        {"alwaysTrue", SEL_INPUT_NONE, ""},
        {"argsEmpty", SEL_INPUT_ARGS, ""},
        {"argsFieldEqual", SEL_INPUT_ARGS, "key,value"},
        {"argsFieldLenLess", SEL_INPUT_ARGS, "key,length"},
        {"argsIsDict", SEL_INPUT_ARGS, ""},
        {"empty", SEL_INPUT_MESSAGE, ""},
        {"envEqual", SEL_INPUT_NONE, "env,value"},
        {"envExist", SEL_INPUT_NONE, "env"},
        {"fieldExist", SEL_INPUT_MESSAGE, "key"},
        {"fieldInt", SEL_INPUT_MESSAGE, "key"},
        {"fieldUrlNetloc", SEL_INPUT_MESSAGE, "key,netloc"},
        {"fieldUrlPath", SEL_INPUT_MESSAGE, "key,path"},
        {"fieldUrlScheme", SEL_INPUT_MESSAGE, "key,scheme"},
        {"httpStatus", SEL_INPUT_NONE, "host,path,status"},
        {"isStr", SEL_INPUT_MESSAGE, ""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const struct sel_predicate *p = sel_predicate_find(sel_str_c(cases[i].name));
        assert_non_null(p);
        char args[64] = "";
        for (uint32_t a = 0; a < p->arg_count; a++) {
            strncat(args, a ? "," : "", sizeof(args) - strlen(args) - 1);
            strncat(args, p->args[a], sizeof(args) - strlen(args) - 1);
        }
        assert_string_equal(args, cases[i].args);
        assert_int_equal(p->input, cases[i].input);
        assert_int_equal(p->needs_io, strcmp(p->name, "httpStatus") == 0);
    }
}

static void test_keys_lead_through_lists_maps_and_texts(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"fieldExist", "{\"a\":{\"b\":[1,null]}}", "[\"a\",\"b\",1]", NULL, true},
        {"fieldNone", "{\"a\":{\"b\":[1,null]}}", "[\"a\",\"b\",-1]", NULL, true},
        {"fieldExist", "[1,2]", "2", NULL, false},
        {"fieldExist", "[1,2]", "-2", NULL, true},
        {"fieldExist", "[1,2]", "-3", NULL, false},
        {"fieldExist", "[1,2]", "18446744073709551615", NULL, false},
        {"fieldExist", "[1,2]", "1.0", NULL, false},
        {"fieldEqual", "[1,2]", "true", "2", true}, /* a bool is an index */
        {"fieldExist", "{\"1\":0}", "1", NULL, false},
        {"fieldEqual", "\"h\\u00e9\\ud83d\\udea2\"", "1", "\"\\u00e9\"", true},
        {"fieldEqual", "\"h\\u00e9\\ud83d\\udea2\"", "-1", "\"\\ud83d\\udea2\"", true},
        {"fieldExist", "\"ab\"", "2", NULL, false},
        {"fieldExist", "null", "0", NULL, false},
        {"fieldExist", "5", "0", NULL, false},
        {"fieldExist", "{\"a\":1}", "[[\"a\"]]", NULL, false},
        {"fieldExist", "{\"a\":1}", "{}", NULL, false},
        {"fieldNone", "null", "[]", NULL, true}, /* no key: the input itself */
        {"argsFieldEqual", "{\"a\":1}", "\"a\"", "1", true},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_types_are_told_apart_but_a_bool_is_an_int(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"isInt", "true", NULL, NULL, true},
        {"isBool", "1", NULL, NULL, false},
        {"isFloat", "1", NULL, NULL, false},
        {"isFloat", "1.0", NULL, NULL, true},
        {"isFloat", "1e22", NULL, NULL, true},
        {"isInt", "1.0", NULL, NULL, false},
        {"isStr", "\"\"", NULL, NULL, true},
        {"isNone", "null", NULL, NULL, true},
        {"isNone", "false", NULL, NULL, false},
        {"isList", "[]", NULL, NULL, true},
        {"isDict", "{}", NULL, NULL, true},
        {"isDict", "[]", NULL, NULL, false},
        {"argsIsInt", "false", NULL, NULL, true},
        {"fieldBool", "{\"a\":true}", "\"a\"", NULL, true},
        {"fieldFloat", "[false]", "0", NULL, false},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_empty_is_what_the_name_says(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"empty", "null", NULL, NULL, true},
        {"empty", "\"\"", NULL, NULL, true},
        {"empty", "[]", NULL, NULL, true},
        {"empty", "{}", NULL, NULL, true},
        {"empty", "0.0", NULL, NULL, true},
        {"empty", "[null]", NULL, NULL, false},
        {"empty", "\"0\"", NULL, NULL, false},
        {"argsEmpty", "false", NULL, NULL, true},
        {"argsEmpty", "{\"\":0}", NULL, NULL, false},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_numbers_compare_exactly_across_kinds(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"fieldEqual", "[1]", "0", "1.0", true},
        {"fieldEqual", "[1]", "0", "true", true},
        {"fieldEqual", "[9007199254740993]", "0", "9007199254740992.0", false},
        {"fieldGreater", "[9007199254740993]", "0", "9007199254740992.0", true},
        {"fieldLess", "[9007199254740992.0]", "0", "9007199254740993", true},
        {"fieldLess", "[9223372036854775807]", "0", "9223372036854775808.0", true},
        {"fieldLess", "[18446744073709551615]", "0", "18446744073709551616.0", true},
        {"fieldGreaterEqual", "[18446744073709551615]", "0", "9223372036854775808", true},
        {"fieldGreater", "[18446744073709551615]", "0", "-1", true},
        {"fieldGreater", "[-9223372036854775808]", "0", "-1e300", true},
        {"fieldLess", "[2]", "0", "2.5", true},
        {"fieldGreater", "[-2]", "0", "-2.5", true},
        {"fieldLessEqual", "[-0.0]", "0", "0", true},
        {"fieldLess", "[false]", "0", "0.5", true},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_nan_is_neither_equal_nor_ordered(void **state)
{
    (void)state;
    struct sel_value nan = sel_value_from_f64(NAN), one = sel_value_from_i64(1);
    struct sel_value list = sel_value_from_list(&nan, 1), key = sel_value_from_i64(0);
    static const char *const refused[] = {"fieldEqual", "fieldLess", "fieldLessEqual",
                                          "fieldGreater", "fieldGreaterEqual"};
    for (size_t i = 0; i < SEL_COUNT(refused); i++) {
        assert_false(answer(refused[i], &list, &key, &one));
        assert_false(answer(refused[i], &list, &key, &nan));
    }
    assert_true(answer("fieldNotEqual", &list, &key, &nan));
}

static void test_texts_and_lists_have_an_order_maps_and_mixtures_none(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"fieldLess", "[\"a\"]", "0", "\"b\"", true},
        {"fieldLess", "[\"Z\"]", "0", "\"a\"", true},
        {"fieldGreater", "[\"\\u00e9\"]", "0", "\"z\"", true},
        {"fieldGreater", "[\"\\ud83d\\udea2\"]", "0", "\"\\uffff\"", true},
        {"fieldLess", "[[1,2]]", "0", "[1,3]", true},
        {"fieldLess", "[[1]]", "0", "[1,0]", true},
        {"fieldLess", "[[null,1]]", "0", "[null,2]", true},
        {"fieldLess", "[[null]]", "0", "[1]", false},
        {"fieldGreaterEqual", "[[{}]]", "0", "[{}]", true},
        {"fieldLessEqual", "[{}]", "0", "{}", false},
        {"fieldLessEqual", "[null]", "0", "null", false},
        {"fieldLess", "[1]", "0", "\"2\"", false},
        {"fieldGreater", "[1]", "0", "\"2\"", false},
        {"fieldNotEqual", "[1]", "0", "\"1\"", true},
        {"fieldNotEqual", "{}", "\"a\"", "1", false}, /* no field, no answer */
        {"fieldEqual", "[{\"a\":1,\"b\":[2]}]", "0", "{\"b\":[2.0],\"a\":true}", true},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_containing_depends_on_the_container(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"fieldContain", "[\"abc\"]", "0", "\"bc\"", true},
        {"fieldContain", "[\"abc\"]", "0", "\"\"", true},
        {"fieldContain", "[\"abc\"]", "0", "\"ac\"", false},
        {"fieldContain", "[\"1\"]", "0", "1", false},
        {"fieldContain", "[[1,[2]]]", "0", "[2]", true},
        {"fieldContain", "[[1]]", "0", "true", true},
        {"fieldContain", "[{\"a\":1}]", "0", "\"a\"", true},
        {"fieldContain", "[{\"a\":1}]", "0", "1", false},
        {"fieldContain", "[{\"a\":1}]", "0", "[]", false},
        {"fieldContain", "[5]", "0", "5", false},
        {"fieldContain", "[null]", "0", "null", false},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_lengths_count_code_points_and_items(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"fieldLenEqual", "[\"h\\u00e9\\ud83d\\udea2\"]", "0", "3", true},
        {"fieldLenEqual", "[\"abc\"]", "0", "3.0", true},
        {"fieldLenEqual", "[[1]]", "0", "true", true},
        {"fieldLenEqual", "[{\"a\":1}]", "0", "1", true},
        {"fieldLenNotEqual", "[\"abc\"]", "0", "\"3\"", true},
        {"fieldLenNotEqual", "[7]", "0", "3", false},
        {"fieldLenLess", "[\"abc\"]", "0", "3.5", true},
        {"fieldLenLess", "[\"abc\"]", "0", "\"9\"", false},
        {"fieldLenGreaterEqual", "[\"abc\"]", "0", "2", true}, /* what the name says */
        {"fieldLenGreaterEqual", "[\"abc\"]", "0", "4", false},
        {"argsFieldLenLessEqual", "[\"abc\"]", "0", "4", true},
        {"argsFieldLenLessEqual", "[\"abc\"]", "0", "2", false},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_bytes_of_modules_are_indexed_measured_and_searched(void **state)
{
    (void)state;
    struct sel_value bytes = {{.type = MSGPACK_OBJECT_BIN, .via.bin = {3, "a\0b"}}};
    struct sel_value part = {{.type = MSGPACK_OBJECT_BIN, .via.bin = {2, "\0b"}}};
    struct sel_value message = sel_value_from_list(&bytes, 1), key = sel_value_from_i64(0);
    struct sel_value three = sel_value_from_i64(3), b = sel_value_from_i64('b');
    struct sel_value path[] = {sel_value_from_i64(0), sel_value_from_i64(-1)};
    struct sel_value keys = sel_value_from_list(path, 2), wide = sel_value_from_i64(256 + 'b');
    assert_true(answer("fieldLenEqual", &message, &key, &three));
    assert_true(answer("fieldEqual", &message, &keys, &b));
    assert_true(answer("fieldContain", &message, &key, &b));
    assert_true(answer("fieldContain", &message, &key, &part));
    assert_false(answer("fieldContain", &message, &key, &wide));
}

static void test_url_parts(void **state)
{
    (void)state;
    const struct {
        const char *url, *scheme, *netloc, *path; /* NULL: the URL is refused */
    } cases[] = {
        {"HTTPS://U:p@H:8443/Path;x?q=1#f", "https", "U:p@H:8443", "/Path"},
        {"//cdn.example/lib.js", "", "cdn.example", "/lib.js"},
        {"mailto:a@b;c", "mailto", "", "a@b;c"},
        {"ftp:a;b/c;d", "ftp", "", "a;b/c"},
        {"http://h?x/y", "http", "h", ""},
        {"1http://h", "", "", "1http://h"},
        {"h_t:x", "", "", "h_t:x"},
        {"\x01 ht\ttp:/\n/h\r/p", "http", "h", "/p"},
        {"http://[::1]:80/a", "http", "[::1]:80", "/a"},
        {"http://[fe80::1%eth0]/", "http", "[fe80::1%eth0]", "/"},
        {"http://[v1.x]/", "http", "[v1.x]", "/"},
        {"http://[::1/", NULL, NULL, NULL},
        {"http://h]/", NULL, NULL, NULL},
        {"http://[::1%]/", NULL, NULL, NULL},
        {"http://[::1%a%b]/", NULL, NULL, NULL},
        {"http://[1.2.3.4]/", NULL, NULL, NULL},
        {"http://[vg.x]/", NULL, NULL, NULL},
        {"http://[v1.]/", NULL, NULL, NULL},
        {"http://[11111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111]/", NULL, NULL,
         NULL},
        {"http://exa\u2100mple/", NULL, NULL, NULL},
        {"http://h/\u2100", "http", "h", "/\u2100"},
        {"", "", "", ""},
        {":", "", "", ":"},
    };
    static const char *const predicates[] = {"fieldUrlScheme", "fieldUrlNetloc", "fieldUrlPath"};
    struct sel_value whole = sel_value_from_list(NULL, 0), empty = sel_value_from_c("");
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value url = sel_value_from_c(cases[i].url);
        const char *const parts[] = {cases[i].scheme, cases[i].netloc, cases[i].path};
        for (size_t k = 0; k < SEL_COUNT(parts); k++) {
            struct sel_value part = sel_value_from_c(parts[k] ? parts[k] : "");
            if (answer(predicates[k], &url, &whole, &part) != (parts[k] != NULL))
                fail_msg("%s of '%s' should be %s", predicates[k], cases[i].url,
                         parts[k] ? parts[k] : "refused");
            struct sel_value longer = sel_value_from_c("http-and-more");
            assert_false(answer(predicates[k], &url, &whole, &longer));
        }
    }
    assert_false(answer("fieldUrlPath", &sel_value_null, &whole, &empty)); /* null is no URL */
}

static void test_environment_is_asked_for_names_that_can_exist(void **state)
{
    (void)state;
    const struct call calls[] = {
        {"envExist", NULL, "\"A\"", NULL, true},
        {"envExist", NULL, "\"B\"", NULL, false},
        {"envExist", NULL, "\"EMPTY\"", NULL, true},
        {"envExist", NULL, "\"A=x\"", NULL, false},
        {"envExist", NULL, "\"A\\u0000\"", NULL, false},
        {"envExist", NULL, "\"\"", NULL, false},
        {"envExist", NULL, "1", NULL, false},
        {"envEqual", NULL, "\"A\"", "\"x\"", true},
        {"envEqual", NULL, "\"A\"", "\"\"", false},
        {"envEqual", NULL, "\"B\"", "\"\"", false},
        {"envEqual", NULL, "\"EMPTY\"", "\"\"", true},
        {"envEqual", NULL, "\"A\"", "1", false},
    };
    check(calls, SEL_COUNT(calls));
}

static void test_long_variable_names_are_passed_on_whole(void **state)
{
    (void)state;
    char name[1000];
    memset(name, 'A', sizeof(name));
    struct sel_value value = sel_value_from_str((struct sel_str){name, sizeof(name)});
    assert_false(answer("envExist", NULL, &value, NULL));
}

static void test_without_a_world_no_variable_is_set(void **state)
{
    (void)state;
    const struct sel_predicate *exist = sel_predicate_find(SEL_STR("envExist"));
    struct sel_value name = sel_value_from_c("A");
    const struct sel_value *args[] = {&name, NULL, NULL};
    assert_false(exist->eval(exist, NULL, args, NULL));
}

static void test_no_predicate_minds_missing_input_and_arguments(void **state)
{
    (void)state;
    uint32_t count;
    const struct sel_predicate *table = sel_predicate_table(&count);
    const struct sel_value *args[SEL_PREDICATE_ARGS_MAX] = {NULL, NULL, NULL};
    for (uint32_t i = 0; i < count; i++)
        (void)table[i].eval(&table[i], NULL, args, &world); /* survives; the answer is free */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_is_sorted_and_finds_each_of_69),
        cmocka_unit_test(test_other_names_are_not_found),
        cmocka_unit_test(test_signatures_are_those_of_the_original),
        cmocka_unit_test(test_keys_lead_through_lists_maps_and_texts),
        cmocka_unit_test(test_types_are_told_apart_but_a_bool_is_an_int),
        cmocka_unit_test(test_empty_is_what_the_name_says),
        cmocka_unit_test(test_numbers_compare_exactly_across_kinds),
        cmocka_unit_test(test_nan_is_neither_equal_nor_ordered),
        cmocka_unit_test(test_texts_and_lists_have_an_order_maps_and_mixtures_none),
        cmocka_unit_test(test_containing_depends_on_the_container),
        cmocka_unit_test(test_lengths_count_code_points_and_items),
        cmocka_unit_test(test_bytes_of_modules_are_indexed_measured_and_searched),
        cmocka_unit_test(test_url_parts),
        cmocka_unit_test(test_environment_is_asked_for_names_that_can_exist),
        cmocka_unit_test(test_long_variable_names_are_passed_on_whole),
        cmocka_unit_test(test_without_a_world_no_variable_is_set),
        cmocka_unit_test(test_no_predicate_minds_missing_input_and_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
