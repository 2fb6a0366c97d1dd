#include "tests/runner/flow_case.h"

#include <stdlib.h>

struct sel_value sel_flow_case_member(const struct sel_value *map, const char *key)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    return v ? *v : sel_value_null;
}

void sel_flow_case_fail(struct sel_flow_case *c, const char *what, const char *difference)
{
    if (!difference)
        return;
    sel_runner_fail(c->report, c->name, "%s: %s", what, difference);
    c->failed = true;
}

/* ---- refusals ---- */

bool sel_flow_case_is_refused(const struct sel_flow_case *c)
{
    struct sel_value outcome = sel_flow_case_member(&c->expected, "outcome");
    return sel_value_is(&outcome, SEL_TEXT) && sel_str_eq_c(sel_value_str(&outcome), "error");
}

void sel_flow_case_refused(struct sel_flow_case *c, const char *class, const char *text)
{
    struct sel_value expected = sel_flow_case_member(&c->expected, "error");
    struct sel_value actual = sel_value_from_c(class);
    const char *difference = sel_runner_diff(&c->arena, &expected, &actual);
    if (difference)
        sel_flow_case_fail(c, "error", sel_arena_printf(&c->arena, "%s (%s)", difference, text));
}

/* ---- loading ---- */

const char *sel_flow_case_getenv(void *ctx, const char *name)
{
    struct sel_flow_case *c = ctx;
    const char *value = sel_runner_getenv(&c->env, name);
    return value ? value : getenv(name);
}

static bool read_case(struct sel_flow_case *c)
{
    struct sel_error err = {0};
    int r = sel_runner_read_json(&c->arena, "case.json", &c->script, &err);
    if (r == 0)
        r = sel_runner_read_json(&c->arena, "expected.json", &c->expected, &err);
    if (r == 0)
        r = sel_runner_env_init(&c->env, &c->arena, sel_value_get_c(&c->script, "env"));
    if (r < 0)
        sel_flow_case_fail(c, "the case cannot be read",
                           err.text[0] ? err.text : sel_error_text(r));
    return r == 0;
}

bool sel_flow_case_load(struct sel_flow_case *c)
{
    struct sel_predicate_world world = {sel_flow_case_getenv, c};
    struct sel_source flows = {.file = "flows.yaml"};
    struct sel_compile_options options = {
        .nodes = {.file = "nodes.yaml"}, .flows = &flows, .flow_count = 1, .world = &world};
    struct sel_error err = {0};
    if (!read_case(c))
        return false;
    int r = sel_runner_read_file(&c->arena, "nodes.yaml", &options.nodes.text, &err);
    if (r == 0)
        r = sel_runner_read_file(&c->arena, "flows.yaml", &flows.text, &err);
    if (r < 0) {
        sel_flow_case_fail(c, "the configuration cannot be read", err.text);
        return false;
    }
    sel_diag_init(&c->diag, &c->arena);
    r = sel_compile(&options, &c->diag, &c->system);
    const char *why = c->diag.first ? c->diag.first->text : sel_error_text(r);
    if (r < 0 && sel_flow_case_is_refused(c))
        sel_flow_case_refused(c, "ConfigurationError", why);
    else if (r < 0)
        sel_flow_case_fail(c, "the configuration was refused", why);
    return !c->failed;
}

void sel_flow_case_done(struct sel_flow_case *c)
{
    if (!c->failed)
        sel_runner_pass(c->report);
    sel_system_free(c->system);
    c->system = NULL;
    sel_arena_done(&c->arena);
}

/* ---- the run that is asked for ---- */

const struct sel_flow_def *sel_flow_case_flow(const struct sel_flow_case *c)
{
    const struct sel_value *name = sel_value_get_c(&c->script, "flow");
    return sel_value_is(name, SEL_TEXT) ? sel_system_find_flow(c->system, sel_value_str(name))
                                        : NULL;
}

bool sel_flow_case_selective(struct sel_flow_case *c, struct sel_selective_request *ret)
{
    const struct sel_value *v = sel_value_get_c(&c->script, "selective");
    if (!sel_value_is(v, SEL_MAP))
        return false;
    const struct sel_value *tasks = sel_value_get_c(v, "tasks");
    uint32_t count = sel_value_is(tasks, SEL_LIST) ? sel_value_count(tasks) : 0;
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(&c->arena, struct sel_str, (size_t)count + 1);
    for (uint32_t i = 0; names && i < count; i++)
        names[i] = sel_value_str(sel_value_at(tasks, i));
    *ret = (struct sel_selective_request){
        .tasks = names,
        .task_count = names ? count : 0,
        .follow_subflows = sel_value_is_true(sel_value_get_c(v, "follow_subflows")),
        .run_subsequent = sel_value_is_true(sel_value_get_c(v, "run_subsequent"))};
    return true;
}

const struct sel_executor_preset *sel_flow_case_presets(struct sel_flow_case *c,
                                                        uint32_t *ret_count)
{
    const struct sel_value *list = sel_value_get_c(&c->script, "preset");
    uint32_t count = sel_value_is(list, SEL_LIST) ? sel_value_count(list) : 0;
    struct sel_executor_preset *presets =
        SEL_ARENA_NEW_ARRAY(&c->arena, struct sel_executor_preset, (size_t)count + 1);
    for (uint32_t i = 0; presets && i < count; i++) {
        const struct sel_value *v = sel_value_at(list, i);
        presets[i].id = sel_arena_strdup(&c->arena, sel_value_str(sel_value_get_c(v, "id")));
        presets[i].task = sel_value_str(sel_value_get_c(v, "task"));
        presets[i].result = sel_flow_case_member(v, "result");
    }
    *ret_count = presets ? count : 0;
    return presets;
}
