#include "worker/beat.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

#include "core/buf.h"
#include "core/mem.h"
#include "proto/wire.h"
#include "worker/link.h"

#define BEAT_US_MIN INT64_C(10000)
#define BEAT_US_MAX INT64_C(1000000)

struct sel_worker_beat {
    struct sel_worker_beat_options options;
    struct sel_worker_socket **sockets; /* by endpoint; NULL: not needed yet */
    uint64_t *counts;                   /* by session: of its BEATs */
    struct sel_buf progress, frame;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool is_stopping, is_woken; /* under `lock` */
};

static int64_t clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct sel_worker_socket *socket_of(struct sel_worker_beat *beat, uint32_t endpoint)
{
    const struct sel_worker_beat_options *options = &beat->options;
    if (endpoint >= options->endpoint_count)
        return NULL;
    if (!beat->sockets[endpoint] &&
        sel_worker_socket_open(options->net, options->endpoints[endpoint].p,
                               options->session_count * 2, &beat->sockets[endpoint]) < 0)
        return NULL; /* tried again with the next beat */
    return beat->sockets[endpoint];
}

static void copy_progress(struct sel_buf *buf, const struct sel_worker_pulse *session)
{
    sel_buf_clear(buf);
    if (!sel_buf_reserve(buf, session->slots))
        return;
    for (uint32_t i = 0; i < session->slots; i++)
        buf->p[i] = __atomic_load_n(&session->pulses[i], __ATOMIC_RELAXED);
    buf->n = session->slots;
}

/* A BEAT that is lost is followed by another. */
static void say_beat(struct sel_worker_beat *beat, uint32_t i)
{
    struct sel_worker_pulse *session = &beat->options.sessions[i];
    struct sel_worker_socket *socket =
        socket_of(beat, atomic_load_explicit(&session->endpoint, memory_order_relaxed));
    if (!socket)
        return;
    sel_worker_socket_skip(socket);
    copy_progress(&beat->progress, session);
    const struct sel_wire_beat message = {
        .peer = session->peer,
        .incarnation = session->incarnation,
        .count = ++beat->counts[i],
        .turns = atomic_load_explicit(&session->turns, memory_order_relaxed),
        .mono_us = (uint64_t)clock_us(),
        .progress = sel_buf_str(&beat->progress),
    };
    sel_buf_clear(&beat->frame);
    sel_wire_encode_beat(&message, &beat->frame);
    if (sel_buf_error(&beat->frame) == 0)
        (void)sel_worker_socket_send(socket, sel_buf_str(&beat->frame));
}

static void on_poke(struct sel_loop *loop, struct sel_post *post)
{
    struct sel_worker_pulse *session =
        (struct sel_worker_pulse *)(void *)((char *)post - offsetof(struct sel_worker_pulse, poke));
    (void)loop; /* has turned, and that was all */
    atomic_store_explicit(&session->is_poked, false, memory_order_release);
}

static void poke(struct sel_worker_pulse *session)
{
    if (atomic_exchange_explicit(&session->is_poked, true, memory_order_acq_rel))
        return; /* not heard yet */
    session->poke.fn = on_poke;
    sel_loop_post(session->loop, &session->poke);
}

/* Says what there is to say; how long until the next time. */
static int64_t say_beats(struct sel_worker_beat *beat)
{
    int64_t pause_us = BEAT_US_MAX;
    for (uint32_t i = 0; i < beat->options.session_count; i++) {
        struct sel_worker_pulse *session = &beat->options.sessions[i];
        if (!atomic_load_explicit(&session->is_open, memory_order_acquire))
            continue;
        int64_t beat_us = atomic_load_explicit(&session->beat_us, memory_order_relaxed);
        if (beat_us < pause_us)
            pause_us = beat_us > BEAT_US_MIN ? beat_us : BEAT_US_MIN;
        say_beat(beat, i);
        poke(session);
    }
    return pause_us;
}

static void *beat_main(void *arg)
{
    struct sel_worker_beat *beat = arg;
    pthread_mutex_lock(&beat->lock);
    while (!beat->is_stopping) {
        pthread_mutex_unlock(&beat->lock);
        int64_t at_us = clock_us() + say_beats(beat);
        const struct timespec at = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};
        pthread_mutex_lock(&beat->lock);
        int r = 0;
        while (!beat->is_stopping && !beat->is_woken && r == 0)
            r = pthread_cond_timedwait(&beat->wake, &beat->lock, &at);
        beat->is_woken = false;
    }
    pthread_mutex_unlock(&beat->lock);
    return NULL;
}

static void init_locks(struct sel_worker_beat *beat)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&beat->wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&beat->lock, NULL);
}

static struct sel_worker_beat *free_beat(struct sel_worker_beat *beat)
{
    for (uint32_t i = 0; beat->sockets && i < beat->options.endpoint_count; i++)
        (void)sel_worker_socket_close(beat->sockets[i]);
    sel_buf_done(&beat->progress);
    sel_buf_done(&beat->frame);
    (void)pthread_cond_destroy(&beat->wake);
    (void)pthread_mutex_destroy(&beat->lock);
    sel_mem_free(beat->sockets);
    sel_mem_free(beat->counts);
    return sel_mem_free(beat);
}

/* Without signals: they are for the main thread. */
static int start_thread(struct sel_worker_beat *beat)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&beat->thread, NULL, beat_main, beat);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

int sel_worker_beat_start(const struct sel_worker_beat_options *options,
                          struct sel_worker_beat **ret)
{
    struct sel_worker_beat *beat = SEL_NEW(struct sel_worker_beat);
    if (!beat)
        return SEL_ENOMEM;
    beat->options = *options;
    init_locks(beat);
    beat->sockets = sel_mem_zalloc(sizeof(struct sel_worker_socket *) * options->endpoint_count);
    beat->counts = sel_mem_zalloc(sizeof(*beat->counts) * options->session_count);
    int r = beat->sockets && beat->counts ? start_thread(beat) : SEL_ENOMEM;
    if (r < 0) {
        (void)free_beat(beat);
        return r;
    }
    *ret = beat;
    return 0;
}

void sel_worker_beat_wake(struct sel_worker_beat *beat)
{
    pthread_mutex_lock(&beat->lock);
    beat->is_woken = true;
    pthread_cond_signal(&beat->wake);
    pthread_mutex_unlock(&beat->lock);
}

struct sel_worker_beat *sel_worker_beat_stop(struct sel_worker_beat *beat)
{
    if (!beat)
        return NULL;
    pthread_mutex_lock(&beat->lock);
    beat->is_stopping = true;
    pthread_cond_signal(&beat->wake);
    pthread_mutex_unlock(&beat->lock);
    pthread_join(beat->thread, NULL);
    return free_beat(beat);
}
