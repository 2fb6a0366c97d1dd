/* proto/wire.h - the messages and records of proto/PROTOCOL.md as structs, and back.
 *
 * Decoding checks everything that a peer sends before it is used, and copies nothing: texts and
 * payloads point into the frame. DATA and BEAT are decoded without any allocation; the maps of the
 * other messages need an arena. Encoding appends to a buffer, whose errors stick. Pure; any
 * thread. */
#ifndef SEL_PROTO_WIRE_H
#define SEL_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"
#include "core/value.h"

#define SEL_WIRE_VERSION 1
#define SEL_WIRE_MESSAGE_MAX ((size_t)4 << 20) /* DATA and REPLY */
#define SEL_WIRE_PLAIN_MAX ((size_t)1 << 20)   /* all others */
/* A whole record: a payload of 1 MiB, and 4 KiB for header and fields. */
#define SEL_WIRE_RECORD_MAX (((size_t)1 << 20) + 4096)
#define SEL_WIRE_HEAD_SIZE 56
#define SEL_WIRE_RECORD_SIZE 48                           /* the header of a record */
#define SEL_WIRE_DATA_PREFIX (4 + SEL_WIRE_HEAD_SIZE + 5) /* bytes before the first record */
#define SEL_WIRE_NAME_MAX 255                             /* names of queues, tasks, peers; keys */
#define SEL_WIRE_QUEUES_MAX 4096                          /* names in one HELLO */
#define SEL_WIRE_HELD_MAX 16384                           /* tasks in one HELLO */
#define SEL_WIRE_CRASHED_MAX 64                           /* in one HELLO */
#define SEL_WIRE_SLOTS_MAX 65536                          /* in one HELLO or BEAT */
#define SEL_WIRE_ENDPOINTS_MAX 64                         /* in one REDIRECT */
#define SEL_WIRE_DIGEST_MAX 64

enum sel_wire_message {
    SEL_MESSAGE_HELLO = 1,
    SEL_MESSAGE_WELCOME,
    SEL_MESSAGE_DATA,
    SEL_MESSAGE_ERROR,
    SEL_MESSAGE_GOODBYE,
    SEL_MESSAGE_BEAT,
    SEL_MESSAGE_REDIRECT,
    SEL_MESSAGE_QUERY,
    SEL_MESSAGE_REPLY,
    SEL_MESSAGE_END,
};

enum sel_wire_role { SEL_ROLE_BROKER, SEL_ROLE_PRODUCER, SEL_ROLE_WORKER };

enum sel_wire_record {
    SEL_RECORD_QUEUE = 1,
    SEL_RECORD_SUBMIT,
    SEL_RECORD_REFUSED,
    SEL_RECORD_RESULT,
    SEL_RECORD_TASK,
    SEL_RECORD_DONE,
    SEL_RECORD_RETURN,
    SEL_RECORD_CANCEL,
    SEL_RECORD_CANCELLED,
    SEL_RECORD_WANT,
    SEL_RECORD_WATCH,
    SEL_RECORD_DECIDE, /* of a flow, as what follows: see proto/decision.h */
    SEL_RECORD_STATE,
    SEL_RECORD_EVENTS,
    SEL_RECORD_ENDED,
    SEL_RECORD_LIVE,
    SEL_RECORD_VOID,
    SEL_RECORD_END,
};

/* `code` of ERROR and REFUSED. */
enum sel_wire_code {
    SEL_CODE_MALFORMED = 1,
    SEL_CODE_VERSION,
    SEL_CODE_UNKNOWN_SESSION,
    SEL_CODE_TOO_LARGE,
    SEL_CODE_UNSUPPORTED,
    SEL_CODE_ILLEGAL,
    SEL_CODE_FULL,
    SEL_CODE_CONFLICT,
    SEL_CODE_UNKNOWN_QUEUE,
    SEL_CODE_DRAINING,
    SEL_CODE_UNKNOWN_TASK,
    SEL_CODE_END,
};

/* `code` of DONE; of RESULT without RETRY and FATAL. */
enum sel_wire_outcome {
    SEL_OUTCOME_SUCCESS,
    SEL_OUTCOME_FAILURE,
    SEL_OUTCOME_RETRY,
    SEL_OUTCOME_FATAL,
    SEL_OUTCOME_CANCELLED,
};

/* `code` of RETURN. */
enum sel_wire_return {
    SEL_RETURN_NOT_BEGUN,
    SEL_RETURN_UNKNOWN_TASK,
    SEL_RETURN_NO_RESOURCES,
    SEL_RETURN_THROTTLED, /* a flow whose starts lie apart: fields limit key and countdown */
};

/* `code` of CANCEL to a worker, and of the CANCELLED that answers it. */
enum sel_wire_cancel { SEL_CANCEL_UNWANTED, SEL_CANCEL_ENDED };

enum sel_wire_level { SEL_LEVEL_DEFAULT, SEL_LEVEL_MEMORY, SEL_LEVEL_INTERVAL, SEL_LEVEL_COMMIT };

enum sel_wire_field {
    SEL_FIELD_TASK = 1,
    SEL_FIELD_COUNTDOWN,
    SEL_FIELD_NOT_BEFORE,
    SEL_FIELD_DEADLINE,
    SEL_FIELD_EXPIRY,
    SEL_FIELD_IDEMPOTENCY_KEY,
    SEL_FIELD_ORDERING_KEY,
    SEL_FIELD_LIMIT_KEY,
    SEL_FIELD_TRACE,
    SEL_FIELD_CONTENT_TYPE,
    SEL_FIELD_NAMESPACE,
    SEL_FIELD_ROOT,
    SEL_FIELD_PARENT,
    SEL_FIELD_SELECTIVE,
    SEL_FIELD_RUN,
    SEL_FIELD_FLOW, /* of a run: name of its flow */
    SEL_FIELD_END,
};

#define SEL_HEAD_ANSWER 0x0001 /* flags of a head: the receiver sends a DATA at once */
#define SEL_HEAD_RESEND 0x0002 /* records are missing: send all after `ack` again */

/* Flags of records; those from 0x0100 on must be understood. */
#define SEL_ITEM_QUIET 0x0001     /* SUBMIT: no RESULT is wanted */
#define SEL_ITEM_UNCOUNTED 0x0002 /* DONE: the retry does not count as one */
#define SEL_ITEM_FLOW 0x0100      /* SUBMIT, TASK: of a flow */
#define SEL_ITEM_ALL 0x0200       /* SUBMIT, WATCH: the RESULT comes after detached work too */
#define SEL_ITEM_HISTORY 0x0400   /* TASK: STATE, EVENTS, ENDED follow, then LIVE */
#define SEL_ITEM_THROTTLED 0x0800 /* TASK: its start has been put off already */
#define SEL_ITEM_MORE 0x1000      /* DECIDE, STATE, EVENTS: a piece, and not the last */
#define SEL_ITEM_CONSUMED 0x2000  /* ENDED: the state has it already */

/* "SUBMIT", "malformed", ...; "?" for unknown ones. */
const char *sel_wire_record_name(unsigned type);
const char *sel_wire_message_name(unsigned type);
const char *sel_wire_code_name(unsigned code);
const char *sel_wire_field_name(unsigned tag);
/* What to answer to a peer for an error of the functions below; SEL_CODE_MALFORMED for codes that
 * they do not have. */
enum sel_wire_code sel_wire_code_of(int error);
/* Whether records of `type` may go from one to the other; one of both is the broker. */
bool sel_wire_is_legal(unsigned type, enum sel_wire_role from, enum sel_wire_role to);

/* ---- DATA ---- */

/* The head of DATA. */
struct sel_wire_head {
    uint16_t flags;
    uint32_t count;
    uint64_t session;
    uint64_t first;
    uint64_t ack;
    uint64_t settled;
    uint64_t credit_records;
    uint64_t credit_bytes;
};

/* One record. What it has not is empty (n == 0) or its neutral value; priority's is
 * SEL_WIRE_PRIORITY. */
#define SEL_WIRE_PRIORITY 128
struct sel_wire_item {
    uint8_t type; /* enum sel_wire_record; others only beside SEL_EUNSUPPORTED */
    uint16_t flags;
    struct sel_id id;
    uint16_t queue;
    uint8_t priority;
    uint8_t level;
    uint32_t code;
    uint64_t handle;
    uint16_t try_count;
    uint16_t delivery;
    uint64_t countdown_us;          /* field 2; 0: none */
    int64_t not_before_unix_us;     /* field 3; 0: none */
    struct sel_str task;            /* field 1 */
    struct sel_str idempotency_key; /* field 6 */
    struct sel_str content_type;    /* field 10 */
    struct sel_str limit_key;       /* field 8 */
    struct sel_str selective;       /* field 14 */
    struct sel_str fields;          /* all of them, as they came or are to be sent on */
    struct sel_str payload;
    struct sel_str raw; /* the whole record as it came; encoding does not look at it */
};

/* The kind of a frame by its first bytes; SEL_EFORMAT with `err` if it is none. */
int sel_wire_message_type(struct sel_str frame, struct sel_error *err) SEL_WARN_UNUSED;

/* DATA: the head, and the bytes of the records. Checks sizes and that `count` records fill the
 * body, so that they can be numbered and skipped without being looked at. 0, SEL_EFORMAT,
 * SEL_EVERSION, SEL_ELIMIT (a record or the message too large), SEL_EUNSUPPORTED (must-understand
 * flag). */
int sel_wire_decode_data(struct sel_str frame, struct sel_wire_head *ret_head,
                         struct sel_str *ret_records, struct sel_error *err) SEL_WARN_UNUSED;
/* The next record of `*records`, which is moved behind it. 1; 0: there are no more.
 *
 * SEL_EFORMAT, SEL_ELIMIT, SEL_EUNSUPPORTED (type, must-understand flag or field, level): the
 * record is to be refused alone. Where it ended could still be told: *records is behind it, the
 * header's part of *ret and `raw` are set and the rest of *ret is empty. If even that was not so,
 * *records is empty and ret->raw too; that never happens with records of sel_wire_decode_data. */
int sel_wire_next(struct sel_str *records, struct sel_wire_item *ret,
                  struct sel_error *err) SEL_WARN_UNUSED;
/* Moves `*records` behind the next `count` records without looking at them. `*records` comes from
 * sel_wire_decode_data and has so many. */
void sel_wire_skip(struct sel_str *records, uint32_t count);

/* The next field of `*fields`, which is moved behind it. 1; 0: there are no more; SEL_EFORMAT. */
int sel_wire_next_field(struct sel_str *fields, uint8_t *ret_tag, struct sel_str *ret_value);
/* Appends a field; tags go up. For sel_wire_item.fields. At most UINT16_MAX bytes, or `buf` fails.
 */
void sel_wire_put_field(struct sel_buf *buf, uint8_t tag, struct sel_str value);

/* Field 15 of a TASK: which run of which flow it is, and how the payload is divided. */
#define SEL_WIRE_RUN_SIZE 32
#define SEL_RUN_KEEP 0x0001 /* a sub-flow: its parent wants the nodes that it ran */
struct sel_wire_run {
    struct sel_id flow; /* the parent flow of a sub-flow */
    uint32_t attempt;   /* of that flow */
    uint32_t ordinal;
    uint32_t parents_size; /* bytes at the end of the payload, behind the arguments */
    uint16_t retries;      /* tries before this one that count */
    uint16_t flags;
};
/* A field by its tag; n == 0: there is none. */
struct sel_str sel_wire_find_field(struct sel_str fields, uint8_t tag);
/* The field in `fields`; false: there is none. */
bool sel_wire_find_run(struct sel_str fields, struct sel_wire_run *ret);
/* Appends `fields` (without field 15) with it in its place. */
void sel_wire_put_run(struct sel_buf *buf, struct sel_str fields, const struct sel_wire_run *run);

/* The id of a run as the broker and workers know it: derived, in the form of UUID version 8. Equal
 * for equal arguments on every machine; a flow's own id cannot be one. */
struct sel_id sel_wire_run_id(struct sel_id flow, uint32_t attempt, uint32_t ordinal);

/* DATA under construction: begin, any number of records, end (which fills in the head). The buffer
 * may have something before. Errors stick in it. */
struct sel_wire_writer {
    struct sel_buf *buf;
    size_t begin;
    uint32_t count;
};
void sel_wire_begin(struct sel_wire_writer *writer, struct sel_buf *buf);
/* Appends a record; its fields from `fields` if set, else from the members. */
void sel_wire_put(struct sel_wire_writer *writer, const struct sel_wire_item *item);
/* Appends `count` records that are encoded already. */
void sel_wire_put_raw(struct sel_wire_writer *writer, struct sel_str records, uint32_t count);
/* `head->count` is set from what was put. */
void sel_wire_end(struct sel_wire_writer *writer, struct sel_wire_head *head);

/* One record alone: its size; 0: it cannot be encoded, something is over its limit. */
size_t sel_wire_item_size(const struct sel_wire_item *item);
/* Writes it to `p`, which has room for sel_wire_item_size(item) > 0 bytes. */
void sel_wire_write_item(const struct sel_wire_item *item, uint8_t *p);
/* Appends it. */
void sel_wire_encode_item(const struct sel_wire_item *item, struct sel_buf *buf);

/* ---- BEAT ---- */

struct sel_wire_beat {
    struct sel_id peer;
    uint32_t incarnation;
    uint64_t count;
    uint64_t turns;
    uint64_t mono_us;
    struct sel_str progress; /* one byte a slot */
};

int sel_wire_decode_beat(struct sel_str frame, struct sel_wire_beat *ret,
                         struct sel_error *err) SEL_WARN_UNUSED;
void sel_wire_encode_beat(const struct sel_wire_beat *beat, struct sel_buf *buf);

/* ---- plain messages ---- */

/* A task that a worker still has, or that was running when it died, in its HELLO:
 * SEL_WIRE_HELD_SIZE bytes. */
#define SEL_WIRE_HELD_SIZE 32
struct sel_wire_held {
    struct sel_id id;
    uint64_t handle;
    uint16_t try_count;
    uint16_t delivery;
    bool is_done; /* in `held`: ended, its DONE comes again in this session. In `crashed`: its stack
                     overflowed */
    bool is_run;  /* of a flow */
    bool is_called_off; /* in `held`: it was told to stop, as somebody else had it or its end */
};
struct sel_wire_held sel_wire_held_at(struct sel_str held, uint32_t i);
void sel_wire_put_held(struct sel_buf *buf, const struct sel_wire_held *held);

struct sel_wire_hello {
    uint32_t version_min, version_max;
    enum sel_wire_role role; /* not the broker */
    struct sel_id peer;
    uint32_t incarnation;
    uint64_t n;
    struct sel_str name;
    struct sel_id broker; /* zero: knows none */
    uint64_t session;     /* 0: none to go on with */
    uint64_t ack;
    const struct sel_str *queues; /* the i-th has the number i + 1 */
    uint32_t queue_count;
    /* workers */
    const uint16_t *serves;
    uint32_t serve_count;
    bool serves_all; /* all of `queues`; `serves` is empty then */
    uint32_t slots;
    uint32_t window;
    uint32_t flows;         /* that it takes at a time; 0: none */
    struct sel_str held;    /* see sel_wire_held_at */
    struct sel_str crashed; /* the same */
    uint32_t event_min, event_max;
    uint64_t config_version;
    struct sel_str config_digest;
};

struct sel_wire_welcome {
    uint32_t version;
    uint64_t n;
    struct sel_id broker;
    uint64_t session;
    bool resumed;
    uint64_t ack;
    uint64_t credit_records, credit_bytes;
    uint64_t lease_us, beat_us;
    uint32_t record_max;
    uint8_t level, level_max; /* enum sel_wire_level, never DEFAULT */
    uint32_t shard;
};

struct sel_wire_error {
    uint32_t code; /* enum sel_wire_code, or a newer one */
    struct sel_str text;
    bool retry, close;
    uint64_t wait_us;                  /* 0: not said */
    uint64_t at;                       /* 0: about no record */
    uint64_t n;                        /* of the HELLO that it answers; 0: another message */
    uint32_t version_min, version_max; /* SEL_CODE_VERSION; else 0 */
};

struct sel_wire_goodbye {
    uint64_t session;
    struct sel_str reason;
};

struct sel_wire_redirect {
    uint32_t shard;
    const struct sel_str *endpoints;
    uint32_t endpoint_count;
};

struct sel_wire_query {
    uint64_t n;
    struct sel_str what;
    struct sel_value args; /* a map or null */
};

struct sel_wire_reply {
    uint64_t n;
    uint32_t code; /* 0, or enum sel_wire_code: `text` says why */
    struct sel_str text;
    bool more; /* another REPLY to the same query follows */
    struct sel_value body;
};

/* 0, SEL_EFORMAT, SEL_ELIMIT, SEL_ENOMEM. Texts point into the frame, lists and values live in
 * `arena`, which may need 50 times the size of a hostile frame: give it a limit. `err` (may be
 * NULL) names the key. */
int sel_wire_decode_hello(struct sel_arena *arena, struct sel_str frame, struct sel_wire_hello *ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_welcome(struct sel_arena *arena, struct sel_str frame,
                            struct sel_wire_welcome *ret, struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_error(struct sel_arena *arena, struct sel_str frame, struct sel_wire_error *ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_goodbye(struct sel_arena *arena, struct sel_str frame,
                            struct sel_wire_goodbye *ret, struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_redirect(struct sel_arena *arena, struct sel_str frame,
                             struct sel_wire_redirect *ret, struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_query(struct sel_arena *arena, struct sel_str frame, struct sel_wire_query *ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
int sel_wire_decode_reply(struct sel_arena *arena, struct sel_str frame, struct sel_wire_reply *ret,
                          struct sel_error *err) SEL_WARN_UNUSED;
void sel_wire_encode_hello(const struct sel_wire_hello *hello, struct sel_buf *buf);
void sel_wire_encode_welcome(const struct sel_wire_welcome *welcome, struct sel_buf *buf);
void sel_wire_encode_error(const struct sel_wire_error *error, struct sel_buf *buf);
void sel_wire_encode_goodbye(const struct sel_wire_goodbye *goodbye, struct sel_buf *buf);
void sel_wire_encode_redirect(const struct sel_wire_redirect *redirect, struct sel_buf *buf);
void sel_wire_encode_query(const struct sel_wire_query *query, struct sel_buf *buf);
void sel_wire_encode_reply(const struct sel_wire_reply *reply, struct sel_buf *buf);

#endif
