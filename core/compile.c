#include "core/compile.h"

#include "core/compile_internal.h"
#include "core/mem.h"

/* How many names may be compared in search of suggestions, over a whole run: a second of work at
 * most, and enough for every typing error that a person makes. */
#define SUGGEST_MAX 2000000

/* --- the list of flows --- */

static void flow_listed(struct sel_compiler *c, const struct sel_ynode *name)
{
    struct sel_system *s = c->system;
    struct sel_flow_def *def = &s->flows[s->flow_count];
    uint32_t node = s->task_count + s->flow_count;
    *def = (struct sel_flow_def){.index = s->flow_count};
    if (!sel_compile_add_name(c, name, "flow", node, &def->name))
        return;
    def->pos = sel_compile_keep_pos(c, name->pos);
    def->queue = s->default_dispatcher_queue;
    c->flows[s->flow_count].listed = name;
    s->flow_count++;
}

/* Names in a list; the keys of a mapping do as well, as in the original. */
static const struct sel_ynode *const *
listed_names(struct sel_compiler *c, const struct sel_ynode *node, uint32_t *ret_count)
{
    *ret_count = 0;
    if (node->kind == SEL_LIST) {
        *ret_count = node->list.count;
        return node->list.items;
    }
    const struct sel_ynode **names =
        SEL_COMPILE_SCRATCH(c, const struct sel_ynode *, node->map.count);
    for (uint32_t i = 0; names && i < node->map.count; i++)
        names[(*ret_count)++] = node->map.pairs[i].key;
    if (node->map.count > 0)
        sel_diag_warning(c->diag, node->pos, "`flows` should be a list of names; got a mapping");
    return names;
}

static void list_flows(struct sel_compiler *c, const struct sel_ynode *root)
{
    const struct sel_ynode *node = sel_yaml_get(root, "flows");
    struct sel_compile_items one;
    const struct sel_ynode *const *names = NULL;
    uint32_t count = 0;
    if (node && (node->kind == SEL_LIST || node->kind == SEL_MAP)) {
        names = listed_names(c, node, &count);
    } else if (sel_compile_is_text(node) && node->text.n <= 1) {
        /* The original goes through the letters of a text, so that "f" lists the flow f. */
        sel_diag_warning(c->diag, node->pos, "`flows` should be a list of names; got %s",
                         sel_compile_got(c, node));
        sel_compile_items(&one, node);
        names = one.p;
        count = node->text.n == 1 ? 1 : 0;
    } else {
        sel_diag_error(c->diag, node ? node->pos : root->pos,
                       "`flows` must be a list of the names of all flows; got %s",
                       sel_compile_got(c, node));
        c->names_unknown = true;
    }
    c->system->flows = SEL_COMPILE_NEW(c, struct sel_flow_def, (size_t)count + 1);
    c->flows = SEL_COMPILE_SCRATCH(c, struct sel_compile_flow_info, (size_t)count + 1);
    for (uint32_t i = 0; i < count && !c->no_memory; i++)
        flow_listed(c, names[i]);
}

/* --- the nodes file --- */

static void compile_nodes(struct sel_compiler *c, const struct sel_ynode *root)
{
    static const char *const keys[] = {"tasks", "flows", "storages", "global", "flow-definitions",
                                       NULL};
    static const struct sel_ynode nothing = {.kind = SEL_MAP};
    if (root && root->kind != SEL_MAP)
        sel_diag_error(c->diag, root->pos,
                       "the file must be a mapping with `tasks` and `flows`; got %s",
                       sel_compile_got(c, root));
    bool is_usable = root && root->kind == SEL_MAP;
    if (is_usable)
        sel_compile_warn_keys(c, root, "the nodes file", keys);
    sel_compile_storages(c, is_usable ? root : &nothing);
    sel_compile_global(c, is_usable ? root : &nothing);
    if (is_usable && !c->no_memory) {
        sel_compile_tasks(c, root);
        list_flows(c, root);
    }
    c->names_unknown = c->names_unknown || !is_usable;
    size_t node_count = (size_t)c->system->task_count + c->system->flow_count;
    c->slot_of = SEL_COMPILE_SCRATCH(c, uint32_t, node_count);
    c->slot_round = SEL_COMPILE_SCRATCH(c, uint32_t, node_count);
}

/* --- flow files --- */

/* A definition that has no place in the system is compiled all the same, for its errors. */
static void compile_stray(struct sel_compiler *c, const struct sel_ynode *tree)
{
    struct sel_flow_def stray = {.name = SEL_STR("?"), .index = SEL_NONE};
    bool is_broken;
    sel_compile_flow_def(c, tree, &stray, &is_broken);
}

static void compile_definition(struct sel_compiler *c, const struct sel_ynode *tree)
{
    struct sel_system *s = c->system;
    if (!sel_compile_is_map(c, tree, "a flow definition"))
        return;
    const struct sel_ynode *name = sel_yaml_get(tree, "name");
    uint32_t node = SEL_NONE;
    if (!name)
        sel_diag_error(c->diag, tree->pos, "a flow definition needs a `name`");
    else
        node = sel_compile_flow_node(c, name);
    if (node == SEL_NONE) {
        compile_stray(c, tree);
        return;
    }
    struct sel_compile_flow_info *info = &c->flows[node - s->task_count];
    if (info->is_defined) {
        sel_diag_error(c->diag, name->pos, "the flow '%s' is defined twice, first in line %u of %s",
                       sel_compile_node_name(c, node), sel_system_flow(s, node)->pos.line,
                       sel_system_flow(s, node)->pos.file);
        compile_stray(c, tree);
        return;
    }
    info->is_defined = true;
    sel_compile_flow_def(c, tree, &s->flows[node - s->task_count], &info->is_broken);
}

static void compile_document(struct sel_compiler *c, const struct sel_ynode *root, bool is_nodes)
{
    static const char *const keys[] = {"flow-definitions", NULL};
    if (!sel_compile_is_map(c, root, "a flow file"))
        return;
    if (!is_nodes)
        sel_compile_warn_keys(c, root, "a flow file", keys);
    const struct sel_ynode *list = sel_yaml_get(root, "flow-definitions");
    bool is_empty = list && (list->kind == SEL_TEXT || list->kind == SEL_MAP) &&
                    sel_compile_is_falsy(list); /* the original finds no definitions in these */
    if (is_empty)
        return;
    if (!list || list->kind != SEL_LIST) {
        sel_diag_error(c->diag, list ? list->pos : root->pos,
                       "a flow file needs `flow-definitions`, a list of flows; got %s",
                       sel_compile_got(c, list));
        return;
    }
    for (uint32_t i = 0; i < list->list.count && !c->no_memory; i++)
        compile_definition(c, list->list.items[i]);
}

/* A file is one document, or a list of them. */
static void compile_flows(struct sel_compiler *c, const struct sel_ynode *root, bool is_nodes)
{
    struct sel_compile_items items;
    sel_compile_items(&items, root);
    for (uint32_t i = 0; i < items.count && !c->no_memory; i++)
        compile_document(c, items.p[i], is_nodes);
}

/* --- the run --- */

/* Where no condition is written; one for all edges. */
static void make_always(struct sel_compiler *c)
{
    struct sel_cond *cond = SEL_COMPILE_NEW(c, struct sel_cond, 1);
    if (!cond)
        return;
    cond->op = SEL_COND_TRUE;
    cond->from_index = SEL_COND_NO_NODE;
    c->always = cond;
    c->always_text = sel_cond_format(c->arena, cond);
    if (!c->always_text)
        c->no_memory = true;
}

/* NULL after an error, which is reported. */
static const struct sel_ynode *parse(struct sel_compiler *c, const struct sel_source *source)
{
    const struct sel_ynode *root = NULL;
    int r = sel_yaml_parse(&c->scratch, source->file, source->text, c->diag, &root);
    if (r == SEL_ENOMEM)
        c->no_memory = true;
    return r < 0 ? NULL : root;
}

static bool is_same_file(const struct sel_source *a, const struct sel_source *b)
{
    return a->file && b->file && strcmp(a->file, b->file) == 0;
}

static void compile_files(struct sel_compiler *c)
{
    const struct sel_compile_options *options = c->options;
    const struct sel_ynode *nodes = parse(c, &options->nodes);
    if (!c->no_memory)
        compile_nodes(c, nodes);
    for (uint32_t i = 0; i < options->flow_count && !c->no_memory; i++) {
        bool is_nodes = is_same_file(&options->flows[i], &options->nodes);
        const struct sel_ynode *root = is_nodes ? nodes : parse(c, &options->flows[i]);
        if (root && !c->no_memory)
            compile_flows(c, root, is_nodes);
    }
}

/* True if every listed flow has a definition, faulty or not. */
static bool check_defined(struct sel_compiler *c)
{
    bool ok = true;
    for (uint32_t i = 0; i < c->system->flow_count; i++) {
        if (c->flows[i].is_defined)
            continue;
        sel_diag_error(c->diag, c->flows[i].listed->pos,
                       "the flow '%s' is listed, but not defined in any flow file",
                       sel_compile_show(c, c->system->flows[i].name));
        ok = false;
    }
    return ok;
}

/* Messages for which there was no memory, as against those beyond the limit. */
static uint32_t lost_count(const struct sel_diag *diag)
{
    uint32_t beyond = 0;
    if (diag->error_count > SEL_DIAG_MAX)
        beyond += diag->error_count - SEL_DIAG_MAX;
    if (diag->warning_count > SEL_DIAG_MAX)
        beyond += diag->warning_count - SEL_DIAG_MAX;
    return diag->dropped_count - beyond;
}

static int run(struct sel_compiler *c)
{
    uint32_t errors_before = c->diag->error_count, lost_before = lost_count(c->diag);
    make_always(c);
    if (!c->no_memory)
        compile_files(c);
    bool is_complete = !c->no_memory && check_defined(c);
    for (uint32_t i = 0; is_complete && i < c->system->flow_count; i++)
        is_complete = !c->flows[i].is_broken;
    /* What nobody uses is not known before all flows are understood. */
    if (is_complete && !c->names_unknown && !c->options->no_check) {
        sel_compile_check_system(c);
        sel_compile_reach_system(c);
    }
    if (c->no_memory || lost_count(c->diag) > lost_before)
        return SEL_ENOMEM;
    return c->diag->error_count > errors_before ? SEL_ECONFIG : 0;
}

int sel_compile(const struct sel_compile_options *options, struct sel_diag *diag,
                struct sel_system **ret)
{
    struct sel_system *system = SEL_NEW(struct sel_system);
    if (!system)
        return SEL_ENOMEM;
    struct sel_compiler c = {.options = options,
                             .system = system,
                             .arena = &system->arena,
                             .diag = diag,
                             .suggest_left = SUGGEST_MAX};
    int r = run(&c);
    sel_diag_sort(diag);
    (void)sel_mem_free(c.slots);
    sel_arena_done(&c.scratch);
    if (r < 0)
        sel_system_free(system);
    else
        *ret = system;
    return r;
}
