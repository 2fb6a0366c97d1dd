#include "tests/sim/crew.h"

#include <stdio.h>

#include "core/mem.h"
#include "tests/sim/run.h"
#include "worker/dispatcher.h"

#define AGAIN_US 5000    /* until what found no room is tried again */
#define WRITABLE_US 1000 /* until a full socket is looked at again */
#define TURN_US 20       /* what a turn of the loop takes */

/* ---- what is settled ---- */

static void spy_opened(void *ctx, bool resumed, uint64_t shift)
{
    struct sel_member *member = ctx;
    for (uint32_t i = 0; i < member->end_count; i++)
        member->ends[i].number -= shift;
    member->spied->opened(member->spied_ctx, resumed, shift);
}

static void spy_record(void *ctx, uint64_t number, const struct sel_wire_item *item, int error)
{
    struct sel_member *member = ctx;
    member->spied->record(member->spied_ctx, number, item, error);
}

static void spy_settled(void *ctx, uint64_t number)
{
    struct sel_member *member = ctx;
    uint32_t count = 0;
    while (count < member->end_count && member->ends[count].number <= number)
        sel_oracle_end_settled(member->run, member->ends[count++].run);
    member->end_count -= count;
    if (member->end_count)
        memmove(member->ends, member->ends + count, member->end_count * sizeof(*member->ends));
    member->spied->settled(member->spied_ctx, number);
}

static void spy_error(void *ctx, const struct sel_wire_error *error)
{
    struct sel_member *member = ctx;
    member->spied->error(member->spied_ctx, error);
}

static void spy_held(void *ctx, struct sel_buf *held)
{
    struct sel_member *member = ctx;
    member->spied->held(member->spied_ctx, held);
}

/* The holder does not tell when an end is settled; its peer tells the holder. */
static void spy_on(struct sel_member *member)
{
    struct sel_peer *peer = sel_holder_peer(member->holder);
    member->spy = (struct sel_peer_ops){spy_opened, spy_record, spy_settled, spy_error, spy_held};
    member->spied = peer->ops;
    member->spied_ctx = peer->ctx;
    peer->ops = &member->spy;
    peer->ctx = member;
}

static void push_end(struct sel_member *member, uint32_t run)
{
    SEL_ASSERT(sel_mem_grow(&member->ends, &member->end_cap, (uint64_t)member->end_count + 1,
                            sizeof(*member->ends)));
    uint64_t number = sel_holder_peer(member->holder)->session.out.next - 1;
    member->ends[member->end_count++] = (struct sel_put_end){run, number};
}

/* ---- ends of tasks ---- */

struct verdict {
    uint32_t code;
    bool is_uncounted;
    int64_t countdown_us;
    struct sel_str payload;
};

static struct verdict verdict_of(struct sel_run *run, const struct sel_job *job)
{
    const struct sel_sim_execution *e = &run->oracle.runs[job->run];
    const struct sel_deed *deed = &run->oracle.deeds[e->deed];
    struct verdict v = {.code = deed->outcome};
    if (job->is_stopping)
        v.code = SEL_OUTCOME_CANCELLED;
    else if (e->try_count < deed->retries)
        v = (struct verdict){.code = SEL_OUTCOME_RETRY, .countdown_us = deed->retry_countdown_us};
    uint32_t size = (job->run * 7919u) % (run->scenario.result_max + 1);
    sel_oracle_result(deed, job->run, size, &run->oracle.scratch);
    v.payload = sel_buf_str(&run->oracle.scratch);
    return v;
}

/* The same of a run of a flow: its result is in storages. */
static struct verdict verdict_of_part(struct sel_run *run, const struct sel_job *job)
{
    struct sel_stage_end end = sel_stage_end_of(run, job->part - 1, job->task->try_count);
    struct verdict v = {end.code, end.is_uncounted, end.countdown_us, {0}};
    sel_buf_clear(&run->oracle.scratch);
    if (job->is_stopping)
        v = (struct verdict){.code = SEL_OUTCOME_CANCELLED};
    else if (v.code == SEL_OUTCOME_FAILURE || v.code == SEL_OUTCOME_FATAL)
        sel_holder_put_failure(&run->oracle.scratch, SEL_STR("ValueError"), SEL_STR("as drawn"));
    v.payload = sel_buf_str(&run->oracle.scratch);
    return v;
}

static void end_job(struct sel_run *run, void *p, uint64_t key, uint64_t token);

static void plan_end(struct sel_run *run, struct sel_member *member, struct sel_job *job,
                     int64_t wait_us)
{
    job->token = ++member->tokens;
    uint64_t key = member->worker->process.life << 8 | (uint64_t)(job - member->jobs);
    sel_world_plan(&run->world, run->world.now_us + wait_us, end_job, member, key, job->token);
}

static void try_end(struct sel_run *run, struct sel_member *member, struct sel_job *job)
{
    struct verdict v = {0};
    int r;
    if (job->run == UINT32_MAX && !job->part) {
        r = sel_holder_return(member->holder, job->task, SEL_RETURN_UNKNOWN_TASK,
                              SEL_STR("no such task"));
    } else {
        v = job->part ? verdict_of_part(run, job) : verdict_of(run, job);
        job->task->is_uncounted = v.is_uncounted;
        r = sel_holder_end(member->holder, job->task, v.code, v.countdown_us, v.payload);
    }
    if (r == SEL_ELIMIT) {
        plan_end(run, member, job, AGAIN_US);
        return;
    }
    SEL_ASSERT(r == 0);
    if (job->run != UINT32_MAX) {
        push_end(member, job->run);
        sel_oracle_ended(run, job->run, v.code);
    } else if (job->part) {
        sel_world_note(&run->world, member->worker->process.name, "ends a run", job->part - 1,
                       v.code);
    }
    job->task = NULL;
    member->job_count--;
    member->busy_us = run->world.now_us;
    sel_actor_wake(&member->actor, run->world.now_us);
}

static void end_job(struct sel_run *run, void *p, uint64_t key, uint64_t token)
{
    struct sel_member *member = p;
    struct sel_process *process = &member->worker->process;
    struct sel_job *job = &member->jobs[key & 0xff];
    if (key >> 8 != process->life || !process->is_up || !job->task || job->token != token)
        return;
    int64_t until = process->stopped_until_us;
    if (until < member->actor.stalled_until_us)
        until = member->actor.stalled_until_us;
    if (run->world.now_us < until) {
        plan_end(run, member, job, until - run->world.now_us);
        return;
    }
    if (run->options.cheat == SEL_CHEAT_FORGET && job->run % 8 == 3) {
        job->token = 0; /* the slot stays taken for ever */
        return;
    }
    try_end(run, member, job);
}

static void on_cancel(void *ctx, struct sel_held_task *task)
{
    struct sel_member *member = ctx;
    struct sel_job *job = task->user;
    if (!job || job->task != task)
        return;
    job->is_stopping = sel_draw_chance(&member->worker->prng, 700);
    if (job->run != UINT32_MAX && task->cancel_code == SEL_CANCEL_ENDED)
        member->run->oracle.runs[job->run].is_called_off = true;
}

static const struct sel_holder_ops holder_ops = {
    .cancel = on_cancel, .flow = sel_stage_take, .flows_lost = sel_stage_lost};

/* ---- beginning ---- */

static bool is_known(const struct sel_run *run, const struct sel_member *member,
                     const struct sel_held_task *task)
{
    struct sel_str name = task->item.task;
    unsigned kind = name.n ? (unsigned)(name.p[name.n - 1] - '0') : 0;
    return kind < SEL_SIM_KINDS && ((run->scenario.knows[member->worker->index] >> kind) & 1);
}

static struct sel_job *free_job(struct sel_run *run, struct sel_member *member)
{
    for (uint32_t i = 0; i < run->scenario.slots[member->worker->index]; i++)
        if (!member->jobs[i].task)
            return &member->jobs[i];
    return NULL;
}

static void begin_part(struct sel_run *run, struct sel_member *member, struct sel_job *job)
{
    uint32_t part = sel_stage_begun(run, member, &job->task->item);
    if (part == SEL_NONE)
        return; /* a promise is broken: nothing more happens */
    job->part = 1 + part;
    plan_end(run, member, job, sel_stage_run_us(run, part, job->task->try_count));
}

static void begin(struct sel_run *run, struct sel_member *member, struct sel_job *job,
                  struct sel_held_task *task)
{
    *job = (struct sel_job){
        .task = task, .run = UINT32_MAX, .progress = (uint8_t)(job->progress % 200 + 1)};
    task->user = job;
    member->job_count++;
    member->busy_us = run->world.now_us;
    if (task->is_run && run->scenario.has_flows) {
        begin_part(run, member, job);
        return;
    }
    if (!is_known(run, member, task)) {
        sel_world_note(&run->world, member->worker->process.name, "does not know", 0, 0);
        try_end(run, member, job);
        return;
    }
    job->run = sel_oracle_begun(run, member, &task->item);
    if (run->options.cheat == SEL_CHEAT_REPEAT && job->run == 5)
        job->run = sel_oracle_begun(run, member, &task->item);
    plan_end(run, member, job, run->oracle.deeds[run->oracle.runs[job->run].deed].run_us);
}

static void begin_all(struct sel_run *run, struct sel_member *member)
{
    struct sel_job *job;
    struct sel_held_task *task;
    while ((job = free_job(run, member)) && (task = sel_holder_begin(member->holder)))
        begin(run, member, job, task);
}

/* ---- the loop of a session ---- */

static void gone(struct sel_run *run, struct sel_worker *worker, const char *how);

/* false: the socket takes no more now. */
static bool pump(struct sel_run *run, struct sel_member *member)
{
    bool is_open = true;
    struct sel_buf out = {0};
    int64_t mono_us = sel_process_mono_us(&member->worker->process);
    for (int i = 0; i < 1000; i++) {
        enum sel_peer_action action = sel_holder_poll(member->holder, mono_us, &out);
        if (action == SEL_PEER_NOTHING)
            break;
        if (action == SEL_PEER_CONNECT) {
            sel_net_close(run, &member->link);
            sel_net_open(run, &member->link);
            continue;
        }
        sel_oracle_said(run, 0, sel_buf_str(&out), true);
        if (sel_net_send(run, &member->link, sel_buf_str(&out)) < 0) {
            sel_peer_unsent(sel_holder_peer(member->holder));
            is_open = false;
            break;
        }
    }
    sel_buf_done(&out);
    return is_open;
}

static void wake_when_due(struct sel_member *member)
{
    sel_actor_wake_mono(&member->actor, sel_holder_due_us(member->holder));
    if (member->dispatcher)
        sel_actor_wake_mono(&member->actor, sel_dispatcher_due_us(member->dispatcher));
}

static void member_turn(struct sel_run *run, void *p)
{
    struct sel_member *member = p;
    struct sel_worker *worker = member->worker;
    struct sel_frame *frame;
    int64_t mono_us = sel_process_mono_us(&worker->process);
    member->turns++;
    while ((frame = sel_net_take(run, &member->link))) {
        sel_holder_receive(member->holder, (struct sel_str){frame->bytes, frame->n}, mono_us);
        sel_frame_free(frame);
    }
    sel_oracle_check_member(run, member);
    begin_all(run, member);
    if (sel_stage_turn(run, member))
        sel_actor_wake(&member->actor, run->world.now_us + TURN_US);
    struct sel_peer *peer = sel_holder_peer(member->holder);
    if (worker->is_leaving && sel_holder_is_empty(member->holder) &&
        (!member->dispatcher || sel_dispatcher_is_empty(member->dispatcher)))
        sel_peer_goodbye(peer, "leaving");
    bool is_open = pump(run, member);
    if (peer->state == SEL_PEER_REFUSED)
        sel_world_violate(&run->world, "error", "%s.%u is refused: %s", worker->process.name,
                          member->index, peer->refusal.text);
    if (peer->state == SEL_PEER_CLOSED)
        gone(run, worker, "has left");
    else if (is_open)
        wake_when_due(member);
    else
        sel_actor_wake(&member->actor, run->world.now_us + WRITABLE_US);
}

/* ---- beats ---- */

static void beat(struct sel_run *run, struct sel_worker *worker, struct sel_member *member)
{
    uint8_t progress[SEL_SIM_SLOTS];
    uint32_t slots = run->scenario.slots[worker->index];
    for (uint32_t i = 0; i < slots; i++)
        progress[i] = member->jobs[i].task ? member->jobs[i].progress : 0;
    const struct sel_wire_beat said = {
        .peer = member->id,
        .incarnation = member->incarnation,
        .count = ++member->beats,
        .turns = member->turns,
        .mono_us = (uint64_t)sel_process_mono_us(&worker->process),
        .progress = {(const char *)progress, slots},
    };
    struct sel_buf frame = {0};
    sel_wire_encode_beat(&said, &frame);
    SEL_ASSERT(sel_buf_error(&frame) == 0);
    (void)sel_net_send(run, &worker->beat_link, sel_buf_str(&frame)); /* the next one does */
    sel_buf_done(&frame);
}

static void beat_turn(struct sel_run *run, void *p)
{
    struct sel_worker *worker = p;
    struct sel_frame *frame;
    while ((frame = sel_net_take(run, &worker->beat_link)))
        sel_frame_free(frame);
    for (uint32_t i = 0; i < worker->member_count; i++)
        beat(run, worker, &worker->members[i]);
    sel_actor_wake(&worker->beat_actor, run->world.now_us + run->scenario.beat_us);
}

/* ---- life ---- */

static const char *const queue_names[SEL_SIM_QUEUES] = {"queue0", "queue1", "queue2", "queue3"};

static void start_member(struct sel_run *run, struct sel_worker *worker, struct sel_member *member)
{
    const struct sel_scenario *s = &run->scenario;
    static struct sel_str names[SEL_SIM_WORKERS][SEL_SIM_QUEUES]; /* borrowed by the peers */
    struct sel_str *queues = names[worker->index];
    uint32_t count = 0;
    for (uint32_t i = 0; i < SEL_SIM_QUEUES; i++)
        if ((s->serves[worker->index] >> i) & 1)
            queues[count++] = sel_str_c(queue_names[i]);
    if (s->keeps_id[worker->index] && member->incarnation)
        member->incarnation++;
    else
        member->id = (struct sel_id){sel_prng_next(&worker->prng), sel_prng_next(&worker->prng)};
    if (s->keeps_id[worker->index] && member->incarnation == 0)
        member->incarnation = 1;
    const struct sel_holder_options options = {
        .peer = {.role = SEL_ROLE_WORKER,
                 .id = member->id,
                 .incarnation = member->incarnation,
                 .name = sel_str_c(worker->process.name),
                 .queues = queues,
                 .queue_count = count,
                 .slots = s->slots[worker->index],
                 .window = s->window[worker->index] +
                           (run->options.cheat == SEL_CHEAT_OVERFILL ? 2 * SEL_SIM_SLOTS : 0),
                 .window_records = s->peer_window_records,
                 .window_bytes = s->peer_window_bytes,
                 .retry_us_max = s->lease_us / 2,
                 .flows = s->flows[worker->index],
                 .crashed = sel_buf_str(&member->page),
                 .seed = sel_prng_next(&worker->prng),
                 .beats_elsewhere = true},
        .ops = &holder_ops,
        .ctx = member,
    };
    int r = sel_holder_new(&options, sel_process_mono_us(&worker->process), &member->holder);
    SEL_ASSERT(r == 0);
    spy_on(member);
    sel_stage_open(run, member);
    member->lapsed_us = 0;
    member->started_us = run->world.now_us;
    member->beats = member->turns = 0;
    member->hello_connection = 0;
    member->link.heard_us = run->world.now_us;
    sel_actor_wake(&member->actor, run->world.now_us);
}

void sel_crew_start(struct sel_run *run, struct sel_worker *worker)
{
    if (worker->process.is_up)
        return;
    sel_world_note(&run->world, worker->process.name, "starts", worker->process.life, 0);
    worker->process.is_up = true;
    worker->process.life++;
    if (run->oracle.workers_us == 0)
        run->oracle.workers_us = run->world.now_us;
    worker->is_leaving = false;
    for (uint32_t i = 0; i < worker->member_count; i++)
        start_member(run, worker, &worker->members[i]);
    sel_net_open(run, &worker->beat_link);
    sel_actor_wake(&worker->beat_actor, run->world.now_us + run->scenario.beat_us);
}

static void end_member(struct sel_run *run, struct sel_member *member)
{
    sel_net_close(run, &member->link);
    sel_actor_cancel(&member->actor);
    sel_stage_close(member);
    member->holder = sel_holder_free(member->holder);
    memset(member->jobs, 0, sizeof(member->jobs));
    member->job_count = member->end_count = 0;
}

/* The page that a process shares with its next life: what was running. */
static void leave_page(struct sel_run *run, struct sel_member *member)
{
    struct sel_worker *worker = member->worker;
    sel_buf_clear(&member->page);
    if (!run->scenario.keeps_id[worker->index] || sel_draw_chance(&worker->prng, 500))
        return;
    for (uint32_t i = 0; i < SEL_SIM_SLOTS; i++) {
        const struct sel_job *job = &member->jobs[i];
        if (!job->task || (job->run == UINT32_MAX && !job->part))
            continue;
        struct sel_wire_held held = {.id = job->task->id,
                                     .handle = job->task->handle,
                                     .try_count = job->task->try_count,
                                     .delivery = job->task->delivery,
                                     .is_run = job->part != 0};
        if (!held.is_run) /* that would be another outcome of its flow */
            held.is_done = sel_draw_chance(&worker->prng, 50);
        sel_wire_put_held(&member->page, &held);
        if (held.is_run)
            continue;
        struct sel_deed *deed = &run->oracle.deeds[run->oracle.runs[job->run].deed];
        if (held.is_done)
            deed->overflowed_us = run->world.now_us;
    }
}

/* What ran there is lost. */
static void bury(struct sel_run *run, struct sel_worker *worker)
{
    for (uint32_t i = 0; i < run->oracle.run_count; i++) {
        struct sel_sim_execution *e = &run->oracle.runs[i];
        if (e->member->worker != worker || e->life != worker->process.life)
            continue;
        e->lapsed_us = e->member->lapsed_us;
        if (e->state != SEL_RUN_SETTLED) {
            bool was_going = e->state == SEL_RUN_GOING;
            e->state = SEL_RUN_DEAD;
            if (was_going)
                sel_oracle_expect_elsewhere(run, i);
        }
    }
}

static void start_again(struct sel_run *run, void *p, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    sel_crew_start(run, p);
}

static void gone(struct sel_run *run, struct sel_worker *worker, const char *how)
{
    if (worker->is_leaving) /* all of them have to be ready */
        for (uint32_t i = 0; i < worker->member_count; i++)
            if (sel_holder_peer(worker->members[i].holder)->state != SEL_PEER_CLOSED)
                return;
    sel_world_note(&run->world, worker->process.name, how, 0, 0);
    bury(run, worker);
    for (uint32_t i = 0; i < worker->member_count; i++)
        end_member(run, &worker->members[i]);
    sel_net_close(run, &worker->beat_link);
    sel_actor_cancel(&worker->beat_actor);
    worker->process.is_up = false;
    worker->process.stopped_until_us = 0;
    worker->is_leaving = false;
    if (run->is_healing) /* somebody must do what is left */
        sel_world_plan(&run->world, run->world.now_us + 1000, start_again, worker, 0, 0);
}

void sel_crew_crash(struct sel_run *run, struct sel_worker *worker)
{
    if (!worker->process.is_up)
        return;
    worker->is_leaving = false;
    for (uint32_t i = 0; i < worker->member_count; i++)
        leave_page(run, &worker->members[i]);
    gone(run, worker, "dies");
}

void sel_crew_leave(struct sel_run *run, struct sel_worker *worker)
{
    if (!worker->process.is_up || worker->is_leaving)
        return;
    sel_world_note(&run->world, worker->process.name, "leaves", 0, 0);
    worker->is_leaving = true;
    for (uint32_t i = 0; i < worker->member_count; i++) {
        struct sel_member *member = &worker->members[i];
        sel_holder_drain(member->holder);
        if (member->dispatcher)
            sel_dispatcher_drain(member->dispatcher);
        sel_actor_wake(&member->actor, run->world.now_us);
    }
}

bool sel_crew_is_idle(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_worker *worker = &run->workers[i];
        for (uint32_t m = 0; worker->process.is_up && m < worker->member_count; m++) {
            struct sel_holder *holder = worker->members[m].holder;
            if (sel_holder_waiting(holder) + sel_holder_running(holder) +
                    sel_holder_unsettled(holder) >
                0)
                return false;
            const struct sel_dispatcher *dispatcher = worker->members[m].dispatcher;
            if (dispatcher && !sel_dispatcher_is_empty(dispatcher))
                return false;
        }
    }
    return true;
}

struct sel_member *sel_crew_find(struct sel_run *run, struct sel_id id)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++)
        for (uint32_t m = 0; m < run->workers[i].member_count; m++)
            if (run->workers[i].process.is_up && sel_id_eq(run->workers[i].members[m].id, id))
                return &run->workers[i].members[m];
    return NULL;
}

static void init_member(struct sel_run *run, struct sel_worker *worker, uint32_t index)
{
    struct sel_member *member = &worker->members[index];
    member->run = run;
    member->worker = worker;
    member->index = index;
    member->actor = (struct sel_actor){
        .process = &worker->process, .turn = member_turn, .p = member, .wake_us = SEL_WORLD_NEVER};
    member->link = (struct sel_link){
        .process = &worker->process,
        .actor = &member->actor,
        .latency_us = sel_draw_between(&worker->prng, 20, run->scenario.latency_us_max),
    };
}

void sel_crew_init(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_worker *worker = &run->workers[i];
        worker->index = i;
        worker->prng.state = run->scenario.seed ^ (UINT64_C(0x3a0c) + ((uint64_t)i << 32));
        worker->process = (struct sel_process){
            .world = &run->world,
            .mono_offset_us = sel_draw_between(&worker->prng, 0, 1000000000),
            .unix_offset_us =
                INT64_C(1764000000000000) + sel_draw_between(&worker->prng, -2000000, 2000000),
        };
        (void)snprintf(worker->process.name, sizeof(worker->process.name), "w%u", i);
        worker->beat_actor = (struct sel_actor){.process = &worker->process,
                                                .turn = beat_turn,
                                                .p = worker,
                                                .wake_us = SEL_WORLD_NEVER};
        worker->beat_link = (struct sel_link){
            .process = &worker->process, .actor = &worker->beat_actor, .latency_us = 300};
        worker->member_count = run->scenario.session_count[i];
        for (uint32_t m = 0; m < worker->member_count; m++)
            init_member(run, worker, m);
    }
}

void sel_crew_done(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_worker *worker = &run->workers[i];
        for (uint32_t m = 0; m < worker->member_count; m++) {
            end_member(run, &worker->members[m]);
            worker->members[m].ends = sel_mem_free(worker->members[m].ends);
            sel_buf_done(&worker->members[m].page);
        }
        sel_net_close(run, &worker->beat_link);
    }
}
