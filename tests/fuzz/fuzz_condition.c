/* The input is msgpack: [condition, message, node_args], the condition written as in YAML. Whatever
 * it is, it is evaluated and formatted; an answer depends on nothing but the input, negation turns
 * it over, and the order of two values is the same from both sides. */
#include "core/arena.h"
#include "core/condition.h"
#include "core/predicate_internal.h"
#include "core/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    const struct sel_value *message;
    uint32_t asked_count;
    bool is_silent; /* has no answer yet */
};

static int give_message(void *ctx, uint32_t from_index, const struct sel_value **ret)
{
    struct world *world = ctx;
    SEL_ASSERT(from_index == 0);
    world->asked_count++;
    if (world->is_silent)
        return SEL_ENEED;
    *ret = world->message;
    return 0;
}

static int give_external(void *ctx, const struct sel_cond *leaf, const struct sel_value *message)
{
    struct world *world = ctx;
    SEL_ASSERT(!leaf->builtin || leaf->builtin->needs_io);
    SEL_ASSERT((message != NULL) == (leaf->input == SEL_INPUT_MESSAGE));
    return world->is_silent ? SEL_ENEED : (int)(leaf->name.n % 2);
}

static const char *fake_getenv(void *ctx, const char *name)
{
    (void)ctx;
    SEL_ASSERT(name[0] && !strchr(name, '='));
    return name[0] == 'A' ? name : NULL;
}

static const struct sel_predicate_world variables = {fake_getenv, NULL};

/* ---- the condition ---- */

static const struct sel_cond *build(struct sel_arena *arena, const struct sel_value *tree);

static void build_leaf(struct sel_cond *cond, const struct sel_value *tree)
{
    const struct sel_value *args = sel_value_get_c(tree, "args");
    cond->op = SEL_COND_LEAF;
    cond->name = sel_value_str(sel_value_get_c(tree, "name"));
    cond->builtin = sel_predicate_find(cond->name);
    cond->input = cond->builtin ? cond->builtin->input : SEL_INPUT_MESSAGE;
    cond->from_index = cond->input == SEL_INPUT_MESSAGE ? 0 : SEL_COND_NO_NODE;
    cond->node = SEL_STR("Node");
    cond->args = args ? *args : sel_value_null;
    for (uint32_t i = 0; cond->builtin && i < cond->builtin->arg_count; i++)
        cond->arg_values[i] = sel_value_get_c(args, cond->builtin->args[i]);
}

static bool build_children(struct sel_arena *arena, struct sel_cond *cond, enum sel_cond_op op,
                           const struct sel_value *trees, uint32_t count)
{
    const struct sel_cond **children = SEL_ARENA_NEW_ARRAY(arena, const struct sel_cond *, count);
    for (uint32_t i = 0; children && i < count; i++) {
        children[i] = build(arena, op == SEL_COND_NOT ? trees : sel_value_at(trees, i));
        if (!children[i])
            return false;
    }
    cond->op = op;
    cond->children = children;
    cond->child_count = count;
    return children != NULL;
}

/* NULL: no memory. What is no condition is one that was not written. */
static const struct sel_cond *build(struct sel_arena *arena, const struct sel_value *tree)
{
    static const char *const words[] = {"and", "or", "not"};
    static const enum sel_cond_op ops[] = {SEL_COND_AND, SEL_COND_OR, SEL_COND_NOT};
    struct sel_cond *cond = SEL_ARENA_NEW(arena, struct sel_cond);
    if (!cond)
        return NULL;
    const struct sel_value *name = sel_value_get_c(tree, "name");
    if (name && sel_value_is(name, SEL_TEXT)) {
        build_leaf(cond, tree);
        return cond;
    }
    for (size_t i = 0; i < SEL_COUNT(ops); i++) {
        const struct sel_value *child = sel_value_get_c(tree, words[i]);
        bool is_list = child && sel_value_is(child, SEL_LIST) && sel_value_count(child) > 0;
        if (child && (ops[i] == SEL_COND_NOT || is_list)) {
            uint32_t count = ops[i] == SEL_COND_NOT ? 1 : sel_value_count(child);
            return build_children(arena, cond, ops[i], child, count) ? cond : NULL;
        }
    }
    return cond;
}

/* ---- what must hold ---- */

static int eval(const struct sel_cond *cond, struct world *world, const struct sel_value *node_args)
{
    struct sel_cond_env env = {
        .ctx = world,
        .node_args = node_args,
        .world = &variables,
        .message = give_message,
        .external = give_external,
    };
    return sel_cond_eval(cond, &env);
}

static void check_answers(const struct sel_cond *cond, const struct sel_value *message,
                          const struct sel_value *node_args)
{
    struct world world = {.message = message}, silent = {.message = message, .is_silent = true};
    const struct sel_cond *inner[] = {cond};
    struct sel_cond negated = {.op = SEL_COND_NOT, .child_count = 1, .children = inner};
    int r = eval(cond, &world, node_args);
    SEL_ASSERT(r == 0 || r == 1);
    SEL_ASSERT(world.asked_count == 0 || sel_cond_needs_message(cond));
    SEL_ASSERT(eval(cond, &world, node_args) == r);
    SEL_ASSERT(eval(&negated, &world, node_args) == !r);
    int early = eval(cond, &silent, node_args);
    SEL_ASSERT(early == SEL_ENEED || early == r);
}

static void check_text(struct sel_arena *arena, const struct sel_cond *cond)
{
    const char *text = sel_cond_format(arena, cond), *again = sel_cond_format(arena, cond);
    if (text && again) /* the arena may be at its limit */
        SEL_ASSERT(strcmp(text, again) == 0);
}

static void check_order(const struct sel_value *a, const struct sel_value *b)
{
    bool less = sel_predicate_compare(a, SEL_OP_LESS, b);
    bool greater = sel_predicate_compare(a, SEL_OP_GREATER, b);
    bool equal = sel_predicate_compare(a, SEL_OP_EQUAL, b);
    SEL_ASSERT(less + greater + equal <= 1);
    SEL_ASSERT(less == sel_predicate_compare(b, SEL_OP_GREATER, a));
    SEL_ASSERT(equal == sel_predicate_compare(b, SEL_OP_EQUAL, a));
    SEL_ASSERT(equal != sel_predicate_compare(a, SEL_OP_NOT_EQUAL, b));
    SEL_ASSERT(!less || sel_predicate_compare(a, SEL_OP_LESS_EQUAL, b));
    SEL_ASSERT(!greater || sel_predicate_compare(a, SEL_OP_GREATER_EQUAL, b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_arena arena;
    struct sel_value input;
    sel_arena_init(&arena, 65536 + 512 * size);
    if (sel_value_decode(&arena, data, size, false, &input, NULL) == 0 &&
        sel_value_is(&input, SEL_LIST) && sel_value_count(&input) == 3) {
        const struct sel_value *message = sel_value_at(&input, 1);
        const struct sel_value *node_args = sel_value_at(&input, 2);
        const struct sel_cond *cond = build(&arena, sel_value_at(&input, 0));
        check_order(message, node_args);
        if (cond) {
            check_answers(cond, message, node_args);
            check_text(&arena, cond);
        }
    }
    sel_arena_done(&arena);
    return 0;
}
