#include "tests/sim/server.h"

#include <errno.h>
#include <stdio.h>

#include "core/mem.h"
#include "tests/sim/run.h"

#define TURN_US 20 /* what a turn of the loop takes */

#define BROKEN(run, promise, ...) sel_world_violate(&(run)->world, (promise), __VA_ARGS__)

static struct sel_broker_now now_of(const struct sel_run *run)
{
    const struct sel_server *server = &run->server;
    int64_t ahead_us = run->options.cheat == SEL_CHEAT_HURRY ? run->world.now_us / 2 : 0;
    return (struct sel_broker_now){sel_process_mono_us(&server->process) + ahead_us,
                                   sel_process_unix_us(&server->process)};
}

/* ---- the broker's world ---- */

static int io_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    struct sel_run *run = ctx;
    sel_oracle_said(run, connection, frame, false);
    return sel_net_answer(run, connection, frame);
}

static int io_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    struct sel_journal *journal = ((struct sel_run *)ctx)->server.journal;
    return journal->ops->read(journal, seq, offset, n, buf, NULL);
}

static void io_log(void *ctx, enum sel_broker_log level, const char *event, const char *text)
{
    struct sel_run *run = ctx;
    (void)level;
    sel_world_note(&run->world, "broker", event, 0, 0);
    if (run->world.is_verbose)
        printf("             broker %s %s\n", event, text);
}

/* ---- start ---- */

static int replay(void *ctx, uint64_t seq, struct sel_str batch, struct sel_error *err)
{
    struct sel_run *run = ctx;
    return sel_broker_replay(run->server.core, seq, batch, now_of(run), err);
}

static int open_journal(struct sel_run *run, struct sel_error *err)
{
    struct sel_server *server = &run->server;
    int r = sel_journal_mem_open(server->disk, &server->journal, err);
    if (r < 0)
        return r;
    r = server->journal->ops->walk(server->journal, 0, replay, run, err);
    if (r < 0)
        return r;
    struct sel_journal_stats stats;
    server->journal->ops->stats(server->journal, &stats);
    sel_broker_note_journal(server->core, stats.bytes_live);
    return 0;
}

static int core_start(struct sel_run *run, struct sel_error *err)
{
    struct sel_server *server = &run->server;
    const struct sel_scenario *s = &run->scenario;
    const struct sel_broker_options options = {
        .lease_us = s->lease_us,
        .beat_us = s->beat_us,
        .record_max = s->record_max,
        .interval_us = s->interval_us,
        .memory_max = s->memory_max,
        .payload_memory = s->payload_memory,
        .result_bytes_max = s->result_bytes_max,
        .poison_max = s->poison_max,
        .unknown_task_us = s->unknown_task_us,
        .window_records = s->window_records,
        .window_bytes = s->window_bytes,
        .outbox_bytes_max = s->outbox_bytes_max,
        .batch_bytes_max = s->batch_bytes_max,
        .journal_compact_min = s->journal_compact_min,
    };
    const struct sel_broker_io io = {
        .ctx = run, .send = io_send, .read = s->has_journal ? io_read : NULL, .log = io_log};
    struct sel_id id = {sel_prng_next(&server->prng), sel_prng_next(&server->prng)};
    int r = sel_broker_new(&options, &io, id, &server->core, err);
    if (r == 0 && s->has_journal)
        r = open_journal(run, err);
    return r < 0 ? r : sel_broker_start(server->core, now_of(run));
}

static void start(struct sel_run *run, void *p, uint64_t life, uint64_t b)
{
    (void)p;
    (void)b;
    struct sel_server *server = &run->server;
    if (life != server->process.life)
        return;
    server->is_starting = false;
    server->process.is_up = true;
    server->started_us = run->world.now_us;
    server->starts++;
    struct sel_error err = {0};
    int r = core_start(run, &err);
    sel_world_note(&run->world, "broker", "starts", server->starts, (uint64_t)r);
    if ((r == -EIO || r == -ENOSPC) && !run->is_healing) { /* the disk still fails */
        sel_server_kill(run, false);
        sel_server_start(run, sel_draw_wait(&server->prng, 500000));
        return;
    }
    if (r < 0) {
        BROKEN(run, "journal", "the broker does not start: %s: %s", sel_error_name(r), err.text);
        return;
    }
    sel_oracle_broker_started(run);
    sel_actor_wake(&server->actor, run->world.now_us);
}

void sel_server_start(struct sel_run *run, int64_t delay_us)
{
    struct sel_server *server = &run->server;
    if (server->process.is_up || server->is_starting)
        return;
    server->is_starting = true;
    if (!run->scenario.has_journal && delay_us < 1000000)
        delay_us += 1000000; /* its incarnation is the second in which it starts */
    sel_world_plan(&run->world, run->world.now_us + delay_us, start, NULL, server->process.life, 0);
}

/* ---- death ---- */

static void tear_down(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    if (server->journal)
        server->journal->ops->close(server->journal);
    server->journal = NULL;
    server->core = sel_broker_free(server->core);
    sel_frames_free(&server->inbox);
}

void sel_server_kill(struct sel_run *run, bool is_power)
{
    struct sel_server *server = &run->server;
    if (!server->process.is_up)
        return;
    sel_world_note(&run->world, "broker", is_power ? "loses its power" : "is killed",
                   sel_journal_disk_writes(server->disk), 0);
    sel_oracle_broker_died(run, is_power);
    sel_net_broker_gone(run);
    server->process.is_up = false;
    server->process.life++;
    server->process.stopped_until_us = 0;
    server->is_committing = server->is_appended = false;
    sel_actor_cancel(&server->actor);
    if (is_power) { /* a machine that starts anew counts from another time */
        sel_journal_disk_cut(server->disk);
        server->process.mono_offset_us = sel_draw_between(&server->prng, 0, 100000000);
    } else {
        sel_journal_disk_kill(server->disk);
    }
    tear_down(run);
}

/* ---- commits ---- */

/* The power fails at a chosen write, at once or when what depends on it has been said. */
static void maybe_cut(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    const struct sel_run_options *options = &run->options;
    if (options->cut_write && !server->was_cut &&
        sel_journal_disk_writes(server->disk) >= options->cut_write)
        server->is_cut_due = true;
}

static void cut(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    server->is_cut_due = false;
    server->was_cut = true;
    sel_server_kill(run, !run->options.cut_kills);
    sel_server_start(run, sel_draw_wait(&server->prng, 200000));
}

static int append(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    struct sel_journal *journal = server->journal;
    const struct sel_broker_batches *batches = &server->batches;
    bool is_synced = batches->sync && run->options.cheat != SEL_CHEAT_UNSYNCED;
    struct sel_error err = {0};
    uint64_t last = 0;
    int r = 0;
    if (batches->count) {
        r = journal->ops->append(journal, batches->bytes, batches->count, is_synced,
                                 batches->urgent, &last, &err);
        if (r == 0 && last != batches->first + batches->count - 1)
            BROKEN(run, "journal", "batch %llu has the number %llu",
                   (unsigned long long)(batches->first + batches->count - 1),
                   (unsigned long long)last);
    } else if (is_synced) {
        r = journal->ops->sync(journal, &err);
    }
    maybe_cut(run);
    if (r == 0 && batches->drop_before) {
        int dropped = journal->ops->drop(journal, batches->drop_before, &err);
        if (dropped < 0 && dropped != -ENOSPC && dropped != SEL_ELIMIT)
            r = dropped;
        maybe_cut(run);
    }
    return r;
}

static void append_now(struct sel_run *run, void *p, uint64_t life, uint64_t b)
{
    (void)p;
    (void)b;
    struct sel_server *server = &run->server;
    if (life != server->process.life || !server->is_committing)
        return;
    server->result = append(run);
    server->is_appended = true;
    sel_world_note(&run->world, "disk", "appends", server->batches.count,
                   (uint64_t)(int64_t)server->result);
    if (server->is_cut_due && !run->options.cut_after)
        cut(run);
}

static void committed(struct sel_run *run, void *p, uint64_t life, uint64_t b)
{
    (void)p;
    (void)b;
    struct sel_server *server = &run->server;
    if (life != server->process.life || !server->is_committing)
        return;
    if (run->world.now_us < server->process.stopped_until_us) {
        sel_world_plan(&run->world, server->process.stopped_until_us, committed, p, life, b);
        return;
    }
    int result = server->result;
    server->is_committing = server->is_appended = false;
    sel_world_note(&run->world, "broker", "committed", (uint64_t)(int64_t)result, 0);
    sel_broker_committed(server->core, result, now_of(run));
    if (result < 0 && result != -ENOSPC && result != SEL_ELIMIT) {
        sel_server_kill(run, false);
        sel_server_start(run, sel_draw_wait(&server->prng, 500000));
        return;
    }
    struct sel_journal_stats stats;
    server->journal->ops->stats(server->journal, &stats);
    sel_broker_note_journal(server->core, stats.bytes_live);
    sel_actor_wake(&server->actor, run->world.now_us);
}

/* A commit takes its time beside the loop; what it writes is there at some moment of it. */
static void maybe_commit(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    if (server->is_committing ||
        !sel_broker_take_batches(server->core, now_of(run), &server->batches))
        return;
    const struct sel_broker_batches *batches = &server->batches;
    SEL_ASSERT(server->journal && batches->count <= SEL_BROKER_BATCHES_MAX);
    sel_world_note(&run->world, "broker", "commits", batches->count, batches->drop_before);
    for (uint32_t i = 0; i < batches->count; i++)
        sel_world_note_bytes(&run->world, batches->bytes[i]);
    server->is_committing = true;
    int64_t now_us = run->world.now_us;
    int64_t took_us = sel_draw_wait(&server->prng, run->scenario.commit_us_max);
    int64_t at_us = sel_draw_chance(&server->prng, 500) ? 0 : took_us;
    sel_world_plan(&run->world, now_us + at_us, append_now, NULL, server->process.life, 0);
    sel_world_plan(&run->world, now_us + took_us, committed, NULL, server->process.life, 0);
}

/* ---- the loop ---- */

void sel_server_take(struct sel_run *run, struct sel_frame *take_frame)
{
    struct sel_server *server = &run->server;
    if (!server->process.is_up) {
        sel_frame_free(take_frame);
        return;
    }
    take_frame->next = NULL;
    if (server->inbox.last)
        server->inbox.last->next = take_frame;
    else
        server->inbox.first = take_frame;
    server->inbox.last = take_frame;
    server->inbox.count++;
    sel_actor_wake(&server->actor, run->world.now_us + TURN_US);
}

static void turn(struct sel_run *run, void *p)
{
    struct sel_server *server = p;
    struct sel_frame *frame;
    uint32_t received = 0;
    while (received < run->scenario.receive_max && (frame = sel_frames_pop(&server->inbox))) {
        struct sel_str bytes = {frame->bytes, frame->n};
        received++;
        sel_oracle_heard(run, frame->connection, bytes, frame->is_copy);
        sel_broker_receive(server->core, frame->connection, bytes, now_of(run));
        sel_frame_free(frame);
    }
    int64_t due_us = sel_broker_turn(server->core, now_of(run));
    maybe_commit(run);
    if (run->world.fired % 16 == 0)
        sel_oracle_check_broker(run);
    if (server->is_cut_due) {
        cut(run);
        return;
    }
    if (server->inbox.first)
        sel_actor_wake(&server->actor, run->world.now_us + TURN_US);
    if (due_us != INT64_MAX) {
        int64_t at_us = due_us - server->process.mono_offset_us;
        if (at_us < run->world.now_us + TURN_US)
            at_us = run->world.now_us + TURN_US;
        sel_actor_wake(&server->actor, at_us);
    }
}

bool sel_server_is_idle(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    if (!server->process.is_up || server->is_committing || server->inbox.first)
        return false;
    return sel_broker_is_idle(server->core);
}

void sel_server_init(struct sel_run *run)
{
    struct sel_server *server = &run->server;
    server->prng.state = run->scenario.seed ^ UINT64_C(0xb20c);
    server->process = (struct sel_process){.world = &run->world, .name = "broker", .life = 1};
    server->process.mono_offset_us = sel_draw_between(&server->prng, 0, 1000000000);
    server->process.unix_offset_us = INT64_C(1764000000000000);
    server->actor = (struct sel_actor){
        .process = &server->process, .turn = turn, .p = server, .wake_us = SEL_WORLD_NEVER};
    server->disk = sel_journal_disk_new(run->scenario.seed ^ run->options.disk_seed << 20);
    SEL_ASSERT(server->disk);
}

void sel_server_done(struct sel_run *run)
{
    tear_down(run);
    run->server.disk = sel_journal_disk_free(run->server.disk);
}
