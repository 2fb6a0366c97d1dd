#include "core/yaml_scalar.h"

#include <math.h>
#include <stdlib.h>

#include "core/arena.h"

/* ---- tags ---- */

#define TAG_PREFIX "tag:yaml.org,2002:"

enum sel_yaml_tag sel_yaml_tag_parse(const char *name)
{
    static const struct {
        const char *name;
        enum sel_yaml_tag tag;
    } tags[] = {
        {"null", SEL_YAML_NULL},   {"bool", SEL_YAML_BOOL},
        {"int", SEL_YAML_INT},     {"float", SEL_YAML_FLOAT},
        {"str", SEL_YAML_STR},     {"binary", SEL_YAML_BINARY},
        {"merge", SEL_YAML_MERGE}, {"timestamp", SEL_YAML_TIMESTAMP},
        {"value", SEL_YAML_VALUE}, {"seq", SEL_YAML_SEQ},
        {"map", SEL_YAML_MAP},     {"set", SEL_YAML_SET},
        {"omap", SEL_YAML_OMAP},   {"pairs", SEL_YAML_PAIRS},
    };
    if (!name || strcmp(name, "!") == 0)
        return SEL_YAML_NONE;
    if (strncmp(name, TAG_PREFIX, sizeof(TAG_PREFIX) - 1) != 0)
        return SEL_YAML_FOREIGN;
    for (size_t i = 0; i < SEL_COUNT(tags); i++) {
        if (strcmp(name + sizeof(TAG_PREFIX) - 1, tags[i].name) == 0)
            return tags[i].tag;
    }
    return SEL_YAML_FOREIGN;
}

/* ---- scanning ---- */

/* The rest of a text; reading past its end gives 0, which no rule below accepts. */
struct scan {
    const char *p, *end;
};

static struct scan scan_of(struct sel_str text)
{
    return (struct scan){text.p, text.p + text.n};
}

static char peek(const struct scan *s)
{
    return s->p < s->end ? *s->p : 0;
}

static bool at_end(const struct scan *s)
{
    return s->p == s->end;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool skip_char(struct scan *s, char c)
{
    if (peek(s) != c || at_end(s))
        return false;
    s->p++;
    return true;
}

/* true: a minus; the sign, if any, is behind. */
static bool skip_sign(struct scan *s)
{
    if (skip_char(s, '-'))
        return true;
    (void)skip_char(s, '+');
    return false;
}

/* Digits and underscores. */
static void skip_digits(struct scan *s)
{
    while (is_digit(peek(s)) || peek(s) == '_')
        s->p++;
}

/* Value of a digit in bases up to 16, else 255. */
static unsigned digit_value(char c)
{
    if (is_digit(c))
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return 255;
}

/* Digits of `base` and underscores, at least one, up to the end. */
static bool is_rest_digits(struct scan s, unsigned base)
{
    if (at_end(&s))
        return false;
    for (; !at_end(&s); s.p++) {
        if (*s.p != '_' && digit_value(*s.p) >= base)
            return false;
    }
    return true;
}

/* Groups of base 60, `:5` or `:59`, one or more. */
static bool skip_groups(struct scan *s)
{
    bool has_group = false;
    while (skip_char(s, ':')) {
        if (!is_digit(peek(s)))
            return false;
        bool is_tens = *s->p++ <= '5';
        if (is_tens && is_digit(peek(s)))
            s->p++;
        has_group = true;
    }
    return has_group;
}

/* ---- the forms of numbers and dates ---- */

static bool is_int(struct sel_str text)
{
    struct scan s = scan_of(text);
    (void)skip_sign(&s);
    if (skip_char(&s, '0')) {
        if (at_end(&s))
            return true;
        if (skip_char(&s, 'b'))
            return is_rest_digits(s, 2);
        if (skip_char(&s, 'x'))
            return is_rest_digits(s, 16);
        return is_rest_digits(s, 8);
    }
    if (!is_digit(peek(&s)))
        return false;
    skip_digits(&s);
    return at_end(&s) || (skip_groups(&s) && at_end(&s));
}

/* An exponent with its sign, or nothing, and then the end. */
static bool is_rest_exponent(struct scan s)
{
    if (at_end(&s))
        return true;
    if (!skip_char(&s, 'e') && !skip_char(&s, 'E'))
        return false;
    if (!skip_char(&s, '-') && !skip_char(&s, '+'))
        return false;
    if (!is_digit(peek(&s)))
        return false;
    while (is_digit(peek(&s)))
        s.p++;
    return at_end(&s);
}

/* `.inf` or `.nan` in three spellings each. */
static bool is_word(struct scan s, const char *lower, const char *title, const char *upper)
{
    struct sel_str rest = {s.p, (size_t)(s.end - s.p)};
    return sel_str_eq_c(rest, lower) || sel_str_eq_c(rest, title) || sel_str_eq_c(rest, upper);
}

static bool is_float(struct sel_str text)
{
    struct scan s = scan_of(text);
    if (is_word(s, ".nan", ".NaN", ".NAN"))
        return true;
    bool has_sign = peek(&s) == '-' || peek(&s) == '+';
    (void)skip_sign(&s);
    if (is_word(s, ".inf", ".Inf", ".INF"))
        return true;
    if (skip_char(&s, '.')) {
        if (has_sign || !is_digit(peek(&s)))
            return false;
        skip_digits(&s);
        return is_rest_exponent(s);
    }
    if (!is_digit(peek(&s)))
        return false;
    skip_digits(&s);
    bool has_groups = peek(&s) == ':';
    if ((has_groups && !skip_groups(&s)) || !skip_char(&s, '.'))
        return false;
    skip_digits(&s);
    return has_groups ? at_end(&s) : is_rest_exponent(s);
}

/* `min` to `max` digits. */
static bool skip_count(struct scan *s, int min, int max)
{
    int n = 0;
    while (n < max && is_digit(peek(s))) {
        s->p++;
        n++;
    }
    return n >= min;
}

static bool is_rest_zone(struct scan s)
{
    while (peek(&s) == ' ' || peek(&s) == '\t')
        s.p++;
    if (at_end(&s))
        return true;
    if (skip_char(&s, 'Z'))
        return at_end(&s);
    if (!skip_char(&s, '-') && !skip_char(&s, '+'))
        return false;
    if (!skip_count(&s, 1, 2))
        return false;
    return at_end(&s) || (skip_char(&s, ':') && skip_count(&s, 2, 2) && at_end(&s));
}

bool sel_yaml_scalar_is_timestamp(struct sel_str text)
{
    struct scan s = scan_of(text);
    if (!skip_count(&s, 4, 4) || !skip_char(&s, '-') || !skip_count(&s, 1, 2) ||
        !skip_char(&s, '-') || !skip_count(&s, 1, 2))
        return false;
    if (at_end(&s))
        return true;
    if (!skip_char(&s, 'T') && !skip_char(&s, 't')) {
        if (peek(&s) != ' ' && peek(&s) != '\t')
            return false;
        while (peek(&s) == ' ' || peek(&s) == '\t')
            s.p++;
    }
    if (!skip_count(&s, 1, 2) || !skip_char(&s, ':') || !skip_count(&s, 2, 2) ||
        !skip_char(&s, ':') || !skip_count(&s, 2, 2))
        return false;
    if (skip_char(&s, '.')) {
        while (is_digit(peek(&s)))
            s.p++;
    }
    return is_rest_zone(s);
}

/* ---- resolving ---- */

static bool is_one_of(struct sel_str text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (sel_str_eq_c(text, words[i]))
            return true;
    }
    return false;
}

/* Words that are not text. All have at most 5 bytes, and most scalars are longer or begin with
 * another letter, so that this is rarely reached. */
static enum sel_yaml_tag resolve_word(struct sel_str text)
{
    static const char *const bools[] = {
        "yes",   "Yes",   "YES",   "no", "No", "NO", "true", "True", "TRUE",
        "false", "False", "FALSE", "on", "On", "ON", "off",  "Off",  "OFF",
    };
    static const char *const nulls[] = {"~", "null", "Null", "NULL"};
    if (is_one_of(text, bools, SEL_COUNT(bools)))
        return SEL_YAML_BOOL;
    return is_one_of(text, nulls, SEL_COUNT(nulls)) ? SEL_YAML_NULL : SEL_YAML_STR;
}

enum sel_yaml_tag sel_yaml_scalar_resolve(struct sel_str text)
{
    if (text.n == 0)
        return SEL_YAML_NULL;
    char c = text.p[0];
    if (is_digit(c) || c == '-' || c == '+' || c == '.') {
        if (is_int(text))
            return SEL_YAML_INT;
        return is_float(text) ? SEL_YAML_FLOAT : SEL_YAML_STR;
    }
    if (text.n <= 5 && strchr("yYnNtTfFoO~", c))
        return resolve_word(text);
    if (c == '<' && sel_str_eq_c(text, "<<"))
        return SEL_YAML_MERGE;
    return c == '=' && text.n == 1 ? SEL_YAML_VALUE : SEL_YAML_STR;
}

/* ---- values ---- */

int sel_yaml_scalar_bool(struct sel_str text, bool *ret)
{
    static const char *const yes[] = {"yes", "true", "on"};
    static const char *const no[] = {"no", "false", "off"};
    char lower[6];
    if (text.n >= sizeof(lower))
        return SEL_ESYNTAX;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    struct sel_str word = {lower, text.n};
    bool is_yes = is_one_of(word, yes, SEL_COUNT(yes));
    if (!is_yes && !is_one_of(word, no, SEL_COUNT(no)))
        return SEL_ESYNTAX;
    *ret = is_yes;
    return 0;
}

/* *value * base + more; false if that is beyond 64 bits. */
static bool grow(uint64_t *value, uint64_t base, uint64_t more)
{
    return !__builtin_mul_overflow(*value, base, value) &&
           !__builtin_add_overflow(*value, more, value);
}

/* The digits of `base` up to the end. 0, SEL_ESYNTAX (underscores only), SEL_ERANGE. */
static int read_digits(struct scan s, unsigned base, uint64_t *ret)
{
    bool has_digit = false;
    *ret = 0;
    for (; !at_end(&s); s.p++) {
        if (*s.p == '_')
            continue;
        has_digit = true;
        if (!grow(ret, base, digit_value(*s.p)))
            return SEL_ERANGE;
    }
    return has_digit ? 0 : SEL_ESYNTAX;
}

/* A decimal number with groups of base 60, if any. */
static int read_decimal(struct scan s, uint64_t *ret)
{
    *ret = 0;
    uint64_t group = 0;
    for (; !at_end(&s); s.p++) {
        if (*s.p == ':') {
            if (!grow(ret, 60, group))
                return SEL_ERANGE;
            group = 0;
        } else if (*s.p != '_' && !grow(&group, 10, digit_value(*s.p))) {
            return SEL_ERANGE;
        }
    }
    return grow(ret, 60, group) ? 0 : SEL_ERANGE;
}

static int read_magnitude(struct scan s, uint64_t *ret)
{
    if (!skip_char(&s, '0'))
        return read_decimal(s, ret);
    if (skip_char(&s, 'b'))
        return read_digits(s, 2, ret);
    if (skip_char(&s, 'x'))
        return read_digits(s, 16, ret);
    s.p--; /* the zero is a digit too */
    return read_digits(s, 8, ret);
}

int sel_yaml_scalar_int(struct sel_str text, struct sel_value *ret)
{
    if (!is_int(text))
        return SEL_ESYNTAX;
    struct scan s = scan_of(text);
    bool is_negative = skip_sign(&s);
    uint64_t magnitude;
    int r = read_magnitude(s, &magnitude);
    if (r < 0)
        return r;
    if (!is_negative) {
        *ret = sel_value_from_u64(magnitude);
        return 0;
    }
    if (magnitude > (uint64_t)INT64_MAX + 1)
        return SEL_ERANGE;
    *ret = sel_value_from_i64((int64_t)(0 - magnitude));
    return 0;
}

/* One number without a sign: digits, dot, digits, exponent; at least one digit. */
static bool is_plain_number(struct scan s)
{
    bool has_digit = is_digit(peek(&s));
    while (is_digit(peek(&s)))
        s.p++;
    if (skip_char(&s, '.')) {
        has_digit = has_digit || is_digit(peek(&s));
        while (is_digit(peek(&s)))
            s.p++;
    }
    if (has_digit && (skip_char(&s, 'e') || skip_char(&s, 'E'))) {
        (void)skip_sign(&s);
        has_digit = is_digit(peek(&s));
        while (is_digit(peek(&s)))
            s.p++;
    }
    return has_digit && at_end(&s);
}

/* Groups of base 60 are summed from the last to the first, as the safe loader does: another order
 * would round differently. `text` is terminated and has no sign and no underscores; it is cut
 * into its groups. */
static int read_float(char *text, size_t n, double *ret)
{
    double sum = 0.0, base = 1.0;
    char *end = text + n;
    while (end) {
        char *colon = memrchr(text, ':', (size_t)(end - text));
        char *group = colon ? colon + 1 : text;
        if (!is_plain_number((struct scan){group, end}))
            return SEL_ESYNTAX;
        sum += strtod(group, NULL) * base;
        base *= 60.0;
        if (colon)
            *colon = 0;
        end = colon;
    }
    *ret = sum;
    return 0;
}

int sel_yaml_scalar_float(struct sel_arena *arena, struct sel_str text, double *ret)
{
    struct scan s = scan_of(text);
    double sign = skip_sign(&s) ? -1.0 : 1.0;
    if (is_word(s, ".nan", ".NaN", ".NAN")) {
        *ret = (double)NAN;
        return 0;
    }
    if (is_word(s, ".inf", ".Inf", ".INF")) {
        *ret = sign * (double)INFINITY;
        return 0;
    }
    char *copy = sel_arena_alloc_raw(arena, (size_t)(s.end - s.p) + 1, 1);
    if (!copy)
        return SEL_ENOMEM;
    size_t n = 0;
    for (; !at_end(&s); s.p++) {
        if (*s.p != '_')
            copy[n++] = *s.p;
    }
    copy[n] = 0;
    double magnitude;
    int r = read_float(copy, n, &magnitude);
    if (r == 0)
        *ret = sign * magnitude;
    return r;
}

static unsigned base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 26;
    if (is_digit(c))
        return (unsigned)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 255;
}

int sel_yaml_scalar_binary(struct sel_arena *arena, struct sel_str text, struct sel_str *ret)
{
    char *out = sel_arena_alloc_raw(arena, text.n / 4 * 3 + 4, 1);
    if (!out)
        return SEL_ENOMEM;
    size_t n = 0;
    unsigned bits = 0, digits = 0, pads = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            continue;
        unsigned value = c == '=' ? 0 : base64_value(c);
        if (value == 255 || (pads > 0 && c != '='))
            return SEL_ESYNTAX;
        pads += c == '=';
        bits = bits << 6 | value;
        if (++digits % 4 == 0) {
            out[n++] = (char)(bits >> 16 & 255);
            out[n++] = (char)(bits >> 8 & 255);
            out[n++] = (char)(bits & 255);
        }
    }
    if (digits % 4 != 0 || pads > 2 || pads > n)
        return SEL_ESYNTAX;
    n -= pads;
    out[n] = 0;
    *ret = (struct sel_str){out, n};
    return 0;
}
