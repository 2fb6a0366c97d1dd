/* proto/peer.h - the peer's end of the protocol: HELLO, beats, silence, connecting anew.
 *
 * What producers and workers have in common, around a sel_session. Pure: the owner has socket and
 * clock; client/ and worker/ give it real ones, tests/sim those of a seed. Not thread safe.
 *
 *   frames that came      sel_peer_receive; records are handed to ops->record one by one
 *   when the loop turns   sel_peer_poll until SEL_PEER_NOTHING; it says what to do
 *   sleep                 at most until sel_peer_due_us
 *
 * PROTOCOL.md, "When nothing is heard", "HELLO" and "WELCOME". */
#ifndef SEL_PROTO_PEER_H
#define SEL_PROTO_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/prng.h"
#include "proto/session.h"
#include "proto/wire.h"

struct sel_peer;

struct sel_peer_ops {
    /* WELCOME came. Not resumed: the records that were put have moved down by `shift` (see
     * sel_outbox_restart), nothing of the other direction has arrived. */
    void (*opened)(void *ctx, bool resumed, uint64_t shift);
    /* A record arrived, `number` in its direction. `error` 0, or the code of sel_wire_next: then
     * only header and raw of `item` are set. It is settled with sel_peer_settle. */
    void (*record)(void *ctx, uint64_t number, const struct sel_wire_item *item, int error);
    /* The broker has decided all our records up to `number`. May be NULL. */
    void (*settled)(void *ctx, uint64_t number);
    /* An ERROR about our record `error->at`, or without one; for logs and refusals. May be NULL. */
    void (*error)(void *ctx, const struct sel_wire_error *error);
    /* Workers: appends what they still hold (sel_wire_put_held). May be NULL. */
    void (*held)(void *ctx, struct sel_buf *held);
};

struct sel_peer_options {
    enum sel_wire_role role;
    struct sel_id id;
    uint32_t incarnation;
    struct sel_str name;          /* borrowed */
    const struct sel_str *queues; /* borrowed; numbers 1.. in HELLO */
    uint32_t queue_count;
    uint32_t slots, window;
    uint32_t flows;                        /* workers: that are taken at a time */
    size_t keep_bytes_max;                 /* unsettled records of ours behind one; 0: 64 MiB */
    uint64_t window_records, window_bytes; /* credit for the broker; 0: 65,536 and 64 MiB */
    int64_t retry_us_min, retry_us_max;    /* pause before connecting anew; 0: 100 ms and 5 s */
    uint64_t config_version;
    struct sel_str config_digest; /* borrowed */
    struct sel_str crashed;       /* borrowed, until the first WELCOME; as in HELLO */
    uint64_t seed;                /* of the chance in pauses */
    bool beats_elsewhere;         /* a thread sends BEAT: no empty DATA is needed to stay alive */
};

enum sel_peer_state {
    SEL_PEER_PAUSED, /* no connection; SEL_PEER_CONNECT comes when the pause is over */
    SEL_PEER_HELLO,  /* connected, no WELCOME yet */
    SEL_PEER_OPEN,
    SEL_PEER_REFUSED, /* the broker will never have us: `refusal` says why */
    SEL_PEER_CLOSED,  /* after sel_peer_goodbye */
};

/* What the session was before the DATA that was handed out last, for sel_peer_unsent. */
struct sel_peer_before {
    uint64_t sent, sent_bytes, sent_ever;
    uint64_t told_ack, told_settled, told_credit_records, told_credit_bytes;
    bool must_answer, must_resend;
};

struct sel_peer {
    const struct sel_peer_ops *ops;
    void *ctx;
    struct sel_peer_options options; /* `queues` may get more between two calls */
    enum sel_peer_state state;
    struct sel_session session;
    struct sel_wire_welcome welcome; /* the last one */
    struct sel_id broker;
    uint64_t hello_count;
    uint32_t endpoint;      /* which of several to connect to: counts the connections that broke */
    uint64_t connects;      /* for statistics */
    int64_t beat_us;        /* of the last WELCOME, within reason */
    int64_t heard_us;       /* when anything came last */
    int64_t said_us;        /* when we said anything last */
    int64_t asked_us;       /* when we wanted an answer last */
    int64_t asked_first_us; /* the same, since anything was heard */
    int64_t hello_us;       /* when the next HELLO is due; in OPEN: when the last one was said */
    int64_t connect_at_us, pause_us;
    int64_t owes_since_us; /* acks wait for records to go with since then; INT64_MAX: none */
    int64_t starved_us;    /* no memory for a frame: not polled again before */
    uint64_t settling;     /* in ops->record: what will be settled when all are handed out */
    uint32_t unanswered;   /* how often we have asked, or said HELLO, since we heard anything */
    uint64_t asked_credit; /* more than this was asked for */
    bool expects;          /* something is waited for: silence means trouble */
    bool serves_nothing;   /* see sel_peer_serve */
    bool must_say_goodbye;
    struct sel_peer_before before;
    struct sel_arena arena;  /* of one plain message */
    struct sel_buf held;     /* for HELLO */
    struct sel_buf redirect; /* endpoints, each with its terminator */
    uint32_t redirect_count, redirect_next;
    struct sel_prng prng;
    struct sel_error refusal;
    char goodbye[64];
};

/* 0 or SEL_ENOMEM. `options->queues` etc. must live as long as the peer. */
int sel_peer_init(struct sel_peer *peer, const struct sel_peer_options *options,
                  const struct sel_peer_ops *ops, void *ctx, int64_t now_us) SEL_WARN_UNUSED;
void sel_peer_done(struct sel_peer *peer);

/* A frame from the present connection: any bytes. 0, or what the owner is to log (`err`): the
 * broker sent something that cannot be read; the connection is made anew. */
int sel_peer_receive(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                     struct sel_error *err);

enum sel_peer_action {
    SEL_PEER_NOTHING,
    SEL_PEER_SEND,    /* `out` is one frame to send; if it cannot be (-EAGAIN), drop it, call
                         sel_peer_unsent and poll again when it can */
    SEL_PEER_CONNECT, /* close the socket, open a new one to sel_peer_endpoint, go on polling */
};
/* What to do next. `out` is cleared first. Records go at once, as many as there are; acks alone
 * wait some milliseconds for records to go with. Frames that have come are received before: what
 * waits in a socket is no silence. */
enum sel_peer_action sel_peer_poll(struct sel_peer *peer, int64_t now_us, struct sel_buf *out);
/* The frame of the last call, which was sel_peer_poll, was not sent: it comes again. */
void sel_peer_unsent(struct sel_peer *peer);
/* When sel_peer_poll wants to be called again if nothing happens; INT64_MAX: not at all. */
int64_t sel_peer_due_us(const struct sel_peer *peer);
/* Where to connect to: one of REDIRECT, else one of the owner's `count` >= 1 endpoints, in turn.
 * Terminated if the owner's are; lives until the next call of sel_peer_receive. */
struct sel_str sel_peer_endpoint(struct sel_peer *peer, const struct sel_str *endpoints,
                                 uint32_t count);

/* A record of ours, kept until it is settled. *ret its number now. As sel_session_put. */
int sel_peer_put(struct sel_peer *peer, const struct sel_wire_item *item,
                 uint64_t *ret) SEL_WARN_UNUSED;
/* All incoming records up to `number` are decided and take no memory: `bytes` of them since the
 * last call (sizes of their `raw`). What arrived in an earlier session needs no settling: at an
 * `opened` that is not resumed it counts as free. */
void sel_peer_settle(struct sel_peer *peer, uint64_t number, uint64_t bytes);
/* Whether silence of the broker is trouble (something is waited for); workers: always. */
void sel_peer_expect(struct sel_peer *peer, bool expects);
/* Workers: whether the next HELLO says that all queues are served (as at first) or none. A session
 * that is open is told by records WANT. */
void sel_peer_serve(struct sel_peer *peer, bool serves);
/* The connection is broken: connect anew, after the pause. */
void sel_peer_broken(struct sel_peer *peer, int64_t now_us);
/* Ends the session: what is to be said, then GOODBYE is sent, then the state is CLOSED. Without a
 * session it is at once. */
void sel_peer_goodbye(struct sel_peer *peer, const char *reason);

#endif
