#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"
#include "storage/schema.h"

static struct sel_schema *compile(const char *text)
{
    struct sel_schema *schema = NULL;
    struct sel_error err = {0};
    int r = sel_schema_compile("s.json", sel_str_c(text), &schema, &err);
    if (r < 0)
        fail_msg("%s: %s", text, err.text);
    return schema;
}

static int check(const struct sel_schema *schema, const char *json, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct sel_value v;
    assert_int_equal(sel_json_parse(&arena, NULL, sel_str_c(json), &v, NULL, NULL), 0);
    int r = sel_schema_validate(schema, &v, err);
    sel_arena_done(&arena);
    return r;
}

#define D4 "\"$schema\": \"http://json-schema.org/draft-04/schema#\", "
#define D6 "\"$schema\": \"http://json-schema.org/draft-06/schema#\", "

static void test_values_are_judged_as_the_drafts_say(void **state)
{
    (void)state;
    const struct {
        const char *schema, *value;
        bool valid;
    } cases[] = {
        {"{}", "1", true},
        {"true", "1", true},
        {"false", "1", false},
        {"{\"type\": \"integer\"}", "1", true},
        {"{\"type\": \"integer\"}", "1.0", true},
        {"{" D4 "\"type\": \"integer\"}", "1.0", false},
        {"{\"type\": \"integer\"}", "1.5", false},
        {"{\"type\": \"integer\"}", "18446744073709551615", true},
        {"{\"type\": \"number\"}", "true", false},
        {"{\"type\": [\"string\", \"null\"]}", "null", true},
        {"{\"type\": [\"string\", \"null\"]}", "0", false},
        {"{\"minimum\": 0}", "18446744073709551615", true},
        {"{\"minimum\": 9007199254740993}", "9007199254740992", false},
        {"{\"minimum\": 9007199254740993}", "9007199254740993", true},
        {"{\"maximum\": 18446744073709551614}", "18446744073709551615", false},
        {"{\"exclusiveMinimum\": 3}", "3", false},
        {"{\"exclusiveMinimum\": 3}", "3.0000001", true},
        {"{\"exclusiveMaximum\": 3}", "3.0", false},
        {"{" D4 "\"minimum\": 3, \"exclusiveMinimum\": true}", "3", false},
        {"{" D4 "\"minimum\": 3, \"exclusiveMinimum\": false}", "3", true},
        {"{\"minimum\": 3}", "\"text\"", true},
        {"{\"multipleOf\": 2}", "7", false},
        {"{\"multipleOf\": 2}", "7.5", false},
        {"{\"multipleOf\": 2}", "8.0", true},
        {"{\"multipleOf\": 2}", "18446744073709551615", false},
        {"{\"multipleOf\": 2}", "18446744073709551614", true},
        {"{\"multipleOf\": 0.0001}", "0.0075", true},
        {"{\"multipleOf\": 0.0001}", "0.00751", false},
        {"{\"multipleOf\": 0.01}", "19.99", true},
        {"{\"multipleOf\": 0.123456789}", "1e308", false},
        {"{\"multipleOf\": 1.5}", "0", true},
        {"{\"minLength\": 2}", "\"\\u00e9\"", false},
        {"{\"minLength\": 2}", "\"a\\u0000\"", true},
        {"{\"maxLength\": 2}", "\"\\u00e9\\u00e9\"", true},
        {"{\"maxLength\": 2.0}", "\"abc\"", false},
        {"{\"pattern\": \"^a+$\"}", "\"aaa\"", true},
        {"{\"pattern\": \"^a+$\"}", "\"aab\"", false},
        {"{\"pattern\": \"^a+$\"}", "7", true},
        {"{\"format\": \"date-time\"}", "\"2024-02-29T12:00:00Z\"", true},
        {"{\"format\": \"date-time\"}", "\"2023-02-29T12:00:00Z\"", false},
        {"{\"format\": \"date-time\"}", "\"2024-02-29T12:00:00.5+01:30\"", true},
        {"{\"format\": \"date\"}", "\"2024-13-01\"", false},
        {"{\"format\": \"time\"}", "\"24:00:00Z\"", false},
        {"{\"format\": \"time\"}", "\"23:59:60z\"", true},
        {"{\"format\": \"date\"}", "17", true},
        {"{\"format\": \"date\"}", "null", true},
        {"{\"format\": \"no-such-format\"}", "\"x\"", true},
        {"{\"const\": 1}", "1.0", true},
        {"{\"const\": 1}", "true", false},
        {"{\"const\": 0}", "false", false},
        {"{\"const\": 9007199254740993}", "9007199254740992", false},
        {"{\"const\": {\"a\": [1, null]}}", "{\"a\": [1.0, null]}", true},
        {"{\"const\": null}", "null", true},
        {"{\"const\": null}", "0", false},
        {"{" D4 "\"const\": 1}", "2", true},
        {"{\"enum\": [1, \"a\", {\"x\": 1, \"y\": 2}]}", "{\"y\": 2, \"x\": 1}", true},
        {"{\"enum\": [1, \"a\"]}", "\"b\"", false},
        {"{\"enum\": [[false]]}", "[0]", false},
        {"{\"uniqueItems\": true}", "[1, 2, 3]", true},
        {"{\"uniqueItems\": true}", "[1, true, 1.0]", false},
        {"{\"uniqueItems\": true}", "[{\"a\": 1, \"b\": 2}, {\"b\": 2, \"a\": 1.0}]", false},
        {"{\"uniqueItems\": true}", "[1, true, \"1\", [1]]", true},
        {"{\"uniqueItems\": false}", "[1, 1]", true},
        {"{\"required\": [\"a\"]}", "{\"a\": null}", true},
        {"{\"required\": [\"a\"]}", "{}", false},
        {"{\"required\": [\"a\"]}", "[]", true},
        {"{\"properties\": {\"a\": {\"type\": \"string\"}}}", "{\"a\": 1}", false},
        {"{\"properties\": {\"minimum\": {\"type\": \"string\"}}}", "{\"minimum\": 1}", false},
        {"{\"properties\": {\"minimum\": {\"type\": \"string\"}}}", "{\"minimum\": \"1\"}", true},
        {"{\"properties\": {\"id\": {\"type\": \"integer\"}}}", "{\"id\": 1}", true},
        {"{\"additionalProperties\": false, \"properties\": {\"a\": {}}}", "{\"a\": 1}", true},
        {"{\"additionalProperties\": false, \"properties\": {\"a\": {}}}", "{\"b\": 1}", false},
        {"{\"patternProperties\": {\"^n\": {\"type\": \"integer\"}}}", "{\"n1\": \"x\"}", false},
        {"{\"patternProperties\": {\"^n\": {\"type\": \"integer\"}}}", "{\"m1\": \"x\"}", true},
        {"{\"propertyNames\": {\"maxLength\": 2}}", "{\"abc\": 1}", false},
        {"{\"propertyNames\": {\"pattern\": \"^a\"}}", "{\"abc\": 1}", true},
        {"{\"items\": {\"type\": \"integer\"}}", "[1, 2, \"x\"]", false},
        {"{\"items\": [{\"type\": \"integer\"}], \"additionalItems\": false}", "[1, 2]", false},
        {"{\"items\": [{\"type\": \"integer\"}]}", "[1, \"x\"]", true},
        {"{\"contains\": {\"const\": 3}}", "[1, 2, 3]", true},
        {"{\"contains\": {\"const\": 3}}", "[1, 2]", false},
        {"{\"dependencies\": {\"a\": [\"b\"]}}", "{\"a\": 1}", false},
        {"{\"dependencies\": {\"a\": {\"required\": [\"c\"]}}}", "{\"a\": 1, \"c\": 1}", true},
        {"{\"minItems\": 1, \"maxItems\": 2}", "[1, 2, 3]", false},
        {"{\"minProperties\": 1}", "{}", false},
        {"{\"allOf\": [{\"minimum\": 1}, {\"maximum\": 3}]}", "4", false},
        {"{\"anyOf\": [{\"const\": 1}, {\"const\": 2}]}", "2", true},
        {"{\"oneOf\": [{\"minimum\": 1}, {\"minimum\": 2}]}", "3", false},
        {"{\"oneOf\": [{\"minimum\": 1}, {\"minimum\": 2}]}", "1", true},
        {"{\"not\": {\"type\": \"null\"}}", "null", false},
        {"{\"if\": {\"type\": \"integer\"}, \"then\": {\"minimum\": 5}}", "4", false},
        {"{\"if\": {\"type\": \"integer\"}, \"then\": {\"minimum\": 5}}", "4.5", true},
        {"{" D6 "\"if\": {\"type\": \"integer\"}, \"then\": {\"minimum\": 5}}", "4", true},
        {"{\"$ref\": \"#/definitions/a\", \"definitions\": {\"a\": {\"const\": 1}}}", "2", false},
        {"{\"properties\": {\"next\": {\"$ref\": \"#\"}, \"n\": {\"type\": \"integer\"}}}",
         "{\"n\": 1, \"next\": {\"n\": 2, \"next\": {\"n\": \"x\"}}}", false},
        {"{\"$id\": \"http://example.com/a.json\", \"$ref\": \"#/definitions/a~1b\", "
         "\"definitions\": {\"a/b\": {\"const\": 1}}}",
         "1", true},
        {"{" D4 "\"id\": \"http://example.com/a.json\", \"$ref\": \"#/definitions/a\", "
         "\"definitions\": {\"a\": {\"type\": \"null\"}}}",
         "1", false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_schema *schema = compile(cases[i].schema);
        struct sel_error err = {0};
        int r = check(schema, cases[i].value, &err);
        if (r != (cases[i].valid ? 0 : SEL_EFAILED))
            fail_msg("%s of %s: %d %s", cases[i].schema, cases[i].value, r, err.text);
        sel_schema_free(schema);
    }
}

static void test_a_fault_says_where_and_what(void **state)
{
    (void)state;
    const struct {
        const char *schema, *value, *text;
    } cases[] = {
        {"{\"type\": \"object\"}", "1", "the result: 1 is not of the type \"object\""},
        {"{\"properties\": {\"a\": {\"items\": {\"minimum\": 3}}}}", "{\"a\": [3, 2]}",
         "the result at /a/1: 2 is less than the minimum 3"},
        {"{\"enum\": [1, 2]}", "3", "the result: 3 is none of [1,2]"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_schema *schema = compile(cases[i].schema);
        struct sel_error err = {0};
        assert_int_equal(check(schema, cases[i].value, &err), SEL_EFAILED);
        assert_string_equal(err.text, cases[i].text);
        sel_schema_free(schema);
    }
}

static void test_bad_schemas_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *schema;
        int code;
    } cases[] = {
        {"", SEL_ESYNTAX},
        {"{\"type\": }", SEL_ESYNTAX},
        {"[]", SEL_ECONFIG},
        {"7", SEL_ECONFIG},
        {"{\"type\": \"strnig\"}", SEL_ECONFIG},
        {"{\"type\": 1}", SEL_ECONFIG},
        {"{\"multipleOf\": 0}", SEL_ECONFIG},
        {"{\"multipleOf\": -1}", SEL_ECONFIG},
        {"{\"minimum\": \"1\"}", SEL_ECONFIG},
        {"{\"minLength\": -1}", SEL_ECONFIG},
        {"{\"maxLength\": 1.5}", SEL_ECONFIG},
        {"{\"minItems\": \"x\"}", SEL_ECONFIG},
        {"{\"pattern\": \"(\"}", SEL_ECONFIG},
        {"{\"patternProperties\": {\"[\": {}}}", SEL_ECONFIG},
        {"{\"properties\": {\"a\": 1}}", SEL_ECONFIG},
        {"{\"properties\": []}", SEL_ECONFIG},
        {"{\"allOf\": {}}", SEL_ECONFIG},
        {"{\"enum\": 1}", SEL_ECONFIG},
        {"{\"required\": \"a\"}", SEL_ECONFIG},
        {"{\"$ref\": \"#/definitions/none\"}", SEL_ECONFIG},
        {"{\"$ref\": 1}", SEL_ECONFIG},
        {"{\"$ref\": \"#\"}", SEL_ECONFIG},
        {"{\"allOf\": [{\"$ref\": \"#\"}]}", SEL_ECONFIG},
        {"{\"definitions\": {\"a\": {\"not\": {\"$ref\": \"#/definitions/b\"}}, "
         "\"b\": {\"anyOf\": [{\"$ref\": \"#/definitions/a\"}]}}, "
         "\"properties\": {\"x\": {\"$ref\": \"#/definitions/a\"}}}",
         SEL_ECONFIG},
        {"{\"$ref\": \"http://json-schema.org/draft-07/schema#\"}", SEL_EUNSUPPORTED},
        {"{\"$ref\": \"other.json\"}", SEL_EUNSUPPORTED},
        {"{\"$ref\": \"#name\"}", SEL_EUNSUPPORTED},
        {"{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\"}", SEL_EUNSUPPORTED},
        {"{\"$schema\": \"http://json-schema.org/draft-03/schema#\"}", SEL_EUNSUPPORTED},
        {"{\"$schema\": 7}", SEL_ECONFIG},
        {"{" D4 "\"minimum\": 1, \"exclusiveMinimum\": 2}", SEL_ECONFIG},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_schema *schema = NULL;
        struct sel_error err = {0};
        int r = sel_schema_compile("s.json", sel_str_c(cases[i].schema), &schema, &err);
        if (r != cases[i].code)
            fail_msg("%s: %d %s", cases[i].schema, r, err.text);
        assert_null(schema);
        assert_int_equal(err.code, r);
        assert_string_equal(err.pos.file, "s.json");
        assert_true(strlen(err.text) > 0);
    }
}

struct deep {
    const struct sel_schema *schema;
    const struct sel_value *value;
    int r;
};

static void *validate_deep(void *arg)
{
    struct deep *deep = arg;
    deep->r = sel_schema_validate(deep->schema, deep->value, NULL);
    return NULL;
}

/* As a coroutine does it: with 256 KiB of stack. */
static int validate_on_small_stack(const struct sel_schema *schema, const struct sel_value *value)
{
    struct deep deep = {schema, value, -1};
    pthread_attr_t attr;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, 256 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attr, validate_deep, &deep), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    return deep.r;
}

/* TSan keeps a stack of calls of its own, of 65,536 entries, and dies beyond it. */
#if defined(__SANITIZE_THREAD__)
#define LONG_TEXT 5000 /* 8 calls a character */
#define LONG_CHAIN 500
#else
#define LONG_TEXT 100000
#define LONG_CHAIN 3000
#endif

static void test_deep_values_and_long_texts_fit_the_stack_of_a_coroutine(void **state)
{
    (void)state;
    struct sel_schema *schema =
        compile("{\"anyOf\": [{\"allOf\": [{\"items\": {\"$ref\": \"#\"}, "
                "\"additionalProperties\": {\"$ref\": \"#\"}}]}], \"not\": {\"const\": 7}}");
    struct sel_buf text = {0};
    struct sel_arena arena = {0};
    struct sel_value v;
    for (int i = 0; i < SEL_VALUE_DEPTH_MAX - 1; i++)
        sel_buf_put_c(&text, i % 2 ? "[" : "{\"k\":");
    sel_buf_put_c(&text, "7");
    for (int i = SEL_VALUE_DEPTH_MAX - 2; i >= 0; i--)
        sel_buf_put_c(&text, i % 2 ? "]" : "}");
    assert_int_equal(sel_json_parse(&arena, NULL, sel_buf_str(&text), &v, NULL, NULL), 0);
    assert_int_equal(validate_on_small_stack(schema, &v), SEL_EFAILED);
    sel_schema_free(schema);

    schema = compile("{\"pattern\": \"^(a|b)*c$\"}");
    sel_buf_clear(&text);
    for (int i = 0; i < LONG_TEXT; i++)
        sel_buf_put_c(&text, "a");
    v = sel_value_from_str(sel_buf_str(&text));
    assert_int_equal(validate_on_small_stack(schema, &v), SEL_EFAILED);
    sel_buf_put_c(&text, "c");
    v = sel_value_from_str(sel_buf_str(&text));
    assert_int_equal(validate_on_small_stack(schema, &v), 0);
    sel_schema_free(schema);
    sel_buf_done(&text);
    sel_arena_done(&arena);
}

static void test_a_long_chain_of_definitions_compiles(void **state)
{
    (void)state;
    struct sel_buf text = {0};
    const int count = LONG_CHAIN;
    sel_buf_put_c(&text, "{\"$ref\": \"#/definitions/d0\", \"definitions\": {");
    for (int i = 0; i < count; i++)
        sel_buf_printf(&text, "\"d%d\": {\"allOf\": [{\"$ref\": \"#/definitions/d%d\"}]}, ", i,
                       i + 1);
    sel_buf_printf(&text, "\"d%d\": {\"type\": \"null\"}}}", count);
    struct sel_schema *schema = compile(sel_buf_cstr(&text));
    assert_int_equal(check(schema, "null", NULL), 0);
    assert_int_equal(check(schema, "1", NULL), SEL_EFAILED);
    sel_schema_free(schema);
    sel_buf_done(&text);
}

static void test_many_faults_are_told_by_the_first(void **state)
{
    (void)state;
    struct sel_schema *schema = compile("{\"items\": {\"type\": \"string\"}}");
    struct sel_buf text = {0};
    struct sel_error err;
    sel_buf_put_c(&text, "[\"a\"");
    for (int i = 1; i < 50000; i++)
        sel_buf_printf(&text, ",%d", i);
    sel_buf_put_c(&text, "]");
    assert_int_equal(check(schema, sel_buf_cstr(&text), &err), SEL_EFAILED);
    assert_string_equal(err.text, "the result at /1: 1 is not of the type \"string\"");
    sel_schema_free(schema);
    sel_buf_done(&text);
}

static void test_large_lists_are_unique_in_linear_time(void **state)
{
    (void)state;
    struct sel_schema *schema = compile("{\"uniqueItems\": true}");
    struct sel_buf text = {0};
    sel_buf_put_c(&text, "[0");
    for (int i = 1; i < 50000; i++)
        sel_buf_printf(&text, ",%d", i);
    sel_buf_put_c(&text, "]");
    assert_int_equal(check(schema, sel_buf_cstr(&text), NULL), 0);
    sel_schema_free(schema);
    sel_buf_done(&text);
}

static void *validate_often(void *arg)
{
    struct sel_error err;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(check(arg, "{\"name\": \"abc\", \"n\": [1, 2, 3]}", &err), 0);
        assert_int_equal(check(arg, "{\"name\": \"ABC\", \"n\": [1, 2, 3]}", &err), SEL_EFAILED);
    }
    return NULL;
}

static void test_threads_share_a_schema(void **state)
{
    (void)state;
    struct sel_schema *schema =
        compile("{\"properties\": {\"name\": {\"pattern\": \"^[a-z]+$\"}, "
                "\"n\": {\"items\": {\"type\": \"integer\"}}}, \"required\": [\"name\"]}");
    pthread_t threads[4];
    for (size_t i = 0; i < SEL_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, validate_often, schema), 0);
    for (size_t i = 0; i < SEL_COUNT(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    sel_schema_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_judged_as_the_drafts_say),
        cmocka_unit_test(test_a_fault_says_where_and_what),
        cmocka_unit_test(test_bad_schemas_are_refused),
        cmocka_unit_test(test_deep_values_and_long_texts_fit_the_stack_of_a_coroutine),
        cmocka_unit_test(test_a_long_chain_of_definitions_compiles),
        cmocka_unit_test(test_many_faults_are_told_by_the_first),
        cmocka_unit_test(test_large_lists_are_unique_in_linear_time),
        cmocka_unit_test(test_threads_share_a_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
