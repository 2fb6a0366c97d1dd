/* A flow from a broker's answers: its nodes, what it waits for, what happened. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <time.h>

#include "cli/flow_view.h"
#include "tests/support/flow_answers.h"

#define NOW_US (INT64_C(1800000000) * 1000000) /* 2027-01-15T08:00:00Z */

#define NODES                                                                                      \
    "[{\"active\":0,\"detached\":0,\"failed\":1,\"finished\":1,\"name\":\"A\",\"recovered\":0},"   \
    "{\"active\":1,\"detached\":0,\"failed\":0,\"finished\":0,\"name\":\"B\",\"recovered\":0}]"

struct world {
    struct sel_arena arena;
    struct sel_flow_view view;
};

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    struct sel_value head = flow_answers_flow(&w->arena);
    assert_ok(sel_flow_view_init(&w->view, &w->arena, &head));
}

static void end(struct world *w)
{
    sel_flow_view_done(&w->view);
    sel_arena_done(&w->arena);
}

static int64_t add(struct world *w, struct sel_value answer)
{
    int64_t next = -2;
    assert_ok(sel_flow_view_add_history(&w->view, &answer, &next));
    return next;
}

static struct sel_value value_of(struct world *w)
{
    struct sel_value value;
    assert_ok(sel_flow_view_end(&w->view));
    assert_ok(sel_flow_view_to_value(&w->view, NOW_US, &value));
    return value;
}

static void test_nodes_and_history_are_put_together_from_events(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    assert_int_equal(add(&w, flow_answers_history(&w.arena, 1, 2, 3)), 3);
    assert_int_equal(add(&w, flow_answers_history(&w.arena, 3, 3, -1)), -1);
    struct sel_value all = value_of(&w);
    assert_json(sel_value_get_c(&all, "nodes"), NODES);
    assert_json(sel_value_get_c(&all, "problem"), "null");
    const struct sel_value *history = sel_value_get_c(&all, "history");
    assert_int_equal(sel_value_count(history), 3);
    assert_json(sel_value_get_c(sel_value_at(history, 0), "events"),
                "[{\"count\":1,\"event\":\"begins\"},"
                "{\"count\":2,\"event\":\"started\",\"node\":\"A\"}]");
    assert_json(sel_value_get_c(sel_value_at(history, 1), "events"),
                "[{\"count\":1,\"event\":\"finished\",\"node\":\"A\"},"
                "{\"count\":1,\"event\":\"started\",\"node\":\"B\"}]");
    assert_json(sel_value_get_c(sel_value_at(history, 2), "events"),
                "[{\"count\":1,\"event\":\"failed\",\"node\":\"A\"}]");
    assert_json(sel_value_get_c(sel_value_at(history, 2), "number"), "3");
    assert_json(sel_value_get_c(sel_value_at(history, 2), "unix_us"), "1799999993000000");
    const struct sel_value *flow = sel_value_get_c(&all, "flow");
    assert_json(sel_value_get_c(flow, "id"), "\"" FLOW_ANSWERS_ID "\"");
    assert_json(sel_value_get_c(flow, "level"), "\"commit\"");
    end(&w);
}

static void test_a_snapshot_in_pieces_stands_for_what_was_before(void **state)
{
    (void)state;
    struct world w;
    struct sel_buf bytes = {0};
    begin(&w);
    flow_answers_head(true, &bytes);
    flow_answers_state(&bytes);
    const struct sel_str pieces[] = {{(const char *)bytes.p, 3},
                                     {(const char *)bytes.p + 3, 40},
                                     {(const char *)bytes.p + 43, bytes.n - 43}};
    for (size_t i = 0; i < SEL_COUNT(pieces); i++) {
        struct sel_value item = flow_answers_item(&w.arena, 3, "state", pieces[i]);
        (void)add(&w, flow_answers_page(&w.arena, "items", &item, 1, 3));
    }
    struct sel_buf more = {0};
    const struct sel_event done = {.type = SEL_EVENT_DONE, .a = 2};
    flow_answers_head(false, &more);
    sel_event_encode(&done, &more);
    struct sel_value item = flow_answers_item(&w.arena, 4, "events", sel_buf_str(&more));
    (void)add(&w, flow_answers_page(&w.arena, "items", &item, 1, -1));
    struct sel_value all = value_of(&w);
    const struct sel_value *nodes = sel_value_get_c(&all, "nodes");
    assert_int_equal(sel_value_count(nodes), 2);
    assert_json(sel_value_get_c(sel_value_at(nodes, 1), "finished"), "1");
    const struct sel_value *history = sel_value_get_c(&all, "history");
    assert_int_equal(sel_value_count(history), 2);
    assert_json(sel_value_get_c(sel_value_at(history, 0), "snapshot"), "true");
    assert_json(sel_value_get_c(sel_value_at(history, 1), "events"),
                "[{\"count\":1,\"event\":\"finished\",\"node\":\"B\"}]");
    sel_buf_done(&bytes);
    sel_buf_done(&more);
    end(&w);
}

static void test_events_in_slices_are_one_decision(void **state)
{
    (void)state;
    struct world w;
    struct sel_buf bytes = {0};
    begin(&w);
    flow_answers_head(true, &bytes);
    flow_answers_events(1, &bytes);
    const struct sel_str slices[] = {{(const char *)bytes.p, 7},
                                     {(const char *)bytes.p + 7, bytes.n - 7}};
    for (size_t i = 0; i < SEL_COUNT(slices); i++) {
        struct sel_value_builder map;
        struct sel_value answer, item = flow_answers_item(&w.arena, 1, "events", slices[i]);
        sel_value_begin_map(&map, &w.arena);
        sel_value_put_c(&map, "items", sel_value_from_list(&item, 1));
        if (i == 0) {
            sel_value_put_c(&map, "next", sel_value_from_u64(0));
            sel_value_put_c(&map, "offset", sel_value_from_u64(7));
        }
        assert_ok(sel_value_end(&map, &answer));
        assert_int_equal(add(&w, answer), i == 0 ? 0 : -1);
        assert_int_equal(w.view.next_offset, i == 0 ? 7 : 0);
    }
    struct sel_value all = value_of(&w);
    assert_json(sel_value_get_c(&all, "problem"), "null");
    const struct sel_value *history = sel_value_get_c(&all, "history");
    assert_int_equal(sel_value_count(history), 1);
    assert_json(sel_value_get_c(sel_value_at(history, 0), "events"),
                "[{\"count\":1,\"event\":\"begins\"},"
                "{\"count\":2,\"event\":\"started\",\"node\":\"A\"}]");
    sel_buf_done(&bytes);
    end(&w);
}

static void test_a_long_history_takes_little_memory(void **state)
{
    (void)state;
    struct world w = {0};
    struct sel_buf bytes = {0};
    sel_arena_init(&w.arena, (size_t)1 << 20);
    struct sel_value head = flow_answers_flow(&w.arena);
    assert_ok(sel_flow_view_init(&w.view, &w.arena, &head));
    for (uint64_t n = 1; n <= 200; n++) {
        struct sel_value_builder map;
        struct sel_value answer;
        sel_buf_clear(&bytes);
        flow_answers_head(n == 1, &bytes);
        if (n == 1)
            flow_answers_events(1, &bytes);
        struct sel_value item = flow_answers_item(&w.arena, n, "events", sel_buf_str(&bytes));
        sel_value_begin_map(&map, &w.arena);
        sel_value_put_c(&map, "items", sel_value_from_list(&item, 1));
        assert_ok(sel_value_end(&map, &answer));
        (void)add(&w, answer);
    }
    assert_ok(sel_flow_view_end(&w.view));
    assert_null(w.view.problem);
    assert_int_equal(w.view.decision_count, 200);
    sel_buf_done(&bytes);
    end(&w);
}

static void test_it_is_printed(void **state)
{
    (void)state;
    struct world w;
    int64_t next;
    struct sel_buf out = {0};
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
    begin(&w);
    struct sel_value runs = flow_answers_runs(&w.arena);
    assert_ok(sel_flow_view_add_runs(&w.view, &runs, &next));
    assert_int_equal(next, -1);
    (void)add(&w, flow_answers_history(&w.arena, 1, 3, -1));
    assert_ok(sel_flow_view_end(&w.view));
    assert_ok(sel_flow_view_print(&w.view, NOW_US, 2, &out));
    assert_string_equal(sel_buf_cstr(&out), "id       " FLOW_ANSWERS_ID "\n"
                                            "name     f\n"
                                            "state    running\n"
                                            "attempt  0\n"
                                            "level    commit\n"
                                            "open     1\n"
                                            "\n"
                                            "Nodes\n"
                                            "name  active  finished  failed  recovered  detached\n"
                                            "A          0         1       1          0         0\n"
                                            "B          1         0       0          0         0\n"
                                            "\n"
                                            "Waits for\n"
                                            "ordinal  name  queue   state    try  due_us  age_us\n"
                                            "      2  B     celery  waiting    1     5 s     1 s\n"
                                            "\n"
                                            "History\n"
                                            "  (1 before these: -v)\n"
                                            "  07:59:52.000  2  A finished, B started\n"
                                            "  07:59:53.000  3  A failed\n");
    sel_buf_done(&out);
    end(&w);
}

/* What a broken or foreign dispatcher wrote is complained about once; the rest is shown. */
static void test_damage_is_said_in_place_of_nodes(void **state)
{
    (void)state;
    static const uint8_t far[] = {SEL_EVENT_DONE, 9}, cut[] = {SEL_EVENT_DONE};
    struct sel_buf items[6] = {{0}};
    flow_answers_head(true, &items[0]);
    sel_buf_put(&items[0], far, sizeof(far)); /* no such run */
    flow_answers_head(true, &items[1]);
    sel_buf_put(&items[1], cut, sizeof(cut));
    flow_answers_head(false, &items[2]); /* no description */
    flow_answers_events(1, &items[2]);
    sel_buf_put(&items[3], "\xff\xff\xff\xff", 4); /* its description is longer than it is */
    sel_buf_put(&items[4], "\x01\x00\x00\x00\xc0", 5);
    sel_buf_put(&items[5], "\x00", 1);
    for (size_t i = 0; i < SEL_COUNT(items); i++) {
        struct world w;
        begin(&w);
        struct sel_value item = flow_answers_item(&w.arena, 1, "events", sel_buf_str(&items[i]));
        (void)add(&w, flow_answers_page(&w.arena, "items", &item, 1, 2));
        (void)add(&w, flow_answers_history(&w.arena, 2, 3, -1));
        struct sel_value all = value_of(&w);
        assert_true(sel_value_is(sel_value_get_c(&all, "problem"), SEL_TEXT));
        assert_json(sel_value_get_c(&all, "nodes"), "[]");
        assert_int_equal(sel_value_count(sel_value_get_c(&all, "history")), 3);
        sel_buf_done(&items[i]);
        end(&w);
    }
}

static void test_answers_of_another_form_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"1", "[]", "{}", "{\"items\": 1, \"runs\": {}}",
                                        "{\"items\": [1], \"runs\": \"a\"}"};
    for (size_t i = 0; i < SEL_COUNT(wrong); i++) {
        struct world w;
        int64_t next;
        begin(&w);
        struct sel_value answer = sel_test_json(&w.arena, wrong[i]);
        assert_code(sel_flow_view_add_history(&w.view, &answer, &next), SEL_EFORMAT);
        assert_code(sel_flow_view_add_runs(&w.view, &answer, &next), SEL_EFORMAT);
        end(&w);
    }
    struct sel_flow_view view;
    assert_code(sel_flow_view_init(&view, NULL, &sel_value_null), SEL_EFORMAT);
}

/* The broker leaves out the bytes of a decision that is too large for an answer. */
static void test_a_decision_that_is_not_told_is_said(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    (void)add(&w, flow_answers_history(&w.arena, 1, 1, 2));
    struct sel_value item = sel_test_json(
        &w.arena, "{\"number\": 2, \"kind\": \"events\", \"size\": 3000000, \"age_us\": 1}");
    (void)add(&w, flow_answers_page(&w.arena, "items", &item, 1, -1));
    (void)add(&w, flow_answers_history(&w.arena, 3, 3, -1));
    struct sel_value all = value_of(&w);
    assert_non_null(strstr(sel_test_json_text(&w.arena, sel_value_get_c(&all, "problem")),
                           "too large to be told"));
    assert_json(sel_value_get_c(&all, "nodes"), "[]");
    const struct sel_value *history = sel_value_get_c(&all, "history");
    assert_int_equal(sel_value_count(history), 3);
    assert_int_equal(sel_value_count(sel_value_get_c(sel_value_at(history, 0), "events")), 2);
    end(&w);
    begin(&w); /* an answer may be empty and yet not the last */
    assert_int_equal(add(&w, flow_answers_page(&w.arena, "items", NULL, 0, 7)), 7);
    end(&w);
}

/* A decision that starts a lot is told in a few words. */
static void test_a_large_decision_is_told_in_short(void **state)
{
    (void)state;
    struct world w;
    struct sel_buf bytes = {0};
    const struct sel_event head[] = {
        {.type = SEL_EVENT_START}, {.type = SEL_EVENT_EDGE}, {.type = SEL_EVENT_FIRE, .a = 20000}};
    begin(&w);
    flow_answers_head(true, &bytes);
    for (size_t i = 0; i < SEL_COUNT(head); i++)
        sel_event_encode(&head[i], &bytes);
    for (uint32_t i = 0; i < 20000; i++)
        sel_event_encode(&(struct sel_event){.type = SEL_EVENT_TASK, .a = i % 3}, &bytes);
    struct sel_value item = flow_answers_item(&w.arena, 1, "events", sel_buf_str(&bytes));
    (void)add(&w, flow_answers_page(&w.arena, "items", &item, 1, -1));
    struct sel_value all = value_of(&w);
    const struct sel_value *history = sel_value_get_c(&all, "history");
    assert_json(sel_value_get_c(sel_value_at(history, 0), "events"),
                "[{\"count\":1,\"event\":\"begins\"},"
                "{\"count\":6667,\"event\":\"started\",\"node\":\"A\"},"
                "{\"count\":6667,\"event\":\"started\",\"node\":\"B\"},"
                "{\"count\":6666,\"event\":\"started\",\"node\":\"C\"}]");
    sel_buf_done(&bytes);
    end(&w);
}

static void test_lack_of_memory_is_said(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 200; n++) {
        struct world w = {.arena = {0}};
        struct sel_arena answers = {0};
        struct sel_value all, head = flow_answers_flow(&answers);
        struct sel_value history = flow_answers_history(&answers, 1, 3, -1);
        int64_t next;
        sel_mem_fail_at(n);
        int r = sel_flow_view_init(&w.view, &w.arena, &head);
        if (r == 0)
            r = sel_flow_view_add_history(&w.view, &history, &next);
        if (r == 0)
            r = sel_flow_view_end(&w.view);
        if (r == 0)
            r = sel_flow_view_to_value(&w.view, NOW_US, &all);
        sel_mem_fail_at(0);
        if (r == 0) {
            assert_json(sel_value_get_c(&all, "nodes"), NODES);
            n = 1000; /* nothing failed: all were tried */
        } else {
            assert_code(r, SEL_ENOMEM);
        }
        end(&w);
        sel_arena_done(&answers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_and_history_are_put_together_from_events),
        cmocka_unit_test(test_a_snapshot_in_pieces_stands_for_what_was_before),
        cmocka_unit_test(test_events_in_slices_are_one_decision),
        cmocka_unit_test(test_a_long_history_takes_little_memory),
        cmocka_unit_test(test_it_is_printed),
        cmocka_unit_test(test_damage_is_said_in_place_of_nodes),
        cmocka_unit_test(test_answers_of_another_form_are_refused),
        cmocka_unit_test(test_a_decision_that_is_not_told_is_said),
        cmocka_unit_test(test_a_large_decision_is_told_in_short),
        cmocka_unit_test(test_lack_of_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
