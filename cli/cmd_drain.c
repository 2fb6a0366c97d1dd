/* `drain`: a broker takes no more submits and works off what it has. */
#include <time.h>

#include "cli/broker.h"
#include "client/query.h"

#define LOOK_NS 200000000 /* between two looks at a broker that drains */

struct values {
    struct sel_cli_broker_values broker;
    bool wait, resume;
};

static const struct sel_cli_option options[] = {
    SEL_CLI_BROKER_OPTIONS(struct values, broker),
    {.name = "wait",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, wait),
     .help = "come back when nothing is left in it to be done"},
    {.name = "resume",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, resume),
     .help = "the other way: take tasks again"},
};

static const struct values defaults = {.broker = SEL_CLI_BROKER_DEFAULTS};

static uint64_t number_in(const struct sel_value *answer, const char *key)
{
    const struct sel_value *value = sel_value_get_c(answer, key);
    int64_t number = 0;
    if (!sel_value_is(value, SEL_INT) || !sel_value_i64(value, &number))
        return 0;
    return (uint64_t)number;
}

/* Results wait in it until they are fetched or too old: they keep nobody. */
static bool is_idle(const struct sel_value *answer)
{
    return number_in(answer, "tasks") == number_in(answer, "ended") &&
           number_in(answer, "journal_backlog") == 0;
}

/* Asks, and with --wait again until the answer is that nothing is left. */
static int drain(const struct values *values, struct sel_client_query *query,
                 struct sel_arena *arena, struct sel_value *answer, struct sel_error *err)
{
    int64_t timeout_us = (int64_t)(values->broker.timeout * 1e6);
    for (;;) {
        sel_arena_reset(arena);
        int r = sel_client_query_ask(query, values->resume ? "resume" : "drain", NULL, timeout_us,
                                     arena, answer, err);
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
    if (values->wait && values->resume)
        return sel_cli_usage(cli, "drain", "--wait and --resume exclude each other");
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
