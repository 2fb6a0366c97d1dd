#include "worker/job.h"

#include <string.h>

#include "core/mem.h"
#include "worker/run.h"

#define ARENAS_KEPT 256

/* ---- blobs ---- */

struct sel_blob *sel_blob_new(struct sel_str bytes)
{
    struct sel_blob *blob = sel_mem_alloc(sizeof(*blob) + bytes.n);
    if (blob) {
        blob->refs = 1;
        blob->size = bytes.n;
        memcpy(blob->bytes, bytes.p, bytes.n);
    }
    return blob;
}

struct sel_blob *sel_blob_ref(struct sel_blob *blob)
{
    blob->refs++;
    return blob;
}

void sel_blob_unref(struct sel_blob *blob)
{
    if (blob && --blob->refs == 0)
        sel_mem_free(blob);
}

/* ---- arenas ---- */

static struct sel_arena take_arena(struct sel_job_worker *worker)
{
    struct sel_arena arena;
    if (worker->arena_count > 0)
        return worker->arenas[--worker->arena_count];
    sel_arena_init(&arena, 0);
    return arena;
}

static void give_arena(struct sel_job_worker *worker, struct sel_arena *arena)
{
    if (worker->arena_count >= ARENAS_KEPT ||
        !sel_mem_grow(&worker->arenas, &worker->arena_cap, (uint64_t)worker->arena_count + 1,
                      sizeof(*worker->arenas))) {
        sel_arena_done(arena);
        return;
    }
    sel_arena_reset(arena);
    worker->arenas[worker->arena_count++] = *arena;
}

void sel_job_worker_done(struct sel_job_worker *worker)
{
    while (worker->arena_count > 0)
        sel_arena_done(&worker->arenas[--worker->arena_count]);
    sel_mem_free(worker->arenas);
    memset(worker, 0, sizeof(*worker));
}

const char *sel_job_id(const struct sel_job *job, char out[SEL_RUN_ID_TEXT_SIZE])
{
    return sel_id_format_run(job->flow_id, job->attempt, job->ordinal, out);
}

static void list_running(struct sel_job *job)
{
    struct sel_job_worker *worker = job->worker;
    job->co = sel_co_current();
    job->prev_running = NULL;
    job->next_running = worker->running;
    if (worker->running)
        worker->running->prev_running = job;
    worker->running = job;
}

static void unlist_running(struct sel_job *job)
{
    if (job->prev_running)
        job->prev_running->next_running = job->next_running;
    else
        job->worker->running = job->next_running;
    if (job->next_running)
        job->next_running->prev_running = job->prev_running;
    job->co = NULL;
}

void sel_job_cancel_all(struct sel_job_worker *worker)
{
    worker->canceled = true;
    for (struct sel_job *job = worker->running; job; job = job->next_running)
        sel_loop_cancel(worker->loop, job->co);
}

/* "task 'Name' (id)", for the crash line of a stack overflow. */
static const char *run_name(const struct sel_run *run)
{
    const struct sel_str parts[] = {SEL_STR("task '"), run->task->name, SEL_STR("' ("),
                                    sel_str_c(run->id), SEL_STR(")")};
    size_t size = 1;
    for (size_t i = 0; i < SEL_COUNT(parts); i++)
        size += parts[i].n;
    char *name = sel_arena_alloc_raw(run->arena, size, 1);
    for (size_t i = 0, at = 0; name && i < SEL_COUNT(parts); at += parts[i++].n)
        memcpy(name + at, parts[i].p, parts[i].n);
    if (name)
        name[size - 1] = '\0';
    return name;
}

SEL_CO void sel_job_run(struct sel_job *job)
{
    char id[SEL_RUN_ID_TEXT_SIZE], dispatcher_id[SEL_ID_TEXT_SIZE];
    struct sel_arena arena = take_arena(job->worker);
    struct sel_run run = {.engine = job->engine,
                          .loop = job->worker->loop,
                          .arena = &arena,
                          .task = job->task,
                          .task_index = job->task_index,
                          .flow = job->flow_def,
                          .id = sel_job_id(job, id),
                          .dispatcher_id = sel_id_format(job->flow_id, dispatcher_id),
                          .args = sel_blob_str(job->args),
                          .parents = job->parents,
                          .retried_count = job->retried_count,
                          .is_cancelled = job->worker->canceled,
                          .is_timed = true};
    list_running(job);
    const char *name = run_name(&run);
    if (name)
        sel_co_set_name(sel_co_current(), name);
    sel_run_task(&run);
    job->outcome = run.outcome;
    job->countdown_s = run.countdown_s;
    job->user_retry = run.user_retry;
    job->run_us = run.run_us;
    job->end_us = run.end_us;
    sel_co_set_name(sel_co_current(), NULL);
    unlist_running(job);
    give_arena(job->worker, &arena);
}
