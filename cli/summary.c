#include "cli/summary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/format.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "storage/storage.h"

#define SLOWEST_MAX 3
#define MESSAGE_MAX 300 /* bytes of an error message */

/* ---- failures ---- */

void sel_cli_failures_init(struct sel_cli_failures *failures)
{
    *failures = (struct sel_cli_failures){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void sel_cli_failures_done(struct sel_cli_failures *failures)
{
    sel_arena_done(&failures->arena);
    (void)pthread_mutex_destroy(&failures->lock);
}

static void see_locked(struct sel_cli_failures *failures, struct sel_str task,
                       const char *error_class, const char *message)
{
    for (uint32_t i = 0; i < failures->count; i++) {
        struct sel_cli_failure *failure = &failures->items[i];
        if (sel_str_eq(failure->task, task) && strcmp(failure->error_class, error_class) == 0 &&
            strncmp(failure->message, message, MESSAGE_MAX) == 0) {
            failure->count++;
            return;
        }
    }
    char *own_class = NULL, *own_message = NULL;
    if (failures->count < SEL_CLI_FAILURES_MAX) {
        own_class = sel_arena_strdup(&failures->arena, sel_str_c(error_class));
        own_message = sel_arena_strdup(&failures->arena,
                                       (struct sel_str){message, strnlen(message, MESSAGE_MAX)});
    }
    if (own_class && own_message)
        failures->items[failures->count++] =
            (struct sel_cli_failure){task, own_class, own_message, 1};
    else
        failures->others++;
}

void sel_cli_failures_see(void *ctx, const struct sel_execution *execution)
{
    struct sel_cli_failures *failures = ctx;
    const struct sel_exec_result *result = execution->result;
    if (execution->will_retry ||
        (result->outcome != SEL_EXEC_FAILURE && result->outcome != SEL_EXEC_FATAL))
        return;
    const char *error_class = result->error_class ? result->error_class : "Error";
    const char *message = result->error_message ? result->error_message : "";
    (void)pthread_mutex_lock(&failures->lock);
    see_locked(failures, execution->task->name, error_class, message);
    (void)pthread_mutex_unlock(&failures->lock);
}

/* ---- parts of the summary ---- */

const char *sel_cli_outcome_name(enum sel_flow_outcome outcome)
{
    switch (outcome) {
    case SEL_FLOW_SUCCESS:
        return "success";
    case SEL_FLOW_CANCELED:
        return "cancelled";
    case SEL_FLOW_FAILURE:
    case SEL_FLOW_RETRY:
        break;
    }
    return "failure";
}

static void print_head(FILE *out, const struct sel_cli_summary *summary)
{
    const struct sel_executor_report *report = summary->report;
    const char *verb = report->outcome == SEL_FLOW_SUCCESS    ? "finished"
                       : report->outcome == SEL_FLOW_CANCELED ? "was cancelled"
                                                              : "failed";
    char a[SEL_CLI_FORMAT_SIZE], b[SEL_CLI_FORMAT_SIZE];
    fprintf(out, "%s %s %s %s%s: %s nodes finished", summary->flow_name, verb,
            report->outcome == SEL_FLOW_SUCCESS ? "in" : "after",
            sel_cli_format_time(report->progress.elapsed_us, a),
            summary->virtual_time ? " (virtual time)" : "",
            sel_cli_format_count(report->progress.finished, b));
    if (report->progress.failed > 0)
        fprintf(out, ", %s failed", sel_cli_format_count(report->progress.failed, a));
}

enum { STARTED_BY_EDGE = 1, STARTED_BY_FALLBACK = 2 };

static void mark(const struct sel_system *system, const struct sel_flow_def *flow,
                 const uint32_t *slots, uint32_t count, uint8_t sign, uint8_t *marks)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = flow->nodes[slots[i]].node;
        if (!sel_system_is_flow(system, node))
            marks[node] |= sign;
    }
}

static void mark_flow(const struct sel_system *system, const struct sel_flow_def *flow,
                      uint8_t *marks)
{
    for (uint32_t e = 0; e < flow->edge_count; e++)
        mark(system, flow, flow->edges[e].to, flow->edges[e].to_count, STARTED_BY_EDGE, marks);
    for (uint32_t c = 0; c < flow->choice_count; c++) {
        const struct sel_choice_def *choice = &flow->choices[c];
        for (uint32_t f = 0; f < choice->fallback_count; f++)
            mark(system, flow, choice->fallbacks[f].nodes, choice->fallbacks[f].node_count,
                 STARTED_BY_FALLBACK, marks);
    }
}

/* The tasks that ran and that only fallbacks start. */
static void print_fallbacks(FILE *out, const struct sel_cli_summary *summary)
{
    const struct sel_system *system = summary->system;
    struct sel_arena arena = {0};
    uint8_t *marks = sel_arena_alloc(&arena, system->task_count + 1);
    for (uint32_t f = 0; marks && f < system->flow_count; f++)
        mark_flow(system, &system->flows[f], marks);
    const char *separator = "; taken over by ";
    struct sel_task_times times;
    for (uint32_t i = 0; marks && i < system->task_count; i++) {
        if (marks[i] != STARTED_BY_FALLBACK ||
            !sel_executor_task_times(summary->executor, i, &times))
            continue;
        fprintf(out, "%s`%.*s` (%" PRIu64 ")", separator, SEL_STR_ARG(system->tasks[i].name),
                times.count);
        separator = ", ";
    }
    sel_arena_done(&arena);
}

static void print_failures(FILE *out, struct sel_cli_failures *failures)
{
    (void)pthread_mutex_lock(&failures->lock);
    for (uint32_t i = 0; i < failures->count; i++) {
        const struct sel_cli_failure *failure = &failures->items[i];
        fprintf(out, "  %.*s: %s%s%s", SEL_STR_ARG(failure->task), failure->error_class,
                *failure->message ? ": " : "", failure->message);
        if (failure->count > 1)
            fprintf(out, " (%" PRIu64 " times)", failure->count);
        fputc('\n', out);
    }
    if (failures->others > 0)
        fprintf(out, "  ... and %" PRIu64 " other failures\n", failures->others);
    (void)pthread_mutex_unlock(&failures->lock);
}

struct slow {
    uint32_t task;
    struct sel_task_times times;
};

static int by_p99(const void *a, const void *b)
{
    const struct slow *x = a, *y = b;
    if (x->times.p99_us != y->times.p99_us)
        return x->times.p99_us < y->times.p99_us ? 1 : -1;
    return (x->task > y->task) - (x->task < y->task);
}

static const char *print_slowest(FILE *out, const struct sel_system *system, struct slow *ran,
                                 uint32_t count, const char *separator)
{
    char a[SEL_CLI_FORMAT_SIZE], b[SEL_CLI_FORMAT_SIZE];
    qsort(ran, count, sizeof(*ran), by_p99);
    for (uint32_t i = 0; i < count && i < SLOWEST_MAX; i++)
        fprintf(out, "%s%.*s (p50 %s, p99 %s)",
                i ? ", " : "  slowest: ", SEL_STR_ARG(system->tasks[ran[i].task].name),
                sel_cli_format_time(ran[i].times.p50_us, a),
                sel_cli_format_time(ran[i].times.p99_us, b));
    return count > 0 ? "   " : separator;
}

static const char *print_retried(FILE *out, const struct sel_system *system, const struct slow *ran,
                                 uint32_t count, const char *separator)
{
    const char *before = "retried: ";
    for (uint32_t i = 0; i < count; i++) {
        if (ran[i].times.retried == 0)
            continue;
        fprintf(out, "%s%s%.*s %" PRIu64, separator, before,
                SEL_STR_ARG(system->tasks[ran[i].task].name), ran[i].times.retried);
        separator = "";
        before = ", ";
    }
    return *before == ',' ? "   " : separator;
}

/* "lmdb:results", the last part of the module and the path if there is one. */
static void print_storage(FILE *out, const struct sel_cli_summary *summary,
                          const struct sel_storage_def *storage, struct sel_arena *arena)
{
    const char *dot = memrchr(storage->import.module.p, '.', storage->import.module.n);
    const char *name = dot ? dot + 1 : storage->import.module.p;
    size_t name_n = (size_t)(storage->import.module.p + storage->import.module.n - name);
    const struct sel_value *path = sel_value_get_c(&storage->config, "path");
    if (!path || !sel_value_is(path, SEL_TEXT)) {
        fprintf(out, "%.*s", (int)name_n, name);
        return;
    }
    struct sel_storage_options options = {
        .name = storage->name, .getenv = summary->getenv, .getenv_ctx = summary->getenv_ctx};
    struct sel_str text = sel_value_str(path), expanded;
    if (sel_storage_expand(arena, &options, text, &expanded, NULL) == 0)
        text = expanded;
    fprintf(out, "%.*s:%.*s", (int)name_n, name, SEL_STR_ARG(text));
}

/* The storages into which the tasks that ran have stored. */
static const char *print_storages(FILE *out, const struct sel_cli_summary *summary,
                                  const struct slow *ran, uint32_t count, const char *separator)
{
    const struct sel_system *system = summary->system;
    struct sel_arena arena = {0};
    const char *before = "results: ";
    for (uint32_t s = 0; s < system->storage_count; s++) {
        bool used = false;
        for (uint32_t i = 0; i < count; i++) {
            const struct sel_task_def *task = &system->tasks[ran[i].task];
            used = used || (task->storage == s && !task->storage_read_only);
        }
        if (!used)
            continue;
        fprintf(out, "%s%s", separator, before);
        print_storage(out, summary, &system->storages[s], &arena);
        separator = "";
        before = ", ";
    }
    sel_arena_done(&arena);
    return separator;
}

static void print_tasks(FILE *out, const struct sel_cli_summary *summary)
{
    const struct sel_system *system = summary->system;
    struct sel_arena arena = {0};
    struct slow *ran =
        SEL_ARENA_NEW_ARRAY(&arena, struct slow, system->task_count ? system->task_count : 1);
    uint32_t count = 0;
    for (uint32_t i = 0; ran && i < system->task_count; i++) {
        if (sel_executor_task_times(summary->executor, i, &ran[count].times))
            ran[count++].task = i;
    }
    if (count > 0) {
        const char *separator = "  ";
        if (!summary->virtual_time && !summary->scripted)
            separator = print_slowest(out, system, ran, count, separator);
        separator = print_retried(out, system, ran, count, separator);
        separator = print_storages(out, summary, ran, count, separator);
        if (strcmp(separator, "  ") != 0) /* something was printed */
            fputc('\n', out);
    }
    sel_arena_done(&arena);
}

void sel_cli_summary_print(const struct sel_cli *cli, const struct sel_cli_summary *summary)
{
    FILE *out = cli->err;
    const struct sel_executor_report *report = summary->report;
    print_head(out, summary);
    print_fallbacks(out, summary);
    fputc('\n', out);
    if (report->reason)
        fprintf(out, "  %s\n", report->reason);
    print_failures(out, summary->failures);
    if (report->stuck > 0)
        fprintf(out, "  %" PRIu64 " nodes are left in queues that were not served (-Q)\n",
                report->stuck);
    print_tasks(out, summary);
}

/* ---- JSON ---- */

int sel_cli_summary_print_json(const struct sel_cli *cli, const struct sel_cli_summary *summary)
{
    const struct sel_executor_report *report = summary->report;
    const struct sel_executor_progress *progress = &report->progress;
    struct sel_arena arena = {0};
    struct sel_value_builder b;
    struct sel_value all;
    char id[SEL_ID_TEXT_SIZE];
    sel_value_begin_map(&b, &arena);
    sel_value_put_c(&b, "flow_name", sel_value_from_c(summary->flow_name));
    sel_value_put_c(&b, "flow_id", sel_value_from_c(sel_id_format(report->flow_id, id)));
    sel_value_put_c(&b, "outcome", sel_value_from_c(sel_cli_outcome_name(report->outcome)));
    sel_value_put_c(&b, "state", report->state);
    sel_value_put_c(&b, "reason", sel_value_from_c(report->reason));
    sel_value_put_c(&b, "seconds", sel_value_from_f64((double)progress->elapsed_us / 1e6));
    sel_value_put_c(&b, "finished", sel_value_from_u64(progress->finished));
    sel_value_put_c(&b, "failed", sel_value_from_u64(progress->failed));
    sel_value_put_c(&b, "retried", sel_value_from_u64(progress->retried));
    sel_value_put_c(&b, "stuck", sel_value_from_u64(report->stuck));
    int r = sel_value_end(&b, &all);
    struct sel_buf text = {0};
    if (r == 0) {
        sel_json_write(&all, SEL_JSON_SPACED, &text);
        sel_buf_put_u8(&text, '\n');
        r = sel_buf_error(&text);
    }
    if (r == 0)
        (void)fwrite(text.p, 1, text.n, cli->out); /* sel_cli_finish looks at its errors */
    sel_buf_done(&text);
    sel_arena_done(&arena);
    return r;
}
