#include <stdio.h>
#include <string.h>

#include "client/internal.h"
#include "core/mem.h"

/* A batch is full at either: small enough to be handed on while the next one fills. */
#define BATCH_RESULTS_MAX 2048u
#define BATCH_BYTES_MAX ((size_t)1 << 20)

_Static_assert(sizeof(uintptr_t) >= sizeof(uint64_t), "a tag fits into a pointer");

static struct sel_client_batch_all *batch_free(struct sel_client_batch_all *batch)
{
    if (batch) {
        sel_mem_free(batch->all);
        sel_buf_done(&batch->payloads);
    }
    return sel_mem_free(batch);
}

void sel_client_batch_free(struct sel_client_batch *batch)
{
    (void)batch_free((struct sel_client_batch_all *)(void *)batch);
}

/* Appends a result with its payload, if there is memory. */
static bool batch_add(struct sel_client_batch_all *batch, const struct sel_client_result *result)
{
    if (!sel_mem_grow(&batch->all, &batch->cap, (uint64_t)batch->count + 1, sizeof(*batch->all)))
        return false;
    size_t offset = batch->payloads.n;
    if (!sel_buf_reserve(&batch->payloads, result->payload.n)) {
        batch->payloads.failed = batch->payloads.over_limit = false; /* the rest is good */
        return false;
    }
    sel_buf_put(&batch->payloads, result->payload.p, result->payload.n);
    batch->all[batch->count] = *result;
    batch->all[batch->count++].payload.p = (const void *)(uintptr_t)offset;
    return true;
}

struct sel_client_batch *sel_client_results_seal(struct sel_client_batch_all *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        struct sel_bytes *payload = &batch->all[i].payload;
        payload->p = payload->n ? batch->payloads.p + (uintptr_t)payload->p : NULL;
    }
    batch->batch = (struct sel_client_batch){batch->count, batch->all};
    return &batch->batch;
}

static uint64_t cost_of(size_t payload_size)
{
    return sizeof(struct sel_client_result) + payload_size;
}

static void count_in(struct sel_client *client, size_t payload_size)
{
    struct sel_client_results *results = &client->results;
    results->count++;
    results->bytes += cost_of(payload_size);
    if (results->bytes <= results->bytes_max || client->is_held)
        return;
    client->is_held = true;
    for (uint32_t i = 0; i < client->link_count; i++)
        sel_producer_hold(client->links[i].producer, true);
}

static void count_out(struct sel_client *client, const struct sel_client_batch_all *batch)
{
    struct sel_client_results *results = &client->results;
    results->count -= batch->count;
    results->bytes -= batch->count * cost_of(0) + batch->payloads.n;
    if (!client->is_held || results->bytes > results->bytes_max / 2)
        return;
    client->is_held = false;
    for (uint32_t i = 0; i < client->link_count; i++)
        sel_producer_hold(client->links[i].producer, false);
}

/* ---- for sel_client_next ---- */

static bool add_to_stream(struct sel_client *client, const struct sel_client_result *result)
{
    struct sel_client_results *results = &client->results;
    struct sel_client_batch_all *last = results->last;
    if (!last || last->count == BATCH_RESULTS_MAX || last->payloads.n >= BATCH_BYTES_MAX) {
        struct sel_client_batch_all *batch = SEL_NEW(struct sel_client_batch_all);
        if (!batch || !batch_add(batch, result)) {
            (void)batch_free(batch);
            return false;
        }
        *(last ? &last->next : &results->first) = batch;
        results->last = batch;
    } else if (!batch_add(last, result)) {
        return false;
    }
    count_in(client, result->payload.n);
    return true;
}

struct sel_client_batch_all *sel_client_results_take(struct sel_client *client)
{
    struct sel_client_results *results = &client->results;
    struct sel_client_batch_all *batch = results->first;
    if (!batch)
        return NULL;
    results->first = batch->next;
    if (!results->first)
        results->last = NULL;
    count_out(client, batch);
    return batch;
}

/* ---- for sel_client_wait ---- */

int sel_client_results_keep(struct sel_client_results *results, struct sel_id id)
{
    struct sel_client_kept *kept = SEL_NEW(struct sel_client_kept);
    int r = kept ? sel_waiting_add(&results->kept, id, kept, 0) : SEL_ENOMEM;
    if (r < 0)
        sel_mem_free(kept);
    else
        results->kept_pending++;
    return r;
}

bool sel_client_results_drop(struct sel_client *client, struct sel_id id,
                             struct sel_client_batch_all **ret)
{
    struct sel_client_results *results = &client->results;
    struct sel_waiting_entry *entry = sel_waiting_get(&results->kept, id);
    if (!entry)
        return false;
    struct sel_client_kept *kept = entry->tag;
    struct sel_client_batch_all *result = kept->result;
    sel_waiting_remove(&results->kept, entry);
    sel_mem_free(kept);
    if (result)
        count_out(client, result);
    else
        results->kept_pending--;
    if (ret)
        *ret = result;
    else
        (void)batch_free(result);
    return true;
}

bool sel_client_results_find(const struct sel_client_results *results, struct sel_id id,
                             bool *ret_is_here)
{
    const struct sel_waiting_entry *entry = sel_waiting_get(&results->kept, id);
    if (!entry)
        return false;
    const struct sel_client_kept *kept = entry->tag;
    *ret_is_here = kept->result != NULL;
    return true;
}

static bool add_to_kept(struct sel_client *client, struct sel_client_kept *kept,
                        const struct sel_client_result *result)
{
    struct sel_client_batch_all *batch = SEL_NEW(struct sel_client_batch_all);
    if (!batch || !batch_add(batch, result)) {
        (void)batch_free(batch);
        return false;
    }
    kept->result = batch;
    client->results.kept_pending--;
    count_in(client, result->payload.n);
    return true;
}

void sel_client_results_done(struct sel_client_results *results)
{
    struct sel_client_batch_all *next;
    for (struct sel_client_batch_all *batch = results->first; batch; batch = next) {
        next = batch->next;
        (void)batch_free(batch);
    }
    for (uint32_t i = 0; i < results->kept.cap; i++) {
        struct sel_client_kept *kept = results->kept.entries[i].tag;
        if (kept)
            (void)batch_free(kept->result);
        sel_mem_free(kept);
    }
    sel_waiting_done(&results->kept);
    results->first = results->last = NULL;
}

/* ---- what the producer says ---- */

static uint32_t status_of(const struct sel_producer_result *result)
{
    if (result->is_refused)
        return SEL_CLIENT_REFUSED;
    switch (result->code) {
    case SEL_OUTCOME_SUCCESS:
        return SEL_CLIENT_OK;
    case SEL_OUTCOME_CANCELLED:
        return SEL_CLIENT_CANCELLED;
    default:
        return SEL_CLIENT_FAILED;
    }
}

static void note_problem(struct sel_client *client, const char *text)
{
    size_t n = strnlen(text, sizeof(client->problem) - 1);
    memcpy(client->problem, text, n);
    client->problem[n] = '\0';
    if (client->log)
        client->log(client->log_ctx, text);
}

static void on_finished(void *ctx, const struct sel_producer_result *result)
{
    struct sel_client_link *link = ctx;
    struct sel_client *client = link->client;
    const struct sel_client_result out = {
        .id = sel_client_id_out(result->id),
        .tag = (uintptr_t)result->tag,
        .payload = {result->payload.p, result->payload.n},
        .status = status_of(result),
        .code = result->is_refused ? result->code : 0,
        .level = result->level,
        .try_count = result->try_count,
    };
    struct sel_waiting_entry *kept = NULL;
    if (client->results.kept_pending)
        kept = sel_waiting_get(&client->results.kept, result->id);
    if (kept ? add_to_kept(client, kept->tag, &out) : add_to_stream(client, &out))
        return;
    /* No memory for it now. The broker has it still, for a while: it is asked for it again. */
    if (sel_producer_watch(link->producer, result->id, result->tag, result->is_all) < 0)
        note_problem(client, "out of memory: a result was lost");
}

static void on_settled(void *ctx, struct sel_id id, void *tag)
{
    struct sel_client_link *link = ctx;
    struct sel_client *client = link->client;
    const struct sel_client_result out = {
        .id = sel_client_id_out(id), .tag = (uintptr_t)tag, .status = SEL_CLIENT_SETTLED};
    client->results.tell_pending--;
    if (!add_to_stream(client, &out))
        note_problem(client, "out of memory: that a task is settled was not told");
}

static void on_log(void *ctx, const char *text)
{
    struct sel_client_link *link = ctx;
    struct sel_client *client = link->client;
    struct sel_producer_stats stats;
    char line[SEL_CLIENT_ERROR_SIZE * 2];
    (void)snprintf(line, sizeof(line), "%s: %s", link->endpoint, text); /* may be cut */
    note_problem(client, line);
    sel_producer_get_stats(link->producer, &stats);
    if (stats.sessions != link->sessions_seen) /* this was the good news of one */
        client->problem[0] = '\0';
    link->sessions_seen = stats.sessions;
}

const struct sel_producer_ops sel_client_producer_ops = {
    .settled = on_settled,
    .finished = on_finished,
    .log = on_log,
};
