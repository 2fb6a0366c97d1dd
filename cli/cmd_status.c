/* `status`: how a broker is, what is in it, what became of a task. */
#include "cli/broker.h"
#include "core/id.h"

struct values {
    struct sel_cli_broker_values broker;
    const char *task;
    bool sessions, config;
};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    SEL_CLI_BROKER_OPTIONS(struct values, broker),
    {.name = "ID",
     .is_word = true,
     .kind = SEL_CLI_TEXT,
     MEMBER(task),
     .help = "of a task: where it is, in place of the broker's own numbers"},
    {.name = "sessions",
     .kind = SEL_CLI_FLAG,
     MEMBER(sessions),
     .help = "all producers and workers, in place of them"},
    {.name = "config",
     .kind = SEL_CLI_FLAG,
     MEMBER(config),
     .help = "the settings that it runs with, in place of them"},
};

static const struct values defaults = {.broker = SEL_CLI_BROKER_DEFAULTS};

static int show_task(const struct sel_cli *cli, const struct values *values)
{
    struct sel_id id;
    if (!sel_id_parse(sel_str_c(values->task), &id))
        return sel_cli_usage(cli, "status", "ID: no id of a task (a UUID of 36 characters)");
    struct sel_arena arena = {0};
    struct sel_value_builder args;
    struct sel_value value;
    sel_value_begin_map(&args, &arena);
    sel_value_put_c(&args, "id", sel_value_from_c(values->task));
    int status = sel_value_end(&args, &value) == 0
                     ? sel_cli_broker_show(cli, &values->broker, "task", &value, "")
                     : sel_cli_fail(cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_arena_done(&arena);
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    if ((values->task != NULL) + values->sessions + values->config > 1)
        return sel_cli_usage(cli, "status", "ID, --sessions and --config exclude each other");
    if (values->task)
        return show_task(cli, values);
    if (values->sessions)
        return sel_cli_broker_show(cli, &values->broker, "sessions", NULL, "Nobody is connected.");
    return sel_cli_broker_show(cli, &values->broker, values->config ? "config" : "status", NULL,
                               "");
}

const struct sel_cli_command sel_cli_cmd_status = {
    .name = "status",
    .about = "Show how a broker is: tasks, sessions, memory, journal; or one task.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
