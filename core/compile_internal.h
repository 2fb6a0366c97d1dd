/* core/compile_internal.h - what the parts of the compiler share; private to core/compile*.c.
 *
 *   compile.c            the run: files, sections, the order of work
 *   compile_util.c       texts of messages, types, keys, lookups
 *   compile_option.c     what tasks and flows share: retries, throttling, queue, cache
 *   compile_storage.c    `storages`           compile_global.c     `global`
 *   compile_task.c       `tasks`              compile_flow.c       one flow definition
 *   compile_edge.c       `edges`              compile_failure.c    `failures`
 *   compile_condition.c  conditions           compile_propagate.c  the propagate_* options
 *   compile_check.c      consistency of a flow and of the system
 *   compile_graph.c      graphs: cycles, shortest ways
 *   compile_reach.c      warnings: what never starts, what never ends, selective runs
 *
 * All go on after a fault, so that one run reports everything. A running out of memory sets
 * `no_memory`, which sticks; allocators then return NULL and callers return early, the result no
 * longer matters. Functions that return bool: false means that a fault was reported. */
#ifndef SEL_CORE_COMPILE_INTERNAL_H
#define SEL_CORE_COMPILE_INTERNAL_H

#include "core/arena.h"
#include "core/compile.h"
#include "core/yaml.h"

/* A node that the flow at hand uses; its position in sel_compiler.slots is its slot. */
struct sel_compile_slot {
    uint32_t node;
    struct sel_pos pos; /* where the flow names it first */
    bool is_source;     /* something waits for its end */
    bool is_started;    /* an edge or a fallback starts it */
    bool has_fallback;
};

/* One flow definition at work. */
struct sel_compile_flow {
    struct sel_flow_def *def;
    const struct sel_ynode *tree; /* a map */
    bool is_broken;               /* faults were found: further checks would only repeat them */
};

/* A selective edge, looked at again when all flows are known. */
struct sel_compile_selective {
    struct sel_compile_selective *next;
    const struct sel_edge_def *edge;
    const struct sel_ynode *tasks; /* a list of texts */
    uint32_t target;               /* node number of a flow */
};

/* An entry of propagate_finished, looked at again when all flows are known. */
struct sel_compile_finished {
    struct sel_compile_finished *next;
    const struct sel_ynode *name;
    uint32_t target; /* node number of a flow */
};

struct sel_compile_flow_info {
    const struct sel_ynode *listed; /* its entry in `flows` */
    bool is_defined;
    bool is_broken;
    uint32_t *started; /* flows (indexes) that every run of this one starts */
    uint32_t started_count;
};

struct sel_compiler {
    const struct sel_compile_options *options;
    struct sel_system *system;
    struct sel_arena *arena;  /* of the system */
    struct sel_arena scratch; /* trees, and whatever is not kept */
    struct sel_diag *diag;
    bool no_memory;
    bool storages_unknown; /* some storages are unusable: unknown ones say nothing new */
    bool names_unknown;    /* the same for tasks and flows */
    uint32_t suggest_left; /* candidates that may still be compared, over the whole run */
    const char *file_theirs, *file_ours; /* the last name of a file copied to the arena */

    const struct sel_ynode **storage_names; /* as written, parallel to system->storages */
    bool *storage_used;
    const struct sel_ynode **task_trees; /* parallel to system->tasks */
    bool *task_used;
    struct sel_compile_flow_info *flows; /* parallel to system->flows */

    const struct sel_ynode *predicates_module; /* as written, NULL if absent */
    bool predicates_are_builtin;
    const struct sel_cond *always; /* where no condition is written */
    const char *always_text;

    /* Slots of the flow at hand. slot_of[node] counts if slot_round[node] == round. */
    struct sel_compile_slot *slots;
    uint32_t slot_count, slot_cap;
    uint32_t *slot_of, *slot_round;
    uint32_t round;

    struct sel_compile_selective *selectives;
    struct sel_compile_finished *finished;
};

/* --- compile_util.c --- */

/* Zeroed memory of the system's arena, or of scratch; NULL sets no_memory. */
void *sel_compile_alloc(struct sel_compiler *c, struct sel_arena *arena, size_t count, size_t size);
#define SEL_COMPILE_NEW(c, type, count)                                                            \
    ((type *)sel_compile_alloc((c), (c)->arena, (count), sizeof(type)))
#define SEL_COMPILE_SCRATCH(c, type, count)                                                        \
    ((type *)sel_compile_alloc((c), &(c)->scratch, (count), sizeof(type)))

/* Copies into the system's arena, terminated; empty if memory is out. */
struct sel_str sel_compile_keep(struct sel_compiler *c, struct sel_str text);
/* The same place under a file name that the system owns. */
struct sel_pos sel_compile_keep_pos(struct sel_compiler *c, struct sel_pos pos);
/* The tree as a value in the system's arena, nothing shared with the tree. */
struct sel_value sel_compile_value(struct sel_compiler *c, const struct sel_ynode *node);

/* An error of the consistency check: nothing happens with `no_check`. */
void sel_compile_inconsistent(struct sel_compiler *c, struct sel_pos pos, const char *fmt, ...)
    SEL_PRINTF(3, 4);

/* The user's own text for a message: cut, control characters escaped; never NULL. */
const char *sel_compile_show(struct sel_compiler *c, struct sel_str text);
/* What stands there instead: "the number 5", "a list", "nothing"; never NULL. */
const char *sel_compile_got(struct sel_compiler *c, const struct sel_ynode *node);
/* "; did you mean 'x'?" or `otherwise`; `names` are terminated. */
const char *sel_compile_hint(struct sel_compiler *c, struct sel_str wanted,
                             const char *const *names, uint32_t count, const char *otherwise);

enum sel_compile_names { SEL_COMPILE_TASKS = 1, SEL_COMPILE_FLOWS = 2, SEL_COMPILE_NODES = 3 };
/* The same among the names of the system. */
const char *sel_compile_hint_node(struct sel_compiler *c, struct sel_str wanted,
                                  enum sel_compile_names among, const char *otherwise);

/* Whether `node` is a map; `what` names it in the error. */
bool sel_compile_is_map(struct sel_compiler *c, const struct sel_ynode *node, const char *what);

/* Reports every key of `map` that is not in `known` (terminated by NULL). */
bool sel_compile_check_keys(struct sel_compiler *c, const struct sel_ynode *map, const char *what,
                            const char *const *known);
/* The same as warnings, for places where the original ignores them. */
void sel_compile_warn_keys(struct sel_compiler *c, const struct sel_ynode *map, const char *what,
                           const char *const *known);

/* What the original takes for "not given": null, false, 0, "", [] and {}; NULL too. */
bool sel_compile_is_falsy(const struct sel_ynode *node);
static inline bool sel_compile_is_text(const struct sel_ynode *node)
{
    return node && node->kind == SEL_TEXT;
}

/* Text from a place where the original takes anything: other kinds are read as they are written,
 * with a warning. NULL gives an empty text. */
struct sel_str sel_compile_any_text(struct sel_compiler *c, const struct sel_ynode *node,
                                    const char *what);
/* A bool; absent: *ret stays as it is. */
bool sel_compile_bool(struct sel_compiler *c, const struct sel_ynode *map, const char *key,
                      bool *ret);

/* A list, or a single entry in its place. Not to be copied. */
struct sel_compile_items {
    const struct sel_ynode *one;
    const struct sel_ynode *const *p;
    uint32_t count;
};
void sel_compile_items(struct sel_compile_items *items, const struct sel_ynode *node);

/* The number of a task or flow, SEL_NONE after an error. */
uint32_t sel_compile_node(struct sel_compiler *c, const struct sel_ynode *name);
uint32_t sel_compile_flow_node(struct sel_compiler *c, const struct sel_ynode *name);
/* The index of a storage, SEL_NONE after an error. */
uint32_t sel_compile_storage_index(struct sel_compiler *c, const struct sel_ynode *name);
/* The slot of a node in the flow at hand; added, if it is new. SEL_NONE: no memory. */
uint32_t sel_compile_slot(struct sel_compiler *c, uint32_t node, struct sel_pos pos);
/* SEL_NONE if the flow at hand does not use it. */
uint32_t sel_compile_slot_get(const struct sel_compiler *c, uint32_t node);
static inline bool sel_compile_is_flow(const struct sel_compiler *c, uint32_t node)
{
    return sel_system_is_flow(c->system, node);
}
/* The name of a node or of a slot's node, terminated. */
const char *sel_compile_node_name(const struct sel_compiler *c, uint32_t node);
const char *sel_compile_slot_name(const struct sel_compiler *c, uint32_t slot);

/* --- compile_option.c --- */

void sel_compile_retries(struct sel_compiler *c, const struct sel_ynode *map, uint32_t *ret_max,
                         int64_t *ret_countdown_us);
void sel_compile_throttling(struct sel_compiler *c, const struct sel_ynode *map, int64_t *ret_us);
/* A number of seconds above zero. */
void sel_compile_seconds(struct sel_compiler *c, const struct sel_ynode *node, const char *what,
                         int64_t *ret_us);
/* Expanded; an absent or empty one is `otherwise`. */
void sel_compile_queue(struct sel_compiler *c, const struct sel_ynode *map,
                       struct sel_str otherwise, struct sel_str *ret);
/* The text of `node` with environment variables put in. */
bool sel_compile_expand(struct sel_compiler *c, const struct sel_ynode *node, const char *what,
                        struct sel_str *ret);
/* The key `cache` of `map`, if it is there. */
void sel_compile_cache(struct sel_compiler *c, const struct sel_ynode *map,
                       struct sel_cache_def *ret);

/* --- sections --- */

void sel_compile_storages(struct sel_compiler *c, const struct sel_ynode *root);
void sel_compile_global(struct sel_compiler *c, const struct sel_ynode *root);
void sel_compile_tasks(struct sel_compiler *c, const struct sel_ynode *root);
/* Node names: [_a-zA-Z][_a-zA-Z0-9]*. */
bool sel_compile_name_is_valid(struct sel_str name);
/* Enters a valid, new name as the number `node`. */
bool sel_compile_add_name(struct sel_compiler *c, const struct sel_ynode *name, const char *what,
                          uint32_t node, struct sel_str *ret);

/* Compiles `tree` into `def`, whose name and index are set. */
void sel_compile_flow_def(struct sel_compiler *c, const struct sel_ynode *tree,
                          struct sel_flow_def *def, bool *ret_broken);

void sel_compile_edges(struct sel_compiler *c, struct sel_compile_flow *flow);
void sel_compile_failures(struct sel_compiler *c, struct sel_compile_flow *flow);
void sel_compile_propagate(struct sel_compiler *c, struct sel_compile_flow *flow);
/* Sets the propagate_* flags of the finished nodes. */
void sel_compile_propagate_resolve(struct sel_compiler *c, struct sel_flow_def *def);
/* Consistency of the propagate_* options. */
void sel_compile_propagate_check(struct sel_compiler *c, const struct sel_compile_flow *flow);

/* Where a condition stands. */
struct sel_compile_scope {
    const uint32_t *nodes; /* node numbers of the sources, distinct */
    uint32_t node_count;
    uint32_t written_count; /* as written: a source may be named twice */
    bool has_results;       /* edges: results of the sources may be asked for */
};
/* The condition of a leaf or tree; absent: always true. *ret and *ret_text are set in any case. */
bool sel_compile_condition(struct sel_compiler *c, const struct sel_compile_scope *scope,
                           const struct sel_ynode *map, const struct sel_cond **ret,
                           const char **ret_text);
/* 1 or 0 if the condition always has this answer, else -1. */
int sel_compile_constant(const struct sel_cond *cond);

/* --- checks --- */

/* The flow at hand, after it was compiled without a fault. */
void sel_compile_check_flow(struct sel_compiler *c, const struct sel_compile_flow *flow);
/* Tasks, storages and classes. */
void sel_compile_check_system(struct sel_compiler *c);
/* Warnings about what the flow at hand can start; about all flows together. */
void sel_compile_reach_flow(struct sel_compiler *c, const struct sel_compile_flow *flow);
void sel_compile_reach_system(struct sel_compiler *c);

/* --- compile_graph.c --- */

/* Arcs in the order of their tails: those of vertex n are head[first[n]] .. head[first[n + 1]]. */
struct sel_compile_graph {
    uint32_t vertex_count;
    uint32_t *first; /* vertex_count + 1 */
    uint32_t *head;
};

/* The strongly connected component of each vertex, in scratch; NULL: no memory. */
const uint32_t *sel_compile_graph_components(struct sel_compiler *c,
                                             const struct sel_compile_graph *g);
/* Sets the first vertex of each component that has a cycle; in scratch, NULL: no memory. */
const uint32_t *sel_compile_graph_cycles(struct sel_compiler *c, const struct sel_compile_graph *g,
                                         const uint32_t *component, uint32_t *ret_count);
/* A shortest way from `vertex` back to itself within its component: *ret_count vertices, the first
 * one is `vertex`; in scratch, NULL: no memory. */
const uint32_t *sel_compile_graph_way(struct sel_compiler *c, const struct sel_compile_graph *g,
                                      const uint32_t *component, uint32_t vertex,
                                      uint32_t *ret_count);

#endif
