/* A cache of a module (include/selinon/storage.h) as the engine sees caches. Its table was checked
 * when the module was loaded. */
#include "core/buf.h"
#include "core/mem.h"
#include "worker/module.h"
#include "worker/result_cache.h"

struct module_cache {
    struct sel_result_cache base; /* first */
    const struct sel_cache_ops *module;
    void *self;
    const struct sel_system *system;
    const struct sel_task_host *host;
    const struct sel_cache_def *def;
    struct sel_flow_def context; /* functions of a cache run for no flow: it has its name */
};

/* One call into the module. */
struct call {
    struct sel_task_env env;
    struct sel_task *task;
};

static int begin(const struct module_cache *c, struct sel_arena *arena, struct call *call,
                 struct sel_error *err)
{
    call->env = (struct sel_task_env){.system = c->system,
                                      .host = c->host,
                                      .flow = &c->context,
                                      .task_id = "",
                                      .dispatcher_id = "",
                                      .args = {(const char *)sel_value_null_bytes, 1}};
    call->task = sel_task_new(arena, &call->env);
    return call->task ? 0 : sel_error_set(err, SEL_ENOMEM, c->def->import.pos, "out of memory");
}

static int end(const struct module_cache *c, struct call *call, int code, const char *what,
               struct sel_error *err)
{
    struct sel_exec_result result;
    sel_task_take_result(call->task, code, &result);
    sel_task_done(call->task);
    if (result.outcome == SEL_EXEC_CANCELED)
        return sel_error_set(err, SEL_ECANCELED, c->def->import.pos, "cancelled");
    if (result.outcome != SEL_EXEC_SUCCESS)
        return sel_error_set(err, SEL_ESTORAGE, c->def->import.pos, "%.*s: %s: %s: %s",
                             SEL_STR_ARG(c->def->import.name), what, result.error_class,
                             result.error_message);
    return 0;
}

/* Texts for the module are terminated. */
static int begin_with_id(const struct module_cache *c, struct sel_arena *arena, struct sel_str id,
                         struct call *call, const char **ret_id, struct sel_error *err)
{
    *ret_id = sel_arena_strdup(arena, id);
    if (!*ret_id)
        return sel_error_set(err, SEL_ENOMEM, c->def->import.pos, "out of memory");
    return begin(c, arena, call, err);
}

static int encode(struct sel_arena *arena, const struct sel_value *value, struct sel_str *ret)
{
    struct sel_buf bytes = {0};
    sel_value_encode(value, &bytes);
    int r = sel_buf_error(&bytes);
    void *copy = r < 0 ? NULL : sel_arena_memdup(arena, bytes.p, bytes.n);
    *ret = (struct sel_str){copy, bytes.n};
    sel_buf_done(&bytes);
    return r < 0 ? r : copy ? 0 : SEL_ENOMEM;
}

static int module_get(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                      struct sel_str *ret, struct sel_error *err)
{
    struct module_cache *c = (struct module_cache *)cache;
    const struct sel_value *value = NULL;
    struct call call;
    const char *text;
    int r = begin_with_id(c, arena, id, &call, &text, err);
    if (r < 0)
        return r;
    int code = c->module->get(call.task, c->self, text, &value);
    int encoded = code > 0 ? encode(arena, value, ret) : 0;
    r = end(c, &call, code, "get", err);
    if (r == 0 && encoded < 0)
        r = sel_error_set(err, encoded, c->def->import.pos, "%.*s: get: %s",
                          SEL_STR_ARG(c->def->import.name), sel_error_text(encoded));
    return r < 0 ? r : code > 0;
}

static int module_add(struct sel_result_cache *cache, struct sel_arena *arena, struct sel_str id,
                      struct sel_str item, struct sel_error *err)
{
    struct module_cache *c = (struct module_cache *)cache;
    struct sel_value value;
    struct call call;
    const char *text = NULL;
    int r = sel_value_decode(arena, item.p, item.n, false, &value, err);
    if (r == 0)
        r = begin_with_id(c, arena, id, &call, &text, err);
    if (r < 0)
        return r;
    return end(c, &call, c->module->add(call.task, c->self, text, &value), "add", err);
}

static void module_close(struct sel_result_cache *cache)
{
    struct module_cache *c = (struct module_cache *)cache;
    c->module->close(c->self);
    sel_mem_free(c);
}

static const struct sel_result_cache_ops module_ops = {
    .get = module_get, .add = module_add, .close = module_close};

static int open_self(struct module_cache *c, struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct call call;
    int r = begin(c, &arena, &call, err);
    if (r == 0)
        r = end(c, &call, c->module->open(call.task, &c->def->config, &c->self), "open", err);
    sel_arena_done(&arena);
    return r;
}

int sel_module_cache_open(const struct sel_result_cache_options *options,
                          const struct sel_cache_def *def, struct sel_result_cache **ret,
                          struct sel_error *err)
{
    const struct sel_module_entry *entry;
    int r = sel_modules_find(options->modules, SEL_MODULE_CACHE, def->import.module,
                             def->import.name, &entry, err);
    if (r == 0)
        r = sel_modules_thread_init(options->modules, err);
    if (r < 0)
        return r;
    struct module_cache *c = SEL_NEW(struct module_cache);
    if (!c)
        return sel_error_set(err, SEL_ENOMEM, def->import.pos, "out of memory");
    c->base.ops = &module_ops;
    c->module = entry->u.cache;
    c->system = options->system;
    c->host = options->host;
    c->def = def;
    c->context.name = def->import.name;
    r = open_self(c, err);
    if (r < 0) {
        sel_mem_free(c);
        return r;
    }
    *ret = &c->base;
    return 0;
}
