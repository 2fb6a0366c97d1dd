#include "worker/timer.h"

#include "core/error.h"
#include "core/mem.h"
#include "worker/loop.h"

#define FANOUT 4u /* half as deep as two, and the children share a cache line or two */
#define NOT_ARMED UINT32_MAX

static void place(struct sel_timers *timers, uint32_t i, struct sel_timer *timer)
{
    timers->heap[i] = timer;
    timer->heap_index = i;
}

static void sift_up(struct sel_timers *timers, uint32_t i, struct sel_timer *timer)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / FANOUT;
        if (timers->heap[parent]->at_us <= timer->at_us)
            break;
        place(timers, i, timers->heap[parent]);
        i = parent;
    }
    place(timers, i, timer);
}

static void sift_down(struct sel_timers *timers, uint32_t i, struct sel_timer *timer)
{
    for (;;) {
        uint64_t first = (uint64_t)i * FANOUT + 1, least = first;
        if (first >= timers->count)
            break;
        for (uint64_t child = first + 1; child < first + FANOUT && child < timers->count; child++)
            if (timers->heap[child]->at_us < timers->heap[least]->at_us)
                least = child;
        if (timers->heap[least]->at_us >= timer->at_us)
            break;
        place(timers, i, timers->heap[least]);
        i = (uint32_t)least;
    }
    place(timers, i, timer);
}

void sel_timers_done(struct sel_timers *timers)
{
    for (uint32_t i = 0; i < timers->count; i++)
        timers->heap[i]->heap_index = NOT_ARMED;
    sel_mem_free(timers->heap);
    *timers = (struct sel_timers){0};
}

int sel_timers_start(struct sel_timers *timers, struct sel_timer *timer, int64_t at_us)
{
    uint32_t i = timer->heap_index;
    if (i == NOT_ARMED) {
        if (!sel_mem_grow(&timers->heap, &timers->cap, (uint64_t)timers->count + 1,
                          sizeof(struct sel_timer *)))
            return SEL_ENOMEM;
        timer->at_us = at_us;
        timers->count++;
        sift_up(timers, timers->count - 1, timer);
        return 0;
    }
    SEL_ASSERT(i < timers->count && timers->heap[i] == timer);
    bool earlier = at_us < timer->at_us;
    timer->at_us = at_us;
    if (earlier)
        sift_up(timers, i, timer);
    else
        sift_down(timers, i, timer);
    return 0;
}

void sel_timers_stop(struct sel_timers *timers, struct sel_timer *timer)
{
    uint32_t i = timer->heap_index;
    if (i == NOT_ARMED)
        return;
    SEL_ASSERT(i < timers->count && timers->heap[i] == timer);
    timer->heap_index = NOT_ARMED;
    struct sel_timer *last = timers->heap[--timers->count];
    if (last == timer)
        return;
    if (last->at_us < timer->at_us)
        sift_up(timers, i, last);
    else
        sift_down(timers, i, last);
}

int64_t sel_timers_next_us(const struct sel_timers *timers)
{
    return timers->count > 0 ? timers->heap[0]->at_us : INT64_MAX;
}

struct sel_timer *sel_timers_take(struct sel_timers *timers, int64_t now_us)
{
    if (timers->count == 0 || timers->heap[0]->at_us > now_us)
        return NULL;
    struct sel_timer *first = timers->heap[0];
    sel_timers_stop(timers, first);
    return first;
}
