/* `workers`: who works. */
#include "cli/broker.h"

struct values {
    struct sel_cli_broker_values broker;
};

static const struct sel_cli_option options[] = {SEL_CLI_BROKER_OPTIONS(struct values, broker)};

static const struct values defaults = {.broker = SEL_CLI_BROKER_DEFAULTS};

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    return sel_cli_broker_show(cli, &values->broker, "workers", NULL, "No worker is connected.");
}

const struct sel_cli_command sel_cli_cmd_workers = {
    .name = "workers",
    .about = "List the workers of a broker: what they serve, what they have.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
