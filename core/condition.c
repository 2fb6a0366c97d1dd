#include "core/condition.h"

#include "core/assert.h"

static int eval_leaf(const struct sel_cond *leaf, const struct sel_cond_env *env)
{
    const struct sel_value *message = NULL;
    if (leaf->input == SEL_INPUT_MESSAGE) {
        int r = env->message(env->ctx, leaf->from_index, &message);
        if (r < 0)
            return r;
    }
    const struct sel_predicate *builtin = leaf->builtin;
    if (!builtin || builtin->needs_io)
        return env->external(env->ctx, leaf, message);

    const struct sel_value *input = leaf->input == SEL_INPUT_ARGS ? env->node_args : message;
    if (!input)
        input = &sel_value_null;
    return builtin->eval(builtin, input, leaf->arg_values, env->world);
}

/* The first child that does not answer `go_on` decides; its error, too. */
static int eval_children(const struct sel_cond *cond, const struct sel_cond_env *env, int go_on)
{
    for (uint32_t i = 0; i < cond->child_count; i++) {
        int r = sel_cond_eval(cond->children[i], env);
        if (r != go_on)
            return r;
    }
    return go_on;
}

/* As deep as the YAML was nested, at most SEL_YAML_DEPTH_MAX. */
int sel_cond_eval(const struct sel_cond *cond, const struct sel_cond_env *env)
{
    switch (cond->op) {
    case SEL_COND_TRUE:
        return 1;
    case SEL_COND_AND:
        return eval_children(cond, env, 1);
    case SEL_COND_OR:
        return eval_children(cond, env, 0);
    case SEL_COND_NOT: {
        SEL_ASSERT(cond->child_count == 1);
        int r = sel_cond_eval(cond->children[0], env);
        return r < 0 ? r : !r;
    }
    case SEL_COND_LEAF:
        break;
    }
    SEL_ASSERT(cond->op == SEL_COND_LEAF); /* the compiler makes no other operator */
    return eval_leaf(cond, env);
}

bool sel_cond_needs_message(const struct sel_cond *cond)
{
    if (cond->op == SEL_COND_LEAF)
        return cond->input == SEL_INPUT_MESSAGE;
    for (uint32_t i = 0; i < cond->child_count; i++) {
        if (sel_cond_needs_message(cond->children[i]))
            return true;
    }
    return false;
}
