#include "broker/internal.h"
#include "core/mem.h"

/* ---- sets ---- */

bool sel_broker_queue_set_add(struct sel_queue_set *set, uint32_t queue)
{
    uint32_t word = queue / 64, cap = set->word_count;
    if (word >= cap) {
        if (!sel_mem_grow(&set->words, &cap, (uint64_t)word + 1, sizeof(*set->words)))
            return false;
        memset(set->words + set->word_count, 0, (cap - set->word_count) * sizeof(*set->words));
        set->word_count = cap;
    }
    set->words[word] |= UINT64_C(1) << (queue % 64);
    return true;
}

void sel_broker_queue_set_remove(struct sel_queue_set *set, uint32_t queue)
{
    if (queue / 64 < set->word_count)
        set->words[queue / 64] &= ~(UINT64_C(1) << (queue % 64));
}

bool sel_broker_queue_set_has(const struct sel_queue_set *set, uint32_t queue)
{
    return queue / 64 < set->word_count && (set->words[queue / 64] >> (queue % 64) & 1);
}

void sel_broker_queue_set_done(struct sel_queue_set *set)
{
    sel_mem_free(set->words);
    *set = (struct sel_queue_set){0};
}

uint32_t sel_broker_queue_set_next(const struct sel_queue_set *a, const struct sel_queue_set *b,
                                   uint32_t from)
{
    uint32_t words = a->word_count < b->word_count ? a->word_count : b->word_count;
    if (words == 0)
        return SEL_NONE;
    uint32_t start = from / 64 < words ? from / 64 : 0;
    uint64_t first = from / 64 < words ? ~UINT64_C(0) << (from % 64) : ~UINT64_C(0);
    for (uint32_t i = 0; i <= words; i++) { /* the first word twice: behind and before `from` */
        uint32_t word = (start + i) % words;
        uint64_t bits = a->words[word] & b->words[word] & (i == 0 ? first : ~UINT64_C(0));
        if (bits)
            return word * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return SEL_NONE;
}

/* ---- queues ---- */

static struct sel_lane *find_lane(struct sel_queue *q, uint8_t priority)
{
    for (uint32_t i = 0; i < q->lane_count; i++) {
        if (q->lanes[i].priority == priority)
            return &q->lanes[i];
    }
    return NULL;
}

static struct sel_lane *get_lane(struct sel_queue *q, uint8_t priority)
{
    struct sel_lane *lane = find_lane(q, priority);
    if (lane)
        return lane;
    if (!sel_mem_grow(&q->lanes, &q->lane_cap, (uint64_t)q->lane_count + 1, sizeof(*q->lanes)))
        return NULL;
    uint32_t i = q->lane_count++;
    for (; i > 0 && q->lanes[i - 1].priority < priority; i--)
        q->lanes[i] = q->lanes[i - 1];
    q->lanes[i] = (struct sel_lane){priority, SEL_NONE, SEL_NONE};
    return &q->lanes[i];
}

static char *copy_name(struct sel_broker *b, struct sel_str name)
{
    char *p = sel_pool_alloc(&b->pool, name.n ? name.n : 1);
    if (p && name.n)
        memcpy(p, name.p, name.n);
    return p;
}

static struct sel_queue_set *ready_set(struct sel_broker *b, enum sel_queue_kind kind)
{
    return kind == SEL_QUEUE_TASKS ? &b->ready_queues : &b->ready_flows;
}

static uint32_t queue_new(struct sel_broker *b, struct sel_str name, enum sel_queue_kind kind)
{
    struct sel_queue_set *ready = ready_set(b, kind);
    uint32_t i = b->queue_count;
    if (i >= b->options.queue_max ||
        !sel_mem_grow(&b->queues, &b->queue_cap, (uint64_t)i + 1, sizeof(*b->queues)))
        return SEL_NONE;
    char *copy = copy_name(b, name);
    if (!copy)
        return SEL_NONE;
    b->queues[i] = (struct sel_queue){
        .name = {copy, name.n}, .kind = (uint8_t)kind, .twins = {SEL_NONE, SEL_NONE, SEL_NONE}};
    /* A lane and a bit for it now, so that a push cannot fail. */
    if (!get_lane(&b->queues[i], SEL_WIRE_PRIORITY) || !sel_broker_queue_set_add(ready, i) ||
        (kind == SEL_QUEUE_TASKS && sel_map_add(&b->queue_names, b->queues[i].name, i, NULL) < 0)) {
        sel_mem_free(b->queues[i].lanes);
        sel_pool_free(&b->pool, copy, name.n ? name.n : 1);
        return SEL_NONE;
    }
    sel_broker_queue_set_remove(ready, i);
    b->queue_count++;
    return i;
}

uint32_t sel_broker_queue_get(struct sel_broker *b, struct sel_str name)
{
    uint32_t i;
    return sel_map_get(&b->queue_names, name, &i) ? i : queue_new(b, name, SEL_QUEUE_TASKS);
}

uint32_t sel_broker_queue_twin(struct sel_broker *b, uint32_t queue, enum sel_queue_kind kind)
{
    SEL_ASSERT(kind != SEL_QUEUE_TASKS && b->queues[queue].kind == SEL_QUEUE_TASKS);
    if (b->queues[queue].twins[kind] == SEL_NONE) {
        uint32_t twin = queue_new(b, b->queues[queue].name, kind);
        b->queues[queue].twins[kind] = twin; /* the array may have moved */
    }
    return b->queues[queue].twins[kind];
}

void sel_broker_queues_done(struct sel_broker *b)
{
    for (uint32_t i = 0; i < b->queue_count; i++) {
        struct sel_queue *q = &b->queues[i];
        sel_pool_free(&b->pool, (char *)(uintptr_t)q->name.p, q->name.n ? q->name.n : 1);
        sel_mem_free(q->lanes);
        sel_mem_free(q->back);
    }
    sel_map_done(&b->queue_names);
    sel_mem_free(b->queues);
    sel_broker_queue_set_done(&b->ready_queues);
    sel_broker_queue_set_done(&b->ready_flows);
}

/* ---- those that were put back: a heap by (priority, sequence) ---- */

static bool is_before(const struct sel_task_entry *x, const struct sel_task_entry *y)
{
    return x->priority != y->priority ? x->priority > y->priority : x->sequence < y->sequence;
}

static void back_set(struct sel_broker *b, struct sel_queue *q, uint32_t place, uint32_t task)
{
    q->back[place] = task;
    sel_broker_task_at(b, task)->prev = place;
}

static void back_rise(struct sel_broker *b, struct sel_queue *q, uint32_t place, uint32_t task)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, task);
    while (place && is_before(entry, sel_broker_task_at(b, q->back[(place - 1) / 2]))) {
        back_set(b, q, place, q->back[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    back_set(b, q, place, task);
}

static void back_sink(struct sel_broker *b, struct sel_queue *q, uint32_t place, uint32_t task)
{
    const struct sel_task_entry *entry = sel_broker_task_at(b, task);
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= q->back_count)
            break;
        if (child + 1 < q->back_count && is_before(sel_broker_task_at(b, q->back[child + 1]),
                                                   sel_broker_task_at(b, q->back[child])))
            child++;
        if (!is_before(sel_broker_task_at(b, q->back[child]), entry))
            break;
        back_set(b, q, place, q->back[child]);
        place = child;
    }
    back_set(b, q, place, task);
}

static void back_remove(struct sel_broker *b, struct sel_queue *q, uint32_t task)
{
    uint32_t place = sel_broker_task_at(b, task)->prev;
    SEL_ASSERT(place < q->back_count && q->back[place] == task);
    uint32_t last = q->back[--q->back_count];
    if (last == task)
        return;
    if (place &&
        is_before(sel_broker_task_at(b, last), sel_broker_task_at(b, q->back[(place - 1) / 2])))
        back_rise(b, q, place, last);
    else
        back_sink(b, q, place, last);
}

/* ---- lanes: those that came in order ---- */

static void lane_append(struct sel_broker *b, struct sel_lane *lane, uint32_t task)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, task);
    entry->next = SEL_NONE;
    entry->prev = lane->tail;
    if (lane->tail == SEL_NONE)
        lane->head = task;
    else
        sel_broker_task_at(b, lane->tail)->next = task;
    lane->tail = task;
}

static bool is_in_order(const struct sel_broker *b, const struct sel_lane *lane,
                        const struct sel_task_entry *entry)
{
    return lane->tail == SEL_NONE || sel_broker_task_at(b, lane->tail)->sequence < entry->sequence;
}

static void lane_remove(struct sel_broker *b, struct sel_queue *q, uint32_t task)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, task);
    struct sel_lane *lane = find_lane(q, entry->priority);
    SEL_ASSERT(lane);
    if (entry->prev == SEL_NONE)
        lane->head = entry->next;
    else
        sel_broker_task_at(b, entry->prev)->next = entry->next;
    if (entry->next == SEL_NONE)
        lane->tail = entry->prev;
    else
        sel_broker_task_at(b, entry->next)->prev = entry->prev;
}

/* Without memory for its lane or for the heap a task goes behind others: late, not lost. */
static void push_anywhere(struct sel_broker *b, struct sel_queue *q, uint32_t task)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, task);
    struct sel_lane *lane = get_lane(q, entry->priority);
    if (!lane) {
        lane = &q->lanes[q->lane_count - 1];
        entry->priority = lane->priority;
    }
    if (!is_in_order(b, lane, entry) &&
        sel_mem_grow(&q->back, &q->back_cap, (uint64_t)q->back_count + 1, sizeof(*q->back))) {
        entry->flags |= SEL_TASK_PUT_BACK;
        back_rise(b, q, q->back_count++, task);
        return;
    }
    lane_append(b, lane, task);
}

void sel_broker_queue_push(struct sel_broker *b, uint32_t task)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, task);
    struct sel_queue *q = &b->queues[entry->queue];
    sel_broker_task_set_state(b, task, SEL_TASK_QUEUED);
    push_anywhere(b, q, task);
    if (q->depth++ == 0)
        ready_set(b, q->kind)->words[entry->queue / 64] |= UINT64_C(1) << (entry->queue % 64);
    b->queued++;
}

void sel_broker_queue_remove(struct sel_broker *b, uint32_t task)
{
    struct sel_task_entry *entry = sel_broker_task_at(b, task);
    struct sel_queue *q = &b->queues[entry->queue];
    SEL_ASSERT(entry->state == SEL_TASK_QUEUED && q->depth > 0);
    if (entry->flags & SEL_TASK_PUT_BACK)
        back_remove(b, q, task);
    else
        lane_remove(b, q, task);
    entry->flags &= (uint8_t)~SEL_TASK_PUT_BACK;
    entry->next = entry->prev = SEL_NONE;
    if (--q->depth == 0)
        sel_broker_queue_set_remove(ready_set(b, q->kind), entry->queue);
    b->queued--;
}

uint32_t sel_broker_queue_first(const struct sel_broker *b, uint32_t queue)
{
    const struct sel_queue *q = &b->queues[queue];
    uint32_t best = q->back_count ? q->back[0] : SEL_NONE;
    for (uint32_t i = 0; i < q->lane_count; i++) {
        uint32_t head = q->lanes[i].head;
        if (head == SEL_NONE)
            continue;
        if (best == SEL_NONE || is_before(sel_broker_task_at(b, head), sel_broker_task_at(b, best)))
            best = head;
        break;
    }
    return best;
}
