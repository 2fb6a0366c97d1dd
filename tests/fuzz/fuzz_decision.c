#include <stddef.h>
#include <stdint.h>

#include "proto/decision.h"

/* Bytes as a decision: what is taken can be walked over, and written anew gives the same bytes, but
 * for starts that could have been one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_again(const struct sel_decision *d, struct sel_buf *out)
{
    struct sel_decision_writer w = {0};
    struct sel_str blobs = d->blobs, starts = d->starts;
    for (uint32_t i = 0; i < d->consumed_count; i++)
        sel_decision_add_consumed(&w, sel_decision_consumed(d, i));
    for (uint32_t i = 0; i < d->blob_count; i++)
        (void)sel_decision_add_blob(&w, sel_decision_next_blob(d, i, &blobs));
    for (uint32_t i = 0; i < d->start_count; i++) {
        struct sel_decision_start start;
        sel_decision_next_start(&starts, &start);
        sel_decision_add_start(&w, &start);
    }
    SEL_ASSERT(starts.n == 0 && blobs.n == 0);
    w.set_args = d->set_args;
    int r = sel_decision_writer_end(&w, d, out);
    SEL_ASSERT(r == 0);
    sel_decision_writer_done(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_decision d, again;
    struct sel_error err;
    struct sel_buf out = {0};
    if (sel_decision_decode((struct sel_str){(const char *)data, size}, &d, &err) < 0)
        return 0;
    write_again(&d, &out);
    SEL_ASSERT(sel_decision_decode(sel_buf_str(&out), &again, &err) == 0);
    SEL_ASSERT(again.number == d.number && again.is_end == d.is_end);
    SEL_ASSERT(again.start_count <= d.start_count && again.blob_count == d.blob_count);
    SEL_ASSERT(sel_str_eq(again.events, d.events) && sel_str_eq(again.result, d.result));
    sel_buf_done(&out);
    return 0;
}
