#include "worker/process.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/mem.h"
#include "worker/beat.h"
#include "worker/engine.h"
#include "worker/module.h"
#include "worker/offload.h"

#define OFFLOAD_THREADS_MAX 64
#define OFFLOAD_QUEUE_MAX 65536
#define THREADS_PER_IO_THREAD 4
#define CANCEL_US INT64_C(5000000) /* what was cancelled has so long to end */
#define NAME_SIZE 192
#define DIGEST_SIZE 16

enum stage {
    STAGE_RUNNING,
    STAGE_DRAINING,  /* what runs may end */
    STAGE_CANCELLED, /* what runs was told to end */
    STAGE_LEAVING,   /* GOODBYE is on its way */
    STAGE_CLOSED,
};

struct worker_thread {
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
    char name[NAME_SIZE];
    enum stage stage;
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
    uint8_t digest[DIGEST_SIZE];
    struct worker_thread *threads;
    struct sel_worker_pulse *pulses;
    uint32_t thread_count, task_threads, slots, window;
    int event_fd;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_closing; /* under the lock: loops may be taken down */
    atomic_bool is_draining;
};

#define NOWHERE ((struct sel_pos){0})

static int64_t mono_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Another one at each start of a process, whose id may stay the same. */
static uint64_t random_number(void)
{
    uint64_t number;
    if (getrandom(&number, sizeof(number), 0) !=
        (ssize_t)sizeof(number)) /* never, after the boot */
        number = (uint64_t)mono_us() << 20 ^ (uint64_t)getpid();
    return number;
}

static void put_log(const struct worker_thread *thread, enum sel_log_level level, const char *event,
                    const char *text)
{
    sel_worker_logger_put(&thread->process->options.log, level, event, "thread=%u %s",
                          thread->index, text);
}

/* ---- what a thread does ---- */

/* Coroutines that are at work. */
static uint32_t running(const struct worker_thread *thread)
{
    uint32_t count = thread->bare ? sel_bare_running(thread->bare) : 0;
    return thread->dispatcher ? count + sel_dispatcher_running(thread->dispatcher) : count;
}

static bool has_flows(const struct worker_thread *thread)
{
    return thread->dispatcher && !sel_dispatcher_is_empty(thread->dispatcher);
}

static void cancel_all(struct worker_thread *thread)
{
    if (thread->bare)
        sel_bare_cancel_all(thread->bare);
    if (thread->dispatcher)
        sel_dispatcher_cancel_all(thread->dispatcher);
}

/* ---- the end of a thread ---- */

static void tell_end(struct worker_thread *thread, enum sel_worker_end end)
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

static void close_session(struct worker_thread *thread, enum sel_worker_end end)
{
    thread->stage = STAGE_CLOSED;
    atomic_store_explicit(&thread->pulse->is_open, false, memory_order_release);
    sel_loop_timer_stop(thread->loop, &thread->limit);
    sel_worker_link_close(thread->link, end == SEL_WORKER_DRAINED);
    sel_loop_stop(thread->loop);
    tell_end(thread, end);
}

static void set_limit(struct worker_thread *thread, int64_t us)
{
    int64_t now_us = sel_loop_now_us(thread->loop);
    int64_t at_us = us < INT64_MAX - now_us ? now_us + us : INT64_MAX - 1;
    if (sel_loop_timer_start(thread->loop, &thread->limit, at_us) < 0)
        thread->limit.fn(thread->loop, &thread->limit); /* no memory to wait: now */
}

static void on_limit(struct sel_loop *loop, struct sel_timer *timer)
{
    struct worker_thread *thread =
        (struct worker_thread *)(void *)((char *)timer - offsetof(struct worker_thread, limit));
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
    struct worker_thread *thread =
        (struct worker_thread *)(void *)((char *)post - offsetof(struct worker_thread, drain));
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
static void step_out(struct worker_thread *thread)
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

static void be_refused(struct worker_thread *thread)
{
    put_log(thread, SEL_LOG_ERROR, "worker.refused", sel_holder_peer(thread->holder)->refusal.text);
    sel_holder_drain(thread->holder);
    cancel_all(thread);
    close_session(thread, SEL_WORKER_REFUSED);
}

/* ---- turns ---- */

static void see_state(struct worker_thread *thread)
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
    struct worker_thread *thread = arg;
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
    struct worker_thread *thread = ctx;
    if (thread->bare)
        sel_bare_cancel(thread->bare, task);
}

static void on_flow(void *ctx, const struct sel_wire_item *item)
{
    struct worker_thread *thread = ctx;
    sel_dispatcher_take(thread->dispatcher, item);
}

static void on_flows_lost(void *ctx)
{
    struct worker_thread *thread = ctx;
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

static int make_holder(struct worker_thread *thread)
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

static int make_link(struct worker_thread *thread)
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

static int make_bare(struct worker_thread *thread)
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

static int make_dispatcher(struct worker_thread *thread)
{
    const struct sel_worker_process *p = thread->process;
    struct sel_dispatcher_options options = {.engine = p->engine,
                                             .loop = thread->loop,
                                             .holder = thread->holder,
                                             .seed = random_number(),
                                             .page = p->options.page,
                                             .thread = thread->index,
                                             .first_slot = p->slots};
    int r = thread->flows ? sel_engine_open_caches(p->engine, &thread->err) : 0;
    return r == 0 && thread->flows ? sel_dispatcher_new(&options, &thread->dispatcher) : r;
}

/* What is not free on a machine with other users is no error. */
static void pin(const struct worker_thread *thread)
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

static int open_loop(struct worker_thread *thread)
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

static int open_thread(struct worker_thread *thread)
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
        return sel_error_set(&thread->err, r, NOWHERE, "a thread of the worker: %s",
                             sel_error_text(r));
    sel_loop_set_idle(thread->loop, on_turn, thread);
    return 0;
}

static void close_thread(struct worker_thread *thread)
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
    struct worker_thread *thread = arg;
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

/* Without signals: they are for the main thread. */
static int start_thread(struct worker_thread *thread, struct sel_error *err)
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
        return sel_error_set(err, r, NOWHERE, "a thread cannot be started: %s", sel_error_text(r));
    thread->is_running = true;
    pthread_mutex_lock(&p->lock);
    while (!thread->has_started)
        pthread_cond_wait(&p->cond, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (thread->result < 0 && err)
        *err = thread->err;
    return thread->result;
}

/* ---- what all threads share ---- */

static bool has_queue(const struct sel_worker_process *p, struct sel_str name)
{
    for (uint32_t i = 0; i < p->queue_count; i++) {
        if (sel_str_eq(p->queues[i], name))
            return true;
    }
    return false;
}

static int add_queue(struct sel_worker_process *p, struct sel_str name, struct sel_error *err)
{
    if (has_queue(p, name))
        return 0;
    if (name.n == 0 || name.n > SEL_WIRE_NAME_MAX || !sel_str_is_utf8(name))
        return sel_error_set(err, SEL_ECONFIG, NOWHERE,
                             "'%.*s' is no name of a queue: 1 to 255 bytes of UTF-8",
                             SEL_STR_ARG(name));
    if (p->queue_count == SEL_WIRE_QUEUES_MAX)
        return sel_error_set(err, SEL_ECONFIG, NOWHERE, "more than %d queues are served",
                             SEL_WIRE_QUEUES_MAX);
    p->queues[p->queue_count++] = name;
    return 0;
}

static int collect_queues(struct sel_worker_process *p, struct sel_error *err)
{
    const struct sel_worker_process_options *o = &p->options;
    const struct sel_system *system = o->system;
    uint32_t max = o->queues ? o->queue_count : system->task_count + system->flow_count + 2;
    bool tasks = !o->queues && p->task_threads > 0, flows = !o->queues && o->flows > 0;
    int r = 0;
    p->queues = sel_mem_zalloc(sizeof(*p->queues) * ((size_t)max + 1));
    if (!p->queues)
        return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
    for (uint32_t i = 0; o->queues && i < o->queue_count && r == 0; i++)
        r = add_queue(p, sel_str_c(o->queues[i]), err);
    if (tasks && system->default_task_queue.n)
        r = add_queue(p, system->default_task_queue, err);
    for (uint32_t i = 0; tasks && i < system->task_count && r == 0; i++)
        r = add_queue(p, system->tasks[i].queue, err);
    if (flows && r == 0 && system->default_dispatcher_queue.n)
        r = add_queue(p, system->default_dispatcher_queue, err);
    for (uint32_t i = 0; flows && i < system->flow_count && r == 0; i++)
        r = add_queue(p, system->flows[i].queue, err);
    return r;
}

/* So that people see at the broker which workers have the same names. */
static void make_digest(struct sel_worker_process *p)
{
    const struct sel_system *system = p->options.system;
    uint64_t sums[2] = {1, 2};
    for (uint32_t i = 0; i < system->task_count + system->flow_count; i++) {
        struct sel_str name = sel_system_node_name(system, i);
        for (uint32_t k = 0; k < 2; k++)
            sums[k] = sel_hash_bytes(name.p, name.n, sums[k]);
    }
    memcpy(p->digest, sums, sizeof(p->digest));
}

static void engine_log(void *ctx, enum sel_log_level level, const char *line)
{
    const struct sel_worker_process *p = ctx;
    sel_worker_logger_put(&p->options.log, level, "worker.task", "%s", line);
}

static int make_engine(struct sel_worker_process *p, struct sel_error *err)
{
    const struct sel_worker_process_options *o = &p->options;
    p->engine_options = (struct sel_executor_options){
        .system = o->system,
        .modules = o->modules,
        .mock = o->mock,
        .mock_results = o->mock_results,
        .speed = o->speed,
        .ignore_sampling = o->mock && o->speed > 0,
        .observer = o->observer,
        .queues = o->queues,
        .queue_count = o->queue_count,
        .getenv = o->getenv,
        .getenv_ctx = o->getenv_ctx,
        .log = engine_log,
        .log_ctx = p,
        .verbosity = o->verbosity,
    };
    int r = sel_engine_new(&p->engine_options, NULL, &p->engine, err);
    if (r < 0)
        return r;
    p->engine->host.on_pool = sel_bare_on_pool;
    if (o->flows > 0)
        sel_engine_prepare_flows(p->engine);
    return 0;
}

/* The context before anything is pinned: its threads take over what the caller may use. */
static int make_net(struct sel_worker_process *p, struct sel_error *err)
{
    const struct sel_worker_process_options *o = &p->options;
    int r = sel_worker_net_new(1 + (p->thread_count - 1) / THREADS_PER_IO_THREAD, &p->net);
    if (r < 0)
        return sel_error_set(err, r, NOWHERE, "ZeroMQ cannot be started: %s", sel_error_text(r));
    p->endpoints = sel_mem_zalloc(sizeof(*p->endpoints) * o->broker_count);
    if (!p->endpoints)
        return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
    for (uint32_t i = 0; i < o->broker_count && r == 0; i++) {
        p->endpoints[i] = sel_str_c(o->brokers[i]);
        r = sel_worker_net_check(p->net, o->brokers[i], err);
    }
    return r;
}

static void make_id(struct sel_worker_process *p)
{
    struct sel_id *id = &p->options.id;
    if ((id->hi | id->lo) == 0 &&
        getrandom(id, sizeof(*id), 0) != (ssize_t)sizeof(*id)) /* never, after the boot */
        *id = (struct sel_id){(uint64_t)mono_us(), (uint64_t)getpid()};
}

static void name_thread(struct worker_thread *thread)
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

static int make_threads(struct sel_worker_process *p, struct sel_error *err)
{
    p->threads = sel_mem_zalloc(sizeof(*p->threads) * p->thread_count);
    p->pulses = sel_mem_zalloc(sizeof(*p->pulses) * p->thread_count);
    if (!p->threads || !p->pulses)
        return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
    for (uint32_t i = 0; i < p->thread_count; i++) {
        struct worker_thread *thread = &p->threads[i];
        *thread = (struct worker_thread){.process = p,
                                         .index = i,
                                         .pulse = &p->pulses[i],
                                         .slots = i < p->task_threads ? p->slots : 0,
                                         .limit = SEL_TIMER_INIT,
                                         .drain.fn = on_drain};
        thread->limit.fn = on_limit;
        if (p->options.dispatchers == 0 || thread->slots == 0)
            thread->flows = p->options.flows;
        thread->pulses = sel_mem_zalloc(thread->slots + 1);
        if (!thread->pulses)
            return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
        name_thread(thread);
        thread->pulse->peer = p->options.id;
        thread->pulse->peer.lo ^= i;
        thread->pulse->incarnation = p->options.incarnation;
        thread->pulse->slots = thread->slots;
        thread->pulse->pulses = thread->pulses;
    }
    return 0;
}

/* The heartbeat first: sessions wake it when they open. */
static int start_beat(struct sel_worker_process *p, struct sel_error *err)
{
    struct sel_worker_beat_options beat = {.net = p->net,
                                           .endpoints = p->endpoints,
                                           .endpoint_count = p->options.broker_count,
                                           .sessions = p->pulses,
                                           .session_count = p->thread_count};
    int r = sel_worker_beat_start(&beat, &p->beat);
    return r < 0 ? sel_error_set(err, r, NOWHERE, "the heartbeat: %s", sel_error_text(r)) : 0;
}

static int start_threads(struct sel_worker_process *p, struct sel_error *err)
{
    int r = start_beat(p, err);
    for (uint32_t i = 0; i < p->thread_count && r == 0; i++)
        r = start_thread(&p->threads[i], err);
    return r;
}

/* ---- public ---- */

static int fill_process(struct sel_worker_process *p, struct sel_error *err)
{
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd < 0)
        return sel_error_set(err, -errno, NOWHERE, "an eventfd: %s", sel_error_text(-errno));
    p->offload = sel_offload_new(OFFLOAD_THREADS_MAX, OFFLOAD_QUEUE_MAX);
    if (!p->offload)
        return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
    make_id(p);
    make_digest(p);
    int r = collect_queues(p, err);
    if (r == 0)
        r = make_net(p, err);
    if (r == 0)
        r = make_engine(p, err);
    if (r == 0)
        r = make_threads(p, err);
    return r == 0 ? start_threads(p, err) : r;
}

int sel_worker_process_start(const struct sel_worker_process_options *options,
                             struct sel_worker_process **ret, struct sel_error *err)
{
    SEL_ASSERT(options->broker_count >= 1 && options->broker_count <= SEL_WORKER_BROKERS_MAX);
    SEL_ASSERT(options->threads + options->dispatchers <= SEL_WORKER_THREADS_MAX);
    SEL_ASSERT(options->dispatchers == 0 || options->flows > 0);
    struct sel_worker_process *p = SEL_NEW(struct sel_worker_process);
    if (!p)
        return sel_error_set(err, SEL_ENOMEM, NOWHERE, "out of memory");
    p->options = *options;
    p->task_threads = options->threads || options->dispatchers ? options->threads : 1;
    p->thread_count = p->task_threads + options->dispatchers;
    p->slots = options->slots ? options->slots : SEL_WORKER_SLOTS_DEFAULT;
    p->window = options->window;
    if (p->window == 0)
        p->window = p->slots < SEL_WORKER_WINDOW_DEFAULT ? SEL_WORKER_WINDOW_DEFAULT : p->slots;
    p->event_fd = -1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
    int r = fill_process(p, err);
    if (r == 0) {
        *ret = p;
        return 0;
    }
    if (p->threads) { /* some may run */
        sel_worker_process_drain(p, 0);
        (void)sel_worker_process_wait(p, INT64_MAX);
    }
    (void)sel_worker_process_free(p);
    return r;
}

/* Whether the thread came so far as to run. */
static bool has_loop(const struct worker_thread *thread)
{
    return thread->is_running && thread->result == 0;
}

void sel_worker_process_drain(struct sel_worker_process *p, int64_t drain_us)
{
    if (atomic_exchange(&p->is_draining, true))
        return;
    for (uint32_t i = 0; i < p->thread_count; i++) {
        if (!has_loop(&p->threads[i]))
            continue;
        p->threads[i].drain_us = drain_us;
        sel_loop_post(p->threads[i].loop, &p->threads[i].drain);
    }
}

int sel_worker_process_fd(const struct sel_worker_process *p)
{
    return p->event_fd;
}

/* The worst end of a thread, once all have ended. */
static enum sel_worker_end end_locked(const struct sel_worker_process *p)
{
    enum sel_worker_end worst = SEL_WORKER_DRAINED;
    for (uint32_t i = 0; i < p->thread_count; i++) {
        if (has_loop(&p->threads[i]) && p->threads[i].end == SEL_WORKER_RUNS)
            return SEL_WORKER_RUNS;
        if (p->threads[i].end > worst)
            worst = p->threads[i].end;
    }
    return worst;
}

enum sel_worker_end sel_worker_process_end(struct sel_worker_process *p)
{
    uint64_t count;
    while (read(p->event_fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&p->lock);
    enum sel_worker_end end = end_locked(p);
    pthread_mutex_unlock(&p->lock);
    return end;
}

enum sel_worker_end sel_worker_process_wait(struct sel_worker_process *p, int64_t limit_us)
{
    int64_t begin_us = mono_us();
    enum sel_worker_end end;
    while ((end = sel_worker_process_end(p)) == SEL_WORKER_RUNS) {
        struct pollfd fd = {.fd = p->event_fd, .events = POLLIN};
        int64_t passed_us = mono_us() - begin_us;
        if (passed_us >= limit_us)
            break;
        int64_t left_ms = limit_us == INT64_MAX ? -1 : (limit_us - passed_us) / 1000 + 1;
        (void)poll(&fd, 1, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
    }
    return end;
}

static void add_bare(struct sel_bare_stats *sum, const struct worker_thread *thread)
{
    struct sel_bare_stats bare;
    sel_bare_get_stats(thread->bare, &bare);
    sum->succeeded += bare.succeeded;
    sum->failed += bare.failed;
    sum->retried += bare.retried;
    sum->returned += bare.returned;
    sum->cancelled += bare.cancelled;
    sum->unknown += bare.unknown;
    sel_histogram_merge(&sum->run_us, &bare.run_us);
}

static void add_flows(struct sel_dispatcher_stats *sum, const struct worker_thread *thread)
{
    struct sel_dispatcher_stats flows;
    sel_dispatcher_get_stats(thread->dispatcher, &flows);
    sum->active += flows.active;
    sum->taken += flows.taken;
    sum->taken_over += flows.taken_over;
    sum->succeeded += flows.succeeded;
    sum->failed += flows.failed;
    sum->retried += flows.retried;
    sum->cancelled += flows.cancelled;
    sum->returned += flows.returned;
    sum->lost += flows.lost;
    sum->decisions += flows.decisions;
    sum->states += flows.states;
    sum->nodes_started += flows.nodes_started;
    sum->nodes_finished += flows.nodes_finished;
    sum->nodes_failed += flows.nodes_failed;
    sum->held_back += flows.held_back;
}

static void add_stats(struct sel_worker_process_stats *sum, const struct worker_thread *thread)
{
    struct sel_holder_stats held;
    struct sel_worker_link_stats link;
    if (thread->bare)
        add_bare(&sum->bare, thread);
    if (thread->dispatcher)
        add_flows(&sum->flows, thread);
    sel_holder_get_stats(thread->holder, &held);
    sel_worker_link_get_stats(thread->link, &link);
    sum->held.taken += held.taken;
    sum->held.begun += held.begun;
    sum->held.done += held.done;
    sum->held.returned += held.returned;
    sum->held.cancelled += held.cancelled;
    sum->held.redelivered += held.redelivered;
    sum->held.undecodable += held.undecodable;
    sum->held.flow_records += held.flow_records;
    sum->held.flow_dropped += held.flow_dropped;
    sum->link.frames_in += link.frames_in;
    sum->link.frames_out += link.frames_out;
    sum->link.bytes_in += link.bytes_in;
    sum->link.bytes_out += link.bytes_out;
    sum->link.blocked += link.blocked;
    sum->link.connects += link.connects;
    sum->link.missed += link.missed;
}

void sel_worker_process_get_stats(const struct sel_worker_process *p,
                                  struct sel_worker_process_stats *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (uint32_t i = 0; i < p->thread_count; i++)
        add_stats(ret, &p->threads[i]);
}

static void join_threads(struct sel_worker_process *p)
{
    pthread_mutex_lock(&p->lock);
    p->is_closing = true;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->thread_count; i++) {
        if (p->threads[i].is_running)
            pthread_join(p->threads[i].thread, NULL);
    }
}

struct sel_worker_process *sel_worker_process_free(struct sel_worker_process *p)
{
    if (!p)
        return NULL;
    p->beat = sel_worker_beat_stop(p->beat); /* it posts to the loops */
    if (p->threads)
        join_threads(p);
    for (uint32_t i = 0; p->threads && i < p->thread_count; i++)
        sel_mem_free(p->threads[i].pulses);
    sel_engine_free(p->engine);
    if (p->options.modules)
        sel_modules_thread_done(p->options.modules);
    sel_offload_free(p->offload);
    sel_worker_net_free(p->net);
    sel_mem_free(p->threads);
    sel_mem_free(p->pulses);
    sel_mem_free(p->queues);
    sel_mem_free(p->endpoints);
    if (p->event_fd >= 0)
        (void)close(p->event_fd);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->cond);
    return sel_mem_free(p);
}
