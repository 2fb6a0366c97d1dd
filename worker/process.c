#include "worker/process.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/mem.h"
#include "worker/module.h"
#include "worker/offload.h"
#include "worker/process_private.h"

#define OFFLOAD_THREADS_MAX 64
#define OFFLOAD_QUEUE_MAX 65536
#define THREADS_PER_IO_THREAD 4

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
        return sel_error_set(err, SEL_ECONFIG, SEL_WORKER_NOWHERE,
                             "'%.*s' is no name of a queue: 1 to 255 bytes of UTF-8",
                             SEL_STR_ARG(name));
    if (p->queue_count == SEL_WIRE_QUEUES_MAX)
        return sel_error_set(err, SEL_ECONFIG, SEL_WORKER_NOWHERE, "more than %d queues are served",
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
        return sel_error_set(err, SEL_ENOMEM, SEL_WORKER_NOWHERE, "out of memory");
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
        return sel_error_set(err, r, SEL_WORKER_NOWHERE, "ZeroMQ cannot be started: %s",
                             sel_error_text(r));
    p->endpoints = sel_mem_zalloc(sizeof(*p->endpoints) * o->broker_count);
    if (!p->endpoints)
        return sel_error_set(err, SEL_ENOMEM, SEL_WORKER_NOWHERE, "out of memory");
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
        *id = (struct sel_id){(uint64_t)sel_worker_mono_us(), (uint64_t)getpid()};
}

static int make_threads(struct sel_worker_process *p, struct sel_error *err)
{
    p->threads = sel_mem_zalloc(sizeof(*p->threads) * p->thread_count);
    p->pulses = sel_mem_zalloc(sizeof(*p->pulses) * p->thread_count);
    int r = p->threads && p->pulses ? 0 : SEL_ENOMEM;
    for (uint32_t i = 0; i < p->thread_count && r == 0; i++)
        r = sel_worker_thread_init(p, i);
    return r < 0 ? sel_error_set(err, r, SEL_WORKER_NOWHERE, "%s", sel_error_text(r)) : 0;
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
    return r < 0 ? sel_error_set(err, r, SEL_WORKER_NOWHERE, "the heartbeat: %s", sel_error_text(r))
                 : 0;
}

static int start_threads(struct sel_worker_process *p, struct sel_error *err)
{
    int r = start_beat(p, err);
    for (uint32_t i = 0; i < p->thread_count && r == 0; i++)
        r = sel_worker_thread_start(&p->threads[i], err);
    return r;
}

/* ---- public ---- */

static int fill_process(struct sel_worker_process *p, struct sel_error *err)
{
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd < 0)
        return sel_error_set(err, -errno, SEL_WORKER_NOWHERE, "an eventfd: %s",
                             sel_error_text(-errno));
    p->offload = sel_offload_new(OFFLOAD_THREADS_MAX, OFFLOAD_QUEUE_MAX);
    if (!p->offload)
        return sel_error_set(err, SEL_ENOMEM, SEL_WORKER_NOWHERE, "out of memory");
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
        return sel_error_set(err, SEL_ENOMEM, SEL_WORKER_NOWHERE, "out of memory");
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
static bool has_loop(const struct sel_worker_thread *thread)
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
    int64_t begin_us = sel_worker_mono_us();
    enum sel_worker_end end;
    while ((end = sel_worker_process_end(p)) == SEL_WORKER_RUNS) {
        struct pollfd fd = {.fd = p->event_fd, .events = POLLIN};
        int64_t passed_us = sel_worker_mono_us() - begin_us;
        if (passed_us >= limit_us)
            break;
        int64_t left_ms = limit_us == INT64_MAX ? -1 : (limit_us - passed_us) / 1000 + 1;
        (void)poll(&fd, 1, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
    }
    return end;
}

static void add_bare(struct sel_bare_stats *sum, const struct sel_worker_thread *thread)
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

static void add_flows(struct sel_dispatcher_stats *sum, const struct sel_worker_thread *thread)
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
    sum->traces_lost += flows.traces_lost;
}

static void add_stats(struct sel_worker_process_stats *sum, const struct sel_worker_thread *thread)
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
