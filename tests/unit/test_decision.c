/* Payloads of DECIDE: what is written is read, and what cannot be is refused. */
#include "proto/decision.h"

#include "proto/le.h"
#include "proto/wire.h"
#include "tests/support/test.h"

static struct sel_str fields_of(struct sel_buf *buf, const char *name)
{
    sel_buf_clear(buf);
    sel_wire_put_field(buf, SEL_FIELD_TASK, sel_str_c(name));
    return sel_buf_str(buf);
}

static void write_one(struct sel_buf *out)
{
    struct sel_decision_writer w = {0};
    struct sel_buf fields = {0};
    struct sel_decision_start start = {.count = 1, .queue = 3, .parents = 2};
    sel_decision_add_consumed(&w, 4);
    sel_decision_add_consumed(&w, 9);
    assert_int_equal(sel_decision_add_blob(&w, SEL_STR("arguments")), 1);
    assert_int_equal(sel_decision_add_blob(&w, SEL_STR("")), 2);
    start.fields = fields_of(&fields, "Resize");
    for (start.ordinal = 10; start.ordinal < 1010; start.ordinal++)
        sel_decision_add_start(&w, &start);
    start.flags = SEL_START_FLOW;
    start.child = (struct sel_id){1, 2};
    start.throttle_us = 5;
    start.fields = fields_of(&fields, "ingest");
    sel_decision_add_start(&w, &start);
    w.set_args = 1;
    assert_int_equal(w.start_count, 2); /* a thousand alike are one */
    const struct sel_decision end = {.number = 7,
                                     .is_end = true,
                                     .outcome = SEL_OUTCOME_RETRY,
                                     .countdown_us = 99,
                                     .events = SEL_STR("events"),
                                     .result = SEL_STR("result")};
    assert_int_equal(sel_decision_writer_end(&w, &end, out), 0);
    assert_true(sel_decision_is_empty(&w));
    sel_decision_writer_done(&w);
    sel_buf_done(&fields);
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    struct sel_buf out = {0};
    struct sel_decision d;
    struct sel_decision_start start;
    write_one(&out);
    assert_int_equal(sel_decision_decode(sel_buf_str(&out), &d, NULL), 0);
    assert_int_equal(d.number, 7);
    assert_int_equal(d.outcome, SEL_OUTCOME_RETRY);
    assert_int_equal(d.countdown_us, 99);
    assert_int_equal(d.set_args, 1);
    assert_int_equal(d.consumed_count, 2);
    assert_int_equal(sel_decision_consumed(&d, 1), 9);
    struct sel_str rest = d.blobs;
    assert_str_is(sel_decision_next_blob(&d, 0, &rest), "arguments");
    assert_str_is(sel_decision_next_blob(&d, 1, &rest), "");
    rest = d.starts;
    sel_decision_next_start(&rest, &start);
    assert_int_equal(start.ordinal, 10);
    assert_int_equal(start.count, 1000);
    assert_int_equal(start.parents, 2);
    sel_decision_next_start(&rest, &start);
    assert_int_equal(start.ordinal, 1010);
    assert_true(sel_id_eq(start.child, (struct sel_id){1, 2}));
    assert_int_equal(start.throttle_us, 5);
    assert_int_equal(rest.n, 0);
    assert_str_is(d.events, "events");
    assert_str_is(d.result, "result");
    sel_buf_done(&out);
}

static void test_every_cut_is_refused(void **state)
{
    (void)state;
    struct sel_buf out = {0};
    struct sel_decision d;
    write_one(&out);
    for (size_t n = 0; n < out.n; n++) {
        char *copy = test_malloc(n + 1); /* of its size: what is read beyond it shows */
        memcpy(copy, out.p, n);
        assert_int_equal(sel_decision_decode((struct sel_str){copy, n}, &d, NULL), SEL_EFORMAT);
        test_free(copy);
    }
    sel_buf_put_u8(&out, 0);
    assert_int_equal(sel_decision_decode(sel_buf_str(&out), &d, NULL), SEL_EFORMAT);
    sel_buf_done(&out);
}

static void test_what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint32_t value;
        const char *text;
    } cases[] = {
        {0, 0, "no number"},
        {4, 0, "no outcome that can be"},  /* an outcome before the end */
        {24, 3, "no outcome that can be"}, /* failed for good is failed */
        {24, 9, "no outcome that can be"},
        {40, 3, "a blob that is not there"}, /* set_args */
        {12, 0x40000000, "cut within"},      /* blobs */
        {8, UINT32_MAX, "cut within"},
        {16, 3, "cut within start"},
        {64 + 4, 0, "ordinals go up"}, /* the first start: count */
        {64 + 4, UINT32_MAX, "ordinals go up"},
        {64 + 4, SEL_DECISION_RUNS_MAX + 1, "more than 262144 starts"},
        {64 + 12, 3, "a blob that is not there"},
        {64 + 16, 3, "a blob that is not there"},
        {64 + 40, 1, "a sub-flow has an id"},
        {64 + 56, 2, "without a name"}, /* the tag of its field */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_buf out = {0};
        struct sel_decision d;
        struct sel_error err = {0};
        write_one(&out);
        sel_le_put32(out.p + cases[i].offset, cases[i].value);
        if (sel_decision_decode(sel_buf_str(&out), &d, &err) != SEL_EFORMAT ||
            !strstr(err.text, cases[i].text))
            fail_msg("case %zu: '%s', expected '%s'", i, err.text, cases[i].text);
        sel_buf_done(&out);
    }
}

static void test_what_is_too_large_is_an_error_of_the_writer(void **state)
{
    (void)state;
    struct sel_decision_writer w = {0};
    struct sel_buf out = {0};
    const struct sel_decision end = {.number = 1};
    static const char byte[1];
    (void)sel_decision_add_blob(&w, (struct sel_str){byte, SEL_DECISION_MAX + 1});
    assert_int_equal(sel_decision_writer_end(&w, &end, &out), SEL_ELIMIT);
    assert_int_equal(out.n, 0);
    assert_int_equal(sel_decision_writer_end(&w, &end, &out), 0); /* it is empty again */
    sel_decision_writer_done(&w);
    sel_buf_done(&out);
}

static void test_ids_of_runs_are_those_of_the_protocol(void **state)
{
    (void)state;
    char text[SEL_ID_TEXT_SIZE];
    struct sel_id flow;
    assert_true(sel_id_parse(SEL_STR("0198f3c2-7b1c-7001-8000-4a0000000007"), &flow));
    static const struct {
        uint32_t attempt, ordinal;
        const char *id;
    } cases[] = {
        {0, 0, "0198f3c2-7b1c-8d14-973e-b594fb7ae087"},
        {0, 1, "0198f3c2-7b1c-89ee-a28f-0cc24f710427"},
        {1, 0, "0198f3c2-7b1c-8ec9-ac63-7b7df2d263ff"},
        {65535, 4294967294, "0198f3c2-7b1c-829e-86b9-f8b8c31e4b62"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_string_equal(
            sel_id_format(sel_wire_run_id(flow, cases[i].attempt, cases[i].ordinal), text),
            cases[i].id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_what_is_too_large_is_an_error_of_the_writer),
        cmocka_unit_test(test_ids_of_runs_are_those_of_the_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
