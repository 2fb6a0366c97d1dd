/* How sessions begin and end: HELLO, BEAT, GOODBYE. */
#include <inttypes.h>

#include "broker/internal.h"
#include "core/mem.h"

#define HELLO_ARENA_MAX ((size_t)16 << 20)

static void refuse(struct sel_broker *b, uint32_t connection, uint64_t n, enum sel_wire_code code,
                   bool retry, const char *text)
{
    const struct sel_wire_error e = {
        .code = code,
        .text = sel_str_c(text),
        .retry = retry,
        .n = n,
        .version_min = code == SEL_CODE_VERSION ? SEL_WIRE_VERSION : 0,
        .version_max = code == SEL_CODE_VERSION ? SEL_WIRE_VERSION : 0,
    };
    sel_broker_error(b, connection, &e);
}

/* ---- what a worker still has ---- */

/* It has ended meanwhile, or another worker has it: what this one does is not needed. */
static void decline(struct sel_broker *b, struct sel_broker_session *s,
                    const struct sel_wire_held *held)
{
    const struct sel_wire_item cancel = {
        .type = SEL_RECORD_CANCEL,
        .id = held->id,
        .priority = SEL_WIRE_PRIORITY,
        .code = SEL_CANCEL_ENDED,
        .handle = held->handle,
        .delivery = held->delivery,
    };
    if (!held->is_done && sel_broker_session_say(b, s, &cancel, SEL_NONE) < 0)
        return; /* no room: it runs to its end, which will not count */
}

/* Whether it is a later try, or of two claims the later delivery: who has the other was given up
 * then, and came back to a broker that has begun anew. Who was told to stop comes after all others.
 */
static bool is_later(const struct sel_wire_held *held, const struct sel_task_entry *task)
{
    if (held->try_count == task->try_count &&
        held->is_called_off != !!(task->flags & SEL_TASK_CALLED_OFF))
        return !held->is_called_off;
    bool is_claimed = task->flags & SEL_TASK_CLAIMED;
    return held->try_count > task->try_count ||
           (held->try_count == task->try_count && is_claimed && held->delivery > task->delivery);
}

/* `old`: the session before of the same worker, which ends; NULL: none. */
static void claim(struct sel_broker *b, struct sel_broker_session *s,
                  const struct sel_wire_held *held, const struct sel_broker_session *old)
{
    uint32_t i = sel_broker_task_find(b, held->id);
    if (i == SEL_NONE && held->is_run) {
        decline(b, s, held); /* its flow is gone with the broker's memory, or has used its end */
        return;
    }
    if (i == SEL_NONE) {
        if (!b->is_recovering || (i = sel_broker_task_add(b, held->id)) == SEL_NONE)
            return;
        /* From before the broker began, at level memory or not committed: only the id is known. */
        sel_broker_task_at(b, i)->flags |= SEL_TASK_NO_RECORD;
        sel_broker_task_at(b, i)->try_count = held->try_count;
    }
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->kind == SEL_KIND_FLOW || task->kind == SEL_KIND_PIECE)
        return; /* flows are handed over anew */
    switch (task->state) {
    case SEL_TASK_ORPHAN:
        task->flags |= SEL_TASK_NO_RECORD;
        break;
    case SEL_TASK_QUEUED:
    case SEL_TASK_WAITING:
    case SEL_TASK_HELD:
        if (held->try_count < task->try_count)
            return;
        if (task->state == SEL_TASK_QUEUED)
            sel_broker_queue_remove(b, i);
        else if (task->state == SEL_TASK_WAITING)
            sel_broker_timer_remove(b, i);
        break;
    case SEL_TASK_DELIVERED: {
        if (task->holder == s->slot)
            return; /* a session that goes on has it still */
        bool is_own = old && task->holder == old->slot;
        if (is_own ? held->try_count < task->try_count : !is_later(held, task)) {
            if (!is_own)
                decline(b, s, held); /* else it would run on when the one that has it is lost */
            return;
        }
        if (!is_own)
            sel_broker_task_call_off(b, s, i);
        sel_broker_task_detach(b, i);
        break;
    }
    case SEL_TASK_ENDED:
        decline(b, s, held);
        return;
    default:
        return; /* somebody else has it by now, or it has ended: the first end counts */
    }
    task->try_count = held->try_count; /* a later one: the record of the retry was lost */
    task->flags |= SEL_TASK_STARTED;
    task->delivery = held->delivery;
    sel_broker_task_attach(b, i, s);
    task->flags |= SEL_TASK_CLAIMED;
    if (held->is_called_off)
        task->flags |= SEL_TASK_CALLED_OFF;
}

static void claim_all(struct sel_broker *b, struct sel_broker_session *s, struct sel_str held,
                      const struct sel_broker_session *old, bool is_new)
{
    for (uint32_t i = 0; i < held.n / SEL_WIRE_HELD_SIZE; i++) {
        struct sel_wire_held one = sel_wire_held_at(held, i);
        /* In a session that goes on its end has been taken, or will be: it is not said anew. */
        if (is_new || !one.is_done)
            claim(b, s, &one, old);
    }
}

/* What ran on its threads when a worker's process died, as its next one tells. */
static void blame(struct sel_broker *b, struct sel_broker_session *s, struct sel_str crashed)
{
    for (uint32_t k = 0; k < crashed.n / SEL_WIRE_HELD_SIZE; k++) {
        struct sel_wire_held one = sel_wire_held_at(crashed, k);
        uint32_t i = sel_broker_task_find(b, one.id);
        if (i == SEL_NONE)
            continue;
        struct sel_task_entry *task = sel_broker_task_at(b, i);
        if (task->state == SEL_TASK_ENDED || task->state == SEL_TASK_ALIAS ||
            task->state == SEL_TASK_PIECE || task->flags & SEL_TASK_NO_RECORD ||
            task->try_count != one.try_count)
            continue;
        b->stats.lost++;
        if (task->lost < SEL_TASK_LOST_MAX)
            task->lost++;
        if (task->suspected)
            task->suspected--; /* it is no suspicion any more */
        sel_broker_say(b, SEL_BROKER_WARNING, "task.lost", "worker=\"%s\" times=%u",
                       s->name ? s->name : "", task->lost);
        if (one.is_done) { /* the flag means a stack overflow here */
            sel_broker_task_call_off(b, s, i);
            (void)sel_broker_task_fail(b, i, "StackOverflow", "the task used up its stack");
        } else if (task->lost >= b->options.poison_max && task->state != SEL_TASK_DELIVERED)
            (void)sel_broker_task_fail(b, i, sel_broker_lost_class(task),
                                       "it was running when %u workers died", task->lost);
    }
}

/* ---- HELLO ---- */

static int set_name(struct sel_broker_session *s, struct sel_str name)
{
    char *copy = sel_mem_alloc(name.n + 1);
    if (!copy)
        return SEL_ENOMEM;
    for (size_t i = 0; i < name.n; i++) /* it goes into lines of logs */
        copy[i] = (unsigned char)name.p[i] < ' ' || name.p[i] == '"' ? '?' : name.p[i];
    copy[name.n] = 0;
    sel_mem_free(s->name);
    s->name = copy;
    return 0;
}

static int take_worker(struct sel_broker *b, struct sel_broker_session *s,
                       const struct sel_wire_hello *hello)
{
    uint32_t count = hello->serves_all ? hello->queue_count : hello->serve_count;
    for (uint32_t q = 0; q < b->queue_count; q++)
        b->queues[q].workers -=
            sel_broker_queue_set_has(&s->serves, q) + sel_broker_queue_set_has(&s->serves_flows, q);
    sel_broker_queue_set_done(&s->serves);
    sel_broker_queue_set_done(&s->serves_flows);
    s->slots = hello->slots;
    s->flows = hello->flows;
    s->window = hello->window ? hello->window : hello->slots;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = hello->serves_all ? i + 1 : hello->serves[i];
        uint32_t queue =
            number < s->queue_cap && s->queues[number] ? s->queues[number] - 1u : SEL_NONE;
        if (queue == SEL_NONE)
            return SEL_EFORMAT;
        int r = sel_broker_session_serve(b, s, queue, true);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The worker is known to the journal before it gets anything, so that a broker that starts anew
 * knows whom to wait for. */
static int journal_worker(struct sel_broker *b, struct sel_broker_session *s)
{
    int r = sel_broker_known_add(b, s->peer, s->incarnation, false);
    if (r < 0 || !b->log.is_on)
        return r;
    struct sel_mutation m = {
        .type = SEL_MUTATION_WORKER, .id = s->peer, .sequence = s->incarnation};
    struct sel_log_place place;
    r = sel_broker_log_put(b, &m, b->options.level_max, &place);
    if (r == 0)
        s->ready_batch = place.seq;
    return r;
}

/* The session that a new one of the same peer takes the place of. */
struct former {
    struct sel_broker_session *session; /* NULL: none, or it has ended */
    bool died;                          /* its process did, and does not tell of what */
};

static void end_former(struct sel_broker *b, struct former *former)
{
    if (former->session)
        sel_broker_session_end(b, former->session, former->died);
    former->session = NULL;
}

static int take_hello(struct sel_broker *b, struct sel_broker_session *s,
                      const struct sel_wire_hello *hello, bool is_new, struct former *former)
{
    s->incarnation = hello->incarnation;
    int r = set_name(s, hello->name);
    for (uint32_t i = 0; r == 0 && i < hello->queue_count; i++)
        r = sel_broker_session_name_queue(b, s, (uint16_t)(i + 1), hello->queues[i]);
    if (r == 0 && s->is_worker)
        r = take_worker(b, s, hello);
    if (r == 0 && s->is_worker && is_new)
        r = journal_worker(b, s);
    if (r < 0 || !s->is_worker)
        return r;
    claim_all(b, s, hello->held, former->session, is_new);
    end_former(b, former);
    if (is_new)
        blame(b, s, hello->crashed);
    sel_broker_recover_heard(b, s->peer);
    return 0;
}

static bool is_same_session(const struct sel_broker *b, const struct sel_broker_session *s,
                            const struct sel_wire_hello *hello)
{
    return s && !s->is_closed && s->incarnation == hello->incarnation &&
           s->s.number == hello->session && sel_id_eq(hello->broker, b->id);
}

static void greet(struct sel_broker *b, uint32_t connection, const struct sel_wire_hello *hello)
{
    bool is_worker = hello->role == SEL_ROLE_WORKER;
    struct sel_broker_session *s = sel_broker_session_of_peer(b, hello->peer);
    if (s && (hello->incarnation < s->incarnation ||
              (hello->incarnation == s->incarnation && hello->n <= s->hello_n)))
        return; /* late, of another connection: a newer one has been answered */
    bool resumed = is_same_session(b, s, hello) && s->is_worker == is_worker &&
                   sel_session_resume(&s->s, hello->ack) == 0;
    struct former former = {0};
    if (s && !resumed) {
        /* A new process of the same name, or one that knows the session no more: perhaps because it
         * has not heard of it yet, and says HELLO again. What it holds stays with it. If it died it
         * tells itself of what (`crashed`): nobody else is suspected then. */
        former.session = s;
        former.died = hello->incarnation > s->incarnation && hello->crashed.n == 0;
        s = NULL;
    }
    if (hello->session && !resumed)
        sel_broker_recover_returned(b);
    if (!s && !(s = sel_broker_session_new(b, hello->peer, is_worker)) && former.session) {
        end_former(b, &former); /* makes room */
        s = sel_broker_session_new(b, hello->peer, is_worker);
    }
    if (!s) {
        refuse(b, connection, hello->n, SEL_CODE_FULL, true,
               "the broker has as many sessions as it may (session_max)");
        return;
    }
    int r = sel_broker_session_connect(b, s, connection);
    if (r == 0)
        r = take_hello(b, s, hello, !resumed, &former);
    end_former(b, &former);
    if (r < 0) {
        refuse(b, connection, hello->n, r == SEL_ENOMEM ? SEL_CODE_FULL : SEL_CODE_MALFORMED,
               r == SEL_ENOMEM,
               r == SEL_ENOMEM ? "the broker is out of memory"
                               : "HELLO: queues or serves cannot be taken (see queue_max)");
        sel_broker_session_end(b, s, false);
        return;
    }
    s->hello_n = hello->n;
    s->heard_us = b->now.mono_us;
    s->welcome_resumed = resumed;
    s->must_welcome = true;
    sel_broker_session_note_settled(b, s);
    sel_broker_session_mark(b, s);
    sel_broker_say(b, resumed ? SEL_BROKER_DEBUG : SEL_BROKER_INFO,
                   resumed ? "session.resumed" : "session.new",
                   "session=%" PRIx64 " role=%s name=\"%s\" connection=%u slots=%u held=%u",
                   s->s.number, is_worker ? "worker" : "producer", s->name, connection, s->slots,
                   s->in_flight);
}

void sel_broker_on_hello(struct sel_broker *b, uint32_t connection, struct sel_str frame)
{
    struct sel_wire_hello hello;
    struct sel_error err = {0};
    sel_arena_reset(&b->arena);
    b->arena.limit = HELLO_ARENA_MAX;
    int r = sel_wire_decode_hello(&b->arena, frame, &hello, &err);
    if (r < 0)
        refuse(b, connection, 0, sel_wire_code_of(r), r == SEL_ENOMEM, err.text);
    else if (hello.version_min > SEL_WIRE_VERSION || hello.version_max < SEL_WIRE_VERSION)
        refuse(b, connection, hello.n, SEL_CODE_VERSION, false,
               "the broker speaks version 1 of the protocol alone");
    else if (b->is_stopping)
        refuse(b, connection, hello.n, SEL_CODE_DRAINING, true, "the broker is going down");
    else
        greet(b, connection, &hello);
}

/* ---- BEAT, GOODBYE ---- */

void sel_broker_on_beat(struct sel_broker *b, uint32_t connection, struct sel_str frame)
{
    struct sel_wire_beat beat;
    struct sel_error err = {0};
    int r = sel_wire_decode_beat(frame, &beat, &err);
    if (r < 0) {
        refuse(b, connection, 0, sel_wire_code_of(r), false, err.text);
        return;
    }
    struct sel_broker_session *s = sel_broker_session_of_peer(b, beat.peer);
    if (!s || !s->is_worker || s->incarnation != beat.incarnation || beat.count <= s->beat_count)
        return;
    s->beat_count = beat.count;
    s->heard_us = b->now.mono_us;
    if (beat.turns != s->turns || s->turned_us == 0) {
        s->turns = beat.turns;
        s->turned_us = b->now.mono_us;
    }
    bool is_stalled = b->now.mono_us - s->turned_us > 2 * b->options.beat_us;
    if (is_stalled != s->is_stalled)
        sel_broker_say(b, is_stalled ? SEL_BROKER_WARNING : SEL_BROKER_INFO,
                       is_stalled ? "worker.stalled" : "worker.turns", "name=\"%s\" tasks=%u",
                       s->name ? s->name : "", s->in_flight);
    s->is_stalled = is_stalled;
}

void sel_broker_on_goodbye(struct sel_broker *b, uint32_t connection, struct sel_str frame)
{
    struct sel_wire_goodbye goodbye;
    sel_arena_reset(&b->arena);
    int r = sel_wire_decode_goodbye(&b->arena, frame, &goodbye, NULL);
    struct sel_broker_session *s = sel_broker_session_of_connection(b, connection);
    if (r < 0 || !s || s->s.number != goodbye.session)
        return;
    sel_broker_say(b, SEL_BROKER_INFO, "session.goodbye",
                   "session=%" PRIx64 " name=\"%s\" tasks=%u reason=\"%.*s\"", s->s.number,
                   s->name ? s->name : "", s->in_flight, SEL_STR_ARG(goodbye.reason));
    if (s->is_worker)
        sel_broker_known_remove(b, s->peer);
    sel_broker_session_end(b, s, false);
}
