/* The state as bytes (snapshots, comparison of replays). Numbers are LEB128 except ids. A list is
 * its count and its items; lists whose first items are gone are written without them. */
#include "core/mem.h"
#include "core/state.h"

#define STATE_FORMAT 1

/* ---- writing ---- */

static void put_list(const struct sel_u32s *list, struct sel_buf *buf)
{
    sel_buf_put_varint(buf, list->count - list->head);
    for (uint32_t i = list->head; i < list->count; i++)
        sel_buf_put_varint(buf, list->p[i]);
}

static void put_array(const uint32_t *p, uint32_t count, struct sel_buf *buf)
{
    for (uint32_t i = 0; i < count; i++)
        sel_buf_put_varint(buf, p[i]);
}

static void put_bytes(struct sel_str bytes, struct sel_buf *buf)
{
    sel_buf_put_varint(buf, bytes.n);
    sel_buf_put_str(buf, bytes);
}

static void put_id(struct sel_id id, struct sel_buf *buf)
{
    uint64_t halves[2] = {__builtin_bswap64(id.hi), __builtin_bswap64(id.lo)};
    sel_buf_put(buf, halves, sizeof(halves));
}

static void put_cursor(const struct sel_cursor *c, struct sel_buf *buf)
{
    sel_buf_put_u8(buf, (uint8_t)(c->has_run | c->in_edge << 1 | c->firing << 2 |
                                  c->has_items << 3 | c->may_repeat << 4));
    const uint32_t numbers[] = {c->run,         c->position,    c->edge, c->own,
                                c->to_position, c->to_count,    c->item, c->item_count,
                                c->choice,      c->source_count};
    put_array(numbers, SEL_COUNT(numbers), buf);
    sel_buf_put_varint(buf, c->combination);
    for (uint32_t i = 0; i < c->source_count; i++) {
        sel_buf_put_varint(buf, c->sources[i]);
        sel_buf_put_varint(buf, c->in_edge ? c->digits[i] : 0);
        sel_buf_put_varint(buf, c->in_edge ? c->limits[i] : 0);
    }
    put_list(&c->taken, buf);
    put_bytes(c->firing ? sel_buf_str(&c->items) : (struct sel_str){0}, buf);
}

void sel_state_encode(const struct sel_state *state, struct sel_buf *buf)
{
    sel_buf_put_u8(buf, STATE_FORMAT);
    put_id(state->id, buf);
    const uint32_t numbers[] = {state->attempt,           state->slot_count,      state->edge_count,
                                state->migration_version, (uint32_t)state->phase, state->run_count,
                                state->child_count,       state->reused_count};
    put_array(numbers, SEL_COUNT(numbers), buf);
    put_bytes(sel_buf_str(&state->start_args), buf);
    put_bytes(sel_buf_str(&state->args), buf);
    put_array(state->runs, state->run_count, buf);
    for (uint32_t i = 0; i < state->slot_count; i++) {
        put_list(&state->slots[i].finished, buf);
        put_list(&state->slots[i].failed, buf);
    }
    put_list(&state->due, buf);
    put_list(&state->propagated, buf);
    put_list(&state->skipped, buf);
    for (uint32_t i = 0; i < state->child_count; i++) {
        sel_buf_put_varint(buf, state->children[i].ordinal);
        put_id(state->children[i].id, buf);
    }
    for (uint32_t i = 0; i < state->reused_count; i++) {
        sel_buf_put_varint(buf, state->reused[i].ordinal);
        put_bytes((struct sel_str){state->reused[i].id, state->reused[i].size}, buf);
    }
    put_list(&state->waiting_order, buf);
    for (uint32_t i = 0; i <= state->edge_count / 64; i++)
        sel_buf_put_varint(buf, state->triggered[i]);
    put_cursor(&state->cursor, buf);
}

/* ---- reading ---- */

struct reader {
    const uint8_t *p;
    size_t n, pos;
    int error; /* the first one sticks */
};

static uint64_t get_u64(struct reader *r)
{
    uint64_t value = 0;
    if (!r->error && !sel_buf_get_varint(r->p, r->n, &r->pos, &value))
        r->error = SEL_EFORMAT;
    return r->error ? 0 : value;
}

/* A number of at most `max`. */
static uint32_t get_u32(struct reader *r, uint32_t max)
{
    uint64_t value = get_u64(r);
    if (value > max)
        r->error = r->error ? r->error : SEL_EFORMAT;
    return r->error ? 0 : (uint32_t)value;
}

/* A count of things that take at least one byte each. */
static uint32_t get_count(struct reader *r)
{
    uint32_t count = get_u32(r, UINT32_MAX);
    if (count > r->n - r->pos)
        r->error = SEL_EFORMAT;
    return r->error ? 0 : count;
}

static struct sel_str get_bytes(struct reader *r)
{
    uint64_t size = get_u64(r);
    if (!r->error && size > r->n - r->pos)
        r->error = SEL_EFORMAT;
    if (r->error)
        return (struct sel_str){0};
    struct sel_str bytes = {(const char *)r->p + r->pos, (size_t)size};
    r->pos += (size_t)size;
    return bytes;
}

static struct sel_id get_id(struct reader *r)
{
    uint64_t halves[2] = {0, 0};
    if (!r->error && r->n - r->pos < sizeof(halves))
        r->error = SEL_EFORMAT;
    if (!r->error) {
        memcpy(halves, r->p + r->pos, sizeof(halves));
        r->pos += sizeof(halves);
    }
    return (struct sel_id){__builtin_bswap64(halves[0]), __builtin_bswap64(halves[1])};
}

static void *get_room(struct reader *r, uint32_t count, size_t size)
{
    void *p = r->error ? NULL : sel_mem_zalloc((size_t)count * size + 1);
    if (!p && !r->error)
        r->error = SEL_ENOMEM;
    return p;
}

/* A list of numbers below `bound`. */
static void get_list(struct reader *r, uint32_t bound, struct sel_u32s *list)
{
    uint32_t count = get_count(r);
    list->p = get_room(r, count, sizeof(uint32_t));
    for (uint32_t i = 0; i < count && !r->error; i++) {
        uint32_t item = get_u32(r, UINT32_MAX);
        if (item >= bound)
            r->error = SEL_EFORMAT;
        list->p[i] = item;
    }
    list->count = list->cap = r->error ? 0 : count;
}

static void put_back(struct reader *r, struct sel_buf *buf, struct sel_str bytes)
{
    if (!r->error)
        sel_buf_put_str(buf, bytes);
    if (buf->failed)
        r->error = SEL_ENOMEM;
}

static void get_sources(struct reader *r, struct sel_state *state, uint32_t count)
{
    struct sel_cursor *c = &state->cursor;
    c->sources = get_room(r, count, sizeof(uint32_t));
    c->digits = get_room(r, count, sizeof(uint32_t));
    c->limits = get_room(r, count, sizeof(uint32_t));
    c->source_count = c->source_cap = r->error ? 0 : count;
    for (uint32_t i = 0; i < c->source_count; i++) {
        c->sources[i] = get_u32(r, UINT32_MAX);
        c->digits[i] = get_u32(r, UINT32_MAX);
        c->limits[i] = get_u32(r, UINT32_MAX);
        if (r->error)
            return;
        if (c->sources[i] >= state->slot_count ||
            (c->in_edge && (c->digits[i] >= c->limits[i] ||
                            c->limits[i] > state->slots[c->sources[i]].finished.count)))
            r->error = SEL_EFORMAT;
    }
}

static bool cursor_fits(const struct sel_state *state)
{
    const struct sel_cursor *c = &state->cursor;
    if ((c->in_edge || c->firing) &&
        (state->phase != SEL_PHASE_EDGES || !c->in_edge || c->edge >= state->edge_count))
        return false;
    if (c->has_run && (c->run >= state->run_count || (c->in_edge && c->own >= c->source_count)))
        return false;
    if (c->in_edge && !c->has_run && c->source_count > 0)
        return false;
    if (c->firing && (c->to_position >= c->to_count || c->item >= c->item_count))
        return false;
    return state->phase != SEL_PHASE_FALLBACK ||
           (c->to_position < c->to_count && c->to_count == c->source_count);
}

static void get_cursor(struct reader *r, struct sel_state *state)
{
    struct sel_cursor *c = &state->cursor;
    uint32_t flags = get_u32(r, 31);
    c->has_run = flags & 1;
    c->in_edge = flags >> 1 & 1;
    c->firing = flags >> 2 & 1;
    c->has_items = flags >> 3 & 1;
    c->may_repeat = flags >> 4 & 1;
    uint32_t *numbers[] = {&c->run,      &c->position, &c->edge,       &c->own,   &c->to_position,
                           &c->to_count, &c->item,     &c->item_count, &c->choice};
    for (size_t i = 0; i < SEL_COUNT(numbers); i++)
        *numbers[i] = get_u32(r, UINT32_MAX);
    uint32_t count = get_count(r);
    c->combination = get_u64(r);
    get_sources(r, state, count);
    get_list(r, state->run_count, &c->taken);
    put_back(r, &c->items, get_bytes(r));
    if (!r->error && !cursor_fits(state))
        r->error = SEL_EFORMAT;
}

static void get_runs(struct reader *r, struct sel_state *state, uint32_t count)
{
    if (count > r->n - r->pos)
        r->error = SEL_EFORMAT;
    state->runs = get_room(r, count, sizeof(uint32_t));
    for (uint32_t i = 0; i < count && !r->error; i++) {
        uint32_t run = get_u32(r, UINT32_MAX);
        if (run >> 3 >= state->slot_count || (run & 7) > SEL_RUN_DETACHED)
            r->error = SEL_EFORMAT;
        state->runs[i] = run;
        state->active_count += (run & 7) == SEL_RUN_ACTIVE;
    }
    state->run_count = state->run_cap = r->error ? 0 : count;
}

static void get_slots(struct reader *r, struct sel_state *state)
{
    if (!r->error && state->slot_count > r->n - r->pos)
        r->error = SEL_EFORMAT;
    state->slots = get_room(r, r->error ? 0 : state->slot_count + 1, sizeof(*state->slots));
    for (uint32_t i = 0; i < state->slot_count && !r->error; i++) {
        get_list(r, state->run_count, &state->slots[i].finished);
        get_list(r, state->run_count, &state->slots[i].failed);
        state->finished_count += state->slots[i].finished.count;
        state->failed_count += state->slots[i].failed.count;
    }
}

/* The ordinal of a run, above the one before it in its list. */
static uint32_t get_ordinal(struct reader *r, const struct sel_state *state, const uint32_t *before)
{
    uint32_t ordinal = get_u32(r, UINT32_MAX);
    if (ordinal >= state->run_count || (before && ordinal <= *before))
        r->error = r->error ? r->error : SEL_EFORMAT;
    return ordinal;
}

static void get_ids(struct reader *r, struct sel_state *state, uint32_t child_count,
                    uint32_t reused_count)
{
    if (child_count > r->n - r->pos || reused_count > r->n - r->pos)
        r->error = SEL_EFORMAT;
    state->children = get_room(r, child_count, sizeof(*state->children));
    state->child_cap = r->error ? 0 : child_count;
    for (uint32_t i = 0; i < child_count && !r->error; i++) {
        state->children[i].ordinal =
            get_ordinal(r, state, i > 0 ? &state->children[i - 1].ordinal : NULL);
        state->children[i].id = get_id(r);
        state->child_count++;
    }
    state->reused = get_room(r, reused_count, sizeof(*state->reused));
    state->reused_cap = r->error ? 0 : reused_count;
    for (uint32_t i = 0; i < reused_count && !r->error; i++) {
        struct sel_state_reused *reused = &state->reused[i];
        reused->ordinal = get_ordinal(r, state, i > 0 ? &state->reused[i - 1].ordinal : NULL);
        struct sel_str id = get_bytes(r);
        if (id.n >= UINT32_MAX)
            r->error = SEL_EFORMAT;
        reused->size = (uint32_t)id.n;
        reused->id = get_room(r, (uint32_t)id.n + 1, 1);
        if (r->error)
            return;
        memcpy(reused->id, id.p, id.n);
        state->reused_count++;
    }
}

static void get_edges(struct reader *r, struct sel_state *state)
{
    get_list(r, state->edge_count, &state->waiting_order);
    uint32_t words = state->edge_count / 64 + 1;
    if (!r->error && words > r->n - r->pos)
        r->error = SEL_EFORMAT;
    state->waiting = get_room(r, r->error ? 0 : words, 8);
    state->triggered = get_room(r, r->error ? 0 : words, 8);
    if (r->error)
        return;
    for (uint32_t i = 0; i < state->waiting_order.count; i++) {
        uint32_t edge = state->waiting_order.p[i];
        state->waiting[edge / 64] |= UINT64_C(1) << (edge % 64);
    }
    for (uint32_t i = 0; i < words; i++)
        state->triggered[i] = get_u64(r);
}

/* The runs of a list have its status, and none of them is listed twice. */
static void check_list(struct reader *r, const struct sel_state *state, const struct sel_u32s *list,
                       enum sel_run_status status, uint64_t *listed)
{
    for (uint32_t i = 0; i < list->count && !r->error; i++) {
        uint32_t ordinal = list->p[i];
        uint64_t mask = UINT64_C(1) << (ordinal % 64);
        if (sel_state_run_status(state, ordinal) != status || (listed[ordinal / 64] & mask))
            r->error = SEL_EFORMAT;
        listed[ordinal / 64] |= mask;
    }
}

static void check_lists(struct reader *r, const struct sel_state *state)
{
    uint64_t *listed = get_room(r, state->run_count / 64 + 1, sizeof(*listed));
    for (uint32_t i = 0; i < state->slot_count && !r->error; i++) {
        check_list(r, state, &state->slots[i].finished, SEL_RUN_FINISHED, listed);
        check_list(r, state, &state->slots[i].failed, SEL_RUN_FAILED, listed);
    }
    check_list(r, state, &state->due, SEL_RUN_DUE, listed);
    sel_mem_free(listed);
}

int sel_state_decode(const uint8_t *p, size_t n, struct sel_state *ret)
{
    struct reader r = {.p = p, .n = n};
    struct sel_state state = {0};
    if (get_u32(&r, 255) != STATE_FORMAT)
        return r.error ? r.error : SEL_EVERSION;
    state.id = get_id(&r);
    state.attempt = get_u32(&r, UINT32_MAX);
    state.slot_count = get_u32(&r, UINT32_MAX >> 3);
    state.edge_count = get_u32(&r, UINT32_MAX - 64);
    state.migration_version = get_u32(&r, UINT32_MAX);
    state.phase = (enum sel_phase)get_u32(&r, SEL_PHASE_CANCELED);
    uint32_t run_count = get_u32(&r, UINT32_MAX);
    uint32_t child_count = get_u32(&r, UINT32_MAX);
    uint32_t reused_count = get_u32(&r, UINT32_MAX);
    put_back(&r, &state.start_args, get_bytes(&r));
    put_back(&r, &state.args, get_bytes(&r));
    get_runs(&r, &state, run_count);
    get_slots(&r, &state);
    get_list(&r, state.run_count, &state.due);
    check_lists(&r, &state);
    get_list(&r, state.run_count, &state.propagated);
    get_list(&r, UINT32_MAX, &state.skipped);
    get_ids(&r, &state, child_count, reused_count);
    get_edges(&r, &state);
    get_cursor(&r, &state);
    if (!r.error && r.pos != n)
        r.error = SEL_EFORMAT;
    if (r.error) {
        if (!state.slots)
            state.slot_count = 0;
        sel_state_done(&state);
        return r.error;
    }
    *ret = state;
    return 0;
}
