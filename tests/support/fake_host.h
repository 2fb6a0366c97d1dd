/* tests/support/fake_host.h - a system of a few tasks and a host with canned parents and records,
 * for tests of task code without an engine.
 *
 *   tasks     T (storage Main, kept as T_kept), N (no storage), B (blocking), X (an executable)
 *   storages  Main, Other
 *   ids       "missing" has no record, "broken" cannot be read, "trouble" fails the whole call,
 *             "foreign" holds bytes that are no value; any other id gives {"id": <id>} */
#ifndef SEL_TESTS_FAKE_HOST_H
#define SEL_TESTS_FAKE_HOST_H

#include "core/trace.h"
#include "tests/support/test.h"
#include "worker/exec.h"
#include "worker/task_internal.h"

struct sel_fake {
    struct sel_arena arena;
    struct sel_system system;
    struct sel_task_def tasks[4];
    struct sel_flow_def flow;
    struct sel_storage_def storages[2];
    struct sel_storage storage;
    struct sel_task_host host;
    struct sel_task_env env;
    const char *parents, *failed_parents; /* JSON; NULL: the host reports an error */
    struct sel_buf trace;                 /* "NUMBER details\n" */
    struct sel_buf log;                   /* "LEVEL text\n" */
    struct sel_buf stored;                /* "flow/task/id=json\n" */
    bool is_closed;                       /* the storage cannot be opened */
    const char *cached;                   /* JSON that the cache answers; NULL: a miss */
    int cache_result;                     /* < 0: the cache has trouble */
};

enum { SEL_FAKE_T, SEL_FAKE_N, SEL_FAKE_B, SEL_FAKE_X };

static inline struct sel_fake *sel_fake_of_storage(struct sel_storage *s)
{
    return (struct sel_fake *)((char *)s - offsetof(struct sel_fake, storage));
}

static inline struct sel_str sel_fake_encode(struct sel_arena *arena, const struct sel_value *v)
{
    struct sel_buf buf = {0};
    sel_value_encode(v, &buf);
    assert_ok(sel_buf_error(&buf));
    struct sel_str bytes = {sel_arena_memdup(arena, buf.p, buf.n), buf.n};
    sel_buf_done(&buf);
    assert_non_null(bytes.p);
    return bytes;
}

static inline int sel_fake_status(struct sel_storage_item *item, struct sel_error *err)
{
    item->status = SEL_STORE_OK;
    if (sel_str_eq_c(item->id, "trouble"))
        return sel_error_set(err, SEL_ESTORAGE, (struct sel_pos){0}, "the disk is on fire");
    if (sel_str_eq_c(item->id, "missing"))
        item->status = SEL_STORE_MISSING;
    if (sel_str_eq_c(item->id, "exists"))
        item->status = SEL_STORE_EXISTS;
    if (sel_str_eq_c(item->id, "broken")) {
        item->status = SEL_STORE_FAILED;
        item->message = "checksum";
    }
    return 0;
}

static inline int sel_fake_retrieve(struct sel_storage *s, struct sel_io *io,
                                    struct sel_arena *arena, struct sel_storage_item *items,
                                    uint32_t count, struct sel_error *err)
{
    (void)s;
    assert_non_null(io);
    assert_int_equal(count, 1);
    int r = sel_fake_status(items, err);
    if (r == 0 && sel_str_eq_c(items->id, "foreign")) {
        items->value = SEL_STR("\xc1");
    } else if (r == 0 && items->status == SEL_STORE_OK) {
        struct sel_value_builder b;
        struct sel_value v;
        sel_value_begin_map(&b, arena);
        sel_value_put_c(&b, "id", sel_value_from_str(items->id));
        assert_ok(sel_value_end(&b, &v));
        items->value = sel_fake_encode(arena, &v);
    }
    return r;
}

static inline int sel_fake_store(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                                 struct sel_storage_item *items, uint32_t count,
                                 struct sel_error *err)
{
    struct sel_fake *fake = sel_fake_of_storage(s);
    assert_non_null(io);
    assert_int_equal(count, 1);
    int r = sel_fake_status(items, err);
    if (r < 0 || items->status != SEL_STORE_OK)
        return r;
    struct sel_value v;
    assert_ok(sel_value_decode(arena, items->value.p, items->value.n, false, &v, NULL));
    sel_buf_printf(&fake->stored, "%.*s/%.*s/%.*s=%s\n", SEL_STR_ARG(items->flow),
                   SEL_STR_ARG(items->task), SEL_STR_ARG(items->id), sel_test_json_text(arena, &v));
    items->record_id = SEL_STR("record-1");
    return 0;
}

static inline int sel_fake_del(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                               struct sel_storage_item *items, uint32_t count,
                               struct sel_error *err)
{
    (void)s;
    (void)io;
    (void)arena;
    assert_int_equal(count, 1);
    return sel_fake_status(items, err);
}

static inline int sel_fake_parents(void *ctx, const struct sel_task_env *env, bool failed,
                                   struct sel_arena *arena, struct sel_value *ret,
                                   struct sel_error *err)
{
    struct sel_fake *fake = ctx;
    assert_ptr_equal(env, &fake->env);
    const char *json = failed ? fake->failed_parents : fake->parents;
    if (!json)
        return sel_error_set(err, SEL_ESTATE, (struct sel_pos){0}, "the flow is gone");
    *ret = sel_test_json(arena, json);
    return 0;
}

static inline int sel_fake_storage(void *ctx, uint32_t index, struct sel_storage **ret,
                                   struct sel_error *err)
{
    struct sel_fake *fake = ctx;
    assert_true(index < 2);
    if (fake->is_closed)
        return sel_error_set(err, SEL_ESTORAGE, (struct sel_pos){0}, "no route to it");
    *ret = &fake->storage;
    return 0;
}

static inline int sel_fake_exception(void *ctx, const struct sel_task_env *env,
                                     struct sel_str run_id, struct sel_arena *arena,
                                     struct sel_value *ret, struct sel_error *err)
{
    (void)ctx, (void)env;
    if (sel_str_eq_c(run_id, "fine"))
        return SEL_ENOTFOUND;
    if (sel_str_eq_c(run_id, "trouble"))
        return sel_error_set(err, SEL_ESTATE, (struct sel_pos){0}, "the flow is gone");
    *ret = sel_test_json(arena, "{\"class\": \"Boom\", \"message\": \"it went off\"}");
    return 0;
}

static inline void sel_fake_log(void *ctx, const struct sel_task_env *env, enum sel_log_level level,
                                struct sel_str text)
{
    struct sel_fake *fake = ctx;
    assert_ptr_equal(env, &fake->env);
    sel_buf_printf(&fake->log, "%d %.*s\n", (int)level, SEL_STR_ARG(text));
}

static inline void sel_fake_trace(void *ctx, uint32_t event, const struct sel_value *details)
{
    struct sel_fake *fake = ctx;
    struct sel_arena arena = {0};
    sel_buf_printf(&fake->trace, "%s %s\n", sel_trace_name(event),
                   sel_test_json_text(&arena, details));
    sel_arena_done(&arena);
}

static inline int sel_fake_cache_get(void *ctx, uint32_t index, struct sel_str run_id,
                                     struct sel_arena *arena, struct sel_str *ret,
                                     struct sel_error *err)
{
    struct sel_fake *fake = ctx;
    (void)index;
    (void)run_id;
    if (fake->cache_result < 0)
        return sel_error_set(err, fake->cache_result, (struct sel_pos){0}, "cache is ill");
    if (!fake->cached)
        return 0;
    struct sel_value v = sel_test_json(arena, fake->cached);
    *ret = sel_fake_encode(arena, &v);
    return 1;
}

static inline int sel_fake_cache_add(void *ctx, uint32_t index, struct sel_str run_id,
                                     struct sel_str value, struct sel_error *err)
{
    struct sel_fake *fake = ctx;
    (void)index;
    (void)run_id;
    (void)value;
    if (fake->cache_result < 0)
        return sel_error_set(err, fake->cache_result, (struct sel_pos){0}, "cache is ill");
    return 0;
}

static const struct sel_storage_ops_i sel_fake_storage_ops = {
    .retrieve = sel_fake_retrieve, .store = sel_fake_store, .del = sel_fake_del};

static inline void sel_fake_init(struct sel_fake *fake)
{
    *fake = (struct sel_fake){0};
    fake->parents = fake->failed_parents = "{}";
    fake->tasks[SEL_FAKE_T] = (struct sel_task_def){
        .name = SEL_STR("T"), .storage_task_name = SEL_STR("T_kept"), .storage = 0};
    fake->tasks[SEL_FAKE_N] = (struct sel_task_def){
        .name = SEL_STR("N"), .storage_task_name = SEL_STR("N"), .storage = SEL_NONE};
    fake->tasks[SEL_FAKE_B] = (struct sel_task_def){.name = SEL_STR("B"),
                                                    .storage_task_name = SEL_STR("B"),
                                                    .storage = SEL_NONE,
                                                    .blocking = true};
    fake->tasks[SEL_FAKE_X] = (struct sel_task_def){
        .name = SEL_STR("X"), .storage_task_name = SEL_STR("X"), .storage = SEL_NONE};
    fake->flow.name = SEL_STR("F");
    fake->storages[0].name = SEL_STR("Main");
    fake->storages[0].config = sel_test_json(&fake->arena, "{\"retry_seconds\": 5}");
    fake->storages[1].name = SEL_STR("Other");
    fake->system = (struct sel_system){.tasks = fake->tasks,
                                       .task_count = 4,
                                       .flows = &fake->flow,
                                       .flow_count = 1,
                                       .storages = fake->storages,
                                       .storage_count = 2};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(sel_map_add(&fake->system.nodes, fake->tasks[i].name, i, NULL), 1);
    assert_int_equal(sel_map_add(&fake->system.nodes, fake->flow.name, 4, NULL), 1);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(sel_map_add(&fake->system.storage_names, fake->storages[i].name, i, NULL),
                         1);
    fake->storage.ops = &sel_fake_storage_ops;
    fake->host = (struct sel_task_host){.ctx = fake,
                                        .parents = sel_fake_parents,
                                        .storage = sel_fake_storage,
                                        .exception = sel_fake_exception,
                                        .log = sel_fake_log,
                                        .trace = sel_fake_trace};
    fake->env = (struct sel_task_env){.system = &fake->system,
                                      .host = &fake->host,
                                      .task = &fake->tasks[SEL_FAKE_T],
                                      .flow = &fake->flow,
                                      .task_id = "task-1",
                                      .dispatcher_id = "flow-1"};
}

static inline void sel_fake_done(struct sel_fake *fake)
{
    sel_map_done(&fake->system.nodes);
    sel_map_done(&fake->system.storage_names);
    sel_buf_done(&fake->trace);
    sel_buf_done(&fake->log);
    sel_buf_done(&fake->stored);
    sel_arena_done(&fake->arena);
}

static inline void sel_fake_set_args(struct sel_fake *fake, const char *json)
{
    struct sel_value v = sel_test_json(&fake->arena, json);
    fake->env.args = sel_fake_encode(&fake->arena, &v);
}

static inline struct sel_task *sel_fake_task(struct sel_fake *fake)
{
    struct sel_task *task = sel_task_new(&fake->arena, &fake->env);
    assert_non_null(task);
    return task;
}

/* The noted error is of this class and its message holds this text. */
#define assert_noted(task, class_text, part)                                                       \
    sel_fake_noted((task), (class_text), (part), __FILE__, __LINE__)
static inline void sel_fake_noted(const struct sel_task *task, const char *class_text,
                                  const char *part, const char *file, int line)
{
    if (strcmp(sel_error_class(task), class_text) == 0 && strstr(sel_error_message(task), part))
        return;
    print_error("got:      %s: %s\nexpected: %s: ...%s...\n", sel_error_class(task),
                sel_error_message(task), class_text, part);
    _fail(file, line);
}

#endif
