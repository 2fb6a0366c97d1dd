/* Who gets which task, and what becomes of it when they lose it. */
#include <inttypes.h>

#include "broker/internal.h"
#include "core/mem.h"

#define CHUNK 64u         /* tasks to one worker before it is the next one's turn */
#define SUSPECTED_ALONE 2 /* after so many deaths around it a task is delivered alone */
#define UNKNOWN_RETRY_US 250000
#define EMPTYING_US_MAX 60000000 /* a worker is kept empty for a suspect so long at most */
#define SHORT_BYTES 65536u       /* kept for a worker when memory is short, and one record */

/* ---- with a worker, and not any more ---- */

void sel_broker_task_attach(struct sel_broker *b, uint32_t i, struct sel_broker_session *s)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    task->holder = s->slot;
    task->prev = SEL_NONE;
    task->next = s->task_first;
    if (s->task_first != SEL_NONE)
        sel_broker_task_at(b, s->task_first)->prev = i;
    s->task_first = i;
    if (task->kind != SEL_KIND_FLOW)
        s->in_flight++;
    else if (task->flow->waits_for == 0)
        s->flows_in_flight++;
    sel_broker_task_set_state(b, i, SEL_TASK_DELIVERED);
}

void sel_broker_task_detach(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->state == SEL_TASK_DELIVERED);
    struct sel_broker_session *s = b->sessions[task->holder];
    if (task->prev == SEL_NONE)
        s->task_first = task->next;
    else
        sel_broker_task_at(b, task->prev)->next = task->next;
    if (task->next != SEL_NONE)
        sel_broker_task_at(b, task->next)->prev = task->prev;
    task->next = task->prev = SEL_NONE;
    task->holder = SEL_NONE;
    task->flags &= (uint8_t) ~(SEL_TASK_CALLED_OFF | SEL_TASK_CLAIMED);
    sel_broker_task_set_state(b, i, SEL_TASK_HELD); /* in no list; the caller knows where it goes */
    if (task->kind == SEL_KIND_FLOW) {
        s->flows_in_flight -= task->flow->waits_for == 0;
        sel_broker_flow_disown(b, task->flow);
    } else if (--s->in_flight == 0) {
        s->is_alone = false;
    }
}

/* ---- back to the queue ---- */

static void refuse_watcher(struct sel_broker *b, const struct sel_task_entry *task, uint32_t slot,
                           uint32_t serial)
{
    struct sel_broker_session *s = sel_broker_session_at(b, slot, serial);
    if (s)
        sel_broker_session_refuse(
            b, s, task->id, 0, SEL_CODE_UNKNOWN_TASK,
            "the broker does not know this task: it was lost with its memory");
}

void sel_broker_task_lose_orphan(struct sel_broker *b, uint32_t i)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    refuse_watcher(b, task, task->watcher, task->watcher_serial);
    for (uint32_t n = task->extra; n != SEL_NONE; n = b->notes[n].next)
        refuse_watcher(b, task, b->notes[n].session, b->notes[n].serial);
    sel_broker_task_forget(b, i);
}

const char *sel_broker_lost_class(const struct sel_task_entry *task)
{
    return task->kind == SEL_KIND_FLOW ? "DispatcherLost" : "WorkerLost";
}

void sel_broker_task_put_back(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->flags & SEL_TASK_NO_RECORD) {
        sel_broker_task_lose_orphan(b, i);
        return;
    }
    if (task->flags & SEL_TASK_CANCELLED && sel_broker_task_cancel(b, i) == 0)
        return;
    b->stats.put_back++;
    if (task->lost >= b->options.poison_max) {
        struct sel_str fields, payload, name = {NULL, 0};
        if (sel_broker_task_get_blob(b, i, &fields, &payload) == 0)
            name = sel_broker_task_name(fields);
        if (sel_broker_task_fail(b, i, sel_broker_lost_class(task),
                                 "'%.*s' was running when %u workers died", SEL_STR_ARG(name),
                                 task->lost) == 0)
            return;
    }
    task->delivery++;
    task->flags &= (uint8_t)~SEL_TASK_UNKNOWN;
    sel_broker_queue_push(b, i);
}

/* ---- names that a worker does not know ---- */

static uint64_t name_hash(struct sel_str name)
{
    return sel_hash_bytes(name.p, name.n, 0) | 1;
}

static bool is_unknown_to(const struct sel_broker_session *s, uint64_t hash)
{
    for (uint32_t i = 0; i < s->unknown_count; i++) {
        if (s->unknown[i] == hash)
            return true;
    }
    return false;
}

void sel_broker_session_note_unknown(struct sel_broker_session *s, struct sel_str name)
{
    uint64_t hash = name_hash(name);
    if (is_unknown_to(s, hash))
        return;
    if (!s->unknown) {
        s->unknown = sel_mem_alloc(SEL_UNKNOWN_NAMES_MAX * sizeof(*s->unknown));
        if (!s->unknown)
            return; /* it will be asked again */
    }
    /* The oldest goes: asked once more, it says so again. */
    if (s->unknown_count == SEL_UNKNOWN_NAMES_MAX)
        memmove(s->unknown, s->unknown + 1, --s->unknown_count * sizeof(*s->unknown));
    s->unknown[s->unknown_count++] = hash;
}

int64_t sel_broker_task_unknown_us(const struct sel_broker *b, const struct sel_task_entry *task)
{
    uint32_t now_ms = (uint32_t)(b->now.mono_us / 1000);
    return (int64_t)(now_ms - task->unknown_since_ms) * 1000;
}

void sel_broker_task_wait_for_another(struct sel_broker *b, uint32_t i)
{
    if (!sel_broker_timer_add(b, i, b->now.mono_us + UNKNOWN_RETRY_US))
        sel_broker_queue_push(b, i);
}

/* ---- delivering ---- */

static bool is_suspect(const struct sel_task_entry *task)
{
    return task->kind != SEL_KIND_FLOW && task->suspected >= SUSPECTED_ALONE;
}

/* The worker that gets nothing until it is empty and a suspect comes along; NULL: none. */
static struct sel_broker_session *emptying(const struct sel_broker *b)
{
    if (b->now.mono_us >= b->emptying_until_us)
        return NULL;
    return sel_broker_session_at(b, b->emptying_slot, b->emptying_serial);
}

/* What a worker is kept empty for: it may be anywhere in its queue, or wait for a moment because
 * nobody could take it. NONE: it needs nobody any more. */
static uint32_t awaited(struct sel_broker *b)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, b->emptying_task);
    if (task->sequence == b->emptying_sequence &&
        (task->state == SEL_TASK_QUEUED ||
         (task->state == SEL_TASK_WAITING && task->at_us <= b->now.mono_us + UNKNOWN_RETRY_US)))
        return b->emptying_task;
    b->emptying_until_us = 0;
    return SEL_NONE;
}

/* Whether the worker can have this one now. */
static bool suits(struct sel_broker *b, struct sel_broker_session *s, uint32_t i)
{
    const struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (is_suspect(task)) {
        if (s->in_flight && !emptying(b)) {
            b->emptying_slot = s->slot;
            b->emptying_serial = s->serial;
            b->emptying_task = i;
            b->emptying_sequence = task->sequence;
            b->emptying_until_us = b->now.mono_us + EMPTYING_US_MAX;
        }
        return s->in_flight == 0;
    }
    /* Asked for the last time, the worker says once more what it knows instead. */
    if (!(task->flags & SEL_TASK_UNKNOWN) ||
        sel_broker_task_unknown_us(b, task) >= b->options.unknown_task_us)
        return true;
    struct sel_str fields, payload;
    return sel_broker_task_get_blob(b, i, &fields, &payload) == 0 &&
           !is_unknown_to(s, name_hash(sel_broker_task_name(fields)));
}

static int tell_queue(struct sel_broker *b, struct sel_broker_session *s, uint32_t queue)
{
    if (sel_broker_queue_set_has(&s->told, queue))
        return 0;
    const struct sel_wire_item item = {
        .type = SEL_RECORD_QUEUE,
        .queue = (uint16_t)(queue + 1),
        .priority = SEL_WIRE_PRIORITY,
        .payload = b->queues[queue].name,
    };
    int r = sel_broker_queue_set_add(&s->told, queue) ? 0 : SEL_ENOMEM;
    if (r == 0 && (r = sel_broker_session_say(b, s, &item, SEL_NONE)) < 0)
        sel_broker_queue_set_remove(&s->told, queue);
    return r;
}

static uint64_t handle_of(uint32_t i, const struct sel_task_entry *task)
{
    return task->sequence << 32 | i;
}

static uint16_t flags_of_flow(const struct sel_flow *flow)
{
    return (uint16_t)(SEL_ITEM_FLOW | (flow->is_throttled ? SEL_ITEM_THROTTLED : 0) |
                      (sel_broker_flow_has_history(flow) ? SEL_ITEM_HISTORY : 0));
}

/* 0, or why not now. */
static int give(struct sel_broker *b, struct sel_broker_session *s, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    struct sel_str fields, payload;
    int r = tell_queue(b, s, task->queue);
    if (r == 0)
        r = task->kind == SEL_KIND_RUN ? sel_broker_run_describe(b, i, &fields, &payload)
                                       : sel_broker_task_get_blob(b, i, &fields, &payload);
    if (r < 0)
        return r;
    const struct sel_wire_item item = {
        .type = SEL_RECORD_TASK,
        .flags = task->kind == SEL_KIND_FLOW ? flags_of_flow(task->flow) : 0,
        .id = task->id,
        .queue = (uint16_t)(task->queue + 1),
        .priority = task->priority,
        .level = task->level,
        .handle = handle_of(i, task),
        .try_count = task->try_count,
        .delivery = task->delivery,
        .fields = fields,
        .payload = payload,
    };
    r = sel_broker_session_say(b, s, &item, SEL_NONE);
    if (r < 0)
        return r;
    sel_broker_queue_remove(b, i);
    if (!(task->flags & SEL_TASK_STARTED)) {
        sel_histogram_add(&b->stats.queue_us, b->now.mono_us - task->at_us);
        b->stats.started++;
    }
    task->flags |= SEL_TASK_STARTED;
    s->is_alone = is_suspect(task);
    if (s->is_alone)
        b->emptying_until_us = 0;
    sel_broker_task_attach(b, i, s);
    if (task->kind == SEL_KIND_FLOW)
        sel_broker_flow_load(b, i);
    return 0;
}

static bool is_ready(const struct sel_broker *b, const struct sel_broker_session *s)
{
    return s->is_connected && !s->must_welcome && !s->is_draining && !s->is_stalled &&
           !s->is_failed && s->ready_batch <= b->log.committed;
}

/* What is delivered is in memory twice until it has arrived; with a journal, arguments that wait
 * are not in memory at all. */
static bool has_memory_for(const struct sel_broker *b, const struct sel_broker_session *s)
{
    return s->s.out.end - s->s.out.head < SHORT_BYTES || !sel_broker_is_short(b);
}

static bool can_take(const struct sel_broker *b, const struct sel_broker_session *s)
{
    return is_ready(b, s) && !s->is_alone && s->in_flight < s->window && has_memory_for(b, s);
}

static bool can_take_flow(const struct sel_broker *b, const struct sel_broker_session *s)
{
    return is_ready(b, s) && s->flows_in_flight < s->flows && has_memory_for(b, s);
}

/* The next queue of flows for the worker, those of sub-flows first; SEL_NONE: none. */
static uint32_t next_flow_queue(const struct sel_broker *b, const struct sel_broker_session *s)
{
    if (!can_take_flow(b, s))
        return SEL_NONE;
    uint32_t first = sel_broker_queue_set_next(&b->ready_flows, &s->serves_flows, s->flow_rotor);
    uint32_t queue = first;
    while (queue != SEL_NONE && b->queues[queue].kind != SEL_QUEUE_SUBFLOWS) {
        queue = sel_broker_queue_set_next(&b->ready_flows, &s->serves_flows, queue + 1);
        if (queue == first)
            break;
    }
    return queue;
}

/* A worker that has nothing and serves the queue; NULL: none. */
static struct sel_broker_session *idle_worker(const struct sel_broker *b, uint32_t queue)
{
    for (uint32_t k = 0; k < b->worker_live; k++) {
        struct sel_broker_session *s = b->sessions[b->workers[k]];
        if (s->in_flight == 0 && can_take(b, s) && sel_broker_queue_set_has(&s->serves, queue))
            return s;
    }
    return NULL;
}

/* Up to CHUNK tasks for one worker, in turns from the queues that it serves. Whether it may be
 * asked again. */
static bool serve(struct sel_broker *b, struct sel_broker_session *s, uint32_t *given)
{
    uint32_t unsuitable = 0;
    for (uint32_t n = 0; n < CHUNK && can_take(b, s) && unsuitable < CHUNK;) {
        if (emptying(b) == s && awaited(b) != SEL_NONE) {
            uint32_t suspect = b->emptying_task;
            if (s->in_flight || sel_broker_task_at(b, suspect)->state != SEL_TASK_QUEUED)
                return false;
            if (give(b, s, suspect) == 0)
                (*given)++;
            return false; /* it has it alone */
        }
        uint32_t queue = sel_broker_queue_set_next(&b->ready_queues, &s->serves, s->rotor);
        if (queue == SEL_NONE)
            return false;
        s->rotor = queue + 1;
        uint32_t i = sel_broker_queue_first(b, queue);
        if (!suits(b, s, i)) {
            struct sel_broker_session *idle =
                is_suspect(sel_broker_task_at(b, i)) ? idle_worker(b, queue) : NULL;
            if (idle && give(b, idle, i) == 0) {
                (*given)++;
                continue;
            }
            /* For another worker, or later: what is behind it must not wait. */
            unsuitable++;
            sel_broker_queue_remove(b, i);
            sel_broker_task_wait_for_another(b, i);
            continue;
        }
        if (give(b, s, i) < 0)
            return false; /* no room at the worker, or no memory: later */
        n++;
        (*given)++;
    }
    return can_take(b, s);
}

/* The same for flows. */
static bool serve_flows(struct sel_broker *b, struct sel_broker_session *s, uint32_t *given)
{
    for (uint32_t n = 0; n < CHUNK; n++) {
        uint32_t queue = next_flow_queue(b, s);
        if (queue == SEL_NONE)
            return false;
        s->flow_rotor = queue + 1;
        uint32_t i = sel_broker_queue_first(b, queue);
        if (!suits(b, s, i)) {
            sel_broker_queue_remove(b, i);
            sel_broker_task_wait_for_another(b, i);
            continue;
        }
        if (give(b, s, i) < 0)
            return false;
        (*given)++;
    }
    return next_flow_queue(b, s) != SEL_NONE;
}

void sel_broker_dispatch(struct sel_broker *b)
{
    if (b->is_recovering || b->is_stopping || !b->has_started)
        return;
    bool more = true;
    while (more && b->queued) {
        more = false;
        uint32_t given = 0;
        for (uint32_t k = 0; k < b->worker_live && b->queued; k++) {
            uint32_t place = (b->worker_rotor + k) % b->worker_live;
            struct sel_broker_session *s = b->sessions[b->workers[place]];
            if (can_take(b, s))
                more |= serve(b, s, &given);
            if (s->flows)
                more |= serve_flows(b, s, &given);
        }
        b->worker_rotor++; /* who is asked first changes */
        more = more && given > 0;
    }
}
