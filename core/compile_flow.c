#include "core/compile_internal.h"

#include <math.h>

#include "core/strategy.h"

static const char *const flow_keys[] = {"name",
                                        "edges",
                                        "failures",
                                        "nowait",
                                        "eager_failures",
                                        "cache",
                                        "sampling",
                                        "throttling",
                                        "node_args_from_first",
                                        "propagate_parent",
                                        "propagate_finished",
                                        "propagate_compound_finished",
                                        "propagate_node_args",
                                        "propagate_failures",
                                        "propagate_parent_failures",
                                        "propagate_compound_failures",
                                        "queue",
                                        "max_retry",
                                        "retry_countdown",
                                        NULL};

/* --- lists of nodes --- */

/* Names as written; their nodes become slots. */
static bool node_list(struct sel_compiler *c, const struct sel_ynode *node,
                      struct sel_str **ret_names, uint32_t *ret_count)
{
    struct sel_compile_items items;
    sel_compile_items(&items, node);
    *ret_names = SEL_COMPILE_NEW(c, struct sel_str, items.count);
    for (uint32_t i = 0; *ret_names && i < items.count; i++) {
        uint32_t number = sel_compile_node(c, items.p[i]);
        if (number == SEL_NONE)
            continue;
        (void)sel_compile_slot(c, number, items.p[i]->pos); /* no memory: sticks */
        (*ret_names)[(*ret_count)++] = sel_system_node_name(c->system, number);
    }
    return *ret_count == items.count;
}

static bool flow_nowait(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, "nowait");
    if (!node || node->kind == SEL_NULL)
        return true;
    return node_list(c, node, &flow->def->nowait, &flow->def->nowait_count);
}

/* One node, a list of nodes, or true for all. */
static bool flow_eager(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    const struct sel_ynode *node = sel_yaml_get(flow->tree, "eager_failures");
    if (sel_compile_is_falsy(node))
        return true;
    if (node->kind == SEL_BOOL) {
        flow->def->eager_all = true;
        return true;
    }
    return node_list(c, node, &flow->def->eager, &flow->def->eager_count);
}

/* --- sampling --- */

static bool sampling_value(struct sel_compiler *c, const struct sel_ynode *value, const char *name)
{
    bool is_number = value->kind == SEL_INT || value->kind == SEL_FLOAT;
    double number = is_number ? sel_value_num(&value->num) : -1;
    if (isfinite(number) && number >= 0)
        return true;
    sel_diag_error(c->diag, value->pos,
                   "the sampling argument '%s' must be a number of 0 or more; got %s", name,
                   sel_compile_got(c, value));
    return false;
}

/* What the strategy takes, "a, b"; for messages. */
static const char *arg_list(struct sel_compiler *c, const char *const *names, uint32_t count)
{
    const char *text = count ? "" : "nothing";
    for (uint32_t i = 0; text && i < count; i++)
        text = sel_arena_printf(&c->scratch, "%s%s%s", text, i ? ", " : "", names[i]);
    return text ? text : "";
}

/* Exactly the arguments `names` are needed. */
static bool sampling_args(struct sel_compiler *c, const struct sel_ynode *args,
                          const char *const *names, uint32_t count)
{
    bool ok = true;
    for (uint32_t i = 0; i < count; i++) {
        if (sel_yaml_get(args, names[i]))
            continue;
        sel_diag_error(c->diag, args->pos, "the sampling needs the argument '%s'; it takes %s",
                       names[i], arg_list(c, names, count));
        ok = false;
    }
    for (uint32_t i = 0; i < args->map.count; i++) {
        const struct sel_ynode *key = args->map.pairs[i].key;
        bool is_known = false;
        for (uint32_t k = 0; sel_compile_is_text(key) && k < count; k++)
            is_known = is_known || sel_str_eq_c(key->text, names[k]);
        if (is_known)
            continue;
        sel_diag_error(c->diag, key->pos, "the sampling has no argument '%s'%s",
                       sel_compile_show(c, key->text),
                       sel_compile_hint(c, key->text, names, count, ""));
        ok = false;
    }
    return ok;
}

/* `args` left out: those of the strategy's own. */
static struct sel_value default_args(struct sel_compiler *c, const struct sel_strategy *strategy)
{
    struct sel_value_builder b;
    struct sel_value args = sel_value_null;
    sel_value_begin_map(&b, c->arena);
    for (uint32_t i = 0; i < strategy->arg_count; i++) {
        double number = strategy->defaults[i];
        bool is_whole = rint(number) == number;
        sel_value_put_c(&b, strategy->args[i],
                        is_whole ? sel_value_from_i64((int64_t)number)
                                 : sel_value_from_f64(number));
    }
    if (sel_value_end(&b, &args) < 0)
        c->no_memory = true;
    return args;
}

static bool builtin_sampling(struct sel_compiler *c, const struct sel_ynode *name,
                             const struct sel_ynode *args, struct sel_flow_def *def)
{
    const struct sel_strategy *strategy = sel_strategy_find(name->text);
    if (!strategy) {
        uint32_t count;
        const struct sel_strategy *table = sel_strategy_table(&count);
        const char **names = SEL_COMPILE_SCRATCH(c, const char *, count);
        for (uint32_t i = 0; names && i < count; i++)
            names[i] = table[i].name;
        const char *all = names ? arg_list(c, names, count) : "";
        sel_diag_error(c->diag, name->pos, "there is no sampling '%s'%s; there are %s",
                       sel_compile_show(c, name->text),
                       sel_compile_hint(c, name->text, names, names ? count : 0, ""), all);
        return false;
    }
    if (!args) {
        def->sampling_args = default_args(c, strategy);
        return true;
    }
    bool ok = sampling_args(c, args, strategy->args, strategy->arg_count);
    for (uint32_t i = 0; i < strategy->arg_count; i++) {
        const struct sel_ynode *value = sel_yaml_get(args, strategy->args[i]);
        ok = (!value || sampling_value(c, value, strategy->args[i])) && ok;
    }
    def->sampling_args = sel_compile_value(c, args);
    return ok;
}

/* A strategy of a module, checked as far as the module could be looked at. */
static bool user_sampling(struct sel_compiler *c, const struct sel_ynode *name,
                          const struct sel_ynode *args, struct sel_flow_def *def)
{
    const struct sel_compile_user *user = c->options->user;
    const char *const *names = NULL;
    uint32_t count = 0;
    int r = SEL_EUNSUPPORTED;
    if (user && user->sampling)
        r = user->sampling(user->ctx, def->sampling.module, name->text, &names, &count);
    if (r == SEL_ENOTFOUND) {
        sel_diag_error(c->diag, name->pos, "the module '%s' has no sampling '%s'",
                       sel_compile_show(c, def->sampling.module), sel_compile_show(c, name->text));
        return false;
    }
    if (args) {
        def->sampling_args = sel_compile_value(c, args);
        return r < 0 || sampling_args(c, args, names, count);
    }
    struct sel_value_builder none;
    sel_value_begin_map(&none, c->arena);
    if (sel_value_end(&none, &def->sampling_args) < 0)
        c->no_memory = true;
    return true;
}

/* The value of a needed text key; NULL after an error. */
static const struct sel_ynode *sampling_text(struct sel_compiler *c, const struct sel_ynode *map,
                                             const char *key)
{
    const struct sel_ynode *node = sel_yaml_get(map, key);
    if (sel_compile_is_text(node) && node->text.n > 0)
        return node;
    sel_diag_error(c->diag, node ? node->pos : map->pos, "`sampling` needs `%s` as a text; got %s",
                   key, sel_compile_got(c, node));
    return NULL;
}

static bool flow_sampling(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    static const char *const keys[] = {"name", "import", "args", NULL};
    struct sel_flow_def *def = flow->def;
    const struct sel_ynode *map = sel_yaml_get(flow->tree, "sampling");
    if (sel_compile_is_falsy(map))
        return true;
    if (!sel_compile_is_map(c, map, "`sampling`"))
        return false;
    bool ok = sel_compile_check_keys(c, map, "`sampling`", keys);
    const struct sel_ynode *name = sampling_text(c, map, "name");
    const struct sel_ynode *args = sel_yaml_get(map, "args");
    if (args && !sel_compile_is_map(c, args, "`args` of `sampling`"))
        return false;
    def->has_sampling = true;
    def->sampling.pos = sel_compile_keep_pos(c, map->pos);
    def->sampling.module = SEL_STR("selinon.strategies");
    if (sel_yaml_get(map, "import")) {
        const struct sel_ynode *module = sampling_text(c, map, "import");
        if (!module)
            return false;
        def->sampling.module = sel_compile_keep(c, module->text);
    }
    if (!name)
        return false;
    def->sampling.name = sel_compile_keep(c, name->text);
    if (sel_str_eq_c(def->sampling.module, "selinon.strategies"))
        return builtin_sampling(c, name, args, def) && ok;
    return user_sampling(c, name, args, def) && ok;
}

/* --- the nodes of the flow, once all are known --- */

static void count_out_edges(const struct sel_flow_def *def)
{
    for (uint32_t e = 0; e < def->edge_count; e++) {
        for (uint32_t i = 0; i < def->edges[e].from_count; i++)
            def->nodes[def->edges[e].from[i]].out_edge_count++;
    }
    for (uint32_t i = 0; i < def->choice_count; i++) {
        for (uint32_t k = 0; k < def->choices[i].failed_count; k++)
            def->nodes[def->choices[i].failed[k]].choice_count++;
    }
}

/* Reserves the lists as counted and sets the counts back, for filling to count again. */
static void alloc_node_lists(struct sel_compiler *c, struct sel_flow_node *node)
{
    if (node->out_edge_count > 0) {
        node->out_edges = SEL_COMPILE_NEW(c, uint32_t, node->out_edge_count);
        node->out_pos = SEL_COMPILE_NEW(c, uint32_t, node->out_edge_count);
    }
    if (node->choice_count > 0)
        node->choices = SEL_COMPILE_NEW(c, uint32_t, node->choice_count);
    node->out_edge_count = node->choice_count = 0;
}

static void fill_node_lists(const struct sel_flow_def *def)
{
    for (uint32_t e = 0; e < def->edge_count; e++) {
        for (uint32_t i = 0; i < def->edges[e].from_count; i++) {
            struct sel_flow_node *node = &def->nodes[def->edges[e].from[i]];
            node->out_edges[node->out_edge_count] = e;
            node->out_pos[node->out_edge_count++] = i;
        }
    }
    for (uint32_t i = 0; i < def->choice_count; i++) {
        for (uint32_t k = 0; k < def->choices[i].failed_count; k++) {
            struct sel_flow_node *node = &def->nodes[def->choices[i].failed[k]];
            node->choices[node->choice_count++] = i;
        }
    }
}

static void fill_start_edges(struct sel_compiler *c, struct sel_flow_def *def)
{
    uint32_t count = 0;
    for (uint32_t e = 0; e < def->edge_count; e++)
        count += def->edges[e].from_count == 0;
    def->start_edges = SEL_COMPILE_NEW(c, uint32_t, count);
    for (uint32_t e = 0; def->start_edges && e < def->edge_count; e++) {
        if (def->edges[e].from_count == 0)
            def->start_edges[def->start_edge_count++] = e;
    }
}

static void mark_nodes(const struct sel_compiler *c, struct sel_flow_def *def)
{
    for (uint32_t i = 0; i < def->node_count; i++)
        def->nodes[i].eager = def->eager_all;
    for (uint32_t i = 0; i < def->eager_count; i++) {
        uint32_t node = sel_system_find(c->system, def->eager[i]);
        def->nodes[sel_compile_slot_get(c, node)].eager = true;
    }
    for (uint32_t i = 0; i < def->nowait_count; i++) {
        uint32_t node = sel_system_find(c->system, def->nowait[i]);
        struct sel_flow_node *nowait = &def->nodes[sel_compile_slot_get(c, node)];
        nowait->nowait = true;
        nowait->eager = false; /* nobody learns of its failure */
    }
}

static void finish_nodes(struct sel_compiler *c, struct sel_flow_def *def)
{
    def->nodes = SEL_COMPILE_NEW(c, struct sel_flow_node, c->slot_count);
    if (!def->nodes)
        return;
    def->node_count = c->slot_count;
    for (uint32_t i = 0; i < c->slot_count; i++)
        def->nodes[i].node = c->slots[i].node;
    count_out_edges(def);
    for (uint32_t i = 0; i < def->node_count; i++)
        alloc_node_lists(c, &def->nodes[i]);
    if (c->no_memory)
        return;
    fill_node_lists(def);
    fill_start_edges(c, def);
    mark_nodes(c, def);
    sel_compile_propagate_resolve(c, def);
}

/* --- the definition --- */

static void flow_options(struct sel_compiler *c, struct sel_compile_flow *flow)
{
    struct sel_flow_def *def = flow->def;
    const struct sel_ynode *first = sel_yaml_get(flow->tree, "node_args_from_first");
    sel_compile_retries(c, flow->tree, &def->max_retry, &def->retry_countdown_us);
    sel_compile_throttling(c, flow->tree, &def->throttle_us);
    sel_compile_cache(c, flow->tree, &def->cache);
    sel_compile_queue(c, flow->tree, c->system->default_dispatcher_queue, &def->queue);
    if (first && first->kind != SEL_NULL)
        (void)sel_compile_bool(c, flow->tree, "node_args_from_first", &def->node_args_from_first);
}

void sel_compile_flow_def(struct sel_compiler *c, const struct sel_ynode *tree,
                          struct sel_flow_def *def, bool *ret_broken)
{
    struct sel_compile_flow flow = {.def = def, .tree = tree};
    c->slot_count = 0;
    c->round++;
    def->pos = sel_compile_keep_pos(c, tree->pos);
    bool ok = sel_compile_check_keys(c, tree, "a flow", flow_keys);
    sel_compile_propagate(c, &flow); /* before the edges, which look at it */
    sel_compile_edges(c, &flow);
    sel_compile_failures(c, &flow);
    ok = flow_nowait(c, &flow) && ok;
    ok = flow_eager(c, &flow) && ok;
    ok = flow_sampling(c, &flow) && ok;
    flow_options(c, &flow);
    flow.is_broken = flow.is_broken || !ok;
    *ret_broken = flow.is_broken;
    if (flow.is_broken || c->no_memory)
        return;
    finish_nodes(c, def);
    if (c->no_memory)
        return;
    uint32_t error_count = c->diag->error_count;
    sel_compile_check_flow(c, &flow);
    if (!c->options->no_check && c->diag->error_count == error_count)
        sel_compile_reach_flow(c, &flow);
}
