#include "core/compile_internal.h"

/* --- from and to --- */

/* Slots of `from`, each once; node numbers go to *ret_nodes for the condition. */
static bool edge_from(struct sel_compiler *c, const struct sel_ynode *tree,
                      struct sel_edge_def *edge, struct sel_compile_scope *scope)
{
    const struct sel_ynode *from = sel_yaml_get(tree, "from");
    if (!from) {
        sel_diag_error(c->diag, tree->pos,
                       "an edge needs `from`; leave its value empty for a starting edge");
        return false;
    }
    if (sel_compile_is_falsy(from)) {
        bool is_usual = from->kind == SEL_NULL || from->kind == SEL_LIST || from->kind == SEL_TEXT;
        if (!is_usual)
            sel_diag_warning(c->diag, from->pos,
                             "`from` should be empty for a starting edge; got %s",
                             sel_compile_got(c, from));
        return true;
    }
    struct sel_compile_items items;
    sel_compile_items(&items, from);
    uint32_t *nodes = SEL_COMPILE_SCRATCH(c, uint32_t, items.count);
    edge->from = SEL_COMPILE_NEW(c, uint32_t, items.count);
    if (!nodes || !edge->from)
        return false;
    bool ok = true;
    scope->nodes = nodes;
    scope->written_count = items.count;
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t node = sel_compile_node(c, items.p[i]);
        uint32_t slot = SEL_NONE;
        if (node != SEL_NONE)
            slot = sel_compile_slot(c, node, items.p[i]->pos);
        if (slot == SEL_NONE) {
            ok = false;
            continue;
        }
        nodes[edge->from_count] = node;
        edge->from[edge->from_count++] = slot;
    }
    scope->node_count = edge->from_count;
    return ok;
}

static int compare_slots(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Removes what is named twice, an error of the consistency check. Most edges have one or two
 * sources, only long ones are worth sorting. */
static void edge_from_distinct(struct sel_compiler *c, const struct sel_ynode *tree,
                               struct sel_edge_def *edge, struct sel_compile_scope *scope)
{
    uint32_t n = edge->from_count, kept = 0;
    if (n < 2)
        return;
    uint32_t *sorted = SEL_COMPILE_SCRATCH(c, uint32_t, n);
    bool *seen = SEL_COMPILE_SCRATCH(c, bool, n);
    if (!sorted || !seen)
        return;
    memcpy(sorted, edge->from, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_slots);
    struct sel_compile_items items;
    sel_compile_items(&items, sel_yaml_get(tree, "from"));
    uint32_t *nodes = SEL_COMPILE_SCRATCH(c, uint32_t, n);
    for (uint32_t i = 0; nodes && i < n; i++) {
        uint32_t *at = bsearch(&edge->from[i], sorted, n, sizeof(*sorted), compare_slots);
        while (at > sorted && at[-1] == *at)
            at--;
        if (seen[at - sorted]) {
            sel_compile_inconsistent(c, items.p[i]->pos, "'%s' stands twice in `from`",
                                     sel_compile_slot_name(c, edge->from[i]));
            continue;
        }
        seen[at - sorted] = true;
        nodes[kept] = scope->nodes[i];
        edge->from[kept++] = edge->from[i];
    }
    edge->from_count = scope->node_count = kept;
    scope->nodes = nodes;
}

static bool edge_to(struct sel_compiler *c, const struct sel_ynode *tree, struct sel_edge_def *edge)
{
    const struct sel_ynode *to = sel_yaml_get(tree, "to");
    if (sel_compile_is_falsy(to)) {
        sel_diag_error(c->diag, to ? to->pos : tree->pos,
                       "an edge needs `to`, the task or flow that it starts; got %s",
                       sel_compile_got(c, to));
        return false;
    }
    struct sel_compile_items items;
    sel_compile_items(&items, to);
    edge->to = SEL_COMPILE_NEW(c, uint32_t, items.count);
    if (!edge->to)
        return false;
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t node = sel_compile_node(c, items.p[i]);
        uint32_t slot = SEL_NONE;
        if (node != SEL_NONE)
            slot = sel_compile_slot(c, node, items.p[i]->pos);
        if (slot != SEL_NONE)
            edge->to[edge->to_count++] = slot;
    }
    return edge->to_count == items.count;
}

/* --- foreach --- */

static bool foreach_text(struct sel_compiler *c, const struct sel_ynode *map, const char *key,
                         struct sel_str *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, key);
    if (!sel_compile_is_text(node)) {
        sel_diag_error(c->diag, node ? node->pos : map->pos,
                       "`foreach` needs `%s` as a text; got %s", key, sel_compile_got(c, node));
        return false;
    }
    *ret = sel_compile_keep(c, node->text);
    if (ret->n == 0)
        sel_diag_warning(c->diag, node->pos, "`%s` of `foreach` is empty", key);
    return true;
}

static bool edge_foreach(struct sel_compiler *c, const struct sel_ynode *tree,
                         struct sel_edge_def *edge)
{
    static const char *const keys[] = {"import", "function", "propagate_result", NULL};
    const struct sel_ynode *map = sel_yaml_get(tree, "foreach");
    if (!map)
        return true;
    if (!sel_compile_is_map(c, map, "`foreach`"))
        return false;
    sel_compile_warn_keys(c, map, "`foreach`", keys);
    struct sel_foreach_def *def = SEL_COMPILE_NEW(c, struct sel_foreach_def, 1);
    if (!def)
        return false;
    bool ok = foreach_text(c, map, "import", &def->function.module);
    ok = foreach_text(c, map, "function", &def->function.name) && ok;
    ok = sel_compile_bool(c, map, "propagate_result", &def->propagate_result) && ok;
    def->function.pos = sel_compile_keep_pos(c, map->pos);
    if (ok) {
        def->text = sel_arena_printf(c->arena, "foreach %s.%s", def->function.module.p,
                                     def->function.name.p);
        c->no_memory = c->no_memory || !def->text;
    }
    edge->foreach = def;
    return ok;
}

/* --- selective --- */

static bool selective_tasks(struct sel_compiler *c, const struct sel_ynode *map,
                            struct sel_selective_def *def)
{
    const struct sel_ynode *list = sel_yaml_get(map, "tasks");
    if (!list || list->kind != SEL_LIST) {
        sel_diag_error(c->diag, list ? list->pos : map->pos,
                       "`selective` needs `tasks`, a list of task names; got %s",
                       sel_compile_got(c, list));
        return false;
    }
    def->tasks = SEL_COMPILE_NEW(c, struct sel_str, list->list.count);
    for (uint32_t i = 0; def->tasks && i < list->list.count; i++) {
        const struct sel_ynode *name = list->list.items[i];
        if (sel_compile_is_text(name))
            def->tasks[def->task_count++] = sel_compile_keep(c, name->text);
        else
            sel_diag_error(c->diag, name->pos, "`tasks` of `selective` must be texts; got %s",
                           sel_compile_got(c, name));
    }
    return def->task_count == list->list.count;
}

/* true, false, or the flows in which to go on. */
static bool selective_subsequent(struct sel_compiler *c, const struct sel_ynode *map,
                                 struct sel_selective_def *def)
{
    const struct sel_ynode *node = sel_yaml_get(map, "run_subsequent");
    if (!node || node->kind == SEL_BOOL) {
        def->run_subsequent = node && node->b;
        return true;
    }
    if (node->kind != SEL_LIST) {
        sel_diag_error(c->diag, node->pos,
                       "`run_subsequent` must be true, false or a list of flows; got %s",
                       sel_compile_got(c, node));
        return false;
    }
    def->subsequent_flows = SEL_COMPILE_NEW(c, struct sel_str, node->list.count);
    for (uint32_t i = 0; def->subsequent_flows && i < node->list.count; i++) {
        const struct sel_ynode *name = node->list.items[i];
        uint32_t flow = SEL_NONE;
        if (sel_compile_is_text(name))
            flow = sel_system_find(c->system, name->text);
        if (flow == SEL_NONE || !sel_compile_is_flow(c, flow)) {
            sel_diag_warning(c->diag, name->pos, "ignored: `run_subsequent` names no flow: %s%s",
                             sel_compile_got(c, name),
                             sel_compile_is_text(name)
                                 ? sel_compile_hint_node(c, name->text, SEL_COMPILE_FLOWS, "")
                                 : "");
            continue;
        }
        def->subsequent_flows[def->subsequent_flow_count++] = sel_system_node_name(c->system, flow);
    }
    def->run_subsequent = def->subsequent_flow_count > 0;
    return true;
}

static bool edge_selective(struct sel_compiler *c, const struct sel_ynode *tree,
                           struct sel_edge_def *edge)
{
    static const char *const keys[] = {"tasks", "run_subsequent", "follow_subflows", NULL};
    const struct sel_ynode *map = sel_yaml_get(tree, "selective");
    if (sel_compile_is_falsy(map))
        return true;
    if (!sel_compile_is_map(c, map, "`selective`"))
        return false;
    struct sel_selective_def *def = SEL_COMPILE_NEW(c, struct sel_selective_def, 1);
    if (!def)
        return false;
    bool ok = sel_compile_check_keys(c, map, "`selective`", keys);
    ok = selective_tasks(c, map, def) && ok;
    ok = selective_subsequent(c, map, def) && ok;
    ok = sel_compile_bool(c, map, "follow_subflows", &def->follow_subflows) && ok;
    edge->selective = def;
    return ok;
}

/* --- consistency --- */

static void check_selective(struct sel_compiler *c, const struct sel_ynode *tree,
                            const struct sel_edge_def *edge)
{
    const struct sel_ynode *map = sel_yaml_get(tree, "selective");
    uint32_t target = c->slots[edge->to[0]].node;
    if (edge->to_count > 1) {
        sel_compile_inconsistent(c, sel_yaml_get(tree, "to")->pos,
                                 "a selective edge starts one flow, not %u nodes", edge->to_count);
        return;
    }
    if (!sel_compile_is_flow(c, target)) {
        sel_compile_inconsistent(c, sel_yaml_get(tree, "to")->pos,
                                 "a selective edge must start a flow; '%s' is a task",
                                 sel_compile_node_name(c, target));
        return;
    }
    struct sel_compile_selective *later = SEL_COMPILE_SCRATCH(c, struct sel_compile_selective, 1);
    if (!later)
        return;
    *later =
        (struct sel_compile_selective){c->selectives, edge, sel_yaml_get(map, "tasks"), target};
    c->selectives = later;
}

/* Results of foreach become arguments, which only flows take, and from one place only. */
static void check_propagate_result(struct sel_compiler *c, const struct sel_flow_def *def,
                                   const struct sel_ynode *tree, const struct sel_edge_def *edge)
{
    const struct sel_ynode *flag = sel_yaml_get(sel_yaml_get(tree, "foreach"), "propagate_result");
    const struct sel_propagate_def *args = &def->propagate_node_args;
    for (uint32_t i = 0; i < edge->to_count; i++) {
        uint32_t node = c->slots[edge->to[i]].node;
        const char *name = sel_compile_node_name(c, node);
        bool has_args = args->all;
        if (!sel_compile_is_flow(c, node)) {
            sel_compile_inconsistent(
                c, flag->pos, "`propagate_result` works for flows only; '%s' is a task", name);
            continue;
        }
        for (uint32_t k = 0; k < args->flow_count && !has_args; k++)
            has_args = sel_str_eq_c(args->flows[k], name);
        if (has_args)
            sel_compile_inconsistent(c, flag->pos,
                                     "'%s' cannot get both: the items (`propagate_result`) and "
                                     "the arguments of the flow (`propagate_node_args`)",
                                     name);
    }
}

static void edge_marks(struct sel_compiler *c, const struct sel_edge_def *edge)
{
    for (uint32_t i = 0; i < edge->from_count; i++)
        c->slots[edge->from[i]].is_source = true;
    for (uint32_t i = 0; i < edge->to_count; i++)
        c->slots[edge->to[i]].is_started = true;
}

/* --- all of them --- */

static bool edge_compile(struct sel_compiler *c, const struct sel_flow_def *def,
                         const struct sel_ynode *tree, struct sel_edge_def *edge)
{
    static const char *const keys[] = {"from", "to", "condition", "foreach", "selective", NULL};
    edge->cond = c->always;
    edge->cond_text = c->always_text;
    if (!sel_compile_is_map(c, tree, "an edge"))
        return false;
    edge->pos = sel_compile_keep_pos(c, tree->pos);
    struct sel_compile_scope scope = {.has_results = true};
    bool ok = sel_compile_check_keys(c, tree, "an edge", keys);
    bool has_from = edge_from(c, tree, edge, &scope);
    bool has_to = edge_to(c, tree, edge);
    edge_marks(c, edge);
    if (has_from) {
        edge_from_distinct(c, tree, edge, &scope);
        ok = sel_compile_condition(c, &scope, tree, &edge->cond, &edge->cond_text) && ok;
    }
    bool has_foreach = edge_foreach(c, tree, edge);
    bool has_selective = edge_selective(c, tree, edge);
    if (has_to && has_selective && edge->selective)
        check_selective(c, tree, edge);
    if (has_to && has_foreach && edge->foreach && edge->foreach->propagate_result)
        check_propagate_result(c, def, tree, edge);
    return ok && has_from && has_to && has_foreach && has_selective;
}

void sel_compile_edges(struct sel_compiler *c, struct sel_compile_flow *flow)
{
    struct sel_flow_def *def = flow->def;
    const struct sel_ynode *list = sel_yaml_get(flow->tree, "edges");
    if (!list || list->kind != SEL_LIST || list->list.count == 0) {
        sel_diag_error(c->diag, list ? list->pos : flow->tree->pos,
                       "a flow needs `edges`, a list of edges; got %s", sel_compile_got(c, list));
        flow->is_broken = true;
        return;
    }
    def->edges = SEL_COMPILE_NEW(c, struct sel_edge_def, list->list.count);
    for (uint32_t i = 0; def->edges && !c->no_memory && i < list->list.count; i++) {
        if (!edge_compile(c, def, list->list.items[i], &def->edges[i]))
            flow->is_broken = true;
        def->edge_count++;
    }
}
