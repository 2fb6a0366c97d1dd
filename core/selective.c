#include "core/selective.h"

#include "core/arena.h"
#include "core/mem.h"

/* What is known of one flow while a plan is made. */
struct flow_draft {
    const struct sel_flow_def *flow;
    bool known;       /* the plan has it, perhaps with no edges */
    bool **chosen;    /* by edge: NULL, or flags by slot */
    bool *subsequent; /* by edge */
};

struct draft {
    struct sel_arena *arena;
    const struct sel_system *system;
    struct flow_draft *flows; /* by flow index */
    /* pairs (flow, node of it) still to be looked for */
    struct {
        uint32_t flow, node;
    } * stack;
    uint32_t stack_count, stack_cap;
};

static int draft_know(struct draft *draft, uint32_t flow)
{
    struct flow_draft *f = &draft->flows[flow];
    if (f->known)
        return 0;
    f->flow = &draft->system->flows[flow];
    f->chosen = SEL_ARENA_NEW_ARRAY(draft->arena, bool *, f->flow->edge_count + 1);
    f->subsequent = SEL_ARENA_NEW_ARRAY(draft->arena, bool, f->flow->edge_count + 1);
    if (!f->chosen || !f->subsequent)
        return SEL_ENOMEM;
    f->known = true;
    return 0;
}

static int choose(struct draft *draft, struct flow_draft *f, uint32_t edge, uint32_t slot)
{
    if (!f->chosen[edge]) {
        f->chosen[edge] = SEL_ARENA_NEW_ARRAY(draft->arena, bool, f->flow->node_count);
        if (!f->chosen[edge])
            return SEL_ENOMEM;
    }
    f->chosen[edge][slot] = true;
    return 0;
}

static bool edge_is_reachable(const struct sel_edge_def *edge, const bool *reachable)
{
    for (uint32_t i = 0; i < edge->from_count; i++) {
        if (!reachable[edge->from[i]])
            return false;
    }
    return true;
}

/* Slots that edges can start at all: the largest set in which each has an edge all of whose
 * sources are in the set (a cycle supports itself). Fallback nodes are not in it. */
static bool *find_reachable(struct draft *draft, const struct sel_flow_def *flow)
{
    bool *reachable = SEL_ARENA_NEW_ARRAY(draft->arena, bool, flow->node_count + 1);
    uint32_t *supports = SEL_ARENA_NEW_ARRAY(draft->arena, uint32_t, flow->node_count + 1);
    if (!reachable || !supports)
        return NULL;
    memset(reachable, 1, flow->node_count);
    for (bool changed = true; changed;) { /* each round but the last takes a slot out */
        changed = false;
        memset(supports, 0, sizeof(*supports) * flow->node_count);
        for (uint32_t e = 0; e < flow->edge_count; e++) {
            const struct sel_edge_def *edge = &flow->edges[e];
            if (!edge_is_reachable(edge, reachable))
                continue;
            for (uint32_t i = 0; i < edge->to_count; i++)
                supports[edge->to[i]]++;
        }
        for (uint32_t s = 0; s < flow->node_count; s++) {
            if (reachable[s] && supports[s] == 0) {
                reachable[s] = false;
                changed = true;
            }
        }
    }
    return reachable;
}

static bool edge_starts(const struct sel_edge_def *edge, uint32_t slot)
{
    for (uint32_t i = 0; i < edge->to_count; i++) {
        if (edge->to[i] == slot)
            return true;
    }
    return false;
}

/* Adds all paths to `slot`; *ret_found tells whether there is one. */
static int add_paths(struct draft *draft, struct flow_draft *f, uint32_t slot, bool *ret_found)
{
    const struct sel_flow_def *flow = f->flow;
    bool *reachable = find_reachable(draft, flow);
    bool *seen = SEL_ARENA_NEW_ARRAY(draft->arena, bool, flow->node_count + 1);
    uint32_t *todo = SEL_ARENA_NEW_ARRAY(draft->arena, uint32_t, flow->node_count + 1);
    if (!reachable || !seen || !todo)
        return SEL_ENOMEM;
    *ret_found = slot != SEL_NONE && reachable[slot];
    if (!*ret_found)
        return 0;
    uint32_t todo_count = 0;
    todo[todo_count++] = slot;
    seen[slot] = true;
    while (todo_count > 0) {
        uint32_t target = todo[--todo_count];
        for (uint32_t e = 0; e < flow->edge_count; e++) {
            const struct sel_edge_def *edge = &flow->edges[e];
            if (!edge_starts(edge, target) || !edge_is_reachable(edge, reachable))
                continue;
            int r = choose(draft, f, e, target);
            if (r < 0)
                return r;
            for (uint32_t i = 0; i < edge->from_count; i++) {
                if (!seen[edge->from[i]]) {
                    seen[edge->from[i]] = true;
                    todo[todo_count++] = edge->from[i];
                }
            }
        }
    }
    return 0;
}

static int push_pair(struct draft *draft, uint32_t flow, uint32_t node)
{
    if (draft->stack_count == draft->stack_cap) {
        uint32_t cap = draft->stack_cap ? draft->stack_cap * 2 : 64;
        void *stack = sel_arena_alloc_array(draft->arena, cap, sizeof(*draft->stack));
        if (!stack)
            return SEL_ENOMEM;
        if (draft->stack_count)
            memcpy(stack, draft->stack, draft->stack_count * sizeof(*draft->stack));
        draft->stack = stack;
        draft->stack_cap = cap;
    }
    draft->stack[draft->stack_count].flow = flow;
    draft->stack[draft->stack_count++].node = node;
    return 0;
}

/* All flows that edges start below `top`, itself only if one of them starts it. */
static int find_subflows(struct draft *draft, uint32_t top, bool *is_subflow)
{
    const struct sel_system *s = draft->system;
    uint32_t *todo = SEL_ARENA_NEW_ARRAY(draft->arena, uint32_t, s->flow_count + 1);
    if (!todo)
        return SEL_ENOMEM;
    uint32_t todo_count = 0;
    todo[todo_count++] = top;
    while (todo_count > 0) {
        const struct sel_flow_def *flow = &s->flows[todo[--todo_count]];
        for (uint32_t e = 0; e < flow->edge_count; e++) {
            for (uint32_t i = 0; i < flow->edges[e].to_count; i++) {
                uint32_t node = flow->nodes[flow->edges[e].to[i]].node;
                if (!sel_system_is_flow(s, node) || is_subflow[node - s->task_count])
                    continue;
                is_subflow[node - s->task_count] = true;
                if (node - s->task_count != top)
                    todo[todo_count++] = node - s->task_count;
            }
        }
    }
    return 0;
}

static bool flow_starts(const struct sel_system *s, const struct sel_flow_def *flow, uint32_t node)
{
    uint32_t slot = sel_system_slot(s, flow, sel_system_node_name(s, node));
    for (uint32_t e = 0; slot != SEL_NONE && e < flow->edge_count; e++) {
        if (edge_starts(&flow->edges[e], slot))
            return true;
    }
    return false;
}

/* Paths to all pairs on the stack, and from each sub-flow that has one up to the top. */
static int add_all_paths(struct draft *draft, uint32_t top, const bool *is_subflow)
{
    const struct sel_system *s = draft->system;
    bool *lifted = SEL_ARENA_NEW_ARRAY(draft->arena, bool, s->flow_count + 1);
    if (!lifted)
        return SEL_ENOMEM;
    while (draft->stack_count > 0) {
        draft->stack_count--;
        uint32_t flow = draft->stack[draft->stack_count].flow;
        uint32_t node = draft->stack[draft->stack_count].node;
        int r = draft_know(draft, flow);
        if (r < 0)
            return r;
        const struct sel_flow_def *def = &s->flows[flow];
        bool found;
        uint32_t slot =
            node == SEL_NONE ? SEL_NONE : sel_system_slot(s, def, sel_system_node_name(s, node));
        r = add_paths(draft, &draft->flows[flow], slot, &found);
        if (r < 0)
            return r;
        if (!found || flow == top || lifted[flow])
            continue;
        lifted[flow] = true;
        for (uint32_t parent = 0; parent < s->flow_count && r == 0; parent++) {
            if ((parent == top || is_subflow[parent]) &&
                flow_starts(s, &s->flows[parent], s->task_count + flow))
                r = push_pair(draft, parent, s->task_count + flow);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static bool is_chosen(const struct draft *draft, struct sel_str name)
{
    const struct sel_system *s = draft->system;
    for (uint32_t f = 0; f < s->flow_count; f++) {
        const struct flow_draft *fd = &draft->flows[f];
        uint32_t slot = fd->known ? sel_system_slot(s, fd->flow, name) : SEL_NONE;
        for (uint32_t e = 0; slot != SEL_NONE && e < fd->flow->edge_count; e++) {
            if (fd->chosen[e] && fd->chosen[e][slot])
                return true;
        }
    }
    return false;
}

/* Edges all of whose sources are selected or come after a selected one; they start everything. */
static int add_subsequent(struct draft *draft, struct flow_draft *f,
                          const struct sel_selective_request *request)
{
    const struct sel_flow_def *flow = f->flow;
    bool *desired = SEL_ARENA_NEW_ARRAY(draft->arena, bool, flow->node_count + 1);
    if (!desired)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < request->task_count; i++) {
        uint32_t slot = sel_system_slot(draft->system, flow, request->tasks[i]);
        if (slot != SEL_NONE)
            desired[slot] = true;
    }
    for (bool changed = true; changed;) { /* each round but the last adds an edge */
        changed = false;
        for (uint32_t e = 0; e < flow->edge_count; e++) {
            const struct sel_edge_def *edge = &flow->edges[e];
            if (edge->from_count == 0 || f->subsequent[e] || !edge_is_reachable(edge, desired))
                continue;
            f->subsequent[e] = true;
            changed = true;
            for (uint32_t i = 0; i < edge->to_count; i++) {
                desired[edge->to[i]] = true;
                int r = choose(draft, f, e, edge->to[i]);
                if (r < 0)
                    return r;
            }
        }
    }
    return 0;
}

static bool wants_subsequent(const struct sel_selective_request *request, struct sel_str flow)
{
    if (!request->run_subsequent)
        return false;
    for (uint32_t i = 0; i < request->subsequent_flow_count; i++) {
        if (sel_str_eq(request->subsequent_flows[i], flow))
            return true;
    }
    return request->subsequent_flow_count == 0;
}

static int finish_flow(struct draft *draft, const struct flow_draft *f, struct sel_plan_flow *out)
{
    out->flow = f->flow->index;
    out->edges = SEL_ARENA_NEW_ARRAY(draft->arena, struct sel_plan_edge, f->flow->edge_count + 1);
    if (!out->edges)
        return SEL_ENOMEM;
    for (uint32_t e = 0; e < f->flow->edge_count; e++) {
        if (!f->chosen[e])
            continue;
        struct sel_plan_edge *edge = &out->edges[out->edge_count++];
        edge->edge = e;
        edge->subsequent = f->subsequent[e];
        edge->slots = SEL_ARENA_NEW_ARRAY(draft->arena, uint32_t, f->flow->node_count + 1);
        if (!edge->slots)
            return SEL_ENOMEM;
        for (uint32_t s = 0; s < f->flow->node_count; s++) {
            if (f->chosen[e][s])
                edge->slots[edge->slot_count++] = s;
        }
    }
    return 0;
}

static int finish_plan(struct draft *draft, const struct sel_selective_request *request,
                       const struct sel_plan **ret)
{
    struct sel_plan *plan = SEL_ARENA_NEW(draft->arena, struct sel_plan);
    if (!plan)
        return SEL_ENOMEM;
    plan->tasks = SEL_ARENA_NEW_ARRAY(draft->arena, struct sel_str, request->task_count + 1);
    plan->flows =
        SEL_ARENA_NEW_ARRAY(draft->arena, struct sel_plan_flow, draft->system->flow_count + 1);
    if (!plan->tasks || !plan->flows)
        return SEL_ENOMEM;
    for (uint32_t i = 0; i < request->task_count; i++) {
        char *copy = sel_arena_strdup(draft->arena, request->tasks[i]);
        if (!copy)
            return SEL_ENOMEM;
        plan->tasks[plan->task_count++] = (struct sel_str){copy, request->tasks[i].n};
    }
    for (uint32_t f = 0; f < draft->system->flow_count; f++) {
        if (!draft->flows[f].known)
            continue;
        int r = finish_flow(draft, &draft->flows[f], &plan->flows[plan->flow_count++]);
        if (r < 0)
            return r;
    }
    *ret = plan;
    return 0;
}

static int draft_begin(struct draft *draft, const struct sel_flow_def *flow,
                       const struct sel_selective_request *request, bool **ret_subflows)
{
    const struct sel_system *s = draft->system;
    draft->flows = SEL_ARENA_NEW_ARRAY(draft->arena, struct flow_draft, s->flow_count + 1);
    bool *is_subflow = SEL_ARENA_NEW_ARRAY(draft->arena, bool, s->flow_count + 1);
    if (!draft->flows || !is_subflow)
        return SEL_ENOMEM;
    *ret_subflows = is_subflow;
    int r = request->follow_subflows ? find_subflows(draft, flow->index, is_subflow) : 0;
    if (r == 0)
        r = draft_know(draft, flow->index);
    for (uint32_t i = 0; i < request->task_count && r == 0; i++) {
        uint32_t node = sel_system_find(s, request->tasks[i]);
        r = push_pair(draft, flow->index, node);
        for (uint32_t f = 0; f < s->flow_count && r == 0; f++) {
            if (is_subflow[f])
                r = push_pair(draft, f, node);
        }
    }
    return r;
}

int sel_plan_compute(struct sel_arena *arena, const struct sel_system *system,
                     const struct sel_flow_def *flow, const struct sel_selective_request *request,
                     const struct sel_plan **ret, struct sel_error *err)
{
    struct draft draft = {.arena = arena, .system = system};
    bool *is_subflow;
    int r = draft_begin(&draft, flow, request, &is_subflow);
    if (r == 0)
        r = add_all_paths(&draft, flow->index, is_subflow);
    if (r < 0)
        return sel_error_set(err, r, flow->pos, "%s", sel_error_text(r));
    for (uint32_t i = 0; i < request->task_count; i++) {
        if (!is_chosen(&draft, request->tasks[i]))
            return sel_error_set(
                err, SEL_ENOPATH, (struct sel_pos){0}, "no path leads to '%.*s' in flow '%.*s'%s",
                SEL_STR_ARG(request->tasks[i]), SEL_STR_ARG(flow->name),
                request->follow_subflows ? " or its sub-flows" : "; sub-flows were not looked at");
    }
    for (uint32_t f = 0; f < system->flow_count && r == 0; f++) {
        if (draft.flows[f].known && wants_subsequent(request, system->flows[f].name))
            r = add_subsequent(&draft, &draft.flows[f], request);
    }
    if (r == 0)
        r = finish_plan(&draft, request, ret);
    return r < 0 ? sel_error_set(err, r, flow->pos, "%s", sel_error_text(r)) : 0;
}

/* ---- reading ---- */

const struct sel_plan_flow *sel_plan_flow(const struct sel_plan *plan, uint32_t flow)
{
    for (uint32_t i = 0; i < plan->flow_count; i++) {
        if (plan->flows[i].flow == flow)
            return &plan->flows[i];
    }
    return NULL;
}

const struct sel_plan_edge *sel_plan_edge(const struct sel_plan_flow *flow, uint32_t edge)
{
    uint32_t low = 0, high = flow->edge_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (flow->edges[mid].edge < edge)
            low = mid + 1;
        else
            high = mid;
    }
    return low < flow->edge_count && flow->edges[low].edge == edge ? &flow->edges[low] : NULL;
}

bool sel_plan_has_slot(const struct sel_plan_edge *edge, uint32_t slot)
{
    for (uint32_t i = 0; i < edge->slot_count; i++) {
        if (edge->slots[i] == slot)
            return true;
    }
    return false;
}

bool sel_plan_has_task(const struct sel_plan *plan, struct sel_str task)
{
    for (uint32_t i = 0; i < plan->task_count; i++) {
        if (sel_str_eq(plan->tasks[i], task))
            return true;
    }
    return false;
}

/* ---- as a value ---- */

static int edge_to_value(struct sel_arena *arena, const struct sel_system *system,
                         const struct sel_flow_def *flow, const struct sel_plan_edge *edge,
                         struct sel_value_builder *subset)
{
    struct sel_value_builder names;
    sel_value_begin_list(&names, arena);
    for (uint32_t i = 0; i < edge->slot_count; i++)
        sel_value_add(&names, sel_value_from_str(
                                  sel_system_node_name(system, flow->nodes[edge->slots[i]].node)));
    struct sel_value list;
    const char *key = sel_arena_printf(arena, "%u", edge->edge);
    if (sel_value_end(&names, &list) < 0 || !key)
        return SEL_ENOMEM;
    sel_value_put_c(subset, key, list);
    return 0;
}

int sel_plan_to_value(struct sel_arena *arena, const struct sel_system *system,
                      const struct sel_plan *plan, struct sel_value *ret)
{
    struct sel_value_builder tasks, flows, top;
    sel_value_begin_list(&tasks, arena);
    for (uint32_t i = 0; i < plan->task_count; i++)
        sel_value_add(&tasks, sel_value_from_str(plan->tasks[i]));
    sel_value_begin_map(&flows, arena);
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        const struct sel_flow_def *flow = &system->flows[plan->flows[f].flow];
        struct sel_value_builder subset;
        struct sel_value value;
        sel_value_begin_map(&subset, arena);
        for (uint32_t e = 0; e < plan->flows[f].edge_count; e++) {
            if (edge_to_value(arena, system, flow, &plan->flows[f].edges[e], &subset) < 0)
                return SEL_ENOMEM;
        }
        if (sel_value_end(&subset, &value) < 0)
            return SEL_ENOMEM;
        sel_value_put(&flows, flow->name, value);
    }
    struct sel_value task_list, flow_map;
    if (sel_value_end(&tasks, &task_list) < 0 || sel_value_end(&flows, &flow_map) < 0)
        return SEL_ENOMEM;
    sel_value_begin_map(&top, arena);
    sel_value_put_c(&top, "task_names", task_list);
    sel_value_put_c(&top, "waiting_edges_subset", flow_map);
    return sel_value_end(&top, ret);
}

/* ---- plans of edges ---- */

struct sel_plan_cache {
    const struct sel_system *system;
    struct sel_arena arena;
    const struct sel_plan ***plans; /* by flow, by edge */
};

struct sel_plan_cache *sel_plan_cache_new(const struct sel_system *system)
{
    struct sel_plan_cache *cache = SEL_NEW(struct sel_plan_cache);
    if (!cache)
        return NULL;
    cache->system = system;
    sel_arena_init(&cache->arena, 0);
    cache->plans =
        SEL_ARENA_NEW_ARRAY(&cache->arena, const struct sel_plan **, system->flow_count + 1);
    return cache->plans ? cache : sel_plan_cache_free(cache);
}

struct sel_plan_cache *sel_plan_cache_free(struct sel_plan_cache *cache)
{
    if (cache) {
        sel_arena_done(&cache->arena);
        sel_mem_free(cache);
    }
    return NULL;
}

int sel_plan_cache_get(struct sel_plan_cache *cache, const struct sel_flow_def *flow, uint32_t edge,
                       const struct sel_plan **ret, struct sel_error *err)
{
    const struct sel_plan ***row = &cache->plans[flow->index];
    if (!*row)
        *row = SEL_ARENA_NEW_ARRAY(&cache->arena, const struct sel_plan *, flow->edge_count + 1);
    if (!*row)
        return sel_error_set(err, SEL_ENOMEM, flow->pos, "%s", sel_error_text(SEL_ENOMEM));
    if (!(*row)[edge]) {
        const struct sel_edge_def *def = &flow->edges[edge];
        const struct sel_selective_def *s = def->selective;
        struct sel_selective_request request = {
            s->tasks,          s->task_count,       s->follow_subflows,
            s->run_subsequent, s->subsequent_flows, s->subsequent_flow_count};
        const struct sel_flow_def *child =
            sel_system_flow(cache->system, flow->nodes[def->to[0]].node);
        int r = sel_plan_compute(&cache->arena, cache->system, child, &request, &(*row)[edge], err);
        if (r < 0)
            return r;
    }
    *ret = (*row)[edge];
    return 0;
}
