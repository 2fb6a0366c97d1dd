/* worker/offload.h - a bounded pool of threads for work that blocks or computes for long. */
#ifndef SEL_WORKER_OFFLOAD_H
#define SEL_WORKER_OFFLOAD_H

#include <stdint.h>

#include "core/assert.h"

struct sel_offload;

/* `threads_max` started on demand, at most `queue_max` waiting jobs. NULL: out of memory. */
struct sel_offload *sel_offload_new(uint32_t threads_max, uint32_t queue_max);
/* Waits for all jobs; returns NULL. */
struct sel_offload *sel_offload_free(struct sel_offload *offload);

struct sel_offload_job {
    struct sel_offload_job *next; /* private */
    void (*fn)(struct sel_offload_job *job); /* on a thread of the pool */
};
/* Any thread. 0 or SEL_ELIMIT: the queue is full. */
int sel_offload_submit(struct sel_offload *offload, struct sel_offload_job *job) SEL_WARN_UNUSED;

#endif
