#include "core/value.h"

#include <math.h>
#include <string.h>

#include <msgpack/pack.h>

#include "core/arena.h"
#include "core/buf.h"
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
    EQUAL, /* across numeric kinds */
    SAME,  /* within a kind */
};

static bool objects_match(const struct msgpack_object *a, const struct msgpack_object *b,
                          enum equality how, unsigned depth);

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
                          enum equality how)
{
    struct number x, y;
    if (number_of(a, &x)) {
        if (!number_of(b, &y))
            return false;
        if (how == EQUAL)
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
 * it searches from the end. */
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
                            enum equality how, unsigned depth)
{
    const msgpack_object_map *map = finder->map;
    if (key->type == MSGPACK_OBJECT_STR && finder->index.count) {
        struct sel_str text = {key->via.str.ptr, key->via.str.size};
        uint32_t i;
        return sel_map_get(&finder->index, text, &i) ? i : map->size;
    }
    for (uint32_t i = map->size; i-- > 0;)
        if (objects_match(&map->ptr[i].key, key, how, depth))
            return i;
    return map->size;
}

/* Matches each counting entry of `a` with its counterpart in `b`; true if all have one. Entries
 * that a later duplicate overrides do not count. */
static bool entries_match(const struct finder *a, const struct finder *b, enum equality how,
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

static __attribute__((noinline)) bool maps_match(const msgpack_object_map *a,
                                                 const msgpack_object_map *b, enum equality how,
                                                 unsigned depth)
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
                          enum equality how, unsigned depth)
{
    if (!is_container(a))
        return scalars_match(a, b, how);
    if (a->type != b->type || depth == SEL_VALUE_DEPTH_MAX)
        return false;
    if (a->type == MSGPACK_OBJECT_MAP)
        return maps_match(&a->via.map, &b->via.map, how, depth + 1);
    if (a->via.array.size != b->via.array.size)
        return false;
    for (uint32_t i = 0; i < a->via.array.size; i++)
        if (!objects_match(&a->via.array.ptr[i], &b->via.array.ptr[i], how, depth + 1))
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

/* Encoding. Values can be 512 deep and coroutine stacks are small: the walks below keep their own
 * stack of runs still to do in place of recursion. */

struct run {
    const struct msgpack_object *next, *end;
};

/* The elements of a list or map; empty for all else. */
static struct run children(const struct msgpack_object *o)
{
    if (o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size)
        return (struct run){o->via.array.ptr, o->via.array.ptr + o->via.array.size};
    if (o->type == MSGPACK_OBJECT_MAP && o->via.map.size) {
        const struct msgpack_object *first = &o->via.map.ptr->key;
        return (struct run){first, first + 2 * (size_t)o->via.map.size};
    }
    return (struct run){NULL, NULL};
}

/* The same where the elements are still being made. */
struct writable_run {
    struct msgpack_object *next, *end;
};

static struct writable_run writable_children(const struct msgpack_object *o)
{
    struct run inner = children(o);
    return (struct writable_run){(struct msgpack_object *)(uintptr_t)inner.next,
                                 (struct msgpack_object *)(uintptr_t)inner.end};
}

static int put_bytes(void *data, const char *p, size_t n)
{
    sel_buf_put(data, p, n); /* its errors stick */
    return 0;
}

/* A scalar in full, of a list or map the head. */
static void encode_object(msgpack_packer *packer, const struct msgpack_object *o)
{
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        msgpack_pack_nil(packer);
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        if (o->via.boolean)
            msgpack_pack_true(packer);
        else
            msgpack_pack_false(packer);
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        msgpack_pack_uint64(packer, o->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        msgpack_pack_int64(packer, o->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32: /* msgpack-c keeps it as a double too */
    case MSGPACK_OBJECT_FLOAT64:
        msgpack_pack_double(packer, o->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        msgpack_pack_str(packer, o->via.str.size);
        msgpack_pack_str_body(packer, o->via.str.ptr, o->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        msgpack_pack_bin(packer, o->via.bin.size);
        msgpack_pack_bin_body(packer, o->via.bin.ptr, o->via.bin.size);
        break;
    case MSGPACK_OBJECT_EXT:
        msgpack_pack_ext(packer, o->via.ext.size, o->via.ext.type);
        msgpack_pack_ext_body(packer, o->via.ext.ptr, o->via.ext.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        msgpack_pack_array(packer, o->via.array.size);
        break;
    case MSGPACK_OBJECT_MAP:
        msgpack_pack_map(packer, o->via.map.size);
        break;
    }
}

void sel_value_encode(const struct sel_value *v, struct sel_buf *buf)
{
    const struct msgpack_object *root = v ? &v->o : &sel_value_null.o;
    msgpack_packer packer;
    msgpack_packer_init(&packer, buf, put_bytes);
    struct run stack[SEL_VALUE_DEPTH_MAX + 1];
    unsigned depth = 0;
    stack[0] = (struct run){root, root + 1};
    for (;;) {
        if (stack[depth].next == stack[depth].end) {
            if (depth-- == 0)
                return;
            continue;
        }
        const struct msgpack_object *o = stack[depth].next++;
        encode_object(&packer, o);
        if (!is_container(o))
            continue;
        if (depth == SEL_VALUE_DEPTH_MAX) {
            sel_buf_fail_limit(buf); /* nobody could decode it */
            return;
        }
        stack[++depth] = children(o);
    }
}

/* Copying */

static bool copy_bytes(struct sel_arena *arena, const char **p, uint32_t size)
{
    if (size == 0)
        return true;
    char *copy = sel_arena_alloc_raw(arena, size, 1);
    if (!copy)
        return false;
    memcpy(copy, *p, size);
    *p = copy;
    return true;
}

/* Makes the parts of an object its own; the elements of a list or map are copied as they are. */
static bool own_parts(struct sel_arena *arena, struct msgpack_object *o, struct run inner)
{
    if (inner.next != inner.end) {
        size_t size = (size_t)(inner.end - inner.next) * sizeof(*inner.next);
        void *copy = sel_arena_alloc_raw(arena, size, _Alignof(struct msgpack_object));
        if (!copy)
            return false;
        memcpy(copy, inner.next, size);
        if (o->type == MSGPACK_OBJECT_MAP)
            o->via.map.ptr = copy;
        else
            o->via.array.ptr = copy;
        return true;
    }
    switch (o->type) {
    case MSGPACK_OBJECT_STR:
        return copy_bytes(arena, &o->via.str.ptr, o->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return copy_bytes(arena, &o->via.bin.ptr, o->via.bin.size);
    case MSGPACK_OBJECT_EXT:
        return copy_bytes(arena, &o->via.ext.ptr, o->via.ext.size);
    default:
        return true;
    }
}

int sel_value_copy(struct sel_arena *arena, const struct sel_value *v, struct sel_value *ret)
{
    struct sel_value copy = v ? *v : sel_value_null;
    struct writable_run stack[SEL_VALUE_DEPTH_MAX + 1];
    unsigned depth = 0;
    stack[0] = (struct writable_run){&copy.o, &copy.o + 1};
    for (;;) {
        if (stack[depth].next == stack[depth].end) {
            if (depth-- == 0)
                break;
            continue;
        }
        struct msgpack_object *o = stack[depth].next++;
        if (!own_parts(arena, o, children(o)))
            return SEL_ENOMEM;
        if (!is_container(o))
            continue;
        if (depth == SEL_VALUE_DEPTH_MAX)
            return SEL_ELIMIT;
        stack[++depth] = writable_children(o); /* of the copy by now */
    }
    *ret = copy;
    return 0;
}

/* Decoding. Our own walk instead of msgpack_unpack: it reserves nothing before the input has shown
 * that it can fill it, builds in the arena, and leaves texts where they are. */

struct reader {
    const uint8_t *start, *p, *end;
    uint64_t owed; /* elements announced and not read; each takes a byte at least */
    struct sel_arena *arena;
    struct sel_error *err;
};

static __attribute__((cold)) int refuse(const struct reader *r, int code, const char *what)
{
    return sel_error_set(r->err, code, (struct sel_pos){0}, "msgpack: byte %zu: %s",
                         (size_t)(r->p - r->start), what);
}

static __attribute__((cold)) int refuse_cut(const struct reader *r)
{
    return refuse(r, SEL_EFORMAT, "the data ends within a value");
}

/* Reads a big-endian number of `size` bytes; false if the data is cut. */
static bool take_number(struct reader *r, unsigned size, uint64_t *ret)
{
    if ((size_t)(r->end - r->p) < size)
        return false;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | r->p[i];
    r->p += size;
    *ret = value;
    return true;
}

static int take_u(struct reader *r, unsigned size, struct msgpack_object *o)
{
    o->type = MSGPACK_OBJECT_POSITIVE_INTEGER;
    return take_number(r, size, &o->via.u64) ? 0 : refuse_cut(r);
}

static int take_i(struct reader *r, unsigned size, struct msgpack_object *o)
{
    uint64_t raw;
    if (!take_number(r, size, &raw))
        return refuse_cut(r);
    unsigned shift = 64 - 8 * size;
    o->via.i64 = (int64_t)(raw << shift) >> shift; /* carries the sign down */
    o->type = o->via.i64 < 0 ? MSGPACK_OBJECT_NEGATIVE_INTEGER : MSGPACK_OBJECT_POSITIVE_INTEGER;
    return 0;
}

static int take_float(struct reader *r, unsigned size, struct msgpack_object *o)
{
    uint64_t raw;
    if (!take_number(r, size, &raw))
        return refuse_cut(r);
    o->type = MSGPACK_OBJECT_FLOAT64;
    if (size == sizeof(double)) {
        memcpy(&o->via.f64, &raw, sizeof(double));
    } else {
        uint32_t half = (uint32_t)raw;
        float f;
        memcpy(&f, &half, sizeof(f));
        o->via.f64 = (double)f;
    }
    return 0;
}

static int take_bytes(struct reader *r, uint64_t size, const char **ret)
{
    if (size > (uint64_t)(r->end - r->p))
        return refuse_cut(r);
    *ret = (const char *)r->p;
    r->p += size;
    return 0;
}

static int take_str(struct reader *r, uint64_t size, struct msgpack_object *o)
{
    o->type = MSGPACK_OBJECT_STR;
    o->via.str.size = (uint32_t)size;
    int code = take_bytes(r, size, &o->via.str.ptr);
    if (code < 0)
        return code;
    struct sel_str text = {o->via.str.ptr, size};
    size_t whole = sel_str_utf8_prefix(text);
    if (whole == size)
        return 0;
    r->p -= size - whole;
    return refuse(r, SEL_EFORMAT, "text that is not UTF-8");
}

static int take_bin(struct reader *r, uint64_t size, struct msgpack_object *o)
{
    o->type = MSGPACK_OBJECT_BIN;
    o->via.bin.size = (uint32_t)size;
    return take_bytes(r, size, &o->via.bin.ptr);
}

static int take_ext(struct reader *r, uint64_t size, struct msgpack_object *o)
{
    uint64_t type;
    if (!take_number(r, 1, &type))
        return refuse_cut(r);
    o->type = MSGPACK_OBJECT_EXT;
    o->via.ext.type = (int8_t)type;
    o->via.ext.size = (uint32_t)size;
    return take_bytes(r, size, &o->via.ext.ptr);
}

/* Reserves the `count` elements of a list or the 2 * `count` of a map. All that is owed must fit
 * into what is left of the input, so all reservations together are bounded by its size, however
 * the lists nest. */
static int take_elements(struct reader *r, bool is_map, uint64_t count, struct msgpack_object *o)
{
    uint64_t elements = is_map ? 2 * count : count;
    r->owed += elements;
    if (r->owed > (uint64_t)(r->end - r->p))
        return refuse_cut(r);
    void *run = NULL;
    if (elements) {
        run = sel_arena_alloc_raw(r->arena, elements * sizeof(*o), _Alignof(struct msgpack_object));
        if (!run)
            return refuse(r, SEL_ENOMEM, "no memory for a list or map");
    }
    if (is_map) {
        o->type = MSGPACK_OBJECT_MAP;
        o->via.map = (msgpack_object_map){.size = (uint32_t)count, .ptr = run};
    } else {
        o->type = MSGPACK_OBJECT_ARRAY;
        o->via.array = (msgpack_object_array){.size = (uint32_t)count, .ptr = run};
    }
    return 0;
}

/* A value whose length stands in the next `size` bytes. */
static int take_sized(struct reader *r, uint8_t head, unsigned size, struct msgpack_object *o)
{
    uint64_t n;
    if (!take_number(r, size, &n))
        return refuse_cut(r);
    switch (head) {
    case 0xc4 ... 0xc6:
        return take_bin(r, n, o);
    case 0xc7 ... 0xc9:
        return take_ext(r, n, o);
    case 0xd9 ... 0xdb:
        return take_str(r, n, o);
    case 0xdc ... 0xdd:
        return take_elements(r, false, n, o);
    default:
        return take_elements(r, true, n, o);
    }
}

/* One object; of a list or map the head, its elements follow. */
static int take_object(struct reader *r, struct msgpack_object *o)
{
    if (r->p == r->end)
        return refuse_cut(r);
    uint8_t head = *r->p++;
    r->owed--;
    switch (head) {
    case 0x00 ... 0x7f:
        *o = sel_value_from_u64(head).o;
        return 0;
    case 0x80 ... 0x8f:
        return take_elements(r, true, head & 0x0f, o);
    case 0x90 ... 0x9f:
        return take_elements(r, false, head & 0x0f, o);
    case 0xa0 ... 0xbf:
        return take_str(r, head & 0x1f, o);
    case 0xc0:
        *o = sel_value_null.o;
        return 0;
    case 0xc1:
        r->p--;
        return refuse(r, SEL_EFORMAT, "0xc1 begins no value");
    case 0xc2 ... 0xc3:
        *o = sel_value_from_bool(head == 0xc3).o;
        return 0;
    case 0xc4 ... 0xc6:
        return take_sized(r, head, 1u << (head - 0xc4), o);
    case 0xc7 ... 0xc9:
        return take_sized(r, head, 1u << (head - 0xc7), o);
    case 0xca ... 0xcb:
        return take_float(r, head == 0xca ? 4 : 8, o);
    case 0xcc ... 0xcf:
        return take_u(r, 1u << (head - 0xcc), o);
    case 0xd0 ... 0xd3:
        return take_i(r, 1u << (head - 0xd0), o);
    case 0xd4 ... 0xd8:
        return take_ext(r, UINT64_C(1) << (head - 0xd4), o);
    case 0xd9 ... 0xdb:
        return take_sized(r, head, 1u << (head - 0xd9), o);
    case 0xdc ... 0xdd:
        return take_sized(r, head, 2u << (head - 0xdc), o);
    case 0xde ... 0xdf:
        return take_sized(r, head, 2u << (head - 0xde), o);
    default: /* 0xe0 ... 0xff */
        *o = sel_value_from_i64((int8_t)head).o;
        return 0;
    }
}

static int take_tree(struct reader *r, struct msgpack_object *root)
{
    struct writable_run stack[SEL_VALUE_DEPTH_MAX + 1];
    unsigned depth = 0;
    stack[0] = (struct writable_run){root, root + 1};
    for (;;) {
        if (stack[depth].next == stack[depth].end) {
            if (depth-- == 0)
                return 0;
            continue;
        }
        struct msgpack_object *o = stack[depth].next++;
        int code = take_object(r, o);
        if (code < 0)
            return code;
        if (!is_container(o))
            continue;
        if (depth == SEL_VALUE_DEPTH_MAX)
            return refuse(r, SEL_ELIMIT, "lists and maps nest too deep");
        stack[++depth] = writable_children(o);
    }
}

int sel_value_decode(struct sel_arena *arena, const void *p, size_t n, bool copy,
                     struct sel_value *ret, struct sel_error *err)
{
    struct reader r = {.arena = arena, .err = err, .owed = 1, .start = p, .p = p};
    r.end = n ? r.start + n : r.start; /* no arithmetic on NULL */
    if (copy && n) {                   /* once, as a whole: cheaper than text by text */
        r.start = sel_arena_memdup(arena, p, n);
        if (!r.start) {
            r.start = p;
            return refuse(&r, SEL_ENOMEM, "no memory for a copy");
        }
        r.p = r.start;
        r.end = r.start + n;
    }
    struct sel_value value;
    int code = take_tree(&r, &value.o);
    if (code < 0)
        return code;
    if (r.p != r.end)
        return refuse(&r, SEL_EFORMAT, "more data behind the value");
    *ret = value;
    return 0;
}
