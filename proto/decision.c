#include "proto/decision.h"

#include "core/assert.h"
#include "proto/le.h"
#include "proto/wire.h"

/* Offsets, as in the tables of PROTOCOL.md. */
enum {
    HEAD_NUMBER = 0,
    HEAD_FLAGS = 4,
    HEAD_CONSUMED = 8,
    HEAD_BLOBS = 12,
    HEAD_STARTS = 16,
    HEAD_EVENTS_SIZE = 20,
    HEAD_OUTCOME = 24,
    HEAD_RESULT_SIZE = 28,
    HEAD_COUNTDOWN = 32,
    HEAD_SET_ARGS = 40,
    HEAD_RESERVED = 44,
    HEAD_END = 48,
};
enum {
    START_ORDINAL = 0,
    START_COUNT = 4,
    START_QUEUE = 8,
    START_FLAGS = 10,
    START_ARGS = 12,
    START_PARENTS = 16,
    START_FIELDS_SIZE = 20,
    START_RUN_FLAGS = 22,
    START_THROTTLE = 24,
    START_COUNTDOWN = 32,
    START_CHILD = 40,
    START_END = 56,
};
_Static_assert(HEAD_END == SEL_DECISION_HEAD_SIZE, "the table and the head have one size");
_Static_assert(START_END == SEL_DECISION_START_SIZE, "the table and a start have one size");

#define FLAG_END 1u

#define REFUSE(err, ...) sel_error_set((err), SEL_EFORMAT, (struct sel_pos){0}, __VA_ARGS__)

/* ---- reading ---- */

static bool take(struct sel_str *rest, size_t n, struct sel_str *ret)
{
    if (n > rest->n)
        return false;
    *ret = (struct sel_str){rest->p, n};
    *rest = (struct sel_str){rest->p + n, rest->n - n};
    return true;
}

/* Walks over the starts. *ret_ordinal: behind the last one. */
static int check_starts(const struct sel_decision *d, struct sel_str *rest, struct sel_str *ret,
                        struct sel_error *err)
{
    const char *begin = rest->p;
    uint64_t next = 0, runs = 0;
    for (uint32_t i = 0; i < d->start_count; i++) {
        struct sel_str head, fields, name;
        if (!take(rest, SEL_DECISION_START_SIZE, &head) ||
            !take(rest, sel_le_get16(head.p + START_FIELDS_SIZE), &fields))
            return REFUSE(err, "DECIDE: cut within start %u of %u", i + 1, d->start_count);
        uint64_t ordinal = sel_le_get32(head.p + START_ORDINAL);
        uint64_t count = sel_le_get32(head.p + START_COUNT);
        bool is_flow = sel_le_get16(head.p + START_FLAGS) & SEL_START_FLOW;
        struct sel_id child = sel_le_get_id(head.p + START_CHILD);
        if (ordinal < next || count == 0 || ordinal + count > UINT32_MAX || (is_flow && count != 1))
            return REFUSE(err, "DECIDE: start %u: ordinals go up", i + 1);
        next = ordinal + count;
        runs += count;
        if (runs > SEL_DECISION_RUNS_MAX)
            return REFUSE(err, "DECIDE: more than %u starts", SEL_DECISION_RUNS_MAX);
        if (sel_le_get32(head.p + START_ARGS) > d->blob_count ||
            sel_le_get32(head.p + START_PARENTS) > d->blob_count)
            return REFUSE(err, "DECIDE: start %u: a blob that is not there", i + 1);
        name = sel_wire_find_field(fields, SEL_FIELD_TASK);
        if (name.n == 0 || name.n > SEL_WIRE_NAME_MAX || !sel_str_is_utf8(name) ||
            sel_wire_find_field(fields, SEL_FIELD_RUN).n)
            return REFUSE(err, "DECIDE: start %u: fields without a name, or with a run", i + 1);
        if (is_flow != ((child.hi | child.lo) != 0))
            return REFUSE(err, "DECIDE: start %u: a sub-flow has an id, a task none", i + 1);
    }
    *ret = (struct sel_str){begin, (size_t)(rest->p - begin)};
    return 0;
}

static int check_blobs(const struct sel_decision *d, struct sel_str *rest, struct sel_str *ret,
                       struct sel_error *err)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < d->blob_count; i++)
        size += sel_le_get32(d->blob_sizes.p + (size_t)i * 4);
    if (!take(rest, size, ret))
        return REFUSE(err, "DECIDE: cut within its blobs");
    return 0;
}

int sel_decision_decode(struct sel_str payload, struct sel_decision *ret, struct sel_error *err)
{
    struct sel_str rest = payload, head;
    if (!take(&rest, SEL_DECISION_HEAD_SIZE, &head))
        return REFUSE(err, "DECIDE: cut within its head");
    const char *p = head.p;
    struct sel_decision d = {
        .number = sel_le_get32(p + HEAD_NUMBER),
        .is_end = sel_le_get32(p + HEAD_FLAGS) & FLAG_END,
        .outcome = sel_le_get32(p + HEAD_OUTCOME),
        .countdown_us = sel_le_get64(p + HEAD_COUNTDOWN),
        .set_args = sel_le_get32(p + HEAD_SET_ARGS),
        .consumed_count = sel_le_get32(p + HEAD_CONSUMED),
        .blob_count = sel_le_get32(p + HEAD_BLOBS),
        .start_count = sel_le_get32(p + HEAD_STARTS),
    };
    if (d.number == 0 || d.outcome > SEL_OUTCOME_CANCELLED || d.outcome == SEL_OUTCOME_FATAL ||
        (!d.is_end && d.outcome))
        return REFUSE(err, "DECIDE: no number, or no outcome that can be");
    if (d.set_args > d.blob_count)
        return REFUSE(err, "DECIDE: arguments in a blob that is not there");
    if (!take(&rest, (size_t)d.consumed_count * 4, &d.consumed) ||
        !take(&rest, (size_t)d.blob_count * 4, &d.blob_sizes))
        return REFUSE(err, "DECIDE: cut within its lists");
    int r = check_starts(&d, &rest, &d.starts, err);
    if (r == 0)
        r = check_blobs(&d, &rest, &d.blobs, err);
    if (r < 0)
        return r;
    if (!take(&rest, sel_le_get32(p + HEAD_EVENTS_SIZE), &d.events) ||
        !take(&rest, sel_le_get32(p + HEAD_RESULT_SIZE), &d.result) || rest.n)
        return REFUSE(err, "DECIDE: its sizes are not that of the whole");
    if (d.result.n && !d.is_end)
        return REFUSE(err, "DECIDE: a result before the end");
    *ret = d;
    return 0;
}

uint32_t sel_decision_consumed(const struct sel_decision *decision, uint32_t i)
{
    SEL_ASSERT(i < decision->consumed_count);
    return sel_le_get32(decision->consumed.p + (size_t)i * 4);
}

struct sel_str sel_decision_next_blob(const struct sel_decision *decision, uint32_t i,
                                      struct sel_str *rest)
{
    struct sel_str blob = {NULL, 0};
    SEL_ASSERT(i < decision->blob_count);
    bool fits = take(rest, sel_le_get32(decision->blob_sizes.p + (size_t)i * 4), &blob);
    SEL_ASSERT(fits);
    return blob;
}

void sel_decision_next_start(struct sel_str *rest, struct sel_decision_start *ret)
{
    struct sel_str head = {NULL, 0}, fields = {NULL, 0};
    bool fits = take(rest, SEL_DECISION_START_SIZE, &head) &&
                take(rest, sel_le_get16(head.p + START_FIELDS_SIZE), &fields);
    SEL_ASSERT(fits);
    const char *p = head.p;
    *ret = (struct sel_decision_start){
        .ordinal = sel_le_get32(p + START_ORDINAL),
        .count = sel_le_get32(p + START_COUNT),
        .queue = sel_le_get16(p + START_QUEUE),
        .flags = sel_le_get16(p + START_FLAGS),
        .args = sel_le_get32(p + START_ARGS),
        .parents = sel_le_get32(p + START_PARENTS),
        .run_flags = sel_le_get16(p + START_RUN_FLAGS),
        .throttle_us = sel_le_get64(p + START_THROTTLE),
        .countdown_us = sel_le_get64(p + START_COUNTDOWN),
        .child = sel_le_get_id(p + START_CHILD),
        .fields = fields,
    };
}

/* ---- writing ---- */

void sel_decision_writer_done(struct sel_decision_writer *w)
{
    sel_buf_done(&w->consumed);
    sel_buf_done(&w->blob_sizes);
    sel_buf_done(&w->blobs);
    sel_buf_done(&w->starts);
    *w = (struct sel_decision_writer){0};
}

static void put32(struct sel_buf *buf, uint32_t v)
{
    uint8_t bytes[4];
    sel_le_put32(bytes, v);
    sel_buf_put(buf, bytes, sizeof(bytes));
}

void sel_decision_add_consumed(struct sel_decision_writer *w, uint32_t ordinal)
{
    put32(&w->consumed, ordinal);
    w->consumed_count++;
}

uint32_t sel_decision_add_blob(struct sel_decision_writer *w, struct sel_str blob)
{
    if (blob.n > SEL_DECISION_MAX) {
        sel_buf_fail_limit(&w->blobs);
        return 0;
    }
    put32(&w->blob_sizes, (uint32_t)blob.n);
    sel_buf_put_str(&w->blobs, blob);
    return ++w->blob_count;
}

/* Whether the encoded start at `p` is followed by `start`, another run of the same. */
static bool goes_on(const uint8_t *p, const uint8_t *start, struct sel_str fields)
{
    uint32_t after = sel_le_get32(p + START_ORDINAL) + sel_le_get32(p + START_COUNT);
    return after == sel_le_get32(start + START_ORDINAL) &&
           memcmp(p + START_QUEUE, start + START_QUEUE, START_END - START_QUEUE) == 0 &&
           memcmp(p + START_END, fields.p, fields.n) == 0;
}

void sel_decision_add_start(struct sel_decision_writer *w, const struct sel_decision_start *start)
{
    uint8_t head[START_END];
    SEL_ASSERT(start->fields.n > 0 && start->count > 0);
    if (start->fields.n > UINT16_MAX) {
        sel_buf_fail_limit(&w->starts);
        return;
    }
    sel_le_put32(head + START_ORDINAL, start->ordinal);
    sel_le_put32(head + START_COUNT, start->count);
    sel_le_put16(head + START_QUEUE, start->queue);
    sel_le_put16(head + START_FLAGS, start->flags);
    sel_le_put32(head + START_ARGS, start->args);
    sel_le_put32(head + START_PARENTS, start->parents);
    sel_le_put16(head + START_FIELDS_SIZE, (uint16_t)start->fields.n);
    sel_le_put16(head + START_RUN_FLAGS, start->run_flags);
    sel_le_put64(head + START_THROTTLE, start->throttle_us);
    sel_le_put64(head + START_COUNTDOWN, start->countdown_us);
    sel_le_put_id(head + START_CHILD, start->child);
    if (sel_buf_error(&w->starts) < 0)
        return;
    uint8_t *last = w->start_count ? w->starts.p + w->last_start : NULL;
    if (last && !(start->flags & SEL_START_FLOW) && goes_on(last, head, start->fields)) {
        sel_le_put32(last + START_COUNT, sel_le_get32(last + START_COUNT) + start->count);
        return;
    }
    w->last_start = w->starts.n;
    sel_buf_put(&w->starts, head, sizeof(head));
    sel_buf_put_str(&w->starts, start->fields);
    w->start_count++;
}

static void put_head(const struct sel_decision_writer *w, const struct sel_decision *end,
                     struct sel_buf *out)
{
    uint8_t head[SEL_DECISION_HEAD_SIZE];
    sel_le_put32(head + HEAD_NUMBER, end->number);
    sel_le_put32(head + HEAD_FLAGS, end->is_end ? FLAG_END : 0);
    sel_le_put32(head + HEAD_CONSUMED, w->consumed_count);
    sel_le_put32(head + HEAD_BLOBS, w->blob_count);
    sel_le_put32(head + HEAD_STARTS, w->start_count);
    sel_le_put32(head + HEAD_EVENTS_SIZE, (uint32_t)end->events.n);
    sel_le_put32(head + HEAD_OUTCOME, end->outcome);
    sel_le_put32(head + HEAD_RESULT_SIZE, (uint32_t)end->result.n);
    sel_le_put64(head + HEAD_COUNTDOWN, end->countdown_us);
    sel_le_put32(head + HEAD_SET_ARGS, w->set_args);
    sel_le_put32(head + HEAD_RESERVED, 0);
    sel_buf_put(out, head, sizeof(head));
}

static void clear(struct sel_decision_writer *w)
{
    struct sel_buf *bufs[] = {&w->consumed, &w->blob_sizes, &w->blobs, &w->starts};
    for (size_t i = 0; i < SEL_COUNT(bufs); i++)
        sel_buf_clear(bufs[i]);
    w->consumed_count = w->blob_count = w->start_count = w->set_args = 0;
    w->last_start = 0;
}

int sel_decision_writer_end(struct sel_decision_writer *w, const struct sel_decision *end,
                            struct sel_buf *out)
{
    struct sel_buf *bufs[] = {&w->consumed, &w->blob_sizes, &w->starts, &w->blobs};
    size_t before = out->n, size = end->events.n + end->result.n + SEL_DECISION_HEAD_SIZE;
    int r = 0;
    for (size_t i = 0; i < SEL_COUNT(bufs); i++) {
        if (r == 0)
            r = sel_buf_error(bufs[i]);
        size += bufs[i]->n;
    }
    if (r == 0 && size > SEL_DECISION_MAX)
        r = SEL_ELIMIT;
    if (r == 0) {
        put_head(w, end, out);
        for (size_t i = 0; i < SEL_COUNT(bufs); i++)
            sel_buf_put_str(out, sel_buf_str(bufs[i]));
        sel_buf_put_str(out, end->events);
        sel_buf_put_str(out, end->result);
        r = sel_buf_error(out);
        if (r < 0)
            out->n = before;
    }
    clear(w);
    return r;
}
