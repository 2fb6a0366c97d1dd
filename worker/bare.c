#include "worker/bare.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/suggest.h"
#include "core/value.h"
#include "worker/run.h"

#define RUNNERS_MAX 256u  /* started in one turn */
#define BATCH_MAX 1024u   /* tasks of one runner in a turn: results must leave, and others run */
#define BATCH_US 500      /* and so long */
#define CLOCK_EVERY 8u    /* tasks between two looks at the clock */
#define SAMPLE_EVERY 16u  /* tasks for one that is timed */
#define FULL_WAIT_US 2000 /* the broker takes no ends now */
#define ARENA_KEPT ((size_t)64 << 10)
#define NAME_MAX_TOLD 64 /* bytes of a foreign name in a text for people */
#define COUNTDOWN_S_MAX                                                                            \
    3e9 /* a hundred years: what is more is a mistake, and must not overflow                       \
         */

/* What runs tasks, one at a time; a slot of the worker. */
struct runner {
    struct sel_bare *bare;
    struct runner *next_free;
    struct sel_co *co;          /* NULL: not started */
    struct sel_held_task *task; /* NULL: between two */
    uint32_t slot;
    uint32_t round;
    struct sel_arena arena;
};

struct sel_bare {
    struct sel_bare_options options;
    struct runner *runners; /* by slot */
    struct runner *free;    /* the last one used first: its memory is warm */
    uint32_t active, unstarted;
    uint32_t round;                      /* counts the turns in which some were started */
    uint32_t round_started, round_ended; /* of the last round */
    uint64_t begun;
    uint32_t last_task; /* index of the task that was asked for last */
    uint32_t last_flow; /* and of the flow */
    bool cancels_all;
    struct sel_buf failure, scratch;
    struct sel_bare_stats stats;
};

/* ---- ends ---- */

/* Waits while the broker takes no ends. */
static void end_task(struct runner *runner, uint32_t code, int64_t countdown_us,
                     struct sel_str payload)
{
    struct sel_holder *holder = runner->bare->options.holder;
    struct sel_held_task *task = runner->task;
    int r;
    while ((r = sel_holder_end(holder, task, code, countdown_us, payload)) < 0) {
        if (r == SEL_ERANGE) {
            code = SEL_OUTCOME_FATAL;
            sel_buf_clear(&runner->bare->failure);
            sel_holder_put_failure(&runner->bare->failure, SEL_STR("ResultError"),
                                   SEL_STR("the result is larger than the broker allows; use a "
                                           "storage, or return less"));
            payload = sel_buf_str(&runner->bare->failure);
            continue;
        }
        if (sel_co_sleep(FULL_WAIT_US) < 0) { /* the worker ends: somebody else does it again */
            (void)sel_holder_return(holder, task, SEL_RETURN_NOT_BEGUN, SEL_STR(""));
            return;
        }
    }
}

/* In the arena: it may have to wait there while others run. */
static struct sel_str encode_failure(struct runner *runner, const char *error_class,
                                     const char *message)
{
    struct sel_buf *buf = &runner->bare->failure;
    sel_buf_clear(buf);
    sel_holder_put_failure(buf, sel_str_c(error_class), sel_str_c(message));
    char *copy = sel_buf_error(buf) < 0 ? NULL : sel_arena_memdup(&runner->arena, buf->p, buf->n);
    return (struct sel_str){copy, copy ? buf->n : 0};
}

static int64_t delay_us(const struct sel_bare *bare, double seconds)
{
    if (!(seconds > 0))
        return 0;
    seconds = seconds < COUNTDOWN_S_MAX ? seconds : COUNTDOWN_S_MAX;
    return sel_engine_delay_us(bare->options.engine, (int64_t)(seconds * 1e6));
}

static void end_retry(struct runner *runner, const struct sel_run *run)
{
    struct sel_str why = {0};
    if (!run->user_retry)
        why = encode_failure(runner, run->result.error_class, run->result.error_message);
    runner->bare->stats.retried++;
    runner->task->is_uncounted = run->user_retry;
    end_task(runner, SEL_OUTCOME_RETRY, delay_us(runner->bare, run->countdown_s), why);
}

static void end_failed(struct runner *runner, const struct sel_run *run)
{
    uint32_t code = run->result.outcome == SEL_EXEC_FATAL ? SEL_OUTCOME_FATAL : SEL_OUTCOME_FAILURE;
    runner->bare->stats.failed++;
    end_task(runner, code, 0,
             encode_failure(runner, run->result.error_class, run->result.error_message));
}

static void end_returned(struct runner *runner)
{
    struct sel_bare *bare = runner->bare;
    if (runner->task->is_cancelled) {
        bare->stats.cancelled++;
        end_task(runner, SEL_OUTCOME_CANCELLED, 0, SEL_STR(""));
    } else {
        bare->stats.returned++;
        (void)sel_holder_return(bare->options.holder, runner->task, SEL_RETURN_NOT_BEGUN,
                                SEL_STR(""));
    }
}

/* Nodes of flows leave their results in storages, where those that ask find them. */
static struct sel_str told_result(const struct sel_run *run)
{
    if (run->flow)
        return SEL_STR("");
    return run->result.value.n ? run->result.value
                               : (struct sel_str){(const char *)sel_value_null_bytes, 1};
}

static void end_run(struct runner *runner, const struct sel_run *run)
{
    switch (run->outcome) {
    case SEL_JOB_DONE:
        runner->bare->stats.succeeded++;
        end_task(runner, SEL_OUTCOME_SUCCESS, 0, told_result(run));
        break;
    case SEL_JOB_RETRY:
        end_retry(runner, run);
        break;
    case SEL_JOB_FAILED:
        end_failed(runner, run);
        break;
    case SEL_JOB_RETURNED:
        end_returned(runner);
        break;
    }
}

/* ---- what cannot be run ---- */

static void return_unknown(struct runner *runner, struct sel_str name)
{
    const struct sel_system *system = runner->bare->options.engine->system;
    struct sel_suggest suggest;
    struct sel_str similar;
    char text[256];
    int n = name.n < NAME_MAX_TOLD ? (int)name.n : NAME_MAX_TOLD;
    sel_suggest_init(&suggest, name);
    for (uint32_t i = 0; i < system->task_count; i++)
        sel_suggest_offer(&suggest, system->tasks[i].name);
    if (sel_suggest_get(&suggest, &similar))
        (void)snprintf(text, sizeof(text), "no task is called '%.*s'; did you mean '%.*s'?", n,
                       name.p, SEL_STR_ARG(similar));
    else
        (void)snprintf(text, sizeof(text), "no task is called '%.*s'", n, name.p);
    struct sel_str told = sel_str_c(text);
    told.n = sel_str_utf8_prefix(told);
    runner->bare->stats.unknown++;
    (void)sel_holder_return(runner->bare->options.holder, runner->task, SEL_RETURN_UNKNOWN_TASK,
                            told);
}

/* The index of the task's definition; SEL_NONE: it has been returned. */
static uint32_t find_task(struct runner *runner)
{
    struct sel_bare *bare = runner->bare;
    const struct sel_engine *engine = bare->options.engine;
    struct sel_str name = runner->task->item.task;
    uint32_t index = bare->last_task;
    if (index == SEL_NONE || !sel_str_eq(name, engine->system->tasks[index].name)) {
        index = sel_system_find(engine->system, name);
        if (index == SEL_NONE || sel_system_is_flow(engine->system, index)) {
            return_unknown(runner, name);
            return SEL_NONE;
        }
        bare->last_task = index;
    }
    if (engine->codes[index].ops)
        return index;
    bare->stats.unknown++;
    (void)sel_holder_return(bare->options.holder, runner->task, SEL_RETURN_NO_RESOURCES,
                            SEL_STR("the code of the task is not on this worker"));
    return SEL_NONE;
}

static bool is_msgpack(struct sel_str content_type)
{
    return content_type.n == 0 || sel_str_eq_c(content_type, "application/msgpack") ||
           sel_str_eq_c(content_type, "application/vnd.msgpack") ||
           sel_str_eq_c(content_type, "application/x-msgpack");
}

/* ---- running ---- */

static void note_in_page(const struct runner *runner)
{
    const struct sel_bare_options *options = &runner->bare->options;
    const struct sel_held_task *task = runner->task;
    if (options->page)
        sel_crash_tasks(options->page, options->thread)[runner->slot] =
            (struct sel_crash_task){.id = task->id,
                                    .handle = task->handle,
                                    .try_count = task->try_count,
                                    .delivery = task->delivery,
                                    .is_run = task->is_run};
    /* The mark must not be seen before what it stands for. */
    __atomic_signal_fence(__ATOMIC_RELEASE);
    sel_co_set_mark(runner->slot + 1, options->pulses ? &options->pulses[runner->slot] : NULL);
}

/* The flow of a run by its name. One that is not in the configuration here is a name and nothing
 * else: tasks and storages need no more of it. NULL: out of memory. */
static const struct sel_flow_def *find_flow(struct runner *runner)
{
    struct sel_bare *bare = runner->bare;
    const struct sel_system *system = bare->options.engine->system;
    struct sel_str name = sel_wire_find_field(runner->task->item.fields, SEL_FIELD_FLOW);
    uint32_t index = bare->last_flow;
    if (index != SEL_NONE && sel_str_eq(name, system->flows[index].name))
        return &system->flows[index];
    index = sel_system_find(system, name);
    if (index != SEL_NONE && sel_system_is_flow(system, index)) {
        bare->last_flow = index - system->task_count;
        return &system->flows[bare->last_flow];
    }
    struct sel_flow_def *flow = SEL_ARENA_NEW(&runner->arena, struct sel_flow_def);
    if (flow) {
        flow->name = name;
        flow->index = SEL_NONE;
    }
    return flow;
}

/* Room for the texts of a run's ids. */
struct run_texts {
    char id[SEL_RUN_ID_TEXT_SIZE], flow_id[SEL_ID_TEXT_SIZE];
};

/* What a run is beyond a bare task. SEL_EFORMAT: the record contradicts itself; SEL_ENOMEM. */
static int describe_run(struct runner *runner, struct run_texts *texts, struct sel_run *run)
{
    const struct sel_wire_item *item = &runner->task->item;
    struct sel_wire_run of;
    if (!sel_wire_find_run(item->fields, &of) || of.parents_size > item->payload.n ||
        sel_wire_find_field(item->fields, SEL_FIELD_FLOW).n == 0)
        return SEL_EFORMAT;
    run->flow = find_flow(runner);
    run->id = sel_id_format_run(of.flow, of.attempt, of.ordinal, texts->id);
    run->dispatcher_id = sel_id_format(of.flow, texts->flow_id);
    run->retried_count = of.retries;
    run->args = (struct sel_str){item->payload.p, item->payload.n - of.parents_size};
    run->parents_bytes = (struct sel_str){item->payload.p + run->args.n, of.parents_size};
    return run->flow ? 0 : SEL_ENOMEM;
}

static void fail_to_describe(struct runner *runner, int error)
{
    if (error == SEL_ENOMEM) {
        (void)sel_holder_return(runner->bare->options.holder, runner->task, SEL_RETURN_NO_RESOURCES,
                                SEL_STR("there is no memory for the run"));
        return;
    }
    runner->bare->stats.failed++;
    end_task(runner, SEL_OUTCOME_FATAL, 0,
             encode_failure(runner, "ProtocolError", "the record of the run contradicts itself"));
}

static void run_task(struct runner *runner, uint32_t index)
{
    struct sel_bare *bare = runner->bare;
    const struct sel_held_task *task = runner->task;
    struct run_texts texts;
    struct sel_run run = {.engine = bare->options.engine,
                          .loop = bare->options.loop,
                          .arena = &runner->arena,
                          .task = &bare->options.engine->system->tasks[index],
                          .task_index = index,
                          .dispatcher_id = "",
                          .args = task->item.payload,
                          .retried_count = task->try_count,
                          .try_count = task->try_count,
                          .scratch = &bare->scratch,
                          .user = runner,
                          .may_return = true,
                          .looks_first = task->delivery > 0 || task->try_count > 0,
                          .is_timed = bare->begun++ % SAMPLE_EVERY == 0};
    int r = 0;
    if (task->is_run)
        r = describe_run(runner, &texts, &run);
    else
        run.id = sel_id_format(task->id, texts.id);
    if (r < 0) {
        fail_to_describe(runner, r);
        return;
    }
    note_in_page(runner);
    sel_run_task(&run);
    sel_co_set_mark(0, NULL);
    if (run.end_us)
        sel_histogram_add(&bare->stats.run_us, run.run_us);
    end_run(runner, &run);
}

static void run_held(struct runner *runner, struct sel_held_task *task)
{
    struct sel_bare *bare = runner->bare;
    runner->task = task;
    task->user = runner;
    uint32_t index = find_task(runner);
    if (index == SEL_NONE) {
        ; /* returned */
    } else if (is_msgpack(task->item.content_type)) {
        run_task(runner, index);
    } else {
        bare->stats.failed++;
        end_task(runner, SEL_OUTCOME_FATAL, 0,
                 encode_failure(runner, "ContentTypeError",
                                "the arguments are not msgpack, and tasks take nothing else"));
    }
    runner->task = NULL;
    if (runner->arena.reserved > ARENA_KEPT)
        sel_arena_done(&runner->arena);
    else
        sel_arena_reset(&runner->arena);
}

static int64_t mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Whether the turn has lasted long enough. */
static bool is_over(const struct sel_bare *bare, uint32_t count)
{
    return count >= BATCH_MAX ||
           (count % CLOCK_EVERY == 0 && mono_us() - sel_loop_now_us(bare->options.loop) > BATCH_US);
}

static void end_runner(struct runner *runner)
{
    struct sel_bare *bare = runner->bare;
    if (bare->options.pulses)
        __atomic_store_n(&bare->options.pulses[runner->slot], 0, __ATOMIC_RELAXED);
    if (runner->round == bare->round)
        bare->round_ended++;
    runner->co = NULL;
    runner->next_free = bare->free;
    bare->free = runner;
    bare->active--;
}

static void runner_main(void *arg)
{
    struct runner *runner = arg;
    struct sel_bare *bare = runner->bare;
    struct sel_held_task *task;
    runner->co = sel_co_current();
    bare->unstarted--;
    if (bare->cancels_all)
        sel_loop_cancel(bare->options.loop, runner->co);
    uint32_t count = 0;
    do {
        task = sel_holder_begin(bare->options.holder);
        if (task)
            run_held(runner, task);
    } while (task && !is_over(bare, ++count) && !sel_loop_is_cancelled(runner->co));
    end_runner(runner);
}

/* One more than suspended last time: a flood of small tasks needs one, tasks that wait need many,
 * and soon. */
static uint32_t wanted(const struct sel_bare *bare)
{
    uint32_t count = 1;
    if (bare->round_started > 0 && bare->round_ended == 0)
        count = bare->round_started < RUNNERS_MAX / 2 ? bare->round_started * 2 : RUNNERS_MAX;
    uint32_t waiting = sel_holder_waiting(bare->options.holder);
    return count < waiting ? count : waiting;
}

bool sel_bare_turn(struct sel_bare *bare)
{
    if (bare->unstarted > 0 || !bare->free || sel_holder_waiting(bare->options.holder) == 0)
        return false; /* the loop starts those first; or an end will make room */
    uint32_t count = wanted(bare), started = 0;
    bare->round++;
    while (started < count && bare->free) {
        struct runner *runner = bare->free;
        if (sel_loop_spawn(bare->options.loop, runner_main, runner, NULL) < 0)
            break; /* of memory there will be more when others have ended */
        bare->free = runner->next_free;
        runner->round = bare->round;
        started++;
    }
    bare->unstarted = started;
    bare->active += started;
    bare->round_started = started;
    bare->round_ended = 0;
    return started > 0;
}

/* ---- cancelling ---- */

void sel_bare_cancel(struct sel_bare *bare, struct sel_held_task *task)
{
    struct runner *runner = task->user;
    if (runner && runner->task == task)
        sel_loop_cancel(bare->options.loop, runner->co);
}

void sel_bare_cancel_all(struct sel_bare *bare)
{
    bare->cancels_all = true;
    for (uint32_t i = 0; i < bare->options.slots; i++) {
        if (bare->runners[i].co)
            sel_loop_cancel(bare->options.loop, bare->runners[i].co);
    }
}

void sel_bare_on_pool(void *ctx, const struct sel_task_env *env, bool begins)
{
    const struct sel_run *run =
        (const struct sel_run *)(const void *)((const char *)env - offsetof(struct sel_run, env));
    const struct runner *runner = run->user;
    const struct sel_bare_options *options = &runner->bare->options;
    (void)ctx;
    if (!options->page)
        return;
    struct sel_crash_task *task = &sel_crash_tasks(options->page, options->thread)[runner->slot];
    if (begins)
        sel_crash_begin_on_pool(task, runner->slot);
    else
        sel_crash_end_on_pool(task);
}

/* ---- life ---- */

int sel_bare_new(const struct sel_bare_options *options, struct sel_bare **ret)
{
    SEL_ASSERT(options->slots > 0 && options->slots <= SEL_WIRE_SLOTS_MAX);
    struct sel_bare *bare = SEL_NEW(struct sel_bare);
    struct runner *runners = sel_mem_zalloc(sizeof(*runners) * options->slots);
    if (!bare || !runners) {
        sel_mem_free(bare);
        sel_mem_free(runners);
        return SEL_ENOMEM;
    }
    bare->options = *options;
    bare->runners = runners;
    bare->last_task = bare->last_flow = SEL_NONE;
    for (uint32_t i = options->slots; i-- > 0;) {
        runners[i] = (struct runner){.bare = bare, .next_free = bare->free, .slot = i};
        bare->free = &runners[i];
    }
    *ret = bare;
    return 0;
}

struct sel_bare *sel_bare_free(struct sel_bare *bare)
{
    if (!bare)
        return NULL;
    SEL_ASSERT(bare->active == 0);
    for (uint32_t i = 0; i < bare->options.slots; i++)
        sel_arena_done(&bare->runners[i].arena);
    sel_mem_free(bare->runners);
    sel_buf_done(&bare->failure);
    sel_buf_done(&bare->scratch);
    return sel_mem_free(bare);
}

uint32_t sel_bare_running(const struct sel_bare *bare)
{
    return bare->active;
}

void sel_bare_get_stats(const struct sel_bare *bare, struct sel_bare_stats *ret)
{
    *ret = bare->stats;
}
