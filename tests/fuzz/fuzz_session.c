/* Two ends of a session and a script: each byte of the input is one step of one of them, or of the
 * network between. A third of the heads that arrive are forged from the input. What must hold:
 * marks and sizes stay in order, what is held fits the window, credit does not leak, and between
 * honest ends no record is lost, doubled or out of order. */
#include "core/buf.h"
#include "proto/le.h"
#include "proto/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEEP 2048
#define WINDOW_RECORDS 8
#define WINDOW_BYTES 600
#define NET_MAX 16u

struct script {
    const uint8_t *p;
    size_t n;
};

struct end {
    struct sel_session session;
    struct sel_buf net[NET_MAX]; /* messages to the other end */
    unsigned net_count;
    uint64_t put, taken; /* handles count up from 1 */
};

struct world {
    struct end end[2];
    uint64_t sessions;
    bool is_forged; /* lies were told: only memory and marks must still be sound */
};

static uint8_t next_byte(struct script *script)
{
    if (script->n == 0)
        return 0;
    script->n--;
    return *script->p++;
}

static void check_end(const struct sel_session *session)
{
    const struct sel_outbox *out = &session->out;
    const struct sel_inbox *in = &session->in;
    SEL_ASSERT(out->settled <= out->acked && out->acked <= out->sent);
    SEL_ASSERT(out->sent <= out->sent_ever && out->sent_ever < out->next);
    SEL_ASSERT(out->settled_bytes <= out->acked_bytes && out->acked_bytes <= out->sent_bytes);
    SEL_ASSERT(out->sent_bytes <= out->put_bytes && out->sent_bytes <= out->credit_bytes);
    SEL_ASSERT(out->end - out->head == out->put_bytes - out->settled_bytes);
    size_t live = out->end - out->head;
    SEL_ASSERT(out->end <= out->cap);
    SEL_ASSERT(live == 0 || live - sel_le_get32(out->p + out->head) <= KEEP);
    SEL_ASSERT(in->settled <= in->arrived);
    SEL_ASSERT(in->credit_records - in->arrived + in->held_records == in->window_records);
    SEL_ASSERT(in->credit_bytes - in->arrived_bytes + in->held_bytes == in->window_bytes);
}

static void put(struct end *end, uint8_t size)
{
    static const char payload[UINT8_MAX];
    struct sel_wire_item item = {.type = size % 7 ? SEL_RECORD_RESULT : SEL_RECORD_REFUSED,
                                 .id = {1, 1},
                                 .handle = end->put + 1,
                                 .payload = {payload, size}};
    uint64_t number;
    int r = sel_session_put(&end->session, &item, &number);
    SEL_ASSERT(r == 0 || r == SEL_ELIMIT);
    end->put += r == 0;
}

static void speak(struct end *end, uint8_t how)
{
    struct sel_buf message = {0};
    int r = sel_session_send(&end->session, (size_t)how * 4, how & 1, &message);
    SEL_ASSERT(r == 0 || (r == SEL_ESTATE && !end->session.is_open));
    if (r == 0 && end->net_count < NET_MAX)
        end->net[end->net_count++] = message;
    else
        sel_buf_done(&message);
}

static void forge(struct script *script, struct sel_wire_head *head)
{
    uint64_t *const fields[] = {&head->first,   &head->ack,     &head->credit_records,
                                &head->settled, &head->session, &head->credit_bytes};
    uint8_t how = next_byte(script);
    uint64_t *field = fields[how % 6];
    *field += (uint64_t)(int64_t)(int8_t)next_byte(script);
    head->flags = how / 6 & 3;
    if (head->first == 0 || head->first > UINT64_MAX - head->count)
        head->first = 1; /* sel_wire_decode_data lets no other through */
    if (head->settled > head->ack)
        head->settled = head->ack;
}

static void deliver(struct world *world, unsigned from, struct script *script, uint8_t how)
{
    struct end *to = &world->end[1 - from], *end = &world->end[from];
    struct sel_wire_head head;
    struct sel_wire_item item;
    struct sel_str records;
    if (end->net_count == 0)
        return;
    unsigned at = how % end->net_count; /* any of them: they may overtake each other */
    struct sel_buf message = end->net[at];
    SEL_ASSERT(sel_wire_decode_data(sel_buf_str(&message), &head, &records, NULL) == 0);
    if (how >= 170) {
        forge(script, &head);
        world->is_forged = true;
    }
    int64_t r = sel_session_receive(&to->session, &head, &records, NULL);
    SEL_ASSERT(r >= 0 || r == SEL_ENOTFOUND || (r == SEL_ESTATE && world->is_forged));
    for (int64_t i = 0; i < r; i++) {
        SEL_ASSERT(sel_wire_next(&records, &item, NULL) == 1);
        SEL_ASSERT(world->is_forged || item.handle == to->taken + 1);
        to->taken = item.handle;
    }
    if (how & 64) { /* else it comes again */
        sel_buf_done(&message);
        end->net[at] = end->net[--end->net_count];
    }
}

static void work(struct end *end, uint8_t how)
{
    const struct sel_inbox *in = &end->session.in;
    if (in->held_records && how & 1) {
        uint64_t records = in->held_records > 1 && how & 2 ? 1 : in->held_records;
        uint64_t bytes = records == in->held_records ? in->held_bytes : in->held_bytes / 2;
        sel_session_free(&end->session, records, bytes);
    }
    sel_session_settle(&end->session, in->arrived - (in->arrived ? how / 4 % in->arrived : 0));
}

/* A new session here keeps nothing that was sent, so that handles go on in order. */
static void greet(struct world *world, uint8_t how)
{
    struct end *peer = &world->end[0], *broker = &world->end[1];
    uint64_t shift;
    bool resumed = world->sessions && how & 3;
    sel_session_suspend(&peer->session);
    if (resumed && sel_session_resume(&broker->session, peer->session.in.arrived) < 0) {
        SEL_ASSERT(world->is_forged);
        resumed = false;
    }
    if (!resumed) {
        for (int i = 0; i < 2; i++) {
            struct sel_outbox *out = &world->end[i].session.out;
            sel_outbox_done(out);
            world->end[i].put = world->end[1 - i].taken = 0;
        }
        (void)sel_session_start(&broker->session, ++world->sessions);
    }
    struct sel_wire_welcome welcome = {.resumed = resumed};
    sel_session_fill_welcome(&broker->session, &welcome);
    int r = sel_session_welcome(&peer->session, &welcome, &shift);
    SEL_ASSERT(r == 0 || world->is_forged);
}

static void clear_net(struct end *end)
{
    while (end->net_count)
        sel_buf_done(&end->net[--end->net_count]);
}

static void step(struct world *world, struct script *script)
{
    uint8_t what = next_byte(script), how = next_byte(script);
    unsigned who = what & 1;
    struct end *end = &world->end[who];
    switch (what >> 1 & 7) {
    case 0:
    case 1:
        put(end, how);
        break;
    case 2:
        if (sel_session_owes(&end->session) != SEL_OWES_NOTHING || how & 1)
            speak(end, how);
        break;
    case 3:
        work(end, how);
        break;
    case 4:
        if (how < 64)
            clear_net(end);
        else if (how < 128)
            greet(world, how);
        else
            sel_outbox_trim(&end->session.out);
        break;
    default:
        deliver(world, who, script, how);
        break;
    }
    check_end(&world->end[0].session);
    check_end(&world->end[1].session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, size < 4096 ? size : 4096};
    struct world world = {0};
    for (int i = 0; i < 2; i++)
        sel_session_init(&world.end[i].session, KEEP, WINDOW_RECORDS, WINDOW_BYTES);
    greet(&world, 0);
    while (script.n)
        step(&world, &script);
    for (int i = 0; i < 2; i++) {
        clear_net(&world.end[i]);
        sel_session_done(&world.end[i].session);
    }
    return 0;
}
