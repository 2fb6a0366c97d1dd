/* Arbitrary bytes as a state. What decodes is encoded, decodes again and is the same then; and it
 * bears whatever events come next: first those behind the state in the input, then one of each
 * type. */
#include "core/arena.h"
#include "core/buf.h"
#include "core/mem.h"
#include "core/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_codec(const struct sel_state *state)
{
    struct sel_state decoded = {0};
    struct sel_buf bytes = {0}, again = {0};
    sel_state_encode(state, &bytes);
    SEL_ASSERT(sel_buf_error(&bytes) == 0);
    SEL_ASSERT(sel_state_decode(bytes.p, bytes.n, &decoded) == 0);
    SEL_ASSERT(decoded.active_count == state->active_count);
    SEL_ASSERT(decoded.finished_count == state->finished_count);
    SEL_ASSERT(decoded.failed_count == state->failed_count);
    sel_state_encode(&decoded, &again);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&bytes), sel_buf_str(&again)));
    sel_buf_done(&bytes);
    sel_buf_done(&again);
    sel_state_done(&decoded);
}

static void look_at_runs(const struct sel_state *state)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    for (uint32_t i = 0; i < state->run_count; i++) {
        SEL_ASSERT(sel_state_run_slot(state, i) < state->slot_count);
        SEL_ASSERT(sel_state_run_id(state, i, text).n > 0 || sel_state_reused(state, i));
    }
}

static void replay(struct sel_state *state, const uint8_t *p, size_t n)
{
    int r = sel_state_replay(state, p, n);
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
    check_codec(state);
}

/* One event of each type, in the order in which a flow goes on if they fit. */
static void apply_all(struct sel_state *state)
{
    static const enum sel_event_type types[] = {
        SEL_EVENT_START, SEL_EVENT_FIRE,    SEL_EVENT_TASK,      SEL_EVENT_FLOW,   SEL_EVENT_OMIT,
        SEL_EVENT_FALSE, SEL_EVENT_REUSE,   SEL_EVENT_EDGES_END, SEL_EVENT_DONE,   SEL_EVENT_TAKE,
        SEL_EVENT_EDGE,  SEL_EVENT_FOREACH, SEL_EVENT_TASK,      SEL_EVENT_FAILED, SEL_EVENT_CHOICE,
        SEL_EVENT_SKIP,  SEL_EVENT_WAIT,    SEL_EVENT_OMIT_EDGE, SEL_EVENT_ARGS,   SEL_EVENT_END,
        SEL_EVENT_RETRY, SEL_EVENT_START,   SEL_EVENT_CANCEL,
    };
    static const uint32_t list[] = {0};
    for (size_t i = 0; i < SEL_COUNT(types); i++) {
        struct sel_event event = {.type = types[i],
                                  .a = types[i] == SEL_EVENT_FIRE,
                                  .b = types[i] == SEL_EVENT_CHOICE,
                                  .list = list,
                                  .list_count = 1,
                                  .bytes = SEL_STR("\xc0")};
        int r = sel_state_apply(state, &event);
        SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
        check_codec(state);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_state state = {0};
    if (size < 2 || size > 65536)
        return 0;
    /* the first two bytes: the size of the state, what is left is a record */
    size_t state_size = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    size -= 2;
    if (state_size > size)
        state_size = size;
    int r = sel_state_decode(data, state_size, &state);
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT || r == SEL_EVERSION);
    if (r < 0) {
        SEL_ASSERT(!state.runs && !state.slots); /* untouched */
        return 0;
    }
    check_codec(&state);
    look_at_runs(&state);
    replay(&state, data + state_size, size - state_size);
    apply_all(&state);
    sel_state_done(&state);
    return 0;
}
