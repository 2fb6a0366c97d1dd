/* worker/local_queue.h - the queues, delays and throttles of one process, in place of a broker.
 *
 * Work waits in a named queue, or for its time and then in its queue. Queues are served round
 * robin. Times are those of the caller's clock, in microseconds; the module has none itself. Used
 * by one thread. */
#ifndef SEL_WORKER_LOCAL_QUEUE_H
#define SEL_WORKER_LOCAL_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/hash.h"
#include "core/str.h"
#include "core/system.h"
#include "worker/job.h"

struct sel_local_queue {
    struct sel_str name;
    bool served;
    struct sel_work *first, *last;
    uint64_t count;
};

struct sel_local_queues {
    const struct sel_system *system;
    struct sel_local_queue *queues;
    uint32_t count;
    uint32_t next; /* whose turn it is */
    struct sel_map names;
    uint32_t *node_queues;    /* by node number */
    uint64_t ready, unserved; /* works in queues */
    struct sel_work **heap;   /* delayed ones, earliest first */
    uint32_t heap_count, heap_cap;
    uint64_t serial;
    int64_t *throttle_next_us; /* by node number: earliest start of the next; INT64_MIN: any */
};

/* `served`: names, or NULL for all queues of the system. SEL_EREQUEST: a name that no task and no
 * flow uses, noted in `err`. */
int sel_local_queues_init(struct sel_local_queues *q, const struct sel_system *system,
                          const char *const *served, uint32_t served_count,
                          struct sel_error *err) SEL_WARN_UNUSED;
void sel_local_queues_done(struct sel_local_queues *q);

/* How long the next start of `node` has to wait, 0 if not at all: starts of a throttled node lie
 * its interval apart. The start is taken into account. */
int64_t sel_local_throttle_us(struct sel_local_queues *q, uint32_t node, int64_t now_us);

/* Queues work of a node, after `delay_us`. 0 or SEL_ENOMEM (only with a delay). */
int sel_local_push(struct sel_local_queues *q, struct sel_work *work, uint32_t node, int64_t now_us,
                   int64_t delay_us) SEL_WARN_UNUSED;
/* Takes delayed work out again; what is not delayed (any more) stays where it is. */
void sel_local_remove(struct sel_local_queues *q, struct sel_work *work);
/* Moves what is due into its queue; the time of the next delayed work, INT64_MAX if none. */
int64_t sel_local_advance(struct sel_local_queues *q, int64_t now_us);
/* The next work of a served queue, NULL if there is none. */
struct sel_work *sel_local_pop(struct sel_local_queues *q);
/* Takes any work, queued, unserved or delayed, to clean up; NULL: all is empty. */
struct sel_work *sel_local_take_any(struct sel_local_queues *q);

#endif
