/* Trace events of flows wait until the broker has what they tell of.
 *
 * A flow keeps its events until a record takes them along. Then they stand in one line with those
 * of all others, behind the number of that record, and are emitted when it is settled. In a session
 * that is lost what was not settled was not decided: whoever gets the flow next decides and traces
 * it. (What the broker had taken while the word of it was lost is traced by nobody.) */
#include <string.h>

#include "core/mem.h"
#include "worker/dispatcher_private.h"

#define KEPT_BYTES_MAX ((size_t)64 << 20) /* then nothing more is decided */
#define EMIT_BYTES ((size_t)256 << 10)    /* in a turn, about */

/* Events of one flow, in the line: `size` bytes of them follow. */
struct batch {
    uint64_t record; /* that they wait for; 0: none */
    struct sel_id flow;
    size_t size;
    bool is_refused;
};

/* One event: `size` bytes of details follow. */
struct event {
    uint32_t event, size;
    int64_t at_us; /* by the dispatcher's clock */
};

/* ---- the line ---- */

static bool next_batch(const struct sel_dispatch_traces *line, size_t at, struct batch *ret)
{
    if (at == line->bytes.n)
        return false;
    memcpy(ret, line->bytes.p + at, sizeof(*ret));
    return true;
}

static void lose(struct sel_dispatcher *d)
{
    d->stats.traces_lost++;
    if (!d->traces.is_lossy)
        sel_engine_log(d->hub.engine, SEL_LOG_ERROR,
                       "trace events of flows are lost: there is no room to keep them until the "
                       "broker has what they tell of");
    d->traces.is_lossy = true;
}

static void emit_event(struct sel_dispatcher *d, const struct event *event, const uint8_t *bytes)
{
    struct sel_arena *arena = &d->hub.trace_arena;
    struct sel_value details;
    if (sel_value_decode(arena, bytes, event->size, false, &details, NULL) == 0)
        sel_tracer_emit_late(d->hub.engine->tracer, (enum sel_trace_event)event->event, &details,
                             sel_dispatcher_now_us(d) - event->at_us);
    else
        lose(d);
    sel_arena_reset(arena);
}

static void emit_batch(struct sel_dispatcher *d, const uint8_t *bytes, size_t size)
{
    struct event event;
    for (size_t at = 0; at < size; at += sizeof(event) + event.size) {
        memcpy(&event, bytes + at, sizeof(event));
        emit_event(d, &event, bytes + at + sizeof(event));
    }
}

/* What was emitted is let go of when it is as much as what must be moved for it. */
static void close_up(struct sel_dispatch_traces *line)
{
    struct sel_buf *bytes = &line->bytes;
    if (line->head < bytes->n - line->head)
        return;
    memmove(bytes->p, bytes->p + line->head, bytes->n - line->head);
    bytes->n -= line->head;
    line->head = 0;
    if (bytes->n == 0 && bytes->cap > EMIT_BYTES)
        sel_buf_done(bytes);
}

bool sel_dispatch_traces_emit(struct sel_dispatcher *d, bool is_bounded)
{
    struct sel_dispatch_traces *line = &d->traces;
    size_t begin = line->head;
    struct batch batch;
    if (line->bytes.n == 0)
        return false;
    uint64_t settled = sel_holder_flow_settled(d->options.holder);
    while (next_batch(line, line->head, &batch) && batch.record <= settled) {
        if (is_bounded && line->head - begin > EMIT_BYTES)
            break;
        if (!batch.is_refused)
            emit_batch(d, line->bytes.p + line->head + sizeof(batch), batch.size);
        line->head += sizeof(batch) + batch.size;
    }
    bool has_more = next_batch(line, line->head, &batch) && batch.record <= settled;
    close_up(line);
    return has_more;
}

void sel_dispatch_traces_lose(struct sel_dispatcher *d)
{
    (void)sel_dispatch_traces_emit(d, false);
    sel_buf_clear(&d->traces.bytes);
    d->traces.head = 0;
    d->traces.last = 0;
}

void sel_dispatch_traces_refused(struct sel_dispatcher *d, struct sel_id flow)
{
    struct sel_dispatch_traces *line = &d->traces;
    struct batch batch;
    for (size_t at = line->head; next_batch(line, at, &batch); at += sizeof(batch) + batch.size) {
        batch.is_refused |= sel_id_eq(batch.flow, flow);
        memcpy(line->bytes.p + at, &batch, sizeof(batch));
    }
}

static size_t kept_bytes(const struct sel_dispatch_traces *line)
{
    return line->bytes.n - line->head;
}

bool sel_dispatch_traces_are_full(const struct sel_dispatcher *d)
{
    return kept_bytes(&d->traces) > KEPT_BYTES_MAX;
}

/* ---- those of a flow ---- */

/* Its events that no record takes along that is on its way. */
static size_t free_bytes(const struct sel_dispatched *flow)
{
    size_t size = flow->traces.n;
    for (uint32_t i = 0; i < flow->owed_count; i++)
        size -= flow->owed[i].traces;
    return size;
}

/* The first `size` bytes of them go into the line. */
static void stand_in_line(struct sel_dispatched *flow, size_t size, uint64_t record)
{
    struct sel_dispatcher *d = flow->d;
    struct sel_dispatch_traces *line = &d->traces;
    struct sel_buf *events = &flow->traces;
    const struct batch batch = {.record = record, .flow = flow->run.state.id, .size = size};
    if (size == 0)
        return;
    if (sel_buf_reserve(&line->bytes, sizeof(batch) + size)) {
        sel_buf_put(&line->bytes, &batch, sizeof(batch));
        sel_buf_put(&line->bytes, events->p, size);
        line->last = record;
    } else {
        line->bytes.failed = false; /* nothing was appended */
        lose(d);
    }
    memmove(events->p, events->p + size, events->n - size);
    events->n -= size;
    if (events->n == 0)
        sel_buf_done(events);
}

void sel_dispatch_traces_said(struct sel_dispatched *flow, size_t size)
{
    if (size > 0)
        stand_in_line(flow, size, sel_holder_flow_last(flow->d->options.holder));
}

void sel_dispatch_traces_idle(struct sel_dispatched *flow)
{
    struct sel_dispatch_traces *line = &flow->d->traces;
    size_t size = free_bytes(flow);
    if (flow->owed_count > 0)
        flow->owed[flow->owed_count - 1].traces += size;
    else
        stand_in_line(flow, size, kept_bytes(line) > 0 ? line->last : 0);
}

void sel_dispatch_traces_drop(struct sel_dispatched *flow)
{
    flow->traces.n -= free_bytes(flow);
}

static void keep(struct sel_dispatched *flow, enum sel_trace_event number,
                 const struct sel_value *details)
{
    struct sel_buf *events = &flow->traces;
    struct event event = {.event = (uint32_t)number, .at_us = sel_dispatcher_now_us(flow->d)};
    size_t before = events->n;
    sel_buf_put(events, &event, sizeof(event));
    sel_value_encode(details, events);
    if (sel_buf_error(events) < 0 || events->n - before - sizeof(event) > UINT32_MAX) {
        events->n = before;
        events->failed = events->over_limit = false;
        lose(flow->d);
        return;
    }
    event.size = (uint32_t)(events->n - before - sizeof(event));
    memcpy(events->p + before, &event, sizeof(event));
}

/* That a flow waits follows from no input: as it may be traced any number of times while nothing
 * arrives at the broker, it is kept only as long as there is room. */
void sel_dispatch_trace(struct sel_flow_run *run, enum sel_trace_event event,
                        const struct sel_value *details)
{
    struct sel_dispatched *flow = sel_dispatched_of(run);
    struct sel_dispatcher *d = flow->d;
    if (run->ended)
        return;
    if (event != SEL_TRACE_DISPATCHER_RETRY) {
        keep(flow, event, details);
    } else if (flow->traces.n + kept_bytes(&d->traces) < KEPT_BYTES_MAX) {
        keep(flow, event, details);
        sel_dispatch_traces_idle(flow);
    } else {
        lose(d);
    }
}
