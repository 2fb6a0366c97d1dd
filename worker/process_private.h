/* worker/process_private.h - between worker/process.c, which has what the threads of a worker
 * share, and worker/process_thread.c, which has what one of them does. */
#ifndef SEL_WORKER_PROCESS_PRIVATE_H
#define SEL_WORKER_PROCESS_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "worker/beat.h"
#include "worker/engine.h"
#include "worker/process.h"

#define SEL_WORKER_NAME_SIZE 192
#define SEL_WORKER_DIGEST_SIZE 16
#define SEL_WORKER_NOWHERE ((struct sel_pos){0})

enum sel_worker_stage {
    STAGE_RUNNING,
    STAGE_DRAINING,  /* what runs may end */
    STAGE_CANCELLED, /* what runs was told to end */
    STAGE_LEAVING,   /* GOODBYE is on its way */
    STAGE_CLOSED,
};

struct sel_worker_thread {
    struct sel_worker_process *process;
    uint32_t index;
    pthread_t thread;
    bool is_running; /* there is a thread to join */
    struct sel_loop *loop;
    struct sel_holder *holder;
    struct sel_worker_link *link;
    uint32_t slots, flows;             /* 0: it runs no tasks, decides no flows */
    struct sel_bare *bare;             /* NULL: no slots */
    struct sel_dispatcher *dispatcher; /* NULL: no flows */
    struct sel_worker_pulse *pulse;
    uint8_t *pulses;
    char name[SEL_WORKER_NAME_SIZE];
    enum sel_worker_stage stage;
    enum sel_peer_state peer_state; /* as seen in the last turn */
    struct sel_timer limit;         /* of the stage */
    struct sel_post drain;
    int64_t drain_us;
    enum sel_worker_end end; /* under the lock */
    bool has_started;        /* under the lock: `result` is set */
    int result;
    struct sel_error err;
};

struct sel_worker_process {
    struct sel_worker_process_options options;
    struct sel_executor_options engine_options;
    struct sel_engine *engine;
    struct sel_offload *offload;
    struct sel_worker_net *net;
    struct sel_worker_beat *beat;
    struct sel_str *queues, *endpoints;
    uint32_t queue_count;
    uint8_t digest[SEL_WORKER_DIGEST_SIZE];
    struct sel_worker_thread *threads;
    struct sel_worker_pulse *pulses;
    uint32_t thread_count, task_threads, slots, window;
    int event_fd;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_closing; /* under the lock: loops may be taken down */
    atomic_bool is_draining;
};

static inline int64_t sel_worker_mono_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Fills p->threads[index], which is zeroed. 0 or SEL_ENOMEM. */
int sel_worker_thread_init(struct sel_worker_process *p, uint32_t index) SEL_WARN_UNUSED;
/* Starts it, and waits until it has opened its loop and session. 0, or why it could not: then it
 * has ended, or waits for the process to be closed. */
int sel_worker_thread_start(struct sel_worker_thread *thread,
                            struct sel_error *err) SEL_WARN_UNUSED;

#endif
