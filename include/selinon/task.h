/* selinon/task.h - writing tasks in C.
 *
 * A task is a function `int task(struct sel_task *task)`. It runs as a coroutine: calls marked
 * "suspends" look blocking but only suspend this task while others run on the same thread. Hence:
 *   - no lock may be held over a suspending call, and thread-local data may have changed after it;
 *   - the same function runs on several threads at once;
 *   - the stack is 256 KiB; overflowing it ends the worker with the task named;
 *   - work that computes for long or blocks elsewhere declares `blocking: true` in the YAML and
 *     then runs on a thread of a bounded pool, with the same API.
 *
 * Every function that can fail returns 0 (or a count) or a negative code and, when it fails, has
 * noted an error class and message in the task. Returning the negative code from the task function
 * fails the task with them; SEL_TRY does that. A later success does not clear the note; the
 * function that ends with 0 has succeeded whatever was noted.
 *
 * After a cancellation the suspending call that was under way and all later ones return
 * SEL_ERR_CANCELED at once; SEL_DEFER clean-ups run.
 *
 * What a function hands out (values, texts, bytes) belongs to the task and lives until the task
 * function has returned, unless said otherwise. All functions are to be called from the task's
 * own function only. */
#ifndef SELINON_TASK_H
#define SELINON_TASK_H

#include <selinon/base.h>
#include <selinon/module.h>
#include <selinon/value.h>

/* The context in which user code runs: a task, or a foreach, selective run, sampling, predicate,
 * storage or cache function. */
struct sel_task;

enum sel_task_error {
    SEL_ERR_FAILED = -21000,   /* failed with the noted class and message */
    SEL_ERR_FATAL = -21001,    /* the same, and max_retry does not apply */
    SEL_ERR_RETRY = -21002,    /* sel_retry was called */
    SEL_ERR_CANCELED = -21003, /* cancelled */
};

/* Returns from the calling function if `expr` is negative. */
#define SEL_TRY(expr)                                                                              \
    do {                                                                                           \
        int sel_try_result_ = (expr);                                                              \
        if (sel_try_result_ < 0)                                                                   \
            return sel_try_result_;                                                                \
    } while (0)

/* ---- identity ---- */
SEL_API const char *sel_task_name(const struct sel_task *task);
SEL_API const char *sel_task_flow_name(const struct sel_task *task);
SEL_API const char *sel_task_id(const struct sel_task *task);            /* "" outside a task */
SEL_API const char *sel_task_dispatcher_id(const struct sel_task *task); /* id of its flow */
SEL_API uint32_t sel_task_retried_count(const struct sel_task *task);    /* 0 at the first try */

/* ---- arguments ---- */
SEL_API const struct sel_value *sel_task_args(const struct sel_task *task); /* never NULL */
/* A member of the arguments, which must be a map. Missing or of another kind: fails with class
 * `ArgumentError`. Texts are terminated and may hold no NUL. */
SEL_API SEL_CHECKED int sel_arg(struct sel_task *task, const char *key,
                                const struct sel_value **ret);
SEL_API SEL_CHECKED int sel_arg_str(struct sel_task *task, const char *key, const char **ret);
SEL_API SEL_CHECKED int sel_arg_i64(struct sel_task *task, const char *key, int64_t *ret);
SEL_API SEL_CHECKED int sel_arg_f64(struct sel_task *task, const char *key, double *ret);
SEL_API SEL_CHECKED int sel_arg_bool(struct sel_task *task, const char *key, bool *ret);
/* Whether the arguments are a map with that key. */
SEL_API bool sel_has_arg(const struct sel_task *task, const char *key);

/* ---- parents (suspend) ----
 * Parents are the nodes whose end started this one, as a map: task name to task id, and for
 * sub-flows with propagate_finished or propagate_compound_finished, flow name to a map of task
 * name to list of ids (nested deeper for flows in flows). */
SEL_API SEL_CHECKED int sel_task_parents(struct sel_task *task, const struct sel_value **ret);
/* The result of parent task `name`. Fails with `NoParentNodeError`, or a storage's class. */
SEL_API SEL_CHECKED int sel_parent_result(struct sel_task *task, const char *name,
                                          const struct sel_value **ret);
/* The result of run `index` (negative: from the end, -1 the last) of task `name` below the parent
 * flow `flows[0]`, inside it `flows[1]`, and so on. */
SEL_API SEL_CHECKED int sel_parent_flow_result(struct sel_task *task, const char *const *flows,
                                               uint32_t flow_count, const char *name, int index,
                                               const struct sel_value **ret);
/* The failures among the parents, in the same form (a fallback's failed nodes included). */
SEL_API SEL_CHECKED int sel_task_failed_parents(struct sel_task *task,
                                                const struct sel_value **ret);
/* What a failed parent raised, as a map {class, message}. A parent that did not fail:
 * `RequestError`. */
SEL_API SEL_CHECKED int sel_parent_exception(struct sel_task *task, const char *name,
                                             const struct sel_value **ret);
SEL_API SEL_CHECKED int sel_parent_flow_exception(struct sel_task *task, const char *const *flows,
                                                  uint32_t flow_count, const char *name, int index,
                                                  const struct sel_value **ret);

/* ---- results ----
 * `fmt` builds a value: `n` null, `b` int as bool, `i` int64_t, `f` double, `s` const char * (NULL:
 * null), `S` struct sel_str, `B` struct sel_bytes, `v` const struct sel_value *, `[...]` list,
 * `{s:..., S:...}` map; spaces and commas separate. Texts are copied. A result that is not UTF-8 or
 * nested more than 512 deep fails with class `ResultError`, a wrong `fmt` with `FormatError`. The
 * last call counts; without one the result is null. */
SEL_API SEL_CHECKED int sel_result(struct sel_task *task, const char *fmt, ...);
SEL_API SEL_CHECKED int sel_result_value(struct sel_task *task, const struct sel_value *value);
SEL_API SEL_CHECKED int sel_result_json(struct sel_task *task, const char *json, size_t n);
/* The same language, as a value of the task. */
SEL_API SEL_CHECKED int sel_build(struct sel_task *task, const struct sel_value **ret,
                                  const char *fmt, ...);
/* A list or map grown piece by piece; `ret` is a value once sel_list_end / sel_map_end ran. */
struct sel_list;
SEL_API struct sel_list *sel_list_begin(struct sel_task *task); /* NULL: out of memory, noted */
SEL_API SEL_CHECKED int sel_list_add(struct sel_list *list, const char *fmt, ...);
SEL_API SEL_CHECKED int sel_list_end(struct sel_list *list, const struct sel_value **ret);
struct sel_map_maker;
SEL_API struct sel_map_maker *sel_map_begin(struct sel_task *task); /* NULL: out of memory, noted */
SEL_API SEL_CHECKED int sel_map_put(struct sel_map_maker *map, const char *key, const char *fmt,
                                    ...);
SEL_API SEL_CHECKED int sel_map_end(struct sel_map_maker *map, const struct sel_value **ret);

/* ---- failing ---- */
/* Notes class and message and returns SEL_ERR_FAILED: `return sel_fail(task, "BadInput", ...)`. */
SEL_API int sel_fail(struct sel_task *task, const char *error_class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Class FatalTaskError: max_retry does not apply. */
SEL_API int sel_fail_fatal(struct sel_task *task, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Asks for another run after `seconds`; does not count against max_retry. */
SEL_API int sel_retry(struct sel_task *task, double seconds);
/* The class and message noted last, "" if none. */
SEL_API const char *sel_error_class(const struct sel_task *task);
SEL_API const char *sel_error_message(const struct sel_task *task);

/* ---- storages (suspend) ----
 * Any storage of the configuration by name; NULL: the storage of this task. Keys are flow name,
 * task name and task id. Fails with UnknownStorageError, SelinonMissingDataException (no such
 * record) or StorageError. */
SEL_API SEL_CHECKED int sel_storage_retrieve(struct sel_task *task, const char *storage,
                                             const char *flow, const char *name, const char *id,
                                             const struct sel_value **ret);
SEL_API SEL_CHECKED int sel_storage_store(struct sel_task *task, const char *storage,
                                          const char *flow, const char *name, const char *id,
                                          const struct sel_value *result);
SEL_API SEL_CHECKED int sel_storage_delete(struct sel_task *task, const char *storage,
                                           const char *flow, const char *name, const char *id);

/* ---- memory, log, cancellation ---- */
SEL_API void *sel_alloc(struct sel_task *task, size_t size); /* zeroed; NULL: noted */
enum sel_log_level { SEL_LOG_DEBUG, SEL_LOG_INFO, SEL_LOG_WARNING, SEL_LOG_ERROR };
SEL_API void sel_task_log(struct sel_task *task, enum sel_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
SEL_API bool sel_task_is_cancelled(const struct sel_task *task);
/* Runs fn(arg) when the task function has returned, in the reverse order; also after a failure or
 * a cancellation. fn may suspend, but after a cancellation suspending calls fail at once. */
SEL_API SEL_CHECKED int sel_defer(struct sel_task *task, void (*fn)(void *arg), void *arg);

/* ---- time (suspends) ---- */
SEL_API SEL_CHECKED int sel_sleep(struct sel_task *task, double seconds);
SEL_API int64_t sel_now_us(const struct sel_task *task); /* monotonic */

/* ---- files (suspend) ----
 * Error classes: FileNotFound, PermissionDenied, IsADirectory, NotADirectory, FileExists, DiskFull,
 * ReadOnlyFileSystem, TooLarge, and OSError for the rest. */
#define SEL_READ_FILE_MAX ((size_t)1 << 30)
SEL_API SEL_CHECKED int sel_read_file(struct sel_task *task, const char *path,
                                      struct sel_bytes *ret);
/* Writes to a temporary file in the same folder, syncs it if `sync`, and renames it. */
SEL_API SEL_CHECKED int sel_write_file(struct sel_task *task, const char *path, const void *p,
                                       size_t n, bool sync);
SEL_API SEL_CHECKED int sel_open(struct sel_task *task, const char *path, int flags,
                                 unsigned mode); /* fd */
SEL_API SEL_CHECKED int64_t sel_read(struct sel_task *task, int fd, void *p, size_t n,
                                     int64_t offset); /* offset -1: the file's; 0: the end */
SEL_API SEL_CHECKED int64_t sel_write(struct sel_task *task, int fd, const void *p, size_t n,
                                      int64_t offset); /* all or an error */
SEL_API SEL_CHECKED int sel_fsync(struct sel_task *task, int fd);
SEL_API int sel_close(struct sel_task *task, int fd);
struct sel_file_info {
    uint64_t size; /* bytes */
    int64_t modified_unix_us;
    uint32_t mode; /* as st_mode */
    bool is_dir, is_file;
};
SEL_API SEL_CHECKED int sel_stat(struct sel_task *task, const char *path,
                                 struct sel_file_info *ret);
/* Names in a folder without "." and "..", sorted by bytes, as a list of texts. */
SEL_API SEL_CHECKED int sel_list_dir(struct sel_task *task, const char *path,
                                     const struct sel_value **ret);
SEL_API SEL_CHECKED int sel_make_dirs(struct sel_task *task, const char *path, unsigned mode);
SEL_API SEL_CHECKED int sel_rename(struct sel_task *task, const char *from, const char *to);
SEL_API SEL_CHECKED int sel_remove(struct sel_task *task, const char *path); /* or empty folder */

/* ---- sockets (suspend) ---- classes: ConnectionError, TimeoutError, NameError */
SEL_API SEL_CHECKED int sel_connect(struct sel_task *task, const char *host, uint16_t port,
                                    double timeout_s);                             /* TCP; fd */
SEL_API SEL_CHECKED int sel_connect_unix(struct sel_task *task, const char *path); /* fd */
SEL_API SEL_CHECKED int64_t sel_send(struct sel_task *task, int fd, const void *p,
                                     size_t n); /* all or an error */
SEL_API SEL_CHECKED int64_t sel_recv(struct sel_task *task, int fd, void *p, size_t n,
                                     double timeout_s); /* 0: the peer closed; timeout <= 0: none */

/* ---- subprocesses (suspend) ---- */
struct sel_run_result {
    int exit_status; /* -1 if a signal ended it */
    int signal;      /* 0 if none */
    struct sel_bytes out, err;
};
/* Runs argv (NULL-terminated, found on PATH) in its own process group with `in` on its standard
 * input. It ends when its first process does; what then still runs in its group is killed. At the
 * time limit (seconds, <= 0: none; class TimeoutError) or a cancellation the whole group is killed.
 * More than `out_max` bytes on standard output, or on standard error, fail with TooLarge. Only
 * descriptors 0, 1 and 2 are inherited. */
SEL_API SEL_CHECKED int sel_run(struct sel_task *task, const char *const *argv, struct sel_bytes in,
                                double timeout_s, size_t out_max, struct sel_run_result *ret);

#endif
