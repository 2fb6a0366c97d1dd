#include "tests/sim/stage.h"

#include <stdio.h>

#include "core/hash.h"
#include "core/mem.h"
#include "proto/le.h"
#include "tests/sim/residue.h"
#include "tests/sim/run.h"
#include "tests/sim/solo.h"
#include "worker/dispatcher.h"
#include "worker/flow_codec.h"

#define BROKEN(run, promise, ...) sel_world_violate(&(run)->world, (promise), __VA_ARGS__)

/* ---- acts ---- */

static void keep_act(struct sel_stage *stage, struct sel_act *act, const struct sel_flow_def *flow,
                     const struct sel_solo_report *solo)
{
    uint32_t count = solo->cast.count;
    act->flow = flow;
    act->has_failed = solo->has_failed;
    act->is_eager = solo->is_eager;
    act->counts = sel_arena_strdup(&stage->arena, sel_buf_str(&solo->counts));
    act->runs = SEL_ARENA_NEW_ARRAY(&stage->arena, uint64_t, count + 1);
    act->begun = SEL_ARENA_NEW_ARRAY(&stage->arena, bool, count + 1);
    SEL_ASSERT(act->counts && act->runs && act->begun);
    act->run_count = count;
    for (uint32_t i = 0; i < count; i++)
        act->runs[i] = solo->cast.parts[i].ident;
}

/* The same in another order. false: there it has no end that could be waited for. */
static bool check_solo(struct sel_run *run, const struct sel_flow_def *flow, struct sel_str args,
                       struct sel_solo_report *expected, enum sel_solo_order order)
{
    struct sel_solo_report solo;
    bool ends = sel_solo_run(&run->stage.plot, flow, args, order, run->scenario.seed, &solo);
    bool is_same = solo.has_failed == expected->has_failed;
    if (!solo.is_eager && !expected->is_eager)
        is_same &= solo.starts == expected->starts && solo.cast.count == expected->cast.count &&
                   sel_str_eq(sel_buf_str(&solo.counts), sel_buf_str(&expected->counts));
    if (ends && !is_same)
        BROKEN(run, "order", "%.*s ends in two ways: %s, %u runs, %s; %s, %u runs, %s",
               SEL_STR_ARG(flow->name), expected->has_failed ? "failed" : "succeeded",
               expected->cast.count, sel_buf_cstr(&expected->counts),
               solo.has_failed ? "failed" : "succeeded", solo.cast.count,
               sel_buf_cstr(&solo.counts));
    sel_solo_report_done(&solo);
    return ends;
}

/* false: it has no end that could be waited for. */
static bool solve(struct sel_run *run, const struct sel_deed *deed, const struct sel_flow_def *flow)
{
    struct sel_stage *stage = &run->stage;
    struct sel_solo_report solo;
    sel_oracle_payload(deed, &run->oracle.scratch);
    struct sel_str args = sel_buf_str(&run->oracle.scratch);
    bool ends = sel_solo_run(&stage->plot, flow, args, SEL_SOLO_FIRST, run->scenario.seed, &solo);
    ends = ends && check_solo(run, flow, args, &solo, SEL_SOLO_LAST) &&
           check_solo(run, flow, args, &solo, SEL_SOLO_ANY);
    if (ends)
        keep_act(stage, &stage->acts[deed->index], flow, &solo);
    sel_solo_report_done(&solo);
    return ends;
}

static void cast_deed(struct sel_run *run, struct sel_deed *deed)
{
    struct sel_stage *stage = &run->stage;
    const struct sel_system *system = stage->plot.system;
    if (!deed->flow)
        return;
    if (deed->body != deed->index) { /* it stands for another one */
        deed->flow = run->oracle.deeds[deed->body].flow;
        stage->acts[deed->index] = stage->acts[deed->body];
        return;
    }
    for (uint32_t i = 0; i < system->flow_count; i++)
        if (solve(run, deed, &system->flows[(deed->flow + i) % system->flow_count]))
            return;
    deed->flow = 0;
}

void sel_stage_init(struct sel_run *run)
{
    const struct sel_scenario *s = &run->scenario;
    if (!s->has_flows)
        return;
    struct sel_prng prng = {s->seed ^ UINT64_C(0x57a6e)};
    const struct sel_plot_options options = {
        .queue_count = s->queue_count,
        .has_failures = sel_draw_chance(&prng, 700),
        .has_retries = sel_scenario_has(s, SEL_MODE_RETRIES),
        .has_waits = sel_scenario_has(s, SEL_MODE_LATER),
    };
    sel_plot_draw(&run->stage.plot, &prng, &options);
    if (run->world.is_verbose)
        printf("%s%s", sel_buf_cstr(&run->stage.plot.nodes), sel_buf_cstr(&run->stage.plot.flows));
    for (uint32_t i = 0; i < run->oracle.deed_count; i++)
        cast_deed(run, &run->oracle.deeds[i]);
}

void sel_stage_done(struct sel_run *run)
{
    struct sel_stage *stage = &run->stage;
    if (run->scenario.has_flows)
        sel_plot_done(&stage->plot);
    sel_cast_done(&stage->cast);
    sel_map_done(&stage->flows);
    sel_arena_done(&stage->arena);
}

/* ---- dispatchers ---- */

static int64_t now_us(void *ctx)
{
    return sel_process_mono_us(&((struct sel_member *)ctx)->worker->process);
}

static int64_t unix_ms(void *ctx)
{
    return sel_process_unix_us(&((struct sel_member *)ctx)->worker->process) / 1000;
}

static int answer(void *ctx, const struct sel_dispatcher_question *question, struct sel_error *err)
{
    struct sel_member *member = ctx;
    struct sel_run *run = member->run;
    for (uint32_t i = 0; i < question->need_count; i++) {
        struct sel_need *need = &question->needs[i];
        int r = sel_plot_answer(&run->stage.plot, &run->stage.cast, question->flow, question->state,
                                question->arena, need);
        if (r == 0 && run->options.cheat == SEL_CHEAT_WHIM && need->kind == SEL_NEED_FOREACH)
            r = sel_plot_numbers(question->arena, 2, &need->value);
        if (r == 0)
            continue;
        BROKEN(run, "invented", "%.*s asks for what is not there: need %d of run %u",
               SEL_STR_ARG(question->flow->name), (int)need->kind, need->ordinal);
        return sel_error_set(err, r, (struct sel_pos){0}, "it is not there");
    }
    return 0;
}

static const struct sel_dispatcher_ops dispatcher_ops = {
    .now_us = now_us, .unix_ms = unix_ms, .answer = answer};

void sel_stage_open(struct sel_run *run, struct sel_member *member)
{
    const struct sel_scenario *s = &run->scenario;
    struct sel_worker *worker = member->worker;
    if (!s->has_flows || s->flows[worker->index] == 0)
        return;
    const struct sel_dispatcher_options options = {
        .engine = run->stage.plot.engine,
        .holder = member->holder,
        .seed = sel_prng_next(&worker->prng),
        .budget = s->decide_budget,
        .state_decisions = s->state_decisions,
        .ops = &dispatcher_ops,
        .ctx = member,
    };
    int r = sel_dispatcher_new(&options, &member->dispatcher);
    SEL_ASSERT(r == 0);
}

void sel_stage_close(struct sel_member *member)
{
    member->dispatcher = sel_dispatcher_free(member->dispatcher);
}

/* Which deed a flow is of: of a sub-flow that of its root. */
static void note_flow(struct sel_run *run, const struct sel_wire_item *item)
{
    struct sel_stage *stage = &run->stage;
    struct sel_str root = sel_wire_find_field(item->fields, SEL_FIELD_ROOT);
    struct sel_deed *deed = sel_oracle_deed(run, root.n == 16 ? sel_le_get_id(root.p) : item->id);
    char *key = sel_arena_alloc(&stage->arena, 16);
    SEL_ASSERT(key);
    if (!deed) {
        BROKEN(run, "invented", "a flow %.*s that nobody wanted", SEL_STR_ARG(item->task));
        return;
    }
    deed->runs++;
    sel_le_put_id(key, item->id);
    int r = sel_map_add(&stage->flows, (struct sel_str){key, 16}, deed->index, NULL);
    SEL_ASSERT(r >= 0);
}

void sel_stage_take(void *ctx, const struct sel_wire_item *item)
{
    struct sel_member *member = ctx;
    if (item->type == SEL_RECORD_TASK)
        note_flow(member->run, item);
    if (item->type == SEL_RECORD_TASK && !member->dispatcher)
        BROKEN(member->run, "window", "%s.%u decides no flows and is given one",
               member->worker->process.name, member->index);
    if (member->dispatcher)
        sel_dispatcher_take(member->dispatcher, item);
}

void sel_stage_lost(void *ctx)
{
    struct sel_member *member = ctx;
    if (member->dispatcher)
        sel_dispatcher_lost(member->dispatcher);
}

bool sel_stage_turn(struct sel_run *run, struct sel_member *member)
{
    (void)run;
    return member->dispatcher && sel_dispatcher_turn(member->dispatcher);
}

/* ---- runs of tasks ---- */

/* The deed of a flow; NULL: nobody knows the flow. */
static const struct sel_deed *deed_of(struct sel_run *run, struct sel_id flow)
{
    char key[16];
    uint32_t deed;
    sel_le_put_id(key, flow);
    if (!sel_map_get(&run->stage.flows, (struct sel_str){key, 16}, &deed))
        return NULL;
    return &run->oracle.deeds[deed];
}

/* Who started it, as the run is told. */
static bool read_parents(struct sel_run *run, struct sel_str bytes, struct sel_forebears *ret)
{
    const struct sel_system *system = run->stage.plot.system;
    struct sel_parents *parents = NULL;
    struct sel_error err = {0};
    if (sel_flow_take_parents(system, bytes, &parents, &err) < 0) {
        BROKEN(run, "mixed-up", "the parents of a run cannot be read: %s", err.text);
        return false;
    }
    bool is_known = true;
    for (uint32_t i = 0; parents && i < parents->count; i++) {
        const struct sel_parent *parent = &parents->parents[i];
        if (!parent->id)
            continue; /* a sub-flow */
        uint32_t part = sel_cast_find(&run->stage.cast, sel_str_c(parent->id));
        is_known &= part != SEL_NONE;
        if (part != SEL_NONE)
            sel_forebears_add(ret, parent->name, &run->stage.cast.parts[part]);
        else
            BROKEN(run, "invented", "a run has a parent %s that never ran", parent->id);
    }
    sel_parents_unref(parents);
    return is_known;
}

/* A run that nobody has begun before: the engine alone starts one like it. */
static void check_start(struct sel_run *run, const struct sel_part *part, const char *id)
{
    const struct sel_deed *deed = &run->oracle.deeds[part->deed];
    struct sel_act *act = &run->stage.acts[deed->body];
    uint32_t alike = 0;
    for (uint32_t i = 0; i < act->run_count; i++) {
        if (act->runs[i] != part->ident)
            continue;
        alike++;
        if (!act->begun[i]) {
            act->begun[i] = true;
            act->begun_count++;
            return;
        }
    }
    if (!act->is_eager && !sel_oracle_is_forgiven(run, deed, 0))
        BROKEN(run, "starts",
               "flow #%u (%.*s, level %u) starts T%u at depth %u as %s; alone it "
               "starts %u like it",
               deed->index, SEL_STR_ARG(act->flow->name), deed->level, part->task, part->depth, id,
               alike);
}

static uint32_t note_part(struct sel_run *run, const struct sel_part *part, const char *id)
{
    struct sel_cast *cast = &run->stage.cast;
    const struct sel_deed *deed = &run->oracle.deeds[part->deed];
    uint32_t index = sel_cast_find(cast, sel_str_c(id));
    if (index == SEL_NONE) {
        check_start(run, part, id);
        return sel_cast_add(cast, sel_str_c(id), part);
    }
    if (cast->parts[index].ident == part->ident)
        return index;
    if (!sel_oracle_is_forgiven(run, deed, 0))
        BROKEN(run, "mixed-up", "run %s of flow #%u was T%u and is T%u, or has other parents", id,
               deed->index, cast->parts[index].task, part->task);
    cast->parts[index] = *part;
    return index;
}

uint32_t sel_stage_begun(struct sel_run *run, struct sel_member *member,
                         const struct sel_wire_item *item)
{
    struct sel_stage *stage = &run->stage;
    struct sel_wire_run of;
    struct sel_forebears forebears = {0};
    struct sel_part part;
    char id[SEL_RUN_ID_TEXT_SIZE];
    bool has_run = sel_wire_find_run(item->fields, &of) && of.parents_size <= item->payload.n;
    const struct sel_deed *deed = has_run ? deed_of(run, of.flow) : NULL;
    uint32_t task = sel_system_find(stage->plot.system, item->task);
    if (!deed || task >= stage->plot.system->task_count) {
        BROKEN(run, "invented", "a run of %.*s for no flow that is known", SEL_STR_ARG(item->task));
        return SEL_NONE;
    }
    struct sel_str args = {item->payload.p, item->payload.n - of.parents_size};
    struct sel_str parents = {item->payload.p + args.n, of.parents_size};
    sel_id_format_run(of.flow, of.attempt, of.ordinal, id);
    if (!read_parents(run, parents, &forebears))
        return SEL_NONE;
    sel_part_make(&part, stage->plot.system, task, of.attempt, args, &forebears);
    part.deed = deed->index;
    uint32_t index = note_part(run, &part, id), counted = 0;
    sel_world_note(&run->world, member->worker->process.name, "begins a run", index,
                   item->try_count);
    for (uint32_t k = 0; k < item->try_count; k++)
        counted += sel_part_is_counted(&part, k);
    /* Of a try that the broker had lost it learns from the worker, which does not know the count.
     */
    if (of.retries > counted || (of.retries < counted && !sel_oracle_is_forgiven(run, deed, 0)))
        BROKEN(run, "mixed-up", "run %s was retried %u times, it is told %u", id, counted,
               of.retries);
    return index;
}

struct sel_stage_end sel_stage_end_of(struct sel_run *run, uint32_t part_index, uint32_t try_count)
{
    const struct sel_part *part = &run->stage.cast.parts[part_index];
    if (run->options.cheat == SEL_CHEAT_TWIST && part_index == 5)
        return (struct sel_stage_end){.code = sel_part_fails(&run->stage.plot, part)
                                                  ? SEL_OUTCOME_SUCCESS
                                                  : SEL_OUTCOME_FAILURE};
    if (try_count < sel_part_retries(&run->stage.plot, part))
        return (struct sel_stage_end){.code = SEL_OUTCOME_RETRY,
                                      .is_uncounted = !sel_part_is_counted(part, try_count),
                                      .countdown_us = (int64_t)((part->ident >> 8) % 4) * 200000};
    if (!sel_part_fails(&run->stage.plot, part))
        return (struct sel_stage_end){.code = SEL_OUTCOME_SUCCESS};
    return (struct sel_stage_end){.code =
                                      part->ident & 1 ? SEL_OUTCOME_FAILURE : SEL_OUTCOME_FATAL};
}

int64_t sel_stage_run_us(struct sel_run *run, uint32_t part_index, uint32_t try_count)
{
    const struct sel_part *part = &run->stage.cast.parts[part_index];
    struct sel_prng prng = {part->ident + try_count};
    return sel_draw_wait(&prng, run->scenario.run_us_max);
}

/* ---- promises ---- */

static struct sel_str text_of(const struct sel_value *map, const char *key)
{
    const struct sel_value *value = sel_value_get_c(map, key);
    return sel_value_is(value, SEL_TEXT) ? sel_value_str(value) : SEL_STR("?");
}

static void check_all_begun(struct sel_run *run, const struct sel_deed *deed)
{
    const struct sel_act *act = &run->stage.acts[deed->index];
    if (!act->flow || act->is_eager || deed->body != deed->index || deed->cancelled_us ||
        (deed->has_result && deed->code == SEL_OUTCOME_CANCELLED) ||
        sel_oracle_is_forgiven(run, deed, 0))
        return;
    if (act->begun_count != act->run_count)
        BROKEN(run, "starts", "flow #%u (%.*s) has ended; of %u runs %u were begun", deed->index,
               SEL_STR_ARG(act->flow->name), act->run_count, act->begun_count);
}

/* At `interval` a loss of power takes back decisions whose runs go on at the workers: what is
 * decided instead gets their numbers, and their results. */
static bool has_lost_decisions(const struct sel_run *run, const struct sel_deed *deed)
{
    return deed->level == SEL_LEVEL_INTERVAL && run->scenario.has_journal &&
           sel_oracle_is_forgiven(run, deed, deed->submitted_us);
}

void sel_stage_check_result(struct sel_run *run, const struct sel_deed *deed,
                            const struct sel_producer_result *result)
{
    const struct sel_act *act = &run->stage.acts[deed->body];
    struct sel_arena arena = {0};
    struct sel_buf counts = {0};
    struct sel_value map = {0};
    uint32_t expected = act->has_failed ? SEL_OUTCOME_FAILURE : SEL_OUTCOME_SUCCESS;
    if (sel_value_decode(&arena, result->payload.p, result->payload.n, false, &map, NULL) < 0 ||
        !sel_value_is(&map, SEL_MAP))
        BROKEN(run, "outcome", "the result of flow #%u cannot be read", deed->index);
    sel_plot_count(&map, &counts);
    bool is_same = result->code == expected &&
                   (act->is_eager || sel_str_eq_c(sel_buf_str(&counts), act->counts));
    if (!is_same && !has_lost_decisions(run, deed))
        BROKEN(run, "outcome",
               "flow #%u (%.*s, level %u) ends with code %u (%.*s: %.*s), %s; alone with %u, %s",
               deed->index, SEL_STR_ARG(act->flow->name), deed->level, result->code,
               SEL_STR_ARG(text_of(&map, "class")), SEL_STR_ARG(text_of(&map, "message")),
               sel_buf_cstr(&counts), expected, act->counts);
    if (result->is_all) /* what was sent off has ended too */
        check_all_begun(run, deed);
    sel_buf_done(&counts);
    sel_arena_done(&arena);
}

/* Results of flows that nobody waits for stay until retention drops them; runs and what is kept for
 * them go with the attempt. */
static void check_residue(struct sel_run *run)
{
    struct sel_residue left;
    sel_residue_look(run->server.core, &left);
    if (left.open || left.runs || left.pieces)
        BROKEN(run, "residue",
               "all has ended, and the broker has %u open entries, %u runs, %u pieces", left.open,
               left.runs, left.pieces);
}

void sel_stage_check_end(struct sel_run *run)
{
    if (!run->scenario.has_flows)
        return;
    for (uint32_t i = 0; i < run->oracle.deed_count && !run->world.is_over; i++)
        if (run->oracle.deeds[i].has_result)
            check_all_begun(run, &run->oracle.deeds[i]);
    if (run->server.process.is_up)
        check_residue(run);
}
