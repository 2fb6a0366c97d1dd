#include "core/state.h"

#include "core/mem.h"

#define RUN(slot, status) ((uint32_t)(slot) << 3 | (uint32_t)(status))
#define SLOTS_MAX (UINT32_MAX >> 3)

/* ---- lists and bits ---- */

static bool reserve(struct sel_u32s *list, uint32_t more)
{
    return sel_mem_grow(&list->p, &list->cap, (uint64_t)list->count + more, sizeof(uint32_t));
}

static void push(struct sel_u32s *list, uint32_t value)
{
    SEL_ASSERT(list->count < list->cap); /* reserved before anything changed */
    list->p[list->count++] = value;
}

static uint32_t pop_first(struct sel_u32s *list)
{
    SEL_ASSERT(list->head < list->count);
    uint32_t value = list->p[list->head++];
    if (list->head == list->count)
        list->head = list->count = 0;
    return value;
}

static bool bit(const uint64_t *bits, uint32_t i)
{
    return bits[i / 64] >> (i % 64) & 1;
}

static void set_bit(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= UINT64_C(1) << (i % 64);
}

static void set_status(struct sel_state *state, uint32_t ordinal, enum sel_run_status status)
{
    state->runs[ordinal] = RUN(sel_state_run_slot(state, ordinal), status);
}

/* ---- life ---- */

int sel_state_init(struct sel_state *state, struct sel_id id, uint32_t slot_count,
                   uint32_t edge_count, struct sel_str args)
{
    memset(state, 0, sizeof(*state));
    if (slot_count > SLOTS_MAX)
        return SEL_ELIMIT;
    state->id = id;
    state->slot_count = slot_count;
    state->edge_count = edge_count;
    size_t words = (size_t)edge_count / 64 + 1;
    state->slots = sel_mem_zalloc(sizeof(*state->slots) * ((size_t)slot_count + 1));
    state->waiting = sel_mem_zalloc(words * 8);
    state->triggered = sel_mem_zalloc(words * 8);
    sel_buf_put_str(&state->start_args, args);
    if (!state->slots || !state->waiting || !state->triggered || state->start_args.failed) {
        sel_state_done(state);
        return SEL_ENOMEM;
    }
    return 0;
}

int sel_state_init_attempt(struct sel_state *state, struct sel_id id, uint32_t attempt,
                           uint32_t slot_count, uint32_t edge_count, struct sel_str args)
{
    int r = sel_state_init(state, id, slot_count, edge_count, args);
    if (r == 0)
        state->attempt = attempt;
    return r;
}

static void free_reused(struct sel_state *state)
{
    for (uint32_t i = 0; i < state->reused_count; i++)
        sel_mem_free(state->reused[i].id);
    state->reused_count = 0;
}

void sel_state_done(struct sel_state *state)
{
    for (uint32_t i = 0; state->slots && i < state->slot_count; i++) {
        sel_mem_free(state->slots[i].finished.p);
        sel_mem_free(state->slots[i].failed.p);
    }
    free_reused(state);
    void *owned[] = {state->slots,           state->runs,           state->due.p,
                     state->propagated.p,    state->skipped.p,      state->children,
                     state->reused,          state->waiting,        state->triggered,
                     state->waiting_order.p, state->cursor.sources, state->cursor.digits,
                     state->cursor.limits,   state->cursor.taken.p};
    for (size_t i = 0; i < SEL_COUNT(owned); i++)
        sel_mem_free(owned[i]);
    sel_buf_done(&state->args);
    sel_buf_done(&state->start_args);
    sel_buf_done(&state->cursor.items);
    memset(state, 0, sizeof(*state));
}

size_t sel_state_bytes(const struct sel_state *state)
{
    size_t bytes = sizeof(*state) + (size_t)state->slot_count * sizeof(*state->slots) +
                   (size_t)state->run_cap * 4 + (size_t)state->due.cap * 4 +
                   (size_t)state->propagated.cap * 4 + (size_t)state->skipped.cap * 4 +
                   (size_t)state->child_cap * sizeof(*state->children) +
                   (size_t)state->reused_cap * sizeof(*state->reused) +
                   ((size_t)state->edge_count / 64 + 1) * 16 +
                   (size_t)state->waiting_order.cap * 4 + (size_t)state->cursor.source_cap * 12 +
                   (size_t)state->cursor.taken.cap * 4 + state->args.cap + state->start_args.cap +
                   state->cursor.items.cap;
    for (uint32_t i = 0; i < state->slot_count; i++)
        bytes += ((size_t)state->slots[i].finished.cap + state->slots[i].failed.cap) * 4;
    for (uint32_t i = 0; i < state->reused_count; i++)
        bytes += (size_t)state->reused[i].size + 1;
    return bytes;
}

/* ---- the cursor ---- */

/* On to the next combination of finished runs: the last source turns fastest. */
static void next_combination(struct sel_cursor *c)
{
    c->combination++;
    c->firing = false;
    for (uint32_t i = c->source_count; i-- > 0;) {
        if (c->has_run && i == c->own)
            continue;
        if (++c->digits[i] < c->limits[i])
            return;
        c->digits[i] = 0;
    }
    c->in_edge = false;
}

static void next_destination(struct sel_state *state)
{
    struct sel_cursor *c = &state->cursor;
    c->to_position++;
    if (c->to_position < c->to_count)
        return;
    if (state->phase == SEL_PHASE_FALLBACK) {
        state->phase = SEL_PHASE_SETTLE;
        c->combination++; /* what comes next is no longer the fallback */
        return;
    }
    c->to_position = 0;
    c->item++;
    if (c->item == c->item_count)
        next_combination(c);
}

static bool reserve_sources(struct sel_cursor *c, uint32_t count)
{
    uint32_t cap = c->source_cap;
    if (count <= cap)
        return true;
    uint32_t caps[3] = {cap, cap, cap};
    if (!sel_mem_grow(&c->sources, &caps[0], count, sizeof(uint32_t)) ||
        !sel_mem_grow(&c->digits, &caps[1], count, sizeof(uint32_t)) ||
        !sel_mem_grow(&c->limits, &caps[2], count, sizeof(uint32_t)))
        return false; /* some array is larger than source_cap says: harmless */
    c->source_cap = caps[0];
    return true;
}

/* ---- one function an event ---- */

static int on_start(struct sel_state *state)
{
    if (state->phase != SEL_PHASE_NEW)
        return SEL_EFORMAT;
    state->phase = SEL_PHASE_EDGES;
    return 0;
}

static int on_ended_run(struct sel_state *state, const struct sel_event *event)
{
    if (event->a >= state->run_count || sel_state_run_status(state, event->a) != SEL_RUN_ACTIVE ||
        state->phase != SEL_PHASE_SETTLE)
        return SEL_EFORMAT;
    uint32_t slot = sel_state_run_slot(state, event->a);
    struct sel_u32s *list =
        event->type == SEL_EVENT_DONE ? &state->due : &state->slots[slot].failed;
    if (!reserve(list, 1))
        return SEL_ENOMEM;
    push(list, event->a);
    set_status(state, event->a, event->type == SEL_EVENT_DONE ? SEL_RUN_DUE : SEL_RUN_FAILED);
    state->active_count--;
    if (event->type == SEL_EVENT_FAILED)
        state->failed_count++;
    state->skipped.count = 0;
    state->cursor.may_repeat = false;
    return 0;
}

static int on_args(struct sel_state *state, const struct sel_event *event)
{
    struct sel_buf args = {0};
    if (event->bytes.n == 0)
        return SEL_EFORMAT;
    sel_buf_put_str(&args, event->bytes);
    if (args.failed)
        return SEL_ENOMEM;
    sel_buf_done(&state->args);
    state->args = args;
    return 0;
}

static int on_take(struct sel_state *state)
{
    if (state->phase != SEL_PHASE_SETTLE || state->due.head == state->due.count)
        return SEL_EFORMAT;
    uint32_t ordinal = state->due.p[state->due.head];
    struct sel_u32s *finished = &state->slots[sel_state_run_slot(state, ordinal)].finished;
    if (!reserve(finished, 1))
        return SEL_ENOMEM;
    (void)pop_first(&state->due);
    push(finished, ordinal);
    state->finished_count++;
    set_status(state, ordinal, SEL_RUN_FINISHED);
    state->phase = SEL_PHASE_EDGES;
    state->cursor.has_run = true;
    state->cursor.run = ordinal;
    state->cursor.position = 0;
    return 0;
}

static int on_wait(struct sel_state *state, const struct sel_event *event)
{
    for (uint32_t i = 0; i < event->list_count; i++) {
        if (event->list[i] >= state->edge_count || bit(state->waiting, event->list[i]))
            return SEL_EFORMAT;
    }
    if (!reserve(&state->waiting_order, event->list_count))
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < event->list_count; i++) {
        set_bit(state->waiting, event->list[i]);
        push(&state->waiting_order, event->list[i]);
    }
    return 0;
}

static bool edge_fits(const struct sel_state *state, const struct sel_event *event)
{
    const struct sel_cursor *c = &state->cursor;
    if (state->phase != SEL_PHASE_EDGES || c->in_edge || event->a < c->position ||
        event->a == UINT32_MAX || event->b >= state->edge_count)
        return false;
    if (!c->has_run)
        return event->list_count == 0;
    if (event->c >= event->list_count || event->list[event->c] != sel_state_run_slot(state, c->run))
        return false;
    for (uint32_t i = 0; i < event->list_count; i++) {
        if (event->list[i] >= state->slot_count || state->slots[event->list[i]].finished.count == 0)
            return false;
    }
    return true;
}

static int on_edge(struct sel_state *state, const struct sel_event *event)
{
    struct sel_cursor *c = &state->cursor;
    if (!edge_fits(state, event))
        return SEL_EFORMAT;
    if (!reserve_sources(c, event->list_count))
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < event->list_count; i++) {
        c->sources[i] = event->list[i];
        c->digits[i] = 0;
        c->limits[i] = state->slots[event->list[i]].finished.count;
    }
    c->source_count = event->list_count;
    c->position = event->a + 1;
    c->edge = event->b;
    c->own = event->c;
    c->in_edge = true;
    return 0;
}

static int on_false(struct sel_state *state)
{
    if (!state->cursor.in_edge || state->cursor.firing)
        return SEL_EFORMAT;
    next_combination(&state->cursor);
    return 0;
}

static int on_fire(struct sel_state *state, const struct sel_event *event)
{
    struct sel_cursor *c = &state->cursor;
    bool foreach = event->type == SEL_EVENT_FOREACH;
    if (!c->in_edge || c->firing || event->a == 0)
        return SEL_EFORMAT;
    sel_buf_clear(&c->items);
    sel_buf_put_str(&c->items, event->bytes);
    if (c->items.failed)
        return SEL_ENOMEM;
    c->firing = true;
    c->has_items = foreach;
    c->to_position = 0;
    c->to_count = event->a;
    c->item = 0;
    c->item_count = foreach ? event->b : 1;
    set_bit(state->triggered, c->edge);
    if (c->item_count == 0)
        next_combination(c);
    return 0;
}

/* A run that starts now, in room that was reserved. */
static uint32_t add_run(struct sel_state *state, uint32_t slot, enum sel_run_status status)
{
    uint32_t ordinal = state->run_count++;
    state->runs[ordinal] = RUN(slot, status);
    if (status == SEL_RUN_ACTIVE)
        state->active_count++;
    next_destination(state);
    return ordinal;
}

static int on_start_run(struct sel_state *state, const struct sel_event *event)
{
    struct sel_cursor *c = &state->cursor;
    bool fallback = state->phase == SEL_PHASE_FALLBACK;
    if ((!c->firing && !fallback) || event->a >= state->slot_count || event->b > 1)
        return SEL_EFORMAT;
    if (fallback && c->sources[c->to_position] != event->a)
        return SEL_EFORMAT;
    if (!sel_mem_grow(&state->runs, &state->run_cap, (uint64_t)state->run_count + 1, 4))
        return SEL_ENOMEM;
    if (event->type == SEL_EVENT_FLOW &&
        !sel_mem_grow(&state->children, &state->child_cap, (uint64_t)state->child_count + 1,
                      sizeof(*state->children)))
        return SEL_ENOMEM;
    uint32_t ordinal = add_run(state, event->a, event->b ? SEL_RUN_DETACHED : SEL_RUN_ACTIVE);
    if (event->type == SEL_EVENT_FLOW)
        state->children[state->child_count++] = (struct sel_state_child){ordinal, event->id};
    return 0;
}

static int on_reuse(struct sel_state *state, const struct sel_event *event)
{
    if (!state->cursor.firing || event->a >= state->slot_count || event->bytes.n >= UINT32_MAX)
        return SEL_EFORMAT;
    if (!sel_mem_grow(&state->runs, &state->run_cap, (uint64_t)state->run_count + 1, 4) ||
        !sel_mem_grow(&state->reused, &state->reused_cap, (uint64_t)state->reused_count + 1,
                      sizeof(*state->reused)) ||
        !reserve(&state->due, 1))
        return SEL_ENOMEM;
    char *id = sel_mem_alloc(event->bytes.n + 1);
    if (!id)
        return SEL_ENOMEM;
    memcpy(id, event->bytes.p, event->bytes.n);
    id[event->bytes.n] = '\0';
    uint32_t ordinal = add_run(state, event->a, SEL_RUN_DUE);
    push(&state->due, ordinal);
    state->reused[state->reused_count++] =
        (struct sel_state_reused){ordinal, (uint32_t)event->bytes.n, id};
    return 0;
}

static int on_omit(struct sel_state *state)
{
    if (!state->cursor.firing)
        return SEL_EFORMAT;
    next_destination(state);
    return 0;
}

static int on_omit_edge(struct sel_state *state)
{
    struct sel_cursor *c = &state->cursor;
    if (!c->in_edge || c->firing || c->has_run)
        return SEL_EFORMAT;
    set_bit(state->triggered, c->edge);
    next_combination(c);
    return 0;
}

static int on_edges_end(struct sel_state *state)
{
    if (state->phase != SEL_PHASE_EDGES || state->cursor.in_edge)
        return SEL_EFORMAT;
    state->phase = SEL_PHASE_SETTLE;
    state->cursor.has_run = false;
    state->cursor.position = 0;
    return 0;
}

static bool choice_fits(const struct sel_state *state, const struct sel_event *event)
{
    if (state->phase != SEL_PHASE_SETTLE || event->b == 0 || event->b > event->list_count ||
        event->c > 1)
        return false;
    for (uint32_t i = 0; i < event->list_count; i++) {
        if (event->list[i] >= state->slot_count)
            return false;
        for (uint32_t k = 0; i < event->b && k < i; k++) {
            if (event->list[k] == event->list[i])
                return false;
        }
        const struct sel_u32s *failed = &state->slots[event->list[i]].failed;
        if (i < event->b && failed->head == failed->count)
            return false;
    }
    return true;
}

static int on_choice(struct sel_state *state, const struct sel_event *event)
{
    struct sel_cursor *c = &state->cursor;
    if (!choice_fits(state, event))
        return SEL_EFORMAT;
    uint32_t to_count = event->list_count - event->b;
    if (!reserve_sources(c, to_count) || !sel_mem_grow(&c->taken.p, &c->taken.cap, event->b, 4) ||
        (event->c && !reserve(&state->propagated, event->b)))
        return SEL_ENOMEM;
    c->taken.count = 0;
    for (uint32_t i = 0; i < event->b; i++) {
        uint32_t ordinal = pop_first(&state->slots[event->list[i]].failed);
        set_status(state, ordinal, SEL_RUN_RECOVERED);
        state->failed_count--;
        push(&c->taken, ordinal);
        if (event->c)
            push(&state->propagated, ordinal);
    }
    for (uint32_t i = 0; i < to_count; i++)
        c->sources[i] = event->list[event->b + i];
    c->source_count = to_count;
    c->choice = event->a;
    c->may_repeat = true;
    c->combination++;
    c->to_position = 0;
    c->to_count = to_count;
    if (to_count > 0)
        state->phase = SEL_PHASE_FALLBACK;
    return 0;
}

static int on_skip(struct sel_state *state, const struct sel_event *event)
{
    if (state->phase != SEL_PHASE_SETTLE)
        return SEL_EFORMAT;
    if (!reserve(&state->skipped, 1))
        return SEL_ENOMEM;
    push(&state->skipped, event->a);
    return 0;
}

static int on_end(struct sel_state *state)
{
    if (state->phase != SEL_PHASE_SETTLE)
        return SEL_EFORMAT;
    state->phase = SEL_PHASE_ENDED;
    return 0;
}

/* Stands nowhere; its memory is kept. */
static void reset_cursor(struct sel_cursor *c)
{
    struct sel_cursor empty = {.sources = c->sources,
                               .digits = c->digits,
                               .limits = c->limits,
                               .source_cap = c->source_cap,
                               .taken = {c->taken.p, 0, c->taken.cap, 0},
                               .items = c->items};
    *c = empty;
    sel_buf_clear(&c->items);
}

static void forget_progress(struct sel_state *state)
{
    for (uint32_t i = 0; i < state->slot_count; i++) {
        state->slots[i].finished.count = state->slots[i].finished.head = 0;
        state->slots[i].failed.count = state->slots[i].failed.head = 0;
    }
    free_reused(state);
    state->run_count = state->child_count = 0;
    state->active_count = state->failed_count = state->finished_count = 0;
    state->due.count = state->due.head = 0;
    state->propagated.count = state->skipped.count = state->waiting_order.count = 0;
    size_t words = (size_t)state->edge_count / 64 + 1;
    memset(state->waiting, 0, words * 8);
    memset(state->triggered, 0, words * 8);
    sel_buf_clear(&state->args);
    reset_cursor(&state->cursor);
}

int sel_state_reset(struct sel_state *state, struct sel_id id, uint32_t attempt,
                    struct sel_str args)
{
    forget_progress(state);
    state->id = id;
    state->attempt = attempt;
    state->migration_version = 0;
    state->phase = SEL_PHASE_NEW;
    sel_buf_clear(&state->start_args);
    sel_buf_put_str(&state->start_args, args);
    return sel_buf_error(&state->start_args);
}

/* END, FAIL, RETRY and CANCEL of a flow that has ended do not fit. */
static bool has_ended(const struct sel_state *state)
{
    return state->phase == SEL_PHASE_ENDED || state->phase == SEL_PHASE_FAILED ||
           state->phase == SEL_PHASE_CANCELED;
}

static int on_abandon(struct sel_state *state, enum sel_event_type type)
{
    if (has_ended(state))
        return SEL_EFORMAT;
    if (type == SEL_EVENT_RETRY) {
        if (state->attempt == UINT32_MAX)
            return SEL_EFORMAT;
        forget_progress(state);
        state->attempt++;
        state->phase = SEL_PHASE_NEW;
    } else {
        reset_cursor(&state->cursor); /* it may have stood in the middle of an edge */
        state->phase = type == SEL_EVENT_FAIL ? SEL_PHASE_FAILED : SEL_PHASE_CANCELED;
    }
    return 0;
}

int sel_state_apply(struct sel_state *state, const struct sel_event *event)
{
    switch (event->type) {
    case SEL_EVENT_START:
        return on_start(state);
    case SEL_EVENT_DONE:
    case SEL_EVENT_FAILED:
        return on_ended_run(state, event);
    case SEL_EVENT_ARGS:
        return on_args(state, event);
    case SEL_EVENT_TAKE:
        return on_take(state);
    case SEL_EVENT_WAIT:
        return on_wait(state, event);
    case SEL_EVENT_EDGE:
        return on_edge(state, event);
    case SEL_EVENT_FALSE:
        return on_false(state);
    case SEL_EVENT_FIRE:
    case SEL_EVENT_FOREACH:
        return on_fire(state, event);
    case SEL_EVENT_TASK:
    case SEL_EVENT_FLOW:
        return on_start_run(state, event);
    case SEL_EVENT_REUSE:
        return on_reuse(state, event);
    case SEL_EVENT_OMIT:
        return on_omit(state);
    case SEL_EVENT_OMIT_EDGE:
        return on_omit_edge(state);
    case SEL_EVENT_EDGES_END:
        return on_edges_end(state);
    case SEL_EVENT_CHOICE:
        return on_choice(state, event);
    case SEL_EVENT_SKIP:
        return on_skip(state, event);
    case SEL_EVENT_END:
        return on_end(state);
    case SEL_EVENT_FAIL:
    case SEL_EVENT_RETRY:
    case SEL_EVENT_CANCEL:
        return on_abandon(state, event->type);
    case SEL_EVENT_TYPE_END:
        break;
    }
    return SEL_EFORMAT;
}

int sel_state_replay(struct sel_state *state, const uint8_t *p, size_t n)
{
    uint32_t *list = sel_mem_alloc(sizeof(uint32_t) * SEL_EVENT_ITEMS_MAX);
    if (!list)
        return SEL_ENOMEM;
    int r = 0;
    for (size_t pos = 0; pos < n && r == 0;) {
        struct sel_event event;
        r = sel_event_decode(p, n, &pos, list, &event);
        if (r == 0)
            r = sel_state_apply(state, &event);
    }
    sel_mem_free(list);
    return r;
}

/* ---- reading ---- */

const struct sel_state_child *sel_state_child(const struct sel_state *state, uint32_t ordinal)
{
    uint32_t low = 0, high = state->child_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (state->children[mid].ordinal < ordinal)
            low = mid + 1;
        else
            high = mid;
    }
    bool found = low < state->child_count && state->children[low].ordinal == ordinal;
    return found ? &state->children[low] : NULL;
}

const struct sel_state_reused *sel_state_reused(const struct sel_state *state, uint32_t ordinal)
{
    uint32_t low = 0, high = state->reused_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (state->reused[mid].ordinal < ordinal)
            low = mid + 1;
        else
            high = mid;
    }
    bool found = low < state->reused_count && state->reused[low].ordinal == ordinal;
    return found ? &state->reused[low] : NULL;
}

struct sel_str sel_state_run_id(const struct sel_state *state, uint32_t ordinal,
                                char out[SEL_RUN_ID_TEXT_SIZE])
{
    const struct sel_state_reused *reused = sel_state_reused(state, ordinal);
    if (reused)
        return (struct sel_str){reused->id, reused->size};
    const struct sel_state_child *child = sel_state_child(state, ordinal);
    if (child)
        return sel_str_c(sel_id_format(child->id, out));
    return sel_str_c(sel_id_format_run(state->id, state->attempt, ordinal, out));
}
