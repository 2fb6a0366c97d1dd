/* How a task ends: its result is kept, journaled if its level asks for that, told to all who wait
 * for it, and dropped when it has been heard and is over the limits or too old. */
#include <stdarg.h>
#include <stdio.h>

#include "broker/flow_log.h"
#include "broker/internal.h"
#include "core/mem.h"
#include "core/value.h"

/* ---- notes ---- */

uint32_t sel_broker_note_new(struct sel_broker *b)
{
    uint32_t i = b->note_free;
    if (i != SEL_NONE) {
        b->note_free = b->notes[i].next;
    } else {
        if (!sel_mem_grow(&b->notes, &b->note_cap, (uint64_t)b->note_count + 1, sizeof(*b->notes)))
            return SEL_NONE;
        i = b->note_count++;
    }
    b->notes[i] = (struct sel_note){SEL_NONE, SEL_NONE, SEL_NONE, 0, SEL_NONE, 0, false};
    return i;
}

void sel_broker_note_free(struct sel_broker *b, uint32_t note)
{
    b->notes[note].next = b->note_free;
    b->note_free = note;
}

/* ---- results that are kept ---- */

/* With its nodes, which come before it is retained and go after it. */
static uint64_t kept_bytes(const struct sel_broker *b, const struct sel_task_entry *task)
{
    uint64_t bytes = sizeof(*task) + task->blob_size;
    if (task->kind == SEL_KIND_FLOW && task->flow->nodes != SEL_NONE)
        bytes += sel_broker_task_at(b, task->flow->nodes)->blob_size;
    return bytes;
}

/* Dropped in the order in which they were heard. */
static void retain(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->flags & SEL_TASK_RETAINED)
        return;
    task->flags |= SEL_TASK_RETAINED;
    task->next = SEL_NONE;
    if (b->result_first == SEL_NONE)
        b->result_first = i;
    else
        sel_broker_task_at(b, b->result_last)->next = i;
    b->result_last = i;
    b->result_count++;
    b->result_bytes += kept_bytes(b, task);
}

static uint32_t take_oldest(struct sel_broker *b)
{
    uint32_t i = b->result_first;
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    b->result_first = task->next;
    if (b->result_first == SEL_NONE)
        b->result_last = SEL_NONE;
    task->next = SEL_NONE;
    task->flags &= (uint8_t)~SEL_TASK_RETAINED;
    b->result_count--;
    b->result_bytes -= kept_bytes(b, task);
    return i;
}

static void free_notes(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    while (task->extra != SEL_NONE) {
        uint32_t note = task->extra, as = b->notes[note].as;
        task->extra = b->notes[note].next;
        sel_broker_note_free(b, note);
        if (as == SEL_NONE)
            continue;
        free_notes(b, as); /* an alias has none itself: one level deep */
        sel_broker_log_release(b, as);
        sel_broker_task_remove(b, as);
    }
}

void sel_broker_task_forget(struct sel_broker *b, uint32_t i)
{
    free_notes(b, i);
    if (sel_broker_task_at(b, i)->flags & SEL_TASK_KEYED)
        sel_broker_key_remove(b, i);
    sel_broker_task_free_blob(b, i);
    sel_broker_log_release(b, i);
    if (sel_broker_task_at(b, i)->kind == SEL_KIND_FLOW)
        sel_broker_flow_gone(b, i);
    sel_broker_task_remove(b, i);
}

static bool is_over(const struct sel_broker *b)
{
    return b->result_count > b->options.result_max ||
           b->result_bytes > b->options.result_bytes_max ||
           b->now.mono_us - sel_broker_task_at(b, b->result_first)->at_us >=
               b->options.result_ttl_us;
}

/* The next one is likely to be dropped with the next end, the one behind it after that: they have
 * not been looked at for long, and lie all over the memory. */
static void prefetch_next(const struct sel_broker *b)
{
    if (b->result_first == SEL_NONE)
        return;
    const struct sel_task_entry *next = sel_broker_task_at(b, b->result_first);
    sel_broker_task_prefetch_id(b, next->id);
    if (next->next != SEL_NONE)
        sel_broker_task_prefetch(b, next->next);
}

void sel_broker_results_drop(struct sel_broker *b)
{
    while (b->result_first != SEL_NONE && is_over(b)) {
        uint32_t i = take_oldest(b);
        prefetch_next(b);
        if (sel_broker_task_at(b, i)->pins > 0)
            continue; /* somebody asked again: kept until they have heard it */
        sel_broker_task_forget(b, i);
        b->stats.results_dropped++;
    }
}

int64_t sel_broker_results_due_us(const struct sel_broker *b)
{
    if (b->result_first == SEL_NONE)
        return INT64_MAX;
    return sel_broker_task_at(b, b->result_first)->at_us + b->options.result_ttl_us;
}

void sel_broker_task_pin(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->state == SEL_TASK_ENDED && task->pins < UINT16_MAX);
    task->pins++;
}

void sel_broker_task_unpin(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->state == SEL_TASK_ENDED && task->pins > 0);
    if (--task->pins == 0 && task->flags & SEL_TASK_SETTLED)
        retain(b, i);
}

/* ---- telling ---- */

static int say_result(struct sel_broker *b, struct sel_broker_session *s, uint32_t i, uint32_t as)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct sel_str fields, payload;
    int r = sel_broker_task_get_blob(b, i, &fields, &payload);
    if (r < 0)
        return r;
    const struct sel_wire_item item = {
        .type = SEL_RECORD_RESULT,
        .id = as == SEL_NONE ? task->id : sel_broker_task_at(b, as)->id,
        .priority = SEL_WIRE_PRIORITY,
        .level = task->level,
        .code = task->code,
        .try_count = task->try_count,
        .payload = payload,
    };
    return sel_broker_session_say(b, s, &item, i);
}

static void wait_for_room(struct sel_broker *b, struct sel_broker_session *s, uint32_t i,
                          uint32_t as, uint64_t after_batch)
{
    uint32_t n = sel_broker_note_new(b);
    if (n == SEL_NONE) {
        sel_broker_session_fail(b, s); /* the peer will ask again */
        sel_broker_task_unpin(b, i);
        return;
    }
    b->notes[n].task = i;
    b->notes[n].as = as;
    b->notes[n].after_batch = after_batch;
    if (s->pending_first == SEL_NONE)
        s->pending_first = n;
    else
        b->notes[s->pending_last].next = n;
    s->pending_last = n;
    sel_broker_session_mark(b, s);
}

/* A result must not be heard before the SUBMIT is settled: a peer that has its result may forget
 * the SUBMIT, and must know then that it was taken. What is journaled is settled by then; what is
 * not, and came behind what is, waits for that. */
static uint64_t barrier(const struct sel_broker *b, const struct sel_broker_session *s,
                        const struct sel_task_entry *task, uint32_t as)
{
    if (as != SEL_NONE && task->level > SEL_LEVEL_MEMORY)
        return sel_broker_task_at(b, as)->log_seq; /* the name may be new, and its task old */
    if (s->run_count == 0 || task->level > SEL_LEVEL_MEMORY)
        return 0;
    return s->runs[(s->run_head + s->run_count - 1) % s->run_cap].batch;
}

static void deliver(struct sel_broker *b, struct sel_broker_session *s, uint32_t i, uint32_t as)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    uint64_t after = barrier(b, s, task, as);
    if (task->pins == UINT16_MAX) {
        sel_broker_session_fail(b, s);
        return;
    }
    task->pins++;
    if (after > b->log.committed || s->pending_first != SEL_NONE || say_result(b, s, i, as) < 0)
        wait_for_room(b, s, i, as, after);
}

void sel_broker_results_flush(struct sel_broker *b, struct sel_broker_session *s)
{
    while (s->pending_first != SEL_NONE) {
        uint32_t n = s->pending_first;
        struct sel_note note = b->notes[n];
        if (note.after_batch > b->log.committed || say_result(b, s, note.task, note.as) < 0)
            return;
        s->pending_first = note.next;
        sel_broker_note_free(b, n);
    }
}

/* Those who wait for the end, or (`all`) for what the flow has sent off too. */
static void deliver_to_watchers(struct sel_broker *b, uint32_t i, uint32_t as, bool all)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, as == SEL_NONE ? i : as);
    struct sel_broker_session *s = sel_broker_session_at(b, entry->watcher, entry->watcher_serial);
    if (s && !all)
        deliver(b, s, i, as);
    for (uint32_t n = entry->extra; n != SEL_NONE; n = b->notes[n].next) {
        struct sel_note note = b->notes[n];
        if (note.as != SEL_NONE)
            deliver_to_watchers(b, i, note.as, all);
        else if (note.all == all && (s = sel_broker_session_at(b, note.session, note.serial)))
            deliver(b, s, i, as);
    }
}

static bool is_all_done(const struct sel_task_entry *task)
{
    return task->kind != SEL_KIND_FLOW || task->flow->is_done;
}

void sel_broker_task_release(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->state == SEL_TASK_ENDED && !(task->flags & SEL_TASK_SETTLED));
    task->flags |= SEL_TASK_SETTLED;
    deliver_to_watchers(b, i, SEL_NONE, false);
    if (is_all_done(task))
        deliver_to_watchers(b, i, SEL_NONE, true);
    if (task->pins == 0)
        retain(b, i);
}

void sel_broker_task_release_all(struct sel_broker *b, uint32_t i)
{
    if (sel_broker_task_at(b, i)->flags & SEL_TASK_SETTLED)
        deliver_to_watchers(b, i, SEL_NONE, true);
}

void sel_broker_task_watch(struct sel_broker *b, uint32_t i, struct sel_broker_session *s,
                           uint32_t as, bool all)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->state == SEL_TASK_ENDED && task->flags & SEL_TASK_SETTLED &&
        (!all || is_all_done(task))) {
        deliver(b, s, i, as);
        return;
    }
    struct sel_task_entry *entry = sel_broker_task_at(b, as == SEL_NONE ? i : as);
    struct sel_broker_session *first =
        sel_broker_session_at(b, entry->watcher, entry->watcher_serial);
    if (!all && (!first || first == s)) {
        entry->watcher = s->slot;
        entry->watcher_serial = s->serial;
        return;
    }
    for (uint32_t n = entry->extra; n != SEL_NONE; n = b->notes[n].next) {
        if (b->notes[n].session == s->slot && b->notes[n].serial == s->serial) {
            b->notes[n].all = all;
            return;
        }
    }
    uint32_t n = sel_broker_note_new(b);
    if (n == SEL_NONE) {
        sel_broker_session_fail(b, s);
        return;
    }
    b->notes[n].session = s->slot;
    b->notes[n].serial = s->serial;
    b->notes[n].all = all;
    b->notes[n].next = entry->extra;
    entry->extra = n;
}

void sel_broker_session_refuse(struct sel_broker *b, struct sel_broker_session *s, struct sel_id id,
                               uint64_t number, enum sel_wire_code code, const char *text)
{
    const struct sel_wire_item item = {
        .type = SEL_RECORD_REFUSED,
        .id = id,
        .priority = SEL_WIRE_PRIORITY,
        .code = code,
        .handle = number,
        .payload = sel_str_c(text),
    };
    b->stats.refused++;
    /* It must be heard before what it refuses is settled: without room for it there is no going
     * on. */
    if (sel_broker_session_say(b, s, &item, SEL_NONE) < 0)
        sel_broker_session_fail(b, s);
}

/* ---- ending ---- */

struct end_fields { /* of a DONE: room for each form */
    uint8_t bytes[SEL_FLOW_REF_SIZE + UINT8_MAX];
};

/* What a DONE says of a run and of a flow, whose starts may be dropped: who started it, its name.
 */
static void put_origin(const struct sel_task_entry *task, struct sel_mutation *m,
                       struct end_fields *fields)
{
    bool is_run = task->kind == SEL_KIND_RUN;
    const struct sel_flow_try *t = is_run ? task->attempt : task->flow->parent;
    size_t size = m->fields.n; /* of a key's digest */
    if (size)
        memcpy(fields->bytes, m->fields.p, size);
    if (t) {
        sel_flow_ref_encode(
            &(struct sel_flow_ref){.flow = t->flow->id,
                                   .attempt = t->attempt,
                                   .number = is_run ? task->extra : task->flow->ordinal},
            fields->bytes);
        size = SEL_FLOW_REF_SIZE;
        m->flags |= is_run ? SEL_MUTATION_RUN : SEL_MUTATION_CHILD;
        if (is_run ? task->group->is_nowait : task->flow->is_nowait)
            m->flags |= SEL_MUTATION_NOWAIT;
    }
    if (!is_run) {
        m->flags |= SEL_MUTATION_FLOW;
        if (task->flow->name_size)
            memcpy(fields->bytes + size, task->flow->name, task->flow->name_size);
        size += task->flow->name_size;
    }
    m->fields = (struct sel_str){(const char *)fields->bytes, size};
}

int sel_broker_task_log_end(struct sel_broker *b, uint32_t i, uint16_t code, struct sel_str payload,
                            struct sel_log_place *ret)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct end_fields fields;
    struct sel_mutation m = {
        .type = SEL_MUTATION_DONE,
        .level = task->level,
        .id = task->id,
        .sequence = task->sequence,
        .unix_us = b->now.unix_us,
        .try_count = task->try_count,
        .code = code,
        .name = b->queues[task->queue].name,
        .payload = payload,
    };
    if (task->flags & SEL_TASK_KEYED) {
        const uint8_t *digest;
        sel_broker_key_of(b, i, &m.key, &digest);
        m.fields = (struct sel_str){(const char *)digest, SEL_KEY_DIGEST};
    }
    if (task->kind == SEL_KIND_RUN || task->kind == SEL_KIND_FLOW)
        put_origin(task, &m, &fields);
    return sel_broker_log_put(b, &m, task->level, ret);
}

/* Out of all lists that its state has it in. */
static void leave(struct sel_broker *b, uint32_t i)
{
    switch (sel_broker_task_at(b, i)->state) {
    case SEL_TASK_QUEUED:
        sel_broker_queue_remove(b, i);
        break;
    case SEL_TASK_WAITING:
        sel_broker_timer_remove(b, i);
        break;
    case SEL_TASK_DELIVERED:
        sel_broker_task_detach(b, i);
        break;
    default:
        break;
    }
}

static void count_end(struct sel_broker *b, const struct sel_task_entry *task, uint16_t code)
{
    struct sel_queue *q = &b->queues[task->queue];
    if (code == SEL_OUTCOME_SUCCESS) {
        b->stats.finished++;
        q->finished++;
    } else if (code == SEL_OUTCOME_CANCELLED) {
        b->stats.cancelled++;
    } else {
        b->stats.failed++;
        q->failed++;
    }
}

void sel_broker_task_finish(struct sel_broker *b, uint32_t i, uint16_t code, uint8_t *blob,
                            size_t size, const struct sel_log_place *place)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    bool is_run = task->kind == SEL_KIND_RUN, is_waited_for = false;
    if (place && !is_run) /* runs are told at once: what follows from them comes behind them */
        sel_broker_log_effect(b, i, SEL_EFFECT_ENDED);
    leave(b, i);
    count_end(b, task, code);
    if (is_run) {
        is_waited_for = !task->group->is_nowait;
        sel_broker_group_unref(b, task->group, 1);
        task->group = NULL;
    }
    sel_broker_task_free_blob(b, i);
    sel_broker_log_release(b, i);
    if (task->kind == SEL_KIND_FLOW)
        sel_broker_flow_set_try(b, i, NULL);
    if (place)
        sel_broker_log_claim(b, i, *place, size);
    *sel_broker_blob_at(task) = blob;
    task->blob_size = (uint32_t)size;
    task->fields_size = 0;
    if (place && blob)
        b->payload_bytes += size;
    task->pins = is_waited_for;
    task->code = code;
    task->at_us = b->now.mono_us;
    task->flags &= SEL_TASK_KEYED;
    sel_broker_task_set_state(b, i, SEL_TASK_ENDED);
    if (task->kind == SEL_KIND_RUN || task->kind == SEL_KIND_FLOW)
        sel_broker_run_ended(b, i);
    if (!place && !is_run)
        sel_broker_task_release(b, i);
}

int sel_broker_task_end(struct sel_broker *b, uint32_t i, uint16_t code, struct sel_str payload)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    bool is_logged = task->level > SEL_LEVEL_MEMORY;
    struct sel_log_place place = {0, 0};
    uint8_t *blob = NULL;
    int r = 0;
    if (task->kind == SEL_KIND_RUN && code == SEL_OUTCOME_SUCCESS)
        payload.n = 0; /* results are in storages */
    if (task->kind == SEL_KIND_FLOW)
        r = sel_broker_flow_keep_args(b, i, task->flow->open_count > 0);
    if (r < 0)
        return r;
    if (payload.n && (!is_logged || b->payload_bytes + payload.n <= b->options.payload_memory)) {
        blob = sel_pool_alloc(&b->pool, payload.n);
        if (!blob && !is_logged)
            return SEL_ENOMEM;
        if (blob)
            memcpy(blob, payload.p, payload.n);
    }
    r = is_logged ? sel_broker_task_log_end(b, i, code, payload, &place) : 0;
    if (r < 0) {
        sel_pool_free(&b->pool, blob, payload.n);
        return r;
    }
    sel_broker_task_finish(b, i, code, blob, payload.n, is_logged ? &place : NULL);
    return 0;
}

/* {class, message} in scratch2. */
static int put_failure(struct sel_broker *b, const char *class, const char *text)
{
    struct sel_value pairs = {0};
    struct sel_value_builder map;
    sel_arena_reset(&b->failure_arena);
    sel_value_begin_map(&map, &b->failure_arena);
    sel_value_put_c(&map, "class", sel_value_from_c(class));
    sel_value_put_c(&map, "message", sel_value_from_c(text));
    int r = sel_value_end(&map, &pairs);
    if (r < 0)
        return r;
    sel_buf_clear(&b->scratch2);
    sel_value_encode(&pairs, &b->scratch2);
    return sel_buf_error(&b->scratch2);
}

int sel_broker_task_fail(struct sel_broker *b, uint32_t i, const char *class, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    int r = put_failure(b, class, text);
    return r < 0 ? r : sel_broker_task_end(b, i, SEL_OUTCOME_FAILURE, sel_buf_str(&b->scratch2));
}

int sel_broker_task_cancel(struct sel_broker *b, uint32_t i)
{
    int r = put_failure(b, "Cancelled", "the task was cancelled");
    return r < 0 ? r : sel_broker_task_end(b, i, SEL_OUTCOME_CANCELLED, sel_buf_str(&b->scratch2));
}
