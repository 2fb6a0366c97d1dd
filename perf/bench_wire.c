/* The wire: how long a record of DATA takes to encode and to decode, and to pass through a session.
 */
#include <string.h>

#include "core/error.h"
#include "perf/bench.h"
#include "proto/session.h"
#include "proto/wire.h"

#define RECORDS 2000000u
#define BATCH 256u /* records in one message */
#define ARGUMENTS 64u

/* A bare task with 64 bytes of arguments, the one that `bare_memory_tasks_per_s` counts. */
static struct sel_wire_item task_of(uint64_t number)
{
    static const char arguments[ARGUMENTS];
    return (struct sel_wire_item){
        .type = SEL_RECORD_SUBMIT,
        .id = {UINT64_C(0x0198f3c27b1c7001), number},
        .queue = 1,
        .priority = SEL_WIRE_PRIORITY,
        .task = SEL_STR("bench.noop"),
        .payload = {arguments, sizeof(arguments)},
    };
}

/* Decodes what is in `buf`; the sum of what was read, so that no reading can be left out. */
static int decode_batch(const struct sel_buf *buf, uint64_t *sum)
{
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    int r = sel_wire_decode_data(sel_buf_str(buf), &head, &records, NULL);
    while (r >= 0 && (r = sel_wire_next(&records, &item, NULL)) > 0)
        *sum += item.id.lo + item.payload.n + item.task.n;
    return r;
}

static void encode_batch(uint64_t first, struct sel_buf *buf)
{
    struct sel_wire_writer writer;
    struct sel_wire_head head = {.session = 1, .first = first};
    sel_buf_clear(buf);
    sel_wire_begin(&writer, buf);
    for (uint32_t i = 0; i < BATCH; i++) {
        struct sel_wire_item item = task_of(first + i);
        sel_wire_put(&writer, &item);
    }
    sel_wire_end(&writer, &head);
}

static uint64_t sum_expected(uint64_t first, uint64_t count)
{
    uint64_t each = ARGUMENTS + sizeof("bench.noop") - 1;
    return count * each + count * first + count * (count - 1) / 2;
}

enum what { ENCODE = 1, DECODE = 2 };

static int measure_codec(void *arg, double *ret)
{
    unsigned what = *(const unsigned *)arg;
    struct sel_buf buf = {0};
    uint64_t sum = 0, count = 0;
    encode_batch(1, &buf);
    int r = sel_buf_error(&buf);
    int64_t begin_ns = sel_bench_now_ns();
    for (; r == 0 && count < RECORDS; count += BATCH) {
        if (what & ENCODE)
            encode_batch(1 + count, &buf);
        if (what & DECODE)
            r = decode_batch(&buf, &sum);
    }
    *ret = (double)(sel_bench_now_ns() - begin_ns) / (double)count;
    if (what == (ENCODE | DECODE))
        SEL_ASSERT(r < 0 || sum == sum_expected(1, count));
    sel_buf_done(&buf);
    return r;
}

/* One batch from end to end, and what comes back: acks and credit. */
static int pass_batch(struct sel_session *from, struct sel_session *to, struct sel_buf *buf,
                      uint64_t *sum)
{
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    sel_buf_clear(buf);
    int r = sel_session_send(from, SEL_WIRE_MESSAGE_MAX, false, buf);
    if (r == 0)
        r = sel_wire_decode_data(sel_buf_str(buf), &head, &records, NULL);
    if (r < 0)
        return r;
    size_t bytes = records.n;
    int64_t count = sel_session_receive(to, &head, &records, NULL);
    if (count < 0)
        return (int)count;
    while ((r = sel_wire_next(&records, &item, NULL)) > 0)
        *sum += item.id.lo + item.payload.n + item.task.n;
    sel_session_free(to, (uint64_t)count, bytes);
    sel_session_settle(to, to->in.arrived);
    return r;
}

static int measure_session(void *arg, double *ret)
{
    (void)arg;
    struct sel_session peer, broker;
    struct sel_wire_welcome welcome = {0};
    struct sel_buf buf = {0};
    uint64_t sum = 0, unused, count = 0;
    sel_session_init(&peer, 1u << 20, 2 * BATCH, 1u << 20);
    sel_session_init(&broker, 1u << 20, 2 * BATCH, 1u << 20);
    (void)sel_session_start(&broker, 1);
    sel_session_fill_welcome(&broker, &welcome);
    int r = sel_session_welcome(&peer, &welcome, &unused);
    int64_t begin_ns = sel_bench_now_ns();
    for (; r == 0 && count < RECORDS; count += BATCH) {
        for (uint32_t i = 0; r == 0 && i < BATCH; i++) {
            struct sel_wire_item item = task_of(1 + count + i);
            r = sel_session_put(&peer, &item, &unused);
        }
        if (r == 0)
            r = pass_batch(&peer, &broker, &buf, &sum);
        if (r == 0)
            r = pass_batch(&broker, &peer, &buf, &sum);
    }
    *ret = (double)(sel_bench_now_ns() - begin_ns) / (double)count;
    SEL_ASSERT(r < 0 || sum == sum_expected(1, count));
    sel_buf_done(&buf);
    sel_session_done(&peer);
    sel_session_done(&broker);
    return r;
}

int sel_bench_wire(struct sel_bench_run *run)
{
    unsigned both = ENCODE | DECODE, encode = ENCODE, decode = DECODE;
    struct sel_bench_probe probes[] = {{.fn = measure_codec, .arg = &both},
                                       {.fn = measure_codec, .arg = &encode},
                                       {.fn = measure_codec, .arg = &decode},
                                       {.fn = measure_session}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    double both_ns = probes[0].median;
    const struct sel_bench_metric metrics[] = {
        {"wire_records_per_s", 1e9 / both_ns, "records/s", SEL_BENCH_NO_TARGET, 0,
         "encoded and decoded, 64 B arguments, 256 a message"},
        {"wire_record_ns", both_ns, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"wire_encode_ns", probes[1].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"wire_decode_ns", probes[2].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"session_record_ns", probes[3].median, "ns", SEL_BENCH_NO_TARGET, 0,
         "put, sent, received, settled; acks and credit back"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}
