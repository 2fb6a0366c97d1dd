#include "core/compile_internal.h"

/* One condition at work. */
struct walk {
    struct sel_compiler *c;
    const struct sel_compile_scope *scope;
    /* A leaf about a task that only reads its storage; whether this matters is known at the end. */
    const struct sel_ynode *read_only_leaf;
    uint32_t read_only_node;
    bool is_broken;
};

/* What a leaf names: where its message comes from. */
struct source {
    uint32_t index; /* into the sources of the edge, or SEL_COND_NO_NODE */
    uint32_t node;  /* its number */
};

static const struct sel_cond *tree(struct walk *w, const struct sel_ynode *node);

static const struct sel_cond *broken(struct walk *w)
{
    w->is_broken = true;
    return NULL;
}

/* --- leaves --- */

/* Without `node` the only source is meant. False after an error. */
static bool find_source(struct walk *w, const struct sel_ynode *leaf, struct source *ret)
{
    const struct sel_compile_scope *scope = w->scope;
    const struct sel_ynode *name = sel_yaml_get(leaf, "node");
    *ret = (struct source){SEL_COND_NO_NODE, SEL_NONE};
    if (!name) {
        if (scope->written_count == 1 && scope->node_count == 1)
            *ret = (struct source){0, scope->nodes[0]};
        return true;
    }
    uint32_t node = SEL_NONE;
    if (sel_compile_is_text(name))
        node = sel_system_find(w->c->system, name->text);
    for (uint32_t i = 0; node != SEL_NONE && i < scope->node_count; i++) {
        if (scope->nodes[i] == node) {
            *ret = (struct source){i, node};
            return true;
        }
    }
    const char *list = scope->has_results ? "`from` of this edge" : "`nodes` of this failure";
    sel_diag_error(w->c->diag, name->pos, "`node` must be one of those in %s; got %s", list,
                   sel_compile_got(w->c, name));
    return false;
}

static bool is_storing_task(const struct sel_compiler *c, uint32_t node)
{
    if (node == SEL_NONE || sel_compile_is_flow(c, node))
        return false;
    const struct sel_task_def *task = sel_system_task(c->system, node);
    return task->storage != SEL_NONE && !task->storage_read_only;
}

/* Argument names of a leaf's function; count UINT32_MAX: unknown. */
struct signature {
    const struct sel_predicate *builtin;
    enum sel_predicate_input input;
    const char *const *args;
    uint32_t arg_count;
};

static bool find_builtin(struct walk *w, const struct sel_ynode *name, struct signature *ret)
{
    const struct sel_predicate *p = sel_predicate_find(name->text);
    if (p) {
        *ret = (struct signature){p, p->input, p->args, p->arg_count};
        return true;
    }
    uint32_t count;
    const struct sel_predicate *table = sel_predicate_table(&count);
    const char **names = SEL_COMPILE_SCRATCH(w->c, const char *, count);
    for (uint32_t i = 0; names && i < count; i++)
        names[i] = table[i].name;
    sel_diag_error(w->c->diag, name->pos, "there is no predicate '%s'%s",
                   sel_compile_show(w->c, name->text),
                   sel_compile_hint(w->c, name->text, names, names ? count : 0,
                                    "; see the list of built-in predicates, or name your own "
                                    "module in `global.predicates_module`"));
    return false;
}

/* A predicate of a module. What cannot be known here takes the message if it could get one. */
static bool find_user(struct walk *w, const struct sel_ynode *name, const struct source *source,
                      struct signature *ret)
{
    struct sel_compiler *c = w->c;
    const struct sel_compile_user *user = c->options->user;
    struct sel_str module = c->system->predicates_module;
    bool may_have_message = w->scope->has_results && is_storing_task(c, source->node);
    *ret = (struct signature){.input = may_have_message ? SEL_INPUT_MESSAGE : SEL_INPUT_ARGS,
                              .arg_count = UINT32_MAX};
    if (!user || !user->predicate)
        return true;
    int r =
        user->predicate(user->ctx, module, name->text, &ret->input, &ret->args, &ret->arg_count);
    if (r == SEL_ENOTFOUND)
        sel_diag_error(c->diag, name->pos, "the module '%s' has no predicate '%s'",
                       sel_compile_show(c, module), sel_compile_show(c, name->text));
    if (r < 0)
        ret->arg_count = UINT32_MAX;
    return r != SEL_ENOTFOUND;
}

static bool find_signature(struct walk *w, const struct sel_ynode *leaf,
                           const struct source *source, struct signature *ret)
{
    struct sel_compiler *c = w->c;
    const struct sel_ynode *name = sel_yaml_get(leaf, "name");
    if (!sel_compile_is_text(name) || name->text.n == 0) {
        sel_diag_error(c->diag, name->pos, "`name` of a condition must name a predicate; got %s",
                       sel_compile_got(c, name));
        return false;
    }
    if (c->predicates_are_builtin)
        return find_builtin(w, name, ret);
    if (sel_compile_is_text(c->predicates_module) && c->predicates_module->text.n > 0)
        return find_user(w, name, source, ret);
    sel_diag_error(c->diag, c->predicates_module->pos,
                   "`predicates_module` must name a module, conditions need it; got %s",
                   sel_compile_got(c, c->predicates_module));
    return false;
}

static const char *known_args(struct walk *w, const struct signature *sig)
{
    const char *text = sig->arg_count == 0 ? "it takes no arguments" : "it takes ";
    for (uint32_t i = 0; text && i < sig->arg_count; i++)
        text = sel_arena_printf(&w->c->scratch, "%s%s%s", text, i ? ", " : "", sig->args[i]);
    return text ? text : "";
}

/* Every argument of the signature is needed, no other is allowed. */
static void check_args(struct walk *w, const struct sel_ynode *leaf, const struct sel_ynode *args,
                       const struct signature *sig)
{
    struct sel_compiler *c = w->c;
    const struct sel_ynode *name = sel_yaml_get(leaf, "name");
    const char *shown = sel_compile_show(c, name->text);
    for (uint32_t i = 0; i < sig->arg_count; i++) {
        if (!sel_yaml_get(args, sig->args[i]))
            sel_compile_inconsistent(c, args ? args->pos : leaf->pos,
                                     "the predicate '%s' needs the argument '%s'; %s", shown,
                                     sig->args[i], known_args(w, sig));
    }
    for (uint32_t i = 0; args && i < args->map.count; i++) {
        const struct sel_ynode *key = args->map.pairs[i].key;
        bool is_known = false;
        for (uint32_t k = 0; sel_compile_is_text(key) && k < sig->arg_count; k++)
            is_known = is_known || sel_str_eq_c(key->text, sig->args[k]);
        if (!is_known)
            sel_compile_inconsistent(c, key->pos, "the predicate '%s' has no argument '%s'; %s",
                                     shown, sel_compile_show(c, key->text), known_args(w, sig));
    }
}

/* The variable of env*: asked for by name, so that another kind could only be false for ever. */
static void check_env(struct walk *w, const struct sel_ynode *args, const struct signature *sig)
{
    const struct sel_ynode *variable = sel_yaml_get(args, "env");
    if (sig->builtin && strncmp(sig->builtin->name, "env", 3) == 0 && variable &&
        !sel_compile_is_text(variable))
        sel_compile_inconsistent(w->c, variable->pos,
                                 "`env` must be the name of an environment variable, a text; "
                                 "got %s",
                                 sel_compile_got(w->c, variable));
}

static void leaf_args(struct walk *w, const struct sel_ynode *leaf, const struct signature *sig,
                      struct sel_cond *cond)
{
    struct sel_compiler *c = w->c;
    const struct sel_ynode *args = sel_yaml_get(leaf, "args");
    if (sel_compile_is_falsy(args))
        args = NULL;
    if (args && args->kind != SEL_MAP) {
        sel_compile_inconsistent(c, args->pos, "`args` must be a mapping of arguments; got %s",
                                 sel_compile_got(c, args));
        args = NULL;
    } else if (sig->arg_count != UINT32_MAX) {
        check_args(w, leaf, args, sig);
    }
    check_env(w, args, sig);
    struct sel_value_builder none;
    sel_value_begin_map(&none, c->arena);
    if (args)
        cond->args = sel_compile_value(c, args);
    else if (sel_value_end(&none, &cond->args) < 0)
        c->no_memory = true;
    for (uint32_t i = 0; sig->builtin && i < sig->arg_count; i++)
        cond->arg_values[i] = sel_value_get_c(&cond->args, sig->args[i]);
}

/* Whether the message that the leaf takes can be had. */
static bool check_message(struct walk *w, const struct sel_ynode *leaf, const struct source *source)
{
    struct sel_compiler *c = w->c;
    const char *name = sel_compile_show(c, sel_yaml_get(leaf, "name")->text);
    if (!w->scope->has_results) {
        sel_diag_error(c->diag, leaf->pos,
                       "'%s' asks for a result, but a failed task has none; use a predicate on the "
                       "arguments",
                       name);
        return false;
    }
    if (source->node == SEL_NONE) {
        if (w->scope->node_count == 0)
            sel_diag_error(c->diag, leaf->pos,
                           "'%s' asks for a result, but a starting edge has none; use a predicate "
                           "on the arguments",
                           name);
        else
            sel_diag_error(c->diag, leaf->pos,
                           "'%s' asks for a result, but the edge has several sources; say which "
                           "with `node`",
                           name);
        return false;
    }
    if (sel_compile_is_flow(c, source->node))
        sel_compile_inconsistent(c, leaf->pos,
                                 "'%s' asks for the result of the flow '%s', but only tasks have "
                                 "results",
                                 name, sel_compile_node_name(c, source->node));
    else if (!sel_yaml_get(c->task_trees[source->node], "storage"))
        sel_compile_inconsistent(c, leaf->pos,
                                 "'%s' asks for the result of '%s', which is not kept; give the "
                                 "task a `storage`",
                                 name, sel_compile_node_name(c, source->node));
    return true;
}

static const struct sel_cond *leaf_cond(struct walk *w, const struct sel_ynode *leaf)
{
    static const char *const keys[] = {"name", "node", "args", NULL};
    struct sel_compiler *c = w->c;
    struct source source;
    struct signature sig;
    bool ok = sel_compile_check_keys(c, leaf, "a condition with a `name`", keys);
    ok = find_source(w, leaf, &source) && ok;
    ok = ok && find_signature(w, leaf, &source, &sig);
    if (ok && sig.input == SEL_INPUT_MESSAGE)
        ok = check_message(w, leaf, &source);
    struct sel_cond *cond = ok ? SEL_COMPILE_NEW(c, struct sel_cond, 1) : NULL;
    if (!cond)
        return broken(w);
    cond->op = SEL_COND_LEAF;
    cond->builtin = sig.builtin;
    cond->name = sel_compile_keep(c, sel_yaml_get(leaf, "name")->text);
    cond->input = sig.input;
    cond->from_index = SEL_COND_NO_NODE;
    if (sig.input == SEL_INPUT_MESSAGE) {
        cond->from_index = source.index;
        cond->node = sel_system_node_name(c->system, source.node);
    }
    leaf_args(w, leaf, &sig, cond);
    if (source.node != SEL_NONE && !sel_compile_is_flow(c, source.node) &&
        sel_system_task(c->system, source.node)->storage_read_only) {
        w->read_only_leaf = leaf;
        w->read_only_node = source.node;
    }
    return cond;
}

/* --- and, or, not --- */

static const struct sel_cond *nary_cond(struct walk *w, enum sel_cond_op op,
                                        const struct sel_ynode *list)
{
    struct sel_compiler *c = w->c;
    if (list->kind != SEL_LIST || list->list.count == 0) {
        sel_diag_error(c->diag, list->pos, "`%s` needs a list of conditions; got %s",
                       op == SEL_COND_AND ? "and" : "or", sel_compile_got(c, list));
        return broken(w);
    }
    struct sel_cond *cond = SEL_COMPILE_NEW(c, struct sel_cond, 1);
    const struct sel_cond **children =
        SEL_COMPILE_NEW(c, const struct sel_cond *, list->list.count);
    if (!cond || !children)
        return broken(w);
    for (uint32_t i = 0; i < list->list.count; i++)
        children[i] = tree(w, list->list.items[i]);
    *cond = (struct sel_cond){.op = op,
                              .children = children,
                              .child_count = list->list.count,
                              .from_index = SEL_COND_NO_NODE};
    return cond;
}

static const struct sel_cond *not_cond(struct walk *w, const struct sel_ynode *child)
{
    struct sel_compiler *c = w->c;
    if (child->kind == SEL_LIST) {
        sel_diag_error(c->diag, child->pos,
                       "`not` takes one condition, not a list; write `not: {and: [...]}`");
        return broken(w);
    }
    struct sel_cond *cond = SEL_COMPILE_NEW(c, struct sel_cond, 1);
    const struct sel_cond **children = SEL_COMPILE_NEW(c, const struct sel_cond *, 1);
    if (!cond || !children)
        return broken(w);
    children[0] = tree(w, child);
    *cond = (struct sel_cond){
        .op = SEL_COND_NOT, .children = children, .child_count = 1, .from_index = SEL_COND_NO_NODE};
    return cond;
}

/* Of several operators in one mapping the original takes the first of or, not, and. */
static const struct sel_cond *operator_cond(struct walk *w, const struct sel_ynode *node)
{
    static const char *const keys[] = {"or", "not", "and", "name", NULL};
    struct sel_compiler *c = w->c;
    const struct sel_ynode *child = NULL;
    size_t op = 0;
    while (op < 3 && !(child = sel_yaml_get(node, keys[op])))
        op++;
    if (!child) {
        (void)sel_compile_check_keys(c, node, "a condition", keys); /* says which are known */
        return broken(w);
    }
    for (uint32_t i = 0; i < node->map.count; i++) {
        const struct sel_ynode *key = node->map.pairs[i].key;
        if (node->map.pairs[i].val != child || !sel_str_eq_c(key->text, keys[op]))
            sel_diag_warning(c->diag, key->pos, "ignored: '%s' beside `%s` in a condition",
                             sel_compile_show(c, key->text), keys[op]);
    }
    if (op == 1)
        return not_cond(w, child);
    return nary_cond(w, op == 0 ? SEL_COND_OR : SEL_COND_AND, child);
}

/* Depth is bounded by the parser: SEL_YAML_DEPTH_MAX. */
static const struct sel_cond *tree(struct walk *w, const struct sel_ynode *node)
{
    if (node->kind != SEL_MAP || node->map.count == 0) {
        sel_diag_error(w->c->diag, node->pos,
                       "a condition must be a mapping with `name`, `and`, `or` or `not`; got %s",
                       sel_compile_got(w->c, node));
        return broken(w);
    }
    return sel_yaml_get(node, "name") ? leaf_cond(w, node) : operator_cond(w, node);
}

bool sel_compile_condition(struct sel_compiler *c, const struct sel_compile_scope *scope,
                           const struct sel_ynode *map, const struct sel_cond **ret,
                           const char **ret_text)
{
    struct walk w = {.c = c, .scope = scope};
    const struct sel_ynode *node = sel_yaml_get(map, "condition");
    *ret = c->always;
    *ret_text = c->always_text;
    if (!node)
        return true;
    const struct sel_cond *cond = tree(&w, node);
    if (w.is_broken)
        return false;
    /* The original minds a read-only task anywhere in a condition that reads some result. */
    if (scope->has_results && w.read_only_leaf && sel_cond_needs_message(cond))
        sel_compile_inconsistent(c, w.read_only_leaf->pos,
                                 "the condition reads results, but '%s' does not store its own "
                                 "(`storage_read_only`)",
                                 sel_compile_node_name(c, w.read_only_node));
    const char *text = sel_cond_format(c->arena, cond);
    if (!text)
        c->no_memory = true;
    *ret = cond;
    *ret_text = text ? text : "";
    return true;
}

int sel_compile_constant(const struct sel_cond *cond)
{
    if (cond->op == SEL_COND_TRUE)
        return 1;
    if (cond->op == SEL_COND_LEAF) {
        if (cond->builtin && strcmp(cond->builtin->name, "alwaysTrue") == 0)
            return 1;
        return cond->builtin && strcmp(cond->builtin->name, "alwaysFalse") == 0 ? 0 : -1;
    }
    if (cond->op == SEL_COND_NOT) {
        int child = sel_compile_constant(cond->children[0]);
        return child < 0 ? -1 : !child;
    }
    int stops = cond->op == SEL_COND_OR; /* the answer of a child that decides */
    int answer = !stops;
    for (uint32_t i = 0; i < cond->child_count; i++) {
        int child = sel_compile_constant(cond->children[i]);
        if (child == stops)
            return stops;
        if (child < 0)
            answer = -1;
    }
    return answer;
}
