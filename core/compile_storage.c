#include "core/compile_internal.h"

static const char *const storage_keys[] = {"name",          "import", "classname",
                                           "configuration", "cache",  NULL};

/* Enters the name; false if it is missing or taken. */
static bool storage_name(struct sel_compiler *c, const struct sel_ynode *tree,
                         struct sel_storage_def *def, uint32_t index)
{
    const struct sel_ynode *name = sel_yaml_get(tree, "name");
    if (sel_compile_is_falsy(name)) {
        sel_diag_error(c->diag, name ? name->pos : tree->pos, "a storage needs a `name`; got %s",
                       sel_compile_got(c, name));
        c->storages_unknown = true;
        return false;
    }
    def->name = sel_compile_any_text(c, name, "`name` of a storage");
    uint32_t old;
    int r = sel_map_add(&c->system->storage_names, def->name, index, &old);
    if (r == 0)
        sel_diag_error(c->diag, name->pos, "storage '%s' is declared twice, first in line %u",
                       sel_compile_show(c, def->name), c->system->storages[old].pos.line);
    if (r < 0)
        c->no_memory = true;
    c->storage_names[index] = name;
    return r == 1;
}

static void storage_import(struct sel_compiler *c, const struct sel_ynode *tree,
                           struct sel_storage_def *def)
{
    const struct sel_ynode *module = sel_yaml_get(tree, "import");
    const struct sel_ynode *name = sel_yaml_get(tree, "classname");
    if (sel_compile_is_falsy(module))
        sel_diag_error(c->diag, module ? module->pos : tree->pos,
                       "storage '%s' needs `import`, the module of its class; got %s",
                       sel_compile_show(c, def->name), sel_compile_got(c, module));
    else
        def->import.module = sel_compile_any_text(c, module, "`import` of a storage");
    def->import.name = def->name;
    def->import.pos = def->pos;
    if (name && !sel_compile_is_text(name))
        sel_diag_error(c->diag, name->pos, "`classname` must be a text; got %s",
                       sel_compile_got(c, name));
    else if (name && name->text.n > 0)
        def->import.name = sel_compile_keep(c, name->text);
}

/* Missing, null and {} are no arguments at all. */
static void storage_config(struct sel_compiler *c, const struct sel_ynode *tree,
                           struct sel_storage_def *def)
{
    const struct sel_ynode *node = sel_yaml_get(tree, "configuration");
    def->config = sel_value_null;
    if (!node || node->kind == SEL_NULL || (node->kind == SEL_MAP && node->map.count == 0))
        return;
    if (sel_compile_is_falsy(node)) {
        sel_diag_error(c->diag, node->pos,
                       "`configuration` must be a mapping of arguments, or left out; got %s",
                       sel_compile_got(c, node));
        return;
    }
    def->config = sel_compile_value(c, node);
    if (node->kind != SEL_MAP && node->kind != SEL_LIST && node->kind != SEL_TEXT)
        sel_diag_warning(c->diag, node->pos,
                         "`configuration` should be a mapping of arguments; got %s",
                         sel_compile_got(c, node));
}

static void storage(struct sel_compiler *c, const struct sel_ynode *tree)
{
    if (!sel_compile_is_map(c, tree, "a storage"))
        return;
    (void)sel_compile_check_keys(c, tree, "a storage", storage_keys); /* reported */
    uint32_t index = c->system->storage_count;
    struct sel_storage_def *def = &c->system->storages[index];
    def->pos = sel_compile_keep_pos(c, tree->pos);
    bool is_named = storage_name(c, tree, def, index);
    storage_import(c, tree, def);
    storage_config(c, tree, def);
    sel_compile_cache(c, tree, &def->cache);
    if (is_named)
        c->system->storage_count++;
}

void sel_compile_storages(struct sel_compiler *c, const struct sel_ynode *root)
{
    const struct sel_ynode *list = sel_yaml_get(root, "storages");
    uint32_t count = list && list->kind == SEL_LIST ? list->list.count : 0;
    c->system->storages = SEL_COMPILE_NEW(c, struct sel_storage_def, (size_t)count + 1);
    c->storage_names = SEL_COMPILE_SCRATCH(c, const struct sel_ynode *, (size_t)count + 1);
    c->storage_used = SEL_COMPILE_SCRATCH(c, bool, (size_t)count + 1);
    bool is_empty = list && (list->kind == SEL_TEXT || list->kind == SEL_MAP) &&
                    sel_compile_is_falsy(list); /* the original finds no storages in these */
    if (c->no_memory || !list || is_empty)
        return;
    if (list->kind != SEL_LIST) {
        sel_diag_error(c->diag, list->pos, "`storages` must be a list of storages; got %s",
                       sel_compile_got(c, list));
        c->storages_unknown = true;
        return;
    }
    for (uint32_t i = 0; i < count && !c->no_memory; i++)
        storage(c, list->list.items[i]);
}
