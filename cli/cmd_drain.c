/* `drain`: a broker takes no more submits and works off what it has. */
#include <time.h>

#include "cli/broker.h"
#include "client/query.h"

#define LOOK_NS 200000000 /* between two looks at a broker that drains */

struct values {
    struct sel_cli_broker_values broker;
    bool wait;
};

static const struct sel_cli_option options[] = {
    SEL_CLI_BROKER_OPTIONS(struct values, broker),
    {.name = "wait",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, wait),
     .help = "come back when nothing is left in it"},
};

static const struct values defaults = {.broker = SEL_CLI_BROKER_DEFAULTS};

static bool is_idle(const struct sel_value *answer)
{
    const struct sel_value *idle = sel_value_get_c(answer, "idle");
    return sel_value_is(idle, SEL_BOOL) && sel_value_bool(idle);
}

/* Asks, and with --wait again until the answer is that nothing is left. */
static int drain(const struct values *values, struct sel_client_query *query,
                 struct sel_arena *arena, struct sel_value *answer, struct sel_error *err)
{
    int64_t timeout_us = (int64_t)(values->broker.timeout * 1e6);
    for (;;) {
        sel_arena_reset(arena);
        int r = sel_client_query_ask(query, "drain", NULL, timeout_us, arena, answer, err);
        if (r < 0 || !values->wait || is_idle(answer))
            return r;
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    struct sel_client_query *query = NULL;
    struct sel_arena arena = {0};
    struct sel_value answer;
    struct sel_error err;
    int r = sel_client_query_open(values->broker.broker, &query, &err);
    if (r == 0)
        r = drain(values, query, &arena, &answer, &err);
    int status = r == 0 ? sel_cli_broker_print(cli, &values->broker, &arena, &answer, "")
                        : sel_cli_fail_with(cli, &err);
    (void)sel_client_query_close(query);
    sel_arena_done(&arena);
    return status;
}

const struct sel_cli_command sel_cli_cmd_drain = {
    .name = "drain",
    .about = "Let a broker take no more tasks and work off what it has.",
    .more =
        "Producers keep what is refused and try again; stop the broker with SIGTERM afterwards.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
