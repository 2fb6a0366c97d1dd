#include "core/compile_internal.h"

/* Which nodes of a flow can start, found from its starting edges on. */
struct spread {
    const struct sel_flow_def *def;
    bool surely; /* only what happens in every run: nothing with a condition, foreach, fallback */
    bool *reached;
    uint32_t *edge_left;   /* sources that are not reached yet */
    uint32_t *choice_left; /* failed nodes that are not reached yet */
    uint32_t *queue;
    uint32_t queued;
};

static bool edge_counts(const struct spread *s, const struct sel_edge_def *edge)
{
    int constant = sel_compile_constant(edge->cond);
    return s->surely ? constant == 1 && !edge->foreach && !edge->selective : constant != 0;
}

static void reach(struct spread *s, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!s->reached[slots[i]])
            s->queue[s->queued++] = slots[i];
        s->reached[slots[i]] = true;
    }
}

static void reach_edge(struct spread *s, uint32_t e)
{
    const struct sel_edge_def *edge = &s->def->edges[e];
    if (edge_counts(s, edge))
        reach(s, edge->to, edge->to_count);
}

static void reach_choice(struct spread *s, uint32_t i)
{
    const struct sel_choice_def *choice = &s->def->choices[i];
    for (uint32_t k = 0; k < choice->fallback_count; k++) {
        if (sel_compile_constant(choice->fallbacks[k].cond) != 0)
            reach(s, choice->fallbacks[k].nodes, choice->fallbacks[k].node_count);
    }
}

/* False: no memory. Each node is taken from the queue once, each edge looked at once a source. */
static bool spread_run(struct sel_compiler *c, struct spread *s)
{
    const struct sel_flow_def *def = s->def;
    s->reached = SEL_COMPILE_SCRATCH(c, bool, def->node_count);
    s->queue = SEL_COMPILE_SCRATCH(c, uint32_t, def->node_count);
    s->edge_left = SEL_COMPILE_SCRATCH(c, uint32_t, def->edge_count);
    s->choice_left = SEL_COMPILE_SCRATCH(c, uint32_t, def->choice_count);
    if (c->no_memory)
        return false;
    for (uint32_t e = 0; e < def->edge_count; e++)
        s->edge_left[e] = def->edges[e].from_count;
    for (uint32_t i = 0; i < def->choice_count; i++)
        s->choice_left[i] = def->choices[i].failed_count;
    for (uint32_t i = 0; i < def->start_edge_count; i++)
        reach_edge(s, def->start_edges[i]);
    for (uint32_t at = 0; at < s->queued; at++) {
        const struct sel_flow_node *node = &def->nodes[s->queue[at]];
        for (uint32_t i = 0; i < node->out_edge_count; i++) {
            if (--s->edge_left[node->out_edges[i]] == 0)
                reach_edge(s, node->out_edges[i]);
        }
        for (uint32_t i = 0; !s->surely && i < node->choice_count; i++) {
            if (--s->choice_left[node->choices[i]] == 0)
                reach_choice(s, node->choices[i]);
        }
    }
    return true;
}

/* --- what never happens --- */

static void warn_unreached(struct sel_compiler *c, const struct sel_compile_flow *flow,
                           const struct spread *s)
{
    const struct sel_flow_def *def = flow->def;
    for (uint32_t i = 0; i < def->node_count; i++) {
        if (!s->reached[i])
            sel_diag_warning(c->diag, c->slots[i].pos, "nothing ever starts '%s' in this flow",
                             sel_compile_slot_name(c, i));
    }
    const struct sel_ynode *trees = sel_yaml_get(flow->tree, "edges");
    for (uint32_t e = 0; e < def->edge_count; e++) {
        const struct sel_edge_def *edge = &def->edges[e];
        if (sel_compile_constant(edge->cond) == 0) {
            sel_diag_warning(c->diag, trees->list.items[e]->pos,
                             "this edge can never fire: its condition is always false");
            continue;
        }
        for (uint32_t i = 0; s->edge_left[e] > 0 && i < edge->from_count; i++) {
            if (s->reached[edge->from[i]])
                continue;
            sel_diag_warning(c->diag, trees->list.items[e]->pos,
                             "this edge can never fire: nothing ever starts '%s'",
                             sel_compile_slot_name(c, edge->from[i]));
            break;
        }
    }
}

/* --- what never ends --- */

/* Most flows go forward only: a look at the slots, which count up in the order of the file, spares
 * them the search. */
static bool goes_back(const struct sel_flow_def *def)
{
    for (uint32_t e = 0; e < def->edge_count; e++) {
        const struct sel_edge_def *edge = &def->edges[e];
        uint32_t last = 0, first = UINT32_MAX;
        for (uint32_t i = 0; i < edge->from_count; i++)
            last = edge->from[i] > last ? edge->from[i] : last;
        for (uint32_t i = 0; i < edge->to_count; i++)
            first = edge->to[i] < first ? edge->to[i] : first;
        if (edge->from_count > 0 && first <= last)
            return true;
    }
    return false;
}

/* Slots, then edges, as vertices: only edges that fire whenever their sources end, and that can
 * fire at all. */
static bool sure_graph(struct sel_compiler *c, const struct spread *s, struct sel_compile_graph *g)
{
    const struct sel_flow_def *def = s->def;
    const struct spread sure = {.surely = true};
    size_t arc_max = 0;
    uint32_t arc_count = 0;
    for (uint32_t e = 0; e < def->edge_count; e++)
        arc_max += (size_t)def->edges[e].from_count + def->edges[e].to_count;
    g->vertex_count = def->node_count + def->edge_count;
    g->first = SEL_COMPILE_SCRATCH(c, uint32_t, (size_t)g->vertex_count + 1);
    g->head = SEL_COMPILE_SCRATCH(c, uint32_t, arc_max);
    if (c->no_memory)
        return false;
    for (uint32_t i = 0; i < def->node_count; i++) {
        const struct sel_flow_node *node = &def->nodes[i];
        g->first[i] = arc_count;
        for (uint32_t k = 0; k < node->out_edge_count; k++) {
            uint32_t e = node->out_edges[k];
            if (s->edge_left[e] == 0 && edge_counts(&sure, &def->edges[e]))
                g->head[arc_count++] = def->node_count + e;
        }
    }
    for (uint32_t e = 0; e < def->edge_count; e++) {
        g->first[def->node_count + e] = arc_count;
        for (uint32_t i = 0; i < def->edges[e].to_count; i++)
            g->head[arc_count++] = def->edges[e].to[i];
    }
    g->first[g->vertex_count] = arc_count;
    return true;
}

#define WAY_NAMES_MAX 8

/* "A -> B -> A" of the vertices below `limit`; a long way is cut. */
static const char *way_text(struct sel_compiler *c, const uint32_t *way, uint32_t count,
                            uint32_t limit,
                            const char *(*name)(const struct sel_compiler *, uint32_t))
{
    const char *text = "";
    const char *first = "";
    uint32_t shown = 0;
    for (uint32_t i = 0; text && i < count && shown <= WAY_NAMES_MAX; i++) {
        if (way[i] >= limit)
            continue;
        first = shown == 0 ? name(c, way[i]) : first;
        text = sel_arena_printf(&c->scratch, "%s%s -> ", text,
                                shown == WAY_NAMES_MAX ? "..." : name(c, way[i]));
        shown++;
    }
    if (text)
        text = sel_arena_printf(&c->scratch, "%s%s", text, first);
    if (!text)
        c->no_memory = true;
    return text ? text : "";
}

static void warn_endless(struct sel_compiler *c, const struct sel_compile_flow *flow,
                         const struct spread *s)
{
    struct sel_compile_graph g;
    uint32_t cycle_count = 0, length;
    if (!goes_back(flow->def) || !sure_graph(c, s, &g))
        return;
    const uint32_t *component = sel_compile_graph_components(c, &g);
    const uint32_t *cycles =
        component ? sel_compile_graph_cycles(c, &g, component, &cycle_count) : NULL;
    const struct sel_ynode *trees = sel_yaml_get(flow->tree, "edges");
    for (uint32_t i = 0; cycles && i < cycle_count; i++) {
        const uint32_t *way = sel_compile_graph_way(c, &g, component, cycles[i], &length);
        if (!way)
            return;
        /* Slots and edges take turns on the way, which begins with a slot: they come first. */
        uint32_t edge = way[1] - flow->def->node_count;
        sel_diag_warning(c->diag, trees->list.items[edge]->pos,
                         "the flow never ends: %s goes round without a condition",
                         way_text(c, way, length, flow->def->node_count, sel_compile_slot_name));
    }
}

/* --- flows that start flows --- */

/* Sub-flows that every run of the flow starts. */
static void note_started(struct sel_compiler *c, const struct sel_flow_def *def)
{
    struct spread s = {.def = def, .surely = true};
    uint32_t flow_count = 0;
    for (uint32_t i = 0; i < def->node_count; i++)
        flow_count += sel_compile_is_flow(c, def->nodes[i].node);
    if (flow_count == 0 || def->index == SEL_NONE || !spread_run(c, &s))
        return;
    struct sel_compile_flow_info *info = &c->flows[def->index];
    info->started = SEL_COMPILE_SCRATCH(c, uint32_t, flow_count);
    for (uint32_t i = 0; info->started && i < def->node_count; i++) {
        if (s.reached[i] && sel_compile_is_flow(c, def->nodes[i].node))
            info->started[info->started_count++] = def->nodes[i].node - c->system->task_count;
    }
}

static const char *flow_name(const struct sel_compiler *c, uint32_t flow)
{
    return c->system->flows[flow].name.p;
}

/* False: no memory, or no flow starts another. */
static bool started_graph(struct sel_compiler *c, struct sel_compile_graph *g)
{
    uint32_t flow_count = c->system->flow_count;
    size_t arc_max = 0;
    uint32_t arc_count = 0;
    for (uint32_t f = 0; f < flow_count; f++)
        arc_max += c->flows[f].started_count;
    if (arc_max == 0)
        return false;
    g->vertex_count = flow_count;
    g->first = SEL_COMPILE_SCRATCH(c, uint32_t, (size_t)flow_count + 1);
    g->head = SEL_COMPILE_SCRATCH(c, uint32_t, arc_max);
    for (uint32_t f = 0; !c->no_memory && f < flow_count; f++) {
        g->first[f] = arc_count;
        for (uint32_t i = 0; i < c->flows[f].started_count; i++)
            g->head[arc_count++] = c->flows[f].started[i];
        g->first[f + 1] = arc_count;
    }
    return !c->no_memory;
}

static void warn_recursion(struct sel_compiler *c)
{
    struct sel_compile_graph g;
    uint32_t cycle_count = 0, length;
    if (!started_graph(c, &g))
        return;
    const uint32_t *component = sel_compile_graph_components(c, &g);
    const uint32_t *cycles =
        component ? sel_compile_graph_cycles(c, &g, component, &cycle_count) : NULL;
    for (uint32_t i = 0; cycles && i < cycle_count; i++) {
        const uint32_t *way = sel_compile_graph_way(c, &g, component, cycles[i], &length);
        if (!way)
            return;
        sel_diag_warning(c->diag, c->flows[cycles[i]].listed->pos,
                         "the flow starts itself without a condition, so that it never ends: %s",
                         way_text(c, way, length, g.vertex_count, flow_name));
    }
}

/* Which flows hold a task, themselves or in their sub-flows. A pass more for each level of nesting
 * that is told from the outside in. */
static bool *flows_with_tasks(struct sel_compiler *c)
{
    const struct sel_system *s = c->system;
    bool *has_task = SEL_COMPILE_SCRATCH(c, bool, s->flow_count);
    bool is_changed = has_task != NULL;
    while (is_changed) {
        is_changed = false;
        for (uint32_t f = 0; f < s->flow_count; f++) {
            for (uint32_t i = 0; !has_task[f] && i < s->flows[f].node_count; i++) {
                uint32_t node = s->flows[f].nodes[i].node;
                has_task[f] = node < s->task_count || has_task[node - s->task_count];
                is_changed = is_changed || has_task[f];
            }
        }
    }
    return has_task;
}

static void warn_nothing_finished(struct sel_compiler *c)
{
    const bool *has_task = c->finished ? flows_with_tasks(c) : NULL;
    for (const struct sel_compile_finished *f = c->finished; has_task && f; f = f->next) {
        if (!has_task[f->target - c->system->task_count])
            sel_diag_warning(c->diag, f->name->pos,
                             "the flow '%s' has no tasks whose results could be propagated",
                             sel_compile_node_name(c, f->target));
    }
}

/* --- selective runs --- */

/* Marks what the edges of `flow` start; adds its sub-flows to the queue. */
static void mark_started(struct sel_compiler *c, uint32_t flow, uint32_t *queue, uint32_t *queued)
{
    const struct sel_flow_def *def = &c->system->flows[flow];
    for (uint32_t e = 0; e < def->edge_count; e++) {
        for (uint32_t i = 0; i < def->edges[e].to_count; i++) {
            uint32_t node = def->nodes[def->edges[e].to[i]].node;
            if (c->slot_round[node] == c->round)
                continue;
            c->slot_round[node] = c->round;
            if (sel_compile_is_flow(c, node))
                queue[(*queued)++] = node - c->system->task_count;
        }
    }
}

/* A run that asks for a task that no edge starts fails. */
static void warn_no_path(struct sel_compiler *c, const struct sel_compile_selective *selective,
                         uint32_t *queue)
{
    uint32_t queued = 0;
    bool follows = selective->edge->selective->follow_subflows;
    c->round++;
    queue[queued++] = selective->target - c->system->task_count;
    for (uint32_t at = 0; at < queued && (at == 0 || follows); at++)
        mark_started(c, queue[at], queue, &queued);
    for (uint32_t i = 0; i < selective->tasks->list.count; i++) {
        const struct sel_ynode *name = selective->tasks->list.items[i];
        uint32_t node = sel_system_find(c->system, name->text);
        if (node != SEL_NONE && c->slot_round[node] == c->round)
            continue;
        const char *flow = sel_compile_node_name(c, selective->target);
        if (node == SEL_NONE)
            sel_diag_warning(c->diag, name->pos,
                             "selective runs of this edge fail: task '%s' is not declared%s",
                             sel_compile_show(c, name->text),
                             sel_compile_hint_node(c, name->text, SEL_COMPILE_TASKS, ""));
        else
            sel_diag_warning(c->diag, name->pos,
                             "selective runs of this edge fail: no edge of '%s'%s starts '%s'%s",
                             flow, follows ? " or its sub-flows" : "",
                             sel_compile_node_name(c, node),
                             follows ? "" : "; `follow_subflows: true` would look further");
    }
}

/* --- */

void sel_compile_reach_flow(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    struct spread s = {.def = flow->def};
    if (!spread_run(c, &s))
        return;
    warn_unreached(c, flow, &s);
    warn_endless(c, flow, &s);
    note_started(c, flow->def);
}

void sel_compile_reach_system(struct sel_compiler *c)
{
    warn_recursion(c);
    warn_nothing_finished(c);
    /* The target itself stands first and may be found again. */
    uint32_t *queue = SEL_COMPILE_SCRATCH(c, uint32_t, (size_t)c->system->flow_count + 1);
    for (const struct sel_compile_selective *s = c->selectives; queue && s; s = s->next)
        warn_no_path(c, s, queue);
}
