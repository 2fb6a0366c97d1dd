/* Any frames from any connections, the clock moving: the broker answers and lives. The input is a
 * list of steps: a byte for the connection and what happens, two for the size of the frame, the
 * frame. A frame that is a DATA gets the number of the session of its connection, so that mutated
 * records are looked at. */
#include <string.h>

#include "broker/broker.h"
#include "core/arena.h"
#include "core/assert.h"
#include "proto/le.h"
#include "proto/wire.h"

#define CONNECTIONS 4u
#define STEPS_MAX 200

struct world {
    struct sel_broker *broker;
    uint64_t session[CONNECTIONS];
    struct sel_broker_now now;
    struct sel_buf log[64]; /* batches, by number */
    uint64_t last;
};

static int on_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    struct world *w = ctx;
    struct sel_wire_welcome welcome;
    struct sel_arena arena = {0};
    SEL_ASSERT(connection < CONNECTIONS && frame.n <= SEL_WIRE_MESSAGE_MAX);
    if (sel_wire_message_type(frame, NULL) == SEL_MESSAGE_WELCOME &&
        sel_wire_decode_welcome(&arena, frame, &welcome, NULL) == 0)
        w->session[connection] = welcome.session;
    sel_arena_done(&arena);
    return 0;
}

static int on_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    struct world *w = ctx;
    const struct sel_buf *batch = &w->log[seq % SEL_COUNT(w->log)];
    if (seq == 0 || seq > w->last || seq + SEL_COUNT(w->log) <= w->last || offset + n > batch->n)
        return SEL_ENOTFOUND;
    sel_buf_put(buf, batch->p + offset, n);
    return sel_buf_error(buf);
}

static void commit(struct world *w, bool fails)
{
    struct sel_broker_batches batches;
    if (!sel_broker_take_batches(w->broker, w->now, &batches))
        return;
    for (uint32_t i = 0; !fails && i < batches.count; i++) {
        SEL_ASSERT(batches.first + i == w->last + 1);
        struct sel_buf *kept = &w->log[++w->last % SEL_COUNT(w->log)];
        sel_buf_clear(kept);
        sel_buf_put_str(kept, batches.bytes[i]);
    }
    sel_broker_committed(w->broker, fails ? SEL_ELIMIT : 0, w->now);
}

static void step(struct world *w, uint8_t what, struct sel_str frame)
{
    uint32_t connection = what % CONNECTIONS;
    char copy[2048];
    if (frame.n > sizeof(copy))
        frame.n = sizeof(copy);
    if (frame.n)
        memcpy(copy, frame.p, frame.n);
    /* 93 03 c4 38, then the head with the session at 8 */
    if (frame.n >= SEL_WIRE_DATA_PREFIX && (uint8_t)copy[0] == 0x93 && copy[1] == 3 && what & 0x80)
        sel_le_put64(copy + 4 + 8, w->session[connection]);
    sel_broker_receive(w->broker, connection, (struct sel_str){copy, frame.n}, w->now);
    if (what & 0x04) {
        w->now.mono_us += 100;
        (void)sel_broker_turn(w->broker, w->now);
    }
    if (what & 0x08)
        commit(w, what & 0x40);
    if (what & 0x10) {
        w->now.mono_us += 3000000;
        w->now.unix_us += 3000000;
    }
    if (what & 0x20) {
        struct sel_buf reply = {0};
        sel_broker_query(w->broker, frame, w->now, &reply);
        sel_buf_done(&reply);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.now = {1000000, 1700000000000000}};
    const struct sel_broker_options options = {.queue_max = 8, .result_max = 4};
    const struct sel_broker_io io = {&w, on_send, on_read, NULL};
    if (sel_broker_new(&options, &io, (struct sel_id){1, 2}, &w.broker, NULL) < 0 ||
        sel_broker_start(w.broker, w.now) < 0)
        return 0;
    commit(&w, false);
    for (int i = 0; i < STEPS_MAX && size >= 3; i++) {
        size_t n = (size_t)data[1] | (size_t)data[2] << 8;
        uint8_t what = data[0];
        data += 3;
        size -= 3;
        if (n > size)
            n = size;
        step(&w, what, (struct sel_str){(const char *)data, n});
        data += n;
        size -= n;
    }
    (void)sel_broker_turn(w.broker, w.now);
    sel_broker_free(w.broker);
    for (size_t i = 0; i < SEL_COUNT(w.log); i++)
        sel_buf_done(&w.log[i]);
    return 0;
}
