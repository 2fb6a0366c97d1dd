/* Any two texts as a configuration, with and without the consistency check: a system whose parts
 * hold together, or errors with their places. The flow file begins after a line `%%`. */
#include <stdint.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *fake_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return name[0] == 'A' ? "a" : NULL;
}

static const struct sel_predicate_world world = {fake_getenv, NULL};

/* ---- what every system promises ---- */

static void check_slots(const struct sel_flow_def *flow, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        SEL_ASSERT(slots[i] < flow->node_count);
}

static void check_edge(const struct sel_flow_def *flow, const struct sel_edge_def *edge)
{
    SEL_ASSERT(edge->cond && edge->cond_text);
    SEL_ASSERT(edge->to_count > 0);
    check_slots(flow, edge->from, edge->from_count);
    check_slots(flow, edge->to, edge->to_count);
    for (uint32_t i = 1; i < edge->from_count; i++)
        SEL_ASSERT(edge->from[i] != edge->from[i - 1]);
}

static void check_choices(const struct sel_flow_def *flow)
{
    for (uint32_t i = 0; i < flow->choice_count; i++) {
        const struct sel_choice_def *choice = &flow->choices[i];
        SEL_ASSERT(choice->failed_count > 0 && choice->fallback_count > 0);
        SEL_ASSERT(i == 0 || choice->failed_count <= choice[-1].failed_count);
        check_slots(flow, choice->failed, choice->failed_count);
        for (uint32_t k = 0; k < choice->fallback_count; k++) {
            SEL_ASSERT(choice->fallbacks[k].cond && choice->fallbacks[k].cond_text);
            check_slots(flow, choice->fallbacks[k].nodes, choice->fallbacks[k].node_count);
        }
    }
}

static void check_node(const struct sel_system *s, const struct sel_flow_def *flow, uint32_t slot)
{
    const struct sel_flow_node *node = &flow->nodes[slot];
    SEL_ASSERT(node->node < s->task_count + s->flow_count);
    SEL_ASSERT(sel_system_slot(s, flow, sel_system_node_name(s, node->node)) == slot);
    for (uint32_t i = 0; i < node->out_edge_count; i++) {
        const struct sel_edge_def *edge = &flow->edges[node->out_edges[i]];
        SEL_ASSERT(node->out_pos[i] < edge->from_count);
        SEL_ASSERT(edge->from[node->out_pos[i]] == slot);
    }
    for (uint32_t i = 0; i < node->choice_count; i++)
        SEL_ASSERT(node->choices[i] < flow->choice_count);
}

static void check_system(const struct sel_system *s)
{
    for (uint32_t i = 0; i < s->task_count; i++) {
        const struct sel_task_def *task = &s->tasks[i];
        SEL_ASSERT(sel_system_find(s, task->name) == i);
        SEL_ASSERT(task->storage == SEL_NONE || task->storage < s->storage_count);
        SEL_ASSERT(task->retry_countdown_us >= 0 && task->throttle_us >= 0);
    }
    for (uint32_t f = 0; f < s->flow_count; f++) {
        const struct sel_flow_def *flow = &s->flows[f];
        SEL_ASSERT(sel_system_find_flow(s, flow->name) == flow && flow->index == f);
        SEL_ASSERT(flow->edge_count > 0);
        for (uint32_t e = 0; e < flow->edge_count; e++)
            check_edge(flow, &flow->edges[e]);
        check_choices(flow);
        for (uint32_t slot = 0; slot < flow->node_count; slot++)
            check_node(s, flow, slot);
    }
}

static int no_message(void *ctx, uint32_t from_index, const struct sel_value **ret)
{
    (void)ctx;
    SEL_ASSERT(from_index != SEL_COND_NO_NODE);
    *ret = &sel_value_null;
    return 0;
}

static int no_answer(void *ctx, const struct sel_cond *leaf, const struct sel_value *message)
{
    (void)ctx;
    (void)leaf;
    (void)message;
    return 0;
}

/* Conditions answer whatever their arguments are; unchecked ones may lack some. */
static void evaluate(const struct sel_system *s)
{
    const struct sel_cond_env env = {.world = &world, .message = no_message, .external = no_answer};
    for (uint32_t f = 0; f < s->flow_count; f++) {
        for (uint32_t e = 0; e < s->flows[f].edge_count; e++) {
            int r = sel_cond_eval(s->flows[f].edges[e].cond, &env);
            SEL_ASSERT(r == 0 || r == 1);
        }
    }
}

static void compile(struct sel_str nodes, struct sel_str flows, bool no_check)
{
    struct sel_arena arena = {0};
    struct sel_source source = {"f.yaml", flows};
    struct sel_compile_options options = {.nodes = {"n.yaml", nodes},
                                          .flows = &source,
                                          .flow_count = 1,
                                          .world = &world,
                                          .no_check = no_check};
    struct sel_system *system = NULL;
    struct sel_diag diag;
    sel_diag_init(&diag, &arena);
    int r = sel_compile(&options, &diag, &system);
    SEL_ASSERT(r == 0 || r == SEL_ECONFIG);
    SEL_ASSERT((r == 0) == (diag.error_count == 0));
    for (const struct sel_diag_item *i = diag.first; i; i = i->next)
        SEL_ASSERT(i->pos.file && i->pos.line > 0 && i->text[0]);
    if (r == 0) {
        check_system(system);
        evaluate(system);
    }
    sel_system_free(system);
    sel_arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char mark[] = "\n%%\n";
    struct sel_str text = {(const char *)data, size};
    const char *split = size ? memmem(data, size, mark, sizeof(mark) - 1) : NULL;
    struct sel_str nodes = text, flows = text; /* without the mark: one file for both */
    if (split) {
        nodes.n = (size_t)(split - text.p) + 1;
        flows.p = split + sizeof(mark) - 1;
        flows.n = (size_t)(text.p + size - flows.p);
    }
    compile(nodes, flows, false);
    compile(nodes, flows, true);
    return 0;
}
