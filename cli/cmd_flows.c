/* `flows`: which flows a broker has. */
#include <string.h>
#include <time.h>

#include "cli/broker.h"
#include "cli/flow_view.h"
#include "cli/format.h"
#include "client/query.h"

#define PAGE 1000u
#define LIMIT 100 /* unless --limit says another */

struct values {
    struct sel_cli_broker_values broker;
    const char *name, *state, *since, *until;
    double age;
    int64_t limit;
};

#define MEMBER(member) .offset = offsetof(struct values, member)

static const char *const states[] = {"held",     "waiting", "queued",    "running",
                                     "finished", "failed",  "cancelled", NULL};

static const struct sel_cli_option options[] = {
    SEL_CLI_BROKER_OPTIONS(struct values, broker),
    {.name = "name", .kind = SEL_CLI_TEXT, MEMBER(name), .help = "only flows of this name"},
    {.name = "state",
     .kind = SEL_CLI_CHOICE,
     MEMBER(state),
     .choices = states,
     .help = "only those: held, waiting, queued, running, finished, failed or cancelled"},
    {.name = "since",
     .kind = SEL_CLI_TEXT,
     MEMBER(since),
     .value_name = "TIME",
     .help = "only those submitted (or, if they have ended, ended) since 2026-01-31T12:00:00Z"},
    {.name = "until",
     .kind = SEL_CLI_TEXT,
     MEMBER(until),
     .value_name = "TIME",
     .help = "only those before"},
    {.name = "age",
     .kind = SEL_CLI_NUMBER,
     .min = 0,
     .max = 1e10,
     MEMBER(age),
     .value_name = "SECONDS",
     .help = "only those of the last SECONDS"},
    {.name = "limit",
     .kind = SEL_CLI_INT,
     .min = 1,
     .max = 1e7,
     MEMBER(limit),
     .value_name = "N",
     .help = "at most so many; default 100"},
};

static const struct values defaults = {
    .broker = SEL_CLI_BROKER_DEFAULTS, .age = -1, .limit = LIMIT};

/* One call of the command. */
struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_arena arena;
    struct sel_value_builder list;
    int64_t age_min_us, age_max_us;
    bool is_cut; /* there are more than the limit */
};

static int64_t unix_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Times as ages: flows know how old they are, and the broker's clock may be another. */
static int take_times(struct session *s)
{
    const struct values *v = s->values;
    int64_t since_us, until_us, now_us = unix_us();
    s->age_min_us = INT64_MIN;
    s->age_max_us = v->age >= 0 ? (int64_t)(v->age * 1e6) : INT64_MAX;
    if (v->since && v->age >= 0)
        return sel_cli_usage(s->cli, "flows", "--since and --age exclude each other");
    if (v->since && !sel_cli_parse_time(v->since, &since_us))
        return sel_cli_usage(s->cli, "flows", "--since: no time like 2026-01-31T12:00:00Z");
    if (v->until && !sel_cli_parse_time(v->until, &until_us))
        return sel_cli_usage(s->cli, "flows", "--until: no time like 2026-01-31T12:00:00Z");
    if (v->since)
        s->age_max_us = now_us - since_us;
    if (v->until)
        s->age_min_us = now_us - until_us;
    return SEL_CLI_OK;
}

static bool is_wanted(const struct session *s, const struct sel_value *flow)
{
    const struct sel_value *age =
        sel_value_is(flow, SEL_MAP) ? sel_value_get_c(flow, "age_us") : NULL;
    int64_t us;
    if (!age || !sel_value_is(age, SEL_INT) || !sel_value_i64(age, &us))
        us = 0;
    return us >= s->age_min_us && us <= s->age_max_us;
}

static int ask(struct session *s, struct sel_client_query *query, const struct sel_value *after,
               struct sel_arena *arena, struct sel_value *ret, struct sel_error *err)
{
    struct sel_value_builder map;
    struct sel_value args;
    int64_t page =
        s->values->limit < PAGE ? s->values->limit + 1 : PAGE; /* to see if there are more */
    sel_value_begin_map(&map, arena);
    if (s->values->name)
        sel_value_put_c(&map, "name", sel_value_from_c(s->values->name));
    if (s->values->state)
        sel_value_put_c(&map, "state", sel_value_from_c(s->values->state));
    if (after)
        sel_value_put_c(&map, "after", *after);
    sel_value_put_c(&map, "limit", sel_value_from_i64(page));
    int r = sel_value_end(&map, &args);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    return sel_client_query_ask(query, "flows", &args, (int64_t)(s->values->broker.timeout * 1e6),
                                arena, ret, err);
}

/* Takes a page; *ret_next: what the next one comes after, NULL: this was the last. */
static int take_page(struct session *s, const struct sel_value *answer,
                     const struct sel_value **ret_next)
{
    bool is_map = sel_value_is(answer, SEL_MAP);
    const struct sel_value *flows = is_map ? sel_value_get_c(answer, "flows") : NULL;
    const struct sel_value *next = is_map ? sel_value_get_c(answer, "next") : NULL;
    if (!flows || !sel_value_is(flows, SEL_LIST))
        return SEL_EFORMAT;
    for (uint32_t i = 0; i < sel_value_count(flows); i++) {
        struct sel_value row;
        if (!is_wanted(s, sel_value_at(flows, i)))
            continue;
        if (s->list.count >= (uint64_t)s->values->limit) {
            s->is_cut = true;
            break;
        }
        int r = sel_flow_view_copy(&s->arena, sel_value_at(flows, i), &row);
        if (r < 0)
            return r;
        sel_value_add(&s->list, row);
    }
    bool has_next = next && sel_value_is(next, SEL_TEXT);
    *ret_next = has_next && !s->is_cut ? next : NULL;
    return 0;
}

/* All pages up to the limit. 0 or an error. */
static int ask_all(struct session *s, struct sel_client_query *query, struct sel_error *err)
{
    char last[SEL_ID_TEXT_SIZE] = "";
    struct sel_value after;
    const struct sel_value *next = NULL;
    int r;
    do {
        struct sel_arena arena = {0};
        struct sel_value answer;
        r = ask(s, query, next ? &after : NULL, &arena, &answer, err);
        if (r == 0) {
            r = take_page(s, &answer, &next);
            if (r < 0)
                r = sel_error_set(err, r, (struct sel_pos){0}, "the broker's answer: %s",
                                  sel_error_text(r));
        }
        if (r == 0 && next && sel_value_str(next).n < sizeof(last) &&
            !sel_str_eq_c(sel_value_str(next), last)) { /* it gets on */
            struct sel_str text = sel_value_str(next);  /* goes with its page */
            memcpy(last, text.p, text.n);
            last[text.n] = '\0';
            after = sel_value_from_c(last);
        } else {
            next = NULL;
        }
        sel_arena_done(&arena);
    } while (r == 0 && next);
    return r;
}

static int print(struct session *s)
{
    struct sel_value list;
    if (sel_value_end(&s->list, &list) < 0)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    int status =
        sel_cli_broker_print(s->cli, &s->values->broker, &s->arena, &list, "No such flow.");
    if (s->is_cut)
        fprintf(s->cli->err, "There are more than these: --limit.\n");
    return status;
}

static int run(const struct sel_cli *cli, const void *p)
{
    struct session s = {.cli = cli, .values = p};
    struct sel_client_query *query = NULL;
    struct sel_error err;
    int status = take_times(&s);
    if (status != SEL_CLI_OK)
        return status;
    sel_value_begin_list(&s.list, &s.arena);
    int r = sel_client_query_open(s.values->broker.broker, &query, &err);
    if (r == 0)
        r = ask_all(&s, query, &err);
    status = r == 0 ? print(&s) : sel_cli_fail_with(cli, &err);
    (void)sel_client_query_close(query);
    sel_arena_done(&s.arena);
    return status;
}

const struct sel_cli_command sel_cli_cmd_flows = {
    .name = "flows",
    .about = "List the flows of a broker: by name, by state, by time.",
    .options = options,
    .option_count = SEL_COUNT(options),
    .values_size = sizeof(struct values),
    .defaults = &defaults,
    .run = run,
};
