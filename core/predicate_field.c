/* Predicates over one field. Their meaning is that of the original's language: how things are
 * indexed, ordered, contained and measured there. */
#include "core/predicate_internal.h"

/* ---- ordering ---- */

enum order { ORDER_LESS, ORDER_SAME, ORDER_GREATER, ORDER_NONE };

static enum order order_of(int sign)
{
    return sign < 0 ? ORDER_LESS : sign > 0 ? ORDER_GREATER : ORDER_SAME;
}

static bool is_number(const struct sel_value *v)
{
    enum sel_kind kind = sel_value_kind(v);
    return kind == SEL_BOOL || kind == SEL_INT || kind == SEL_FLOAT;
}

/* Any int64_t or uint64_t; a bool counts as 0 or 1. */
static __int128 int_of(const struct sel_value *v)
{
    if (sel_value_is(v, SEL_BOOL))
        return sel_value_bool(v);
    int64_t i;
    if (sel_value_i64(v, &i))
        return i;
    return v->o.via.u64;
}

/* Exact: a double cannot hold every 64-bit integer, so neither side is converted blindly. */
static enum order order_int_float(__int128 i, double f)
{
    if (f != f)
        return ORDER_NONE;
    if (f >= 0x1p64)
        return ORDER_LESS;
    if (f < -0x1p63)
        return ORDER_GREATER;
    __int128 whole = (__int128)f;
    if (i != whole)
        return i < whole ? ORDER_LESS : ORDER_GREATER;
    double fraction = f - (double)whole; /* exact: it is 0 from 2^53 on */
    return order_of((fraction < 0) - (fraction > 0));
}

static enum order order_floats(double a, double b)
{
    if (a != a || b != b)
        return ORDER_NONE;
    return order_of((a > b) - (a < b));
}

static enum order order_numbers(const struct sel_value *a, const struct sel_value *b)
{
    bool a_float = sel_value_is(a, SEL_FLOAT), b_float = sel_value_is(b, SEL_FLOAT);
    if (a_float && b_float)
        return order_floats(sel_value_num(a), sel_value_num(b));
    if (b_float)
        return order_int_float(int_of(a), sel_value_num(b));
    if (a_float) {
        enum order reverse = order_int_float(int_of(b), sel_value_num(a));
        return reverse == ORDER_NONE ? ORDER_NONE : (enum order)(ORDER_GREATER - reverse);
    }
    __int128 x = int_of(a), y = int_of(b);
    return order_of((x > y) - (x < y));
}

_Static_assert(ORDER_GREATER - ORDER_LESS == ORDER_GREATER, "reversing an order is a subtraction");

static enum order order_values(const struct sel_value *a, const struct sel_value *b);

/* By the first items that are not equal, else by the lengths. */
static enum order order_lists(const struct sel_value *a, const struct sel_value *b)
{
    uint32_t a_count = sel_value_count(a), b_count = sel_value_count(b);
    for (uint32_t i = 0; i < a_count && i < b_count; i++) {
        const struct sel_value *x = sel_value_at(a, i), *y = sel_value_at(b, i);
        if (!sel_value_equal(x, y))
            return order_values(x, y);
    }
    return order_of((a_count > b_count) - (a_count < b_count));
}

/* Recursion ends at SEL_VALUE_DEPTH_MAX: values are not nested deeper. */
static enum order order_values(const struct sel_value *a, const struct sel_value *b)
{
    if (is_number(a) && is_number(b))
        return order_numbers(a, b);
    enum sel_kind kind = sel_value_kind(a);
    if (kind != sel_value_kind(b))
        return ORDER_NONE;
    if (kind == SEL_TEXT || kind == SEL_BIN)
        return order_of(sel_str_cmp(sel_value_str(a), sel_value_str(b)));
    if (kind == SEL_LIST)
        return order_lists(a, b);
    return ORDER_NONE;
}

bool sel_predicate_compare(const struct sel_value *a, enum sel_predicate_op op,
                           const struct sel_value *b)
{
    if (op == SEL_OP_EQUAL)
        return sel_value_equal(a, b);
    if (op == SEL_OP_NOT_EQUAL)
        return !sel_value_equal(a, b);
    enum order order = order_values(a, b);
    switch (op) {
    case SEL_OP_LESS:
        return order == ORDER_LESS;
    case SEL_OP_LESS_EQUAL:
        return order == ORDER_LESS || order == ORDER_SAME;
    case SEL_OP_GREATER:
        return order == ORDER_GREATER;
    default:
        return order == ORDER_GREATER || order == ORDER_SAME;
    }
}

/* ---- finding the field ---- */

/* The position that `key` means in something of `count` items; negative ones count from the end. */
static bool index_of(const struct sel_value *key, size_t count, size_t *ret)
{
    if (!sel_value_is(key, SEL_INT) && !sel_value_is(key, SEL_BOOL))
        return false;
    __int128 i = int_of(key);
    if (i < 0)
        i += (__int128)count;
    if (i < 0 || i >= (__int128)count)
        return false;
    *ret = (size_t)i;
    return true;
}

/* The bytes of code point number `index` of a well-formed text. */
static struct sel_str code_point_at(struct sel_str s, size_t index)
{
    size_t begin = 0, seen = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (((unsigned char)s.p[i] & 0xc0) == 0x80)
            continue; /* in the middle of one */
        if (seen == index + 1)
            return (struct sel_str){s.p + begin, i - begin};
        begin = i;
        seen++;
    }
    return (struct sel_str){s.p + begin, s.n - begin};
}

static const struct sel_value *map_find(const struct sel_value *map, const struct sel_value *key)
{
    if (sel_value_is(key, SEL_TEXT))
        return sel_value_get(map, sel_value_str(key));
    if (sel_value_is(key, SEL_LIST) || sel_value_is(key, SEL_MAP))
        return NULL; /* the original cannot even look for them */
    for (uint32_t i = sel_value_count(map); i > 0; i--) {
        if (sel_value_equal(sel_value_key_at(map, i - 1), key))
            return sel_value_val_at(map, i - 1);
    }
    return NULL;
}

/* `v[key]`; false where there is no such item, or where `v` has none. */
static bool step_into(const struct sel_value *v, const struct sel_value *key, struct sel_value *ret)
{
    size_t i;
    switch (sel_value_kind(v)) {
    case SEL_MAP: {
        const struct sel_value *found = map_find(v, key);
        if (found)
            *ret = *found;
        return found != NULL;
    }
    case SEL_LIST:
        if (!index_of(key, sel_value_count(v), &i))
            return false;
        *ret = *sel_value_at(v, (uint32_t)i);
        return true;
    case SEL_TEXT:
        if (!index_of(key, sel_str_code_points(sel_value_str(v)), &i))
            return false;
        *ret = sel_value_from_str(code_point_at(sel_value_str(v), i));
        return true;
    case SEL_BIN:
        if (!index_of(key, sel_value_str(v).n, &i))
            return false;
        *ret = sel_value_from_u64((unsigned char)sel_value_str(v).p[i]);
        return true;
    default:
        return false;
    }
}

/* A list of keys leads from the input inwards, an empty one to the input itself. */
static bool find_field(const struct sel_value *input, const struct sel_value *key,
                       struct sel_value *ret)
{
    struct sel_value at = input ? *input : sel_value_null;
    if (!sel_value_is(key, SEL_LIST)) {
        if (!step_into(&at, key, &at))
            return false;
    } else {
        for (uint32_t i = 0; i < sel_value_count(key); i++) {
            if (!step_into(&at, sel_value_at(key, i), &at))
                return false;
        }
    }
    *ret = at;
    return true;
}

/* ---- the predicates ---- */

bool sel_predicate_field_exist(const struct sel_predicate *self, const struct sel_value *input,
                               const struct sel_value *const args[],
                               const struct sel_predicate_world *world)
{
    (void)self, (void)world;
    struct sel_value field;
    return find_field(input, args[0], &field);
}

bool sel_predicate_field_type(const struct sel_predicate *self, const struct sel_value *input,
                              const struct sel_value *const args[],
                              const struct sel_predicate_world *world)
{
    (void)world;
    struct sel_value field;
    return find_field(input, args[0], &field) &&
           sel_predicate_is_kind(&field, (enum sel_kind)self->variant);
}

bool sel_predicate_field_compare(const struct sel_predicate *self, const struct sel_value *input,
                                 const struct sel_value *const args[],
                                 const struct sel_predicate_world *world)
{
    (void)world;
    struct sel_value field;
    return find_field(input, args[0], &field) &&
           sel_predicate_compare(&field, (enum sel_predicate_op)self->op, args[1]);
}

static bool length_of(const struct sel_value *v, size_t *ret)
{
    switch (sel_value_kind(v)) {
    case SEL_TEXT:
        *ret = sel_str_code_points(sel_value_str(v));
        return true;
    case SEL_BIN:
        *ret = sel_value_str(v).n;
        return true;
    case SEL_LIST:
    case SEL_MAP:
        *ret = sel_value_count(v);
        return true;
    default:
        return false;
    }
}

bool sel_predicate_field_length(const struct sel_predicate *self, const struct sel_value *input,
                                const struct sel_value *const args[],
                                const struct sel_predicate_world *world)
{
    (void)world;
    struct sel_value field;
    size_t length;
    if (!find_field(input, args[0], &field) || !length_of(&field, &length))
        return false;
    struct sel_value value = sel_value_from_u64(length);
    return sel_predicate_compare(&value, (enum sel_predicate_op)self->op, args[1]);
}

static bool bytes_contain(struct sel_str in, struct sel_str part)
{
    return part.n == 0 || (in.n >= part.n && memmem(in.p, in.n, part.p, part.n) != NULL);
}

/* Bytes hold bytes, and the numbers of their bytes. */
static bool bin_contains(const struct sel_value *bin, const struct sel_value *item)
{
    struct sel_str s = sel_value_str(bin);
    if (sel_value_is(item, SEL_BIN))
        return bytes_contain(s, sel_value_str(item));
    if (!sel_value_is(item, SEL_INT) && !sel_value_is(item, SEL_BOOL))
        return false;
    __int128 byte = int_of(item);
    return byte >= 0 && byte <= 255 && s.n > 0 && memchr(s.p, (int)byte, s.n) != NULL;
}

static bool contains(const struct sel_value *v, const struct sel_value *item)
{
    switch (sel_value_kind(v)) {
    case SEL_TEXT:
        return sel_value_is(item, SEL_TEXT) && bytes_contain(sel_value_str(v), sel_value_str(item));
    case SEL_BIN:
        return bin_contains(v, item);
    case SEL_MAP:
        return map_find(v, item) != NULL;
    case SEL_LIST:
        for (uint32_t i = 0; i < sel_value_count(v); i++) {
            if (sel_value_equal(sel_value_at(v, i), item))
                return true;
        }
        return false;
    default:
        return false;
    }
}

bool sel_predicate_field_contain(const struct sel_predicate *self, const struct sel_value *input,
                                 const struct sel_value *const args[],
                                 const struct sel_predicate_world *world)
{
    (void)self, (void)world;
    struct sel_value field;
    return find_field(input, args[0], &field) && contains(&field, args[1]);
}

/* Only text is a URL; its parts are text and equal to nothing else. */
bool sel_predicate_field_url(const struct sel_predicate *self, const struct sel_value *input,
                             const struct sel_value *const args[],
                             const struct sel_predicate_world *world)
{
    (void)world;
    struct sel_value field;
    return find_field(input, args[0], &field) && sel_value_is(&field, SEL_TEXT) &&
           sel_value_is(args[1], SEL_TEXT) &&
           sel_url_part_is(sel_value_str(&field), (enum sel_url_part)self->variant,
                           sel_value_str(args[1]));
}
