/* What people ask about flows. Long answers come in parts: what is told is bounded, and so is what
 * is looked at. */
#include "broker/query.h"

#define LIMIT_MAX 1000u
#define LOOKED_AT_MAX 1000000u /* entries, for one answer */
#define ORDINALS_MAX 65536u    /* the same, runs */
#define HISTORY_BYTES ((size_t)512 << 10)
#define PIECE_TOLD_MAX ((size_t)2 << 20) /* of one piece in one answer */

static int64_t age_us(const struct sel_broker *b, int64_t since_us)
{
    return b->now.mono_us > since_us ? b->now.mono_us - since_us : 0;
}

static const char *state_of(const struct sel_task_entry *entry)
{
    switch (entry->state) {
    case SEL_TASK_WAITING:
        return "waiting";
    case SEL_TASK_QUEUED:
        return "queued";
    case SEL_TASK_DELIVERED:
        return "running";
    case SEL_TASK_ENDED:
        return entry->code == SEL_OUTCOME_SUCCESS     ? "finished"
               : entry->code == SEL_OUTCOME_CANCELLED ? "cancelled"
                                                      : "failed";
    default:
        return "held";
    }
}

/* ---- what was asked for ---- */

static struct sel_str text_arg(const struct sel_broker_question *q, const char *key)
{
    const struct sel_value *value = sel_value_get_c(&q->q->args, key);
    return value && sel_value_is(value, SEL_TEXT) ? sel_value_str(value)
                                                  : (struct sel_str){NULL, 0};
}

uint64_t sel_broker_question_number(const struct sel_broker_question *q, const char *key,
                                    uint64_t value)
{
    const struct sel_value *arg = sel_value_get_c(&q->q->args, key);
    int64_t number;
    return arg && sel_value_is(arg, SEL_INT) && sel_value_i64(arg, &number) && number >= 0
               ? (uint64_t)number
               : value;
}

static uint32_t limit_arg(const struct sel_broker_question *q)
{
    uint64_t limit = sel_broker_question_number(q, "limit", LIMIT_MAX);
    return limit == 0 || limit > LIMIT_MAX ? LIMIT_MAX : (uint32_t)limit;
}

/* The entry that the text `key` names; 0, or an error with its text. */
static int entry_arg(struct sel_broker_question *q, const char *key, uint32_t *ret)
{
    struct sel_id id;
    if (!sel_id_parse(text_arg(q, key), &id)) {
        q->text = "the question needs the text of a UUID";
        return SEL_EREQUEST;
    }
    *ret = sel_broker_task_find(q->b, id);
    if (*ret != SEL_NONE && sel_broker_task_at(q->b, *ret)->state == SEL_TASK_ALIAS)
        *ret = sel_broker_task_at(q->b, *ret)->holder;
    if (*ret == SEL_NONE || sel_broker_task_at(q->b, *ret)->state == SEL_TASK_PIECE ||
        q->b->queue_count == 0) {
        q->text = "no such flow, or its result has been dropped";
        return SEL_ENOTFOUND;
    }
    return 0;
}

int sel_broker_question_flow(struct sel_broker_question *q, uint32_t *ret)
{
    int r = entry_arg(q, "id", ret);
    if (r == 0 && sel_broker_task_at(q->b, *ret)->kind != SEL_KIND_FLOW) {
        q->text = "this is a task, not a flow";
        r = SEL_ENOTFOUND;
    }
    return r;
}

/* ---- one flow ---- */

static void put_entry(struct sel_broker_question *q, struct sel_value_builder *map,
                      const struct sel_task_entry *entry)
{
    sel_value_put_c(map, "queue", sel_value_from_str(q->b->queues[entry->queue].name));
    sel_broker_put_text(map, q->arena, "state", state_of(entry));
    if (entry->state == SEL_TASK_WAITING)
        sel_broker_put_u64(
            map, "due_us",
            (uint64_t)(entry->at_us > q->b->now.mono_us ? entry->at_us - q->b->now.mono_us : 0));
}

static void put_owner(struct sel_broker_question *q, struct sel_value_builder *map,
                      const struct sel_task_entry *entry)
{
    sel_broker_put_u64(map, "delivery", entry->delivery);
    if (entry->state == SEL_TASK_DELIVERED)
        sel_broker_put_text(map, q->arena, "owner", q->b->sessions[entry->holder]->name);
}

static struct sel_str name_of(const struct sel_flow *flow)
{
    return (struct sel_str){flow->name, flow->name_size};
}

static void put_flow(struct sel_broker_question *q, struct sel_value_builder *map,
                     const struct sel_flow *flow)
{
    const struct sel_task_entry *entry = sel_broker_task_at(q->b, flow->entry);
    sel_broker_put_id(map, q->arena, "id", flow->id);
    sel_value_put_c(map, "name", sel_value_from_str(name_of(flow)));
    put_entry(q, map, entry);
    sel_broker_put_u64(map, "attempt", entry->try_count);
    sel_broker_put_u64(map, "level", entry->level);
    sel_broker_put_u64(map, "open", flow->open_count);
    if (flow->parent)
        sel_broker_put_id(map, q->arena, "parent", flow->parent->flow->id);
    sel_broker_put_u64(map, "age_us", (uint64_t)age_us(q->b, flow->since_us));
}

int sel_broker_ask_flow(struct sel_broker_question *q)
{
    uint32_t i;
    int r = entry_arg(q, "id", &i);
    if (r < 0)
        return r;
    const struct sel_task_entry *entry = sel_broker_task_at(q->b, i);
    struct sel_value_builder map;
    sel_value_begin_map(&map, q->arena);
    if (entry->kind == SEL_KIND_FLOW) {
        const struct sel_flow_try *t = entry->flow->current;
        put_flow(q, &map, entry->flow);
        sel_broker_put_u64(&map, "number", t ? t->number : 0);
        sel_broker_put_u64(&map, "ended", t ? t->ended_count : 0);
        sel_broker_put_u64(&map, "kept", t ? t->kept_count : 0);
    } else {
        struct sel_str fields = {NULL, 0}, payload;
        sel_broker_put_id(&map, q->arena, "id", entry->id);
        sel_broker_put_bool(&map, "task", true);
        if (entry->state != SEL_TASK_ENDED &&
            sel_broker_task_get_blob(q->b, i, &fields, &payload) == 0) {
            struct sel_str name = sel_broker_task_name(fields);
            char *copy = sel_arena_memdup(q->arena, name.p, name.n);
            map.failed |= !copy;
            sel_value_put_c(&map, "name", sel_value_from_str((struct sel_str){copy, name.n}));
        }
        put_entry(q, &map, entry);
        sel_broker_put_u64(&map, "try", entry->try_count);
    }
    put_owner(q, &map, entry);
    return sel_value_end(&map, q->body);
}

/* ---- flows ---- */

static bool is_wanted(const struct sel_broker *b, uint32_t i, struct sel_str name,
                      struct sel_str state)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, i);
    return entry->state != SEL_TASK_FREE && entry->state != SEL_TASK_ORPHAN &&
           entry->kind == SEL_KIND_FLOW &&
           (name.n == 0 || sel_str_eq(name, name_of(entry->flow))) &&
           (state.n == 0 || sel_str_eq_c(state, state_of(entry)));
}

int sel_broker_ask_flows(struct sel_broker_question *q)
{
    struct sel_broker *b = q->b;
    struct sel_str name = text_arg(q, "name"), state = text_arg(q, "state");
    uint32_t limit = limit_arg(q), count = 0, i = 0;
    struct sel_id last = {0, 0}; /* what can be asked for as `after` */
    uint32_t end = b->tasks.chunk_count << SEL_TASK_CHUNK_BITS;
    if (text_arg(q, "after").n) {
        int r = entry_arg(q, "after", &i);
        if (r < 0)
            return r;
        i++;
    }
    struct sel_value_builder list, map;
    struct sel_value value = sel_value_null;
    sel_value_begin_list(&list, q->arena);
    for (uint32_t looked = 0; i < end && count < limit; i++, looked++) {
        const struct sel_task_entry *entry = sel_broker_task_at(b, i);
        bool has_id = entry->state != SEL_TASK_FREE && entry->state != SEL_TASK_PIECE;
        if (looked >= LOOKED_AT_MAX && (last.hi | last.lo))
            break;
        if (has_id && entry->state != SEL_TASK_ALIAS)
            last = entry->id;
        if (!is_wanted(b, i, name, state))
            continue;
        sel_value_begin_map(&map, q->arena);
        put_flow(q, &map, sel_broker_task_at(b, i)->flow);
        list.failed |= sel_value_end(&map, &value) < 0;
        sel_value_add(&list, value);
        count++;
    }
    int r = sel_value_end(&list, &value);
    sel_value_begin_map(&map, q->arena);
    sel_value_put_c(&map, "flows", value);
    if (i < end)
        sel_broker_put_id(&map, q->arena, "next", last);
    return r < 0 ? r : sel_value_end(&map, q->body);
}

/* ---- open runs ---- */

static void add_run(struct sel_broker_question *q, struct sel_value_builder *list, uint32_t i)
{
    const struct sel_task_entry *entry = sel_broker_task_at(q->b, i);
    bool is_flow = entry->kind == SEL_KIND_FLOW;
    struct sel_str name =
        is_flow ? name_of(entry->flow)
                : sel_broker_task_name((struct sel_str){(const char *)entry->group->fields,
                                                        entry->group->fields_size});
    struct sel_value_builder map;
    struct sel_value value = sel_value_null;
    sel_value_begin_map(&map, q->arena);
    sel_broker_put_u64(&map, "ordinal", is_flow ? entry->flow->ordinal : entry->extra);
    sel_value_put_c(&map, "name", sel_value_from_str(name));
    put_entry(q, &map, entry);
    sel_broker_put_u64(&map, "try", entry->try_count);
    sel_broker_put_u64(&map, "retries", is_flow ? entry->try_count : entry->fields_size);
    put_owner(q, &map, entry);
    if (entry->state == SEL_TASK_QUEUED || entry->state == SEL_TASK_DELIVERED)
        sel_broker_put_u64(&map, "age_us", (uint64_t)age_us(q->b, entry->at_us));
    if (is_flow)
        sel_broker_put_id(&map, q->arena, "flow", entry->id);
    list->failed |= sel_value_end(&map, &value) < 0;
    sel_value_add(list, value);
}

/* Sub-flows first, with the first part of the answer. */
static uint32_t add_children(struct sel_broker_question *q, struct sel_value_builder *list,
                             const struct sel_flow_try *t, uint32_t limit)
{
    uint32_t count = 0;
    for (const struct sel_flow *child = t->children; child && count < limit;
         child = child->next_child) {
        if (child->entry == SEL_NONE ||
            sel_broker_task_at(q->b, child->entry)->state == SEL_TASK_ENDED)
            continue;
        add_run(q, list, child->entry);
        count++;
    }
    return count;
}

int sel_broker_ask_flow_runs(struct sel_broker_question *q)
{
    uint32_t i, count = 0, limit = limit_arg(q);
    int r = sel_broker_question_flow(q, &i);
    if (r < 0)
        return r;
    const struct sel_flow *flow = sel_broker_task_at(q->b, i)->flow;
    const struct sel_flow_try *t = flow->current;
    bool goes_on = sel_value_get_c(&q->q->args, "after") != NULL;
    uint64_t ordinal = goes_on ? sel_broker_question_number(q, "after", 0) + 1 : 0;
    struct sel_value_builder list, map;
    struct sel_value value = sel_value_null;
    sel_value_begin_list(&list, q->arena);
    if (t && !goes_on)
        count = add_children(q, &list, t, limit);
    uint32_t looked = 0;
    for (; t && ordinal < t->next_ordinal && count < limit && looked < ORDINALS_MAX;
         ordinal++, looked++) {
        uint32_t run =
            sel_broker_task_find(q->b, sel_wire_run_id(flow->id, t->attempt, (uint32_t)ordinal));
        if (run == SEL_NONE || sel_broker_task_at(q->b, run)->kind != SEL_KIND_RUN ||
            sel_broker_task_at(q->b, run)->state == SEL_TASK_ENDED)
            continue;
        add_run(q, &list, run);
        count++;
    }
    r = sel_value_end(&list, &value);
    sel_value_begin_map(&map, q->arena);
    sel_value_put_c(&map, "runs", value);
    if (t && ordinal > 0 && ordinal < t->next_ordinal)
        sel_broker_put_u64(&map, "next", ordinal - 1);
    return r < 0 ? r : sel_value_end(&map, q->body);
}

/* ---- history ---- */

int sel_broker_question_read(struct sel_broker *b, uint32_t i, uint64_t offset, size_t n,
                             struct sel_str *ret)
{
    const struct sel_task_entry *piece = sel_broker_task_at(b, i);
    if (offset > piece->blob_size || n > piece->blob_size - offset)
        return SEL_EFORMAT;
    if (!piece->blob && n > 0)
        return sel_broker_log_read(b, piece->log_seq, piece->log_offset + offset, n, ret);
    *ret = (struct sel_str){piece->blob ? (const char *)piece->blob + offset : NULL, n};
    return 0;
}

/* From `offset` on, as much as there is room for. Nothing if it cannot be read now: what can is
 * told. How many bytes. */
static size_t add_item(struct sel_broker_question *q, struct sel_value_builder *list, uint32_t i,
                       uint64_t offset)
{
    const struct sel_task_entry *piece = sel_broker_task_at(q->b, i);
    struct sel_str bytes;
    struct sel_value_builder map;
    struct sel_value value = sel_value_null;
    size_t n = offset < piece->blob_size ? piece->blob_size - offset : 0;
    if (n > PIECE_TOLD_MAX) /* of a decision on very many nodes at once */
        n = PIECE_TOLD_MAX;
    if (sel_broker_question_read(q->b, i, offset, n, &bytes) < 0)
        return 0;
    void *copy = sel_arena_memdup(q->arena, bytes.p, bytes.n);
    sel_value_begin_map(&map, q->arena);
    map.failed |= !copy;
    sel_broker_put_u64(&map, "number", piece->extra);
    sel_broker_put_text(&map, q->arena, "kind",
                        piece->queue == SEL_PIECE_STATE ? "state" : "events");
    sel_broker_put_u64(&map, "age_us", (uint64_t)age_us(q->b, piece->at_us));
    sel_broker_put_u64(&map, "size", piece->blob_size);
    sel_value_put_c(&map, "bytes", sel_value_from_bin((struct sel_str){copy, bytes.n}));
    list->failed |= sel_value_end(&map, &value) < 0;
    sel_value_add(list, value);
    return bytes.n;
}

int sel_broker_ask_flow_history(struct sel_broker_question *q)
{
    uint32_t i;
    int r = sel_broker_question_flow(q, &i);
    if (r < 0)
        return r;
    const struct sel_flow_try *t = sel_broker_task_at(q->b, i)->flow->current;
    uint64_t from = sel_broker_question_number(q, "from", 0), at = 0;
    uint64_t offset = sel_broker_question_number(q, "offset", 0), rest = 0;
    uint32_t piece = t ? t->piece_first : SEL_NONE, count = 0;
    size_t bytes = 0;
    struct sel_value_builder list, map;
    struct sel_value value = sel_value_null;
    sel_value_begin_list(&list, q->arena);
    for (; piece != SEL_NONE && count < LIMIT_MAX; at++) {
        const struct sel_task_entry *entry = sel_broker_task_at(q->b, piece);
        if (at >= from) {
            if (count > 0 && bytes + entry->blob_size > HISTORY_BYTES)
                break;
            size_t told = add_item(q, &list, piece, offset);
            rest = told > 0 && offset + told < entry->blob_size ? offset + told : 0;
            if (rest > 0)
                break;
            bytes += told;
            offset = 0; /* of the first */
            count++;
        }
        piece = entry->next;
    }
    r = sel_value_end(&list, &value);
    sel_value_begin_map(&map, q->arena);
    sel_value_put_c(&map, "items", value);
    if (piece != SEL_NONE)
        sel_broker_put_u64(&map, "next", at);
    if (rest > 0)
        sel_broker_put_u64(&map, "offset", rest);
    return r < 0 ? r : sel_value_end(&map, q->body);
}
