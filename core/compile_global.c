#include "core/compile_internal.h"

#define DEFAULT_QUEUE "celery"
#define BUILTIN_PREDICATES "selinon.predicates"

/* --- trace --- */

/* The map under `key` of a trace entry with all of `needed`; NULL if absent or after an error. */
static const struct sel_ynode *trace_map(struct sel_compiler *c, const struct sel_ynode *entry,
                                         const char *key, const char *const *known,
                                         const char *const *needed)
{
    const struct sel_ynode *map = sel_yaml_get(entry, key);
    const char *what = sel_arena_printf(&c->scratch, "trace `%s`", key);
    if (!what)
        c->no_memory = true;
    if (!map || !what || !sel_compile_is_map(c, map, what))
        return NULL;
    bool ok = sel_compile_check_keys(c, map, what, known);
    for (; *needed; needed++) {
        if (sel_yaml_get(map, *needed))
            continue;
        sel_diag_error(c->diag, map->pos, "%s needs the key `%s`", what, *needed);
        ok = false;
    }
    return ok ? map : NULL;
}

static void add_trace(struct sel_compiler *c, struct sel_trace_def def)
{
    c->system->traces[c->system->trace_count++] = def;
}

static void trace_logging(struct sel_compiler *c, const struct sel_ynode *entry)
{
    const struct sel_ynode *node = sel_yaml_get(entry, "logging");
    if (!node)
        return;
    if (node->kind != SEL_BOOL)
        sel_diag_warning(c->diag, node->pos,
                         "trace `logging` should be true or false; got %s, nothing is logged",
                         sel_compile_got(c, node));
    else if (node->b)
        add_trace(c, (struct sel_trace_def){.kind = SEL_TRACE_LOGGING, .storage = SEL_NONE});
}

static void trace_storage(struct sel_compiler *c, const struct sel_ynode *entry)
{
    static const char *const known[] = {"name", "method", NULL};
    static const char *const needed[] = {"name", NULL};
    const struct sel_ynode *map = trace_map(c, entry, "storage", known, needed);
    if (!map)
        return;
    struct sel_trace_def def = {.kind = SEL_TRACE_STORAGE, .method = SEL_STR("trace")};
    def.storage = sel_compile_storage_index(c, sel_yaml_get(map, "name"));
    const struct sel_ynode *method = sel_yaml_get(map, "method");
    if (method && method->kind != SEL_NULL)
        def.method = sel_compile_any_text(c, method, "`method` of a trace storage");
    if (def.storage == SEL_NONE)
        return;
    c->storage_used[def.storage] = true;
    add_trace(c, def);
}

static void trace_function(struct sel_compiler *c, const struct sel_ynode *entry)
{
    static const char *const known[] = {"import", "name", NULL};
    const struct sel_ynode *map = trace_map(c, entry, "function", known, known);
    if (!map)
        return;
    struct sel_trace_def def = {.kind = SEL_TRACE_FUNCTION, .storage = SEL_NONE};
    def.function.module =
        sel_compile_any_text(c, sel_yaml_get(map, "import"), "`import` of a trace function");
    def.function.name =
        sel_compile_any_text(c, sel_yaml_get(map, "name"), "`name` of a trace function");
    def.function.pos = sel_compile_keep_pos(c, map->pos);
    add_trace(c, def);
}

static void trace_sentry(struct sel_compiler *c, const struct sel_ynode *entry)
{
    static const char *const known[] = {"dsn", NULL};
    const struct sel_ynode *map = trace_map(c, entry, "sentry", known, known);
    struct sel_trace_def def = {.kind = SEL_TRACE_SENTRY, .storage = SEL_NONE};
    if (map && sel_compile_expand(c, sel_yaml_get(map, "dsn"), "dsn", &def.dsn))
        add_trace(c, def);
}

/* There is one JSON trace, which the last entry switches on or off. */
static void trace_json(struct sel_compiler *c, const struct sel_ynode *entry, bool *is_json)
{
    (void)sel_compile_bool(c, entry, "json", is_json); /* reported */
}

/* Texts and lists without any of the words are ignored by the original, others make it stumble. */
static void odd_trace_entry(struct sel_compiler *c, const struct sel_ynode *entry,
                            const char *const *words)
{
    bool is_ignored = entry->kind == SEL_TEXT || entry->kind == SEL_LIST;
    for (; is_ignored && *words; words++) {
        if (entry->kind == SEL_TEXT)
            is_ignored = !memmem(entry->text.p, entry->text.n, *words, strlen(*words));
        for (uint32_t i = 0; entry->kind == SEL_LIST && i < entry->list.count; i++) {
            const struct sel_ynode *item = entry->list.items[i];
            is_ignored =
                is_ignored && !(sel_compile_is_text(item) && sel_str_eq_c(item->text, *words));
        }
    }
    if (is_ignored)
        sel_diag_warning(c->diag, entry->pos,
                         "ignored: a trace entry should be a mapping such as `logging: true`; "
                         "got %s",
                         sel_compile_got(c, entry));
    else
        (void)sel_compile_is_map(c, entry, "a trace entry");
}

static void trace(struct sel_compiler *c, const struct sel_ynode *node)
{
    static const char *const kinds[] = {"logging", "storage", "function", "sentry", "json", NULL};
    if (node->kind == SEL_NULL) {
        sel_diag_error(c->diag, node->pos,
                       "`trace` is empty; write `- logging: true` below it, or `trace: false`");
        return;
    }
    if (node->kind == SEL_BOOL && !node->b)
        return;
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    size_t count_max = (size_t)items.count * 4 + 1;
    c->system->traces = SEL_COMPILE_NEW(c, struct sel_trace_def, count_max);
    bool is_json = false;
    for (uint32_t i = 0; i < items.count && !c->no_memory; i++) {
        const struct sel_ynode *entry = items.p[i];
        if (entry->kind != SEL_MAP) {
            odd_trace_entry(c, entry, kinds);
            continue;
        }
        sel_compile_warn_keys(c, entry, "a trace entry", kinds);
        trace_logging(c, entry);
        trace_storage(c, entry);
        trace_function(c, entry);
        trace_sentry(c, entry);
        trace_json(c, entry, &is_json);
    }
    if (is_json && !c->no_memory)
        add_trace(c, (struct sel_trace_def){.kind = SEL_TRACE_JSON, .storage = SEL_NONE});
}

/* --- the section --- */

static void default_queue(struct sel_compiler *c, const struct sel_ynode *map, const char *key,
                          struct sel_str *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, key);
    if (node && sel_compile_expand(c, node, key, ret) && ret->n == 0)
        sel_diag_warning(c->diag, node->pos, "`%s` is empty; leave it out for '%s'", key,
                         DEFAULT_QUEUE);
}

static void predicates_module(struct sel_compiler *c, const struct sel_ynode *map)
{
    const struct sel_ynode *node = sel_yaml_get(map, "predicates_module");
    if (!node)
        return;
    c->predicates_module = node;
    c->predicates_are_builtin =
        sel_compile_is_text(node) && sel_str_eq_c(node->text, BUILTIN_PREDICATES);
    /* Other kinds are refused by the first condition that needs the module, not before. */
    c->system->predicates_module = sel_compile_any_text(c, node, "`predicates_module`");
}

void sel_compile_global(struct sel_compiler *c, const struct sel_ynode *root)
{
    static const char *const keys[] = {
        "predicates_module",  "trace",         "default_dispatcher_queue",
        "default_task_queue", "migration_dir", NULL};
    struct sel_system *s = c->system;
    s->predicates_module = SEL_STR(BUILTIN_PREDICATES);
    c->predicates_are_builtin = true;
    s->default_task_queue = s->default_dispatcher_queue = SEL_STR(DEFAULT_QUEUE);
    const struct sel_ynode *map = sel_yaml_get(root, "global");
    if (!map || !sel_compile_is_map(c, map, "`global`"))
        return;
    (void)sel_compile_check_keys(c, map, "`global`", keys); /* reported */
    predicates_module(c, map);
    if (sel_yaml_get(map, "trace"))
        trace(c, sel_yaml_get(map, "trace"));
    default_queue(c, map, "default_dispatcher_queue", &s->default_dispatcher_queue);
    default_queue(c, map, "default_task_queue", &s->default_task_queue);
    const struct sel_ynode *dir = sel_yaml_get(map, "migration_dir");
    if (!sel_compile_is_falsy(dir))
        (void)sel_compile_expand(c, dir, "migration_dir", &s->migration_dir); /* reported */
}
