#include "worker/module_storage.h"

#include "core/arena.h"
#include "core/buf.h"
#include "core/mem.h"
#include "worker/module.h"

struct module_storage {
    struct sel_storage base;      /* first */
    struct sel_storage_ops_i ops; /* those that the module has */
    const struct sel_storage_ops *module;
    void *self;
    const struct sel_system *system;
    const struct sel_storage_def *def;
    const struct sel_task_host *host;
    struct sel_flow_def context; /* functions of a storage run for no flow: it has its name */
};

/* One call into the module. */
struct call {
    struct sel_task_env env;
    struct sel_task *task;
};

static int begin(const struct module_storage *s, struct sel_arena *arena, struct call *call,
                 struct sel_error *err)
{
    call->env = (struct sel_task_env){.system = s->system,
                                      .host = s->host,
                                      .flow = &s->context,
                                      .task_id = "",
                                      .dispatcher_id = "",
                                      .args = {(const char *)sel_value_null_bytes, 1}};
    call->task = sel_task_new(arena, &call->env);
    return call->task ? 0 : sel_error_set(err, SEL_ENOMEM, s->def->pos, "out of memory");
}

static int end(const struct module_storage *s, struct call *call, int code, const char *what,
               struct sel_error *err)
{
    struct sel_exec_result result;
    sel_task_take_result(call->task, code, &result);
    sel_task_done(call->task);
    if (result.outcome == SEL_EXEC_CANCELED)
        return sel_error_set(err, SEL_ECANCELED, s->def->pos, "cancelled");
    if (result.outcome != SEL_EXEC_SUCCESS)
        return sel_error_set(err, SEL_ESTORAGE, s->def->pos, "storage '%.*s': %s: %s: %s",
                             SEL_STR_ARG(s->def->name), what, result.error_class,
                             result.error_message);
    return 0;
}

/* ---- items to records and back ---- */

static int decode(struct sel_arena *arena, struct sel_str bytes, const struct sel_value **ret)
{
    struct sel_value *value = SEL_ARENA_NEW(arena, struct sel_value);
    if (!value)
        return SEL_ENOMEM;
    *ret = value;
    return bytes.n ? sel_value_decode(arena, bytes.p, bytes.n, false, value, NULL) : 0;
}

static const struct sel_value *error_value(struct sel_arena *arena,
                                           const struct sel_storage_item *item)
{
    struct sel_value *value = SEL_ARENA_NEW(arena, struct sel_value);
    struct sel_value_builder map;
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "class", sel_value_from_str(item->error_class));
    sel_value_put_c(&map, "message", sel_value_from_str(item->error_message));
    return value && sel_value_end(&map, value) == 0 ? value : NULL;
}

static int to_record(struct sel_arena *arena, const struct sel_storage_item *item, bool with_value,
                     struct sel_record *record)
{
    record->flow = sel_arena_strdup(arena, item->flow);
    record->task = sel_arena_strdup(arena, item->task);
    record->id = sel_arena_strdup(arena, item->id);
    if (!record->flow || !record->task || !record->id)
        return SEL_ENOMEM;
    int r = decode(arena, item->node_args, &record->node_args);
    if (r == 0 && with_value)
        r = decode(arena, item->value, &record->value);
    if (r == 0 && item->error_class.p && !(record->error = error_value(arena, item)))
        r = SEL_ENOMEM;
    return r;
}

static int from_record(struct sel_arena *arena, const struct sel_record *record, bool with_value,
                       struct sel_storage_item *item)
{
    bool is_known = record->status >= SEL_STORE_OK && record->status <= SEL_STORE_FAILED;
    item->status = is_known ? record->status : SEL_STORE_FAILED;
    item->message = is_known ? record->message : "the storage set no status that there is";
    item->record_id = sel_str_c(record->record_id);
    if (!with_value || record->status != SEL_STORE_OK)
        return 0;
    struct sel_buf bytes = {0};
    sel_value_encode(record->value ? record->value : &sel_value_null, &bytes);
    void *copy = bytes.failed ? NULL : sel_arena_memdup(arena, bytes.p, bytes.n);
    item->value = (struct sel_str){copy, bytes.n};
    sel_buf_done(&bytes);
    return copy ? 0 : SEL_ENOMEM;
}

/* ---- operations ---- */

typedef int (*module_fn)(struct sel_task *task, void *self, struct sel_record *items,
                         uint32_t count);

struct operation {
    const char *name;
    module_fn fn;
    bool takes_value, gives_value;
};

static int run(struct sel_storage *storage, struct sel_arena *arena, struct sel_storage_item *items,
               uint32_t count, const struct operation *op, struct sel_error *err)
{
    struct module_storage *s = (struct module_storage *)storage;
    struct sel_record *records = SEL_ARENA_NEW_ARRAY(arena, struct sel_record, count);
    struct call call;
    int r = records ? 0 : SEL_ENOMEM;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = to_record(arena, &items[i], op->takes_value, &records[i]);
    if (r < 0)
        return sel_error_set(err, r, s->def->pos, "storage '%.*s': %s: %s",
                             SEL_STR_ARG(s->def->name), op->name, sel_error_text(r));
    r = begin(s, arena, &call, err);
    if (r < 0)
        return r;
    int code = op->fn(call.task, s->self, records, count);
    for (uint32_t i = 0; i < count && code >= 0 && r == 0; i++)
        r = from_record(arena, &records[i], op->gives_value, &items[i]);
    int ended = end(s, &call, code, op->name, err);
    return ended < 0 ? ended : r;
}

static int module_retrieve(struct sel_storage *storage, struct sel_io *io, struct sel_arena *arena,
                           struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    const struct module_storage *s = (struct module_storage *)storage;
    struct operation op = {"retrieve", s->module->retrieve, false, true};
    (void)io;
    return run(storage, arena, items, count, &op, err);
}

static int module_store(struct sel_storage *storage, struct sel_io *io, struct sel_arena *arena,
                        struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    const struct module_storage *s = (struct module_storage *)storage;
    struct operation op = {"store", s->module->store, true, false};
    (void)io;
    return run(storage, arena, items, count, &op, err);
}

static int module_put_error(struct sel_storage *storage, struct sel_io *io, struct sel_arena *arena,
                            struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    const struct module_storage *s = (struct module_storage *)storage;
    struct operation op = {"store_error", s->module->store_error, false, false};
    (void)io;
    return run(storage, arena, items, count, &op, err);
}

static int module_del(struct sel_storage *storage, struct sel_io *io, struct sel_arena *arena,
                      struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    const struct module_storage *s = (struct module_storage *)storage;
    struct operation op = {"delete", s->module->del, false, false};
    (void)io;
    return run(storage, arena, items, count, &op, err);
}

static int trace_event(struct module_storage *s, const struct sel_storage_event *event,
                       struct sel_error *err)
{
    struct sel_arena arena = {0};
    const struct sel_value *value;
    struct call call;
    char *name = sel_arena_strdup(&arena, event->name);
    int r = name ? decode(&arena, event->details, &value) : SEL_ENOMEM;
    if (r == 0)
        r = begin(s, &arena, &call, err);
    if (r == 0)
        r = end(s, &call, s->module->trace(call.task, s->self, name, value), "trace", err);
    sel_arena_done(&arena);
    return r;
}

static int module_trace(struct sel_storage *storage, struct sel_io *io,
                        const struct sel_storage_event *events, uint32_t count,
                        struct sel_error *err)
{
    int r = 0;
    (void)io;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = trace_event((struct module_storage *)storage, &events[i], err);
    return r;
}

static void module_close(struct sel_storage *storage)
{
    struct module_storage *s = (struct module_storage *)storage;
    if (s->module->close)
        s->module->close(s->self);
    sel_mem_free(s);
}

/* ---- opening ---- */

static int check_ops(const struct sel_storage_ops *ops, const struct sel_storage_def *def,
                     struct sel_error *err)
{
    if (ops->size < sizeof(*ops))
        return sel_error_set(err, SEL_EVERSION, def->pos,
                             "storage '%.*s': its table is of %zu bytes, this version expects %zu",
                             SEL_STR_ARG(def->name), ops->size, sizeof(*ops));
    if (!ops->open || !ops->retrieve || !ops->store || !ops->del)
        return sel_error_set(err, SEL_EFORMAT, def->pos,
                             "storage '%.*s': its table lacks open, retrieve, store or del",
                             SEL_STR_ARG(def->name));
    return 0;
}

static int open_module(struct module_storage *s, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct call call;
    int r = begin(s, &arena, &call, err);
    if (r == 0)
        r = end(s, &call, s->module->open(call.task, &s->def->config, &s->self), "open", err);
    sel_arena_done(&arena);
    return r;
}

int sel_module_storage_open(struct sel_modules *modules, const struct sel_system *system,
                            const struct sel_storage_def *def, const struct sel_task_host *host,
                            struct sel_storage **ret, struct sel_error *err)
{
    const struct sel_module_entry *entry;
    int r = sel_modules_find(modules, SEL_MODULE_STORAGE, def->import.module, def->import.name,
                             &entry, err);
    if (r == 0)
        r = check_ops(entry->u.storage, def, err);
    if (r == 0)
        r = sel_modules_thread_init(modules, err);
    if (r < 0)
        return r;
    struct module_storage *s = SEL_NEW(struct module_storage);
    if (!s)
        return sel_error_set(err, SEL_ENOMEM, def->pos, "out of memory");
    s->module = entry->u.storage;
    s->system = system;
    s->def = def;
    s->host = host;
    s->context.name = def->name;
    s->ops =
        (struct sel_storage_ops_i){.retrieve = module_retrieve,
                                   .store = module_store,
                                   .put_error = s->module->store_error ? module_put_error : NULL,
                                   .del = module_del,
                                   .trace = s->module->trace ? module_trace : NULL,
                                   .close = module_close};
    s->base.ops = &s->ops;
    r = open_module(s, err);
    if (r < 0) {
        sel_mem_free(s);
        return r;
    }
    *ret = &s->base;
    return 0;
}
