/* What a journal says of flows, before the broker starts.
 *
 * What was copied forward comes late, so that a run, a sub-flow or a piece may be read before the
 * flow that it belongs to: that one is made then with nothing but its id, and filled when it comes.
 */
#include "broker/flow_log.h"
#include "broker/internal.h"
#include "core/mem.h"

/* ---- finding and making ---- */

/* The entry of a flow; SEL_NONE: out of memory, or the id is of something else (*ret_bad). */
static uint32_t flow_for(struct sel_broker *b, struct sel_id id, bool *ret_bad)
{
    uint32_t i = sel_broker_task_find(b, id);
    *ret_bad = i != SEL_NONE && sel_broker_task_at(b, i)->kind != SEL_KIND_FLOW;
    if (i != SEL_NONE)
        return *ret_bad ? SEL_NONE : i;
    i = sel_broker_task_add(b, id);
    if (i != SEL_NONE && !sel_broker_flow_init(b, i)) {
        sel_broker_task_remove(b, i);
        i = SEL_NONE;
    }
    return i;
}

static bool has_ended(const struct sel_broker *b, uint32_t i)
{
    return sel_broker_task_at(b, i)->state == SEL_TASK_ENDED;
}

/* What is detached needs its attempt, of which more may yet come. */
static void keep_past(struct sel_flow *flow, struct sel_flow_try *t)
{
    sel_broker_try_ref(t);
    t->next_past = flow->past;
    flow->past = t;
}

static void forget_past(struct sel_broker *b, struct sel_flow *flow)
{
    struct sel_flow_try *next;
    for (struct sel_flow_try *t = flow->past; t; t = next) {
        next = t->next_past;
        flow->past = next;
        t->next_past = NULL;
        sel_broker_try_unref(b, t); /* the flow has the reference of its entry too */
    }
}

/* The current attempt is over, or `t` (which may be NULL) is the current one now. */
static void set_try(struct sel_broker *b, uint32_t i, struct sel_flow_try *t)
{
    struct sel_flow *flow = sel_broker_task_at(b, i)->flow;
    if (flow->current)
        keep_past(flow, flow->current);
    if (t)
        sel_broker_try_ref(t);
    sel_broker_flow_set_try(b, i, t);
}

/* The attempt, with a reference: the current one, which may begin with that, or one that is over,
 * for what is detached. */
static struct sel_flow_try *try_for(struct sel_broker *b, uint32_t i, uint32_t attempt)
{
    struct sel_flow *flow = sel_broker_task_at(b, i)->flow;
    struct sel_flow_try *current = flow->current, *t = flow->past;
    if (current && current->attempt == attempt)
        t = current;
    else
        while (t && t->attempt != attempt)
            t = t->next_past;
    if (t) {
        sel_broker_try_ref(t);
        return t;
    }
    t = sel_broker_try_new(b, flow, (uint16_t)attempt);
    if (t && !has_ended(b, i) && (!current || current->attempt < attempt)) {
        set_try(b, i, t);
        sel_broker_task_at(b, i)->try_count = (uint16_t)attempt;
    } else if (t) {
        keep_past(flow, t);
    }
    return t;
}

static int bad_or_no_memory(bool is_bad)
{
    return is_bad ? SEL_EFORMAT : SEL_ENOMEM;
}

static struct sel_flow_try *try_of(struct sel_broker *b, struct sel_id flow, uint32_t attempt,
                                   int *ret_error)
{
    bool is_bad;
    uint32_t i = flow_for(b, flow, &is_bad);
    struct sel_flow_try *t = i == SEL_NONE ? NULL : try_for(b, i, attempt);
    *ret_error = t ? 0 : bad_or_no_memory(is_bad);
    return t;
}

static void note_ordinal(struct sel_flow_try *t, uint32_t last)
{
    if (t->next_ordinal <= last)
        t->next_ordinal = last + 1;
}

/* ---- flows ---- */

static int link_parent(struct sel_broker *b, struct sel_flow *child, struct sel_id flow,
                       uint32_t attempt, uint32_t ordinal)
{
    int r;
    if (child->parent)
        return 0;
    struct sel_flow_try *t = try_of(b, flow, attempt, &r);
    if (!t)
        return r;
    if (t->flow == child) {
        sel_broker_try_unref(b, t);
        return SEL_EFORMAT;
    }
    sel_broker_flow_adopt(child, t, ordinal);
    note_ordinal(t, ordinal);
    sel_broker_try_unref(b, t);
    return 0;
}

/* A flow whose result had been dropped, before its id was used for another one. */
static int begin_anew(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow *flow = entry->flow;
    if (flow->parent) /* dispatchers make ids, and never one twice */
        return SEL_EFORMAT;
    if (entry->flags & SEL_TASK_KEYED)
        sel_broker_key_remove(b, i);
    forget_past(b, flow);
    sel_broker_flow_set_nodes(b, flow, SEL_NONE);
    sel_pool_free(&b->pool, flow->name, flow->name_size);
    flow->name = NULL;
    flow->name_size = 0;
    sel_broker_task_set_state(b, i, SEL_TASK_HELD);
    return 0;
}

static int replay_submit(struct sel_broker *b, const struct sel_mutation *m,
                         struct sel_log_place place)
{
    bool is_bad;
    struct sel_wire_run run;
    uint32_t i = flow_for(b, m->id, &is_bad);
    if (i == SEL_NONE)
        return bad_or_no_memory(is_bad);
    struct sel_flow_try *t;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->state == SEL_TASK_ENDED && entry->sequence == m->sequence)
        return 0; /* its end is known: this is a copy that came late */
    if (entry->state == SEL_TASK_ENDED && begin_anew(b, i) < 0)
        return SEL_EFORMAT;
    t = try_for(b, i, m->try_count);
    if (!t)
        return SEL_ENOMEM;
    sel_broker_try_unref(b, t);
    entry->flow->is_throttled = m->flags & SEL_MUTATION_THROTTLED;
    entry->flow->is_nowait = m->flags & SEL_MUTATION_NOWAIT;
    sel_broker_flow_set_name(b, entry->flow, sel_wire_find_field(m->fields, SEL_FIELD_TASK));
    uint16_t attempt = entry->flow->current ? entry->flow->current->attempt : m->try_count;
    int r = sel_broker_replay_submit(b, m, i, place);
    entry->try_count = attempt;
    if (r == 0 && m->flags & SEL_MUTATION_CHILD) {
        if (!sel_wire_find_run(m->fields, &run) || run.attempt > UINT16_MAX)
            return SEL_EFORMAT;
        entry->flow->run_flags = run.flags;
        r = link_parent(b, entry->flow, run.flow, run.attempt, run.ordinal);
    }
    return r;
}

/* Where the end of a run or sub-flow stands in its attempt. */
static void list_end(struct sel_broker *b, struct sel_flow_try *t, uint32_t i, bool is_consumed)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->pins = 1;
    sel_broker_try_add_ended(b, t, i);
    if (is_consumed)
        sel_broker_run_consume(b, t, i);
}

static int replay_flow_done(struct sel_broker *b, const struct sel_mutation *m,
                            struct sel_log_place place)
{
    bool is_bad;
    struct sel_flow_ref ref;
    struct sel_str origin = m->fields, name;
    uint32_t i = flow_for(b, m->id, &is_bad);
    if (i == SEL_NONE)
        return bad_or_no_memory(is_bad);
    if (!sel_flow_done_name(m, &origin, &name))
        return SEL_EFORMAT;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    struct sel_flow *flow = entry->flow;
    bool was_ended = entry->state == SEL_TASK_ENDED;
    uint16_t pins = entry->pins;
    uint8_t flags = entry->flags;
    sel_broker_flow_set_name(b, flow, name);
    if (!was_ended)
        set_try(b, i, NULL);
    int r = sel_broker_replay_done(b, m, i, place);
    if (was_ended) { /* a copy: it stands in its lists */
        entry->pins = pins;
        entry->flags |= flags & SEL_TASK_CONSUMED;
        return r;
    }
    if (r < 0 || !(m->flags & SEL_MUTATION_CHILD))
        return r;
    flow->is_nowait = m->flags & SEL_MUTATION_NOWAIT;
    if (!sel_flow_ref_decode(origin, &ref))
        return SEL_EFORMAT;
    r = link_parent(b, flow, ref.flow, ref.attempt, ref.number);
    if (r == 0 && !flow->is_nowait && sel_broker_try_is_current(flow->parent))
        list_end(b, flow->parent, i, m->flags & SEL_MUTATION_CONSUMED);
    return r;
}

static int replay_flow_retry(struct sel_broker *b, const struct sel_mutation *m)
{
    bool is_bad;
    uint32_t i = flow_for(b, m->id, &is_bad);
    if (i == SEL_NONE)
        return bad_or_no_memory(is_bad);
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->state == SEL_TASK_ENDED ||
        (entry->state != SEL_TASK_ORPHAN && entry->sequence != m->sequence))
        return 0;
    struct sel_flow_try *t = try_for(b, i, m->try_count);
    if (!t)
        return SEL_ENOMEM;
    sel_broker_try_unref(b, t);
    return sel_broker_replay_retry(b, m);
}

/* ---- runs ---- */

/* The piece of that id, which may come later; SEL_NONE for none. */
static int piece_for(struct sel_broker *b, struct sel_id id, uint32_t *ret)
{
    *ret = SEL_NONE;
    if ((id.hi | id.lo) == 0)
        return 0;
    *ret = sel_broker_task_find(b, id);
    if (*ret == SEL_NONE)
        *ret = sel_broker_piece_new(b, id, SEL_PIECE_BLOB, SEL_LEVEL_COMMIT,
                                    (struct sel_str){NULL, 0}, NULL);
    if (*ret == SEL_NONE)
        return SEL_ENOMEM;
    if (sel_broker_task_at(b, *ret)->kind != SEL_KIND_PIECE)
        return SEL_EFORMAT;
    sel_broker_piece_ref(b, *ret);
    return 0;
}

static struct sel_run_group *group_for(struct sel_broker *b, const struct sel_mutation *m,
                                       const struct sel_flow_runs *runs, int *ret_error)
{
    struct sel_run_group *group = sel_broker_group_new(b, m->fields);
    *ret_error = SEL_ENOMEM;
    if (!group)
        return NULL;
    group->refs = 1;
    group->is_nowait = runs->is_nowait;
    group->run_flags = runs->run_flags;
    *ret_error = piece_for(b, runs->args, &group->args);
    if (*ret_error == 0)
        *ret_error = piece_for(b, runs->parents, &group->parents);
    if (*ret_error == 0)
        return group;
    sel_broker_group_unref(b, group, 1);
    return NULL;
}

/* Takes an open run out of what an earlier mutation made of it. */
static void undo_run(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->state == SEL_TASK_QUEUED)
        sel_broker_queue_remove(b, i);
    else if (entry->state == SEL_TASK_WAITING)
        sel_broker_timer_remove(b, i);
    if (entry->group)
        sel_broker_group_unref(b, entry->group, 1);
    entry->group = NULL;
    sel_broker_log_release(b, i);
    sel_broker_task_set_state(b, i, SEL_TASK_HELD);
}

static uint32_t new_run(struct sel_broker *b, struct sel_id id, struct sel_flow_try *t,
                        uint32_t ordinal)
{
    uint32_t i = sel_broker_task_add(b, id);
    if (i == SEL_NONE)
        return SEL_NONE;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->kind = SEL_KIND_RUN;
    entry->attempt = t;
    entry->extra = ordinal;
    sel_broker_try_ref(t);
    sel_broker_task_set_state(b, i, SEL_TASK_HELD);
    return i;
}

static int replay_run(struct sel_broker *b, const struct sel_mutation *m,
                      const struct sel_flow_runs *runs, uint32_t k, struct sel_flow_try *t,
                      struct sel_run_group *group, uint32_t queue, struct sel_log_place place)
{
    struct sel_id id = sel_wire_run_id(m->id, runs->attempt, runs->ordinal + k);
    uint32_t i = sel_broker_task_find(b, id);
    if (i != SEL_NONE) {
        if (sel_broker_task_at(b, i)->kind != SEL_KIND_RUN)
            return SEL_EFORMAT;
        if (has_ended(b, i))
            return 0;
        undo_run(b, i);
    } else if ((i = new_run(b, id, t, runs->ordinal + k)) == SEL_NONE) {
        return SEL_ENOMEM;
    }
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->group = group;
    group->refs++;
    entry->sequence = m->sequence + k;
    if (entry->sequence > b->sequence)
        b->sequence = entry->sequence;
    entry->queue = (uint16_t)queue;
    entry->level = m->level & 3u;
    entry->priority = m->priority;
    entry->try_count = m->try_count;
    entry->lost = m->lost & SEL_TASK_LOST_MAX;
    entry->suspected = m->suspected & SEL_TASK_LOST_MAX;
    entry->fields_size = runs->retries;
    sel_broker_log_claim(b, i, place, sel_flow_runs_share(m, runs->count));
    int64_t step = (int64_t)(runs->step_us * k); /* both are bounded */
    return sel_broker_replay_wait_or_queue(b, i, m->unix_us ? m->unix_us + step : 0);
}

static int replay_runs(struct sel_broker *b, const struct sel_mutation *m,
                       struct sel_log_place place)
{
    struct sel_flow_runs runs;
    int r;
    if (!sel_flow_runs_decode(m, &runs) ||
        (runs.step_us && runs.count > (uint64_t)SEL_WAIT_US_MAX / runs.step_us))
        return SEL_EFORMAT;
    struct sel_flow_try *t = try_of(b, m->id, runs.attempt, &r);
    if (!t)
        return r;
    note_ordinal(t, runs.ordinal + runs.count - 1);
    struct sel_run_group *group = group_for(b, m, &runs, &r);
    if (group) {
        uint32_t queue = sel_broker_queue_get(b, m->name);
        r = queue == SEL_NONE ? SEL_ELIMIT : 0;
        for (uint32_t k = 0; r == 0 && k < runs.count; k++)
            r = replay_run(b, m, &runs, k, t, group, queue, place);
        sel_broker_group_unref(b, group, 1);
    }
    sel_broker_try_unref(b, t);
    return r;
}

static int replay_run_done(struct sel_broker *b, const struct sel_mutation *m,
                           struct sel_log_place place)
{
    struct sel_flow_ref ref;
    int r;
    if (!sel_flow_ref_decode(m->fields, &ref))
        return SEL_EFORMAT;
    uint32_t i = sel_broker_task_find(b, m->id);
    if (i != SEL_NONE && sel_broker_task_at(b, i)->kind != SEL_KIND_RUN)
        return SEL_EFORMAT;
    if (i != SEL_NONE && has_ended(b, i)) { /* a copy: only where it can be read changes */
        sel_broker_task_free_blob(b, i);
        sel_broker_log_release(b, i);
        sel_broker_log_claim(b, i, place, m->payload.n);
        return sel_broker_task_keep_blob(b, i, (struct sel_str){NULL, 0}, m->payload) ? 0
                                                                                      : SEL_ENOMEM;
    }
    if (i == SEL_NONE) {
        struct sel_flow_try *t = try_of(b, ref.flow, ref.attempt, &r);
        if (!t)
            return r;
        note_ordinal(t, ref.number);
        i = new_run(b, m->id, t, ref.number);
        sel_broker_try_unref(b, t);
        if (i == SEL_NONE)
            return SEL_ENOMEM;
    } else {
        undo_run(b, i);
    }
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    entry->level = m->level & 3u;
    if (m->flags & SEL_MUTATION_NOWAIT || !sel_broker_try_is_current(entry->attempt)) {
        sel_broker_run_remove(b, i);
        return 0;
    }
    entry->sequence = m->sequence;
    if (m->sequence > b->sequence)
        b->sequence = m->sequence;
    entry->code = m->code;
    entry->pins = 0;
    entry->fields_size = 0;
    entry->try_count = m->try_count;
    sel_broker_log_claim(b, i, place, m->payload.n);
    sel_broker_task_set_state(b, i, SEL_TASK_ENDED);
    if (!sel_broker_task_keep_blob(b, i, (struct sel_str){NULL, 0}, m->payload))
        return SEL_ENOMEM;
    list_end(b, entry->attempt, i, m->flags & SEL_MUTATION_CONSUMED);
    return 0;
}

static int replay_used(struct sel_broker *b, const struct sel_mutation *m)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    struct sel_flow_try *t;
    if (i == SEL_NONE || sel_broker_task_at(b, i)->kind != SEL_KIND_FLOW ||
        !(t = sel_broker_task_at(b, i)->flow->current) || t->attempt != m->try_count)
        return 0; /* is over */
    if (m->payload.n % 4)
        return SEL_EFORMAT;
    if (m->sequence <= UINT32_MAX && t->number < m->sequence)
        t->number = (uint32_t)m->sequence;
    t->untold = SEL_NONE; /* all may be looked for */
    for (size_t k = 0; k < m->payload.n / 4; k++) {
        uint32_t ended = sel_broker_try_find_ended(b, t, sel_flow_used_at(m->payload, k));
        if (ended != SEL_NONE)
            sel_broker_run_consume(b, t, ended);
    }
    return 0;
}

/* ---- pieces ---- */

static int replay_throttle(struct sel_broker *b, const struct sel_mutation *m,
                           struct sel_log_place place)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    if (i == SEL_NONE)
        i = sel_broker_piece_new(b, m->id, SEL_PIECE_THROTTLE, m->level, (struct sel_str){NULL, 0},
                                 NULL);
    if (i == SEL_NONE)
        return SEL_ENOMEM;
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->kind != SEL_KIND_PIECE || entry->queue != SEL_PIECE_THROTTLE)
        return SEL_EFORMAT;
    int64_t at_us = b->now.mono_us + (m->unix_us - b->now.unix_us);
    entry->at_us = at_us > b->now.mono_us ? at_us : b->now.mono_us;
    sel_broker_log_release(b, i);
    sel_broker_log_claim(b, i, place, m->payload.n);
    return 0;
}

/* What a BLOB is for beside the runs that name it. */
static void use_blob(struct sel_broker *b, struct sel_flow_try *t, uint32_t i, uint32_t role)
{
    uint32_t *place = role == SEL_BLOB_OF_TRY ? &t->args : &t->flow->args;
    if (role == SEL_BLOB_PLAIN || *place == i)
        return;
    sel_broker_piece_ref(b, i);
    sel_broker_piece_unref(b, *place);
    *place = i;
}

static int fill_piece(struct sel_broker *b, uint32_t i, const struct sel_mutation *m,
                      const struct sel_flow_ref *ref, struct sel_log_place place)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    sel_broker_task_free_blob(b, i);
    sel_broker_log_release(b, i);
    entry->level = m->level & 3u;
    entry->sequence = m->sequence;
    entry->extra = m->code == SEL_PIECE_BLOB ? SEL_NONE : ref->number;
    entry->code = (uint16_t)ref->flags;
    int64_t age_us = b->now.unix_us - m->unix_us;
    entry->at_us = b->now.mono_us - (age_us > 0 ? age_us : 0);
    sel_broker_log_claim(b, i, place, m->payload.n);
    return sel_broker_task_keep_blob(b, i, (struct sel_str){NULL, 0}, m->payload) ? 0 : SEL_ENOMEM;
}

/* It stands before the end of its flow, or as a copy behind it. */
static int replay_nodes(struct sel_broker *b, const struct sel_mutation *m,
                        struct sel_log_place place)
{
    bool is_bad;
    struct sel_flow_ref ref;
    if (!sel_flow_ref_decode(m->fields, &ref))
        return SEL_EFORMAT;
    uint32_t entry = flow_for(b, ref.flow, &is_bad), i = sel_broker_task_find(b, m->id);
    if (entry == SEL_NONE)
        return bad_or_no_memory(is_bad);
    struct sel_flow *flow = sel_broker_task_at(b, entry)->flow;
    if (i != SEL_NONE && i != flow->nodes)
        return SEL_EFORMAT;
    if (i == SEL_NONE) {
        i = sel_broker_piece_new(b, m->id, SEL_PIECE_NODES, m->level, (struct sel_str){NULL, 0},
                                 NULL);
        if (i == SEL_NONE)
            return SEL_ENOMEM;
        sel_broker_flow_set_nodes(b, flow, i);
    }
    if (m->sequence > b->sequence)
        b->sequence = m->sequence;
    return fill_piece(b, i, m, &ref, place);
}

static int replay_piece(struct sel_broker *b, const struct sel_mutation *m,
                        struct sel_log_place place)
{
    struct sel_flow_ref ref;
    int r = 0;
    if (m->code == SEL_PIECE_THROTTLE)
        return replay_throttle(b, m, place);
    if (m->code == SEL_PIECE_NODES)
        return replay_nodes(b, m, place);
    if (m->code > SEL_PIECE_BLOB || !sel_flow_ref_decode(m->fields, &ref))
        return SEL_EFORMAT;
    struct sel_flow_try *t = try_of(b, ref.flow, ref.attempt, &r);
    if (!t)
        return r;
    uint32_t i = sel_broker_task_find(b, m->id);
    bool is_blob = m->code == SEL_PIECE_BLOB, is_new = i == SEL_NONE;
    if (!is_new && sel_broker_task_at(b, i)->kind != SEL_KIND_PIECE)
        r = SEL_EFORMAT;
    else if (!is_blob && !sel_broker_try_is_current(t))
        r = 1; /* of an attempt that is over */
    else if (is_new)
        i = sel_broker_piece_new(b, m->id, (enum sel_piece_type)m->code, m->level,
                                 (struct sel_str){NULL, 0}, NULL);
    if (r == 0)
        r = i == SEL_NONE ? SEL_ENOMEM : fill_piece(b, i, m, &ref, place);
    if (r == 0 && is_blob)
        use_blob(b, t, i, ref.number);
    else if (r == 0 && is_new)
        sel_broker_try_add_piece(b, t, i);
    if (r == 0 && !is_blob && t->number < ref.number)
        t->number = ref.number;
    if (m->sequence > b->sequence)
        b->sequence = m->sequence;
    sel_broker_try_unref(b, t);
    return r < 0 ? r : 0;
}

int sel_broker_replay_flow(struct sel_broker *b, const struct sel_mutation *m,
                           struct sel_log_place place)
{
    switch (m->type) {
    case SEL_MUTATION_SUBMIT:
        return replay_submit(b, m, place);
    case SEL_MUTATION_DONE:
        return m->flags & SEL_MUTATION_RUN ? replay_run_done(b, m, place)
                                           : replay_flow_done(b, m, place);
    case SEL_MUTATION_RETRY:
        return replay_flow_retry(b, m);
    case SEL_MUTATION_PIECE:
        return replay_piece(b, m, place);
    case SEL_MUTATION_RUNS:
        return replay_runs(b, m, place);
    case SEL_MUTATION_USED:
        return replay_used(b, m);
    default:
        return SEL_EFORMAT;
    }
}

/* ---- the end ---- */

#define EACH_ENTRY(b, i)                                                                           \
    for (uint32_t i = 0, end_ = (b)->tasks.chunk_count << SEL_TASK_CHUNK_BITS; i < end_; i++)

/* Only the last whole state counts, and what came after it. */
static void settle_pieces(struct sel_broker *b, struct sel_flow_try *t)
{
    uint32_t first = SEL_NONE, whole = SEL_NONE, next;
    for (uint32_t i = t->piece_first; i != SEL_NONE; i = sel_broker_task_at(b, i)->next) {
        const struct sel_task_entry *piece = sel_broker_task_at(b, i);
        if (piece->queue != SEL_PIECE_STATE)
            continue;
        if (piece->code & SEL_FLOW_REF_FIRST)
            first = i;
        if (piece->code & SEL_FLOW_REF_LAST && first != SEL_NONE)
            whole = first;
    }
    if (whole != SEL_NONE)
        sel_broker_try_drop_pieces(b, t, whole);
    bool is_whole = whole != SEL_NONE;
    for (uint32_t i = t->piece_first; i != SEL_NONE; i = next) {
        const struct sel_task_entry *piece = sel_broker_task_at(b, i);
        next = piece->next;
        bool is_state = piece->queue == SEL_PIECE_STATE, is_last = piece->code & SEL_FLOW_REF_LAST;
        if (is_state && !is_whole)
            sel_broker_try_drop_piece(b, t, i);
        else if (is_state && is_last)
            is_whole = false;
    }
}

static void drop_unknown(struct sel_broker *b)
{
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state == SEL_TASK_FREE || entry->kind != SEL_KIND_RUN ||
            entry->state == SEL_TASK_ENDED ||
            sel_broker_task_at(b, entry->attempt->flow->entry)->state != SEL_TASK_ORPHAN)
            continue;
        undo_run(b, i);
        sel_broker_run_remove(b, i);
    }
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state == SEL_TASK_ORPHAN && entry->kind == SEL_KIND_FLOW)
            sel_broker_task_forget(b, i);
    }
}

static void count_child(struct sel_broker *b, const struct sel_flow *child)
{
    struct sel_flow_try *parent = child->parent;
    parent->flow->open_count++;
    if (!child->is_nowait && !has_ended(b, child->entry) && sel_broker_try_is_current(parent))
        parent->flow->waits_for++;
}

static void count_open(struct sel_broker *b)
{
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state == SEL_TASK_FREE)
            continue;
        if (entry->kind == SEL_KIND_RUN && entry->state != SEL_TASK_ENDED)
            entry->attempt->flow->open_count++;
        else if (entry->kind == SEL_KIND_FLOW && entry->flow->parent)
            count_child(b, entry->flow);
    }
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state != SEL_TASK_ENDED || entry->kind != SEL_KIND_FLOW ||
            entry->flow->open_count > 0 || entry->flow->is_done)
            continue;
        sel_broker_flow_be_done(b, entry->flow);
        if (entry->flow->parent)
            sel_broker_flow_count_closed(b, entry->flow->parent->flow);
    }
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state != SEL_TASK_ENDED || entry->kind != SEL_KIND_FLOW || entry->flow->is_done)
            continue;
        entry->flow->has_tree_pin = true;
        sel_broker_task_pin(b, i);
    }
}

void sel_broker_replay_flows_end(struct sel_broker *b)
{
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state != SEL_TASK_FREE && entry->kind == SEL_KIND_FLOW)
            forget_past(b, entry->flow);
    }
    drop_unknown(b);
    count_open(b);
    EACH_ENTRY(b, i)
    {
        struct sel_task_entry *entry = sel_broker_task_at(b, i);
        if (entry->state == SEL_TASK_PIECE && entry->queue == SEL_PIECE_BLOB)
            sel_broker_piece_unref(b, i); /* the reference of the replay itself */
        else if (entry->state != SEL_TASK_FREE && entry->kind == SEL_KIND_FLOW &&
                 entry->flow->current)
            settle_pieces(b, entry->flow->current);
    }
}
