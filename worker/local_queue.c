#include "worker/local_queue.h"

#include "core/mem.h"

/* ---- life ---- */

static int add_queue(struct sel_local_queues *q, struct sel_str name, bool served, uint32_t *ret)
{
    uint32_t cap = q->count; /* one more each time: there are few */
    int added = sel_map_add(&q->names, name, q->count, ret);
    if (added <= 0)
        return added;
    if (!sel_mem_grow(&q->queues, &cap, (uint64_t)q->count + 1, sizeof(*q->queues)))
        return SEL_ENOMEM;
    *ret = q->count;
    q->queues[q->count++] = (struct sel_local_queue){.name = name, .served = served};
    return 0;
}

static int serve(struct sel_local_queues *q, const char *name, struct sel_error *err)
{
    uint32_t index;
    if (!sel_map_get(&q->names, sel_str_c(name), &index))
        return sel_error_set(err, SEL_EREQUEST, (struct sel_pos){0},
                             "queue '%s' is used by no task and no flow", name);
    q->queues[index].served = true;
    return 0;
}

int sel_local_queues_init(struct sel_local_queues *q, const struct sel_system *system,
                          const char *const *served, uint32_t served_count, struct sel_error *err)
{
    memset(q, 0, sizeof(*q));
    q->system = system;
    uint32_t nodes = system->task_count + system->flow_count;
    q->node_queues = sel_mem_zalloc(sizeof(*q->node_queues) * ((size_t)nodes + 1));
    q->throttle_next_us = sel_mem_zalloc(sizeof(*q->throttle_next_us) * ((size_t)nodes + 1));
    int r = q->node_queues && q->throttle_next_us ? 0 : SEL_ENOMEM;
    for (uint32_t i = 0; i < nodes && r == 0; i++) {
        struct sel_str name = sel_system_is_flow(system, i) ? sel_system_flow(system, i)->queue
                                                            : sel_system_task(system, i)->queue;
        q->throttle_next_us[i] = INT64_MIN;
        r = add_queue(q, name, served == NULL, &q->node_queues[i]);
    }
    if (r < 0)
        (void)sel_error_set(err, r, (struct sel_pos){0}, "%s", sel_error_text(r));
    for (uint32_t i = 0; i < served_count && r == 0; i++)
        r = serve(q, served[i], err);
    if (r < 0)
        sel_local_queues_done(q);
    return r;
}

void sel_local_queues_done(struct sel_local_queues *q)
{
    sel_map_done(&q->names);
    sel_mem_free(q->queues);
    sel_mem_free(q->node_queues);
    sel_mem_free(q->throttle_next_us);
    sel_mem_free(q->heap);
    memset(q, 0, sizeof(*q));
}

/* ---- throttling ---- */

static int64_t interval_us(const struct sel_system *system, uint32_t node)
{
    return sel_system_is_flow(system, node) ? sel_system_flow(system, node)->throttle_us
                                            : sel_system_task(system, node)->throttle_us;
}

int64_t sel_local_throttle_us(struct sel_local_queues *q, uint32_t node, int64_t now_us)
{
    int64_t interval = interval_us(q->system, node);
    if (interval <= 0)
        return 0;
    int64_t start = q->throttle_next_us[node] > now_us ? q->throttle_next_us[node] : now_us;
    q->throttle_next_us[node] = start > INT64_MAX - interval ? INT64_MAX : start + interval;
    return start - now_us;
}

/* ---- delays: a binary heap by time, then by serial ---- */

static bool is_before(const struct sel_work *a, const struct sel_work *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->serial < b->serial;
}

static void heap_set(struct sel_local_queues *q, uint32_t i, struct sel_work *work)
{
    q->heap[i] = work;
    work->heap_index = i;
}

static void heap_up(struct sel_local_queues *q, uint32_t i)
{
    struct sel_work *work = q->heap[i];
    while (i > 0 && is_before(work, q->heap[(i - 1) / 2])) {
        heap_set(q, i, q->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_set(q, i, work);
}

static void heap_down(struct sel_local_queues *q, uint32_t i)
{
    struct sel_work *work = q->heap[i];
    for (uint32_t child = 2 * i + 1; child < q->heap_count; child = 2 * i + 1) {
        if (child + 1 < q->heap_count && is_before(q->heap[child + 1], q->heap[child]))
            child++;
        if (!is_before(q->heap[child], work))
            break;
        heap_set(q, i, q->heap[child]);
        i = child;
    }
    heap_set(q, i, work);
}

static struct sel_work *heap_pop(struct sel_local_queues *q)
{
    struct sel_work *work = q->heap[0];
    work->heap_index = UINT32_MAX;
    if (--q->heap_count > 0) {
        heap_set(q, 0, q->heap[q->heap_count]);
        heap_down(q, 0);
    }
    return work;
}

void sel_local_remove(struct sel_local_queues *q, struct sel_work *work)
{
    uint32_t i = work->heap_index;
    if (i == UINT32_MAX)
        return;
    work->heap_index = UINT32_MAX;
    struct sel_work *last = q->heap[--q->heap_count];
    if (last == work)
        return;
    heap_set(q, i, last);
    heap_up(q, i);
    heap_down(q, last->heap_index);
}

/* ---- queues ---- */

static void append(struct sel_local_queues *q, struct sel_work *work)
{
    struct sel_local_queue *queue = &q->queues[work->queue];
    work->next = NULL;
    if (queue->last)
        queue->last->next = work;
    else
        queue->first = work;
    queue->last = work;
    queue->count++;
    if (queue->served)
        q->ready++;
    else
        q->unserved++;
}

int sel_local_push(struct sel_local_queues *q, struct sel_work *work, uint32_t node, int64_t now_us,
                   int64_t delay_us)
{
    work->queue = q->node_queues[node];
    work->heap_index = UINT32_MAX;
    if (delay_us <= 0) {
        append(q, work);
        return 0;
    }
    if (!sel_mem_grow(&q->heap, &q->heap_cap, (uint64_t)q->heap_count + 1, sizeof(*q->heap)))
        return SEL_ENOMEM;
    work->due_us = delay_us > INT64_MAX - now_us ? INT64_MAX : now_us + delay_us;
    work->serial = q->serial++;
    q->heap[q->heap_count] = work;
    heap_up(q, q->heap_count++);
    return 0;
}

int64_t sel_local_advance(struct sel_local_queues *q, int64_t now_us)
{
    while (q->heap_count > 0 && q->heap[0]->due_us <= now_us)
        append(q, heap_pop(q));
    return q->heap_count > 0 ? q->heap[0]->due_us : INT64_MAX;
}

static struct sel_work *take_first(struct sel_local_queues *q, struct sel_local_queue *queue)
{
    struct sel_work *work = queue->first;
    queue->first = work->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    if (queue->served)
        q->ready--;
    else
        q->unserved--;
    work->next = NULL;
    return work;
}

struct sel_work *sel_local_take_any(struct sel_local_queues *q)
{
    if (q->heap_count > 0)
        return heap_pop(q);
    for (uint32_t i = 0; i < q->count; i++) {
        if (q->queues[i].first)
            return take_first(q, &q->queues[i]);
    }
    return NULL;
}

struct sel_work *sel_local_pop(struct sel_local_queues *q)
{
    if (q->ready == 0)
        return NULL;
    for (uint32_t i = 0; i < q->count; i++) {
        struct sel_local_queue *queue = &q->queues[q->next];
        q->next = q->next + 1 < q->count ? q->next + 1 : 0;
        if (queue->served && queue->first)
            return take_first(q, queue);
    }
    SEL_ASSERT(q->ready == 0); /* it counts the works of served queues */
    return NULL;
}
