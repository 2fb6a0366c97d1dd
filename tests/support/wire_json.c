#include "tests/support/wire_json.h"

#include "core/id.h"
#include "proto/le.h"

/* ---- JSON out ---- */

struct json {
    struct sel_value_builder map;
    struct sel_arena *arena;
};

static struct json open_json(struct sel_arena *arena, unsigned message)
{
    struct json json = {.arena = arena};
    sel_value_begin_map(&json.map, arena);
    if (message)
        sel_value_put_c(&json.map, "message", sel_value_from_c(sel_wire_message_name(message)));
    return json;
}

static struct sel_value close_json(struct json *json)
{
    struct sel_value value;
    assert_ok(sel_value_end(&json->map, &value));
    return value;
}

static struct sel_str copy(struct sel_arena *arena, struct sel_str s)
{
    char *p = sel_arena_strdup(arena, s);
    assert_non_null(p);
    return (struct sel_str){p, s.n};
}

static struct sel_value hex_value(struct sel_arena *arena, struct sel_str bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *text = sel_arena_alloc(arena, 2 * bytes.n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < bytes.n; i++) {
        text[2 * i] = digits[(uint8_t)bytes.p[i] >> 4];
        text[2 * i + 1] = digits[(uint8_t)bytes.p[i] & 15];
    }
    return sel_value_from_str((struct sel_str){text, 2 * bytes.n});
}

static struct sel_value id_value(struct sel_arena *arena, struct sel_id id)
{
    char text[SEL_ID_TEXT_SIZE];
    return sel_value_from_str(copy(arena, sel_str_c(sel_id_format(id, text))));
}

static void put_number(struct json *json, const char *key, uint64_t number)
{
    sel_value_put_c(&json->map, key, sel_value_from_u64(number));
}

static void put_some(struct json *json, const char *key, uint64_t number)
{
    if (number)
        put_number(json, key, number);
}

static void put_true(struct json *json, const char *key, bool flag)
{
    if (flag)
        sel_value_put_c(&json->map, key, sel_value_from_bool(true));
}

static void put_text(struct json *json, const char *key, struct sel_str text)
{
    if (text.n)
        sel_value_put_c(&json->map, key, sel_value_from_str(text));
}

static void put_hex(struct json *json, const char *key, struct sel_str bytes)
{
    if (bytes.n)
        sel_value_put_c(&json->map, key, hex_value(json->arena, bytes));
}

static void put_id(struct json *json, const char *key, struct sel_id id)
{
    if (id.hi | id.lo)
        sel_value_put_c(&json->map, key, id_value(json->arena, id));
}

static void put_list(struct json *json, const char *key, struct sel_value_builder *list)
{
    struct sel_value value;
    assert_ok(sel_value_end(list, &value));
    sel_value_put_c(&json->map, key, value);
}

static void put_range(struct json *json, const char *key, uint32_t min, uint32_t max)
{
    if (max == 0)
        return;
    struct sel_value_builder list;
    sel_value_begin_list(&list, json->arena);
    sel_value_add(&list, sel_value_from_u64(min));
    sel_value_add(&list, sel_value_from_u64(max));
    put_list(json, key, &list);
}

static void put_names(struct json *json, const char *key, const struct sel_str *names,
                      uint32_t count)
{
    if (count == 0)
        return;
    struct sel_value_builder list;
    sel_value_begin_list(&list, json->arena);
    for (uint32_t i = 0; i < count; i++)
        sel_value_add(&list, sel_value_from_str(names[i]));
    put_list(json, key, &list);
}

/* `flag`: what the one that there is means. */
static void put_held(struct json *json, const char *key, const char *flag, struct sel_str held)
{
    if (held.n == 0)
        return;
    struct sel_value_builder list;
    sel_value_begin_list(&list, json->arena);
    for (uint32_t i = 0; i < held.n / SEL_WIRE_HELD_SIZE; i++) {
        struct sel_wire_held task = sel_wire_held_at(held, i);
        struct json one = open_json(json->arena, 0);
        put_id(&one, "id", task.id);
        put_some(&one, "handle", task.handle);
        put_some(&one, "try", task.try_count);
        put_some(&one, "delivery", task.delivery);
        put_true(&one, flag, task.is_done);
        sel_value_add(&list, close_json(&one));
    }
    put_list(json, key, &list);
}

static int hello_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret)
{
    struct sel_wire_hello m;
    int r = sel_wire_decode_hello(arena, frame, &m, NULL);
    if (r < 0)
        return r;
    struct json json = open_json(arena, SEL_MESSAGE_HELLO);
    put_range(&json, "v", m.version_min, m.version_max);
    put_text(&json, "role", m.role == SEL_ROLE_WORKER ? SEL_STR("worker") : SEL_STR("producer"));
    put_id(&json, "peer", m.peer);
    put_some(&json, "inc", m.incarnation);
    put_number(&json, "n", m.n);
    put_text(&json, "name", m.name);
    put_id(&json, "broker", m.broker);
    put_some(&json, "session", m.session);
    put_some(&json, "ack", m.ack);
    put_names(&json, "queues", m.queues, m.queue_count);
    if (m.role == SEL_ROLE_WORKER && !m.serves_all) {
        struct sel_value_builder list;
        sel_value_begin_list(&list, arena);
        for (uint32_t i = 0; i < m.serve_count; i++)
            sel_value_add(&list, sel_value_from_u64(m.serves[i]));
        put_list(&json, "serves", &list);
    }
    put_some(&json, "slots", m.slots);
    put_some(&json, "window", m.window);
    put_held(&json, "held", "ended", m.held);
    put_held(&json, "crashed", "overflow", m.crashed);
    put_range(&json, "events", m.event_min, m.event_max);
    put_some(&json, "config", m.config_version);
    put_hex(&json, "digest", m.config_digest);
    *ret = close_json(&json);
    return 0;
}

static int welcome_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret)
{
    struct sel_wire_welcome m;
    int r = sel_wire_decode_welcome(arena, frame, &m, NULL);
    if (r < 0)
        return r;
    struct json json = open_json(arena, SEL_MESSAGE_WELCOME);
    put_number(&json, "v", m.version);
    put_number(&json, "n", m.n);
    put_id(&json, "broker", m.broker);
    put_number(&json, "session", m.session);
    put_true(&json, "resumed", m.resumed);
    put_some(&json, "ack", m.ack);
    put_some(&json, "credit_records", m.credit_records);
    put_some(&json, "credit_bytes", m.credit_bytes);
    put_number(&json, "record_max", m.record_max);
    put_number(&json, "lease_us", m.lease_us);
    put_number(&json, "beat_us", m.beat_us);
    put_number(&json, "level", m.level);
    put_number(&json, "level_max", m.level_max);
    put_some(&json, "shard", m.shard);
    *ret = close_json(&json);
    return 0;
}

static int error_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret)
{
    struct sel_wire_error m;
    int r = sel_wire_decode_error(arena, frame, &m, NULL);
    if (r < 0)
        return r;
    struct json json = open_json(arena, SEL_MESSAGE_ERROR);
    put_number(&json, "code", m.code);
    put_text(&json, "text", m.text);
    put_true(&json, "retry", m.retry);
    put_some(&json, "wait_us", m.wait_us);
    put_true(&json, "close", m.close);
    put_some(&json, "at", m.at);
    put_some(&json, "n", m.n);
    put_range(&json, "v", m.version_min, m.version_max);
    *ret = close_json(&json);
    return 0;
}

static int others_to_json(struct sel_arena *arena, int type, struct sel_str frame,
                          struct sel_value *ret)
{
    struct sel_wire_goodbye goodbye;
    struct sel_wire_redirect redirect;
    struct sel_wire_query query;
    struct sel_wire_reply reply;
    struct json json = open_json(arena, (unsigned)type);
    int r;
    if (type == SEL_MESSAGE_GOODBYE) {
        r = sel_wire_decode_goodbye(arena, frame, &goodbye, NULL);
        if (r < 0)
            return r;
        put_number(&json, "session", goodbye.session);
        put_text(&json, "reason", goodbye.reason);
    } else if (type == SEL_MESSAGE_REDIRECT) {
        r = sel_wire_decode_redirect(arena, frame, &redirect, NULL);
        if (r < 0)
            return r;
        put_some(&json, "shard", redirect.shard);
        put_names(&json, "endpoints", redirect.endpoints, redirect.endpoint_count);
    } else if (type == SEL_MESSAGE_QUERY) {
        r = sel_wire_decode_query(arena, frame, &query, NULL);
        if (r < 0)
            return r;
        put_number(&json, "n", query.n);
        put_text(&json, "what", query.what);
        if (!sel_value_is(&query.args, SEL_NULL))
            sel_value_put_c(&json.map, "args", query.args);
    } else {
        r = sel_wire_decode_reply(arena, frame, &reply, NULL);
        if (r < 0)
            return r;
        put_number(&json, "n", reply.n);
        put_some(&json, "code", reply.code);
        put_text(&json, "text", reply.text);
        put_true(&json, "more", reply.more);
        if (!sel_value_is(&reply.body, SEL_NULL))
            sel_value_put_c(&json.map, "body", reply.body);
    }
    *ret = close_json(&json);
    return 0;
}

static int beat_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret)
{
    struct sel_wire_beat m;
    int r = sel_wire_decode_beat(frame, &m, NULL);
    if (r < 0)
        return r;
    struct json json = open_json(arena, SEL_MESSAGE_BEAT);
    put_id(&json, "peer", m.peer);
    put_some(&json, "inc", m.incarnation);
    put_number(&json, "count", m.count);
    put_number(&json, "turns", m.turns);
    put_number(&json, "mono_us", m.mono_us);
    sel_value_put_c(&json.map, "progress", hex_value(arena, m.progress));
    *ret = close_json(&json);
    return 0;
}

static struct sel_value field_value(struct sel_arena *arena, uint8_t tag, struct sel_str value)
{
    switch (tag) {
    case SEL_FIELD_COUNTDOWN:
        return sel_value_from_u64(sel_le_get64(value.p));
    case SEL_FIELD_NOT_BEFORE:
    case SEL_FIELD_DEADLINE:
    case SEL_FIELD_EXPIRY:
        return sel_value_from_i64((int64_t)sel_le_get64(value.p));
    case SEL_FIELD_ROOT:
    case SEL_FIELD_PARENT:
        return id_value(arena, sel_le_get_id(value.p));
    case SEL_FIELD_TRACE:
    case SEL_FIELD_SELECTIVE:
    case SEL_FIELD_RUN:
        return hex_value(arena, value);
    default:
        return tag < SEL_FIELD_END ? sel_value_from_str(value) : hex_value(arena, value);
    }
}

static struct sel_value fields_value(struct sel_arena *arena, struct sel_str fields)
{
    struct json json = open_json(arena, 0);
    struct sel_str value;
    uint8_t tag;
    while (sel_wire_next_field(&fields, &tag, &value) > 0) {
        const char *name = sel_wire_field_name(tag);
        if (tag >= SEL_FIELD_END)
            name = sel_arena_printf(arena, "%u", tag);
        sel_value_put_c(&json.map, name, field_value(arena, tag, value));
    }
    return close_json(&json);
}

static struct sel_value item_value(struct sel_arena *arena, const struct sel_wire_item *item)
{
    struct json json = open_json(arena, 0);
    sel_value_put_c(&json.map, "type", sel_value_from_c(sel_wire_record_name(item->type)));
    put_some(&json, "flags", item->flags);
    put_id(&json, "id", item->id);
    put_some(&json, "queue", item->queue);
    if (item->priority != SEL_WIRE_PRIORITY)
        put_number(&json, "priority", item->priority);
    put_some(&json, "level", item->level);
    put_some(&json, "code", item->code);
    put_some(&json, "handle", item->handle);
    put_some(&json, "try", item->try_count);
    put_some(&json, "delivery", item->delivery);
    if (item->fields.n)
        sel_value_put_c(&json.map, "fields", fields_value(arena, item->fields));
    put_hex(&json, "payload", item->payload);
    return close_json(&json);
}

static int data_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret,
                        uint32_t *ret_record)
{
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    int r = sel_wire_decode_data(frame, &head, &records, NULL);
    if (r < 0)
        return r;
    struct json json = open_json(arena, SEL_MESSAGE_DATA);
    put_some(&json, "flags", head.flags);
    put_some(&json, "session", head.session);
    put_some(&json, "first", head.first);
    put_some(&json, "ack", head.ack);
    put_some(&json, "settled", head.settled);
    put_some(&json, "credit_records", head.credit_records);
    put_some(&json, "credit_bytes", head.credit_bytes);
    struct sel_value_builder list;
    sel_value_begin_list(&list, arena);
    int first_fault = 0;
    uint32_t number = 0;
    while ((r = sel_wire_next(&records, &item, NULL)) != 0) {
        number++;
        assert_int_equal(sel_le_get32(item.raw.p), item.raw.n); /* also of a refused one */
        if (r < 0 && first_fault == 0) {
            first_fault = r;
            *ret_record = number;
        }
        if (r > 0)
            sel_value_add(&list, item_value(arena, &item));
    }
    assert_int_equal(number, head.count); /* one that is refused hides no other */
    put_list(&json, "records", &list);
    *ret = close_json(&json);
    return first_fault;
}

int sel_test_wire_to_json(struct sel_arena *arena, struct sel_str frame, struct sel_value *ret,
                          uint32_t *ret_record)
{
    *ret_record = 0;
    int type = sel_wire_message_type(frame, NULL);
    switch (type) {
    case SEL_MESSAGE_HELLO:
        return hello_to_json(arena, frame, ret);
    case SEL_MESSAGE_WELCOME:
        return welcome_to_json(arena, frame, ret);
    case SEL_MESSAGE_DATA:
        return data_to_json(arena, frame, ret, ret_record);
    case SEL_MESSAGE_ERROR:
        return error_to_json(arena, frame, ret);
    case SEL_MESSAGE_BEAT:
        return beat_to_json(arena, frame, ret);
    default:
        return type < 0 ? type : others_to_json(arena, type, frame, ret);
    }
}

/* ---- JSON in ---- */

static uint64_t get_number(const struct sel_value *json, const char *key, uint64_t if_missing)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    if (!v)
        return if_missing;
    assert_true(sel_value_is(v, SEL_INT));
    return v->o.via.u64; /* a negative one as its two's complement */
}

static bool get_bool(const struct sel_value *json, const char *key)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    return v && sel_value_bool(v);
}

static struct sel_str get_text(const struct sel_value *json, const char *key)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    return v ? sel_value_str(v) : (struct sel_str){NULL, 0};
}

static unsigned hex_digit(char c)
{
    assert_true((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

struct sel_str sel_test_unhex(struct sel_arena *arena, struct sel_str hex)
{
    char *bytes = sel_arena_alloc(arena, hex.n / 2 + 1);
    assert_non_null(bytes);
    assert_int_equal(hex.n % 2, 0);
    for (size_t i = 0; i < hex.n / 2; i++)
        bytes[i] = (char)(hex_digit(hex.p[2 * i]) << 4 | hex_digit(hex.p[2 * i + 1]));
    return (struct sel_str){bytes, hex.n / 2};
}

static struct sel_str get_hex(struct sel_arena *arena, const struct sel_value *json,
                              const char *key)
{
    return sel_test_unhex(arena, get_text(json, key));
}

static struct sel_id parse_id(struct sel_str text)
{
    struct sel_id id;
    assert_true(sel_id_parse(text, &id));
    return id;
}

static struct sel_id get_id(const struct sel_value *json, const char *key)
{
    struct sel_str text = get_text(json, key);
    return text.n ? parse_id(text) : (struct sel_id){0, 0};
}

static void get_range(const struct sel_value *json, const char *key, uint32_t *min, uint32_t *max)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    *min = *max = 0;
    if (!v)
        return;
    *min = (uint32_t)sel_value_at(v, 0)->o.via.u64;
    *max = (uint32_t)sel_value_at(v, 1)->o.via.u64;
}

static const struct sel_str *get_names(struct sel_arena *arena, const struct sel_value *json,
                                       const char *key, uint32_t *ret_count)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    *ret_count = v ? sel_value_count(v) : 0;
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(arena, struct sel_str, *ret_count + 1);
    assert_non_null(names);
    for (uint32_t i = 0; i < *ret_count; i++)
        names[i] = sel_value_str(sel_value_at(v, i));
    return names;
}

static struct sel_str get_held(struct sel_arena *arena, const struct sel_value *json,
                               const char *key, const char *flag)
{
    const struct sel_value *v = sel_value_get_c(json, key);
    struct sel_buf buf = {0};
    for (uint32_t i = 0; v && i < sel_value_count(v); i++) {
        const struct sel_value *one = sel_value_at(v, i);
        sel_wire_put_held(&buf, &(struct sel_wire_held){
                                    .id = get_id(one, "id"),
                                    .handle = get_number(one, "handle", 0),
                                    .try_count = (uint16_t)get_number(one, "try", 0),
                                    .delivery = (uint16_t)get_number(one, "delivery", 0),
                                    .is_done = get_bool(one, flag),
                                });
    }
    assert_ok(sel_buf_error(&buf));
    struct sel_str held = copy(arena, sel_buf_str(&buf));
    sel_buf_done(&buf);
    return held;
}

static void hello_from_json(struct sel_arena *arena, const struct sel_value *json,
                            struct sel_buf *buf)
{
    struct sel_wire_hello m = {
        .role =
            sel_str_eq_c(get_text(json, "role"), "worker") ? SEL_ROLE_WORKER : SEL_ROLE_PRODUCER,
        .peer = get_id(json, "peer"),
        .incarnation = (uint32_t)get_number(json, "inc", 0),
        .n = get_number(json, "n", 0),
        .name = get_text(json, "name"),
        .broker = get_id(json, "broker"),
        .session = get_number(json, "session", 0),
        .ack = get_number(json, "ack", 0),
        .serves_all = !sel_value_get_c(json, "serves"),
        .slots = (uint32_t)get_number(json, "slots", 0),
        .window = (uint32_t)get_number(json, "window", 0),
        .held = get_held(arena, json, "held", "ended"),
        .crashed = get_held(arena, json, "crashed", "overflow"),
        .config_version = get_number(json, "config", 0),
        .config_digest = get_hex(arena, json, "digest"),
    };
    get_range(json, "v", &m.version_min, &m.version_max);
    get_range(json, "events", &m.event_min, &m.event_max);
    m.queues = get_names(arena, json, "queues", &m.queue_count);
    uint16_t serves[16];
    const struct sel_value *list = sel_value_get_c(json, "serves");
    for (uint32_t i = 0; list && i < sel_value_count(list); i++)
        serves[m.serve_count++] = (uint16_t)sel_value_at(list, i)->o.via.u64;
    m.serves = serves;
    sel_wire_encode_hello(&m, buf);
}

static void welcome_from_json(const struct sel_value *json, struct sel_buf *buf)
{
    sel_wire_encode_welcome(
        &(struct sel_wire_welcome){
            .version = (uint32_t)get_number(json, "v", 0),
            .n = get_number(json, "n", 0),
            .broker = get_id(json, "broker"),
            .session = get_number(json, "session", 0),
            .resumed = get_bool(json, "resumed"),
            .ack = get_number(json, "ack", 0),
            .credit_records = get_number(json, "credit_records", 0),
            .credit_bytes = get_number(json, "credit_bytes", 0),
            .lease_us = get_number(json, "lease_us", 0),
            .beat_us = get_number(json, "beat_us", 0),
            .record_max = (uint32_t)get_number(json, "record_max", 0),
            .level = (uint8_t)get_number(json, "level", 0),
            .level_max = (uint8_t)get_number(json, "level_max", 0),
            .shard = (uint32_t)get_number(json, "shard", 0),
        },
        buf);
}

static void error_from_json(const struct sel_value *json, struct sel_buf *buf)
{
    struct sel_wire_error m = {
        .code = (uint32_t)get_number(json, "code", 0),
        .text = get_text(json, "text"),
        .retry = get_bool(json, "retry"),
        .close = get_bool(json, "close"),
        .wait_us = get_number(json, "wait_us", 0),
        .at = get_number(json, "at", 0),
        .n = get_number(json, "n", 0),
    };
    get_range(json, "v", &m.version_min, &m.version_max);
    sel_wire_encode_error(&m, buf);
}

static void beat_from_json(struct sel_arena *arena, const struct sel_value *json,
                           struct sel_buf *buf)
{
    sel_wire_encode_beat(
        &(struct sel_wire_beat){
            .peer = get_id(json, "peer"),
            .incarnation = (uint32_t)get_number(json, "inc", 0),
            .count = get_number(json, "count", 0),
            .turns = get_number(json, "turns", 0),
            .mono_us = get_number(json, "mono_us", 0),
            .progress = get_hex(arena, json, "progress"),
        },
        buf);
}

static unsigned field_tag(struct sel_str name)
{
    unsigned number = 0;
    for (unsigned tag = 1; tag < SEL_FIELD_END; tag++)
        if (sel_str_eq_c(name, sel_wire_field_name(tag)))
            return tag;
    for (size_t i = 0; i < name.n; i++)
        number = number * 10 + (unsigned)(name.p[i] - '0');
    assert_true(number < 256);
    return number;
}

static void put_json_field(struct sel_arena *arena, unsigned tag, const struct sel_value *value,
                           struct sel_buf *buf)
{
    char bytes[16];
    struct sel_str content = {bytes, 0};
    if (sel_value_is(value, SEL_INT)) {
        sel_le_put64(bytes, value->o.via.u64);
        content.n = 8;
    } else if (tag == SEL_FIELD_ROOT || tag == SEL_FIELD_PARENT) {
        sel_le_put_id(bytes, parse_id(sel_value_str(value)));
        content.n = 16;
    } else if (tag == SEL_FIELD_TRACE || tag == SEL_FIELD_SELECTIVE || tag == SEL_FIELD_RUN ||
               tag >= SEL_FIELD_END) {
        content = sel_test_unhex(arena, sel_value_str(value));
    } else {
        content = sel_value_str(value);
    }
    sel_wire_put_field(buf, (uint8_t)tag, content);
}

/* Sets a member; false: the field has none. */
static bool set_member(struct sel_wire_item *item, unsigned tag, const struct sel_value *value)
{
    switch (tag) {
    case SEL_FIELD_TASK:
        item->task = sel_value_str(value);
        return true;
    case SEL_FIELD_COUNTDOWN:
        item->countdown_us = value->o.via.u64;
        return true;
    case SEL_FIELD_NOT_BEFORE:
        item->not_before_unix_us = value->o.via.i64;
        return true;
    case SEL_FIELD_IDEMPOTENCY_KEY:
        item->idempotency_key = sel_value_str(value);
        return true;
    case SEL_FIELD_CONTENT_TYPE:
        item->content_type = sel_value_str(value);
        return true;
    default:
        return false;
    }
}

struct sel_wire_item sel_test_item_from_json(struct sel_arena *arena, const struct sel_value *json,
                                             bool raw_fields)
{
    struct sel_wire_item item = {
        .flags = (uint16_t)get_number(json, "flags", 0),
        .id = get_id(json, "id"),
        .queue = (uint16_t)get_number(json, "queue", 0),
        .priority = (uint8_t)get_number(json, "priority", SEL_WIRE_PRIORITY),
        .level = (uint8_t)get_number(json, "level", 0),
        .code = (uint32_t)get_number(json, "code", 0),
        .handle = get_number(json, "handle", 0),
        .try_count = (uint16_t)get_number(json, "try", 0),
        .delivery = (uint16_t)get_number(json, "delivery", 0),
        .payload = get_hex(arena, json, "payload"),
    };
    while (++item.type < SEL_RECORD_END)
        if (sel_str_eq_c(get_text(json, "type"), sel_wire_record_name(item.type)))
            break;
    assert_true(item.type < SEL_RECORD_END);
    const struct sel_value *fields = sel_value_get_c(json, "fields");
    struct sel_buf buf = {0};
    bool has_members = true;
    for (uint32_t i = 0; fields && i < sel_value_count(fields); i++) {
        unsigned tag = field_tag(sel_value_str(sel_value_key_at(fields, i)));
        put_json_field(arena, tag, sel_value_val_at(fields, i), &buf);
        has_members = set_member(&item, tag, sel_value_val_at(fields, i)) && has_members;
    }
    assert_ok(sel_buf_error(&buf));
    if (raw_fields || !has_members)
        item.fields = copy(arena, sel_buf_str(&buf));
    sel_buf_done(&buf);
    return item;
}

static void data_from_json(struct sel_arena *arena, const struct sel_value *json,
                           struct sel_buf *buf)
{
    struct sel_wire_head head = {
        .flags = (uint16_t)get_number(json, "flags", 0),
        .session = get_number(json, "session", 0),
        .first = get_number(json, "first", 0),
        .ack = get_number(json, "ack", 0),
        .settled = get_number(json, "settled", 0),
        .credit_records = get_number(json, "credit_records", 0),
        .credit_bytes = get_number(json, "credit_bytes", 0),
    };
    const struct sel_value *list = sel_value_get_c(json, "records");
    struct sel_wire_writer writer;
    sel_wire_begin(&writer, buf);
    for (uint32_t i = 0; i < sel_value_count(list); i++) {
        struct sel_wire_item item =
            sel_test_item_from_json(arena, sel_value_at(list, i), i % 2 == 1);
        sel_wire_put(&writer, &item);
    }
    sel_wire_end(&writer, &head);
}

void sel_test_wire_from_json(struct sel_arena *arena, const struct sel_value *json,
                             struct sel_buf *buf)
{
    struct sel_str message = get_text(json, "message");
    const struct sel_value *args = sel_value_get_c(json, "args");
    const struct sel_value *body = sel_value_get_c(json, "body");
    uint64_t n = get_number(json, "n", 0);
    if (sel_str_eq_c(message, "HELLO")) {
        hello_from_json(arena, json, buf);
    } else if (sel_str_eq_c(message, "WELCOME")) {
        welcome_from_json(json, buf);
    } else if (sel_str_eq_c(message, "DATA")) {
        data_from_json(arena, json, buf);
    } else if (sel_str_eq_c(message, "ERROR")) {
        error_from_json(json, buf);
    } else if (sel_str_eq_c(message, "BEAT")) {
        beat_from_json(arena, json, buf);
    } else if (sel_str_eq_c(message, "GOODBYE")) {
        sel_wire_encode_goodbye(
            &(struct sel_wire_goodbye){get_number(json, "session", 0), get_text(json, "reason")},
            buf);
    } else if (sel_str_eq_c(message, "REDIRECT")) {
        struct sel_wire_redirect m = {.shard = (uint32_t)get_number(json, "shard", 0)};
        m.endpoints = get_names(arena, json, "endpoints", &m.endpoint_count);
        sel_wire_encode_redirect(&m, buf);
    } else if (sel_str_eq_c(message, "QUERY")) {
        sel_wire_encode_query(
            &(struct sel_wire_query){n, get_text(json, "what"), args ? *args : sel_value_null},
            buf);
    } else {
        assert_str_is(message, "REPLY");
        sel_wire_encode_reply(&(struct sel_wire_reply){n, (uint32_t)get_number(json, "code", 0),
                                                       get_text(json, "text"),
                                                       get_bool(json, "more"),
                                                       body ? *body : sel_value_null},
                              buf);
    }
}
