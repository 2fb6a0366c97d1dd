/* selinon/module.h - the table by which a shared object offers its functions.
 *
 *   SEL_MODULE("text", SEL_TASK("WordCount", word_count), SEL_FOREACH("files", list_files));
 *
 * in exactly one file of the module; `import: text` in the YAML then finds text.so on the module
 * path (`import: a.b` finds a/b.so, then a.b.so). Functions run on several threads. */
#ifndef SELINON_MODULE_H
#define SELINON_MODULE_H

#include <selinon/base.h>
#include <selinon/value.h>

struct sel_task;
struct sel_storage_ops;
struct sel_cache_ops;

enum sel_module_kind {
    SEL_MODULE_TASK = 1,
    SEL_MODULE_FOREACH,
    SEL_MODULE_SELECTIVE,
    SEL_MODULE_PREDICATE,
    SEL_MODULE_SAMPLING,
    SEL_MODULE_TRACE,
    SEL_MODULE_STORAGE,
    SEL_MODULE_CACHE,
};

/* A task, or a foreach function: sel_task_args are the arguments of the flow; a foreach function
 * results in a list (null or empty starts nothing). */
typedef int (*sel_task_fn)(struct sel_task *task);

/* Decides for a task on the path of a selective run: results in the id of an earlier run whose
 * result is taken, or in null to run it. sel_task_args are the arguments of the flow. */
struct sel_selective_info {
    const char *flow_name;
    const char *node_name;
    const char *const *task_names; /* the tasks that were asked for */
    uint32_t task_count;
};
typedef int (*sel_selective_fn)(struct sel_task *task, const struct sel_selective_info *info);

/* 1, 0, or negative: a failure of the flow. `input` is the message or the arguments. */
typedef int (*sel_predicate_fn)(struct sel_task *task, const struct sel_value *input,
                                const struct sel_value *args);

/* Seconds until the next look; negative ends the flow. Sets *ret and returns 0, or negative. */
struct sel_sampling_status {
    bool has_previous_retry;
    double previous_retry_s;
    const struct sel_value *active_nodes, *new_started_nodes, *new_fallback_nodes; /* names */
    const struct sel_value *finished_nodes, *failed_nodes; /* name to list of ids */
};
typedef int (*sel_sampling_fn)(struct sel_task *task, const struct sel_sampling_status *status,
                               const struct sel_value *args, double *ret);

/* Called for every trace event, on any thread; must not suspend. `details` lives for the call. */
typedef int (*sel_trace_fn)(uint32_t event, const char *event_name,
                            const struct sel_value *details);

#define SEL_MODULE_ARGS_MAX 16 /* keyword arguments of one function */
#define SEL_MODULE_ENTRIES_MAX 4096
#define SEL_MODULE_NAME_MAX 255 /* bytes */

/* Names are `[_a-zA-Z][_a-zA-Z0-9]*` and occur once for a kind. */
struct sel_module_entry {
    uint32_t kind; /* enum sel_module_kind */
    const char *name;
    /* predicates and sampling functions: the names of the keyword arguments, all required */
    const char *const *args;
    uint32_t arg_count;
    uint32_t takes_message; /* predicates: 1 the message, 0 the arguments, 2 neither */
    union {
        sel_task_fn task;
        sel_selective_fn selective;
        sel_predicate_fn predicate;
        sel_sampling_fn sampling;
        sel_trace_fn trace;
        const struct sel_storage_ops *storage;
        const struct sel_cache_ops *cache;
    } u;
};

struct sel_module {
    uint32_t size;       /* sizeof(struct sel_module) */
    uint32_t abi;        /* SEL_MODULE_ABI */
    uint32_t entry_size; /* sizeof(struct sel_module_entry) */
    uint32_t entry_count;
    const char *name;
    const struct sel_module_entry *entries;
    uint64_t capabilities; /* 0; bits are given out by later versions */
    /* Once a thread, before its first and after its last call into the module; may be NULL. */
    int (*thread_init)(void);
    void (*thread_done)(void);
};

/* clang-format off */
#define SEL_TASK(name, fn) {SEL_MODULE_TASK, (name), 0, 0, 0, {.task = (fn)}}
#define SEL_FOREACH(name, fn) {SEL_MODULE_FOREACH, (name), 0, 0, 0, {.task = (fn)}}
#define SEL_SELECTIVE(name, fn) {SEL_MODULE_SELECTIVE, (name), 0, 0, 0, {.selective = (fn)}}
#define SEL_TRACE_FUNCTION(name, fn) {SEL_MODULE_TRACE, (name), 0, 0, 0, {.trace = (fn)}}
#define SEL_STORAGE(name, ops) {SEL_MODULE_STORAGE, (name), 0, 0, 0, {.storage = (ops)}}
#define SEL_CACHE(name, ops) {SEL_MODULE_CACHE, (name), 0, 0, 0, {.cache = (ops)}}
/* The names of the keyword arguments follow the function, none or up to SEL_MODULE_ARGS_MAX:
 *   SEL_PREDICATE_MESSAGE("isOdd", is_odd, "key"), SEL_SAMPLING("hourly", hourly) */
#define SEL_PREDICATE_MESSAGE(name, ...) SEL_PREDICATE_(1, name, __VA_ARGS__, 0)
#define SEL_PREDICATE_ARGS(name, ...) SEL_PREDICATE_(0, name, __VA_ARGS__, 0)
#define SEL_PREDICATE_NONE(name, ...) SEL_PREDICATE_(2, name, __VA_ARGS__, 0)
#define SEL_SAMPLING(name, ...) SEL_SAMPLING_(name, __VA_ARGS__, 0)

/* A function and its names closed by a 0, so that no list is ever empty (C11 has no __VA_OPT__):
 * the head is the function, the tail the names and the 0, which does not count. */
#define SEL_HEAD_(fn, ...) (fn)
#define SEL_TAIL_(fn, ...) __VA_ARGS__
#define SEL_PREDICATE_(input, name, ...)                                                           \
    {SEL_MODULE_PREDICATE, (name), SEL_NAMES_(SEL_TAIL_(__VA_ARGS__)),                             \
     SEL_NAME_COUNT_(SEL_TAIL_(__VA_ARGS__)), (input), {.predicate = SEL_HEAD_(__VA_ARGS__, 0)}}
#define SEL_SAMPLING_(name, ...)                                                                   \
    {SEL_MODULE_SAMPLING, (name), SEL_NAMES_(SEL_TAIL_(__VA_ARGS__)),                              \
     SEL_NAME_COUNT_(SEL_TAIL_(__VA_ARGS__)), 0, {.sampling = SEL_HEAD_(__VA_ARGS__, 0)}}
#ifdef __cplusplus /* has no compound literals that last */
#define SEL_NAMES_(...)                                                                            \
    ([]() -> const char *const * { static const char *const n[] = {__VA_ARGS__}; return n; }())
#define SEL_NAME_COUNT_(...)                                                                       \
    ([]() -> uint32_t { const char *const n[] = {__VA_ARGS__}; return sizeof(n) / sizeof(*n) - 1; }())
#else
#define SEL_NAMES_(...) ((const char *const[]){__VA_ARGS__})
#define SEL_NAME_COUNT_(...) (sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *) - 1)
#endif
/* clang-format on */

#define SEL_MODULE(name, ...)                                                                      \
    static const struct sel_module_entry sel_module_entries_[] = {__VA_ARGS__};                    \
    SEL_API const struct sel_module sel_module_table;                                              \
    const struct sel_module sel_module_table = {sizeof(struct sel_module),                         \
                                                SEL_MODULE_ABI,                                    \
                                                sizeof(struct sel_module_entry),                   \
                                                sizeof(sel_module_entries_) /                      \
                                                    sizeof(sel_module_entries_[0]),                \
                                                (name),                                            \
                                                sel_module_entries_,                               \
                                                0,                                                 \
                                                0,                                                 \
                                                0}

#endif
