#include "tests/support/test.h"

#include "core/state.h"

#define ARGS SEL_STR("\xc0")

static int apply(struct sel_state *state, struct sel_event event)
{
    return sel_state_apply(state, &event);
}

/* A flow of two nodes: slot 0 started twice by edge 0, edge 1 goes from it to slot 1. */
static void begin(struct sel_state *state)
{
    assert_ok(sel_state_init(state, (struct sel_id){1, 2}, 2, 2, ARGS));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_START}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_EDGE}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_FIRE, .a = 2}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_TASK}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_TASK}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_EDGES_END}));
}

/* On from `begin`: run 0 has finished, edge 1 begins to be looked at. */
static void enter_edge(struct sel_state *state)
{
    static const uint32_t sources[] = {0}, waiting[] = {1};
    begin(state);
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_DONE, .a = 0}));
    assert_ok(apply(state, (struct sel_event){.type = SEL_EVENT_TAKE}));
    assert_ok(
        apply(state, (struct sel_event){.type = SEL_EVENT_WAIT, .list = waiting, .list_count = 1}));
    assert_ok(apply(state, (struct sel_event){
                               .type = SEL_EVENT_EDGE, .b = 1, .list = sources, .list_count = 1}));
}

static void assert_survives_codec(const struct sel_state *state)
{
    struct sel_buf bytes = {0}, again = {0};
    struct sel_state decoded = {0};
    sel_state_encode(state, &bytes);
    assert_ok(sel_buf_error(&bytes));
    assert_ok(sel_state_decode(bytes.p, bytes.n, &decoded));
    sel_state_encode(&decoded, &again);
    assert_true(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&again)));
    assert_int_equal(state->active_count, decoded.active_count);
    sel_state_done(&decoded);
    sel_buf_done(&bytes);
    sel_buf_done(&again);
}

static void test_events_that_do_not_fit_change_nothing(void **state)
{
    (void)state;
    static const uint32_t zero[] = {0}, one[] = {1}, nine[] = {9}, twice[] = {0, 0};
    const struct sel_event cases[] = {
        {.type = SEL_EVENT_START},
        {.type = SEL_EVENT_DONE, .a = 1}, /* not while an edge is looked at */
        {.type = SEL_EVENT_TAKE},
        {.type = SEL_EVENT_ARGS},                                        /* no value */
        {.type = SEL_EVENT_WAIT, .list = one, .list_count = 1},          /* it does already */
        {.type = SEL_EVENT_WAIT, .list = nine, .list_count = 1},         /* no such edge */
        {.type = SEL_EVENT_EDGE, .a = 1, .list = zero, .list_count = 1}, /* still in one */
        {.type = SEL_EVENT_FIRE},                                        /* nothing to start */
        {.type = SEL_EVENT_TASK},                                        /* not firing */
        {.type = SEL_EVENT_OMIT},
        {.type = SEL_EVENT_OMIT_EDGE}, /* only starting edges */
        {.type = SEL_EVENT_REUSE, .bytes = SEL_STR("x")},
        {.type = SEL_EVENT_EDGES_END},
        {.type = SEL_EVENT_CHOICE, .b = 1, .list = zero, .list_count = 1},
        {.type = SEL_EVENT_SKIP},
        {.type = SEL_EVENT_END},
        {.type = SEL_EVENT_TYPE_END},
    };
    struct sel_state s;
    struct sel_buf before = {0}, after = {0};
    enter_edge(&s);
    sel_state_encode(&s, &before);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        assert_code(apply(&s, cases[i]), SEL_EFORMAT);
        sel_buf_clear(&after);
        sel_state_encode(&s, &after);
        assert_true(sel_str_eq(sel_buf_str(&before), sel_buf_str(&after)));
    }
    sel_state_done(&s);
    begin(&s);
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_FAILED, .a = 0}));
    assert_code(apply(&s, (struct sel_event){.type = SEL_EVENT_FAILED, .a = 0}), SEL_EFORMAT);
    assert_code(apply(&s, (struct sel_event){.type = SEL_EVENT_DONE, .a = 2}), SEL_EFORMAT);
    const struct sel_event choices[] = {
        {.type = SEL_EVENT_CHOICE, .b = 2, .list = twice, .list_count = 2}, /* one has failed */
        {.type = SEL_EVENT_CHOICE, .b = 1, .list = one, .list_count = 1},
        {.type = SEL_EVENT_CHOICE, .b = 2, .list = zero, .list_count = 1},
        {.type = SEL_EVENT_CHOICE, .b = 1, .c = 2, .list = zero, .list_count = 1},
    };
    for (size_t i = 0; i < SEL_COUNT(choices); i++)
        assert_code(apply(&s, choices[i]), SEL_EFORMAT);
    sel_state_done(&s);
    sel_buf_done(&before);
    sel_buf_done(&after);
}

static void test_each_way_to_end_in_the_middle_of_an_edge_survives_the_codec(void **state)
{
    (void)state;
    const enum sel_event_type ends[] = {SEL_EVENT_FAIL, SEL_EVENT_RETRY, SEL_EVENT_CANCEL};
    for (size_t i = 0; i < SEL_COUNT(ends); i++) {
        struct sel_state s;
        enter_edge(&s);
        assert_survives_codec(&s);
        assert_ok(apply(
            &s, (struct sel_event){.type = SEL_EVENT_FOREACH, .a = 1, .b = 2, .bytes = ARGS}));
        assert_survives_codec(&s);
        assert_ok(apply(&s, (struct sel_event){.type = ends[i]}));
        assert_survives_codec(&s);
        bool retried = ends[i] == SEL_EVENT_RETRY;
        assert_int_equal(s.run_count, retried ? 0 : 2);
        assert_int_equal(s.attempt, retried ? 1 : 0);
        assert_int_equal(apply(&s, (struct sel_event){.type = SEL_EVENT_FAIL}),
                         retried ? 0 : SEL_EFORMAT);
        sel_state_done(&s);
    }
}

static void test_a_state_that_is_reset_is_as_a_new_one(void **state)
{
    (void)state;
    const struct sel_id id = {7, 8};
    struct sel_state s, fresh;
    struct sel_buf bytes = {0}, expected = {0};
    enter_edge(&s);
    assert_ok(sel_state_reset(&s, id, 3, SEL_STR("\xc3")));
    assert_ok(sel_state_init_attempt(&fresh, id, 3, 2, 2, SEL_STR("\xc3")));
    sel_state_encode(&s, &bytes);
    sel_state_encode(&fresh, &expected);
    assert_ok(sel_buf_error(&bytes));
    assert_true(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&expected)));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_START}));
    sel_buf_done(&bytes);
    sel_buf_done(&expected);
    sel_state_done(&s);
    sel_state_done(&fresh);
}

static void test_a_state_that_is_cut_or_longer_is_refused(void **state)
{
    (void)state;
    struct sel_state s, decoded = {0};
    struct sel_buf bytes = {0};
    enter_edge(&s);
    sel_state_encode(&s, &bytes);
    for (size_t n = 0; n < bytes.n; n++)
        assert_true(sel_state_decode(bytes.p, n, &decoded) < 0);
    sel_buf_put_u8(&bytes, 0);
    assert_code(sel_state_decode(bytes.p, bytes.n, &decoded), SEL_EFORMAT);
    bytes.p[0]++;
    assert_code(sel_state_decode(bytes.p, bytes.n, &decoded), SEL_EVERSION);
    sel_buf_done(&bytes);
    sel_state_done(&s);
}

/* No single byte that is changed makes a decoder crash; what still decodes is a sound state. */
static void test_a_damaged_state_is_refused_or_sound(void **state)
{
    (void)state;
    struct sel_state s;
    struct sel_buf bytes = {0};
    enter_edge(&s);
    sel_state_encode(&s, &bytes);
    for (size_t i = 0; i < bytes.n; i++) {
        uint8_t right = bytes.p[i];
        for (int value = 0; value < 256; value++) {
            struct sel_state decoded = {0};
            bytes.p[i] = (uint8_t)value;
            if (sel_state_decode(bytes.p, bytes.n, &decoded) == 0)
                assert_survives_codec(&decoded);
            sel_state_done(&decoded);
        }
        bytes.p[i] = right;
    }
    sel_buf_done(&bytes);
    sel_state_done(&s);
}

static int begin_and_enter(void *ctx)
{
    static const uint32_t sources[] = {0}, failed[] = {0, 1};
    const struct sel_event events[] = {
        {.type = SEL_EVENT_START},
        {.type = SEL_EVENT_EDGE},
        {.type = SEL_EVENT_FIRE, .a = 3},
        {.type = SEL_EVENT_TASK},
        {.type = SEL_EVENT_FLOW, .a = 1},
        {.type = SEL_EVENT_REUSE, .bytes = SEL_STR("an earlier run")},
        {.type = SEL_EVENT_EDGES_END},
        {.type = SEL_EVENT_TAKE},
        {.type = SEL_EVENT_WAIT, .list = sources, .list_count = 1},
        {.type = SEL_EVENT_EDGE, .b = 1, .list = sources, .list_count = 1},
        {.type = SEL_EVENT_FOREACH, .a = 1, .b = 1, .bytes = SEL_STR("items")},
        {.type = SEL_EVENT_TASK, .a = 1},
        {.type = SEL_EVENT_EDGES_END},
        {.type = SEL_EVENT_FAILED, .a = 0},
        {.type = SEL_EVENT_SKIP, .a = 7},
        {.type = SEL_EVENT_CHOICE, .b = 1, .c = 1, .list = failed, .list_count = 2},
        {.type = SEL_EVENT_TASK, .a = 1},
    };
    struct sel_state s, decoded = {0};
    struct sel_buf bytes = {0};
    (void)ctx;
    int r = sel_state_init(&s, (struct sel_id){1, 2}, 2, 2, ARGS);
    if (r < 0)
        return r;
    for (size_t i = 0; i < SEL_COUNT(events) && r == 0; i++)
        r = sel_state_apply(&s, &events[i]);
    sel_state_encode(&s, &bytes);
    if (r == 0)
        r = sel_buf_error(&bytes);
    if (r == 0)
        r = sel_state_decode(bytes.p, bytes.n, &decoded);
    sel_state_done(&s);
    sel_state_done(&decoded);
    sel_buf_done(&bytes);
    return r;
}

static void test_each_failing_allocation_is_answered(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(begin_and_enter, NULL);
}

static void test_a_run_is_known_by_its_own_or_its_borrowed_id(void **state)
{
    (void)state;
    struct sel_state s;
    char text[SEL_RUN_ID_TEXT_SIZE], own[SEL_RUN_ID_TEXT_SIZE];
    assert_ok(sel_state_init(&s, (struct sel_id){1, 2}, 2, 2, ARGS));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_START}));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_EDGE}));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_FIRE, .a = 3}));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_TASK}));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_FLOW, .a = 1, .id = {3, 4}}));
    assert_ok(apply(&s, (struct sel_event){.type = SEL_EVENT_REUSE, .bytes = SEL_STR("before")}));
    sel_id_format_run(s.id, 0, 0, own);
    assert_str_is(sel_state_run_id(&s, 0, text), own);
    assert_str_is(sel_state_run_id(&s, 1, text), "00000000-0000-0003-0000-000000000004");
    assert_str_is(sel_state_run_id(&s, 2, text), "before");
    assert_null(sel_state_child(&s, 0));
    assert_non_null(sel_state_child(&s, 1));
    assert_null(sel_state_child(&s, 2));
    assert_int_equal(sel_state_run_status(&s, 2), SEL_RUN_DUE);
    sel_state_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_that_do_not_fit_change_nothing),
        cmocka_unit_test(test_each_way_to_end_in_the_middle_of_an_edge_survives_the_codec),
        cmocka_unit_test(test_a_state_that_is_reset_is_as_a_new_one),
        cmocka_unit_test(test_a_state_that_is_cut_or_longer_is_refused),
        cmocka_unit_test(test_a_damaged_state_is_refused_or_sound),
        cmocka_unit_test(test_each_failing_allocation_is_answered),
        cmocka_unit_test(test_a_run_is_known_by_its_own_or_its_borrowed_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
