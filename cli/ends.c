#include "cli/ends.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cli/format.h"
#include "cli/nodes.h"
#include "cli/table.h"
#include "core/json.h"

#define TOGETHER 1000u   /* submitted in one call */
#define FAILURES_MAX 10u /* told one by one when many are waited for */
#define NAMES_MAX 5u     /* of failed nodes in one line */
#define PAUSE_US INT64_C(100000)

const char *const sel_cli_ends_levels[] = {"default", "memory", "interval", "commit", NULL};
const char *const sel_cli_ends_names[] = {"finished", "failed", "cancelled", "refused"};

uint8_t sel_cli_ends_level(const char *name)
{
    uint8_t level = 0;
    while (name && sel_cli_ends_levels[level + 1] && strcmp(sel_cli_ends_levels[level], name) != 0)
        level++;
    return level;
}

int64_t sel_cli_ends_now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t sel_cli_ends_patience(const struct sel_cli_ends *ends, int64_t us)
{
    return ends->values->timeout > 0 ? (int64_t)(ends->values->timeout * 1e6) : us;
}

int sel_cli_ends_fail(struct sel_cli_ends *ends, const char *what, int code)
{
    char problem[SEL_CLIENT_ERROR_SIZE];
    (void)sel_client_problem(ends->client, problem, sizeof(problem));
    return sel_cli_fail(ends->cli, "%s: %s%s%s", what, sel_client_error_text(code),
                        *problem ? "; last: " : "", problem);
}

/* ---- what a flow's result says ---- */

/* The nodes of a list, of lists by name, or a number in their place. */
static uint64_t count_nodes(const struct sel_value *nodes)
{
    int64_t number = 0;
    uint64_t sum = 0;
    if (sel_value_is(nodes, SEL_INT))
        return sel_value_i64(nodes, &number) && number > 0 ? (uint64_t)number : 0;
    if (sel_value_is(nodes, SEL_LIST))
        return sel_value_count(nodes);
    for (uint32_t i = 0; sel_value_is(nodes, SEL_MAP) && i < sel_value_count(nodes); i++)
        sum += count_nodes(sel_value_val_at(nodes, i));
    return sum;
}

static bool is_nodes(const struct sel_value *nodes)
{
    return nodes && (sel_value_is(nodes, SEL_MAP) || sel_value_is(nodes, SEL_LIST) ||
                     sel_value_is(nodes, SEL_INT));
}

static void put_names(const struct sel_value *nodes, struct sel_buf *out)
{
    uint32_t count = sel_value_is(nodes, SEL_MAP) ? sel_value_count(nodes) : 0;
    for (uint32_t i = 0; i < count && i < NAMES_MAX; i++) {
        const struct sel_value *name = sel_value_key_at(nodes, i);
        uint64_t times = count_nodes(sel_value_val_at(nodes, i));
        if (!sel_value_is(name, SEL_TEXT))
            continue;
        sel_buf_put_c(out, i ? ", " : " (");
        sel_buf_put_str(out, sel_value_str(name));
        if (times > 1)
            sel_buf_printf(out, " %" PRIu64 "x", times);
    }
    if (count > NAMES_MAX)
        sel_buf_put_c(out, ", ...");
    if (count > 0)
        sel_buf_put_c(out, ")");
}

static void put_text_of(const struct sel_value *map, const char *key, struct sel_buf *out)
{
    const struct sel_value *text = sel_value_get_c(map, key);
    if (text && sel_value_is(text, SEL_TEXT) && sel_value_str(text).n > 0) {
        sel_buf_put_c(out, ": ");
        sel_buf_put_str(out, sel_value_str(text));
    }
}

bool sel_cli_ends_put_flow(const struct sel_value *value, struct sel_buf *out)
{
    char text[SEL_CLI_FORMAT_SIZE];
    if (!sel_value_is(value, SEL_MAP))
        return false;
    const struct sel_value *finished = sel_value_get_c(value, "finished_nodes");
    const struct sel_value *failed = sel_value_get_c(value, "failed_nodes");
    const struct sel_value *active = sel_value_get_c(value, "active_nodes");
    if (!is_nodes(finished) || !is_nodes(failed) || !is_nodes(active))
        return false;
    uint64_t count = count_nodes(finished);
    sel_buf_printf(out, "%s node%s finished", sel_cli_format_count(count, text),
                   count == 1 ? "" : "s");
    if (count_nodes(failed)) {
        sel_buf_printf(out, ", %s failed", sel_cli_format_count(count_nodes(failed), text));
        put_names(failed, out);
    }
    if (count_nodes(active))
        sel_buf_printf(out, ", %s active", sel_cli_format_count(count_nodes(active), text));
    if (sel_cli_nodes_pages(value) > 0)
        sel_buf_put_c(out, " (`result ID --nodes` lists them)");
    put_text_of(value, "class", out);
    put_text_of(value, "message", out);
    return true;
}

/* ---- what became of them ---- */

struct sel_value sel_cli_ends_value(struct sel_arena *arena, const struct sel_client_result *result)
{
    struct sel_value value;
    if (result->status == SEL_CLIENT_REFUSED)
        return sel_value_from_str((struct sel_str){result->payload.p, result->payload.n});
    if (result->payload.n == 0 ||
        sel_value_decode(arena, result->payload.p, result->payload.n, true, &value, NULL) < 0)
        return sel_value_null;
    return value;
}

int sel_cli_ends_to_value(struct sel_cli_ends *ends, const struct sel_client_result *result,
                          struct sel_value *ret)
{
    char id[SEL_CLIENT_ID_SIZE];
    struct sel_value_builder one;
    (void)sel_client_id_format(&result->id, id);
    sel_value_begin_map(&one, &ends->arena);
    sel_value_put_c(&one, "id", sel_value_from_c(sel_arena_strdup(&ends->arena, sel_str_c(id))));
    sel_value_put_c(&one, "status", sel_value_from_c(sel_cli_ends_names[result->status]));
    sel_value_put_c(&one, result->status == SEL_CLIENT_OK ? "result" : "error",
                    sel_cli_ends_value(&ends->arena, result));
    sel_value_put_c(&one, "tries", sel_value_from_u64((uint64_t)result->try_count + 1));
    return sel_value_end(&one, ret);
}

static void list_result(struct sel_cli_ends *ends, const struct sel_client_result *result)
{
    struct sel_value one, copy; /* the batch goes before the list */
    if (sel_cli_ends_to_value(ends, result, &one) == 0 &&
        sel_value_copy(&ends->arena, &one, &copy) == 0)
        sel_value_add(&ends->list, copy); /* without memory the list says so at its end */
}

static void print_result(struct sel_cli_ends *ends, FILE *out,
                         const struct sel_client_result *result)
{
    struct sel_buf buf = {0};
    struct sel_arena arena = {0};
    char id[SEL_CLIENT_ID_SIZE], time[SEL_CLI_FORMAT_SIZE];
    bool is_flow = false, is_timed = ends->is_listing && ends->is_flow && ends->begin_us;
    const struct sel_value value = sel_cli_ends_value(&arena, result);
    if (result->status == SEL_CLIENT_REFUSED)
        sel_buf_put(&buf, result->payload.p, result->payload.n);
    else if (ends->is_flow)
        is_flow = sel_cli_ends_put_flow(&value, &buf);
    if (result->status != SEL_CLIENT_REFUSED && !is_flow)
        sel_json_write(&value, SEL_JSON_SPACED, &buf);
    if (sel_buf_error(&buf) == 0)
        sel_cli_table_clean((char *)buf.p, buf.n);
    fprintf(out, "%s %s%s %s%s%s\n", sel_client_id_format(&result->id, id),
            sel_cli_ends_names[result->status], is_flow ? ":" : "", sel_buf_cstr(&buf),
            is_timed ? ", in " : "",
            is_timed ? sel_cli_format_time(ends->end_us - ends->begin_us, time) : "");
    sel_buf_done(&buf);
    sel_arena_done(&arena);
}

static void take_result(struct sel_cli_ends *ends, const struct sel_client_result *result)
{
    if (result->status > SEL_CLIENT_REFUSED)
        return;
    ends->counts[result->status]++;
    ends->end_us = sel_cli_ends_now_us();
    if (ends->is_listing && ends->values->json)
        list_result(ends, result);
    else if (ends->is_listing)
        print_result(ends, ends->cli->out, result);
    else if (result->status != SEL_CLIENT_OK && ends->failures_told++ < FAILURES_MAX)
        print_result(ends, ends->cli->err, result);
}

/* Takes what is there, waiting up to `wait_us` for the first. As sel_client_next. */
static int64_t take_some(struct sel_cli_ends *ends, int64_t wait_us)
{
    struct sel_client_batch *batch;
    int64_t r = sel_client_next(ends->client, &batch, wait_us);
    if (r <= 0)
        return r;
    for (uint32_t i = 0; i < batch->count; i++)
        take_result(ends, &batch->results[i]);
    (void)fflush(ends->cli->out); /* whoever reads a pipe sees each end as it comes */
    sel_client_batch_free(batch);
    return r;
}

int sel_cli_ends_take(struct sel_cli_ends *ends, int64_t wait_us)
{
    int64_t r;
    int64_t end_us = sel_cli_ends_now_us() + wait_us;
    do {
        int64_t left_us = end_us - sel_cli_ends_now_us();
        r = take_some(ends, wait_us < 0 ? SEL_CLIENT_FOREVER : left_us > 0 ? left_us : 0);
    } while (r > 0);
    return r == -EAGAIN ? -ETIMEDOUT : (int)r;
}

static uint64_t ended(const struct sel_cli_ends *ends)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < SEL_COUNT(ends->counts); i++)
        sum += ends->counts[i];
    return sum;
}

/* ---- what is said at the end ---- */

int sel_cli_ends_print_json(struct sel_cli_ends *ends, struct sel_value_builder *map)
{
    struct sel_value value;
    struct sel_buf buf = {0};
    if (sel_value_end(map, &value) < 0)
        return sel_cli_fail(ends->cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_json_write(&value, SEL_JSON_SPACED, &buf);
    fprintf(ends->cli->out, "%s\n", sel_buf_cstr(&buf));
    int r = sel_buf_error(&buf);
    sel_buf_done(&buf);
    return r < 0 ? sel_cli_fail(ends->cli, "%s", sel_error_text(r)) : SEL_CLI_OK;
}

int sel_cli_ends_print_id(struct sel_cli_ends *ends, const struct sel_client_id *id)
{
    char text[SEL_CLIENT_ID_SIZE];
    (void)sel_client_id_format(id, text);
    if (!ends->values->json) {
        fprintf(ends->cli->out, "%s\n", text);
        return SEL_CLI_OK;
    }
    struct sel_value_builder map;
    sel_value_begin_map(&map, &ends->arena);
    sel_value_put_c(&map, "id", sel_value_from_c(text));
    return sel_cli_ends_print_json(ends, &map);
}

static int print_numbers_json(struct sel_cli_ends *ends, uint64_t count, bool has_waited,
                              const char *noun, double seconds)
{
    struct sel_value_builder map;
    const char *rate = sel_arena_printf(&ends->arena, "%s_per_s", noun);
    if (!rate)
        return sel_cli_fail(ends->cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_value_begin_map(&map, &ends->arena);
    sel_value_put_c(&map, "submitted", sel_value_from_u64(count));
    for (size_t i = 0; has_waited && i < SEL_COUNT(ends->counts); i++)
        sel_value_put_c(&map, sel_cli_ends_names[i], sel_value_from_u64(ends->counts[i]));
    sel_value_put_c(&map, "seconds", sel_value_from_f64(seconds));
    sel_value_put_c(&map, rate, sel_value_from_f64(seconds > 0 ? (double)count / seconds : 0));
    return sel_cli_ends_print_json(ends, &map);
}

static void print_numbers(const struct sel_cli_ends *ends, uint64_t count, bool has_waited,
                          const char *noun, int64_t us)
{
    char number[SEL_CLI_FORMAT_SIZE], time[SEL_CLI_FORMAT_SIZE];
    double per_s = us > 0 ? (double)count * 1e6 / (double)us : 0;
    FILE *out = ends->cli->out;
    fprintf(out, "%s submitted", sel_cli_format_count(count, number));
    for (size_t i = 0; has_waited && i < SEL_COUNT(ends->counts); i++)
        if (i == SEL_CLIENT_OK || ends->counts[i])
            fprintf(out, ", %s %s", sel_cli_format_count(ends->counts[i], number),
                    sel_cli_ends_names[i]);
    fprintf(out, " in %s (%s %s/s)\n", sel_cli_format_time(us, time),
            sel_cli_format_count((uint64_t)per_s, number), noun);
}

static int status_of(const struct sel_cli_ends *ends)
{
    return ends->counts[SEL_CLIENT_OK] == ended(ends) ? SEL_CLI_OK : SEL_CLI_FAILED;
}

int sel_cli_ends_report_many(struct sel_cli_ends *ends, uint64_t count, bool has_waited,
                             const char *noun)
{
    int64_t us = sel_cli_ends_now_us() - ends->begin_us;
    if (!ends->values->json) {
        print_numbers(ends, count, has_waited, noun, us);
        return status_of(ends);
    }
    int r = print_numbers_json(ends, count, has_waited, noun, (double)us / 1e6);
    return r != SEL_CLI_OK ? r : status_of(ends);
}

int sel_cli_ends_report_list(struct sel_cli_ends *ends, const char *key)
{
    if (!ends->values->json)
        return status_of(ends);
    struct sel_value_builder map;
    struct sel_value list;
    if (sel_value_end(&ends->list, &list) < 0)
        return sel_cli_fail(ends->cli, "%s", sel_error_text(SEL_ENOMEM));
    sel_value_begin_map(&map, &ends->arena);
    sel_value_put_c(&map, key, list);
    int r = sel_cli_ends_print_json(ends, &map);
    return r != SEL_CLI_OK ? r : status_of(ends);
}

/* ---- submitting, watching ---- */

/* Submits all; unless they are QUIET it takes ends meanwhile, as nobody else makes room for them. 0
 * or an error. */
static int put_all(struct sel_cli_ends *ends, const struct sel_client_task *task, uint64_t count,
                   struct sel_client_id *ret_first)
{
    static struct sel_client_task tasks[TOGETHER];
    int64_t patience_us = sel_cli_ends_patience(ends, SEL_CLI_ENDS_ANSWER_US);
    int64_t last_us = sel_cli_ends_now_us();
    bool is_quiet = task->flags & SEL_CLIENT_QUIET;
    for (size_t i = 0; i < TOGETHER; i++)
        tasks[i] = *task;
    for (uint64_t done = 0; done < count;) {
        size_t n = count - done < TOGETHER ? (size_t)(count - done) : TOGETHER;
        int64_t r = sel_client_submit_many(ends->client, tasks, n, count == 1 ? ret_first : NULL,
                                           is_quiet ? patience_us : 0);
        if (r > 0)
            done += (uint64_t)r;
        else if (r != -EAGAIN)
            return (int)r;
        int64_t taken = is_quiet ? 0 : take_some(ends, r < (int64_t)n ? PAUSE_US : 0);
        if (r > 0 || taken > 0)
            last_us = sel_cli_ends_now_us();
        else if (sel_cli_ends_now_us() - last_us > patience_us)
            return -ETIMEDOUT;
    }
    return 0;
}

/* What QUIET tasks that were refused leave: a number, and the last text. */
static int check_refused(struct sel_cli_ends *ends)
{
    struct sel_client_stats stats = {.size = sizeof(stats)};
    char problem[SEL_CLIENT_ERROR_SIZE];
    if (sel_client_get_stats(ends->client, &stats) < 0 || stats.refused == 0)
        return SEL_CLI_OK;
    return sel_cli_fail(ends->cli, "%" PRIu64 " refused: %s", stats.refused,
                        sel_client_problem(ends->client, problem, sizeof(problem)));
}

int sel_cli_ends_submit(struct sel_cli_ends *ends, const struct sel_client_task *task,
                        uint64_t count, struct sel_client_id *ret_first)
{
    ends->is_listing = count == 1;
    ends->begin_us = sel_cli_ends_now_us();
    int r = put_all(ends, task, count, ret_first);
    if (r == 0)
        r = sel_client_flush(ends->client, sel_cli_ends_patience(ends, SEL_CLI_ENDS_ANSWER_US));
    if (r < 0)
        return sel_cli_ends_fail(ends, "submit", r);
    if (task->flags & SEL_CLIENT_QUIET)
        return check_refused(ends);
    r = sel_cli_ends_take(ends, sel_cli_ends_patience(ends, SEL_CLIENT_FOREVER));
    return r < 0 ? sel_cli_ends_fail(ends, "wait", r) : SEL_CLI_OK;
}

int sel_cli_ends_watch(struct sel_cli_ends *ends, const struct sel_cli_texts *ids, uint32_t flags,
                       bool cancel)
{
    int64_t patience_us = sel_cli_ends_patience(ends, SEL_CLI_ENDS_ANSWER_US);
    ends->is_listing = true;
    for (uint32_t i = 0; i < ids->count; i++) {
        const char *text = ids->items[i];
        struct sel_client_id id;
        if (sel_client_id_parse(text, strlen(text), &id) < 0)
            return sel_cli_fail(ends->cli, "'%s' is no id of a task (a UUID of 36 characters)",
                                text);
        int r = sel_client_watch(ends->client, &id, i, flags, patience_us);
        if (r == 0 && cancel)
            r = sel_client_cancel(ends->client, &id, patience_us);
        if (r < 0 && r != -EEXIST) /* it was named twice */
            return sel_cli_ends_fail(ends, text, r);
    }
    return SEL_CLI_OK;
}

/* ---- a call of a command ---- */

static void log_line(void *ctx, const char *text)
{
    const struct sel_cli *cli = ctx;
    fprintf(cli->err, "%s\n", text);
}

int sel_cli_ends_open(struct sel_cli_ends *ends, const struct sel_cli *cli,
                      const struct sel_cli_ends_values *values)
{
    static const char *const default_broker[] = {SEL_CLI_ENDS_BROKER};
    struct sel_client_options client = SEL_CLIENT_OPTIONS;
    char error[SEL_CLIENT_ERROR_SIZE];
    ends->cli = cli;
    ends->values = values;
    sel_value_begin_list(&ends->list, &ends->arena);
    client.endpoints = values->brokers.count ? values->brokers.items : default_broker;
    client.endpoint_count = values->brokers.count ? values->brokers.count : 1;
    client.log = cli->verbosity > 0 ? log_line : NULL;
    client.log_ctx = (void *)(uintptr_t)cli;
    if (sel_client_open(&client, &ends->client, error) < 0)
        return sel_cli_fail(cli, "%s", error);
    int r = sel_client_ready(ends->client, sel_cli_ends_patience(ends, SEL_CLI_ENDS_ANSWER_US));
    if (r == -ETIMEDOUT)
        return sel_cli_fail(cli, "no broker answers at %s%s", client.endpoints[0],
                            client.endpoint_count > 1 ? ", or at one of the others" : "");
    return r < 0 ? sel_cli_ends_fail(ends, client.endpoints[0], r) : SEL_CLI_OK;
}

void sel_cli_ends_close(struct sel_cli_ends *ends)
{
    (void)sel_client_close(ends->client, 0); /* what was to be settled is, or it was said */
    sel_arena_done(&ends->arena);
}
