/* Any bytes as a frame. What is taken is encoded, decoded again and must be the same: encoded once
 * it has one form, so encoding it again gives the same bytes. */
#include "core/arena.h"
#include "core/buf.h"
#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory beside the input: what wire.h says that a hostile frame may need. */
#define MEMORY_MAX(size) (65536 + 64 * (size))

/* Decodes a frame of `type` and encodes it. */
static int recode(struct sel_arena *arena, int type, struct sel_str frame, struct sel_buf *buf,
                  struct sel_error *err)
{
    struct sel_wire_hello hello;
    struct sel_wire_welcome welcome;
    struct sel_wire_error error;
    struct sel_wire_goodbye goodbye;
    struct sel_wire_redirect redirect;
    struct sel_wire_query query;
    struct sel_wire_reply reply;
    struct sel_wire_beat beat;
    int r;
#define RECODE(name)                                                                               \
    do {                                                                                           \
        r = sel_wire_decode_##name(arena, frame, &name, err);                                      \
        if (r == 0)                                                                                \
            sel_wire_encode_##name(&name, buf);                                                    \
    } while (0)
    switch (type) {
    case SEL_MESSAGE_HELLO:
        RECODE(hello);
        break;
    case SEL_MESSAGE_WELCOME:
        RECODE(welcome);
        break;
    case SEL_MESSAGE_ERROR:
        RECODE(error);
        break;
    case SEL_MESSAGE_GOODBYE:
        RECODE(goodbye);
        break;
    case SEL_MESSAGE_REDIRECT:
        RECODE(redirect);
        break;
    case SEL_MESSAGE_QUERY:
        RECODE(query);
        break;
    case SEL_MESSAGE_REPLY:
        RECODE(reply);
        break;
    default:
        SEL_ASSERT(type == SEL_MESSAGE_BEAT);
        r = sel_wire_decode_beat(frame, &beat, err);
        if (r == 0)
            sel_wire_encode_beat(&beat, buf);
    }
    return r;
}

static void check_plain(int type, struct sel_str frame)
{
    struct sel_arena arena;
    struct sel_buf first = {0}, second = {0};
    struct sel_error err = {0};
    sel_arena_init(&arena, MEMORY_MAX(frame.n));
    int r = recode(&arena, type, frame, &first, &err);
    if (r == 0) {
        SEL_ASSERT(sel_buf_error(&first) == 0);
        SEL_ASSERT(recode(&arena, type, sel_buf_str(&first), &second, NULL) == 0);
        SEL_ASSERT(sel_str_eq(sel_buf_str(&first), sel_buf_str(&second)));
    } else {
        SEL_ASSERT(r == SEL_EFORMAT || r == SEL_ELIMIT);
        SEL_ASSERT(err.code == r && err.text[0]);
    }
    sel_buf_done(&first);
    sel_buf_done(&second);
    sel_arena_done(&arena);
}

static bool is_same_item(const struct sel_wire_item *a, const struct sel_wire_item *b)
{
    return a->type == b->type && a->flags == b->flags && sel_id_eq(a->id, b->id) &&
           a->queue == b->queue && a->priority == b->priority && a->level == b->level &&
           a->code == b->code && a->handle == b->handle && a->try_count == b->try_count &&
           a->delivery == b->delivery && a->countdown_us == b->countdown_us &&
           a->not_before_unix_us == b->not_before_unix_us && sel_str_eq(a->task, b->task) &&
           sel_str_eq(a->idempotency_key, b->idempotency_key) &&
           sel_str_eq(a->content_type, b->content_type) && sel_str_eq(a->payload, b->payload);
}

/* From the fields as they came, and from the members. */
static void check_item(struct sel_wire_item *item)
{
    for (int i = 0; i < 2; i++) {
        struct sel_buf buf = {0};
        struct sel_wire_item again;
        if (sel_wire_item_size(item)) {
            sel_wire_encode_item(item, &buf);
            SEL_ASSERT(sel_buf_error(&buf) == 0 && buf.n == sel_wire_item_size(item));
            struct sel_str records = sel_buf_str(&buf);
            SEL_ASSERT(sel_wire_next(&records, &again, NULL) == 1 && records.n == 0);
            SEL_ASSERT(is_same_item(item, &again));
        }
        sel_buf_done(&buf);
        item->fields.n = 0;
    }
}

/* Walks over records until the end, at most so many; the number. */
static uint32_t walk(struct sel_str records, uint32_t max)
{
    struct sel_error err = {0};
    struct sel_wire_item item;
    uint32_t count = 0;
    int r;
    while ((r = sel_wire_next(&records, &item, &err)) != 0) {
        SEL_ASSERT(count++ < max);
        if (r > 0) {
            check_item(&item);
            continue;
        }
        SEL_ASSERT(r == SEL_EFORMAT || r == SEL_ELIMIT || r == SEL_EUNSUPPORTED);
        SEL_ASSERT(err.code == r && err.text[0]);
        SEL_ASSERT(item.task.n == 0 && item.payload.n == 0 && item.fields.n == 0);
    }
    return count;
}

static void check_data(struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_error err = {0};
    int r = sel_wire_decode_data(frame, &head, &records, &err);
    if (r < 0) {
        SEL_ASSERT(r == SEL_EFORMAT || r == SEL_EVERSION || r == SEL_ELIMIT ||
                   r == SEL_EUNSUPPORTED);
        SEL_ASSERT(err.code == r && err.text[0]);
        return;
    }
    SEL_ASSERT(walk(records, head.count) == head.count);
    struct sel_str rest = records;
    sel_wire_skip(&rest, head.count);
    SEL_ASSERT(rest.n == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_str frame = {(const char *)data, size};
    int type = sel_wire_message_type(frame, NULL);
    SEL_ASSERT(type == SEL_EFORMAT || (type > 0 && type < SEL_MESSAGE_END));
    if (type == SEL_MESSAGE_DATA)
        check_data(frame);
    else if (type > 0)
        check_plain(type, frame);
    (void)walk(frame, UINT32_MAX); /* as records that nobody has checked: only must do no harm */
    return 0;
}
