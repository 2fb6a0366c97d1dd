/* core/buf.h - a growing byte buffer.
 *
 * A zeroed `struct sel_buf` is empty. Errors stick: after a failed append `failed` is set and
 * further appends do nothing, so that a writer checks once, at the end. Not thread safe. */
#ifndef SEL_CORE_BUF_H
#define SEL_CORE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/assert.h"
#include "core/str.h"

struct sel_buf {
    uint8_t *p;
    size_t n;
    size_t cap;
    size_t limit; /* 0: none; set before the first append */
    bool failed;
    bool over_limit; /* failed because of a limit, not of the heap */
};

void sel_buf_done(struct sel_buf *buf);
/* Empty again, memory kept, `failed` cleared. */
void sel_buf_clear(struct sel_buf *buf);
/* Room for `more` bytes at p + n, which the caller may write and then add to n. false: failed. */
bool sel_buf_reserve(struct sel_buf *buf, size_t more);
/* Makes the buffer fail as if its limit had been reached, for writers with limits of their own. */
void sel_buf_fail_limit(struct sel_buf *buf);
void sel_buf_put_growing(struct sel_buf *buf, const void *p, size_t n);
static inline void sel_buf_put(struct sel_buf *buf, const void *p, size_t n)
{
    /* cap is at most limit + 1, so what stays below cap is within the limit */
    if (!buf->failed && n < buf->cap - buf->n && n > 0) {
        memcpy(buf->p + buf->n, p, n);
        buf->n += n;
    } else {
        sel_buf_put_growing(buf, p, n);
    }
}
static inline void sel_buf_put_u8(struct sel_buf *buf, uint8_t byte)
{
    sel_buf_put(buf, &byte, 1);
}
void sel_buf_put_str(struct sel_buf *buf, struct sel_str s);
void sel_buf_put_c(struct sel_buf *buf, const char *text);
void sel_buf_printf(struct sel_buf *buf, const char *fmt, ...) SEL_PRINTF(2, 3);
/* Unsigned LEB128, at most 10 bytes. */
void sel_buf_put_varint(struct sel_buf *buf, uint64_t value);
/* 0, or SEL_ENOMEM / SEL_ELIMIT if an append failed. */
int sel_buf_error(const struct sel_buf *buf) SEL_WARN_UNUSED;
/* The content as text, terminated (the terminator does not count); "" if it failed. */
const char *sel_buf_cstr(struct sel_buf *buf);
static inline struct sel_str sel_buf_str(const struct sel_buf *buf)
{
    return (struct sel_str){(const char *)buf->p, buf->n};
}

/* Reads a varint at *pos of n bytes; false if cut or over 64 bits. */
bool sel_buf_get_varint(const uint8_t *p, size_t n, size_t *pos, uint64_t *ret_value);

#endif
