/* Jobs that come back: what their outcome means to their flow. */
#include "core/mem.h"
#include "worker/hub.h"

void sel_hub_free_job(struct sel_job *job)
{
    sel_parents_unref(job->parents);
    sel_blob_unref(job->args);
    sel_hub_flow_unref(job->flow);
    sel_mem_free(job);
}

/* The loop reads its clock once a turn, in which its tasks may compute for long. */
static int64_t job_end_us(const struct sel_hub *hub, const struct sel_job *job)
{
    int64_t now_us = sel_hub_now_us(hub);
    int64_t end_us = hub->virtual_time ? 0 : job->end_us - hub->begin_us;
    return end_us > now_us ? end_us : now_us;
}

static void requeue(struct sel_hub *hub, struct sel_job *job)
{
    hub->counters.retried++;
    if (!job->user_retry)
        job->retried_count++;
    int64_t delay_us = job->countdown_s >= 9e12 ? INT64_MAX : (int64_t)(job->countdown_s * 1e6);
    if (sel_local_push(&hub->queues, &job->work, job->task_index, job_end_us(hub, job), delay_us) <
        0) {
        sel_hub_fatal(hub, SEL_ENOMEM, "a retry cannot be put off");
        sel_hub_free_job(job);
    }
}

static void settle_job(struct sel_hub *hub, struct sel_job *job)
{
    struct sel_flow_run *run = job->flow;
    sel_hub_note_end(hub, job_end_us(hub, job));
    if (job->outcome == SEL_JOB_RETRY && !hub->canceled) {
        requeue(hub, job);
        return;
    }
    bool failed = job->outcome != SEL_JOB_DONE;
    sel_hub_count_end(hub, failed);
    if (!job->nowait && !run->ended && run->state.attempt == job->attempt)
        sel_hub_node_ended(run, job->ordinal, failed);
    sel_hub_free_job(job);
}

/* Without memory for it a task has no times. */
static void note_times(struct sel_hub *hub, const struct sel_job *job)
{
    struct sel_hub_times *times = &hub->times[job->task_index];
    times->retried += job->outcome == SEL_JOB_RETRY;
    times->failed += job->outcome == SEL_JOB_FAILED;
    if (!times->run_us)
        times->run_us = SEL_NEW(struct sel_histogram);
    if (times->run_us)
        sel_histogram_add(times->run_us, job->run_us);
}

void sel_hub_job_done(struct sel_hub *hub, struct sel_job *job)
{
    note_times(hub, job);
    hub->counters.in_flight--;
    job->worker->in_flight--;
    if (hub->shuffle_seed == 0) {
        settle_job(hub, job);
        return;
    }
    if (!sel_mem_grow(&hub->held, &hub->held_cap, (uint64_t)hub->held_count + 1,
                      sizeof(*hub->held))) {
        sel_hub_fatal(hub, SEL_ENOMEM, "a completion cannot be kept");
        sel_hub_free_job(job);
        return;
    }
    hub->held[hub->held_count++] = job;
}

bool sel_hub_settle_held(struct sel_hub *hub)
{
    if (hub->held_count == 0)
        return false;
    if (hub->counters.in_flight > 0 && sel_prng_below(&hub->prng, 2) == 0)
        return false;
    uint32_t i = (uint32_t)sel_prng_below(&hub->prng, hub->held_count);
    struct sel_job *job = hub->held[i];
    hub->held[i] = hub->held[--hub->held_count];
    settle_job(hub, job);
    return true;
}
