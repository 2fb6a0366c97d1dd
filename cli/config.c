#include "cli/config.h"

static int refuse(const struct sel_cli *cli, const struct sel_diag *diag, bool strict)
{
    uint32_t count = diag->error_count + (strict ? diag->warning_count : 0);
    (void)sel_cli_fail(cli, "the configuration has %u %s%s", count,
                       diag->error_count > 0 ? "error" : "warning", count == 1 ? "" : "s");
    return SEL_ECONFIG;
}

int sel_cli_config_load(const struct sel_cli *cli, const struct sel_cli_config_request *request,
                        struct sel_config *config)
{
    struct sel_error err;
    struct sel_config_request wanted = {
        .nodes = request->nodes,
        .flows = request->flows.items,
        .flow_count = request->flows.count,
        .no_check = request->no_check,
        .getenv = request->getenv ? request->getenv : cli->getenv,
        .getenv_ctx = request->getenv ? request->getenv_ctx : cli->getenv_ctx,
        .user = request->user,
    };
    int r = sel_config_load(&wanted, config, &err);
    sel_config_print(&config->diag, cli->err);
    if (r == SEL_ECONFIG || (r == 0 && request->strict && config->diag.warning_count > 0))
        return refuse(cli, &config->diag, request->strict);
    if (r < 0)
        (void)sel_cli_fail_with(cli, &err);
    return r;
}
