/* The state machine alone: decide and apply, tasks that do nothing, one thread. */
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/compile.h"
#include "core/decide.h"
#include "core/mem.h"
#include "perf/bench.h"

#define BUDGET 1024
#define NODES 1000000
#define NODES_FEW 1000

static const char *no_env(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return NULL;
}
static const struct sel_predicate_world world = {no_env, NULL};

int sel_bench_compile_text(const char *nodes, const char *flows, struct sel_system **ret)
{
    struct sel_arena arena = {0};
    struct sel_diag diag;
    struct sel_source source = {"flows.yaml", sel_str_c(flows)};
    struct sel_compile_options options = {.nodes = {"nodes.yaml", sel_str_c(nodes)},
                                          .flows = &source,
                                          .flow_count = 1,
                                          .world = &world};
    sel_diag_init(&diag, &arena);
    int r = sel_compile(&options, &diag, ret);
    if (r < 0 && diag.first)
        fprintf(stderr, "selinon-bench: %s:%u: %s\n", diag.first->pos.file, diag.first->pos.line,
                diag.first->text);
    sel_arena_done(&arena);
    return r;
}

/* One flow and what drives it. Started runs end in the order of their start. */
struct machine {
    const struct sel_system *system;
    const struct sel_flow_def *flow;
    struct sel_state state;
    struct sel_decider *decider;
    struct sel_plan_cache *plans;
    struct sel_id_source ids;
    struct sel_decide_sink sink;
    uint32_t started;    /* runs so far */
    uint32_t items;      /* length of the list of a foreach */
    uint32_t fail_below; /* runs with smaller ordinals fail */
    size_t bytes_max;    /* of the state and of what the decider holds */
};

static int on_start(void *ctx, const struct sel_start *start)
{
    struct machine *m = ctx;
    (void)start;
    m->started++;
    return 0;
}

static int machine_init(struct machine *m, const struct sel_system *system, const char *flow,
                        struct sel_str args)
{
    memset(m, 0, sizeof(*m));
    m->system = system;
    m->flow = sel_system_find_flow(system, sel_str_c(flow));
    m->plans = sel_plan_cache_new(system);
    m->sink = (struct sel_decide_sink){.ctx = m, .start = on_start};
    struct sel_decider_options options = {.system = system,
                                          .flow = m->flow,
                                          .world = &world,
                                          .plans = m->plans,
                                          .ids = &m->ids,
                                          .sink = &m->sink};
    m->decider = sel_decider_new(&options);
    if (!m->plans || !m->decider)
        return SEL_ENOMEM;
    return sel_state_init(&m->state, sel_id_next(&m->ids, 1), m->flow->node_count,
                          m->flow->edge_count, args);
}

static void machine_done(struct machine *m)
{
    sel_state_done(&m->state);
    m->decider = sel_decider_free(m->decider);
    m->plans = sel_plan_cache_free(m->plans);
}

static int answer(struct machine *m)
{
    uint32_t count;
    struct sel_need *needs = sel_decider_needs(m->decider, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct sel_value *items =
            SEL_ARENA_NEW_ARRAY(sel_decider_arena(m->decider), struct sel_value, m->items);
        SEL_ASSERT(needs[i].kind == SEL_NEED_FOREACH);
        if (!items)
            return SEL_ENOMEM;
        for (uint32_t k = 0; k < m->items; k++)
            items[k] = sel_value_from_i64(k);
        needs[i].value = sel_value_from_list(items, m->items);
    }
    return 0;
}

static void note_bytes(struct machine *m)
{
    size_t bytes = sel_state_bytes(&m->state) + sel_decider_arena(m->decider)->reserved;
    if (bytes > m->bytes_max)
        m->bytes_max = bytes;
}

/* One whole decision; enum sel_decide_result or negative. */
static int decide(struct machine *m, enum sel_input_type type, uint32_t ordinal)
{
    struct sel_input input = {type, ordinal};
    struct sel_error err;
    int r = sel_decide(m->decider, &m->state, &input, 1, BUDGET, &err);
    while (r == SEL_DECIDE_MORE || r == SEL_DECIDE_NEED) {
        sel_buf_clear(sel_decider_record(m->decider));
        if (r == SEL_DECIDE_NEED && (r = answer(m)) < 0)
            return r;
        if (m->started % 65536 < BUDGET)
            note_bytes(m);
        r = sel_decide(m->decider, &m->state, NULL, 1, BUDGET, &err);
    }
    sel_buf_clear(sel_decider_record(m->decider));
    return r;
}

/* Ends runs in order until `count` have ended or the flow has. */
static int drive(struct machine *m, uint32_t count)
{
    int r = decide(m, SEL_INPUT_START, 0);
    for (uint32_t i = 0; i < count && r == SEL_DECIDE_WAIT; i++)
        r = decide(m, i < m->fail_below ? SEL_INPUT_FAILED : SEL_INPUT_DONE, i);
    note_bytes(m);
    return r;
}

/* ---- chain ---- */

static const char chain_nodes[] = "tasks: [{name: Step, import: bench}]\nflows: [chain]\n";
static const char chain_flows[] =
    "flow-definitions:\n"
    "  - name: chain\n"
    "    edges:\n"
    "      - {from: , to: Step}\n"
    "      - from: Step\n"
    "        to: Step\n"
    "        condition: {name: argsFieldEqual, args: {key: go, value: 1}}\n";
static const uint8_t go_args[] = {0x81, 0xa2, 'g', 'o', 0x01}; /* {"go": 1} */

struct shape {
    struct sel_system *system;
    uint32_t nodes;   /* in one flow */
    uint32_t repeats; /* flows, one after the other */
    double bytes_per_node;
};

static int chain(void *arg, double *ret)
{
    struct shape *shape = arg;
    int64_t begin = sel_bench_now_ns();
    for (uint32_t i = 0; i < shape->repeats; i++) {
        struct machine m;
        int r = machine_init(&m, shape->system, "chain",
                             (struct sel_str){(const char *)go_args, sizeof(go_args)});
        if (r == 0)
            r = drive(&m, shape->nodes);
        SEL_ASSERT(r < 0 || m.state.finished_count == shape->nodes);
        machine_done(&m);
        if (r < 0)
            return r;
    }
    *ret = (double)(sel_bench_now_ns() - begin) / ((double)shape->nodes * shape->repeats);
    return 0;
}

/* ---- fan-out ---- */

static const char fanout_nodes[] =
    "tasks: [{name: Work, import: bench}, {name: After, import: bench}]\nflows: [outer, inner]\n";
static const char fanout_flows[] =
    "flow-definitions:\n"
    "  - name: outer\n"
    "    edges: [{from: , to: inner}, {from: inner, to: After}]\n"
    "  - name: inner\n"
    "    edges: [{from: , to: Work, foreach: {import: bench, function: many}}]\n";

static int fan_out_once(struct shape *shape)
{
    static const struct sel_str null = {(const char *)sel_value_null_bytes, 1};
    struct machine outer, inner;
    int r = machine_init(&outer, shape->system, "outer", null);
    if (r == 0)
        r = decide(&outer, SEL_INPUT_START, 0);
    if (r == SEL_DECIDE_WAIT)
        r = machine_init(&inner, shape->system, "inner", null);
    if (r < 0)
        return r;
    inner.items = shape->nodes;
    r = drive(&inner, shape->nodes);
    SEL_ASSERT(r == SEL_DECIDE_END && inner.state.finished_count == shape->nodes);
    shape->bytes_per_node = (double)inner.bytes_max / shape->nodes;
    machine_done(&inner);
    r = decide(&outer, SEL_INPUT_DONE, 0);
    SEL_ASSERT(r == SEL_DECIDE_WAIT && outer.started == 2);
    machine_done(&outer);
    return 0;
}

static int fan_out(void *arg, double *ret)
{
    struct shape *shape = arg;
    int64_t begin = sel_bench_now_ns();
    for (uint32_t i = 0; i < shape->repeats; i++) {
        int r = fan_out_once(shape);
        if (r < 0)
            return r;
    }
    *ret = (double)(sel_bench_now_ns() - begin) / ((double)shape->nodes * shape->repeats);
    return 0;
}

static double worse(double a, double b)
{
    return a > b ? a : b;
}

static void report_shapes(struct sel_bench_run *run, struct sel_bench_probe *probes,
                          const struct shape *fan)
{
    const struct sel_bench_metric metrics[] = {
        {"chain_nodes_per_s", 1e9 / probes[0].median, "nodes/s", SEL_BENCH_AT_LEAST, 1e6, NULL},
        {"fanout_nodes_per_s", 1e9 / probes[2].median, "nodes/s", SEL_BENCH_AT_LEAST, 5e5, NULL},
        {"fanout_bytes_per_node", fan->bytes_per_node, "B", SEL_BENCH_AT_MOST, 200,
         "state and the answers of the decision, at their largest"},
        {"cost_ratio_1m_to_1k",
         worse(sel_bench_ratio(run, &probes[0], &probes[1]),
               sel_bench_ratio(run, &probes[2], &probes[3])),
         "", SEL_BENCH_AT_MOST, 1.3, NULL},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
}

int sel_bench_engine(struct sel_bench_run *run)
{
    struct sel_system *chain_system = NULL, *fan_system = NULL;
    int r = sel_bench_compile_text(chain_nodes, chain_flows, &chain_system);
    if (r == 0)
        r = sel_bench_compile_text(fanout_nodes, fanout_flows, &fan_system);
    struct shape shapes[] = {
        {chain_system, NODES, 1, 0},
        {chain_system, NODES_FEW, NODES / NODES_FEW, 0},
        {fan_system, NODES, 1, 0},
        {fan_system, NODES_FEW, NODES / NODES_FEW, 0},
    };
    struct sel_bench_probe probes[] = {{.fn = chain, .arg = &shapes[0]},
                                       {.fn = chain, .arg = &shapes[1]},
                                       {.fn = fan_out, .arg = &shapes[2]},
                                       {.fn = fan_out, .arg = &shapes[3]}};
    if (r == 0)
        r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r == 0)
        report_shapes(run, probes, &shapes[2]);
    sel_system_free(chain_system);
    sel_system_free(fan_system);
    return r;
}

/* ---- failures ---- */

#define FAILING 1000
#define FALLBACKS 500

static void write_failing(struct sel_buf *nodes, struct sel_buf *flows)
{
    sel_buf_put_c(nodes, "flows: [main]\ntasks:\n");
    sel_buf_put_c(flows, "flow-definitions:\n  - name: main\n    edges:\n");
    for (int i = 0; i < FAILING; i++) {
        sel_buf_printf(nodes, "  - {name: T%d, import: bench}\n", i);
        sel_buf_printf(flows, "      - {from: , to: T%d}\n", i);
    }
    sel_buf_put_c(flows, "    failures:\n");
    for (int i = 0; i < FALLBACKS; i++) {
        sel_buf_printf(nodes, "  - {name: F%d, import: bench}\n", i);
        sel_buf_printf(flows, "      - {nodes: [T%d, T%d], fallback: F%d}\n", 2 * i, 2 * i + 1, i);
    }
}

static int fail_many(void *arg, double *ret)
{
    static const struct sel_str null = {(const char *)sel_value_null_bytes, 1};
    struct machine m;
    int64_t begin = sel_bench_now_ns();
    int r = machine_init(&m, arg, "main", null);
    m.fail_below = FAILING;
    if (r == 0)
        r = drive(&m, FAILING + FALLBACKS);
    SEL_ASSERT(r == SEL_DECIDE_END && m.state.finished_count == FALLBACKS);
    *ret = (double)(sel_bench_now_ns() - begin) / 1e6;
    machine_done(&m);
    return 0;
}

int sel_bench_failures(struct sel_bench_run *run)
{
    struct sel_buf nodes = {0}, flows = {0};
    struct sel_system *system = NULL;
    write_failing(&nodes, &flows);
    int r = sel_bench_compile_text(sel_buf_cstr(&nodes), sel_buf_cstr(&flows), &system);
    struct sel_bench_probe probe = {.fn = fail_many, .arg = system};
    if (r == 0)
        r = sel_bench_measure(run, &probe, 1);
    if (r == 0)
        sel_bench_report(run, &(struct sel_bench_metric){"failures_1000_ms", probe.median, "ms",
                                                         SEL_BENCH_AT_MOST, 50, NULL});
    sel_system_free(system);
    sel_buf_done(&nodes);
    sel_buf_done(&flows);
    return r;
}

/* ---- compiling ---- */

#define FLOWS 10000
#define EDGES 10

static void write_flows(struct sel_buf *nodes, struct sel_buf *flows)
{
    sel_buf_put_c(nodes, "tasks:\n");
    for (int i = 0; i < EDGES; i++)
        sel_buf_printf(nodes, "  - {name: T%d, import: bench}\n", i);
    sel_buf_put_c(nodes, "flows:\n");
    sel_buf_put_c(flows, "flow-definitions:\n");
    for (int i = 0; i < FLOWS; i++) {
        sel_buf_printf(nodes, "  - flow%d\n", i);
        sel_buf_printf(flows, "  - name: flow%d\n    edges:\n      - {from: , to: T0}\n", i);
        for (int e = 1; e < EDGES; e++)
            sel_buf_printf(flows, "      - {from: T%d, to: T%d}\n", e - 1, e);
    }
}

struct texts {
    struct sel_buf nodes, flows;
};

static int compile_many(void *arg, double *ret)
{
    struct texts *texts = arg;
    struct sel_system *system = NULL;
    int64_t begin = sel_bench_now_ns();
    int r =
        sel_bench_compile_text(sel_buf_cstr(&texts->nodes), sel_buf_cstr(&texts->flows), &system);
    *ret = (double)(sel_bench_now_ns() - begin) / 1e6;
    sel_system_free(system);
    return r;
}

int sel_bench_compile(struct sel_bench_run *run)
{
    struct texts texts = {0};
    struct sel_bench_probe probe = {.fn = compile_many, .arg = &texts};
    write_flows(&texts.nodes, &texts.flows);
    int r = sel_bench_measure(run, &probe, 1);
    if (r == 0)
        sel_bench_report(run, &(struct sel_bench_metric){"compile_10k_flows_ms", probe.median, "ms",
                                                         SEL_BENCH_AT_MOST, 1000, NULL});
    sel_buf_done(&texts.nodes);
    sel_buf_done(&texts.flows);
    return r;
}
