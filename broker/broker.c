#include "broker/broker.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "broker/internal.h"
#include "core/mem.h"
#include "proto/le.h"

#define STALL_US 500000 /* a turn that is so late: the broker itself stood still */
#define TIMERS_MAX 4096 /* that fire in one turn */
#define AHEAD 8         /* records */
#define LEASE_US ((int64_t)10 * 1000 * 1000)

void sel_broker_say(struct sel_broker *b, enum sel_broker_log level, const char *event,
                    const char *fmt, ...)
{
    if (!b->io.log)
        return;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    b->io.log(b->io.ctx, level, event, text);
}

uint64_t sel_broker_memory(const struct sel_broker *b)
{
    return b->tasks.count * (sizeof(struct sel_task_entry) + 2 * sizeof(struct sel_task_place)) +
           b->pool.used + b->log.backlog_bytes + b->sessions_bytes +
           b->note_count * sizeof(struct sel_note);
}

bool sel_broker_is_short(const struct sel_broker *b)
{
    return sel_broker_memory(b) >= b->options.memory_max / 4 * 3;
}

/* ---- life ---- */

static void or_default(int64_t *option, int64_t value)
{
    if (*option == 0)
        *option = value;
}

static void or_default_u(uint64_t *option, uint64_t value)
{
    if (*option == 0)
        *option = value;
}

static void or_default_32(uint32_t *option, uint32_t value)
{
    if (*option == 0)
        *option = value;
}

static void fill_options(struct sel_broker_options *o, bool has_journal)
{
    or_default(&o->lease_us, LEASE_US);
    or_default(&o->beat_us, o->lease_us / 5);
    or_default_32(&o->record_max, SEL_WIRE_RECORD_MAX);
    if (!o->level_max)
        o->level_max = has_journal ? SEL_LEVEL_COMMIT : SEL_LEVEL_MEMORY;
    if (!o->level_default)
        o->level_default = o->level_max;
    or_default(&o->interval_us, 100000);
    or_default_u(&o->memory_max, (uint64_t)1 << 30);
    or_default_u(&o->payload_memory, (uint64_t)16 << 20);
    or_default_32(&o->result_max, 100000);
    or_default_u(&o->result_bytes_max, o->memory_max / 8);
    or_default(&o->result_ttl_us, (int64_t)3600 * 1000 * 1000);
    or_default_32(&o->poison_max, 3);
    or_default(&o->unknown_task_us, (int64_t)30 * 1000 * 1000);
    or_default_32(&o->session_max, 65536);
    or_default_32(&o->queue_max, 4096);
    or_default_u(&o->window_records, 65536);
    or_default_u(&o->window_bytes, (uint64_t)8 << 20);
    or_default_u(&o->outbox_bytes_max, (uint64_t)16 << 20);
    uint64_t share = o->memory_max / 8 > o->record_max ? o->memory_max / 8 : o->record_max;
    if (o->outbox_bytes_max > share)
        o->outbox_bytes_max = share;
    or_default_u(&o->batch_bytes_max, (uint64_t)1 << 20);
    or_default_u(&o->journal_compact_min, (uint64_t)64 << 20);
}

static const char *why_bad(const struct sel_broker_options *o, bool has_journal)
{
    if (o->shard >= 4096)
        return "shard: below 4096";
    if (o->lease_us < 10000 || o->beat_us < 1000 || o->beat_us > o->lease_us / 2)
        return "lease: at least 10 ms, and at least twice beat";
    if (o->record_max < 4096 || o->record_max > SEL_WIRE_RECORD_MAX)
        return "record_max: 4 KiB to 1 MiB + 4 KiB";
    if (o->level_max > SEL_LEVEL_COMMIT || o->level_default > o->level_max)
        return "level: at most level_max";
    if (!has_journal && o->level_max > SEL_LEVEL_MEMORY)
        return "level_max: without a journal only memory";
    if (o->poison_max > SEL_TASK_LOST_MAX)
        return "poison_max: at most 15";
    if (o->memory_max < (uint64_t)4 << 20)
        return "memory_max: at least 4 MiB";
    if (o->queue_max > UINT16_MAX - 1)
        return "queue_max: at most 65534";
    if (o->session_max > 1000000)
        return "session_max: at most 1,000,000";
    if (o->window_bytes < o->record_max || o->window_records == 0)
        return "window_bytes: at least record_max";
    if (o->outbox_bytes_max < o->record_max)
        return "outbox_bytes_max: at least record_max";
    if (o->batch_bytes_max > (uint64_t)32 << 20)
        return "batch_bytes_max: at most 32 MiB";
    return NULL;
}

int sel_broker_new(const struct sel_broker_options *options, const struct sel_broker_io *io,
                   struct sel_id id, struct sel_broker **ret, struct sel_error *err)
{
    bool has_journal = io->read != NULL;
    struct sel_broker *b = SEL_NEW(struct sel_broker);
    if (!b)
        return sel_error_set(err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    b->options = *options;
    fill_options(&b->options, has_journal);
    b->io = *io;
    b->id = id;
    b->note_free = b->key_free = SEL_NONE;
    b->result_first = b->result_last = SEL_NONE;
    b->emptying_slot = SEL_NONE;
    b->log.is_on = has_journal;
    b->is_replaying = true;
    const char *bad = why_bad(&b->options, has_journal);
    int r = bad ? sel_error_set(err, SEL_ERANGE, (struct sel_pos){0}, "%s", bad) : 0;
    if (r == 0)
        r = sel_broker_tasks_init(&b->tasks, b->options.seed);
    if (r == 0)
        r = sel_broker_sessions_init(b);
    if (r < 0) {
        sel_broker_free(b);
        return r == SEL_ENOMEM ? sel_error_set(err, r, (struct sel_pos){0}, "out of memory") : r;
    }
    *ret = b;
    return 0;
}

static void free_entries(struct sel_broker *b)
{
    uint32_t end = b->tasks.chunk_count << SEL_TASK_CHUNK_BITS;
    for (uint32_t i = 0; i < end; i++) { /* attempts let go of what has ended in them */
        struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state != SEL_TASK_FREE && task->kind == SEL_KIND_FLOW)
            sel_broker_flow_set_try(b, i, NULL);
    }
    for (uint32_t i = 0; i < end; i++) {
        struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state != SEL_TASK_FREE && task->kind == SEL_KIND_RUN)
            sel_broker_run_remove(b, i);
    }
    for (uint32_t i = 0; i < end; i++) {
        struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state == SEL_TASK_FREE)
            continue;
        sel_broker_task_free_blob(b, i);
        if (task->kind == SEL_KIND_FLOW)
            sel_broker_flow_gone(b, i);
    }
}

struct sel_broker *sel_broker_free(struct sel_broker *b)
{
    if (!b)
        return NULL;
    free_entries(b);
    sel_broker_sessions_done(b);
    sel_broker_queues_done(b);
    sel_broker_keys_done(b);
    sel_broker_tasks_done(&b->tasks);
    sel_broker_log_done(b);
    sel_mem_free(b->timers);
    sel_mem_free(b->notes);
    sel_mem_free(b->known);
    sel_mem_free(b->late_aliases);
    sel_buf_done(&b->out);
    sel_buf_done(&b->scratch);
    sel_buf_done(&b->scratch2);
    sel_buf_done(&b->scratch3);
    sel_mem_free(b->fresh);
    sel_arena_done(&b->arena);
    sel_arena_done(&b->failure_arena);
    sel_arena_done(&b->decision_arena);
    sel_pool_done(&b->pool);
    sel_mem_free(b);
    return NULL;
}

int sel_broker_start(struct sel_broker *b, struct sel_broker_now now)
{
    b->now = now;
    b->is_replaying = false;
    b->turned_us = now.mono_us;
    b->lease_check_us = now.mono_us;
    if (!b->log.is_on) {
        /* Different from that of any life before, as long as none begins in the same second. */
        b->incarnation = (uint32_t)(now.unix_us / 1000000);
        b->has_started = true;
        sel_broker_recover_begin(b);
        return 0;
    }
    b->incarnation++;
    int r = sel_broker_replay_end(b);
    if (r < 0)
        return r;
    sel_broker_recover_begin(b);
    return sel_broker_log_start(b);
}

/* ---- what happens to a record ---- */

typedef uint64_t (*record_fn)(struct sel_broker *b, struct sel_broker_session *s,
                              const struct sel_wire_item *item, uint64_t number);

/* Legal in every open session of the role, see sel_wire_is_legal. */
static const record_fn handlers[SEL_RECORD_END] = {
    [SEL_RECORD_QUEUE] = sel_broker_on_queue,   [SEL_RECORD_SUBMIT] = sel_broker_on_submit,
    [SEL_RECORD_CANCEL] = sel_broker_on_cancel, [SEL_RECORD_WATCH] = sel_broker_on_watch,
    [SEL_RECORD_DONE] = sel_broker_on_done,     [SEL_RECORD_RETURN] = sel_broker_on_return,
    [SEL_RECORD_WANT] = sel_broker_on_want,     [SEL_RECORD_CANCELLED] = sel_broker_on_cancelled,
    [SEL_RECORD_DECIDE] = sel_broker_on_decide, [SEL_RECORD_STATE] = sel_broker_on_state,
    [SEL_RECORD_VOID] = sel_broker_on_void,
};

/* A record that cannot be taken is refused alone. */
static void refuse_record(struct sel_broker *b, struct sel_broker_session *s,
                          const struct sel_wire_item *item, uint64_t number,
                          enum sel_wire_code code, const char *text)
{
    if (!s->is_worker && (item->type == SEL_RECORD_SUBMIT || item->type == SEL_RECORD_WATCH)) {
        sel_broker_session_refuse(b, s, item->id, number, code, text);
        return;
    }
    const struct sel_wire_error e = {.code = code, .text = sel_str_c(text), .at = number};
    sel_broker_error(b, s->connection, &e);
}

static void take_record(struct sel_broker *b, struct sel_broker_session *s,
                        const struct sel_wire_item *item, uint64_t number)
{
    enum sel_wire_role role = s->is_worker ? SEL_ROLE_WORKER : SEL_ROLE_PRODUCER;
    uint64_t batch = 0;
    if (!sel_wire_is_legal(item->type, role, SEL_ROLE_BROKER))
        refuse_record(b, s, item, number, SEL_CODE_ILLEGAL,
                      "a record of this type is not for this role to send");
    else if (item->id.hi == 0 && item->id.lo == 0 && item->type != SEL_RECORD_QUEUE &&
             item->type != SEL_RECORD_WANT && item->type != SEL_RECORD_VOID)
        refuse_record(b, s, item, number, SEL_CODE_MALFORMED, "the id of a task is never 0");
    else
        batch = handlers[item->type](b, s, item, number);
    sel_broker_session_settle_at(b, s, number, batch);
}

/* Where the broker will look for the task of each record lies all over its memory: asked for some
 * records ahead, it is there in time. A third of the time of a task was waiting for it. */
struct ahead {
    struct sel_str rest;
    uint64_t left;
};

static void look_ahead(const struct sel_broker *b, struct ahead *ahead)
{
    const char *p = ahead->rest.p;
    if (ahead->left == 0)
        return;
    if (p[4] == SEL_RECORD_SUBMIT)
        sel_broker_task_prefetch_id(b, sel_le_get_id(p + 8));
    else if (p[4] == SEL_RECORD_DONE)
        sel_broker_task_prefetch(b, (uint32_t)sel_le_get64(p + 32));
    sel_wire_skip(&ahead->rest, 1);
    ahead->left--;
}

static void take_records(struct sel_broker *b, struct sel_broker_session *s, struct sel_str records,
                         uint64_t first, uint64_t count)
{
    struct sel_wire_item item;
    struct sel_error err;
    struct ahead ahead = {records, count};
    int r;
    for (int i = 0; i < AHEAD; i++)
        look_ahead(b, &ahead);
    for (uint64_t number = first; (r = sel_wire_next(&records, &item, &err)) != 0; number++) {
        look_ahead(b, &ahead);
        if (r > 0) {
            take_record(b, s, &item, number);
        } else {
            refuse_record(b, s, &item, number, sel_wire_code_of(r), err.text);
            sel_broker_session_settle_at(b, s, number, 0);
        }
    }
}

/* ---- what happens to a message ---- */

static void unknown_session(struct sel_broker *b, uint32_t connection)
{
    const struct sel_wire_error e = {
        .code = SEL_CODE_UNKNOWN_SESSION,
        .text = SEL_STR("no such session on this connection; say HELLO"),
        .retry = true,
    };
    sel_broker_error(b, connection, &e);
}

static void malformed(struct sel_broker *b, uint32_t connection, int r, const char *text)
{
    const struct sel_wire_error e = {
        .code = sel_wire_code_of(r),
        .text = sel_str_c(text),
        .version_min = r == SEL_EVERSION ? SEL_WIRE_VERSION : 0,
        .version_max = r == SEL_EVERSION ? SEL_WIRE_VERSION : 0,
    };
    sel_broker_error(b, connection, &e);
}

/* Credit for more comes only while there is memory for more. Workers make room: always. */
static void free_records(struct sel_broker *b, struct sel_broker_session *s, uint64_t count,
                         uint64_t bytes)
{
    if (s->is_worker || !sel_broker_is_short(b)) {
        sel_session_free(&s->s, count, bytes);
        return;
    }
    b->withheld += s->withheld_records == 0;
    s->withheld_records += count;
    s->withheld_bytes += bytes;
}

static void on_data(struct sel_broker *b, uint32_t connection, struct sel_str frame)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_error err = {0};
    int r = sel_wire_decode_data(frame, &head, &records, &err);
    if (r < 0) {
        malformed(b, connection, r, err.text);
        return;
    }
    struct sel_broker_session *s = sel_broker_session_of_connection(b, connection);
    if (!s || s->s.number != head.session || s->is_failed) {
        unknown_session(b, connection);
        return;
    }
    int64_t count = sel_session_receive(&s->s, &head, &records, &err);
    if (count < 0) {
        const struct sel_wire_error e = {
            .code = SEL_CODE_ILLEGAL, .text = sel_str_c(err.text), .close = true};
        sel_broker_error(b, connection, &e);
        sel_broker_say(b, SEL_BROKER_WARNING, "session.illegal", "name=\"%s\" %s",
                       s->name ? s->name : "", err.text);
        sel_broker_session_end(b, s, false);
        return;
    }
    s->heard_us = b->now.mono_us;
    sel_broker_session_note_settled(b, s);
    if (count || head.flags & SEL_HEAD_ANSWER)
        sel_broker_window_want(b, s);
    if (count) {
        s->records_in += (uint64_t)count;
        b->stats.records_in += (uint64_t)count;
        take_records(b, s, records, s->s.in.arrived - (uint64_t)count + 1, (uint64_t)count);
        free_records(b, s, (uint64_t)count, records.n);
    }
    sel_broker_session_mark(b, s);
}

void sel_broker_receive(struct sel_broker *b, uint32_t connection, struct sel_str frame,
                        struct sel_broker_now now)
{
    struct sel_error err = {0};
    b->now = now;
    b->stats.frames_in++;
    b->stats.bytes_in += frame.n;
    int type = sel_wire_message_type(frame, &err);
    switch (type) {
    case SEL_MESSAGE_DATA:
        on_data(b, connection, frame);
        break;
    case SEL_MESSAGE_HELLO:
        sel_broker_on_hello(b, connection, frame);
        break;
    case SEL_MESSAGE_BEAT:
        sel_broker_on_beat(b, connection, frame);
        break;
    case SEL_MESSAGE_GOODBYE:
        sel_broker_on_goodbye(b, connection, frame);
        break;
    case SEL_MESSAGE_ERROR:
        break; /* is never answered */
    default:
        malformed(b, connection, type < 0 ? type : SEL_EUNSUPPORTED,
                  type < 0 ? err.text : "a message of this type is not for a broker's endpoint");
        break;
    }
}

/* ---- turns ---- */

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t sel_broker_turn(struct sel_broker *b, struct sel_broker_now now)
{
    b->now = now;
    int64_t gap_us = now.mono_us - b->turned_us;
    if (gap_us > STALL_US && gap_us > b->options.lease_us / 4 && b->session_live)
        sel_broker_sessions_forgive(b, gap_us);
    b->turned_us = now.mono_us;
    sel_broker_timer_fire(b, TIMERS_MAX);
    sel_broker_sessions_check_leases(b);
    sel_broker_recover_check(b);
    sel_broker_log_check_room(b);
    sel_broker_pump(b);
    sel_broker_dispatch(b);
    sel_broker_results_drop(b);
    if (sel_broker_is_short(b))
        sel_broker_sessions_trim(b);
    if (b->withheld && !sel_broker_is_short(b))
        sel_broker_sessions_give_credit(b);
    int64_t grow_us = sel_broker_windows_grow(b);
    int64_t due_us = earliest(grow_us, sel_broker_sessions_flush(b));
    sel_broker_sessions_close_failed(b);
    due_us = earliest(due_us, sel_broker_timer_next(b));
    due_us = earliest(due_us, sel_broker_results_due_us(b));
    due_us = earliest(due_us, sel_broker_log_due_us(b));
    if (b->is_recovering && b->has_started)
        due_us = earliest(due_us, b->recover_until_us);
    if (b->log.is_full && !b->log.was_refused)
        due_us = earliest(due_us, b->log.full_until_us);
    if (b->session_live) /* also what keeps `turned_us` honest */
        due_us = earliest(due_us, earliest(b->lease_check_us, now.mono_us + STALL_US / 2));
    return due_us;
}

/* ---- the end ---- */

void sel_broker_drain(struct sel_broker *b)
{
    if (!b->is_draining)
        sel_broker_say(b, SEL_BROKER_INFO, "draining", "queued=%" PRIu64, b->queued);
    b->is_draining = true;
}

bool sel_broker_is_idle(const struct sel_broker *b)
{
    const uint64_t *n = b->tasks.by_state;
    return n[SEL_TASK_HELD] + n[SEL_TASK_WAITING] + n[SEL_TASK_QUEUED] + n[SEL_TASK_DELIVERED] ==
               0 &&
           !b->log.under_way && !b->log.first && b->dirty_count == 0;
}

void sel_broker_goodbye(struct sel_broker *b, const char *reason)
{
    b->is_stopping = true;
    for (uint32_t i = 0; i < b->session_count; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (!s || !s->is_connected)
            continue;
        const struct sel_wire_goodbye goodbye = {s->s.number, sel_str_c(reason)};
        sel_buf_clear(&b->out);
        sel_wire_encode_goodbye(&goodbye, &b->out);
        if (sel_buf_error(&b->out) == 0)
            (void)b->io.send(b->io.ctx, s->connection, sel_buf_str(&b->out)); /* best effort */
    }
}

void sel_broker_get_stats(const struct sel_broker *b, struct sel_broker_stats *ret)
{
    const uint64_t *n = b->tasks.by_state;
    *ret = b->stats;
    ret->sessions = b->session_live;
    ret->workers = b->worker_live;
    ret->producers = b->session_live - b->worker_live;
    ret->queues = b->queue_count;
    ret->queued = n[SEL_TASK_QUEUED];
    ret->waiting = n[SEL_TASK_WAITING] + n[SEL_TASK_HELD];
    ret->delivered = n[SEL_TASK_DELIVERED];
    ret->ended = n[SEL_TASK_ENDED];
    ret->tasks = ret->queued + ret->waiting + ret->delivered + ret->ended;
    ret->memory_used = sel_broker_memory(b);
    ret->memory_max = b->options.memory_max;
    ret->incarnation = b->incarnation;
    ret->is_draining = b->is_draining;
    ret->is_full = b->log.is_full || ret->memory_used >= ret->memory_max;
    ret->is_recovering = b->is_recovering;
}
