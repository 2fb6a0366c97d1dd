/* `task`: submits bare tasks to brokers, waits for them, cancels them. */
#include <string.h>

#include "cli/format.h"
#include "cli/submit.h"

struct values {
    const char *action;
    struct sel_cli_texts words;
    struct sel_cli_ends_values ends;
    struct sel_cli_submit_values submit;
    const char *args, *args_file, *queue;
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
    SEL_CLI_SUBMIT_OPTIONS(struct values, submit, "submit"),
    {.name = "wait",
     .letter = 'w',
     .kind = SEL_CLI_FLAG,
     MEMBER(wait),
     .help = "come back when the submitted tasks have ended, and print how"},
};

static const struct values defaults = {.submit = SEL_CLI_SUBMIT_DEFAULTS};

/* Fills `task`; `args` is freed by the caller. An exit status. */
static int make_task(struct sel_cli_ends *ends, const struct values *values,
                     struct sel_client_task *task, struct sel_bytes *args)
{
    const struct sel_cli *cli = ends->cli;
    char error[SEL_CLIENT_ERROR_SIZE];
    struct sel_error err;
    struct sel_str json = sel_str_c(values->args ? values->args : "null");
    if (values->args && values->args_file)
        return sel_cli_usage(cli, "task", "--args and --args-file exclude each other");
    *task = (struct sel_client_task){
        .name = sel_str_c(values->words.items[0]),
        .queue = sel_str_c(values->queue),
        .flags = values->wait ? 0 : SEL_CLIENT_QUIET,
    };
    int status = sel_cli_submit_fill(cli, "task", &values->submit, task);
    if (status != SEL_CLI_OK)
        return status;
    if (values->args_file && sel_cli_read_file(&ends->arena, values->args_file, &json, &err) < 0)
        return sel_cli_fail_with(cli, &err);
    if (sel_client_from_json(json.p, json.n, args, error) < 0)
        return sel_cli_fail(cli, "%s: %s", values->args_file ? values->args_file : "--args", error);
    task->args = *args;
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
    status = sel_cli_ends_submit(ends, &task, (uint64_t)values->submit.count, &id);
    sel_client_bytes_free(&args);
    if (status != SEL_CLI_OK)
        return status;
    if (values->submit.count > 1)
        return sel_cli_ends_report_many(ends, (uint64_t)values->submit.count, values->wait,
                                        "tasks");
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
