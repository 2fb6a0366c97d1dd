/* `task`: submits bare tasks to brokers, waits for them, cancels them. */
#include <string.h>

#include "cli/ends.h"
#include "cli/format.h"

struct values {
    const char *action;
    struct sel_cli_texts words;
    struct sel_cli_ends_values ends;
    const char *args, *args_file, *queue, *eta, *level, *key;
    int64_t priority, count;
    double countdown;
    bool wait;
};

static const char *const actions[] = {"submit", "wait", "cancel", NULL};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "ACTION",
     .is_word = true,
     .kind = SEL_CLI_CHOICE,
     .required = true,
     MEMBER(action),
     .choices = actions,
     .help = "submit NAME: a task of that name; wait ID...: for the ends of tasks; cancel ID..."},
    {.name = "NAME|ID...",
     .is_word = true,
     .kind = SEL_CLI_NAMES,
     .required = true,
     MEMBER(words),
     .help = "of the task; ids as submit has printed them"},
    SEL_CLI_ENDS_OPTIONS(struct values, ends),
    {.name = "args",
     .kind = SEL_CLI_TEXT,
     MEMBER(args),
     .value_name = "JSON",
     .help = "arguments of the task; default null"},
    {.name = "args-file", .kind = SEL_CLI_FILE, MEMBER(args_file), .help = "a file with them"},
    {.name = "queue", .letter = 'q', .kind = SEL_CLI_TEXT, MEMBER(queue), .help = "default celery"},
    {.name = "priority",
     .kind = SEL_CLI_INT,
     .min = 1,
     .max = 255,
     MEMBER(priority),
     .help = "larger first; default 128"},
    {.name = "countdown",
     .kind = SEL_CLI_NUMBER,
     .min = 0,
     .max = 1e9,
     MEMBER(countdown),
     .value_name = "SECONDS",
     .help = "begin so much later"},
    {.name = "eta",
     .kind = SEL_CLI_TEXT,
     MEMBER(eta),
     .value_name = "TIME",
     .help = "begin not before 2026-01-31T12:00:00Z (or +01:00; without either: local time)"},
    {.name = "level",
     .kind = SEL_CLI_CHOICE,
     MEMBER(level),
     .choices = sel_cli_ends_levels,
     .help = "of durability: default (the broker's), memory, interval, commit"},
    {.name = "key",
     .kind = SEL_CLI_TEXT,
     MEMBER(key),
     .help = "idempotency key: a second submit with the same key and arguments runs nothing"},
    {.name = "count",
     .kind = SEL_CLI_INT,
     .min = 1,
     .max = 1e12,
     MEMBER(count),
     .value_name = "N",
     .help = "submit it so often; default 1"},
    {.name = "wait",
     .letter = 'w',
     .kind = SEL_CLI_FLAG,
     MEMBER(wait),
     .help = "come back when the submitted tasks have ended, and print how"},
};

static const struct values defaults = {.count = 1};

/* Fills `task`; `args` is freed by the caller. An exit status. */
static int make_task(struct sel_cli_ends *ends, const struct values *values,
                     struct sel_client_task *task, struct sel_bytes *args)
{
    const struct sel_cli *cli = ends->cli;
    char error[SEL_CLIENT_ERROR_SIZE];
    struct sel_error err;
    struct sel_str json = sel_str_c(values->args ? values->args : "null");
    int64_t eta_us = 0;
    if (values->args && values->args_file)
        return sel_cli_usage(cli, "task", "--args and --args-file exclude each other");
    if (values->countdown > 0 && values->eta)
        return sel_cli_usage(cli, "task", "--countdown and --eta exclude each other");
    if (values->eta && !sel_cli_parse_time(values->eta, &eta_us))
        return sel_cli_usage(cli, "task", "--eta: no time like 2026-01-31T12:00:00Z");
    if (values->args_file && sel_cli_read_file(&ends->arena, values->args_file, &json, &err) < 0)
        return sel_cli_fail_with(cli, &err);
    if (sel_client_from_json(json.p, json.n, args, error) < 0)
        return sel_cli_fail(cli, "%s: %s", values->args_file ? values->args_file : "--args", error);
    *task = (struct sel_client_task){
        .name = sel_str_c(values->words.items[0]),
        .args = *args,
        .queue = sel_str_c(values->queue),
        .countdown_us = (int64_t)(values->countdown * 1e6),
        .not_before_unix_us = eta_us,
        .key = sel_str_c(values->key),
        .priority = (uint8_t)values->priority,
        .level = sel_cli_ends_level(values->level),
        .flags = values->wait ? 0 : SEL_CLIENT_QUIET,
    };
    return SEL_CLI_OK;
}

static int submit(struct sel_cli_ends *ends, const struct values *values)
{
    struct sel_client_task task;
    struct sel_client_id id = {{0}};
    struct sel_bytes args = {NULL, 0};
    if (values->words.count != 1)
        return sel_cli_usage(ends->cli, "task", "submit takes the name of one task");
    int status = make_task(ends, values, &task, &args);
    if (status != SEL_CLI_OK)
        return status;
    status = sel_cli_ends_submit(ends, &task, (uint64_t)values->count, &id);
    sel_client_bytes_free(&args);
    if (status != SEL_CLI_OK)
        return status;
    if (values->count > 1)
        return sel_cli_ends_report_many(ends, (uint64_t)values->count, values->wait, "tasks");
    return values->wait ? sel_cli_ends_report_list(ends, "tasks")
                        : sel_cli_ends_print_id(ends, &id);
}

static int watch(struct sel_cli_ends *ends, const struct values *values, bool cancel)
{
    int status = sel_cli_ends_watch(ends, &values->words, 0, cancel);
    if (status != SEL_CLI_OK)
        return status;
    int64_t wait_us =
        sel_cli_ends_patience(ends, cancel ? SEL_CLI_ENDS_ANSWER_US : SEL_CLIENT_FOREVER);
    int r = sel_cli_ends_take(ends, wait_us);
    status = sel_cli_ends_report_list(ends, "tasks");
    if (r < 0)
        return sel_cli_ends_fail(ends, cancel ? "not all have ended yet" : "wait", r);
    if (cancel && ends->counts[SEL_CLIENT_REFUSED] == 0) /* cancelled is what was wanted */
        return SEL_CLI_OK;
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    struct sel_cli_ends ends = {0};
    int status = sel_cli_ends_open(&ends, cli, &values->ends);
    if (status == SEL_CLI_OK) {
        if (strcmp(values->action, "submit") == 0)
            status = submit(&ends, values);
        else
            status = watch(&ends, values, strcmp(values->action, "cancel") == 0);
    }
    sel_cli_ends_close(&ends);
    return status == SEL_CLI_USAGE ? status : sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_task = {
    .name = "task",
    .about = "Submit tasks to a broker, wait for them, cancel them.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
