#include <errno.h>

#include "client/internal.h"
#include "core/arena.h"
#include "core/value.h"

/* What was there in the first version of the struct; it only grows. */
#define FLOW_SIZE_MIN sizeof(struct sel_client_flow)

static int check_names(const struct sel_str *names, uint32_t count)
{
    if (count > 0 && !names)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        if (names[i].n == 0 || names[i].n > SEL_WIRE_NAME_MAX || !sel_str_is_utf8(names[i]))
            return -EINVAL;
    return 0;
}

static int check_selective(const struct sel_client_flow *flow)
{
    bool says_more = flow->follow_subflows || flow->run_subsequent || flow->subsequent_flow_count;
    if (says_more && flow->selective_task_count == 0)
        return -EINVAL;
    if (flow->subsequent_flow_count && !flow->run_subsequent)
        return -EINVAL;
    int r = check_names(flow->selective_tasks, flow->selective_task_count);
    return r < 0 ? r : check_names(flow->subsequent_flows, flow->subsequent_flow_count);
}

static int put_names(struct sel_value_builder *map, const char *key, const struct sel_str *names,
                     uint32_t count)
{
    struct sel_value_builder list;
    struct sel_value value;
    sel_value_begin_list(&list, map->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, sel_value_from_str(names[i]));
    int r = sel_value_end(&list, &value);
    if (r == 0)
        sel_value_put_c(map, key, value);
    return r;
}

static int encode(const struct sel_client_flow *flow, struct sel_arena *arena, struct sel_buf *buf)
{
    struct sel_value_builder map;
    struct sel_value value;
    sel_value_begin_map(&map, arena);
    int r = put_names(&map, "tasks", flow->selective_tasks, flow->selective_task_count);
    sel_value_put_c(&map, "follow_subflows", sel_value_from_bool(flow->follow_subflows));
    sel_value_put_c(&map, "run_subsequent", sel_value_from_bool(flow->run_subsequent));
    if (r == 0 && flow->subsequent_flow_count)
        r = put_names(&map, "subsequent_flows", flow->subsequent_flows,
                      flow->subsequent_flow_count);
    if (r == 0)
        r = sel_value_end(&map, &value);
    if (r < 0)
        return r;
    sel_value_encode(&value, buf);
    return sel_buf_error(buf);
}

int sel_client_make_selective(const struct sel_client_flow *flow, struct sel_bytes *ret)
{
    struct sel_arena arena = {0};
    struct sel_buf buf = {0};
    int r = flow->size < FLOW_SIZE_MIN ? -EINVAL : check_selective(flow);
    if (r == 0 && flow->selective_task_count)
        r = sel_client_errno(encode(flow, &arena, &buf));
    sel_arena_done(&arena);
    if (r < 0)
        sel_buf_done(&buf);
    else
        *ret = (struct sel_bytes){buf.p, buf.n};
    return r;
}

int sel_client_run_flow(struct sel_client *client, const struct sel_client_flow *flow,
                        struct sel_client_id *ret_id, int64_t timeout_us)
{
    struct sel_bytes selective;
    if (!sel_client_is_ours(client))
        return -ECHILD;
    int r = sel_client_make_selective(flow, &selective);
    if (r < 0)
        return r;
    const struct sel_client_task task = {
        .name = flow->name,
        .args = flow->args,
        .queue = flow->queue,
        .tag = flow->tag,
        .id = flow->id,
        .countdown_us = flow->countdown_us,
        .not_before_unix_us = flow->not_before_unix_us,
        .key = flow->key,
        .priority = flow->priority,
        .level = flow->level,
        .flags = flow->flags | SEL_CLIENT_FLOW,
        .selective = selective,
    };
    r = (int)sel_client_put(client, &task, sizeof(task), 1, ret_id, timeout_us);
    sel_client_bytes_free(&selective);
    return r < 0 ? r : 0;
}
