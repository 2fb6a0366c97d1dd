/* The text of a condition. Values are written as the original's language writes them, because
 * traces and plots of the original show them so. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/condition.h"

/* ---- floats ---- */

/* The fewest digits that still read back as the same number: "d.ddde+XX". */
static void shortest_digits(double f, char *out, size_t size)
{
    for (int digits = 0; digits <= 16; digits++) {
        (void)snprintf(out, size, "%.*e", digits, f);
        if (strtod(out, NULL) == f)
            return;
    }
}

/* Plain from 1e-4 up to 1e16, with an exponent beyond; a float never looks like an int. */
static void put_float(struct sel_buf *buf, double f)
{
    if (isnan(f)) {
        sel_buf_put_c(buf, "nan");
        return;
    }
    if (isinf(f)) {
        sel_buf_put_c(buf, f < 0 ? "-inf" : "inf");
        return;
    }
    char text[40];
    shortest_digits(f, text, sizeof(text));
    int digit_count = 0;
    const char *p = text;
    for (; *p && *p != 'e'; p++)
        digit_count += *p >= '0' && *p <= '9';
    int exponent = *p == 'e' ? (int)strtol(p + 1, NULL, 10) : 0;
    if (exponent < -4 || exponent >= 16) {
        sel_buf_put_c(buf, text); /* C and the original agree about this form */
        return;
    }
    int decimals = digit_count - 1 - exponent;
    sel_buf_printf(buf, "%.*f", decimals < 1 ? 1 : decimals, f);
}

/* ---- texts ---- */

struct range {
    uint32_t first, last;
};

/* Code points that are shown as escapes: controls, formats, separators other than the blank,
 * private use. Which code points are unassigned changes with Unicode; they are shown as they are.
 */
static const struct range unprintable[] = {
    {0x0, 0x1f},          {0x7f, 0xa0},       {0xad, 0xad},       {0x600, 0x605},
    {0x61c, 0x61c},       {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},
    {0x8e2, 0x8e2},       {0x1680, 0x1680},   {0x180e, 0x180e},   {0x2000, 0x200f},
    {0x2028, 0x202f},     {0x205f, 0x2064},   {0x2066, 0x206f},   {0x3000, 0x3000},
    {0xd800, 0xf8ff},     {0xfdd0, 0xfdef},   {0xfeff, 0xfeff},   {0xfff9, 0xfffb},
    {0x110bd, 0x110bd},   {0x110cd, 0x110cd}, {0x13430, 0x13438}, {0x1bca0, 0x1bca3},
    {0x1d173, 0x1d17a},   {0xe0001, 0xe0001}, {0xe0020, 0xe007f}, {0xf0000, 0xffffd},
    {0x100000, 0x10fffd},
};

static bool is_printable(uint32_t c)
{
    if (c >= 0x20 && c < 0x7f)
        return true;
    if ((c & 0xfffe) == 0xfffe) /* the last two of each plane are no characters */
        return false;
    for (size_t i = 0; i < SEL_COUNT(unprintable) && unprintable[i].first <= c; i++) {
        if (c <= unprintable[i].last)
            return false;
    }
    return true;
}

/* Takes one code point off a text; a byte that begins none is taken alone. */
static uint32_t next_code_point(struct sel_str *s, struct sel_str *ret_bytes)
{
    unsigned char first = (unsigned char)s->p[0];
    size_t n = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (n > s->n)
        n = 1;
    uint32_t c = n == 1 ? first : first & (0x7fU >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)s->p[i] & 0x3f);
    *ret_bytes = (struct sel_str){s->p, n};
    *s = (struct sel_str){s->p + n, s->n - n};
    return c;
}

static void put_escape(struct sel_buf *buf, uint32_t c)
{
    if (c == '\n')
        sel_buf_put_c(buf, "\\n");
    else if (c == '\r')
        sel_buf_put_c(buf, "\\r");
    else if (c == '\t')
        sel_buf_put_c(buf, "\\t");
    else if (c < 0x100)
        sel_buf_printf(buf, "\\x%02x", (unsigned)c);
    else if (c < 0x10000)
        sel_buf_printf(buf, "\\u%04x", (unsigned)c);
    else
        sel_buf_printf(buf, "\\U%08x", (unsigned)c);
}

/* In single quotes, or in double ones where that saves escapes. */
static char quote_for(struct sel_str s)
{
    bool has_single = s.n > 0 && memchr(s.p, '\'', s.n) != NULL;
    bool has_double = s.n > 0 && memchr(s.p, '"', s.n) != NULL;
    return has_single && !has_double ? '"' : '\'';
}

static void put_text(struct sel_buf *buf, struct sel_str s, bool is_bytes)
{
    char quote = quote_for(s);
    if (is_bytes)
        sel_buf_put_u8(buf, 'b');
    sel_buf_put_u8(buf, (uint8_t)quote);
    while (s.n > 0) {
        struct sel_str bytes = {s.p, 1};
        uint32_t c = (unsigned char)s.p[0];
        if (is_bytes)
            s = (struct sel_str){s.p + 1, s.n - 1};
        else
            c = next_code_point(&s, &bytes);
        if (c == '\\' || c == (uint32_t)quote)
            sel_buf_printf(buf, "\\%c", (int)c);
        else if (is_bytes ? c >= 0x20 && c < 0x7f : is_printable(c))
            sel_buf_put_str(buf, bytes);
        else
            put_escape(buf, c);
    }
    sel_buf_put_u8(buf, (uint8_t)quote);
}

/* ---- values ---- */

static void put_int(struct sel_buf *buf, const struct sel_value *v)
{
    int64_t i;
    if (sel_value_i64(v, &i))
        sel_buf_printf(buf, "%lld", (long long)i);
    else
        sel_buf_printf(buf, "%llu", (unsigned long long)v->o.via.u64);
}

static void put_value(struct sel_buf *buf, const struct sel_value *v);

static void put_list(struct sel_buf *buf, const struct sel_value *v)
{
    sel_buf_put_u8(buf, '[');
    for (uint32_t i = 0; i < sel_value_count(v); i++) {
        if (i > 0)
            sel_buf_put_c(buf, ", ");
        put_value(buf, sel_value_at(v, i));
    }
    sel_buf_put_u8(buf, ']');
}

static void put_map(struct sel_buf *buf, const struct sel_value *v)
{
    sel_buf_put_u8(buf, '{');
    for (uint32_t i = 0; i < sel_value_count(v); i++) {
        if (i > 0)
            sel_buf_put_c(buf, ", ");
        put_value(buf, sel_value_key_at(v, i));
        sel_buf_put_c(buf, ": ");
        put_value(buf, sel_value_val_at(v, i));
    }
    sel_buf_put_u8(buf, '}');
}

/* Recursion ends at SEL_VALUE_DEPTH_MAX. */
static void put_value(struct sel_buf *buf, const struct sel_value *v)
{
    switch (sel_value_kind(v)) {
    case SEL_NULL:
    case SEL_EXT: /* neither JSON nor YAML can write one */
        sel_buf_put_c(buf, "None");
        break;
    case SEL_BOOL:
        sel_buf_put_c(buf, sel_value_bool(v) ? "True" : "False");
        break;
    case SEL_INT:
        put_int(buf, v);
        break;
    case SEL_FLOAT:
        put_float(buf, sel_value_num(v));
        break;
    case SEL_TEXT:
    case SEL_BIN:
        put_text(buf, sel_value_str(v), sel_value_is(v, SEL_BIN));
        break;
    case SEL_LIST:
        put_list(buf, v);
        break;
    case SEL_MAP:
        put_map(buf, v);
        break;
    }
}

/* ---- conditions ---- */

/* A text that is an argument by itself is not escaped, unlike one inside a list or map. Only a zero
 * byte is: it would end the whole text. */
static void put_plain_text(struct sel_buf *buf, struct sel_str s)
{
    sel_buf_put_u8(buf, '\'');
    for (const char *zero; s.n > 0 && (zero = memchr(s.p, '\0', s.n));) {
        size_t n = (size_t)(zero - s.p);
        sel_buf_put(buf, s.p, n);
        put_escape(buf, 0);
        s = (struct sel_str){zero + 1, s.n - n - 1};
    }
    sel_buf_put_str(buf, s);
    sel_buf_put_u8(buf, '\'');
}

static void put_args(struct sel_buf *buf, const struct sel_value *args)
{
    for (uint32_t i = 0; i < sel_value_count(args); i++) {
        const struct sel_value *key = sel_value_key_at(args, i), *v = sel_value_val_at(args, i);
        if (i > 0)
            sel_buf_put_c(buf, ", ");
        if (sel_value_is(key, SEL_TEXT))
            sel_buf_put_str(buf, sel_value_str(key));
        else
            put_value(buf, key);
        sel_buf_put_u8(buf, '=');
        if (sel_value_is(v, SEL_TEXT))
            put_plain_text(buf, sel_value_str(v));
        else
            put_value(buf, v);
    }
}

static void put_leaf(struct sel_buf *buf, const struct sel_cond *leaf)
{
    bool has_args = sel_value_is(&leaf->args, SEL_MAP) && sel_value_count(&leaf->args) > 0;
    sel_buf_put_str(buf, leaf->name);
    sel_buf_put_u8(buf, '(');
    if (leaf->input == SEL_INPUT_MESSAGE) {
        sel_buf_put_c(buf, "db.get('");
        sel_buf_put_str(buf, leaf->node.n > 0 ? leaf->node : SEL_STR("None"));
        sel_buf_put_c(buf, has_args ? "'), " : "')");
    }
    if (has_args)
        put_args(buf, &leaf->args);
    sel_buf_put_u8(buf, ')');
}

static void put_cond(struct sel_buf *buf, const struct sel_cond *cond);

static void put_children(struct sel_buf *buf, const struct sel_cond *cond, const char *between)
{
    sel_buf_put_u8(buf, '(');
    for (uint32_t i = 0; i < cond->child_count; i++) {
        if (i > 0)
            sel_buf_put_c(buf, between);
        put_cond(buf, cond->children[i]);
    }
    sel_buf_put_u8(buf, ')');
}

/* As deep as the YAML was nested, at most SEL_YAML_DEPTH_MAX. */
static void put_cond(struct sel_buf *buf, const struct sel_cond *cond)
{
    switch (cond->op) {
    case SEL_COND_TRUE:
        sel_buf_put_c(buf, "True");
        break;
    case SEL_COND_AND:
        put_children(buf, cond, " and ");
        break;
    case SEL_COND_OR:
        put_children(buf, cond, " or ");
        break;
    case SEL_COND_NOT:
        sel_buf_put_c(buf, "(not ");
        put_cond(buf, cond->children[0]);
        sel_buf_put_u8(buf, ')');
        break;
    case SEL_COND_LEAF:
        put_leaf(buf, cond);
        break;
    }
}

const char *sel_cond_format(struct sel_arena *arena, const struct sel_cond *cond)
{
    struct sel_buf buf = {0};
    put_cond(&buf, cond);
    const char *text = sel_buf_error(&buf) < 0 ? NULL : sel_arena_strdup(arena, sel_buf_str(&buf));
    sel_buf_done(&buf);
    return text;
}
