/* Which runs are the parents of what a flow starts. */
#include "core/mem.h"
#include "worker/hub.h"

static void drop_lineage(struct sel_flow_run *run)
{
    for (uint32_t i = 0; i < run->lineage_count; i++)
        sel_parents_unref(run->lineage[i].parents);
    run->lineage_count = 0;
}

static void drop_combination(struct sel_flow_run *run)
{
    sel_parents_unref(run->combination_parents);
    run->combination_parents = NULL;
    run->combination = UINT64_MAX;
}

void sel_hub_forget_parents(struct sel_flow_run *run)
{
    drop_lineage(run);
    drop_combination(run);
}

static const struct sel_lineage *find_lineage(const struct sel_flow_run *run, uint32_t ordinal)
{
    uint32_t low = 0, high = run->lineage_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (run->lineage[mid].ordinal < ordinal)
            low = mid + 1;
        else
            high = mid;
    }
    bool found = low < run->lineage_count && run->lineage[low].ordinal == ordinal;
    return found ? &run->lineage[low] : NULL;
}

struct sel_ended_flow *sel_hub_ended_child(const struct sel_flow_run *run, uint32_t ordinal)
{
    const struct sel_state_child *child = sel_state_child(&run->state, ordinal);
    return child && run->children ? run->children[child - run->state.children] : NULL;
}

/* Whether a run is among the parents of what it starts: sub-flows only if asked for. */
static bool is_parent(const struct sel_flow_run *run, uint32_t ordinal, bool failed)
{
    const struct sel_flow_node *node = &run->flow->nodes[sel_state_run_slot(&run->state, ordinal)];
    if (!sel_system_is_flow(run->hub->system, node->node))
        return true;
    bool wanted = failed ? node->propagate_failures || node->propagate_compound_failures
                         : node->propagate_finished || node->propagate_compound_finished;
    return wanted && sel_hub_ended_child(run, ordinal);
}

static int set_parent(struct sel_flow_run *run, struct sel_parents *parents, uint32_t index,
                      uint32_t ordinal, bool failed)
{
    const struct sel_flow_node *node = &run->flow->nodes[sel_state_run_slot(&run->state, ordinal)];
    struct sel_str name = sel_system_node_name(run->hub->system, node->node);
    char text[SEL_RUN_ID_TEXT_SIZE];
    if (!sel_system_is_flow(run->hub->system, node->node))
        return sel_parents_set_task(parents, index, name,
                                    sel_state_run_id(&run->state, ordinal, text));
    bool compound = failed ? node->propagate_compound_failures : node->propagate_compound_finished;
    sel_parents_set_flow(parents, index, name, sel_hub_ended_child(run, ordinal), compound);
    return 0;
}

/* Failed parents inherited through the runs of a combination, all together. */
static uint32_t count_inherited(const struct sel_flow_run *run,
                                const struct sel_combination *combination)
{
    uint32_t count = 0;
    for (uint32_t i = 0; run->lineage_count > 0 && i < combination->count; i++) {
        const struct sel_lineage *lineage = find_lineage(run, combination->runs[i]);
        count += lineage ? lineage->parents->failed_count : 0;
    }
    return count;
}

static int copy_inherited(const struct sel_flow_run *run, const struct sel_combination *combination,
                          struct sel_parents *parents, uint32_t index)
{
    for (uint32_t i = 0; run->lineage_count > 0 && i < combination->count; i++) {
        const struct sel_lineage *lineage = find_lineage(run, combination->runs[i]);
        for (uint32_t k = 0; lineage && k < lineage->parents->failed_count; k++) {
            const struct sel_parents *from = lineage->parents;
            int r = sel_parents_copy(parents, index++, &from->parents[from->count + k]);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int build_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                         struct sel_parents **ret)
{
    bool failed = combination->edge == SEL_NONE;
    uint32_t own = 0, inherited = count_inherited(run, combination);
    for (uint32_t i = 0; i < combination->count; i++)
        own += is_parent(run, combination->runs[i], failed);
    struct sel_parents *parents =
        failed ? sel_parents_new(0, own + inherited) : sel_parents_new(own, inherited);
    int r = parents ? 0 : SEL_ENOMEM;
    uint32_t index = 0;
    for (uint32_t i = 0; i < combination->count && r == 0; i++) {
        if (is_parent(run, combination->runs[i], failed))
            r = set_parent(run, parents, index++, combination->runs[i], failed);
    }
    if (r == 0)
        r = copy_inherited(run, combination, parents, index);
    if (r < 0) {
        sel_parents_unref(parents);
        return r;
    }
    *ret = parents;
    return 0;
}

int sel_hub_parents(struct sel_flow_run *run, const struct sel_combination *combination,
                    struct sel_parents **ret)
{
    if (combination->edge != SEL_NONE && combination->count == 0) {
        *ret = run->parents;
        return 0;
    }
    if (run->combination != combination->number || !run->combination_parents) {
        drop_combination(run);
        int r = build_parents(run, combination, &run->combination_parents);
        if (r < 0)
            return r;
        run->combination = combination->number;
    }
    *ret = run->combination_parents;
    return 0;
}

int sel_hub_note_lineage(struct sel_flow_run *run, uint32_t ordinal, struct sel_parents *parents)
{
    if (!parents || parents->failed_count == 0)
        return 0;
    if (!sel_mem_grow(&run->lineage, &run->lineage_cap, (uint64_t)run->lineage_count + 1,
                      sizeof(*run->lineage)))
        return SEL_ENOMEM;
    run->lineage[run->lineage_count++] = (struct sel_lineage){ordinal, sel_parents_ref(parents)};
    return 0;
}
