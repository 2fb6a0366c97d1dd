#include "worker/flow_codec.h"

#include <string.h>

#include "core/mem.h"
#include "core/value.h"
#include "proto/le.h"

/* First bytes. 0xc1 begins no msgpack value: a plain {class, message} is told apart by it. */
#define FORM_PARENTS 0x01
#define FORM_ENDED 0x02
#define FORM_END 0xc1

#define PARENT_FLOW 1u /* flags of a parent */
#define PARENT_COMPOUND 2u
#define PARENT_FAILURE 4u

#define DEPTH_MAX 400u /* flows in flows: stacks of coroutines are small */

#define REFUSE(err, code, ...) sel_error_set((err), (code), (struct sel_pos){0}, __VA_ARGS__)

/* ---- reading ---- */

struct reader {
    const struct sel_system *system;
    struct sel_str rest;
    struct sel_error *err;
    int error; /* the first one sticks */
};

static void refuse(struct reader *r, int code, const char *what)
{
    if (r->error == 0)
        r->error = REFUSE(r->err, code, "%s", what);
}

static uint32_t get_u32(struct reader *r)
{
    uint64_t value = 0;
    size_t pos = 0;
    if (r->error)
        return 0;
    if (!sel_buf_get_varint((const uint8_t *)r->rest.p, r->rest.n, &pos, &value) ||
        value > UINT32_MAX) {
        refuse(r, SEL_EFORMAT, "what another dispatcher wrote is cut");
        return 0;
    }
    r->rest.p += pos;
    r->rest.n -= pos;
    return (uint32_t)value;
}

static struct sel_str get_raw(struct reader *r, size_t n)
{
    if (r->error == 0 && n > r->rest.n)
        refuse(r, SEL_EFORMAT, "what another dispatcher wrote is cut");
    if (r->error)
        return (struct sel_str){"", 0};
    struct sel_str bytes = {r->rest.p, n};
    r->rest.p += n;
    r->rest.n -= n;
    return bytes;
}

static struct sel_str get_bytes(struct reader *r)
{
    uint32_t n = get_u32(r);
    return get_raw(r, n);
}

/* A count of things that take at least one byte each. */
static uint32_t get_count(struct reader *r)
{
    uint32_t count = get_u32(r);
    if (count > r->rest.n)
        refuse(r, SEL_EFORMAT, "what another dispatcher wrote is cut");
    return r->error ? 0 : count;
}

static void get_form(struct reader *r, uint8_t form)
{
    struct sel_str byte = get_raw(r, 1);
    if (r->error == 0 && (uint8_t)byte.p[0] != form)
        refuse(r, SEL_EFORMAT, "what another dispatcher wrote is of an unknown form");
}

/* Text for people; it is shown and handed to tasks. */
static struct sel_str get_text(struct reader *r)
{
    struct sel_str text = get_bytes(r);
    if (r->error == 0 && !sel_str_is_utf8(text))
        refuse(r, SEL_EFORMAT, "what another dispatcher wrote is no text");
    return text;
}

static void put_bytes(struct sel_buf *buf, struct sel_str bytes)
{
    sel_buf_put_varint(buf, bytes.n);
    sel_buf_put_str(buf, bytes);
}

static void put_c(struct sel_buf *buf, const char *text)
{
    put_bytes(buf, sel_str_c(text ? text : ""));
}

/* ---- flows that have ended ---- */

static void put_ended(const struct sel_ended_flow *ended, const struct sel_system *system,
                      uint32_t depth, struct sel_buf *buf);

/* The state without what only the flow itself needed. */
static __attribute__((noinline)) void put_lean_state(const struct sel_state *state,
                                                     struct sel_buf *buf)
{
    struct sel_state lean = *state;
    struct sel_buf bytes = {0};
    lean.args = lean.start_args = (struct sel_buf){0};
    lean.cursor = (struct sel_cursor){0};
    lean.phase = SEL_PHASE_ENDED; /* it may have failed in the middle of a decision */
    sel_state_encode(&lean, &bytes);
    put_bytes(buf, sel_buf_str(&bytes));
    if (sel_buf_error(&bytes) < 0)
        buf->failed = true;
    sel_buf_done(&bytes);
}

static void put_failures(const struct sel_run_failures *failures, struct sel_buf *buf)
{
    sel_buf_put_varint(buf, failures->count);
    for (uint32_t i = 0; i < failures->count; i++) {
        sel_buf_put_varint(buf, failures->items[i].ordinal);
        put_c(buf, failures->items[i].error_class);
        put_c(buf, failures->items[i].message);
    }
}

static void put_children(const struct sel_ended_flow *ended, const struct sel_system *system,
                         uint32_t depth, struct sel_buf *buf)
{
    for (uint32_t i = 0; i < ended->state.child_count; i++) {
        const struct sel_ended_flow *child = ended->children ? ended->children[i] : NULL;
        struct sel_buf bytes = {0};
        if (child && depth < DEPTH_MAX)
            put_ended(child, system, depth + 1, &bytes);
        put_bytes(buf, sel_buf_str(&bytes));
        if (sel_buf_error(&bytes) < 0)
            buf->failed = true;
        sel_buf_done(&bytes);
    }
}

static void put_ended(const struct sel_ended_flow *ended, const struct sel_system *system,
                      uint32_t depth, struct sel_buf *buf)
{
    const struct sel_flow_def *flow = ended->flow;
    sel_buf_put_u8(buf, FORM_ENDED);
    put_bytes(buf, flow->name);
    sel_buf_put_varint(buf, flow->node_count);
    for (uint32_t i = 0; i < flow->node_count; i++)
        put_bytes(buf, sel_system_node_name(system, flow->nodes[i].node));
    put_lean_state(&ended->state, buf);
    put_children(ended, system, depth, buf);
    put_failures(&ended->failures, buf);
}

/* The flow by its name, if it still has the nodes that slots stand for. */
static const struct sel_flow_def *get_flow(struct reader *r)
{
    struct sel_str name = get_bytes(r);
    uint32_t count = get_count(r);
    const struct sel_flow_def *flow = r->error ? NULL : sel_system_find_flow(r->system, name);
    bool fits = flow && flow->node_count == count;
    for (uint32_t i = 0; i < count && r->error == 0; i++) {
        struct sel_str node = get_bytes(r);
        fits = fits && sel_str_eq(node, sel_system_node_name(r->system, flow->nodes[i].node));
    }
    if (r->error == 0 && !fits)
        r->error = REFUSE(r->err, SEL_ENOTFOUND,
                          "flow '%.*s' is not here, or has other nodes than where it ran",
                          name.n < 64 ? (int)name.n : 64, name.p);
    return r->error ? NULL : flow;
}

static void get_state(struct reader *r, const struct sel_flow_def *flow, struct sel_state *state)
{
    struct sel_str bytes = get_bytes(r);
    if (r->error)
        return;
    int code = sel_state_decode((const uint8_t *)bytes.p, bytes.n, state);
    if (code < 0)
        refuse(r, code, "the state of a sub-flow cannot be read");
    else if (state->slot_count != flow->node_count || state->edge_count != flow->edge_count)
        refuse(r, SEL_ENOTFOUND, "a sub-flow has other edges than where it ran");
}

static __attribute__((noinline)) void get_failures(struct reader *r,
                                                   struct sel_run_failures *failures)
{
    uint32_t count = get_count(r);
    for (uint32_t i = 0; i < count && r->error == 0; i++) {
        uint32_t ordinal = get_u32(r);
        struct sel_str error_class = get_text(r), message = get_text(r);
        if (r->error == 0 && sel_run_failures_add(failures, ordinal, error_class, message) < 0)
            refuse(r, SEL_ENOMEM, "out of memory");
    }
}

/* The flow without its children, which it gets room for. Not inlined: a state is large, and below
 * there is a recursion on the stack of a coroutine. */
static __attribute__((noinline)) struct sel_ended_flow *get_flow_state(struct reader *r)
{
    struct sel_state state = {0};
    const struct sel_flow_def *flow = get_flow(r);
    if (flow)
        get_state(r, flow, &state);
    struct sel_ended_flow *ended = r->error ? NULL : sel_ended_flow_new(flow, &state, NULL);
    if (ended)
        ended->children =
            sel_mem_zalloc(sizeof(*ended->children) * ((size_t)ended->state.child_count + 1));
    if (!ended || !ended->children)
        refuse(r, SEL_ENOMEM, "out of memory");
    sel_state_done(&state);
    return ended;
}

static struct sel_ended_flow *get_ended(struct reader *r, uint32_t depth)
{
    struct sel_ended_flow *ended = NULL;
    if (depth > DEPTH_MAX)
        refuse(r, SEL_ELIMIT, "flows are nested too deeply");
    get_form(r, FORM_ENDED);
    if (r->error == 0)
        ended = get_flow_state(r);
    for (uint32_t i = 0; r->error == 0 && i < ended->state.child_count; i++) {
        struct reader child = *r;
        child.rest = get_bytes(r);
        if (r->error == 0 && child.rest.n)
            ended->children[i] = get_ended(&child, depth + 1);
        if (r->error == 0)
            r->error = child.error;
    }
    if (r->error == 0)
        get_failures(r, &ended->failures);
    if (r->error == 0 && r->rest.n)
        refuse(r, SEL_EFORMAT, "a sub-flow's end is longer than it says");
    if (r->error == 0)
        return ended;
    sel_ended_flow_unref(ended);
    return NULL;
}

int sel_flow_take_ended(const struct sel_system *system, struct sel_str bytes,
                        struct sel_ended_flow **ret, struct sel_error *err)
{
    struct reader r = {.system = system, .rest = bytes, .err = err};
    struct sel_ended_flow *ended = get_ended(&r, 0);
    if (r.error == 0)
        *ret = ended;
    return r.error;
}

/* ---- parents ---- */

static void put_parent(const struct sel_system *system, const struct sel_parent *parent,
                       struct sel_buf *buf)
{
    struct sel_buf ended = {0};
    sel_buf_put_u8(buf, (uint8_t)((parent->id ? 0 : PARENT_FLOW) |
                                  (parent->compound ? PARENT_COMPOUND : 0) |
                                  (parent->error_class ? PARENT_FAILURE : 0)));
    put_bytes(buf, parent->name);
    if (parent->id) {
        put_c(buf, parent->id);
    } else {
        put_ended(parent->ended, system, 0, &ended);
        put_bytes(buf, sel_buf_str(&ended));
        if (sel_buf_error(&ended) < 0)
            buf->failed = true;
        sel_buf_done(&ended);
    }
    if (parent->error_class) {
        put_c(buf, parent->error_class);
        put_c(buf, parent->message);
    }
}

void sel_flow_put_parents(const struct sel_system *system, const struct sel_parents *parents,
                          struct sel_buf *buf)
{
    if (!parents || parents->count + parents->failed_count == 0)
        return;
    sel_buf_put_u8(buf, FORM_PARENTS);
    sel_buf_put_varint(buf, parents->count);
    sel_buf_put_varint(buf, parents->failed_count);
    for (uint32_t i = 0; i < parents->count + parents->failed_count; i++)
        put_parent(system, &parents->parents[i], buf);
}

static void get_parent(struct reader *r, struct sel_parents *parents, uint32_t index)
{
    struct sel_str flags = get_raw(r, 1), name = get_bytes(r), bytes = get_bytes(r);
    uint32_t node = r->error ? SEL_NONE : sel_system_find(r->system, name);
    int code = 0;
    if (r->error)
        return;
    if (node == SEL_NONE) {
        r->error = REFUSE(r->err, SEL_ENOTFOUND, "there is no '%.*s' here",
                          name.n < 64 ? (int)name.n : 64, name.p);
        return;
    }
    name = sel_system_node_name(r->system, node); /* lives longer */
    if (flags.p[0] & (int)PARENT_FLOW) {
        struct reader inner = *r;
        inner.rest = bytes;
        struct sel_ended_flow *ended = get_ended(&inner, 0);
        r->error = inner.error;
        if (r->error)
            return;
        sel_parents_set_flow(parents, index, name, ended, flags.p[0] & (int)PARENT_COMPOUND);
        sel_ended_flow_unref(ended);
    } else if (sel_str_is_utf8(bytes)) {
        code = sel_parents_set_task(parents, index, name, bytes);
    } else {
        code = SEL_EFORMAT;
    }
    if (code < 0)
        refuse(r, code, "a parent cannot be read");
}

/* What follows a parent that has it. */
static void get_parent_failure(struct reader *r, struct sel_parents *parents, uint32_t index,
                               struct sel_arena *arena)
{
    struct sel_str error_class = get_text(r), message = get_text(r);
    const char *texts[2] = {sel_arena_strdup(arena, error_class), sel_arena_strdup(arena, message)};
    if (r->error == 0 &&
        (!texts[0] || !texts[1] || sel_parents_set_failure(parents, index, texts[0], texts[1]) < 0))
        refuse(r, SEL_ENOMEM, "out of memory");
    sel_arena_reset(arena);
}

int sel_flow_take_parents(const struct sel_system *system, struct sel_str bytes,
                          struct sel_parents **ret, struct sel_error *err)
{
    struct reader r = {.system = system, .rest = bytes, .err = err};
    struct sel_parents *parents = NULL;
    struct sel_arena arena = {0};
    if (bytes.n == 0) {
        *ret = NULL;
        return 0;
    }
    get_form(&r, FORM_PARENTS);
    uint32_t count = get_count(&r), failed_count = get_count(&r);
    if (r.error == 0 && (uint64_t)count + failed_count > r.rest.n)
        refuse(&r, SEL_EFORMAT, "what another dispatcher wrote is cut");
    if (r.error == 0 && !(parents = sel_parents_new(count, failed_count)))
        refuse(&r, SEL_ENOMEM, "out of memory");
    for (uint32_t i = 0; r.error == 0 && i < count + failed_count; i++) {
        bool has_failure = r.rest.n > 0 && (r.rest.p[0] & (int)PARENT_FAILURE);
        get_parent(&r, parents, i);
        if (r.error == 0 && has_failure)
            get_parent_failure(&r, parents, i, &arena);
    }
    if (r.error == 0 && r.rest.n)
        refuse(&r, SEL_EFORMAT, "parents are longer than they say");
    sel_arena_done(&arena);
    if (r.error) {
        sel_parents_unref(parents);
        return r.error;
    }
    *ret = parents;
    return 0;
}

/* ---- ends of runs ---- */

static void put_failure_map(struct sel_str error_class, struct sel_str message, struct sel_buf *buf)
{
    struct sel_value items[4] = {sel_value_from_c("class"), sel_value_from_str(error_class),
                                 sel_value_from_c("message"), sel_value_from_str(message)};
    struct sel_value_builder builder = {.items = items, .count = 4, .cap = 4, .is_map = true};
    struct sel_value map;
    if (sel_value_end(&builder, &map) < 0)
        buf->failed = true;
    else
        sel_value_encode(&map, buf);
}

void sel_flow_put_end(const struct sel_system *system, bool failed, struct sel_str error_class,
                      struct sel_str message, const struct sel_ended_flow *ended,
                      struct sel_buf *buf)
{
    struct sel_buf failure = {0};
    if (failed)
        put_failure_map(error_class, message, &failure);
    if (ended) {
        sel_buf_put_u8(buf, FORM_END);
        put_bytes(buf, sel_buf_str(&failure));
        put_ended(ended, system, 0, buf);
    } else {
        sel_buf_put_str(buf, sel_buf_str(&failure));
    }
    if (sel_buf_error(&failure) < 0)
        buf->failed = true;
    sel_buf_done(&failure);
}

static struct sel_str text_of(const struct sel_value *map, const char *key)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    return sel_value_is(value, SEL_TEXT) ? sel_value_str(value) : (struct sel_str){"", 0};
}

int sel_flow_take_end(struct sel_str payload, struct sel_arena *arena, struct sel_flow_run_end *ret)
{
    struct reader r = {.rest = payload};
    struct sel_str failure = payload;
    struct sel_value map;
    *ret = (struct sel_flow_run_end){{"", 0}, {"", 0}, {"", 0}};
    if (payload.n > 0 && (uint8_t)payload.p[0] == FORM_END) {
        get_form(&r, FORM_END);
        failure = get_bytes(&r);
        if (r.error)
            return 0;
        ret->ended = r.rest;
    }
    if (failure.n == 0)
        return 0;
    int code = sel_value_decode(arena, failure.p, failure.n, false, &map, NULL);
    if (code == SEL_ENOMEM)
        return code;
    if (code == 0 && sel_value_is(&map, SEL_MAP)) {
        ret->error_class = text_of(&map, "class");
        ret->message = text_of(&map, "message");
    }
    return 0;
}

/* ---- history ---- */

/* Without an arena: the map is written as it goes. */
static void put_description(const struct sel_system *system, const struct sel_flow_def *flow,
                            struct sel_arena *arena, struct sel_buf *buf)
{
    struct sel_value_builder map, nodes;
    struct sel_value list, value;
    sel_value_begin_list(&nodes, arena);
    for (uint32_t i = 0; i < flow->node_count; i++)
        sel_value_add(&nodes,
                      sel_value_from_str(sel_system_node_name(system, flow->nodes[i].node)));
    if (sel_value_end(&nodes, &list) < 0) {
        buf->failed = true;
        return;
    }
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "flow", sel_value_from_str(flow->name));
    sel_value_put_c(&map, "nodes", list);
    sel_value_put_c(&map, "edges", sel_value_from_u64(flow->edge_count));
    if (sel_value_end(&map, &value) < 0)
        buf->failed = true;
    else
        sel_value_encode(&value, buf);
}

void sel_flow_put_history(const struct sel_system *system, const struct sel_flow_def *flow,
                          bool is_described, struct sel_buf *buf)
{
    uint8_t head[SEL_FLOW_HISTORY_HEAD];
    struct sel_buf description = {0};
    struct sel_arena arena = {0};
    if (is_described)
        put_description(system, flow, &arena, &description);
    sel_le_put32(head, (uint32_t)description.n);
    sel_buf_put(buf, head, sizeof(head));
    sel_buf_put_str(buf, sel_buf_str(&description));
    if (sel_buf_error(&description) < 0)
        buf->failed = true;
    sel_buf_done(&description);
    sel_arena_done(&arena);
}

static int check_description(const struct sel_system *system, const struct sel_flow_def *flow,
                             const struct sel_value *map, struct sel_error *err)
{
    const struct sel_value *nodes = sel_value_get_c(map, "nodes");
    const struct sel_value *edges = sel_value_get_c(map, "edges");
    int64_t edge_count = -1;
    if (!sel_value_is(map, SEL_MAP) || !sel_value_is(nodes, SEL_LIST) ||
        !sel_value_is(edges, SEL_INT) || !sel_value_i64(edges, &edge_count))
        return REFUSE(err, SEL_EFORMAT, "the description of a flow cannot be read");
    bool fits = sel_str_eq(text_of(map, "flow"), flow->name) &&
                sel_value_count(nodes) == flow->node_count && edge_count == flow->edge_count;
    for (uint32_t i = 0; fits && i < flow->node_count; i++) {
        const struct sel_value *name = sel_value_at(nodes, i);
        fits = sel_value_is(name, SEL_TEXT) &&
               sel_str_eq(sel_value_str(name), sel_system_node_name(system, flow->nodes[i].node));
    }
    return fits ? 1
                : REFUSE(err, SEL_ENOTFOUND,
                         "flow '%.*s' began under a configuration in which it has other nodes or "
                         "edges",
                         SEL_STR_ARG(flow->name));
}

int sel_flow_take_history(const struct sel_system *system, const struct sel_flow_def *flow,
                          struct sel_str item, struct sel_str *ret_rest, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct sel_value map;
    uint32_t size = item.n >= SEL_FLOW_HISTORY_HEAD ? sel_le_get32(item.p) : UINT32_MAX;
    if (item.n < SEL_FLOW_HISTORY_HEAD || size > item.n - SEL_FLOW_HISTORY_HEAD)
        return REFUSE(err, SEL_EFORMAT, "the history of a flow is cut");
    const char *p = item.p + SEL_FLOW_HISTORY_HEAD;
    int r = size ? sel_value_decode(&arena, p, size, false, &map, err) : 0;
    if (r == 0 && size)
        r = check_description(system, flow, &map, err);
    if (r >= 0)
        *ret_rest = (struct sel_str){p + size, item.n - SEL_FLOW_HISTORY_HEAD - size};
    sel_arena_done(&arena);
    return r;
}

/* ---- selective ---- */

static int take_texts(const struct sel_value *list, struct sel_arena *arena,
                      const struct sel_str **ret, uint32_t *ret_count)
{
    uint32_t count = sel_value_is(list, SEL_LIST) ? sel_value_count(list) : 0;
    struct sel_str *texts = SEL_ARENA_NEW_ARRAY(arena, struct sel_str, count + 1);
    if (!texts)
        return SEL_ENOMEM;
    if (!sel_value_is(list, SEL_LIST) && !sel_value_is(list, SEL_NULL))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < count; i++) {
        const struct sel_value *text = sel_value_at(list, i);
        if (!sel_value_is(text, SEL_TEXT))
            return SEL_EFORMAT;
        texts[i] = sel_value_str(text);
    }
    *ret = texts;
    *ret_count = count;
    return 0;
}

static int take_bool(const struct sel_value *map, const char *key, bool *ret)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    if (!sel_value_is(value, SEL_BOOL) && !sel_value_is(value, SEL_NULL))
        return SEL_EFORMAT;
    *ret = sel_value_is(value, SEL_BOOL) && sel_value_bool(value);
    return 0;
}

static int take_request(const struct sel_value *map, struct sel_arena *arena,
                        struct sel_selective_request *request)
{
    const struct sel_value *tasks = sel_value_get_c(map, "tasks");
    if (!sel_value_is(tasks, SEL_LIST))
        return SEL_EFORMAT;
    int r = take_texts(tasks, arena, &request->tasks, &request->task_count);
    if (r == 0)
        r = take_bool(map, "follow_subflows", &request->follow_subflows);
    if (r == 0)
        r = take_bool(map, "run_subsequent", &request->run_subsequent);
    if (r == 0)
        r = take_texts(sel_value_get_c(map, "subsequent_flows"), arena, &request->subsequent_flows,
                       &request->subsequent_flow_count);
    return r;
}

int sel_flow_take_selective(struct sel_str bytes, struct sel_arena *arena,
                            struct sel_flow_selective *ret, struct sel_error *err)
{
    static const char form[] = "'selective' is a map: tasks (list of text), follow_subflows, "
                               "run_subsequent (bool), subsequent_flows (list of text)";
    struct sel_flow_selective selective = {.flow = {"", 0}, .edge = SEL_NONE};
    struct sel_value map;
    int r = sel_value_decode(arena, bytes.p, bytes.n, false, &map, err);
    if (r < 0)
        return r == SEL_ENOMEM ? r : REFUSE(err, SEL_EFORMAT, "%s", form);
    const struct sel_value *edge = sel_value_get_c(&map, "edge");
    int64_t number = -1;
    if (!sel_value_is(&map, SEL_MAP))
        return REFUSE(err, SEL_EFORMAT, "%s", form);
    selective.flow = text_of(&map, "flow");
    if (sel_value_is(edge, SEL_INT)) {
        if (!sel_value_i64(edge, &number) || number < 0 || number >= SEL_NONE)
            return REFUSE(err, SEL_EFORMAT, "%s", form);
        selective.edge = (uint32_t)number;
    } else {
        r = take_request(&map, arena, &selective.request);
    }
    if (r == SEL_ENOMEM)
        return REFUSE(err, r, "out of memory");
    if (r < 0)
        return REFUSE(err, SEL_EFORMAT, "%s", form);
    *ret = selective;
    return 0;
}

static struct sel_value list_of(struct sel_arena *arena, const struct sel_str *texts,
                                uint32_t count, struct sel_buf *buf)
{
    struct sel_value_builder list;
    struct sel_value value = sel_value_null;
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, sel_value_from_str(texts[i]));
    if (sel_value_end(&list, &value) < 0)
        buf->failed = true;
    return value;
}

void sel_flow_put_selective(const struct sel_flow_selective *selective, struct sel_buf *buf)
{
    const struct sel_selective_request *request = &selective->request;
    struct sel_arena arena = {0};
    struct sel_value_builder map;
    struct sel_value value;
    sel_value_begin_map(&map, &arena);
    if (selective->flow.n)
        sel_value_put_c(&map, "flow", sel_value_from_str(selective->flow));
    if (selective->edge != SEL_NONE) {
        sel_value_put_c(&map, "edge", sel_value_from_u64(selective->edge));
    } else {
        sel_value_put_c(&map, "tasks", list_of(&arena, request->tasks, request->task_count, buf));
        sel_value_put_c(&map, "follow_subflows", sel_value_from_bool(request->follow_subflows));
        sel_value_put_c(&map, "run_subsequent", sel_value_from_bool(request->run_subsequent));
        sel_value_put_c(
            &map, "subsequent_flows",
            list_of(&arena, request->subsequent_flows, request->subsequent_flow_count, buf));
    }
    if (sel_value_end(&map, &value) < 0)
        buf->failed = true;
    else
        sel_value_encode(&value, buf);
    sel_arena_done(&arena);
}
