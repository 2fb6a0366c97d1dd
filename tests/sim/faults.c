/* What goes wrong, and when. Each mode of a scenario comes again and again until all heals. */
#include <errno.h>

#include "core/mem.h"
#include "tests/sim/run.h"

/* What is done; how long until the next is drawn by the caller. */
typedef void (*sel_fault_fn)(struct sel_run *run, struct sel_prng *prng);

static struct sel_worker *some_worker(struct sel_run *run, struct sel_prng *prng)
{
    return &run->workers[sel_draw_below(prng, run->scenario.worker_count)];
}

static struct sel_source *some_source(struct sel_run *run, struct sel_prng *prng)
{
    return &run->sources[sel_draw_below(prng, run->scenario.producer_count)];
}

static struct sel_process *some_peer(struct sel_run *run, struct sel_prng *prng)
{
    return sel_draw_chance(prng, 600) ? &some_worker(run, prng)->process
                                      : &some_source(run, prng)->process;
}

static struct sel_link *some_link(struct sel_run *run, struct sel_prng *prng)
{
    if (sel_draw_chance(prng, 300))
        return &some_source(run, prng)->link;
    struct sel_worker *worker = some_worker(run, prng);
    if (sel_draw_chance(prng, 200))
        return &worker->beat_link;
    return &worker->members[sel_draw_below(prng, worker->member_count)].link;
}

/* Shorter than a lease mostly, sometimes longer than two. */
static int64_t some_while(struct sel_run *run, struct sel_prng *prng)
{
    return sel_draw_wait(prng, 3 * run->scenario.lease_us);
}

/* ---- the network ---- */

static void fault_cut(struct sel_run *run, struct sel_prng *prng)
{
    uint32_t count = sel_draw_chance(prng, 200) ? 8 : 1;
    for (uint32_t i = 0; i < count; i++)
        sel_net_cut(run, some_link(run, prng));
}

static void unblock(struct sel_run *run, void *p, uint64_t with_cut, uint64_t b)
{
    (void)b;
    sel_net_unblock(run, p, with_cut != 0);
}

static void fault_block(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_process *process = some_peer(run, prng);
    uint64_t how = 1 + sel_draw_below(prng, 3);
    sel_net_block(run, process, how & 1, how & 2);
    sel_world_plan(&run->world, run->world.now_us + some_while(run, prng), unblock, process,
                   sel_draw_below(prng, 2), 0);
}

/* Bytes that may look like a message at first. A HELLO or BEAT with the id of a peer that lives
 * would be that peer; whoever knows the id may speak for it. */
static void fault_garbage(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_buf frame = {0};
    uint32_t size = (uint32_t)sel_draw_wait(prng, 400);
    static const uint8_t starts[][4] = {
        {0x93, 0x01, 0xc0, 0x81}, {0x93, 0x03, 0xc4, 0x38}, {0x93, 0x04, 0xc0, 0x81},
        {0x93, 0x05, 0xc0, 0x80}, {0x93, 0x06, 0xc4, 0x30}, {0x93, 0x02, 0xc0, 0x80},
    };
    if (sel_draw_chance(prng, 700))
        sel_buf_put(&frame, starts[sel_draw_below(prng, SEL_COUNT(starts))], 4);
    for (uint32_t i = 0; i < size; i++)
        sel_buf_put_u8(&frame, (uint8_t)sel_prng_next(prng));
    if (sel_draw_chance(prng, 300)) { /* a whole DATA, for a session that may exist */
        sel_buf_clear(&frame);
        struct sel_wire_writer writer;
        sel_wire_begin(&writer, &frame);
        const struct sel_worker *worker = some_worker(run, prng);
        struct sel_wire_head head = {.first = 1 + sel_draw_below(prng, 50),
                                     .ack = sel_draw_below(prng, 50)};
        if (worker->process.is_up)
            head.session = sel_holder_peer(worker->members[0].holder)->session.number;
        sel_wire_end(&writer, &head);
    }
    SEL_ASSERT(sel_buf_error(&frame) == 0);
    sel_net_inject(run, sel_buf_str(&frame));
    sel_buf_done(&frame);
}

/* ---- the broker ---- */

static void fault_kill(struct sel_run *run, struct sel_prng *prng)
{
    sel_server_kill(run, false);
    sel_server_start(run, some_while(run, prng));
}

static void fault_power(struct sel_run *run, struct sel_prng *prng)
{
    sel_server_kill(run, true);
    sel_server_start(run, some_while(run, prng));
}

static void room_again(struct sel_run *run, void *p, uint64_t a, uint64_t b)
{
    (void)p;
    (void)a;
    (void)b;
    sel_world_note(&run->world, "disk", "has room", 0, 0);
    sel_journal_disk_fail(run->server.disk, 0, 0);
    sel_journal_disk_limit(run->server.disk, 0);
}

static void fault_enospc(struct sel_run *run, struct sel_prng *prng)
{
    sel_world_note(&run->world, "disk", "is full", 0, 0);
    if (sel_draw_chance(prng, 500))
        sel_journal_disk_fail(run->server.disk, 1 + sel_draw_below(prng, 3), -ENOSPC);
    else
        sel_journal_disk_limit(run->server.disk, 20000 + sel_draw_below(prng, 200000));
    sel_world_plan(&run->world, run->world.now_us + some_while(run, prng), room_again, NULL, 0, 0);
}

static void fault_eio(struct sel_run *run, struct sel_prng *prng)
{
    sel_world_note(&run->world, "disk", "fails", 0, 0);
    sel_journal_disk_fail(run->server.disk, 1 + sel_draw_below(prng, 5), -EIO);
}

static void fault_halt(struct sel_run *run, struct sel_prng *prng)
{
    if (!run->server.process.is_up)
        return;
    int64_t until = run->world.now_us + some_while(run, prng);
    sel_world_note(&run->world, "broker", "is stopped", (uint64_t)until, 0);
    run->server.process.stopped_until_us = until;
}

/* ---- peers ---- */

static void worker_again(struct sel_run *run, void *p, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    sel_crew_start(run, p);
}

static void fault_crash(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_worker *worker = some_worker(run, prng);
    if (!worker->process.is_up)
        return;
    sel_crew_crash(run, worker);
    int64_t wait =
        sel_draw_chance(prng, 200) ? run->scenario.faults_until_us : some_while(run, prng);
    sel_world_plan(&run->world, run->world.now_us + wait, worker_again, worker, 0, 0);
}

static void fault_stop(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_process *process = some_peer(run, prng);
    int64_t until = run->world.now_us + some_while(run, prng);
    sel_world_note(&run->world, process->name, "is stopped", (uint64_t)until, 0);
    process->stopped_until_us = until;
}

static void fault_slow(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_worker *worker = some_worker(run, prng);
    struct sel_member *member = &worker->members[sel_draw_below(prng, worker->member_count)];
    int64_t until = run->world.now_us + some_while(run, prng);
    sel_world_note(&run->world, worker->process.name, "is slow", member->index, (uint64_t)until);
    member->actor.stalled_until_us = until;
}

static void fault_leave(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_worker *worker = some_worker(run, prng);
    if (!worker->process.is_up)
        return;
    sel_crew_leave(run, worker);
    int64_t wait = 2 * some_while(run, prng);
    sel_world_plan(&run->world, run->world.now_us + wait, worker_again, worker, 0, 0);
}

static void source_again(struct sel_run *run, void *p, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    sel_source_start(run, p);
}

static void fault_gone(struct sel_run *run, struct sel_prng *prng)
{
    struct sel_source *source = some_source(run, prng);
    sel_source_crash(run, source);
    sel_world_plan(&run->world, run->world.now_us + some_while(run, prng), source_again, source, 0,
                   0);
}

static void fault_jump(struct sel_run *run, struct sel_prng *prng)
{
    int64_t by_us = sel_draw_between(prng, -1, 1) * sel_draw_wait(prng, 20000000);
    struct sel_process *process = some_peer(run, prng);
    if (sel_draw_chance(prng, 500)) {
        process = &run->server.process;
        run->oracle.last_jump_us = run->world.now_us;
    }
    sel_world_note(&run->world, process->name, "jumps", (uint64_t)by_us, 0);
    process->unix_offset_us += by_us;
}

static void fault_cancel(struct sel_run *run, struct sel_prng *prng)
{
    const struct sel_wish *wish = &run->oracle.wishes[sel_draw_below(prng, run->oracle.wish_count)];
    sel_source_cancel(run, &run->sources[wish->producer], &run->oracle.deeds[wish->deed]);
}

static const struct {
    enum sel_mode mode;
    sel_fault_fn fault;
    int64_t every_us; /* about */
} faults[] = {
    {SEL_MODE_CUTS, fault_cut, 500000},        {SEL_MODE_BLOCKS, fault_block, 2000000},
    {SEL_MODE_GARBAGE, fault_garbage, 200000}, {SEL_MODE_KILL, fault_kill, 4000000},
    {SEL_MODE_POWER, fault_power, 4000000},    {SEL_MODE_ENOSPC, fault_enospc, 4000000},
    {SEL_MODE_EIO, fault_eio, 5000000},        {SEL_MODE_HALT, fault_halt, 4000000},
    {SEL_MODE_CRASH, fault_crash, 3000000},    {SEL_MODE_STOP, fault_stop, 3000000},
    {SEL_MODE_SLOW, fault_slow, 2000000},      {SEL_MODE_LEAVE, fault_leave, 4000000},
    {SEL_MODE_GONE, fault_gone, 4000000},      {SEL_MODE_JUMPS, fault_jump, 2000000},
    {SEL_MODE_CANCELS, fault_cancel, 100000},
};

static void fault_again(struct sel_run *run, void *p, uint64_t i, uint64_t b)
{
    (void)p;
    (void)b;
    if (run->is_healing)
        return;
    faults[i].fault(run, &run->faults);
    int64_t wait = sel_draw_between(&run->faults, 1, 2 * faults[i].every_us);
    sel_world_plan(&run->world, run->world.now_us + wait, fault_again, NULL, i, 0);
}

void sel_faults_plan(struct sel_run *run)
{
    run->faults.state = run->scenario.seed ^ UINT64_C(0xfa17);
    for (uint32_t i = 0; i < SEL_COUNT(faults); i++) {
        if (!sel_scenario_has(&run->scenario, faults[i].mode))
            continue;
        int64_t wait = sel_draw_between(&run->faults, 1, 2 * faults[i].every_us);
        sel_world_plan(&run->world, run->world.now_us + wait, fault_again, NULL, i, 0);
    }
}

void sel_faults_heal(struct sel_run *run)
{
    sel_world_note(&run->world, "world", "heals", 0, 0);
    run->is_healing = true;
    room_again(run, NULL, 0, 0);
    run->server.process.stopped_until_us = 0;
    sel_server_start(run, 0);
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_worker *worker = &run->workers[i];
        worker->process.stopped_until_us = 0;
        for (uint32_t m = 0; m < worker->member_count; m++)
            worker->members[m].actor.stalled_until_us = 0;
        sel_net_unblock(run, &worker->process, false);
        sel_crew_start(run, worker);
    }
    for (uint32_t i = 0; i < run->scenario.producer_count; i++) {
        run->sources[i].process.stopped_until_us = 0;
        sel_net_unblock(run, &run->sources[i].process, false);
        sel_source_start(run, &run->sources[i]);
    }
}
