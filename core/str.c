#include "core/str.h"

#define DISTANCE_SIZE_MAX 64

/* Length of the well-formed sequence of more than one byte at `p`, 0 if there is none; RFC 3629,
 * section 4: the second byte excludes overlong forms, surrogates and what is beyond U+10FFFF. */
static size_t sequence_size(const unsigned char *p, size_t n)
{
    unsigned lead = p[0], low = 0x80, high = 0xbf;
    size_t size;
    if (lead >= 0xc2 && lead <= 0xdf) {
        size = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        size = 3;
        low = lead == 0xe0 ? 0xa0 : low;
        high = lead == 0xed ? 0x9f : high;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        size = 4;
        low = lead == 0xf0 ? 0x90 : low;
        high = lead == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (n < size || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

size_t sel_str_utf8_prefix(struct sel_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;
    while (i < s.n) {
        uint64_t word;
        while (s.n - i >= sizeof(word)) { /* most text is ASCII: eight bytes at a time */
            memcpy(&word, p + i, sizeof(word));
            if (word & UINT64_C(0x8080808080808080))
                break;
            i += sizeof(word);
        }
        while (i < s.n && p[i] < 0x80)
            i++;
        if (i == s.n)
            break;
        size_t size = sequence_size(p + i, s.n - i);
        if (size == 0)
            break;
        i += size;
    }
    return i;
}

bool sel_str_is_utf8(struct sel_str s)
{
    return sel_str_utf8_prefix(s) == s.n;
}

size_t sel_str_code_points(struct sel_str s)
{
    size_t count = 0;
    for (size_t i = 0; i < s.n; i++)
        count += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return count;
}

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned sel_str_distance(struct sel_str a, struct sel_str b, unsigned limit)
{
    if (a.n > DISTANCE_SIZE_MAX || b.n > DISTANCE_SIZE_MAX)
        return limit + 1;
    if ((a.n > b.n ? a.n - b.n : b.n - a.n) > limit)
        return limit + 1;
    unsigned rows[3][DISTANCE_SIZE_MAX + 1]; /* two rows back are needed for a transposition */
    unsigned *before = rows[0], *last = rows[1], *row = rows[2];
    memset(rows, 0, sizeof(rows));
    for (unsigned j = 0; j <= b.n; j++)
        last[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned replace = last[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            row[j] = min_u(replace, min_u(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = min_u(row[j], before[j - 2] + 1);
        }
        unsigned *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return min_u(last[b.n], limit + 1);
}
