/* What producers say: SUBMIT, CANCEL, WATCH. */
#include "broker/internal.h"
#include "core/mem.h"

/* ---- numbers of queues ---- */

int sel_broker_session_name_queue(struct sel_broker *b, struct sel_broker_session *s,
                                  uint16_t number, struct sel_str name)
{
    if (number == 0 || name.n == 0 || name.n > SEL_WIRE_NAME_MAX || !sel_str_is_utf8(name))
        return SEL_EFORMAT;
    uint32_t cap = s->queue_cap;
    if (number >= cap) {
        if (!sel_mem_grow(&s->queues, &cap, (uint64_t)number + 1, sizeof(*s->queues)))
            return SEL_ENOMEM;
        memset(s->queues + s->queue_cap, 0, (cap - s->queue_cap) * sizeof(*s->queues));
        s->queue_cap = cap;
    }
    uint32_t queue = sel_broker_queue_get(b, name);
    if (queue == SEL_NONE)
        return SEL_ELIMIT;
    if (s->queues[number] && s->queues[number] != queue + 1)
        return SEL_ESTATE; /* never another name for a number in use */
    s->queues[number] = (uint16_t)(queue + 1);
    return 0;
}

static uint32_t queue_of(const struct sel_broker_session *s, uint16_t number)
{
    return number < s->queue_cap && s->queues[number] ? s->queues[number] - 1u : SEL_NONE;
}

uint64_t sel_broker_on_queue(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number)
{
    int r = sel_broker_session_name_queue(b, s, item->queue, item->payload);
    if (r == 0)
        return 0;
    if (r == SEL_ENOMEM) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    const char *text = r == SEL_ELIMIT   ? "the broker has as many queues as it may (queue_max)"
                       : r == SEL_ESTATE ? "the number stands for another queue already"
                                         : "no name of a queue: 1 to 255 bytes of UTF-8";
    const struct sel_wire_error e = {
        .code = r == SEL_ELIMIT ? SEL_CODE_TOO_LARGE : SEL_CODE_ILLEGAL,
        .text = sel_str_c(text),
        .at = number,
    };
    sel_broker_error(b, s->connection, &e);
    return 0;
}

/* ---- SUBMIT ---- */

/* NULL: it may be taken. */
static const char *why_not(const struct sel_broker *b, const struct sel_broker_session *s,
                           const struct sel_wire_item *item, uint8_t level, enum sel_wire_code *ret)
{
    *ret = SEL_CODE_UNKNOWN_QUEUE;
    if (queue_of(s, item->queue) == SEL_NONE)
        return "no queue was named for this number";
    *ret = SEL_CODE_UNSUPPORTED;
    if (level > b->options.level_max)
        return "the broker has no such durability; see level_max of WELCOME";
    *ret = SEL_CODE_MALFORMED;
    if (item->task.n == 0)
        return "a SUBMIT needs the name of a task (field 1)";
    *ret = SEL_CODE_TOO_LARGE;
    if (item->raw.n > b->options.record_max)
        return "larger than record_max of WELCOME";
    if (item->fields.n > SEL_TASK_FIELDS_MAX)
        return "the fields of a record have at most 65,535 bytes";
    *ret = SEL_CODE_DRAINING;
    if (b->is_draining || b->is_stopping)
        return "the broker is draining";
    *ret = SEL_CODE_FULL;
    if (sel_broker_log_refuses(b, level))
        return "the journal is full";
    if (sel_broker_memory(b) >= b->options.memory_max)
        return "the broker's memory is full (memory_max)";
    return NULL;
}

/* mono_us from which it may run; 0: at once. Nothing waits for more than SEL_WAIT_US_MAX, so that
 * no sum of times is out of range. */
static int64_t due_us(const struct sel_broker *b, const struct sel_wire_item *item)
{
    int64_t wait = 0;
    if (item->not_before_unix_us > b->now.unix_us)
        wait = item->not_before_unix_us - b->now.unix_us;
    if (item->countdown_us > (uint64_t)wait)
        wait = item->countdown_us > SEL_WAIT_US_MAX ? SEL_WAIT_US_MAX : (int64_t)item->countdown_us;
    if (wait > SEL_WAIT_US_MAX)
        wait = SEL_WAIT_US_MAX;
    return wait ? b->now.mono_us + wait : 0;
}

static int journal(struct sel_broker *b, uint32_t i, const struct sel_wire_item *item, int64_t due)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct sel_mutation m = {
        .type = SEL_MUTATION_SUBMIT,
        .level = task->level,
        .priority = task->priority,
        .flags = task->kind == SEL_KIND_FLOW ? SEL_MUTATION_FLOW : 0,
        .id = task->id,
        .sequence = task->sequence,
        .unix_us = due ? b->now.unix_us + (due - b->now.mono_us) : 0,
        .try_count = task->try_count,
        .name = b->queues[task->queue].name,
        .key = item->idempotency_key,
        .fields = item->fields,
        .payload = item->payload,
    };
    struct sel_log_place place;
    int r = sel_broker_log_put(b, &m, task->level, &place);
    if (r == 0)
        sel_broker_log_claim(b, i, place, item->fields.n + item->payload.n);
    return r;
}

static bool be_flow(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, i);
    if (entry->kind == SEL_KIND_FLOW)
        return true;
    if (!sel_broker_flow_init(b, i))
        return false;
    entry->flow->current = sel_broker_try_new(b, entry->flow, 0);
    return entry->flow->current || (sel_broker_flow_gone(b, i), false);
}

/* Fills the entry of a task of which only the id was known. 0; SEL_ENOMEM: as before. */
static int fill(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                const struct sel_wire_item *item, uint8_t level, int64_t due)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    uint32_t queue = queue_of(s, item->queue);
    if (item->flags & SEL_ITEM_FLOW)
        queue = sel_broker_queue_twin(b, queue, SEL_QUEUE_FLOWS);
    if (queue == SEL_NONE || (item->flags & SEL_ITEM_FLOW && !be_flow(b, i)))
        return SEL_ENOMEM;
    task->queue = (uint16_t)queue;
    if (task->kind == SEL_KIND_FLOW)
        sel_broker_flow_set_name(b, task->flow, item->task);
    task->priority = item->priority;
    task->level = level & 3u;
    int r = level > SEL_LEVEL_MEMORY ? journal(b, i, item, due) : 0;
    if (r == 0 && !sel_broker_task_keep_blob(b, i, item->fields, item->payload))
        r = SEL_ENOMEM; /* only without a journal, which has it otherwise */
    return r;
}

/* Where a task that has been taken goes. */
static void place(struct sel_broker *b, uint32_t i, bool is_keyed, int64_t due)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    task->at_us = b->now.mono_us;
    if (due && sel_broker_timer_add(b, i, due)) /* has room */
        return;
    if (is_keyed && task->level > SEL_LEVEL_MEMORY) {
        /* Two brokers' lives must not run two tasks of one key: not before it is on the disk. */
        sel_broker_task_set_state(b, i, SEL_TASK_HELD);
        sel_broker_log_effect(b, i, SEL_EFFECT_ENQUEUE);
        return;
    }
    sel_broker_queue_push(b, i);
}

static void watch(struct sel_broker *b, struct sel_broker_session *s, uint32_t i, uint32_t as,
                  const struct sel_wire_item *item)
{
    if (!(item->flags & SEL_ITEM_QUIET))
        sel_broker_task_watch(b, i, s, as, item->flags & SEL_ITEM_ALL);
}

static uint64_t batch_of(const struct sel_broker *b, uint32_t i)
{
    return sel_broker_task_at(b, i)->log_seq;
}

/* The id is known: nothing runs anew. */
static uint64_t again(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                      const struct sel_wire_item *item, uint8_t level)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    b->stats.duplicates++;
    if (task->state == SEL_TASK_ALIAS) {
        watch(b, s, task->holder, i, item);
        return batch_of(b, i);
    }
    if (task->flags & SEL_TASK_NO_RECORD && task->state == SEL_TASK_DELIVERED) {
        /* A worker has it, from before the broker began: now there is a record of it too. */
        if (fill(b, s, i, item, level, 0) < 0) {
            sel_broker_session_fail(b, s);
            return 0;
        }
        task->flags &= (uint8_t)~SEL_TASK_NO_RECORD;
    }
    watch(b, s, i, SEL_NONE, item);
    return batch_of(b, i);
}

/* The key is known: the id becomes another name of that task. */
static uint64_t alias(struct sel_broker *b, struct sel_broker_session *s, uint32_t target,
                      const struct sel_wire_item *item)
{
    uint8_t level = sel_broker_task_at(b, target)->level;
    uint32_t note = sel_broker_note_new(b);
    uint32_t i = note == SEL_NONE ? SEL_NONE : sel_broker_task_add(b, item->id);
    if (i == SEL_NONE) {
        if (note != SEL_NONE)
            sel_broker_note_free(b, note);
        sel_broker_session_fail(b, s);
        return 0;
    }
    struct sel_task_entry *task = sel_broker_task_at(b, i), *of = sel_broker_task_at(b, target);
    if (level > SEL_LEVEL_MEMORY) {
        const uint64_t id[2] = {htobe64(of->id.hi), htobe64(of->id.lo)};
        struct sel_mutation m = {.type = SEL_MUTATION_ALIAS,
                                 .level = level,
                                 .id = item->id,
                                 .sequence = task->sequence,
                                 .payload = {(const char *)id, sizeof(id)}};
        struct sel_log_place place_;
        if (sel_broker_log_put(b, &m, level, &place_) < 0) {
            sel_broker_note_free(b, note);
            sel_broker_task_remove(b, i);
            sel_broker_session_fail(b, s);
            return 0;
        }
        sel_broker_log_claim(b, i, place_, sizeof(id));
        task->blob_size = 0;
    }
    task->level = level & 3u;
    task->holder = target;
    sel_broker_task_set_state(b, i, SEL_TASK_ALIAS);
    b->notes[note].as = i;
    b->notes[note].next = of->extra;
    of->extra = note;
    b->stats.duplicates++;
    watch(b, s, target, i, item);
    /* Both must be there: the task itself may not have reached its level either. */
    return batch_of(b, i) > batch_of(b, target) ? batch_of(b, i) : batch_of(b, target);
}

/* A SUBMIT with a key: *ret_batch if it is dealt with. `known`: its entry, if somebody has asked
 * for the id; that one cannot become the name of another task, and goes when it is known that no
 * worker has it. */
static bool by_key(struct sel_broker *b, struct sel_broker_session *s, uint32_t known,
                   const struct sel_wire_item *item, uint64_t number, uint8_t *digest,
                   uint64_t *ret_batch)
{
    bool same;
    sel_broker_key_digest(item, b->queues[queue_of(s, item->queue)].name, digest);
    uint32_t target = sel_broker_key_find(b, item->idempotency_key, digest, &same);
    *ret_batch = 0;
    if (target == SEL_NONE)
        return false;
    if (same && known == SEL_NONE)
        *ret_batch = alias(b, s, target, item);
    else if (same)
        sel_broker_session_refuse(b, s, item->id, number, SEL_CODE_FULL,
                                  "a worker may yet say that it has the task; try again later");
    else
        sel_broker_session_refuse(
            b, s, item->id, number, SEL_CODE_CONFLICT,
            "the idempotency key was used with another queue, task or payload");
    return true;
}

static uint64_t take_new(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                         const struct sel_wire_item *item, uint8_t level, const uint8_t *digest)
{
    int64_t due = due_us(b, item);
    bool is_keyed = item->idempotency_key.n > 0;
    bool is_new = i == SEL_NONE;
    if (due && !sel_broker_timer_reserve(b, 1)) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    if (is_new && (i = sel_broker_task_add(b, item->id)) == SEL_NONE) {
        sel_broker_session_fail(b, s);
        return 0;
    }
    int r = is_keyed ? sel_broker_key_add(b, item->idempotency_key, digest, i) : 0;
    if (r == 0 && (r = fill(b, s, i, item, level, due)) < 0 && is_keyed)
        sel_broker_key_remove(b, i);
    if (r < 0) {
        if (sel_broker_task_at(b, i)->kind == SEL_KIND_FLOW) {
            sel_broker_log_release(b, i);
            sel_broker_flow_gone(b, i);
        }
        if (is_new)
            sel_broker_task_remove(b, i);
        sel_broker_session_fail(b, s); /* not settled, so it comes again */
        return 0;
    }
    b->stats.submitted++;
    b->queues[sel_broker_task_at(b, i)->queue].submitted++;
    watch(b, s, i, SEL_NONE, item);
    place(b, i, is_keyed, due);
    return batch_of(b, i);
}

/* A worker has ended it before its SUBMIT came, which the broker had forgotten with its memory: the
 * end counts, and is journaled as well as can be (complete.c). */
static uint64_t adopt(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                      const struct sel_wire_item *item)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    task->flags &= (uint8_t)~SEL_TASK_NO_RECORD;
    task->queue = (uint16_t)queue_of(s, item->queue);
    watch(b, s, i, SEL_NONE, item);
    return batch_of(b, i);
}

/* Runs and what is kept of flows are nobody's to ask for: they have no result. */
static bool is_inside_flow(const struct sel_broker *b, uint32_t i)
{
    uint32_t kind = i == SEL_NONE ? SEL_KIND_TASK : sel_broker_task_at(b, i)->kind;
    return kind == SEL_KIND_RUN || kind == SEL_KIND_PIECE;
}

uint64_t sel_broker_on_submit(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number)
{
    enum sel_wire_code code;
    uint8_t level = item->level ? item->level : b->options.level_default;
    uint32_t i = sel_broker_task_find(b, item->id);
    if (is_inside_flow(b, i)) {
        sel_broker_session_refuse(b, s, item->id, number, SEL_CODE_ILLEGAL,
                                  "the id is that of a run of a flow");
        return 0;
    }
    if (i != SEL_NONE && queue_of(s, item->queue) != SEL_NONE) {
        const struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state == SEL_TASK_ENDED && task->flags & SEL_TASK_NO_RECORD)
            return adopt(b, s, i, item);
        if (task->state != SEL_TASK_ORPHAN)
            return again(b, s, i, item, level);
    }
    const char *why = why_not(b, s, item, level, &code);
    if (why) {
        sel_broker_session_refuse(b, s, item->id, number, code, why);
        return 0;
    }
    uint8_t digest[SEL_KEY_DIGEST];
    uint64_t batch;
    if (item->idempotency_key.n && by_key(b, s, i, item, number, digest, &batch))
        return batch;
    return take_new(b, s, i, item, level, digest);
}

/* ---- CANCEL, WATCH ---- */

uint64_t sel_broker_on_cancel(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number)
{
    (void)number;
    uint32_t i = sel_broker_task_find(b, item->id);
    if (i == SEL_NONE || is_inside_flow(b, i))
        return 0; /* has ended, or never was: its result tells */
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    switch (task->state) {
    case SEL_TASK_WAITING:
    case SEL_TASK_QUEUED:
    case SEL_TASK_HELD:
        if (sel_broker_task_cancel(b, i) < 0)
            sel_broker_session_fail(b, s);
        return batch_of(b, i);
    case SEL_TASK_DELIVERED: {
        const struct sel_wire_item cancel = {
            .type = SEL_RECORD_CANCEL,
            .id = task->id,
            .priority = SEL_WIRE_PRIORITY,
            .handle = task->sequence << 32 | i,
            .delivery = task->delivery,
        };
        task->flags |= SEL_TASK_CANCELLED;
        /* If there is no room, for a worker that hears nothing now, the task runs to its end. */
        if (sel_broker_session_say(b, b->sessions[task->holder], &cancel, SEL_NONE) == SEL_ENOMEM)
            sel_broker_session_fail(b, b->sessions[task->holder]);
        return 0;
    }
    default:
        return 0;
    }
}

uint64_t sel_broker_on_watch(struct sel_broker *b, struct sel_broker_session *s,
                             const struct sel_wire_item *item, uint64_t number)
{
    uint32_t i = sel_broker_task_find(b, item->id);
    if (i == SEL_NONE && b->is_recovering)
        i = sel_broker_task_add(b, item->id); /* a worker may yet say that it has it */
    if (i == SEL_NONE || is_inside_flow(b, i)) {
        sel_broker_session_refuse(b, s, item->id, number, SEL_CODE_UNKNOWN_TASK,
                                  "no such task, or its result has been dropped");
        return 0;
    }
    uint32_t as = SEL_NONE;
    if (sel_broker_task_at(b, i)->state == SEL_TASK_ALIAS) {
        as = i;
        i = sel_broker_task_at(b, i)->holder;
    }
    sel_broker_task_watch(b, i, s, as, item->flags & SEL_ITEM_ALL);
    return 0;
}
