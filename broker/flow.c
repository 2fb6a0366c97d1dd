/* Flows as the broker knows them: an entry as a task has one, attempts, runs that are open or whose
 * ends are to be told, and bytes that are kept for dispatchers.
 *
 * Runs and pieces are entries of the same table, so that delivery, retries and the journal know no
 * difference. A run belongs to an attempt; when that is not the flow's current one any more, the
 * run is detached: its end closes it and reaches nobody. */
#include "broker/flow_log.h"
#include "broker/internal.h"
#include "core/mem.h"

uint8_t **sel_broker_blob_at(struct sel_task_entry *task)
{
    return task->kind == SEL_KIND_FLOW ? &task->flow->blob : &task->blob;
}

/* ---- lists of entries, by next and prev ---- */

static void list_add(struct sel_broker *b, uint32_t *first, uint32_t *last, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->next = SEL_NONE;
    entry->prev = *last;
    if (*last == SEL_NONE)
        *first = i;
    else
        sel_broker_task_at(b, *last)->next = i;
    *last = i;
}

static void list_remove(struct sel_broker *b, uint32_t *first, uint32_t *last, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->prev == SEL_NONE)
        *first = entry->next;
    else
        sel_broker_task_at(b, entry->prev)->next = entry->next;
    if (entry->next == SEL_NONE)
        *last = entry->prev;
    else
        sel_broker_task_at(b, entry->next)->prev = entry->prev;
    entry->next = entry->prev = SEL_NONE;
}

/* ---- flows and attempts ---- */

bool sel_broker_flow_init(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    SEL_ASSERT(entry->kind == SEL_KIND_TASK && !entry->blob);
    struct sel_flow *flow = sel_pool_alloc(&b->pool, sizeof(*flow));
    if (!flow)
        return false;
    *flow = (struct sel_flow){.id = entry->id,
                              .entry = i,
                              .refs = 1,
                              .args = SEL_NONE,
                              .nodes = SEL_NONE,
                              .since_us = b->now.mono_us};
    entry->kind = SEL_KIND_FLOW;
    entry->flow = flow;
    return true;
}

void sel_broker_flow_set_name(struct sel_broker *b, struct sel_flow *flow, struct sel_str name)
{
    if (flow->name || name.n == 0 || name.n > UINT8_MAX)
        return;
    flow->name = sel_pool_alloc(&b->pool, name.n);
    if (!flow->name)
        return;
    memcpy(flow->name, name.p, name.n);
    flow->name_size = (uint8_t)name.n;
}

struct sel_flow_try *sel_broker_try_new(struct sel_broker *b, struct sel_flow *flow,
                                        uint16_t attempt)
{
    struct sel_flow_try *t = sel_pool_alloc(&b->pool, sizeof(*t));
    if (!t)
        return NULL;
    *t = (struct sel_flow_try){.flow = flow,
                               .refs = 1,
                               .attempt = attempt,
                               .args = SEL_NONE,
                               .ended_first = SEL_NONE,
                               .ended_last = SEL_NONE,
                               .kept_first = SEL_NONE,
                               .untold = SEL_NONE,
                               .piece_first = SEL_NONE,
                               .piece_last = SEL_NONE,
                               .new_state = SEL_NONE};
    flow->refs++;
    return t;
}

void sel_broker_try_ref(struct sel_flow_try *t)
{
    t->refs++;
}

/* Frees an attempt that nobody needs. Its flow, to which its reference is now the caller's. */
static struct sel_flow *free_try(struct sel_broker *b, struct sel_flow_try *t)
{
    SEL_ASSERT(t->ended_first == SEL_NONE && t->kept_first == SEL_NONE && !t->children);
    struct sel_flow *flow = t->flow;
    sel_broker_piece_unref(b, t->args);
    sel_buf_done(&t->partial);
    sel_pool_free(&b->pool, t, sizeof(*t));
    return flow;
}

void sel_broker_try_unref(struct sel_broker *b, struct sel_flow_try *t)
{
    SEL_ASSERT(t->refs > 0);
    if (--t->refs == 0)
        sel_broker_flow_unref(b, free_try(b, t));
}

static void leave_parent(struct sel_flow *child)
{
    if (child->next_child)
        child->next_child->prev_child = child->prev_child;
    if (child->prev_child)
        child->prev_child->next_child = child->next_child;
    else
        child->parent->children = child->next_child;
}

/* A flow goes with its entry and its last attempt, and may take its parent along, as far up as
 * flows lie in flows. */
void sel_broker_flow_unref(struct sel_broker *b, struct sel_flow *flow)
{
    while (flow && --flow->refs == 0) {
        struct sel_flow_try *parent = flow->parent;
        if (parent)
            leave_parent(flow);
        sel_broker_piece_unref(b, flow->args);
        sel_pool_free(&b->pool, flow->name, flow->name_size);
        sel_pool_free(&b->pool, flow, sizeof(*flow));
        flow = parent && --parent->refs == 0 ? free_try(b, parent) : NULL;
    }
}

void sel_broker_flow_adopt(struct sel_flow *child, struct sel_flow_try *parent, uint32_t ordinal)
{
    child->parent = parent;
    child->ordinal = ordinal;
    child->prev_child = NULL;
    child->next_child = parent->children;
    if (parent->children)
        parent->children->prev_child = child;
    parent->children = child;
    sel_broker_try_ref(parent);
}

/* An entry leaves the lists of the attempt. */
static void let_go(struct sel_broker *b, uint32_t i)
{
    if (sel_broker_task_at(b, i)->kind == SEL_KIND_RUN)
        sel_broker_run_remove(b, i);
    else
        sel_broker_task_unpin(b, i); /* a sub-flow: kept as a result for a while */
}

static void drop_pieces(struct sel_broker *b, struct sel_flow_try *t)
{
    while (t->piece_first != SEL_NONE) {
        uint32_t piece = t->piece_first;
        list_remove(b, &t->piece_first, &t->piece_last, piece);
        sel_broker_piece_unref(b, piece);
    }
    t->new_state = SEL_NONE;
}

static void forget_try(struct sel_broker *b, struct sel_flow_try *t)
{
    while (t->ended_first != SEL_NONE) {
        uint32_t i = t->ended_first;
        list_remove(b, &t->ended_first, &t->ended_last, i);
        let_go(b, i);
    }
    while (t->kept_first != SEL_NONE) {
        uint32_t i = t->kept_first;
        t->kept_first = sel_broker_task_at(b, i)->next;
        sel_broker_task_at(b, i)->next = SEL_NONE;
        let_go(b, i);
    }
    t->untold = SEL_NONE;
    t->ended_count = t->kept_count = 0;
    drop_pieces(b, t);
    sel_buf_done(&t->partial);
}

void sel_broker_flow_set_try(struct sel_broker *b, uint32_t i, struct sel_flow_try *t)
{
    struct sel_flow *flow = sel_broker_task_at(b, i)->flow;
    struct sel_flow_try *old = flow->current;
    sel_broker_flow_disown(b, flow);
    sel_broker_flow_set_waits(b, flow, 0);
    flow->current = t;
    if (old) {
        forget_try(b, old);
        sel_broker_try_unref(b, old);
    }
}

void sel_broker_flow_gone(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow *flow = entry->flow;
    sel_broker_flow_set_try(b, i, NULL);
    sel_broker_flow_set_nodes(b, flow, SEL_NONE);
    SEL_ASSERT(!flow->blob);
    flow->entry = SEL_NONE;
    entry->flow = NULL;
    entry->kind = SEL_KIND_TASK;
    sel_broker_flow_unref(b, flow);
}

/* ---- what is open below a flow ---- */

void sel_broker_flow_set_waits(struct sel_broker *b, struct sel_flow *flow, uint32_t count)
{
    bool waited = flow->waits_for > 0, waits = count > 0;
    flow->waits_for = count;
    if (waited == waits || flow->entry == SEL_NONE)
        return;
    const struct sel_task_entry *entry = sel_broker_task_at(b, flow->entry);
    if (entry->state != SEL_TASK_DELIVERED)
        return;
    struct sel_broker_session *s = b->sessions[entry->holder];
    s->flows_in_flight = waits ? s->flows_in_flight - 1 : s->flows_in_flight + 1;
}

void sel_broker_flow_be_done(struct sel_broker *b, struct sel_flow *flow)
{
    flow->is_done = true;
    sel_broker_piece_unref(b, flow->args); /* no run is left that could need them */
    flow->args = SEL_NONE;
    if (flow->has_tree_pin) {
        flow->has_tree_pin = false;
        sel_broker_task_release_all(b, flow->entry);
        sel_broker_task_unpin(b, flow->entry);
    }
}

void sel_broker_flow_count_closed(struct sel_broker *b, struct sel_flow *flow)
{
    for (;;) {
        SEL_ASSERT(flow->open_count > 0);
        flow->open_count--;
        bool is_over = flow->open_count == 0 && flow->entry != SEL_NONE &&
                       sel_broker_task_at(b, flow->entry)->state == SEL_TASK_ENDED;
        if (!is_over || flow->is_done)
            return;
        struct sel_flow_try *parent = flow->parent;
        sel_broker_flow_be_done(b, flow);
        if (!parent)
            return;
        flow = parent->flow;
    }
}

/* ---- runs ---- */

struct sel_run_group *sel_broker_group_new(struct sel_broker *b, struct sel_str fields)
{
    struct sel_run_group *group = sel_pool_alloc(&b->pool, sizeof(*group) + fields.n);
    if (!group)
        return NULL;
    *group = (struct sel_run_group){
        .args = SEL_NONE, .parents = SEL_NONE, .fields_size = (uint16_t)fields.n};
    memcpy(group->fields, fields.p, fields.n);
    return group;
}

void sel_broker_group_unref(struct sel_broker *b, struct sel_run_group *group, uint32_t count)
{
    SEL_ASSERT(group->refs >= count);
    group->refs -= count;
    if (group->refs > 0)
        return;
    sel_broker_piece_unref(b, group->args);
    sel_broker_piece_unref(b, group->parents);
    sel_pool_free(&b->pool, group, sizeof(*group) + group->fields_size);
}

/* Out of the table; it is in no list. */
void sel_broker_run_remove(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow_try *t = entry->attempt;
    SEL_ASSERT(entry->kind == SEL_KIND_RUN);
    if (entry->state != SEL_TASK_ENDED && entry->group) {
        sel_broker_group_unref(b, entry->group, 1);
        entry->group = NULL;
    }
    sel_broker_task_free_blob(b, i);
    sel_broker_log_release(b, i);
    entry->extra = entry->watcher = SEL_NONE;
    if (entry->state == SEL_TASK_ENDED)
        entry->pins = 0;
    sel_broker_task_remove(b, i);
    sel_broker_try_unref(b, t);
}

void sel_broker_try_add_ended(struct sel_broker *b, struct sel_flow_try *t, uint32_t i)
{
    list_add(b, &t->ended_first, &t->ended_last, i);
    t->ended_count++;
    if (t->untold == SEL_NONE && (t->flow->is_live || t->flow->load != SEL_LOAD_NONE))
        t->untold = i;
    sel_broker_flow_tell(b, t->flow);
}

static void flow_ended(struct sel_broker *b, uint32_t i)
{
    struct sel_flow *flow = sel_broker_task_at(b, i)->flow;
    struct sel_flow_try *parent = flow->parent;
    flow->since_us = b->now.mono_us;
    if (flow->open_count > 0) {
        flow->has_tree_pin = true;
        sel_broker_task_pin(b, i);
    } else {
        sel_broker_flow_be_done(b, flow);
    }
    if (!parent)
        return;
    if (sel_broker_try_is_current(parent) && !flow->is_nowait) {
        sel_broker_flow_set_waits(b, parent->flow, parent->flow->waits_for - 1);
        sel_broker_task_pin(b, i);
        sel_broker_try_add_ended(b, parent, i);
    }
    if (flow->is_done)
        sel_broker_flow_count_closed(b, parent->flow);
}

void sel_broker_run_ended(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->kind == SEL_KIND_FLOW) {
        flow_ended(b, i);
        return;
    }
    struct sel_flow_try *t = entry->attempt;
    sel_broker_try_ref(t);
    /* In an entry that has ended `unknown_since` is gone; `pins` says who waits for its end. */
    if (entry->pins && sel_broker_try_is_current(t))
        sel_broker_try_add_ended(b, t, i);
    else
        sel_broker_run_remove(b, i);
    sel_broker_flow_count_closed(b, t->flow);
    sel_broker_try_unref(b, t);
}

uint32_t sel_broker_try_find_ended(const struct sel_broker *b, const struct sel_flow_try *t,
                                   uint32_t ordinal)
{
    /* Dispatchers use ends in the order in which they hear of them: the first is the one. */
    for (uint32_t i = t->ended_first; i != SEL_NONE && i != t->untold;) {
        const struct sel_task_entry *entry = sel_broker_task_at(b, i);
        uint32_t own = entry->kind == SEL_KIND_RUN ? entry->extra : entry->flow->ordinal;
        if (own == ordinal)
            return i;
        i = entry->next;
    }
    return SEL_NONE;
}

void sel_broker_run_consume(struct sel_broker *b, struct sel_flow_try *t, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (t->untold == i)
        t->untold = entry->next;
    list_remove(b, &t->ended_first, &t->ended_last, i);
    t->ended_count--;
    if (entry->blob_size == 0) {
        let_go(b, i);
        return;
    }
    entry->flags |= SEL_TASK_CONSUMED;
    entry->next = t->kept_first;
    t->kept_first = i;
    t->kept_count++;
}

/* ---- pieces ---- */

/* Ids of pieces: never those of tasks, which have a variant of UUIDs. */
struct sel_id sel_broker_piece_id(struct sel_broker *b)
{
    return (struct sel_id){(uint64_t)b->incarnation << 32 | b->options.shard, ++b->sequence};
}

uint32_t sel_broker_piece_new(struct sel_broker *b, struct sel_id id, enum sel_piece_type type,
                              uint8_t level, struct sel_str bytes,
                              const struct sel_log_place *place)
{
    uint32_t i = sel_broker_task_add(b, id);
    if (i == SEL_NONE)
        return SEL_NONE;
    struct sel_task_entry *piece = sel_broker_task_at(b, i);
    piece->kind = SEL_KIND_PIECE;
    piece->queue = (uint16_t)type;
    piece->level = level & 3u;
    piece->holder = 1;
    sel_broker_task_set_state(b, i, SEL_TASK_PIECE);
    if (place)
        sel_broker_log_claim(b, i, *place, bytes.n + SEL_FLOW_REF_SIZE);
    if (!sel_broker_task_keep_blob(b, i, (struct sel_str){NULL, 0}, bytes)) {
        sel_broker_log_release(b, i);
        sel_broker_task_remove(b, i);
        return SEL_NONE;
    }
    return i;
}

void sel_broker_piece_ref(struct sel_broker *b, uint32_t piece)
{
    if (piece != SEL_NONE)
        sel_broker_task_at(b, piece)->holder++;
}

void sel_broker_piece_unref(struct sel_broker *b, uint32_t piece)
{
    if (piece == SEL_NONE)
        return;
    struct sel_task_entry *entry = sel_broker_task_at(b, piece);
    SEL_ASSERT(entry->kind == SEL_KIND_PIECE && entry->holder > 0);
    if (--entry->holder > 0)
        return;
    sel_broker_task_free_blob(b, piece);
    sel_broker_log_release(b, piece);
    entry->extra = SEL_NONE;
    sel_broker_task_remove(b, piece);
}

void sel_broker_flow_set_nodes(struct sel_broker *b, struct sel_flow *flow, uint32_t piece)
{
    uint32_t old = flow->nodes;
    flow->nodes = piece;
    sel_broker_piece_unref(b, old);
}

static bool is_behind(const struct sel_task_entry *x, const struct sel_task_entry *y)
{
    return x->extra != y->extra ? x->extra > y->extra : x->id.lo > y->id.lo;
}

void sel_broker_try_add_piece(struct sel_broker *b, struct sel_flow_try *t, uint32_t piece)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, piece);
    uint32_t after = t->piece_last; /* in a replay it may be late */
    while (after != SEL_NONE && is_behind(sel_broker_task_at(b, after), entry))
        after = sel_broker_task_at(b, after)->prev;
    if (after == t->piece_last) {
        list_add(b, &t->piece_first, &t->piece_last, piece);
        return;
    }
    struct sel_task_entry *own = sel_broker_task_at(b, piece);
    own->prev = after;
    own->next = after == SEL_NONE ? t->piece_first : sel_broker_task_at(b, after)->next;
    sel_broker_task_at(b, own->next)->prev = piece;
    if (after == SEL_NONE)
        t->piece_first = piece;
    else
        sel_broker_task_at(b, after)->next = piece;
}

void sel_broker_try_drop_pieces(struct sel_broker *b, struct sel_flow_try *t, uint32_t until)
{
    while (t->piece_first != SEL_NONE && t->piece_first != until) {
        sel_broker_try_drop_piece(b, t, t->piece_first);
    }
}

void sel_broker_try_drop_piece(struct sel_broker *b, struct sel_flow_try *t, uint32_t piece)
{
    list_remove(b, &t->piece_first, &t->piece_last, piece);
    sel_broker_piece_unref(b, piece);
}

void sel_broker_try_drop_new_state(struct sel_broker *b, struct sel_flow_try *t)
{
    while (t->new_state != SEL_NONE) {
        uint32_t piece = t->new_state;
        t->new_state = sel_broker_task_at(b, piece)->next;
        sel_broker_try_drop_piece(b, t, piece);
    }
}

/* ---- what a worker gets ---- */

/* Appends the bytes of a task's entry, its payload alone. */
static int put_payload(struct sel_broker *b, uint32_t i, struct sel_buf *buf)
{
    struct sel_str fields, payload;
    int r = sel_broker_task_get_blob(b, i, &fields, &payload);
    if (r == 0)
        sel_buf_put_str(buf, payload);
    return r;
}

int sel_broker_put_args(struct sel_broker *b, const struct sel_flow_try *t, uint32_t args,
                        struct sel_buf *buf)
{
    const struct sel_flow *flow = t->flow;
    struct sel_str fields, payload;
    struct sel_wire_run run = {0};
    if (args == SEL_NONE)
        args = t->args != SEL_NONE ? t->args : flow->args;
    if (args != SEL_NONE)
        return put_payload(b, args, buf);
    int r = sel_broker_task_get_blob(b, flow->entry, &fields, &payload);
    if (r < 0)
        return r;
    if (flow->parent && sel_wire_find_run(fields, &run) && run.parents_size <= payload.n)
        payload.n -= run.parents_size;
    sel_buf_put_str(buf, payload);
    return 0;
}

int sel_broker_run_describe(struct sel_broker *b, uint32_t i, struct sel_str *ret_fields,
                            struct sel_str *ret_payload)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, i);
    const struct sel_run_group *group = entry->group;
    struct sel_flow_try *t = entry->attempt;
    sel_buf_clear(&b->scratch3);
    int r = sel_broker_put_args(b, t, group->args, &b->scratch3);
    size_t args_size = b->scratch3.n;
    if (r == 0 && group->parents != SEL_NONE)
        r = put_payload(b, group->parents, &b->scratch3);
    if (r < 0)
        return r;
    const struct sel_wire_run run = {
        .flow = t->flow->id,
        .attempt = t->attempt,
        .ordinal = entry->extra,
        .parents_size = (uint32_t)(b->scratch3.n - args_size),
        .retries = entry->fields_size,
        .flags = group->run_flags,
    };
    sel_buf_clear(&b->scratch2);
    sel_wire_put_run(&b->scratch2,
                     (struct sel_str){(const char *)group->fields, group->fields_size}, &run);
    if ((r = sel_buf_error(&b->scratch3)) == 0)
        r = sel_buf_error(&b->scratch2);
    *ret_fields = sel_buf_str(&b->scratch2);
    *ret_payload = sel_buf_str(&b->scratch3);
    return r;
}

/* ---- throttling ---- */

/* Names are known again by their hash: two that share one would be throttled together. */
static struct sel_id throttle_id(struct sel_str name)
{
    return (struct sel_id){sel_hash_bytes(name.p, name.n, 1) & ~UINT64_C(0xf000),
                           sel_hash_bytes(name.p, name.n, 2) & ~(UINT64_C(3) << 62)};
}

int sel_broker_throttle(struct sel_broker *b, struct sel_str name, uint64_t interval_us,
                        uint64_t count, uint8_t level, int64_t *ret_us)
{
    struct sel_id id = throttle_id(name);
    uint32_t i = sel_broker_task_find(b, id);
    if (i == SEL_NONE) {
        i = sel_broker_piece_new(b, id, SEL_PIECE_THROTTLE, level, (struct sel_str){NULL, 0}, NULL);
        if (i == SEL_NONE)
            return SEL_ENOMEM;
    }
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    int64_t first = entry->at_us > b->now.mono_us ? entry->at_us : b->now.mono_us;
    uint64_t most = (uint64_t)SEL_WAIT_US_MAX;
    uint64_t step = interval_us > most / count ? most : interval_us * count;
    int64_t next = first > b->now.mono_us + SEL_WAIT_US_MAX ? first : first + (int64_t)step;
    if (level > SEL_LEVEL_MEMORY) {
        struct sel_log_place place;
        struct sel_mutation m = {.type = SEL_MUTATION_PIECE,
                                 .level = level,
                                 .id = id,
                                 .sequence = entry->sequence,
                                 .unix_us = b->now.unix_us + (next - b->now.mono_us),
                                 .code = SEL_PIECE_THROTTLE,
                                 .payload = name};
        int r = sel_broker_log_put(b, &m, level, &place);
        if (r < 0)
            return r;
        sel_broker_log_release(b, i);
        sel_broker_log_claim(b, i, place, name.n);
        entry->level = level & 3u;
    }
    entry->at_us = next;
    *ret_us = first;
    return 0;
}
