/* What is to be done in a run: the tasks of a scenario, and who wants to know their results. */
#include "core/mem.h"
#include "tests/sim/oracle.h"
#include "tests/sim/run.h"

static void draw_end(struct sel_run *run, struct sel_prng *prng, struct sel_deed *deed)
{
    const struct sel_scenario *s = &run->scenario;
    deed->run_us = sel_draw_wait(prng, s->run_us_max);
    deed->outcome = SEL_OUTCOME_SUCCESS;
    if (!sel_scenario_has(s, SEL_MODE_RETRIES))
        return;
    if (sel_draw_chance(prng, 300))
        deed->retries = (uint32_t)sel_draw_below(prng, 4);
    if (sel_draw_chance(prng, 200))
        deed->outcome = sel_draw_chance(prng, 500) ? SEL_OUTCOME_FAILURE : SEL_OUTCOME_FATAL;
    deed->retry_countdown_us =
        sel_draw_chance(prng, 300) ? 0 : sel_draw_between(prng, 1000, 2000000);
}

static uint8_t draw_level(const struct sel_scenario *s, struct sel_prng *prng)
{
    if (!s->has_journal && !sel_draw_chance(prng, 20))
        return SEL_LEVEL_MEMORY;
    if (!sel_scenario_has(s, SEL_MODE_LEVELS))
        return SEL_LEVEL_COMMIT;
    return (uint8_t)(SEL_LEVEL_MEMORY + sel_draw_below(prng, 3));
}

static void draw_deed(struct sel_run *run, struct sel_prng *prng, struct sel_deed *deed)
{
    const struct sel_scenario *s = &run->scenario;
    deed->kind = (uint8_t)sel_draw_below(prng, SEL_SIM_KINDS);
    deed->queue = (uint8_t)sel_draw_below(prng, s->queue_count);
    deed->priority =
        sel_draw_chance(prng, 500) ? SEL_WIRE_PRIORITY : (uint8_t)sel_draw_below(prng, 256);
    deed->level = draw_level(s, prng);
    deed->says_default = deed->level == (s->has_journal ? SEL_LEVEL_COMMIT : SEL_LEVEL_MEMORY) &&
                         sel_draw_chance(prng, 300);
    deed->payload_size = (uint32_t)sel_draw_wait(prng, s->payload_max);
    if (sel_scenario_has(s, SEL_MODE_LATER) && sel_draw_chance(prng, 300)) {
        deed->countdown_us = sel_draw_wait(prng, s->faults_until_us);
        if (sel_draw_chance(prng, 300)) {
            deed->later_us = deed->countdown_us;
            deed->countdown_us = 0;
        }
    }
    draw_end(run, prng, deed);
    if (s->has_flows && sel_draw_chance(prng, s->flow_per_mille))
        deed->flow = 1 + (uint32_t)sel_draw_below(prng, 1000);
}

/* A task with a key may stand for an earlier one with that key, or be in conflict with it. */
static void draw_key(struct sel_run *run, struct sel_prng *prng, struct sel_deed *deed)
{
    struct sel_oracle *oracle = &run->oracle;
    if (!sel_scenario_has(&run->scenario, SEL_MODE_TWICE) || !sel_draw_chance(prng, 200))
        return;
    const struct sel_deed *first = &oracle->deeds[sel_draw_below(prng, deed->index + 1)];
    if (!first->key) {
        deed->key = deed->index + 1;
        deed->later_us = 0;
        return;
    }
    uint32_t index = deed->index;
    struct sel_id id = deed->id;
    bool is_same = sel_draw_chance(prng, 700);
    *deed = *first; /* it has been planned, nothing has happened to it */
    deed->id = id;
    deed->index = index;
    if (!is_same)
        deed->body = index;
}

static void add_wish(struct sel_run *run, struct sel_prng *prng, uint32_t deed, uint32_t producer,
                     int64_t at_us)
{
    struct sel_oracle *oracle = &run->oracle;
    (void)prng;
    SEL_ASSERT(sel_mem_grow(&oracle->wishes, &oracle->wish_cap, (uint64_t)oracle->wish_count + 1,
                            sizeof(*oracle->wishes)));
    oracle->wishes[oracle->wish_count++] =
        (struct sel_wish){.deed = deed, .producer = producer, .at_us = at_us};
}

static void plan_wishes(struct sel_run *run, struct sel_prng *prng)
{
    const struct sel_scenario *s = &run->scenario;
    int64_t burst_us = 0, start_us = run->world.now_us;
    for (uint32_t i = 0; i < s->task_count; i++) {
        if (i == 0 || sel_draw_chance(prng, 60))
            burst_us = sel_draw_between(prng, 1000, s->submits_until_us);
        int64_t at_us = start_us + burst_us + sel_draw_wait(prng, 20000);
        uint32_t producer = (uint32_t)sel_draw_below(prng, s->producer_count);
        add_wish(run, prng, i, producer, at_us);
        if (sel_scenario_has(s, SEL_MODE_TWICE) && s->producer_count > 1 &&
            !run->oracle.deeds[i].is_quiet && !run->oracle.deeds[i].later_us &&
            sel_draw_chance(prng, 150))
            add_wish(run, prng, i, (producer + 1) % s->producer_count,
                     at_us + sel_draw_wait(prng, 3000000));
    }
}

void sel_oracle_init(struct sel_run *run)
{
    struct sel_oracle *oracle = &run->oracle;
    const struct sel_scenario *s = &run->scenario;
    struct sel_prng prng = {s->seed ^ UINT64_C(0xdeed)};
    for (uint32_t i = 0; i < s->task_count; i++) {
        struct sel_deed *deed = &oracle->deeds[i];
        deed->index = deed->body = i;
        deed->id.hi = UINT64_C(0x0198f3c200007000) + ((uint64_t)i << 16);
        if (s->seed & 1)
            deed->id.hi = (sel_prng_next(&prng) & ~UINT64_C(0xf000)) | 0x4000;
        deed->id.lo = (UINT64_C(1) << 63) | (sel_prng_next(&prng) >> 34 << 32) | i;
        draw_deed(run, &prng, deed);
        draw_key(run, &prng, deed);
        deed->is_quiet = !deed->key && sel_draw_chance(&prng, 60);
    }
    oracle->deed_count = s->task_count;
    plan_wishes(run, &prng);
}

void sel_oracle_done(struct sel_run *run)
{
    struct sel_oracle *oracle = &run->oracle;
    oracle->wishes = sel_mem_free(oracle->wishes);
    oracle->runs = sel_mem_free(oracle->runs);
    sel_buf_done(&oracle->scratch);
}

struct sel_deed *sel_oracle_deed(struct sel_run *run, struct sel_id id)
{
    uint32_t index = (uint32_t)id.lo;
    if (index >= run->oracle.deed_count)
        return NULL;
    struct sel_deed *deed = &run->oracle.deeds[index];
    return sel_id_eq(deed->id, id) ? deed : NULL;
}

/* A msgpack bin of `size` bytes that nobody else's looks like. */
static void put_bytes(struct sel_buf *buf, uint32_t size, uint32_t seed)
{
    sel_buf_put_u8(buf, 0xc6);
    for (int shift = 24; shift >= 0; shift -= 8)
        sel_buf_put_u8(buf, (uint8_t)(size >> shift));
    SEL_ASSERT(sel_buf_reserve(buf, size));
    for (uint32_t i = 0; i < size; i++)
        buf->p[buf->n + i] = (uint8_t)(seed * 31 + i * 7 + (seed >> (i & 15)));
    buf->n += size;
}

/* The arguments of a flow: its conditions look at `n`. */
static void put_args(struct sel_buf *buf, const struct sel_deed *deed)
{
    sel_buf_put_u8(buf, 0x82);
    sel_buf_put_c(buf, "\xa1n");
    sel_buf_put_u8(buf, (uint8_t)(deed->body % 7));
    sel_buf_put_c(buf, "\xa1x");
    put_bytes(buf, deed->payload_size + 4, deed->body + 1);
}

void sel_oracle_payload(const struct sel_deed *deed, struct sel_buf *buf)
{
    sel_buf_clear(buf);
    if (deed->flow) {
        put_args(buf, deed);
        return;
    }
    put_bytes(buf, deed->payload_size + 4, deed->body + 1);
}

void sel_oracle_result(const struct sel_deed *deed, uint32_t run_index, uint32_t size,
                       struct sel_buf *buf)
{
    sel_buf_clear(buf);
    sel_buf_put_u8(buf, 0x93);
    for (int part = 0; part < 2; part++) {
        uint32_t number = part == 0 ? run_index : deed->index;
        sel_buf_put_u8(buf, 0xce);
        for (int shift = 24; shift >= 0; shift -= 8)
            sel_buf_put_u8(buf, (uint8_t)(number >> shift));
    }
    put_bytes(buf, size, run_index);
}
