/* A holder, its broker, and a script: each byte is a step of one of them or of the network. The
 * broker gives tasks from a few ids, again and again, cancels, forgets, and writes records that
 * cannot be read. What must hold: no try runs twice at a time, each task that runs is one that was
 * given, and at the end everything has come to an end. */
#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "core/buf.h"
#include "proto/session.h"
#include "worker/holder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IDS 8u
#define RUNNING_MAX 16u

struct world {
    const uint8_t *p;
    size_t n;
    struct sel_holder *holder;
    struct sel_session broker;
    bool is_on; /* the broker has heard a HELLO of this connection */
    uint64_t last_session, handles;
    int64_t now_us;
    struct sel_buf out, said;
    struct sel_held_task *running[RUNNING_MAX];
    uint32_t running_count;
};

static uint8_t next_byte(struct world *w)
{
    if (w->n == 0)
        return 0;
    w->n--;
    return *w->p++;
}

/* ---- the broker ---- */

static void take_hello(struct world *w, bool forgets)
{
    struct sel_arena arena = {0};
    struct sel_wire_hello hello;
    SEL_ASSERT(sel_wire_decode_hello(&arena, sel_buf_str(&w->out), &hello, NULL) == 0);
    struct sel_wire_welcome welcome = {.version = 1,
                                       .n = hello.n,
                                       .broker = {5, 5},
                                       .lease_us = 1000000,
                                       .beat_us = 100000,
                                       .record_max = 4096,
                                       .level = SEL_LEVEL_MEMORY,
                                       .level_max = SEL_LEVEL_MEMORY};
    welcome.resumed = !forgets && hello.session && hello.session == w->broker.number &&
                      sel_session_resume(&w->broker, hello.ack) == 0;
    if (!welcome.resumed) {
        sel_session_done(&w->broker);
        sel_session_init(&w->broker, 1 << 20, 1000, 1 << 20);
        (void)sel_session_start(&w->broker, ++w->last_session);
    }
    sel_session_fill_welcome(&w->broker, &welcome);
    sel_buf_clear(&w->said);
    sel_wire_encode_welcome(&welcome, &w->said);
    sel_holder_receive(w->holder, sel_buf_str(&w->said), w->now_us);
    w->is_on = true;
    sel_arena_done(&arena);
}

static void take_data(struct world *w, bool settles)
{
    struct sel_wire_head head;
    struct sel_str records;
    SEL_ASSERT(sel_wire_decode_data(sel_buf_str(&w->out), &head, &records, NULL) == 0);
    int64_t count = sel_session_receive(&w->broker, &head, &records, NULL);
    if (count < 0)
        return;
    size_t bytes = records.n;
    struct sel_wire_item item;
    while (count > 0 && records.n) {
        SEL_ASSERT(sel_wire_next(&records, &item, NULL) == 1);
        SEL_ASSERT(sel_wire_is_legal(item.type, SEL_ROLE_WORKER, SEL_ROLE_BROKER));
    }
    sel_session_free(&w->broker, (uint64_t)count, bytes);
    if (settles)
        sel_session_settle(&w->broker, w->broker.in.arrived);
}

/* What the holder says reaches the broker, or is lost. */
static void poll_holder(struct world *w, uint8_t how)
{
    enum sel_peer_action action;
    for (int i = 0; i < 8; i++) {
        action = sel_holder_poll(w->holder, w->now_us, &w->out);
        if (action == SEL_PEER_NOTHING)
            return;
        if (action == SEL_PEER_CONNECT) {
            w->is_on = false;
            sel_session_suspend(&w->broker);
        } else if (how & 1) {
            sel_peer_unsent(sel_holder_peer(w->holder));
            return;
        } else if (how & 2) {
            continue; /* lost */
        } else if (sel_wire_message_type(sel_buf_str(&w->out), NULL) == SEL_MESSAGE_HELLO) {
            take_hello(w, how & 4);
        } else if (w->is_on &&
                   sel_wire_message_type(sel_buf_str(&w->out), NULL) == SEL_MESSAGE_DATA) {
            take_data(w, how & 8);
        }
    }
}

static void speak(struct world *w, bool is_lost)
{
    sel_buf_clear(&w->said);
    if (!w->is_on || sel_session_send(&w->broker, 2048, false, &w->said) < 0)
        return;
    if (!is_lost)
        sel_holder_receive(w->holder, sel_buf_str(&w->said), w->now_us);
}

static void give(struct world *w, uint8_t what)
{
    static const char payload[512];
    uint64_t number;
    struct sel_wire_item item = {.type = SEL_RECORD_TASK,
                                 .id = {1, 1 + what % IDS},
                                 .queue = 1,
                                 .priority = SEL_WIRE_PRIORITY,
                                 .level = SEL_LEVEL_MEMORY,
                                 .handle = ++w->handles,
                                 .try_count = what >> 4 & 1,
                                 .delivery = (uint16_t)w->handles,
                                 .task = SEL_STR("T"),
                                 .payload = {payload, what & 0x40 ? sizeof(payload) : 3}};
    if (what & 0x80)
        item.task = (struct sel_str){0}; /* cannot be read */
    if (sel_session_put(&w->broker, &item, &number) < 0)
        return;
}

static void cancel(struct world *w, uint8_t what)
{
    uint64_t number;
    struct sel_wire_item item = {.type = SEL_RECORD_CANCEL,
                                 .id = {1, 1 + what % IDS},
                                 .priority = SEL_WIRE_PRIORITY,
                                 .handle = w->handles - what / IDS % 4,
                                 .delivery = (uint16_t)(w->handles - what / IDS % 4)};
    if (sel_session_put(&w->broker, &item, &number) < 0)
        return;
}

/* ---- the worker ---- */

static void begin(struct world *w)
{
    struct sel_held_task *task =
        w->running_count < RUNNING_MAX ? sel_holder_begin(w->holder) : NULL;
    if (!task)
        return;
    SEL_ASSERT(task->id.hi == 1 && task->id.lo >= 1 && task->id.lo <= IDS);
    SEL_ASSERT(sel_str_eq(task->item.task, SEL_STR("T")));
    for (uint32_t i = 0; i < w->running_count; i++)
        SEL_ASSERT(!sel_id_eq(w->running[i]->id, task->id) ||
                   w->running[i]->try_count != task->try_count);
    w->running[w->running_count++] = task;
}

static void end(struct world *w, uint8_t how)
{
    static const char payload[8192];
    if (w->running_count == 0)
        return;
    uint32_t at = how % w->running_count;
    struct sel_held_task *task = w->running[at];
    int r = how & 0x80 ? sel_holder_return(w->holder, task, SEL_RETURN_UNKNOWN_TASK, SEL_STR("?"))
                       : sel_holder_end(w->holder, task, how >> 4 & 7 ? (how >> 4 & 7) % 5 : 0, how,
                                        (struct sel_str){payload, how & 8 ? how * 40u : 1});
    SEL_ASSERT(r == 0 || r == SEL_ELIMIT || r == SEL_ERANGE);
    if (r == 0)
        w->running[at] = w->running[--w->running_count];
}

static void step(struct world *w, uint8_t what)
{
    switch (what % 10) {
    case 0:
    case 1:
        give(w, next_byte(w));
        break;
    case 2:
        cancel(w, next_byte(w));
        break;
    case 3:
        speak(w, what & 0x80);
        break;
    case 4:
    case 5:
        poll_holder(w, what >> 4);
        break;
    case 6:
        begin(w);
        break;
    case 7:
        end(w, next_byte(w));
        break;
    case 8:
        w->now_us += INT64_C(1000) << (what >> 4);
        break;
    case 9:
        if (what & 0x80)
            sel_holder_drain(w->holder);
        else
            sel_peer_broken(sel_holder_peer(w->holder), w->now_us);
        break;
    }
}

/* A good network and a broker that settles: nothing may stay behind. */
static void come_to_an_end(struct world *w)
{
    sel_holder_drain(w->holder);
    for (int i = 0; i < 2000 && !sel_holder_is_empty(w->holder); i++) {
        w->now_us += 500000;
        poll_holder(w, 8);
        speak(w, false);
        sel_session_settle(&w->broker, w->broker.in.arrived);
        if (w->running_count) /* as a failure, which is small */
            end(w, 0x10);
    }
    SEL_ASSERT(w->running_count == 0);
    SEL_ASSERT(sel_holder_is_empty(w->holder));
    SEL_ASSERT(sel_holder_running(w->holder) == 0 && sel_holder_waiting(w->holder) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sel_str queue = {"q", 1};
    struct world w = {.p = data, .n = size, .now_us = 1000};
    const struct sel_holder_options options = {.peer = {.role = SEL_ROLE_WORKER,
                                                        .id = {8, 8},
                                                        .queues = &queue,
                                                        .queue_count = 1,
                                                        .slots = RUNNING_MAX,
                                                        .keep_bytes_max = 1500,
                                                        .window_records = 50,
                                                        .window_bytes = 8000,
                                                        .seed = 1}};
    sel_session_init(&w.broker, 1 << 20, 1000, 1 << 20);
    if (sel_holder_new(&options, w.now_us, &w.holder) < 0)
        return 0;
    poll_holder(&w, 8);
    while (w.n > 0)
        step(&w, next_byte(&w));
    come_to_an_end(&w);
    (void)sel_holder_free(w.holder);
    sel_session_done(&w.broker);
    sel_buf_done(&w.out);
    sel_buf_done(&w.said);
    return 0;
}
