/* Idempotency keys: which task stands for a key, and the digest of what it was submitted with. */
#include "broker/internal.h"
#include "core/mem.h"

#define BUCKETS 65536u
#define SEED_1 UINT64_C(0x73656c696e6f6e31)
#define SEED_2 UINT64_C(0x73656c696e6f6e32)

static uint64_t digest_half(const struct sel_wire_item *item, struct sel_str queue, uint64_t seed)
{
    uint64_t h = sel_hash_bytes(queue.p, queue.n, seed);
    h = sel_hash_bytes(item->task.p, item->task.n, h);
    h = sel_hash_bytes(item->content_type.p, item->content_type.n, h);
    if (item->flags & SEL_ITEM_FLOW) /* never what a task of that name is */
        h = sel_hash_bytes(item->selective.p, item->selective.n, ~h);
    return sel_hash_bytes(item->payload.p, item->payload.n, h);
}

void sel_broker_key_digest(const struct sel_wire_item *item, struct sel_str queue, uint8_t *ret)
{
    const uint64_t halves[2] = {digest_half(item, queue, SEED_1), digest_half(item, queue, SEED_2)};
    _Static_assert(sizeof(halves) == SEL_KEY_DIGEST, "both halves");
    memcpy(ret, halves, sizeof(halves));
}

static uint32_t *bucket_of(const struct sel_broker *b, struct sel_str key)
{
    return &b->key_buckets[sel_hash_bytes(key.p, key.n, SEED_1) % BUCKETS];
}

static uint32_t find(const struct sel_broker *b, struct sel_str key)
{
    if (!b->key_buckets)
        return SEL_NONE;
    for (uint32_t i = *bucket_of(b, key); i != SEL_NONE; i = b->keys[i].next) {
        if (sel_str_eq((struct sel_str){b->keys[i].key, b->keys[i].size}, key))
            return i;
    }
    return SEL_NONE;
}

uint32_t sel_broker_key_find(const struct sel_broker *b, struct sel_str key, const uint8_t *digest,
                             bool *ret_same)
{
    uint32_t i = find(b, key);
    if (i == SEL_NONE)
        return SEL_NONE;
    *ret_same = memcmp(b->keys[i].digest, digest, SEL_KEY_DIGEST) == 0;
    return b->keys[i].task;
}

static bool make_buckets(struct sel_broker *b)
{
    if (b->key_buckets)
        return true;
    b->key_buckets = sel_mem_alloc(BUCKETS * sizeof(*b->key_buckets));
    if (!b->key_buckets)
        return false;
    memset(b->key_buckets, 0xff, BUCKETS * sizeof(*b->key_buckets));
    b->key_free = SEL_NONE;
    return true;
}

int sel_broker_key_add(struct sel_broker *b, struct sel_str key, const uint8_t *digest,
                       uint32_t task)
{
    if (!make_buckets(b) ||
        !sel_mem_grow(&b->keys, &b->key_cap, (uint64_t)b->key_count + 1, sizeof(*b->keys)))
        return SEL_ENOMEM;
    char *copy = sel_pool_alloc(&b->pool, key.n);
    uint32_t i = b->key_free != SEL_NONE ? b->key_free : b->key_count;
    if (!copy || !sel_broker_table32_put(&b->keyed, task, i)) {
        sel_pool_free(&b->pool, copy, key.n);
        return SEL_ENOMEM;
    }
    if (i == b->key_count)
        b->key_count++;
    else
        b->key_free = b->keys[i].next;
    memcpy(copy, key.p, key.n);
    uint32_t *bucket = bucket_of(b, key);
    b->keys[i] =
        (struct sel_key_entry){.key = copy, .size = (uint8_t)key.n, .task = task, .next = *bucket};
    memcpy(b->keys[i].digest, digest, SEL_KEY_DIGEST);
    *bucket = i;
    sel_broker_task_at(b, task)->flags |= SEL_TASK_KEYED;
    return 0;
}

void sel_broker_key_of(const struct sel_broker *b, uint32_t task, struct sel_str *ret_key,
                       const uint8_t **ret_digest)
{
    uint32_t i = sel_broker_table32_get(&b->keyed, task);
    SEL_ASSERT(i != SEL_NONE && b->keys[i].task == task);
    *ret_key = (struct sel_str){b->keys[i].key, b->keys[i].size};
    *ret_digest = b->keys[i].digest;
}

void sel_broker_key_remove(struct sel_broker *b, uint32_t task)
{
    uint32_t i = sel_broker_table32_get(&b->keyed, task);
    SEL_ASSERT(i != SEL_NONE && b->keys[i].task == task);
    struct sel_key_entry *entry = &b->keys[i];
    uint32_t *link = bucket_of(b, (struct sel_str){entry->key, entry->size});
    while (*link != i)
        link = &b->keys[*link].next;
    *link = entry->next;
    sel_broker_table32_remove(&b->keyed, task);
    sel_pool_free(&b->pool, entry->key, entry->size);
    *entry = (struct sel_key_entry){.task = SEL_NONE, .next = b->key_free};
    b->key_free = i;
    sel_broker_task_at(b, task)->flags &= (uint8_t)~SEL_TASK_KEYED;
}

void sel_broker_keys_done(struct sel_broker *b)
{
    for (uint32_t i = 0; i < b->key_count; i++)
        sel_pool_free(&b->pool, b->keys[i].key, b->keys[i].size);
    sel_mem_free(b->keys);
    sel_mem_free(b->key_buckets);
    sel_broker_table32_done(&b->keyed);
}
