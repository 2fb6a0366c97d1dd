/* Sessions: who is there, what is to be said to them, what they have settled. */
#include "broker/internal.h"
#include "core/mem.h"

#define TRIM_EVERY_US 100000
#define TRIM_BYTES_MIN 4096
#define PEER_BUCKETS 16384u
#define SEND_BYTES_MAX ((size_t)256 << 10) /* records in one message */
#define SENDS_MAX 16                       /* messages to one peer in a turn */
#define LATER_US 3000                      /* acks wait so long for records to go with */
#define BLOCKED_US 1000
#define LEASE_CHECKS 64 /* in a lease, at most */
#define URGENT_SIZE 128 /* about, of a REFUSED */

/* ---- what cannot wait for room in an outbox ---- */

static bool is_urgent(const struct sel_wire_item *item)
{
    return item->type == SEL_RECORD_REFUSED || item->type == SEL_RECORD_CANCEL;
}

/* All others leave room for as many of them as a peer may ask for at once. */
static uint64_t urgent_bytes(const struct sel_broker *b)
{
    return b->options.window_records * URGENT_SIZE;
}

/* ---- finding them ---- */

static uint32_t *bucket_of(const struct sel_broker *b, struct sel_id peer)
{
    uint64_t h = (peer.hi ^ peer.lo) * UINT64_C(0x9e3779b97f4a7c15);
    return &b->peer_buckets[(h >> 32) % PEER_BUCKETS];
}

struct sel_broker_session *sel_broker_session_at(const struct sel_broker *b, uint32_t slot,
                                                 uint32_t serial)
{
    if (slot >= b->session_count)
        return NULL;
    struct sel_broker_session *s = b->sessions[slot];
    return s && s->serial == serial ? s : NULL;
}

struct sel_broker_session *sel_broker_session_of_connection(const struct sel_broker *b,
                                                            uint32_t connection)
{
    uint32_t slot = sel_broker_table32_get(&b->connections, connection);
    return slot == SEL_NONE ? NULL : b->sessions[slot];
}

struct sel_broker_session *sel_broker_session_of_peer(const struct sel_broker *b,
                                                      struct sel_id peer)
{
    for (uint32_t slot = *bucket_of(b, peer); slot != SEL_NONE;
         slot = b->sessions[slot]->next_peer) {
        if (sel_id_eq(b->sessions[slot]->peer, peer))
            return b->sessions[slot];
    }
    return NULL;
}

/* ---- their lives ---- */

int sel_broker_sessions_init(struct sel_broker *b)
{
    b->peer_buckets = sel_mem_alloc(PEER_BUCKETS * sizeof(*b->peer_buckets));
    if (!b->peer_buckets)
        return SEL_ENOMEM;
    memset(b->peer_buckets, 0xff, PEER_BUCKETS * sizeof(*b->peer_buckets));
    return 0;
}

/* A slot in `sessions`, and room to give it back: ending a session cannot fail. */
static uint32_t take_slot(struct sel_broker *b)
{
    if (b->free_slot_count)
        return b->free_slots[--b->free_slot_count];
    if (b->session_count >= b->options.session_max ||
        !sel_mem_grow(&b->sessions, &b->session_cap, (uint64_t)b->session_count + 1,
                      sizeof(*b->sessions)) ||
        !sel_mem_grow(&b->free_slots, &b->free_slot_cap, (uint64_t)b->session_count + 1,
                      sizeof(*b->free_slots)) ||
        !sel_mem_grow(&b->dirty, &b->dirty_cap, (uint64_t)b->session_count + 1,
                      sizeof(*b->dirty)) ||
        !sel_mem_grow(&b->run_sessions, &b->run_session_cap, (uint64_t)b->session_count + 1,
                      sizeof(*b->run_sessions)) ||
        !sel_mem_grow(&b->pumps, &b->pump_cap, (uint64_t)b->session_count + 1, sizeof(*b->pumps)) ||
        !sel_mem_grow(&b->workers, &b->worker_cap, (uint64_t)b->session_count + 1,
                      sizeof(*b->workers)))
        return SEL_NONE;
    b->sessions[b->session_count] = NULL;
    return b->session_count++;
}

struct sel_broker_session *sel_broker_session_new(struct sel_broker *b, struct sel_id peer,
                                                  bool is_worker)
{
    struct sel_broker_session *s = SEL_NEW(struct sel_broker_session);
    uint32_t slot = s ? take_slot(b) : SEL_NONE;
    if (slot == SEL_NONE) {
        sel_mem_free(s);
        return NULL;
    }
    s->slot = slot;
    s->serial = ++b->session_serial;
    s->peer = peer;
    s->is_worker = is_worker;
    s->connection = SEL_NONE;
    s->heard_us = s->since_us = b->now.mono_us;
    s->pending_first = s->pending_last = s->task_first = SEL_NONE;
    sel_session_init(&s->s, b->options.outbox_bytes_max + urgent_bytes(b),
                     b->options.window_records, b->options.window_bytes);
    sel_broker_window_open(b, s);
    (void)sel_session_start(&s->s, (uint64_t)b->incarnation << 32 | ++b->session_counter);
    b->sessions[slot] = s;
    s->next_peer = *bucket_of(b, peer);
    *bucket_of(b, peer) = slot;
    b->session_live++;
    if (is_worker) {
        s->worker_place = b->worker_live++;
        b->workers[s->worker_place] = slot;
    }
    return s;
}

void sel_broker_session_disconnect(struct sel_broker *b, struct sel_broker_session *s)
{
    if (s->is_connected)
        sel_broker_table32_remove(&b->connections, s->connection);
    s->is_connected = false;
    s->connection = SEL_NONE;
}

int sel_broker_session_connect(struct sel_broker *b, struct sel_broker_session *s,
                               uint32_t connection)
{
    struct sel_broker_session *other = sel_broker_session_of_connection(b, connection);
    if (other)
        sel_broker_session_disconnect(b, other); /* a peer that says HELLO as somebody else */
    sel_broker_session_disconnect(b, s);
    if (!sel_broker_table32_put(&b->connections, connection, s->slot))
        return SEL_ENOMEM;
    s->connection = connection;
    s->is_connected = true;
    s->blocked_us = 0;
    return 0;
}

static void unlink_peer(struct sel_broker *b, struct sel_broker_session *s)
{
    uint32_t *link = bucket_of(b, s->peer);
    while (*link != s->slot)
        link = &b->sessions[*link]->next_peer;
    *link = s->next_peer;
}

static void unlink_worker(struct sel_broker *b, struct sel_broker_session *s)
{
    uint32_t last = b->workers[--b->worker_live];
    b->workers[s->worker_place] = last;
    b->sessions[last]->worker_place = s->worker_place;
    for (uint32_t q = 0; q < b->queue_count; q++)
        b->queues[q].workers -=
            sel_broker_queue_set_has(&s->serves, q) + sel_broker_queue_set_has(&s->serves_flows, q);
}

static void remove_from(uint32_t *list, uint32_t *count, uint32_t slot)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (list[i] == slot) {
            list[i] = list[--*count];
            return;
        }
    }
}

/* Results on their way to a producer that is gone: they are kept for a while for whoever asks. */
static void drop_results(struct sel_broker *b, struct sel_broker_session *s)
{
    for (uint32_t i = 0; i < s->result_count; i++) {
        uint32_t task = s->results[(s->result_head + i) & (s->result_cap - 1)];
        if (task != SEL_NONE)
            sel_broker_task_unpin(b, task);
    }
    s->result_count = 0;
    while (s->pending_first != SEL_NONE) {
        uint32_t note = s->pending_first;
        s->pending_first = b->notes[note].next;
        uint32_t task = b->notes[note].task;
        sel_broker_note_free(b, note);
        sel_broker_task_unpin(b, task);
    }
}

static void free_session(struct sel_broker *b, struct sel_broker_session *s)
{
    b->sessions_bytes -= s->outbox_bytes;
    sel_session_done(&s->s);
    sel_mem_free(s->name);
    sel_mem_free(s->queues);
    sel_mem_free(s->runs);
    sel_mem_free(s->results);
    sel_mem_free(s->unknown);
    sel_mem_free(s->pump);
    sel_broker_queue_set_done(&s->serves);
    sel_broker_queue_set_done(&s->serves_flows);
    sel_broker_queue_set_done(&s->told);
    sel_mem_free(s);
}

void sel_broker_session_end(struct sel_broker *b, struct sel_broker_session *s, bool suspect)
{
    sel_broker_session_disconnect(b, s);
    unlink_peer(b, s);
    if (s->is_worker)
        unlink_worker(b, s);
    if (s->is_dirty)
        remove_from(b->dirty, &b->dirty_count, s->slot);
    if (s->in_runs)
        remove_from(b->run_sessions, &b->run_session_count, s->slot);
    if (s->in_pumps)
        remove_from(b->pumps, &b->pump_count, s->slot);
    b->withheld -= s->withheld_records > 0;
    b->failed -= s->is_failed;
    sel_broker_window_close(b, s);
    while (s->task_first != SEL_NONE) {
        uint32_t task = s->task_first;
        struct sel_task_entry *entry = sel_broker_task_at(b, task);
        bool was_alone = s->is_alone;
        sel_broker_task_detach(b, task);
        if (entry->kind == SEL_KIND_FLOW)
            ; /* it ran none of its code, or its crash page says so */
        else if (suspect && was_alone && entry->lost < SEL_TASK_LOST_MAX)
            entry->lost++; /* there was nothing else to blame */
        else if (suspect && entry->suspected < SEL_TASK_LOST_MAX)
            entry->suspected++;
        sel_broker_task_put_back(b, task);
    }
    drop_results(b, s);
    b->sessions[s->slot] = NULL;
    b->free_slots[b->free_slot_count++] = s->slot;
    b->session_live--;
    free_session(b, s);
}

void sel_broker_session_fail(struct sel_broker *b, struct sel_broker_session *s)
{
    b->failed += !s->is_failed;
    s->is_failed = true;
}

/* What a worker has stays with it until it says HELLO, or has lapsed: it is alive. */
static void close_failed(struct sel_broker *b, struct sel_broker_session *s)
{
    if (s->in_flight == 0 && s->flows_in_flight == 0) {
        sel_broker_session_end(b, s, false);
        return;
    }
    sel_broker_session_disconnect(b, s);
    s->is_closed = true;
    s->is_failed = false;
    b->failed--;
}

void sel_broker_sessions_close_failed(struct sel_broker *b)
{
    for (uint32_t i = 0; b->failed && i < b->session_count; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (!s || !s->is_failed)
            continue;
        const struct sel_wire_error e = {
            .code = SEL_CODE_FULL,
            .text = SEL_STR("the broker is out of memory for this session; say HELLO again"),
            .retry = true,
            .close = true,
        };
        if (s->is_connected)
            sel_broker_error(b, s->connection, &e);
        sel_broker_say(b, SEL_BROKER_ERROR, "session.failed", "session=%llx out of memory",
                       (unsigned long long)s->s.number);
        close_failed(b, s);
    }
}

void sel_broker_sessions_done(struct sel_broker *b)
{
    for (uint32_t i = 0; i < b->session_count; i++) {
        if (b->sessions[i])
            free_session(b, b->sessions[i]);
    }
    sel_mem_free(b->sessions);
    sel_mem_free(b->free_slots);
    sel_mem_free(b->dirty);
    sel_mem_free(b->run_sessions);
    sel_mem_free(b->pumps);
    sel_mem_free(b->workers);
    sel_mem_free(b->peer_buckets);
    sel_broker_table32_done(&b->connections);
}

/* ---- saying something ---- */

void sel_broker_session_mark(struct sel_broker *b, struct sel_broker_session *s)
{
    if (s->is_dirty)
        return;
    s->is_dirty = true;
    b->dirty[b->dirty_count++] = s->slot; /* has a place for each slot */
}

/* The task of the record that is put next; the ring has a power of two of places. */
static bool push_result(struct sel_broker_session *s, uint32_t task)
{
    if (s->result_count == s->result_cap) {
        uint32_t cap = s->result_cap ? 2 * s->result_cap : 64;
        uint32_t *ring = sel_mem_alloc(cap * sizeof(*ring));
        if (!ring)
            return false;
        for (uint32_t i = 0; i < s->result_count; i++)
            ring[i] = s->results[(s->result_head + i) & (s->result_cap - 1)];
        sel_mem_free(s->results);
        s->results = ring;
        s->result_cap = cap;
        s->result_head = 0;
    }
    s->results[(s->result_head + s->result_count++) & (s->result_cap - 1)] = task;
    return true;
}

static void count_outbox(struct sel_broker *b, struct sel_broker_session *s)
{
    b->sessions_bytes += s->s.out.cap - s->outbox_bytes;
    s->outbox_bytes = s->s.out.cap;
}

int sel_broker_session_say(struct sel_broker *b, struct sel_broker_session *s,
                           const struct sel_wire_item *item, uint32_t task)
{
    uint64_t number;
    if (!is_urgent(item) &&
        !sel_session_has_room(&s->s, sel_wire_item_size(item) + urgent_bytes(b)))
        return SEL_ELIMIT;
    if (!s->is_worker && !push_result(s, task))
        return SEL_ENOMEM;
    int r = sel_session_put(&s->s, item, &number);
    if (r < 0) {
        if (!s->is_worker)
            s->result_count--;
        return r;
    }
    s->records_out++;
    b->stats.records_out++;
    count_outbox(b, s);
    sel_broker_session_mark(b, s);
    return 0;
}

void sel_broker_session_note_settled(struct sel_broker *b, struct sel_broker_session *s)
{
    uint64_t settled = s->s.out.settled;
    if (s->is_worker)
        return;
    while (s->settled_seen < settled) {
        s->settled_seen++;
        SEL_ASSERT(s->result_count > 0);
        uint32_t task = s->results[s->result_head];
        s->result_head = (s->result_head + 1) & (s->result_cap - 1);
        s->result_count--;
        if (task != SEL_NONE)
            sel_broker_task_unpin(b, task);
    }
}

/* ---- settling what they say ---- */

static struct sel_settle_run *run_at(const struct sel_broker_session *s, uint32_t i)
{
    return &s->runs[(s->run_head + i) % s->run_cap];
}

static bool push_run(struct sel_broker_session *s, struct sel_settle_run run)
{
    if (s->run_count == s->run_cap) {
        uint32_t cap = s->run_cap ? 2 * s->run_cap : 4;
        struct sel_settle_run *runs = sel_mem_alloc(cap * sizeof(*runs));
        if (!runs)
            return false;
        for (uint32_t i = 0; i < s->run_count; i++)
            runs[i] = *run_at(s, i);
        sel_mem_free(s->runs);
        s->runs = runs;
        s->run_cap = cap;
        s->run_head = 0;
    }
    *run_at(s, s->run_count++) = run;
    return true;
}

void sel_broker_session_settle_at(struct sel_broker *b, struct sel_broker_session *s,
                                  uint64_t number, uint64_t batch)
{
    if (s->run_count == 0 && batch <= b->log.committed) {
        sel_session_settle(&s->s, number);
        return;
    }
    struct sel_settle_run *last = s->run_count ? run_at(s, s->run_count - 1) : NULL;
    if (last && (batch <= last->batch || !push_run(s, (struct sel_settle_run){number, batch}))) {
        /* without memory it waits for the earlier batch alone, so that one must be the later */
        last->number = number;
        if (batch > last->batch)
            last->batch = batch;
        return;
    }
    if (!last && !push_run(s, (struct sel_settle_run){number, batch}))
        return; /* not settled: it will be with what comes next, or be said again */
    if (!s->in_runs) {
        s->in_runs = true;
        b->run_sessions[b->run_session_count++] = s->slot;
    }
}

void sel_broker_sessions_committed(struct sel_broker *b)
{
    for (uint32_t i = 0; i < b->run_session_count;) {
        struct sel_broker_session *s = b->sessions[b->run_sessions[i]];
        while (s->run_count && run_at(s, 0)->batch <= b->log.committed) {
            sel_session_settle(&s->s, run_at(s, 0)->number);
            s->run_head = (s->run_head + 1) % s->run_cap;
            s->run_count--;
            sel_broker_session_mark(b, s);
        }
        if (s->run_count) {
            i++;
            continue;
        }
        s->in_runs = false;
        b->run_sessions[i] = b->run_sessions[--b->run_session_count];
    }
}

/* ---- credit ---- */

/* What outboxes have grown to in a burst they keep, as the next one comes soon; unless others have
 * to wait for that memory. */
void sel_broker_sessions_trim(struct sel_broker *b)
{
    if (b->now.mono_us < b->trim_us)
        return;
    b->trim_us = b->now.mono_us + TRIM_EVERY_US;
    for (uint32_t i = 0; i < b->session_count; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (!s || s->s.out.cap - (s->s.out.end - s->s.out.head) < TRIM_BYTES_MIN)
            continue;
        sel_outbox_trim(&s->s.out);
        count_outbox(b, s);
    }
}

void sel_broker_sessions_give_credit(struct sel_broker *b)
{
    for (uint32_t i = 0; b->withheld && i < b->session_count; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (!s || !s->withheld_records)
            continue;
        sel_session_free(&s->s, s->withheld_records, s->withheld_bytes);
        s->withheld_records = s->withheld_bytes = 0;
        b->withheld--;
        sel_broker_session_mark(b, s);
    }
}

/* ---- leases ---- */

void sel_broker_sessions_check_leases(struct sel_broker *b)
{
    int64_t now_us = b->now.mono_us;
    if (now_us < b->lease_check_us)
        return;
    int64_t next_us = now_us + b->options.lease_us;
    for (uint32_t i = 0; i < b->session_count; i++) {
        struct sel_broker_session *s = b->sessions[i];
        if (s && s->heard_us + b->options.lease_us < next_us)
            next_us = s->heard_us + b->options.lease_us;
        if (!s || now_us - s->heard_us < b->options.lease_us)
            continue;
        sel_broker_say(b, s->is_worker ? SEL_BROKER_WARNING : SEL_BROKER_INFO, "session.lapsed",
                       "session=%llx name=\"%s\" tasks=%u", (unsigned long long)s->s.number,
                       s->name ? s->name : "", s->in_flight);
        if (s->is_worker)
            sel_broker_known_remove(b, s->peer);
        sel_broker_session_end(b, s, true);
    }
    /* All sessions are looked at: not for each of them anew. */
    int64_t soon_us = now_us + b->options.lease_us / LEASE_CHECKS;
    b->lease_check_us = next_us > soon_us ? next_us : soon_us;
}

void sel_broker_sessions_forgive(struct sel_broker *b, int64_t us)
{
    for (uint32_t i = 0; i < b->session_count; i++) {
        if (b->sessions[i])
            b->sessions[i]->heard_us += us;
    }
}

/* ---- sending ---- */

static int send_frame(struct sel_broker *b, struct sel_broker_session *s)
{
    int r = b->io.send(b->io.ctx, s->connection, sel_buf_str(&b->out));
    if (r == 0) {
        b->stats.frames_out++;
        b->stats.bytes_out += b->out.n;
        return 0;
    }
    if (r == -EAGAIN) {
        s->blocked_us = b->now.mono_us + BLOCKED_US;
        return r;
    }
    sel_broker_session_disconnect(b, s);
    return r;
}

static int send_welcome(struct sel_broker *b, struct sel_broker_session *s)
{
    struct sel_wire_welcome w = {
        .version = SEL_WIRE_VERSION,
        .n = s->hello_n,
        .broker = b->id,
        .resumed = s->welcome_resumed,
        .lease_us = (uint64_t)b->options.lease_us,
        .beat_us = (uint64_t)b->options.beat_us,
        .record_max = b->options.record_max,
        .level = b->options.level_default,
        .level_max = b->options.level_max,
        .shard = b->options.shard,
    };
    sel_session_fill_welcome(&s->s, &w);
    sel_buf_clear(&b->out);
    sel_wire_encode_welcome(&w, &b->out);
    int r = sel_buf_error(&b->out);
    if (r == 0)
        r = send_frame(b, s);
    if (r == 0)
        s->must_welcome = false;
    return r;
}

static int send_data(struct sel_broker *b, struct sel_broker_session *s)
{
    sel_buf_clear(&b->out);
    int r = sel_session_send(&s->s, SEND_BYTES_MAX, false, &b->out);
    if (r == 0 && (r = send_frame(b, s)) < 0) {
        /* It counts as sent and is lost: said again, acks and credit too. */
        sel_outbox_rewind(&s->s.out);
        s->s.must_answer = true;
    }
    return r;
}

/* Whether the session has no more to say; *due is when it will have. */
static bool flush(struct sel_broker *b, struct sel_broker_session *s, int64_t *due)
{
    int64_t now_us = b->now.mono_us;
    if (!s->is_connected || s->is_failed)
        return true; /* marked again; what failed must not settle what was not said */
    if (s->blocked_us > now_us) {
        *due = s->blocked_us;
        return false;
    }
    int r = s->must_welcome ? send_welcome(b, s) : 0;
    for (int i = 0; r == 0 && i < SENDS_MAX; i++) {
        enum sel_session_debt owes = sel_session_owes(&s->s);
        if (owes == SEL_OWES_NOTHING) {
            s->later_us = 0;
            return true;
        }
        if (owes == SEL_OWES_LATER) {
            if (s->later_us == 0)
                s->later_us = now_us + LATER_US;
            if (s->later_us > now_us) {
                *due = s->later_us;
                return false;
            }
        }
        s->later_us = 0;
        r = send_data(b, s);
    }
    *due = r == 0 ? now_us : now_us + BLOCKED_US;
    return !s->is_connected;
}

int64_t sel_broker_sessions_flush(struct sel_broker *b)
{
    int64_t next_us = INT64_MAX;
    if (!b->has_started)
        return next_us;
    for (uint32_t i = 0; i < b->dirty_count;) {
        struct sel_broker_session *s = b->sessions[b->dirty[i]];
        int64_t due_us = INT64_MAX;
        if (s->pending_first != SEL_NONE)
            sel_broker_results_flush(b, s);
        bool is_clean = flush(b, s, &due_us);
        count_outbox(b, s);
        if (is_clean) {
            s->is_dirty = false;
            b->dirty[i] = b->dirty[--b->dirty_count];
            continue;
        }
        if (due_us < next_us)
            next_us = due_us;
        i++;
    }
    return next_us;
}

void sel_broker_error(struct sel_broker *b, uint32_t connection, const struct sel_wire_error *e)
{
    if (!b->has_started)
        return;
    sel_buf_clear(&b->out);
    sel_wire_encode_error(e, &b->out);
    if (sel_buf_error(&b->out) == 0 &&
        b->io.send(b->io.ctx, connection, sel_buf_str(&b->out)) == 0) {
        b->stats.errors_sent++;
        b->stats.frames_out++;
        b->stats.bytes_out += b->out.n;
    }
}
