#include "worker/executor.h"

#include <pthread.h>
#include <string.h>

#include "core/mem.h"
#include "worker/engine.h"
#include "worker/hub.h"
#include "worker/job.h"
#include "worker/module.h"
#include "worker/offload.h"

#define SLOTS_DEFAULT 1024
#define OFFLOAD_THREADS_MAX 64
#define OFFLOAD_QUEUE_MAX 65536
#define TICK_US 100000 /* how often a stop is asked for, and progress shown, at least */

struct sel_executor_thread {
    struct sel_executor *executor;
    struct sel_job_worker jobs;
    struct sel_post cancel;
    pthread_t thread;
    bool is_running;
    int result;
    struct sel_error err;
};

struct sel_executor {
    struct sel_executor_options options;
    const struct sel_flow_def *flow;
    struct sel_engine *engine;
    struct sel_offload *offload;
    struct sel_arena plan_arena;
    const struct sel_plan *plan;
    struct sel_executor_report report;

    struct sel_hub hub;
    struct sel_executor_thread *threads; /* the first is the hub's own */
    uint32_t thread_count, slots;
    uint32_t next_thread;
    struct sel_timer tick, delay;
    int64_t progress_due_us;
    bool stopping;

    pthread_mutex_t lock; /* of threads that start and end */
    pthread_cond_t cond;
    bool closing; /* under `lock`: threads may take their loops down */
};

static struct sel_executor *executor_of_timer(struct sel_timer *timer, size_t offset)
{
    return (struct sel_executor *)((char *)timer - offset);
}

/* ---- jobs to loops and back ---- */

static void on_job_back(struct sel_loop *loop, struct sel_post *post)
{
    struct sel_job *job = (struct sel_job *)((char *)post - offsetof(struct sel_job, post));
    (void)loop;
    sel_hub_job_done(job->flow->hub, job);
}

static void job_main(void *arg)
{
    struct sel_job *job = arg;
    struct sel_hub *hub = job->flow->hub;
    sel_job_run(job);
    if (job->worker->loop == hub->loop) {
        sel_hub_job_done(hub, job);
        return;
    }
    job->post.fn = on_job_back;
    sel_loop_post(hub->loop, &job->post);
}

/* A job that cannot even begin has failed, so that its flow goes on. */
static void fail_to_spawn(struct sel_job *job)
{
    job->outcome = SEL_JOB_FAILED;
    job->run_us = 0;
    sel_engine_log(job->engine, SEL_LOG_ERROR, "task '%.*s' cannot be started: no memory",
                   SEL_STR_ARG(job->task->name));
}

static void on_job_arrives(struct sel_loop *loop, struct sel_post *post)
{
    struct sel_job *job = (struct sel_job *)((char *)post - offsetof(struct sel_job, post));
    if (sel_loop_spawn(loop, job_main, job, NULL) == 0)
        return;
    fail_to_spawn(job);
    job->post.fn = on_job_back;
    sel_loop_post(job->flow->hub->loop, &job->post);
}

static struct sel_executor_thread *free_thread(struct sel_executor *x)
{
    for (uint32_t i = 0; i < x->thread_count; i++) {
        struct sel_executor_thread *thread = &x->threads[x->next_thread];
        x->next_thread = x->next_thread + 1 < x->thread_count ? x->next_thread + 1 : 0;
        if (thread->jobs.in_flight < x->slots)
            return thread;
    }
    return NULL;
}

static void hand_out(struct sel_executor *x)
{
    struct sel_executor_thread *thread;
    while (!x->hub.canceled && x->hub.queues.ready > 0 && (thread = free_thread(x))) {
        struct sel_job *job = sel_hub_pop(&x->hub);
        if (!job)
            return;
        job->worker = &thread->jobs;
        thread->jobs.in_flight++;
        x->hub.counters.in_flight++;
        job->post.fn = on_job_arrives;
        if (thread->jobs.loop != x->hub.loop) {
            sel_loop_post(thread->jobs.loop, &job->post);
        } else if (sel_loop_spawn(x->hub.loop, job_main, job, NULL) < 0) {
            fail_to_spawn(job);
            sel_hub_job_done(&x->hub, job);
        }
    }
}

/* ---- stopping ---- */

static void on_cancel(struct sel_loop *loop, struct sel_post *post)
{
    struct sel_executor_thread *thread =
        (struct sel_executor_thread *)((char *)post - offsetof(struct sel_executor_thread, cancel));
    (void)loop;
    sel_job_cancel_all(&thread->jobs);
}

static void cancel(struct sel_executor *x)
{
    if (x->hub.canceled)
        return;
    sel_hub_cancel(&x->hub);
    for (uint32_t i = 0; i < x->thread_count; i++) {
        x->threads[i].cancel.fn = on_cancel;
        sel_loop_post(x->threads[i].jobs.loop, &x->threads[i].cancel);
    }
}

static void stop(struct sel_executor *x)
{
    x->stopping = true;
    sel_loop_timer_stop(x->hub.loop, &x->tick);
    sel_loop_timer_stop(x->hub.loop, &x->delay);
    for (uint32_t i = 0; i < x->thread_count; i++)
        sel_loop_stop(x->threads[i].jobs.loop);
}

/* ---- the hub's turns ---- */

static void fill_progress(const struct sel_executor *x, struct sel_executor_progress *ret)
{
    const struct sel_hub_counters *c = &x->hub.counters;
    *ret = (struct sel_executor_progress){.started = c->started,
                                          .finished = c->finished,
                                          .failed = c->failed,
                                          .retried = c->retried,
                                          .running = c->in_flight,
                                          .queued = x->hub.queues.ready + x->hub.queues.unserved,
                                          .delayed = x->hub.queues.heap_count,
                                          .flows_active = c->flows_active,
                                          .elapsed_us = sel_hub_now_us(&x->hub)};
}

static void show_progress(struct sel_executor *x)
{
    struct sel_executor_progress progress;
    int64_t now_us = sel_loop_now_us(x->hub.loop);
    if (!x->options.progress || now_us < x->progress_due_us)
        return;
    x->progress_due_us = now_us + (x->options.progress_us > 0 ? x->options.progress_us : TICK_US);
    fill_progress(x, &progress);
    x->options.progress(x->options.progress_ctx, &progress);
}

static void on_tick(struct sel_loop *loop, struct sel_timer *timer)
{
    struct sel_executor *x = executor_of_timer(timer, offsetof(struct sel_executor, tick));
    if (x->options.should_stop && x->options.should_stop(x->options.stop_ctx))
        cancel(x);
    show_progress(x);
    if (sel_loop_timer_start(loop, timer, sel_loop_now_us(loop) + TICK_US) < 0)
        sel_hub_fatal(&x->hub, SEL_ENOMEM, "the clock of the hub");
}

static void on_delay(struct sel_loop *loop, struct sel_timer *timer)
{
    (void)loop, (void)timer; /* the turn that follows looks at what is due */
}

/* What is due goes to its queue; the timer rings for the next. */
static void advance(struct sel_executor *x)
{
    struct sel_hub *hub = &x->hub;
    int64_t next_us = sel_local_advance(&hub->queues, sel_hub_now_us(hub));
    if (hub->virtual_time)
        return;
    if (next_us == INT64_MAX) {
        sel_loop_timer_stop(hub->loop, &x->delay);
        return;
    }
    int64_t at_us = next_us > INT64_MAX - hub->begin_us ? INT64_MAX : next_us + hub->begin_us;
    if (x->delay.heap_index != UINT32_MAX && x->delay.at_us == at_us)
        return;
    if (sel_loop_timer_start(hub->loop, &x->delay, at_us) < 0)
        sel_hub_fatal(hub, SEL_ENOMEM, "the delays of the hub");
}

/* Virtual time goes on when nothing else does. */
static bool skip_time(struct sel_executor *x)
{
    struct sel_hub *hub = &x->hub;
    if (!hub->virtual_time || hub->first_ready || hub->queues.ready > 0 || hub->held_count > 0 ||
        hub->counters.in_flight > 0 || hub->fetching > 0 || hub->queues.heap_count == 0)
        return false;
    if (hub->queues.heap[0]->due_us > hub->virtual_us)
        hub->virtual_us = hub->queues.heap[0]->due_us;
    return true;
}

static bool on_turn(void *arg)
{
    struct sel_executor *x = arg;
    struct sel_hub *hub = &x->hub;
    if (x->stopping)
        return false;
    advance(x);
    hand_out(x);
    if (!hub->canceled)
        sel_hub_turn(hub);
    hand_out(x); /* which may have made a flow that starts ready */
    bool more = !hub->canceled && sel_hub_can_go_on(hub);
    if (hub->shuffle_seed)
        more |= sel_hub_settle_held(hub) || (hub->held_count > 0 && hub->counters.in_flight == 0);
    more |= skip_time(x);
    if (hub->fatal)
        cancel(x);
    if (!more && sel_hub_is_idle(hub))
        stop(x);
    return more && !x->stopping;
}

/* ---- threads ---- */

static int open_loop(struct sel_executor *x, struct sel_executor_thread *thread)
{
    struct sel_loop_options options = {.offload = x->offload};
    int r = sel_co_guard_install();
    if (r < 0)
        return sel_error_set(&thread->err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    r = sel_loop_new(&options, &thread->jobs.loop, &thread->err);
    if (r == 0 && x->options.modules) {
        r = sel_modules_thread_init(x->options.modules, &thread->err);
        if (r < 0)
            thread->jobs.loop = sel_loop_free(thread->jobs.loop);
    }
    if (r < 0)
        sel_co_guard_remove();
    return r;
}

static void close_loop(struct sel_executor *x, struct sel_executor_thread *thread)
{
    if (x->options.modules && thread != &x->threads[0]) /* that one still closes storages */
        sel_modules_thread_done(x->options.modules);
    struct sel_loop *loop = thread->jobs.loop;
    sel_job_worker_done(&thread->jobs);
    sel_loop_free(loop);
    sel_co_guard_remove();
}

static void *thread_main(void *arg)
{
    struct sel_executor_thread *thread = arg;
    struct sel_executor *x = thread->executor;
    int r = open_loop(x, thread);
    pthread_mutex_lock(&x->lock);
    thread->result = r < 0 ? r : 1;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
    if (r < 0)
        return NULL;
    sel_loop_run(thread->jobs.loop);
    /* the hub may still look at the loop while it stops the others */
    pthread_mutex_lock(&x->lock);
    while (!x->closing)
        pthread_cond_wait(&x->cond, &x->lock);
    pthread_mutex_unlock(&x->lock);
    close_loop(x, thread);
    return NULL;
}

static int start_thread(struct sel_executor *x, struct sel_executor_thread *thread,
                        struct sel_error *err)
{
    int r = pthread_create(&thread->thread, NULL, thread_main, thread);
    if (r != 0)
        return sel_error_set(err, -r, (struct sel_pos){0}, "a thread cannot be started: %s",
                             sel_error_text(-r));
    thread->is_running = true;
    pthread_mutex_lock(&x->lock);
    while (thread->result == 0)
        pthread_cond_wait(&x->cond, &x->lock);
    pthread_mutex_unlock(&x->lock);
    if (thread->result < 0) {
        *err = thread->err;
        return thread->result;
    }
    return 0;
}

static void join_threads(struct sel_executor *x)
{
    for (uint32_t i = 1; i < x->thread_count; i++) {
        if (x->threads[i].result > 0) /* once more, in case the run never came to its end */
            sel_loop_stop(x->threads[i].jobs.loop);
    }
    pthread_mutex_lock(&x->lock);
    x->closing = true;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
    for (uint32_t i = 1; i < x->thread_count; i++) {
        if (x->threads[i].is_running)
            pthread_join(x->threads[i].thread, NULL);
        x->threads[i].is_running = false;
    }
}

/* ---- before the run ---- */

static int store_preset(struct sel_executor *x, const struct sel_executor_preset *preset,
                        struct sel_error *err)
{
    uint32_t node = sel_system_find(x->options.system, preset->task);
    struct sel_storage *storage;
    struct sel_buf bytes = {0};
    struct sel_arena arena = {0};
    if (node == SEL_NONE || sel_system_is_flow(x->options.system, node) ||
        x->options.system->tasks[node].storage == SEL_NONE)
        return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0},
                             "a result of '%.*s' cannot be given: it is no task with a storage",
                             SEL_STR_ARG(preset->task));
    const struct sel_task_def *task = &x->options.system->tasks[node];
    int r = sel_engine_storage(x->engine, task->storage, &storage, err);
    sel_value_encode(&preset->result, &bytes);
    if (r == 0)
        r = sel_buf_error(&bytes);
    struct sel_storage_item item = {.flow = x->flow->name,
                                    .task = task->storage_task_name,
                                    .id = sel_str_c(preset->id),
                                    .value = sel_buf_str(&bytes)};
    if (r == 0)
        r = storage->ops->store(storage, sel_io_blocking(), &arena, &item, 1, err);
    if (r == 0 && item.status == SEL_STORE_FAILED)
        r = sel_error_set(err, SEL_ESTORAGE, (struct sel_pos){0}, "%s", item.message);
    sel_buf_done(&bytes);
    sel_arena_done(&arena);
    return r;
}

static int prepare(struct sel_executor *x, struct sel_error *err)
{
    const struct sel_executor_options *o = &x->options;
    x->flow = sel_system_find_flow(o->system, o->flow_name);
    if (!x->flow)
        return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0},
                             "UnknownFlowError: there is no flow '%.*s'",
                             SEL_STR_ARG(o->flow_name));
    int r = 0;
    if (o->selective)
        r = sel_plan_compute(&x->plan_arena, o->system, x->flow, o->selective, &x->plan, err);
    if (r == 0)
        r = sel_engine_new(&x->options, x->flow, &x->engine, err);
    for (uint32_t i = 0; i < o->preset_count && r == 0; i++)
        r = store_preset(x, &o->presets[i], err);
    if (r < 0)
        return r;
    x->offload = sel_offload_new(OFFLOAD_THREADS_MAX, OFFLOAD_QUEUE_MAX);
    x->threads = sel_mem_zalloc(sizeof(*x->threads) * x->thread_count);
    if (!x->offload || !x->threads)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    for (uint32_t i = 0; i < x->thread_count; i++)
        x->threads[i].executor = x;
    return 0;
}

int sel_executor_new(const struct sel_executor_options *options, struct sel_executor **ret,
                     struct sel_error *err)
{
    struct sel_executor *x = SEL_NEW(struct sel_executor);
    if (!x)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    x->options = *options;
    x->thread_count = options->threads ? options->threads : 1;
    x->slots = options->slots ? options->slots : SLOTS_DEFAULT;
    x->tick = x->delay = (struct sel_timer)SEL_TIMER_INIT;
    x->tick.fn = on_tick;
    x->delay.fn = on_delay;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->cond, NULL);
    int r = prepare(x, err);
    if (r < 0) {
        sel_executor_free(x);
        return r;
    }
    *ret = x;
    return 0;
}

/* ---- the run ---- */

static int run_hub(struct sel_executor *x, struct sel_error *err)
{
    struct sel_loop *loop = x->threads[0].jobs.loop;
    static const struct sel_str null_args = {(const char *)sel_value_null_bytes, 1};
    int r = sel_hub_init(&x->hub, x->engine, loop, &x->report, err);
    if (r < 0)
        return r;
    for (uint32_t i = 1; i < x->thread_count && r == 0; i++)
        r = start_thread(x, &x->threads[i], err);
    if (r == 0) {
        struct sel_str args = x->options.node_args.n ? x->options.node_args : null_args;
        r = sel_hub_submit(&x->hub, x->flow, args, x->plan);
        if (r == 0)
            r = sel_loop_timer_start(loop, &x->tick, sel_loop_now_us(loop) + TICK_US);
        if (r < 0)
            (void)sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    }
    if (r == 0) {
        sel_loop_set_idle(loop, on_turn, x);
        sel_loop_run(loop);
        sel_loop_set_idle(loop, NULL, NULL);
        r = x->hub.fatal;
        if (r < 0)
            *err = x->hub.fatal_error;
    }
    join_threads(x);
    fill_progress(x, &x->report.progress);
    x->report.last_end_us = x->hub.last_end_us;
    x->report.stuck = x->hub.queues.unserved;
    if (x->hub.top && !x->hub.top->ended)
        x->report.outcome = SEL_FLOW_CANCELED;
    return r;
}

int sel_executor_run(struct sel_executor *x, const struct sel_executor_report **ret,
                     struct sel_error *err)
{
    struct sel_executor_thread *own = &x->threads[0];
    int r = open_loop(x, own);
    if (r < 0) {
        *err = own->err;
        return r;
    }
    r = run_hub(x, err);
    if (r == 0)
        *ret = &x->report;
    close_loop(x, own);
    return r;
}

bool sel_executor_task_times(const struct sel_executor *x, uint32_t task,
                             struct sel_task_times *ret)
{
    if (!x->hub.times || task >= x->options.system->task_count || !x->hub.times[task].run_us)
        return false;
    const struct sel_hub_times *times = &x->hub.times[task];
    *ret = (struct sel_task_times){.count = times->run_us->count,
                                   .retried = times->retried,
                                   .failed = times->failed,
                                   .p50_us = sel_histogram_quantile(times->run_us, 0.5),
                                   .p99_us = sel_histogram_quantile(times->run_us, 0.99),
                                   .max_us = times->run_us->max};
    return true;
}

int64_t sel_executor_now_us(const struct sel_executor *executor)
{
    return sel_hub_now_us(&executor->hub);
}

struct sel_executor *sel_executor_free(struct sel_executor *x)
{
    if (!x)
        return NULL;
    if (x->hub.system)
        sel_hub_done(&x->hub);
    sel_engine_free(x->engine);
    if (x->options.modules)
        sel_modules_thread_done(x->options.modules);
    sel_offload_free(x->offload);
    sel_arena_done(&x->plan_arena);
    sel_mem_free(x->threads);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->cond);
    return sel_mem_free(x);
}
