/* proto/session.h - one end of a session: numbers, acks, sending again, credit.
 *
 * Both the broker and its peers keep one for each session (PROTOCOL.md, "Numbers, acks, sending
 * again"; the steps told there are sel_session_receive). It keeps the bytes of the records that
 * were put and are not settled. Pure: no socket, no clock. Not thread safe.
 *
 * A session end goes round like this:
 *
 *   peer     WELCOME arrives      sel_session_welcome
 *   broker   HELLO arrives        sel_session_start (a new one) or sel_session_resume
 *   both     something to say     sel_session_put
 *            when the loop turns  sel_session_owes, sel_session_send until it owes nothing NOW
 *            DATA arrives         sel_wire_decode_data, sel_session_receive, then each record:
 *                                 sel_wire_next; sel_session_free when its memory is free again
 *            records decided      sel_session_settle
 *            nothing is heard     sel_session_send with `ask` */
#ifndef SEL_PROTO_SESSION_H
#define SEL_PROTO_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/str.h"
#include "proto/wire.h"

/* ---- records on their way out ---- */

/* settled <= acked <= sent <= sent_ever < next, and `*_bytes` are the sizes of all records up to
 * there, from 1 on. */
struct sel_outbox {
    uint64_t settled;   /* all up to here are decided and forgotten */
    uint64_t acked;     /* all up to here have arrived */
    uint64_t sent;      /* all up to here need no sending, unless something is lost */
    uint64_t sent_ever; /* the other side cannot have more */
    uint64_t next;      /* number of the next record */
    uint64_t settled_bytes, acked_bytes, sent_bytes, put_bytes;
    uint64_t credit_records, credit_bytes; /* limits that the other side gave */
    uint8_t *p;                            /* encoded records settled + 1 .. next - 1: */
    size_t head, end, cap;                 /* p[head .. end) */
    size_t bytes_max;                      /* kept at most, without the first */
};

/* `bytes_max` of records are kept behind the first one, which may have any size. */
void sel_outbox_init(struct sel_outbox *box, size_t bytes_max);
void sel_outbox_done(struct sel_outbox *box);
/* Encodes and keeps a record, *ret is its number. SEL_ELIMIT: full, wait for `settled`; SEL_ERANGE:
 * something in `item` is over its own limit, it will never do; SEL_ENOMEM. */
int sel_outbox_put(struct sel_outbox *box, const struct sel_wire_item *item,
                   uint64_t *ret) SEL_WARN_UNUSED;
/* The other side has all up to `ack` and has decided all up to `settled` (<= ack); lower ones than
 * before are ignored. SEL_ESTATE: it acks what was never sent. */
int sel_outbox_ack(struct sel_outbox *box, uint64_t ack) SEL_WARN_UNUSED;
void sel_outbox_settle(struct sel_outbox *box, uint64_t settled);
/* Lower ones than before are ignored. */
void sel_outbox_grant(struct sel_outbox *box, uint64_t credit_records, uint64_t credit_bytes);
/* Everything after the ack is due again. */
void sel_outbox_rewind(struct sel_outbox *box);
/* A new session: what is not settled gets the numbers 1, 2, 3, ...; no credit. Each number falls by
 * what is returned. */
uint64_t sel_outbox_restart(struct sel_outbox *box);
/* Appends records that are due, within the credit and `bytes_max` bytes (one record even if it is
 * larger). Number of records; *ret_first is the number of the first, or what the next will have. If
 * the writer's buffer failed they stay due. */
uint32_t sel_outbox_take(struct sel_outbox *box, struct sel_wire_writer *writer, size_t bytes_max,
                         uint64_t *ret_first);
/* Whether something would be taken. */
bool sel_outbox_has_due(const struct sel_outbox *box);
/* Of a new session, in which nothing was sent yet: drops the records for which `keep` says false
 * and moves the numbers of the others up. `record` is the encoded one, `number` what it will have.
 */
void sel_outbox_filter(struct sel_outbox *box,
                       bool (*keep)(void *ctx, uint64_t old_number, uint64_t number,
                                    struct sel_str record),
                       void *ctx);
/* A place in an outbox: the record `number`, and the sizes of all before it. Zeroed: nowhere. */
struct sel_outbox_cursor {
    uint64_t number, bytes;
};
/* The encoded record `number`, n == 0 if it is not kept; lives until the next call. Numbers that go
 * up cost one walk with one cursor; it is zeroed when a session begins. */
struct sel_str sel_outbox_find(const struct sel_outbox *box, struct sel_outbox_cursor *cursor,
                               uint64_t number);
/* Gives memory back that is not in use; for idle sessions. */
void sel_outbox_trim(struct sel_outbox *box);

/* ---- records coming in ---- */

struct sel_inbox {
    uint64_t arrived;                      /* all up to here */
    uint64_t settled;                      /* all up to here are decided; never above arrived */
    uint64_t arrived_bytes;                /* of all that arrived */
    uint64_t held_records, held_bytes;     /* arrived and not free yet, of earlier sessions too */
    uint64_t window_records, window_bytes; /* how much may be held */
    uint64_t credit_records, credit_bytes; /* limits that we gave */
};

void sel_inbox_init(struct sel_inbox *box, uint64_t window_records, uint64_t window_bytes);
/* Another window from now on; 0 stops the other side as soon as what it was given is used. */
void sel_inbox_window(struct sel_inbox *box, uint64_t records, uint64_t bytes);
/* Looks at a message of sel_wire_decode_data: moves `*records` behind those that are here already
 * and takes note of the others. Their number; SEL_ESTATE: a gap, nothing is taken; SEL_ELIMIT: over
 * the credit, nothing is taken. */
int64_t sel_inbox_receive(struct sel_inbox *box, const struct sel_wire_head *head,
                          struct sel_str *records) SEL_WARN_UNUSED;
/* So many records that had arrived take no memory any more: that makes credit. */
void sel_inbox_free(struct sel_inbox *box, uint64_t records, uint64_t bytes);
/* A new session: numbers and credit begin anew; what is held stays held. */
void sel_inbox_restart(struct sel_inbox *box);

/* ---- both, for one session ---- */

struct sel_session {
    uint64_t number; /* of the last one, for the next HELLO; 0: there was none */
    bool is_open;    /* else nothing is sent, and all that arrives is refused */
    struct sel_outbox out;
    struct sel_inbox in;
    uint64_t refused_last; /* number of our newest REFUSED: must arrive before ... */
    uint64_t settled_safe; /* ... more than this may be called settled */
    uint64_t told_ack, told_settled, told_credit_records, told_credit_bytes;
    uint64_t gap_told; /* 1 + the `ack` with which RESEND was said last; 0: not yet */
    bool must_answer, must_resend;
};

/* `keep_max` bytes of outgoing records, a window for incoming ones. */
void sel_session_init(struct sel_session *session, size_t keep_max, uint64_t window_records,
                      uint64_t window_bytes);
void sel_session_done(struct sel_session *session);

/* Peer: the answer to its last HELLO. *ret_shift: a new session, each number of what is kept has
 * fallen by it (see sel_outbox_restart); 0 in a resumed one. SEL_ESTATE: a session is resumed that
 * was not open, or with an ack that cannot be. */
int sel_session_welcome(struct sel_session *session, const struct sel_wire_welcome *welcome,
                        uint64_t *ret_shift) SEL_WARN_UNUSED;
/* Broker: a new session; returns the shift, as above. */
uint64_t sel_session_start(struct sel_session *session, uint64_t number);
/* Broker: the session goes on; `ack` of the HELLO. SEL_ESTATE: an ack that cannot be. */
int sel_session_resume(struct sel_session *session, uint64_t ack) SEL_WARN_UNUSED;
/* Broker: what WELCOME says of it: session, ack, credit. */
void sel_session_fill_welcome(const struct sel_session *session, struct sel_wire_welcome *welcome);
/* Nothing is sent or taken until the next WELCOME (peer) or HELLO (broker); records and number
 * stay. */
void sel_session_suspend(struct sel_session *session);

/* As sel_outbox_put. A REFUSED is put before what it refuses is settled. */
int sel_session_put(struct sel_session *session, const struct sel_wire_item *item,
                    uint64_t *ret) SEL_WARN_UNUSED;
/* Whether sel_session_put of `size` bytes finds room. */
bool sel_session_has_room(const struct sel_session *session, size_t size);

/* Takes a message of sel_wire_decode_data in: acks, credit, RESEND, `settled`. Number of its
 * records that are new; `*records` is those (empty after a gap, which is no error). All are counted
 * as arrived: they must be worked on now.
 *
 * SEL_ENOTFOUND another session; SEL_ESTATE an ack that cannot be, or more than the credit; `err`
 * says why. Nothing is taken then; after SEL_ESTATE the session is worth nothing. */
int64_t sel_session_receive(struct sel_session *session, const struct sel_wire_head *head,
                            struct sel_str *records, struct sel_error *err) SEL_WARN_UNUSED;
/* As sel_inbox_free. */
void sel_session_free(struct sel_session *session, uint64_t records, uint64_t bytes);
/* All incoming records up to `number` are decided; lower ones than before are ignored. */
void sel_session_settle(struct sel_session *session, uint64_t number);

enum sel_session_debt {
    SEL_OWES_NOTHING,
    SEL_OWES_LATER, /* an ack or credit: with the next records, or within milliseconds */
    SEL_OWES_NOW,   /* records that are due, an answer, or credit that runs out */
};
enum sel_session_debt sel_session_owes(const struct sel_session *session);
/* Appends one DATA with up to `bytes_max` bytes of records that are due, and all acks and credit;
 * with `ask` it wants an answer. 0, SEL_ESTATE (no session is open), SEL_ENOMEM or SEL_ELIMIT (of
 * `buf`): nothing counts as sent. */
int sel_session_send(struct sel_session *session, size_t bytes_max, bool ask,
                     struct sel_buf *buf) SEL_WARN_UNUSED;

#endif
