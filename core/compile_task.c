#include "core/compile_internal.h"

#define EXEC_MODULE "exec" /* tasks that are programs, not functions of a module */

static const char *const task_keys[] = {"name",
                                        "import",
                                        "classname",
                                        "max_retry",
                                        "retry_countdown",
                                        "output_schema",
                                        "storage",
                                        "storage_read_only",
                                        "storage_readonly",
                                        "storage_task_name",
                                        "selective_run_function",
                                        "queue",
                                        "throttling",
                                        "cache",
                                        "blocking",
                                        "command",
                                        "timeout",
                                        NULL};

/* --- names --- */

bool sel_compile_name_is_valid(struct sel_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char ch = name.p[i];
        bool is_letter = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_';
        if (!is_letter && !(i > 0 && ch >= '0' && ch <= '9'))
            return false;
    }
    return name.n > 0;
}

bool sel_compile_add_name(struct sel_compiler *c, const struct sel_ynode *name, const char *what,
                          uint32_t node, struct sel_str *ret)
{
    const struct sel_system *s = c->system;
    if (!sel_compile_is_text(name) || !sel_compile_name_is_valid(name->text)) {
        sel_diag_error(c->diag, name->pos,
                       "the name of a %s must be letters, digits and _, and not begin with a "
                       "digit; got %s",
                       what, sel_compile_got(c, name));
        return false;
    }
    uint32_t old = sel_system_find(s, name->text);
    if (old != SEL_NONE) {
        bool is_flow = sel_system_is_flow(s, old);
        sel_diag_error(c->diag, name->pos,
                       "%s '%s' is declared twice, first as a %s in line %u; tasks and flows "
                       "share their names",
                       what, sel_compile_show(c, name->text), is_flow ? "flow" : "task",
                       is_flow ? sel_system_flow(s, old)->pos.line
                               : sel_system_task(s, old)->pos.line);
        return false;
    }
    *ret = sel_compile_keep(c, name->text);
    if (sel_map_add(&c->system->nodes, *ret, node, NULL) < 0)
        c->no_memory = true;
    return !c->no_memory;
}

/* --- keys of a task --- */

/* A text or null under `key`; absent and null leave *ret. */
static void optional_text(struct sel_compiler *c, const struct sel_ynode *tree, const char *key,
                          struct sel_str *ret)
{
    const struct sel_ynode *node = sel_yaml_get(tree, key);
    if (!node || node->kind == SEL_NULL)
        return;
    if (sel_compile_is_text(node))
        *ret = sel_compile_keep(c, node->text);
    else
        sel_diag_error(c->diag, node->pos, "`%s` must be a text; got %s", key,
                       sel_compile_got(c, node));
}

static void task_import(struct sel_compiler *c, const struct sel_ynode *tree,
                        struct sel_task_def *def)
{
    const struct sel_ynode *node = sel_yaml_get(tree, "import");
    if (sel_compile_is_text(node) && node->text.n > 0)
        def->import.module = sel_compile_keep(c, node->text);
    else
        sel_diag_error(c->diag, node ? node->pos : tree->pos,
                       "a task needs `import`, the module of its code; got %s",
                       sel_compile_got(c, node));
    def->import.pos = node ? sel_compile_keep_pos(c, node->pos) : def->pos;
    def->import.name = def->name;
    optional_text(c, tree, "classname", &def->import.name);
}

/* The documentation and the code of the original spell it differently; both are meant. */
static void task_read_only(struct sel_compiler *c, const struct sel_ynode *tree,
                           struct sel_task_def *def)
{
    const struct sel_ynode *other = sel_yaml_get_key(tree, "storage_readonly");
    if (other && sel_yaml_get(tree, "storage_read_only"))
        sel_diag_error(c->diag, other->pos,
                       "`storage_readonly` and `storage_read_only` are the same option; keep one");
    (void)sel_compile_bool(c, tree, "storage_readonly", &def->storage_read_only);
    (void)sel_compile_bool(c, tree, "storage_read_only", &def->storage_read_only);
}

static void task_storage(struct sel_compiler *c, const struct sel_ynode *tree,
                         struct sel_task_def *def)
{
    const struct sel_ynode *storage = sel_yaml_get(tree, "storage");
    const struct sel_ynode *alias = sel_yaml_get(tree, "storage_task_name");
    def->storage = SEL_NONE;
    if (storage)
        def->storage = sel_compile_storage_index(c, storage);
    if (def->storage != SEL_NONE)
        c->storage_used[def->storage] = true;
    def->storage_task_name = def->name;
    if (alias && !storage)
        sel_diag_error(c->diag, sel_yaml_get_key(tree, "storage_task_name")->pos,
                       "`storage_task_name` has no effect on a task without a `storage`; add one "
                       "or remove it");
    else if (alias && alias->kind != SEL_NULL)
        def->storage_task_name = sel_compile_any_text(c, alias, "`storage_task_name`");
    task_read_only(c, tree, def);
}

static void task_selective_run_function(struct sel_compiler *c, const struct sel_ynode *tree,
                                        struct sel_task_def *def)
{
    static const char *const keys[] = {"function", "name", "import", NULL};
    const struct sel_ynode *map = sel_yaml_get(tree, "selective_run_function");
    if (sel_compile_is_falsy(map) || !sel_compile_is_map(c, map, "`selective_run_function`") ||
        !sel_compile_check_keys(c, map, "`selective_run_function`", keys))
        return;
    const struct sel_ynode *function = sel_yaml_get(map, "function");
    const struct sel_ynode *name = sel_yaml_get(map, "name");
    const struct sel_ynode *module = sel_yaml_get(map, "import");
    if (function && name) {
        sel_diag_error(c->diag, name->pos, "`function` and `name` are the same option; keep one");
        return;
    }
    struct sel_import *import = &def->selective_run_function;
    *import = (struct sel_import){SEL_STR("selinon.routines"), SEL_STR("always_run"),
                                  sel_compile_keep_pos(c, map->pos)};
    if (function || name)
        import->name = sel_compile_any_text(c, function ? function : name, "`function`");
    if (module)
        import->module = sel_compile_any_text(c, module, "`import`");
}

static void task_command(struct sel_compiler *c, const struct sel_ynode *node,
                         struct sel_task_def *def)
{
    if (node->kind != SEL_LIST || node->list.count == 0) {
        sel_diag_error(c->diag, node->pos,
                       "`command` must be a list of texts, the program and its arguments; got %s",
                       sel_compile_got(c, node));
        return;
    }
    def->command = SEL_COMPILE_NEW(c, struct sel_str, node->list.count);
    for (uint32_t i = 0; def->command && i < node->list.count; i++) {
        const struct sel_ynode *word = node->list.items[i];
        if (sel_compile_is_text(word) && (i > 0 || word->text.n > 0))
            def->command[def->command_count++] = sel_compile_keep(c, word->text);
        else
            sel_diag_error(c->diag, word->pos, "`command` must hold texts; got %s",
                           sel_compile_got(c, word));
    }
}

/* `command` and `timeout` belong to programs, and a program needs its command. */
static void task_program(struct sel_compiler *c, const struct sel_ynode *tree,
                         struct sel_task_def *def)
{
    const struct sel_ynode *command = sel_yaml_get(tree, "command");
    const struct sel_ynode *timeout = sel_yaml_get(tree, "timeout");
    if (sel_str_eq_c(def->import.module, EXEC_MODULE)) {
        if (!command)
            sel_diag_error(c->diag, tree->pos,
                           "a task with `import: exec` needs `command`, a list of texts");
        else
            task_command(c, command, def);
        if (timeout)
            sel_compile_seconds(c, timeout, "timeout", &def->timeout_us);
        return;
    }
    if (command)
        sel_diag_error(c->diag, sel_yaml_get_key(tree, "command")->pos,
                       "`command` needs `import: exec`");
    if (timeout)
        sel_diag_error(c->diag, sel_yaml_get_key(tree, "timeout")->pos,
                       "`timeout` needs `import: exec`; other tasks have no time limit");
}

static void task_retries(struct sel_compiler *c, const struct sel_ynode *tree,
                         struct sel_task_def *def)
{
    uint32_t error_count = c->diag->error_count;
    sel_compile_retries(c, tree, &def->max_retry, &def->retry_countdown_us);
    const struct sel_ynode *countdown = sel_yaml_get(tree, "retry_countdown");
    if (c->diag->error_count == error_count && countdown && countdown->kind != SEL_NULL &&
        def->max_retry == 0)
        sel_diag_warning(c->diag, sel_yaml_get_key(tree, "retry_countdown")->pos,
                         "`retry_countdown` has no effect, the task is never retried; set "
                         "`max_retry`");
}

static void task(struct sel_compiler *c, const struct sel_ynode *tree)
{
    if (!sel_compile_is_map(c, tree, "a task"))
        return;
    (void)sel_compile_check_keys(c, tree, "a task", task_keys); /* reported */
    uint32_t index = c->system->task_count;
    struct sel_task_def *def = &c->system->tasks[index];
    const struct sel_ynode *name = sel_yaml_get(tree, "name");
    bool is_named = false;
    *def = (struct sel_task_def){.pos = sel_compile_keep_pos(c, tree->pos)};
    if (name)
        is_named = sel_compile_add_name(c, name, "task", index, &def->name);
    else
        sel_diag_error(c->diag, tree->pos, "a task needs a `name`");
    task_import(c, tree, def);
    task_storage(c, tree, def);
    task_retries(c, tree, def);
    optional_text(c, tree, "output_schema", &def->output_schema);
    task_selective_run_function(c, tree, def);
    sel_compile_queue(c, tree, c->system->default_task_queue, &def->queue);
    sel_compile_throttling(c, tree, &def->throttle_us);
    sel_compile_cache(c, tree, &def->cache);
    (void)sel_compile_bool(c, tree, "blocking", &def->blocking);
    task_program(c, tree, def);
    c->task_trees[index] = tree;
    if (is_named)
        c->system->task_count++;
}

void sel_compile_tasks(struct sel_compiler *c, const struct sel_ynode *root)
{
    const struct sel_ynode *list = sel_yaml_get(root, "tasks");
    uint32_t count = list && list->kind == SEL_LIST ? list->list.count : 0;
    c->system->tasks = SEL_COMPILE_NEW(c, struct sel_task_def, (size_t)count + 1);
    c->task_trees = SEL_COMPILE_SCRATCH(c, const struct sel_ynode *, (size_t)count + 1);
    c->task_used = SEL_COMPILE_SCRATCH(c, bool, (size_t)count + 1);
    if (c->no_memory)
        return;
    bool is_empty = list && (list->kind == SEL_TEXT || list->kind == SEL_MAP) &&
                    sel_compile_is_falsy(list); /* the original finds no tasks in these */
    if (is_empty)
        return;
    if (!list || list->kind != SEL_LIST) {
        sel_diag_error(c->diag, list ? list->pos : root->pos,
                       "`tasks` must be a list of tasks; got %s", sel_compile_got(c, list));
        c->names_unknown = true;
        return;
    }
    for (uint32_t i = 0; i < count && !c->no_memory; i++)
        task(c, list->list.items[i]);
}
