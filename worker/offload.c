#include "worker/offload.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "core/error.h"
#include "core/mem.h"

struct sel_offload {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a job came, or is_closing */
    struct sel_offload_job *first, *last;
    uint32_t queue_count, queue_max;
    uint32_t thread_count, threads_max;
    uint32_t idle_count; /* threads that wait for a job */
    bool is_closing;
    pthread_t *threads; /* threads_max */
};

struct sel_offload *sel_offload_new(uint32_t threads_max, uint32_t queue_max)
{
    SEL_ASSERT(threads_max >= 1 && queue_max >= 1);
    struct sel_offload *offload = SEL_NEW(struct sel_offload);
    if (!offload)
        return NULL;
    offload->threads = sel_mem_zalloc(threads_max * sizeof(*offload->threads));
    if (!offload->threads)
        return sel_mem_free(offload);
    if (pthread_mutex_init(&offload->lock, NULL) != 0) {
        sel_mem_free(offload->threads);
        return sel_mem_free(offload);
    }
    if (pthread_cond_init(&offload->changed, NULL) != 0) {
        (void)pthread_mutex_destroy(&offload->lock);
        sel_mem_free(offload->threads);
        return sel_mem_free(offload);
    }
    offload->threads_max = threads_max;
    offload->queue_max = queue_max;
    return offload;
}

/* ---- the queue; all of it under the lock ---- */

static void append_locked(struct sel_offload *offload, struct sel_offload_job *job)
{
    job->next = NULL;
    job->prev = offload->last;
    if (offload->last)
        offload->last->next = job;
    else
        offload->first = job;
    offload->last = job;
    offload->queue_count++;
    job->is_queued = true;
}

static void remove_locked(struct sel_offload *offload, struct sel_offload_job *job)
{
    SEL_ASSERT(job->is_queued && offload->queue_count > 0);
    if (job->prev)
        job->prev->next = job->next;
    else
        offload->first = job->next;
    if (job->next)
        job->next->prev = job->prev;
    else
        offload->last = job->prev;
    offload->queue_count--;
    job->is_queued = false;
}

/* ---- threads ---- */

static void *run_thread(void *arg)
{
    struct sel_offload *offload = arg;
    (void)pthread_mutex_lock(&offload->lock);
    for (;;) {
        while (!offload->first && !offload->is_closing) {
            offload->idle_count++;
            (void)pthread_cond_wait(&offload->changed, &offload->lock);
            offload->idle_count--;
        }
        struct sel_offload_job *job = offload->first;
        if (!job)
            break; /* closing, and all is done */
        remove_locked(offload, job);
        (void)pthread_mutex_unlock(&offload->lock);
        job->fn(job); /* and may be gone */
        (void)pthread_mutex_lock(&offload->lock);
    }
    (void)pthread_mutex_unlock(&offload->lock);
    return NULL;
}

/* Signals to the process are for its main thread; faults stay with the thread that makes them. */
static void start_thread_locked(struct sel_offload *offload)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < SEL_COUNT(own); i++)
        sigdelset(&blocked, own[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    if (pthread_create(&offload->threads[offload->thread_count], NULL, run_thread, offload) == 0)
        offload->thread_count++;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int sel_offload_submit(struct sel_offload *offload, struct sel_offload_job *job)
{
    SEL_ASSERT(job->fn && !job->is_queued);
    int r = 0;
    (void)pthread_mutex_lock(&offload->lock);
    SEL_ASSERT(!offload->is_closing);
    /* A job that an idle thread will take at once does not count as waiting. */
    if (offload->queue_count >= offload->idle_count && offload->thread_count < offload->threads_max)
        start_thread_locked(offload);
    if (offload->thread_count == 0 || offload->queue_count >= offload->queue_max) {
        r = SEL_ELIMIT;
    } else {
        append_locked(offload, job);
        (void)pthread_cond_signal(&offload->changed);
    }
    (void)pthread_mutex_unlock(&offload->lock);
    return r;
}

bool sel_offload_cancel(struct sel_offload *offload, struct sel_offload_job *job)
{
    (void)pthread_mutex_lock(&offload->lock);
    bool was_queued = job->is_queued;
    if (was_queued)
        remove_locked(offload, job);
    (void)pthread_mutex_unlock(&offload->lock);
    return was_queued;
}

struct sel_offload *sel_offload_free(struct sel_offload *offload)
{
    if (!offload)
        return NULL;
    (void)pthread_mutex_lock(&offload->lock);
    offload->is_closing = true;
    (void)pthread_cond_broadcast(&offload->changed);
    (void)pthread_mutex_unlock(&offload->lock);
    for (uint32_t i = 0; i < offload->thread_count; i++)
        (void)pthread_join(offload->threads[i], NULL);
    SEL_ASSERT(!offload->first && offload->queue_count == 0);
    (void)pthread_cond_destroy(&offload->changed);
    (void)pthread_mutex_destroy(&offload->lock);
    sel_mem_free(offload->threads);
    return sel_mem_free(offload);
}
