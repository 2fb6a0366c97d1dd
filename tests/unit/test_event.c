#include "tests/support/test.h"

#include "core/event.h"

static const uint32_t items[] = {0, 127, 128, UINT32_MAX};

static struct sel_event full(enum sel_event_type type)
{
    return (struct sel_event){.type = type,
                              .a = 1,
                              .b = 300,
                              .c = UINT32_MAX,
                              .list = items,
                              .list_count = SEL_COUNT(items),
                              .bytes = SEL_STR("some bytes"),
                              .id = {UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210)}};
}

static void test_every_event_survives_its_codec(void **state)
{
    (void)state;
    for (int type = SEL_EVENT_START; type < SEL_EVENT_TYPE_END; type++) {
        struct sel_event event = full((enum sel_event_type)type), decoded;
        struct sel_buf bytes = {0}, again = {0};
        uint32_t list[SEL_COUNT(items)];
        size_t pos = 0;
        sel_event_encode(&event, &bytes);
        sel_event_encode(&event, &bytes); /* a record: the second begins where the first ends */
        for (int i = 0; i < 2; i++) {
            assert_ok(sel_event_decode(bytes.p, bytes.n, &pos, list, &decoded));
            assert_int_equal(decoded.type, type);
            sel_event_encode(&decoded, &again);
        }
        assert_int_equal(pos, bytes.n);
        assert_true(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&again)));
        assert_string_not_equal(sel_event_name((enum sel_event_type)type), "?");
        sel_buf_done(&bytes);
        sel_buf_done(&again);
    }
}

/* What a released layout looks like: these bytes must be read for ever. */
static void test_layouts_do_not_change(void **state)
{
    (void)state;
    const struct {
        enum sel_event_type type;
        const char *bytes;
        size_t size;
    } cases[] = {
        {SEL_EVENT_START, "\x01", 1},
        {SEL_EVENT_DONE, "\x02\x01", 2},
        {SEL_EVENT_ARGS, "\x04\x0asome bytes", 12},
        {SEL_EVENT_WAIT, "\x06\x04\x00\x7f\x80\x01\xff\xff\xff\xff\x0f", 11},
        {SEL_EVENT_TASK, "\x0b\x01\xac\x02", 4},
        {SEL_EVENT_FLOW,
         "\x0c\x01\xac\x02\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10", 20},
        {SEL_EVENT_CHOICE,
         "\x11\x01\xac\x02\xff\xff\xff\xff\x0f\x04\x00\x7f\x80\x01\xff\xff\xff\xff\x0f", 19},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_event event = full(cases[i].type);
        struct sel_buf bytes = {0};
        sel_event_encode(&event, &bytes);
        assert_int_equal(bytes.n, cases[i].size);
        assert_memory_equal(bytes.p, cases[i].bytes, cases[i].size);
        sel_buf_done(&bytes);
    }
}

static void test_what_is_cut_is_refused_wherever_it_is_cut(void **state)
{
    (void)state;
    for (int type = SEL_EVENT_START; type < SEL_EVENT_TYPE_END; type++) {
        struct sel_event event = full((enum sel_event_type)type), decoded;
        struct sel_buf bytes = {0};
        uint32_t list[SEL_COUNT(items)];
        sel_event_encode(&event, &bytes);
        for (size_t n = 0; n < bytes.n; n++) {
            size_t pos = 0;
            assert_code(sel_event_decode(bytes.p, n, &pos, list, &decoded), SEL_EFORMAT);
            assert_int_equal(pos, 0);
        }
        sel_buf_done(&bytes);
    }
}

static void test_garbage_is_refused(void **state)
{
    (void)state;
    const struct sel_str cases[] = {
        SEL_STR("\x00"),                                         /* no type */
        SEL_STR("\x17"),                                         /* the first unused one */
        SEL_STR("\xff"),                                         /* the last */
        SEL_STR("\x02\x80\x80\x80\x80\x10"),                     /* 2^32 */
        SEL_STR("\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), /* beyond 64 bits */
        SEL_STR("\x04\x05four"),                                 /* bytes behind the end */
        SEL_STR("\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* a size of 2^64 - 1 */
        SEL_STR("\x06\x81\x80\x04\x00"),                         /* 65537 items */
        SEL_STR("\x0c\x00\x00too short an id"),
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_event event = {.type = SEL_EVENT_END};
        uint32_t list[4];
        size_t pos = 0;
        assert_code(sel_event_decode((const uint8_t *)cases[i].p, cases[i].n, &pos, list, &event),
                    SEL_EFORMAT);
        assert_int_equal(event.type, SEL_EVENT_END);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_event_survives_its_codec),
        cmocka_unit_test(test_layouts_do_not_change),
        cmocka_unit_test(test_what_is_cut_is_refused_wherever_it_is_cut),
        cmocka_unit_test(test_garbage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
