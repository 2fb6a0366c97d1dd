#include "proto/session.h"

#include "core/assert.h"
#include "core/mem.h"
#include "proto/le.h"

#define OUTBOX_SIZE_MIN ((size_t)1024)

/* ---- records on their way out ---- */

void sel_outbox_init(struct sel_outbox *box, size_t bytes_max)
{
    *box = (struct sel_outbox){.next = 1, .bytes_max = bytes_max};
}

void sel_outbox_done(struct sel_outbox *box)
{
    sel_mem_free(box->p);
    sel_outbox_init(box, box->bytes_max);
}

/* The record behind those that add up to `bytes`. Each begins with its size. */
static const uint8_t *record_behind(const struct sel_outbox *box, uint64_t bytes)
{
    return box->p + box->head + (bytes - box->settled_bytes);
}

/* Moves a mark, a number and its bytes, up to `number`. */
static void move_mark(const struct sel_outbox *box, uint64_t *mark, uint64_t *bytes,
                      uint64_t number)
{
    SEL_ASSERT(number < box->next);
    if (number == box->next - 1)
        *bytes = box->put_bytes; /* all of them: no need to walk */
    else
        for (uint64_t i = *mark; i < number; i++)
            *bytes += sel_le_get32(record_behind(box, *bytes));
    *mark = number;
}

/* Room for `size` bytes at `end`. Records stay in one piece, so that they are encoded in place and
 * sent with one copy: what was let go at the front is closed up when it is as much as what must be
 * moved for it, which keeps the cost for a byte constant. */
static bool make_room(struct sel_outbox *box, size_t size)
{
    if (size <= box->cap - box->end)
        return true;
    size_t live = box->end - box->head;
    if (box->head >= live && size <= box->cap - live) {
        memmove(box->p, box->p + box->head, live);
    } else {
        size_t cap = 2 * (live + size);
        if (cap < OUTBOX_SIZE_MIN)
            cap = OUTBOX_SIZE_MIN;
        uint8_t *p = sel_mem_alloc(cap);
        if (!p)
            return false;
        if (live)
            memcpy(p, box->p + box->head, live);
        sel_mem_free(box->p);
        box->p = p;
        box->cap = cap;
    }
    box->head = 0;
    box->end = live;
    return true;
}

/* The first one is not counted, whatever its size is: those behind it always have their room. */
static bool outbox_has_room(const struct sel_outbox *box, size_t size)
{
    size_t live = box->end - box->head;
    if (live == 0)
        return true;
    size_t behind = live - sel_le_get32(box->p + box->head);
    return behind <= box->bytes_max && size <= box->bytes_max - behind;
}

int sel_outbox_put(struct sel_outbox *box, const struct sel_wire_item *item, uint64_t *ret)
{
    size_t size = sel_wire_item_size(item);
    if (size == 0)
        return SEL_ERANGE;
    if (!outbox_has_room(box, size))
        return SEL_ELIMIT;
    if (!make_room(box, size))
        return SEL_ENOMEM;
    sel_wire_write_item(item, box->p + box->end);
    box->end += size;
    box->put_bytes += size;
    *ret = box->next++;
    return 0;
}

int sel_outbox_ack(struct sel_outbox *box, uint64_t ack)
{
    if (ack > box->sent_ever)
        return SEL_ESTATE;
    if (ack <= box->acked)
        return 0;
    move_mark(box, &box->acked, &box->acked_bytes, ack);
    if (box->sent < box->acked) { /* after a rewind that was not needed */
        box->sent = box->acked;
        box->sent_bytes = box->acked_bytes;
    }
    return 0;
}

void sel_outbox_settle(struct sel_outbox *box, uint64_t settled)
{
    if (settled > box->acked)
        settled = box->acked;
    if (settled <= box->settled)
        return;
    uint64_t bytes = box->settled_bytes;
    move_mark(box, &box->settled, &bytes, settled);
    box->head += bytes - box->settled_bytes;
    box->settled_bytes = bytes;
    if (box->head == box->end)
        box->head = box->end = 0;
}

void sel_outbox_grant(struct sel_outbox *box, uint64_t credit_records, uint64_t credit_bytes)
{
    if (credit_records > box->credit_records)
        box->credit_records = credit_records;
    if (credit_bytes > box->credit_bytes)
        box->credit_bytes = credit_bytes;
}

void sel_outbox_rewind(struct sel_outbox *box)
{
    box->sent = box->acked;
    box->sent_bytes = box->acked_bytes;
}

uint64_t sel_outbox_restart(struct sel_outbox *box)
{
    uint64_t shift = box->settled;
    box->next -= shift;
    box->put_bytes -= box->settled_bytes;
    box->settled = box->acked = box->sent = box->sent_ever = 0;
    box->settled_bytes = box->acked_bytes = box->sent_bytes = 0;
    box->credit_records = box->credit_bytes = 0;
    return shift;
}

/* Whether the record behind `number` and `bytes` is there and within the credit; its size. */
static bool may_send(const struct sel_outbox *box, uint64_t number, uint64_t bytes, size_t *ret)
{
    if (number + 1 >= box->next || number >= box->credit_records || bytes > box->credit_bytes)
        return false;
    *ret = sel_le_get32(record_behind(box, bytes));
    return *ret <= box->credit_bytes - bytes;
}

bool sel_outbox_has_due(const struct sel_outbox *box)
{
    size_t size;
    return may_send(box, box->sent, box->sent_bytes, &size);
}

uint32_t sel_outbox_take(struct sel_outbox *box, struct sel_wire_writer *writer, size_t bytes_max,
                         uint64_t *ret_first)
{
    uint64_t bytes = box->sent_bytes;
    uint32_t count = 0;
    size_t size, total = 0;
    while (count < UINT32_MAX && may_send(box, box->sent + count, bytes, &size)) {
        if (count && (total > bytes_max || size > bytes_max - total))
            break;
        total += size;
        bytes += size;
        count++;
    }
    *ret_first = box->sent + 1;
    if (count == 0)
        return 0;
    const char *p = (const char *)record_behind(box, box->sent_bytes);
    sel_wire_put_raw(writer, (struct sel_str){p, total}, count);
    if (sel_buf_error(writer->buf) < 0)
        return 0;
    box->sent += count;
    box->sent_bytes = bytes;
    if (box->sent_ever < box->sent)
        box->sent_ever = box->sent;
    return count;
}

void sel_outbox_filter(struct sel_outbox *box,
                       bool (*keep)(void *ctx, uint64_t old_number, uint64_t number,
                                    struct sel_str record),
                       void *ctx)
{
    SEL_ASSERT(box->settled == 0 && box->sent_ever == 0);
    size_t to = box->head, from = box->head;
    uint64_t number = 1;
    for (uint64_t old = 1; old < box->next; old++) {
        const size_t size = sel_le_get32(box->p + from);
        if (keep(ctx, old, number, (struct sel_str){(const char *)box->p + from, size})) {
            if (to != from)
                memmove(box->p + to, box->p + from, size);
            to += size;
            number++;
        }
        from += size;
    }
    box->end = to;
    box->next = number;
    box->put_bytes = to - box->head;
    if (box->head == box->end)
        box->head = box->end = 0;
}

struct sel_str sel_outbox_find(const struct sel_outbox *box, struct sel_outbox_cursor *cursor,
                               uint64_t number)
{
    if (number <= box->settled || number >= box->next)
        return (struct sel_str){NULL, 0};
    if (cursor->number <= box->settled || cursor->number > number)
        *cursor = (struct sel_outbox_cursor){box->settled + 1, box->settled_bytes};
    for (; cursor->number < number; cursor->number++)
        cursor->bytes += sel_le_get32(record_behind(box, cursor->bytes));
    const uint8_t *p = record_behind(box, cursor->bytes);
    return (struct sel_str){(const char *)p, sel_le_get32(p)};
}

void sel_outbox_trim(struct sel_outbox *box)
{
    size_t live = box->end - box->head;
    uint8_t *p = NULL;
    if (live) {
        p = sel_mem_alloc(live);
        if (!p)
            return; /* nothing is lost by keeping what we have */
        memcpy(p, box->p + box->head, live);
    }
    sel_mem_free(box->p);
    box->p = p;
    box->head = 0;
    box->end = box->cap = live;
}

/* ---- records coming in ---- */

/* What may arrive on top of `arrived`, when `held` of `window` is in use. */
static void raise_limit(uint64_t *limit, uint64_t arrived, uint64_t window, uint64_t held)
{
    uint64_t now = arrived + (window > held ? window - held : 0);
    if (now > *limit)
        *limit = now;
}

static void raise_credit(struct sel_inbox *box)
{
    raise_limit(&box->credit_records, box->arrived, box->window_records, box->held_records);
    raise_limit(&box->credit_bytes, box->arrived_bytes, box->window_bytes, box->held_bytes);
}

void sel_inbox_init(struct sel_inbox *box, uint64_t window_records, uint64_t window_bytes)
{
    *box = (struct sel_inbox){0};
    sel_inbox_window(box, window_records, window_bytes);
}

void sel_inbox_window(struct sel_inbox *box, uint64_t records, uint64_t bytes)
{
    box->window_records = records;
    box->window_bytes = bytes;
    raise_credit(box);
}

int64_t sel_inbox_receive(struct sel_inbox *box, const struct sel_wire_head *head,
                          struct sel_str *records)
{
    uint64_t expected = box->arrived + 1;
    if (head->first > expected)
        return SEL_ESTATE;
    uint64_t skip = expected - head->first;
    if (skip > head->count)
        skip = head->count;
    struct sel_str fresh = *records;
    uint32_t count = head->count - (uint32_t)skip;
    if (count)
        sel_wire_skip(&fresh, (uint32_t)skip);
    else
        fresh = (struct sel_str){records->p + records->n, 0};
    if (count > box->credit_records - box->arrived ||
        fresh.n > box->credit_bytes - box->arrived_bytes)
        return SEL_ELIMIT;
    box->arrived += count;
    box->arrived_bytes += fresh.n;
    box->held_records += count;
    box->held_bytes += fresh.n;
    *records = fresh;
    return count;
}

void sel_inbox_free(struct sel_inbox *box, uint64_t records, uint64_t bytes)
{
    SEL_ASSERT(records <= box->held_records);
    SEL_ASSERT(bytes <= box->held_bytes);
    box->held_records -= records;
    box->held_bytes -= bytes;
    raise_credit(box);
}

void sel_inbox_restart(struct sel_inbox *box)
{
    box->arrived = box->settled = box->arrived_bytes = 0;
    box->credit_records = box->credit_bytes = 0;
    raise_credit(box);
}

/* ---- both, for one session ---- */

void sel_session_init(struct sel_session *session, size_t keep_max, uint64_t window_records,
                      uint64_t window_bytes)
{
    *session = (struct sel_session){0};
    sel_outbox_init(&session->out, keep_max);
    sel_inbox_init(&session->in, window_records, window_bytes);
}

void sel_session_done(struct sel_session *session)
{
    sel_outbox_done(&session->out);
}

/* The other side may know nothing of what we told before. */
static void forget_told(struct sel_session *session)
{
    session->told_ack = session->told_settled = 0;
    session->told_credit_records = session->told_credit_bytes = 0;
    session->gap_told = 0;
    session->must_resend = false;
    session->must_answer = true; /* it waits for our credit */
}

uint64_t sel_session_start(struct sel_session *session, uint64_t number)
{
    SEL_ASSERT(number != 0);
    uint64_t shift = sel_outbox_restart(&session->out);
    sel_inbox_restart(&session->in);
    session->refused_last = session->refused_last > shift ? session->refused_last - shift : 0;
    session->settled_safe = 0;
    session->number = number;
    session->is_open = true;
    forget_told(session);
    return shift;
}

int sel_session_resume(struct sel_session *session, uint64_t ack)
{
    SEL_ASSERT(session->number != 0);
    int r = sel_outbox_ack(&session->out, ack);
    if (r < 0)
        return r;
    sel_outbox_rewind(&session->out);
    session->is_open = true;
    forget_told(session);
    return 0;
}

int sel_session_welcome(struct sel_session *session, const struct sel_wire_welcome *welcome,
                        uint64_t *ret_shift)
{
    uint64_t shift = 0;
    if (welcome->resumed) {
        if (session->number == 0 || welcome->session != session->number)
            return SEL_ESTATE;
        int r = sel_session_resume(session, welcome->ack);
        if (r < 0)
            return r;
    } else {
        if (welcome->ack)
            return SEL_ESTATE;
        shift = sel_session_start(session, welcome->session);
    }
    sel_outbox_grant(&session->out, welcome->credit_records, welcome->credit_bytes);
    *ret_shift = shift;
    return 0;
}

void sel_session_fill_welcome(const struct sel_session *session, struct sel_wire_welcome *welcome)
{
    welcome->session = session->number;
    welcome->ack = session->in.arrived;
    welcome->credit_records = session->in.credit_records;
    welcome->credit_bytes = session->in.credit_bytes;
}

void sel_session_suspend(struct sel_session *session)
{
    session->is_open = false;
}

int sel_session_put(struct sel_session *session, const struct sel_wire_item *item, uint64_t *ret)
{
    int r = sel_outbox_put(&session->out, item, ret);
    if (r < 0 || item->type != SEL_RECORD_REFUSED)
        return r;
    if (session->out.acked >= session->refused_last) /* all before it have arrived */
        session->settled_safe = session->in.settled;
    session->refused_last = *ret;
    return 0;
}

bool sel_session_has_room(const struct sel_session *session, size_t size)
{
    return outbox_has_room(&session->out, size);
}

#define REFUSE(err, code, ...) sel_error_set((err), (code), (struct sel_pos){0}, __VA_ARGS__)

/* Records are missing before these. Once for a gap is enough, as all behind it meet the same gap;
 * who asks is answered, as our RESEND may be what was lost. */
static void note_gap(struct sel_session *session, bool is_asked)
{
    if (is_asked || session->gap_told != session->in.arrived + 1)
        session->must_resend = true;
    session->gap_told = session->in.arrived + 1;
}

int64_t sel_session_receive(struct sel_session *session, const struct sel_wire_head *head,
                            struct sel_str *records, struct sel_error *err)
{
    if (!session->is_open || head->session != session->number)
        return REFUSE(err, SEL_ENOTFOUND, "session %#llx is not open",
                      (unsigned long long)head->session);
    bool is_old = head->ack < session->out.acked;
    if (sel_outbox_ack(&session->out, head->ack) < 0)
        return REFUSE(err, SEL_ESTATE, "ack %llu, but only %llu were sent",
                      (unsigned long long)head->ack, (unsigned long long)session->out.sent_ever);
    sel_outbox_grant(&session->out, head->credit_records, head->credit_bytes);
    if ((head->flags & SEL_HEAD_RESEND) && !is_old)
        sel_outbox_rewind(&session->out);
    int64_t r = sel_inbox_receive(&session->in, head, records);
    if (r == SEL_ELIMIT)
        return REFUSE(err, SEL_ESTATE, "more records than the credit allows");
    if (head->flags & SEL_HEAD_ANSWER)
        session->must_answer = true;
    if (r == SEL_ESTATE) {
        note_gap(session, head->flags & SEL_HEAD_ANSWER);
        *records = (struct sel_str){records->p + records->n, 0};
        return 0;
    }
    if (head->count > (uint64_t)r)
        session->told_ack = 0; /* sent again: our ack may be what was lost */
    sel_outbox_settle(&session->out, head->settled);
    return r;
}

void sel_session_free(struct sel_session *session, uint64_t records, uint64_t bytes)
{
    sel_inbox_free(&session->in, records, bytes);
}

void sel_session_settle(struct sel_session *session, uint64_t number)
{
    SEL_ASSERT(number <= session->in.arrived);
    if (number > session->in.settled)
        session->in.settled = number;
}

/* What may be called settled by a message that ends with our record `last`: nothing whose REFUSED
 * would come later. */
static uint64_t settled_to_tell(const struct sel_session *session, uint64_t last)
{
    return last >= session->refused_last ? session->in.settled : session->settled_safe;
}

/* At least half of the window is new to the other side. */
static bool is_half_new(uint64_t credit, uint64_t told, uint64_t window)
{
    return credit > told && credit - told >= window - window / 2;
}

enum sel_session_debt sel_session_owes(const struct sel_session *session)
{
    const struct sel_inbox *in = &session->in;
    if (!session->is_open)
        return SEL_OWES_NOTHING;
    if (session->must_answer || session->must_resend || sel_outbox_has_due(&session->out) ||
        is_half_new(in->credit_records, session->told_credit_records, in->window_records) ||
        is_half_new(in->credit_bytes, session->told_credit_bytes, in->window_bytes))
        return SEL_OWES_NOW;
    bool is_told = session->told_ack == in->arrived &&
                   session->told_settled >= settled_to_tell(session, session->out.sent) &&
                   session->told_credit_records == in->credit_records &&
                   session->told_credit_bytes == in->credit_bytes;
    return is_told ? SEL_OWES_NOTHING : SEL_OWES_LATER;
}

int sel_session_send(struct sel_session *session, size_t bytes_max, bool ask, struct sel_buf *buf)
{
    if (!session->is_open)
        return SEL_ESTATE;
    if (bytes_max > SEL_WIRE_MESSAGE_MAX - SEL_WIRE_DATA_PREFIX)
        bytes_max = SEL_WIRE_MESSAGE_MAX - SEL_WIRE_DATA_PREFIX;
    struct sel_wire_head head = {
        .flags =
            (uint16_t)((ask ? SEL_HEAD_ANSWER : 0) | (session->must_resend ? SEL_HEAD_RESEND : 0)),
        .session = session->number,
        .ack = session->in.arrived,
        .credit_records = session->in.credit_records,
        .credit_bytes = session->in.credit_bytes,
    };
    struct sel_wire_writer writer;
    sel_wire_begin(&writer, buf);
    (void)sel_outbox_take(&session->out, &writer, bytes_max, &head.first); /* the writer counts */
    head.settled = settled_to_tell(session, session->out.sent);
    sel_wire_end(&writer, &head);
    int r = sel_buf_error(buf);
    if (r < 0)
        return r;
    session->must_answer = session->must_resend = false;
    if (ask)
        session->gap_told =
            0; /* a gap before the answer: our RESEND, or what it brought, is lost */
    session->told_ack = head.ack;
    if (session->told_settled < head.settled)
        session->told_settled = head.settled;
    session->told_credit_records = head.credit_records;
    session->told_credit_bytes = head.credit_bytes;
    return 0;
}
