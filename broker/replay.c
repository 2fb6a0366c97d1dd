/* What a journal says, batch by batch, before the broker starts. */
#include <inttypes.h>

#include "broker/internal.h"
#include "core/mem.h"

static int bad(struct sel_error *err, uint64_t seq, int code, const char *what)
{
    return sel_error_set(err, code, (struct sel_pos){0}, "journal, batch %" PRIu64 ": %.900s", seq,
                         what);
}

/* No longer another name of its task. */
static void unlink_alias(struct sel_broker *b, uint32_t i)
{
    uint32_t *link = &sel_broker_task_at(b, sel_broker_task_at(b, i)->holder)->extra;
    while (b->notes[*link].as != i)
        link = &b->notes[*link].next;
    uint32_t note = *link;
    *link = b->notes[note].next;
    sel_broker_note_free(b, note);
    sel_broker_task_at(b, i)->holder = SEL_NONE;
}

/* Out of the state that an earlier mutation gave it. */
static void undo(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->state == SEL_TASK_QUEUED)
        sel_broker_queue_remove(b, i);
    else if (task->state == SEL_TASK_WAITING)
        sel_broker_timer_remove(b, i);
    else if (task->state == SEL_TASK_ALIAS)
        unlink_alias(b, i);
    sel_broker_task_set_state(b, i, SEL_TASK_HELD);
    sel_broker_task_free_blob(b, i);
    sel_broker_log_release(b, i);
}

static void renew(struct sel_broker *b, uint32_t i, const struct sel_mutation *m)
{
    undo(b, i);
    sel_broker_task_at(b, i)->sequence = m->sequence;
    sel_broker_task_at(b, i)->level = m->level & 3u;
    if (m->sequence > b->sequence)
        b->sequence = m->sequence;
}

/* The entry of that id, emptied; NONE: out of memory, or it is part of a flow (*ret_bad). */
static uint32_t entry_for(struct sel_broker *b, const struct sel_mutation *m, bool *ret_bad)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    *ret_bad = i != SEL_NONE && sel_broker_task_at(b, i)->kind != SEL_KIND_TASK;
    if (*ret_bad || (i == SEL_NONE && (i = sel_broker_task_add(b, m->id)) == SEL_NONE))
        return SEL_NONE;
    renew(b, i, m);
    return i;
}

static int name_queue(struct sel_broker *b, struct sel_task_entry *task,
                      const struct sel_mutation *m)
{
    uint32_t queue = sel_broker_queue_get(b, m->name);
    if (queue != SEL_NONE && task->kind == SEL_KIND_FLOW)
        queue = sel_broker_queue_twin(
            b, queue, m->flags & SEL_MUTATION_CHILD ? SEL_QUEUE_SUBFLOWS : SEL_QUEUE_FLOWS);
    if (queue == SEL_NONE)
        return SEL_ELIMIT;
    task->queue = (uint16_t)queue;
    return 0;
}

int sel_broker_replay_wait_or_queue(struct sel_broker *b, uint32_t i, int64_t unix_us)
{
    if (unix_us > b->now.unix_us)
        return sel_broker_timer_add(b, i, b->now.mono_us + (unix_us - b->now.unix_us)) ? 0
                                                                                       : SEL_ENOMEM;
    sel_broker_task_at(b, i)->at_us = b->now.mono_us;
    sel_broker_queue_push(b, i);
    return 0;
}

static void digest_of(const struct sel_mutation *m, uint8_t *ret)
{
    struct sel_wire_item item = {.flags = m->flags & SEL_MUTATION_FLOW ? SEL_ITEM_FLOW : 0,
                                 .payload = m->payload};
    struct sel_str fields = m->fields, value;
    uint8_t tag;
    while (sel_wire_next_field(&fields, &tag, &value) > 0) {
        if (tag == SEL_FIELD_TASK)
            item.task = value;
        else if (tag == SEL_FIELD_CONTENT_TYPE)
            item.content_type = value;
        else if (tag == SEL_FIELD_SELECTIVE)
            item.selective = value;
    }
    sel_broker_key_digest(&item, m->name, ret);
}

static int replay_submit(struct sel_broker *b, const struct sel_mutation *m,
                         struct sel_log_place place)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    if (i != SEL_NONE && sel_broker_task_at(b, i)->sequence == m->sequence &&
        sel_broker_task_at(b, i)->state == SEL_TASK_ENDED)
        return 0; /* its end is known: this is a copy that came late */
    if (i != SEL_NONE && sel_broker_task_at(b, i)->flags & SEL_TASK_KEYED)
        sel_broker_key_remove(b, i);
    bool is_bad;
    i = entry_for(b, m, &is_bad);
    if (i == SEL_NONE)
        return is_bad ? SEL_EFORMAT : SEL_ENOMEM;
    return sel_broker_replay_submit(b, m, i, place);
}

int sel_broker_replay_submit(struct sel_broker *b, const struct sel_mutation *m, uint32_t i,
                             struct sel_log_place place)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->kind == SEL_KIND_FLOW)
        renew(b, i, m);
    int r = name_queue(b, task, m);
    task->priority = m->priority;
    task->try_count = m->try_count;
    task->lost = m->lost & SEL_TASK_LOST_MAX;
    task->suspected = m->suspected & SEL_TASK_LOST_MAX;
    sel_broker_log_claim(b, i, place, m->fields.n + m->payload.n);
    if (r == 0 && m->key.n && !(task->flags & SEL_TASK_KEYED)) {
        uint8_t digest[SEL_KEY_DIGEST];
        digest_of(m, digest);
        r = sel_broker_key_add(b, m->key, digest, i);
    }
    if (r == 0 && !sel_broker_task_keep_blob(b, i, m->fields, m->payload))
        r = SEL_ENOMEM;
    return r < 0 ? r : sel_broker_replay_wait_or_queue(b, i, m->unix_us);
}

static int replay_done(struct sel_broker *b, const struct sel_mutation *m,
                       struct sel_log_place place)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    bool had_key = i != SEL_NONE && sel_broker_task_at(b, i)->flags & SEL_TASK_KEYED;
    if (had_key && sel_broker_task_at(b, i)->sequence != m->sequence)
        sel_broker_key_remove(b, i);
    bool is_bad;
    i = entry_for(b, m, &is_bad);
    if (i == SEL_NONE)
        return is_bad ? SEL_EFORMAT : SEL_ENOMEM;
    return sel_broker_replay_done(b, m, i, place);
}

int sel_broker_replay_done(struct sel_broker *b, const struct sel_mutation *m, uint32_t i,
                           struct sel_log_place place)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->kind == SEL_KIND_FLOW)
        renew(b, i, m);
    int r = name_queue(b, task, m);
    sel_broker_log_claim(b, i, place, m->payload.n);
    if (r == 0 && m->key.n && !(task->flags & SEL_TASK_KEYED))
        r = sel_broker_key_add(b, m->key, (const uint8_t *)m->fields.p, i);
    if (r == 0 && !sel_broker_task_keep_blob(b, i, (struct sel_str){NULL, 0}, m->payload))
        r = SEL_ENOMEM;
    task->pins = 0;
    task->code = m->code;
    task->try_count = m->try_count;
    /* A clock that was set back makes a result younger, never immortal. */
    int64_t age_us = b->now.unix_us - m->unix_us;
    task->at_us = b->now.mono_us - (age_us > 0 ? age_us : 0);
    sel_broker_task_set_state(b, i, SEL_TASK_ENDED);
    return r;
}

int sel_broker_replay_retry(struct sel_broker *b, const struct sel_mutation *m)
{
    uint32_t i = sel_broker_task_find(b, m->id);
    if (i == SEL_NONE || sel_broker_task_at(b, i)->sequence != m->sequence)
        return 0;
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->state == SEL_TASK_QUEUED)
        sel_broker_queue_remove(b, i);
    else if (task->state == SEL_TASK_WAITING)
        sel_broker_timer_remove(b, i);
    else
        return 0;
    task->try_count = m->try_count;
    task->lost = m->lost & SEL_TASK_LOST_MAX;
    task->suspected = m->suspected & SEL_TASK_LOST_MAX;
    if (task->kind == SEL_KIND_RUN)
        task->fields_size = m->code;
    return sel_broker_replay_wait_or_queue(b, i, m->unix_us);
}

/* Another id of the task `target`; both are as the journal has them. */
static int link_alias(struct sel_broker *b, const struct sel_late_alias *alias, uint32_t target)
{
    if (sel_broker_task_find(b, alias->m.id) != SEL_NONE)
        return 0; /* it is known */
    uint32_t note = sel_broker_note_new(b);
    bool is_bad;
    uint32_t i = note == SEL_NONE ? SEL_NONE : entry_for(b, &alias->m, &is_bad);
    if (i == SEL_NONE)
        return SEL_ENOMEM;
    sel_broker_log_claim(b, i, alias->place, sizeof(alias->target));
    sel_broker_task_at(b, i)->holder = target;
    sel_broker_task_set_state(b, i, SEL_TASK_ALIAS);
    b->notes[note].as = i;
    b->notes[note].next = sel_broker_task_at(b, target)->extra;
    sel_broker_task_at(b, target)->extra = note;
    return 0;
}

static int replay_alias(struct sel_broker *b, const struct sel_mutation *m,
                        struct sel_log_place place)
{
    uint64_t half[2];
    memcpy(half, m->payload.p, sizeof(half));
    struct sel_late_alias alias = {
        .m = *m, .place = place, .target = {be64toh(half[0]), be64toh(half[1])}};
    uint32_t target = sel_broker_task_find(b, alias.target);
    if (target != SEL_NONE)
        return sel_broker_task_at(b, target)->state == SEL_TASK_ALIAS
                   ? 0
                   : link_alias(b, &alias, target);
    /* Dropped, or copied forward: then it is behind this. */
    if (!sel_mem_grow(&b->late_aliases, &b->late_alias_cap, (uint64_t)b->late_alias_count + 1,
                      sizeof(alias)))
        return SEL_ENOMEM;
    alias.m.name = alias.m.key = alias.m.fields = alias.m.payload = (struct sel_str){NULL, 0};
    b->late_aliases[b->late_alias_count++] = alias;
    return 0;
}

static int link_late_aliases(struct sel_broker *b)
{
    int r = 0;
    for (uint32_t k = 0; r == 0 && k < b->late_alias_count; k++) {
        uint32_t target = sel_broker_task_find(b, b->late_aliases[k].target);
        if (target != SEL_NONE && sel_broker_task_at(b, target)->state != SEL_TASK_ALIAS)
            r = link_alias(b, &b->late_aliases[k], target);
    }
    b->late_aliases = sel_mem_free(b->late_aliases);
    b->late_alias_count = b->late_alias_cap = 0;
    return r;
}

static int replay_one(struct sel_broker *b, uint64_t seq, const struct sel_mutation *m,
                      struct sel_log_place place)
{
    const uint8_t of_flows = SEL_MUTATION_FLOW | SEL_MUTATION_RUN;
    if (m->type != SEL_MUTATION_WORKER && (m->flags & of_flows || m->type > SEL_MUTATION_WORKER))
        return sel_broker_replay_flow(b, m, place);
    switch (m->type) {
    case SEL_MUTATION_START:
        b->id = m->id;
        b->incarnation = (uint32_t)m->sequence;
        b->log.start_seq = seq;
        return 0;
    case SEL_MUTATION_SUBMIT:
        return replay_submit(b, m, place);
    case SEL_MUTATION_DONE:
        return replay_done(b, m, place);
    case SEL_MUTATION_RETRY:
        return sel_broker_replay_retry(b, m);
    case SEL_MUTATION_ALIAS:
        return replay_alias(b, m, place);
    case SEL_MUTATION_WORKER:
        if (!(m->flags & SEL_MUTATION_GONE))
            return sel_broker_known_add(b, m->id, (uint32_t)m->sequence, true);
        sel_broker_known_remove(b, m->id);
        return 0;
    default:
        return SEL_EFORMAT;
    }
}

int sel_broker_replay(struct sel_broker *b, uint64_t seq, struct sel_str batch,
                      struct sel_broker_now now, struct sel_error *err)
{
    struct sel_str rest = batch;
    struct sel_mutation m;
    struct sel_error why = {0};
    int r;
    SEL_ASSERT(b->is_replaying && b->log.is_on);
    b->now = now;
    if (b->log.info_count == 0)
        b->log.dropped = seq;
    if (!sel_broker_log_note_batch(b, seq, batch.n))
        return bad(err, seq, SEL_ENOMEM, "out of memory");
    b->log.committed = b->log.synced = seq;
    while ((r = sel_mutation_next(&rest, &m, &why)) > 0) {
        size_t end = batch.n - rest.n;
        struct sel_log_place place = {seq, (uint32_t)(end - sel_broker_mutation_blob(&m))};
        bool is_of_task = m.type != SEL_MUTATION_START && m.type != SEL_MUTATION_WORKER;
        if (m.level > SEL_LEVEL_COMMIT || (is_of_task && m.level < SEL_LEVEL_INTERVAL))
            return bad(err, seq, SEL_EFORMAT, "a mutation has an impossible level");
        if (m.fields.n > SEL_TASK_FIELDS_MAX)
            return bad(err, seq, SEL_EFORMAT, "a mutation has impossibly large fields");
        if (m.unix_us < 0 || m.unix_us > INT64_MAX / 2)
            return bad(err, seq, SEL_EFORMAT, "a mutation has an impossible time");
        if ((r = replay_one(b, seq, &m, place)) < 0)
            break;
    }
    if (r == 0)
        return 0;
    return bad(err, seq, r, why.text[0] ? why.text : sel_error_text(r));
}

int sel_broker_replay_end(struct sel_broker *b)
{
    int r = link_late_aliases(b);
    sel_broker_replay_flows_end(b);
    /* Nobody waits for results yet: they are kept, and begin to be dropped. */
    uint32_t end = b->tasks.chunk_count << SEL_TASK_CHUNK_BITS;
    for (uint32_t i = 0; i < end; i++) {
        const struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state == SEL_TASK_ENDED && task->kind != SEL_KIND_RUN)
            sel_broker_task_release(b, i);
    }
    return r;
}
