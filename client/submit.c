#include <errno.h>
#include <string.h>
#include <time.h>

#include "client/internal.h"

#define SECTION 256u /* tasks put while the lock is held */
#define LOST_LOOK_US INT64_C(500000)
#define DEFAULT_QUEUE "celery"

static int64_t unix_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct sel_client_link *link_of_hash(struct sel_client *client, const void *p, size_t n)
{
    uint32_t i =
        client->link_count == 1 ? 0 : (uint32_t)(sel_client_fnv1a(p, n) % client->link_count);
    return &client->links[i];
}

static struct sel_client_link *link_of_id(struct sel_client *client, struct sel_id id)
{
    struct sel_client_id bytes = sel_client_id_out(id);
    return link_of_hash(client, bytes.bytes, sizeof(bytes.bytes));
}

/* The id of a task: its own or a new one, which stands for the same broker as the key. */
static struct sel_id id_for(struct sel_client *client, const struct sel_client_task *task,
                            int64_t now_ms)
{
    struct sel_id id = sel_client_id_in(&task->id);
    if (id.hi | id.lo)
        return id;
    id = sel_id_next(&client->ids, now_ms);
    if (task->key.n && client->link_count > 1) {
        const struct sel_client_link *link = link_of_hash(client, task->key.p, task->key.n);
        while (link_of_id(client, id) != link) /* as many tries as there are brokers, about */
            id = sel_id_next(&client->ids, now_ms);
    }
    return id;
}

/* Programs that were built with an older header have smaller tasks. */
static struct sel_str selective_of(const struct sel_client_task *task, size_t task_size)
{
    if (task_size < offsetof(struct sel_client_task, selective) + sizeof(task->selective))
        return (struct sel_str){NULL, 0};
    return (struct sel_str){task->selective.p, task->selective.n};
}

static bool has_right_flags(const struct sel_client_task *task)
{
    const uint32_t known = SEL_CLIENT_QUIET | SEL_CLIENT_KEEP | SEL_CLIENT_TELL_SETTLED |
                           SEL_CLIENT_FLOW | SEL_CLIENT_ALL;
    bool is_quiet = task->flags & SEL_CLIENT_QUIET;
    bool is_flow = task->flags & SEL_CLIENT_FLOW;
    if (is_quiet && task->flags & (SEL_CLIENT_KEEP | SEL_CLIENT_ALL))
        return false;
    return !(task->flags & ~known) && (is_flow || !(task->flags & SEL_CLIENT_ALL));
}

static int check_task(const struct sel_client_task *task)
{
    if (task->name.n == 0 || task->name.n > SEL_WIRE_NAME_MAX ||
        task->queue.n > SEL_WIRE_NAME_MAX || task->key.n > SEL_WIRE_NAME_MAX ||
        task->content_type.n > SEL_WIRE_NAME_MAX || task->level > SEL_CLIENT_LEVEL_COMMIT ||
        task->countdown_us < 0 || !has_right_flags(task))
        return -EINVAL;
    return 0;
}

/* Tasks of one program mostly go to one queue: its number is looked up when the name changes. */
static int queue_for(struct sel_client_link *link, struct sel_str name, uint16_t *ret)
{
    if (name.n == 0)
        name = SEL_STR(DEFAULT_QUEUE);
    if (!sel_str_eq(name, link->queue)) {
        int r = sel_producer_queue(link->producer, name, &link->queue_number);
        if (r < 0) {
            link->queue.n = 0;
            return r == SEL_ERANGE ? -EINVAL : r;
        }
        memcpy(link->queue_text, name.p, name.n);
        link->queue = (struct sel_str){link->queue_text, name.n};
    }
    *ret = link->queue_number;
    return 0;
}

_Static_assert((int)SEL_CLIENT_LEVEL_COMMIT == (int)SEL_LEVEL_COMMIT,
               "levels are those of the wire");

static uint16_t item_flags(uint32_t flags)
{
    uint16_t out = 0;
    if (flags & SEL_CLIENT_QUIET)
        out |= SEL_ITEM_QUIET;
    if (flags & SEL_CLIENT_FLOW)
        out |= SEL_ITEM_FLOW;
    if (flags & SEL_CLIENT_ALL)
        out |= SEL_ITEM_ALL;
    return out;
}

/* Puts one task, locked; *ret_link is where it belongs. SEL_ELIMIT: no room there now. */
static int put_task(struct sel_client *client, const struct sel_client_task *task, size_t task_size,
                    int64_t now_ms, struct sel_id *ret_id, struct sel_client_link **ret_link)
{
    int r = check_task(task);
    if (r < 0)
        return r;
    struct sel_id id = id_for(client, task, now_ms);
    struct sel_client_link *link =
        task->key.n ? link_of_hash(client, task->key.p, task->key.n) : link_of_id(client, id);
    *ret_link = link;
    struct sel_wire_item item = {
        .type = SEL_RECORD_SUBMIT,
        .flags = item_flags(task->flags),
        .id = id,
        .priority = task->priority ? task->priority : SEL_WIRE_PRIORITY,
        .level = task->level,
        .countdown_us = (uint64_t)task->countdown_us,
        .not_before_unix_us = task->not_before_unix_us,
        .task = task->name,
        .idempotency_key = task->key,
        .content_type = task->content_type,
        .selective = selective_of(task, task_size),
        .payload = {task->args.p, task->args.n},
    };
    if (item.selective.n && !(task->flags & SEL_CLIENT_FLOW))
        return -EINVAL;
    r = queue_for(link, task->queue, &item.queue);
    if (r < 0)
        return r;
    bool keep = task->flags & SEL_CLIENT_KEEP, tell = task->flags & SEL_CLIENT_TELL_SETTLED;
    if (keep && (r = sel_client_results_keep(&client->results, id)) < 0)
        return r;
    r = sel_producer_submit(link->producer, &item, (void *)(uintptr_t)task->tag, tell);
    if (r < 0 && keep)
        (void)sel_client_results_drop(client, id, NULL);
    if (r == 0)
        client->results.tell_pending += tell;
    *ret_id = id;
    return r;
}

/* Waits, locked, for room at `link`. false: the time is over. The thread is awake. */
static bool wait_for_room(struct sel_client *client, struct sel_client_link *link,
                          int64_t deadline_us)
{
    int64_t look_us = sel_client_now_us() + LOST_LOOK_US; /* whether the broker is lost by now */
    link->is_wanted = true;
    client->room_waiters++;
    bool is_told =
        sel_client_wait_until(client, &client->room, deadline_us < look_us ? deadline_us : look_us);
    client->room_waiters--;
    return is_told || look_us < deadline_us;
}

static const struct sel_client_task *task_at(const struct sel_client_task *tasks, size_t task_size,
                                             size_t i)
{
    return (const void *)((const char *)tasks + i * task_size);
}

int64_t sel_client_put(struct sel_client *client, const struct sel_client_task *tasks,
                       size_t task_size, size_t count, struct sel_client_id *ret_ids,
                       int64_t timeout_us)
{
    int64_t deadline_us = timeout_us ? sel_client_deadline(timeout_us) : 0;
    size_t done = 0;
    int r = 0;
    while (r == 0 && done < count) {
        int64_t now_ms = unix_ms();
        struct sel_client_link *link = NULL;
        struct sel_id id;
        sel_client_lock(client);
        for (uint32_t i = 0; i < SECTION && done < count; i++) {
            r = put_task(client, task_at(tasks, task_size, done), task_size, now_ms, &id, &link);
            if (r < 0)
                break;
            if (ret_ids)
                ret_ids[done] = sel_client_id_out(id);
            done++;
        }
        if (r == SEL_ELIMIT && timeout_us) {
            if (client->is_sleeping) { /* it has what is to be sent, and we do not let go before */
                client->is_sleeping = false;
                sel_client_net_wake(client);
            }
            r = wait_for_room(client, link, deadline_us) ? 0 : -ETIMEDOUT;
        }
        sel_client_unlock_and_wake(client);
    }
    return done || count == 0 ? (int64_t)done : sel_client_errno(r);
}

int64_t sel_client_submit_many(struct sel_client *client, const struct sel_client_task *tasks,
                               size_t count, struct sel_client_id *ret_ids, int64_t timeout_us)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    return sel_client_put(client, tasks, client->task_size, count, ret_ids, timeout_us);
}

int sel_client_submit(struct sel_client *client, const struct sel_client_task *task,
                      struct sel_client_id *ret_id, int64_t timeout_us)
{
    int64_t r = sel_client_submit_many(client, task, 1, ret_id, timeout_us);
    return r < 0 ? (int)r : 0;
}

/* Puts a CANCEL or WATCH, as soon as there is room. */
static int put_when_room(struct sel_client *client,
                         int (*put)(struct sel_client_link *link, struct sel_id id, void *tag),
                         struct sel_client_link *link, struct sel_id id, uint64_t tag,
                         int64_t timeout_us)
{
    int64_t deadline_us = timeout_us ? sel_client_deadline(timeout_us) : 0;
    int r;
    while ((r = put(link, id, (void *)(uintptr_t)tag)) == SEL_ELIMIT && timeout_us)
        if (!wait_for_room(client, link, deadline_us))
            return -ETIMEDOUT;
    return sel_client_errno(r);
}

static int put_cancel(struct sel_client_link *link, struct sel_id id, void *tag)
{
    (void)tag;
    return sel_producer_cancel(link->producer, id);
}

int sel_client_cancel(struct sel_client *client, const struct sel_client_id *id, int64_t timeout_us)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    struct sel_id own = sel_client_id_in(id);
    if ((own.hi | own.lo) == 0)
        return -EINVAL;
    sel_client_lock(client);
    struct sel_client_link *link = link_of_id(client, own);
    for (uint32_t i = 0; i < client->link_count; i++)
        if (sel_producer_is_waiting(client->links[i].producer, own))
            link = &client->links[i]; /* where its key led it */
    int r = put_when_room(client, put_cancel, link, own, 0, timeout_us);
    sel_client_unlock_and_wake(client);
    return r;
}

static int put_watch(struct sel_client_link *link, struct sel_id id, void *tag)
{
    return sel_producer_watch(link->producer, id, tag, false);
}

static int put_watch_all(struct sel_client_link *link, struct sel_id id, void *tag)
{
    return sel_producer_watch(link->producer, id, tag, true);
}

int sel_client_watch(struct sel_client *client, const struct sel_client_id *id, uint64_t tag,
                     uint32_t flags, int64_t timeout_us)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    struct sel_id own = sel_client_id_in(id);
    if ((own.hi | own.lo) == 0 || (flags & ~(uint32_t)(SEL_CLIENT_KEEP | SEL_CLIENT_ALL)))
        return -EINVAL;
    bool keep = flags & SEL_CLIENT_KEEP;
    sel_client_lock(client);
    int r = keep ? sel_client_errno(sel_client_results_keep(&client->results, own)) : 0;
    if (r == 0) {
        r = put_when_room(client, flags & SEL_CLIENT_ALL ? put_watch_all : put_watch,
                          link_of_id(client, own), own, tag, timeout_us);
        if (r < 0 && keep)
            (void)sel_client_results_drop(client, own, NULL);
    }
    sel_client_unlock_and_wake(client);
    return r;
}
