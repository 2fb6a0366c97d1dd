/* core/selective.h - which edges and nodes a selective run visits.
 *
 * A plan says for each flow that the run knows which edges may fire and, for each, which of its
 * destinations start. A sub-flow that the plan does not know runs in full; one that it knows with
 * no edges starts, runs nothing and succeeds. Plans are immutable and shared by a tree of flows.
 *
 * An edge is on a path to a node if it starts the node, or starts something that the node (over
 * any number of edges) waits for, and all that it waits for can itself be reached. */
#ifndef SEL_CORE_SELECTIVE_H
#define SEL_CORE_SELECTIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/system.h"
#include "core/value.h"

struct sel_arena;

struct sel_plan_edge {
    uint32_t edge;
    uint32_t *slots; /* destinations that start, ascending */
    uint32_t slot_count;
    bool subsequent; /* comes after a selected task: its tasks always run anew */
};

struct sel_plan_flow {
    uint32_t flow;               /* index */
    struct sel_plan_edge *edges; /* ascending */
    uint32_t edge_count;
};

struct sel_plan {
    struct sel_str *tasks; /* what was asked for */
    uint32_t task_count;
    struct sel_plan_flow *flows; /* ascending */
    uint32_t flow_count;
};

struct sel_selective_request {
    const struct sel_str *tasks;
    uint32_t task_count;
    bool follow_subflows;
    bool run_subsequent;
    const struct sel_str *subsequent_flows; /* none: all flows of the plan */
    uint32_t subsequent_flow_count;
};

/* The plan, in `arena`. 0; SEL_ENOPATH: no path leads to one of the tasks, named in `err`;
 * SEL_ENOMEM. Cost: linear in the size of the flows visited, times the tasks. */
int sel_plan_compute(struct sel_arena *arena, const struct sel_system *system,
                     const struct sel_flow_def *flow, const struct sel_selective_request *request,
                     const struct sel_plan **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* NULL: the plan does not know the flow. */
const struct sel_plan_flow *sel_plan_flow(const struct sel_plan *plan, uint32_t flow);
/* NULL: the edge does not fire. */
const struct sel_plan_edge *sel_plan_edge(const struct sel_plan_flow *flow, uint32_t edge);
bool sel_plan_has_slot(const struct sel_plan_edge *edge, uint32_t slot);
bool sel_plan_has_task(const struct sel_plan *plan, struct sel_str task);

/* Plans of edges with `selective`, computed on first use. Not thread safe; its plans live as long
 * as it does. NULL: out of memory. */
struct sel_plan_cache;
struct sel_plan_cache *sel_plan_cache_new(const struct sel_system *system);
struct sel_plan_cache *sel_plan_cache_free(struct sel_plan_cache *cache); /* returns NULL */
/* `edge` of `flow` has `selective`. 0, SEL_ENOPATH, SEL_ENOMEM. */
int sel_plan_cache_get(struct sel_plan_cache *cache, const struct sel_flow_def *flow, uint32_t edge,
                       const struct sel_plan **ret, struct sel_error *err) SEL_WARN_UNUSED;

/* As traces show it: {task_names, waiting_edges_subset: {flow: {edge: [names]}}}. */
int sel_plan_to_value(struct sel_arena *arena, const struct sel_system *system,
                      const struct sel_plan *plan, struct sel_value *ret) SEL_WARN_UNUSED;

#endif
