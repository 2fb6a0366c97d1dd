#include "tests/support/flow_sim.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/mem.h"
#include "core/prng.h"
#include "storage/schema.h"
#include "worker/mock.h"

#define BUDGET_LARGE 100000
#define STEPS_MAX 20000000 /* a flow that goes on longer never ends */
#define UNIX_MS INT64_C(1700000000000)

struct sim_flow {
    struct sim_flow *next; /* all of the simulation */
    struct sim *sim;
    const struct sel_flow_def *def;
    const struct sel_plan *plan;
    struct sel_state state, replica;
    struct sel_decider *decider;
    struct sel_decide_sink sink;
    struct sim_flow *parent;
    uint32_t parent_ordinal, parent_attempt;
    bool detached, ended;
    uint32_t inputs; /* looked at so far */
};

enum work_kind { WORK_FLOW, WORK_TASK, WORK_DONE };

struct work {
    enum work_kind kind;
    struct sim_flow *flow;
    uint32_t node, ordinal, attempt; /* TASK, DONE */
    uint32_t retried;                /* TASK */
    bool nowait, failed;
};

struct sim {
    const struct sel_sim_options *options;
    struct sel_sim_report *report;
    const struct sel_system *system;
    struct sel_mock *mock;
    struct sel_schema **schemas; /* by task */
    struct sel_plan_cache *plans;
    struct sel_id_source ids;
    struct sel_prng prng;
    struct sim_flow *flows, *top;
    struct work *pool;
    uint32_t head, count, cap;
    struct sel_map result_index; /* id -> position in results */
    struct sel_str *results;     /* encoded */
    uint32_t result_count, result_cap;
    struct sel_buf bytes[3]; /* encoded states, kept for the next */
    bool failed;
};

/* The first problem is kept; the simulation stops with it. */
static void SEL_PRINTF(2, 3) problem(struct sim *sim, const char *fmt, ...)
{
    va_list args;
    if (sim->failed)
        return;
    sim->failed = true;
    va_start(args, fmt);
    (void)vsnprintf(sim->report->problem, sizeof(sim->report->problem), fmt, args);
    va_end(args);
}

static void check(struct sim *sim, int r, const char *what)
{
    if (r < 0)
        problem(sim, "%s: %s", what, sel_error_name(r));
}

/* ---- the pool ---- */

static void push_work(struct sim *sim, const struct work *work)
{
    if (!sel_mem_grow(&sim->pool, &sim->cap, (uint64_t)sim->count + 1, sizeof(*sim->pool))) {
        problem(sim, "no memory for work");
        return;
    }
    sim->pool[sim->count++] = *work;
}

static bool take_work(struct sim *sim, struct work *ret)
{
    if (sim->head == sim->count)
        return false;
    if (sim->options->order == SEL_SIM_FIFO) {
        *ret = sim->pool[sim->head++];
    } else {
        uint32_t i = sim->count - 1;
        if (sim->options->order == SEL_SIM_RANDOM)
            i = (uint32_t)sel_prng_below(&sim->prng, sim->count);
        *ret = sim->pool[i];
        sim->pool[i] = sim->pool[--sim->count];
    }
    if (sim->head == sim->count)
        sim->head = sim->count = 0;
    return true;
}

/* ---- results ---- */

static void keep_result(struct sim *sim, struct sel_str id, struct sel_str bytes)
{
    char *key = sel_arena_strdup(&sim->report->arena, id);
    if (!key || !sel_mem_grow(&sim->results, &sim->result_cap, (uint64_t)sim->result_count + 1,
                              sizeof(*sim->results))) {
        problem(sim, "no memory for a result");
        return;
    }
    int r = sel_map_add(&sim->result_index, (struct sel_str){key, id.n}, sim->result_count, NULL);
    if (r == 1)
        sim->results[sim->result_count++] = bytes;
    else
        problem(sim, "'%s' has two results", key);
}

static void keep_presets(struct sim *sim)
{
    const struct sel_value *list = sim->options->presets;
    for (uint32_t i = 0; sel_value_is(list, SEL_LIST) && i < sel_value_count(list); i++) {
        const struct sel_value *preset = sel_value_at(list, i);
        struct sel_buf bytes = {0};
        sel_value_encode(sel_value_get_c(preset, "result"), &bytes);
        void *copy = sel_arena_memdup(&sim->report->arena, bytes.p, bytes.n);
        if (copy)
            keep_result(sim, sel_value_str(sel_value_get_c(preset, "id")),
                        (struct sel_str){copy, bytes.n});
        sel_buf_done(&bytes);
    }
}

/* ---- answers ---- */

static int answer_result(struct sim_flow *flow, struct sel_need *need)
{
    struct sim *sim = flow->sim;
    char text[SEL_RUN_ID_TEXT_SIZE];
    uint32_t index;
    struct sel_str id = sel_state_run_id(&flow->state, need->ordinal, text);
    if (!sel_map_get(&sim->result_index, id, &index))
        return SEL_ENOTFOUND;
    struct sel_str bytes = sim->results[index];
    return sel_value_decode(sel_decider_arena(flow->decider), bytes.p, bytes.n, true, &need->value,
                            NULL);
}

static int call_function(struct sim_flow *flow, const struct sel_import *import,
                         struct sel_need *need)
{
    struct sel_arena *arena = sel_decider_arena(flow->decider);
    struct sel_str bytes = sel_state_args(&flow->state);
    struct sel_value args;
    if (sel_str_eq_c(import->module, "selinon.routines"))
        return 0; /* always_run: null */
    int r = sel_value_decode(arena, bytes.p, bytes.n, true, &args, NULL);
    return r < 0 ? r : sel_mock_function(flow->sim->mock, import, &args, arena, &need->value, NULL);
}

static int answer_leaf(struct sim_flow *flow, struct sel_need *need)
{
    struct sel_import import = {flow->sim->system->predicates_module, need->leaf->name, {0}};
    need->value = sel_value_from_bool(false);
    if (need->leaf->builtin)
        return 0; /* httpStatus: there is no network here */
    int r = call_function(flow, &import, need);
    need->value = sel_value_from_bool(sel_value_is_true(&need->value));
    return r;
}

static int answer(struct sim_flow *flow)
{
    const struct sel_system *s = flow->sim->system;
    uint32_t count;
    int r = 0;
    struct sel_need *needs = sel_decider_needs(flow->decider, &count);
    if (count == 0)
        problem(flow->sim, "something is needed, but there are no needs");
    for (uint32_t i = 0; i < count && r == 0; i++) {
        switch (needs[i].kind) {
        case SEL_NEED_RESULT:
            r = answer_result(flow, &needs[i]);
            break;
        case SEL_NEED_FOREACH:
            r = call_function(flow, &flow->def->edges[needs[i].combination.edge].foreach->function,
                              &needs[i]);
            break;
        case SEL_NEED_SELECTIVE:
            r = call_function(
                flow, &s->tasks[flow->def->nodes[needs[i].slot].node].selective_run_function,
                &needs[i]);
            break;
        case SEL_NEED_LEAF:
            r = answer_leaf(flow, &needs[i]);
            break;
        }
    }
    return r;
}

/* ---- flows ---- */

static int on_start(void *ctx, const struct sel_start *start);
static void on_end(void *ctx, enum sel_decide_result result);

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_note *note)
{
    struct sim_flow *flow = ctx;
    (void)note;
    flow->sim->report->events[event]++;
}

static struct sel_decider *new_decider(struct sim_flow *flow)
{
    struct sel_decider_options options = {.system = flow->sim->system,
                                          .flow = flow->def,
                                          .plan = flow->plan,
                                          .world = flow->sim->options->world,
                                          .plans = flow->sim->plans,
                                          .ids = &flow->sim->ids,
                                          .sink = &flow->sink};
    struct sel_decider *decider = sel_decider_new(&options);
    if (!decider)
        problem(flow->sim, "no memory for a decider");
    return decider;
}

static struct sim_flow *new_flow(struct sim *sim, const struct sel_flow_def *def, struct sel_id id,
                                 struct sel_str args, const struct sel_plan *plan)
{
    struct sim_flow *flow = SEL_NEW(struct sim_flow);
    if (!flow) {
        problem(sim, "no memory for a flow");
        return NULL;
    }
    flow->next = sim->flows;
    sim->flows = flow;
    flow->sim = sim;
    flow->def = def;
    flow->plan = plan;
    flow->sink = (struct sel_decide_sink){flow, on_start, on_end, on_trace};
    flow->decider = new_decider(flow);
    check(sim, sel_state_init(&flow->state, id, def->node_count, def->edge_count, args), "state");
    if (sim->options->replays)
        check(sim, sel_state_init(&flow->replica, id, def->node_count, def->edge_count, args),
              "replica");
    push_work(sim, &(struct work){.kind = WORK_FLOW, .flow = flow});
    return flow;
}

static int on_start(void *ctx, const struct sel_start *start)
{
    struct sim_flow *flow = ctx;
    struct sim *sim = flow->sim;
    sim->report->runs++;
    if (start->ordinal + 1 != flow->state.run_count || start->slot >= flow->def->node_count)
        problem(sim, "a start that the state does not have");
    if (!sel_system_is_flow(sim->system, start->node)) {
        push_work(sim, &(struct work){.kind = WORK_TASK,
                                      .flow = flow,
                                      .node = start->node,
                                      .ordinal = start->ordinal,
                                      .attempt = flow->state.attempt,
                                      .nowait = start->nowait});
        return 0;
    }
    struct sim_flow *child = new_flow(sim, sel_system_flow(sim->system, start->node),
                                      start->child_id, start->args, start->plan);
    if (!child)
        return SEL_ENOMEM;
    child->parent = flow;
    child->parent_ordinal = start->ordinal;
    child->parent_attempt = flow->state.attempt;
    child->detached = start->nowait;
    return 0;
}

static void on_end(void *ctx, enum sel_decide_result result)
{
    struct sim_flow *flow = ctx;
    struct sim *sim = flow->sim;
    struct sel_sim_report *report = sim->report;
    struct sel_value state;
    if (flow != sim->top || result == SEL_DECIDE_RETRY)
        return;
    struct sel_arena arena = {0};
    int r = sel_state_to_value(&arena, sim->system, flow->def, &flow->state, &state);
    if (r == 0)
        r = sel_value_copy(&report->arena, &state, &report->state);
    check(sim, r, "the final state");
    sel_arena_done(&arena);
}

/* ---- replay ---- */

static void encode(struct sim *sim, const struct sel_state *state, struct sel_buf *buf)
{
    sel_buf_clear(buf);
    sel_state_encode(state, buf);
    check(sim, sel_buf_error(buf), "a state cannot be encoded");
}

/* The record, applied elsewhere, gives the state; the state survives its codec. */
static void check_replay(struct sim_flow *flow, const struct sel_buf *record)
{
    struct sim *sim = flow->sim;
    struct sel_state decoded = {0};
    check(sim, sel_state_replay(&flow->replica, record->p, record->n), "replay");
    encode(sim, &flow->state, &sim->bytes[0]);
    encode(sim, &flow->replica, &sim->bytes[1]);
    if (!sel_str_eq(sel_buf_str(&sim->bytes[0]), sel_buf_str(&sim->bytes[1])))
        problem(sim, "the replay of a record of '%.*s' gives another state",
                SEL_STR_ARG(flow->def->name));
    check(sim, sel_state_decode(sim->bytes[0].p, sim->bytes[0].n, &decoded), "decode");
    if (sim->failed)
        return;
    encode(sim, &decoded, &sim->bytes[2]);
    if (!sel_str_eq(sel_buf_str(&sim->bytes[0]), sel_buf_str(&sim->bytes[2])))
        problem(sim, "a state of '%.*s' is another after its codec", SEL_STR_ARG(flow->def->name));
    if (flow->state.active_count != decoded.active_count ||
        flow->state.failed_count != decoded.failed_count ||
        flow->state.finished_count != decoded.finished_count)
        problem(sim, "the counts of '%.*s' are others after the codec",
                SEL_STR_ARG(flow->def->name));
    if (sim->options->takes_over) {
        sel_state_done(&flow->replica);
        flow->replica = decoded; /* so the replica has gone through the codec at every step */
    } else {
        sel_state_done(&decoded);
    }
}

static void take_record(struct sim_flow *flow)
{
    struct sim *sim = flow->sim;
    struct sel_buf *record = sel_decider_record(flow->decider);
    check(sim, sel_buf_error(record), "record");
    sel_buf_put_str(&sim->report->records, sel_buf_str(record));
    if (sim->options->replays && !sim->failed)
        check_replay(flow, record);
    sel_buf_clear(record);
    size_t bytes = flow == sim->top ? sel_state_bytes(&flow->state) : 0;
    if (bytes > sim->report->state_bytes_max)
        sim->report->state_bytes_max = bytes;
}

/* Another process goes on: with the state from the records and a decider that knows nothing. */
static void take_over(struct sim_flow *flow)
{
    struct sel_state state = {0};
    struct sim *sim = flow->sim;
    encode(sim, &flow->replica, &sim->bytes[0]);
    check(sim, sel_state_decode(sim->bytes[0].p, sim->bytes[0].n, &state), "takeover");
    if (sim->failed)
        return;
    sel_state_done(&flow->state);
    flow->state = state;
    sel_decider_free(flow->decider);
    flow->decider = new_decider(flow);
}

/* ---- deciding ---- */

static void conclude(struct sim_flow *flow, int result)
{
    struct sim *sim = flow->sim;
    if (result == SEL_DECIDE_WAIT)
        return;
    if (result == SEL_DECIDE_RETRY) {
        push_work(sim, &(struct work){.kind = WORK_FLOW, .flow = flow});
        return;
    }
    flow->ended = true;
    if (flow == sim->top)
        sim->report->outcome = (enum sel_decide_result)result;
    if (flow->parent && !flow->detached)
        push_work(sim, &(struct work){.kind = WORK_DONE,
                                      .flow = flow->parent,
                                      .ordinal = flow->parent_ordinal,
                                      .attempt = flow->parent_attempt,
                                      .failed = result != SEL_DECIDE_END});
}

static int step(struct sim_flow *flow, const struct sel_input *input)
{
    struct sim *sim = flow->sim;
    struct sel_error err = {0};
    uint32_t budget = sim->options->budget ? sim->options->budget : BUDGET_LARGE;
    int r = sel_decide(flow->decider, &flow->state, input, UNIX_MS, budget, &err);
    sim->report->steps++;
    if (r == SEL_DECIDE_NEED && answer(flow) < 0)
        r = SEL_EFAILED;
    if (r == SEL_EFAILED)
        r = sel_decide_abort(flow->decider, &flow->state);
    take_record(flow);
    if (r < 0)
        problem(sim, "a decision of '%.*s' failed: %s %s", SEL_STR_ARG(flow->def->name),
                sel_error_name(r), err.text);
    return r;
}

static void decide(struct sim_flow *flow, struct sel_input input)
{
    struct sim *sim = flow->sim;
    const struct sel_input *next = &input;
    int r = SEL_DECIDE_MORE;
    if (flow == sim->top && ++flow->inputs == sim->options->cancels_at)
        input = (struct sel_input){.type = SEL_INPUT_CANCEL};
    while (!sim->failed && (r == SEL_DECIDE_MORE || r == SEL_DECIDE_NEED)) {
        if (sim->report->steps > STEPS_MAX)
            problem(sim, "the flow never ends");
        r = step(flow, next);
        next = NULL;
        if (sim->options->takes_over && r != SEL_DECIDE_NEED && !sim->failed)
            take_over(flow);
    }
    if (!sim->failed)
        conclude(flow, r);
}

/* ---- tasks ---- */

static void validate(struct sim *sim, uint32_t task, struct sel_exec_result *result)
{
    struct sel_arena arena = {0};
    struct sel_value value;
    if (!sim->schemas[task] || result->outcome != SEL_EXEC_SUCCESS)
        return;
    if (sel_value_decode(&arena, result->value.p, result->value.n, false, &value, NULL) < 0 ||
        sel_schema_validate(sim->schemas[task], &value, NULL) < 0)
        result->outcome = SEL_EXEC_FAILURE;
    sel_arena_done(&arena);
}

static void run_task(struct sim *sim, struct work *work)
{
    const struct sel_task_def *task = sel_system_task(sim->system, work->node);
    struct sel_exec_result result;
    struct sel_error err;
    void *code;
    check(sim, sel_runtime_mock.prepare(sim->mock, task, &code, &err), "mock");
    if (sim->failed)
        return;
    sel_runtime_mock.run(sim->mock, code, NULL, &result);
    validate(sim, work->node, &result);
    if (result.outcome == SEL_EXEC_RETRY ||
        (result.outcome == SEL_EXEC_FAILURE && work->retried < task->max_retry)) {
        work->retried += result.outcome == SEL_EXEC_FAILURE;
        push_work(sim, work);
        return;
    }
    work->failed = result.outcome != SEL_EXEC_SUCCESS;
    if (!work->failed && task->storage != SEL_NONE && !task->storage_read_only) {
        char text[SEL_RUN_ID_TEXT_SIZE];
        sel_id_format_run(work->flow->state.id, work->attempt, work->ordinal, text);
        keep_result(sim, sel_str_c(text), result.value);
    }
    work->kind = WORK_DONE;
    if (!work->nowait)
        push_work(sim, work);
}

static void do_work(struct sim *sim, struct work *work)
{
    struct sim_flow *flow = work->flow;
    switch (work->kind) {
    case WORK_FLOW:
        decide(flow, (struct sel_input){.type = SEL_INPUT_START});
        break;
    case WORK_TASK:
        run_task(sim, work);
        break;
    case WORK_DONE:
        if (!flow->ended && flow->state.attempt == work->attempt)
            decide(flow,
                   (struct sel_input){.type = work->failed ? SEL_INPUT_FAILED : SEL_INPUT_DONE,
                                      .ordinal = work->ordinal});
        break;
    }
}

/* ---- life ---- */

static void read_schema(struct sim *sim, const struct sel_task_def *task, struct sel_schema **ret)
{
    char text[65536], path[512];
    struct sel_error err = {0};
    const char *dir = sim->options->dir ? sim->options->dir : ".";
    (void)snprintf(path, sizeof(path), "%s/%.*s", dir, SEL_STR_ARG(task->output_schema));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (fd >= 0)
        close(fd);
    if (n < 0 || n == (ssize_t)sizeof(text))
        problem(sim, "%s cannot be read", path);
    else if (sel_schema_compile(path, (struct sel_str){text, (size_t)n}, ret, &err) < 0)
        problem(sim, "%s: %s", path, err.text);
}

static void begin(struct sim *sim)
{
    static const struct sel_str null_args = {(const char *)sel_value_null_bytes, 1};
    const struct sel_sim_options *o = sim->options;
    struct sel_error err = {0};
    if (sel_mock_new(o->system, o->mock, &sim->mock, &err) < 0)
        problem(sim, "%s", err.text);
    sim->plans = sel_plan_cache_new(o->system);
    sim->schemas = sel_mem_zalloc(sizeof(*sim->schemas) * ((size_t)o->system->task_count + 1));
    if (!sim->plans || !sim->schemas)
        problem(sim, "no memory");
    for (uint32_t i = 0; !sim->failed && i < o->system->task_count; i++) {
        if (o->system->tasks[i].output_schema.n > 0)
            read_schema(sim, &o->system->tasks[i], &sim->schemas[i]);
    }
    keep_presets(sim);
    if (!sim->failed)
        sim->top = new_flow(sim, o->flow, sel_id_next(&sim->ids, UNIX_MS),
                            o->args.n ? o->args : null_args, o->plan);
}

static void end(struct sim *sim)
{
    while (sim->flows) {
        struct sim_flow *flow = sim->flows;
        if (!flow->ended)
            problem(sim, "flow '%.*s' never ended", SEL_STR_ARG(flow->def->name));
        sim->flows = flow->next;
        sel_decider_free(flow->decider);
        sel_state_done(&flow->state);
        sel_state_done(&flow->replica);
        sel_mem_free(flow);
    }
    for (uint32_t i = 0; sim->schemas && i < sim->system->task_count; i++)
        sel_schema_free(sim->schemas[i]);
    for (size_t i = 0; i < SEL_COUNT(sim->bytes); i++)
        sel_buf_done(&sim->bytes[i]);
    sel_mem_free(sim->schemas);
    sel_mem_free(sim->pool);
    sel_mem_free(sim->results);
    sel_map_done(&sim->result_index);
    sel_plan_cache_free(sim->plans);
    sel_mock_free(sim->mock);
}

void sel_sim_run(const struct sel_sim_options *options, struct sel_sim_report *ret)
{
    struct sim sim = {.options = options, .report = ret, .system = options->system};
    struct work work;
    memset(ret, 0, sizeof(*ret));
    sim.prng.state = options->seed;
    begin(&sim);
    while (!sim.failed && take_work(&sim, &work))
        do_work(&sim, &work);
    check(&sim, sel_buf_error(&ret->records), "records");
    end(&sim);
}

void sel_sim_report_done(struct sel_sim_report *report)
{
    sel_buf_done(&report->records);
    sel_arena_done(&report->arena);
    memset(report, 0, sizeof(*report));
}
