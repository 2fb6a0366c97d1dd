#include "cli/case.h"

#include "core/arena.h"
#include "core/json.h"

struct reader {
    struct sel_arena *arena;
    const char *path;
    struct sel_error *err;
};

static int refuse(struct reader *reader, const char *what)
{
    return sel_error_set(reader->err, SEL_EREQUEST, (struct sel_pos){reader->path, 0, 0}, "%s",
                         what);
}

static int no_memory(struct reader *reader)
{
    return sel_error_set(reader->err, SEL_ENOMEM, (struct sel_pos){reader->path, 0, 0}, "%s",
                         sel_error_text(SEL_ENOMEM));
}

/* A member that is there and not null, or NULL. */
static const struct sel_value *get(const struct sel_value *map, const char *key)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    return sel_value_is(v, SEL_NULL) ? NULL : v;
}

static bool is_text_map(const struct sel_value *v)
{
    if (!sel_value_is(v, SEL_MAP))
        return false;
    for (uint32_t i = 0; i < sel_value_count(v); i++) {
        if (!sel_value_is(sel_value_val_at(v, i), SEL_TEXT))
            return false;
    }
    return true;
}

/* The values of `env` terminated, so that getenv can hand them out. */
static int read_env(struct reader *reader, const struct sel_value *v, struct sel_cli_case *c)
{
    if (!v)
        return 0;
    if (!is_text_map(v))
        return refuse(reader, "`env` must map names to texts");
    struct sel_value_builder b;
    sel_value_begin_map(&b, reader->arena);
    for (uint32_t i = 0; i < sel_value_count(v); i++) {
        char *text = sel_arena_strdup(reader->arena, sel_value_str(sel_value_val_at(v, i)));
        if (!text)
            return no_memory(reader);
        sel_value_put(&b, sel_value_str(sel_value_key_at(v, i)), sel_value_from_c(text));
    }
    struct sel_value *env = SEL_ARENA_NEW(reader->arena, struct sel_value);
    if (!env || sel_value_end(&b, env) < 0)
        return no_memory(reader);
    c->env = env;
    return 0;
}

static int read_flag(struct reader *reader, const struct sel_value *map, const char *key, bool *ret)
{
    const struct sel_value *v = get(map, key);
    if (!v)
        return 0;
    if (!sel_value_is(v, SEL_BOOL))
        return refuse(reader, "the flags of `selective` must be true or false");
    *ret = sel_value_bool(v);
    return 0;
}

static int read_selective(struct reader *reader, const struct sel_value *v, struct sel_cli_case *c)
{
    if (!v)
        return 0;
    const struct sel_value *tasks = get(v, "tasks");
    if (!tasks || !sel_value_is(tasks, SEL_LIST) || sel_value_count(tasks) == 0)
        return refuse(reader, "`selective` needs a list `tasks`");
    uint32_t count = sel_value_count(tasks);
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(reader->arena, struct sel_str, count);
    if (!names)
        return no_memory(reader);
    for (uint32_t i = 0; i < count; i++) {
        if (!sel_value_is(sel_value_at(tasks, i), SEL_TEXT))
            return refuse(reader, "`selective.tasks` must be names");
        names[i] = sel_value_str(sel_value_at(tasks, i));
    }
    c->is_selective = true;
    c->selective.tasks = names;
    c->selective.task_count = count;
    int r = read_flag(reader, v, "follow_subflows", &c->selective.follow_subflows);
    return r < 0 ? r : read_flag(reader, v, "run_subsequent", &c->selective.run_subsequent);
}

static int read_preset(struct reader *reader, const struct sel_value *v,
                       struct sel_executor_preset *preset)
{
    const struct sel_value *id = get(v, "id"), *task = get(v, "task");
    if (!id || !sel_value_is(id, SEL_TEXT) || !task || !sel_value_is(task, SEL_TEXT))
        return refuse(reader, "each of `preset` needs texts `id` and `task`");
    const struct sel_value *result = sel_value_get_c(v, "result");
    preset->id = sel_arena_strdup(reader->arena, sel_value_str(id));
    preset->task = sel_value_str(task);
    preset->result = result ? *result : sel_value_null;
    return preset->id ? 0 : no_memory(reader);
}

static int read_presets(struct reader *reader, const struct sel_value *v, struct sel_cli_case *c)
{
    if (!v)
        return 0;
    if (!sel_value_is(v, SEL_LIST))
        return refuse(reader, "`preset` must be a list");
    uint32_t count = sel_value_count(v);
    c->presets = SEL_ARENA_NEW_ARRAY(reader->arena, struct sel_executor_preset, count ? count : 1);
    if (!c->presets)
        return no_memory(reader);
    for (uint32_t i = 0; i < count; i++) {
        int r = read_preset(reader, sel_value_at(v, i), &c->presets[i]);
        if (r < 0)
            return r;
    }
    c->preset_count = count;
    return 0;
}

static int read_flow(struct reader *reader, const struct sel_value *v, struct sel_cli_case *c)
{
    if (!v)
        return 0;
    if (!sel_value_is(v, SEL_TEXT))
        return refuse(reader, "`flow` must be a name");
    c->flow = sel_arena_strdup(reader->arena, sel_value_str(v));
    return c->flow ? 0 : no_memory(reader);
}

static int read_case(struct reader *reader, const struct sel_value *v, struct sel_cli_case *c)
{
    c->node_args = sel_value_get_c(v, "node_args");
    int r = read_flow(reader, get(v, "flow"), c);
    if (r == 0)
        r = read_selective(reader, get(v, "selective"), c);
    if (r == 0)
        r = read_presets(reader, get(v, "preset"), c);
    return r == 0 ? read_env(reader, get(v, "env"), c) : r;
}

int sel_cli_case_load(const struct sel_cli *cli, struct sel_arena *arena, const char *path,
                      struct sel_cli_case *ret, struct sel_error *err)
{
    struct reader reader = {arena, path, err};
    struct sel_cli_case c = {.cli = cli};
    struct sel_str text;
    struct sel_value *whole = SEL_ARENA_NEW(arena, struct sel_value);
    if (!whole)
        return no_memory(&reader);
    int r = sel_cli_read_file(arena, path, &text, err);
    if (r == 0)
        r = sel_json_parse(arena, path, text, whole, NULL, err);
    if (r < 0)
        return r;
    if (!sel_value_is(whole, SEL_MAP))
        return refuse(&reader, "a case or its `mock` must be an object");
    const struct sel_value *script = get(whole, "mock");
    if (script)
        r = read_case(&reader, whole, &c);
    c.script = script ? *script : *whole;
    if (r == 0)
        *ret = c;
    return r;
}

const char *sel_cli_case_getenv(void *ctx, const char *name)
{
    const struct sel_cli_case *c = ctx;
    const struct sel_value *v = c->env ? sel_value_get_c(c->env, name) : NULL;
    return v ? sel_value_str(v).p : c->cli->getenv(c->cli->getenv_ctx, name);
}
