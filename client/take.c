#include <errno.h>

#include "client/internal.h"

/* After results were taken out: it matters to the thread if brokers get credit again. */
static void unlock_after_taking(struct sel_client *client, bool was_held)
{
    if (was_held && !client->is_held)
        sel_client_unlock_and_wake(client);
    else
        sel_client_unlock(client);
}

/* Whether results may come for sel_client_next. */
static bool is_outstanding(const struct sel_client *client)
{
    uint64_t waiting = client->results.tell_pending;
    for (uint32_t i = 0; i < client->link_count; i++)
        waiting += sel_producer_waiting(client->links[i].producer);
    return waiting > client->results.kept_pending;
}

static int64_t take_batch(struct sel_client *client, struct sel_client_batch **ret,
                          int64_t timeout_us, bool listen)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    int64_t deadline_us = timeout_us > 0 ? sel_client_deadline(timeout_us) : INT64_MAX;
    bool is_over = timeout_us == 0, is_expected = true;
    sel_client_lock(client);
    client->result_waiters++;
    while (!client->results.first) {
        is_expected = listen || is_outstanding(client);
        if (!is_expected || is_over)
            break;
        is_over = !sel_client_wait_until(client, &client->news, deadline_us);
    }
    client->result_waiters--;
    bool was_held = client->is_held;
    struct sel_client_batch_all *batch = sel_client_results_take(client);
    unlock_after_taking(client, was_held);
    if (batch) {
        *ret = sel_client_results_seal(batch);
        return (*ret)->count;
    }
    return !is_expected ? 0 : timeout_us == 0 ? -EAGAIN : -ETIMEDOUT;
}

int64_t sel_client_next(struct sel_client *client, struct sel_client_batch **ret,
                        int64_t timeout_us)
{
    return take_batch(client, ret, timeout_us, false);
}

int64_t sel_client_listen(struct sel_client *client, struct sel_client_batch **ret,
                          int64_t timeout_us)
{
    return take_batch(client, ret, timeout_us, true);
}

int sel_client_wait(struct sel_client *client, const struct sel_client_id *id,
                    struct sel_client_batch **ret, int64_t timeout_us)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    int64_t deadline_us = timeout_us > 0 ? sel_client_deadline(timeout_us) : INT64_MAX;
    struct sel_id own = sel_client_id_in(id);
    struct sel_client_batch_all *batch = NULL;
    bool is_over = timeout_us == 0, is_here = false, is_kept;
    sel_client_lock(client);
    client->news_waiters++;
    while ((is_kept = sel_client_results_find(&client->results, own, &is_here)) && !is_here &&
           !is_over)
        is_over = !sel_client_wait_until(client, &client->news, deadline_us);
    client->news_waiters--;
    bool was_held = client->is_held;
    if (is_kept && is_here)
        (void)sel_client_results_drop(client, own, &batch);
    unlock_after_taking(client, was_held);
    if (!batch)
        return !is_kept ? -ENOENT : timeout_us == 0 ? -EAGAIN : -ETIMEDOUT;
    *ret = sel_client_results_seal(batch);
    return 0;
}

int sel_client_forget(struct sel_client *client, const struct sel_client_id *id)
{
    if (!sel_client_is_ours(client))
        return -ECHILD;
    struct sel_id own = sel_client_id_in(id);
    sel_client_lock(client);
    bool was_held = client->is_held;
    bool is_found = sel_client_results_drop(client, own, NULL);
    for (uint32_t i = 0; i < client->link_count; i++)
        is_found |= sel_producer_forget(client->links[i].producer, own);
    if (client->news_waiters || client->result_waiters) /* nothing may be left to wait for */
        (void)pthread_cond_broadcast(&client->news);
    unlock_after_taking(client, was_held);
    return is_found ? 0 : -ENOENT;
}
