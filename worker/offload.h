/* worker/offload.h - a bounded pool of threads for work that blocks or computes for long. */
#ifndef SEL_WORKER_OFFLOAD_H
#define SEL_WORKER_OFFLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"

struct sel_offload;

/* `threads_max` started on demand, at most `queue_max` waiting jobs. NULL: out of memory. Signals
 * of the process are not delivered to these threads. */
struct sel_offload *sel_offload_new(uint32_t threads_max, uint32_t queue_max);
/* Waits for all jobs; returns NULL. */
struct sel_offload *sel_offload_free(struct sel_offload *offload);

struct sel_offload_job {
    struct sel_offload_job *next, *prev;     /* private */
    bool is_queued;                          /* private */
    void (*fn)(struct sel_offload_job *job); /* on a thread of the pool; may free `job` */
};
/* Any thread. 0, or SEL_ELIMIT: the queue is full, or no thread can be started at all. */
int sel_offload_submit(struct sel_offload *offload, struct sel_offload_job *job) SEL_WARN_UNUSED;
/* true: `job`, submitted before and still valid, had not begun and will not run. */
bool sel_offload_cancel(struct sel_offload *offload, struct sel_offload_job *job);

#endif
