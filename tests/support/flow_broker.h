/* tests/support/flow_broker.h - a broker by hand that runs whole flows with one dispatcher.
 *
 * It keeps what a broker has to keep of flows (decisions, states, runs and their ends), plays the
 * workers (runs end as the test's script says), and can take flows away from the dispatcher at any
 * DECIDE. What was started is written down so that two ways to run a flow can be compared: ids of
 * sub-flows, which differ, are told as labels. Virtual time and no loop, unless the test asks for
 * the code of modules; no broker/. */
#ifndef SEL_TESTS_SUPPORT_FLOW_BROKER_H
#define SEL_TESTS_SUPPORT_FLOW_BROKER_H

#include <stdlib.h>

#include "core/compile.h"
#include "core/prng.h"
#include "proto/decision.h"
#include "proto/le.h"
#include "tests/support/broker_end.h"
#include "tests/support/test.h"
#include "worker/dispatcher.h"
#include "worker/flow_codec.h"
#include "worker/mock.h"
#include "worker/module.h"

#define FB_FLOWS_MAX 64
#define FB_LINES_MAX 4096

struct fb_run {
    bool is_there, is_flow, is_nowait, has_ended, is_consumed;
    uint32_t child; /* index of the sub-flow */
    char name[64];
    uint32_t code;
    struct sel_buf payload; /* of the end */
};

struct fb_event {
    uint32_t number;
    struct sel_buf bytes;
};

struct fb_flow {
    struct sel_id id;
    char label[64], name[64];
    bool is_root, is_over, is_assigned, has_begun, throttled;
    uint32_t parent, parent_ordinal, parent_attempt;
    uint16_t attempt, delivery;
    uint32_t run_flags;
    struct sel_buf fields, args, parents, now_args; /* now_args: of the runs, once changed */
    uint32_t number, state_number;
    struct sel_buf state, pieces;
    struct fb_event *events;
    uint32_t event_count, event_cap;
    struct fb_run *runs; /* by ordinal, of this attempt */
    uint32_t run_count, run_cap;
    uint32_t *ends; /* ordinals in the order of their ends */
    uint32_t end_count, end_cap;
    uint32_t outcome;
    struct sel_buf result, nodes; /* nodes: the events of its end */
};

struct fb_pending {
    uint32_t flow, ordinal;
    uint16_t attempt;
};

struct flow_broker {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_value script;
    struct sel_mock *mock;    /* the engine needs the code of tasks, which nobody runs */
    const char *modules_path; /* with a loop */
    bool has_loop; /* functions are those of modules, in coroutines; time is the loop's */
    int64_t function_limit_us;
    struct sel_modules *modules;
    struct sel_loop *loop;
    struct sel_crash_page *page;
    void (*each_turn)(struct flow_broker *b);
    void *user;
    struct sel_executor_options engine_options;
    struct sel_engine *engine;
    struct sel_holder *holder;
    struct sel_dispatcher *dispatcher;
    struct broker_end end;
    struct sel_buf out;
    int64_t now_us;
    uint64_t seed; /* of the dispatcher's ids, and of the order in which runs end; 0: as started */
    struct sel_prng prng;
    struct fb_flow *flows;
    uint32_t flow_count;
    struct fb_pending *pending;
    uint32_t pending_count, pending_cap;
    struct sel_str queue_names[64]; /* told by QUEUE */
    const char *queues_served;
    /* The script. */
    const char *fails; /* names of tasks, " A B@0 ": A fails always, B in attempt 0 of its flow */
    const char *no_answers; /* names of functions that fail */
    uint32_t budget;        /* of the dispatcher's steps */
    uint32_t flow_nodes_max;
    size_t keep_bytes_max;
    bool may_not_settle; /* nothing is settled: outboxes stay full */
    int64_t fail_at; /* the allocation of the dispatcher's turns that fails, once; then it gets back
                        what it returns */
    uint32_t refuse_at; /* the whole DECIDE, counted from 1, that is not taken; 0: all are */
    bool refuses_silently, refuses_and_breaks; /* no ERROR; no CANCEL, but another session */
    uint32_t heard_count;                      /* of DECIDEs */
    bool is_breaking;
    bool is_traced;      /* `traces` is filled */
    bool tells_first;    /* what is settled is told before a connection breaks */
    uint32_t lose_at;    /* flows are taken away after so many DECIDEs; 0: never */
    uint32_t lose_every; /* the same, again and again */
    bool resumes;        /* the session goes on then, and nothing is taken away */
    uint32_t decide_count, state_count, return_count, max_record;
    uint64_t answer_count;
    struct sel_wire_item last_return; /* texts in `arena` */
    /* What was started: a line each. */
    const char **lines;
    uint32_t line_count;
    /* Trace events: a line each, with labels in place of ids. */
    struct sel_executor_observer observer;
    const char **traces;
    uint32_t trace_count, trace_cap;
    int64_t trace_age_us; /* of the last one */
};

/* ---- the dispatcher's side ---- */

static inline int64_t fb_now_us(void *ctx)
{
    return ((struct flow_broker *)ctx)->now_us;
}

static inline int64_t fb_unix_ms(void *ctx)
{
    return 1700000000000 + ((struct flow_broker *)ctx)->now_us / 1000;
}

static inline bool fb_is_listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p && (p = strstr(p, name)); p += n) {
        if (p > list && p[-1] == ' ' && p[n] == ' ')
            return true;
    }
    return false;
}

static inline struct sel_value fb_result(struct sel_arena *arena, struct sel_str name)
{
    return sel_test_json(arena, sel_arena_printf(arena, "{\"task\": \"%.*s\", \"list\": [7, 8, 9]}",
                                                 SEL_STR_ARG(name)));
}

/* Eight texts of 100 kB. */
static inline struct sel_value fb_large(struct sel_arena *arena)
{
    struct sel_value *items = SEL_ARENA_NEW_ARRAY(arena, struct sel_value, 8);
    assert_non_null(items);
    for (uint32_t i = 0; i < 8; i++) {
        char *text = sel_arena_alloc(arena, 100001);
        assert_non_null(text);
        memset(text, 'a' + (int)i, 100000);
        items[i] = sel_value_from_str((struct sel_str){text, 100000});
    }
    return sel_value_from_list(items, 8);
}

static inline int fb_answer(void *ctx, const struct sel_dispatcher_question *q,
                            struct sel_error *err)
{
    struct flow_broker *b = ctx;
    for (uint32_t i = 0; i < q->need_count; i++) {
        struct sel_need *need = &q->needs[i];
        b->answer_count++;
        if (need->kind == SEL_NEED_RESULT) {
            uint32_t slot = sel_state_run_slot(q->state, need->ordinal);
            need->value =
                fb_result(q->arena, sel_system_node_name(b->system, q->flow->nodes[slot].node));
        } else if (need->kind == SEL_NEED_FOREACH) {
            const struct sel_import *function =
                &q->flow->edges[need->combination.edge].foreach->function;
            char name[64];
            (void)snprintf(name, sizeof(name), "%.*s", SEL_STR_ARG(function->name));
            if (fb_is_listed(b->no_answers, name))
                return sel_error_set(err, SEL_EFAILED, function->pos, "function '%s' failed", name);
            need->value = strcmp(name, "large") == 0
                              ? fb_large(q->arena)
                              : sel_test_json(q->arena, strcmp(name, "many") == 0
                                                            ? "[1,2,3,4,5,6,7,8,9,10,11,12]"
                                                            : "[1, 2, 3]");
        } else {
            need->value =
                need->kind == SEL_NEED_SELECTIVE ? sel_value_null : sel_value_from_bool(true);
        }
    }
    return 0;
}

static const struct sel_dispatcher_ops fb_dispatcher_ops = {
    .now_us = fb_now_us, .unix_ms = fb_unix_ms, .answer = fb_answer};

static inline void fb_on_flow(void *ctx, const struct sel_wire_item *item)
{
    sel_dispatcher_take(((struct flow_broker *)ctx)->dispatcher, item);
}

static inline void fb_on_lost(void *ctx)
{
    struct flow_broker *b = ctx;
    if (b->dispatcher)
        sel_dispatcher_lost(b->dispatcher);
}

static const struct sel_holder_ops fb_holder_ops = {.flow = fb_on_flow, .flows_lost = fb_on_lost};

static inline void fb_no_log(void *ctx, enum sel_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

static inline void fb_compile(struct flow_broker *b, const char *nodes, const char *flows)
{
    static struct sel_predicate_world world;
    struct sel_source flow_source = {.file = "flows.yaml", .text = sel_str_c(flows)};
    struct sel_compile_options options = {.nodes = {.file = "nodes.yaml", .text = sel_str_c(nodes)},
                                          .flows = &flow_source,
                                          .flow_count = 1,
                                          .world = &world};
    sel_diag_init(&b->diag, &b->arena);
    if (sel_compile(&options, &b->diag, &b->system) < 0)
        fail_msg("%s:%u: %s", b->diag.first->pos.file, b->diag.first->pos.line,
                 b->diag.first->text);
}

static inline void fb_open_dispatcher(struct flow_broker *b)
{
    static const struct sel_str queues[] = {{"tasks", 5}};
    struct sel_holder_options holder = {.peer = {.role = SEL_ROLE_WORKER,
                                                 .id = {5, 6},
                                                 .queues = queues,
                                                 .queue_count = 1,
                                                 .flows = 100,
                                                 .keep_bytes_max = b->keep_bytes_max,
                                                 .beats_elsewhere = true},
                                        .ops = &fb_holder_ops,
                                        .ctx = b};
    assert_ok(sel_holder_new(&holder, b->now_us, &b->holder));
    struct sel_dispatcher_options options = {.engine = b->engine,
                                             .loop = b->loop,
                                             .holder = b->holder,
                                             .seed = b->seed + 1,
                                             .page = b->page,
                                             .budget = b->budget,
                                             .flow_nodes_max = b->flow_nodes_max,
                                             .ops = b->has_loop ? NULL : &fb_dispatcher_ops,
                                             .ctx = b};
    assert_ok(sel_dispatcher_new(&options, &b->dispatcher));
}

static inline void fb_on_trace(void *ctx, enum sel_trace_event event,
                               const struct sel_value *details, int64_t age_us);

/* `b` is zeroed, but for its script. */
static inline void fb_init(struct flow_broker *b, const char *nodes, const char *flows)
{
    struct sel_error err;
    fb_compile(b, nodes, flows);
    b->engine_options = (struct sel_executor_options){
        .system = b->system, .function_limit_us = b->function_limit_us, .log = fb_no_log};
    b->observer = (struct sel_executor_observer){.ctx = b, .trace = fb_on_trace};
    b->engine_options.observer = b->is_traced ? &b->observer : NULL;
    if (b->has_loop) {
        b->modules = sel_modules_new(b->modules_path);
        b->engine_options.modules = b->modules;
        struct sel_loop_options loop = {.ring_entries = 64};
        assert_ok(sel_loop_new(&loop, &b->loop, &err));
        b->page = sel_crash_page_new(1, SEL_DISPATCHER_SLOTS);
        sel_co_set_mark_place(&b->page->threads[0].running);
    } else {
        b->script = sel_test_json(&b->arena, "{}");
        assert_ok(sel_mock_new(b->system, &b->script, &b->mock, &err));
        b->engine_options.mock = b->mock;
    }
    if (sel_engine_new(&b->engine_options, NULL, &b->engine, &err) < 0)
        fail_msg("%s", err.text);
    assert_ok(sel_engine_open_caches(b->engine, &err));
    b->now_us = 1000000;
    b->prng.state = b->seed;
    b->flows = sel_mem_zalloc(sizeof(*b->flows) * FB_FLOWS_MAX);
    b->lines = sel_mem_zalloc(sizeof(*b->lines) * FB_LINES_MAX);
    broker_end_init(&b->end);
    fb_open_dispatcher(b);
}

static inline void fb_forget_attempt(struct fb_flow *f)
{
    for (uint32_t i = 0; i < f->event_count; i++)
        sel_buf_done(&f->events[i].bytes);
    for (uint32_t i = 0; i < f->run_count; i++)
        sel_buf_done(&f->runs[i].payload);
    f->event_count = f->run_count = f->end_count = 0;
    f->number = f->state_number = 0;
    sel_buf_done(&f->state);
    sel_buf_done(&f->pieces);
    sel_buf_done(&f->now_args);
}

static inline void fb_done(struct flow_broker *b)
{
    b->dispatcher = sel_dispatcher_free(b->dispatcher);
    b->holder = sel_holder_free(b->holder);
    sel_loop_free(b->loop);
    sel_engine_close_caches(b->engine);
    sel_engine_free(b->engine);
    sel_mock_free(b->mock);
    if (b->modules)
        sel_modules_thread_done(b->modules);
    sel_modules_free(b->modules);
    if (b->page)
        sel_co_set_mark_place(NULL);
    sel_crash_page_free(b->page);
    for (uint32_t i = 0; i < b->flow_count; i++) {
        struct fb_flow *f = &b->flows[i];
        fb_forget_attempt(f);
        struct sel_buf *bufs[] = {&f->fields, &f->args, &f->parents, &f->result, &f->nodes};
        for (size_t k = 0; k < SEL_COUNT(bufs); k++)
            sel_buf_done(bufs[k]);
        sel_mem_free(f->events);
        sel_mem_free(f->runs);
        sel_mem_free(f->ends);
    }
    sel_mem_free(b->flows);
    sel_mem_free(b->lines);
    sel_mem_free(b->traces);
    sel_mem_free(b->pending);
    broker_end_done(&b->end);
    sel_buf_done(&b->out);
    sel_system_free(b->system);
    sel_arena_done(&b->arena);
}

/* ---- saying ---- */

static inline struct sel_wire_item fb_item(const struct fb_flow *f, uint8_t type)
{
    return (struct sel_wire_item){.type = type,
                                  .id = f->id,
                                  .priority = SEL_WIRE_PRIORITY,
                                  .handle = (uint64_t)f->attempt * 100 + f->delivery + 1,
                                  .try_count = f->attempt,
                                  .delivery = f->delivery};
}

static inline void fb_say_pieces(struct flow_broker *b, const struct fb_flow *f, uint8_t type,
                                 uint32_t code, struct sel_str payload)
{
    size_t at = 0;
    do {
        size_t n = payload.n - at < SEL_DECISION_PIECE ? payload.n - at : SEL_DECISION_PIECE;
        struct sel_wire_item item = fb_item(f, type);
        item.code = code;
        item.payload = (struct sel_str){payload.p + at, n};
        at += n;
        item.flags = at < payload.n ? SEL_ITEM_MORE : 0;
        (void)broker_end_put(&b->end, &item);
    } while (at < payload.n);
}

static inline void fb_say_ended(struct flow_broker *b, const struct fb_flow *f, uint32_t ordinal,
                                bool is_consumed)
{
    const struct fb_run *run = &f->runs[ordinal];
    struct sel_wire_item item = fb_item(f, SEL_RECORD_ENDED);
    item.handle = ordinal;
    item.code = run->code;
    item.flags = is_consumed ? SEL_ITEM_CONSUMED : 0;
    item.payload = sel_buf_str(&run->payload);
    (void)broker_end_put(&b->end, &item);
}

static inline void fb_say_history(struct flow_broker *b, const struct fb_flow *f)
{
    if (f->state_number)
        fb_say_pieces(b, f, SEL_RECORD_STATE, f->state_number, sel_buf_str(&f->state));
    for (uint32_t i = 0; i < f->event_count; i++)
        fb_say_pieces(b, f, SEL_RECORD_EVENTS, f->events[i].number,
                      sel_buf_str(&f->events[i].bytes));
    for (uint32_t i = 0; i < f->end_count; i++) {
        const struct fb_run *run = &f->runs[f->ends[i]];
        if (!run->is_consumed || run->payload.n)
            fb_say_ended(b, f, f->ends[i], run->is_consumed);
    }
    struct sel_wire_item live = fb_item(f, SEL_RECORD_LIVE);
    live.code = f->number;
    (void)broker_end_put(&b->end, &live);
}

static inline void fb_assign(struct flow_broker *b, struct fb_flow *f)
{
    struct sel_buf payload = {0}, fields = {0};
    f->delivery++;
    f->is_assigned = true;
    sel_buf_put_str(&payload, sel_buf_str(&f->args));
    sel_buf_put_str(&payload, sel_buf_str(&f->parents));
    if (f->is_root) {
        sel_buf_put_str(&fields, sel_buf_str(&f->fields));
    } else {
        struct sel_wire_run run = {.flow = b->flows[f->parent].id,
                                   .attempt = f->parent_attempt,
                                   .ordinal = f->parent_ordinal,
                                   .parents_size = (uint32_t)f->parents.n,
                                   .flags = (uint16_t)f->run_flags};
        sel_wire_put_run(&fields, sel_buf_str(&f->fields), &run);
    }
    struct sel_wire_item item = fb_item(f, SEL_RECORD_TASK);
    item.queue = 1;
    item.fields = sel_buf_str(&fields);
    item.payload = sel_buf_str(&payload);
    item.flags = SEL_ITEM_FLOW | (f->number ? SEL_ITEM_HISTORY : 0) |
                 (f->throttled ? SEL_ITEM_THROTTLED : 0);
    (void)broker_end_put(&b->end, &item);
    if (f->number)
        fb_say_history(b, f);
    sel_buf_done(&payload);
    sel_buf_done(&fields);
}

/* ---- what was started ---- */

/* In place of the ids of flows, their labels. */
static inline const char *fb_label_ids(struct flow_broker *b, const char *text)
{
    for (uint32_t i = 0; i < b->flow_count; i++) {
        char id[SEL_ID_TEXT_SIZE];
        const char *at;
        sel_id_format(b->flows[i].id, id);
        while ((at = strstr(text, id)))
            text = sel_arena_printf(&b->arena, "%.*s%s%s", (int)(at - text), text,
                                    b->flows[i].label, at + SEL_ID_TEXT_SIZE - 1);
    }
    return text;
}

static inline const char *fb_json(struct flow_broker *b, struct sel_str bytes)
{
    struct sel_value value;
    if (bytes.n == 0)
        return "-";
    assert_ok(sel_value_decode(&b->arena, bytes.p, bytes.n, false, &value, NULL));
    return sel_test_json_text(&b->arena, &value);
}

static inline void fb_on_trace(void *ctx, enum sel_trace_event event,
                               const struct sel_value *details, int64_t age_us)
{
    struct flow_broker *b = ctx;
    assert_true(age_us >= 0);
    b->trace_age_us = age_us;
    if (b->fail_at != 0) { /* its own memory must not be short */
        b->trace_count++;
        return;
    }
    const char *text = sel_arena_printf(&b->arena, "%s %s", sel_trace_name(event),
                                        fb_label_ids(b, sel_test_json_text(&b->arena, details)));
    assert_true(
        sel_mem_grow(&b->traces, &b->trace_cap, (uint64_t)b->trace_count + 1, sizeof(*b->traces)));
    b->traces[b->trace_count++] = text;
}

static inline void fb_add_texts(struct flow_broker *b, const struct sel_parents *parents,
                                struct sel_buf *text)
{
    for (uint32_t i = 0; parents && i < parents->failed_count; i++) {
        const struct sel_parent *p = &parents->parents[parents->count + i];
        sel_buf_printf(text, " !%.*s", SEL_STR_ARG(p->name));
        if (p->error_class)
            sel_buf_printf(text, "=%s:%s", p->error_class, p->message);
    }
    (void)b;
}

static inline void fb_note_start(struct flow_broker *b, const struct fb_flow *f, uint32_t ordinal,
                                 const char *name, struct sel_str args, struct sel_str bytes,
                                 uint32_t flags)
{
    struct sel_parents *parents = NULL;
    struct sel_value finished, failed;
    struct sel_error err = {0};
    struct sel_buf text = {0};
    if (sel_flow_take_parents(b->system, bytes, &parents, &err) < 0)
        fail_msg("parents of %s: %s", name, err.text);
    assert_ok(sel_parents_to_value(b->system, parents, false, &b->arena, &finished));
    assert_ok(sel_parents_to_value(b->system, parents, true, &b->arena, &failed));
    const char *shown = fb_json(b, args);
    if (strlen(shown) > 1000)
        shown = sel_arena_printf(&b->arena, "%.3s..%zu", shown, strlen(shown));
    sel_buf_printf(&text, "%s-%u.%u %s args=%s parents=%s failed=%s flags=%u", f->label, f->attempt,
                   ordinal, name, shown, sel_test_json_text(&b->arena, &finished),
                   sel_test_json_text(&b->arena, &failed), flags);
    fb_add_texts(b, parents, &text);
    sel_parents_unref(parents);
    assert_true(b->line_count < FB_LINES_MAX);
    b->lines[b->line_count++] =
        sel_arena_strdup(&b->arena, sel_str_c(fb_label_ids(b, sel_buf_cstr(&text))));
    sel_buf_done(&text);
}

/* ---- taking decisions ---- */

static inline void fb_end_run(struct flow_broker *b, uint32_t flow, uint16_t attempt,
                              uint32_t ordinal, uint32_t code, struct sel_str payload)
{
    struct fb_flow *f = &b->flows[flow];
    if (f->is_over || f->attempt != attempt || f->runs[ordinal].is_nowait)
        return;
    struct fb_run *run = &f->runs[ordinal];
    assert_false(run->has_ended);
    run->has_ended = true;
    run->code = code;
    sel_buf_put_str(&run->payload, payload);
    assert_true(sel_mem_grow(&f->ends, &f->end_cap, (uint64_t)f->end_count + 1, sizeof(*f->ends)));
    f->ends[f->end_count++] = ordinal;
    if (f->is_assigned)
        fb_say_ended(b, f, ordinal, false);
}

static inline struct fb_run *fb_new_run(struct fb_flow *f, uint32_t ordinal)
{
    assert_true(sel_mem_grow(&f->runs, &f->run_cap, (uint64_t)ordinal + 1, sizeof(*f->runs)));
    for (; f->run_count <= ordinal; f->run_count++)
        f->runs[f->run_count] = (struct fb_run){0};
    assert_false(f->runs[ordinal].is_there);
    f->runs[ordinal].is_there = true;
    return &f->runs[ordinal];
}

static inline void fb_push(struct flow_broker *b, uint32_t flow, uint32_t ordinal)
{
    assert_true(sel_mem_grow(&b->pending, &b->pending_cap, (uint64_t)b->pending_count + 1,
                             sizeof(*b->pending)));
    b->pending[b->pending_count++] = (struct fb_pending){flow, ordinal, b->flows[flow].attempt};
}

static inline uint32_t fb_new_flow(struct flow_broker *b, struct sel_id id)
{
    assert_true(b->flow_count < FB_FLOWS_MAX);
    b->flows[b->flow_count] = (struct fb_flow){.id = id, .outcome = UINT32_MAX};
    return b->flow_count++;
}

static inline void fb_start_child(struct flow_broker *b, uint32_t parent,
                                  const struct sel_decision_start *start, struct sel_str args,
                                  struct sel_str parents)
{
    uint32_t child = fb_new_flow(b, start->child);
    struct fb_flow *f = &b->flows[child], *p = &b->flows[parent];
    char label[sizeof(f->label)];
    (void)snprintf(label, sizeof(label), "%.40s-%u.%u", p->label, p->attempt, start->ordinal);
    memcpy(f->label, label, sizeof(label));
    (void)snprintf(f->name, sizeof(f->name), "%.*s",
                   SEL_STR_ARG(sel_wire_find_field(start->fields, SEL_FIELD_TASK)));
    f->parent = parent;
    f->parent_ordinal = start->ordinal;
    f->parent_attempt = p->attempt;
    f->run_flags = start->run_flags;
    f->throttled = true;
    sel_buf_put_str(&f->fields, start->fields);
    sel_buf_put_str(&f->args, args);
    sel_buf_put_str(&f->parents, parents);
    struct sel_str root = sel_wire_find_field(start->fields, SEL_FIELD_ROOT);
    struct sel_str of = sel_wire_find_field(start->fields, SEL_FIELD_PARENT);
    assert_int_equal(root.n, 16);
    assert_int_equal(of.n, 16);
    assert_true(sel_id_eq(sel_le_get_id(root.p), b->flows[0].id));
    assert_true(sel_id_eq(sel_le_get_id(of.p), p->id));
    p->runs[start->ordinal].child = child;
    fb_assign(b, f);
}

static inline void fb_start(struct flow_broker *b, uint32_t flow,
                            const struct sel_decision_start *start, const struct sel_str *blobs)
{
    for (uint32_t i = 0; i < start->count; i++) {
        struct fb_flow *f = &b->flows[flow];
        struct fb_run *run = fb_new_run(f, start->ordinal + i);
        struct sel_str own = sel_buf_str(f->now_args.n ? &f->now_args : &f->args);
        struct sel_str args = start->args ? blobs[start->args - 1] : own;
        struct sel_str parents = start->parents ? blobs[start->parents - 1] : (struct sel_str){0};
        struct sel_str name = sel_wire_find_field(start->fields, SEL_FIELD_TASK);
        assert_true(start->queue > 0 && start->queue < 64);
        if (start->queue > 1) /* the first is of HELLO */
            assert_true(b->queue_names[start->queue].n > 0);
        (void)snprintf(run->name, sizeof(run->name), "%.*s", SEL_STR_ARG(name));
        run->is_flow = start->flags & SEL_START_FLOW;
        run->is_nowait = start->flags & SEL_START_NOWAIT;
        fb_note_start(b, f, start->ordinal + i, run->name, args, parents,
                      start->flags | (uint32_t)start->run_flags << 8);
        if (run->is_flow)
            fb_start_child(b, flow, start, args, parents);
        else
            fb_push(b, flow, start->ordinal + i);
    }
}

static inline void fb_end_flow(struct flow_broker *b, uint32_t flow, const struct sel_decision *d)
{
    struct fb_flow *f = &b->flows[flow];
    f->is_assigned = false;
    assert_true(d->events.n == 0 || (f->is_root && d->outcome != SEL_OUTCOME_RETRY));
    if (d->outcome == SEL_OUTCOME_RETRY) {
        fb_forget_attempt(f);
        b->now_us += (int64_t)d->countdown_us;
        f->attempt++;
        f->delivery = 0;
        fb_assign(b, f);
        return;
    }
    f->is_over = true;
    f->outcome = d->outcome;
    sel_buf_put_str(&f->result, d->result);
    sel_buf_put_str(&f->nodes, d->events);
    if (!f->is_root)
        fb_end_run(b, f->parent, (uint16_t)f->parent_attempt, f->parent_ordinal,
                   d->outcome == SEL_OUTCOME_SUCCESS ? 0 : 1, d->result);
}

static inline void fb_take_decision(struct flow_broker *b, uint32_t flow, struct sel_str payload)
{
    struct fb_flow *f = &b->flows[flow];
    struct sel_decision d;
    struct sel_error err = {0};
    if (sel_decision_decode(payload, &d, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(d.number, f->number + 1);
    f->number = d.number;
    b->decide_count++;
    struct sel_str *blobs = sel_mem_zalloc(sizeof(*blobs) * ((size_t)d.blob_count + 1));
    struct sel_str rest = d.blobs;
    for (uint32_t i = 0; i < d.blob_count; i++)
        blobs[i] = sel_decision_next_blob(&d, i, &rest);
    for (uint32_t i = 0; i < d.consumed_count; i++) {
        struct fb_run *run = &f->runs[sel_decision_consumed(&d, i)];
        assert_true(run->has_ended && !run->is_consumed);
        run->is_consumed = true;
    }
    if (d.set_args)
        sel_buf_put_str(&f->now_args, blobs[d.set_args - 1]);
    if (!d.is_end) {
        assert_true(sel_mem_grow(&f->events, &f->event_cap, (uint64_t)f->event_count + 1,
                                 sizeof(*f->events)));
        f->events[f->event_count] = (struct fb_event){.number = d.number};
        sel_buf_put_str(&f->events[f->event_count++].bytes, d.events);
    }
    rest = d.starts;
    for (uint32_t i = 0; i < d.start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&rest, &start);
        fb_start(b, flow, &start, blobs);
    }
    if (d.is_end)
        fb_end_flow(b, flow, &d);
    sel_mem_free(blobs);
}

static inline void fb_take_state(struct flow_broker *b, struct fb_flow *f, uint32_t number,
                                 struct sel_str payload)
{
    assert_int_equal(number, f->number);
    for (uint32_t i = 0; i < f->event_count; i++)
        sel_buf_done(&f->events[i].bytes);
    f->event_count = 0;
    sel_buf_clear(&f->state);
    sel_buf_put_str(&f->state, payload);
    f->state_number = number;
    b->state_count++;
}

static inline uint32_t fb_find(const struct flow_broker *b, struct sel_id id)
{
    for (uint32_t i = 0; i < b->flow_count; i++) {
        if (sel_id_eq(b->flows[i].id, id))
            return i;
    }
    fail_msg("the dispatcher speaks of a flow that nobody knows");
    return 0;
}

static inline void fb_take_return(struct flow_broker *b, struct fb_flow *f,
                                  const struct sel_wire_item *item)
{
    b->return_count++;
    b->last_return = *item;
    b->last_return.payload.p = sel_arena_strdup(&b->arena, item->payload);
    b->last_return.limit_key.p = sel_arena_strdup(&b->arena, item->limit_key);
    f->is_assigned = false;
    sel_buf_done(&f->pieces);
    if (b->fail_at && item->code == SEL_RETURN_NO_RESOURCES)
        fb_assign(b, f);
    if (item->code == SEL_RETURN_THROTTLED) {
        f->throttled = true;
        b->now_us += (int64_t)item->countdown_us;
        fb_assign(b, f);
    }
}

static inline void fb_break(struct flow_broker *b);

/* As broker/decide.c does: another dispatcher gets the flow, which is the same one here. */
static inline void fb_refuse(struct flow_broker *b, struct fb_flow *f)
{
    struct sel_buf frame = {0};
    const struct sel_wire_error error = {.code = SEL_CODE_ILLEGAL,
                                         .text = SEL_STR("a gap in the numbers of decisions"),
                                         .at = b->end.session.in.arrived};
    sel_wire_encode_error(&error, &frame);
    if (!b->refuses_silently)
        sel_holder_receive(b->holder, sel_buf_str(&frame), b->now_us);
    sel_buf_done(&frame);
    f->is_assigned = false;
    if (b->refuses_and_breaks) {
        b->is_breaking = true;
        return;
    }
    struct sel_wire_item cancel = fb_item(f, SEL_RECORD_CANCEL);
    cancel.try_count = 0;
    cancel.code = SEL_CANCEL_ENDED;
    (void)broker_end_put(&b->end, &cancel);
    fb_assign(b, f);
}

static inline void fb_take_item(struct flow_broker *b, const struct sel_wire_item *item)
{
    if (item->raw.n > b->max_record)
        b->max_record = (uint32_t)item->raw.n;
    if (item->type == SEL_RECORD_QUEUE) {
        assert_true(item->queue < 64);
        b->queue_names[item->queue] =
            (struct sel_str){sel_arena_strdup(&b->arena, item->payload), item->payload.n};
        return;
    }
    if (item->type == SEL_RECORD_WANT)
        return;
    uint32_t flow = fb_find(b, item->id);
    struct fb_flow *f = &b->flows[flow];
    if (!f->is_assigned || item->delivery != f->delivery || item->try_count != f->attempt)
        return; /* of an earlier epoch */
    if (item->type == SEL_RECORD_RETURN) {
        fb_take_return(b, f, item);
        return;
    }
    assert_true(item->type == SEL_RECORD_DECIDE || item->type == SEL_RECORD_STATE);
    sel_buf_put_str(&f->pieces, item->payload);
    if (item->flags & SEL_ITEM_MORE)
        return;
    struct sel_buf whole = f->pieces;
    f->pieces = (struct sel_buf){0};
    if (item->type == SEL_RECORD_DECIDE && ++b->heard_count == b->refuse_at)
        fb_refuse(b, f);
    else if (item->type == SEL_RECORD_DECIDE)
        fb_take_decision(b, flow, sel_buf_str(&whole));
    else
        fb_take_state(b, f, item->code, sel_buf_str(&whole));
    sel_buf_done(&whole);
}

/* ---- turning ---- */

static inline void fb_hear_data(struct flow_broker *b, struct sel_str frame)
{
    struct sel_str records;
    struct sel_wire_item item;
    assert_ok(sel_wire_decode_data(frame, &b->end.head, &records, NULL));
    int64_t count = sel_session_receive(&b->end.session, &b->end.head, &records, NULL);
    if (count == SEL_ENOTFOUND)
        return; /* of the session before */
    assert_true(count >= 0);
    size_t bytes = records.n;
    while (count > 0 && sel_wire_next(&records, &item, NULL) > 0)
        fb_take_item(b, &item);
    if (count > 0)
        sel_session_free(&b->end.session, (uint64_t)count, bytes);
    if (!b->may_not_settle)
        sel_session_settle(&b->end.session, b->end.session.in.arrived);
}

static inline bool fb_keep_nothing(void *ctx, uint64_t old_number, uint64_t number,
                                   struct sel_str record)
{
    (void)ctx, (void)old_number, (void)number, (void)record;
    return false;
}

static inline void fb_welcome(struct flow_broker *b)
{
    bool resumed =
        b->resumes && b->end.hello.session != 0 && b->end.hello.session == b->end.session.number;
    struct sel_wire_welcome welcome = broker_end_welcome(&b->end, resumed);
    if (!resumed)
        sel_outbox_filter(&b->end.session.out, fb_keep_nothing, NULL);
    sel_holder_receive(b->holder, broker_end_say_welcome(&b->end, &welcome), b->now_us);
    if (resumed)
        return;
    memset(b->queue_names, 0, sizeof(b->queue_names));
    for (uint32_t i = 0; i < b->flow_count; i++) {
        sel_buf_done(&b->flows[i].pieces);
        if (!b->flows[i].is_over)
            fb_assign(b, &b->flows[i]);
    }
}

static inline bool fb_talk(struct flow_broker *b)
{
    bool has_talked = false;
    enum sel_peer_action action;
    while ((action = sel_holder_poll(b->holder, b->now_us, &b->out)) != SEL_PEER_NOTHING) {
        has_talked = true;
        if (action != SEL_PEER_SEND)
            continue;
        if (sel_wire_message_type(sel_buf_str(&b->out), NULL) == SEL_MESSAGE_DATA) {
            fb_hear_data(b, sel_buf_str(&b->out));
        } else {
            broker_end_hear(&b->end, &b->out);
            fb_welcome(b);
        }
    }
    while (b->end.session.is_open && sel_session_owes(&b->end.session) == SEL_OWES_NOW) {
        has_talked = true;
        sel_holder_receive(b->holder, broker_end_say(&b->end, false), b->now_us);
    }
    return has_talked;
}

/* The connection breaks; the dispatcher comes back, with another session or the same one. */
static inline void fb_break(struct flow_broker *b)
{
    sel_peer_broken(sel_holder_peer(b->holder), b->now_us);
    b->now_us += 10000000;
}

static inline bool fb_fails(const struct flow_broker *b, const struct fb_run *run, uint32_t attempt)
{
    char text[96];
    (void)snprintf(text, sizeof(text), "%s@%u", run->name, attempt);
    return fb_is_listed(b->fails, run->name) || fb_is_listed(b->fails, text);
}

/* One run of a task ends. */
static inline bool fb_work(struct flow_broker *b)
{
    if (b->pending_count == 0)
        return false;
    uint32_t i = b->seed ? (uint32_t)sel_prng_below(&b->prng, b->pending_count) : 0;
    struct fb_pending p = b->pending[i];
    memmove(b->pending + i, b->pending + i + 1, (--b->pending_count - i) * sizeof(*b->pending));
    struct fb_flow *f = &b->flows[p.flow];
    if (f->is_over || f->attempt != p.attempt)
        return true;
    bool failed = fb_fails(b, &f->runs[p.ordinal], f->attempt);
    struct sel_buf payload = {0};
    if (failed)
        sel_flow_put_end(b->system, true, SEL_STR("ValueError"), sel_str_c(f->runs[p.ordinal].name),
                         NULL, &payload);
    fb_end_run(b, p.flow, p.attempt, p.ordinal, failed, sel_buf_str(&payload));
    sel_buf_done(&payload);
    return true;
}

static inline bool fb_let_decide(struct flow_broker *b)
{
    uint64_t before = sel_mem_alloc_count();
    if (b->fail_at > 0)
        sel_mem_fail_at(b->fail_at);
    bool goes_on = sel_dispatcher_turn(b->dispatcher);
    sel_mem_fail_at(0);
    if (b->fail_at > 0) { /* -1: it has failed */
        b->fail_at -= (int64_t)(sel_mem_alloc_count() - before);
        b->fail_at = b->fail_at > 0 ? b->fail_at : -1;
    }
    return goes_on;
}

static inline bool fb_turn(struct flow_broker *b)
{
    bool goes_on = fb_talk(b);
    goes_on |= fb_let_decide(b);
    uint32_t before = b->decide_count;
    goes_on |= fb_talk(b);
    if (b->is_breaking) {
        b->is_breaking = false;
        fb_break(b);
        return true;
    }
    for (uint32_t n = before + 1; n <= b->decide_count; n++) {
        if (n == b->lose_at || (b->lose_every && n % b->lose_every == 0)) {
            if (b->tells_first)
                sel_holder_receive(b->holder, broker_end_say(&b->end, false), b->now_us);
            fb_break(b);
            return true;
        }
    }
    return goes_on;
}

/* Submits a root flow: `args` and `selective` are JSON, or NULL. */
static inline uint32_t fb_submit(struct flow_broker *b, const char *name, const char *args,
                                 const char *selective)
{
    uint32_t flow = fb_new_flow(b, (struct sel_id){UINT64_C(0x0190000000007000) + b->flow_count,
                                                   UINT64_C(0x8000000000000001)});
    struct fb_flow *f = &b->flows[flow];
    struct sel_buf bytes = {0};
    struct sel_value value;
    (void)snprintf(f->label, sizeof(f->label), "R%u", flow);
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    f->is_root = true;
    sel_wire_put_field(&f->fields, SEL_FIELD_TASK, sel_str_c(name));
    if (selective) {
        value = sel_test_json(&b->arena, selective);
        sel_value_encode(&value, &bytes);
        sel_wire_put_field(&f->fields, SEL_FIELD_SELECTIVE, sel_buf_str(&bytes));
        sel_buf_done(&bytes);
    }
    if (args) {
        value = sel_test_json(&b->arena, args);
        sel_value_encode(&value, &f->args);
    }
    if (b->end.session.is_open)
        fb_assign(b, f);
    return flow;
}

/* What the broker says when it has nothing else to do. */
static inline bool fb_say_acks(struct flow_broker *b)
{
    if (!b->end.session.is_open || sel_session_owes(&b->end.session) == SEL_OWES_NOTHING)
        return false;
    sel_holder_receive(b->holder, broker_end_say(&b->end, false), b->now_us);
    return true;
}

/* Until nothing more happens; time goes on when nothing else does. */
static inline void fb_run_all(struct flow_broker *b)
{
    for (uint32_t i = 0; i < 10000000; i++) {
        if (fb_turn(b) || fb_work(b) || fb_say_acks(b))
            continue;
        int64_t due_us = sel_dispatcher_due_us(b->dispatcher);
        int64_t peer_us = sel_holder_due_us(b->holder);
        if (sel_holder_peer(b->holder)->state != SEL_PEER_OPEN && peer_us < due_us)
            due_us = peer_us;
        if (due_us == INT64_MAX)
            return;
        if (due_us > b->now_us)
            b->now_us = due_us;
    }
    fail_msg("the flows go on for ever");
}

static inline bool fb_on_turn(void *arg)
{
    struct flow_broker *b = arg;
    int64_t now_us = sel_loop_now_us(b->loop);
    if (now_us > b->now_us)
        b->now_us = now_us;
    bool goes_on = fb_turn(b) || fb_work(b) || fb_say_acks(b);
    if (b->each_turn)
        b->each_turn(b);
    bool is_over = true;
    for (uint32_t i = 0; i < b->flow_count; i++)
        is_over &= b->flows[i].is_over;
    if (is_over && sel_dispatcher_running(b->dispatcher) == 0)
        sel_loop_stop(b->loop);
    return goes_on && !is_over;
}

/* With a loop: until all flows have ended. */
static inline void fb_run_loop(struct flow_broker *b)
{
    sel_loop_set_idle(b->loop, fb_on_turn, b);
    sel_loop_run(b->loop);
    sel_loop_set_idle(b->loop, NULL, NULL);
}

static inline int fb_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What was started, in a fixed order, then the result of flow 0; in `arena` of the broker. */
static inline const char *fb_story(struct flow_broker *b)
{
    struct sel_buf text = {0};
    qsort(b->lines, b->line_count, sizeof(*b->lines), fb_compare);
    for (uint32_t i = 0; i < b->line_count; i++)
        sel_buf_printf(&text, "%s\n", b->lines[i]);
    sel_buf_printf(&text, "%u %s\n", b->flows[0].outcome,
                   fb_label_ids(b, fb_json(b, sel_buf_str(&b->flows[0].result))));
    const char *story = sel_arena_strdup(&b->arena, sel_str_c(sel_buf_cstr(&text)));
    sel_buf_done(&text);
    return story;
}

#endif
