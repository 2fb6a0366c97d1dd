/* After a start: which workers may still have tasks of the life before.
 *
 * The journal knows the workers that were there. Nothing is delivered until each of them has said
 * what it holds, or a lease has passed, in which a living one would have. Without a journal nobody
 * knows who was there: the wait begins when a peer comes that had a session with another broker. */
#include "broker/internal.h"
#include "core/mem.h"

static struct sel_known_worker *find(const struct sel_broker *b, struct sel_id peer)
{
    for (uint32_t i = 0; i < b->known_count; i++) {
        if (sel_id_eq(b->known[i].peer, peer))
            return &b->known[i];
    }
    return NULL;
}

int sel_broker_known_add(struct sel_broker *b, struct sel_id peer, uint32_t incarnation,
                         bool is_expected)
{
    struct sel_known_worker *known = find(b, peer);
    if (!known) {
        if (!sel_mem_grow(&b->known, &b->known_cap, (uint64_t)b->known_count + 1,
                          sizeof(*b->known)))
            return SEL_ENOMEM;
        known = &b->known[b->known_count++];
        *known = (struct sel_known_worker){.peer = peer};
    }
    known->incarnation = incarnation;
    if (is_expected && !known->is_expected)
        b->expected_count++;
    known->is_expected |= is_expected;
    return 0;
}

static void forget(struct sel_broker *b, struct sel_known_worker *known)
{
    b->expected_count -= known->is_expected;
    *known = b->known[--b->known_count];
}

void sel_broker_known_remove(struct sel_broker *b, struct sel_id peer)
{
    struct sel_known_worker *known = find(b, peer);
    if (!known)
        return;
    struct sel_mutation m = {.type = SEL_MUTATION_WORKER,
                             .flags = SEL_MUTATION_GONE,
                             .id = peer,
                             .sequence = known->incarnation};
    forget(b, known);
    if (b->log.is_on && !b->is_replaying && sel_broker_log_put(b, &m, SEL_LEVEL_INTERVAL, NULL) < 0)
        return; /* the next broker waits for it in vain, for one lease: no reason to fail */
}

void sel_broker_recover_heard(struct sel_broker *b, struct sel_id peer)
{
    struct sel_known_worker *known = find(b, peer);
    if (!known || !known->is_expected)
        return;
    known->is_expected = false;
    b->expected_count--;
}

void sel_broker_recover_begin(struct sel_broker *b)
{
    b->recover_until_us = b->now.mono_us + b->options.lease_us;
    b->is_recovering = b->expected_count > 0;
}

void sel_broker_recover_returned(struct sel_broker *b)
{
    if (!b->log.is_on && b->now.mono_us < b->recover_until_us)
        b->is_recovering = true;
}

/* What somebody asked for and nobody claimed. */
static void lose_orphans(struct sel_broker *b)
{
    if (b->tasks.by_state[SEL_TASK_ORPHAN] == 0)
        return;
    uint32_t end = b->tasks.chunk_count << SEL_TASK_CHUNK_BITS;
    for (uint32_t i = 0; i < end; i++) {
        if (sel_broker_task_at(b, i)->state == SEL_TASK_ORPHAN)
            sel_broker_task_lose_orphan(b, i);
    }
}

void sel_broker_recover_check(struct sel_broker *b)
{
    if (!b->is_recovering || !b->has_started)
        return;
    bool is_over = b->now.mono_us >= b->recover_until_us;
    if (!is_over && (!b->log.is_on || b->expected_count))
        return;
    b->is_recovering = false;
    sel_broker_say(b, SEL_BROKER_INFO, "recovered", "queued=%llu delivered=%llu unheard=%u",
                   (unsigned long long)b->queued,
                   (unsigned long long)b->tasks.by_state[SEL_TASK_DELIVERED], b->expected_count);
    for (uint32_t i = b->known_count; i > 0; i--) {
        if (b->known[i - 1].is_expected)
            sel_broker_known_remove(b, b->known[i - 1].peer);
    }
    lose_orphans(b);
}
