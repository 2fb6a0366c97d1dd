/* `result`: of a flow or task that has ended. */
#include <errno.h>
#include <string.h>

#include "cli/broker.h"
#include "cli/ends.h"
#include "cli/nodes.h"
#include "core/json.h"

/* A result that is there comes together with the answer to the question, or right behind it. */
#define GRACE_US INT64_C(250000)

struct values {
    struct sel_cli_ends_values ends;
    const char *id, *query;
    bool nodes;
};

static const struct sel_cli_option options[] = {
    {.name = "ID",
     .is_word = true,
     .kind = SEL_CLI_TEXT,
     .required = true,
     .offset = offsetof(struct values, id),
     .help = "of a flow or task, as `run` and `task submit` print it"},
    {.name = "nodes",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct values, nodes),
     .help = "of a flow: all its nodes in place of the result, a line each: state, name, id; with "
             "--json an object each"},
    {.name = "query",
     .kind = SEL_CLI_TEXT,
     .offset = offsetof(struct values, query),
     .env = {"SELINON_BROKER_QUERY"},
     .value_name = "ENDPOINT",
     .help =
         "with --nodes: where the flow's broker answers questions; default " SEL_CLI_BROKER_QUERY},
    SEL_CLI_ENDS_OPTIONS(struct values, ends),
};

static const struct values defaults = {.query = SEL_CLI_BROKER_QUERY};

static int print_value(struct sel_cli_ends *ends, const struct sel_value *value)
{
    struct sel_buf text = {0};
    sel_json_write(value, SEL_JSON_PRETTY, &text);
    sel_buf_put_u8(&text, '\n');
    int r = sel_buf_error(&text);
    if (r == 0)
        (void)fwrite(text.p, 1, text.n, ends->cli->out); /* sel_cli_finish sees what went wrong */
    sel_buf_done(&text);
    return r < 0 ? sel_cli_fail(ends->cli, "%s", sel_error_text(r)) : SEL_CLI_OK;
}

/* What it failed with is its result too, but the status tells. */
static int print_plain(struct sel_cli_ends *ends, const struct values *values,
                       const struct sel_client_result *result)
{
    const char *id = values->id;
    const struct sel_value value = sel_cli_ends_value(&ends->arena, result);
    if (result->status == SEL_CLIENT_REFUSED)
        return sel_cli_fail(ends->cli, "%s: %.*s", id, SEL_STR_ARG(sel_value_str(&value)));
    int status = values->nodes ? sel_cli_nodes_print(ends, values->query, result)
                               : print_value(ends, &value);
    if (status == SEL_CLI_OK && !values->nodes && sel_cli_nodes_pages(&value) > 0)
        fprintf(ends->cli->err, "Its nodes: %s result %s --nodes\n", ends->cli->program, id);
    if (status == SEL_CLI_OK && result->status != SEL_CLIENT_OK)
        return sel_cli_fail(ends->cli, "%s %s%s", id,
                            result->status == SEL_CLIENT_CANCELLED ? "was " : "",
                            sel_cli_ends_names[result->status]);
    return status;
}

static int print_json(struct sel_cli_ends *ends, const struct sel_client_result *result)
{
    struct sel_value value;
    struct sel_buf text = {0};
    int r = sel_cli_ends_to_value(ends, result, &value);
    if (r == 0) {
        sel_json_write(&value, SEL_JSON_SPACED, &text);
        r = sel_buf_error(&text);
    }
    if (r == 0)
        fprintf(ends->cli->out, "%s\n", sel_buf_cstr(&text));
    sel_buf_done(&text);
    if (r < 0)
        return sel_cli_fail(ends->cli, "%s", sel_error_text(r));
    return result->status == SEL_CLIENT_OK ? SEL_CLI_OK : SEL_CLI_FAILED;
}

static int show(struct sel_cli_ends *ends, const struct values *values)
{
    const struct sel_cli_texts ids = {(const char **)(uintptr_t)&values->id, 1};
    int64_t patience_us = sel_cli_ends_patience(ends, SEL_CLI_ENDS_ANSWER_US);
    struct sel_client_batch *batch;
    int status = sel_cli_ends_watch(ends, &ids, 0, false);
    if (status != SEL_CLI_OK)
        return status;
    int r = sel_client_flush(ends->client, patience_us);
    if (r < 0)
        return sel_cli_ends_fail(ends, values->id, r);
    int64_t count = sel_client_next(ends->client, &batch, GRACE_US);
    if (count == -ETIMEDOUT)
        return sel_cli_fail(ends->cli, "%s has not ended; `wait` waits for it", values->id);
    if (count <= 0)
        return sel_cli_ends_fail(ends, values->id, (int)count);
    status = values->ends.json && !values->nodes ? print_json(ends, &batch->results[0])
                                                 : print_plain(ends, values, &batch->results[0]);
    sel_client_batch_free(batch);
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    struct sel_cli_ends ends = {0};
    int status = sel_cli_ends_open(&ends, cli, &values->ends);
    if (status == SEL_CLI_OK)
        status = show(&ends, values);
    sel_cli_ends_close(&ends);
    return sel_cli_finish(cli, status);
}

const struct sel_cli_command sel_cli_cmd_result = {
    .name = "result",
    .about = "Print the result of a flow or task that has ended.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
