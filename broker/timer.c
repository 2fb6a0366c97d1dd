#include "broker/internal.h"
#include "core/mem.h"

#define COMMIT_US 2000 /* about a commit */

static struct sel_task_entry *at(const struct sel_broker *b, uint32_t place)
{
    return sel_broker_task_at(b, b->timers[place]);
}

/* Earlier first; equal times in the order of their sequence. */
static bool is_before(const struct sel_task_entry *x, const struct sel_task_entry *y)
{
    return x->at_us != y->at_us ? x->at_us < y->at_us : x->sequence < y->sequence;
}

static void set(struct sel_broker *b, uint32_t place, uint32_t task)
{
    b->timers[place] = task;
    sel_broker_task_at(b, task)->prev = place;
}

static void rise(struct sel_broker *b, uint32_t place, uint32_t task)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, task);
    while (place && is_before(entry, at(b, (place - 1) / 2))) {
        set(b, place, b->timers[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    set(b, place, task);
}

static void sink(struct sel_broker *b, uint32_t place, uint32_t task)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, task);
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= b->timer_count)
            break;
        if (child + 1 < b->timer_count && is_before(at(b, child + 1), at(b, child)))
            child++;
        if (!is_before(at(b, child), entry))
            break;
        set(b, place, b->timers[child]);
        place = child;
    }
    set(b, place, task);
}

bool sel_broker_timer_reserve(struct sel_broker *b, uint64_t count)
{
    return sel_mem_grow(&b->timers, &b->timer_cap, b->timer_count + count, sizeof(*b->timers));
}

bool sel_broker_timer_add(struct sel_broker *b, uint32_t task, int64_t at_us)
{
    if (!sel_broker_timer_reserve(b, 1))
        return false;
    sel_broker_task_at(b, task)->at_us = at_us;
    sel_broker_task_set_state(b, task, SEL_TASK_WAITING);
    rise(b, b->timer_count++, task);
    return true;
}

void sel_broker_timer_remove(struct sel_broker *b, uint32_t task)
{
    uint32_t place = sel_broker_task_at(b, task)->prev;
    SEL_ASSERT(place < b->timer_count && b->timers[place] == task);
    uint32_t last = b->timers[--b->timer_count];
    sel_broker_task_at(b, task)->prev = SEL_NONE;
    if (last == task)
        return;
    if (place && is_before(sel_broker_task_at(b, last), at(b, (place - 1) / 2)))
        rise(b, place, last);
    else
        sink(b, place, last);
}

int64_t sel_broker_timer_next(const struct sel_broker *b)
{
    return b->timer_count ? at(b, 0)->at_us : INT64_MAX;
}

/* One with an idempotency key waits for its batch too, see submit.c. */
static bool must_be_committed(const struct sel_broker *b, uint32_t task)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, task);
    return entry->flags & SEL_TASK_KEYED && entry->log_seq > b->log.committed;
}

void sel_broker_timer_fire(struct sel_broker *b, uint32_t max)
{
    for (uint32_t i = 0; i < max && b->timer_count && at(b, 0)->at_us <= b->now.mono_us; i++) {
        uint32_t task = b->timers[0];
        sel_broker_timer_remove(b, task);
        if (must_be_committed(b, task) && sel_broker_timer_add(b, task, b->now.mono_us + COMMIT_US))
            continue;
        sel_broker_task_at(b, task)->at_us = b->now.mono_us;
        sel_broker_queue_push(b, task);
    }
}
