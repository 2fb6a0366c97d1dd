#include "core/predicate.h"

#include "core/mem.h"
#include "core/predicate_internal.h"

bool sel_predicate_is_kind(const struct sel_value *v, enum sel_kind kind)
{
    enum sel_kind is = sel_value_kind(v);
    return is == kind || (kind == SEL_INT && is == SEL_BOOL);
}

static bool eval_always(const struct sel_predicate *self, const struct sel_value *input,
                        const struct sel_value *const args[],
                        const struct sel_predicate_world *world)
{
    (void)input, (void)args, (void)world;
    return self->variant != 0;
}

static bool eval_is(const struct sel_predicate *self, const struct sel_value *input,
                    const struct sel_value *const args[], const struct sel_predicate_world *world)
{
    (void)args, (void)world;
    return sel_predicate_is_kind(input, (enum sel_kind)self->variant);
}

static bool eval_empty(const struct sel_predicate *self, const struct sel_value *input,
                       const struct sel_value *const args[],
                       const struct sel_predicate_world *world)
{
    (void)self, (void)args, (void)world;
    return !sel_value_is_true(input);
}

/* The variable that `name` names, NULL if it is unset or no such variable can exist. */
static const char *look_up_variable(const struct sel_value *name,
                                    const struct sel_predicate_world *world)
{
    if (!world || !world->getenv || !sel_value_is(name, SEL_TEXT))
        return NULL;
    struct sel_str s = sel_value_str(name);
    if (s.n == 0 || memchr(s.p, '=', s.n) || memchr(s.p, '\0', s.n))
        return NULL;

    char small[256]; /* nearly every name; a text of a value has no terminator */
    char *copy = s.n < sizeof(small) ? small : sel_mem_alloc(s.n + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    const char *value = world->getenv(world->ctx, copy);
    if (copy != small)
        (void)sel_mem_free(copy);
    return value;
}

static bool eval_env_exist(const struct sel_predicate *self, const struct sel_value *input,
                           const struct sel_value *const args[],
                           const struct sel_predicate_world *world)
{
    (void)self, (void)input;
    return look_up_variable(args[0], world) != NULL;
}

static bool eval_env_equal(const struct sel_predicate *self, const struct sel_value *input,
                           const struct sel_value *const args[],
                           const struct sel_predicate_world *world)
{
    (void)self, (void)input;
    const char *value = look_up_variable(args[0], world);
    return value && sel_value_is(args[1], SEL_TEXT) && sel_str_eq_c(sel_value_str(args[1]), value);
}

#define COMPARE(name, input, op)                                                                   \
    {                                                                                              \
        name, input, 2, {"key", "value"}, false, sel_predicate_field_compare, op, 0                \
    }
#define LENGTH(name, input, op)                                                                    \
    {                                                                                              \
        name, input, 2, {"key", "length"}, false, sel_predicate_field_length, op, 0                \
    }
#define TYPE(name, input, kind)                                                                    \
    {                                                                                              \
        name, input, 1, {"key"}, false, sel_predicate_field_type, 0, kind                          \
    }
#define URL(name, input, arg, part)                                                                \
    {                                                                                              \
        name, input, 2, {"key", arg}, false, sel_predicate_field_url, 0, part                      \
    }
#define IS(name, input, kind)                                                                      \
    {                                                                                              \
        name, input, 0, {NULL}, false, eval_is, 0, kind                                            \
    }

/* The predicates over one field come twice: of the message, and of the arguments. */
#define FIELD_ROWS(prefix, input)                                                                  \
    TYPE(prefix "Bool", input, SEL_BOOL),                                                          \
        {prefix "Contain", input, 2, {"key", "value"}, false, sel_predicate_field_contain, 0, 0},  \
        TYPE(prefix "Dict", input, SEL_MAP), COMPARE(prefix "Equal", input, SEL_OP_EQUAL),         \
        {prefix "Exist", input, 1, {"key"}, false, sel_predicate_field_exist, 0, 0},               \
        TYPE(prefix "Float", input, SEL_FLOAT), COMPARE(prefix "Greater", input, SEL_OP_GREATER),  \
        COMPARE(prefix "GreaterEqual", input, SEL_OP_GREATER_EQUAL),                               \
        TYPE(prefix "Int", input, SEL_INT), LENGTH(prefix "LenEqual", input, SEL_OP_EQUAL),        \
        LENGTH(prefix "LenGreater", input, SEL_OP_GREATER),                                        \
        LENGTH(prefix "LenGreaterEqual", input, SEL_OP_GREATER_EQUAL),                             \
        LENGTH(prefix "LenLess", input, SEL_OP_LESS),                                              \
        LENGTH(prefix "LenLessEqual", input, SEL_OP_LESS_EQUAL),                                   \
        LENGTH(prefix "LenNotEqual", input, SEL_OP_NOT_EQUAL),                                     \
        COMPARE(prefix "Less", input, SEL_OP_LESS),                                                \
        COMPARE(prefix "LessEqual", input, SEL_OP_LESS_EQUAL),                                     \
        TYPE(prefix "List", input, SEL_LIST), TYPE(prefix "None", input, SEL_NULL),                \
        COMPARE(prefix "NotEqual", input, SEL_OP_NOT_EQUAL), TYPE(prefix "Str", input, SEL_TEXT),  \
        URL(prefix "UrlNetloc", input, "netloc", SEL_URL_NETLOC),                                  \
        URL(prefix "UrlPath", input, "path", SEL_URL_PATH),                                        \
        URL(prefix "UrlScheme", input, "scheme", SEL_URL_SCHEME)

#define IS_ROWS(prefix, input)                                                                     \
    IS(prefix "Bool", input, SEL_BOOL), IS(prefix "Dict", input, SEL_MAP),                         \
        IS(prefix "Float", input, SEL_FLOAT), IS(prefix "Int", input, SEL_INT),                    \
        IS(prefix "List", input, SEL_LIST), IS(prefix "None", input, SEL_NULL),                    \
        IS(prefix "Str", input, SEL_TEXT)

/* Sorted: sel_predicate_find searches by halves. */
static const struct sel_predicate predicates[] = {
    {"alwaysFalse", SEL_INPUT_NONE, 0, {NULL}, false, eval_always, 0, false},
    {"alwaysTrue", SEL_INPUT_NONE, 0, {NULL}, false, eval_always, 0, true},
    {"argsEmpty", SEL_INPUT_ARGS, 0, {NULL}, false, eval_empty, 0, 0},
    FIELD_ROWS("argsField", SEL_INPUT_ARGS),
    IS_ROWS("argsIs", SEL_INPUT_ARGS),
    {"empty", SEL_INPUT_MESSAGE, 0, {NULL}, false, eval_empty, 0, 0},
    {"envEqual", SEL_INPUT_NONE, 2, {"env", "value"}, false, eval_env_equal, 0, 0},
    {"envExist", SEL_INPUT_NONE, 1, {"env"}, false, eval_env_exist, 0, 0},
    FIELD_ROWS("field", SEL_INPUT_MESSAGE),
    /* worker/http.c answers it; here it can only be false */
    {"httpStatus", SEL_INPUT_NONE, 3, {"host", "path", "status"}, true, eval_always, 0, false},
    IS_ROWS("is", SEL_INPUT_MESSAGE),
};

_Static_assert(SEL_COUNT(predicates) == 69, "the original has 69 built-in predicates");

const struct sel_predicate *sel_predicate_table(uint32_t *ret_count)
{
    *ret_count = (uint32_t)SEL_COUNT(predicates);
    return predicates;
}

const struct sel_predicate *sel_predicate_find(struct sel_str name)
{
    size_t low = 0, high = SEL_COUNT(predicates);
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = sel_str_cmp(name, sel_str_c(predicates[mid].name));
        if (order == 0)
            return &predicates[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}
