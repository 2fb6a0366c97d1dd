/* tests/support/test.h - what every unit test includes: cmocka in its order, and our asserts.
 *
 * An assert that fails ends the test at once (cmocka jumps out), so what it leaves allocated does
 * not matter. */
#ifndef SEL_TESTS_SUPPORT_TEST_H
#define SEL_TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/value.h"

/* The text `actual` (a struct sel_str) is the C string `expected`. */
#define assert_str_is(actual, expected)                                                            \
    sel_test_str_is((actual), sel_str_c(expected), __FILE__, __LINE__)

static inline void sel_test_str_is(struct sel_str actual, struct sel_str expected, const char *file,
                                   int line)
{
    if (sel_str_eq(actual, expected))
        return;
    print_error("got:      '%.*s'\nexpected: '%.*s'\n", SEL_STR_ARG(actual), SEL_STR_ARG(expected));
    _fail(file, line);
}

/* A call that must return 0. */
#define assert_ok(call) sel_test_code((call), 0, #call, __FILE__, __LINE__)
/* A call that must return the code `expected`; tells both by name. */
#define assert_code(call, expected) sel_test_code((call), (expected), #call, __FILE__, __LINE__)

static inline void sel_test_code(int actual, int expected, const char *call, const char *file,
                                 int line)
{
    if (actual == expected)
        return;
    print_error("%s\ngot:      %d %s\nexpected: %d %s\n", call, actual, sel_error_name(actual),
                expected, sel_error_name(expected));
    _fail(file, line);
}

/* The value of a JSON text that must be right; lives in `arena`. */
static inline struct sel_value sel_test_json(struct sel_arena *arena, const char *text)
{
    struct sel_value value;
    struct sel_error err;
    int r = sel_json_parse(arena, NULL, sel_str_c(text), &value, NULL, &err);
    if (r < 0)
        fail_msg("'%s': %s", text, err.text);
    return value;
}

/* The JSON text of a value with sorted keys, terminated; lives in `arena`. */
static inline const char *sel_test_json_text(struct sel_arena *arena, const struct sel_value *v)
{
    struct sel_buf buf = {0};
    sel_json_write(v, SEL_JSON_SORT, &buf);
    assert_ok(sel_buf_error(&buf));
    const char *text = sel_arena_strdup(arena, sel_buf_str(&buf));
    assert_non_null(text);
    sel_buf_done(&buf);
    return text;
}

/* The value has this JSON text: keys sorted, no spaces. */
#define assert_json(value, expected)                                                               \
    do {                                                                                           \
        struct sel_arena arena_of_assert = {0};                                                    \
        assert_string_equal(sel_test_json_text(&arena_of_assert, (value)), (expected));            \
        sel_arena_done(&arena_of_assert);                                                          \
    } while (0)

/* Calls run(ctx) again and again; the n-th time its n-th allocation fails and it must return
 * SEL_ENOMEM, until all succeed and it must return 0. run frees what it makes, whatever happens. */
static inline void sel_test_each_alloc_fails(int (*run)(void *ctx), void *ctx)
{
    for (uint64_t n = 1; n < 100000; n++) {
        uint64_t before = sel_mem_alloc_count();
        sel_mem_fail_at((int64_t)n);
        int r = run(ctx);
        sel_mem_fail_at(0);
        if (sel_mem_alloc_count() - before < n) {
            assert_ok(r);
            return;
        }
        assert_code(r, SEL_ENOMEM);
    }
    fail_msg("the allocations have no end");
}

#endif
