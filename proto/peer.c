#include "proto/peer.h"

#include <stdio.h>
#include <string.h>

#include "core/assert.h"

#define KEEP_BYTES ((size_t)64 << 20)
#define WINDOW_RECORDS 65536u
#define WINDOW_BYTES ((uint64_t)64 << 20)
#define RETRY_US_MIN INT64_C(100000)
#define RETRY_US_MAX INT64_C(5000000)
#define BEAT_US INT64_C(1000000)     /* until the first WELCOME */
#define HELLO_US_MIN INT64_C(100000) /* HELLO is repeated each beat, within reason */
#define HELLO_US_MAX INT64_C(5000000)
#define BEAT_US_MIN INT64_C(10000)      /* whatever WELCOME says, */
#define BEAT_US_MAX INT64_C(3600000000) /* so that sums of times do not overflow */
#define BEATS_MAX 3                     /* of silence */
#define ACK_DELAY_US INT64_C(2000)
#define STARVED_US INT64_C(20000)
#define SEND_BYTES ((size_t)256 << 10) /* of records in one frame */
/* Decoding a hostile frame of 1 MiB may want 50 times as much (proto/wire.h). */
#define ARENA_MAX ((size_t)64 << 20)

#define FAULT(err, code, ...) sel_error_set((err), (code), (struct sel_pos){0}, __VA_ARGS__)

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t clamp(int64_t value, int64_t min, int64_t max)
{
    return max64(min64(value, max), min);
}

static int64_t or_default(int64_t value, int64_t fallback)
{
    return value > 0 ? value : fallback;
}

int sel_peer_init(struct sel_peer *peer, const struct sel_peer_options *options,
                  const struct sel_peer_ops *ops, void *ctx, int64_t now_us)
{
    SEL_ASSERT(options->role != SEL_ROLE_BROKER);
    *peer = (struct sel_peer){
        .ops = ops,
        .ctx = ctx,
        .options = *options,
        .state = SEL_PEER_PAUSED,
        .beat_us = BEAT_US,
        .heard_us = now_us,
        .said_us = now_us,
        .asked_us = now_us,
        .connect_at_us = now_us,
        .owes_since_us = INT64_MAX,
        .starved_us = INT64_MIN,
        .expects = options->role == SEL_ROLE_WORKER,
        .prng = {options->seed},
        .redirect = {.limit = SEL_WIRE_PLAIN_MAX},
    };
    struct sel_peer_options *own = &peer->options;
    own->retry_us_min = or_default(own->retry_us_min, RETRY_US_MIN);
    own->retry_us_max = or_default(own->retry_us_max, RETRY_US_MAX);
    if (own->retry_us_max < own->retry_us_min)
        own->retry_us_max = own->retry_us_min;
    if (own->name.n > SEL_WIRE_NAME_MAX)
        own->name.n = SEL_WIRE_NAME_MAX;
    own->name.n = sel_str_utf8_prefix(own->name);
    sel_arena_init(&peer->arena, ARENA_MAX);
    sel_session_init(&peer->session, own->keep_bytes_max ? own->keep_bytes_max : KEEP_BYTES,
                     own->window_records ? own->window_records : WINDOW_RECORDS,
                     own->window_bytes ? own->window_bytes : WINDOW_BYTES);
    return 0;
}

void sel_peer_done(struct sel_peer *peer)
{
    sel_session_done(&peer->session);
    sel_arena_done(&peer->arena);
    sel_buf_done(&peer->held);
    sel_buf_done(&peer->redirect);
}

/* ---- connections ---- */

/* The next pause: it doubles, and half of it is chance, so that thousands of peers of a broker that
 * comes back do not all knock at once. */
static int64_t next_pause(struct sel_peer *peer)
{
    int64_t pause =
        clamp(peer->pause_us * 2, peer->options.retry_us_min, peer->options.retry_us_max);
    peer->pause_us = pause;
    uint64_t half = (uint64_t)pause / 2;
    return pause - (int64_t)half + (int64_t)sel_prng_below(&peer->prng, half + 1);
}

void sel_peer_broken(struct sel_peer *peer, int64_t now_us)
{
    if (peer->state != SEL_PEER_HELLO && peer->state != SEL_PEER_OPEN)
        return;
    sel_session_suspend(&peer->session);
    peer->state = peer->must_say_goodbye ? SEL_PEER_CLOSED : SEL_PEER_PAUSED;
    peer->connect_at_us = now_us + next_pause(peer);
    peer->endpoint++;
}

struct sel_str sel_peer_endpoint(struct sel_peer *peer, const struct sel_str *endpoints,
                                 uint32_t count)
{
    SEL_ASSERT(count > 0);
    if (peer->redirect_next == peer->redirect_count)
        return endpoints[peer->endpoint % count];
    const char *text = (const char *)peer->redirect.p;
    for (uint32_t i = 0; i < peer->redirect_next; i++)
        text += strlen(text) + 1;
    peer->redirect_next++; /* when all have been tried, the owner's are again */
    return sel_str_c(text);
}

/* HELLO is said again on this connection, not before `at_us`. */
static void hello_again(struct sel_peer *peer, int64_t at_us)
{
    sel_session_suspend(&peer->session);
    peer->state = SEL_PEER_HELLO;
    peer->unanswered = 0;
    peer->hello_us = at_us;
}

/* ---- what comes ---- */

static int on_welcome(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                      struct sel_error *err)
{
    struct sel_wire_welcome welcome;
    int r = sel_wire_decode_welcome(&peer->arena, frame, &welcome, err);
    if (r < 0)
        return r;
    if (peer->state != SEL_PEER_HELLO || welcome.n != peer->hello_count || !peer->unanswered)
        return 0;
    if (welcome.version != SEL_WIRE_VERSION)
        return FAULT(err, SEL_EVERSION, "WELCOME: version %u, which we did not offer",
                     welcome.version);
    uint64_t shift = 0;
    r = welcome.resumed && !sel_id_eq(welcome.broker, peer->broker) ? SEL_ESTATE : 0;
    if (r == 0)
        r = sel_session_welcome(&peer->session, &welcome, &shift);
    if (r < 0) {
        peer->session.number = 0; /* nothing of it can be trusted */
        return FAULT(err, r, "WELCOME: session %#llx cannot go on so",
                     (unsigned long long)welcome.session);
    }
    struct sel_inbox *in = &peer->session.in;
    if (!welcome.resumed)
        sel_session_free(&peer->session, in->held_records, in->held_bytes);
    peer->welcome = welcome;
    peer->options.crashed = (struct sel_str){0}; /* told */
    peer->broker = welcome.broker;
    int64_t beat_us = or_default((int64_t)welcome.beat_us, BEAT_US);
    peer->beat_us = clamp(beat_us, BEAT_US_MIN, BEAT_US_MAX);
    peer->state = SEL_PEER_OPEN;
    peer->unanswered = 0;
    peer->hello_us = now_us;
    peer->owes_since_us = INT64_MAX;
    peer->redirect_next = peer->redirect_count = 0;
    peer->ops->opened(peer->ctx, welcome.resumed, shift);
    return 0;
}

/* Hands out the records of a message, the last `count` that have arrived. */
static void hand_out(struct sel_peer *peer, struct sel_str records, uint64_t count)
{
    uint64_t number = peer->session.in.arrived - count;
    struct sel_wire_item item;
    int r;
    while ((r = sel_wire_next(&records, &item, NULL)) != 0) {
        if (r > 0)
            r = sel_wire_is_legal(item.type, SEL_ROLE_BROKER, peer->options.role) ? 0 : SEL_ESTATE;
        peer->ops->record(peer->ctx, ++number, &item, r);
    }
}

static int on_data(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                   struct sel_error *err)
{
    struct sel_wire_head head;
    struct sel_str records;
    if (peer->state != SEL_PEER_OPEN)
        return 0; /* between HELLO and its WELCOME: of the session before */
    int r = sel_wire_decode_data(frame, &head, &records, err);
    if (r < 0)
        return r;
    /* What is settled is let go when the records have been looked at: a REFUSED may want the record
     * that it is about. After a gap it does not count. */
    struct sel_outbox *out = &peer->session.out;
    uint64_t before = out->settled;
    uint64_t settled = head.first > peer->session.in.arrived + 1 ? 0 : head.settled;
    head.settled = 0;
    int64_t count = sel_session_receive(&peer->session, &head, &records, err);
    if (count == SEL_ENOTFOUND)
        return 0; /* late, of another session */
    if (count < 0) {
        peer->session.number = 0;
        return (int)count;
    }
    if (peer->pause_us && now_us - peer->hello_us > peer->pause_us)
        peer->pause_us = 0; /* this connection is a good one */
    peer->settling = settled < out->acked ? settled : out->acked;
    if (peer->settling < before)
        peer->settling = before;
    hand_out(peer, records, (uint64_t)count);
    sel_outbox_settle(out, settled);
    if (peer->ops->settled && out->settled > before)
        peer->ops->settled(peer->ctx, out->settled);
    return 0;
}

static void refuse(struct sel_peer *peer, const struct sel_wire_error *error)
{
    sel_session_suspend(&peer->session);
    peer->state = SEL_PEER_REFUSED;
    (void)FAULT(&peer->refusal, SEL_EREQUEST, "refused by the broker: %s: %.*s",
                sel_wire_code_name(error->code), SEL_STR_ARG(error->text));
}

/* `wait_us` of an ERROR, or a pause of our own. */
static int64_t wait_of(struct sel_peer *peer, const struct sel_wire_error *error)
{
    int64_t pause = next_pause(peer), wait_us = (int64_t)error->wait_us;
    if (wait_us > BEAT_US_MAX)
        wait_us = BEAT_US_MAX;
    return wait_us > pause ? wait_us : pause;
}

static int on_error(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                    struct sel_error *err)
{
    struct sel_wire_error error;
    int r = sel_wire_decode_error(&peer->arena, frame, &error, err);
    if (r < 0)
        return r;
    if (peer->state == SEL_PEER_HELLO) {
        if (error.n != peer->hello_count || !peer->unanswered)
            return 0; /* about something of before */
        if (peer->ops->error)
            peer->ops->error(peer->ctx, &error);
        if (error.close)
            peer->session.number = 0;
        if (error.retry || error.code == SEL_CODE_UNKNOWN_SESSION)
            hello_again(peer, now_us + wait_of(peer, &error));
        else
            refuse(peer, &error);
        return 0;
    }
    if (peer->state != SEL_PEER_OPEN || error.n)
        return 0; /* a HELLO is answered already */
    if (error.code == SEL_CODE_UNKNOWN_SESSION) {
        hello_again(peer, now_us);
        return 0;
    }
    if (peer->ops->error)
        peer->ops->error(peer->ctx, &error);
    if (error.close) {
        peer->session.number = 0;
        hello_again(peer, now_us + wait_of(peer, &error));
    }
    return 0;
}

static int on_goodbye(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                      struct sel_error *err)
{
    struct sel_wire_goodbye goodbye;
    int r = sel_wire_decode_goodbye(&peer->arena, frame, &goodbye, err);
    if (r < 0)
        return r;
    if (peer->state == SEL_PEER_OPEN && goodbye.session == peer->session.number)
        sel_peer_broken(peer, now_us);
    return 0;
}

static int on_redirect(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                       struct sel_error *err)
{
    struct sel_wire_redirect redirect;
    int r = sel_wire_decode_redirect(&peer->arena, frame, &redirect, err);
    if (r < 0)
        return r;
    if (peer->state != SEL_PEER_HELLO && peer->state != SEL_PEER_OPEN)
        return 0;
    sel_buf_clear(&peer->redirect);
    for (uint32_t i = 0; i < redirect.endpoint_count; i++) {
        if (memchr(redirect.endpoints[i].p, 0, redirect.endpoints[i].n))
            return FAULT(err, SEL_EFORMAT, "REDIRECT: a zero byte in an endpoint");
        sel_buf_put_str(&peer->redirect, redirect.endpoints[i]);
        sel_buf_put_u8(&peer->redirect, 0);
    }
    bool is_kept = sel_buf_error(&peer->redirect) == 0;
    peer->redirect_next = 0;
    peer->redirect_count = is_kept ? redirect.endpoint_count : 0;
    sel_peer_broken(peer, now_us);
    return 0;
}

static int receive(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                   struct sel_error *err)
{
    int type = sel_wire_message_type(frame, err);
    switch (type) {
    case SEL_MESSAGE_DATA:
        return on_data(peer, frame, now_us, err);
    case SEL_MESSAGE_WELCOME:
        return on_welcome(peer, frame, now_us, err);
    case SEL_MESSAGE_ERROR:
        return on_error(peer, frame, now_us, err);
    case SEL_MESSAGE_GOODBYE:
        return on_goodbye(peer, frame, now_us, err);
    case SEL_MESSAGE_REDIRECT:
        return on_redirect(peer, frame, now_us, err);
    default:
        return type < 0 ? type
                        : FAULT(err, SEL_ESTATE, "%s is not for a broker to say",
                                sel_wire_message_name((unsigned)type));
    }
}

int sel_peer_receive(struct sel_peer *peer, struct sel_str frame, int64_t now_us,
                     struct sel_error *err)
{
    if (peer->state != SEL_PEER_HELLO && peer->state != SEL_PEER_OPEN)
        return 0;
    peer->heard_us = now_us;
    if (peer->state == SEL_PEER_OPEN)
        peer->unanswered = 0;
    int r = receive(peer, frame, now_us, err);
    if (peer->arena.used)
        sel_arena_reset(&peer->arena);
    if (r < 0)
        sel_peer_broken(peer, now_us);
    return r;
}

/* ---- what is said ---- */

/* There was no memory for a frame: what is to be said stays to be said. */
static enum sel_peer_action starve(struct sel_peer *peer, int64_t now_us)
{
    peer->starved_us = now_us + STARVED_US;
    return SEL_PEER_NOTHING;
}

static enum sel_peer_action say_hello(struct sel_peer *peer, int64_t now_us, struct sel_buf *out)
{
    const struct sel_peer_options *options = &peer->options;
    sel_buf_clear(&peer->held);
    if (peer->ops->held)
        peer->ops->held(peer->ctx, &peer->held);
    const struct sel_wire_hello hello = {
        .version_min = SEL_WIRE_VERSION,
        .version_max = SEL_WIRE_VERSION,
        .role = options->role,
        .peer = options->id,
        .incarnation = options->incarnation,
        .n = peer->hello_count + 1,
        .name = options->name,
        .broker = peer->broker,
        .session = peer->session.number,
        .ack = peer->session.number ? peer->session.in.arrived : 0,
        .queues = options->queues,
        .queue_count = options->queue_count,
        .serves_all = !peer->serves_nothing,
        .slots = options->slots,
        .window = options->window,
        .flows = options->flows,
        .held = sel_buf_str(&peer->held),
        .crashed = options->crashed,
        .config_version = options->config_version,
        .config_digest = options->config_digest,
    };
    sel_wire_encode_hello(&hello, out);
    if (sel_buf_error(&peer->held) < 0 || sel_buf_error(out) < 0)
        return starve(peer, now_us);
    peer->hello_count++;
    peer->unanswered++;
    peer->hello_us = now_us + clamp(peer->beat_us, HELLO_US_MIN, HELLO_US_MAX);
    peer->said_us = now_us;
    return SEL_PEER_SEND;
}

static enum sel_peer_action connect_anew(struct sel_peer *peer, int64_t now_us)
{
    if (now_us < peer->connect_at_us)
        return SEL_PEER_NOTHING;
    peer->connects++;
    peer->state = SEL_PEER_HELLO;
    peer->unanswered = 0;
    peer->hello_us = now_us;
    return SEL_PEER_CONNECT;
}

static enum sel_peer_action poll_hello(struct sel_peer *peer, int64_t now_us, struct sel_buf *out)
{
    if (now_us < peer->hello_us)
        return SEL_PEER_NOTHING;
    if (peer->unanswered < BEATS_MAX)
        return say_hello(peer, now_us, out);
    sel_peer_broken(peer, now_us);
    return SEL_PEER_NOTHING;
}

/* When an answer is wanted next: nothing was heard for a beat, or nothing said if that is what
 * keeps us alive. INT64_MAX: nothing is waited for. */
static int64_t ask_us(const struct sel_peer *peer)
{
    if (!peer->expects)
        return INT64_MAX;
    int64_t last = peer->heard_us;
    if (!peer->options.beats_elsewhere)
        last = min64(last, peer->said_us);
    return max64(last, peer->asked_us) + peer->beat_us;
}

/* When silence is trouble. Who has just begun to wait, or was stopped itself, has heard nothing for
 * long either: then the beats are counted from when it asked. */
static int64_t silent_us(const struct sel_peer *peer)
{
    if (!peer->expects || peer->unanswered == 0)
        return INT64_MAX;
    bool is_late = peer->asked_first_us > peer->heard_us + 2 * peer->beat_us;
    return (is_late ? peer->asked_first_us : peer->heard_us) + BEATS_MAX * peer->beat_us;
}

static void note_before(struct sel_peer *peer)
{
    const struct sel_session *session = &peer->session;
    peer->before = (struct sel_peer_before){
        .sent = session->out.sent,
        .sent_bytes = session->out.sent_bytes,
        .sent_ever = session->out.sent_ever,
        .told_ack = session->told_ack,
        .told_settled = session->told_settled,
        .told_credit_records = session->told_credit_records,
        .told_credit_bytes = session->told_credit_bytes,
        .must_answer = session->must_answer,
        .must_resend = session->must_resend,
    };
}

static enum sel_peer_action say_data(struct sel_peer *peer, int64_t now_us, bool ask,
                                     struct sel_buf *out)
{
    note_before(peer);
    if (sel_session_send(&peer->session, SEND_BYTES, ask, out) < 0)
        return starve(peer, now_us);
    peer->owes_since_us = INT64_MAX;
    peer->said_us = now_us;
    if (ask) {
        peer->asked_us = now_us;
        if (peer->unanswered++ == 0)
            peer->asked_first_us = now_us;
    }
    return SEL_PEER_SEND;
}

static enum sel_peer_action say_goodbye(struct sel_peer *peer, int64_t now_us, struct sel_buf *out)
{
    const struct sel_wire_goodbye goodbye = {.session = peer->session.number,
                                             .reason = sel_str_c(peer->goodbye)};
    sel_wire_encode_goodbye(&goodbye, out);
    if (sel_buf_error(out) < 0)
        return starve(peer, now_us);
    sel_session_suspend(&peer->session);
    peer->state = SEL_PEER_CLOSED;
    return SEL_PEER_SEND;
}

/* Records wait for credit, and the broker has not been told so since it gave some: with many peers
 * it gives little to those that do not ask. */
static bool wants_credit(struct sel_peer *peer)
{
    const struct sel_outbox *out = &peer->session.out;
    uint64_t credit = out->credit_records + out->credit_bytes;
    if (out->sent + 1 >= out->next || sel_outbox_has_due(out) || peer->asked_credit == credit)
        return false;
    peer->asked_credit = credit;
    return true;
}

static enum sel_peer_action poll_open(struct sel_peer *peer, int64_t now_us, struct sel_buf *out)
{
    if (now_us >= silent_us(peer)) {
        sel_peer_broken(peer, now_us);
        return SEL_PEER_NOTHING;
    }
    enum sel_session_debt debt = sel_session_owes(&peer->session);
    if (debt == SEL_OWES_NOTHING)
        peer->owes_since_us = INT64_MAX;
    else if (peer->owes_since_us == INT64_MAX)
        peer->owes_since_us = now_us;
    bool ask = now_us >= ask_us(peer) || wants_credit(peer);
    if (debt == SEL_OWES_NOW || ask ||
        (debt == SEL_OWES_LATER &&
         (peer->must_say_goodbye || now_us - peer->owes_since_us >= ACK_DELAY_US)))
        return say_data(peer, now_us, ask, out);
    return peer->must_say_goodbye ? say_goodbye(peer, now_us, out) : SEL_PEER_NOTHING;
}

enum sel_peer_action sel_peer_poll(struct sel_peer *peer, int64_t now_us, struct sel_buf *out)
{
    sel_buf_clear(out);
    if (now_us < peer->starved_us)
        return SEL_PEER_NOTHING;
    switch (peer->state) {
    case SEL_PEER_PAUSED:
        return connect_anew(peer, now_us);
    case SEL_PEER_HELLO:
        return poll_hello(peer, now_us, out);
    case SEL_PEER_OPEN:
        return poll_open(peer, now_us, out);
    case SEL_PEER_REFUSED:
    case SEL_PEER_CLOSED:
        break;
    }
    return SEL_PEER_NOTHING;
}

void sel_peer_unsent(struct sel_peer *peer)
{
    struct sel_session *session = &peer->session;
    const struct sel_peer_before *before = &peer->before;
    if (peer->state == SEL_PEER_HELLO) {
        peer->hello_us = peer->said_us; /* due at once; its number is not used again */
        peer->unanswered--;
    }
    if (peer->state != SEL_PEER_OPEN)
        return;
    session->out.sent = before->sent;
    session->out.sent_bytes = before->sent_bytes;
    session->out.sent_ever = before->sent_ever;
    session->told_ack = before->told_ack;
    session->told_settled = before->told_settled;
    session->told_credit_records = before->told_credit_records;
    session->told_credit_bytes = before->told_credit_bytes;
    session->must_answer = before->must_answer;
    session->must_resend = before->must_resend;
}

static int64_t due_open(const struct sel_peer *peer)
{
    int64_t due = min64(ask_us(peer), silent_us(peer));
    switch (sel_session_owes(&peer->session)) {
    case SEL_OWES_NOW:
        return INT64_MIN;
    case SEL_OWES_LATER:
        if (peer->owes_since_us == INT64_MAX)
            return INT64_MIN; /* to take note of when that began */
        due = min64(due, peer->owes_since_us + ACK_DELAY_US);
        break;
    case SEL_OWES_NOTHING:
        break;
    }
    return peer->must_say_goodbye ? INT64_MIN : due;
}

int64_t sel_peer_due_us(const struct sel_peer *peer)
{
    int64_t due = INT64_MAX;
    if (peer->state == SEL_PEER_PAUSED)
        due = peer->connect_at_us;
    else if (peer->state == SEL_PEER_HELLO)
        due = peer->hello_us;
    else if (peer->state == SEL_PEER_OPEN)
        due = due_open(peer);
    return due == INT64_MAX ? due : max64(due, peer->starved_us);
}

/* ---- what the owner says ---- */

int sel_peer_put(struct sel_peer *peer, const struct sel_wire_item *item, uint64_t *ret)
{
    return sel_session_put(&peer->session, item, ret);
}

void sel_peer_settle(struct sel_peer *peer, uint64_t number, uint64_t bytes)
{
    struct sel_session *session = &peer->session;
    const struct sel_inbox *in = &session->in;
    if (number <= in->settled)
        return;
    uint64_t records = number - in->settled;
    sel_session_settle(session, number);
    if (records > in->held_records)
        records = in->held_records;
    if (bytes > in->held_bytes || records == in->held_records)
        bytes = in->held_bytes;
    sel_session_free(session, records, bytes);
}

void sel_peer_expect(struct sel_peer *peer, bool expects)
{
    peer->expects = expects || peer->options.role == SEL_ROLE_WORKER;
}

void sel_peer_serve(struct sel_peer *peer, bool serves)
{
    peer->serves_nothing = !serves;
}

void sel_peer_goodbye(struct sel_peer *peer, const char *reason)
{
    (void)snprintf(peer->goodbye, sizeof(peer->goodbye), "%s", reason); /* may be cut */
    if (peer->state == SEL_PEER_OPEN)
        peer->must_say_goodbye = true;
    else if (peer->state != SEL_PEER_REFUSED)
        peer->state = SEL_PEER_CLOSED;
}
