/* `inspect`: checks a configuration, lists its queues, dumps what it means. */
#include <string.h>

#include "cli/cli.h"
#include "cli/config.h"
#include "cli/inspect.h"
#include "core/buf.h"
#include "core/json.h"

struct values {
    const char *nodes;
    struct sel_cli_texts flows;
    const char *dump, *dump_format;
    bool no_check, strict;
    bool list_task_queues, list_dispatcher_queues;
};

static const char *const formats[] = {"text", "json", "dot", NULL};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "nodes-definition",
     .letter = 'n',
     .kind = SEL_CLI_FILE,
     .required = true,
     MEMBER(nodes),
     .env = {"SELINON_NODES_DEFINITION", "SELINON_INSPECT_NODES_DEFINITION"},
     .help = "the nodes file"},
    {.name = "flow-definitions",
     .letter = 'f',
     .kind = SEL_CLI_PATHS,
     .required = true,
     MEMBER(flows),
     .env = {"SELINON_FLOW_DEFINITIONS", "SELINON_INSPECT_FLOW_DEFINITIONS"},
     .help = "flow files, or folders searched through all levels for *.yaml and *.yml"},
    {.name = "list-task-queues",
     .kind = SEL_CLI_FLAG,
     MEMBER(list_task_queues),
     .env = {"SELINON_INSPECT_LIST_TASK_QUEUES"},
     .help = "print task:queue for each task"},
    {.name = "list-dispatcher-queues",
     .kind = SEL_CLI_FLAG,
     MEMBER(list_dispatcher_queues),
     .env = {"SELINON_INSPECT_LIST_DISPATCHER_QUEUES"},
     .help = "print flow:queue for each flow"},
    {.name = "dump",
     .letter = 'd',
     .kind = SEL_CLI_TEXT,
     MEMBER(dump),
     .env = {"SELINON_INSPECT_DUMP"},
     .value_name = "FILE",
     .help = "write what the configuration means; - is standard output"},
    {.name = "dump-format",
     .kind = SEL_CLI_CHOICE,
     MEMBER(dump_format),
     .env = {"SELINON_INSPECT_DUMP_FORMAT"},
     .choices = formats,
     .help = "text, json or dot (for Graphviz); default by the ending of FILE, else text"},
    {.name = "no-check",
     .kind = SEL_CLI_FLAG,
     MEMBER(no_check),
     .env = {"SELINON_INSPECT_NO_CHECK"},
     .help = "skip the consistency check; parsing errors still count"},
    {.name = "strict",
     .kind = SEL_CLI_FLAG,
     MEMBER(strict),
     .env = {"SELINON_INSPECT_STRICT"},
     .help = "warnings count as errors"},
};

static void list_task_queues(const struct sel_cli *cli, const struct sel_system *s)
{
    for (uint32_t i = 0; i < s->task_count; i++)
        fprintf(cli->out, "%.*s:%.*s\n", SEL_STR_ARG(s->tasks[i].name),
                SEL_STR_ARG(s->tasks[i].queue));
}

static void list_dispatcher_queues(const struct sel_cli *cli, const struct sel_system *s)
{
    for (uint32_t i = 0; i < s->flow_count; i++)
        fprintf(cli->out, "%.*s:%.*s\n", SEL_STR_ARG(s->flows[i].name),
                SEL_STR_ARG(s->flows[i].queue));
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static const char *dump_format(const struct values *v)
{
    if (v->dump_format)
        return v->dump_format;
    if (ends_with(v->dump, ".json"))
        return "json";
    return ends_with(v->dump, ".dot") || ends_with(v->dump, ".gv") ? "dot" : "text";
}

static int write_json(struct sel_arena *arena, const struct sel_system *s, struct sel_buf *buf)
{
    struct sel_value tables;
    int r = sel_system_dump(arena, s, &tables);
    if (r < 0)
        return r;
    sel_json_write(&tables, SEL_JSON_SORT | SEL_JSON_PRETTY, buf);
    sel_buf_put_u8(buf, '\n');
    return 0;
}

static int dump(const struct sel_cli *cli, const struct values *v, struct sel_config *config)
{
    struct sel_buf buf = {0};
    const char *format = dump_format(v);
    int r = 0;
    if (strcmp(format, "json") == 0)
        r = write_json(&config->arena, config->system, &buf);
    else if (strcmp(format, "dot") == 0)
        sel_cli_inspect_dot(config->system, &buf);
    else
        sel_cli_inspect_text(config->system, &buf);
    if (r == 0)
        r = sel_buf_error(&buf);
    struct sel_error err;
    if (r < 0)
        (void)sel_error_set(&err, r, (struct sel_pos){0}, "cannot dump: %s", sel_error_text(r));
    else
        r = sel_cli_write_file(cli, v->dump, sel_buf_str(&buf), &err);
    sel_buf_done(&buf);
    return r < 0 ? sel_cli_fail_with(cli, &err) : SEL_CLI_OK;
}

static int answer(const struct sel_cli *cli, const struct values *v, struct sel_config *config)
{
    if (v->list_task_queues)
        list_task_queues(cli, config->system);
    if (v->list_dispatcher_queues)
        list_dispatcher_queues(cli, config->system);
    if (v->dump)
        return dump(cli, v, config);
    if (!v->list_task_queues && !v->list_dispatcher_queues)
        fputs("Your configuration looks OK.\n", cli->out);
    return SEL_CLI_OK;
}

static int run(const struct sel_cli *cli, const void *values)
{
    const struct values *v = values;
    struct sel_config config = {0};
    const struct sel_cli_config_request request = {
        .nodes = v->nodes,
        .flows = v->flows,
        .no_check = v->no_check,
        .strict = v->strict,
    };
    int r = sel_cli_config_load(cli, &request, &config);
    int status = r < 0 ? SEL_CLI_FAILED : answer(cli, v, &config);
    sel_config_done(&config);
    return sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_inspect = {
    .name = "inspect",
    .about = "Check a configuration and show what it means.",
    .more = "Prints `Your configuration looks OK.` if nothing else was asked.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .run = run,
};
