#include "core/value.h"

#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "core/hash.h"

const struct sel_value sel_value_null = {.o = {.type = MSGPACK_OBJECT_NIL}};
const uint8_t sel_value_null_bytes[1] = {0xc0};

/* The walks below take a list or map as a run of objects: key and value of a map lie side by side.
 */
_Static_assert(sizeof(struct msgpack_object_kv) == 2 * sizeof(struct msgpack_object),
               "a map is a run of objects: key, value, key, value");
_Static_assert(sizeof(struct sel_value) == sizeof(struct msgpack_object),
               "an array of values is an array of objects");

/* Kinds and readers */

enum sel_kind sel_value_kind(const struct sel_value *v)
{
    static const uint8_t kinds[] = {
        [MSGPACK_OBJECT_NIL] = SEL_NULL,
        [MSGPACK_OBJECT_BOOLEAN] = SEL_BOOL,
        [MSGPACK_OBJECT_POSITIVE_INTEGER] = SEL_INT,
        [MSGPACK_OBJECT_NEGATIVE_INTEGER] = SEL_INT,
        [MSGPACK_OBJECT_FLOAT32] = SEL_FLOAT,
        [MSGPACK_OBJECT_FLOAT64] = SEL_FLOAT,
        [MSGPACK_OBJECT_STR] = SEL_TEXT,
        [MSGPACK_OBJECT_ARRAY] = SEL_LIST,
        [MSGPACK_OBJECT_MAP] = SEL_MAP,
        [MSGPACK_OBJECT_BIN] = SEL_BIN,
        [MSGPACK_OBJECT_EXT] = SEL_EXT,
    };
    if (!v)
        return SEL_NULL;
    SEL_ASSERT((unsigned)v->o.type < SEL_COUNT(kinds));
    return (enum sel_kind)kinds[v->o.type];
}

const char *sel_value_kind_name(enum sel_kind kind)
{
    static const char *const names[] = {
        [SEL_NULL] = "null",   [SEL_BOOL] = "bool", [SEL_INT] = "int",
        [SEL_FLOAT] = "float", [SEL_TEXT] = "text", [SEL_BIN] = "bytes",
        [SEL_LIST] = "list",   [SEL_MAP] = "map",   [SEL_EXT] = "ext",
    };
    return (unsigned)kind < SEL_COUNT(names) ? names[kind] : "?";
}

bool sel_value_bool(const struct sel_value *v)
{
    SEL_ASSERT(sel_value_is(v, SEL_BOOL));
    return v->o.via.boolean;
}

bool sel_value_i64(const struct sel_value *v, int64_t *ret)
{
    SEL_ASSERT(sel_value_is(v, SEL_INT));
    if (v->o.type == MSGPACK_OBJECT_POSITIVE_INTEGER && v->o.via.u64 > INT64_MAX)
        return false;
    *ret = v->o.via.i64;
    return true;
}

double sel_value_num(const struct sel_value *v)
{
    if (sel_value_is(v, SEL_FLOAT))
        return v->o.via.f64;
    SEL_ASSERT(sel_value_is(v, SEL_INT));
    if (v->o.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)v->o.via.u64;
    return (double)v->o.via.i64;
}

struct sel_str sel_value_str(const struct sel_value *v)
{
    if (sel_value_is(v, SEL_BIN))
        return (struct sel_str){v->o.via.bin.ptr, v->o.via.bin.size};
    SEL_ASSERT(sel_value_is(v, SEL_TEXT));
    return (struct sel_str){v->o.via.str.ptr, v->o.via.str.size};
}

uint32_t sel_value_count(const struct sel_value *v)
{
    if (sel_value_is(v, SEL_MAP))
        return v->o.via.map.size;
    SEL_ASSERT(sel_value_is(v, SEL_LIST));
    return v->o.via.array.size;
}

static const struct sel_value *from_object(const struct msgpack_object *o)
{
    return (const struct sel_value *)o;
}

const struct sel_value *sel_value_at(const struct sel_value *list, uint32_t i)
{
    SEL_ASSERT(sel_value_is(list, SEL_LIST));
    SEL_ASSERT(i < list->o.via.array.size);
    return from_object(&list->o.via.array.ptr[i]);
}

const struct sel_value *sel_value_key_at(const struct sel_value *map, uint32_t i)
{
    SEL_ASSERT(sel_value_is(map, SEL_MAP));
    SEL_ASSERT(i < map->o.via.map.size);
    return from_object(&map->o.via.map.ptr[i].key);
}

const struct sel_value *sel_value_val_at(const struct sel_value *map, uint32_t i)
{
    SEL_ASSERT(sel_value_is(map, SEL_MAP));
    SEL_ASSERT(i < map->o.via.map.size);
    return from_object(&map->o.via.map.ptr[i].val);
}

static bool is_container(const struct msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_ARRAY || o->type == MSGPACK_OBJECT_MAP;
}

static bool is_text(const struct msgpack_object *o, struct sel_str text)
{
    return o->type == MSGPACK_OBJECT_STR && o->via.str.size == text.n &&
           (text.n == 0 || memcmp(o->via.str.ptr, text.p, text.n) == 0);
}

const struct sel_value *sel_value_get(const struct sel_value *map, struct sel_str key)
{
    if (!sel_value_is(map, SEL_MAP))
        return NULL;
    for (uint32_t i = map->o.via.map.size; i-- > 0;)
        if (is_text(&map->o.via.map.ptr[i].key, key))
            return from_object(&map->o.via.map.ptr[i].val);
    return NULL;
}

const struct sel_value *sel_value_get_c(const struct sel_value *map, const char *key)
{
    return sel_value_get(map, sel_str_c(key));
}

bool sel_value_is_true(const struct sel_value *v)
{
    switch (sel_value_kind(v)) {
    case SEL_NULL:
        return false;
    case SEL_BOOL:
        return v->o.via.boolean;
    case SEL_INT:
        return v->o.via.u64 != 0;
    case SEL_FLOAT:
        return v->o.via.f64 != 0.0;
    case SEL_TEXT:
    case SEL_BIN:
        return sel_value_str(v).n != 0;
    case SEL_LIST:
    case SEL_MAP:
        return sel_value_count(v) != 0;
    case SEL_EXT:
        break;
    }
    return true;
}

/* Equality */

enum equality {
    EQUAL = 0,
    SAME = 1,    /* within a kind only */
    ORDERED = 2, /* a map only if its entries have the same order */
};

static bool objects_match(const struct msgpack_object *a, const struct msgpack_object *b,
                          unsigned how, unsigned depth);

/* A list or map as a run of objects: of a map key, value, key, value. */
static uint64_t run_size(const struct msgpack_object *o)
{
    if (o->type == MSGPACK_OBJECT_MAP)
        return 2 * (uint64_t)o->via.map.size;
    return o->via.array.size;
}

static const struct msgpack_object *run_start(const struct msgpack_object *o)
{
    if (o->type == MSGPACK_OBJECT_MAP)
        return o->via.map.size ? &o->via.map.ptr->key : NULL;
    return o->via.array.ptr;
}

static bool bytes_equal(const char *a, uint32_t a_size, const char *b, uint32_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

/* A bool, int or float, split so that no comparison rounds. */
struct number {
    bool is_float;
    bool is_negative; /* of an int */
    uint64_t u64;     /* of an int, in two's complement */
    double f64;
};

static bool number_of(const struct msgpack_object *o, struct number *ret)
{
    *ret = (struct number){0};
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        ret->u64 = o->via.boolean;
        return true;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        ret->u64 = o->via.u64;
        return true;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        ret->is_negative = true;
        ret->u64 = o->via.u64;
        return true;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        ret->is_float = true;
        ret->f64 = o->via.f64;
        return true;
    default:
        return false;
    }
}

/* A double holds 53 bits: the double goes to the integer, never the other way, which would round
 * 2^53 + 1 to 2^53. */
static bool int_equals_float(const struct number *i, double f)
{
    if (!(f >= -0x1p63 && f < 0x1p64) || f != trunc(f))
        return false; /* NaN ends here too */
    if (f < 0)
        return i->is_negative && (uint64_t)(int64_t)f == i->u64;
    return !i->is_negative && (uint64_t)f == i->u64;
}

static bool numbers_equal(const struct number *a, const struct number *b)
{
    if (a->is_float && b->is_float)
        return a->f64 == b->f64;
    if (a->is_float)
        return int_equals_float(b, a->f64);
    if (b->is_float)
        return int_equals_float(a, b->f64);
    return a->is_negative == b->is_negative && a->u64 == b->u64;
}

static bool scalars_match(const struct msgpack_object *a, const struct msgpack_object *b,
                          unsigned how)
{
    struct number x, y;
    if (number_of(a, &x)) {
        if (!number_of(b, &y))
            return false;
        if (!(how & SAME))
            return numbers_equal(&x, &y);
        if (x.is_float && y.is_float && isnan(x.f64) && isnan(y.f64))
            return true;
        return sel_value_kind(from_object(a)) == sel_value_kind(from_object(b)) &&
               numbers_equal(&x, &y);
    }
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case MSGPACK_OBJECT_STR:
        return bytes_equal(a->via.str.ptr, a->via.str.size, b->via.str.ptr, b->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return bytes_equal(a->via.bin.ptr, a->via.bin.size, b->via.bin.ptr, b->via.bin.size);
    case MSGPACK_OBJECT_EXT:
        return a->via.ext.type == b->via.ext.type &&
               bytes_equal(a->via.ext.ptr, a->via.ext.size, b->via.ext.ptr, b->via.ext.size);
    default:
        return a->type == MSGPACK_OBJECT_NIL;
    }
}

/* From here on a map is searched through an index. */
#define INDEX_FROM 24

/* Finds the last entry of a key. Without an index, for lack of memory or because the map is small,
 * it searches from the end.
 *
 * Keys that are maps themselves match only in the same order: to search within keys at each level
 * takes time exponential in the depth, and nobody has such keys but who wants that to happen. */
struct finder {
    const msgpack_object_map *map;
    struct sel_map index; /* text keys to positions */
};

static void finder_init(struct finder *finder, const msgpack_object_map *map)
{
    *finder = (struct finder){.map = map};
    if (map->size < INDEX_FROM)
        return;
    for (uint32_t i = map->size; i-- > 0;) { /* from the end: the first added stays */
        const struct msgpack_object *key = &map->ptr[i].key;
        if (key->type != MSGPACK_OBJECT_STR)
            continue;
        struct sel_str text = {key->via.str.ptr, key->via.str.size};
        if (sel_map_add(&finder->index, text, i, NULL) < 0) {
            sel_map_done(&finder->index);
            return;
        }
    }
}

/* The position of the key's last entry, map->size if there is none. */
static uint32_t finder_find(const struct finder *finder, const struct msgpack_object *key,
                            unsigned how, unsigned depth)
{
    const msgpack_object_map *map = finder->map;
    if (key->type == MSGPACK_OBJECT_STR && finder->index.count) {
        struct sel_str text = {key->via.str.ptr, key->via.str.size};
        uint32_t i;
        return sel_map_get(&finder->index, text, &i) ? i : map->size;
    }
    for (uint32_t i = map->size; i-- > 0;)
        if (objects_match(&map->ptr[i].key, key, how | ORDERED, depth))
            return i;
    return map->size;
}

/* Matches each counting entry of `a` with its counterpart in `b`; true if all have one. Entries
 * that a later duplicate overrides do not count. */
static bool entries_match(const struct finder *a, const struct finder *b, unsigned how,
                          unsigned depth)
{
    uint32_t a_count = 0, b_count = 0;
    for (uint32_t i = 0; i < a->map->size; i++) {
        const struct msgpack_object_kv *entry = &a->map->ptr[i];
        if (finder_find(a, &entry->key, how, depth) != i)
            continue;
        uint32_t j = finder_find(b, &entry->key, how, depth);
        if (j == b->map->size || !objects_match(&entry->val, &b->map->ptr[j].val, how, depth))
            return false;
        a_count++;
    }
    for (uint32_t j = 0; j < b->map->size; j++)
        b_count += finder_find(b, &b->map->ptr[j].key, how, depth) == j;
    return a_count == b_count;
}

static __attribute__((noinline)) bool
maps_match(const msgpack_object_map *a, const msgpack_object_map *b, unsigned how, unsigned depth)
{
    struct finder x, y;
    finder_init(&x, a);
    finder_init(&y, b);
    bool match = entries_match(&x, &y, how, depth);
    sel_map_done(&x.index);
    sel_map_done(&y.index);
    return match;
}

static bool objects_match(const struct msgpack_object *a, const struct msgpack_object *b,
                          unsigned how, unsigned depth)
{
    if (!is_container(a))
        return scalars_match(a, b, how);
    if (a->type != b->type || depth == SEL_VALUE_DEPTH_MAX)
        return false;
    if (a->type == MSGPACK_OBJECT_MAP && !(how & ORDERED))
        return maps_match(&a->via.map, &b->via.map, how, depth + 1);
    uint64_t size = run_size(a);
    if (size != run_size(b))
        return false;
    const struct msgpack_object *x = run_start(a), *y = run_start(b);
    for (uint64_t i = 0; i < size; i++)
        if (!objects_match(&x[i], &y[i], how, depth + 1))
            return false;
    return true;
}

bool sel_value_equal(const struct sel_value *a, const struct sel_value *b)
{
    return objects_match(a ? &a->o : &sel_value_null.o, b ? &b->o : &sel_value_null.o, EQUAL, 0);
}

bool sel_value_same(const struct sel_value *a, const struct sel_value *b)
{
    return objects_match(a ? &a->o : &sel_value_null.o, b ? &b->o : &sel_value_null.o, SAME, 0);
}

/* Makers */

struct sel_value sel_value_from_bool(bool b)
{
    return (struct sel_value){{.type = MSGPACK_OBJECT_BOOLEAN, .via.boolean = b}};
}

struct sel_value sel_value_from_i64(int64_t i)
{
    if (i >= 0)
        return sel_value_from_u64((uint64_t)i);
    return (struct sel_value){{.type = MSGPACK_OBJECT_NEGATIVE_INTEGER, .via.i64 = i}};
}

struct sel_value sel_value_from_u64(uint64_t i)
{
    return (struct sel_value){{.type = MSGPACK_OBJECT_POSITIVE_INTEGER, .via.u64 = i}};
}

struct sel_value sel_value_from_f64(double f)
{
    return (struct sel_value){{.type = MSGPACK_OBJECT_FLOAT64, .via.f64 = f}};
}

struct sel_value sel_value_from_str(struct sel_str s)
{
    SEL_ASSERT(s.n <= UINT32_MAX); /* of msgpack; whoever reads larger input refuses it there */
    return (struct sel_value){
        {.type = MSGPACK_OBJECT_STR, .via.str = {.size = (uint32_t)s.n, .ptr = s.p}}};
}

struct sel_value sel_value_from_bin(struct sel_str s)
{
    SEL_ASSERT(s.n <= UINT32_MAX);
    return (struct sel_value){
        {.type = MSGPACK_OBJECT_BIN, .via.bin = {.size = (uint32_t)s.n, .ptr = s.p}}};
}

struct sel_value sel_value_from_c(const char *text)
{
    return text ? sel_value_from_str(sel_str_c(text)) : sel_value_null;
}

struct sel_value sel_value_from_list(const struct sel_value *items, uint32_t count)
{
    /* msgpack-c has no const; nothing ever writes through a value */
    struct msgpack_object *objects = (struct msgpack_object *)(uintptr_t)items;
    return (struct sel_value){
        {.type = MSGPACK_OBJECT_ARRAY, .via.array = {.size = count, .ptr = objects}}};
}

/* Builders */

void sel_value_begin_list(struct sel_value_builder *b, struct sel_arena *arena)
{
    *b = (struct sel_value_builder){.arena = arena};
}

void sel_value_begin_map(struct sel_value_builder *b, struct sel_arena *arena)
{
    *b = (struct sel_value_builder){.arena = arena, .is_map = true};
}

static bool builder_grow(struct sel_value_builder *b)
{
    uint32_t cap = b->cap ? b->cap * 2 : 8;
    struct sel_value *items = NULL;
    if (cap > b->cap)
        items = sel_arena_alloc_raw(b->arena, (size_t)cap * sizeof(*items), _Alignof(void *));
    if (!items) {
        b->failed = true;
        return false;
    }
    if (b->count)
        memcpy(items, b->items, (size_t)b->count * sizeof(*items));
    b->items = items;
    b->cap = cap;
    return true;
}

static void builder_add(struct sel_value_builder *b, struct sel_value item)
{
    if (b->failed || (b->count == b->cap && !builder_grow(b)))
        return;
    b->items[b->count++] = item;
}

void sel_value_add(struct sel_value_builder *b, struct sel_value item)
{
    SEL_ASSERT(!b->is_map);
    builder_add(b, item);
}

void sel_value_put_key(struct sel_value_builder *b, struct sel_value key, struct sel_value item)
{
    SEL_ASSERT(b->is_map);
    builder_add(b, key);
    builder_add(b, item);
}

void sel_value_put(struct sel_value_builder *b, struct sel_str key, struct sel_value item)
{
    sel_value_put_key(b, sel_value_from_str(key), item);
}

void sel_value_put_c(struct sel_value_builder *b, const char *key, struct sel_value item)
{
    sel_value_put_key(b, sel_value_from_str(sel_str_c(key)), item);
}

int sel_value_end(struct sel_value_builder *b, struct sel_value *ret)
{
    if (b->failed)
        return SEL_ENOMEM;
    *ret = sel_value_from_list(b->items, b->count);
    if (b->is_map) {
        struct msgpack_object_kv *entries = (struct msgpack_object_kv *)(void *)b->items;
        ret->o = (struct msgpack_object){.type = MSGPACK_OBJECT_MAP,
                                         .via.map = {.size = b->count / 2, .ptr = entries}};
    }
    return 0;
}
