#include "worker/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/hash.h"
#include "core/mem.h"
#include "worker/details.h"
#include "worker/flow_codec.h"
#include "worker/mock.h"
#include "worker/module.h"
#include "worker/module_storage.h"
#include "worker/parents.h"

#define SCHEMA_SIZE_MAX (16 << 20)

/* ---- log ---- */

void sel_engine_log(const struct sel_engine *engine, enum sel_log_level level, const char *fmt, ...)
{
    const struct sel_executor_options *options = engine->options;
    int wanted = level >= SEL_LOG_WARNING ? 0 : level == SEL_LOG_INFO ? 1 : 2;
    if (wanted > options->verbosity)
        return;
    struct sel_buf line = {0};
    va_list args;
    va_start(args, fmt);
    char text[SEL_ERROR_TEXT_MAX];
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sel_buf_put_c(&line, text);
    if (options->log)
        options->log(options->log_ctx, level, sel_buf_cstr(&line));
    else
        (void)dprintf(STDERR_FILENO, "selinon: %s\n", sel_buf_cstr(&line));
    sel_buf_done(&line);
}

/* ---- failures that parents may be asked for ---- */

struct failure {
    const char *error_class, *message;
};

struct sel_failure_table {
    struct sel_arena arena;
    struct sel_map ids; /* run id to index */
    struct failure *items;
    uint32_t count, cap;
};

static struct sel_failure_table *failures_free(struct sel_failure_table *table)
{
    if (table) {
        sel_map_done(&table->ids);
        sel_arena_done(&table->arena);
        sel_mem_free(table->items);
        sel_mem_free(table);
    }
    return NULL;
}

static void add_failure(struct sel_failure_table *table, const char *run_id,
                        const char *error_class, const char *message)
{
    char *id = sel_arena_strdup(&table->arena, sel_str_c(run_id));
    struct failure failure = {sel_arena_strdup(&table->arena, sel_str_c(error_class)),
                              sel_arena_strdup(&table->arena, sel_str_c(message))};
    if (!id || !failure.error_class || !failure.message ||
        !sel_mem_grow(&table->items, &table->cap, (uint64_t)table->count + 1,
                      sizeof(*table->items)))
        return;
    table->items[table->count] = failure;
    if (sel_map_add(&table->ids, sel_str_c(id), table->count, NULL) == 1)
        table->count++;
}

void sel_engine_note_failure(struct sel_engine *engine, const char *run_id, const char *error_class,
                             const char *message)
{
    if (!engine->keeps_failures)
        return;
    pthread_mutex_lock(&engine->lock);
    add_failure(engine->failures, run_id, error_class, message);
    pthread_mutex_unlock(&engine->lock);
}

static bool find_failure(struct sel_engine *engine, struct sel_str run_id, struct failure *ret)
{
    uint32_t index;
    pthread_mutex_lock(&engine->lock);
    bool found = sel_map_get(&engine->failures->ids, run_id, &index);
    if (found)
        *ret = engine->failures->items[index]; /* texts stay where they are */
    pthread_mutex_unlock(&engine->lock);
    return found;
}

const char *sel_engine_failure_text(struct sel_engine *engine, const struct sel_state *state,
                                    uint32_t ordinal, struct sel_arena *arena)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    struct failure failure;
    if (!find_failure(engine, sel_state_run_id(state, ordinal, text), &failure))
        return sel_state_child(state, ordinal) ? "FlowError: the sub-flow failed"
                                               : "the task failed";
    return sel_arena_printf(arena, "%s: %s", failure.error_class, failure.message);
}

/* ---- what user code may ask ---- */

int sel_engine_parents_value(const struct sel_engine *engine, struct sel_parents *parents,
                             struct sel_str bytes, bool failed, struct sel_arena *arena,
                             struct sel_value *ret)
{
    struct sel_parents *taken = NULL;
    struct sel_value borrowed; /* ids of direct parents lie in `taken` */
    if (bytes.n == 0)
        return sel_parents_to_value(engine->system, parents, failed, arena, ret);
    int r = sel_flow_take_parents(engine->system, bytes, &taken, NULL);
    if (r == 0)
        r = sel_parents_to_value(engine->system, taken, failed, arena, &borrowed);
    if (r == 0)
        r = sel_value_copy(arena, &borrowed, ret);
    sel_parents_unref(taken);
    return r;
}

static int host_parents(void *ctx, const struct sel_task_env *env, bool failed,
                        struct sel_arena *arena, struct sel_value *ret, struct sel_error *err)
{
    const struct sel_engine *engine = ctx;
    int r = sel_engine_parents_value(engine, env->parents, env->parents_bytes, failed, arena, ret);
    return r < 0 ? sel_error_set(err, r, (struct sel_pos){0}, "the parents: %s", sel_error_text(r))
                 : 0;
}

static int host_storage(void *ctx, uint32_t index, struct sel_storage **ret, struct sel_error *err)
{
    return sel_engine_storage(ctx, index, ret, err);
}

static void failure_value(struct sel_arena *arena, const struct failure *failure,
                          struct sel_value *ret)
{
    struct sel_details details;
    sel_details_begin(&details, arena);
    sel_details_text(&details, "class", failure->error_class);
    sel_details_text(&details, "message", failure->message);
    *ret = sel_details_end(&details);
}

/* A failure among parents that came over the wire. 1, 0, or why they cannot be read. */
static int find_sent_failure(const struct sel_engine *engine, struct sel_str bytes,
                             struct sel_str run_id, struct sel_arena *arena, struct failure *ret)
{
    struct sel_parents *parents = NULL;
    int r = sel_flow_take_parents(engine->system, bytes, &parents, NULL);
    if (r == 0 && sel_parents_find_failure(parents, run_id, &ret->error_class, &ret->message)) {
        ret->error_class = sel_arena_strdup(arena, sel_str_c(ret->error_class));
        ret->message = sel_arena_strdup(arena, sel_str_c(ret->message));
        r = ret->error_class && ret->message ? 1 : SEL_ENOMEM;
    }
    sel_parents_unref(parents);
    return r;
}

static int host_exception(void *ctx, const struct sel_task_env *env, struct sel_str run_id,
                          struct sel_arena *arena, struct sel_value *ret, struct sel_error *err)
{
    struct sel_engine *engine = ctx;
    struct failure failure;
    int r = sel_parents_find_failure(env->parents, run_id, &failure.error_class, &failure.message);
    if (r == 0)
        r = env->parents_bytes.n
                ? find_sent_failure(engine, env->parents_bytes, run_id, arena, &failure)
                : find_failure(engine, run_id, &failure);
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){0}, "the parents: %s", sel_error_text(r));
    if (r == 0)
        return sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){0}, "'%.*s' did not fail",
                             SEL_STR_ARG(run_id));
    failure_value(arena, &failure, ret);
    return 0;
}

static void host_log(void *ctx, const struct sel_task_env *env, enum sel_log_level level,
                     struct sel_str text)
{
    struct sel_str name = env->task ? env->task->name : env->flow->name;
    sel_engine_log(ctx, level, "%.*s %s: %.*s", SEL_STR_ARG(name), env->task_id, SEL_STR_ARG(text));
}

static void host_trace(void *ctx, uint32_t event, const struct sel_value *details)
{
    struct sel_engine *engine = ctx;
    sel_tracer_emit(engine->tracer, (enum sel_trace_event)event, details);
}

/* ---- storages ---- */

const char *sel_engine_getenv(void *ctx, const char *name)
{
    const struct sel_executor_options *options = ctx;
    return options->getenv ? options->getenv(options->getenv_ctx, name) : getenv(name);
}

static void echo(void *ctx, bool to_stderr, struct sel_str line)
{
    (void)ctx;
    (void)dprintf(to_stderr ? STDERR_FILENO : STDOUT_FILENO, "%.*s\n", SEL_STR_ARG(line));
}

static void trace_connect(struct sel_engine *engine, const struct sel_storage_def *def,
                          enum sel_trace_event event)
{
    if (!engine->tracer || !sel_engine_is_traced(engine))
        return;
    struct sel_arena arena = {0};
    struct sel_details details;
    sel_details_begin(&details, &arena);
    sel_details_str(&details, "storage_name", def->name);
    struct sel_value value = sel_details_end(&details);
    sel_tracer_emit(engine->tracer, event, &value);
    sel_arena_done(&arena);
}

static int open_adapter(struct sel_engine *engine, const struct sel_storage_def *def,
                        struct sel_storage **ret, struct sel_error *err)
{
    struct sel_storage_options options = {.name = def->name,
                                          .config = &def->config,
                                          .getenv = sel_engine_getenv,
                                          .getenv_ctx = (void *)engine->options,
                                          .echo = echo};
    const struct sel_storage_adapter *adapter =
        sel_storage_find(def->import.module, def->import.name);
    if (adapter)
        return adapter->open(&options, sel_io_blocking(), ret, err);
    if (!engine->options->modules)
        return sel_error_set(
            err, SEL_ENOTFOUND, def->pos, "storage '%.*s': there is no built-in '%.*s' in '%.*s'",
            SEL_STR_ARG(def->name), SEL_STR_ARG(def->import.name), SEL_STR_ARG(def->import.module));
    return sel_module_storage_open(engine->options->modules, engine->system, def, &engine->host,
                                   ret, err);
}

/* A storage for a mock: in memory, or in files if other processes are to see it. */
static int open_mock_storage(struct sel_engine *engine, const struct sel_storage_def *def,
                             struct sel_storage **ret, struct sel_error *err)
{
    const char *folder = engine->options->mock_results;
    struct sel_arena arena = {0};
    struct sel_value_builder map;
    struct sel_value config = sel_value_null;
    struct sel_storage_options options = {.name = def->name, .config = &config};
    const struct sel_storage_adapter *adapter =
        folder ? sel_storage_find(SEL_STR("selinon.storages.filesystem"), SEL_STR("Filesystem"))
               : sel_storage_find(SEL_STR("selinon.storages.memory"), SEL_STR("InMemoryStorage"));
    int r = 0;
    if (folder) {
        const char *path = sel_arena_printf(&arena, "%s/%.*s", folder, SEL_STR_ARG(def->name));
        sel_value_begin_map(&map, &arena);
        sel_value_put_c(&map, "path", sel_value_from_c(path ? path : ""));
        r = path ? sel_value_end(&map, &config) : SEL_ENOMEM;
    }
    sel_engine_log(engine, SEL_LOG_INFO, "storage '%.*s' is kept in %s for the mock",
                   SEL_STR_ARG(def->name), folder ? folder : "memory");
    r = r < 0 ? sel_error_set(err, r, def->pos, "%s", sel_error_text(r))
              : adapter->open(&options, sel_io_blocking(), ret, err);
    sel_arena_done(&arena);
    return r;
}

static bool is_in_memory(const struct sel_storage_def *def)
{
    return sel_storage_find(def->import.module, def->import.name) ==
           sel_storage_find(SEL_STR("selinon.storages.memory"), SEL_STR("InMemoryStorage"));
}

/* With a mock any storage that cannot be had is played by one of ours. */
static int open_storage(struct sel_engine *engine, const struct sel_storage_def *def,
                        struct sel_storage **ret, struct sel_error *err)
{
    const struct sel_executor_options *options = engine->options;
    struct sel_error own = {0};
    int r = SEL_ENOTFOUND;
    if (!options->mock_results || !is_in_memory(def))
        r = open_adapter(engine, def, ret, &own);
    if (options->mock && (r == SEL_ENOTFOUND || r == SEL_EUNSUPPORTED))
        r = open_mock_storage(engine, def, ret, &own);
    if (r < 0)
        return sel_error_set(err, r, own.pos.line ? own.pos : def->pos, "%s", own.text);
    trace_connect(engine, def, SEL_TRACE_STORAGE_CONNECT);
    return 0;
}

int sel_engine_storage(struct sel_engine *engine, uint32_t index, struct sel_storage **ret,
                       struct sel_error *err)
{
    struct sel_storage *storage = __atomic_load_n(&engine->storages[index], __ATOMIC_ACQUIRE);
    int r = 0;
    if (!storage) {
        pthread_mutex_lock(&engine->storage_lock);
        storage = engine->storages[index];
        if (!storage)
            r = open_storage(engine, &engine->system->storages[index], &storage, err);
        if (r == 0)
            __atomic_store_n(&engine->storages[index], storage, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&engine->storage_lock);
    }
    if (r == 0)
        *ret = storage;
    return r;
}

/* ---- code ---- */

static int read_schema(const char *path, struct sel_buf *text, struct sel_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    text->limit = SCHEMA_SIZE_MAX;
    while (n > 0) {
        if (!sel_buf_reserve(text, 65536))
            break;
        n = read(fd, text->p + text->n, text->cap - text->n);
        text->n += n > 0 ? (size_t)n : 0;
    }
    int r = n < 0 ? -errno : sel_buf_error(text);
    if (fd >= 0)
        close(fd);
    return r < 0 ? sel_error_set(err, r, (struct sel_pos){path, 0, 0},
                                 "the output_schema cannot be read: %s", sel_error_text(r))
                 : 0;
}

static int compile_schema(const struct sel_task_def *task, struct sel_schema **ret,
                          struct sel_error *err)
{
    char path[4096];
    struct sel_buf text = {0};
    if (task->output_schema.n == 0)
        return 0;
    int n = snprintf(path, sizeof(path), "%.*s", SEL_STR_ARG(task->output_schema));
    if (n < 0 || (size_t)n >= sizeof(path))
        return sel_error_set(err, SEL_ELIMIT, task->pos, "the path of output_schema is too long");
    struct sel_error own = {0};
    int r = read_schema(path, &text, &own);
    if (r == 0)
        r = sel_schema_compile(path, sel_buf_str(&text), ret, &own);
    sel_buf_done(&text);
    if (r < 0) {
        char place[SEL_ERROR_TEXT_MAX];
        own.pos.file = path;
        (void)sel_error_set(err, r, task->pos, "task '%.*s': %s", SEL_STR_ARG(task->name),
                            sel_error_format(&own, place, sizeof(place)));
    }
    return r;
}

static int prepare_task(struct sel_engine *engine, uint32_t index, struct sel_error *err)
{
    const struct sel_task_def *task = &engine->system->tasks[index];
    struct sel_engine_code *code = &engine->codes[index];
    if (code->ops)
        return 0;
    if (engine->options->mock) {
        code->ops = &sel_runtime_mock;
        code->self = engine->options->mock;
    } else if (sel_str_eq_c(task->import.module, "exec")) {
        code->ops = &sel_runtime_exec;
    } else {
        code->ops = &sel_runtime_module;
        code->self = engine->options->modules;
    }
    int r = code->ops->prepare(code->self, task, &code->code, err);
    if (r == 0)
        r = compile_schema(task, &code->schema, err);
    struct sel_storage *storage;
    if (r == 0 && task->storage != SEL_NONE)
        r = sel_engine_storage(engine, task->storage, &storage, err);
    return r;
}

static int check_function(struct sel_engine *engine, enum sel_module_kind kind,
                          const struct sel_import *import, struct sel_error *err)
{
    const struct sel_module_entry *entry;
    struct sel_error own = {0};
    if (engine->options->mock || import->name.n == 0)
        return 0;
    int r = sel_modules_find(engine->options->modules, kind, import->module, import->name, &entry,
                             &own);
    return r < 0 ? sel_error_set(err, r, import->pos, "%s", own.text) : 0;
}

/* Whether a name is one of ours rather than a module's. */
static bool is_builtin_module(struct sel_str module)
{
    struct sel_str prefix = SEL_STR("selinon.");
    return module.n >= prefix.n && memcmp(module.p, prefix.p, prefix.n) == 0;
}

static int check_flow(struct sel_engine *engine, const struct sel_flow_def *flow,
                      struct sel_error *err)
{
    int r = 0;
    for (uint32_t e = 0; e < flow->edge_count && r == 0; e++) {
        if (flow->edges[e].foreach)
            r = check_function(engine, SEL_MODULE_FOREACH, &flow->edges[e].foreach->function, err);
    }
    if (r == 0 && flow->has_sampling && !is_builtin_module(flow->sampling.module))
        r = check_function(engine, SEL_MODULE_SAMPLING, &flow->sampling, err);
    return r;
}

static int check_selective(struct sel_engine *engine, const struct sel_task_def *task,
                           struct sel_error *err)
{
    const struct sel_import *function = &task->selective_run_function;
    return is_builtin_module(function->module)
               ? 0
               : check_function(engine, SEL_MODULE_SELECTIVE, function, err);
}

static int prepare_flow(struct sel_engine *engine, const struct sel_flow_def *flow,
                        struct sel_error *err)
{
    int r = check_flow(engine, flow, err);
    return r < 0 ? r : sel_engine_open_flow_cache(engine, &engine->caches, flow->index, err);
}

static void warn(struct sel_engine *engine, const char *what, struct sel_str name,
                 const struct sel_error *err)
{
    char text[SEL_ERROR_TEXT_MAX + 128];
    sel_engine_log(engine, SEL_LOG_WARNING, "%s '%.*s': %s", what, SEL_STR_ARG(name),
                   sel_error_format(err, text, sizeof(text)));
}

int sel_engine_check_flow(struct sel_engine *engine, const struct sel_flow_def *flow,
                          struct sel_error *err)
{
    const struct sel_system *s = engine->system;
    int r = check_flow(engine, flow, err);
    for (uint32_t i = 0; i < flow->node_count && r == 0; i++) {
        if (!sel_system_is_flow(s, flow->nodes[i].node))
            r = check_selective(engine, &s->tasks[flow->nodes[i].node], err);
    }
    return r;
}

void sel_engine_prepare_flows(struct sel_engine *engine)
{
    const struct sel_system *s = engine->system;
    struct sel_error err;
    for (uint32_t i = 0; i < s->flow_count; i++) {
        err = (struct sel_error){0};
        if (check_flow(engine, &s->flows[i], &err) < 0)
            warn(engine, "flow", s->flows[i].name, &err);
    }
    for (uint32_t i = 0; i < s->task_count; i++) {
        err = (struct sel_error){0};
        if (check_selective(engine, &s->tasks[i], &err) < 0)
            warn(engine, "task", s->tasks[i].name, &err);
    }
}

/* Prepares everything that `flow` can come to run. */
static int prepare_reachable(struct sel_engine *engine, const struct sel_flow_def *flow,
                             struct sel_error *err)
{
    const struct sel_system *s = engine->system;
    bool *seen = sel_mem_zalloc((size_t)s->flow_count + 1);
    uint32_t *todo = sel_mem_alloc(sizeof(*todo) * ((size_t)s->flow_count + 1));
    uint32_t count = 0;
    int r = seen && todo ? 0 : sel_error_set(err, SEL_ENOMEM, flow->pos, "out of memory");
    if (r == 0) {
        todo[count++] = flow->index;
        seen[flow->index] = true;
    }
    while (count > 0 && r == 0) {
        const struct sel_flow_def *f = &s->flows[todo[--count]];
        r = prepare_flow(engine, f, err);
        for (uint32_t i = 0; i < f->node_count && r == 0; i++) {
            uint32_t node = f->nodes[i].node;
            engine->keeps_failures |= f->choice_count > 0;
            if (!sel_system_is_flow(s, node)) {
                r = prepare_task(engine, node, err);
                if (r == 0)
                    r = sel_engine_open_task_caches(engine, &engine->caches, node, err);
                if (r == 0)
                    r = check_selective(engine, &s->tasks[node], err);
            } else if (!seen[node - s->task_count]) {
                seen[node - s->task_count] = true;
                todo[count++] = node - s->task_count;
            }
        }
    }
    sel_mem_free(seen);
    sel_mem_free(todo);
    return r;
}

static bool is_served(const struct sel_executor_options *options, struct sel_str queue)
{
    bool found = !options->queues;
    for (uint32_t i = 0; i < options->queue_count && !found; i++)
        found = sel_str_eq_c(queue, options->queues[i]);
    return found;
}

/* Prepares all tasks. What is missing matters only to those of queues that are served; others are
 * refused when they come. */
static int prepare_all(struct sel_engine *engine, struct sel_error *err)
{
    const struct sel_system *s = engine->system;
    int r = 0;
    for (uint32_t i = 0; i < s->task_count && r == 0; i++) {
        struct sel_error own = {0};
        char text[SEL_ERROR_TEXT_MAX + 128];
        int done = prepare_task(engine, i, &own);
        if (done == 0)
            continue;
        engine->codes[i].ops = NULL;
        if (is_served(engine->options, s->tasks[i].queue)) {
            r = done;
            if (err)
                *err = own;
        } else {
            sel_engine_log(engine, SEL_LOG_WARNING, "%s",
                           sel_error_format(&own, text, sizeof(text)));
        }
    }
    return r;
}

/* ---- life ---- */

static int64_t unix_us(void *ctx)
{
    struct timespec now;
    (void)ctx;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void observe_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                          int64_t age_us)
{
    const struct sel_executor_observer *observer = ctx;
    observer->trace(observer->ctx, event, details, age_us);
}

static int open_tracer(struct sel_engine *engine, struct sel_error *err)
{
    const struct sel_executor_options *options = engine->options;
    const struct sel_executor_observer *observer = options->observer;
    struct sel_tracer_options tracer = {.system = engine->system,
                                        .modules = options->modules,
                                        .storage = host_storage,
                                        .storage_ctx = engine,
                                        .unix_us = unix_us,
                                        .out_fd = STDOUT_FILENO,
                                        .err_fd = STDERR_FILENO,
                                        .log_info = options->verbosity > 0};
    if (observer && observer->trace) {
        tracer.observer = observe_trace;
        tracer.observer_ctx = (void *)observer;
    }
    int r = sel_tracer_new(&tracer, &engine->tracer, err);
    if (r == 0 && options->modules)
        r = sel_modules_thread_init(options->modules, err); /* it will call trace functions */
    /* storages that the sinks write to came before there was anybody to tell */
    for (uint32_t i = 0; i < engine->system->storage_count && r == 0; i++) {
        if (engine->storages[i])
            trace_connect(engine, &engine->system->storages[i], SEL_TRACE_STORAGE_CONNECT);
    }
    return r;
}

int sel_engine_new(const struct sel_executor_options *options, const struct sel_flow_def *flow,
                   struct sel_engine **ret, struct sel_error *err)
{
    const struct sel_system *system = options->system;
    const struct sel_pos pos = flow ? flow->pos : (struct sel_pos){0};
    struct sel_engine *engine = SEL_NEW(struct sel_engine);
    if (!engine)
        return sel_error_set(err, SEL_ENOMEM, pos, "out of memory");
    engine->options = options;
    engine->system = system;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_mutex_init(&engine->storage_lock, NULL);
    pthread_mutex_init(&engine->shared_caches.lock, NULL);
    engine->host = (struct sel_task_host){.ctx = engine,
                                          .parents = host_parents,
                                          .storage = host_storage,
                                          .exception = host_exception,
                                          .log = host_log,
                                          .trace = host_trace};
    engine->codes = sel_mem_zalloc(sizeof(*engine->codes) * ((size_t)system->task_count + 1));
    engine->storages =
        sel_mem_zalloc(sizeof(*engine->storages) * ((size_t)system->storage_count + 1));
    engine->failures = SEL_NEW(struct sel_failure_table);
    int cached = sel_engine_caches_init(engine, &engine->caches);
    if (cached == 0)
        cached = -pthread_key_create(&engine->caches_key, NULL);
    engine->has_caches_key = cached == 0;
    int r = cached == 0 && engine->codes && engine->storages && engine->failures
                ? 0
                : sel_error_set(err, SEL_ENOMEM, pos, "out of memory");
    if (r == 0)
        r = open_tracer(engine, err);
    if (r == 0)
        engine->host.tracing = sel_tracer_is_on(engine->tracer);
    /* Trace events tell what nodes failed with, as fallbacks do. Runs of a worker are told by the
     * broker: what is kept here would only grow. */
    engine->keeps_failures = flow && engine->host.tracing;
    if (r == 0)
        r = flow ? prepare_reachable(engine, flow, err) : prepare_all(engine, err);
    if (r < 0) {
        sel_engine_free(engine);
        return r;
    }
    if (system->migration_dir.n > 0)
        sel_engine_log(engine, SEL_LOG_WARNING,
                       "migration_dir is configured; this version applies no migrations");
    *ret = engine;
    return 0;
}

struct sel_engine *sel_engine_free(struct sel_engine *engine)
{
    if (!engine)
        return NULL;
    for (uint32_t i = 0; engine->codes && i < engine->system->task_count; i++)
        sel_schema_free(engine->codes[i].schema);
    for (uint32_t i = 0; engine->storages && i < engine->system->storage_count; i++) {
        if (engine->storages[i] && engine->tracer)
            trace_connect(engine, &engine->system->storages[i], SEL_TRACE_STORAGE_DISCONNECT);
    }
    sel_engine_caches_done(engine, &engine->caches);
    if (engine->has_caches_key)
        (void)pthread_key_delete(engine->caches_key); /* it is one */
    engine->tracer = sel_tracer_free(engine->tracer); /* it may still write to storages */
    for (uint32_t i = 0; engine->storages && i < engine->system->storage_count; i++) {
        if (engine->storages[i])
            engine->storages[i]->ops->close(engine->storages[i]);
    }
    sel_mem_free(engine->storages);
    sel_mem_free(engine->codes);
    failures_free(engine->failures);
    sel_arena_done(&engine->report_arena);
    pthread_mutex_destroy(&engine->lock);
    pthread_mutex_destroy(&engine->storage_lock);
    pthread_mutex_destroy(&engine->shared_caches.lock);
    return sel_mem_free(engine);
}
