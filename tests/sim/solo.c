#include "tests/sim/solo.h"

#include <string.h>

#include "core/mem.h"

#define BUDGET 100000
#define STEPS_MAX 20000
#define UNIX_MS INT64_C(1700000000000)

/* A flow, or a sub-flow. */
struct troupe {
    struct troupe *next; /* all */
    struct solo *solo;
    const struct sel_flow_def *def;
    struct sel_state state;
    struct sel_decider *decider;
    struct sel_decide_sink sink;
    struct sel_forebears own; /* parents that were handed to it */
    struct troupe *parent;
    uint32_t parent_ordinal, parent_attempt;
    bool is_detached, has_ended;
};

enum chore_kind { CHORE_START, CHORE_END };

/* A flow that begins, or a run that has ended. */
struct chore {
    enum chore_kind kind;
    struct troupe *flow;
    uint32_t ordinal, attempt;
    bool has_failed;
};

struct solo {
    const struct sel_plot *plot;
    struct sel_solo_report *report;
    enum sel_solo_order order;
    struct sel_prng prng;
    struct sel_plan_cache *plans;
    struct sel_id_source ids;
    struct troupe *flows, *top;
    struct chore *chores;
    uint32_t head, count, cap;
    uint32_t runs, steps;
    bool is_endless;
};

static void push(struct solo *solo, const struct chore *chore)
{
    SEL_ASSERT(
        sel_mem_grow(&solo->chores, &solo->cap, (uint64_t)solo->count + 1, sizeof(*solo->chores)));
    solo->chores[solo->count++] = *chore;
}

static bool take(struct solo *solo, struct chore *ret)
{
    if (solo->head == solo->count)
        return false;
    uint32_t i = solo->head;
    if (solo->order == SEL_SOLO_LAST)
        i = solo->count - 1;
    else if (solo->order == SEL_SOLO_ANY)
        i += (uint32_t)sel_prng_below(&solo->prng, solo->count - solo->head);
    *ret = solo->chores[i];
    if (solo->order == SEL_SOLO_FIRST)
        solo->head++;
    else
        solo->chores[i] = solo->chores[--solo->count];
    return true;
}

/* ---- starts ---- */

/* The tasks among those whose end starts it; what a sub-flow ran is not looked at. */
static struct sel_forebears lineage_of(const struct troupe *flow,
                                       const struct sel_combination *from)
{
    const struct sel_system *system = flow->solo->plot->system;
    struct sel_forebears lineage = {0};
    if (from->edge == SEL_NONE)
        return lineage;
    if (from->count == 0)
        return flow->own;
    for (uint32_t i = 0; i < from->count; i++) {
        char text[SEL_RUN_ID_TEXT_SIZE];
        uint32_t node = flow->def->nodes[sel_state_run_slot(&flow->state, from->runs[i])].node;
        if (sel_system_is_flow(system, node))
            continue;
        uint32_t part = sel_cast_find(&flow->solo->report->cast,
                                      sel_state_run_id(&flow->state, from->runs[i], text));
        SEL_ASSERT(part != SEL_NONE);
        sel_forebears_add(&lineage, sel_system_node_name(system, node),
                          &flow->solo->report->cast.parts[part]);
    }
    return lineage;
}

static void start_task(struct troupe *flow, const struct sel_start *start)
{
    struct solo *solo = flow->solo;
    struct sel_forebears lineage = lineage_of(flow, start->combination);
    struct sel_part part;
    char text[SEL_RUN_ID_TEXT_SIZE];
    sel_part_make(&part, solo->plot->system, start->node, flow->state.attempt,
                  sel_state_args(&flow->state), &lineage);
    sel_cast_add(&solo->report->cast, sel_state_run_id(&flow->state, start->ordinal, text), &part);
    solo->report->starts += part.ident;
    if (!start->nowait)
        push(solo, &(struct chore){.kind = CHORE_END,
                                   .flow = flow,
                                   .ordinal = start->ordinal,
                                   .attempt = flow->state.attempt,
                                   .has_failed = sel_part_fails(solo->plot, &part)});
}

static struct troupe *new_flow(struct solo *solo, const struct sel_flow_def *def, struct sel_id id,
                               struct sel_str args);

static int on_start(void *ctx, const struct sel_start *start)
{
    struct troupe *flow = ctx;
    struct solo *solo = flow->solo;
    if (++solo->runs > SEL_SOLO_RUNS_MAX)
        solo->is_endless = true;
    if (!sel_system_is_flow(solo->plot->system, start->node)) {
        start_task(flow, start);
        return 0;
    }
    struct troupe *child = new_flow(solo, sel_system_flow(solo->plot->system, start->node),
                                    start->child_id, start->args);
    child->parent = flow;
    child->parent_ordinal = start->ordinal;
    child->parent_attempt = flow->state.attempt;
    child->is_detached = start->nowait;
    if (start->has_parents)
        child->own = lineage_of(flow, start->combination);
    return 0;
}

static void on_end(void *ctx, enum sel_decide_result result)
{
    struct troupe *flow = ctx;
    struct solo *solo = flow->solo;
    struct sel_arena arena = {0};
    struct sel_value state;
    if (flow != solo->top || result == SEL_DECIDE_RETRY)
        return;
    int r = sel_state_to_value(&arena, solo->plot->system, flow->def, &flow->state, &state);
    SEL_ASSERT(r == 0);
    sel_plot_count(&state, &solo->report->counts);
    sel_arena_done(&arena);
}

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_note *note)
{
    struct troupe *flow = ctx;
    (void)note;
    flow->solo->report->is_eager |= event == SEL_TRACE_EAGER_FAILURE;
}

static struct troupe *new_flow(struct solo *solo, const struct sel_flow_def *def, struct sel_id id,
                               struct sel_str args)
{
    struct troupe *flow = SEL_NEW(struct troupe);
    SEL_ASSERT(flow);
    flow->next = solo->flows;
    solo->flows = flow;
    flow->solo = solo;
    flow->def = def;
    flow->sink = (struct sel_decide_sink){flow, on_start, on_end, on_trace};
    const struct sel_decider_options options = {.system = solo->plot->system,
                                                .flow = def,
                                                .world = &solo->plot->world,
                                                .plans = solo->plans,
                                                .ids = &solo->ids,
                                                .sink = &flow->sink};
    flow->decider = sel_decider_new(&options);
    SEL_ASSERT(flow->decider);
    int r = sel_state_init(&flow->state, id, def->node_count, def->edge_count, args);
    SEL_ASSERT(r == 0);
    push(solo, &(struct chore){.kind = CHORE_START, .flow = flow});
    return flow;
}

/* ---- decisions ---- */

static int answer(struct troupe *flow)
{
    uint32_t count;
    int r = 0;
    struct sel_need *needs = sel_decider_needs(flow->decider, &count);
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = sel_plot_answer(flow->solo->plot, &flow->solo->report->cast, flow->def, &flow->state,
                            sel_decider_arena(flow->decider), &needs[i]);
    return r;
}

static void conclude(struct troupe *flow, int result)
{
    struct solo *solo = flow->solo;
    if (result == SEL_DECIDE_WAIT)
        return;
    if (result == SEL_DECIDE_RETRY) {
        push(solo, &(struct chore){.kind = CHORE_START, .flow = flow});
        return;
    }
    flow->has_ended = true;
    if (flow == solo->top)
        solo->report->has_failed = result != SEL_DECIDE_END;
    if (flow->parent && !flow->is_detached)
        push(solo, &(struct chore){.kind = CHORE_END,
                                   .flow = flow->parent,
                                   .ordinal = flow->parent_ordinal,
                                   .attempt = flow->parent_attempt,
                                   .has_failed = result != SEL_DECIDE_END});
}

static void decide(struct troupe *flow, const struct sel_input *input)
{
    struct solo *solo = flow->solo;
    struct sel_error err = {0};
    int r = SEL_DECIDE_MORE;
    while (!solo->is_endless && (r == SEL_DECIDE_MORE || r == SEL_DECIDE_NEED)) {
        r = sel_decide(flow->decider, &flow->state, input, UNIX_MS, BUDGET, &err);
        input = NULL;
        if (r == SEL_DECIDE_NEED && answer(flow) < 0)
            r = SEL_EFAILED;
        if (r == SEL_EFAILED)
            r = sel_decide_abort(flow->decider, &flow->state);
        SEL_ASSERT(r > 0);
        sel_buf_clear(sel_decider_record(flow->decider));
        if (++solo->steps > STEPS_MAX)
            solo->is_endless = true;
    }
    if (!solo->is_endless)
        conclude(flow, r);
}

static void work(const struct chore *chore)
{
    struct troupe *flow = chore->flow;
    struct sel_input input = {.type = SEL_INPUT_START, .ordinal = chore->ordinal};
    if (chore->kind == CHORE_END) {
        if (flow->has_ended || flow->state.attempt != chore->attempt)
            return;
        input.type = chore->has_failed ? SEL_INPUT_FAILED : SEL_INPUT_DONE;
    }
    decide(flow, &input);
}

/* ---- all ---- */

static void end(struct solo *solo)
{
    while (solo->flows) {
        struct troupe *flow = solo->flows;
        SEL_ASSERT(flow->has_ended || solo->is_endless);
        solo->flows = flow->next;
        flow->decider = sel_decider_free(flow->decider);
        sel_state_done(&flow->state);
        sel_mem_free(flow);
    }
    solo->chores = sel_mem_free(solo->chores);
    solo->plans = sel_plan_cache_free(solo->plans);
}

bool sel_solo_run(const struct sel_plot *plot, const struct sel_flow_def *flow, struct sel_str args,
                  enum sel_solo_order order, uint64_t seed, struct sel_solo_report *ret)
{
    struct solo solo = {.plot = plot, .report = ret, .order = order, .prng = {seed}};
    struct chore chore;
    memset(ret, 0, sizeof(*ret));
    solo.plans = sel_plan_cache_new(plot->system);
    SEL_ASSERT(solo.plans);
    solo.top = new_flow(&solo, flow, sel_id_next(&solo.ids, UNIX_MS), args);
    while (!solo.is_endless && take(&solo, &chore))
        work(&chore);
    SEL_ASSERT(sel_buf_error(&ret->counts) == 0);
    end(&solo);
    return !solo.is_endless;
}

void sel_solo_report_done(struct sel_solo_report *report)
{
    sel_buf_done(&report->counts);
    sel_cast_done(&report->cast);
}
