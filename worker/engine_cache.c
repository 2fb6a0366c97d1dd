/* The caches of an engine: of results, by task or by storage, and of the states of nodes, by flow.
 * A set of them belongs to one thread: the executor's hub, or one of a worker that decides. */
#include "core/mem.h"
#include "worker/engine.h"
#include "worker/result_cache.h"

int sel_engine_caches_init(struct sel_engine *engine, struct sel_engine_caches *c)
{
    const struct sel_system *s = engine->system;
    c->tasks = sel_mem_zalloc(sizeof(*c->tasks) * ((size_t)s->task_count + 1));
    c->storages = sel_mem_zalloc(sizeof(*c->storages) * ((size_t)s->storage_count + 1));
    c->flows = sel_mem_zalloc(sizeof(*c->flows) * ((size_t)s->flow_count + 1));
    return c->tasks && c->storages && c->flows ? 0 : SEL_ENOMEM;
}

static void close_all(struct sel_result_cache **caches, uint32_t count)
{
    for (uint32_t i = 0; caches && i < count; i++)
        sel_result_cache_close(caches[i]);
    sel_mem_free(caches);
}

void sel_engine_caches_done(struct sel_engine *engine, struct sel_engine_caches *c)
{
    const struct sel_system *s = engine->system;
    close_all(c->tasks, s->task_count);
    close_all(c->storages, s->storage_count);
    close_all(c->flows, s->flow_count);
    *c = (struct sel_engine_caches){0};
}

/* With a mock, a cache that cannot be had is left out. */
static int open_cache(struct sel_engine *engine, const struct sel_cache_def *def,
                      struct sel_result_cache **cache, struct sel_error *err)
{
    const struct sel_result_cache_options options = {.system = engine->system,
                                                     .modules = engine->options->modules,
                                                     .host = &engine->host,
                                                     .getenv = sel_engine_getenv,
                                                     .getenv_ctx = (void *)engine->options,
                                                     .shared = &engine->shared_caches};
    struct sel_error own = {0};
    if (*cache) /* of a storage that another task has too */
        return 0;
    int r = sel_result_cache_open(&options, def, cache, &own);
    if (engine->options->mock && (r == SEL_ENOTFOUND || r == SEL_EUNSUPPORTED)) {
        sel_engine_log(engine, SEL_LOG_INFO, "left out for the mock: %s", own.text);
        return 0;
    }
    return r < 0 ? sel_error_set(err, r, own.pos, "%s", own.text) : 0;
}

int sel_engine_open_task_caches(struct sel_engine *engine, struct sel_engine_caches *caches,
                                uint32_t task, struct sel_error *err)
{
    const struct sel_task_def *def = &engine->system->tasks[task];
    int r = open_cache(engine, &def->cache, &caches->tasks[task], err);
    if (r < 0 || def->storage == SEL_NONE)
        return r;
    return open_cache(engine, &engine->system->storages[def->storage].cache,
                      &caches->storages[def->storage], err);
}

int sel_engine_open_flow_cache(struct sel_engine *engine, struct sel_engine_caches *caches,
                               uint32_t flow, struct sel_error *err)
{
    return open_cache(engine, &engine->system->flows[flow].cache, &caches->flows[flow], err);
}

/* ---- of the threads of a worker ---- */

static int open_all(struct sel_engine *engine, struct sel_engine_caches *caches,
                    struct sel_error *err)
{
    const struct sel_system *s = engine->system;
    int r = 0;
    for (uint32_t i = 0; i < s->task_count && r == 0; i++)
        r = sel_engine_open_task_caches(engine, caches, i, err);
    for (uint32_t i = 0; i < s->flow_count && r == 0; i++)
        r = sel_engine_open_flow_cache(engine, caches, i, err);
    return r;
}

int sel_engine_open_caches(struct sel_engine *engine, struct sel_error *err)
{
    struct sel_engine_caches *caches = SEL_NEW(struct sel_engine_caches);
    int r = caches ? sel_engine_caches_init(engine, caches) : SEL_ENOMEM;
    if (r == 0)
        r = -pthread_setspecific(engine->caches_key, caches);
    if (r < 0) {
        if (caches)
            sel_engine_caches_done(engine, caches);
        sel_mem_free(caches);
        return sel_error_set(err, r, (struct sel_pos){0}, "caches: %s", sel_error_text(r));
    }
    r = open_all(engine, caches, err);
    if (r < 0)
        sel_engine_close_caches(engine);
    return r;
}

void sel_engine_close_caches(struct sel_engine *engine)
{
    struct sel_engine_caches *caches = pthread_getspecific(engine->caches_key);
    if (!caches)
        return;
    (void)pthread_setspecific(engine->caches_key, NULL); /* needs no memory */
    sel_engine_caches_done(engine, caches);
    sel_mem_free(caches);
}

static const struct sel_engine_caches *caches_here(const struct sel_engine *engine)
{
    const struct sel_engine_caches *own = pthread_getspecific(engine->caches_key);
    return own ? own : &engine->caches;
}

/* ---- looking ---- */

struct sel_result_cache *sel_engine_result_cache(const struct sel_engine *engine,
                                                 const struct sel_task_def *task)
{
    const struct sel_engine_caches *caches = caches_here(engine);
    struct sel_result_cache *own = caches->tasks[task - engine->system->tasks];
    if (own || task->storage == SEL_NONE)
        return own;
    return caches->storages[task->storage];
}

struct sel_result_cache *sel_engine_state_cache(const struct sel_engine *engine,
                                                const struct sel_flow_def *flow)
{
    return caches_here(engine)->flows[flow->index];
}
