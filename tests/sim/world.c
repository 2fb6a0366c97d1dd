#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/hash.h"
#include "core/mem.h"

#define TURNS_MAX 30000 /* of an actor in a second */

void sel_world_init(struct sel_world *world, uint64_t seed, bool is_verbose)
{
    *world = (struct sel_world){.now_us = 1000000, .hash = seed, .is_verbose = is_verbose};
}

void sel_world_done(struct sel_world *world)
{
    world->events = sel_mem_free(world->events);
    world->event_count = world->event_cap = 0;
}

/* ---- the heap of events ---- */

static bool is_before(const struct sel_happening *a, const struct sel_happening *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void swap(struct sel_happening *a, struct sel_happening *b)
{
    struct sel_happening kept = *a;
    *a = *b;
    *b = kept;
}

static void sift_up(struct sel_happening *events, uint32_t i)
{
    while (i > 0 && is_before(&events[i], &events[(i - 1) / 2])) {
        swap(&events[i], &events[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
}

static void sift_down(struct sel_happening *events, uint32_t count)
{
    uint32_t i = 0;
    while (2 * i + 1 < count) {
        uint32_t least = 2 * i + 1;
        if (least + 1 < count && is_before(&events[least + 1], &events[least]))
            least++;
        if (!is_before(&events[least], &events[i]))
            return;
        swap(&events[i], &events[least]);
        i = least;
    }
}

void sel_world_plan(struct sel_world *world, int64_t at_us, sel_event_fn fire, void *p, uint64_t a,
                    uint64_t b)
{
    if (at_us < world->now_us)
        at_us = world->now_us;
    SEL_ASSERT(sel_mem_grow(&world->events, &world->event_cap, (uint64_t)world->event_count + 1,
                            sizeof(*world->events)));
    world->events[world->event_count] = (struct sel_happening){
        .at_us = at_us, .order = world->order++, .fire = fire, .p = p, .a = a, .b = b};
    sift_up(world->events, world->event_count++);
}

bool sel_world_step(struct sel_run *run, struct sel_world *world, int64_t until_us)
{
    if (world->is_over || world->event_count == 0 || world->events[0].at_us > until_us)
        return false;
    struct sel_happening event = world->events[0];
    world->events[0] = world->events[--world->event_count];
    sift_down(world->events, world->event_count);
    SEL_ASSERT(event.at_us >= world->now_us);
    world->now_us = event.at_us;
    world->fired++;
    event.fire(run, event.p, event.a, event.b);
    return true;
}

/* ---- the record ---- */

void sel_world_note(struct sel_world *world, const char *who, const char *what, uint64_t a,
                    uint64_t b)
{
    const uint64_t words[3] = {(uint64_t)world->now_us, a, b};
    world->hash = sel_hash_bytes(words, sizeof(words), world->hash);
    world->hash = sel_hash_bytes(what, strlen(what), world->hash);
    if (world->is_verbose)
        printf("%12.6f %-6s %s %llu %llu\n", (double)world->now_us / 1e6, who, what,
               (unsigned long long)a, (unsigned long long)b);
}

void sel_world_note_bytes(struct sel_world *world, struct sel_str bytes)
{
    world->hash = sel_hash_bytes(bytes.p, bytes.n, world->hash);
}

void sel_world_violate(struct sel_world *world, const char *promise, const char *fmt, ...)
{
    if (world->is_over)
        return;
    world->is_over = true;
    (void)snprintf(world->promise, sizeof(world->promise), "%s", promise);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(world->text, sizeof(world->text), fmt, args);
    va_end(args);
    if (world->is_verbose)
        printf("%12.6f BROKEN %s: %s\n", (double)world->now_us / 1e6, promise, world->text);
}

/* ---- processes ---- */

int64_t sel_process_mono_us(const struct sel_process *process)
{
    return process->world->now_us + process->mono_offset_us;
}

int64_t sel_process_unix_us(const struct sel_process *process)
{
    return process->world->now_us + process->unix_offset_us;
}

static void actor_fire(struct sel_run *run, void *p, uint64_t token, uint64_t b);

static void actor_plan(struct sel_actor *actor, int64_t at_us)
{
    actor->wake_us = at_us;
    sel_world_plan(actor->process->world, at_us, actor_fire, actor, ++actor->token, 0);
}

/* Who has nothing to do sleeps. */
static void count_turn(struct sel_world *world, struct sel_actor *actor)
{
    if (world->now_us - actor->second_us >= 1000000) {
        actor->second_us = world->now_us;
        actor->turns = 0;
    }
    if (++actor->turns > TURNS_MAX)
        sel_world_violate(world, "spin", "%s wanted %d turns in a second", actor->process->name,
                          TURNS_MAX);
}

static void actor_fire(struct sel_run *run, void *p, uint64_t token, uint64_t b)
{
    (void)b;
    struct sel_actor *actor = p;
    if (token != actor->token || !actor->process->is_up)
        return;
    int64_t until = actor->process->stopped_until_us;
    if (until < actor->stalled_until_us)
        until = actor->stalled_until_us;
    if (actor->process->world->now_us < until) {
        actor_plan(actor, until);
        return;
    }
    actor->wake_us = SEL_WORLD_NEVER;
    count_turn(actor->process->world, actor);
    actor->turn(run, actor->p);
}

void sel_actor_wake(struct sel_actor *actor, int64_t at_us)
{
    if (at_us < actor->process->world->now_us)
        at_us = actor->process->world->now_us;
    if (at_us < actor->wake_us)
        actor_plan(actor, at_us);
}

void sel_actor_wake_mono(struct sel_actor *actor, int64_t mono_us)
{
    if (mono_us != INT64_MAX)
        sel_actor_wake(actor, mono_us - actor->process->mono_offset_us);
}

void sel_actor_cancel(struct sel_actor *actor)
{
    actor->token++;
    actor->wake_us = SEL_WORLD_NEVER;
    actor->stalled_until_us = 0;
}
