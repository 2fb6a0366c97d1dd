/* `task`: submits bare tasks to brokers, waits for them, cancels them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include <selinon/client.h>

#include "cli/cli.h"
#include "cli/format.h"
#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/value.h"

#define BROKER "tcp://127.0.0.1:5711"
#define ANSWER_US INT64_C(30000000) /* for a broker's answers, unless --timeout says another */
#define TOGETHER 1000u              /* submitted in one call */
#define FAILURES_MAX 10u            /* told one by one when many tasks are waited for */
#define PAUSE_US INT64_C(100000)

struct values {
    const char *action;
    struct sel_cli_texts words, brokers;
    const char *args, *args_file, *queue, *eta, *level, *key;
    int64_t priority, count;
    double countdown, timeout;
    bool wait, json;
};

static const char *const actions[] = {"submit", "wait", "cancel", NULL};
static const char *const levels[] = {"default", "memory", "interval", "commit", NULL};

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
    {.name = "broker",
     .letter = 'b',
     .kind = SEL_CLI_NAMES,
     MEMBER(brokers),
     .env = {"SELINON_BROKER"},
     .value_name = "ENDPOINT,...",
     .help = "the broker, or all brokers of a cluster in one order everywhere; default " BROKER},
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
     .choices = levels,
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
    {.name = "timeout",
     .kind = SEL_CLI_NUMBER,
     .min = 0.001,
     .max = 1e9,
     MEMBER(timeout),
     .value_name = "SECONDS",
     .help =
         "give up after so long; default 30 for a broker's answers, for ever for ends of tasks"},
    {.name = "json", .kind = SEL_CLI_FLAG, MEMBER(json), .help = "print one JSON object"},
};

static const struct values defaults = {.count = 1};

/* One call of the command. */
struct session {
    const struct sel_cli *cli;
    const struct values *values;
    struct sel_client *client;
    struct sel_arena arena;
    struct sel_value_builder list; /* --json: the ends of tasks */
    bool is_listing;               /* each end is told, not only their number */
    uint64_t counts[SEL_CLIENT_REFUSED + 1];
    uint64_t failures_told;
    int64_t begin_us;
};

static const char *const status_names[] = {"finished", "failed", "cancelled", "refused"};

static int64_t mono_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* How long to wait for `what_us`, unless --timeout says another. */
static int64_t timeout_us(const struct values *values, int64_t what_us)
{
    return values->timeout > 0 ? (int64_t)(values->timeout * 1e6) : what_us;
}

static int fail(struct session *s, const char *what, int code)
{
    char problem[SEL_CLIENT_ERROR_SIZE];
    (void)sel_client_problem(s->client, problem, sizeof(problem));
    return sel_cli_fail(s->cli, "%s: %s%s%s", what, sel_client_error_text(code),
                        *problem ? "; last: " : "", problem);
}

/* ---- what is asked for ---- */

/* "2026-01-31T12:00:00", a fraction, then Z, +HH:MM or nothing for local time. */
static bool parse_time(const char *text, int64_t *ret_unix_us)
{
    struct tm tm = {.tm_isdst = -1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        rest = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);
    if (!rest)
        return false;
    int64_t us = 0, unit = 100000;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            us += (*rest - '0') * unit;
    bool is_local = *rest == '\0';
    int hours = 0, minutes = 0, n = 0;
    char sign = '+';
    if (strcmp(rest, "Z") != 0 && !is_local &&
        (sscanf(rest, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) != 3 || rest[n] != '\0' ||
         (sign != '+' && sign != '-')))
        return false;
    time_t seconds = is_local ? mktime(&tm) : timegm(&tm);
    int64_t offset = (hours * 60 + minutes) * 60;
    *ret_unix_us = ((int64_t)seconds - (sign == '-' ? -offset : offset)) * 1000000 + us;
    return seconds != (time_t)-1;
}

static uint8_t level_of(const char *name)
{
    uint8_t level = 0;
    while (name && strcmp(levels[level], name) != 0)
        level++;
    return level;
}

/* Fills `task`; `args` is freed by the caller. An exit status. */
static int make_task(struct session *s, struct sel_client_task *task, struct sel_bytes *args)
{
    const struct values *values = s->values;
    char error[SEL_CLIENT_ERROR_SIZE];
    struct sel_error err;
    struct sel_str json = sel_str_c(values->args ? values->args : "null");
    int64_t eta_us = 0;
    if (values->args && values->args_file)
        return sel_cli_usage(s->cli, "task", "--args and --args-file exclude each other");
    if (values->countdown > 0 && values->eta)
        return sel_cli_usage(s->cli, "task", "--countdown and --eta exclude each other");
    if (values->eta && !parse_time(values->eta, &eta_us))
        return sel_cli_usage(s->cli, "task", "--eta: no time like 2026-01-31T12:00:00Z");
    if (values->args_file && sel_cli_read_file(&s->arena, values->args_file, &json, &err) < 0)
        return sel_cli_fail_with(s->cli, &err);
    if (sel_client_from_json(json.p, json.n, args, error) < 0)
        return sel_cli_fail(s->cli, "%s: %s", values->args_file ? values->args_file : "--args",
                            error);
    *task = (struct sel_client_task){
        .name = sel_str_c(values->words.items[0]),
        .args = *args,
        .queue = sel_str_c(values->queue),
        .countdown_us = (int64_t)(values->countdown * 1e6),
        .not_before_unix_us = eta_us,
        .key = sel_str_c(values->key),
        .priority = (uint8_t)values->priority,
        .level = level_of(values->level),
        .flags = values->wait ? 0 : SEL_CLIENT_QUIET,
    };
    return SEL_CLI_OK;
}

/* ---- what became of tasks ---- */

/* The value of a result; refusals have text. */
static struct sel_value value_of(struct session *s, const struct sel_client_result *result)
{
    struct sel_value value;
    if (result->status == SEL_CLIENT_REFUSED)
        return sel_value_from_str((struct sel_str){result->payload.p, result->payload.n});
    if (result->payload.n == 0 ||
        sel_value_decode(&s->arena, result->payload.p, result->payload.n, true, &value, NULL) < 0)
        return sel_value_null;
    return value;
}

static void list_result(struct session *s, const char *id, const struct sel_client_result *result)
{
    struct sel_value_builder one;
    struct sel_value value, copy; /* the batch goes before the list */
    const struct sel_value decoded = value_of(s, result);
    sel_value_begin_map(&one, &s->arena);
    sel_value_put_c(&one, "id", sel_value_from_c(sel_arena_strdup(&s->arena, sel_str_c(id))));
    sel_value_put_c(&one, "status", sel_value_from_c(status_names[result->status]));
    if (sel_value_copy(&s->arena, &decoded, &copy) == 0)
        sel_value_put_c(&one, result->status == SEL_CLIENT_OK ? "result" : "error", copy);
    sel_value_put_c(&one, "tries", sel_value_from_u64((uint64_t)result->try_count + 1));
    if (sel_value_end(&one, &value) == 0)
        sel_value_add(&s->list, value); /* without memory the list says so at its end */
}

static void print_result(struct session *s, FILE *out, const char *id,
                         const struct sel_client_result *result)
{
    struct sel_buf buf = {0};
    const struct sel_value value = value_of(s, result);
    if (result->status == SEL_CLIENT_REFUSED)
        sel_buf_put(&buf, result->payload.p, result->payload.n);
    else
        sel_json_write(&value, SEL_JSON_SPACED, &buf);
    fprintf(out, "%s %s %s\n", id, status_names[result->status], sel_buf_cstr(&buf));
    sel_buf_done(&buf);
    sel_arena_reset(&s->arena);
}

static void take_result(struct session *s, const struct sel_client_result *result)
{
    char id[SEL_CLIENT_ID_SIZE];
    if (result->status > SEL_CLIENT_REFUSED)
        return;
    s->counts[result->status]++;
    (void)sel_client_id_format(&result->id, id);
    if (s->is_listing && s->values->json)
        list_result(s, id, result);
    else if (s->is_listing)
        print_result(s, s->cli->out, id, result);
    else if (result->status != SEL_CLIENT_OK && s->failures_told++ < FAILURES_MAX)
        print_result(s, s->cli->err, id, result);
}

/* Takes what is there, waiting up to `wait_us` for the first. As sel_client_next. */
static int64_t take_some(struct session *s, int64_t wait_us)
{
    struct sel_client_batch *batch;
    int64_t r = sel_client_next(s->client, &batch, wait_us);
    if (r <= 0)
        return r;
    for (uint32_t i = 0; i < batch->count; i++)
        take_result(s, &batch->results[i]);
    sel_client_batch_free(batch);
    return r;
}

/* Until nothing is outstanding. 0 or an error. */
static int take_all(struct session *s, int64_t wait_us)
{
    int64_t r;
    int64_t end_us = mono_us() + wait_us;
    do {
        int64_t left_us = end_us - mono_us();
        r = take_some(s, wait_us < 0 ? SEL_CLIENT_FOREVER : left_us > 0 ? left_us : 0);
    } while (r > 0);
    return r == -EAGAIN ? -ETIMEDOUT : (int)r;
}

static uint64_t ended(const struct session *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < SEL_COUNT(s->counts); i++)
        sum += s->counts[i];
    return sum;
}

/* ---- what is said at the end ---- */

static void put_numbers(const struct session *s, struct sel_value_builder *map, double seconds)
{
    sel_value_put_c(map, "submitted", sel_value_from_i64(s->values->count));
    for (size_t i = 0; s->values->wait && i < SEL_COUNT(s->counts); i++)
        sel_value_put_c(map, status_names[i], sel_value_from_u64(s->counts[i]));
    sel_value_put_c(map, "seconds", sel_value_from_f64(seconds));
    sel_value_put_c(map, "tasks_per_s",
                    sel_value_from_f64(seconds > 0 ? (double)s->values->count / seconds : 0));
}

static int print_json(struct session *s, struct sel_value_builder *map)
{
    struct sel_value value;
    struct sel_buf buf = {0};
    if (sel_value_end(map, &value) < 0)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_json_write(&value, SEL_JSON_SPACED, &buf);
    fprintf(s->cli->out, "%s\n", sel_buf_cstr(&buf));
    int r = sel_buf_error(&buf);
    sel_buf_done(&buf);
    return r < 0 ? sel_cli_fail(s->cli, "%s", sel_error_text(r)) : SEL_CLI_OK;
}

static void print_numbers(const struct session *s, int64_t us)
{
    char count[SEL_CLI_FORMAT_SIZE], time[SEL_CLI_FORMAT_SIZE], rate[SEL_CLI_FORMAT_SIZE];
    double per_s = us > 0 ? (double)s->values->count * 1e6 / (double)us : 0;
    FILE *out = s->cli->out;
    fprintf(out, "%s submitted", sel_cli_format_count((uint64_t)s->values->count, count));
    for (size_t i = 0; s->values->wait && i < SEL_COUNT(s->counts); i++)
        if (i == SEL_CLIENT_OK || s->counts[i])
            fprintf(out, ", %s %s", sel_cli_format_count(s->counts[i], count), status_names[i]);
    fprintf(out, " in %s (%s tasks/s)\n", sel_cli_format_time(us, time),
            sel_cli_format_count((uint64_t)per_s, rate));
}

static int report_many(struct session *s)
{
    int64_t us = mono_us() - s->begin_us;
    int status = s->counts[SEL_CLIENT_OK] == ended(s) ? SEL_CLI_OK : SEL_CLI_FAILED;
    if (!s->values->json) {
        print_numbers(s, us);
        return status;
    }
    struct sel_value_builder map;
    sel_value_begin_map(&map, &s->arena);
    put_numbers(s, &map, (double)us / 1e6);
    int r = print_json(s, &map);
    return r != SEL_CLI_OK ? r : status;
}

/* The list of take_result; people have seen it come. */
static int report_list(struct session *s)
{
    int status = s->counts[SEL_CLIENT_OK] == ended(s) ? SEL_CLI_OK : SEL_CLI_FAILED;
    if (!s->values->json)
        return status;
    struct sel_value_builder map;
    struct sel_value tasks;
    if (sel_value_end(&s->list, &tasks) < 0)
        return sel_cli_fail(s->cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_value_begin_map(&map, &s->arena);
    sel_value_put_c(&map, "tasks", tasks);
    int r = print_json(s, &map);
    return r != SEL_CLI_OK ? r : status;
}

/* ---- submit ---- */

/* Submits all; with --wait it takes results meanwhile, as nobody else makes room for them. 0 or an
 * error. */
static int submit_all(struct session *s, const struct sel_client_task *task,
                      struct sel_client_id *ret_first)
{
    static struct sel_client_task tasks[TOGETHER];
    const uint64_t count = (uint64_t)s->values->count;
    int64_t patience_us = timeout_us(s->values, ANSWER_US), last_us = mono_us();
    for (size_t i = 0; i < TOGETHER; i++)
        tasks[i] = *task;
    for (uint64_t done = 0; done < count;) {
        size_t n = count - done < TOGETHER ? (size_t)(count - done) : TOGETHER;
        int64_t r = sel_client_submit_many(s->client, tasks, n, count == 1 ? ret_first : NULL,
                                           s->values->wait ? 0 : patience_us);
        if (r > 0)
            done += (uint64_t)r;
        else if (r != -EAGAIN)
            return (int)r;
        int64_t taken = s->values->wait ? take_some(s, r < (int64_t)n ? PAUSE_US : 0) : 0;
        if (r > 0 || taken > 0)
            last_us = mono_us();
        else if (mono_us() - last_us > patience_us)
            return -ETIMEDOUT;
    }
    return 0;
}

static int print_id(struct session *s, const struct sel_client_id *id)
{
    char text[SEL_CLIENT_ID_SIZE];
    (void)sel_client_id_format(id, text);
    if (!s->values->json) {
        fprintf(s->cli->out, "%s\n", text);
        return SEL_CLI_OK;
    }
    struct sel_value_builder map;
    sel_value_begin_map(&map, &s->arena);
    sel_value_put_c(&map, "id", sel_value_from_c(text));
    return print_json(s, &map);
}

/* What QUIET tasks that were refused leave: a number, and the last text. */
static int check_refused(struct session *s)
{
    struct sel_client_stats stats = {.size = sizeof(stats)};
    char problem[SEL_CLIENT_ERROR_SIZE];
    if (s->values->wait || sel_client_get_stats(s->client, &stats) < 0 || stats.refused == 0)
        return SEL_CLI_OK;
    return sel_cli_fail(s->cli, "%" PRIu64 " refused: %s", stats.refused,
                        sel_client_problem(s->client, problem, sizeof(problem)));
}

static int submit(struct session *s)
{
    struct sel_client_task task;
    struct sel_client_id id = {{0}};
    struct sel_bytes args = {NULL, 0};
    if (s->values->words.count != 1)
        return sel_cli_usage(s->cli, "task", "submit takes the name of one task");
    int status = make_task(s, &task, &args);
    if (status != SEL_CLI_OK)
        return status;
    s->is_listing = s->values->count == 1;
    s->begin_us = mono_us();
    int r = submit_all(s, &task, &id);
    if (r == 0)
        r = sel_client_flush(s->client, timeout_us(s->values, ANSWER_US));
    sel_client_bytes_free(&args);
    if (r < 0)
        return fail(s, "submit", r);
    status = check_refused(s);
    if (status != SEL_CLI_OK)
        return status;
    r = s->values->wait ? take_all(s, timeout_us(s->values, SEL_CLIENT_FOREVER)) : 0;
    if (r < 0)
        return fail(s, "wait", r);
    if (s->values->count > 1)
        return report_many(s);
    return s->values->wait ? report_list(s) : print_id(s, &id);
}

/* ---- wait, cancel ---- */

static int watch_all(struct session *s, bool cancel)
{
    int64_t patience_us = timeout_us(s->values, ANSWER_US);
    for (uint32_t i = 0; i < s->values->words.count; i++) {
        const char *text = s->values->words.items[i];
        struct sel_client_id id;
        if (sel_client_id_parse(text, strlen(text), &id) < 0)
            return sel_cli_fail(s->cli, "'%s' is no id of a task (a UUID of 36 characters)", text);
        int r = sel_client_watch(s->client, &id, i, 0, patience_us);
        if (r == 0 && cancel)
            r = sel_client_cancel(s->client, &id, patience_us);
        if (r < 0 && r != -EEXIST) /* it was named twice */
            return fail(s, text, r);
    }
    return SEL_CLI_OK;
}

static int watch(struct session *s, bool cancel)
{
    s->is_listing = true;
    int status = watch_all(s, cancel);
    if (status != SEL_CLI_OK)
        return status;
    int r = take_all(s, timeout_us(s->values, cancel ? ANSWER_US : SEL_CLIENT_FOREVER));
    status = report_list(s);
    if (r < 0)
        return fail(s, cancel ? "not all have ended yet" : "wait", r);
    if (cancel && s->counts[SEL_CLIENT_REFUSED] == 0) /* cancelled is what was wanted */
        return SEL_CLI_OK;
    return status;
}

/* ---- the command ---- */

static void log_line(void *ctx, const char *text)
{
    const struct sel_cli *cli = ctx;
    fprintf(cli->err, "%s\n", text);
}

static int connect_all(struct session *s)
{
    static const char *const default_broker[] = {BROKER};
    const struct values *values = s->values;
    struct sel_client_options client = SEL_CLIENT_OPTIONS;
    char error[SEL_CLIENT_ERROR_SIZE];
    client.endpoints = values->brokers.count ? values->brokers.items : default_broker;
    client.endpoint_count = values->brokers.count ? values->brokers.count : 1;
    client.log = s->cli->verbosity > 0 ? log_line : NULL;
    client.log_ctx = (void *)(uintptr_t)s->cli;
    if (sel_client_open(&client, &s->client, error) < 0)
        return sel_cli_fail(s->cli, "%s", error);
    int r = sel_client_ready(s->client, timeout_us(values, ANSWER_US));
    if (r == -ETIMEDOUT)
        return sel_cli_fail(s->cli, "no broker answers at %s%s", client.endpoints[0],
                            client.endpoint_count > 1 ? ", or at one of the others" : "");
    return r < 0 ? fail(s, client.endpoints[0], r) : SEL_CLI_OK;
}

static int run(const struct sel_cli *cli, const void *p)
{
    struct session s = {.cli = cli, .values = p};
    sel_value_begin_list(&s.list, &s.arena);
    int status = connect_all(&s);
    if (status == SEL_CLI_OK) {
        if (strcmp(s.values->action, "submit") == 0)
            status = submit(&s);
        else
            status = watch(&s, strcmp(s.values->action, "cancel") == 0);
    }
    (void)sel_client_close(s.client, 0);
    sel_arena_done(&s.arena);
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
