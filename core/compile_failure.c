#include "core/compile_internal.h"

/* An entry of `failures` without a fault. */
struct entry {
    uint32_t *failed; /* slots in the order of their names */
    uint32_t failed_count;
    struct sel_fallback_def fallback;
};

/* --- sets of nodes --- */

static int compare_slot_names(const void *a, const void *b, void *ctx)
{
    const struct sel_compiler *c = ctx;
    return strcmp(sel_compile_slot_name(c, *(const uint32_t *)a),
                  sel_compile_slot_name(c, *(const uint32_t *)b));
}

/* More failed nodes first, then by the first name that differs. */
static int compare_choices(const void *a, const void *b, void *ctx)
{
    const struct sel_choice_def *x = a, *y = b;
    if (x->failed_count != y->failed_count)
        return x->failed_count > y->failed_count ? -1 : 1;
    for (uint32_t i = 0; i < x->failed_count; i++) {
        int r = compare_slot_names(&x->failed[i], &y->failed[i], ctx);
        if (r != 0)
            return r;
    }
    return 0;
}

/* --- one entry --- */

static bool entry_nodes(struct sel_compiler *c, const struct sel_ynode *tree, struct entry *entry)
{
    const struct sel_ynode *node = sel_yaml_get(tree, "nodes");
    bool is_missing =
        !node || node->kind == SEL_NULL || (node->kind == SEL_LIST && node->list.count == 0);
    if (is_missing) {
        sel_diag_error(c->diag, node ? node->pos : tree->pos,
                       "a failure needs `nodes`, those whose failure it is for; got %s",
                       sel_compile_got(c, node));
        return false;
    }
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    entry->failed = SEL_COMPILE_NEW(c, uint32_t, items.count);
    for (uint32_t i = 0; entry->failed && i < items.count; i++) {
        uint32_t number = sel_compile_node(c, items.p[i]);
        uint32_t slot = SEL_NONE;
        if (number != SEL_NONE)
            slot = sel_compile_slot(c, number, items.p[i]->pos);
        if (slot != SEL_NONE) {
            entry->failed[entry->failed_count++] = slot;
            c->slots[slot].is_source = c->slots[slot].has_fallback = true;
        }
    }
    return entry->failed_count == items.count;
}

/* Brings the set in order; a node named twice is refused, as the original does. */
static bool entry_order(struct sel_compiler *c, const struct sel_ynode *tree, struct entry *entry)
{
    bool ok = true;
    qsort_r(entry->failed, entry->failed_count, sizeof(*entry->failed), compare_slot_names, c);
    for (uint32_t i = 1; i < entry->failed_count; i++) {
        if (entry->failed[i] != entry->failed[i - 1])
            continue;
        sel_diag_error(c->diag, sel_yaml_get(tree, "nodes")->pos,
                       "'%s' stands twice in `nodes` of a failure",
                       sel_compile_slot_name(c, entry->failed[i]));
        ok = false;
    }
    return ok;
}

static bool fallback_nodes(struct sel_compiler *c, const struct sel_ynode *node,
                           struct sel_fallback_def *def)
{
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    def->nodes = SEL_COMPILE_NEW(c, uint32_t, items.count);
    for (uint32_t i = 0; def->nodes && i < items.count; i++) {
        uint32_t number = sel_compile_node(c, items.p[i]);
        uint32_t slot = SEL_NONE;
        if (number != SEL_NONE)
            slot = sel_compile_slot(c, number, items.p[i]->pos);
        if (slot != SEL_NONE) {
            def->nodes[def->node_count++] = slot;
            c->slots[slot].is_started = true;
        }
    }
    if (items.count == 0)
        sel_diag_warning(c->diag, node->pos,
                         "an empty `fallback` starts nothing; `fallback: true` says so");
    return def->node_count == items.count;
}

static bool entry_fallback(struct sel_compiler *c, const struct sel_ynode *tree,
                           struct sel_fallback_def *def)
{
    const struct sel_ynode *node = sel_yaml_get(tree, "fallback");
    bool is_true = node && node->kind == SEL_BOOL && node->b;
    bool is_node = node && (node->kind == SEL_TEXT || node->kind == SEL_LIST);
    if (!is_true && !is_node) {
        sel_diag_error(c->diag, node ? node->pos : tree->pos,
                       "a failure needs `fallback`: what to start, or true; got %s",
                       sel_compile_got(c, node));
        return false;
    }
    bool ok = sel_compile_bool(c, tree, "propagate_failure", &def->propagate_failure);
    if (is_true && def->propagate_failure) {
        sel_diag_error(c->diag, sel_yaml_get(tree, "propagate_failure")->pos,
                       "`fallback: true` forgets the failure, `propagate_failure` keeps it; "
                       "remove one");
        ok = false;
    }
    return is_true ? ok : fallback_nodes(c, node, def) && ok;
}

static bool entry_condition(struct sel_compiler *c, const struct sel_ynode *tree,
                            const struct entry *entry, struct sel_fallback_def *def)
{
    uint32_t *nodes = SEL_COMPILE_SCRATCH(c, uint32_t, entry->failed_count);
    if (!nodes)
        return false;
    for (uint32_t i = 0; i < entry->failed_count; i++)
        nodes[i] = c->slots[entry->failed[i]].node;
    struct sel_compile_scope scope = {nodes, entry->failed_count, entry->failed_count, false};
    return sel_compile_condition(c, &scope, tree, &def->cond, &def->cond_text);
}

static bool entry_compile(struct sel_compiler *c, const struct sel_ynode *tree, struct entry *entry)
{
    static const char *const keys[] = {"nodes", "fallback", "condition", "propagate_failure", NULL};
    if (!sel_compile_is_map(c, tree, "a failure"))
        return false;
    bool ok = sel_compile_check_keys(c, tree, "a failure", keys);
    bool has_nodes = entry_nodes(c, tree, entry) && entry_order(c, tree, entry);
    bool has_fallback = entry_fallback(c, tree, &entry->fallback);
    entry->fallback.pos = sel_compile_keep_pos(c, tree->pos);
    if (has_nodes)
        ok = entry_condition(c, tree, entry, &entry->fallback) && ok;
    if (has_nodes && has_fallback && entry->failed_count == 1 && entry->fallback.node_count == 1 &&
        entry->fallback.nodes[0] == entry->failed[0]) {
        sel_diag_error(c->diag, sel_yaml_get(tree, "fallback")->pos,
                       "'%s' cannot be its own fallback; use `max_retry` to run it again",
                       sel_compile_slot_name(c, entry->failed[0]));
        ok = false;
    }
    return ok && has_nodes && has_fallback;
}

/* --- choices --- */

/* Entries for one set become one choice: *ret_choice[i] is that of entry i. */
static uint32_t group_entries(struct sel_compiler *c, const struct entry *entries, uint32_t count,
                              uint32_t *choice_of)
{
    struct sel_map sets = {0};
    uint32_t choice_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct sel_str key = {(const char *)entries[i].failed,
                              entries[i].failed_count * sizeof(*entries[i].failed)};
        uint32_t old = 0;
        int r = sel_map_add(&sets, key, choice_count, &old);
        if (r < 0)
            c->no_memory = true;
        choice_of[i] = r == 1 ? choice_count++ : old;
    }
    sel_map_done(&sets);
    return choice_count;
}

static void add_fallback(struct sel_choice_def *choice, const struct entry *entry)
{
    choice->failed = entry->failed;
    choice->failed_count = entry->failed_count;
    choice->fallbacks[choice->fallback_count++] = entry->fallback;
}

static void make_choices(struct sel_compiler *c, struct sel_flow_def *def,
                         const struct entry *entries, uint32_t count)
{
    uint32_t *choice_of = SEL_COMPILE_SCRATCH(c, uint32_t, count);
    uint32_t *sizes = SEL_COMPILE_SCRATCH(c, uint32_t, count);
    if (!choice_of || !sizes)
        return;
    uint32_t choice_count = group_entries(c, entries, count, choice_of);
    for (uint32_t i = 0; i < count; i++)
        sizes[choice_of[i]]++;
    def->choices = SEL_COMPILE_NEW(c, struct sel_choice_def, choice_count);
    for (uint32_t i = 0; def->choices && i < choice_count; i++) {
        def->choices[i].fallbacks = SEL_COMPILE_NEW(c, struct sel_fallback_def, sizes[i]);
    }
    if (c->no_memory)
        return;
    for (uint32_t i = 0; i < count; i++)
        add_fallback(&def->choices[choice_of[i]], &entries[i]);
    def->choice_count = choice_count;
    qsort_r(def->choices, choice_count, sizeof(*def->choices), compare_choices, c);
}

void sel_compile_failures(struct sel_compiler *c, struct sel_compile_flow *flow)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, "failures");
    if (sel_compile_is_falsy(node))
        return;
    struct sel_compile_items items; /* one mapping stands for a list of it */
    sel_compile_items(&items, node);
    struct entry *entries = SEL_COMPILE_SCRATCH(c, struct entry, items.count);
    uint32_t count = 0;
    for (uint32_t i = 0; entries && !c->no_memory && i < items.count; i++) {
        if (entry_compile(c, items.p[i], &entries[count])) {
            count++;
        } else {
            flow->is_broken = true;
            entries[count] = (struct entry){0};
        }
    }
    if (entries && !flow->is_broken && !c->no_memory)
        make_choices(c, flow->def, entries, count);
}
