#include "core/compile_internal.h"

/* --- one flow --- */

/* The user's text of an edge. */
static const struct sel_ynode *edge_tree(const struct sel_compile_flow *flow, uint32_t edge)
{
    return sel_yaml_get(flow->tree, "edges")->list.items[edge];
}

/* Whose result the arguments are must be clear: one task in one starting edge. */
static void check_args_from_first(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    const struct sel_flow_def *def = flow->def;
    if (!def->node_args_from_first)
        return;
    for (uint32_t i = 0; i < def->start_edge_count; i++) {
        const struct sel_edge_def *edge = &def->edges[def->start_edges[i]];
        struct sel_pos pos = edge_tree(flow, def->start_edges[i])->pos;
        uint32_t first = c->slots[edge->to[0]].node;
        if (i > 0)
            sel_compile_inconsistent(c, pos, "`node_args_from_first` needs a single starting edge");
        else if (edge->to_count > 1)
            sel_compile_inconsistent(c, pos,
                                     "`node_args_from_first` needs a single starting task; this "
                                     "edge starts %u",
                                     edge->to_count);
        else if (sel_compile_is_flow(c, first))
            sel_compile_inconsistent(c, pos,
                                     "`node_args_from_first` needs a starting task; '%s' is a flow",
                                     sel_compile_node_name(c, first));
    }
}

static void check_nowait(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    struct sel_compile_items items;
    if (flow->def->nowait_count == 0)
        return;
    sel_compile_items(&items, sel_yaml_get(flow->tree, "nowait"));
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t node = sel_system_find(c->system, items.p[i]->text);
        const struct sel_compile_slot *slot = &c->slots[sel_compile_slot_get(c, node)];
        const char *name = sel_compile_node_name(c, node);
        if (slot->is_source)
            sel_compile_inconsistent(c, items.p[i]->pos,
                                     "'%s' is `nowait`, but an edge or a failure waits for it",
                                     name);
        if (!slot->is_started)
            sel_compile_inconsistent(c, items.p[i]->pos,
                                     "'%s' is `nowait`, but this flow never starts it", name);
    }
}

static void check_eager(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    struct sel_compile_items items;
    if (flow->def->eager_count == 0)
        return;
    sel_compile_items(&items, sel_yaml_get(flow->tree, "eager_failures"));
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t node = sel_system_find(c->system, items.p[i]->text);
        uint32_t number = sel_compile_slot_get(c, node);
        const struct sel_compile_slot *slot = &c->slots[number];
        const char *why = NULL;
        if (!slot->is_source && !slot->is_started)
            why = "this flow has no such node";
        else if (flow->def->nodes[number].nowait)
            why = "is `nowait`: nobody learns of its failure";
        else if (slot->has_fallback)
            why = "has a fallback, which could never run";
        if (why)
            sel_compile_inconsistent(c, items.p[i]->pos, "`eager_failures` names '%s', but %s%s",
                                     sel_compile_node_name(c, node),
                                     slot->is_source || slot->is_started ? "it " : "", why);
    }
}

static void check_started(struct sel_compiler *c)
{
    for (uint32_t i = 0; i < c->slot_count; i++) {
        const struct sel_compile_slot *slot = &c->slots[i];
        if (slot->is_source && !slot->is_started && !sel_compile_is_flow(c, slot->node))
            sel_compile_inconsistent(c, slot->pos,
                                     "the flow waits for '%s', but never starts it; add an edge "
                                     "with `to: %s`",
                                     sel_compile_node_name(c, slot->node),
                                     sel_compile_node_name(c, slot->node));
    }
}

void sel_compile_check_flow(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    if (flow->def->start_edge_count == 0)
        sel_compile_inconsistent(c, sel_yaml_get_key(flow->tree, "edges")->pos,
                                 "no edge starts the flow '%s'; add one with an empty `from`",
                                 sel_compile_show(c, flow->def->name));
    check_args_from_first(c, flow);
    check_nowait(c, flow);
    check_eager(c, flow);
    check_started(c);
    sel_compile_propagate_check(c, flow);
}

/* --- the system --- */

static void check_class(struct sel_compiler *c, uint32_t task, uint32_t first)
{
    const struct sel_task_def *a = &c->system->tasks[first], *b = &c->system->tasks[task];
    if (!sel_str_eq(a->output_schema, b->output_schema))
        sel_diag_warning(c->diag, c->task_trees[task]->pos,
                         "tasks '%s' and '%s' are of one class ('%s'), but have different output "
                         "schemas",
                         a->name.p, b->name.p, sel_compile_show(c, b->import.name));
    if (a->max_retry != b->max_retry)
        sel_diag_warning(c->diag, c->task_trees[task]->pos,
                         "tasks '%s' and '%s' are of one class ('%s'), but have different "
                         "`max_retry`: %u and %u",
                         a->name.p, b->name.p, sel_compile_show(c, b->import.name), a->max_retry,
                         b->max_retry);
}

/* Each task is compared with the first one of its class; programs share no class. */
static void check_classes(struct sel_compiler *c)
{
    const struct sel_system *s = c->system;
    struct sel_map classes = {0};
    for (uint32_t i = 0; i < s->task_count && !c->no_memory; i++) {
        const struct sel_import *import = &s->tasks[i].import;
        uint32_t first;
        if (s->tasks[i].command_count > 0)
            continue;
        const char *key = sel_arena_printf(&c->scratch, "%.*s %.*s", SEL_STR_ARG(import->module),
                                           SEL_STR_ARG(import->name));
        int r = key ? sel_map_add(&classes, sel_str_c(key), i, &first) : SEL_ENOMEM;
        if (r < 0)
            c->no_memory = true;
        else if (r == 0)
            check_class(c, i, first);
    }
    sel_map_done(&classes);
}

void sel_compile_check_system(struct sel_compiler *c)
{
    const struct sel_system *s = c->system;
    check_classes(c);
    for (uint32_t i = 0; i < s->storage_count; i++) {
        if (!c->storage_used[i])
            sel_diag_warning(c->diag, c->storage_names[i]->pos, "no task uses the storage '%s'",
                             sel_compile_show(c, s->storages[i].name));
    }
    for (uint32_t i = 0; i < s->task_count; i++) {
        if (!c->task_used[i])
            sel_diag_warning(c->diag, sel_yaml_get(c->task_trees[i], "name")->pos,
                             "no flow runs the task '%s'", s->tasks[i].name.p);
    }
}
