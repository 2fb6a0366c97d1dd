/* Any bytes as a batch of the journal: what can be read is written back the same, and a broker that
 * replays it lives or says why not. */
#include <string.h>

#include "broker/broker.h"
#include "broker/mutation.h"
#include "core/assert.h"

static int on_send(void *ctx, uint32_t connection, struct sel_str frame)
{
    (void)ctx, (void)connection, (void)frame;
    return 0;
}

struct batches {
    struct sel_str first; /* batch 1 */
};

static int on_read(void *ctx, uint64_t seq, uint64_t offset, uint64_t n, struct sel_buf *buf)
{
    const struct batches *batches = ctx;
    if (seq != 1 || offset + n > batches->first.n)
        return SEL_ENOTFOUND;
    sel_buf_put(buf, batches->first.p + offset, n);
    return sel_buf_error(buf);
}

static void round_trip(struct sel_str batch)
{
    struct sel_buf again = {0};
    struct sel_str rest = batch;
    struct sel_mutation m;
    while (sel_mutation_next(&rest, &m, NULL) > 0) {
        size_t begin = again.n;
        sel_mutation_encode(&m, &again);
        SEL_ASSERT(again.n - begin == sel_mutation_size(&m));
    }
    SEL_ASSERT(again.n == batch.n - rest.n && (again.n == 0 || !memcmp(again.p, batch.p, again.n)));
    sel_buf_done(&again);
}

static void replay(struct sel_str batch)
{
    struct batches batches = {batch};
    const struct sel_broker_options options = {.queue_max = 16, .payload_memory = 64};
    const struct sel_broker_io io = {&batches, on_send, on_read, NULL};
    const struct sel_broker_now now = {1000000, 1700000000000000};
    struct sel_broker *broker = NULL;
    struct sel_broker_batches taken;
    if (sel_broker_new(&options, &io, (struct sel_id){1, 2}, &broker, NULL) < 0)
        return;
    if (sel_broker_replay(broker, 1, batch, now, NULL) == 0 && sel_broker_start(broker, now) == 0) {
        sel_broker_note_journal(broker, UINT64_C(1) << 40); /* wasteful: it is copied */
        for (int64_t i = 0; i < 4; i++) {
            const struct sel_broker_now later = {now.mono_us + i * 20000000,
                                                 now.unix_us + i * 20000000};
            (void)sel_broker_turn(broker, later);
            if (sel_broker_take_batches(broker, later, &taken))
                sel_broker_committed(broker, i == 1 ? -28 : 0, later);
        }
    }
    sel_broker_free(broker);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_str batch = {(const char *)data, size};
    round_trip(batch);
    replay(batch);
    return 0;
}
