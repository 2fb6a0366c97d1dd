/* What dispatchers say of their flows: DECIDE, STATE.
 *
 * A decision is taken in three steps: it is checked against what the flow has; all that it needs
 * memory for is made, and journaled as one group; then it counts, which cannot fail any more. */
#include <inttypes.h>

#include "broker/flow_log.h"
#include "broker/internal.h"
#include "core/mem.h"
#include "proto/decision.h"
#include "storage/journal.h"

/* A decision is one batch of the journal, with room for what else is in it. */
#define GROUP_BYTES_MAX (SEL_JOURNAL_BATCH_MAX - ((size_t)10 << 20))

struct taking {
    struct sel_broker *b;
    struct sel_broker_session *s;
    uint32_t flow_entry;
    struct sel_flow *flow;
    struct sel_flow_try *t;
    const struct sel_decision *d;
    uint8_t level;
    bool is_logged;
    struct sel_log_mark mark;
    uint32_t *blobs; /* pieces by index; those that are made */
    uint32_t blobs_made;
    struct sel_str blob_rest;
    uint32_t events;               /* its piece, SEL_NONE: none */
    struct sel_run_group **groups; /* of starts of tasks, by start; NULL: a sub-flow */
    struct sel_log_place *places;  /* of what was journaled, by start */
    size_t *shares;
    uint32_t groups_made;
    bool made_args;                /* what open runs need of the submit is kept */
    uint8_t *result;               /* with an end: the blob of the result */
    uint32_t nodes;                /* the same: their piece, SEL_NONE: none */
    struct sel_flow_try *next_try; /* with an end that begins anew */
    struct sel_log_place end_place;
};

/* ---- whether it can be taken ---- */

static uint32_t queue_of(const struct sel_broker_session *s, uint16_t number)
{
    return number < s->queue_cap && s->queues[number] ? s->queues[number] - 1u : SEL_NONE;
}

/* NULL: it can. */
static const char *why_not(struct sel_broker *b, const struct sel_broker_session *s,
                           const struct sel_flow *flow, const struct sel_decision *d)
{
    const struct sel_flow_try *t = flow->current;
    if (d->number != t->number + 1)
        return "a gap in the numbers of decisions";
    if (!flow->is_live)
        return "a decision before LIVE";
    struct sel_str rest = d->starts;
    for (uint32_t i = 0; i < d->start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&rest, &start);
        if (i == 0 && start.ordinal < t->next_ordinal)
            return "an ordinal that was used before";
        if (queue_of(s, start.queue) == SEL_NONE)
            return "no queue was named for the number of a start";
        if (start.flags & SEL_START_FLOW && sel_broker_task_find(b, start.child) != SEL_NONE)
            return "the id of a sub-flow is in use";
    }
    return NULL;
}

/* The ends that it used are there. They leave the list one after the other, so that each is the
 * first: but not before it is known that all are there. */
static const char *why_not_consumed(const struct sel_broker *b, const struct sel_flow_try *t,
                                    const struct sel_decision *d)
{
    if (d->consumed_count > t->ended_count)
        return "it uses the end of a run that has not ended";
    for (uint32_t i = 0; i < d->consumed_count; i++) {
        uint32_t ordinal = sel_decision_consumed(d, i);
        for (uint32_t k = 0; k < i && d->consumed_count < 64; k++) {
            if (sel_decision_consumed(d, k) == ordinal)
                return "it uses the end of a run twice";
        }
        if (sel_broker_try_find_ended(b, t, ordinal) == SEL_NONE)
            return "it uses the end of a run that has not ended";
    }
    return NULL;
}

/* ---- making what it needs ---- */

/* A piece that is in the journal first, if the flow is. */
static int make_piece(struct taking *g, enum sel_piece_type type, uint32_t number,
                      struct sel_str bytes, uint32_t *ret)
{
    struct sel_broker *b = g->b;
    struct sel_log_place place;
    struct sel_id id = {0, 0};
    if (g->is_logged) {
        id = sel_broker_piece_id(b);
        int r = sel_broker_log_piece(b, g->t, id, type, number, 0, g->level, bytes, &place);
        if (r < 0)
            return r;
    }
    *ret = sel_broker_piece_new(b, id, type, g->level, bytes, g->is_logged ? &place : NULL);
    return *ret == SEL_NONE ? SEL_ENOMEM : 0;
}

static int make_blob(struct taking *g, uint32_t i)
{
    struct sel_str bytes = sel_decision_next_blob(g->d, i, &g->blob_rest);
    uint32_t role = g->d->set_args == i + 1 ? SEL_BLOB_OF_TRY : SEL_BLOB_PLAIN;
    int r = make_piece(g, SEL_PIECE_BLOB, role, bytes, &g->blobs[i]);
    if (r == 0)
        g->blobs_made++;
    return r;
}

static int make_events(struct taking *g)
{
    if (g->d->is_end)
        return 0; /* nobody goes on from there */
    int r = make_piece(g, SEL_PIECE_EVENTS, g->d->number, g->d->events, &g->events);
    if (r == 0)
        sel_broker_task_at(g->b, g->events)->extra = g->d->number;
    return r;
}

/* When the first of `count` starts may run; 0: at once. */
static int due_of(struct taking *g, const struct sel_decision_start *start, int64_t *ret)
{
    struct sel_broker *b = g->b;
    struct sel_str name = sel_wire_find_field(start->fields, SEL_FIELD_TASK);
    int64_t wait = start->countdown_us > (uint64_t)SEL_WAIT_US_MAX ? SEL_WAIT_US_MAX
                                                                   : (int64_t)start->countdown_us;
    int64_t due = wait ? b->now.mono_us + wait : 0, slot;
    *ret = due;
    if (start->throttle_us == 0)
        return 0;
    int r = sel_broker_throttle(b, name, start->throttle_us, start->count, g->level, &slot);
    if (r == 0)
        *ret = slot > due ? slot : due;
    return r;
}

static uint32_t new_entry(struct taking *g, uint32_t queue, struct sel_id id)
{
    struct sel_broker *b = g->b;
    if (!sel_mem_grow(&b->fresh, &b->fresh_cap, (uint64_t)b->fresh_count + 1, sizeof(*b->fresh)))
        return SEL_NONE;
    uint32_t i = sel_broker_task_find(b, id);
    if (i != SEL_NONE) /* somebody asked for it, or it is not this flow's: never so by chance */
        return SEL_NONE;
    i = sel_broker_task_add(b, id);
    if (i == SEL_NONE)
        return SEL_NONE;
    b->fresh[b->fresh_count++] = i;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->queue = (uint16_t)queue;
    entry->priority = sel_broker_task_at(b, g->flow_entry)->priority;
    entry->level = g->level & 3u;
    return i;
}

static int make_runs(struct taking *g, const struct sel_decision_start *start, uint32_t at)
{
    struct sel_broker *b = g->b;
    struct sel_id flow_id = sel_broker_task_at(b, g->flow_entry)->id;
    uint32_t first = b->fresh_count;
    int64_t due;
    struct sel_run_group *group = sel_broker_group_new(b, start->fields);
    if (!group)
        return SEL_ENOMEM;
    g->groups[at] = group;
    group->refs = 1; /* until all are made */
    group->is_nowait = start->flags & SEL_START_NOWAIT;
    group->run_flags = start->run_flags;
    group->args = start->args ? g->blobs[start->args - 1] : SEL_NONE;
    group->parents = start->parents ? g->blobs[start->parents - 1] : SEL_NONE;
    sel_broker_piece_ref(b, group->args);
    sel_broker_piece_ref(b, group->parents);
    int r = due_of(g, start, &due);
    for (uint32_t k = 0; r == 0 && k < start->count; k++) {
        struct sel_id id = sel_wire_run_id(flow_id, g->t->attempt, start->ordinal + k);
        uint32_t i = new_entry(g, queue_of(g->s, start->queue), id);
        if (i == SEL_NONE)
            return SEL_ENOMEM;
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        entry->kind = SEL_KIND_RUN;
        entry->attempt = g->t;
        sel_broker_try_ref(g->t);
        entry->group = group;
        group->refs++;
        entry->extra = start->ordinal + k;
        entry->at_us = due + (int64_t)(k * start->throttle_us); /* see due_of */
        if (entry->at_us && !sel_broker_timer_reserve(b, b->fresh_count))
            r = SEL_ENOMEM;
    }
    if (r == 0 && g->is_logged)
        r = sel_broker_log_runs(b, g->t, b->fresh + first, start->count, start->throttle_us,
                                &g->places[at], &g->shares[at]);
    return r;
}

/* Its fields, with the run that it is of its parent, in scratch2; its payload in scratch3. */
static int describe_child(struct taking *g, const struct sel_decision_start *start)
{
    struct sel_broker *b = g->b;
    uint32_t args = start->args ? start->args : g->d->set_args; /* which are the flow's from here */
    sel_buf_clear(&b->scratch3);
    int r = sel_broker_put_args(b, g->t, args ? g->blobs[args - 1] : SEL_NONE, &b->scratch3);
    size_t args_size = b->scratch3.n;
    struct sel_str fields, parents = {NULL, 0};
    if (r == 0 && start->parents) {
        r = sel_broker_task_get_blob(b, g->blobs[start->parents - 1], &fields, &parents);
        if (r == 0)
            sel_buf_put_str(&b->scratch3, parents);
    }
    const struct sel_wire_run run = {
        .flow = sel_broker_task_at(b, g->flow_entry)->id,
        .attempt = g->t->attempt,
        .ordinal = start->ordinal,
        .parents_size = (uint32_t)(b->scratch3.n - args_size),
        .flags = start->run_flags,
    };
    sel_buf_clear(&b->scratch2);
    sel_wire_put_run(&b->scratch2, start->fields, &run);
    if (r == 0)
        r = sel_buf_error(&b->scratch3);
    if (r == 0)
        r = sel_buf_error(&b->scratch2);
    return r;
}

static int make_child(struct taking *g, const struct sel_decision_start *start)
{
    struct sel_broker *b = g->b;
    int64_t due;
    int r = due_of(g, start, &due);
    if (r == 0)
        r = describe_child(g, start);
    if (r < 0)
        return r;
    uint32_t queue = sel_broker_queue_twin(b, queue_of(g->s, start->queue), SEL_QUEUE_SUBFLOWS);
    uint32_t i = queue == SEL_NONE ? SEL_NONE : new_entry(g, queue, start->child);
    if (i == SEL_NONE || !sel_broker_flow_init(b, i))
        return SEL_ENOMEM;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow *child = entry->flow;
    child->current = sel_broker_try_new(b, child, 0);
    if (!child->current)
        return SEL_ENOMEM;
    child->is_nowait = start->flags & SEL_START_NOWAIT;
    child->is_throttled = true; /* here, if at all */
    child->run_flags = start->run_flags;
    sel_broker_flow_set_name(b, child, sel_wire_find_field(start->fields, SEL_FIELD_TASK));
    sel_broker_flow_adopt(child, g->t, start->ordinal);
    entry->at_us = due;
    if (due && !sel_broker_timer_reserve(b, b->fresh_count))
        return SEL_ENOMEM;
    struct sel_str fields = sel_buf_str(&b->scratch2), payload = sel_buf_str(&b->scratch3);
    if (g->is_logged && g->mark.batch->buf.n + fields.n + payload.n > GROUP_BYTES_MAX)
        return SEL_ELIMIT;
    if (g->is_logged) {
        struct sel_log_place place;
        struct sel_mutation m = {
            .type = SEL_MUTATION_SUBMIT,
            .level = entry->level,
            .priority = entry->priority,
            .flags = (uint8_t)(SEL_MUTATION_FLOW | SEL_MUTATION_CHILD | SEL_MUTATION_THROTTLED |
                               (child->is_nowait ? SEL_MUTATION_NOWAIT : 0)),
            .id = entry->id,
            .sequence = entry->sequence,
            .unix_us = due ? b->now.unix_us + (due - b->now.mono_us) : 0,
            .name = b->queues[queue].name,
            .fields = fields,
            .payload = payload,
        };
        if ((r = sel_broker_log_put(b, &m, entry->level, &place)) < 0)
            return r;
        sel_broker_log_claim(b, i, place, fields.n + payload.n);
    }
    return sel_broker_task_keep_blob(b, i, fields, payload) ? 0 : SEL_ENOMEM;
}

static int make_starts(struct taking *g)
{
    struct sel_str rest = g->d->starts;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < g->d->start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&rest, &start);
        g->groups_made = i + 1;
        r = start.flags & SEL_START_FLOW ? make_child(g, &start) : make_runs(g, &start, i);
    }
    return r;
}

static int log_used(struct taking *g)
{
    const struct sel_task_entry *entry = sel_broker_task_at(g->b, g->flow_entry);
    if (!g->is_logged || g->d->consumed_count == 0 || g->d->is_end)
        return 0;
    struct sel_mutation m = {.type = SEL_MUTATION_USED,
                             .level = g->level,
                             .id = entry->id,
                             .sequence = g->d->number,
                             .try_count = g->t->attempt,
                             .payload = g->d->consumed};
    return sel_broker_log_put(g->b, &m, g->level, NULL);
}

/* The nodes of a large flow, which its `events` are at its end. */
static int make_nodes(struct taking *g)
{
    if (g->d->events.n == 0 || g->flow->parent)
        return 0;
    return make_piece(g, SEL_PIECE_NODES, g->d->number, g->d->events, &g->nodes);
}

static int make_end(struct taking *g)
{
    struct sel_broker *b = g->b;
    struct sel_str result = g->d->result;
    if (!g->d->is_end)
        return 0;
    if (g->d->outcome == SEL_OUTCOME_RETRY) {
        g->next_try = sel_broker_try_new(b, g->flow, (uint16_t)(g->t->attempt + 1));
        return g->next_try && sel_broker_timer_reserve(b, b->fresh_count + 1)
                   ? sel_broker_log_retry(b, g->flow_entry, g->d->countdown_us)
                   : SEL_ENOMEM;
    }
    uint32_t had_args = g->flow->args;
    int r = sel_broker_flow_keep_args(b, g->flow_entry, g->flow->open_count + b->fresh_count > 0);
    g->made_args = had_args != g->flow->args;
    if (r == 0)
        r = make_nodes(g);
    if (r < 0)
        return r;
    if (result.n && (!g->is_logged || b->payload_bytes + result.n <= b->options.payload_memory)) {
        g->result = sel_pool_alloc(&b->pool, result.n);
        if (!g->result && !g->is_logged)
            return SEL_ENOMEM;
        if (g->result)
            memcpy(g->result, result.p, result.n);
    }
    return g->is_logged ? sel_broker_task_log_end(b, g->flow_entry, (uint16_t)g->d->outcome, result,
                                                  &g->end_place)
                        : 0;
}

/* ---- taking it back ---- */

static void unmake(struct taking *g)
{
    struct sel_broker *b = g->b;
    while (b->fresh_count) {
        uint32_t i = b->fresh[--b->fresh_count];
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->kind == SEL_KIND_RUN) {
            sel_broker_run_remove(b, i);
        } else if (entry->kind == SEL_KIND_FLOW) {
            sel_broker_task_forget(b, i);
        } else {
            sel_broker_task_remove(b, i);
        }
    }
    for (uint32_t i = 0; i < g->groups_made; i++) {
        if (g->groups[i])
            sel_broker_group_unref(b, g->groups[i], 1);
    }
    for (uint32_t i = 0; i < g->blobs_made; i++)
        sel_broker_piece_unref(b, g->blobs[i]);
    sel_broker_piece_unref(b, g->events);
    sel_broker_piece_unref(b, g->nodes);
    if (g->next_try)
        sel_broker_try_unref(b, g->next_try);
    if (g->made_args) {
        sel_broker_piece_unref(b, g->flow->args);
        g->flow->args = SEL_NONE;
    }
    sel_pool_free(&b->pool, g->result, g->d->result.n);
}

/* ---- making it count ---- */

static void let_run(struct taking *g, uint32_t i)
{
    struct sel_broker *b = g->b;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    int64_t due = entry->at_us;
    if (g->is_logged) {
        entry->at_us = due ? due : b->now.mono_us;
        sel_broker_task_set_state(b, i, SEL_TASK_HELD);
        sel_broker_log_effect(b, i, SEL_EFFECT_ENQUEUE);
        return;
    }
    if (due > b->now.mono_us && sel_broker_timer_add(b, i, due)) /* has room */
        return;
    entry->at_us = b->now.mono_us;
    sel_broker_queue_push(b, i);
}

static void count_starts(struct taking *g)
{
    struct sel_broker *b = g->b;
    struct sel_str rest = g->d->starts;
    uint32_t at = 0;
    for (uint32_t i = 0; i < g->d->start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&rest, &start);
        for (uint32_t k = 0; k < start.count; k++, at++) {
            uint32_t entry = b->fresh[at];
            if (g->groups[i] && g->is_logged)
                sel_broker_log_claim(b, entry, g->places[i], g->shares[i]);
            let_run(g, entry);
        }
        if (g->groups[i])
            sel_broker_group_unref(b, g->groups[i], 1);
        else if (!(start.flags & SEL_START_NOWAIT))
            sel_broker_flow_set_waits(b, g->flow, g->flow->waits_for + 1);
        g->t->next_ordinal = start.ordinal + start.count;
        b->stats.submitted += start.count;
        b->queues[sel_broker_task_at(b, b->fresh[at - 1])->queue].submitted += start.count;
    }
    g->flow->open_count += at;
    b->fresh_count = 0;
}

static void count_consumed(struct taking *g)
{
    for (uint32_t i = 0; i < g->d->consumed_count; i++) {
        uint32_t entry = sel_broker_try_find_ended(g->b, g->t, sel_decision_consumed(g->d, i));
        SEL_ASSERT(entry != SEL_NONE);
        sel_broker_run_consume(g->b, g->t, entry);
    }
}

static void set_args(struct taking *g)
{
    if (!g->d->set_args)
        return;
    uint32_t piece = g->blobs[g->d->set_args - 1];
    sel_broker_piece_ref(g->b, piece);
    sel_broker_piece_unref(g->b, g->t->args);
    g->t->args = piece;
}

static void count_end(struct taking *g)
{
    struct sel_broker *b = g->b;
    const struct sel_decision *d = g->d;
    if (!d->is_end)
        return;
    if (d->outcome == SEL_OUTCOME_RETRY) {
        sel_broker_flow_set_try(b, g->flow_entry, g->next_try);
        sel_broker_task_retry(b, g->flow_entry, d->countdown_us);
    } else {
        sel_broker_flow_set_nodes(b, g->flow, g->nodes);
        sel_broker_task_finish(b, g->flow_entry, (uint16_t)d->outcome, g->result, d->result.n,
                               g->is_logged ? &g->end_place : NULL);
    }
}

/* 0; SEL_ENOMEM, SEL_ELIMIT: nothing has changed. */
static int take(struct taking *g)
{
    struct sel_broker *b = g->b;
    uint64_t runs = 0;
    struct sel_str rest = g->d->starts;
    for (uint32_t i = 0; i < g->d->start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&rest, &start);
        runs += start.count;
    }
    sel_arena_reset(&b->decision_arena);
    g->blobs = SEL_ARENA_NEW_ARRAY(&b->decision_arena, uint32_t, g->d->blob_count + 1);
    g->groups =
        SEL_ARENA_NEW_ARRAY(&b->decision_arena, struct sel_run_group *, g->d->start_count + 1);
    g->places =
        SEL_ARENA_NEW_ARRAY(&b->decision_arena, struct sel_log_place, g->d->start_count + 1);
    g->shares = SEL_ARENA_NEW_ARRAY(&b->decision_arena, size_t, g->d->start_count + 1);
    if (!g->blobs || !g->groups || !g->places || !g->shares)
        return SEL_ENOMEM;
    memset(g->groups, 0, (g->d->start_count + 1) * sizeof(struct sel_run_group *));
    b->fresh_count = 0;
    int r = g->is_logged ? sel_broker_log_hold(b, runs + 2, &g->mark) : 0;
    if (r < 0)
        return r;
    for (uint32_t i = 0; r == 0 && i < g->d->blob_count; i++)
        r = make_blob(g, i);
    if (r == 0)
        r = make_events(g);
    if (r == 0)
        r = make_starts(g);
    if (r == 0)
        r = log_used(g);
    if (r == 0)
        r = make_end(g);
    if (r < 0) {
        unmake(g);
        sel_broker_log_release_hold(b, &g->mark, true);
        return r;
    }
    count_starts(g);
    count_consumed(g);
    set_args(g);
    if (g->events != SEL_NONE)
        sel_broker_try_add_piece(b, g->t, g->events);
    g->t->number = g->d->number;
    count_end(g);
    for (uint32_t i = 0; i < g->d->blob_count; i++)
        sel_broker_piece_unref(b, g->blobs[i]);
    sel_broker_log_release_hold(b, &g->mark, false);
    return 0;
}

/* ---- DECIDE ---- */

/* What cannot be decided is no better decided once more. true: the flow has ended. */
static bool give_up(struct sel_broker *b, uint32_t i, const char *why)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, i);
    const struct sel_flow *flow = entry->flow;
    if (entry->lost < b->options.poison_max ||
        entry->flags & (SEL_TASK_NO_RECORD | SEL_TASK_CANCELLED))
        return false;
    return sel_broker_task_fail(b, i, sel_broker_lost_class(entry),
                                "'%.*s' was given up: %u workers could not decide it, and what the "
                                "last one decided was refused by the broker: %s",
                                flow->name ? flow->name_size : 0, flow->name ? flow->name : "",
                                entry->lost, why) == 0;
}

static void say_refused(struct sel_broker *b, const struct sel_broker_session *s, uint32_t i,
                        uint64_t number, const char *text)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, i);
    const struct sel_flow *flow = entry->flow;
    char id[SEL_ID_TEXT_SIZE];
    sel_broker_say(b, SEL_BROKER_ERROR, "flow.refused",
                   "worker=\"%s\" flow=\"%.*s\" id=%s times=%u record=%" PRIu64 " text=\"%s\"",
                   s->name ? s->name : "", flow->name ? flow->name_size : 0,
                   flow->name ? flow->name : "", sel_id_format(entry->id, id), entry->lost, number,
                   text);
}

/* The dispatcher has lost its way: somebody else gets the flow. One that makes all lose theirs is
 * failed as one that kills them. */
static void refuse(struct sel_broker *b, struct sel_broker_session *s, uint32_t i, uint64_t number,
                   const char *text)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    const struct sel_wire_error e = {
        .code = SEL_CODE_ILLEGAL, .text = sel_str_c(text), .at = number};
    const struct sel_wire_item cancel = {
        .type = SEL_RECORD_CANCEL,
        .id = entry->id,
        .priority = SEL_WIRE_PRIORITY,
        .code = SEL_CANCEL_ENDED,
        .handle = entry->sequence << 32 | i,
        .delivery = entry->delivery,
    };
    sel_broker_error(b, s->connection, &e);
    if (sel_broker_session_say(b, s, &cancel, SEL_NONE) < 0)
        sel_broker_session_fail(b, s);
    sel_broker_task_detach(b, i);
    if (entry->lost < SEL_TASK_LOST_MAX)
        entry->lost++;
    say_refused(b, s, i, number, text);
    if (!give_up(b, i, text))
        sel_broker_task_put_back(b, i);
}

/* The flow that the record is about, if the session owns it in that epoch. */
static uint32_t owned(const struct sel_broker *b, const struct sel_broker_session *s,
                      const struct sel_wire_item *item)
{
    uint32_t i = sel_broker_task_of(b, item);
    const struct sel_task_entry *entry = i == SEL_NONE ? NULL : sel_broker_task_at(b, i);
    return entry && entry->kind == SEL_KIND_FLOW && entry->state == SEL_TASK_DELIVERED &&
                   entry->holder == s->slot && entry->try_count == item->try_count &&
                   entry->delivery == item->delivery
               ? i
               : SEL_NONE;
}

static uint64_t decide(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                       struct sel_str payload, uint64_t number)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_decision d;
    struct sel_error err = {0};
    const char *why = NULL;
    if (sel_decision_decode(payload, &d, &err) < 0)
        why = err.text;
    if (!why)
        why = why_not(b, s, entry->flow, &d);
    if (!why)
        why = why_not_consumed(b, entry->flow->current, &d);
    if (why) {
        refuse(b, s, i, number, why);
        return 0;
    }
    struct taking g = {.b = b,
                       .s = s,
                       .flow_entry = i,
                       .flow = entry->flow,
                       .t = entry->flow->current,
                       .d = &d,
                       .level = entry->level,
                       .is_logged = entry->level > SEL_LEVEL_MEMORY,
                       .events = SEL_NONE,
                       .nodes = SEL_NONE,
                       .blob_rest = d.blobs};
    sel_broker_try_ref(g.t);
    int r = take(&g);
    sel_broker_try_unref(b, g.t);
    if (r == SEL_ELIMIT) {
        refuse(b, s, i, number, "arguments and parents of sub-flows that start are too large");
        return 0;
    }
    if (r < 0) {
        sel_broker_session_fail(b, s); /* not settled; what it owns is handed over anew */
        return 0;
    }
    return g.mark.batch ? g.mark.batch->seq : 0;
}

uint64_t sel_broker_on_decide(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number)
{
    uint32_t i = owned(b, s, item);
    if (i == SEL_NONE || s->is_failed)
        return 0; /* of an epoch that is over */
    struct sel_buf *partial = &sel_broker_task_at(b, i)->flow->current->partial;
    if (partial->n + item->payload.n > SEL_DECISION_MAX) {
        refuse(b, s, i, number, "a decision over 48 MiB");
        return 0;
    }
    if (!(item->flags & SEL_ITEM_MORE) && partial->n == 0)
        return decide(b, s, i, item->payload, number);
    sel_buf_put_str(partial, item->payload);
    if (sel_buf_error(partial) < 0) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    if (item->flags & SEL_ITEM_MORE)
        return 0;
    struct sel_buf whole = *partial; /* the attempt may end with it */
    *partial = (struct sel_buf){0};
    uint64_t batch = decide(b, s, i, sel_buf_str(&whole), number);
    sel_buf_done(&whole);
    return batch;
}

/* ---- STATE ---- */

uint64_t sel_broker_on_state(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number)
{
    uint32_t i = owned(b, s, item);
    if (i == SEL_NONE || s->is_failed)
        return 0;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow_try *t = entry->flow->current;
    bool is_last = !(item->flags & SEL_ITEM_MORE), is_logged = entry->level > SEL_LEVEL_MEMORY;
    if (item->code != t->number || t->number == 0) {
        refuse(b, s, i, number, "a state of another decision than the last one");
        return 0;
    }
    uint32_t flags =
        (is_last ? SEL_FLOW_REF_LAST : 0) | (t->new_state == SEL_NONE ? SEL_FLOW_REF_FIRST : 0);
    struct sel_log_place place;
    struct sel_id id = is_logged ? sel_broker_piece_id(b) : (struct sel_id){0, 0};
    if (is_logged && sel_broker_log_piece(b, t, id, SEL_PIECE_STATE, t->number, flags, entry->level,
                                          item->payload, &place) < 0) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    uint32_t piece = sel_broker_piece_new(b, id, SEL_PIECE_STATE, entry->level, item->payload,
                                          is_logged ? &place : NULL);
    if (piece == SEL_NONE) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    sel_broker_task_at(b, piece)->extra = t->number;
    sel_broker_try_add_piece(b, t, piece);
    if (t->new_state == SEL_NONE)
        t->new_state = piece;
    if (is_last) {
        sel_broker_try_drop_pieces(b, t, t->new_state);
        t->new_state = SEL_NONE;
    }
    return is_logged ? b->log.open->seq : 0;
}

uint64_t sel_broker_on_void(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number)
{
    (void)b;
    (void)s;
    (void)item;
    (void)number;
    return 0;
}
