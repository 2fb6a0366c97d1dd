#include "client/producer.h"

#include <errno.h>
#include <stdio.h>

#include "client/waiting.h"
#include "core/arena.h"
#include "core/assert.h"
#include "core/hash.h"
#include "core/mem.h"

#define WAITING_MAX 4000000u
#define DEFER_US_MIN INT64_C(100000)
#define DEFER_US_MAX INT64_C(5000000)
#define BITS_MIN 65536u

/* Records are known by a number that goes on through all sessions: `base` plus the one in this
 * session. Entries of `waiting` that have none: */
#define NUMBER_DEFERRED SEL_WAITING_NUMBER_MAX        /* to be put again */
#define NUMBER_CANCELLED (SEL_WAITING_NUMBER_MAX - 1) /* deferred, and cancelled meanwhile */

/* A submit whose caller wants to know when it is settled. */
struct settle {
    uint64_t number;
    struct sel_id id;
    void *tag;
    bool is_quiet; /* nothing else is told of it, but a refusal is */
    bool is_void;  /* was told, or was deferred: another one stands for it */
    bool is_ended; /* is to be told: its record is not said any more */
};

/* A record that was refused for lack of room, `size` bytes follow. */
struct deferred {
    void *tag;
    uint32_t size;
    bool wants_settled, is_quiet; /* as of struct settle */
};

struct sel_producer {
    const struct sel_producer_ops *ops;
    void *ctx;
    struct sel_peer peer;
    struct sel_waiting waiting;
    uint32_t waiting_max;
    uint64_t base;
    uint64_t window_records, window_bytes;
    int64_t now_us, lost_since_us, lost_after_us;
    bool was_open, has_failed_all;
    uint64_t arrived_bytes; /* not settled with the peer yet */

    /* For each record that is kept one bit, at its number: its task has ended, so a new session
     * does not need it. */
    uint64_t *ended;
    uint32_t ended_cap; /* bits, a power of two */

    struct settle *settles; /* a ring, numbers go up */
    uint32_t settle_cap;    /* 0 or a power of two */
    uint64_t settle_head, settle_end;

    struct sel_buf deferred; /* struct deferred and its record, one after the other */
    size_t deferred_head;
    uint32_t deferred_count;
    int64_t deferred_at_us, deferred_pause_us;
    struct sel_outbox_cursor refused_at;

    bool must_watch;   /* entries of the session before are to be watched: */
    bool has_moved;    /* entries changed places since the walk over them began */
    uint32_t watch_at; /* where the walk is */

    struct sel_arena arena; /* names, for ever */
    struct sel_map queue_map;
    struct sel_str *queues;
    uint32_t queue_count, queue_cap;
    struct sel_producer_stats stats;
};

static const struct sel_peer_ops peer_ops;

int sel_producer_new(const struct sel_producer_options *options, int64_t now_us,
                     struct sel_producer **ret)
{
    struct sel_producer *producer = SEL_NEW(struct sel_producer);
    if (!producer)
        return SEL_ENOMEM;
    producer->ops = options->ops;
    producer->ctx = options->ctx;
    producer->waiting_max = options->waiting_max ? options->waiting_max : WAITING_MAX;
    producer->now_us = producer->lost_since_us = now_us;
    producer->lost_after_us = options->lost_after_us;
    producer->ended_cap = BITS_MIN;
    producer->ended = sel_mem_zalloc(BITS_MIN / 8);
    char *name = sel_arena_strdup(&producer->arena, options->name);
    const struct sel_peer_options peer = {
        .role = SEL_ROLE_PRODUCER,
        .id = options->id,
        .name = {name, options->name.n},
        .keep_bytes_max = options->keep_bytes_max,
        .window_records = options->window_records,
        .window_bytes = options->window_bytes,
        .seed = options->seed,
    };
    int r = producer->ended && name ? 0 : SEL_ENOMEM;
    if (r == 0)
        r = sel_peer_init(&producer->peer, &peer, &peer_ops, producer, now_us);
    if (r < 0) {
        sel_producer_free(producer);
        return r;
    }
    producer->window_records = producer->peer.session.in.window_records;
    producer->window_bytes = producer->peer.session.in.window_bytes;
    *ret = producer;
    return 0;
}

struct sel_producer *sel_producer_free(struct sel_producer *producer)
{
    if (!producer)
        return NULL;
    sel_peer_done(&producer->peer);
    sel_waiting_done(&producer->waiting);
    sel_mem_free(producer->ended);
    sel_mem_free(producer->settles);
    sel_buf_done(&producer->deferred);
    sel_map_done(&producer->queue_map);
    sel_mem_free(producer->queues);
    sel_arena_done(&producer->arena);
    return sel_mem_free(producer);
}

static SEL_PRINTF(2, 3) void say(struct sel_producer *producer, const char *fmt, ...)
{
    char text[512];
    if (!producer->ops->log)
        return;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args); /* may be cut */
    va_end(args);
    producer->ops->log(producer->ctx, text);
}

/* ---- records on their way out ---- */

static uint64_t bit_of(const struct sel_producer *producer, uint64_t number)
{
    return number & (producer->ended_cap - 1);
}

static void set_ended(struct sel_producer *producer, uint64_t number)
{
    uint64_t bit = bit_of(producer, number);
    producer->ended[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static void clear_ended(struct sel_producer *producer, uint64_t number)
{
    uint64_t bit = bit_of(producer, number);
    producer->ended[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

static bool has_ended(const struct sel_producer *producer, uint64_t number)
{
    uint64_t bit = bit_of(producer, number);
    return producer->ended[bit / 64] >> (bit % 64) & 1;
}

/* Room for the bits of twice as many records. A number keeps its bit or gets one `old_cap` above,
 * so two copies of the old bits hold all that are asked for. */
static bool grow_ended(struct sel_producer *producer)
{
    size_t size = producer->ended_cap / 8;
    if (producer->ended_cap > UINT32_MAX / 2)
        return false;
    uint64_t *ended = sel_mem_realloc(producer->ended, 2 * size);
    if (!ended)
        return false;
    memcpy((char *)ended + size, ended, size);
    producer->ended = ended;
    producer->ended_cap *= 2;
    return true;
}

/* Puts a record; *ret is its number through all sessions. */
static int put(struct sel_producer *producer, const struct sel_wire_item *item, uint64_t *ret)
{
    const struct sel_outbox *out = &producer->peer.session.out;
    if (out->next - out->settled > producer->ended_cap && !grow_ended(producer))
        return SEL_ENOMEM;
    uint64_t number;
    int r = sel_peer_put(&producer->peer, item, &number);
    if (r < 0)
        return r;
    *ret = producer->base + number;
    clear_ended(producer, *ret);
    return 0;
}

static bool grow_settles(struct sel_producer *producer)
{
    if (producer->settle_end - producer->settle_head < producer->settle_cap)
        return true;
    if (producer->settle_cap > UINT32_MAX / 2)
        return false;
    uint32_t cap = producer->settle_cap ? producer->settle_cap * 2 : 256;
    struct settle *settles = sel_mem_alloc((size_t)cap * sizeof(*settles));
    if (!settles)
        return false;
    for (uint64_t i = producer->settle_head; i < producer->settle_end; i++)
        settles[i & (cap - 1)] = producer->settles[i & (producer->settle_cap - 1)];
    sel_mem_free(producer->settles);
    producer->settles = settles;
    producer->settle_cap = cap;
    return true;
}

static struct settle *settle_at(const struct sel_producer *producer, uint64_t i)
{
    return &producer->settles[i & (producer->settle_cap - 1)];
}

/* The one of this number that is not void, by halving. Void ones may share a number with the one
 * before them. */
static struct settle *find_settle(const struct sel_producer *producer, uint64_t number)
{
    uint64_t low = producer->settle_head, high = producer->settle_end;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (settle_at(producer, middle)->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == producer->settle_end)
        return NULL;
    struct settle *settle = settle_at(producer, low);
    return settle->number == number && !settle->is_void ? settle : NULL;
}

/* ---- what callers say ---- */

static int may_put(const struct sel_producer *producer)
{
    if (producer->peer.state == SEL_PEER_REFUSED || producer->peer.state == SEL_PEER_CLOSED)
        return SEL_EREQUEST;
    if (producer->lost_after_us && producer->peer.state != SEL_PEER_OPEN &&
        producer->now_us - producer->lost_since_us >= producer->lost_after_us)
        return -ETIMEDOUT;
    return 0;
}

int sel_producer_queue(struct sel_producer *producer, struct sel_str name, uint16_t *ret)
{
    uint32_t number;
    if (sel_map_get(&producer->queue_map, name, &number)) {
        *ret = (uint16_t)number;
        return 0;
    }
    int r = may_put(producer);
    if (r < 0)
        return r;
    if (name.n == 0 || name.n > SEL_WIRE_NAME_MAX || !sel_str_is_utf8(name))
        return SEL_ERANGE;
    if (producer->queue_count == SEL_WIRE_QUEUES_MAX ||
        !sel_session_has_room(&producer->peer.session, SEL_WIRE_RECORD_SIZE + SEL_WIRE_NAME_MAX))
        return SEL_ELIMIT;
    if (!sel_mem_grow(&producer->queues, &producer->queue_cap, producer->queue_count + 1,
                      sizeof(*producer->queues)))
        return SEL_ENOMEM;
    producer->peer.options.queues = producer->queues;
    char *copy = sel_arena_strdup(&producer->arena, name);
    if (!copy)
        return SEL_ENOMEM;
    number = producer->queue_count + 1;
    const struct sel_str own = {copy, name.n};
    const struct sel_wire_item item = {.type = SEL_RECORD_QUEUE,
                                       .queue = (uint16_t)number,
                                       .priority = SEL_WIRE_PRIORITY,
                                       .payload = own};
    uint64_t unused;
    r = put(producer, &item, &unused);
    if (r < 0)
        return r;
    producer->queues[producer->queue_count++] = own; /* for HELLOs to come */
    producer->peer.options.queue_count = producer->queue_count;
    if (sel_map_add(&producer->queue_map, own, number, NULL) < 0)
        return SEL_ENOMEM; /* the number is lost, the name gets another one */
    *ret = (uint16_t)number;
    return 0;
}

static void set_number(struct sel_waiting_entry *entry, uint64_t number)
{
    entry->number = number & SEL_WAITING_NUMBER_MAX;
}

/* Puts a SUBMIT or WATCH whose result is waited for. */
static int put_waited(struct sel_producer *producer, const struct sel_wire_item *item, void *tag)
{
    if (producer->waiting.count >= producer->waiting_max)
        return SEL_ELIMIT;
    uint64_t number = producer->base + producer->peer.session.out.next;
    int r = sel_waiting_add(&producer->waiting, item->id, tag, number);
    if (r < 0)
        return r;
    producer->has_moved = true;
    r = put(producer, item, &number);
    if (r < 0)
        sel_waiting_remove(&producer->waiting, sel_waiting_get(&producer->waiting, item->id));
    else if (item->flags & SEL_ITEM_ALL) /* a WATCH in a session to come says so too */
        sel_waiting_get(&producer->waiting, item->id)->is_all = true;
    return r;
}

int sel_producer_submit(struct sel_producer *producer, const struct sel_wire_item *item, void *tag,
                        bool wants_settled)
{
    SEL_ASSERT(item->type == SEL_RECORD_SUBMIT);
    int r = may_put(producer);
    if (r < 0)
        return r;
    if (item->task.n == 0 || item->queue == 0 || (item->id.hi | item->id.lo) == 0)
        return SEL_ERANGE;
    if (producer->deferred_count)
        return SEL_ELIMIT; /* the broker is full */
    if (wants_settled && !grow_settles(producer))
        return SEL_ENOMEM;
    uint64_t number = producer->base + producer->peer.session.out.next;
    if (item->flags & SEL_ITEM_QUIET)
        r = put(producer, item, &number);
    else
        r = put_waited(producer, item, tag);
    if (r < 0)
        return r;
    producer->stats.submitted++;
    if (wants_settled)
        *settle_at(producer, producer->settle_end++) = (struct settle){
            .number = number, .id = item->id, .tag = tag, .is_quiet = item->flags & SEL_ITEM_QUIET};
    return 0;
}

static struct sel_wire_item item_of(enum sel_wire_record type, struct sel_id id)
{
    return (struct sel_wire_item){.type = (uint8_t)type, .id = id, .priority = SEL_WIRE_PRIORITY};
}

static struct sel_wire_item watch_of(struct sel_id id, bool all)
{
    struct sel_wire_item item = item_of(SEL_RECORD_WATCH, id);
    item.flags = all ? SEL_ITEM_ALL : 0;
    return item;
}

int sel_producer_watch(struct sel_producer *producer, struct sel_id id, void *tag, bool all)
{
    int r = may_put(producer);
    if (r < 0)
        return r;
    if ((id.hi | id.lo) == 0)
        return SEL_ERANGE;
    const struct sel_wire_item item = watch_of(id, all);
    return put_waited(producer, &item, tag);
}

bool sel_producer_forget(struct sel_producer *producer, struct sel_id id)
{
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, id);
    if (!entry)
        return false;
    sel_waiting_remove(&producer->waiting, entry);
    producer->has_moved = true;
    return true;
}

int sel_producer_cancel(struct sel_producer *producer, struct sel_id id)
{
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, id);
    if (entry && entry->number >= NUMBER_CANCELLED) {
        entry->number = NUMBER_CANCELLED;
        return 0;
    }
    const struct sel_wire_item item = item_of(SEL_RECORD_CANCEL, id);
    uint64_t unused;
    return put(producer, &item, &unused);
}

bool sel_producer_is_waiting(const struct sel_producer *producer, struct sel_id id)
{
    return sel_waiting_get(&producer->waiting, id) != NULL;
}

bool sel_producer_has_room(const struct sel_producer *producer)
{
    const struct sel_outbox *out = &producer->peer.session.out;
    return producer->deferred_count == 0 &&
           producer->waiting.count < producer->waiting_max - producer->waiting_max / 8 &&
           out->end - out->head <= out->bytes_max - out->bytes_max / 8;
}

void sel_producer_hold(struct sel_producer *producer, bool hold)
{
    sel_inbox_window(&producer->peer.session.in, hold ? 0 : producer->window_records,
                     hold ? 0 : producer->window_bytes);
}

/* ---- what the broker says ---- */

/* The task has ended: it is waited for no more, and its record needs no sending in a new session.
 */
static void take_entry(struct sel_producer *producer, struct sel_waiting_entry *entry)
{
    if (entry->number < NUMBER_CANCELLED &&
        entry->number > producer->base + producer->peer.settling)
        set_ended(producer, entry->number);
    sel_waiting_remove(&producer->waiting, entry);
    producer->has_moved = true;
}

static void on_result(struct sel_producer *producer, const struct sel_wire_item *item)
{
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, item->id);
    if (!entry) {
        producer->stats.unasked++;
        return;
    }
    const struct sel_producer_result result = {
        .id = item->id,
        .tag = entry->tag,
        .code = item->code,
        .level = item->level,
        .is_all = entry->is_all,
        .try_count = item->try_count,
        .payload = item->payload,
    };
    take_entry(producer, entry);
    producer->stats.finished++;
    producer->deferred_pause_us = 0;
    producer->ops->finished(producer->ctx, &result);
}

static void pause_deferred(struct sel_producer *producer, uint32_t code)
{
    int64_t pause = producer->deferred_pause_us * 2;
    pause = pause < DEFER_US_MIN ? DEFER_US_MIN : pause > DEFER_US_MAX ? DEFER_US_MAX : pause;
    uint64_t chance = sel_prng_below(&producer->peer.prng, (uint64_t)pause / 2);
    producer->deferred_pause_us = pause;
    producer->deferred_at_us = producer->now_us + pause + (int64_t)chance;
    say(producer, "the broker takes no submits now (%s): they are sent again",
        sel_wire_code_name(code));
}

/* Keeps the record that was refused, to be put again. false: it cannot be. */
static bool defer(struct sel_producer *producer, const struct sel_wire_item *refused)
{
    struct sel_str record =
        sel_outbox_find(&producer->peer.session.out, &producer->refused_at, refused->handle);
    struct sel_str rest = record;
    struct sel_wire_item item;
    if (sel_wire_next(&rest, &item, NULL) <= 0 || !sel_id_eq(item.id, refused->id) ||
        (item.type != SEL_RECORD_SUBMIT && item.type != SEL_RECORD_WATCH))
        return false;
    uint64_t number = producer->base + refused->handle;
    struct settle *settle = find_settle(producer, number);
    struct deferred deferred = {.size = (uint32_t)record.n};
    if (settle) {
        deferred.wants_settled = true;
        deferred.is_quiet = settle->is_quiet;
        deferred.tag = settle->tag;
    }
    struct sel_buf *buf = &producer->deferred;
    if (!sel_buf_reserve(buf, sizeof(deferred) + record.n)) {
        buf->failed = buf->over_limit = false; /* what is in it stays good */
        return false;
    }
    sel_buf_put(buf, &deferred, sizeof(deferred));
    sel_buf_put_str(buf, record);
    if (producer->deferred_count++ == 0 || producer->now_us >= producer->deferred_at_us)
        pause_deferred(producer, refused->code);
    if (settle)
        settle->is_void = true;
    set_ended(producer, number);
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, item.id);
    if (entry && entry->number == number)
        entry->number = NUMBER_DEFERRED;
    producer->stats.deferred++;
    return true;
}

static void on_refused(struct sel_producer *producer, const struct sel_wire_item *item)
{
    bool is_retryable = item->code == SEL_CODE_FULL || item->code == SEL_CODE_DRAINING;
    if (is_retryable && defer(producer, item))
        return;
    producer->stats.refused++;
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, item->id);
    struct sel_producer_result result = {
        .id = item->id, .is_refused = true, .code = item->code, .payload = item->payload};
    if (!entry || (item->handle && entry->number != producer->base + item->handle)) {
        char id[SEL_ID_TEXT_SIZE];
        struct settle *settle = find_settle(producer, producer->base + item->handle);
        say(producer, "task %s was refused (%s): %.*s", sel_id_format(item->id, id),
            sel_wire_code_name(item->code), SEL_STR_ARG(item->payload));
        if (settle && settle->is_quiet && sel_id_eq(settle->id, item->id)) {
            result.tag = settle->tag;
            settle->is_quiet = false; /* once, whatever the broker says */
            producer->ops->finished(producer->ctx, &result);
        }
        return;
    }
    result.tag = entry->tag;
    take_entry(producer, entry);
    producer->stats.finished++;
    producer->ops->finished(producer->ctx, &result);
}

static void on_record(void *ctx, uint64_t number, const struct sel_wire_item *item, int error)
{
    struct sel_producer *producer = ctx;
    producer->arrived_bytes += item->raw.n;
    if (error < 0)
        say(producer, "record %llu of the broker cannot be used: %s", (unsigned long long)number,
            sel_error_text(error));
    else if (item->type == SEL_RECORD_RESULT)
        on_result(producer, item);
    else if (item->type == SEL_RECORD_REFUSED)
        on_refused(producer, item);
    /* names of queues mean nothing to a producer, as nothing refers to them */
}

static void tell_settled(struct sel_producer *producer, uint64_t number)
{
    while (producer->settle_head < producer->settle_end) {
        const struct settle settle = *settle_at(producer, producer->settle_head);
        if (settle.number > number)
            break;
        producer->settle_head++;
        if (!settle.is_void && producer->ops->settled)
            producer->ops->settled(producer->ctx, settle.id, settle.tag);
    }
}

static void on_settled(void *ctx, uint64_t number)
{
    struct sel_producer *producer = ctx;
    tell_settled(producer, producer->base + number);
}

/* ---- a new session ---- */

struct renumber {
    struct sel_producer *producer;
    uint64_t settle; /* place in the ring */
};

/* The ring learns the new number of a record. What has ended is as good as settled. */
static void renumber_settle(struct sel_producer *producer, struct settle *settle, bool is_kept,
                            uint64_t number)
{
    settle->is_ended = !is_kept && !settle->is_void;
    settle->number = producer->base + (is_kept ? number : number - 1);
}

static void tell_ended(struct sel_producer *producer)
{
    for (uint64_t i = producer->settle_head; i < producer->settle_end; i++) {
        const struct settle settle = *settle_at(producer, i);
        if (!settle.is_ended)
            continue;
        settle_at(producer, i)->is_ended = false;
        settle_at(producer, i)->is_void = true;
        if (producer->ops->settled)
            producer->ops->settled(producer->ctx, settle.id, settle.tag);
    }
}

/* Whether the record is to be said in the new session. All that knew its number learn the new one.
 */
static bool keep_record(void *ctx, uint64_t old_number, uint64_t number, struct sel_str record)
{
    struct renumber *renumber = ctx;
    struct sel_producer *producer = renumber->producer;
    bool is_kept = !has_ended(producer, producer->base + old_number);
    /* void ones may stand before it with the same number */
    while (renumber->settle < producer->settle_end &&
           settle_at(producer, renumber->settle)->number <= producer->base + old_number)
        renumber_settle(producer, settle_at(producer, renumber->settle++), is_kept, number);
    struct sel_wire_item item;
    if (is_kept && number != old_number && sel_wire_next(&record, &item, NULL) > 0) {
        struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, item.id);
        if (entry && entry->number == producer->base + old_number)
            set_number(entry, producer->base + number);
    }
    return is_kept;
}

static void on_opened(void *ctx, bool resumed, uint64_t shift)
{
    struct sel_producer *producer = ctx;
    producer->stats.sessions++;
    producer->was_open = true;
    say(producer, "session %#llx %s", (unsigned long long)producer->peer.session.number,
        resumed ? "goes on" : "begins");
    if (resumed)
        return;
    producer->base += shift;
    producer->arrived_bytes = 0;
    producer->refused_at = (struct sel_outbox_cursor){0};
    struct renumber renumber = {producer, producer->settle_head};
    sel_outbox_filter(&producer->peer.session.out, keep_record, &renumber);
    memset(producer->ended, 0, producer->ended_cap / 8);
    producer->must_watch = producer->waiting.count > 0;
    producer->watch_at = 0;
    producer->has_moved = false;
    tell_ended(producer);
    tell_settled(producer, producer->base);
}

/* Says WATCH for what is waited for and was settled before this session began, as much as there is
 * room for. Entries move when others come and go: then the walk begins again behind its end. */
static void watch_old(struct sel_producer *producer)
{
    while (producer->must_watch) {
        for (; producer->watch_at < producer->waiting.cap; producer->watch_at++) {
            struct sel_waiting_entry *entry = &producer->waiting.entries[producer->watch_at];
            if ((entry->id.hi | entry->id.lo) == 0 || entry->number > producer->base)
                continue;
            const struct sel_wire_item item = watch_of(entry->id, entry->is_all);
            uint64_t number;
            if (put(producer, &item, &number) < 0)
                return; /* later: when something is settled */
            set_number(entry, number);
            producer->stats.watched++;
        }
        producer->must_watch = producer->has_moved;
        producer->has_moved = false;
        producer->watch_at = 0;
    }
}

/* Forgets the first, of `size` bytes. What was forgotten is closed up when it is as much as the
 * rest. */
static void drop_deferred(struct sel_producer *producer, size_t size)
{
    struct sel_buf *buf = &producer->deferred;
    producer->deferred_head += size;
    producer->deferred_count--;
    if (producer->deferred_head < buf->n - producer->deferred_head)
        return;
    buf->n -= producer->deferred_head;
    memmove(buf->p, buf->p + producer->deferred_head, buf->n);
    producer->deferred_head = 0;
}

/* Puts the first of the deferred records again. false: not now. */
static bool put_deferred(struct sel_producer *producer)
{
    struct sel_buf *buf = &producer->deferred;
    struct deferred deferred;
    memcpy(&deferred, buf->p + producer->deferred_head, sizeof(deferred));
    struct sel_str record = {(const char *)buf->p + producer->deferred_head + sizeof(deferred),
                             deferred.size};
    struct sel_wire_item item;
    int r = sel_wire_next(&record, &item, NULL);
    SEL_ASSERT(r > 0); /* it was when it was deferred */
    struct sel_waiting_entry *entry = sel_waiting_get(&producer->waiting, item.id);
    if (entry && entry->number == NUMBER_CANCELLED) {
        const struct sel_producer_result result = {
            .id = item.id, .tag = entry->tag, .code = SEL_OUTCOME_CANCELLED};
        take_entry(producer, entry);
        producer->stats.finished++;
        producer->ops->finished(producer->ctx, &result);
    } else {
        uint64_t number;
        if (deferred.wants_settled && !grow_settles(producer))
            return false;
        if (put(producer, &item, &number) < 0)
            return false;
        if (entry && entry->number == NUMBER_DEFERRED)
            set_number(entry, number);
        if (deferred.wants_settled)
            *settle_at(producer, producer->settle_end++) =
                (struct settle){.number = number,
                                .id = item.id,
                                .tag = deferred.tag,
                                .is_quiet = deferred.is_quiet};
    }
    drop_deferred(producer, sizeof(deferred) + deferred.size);
    return true;
}

/* The broker will never have us: nothing that is waited for will come. */
static void fail_all(struct sel_producer *producer)
{
    producer->has_failed_all = true;
    say(producer, "%s", producer->peer.refusal.text);
    struct sel_waiting all = producer->waiting;
    producer->waiting = (struct sel_waiting){0};
    for (uint32_t i = 0; i < all.cap; i++) {
        if ((all.entries[i].id.hi | all.entries[i].id.lo) == 0)
            continue;
        const struct sel_producer_result result = {
            .id = all.entries[i].id,
            .tag = all.entries[i].tag,
            .is_refused = true,
            .code = SEL_CODE_ILLEGAL,
            .payload = sel_str_c(producer->peer.refusal.text),
        };
        producer->stats.finished++;
        producer->stats.refused++;
        producer->ops->finished(producer->ctx, &result);
    }
    sel_waiting_done(&all);
}

static void on_error(void *ctx, const struct sel_wire_error *error)
{
    struct sel_producer *producer = ctx;
    if (error->at)
        say(producer, "the broker, about record %llu: %s: %.*s", (unsigned long long)error->at,
            sel_wire_code_name(error->code), SEL_STR_ARG(error->text));
    else
        say(producer, "the broker: %s: %.*s", sel_wire_code_name(error->code),
            SEL_STR_ARG(error->text));
}

static const struct sel_peer_ops peer_ops = {
    .opened = on_opened,
    .record = on_record,
    .settled = on_settled,
    .error = on_error,
};

/* ---- the socket's side ---- */

static void note_state(struct sel_producer *producer)
{
    bool is_open = producer->peer.state == SEL_PEER_OPEN;
    if (producer->was_open && !is_open) {
        producer->lost_since_us = producer->now_us;
        say(producer, "the session is interrupted");
    }
    producer->was_open = is_open;
    if (producer->peer.state == SEL_PEER_REFUSED && !producer->has_failed_all)
        fail_all(producer);
}

void sel_producer_receive(struct sel_producer *producer, struct sel_str frame, int64_t now_us)
{
    struct sel_error err;
    producer->now_us = now_us;
    if (sel_peer_receive(&producer->peer, frame, now_us, &err) < 0)
        say(producer, "the broker said something that cannot be: %s", err.text);
    if (producer->arrived_bytes) {
        sel_peer_settle(&producer->peer, producer->peer.session.in.arrived,
                        producer->arrived_bytes);
        producer->arrived_bytes = 0;
    }
    note_state(producer);
}

enum sel_peer_action sel_producer_poll(struct sel_producer *producer, int64_t now_us,
                                       struct sel_buf *out)
{
    producer->now_us = now_us;
    if (producer->peer.state == SEL_PEER_OPEN) {
        watch_old(producer);
        if (producer->deferred_count && now_us >= producer->deferred_at_us)
            while (producer->deferred_count && put_deferred(producer))
                ; /* all that there is room for */
    }
    sel_peer_expect(&producer->peer, producer->waiting.count || sel_producer_unsettled(producer));
    enum sel_peer_action action = sel_peer_poll(&producer->peer, now_us, out);
    note_state(producer);
    return action;
}

int64_t sel_producer_due_us(const struct sel_producer *producer)
{
    int64_t due = sel_peer_due_us(&producer->peer);
    bool is_open = producer->peer.state == SEL_PEER_OPEN;
    if (is_open && producer->deferred_count && producer->deferred_at_us < due &&
        producer->deferred_at_us > producer->now_us)
        due = producer->deferred_at_us;
    return due;
}

struct sel_peer *sel_producer_peer(struct sel_producer *producer)
{
    return &producer->peer;
}

uint32_t sel_producer_unsettled(const struct sel_producer *producer)
{
    const struct sel_outbox *out = &producer->peer.session.out;
    return (uint32_t)(out->next - 1 - out->settled) + producer->deferred_count;
}

uint32_t sel_producer_waiting(const struct sel_producer *producer)
{
    return producer->waiting.count;
}

void sel_producer_get_stats(const struct sel_producer *producer, struct sel_producer_stats *ret)
{
    *ret = producer->stats;
}
