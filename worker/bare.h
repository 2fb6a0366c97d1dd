/* worker/bare.h - runs tasks: from the TASK that a holder has to the end that it sends.
 *
 * One that is a run of a flow has parents, and what ids and storages say of it is the flow's; it
 * leaves its result in the storage, where those that ask find it, and not in its end.
 *
 * At most `slots` at a time on one loop. A coroutine runs one task after the other for as long as
 * they do not suspend: what computes for a moment costs no switch. When one suspends, others are
 * started for what waits. Belongs to the loop's thread. */
#ifndef SEL_WORKER_BARE_H
#define SEL_WORKER_BARE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/histogram.h"
#include "worker/crash.h"
#include "worker/engine.h"
#include "worker/holder.h"
#include "worker/loop.h"

struct sel_bare;

struct sel_bare_options {
    struct sel_engine *engine; /* made without a flow; its host calls sel_bare_on_pool */
    struct sel_loop *loop;
    struct sel_holder *holder; /* its ops->cancel calls sel_bare_cancel */
    uint32_t slots;
    uint8_t *pulses;             /* a byte a slot: 0, or what changes when its task makes progress;
                                    NULL: nobody looks */
    struct sel_crash_page *page; /* with so many slots a thread; NULL: none */
    uint32_t thread;             /* in the page */
};

struct sel_bare_stats {
    uint64_t succeeded, failed, retried, returned, cancelled, unknown;
    struct sel_histogram run_us; /* of every 16th task's code */
};

int sel_bare_new(const struct sel_bare_options *options, struct sel_bare **ret) SEL_WARN_UNUSED;
/* When no coroutine of the loop is alive; returns NULL. */
struct sel_bare *sel_bare_free(struct sel_bare *bare);

/* Starts what waits; once a turn. true: something was started. */
bool sel_bare_turn(struct sel_bare *bare);
/* The broker wants it no longer. */
void sel_bare_cancel(struct sel_bare *bare, struct sel_held_task *task);
/* All that run: their suspending calls fail, and they are returned to the broker. */
void sel_bare_cancel_all(struct sel_bare *bare);
/* Coroutines that are at work. */
uint32_t sel_bare_running(const struct sel_bare *bare);
void sel_bare_get_stats(const struct sel_bare *bare, struct sel_bare_stats *ret);

/* struct sel_task_host.on_pool */
void sel_bare_on_pool(void *ctx, const struct sel_task_env *env, bool begins);

#endif
