/* tests/sim/world.h - virtual time, chance, and the record of what happened.
 *
 * One run of the simulator is a world: events in the order of their time, a clock for each process,
 * and a hash over everything that happened, so that two runs of one seed can be compared byte for
 * byte. Nothing in here knows of brokers. Single threaded. */
#ifndef SEL_TESTS_SIM_WORLD_H
#define SEL_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/prng.h"
#include "core/str.h"

struct sel_run;

/* `p` is what it is for; `a` and `b` say whether it still is. */
typedef void (*sel_event_fn)(struct sel_run *run, void *p, uint64_t a, uint64_t b);

struct sel_happening {
    int64_t at_us;
    uint64_t order; /* events of one time happen as they were planned */
    sel_event_fn fire;
    void *p;
    uint64_t a, b;
};

#define SEL_WORLD_NEVER INT64_MAX

struct sel_world {
    int64_t now_us; /* true time; no process sees it */
    struct sel_happening *events;
    uint32_t event_count, event_cap;
    uint64_t order, fired;
    uint64_t hash;
    bool is_verbose;
    bool is_over; /* a promise is broken: nothing more happens */
    char promise[24];
    char text[400];
};

/* What one machine and process have. */
struct sel_process {
    struct sel_world *world;
    char name[16];
    bool is_up;
    uint64_t life;            /* counts the starts; what was planned for an older one is void */
    int64_t stopped_until_us; /* SIGSTOP */
    int64_t mono_offset_us, unix_offset_us;
    bool is_blocked_up, is_blocked_down; /* partitions: to the broker, from it */
};

/* A thread of a process: sleeps until it is woken, never runs while it is stopped. */
struct sel_actor {
    struct sel_process *process;
    void (*turn)(struct sel_run *run, void *p);
    void *p;
    int64_t wake_us;
    uint64_t token;
    int64_t stalled_until_us; /* the thread alone is busy elsewhere */
    int64_t second_us;        /* turns are counted from there */
    uint32_t turns;
};

void sel_world_init(struct sel_world *world, uint64_t seed, bool is_verbose);
void sel_world_done(struct sel_world *world);
void sel_world_plan(struct sel_world *world, int64_t at_us, sel_event_fn fire, void *p, uint64_t a,
                    uint64_t b);
/* Lets the next event happen; false: there is none up to `until_us`, or a promise is broken. */
bool sel_world_step(struct sel_run *run, struct sel_world *world, int64_t until_us);

/* Puts something that happened into the hash, and on the screen if it is verbose. */
void sel_world_note(struct sel_world *world, const char *who, const char *what, uint64_t a,
                    uint64_t b);
void sel_world_note_bytes(struct sel_world *world, struct sel_str bytes);
/* The first one ends the run. */
void sel_world_violate(struct sel_world *world, const char *promise, const char *fmt, ...)
    SEL_PRINTF(3, 4);

int64_t sel_process_mono_us(const struct sel_process *process);
int64_t sel_process_unix_us(const struct sel_process *process);
/* Wakes it at `at_us` (true time) or before. */
void sel_actor_wake(struct sel_actor *actor, int64_t at_us);
/* Wakes it when its own monotonic clock shows `mono_us`. */
void sel_actor_wake_mono(struct sel_actor *actor, int64_t mono_us);
void sel_actor_cancel(struct sel_actor *actor);

/* ---- chance ---- */

static inline uint64_t sel_draw_below(struct sel_prng *prng, uint64_t bound)
{
    return sel_prng_below(prng, bound);
}
/* In [low, high]. */
static inline int64_t sel_draw_between(struct sel_prng *prng, int64_t low, int64_t high)
{
    return low + (int64_t)sel_prng_below(prng, (uint64_t)(high - low) + 1);
}
static inline bool sel_draw_chance(struct sel_prng *prng, uint32_t per_mille)
{
    return sel_prng_below(prng, 1000) < per_mille;
}
/* Mostly short, sometimes up to `high`: as waits are. */
static inline int64_t sel_draw_wait(struct sel_prng *prng, int64_t high)
{
    int64_t part = high >> sel_prng_below(prng, 8);
    return sel_draw_between(prng, 0, part > 0 ? part : 1);
}

#endif
