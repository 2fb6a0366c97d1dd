/* `queues`: what waits where. */
#include "cli/broker.h"

struct values {
    struct sel_cli_broker_values broker;
};

static const struct sel_cli_option options[] = {SEL_CLI_BROKER_OPTIONS(struct values, broker)};

static const struct values defaults = {.broker = SEL_CLI_BROKER_DEFAULTS};

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    return sel_cli_broker_show(cli, &values->broker, "queues", NULL,
                               "No queue has been named yet.");
}

const struct sel_cli_command sel_cli_cmd_queues = {
    .name = "queues",
    .about = "List the queues of a broker: what waits, what ended, who serves them.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
