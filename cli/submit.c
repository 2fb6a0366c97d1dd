#include "cli/submit.h"

#include "cli/format.h"

int sel_cli_submit_fill(const struct sel_cli *cli, const char *command,
                        const struct sel_cli_submit_values *values, struct sel_client_task *task)
{
    int64_t eta_us = 0;
    if (values->countdown > 0 && values->eta)
        return sel_cli_usage(cli, command, "--countdown and --eta exclude each other");
    if (values->eta && !sel_cli_parse_time(values->eta, &eta_us))
        return sel_cli_usage(cli, command, "--eta: no time like 2026-01-31T12:00:00Z");
    task->countdown_us = (int64_t)(values->countdown * 1e6);
    task->not_before_unix_us = eta_us;
    task->key = sel_str_c(values->key);
    task->priority = (uint8_t)values->priority;
    task->level = sel_cli_ends_level(values->level);
    return SEL_CLI_OK;
}
