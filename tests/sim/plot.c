#include "tests/sim/plot.h"

#include <stdio.h>
#include <string.h>

#include "core/assert.h"
#include "core/compile.h"
#include "core/hash.h"
#include "core/mem.h"
#include "tests/sim/world.h"
#include "worker/mock.h"

#define TASKS_MAX 8
#define FLOWS_MAX 5
#define NODES_MAX 8 /* of a flow */
#define TRIES_MAX 1000
#define FOREACH_MAX 4 /* items */

/* ---- configuration ---- */

struct pen {
    struct sel_plot *plot;
    struct sel_prng *prng;
    const struct sel_plot_options *options;
    uint32_t task_count, flow_count;
    /* of the flow at hand */
    uint32_t flow;
    uint32_t nodes[NODES_MAX]; /* tasks, then TASKS_MAX + flow */
    uint32_t node_count;
    uint32_t eager, nowait; /* a node, or SEL_NONE */
    bool foreach_results;   /* some sub-flow gets items as arguments */
    bool starts_alone;      /* with one run of one task */
    struct sel_prng more;   /* of what was added later: other draws stay what they were */
};

static bool is_flow(uint32_t node)
{
    return node >= TASKS_MAX;
}

static void put_node(struct sel_buf *buf, uint32_t node)
{
    if (is_flow(node))
        sel_buf_printf(buf, "flow%u", node - TASKS_MAX);
    else
        sel_buf_printf(buf, "T%u", node);
}

static void put_list(struct sel_buf *buf, const uint32_t *nodes, uint32_t count)
{
    sel_buf_put_c(buf, "[");
    for (uint32_t i = 0; i < count; i++) {
        sel_buf_put_c(buf, i ? ", " : "");
        put_node(buf, nodes[i]);
    }
    sel_buf_put_c(buf, "]");
}

static bool chance(struct pen *pen, uint32_t per_mille)
{
    return sel_draw_chance(pen->prng, per_mille);
}

static uint32_t below(struct pen *pen, uint32_t bound)
{
    return (uint32_t)sel_draw_below(pen->prng, bound);
}

static void write_nodes(struct pen *pen)
{
    struct sel_buf *buf = &pen->plot->nodes;
    sel_buf_put_c(buf, "tasks:\n");
    for (uint32_t i = 0; i < pen->task_count; i++) {
        sel_buf_printf(buf, "  - {name: T%u, import: t, storage: S, queue: queue%u", i,
                       below(pen, pen->options->queue_count));
        if (pen->options->has_waits && chance(pen, 150))
            sel_buf_printf(buf, ", throttling: {milliseconds: %u}", 1 + below(pen, 700));
        sel_buf_put_c(buf, "}\n");
    }
    sel_buf_put_c(buf, "storages:\n  - {name: S, import: selinon.storages.memory, classname: "
                       "InMemoryStorage, configuration: {}}\nflows: [");
    for (uint32_t i = 0; i < pen->flow_count; i++)
        sel_buf_printf(buf, "%sflow%u", i ? ", " : "", i);
    sel_buf_put_c(buf, "]\n");
}

/* A condition over the results of the tasks among `from`, or over the arguments. */
static void write_leaf(struct pen *pen, const uint32_t *from, uint32_t count)
{
    struct sel_buf *buf = &pen->plot->flows;
    uint32_t node = count ? from[below(pen, count)] : TASKS_MAX;
    if (is_flow(node)) {
        sel_buf_printf(buf, "{name: argsField%s, args: {key: n, value: %u}}",
                       chance(pen, 500) ? "Less" : "NotEqual", below(pen, 7));
        return;
    }
    sel_buf_put_c(buf, "{name: ");
    switch (below(pen, 4)) {
    case 0:
        sel_buf_put_c(buf, "fieldExist, args: {key: odd}");
        break;
    case 1:
        sel_buf_printf(buf, "fieldLenLess, args: {key: list, length: %u}", 1 + below(pen, 4));
        break;
    default:
        sel_buf_printf(buf, "field%s, args: {key: n, value: %u}",
                       chance(pen, 500) ? "GreaterEqual" : "NotEqual", below(pen, 5));
        break;
    }
    sel_buf_put_c(buf, ", node: ");
    put_node(buf, node);
    sel_buf_put_c(buf, "}");
}

static void write_condition(struct pen *pen, const uint32_t *from, uint32_t count)
{
    struct sel_buf *buf = &pen->plot->flows;
    uint32_t form = below(pen, 10);
    sel_buf_put_c(buf, ", condition: ");
    if (form >= 3) {
        write_leaf(pen, from, count);
    } else if (form == 0) {
        sel_buf_put_c(buf, "{not: ");
        write_leaf(pen, from, count);
        sel_buf_put_c(buf, "}");
    } else {
        sel_buf_put_c(buf, form == 1 ? "{and: [" : "{or: [");
        write_leaf(pen, from, count);
        sel_buf_put_c(buf, ", ");
        write_leaf(pen, from, count);
        sel_buf_put_c(buf, "]}");
    }
}

/* Whether it has a foreach. */
static bool write_edge(struct pen *pen, const uint32_t *from, uint32_t from_count,
                       const uint32_t *to, uint32_t to_count, uint32_t condition_chance)
{
    struct sel_buf *buf = &pen->plot->flows;
    sel_buf_put_c(buf, "      - {from: ");
    if (from_count)
        put_list(buf, from, from_count);
    sel_buf_put_c(buf, ", to: ");
    put_list(buf, to, to_count);
    if (chance(pen, condition_chance))
        write_condition(pen, from, from_count);
    bool has_foreach = chance(pen, 120);
    if (has_foreach) {
        bool only_flows = true;
        for (uint32_t i = 0; i < to_count; i++)
            only_flows &= is_flow(to[i]);
        bool gives = only_flows && chance(pen, 600);
        pen->foreach_results |= gives;
        sel_buf_printf(buf, ", foreach: {import: m, function: many%s}",
                       gives ? ", propagate_result: true" : "");
    }
    sel_buf_put_c(buf, "}\n");
    return has_foreach;
}

/* Some of the first `bound` nodes, none twice. */
static uint32_t choose(struct pen *pen, uint32_t bound, uint32_t most, uint32_t *ret)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < most; i++) {
        uint32_t node = pen->nodes[below(pen, bound)];
        bool is_new = node != pen->nowait;
        for (uint32_t k = 0; k < count; k++)
            is_new &= ret[k] != node;
        if (is_new)
            ret[count++] = node;
    }
    return count;
}

static void choose_nodes(struct pen *pen)
{
    uint32_t want = 1 + below(pen, NODES_MAX - 1), later = pen->flow_count - pen->flow - 1;
    pen->node_count = 0;
    for (uint32_t i = 0; i < want; i++) {
        uint32_t node = below(pen, pen->task_count);
        if (later && i > 0 && chance(pen, 250))
            node = TASKS_MAX + pen->flow + 1 + below(pen, later);
        bool is_new = true;
        for (uint32_t k = 0; k < pen->node_count; k++)
            is_new &= pen->nodes[k] != node;
        if (is_new)
            pen->nodes[pen->node_count++] = node;
    }
    uint32_t last = pen->nodes[pen->node_count - 1];
    pen->nowait = pen->node_count > 1 && chance(pen, 150) ? last : SEL_NONE;
    pen->eager = chance(pen, 80) ? pen->nodes[below(pen, pen->node_count)] : SEL_NONE;
}

static void write_edges(struct pen *pen)
{
    uint32_t from[3], to[2];
    sel_buf_put_c(&pen->plot->flows, "    edges:\n");
    uint32_t started = pen->node_count > 2 && chance(pen, 500) ? 2 : 1;
    bool has_foreach = write_edge(pen, NULL, 0, pen->nodes, started, 100);
    pen->starts_alone = started == 1 && !has_foreach && !is_flow(pen->nodes[0]);
    for (uint32_t i = started; i < pen->node_count; i++) {
        uint32_t count = choose(pen, i, 1 + below(pen, 3), from);
        to[0] = pen->nodes[i];
        to[1] = pen->nodes[below(pen, 2) ? i : below(pen, i + 1)];
        bool is_twice = count && to[1] == to[0] && chance(pen, 100);
        (void)write_edge(pen, from, count, to, is_twice ? 2 : 1, 350);
    }
    for (uint32_t i = 1; i < pen->node_count; i++) { /* back, as long as the row is short */
        if (is_flow(pen->nodes[i]) || pen->nodes[i] == pen->nowait || !chance(pen, 120))
            continue;
        sel_buf_put_c(&pen->plot->flows, "      - {from: ");
        put_node(&pen->plot->flows, pen->nodes[i]);
        sel_buf_put_c(&pen->plot->flows, ", to: ");
        put_node(&pen->plot->flows, pen->nodes[below(pen, i + 1)]);
        sel_buf_printf(&pen->plot->flows,
                       ", condition: {name: fieldLess, args: {key: depth, value: %u}}}\n",
                       2 + below(pen, 5));
    }
}

static void write_failures(struct pen *pen)
{
    struct sel_buf *buf = &pen->plot->flows;
    uint32_t failed[2], count = below(pen, 3);
    bool has_any = false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = choose(pen, pen->node_count, 1 + below(pen, 2), failed);
        bool is_eager = n == 0;
        for (uint32_t k = 0; k < n; k++)
            is_eager |= failed[k] == pen->eager;
        if (is_eager)
            continue;
        sel_buf_put_c(buf, has_any ? "" : "    failures:\n");
        has_any = true;
        sel_buf_put_c(buf, "      - {nodes: ");
        put_list(buf, failed, n);
        sel_buf_put_c(buf, ", fallback: ");
        if (chance(pen, 250)) {
            sel_buf_put_c(buf, "true}\n");
            continue;
        }
        const uint32_t fallback[] = {below(pen, pen->task_count), below(pen, pen->task_count)};
        put_list(buf, fallback, fallback[0] != fallback[1] && chance(pen, 300) ? 2 : 1);
        sel_buf_put_c(buf, chance(pen, 150) ? ", propagate_failure: true}\n" : "}\n");
    }
}

static void write_options(struct pen *pen)
{
    struct sel_buf *buf = &pen->plot->flows;
    if (chance(pen, 400))
        sel_buf_put_c(buf, "    propagate_parent: true\n");
    if (!pen->foreach_results && chance(pen, 500))
        sel_buf_put_c(buf, "    propagate_node_args: true\n");
    if (chance(pen, 350))
        sel_buf_put_c(buf, chance(pen, 500) ? "    propagate_finished: true\n"
                                            : "    propagate_compound_finished: true\n");
    if (chance(pen, 250))
        sel_buf_put_c(buf, chance(pen, 500) ? "    propagate_failures: true\n"
                                            : "    propagate_compound_failures: true\n");
    if (chance(pen, 200))
        sel_buf_put_c(buf, "    propagate_parent_failures: true\n");
    if (pen->options->has_retries && chance(pen, 250))
        sel_buf_printf(buf, "    max_retry: %u\n    retry_countdown: %u\n", 1 + below(pen, 2),
                       below(pen, 3));
    if (pen->options->has_waits && chance(pen, 150))
        sel_buf_printf(buf, "    throttling: {milliseconds: %u}\n", 1 + below(pen, 1500));
    if (pen->options->has_waits && chance(pen, 150))
        sel_buf_printf(buf, "    sampling: {name: constant, args: {retry: %u}}\n",
                       1 + below(pen, 2));
    if (pen->starts_alone && pen->nowait != pen->nodes[0] && sel_draw_chance(&pen->more, 150))
        sel_buf_put_c(buf, "    node_args_from_first: true\n");
    if (pen->nowait != SEL_NONE) {
        sel_buf_put_c(buf, "    nowait: ");
        put_node(buf, pen->nowait);
        sel_buf_put_c(buf, "\n");
    }
    if (pen->eager != SEL_NONE) {
        sel_buf_put_c(buf, "    eager_failures: ");
        put_node(buf, pen->eager);
        sel_buf_put_c(buf, "\n");
    }
}

static void write_flow(struct pen *pen)
{
    pen->foreach_results = false;
    choose_nodes(pen);
    sel_buf_printf(&pen->plot->flows, "  - name: flow%u\n    queue: queue%u\n", pen->flow,
                   below(pen, pen->options->queue_count));
    write_edges(pen);
    write_failures(pen);
    write_options(pen);
}

static int compile(struct sel_plot *plot)
{
    struct sel_diag diag;
    struct sel_arena arena = {0};
    struct sel_source flows = {.file = "flows.yaml", .text = sel_buf_str(&plot->flows)};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml", .text = sel_buf_str(&plot->nodes)},
        .flows = &flows,
        .flow_count = 1,
        .world = &plot->world};
    sel_diag_init(&diag, &arena);
    int r = sel_compile(&options, &diag, &plot->system);
    sel_arena_done(&arena);
    return r;
}

/* 0, or what the compiler has against it. */
static int try_draw(struct sel_plot *plot, struct sel_prng *prng,
                    const struct sel_plot_options *options)
{
    struct pen pen = {.plot = plot, .prng = prng, .options = options};
    pen.more.state = prng->state ^ UINT64_C(0x303e);
    sel_buf_clear(&plot->nodes);
    sel_buf_clear(&plot->flows);
    pen.task_count = 2 + below(&pen, TASKS_MAX - 1);
    pen.flow_count = 1 + below(&pen, FLOWS_MAX);
    write_nodes(&pen);
    sel_buf_put_c(&plot->flows, "flow-definitions:\n");
    for (; pen.flow < pen.flow_count; pen.flow++)
        write_flow(&pen);
    SEL_ASSERT(sel_buf_error(&plot->nodes) == 0 && sel_buf_error(&plot->flows) == 0);
    return compile(plot);
}

static void no_log(void *ctx, enum sel_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

static void open_engine(struct sel_plot *plot)
{
    struct sel_error err = {0};
    struct sel_value_builder map;
    sel_value_begin_map(&map, &plot->arena);
    int r = sel_value_end(&map, &plot->script);
    if (r == 0)
        r = sel_mock_new(plot->system, &plot->script, &plot->mock, &err);
    SEL_ASSERT(r == 0);
    plot->engine_options =
        (struct sel_executor_options){.system = plot->system, .mock = plot->mock, .log = no_log};
    r = sel_engine_new(&plot->engine_options, NULL, &plot->engine, &err);
    SEL_ASSERT(r == 0);
}

void sel_plot_draw(struct sel_plot *plot, struct sel_prng *prng,
                   const struct sel_plot_options *options)
{
    int r = SEL_ECONFIG;
    for (int i = 0; i < TRIES_MAX && r < 0; i++)
        r = try_draw(plot, prng, options);
    SEL_ASSERT(r == 0);
    plot->fail_per_mille = options->has_failures ? 20 + (uint32_t)sel_draw_below(prng, 200) : 0;
    plot->retry_per_mille = options->has_retries ? 300 : 0;
    open_engine(plot);
}

void sel_plot_done(struct sel_plot *plot)
{
    plot->engine = sel_engine_free(plot->engine);
    plot->mock = sel_mock_free(plot->mock);
    sel_system_free(plot->system);
    plot->system = NULL;
    sel_buf_done(&plot->nodes);
    sel_buf_done(&plot->flows);
    sel_arena_done(&plot->arena);
}

/* ---- who a run is ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    const uint64_t words[2] = {a, b};
    return sel_hash_bytes(words, sizeof(words), UINT64_C(0x5e110));
}

void sel_forebears_add(struct sel_forebears *lineage, struct sel_str name,
                       const struct sel_part *part)
{
    lineage->sum += mix(part->ident, sel_hash_bytes(name.p, name.n, 1));
    if (lineage->depth < part->depth + 1)
        lineage->depth = part->depth + 1;
}

void sel_part_make(struct sel_part *ret, const struct sel_system *system, uint32_t task,
                   uint32_t attempt, struct sel_str args, const struct sel_forebears *lineage)
{
    uint64_t own = mix(task, attempt);
    *ret = (struct sel_part){.task = task, .depth = lineage->depth, .parents = lineage->sum};
    SEL_ASSERT(task < system->task_count);
    ret->ident = mix(mix(own, sel_hash_bytes(args.p, args.n, 2)), lineage->sum);
}

void sel_cast_done(struct sel_cast *cast)
{
    sel_map_done(&cast->index);
    cast->parts = sel_mem_free(cast->parts);
    cast->count = cast->cap = 0;
    sel_arena_done(&cast->arena);
}

uint32_t sel_cast_find(const struct sel_cast *cast, struct sel_str id)
{
    uint32_t index;
    return sel_map_get(&cast->index, id, &index) ? index : SEL_NONE;
}

uint32_t sel_cast_add(struct sel_cast *cast, struct sel_str id, const struct sel_part *part)
{
    const char *key = sel_arena_strdup(&cast->arena, id);
    SEL_ASSERT(key);
    SEL_ASSERT(
        sel_mem_grow(&cast->parts, &cast->cap, (uint64_t)cast->count + 1, sizeof(*cast->parts)));
    int r = sel_map_add(&cast->index, (struct sel_str){key, id.n}, cast->count, NULL);
    SEL_ASSERT(r == 1);
    cast->parts[cast->count] = *part;
    return cast->count++;
}

/* ---- what it does ---- */

bool sel_part_fails(const struct sel_plot *plot, const struct sel_part *part)
{
    return mix(part->ident, 10) % 1000 < plot->fail_per_mille;
}

uint32_t sel_part_retries(const struct sel_plot *plot, const struct sel_part *part)
{
    uint64_t drawn = mix(part->ident, 11);
    return drawn % 1000 < plot->retry_per_mille ? 1 + (uint32_t)(drawn >> 32) % 3 : 0;
}

bool sel_part_is_counted(const struct sel_part *part, uint32_t k)
{
    return (mix(part->ident, 12) >> (k & 63)) & 1;
}

int sel_plot_numbers(struct sel_arena *arena, uint64_t from, struct sel_value *ret)
{
    struct sel_value_builder list;
    uint32_t count = (uint32_t)(from % FOREACH_MAX);
    sel_value_begin_list(&list, arena);
    for (uint32_t i = 0; i < count; i++) {
        struct sel_value_builder item;
        struct sel_value value;
        sel_value_begin_map(&item, arena);
        sel_value_put_c(&item, "n", sel_value_from_u64((from >> 8) % 7 + i));
        sel_value_put_c(&item, "of", sel_value_from_u64(from >> 1));
        int r = sel_value_end(&item, &value);
        if (r < 0)
            return r;
        sel_value_add(&list, value);
    }
    return sel_value_end(&list, ret);
}

static int make_result(struct sel_arena *arena, const struct sel_part *part, struct sel_value *ret)
{
    struct sel_value_builder map;
    struct sel_value list;
    uint64_t drawn = mix(part->ident, 13);
    int r = sel_plot_numbers(arena, mix(part->ident, 14), &list);
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "n", sel_value_from_u64(drawn % 5));
    sel_value_put_c(&map, "depth", sel_value_from_u64(part->depth));
    if (drawn & 256)
        sel_value_put_c(&map, "odd", sel_value_from_bool(true));
    sel_value_put_c(&map, "list", list);
    return r < 0 ? r : sel_value_end(&map, ret);
}

static const struct sel_part *part_of(const struct sel_cast *cast, const struct sel_state *state,
                                      uint32_t ordinal)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    uint32_t index = sel_cast_find(cast, sel_state_run_id(state, ordinal, text));
    return index == SEL_NONE ? NULL : &cast->parts[index];
}

/* What the function of a foreach is told of: the arguments, and tasks that have ended. */
static int answer_foreach(const struct sel_plot *plot, const struct sel_cast *cast,
                          const struct sel_flow_def *flow, const struct sel_state *state,
                          struct sel_arena *arena, struct sel_need *need)
{
    struct sel_forebears lineage = {0};
    struct sel_str args = sel_state_args(state);
    for (uint32_t i = 0; i < need->combination.count; i++) {
        uint32_t ordinal = need->combination.runs[i];
        uint32_t node = flow->nodes[sel_state_run_slot(state, ordinal)].node;
        if (sel_system_is_flow(plot->system, node))
            continue;
        const struct sel_part *part = part_of(cast, state, ordinal);
        if (!part)
            return SEL_ENOTFOUND;
        sel_forebears_add(&lineage, sel_system_node_name(plot->system, node), part);
    }
    uint64_t drawn = mix(sel_hash_bytes(args.p, args.n, 15), lineage.sum);
    return sel_plot_numbers(arena, mix(drawn, need->combination.edge), &need->value);
}

int sel_plot_answer(const struct sel_plot *plot, const struct sel_cast *cast,
                    const struct sel_flow_def *flow, const struct sel_state *state,
                    struct sel_arena *arena, struct sel_need *need)
{
    const struct sel_part *part;
    switch (need->kind) {
    case SEL_NEED_RESULT:
        part = part_of(cast, state, need->ordinal);
        if (!part || sel_part_fails(plot, part))
            return SEL_ENOTFOUND;
        return make_result(arena, part, &need->value);
    case SEL_NEED_FOREACH:
        return answer_foreach(plot, cast, flow, state, arena, need);
    default:
        return SEL_ENOTFOUND; /* nothing that is drawn asks so */
    }
}

/* ---- counts ---- */

static void count_part(const struct sel_value *map, const char *title, struct sel_buf *buf)
{
    struct sel_str before = {0};
    uint32_t count = sel_value_is(map, SEL_MAP) ? sel_value_count(map) : 0;
    sel_buf_put_c(buf, title);
    for (uint32_t i = 0; i < count; i++) { /* in the order of the names */
        struct sel_str next = {0};
        const struct sel_value *list = NULL;
        for (uint32_t k = 0; k < count; k++) {
            struct sel_str name = sel_value_str(sel_value_key_at(map, k));
            if ((i == 0 || sel_str_cmp(name, before) > 0) &&
                (!next.p || sel_str_cmp(name, next) < 0)) {
                next = name;
                list = sel_value_val_at(map, k);
            }
        }
        sel_buf_printf(buf, " %.*s %u", SEL_STR_ARG(next), list ? sel_value_count(list) : 0);
        before = next;
    }
}

void sel_plot_count(const struct sel_value *nodes, struct sel_buf *buf)
{
    count_part(sel_value_get_c(nodes, "finished_nodes"), "finished:", buf);
    count_part(sel_value_get_c(nodes, "failed_nodes"), "; failed:", buf);
}
