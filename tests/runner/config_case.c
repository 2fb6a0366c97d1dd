#include "tests/runner/config_case.h"

/* `text` is NULL when there was no memory for it. */
static int no_memory(struct sel_error *err, const char *dir)
{
    return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){dir, 0, 0}, "out of memory");
}

/* Sources bear the name that a person in the folder of the case would give. */
static int read_source(struct sel_runner_config *config, struct sel_str name,
                       struct sel_source *ret, struct sel_error *err)
{
    const char *file = sel_arena_strdup(&config->arena, name);
    const char *path = sel_arena_printf(&config->arena, "%s/%.*s", config->dir, SEL_STR_ARG(name));
    if (!file || !path)
        return no_memory(err, config->dir);
    ret->file = file;
    return sel_runner_read_file(&config->arena, path, &ret->text, err);
}

static int read_flows(struct sel_runner_config *config, struct sel_source **ret,
                      uint32_t *ret_count, struct sel_error *err)
{
    const struct sel_value *files = sel_value_get_c(&config->expected, "flow_files");
    uint32_t count = files ? sel_value_count(files) : 1;
    struct sel_source *sources =
        SEL_ARENA_NEW_ARRAY(&config->arena, struct sel_source, (size_t)count + 1);
    if (!sources)
        return no_memory(err, config->dir);
    for (uint32_t i = 0; i < count; i++) {
        struct sel_str name = files ? sel_value_str(sel_value_at(files, i)) : SEL_STR("flows.yaml");
        int r = read_source(config, name, &sources[i], err);
        if (r < 0)
            return r;
    }
    *ret = sources;
    *ret_count = count;
    return 0;
}

static int compile(struct sel_runner_config *config, struct sel_error *err)
{
    const struct sel_predicate_world world = {sel_runner_getenv, &config->env};
    struct sel_compile_options options = {.world = &world};
    struct sel_source *flows = NULL;
    int r = read_source(config, SEL_STR("nodes.yaml"), &options.nodes, err);
    if (r == 0)
        r = read_flows(config, &flows, &options.flow_count, err);
    if (r < 0)
        return r;
    options.flows = flows;
    sel_diag_init(&config->diag, &config->arena);
    r = sel_compile(&options, &config->diag, &config->system);
    return r == SEL_ENOMEM ? no_memory(err, config->dir) : 0;
}

int sel_runner_config_load(struct sel_runner_config *config, const char *dir, const char *name,
                           struct sel_error *err)
{
    *config = (struct sel_runner_config){0};
    config->dir = sel_arena_printf(&config->arena, "%s/%s", dir, name);
    if (!config->dir)
        return no_memory(err, dir);
    const char *path = sel_arena_printf(&config->arena, "%s/expected.json", config->dir);
    if (!path)
        return no_memory(err, dir);
    int r = sel_runner_read_json(&config->arena, path, &config->expected, err);
    if (r < 0)
        return r;
    r = sel_runner_env_init(&config->env, &config->arena,
                            sel_value_get_c(&config->expected, "env"));
    if (r < 0)
        return sel_error_set(err, r, (struct sel_pos){path, 0, 0}, "`env` is no map of texts");
    return compile(config, err);
}

void sel_runner_config_done(struct sel_runner_config *config)
{
    sel_system_free(config->system);
    sel_arena_done(&config->arena);
}
