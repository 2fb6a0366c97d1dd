/* Records about flows on their way through a holder. They are bound to their session. */
#include "core/mem.h"
#include "worker/holder_private.h"

int sel_holder_put_flow(struct sel_holder *h, const struct sel_wire_item *item)
{
    size_t size = sel_wire_item_size(item);
    if (size == 0 || size > sel_holder_record_max(h))
        return SEL_ERANGE;
    int r = sel_peer_put(&h->peer, item, &h->flow_last);
    if (r == 0)
        h->stats.flow_records++;
    return r;
}

uint64_t sel_holder_flow_last(const struct sel_holder *h)
{
    return h->flow_last;
}

uint64_t sel_holder_flow_settled(const struct sel_holder *h)
{
    return h->lost_settled ? h->lost_settled : h->peer.session.out.settled;
}

bool sel_holder_has_room(const struct sel_holder *h, size_t size)
{
    return sel_session_has_room(&h->peer.session, size);
}

/* A name that HELLO did not tell gets the next number. */
static int tell_queue(struct sel_holder *h, struct sel_str name, uint16_t *ret)
{
    uint32_t number = h->options.peer.queue_count + h->flow_queue_count + 1;
    if (number > UINT16_MAX)
        return SEL_ERANGE;
    if (!sel_mem_grow(&h->flow_queues, &h->flow_queue_cap, (uint64_t)h->flow_queue_count + 1,
                      sizeof(*h->flow_queues)))
        return SEL_ENOMEM;
    char *copy = sel_arena_memdup(&h->flow_queue_arena, name.p, name.n);
    if (!copy)
        return SEL_ENOMEM;
    struct sel_wire_item item = {.type = SEL_RECORD_QUEUE,
                                 .queue = (uint16_t)number,
                                 .priority = SEL_WIRE_PRIORITY,
                                 .payload = name};
    int r = sel_holder_put_flow(h, &item);
    if (r < 0)
        return r;
    h->flow_queues[h->flow_queue_count++] = (struct sel_str){copy, name.n};
    *ret = (uint16_t)number;
    return 0;
}

int sel_holder_queue_number(struct sel_holder *h, struct sel_str name, uint16_t *ret)
{
    uint32_t known = h->options.peer.queue_count;
    for (uint32_t i = 0; i < known + h->flow_queue_count; i++) {
        struct sel_str queue = i < known ? h->options.peer.queues[i] : h->flow_queues[i - known];
        if (sel_str_eq(queue, name)) {
            *ret = (uint16_t)(i + 1);
            return 0;
        }
    }
    return tell_queue(h, name, ret);
}

bool sel_holder_is_about_flow(const struct sel_wire_item *item)
{
    return (item->type == SEL_RECORD_TASK && (item->flags & SEL_ITEM_FLOW)) ||
           item->type == SEL_RECORD_STATE || item->type == SEL_RECORD_EVENTS ||
           item->type == SEL_RECORD_ENDED || item->type == SEL_RECORD_LIVE;
}

void sel_holder_take_flow(struct sel_holder *h, const struct sel_wire_item *item, int error)
{
    if (error == 0 && h->options.ops && h->options.ops->flow) {
        h->options.ops->flow(h->options.ctx, item);
        return;
    }
    struct sel_wire_item no = {.type = SEL_RECORD_RETURN,
                               .id = item->id,
                               .priority = SEL_WIRE_PRIORITY,
                               .code = SEL_RETURN_NO_RESOURCES,
                               .handle = item->handle,
                               .try_count = item->try_count,
                               .delivery = item->delivery};
    if (item->type == SEL_RECORD_TASK && sel_holder_put_flow(h, &no) < 0)
        sel_holder_say(h, "a flow that cannot be taken could not be returned");
}

/* Which of our records still mean something in a new session: `first` is the end that is looked for
 * next. */
struct keeping {
    struct sel_holder *h;
    struct sel_held_task *next;
    uint64_t dropped;
};

static struct sel_held_task *find_again(const struct sel_holder *h, uint64_t number)
{
    struct sel_held_task *task = h->owing.first;
    while (task && !(task->is_again && task->done_number == number))
        task = task->next;
    return task;
}

/* Called with numbers that go up. Ends move with their records. */
static bool keep_record_of(void *ctx, uint64_t old_number, uint64_t number, struct sel_str record)
{
    struct keeping *k = ctx;
    struct sel_wire_item item;
    while (k->next && k->next->done_number < old_number)
        k->next = k->next->next;
    struct sel_held_task *task = k->next && k->next->done_number == old_number ? k->next : NULL;
    if (!task && sel_wire_next(&record, &item, NULL) == 1) {
        bool is_ours = item.type == SEL_RECORD_DECIDE || item.type == SEL_RECORD_STATE ||
                       item.type == SEL_RECORD_QUEUE || item.type == SEL_RECORD_RETURN ||
                       item.type == SEL_RECORD_VOID;
        if (is_ours) { /* RETURN: of a flow, or of a task whose end is put anew */
            k->dropped++;
            return false;
        }
        if (item.type == SEL_RECORD_DONE)
            task = find_again(k->h, old_number);
    }
    if (task)
        task->done_number = number;
    return true;
}

void sel_holder_lose_flows(struct sel_holder *h, uint64_t settled)
{
    struct keeping keeping = {.h = h, .next = h->ended.first};
    if (h->flow_last) {
        sel_outbox_filter(&h->peer.session.out, keep_record_of, &keeping);
        h->stats.flow_dropped += keeping.dropped;
    }
    h->flow_last = 0;
    h->flow_queue_count = 0;
    sel_arena_reset(&h->flow_queue_arena);
    h->lost_settled = settled;
    if (h->options.ops && h->options.ops->flows_lost)
        h->options.ops->flows_lost(h->options.ctx);
    h->lost_settled = 0;
}
