#include "cli/broker.h"

#include "cli/table.h"
#include "client/query.h"
#include "core/json.h"

int sel_cli_broker_print(const struct sel_cli *cli, const struct sel_cli_broker_values *values,
                         struct sel_arena *arena, const struct sel_value *value, const char *empty)
{
    struct sel_buf out = {0};
    int r = 0;
    if (values->json) {
        sel_json_write(value, SEL_JSON_SPACED, &out);
        sel_buf_put_u8(&out, '\n');
    } else {
        r = sel_cli_table_print(arena, value, empty, &out);
    }
    if (r == 0)
        r = sel_buf_error(&out);
    if (r == 0)
        (void)fwrite(out.p, 1, out.n, cli->out); /* sel_cli_finish sees what went wrong */
    sel_buf_done(&out);
    return r == 0 ? sel_cli_finish(cli, SEL_CLI_OK) : sel_cli_fail(cli, "%s", sel_error_text(r));
}

int sel_cli_broker_show(const struct sel_cli *cli, const struct sel_cli_broker_values *values,
                        const char *what, const struct sel_value *args, const char *empty)
{
    struct sel_client_query *query = NULL;
    struct sel_arena arena = {0};
    struct sel_value answer;
    struct sel_error err;
    int r = sel_client_query_open(values->broker, &query, &err);
    if (r == 0)
        r = sel_client_query_ask(query, what, args, (int64_t)(values->timeout * 1e6), &arena,
                                 &answer, &err);
    int status = r == 0 ? sel_cli_broker_print(cli, values, &arena, &answer, empty)
                        : sel_cli_fail_with(cli, &err);
    (void)sel_client_query_close(query);
    sel_arena_done(&arena);
    return status;
}
