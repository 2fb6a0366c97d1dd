#include "storage/record.h"

#include "core/buf.h"
#include "core/error.h"
#include "storage/crc.h"

#define HEAD 5 /* format, checksum */

static size_t varint_size(uint64_t value)
{
    size_t n = 1;
    while (value >>= 7)
        n++;
    return n;
}

static uint8_t *put_varint(uint8_t *p, uint64_t value)
{
    while (value >= 0x80) {
        *p++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

static uint8_t *put(uint8_t *p, struct sel_str s)
{
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

static uint32_t checksum(struct sel_str key, const uint8_t *data, size_t n)
{
    return sel_crc32c(sel_crc32c(0, key.p, key.n), data + HEAD, n - HEAD);
}

size_t sel_record_size(const struct sel_str *parts, uint32_t count)
{
    SEL_ASSERT(count >= 1 && count <= SEL_RECORD_PARTS_MAX);
    size_t size = HEAD;
    for (uint32_t i = 0; i < count; i++)
        size += parts[i].n + (i + 1 < count ? varint_size(parts[i].n) : 0);
    return size;
}

void sel_record_pack(void *out, struct sel_str key, const struct sel_str *parts, uint32_t count)
{
    uint8_t *begin = out, *p = begin + HEAD;
    for (uint32_t i = 0; i < count; i++) {
        if (i + 1 < count)
            p = put_varint(p, parts[i].n);
        p = put(p, parts[i]);
    }
    size_t size = (size_t)(p - begin);
    SEL_DEBUG_ASSERT(size == sel_record_size(parts, count));
    uint32_t crc = checksum(key, begin, size);
    begin[0] = SEL_RECORD_FORMAT;
    for (unsigned i = 0; i < 4; i++)
        begin[1 + i] = (uint8_t)(crc >> (8 * i));
}

int sel_record_unpack(struct sel_str key, struct sel_str data, struct sel_str *parts,
                      uint32_t count)
{
    SEL_ASSERT(count >= 1 && count <= SEL_RECORD_PARTS_MAX);
    const uint8_t *p = (const uint8_t *)data.p;
    if (data.n < HEAD)
        return SEL_EFORMAT;
    if (p[0] != SEL_RECORD_FORMAT)
        return p[0] == 0 ? SEL_EFORMAT : SEL_EVERSION;
    uint32_t crc = p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24;
    if (crc != checksum(key, p, data.n))
        return SEL_EFORMAT;
    size_t at = HEAD;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t n = data.n - at;
        if (i + 1 < count && (!sel_buf_get_varint(p, data.n, &at, &n) || n > data.n - at))
            return SEL_EFORMAT;
        parts[i] = (struct sel_str){data.p + at, (size_t)n};
        at += (size_t)n;
    }
    return 0;
}
