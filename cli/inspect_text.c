#include "cli/inspect.h"

#include <inttypes.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/system.h"

/* ---- pieces ---- */

static void put_seconds(struct sel_buf *buf, int64_t us)
{
    if (us % 1000000 == 0)
        sel_buf_printf(buf, "%" PRId64 " s", us / 1000000);
    else
        sel_buf_printf(buf, "%g s", (double)us / 1e6);
}

static void put_names(struct sel_buf *buf, const struct sel_str *names, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        sel_buf_printf(buf, "%s%.*s", i ? ", " : "", SEL_STR_ARG(names[i]));
}

static void put_slots(struct sel_buf *buf, const struct sel_system *s,
                      const struct sel_flow_def *flow, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct sel_str name = sel_system_node_name(s, flow->nodes[slots[i]].node);
        sel_buf_printf(buf, "%s%.*s", i ? ", " : "", SEL_STR_ARG(name));
    }
}

static void put_retry(struct sel_buf *buf, uint32_t max_retry, int64_t countdown_us)
{
    if (max_retry == 0)
        return;
    sel_buf_printf(buf, ", max_retry %u", max_retry);
    if (countdown_us > 0) {
        sel_buf_put_c(buf, " every ");
        put_seconds(buf, countdown_us);
    }
}

static void put_throttle(struct sel_buf *buf, int64_t us)
{
    if (us == 0)
        return;
    sel_buf_put_c(buf, ", one start in ");
    put_seconds(buf, us);
}

static void put_config(struct sel_buf *buf, const struct sel_value *config)
{
    if (sel_value_is(config, SEL_NULL))
        return;
    sel_buf_put_u8(buf, ' ');
    sel_json_write(config, SEL_JSON_SPACED, buf);
}

static void put_cache(struct sel_buf *buf, const struct sel_cache_def *cache)
{
    if (cache->import.name.n == 0)
        return;
    sel_buf_printf(buf, ", cache %.*s", SEL_STR_ARG(cache->import.name));
    put_config(buf, &cache->config);
}

/* ---- tasks and storages ---- */

static void put_task_storage(struct sel_buf *buf, const struct sel_system *s,
                             const struct sel_task_def *task)
{
    if (task->storage == SEL_NONE)
        return;
    sel_buf_printf(buf, ", storage %.*s", SEL_STR_ARG(s->storages[task->storage].name));
    if (!sel_str_eq(task->storage_task_name, task->name))
        sel_buf_printf(buf, " as %.*s", SEL_STR_ARG(task->storage_task_name));
    if (task->storage_read_only)
        sel_buf_put_c(buf, " (only read)");
}

static void put_task(struct sel_buf *buf, const struct sel_system *s,
                     const struct sel_task_def *task)
{
    sel_buf_printf(buf, "task %.*s: ", SEL_STR_ARG(task->name));
    if (task->command_count > 0) {
        sel_buf_put_c(buf, "command");
        for (uint32_t i = 0; i < task->command_count; i++)
            sel_buf_printf(buf, " %.*s", SEL_STR_ARG(task->command[i]));
    } else {
        sel_buf_printf(buf, "%.*s.%.*s", SEL_STR_ARG(task->import.module),
                       SEL_STR_ARG(task->import.name));
    }
    sel_buf_printf(buf, ", queue %.*s", SEL_STR_ARG(task->queue));
    put_task_storage(buf, s, task);
    put_retry(buf, task->max_retry, task->retry_countdown_us);
    put_throttle(buf, task->throttle_us);
    if (task->timeout_us > 0) {
        sel_buf_put_c(buf, ", at most ");
        put_seconds(buf, task->timeout_us);
    }
    if (task->blocking)
        sel_buf_put_c(buf, ", blocking");
    if (task->output_schema.n > 0)
        sel_buf_printf(buf, ", schema %.*s", SEL_STR_ARG(task->output_schema));
    if (task->selective_run_function.name.n > 0)
        sel_buf_printf(buf, ", selective %.*s.%.*s",
                       SEL_STR_ARG(task->selective_run_function.module),
                       SEL_STR_ARG(task->selective_run_function.name));
    put_cache(buf, &task->cache);
    sel_buf_put_u8(buf, '\n');
}

static void put_storage(struct sel_buf *buf, const struct sel_storage_def *storage)
{
    sel_buf_printf(buf, "storage %.*s: %.*s.%.*s", SEL_STR_ARG(storage->name),
                   SEL_STR_ARG(storage->import.module), SEL_STR_ARG(storage->import.name));
    put_config(buf, &storage->config);
    put_cache(buf, &storage->cache);
    sel_buf_put_u8(buf, '\n');
}

/* ---- flows ---- */

static void put_propagate(struct sel_buf *buf, const char *option,
                          const struct sel_propagate_def *def)
{
    if (!def->all && def->flow_count == 0)
        return;
    sel_buf_printf(buf, "  %s: ", option);
    if (def->all)
        sel_buf_put_c(buf, "all");
    put_names(buf, def->flows, def->all ? 0 : def->flow_count);
    sel_buf_put_u8(buf, '\n');
}

static void put_flow_options(struct sel_buf *buf, const struct sel_flow_def *flow)
{
    put_propagate(buf, "propagate_parent", &flow->propagate_parent);
    put_propagate(buf, "propagate_finished", &flow->propagate_finished);
    put_propagate(buf, "propagate_compound_finished", &flow->propagate_compound_finished);
    put_propagate(buf, "propagate_node_args", &flow->propagate_node_args);
    put_propagate(buf, "propagate_failures", &flow->propagate_failures);
    put_propagate(buf, "propagate_parent_failures", &flow->propagate_parent_failures);
    put_propagate(buf, "propagate_compound_failures", &flow->propagate_compound_failures);
    if (flow->node_args_from_first)
        sel_buf_put_c(buf, "  node_args_from_first\n");
    if (flow->nowait_count > 0) {
        sel_buf_put_c(buf, "  nowait: ");
        put_names(buf, flow->nowait, flow->nowait_count);
        sel_buf_put_u8(buf, '\n');
    }
    if (flow->eager_all || flow->eager_count > 0) {
        sel_buf_printf(buf, "  eager_failures: %s", flow->eager_all ? "all" : "");
        put_names(buf, flow->eager, flow->eager_all ? 0 : flow->eager_count);
        sel_buf_put_u8(buf, '\n');
    }
    if (flow->has_sampling) {
        sel_buf_printf(buf, "  sampling: %.*s", SEL_STR_ARG(flow->sampling.name));
        put_config(buf, &flow->sampling_args);
        sel_buf_put_u8(buf, '\n');
    }
}

static void put_selective(struct sel_buf *buf, const struct sel_selective_def *selective)
{
    sel_buf_put_c(buf, ", only what leads to ");
    put_names(buf, selective->tasks, selective->task_count);
    if (selective->follow_subflows)
        sel_buf_put_c(buf, " in sub-flows too");
    if (selective->subsequent_flow_count > 0) {
        sel_buf_put_c(buf, " and what follows in ");
        put_names(buf, selective->subsequent_flows, selective->subsequent_flow_count);
    } else if (selective->run_subsequent) {
        sel_buf_put_c(buf, " and what follows");
    }
}

static void put_edge(struct sel_buf *buf, const struct sel_system *s,
                     const struct sel_flow_def *flow, const struct sel_edge_def *edge)
{
    sel_buf_put_c(buf, edge->from_count ? "  " : "  start");
    put_slots(buf, s, flow, edge->from, edge->from_count);
    sel_buf_put_c(buf, " -> ");
    put_slots(buf, s, flow, edge->to, edge->to_count);
    if (edge->cond->op != SEL_COND_TRUE)
        sel_buf_printf(buf, " if %s", edge->cond_text);
    if (edge->foreach)
        sel_buf_printf(buf, ", %s%s", edge->foreach->text,
                       edge->foreach->propagate_result ? ", item as arguments" : "");
    if (edge->selective)
        put_selective(buf, edge->selective);
    sel_buf_put_u8(buf, '\n');
}

static void put_fallback(struct sel_buf *buf, const struct sel_system *s,
                         const struct sel_flow_def *flow, const struct sel_choice_def *choice,
                         const struct sel_fallback_def *fallback)
{
    sel_buf_put_c(buf, "  failed ");
    put_slots(buf, s, flow, choice->failed, choice->failed_count);
    if (fallback->node_count > 0) {
        sel_buf_put_c(buf, " -> ");
        put_slots(buf, s, flow, fallback->nodes, fallback->node_count);
    } else {
        sel_buf_put_c(buf, " is forgotten");
    }
    if (fallback->cond->op != SEL_COND_TRUE)
        sel_buf_printf(buf, " if %s", fallback->cond_text);
    if (fallback->propagate_failure)
        sel_buf_put_c(buf, ", then the flow fails");
    sel_buf_put_u8(buf, '\n');
}

static void put_flow(struct sel_buf *buf, const struct sel_system *s,
                     const struct sel_flow_def *flow)
{
    sel_buf_printf(buf, "flow %.*s: queue %.*s", SEL_STR_ARG(flow->name), SEL_STR_ARG(flow->queue));
    put_retry(buf, flow->max_retry, flow->retry_countdown_us);
    put_throttle(buf, flow->throttle_us);
    put_cache(buf, &flow->cache);
    sel_buf_put_u8(buf, '\n');
    put_flow_options(buf, flow);
    for (uint32_t i = 0; i < flow->edge_count; i++)
        put_edge(buf, s, flow, &flow->edges[i]);
    for (uint32_t i = 0; i < flow->choice_count; i++) {
        const struct sel_choice_def *choice = &flow->choices[i];
        for (uint32_t k = 0; k < choice->fallback_count; k++)
            put_fallback(buf, s, flow, choice, &choice->fallbacks[k]);
    }
}

void sel_cli_inspect_text(const struct sel_system *s, struct sel_buf *buf)
{
    for (uint32_t i = 0; i < s->task_count; i++)
        put_task(buf, s, &s->tasks[i]);
    for (uint32_t i = 0; i < s->storage_count; i++)
        put_storage(buf, &s->storages[i]);
    for (uint32_t i = 0; i < s->flow_count; i++)
        put_flow(buf, s, &s->flows[i]);
    if (s->migration_dir.n > 0)
        sel_buf_printf(buf, "migration_dir: %.*s\n", SEL_STR_ARG(s->migration_dir));
}
