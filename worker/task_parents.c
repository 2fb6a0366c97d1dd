#include "worker/task_internal.h"

/* ---- the maps ---- */

static int load_parents(struct sel_task *task, bool failed, const struct sel_value **ret)
{
    struct sel_value *parents = &task->parents[failed];
    if (!task->has_parents[failed]) {
        const struct sel_task_host *host = task->env->host;
        struct sel_error err = {0};
        struct sel_value found = {0};
        found.o.type = MSGPACK_OBJECT_MAP; /* an empty map: size 0 */
        if (host && host->parents) {
            int r = host->parents(host->ctx, task->env, failed, task->arena, &found, &err);
            if (r < 0) {
                err.code = r;
                return sel_task_note_error(task, "RequestError", &err);
            }
        }
        *parents = found;
        task->has_parents[failed] = true;
    }
    *ret = parents;
    return 0;
}

int sel_task_parents(struct sel_task *task, const struct sel_value **ret)
{
    return load_parents(task, false, ret);
}

int sel_task_failed_parents(struct sel_task *task, const struct sel_value **ret)
{
    return load_parents(task, true, ret);
}

/* ---- from names to the id of a run ---- */

/* The id of direct parent `name` in `map`: 1, or 0 if it is none. */
static int find_parent(const struct sel_value *map, const char *name, struct sel_str *ret)
{
    const struct sel_value *id = sel_value_get_c(map, name);
    if (!sel_value_is(id, SEL_TEXT))
        return 0;
    *ret = sel_value_str(id);
    return 1;
}

static int no_parent(struct sel_task *task, const char *name)
{
    return sel_fail(task, "NoParentNodeError", "task '%s' has no parent task '%s' in flow '%s'",
                    task->name, name, task->flow_name);
}

/* The tasks below the innermost of `flows`; NULL if one of them is none of the parents, then
 * *ret_missing is its position. */
static const struct sel_value *descend(const struct sel_value *map, const char *const *flows,
                                       uint32_t flow_count, uint32_t *ret_missing)
{
    for (uint32_t i = 0; i < flow_count; i++) {
        map = sel_value_get_c(map, flows[i]);
        if (!sel_value_is(map, SEL_MAP)) {
            *ret_missing = i;
            return NULL;
        }
    }
    return map;
}

/* The id of run `index` of `name` below `flows` in `map`. 1: *ret is set; 0: not there, which is
 * noted (a search elsewhere may follow). */
static int find_flow_parent(struct sel_task *task, const struct sel_value *map,
                            const char *const *flows, uint32_t flow_count, const char *name,
                            int index, struct sel_str *ret)
{
    uint32_t missing = 0;
    const struct sel_value *tasks = descend(map, flows, flow_count, &missing);
    if (!tasks) {
        (void)sel_fail(task, "NoParentNodeError",
                       "task '%s' has no parent flow '%s'; sub-flows hand their tasks down with "
                       "propagate_finished or propagate_compound_finished",
                       task->name, flows[missing]);
        return 0;
    }
    const struct sel_value *ids = sel_value_get_c(tasks, name);
    int64_t count = 0;
    if (sel_value_is(ids, SEL_TEXT))
        count = 1;
    else if (sel_value_is(ids, SEL_LIST))
        count = sel_value_count(ids);
    if (count == 0) {
        (void)sel_fail(task, "NoParentNodeError", "no task '%s' ended in parent flow '%s'", name,
                       flow_count ? flows[flow_count - 1] : "");
        return 0;
    }
    int64_t at = index < 0 ? count + index : index;
    const struct sel_value *id = NULL;
    if (at >= 0 && at < count)
        id = sel_value_is(ids, SEL_TEXT) ? ids : sel_value_at(ids, (uint32_t)at);
    if (!sel_value_is(id, SEL_TEXT)) {
        (void)sel_fail(task, "NoParentNodeError",
                       "run %d of task '%s' was asked for, but it ran %lld times in the parent "
                       "flow",
                       index, name, (long long)count);
        return 0;
    }
    *ret = sel_value_str(id);
    return 1;
}

static int check_flows(struct sel_task *task, const char *const *flows, uint32_t flow_count)
{
    if (!flows || flow_count == 0)
        return sel_fail(task, "RequestError", "name at least one parent flow");
    return 0;
}

/* ---- results ---- */

static int fetch(struct sel_task *task, const char *flow, const char *name, struct sel_str id,
                 const struct sel_value **ret)
{
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    if (!value)
        return sel_task_note_memory(task);
    SEL_TRY(sel_task_fetch_result(task, sel_str_c(flow), sel_str_c(name), id, value));
    *ret = value;
    return 0;
}

int sel_parent_result(struct sel_task *task, const char *name, const struct sel_value **ret)
{
    const struct sel_value *parents;
    struct sel_str id;
    SEL_TRY(sel_task_parents(task, &parents));
    if (!find_parent(parents, name, &id))
        return no_parent(task, name);
    return fetch(task, task->flow_name, name, id, ret);
}

int sel_parent_flow_result(struct sel_task *task, const char *const *flows, uint32_t flow_count,
                           const char *name, int index, const struct sel_value **ret)
{
    const struct sel_value *parents;
    struct sel_str id;
    SEL_TRY(check_flows(task, flows, flow_count));
    SEL_TRY(sel_task_parents(task, &parents));
    if (!find_flow_parent(task, parents, flows, flow_count, name, index, &id))
        return SEL_ERR_FAILED;
    return fetch(task, flows[flow_count - 1], name, id, ret);
}

/* ---- exceptions ---- */

static int did_not_fail(struct sel_task *task, const char *name)
{
    return sel_fail(task, "RequestError", "parent '%s' did not fail", name);
}

static int fetch_exception(struct sel_task *task, const char *name, struct sel_str id,
                           const struct sel_value **ret)
{
    const struct sel_task_host *host = task->env->host;
    struct sel_error err = {0};
    struct sel_value *value = SEL_ARENA_NEW(task->arena, struct sel_value);
    if (!value)
        return sel_task_note_memory(task);
    int r = SEL_ENOTFOUND;
    if (host && host->exception)
        r = host->exception(host->ctx, task->env, id, task->arena, value, &err);
    if (r == SEL_ENOTFOUND)
        return did_not_fail(task, name);
    if (r < 0) {
        err.code = r;
        return sel_task_note_error(task, "RequestError", &err);
    }
    *ret = value;
    return 0;
}

int sel_parent_exception(struct sel_task *task, const char *name, const struct sel_value **ret)
{
    const struct sel_value *failed, *finished;
    struct sel_str id;
    SEL_TRY(sel_task_failed_parents(task, &failed));
    if (find_parent(failed, name, &id))
        return fetch_exception(task, name, id, ret);
    SEL_TRY(sel_task_parents(task, &finished));
    return find_parent(finished, name, &id) ? did_not_fail(task, name) : no_parent(task, name);
}

int sel_parent_flow_exception(struct sel_task *task, const char *const *flows, uint32_t flow_count,
                              const char *name, int index, const struct sel_value **ret)
{
    const struct sel_value *failed, *finished;
    struct sel_str id;
    SEL_TRY(check_flows(task, flows, flow_count));
    SEL_TRY(sel_task_failed_parents(task, &failed));
    if (find_flow_parent(task, failed, flows, flow_count, name, index, &id))
        return fetch_exception(task, name, id, ret);
    SEL_TRY(sel_task_parents(task, &finished));
    if (find_flow_parent(task, finished, flows, flow_count, name, index, &id))
        return did_not_fail(task, name);
    return SEL_ERR_FAILED; /* noted by the search */
}
