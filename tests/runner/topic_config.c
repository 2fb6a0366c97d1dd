/* Configurations: which are accepted and which are refused. The words of a refusal are ours, but it
 * must have some, and a place. */
#include "tests/runner/config_case.h"

static const struct sel_diag_item *first_error(const struct sel_diag *diag)
{
    for (const struct sel_diag_item *item = diag->first; item; item = item->next) {
        if (!item->is_warning)
            return item;
    }
    return NULL;
}

/* NULL: as expected. */
static const char *differs(struct sel_runner_config *config)
{
    const struct sel_value *valid = sel_value_get_c(&config->expected, "valid");
    if (!sel_value_is(valid, SEL_BOOL))
        return "expected.json has no `valid`";
    const struct sel_diag_item *error = first_error(&config->diag);
    if (sel_value_bool(valid)) {
        if (config->system && !error)
            return NULL;
        const char *text =
            error ? sel_arena_printf(&config->arena, "must be accepted, but: %s:%u:%u: %s",
                                     error->pos.file ? error->pos.file : "?", error->pos.line,
                                     error->pos.col, error->text)
                  : NULL;
        return text ? text : "must be accepted";
    }
    if (config->system)
        return "must be refused";
    if (!error)
        return "refused without a reason";
    return error->pos.file && error->pos.line > 0 ? NULL : "refused without a place";
}

static void run_case(const char *dir, const char *name, struct sel_runner_report *report)
{
    struct sel_runner_config config;
    struct sel_error err = {0};
    char text[SEL_ERROR_TEXT_MAX + 512];
    if (sel_runner_config_load(&config, dir, name, &err) < 0) {
        sel_runner_fail(report, name, "%s", sel_error_format(&err, text, sizeof(text)));
    } else {
        const char *difference = differs(&config);
        if (difference)
            sel_runner_fail(report, name, "%s", difference);
        else
            sel_runner_pass(report);
    }
    sel_runner_config_done(&config);
}

/* DIR/strict if there is one (nonstrict cases are no tests), else DIR itself. */
int sel_topic_config(const char *dir, const struct sel_runner_options *options,
                     struct sel_runner_report *report, struct sel_error *err)
{
    (void)options;
    struct sel_arena arena = {0};
    const char *const *names = NULL;
    uint32_t count = 0;
    int r = SEL_ENOMEM;
    const char *strict = sel_arena_printf(&arena, "%s/strict", dir);
    if (strict) {
        const char *cases = sel_runner_exists(strict) ? strict : dir;
        r = sel_runner_list_dirs(&arena, cases, &names, &count, err);
        for (uint32_t i = 0; i < count; i++)
            run_case(cases, names[i], report);
    }
    if (r == 0 && count == 0)
        r = sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){dir, 0, 0}, "holds no case");
    sel_arena_done(&arena);
    return r;
}
