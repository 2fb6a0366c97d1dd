/* What workers say: DONE, RETURN, CANCELLED, WANT. Ends are always taken: they make room. */
#include "broker/internal.h"

/* The handle is a hint of this broker's life; a worker may still have one of the life before. */
uint32_t sel_broker_task_of(const struct sel_broker *b, const struct sel_wire_item *item)
{
    uint32_t i = (uint32_t)item->handle;
    if (i >> SEL_TASK_CHUNK_BITS < b->tasks.chunk_count) {
        const struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state != SEL_TASK_FREE && sel_id_eq(task->id, item->id))
            return i;
    }
    return sel_broker_task_find(b, item->id);
}

void sel_broker_task_call_off(struct sel_broker *b, struct sel_broker_session *s, uint32_t i)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->state != SEL_TASK_DELIVERED || task->holder == s->slot)
        return;
    const struct sel_wire_item cancel = {
        .type = SEL_RECORD_CANCEL,
        .id = task->id,
        .priority = SEL_WIRE_PRIORITY,
        .code = SEL_CANCEL_ENDED,
        .handle = task->sequence << 32 | i,
        .delivery = task->delivery,
    };
    if (sel_broker_session_say(b, b->sessions[task->holder], &cancel, SEL_NONE) < 0)
        return; /* no room: it runs to its end, which will not count */
}

static uint16_t code_of(const struct sel_wire_item *item)
{
    switch (item->code) {
    case SEL_OUTCOME_SUCCESS:
        return SEL_OUTCOME_SUCCESS;
    case SEL_OUTCOME_RETRY: /* is not wanted any more, so it is not tried again */
        return SEL_OUTCOME_CANCELLED;
    default:
        return SEL_OUTCOME_FAILURE;
    }
}

/* The batch of which the end of this task is part, or that of what is being written now. */
static uint64_t batch_of_end(const struct sel_broker *b, const struct sel_task_entry *task)
{
    if (task->level == SEL_LEVEL_MEMORY || !b->log.is_on)
        return 0;
    return task->state == SEL_TASK_ENDED ? task->log_seq : b->log.open ? b->log.open->seq : 0;
}

/* Its SUBMIT is not known, and may have said any level. */
static void level_of_orphan(const struct sel_broker *b, struct sel_task_entry *task)
{
    if (task->flags & SEL_TASK_NO_RECORD || task->state == SEL_TASK_ORPHAN)
        task->level = b->options.level_max & 3u;
}

/* Only its id and its end are known: if its SUBMIT comes again, this is its result. */
static uint64_t keep_orphan_end(struct sel_broker *b, struct sel_broker_session *s,
                                const struct sel_wire_item *item)
{
    uint32_t i = sel_broker_task_add(b, item->id);
    if (i == SEL_NONE)
        return 0; /* then it runs again */
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    task->try_count = item->try_count;
    level_of_orphan(b, task);
    if (sel_broker_queue_get(b, SEL_STR("")) == SEL_NONE ||
        sel_broker_task_end(b, i, code_of(item), item->payload) < 0) {
        sel_broker_task_remove(b, i);
        sel_broker_session_fail(b, s);
        return 0;
    }
    task->flags |= SEL_TASK_NO_RECORD;
    return batch_of_end(b, task);
}

static int64_t wait_of(uint64_t countdown_us)
{
    return countdown_us > SEL_WAIT_US_MAX ? SEL_WAIT_US_MAX : (int64_t)countdown_us;
}

int sel_broker_log_retry(struct sel_broker *b, uint32_t i, uint64_t countdown_us)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->level == SEL_LEVEL_MEMORY)
        return 0;
    struct sel_mutation m = {
        .type = SEL_MUTATION_RETRY,
        .level = task->level,
        .flags = task->kind == SEL_KIND_FLOW ? SEL_MUTATION_FLOW : 0,
        .id = task->id,
        .sequence = task->sequence,
        .unix_us = b->now.unix_us + wait_of(countdown_us),
        .try_count = (uint16_t)(task->try_count + 1),
        .code = task->kind == SEL_KIND_RUN ? task->fields_size : 0,
        .lost = task->lost,
        .suspected = task->suspected,
    };
    return sel_broker_log_put(b, &m, task->level, NULL);
}

void sel_broker_task_retry(struct sel_broker *b, uint32_t i, uint64_t countdown_us)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    int64_t wait = wait_of(countdown_us);
    if (task->state == SEL_TASK_DELIVERED)
        sel_broker_task_detach(b, i);
    else if (task->state == SEL_TASK_QUEUED)
        sel_broker_queue_remove(b, i);
    else if (task->state == SEL_TASK_WAITING)
        sel_broker_timer_remove(b, i);
    task->try_count++;
    task->delivery = 0;
    b->stats.retried++;
    if (task->level == SEL_LEVEL_MEMORY) {
        bool has_room = sel_broker_timer_add(b, i, b->now.mono_us + wait);
        SEL_ASSERT(has_room);
        return;
    }
    /* Nobody has a try of which the next broker would not know: it would deliver it anew. */
    task->at_us = b->now.mono_us + wait;
    sel_broker_task_set_state(b, i, SEL_TASK_HELD);
    sel_broker_log_effect(b, i, SEL_EFFECT_ENQUEUE);
}

/* `counts`: as one of the retries that a run of a flow is told. */
static int retry(struct sel_broker *b, uint32_t i, uint64_t countdown_us, bool counts)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    bool is_counted = counts && task->kind == SEL_KIND_RUN && task->fields_size < UINT16_MAX;
    if (!sel_broker_timer_reserve(b, 1))
        return SEL_ENOMEM;
    if (is_counted)
        task->fields_size++;
    int r = sel_broker_log_retry(b, i, countdown_us);
    if (r == 0)
        sel_broker_task_retry(b, i, countdown_us);
    else if (is_counted)
        task->fields_size--;
    return r;
}

/* Ids of runs are derived: nobody submits one. */
static bool is_run_id(struct sel_id id)
{
    return (id.hi >> 12 & 15) == 8;
}

uint64_t sel_broker_on_done(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number)
{
    (void)number;
    uint32_t i = sel_broker_task_of(b, item);
    if (i == SEL_NONE) {
        if (b->is_recovering && item->code != SEL_OUTCOME_RETRY && !is_run_id(item->id))
            return keep_orphan_end(b, s, item);
        return 0; /* it was dropped long ago */
    }
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->kind == SEL_KIND_FLOW || task->kind == SEL_KIND_PIECE)
        return 0; /* flows end by DECIDE */
    if (task->state == SEL_TASK_ENDED || task->state == SEL_TASK_ALIAS)
        return batch_of_end(b, task); /* the first end counts */
    bool is_current = item->try_count == task->try_count ||
                      (task->flags & SEL_TASK_NO_RECORD && item->try_count > task->try_count);
    if (!is_current && item->code != SEL_OUTCOME_SUCCESS)
        return 0; /* of a try that was given up */
    int r;
    s->finished++;
    if (item->code == SEL_OUTCOME_RETRY && !(task->flags & SEL_TASK_CANCELLED)) {
        if (task->flags & SEL_TASK_NO_RECORD) {
            if (task->state == SEL_TASK_DELIVERED)
                sel_broker_task_detach(b, i);
            sel_broker_task_lose_orphan(b, i); /* nobody could try it again */
            return 0;
        }
        sel_broker_task_call_off(b, s, i);
        r = retry(b, i, item->countdown_us, !(item->flags & SEL_ITEM_UNCOUNTED));
    } else {
        bool is_orphan = task->flags & SEL_TASK_NO_RECORD || task->state == SEL_TASK_ORPHAN;
        sel_broker_task_call_off(b, s, i);
        level_of_orphan(b, task);
        task->try_count = item->try_count;
        if (is_orphan && sel_broker_queue_get(b, SEL_STR("")) == SEL_NONE)
            r = SEL_ENOMEM;
        else
            r = sel_broker_task_end(b, i, code_of(item), item->payload);
        if (r == 0 && is_orphan)
            task->flags |= SEL_TASK_NO_RECORD;
    }
    if (r < 0) {
        sel_broker_session_fail(b, s); /* not settled: said again in the next session */
        return 0;
    }
    return batch_of_end(b, task);
}

/* Whether the record is about the delivery that the worker has now. */
static bool is_held_by(const struct sel_broker *b, uint32_t i, const struct sel_broker_session *s,
                       const struct sel_wire_item *item)
{
    const struct sel_task_entry *task = i == SEL_NONE ? NULL : sel_broker_task_at(b, i);
    return task && task->state == SEL_TASK_DELIVERED && task->holder == s->slot &&
           task->try_count == item->try_count && task->delivery == item->delivery;
}

/* No worker knew it for a while: it fails, with what the last one said. */
static void returned_unknown(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                             const struct sel_wire_item *item)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct sel_str fields, payload;
    if (sel_broker_task_get_blob(b, i, &fields, &payload) < 0) {
        sel_broker_task_put_back(b, i);
        return;
    }
    struct sel_str name = sel_broker_task_name(fields);
    sel_broker_session_note_unknown(s, name);
    if (!(task->flags & SEL_TASK_UNKNOWN))
        task->unknown_since_ms = (uint32_t)(b->now.mono_us / 1000);
    task->flags |= SEL_TASK_UNKNOWN;
    if (sel_broker_task_unknown_us(b, task) >= b->options.unknown_task_us &&
        sel_broker_task_fail(b, i, "UnknownTask", "no worker knows the task '%.*s'%s%.*s",
                             SEL_STR_ARG(name), item->payload.n ? ": " : "",
                             SEL_STR_ARG(item->payload)) == 0)
        return;
    sel_broker_task_wait_for_another(b, i);
}

/* A flow whose starts lie apart: it comes again when it is its turn. */
static void returned_throttled(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                               const struct sel_wire_item *item)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    int64_t due;
    int r = item->limit_key.n && item->countdown_us
                ? sel_broker_throttle(b, item->limit_key, item->countdown_us, 1, task->level, &due)
                : SEL_EFORMAT;
    task->delivery++;
    task->flow->is_throttled = true;
    if (r == SEL_ENOMEM)
        sel_broker_session_fail(b, s);
    if (r == 0 && due > b->now.mono_us && sel_broker_timer_add(b, i, due))
        return;
    sel_broker_queue_push(b, i);
}

uint64_t sel_broker_on_return(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number)
{
    (void)number;
    uint32_t i = sel_broker_task_of(b, item);
    if (!is_held_by(b, i, s, item))
        return 0;
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    bool has_record = !(task->flags & SEL_TASK_NO_RECORD); /* else nobody can have it again */
    sel_broker_task_detach(b, i);
    if (item->code == SEL_RETURN_THROTTLED && task->kind == SEL_KIND_FLOW) {
        returned_throttled(b, s, i, item);
    } else if (item->code == SEL_RETURN_UNKNOWN_TASK && has_record) {
        task->delivery++;
        returned_unknown(b, s, i, item);
    } else if (item->code == SEL_RETURN_NO_RESOURCES && has_record) {
        task->delivery++;
        sel_broker_task_wait_for_another(b, i); /* not to the same worker at once */
    } else {
        sel_broker_task_put_back(b, i);
    }
    return 0;
}

uint64_t sel_broker_on_cancelled(struct sel_broker *b, struct sel_broker_session *s,
                                 const struct sel_wire_item *item, uint64_t number)
{
    (void)number;
    uint32_t i = sel_broker_task_of(b, item);
    if (!is_held_by(b, i, s, item))
        return 0;
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (item->code == SEL_CANCEL_ENDED && !(task->flags & SEL_TASK_CANCELLED)) {
        /* The end that called it off is lost, with a broker before this one. */
        sel_broker_task_detach(b, i);
        task->delivery++;
        if (task->flags & SEL_TASK_NO_RECORD)
            sel_broker_task_lose_orphan(b, i);
        else
            sel_broker_task_wait_for_another(b, i);
        return 0;
    }
    level_of_orphan(b, task);
    /* It says so only after a CANCEL, though that may have been of a broker before this one. */
    if (sel_broker_task_cancel(b, i) < 0) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    return batch_of_end(b, task);
}

static int serve_one(struct sel_broker *b, struct sel_queue_set *set, uint32_t queue, bool serves)
{
    bool has = sel_broker_queue_set_has(set, queue);
    if (serves && !has) {
        if (!sel_broker_queue_set_add(set, queue))
            return SEL_ENOMEM;
        b->queues[queue].workers++;
    } else if (!serves && has) {
        sel_broker_queue_set_remove(set, queue);
        b->queues[queue].workers--;
    }
    return 0;
}

int sel_broker_session_serve(struct sel_broker *b, struct sel_broker_session *s, uint32_t queue,
                             bool serves)
{
    int r = s->slots ? serve_one(b, &s->serves, queue, serves) : 0;
    if (r < 0 || s->flows == 0)
        return r;
    static const enum sel_queue_kind kinds[] = {SEL_QUEUE_FLOWS, SEL_QUEUE_SUBFLOWS};
    for (size_t i = 0; r == 0 && i < SEL_COUNT(kinds); i++) {
        uint32_t twin = sel_broker_queue_twin(b, queue, kinds[i]);
        r = twin == SEL_NONE ? SEL_ENOMEM : serve_one(b, &s->serves_flows, twin, serves);
    }
    return r;
}

uint64_t sel_broker_on_want(struct sel_broker *b, struct sel_broker_session *s,
                            const struct sel_wire_item *item, uint64_t number)
{
    uint32_t queue = item->queue < s->queue_cap && s->queues[item->queue]
                         ? s->queues[item->queue] - 1u
                         : SEL_NONE;
    if (queue == SEL_NONE) {
        const struct sel_wire_error e = {.code = SEL_CODE_UNKNOWN_QUEUE,
                                         .text = SEL_STR("no queue was named for this number"),
                                         .at = number};
        sel_broker_error(b, s->connection, &e);
        return 0;
    }
    if (sel_broker_session_serve(b, s, queue, item->code != 0) < 0)
        sel_broker_session_fail(b, s);
    return 0;
}
