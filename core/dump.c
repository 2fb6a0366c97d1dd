#include "core/compile.h"

#include <stdlib.h>

#include "core/arena.h"

struct dumper {
    struct sel_arena *arena;
    const struct sel_system *s;
    bool no_memory; /* sticks: the result is then thrown away */
};

/* ---- pieces ---- */

static struct sel_value end(struct dumper *d, struct sel_value_builder *b)
{
    struct sel_value v;
    if (sel_value_end(b, &v) == 0)
        return v;
    d->no_memory = true;
    return sel_value_null;
}

/* null for an empty text: nothing that may be empty is ever written so. */
static struct sel_value text_or_null(struct sel_str text)
{
    return text.n ? sel_value_from_str(text) : sel_value_null;
}

static struct sel_value names(struct dumper *d, const struct sel_str *list, uint32_t count)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&b, sel_value_from_str(list[i]));
    return end(d, &b);
}

static struct sel_str slot_name(const struct dumper *d, const struct sel_flow_def *flow,
                                uint32_t slot)
{
    return sel_system_node_name(d->s, flow->nodes[slot].node);
}

static struct sel_value slot_names(struct dumper *d, const struct sel_flow_def *flow,
                                   const uint32_t *slots, uint32_t count)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&b, sel_value_from_str(slot_name(d, flow, slots[i])));
    return end(d, &b);
}

static struct sel_value pair(struct dumper *d, struct sel_value first, struct sel_value second)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    sel_value_add(&b, first);
    sel_value_add(&b, second);
    return end(d, &b);
}

static struct sel_value empty_map(struct dumper *d)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, d->arena);
    return end(d, &b);
}

/* Seconds; whole ones are integers. */
static struct sel_value countdown(int64_t us)
{
    if (us % 1000000 == 0)
        return sel_value_from_i64(us / 1000000);
    return sel_value_from_f64((double)us / 1e6);
}

static struct sel_value throttle(int64_t us)
{
    return us == 0 ? sel_value_null : sel_value_from_f64((double)us / 1e6);
}

static struct sel_value import(struct dumper *d, const struct sel_import *i)
{
    return pair(d, sel_value_from_str(i->module), sel_value_from_str(i->name));
}

/* [class, most entries]; no cache is an LRU for none. What configures a cache otherwise (a server,
 * a path) stands in place of the number. */
static struct sel_value cache(struct dumper *d, const struct sel_cache_def *def)
{
    if (def->import.name.n == 0)
        return pair(d, sel_value_from_c("LRU"), sel_value_from_i64(0));
    const struct sel_value *size = sel_value_get_c(&def->config, "max_cache_size");
    struct sel_value second = size ? *size : def->config;
    if (sel_value_is(&second, SEL_NULL))
        second = sel_value_from_i64(0);
    return pair(d, sel_value_from_str(def->import.name), second);
}

/* ---- tables of tasks: false leaves the task out ---- */

static bool task_output_schema(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = text_or_null(d->s->tasks[i].output_schema);
    return d->s->tasks[i].output_schema.n > 0;
}

static bool task_readonly(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_bool(d->s->tasks[i].storage_read_only);
    return true;
}

static bool task_storage_name(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_str(d->s->tasks[i].storage_task_name);
    return true;
}

static bool task_storage(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    uint32_t storage = d->s->tasks[i].storage;
    *ret = storage == SEL_NONE ? sel_value_null : sel_value_from_str(d->s->storages[storage].name);
    return true;
}

static bool task_queue(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_str(d->s->tasks[i].queue);
    return true;
}

static bool task_throttle(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = throttle(d->s->tasks[i].throttle_us);
    return true;
}

static bool task_import(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = import(d, &d->s->tasks[i].import);
    return true;
}

/* ---- tables of storages ---- */

/* [class, arguments by name]; positional ones have no names and are left out, as in the original's
 * tables. */
static bool storage_itself(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    const struct sel_storage_def *def = &d->s->storages[i];
    struct sel_value config = sel_value_is(&def->config, SEL_MAP) ? def->config : empty_map(d);
    *ret = pair(d, sel_value_from_str(def->import.name), config);
    return true;
}

static bool storage_cache(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = cache(d, &d->s->storages[i].cache);
    return true;
}

static bool storage_import(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = import(d, &d->s->storages[i].import);
    return true;
}

/* ---- tables of tasks and flows ---- */

static bool node_max_retry(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_u64(sel_system_is_flow(d->s, i) ? sel_system_flow(d->s, i)->max_retry
                                                          : d->s->tasks[i].max_retry);
    return true;
}

static bool node_countdown(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = countdown(sel_system_is_flow(d->s, i) ? sel_system_flow(d->s, i)->retry_countdown_us
                                                 : d->s->tasks[i].retry_countdown_us);
    return true;
}

/* ---- tables of flows ---- */

static bool flow_cache(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = cache(d, &d->s->flows[i].cache);
    return true;
}

static bool flow_queue(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_str(d->s->flows[i].queue);
    return true;
}

static bool flow_eager(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    const struct sel_flow_def *flow = &d->s->flows[i];
    *ret = flow->eager_all ? sel_value_from_bool(true) : names(d, flow->eager, flow->eager_count);
    return true;
}

static bool flow_nowait(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = names(d, d->s->flows[i].nowait, d->s->flows[i].nowait_count);
    return true;
}

static bool flow_args_from_first(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = sel_value_from_bool(d->s->flows[i].node_args_from_first);
    return true;
}

static bool flow_throttle(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    *ret = throttle(d->s->flows[i].throttle_us);
    return true;
}

static bool flow_strategy(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    const struct sel_flow_def *flow = &d->s->flows[i];
    if (flow->has_sampling) {
        *ret = pair(d, sel_value_from_str(flow->sampling.name), flow->sampling_args);
        return true;
    }
    /* What the original would do; ours looks as soon as there is something to see. */
    struct sel_value_builder b;
    sel_value_begin_map(&b, d->arena);
    sel_value_put_c(&b, "start_retry", sel_value_from_i64(2));
    sel_value_put_c(&b, "max_retry", sel_value_from_i64(120));
    *ret = pair(d, sel_value_from_c("biexponential_increase"), end(d, &b));
    return true;
}

static struct sel_value propagate(struct dumper *d, const struct sel_propagate_def *def)
{
    if (def->all || def->flow_count == 0)
        return sel_value_from_bool(def->all);
    return names(d, def->flows, def->flow_count);
}

#define FLOW_PROPAGATE(option)                                                                     \
    static bool flow_##option(struct dumper *d, uint32_t i, struct sel_value *ret)                 \
    {                                                                                              \
        *ret = propagate(d, &d->s->flows[i].option);                                               \
        return true;                                                                               \
    }
FLOW_PROPAGATE(propagate_parent)
FLOW_PROPAGATE(propagate_finished)
FLOW_PROPAGATE(propagate_compound_finished)
FLOW_PROPAGATE(propagate_node_args)
FLOW_PROPAGATE(propagate_failures)
FLOW_PROPAGATE(propagate_parent_failures)
FLOW_PROPAGATE(propagate_compound_failures)

/* ---- edges ---- */

static struct sel_value selective(struct dumper *d, const struct sel_selective_def *def)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, d->arena);
    sel_value_put_c(&b, "task_names", names(d, def->tasks, def->task_count));
    sel_value_put_c(&b, "follow_subflows", sel_value_from_bool(def->follow_subflows));
    sel_value_put_c(&b, "run_subsequent",
                    def->subsequent_flow_count
                        ? names(d, def->subsequent_flows, def->subsequent_flow_count)
                        : sel_value_from_bool(def->run_subsequent));
    return end(d, &b);
}

static struct sel_value edge(struct dumper *d, const struct sel_flow_def *flow,
                             const struct sel_edge_def *def)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, d->arena);
    sel_value_put_c(&b, "from", slot_names(d, flow, def->from, def->from_count));
    sel_value_put_c(&b, "to", slot_names(d, flow, def->to, def->to_count));
    sel_value_put_c(&b, "condition_str", sel_value_from_c(def->cond_text));
    if (def->foreach) {
        sel_value_put_c(&b, "foreach_str", sel_value_from_c(def->foreach->text));
        sel_value_put_c(&b, "foreach_propagate_result",
                        sel_value_from_bool(def->foreach->propagate_result));
    }
    if (def->selective)
        sel_value_put_c(&b, "selective", selective(d, def->selective));
    return end(d, &b);
}

static bool flow_edges(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    const struct sel_flow_def *flow = &d->s->flows[i];
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t e = 0; e < flow->edge_count; e++)
        sel_value_add(&b, edge(d, flow, &flow->edges[e]));
    *ret = end(d, &b);
    return true;
}

/* ---- failures: a tree over the names of the failed nodes ---- */

/* A set of failed nodes longer than this ends in one step with the remaining names, joined by
 * commas: values may not be nested without limit. */
#define PATH_MAX_STEPS 64

/* A choice with the names that lead to it, in their order. */
struct path {
    const struct sel_choice_def *choice;
    struct sel_str *steps;
    uint32_t count;
};

static int compare_paths(const void *x, const void *y)
{
    const struct path *a = x, *b = y;
    for (uint32_t i = 0; i < a->count && i < b->count; i++) {
        int order = sel_str_cmp(a->steps[i], b->steps[i]);
        if (order != 0)
            return order;
    }
    return (a->count > b->count) - (a->count < b->count);
}

static struct sel_str join_names(struct dumper *d, const struct sel_flow_def *flow,
                                 const uint32_t *slots, uint32_t count)
{
    size_t size = 0, n = 0;
    for (uint32_t i = 0; i < count; i++)
        size += slot_name(d, flow, slots[i]).n + 1;
    char *out = sel_arena_alloc_raw(d->arena, size + 1, 1);
    if (!out) {
        d->no_memory = true;
        return SEL_STR("");
    }
    for (uint32_t i = 0; i < count; i++) {
        struct sel_str name = slot_name(d, flow, slots[i]);
        if (i > 0)
            out[n++] = ',';
        memcpy(out + n, name.p, name.n);
        n += name.n;
    }
    return (struct sel_str){out, n};
}

static bool path_init(struct dumper *d, const struct sel_flow_def *flow,
                      const struct sel_choice_def *choice, struct path *path)
{
    uint32_t count = choice->failed_count;
    bool is_cut = count > PATH_MAX_STEPS;
    path->choice = choice;
    path->count = is_cut ? PATH_MAX_STEPS : count;
    path->steps = SEL_ARENA_NEW_ARRAY(d->arena, struct sel_str, path->count);
    if (!path->steps) {
        d->no_memory = true;
        return false;
    }
    for (uint32_t i = 0; i < path->count; i++)
        path->steps[i] = slot_name(d, flow, choice->failed[i]);
    if (is_cut)
        path->steps[PATH_MAX_STEPS - 1] =
            join_names(d, flow, choice->failed + PATH_MAX_STEPS - 1, count - PATH_MAX_STEPS + 1);
    return true;
}

static struct sel_value fallbacks(struct dumper *d, const struct sel_flow_def *flow,
                                  const struct sel_choice_def *choice)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t i = 0; choice && i < choice->fallback_count; i++) {
        const struct sel_fallback_def *f = &choice->fallbacks[i];
        sel_value_add(&b, f->node_count ? slot_names(d, flow, f->nodes, f->node_count)
                                        : sel_value_from_bool(true));
    }
    return end(d, &b);
}

static struct sel_value fallback_conditions(struct dumper *d, const struct sel_choice_def *choice)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t i = 0; choice && i < choice->fallback_count; i++)
        sel_value_add(&b, sel_value_from_c(choice->fallbacks[i].cond_text));
    return end(d, &b);
}

static struct sel_value fallback_propagates(struct dumper *d, const struct sel_choice_def *choice)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, d->arena);
    for (uint32_t i = 0; choice && i < choice->fallback_count; i++)
        sel_value_add(&b, sel_value_from_bool(choice->fallbacks[i].propagate_failure));
    return end(d, &b);
}

/* The tree below `paths`, sorted, which have their first `depth` steps in common and at least one
 * more. Goes at most PATH_MAX_STEPS deep. */
static struct sel_value tree(struct dumper *d, const struct sel_flow_def *flow,
                             const struct path *paths, uint32_t count, uint32_t depth)
{
    struct sel_value_builder all;
    sel_value_begin_map(&all, d->arena);
    for (uint32_t i = 0, next; i < count; i = next) {
        struct sel_str name = paths[i].steps[depth];
        for (next = i + 1; next < count && sel_str_eq(paths[next].steps[depth], name);)
            next++;
        bool is_end = paths[i].count == depth + 1; /* then it is the first: the shortest */
        const struct sel_choice_def *choice = is_end ? paths[i].choice : NULL;
        struct sel_value_builder one;
        sel_value_begin_map(&one, d->arena);
        sel_value_put_c(&one, "next",
                        tree(d, flow, paths + i + is_end, next - i - is_end, depth + 1));
        sel_value_put_c(&one, "fallback", fallbacks(d, flow, choice));
        sel_value_put_c(&one, "propagate_failure", fallback_propagates(d, choice));
        sel_value_put_c(&one, "condition_strs", fallback_conditions(d, choice));
        sel_value_put(&all, name, end(d, &one));
    }
    return end(d, &all);
}

static bool flow_failures(struct dumper *d, uint32_t i, struct sel_value *ret)
{
    const struct sel_flow_def *flow = &d->s->flows[i];
    if (flow->choice_count == 0)
        return false;
    struct path *paths = SEL_ARENA_NEW_ARRAY(d->arena, struct path, flow->choice_count);
    if (!paths) {
        d->no_memory = true;
        return false;
    }
    for (uint32_t c = 0; c < flow->choice_count; c++) {
        if (!path_init(d, flow, &flow->choices[c], &paths[c]))
            return false;
    }
    qsort(paths, flow->choice_count, sizeof(*paths), compare_paths);
    *ret = tree(d, flow, paths, flow->choice_count, 0);
    return true;
}

/* ---- all tables ---- */

enum scope { TASKS, FLOWS, NODES, STORAGES };

/* Names that the original's tables have; `task_imports` and `storage_imports` are ours. */
static const struct table {
    const char *name;
    enum scope scope;
    bool (*entry)(struct dumper *d, uint32_t i, struct sel_value *ret);
} tables[] = {
    {"task_imports", TASKS, task_import},
    {"task_queues", TASKS, task_queue},
    {"dispatcher_queues", FLOWS, flow_queue},
    {"edge_table", FLOWS, flow_edges},
    {"failures", FLOWS, flow_failures},
    {"max_retry", NODES, node_max_retry},
    {"retry_countdown", NODES, node_countdown},
    {"throttle_tasks", TASKS, task_throttle},
    {"throttle_flows", FLOWS, flow_throttle},
    {"strategies", FLOWS, flow_strategy},
    {"nowait_nodes", FLOWS, flow_nowait},
    {"eager_failures", FLOWS, flow_eager},
    {"node_args_from_first", FLOWS, flow_args_from_first},
    {"propagate_parent", FLOWS, flow_propagate_parent},
    {"propagate_finished", FLOWS, flow_propagate_finished},
    {"propagate_compound_finished", FLOWS, flow_propagate_compound_finished},
    {"propagate_node_args", FLOWS, flow_propagate_node_args},
    {"propagate_failures", FLOWS, flow_propagate_failures},
    {"propagate_parent_failures", FLOWS, flow_propagate_parent_failures},
    {"propagate_compound_failures", FLOWS, flow_propagate_compound_failures},
    {"async_result_cache", FLOWS, flow_cache},
    {"output_schemas", TASKS, task_output_schema},
    {"task2storage_mapping", TASKS, task_storage},
    {"storage_task_name", TASKS, task_storage_name},
    {"storage_readonly", TASKS, task_readonly},
    {"storages", STORAGES, storage_itself},
    {"storage_imports", STORAGES, storage_import},
    {"storage_cache", STORAGES, storage_cache},
};

static uint32_t scope_count(const struct sel_system *s, enum scope scope)
{
    switch (scope) {
    case TASKS:
        return s->task_count;
    case FLOWS:
        return s->flow_count;
    case STORAGES:
        return s->storage_count;
    default:
        return s->task_count + s->flow_count;
    }
}

static struct sel_str scope_name(const struct sel_system *s, enum scope scope, uint32_t i)
{
    switch (scope) {
    case TASKS:
        return s->tasks[i].name;
    case FLOWS:
        return s->flows[i].name;
    case STORAGES:
        return s->storages[i].name;
    default:
        return sel_system_node_name(s, i);
    }
}

static struct sel_value dump_table(struct dumper *d, const struct table *table)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, d->arena);
    uint32_t count = scope_count(d->s, table->scope);
    for (uint32_t i = 0; i < count; i++) {
        struct sel_value entry;
        if (table->entry(d, i, &entry))
            sel_value_put(&b, scope_name(d->s, table->scope, i), entry);
    }
    return end(d, &b);
}

int sel_system_dump(struct sel_arena *arena, const struct sel_system *s, struct sel_value *ret)
{
    struct dumper d = {.arena = arena, .s = s};
    struct sel_value_builder b;
    sel_value_begin_map(&b, arena);
    for (size_t i = 0; i < SEL_COUNT(tables) && !d.no_memory; i++)
        sel_value_put_c(&b, tables[i].name, dump_table(&d, &tables[i]));
    sel_value_put_c(&b, "migration_dir", text_or_null(s->migration_dir));
    struct sel_value all = end(&d, &b);
    if (d.no_memory)
        return SEL_ENOMEM;
    *ret = all;
    return 0;
}
