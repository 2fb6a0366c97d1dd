#include "cli/request.h"

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"

int sel_cli_request_check(const struct sel_cli *cli, const struct sel_cli_request_values *values,
                          bool is_selective)
{
    if (values->node_args && values->node_args_file)
        return sel_cli_fail(cli, "give --node-args or --node-args-file, not both");
    if (values->node_args_json && !values->node_args && !values->node_args_file)
        return sel_cli_fail(cli,
                            "--node-args-json needs arguments: --node-args or --node-args-file");
    if (values->selective_tasks.count == 0 && !is_selective &&
        (values->selective_follow_subflows || values->selective_run_subsequent))
        return sel_cli_fail(cli, "--selective-%s needs --selective-task-names",
                            values->selective_follow_subflows ? "follow-subflows"
                                                              : "run-subsequent");
    return SEL_CLI_OK;
}

static int parse_args(const struct sel_cli *cli, struct sel_arena *arena, bool is_json,
                      const char *file, struct sel_str text, struct sel_value *ret)
{
    struct sel_error err;
    if (!is_json) {
        if (!sel_str_is_utf8(text))
            return sel_cli_fail(cli, "%s: is not UTF-8", file);
        *ret = sel_value_from_str(text);
        return SEL_CLI_OK;
    }
    struct sel_diag diag;
    sel_diag_init(&diag, arena);
    int r = sel_json_parse(arena, file, text, ret, &diag, &err);
    for (const struct sel_diag_item *item = diag.first; item; item = item->next)
        fprintf(cli->err, "%s:%u:%u: warning: %s\n", file, item->pos.line, item->pos.col,
                item->text);
    return r < 0 ? sel_cli_fail_with(cli, &err) : SEL_CLI_OK;
}

int sel_cli_request_encode(const struct sel_cli *cli, struct sel_arena *arena,
                           const struct sel_value *args, struct sel_str *ret)
{
    struct sel_buf buf = {0};
    sel_value_encode(args, &buf);
    int r = sel_buf_error(&buf);
    void *bytes = r < 0 ? NULL : sel_arena_memdup(arena, buf.p, buf.n);
    *ret = (struct sel_str){bytes, buf.n};
    sel_buf_done(&buf);
    if (!bytes)
        return sel_cli_fail(cli, "the arguments: %s", sel_error_text(r < 0 ? r : SEL_ENOMEM));
    return SEL_CLI_OK;
}

int sel_cli_request_args(const struct sel_cli *cli, struct sel_arena *arena,
                         const struct sel_cli_request_values *values, struct sel_str *ret)
{
    const char *name = values->node_args_file ? values->node_args_file : "--node-args";
    struct sel_str text = sel_str_c(values->node_args);
    struct sel_value args;
    struct sel_error err;
    *ret = (struct sel_str){NULL, 0};
    if (!values->node_args && !values->node_args_file)
        return SEL_CLI_OK;
    if (values->node_args_file && sel_cli_read_file(arena, values->node_args_file, &text, &err) < 0)
        return sel_cli_fail_with(cli, &err);
    int status = parse_args(cli, arena, values->node_args_json, name, text, &args);
    return status == SEL_CLI_OK ? sel_cli_request_encode(cli, arena, &args, ret) : status;
}

struct sel_str *sel_cli_request_tasks(struct sel_arena *arena,
                                      const struct sel_cli_request_values *values)
{
    uint32_t count = values->selective_tasks.count;
    struct sel_str *tasks = SEL_ARENA_NEW_ARRAY(arena, struct sel_str, count ? count : 1);
    for (uint32_t i = 0; tasks && i < count; i++)
        tasks[i] = sel_str_c(values->selective_tasks.items[i]);
    return tasks;
}
