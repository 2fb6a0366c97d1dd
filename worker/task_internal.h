/* worker/task_internal.h - what is behind struct sel_task, for worker/task*.c and the runtimes. */
#ifndef SEL_WORKER_TASK_INTERNAL_H
#define SEL_WORKER_TASK_INTERNAL_H

#include <selinon/task.h>

#include "core/arena.h"
#include "core/value.h"
#include "worker/co.h"
#include "worker/exec.h"

#define SEL_TASK_MESSAGE_MAX 8192 /* bytes of an error message; longer ones are cut */
#define SEL_TASK_CLASS_MAX 255
#define SEL_BUILD_DEPTH_MAX 64 /* nesting in one format text */

struct sel_task_deferred {
    struct sel_task_deferred *next;
    void (*fn)(void *arg);
    void *arg;
};

struct sel_task {
    struct sel_arena *arena;
    const struct sel_task_env *env;
    struct sel_co *co; /* the coroutine that it was made in; NULL: none */
    const char *name, *flow_name;
    struct sel_value args;
    struct sel_value result;
    const char *error_class, *error_message; /* "" while nothing was noted */
    double retry_s;                          /* of sel_retry */
    double storage_retry_s; /* of the storage whose trouble was noted last; negative: none */
    bool was_cancelled;     /* a call has answered SEL_ERR_CANCELED */
    bool has_parents[2];    /* finished, failed */
    struct sel_value parents[2];
    struct sel_task_deferred *deferred; /* newest first */
};

/* Notes class and message and returns `code`. */
int sel_task_note(struct sel_task *task, int code, const char *error_class, const char *fmt, ...)
    SEL_PRINTF(4, 5);
/* Notes a cancellation and returns SEL_ERR_CANCELED. */
int sel_task_note_cancel(struct sel_task *task);
int sel_task_note_memory(struct sel_task *task);
/* Notes the code of a failed system or engine call: the class from `code` (-errno or SEL_E...; see
 * task.h), or `other_class` if it has none of its own; the message is "<what>: <text of code>". */
int sel_task_note_os(struct sel_task *task, int code, const char *other_class, const char *what,
                     ...) SEL_PRINTF(4, 5);
/* Notes an error of the engine with its place and text; SEL_ECANCELED and SEL_ENOMEM keep their
 * own classes. */
int sel_task_note_error(struct sel_task *task, const char *error_class,
                        const struct sel_error *err);

/* Whether `v` can be encoded and read again: depth, UTF-8. Else notes a ResultError. */
int sel_task_check_value(struct sel_task *task, const struct sel_value *v);
/* Checks and encodes into the arena. */
int sel_task_encode(struct sel_task *task, const struct sel_value *v, struct sel_str *ret);

void sel_task_run_deferred(struct sel_task *task);

/* The coroutine whose cancellation counts for a call made now. */
const struct sel_co *sel_task_co(const struct sel_task *task);

/* ---- the language of sel_build, over any source of arguments (the fuzzer has its own) ---- */
union sel_build_arg {
    int b;
    int64_t i;
    double f;
    const char *s;
    struct sel_str str;
    struct sel_bytes bytes;
    const struct sel_value *v;
};
/* Gets the next argument for `letter`, one of b i f s S B v. */
typedef void (*sel_build_take_fn)(void *ctx, char letter, union sel_build_arg *ret);
int sel_task_build(struct sel_task *task, const char *fmt, sel_build_take_fn take, void *ctx,
                   struct sel_value *ret);

/* ---- worker/task_storage.c, for the runtimes ---- */
/* The result of run `id` of task `name` of flow `flow`, from its storage or cache. */
int sel_task_fetch_result(struct sel_task *task, struct sel_str flow, struct sel_str name,
                          struct sel_str id, struct sel_value *ret);

#endif
