#include "tests/sim/source.h"

#include <stdio.h>

#include "core/mem.h"
#include "tests/sim/run.h"

#define AGAIN_US 10000   /* until what found no room is tried again */
#define WRITABLE_US 1000 /* until a full socket is looked at again */

static const char *const queue_names[SEL_SIM_QUEUES] = {"queue0", "queue1", "queue2", "queue3"};
static const char *const kind_names[SEL_SIM_KINDS] = {"kind0", "kind1", "kind2", "kind3"};

/* ---- what it hears ---- */

/* The tag of a wish is where it is in their table, from 1. */
static struct sel_wish *wish_of(struct sel_run *run, void *tag)
{
    uintptr_t i = (uintptr_t)tag;
    SEL_ASSERT(i >= 1 && i <= run->oracle.wish_count);
    return &run->oracle.wishes[i - 1];
}

static void *tag_of(struct sel_run *run, const struct sel_wish *wish)
{
    return (void *)(uintptr_t)(wish - run->oracle.wishes + 1);
}

static void on_settled(void *ctx, struct sel_id id, void *tag)
{
    (void)id;
    struct sel_source *source = ctx;
    struct sel_wish *wish = wish_of(source->run, tag);
    sel_oracle_settled(source->run, wish);
}

/* What the world tells instead, if it lies. */
static void cheat(struct sel_run *run, struct sel_source *source, const struct sel_wish *wish,
                  struct sel_producer_result *told)
{
    const struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    struct sel_buf *kept = &source->kept;
    if (told->is_refused)
        return;
    if (run->options.cheat == SEL_CHEAT_SWAP) {
        struct sel_str payload = told->payload;
        if (kept->n)
            told->payload = sel_buf_str(kept);
        else
            sel_buf_put_str(kept, payload);
    }
    if (run->options.cheat == SEL_CHEAT_DOUBLE && deed->has_result && deed->last_run &&
        told->code == SEL_OUTCOME_SUCCESS) {
        sel_buf_clear(kept);
        sel_oracle_result(deed, sel_oracle_double(run, deed->last_run - 1), 0, kept);
        told->payload = sel_buf_str(kept);
    }
}

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct sel_source *source = ctx;
    struct sel_run *run = source->run;
    struct sel_wish *wish = wish_of(run, result->tag);
    struct sel_producer_result told = *result;
    cheat(run, source, wish, &told);
    sel_oracle_finished(run, wish, &told);
    if (run->options.cheat == SEL_CHEAT_STUTTER && wish->deed % 8 == 1)
        sel_oracle_finished(run, wish, &told);
}

static const struct sel_producer_ops producer_ops = {.settled = on_settled,
                                                     .finished = on_finished};

/* ---- what it says ---- */

/* Whether its result is wanted after detached work only. */
static bool wants_all(const struct sel_run *run, const struct sel_deed *deed)
{
    return sel_act_is_flow(&run->stage, deed->body) && !deed->key &&
           (deed->index + run->scenario.seed) % 4 == 0;
}

static int submit(struct sel_run *run, struct sel_source *source, struct sel_wish *wish)
{
    struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    const struct sel_flow_def *flow = run->stage.acts[wish->deed].flow;
    char key[16];
    (void)snprintf(key, sizeof(key), "key%u", deed->key);
    sel_oracle_payload(deed, &run->oracle.scratch);
    int64_t not_before_us = deed->not_before_unix_us;
    if (deed->submitted_us == 0 && deed->later_us)
        not_before_us = sel_process_unix_us(&source->process) + deed->later_us;
    const struct sel_wire_item item = {
        .type = SEL_RECORD_SUBMIT,
        .flags = (uint16_t)((deed->is_quiet ? SEL_ITEM_QUIET : 0) | (flow ? SEL_ITEM_FLOW : 0) |
                            (wants_all(run, deed) ? SEL_ITEM_ALL : 0)),
        .id = deed->id,
        .queue = source->queues[deed->queue],
        .priority = deed->priority,
        .level = deed->says_default ? SEL_LEVEL_DEFAULT : deed->level,
        .countdown_us = (uint64_t)deed->countdown_us,
        .not_before_unix_us = not_before_us,
        .task = flow ? flow->name : sel_str_c(kind_names[deed->kind]),
        .idempotency_key = deed->key ? sel_str_c(key) : (struct sel_str){0},
        .payload = sel_buf_str(&run->oracle.scratch),
    };
    if (run->options.cheat == SEL_CHEAT_BLUR && wish->deed == 7)
        run->oracle.scratch.p[run->oracle.scratch.n - 1] ^= 1;
    int r = sel_producer_submit(source->producer, &item, tag_of(run, wish), true);
    if (r == 0)
        sel_oracle_submitted(run, wish, not_before_us);
    return r;
}

static int ask(struct sel_run *run, struct sel_source *source, struct sel_wish *wish)
{
    const struct sel_deed *deed = &run->oracle.deeds[wish->deed];
    int r = sel_producer_watch(source->producer, deed->id, tag_of(run, wish), wants_all(run, deed));
    if (r == 0) {
        sel_world_note(&run->world, source->process.name, "watches", deed->index, 0);
        wish->state = SEL_WISH_SENT;
        wish->is_listed = true;
    }
    return r;
}

static void add_due(struct sel_source *source, uint32_t wish)
{
    SEL_ASSERT(sel_mem_grow(&source->due, &source->due_cap, (uint64_t)source->due_count + 1,
                            sizeof(uint32_t)));
    source->due[source->due_count++] = wish;
}

/* Says what is due, as far as there is room. */
static void say_due(struct sel_run *run, struct sel_source *source)
{
    uint32_t kept = 0;
    bool is_full = false;
    for (uint32_t i = 0; i < source->due_count; i++) {
        struct sel_wish *wish = &run->oracle.wishes[source->due[i]];
        int r = SEL_ELIMIT;
        if (!is_full)
            r = wish->is_watch ? ask(run, source, wish) : submit(run, source, wish);
        if (r == SEL_ELIMIT) {
            is_full = true;
            source->due[kept++] = source->due[i];
        } else if (r < 0) {
            sel_world_violate(&run->world, "error", "a submit of task %u fails: %s", wish->deed,
                              sel_error_name(r));
        }
    }
    source->due_count = kept;
    if (kept)
        sel_actor_wake(&source->actor, run->world.now_us + AGAIN_US);
}

/* ---- the loop ---- */

/* false: the socket takes no more now. */
static bool pump(struct sel_run *run, struct sel_source *source)
{
    bool is_open = true;
    struct sel_buf out = {0};
    int64_t mono_us = sel_process_mono_us(&source->process);
    for (int i = 0; i < 1000; i++) {
        enum sel_peer_action action = sel_producer_poll(source->producer, mono_us, &out);
        if (action == SEL_PEER_NOTHING)
            break;
        if (action == SEL_PEER_CONNECT) {
            sel_net_close(run, &source->link);
            sel_net_open(run, &source->link);
            continue;
        }
        sel_oracle_said(run, 0, sel_buf_str(&out), true);
        if (sel_net_send(run, &source->link, sel_buf_str(&out)) < 0) {
            sel_peer_unsent(sel_producer_peer(source->producer));
            is_open = false;
            break;
        }
    }
    sel_buf_done(&out);
    return is_open;
}

static void source_turn(struct sel_run *run, void *p)
{
    struct sel_source *source = p;
    struct sel_frame *frame;
    int64_t mono_us = sel_process_mono_us(&source->process);
    while ((frame = sel_net_take(run, &source->link))) {
        source->told_us = frame->sent_us;
        sel_producer_receive(source->producer, (struct sel_str){frame->bytes, frame->n}, mono_us);
        sel_frame_free(frame);
    }
    source->told_us = run->world.now_us;
    say_due(run, source);
    if (pump(run, source))
        sel_actor_wake_mono(&source->actor, sel_producer_due_us(source->producer));
    else
        sel_actor_wake(&source->actor, run->world.now_us + WRITABLE_US);
    const struct sel_peer *peer = sel_producer_peer(source->producer);
    if (peer->state == SEL_PEER_REFUSED)
        sel_world_violate(&run->world, "error", "%s is refused: %s", source->process.name,
                          peer->refusal.text);
}

/* ---- life ---- */

static void wish_due(struct sel_run *run, void *p, uint64_t wish, uint64_t b)
{
    (void)b;
    struct sel_source *source = p;
    if (!source->process.is_up) /* its next life will look for it */
        return;
    add_due(source, (uint32_t)wish);
    sel_actor_wake(&source->actor, run->world.now_us);
}

static void open_producer(struct sel_run *run, struct sel_source *source)
{
    const struct sel_scenario *s = &run->scenario;
    const struct sel_producer_options options = {
        .id = {sel_prng_next(&source->prng), sel_prng_next(&source->prng)},
        .name = sel_str_c(source->process.name),
        .ops = &producer_ops,
        .ctx = source,
        .keep_bytes_max = sel_scenario_has(s, SEL_MODE_SMALL) ? 4096 : 0,
        .window_records = s->peer_window_records,
        .window_bytes = s->peer_window_bytes,
        .seed = sel_prng_next(&source->prng),
    };
    int r = sel_producer_new(&options, sel_process_mono_us(&source->process), &source->producer);
    SEL_ASSERT(r == 0);
    for (uint32_t i = 0; i < s->queue_count; i++) {
        r = sel_producer_queue(source->producer, sel_str_c(queue_names[i]), &source->queues[i]);
        SEL_ASSERT(r == 0);
    }
}

void sel_source_start(struct sel_run *run, struct sel_source *source)
{
    if (source->process.is_up)
        return;
    sel_world_note(&run->world, source->process.name, "starts", source->process.life, 0);
    source->process.is_up = true;
    source->process.life++;
    open_producer(run, source);
    for (uint32_t i = 0; i < run->oracle.wish_count; i++) {
        struct sel_wish *wish = &run->oracle.wishes[i];
        if (wish->producer != source->index || wish->state == SEL_WISH_OVER ||
            wish->at_us > run->world.now_us)
            continue;
        bool is_quiet = run->oracle.deeds[wish->deed].is_quiet;
        wish->is_watch = wish->is_settled && (is_quiet || sel_draw_chance(&source->prng, 700));
        if (!wish->is_watch || !is_quiet) /* nobody wants to know of a quiet one again */
            add_due(source, i);
    }
    sel_actor_wake(&source->actor, run->world.now_us);
}

static void end_producer(struct sel_run *run, struct sel_source *source)
{
    sel_net_close(run, &source->link);
    sel_actor_cancel(&source->actor);
    source->producer = sel_producer_free(source->producer);
    source->due_count = 0;
    for (uint32_t i = 0; i < run->oracle.wish_count; i++)
        if (run->oracle.wishes[i].producer == source->index)
            run->oracle.wishes[i].is_listed = false;
}

void sel_source_crash(struct sel_run *run, struct sel_source *source)
{
    if (!source->process.is_up)
        return;
    sel_world_note(&run->world, source->process.name, "dies", 0, 0);
    end_producer(run, source);
    source->process.is_up = false;
    source->process.stopped_until_us = 0;
}

void sel_source_cancel(struct sel_run *run, struct sel_source *source, struct sel_deed *deed)
{
    if (!source->process.is_up || deed->submitted_us == 0 || deed->is_quiet)
        return;
    int r = sel_producer_cancel(source->producer, deed->id);
    sel_world_note(&run->world, source->process.name, "cancels", deed->index, (uint64_t)(int64_t)r);
    if (r == 0 && deed->cancelled_us == 0)
        deed->cancelled_us = run->world.now_us;
    sel_actor_wake(&source->actor, run->world.now_us);
}

void sel_source_audit(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->oracle.wish_count; i++) {
        struct sel_wish *wish = &run->oracle.wishes[i];
        struct sel_source *source = &run->sources[wish->producer];
        const struct sel_deed *deed = &run->oracle.deeds[wish->deed];
        if (wish->is_refused || deed->is_quiet || wish->state != SEL_WISH_OVER)
            continue;
        wish->is_watch = true;
        wish->state = SEL_WISH_NEW;
        add_due(source, i);
        sel_actor_wake(&source->actor, run->world.now_us);
    }
}

bool sel_source_is_idle(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.producer_count; i++) {
        const struct sel_source *source = &run->sources[i];
        if (!source->process.is_up || source->due_count ||
            sel_producer_unsettled(source->producer) || sel_producer_waiting(source->producer))
            return false;
    }
    return true;
}

void sel_source_init(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.producer_count; i++) {
        struct sel_source *source = &run->sources[i];
        source->run = run;
        source->index = i;
        source->prng.state = run->scenario.seed ^ (UINT64_C(0x50c3) + ((uint64_t)i << 32));
        source->process = (struct sel_process){
            .world = &run->world,
            .mono_offset_us = sel_draw_between(&source->prng, 0, 1000000000),
            .unix_offset_us =
                INT64_C(1764000000000000) + sel_draw_between(&source->prng, -2000000, 2000000),
        };
        (void)snprintf(source->process.name, sizeof(source->process.name), "p%u", i);
        source->actor = (struct sel_actor){.process = &source->process,
                                           .turn = source_turn,
                                           .p = source,
                                           .wake_us = SEL_WORLD_NEVER};
        source->link = (struct sel_link){
            .process = &source->process,
            .actor = &source->actor,
            .latency_us = sel_draw_between(&source->prng, 20, run->scenario.latency_us_max),
        };
    }
    for (uint32_t i = 0; i < run->oracle.wish_count; i++)
        sel_world_plan(&run->world, run->oracle.wishes[i].at_us, wish_due,
                       &run->sources[run->oracle.wishes[i].producer], i, 0);
}

void sel_source_done(struct sel_run *run)
{
    for (uint32_t i = 0; i < run->scenario.producer_count; i++) {
        struct sel_source *source = &run->sources[i];
        end_producer(run, source);
        source->due = sel_mem_free(source->due);
        sel_buf_done(&source->kept);
    }
}
