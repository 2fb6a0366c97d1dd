/* Records of the broker about flows: assignment, history, ends of runs, cancelling. */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/suggest.h"
#include "core/value.h"
#include "proto/le.h"
#include "worker/dispatcher_private.h"
#include "worker/flow_codec.h"

#define NAME_MAX_TOLD 64 /* bytes of a foreign name in a text for people */
#define PLACES_MIN 256u
#define HISTORY_MAX ((size_t)1 << 30) /* pieces that are put together */

/* ---- the table by id ---- */

static uint32_t place_of(const struct sel_dispatcher *d, struct sel_id id)
{
    uint64_t x = id.hi * d->hash_factor + id.lo;
    x ^= x >> 32;
    return (uint32_t)((x * d->hash_factor) >> 32) & (d->place_count - 1);
}

struct sel_dispatched *sel_dispatcher_find(const struct sel_dispatcher *d, struct sel_id id)
{
    struct sel_dispatched *flow = d->place_count ? d->places[place_of(d, id)] : NULL;
    while (flow && !sel_id_eq(flow->run.state.id, id))
        flow = flow->next_in_place;
    return flow;
}

static bool grow_table(struct sel_dispatcher *d)
{
    uint32_t count = d->place_count ? d->place_count * 2 : PLACES_MIN;
    if (d->stats.active < d->place_count)
        return true;
    struct sel_dispatched **places = sel_mem_zalloc(sizeof(struct sel_dispatched *) * count);
    if (!places)
        return d->place_count > 0; /* slower, but it works */
    sel_mem_free(d->places);
    d->places = places;
    d->place_count = count;
    for (struct sel_dispatched *flow = d->all; flow; flow = flow->next) {
        struct sel_dispatched **place = &places[place_of(d, flow->run.state.id)];
        flow->next_in_place = *place;
        *place = flow;
    }
    return true;
}

static void add_flow(struct sel_dispatcher *d, struct sel_dispatched *flow)
{
    struct sel_dispatched **place = &d->places[place_of(d, flow->run.state.id)];
    flow->next_in_place = *place;
    *place = flow;
    flow->next = d->all;
    if (d->all)
        d->all->prev = flow;
    d->all = flow;
    d->stats.active++;
}

static void remove_flow(struct sel_dispatcher *d, struct sel_dispatched *flow)
{
    struct sel_dispatched **place = &d->places[place_of(d, flow->run.state.id)];
    while (*place != flow)
        place = &(*place)->next_in_place;
    *place = flow->next_in_place;
    if (flow->prev)
        flow->prev->next = flow->next;
    else
        d->all = flow->next;
    if (flow->next)
        flow->next->prev = flow->prev;
    d->stats.active--;
}

static void remove_unsent(struct sel_dispatcher *d, struct sel_dispatched *flow)
{
    struct sel_dispatched **at = &d->first_unsent;
    struct sel_dispatched *before = NULL;
    if (!flow->is_unsent)
        return;
    while (*at != flow) {
        before = *at;
        at = &(*at)->next_unsent;
    }
    *at = flow->next_unsent;
    if (d->last_unsent == flow)
        d->last_unsent = before;
    flow->is_unsent = false;
}

void sel_dispatcher_forget(struct sel_dispatched *flow)
{
    struct sel_dispatcher *d = flow->d;
    sel_timers_stop(&d->timers, &flow->alarm);
    remove_unsent(d, flow);
    remove_flow(d, flow);
    sel_hub_drop_run(&flow->run);
    sel_hub_flow_unref(&flow->run);
}

/* ---- what is not taken ---- */

static void return_unknown(struct sel_dispatcher *d, const struct sel_wire_item *item)
{
    const struct sel_system *system = d->hub.system;
    struct sel_suggest suggest;
    struct sel_str similar, name = item->task;
    char text[512];
    int n = name.n < NAME_MAX_TOLD ? (int)name.n : NAME_MAX_TOLD;
    sel_suggest_init(&suggest, name);
    for (uint32_t i = 0; i < system->flow_count; i++)
        sel_suggest_offer(&suggest, system->flows[i].name);
    if (sel_suggest_get(&suggest, &similar))
        (void)snprintf(text, sizeof(text), "no flow is called '%.*s'; did you mean '%.*s'?", n,
                       name.p, SEL_STR_ARG(similar));
    else
        (void)snprintf(text, sizeof(text), "no flow is called '%.*s'", n, name.p);
    struct sel_str told = sel_str_c(text);
    told.n = sel_str_utf8_prefix(told);
    sel_dispatcher_return(d, item, SEL_RETURN_UNKNOWN_TASK, told, (struct sel_str){0}, 0);
}

static void return_with(struct sel_dispatcher *d, const struct sel_wire_item *item, uint32_t code,
                        const char *text)
{
    sel_dispatcher_return(d, item, code, sel_str_c(text), (struct sel_str){0}, 0);
}

static bool is_msgpack(struct sel_str content_type)
{
    return content_type.n == 0 || sel_str_eq_c(content_type, "application/msgpack") ||
           sel_str_eq_c(content_type, "application/vnd.msgpack") ||
           sel_str_eq_c(content_type, "application/x-msgpack");
}

/* ---- assignment ---- */

/* What a TASK of a flow says, once it has been looked at. */
struct assignment {
    const struct sel_wire_item *item;
    const struct sel_flow_def *flow;
    struct sel_wire_run run;
    bool is_root;
    struct sel_str args, parents;
    struct sel_dispatch_plan *plan;
    const char *error_class; /* it is to fail at once, or NULL */
    struct sel_error err;
};

static bool divide_payload(struct assignment *a)
{
    const struct sel_str payload = a->item->payload;
    a->is_root = !sel_wire_find_run(a->item->fields, &a->run);
    uint32_t parents_size = a->is_root ? 0 : a->run.parents_size;
    if (parents_size > payload.n)
        return false;
    a->args = (struct sel_str){payload.p, payload.n - parents_size};
    a->parents = (struct sel_str){payload.p + a->args.n, parents_size};
    if (a->args.n == 0)
        a->args = (struct sel_str){(const char *)sel_value_null_bytes, 1};
    return true;
}

static bool is_throttled(const struct assignment *a)
{
    return a->is_root && a->flow->throttle_us > 0 && a->item->try_count == 0 &&
           !(a->item->flags & (SEL_ITEM_THROTTLED | SEL_ITEM_HISTORY));
}

/* 0, or < 0: it has been returned. */
static int check_assignment(struct sel_dispatcher *d, struct assignment *a)
{
    const struct sel_wire_item *item = a->item;
    a->flow = sel_system_find_flow(d->hub.system, item->task);
    if (d->is_draining) {
        return_with(d, item, SEL_RETURN_NOT_BEGUN, "");
    } else if (!a->flow) {
        return_unknown(d, item);
    } else if (d->missing[a->flow->index]) {
        return_with(d, item, SEL_RETURN_NO_RESOURCES, d->missing[a->flow->index]);
    } else if (!divide_payload(a)) {
        return_with(d, item, SEL_RETURN_NO_RESOURCES, "the payload is shorter than its parents");
    } else if (is_throttled(a)) {
        sel_dispatcher_return(d, item, SEL_RETURN_THROTTLED, SEL_STR(""), a->flow->name,
                              (uint64_t)sel_engine_delay_us(d->hub.engine, a->flow->throttle_us));
    } else {
        return 0;
    }
    return SEL_EREQUEST;
}

/* 0; < 0: it has been returned. */
static int find_plan(struct sel_dispatcher *d, struct assignment *a)
{
    const struct sel_wire_item *item = a->item;
    int r = item->selective.n
                ? sel_dispatch_plan_get(d, a->flow, item->selective, &a->plan, &a->err)
                : 0;
    bool has_begun = item->flags & SEL_ITEM_HISTORY;
    if (r == SEL_ENOPATH && !has_begun)
        a->error_class = "SelectiveNoPathError";
    else if (r == SEL_EFORMAT && !has_begun)
        a->error_class = "SelectiveError";
    else if (r < 0)
        return_with(d, item, SEL_RETURN_NO_RESOURCES,
                    a->err.text[0] ? a->err.text : sel_error_text(r));
    return a->error_class ? 0 : r;
}

static struct sel_id root_of(const struct assignment *a)
{
    struct sel_str field = sel_wire_find_field(a->item->fields, SEL_FIELD_ROOT);
    return field.n == 16 && !a->is_root ? sel_le_get_id(field.p) : a->item->id;
}

/* The timers of a dispatcher are looked at in its turns. */
static void on_alarm(struct sel_loop *loop, struct sel_timer *timer)
{
    (void)loop, (void)timer;
}

static struct sel_dispatched *new_flow(struct sel_dispatcher *d, const struct assignment *a,
                                       struct sel_parents *take_parents)
{
    struct sel_hub_run_options options = {.flow = a->flow,
                                          .id = a->item->id,
                                          .attempt = a->item->try_count,
                                          .args = a->args,
                                          .plan = a->plan ? a->plan->plan : NULL};
    struct sel_flow_run *run = grow_table(d) ? sel_hub_new_run(&d->hub, &options) : NULL;
    if (!run)
        return NULL;
    struct sel_dispatched *flow = sel_dispatched_of(run);
    run->parents = take_parents;
    run->keep = !a->is_root && (a->run.flags & SEL_RUN_KEEP);
    flow->d = d;
    flow->handle = a->item->handle;
    flow->try_count = a->item->try_count;
    flow->delivery = a->item->delivery;
    flow->is_root = a->is_root;
    flow->root = root_of(a);
    flow->plan = a->plan;
    flow->alarm = (struct sel_timer)SEL_TIMER_INIT;
    flow->alarm.fn = on_alarm;
    add_flow(d, flow);
    return flow;
}

static void begin_flow(struct sel_dispatched *flow, struct assignment *a)
{
    if (a->error_class) {
        sel_dispatcher_refuse(flow, a->error_class, a->err.text);
    } else if (a->item->flags & SEL_ITEM_HISTORY) {
        flow->is_gathering = true;
    } else {
        if (flow->is_root && flow->try_count == 0)
            sel_hub_trace_schedule(&flow->run);
        flow->run.to_start = true;
        sel_hub_make_ready(&flow->run);
    }
}

static void take_task(struct sel_dispatcher *d, const struct sel_wire_item *item)
{
    struct assignment a = {.item = item};
    struct sel_parents *parents = NULL;
    struct sel_dispatched *old = sel_dispatcher_find(d, item->id);
    d->stats.taken++;
    if (old) /* the broker knows what it gives to whom: that was another epoch */
        sel_dispatcher_forget(old);
    if (check_assignment(d, &a) < 0 || find_plan(d, &a) < 0)
        return;
    if (!a.error_class && !is_msgpack(item->content_type)) {
        a.error_class = "ContentTypeError";
        (void)sel_error_set(&a.err, SEL_EREQUEST, (struct sel_pos){0},
                            "the arguments are not msgpack, and flows take nothing else");
    }
    int r = sel_flow_take_parents(d->hub.system, a.parents, &parents, &a.err);
    struct sel_dispatched *flow = r == 0 ? new_flow(d, &a, parents) : NULL;
    if (flow) {
        begin_flow(flow, &a);
        return;
    }
    sel_parents_unref(parents);
    sel_dispatch_plan_unref(a.plan);
    return_with(d, item, SEL_RETURN_NO_RESOURCES, r < 0 ? a.err.text : "out of memory");
}

/* ---- history ---- */

static void cannot_read(struct sel_dispatched *flow, int code, const struct sel_error *err)
{
    const char *text = err->text[0] ? err->text : sel_error_text(code);
    sel_engine_log(flow->run.hub->engine, SEL_LOG_WARNING, "flow '%.*s' cannot be taken over: %s",
                   SEL_STR_ARG(flow->run.flow->name), text);
    sel_dispatcher_give_back(flow, SEL_RETURN_NO_RESOURCES, sel_str_c(text));
}

static int take_history(struct sel_dispatched *flow, uint8_t type, uint32_t code,
                        struct sel_str payload, struct sel_error *err)
{
    struct sel_str rest;
    if (type == SEL_RECORD_EVENTS && code != flow->number + 1)
        return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0},
                             "decision %u follows decision %u", code, flow->number);
    if (type == SEL_RECORD_STATE && flow->number > 0)
        return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0},
                             "a state comes after what decision %u left", flow->number);
    int r = sel_flow_take_history(flow->run.hub->system, flow->run.flow, payload, &rest, err);
    if (r < 0)
        return r;
    flow->is_described |= r > 0;
    r = type == SEL_RECORD_STATE ? sel_dispatcher_take_state(flow, rest)
                                 : sel_hub_replay(&flow->run, rest);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "what decision %u left: %s", code,
                             sel_error_text(r));
    flow->number = code;
    flow->since_state_count = type == SEL_RECORD_STATE ? 0 : flow->since_state_count + 1;
    flow->since_state_bytes = type == SEL_RECORD_STATE ? 0 : flow->since_state_bytes + payload.n;
    return 0;
}

/* Puts pieces together. */
static void take_piece(struct sel_dispatched *flow, const struct sel_wire_item *item)
{
    struct sel_str payload = item->payload;
    struct sel_error err = {0};
    int r = 0;
    if (flow->pieces.n && (item->type != flow->pieces_type || item->code != flow->pieces_code))
        r = sel_error_set(&err, SEL_EFORMAT, (struct sel_pos){0},
                          "the pieces of two records are mixed");
    if (r == 0 && (flow->pieces.n || (item->flags & SEL_ITEM_MORE))) {
        flow->pieces.limit = HISTORY_MAX;
        sel_buf_put_str(&flow->pieces, payload);
        flow->pieces_type = item->type;
        flow->pieces_code = item->code;
        payload = sel_buf_str(&flow->pieces);
        r = sel_buf_error(&flow->pieces);
    }
    if (r == 0 && (item->flags & SEL_ITEM_MORE))
        return;
    if (r == 0)
        r = take_history(flow, item->type, item->code, payload, &err);
    sel_buf_done(&flow->pieces);
    if (r < 0)
        cannot_read(flow, r, &err);
}

/* All is known: it goes on where the other stood, in the middle of a decision too. */
static void take_live(struct sel_dispatched *flow, const struct sel_wire_item *item)
{
    struct sel_flow_run *run = &flow->run;
    struct sel_error err = {0};
    if (item->code != flow->number || run->state.phase > SEL_PHASE_SETTLE) {
        (void)sel_error_set(&err, SEL_EFORMAT, (struct sel_pos){0},
                            "%u decisions were told of, the last is %u", flow->number, item->code);
        cannot_read(flow, SEL_EFORMAT, &err);
        return;
    }
    flow->is_gathering = false;
    flow->args_told = run->state.args.n > 0;
    flow->d->stats.taken_over++;
    run->to_start = run->state.phase == SEL_PHASE_NEW;
    run->deciding = !run->to_start;
    sel_hub_make_ready(run);
}

/* ---- ends of runs ---- */

static int note_child(struct sel_dispatched *flow, uint32_t ordinal, struct sel_str bytes,
                      struct sel_error *err)
{
    struct sel_flow_run *run = &flow->run;
    const struct sel_state_child *child = sel_state_child(&run->state, ordinal);
    struct sel_ended_flow *ended;
    if (!child || bytes.n == 0)
        return 0;
    if (!sel_hub_grow_children(run))
        return SEL_ENOMEM;
    int r = sel_flow_take_ended(run->hub->system, bytes, &ended, err);
    if (r < 0)
        return r;
    struct sel_ended_flow **place = &run->children[child - run->state.children];
    sel_ended_flow_unref(*place);
    *place = ended;
    if (bytes.n > flow->kept_max)
        flow->kept_max = bytes.n;
    return 0;
}

/* What the payload of an ENDED tells, for fallbacks, parents and traces. */
static int note_end(struct sel_dispatched *flow, uint32_t ordinal, const struct sel_wire_item *item,
                    struct sel_error *err)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_flow_run_end end;
    int r = sel_flow_take_end(item->payload, &d->scratch, &end);
    if (r == 0 && item->code != SEL_OUTCOME_SUCCESS && end.error_class.n + end.message.n)
        r = sel_run_failures_add(&flow->run.failures, ordinal, end.error_class, end.message);
    if (r == 0)
        r = note_child(flow, ordinal, end.ended, err);
    sel_arena_reset(&d->scratch);
    return r;
}

static void take_ended(struct sel_dispatched *flow, const struct sel_wire_item *item)
{
    struct sel_flow_run *run = &flow->run;
    struct sel_error err = {0};
    bool failed = item->code != SEL_OUTCOME_SUCCESS;
    bool is_consumed = item->flags & SEL_ITEM_CONSUMED;
    if (item->handle >= run->state.run_count)
        return; /* nothing of ours */
    uint32_t ordinal = (uint32_t)item->handle;
    if (!is_consumed && sel_state_run_status(&run->state, ordinal) != SEL_RUN_ACTIVE)
        return; /* was told before */
    int r = note_end(flow, ordinal, item, &err);
    if (r < 0) {
        cannot_read(flow, r, &err);
        return;
    }
    if (is_consumed)
        return;
    flow->d->stats.nodes_failed += failed;
    flow->d->stats.nodes_finished += !failed;
    bool waits = flow->is_gathering || flow->is_unsent; /* LIVE, or what is unsent, wakes it */
    bool was_asleep = run->asleep;
    run->asleep |= waits;
    sel_hub_node_ended(run, ordinal, failed);
    run->asleep = was_asleep;
}

/* ---- cancelling ---- */

static void take_cancel(struct sel_dispatched *flow, const struct sel_wire_item *item)
{
    if (item->code == SEL_CANCEL_ENDED) {
        char id[SEL_ID_TEXT_SIZE];
        sel_engine_log(flow->run.hub->engine, SEL_LOG_WARNING,
                       "flow '%.*s' (%s) is taken away: it has ended elsewhere, or the broker "
                       "refused what was decided",
                       SEL_STR_ARG(flow->run.flow->name), sel_id_format(item->id, id));
        sel_dispatcher_forget(flow);
        return;
    }
    if (flow->is_gathering)
        flow->run.canceled = true;
    else
        sel_hub_cancel_run(&flow->run);
}

/* ---- all of them ---- */

static bool is_taken_away(const struct sel_wire_item *item)
{
    return item->type == SEL_RECORD_CANCEL && item->code == SEL_CANCEL_ENDED;
}

/* Whether the record speaks of what we have. ENDED has the run in place of the handle. */
static bool is_ours(const struct sel_dispatched *flow, const struct sel_wire_item *item)
{
    if (item->delivery != flow->delivery || (flow->is_over && !is_taken_away(item)))
        return false;
    if (item->type != SEL_RECORD_ENDED && item->handle != flow->handle)
        return false;
    return item->type == SEL_RECORD_CANCEL || item->try_count == flow->try_count;
}

void sel_dispatcher_take(struct sel_dispatcher *d, const struct sel_wire_item *item)
{
    if (item->type == SEL_RECORD_TASK) {
        take_task(d, item);
        return;
    }
    struct sel_dispatched *flow = sel_dispatcher_find(d, item->id);
    if (is_taken_away(item)) /* its end may have been said already */
        sel_dispatch_traces_refused(d, item->id);
    if (!flow || !is_ours(flow, item))
        return;
    (void)sel_hub_flow_ref(&flow->run); /* it may be forgotten meanwhile */
    switch (item->type) {
    case SEL_RECORD_STATE:
    case SEL_RECORD_EVENTS:
        if (flow->is_gathering)
            take_piece(flow, item);
        break;
    case SEL_RECORD_LIVE:
        if (flow->is_gathering)
            take_live(flow, item);
        break;
    case SEL_RECORD_ENDED:
        take_ended(flow, item);
        break;
    case SEL_RECORD_CANCEL:
        take_cancel(flow, item);
        break;
    default:
        break;
    }
    sel_hub_flow_unref(&flow->run);
}
