/* worker/timer.h - the timers of one loop: a heap by time, four children a node.
 *
 * Intrusive: a timer knows its place, so that stopping one costs no search. Pure: the caller says
 * what time it is. struct sel_timer: worker/loop.h. Timers of the same time come in no promised
 * order. */
#ifndef SEL_WORKER_TIMER_H
#define SEL_WORKER_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"

struct sel_timer;

/* Zeroed is empty. */
struct sel_timers {
    struct sel_timer **heap;
    uint32_t count, cap;
};

void sel_timers_done(struct sel_timers *timers); /* what is armed is forgotten */
/* Arms a timer or moves an armed one. 0 or SEL_ENOMEM. */
int sel_timers_start(struct sel_timers *timers, struct sel_timer *timer,
                     int64_t at_us) SEL_WARN_UNUSED;
void sel_timers_stop(struct sel_timers *timers, struct sel_timer *timer); /* or does nothing */
/* The time of the first, INT64_MAX if none is armed. */
int64_t sel_timers_next_us(const struct sel_timers *timers);
/* Takes out one that is due; NULL: none is. */
struct sel_timer *sel_timers_take(struct sel_timers *timers, int64_t now_us);

#endif
