/* core/str.h - a borrowed piece of text: pointer and length, no terminator promised. */
#ifndef SEL_CORE_STR_H
#define SEL_CORE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <selinon/base.h> /* struct sel_str */

#define SEL_STR(literal) ((struct sel_str){(literal), sizeof(literal) - 1})
#define SEL_STR_ARG(s) (int)(s).n, (s).p /* for "%.*s" */

static inline struct sel_str sel_str_c(const char *text)
{
    return (struct sel_str){text, text ? strlen(text) : 0};
}

static inline bool sel_str_eq(struct sel_str a, struct sel_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool sel_str_eq_c(struct sel_str a, const char *b)
{
    return sel_str_eq(a, sel_str_c(b));
}

/* Orders by bytes, which for UTF-8 is the order of code points; < 0, 0, > 0. */
static inline int sel_str_cmp(struct sel_str a, struct sel_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int r = n ? memcmp(a.p, b.p, n) : 0;
    return r ? r : (a.n > b.n) - (a.n < b.n);
}

/* True if `s` is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool sel_str_is_utf8(struct sel_str s);

/* Bytes before the first that belongs to no well-formed sequence; s.n if all do. */
size_t sel_str_utf8_prefix(struct sel_str s);

/* Number of code points of a well-formed UTF-8 text. */
size_t sel_str_code_points(struct sel_str s);

/* Damerau-Levenshtein distance (optimal string alignment), at most `limit` + 1; for
 * "did you mean". Texts longer than 64 bytes count as `limit` + 1 apart. */
unsigned sel_str_distance(struct sel_str a, struct sel_str b, unsigned limit);

#endif
