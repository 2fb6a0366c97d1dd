/* One thread of a worker: its loop, its session with the broker, the tasks and flows in it, and the
 * way out. */
#include "worker/process_private.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/mem.h"
#include "worker/module.h"

#define CANCEL_US INT64_C(5000000) /* what was cancelled has so long to end */

/* Another one at each start of a process, whose id may stay the same. */
static uint64_t random_number(void)
{
    uint64_t number;
    if (getrandom(&number, sizeof(number), 0) !=
        (ssize_t)sizeof(number)) /* never, after the boot */
        number = (uint64_t)sel_worker_mono_us() << 20 ^ (uint64_t)getpid();
    return number;
}

static void put_log(const struct sel_worker_thread *thread, enum sel_log_level level,
                    const char *event, const char *text)
{
    sel_worker_logger_put(&thread->process->options.log, level, event, "thread=%u %s",
                          thread->index, text);
}

/* ---- what a thread does ---- */

/* Coroutines that are at work. */
static uint32_t running(const struct sel_worker_thread *thread)
{
    uint32_t count = thread->bare ? sel_bare_running(thread->bare) : 0;
    return thread->dispatcher ? count + sel_dispatcher_running(thread->dispatcher) : count;
}

static bool has_flows(const struct sel_worker_thread *thread)
{
    return thread->dispatcher && !sel_dispatcher_is_empty(thread->dispatcher);
}

static void cancel_all(struct sel_worker_thread *thread)
{
    if (thread->bare)
        sel_bare_cancel_all(thread->bare);
    if (thread->dispatcher)
        sel_dispatcher_cancel_all(thread->dispatcher);
}

/* ---- the end of a thread ---- */

static void tell_end(struct sel_worker_thread *thread, enum sel_worker_end end)
{
    struct sel_worker_process *p = thread->process;
    const uint64_t one = 1;
    pthread_mutex_lock(&p->lock);
    thread->end = end;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    while (write(p->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void close_session(struct sel_worker_thread *thread, enum sel_worker_end end)
{
    thread->stage = STAGE_CLOSED;
    atomic_store_explicit(&thread->pulse->is_open, false, memory_order_release);
    sel_loop_timer_stop(thread->loop, &thread->limit);
    sel_worker_link_close(thread->link, end == SEL_WORKER_DRAINED);
    sel_loop_stop(thread->loop);
    tell_end(thread, end);
}

static void set_limit(struct sel_worker_thread *thread, int64_t us)
{
    int64_t now_us = sel_loop_now_us(thread->loop);
    int64_t at_us = us < INT64_MAX - now_us ? now_us + us : INT64_MAX - 1;
    if (sel_loop_timer_start(thread->loop, &thread->limit, at_us) < 0)
        thread->limit.fn(thread->loop, &thread->limit); /* no memory to wait: now */
}

static void on_limit(struct sel_loop *loop, struct sel_timer *timer)
{
    struct sel_worker_thread *thread =
        (struct sel_worker_thread *)(void *)((char *)timer -
                                             offsetof(struct sel_worker_thread, limit));
    (void)loop;
    if (thread->stage == STAGE_DRAINING) {
        if (running(thread) > 0)
            put_log(thread, SEL_LOG_WARNING, "worker.cancel", "what still runs is cancelled");
        thread->stage = STAGE_CANCELLED;
        cancel_all(thread);
        set_limit(thread, CANCEL_US);
    } else if (thread->stage == STAGE_CANCELLED || thread->stage == STAGE_LEAVING) {
        close_session(thread, running(thread) > 0 ? SEL_WORKER_STUCK : SEL_WORKER_LEFT);
    }
}

static void on_drain(struct sel_loop *loop, struct sel_post *post)
{
    struct sel_worker_thread *thread =
        (struct sel_worker_thread *)(void *)((char *)post -
                                             offsetof(struct sel_worker_thread, drain));
    (void)loop;
    if (thread->stage != STAGE_RUNNING)
        return;
    thread->stage = STAGE_DRAINING;
    sel_holder_drain(thread->holder);
    if (thread->dispatcher)
        sel_dispatcher_drain(thread->dispatcher);
    set_limit(thread, thread->drain_us);
}

/* On the way out: one step, if it is time for it. */
static void step_out(struct sel_worker_thread *thread)
{
    struct sel_peer *peer = sel_holder_peer(thread->holder);
    if ((thread->stage == STAGE_DRAINING || thread->stage == STAGE_CANCELLED) &&
        sel_holder_is_empty(thread->holder) && !has_flows(thread) && running(thread) == 0) {
        thread->stage = STAGE_LEAVING;
        sel_peer_goodbye(peer, "the worker ends");
        set_limit(thread, CANCEL_US);
    }
    if (thread->stage == STAGE_LEAVING && peer->state == SEL_PEER_CLOSED)
        close_session(thread, SEL_WORKER_DRAINED);
}

static void be_refused(struct sel_worker_thread *thread)
{
    put_log(thread, SEL_LOG_ERROR, "worker.refused", sel_holder_peer(thread->holder)->refusal.text);
    sel_holder_drain(thread->holder);
    cancel_all(thread);
    close_session(thread, SEL_WORKER_REFUSED);
}

/* ---- turns ---- */

static void see_state(struct sel_worker_thread *thread)
{
    struct sel_peer *peer = sel_holder_peer(thread->holder);
    struct sel_worker_pulse *pulse = thread->pulse;
    thread->peer_state = peer->state;
    atomic_store_explicit(&pulse->beat_us, peer->beat_us, memory_order_relaxed);
    atomic_store_explicit(&pulse->endpoint, sel_worker_link_endpoint(thread->link),
                          memory_order_relaxed);
    atomic_store_explicit(&pulse->is_open, peer->state == SEL_PEER_OPEN, memory_order_release);
    if (peer->state == SEL_PEER_OPEN)
        sel_worker_beat_wake(thread->process->beat);
    if (peer->state == SEL_PEER_OPEN && thread->process->options.page)
        __atomic_store_n(&thread->process->options.page->threads[thread->index].told, 1,
                         __ATOMIC_RELAXED);
    if (peer->state == SEL_PEER_PAUSED && thread->stage == STAGE_RUNNING && peer->session.number)
        put_log(thread, SEL_LOG_WARNING, "worker.disconnected", "the connection is broken");
    if (peer->state == SEL_PEER_REFUSED && thread->stage != STAGE_CLOSED)
        be_refused(thread);
}

static bool on_turn(void *arg)
{
    struct sel_worker_thread *thread = arg;
    uint64_t turns = atomic_load_explicit(&thread->pulse->turns, memory_order_relaxed);
    atomic_store_explicit(&thread->pulse->turns, turns + 1, memory_order_relaxed);
    if (thread->stage == STAGE_CLOSED)
        return false;
    bool has_more = sel_worker_link_receive(thread->link);
    if (thread->dispatcher)
        has_more |= sel_dispatcher_turn(thread->dispatcher);
    if (thread->bare)
        (void)sel_bare_turn(thread->bare); /* the loop sees that there is something to start */
    if (thread->stage != STAGE_RUNNING)
        step_out(thread);
    has_more |= sel_worker_link_flush(thread->link);
    if (sel_holder_peer(thread->holder)->state != thread->peer_state)
        see_state(thread);
    if (thread->stage == STAGE_LEAVING)
        step_out(thread);
    return has_more && thread->stage != STAGE_CLOSED;
}

/* ---- making a thread ---- */

static void on_cancel(void *ctx, struct sel_held_task *task)
{
    struct sel_worker_thread *thread = ctx;
    if (thread->bare)
        sel_bare_cancel(thread->bare, task);
}

static void on_flow(void *ctx, const struct sel_wire_item *item)
{
    struct sel_worker_thread *thread = ctx;
    sel_dispatcher_take(thread->dispatcher, item);
}

static void on_flows_lost(void *ctx)
{
    struct sel_worker_thread *thread = ctx;
    sel_dispatcher_lost(thread->dispatcher);
}

static void on_holder_log(void *ctx, const char *text)
{
    put_log(ctx, SEL_LOG_INFO, "worker.session", text);
}

static void on_link_log(void *ctx, const char *text)
{
    put_log(ctx, SEL_LOG_INFO, "worker.connect", text);
}

static const struct sel_holder_ops task_ops = {.cancel = on_cancel, .log = on_holder_log};
static const struct sel_holder_ops all_ops = {
    .cancel = on_cancel, .log = on_holder_log, .flow = on_flow, .flows_lost = on_flows_lost};

static int make_holder(struct sel_worker_thread *thread)
{
    const struct sel_worker_process *p = thread->process;
    struct sel_worker_pulse *pulse = thread->pulse;
    struct sel_holder_options options = {
        .peer = {.role = SEL_ROLE_WORKER,
                 .id = pulse->peer,
                 .incarnation = p->options.incarnation,
                 .name = sel_str_c(thread->name),
                 .queues = p->queues,
                 .queue_count = p->queue_count,
                 .slots = thread->slots,
                 .window = thread->slots ? p->window : 0,
                 .flows = thread->flows,
                 .config_digest = {(const char *)p->digest, sizeof(p->digest)},
                 .crashed =
                     p->options.crashed ? p->options.crashed[thread->index] : (struct sel_str){0},
                 .seed = pulse->peer.hi ^ pulse->peer.lo,
                 .beats_elsewhere = true},
        .ops = thread->flows ? &all_ops : &task_ops,
        .ctx = thread,
    };
    return sel_holder_new(&options, sel_loop_now_us(thread->loop), &thread->holder);
}

static int make_link(struct sel_worker_thread *thread)
{
    const struct sel_worker_process *p = thread->process;
    struct sel_worker_link_options options = {.net = p->net,
                                              .loop = thread->loop,
                                              .holder = thread->holder,
                                              .endpoints = p->endpoints,
                                              .endpoint_count = p->options.broker_count,
                                              .log = on_link_log,
                                              .ctx = thread};
    return sel_worker_link_new(&options, &thread->link);
}

static int make_bare(struct sel_worker_thread *thread)
{
    const struct sel_worker_process *p = thread->process;
    struct sel_bare_options options = {.engine = p->engine,
                                       .loop = thread->loop,
                                       .holder = thread->holder,
                                       .slots = thread->slots,
                                       .pulses = thread->pulses,
                                       .page = p->options.page,
                                       .thread = thread->index};
    return thread->slots ? sel_bare_new(&options, &thread->bare) : 0;
}

static int make_dispatcher(struct sel_worker_thread *thread)
{
    const struct sel_worker_process *p = thread->process;
    struct sel_dispatcher_options options = {.engine = p->engine,
                                             .loop = thread->loop,
                                             .holder = thread->holder,
                                             .seed = random_number(),
                                             .flow_nodes_max = p->options.flow_nodes_max,
                                             .page = p->options.page,
                                             .thread = thread->index,
                                             .first_slot = p->slots};
    int r = thread->flows ? sel_engine_open_caches(p->engine, &thread->err) : 0;
    return r == 0 && thread->flows ? sel_dispatcher_new(&options, &thread->dispatcher) : r;
}

/* What is not free on a machine with other users is no error. */
static void pin(const struct sel_worker_thread *thread)
{
    cpu_set_t allowed, one;
    if (!thread->process->options.pin || sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return;
    int wanted = (int)thread->index % CPU_COUNT(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (pthread_setaffinity_np(pthread_self(), sizeof(one), &one) != 0)
            put_log(thread, SEL_LOG_WARNING, "worker.pin", "cannot be pinned to a CPU");
        return;
    }
}

static int open_loop(struct sel_worker_thread *thread)
{
    struct sel_worker_process *p = thread->process;
    struct sel_loop_options options = {.offload = p->offload};
    int r = sel_loop_new(&options, &thread->loop, &thread->err);
    if (r < 0)
        return r;
    if (p->options.modules)
        r = sel_modules_thread_init(p->options.modules, &thread->err);
    thread->pulse->loop = thread->loop;
    return r;
}

static int open_thread(struct sel_worker_thread *thread)
{
    struct sel_worker_process *p = thread->process;
    pin(thread);
    if (p->options.page)
        sel_co_set_mark_place(&p->options.page->threads[thread->index].running);
    int r = open_loop(thread);
    if (r < 0)
        return r;
    r = make_holder(thread);
    if (r == 0)
        r = make_link(thread);
    if (r == 0)
        r = make_bare(thread);
    if (r == 0)
        r = make_dispatcher(thread);
    if (r < 0 && thread->err.code < 0)
        return r; /* told already */
    if (r < 0)
        return sel_error_set(&thread->err, r, SEL_WORKER_NOWHERE, "a thread of the worker: %s",
                             sel_error_text(r));
    sel_loop_set_idle(thread->loop, on_turn, thread);
    return 0;
}

static void close_thread(struct sel_worker_thread *thread)
{
    thread->dispatcher = sel_dispatcher_free(thread->dispatcher);
    if (thread->flows)
        sel_engine_close_caches(thread->process->engine);
    thread->bare = sel_bare_free(thread->bare);
    thread->link = sel_worker_link_free(thread->link);
    thread->holder = sel_holder_free(thread->holder);
    if (thread->process->options.modules)
        sel_modules_thread_done(thread->process->options.modules);
    thread->loop = sel_loop_free(thread->loop);
    sel_co_set_mark_place(NULL);
}

static void wait_for_closing(struct sel_worker_process *p)
{
    pthread_mutex_lock(&p->lock);
    while (!p->is_closing)
        pthread_cond_wait(&p->cond, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void *thread_main(void *arg)
{
    struct sel_worker_thread *thread = arg;
    struct sel_worker_process *p = thread->process;
    int r = open_thread(thread);
    pthread_mutex_lock(&p->lock);
    thread->result = r;
    thread->has_started = true;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    if (r == 0)
        sel_loop_run(thread->loop);
    wait_for_closing(p); /* others may still post to the loop */
    close_thread(thread);
    return NULL;
}

/* ---- public ---- */

static void name_thread(struct sel_worker_thread *thread)
{
    struct sel_worker_process *p = thread->process;
    char host[64] = "?";
    (void)gethostname(host, sizeof(host) - 1); /* a long one is cut */
    if (p->options.name)
        (void)snprintf(thread->name, sizeof(thread->name), "%.150s/%u", p->options.name,
                       thread->index);
    else
        (void)snprintf(thread->name, sizeof(thread->name), "%s:%d/%u", host, (int)getpid(),
                       thread->index);
}

int sel_worker_thread_init(struct sel_worker_process *p, uint32_t index)
{
    struct sel_worker_thread *thread = &p->threads[index];
    *thread = (struct sel_worker_thread){.process = p,
                                         .index = index,
                                         .pulse = &p->pulses[index],
                                         .slots = index < p->task_threads ? p->slots : 0,
                                         .limit = SEL_TIMER_INIT,
                                         .drain.fn = on_drain};
    thread->limit.fn = on_limit;
    if (p->options.dispatchers == 0 || thread->slots == 0)
        thread->flows = p->options.flows;
    thread->pulses = sel_mem_zalloc(thread->slots + 1);
    if (!thread->pulses)
        return SEL_ENOMEM;
    name_thread(thread);
    thread->pulse->peer = p->options.id;
    thread->pulse->peer.lo ^= index;
    thread->pulse->incarnation = p->options.incarnation;
    thread->pulse->slots = thread->slots;
    thread->pulse->pulses = thread->pulses;
    return 0;
}

/* Without signals: they are for the main thread. */
int sel_worker_thread_start(struct sel_worker_thread *thread, struct sel_error *err)
{
    struct sel_worker_process *p = thread->process;
    sigset_t all, before;
    (void)sigfillset(&all);
    /* Faults of tasks are this thread's own. */
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < SEL_COUNT(own); i++)
        (void)sigdelset(&all, own[i]);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&thread->thread, NULL, thread_main, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        return sel_error_set(err, r, SEL_WORKER_NOWHERE, "a thread cannot be started: %s",
                             sel_error_text(r));
    thread->is_running = true;
    pthread_mutex_lock(&p->lock);
    while (!thread->has_started)
        pthread_cond_wait(&p->cond, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (thread->result < 0 && err)
        *err = thread->err;
    return thread->result;
}
