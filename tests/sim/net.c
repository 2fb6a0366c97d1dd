#include "tests/sim/net.h"

#include <errno.h>

#include "core/mem.h"
#include "tests/sim/run.h"

#define DIAL_US_MAX 300000    /* a socket tries again so often */
#define NOTICE_US_MAX 1500000 /* until the broker's end of a dead connection is dead too */
#define SPIKE_US_MAX 800000
#define COPY_US_MAX 3000000

/* One direction of a connection. */
struct pipe {
    struct sel_frames frames; /* on their way, in order */
    int64_t last_us;          /* none arrives before the one before */
    bool is_planned;          /* an event is there for the first */
};

struct sel_sim_conn {
    struct sel_link *link; /* NULL: a stranger, or the peer has gone */
    uint32_t number;
    bool is_cut;     /* what is written goes nowhere */
    bool is_noticed; /* and the broker's socket knows it */
    struct pipe up, down;
};

/* ---- frames ---- */

static struct sel_frame *frame_new(const struct sel_run *run, struct sel_str bytes)
{
    struct sel_frame *frame = sel_mem_alloc(sizeof(*frame) + bytes.n);
    SEL_ASSERT(frame && bytes.n < UINT32_MAX);
    *frame = (struct sel_frame){.sent_us = run->world.now_us, .n = (uint32_t)bytes.n};
    if (bytes.n)
        memcpy(frame->bytes, bytes.p, bytes.n);
    return frame;
}

void sel_frame_free(struct sel_frame *frame)
{
    sel_mem_free(frame);
}

static void frames_push(struct sel_frames *frames, struct sel_frame *frame)
{
    frame->next = NULL;
    if (frames->last)
        frames->last->next = frame;
    else
        frames->first = frame;
    frames->last = frame;
    frames->count++;
}

struct sel_frame *sel_frames_pop(struct sel_frames *frames)
{
    struct sel_frame *frame = frames->first;
    if (!frame)
        return NULL;
    frames->first = frame->next;
    if (!frames->first)
        frames->last = NULL;
    frames->count--;
    return frame;
}

void sel_frames_free(struct sel_frames *frames)
{
    struct sel_frame *frame;
    while ((frame = sel_frames_pop(frames)))
        sel_frame_free(frame);
}

/* ---- connections ---- */

static struct sel_sim_conn *conn_at(const struct sel_run *run, uint32_t number)
{
    return number && number <= run->net.conn_count ? run->net.conns[number - 1] : NULL;
}

static struct sel_sim_conn *conn_new(struct sel_run *run, struct sel_link *link)
{
    struct sel_net *net = &run->net;
    SEL_ASSERT(sel_mem_grow(&net->conns, &net->conn_cap, (uint64_t)net->conn_count + 1,
                            sizeof(struct sel_sim_conn *)));
    struct sel_sim_conn *conn = SEL_NEW(struct sel_sim_conn);
    SEL_ASSERT(conn);
    net->conns[net->conn_count++] = conn;
    conn->number = net->conn_count;
    conn->link = link;
    return conn;
}

struct sel_link *sel_net_peer(struct sel_run *run, uint32_t connection)
{
    struct sel_sim_conn *conn = conn_at(run, connection);
    return conn ? conn->link : NULL;
}

static bool is_held_back(const struct sel_sim_conn *conn, bool is_up)
{
    return conn->link && !conn->is_cut &&
           (is_up ? conn->link->process->is_blocked_up : conn->link->process->is_blocked_down);
}

static void arrive(struct sel_run *run, void *p, uint64_t life, uint64_t number);

static void pipe_plan(struct sel_run *run, struct sel_sim_conn *conn, bool is_up)
{
    struct pipe *pipe = is_up ? &conn->up : &conn->down;
    if (pipe->is_planned || !pipe->frames.first || is_held_back(conn, is_up))
        return;
    pipe->is_planned = true;
    sel_world_plan(&run->world, pipe->frames.first->at_us, arrive, is_up ? conn : NULL,
                   run->server.process.life, conn->number);
}

static void read_by_peer(struct sel_run *run, struct sel_link *link, struct sel_frame *frame)
{
    if (!link->actor) {
        sel_frame_free(frame);
        return;
    }
    frames_push(&link->arrived, frame);
    sel_actor_wake(link->actor, run->world.now_us + 5);
}

static void arrive(struct sel_run *run, void *p, uint64_t life, uint64_t number)
{
    bool is_up = p != NULL;
    if (life != run->server.process.life)
        return; /* with the broker all its connections went */
    struct sel_sim_conn *conn = conn_at(run, (uint32_t)number);
    struct pipe *pipe = is_up ? &conn->up : &conn->down;
    pipe->is_planned = false;
    if (!pipe->frames.first || is_held_back(conn, is_up))
        return;
    if (pipe->frames.first->at_us <= run->world.now_us) {
        struct sel_frame *frame = sel_frames_pop(&pipe->frames);
        sel_world_note(&run->world, is_up ? "broker" : sel_run_who(run, conn->link), "arrives",
                       conn->number, frame->n);
        if (is_up) {
            frame->connection = conn->number;
            sel_server_take(run, frame);
        } else if (conn->link && !conn->is_cut) {
            read_by_peer(run, conn->link, frame);
        } else {
            sel_frame_free(frame);
        }
    }
    pipe_plan(run, conn, is_up);
}

/* ---- copies ---- */

struct sel_sim_copy {
    struct sel_sim_copy *next; /* of all, until the end of the run */
    struct sel_link *link;
    struct sel_frame *frame;
};

static void copy_arrive(struct sel_run *run, void *p, uint64_t is_up, uint64_t life)
{
    struct sel_sim_copy *copy = p;
    struct sel_link *link = copy->link;
    if (life != run->server.process.life || !link->is_open || !link->conn ||
        is_held_back(link->conn, is_up))
        return;
    struct sel_frame *frame = copy->frame;
    copy->frame = NULL;
    sel_world_note(&run->world, sel_run_who(run, link), is_up ? "copy up" : "copy down", frame->n,
                   0);
    frame->is_copy = true;
    frame->connection = link->conn->number;
    if (is_up)
        sel_server_take(run, frame);
    else
        read_by_peer(run, link, frame);
}

static void maybe_copy(struct sel_run *run, struct sel_link *link, struct sel_str bytes, bool is_up)
{
    struct sel_net *net = &run->net;
    if (run->is_healing || !sel_scenario_has(&run->scenario, SEL_MODE_COPIES) ||
        !sel_draw_chance(&net->prng, 30))
        return;
    struct sel_sim_copy *copy = SEL_NEW(struct sel_sim_copy);
    SEL_ASSERT(copy);
    *copy = (struct sel_sim_copy){net->copies, link, frame_new(run, bytes)};
    net->copies = copy;
    sel_world_plan(&run->world, run->world.now_us + sel_draw_wait(&net->prng, COPY_US_MAX),
                   copy_arrive, copy, is_up, run->server.process.life);
}

/* ---- sending ---- */

static void push(struct sel_run *run, struct sel_sim_conn *conn, struct sel_frame *frame,
                 bool is_up)
{
    struct sel_net *net = &run->net;
    struct pipe *pipe = is_up ? &conn->up : &conn->down;
    int64_t latency = conn->link ? conn->link->latency_us : 1000;
    frame->at_us = run->world.now_us + latency / 2 + sel_draw_between(&net->prng, 0, latency);
    if (!run->is_healing && sel_scenario_has(&run->scenario, SEL_MODE_SPIKES) &&
        sel_draw_chance(&net->prng, 20))
        frame->at_us += sel_draw_wait(&net->prng, SPIKE_US_MAX);
    if (frame->at_us < pipe->last_us)
        frame->at_us = pipe->last_us;
    pipe->last_us = frame->at_us;
    frames_push(&pipe->frames, frame);
    net->frames++;
    pipe_plan(run, conn, is_up);
}

static bool is_lost(struct sel_run *run)
{
    if (run->is_healing || !sel_scenario_has(&run->scenario, SEL_MODE_LOSS) ||
        !sel_draw_chance(&run->net.prng, 20))
        return false;
    run->net.lost++;
    return true;
}

int sel_net_send(struct sel_run *run, struct sel_link *link, struct sel_str bytes)
{
    SEL_ASSERT(link->is_open);
    struct sel_sim_conn *conn = link->conn;
    uint32_t queued = conn ? conn->up.frames.count : link->waiting.count;
    if (queued >= run->scenario.hwm)
        return -EAGAIN;
    sel_world_note(&run->world, sel_run_who(run, link), "sends", link->socket, bytes.n);
    sel_world_note_bytes(&run->world, bytes);
    if (run->world.is_verbose)
        sel_show_frame(run, sel_run_who(run, link), "broker", bytes);
    if (is_lost(run))
        return 0;
    maybe_copy(run, link, bytes, true);
    struct sel_frame *frame = frame_new(run, bytes);
    if (conn)
        push(run, conn, frame, true);
    else
        frames_push(&link->waiting, frame);
    return 0;
}

/* What one session was told is told to another, as if it were its own. */
static void readdress(struct sel_run *run, struct sel_str bytes)
{
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_wire_item item;
    if (sel_wire_message_type(bytes, NULL) != SEL_MESSAGE_DATA ||
        sel_wire_decode_data(bytes, &head, &records, NULL) < 0)
        return;
    struct sel_str rest = records;
    if (sel_wire_next(&rest, &item, NULL) != 1 || item.type != SEL_RECORD_TASK)
        return;
    for (uint32_t i = 0; i < run->scenario.worker_count; i++) {
        struct sel_member *member = &run->workers[i].members[0];
        if (!member->holder || !member->link.conn)
            continue;
        const struct sel_session *session = &sel_holder_peer(member->holder)->session;
        if (!session->is_open || session->number == head.session)
            continue;
        struct sel_buf frame = {0};
        struct sel_wire_writer writer;
        struct sel_wire_head altered = {.session = session->number,
                                        .first = session->in.arrived + 1};
        sel_wire_begin(&writer, &frame);
        sel_wire_put_raw(&writer, records, head.count);
        sel_wire_end(&writer, &altered);
        read_by_peer(run, &member->link, frame_new(run, sel_buf_str(&frame)));
        sel_buf_done(&frame);
        return;
    }
}

int sel_net_answer(struct sel_run *run, uint32_t connection, struct sel_str bytes)
{
    struct sel_sim_conn *conn = conn_at(run, connection);
    if (!conn || conn->is_noticed)
        return -EHOSTUNREACH;
    uint32_t unread = conn->link && !conn->is_cut ? conn->link->arrived.count : 0;
    if (conn->down.frames.count + unread >= run->scenario.hwm)
        return -EAGAIN;
    const char *who = sel_run_who(run, conn->link);
    sel_world_note(&run->world, "broker", "sends", connection, bytes.n);
    sel_world_note_bytes(&run->world, bytes);
    if (run->world.is_verbose)
        sel_show_frame(run, "broker", who, bytes);
    if (!conn->link || conn->is_cut || is_lost(run))
        return 0;
    maybe_copy(run, conn->link, bytes, false);
    if (run->options.cheat == SEL_CHEAT_READDRESS)
        readdress(run, bytes);
    push(run, conn, frame_new(run, bytes), false);
    return 0;
}

struct sel_frame *sel_net_take(struct sel_run *run, struct sel_link *link)
{
    (void)run;
    return sel_frames_pop(&link->arrived);
}

/* ---- connecting ---- */

static void dial(struct sel_run *run, void *p, uint64_t socket, uint64_t b);

static void dial_plan(struct sel_run *run, struct sel_link *link, int64_t wait_us)
{
    if (link->is_dialing || !link->is_open)
        return;
    link->is_dialing = true;
    sel_world_plan(&run->world, run->world.now_us + wait_us, dial, link, link->socket, 0);
}

static void dial(struct sel_run *run, void *p, uint64_t socket, uint64_t b)
{
    (void)b;
    struct sel_link *link = p;
    if (socket != link->socket || !link->is_open)
        return;
    link->is_dialing = false;
    struct sel_process *process = link->process;
    if (!run->server.process.is_up || process->is_blocked_up || process->is_blocked_down) {
        dial_plan(run, link, sel_draw_between(&run->net.prng, 1000, DIAL_US_MAX));
        return;
    }
    link->conn = conn_new(run, link);
    sel_world_note(&run->world, sel_run_who(run, link), "connects", link->conn->number, 0);
    struct sel_frame *frame;
    while ((frame = sel_frames_pop(&link->waiting)))
        push(run, link->conn, frame, true);
}

static void notice(struct sel_run *run, void *p, uint64_t life, uint64_t number)
{
    (void)p;
    if (life == run->server.process.life)
        conn_at(run, (uint32_t)number)->is_noticed = true;
}

/* Some of what the peer has sent may still arrive, nothing of what it was sent. */
static void conn_end(struct sel_run *run, struct sel_link *link)
{
    struct sel_sim_conn *conn = link->conn;
    struct sel_net *net = &run->net;
    link->conn = NULL;
    conn->is_cut = true;
    sel_frames_free(&conn->down.frames);
    if (sel_draw_chance(&net->prng, 500))
        sel_frames_free(&conn->up.frames);
    else
        pipe_plan(run, conn, true);
    int64_t wait = sel_draw_chance(&net->prng, 500) ? 0 : sel_draw_wait(&net->prng, NOTICE_US_MAX);
    sel_world_plan(&run->world, run->world.now_us + wait, notice, NULL, run->server.process.life,
                   conn->number);
}

void sel_net_open(struct sel_run *run, struct sel_link *link)
{
    SEL_ASSERT(!link->is_open);
    link->is_open = true;
    link->is_dialing = false;
    link->socket++;
    dial_plan(run, link, sel_draw_between(&run->net.prng, 50, 3000));
}

void sel_net_close(struct sel_run *run, struct sel_link *link)
{
    if (!link->is_open)
        return;
    if (link->conn)
        conn_end(run, link);
    sel_frames_free(&link->waiting);
    sel_frames_free(&link->arrived);
    link->is_open = false;
    link->socket++;
}

void sel_net_cut(struct sel_run *run, struct sel_link *link)
{
    if (!link->conn)
        return;
    sel_world_note(&run->world, sel_run_who(run, link), "is cut", link->conn->number, 0);
    run->net.cuts++;
    conn_end(run, link);
    dial_plan(run, link, sel_draw_wait(&run->net.prng, DIAL_US_MAX));
}

void sel_net_broker_gone(struct sel_run *run)
{
    struct sel_net *net = &run->net;
    for (uint32_t i = 0; i < net->conn_count; i++) {
        struct sel_sim_conn *conn = net->conns[i];
        struct sel_link *link = conn->link;
        sel_frames_free(&conn->up.frames);
        sel_frames_free(&conn->down.frames);
        if (link && link->conn == conn) {
            link->conn = NULL;
            dial_plan(run, link, sel_draw_between(&net->prng, 1000, DIAL_US_MAX));
        }
        sel_mem_free(conn);
    }
    net->conn_count = 0;
}

/* ---- partitions ---- */

static struct sel_link *link_of(struct sel_run *run, uint32_t i)
{
    struct sel_sim_conn *conn = run->net.conns[i];
    return conn->link && conn->link->conn == conn ? conn->link : NULL;
}

void sel_net_block(struct sel_run *run, struct sel_process *process, bool up, bool down)
{
    sel_world_note(&run->world, process->name, "is blocked", up, down);
    process->is_blocked_up = up;
    process->is_blocked_down = down;
}

void sel_net_unblock(struct sel_run *run, struct sel_process *process, bool with_cut)
{
    if (!process->is_blocked_up && !process->is_blocked_down)
        return;
    sel_world_note(&run->world, process->name, "is unblocked", with_cut, 0);
    process->is_blocked_up = process->is_blocked_down = false;
    for (uint32_t i = 0; i < run->net.conn_count; i++) {
        struct sel_link *link = link_of(run, i);
        if (!link || link->process != process)
            continue;
        if (with_cut) {
            sel_net_cut(run, link);
        } else {
            pipe_plan(run, link->conn, true);
            pipe_plan(run, link->conn, false);
        }
    }
}

/* ---- strangers ---- */

void sel_net_inject(struct sel_run *run, struct sel_str bytes)
{
    if (!run->server.process.is_up)
        return;
    struct sel_sim_conn *conn = NULL;
    for (uint32_t i = 0; i < run->net.conn_count && sel_draw_chance(&run->net.prng, 500); i++)
        if (!run->net.conns[i]->link && !run->net.conns[i]->is_cut)
            conn = run->net.conns[i];
    if (!conn)
        conn = conn_new(run, NULL);
    sel_world_note(&run->world, "?", "says", conn->number, bytes.n);
    sel_world_note_bytes(&run->world, bytes);
    push(run, conn, frame_new(run, bytes), true);
}

void sel_net_init(struct sel_run *run)
{
    run->net.prng.state = run->scenario.seed ^ UINT64_C(0x2e7);
}

void sel_net_done(struct sel_run *run)
{
    sel_net_broker_gone(run);
    run->net.conns = sel_mem_free(run->net.conns);
    while (run->net.copies) {
        struct sel_sim_copy *copy = run->net.copies;
        run->net.copies = copy->next;
        sel_frame_free(copy->frame);
        sel_mem_free(copy);
    }
}
