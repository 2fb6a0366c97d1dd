#include <math.h>
#include <stdio.h>

#include "tests/support/test.h"

struct bytes {
    const char *p;
    size_t n;
};
#define BYTES(literal) ((struct bytes){(literal), sizeof(literal) - 1})

static struct sel_value decoded(struct sel_arena *arena, struct bytes bytes)
{
    struct sel_value value;
    struct sel_error err;
    assert_ok(sel_value_decode(arena, bytes.p, bytes.n, false, &value, &err));
    return value;
}

/* Readers */

static void test_null_pointers_read_as_null(void **state)
{
    (void)state;
    assert_int_equal(sel_value_kind(NULL), SEL_NULL);
    assert_false(sel_value_is_true(NULL));
    assert_null(sel_value_get_c(NULL, "key"));
    assert_true(sel_value_equal(NULL, &sel_value_null));
    struct sel_buf buf = {0};
    sel_value_encode(NULL, &buf);
    assert_int_equal(buf.n, 1);
    assert_memory_equal(buf.p, sel_value_null_bytes, 1);
    sel_buf_done(&buf);
}

static void test_each_kind_has_its_name(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        struct bytes bytes;
        const char *name;
    } cases[] = {
        {BYTES("\xc0"), "null"},       {BYTES("\xc2"), "bool"},          {BYTES("\x05"), "int"},
        {BYTES("\xff"), "int"},        {BYTES("\xca\0\0\0\0"), "float"}, {BYTES("\xa1x"), "text"},
        {BYTES("\xc4\x01x"), "bytes"}, {BYTES("\x90"), "list"},          {BYTES("\x80"), "map"},
        {BYTES("\xd4\x05x"), "ext"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value v = decoded(&arena, cases[i].bytes);
        assert_string_equal(sel_value_kind_name(sel_value_kind(&v)), cases[i].name);
    }
    sel_arena_done(&arena);
}

static void test_ints_fit_or_say_so(void **state)
{
    (void)state;
    int64_t i = 42;
    struct sel_value v = sel_value_from_u64(UINT64_MAX);
    assert_false(sel_value_i64(&v, &i));
    assert_int_equal(i, 42);
    assert_true(sel_value_num(&v) == 0x1p64);
    v = sel_value_from_i64(INT64_MIN);
    assert_true(sel_value_i64(&v, &i));
    assert_true(i == INT64_MIN);
    assert_true(sel_value_num(&v) == -0x1p63);
    v = sel_value_from_i64(INT64_MAX);
    assert_true(sel_value_i64(&v, &i));
    assert_true(i == INT64_MAX);
}

static void test_of_duplicate_keys_the_last_is_found(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value map = decoded(&arena, BYTES("\x84\xa1"
                                                 "a\x01\x07\x02\xa1"
                                                 "a\x03\xa1"
                                                 "b\x04"));
    int64_t i;
    assert_int_equal(sel_value_count(&map), 4);
    assert_true(sel_value_i64(sel_value_get_c(&map, "a"), &i));
    assert_int_equal(i, 3);
    assert_null(sel_value_get_c(&map, "c"));
    assert_null(sel_value_get(&map, SEL_STR("a\0")));
    assert_int_equal(sel_value_kind(sel_value_key_at(&map, 1)), SEL_INT);
    assert_true(sel_value_i64(sel_value_val_at(&map, 1), &i));
    assert_int_equal(i, 2);
    struct sel_value list = sel_value_from_list(&map, 1);
    assert_null(sel_value_get_c(&list, "a")); /* no map, no value */
    sel_arena_done(&arena);
}

static void test_truth_is_that_of_the_original(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    static const char *const is_false[] = {"null", "false", "0",  "-0", "0.0",
                                           "-0.0", "\"\"",  "[]", "{}"};
    static const char *const is_true[] = {"true",  "1",     "-1",  "0.1",
                                          "\" \"", "\"0\"", "[0]", "{\"\":0}"};
    for (size_t i = 0; i < SEL_COUNT(is_false); i++) {
        struct sel_value v = sel_test_json(&arena, is_false[i]);
        assert_false(sel_value_is_true(&v));
    }
    for (size_t i = 0; i < SEL_COUNT(is_true); i++) {
        struct sel_value v = sel_test_json(&arena, is_true[i]);
        assert_true(sel_value_is_true(&v));
    }
    struct sel_value nan_value = sel_value_from_f64(NAN);
    assert_true(sel_value_is_true(&nan_value));
    sel_arena_done(&arena);
}

/* Equality */

static void test_equality_across_kinds_is_that_of_the_original(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        const char *a, *b;
        bool equal, same;
    } cases[] = {
        {"null", "null", true, true},
        {"null", "false", false, false},
        {"null", "0", false, false},
        {"1", "1", true, true},
        {"1", "1.0", true, false},
        {"1", "true", true, false},
        {"1.0", "true", true, false},
        {"0", "false", true, false},
        {"2", "true", false, false},
        {"0", "-0.0", true, false},
        {"0.0", "-0.0", true, true},
        {"1", "\"1\"", false, false},
        {"1.5", "1", false, false},
        /* exactly, although as doubles they would be equal */
        {"9007199254740993", "9007199254740992.0", false, false},
        {"9007199254740992", "9007199254740992.0", true, false},
        {"-9007199254740993", "-9007199254740992.0", false, false},
        {"18446744073709551615", "18446744073709551616.0", false, false},
        {"9223372036854775808", "9223372036854775808.0", true, false},
        {"9223372036854775807", "9223372036854775808.0", false, false},
        {"-9223372036854775808", "-9223372036854775808.0", true, false},
        {"18446744073709551615", "-1", false, false}, /* the same bits */
        {"18446744073709551615", "-1.0", false, false},
        {"18446744073709551614", "-2.0", false, false},
        {"-1", "-1.0", true, false},
        {"1e300", "18446744073709551615", false, false},
        {"\"\"", "\"\"", true, true},
        {"\"a\"", "\"b\"", false, false},
        {"\"a\"", "\"ab\"", false, false},
        {"[]", "{}", false, false},
        {"[]", "[]", true, true},
        {"[1,2]", "[1,2]", true, true},
        {"[1,2]", "[1.0,2]", true, false},
        {"[1,2]", "[2,1]", false, false},
        {"[1,2]", "[1]", false, false},
        {"{}", "{}", true, true},
        {"{\"a\":1,\"b\":[2]}", "{\"b\":[2],\"a\":1}", true, true},
        {"{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":true}", true, false},
        {"{\"a\":1}", "{\"b\":1}", false, false},
        {"{\"a\":1}", "{\"a\":1,\"b\":1}", false, false},
        {"{\"a\":null}", "{\"b\":null}", false, false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value a = sel_test_json(&arena, cases[i].a);
        struct sel_value b = sel_test_json(&arena, cases[i].b);
        assert_int_equal(sel_value_equal(&a, &b), cases[i].equal);
        assert_int_equal(sel_value_equal(&b, &a), cases[i].equal);
        assert_int_equal(sel_value_same(&a, &b), cases[i].same);
        assert_int_equal(sel_value_same(&b, &a), cases[i].same);
    }
    sel_arena_done(&arena);
}

static void test_equality_of_what_json_cannot_say(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        struct bytes a, b;
        bool equal, same;
    } cases[] = {
        {BYTES("\xc4\x01x"), BYTES("\xc4\x01x"), true, true},
        {BYTES("\xc4\x01x"), BYTES("\xa1x"), false, false}, /* bytes are no text */
        {BYTES("\xd4\x05x"), BYTES("\xd4\x05x"), true, true},
        {BYTES("\xd4\x05x"), BYTES("\xd4\x06x"), false, false},
        {BYTES("\xca\x7f\xc0\0\0"), BYTES("\xca\x7f\xc0\0\0"), false, true}, /* NaN */
        {BYTES("\xca\x7f\xc0\0\0"), BYTES("\x01"), false, false},
        /* {a: 1, a: 2} is {a: 2} */
        {BYTES("\x82\xa1"
               "a\x01\xa1"
               "a\x02"),
         BYTES("\x81\xa1"
               "a\x02"),
         true, true},
        {BYTES("\x82\xa1"
               "a\x01\xa1"
               "a\x02"),
         BYTES("\x81\xa1"
               "a\x01"),
         false, false},
        {BYTES("\x82\xa1"
               "a\x01\xa1"
               "a\x02"),
         BYTES("\x82\xa1"
               "a\x02\xa1"
               "b\x02"),
         false, false},
        /* {1: x} and {true: x}, {1.0: x}: the same key by value */
        {BYTES("\x81\x01\x05"), BYTES("\x81\xc3\x05"), true, false},
        {BYTES("\x81\x01\x05"), BYTES("\x81\xcb\x3f\xf0\0\0\0\0\0\0\x05"), true, false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value a = decoded(&arena, cases[i].a), b = decoded(&arena, cases[i].b);
        assert_int_equal(sel_value_equal(&a, &b), cases[i].equal);
        assert_int_equal(sel_value_equal(&b, &a), cases[i].equal);
        assert_int_equal(sel_value_same(&a, &b), cases[i].same);
        assert_int_equal(sel_value_same(&b, &a), cases[i].same);
    }
    sel_arena_done(&arena);
}

/* {"k<first>": 0, "k<first + step>": 1, ...} */
static struct sel_value numbered_map(struct sel_arena *arena, uint32_t count, bool backwards)
{
    struct sel_value_builder b;
    struct sel_value map;
    sel_value_begin_map(&b, arena);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t i = backwards ? count - 1 - n : n;
        sel_value_put_c(&b, sel_arena_printf(arena, "k%u", i), sel_value_from_u64(i));
    }
    assert_ok(sel_value_end(&b, &map));
    return map;
}

static void test_large_maps_compare_in_linear_time(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    enum { COUNT = 100000 }; /* entry by entry that would be 10^10 steps */
    struct sel_value a = numbered_map(&arena, COUNT, false);
    struct sel_value b = numbered_map(&arena, COUNT, true);
    assert_true(sel_value_equal(&a, &b));
    assert_true(sel_value_same(&a, &b));
    b.o.via.map.ptr[COUNT / 2].val = sel_value_null.o;
    assert_false(sel_value_equal(&a, &b));
    sel_arena_done(&arena);
}

static void test_maps_within_keys_compare_in_linear_time(void **state)
{
    (void)state;
    char bytes[1024]; /* {{{...: 0, 1: 0}: 0, 1: 0}: 0, 1: 0}: searching would take 2^200 steps */
    size_t depth = 200, n = 0;
    memset(bytes, 0x82, depth);
    for (n = depth; n < 4 * depth;) {
        bytes[n++] = 0;
        bytes[n++] = 1;
        bytes[n++] = 0;
    }
    bytes[n++] = 0;
    struct sel_arena arena = {0};
    struct sel_value a = decoded(&arena, (struct bytes){bytes, n});
    struct sel_value b = decoded(&arena, (struct bytes){bytes, n});
    assert_true(sel_value_equal(&a, &b));
    assert_true(sel_value_same(&a, &b));
    bytes[n / 2] = 5;
    b = decoded(&arena, (struct bytes){bytes, n});
    assert_false(sel_value_equal(&a, &b));
    sel_arena_done(&arena);
}

static void test_maps_compare_right_without_memory(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value a = numbered_map(&arena, 100, false), b = numbered_map(&arena, 100, true);
    for (int64_t n = 1; n < 10; n++) {
        sel_mem_fail_at(n);
        bool equal = sel_value_equal(&a, &b);
        sel_mem_fail_at(0);
        assert_true(equal);
    }
    sel_arena_done(&arena);
}

/* Builders, encoding, copies */

static void test_builders_make_lists_and_maps(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value_builder list, map;
    struct sel_value inner, outer;
    sel_value_begin_list(&list, &arena);
    for (int64_t i = 0; i < 20; i++)
        sel_value_add(&list, sel_value_from_i64(i - 10));
    assert_ok(sel_value_end(&list, &inner));
    sel_value_begin_map(&map, &arena);
    sel_value_put_c(&map, "list", inner);
    sel_value_put(&map, SEL_STR("text"), sel_value_from_c("x"));
    sel_value_put_c(&map, "none", sel_value_from_c(NULL));
    sel_value_put_key(&map, sel_value_from_i64(7), sel_value_from_f64(0.5));
    sel_value_put_c(&map, "yes", sel_value_from_bool(true));
    assert_ok(sel_value_end(&map, &outer));
    assert_json(&outer, "{\"7\":0.5,\"list\":[-10,-9,-8,-7,-6,-5,-4,-3,-2,-1,0,1,2,3,4,5,6,7,8,9],"
                        "\"none\":null,\"text\":\"x\",\"yes\":true}");
    sel_value_begin_list(&list, &arena);
    assert_ok(sel_value_end(&list, &inner));
    assert_int_equal(sel_value_count(&inner), 0);
    sel_arena_done(&arena);
}

static void test_values_are_encoded_in_their_shortest_form(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    static const struct bytes cases[] = {
        BYTES("\xc0"),
        BYTES("\xc2"),
        BYTES("\xc3"),
        BYTES("\x7f"),
        BYTES("\xcc\x80"),
        BYTES("\xcd\x01\x00"),
        BYTES("\xce\x00\x01\x00\x00"),
        BYTES("\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
        BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        BYTES("\xe0"),
        BYTES("\xd0\x80"),
        BYTES("\xd1\xff\x7f"),
        BYTES("\xd2\xff\xff\x7f\xff"),
        BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
        BYTES("\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        BYTES("\xa0"),
        BYTES("\xa5\x00h\xc3\xa9y"),
        BYTES("\xd9\x20"
              "01234567890123456789012345678901"),
        BYTES("\xc4\x00"),
        BYTES("\xc4\x02\xff\x00"),
        BYTES("\xd4\x05\x01"),
        BYTES("\xd8\xff"
              "0123456789abcdef"),
        BYTES("\xc7\x03\x05xyz"),
        BYTES("\x90"),
        BYTES("\x93\x01\x92\x02\x03\x90"),
        BYTES("\x80"),
        BYTES("\x82\xa1"
              "a\x81\x01\x02\x90\xc0"),
        BYTES("\xdc\x00\x10"
              "0123456789abcdef"),
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_buf buf = {0};
        struct sel_value v = decoded(&arena, cases[i]);
        sel_value_encode(&v, &buf);
        assert_ok(sel_buf_error(&buf));
        assert_int_equal(buf.n, cases[i].n);
        assert_memory_equal(buf.p, cases[i].p, buf.n);
        sel_buf_done(&buf);
    }
    sel_arena_done(&arena);
}

static void test_long_forms_are_read_too(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    const struct {
        struct bytes bytes;
        const char *json;
    } cases[] = {
        {BYTES("\xcf\0\0\0\0\0\0\0\x01"), "1"},
        {BYTES("\xd0\x01"), "1"},
        {BYTES("\xd1\xff\xff"), "-1"},
        {BYTES("\xd3\0\0\0\0\0\0\0\x01"), "1"},
        {BYTES("\xca\x3f\xc0\0\0"), "1.5"},
        {BYTES("\xdb\0\0\0\x01x"), "\"x\""},
        {BYTES("\xda\0\x01x"), "\"x\""},
        {BYTES("\xc6\0\0\0\x01x"), "\"eA==\""},
        {BYTES("\xc9\0\0\0\x01\x05x"), "\"eA==\""},
        {BYTES("\xdd\0\0\0\x01\x01"), "[1]"},
        {BYTES("\xdf\0\0\0\x01\xa1"
               "a\x01"),
         "{\"a\":1}"},
        {BYTES("\xde\0\x01\xa1"
               "a\x01"),
         "{\"a\":1}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_value v = decoded(&arena, cases[i].bytes);
        assert_json(&v, cases[i].json);
    }
    struct sel_value one = decoded(&arena, BYTES("\xd3\0\0\0\0\0\0\0\x01"));
    assert_int_equal(one.o.type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    sel_arena_done(&arena);
}

static void test_damaged_data_is_refused(void **state)
{
    (void)state;
    const struct {
        struct bytes bytes;
        size_t at;
    } cases[] = {
        {BYTES(""), 0},         /* nothing */
        {BYTES("\xc1"), 0},     /* begins no value */
        {BYTES("\x01\x02"), 1}, /* trailing */
        {BYTES("\x92\x01"), 1}, /* cut list: seen at its head */
        {BYTES("\x81\xa1"
               "a"),
         3},                                    /* cut map */
        {BYTES("\xdd\xff\xff\xff\xff\x01"), 5}, /* a count that the data cannot hold */
        {BYTES("\xdf\xff\xff\xff\xff\x01"), 5},
        {BYTES("\xdf\x80\x00\x00\x00\x01"), 5},
        {BYTES("\xdb\xff\xff\xff\xff"
               "abc"),
         5},
        {BYTES("\xc6\x00\x00\x00\x04"
               "abc"),
         5},
        {BYTES("\xc9\xff\xff\xff\xff\x05"
               "abc"),
         6},
        {BYTES("\xc7\x00"), 2}, /* an ext without a type */
        {BYTES("\xcd\x01"), 1}, /* cut numbers */
        {BYTES("\xcb\x01\x02\x03"), 1},
        {BYTES("\xda\x01"), 1},
        {BYTES("\xa3x\xff\x80"), 2}, /* text that is not UTF-8: at its first bad byte */
        {BYTES("\xa2\xc3("), 1},
        {BYTES("\x81\xa1\xff\x01"), 2},     /* keys too */
        {BYTES("\x94\x93\x01\x02\x03"), 2}, /* together more elements than bytes */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        for (int copy = 0; copy < 2; copy++) {
            struct sel_arena arena = {0};
            struct sel_value v = sel_value_from_i64(42);
            struct sel_error err;
            char place[32];
            assert_code(
                sel_value_decode(&arena, cases[i].bytes.p, cases[i].bytes.n, copy, &v, &err),
                SEL_EFORMAT);
            (void)snprintf(place, sizeof(place), "msgpack: byte %zu: ", cases[i].at);
            assert_memory_equal(err.text, place, strlen(place));
            assert_int_equal(v.o.via.i64, 42);
            assert_code(
                sel_value_decode(&arena, cases[i].bytes.p, cases[i].bytes.n, copy, &v, NULL),
                SEL_EFORMAT);
            sel_arena_done(&arena);
        }
    }
}

static void test_what_is_reserved_is_bounded_by_the_input(void **state)
{
    (void)state;
    /* each list announces as many elements as there are bytes left, if it were alone */
    char bytes[3000];
    size_t n = 0;
    while (n + 5 <= sizeof(bytes)) {
        size_t left = sizeof(bytes) - n - 3;
        char head[3] = {(char)0xdc, (char)(left >> 8), (char)left};
        memcpy(bytes + n, head, sizeof(head));
        n += sizeof(head);
    }
    struct sel_arena arena = {0};
    struct sel_value v;
    assert_code(sel_value_decode(&arena, bytes, n, false, &v, NULL), SEL_EFORMAT);
    assert_true(arena.used <= n * sizeof(struct sel_value));
    sel_arena_done(&arena);
}

static void test_depth_is_limited(void **state)
{
    (void)state;
    static char bytes[10001];
    memset(bytes, (char)0x91, sizeof(bytes)); /* lists of one element */
    for (int is_too_deep = 0; is_too_deep < 2; is_too_deep++) {
        struct sel_arena arena = {0};
        struct sel_value v, copy;
        size_t n = SEL_VALUE_DEPTH_MAX + (size_t)is_too_deep;
        bytes[n - 1] = (char)0x90;
        int expected = is_too_deep ? SEL_ELIMIT : 0;
        assert_code(sel_value_decode(&arena, bytes, n, false, &v, NULL), expected);
        bytes[n - 1] = (char)0x91;
        if (!is_too_deep) {
            assert_ok(sel_value_copy(&arena, &v, &copy));
            assert_true(sel_value_equal(&v, &copy));
        }
        sel_arena_done(&arena);
    }
    struct sel_arena arena = {0};
    struct sel_value v;
    assert_code(sel_value_decode(&arena, bytes, sizeof(bytes), false, &v, NULL), SEL_ELIMIT);
    sel_arena_done(&arena);
}

static void test_values_built_too_deep_are_not_written(void **state)
{
    (void)state;
    static struct sel_value levels[SEL_VALUE_DEPTH_MAX + 1];
    levels[0] = sel_value_from_list(NULL, 0);
    for (uint32_t i = 1; i <= SEL_VALUE_DEPTH_MAX; i++)
        levels[i] = sel_value_from_list(&levels[i - 1], 1);
    struct sel_arena arena = {0};
    struct sel_value copy;
    for (uint32_t extra = 0; extra < 2; extra++) {
        const struct sel_value *v = &levels[SEL_VALUE_DEPTH_MAX - 1 + extra];
        int expected = extra ? SEL_ELIMIT : 0;
        struct sel_buf buf = {0};
        sel_value_encode(v, &buf);
        assert_code(sel_buf_error(&buf), expected);
        assert_code(sel_value_copy(&arena, v, &copy), expected);
        assert_int_equal(sel_value_equal(v, v), !extra);
        sel_buf_clear(&buf);
        sel_json_write(v, 0, &buf);
        assert_code(sel_buf_error(&buf), expected);
        sel_buf_done(&buf);
    }
    sel_arena_done(&arena);
}

static void test_decoded_texts_are_borrowed_or_copied(void **state)
{
    (void)state;
    char bytes[] = "\x92\xa3"
                   "abc\xc4\x02xy";
    struct sel_arena arena = {0};
    struct sel_value borrowed, owned;
    assert_ok(sel_value_decode(&arena, bytes, sizeof(bytes) - 1, false, &borrowed, NULL));
    assert_ok(sel_value_decode(&arena, bytes, sizeof(bytes) - 1, true, &owned, NULL));
    assert_ptr_equal(sel_value_str(sel_value_at(&borrowed, 0)).p, bytes + 2);
    memset(bytes, 'z', sizeof(bytes));
    assert_str_is(sel_value_str(sel_value_at(&owned, 0)), "abc");
    assert_str_is(sel_value_str(sel_value_at(&owned, 1)), "xy");
    sel_arena_done(&arena);
}

static void test_a_copy_outlives_its_source(void **state)
{
    (void)state;
    struct sel_arena arena = {0}, copies = {0};
    static const char text[] = "{\"a\":[1,2.5,\"text\",{},[],\"\"],\"b\":{\"c\":null}}";
    struct sel_value v = sel_test_json(&arena, text), copy;
    assert_ok(sel_value_copy(&copies, &v, &copy));
    assert_true(sel_value_same(&v, &copy));
    sel_arena_done(&arena);
    assert_json(&copy, text);
    assert_ok(sel_value_copy(&copies, NULL, &copy));
    assert_int_equal(sel_value_kind(&copy), SEL_NULL);
    sel_arena_done(&copies);
}

static int round_trip(void *ctx)
{
    struct bytes *bytes = ctx;
    struct sel_arena arena = {0};
    struct sel_value v, copy;
    struct sel_buf buf = {0};
    int r = sel_value_decode(&arena, bytes->p, bytes->n, true, &v, NULL);
    if (r == 0)
        r = sel_value_copy(&arena, &v, &copy);
    if (r == 0) {
        sel_value_encode(&copy, &buf);
        r = sel_buf_error(&buf);
    }
    sel_buf_done(&buf);
    sel_arena_done(&arena);
    return r;
}

static int build(void *ctx)
{
    (void)ctx;
    struct sel_arena arena = {0};
    struct sel_value_builder b;
    struct sel_value v;
    sel_value_begin_map(&b, &arena);
    for (int64_t i = 0; i < 500; i++)
        sel_value_put_c(&b, "key", sel_value_from_i64(i));
    int r = sel_value_end(&b, &v);
    sel_arena_done(&arena);
    return r;
}

static void test_a_failing_heap_is_reported(void **state)
{
    (void)state;
    char list[300] = "\xdc\x01\x00";
    memset(list + 3, 'x', 256);
    struct bytes bytes = {list, 259};
    sel_test_each_alloc_fails(round_trip, &bytes);
    sel_test_each_alloc_fails(build, NULL);
}

static void test_the_limit_of_an_arena_is_kept(void **state)
{
    (void)state;
    struct sel_arena arena;
    sel_arena_init(&arena, 4096);
    char list[1000];
    memset(list, 'x', sizeof(list));
    memcpy(list, "\xdc\x03\xe5", 3); /* 997 elements */
    struct sel_value v;
    struct sel_error err;
    assert_code(sel_value_decode(&arena, list, sizeof(list), false, &v, &err), SEL_ENOMEM);
    assert_true(arena.reserved <= 4096);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_pointers_read_as_null),
        cmocka_unit_test(test_each_kind_has_its_name),
        cmocka_unit_test(test_ints_fit_or_say_so),
        cmocka_unit_test(test_of_duplicate_keys_the_last_is_found),
        cmocka_unit_test(test_truth_is_that_of_the_original),
        cmocka_unit_test(test_equality_across_kinds_is_that_of_the_original),
        cmocka_unit_test(test_equality_of_what_json_cannot_say),
        cmocka_unit_test(test_large_maps_compare_in_linear_time),
        cmocka_unit_test(test_maps_within_keys_compare_in_linear_time),
        cmocka_unit_test(test_maps_compare_right_without_memory),
        cmocka_unit_test(test_builders_make_lists_and_maps),
        cmocka_unit_test(test_values_are_encoded_in_their_shortest_form),
        cmocka_unit_test(test_long_forms_are_read_too),
        cmocka_unit_test(test_damaged_data_is_refused),
        cmocka_unit_test(test_what_is_reserved_is_bounded_by_the_input),
        cmocka_unit_test(test_depth_is_limited),
        cmocka_unit_test(test_values_built_too_deep_are_not_written),
        cmocka_unit_test(test_decoded_texts_are_borrowed_or_copied),
        cmocka_unit_test(test_a_copy_outlives_its_source),
        cmocka_unit_test(test_a_failing_heap_is_reported),
        cmocka_unit_test(test_the_limit_of_an_arena_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
