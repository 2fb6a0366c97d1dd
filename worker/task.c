#include "worker/task_internal.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/buf.h"
#include "core/suggest.h"
#include "worker/loop.h"

#define SCRATCH_KEPT ((size_t)64 << 10)

/* ---- noting errors ---- */

/* Error texts end up in storages, traces and JSON, so that they must be UTF-8: bytes that are no
 * part of a character (a path of another encoding, a cut one) become '?'. */
static void clean_text(char *p, size_t n)
{
    if (sel_str_is_utf8((struct sel_str){p, n}))
        return;
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        while (len <= 4 && i + len <= n && !sel_str_is_utf8((struct sel_str){p + i, len}))
            len++;
        if (len > 4 || i + len > n) {
            p[i] = '?';
            len = 1;
        }
        i += len;
    }
}

/* At most `max` bytes of the text, in the arena; NULL: out of memory. */
static char *format_text(struct sel_arena *arena, size_t max, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    size_t n = need < 0 ? 0 : (size_t)need;
    if (n > max)
        n = max;
    char *text = sel_arena_alloc_raw(arena, n + 1, 1);
    if (!text)
        return NULL;
    (void)vsnprintf(text, n + 1, fmt, args);
    text[n] = '\0';
    clean_text(text, n);
    return text;
}

static void vnote(struct sel_task *task, const char *error_class, const char *fmt, va_list args)
{
    struct sel_str name = {error_class, strnlen(error_class, SEL_TASK_CLASS_MAX)};
    char *class_text = sel_arena_strdup(task->arena, name);
    char *message = format_text(task->arena, SEL_TASK_MESSAGE_MAX, fmt, args);
    if (!class_text || !message) {
        task->error_class = "MemoryError";
        task->error_message = "out of memory";
        return;
    }
    clean_text(class_text, name.n);
    task->error_class = class_text;
    task->error_message = message;
    task->storage_retry_s = -1.0;
}

int sel_task_note(struct sel_task *task, int code, const char *error_class, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vnote(task, error_class, fmt, args);
    va_end(args);
    return code;
}

int sel_task_note_cancel(struct sel_task *task)
{
    task->was_cancelled = true;
    task->error_class = "Cancelled";
    task->error_message = "the task was cancelled";
    return SEL_ERR_CANCELED;
}

int sel_task_note_memory(struct sel_task *task)
{
    task->error_class = "MemoryError";
    task->error_message = "the task needs more memory than there is, or than its limit";
    return SEL_ERR_FAILED;
}

/* NULL: no class of its own. */
static const char *os_class(int code)
{
    switch (code) {
    case -ENOENT:
        return "FileNotFound";
    case -EACCES:
    case -EPERM:
        return "PermissionDenied";
    case -EISDIR:
        return "IsADirectory";
    case -ENOTDIR:
        return "NotADirectory";
    case -EEXIST:
        return "FileExists";
    case -ENOSPC:
    case -EDQUOT:
        return "DiskFull";
    case -EROFS:
        return "ReadOnlyFileSystem";
    case -EFBIG:
    case -EOVERFLOW:
        return "TooLarge";
    case -ETIMEDOUT:
    case -ETIME:
    case SEL_ETIMEOUT:
        return "TimeoutError";
    default:
        return NULL;
    }
}

int sel_task_note_os(struct sel_task *task, int code, const char *other_class, const char *what,
                     ...)
{
    if (code == SEL_ECANCELED)
        return sel_task_note_cancel(task);
    if (code == SEL_ENOMEM || code == -ENOMEM)
        return sel_task_note_memory(task);
    va_list args;
    va_start(args, what);
    char *text = format_text(task->arena, SEL_TASK_MESSAGE_MAX, what, args);
    va_end(args);
    const char *error_class = os_class(code);
    return sel_task_note(task, SEL_ERR_FAILED, error_class ? error_class : other_class, "%s: %s",
                         text ? text : "?", sel_error_text(code));
}

int sel_task_note_error(struct sel_task *task, const char *error_class, const struct sel_error *err)
{
    if (err->code == SEL_ECANCELED)
        return sel_task_note_cancel(task);
    if (err->code == SEL_ENOMEM)
        return sel_task_note_memory(task);
    char text[SEL_ERROR_TEXT_MAX + 128];
    sel_error_format(err, text, sizeof(text));
    return sel_task_note(task, SEL_ERR_FAILED, error_class, "%s",
                         text[0] ? text : sel_error_text(err->code));
}

/* ---- making, ending ---- */

struct sel_task *sel_task_new(struct sel_arena *arena, const struct sel_task_env *env)
{
    struct sel_task *task = SEL_ARENA_NEW(arena, struct sel_task);
    if (!task)
        return NULL;
    task->arena = arena;
    task->env = env;
    task->co = sel_co_current();
    task->error_class = task->error_message = "";
    task->storage_retry_s = -1.0;
    task->result = sel_value_null;
    task->args = sel_value_null;
    task->name = env->task ? sel_arena_strdup(arena, env->task->name) : "";
    task->flow_name = env->flow ? sel_arena_strdup(arena, env->flow->name) : "";
    if (!task->name || !task->flow_name)
        return NULL;
    if (env->args.n > 0 &&
        sel_value_decode(arena, env->args.p, env->args.n, false, &task->args, NULL) < 0)
        return NULL;
    return task;
}

void sel_task_run_deferred(struct sel_task *task)
{
    while (task->deferred) { /* a clean-up may defer another one */
        struct sel_task_deferred *d = task->deferred;
        task->deferred = d->next;
        d->fn(d->arg);
    }
}

void sel_task_done(struct sel_task *task)
{
    if (task)
        sel_task_run_deferred(task);
}

const struct sel_task_env *sel_task_get_env(const struct sel_task *task)
{
    return task->env;
}

struct sel_arena *sel_task_arena(struct sel_task *task)
{
    return task->arena;
}

const struct sel_value *sel_task_result(const struct sel_task *task)
{
    return &task->result;
}

/* ---- what a value may be ---- */

/* Recursion is bounded by SEL_VALUE_DEPTH_MAX. NULL: fine, else what is wrong. */
static const char *value_fault(const struct sel_value *v, uint32_t depth)
{
    enum sel_kind kind = sel_value_kind(v);
    if (kind == SEL_TEXT)
        return sel_str_is_utf8(sel_value_str(v)) ? NULL : "it holds a text that is not UTF-8";
    if (kind == SEL_EXT)
        return "it holds an extension value, which JSON does not have";
    if (kind != SEL_LIST && kind != SEL_MAP)
        return NULL;
    if (depth == SEL_VALUE_DEPTH_MAX)
        return "it is nested too deeply; at most 512 lists and maps";
    uint32_t count = sel_value_count(v);
    const char *fault = NULL;
    for (uint32_t i = 0; i < count && !fault; i++) {
        if (kind == SEL_LIST) {
            fault = value_fault(sel_value_at(v, i), depth + 1);
            continue;
        }
        fault = value_fault(sel_value_key_at(v, i), depth + 1);
        if (!fault)
            fault = value_fault(sel_value_val_at(v, i), depth + 1);
    }
    return fault;
}

int sel_task_check_value(struct sel_task *task, const struct sel_value *v)
{
    const char *fault = value_fault(v, 0);
    if (!fault)
        return 0;
    return sel_task_note(task, SEL_ERR_FAILED, "ResultError", "the value cannot be kept: %s",
                         fault);
}

int sel_task_encode(struct sel_task *task, const struct sel_value *v, struct sel_str *ret)
{
    if (sel_value_is(v, SEL_NULL)) { /* the most frequent result */
        *ret = (struct sel_str){(const char *)sel_value_null_bytes, sizeof(sel_value_null_bytes)};
        return 0;
    }
    int r = sel_task_check_value(task, v);
    if (r < 0)
        return r;
    struct sel_buf own = {0};
    bool is_on_loop = task->env->scratch && sel_co_current();
    struct sel_buf *buf = is_on_loop ? task->env->scratch : &own;
    sel_buf_clear(buf);
    sel_value_encode(v, buf);
    void *bytes = NULL;
    if (sel_buf_error(buf) == 0)
        bytes = sel_arena_memdup(task->arena, buf->p, buf->n);
    size_t n = buf->n;
    if (buf == &own || buf->cap > SCRATCH_KEPT)
        sel_buf_done(buf);
    if (!bytes)
        return sel_task_note_memory(task);
    *ret = (struct sel_str){bytes, n};
    return 0;
}

static void take_failure(struct sel_task *task, int code, struct sel_exec_result *ret)
{
    ret->outcome = SEL_EXEC_FAILURE;
    ret->retry_s = task->storage_retry_s;
    ret->error_class = task->error_class;
    ret->error_message = task->error_message;
    if (ret->error_class[0] != '\0')
        return;
    ret->error_class = "TaskError";
    char *text = sel_arena_printf(task->arena, "the function returned %d (%s) and noted no error",
                                  code, sel_error_text(code));
    ret->error_message = text ? text : "the function returned a negative code";
}

void sel_task_take_result(struct sel_task *task, int code, struct sel_exec_result *ret)
{
    *ret = (struct sel_exec_result){.error_class = "", .error_message = "", .retry_s = -1.0};
    if (code >= 0) {
        ret->outcome = SEL_EXEC_SUCCESS;
        int r = sel_task_encode(task, &task->result, &ret->value);
        if (r < 0)
            take_failure(task, r, ret);
        return;
    }
    if (code == SEL_ERR_RETRY) {
        ret->outcome = SEL_EXEC_RETRY;
        ret->retry_s = task->retry_s;
        return;
    }
    /* A task cannot make itself look cancelled: nobody would ever hear of it again. */
    if (code == SEL_ERR_CANCELED && (task->was_cancelled || sel_task_is_cancelled(task))) {
        ret->outcome = SEL_EXEC_CANCELED;
        return;
    }
    take_failure(task, code, ret);
    if (code == SEL_ERR_FATAL) {
        ret->outcome = SEL_EXEC_FATAL;
        ret->retry_s = -1.0;
        if (task->error_class[0] == '\0')
            ret->error_class = "FatalTaskError";
    }
}

/* ---- identity ---- */

const char *sel_task_name(const struct sel_task *task)
{
    return task->name;
}

const char *sel_task_flow_name(const struct sel_task *task)
{
    return task->flow_name;
}

const char *sel_task_id(const struct sel_task *task)
{
    return task->env->task_id ? task->env->task_id : "";
}

const char *sel_task_dispatcher_id(const struct sel_task *task)
{
    return task->env->dispatcher_id ? task->env->dispatcher_id : "";
}

uint32_t sel_task_retried_count(const struct sel_task *task)
{
    return task->env->retried_count;
}

/* ---- arguments ---- */

const struct sel_value *sel_task_args(const struct sel_task *task)
{
    return &task->args;
}

bool sel_has_arg(const struct sel_task *task, const char *key)
{
    return sel_value_get_c(&task->args, key) != NULL;
}

int sel_arg(struct sel_task *task, const char *key, const struct sel_value **ret)
{
    if (!sel_value_is(&task->args, SEL_MAP))
        return sel_fail(task, "ArgumentError",
                        "argument '%s' is needed, but the arguments are %s and no map", key,
                        sel_value_kind_name(sel_value_kind(&task->args)));
    const struct sel_value *v = sel_value_get_c(&task->args, key);
    if (v) {
        *ret = v;
        return 0;
    }
    struct sel_suggest suggest;
    struct sel_str similar;
    sel_suggest_init(&suggest, sel_str_c(key));
    for (uint32_t i = 0; i < sel_value_count(&task->args); i++) {
        const struct sel_value *k = sel_value_key_at(&task->args, i);
        if (sel_value_is(k, SEL_TEXT))
            sel_suggest_offer(&suggest, sel_value_str(k));
    }
    if (sel_suggest_get(&suggest, &similar))
        return sel_fail(task, "ArgumentError",
                        "argument '%s' is missing; there is '%.*s', is that meant?", key,
                        SEL_STR_ARG(similar));
    return sel_fail(task, "ArgumentError", "argument '%s' is missing", key);
}

static int wrong_kind(struct sel_task *task, const char *key, const char *want,
                      const struct sel_value *v)
{
    return sel_fail(task, "ArgumentError", "argument '%s' must be %s and is %s", key, want,
                    sel_value_kind_name(sel_value_kind(v)));
}

int sel_arg_str(struct sel_task *task, const char *key, const char **ret)
{
    const struct sel_value *v;
    SEL_TRY(sel_arg(task, key, &v));
    if (!sel_value_is(v, SEL_TEXT))
        return wrong_kind(task, key, "text", v);
    struct sel_str s = sel_value_str(v);
    if (s.n > 0 && memchr(s.p, '\0', s.n))
        return sel_fail(task, "ArgumentError", "argument '%s' holds a NUL character", key);
    char *text = sel_arena_strdup(task->arena, s);
    if (!text)
        return sel_task_note_memory(task);
    *ret = text;
    return 0;
}

int sel_arg_i64(struct sel_task *task, const char *key, int64_t *ret)
{
    const struct sel_value *v;
    SEL_TRY(sel_arg(task, key, &v));
    if (!sel_value_is(v, SEL_INT))
        return wrong_kind(task, key, "int", v);
    if (!sel_value_i64(v, ret))
        return sel_fail(task, "ArgumentError", "argument '%s' does not fit 64 bits with a sign",
                        key);
    return 0;
}

int sel_arg_f64(struct sel_task *task, const char *key, double *ret)
{
    const struct sel_value *v;
    SEL_TRY(sel_arg(task, key, &v));
    if (!sel_value_is(v, SEL_FLOAT) && !sel_value_is(v, SEL_INT))
        return wrong_kind(task, key, "float or int", v);
    *ret = sel_value_num(v);
    return 0;
}

int sel_arg_bool(struct sel_task *task, const char *key, bool *ret)
{
    const struct sel_value *v;
    SEL_TRY(sel_arg(task, key, &v));
    if (!sel_value_is(v, SEL_BOOL))
        return wrong_kind(task, key, "bool", v);
    *ret = sel_value_bool(v);
    return 0;
}

/* ---- failing ---- */

int sel_fail(struct sel_task *task, const char *error_class, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vnote(task, error_class && error_class[0] ? error_class : "TaskError", fmt, args);
    va_end(args);
    return SEL_ERR_FAILED;
}

int sel_fail_fatal(struct sel_task *task, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vnote(task, "FatalTaskError", fmt, args);
    va_end(args);
    return SEL_ERR_FATAL;
}

int sel_retry(struct sel_task *task, double seconds)
{
    task->retry_s = isfinite(seconds) && seconds > 0.0 ? seconds : 0.0;
    return SEL_ERR_RETRY;
}

const char *sel_error_class(const struct sel_task *task)
{
    return task->error_class;
}

const char *sel_error_message(const struct sel_task *task)
{
    return task->error_message;
}

/* ---- memory, log, cancellation ---- */

void *sel_alloc(struct sel_task *task, size_t size)
{
    void *p = sel_arena_alloc(task->arena, size ? size : 1);
    if (!p)
        (void)sel_task_note_memory(task);
    return p;
}

void sel_task_log(struct sel_task *task, enum sel_log_level level, const char *fmt, ...)
{
    const struct sel_task_host *host = task->env->host;
    if (!host || !host->log)
        return;
    char text[1024]; /* a longer line is rare; it takes the arena */
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(text, sizeof(text), fmt, again);
    va_end(again);
    char *line = text;
    if (n >= (int)sizeof(text)) {
        line = format_text(task->arena, SEL_TASK_MESSAGE_MAX, fmt, args);
        if (!line)
            line = text; /* cut is better than nothing */
    }
    va_end(args);
    if (n < 0)
        return;
    size_t len = strlen(line);
    clean_text(line, len);
    host->log(host->ctx, task->env, level, (struct sel_str){line, len});
}

const struct sel_co *sel_task_co(const struct sel_task *task)
{
    const struct sel_co *co = sel_co_current();
    return co ? co : task->co;
}

bool sel_task_is_cancelled(const struct sel_task *task)
{
    const struct sel_co *co = sel_task_co(task);
    return co && sel_loop_is_cancelled(co);
}

int sel_defer(struct sel_task *task, void (*fn)(void *arg), void *arg)
{
    struct sel_task_deferred *d = SEL_ARENA_NEW(task->arena, struct sel_task_deferred);
    if (!d)
        return sel_task_note_memory(task);
    d->fn = fn;
    d->arg = arg;
    d->next = task->deferred;
    task->deferred = d;
    return 0;
}
