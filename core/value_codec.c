/* Encoding, decoding and copying of whole values: the walks over their trees. */
#include "core/value.h"

#include <string.h>

#include <msgpack/pack.h>

#include "core/arena.h"
#include "core/buf.h"

/* A list or map is a run of objects: key and value of a map lie side by side. */
_Static_assert(sizeof(struct msgpack_object_kv) == 2 * sizeof(struct msgpack_object),
               "a map is a run of objects: key, value, key, value");

static bool is_container(const struct msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_ARRAY || o->type == MSGPACK_OBJECT_MAP;
}

/* Values can be 512 deep and coroutine stacks are small: the walks below keep their own stack of
 * runs still to do in place of recursion. */

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

/* Encoding */

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
