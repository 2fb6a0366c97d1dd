#include "tests/sim/scenario.h"

#include <string.h>

#include "core/assert.h"
#include "tests/sim/world.h"

static const struct {
    const char *name, *text;
} modes[] = {
#define SEL_MODE_NAME(name, text, what) {text, what},
    SEL_MODE_LIST(SEL_MODE_NAME)
#undef SEL_MODE_NAME
};

const char *sel_mode_name(enum sel_mode mode)
{
    return modes[mode].name;
}

const char *sel_mode_text(enum sel_mode mode)
{
    return modes[mode].text;
}

int sel_mode_find(const char *name)
{
    for (int i = 0; i < SEL_MODE_COUNT; i++)
        if (strcmp(modes[i].name, name) == 0)
            return i;
    return -1;
}

/* Many at once find what meets by chance; few show what each alone must not do. */
static uint64_t draw_modes(struct sel_prng *prng)
{
    uint32_t style = (uint32_t)sel_draw_below(prng, 10);
    if (style == 0)
        return 0;
    if (style <= 2)
        return UINT64_C(1) << sel_draw_below(prng, SEL_MODE_COUNT);
    uint32_t per_mille = style <= 5 ? 150 : style <= 8 ? 300 : 600;
    uint64_t drawn = 0;
    for (uint32_t i = 0; i < SEL_MODE_COUNT; i++)
        if (sel_draw_chance(prng, per_mille))
            drawn |= UINT64_C(1) << i;
    return drawn;
}

static void draw_workers(struct sel_scenario *s, struct sel_prng *prng)
{
    uint32_t all = (1u << s->queue_count) - 1;
    for (uint32_t i = 0; i < s->worker_count; i++) {
        s->session_count[i] = 1 + (uint32_t)sel_draw_below(prng, SEL_SIM_SESSIONS);
        s->slots[i] = 1 + (uint32_t)sel_draw_below(prng, SEL_SIM_SLOTS);
        s->window[i] =
            sel_draw_chance(prng, 500) ? 0 : s->slots[i] + (uint32_t)sel_draw_below(prng, 20);
        s->serves[i] = sel_draw_chance(prng, 700) ? all : 1 + (uint32_t)sel_draw_below(prng, all);
        s->knows[i] = (1u << SEL_SIM_KINDS) - 1;
        if (sel_scenario_has(s, SEL_MODE_STRANGE) && sel_draw_chance(prng, 500))
            s->knows[i] &= (uint32_t)sel_draw_below(prng, 1u << SEL_SIM_KINDS);
        s->keeps_id[i] = sel_draw_chance(prng, 500);
    }
    s->serves[0] = all; /* somebody serves every queue */
}

static void draw_limits(struct sel_scenario *s, struct sel_prng *prng)
{
    bool is_small = sel_scenario_has(s, SEL_MODE_SMALL);
    bool is_large = sel_scenario_has(s, SEL_MODE_LARGE);
    s->record_max = is_small ? 8192 : 256 << 10;
    s->payload_max = is_large && !is_small ? 100000 : is_large ? 6000 : 200;
    s->result_max = is_large ? 4000 : 64;
    s->result_bytes_max = 16 << 20; /* nothing that may be asked for again is dropped */
    s->memory_max = is_large ? 4 << 20 : 64 << 20;
    s->payload_memory = sel_draw_chance(prng, 500) ? 1 : 64 << 10;
    s->journal_compact_min = sel_draw_chance(prng, 700) ? 4096 : 1 << 20;
    s->batch_bytes_max = is_small ? 4096 : 1 << 20;
    s->window_records = is_small ? 1 + sel_draw_below(prng, 20) : 0;
    s->window_bytes = is_small ? s->record_max : 0;
    s->outbox_bytes_max = is_small ? s->record_max : 0;
    s->peer_window_records = is_small ? 1 + sel_draw_below(prng, 20) : 0;
    s->peer_window_bytes = is_small ? s->record_max + 4096 : 0;
    s->hwm = sel_scenario_has(s, SEL_MODE_NARROW) ? 2 + (uint32_t)sel_draw_below(prng, 6) : 1000;
    s->receive_max = sel_draw_chance(prng, 300) ? 1 + (uint32_t)sel_draw_below(prng, 4) : 1000;
    s->latency_us_max = sel_draw_between(prng, 50, 5000);
    s->commit_us_max = sel_draw_chance(prng, 300) ? 200000 : 5000;
}

static void draw_times(struct sel_scenario *s, struct sel_prng *prng)
{
    s->lease_us = 1000 * sel_draw_between(prng, 300, 3000);
    s->beat_us = s->lease_us / sel_draw_between(prng, 5, 10);
    s->interval_us = 1000 * sel_draw_between(prng, 10, 200);
    s->faults_until_us = 1000 * sel_draw_between(prng, 3000, 20000);
    s->submits_until_us = s->faults_until_us / 2;
    s->run_us_max = sel_draw_chance(prng, 300)   ? 3 * s->lease_us
                    : sel_draw_chance(prng, 300) ? 1000
                                                 : s->lease_us / 4;
    s->unknown_task_us = 1000 * sel_draw_between(prng, 500, 5000);
    s->poison_max = sel_draw_chance(prng, 300) ? 1 + (uint32_t)sel_draw_below(prng, 3) : 15;
    s->quiet_us = 600 * INT64_C(1000000);
}

void sel_scenario_draw(struct sel_scenario *ret, uint64_t seed, uint64_t modes_only,
                       uint64_t modes_without)
{
    struct sel_prng prng = {seed ^ UINT64_C(0x5ce0a210)};
    struct sel_scenario *s = ret;
    *s = (struct sel_scenario){.seed = seed};
    uint64_t drawn = draw_modes(&prng);
    s->modes = (modes_only ? modes_only : drawn) & ~modes_without;
    s->is_ordered = sel_draw_chance(&prng, 60);
    if (s->is_ordered) /* whatever else changes the order by right */
        s->modes &= UINT64_C(1) << SEL_MODE_CUTS | UINT64_C(1) << SEL_MODE_LOSS |
                    UINT64_C(1) << SEL_MODE_COPIES | UINT64_C(1) << SEL_MODE_CRASH |
                    UINT64_C(1) << SEL_MODE_SPIKES | UINT64_C(1) << SEL_MODE_GARBAGE;
    s->worker_count = s->is_ordered ? 1 : 1 + (uint32_t)sel_draw_below(&prng, SEL_SIM_WORKERS);
    s->producer_count = s->is_ordered ? 1 : 1 + (uint32_t)sel_draw_below(&prng, SEL_SIM_PRODUCERS);
    s->queue_count = s->is_ordered ? 1 : 1 + (uint32_t)sel_draw_below(&prng, SEL_SIM_QUEUES);
    s->task_count = (uint32_t)sel_draw_between(&prng, 20, 300);
    s->has_journal = s->is_ordered || sel_draw_chance(&prng, 900);
    draw_workers(s, &prng);
    draw_times(s, &prng);
    draw_limits(s, &prng);
    if (s->is_ordered) {
        s->session_count[0] = s->slots[0] = s->window[0] = 1;
        s->keeps_id[0] = true; /* its death is known at once */
        s->run_us_max = s->lease_us / 8;
        s->poison_max = 15; /* the most that there is */
    }
}

void sel_scenario_draw_short(struct sel_scenario *ret, uint64_t seed)
{
    uint64_t modes_only = UINT64_C(1) << SEL_MODE_LEVELS | UINT64_C(1) << SEL_MODE_RETRIES |
                          UINT64_C(1) << SEL_MODE_TWICE | UINT64_C(1) << SEL_MODE_LATER;
    sel_scenario_draw(ret, seed, modes_only, 0);
    struct sel_prng prng = {seed ^ UINT64_C(0x5407)};
    ret->is_ordered = false;
    ret->modes = modes_only;
    ret->has_journal = true;
    ret->task_count = (uint32_t)sel_draw_between(&prng, 4, 30);
    ret->worker_count = ret->worker_count > 2 ? 2 : ret->worker_count;
    ret->faults_until_us = 1500000;
    ret->submits_until_us = 1000000;
    ret->lease_us = 400000;
    ret->beat_us = 60000;
    ret->run_us_max = 50000;
    ret->poison_max = 15; /* the most that there is */
    ret->journal_compact_min = sel_draw_chance(&prng, 800) ? 1024 : 1 << 20;
}

void sel_scenario_add_flows(struct sel_scenario *s)
{
    struct sel_prng prng = {s->seed ^ UINT64_C(0xf10e5)};
    s->has_flows = true;
    s->is_ordered = false;
    s->modes &= ~(UINT64_C(1) << SEL_MODE_STRANGE);
    for (uint32_t i = 0; i < s->worker_count; i++) {
        s->knows[i] = (1u << SEL_SIM_KINDS) - 1;
        s->flows[i] = sel_draw_chance(&prng, 700) ? 1 + (uint32_t)sel_draw_below(&prng, 30) : 0;
    }
    if (s->flows[0] == 0) /* it serves every queue */
        s->flows[0] = 1000;
    s->poison_max = 15; /* the most that there is */
    s->task_count = (uint32_t)sel_draw_between(&prng, 2, 40);
    s->flow_per_mille = sel_draw_chance(&prng, 500) ? 1000 : 500;
    s->decide_budget = sel_draw_chance(&prng, 500) ? 1 + (uint32_t)sel_draw_below(&prng, 8) : 0;
    s->state_decisions = sel_draw_chance(&prng, 700) ? 1 + (uint32_t)sel_draw_below(&prng, 20) : 0;
    if (s->run_us_max > s->lease_us)
        s->run_us_max = s->lease_us;
}
