/* The messages that are maps: [type, nil, map]. None of them is hot. */
#include "proto/wire.h"

#include "core/arena.h"
#include "core/assert.h"
#include "proto/le.h"

#define KEYS_MAX 64u      /* in a map that we read: it is searched key by key */
#define PAIRS_MAX 24u     /* in a map that we write */
#define HELD_FLAG_DONE 1u /* flags of a held task */
#define HELD_FLAG_RUN 2u
#define HELD_FLAG_CALLED_OFF 4u

enum { HELD_ID = 0, HELD_HANDLE = 16, HELD_TRY = 24, HELD_DELIVERY = 26, HELD_FLAGS = 28 };
_Static_assert(HELD_FLAGS + 4 == SEL_WIRE_HELD_SIZE, "the table and the size agree");

/* ---- reading ---- */

/* A map that is being read. The first thing that is wrong sticks; what is asked for after that is
 * empty, so that a reader asks for all and looks at `code` once. */
struct map {
    const struct sel_value *value;
    struct sel_arena *arena;
    const char *message;
    struct sel_error *err;
    int code;
};

static __attribute__((cold)) void refuse_key(struct map *map, int code, const char *key,
                                             const char *what)
{
    if (map->code == 0)
        map->code = sel_error_set(map->err, code, (struct sel_pos){0}, "%s: `%s`: %s", map->message,
                                  key, what);
}

static int open_map(struct map *map, struct sel_str frame, unsigned type, size_t size_max,
                    struct sel_value *value)
{
    struct sel_error *err = map->err;
    map->message = sel_wire_message_name(type);
    int r = sel_wire_message_type(frame, err);
    if (r < 0)
        return r;
    if ((unsigned)r != type || (uint8_t)frame.p[2] != 0xc0)
        return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0}, "%s: not [%u, nil, map]",
                             map->message, type);
    if (frame.n > size_max)
        return sel_error_set(err, SEL_ELIMIT, (struct sel_pos){0}, "%s: %zu bytes, more than %zu",
                             map->message, frame.n, size_max);
    r = sel_value_decode(map->arena, frame.p + 3, frame.n - 3, false, value, err);
    if (r < 0)
        return r;
    if (!sel_value_is(value, SEL_MAP))
        return sel_error_set(err, SEL_EFORMAT, (struct sel_pos){0}, "%s: the body is no map",
                             map->message);
    if (sel_value_count(value) > KEYS_MAX)
        return sel_error_set(err, SEL_ELIMIT, (struct sel_pos){0}, "%s: more than %u keys",
                             map->message, KEYS_MAX);
    map->value = value;
    return 0;
}

/* The value of a key, if it is there and of this kind. */
static const struct sel_value *take(struct map *map, const char *key, enum sel_kind kind,
                                    bool is_needed)
{
    const struct sel_value *v = sel_value_get_c(map->value, key);
    if (map->code < 0)
        return NULL;
    if (!v || sel_value_is(v, SEL_NULL)) {
        if (is_needed)
            refuse_key(map, SEL_EFORMAT, key, "missing");
        return NULL;
    }
    if (sel_value_is(v, kind))
        return v;
    refuse_key(map, SEL_EFORMAT, key, sel_value_kind_name(sel_value_kind(v)));
    return NULL;
}

static uint64_t number(struct map *map, const char *key, const struct sel_value *v, uint64_t max)
{
    if (v && sel_value_is(v, SEL_INT) && v->o.type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
        v->o.via.u64 <= max)
        return v->o.via.u64;
    if (v)
        refuse_key(map, SEL_EFORMAT, key, "no number in its range");
    return 0;
}

static uint64_t take_number(struct map *map, const char *key, uint64_t max, bool is_needed)
{
    return number(map, key, take(map, key, SEL_INT, is_needed), max);
}

static uint32_t take_u32(struct map *map, const char *key, bool is_needed)
{
    return (uint32_t)take_number(map, key, UINT32_MAX, is_needed);
}

static bool take_bool(struct map *map, const char *key)
{
    const struct sel_value *v = take(map, key, SEL_BOOL, false);
    return v && sel_value_bool(v);
}

static struct sel_str take_str(struct map *map, const char *key, enum sel_kind kind,
                               size_t size_max, bool is_needed)
{
    const struct sel_value *v = take(map, key, kind, is_needed);
    struct sel_str s = v ? sel_value_str(v) : (struct sel_str){NULL, 0};
    if (s.n <= size_max)
        return s;
    refuse_key(map, SEL_ELIMIT, key, "too long");
    return (struct sel_str){NULL, 0};
}

static struct sel_id take_id(struct map *map, const char *key, bool is_needed)
{
    struct sel_str s = take_str(map, key, SEL_BIN, SIZE_MAX, is_needed);
    if (s.p && s.n == sizeof(struct sel_id))
        return sel_le_get_id(s.p);
    if (s.p)
        refuse_key(map, SEL_EFORMAT, key, "not 16 bytes");
    return (struct sel_id){0, 0};
}

/* [lowest, highest] */
static void take_range(struct map *map, const char *key, bool is_needed, uint32_t *ret_min,
                       uint32_t *ret_max)
{
    const struct sel_value *v = take(map, key, SEL_LIST, is_needed);
    *ret_min = *ret_max = 0;
    if (!v)
        return;
    if (sel_value_count(v) == 2) {
        *ret_min = (uint32_t)number(map, key, sel_value_at(v, 0), UINT32_MAX);
        *ret_max = (uint32_t)number(map, key, sel_value_at(v, 1), UINT32_MAX);
    }
    if (sel_value_count(v) != 2 || *ret_min > *ret_max)
        refuse_key(map, SEL_EFORMAT, key, "not [lowest, highest]");
}

/* A list of at most `count_max`; NULL and no count if it is missing, empty or wrong. */
static const struct sel_value *take_list(struct map *map, const char *key, uint32_t count_max,
                                         uint32_t *ret_count)
{
    const struct sel_value *v = take(map, key, SEL_LIST, false);
    *ret_count = 0;
    if (!v)
        return NULL;
    uint32_t count = sel_value_count(v);
    if (count > count_max) {
        refuse_key(map, SEL_ELIMIT, key, "too many");
        return NULL;
    }
    *ret_count = count;
    return v;
}

static const struct sel_str *take_names(struct map *map, const char *key, uint32_t count_max,
                                        uint32_t *ret_count)
{
    const struct sel_value *list = take_list(map, key, count_max, ret_count);
    if (*ret_count == 0)
        return NULL;
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(map->arena, struct sel_str, *ret_count);
    if (!names) {
        refuse_key(map, SEL_ENOMEM, key, "no memory");
        return NULL;
    }
    for (uint32_t i = 0; i < *ret_count; i++) {
        const struct sel_value *v = sel_value_at(list, i);
        if (sel_value_is(v, SEL_TEXT))
            names[i] = sel_value_str(v);
        if (names[i].n == 0 || names[i].n > SEL_WIRE_NAME_MAX)
            refuse_key(map, SEL_EFORMAT, key, "not texts of 1 to 255 bytes");
    }
    return names;
}

static const uint16_t *take_numbers(struct map *map, const char *key, uint32_t count_max,
                                    uint32_t *ret_count)
{
    const struct sel_value *list = take_list(map, key, count_max, ret_count);
    if (*ret_count == 0)
        return NULL;
    uint16_t *numbers = SEL_ARENA_NEW_ARRAY(map->arena, uint16_t, *ret_count);
    if (!numbers) {
        refuse_key(map, SEL_ENOMEM, key, "no memory");
        return NULL;
    }
    for (uint32_t i = 0; i < *ret_count; i++) {
        numbers[i] = (uint16_t)number(map, key, sel_value_at(list, i), UINT16_MAX);
        if (numbers[i] == 0)
            refuse_key(map, SEL_EFORMAT, key, "0 is no number of a queue");
    }
    return numbers;
}

static enum sel_wire_role take_role(struct map *map)
{
    struct sel_str role = take_str(map, "role", SEL_TEXT, SIZE_MAX, true);
    if (sel_str_eq_c(role, "worker"))
        return SEL_ROLE_WORKER;
    if (!sel_str_eq_c(role, "producer"))
        refuse_key(map, SEL_EFORMAT, "role", "neither producer nor worker");
    return SEL_ROLE_PRODUCER;
}

static void take_worker(struct map *map, struct sel_wire_hello *hello)
{
    hello->serves = take_numbers(map, "serves", SEL_WIRE_QUEUES_MAX, &hello->serve_count);
    hello->serves_all = take(map, "serves", SEL_LIST, false) == NULL;
    hello->slots = (uint32_t)take_number(map, "slots", SEL_WIRE_SLOTS_MAX, false);
    hello->window = take_u32(map, "window", false);
    hello->flows = take_u32(map, "flows", false);
    hello->held =
        take_str(map, "held", SEL_BIN, SEL_WIRE_HELD_MAX * (size_t)SEL_WIRE_HELD_SIZE, false);
    if (hello->held.n % SEL_WIRE_HELD_SIZE)
        refuse_key(map, SEL_EFORMAT, "held", "not 32 bytes each");
    hello->crashed =
        take_str(map, "crashed", SEL_BIN, SEL_WIRE_CRASHED_MAX * (size_t)SEL_WIRE_HELD_SIZE, false);
    if (hello->crashed.n % SEL_WIRE_HELD_SIZE)
        refuse_key(map, SEL_EFORMAT, "crashed", "not 32 bytes each");
    take_range(map, "events", false, &hello->event_min, &hello->event_max);
    hello->config_version = take_number(map, "config", UINT64_MAX, false);
    hello->config_digest = take_str(map, "digest", SEL_BIN, SEL_WIRE_DIGEST_MAX, false);
}

int sel_wire_decode_hello(struct sel_arena *arena, struct sel_str frame, struct sel_wire_hello *ret,
                          struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_HELLO, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_hello hello = {0};
    take_range(&map, "v", true, &hello.version_min, &hello.version_max);
    hello.role = take_role(&map);
    hello.peer = take_id(&map, "peer", true);
    hello.incarnation = take_u32(&map, "inc", false);
    hello.n = take_number(&map, "n", UINT64_MAX, true);
    hello.name = take_str(&map, "name", SEL_TEXT, SEL_WIRE_NAME_MAX, false);
    hello.broker = take_id(&map, "broker", false);
    hello.session = take_number(&map, "session", UINT64_MAX, false);
    hello.ack = take_number(&map, "ack", UINT64_MAX, false);
    hello.queues = take_names(&map, "queues", SEL_WIRE_QUEUES_MAX, &hello.queue_count);
    if (hello.role == SEL_ROLE_WORKER)
        take_worker(&map, &hello);
    if (map.code == 0)
        *ret = hello;
    return map.code;
}

int sel_wire_decode_welcome(struct sel_arena *arena, struct sel_str frame,
                            struct sel_wire_welcome *ret, struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_WELCOME, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_welcome welcome = {
        .version = take_u32(&map, "v", true),
        .n = take_number(&map, "n", UINT64_MAX, true),
        .broker = take_id(&map, "broker", true),
        .session = take_number(&map, "session", UINT64_MAX, true),
        .resumed = take_bool(&map, "resumed"),
        .ack = take_number(&map, "ack", UINT64_MAX, false),
        .credit_records = take_number(&map, "credit_records", UINT64_MAX, false),
        .credit_bytes = take_number(&map, "credit_bytes", UINT64_MAX, false),
        .record_max = take_u32(&map, "record_max", true),
        .lease_us = take_number(&map, "lease_us", INT64_MAX, true),
        .beat_us = take_number(&map, "beat_us", INT64_MAX, true),
        .level = (uint8_t)take_number(&map, "level", UINT8_MAX, true),
        .level_max = (uint8_t)take_number(&map, "level_max", UINT8_MAX, true),
        .shard = take_u32(&map, "shard", false),
    };
    if (map.code == 0 && welcome.session == 0)
        refuse_key(&map, SEL_EFORMAT, "session", "0 is no session");
    if (map.code == 0 && (welcome.level == SEL_LEVEL_DEFAULT || welcome.level > SEL_LEVEL_COMMIT))
        refuse_key(&map, SEL_EFORMAT, "level", "no level");
    if (map.code == 0 &&
        (welcome.level_max < welcome.level || welcome.level_max > SEL_LEVEL_COMMIT))
        refuse_key(&map, SEL_EFORMAT, "level_max", "no level, or below `level`");
    if (map.code == 0 && welcome.record_max < 4096)
        refuse_key(&map, SEL_EFORMAT, "record_max", "below 4096");
    if (map.code == 0)
        *ret = welcome;
    return map.code;
}

int sel_wire_decode_error(struct sel_arena *arena, struct sel_str frame, struct sel_wire_error *ret,
                          struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_ERROR, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_error error = {
        .code = take_u32(&map, "code", true),
        .text = take_str(&map, "text", SEL_TEXT, SIZE_MAX, false),
        .retry = take_bool(&map, "retry"),
        .wait_us = take_number(&map, "wait_us", INT64_MAX, false),
        .close = take_bool(&map, "close"),
        .at = take_number(&map, "at", UINT64_MAX, false),
        .n = take_number(&map, "n", UINT64_MAX, false),
    };
    take_range(&map, "v", false, &error.version_min, &error.version_max);
    if (map.code == 0)
        *ret = error;
    return map.code;
}

int sel_wire_decode_goodbye(struct sel_arena *arena, struct sel_str frame,
                            struct sel_wire_goodbye *ret, struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_GOODBYE, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_goodbye goodbye = {
        .session = take_number(&map, "session", UINT64_MAX, true),
        .reason = take_str(&map, "reason", SEL_TEXT, SIZE_MAX, false),
    };
    if (map.code == 0)
        *ret = goodbye;
    return map.code;
}

int sel_wire_decode_redirect(struct sel_arena *arena, struct sel_str frame,
                             struct sel_wire_redirect *ret, struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_REDIRECT, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_redirect redirect = {.shard = take_u32(&map, "shard", false)};
    redirect.endpoints =
        take_names(&map, "endpoints", SEL_WIRE_ENDPOINTS_MAX, &redirect.endpoint_count);
    if (map.code == 0 && redirect.endpoint_count == 0)
        refuse_key(&map, SEL_EFORMAT, "endpoints", "missing");
    if (map.code == 0)
        *ret = redirect;
    return map.code;
}

int sel_wire_decode_query(struct sel_arena *arena, struct sel_str frame, struct sel_wire_query *ret,
                          struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_QUERY, SEL_WIRE_PLAIN_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_query query = {
        .n = take_number(&map, "n", UINT64_MAX, true),
        .what = take_str(&map, "what", SEL_TEXT, SEL_WIRE_NAME_MAX, true),
    };
    const struct sel_value *args = take(&map, "args", SEL_MAP, false);
    query.args = args ? *args : sel_value_null;
    if (map.code == 0)
        *ret = query;
    return map.code;
}

int sel_wire_decode_reply(struct sel_arena *arena, struct sel_str frame, struct sel_wire_reply *ret,
                          struct sel_error *err)
{
    struct map map = {.arena = arena, .err = err};
    struct sel_value value;
    int r = open_map(&map, frame, SEL_MESSAGE_REPLY, SEL_WIRE_MESSAGE_MAX, &value);
    if (r < 0)
        return r;
    struct sel_wire_reply reply = {
        .n = take_number(&map, "n", UINT64_MAX, true),
        .code = take_u32(&map, "code", false),
        .text = take_str(&map, "text", SEL_TEXT, SIZE_MAX, false),
        .more = take_bool(&map, "more"),
    };
    const struct sel_value *body = sel_value_get_c(&value, "body");
    reply.body = body ? *body : sel_value_null;
    if (map.code == 0)
        *ret = reply;
    return map.code;
}

struct sel_wire_held sel_wire_held_at(struct sel_str held, uint32_t i)
{
    SEL_ASSERT(i < held.n / SEL_WIRE_HELD_SIZE);
    const char *p = held.p + (size_t)i * SEL_WIRE_HELD_SIZE;
    return (struct sel_wire_held){
        .id = sel_le_get_id(p + HELD_ID),
        .handle = sel_le_get64(p + HELD_HANDLE),
        .try_count = sel_le_get16(p + HELD_TRY),
        .delivery = sel_le_get16(p + HELD_DELIVERY),
        .is_done = sel_le_get32(p + HELD_FLAGS) & HELD_FLAG_DONE,
        .is_run = sel_le_get32(p + HELD_FLAGS) & HELD_FLAG_RUN,
        .is_called_off = sel_le_get32(p + HELD_FLAGS) & HELD_FLAG_CALLED_OFF,
    };
}

/* ---- writing ---- */

/* A map that is being written: its pairs are collected first, as their number comes first. */
struct pair {
    const char *key;
    struct sel_value value;
    const struct sel_str *names; /* instead of `value`: a list of texts, */
    const uint16_t *numbers;     /* or of numbers */
    uint32_t count;
};

struct pairs {
    struct pair pair[PAIRS_MAX];
    uint32_t count;
};

static struct pair *add_pair(struct pairs *pairs, const char *key)
{
    SEL_ASSERT(pairs->count < PAIRS_MAX);
    struct pair *pair = &pairs->pair[pairs->count++];
    *pair = (struct pair){.key = key};
    return pair;
}

static void add(struct pairs *pairs, const char *key, struct sel_value value)
{
    add_pair(pairs, key)->value = value;
}

static void add_number(struct pairs *pairs, const char *key, uint64_t value)
{
    add(pairs, key, sel_value_from_u64(value));
}

/* The others are left out if they are what their absence means. */
static void add_some_number(struct pairs *pairs, const char *key, uint64_t value)
{
    if (value)
        add_number(pairs, key, value);
}

static void add_true(struct pairs *pairs, const char *key, bool value)
{
    if (value)
        add(pairs, key, sel_value_from_bool(true));
}

static void add_some_text(struct pairs *pairs, const char *key, struct sel_str text)
{
    if (text.n)
        add(pairs, key, sel_value_from_str(text));
}

static void add_some_bin(struct pairs *pairs, const char *key, struct sel_str bytes)
{
    if (bytes.n)
        add(pairs, key, sel_value_from_bin(bytes));
}

/* `bytes` (16) and `range` (2) live as long as the pairs. */
static void add_id(struct pairs *pairs, const char *key, struct sel_id id, char *bytes)
{
    sel_le_put_id(bytes, id);
    add(pairs, key, sel_value_from_bin((struct sel_str){bytes, sizeof(struct sel_id)}));
}

static void add_range(struct pairs *pairs, const char *key, uint32_t min, uint32_t max,
                      struct sel_value *range)
{
    range[0] = sel_value_from_u64(min);
    range[1] = sel_value_from_u64(max);
    add(pairs, key, sel_value_from_list(range, 2));
}

static void put_list_head(struct sel_buf *buf, uint32_t count)
{
    if (count < 16) {
        sel_buf_put_u8(buf, (uint8_t)(0x90 | count));
    } else if (count <= UINT16_MAX) {
        const uint8_t head[] = {0xdc, (uint8_t)(count >> 8), (uint8_t)count};
        sel_buf_put(buf, head, sizeof(head));
    } else {
        sel_buf_fail_limit(buf); /* nobody would take so many */
    }
}

static void put_pair(const struct pair *pair, struct sel_buf *buf)
{
    struct sel_value value = sel_value_from_c(pair->key);
    sel_value_encode(&value, buf);
    if (!pair->names && !pair->numbers) {
        sel_value_encode(&pair->value, buf);
        return;
    }
    put_list_head(buf, pair->count);
    for (uint32_t i = 0; i < pair->count; i++) {
        value =
            pair->names ? sel_value_from_str(pair->names[i]) : sel_value_from_u64(pair->numbers[i]);
        sel_value_encode(&value, buf);
    }
}

static void put_message(unsigned type, const struct pairs *pairs, struct sel_buf *buf)
{
    const uint8_t prefix[] = {0x93, (uint8_t)type, 0xc0};
    sel_buf_put(buf, prefix, sizeof(prefix));
    if (pairs->count < 16) {
        sel_buf_put_u8(buf, (uint8_t)(0x80 | pairs->count));
    } else {
        const uint8_t head[] = {0xde, 0, (uint8_t)pairs->count};
        sel_buf_put(buf, head, sizeof(head));
    }
    for (uint32_t i = 0; i < pairs->count; i++)
        put_pair(&pairs->pair[i], buf);
}

void sel_wire_put_held(struct sel_buf *buf, const struct sel_wire_held *held)
{
    uint8_t bytes[SEL_WIRE_HELD_SIZE];
    sel_le_put_id(bytes + HELD_ID, held->id);
    sel_le_put64(bytes + HELD_HANDLE, held->handle);
    sel_le_put16(bytes + HELD_TRY, held->try_count);
    sel_le_put16(bytes + HELD_DELIVERY, held->delivery);
    sel_le_put32(bytes + HELD_FLAGS, (held->is_done ? HELD_FLAG_DONE : 0) |
                                         (held->is_run ? HELD_FLAG_RUN : 0) |
                                         (held->is_called_off ? HELD_FLAG_CALLED_OFF : 0));
    sel_buf_put(buf, bytes, sizeof(bytes));
}

static void add_worker(struct pairs *pairs, const struct sel_wire_hello *hello,
                       struct sel_value *events)
{
    if (!hello->serves_all) {
        struct pair *pair = add_pair(pairs, "serves");
        pair->value = sel_value_from_list(NULL, 0);
        pair->numbers = hello->serve_count ? hello->serves : NULL;
        pair->count = hello->serve_count;
    }
    add_some_number(pairs, "slots", hello->slots);
    add_some_number(pairs, "window", hello->window);
    add_some_number(pairs, "flows", hello->flows);
    add_some_bin(pairs, "held", hello->held);
    add_some_bin(pairs, "crashed", hello->crashed);
    if (hello->event_max)
        add_range(pairs, "events", hello->event_min, hello->event_max, events);
    add_some_number(pairs, "config", hello->config_version);
    add_some_bin(pairs, "digest", hello->config_digest);
}

void sel_wire_encode_hello(const struct sel_wire_hello *hello, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    struct sel_value versions[2], events[2];
    char peer[16], broker[16];
    bool is_worker = hello->role == SEL_ROLE_WORKER;
    add_range(&pairs, "v", hello->version_min, hello->version_max, versions);
    add(&pairs, "role", sel_value_from_c(is_worker ? "worker" : "producer"));
    add_id(&pairs, "peer", hello->peer, peer);
    add_some_number(&pairs, "inc", hello->incarnation);
    add_number(&pairs, "n", hello->n);
    add_some_text(&pairs, "name", hello->name);
    if (hello->broker.hi | hello->broker.lo)
        add_id(&pairs, "broker", hello->broker, broker);
    add_some_number(&pairs, "session", hello->session);
    add_some_number(&pairs, "ack", hello->ack);
    if (hello->queue_count) {
        struct pair *pair = add_pair(&pairs, "queues");
        pair->names = hello->queues;
        pair->count = hello->queue_count;
    }
    if (is_worker)
        add_worker(&pairs, hello, events);
    put_message(SEL_MESSAGE_HELLO, &pairs, buf);
}

void sel_wire_encode_welcome(const struct sel_wire_welcome *welcome, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    char broker[16];
    add_number(&pairs, "v", welcome->version);
    add_number(&pairs, "n", welcome->n);
    add_id(&pairs, "broker", welcome->broker, broker);
    add_number(&pairs, "session", welcome->session);
    add_true(&pairs, "resumed", welcome->resumed);
    add_some_number(&pairs, "ack", welcome->ack);
    add_some_number(&pairs, "credit_records", welcome->credit_records);
    add_some_number(&pairs, "credit_bytes", welcome->credit_bytes);
    add_number(&pairs, "record_max", welcome->record_max);
    add_number(&pairs, "lease_us", welcome->lease_us);
    add_number(&pairs, "beat_us", welcome->beat_us);
    add_number(&pairs, "level", welcome->level);
    add_number(&pairs, "level_max", welcome->level_max);
    add_some_number(&pairs, "shard", welcome->shard);
    put_message(SEL_MESSAGE_WELCOME, &pairs, buf);
}

void sel_wire_encode_error(const struct sel_wire_error *error, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    struct sel_value versions[2];
    add_number(&pairs, "code", error->code);
    add_some_text(&pairs, "text", error->text);
    add_true(&pairs, "retry", error->retry);
    add_some_number(&pairs, "wait_us", error->wait_us);
    add_true(&pairs, "close", error->close);
    add_some_number(&pairs, "at", error->at);
    add_some_number(&pairs, "n", error->n);
    if (error->version_max)
        add_range(&pairs, "v", error->version_min, error->version_max, versions);
    put_message(SEL_MESSAGE_ERROR, &pairs, buf);
}

void sel_wire_encode_goodbye(const struct sel_wire_goodbye *goodbye, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    add_number(&pairs, "session", goodbye->session);
    add_some_text(&pairs, "reason", goodbye->reason);
    put_message(SEL_MESSAGE_GOODBYE, &pairs, buf);
}

void sel_wire_encode_redirect(const struct sel_wire_redirect *redirect, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    add_some_number(&pairs, "shard", redirect->shard);
    struct pair *pair = add_pair(&pairs, "endpoints");
    pair->names = redirect->endpoints;
    pair->count = redirect->endpoint_count;
    put_message(SEL_MESSAGE_REDIRECT, &pairs, buf);
}

void sel_wire_encode_query(const struct sel_wire_query *query, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    add_number(&pairs, "n", query->n);
    add(&pairs, "what", sel_value_from_str(query->what));
    if (!sel_value_is(&query->args, SEL_NULL))
        add(&pairs, "args", query->args);
    put_message(SEL_MESSAGE_QUERY, &pairs, buf);
}

void sel_wire_encode_reply(const struct sel_wire_reply *reply, struct sel_buf *buf)
{
    struct pairs pairs = {.count = 0};
    add_number(&pairs, "n", reply->n);
    add_some_number(&pairs, "code", reply->code);
    add_some_text(&pairs, "text", reply->text);
    add_true(&pairs, "more", reply->more);
    if (!sel_value_is(&reply->body, SEL_NULL))
        add(&pairs, "body", reply->body);
    put_message(SEL_MESSAGE_REPLY, &pairs, buf);
}
