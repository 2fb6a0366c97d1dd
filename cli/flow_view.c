#include "cli/flow_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/ends.h"
#include "cli/format.h"
#include "cli/table.h"
#include "core/event.h"
#include "core/mem.h"
#include "proto/le.h"

#define PHRASES_MAX 64u     /* of one decision; more are counted */
#define PHRASES_SEARCHED 8u /* the last ones, for one that says the same */
#define NODES_MAX 1000000u  /* of a flow's description */
#define DESCRIPTION_HEAD 4u /* worker/flow_codec.h, "history" */
#define DEPTH_MAX 16u       /* of an answer */
#define DAY_US (INT64_C(86400) * 1000000)

/* What is told of an event; those that are not here only say how the dispatcher got on. */
static const struct {
    const char *verb;
    bool is_flow; /* it is said of the flow */
} tellings[SEL_EVENT_TYPE_END] = {
    [SEL_EVENT_START] = {"begins", true},
    [SEL_EVENT_DONE] = {"finished", false},
    [SEL_EVENT_FAILED] = {"failed", false},
    [SEL_EVENT_ARGS] = {"has new arguments", true},
    [SEL_EVENT_FALSE] = {"has a condition that is false", true},
    [SEL_EVENT_TASK] = {"started", false},
    [SEL_EVENT_FLOW] = {"started", false},
    [SEL_EVENT_REUSE] = {"reused", false},
    [SEL_EVENT_OMIT] = {"leaves out a node", true},
    [SEL_EVENT_OMIT_EDGE] = {"leaves out an edge", true},
    [SEL_EVENT_CHOICE] = {"taken by a fallback", false},
    [SEL_EVENT_SKIP] = {"has a fallback that does not apply", true},
    [SEL_EVENT_END] = {"succeeded", true},
    [SEL_EVENT_FAIL] = {"failed", true},
    [SEL_EVENT_RETRY] = {"begins again", true},
    [SEL_EVENT_CANCEL] = {"was cancelled", true},
};

/* ---- answers ---- */

static int64_t int_in(const struct sel_value *map, const char *key, int64_t otherwise)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    int64_t out;
    return value && sel_value_is(value, SEL_INT) && sel_value_i64(value, &out) ? out : otherwise;
}

static struct sel_str bytes_in(const struct sel_value *map, const char *key, enum sel_kind kind)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    return value && sel_value_is(value, kind) ? sel_value_str(value) : (struct sel_str){NULL, 0};
}

static int convert(struct sel_arena *arena, const char *key, const struct sel_value *value,
                   uint32_t depth, struct sel_value *ret);

static int convert_all(struct sel_arena *arena, const struct sel_value *value, uint32_t depth,
                       struct sel_value *ret)
{
    bool is_map = sel_value_is(value, SEL_MAP);
    struct sel_value_builder b;
    if (is_map)
        sel_value_begin_map(&b, arena);
    else
        sel_value_begin_list(&b, arena);
    for (uint32_t i = 0; i < sel_value_count(value); i++) {
        const struct sel_value *key = is_map ? sel_value_key_at(value, i) : NULL;
        const struct sel_value *old = is_map ? sel_value_val_at(value, i) : sel_value_at(value, i);
        struct sel_value item, name;
        if (is_map && !sel_value_is(key, SEL_TEXT))
            return SEL_EFORMAT;
        int r = is_map ? sel_value_copy(arena, key, &name) : 0;
        const char *text =
            is_map ? sel_arena_strdup(arena, sel_value_str(key)) : ""; /* terminated */
        if (r == 0)
            r = text ? convert(arena, text, old, depth + 1, &item) : SEL_ENOMEM;
        if (r < 0)
            return r;
        if (is_map)
            sel_value_put_key(&b, name, item);
        else
            sel_value_add(&b, item);
    }
    return sel_value_end(&b, ret);
}

static int convert(struct sel_arena *arena, const char *key, const struct sel_value *value,
                   uint32_t depth, struct sel_value *ret)
{
    int64_t level;
    if (depth > DEPTH_MAX)
        return SEL_EFORMAT;
    if (sel_value_is(value, SEL_MAP) || sel_value_is(value, SEL_LIST))
        return convert_all(arena, value, depth, ret);
    if (strcmp(key, "level") == 0 && sel_value_is(value, SEL_INT) && sel_value_i64(value, &level) &&
        level >= 0 && level <= SEL_CLIENT_LEVEL_COMMIT) {
        *ret = sel_value_from_c(sel_cli_ends_levels[level]);
        return 0;
    }
    return sel_value_copy(arena, value, ret);
}

int sel_flow_view_copy(struct sel_arena *arena, const struct sel_value *value,
                       struct sel_value *ret)
{
    return convert(arena, "", value, 0, ret);
}

int sel_flow_view_init(struct sel_flow_view *view, struct sel_arena *arena,
                       const struct sel_value *head)
{
    memset(view, 0, sizeof(*view));
    view->arena = arena;
    if (!sel_value_is(head, SEL_MAP))
        return SEL_EFORMAT;
    sel_value_begin_list(&view->runs, arena);
    return sel_flow_view_copy(arena, head, &view->head);
}

void sel_flow_view_done(struct sel_flow_view *view)
{
    sel_state_done(&view->state);
    for (uint32_t i = 0; i < view->decision_count; i++)
        sel_mem_free(view->decisions[i].phrases);
    sel_mem_free(view->decisions);
    sel_buf_done(&view->item);
    memset(view, 0, sizeof(*view));
}

int sel_flow_view_add_runs(struct sel_flow_view *view, const struct sel_value *answer,
                           int64_t *ret_next)
{
    const struct sel_value *runs =
        sel_value_is(answer, SEL_MAP) ? sel_value_get_c(answer, "runs") : NULL;
    if (!runs || !sel_value_is(runs, SEL_LIST))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < sel_value_count(runs); i++) {
        struct sel_value run;
        int r = sel_flow_view_copy(view->arena, sel_value_at(runs, i), &run);
        if (r < 0)
            return r;
        sel_value_add(&view->runs, run);
    }
    *ret_next = int_in(answer, "next", -1);
    return 0;
}

/* ---- history ---- */

static struct sel_flow_view_decision *add_decision(struct sel_flow_view *view)
{
    if (!sel_mem_grow(&view->decisions, &view->decision_cap, (uint64_t)view->decision_count + 1,
                      sizeof(*view->decisions)))
        return NULL;
    struct sel_flow_view_decision *decision = &view->decisions[view->decision_count++];
    *decision = (struct sel_flow_view_decision){.number = view->pending.number,
                                                .age_us = view->pending.age_us,
                                                .is_snapshot = view->pending.is_state};
    return decision;
}

static int add_phrase(struct sel_flow_view_decision *decision, const char *verb, uint32_t slot)
{
    uint32_t count = decision->phrase_count;
    for (uint32_t i = count; i-- > 0 && i + PHRASES_SEARCHED >= count;) {
        struct sel_flow_view_phrase *phrase = &decision->phrases[i];
        if (phrase->verb == verb && phrase->slot == slot) {
            phrase->count++;
            return 0;
        }
    }
    if (count == PHRASES_MAX) {
        decision->unsaid++;
        return 0;
    }
    if (!sel_mem_grow(&decision->phrases, &decision->phrase_cap, (uint64_t)count + 1,
                      sizeof(*decision->phrases)))
        return SEL_ENOMEM;
    decision->phrases[decision->phrase_count++] = (struct sel_flow_view_phrase){verb, slot, 1};
    return 0;
}

/* The node that an event is about, as the state is before it. */
static uint32_t slot_of(const struct sel_state *state, const struct sel_event *event)
{
    switch (event->type) {
    case SEL_EVENT_DONE:
    case SEL_EVENT_FAILED:
        return event->a < state->run_count ? sel_state_run_slot(state, event->a) : UINT32_MAX;
    case SEL_EVENT_CHOICE:
        return event->list_count ? event->list[0] : UINT32_MAX;
    default:
        return tellings[event->type].is_flow ? UINT32_MAX : event->a;
    }
}

static int take_events(struct sel_flow_view *view, struct sel_flow_view_decision *decision,
                       struct sel_str bytes)
{
    const uint8_t *p = (const uint8_t *)bytes.p;
    size_t room = bytes.n < SEL_EVENT_ITEMS_MAX ? bytes.n : SEL_EVENT_ITEMS_MAX;
    uint32_t *list = sel_mem_alloc((room + 1) * sizeof(*list));
    struct sel_event event;
    int r = list ? 0 : SEL_ENOMEM;
    for (size_t at = 0; r == 0 && at < bytes.n;) {
        r = sel_event_decode(p, bytes.n, &at, list, &event);
        if (r < 0)
            break;
        const char *verb = tellings[event.type].verb;
        uint32_t slot = slot_of(&view->state, &event);
        r = sel_state_apply(&view->state, &event);
        if (r == 0 && verb)
            r = add_phrase(decision, verb, slot);
    }
    sel_mem_free(list);
    return r;
}

static int take_description(struct sel_flow_view *view, struct sel_str bytes)
{
    struct sel_value map;
    int r = sel_value_decode(view->arena, bytes.p, bytes.n, true, &map, NULL);
    if (r < 0)
        return r;
    const struct sel_value *nodes =
        sel_value_is(&map, SEL_MAP) ? sel_value_get_c(&map, "nodes") : NULL;
    int64_t edges = int_in(&map, "edges", -1);
    if (!nodes || !sel_value_is(nodes, SEL_LIST) || sel_value_count(nodes) > NODES_MAX ||
        edges < 0 || edges > UINT32_MAX)
        return SEL_EFORMAT;
    uint32_t count = sel_value_count(nodes);
    const char **names = SEL_ARENA_NEW_ARRAY(view->arena, const char *, count ? count : 1);
    for (uint32_t i = 0; names && i < count; i++) {
        if (!sel_value_is(sel_value_at(nodes, i), SEL_TEXT))
            return SEL_EFORMAT;
        names[i] = sel_arena_strdup(view->arena, sel_value_str(sel_value_at(nodes, i)));
        if (!names[i])
            return SEL_ENOMEM;
    }
    if (!names)
        return SEL_ENOMEM;
    view->nodes = names;
    view->node_count = count;
    view->edge_count = (uint32_t)edges;
    return 0;
}

static int begin_state(struct sel_flow_view *view)
{
    struct sel_id id = {0, 0};
    const struct sel_str none = {(const char *)sel_value_null_bytes, 1};
    int64_t attempt = int_in(&view->head, "attempt", 0);
    if (!view->nodes || attempt < 0 || attempt > UINT32_MAX)
        return SEL_EFORMAT;
    (void)sel_id_parse(bytes_in(&view->head, "id", SEL_TEXT), &id); /* only to be complete */
    int r = sel_state_init_attempt(&view->state, id, (uint32_t)attempt, view->node_count,
                                   view->edge_count, none);
    view->has_state = r == 0;
    return r;
}

static int take_state(struct sel_flow_view *view, struct sel_str bytes)
{
    sel_state_done(&view->state);
    int r = sel_state_decode((const uint8_t *)bytes.p, bytes.n, &view->state);
    view->has_state = r == 0;
    if (r == 0 && view->state.slot_count != view->node_count)
        r = SEL_EFORMAT;
    return r;
}

static int read_item(struct sel_flow_view *view, struct sel_flow_view_decision *decision)
{
    struct sel_str item = sel_buf_str(&view->item);
    if (item.n < DESCRIPTION_HEAD || sel_le_get32(item.p) > item.n - DESCRIPTION_HEAD)
        return SEL_EFORMAT;
    const struct sel_str description = {item.p + DESCRIPTION_HEAD, sel_le_get32(item.p)};
    const struct sel_str rest = {description.p + description.n,
                                 item.n - DESCRIPTION_HEAD - description.n};
    int r = description.n ? take_description(view, description) : 0;
    if (r == 0 && view->pending.is_state)
        return take_state(view, rest);
    if (r == 0 && !view->has_state)
        r = begin_state(view);
    return r < 0 ? r : take_events(view, decision, rest);
}

static void give_up(struct sel_flow_view *view, const char *problem)
{
    view->problem = problem;
    view->has_state = false;
}

/* What was put together is whole: it is read. Damage is told once, and ends the reading. */
static int finish_item(struct sel_flow_view *view)
{
    if (!view->pending.is_there)
        return 0;
    view->pending.is_there = false;
    struct sel_flow_view_decision *decision = add_decision(view);
    int r = decision ? sel_buf_error(&view->item) : SEL_ENOMEM;
    if (r == 0 && !view->problem)
        r = read_item(view, decision);
    if (r < 0 && r != SEL_ENOMEM) {
        give_up(view, "what the dispatcher wrote of it cannot be read");
        r = 0;
    }
    sel_buf_clear(&view->item);
    return r;
}

static int add_item(struct sel_flow_view *view, const struct sel_value *item)
{
    if (!sel_value_is(item, SEL_MAP))
        return SEL_EFORMAT;
    uint64_t number = (uint64_t)int_in(item, "number", 0);
    bool is_state = sel_str_eq_c(bytes_in(item, "kind", SEL_TEXT), "state");
    bool is_piece = view->pending.is_there && view->pending.number == number &&
                    view->pending.is_state == is_state;
    int r = is_piece ? 0 : finish_item(view);
    if (r < 0)
        return r;
    view->pending.number = number;
    view->pending.is_state = is_state;
    view->pending.is_there = true;
    view->pending.age_us = int_in(item, "age_us", 0);
    struct sel_str bytes = bytes_in(item, "bytes", SEL_BIN);
    if (bytes.n == 0 && int_in(item, "size", 0) > 0 && !view->problem)
        give_up(view, "a decision is too large to be told; the next snapshot will tell");
    sel_buf_put_str(&view->item, bytes);
    return 0;
}

int sel_flow_view_add_history(struct sel_flow_view *view, const struct sel_value *answer,
                              int64_t *ret_next)
{
    const struct sel_value *items =
        sel_value_is(answer, SEL_MAP) ? sel_value_get_c(answer, "items") : NULL;
    if (!items || !sel_value_is(items, SEL_LIST))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < sel_value_count(items); i++) {
        int r = add_item(view, sel_value_at(items, i));
        if (r < 0)
            return r;
    }
    *ret_next = int_in(answer, "next", -1);
    view->next_offset = int_in(answer, "offset", 0);
    return 0;
}

int sel_flow_view_end(struct sel_flow_view *view)
{
    return finish_item(view);
}

/* ---- values ---- */

static const char *name_of(const struct sel_flow_view *view, uint32_t slot)
{
    return slot < view->node_count ? view->nodes[slot] : "?";
}

/* How many runs of each node are in which state: a list of maps, nodes without runs left out. */
static int nodes_to_value(struct sel_flow_view *view, struct sel_value *ret)
{
    static const char *const columns[] = {"active", "finished", "failed", "recovered", "detached"};
    static const uint8_t column_of[] = {
        [SEL_RUN_ACTIVE] = 0, [SEL_RUN_DUE] = 1,       [SEL_RUN_FINISHED] = 1,
        [SEL_RUN_FAILED] = 2, [SEL_RUN_RECOVERED] = 3, [SEL_RUN_DETACHED] = 4};
    const size_t width = SEL_COUNT(columns);
    const struct sel_state *state = &view->state;
    struct sel_value_builder list;
    sel_value_begin_list(&list, view->arena);
    if (!view->has_state)
        return sel_value_end(&list, ret);
    uint64_t *counts = SEL_ARENA_NEW_ARRAY(view->arena, uint64_t, (state->slot_count + 1) * width);
    if (!counts)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < state->run_count; i++) {
        uint32_t slot = sel_state_run_slot(state, i), status = sel_state_run_status(state, i);
        if (slot < state->slot_count && status < SEL_COUNT(column_of))
            counts[slot * width + column_of[status]]++;
    }
    for (uint32_t slot = 0; slot < state->slot_count; slot++) {
        struct sel_value_builder map;
        struct sel_value node;
        uint64_t sum = 0;
        sel_value_begin_map(&map, view->arena);
        sel_value_put_c(&map, "name", sel_value_from_c(name_of(view, slot)));
        for (size_t i = 0; i < width; i++) {
            sel_value_put_c(&map, columns[i], sel_value_from_u64(counts[slot * width + i]));
            sum += counts[slot * width + i];
        }
        int r = sum ? sel_value_end(&map, &node) : 0;
        if (r < 0)
            return r;
        if (sum)
            sel_value_add(&list, node);
    }
    return sel_value_end(&list, ret);
}

static int phrase_to_value(const struct sel_flow_view *view,
                           const struct sel_flow_view_phrase *phrase, struct sel_value *ret)
{
    struct sel_value_builder map;
    sel_value_begin_map(&map, view->arena);
    sel_value_put_c(&map, "event", sel_value_from_c(phrase->verb));
    if (phrase->slot != UINT32_MAX)
        sel_value_put_c(&map, "node", sel_value_from_c(name_of(view, phrase->slot)));
    sel_value_put_c(&map, "count", sel_value_from_u64(phrase->count));
    return sel_value_end(&map, ret);
}

static int decision_to_value(const struct sel_flow_view *view,
                             const struct sel_flow_view_decision *decision, int64_t now_unix_us,
                             struct sel_value *ret)
{
    struct sel_value_builder map, list;
    struct sel_value events;
    sel_value_begin_list(&list, view->arena);
    for (uint32_t i = 0; i < decision->phrase_count; i++) {
        struct sel_value one;
        int r = phrase_to_value(view, &decision->phrases[i], &one);
        if (r < 0)
            return r;
        sel_value_add(&list, one);
    }
    int r = sel_value_end(&list, &events);
    if (r < 0)
        return r;
    sel_value_begin_map(&map, view->arena);
    sel_value_put_c(&map, "number", sel_value_from_u64(decision->number));
    sel_value_put_c(&map, "unix_us", sel_value_from_i64(now_unix_us - decision->age_us));
    sel_value_put_c(&map, "age_us", sel_value_from_i64(decision->age_us));
    sel_value_put_c(&map, "snapshot", sel_value_from_bool(decision->is_snapshot));
    sel_value_put_c(&map, "events", events);
    sel_value_put_c(&map, "more_events", sel_value_from_u64(decision->unsaid));
    return sel_value_end(&map, ret);
}

int sel_flow_view_to_value(struct sel_flow_view *view, int64_t now_unix_us, struct sel_value *ret)
{
    struct sel_value_builder map, list;
    struct sel_value nodes, runs, history;
    int r = nodes_to_value(view, &nodes);
    if (r == 0)
        r = sel_value_end(&view->runs, &runs);
    sel_value_begin_list(&list, view->arena);
    for (uint32_t i = 0; r == 0 && i < view->decision_count; i++) {
        struct sel_value one;
        r = decision_to_value(view, &view->decisions[i], now_unix_us, &one);
        if (r == 0)
            sel_value_add(&list, one);
    }
    if (r == 0)
        r = sel_value_end(&list, &history);
    if (r < 0)
        return r;
    sel_value_begin_map(&map, view->arena);
    sel_value_put_c(&map, "flow", view->head);
    sel_value_put_c(&map, "nodes", nodes);
    sel_value_put_c(&map, "waits_for", runs);
    sel_value_put_c(&map, "history", history);
    sel_value_put_c(&map, "problem", sel_value_from_c(view->problem));
    return sel_value_end(&map, ret);
}

/* ---- text ---- */

static void put_time(int64_t unix_us, int64_t age_us, struct sel_buf *out)
{
    char text[64] = "";
    struct tm tm;
    time_t seconds = (time_t)(unix_us / 1000000);
    if (localtime_r(&seconds, &tm))
        (void)strftime(text, sizeof(text), age_us < DAY_US ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm);
    sel_buf_printf(out, "%s.%03d", text, (int)(unix_us / 1000 % 1000));
}

static void put_phrases(const struct sel_flow_view *view,
                        const struct sel_flow_view_decision *decision, struct sel_buf *out)
{
    for (uint32_t i = 0; i < decision->phrase_count; i++) {
        const struct sel_flow_view_phrase *phrase = &decision->phrases[i];
        bool is_flow = phrase->slot == UINT32_MAX;
        sel_buf_printf(out, "%s%s %s", i ? ", " : "",
                       is_flow ? "the flow" : name_of(view, phrase->slot), phrase->verb);
        if (phrase->count > 1)
            sel_buf_printf(out, " %" PRIu32 "x", phrase->count);
    }
    if (decision->unsaid)
        sel_buf_printf(out, ", and %" PRIu64 " more", decision->unsaid);
    if (decision->is_snapshot)
        sel_buf_put_c(out, "what was before is in a snapshot");
    else if (decision->phrase_count == 0)
        sel_buf_put_c(out, "nothing to tell");
}

static void put_history(const struct sel_flow_view *view, int64_t now_unix_us, uint32_t max,
                        struct sel_buf *out)
{
    uint32_t first = view->decision_count > max ? view->decision_count - max : 0;
    char count[SEL_CLI_FORMAT_SIZE];
    if (view->decision_count == 0)
        return;
    sel_buf_put_c(out, "\nHistory\n");
    if (first)
        sel_buf_printf(out, "  (%s before these: -v)\n", sel_cli_format_count(first, count));
    for (uint32_t i = first; i < view->decision_count; i++) {
        const struct sel_flow_view_decision *decision = &view->decisions[i];
        sel_buf_put_c(out, "  ");
        put_time(now_unix_us - decision->age_us, decision->age_us, out);
        sel_buf_printf(out, "  %" PRIu64 "  ", decision->number);
        size_t begin = out->n;
        put_phrases(view, decision, out);
        if (sel_buf_error(out) == 0)
            sel_cli_table_clean((char *)out->p + begin, out->n - begin);
        sel_buf_put_c(out, "\n");
    }
}

static int put_table(const struct sel_flow_view *view, const char *title,
                     const struct sel_value *list, struct sel_buf *out)
{
    if (sel_value_count(list) == 0)
        return 0;
    sel_buf_printf(out, "\n%s\n", title);
    return sel_cli_table_print(view->arena, list, "", out);
}

int sel_flow_view_print(struct sel_flow_view *view, int64_t now_unix_us, uint32_t decisions_max,
                        struct sel_buf *out)
{
    struct sel_value nodes, runs;
    int r = nodes_to_value(view, &nodes);
    if (r == 0)
        r = sel_value_end(&view->runs, &runs);
    if (r == 0)
        r = sel_cli_table_print(view->arena, &view->head, "", out);
    if (r == 0)
        r = put_table(view, "Nodes", &nodes, out);
    if (r == 0)
        r = put_table(view, "Waits for", &runs, out);
    if (r < 0)
        return r;
    int64_t open = int_in(&view->head, "open", 0) - (int64_t)sel_value_count(&runs);
    char count[SEL_CLI_FORMAT_SIZE];
    if (open > 0 && sel_value_count(&runs) > 0)
        sel_buf_printf(out, "and %s more (-v)\n", sel_cli_format_count((uint64_t)open, count));
    if (view->problem)
        sel_buf_printf(out, "\nNodes and history: %s\n", view->problem);
    put_history(view, now_unix_us, decisions_max, out);
    return sel_buf_error(out);
}
