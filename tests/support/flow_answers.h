/* tests/support/flow_answers.h - what a broker answers about a flow, made by hand.
 *
 * The flow has the nodes A, B and C. Decision 1 starts A twice, in 2 one of them finishes and B
 * starts, in 3 the other one fails. */
#ifndef SEL_TESTS_SUPPORT_FLOW_ANSWERS_H
#define SEL_TESTS_SUPPORT_FLOW_ANSWERS_H

#include "core/event.h"
#include "core/state.h"
#include "proto/le.h"
#include "tests/support/test.h"

#define FLOW_ANSWERS_ID "0198f3c2-7b1c-7001-8000-00000000002a"
#define FLOW_ANSWERS_DECISIONS 3u

/* Events of decision `n`, appended. */
static inline void flow_answers_events(uint32_t n, struct sel_buf *out)
{
    static const uint32_t zero[] = {0}, one[] = {1};
    const struct sel_event all[FLOW_ANSWERS_DECISIONS][8] = {
        {{.type = SEL_EVENT_START},
         {.type = SEL_EVENT_EDGE},
         {.type = SEL_EVENT_FIRE, .a = 2},
         {.type = SEL_EVENT_TASK},
         {.type = SEL_EVENT_TASK},
         {.type = SEL_EVENT_EDGES_END}},
        {{.type = SEL_EVENT_DONE, .a = 0},
         {.type = SEL_EVENT_TAKE},
         {.type = SEL_EVENT_WAIT, .list = one, .list_count = 1},
         {.type = SEL_EVENT_EDGE, .b = 1, .list = zero, .list_count = 1},
         {.type = SEL_EVENT_FIRE, .a = 1},
         {.type = SEL_EVENT_TASK, .a = 1},
         {.type = SEL_EVENT_EDGES_END}},
        {{.type = SEL_EVENT_FAILED, .a = 1}},
    };
    for (size_t i = 0; i < 8 && all[n - 1][i].type; i++)
        sel_event_encode(&all[n - 1][i], out);
    assert_ok(sel_buf_error(out));
}

/* The state after all of them, appended. */
static inline void flow_answers_state(struct sel_buf *out)
{
    struct sel_state state;
    struct sel_buf events = {0};
    assert_ok(sel_state_init(&state, (struct sel_id){1, 2}, 3, 2, SEL_STR("\xc0")));
    for (uint32_t n = 1; n <= FLOW_ANSWERS_DECISIONS; n++)
        flow_answers_events(n, &events);
    assert_ok(sel_state_replay(&state, events.p, events.n));
    sel_state_encode(&state, out);
    sel_state_done(&state);
    sel_buf_done(&events);
}

/* The size of the description and the description, or 0. */
static inline void flow_answers_head(bool is_described, struct sel_buf *out)
{
    uint8_t size[4] = {0};
    struct sel_arena arena = {0};
    struct sel_buf text = {0};
    if (is_described) {
        struct sel_value map = sel_test_json(
            &arena, "{\"flow\": \"f\", \"nodes\": [\"A\", \"B\", \"C\"], \"edges\": 2}");
        sel_value_encode(&map, &text);
    }
    sel_le_put32(size, (uint32_t)text.n);
    sel_buf_put(out, size, sizeof(size));
    sel_buf_put_str(out, sel_buf_str(&text));
    assert_ok(sel_buf_error(out));
    sel_buf_done(&text);
    sel_arena_done(&arena);
}

static inline struct sel_value flow_answers_item(struct sel_arena *arena, uint64_t number,
                                                 const char *kind, struct sel_str bytes)
{
    struct sel_value_builder map;
    struct sel_value item;
    const char *copy = sel_arena_memdup(arena, bytes.p, bytes.n);
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "number", sel_value_from_u64(number));
    sel_value_put_c(&map, "kind", sel_value_from_c(kind));
    sel_value_put_c(&map, "age_us", sel_value_from_u64(1000000 * (10 - number)));
    sel_value_put_c(&map, "bytes", sel_value_from_bin((struct sel_str){copy, bytes.n}));
    assert_ok(sel_value_end(&map, &item));
    return item;
}

/* An answer {`key`: items} with `next` if that is not negative. */
static inline struct sel_value flow_answers_page(struct sel_arena *arena, const char *key,
                                                 const struct sel_value *items, uint32_t count,
                                                 int64_t next)
{
    struct sel_value_builder map, list;
    struct sel_value value, answer;
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, items[i]);
    assert_ok(sel_value_end(&list, &value));
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, key, value);
    if (next >= 0)
        sel_value_put_c(&map, "next", sel_value_from_i64(next));
    assert_ok(sel_value_end(&map, &answer));
    return answer;
}

/* `flow.history`: decisions `first` to `last`. */
static inline struct sel_value flow_answers_history(struct sel_arena *arena, uint32_t first,
                                                    uint32_t last, int64_t next)
{
    struct sel_value items[FLOW_ANSWERS_DECISIONS];
    for (uint32_t n = first; n <= last; n++) {
        struct sel_buf bytes = {0};
        flow_answers_head(n == 1, &bytes);
        flow_answers_events(n, &bytes);
        items[n - first] = flow_answers_item(arena, n, "events", sel_buf_str(&bytes));
        sel_buf_done(&bytes);
    }
    return flow_answers_page(arena, "items", items, last + 1 - first, next);
}

/* `flow`. */
static inline struct sel_value flow_answers_flow(struct sel_arena *arena)
{
    struct sel_value_builder map;
    struct sel_value answer;
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "id", sel_value_from_c(FLOW_ANSWERS_ID));
    sel_value_put_c(&map, "name", sel_value_from_c("f"));
    sel_value_put_c(&map, "state", sel_value_from_c("running"));
    sel_value_put_c(&map, "attempt", sel_value_from_u64(0));
    sel_value_put_c(&map, "level", sel_value_from_u64(3));
    sel_value_put_c(&map, "open", sel_value_from_u64(1));
    assert_ok(sel_value_end(&map, &answer));
    return answer;
}

/* `flow.runs`: of B, which is all that is open. */
static inline struct sel_value flow_answers_runs(struct sel_arena *arena)
{
    const struct sel_value run = sel_test_json(
        arena, "{\"ordinal\": 2, \"name\": \"B\", \"queue\": \"celery\", \"state\": \"waiting\", "
               "\"try\": 1, \"due_us\": 5000000, \"age_us\": 1000000}");
    return flow_answers_page(arena, "runs", &run, 1, -1);
}

#endif
