/* A producer and a broker's end, driven by a script: each byte of the input is one step of one of
 * them, of the network, or of time. Frames get lost and connections break, the broker forgets
 * sessions, refuses for lack of room, gives results early, late and twice, and some of its frames
 * are garbage. What must hold: a task ends at most once for its submitter and is settled at most
 * once; who waits for detached work says so in each WATCH; and when the broker and the network
 * become honest at last, every task ends and nothing is left to settle. */
#include "client/producer.h"
#include "core/arena.h"
#include "proto/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TASKS_MAX 64u
#define STEPS_MAX 3000u
#define ROUNDS_MAX 200u /* of honesty: far more than it takes */

struct script {
    const uint8_t *p;
    size_t n;
};

/* What the test knows of a task; ids are 1 .. TASKS_MAX. */
struct task {
    bool is_submitted, is_quiet, is_all, wants_settled, is_forgotten;
    bool is_known;   /* to the broker */
    bool has_result; /* there: what the broker would answer to a WATCH */
    uint32_t finished, settled;
};

struct world {
    struct sel_producer *producer;
    struct sel_session session; /* the broker's */
    uint64_t next_session, hello_n;
    int64_t now_us;
    uint16_t queue;
    uint32_t submitted;
    bool is_silent; /* what the broker says is lost */
    bool is_full;   /* submits are refused */
    bool may_lie;
    bool is_forged; /* lies were told: only memory and counts must still be sound */
    struct task tasks[TASKS_MAX + 1];
    struct sel_arena arena;
    struct sel_buf in, out;
};

static uint8_t next_byte(struct script *script)
{
    if (script->n == 0)
        return 0;
    script->n--;
    return *script->p++;
}

/* ---- the producer's owner ---- */

static void on_settled(void *ctx, struct sel_id id, void *tag)
{
    struct world *w = ctx;
    SEL_ASSERT((uintptr_t)tag == id.lo && id.lo <= TASKS_MAX);
    struct task *task = &w->tasks[id.lo];
    SEL_ASSERT(task->wants_settled && task->settled++ == 0);
}

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct world *w = ctx;
    SEL_ASSERT((uintptr_t)result->tag == result->id.lo && result->id.lo <= TASKS_MAX);
    struct task *task = &w->tasks[result->id.lo];
    bool is_told = !task->is_quiet || (task->wants_settled && result->is_refused);
    SEL_ASSERT(task->is_submitted && is_told && !task->is_forgotten);
    SEL_ASSERT(task->finished++ == 0);
    SEL_ASSERT(w->is_forged || !result->is_refused);
}

static const struct sel_producer_ops ops = {.settled = on_settled, .finished = on_finished};

/* Some are flows, and of those some are waited for with all that they have sent off. */
static uint16_t flags_of(uint8_t how)
{
    if (how & 1)
        return SEL_ITEM_QUIET;
    if (!(how & 4))
        return 0;
    return how & 8 ? SEL_ITEM_FLOW | SEL_ITEM_ALL : SEL_ITEM_FLOW;
}

static void submit(struct world *w, uint8_t how)
{
    static const char payload[UINT8_MAX];
    if (w->submitted == TASKS_MAX)
        return;
    uint64_t n = w->submitted + 1;
    const struct sel_wire_item item = {.type = SEL_RECORD_SUBMIT,
                                       .flags = flags_of(how),
                                       .id = {1, n},
                                       .queue = w->queue,
                                       .priority = SEL_WIRE_PRIORITY,
                                       .task = SEL_STR("T"),
                                       .payload = {payload, how}};
    int r = sel_producer_submit(w->producer, &item, (void *)(uintptr_t)n, how & 2);
    SEL_ASSERT(r == 0 || r == SEL_ELIMIT || (w->is_forged && r == SEL_EREQUEST));
    if (r < 0)
        return;
    w->submitted++;
    w->tasks[n].is_submitted = true;
    w->tasks[n].is_quiet = how & 1;
    w->tasks[n].is_all = flags_of(how) & SEL_ITEM_ALL;
    w->tasks[n].wants_settled = how & 2;
}

/* ---- the broker ---- */

static void answer(struct world *w, uint8_t type, uint64_t id, uint32_t code, uint64_t handle)
{
    const struct sel_wire_item item = {
        .type = type, .id = {1, id}, .priority = SEL_WIRE_PRIORITY, .code = code, .handle = handle};
    uint64_t unused;
    int r = sel_session_put(&w->session, &item, &unused);
    SEL_ASSERT(r == 0);
}

static void end_task(struct world *w, uint64_t id)
{
    struct task *task = &w->tasks[id];
    if (!task->is_known || task->is_quiet || !w->session.is_open)
        return;
    task->has_result = true;
    answer(w, SEL_RECORD_RESULT, id, SEL_OUTCOME_SUCCESS, 0);
}

static void hear_record(struct world *w, uint64_t number, const struct sel_wire_item *item)
{
    SEL_ASSERT(item->type == SEL_RECORD_QUEUE || (item->id.lo >= 1 && item->id.lo <= TASKS_MAX));
    struct task *task = &w->tasks[item->id.lo];
    if (item->type == SEL_RECORD_SUBMIT) {
        if (w->is_full && !task->is_known)
            answer(w, SEL_RECORD_REFUSED, item->id.lo, SEL_CODE_FULL, number);
        else
            task->is_known = true;
        if (task->has_result) /* it knows the id again */
            answer(w, SEL_RECORD_RESULT, item->id.lo, SEL_OUTCOME_SUCCESS, 0);
    } else if (item->type == SEL_RECORD_WATCH) {
        /* what was settled is known, and only that is watched */
        SEL_ASSERT(w->is_forged || task->is_known);
        SEL_ASSERT(item->flags == (task->is_all ? SEL_ITEM_ALL : 0));
        if (task->has_result)
            answer(w, SEL_RECORD_RESULT, item->id.lo, SEL_OUTCOME_SUCCESS, 0);
    }
}

static void hear_data(struct world *w)
{
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    int r = sel_wire_decode_data(sel_buf_str(&w->in), &head, &records, NULL);
    SEL_ASSERT(r == 0);
    int64_t count = sel_session_receive(&w->session, &head, &records, NULL);
    if (count < 0) {
        SEL_ASSERT(w->is_forged || count == SEL_ENOTFOUND);
        w->session.is_open = false;
        return;
    }
    size_t bytes = records.n;
    uint64_t number = w->session.in.arrived - (uint64_t)count;
    while (sel_wire_next(&records, &item, NULL) > 0)
        hear_record(w, ++number, &item);
    sel_session_free(&w->session, (uint64_t)count, bytes);
}

/* Of the new session the broker knows what it has kept of tasks, but no numbers. */
static void forget(struct world *w)
{
    sel_session_done(&w->session);
    sel_session_init(&w->session, 1 << 20, 512, 1 << 20);
}

static void deliver(struct world *w, struct sel_str frame)
{
    if (!w->is_silent)
        sel_producer_receive(w->producer, frame, w->now_us);
}

static void say_error(struct world *w, uint32_t code, bool close)
{
    const struct sel_wire_error error = {.code = code, .close = close};
    sel_buf_clear(&w->out);
    sel_wire_encode_error(&error, &w->out);
    deliver(w, sel_buf_str(&w->out));
}

static void say_welcome(struct world *w, const struct sel_wire_hello *hello)
{
    struct sel_wire_welcome welcome = {.version = SEL_WIRE_VERSION,
                                       .n = hello->n,
                                       .broker = {5, 5},
                                       .record_max = 1 << 20,
                                       .lease_us = 5000000,
                                       .beat_us = 1000000,
                                       .level = SEL_LEVEL_MEMORY,
                                       .level_max = SEL_LEVEL_MEMORY};
    welcome.resumed = hello->session && hello->session == w->session.number &&
                      sel_session_resume(&w->session, hello->ack) == 0;
    if (!welcome.resumed) {
        forget(w);
        (void)sel_session_start(&w->session, w->next_session++);
    }
    sel_session_fill_welcome(&w->session, &welcome);
    sel_buf_clear(&w->out);
    sel_wire_encode_welcome(&welcome, &w->out);
    deliver(w, sel_buf_str(&w->out));
}

static void hear(struct world *w)
{
    struct sel_wire_hello hello;
    int type = sel_wire_message_type(sel_buf_str(&w->in), NULL);
    if (type == SEL_MESSAGE_DATA) {
        if (w->session.is_open)
            hear_data(w);
        if (!w->session.is_open)
            say_error(w, SEL_CODE_UNKNOWN_SESSION, false);
        return;
    }
    SEL_ASSERT(type == SEL_MESSAGE_HELLO);
    int r = sel_wire_decode_hello(&w->arena, sel_buf_str(&w->in), &hello, NULL);
    SEL_ASSERT(r == 0 && hello.n > w->hello_n);
    w->hello_n = hello.n;
    say_welcome(w, &hello);
    sel_arena_reset(&w->arena);
}

static void broker_speaks(struct world *w)
{
    if (!w->session.is_open)
        return;
    sel_buf_clear(&w->out);
    int r = sel_session_send(&w->session, 4096, false, &w->out);
    SEL_ASSERT(r == 0);
    deliver(w, sel_buf_str(&w->out));
}

/* ---- steps ---- */

/* What the producer wants to do now; `lose`: its frames do not arrive, 2: nor are they sent. */
static void poll_producer(struct world *w, unsigned lose)
{
    for (unsigned i = 0; i < 64; i++) {
        enum sel_peer_action action = sel_producer_poll(w->producer, w->now_us, &w->in);
        if (action == SEL_PEER_NOTHING)
            return;
        if (action == SEL_PEER_CONNECT)
            continue;
        if (lose == 2) {
            sel_peer_unsent(sel_producer_peer(w->producer));
            return;
        }
        if (lose == 0)
            hear(w);
    }
}

static void garble(struct world *w, struct script *script)
{
    if (!w->may_lie)
        return;
    w->is_forged = true;
    sel_buf_clear(&w->out);
    if (w->session.is_open && sel_session_send(&w->session, 4096, false, &w->out) == 0) {
        for (uint8_t n = next_byte(script) & 7; n > 0; n--) {
            size_t at = next_byte(script) | (size_t)next_byte(script) << 8;
            w->out.p[at % w->out.n] = next_byte(script);
        }
    }
    sel_producer_receive(w->producer, sel_buf_str(&w->out), w->now_us);
}

static void step(struct world *w, struct script *script)
{
    uint8_t what = next_byte(script), how = next_byte(script);
    uint64_t id = 1 + how % TASKS_MAX;
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        submit(w, how);
        break;
    case 3:
    case 4:
        poll_producer(w, how % 4 == 3 ? 1 + (how >> 7) : 0);
        break;
    case 5:
        broker_speaks(w);
        break;
    case 6:
        sel_session_settle(&w->session, w->session.in.arrived);
        break;
    case 7:
    case 8:
        end_task(w, id);
        break;
    case 9:
        w->is_full = how & 1;
        break;
    case 10:
        w->is_silent = how & 1;
        break;
    case 11:
        w->now_us += (int64_t)how * how * 100;
        break;
    case 12:
        sel_peer_broken(sel_producer_peer(w->producer), w->now_us);
        break;
    case 13:
        if (how & 1)
            say_error(w, SEL_CODE_ILLEGAL, true);
        else
            forget(w);
        break;
    case 14:
        if (w->tasks[id].is_submitted && how & 64)
            w->tasks[id].is_forgotten |= sel_producer_forget(w->producer, (struct sel_id){1, id});
        break;
    default:
        garble(w, script);
        break;
    }
}

/* From now on nothing is lost and all tasks end. */
static void be_honest(struct world *w)
{
    w->is_silent = w->is_full = false;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        int64_t due_us = sel_producer_due_us(w->producer);
        w->now_us =
            due_us > w->now_us && due_us < w->now_us + 10000000 ? due_us : w->now_us + 100000;
        poll_producer(w, 0);
        if (w->session.is_open)
            sel_session_settle(&w->session, w->session.in.arrived);
        for (uint64_t id = 1; id <= w->submitted; id++)
            if (!w->tasks[id].has_result)
                end_task(w, id);
        for (unsigned i = 0; i < 4; i++)
            broker_speaks(w);
    }
}

static void check_end(const struct world *w)
{
    for (uint64_t id = 1; id <= w->submitted; id++) {
        const struct task *task = &w->tasks[id];
        SEL_ASSERT(task->is_quiet || task->is_forgotten || task->finished == 1);
        SEL_ASSERT(!task->wants_settled || task->settled == 1);
        SEL_ASSERT(task->is_known);
    }
    SEL_ASSERT(sel_producer_waiting(w->producer) == 0);
    SEL_ASSERT(sel_producer_unsettled(w->producer) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    struct script script = {data, size};
    w = (struct world){.next_session = 1, .now_us = 1000000};
    const struct sel_producer_options options = {
        .id = {3, 4}, .ops = &ops, .ctx = &w, .keep_bytes_max = 4096, .seed = 11};
    sel_session_init(&w.session, 1 << 20, 512, 1 << 20);
    if (sel_producer_new(&options, w.now_us, &w.producer) < 0 ||
        sel_producer_queue(w.producer, SEL_STR("celery"), &w.queue) < 0)
        return 0;
    w.may_lie = next_byte(&script) & 1;
    for (unsigned i = 0; i < STEPS_MAX && script.n > 0; i++)
        step(&w, &script);
    if (!w.is_forged) {
        be_honest(&w);
        check_end(&w);
    }
    sel_producer_free(w.producer);
    sel_session_done(&w.session);
    sel_arena_done(&w.arena);
    sel_buf_done(&w.in);
    sel_buf_done(&w.out);
    return 0;
}
