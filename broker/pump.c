/* What dispatchers are told of their flows: the history when a flow is handed over, ends of runs as
 * they come. What finds no room in a session waits here, flow by flow. */
#include "broker/internal.h"
#include "core/mem.h"
#include "proto/decision.h"

/* ---- one record ---- */

static struct sel_wire_item about(const struct sel_broker *b, const struct sel_flow *flow,
                                  uint8_t type)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, flow->entry);
    return (struct sel_wire_item){
        .type = type,
        .id = entry->id,
        .priority = SEL_WIRE_PRIORITY,
        .handle = entry->sequence << 32 | flow->entry,
        .try_count = entry->try_count,
        .delivery = entry->delivery,
    };
}

static int say_end(struct sel_broker *b, struct sel_broker_session *s, const struct sel_flow *flow,
                   uint32_t i)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_wire_item item = about(b, flow, SEL_RECORD_ENDED);
    struct sel_str fields;
    int r = sel_broker_task_get_blob(b, i, &fields, &item.payload);
    if (r < 0)
        return r;
    item.code = entry->code;
    item.handle = entry->kind == SEL_KIND_RUN ? entry->extra : entry->flow->ordinal;
    if (entry->flags & SEL_TASK_CONSUMED)
        item.flags = SEL_ITEM_CONSUMED;
    return sel_broker_session_say(b, s, &item, SEL_NONE);
}

/* A piece, or the part of it that the flow's cursor is at. *ret_next: the cursor moves on. */
static int say_piece(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    const struct sel_task_entry *piece = sel_broker_task_at(b, flow->load_at);
    bool is_state = piece->queue == SEL_PIECE_STATE;
    struct sel_wire_item item = about(b, flow, is_state ? SEL_RECORD_STATE : SEL_RECORD_EVENTS);
    struct sel_str fields, bytes;
    int r = sel_broker_task_get_blob(b, flow->load_at, &fields, &bytes);
    if (r < 0)
        return r;
    size_t left = bytes.n - flow->load_offset;
    size_t size = left > SEL_DECISION_PIECE ? SEL_DECISION_PIECE : left;
    bool more = size < left;
    if (!more && is_state && piece->next != SEL_NONE) {
        const struct sel_task_entry *next = sel_broker_task_at(b, piece->next);
        more = next->queue == SEL_PIECE_STATE;
    }
    item.code = piece->extra;
    item.flags = more ? SEL_ITEM_MORE : 0;
    item.payload = (struct sel_str){bytes.p + flow->load_offset, size};
    r = sel_broker_session_say(b, s, &item, SEL_NONE);
    if (r < 0)
        return r;
    flow->load_offset += (uint32_t)size;
    if (size == left) {
        flow->load_at = piece->next;
        flow->load_offset = 0;
    }
    return 0;
}

static int say_live(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    struct sel_wire_item item = about(b, flow, SEL_RECORD_LIVE);
    item.code = flow->current->number;
    int r = sel_broker_session_say(b, s, &item, SEL_NONE);
    if (r < 0)
        return r;
    flow->load = SEL_LOAD_NONE;
    flow->is_live = true;
    return 0;
}

/* ---- one flow ---- */

static int say_untold(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    struct sel_flow_try *t = flow->current;
    while (t->untold != SEL_NONE) {
        int r = say_end(b, s, flow, t->untold);
        if (r < 0)
            return r;
        t->untold = sel_broker_task_at(b, t->untold)->next;
    }
    return 0;
}

static int say_history(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    int r = 0;
    while (r == 0 && flow->load == SEL_LOAD_PIECES) {
        if (flow->load_at != SEL_NONE) {
            r = say_piece(b, s, flow);
        } else {
            flow->load = SEL_LOAD_KEPT;
            flow->load_at = flow->current->kept_first;
        }
    }
    while (r == 0 && flow->load == SEL_LOAD_KEPT) {
        if (flow->load_at == SEL_NONE)
            flow->load = SEL_LOAD_ENDED;
        else if ((r = say_end(b, s, flow, flow->load_at)) == 0)
            flow->load_at = sel_broker_task_at(b, flow->load_at)->next;
    }
    if (r == 0)
        r = say_untold(b, s, flow);
    return r < 0 ? r : say_live(b, s, flow);
}

static int say_all(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    return flow->load == SEL_LOAD_NONE ? say_untold(b, s, flow) : say_history(b, s, flow);
}

/* ---- those that wait ---- */

static bool push(struct sel_broker *b, struct sel_broker_session *s, uint32_t entry)
{
    if (s->pump_count == s->pump_cap) {
        uint32_t cap = s->pump_cap ? 2 * s->pump_cap : 16;
        struct sel_flow_pump *ring = sel_mem_alloc(cap * sizeof(*ring));
        if (!ring)
            return false;
        for (uint32_t i = 0; i < s->pump_count; i++)
            ring[i] = s->pump[(s->pump_head + i) & (s->pump_cap - 1)];
        sel_mem_free(s->pump);
        s->pump = ring;
        s->pump_cap = cap;
        s->pump_head = 0;
    }
    s->pump[(s->pump_head + s->pump_count++) & (s->pump_cap - 1)] =
        (struct sel_flow_pump){entry, sel_broker_task_at(b, entry)->sequence};
    if (!s->in_pumps) {
        s->in_pumps = true;
        b->pumps[b->pump_count++] = s->slot; /* has a place for each slot */
    }
    return true;
}

/* Says what there is to say, or lets it wait for room. */
static void tell(struct sel_broker *b, struct sel_broker_session *s, struct sel_flow *flow)
{
    if (flow->in_pump)
        return;
    int r = s->pump_count ? SEL_ELIMIT : say_all(b, s, flow);
    if (r == 0)
        return;
    if (r != SEL_ELIMIT || !push(b, s, flow->entry))
        sel_broker_session_fail(b, s); /* its flows are handed over anew */
    else
        flow->in_pump = true;
}

void sel_broker_flow_tell(struct sel_broker *b, struct sel_flow *flow)
{
    if (flow->entry == SEL_NONE || !flow->is_live)
        return; /* it is said with the history */
    const struct sel_task_entry *entry = sel_broker_task_at(b, flow->entry);
    SEL_ASSERT(entry->state == SEL_TASK_DELIVERED);
    tell(b, b->sessions[entry->holder], flow);
}

bool sel_broker_flow_has_history(const struct sel_flow *flow)
{
    const struct sel_flow_try *t = flow->current;
    return t && t->number > 0;
}

void sel_broker_flow_load(struct sel_broker *b, uint32_t i)
{
    struct sel_flow *flow = sel_broker_task_at(b, i)->flow;
    struct sel_flow_try *t = flow->current;
    flow->in_pump = false;
    if (!sel_broker_flow_has_history(flow)) {
        flow->is_live = true;
        return;
    }
    flow->is_live = false;
    flow->load = SEL_LOAD_PIECES;
    flow->load_at = t->piece_first;
    flow->load_offset = 0;
    t->untold = t->ended_first;
    tell(b, b->sessions[sel_broker_task_at(b, i)->holder], flow);
}

/* The entry in the ring of the owner's session is seen to be old there. */
void sel_broker_flow_disown(struct sel_broker *b, struct sel_flow *flow)
{
    flow->is_live = false;
    flow->in_pump = false;
    flow->load = SEL_LOAD_NONE;
    if (!flow->current)
        return;
    sel_buf_done(&flow->current->partial);
    sel_broker_try_drop_new_state(b, flow->current);
}

static struct sel_flow *waiting_at(const struct sel_broker *b, const struct sel_broker_session *s,
                                   struct sel_flow_pump place)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, place.entry);
    if (entry->sequence != place.sequence || entry->state != SEL_TASK_DELIVERED ||
        entry->kind != SEL_KIND_FLOW || entry->holder != s->slot || !entry->flow->in_pump)
        return NULL;
    return entry->flow;
}

/* true: nothing waits any more. */
static bool pump_session(struct sel_broker *b, struct sel_broker_session *s)
{
    while (s->pump_count) {
        struct sel_flow *flow = waiting_at(b, s, s->pump[s->pump_head]);
        int r = flow ? say_all(b, s, flow) : 0;
        if (r == SEL_ELIMIT)
            return false;
        if (r < 0) {
            sel_broker_session_fail(b, s);
            return false;
        }
        if (flow)
            flow->in_pump = false;
        s->pump_head = (s->pump_head + 1) & (s->pump_cap - 1);
        s->pump_count--;
    }
    return true;
}

void sel_broker_pump(struct sel_broker *b)
{
    for (uint32_t i = 0; i < b->pump_count;) {
        struct sel_broker_session *s = b->sessions[b->pumps[i]];
        if (s->is_failed || !pump_session(b, s)) {
            i++;
            continue;
        }
        s->in_pumps = false;
        b->pumps[i] = b->pumps[--b->pump_count];
    }
}
