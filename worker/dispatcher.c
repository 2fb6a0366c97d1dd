#include "worker/dispatcher.h"

#include <string.h>
#include <time.h>

#include "core/mem.h"
#include "core/prng.h"
#include "worker/dispatcher_private.h"

#define SCRATCH_SIZE 16384u /* the lists of a thousand nodes do not fit, and need not */

/* ---- clocks ---- */

int64_t sel_dispatcher_now_us(const struct sel_dispatcher *d)
{
    return d->ops.now_us ? d->ops.now_us(d->options.ctx) : sel_loop_now_us(d->options.loop);
}

static int64_t unix_ms(void *ctx)
{
    const struct sel_dispatcher *d = ctx;
    struct timespec now;
    if (d->ops.unix_ms)
        return d->ops.unix_ms(d->options.ctx);
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- saying ---- */

static struct sel_wire_item item_of(const struct sel_dispatched *flow, uint8_t type)
{
    return (struct sel_wire_item){.type = type,
                                  .id = flow->run.state.id,
                                  .priority = SEL_WIRE_PRIORITY,
                                  .handle = flow->handle,
                                  .try_count = flow->try_count,
                                  .delivery = flow->delivery};
}

/* A record may not be larger than the broker takes. */
static size_t piece_size(const struct sel_dispatcher *d)
{
    uint64_t max = sel_holder_peer(d->options.holder)->welcome.record_max;
    return max && max - SEL_WIRE_RECORD_SIZE < SEL_DECISION_PIECE
               ? (size_t)(max - SEL_WIRE_RECORD_SIZE)
               : SEL_DECISION_PIECE;
}

/* How far it came: `payload.n` and *ret_done, or less. */
static size_t put_pieces(struct sel_dispatched *flow, uint8_t type, uint32_t code,
                         struct sel_str payload, size_t at, bool *ret_done)
{
    struct sel_dispatcher *d = flow->d;
    size_t most = piece_size(d);
    *ret_done = false;
    do {
        size_t n = payload.n - at < most ? payload.n - at : most;
        struct sel_wire_item item = item_of(flow, type);
        item.code = code;
        item.flags = at + n < payload.n ? SEL_ITEM_MORE : 0;
        item.payload = (struct sel_str){payload.p + at, n};
        if (sel_holder_put_flow(d->options.holder, &item) < 0)
            return at; /* no room, or no memory: later */
        d->turn_bytes += n;
        at += n;
    } while (at < payload.n);
    *ret_done = true;
    return at;
}

static void keep_unsent(struct sel_dispatched *flow, const struct sel_dispatch_owed *owed,
                        struct sel_str rest)
{
    struct sel_dispatcher *d = flow->d;
    SEL_ASSERT(flow->owed_count < SEL_COUNT(flow->owed));
    sel_buf_put_str(&flow->unsent, rest);
    flow->owed[flow->owed_count] = *owed;
    flow->owed[flow->owed_count++].end = flow->unsent.n;
    if (flow->is_unsent)
        return;
    flow->is_unsent = true;
    flow->next_unsent = NULL;
    if (d->last_unsent)
        d->last_unsent->next_unsent = flow;
    else
        d->first_unsent = flow;
    d->last_unsent = flow;
    d->stats.held_back++;
}

void sel_dispatcher_send(struct sel_dispatched *flow, uint8_t type, uint32_t code,
                         struct sel_str payload)
{
    bool done = false;
    size_t at = 0;
    struct sel_dispatch_owed owed = {.type = type, .code = code, .traces = flow->traces.n};
    SEL_ASSERT(payload.n > 0);
    for (uint32_t i = 0; i < flow->owed_count; i++)
        owed.traces -= flow->owed[i].traces;
    if (!flow->is_unsent)
        at = put_pieces(flow, type, code, payload, 0, &done);
    if (done)
        sel_dispatch_traces_said(flow, owed.traces);
    else
        keep_unsent(flow, &owed, (struct sel_str){payload.p + at, payload.n - at});
}

/* What could not even be kept: the flow goes to somebody else, who has room. */
static void give_back_unsent(struct sel_dispatched *flow)
{
    bool is_over = flow->is_over;
    flow->is_over = false;
    sel_engine_log(flow->run.hub->engine, SEL_LOG_ERROR,
                   "flow '%.*s' is given back: out of memory%s", SEL_STR_ARG(flow->run.flow->name),
                   is_over ? " at its end" : "");
    sel_dispatcher_give_back(flow, SEL_RETURN_NO_RESOURCES, SEL_STR("out of memory"));
}

/* false: there is no room yet. */
static bool pay_flow(struct sel_dispatched *flow)
{
    while (flow->owed_count > 0) {
        struct sel_dispatch_owed owed = flow->owed[0];
        struct sel_str payload = {(const char *)flow->unsent.p, owed.end};
        bool done;
        flow->unsent_at = put_pieces(flow, owed.type, owed.code, payload, flow->unsent_at, &done);
        if (!done)
            return false;
        sel_dispatch_traces_said(flow, owed.traces);
        flow->owed[0] = flow->owed[1];
        flow->owed_count--;
    }
    flow->unsent_at = 0;
    flow->is_unsent = false;
    sel_buf_done(&flow->unsent);
    return true;
}

static void pay_unsent(struct sel_dispatcher *d)
{
    while (d->first_unsent) {
        struct sel_dispatched *flow = d->first_unsent;
        if (sel_buf_error(&flow->unsent) < 0) {
            give_back_unsent(flow);
            continue;
        }
        if (!pay_flow(flow))
            return;
        d->first_unsent = flow->next_unsent;
        if (!d->first_unsent)
            d->last_unsent = NULL;
        if (flow->is_over)
            sel_dispatcher_forget(flow);
        else if (flow->run.deciding || flow->run.input_count > 0 || flow->run.canceled)
            sel_hub_make_ready(&flow->run);
    }
}

/* ---- returning ---- */

static bool put_return(struct sel_dispatcher *d, struct sel_dispatch_return *ret)
{
    struct sel_wire_item item = ret->item;
    struct sel_str texts = sel_buf_str(&ret->texts);
    if (sel_buf_error(&ret->texts) < 0) {
        texts.n = 0; /* only people miss it */
        ret->limit_key_size = 0;
    }
    item.limit_key = (struct sel_str){texts.p, ret->limit_key_size};
    item.payload = (struct sel_str){texts.p + ret->limit_key_size, texts.n - ret->limit_key_size};
    return sel_holder_put_flow(d->options.holder, &item) == 0;
}

static void owe_return(struct sel_dispatcher *d, struct sel_dispatch_return *take_ret)
{
    if (!sel_mem_grow(&d->returns, &d->return_cap, (uint64_t)d->return_count + 1,
                      sizeof(*d->returns))) {
        /* The broker takes it back with the session, at the latest. */
        sel_buf_done(&take_ret->texts);
        return;
    }
    d->returns[d->return_count++] = *take_ret;
}

void sel_dispatcher_return(struct sel_dispatcher *d, const struct sel_wire_item *of, uint32_t code,
                           struct sel_str text, struct sel_str limit_key, uint64_t countdown_us)
{
    struct sel_dispatch_return ret = {.item = {.type = SEL_RECORD_RETURN,
                                               .id = of->id,
                                               .priority = SEL_WIRE_PRIORITY,
                                               .code = code,
                                               .handle = of->handle,
                                               .try_count = of->try_count,
                                               .delivery = of->delivery,
                                               .countdown_us = countdown_us},
                                      .limit_key_size = limit_key.n};
    if (text.n > SEL_HOLDER_TEXT_MAX)
        text.n = sel_str_utf8_prefix((struct sel_str){text.p, SEL_HOLDER_TEXT_MAX});
    sel_buf_put_str(&ret.texts, limit_key);
    sel_buf_put_str(&ret.texts, text);
    d->stats.returned++;
    if (d->return_count > 0 || !put_return(d, &ret))
        owe_return(d, &ret);
    else
        sel_buf_done(&ret.texts);
}

static void pay_returns(struct sel_dispatcher *d)
{
    uint32_t paid = 0;
    while (paid < d->return_count && put_return(d, &d->returns[paid]))
        sel_buf_done(&d->returns[paid++].texts);
    if (paid == 0)
        return;
    d->return_count -= paid;
    memmove(d->returns, d->returns + paid, d->return_count * sizeof(*d->returns));
}

void sel_dispatcher_give_back(struct sel_dispatched *flow, uint32_t code, struct sel_str text)
{
    struct sel_wire_item of = item_of(flow, SEL_RECORD_RETURN);
    sel_dispatcher_return(flow->d, &of, code, text, (struct sel_str){0}, 0);
    sel_dispatcher_forget(flow);
}

/* ---- turns ---- */

static void ring_alarms(struct sel_dispatcher *d)
{
    int64_t now_us = sel_dispatcher_now_us(d);
    struct sel_timer *timer;
    while ((timer = sel_timers_take(&d->timers, now_us))) {
        struct sel_dispatched *flow =
            (struct sel_dispatched *)(void *)((char *)timer -
                                              offsetof(struct sel_dispatched, alarm));
        struct sel_flow_run *run = sel_hub_flow_ref(&flow->run);
        sel_hub_wake_flow(run);
        sel_hub_flow_unref(run);
    }
}

static void on_loop_timer(struct sel_loop *loop, struct sel_timer *timer)
{
    (void)loop, (void)timer; /* the turn that follows looks at what is due */
}

static void set_loop_timer(struct sel_dispatcher *d)
{
    struct sel_loop *loop = d->options.loop;
    int64_t at_us = sel_timers_next_us(&d->timers);
    if (!loop)
        return;
    bool is_set = d->loop_timer.heap_index != UINT32_MAX && d->loop_timer.at_us == at_us;
    if (at_us != INT64_MAX && (is_set || sel_loop_timer_start(loop, &d->loop_timer, at_us) == 0))
        return;
    sel_loop_timer_stop(loop, &d->loop_timer); /* without memory for it the next turn tries again */
}

/* Between two steps of a decision a flow can go as well: whoever gets it goes on there. */
static bool is_at_rest(const struct sel_dispatched *flow)
{
    return !flow->run.fetching && !flow->is_unsent && !flow->is_over;
}

static void give_back_resting(struct sel_dispatcher *d)
{
    struct sel_dispatched *next;
    for (struct sel_dispatched *flow = d->all; flow; flow = next) {
        next = flow->next;
        if (is_at_rest(flow))
            sel_dispatcher_give_back(flow, SEL_RETURN_NOT_BEGUN, SEL_STR(""));
    }
}

bool sel_dispatcher_turn(struct sel_dispatcher *d)
{
    d->turn_bytes = 0;
    bool has_more = sel_dispatch_traces_emit(d, true);
    pay_returns(d);
    pay_unsent(d);
    if (d->is_draining)
        give_back_resting(d);
    ring_alarms(d);
    sel_hub_turn(&d->hub);
    set_loop_timer(d);
    d->turn_bytes = 0;
    return sel_hub_can_go_on(&d->hub) || has_more;
}

int64_t sel_dispatcher_due_us(const struct sel_dispatcher *d)
{
    return sel_timers_next_us(&d->timers);
}

/* ---- leaving ---- */

void sel_dispatcher_drain(struct sel_dispatcher *d)
{
    d->is_draining = true;
    give_back_resting(d);
}

/* Whoever gets a flow next goes on where its last DECIDE left it: nothing is lost by going. */
void sel_dispatcher_cancel_all(struct sel_dispatcher *d)
{
    struct sel_dispatched *next;
    d->is_draining = true;
    for (struct sel_dispatched *flow = d->all; flow; flow = next) {
        next = flow->next;
        if (!flow->is_over && !flow->is_unsent)
            sel_dispatcher_give_back(flow, SEL_RETURN_NOT_BEGUN, SEL_STR(""));
    }
}

bool sel_dispatcher_is_empty(const struct sel_dispatcher *d)
{
    return d->stats.active == 0 && d->return_count == 0;
}

uint32_t sel_dispatcher_running(const struct sel_dispatcher *d)
{
    return (uint32_t)d->hub.fetching;
}

void sel_dispatcher_get_stats(const struct sel_dispatcher *d, struct sel_dispatcher_stats *ret)
{
    *ret = d->stats;
}

static void drop_returns(struct sel_dispatcher *d)
{
    for (uint32_t i = 0; i < d->return_count; i++)
        sel_buf_done(&d->returns[i].texts);
    d->return_count = 0;
}

void sel_dispatcher_lost(struct sel_dispatcher *d)
{
    sel_dispatch_traces_lose(d);
    while (d->all) {
        d->stats.lost++;
        sel_dispatcher_forget(d->all);
    }
    drop_returns(d);
    for (uint32_t i = 0; i < d->hub.system->task_count + d->hub.system->flow_count; i++)
        d->queues[i] = 0;
    d->hub.ids.shard = (uint16_t)(sel_holder_peer(d->options.holder)->welcome.shard & 0xfff);
}

/* ---- life ---- */

/* Which flows cannot be decided here. */
static int find_missing(struct sel_dispatcher *d)
{
    const struct sel_system *s = d->hub.system;
    d->missing = SEL_ARENA_NEW_ARRAY(&d->arena, char *, s->flow_count + 1);
    d->descriptions = SEL_ARENA_NEW_ARRAY(&d->arena, struct sel_str, s->flow_count + 1);
    if (!d->missing || !d->descriptions)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < s->flow_count && !d->ops.answer; i++) {
        struct sel_error err = {0};
        char text[SEL_ERROR_TEXT_MAX + 128];
        if (sel_engine_check_flow(d->options.engine, &s->flows[i], &err) == 0)
            continue;
        d->missing[i] =
            sel_arena_strdup(&d->arena, sel_str_c(sel_error_format(&err, text, sizeof(text))));
        if (!d->missing[i])
            return SEL_ENOMEM;
    }
    return 0;
}

static void seed_ids(struct sel_dispatcher *d)
{
    struct sel_prng prng = {d->options.seed};
    d->hash_factor = sel_prng_next(&prng) | 1;
    d->hub.ids.incarnation = (uint32_t)sel_prng_next(&prng) & 0x3fffff;
    d->hub.ids.counter = sel_prng_next(&prng) & ((UINT64_C(1) << 40) - 1);
    d->hub.prng.state = sel_prng_next(&prng);
}

static int fill(struct sel_dispatcher *d)
{
    const struct sel_system *s = d->options.engine->system;
    d->hub_ops = sel_dispatcher_hub_ops;
    if (!d->ops.answer)
        d->hub_ops.answer = NULL;
    d->hub.ops = &d->hub_ops;
    d->hub.run_size = sizeof(struct sel_dispatched);
    d->hub.flow_nodes_max =
        d->options.flow_nodes_max ? d->options.flow_nodes_max : SEL_DISPATCHER_FLOW_NODES_DEFAULT;
    d->hub.unix_ms = unix_ms;
    d->hub.clock_ctx = d;
    d->loop_timer = (struct sel_timer)SEL_TIMER_INIT;
    d->loop_timer.fn = on_loop_timer;
    d->blobs.combination = UINT64_MAX;
    /* What one call needs fits into its first block, or the heap would be asked at each end of a
     * flow: a reset keeps no more than the largest block. */
    if (!sel_arena_alloc_raw(&d->scratch, SCRATCH_SIZE, 1))
        return SEL_ENOMEM;
    sel_arena_reset(&d->scratch);
    seed_ids(d);
    d->queues = sel_mem_zalloc(sizeof(*d->queues) * ((size_t)s->task_count + s->flow_count + 1));
    int r = sel_hub_open(&d->hub, d->options.engine, d->options.loop);
    if (r < 0 || !d->queues)
        return SEL_ENOMEM;
    return find_missing(d);
}

int sel_dispatcher_new(const struct sel_dispatcher_options *options, struct sel_dispatcher **ret)
{
    struct sel_dispatcher *d = SEL_NEW(struct sel_dispatcher);
    if (!d)
        return SEL_ENOMEM;
    d->options = *options;
    if (options->ops)
        d->ops = *options->ops;
    SEL_ASSERT(options->loop || (d->ops.now_us && d->ops.unix_ms && d->ops.answer));
    int r = fill(d);
    if (r < 0) {
        (void)sel_dispatcher_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

struct sel_dispatcher *sel_dispatcher_free(struct sel_dispatcher *d)
{
    if (!d)
        return NULL;
    SEL_ASSERT(d->hub.fetching == 0);
    sel_dispatch_traces_lose(d);
    if (d->options.loop)
        sel_loop_timer_stop(d->options.loop, &d->loop_timer);
    while (d->all)
        sel_dispatcher_forget(d->all);
    sel_hub_close(&d->hub);
    drop_returns(d);
    sel_dispatch_plans_done(d);
    sel_decision_writer_done(&d->writer);
    struct sel_buf *bufs[] = {&d->payload, &d->events, &d->result, &d->fields, &d->traces.bytes};
    for (size_t i = 0; i < SEL_COUNT(bufs); i++)
        sel_buf_done(bufs[i]);
    sel_timers_done(&d->timers);
    sel_arena_done(&d->arena);
    sel_arena_done(&d->scratch);
    sel_mem_free(d->returns);
    sel_mem_free(d->queues);
    sel_mem_free(d->places);
    return sel_mem_free(d);
}
