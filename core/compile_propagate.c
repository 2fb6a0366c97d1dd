#include "core/compile_internal.h"

/* The options, and the flag of a sub-flow's node that each sets. */
static const struct {
    const char *key;
    size_t def_offset;  /* in struct sel_flow_def */
    size_t flag_offset; /* in struct sel_flow_node */
} options[] = {
#define OPTION(name)                                                                               \
    {                                                                                              \
#name, offsetof(struct sel_flow_def, name), offsetof(struct sel_flow_node, name)           \
    }
    OPTION(propagate_parent),
    OPTION(propagate_finished),
    OPTION(propagate_compound_finished),
    OPTION(propagate_node_args),
    OPTION(propagate_failures),
    OPTION(propagate_parent_failures),
    OPTION(propagate_compound_failures),
#undef OPTION
};

static struct sel_propagate_def *option_of(struct sel_flow_def *def, size_t i)
{
    return (struct sel_propagate_def *)(void *)((char *)def + options[i].def_offset);
}

/* true, false, one flow or a list of flows. */
static bool propagate_one(struct sel_compiler *c, const struct sel_ynode *node,
                          struct sel_propagate_def *def)
{
    if (node->kind == SEL_NULL)
        return true;
    if (node->kind == SEL_BOOL) {
        def->all = node->b;
        return true;
    }
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    def->flows = SEL_COMPILE_NEW(c, struct sel_str, items.count);
    for (uint32_t i = 0; def->flows && i < items.count; i++) {
        uint32_t flow = sel_compile_flow_node(c, items.p[i]);
        if (flow != SEL_NONE)
            def->flows[def->flow_count++] = sel_system_node_name(c->system, flow);
    }
    return def->flow_count == items.count;
}

void sel_compile_propagate(struct sel_compiler *c, struct sel_compile_flow *flow)
{
    for (size_t i = 0; i < SEL_COUNT(options); i++) {
        const struct sel_ynode *node = sel_yaml_get(flow->tree, options[i].key);
        if (node && !propagate_one(c, node, option_of(flow->def, i)))
            flow->is_broken = true;
    }
}

static void set_flag(struct sel_flow_node *node, size_t i)
{
    *((bool *)node + options[i].flag_offset) = true;
}

void sel_compile_propagate_resolve(struct sel_compiler *c, struct sel_flow_def *def)
{
    for (size_t i = 0; i < SEL_COUNT(options); i++) {
        const struct sel_propagate_def *option = option_of(def, i);
        for (uint32_t slot = 0; option->all && slot < def->node_count; slot++) {
            if (sel_compile_is_flow(c, def->nodes[slot].node))
                set_flag(&def->nodes[slot], i);
        }
        for (uint32_t k = 0; k < option->flow_count; k++) {
            uint32_t node = sel_system_find(c->system, option->flows[k]);
            uint32_t slot = sel_compile_slot_get(c, node);
            if (slot != SEL_NONE)
                set_flag(&def->nodes[slot], i);
        }
    }
}

/* --- consistency --- */

typedef bool needs_fn(const struct sel_compile_slot *slot);

static bool needs_source(const struct sel_compile_slot *slot)
{
    return slot->is_source;
}

static bool needs_fallback(const struct sel_compile_slot *slot)
{
    return slot->has_fallback;
}

static bool needs_started(const struct sel_compile_slot *slot)
{
    return slot->is_started;
}

/* Every flow of the list must take part in the way the option is about. */
static void check_list(struct sel_compiler *c, const struct sel_compile_flow *flow, const char *key,
                       needs_fn *is_met, const char *otherwise)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, key);
    if (!node || node->kind == SEL_NULL || node->kind == SEL_BOOL)
        return;
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t number = sel_system_find(c->system, items.p[i]->text);
        uint32_t slot = sel_compile_slot_get(c, number);
        if (slot == SEL_NONE || !is_met(&c->slots[slot]))
            sel_compile_inconsistent(c, items.p[i]->pos, "`%s` names '%s', but %s", key,
                                     sel_compile_node_name(c, number), otherwise);
    }
}

static bool is_list(const struct sel_ynode *node)
{
    return node && node->kind != SEL_NULL && node->kind != SEL_BOOL;
}

static bool is_on(const struct sel_ynode *node)
{
    return node && node->kind == SEL_BOOL && node->b;
}

/* The plain and the compound form exclude each other for one and the same sub-flow. */
static void check_disjoint(struct sel_compiler *c, const struct sel_compile_flow *flow,
                           const char *plain_key, const char *compound_key)
{
    const struct sel_ynode *plain = sel_yaml_get(flow->tree, plain_key);
    const struct sel_ynode *compound = sel_yaml_get(flow->tree, compound_key);
    if (is_list(plain) && is_list(compound)) {
        struct sel_compile_items a, b;
        struct sel_map names = {0};
        sel_compile_items(&a, plain);
        sel_compile_items(&b, compound);
        for (uint32_t i = 0; i < a.count; i++)
            c->no_memory = sel_map_add(&names, a.p[i]->text, i, NULL) < 0 || c->no_memory;
        for (uint32_t i = 0; i < b.count; i++) {
            uint32_t old;
            if (sel_map_get(&names, b.p[i]->text, &old))
                sel_compile_inconsistent(c, b.p[i]->pos, "'%s' is in both `%s` and `%s`; keep one",
                                         sel_compile_show(c, b.p[i]->text), plain_key,
                                         compound_key);
        }
        sel_map_done(&names);
    } else if ((is_on(plain) && (is_on(compound) || is_list(compound))) ||
               (is_list(plain) && is_on(compound))) {
        sel_compile_inconsistent(c, compound->pos,
                                 "`%s` and `%s` exclude each other; list the flows of each",
                                 plain_key, compound_key);
    }
}

/* The only sub-flow among the nodes that the edge starts, or NULL. */
static const struct sel_flow_node *single_flow(const struct sel_compiler *c,
                                               const struct sel_flow_def *def,
                                               const struct sel_edge_def *edge)
{
    const struct sel_flow_node *found = NULL;
    for (uint32_t i = 0; i < edge->to_count; i++) {
        const struct sel_flow_node *node = &def->nodes[edge->to[i]];
        if (!sel_compile_is_flow(c, node->node))
            continue;
        if (found)
            return NULL;
        found = node;
    }
    return found;
}

/* Finished nodes that are gathered, but never handed on, because the parent is not propagated. */
static void warn_not_passed_on(struct sel_compiler *c, const struct sel_compile_flow *flow,
                               const char *key)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, key);
    if (!is_list(node))
        return;
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    for (uint32_t i = 0; i < items.count; i++) {
        uint32_t number = sel_system_find(c->system, items.p[i]->text);
        uint32_t slot = sel_compile_slot_get(c, number);
        const struct sel_flow_node *source = slot == SEL_NONE ? NULL : &flow->def->nodes[slot];
        for (uint32_t k = 0; source && k < source->out_edge_count; k++) {
            const struct sel_edge_def *edge = &flow->def->edges[source->out_edges[k]];
            const struct sel_flow_node *target = single_flow(c, flow->def, edge);
            if (target && !target->propagate_parent)
                sel_diag_warning(c->diag, items.p[i]->pos,
                                 "what '%s' finished is not passed on to '%s'; add it to "
                                 "`propagate_parent`",
                                 sel_compile_node_name(c, number),
                                 sel_compile_node_name(c, target->node));
        }
    }
}

/* Looked at again when all flows are known. */
static void note_finished(struct sel_compiler *c, const struct sel_compile_flow *flow,
                          const char *key)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, key);
    if (!is_list(node))
        return;
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    for (uint32_t i = 0; i < items.count; i++) {
        struct sel_compile_finished *later = SEL_COMPILE_SCRATCH(c, struct sel_compile_finished, 1);
        if (!later)
            return;
        *later = (struct sel_compile_finished){c->finished, items.p[i],
                                               sel_system_find(c->system, items.p[i]->text)};
        c->finished = later;
    }
}

void sel_compile_propagate_check(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    static const char waited[] = "nothing in this flow waits for it";
    static const char started[] = "this flow never starts it";
    static const char handled[] = "this flow has no fallback for it";
    check_list(c, flow, "propagate_finished", needs_source, waited);
    check_list(c, flow, "propagate_compound_finished", needs_source, waited);
    check_list(c, flow, "propagate_failures", needs_fallback, handled);
    check_list(c, flow, "propagate_compound_failures", needs_fallback, handled);
    check_list(c, flow, "propagate_parent", needs_started, started);
    check_disjoint(c, flow, "propagate_finished", "propagate_compound_finished");
    check_disjoint(c, flow, "propagate_failures", "propagate_compound_failures");
    if (c->options->no_check)
        return;
    warn_not_passed_on(c, flow, "propagate_finished");
    warn_not_passed_on(c, flow, "propagate_compound_finished");
    note_finished(c, flow, "propagate_finished");
    note_finished(c, flow, "propagate_compound_finished");
}
