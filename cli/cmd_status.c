/* `status`: how a broker is, what is in it; where a flow or task is. */
#include <string.h>
#include <time.h>

#include "cli/broker.h"
#include "cli/flow_view.h"
#include "client/query.h"
#include "core/id.h"

#define PAGE 1000
#define RUNS_SHOWN 20      /* of a flow, unless -v or --json */
#define DECISIONS_SHOWN 20 /* the same */

struct values {
    struct sel_cli_broker_values broker;
    const char *id;
    bool sessions, config;
};

#define MEMBER(name) .offset = offsetof(struct values, name)

static const struct sel_cli_option options[] = {
    SEL_CLI_BROKER_OPTIONS(struct values, broker),
    {.name = "ID",
     .is_word = true,
     .kind = SEL_CLI_TEXT,
     MEMBER(id),
     .help = "of a flow or task: where it is, in place of the broker's own numbers"},
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

/* Questions about one flow or task. */
struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_client_query *query;
    struct sel_arena arena;
    struct sel_flow_view view;
};

static int64_t unix_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int ask(struct session *s, const char *what, const struct sel_value *args,
               struct sel_arena *arena, struct sel_value *ret, struct sel_error *err)
{
    return sel_client_query_ask(s->query, what, args, (int64_t)(s->values->broker.timeout * 1e6),
                                arena, ret, err);
}

/* Asks about the flow; `key` with `from` if that is not negative, `offset` and `limit` if they are
 * positive. */
static int ask_flow(struct session *s, const char *what, const char *key, int64_t from,
                    int64_t offset, int64_t limit, struct sel_arena *arena, struct sel_value *ret,
                    struct sel_error *err)
{
    struct sel_value_builder map;
    struct sel_value args;
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "id", sel_value_from_c(s->values->id));
    if (from >= 0)
        sel_value_put_c(&map, key, sel_value_from_i64(from));
    if (offset > 0)
        sel_value_put_c(&map, "offset", sel_value_from_i64(offset));
    if (limit > 0)
        sel_value_put_c(&map, "limit", sel_value_from_i64(limit));
    int r = sel_value_end(&map, &args);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    return ask(s, what, &args, arena, ret, err);
}

typedef int take_fn(struct sel_flow_view *view, const struct sel_value *answer, int64_t *ret_next);

/* Asks page by page; `is_brief`: until there are some runs. 0 or an error. */
static int ask_pages(struct session *s, const char *what, const char *key, int64_t limit,
                     bool is_brief, take_fn *take, struct sel_error *err)
{
    int64_t from = -1, next = -1, offset = 0;
    int r;
    do {
        struct sel_arena arena = {0};
        struct sel_value answer;
        r = ask_flow(s, what, key, from, offset, limit, &arena, &answer, err);
        if (r == 0) {
            r = take(&s->view, &answer, &next);
            if (r < 0)
                r = sel_error_set(err, r, (struct sel_pos){0}, "the broker's answer to `%s`: %s",
                                  what, sel_error_text(r));
        }
        sel_arena_done(&arena);
        if (next < from || (next == from && s->view.next_offset <= offset)) /* it does not get on */
            break;
        from = next;
        offset = s->view.next_offset;
    } while (r == 0 && !(is_brief && s->view.runs.count > 0));
    return r;
}

static int print_flow(struct session *s)
{
    bool is_json = s->values->broker.json;
    uint32_t decisions = s->cli->verbosity > 0 ? UINT32_MAX : DECISIONS_SHOWN;
    struct sel_value all;
    struct sel_buf out = {0};
    int r;
    if (is_json) {
        r = sel_flow_view_to_value(&s->view, unix_us(), &all);
        if (r == 0)
            return sel_cli_broker_print(s->cli, &s->values->broker, &s->arena, &all, "");
    } else {
        r = sel_flow_view_print(&s->view, unix_us(), decisions, &out);
    }
    if (r == 0)
        (void)fwrite(out.p, 1, out.n, s->cli->out); /* sel_cli_finish sees what went wrong */
    sel_buf_done(&out);
    return r < 0 ? sel_cli_fail(s->cli, "%s", sel_error_text(r))
                 : sel_cli_finish(s->cli, SEL_CLI_OK);
}

static int show_flow(struct session *s, const struct sel_value *head)
{
    bool is_whole = s->values->broker.json || s->cli->verbosity > 0;
    struct sel_error err;
    int r = sel_flow_view_init(&s->view, &s->arena, head);
    if (r < 0)
        return sel_cli_fail(s->cli, "the broker's answer: %s", sel_error_text(r));
    r = ask_pages(s, "flow.runs", "after", is_whole ? PAGE : RUNS_SHOWN, !is_whole,
                  sel_flow_view_add_runs, &err);
    if (r == 0)
        r = ask_pages(s, "flow.history", "from", 0, false, sel_flow_view_add_history, &err);
    if (r < 0)
        return sel_cli_fail_with(s->cli, &err);
    r = sel_flow_view_end(&s->view);
    return r < 0 ? sel_cli_fail(s->cli, "%s", sel_error_text(r)) : print_flow(s);
}

/* What the broker says of a task, which knows no flows if it is an old one. */
static int show_task(struct session *s)
{
    struct sel_value_builder map;
    struct sel_value args, answer;
    struct sel_error err;
    sel_value_begin_map(&map, &s->arena);
    sel_value_put_c(&map, "id", sel_value_from_c(s->values->id));
    if (sel_value_end(&map, &args) < 0)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    if (ask(s, "task", &args, &s->arena, &answer, &err) < 0)
        return sel_cli_fail_with(s->cli, &err);
    return sel_cli_broker_print(s->cli, &s->values->broker, &s->arena, &answer, "");
}

static int show_id(struct session *s)
{
    struct sel_value head;
    struct sel_error err;
    int r = sel_client_query_open(s->values->broker.broker, &s->query, &err);
    if (r == 0)
        r = ask_flow(s, "flow", NULL, -1, 0, 0, &s->arena, &head, &err);
    if (r == SEL_EREQUEST)
        return show_task(s); /* which says why not */
    if (r < 0)
        return sel_cli_fail_with(s->cli, &err);
    const struct sel_value *task =
        sel_value_is(&head, SEL_MAP) ? sel_value_get_c(&head, "task") : NULL;
    return task ? show_task(s) : show_flow(s, &head);
}

static int show(const struct sel_cli *cli, const struct values *values)
{
    struct session s = {.cli = cli, .values = values};
    struct sel_id id;
    if (!sel_id_parse(sel_str_c(values->id), &id))
        return sel_cli_usage(cli, "status", "ID: no id of a task (a UUID of 36 characters)");
    int status = show_id(&s);
    sel_flow_view_done(&s.view);
    (void)sel_client_query_close(s.query);
    sel_arena_done(&s.arena);
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    const struct values *values = p;
    if ((values->id != NULL) + values->sessions + values->config > 1)
        return sel_cli_usage(cli, "status", "ID, --sessions and --config exclude each other");
    if (values->id)
        return show(cli, values);
    if (values->sessions)
        return sel_cli_broker_show(cli, &values->broker, "sessions", NULL, "Nobody is connected.");
    return sel_cli_broker_show(cli, &values->broker, values->config ? "config" : "status", NULL,
                               "");
}

const struct sel_cli_command sel_cli_cmd_status = {
    .name = "status",
    .about = "Show how a broker is: tasks, sessions, memory, journal; or one flow or task.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
