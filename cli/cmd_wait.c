/* `wait`: for the ends of flows and tasks, whoever submitted them. */
#include "cli/ends.h"

struct values {
    struct sel_cli_ends_values ends;
    struct sel_cli_texts ids;
    bool all;
};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "ID...",
     .is_word = true,
     .kind = SEL_CLI_NAMES,
     .required = true,
     MEMBER(ids),
     .help = "of flows and tasks, as `run` and `task submit` print them"},
    {.name = "all",
     .kind = SEL_CLI_FLAG,
     MEMBER(all),
     .help = "wait also for what flows have sent off and did not wait for"},
    SEL_CLI_ENDS_OPTIONS(struct values, ends),
};

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    struct sel_cli_ends ends = {.is_flow = true};
    int status = sel_cli_ends_open(&ends, cli, &values->ends);
    if (status == SEL_CLI_OK)
        status = sel_cli_ends_watch(&ends, &values->ids, values->all ? SEL_CLIENT_ALL : 0, false);
    if (status == SEL_CLI_OK) {
        int r = sel_cli_ends_take(&ends, sel_cli_ends_patience(&ends, SEL_CLIENT_FOREVER));
        status = sel_cli_ends_report_list(&ends, "results");
        if (r < 0)
            status = sel_cli_ends_fail(&ends, "wait", r);
    }
    sel_cli_ends_close(&ends);
    return sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_wait = {
    .name = "wait",
    .about = "Wait for the ends of flows and tasks.",
    .more = "A line for each as it ends. Ends with 0 if all of them succeeded.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .run = run,
};
