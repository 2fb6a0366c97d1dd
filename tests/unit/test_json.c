#include <math.h>
#include <stdio.h>

#include "core/prng.h"
#include "tests/support/test.h"

/* Reading */

static void test_numbers_keep_their_kind(void **state)
{
    (void)state;
    const struct {
        const char *text;
        enum sel_kind kind;
        const char *written;
    } cases[] = {
        {"0", SEL_INT, "0"},
        {"-0", SEL_INT, "0"},
        {"-0.0", SEL_FLOAT, "-0.0"},
        {"1.0", SEL_FLOAT, "1.0"},
        {"1e5", SEL_FLOAT, "100000.0"},
        {"1E5", SEL_FLOAT, "100000.0"},
        {"18446744073709551615", SEL_INT, "18446744073709551615"},
        {"9223372036854775808", SEL_INT, "9223372036854775808"},
        {"-9223372036854775808", SEL_INT, "-9223372036854775808"},
        {"18446744073709551616.0", SEL_FLOAT, "1.8446744073709552e+19"},
        {"1e-400", SEL_FLOAT, "0.0"},
        {"0.10000000000000000000000000000000000000000000000000000000000000000000000000001",
         SEL_FLOAT, "0.1"},
        {"1e22", SEL_FLOAT, "1e+22"},
        {"1e-7", SEL_FLOAT, "1e-07"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value v = sel_test_json(&arena, cases[i].text);
        assert_int_equal(sel_value_kind(&v), cases[i].kind);
        assert_json(&v, cases[i].written);
        sel_arena_done(&arena);
    }
}

static void test_whole_texts_are_read(void **state)
{
    (void)state;
    const struct {
        const char *text, *written;
    } cases[] = {
        {" \t\r\n null \n", "null"},
        {"[]", "[]"},
        {"{}", "{}"},
        {"[true,false,[[],{}]]", "[true,false,[[],{}]]"},
        {"{\"b\" : 1 , \"a\" : [ 1 , 2 ]}", "{\"a\":[1,2],\"b\":1}"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
        {"\"\\u0041\\u00e9\\u20ac\"", "\"A\xc3\xa9\xe2\x82\xac\""},
        {"\"\\uD83D\\uDE00\"", "\"\xf0\x9f\x98\x80\""},
        {"\"\\\\ud800\"", "\"\\\\ud800\""}, /* a backslash and text, no escape */
        {"{\"\":{\"\":null}}", "{\"\":{\"\":null}}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value v = sel_test_json(&arena, cases[i].text);
        assert_json(&v, cases[i].written);
        sel_arena_done(&arena);
    }
}

static void test_a_nul_is_a_character(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value v = sel_test_json(&arena, "{\"a\\u0000b\":\"\\u0000\"}");
    assert_true(sel_str_eq(sel_value_str(sel_value_key_at(&v, 0)), SEL_STR("a\0b")));
    assert_json(&v, "{\"a\\u0000b\":\"\\u0000\"}");
    sel_arena_done(&arena);
}

static void test_refusals_name_the_place(void **state)
{
    (void)state;
    const struct {
        struct sel_str text;
        int code;
        uint32_t line, col;
    } cases[] = {
        {SEL_STR(""), SEL_ESYNTAX, 1, 1},
        {SEL_STR(" \n "), SEL_ESYNTAX, 2, 2},
        {SEL_STR("[1,\n 2"), SEL_ESYNTAX, 2, 3},
        {SEL_STR("{\"a\":1"), SEL_ESYNTAX, 1, 7},
        {SEL_STR("\"abc"), SEL_ESYNTAX, 1, 5},
        {SEL_STR("[1,2]]"), SEL_ESYNTAX, 1, 6},
        {SEL_STR("1 2"), SEL_ESYNTAX, 1, 3},
        {SEL_STR("{\"key\" 1}"), SEL_ESYNTAX, 1, 8},
        {SEL_STR("[1 \"text\"]"), SEL_ESYNTAX, 1, 4},
        {SEL_STR("[1,,2]"), SEL_ESYNTAX, 1, 4},
        {SEL_STR("[1,]"), SEL_ESYNTAX, 1, 4},
        {SEL_STR("{\"a\":1,}"), SEL_ESYNTAX, 1, 8},
        {SEL_STR("{1:2}"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[\n  tru]"), SEL_ESYNTAX, 2, 3},
        {SEL_STR("[True]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("['a']"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[1.]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[.5]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[+1]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("01"), SEL_ESYNTAX, 1, 1},
        {SEL_STR("0x10"), SEL_ESYNTAX, 1, 1},
        {SEL_STR("// no"), SEL_ESYNTAX, 1, 1},
        {SEL_STR("[1,\0]"), SEL_ESYNTAX, 1, 4},
        {SEL_STR("\"a\nb\""), SEL_ESYNTAX, 1, 3}, /* a raw control character */
        {SEL_STR("\"\\q\""), SEL_ESYNTAX, 1, 3},
        {SEL_STR("\"\\u12g4\""), SEL_ESYNTAX, 1, 6},
        {SEL_STR("[1, NaN]"), SEL_ESYNTAX, 1, 5},
        {SEL_STR("[Infinity]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[-Infinity]"), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[1e400]"), SEL_ERANGE, 1, 2},
        {SEL_STR("[1, -1e400]"), SEL_ERANGE, 1, 5},
        {SEL_STR("18446744073709551616"), SEL_ERANGE, 1, 1},
        {SEL_STR("[\n-9223372036854775809]"), SEL_ERANGE, 2, 1},
        {SEL_STR("{\"\xc3\xa9\":99999999999999999999999}"), SEL_ERANGE, 1, 6},
        {SEL_STR("\xef\xbb\xbf{}"), SEL_ESYNTAX, 1, 1}, /* a byte order mark */
        {SEL_STR("\"\xff\""), SEL_ESYNTAX, 1, 2},
        {SEL_STR("[\"\xc3\xa9\", \"\xc0\x80\"]"), SEL_ESYNTAX, 1, 8},
        {SEL_STR("\"\xed\xa0\x80\""), SEL_ESYNTAX, 1, 2},
        {SEL_STR("\"\\ud800\""), SEL_ESYNTAX, 1, 2}, /* halves of surrogate pairs */
        {SEL_STR("\"x\\udc00\""), SEL_ESYNTAX, 1, 3},
        {SEL_STR("\"\\ud800\\ud800\\udc00\""), SEL_ESYNTAX, 1, 2},
        {SEL_STR("\"\\ud800x\""), SEL_ESYNTAX, 1, 2},
        {SEL_STR("\"\\ud800\\n\""), SEL_ESYNTAX, 1, 2},
        {SEL_STR("{\"a\":1,\n\"\\ud83d\":2}"), SEL_ESYNTAX, 2, 2},
        {SEL_STR("[tru, \"\\ud800\"]"), SEL_ESYNTAX, 1, 2}, /* the first fault counts */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value v = sel_value_from_i64(42);
        struct sel_error err;
        char *text = sel_arena_memdup(&arena, cases[i].text.p, cases[i].text.n); /* unterminated */
        struct sel_str exact = {text, cases[i].text.n};
        int r = sel_json_parse(&arena, "args.json", exact, &v, NULL, &err);
        if (r != cases[i].code || err.pos.line != cases[i].line || err.pos.col != cases[i].col)
            fail_msg("'%s': %u:%u: %d %s", cases[i].text.p, err.pos.line, err.pos.col, r, err.text);
        assert_string_equal(err.pos.file, "args.json");
        assert_int_equal(v.o.via.i64, 42);
        assert_code(sel_json_parse(&arena, NULL, exact, &v, NULL, NULL), cases[i].code);
        sel_arena_done(&arena);
    }
}

static void test_of_duplicate_keys_the_later_counts_with_a_warning(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value v;
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    static const char text[] = "{\"a\": 1, \"\xc3\xa9\": {\"x\": 1, \"x\": 2},\n"
                               " \"b\": \"\\\"a\\\"\", \"a\": 3, \"\\u0061\": 4}";
    assert_ok(sel_json_parse(&arena, "args.json", sel_str_c(text), &v, &diag, NULL));
    assert_int_equal(sel_value_count(&v), 3);
    assert_str_is(sel_value_str(sel_value_key_at(&v, 0)), "a"); /* at its first place */
    assert_json(&v, "{\"a\":4,\"b\":\"\\\"a\\\"\",\"\xc3\xa9\":{\"x\":2}}");
    static const struct sel_pos places[] = {{"", 1, 24}, {"", 2, 16}, {"", 2, 24}};
    sel_diag_sort(&diag);
    const struct sel_diag_item *item = diag.first;
    for (size_t i = 0; i < SEL_COUNT(places); i++, item = item->next) {
        assert_non_null(item);
        assert_true(item->is_warning);
        assert_string_equal(item->pos.file, "args.json");
        assert_int_equal(item->pos.line, places[i].line);
        assert_int_equal(item->pos.col, places[i].col);
        assert_string_equal(item->text, i ? "duplicate key 'a'; the last one counts"
                                          : "duplicate key 'x'; the last one counts");
    }
    assert_null(item);
    sel_arena_done(&arena);
}

static void test_duplicates_are_found_in_large_maps(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_buf text = {0};
    enum { COUNT = 50000 };
    sel_buf_put_c(&text, "{");
    for (unsigned i = 0; i < 2 * COUNT; i++)
        sel_buf_printf(&text, "%s\"k%u\":%u", i ? "," : "", i % COUNT, i);
    sel_buf_put_c(&text, "}");
    assert_ok(sel_buf_error(&text));
    struct sel_value v;
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    assert_ok(sel_json_parse(&arena, NULL, sel_buf_str(&text), &v, &diag, NULL));
    assert_int_equal(sel_value_count(&v), COUNT);
    assert_int_equal(diag.warning_count, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        int64_t n;
        assert_true(sel_value_i64(sel_value_val_at(&v, i), &n));
        assert_int_equal(n, COUNT + i);
    }
    sel_buf_done(&text);
    sel_arena_done(&arena);
}

static void test_depth_is_limited(void **state)
{
    (void)state;
    static const struct {
        size_t depth;
        int code;
    } cases[] = {
        {SEL_VALUE_DEPTH_MAX, 0}, {SEL_VALUE_DEPTH_MAX + 1, SEL_ELIMIT}, {10000, SEL_ELIMIT}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_buf text = {0};
        for (size_t d = 0; d < cases[i].depth; d++)
            sel_buf_put_c(&text, d % 2 ? "{\"a\":" : "[");
        sel_buf_put_c(&text, "0");
        for (size_t d = cases[i].depth; d-- > 0;)
            sel_buf_put_c(&text, d % 2 ? "}" : "]");
        struct sel_value v;
        struct sel_error err;
        assert_code(sel_json_parse(&arena, NULL, sel_buf_str(&text), &v, NULL, &err),
                    cases[i].code);
        if (cases[i].code == 0) {
            struct sel_buf again = {0};
            sel_json_write(&v, 0, &again);
            assert_str_is(sel_buf_str(&again), sel_buf_cstr(&text));
            sel_buf_done(&again);
        } else {
            assert_int_equal(err.pos.col, SEL_VALUE_DEPTH_MAX / 2 * 6 + 1);
        }
        sel_buf_done(&text);
        sel_arena_done(&arena);
    }
}

/* Writing */

static void test_floats_are_written_as_short_as_they_read_back(void **state)
{
    (void)state;
    const struct {
        double f;
        const char *text;
    } cases[] = {
        {0.0, "0.0"},
        {1.0, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1.0 / 3, "0.3333333333333333"},
        {100.0, "100.0"},
        {123456789.125, "123456789.125"},
        {0.001, "0.001"},
        {0.0001, "0.0001"},
        {0.00012345, "0.00012345"},
        {0.00001, "1e-05"},
        {1.5e-7, "1.5e-07"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {9007199254740993.0, "9007199254740992.0"},
        {12345678901234567.0, "1.2345678901234568e+16"},
        {1e22, "1e+22"},
        {1e100, "1e+100"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {(double)NAN, "null"},
        {(double)INFINITY, "null"},
        {-(double)INFINITY, "null"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value v = sel_value_from_f64(cases[i].f);
        assert_json(&v, cases[i].text);
    }
}

static void test_any_float_reads_back(void **state)
{
    (void)state;
    struct sel_prng prng = {.state = 1};
    struct sel_arena arena = {0};
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t bits = sel_prng_next(&prng);
        double f;
        memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        struct sel_value v = sel_value_from_f64(f);
        struct sel_value again = sel_test_json(&arena, sel_test_json_text(&arena, &v));
        assert_memory_equal(&again.o.via.f64, &f, sizeof(f));
        sel_arena_reset(&arena);
    }
    sel_arena_done(&arena);
}

static void test_flags_choose_the_layout(void **state)
{
    (void)state;
    static const char text[] =
        "{\"b\":[1,{}],\"\xc3\xa9\":\"\xf0\x9f\x98\x80\xe2\x82\xac\x7f\",\"a\":[]}";
    static const struct {
        unsigned flags;
        const char *written;
    } cases[] = {
        {0, "{\"b\":[1,{}],\"\xc3\xa9\":\"\xf0\x9f\x98\x80\xe2\x82\xac\x7f\",\"a\":[]}"},
        {SEL_JSON_SORT,
         "{\"a\":[],\"b\":[1,{}],\"\xc3\xa9\":\"\xf0\x9f\x98\x80\xe2\x82\xac\x7f\"}"},
        {SEL_JSON_SPACED | SEL_JSON_ASCII,
         "{\"b\": [1, {}], \"\\u00e9\": \"\\ud83d\\ude00\\u20ac\\u007f\", \"a\": []}"},
        {SEL_JSON_PRETTY | SEL_JSON_SORT | SEL_JSON_ASCII,
         "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {}\n  ],\n"
         "  \"\\u00e9\": \"\\ud83d\\ude00\\u20ac\\u007f\"\n}"},
    };
    struct sel_arena arena = {0};
    struct sel_value v = sel_test_json(&arena, text);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_buf buf = {0};
        sel_json_write(&v, cases[i].flags, &buf);
        assert_string_equal(sel_buf_cstr(&buf), cases[i].written);
        sel_buf_done(&buf);
    }
    sel_arena_done(&arena);
}

static void test_what_json_lacks_is_written_all_the_same(void **state)
{
    (void)state;
    const struct {
        struct sel_str bytes;
        const char *json;
    } cases[] = {
        {SEL_STR("\xc4\x00"), "\"\""},
        {SEL_STR("\xc4\x01\xff"), "\"/w==\""},
        {SEL_STR("\xc4\x02\xff\xee"), "\"/+4=\""},
        {SEL_STR("\xc4\x03\x00\x01\x02"), "\"AAEC\""},
        {SEL_STR("\xd4\x05\x01"), "\"AQ==\""},
        {SEL_STR("\x83\x0a\x01\xc0\x02\xc4\x01\xff\x03"), "{\"/w==\":3,\"10\":1,\"null\":2}"},
        {SEL_STR("\x81\x92\x01\xa1x\x02"), "{\"[1,\\\"x\\\"]\":2}"},
        {SEL_STR("\x81\x81\xa1k\x01\x02"), "{\"{\\\"k\\\":1}\":2}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_value v;
        assert_ok(sel_value_decode(&arena, cases[i].bytes.p, cases[i].bytes.n, false, &v, NULL));
        assert_json(&v, cases[i].json);
        sel_arena_done(&arena);
    }
    struct sel_value bad = sel_value_from_c("a\xff\xc3(\xe2\x82");
    assert_json(&bad, "\"a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void test_keys_within_keys_are_limited(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    uint8_t bytes[200];
    for (size_t depth = 1; depth <= 50; depth += 49) { /* {{{...: 0}: 0}: 0} */
        memset(bytes, 0x81, depth);
        memset(bytes + depth, 0, depth + 1);
        struct sel_value v;
        assert_ok(sel_value_decode(&arena, bytes, 2 * depth + 1, false, &v, NULL));
        struct sel_buf buf = {0};
        sel_json_write(&v, SEL_JSON_SORT, &buf);
        assert_code(sel_buf_error(&buf), depth > 1 ? SEL_ELIMIT : 0);
        sel_buf_done(&buf);
    }
    sel_arena_done(&arena);
}

/* Memory */

static int read_and_write(void *ctx)
{
    struct sel_str *text = ctx;
    struct sel_arena arena = {0};
    struct sel_value v;
    struct sel_diag diag;
    struct sel_buf buf = {0};
    sel_diag_init(&diag, &arena);
    int r = sel_json_parse(&arena, NULL, *text, &v, &diag, NULL);
    if (r == 0) {
        sel_json_write(&v, SEL_JSON_SORT | SEL_JSON_PRETTY, &buf);
        r = sel_buf_error(&buf);
    }
    sel_buf_done(&buf);
    sel_arena_done(&arena);
    return r;
}

static void test_a_failing_heap_is_reported(void **state)
{
    (void)state;
    struct sel_buf text = {0};
    sel_buf_put_c(&text, "{\"escaped\\n\":\"\\u20ac");
    for (unsigned i = 0; i < 5000; i++)
        sel_buf_put_c(&text, "x");
    sel_buf_put_c(&text, "\"");
    for (unsigned i = 0; i < 100; i++)
        sel_buf_printf(&text, ",\"k%u\":[%u,%u.5,{}]", i, i, i);
    sel_buf_put_c(&text, "}");
    assert_ok(sel_buf_error(&text));
    struct sel_str str = sel_buf_str(&text);
    sel_test_each_alloc_fails(read_and_write, &str);
    sel_buf_done(&text);
}

static void test_the_limit_of_an_arena_is_kept(void **state)
{
    (void)state;
    struct sel_arena arena;
    sel_arena_init(&arena, 4096);
    char text[8192];
    memset(text, 'x', sizeof(text));
    text[0] = text[sizeof(text) - 1] = '"';
    struct sel_value v;
    struct sel_error err;
    assert_code(sel_json_parse(&arena, NULL, (struct sel_str){text, sizeof(text)}, &v, NULL, &err),
                SEL_ENOMEM);
    assert_true(arena.reserved <= 4096);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_keep_their_kind),
        cmocka_unit_test(test_whole_texts_are_read),
        cmocka_unit_test(test_a_nul_is_a_character),
        cmocka_unit_test(test_refusals_name_the_place),
        cmocka_unit_test(test_of_duplicate_keys_the_later_counts_with_a_warning),
        cmocka_unit_test(test_duplicates_are_found_in_large_maps),
        cmocka_unit_test(test_depth_is_limited),
        cmocka_unit_test(test_floats_are_written_as_short_as_they_read_back),
        cmocka_unit_test(test_any_float_reads_back),
        cmocka_unit_test(test_flags_choose_the_layout),
        cmocka_unit_test(test_what_json_lacks_is_written_all_the_same),
        cmocka_unit_test(test_keys_within_keys_are_limited),
        cmocka_unit_test(test_a_failing_heap_is_reported),
        cmocka_unit_test(test_the_limit_of_an_arena_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
