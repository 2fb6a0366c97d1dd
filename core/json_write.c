#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"

/* Writing. The walk keeps its own stack: coroutine stacks are small. A key that is itself a list or
 * map is written as the text of its JSON; each such level doubles the backslashes, so their number
 * has a limit of its own. */
#define KEY_DEPTH_MAX 3

struct open {
    const struct msgpack_object *o;
    const uint32_t *order; /* of the keys, NULL: as they are */
    uint32_t next;         /* entry or element to write */
};

struct writer {
    struct sel_buf *buf;
    struct sel_arena scratch; /* sorted orders, texts of keys */
    unsigned flags;
    unsigned key_depth;
    unsigned depth;
    struct open *stack; /* of SEL_VALUE_DEPTH_MAX */
};

static void write_at_depth(const struct sel_value *v, unsigned flags, unsigned key_depth,
                           struct sel_buf *buf);

/* Texts */

/* The code point at `p` and its size; U+FFFD for bytes that are no UTF-8. */
static uint32_t code_point(struct sel_str s, size_t *ret_size)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (s.n < size || !sel_str_is_utf8((struct sel_str){s.p, size})) {
        *ret_size = 1;
        return 0xfffd;
    }
    *ret_size = size;
    uint32_t c = size == 1 ? p[0] : p[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++)
        c = c << 6 | (p[i] & 0x3fu);
    return c;
}

static void put_unit(struct sel_buf *buf, uint32_t unit)
{
    sel_buf_printf(buf, "\\u%04x", unit);
}

static void put_escaped(struct sel_buf *buf, uint32_t c)
{
    static const char names[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; i + 1 < sizeof(names); i += 2) {
        if (c == (unsigned char)names[i]) {
            sel_buf_put_u8(buf, '\\');
            sel_buf_put_u8(buf, (uint8_t)names[i + 1]);
            return;
        }
    }
    if (c < 0x10000) {
        put_unit(buf, c);
    } else {
        put_unit(buf, 0xd7c0 + (c >> 10));
        put_unit(buf, 0xdc00 + (c & 0x3ff));
    }
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void put_text(struct writer *w, struct sel_str s)
{
    bool ascii = w->flags & SEL_JSON_ASCII;
    sel_buf_put_u8(w->buf, '"');
    while (s.n) {
        size_t n = 0;
        while (n < s.n && is_plain((unsigned char)s.p[n]))
            n++;
        sel_buf_put(w->buf, s.p, n);
        s = (struct sel_str){s.p + n, s.n - n};
        if (s.n == 0)
            break;
        uint32_t c = code_point(s, &n);
        bool is_bad = c == 0xfffd && n == 1;
        if (c < 0x20 || c == '"' || c == '\\' || (ascii && c >= 0x7f))
            put_escaped(w->buf, c);
        else if (is_bad)
            sel_buf_put_c(w->buf, "\xef\xbf\xbd");
        else
            sel_buf_put(w->buf, s.p, n);
        s = (struct sel_str){s.p + n, s.n - n};
    }
    sel_buf_put_u8(w->buf, '"');
}

static void put_base64(struct sel_buf *buf, const char *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)bytes;
    sel_buf_put_u8(buf, '"');
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t three = (uint32_t)p[i] << 16;
        three |= left > 1 ? (uint32_t)p[i + 1] << 8 : 0;
        three |= left > 2 ? p[i + 2] : 0u;
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                        left > 1 ? digits[three >> 6 & 63] : '=',
                        left > 2 ? digits[three & 63] : '='};
        sel_buf_put(buf, four, sizeof(four));
    }
    sel_buf_put_u8(buf, '"');
}

/* Numbers */

#define FLOAT_DIGITS_MAX 17

/* The fewest digits that read back as `f`, without zeros at the end; returns the exponent of the
 * first digit. 15 digits survive in every normal double; only subnormal ones hold fewer. */
static int shortest_digits(double f, char digits[FLOAT_DIGITS_MAX + 1])
{
    char text[FLOAT_DIGITS_MAX + 16];
    int precision = fabs(f) < 0x1p-1022 ? 1 : 15;
    do
        (void)snprintf(text, sizeof(text), "%.*e", precision - 1, fabs(f));
    while (precision++ < FLOAT_DIGITS_MAX && strtod(text, NULL) != fabs(f));
    const char *exponent = strchr(text, 'e');
    size_t n = 0;
    for (const char *p = text; p < exponent; p++)
        if (*p != '.')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    return (int)strtol(exponent + 1, NULL, 10);
}

/* As Python's repr lays a float out, so that traces of both look alike. */
static void put_float(struct sel_buf *buf, double f)
{
    if (!isfinite(f)) {
        sel_buf_put_c(buf, "null");
        return;
    }
    char digits[FLOAT_DIGITS_MAX + 1];
    int exponent = shortest_digits(f, digits);
    int count = (int)strlen(digits);
    if (signbit(f))
        sel_buf_put_u8(buf, '-');
    if (exponent < -4 || exponent >= 16)
        sel_buf_printf(buf, "%c%s%se%c%02d", digits[0], count > 1 ? "." : "", digits + 1,
                       exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        sel_buf_printf(buf, "0.%.*s%s", -exponent - 1, "000", digits);
    else if (count <= exponent + 1)
        sel_buf_printf(buf, "%s%.*s.0", digits, exponent + 1 - count, "0000000000000000");
    else
        sel_buf_printf(buf, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
}

static void put_u64(struct sel_buf *buf, uint64_t value, bool is_negative)
{
    char text[24];
    size_t at = sizeof(text);
    do
        text[--at] = (char)('0' + value % 10);
    while (value /= 10);
    if (is_negative)
        text[--at] = '-';
    sel_buf_put(buf, text + at, sizeof(text) - at);
}

/* Keys */

/* The text that stands for a key: its own, else its JSON text. */
static struct sel_str key_text(struct writer *w, const struct msgpack_object *key)
{
    const struct sel_value *v = (const struct sel_value *)key;
    if (sel_value_is(v, SEL_TEXT))
        return sel_value_str(v);
    struct sel_str text = SEL_STR("");
    if (w->key_depth == KEY_DEPTH_MAX && (sel_value_is(v, SEL_LIST) || sel_value_is(v, SEL_MAP))) {
        sel_buf_fail_limit(w->buf);
        return text;
    }
    struct sel_buf json = {.limit = w->buf->limit};
    unsigned flags = w->flags & ~(unsigned)SEL_JSON_PRETTY;
    write_at_depth(v, flags, w->key_depth + 1, &json);
    struct sel_str whole = sel_buf_str(&json);
    if (whole.n >= 2 && whole.p[0] == '"') /* bytes: already a text */
        whole = (struct sel_str){whole.p + 1, whole.n - 2};
    char *copy = json.failed ? NULL : sel_arena_strdup(&w->scratch, whole);
    if (copy)
        text = (struct sel_str){copy, whole.n};
    else if (json.over_limit)
        sel_buf_fail_limit(w->buf);
    else
        w->buf->failed = true;
    sel_buf_done(&json);
    return text;
}

struct sort_key {
    struct sel_str text;
    uint32_t i;
};

static int compare_keys(const void *x, const void *y)
{
    const struct sort_key *a = x, *b = y;
    int r = sel_str_cmp(a->text, b->text);
    return r ? r : (a->i > b->i) - (a->i < b->i);
}

/* NULL: the map has nothing to sort, or the writer has failed. */
static const uint32_t *sorted_order(struct writer *w, const msgpack_object_map *map)
{
    if (map->size < 2)
        return NULL;
    struct sort_key *keys = sel_arena_alloc_raw(&w->scratch, map->size * sizeof(*keys), 8);
    uint32_t *order = sel_arena_alloc_raw(&w->scratch, map->size * sizeof(*order), 4);
    if (!keys || !order) {
        w->buf->failed = true;
        return NULL;
    }
    for (uint32_t i = 0; i < map->size; i++)
        keys[i] = (struct sort_key){.text = key_text(w, &map->ptr[i].key), .i = i};
    qsort(keys, map->size, sizeof(*keys), compare_keys);
    for (uint32_t i = 0; i < map->size; i++)
        order[i] = keys[i].i;
    return order;
}

/* The walk */

static void put_newline(struct writer *w)
{
    if (!(w->flags & SEL_JSON_PRETTY))
        return;
    sel_buf_put_u8(w->buf, '\n');
    for (unsigned i = 0; i < w->depth; i++)
        sel_buf_put_c(w->buf, "  ");
}

static void open_container(struct writer *w, const struct msgpack_object *o)
{
    bool is_map = o->type == MSGPACK_OBJECT_MAP;
    uint32_t size = is_map ? o->via.map.size : o->via.array.size;
    if (w->depth == SEL_VALUE_DEPTH_MAX) {
        sel_buf_fail_limit(w->buf); /* nobody could read it back */
        return;
    }
    if (size == 0) {
        sel_buf_put_c(w->buf, is_map ? "{}" : "[]");
        return;
    }
    struct open open = {.o = o};
    if (is_map && (w->flags & SEL_JSON_SORT))
        open.order = sorted_order(w, &o->via.map);
    sel_buf_put_u8(w->buf, is_map ? '{' : '[');
    w->stack[w->depth++] = open;
}

/* A scalar in full; a list or map is opened. */
static void put_object(struct writer *w, const struct msgpack_object *o)
{
    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        sel_buf_put_c(w->buf, "null");
        break;
    case MSGPACK_OBJECT_BOOLEAN:
        sel_buf_put_c(w->buf, o->via.boolean ? "true" : "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        put_u64(w->buf, o->via.u64, false);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        put_u64(w->buf, 0 - o->via.u64, true);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        put_float(w->buf, o->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        put_text(w, (struct sel_str){o->via.str.ptr, o->via.str.size});
        break;
    case MSGPACK_OBJECT_BIN:
        put_base64(w->buf, o->via.bin.ptr, o->via.bin.size);
        break;
    case MSGPACK_OBJECT_EXT:
        put_base64(w->buf, o->via.ext.ptr, o->via.ext.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
    case MSGPACK_OBJECT_MAP:
        open_container(w, o);
        break;
    }
}

/* The next element of the innermost list or map, or its end. */
static void step(struct writer *w)
{
    struct open *open = &w->stack[w->depth - 1];
    bool is_map = open->o->type == MSGPACK_OBJECT_MAP;
    uint32_t size = is_map ? open->o->via.map.size : open->o->via.array.size;
    if (open->next == size) {
        w->depth--;
        put_newline(w);
        sel_buf_put_u8(w->buf, is_map ? '}' : ']');
        return;
    }
    if (open->next > 0)
        sel_buf_put_c(w->buf, (w->flags & (SEL_JSON_SPACED | SEL_JSON_PRETTY)) == SEL_JSON_SPACED
                                  ? ", "
                                  : ",");
    put_newline(w);
    uint32_t i = open->order ? open->order[open->next] : open->next;
    open->next++;
    if (!is_map) {
        put_object(w, &open->o->via.array.ptr[i]);
        return;
    }
    const struct msgpack_object_kv *entry = &open->o->via.map.ptr[i];
    put_text(w, key_text(w, &entry->key));
    sel_buf_put_c(w->buf, w->flags & (SEL_JSON_SPACED | SEL_JSON_PRETTY) ? ": " : ":");
    put_object(w, &entry->val);
}

static void write_at_depth(const struct sel_value *v, unsigned flags, unsigned key_depth,
                           struct sel_buf *buf)
{
    struct open stack[SEL_VALUE_DEPTH_MAX];
    struct writer w = {.buf = buf, .flags = flags, .key_depth = key_depth, .stack = stack};
    put_object(&w, v ? &v->o : &sel_value_null.o);
    while (w.depth > 0 && !buf->failed)
        step(&w);
    sel_arena_done(&w.scratch);
}

void sel_json_write(const struct sel_value *v, unsigned flags, struct sel_buf *buf)
{
    write_at_depth(v, flags, 0, buf);
}
