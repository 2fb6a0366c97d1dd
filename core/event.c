#include "core/event.h"

#include "core/buf.h"

static const struct {
    const char *name;
    uint8_t fields;
} types[SEL_EVENT_TYPE_END] = {
#define ROW(number, name, fields) [number] = {#name, fields},
    SEL_EVENT_LIST(ROW)
#undef ROW
};

const char *sel_event_name(enum sel_event_type type)
{
    return type > 0 && type < SEL_EVENT_TYPE_END ? types[type].name : "?";
}

static void put_id(struct sel_id id, struct sel_buf *buf)
{
    uint64_t halves[2] = {__builtin_bswap64(id.hi), __builtin_bswap64(id.lo)};
    sel_buf_put(buf, halves, sizeof(halves));
}

void sel_event_encode(const struct sel_event *event, struct sel_buf *buf)
{
    SEL_ASSERT(event->type > 0 && event->type < SEL_EVENT_TYPE_END);
    unsigned fields = types[event->type].fields;
    sel_buf_put_u8(buf, (uint8_t)event->type);
    if (fields & 1)
        sel_buf_put_varint(buf, event->a);
    if (fields & 2)
        sel_buf_put_varint(buf, event->b);
    if (fields & 4)
        sel_buf_put_varint(buf, event->c);
    if (fields & SEL_EVENT_ITEMS) {
        SEL_ASSERT(event->list_count <= SEL_EVENT_ITEMS_MAX);
        sel_buf_put_varint(buf, event->list_count);
        for (uint32_t i = 0; i < event->list_count; i++)
            sel_buf_put_varint(buf, event->list[i]);
    }
    if (fields & SEL_EVENT_BYTES) {
        sel_buf_put_varint(buf, event->bytes.n);
        sel_buf_put_str(buf, event->bytes);
    }
    if (fields & SEL_EVENT_ID)
        put_id(event->id, buf);
}

static bool get_u32(const uint8_t *p, size_t n, size_t *pos, uint32_t *ret)
{
    uint64_t value;
    if (!sel_buf_get_varint(p, n, pos, &value) || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

static bool get_list(const uint8_t *p, size_t n, size_t *pos, uint32_t *list,
                     struct sel_event *event)
{
    if (!get_u32(p, n, pos, &event->list_count) || event->list_count > SEL_EVENT_ITEMS_MAX)
        return false;
    for (uint32_t i = 0; i < event->list_count; i++) {
        if (!get_u32(p, n, pos, &list[i]))
            return false;
    }
    event->list = list;
    return true;
}

static bool get_bytes(const uint8_t *p, size_t n, size_t *pos, struct sel_str *ret)
{
    uint64_t size;
    if (!sel_buf_get_varint(p, n, pos, &size) || size > n - *pos)
        return false;
    *ret = (struct sel_str){(const char *)p + *pos, (size_t)size};
    *pos += (size_t)size;
    return true;
}

static bool get_id(const uint8_t *p, size_t n, size_t *pos, struct sel_id *ret)
{
    uint64_t halves[2];
    if (n - *pos < sizeof(halves))
        return false;
    memcpy(halves, p + *pos, sizeof(halves));
    *ret = (struct sel_id){__builtin_bswap64(halves[0]), __builtin_bswap64(halves[1])};
    *pos += sizeof(halves);
    return true;
}

int sel_event_decode(const uint8_t *p, size_t n, size_t *pos, uint32_t *list, struct sel_event *ret)
{
    struct sel_event event = {0};
    size_t at = *pos;
    if (at >= n || p[at] == 0 || p[at] >= SEL_EVENT_TYPE_END)
        return SEL_EFORMAT;
    event.type = (enum sel_event_type)p[at++];
    unsigned fields = types[event.type].fields;
    if (((fields & 1) && !get_u32(p, n, &at, &event.a)) ||
        ((fields & 2) && !get_u32(p, n, &at, &event.b)) ||
        ((fields & 4) && !get_u32(p, n, &at, &event.c)) ||
        ((fields & SEL_EVENT_ITEMS) && !get_list(p, n, &at, list, &event)) ||
        ((fields & SEL_EVENT_BYTES) && !get_bytes(p, n, &at, &event.bytes)) ||
        ((fields & SEL_EVENT_ID) && !get_id(p, n, &at, &event.id)))
        return SEL_EFORMAT;
    *pos = at;
    *ret = event;
    return 0;
}
