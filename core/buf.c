#include "core/buf.h"

#include <stdio.h>

#include "core/error.h"
#include "core/mem.h"

#define BUF_SIZE_MIN ((size_t)64)

void sel_buf_done(struct sel_buf *buf)
{
    sel_mem_free(buf->p);
    *buf = (struct sel_buf){.limit = buf->limit};
}

void sel_buf_clear(struct sel_buf *buf)
{
    buf->n = 0;
    buf->failed = false;
    buf->over_limit = false;
}

/* Makes `cap` at least `need`. Stays at the limit and one byte, the terminator of sel_buf_cstr. */
static bool grow(struct sel_buf *buf, size_t need)
{
    if (need <= buf->cap)
        return true;
    size_t want = buf->cap < SIZE_MAX / 2 ? buf->cap * 2 : need;
    if (want < BUF_SIZE_MIN)
        want = BUF_SIZE_MIN;
    if (want < need)
        want = need;
    if (buf->limit && buf->limit < want - 1)
        want = buf->limit + 1;
    uint8_t *p = sel_mem_realloc(buf->p, want);
    if (!p) {
        buf->failed = true;
        return false;
    }
    buf->p = p;
    buf->cap = want;
    return true;
}

bool sel_buf_reserve(struct sel_buf *buf, size_t more)
{
    if (buf->failed)
        return false;
    size_t need;
    if (__builtin_add_overflow(buf->n, more, &need) || (buf->limit && need > buf->limit)) {
        sel_buf_fail_limit(buf);
        return false;
    }
    return grow(buf, need);
}

void sel_buf_fail_limit(struct sel_buf *buf)
{
    buf->failed = true;
    buf->over_limit = true;
}

void sel_buf_put_growing(struct sel_buf *buf, const void *p, size_t n)
{
    if (n == 0 || !sel_buf_reserve(buf, n))
        return;
    memcpy(buf->p + buf->n, p, n);
    buf->n += n;
}

void sel_buf_put_str(struct sel_buf *buf, struct sel_str s)
{
    sel_buf_put(buf, s.p, s.n);
}

void sel_buf_put_c(struct sel_buf *buf, const char *text)
{
    sel_buf_put(buf, text, strlen(text));
}

void sel_buf_printf(struct sel_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) { /* a bad format or more than INT_MAX bytes: the text cannot be made */
        sel_buf_fail_limit(buf);
    } else if (sel_buf_reserve(buf, (size_t)n) && grow(buf, buf->n + (size_t)n + 1)) {
        (void)vsnprintf((char *)buf->p + buf->n, (size_t)n + 1, fmt, again); /* fits */
        buf->n += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void sel_buf_put_varint(struct sel_buf *buf, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    while (value >= 0x80) {
        bytes[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (uint8_t)value;
    sel_buf_put(buf, bytes, n);
}

int sel_buf_error(const struct sel_buf *buf)
{
    if (!buf->failed)
        return 0;
    return buf->over_limit ? SEL_ELIMIT : SEL_ENOMEM;
}

const char *sel_buf_cstr(struct sel_buf *buf)
{
    if (buf->failed || !grow(buf, buf->n + 1))
        return "";
    buf->p[buf->n] = '\0';
    return (const char *)buf->p;
}

bool sel_buf_get_varint(const uint8_t *p, size_t n, size_t *pos, uint64_t *ret_value)
{
    uint64_t value = 0;
    size_t at = *pos;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (at >= n)
            return false;
        uint8_t byte = p[at++];
        if (shift == 63 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *pos = at;
            *ret_value = value;
            return true;
        }
    }
    return false;
}
