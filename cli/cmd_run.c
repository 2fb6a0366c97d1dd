/* `run`: submits a flow to brokers, and waits for its end if it is asked to. */
#include <string.h>

#include "cli/config.h"
#include "cli/request.h"
#include "cli/submit.h"
#include "core/suggest.h"

struct values {
    struct sel_cli_ends_values ends;
    struct sel_cli_request_values request;
    struct sel_cli_submit_values submit;
    const char *flow, *nodes, *queue;
    struct sel_cli_texts flows;
    bool wait, wait_all;
};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    {.name = "FLOW",
     .is_word = true,
     .kind = SEL_CLI_TEXT,
     .required = true,
     MEMBER(flow),
     .help = "name of the flow"},
    SEL_CLI_REQUEST_OPTIONS(struct values, request, "SELINON_RUN_"),
    SEL_CLI_ENDS_OPTIONS(struct values, ends),
    {.name = "nodes-definition",
     .letter = 'n',
     .kind = SEL_CLI_FILE,
     MEMBER(nodes),
     .env = {"SELINON_NODES_DEFINITION", "SELINON_RUN_NODES_DEFINITION"},
     .help = "the nodes file: the flow must be in it, and goes to its queue there"},
    {.name = "flow-definitions",
     .letter = 'f',
     .kind = SEL_CLI_PATHS,
     MEMBER(flows),
     .env = {"SELINON_FLOW_DEFINITIONS", "SELINON_RUN_FLOW_DEFINITIONS"},
     .help = "flow files, or folders, to go with it"},
    {.name = "queue",
     .letter = 'q',
     .kind = SEL_CLI_TEXT,
     MEMBER(queue),
     .help = "the flow's queue; default that of the configuration, or celery"},
    SEL_CLI_SUBMIT_OPTIONS(struct values, submit, "run"),
    {.name = "wait",
     .letter = 'w',
     .kind = SEL_CLI_FLAG,
     MEMBER(wait),
     .help = "come back when the flow has ended, and print how"},
    {.name = "wait-all",
     .kind = SEL_CLI_FLAG,
     MEMBER(wait_all),
     .help = "the same, when also all has ended that it did not wait for"},
};

static const struct values defaults = {.submit = SEL_CLI_SUBMIT_DEFAULTS};

/* One call of the command. */
struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_arena arena;
    struct sel_config config; /* with --nodes-definition */
    struct sel_str queue;
    struct sel_client_task task;
    struct sel_bytes selective;
};

/* ---- the request ---- */

static int unknown_flow(const struct session *s)
{
    const struct sel_system *system = s->config.system;
    struct sel_suggest suggest;
    struct sel_str best;
    sel_suggest_init(&suggest, sel_str_c(s->values->flow));
    for (uint32_t i = 0; i < system->flow_count; i++)
        sel_suggest_offer(&suggest, system->flows[i].name);
    if (sel_suggest_get(&suggest, &best))
        return sel_cli_fail(s->cli, "%s: has no flow '%s'; did you mean '%.*s'?", s->values->nodes,
                            s->values->flow, SEL_STR_ARG(best));
    return sel_cli_fail(s->cli, "%s: has no flow '%s'", s->values->nodes, s->values->flow);
}

/* The flow's queue, from the configuration if one was given. */
static int find_queue(struct session *s)
{
    const struct values *v = s->values;
    const struct sel_cli_config_request request = {.nodes = v->nodes, .flows = v->flows};
    s->queue = sel_str_c(v->queue);
    if (!v->nodes != !v->flows.count)
        return sel_cli_usage(s->cli, "run",
                             "--nodes-definition and --flow-definitions go together");
    if (!v->nodes)
        return SEL_CLI_OK;
    if (sel_cli_config_load(s->cli, &request, &s->config) < 0)
        return SEL_CLI_FAILED;
    for (uint32_t i = 0; i < s->config.system->flow_count; i++) {
        const struct sel_flow_def *flow = &s->config.system->flows[i];
        if (!sel_str_eq_c(flow->name, v->flow))
            continue;
        if (!v->queue)
            s->queue = flow->queue;
        return SEL_CLI_OK;
    }
    return unknown_flow(s);
}

static int make_selective(struct session *s)
{
    const struct sel_cli_request_values *v = &s->values->request;
    const struct sel_client_flow flow = {
        .size = sizeof(flow),
        .selective_tasks = sel_cli_request_tasks(&s->arena, v),
        .selective_task_count = v->selective_tasks.count,
        .follow_subflows = v->selective_follow_subflows,
        .run_subsequent = v->selective_run_subsequent,
    };
    if (!flow.selective_tasks)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    int r = sel_client_make_selective(&flow, &s->selective);
    return r < 0 ? sel_cli_fail(s->cli, "--selective-task-names: %s", sel_client_error_text(r))
                 : SEL_CLI_OK;
}

static uint32_t flags_of(const struct values *v)
{
    if (v->wait_all)
        return SEL_CLIENT_FLOW | SEL_CLIENT_ALL;
    return SEL_CLIENT_FLOW | (v->wait ? 0u : (uint32_t)SEL_CLIENT_QUIET);
}

static int make_task(struct session *s)
{
    const struct values *v = s->values;
    struct sel_str args;
    int status = sel_cli_submit_fill(s->cli, "run", &v->submit, &s->task);
    if (status == SEL_CLI_OK)
        status = sel_cli_request_check(s->cli, &v->request, false);
    if (status == SEL_CLI_OK)
        status = find_queue(s);
    if (status == SEL_CLI_OK)
        status = sel_cli_request_args(s->cli, &s->arena, &v->request, &args);
    if (status == SEL_CLI_OK)
        status = make_selective(s);
    if (status != SEL_CLI_OK)
        return status;
    s->task.name = sel_str_c(v->flow);
    s->task.args = (struct sel_bytes){args.p, args.n};
    s->task.queue = s->queue;
    s->task.flags = flags_of(v);
    s->task.selective = s->selective;
    return SEL_CLI_OK;
}

/* ---- how it ended ---- */

/* As `execute` says it: success, failure, cancelled; refused is new. */
static const char *outcome_of(const struct sel_cli_ends *ends)
{
    static const char *const names[] = {"success", "failure", "cancelled", "refused"};
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        if (ends->counts[i])
            return names[i];
    return NULL;
}

static const char *text_in(struct sel_arena *arena, const struct sel_value *map, const char *key)
{
    const struct sel_value *text = sel_value_is(map, SEL_MAP) ? sel_value_get_c(map, key) : NULL;
    bool is_text = text && sel_value_is(text, SEL_TEXT);
    return is_text ? sel_arena_strdup(arena, sel_value_str(text)) : NULL;
}

/* "Class: message" of a flow that failed, or why it was refused; NULL: there is nothing to say. */
static const char *reason_of(struct sel_cli_ends *ends, const struct sel_value *error)
{
    if (!error)
        return NULL;
    if (sel_value_is(error, SEL_TEXT))
        return sel_arena_strdup(&ends->arena, sel_value_str(error));
    const char *class = text_in(&ends->arena, error, "class");
    const char *message = text_in(&ends->arena, error, "message");
    if (!class || !message || !*message)
        return class;
    return sel_arena_printf(&ends->arena, "%s: %s", class, message);
}

/* The nodes alone, as `execute` has them. */
static struct sel_value state_of(struct sel_cli_ends *ends, const struct sel_value *value)
{
    static const char *const keys[] = {"active_nodes", "finished_nodes", "failed_nodes"};
    struct sel_value_builder map;
    struct sel_value state;
    if (!value || !sel_value_is(value, SEL_MAP))
        return sel_value_null;
    sel_value_begin_map(&map, &ends->arena);
    for (size_t i = 0; i < SEL_COUNT(keys); i++) {
        const struct sel_value *nodes = sel_value_get_c(value, keys[i]);
        if (nodes)
            sel_value_put_c(&map, keys[i], *nodes);
    }
    return map.count > 0 && sel_value_end(&map, &state) == 0 ? state : sel_value_null;
}

/* One flow with --wait --json. */
static int report_json(struct session *s, struct sel_cli_ends *ends, const struct sel_client_id *id)
{
    char text[SEL_CLIENT_ID_SIZE];
    struct sel_value list;
    struct sel_value_builder map;
    if (sel_value_end(&ends->list, &list) < 0 || sel_value_count(&list) != 1)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    const struct sel_value *end = sel_value_at(&list, 0);
    const struct sel_value *result = sel_value_get_c(end, "result");
    const struct sel_value *error = sel_value_get_c(end, "error");
    double seconds = (double)(ends->end_us - ends->begin_us) / 1e6;
    sel_value_begin_map(&map, &ends->arena);
    sel_value_put_c(&map, "flow_name", sel_value_from_c(s->values->flow));
    sel_value_put_c(&map, "flow_id", sel_value_from_c(sel_client_id_format(id, text)));
    sel_value_put_c(&map, "outcome", sel_value_from_c(outcome_of(ends)));
    sel_value_put_c(&map, "state", state_of(ends, result ? result : error));
    sel_value_put_c(&map, "reason", sel_value_from_c(reason_of(ends, error)));
    sel_value_put_c(&map, "seconds", sel_value_from_f64(seconds));
    int status = sel_cli_ends_print_json(ends, &map);
    if (status != SEL_CLI_OK)
        return status;
    return ends->counts[SEL_CLIENT_OK] ? SEL_CLI_OK : SEL_CLI_FAILED;
}

static int report(struct session *s, struct sel_cli_ends *ends, const struct sel_client_id *id)
{
    const struct values *v = s->values;
    bool has_waited = v->wait || v->wait_all;
    if (v->submit.count > 1)
        return sel_cli_ends_report_many(ends, (uint64_t)v->submit.count, has_waited, "flows");
    if (!has_waited)
        return sel_cli_ends_print_id(ends, id);
    if (v->ends.json)
        return report_json(s, ends, id);
    return ends->counts[SEL_CLIENT_OK] ? SEL_CLI_OK : SEL_CLI_FAILED;
}

/* The time was over: the flow runs on, and who wants to know more needs its id. */
static void tell_id(const struct session *s, const struct sel_client_id *id)
{
    static const struct sel_client_id none = {{0}};
    char text[SEL_CLIENT_ID_SIZE];
    if (s->task.flags & SEL_CLIENT_QUIET || memcmp(id, &none, sizeof(none)) == 0)
        return;
    fprintf(s->cli->err, "It is flow %s, which `wait` and `status` know.\n",
            sel_client_id_format(id, text));
}

static int submit(struct session *s)
{
    struct sel_cli_ends ends = {.is_flow = true};
    struct sel_client_id id = {{0}};
    int status = sel_cli_ends_open(&ends, s->cli, &s->values->ends);
    if (status == SEL_CLI_OK) {
        status = sel_cli_ends_submit(&ends, &s->task, (uint64_t)s->values->submit.count, &id);
        if (status != SEL_CLI_OK)
            tell_id(s, &id);
        else
            status = report(s, &ends, &id);
    }
    sel_cli_ends_close(&ends);
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    struct session s = {.cli = cli, .values = p};
    int status = make_task(&s);
    if (status == SEL_CLI_OK)
        status = submit(&s);
    sel_client_bytes_free(&s.selective);
    sel_config_done(&s.config);
    sel_arena_done(&s.arena);
    return status == SEL_CLI_USAGE ? status : sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_run = {
    .name = "run",
    .about = "Run a flow on a cluster: submit it to a broker, wait for its end.",
    .more =
        "Prints the flow's id when the broker has it, with --wait how it ended. Ends with 0 if\n"
        "the flow was taken or, with --wait, succeeded.\n",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
