#include "proto/wire.h"

#include "core/assert.h"
#include "proto/le.h"

#define FLAGS_MUST 0xff00u /* of heads and records: bits that must be understood */
#define TAG_MUST 128u      /* fields from here on must be understood */
#define FIELD_HEADER_SIZE ((size_t)4)
#define RECORD_UNITS (SEL_WIRE_RECORD_SIZE / 8)
#define BEAT_HEAD_SIZE 48u

/* Offsets, as in the tables of PROTOCOL.md. */
enum {
    HEAD_VERSION = 0,
    HEAD_FLAGS = 2,
    HEAD_COUNT = 4,
    HEAD_SESSION = 8,
    HEAD_FIRST = 16,
    HEAD_ACK = 24,
    HEAD_SETTLED = 32,
    HEAD_CREDIT_RECORDS = 40,
    HEAD_CREDIT_BYTES = 48,
    HEAD_END = 56,
};
enum {
    ITEM_SIZE = 0,
    ITEM_TYPE = 4,
    ITEM_HEADER = 5,
    ITEM_FLAGS = 6,
    ITEM_ID = 8,
    ITEM_QUEUE = 24,
    ITEM_PRIORITY = 26,
    ITEM_LEVEL = 27,
    ITEM_CODE = 28,
    ITEM_HANDLE = 32,
    ITEM_FIELDS = 40,
    ITEM_TRY = 44,
    ITEM_DELIVERY = 46,
    ITEM_END = 48,
};
_Static_assert(HEAD_END == SEL_WIRE_HEAD_SIZE, "the table and the head have one size");
_Static_assert(ITEM_END == SEL_WIRE_RECORD_SIZE, "the table and the header have one size");
_Static_assert(SEL_WIRE_RECORD_MAX + SEL_WIRE_DATA_PREFIX <= SEL_WIRE_MESSAGE_MAX,
               "the largest record fits into a message");

/* ---- names and rules, by number ---- */

#define FROM_PRODUCER 1u /* which ways a record may go */
#define TO_PRODUCER 2u
#define FROM_WORKER 4u
#define TO_WORKER 8u

static const struct {
    const char *name;
    unsigned ways;
    bool needs_id, needs_queue, needs_task;
    uint16_t must; /* flags that must be understood and are */
    uint32_t code_max;
} record_rules[SEL_RECORD_END] = {
    [SEL_RECORD_QUEUE] = {"QUEUE", FROM_PRODUCER | TO_PRODUCER | FROM_WORKER | TO_WORKER,
                          .needs_queue = true},
    [SEL_RECORD_SUBMIT] = {"SUBMIT", FROM_PRODUCER, .needs_id = true, .needs_queue = true,
                           .needs_task = true, .must = SEL_ITEM_FLOW | SEL_ITEM_ALL},
    [SEL_RECORD_REFUSED] = {"REFUSED", TO_PRODUCER, .code_max = UINT32_MAX},
    [SEL_RECORD_RESULT] = {"RESULT", TO_PRODUCER, .needs_id = true, .code_max = UINT32_MAX},
    [SEL_RECORD_TASK] = {"TASK", TO_WORKER, .needs_id = true, .needs_queue = true,
                         .needs_task = true,
                         .must = SEL_ITEM_FLOW | SEL_ITEM_HISTORY | SEL_ITEM_THROTTLED},
    [SEL_RECORD_DONE] = {"DONE", FROM_WORKER, .needs_id = true, .code_max = SEL_OUTCOME_FATAL},
    [SEL_RECORD_RETURN] = {"RETURN", FROM_WORKER, .needs_id = true,
                           .code_max = SEL_RETURN_THROTTLED},
    [SEL_RECORD_CANCEL] = {"CANCEL", FROM_PRODUCER | TO_WORKER, .needs_id = true,
                           .code_max = UINT32_MAX},
    [SEL_RECORD_CANCELLED] = {"CANCELLED", FROM_WORKER, .needs_id = true, .code_max = UINT32_MAX},
    [SEL_RECORD_WANT] = {"WANT", FROM_WORKER, .needs_queue = true, .code_max = 1},
    [SEL_RECORD_WATCH] = {"WATCH", FROM_PRODUCER, .needs_id = true, .must = SEL_ITEM_ALL},
    [SEL_RECORD_DECIDE] = {"DECIDE", FROM_WORKER, .needs_id = true, .must = SEL_ITEM_MORE},
    [SEL_RECORD_STATE] = {"STATE", FROM_WORKER | TO_WORKER, .needs_id = true, .must = SEL_ITEM_MORE,
                          .code_max = UINT32_MAX},
    [SEL_RECORD_EVENTS] = {"EVENTS", TO_WORKER, .needs_id = true, .must = SEL_ITEM_MORE,
                           .code_max = UINT32_MAX},
    [SEL_RECORD_ENDED] = {"ENDED", TO_WORKER, .needs_id = true, .must = SEL_ITEM_CONSUMED,
                          .code_max = SEL_OUTCOME_CANCELLED},
    [SEL_RECORD_LIVE] = {"LIVE", TO_WORKER, .needs_id = true, .code_max = UINT32_MAX},
    [SEL_RECORD_VOID] = {"VOID", FROM_WORKER, .must = FLAGS_MUST, .code_max = UINT32_MAX},
};

static const char *const message_names[SEL_MESSAGE_END] = {
    [SEL_MESSAGE_HELLO] = "HELLO",       [SEL_MESSAGE_WELCOME] = "WELCOME",
    [SEL_MESSAGE_DATA] = "DATA",         [SEL_MESSAGE_ERROR] = "ERROR",
    [SEL_MESSAGE_GOODBYE] = "GOODBYE",   [SEL_MESSAGE_BEAT] = "BEAT",
    [SEL_MESSAGE_REDIRECT] = "REDIRECT", [SEL_MESSAGE_QUERY] = "QUERY",
    [SEL_MESSAGE_REPLY] = "REPLY",
};

static const char *const code_names[SEL_CODE_END] = {
    [SEL_CODE_MALFORMED] = "malformed",
    [SEL_CODE_VERSION] = "version",
    [SEL_CODE_UNKNOWN_SESSION] = "unknown session",
    [SEL_CODE_TOO_LARGE] = "too large",
    [SEL_CODE_UNSUPPORTED] = "unsupported",
    [SEL_CODE_ILLEGAL] = "illegal",
    [SEL_CODE_FULL] = "full",
    [SEL_CODE_CONFLICT] = "conflict",
    [SEL_CODE_UNKNOWN_QUEUE] = "unknown queue",
    [SEL_CODE_DRAINING] = "draining",
    [SEL_CODE_UNKNOWN_TASK] = "unknown task",
};

/* size 0: text up to SEL_WIRE_NAME_MAX bytes, else exactly so many bytes */
static const struct {
    const char *name;
    uint16_t size;
    bool may_be_empty;
    bool is_bytes; /* up to the size of a field */
} field_rules[SEL_FIELD_END] = {
    [SEL_FIELD_TASK] = {"task", 0, false, false},
    [SEL_FIELD_COUNTDOWN] = {"countdown", 8, false, false},
    [SEL_FIELD_NOT_BEFORE] = {"not_before", 8, false, false},
    [SEL_FIELD_DEADLINE] = {"deadline", 8, false, false},
    [SEL_FIELD_EXPIRY] = {"expiry", 8, false, false},
    [SEL_FIELD_IDEMPOTENCY_KEY] = {"idempotency_key", 0, false, false},
    [SEL_FIELD_ORDERING_KEY] = {"ordering_key", 0, true, false},
    [SEL_FIELD_LIMIT_KEY] = {"limit_key", 0, true, false},
    [SEL_FIELD_TRACE] = {"trace", 25, false, false},
    [SEL_FIELD_CONTENT_TYPE] = {"content_type", 0, true, false},
    [SEL_FIELD_NAMESPACE] = {"namespace", 0, true, false},
    [SEL_FIELD_ROOT] = {"root", 16, false, false},
    [SEL_FIELD_PARENT] = {"parent", 16, false, false},
    [SEL_FIELD_SELECTIVE] = {"selective", 0, false, true},
    [SEL_FIELD_RUN] = {"run", SEL_WIRE_RUN_SIZE, false, false},
    [SEL_FIELD_FLOW] = {"flow", 0, false, false},
};

const char *sel_wire_record_name(unsigned type)
{
    return type < SEL_RECORD_END && record_rules[type].name ? record_rules[type].name : "?";
}

const char *sel_wire_message_name(unsigned type)
{
    return type < SEL_MESSAGE_END && message_names[type] ? message_names[type] : "?";
}

const char *sel_wire_code_name(unsigned code)
{
    return code < SEL_CODE_END && code_names[code] ? code_names[code] : "?";
}

const char *sel_wire_field_name(unsigned tag)
{
    return tag < SEL_FIELD_END && field_rules[tag].name ? field_rules[tag].name : "?";
}

enum sel_wire_code sel_wire_code_of(int error)
{
    switch (error) {
    case SEL_EVERSION:
        return SEL_CODE_VERSION;
    case SEL_ENOTFOUND:
        return SEL_CODE_UNKNOWN_SESSION;
    case SEL_ELIMIT:
        return SEL_CODE_TOO_LARGE;
    case SEL_EUNSUPPORTED:
        return SEL_CODE_UNSUPPORTED;
    case SEL_ESTATE:
        return SEL_CODE_ILLEGAL;
    case SEL_ENOMEM:
        return SEL_CODE_FULL;
    default:
        return SEL_CODE_MALFORMED;
    }
}

bool sel_wire_is_legal(unsigned type, enum sel_wire_role from, enum sel_wire_role to)
{
    unsigned way = 0;
    if (to == SEL_ROLE_BROKER && from != SEL_ROLE_BROKER)
        way = from == SEL_ROLE_PRODUCER ? FROM_PRODUCER : FROM_WORKER;
    else if (from == SEL_ROLE_BROKER && to != SEL_ROLE_BROKER)
        way = to == SEL_ROLE_PRODUCER ? TO_PRODUCER : TO_WORKER;
    return type < SEL_RECORD_END && (record_rules[type].ways & way);
}

/* ---- frames ---- */

#define REFUSE(err, code, ...) sel_error_set((err), (code), (struct sel_pos){0}, __VA_ARGS__)

/* [type, head, body]: a list of three has one form, and so has a number below 128. */
int sel_wire_message_type(struct sel_str frame, struct sel_error *err)
{
    const uint8_t *p = (const uint8_t *)frame.p;
    if (frame.n < 4 || p[0] != 0x93)
        return REFUSE(err, SEL_EFORMAT, "a message is a list of three: type, head, body");
    if (p[1] < SEL_MESSAGE_HELLO || p[1] >= SEL_MESSAGE_END)
        return REFUSE(err, SEL_EFORMAT, "byte 1: no message has the type %u", p[1]);
    return p[1];
}

/* Takes a bin of any form, as small ones come in a short form from most libraries. */
static bool take_bin(struct sel_str *rest, struct sel_str *ret)
{
    const uint8_t *p = (const uint8_t *)rest->p;
    size_t size, header;
    if (rest->n >= 5 && p[0] == 0xc6) {
        size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        header = 5;
    } else if (rest->n >= 3 && p[0] == 0xc5) {
        size = (size_t)p[1] << 8 | p[2];
        header = 3;
    } else if (rest->n >= 2 && p[0] == 0xc4) {
        size = p[1];
        header = 2;
    } else {
        return false;
    }
    if (size > rest->n - header)
        return false;
    *ret = (struct sel_str){rest->p + header, size};
    *rest = (struct sel_str){ret->p + size, rest->n - header - size};
    return true;
}

/* Divides [type, bin of head_size, bin]. */
static int split_frame(struct sel_str frame, unsigned type, size_t head_size,
                       const uint8_t **ret_head, struct sel_str *ret_body, struct sel_error *err)
{
    int r = sel_wire_message_type(frame, err);
    if (r < 0)
        return r;
    if ((unsigned)r != type)
        return REFUSE(err, SEL_EFORMAT, "a message of type %d, not %u", r, type);
    struct sel_str rest = {frame.p + 2, frame.n - 2}, head, body;
    if (!take_bin(&rest, &head) || head.n != head_size)
        return REFUSE(err, SEL_EFORMAT, "%s: the head is no bin of %zu bytes",
                      sel_wire_message_name(type), head_size);
    if (!take_bin(&rest, &body) || rest.n)
        return REFUSE(err, SEL_EFORMAT, "%s: the body is no bin that fills the message",
                      sel_wire_message_name(type));
    *ret_head = (const uint8_t *)head.p;
    *ret_body = body;
    return 0;
}

/* `buf` gets the frame up to where the body begins; the head is the caller's to fill. */
static uint8_t *put_prefix(struct sel_buf *buf, unsigned type, size_t head_size)
{
    size_t size = 4 + head_size + 5;
    if (!sel_buf_reserve(buf, size))
        return NULL;
    uint8_t *p = buf->p + buf->n;
    p[0] = 0x93;
    p[1] = (uint8_t)type;
    p[2] = 0xc4;
    p[3] = (uint8_t)head_size;
    p[4 + head_size] = 0xc6;
    buf->n += size;
    return p + 4;
}

static void put_body_size(uint8_t *p, size_t size)
{
    uint32_t bytes = htobe32((uint32_t)size);
    memcpy(p, &bytes, sizeof(bytes));
}

/* ---- records in ---- */

/* What is wrong with the frame of the record at p, of which n bytes are there; NULL: nothing. */
static const char *record_fault(const uint8_t *p, size_t n)
{
    if (__builtin_expect(n < SEL_WIRE_RECORD_SIZE, 0))
        return "cut within the header of a record";
    size_t size = sel_le_get32(p + ITEM_SIZE), header = (size_t)p[ITEM_HEADER] * 8;
    if (__builtin_expect(size > n, 0))
        return "a record ends behind its message";
    if (__builtin_expect(header < SEL_WIRE_RECORD_SIZE || header > size, 0))
        return "the size of a record's header cannot be";
    if (__builtin_expect(sel_le_get32(p + ITEM_FIELDS) > size - header, 0))
        return "the fields end behind their record";
    return NULL;
}

/* Walks over all records, so that later the ones to skip need no look. */
static int check_records(struct sel_str body, uint32_t count, struct sel_error *err)
{
    const uint8_t *p = (const uint8_t *)body.p;
    size_t left = body.n;
    for (uint32_t i = 0; i < count; i++) {
        const char *fault = record_fault(p, left);
        if (fault)
            return REFUSE(err, SEL_EFORMAT, "DATA: record %u of %u: %s", i + 1, count, fault);
        size_t size = sel_le_get32(p + ITEM_SIZE);
        if (size > SEL_WIRE_RECORD_MAX)
            return REFUSE(err, SEL_ELIMIT, "DATA: record %u of %u: %zu bytes, more than %zu", i + 1,
                          count, size, SEL_WIRE_RECORD_MAX);
        p += size;
        left -= size;
    }
    if (left)
        return REFUSE(err, SEL_EFORMAT, "DATA: %zu bytes behind the last of %u records", left,
                      count);
    return 0;
}

int sel_wire_decode_data(struct sel_str frame, struct sel_wire_head *ret_head,
                         struct sel_str *ret_records, struct sel_error *err)
{
    const uint8_t *p = NULL;
    struct sel_str body;
    if (frame.n > SEL_WIRE_MESSAGE_MAX)
        return REFUSE(err, SEL_ELIMIT, "DATA: %zu bytes, more than %zu", frame.n,
                      SEL_WIRE_MESSAGE_MAX);
    int r = split_frame(frame, SEL_MESSAGE_DATA, SEL_WIRE_HEAD_SIZE, &p, &body, err);
    if (r < 0)
        return r;
    unsigned version = sel_le_get16(p + HEAD_VERSION);
    if (version != SEL_WIRE_VERSION)
        return REFUSE(err, SEL_EVERSION, "DATA: version %u, not %u", version, SEL_WIRE_VERSION);
    struct sel_wire_head head = {
        .flags = sel_le_get16(p + HEAD_FLAGS),
        .count = sel_le_get32(p + HEAD_COUNT),
        .session = sel_le_get64(p + HEAD_SESSION),
        .first = sel_le_get64(p + HEAD_FIRST),
        .ack = sel_le_get64(p + HEAD_ACK),
        .settled = sel_le_get64(p + HEAD_SETTLED),
        .credit_records = sel_le_get64(p + HEAD_CREDIT_RECORDS),
        .credit_bytes = sel_le_get64(p + HEAD_CREDIT_BYTES),
    };
    if (head.flags & FLAGS_MUST)
        return REFUSE(err, SEL_EUNSUPPORTED, "DATA: unknown flags 0x%x that must be understood",
                      head.flags & FLAGS_MUST);
    if (head.first == 0 || head.first > UINT64_MAX - head.count)
        return REFUSE(err, SEL_EFORMAT, "DATA: `first` is no number of a record");
    if (head.settled > head.ack)
        return REFUSE(err, SEL_EFORMAT, "DATA: `settled` is above `ack`");
    r = check_records(body, head.count, err);
    if (r < 0)
        return r;
    *ret_head = head;
    *ret_records = body;
    return 0;
}

void sel_wire_skip(struct sel_str *records, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        SEL_ASSERT(records->n >= SEL_WIRE_RECORD_SIZE);
        size_t size = sel_le_get32(records->p + ITEM_SIZE);
        SEL_ASSERT(size <= records->n);
        *records = (struct sel_str){records->p + size, records->n - size};
    }
}

int sel_wire_next_field(struct sel_str *rest, uint8_t *ret_tag, struct sel_str *ret_value)
{
    if (rest->n == 0)
        return 0;
    if (rest->n < FIELD_HEADER_SIZE)
        return SEL_EFORMAT;
    size_t size = sel_le_get16(rest->p + 2);
    if (size > rest->n - FIELD_HEADER_SIZE)
        return SEL_EFORMAT;
    *ret_tag = (uint8_t)rest->p[0];
    *ret_value = (struct sel_str){rest->p + FIELD_HEADER_SIZE, size};
    *rest = (struct sel_str){ret_value->p + size, rest->n - FIELD_HEADER_SIZE - size};
    return 1;
}

/* A field that has a name: its size, its text, and the member for those that we act on. */
static int take_known_field(struct sel_wire_item *item, uint8_t tag, struct sel_str value,
                            struct sel_error *err)
{
    size_t size = field_rules[tag].size;
    if (tag == SEL_FIELD_SELECTIVE)
        item->selective = value;
    if (field_rules[tag].is_bytes)
        return 0;
    if (size ? value.n != size : value.n > SEL_WIRE_NAME_MAX)
        return REFUSE(err, SEL_EFORMAT, "field %u (%s): %zu bytes", tag, field_rules[tag].name,
                      value.n);
    if (size == 0 && ((value.n == 0 && !field_rules[tag].may_be_empty) || !sel_str_is_utf8(value)))
        return REFUSE(err, SEL_EFORMAT, "field %u (%s): %s", tag, field_rules[tag].name,
                      value.n ? "text that is not UTF-8" : "empty");
    switch (tag) {
    case SEL_FIELD_TASK:
        item->task = value;
        break;
    case SEL_FIELD_COUNTDOWN:
        item->countdown_us = sel_le_get64(value.p);
        break;
    case SEL_FIELD_NOT_BEFORE:
        item->not_before_unix_us = (int64_t)sel_le_get64(value.p);
        break;
    case SEL_FIELD_IDEMPOTENCY_KEY:
        item->idempotency_key = value;
        break;
    case SEL_FIELD_CONTENT_TYPE:
        item->content_type = value;
        break;
    case SEL_FIELD_LIMIT_KEY:
        item->limit_key = value;
        break;
    default: /* kept in `fields` and handed on */
        break;
    }
    return 0;
}

static int take_fields(struct sel_wire_item *item, struct sel_str rest, struct sel_error *err)
{
    struct sel_str value;
    unsigned before = 0;
    uint8_t tag;
    int r;
    while ((r = sel_wire_next_field(&rest, &tag, &value)) > 0) {
        if (tag <= before)
            return REFUSE(err, SEL_EFORMAT, "field %u behind field %u: tags go up", tag, before);
        before = tag;
        if (tag < SEL_FIELD_END)
            r = take_known_field(item, tag, value, err);
        else if (tag >= TAG_MUST)
            r = REFUSE(err, SEL_EUNSUPPORTED, "unknown field %u that must be understood", tag);
        if (r < 0)
            return r;
    }
    return r < 0 ? REFUSE(err, r, "a field ends behind the fields") : 0;
}

/* What the type asks for, once all is read. */
static int check_item(const struct sel_wire_item *item, struct sel_error *err)
{
    const char *name = record_rules[item->type].name;
    if (record_rules[item->type].needs_id && (item->id.hi | item->id.lo) == 0)
        return REFUSE(err, SEL_EFORMAT, "%s: no id", name);
    if (record_rules[item->type].needs_queue && item->queue == 0)
        return REFUSE(err, SEL_EFORMAT, "%s: no queue", name);
    if (record_rules[item->type].needs_task && item->task.n == 0)
        return REFUSE(err, SEL_EFORMAT, "%s: no task name", name);
    if (item->code > record_rules[item->type].code_max)
        return REFUSE(err, SEL_EUNSUPPORTED, "%s: unknown code %u", name, item->code);
    if (item->level > SEL_LEVEL_COMMIT)
        return REFUSE(err, SEL_EUNSUPPORTED, "%s: unknown level %u", name, item->level);
    if (item->type != SEL_RECORD_QUEUE)
        return 0;
    if (item->payload.n == 0 || item->payload.n > SEL_WIRE_NAME_MAX)
        return REFUSE(err, SEL_EFORMAT, "QUEUE: a name of %zu bytes", item->payload.n);
    if (!sel_str_is_utf8(item->payload))
        return REFUSE(err, SEL_EFORMAT, "QUEUE: a name that is not UTF-8");
    return 0;
}

static int check_header(const struct sel_wire_item *item, struct sel_error *err)
{
    if (item->raw.n > SEL_WIRE_RECORD_MAX)
        return REFUSE(err, SEL_ELIMIT, "%zu bytes, more than %zu", item->raw.n,
                      SEL_WIRE_RECORD_MAX);
    if (item->type == 0 || item->type >= SEL_RECORD_END)
        return REFUSE(err, SEL_EUNSUPPORTED, "no record has the type %u", item->type);
    unsigned unknown = item->flags & FLAGS_MUST & ~(unsigned)record_rules[item->type].must;
    if (unknown)
        return REFUSE(err, SEL_EUNSUPPORTED, "unknown flags 0x%x that must be understood", unknown);
    return 0;
}

/* Of a record that is refused only the header is handed out. */
static __attribute__((cold)) void clear_fields(struct sel_wire_item *item)
{
    const struct sel_str none = {NULL, 0};
    item->countdown_us = 0;
    item->not_before_unix_us = 0;
    item->task = item->idempotency_key = item->content_type = none;
    item->limit_key = item->selective = none;
    item->fields = item->payload = none;
}

int sel_wire_next(struct sel_str *rest, struct sel_wire_item *ret, struct sel_error *err)
{
    if (rest->n == 0)
        return 0;
    const char *p = rest->p;
    const char *fault = record_fault((const uint8_t *)p, rest->n);
    if (fault) {
        *ret = (struct sel_wire_item){0};
        *rest = (struct sel_str){p + rest->n, 0};
        return REFUSE(err, SEL_EFORMAT, "%s", fault);
    }
    size_t size = sel_le_get32(p + ITEM_SIZE);
    *ret = (struct sel_wire_item){
        .type = (uint8_t)p[ITEM_TYPE],
        .flags = sel_le_get16(p + ITEM_FLAGS),
        .id = sel_le_get_id(p + ITEM_ID),
        .queue = sel_le_get16(p + ITEM_QUEUE),
        .priority = (uint8_t)p[ITEM_PRIORITY],
        .level = (uint8_t)p[ITEM_LEVEL],
        .code = sel_le_get32(p + ITEM_CODE),
        .handle = sel_le_get64(p + ITEM_HANDLE),
        .try_count = sel_le_get16(p + ITEM_TRY),
        .delivery = sel_le_get16(p + ITEM_DELIVERY),
        .raw = {p, size},
    };
    *rest = (struct sel_str){p + size, rest->n - size};
    int r = check_header(ret, err);
    if (r < 0)
        return r;
    size_t header = (size_t)(uint8_t)p[ITEM_HEADER] * 8;
    struct sel_str all = {p + header, sel_le_get32(p + ITEM_FIELDS)};
    ret->fields = all;
    ret->payload = (struct sel_str){all.p + all.n, size - header - all.n};
    r = take_fields(ret, all, err);
    if (r == 0)
        r = check_item(ret, err);
    if (r == 0)
        return 1;
    clear_fields(ret);
    return r;
}

struct sel_str sel_wire_find_field(struct sel_str fields, uint8_t wanted)
{
    struct sel_str value;
    uint8_t tag;
    while (sel_wire_next_field(&fields, &tag, &value) > 0) {
        if (tag == wanted)
            return value;
    }
    return (struct sel_str){NULL, 0};
}

/* ---- runs of flows ---- */

enum {
    RUN_FLOW = 0,
    RUN_ATTEMPT = 16,
    RUN_ORDINAL = 20,
    RUN_PARENTS = 24,
    RUN_RETRIES = 28,
    RUN_FLAGS = 30,
    RUN_END = 32,
};
_Static_assert(RUN_END == SEL_WIRE_RUN_SIZE, "the table and the field have one size");

bool sel_wire_find_run(struct sel_str fields, struct sel_wire_run *ret)
{
    struct sel_str value = sel_wire_find_field(fields, SEL_FIELD_RUN);
    if (value.n != SEL_WIRE_RUN_SIZE)
        return false;
    *ret = (struct sel_wire_run){
        .flow = sel_le_get_id(value.p + RUN_FLOW),
        .attempt = sel_le_get32(value.p + RUN_ATTEMPT),
        .ordinal = sel_le_get32(value.p + RUN_ORDINAL),
        .parents_size = sel_le_get32(value.p + RUN_PARENTS),
        .retries = sel_le_get16(value.p + RUN_RETRIES),
        .flags = sel_le_get16(value.p + RUN_FLAGS),
    };
    return true;
}

void sel_wire_put_run(struct sel_buf *buf, struct sel_str fields, const struct sel_wire_run *run)
{
    struct sel_str rest = fields, value;
    size_t before = 0; /* bytes of fields with smaller tags */
    uint8_t tag;
    while (sel_wire_next_field(&rest, &tag, &value) > 0 && tag < SEL_FIELD_RUN)
        before = fields.n - rest.n;
    uint8_t p[SEL_WIRE_RUN_SIZE];
    sel_le_put_id(p + RUN_FLOW, run->flow);
    sel_le_put32(p + RUN_ATTEMPT, run->attempt);
    sel_le_put32(p + RUN_ORDINAL, run->ordinal);
    sel_le_put32(p + RUN_PARENTS, run->parents_size);
    sel_le_put16(p + RUN_RETRIES, run->retries);
    sel_le_put16(p + RUN_FLAGS, run->flags);
    sel_buf_put_str(buf, (struct sel_str){fields.p, before});
    sel_wire_put_field(buf, SEL_FIELD_RUN, (struct sel_str){(const char *)p, sizeof(p)});
    sel_buf_put_str(buf, (struct sel_str){fields.p + before, fields.n - before});
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* 74 bits that depend on all bits of the arguments (the finaliser of SplitMix64, twice), below the
 * flow's milliseconds. */
struct sel_id sel_wire_run_id(struct sel_id flow, uint32_t attempt, uint32_t ordinal)
{
    uint64_t run = (uint64_t)attempt << 32 | ordinal;
    uint64_t a = mix(flow.lo ^ mix(flow.hi ^ mix(run + UINT64_C(0x9e3779b97f4a7c15))));
    uint64_t b = mix(a + flow.lo + UINT64_C(0x3c6ef372fe94f82a));
    return (struct sel_id){
        .hi = (flow.hi & ~UINT64_C(0xffff)) | UINT64_C(0x8000) | (b & 0xfff),
        .lo = UINT64_C(0x8000000000000000) | a >> 2,
    };
}

/* ---- records out ---- */

void sel_wire_put_field(struct sel_buf *buf, uint8_t tag, struct sel_str value)
{
    if (value.n > UINT16_MAX) {
        sel_buf_fail_limit(buf);
        return;
    }
    uint8_t header[FIELD_HEADER_SIZE] = {tag};
    sel_le_put16(header + 2, (uint16_t)value.n);
    sel_buf_put(buf, header, sizeof(header));
    sel_buf_put_str(buf, value);
}

static size_t text_field_size(struct sel_str text)
{
    return text.n ? FIELD_HEADER_SIZE + text.n : 0;
}

static size_t fields_size(const struct sel_wire_item *item)
{
    if (item->fields.n)
        return item->fields.n;
    return text_field_size(item->task) + (item->countdown_us ? FIELD_HEADER_SIZE + 8 : 0) +
           (item->not_before_unix_us ? FIELD_HEADER_SIZE + 8 : 0) +
           text_field_size(item->idempotency_key) + text_field_size(item->limit_key) +
           text_field_size(item->content_type) + text_field_size(item->selective);
}

size_t sel_wire_item_size(const struct sel_wire_item *item)
{
    size_t size = fields_size(item);
    if (item->task.n > SEL_WIRE_NAME_MAX || item->idempotency_key.n > SEL_WIRE_NAME_MAX ||
        item->content_type.n > SEL_WIRE_NAME_MAX || item->limit_key.n > SEL_WIRE_NAME_MAX ||
        item->selective.n > UINT16_MAX || size > SEL_WIRE_RECORD_MAX ||
        item->payload.n > SEL_WIRE_RECORD_MAX)
        return 0;
    size += SEL_WIRE_RECORD_SIZE + item->payload.n;
    return size <= SEL_WIRE_RECORD_MAX ? size : 0;
}

static uint8_t *write_field(uint8_t *p, uint8_t tag, const void *value, size_t size)
{
    p[0] = tag;
    p[1] = 0;
    sel_le_put16(p + 2, (uint16_t)size);
    memcpy(p + FIELD_HEADER_SIZE, value, size);
    return p + FIELD_HEADER_SIZE + size;
}

static uint8_t *write_text_field(uint8_t *p, uint8_t tag, struct sel_str text)
{
    return text.n ? write_field(p, tag, text.p, text.n) : p;
}

static uint8_t *write_number_field(uint8_t *p, uint8_t tag, uint64_t value)
{
    if (value == 0)
        return p;
    uint8_t bytes[8];
    sel_le_put64(bytes, value);
    return write_field(p, tag, bytes, sizeof(bytes));
}

static uint8_t *write_fields(const struct sel_wire_item *item, uint8_t *p)
{
    if (item->fields.n) {
        memcpy(p, item->fields.p, item->fields.n);
        return p + item->fields.n;
    }
    p = write_text_field(p, SEL_FIELD_TASK, item->task);
    p = write_number_field(p, SEL_FIELD_COUNTDOWN, item->countdown_us);
    p = write_number_field(p, SEL_FIELD_NOT_BEFORE, (uint64_t)item->not_before_unix_us);
    p = write_text_field(p, SEL_FIELD_IDEMPOTENCY_KEY, item->idempotency_key);
    p = write_text_field(p, SEL_FIELD_LIMIT_KEY, item->limit_key);
    p = write_text_field(p, SEL_FIELD_CONTENT_TYPE, item->content_type);
    return write_text_field(p, SEL_FIELD_SELECTIVE, item->selective);
}

/* `size` is that of the whole record. */
static void write_item(const struct sel_wire_item *item, uint8_t *p, size_t size)
{
    sel_le_put32(p + ITEM_SIZE, (uint32_t)size);
    p[ITEM_TYPE] = item->type;
    p[ITEM_HEADER] = RECORD_UNITS;
    sel_le_put16(p + ITEM_FLAGS, item->flags);
    sel_le_put_id(p + ITEM_ID, item->id);
    sel_le_put16(p + ITEM_QUEUE, item->queue);
    p[ITEM_PRIORITY] = item->priority;
    p[ITEM_LEVEL] = item->level;
    sel_le_put32(p + ITEM_CODE, item->code);
    sel_le_put64(p + ITEM_HANDLE, item->handle);
    sel_le_put16(p + ITEM_TRY, item->try_count);
    sel_le_put16(p + ITEM_DELIVERY, item->delivery);
    uint8_t *payload = write_fields(item, p + SEL_WIRE_RECORD_SIZE);
    sel_le_put32(p + ITEM_FIELDS, (uint32_t)(payload - p - SEL_WIRE_RECORD_SIZE));
    if (item->payload.n)
        memcpy(payload, item->payload.p, item->payload.n);
    SEL_ASSERT(payload + item->payload.n == p + size);
}

void sel_wire_write_item(const struct sel_wire_item *item, uint8_t *p)
{
    size_t size = sel_wire_item_size(item);
    SEL_ASSERT(size > 0);
    write_item(item, p, size);
}

void sel_wire_encode_item(const struct sel_wire_item *item, struct sel_buf *buf)
{
    size_t size = sel_wire_item_size(item);
    if (size == 0) {
        sel_buf_fail_limit(buf);
    } else if (sel_buf_reserve(buf, size)) {
        write_item(item, buf->p + buf->n, size);
        buf->n += size;
    }
}

void sel_wire_begin(struct sel_wire_writer *writer, struct sel_buf *buf)
{
    *writer = (struct sel_wire_writer){.buf = buf, .begin = buf->n};
    (void)put_prefix(buf, SEL_MESSAGE_DATA, SEL_WIRE_HEAD_SIZE); /* a failure sticks in buf */
}

void sel_wire_put(struct sel_wire_writer *writer, const struct sel_wire_item *item)
{
    sel_wire_encode_item(item, writer->buf);
    writer->count++;
}

void sel_wire_put_raw(struct sel_wire_writer *writer, struct sel_str encoded, uint32_t count)
{
    sel_buf_put_str(writer->buf, encoded);
    writer->count += count;
}

void sel_wire_end(struct sel_wire_writer *writer, struct sel_wire_head *head)
{
    struct sel_buf *buf = writer->buf;
    head->count = writer->count;
    if (buf->failed)
        return;
    if (buf->n - writer->begin > SEL_WIRE_MESSAGE_MAX) {
        sel_buf_fail_limit(buf);
        return;
    }
    uint8_t *p = buf->p + writer->begin + 4;
    sel_le_put16(p + HEAD_VERSION, SEL_WIRE_VERSION);
    sel_le_put16(p + HEAD_FLAGS, head->flags);
    sel_le_put32(p + HEAD_COUNT, head->count);
    sel_le_put64(p + HEAD_SESSION, head->session);
    sel_le_put64(p + HEAD_FIRST, head->first);
    sel_le_put64(p + HEAD_ACK, head->ack);
    sel_le_put64(p + HEAD_SETTLED, head->settled);
    sel_le_put64(p + HEAD_CREDIT_RECORDS, head->credit_records);
    sel_le_put64(p + HEAD_CREDIT_BYTES, head->credit_bytes);
    put_body_size(p + SEL_WIRE_HEAD_SIZE + 1, buf->n - writer->begin - SEL_WIRE_DATA_PREFIX);
}

/* ---- BEAT ---- */

enum {
    BEAT_PEER = 0,
    BEAT_INCARNATION = 16,
    BEAT_RESERVED = 20,
    BEAT_COUNT = 24,
    BEAT_TURNS = 32,
    BEAT_MONO_US = 40,
};

int sel_wire_decode_beat(struct sel_str frame, struct sel_wire_beat *ret, struct sel_error *err)
{
    const uint8_t *p = NULL;
    struct sel_str body;
    int r = split_frame(frame, SEL_MESSAGE_BEAT, BEAT_HEAD_SIZE, &p, &body, err);
    if (r < 0)
        return r;
    if (body.n > SEL_WIRE_SLOTS_MAX)
        return REFUSE(err, SEL_ELIMIT, "BEAT: %zu slots, more than %u", body.n, SEL_WIRE_SLOTS_MAX);
    *ret = (struct sel_wire_beat){
        .peer = sel_le_get_id(p + BEAT_PEER),
        .incarnation = sel_le_get32(p + BEAT_INCARNATION),
        .count = sel_le_get64(p + BEAT_COUNT),
        .turns = sel_le_get64(p + BEAT_TURNS),
        .mono_us = sel_le_get64(p + BEAT_MONO_US),
        .progress = body,
    };
    return 0;
}

void sel_wire_encode_beat(const struct sel_wire_beat *beat, struct sel_buf *buf)
{
    if (beat->progress.n > SEL_WIRE_SLOTS_MAX) {
        sel_buf_fail_limit(buf);
        return;
    }
    uint8_t *p = put_prefix(buf, SEL_MESSAGE_BEAT, BEAT_HEAD_SIZE);
    if (!p)
        return;
    sel_le_put_id(p + BEAT_PEER, beat->peer);
    sel_le_put32(p + BEAT_INCARNATION, beat->incarnation);
    sel_le_put32(p + BEAT_RESERVED, 0);
    sel_le_put64(p + BEAT_COUNT, beat->count);
    sel_le_put64(p + BEAT_TURNS, beat->turns);
    sel_le_put64(p + BEAT_MONO_US, beat->mono_us);
    put_body_size(p + BEAT_HEAD_SIZE + 1, beat->progress.n);
    sel_buf_put_str(buf, beat->progress);
}
