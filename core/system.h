/* core/system.h - the compiled system: tasks, flows, storages and global settings.
 *
 * Made by core/compile.h from YAML, immutable, lives in one arena, read by any thread. Nodes
 * (tasks and flows) share one name space and one numbering: tasks first, in the order of the
 * file, then flows in the order of the `flows` list.
 *
 * Inside a flow a node is its slot: the position in sel_flow_def.nodes. */
#ifndef SEL_CORE_SYSTEM_H
#define SEL_CORE_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/condition.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/str.h"
#include "core/value.h"

#define SEL_NONE UINT32_MAX

/* A function or class of a module, `import` and name. */
struct sel_import {
    struct sel_str module; /* "selinon.strategies" */
    struct sel_str name;   /* "biexponential_increase" */
    struct sel_pos pos;
};

/* `cache:` of a task, storage or flow; absent: name.n == 0. */
struct sel_cache_def {
    struct sel_import import;
    struct sel_value config; /* null, map, list or text */
};

struct sel_storage_def {
    struct sel_str name;
    struct sel_import import;
    struct sel_value config; /* null, or a map (named); anything else is one positional argument */
    struct sel_cache_def cache;
    struct sel_pos pos;
};

struct sel_task_def {
    struct sel_str name;
    struct sel_import import; /* module and class */
    struct sel_str *command;  /* import `exec`: argv */
    uint32_t command_count;
    uint32_t max_retry;
    int64_t retry_countdown_us;
    struct sel_str output_schema; /* a path, relative to the current folder; n == 0: none */
    uint32_t storage;             /* index into storages or SEL_NONE */
    bool storage_read_only;
    bool blocking;
    struct sel_str storage_task_name;
    struct sel_import selective_run_function; /* name.n == 0: always run */
    struct sel_str queue;
    int64_t throttle_us; /* 0: none */
    int64_t timeout_us;  /* 0: none */
    struct sel_cache_def cache;
    struct sel_pos pos;
};

struct sel_foreach_def {
    struct sel_import function;
    bool propagate_result;
    const char *text; /* "foreach module.function" */
};

struct sel_selective_def {
    struct sel_str *tasks;
    uint32_t task_count;
    bool follow_subflows;
    bool run_subsequent;              /* true for the flows below, or for all if there are none */
    struct sel_str *subsequent_flows; /* `run_subsequent` given as a list */
    uint32_t subsequent_flow_count;
};

struct sel_edge_def {
    uint32_t *from; /* slots, distinct; none: a starting edge */
    uint32_t from_count;
    uint32_t *to; /* slots, duplicates allowed; at least one */
    uint32_t to_count;
    const struct sel_cond *cond; /* never NULL */
    const char *cond_text;
    const struct sel_foreach_def *foreach;     /* or NULL */
    const struct sel_selective_def *selective; /* or NULL */
    struct sel_pos pos;
};

/* One `failures` entry. */
struct sel_fallback_def {
    uint32_t *nodes; /* slots to start; none: `fallback: true` */
    uint32_t node_count;
    const struct sel_cond *cond;
    const char *cond_text;
    bool propagate_failure;
    struct sel_pos pos;
};

/* All entries for one set of failed nodes. */
struct sel_choice_def {
    uint32_t *failed; /* slots, distinct, in the order of their names */
    uint32_t failed_count;
    struct sel_fallback_def *fallbacks; /* in the order of the file */
    uint32_t fallback_count;
};

/* A node as one flow uses it. */
struct sel_flow_node {
    uint32_t node; /* number in the system */
    bool nowait;
    bool eager; /* its failure fails the flow at once */
    /* for sub-flows: the flow options, already resolved for this node */
    bool propagate_parent, propagate_finished, propagate_compound_finished, propagate_node_args;
    bool propagate_failures, propagate_parent_failures, propagate_compound_failures;
    uint32_t *out_edges; /* edges that have it in `from`, ascending */
    uint32_t out_edge_count;
    uint32_t *out_pos; /* parallel: its position in that edge's `from` */
    uint32_t *choices; /* choices that it is in, ascending */
    uint32_t choice_count;
};

/* A propagate_* option as written. */
struct sel_propagate_def {
    bool all;
    struct sel_str *flows; /* if not `all` */
    uint32_t flow_count;
};

struct sel_flow_def {
    struct sel_str name;
    uint32_t index; /* into sel_system.flows */
    struct sel_flow_node *nodes;
    uint32_t node_count;
    struct sel_edge_def *edges; /* in the order of the file */
    uint32_t edge_count;
    uint32_t *start_edges;
    uint32_t start_edge_count;
    struct sel_choice_def *choices; /* preferred first: more failed nodes, then by their names */
    uint32_t choice_count;
    bool node_args_from_first;
    bool eager_all;         /* `eager_failures: true` */
    struct sel_str *nowait; /* as written */
    uint32_t nowait_count;
    struct sel_str *eager; /* as written */
    uint32_t eager_count;
    struct sel_propagate_def propagate_parent, propagate_finished, propagate_compound_finished,
        propagate_node_args, propagate_failures, propagate_parent_failures,
        propagate_compound_failures;
    uint32_t max_retry;
    int64_t retry_countdown_us;
    struct sel_str queue;
    int64_t throttle_us;
    bool has_sampling; /* `sampling` was written; else react at once */
    struct sel_import sampling;
    struct sel_value sampling_args; /* a map */
    struct sel_cache_def cache;
    struct sel_pos pos;
};

enum sel_trace_sink_kind {
    SEL_TRACE_LOGGING,
    SEL_TRACE_JSON,
    SEL_TRACE_FUNCTION,
    SEL_TRACE_STORAGE,
    SEL_TRACE_SENTRY,
};

struct sel_trace_def {
    enum sel_trace_sink_kind kind;
    struct sel_import function;
    uint32_t storage; /* index */
    struct sel_str method;
    struct sel_str dsn; /* expanded */
};

struct sel_system {
    struct sel_arena arena; /* owns everything below */
    struct sel_task_def *tasks;
    uint32_t task_count;
    struct sel_flow_def *flows; /* in the order of the `flows` list */
    uint32_t flow_count;
    struct sel_storage_def *storages;
    uint32_t storage_count;
    struct sel_trace_def *traces;
    uint32_t trace_count;
    struct sel_str predicates_module;
    struct sel_str default_task_queue, default_dispatcher_queue;
    struct sel_str migration_dir; /* n == 0: none */
    struct sel_map nodes;         /* name to node number */
    struct sel_map storage_names; /* name to index */
};

/* Node numbers: 0 .. task_count - 1 are tasks, then flows. */
static inline bool sel_system_is_flow(const struct sel_system *s, uint32_t node)
{
    return node >= s->task_count;
}
static inline const struct sel_flow_def *sel_system_flow(const struct sel_system *s, uint32_t node)
{
    SEL_ASSERT(node >= s->task_count && node - s->task_count < s->flow_count);
    return &s->flows[node - s->task_count];
}
static inline const struct sel_task_def *sel_system_task(const struct sel_system *s, uint32_t node)
{
    SEL_ASSERT(node < s->task_count);
    return &s->tasks[node];
}
static inline struct sel_str sel_system_node_name(const struct sel_system *s, uint32_t node)
{
    return sel_system_is_flow(s, node) ? sel_system_flow(s, node)->name
                                       : sel_system_task(s, node)->name;
}
/* SEL_NONE if there is no such node. */
uint32_t sel_system_find(const struct sel_system *s, struct sel_str name);
/* NULL if there is no such flow. */
const struct sel_flow_def *sel_system_find_flow(const struct sel_system *s, struct sel_str name);
/* The slot of a node name in a flow, SEL_NONE if the flow does not use it. */
uint32_t sel_system_slot(const struct sel_system *s, const struct sel_flow_def *flow,
                         struct sel_str name);

/* Frees the maps, the arena and `s` itself, which came from SEL_NEW; NULL allowed. */
void sel_system_free(struct sel_system *s);

#endif
