#include "worker/exec.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>

#include "core/buf.h"
#include "core/json.h"
#include "worker/subprocess.h"
#include "worker/task_internal.h"

#define OUT_MAX ((size_t)256 * 1024 * 1024) /* bytes of a result as JSON */
#define ERR_MAX ((size_t)64 * 1024)         /* the end of standard error that is kept */
#define LAST_LINES 5                        /* of standard error, in a failure's message */
#define STATUS_RETRY 75                     /* EX_TEMPFAIL of sysexits.h */
#define STATUS_FATAL 76

static int prepare(void *self, const struct sel_task_def *task, void **ret_code,
                   struct sel_error *err)
{
    (void)self;
    if (task->command_count == 0)
        return sel_error_set(err, SEL_ECONFIG, task->pos,
                             "task '%.*s' is an executable without a `command`",
                             SEL_STR_ARG(task->name));
    char program[PATH_MAX];
    struct sel_str first = task->command[0];
    if (first.n == 0 || first.n >= sizeof(program))
        return sel_error_set(err, SEL_ECONFIG, task->pos,
                             "task '%.*s': the program in `command` has no usable name",
                             SEL_STR_ARG(task->name));
    memcpy(program, first.p, first.n);
    program[first.n] = '\0';
    int r = sel_subprocess_check(program);
    if (r < 0)
        return sel_error_set(err, SEL_ENOTFOUND, task->pos, "task '%.*s': program '%s': %s",
                             SEL_STR_ARG(task->name), program,
                             r == -ENOENT && !strchr(program, '/') ? "not found on PATH"
                                                                   : sel_error_text(r));
    *ret_code = NULL; /* argv is made for each run, in its arena */
    return 0;
}

/* ---- standard input ---- */

/* The result of one parent; null if none was kept. */
static int parent_result(struct sel_task *task, struct sel_str flow, struct sel_str name,
                         struct sel_str id, struct sel_value *ret)
{
    int r = sel_task_fetch_result(task, flow, name, id, ret);
    if (r == SEL_ERR_FAILED && (strcmp(task->error_class, "UnknownStorageError") == 0 ||
                                strcmp(task->error_class, "SelinonMissingDataException") == 0)) {
        *ret = sel_value_null;
        return 0;
    }
    return r;
}

static int parent_results(struct sel_task *task, struct sel_str flow,
                          const struct sel_value *parents, uint32_t depth, struct sel_value *ret);

/* `entry` is the id of a task, the ids of its runs, or the map of a sub-flow named `name`. */
static int results_of_entry(struct sel_task *task, struct sel_str flow, struct sel_str name,
                            const struct sel_value *entry, uint32_t depth, struct sel_value *ret)
{
    *ret = sel_value_null;
    switch (sel_value_kind(entry)) {
    case SEL_TEXT:
        return parent_result(task, flow, name, sel_value_str(entry), ret);
    case SEL_MAP:
        return parent_results(task, name, entry, depth + 1, ret);
    case SEL_LIST:
        break;
    default:
        return 0;
    }
    struct sel_value_builder list;
    sel_value_begin_list(&list, task->arena);
    for (uint32_t i = 0; i < sel_value_count(entry); i++) {
        struct sel_value item = sel_value_null;
        const struct sel_value *id = sel_value_at(entry, i);
        if (sel_value_is(id, SEL_TEXT))
            SEL_TRY(parent_result(task, flow, name, sel_value_str(id), &item));
        sel_value_add(&list, item);
    }
    return sel_value_end(&list, ret) < 0 ? sel_task_note_memory(task) : 0;
}

/* The map of parents with results in place of ids; depth as that of the map itself. */
static int parent_results(struct sel_task *task, struct sel_str flow,
                          const struct sel_value *parents, uint32_t depth, struct sel_value *ret)
{
    if (depth == SEL_VALUE_DEPTH_MAX)
        return sel_fail(task, "RequestError", "parents are nested too deeply");
    struct sel_value_builder map;
    sel_value_begin_map(&map, task->arena);
    for (uint32_t i = 0; i < sel_value_count(parents); i++) {
        const struct sel_value *key = sel_value_key_at(parents, i);
        struct sel_value item;
        if (!sel_value_is(key, SEL_TEXT))
            continue;
        SEL_TRY(results_of_entry(task, flow, sel_value_str(key), sel_value_val_at(parents, i),
                                 depth, &item));
        sel_value_put(&map, sel_value_str(key), item);
    }
    return sel_value_end(&map, ret) < 0 ? sel_task_note_memory(task) : 0;
}

static int write_input(struct sel_task *task, struct sel_buf *buf)
{
    const struct sel_value *parents;
    struct sel_value results = sel_value_null;
    struct sel_value_builder map;
    struct sel_value input;
    SEL_TRY(sel_task_parents(task, &parents));
    if (sel_value_is(parents, SEL_MAP))
        SEL_TRY(parent_results(task, sel_str_c(task->flow_name), parents, 0, &results));
    sel_value_begin_map(&map, task->arena);
    sel_value_put_c(&map, "task_name", sel_value_from_c(task->name));
    sel_value_put_c(&map, "flow_name", sel_value_from_c(task->flow_name));
    sel_value_put_c(&map, "task_id", sel_value_from_c(sel_task_id(task)));
    sel_value_put_c(&map, "dispatcher_id", sel_value_from_c(sel_task_dispatcher_id(task)));
    sel_value_put_c(&map, "node_args", task->args);
    sel_value_put_c(&map, "parents", *parents);
    sel_value_put_c(&map, "parent_results", results);
    if (sel_value_end(&map, &input) < 0)
        return sel_task_note_memory(task);
    sel_json_write(&input, 0, buf);
    sel_buf_put_u8(buf, '\n');
    return sel_buf_error(buf) < 0 ? sel_task_note_memory(task) : 0;
}

/* ---- standard output and error ---- */

static struct sel_str trim(struct sel_str s)
{
    while (s.n > 0 && strchr(" \t\r\n", s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && strchr(" \t\r\n", s.p[s.n - 1]))
        s.n--;
    return s;
}

/* The last `count` lines of a trimmed text. */
static struct sel_str last_lines(struct sel_str s, uint32_t count)
{
    size_t begin = s.n;
    while (begin > 0 && !(s.p[begin - 1] == '\n' && --count == 0))
        begin--;
    return (struct sel_str){s.p + begin, s.n - begin};
}

/* What the program says about its end: all of standard error as one JSON map, or its last line
 * (what stands before are its log lines). false: it says nothing of the kind. */
static bool read_report(struct sel_task *task, struct sel_str err, struct sel_value *ret)
{
    struct sel_str last = last_lines(err, 1);
    if (err.n > 0 && err.p[0] == '{' &&
        sel_json_parse(task->arena, NULL, err, ret, NULL, NULL) == 0)
        return true;
    return last.n > 0 && last.p[0] == '{' &&
           sel_json_parse(task->arena, NULL, last, ret, NULL, NULL) == 0;
}

/* A text of the report, terminated in the arena; NULL: there is none. */
static const char *report_text(struct sel_task *task, const struct sel_value *report,
                               const char *key)
{
    const struct sel_value *v = sel_value_get_c(report, key);
    if (!sel_value_is(v, SEL_TEXT) || sel_value_str(v).n == 0)
        return NULL;
    return sel_arena_strdup(task->arena, sel_value_str(v));
}

/* "exit status 3" or "killed by SIGSEGV (Segmentation fault)". */
static void describe_end(const struct sel_subprocess_result *result, char *text, size_t size)
{
    if (result->signal == 0) {
        (void)snprintf(text, size, "exit status %d", result->exit_status);
        return;
    }
    const char *name = sigabbrev_np(result->signal);
    const char *meaning = sigdescr_np(result->signal);
    (void)snprintf(text, size, "killed by signal %d (SIG%s, %s)", result->signal, name ? name : "?",
                   meaning ? meaning : "?");
}

static int note_end(struct sel_task *task, const struct sel_subprocess_result *result,
                    struct sel_str err)
{
    bool is_fatal = result->exit_status == STATUS_FATAL;
    int code = is_fatal ? SEL_ERR_FATAL : SEL_ERR_FAILED;
    const char *error_class = is_fatal ? "FatalTaskError" : "ExecError";
    struct sel_value report;
    if (result->signal == 0 && read_report(task, err, &report)) {
        const char *class_text = report_text(task, &report, "class");
        const char *message = report_text(task, &report, "message");
        if (class_text || message)
            return sel_task_note(task, code, class_text ? class_text : error_class, "%s",
                                 message ? message : "");
    }
    char end[128];
    describe_end(result, end, sizeof(end));
    struct sel_str last = last_lines(err, LAST_LINES);
    if (last.n == 0)
        return sel_task_note(task, code, error_class, "%s", end);
    return sel_task_note(task, code, error_class, "%s: %.*s", end,
                         (int)(last.n < SEL_TASK_MESSAGE_MAX ? last.n : SEL_TASK_MESSAGE_MAX),
                         last.p);
}

static int note_retry(struct sel_task *task, struct sel_str err)
{
    struct sel_value report;
    double seconds = 0.0;
    if (read_report(task, err, &report)) {
        const struct sel_value *v = sel_value_get_c(&report, "countdown");
        if (sel_value_is(v, SEL_INT) || sel_value_is(v, SEL_FLOAT))
            seconds = sel_value_num(v);
    }
    return sel_retry(task, seconds);
}

static int take_output(struct sel_task *task, struct sel_str out)
{
    struct sel_error err = {0};
    struct sel_value value;
    if (trim(out).n == 0)
        return 0; /* null */
    int r = sel_json_parse(task->arena, "standard output", out, &value, NULL, &err);
    if (r < 0) {
        err.code = r;
        return sel_task_note_error(task, "ResultError", &err);
    }
    task->result = value; /* the parser has the limits of sel_task_check_value */
    return 0;
}

static int take_end(struct sel_task *task, const struct sel_subprocess_result *result)
{
    struct sel_str err = trim(sel_buf_str(&result->err));
    if (result->signal != 0)
        return note_end(task, result, err);
    switch (result->exit_status) {
    case 0:
        if (err.n > 0)
            sel_task_log(task, SEL_LOG_INFO, "%.*s", SEL_STR_ARG(err));
        return take_output(task, sel_buf_str(&result->out));
    case STATUS_RETRY:
        return note_retry(task, err);
    default:
        return note_end(task, result, err);
    }
}

/* ---- a run ---- */

static int note_run(struct sel_task *task, int code, const char *program)
{
    switch (code) {
    case SEL_ETIMEOUT:
        return sel_fail(task, "TimeoutError",
                        "'%s' did not end within %g s and was killed with its process group",
                        program, (double)task->env->task->timeout_us / 1e6);
    case SEL_ELIMIT:
        return sel_fail(task, "TooLarge",
                        "'%s' wrote more than %zu bytes to standard output and was killed", program,
                        OUT_MAX);
    default:
        return sel_task_note_os(task, code, "OSError", "run '%s'", program);
    }
}

static const char **make_argv(struct sel_task *task)
{
    const struct sel_task_def *def = task->env->task;
    const char **argv =
        SEL_ARENA_NEW_ARRAY(task->arena, const char *, (size_t)def->command_count + 1);
    for (uint32_t i = 0; argv && i < def->command_count; i++) {
        argv[i] = sel_arena_strdup(task->arena, def->command[i]);
        if (!argv[i])
            return NULL;
    }
    return argv;
}

static int execute(struct sel_task *task, const struct sel_buf *input)
{
    const char **argv = make_argv(task);
    if (!argv)
        return sel_task_note_memory(task);
    struct sel_subprocess_options options = {.argv = argv,
                                             .in = {input->p, input->n},
                                             .timeout_us = task->env->task->timeout_us,
                                             .out_max = OUT_MAX,
                                             .err_max = ERR_MAX,
                                             .err_tail = true,
                                             .owner = sel_task_co(task)};
    struct sel_subprocess_result result;
    int r = sel_subprocess_run(&options, &result);
    r = r < 0 ? note_run(task, r, argv[0]) : take_end(task, &result);
    sel_subprocess_result_done(&result);
    return r;
}

static void run(void *self, void *code, struct sel_task *task, struct sel_exec_result *ret)
{
    (void)self;
    (void)code;
    struct sel_buf input = {0};
    int r = write_input(task, &input);
    if (r == 0)
        r = execute(task, &input);
    sel_buf_done(&input);
    sel_task_take_result(task, r, ret);
}

const struct sel_runtime_ops sel_runtime_exec = {prepare, run};
