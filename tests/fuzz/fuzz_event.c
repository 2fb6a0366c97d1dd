/* A record of arbitrary bytes is replayed onto a small state, event by event: each fits or is
 * refused and changes nothing; after each the state can be encoded, decoded and is the same. */
#include "core/arena.h"
#include "core/buf.h"
#include "core/mem.h"
#include "core/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOTS 3
#define EDGES 70 /* more than one word of bits */

static void check_codec(const struct sel_state *state, struct sel_buf *bytes)
{
    struct sel_state decoded = {0};
    struct sel_buf again = {0};
    sel_buf_clear(bytes);
    sel_state_encode(state, bytes);
    SEL_ASSERT(sel_buf_error(bytes) == 0);
    SEL_ASSERT(sel_state_decode(bytes->p, bytes->n, &decoded) == 0);
    SEL_ASSERT(decoded.active_count == state->active_count);
    SEL_ASSERT(decoded.finished_count == state->finished_count);
    SEL_ASSERT(decoded.failed_count == state->failed_count);
    sel_state_encode(&decoded, &again);
    SEL_ASSERT(sel_str_eq(sel_buf_str(bytes), sel_buf_str(&again)));
    SEL_ASSERT(sel_state_bytes(state) >= sizeof(*state));
    sel_buf_done(&again);
    sel_state_done(&decoded);
}

/* What was decoded is encoded again in the shortest form, which decodes to the same. */
static void check_event(const struct sel_event *event, uint32_t *list)
{
    struct sel_buf bytes = {0}, again = {0};
    struct sel_event copy;
    size_t pos = 0;
    sel_event_encode(event, &bytes);
    SEL_ASSERT(sel_buf_error(&bytes) == 0);
    SEL_ASSERT(sel_event_decode(bytes.p, bytes.n, &pos, list, &copy) == 0);
    SEL_ASSERT(pos == bytes.n && copy.type == event->type && copy.a == event->a);
    sel_event_encode(&copy, &again);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&again)));
    sel_buf_done(&bytes);
    sel_buf_done(&again);
}

static void apply(struct sel_state *state, const struct sel_event *event, struct sel_buf *bytes)
{
    struct sel_buf after = {0};
    int r = sel_state_apply(state, event); /* `bytes` has the state before it */
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
    if (r == 0) {
        check_codec(state, bytes);
        return;
    }
    sel_state_encode(state, &after);
    SEL_ASSERT(sel_str_eq(sel_buf_str(bytes), sel_buf_str(&after)));
    sel_buf_done(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_state state;
    struct sel_event event;
    struct sel_buf bytes = {0};
    if (size > 4096)
        return 0;
    uint32_t *list = sel_mem_alloc(sizeof(*list) * SEL_EVENT_ITEMS_MAX);
    uint32_t *other = sel_mem_alloc(sizeof(*list) * SEL_EVENT_ITEMS_MAX);
    SEL_ASSERT(list && other);
    SEL_ASSERT(sel_state_init(&state, (struct sel_id){1, 2}, SLOTS, EDGES, SEL_STR("\xc0")) == 0);
    check_codec(&state, &bytes);
    for (size_t pos = 0; pos < size;) {
        size_t before = pos;
        if (sel_event_decode(data, size, &pos, list, &event) < 0) {
            SEL_ASSERT(pos == before);
            break;
        }
        SEL_ASSERT(pos > before && pos <= size);
        check_event(&event, other);
        apply(&state, &event, &bytes);
    }
    sel_state_done(&state);
    sel_buf_done(&bytes);
    sel_mem_free(list);
    sel_mem_free(other);
    return 0;
}
