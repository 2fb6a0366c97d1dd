/* Result caches of a hub: of a task, else of its storage. They are used by decisions only. */
#include "core/mem.h"
#include "worker/hub.h"

static int open_cache(struct sel_hub *hub, const struct sel_cache_def *def, struct sel_cache **ret,
                      struct sel_error *err)
{
    enum sel_cache_kind kind;
    struct sel_error own = {0};
    uint32_t size;
    if (def->import.name.n == 0)
        return 0;
    if (!sel_cache_find(def->import.module, def->import.name, &kind)) {
        sel_engine_log(hub->engine, SEL_LOG_WARNING,
                       "cache '%.*s' of '%.*s' is none of the built-in ones: results are taken "
                       "from the storage",
                       SEL_STR_ARG(def->import.name), SEL_STR_ARG(def->import.module));
        return 0;
    }
    int r = sel_cache_size_from_config(&def->config, &size, &own);
    if (r < 0)
        return sel_error_set(err, r, def->import.pos, "cache: %s", own.text);
    if (size == 0)
        return 0;
    *ret = sel_cache_new(kind, size, 1);
    return *ret ? 0 : sel_error_set(err, SEL_ENOMEM, def->import.pos, "out of memory");
}

int sel_hub_caches_init(struct sel_hub *hub, struct sel_error *err)
{
    const struct sel_system *s = hub->system;
    hub->task_caches = sel_mem_zalloc(sizeof(*hub->task_caches) * ((size_t)s->task_count + 1));
    hub->storage_caches =
        sel_mem_zalloc(sizeof(*hub->storage_caches) * ((size_t)s->storage_count + 1));
    if (!hub->task_caches || !hub->storage_caches)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    int r = 0;
    for (uint32_t i = 0; i < s->task_count && r == 0; i++)
        r = open_cache(hub, &s->tasks[i].cache, &hub->task_caches[i], err);
    for (uint32_t i = 0; i < s->storage_count && r == 0; i++)
        r = open_cache(hub, &s->storages[i].cache, &hub->storage_caches[i], err);
    return r;
}

void sel_hub_caches_done(struct sel_hub *hub)
{
    for (uint32_t i = 0; hub->task_caches && i < hub->system->task_count; i++)
        sel_cache_free(hub->task_caches[i]);
    for (uint32_t i = 0; hub->storage_caches && i < hub->system->storage_count; i++)
        sel_cache_free(hub->storage_caches[i]);
    hub->task_caches = sel_mem_free(hub->task_caches);
    hub->storage_caches = sel_mem_free(hub->storage_caches);
}

struct sel_cache *sel_hub_result_cache(struct sel_hub *hub, const struct sel_task_def *task)
{
    struct sel_cache *own = hub->task_caches[task - hub->system->tasks];
    if (own || task->storage == SEL_NONE)
        return own;
    return hub->storage_caches[task->storage];
}
