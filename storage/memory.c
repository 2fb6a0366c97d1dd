#include <pthread.h>
#include <stdatomic.h>

#include "core/buf.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/mem.h"
#include "storage/args.h"
#include "storage/builtin.h"
#include "storage/key.h"

/* Threads that store at the same time rarely meet in one of so many. */
#define SHARDS 64 /* a power of two */
#define BUCKETS_MIN 16
#define CACHE_LINE 64

/* One allocation a result: 24 bytes, the key (24 to 25 for the engine's own ids), the value. Flow,
 * task and arguments are not kept: nothing reads them back. */
struct record {
    struct record *next;
    uint32_t hash;
    uint32_t key_n;
    size_t value_n;
    uint8_t bytes[]; /* key, then value */
};

struct shard {
    pthread_mutex_t lock;
    struct record **buckets;
    uint32_t bucket_count; /* 0 or a power of two */
    uint32_t count;
    char padding[CACHE_LINE - 56 % CACHE_LINE]; /* shards do not share a line more than by chance */
};

struct memory {
    struct sel_storage base;
    bool echo, echo_to_stderr, echo_json;
    void (*echo_fn)(void *ctx, bool to_stderr, struct sel_str line);
    void *echo_ctx;
    pthread_mutex_t echo_lock; /* one text at a time */
    struct shard shards[SHARDS];
};

static const struct sel_pos nowhere;
static const char what[] = "InMemoryStorage";

/* The key of an item and where it belongs. The low bits of the hash choose the shard, the others
 * the bucket. */
struct place {
    struct sel_storage_key key;
    uint32_t hash;
    struct shard *shard;
};

static bool place_of(struct memory *memory, struct sel_storage_item *item, struct place *ret)
{
    if (!sel_storage_key_encode(item->id, &ret->key)) {
        item->status = SEL_STORE_FAILED;
        item->message = SEL_STORAGE_KEY_REFUSED;
        return false;
    }
    uint64_t hash = sel_hash_bytes(ret->key.bytes, ret->key.n, 0);
    ret->shard = &memory->shards[hash % SHARDS];
    ret->hash = (uint32_t)(hash >> 32);
    return true;
}

/* The link that points to the record, or to the NULL at the end of its chain. */
static struct record **find_locked(struct shard *shard, const struct place *place)
{
    struct record **link = &shard->buckets[place->hash & (shard->bucket_count - 1)];
    while (*link && ((*link)->hash != place->hash || (*link)->key_n != place->key.n ||
                     memcmp((*link)->bytes, place->key.bytes, place->key.n) != 0))
        link = &(*link)->next;
    return link;
}

static bool grow_locked(struct shard *shard)
{
    if (shard->count < shard->bucket_count)
        return true;
    uint32_t count = shard->bucket_count ? shard->bucket_count * 2 : BUCKETS_MIN;
    if (count <= shard->bucket_count) /* 2^31 records in one shard */
        return false;
    struct record **buckets = sel_mem_zalloc(count * sizeof(struct record *));
    if (!buckets)
        return false;
    for (uint32_t b = 0; b < shard->bucket_count; b++)
        for (struct record *r = shard->buckets[b], *next; r; r = next) {
            next = r->next;
            r->next = buckets[r->hash & (count - 1)];
            buckets[r->hash & (count - 1)] = r;
        }
    sel_mem_free(shard->buckets);
    shard->buckets = buckets;
    shard->bucket_count = count;
    return true;
}

static struct record *record_new(const struct place *place, struct sel_str value)
{
    size_t n = sizeof(struct record) + place->key.n;
    if (__builtin_add_overflow(n, value.n, &n))
        return NULL;
    struct record *record = sel_mem_alloc(n);
    if (!record)
        return NULL;
    *record = (struct record){.hash = place->hash, .key_n = place->key.n, .value_n = value.n};
    memcpy(record->bytes, place->key.bytes, place->key.n);
    if (value.n)
        memcpy(record->bytes + place->key.n, value.p, value.n);
    return record;
}

static enum sel_store_status insert_locked(struct shard *shard, const struct place *place,
                                           struct record **take_record)
{
    if (shard->count > 0 && *find_locked(shard, place))
        return SEL_STORE_EXISTS;
    if (!*take_record || !grow_locked(shard))
        return SEL_STORE_FAILED;
    struct record **bucket = &shard->buckets[place->hash & (shard->bucket_count - 1)];
    (*take_record)->next = *bucket;
    *bucket = *take_record;
    *take_record = NULL;
    shard->count++;
    return SEL_STORE_OK;
}

/* ---- echo ---- */

static struct sel_value decoded(struct sel_arena *arena, struct sel_str bytes)
{
    struct sel_value v = sel_value_null;
    /* A damaged value is shown as null. */
    if (bytes.n && sel_value_decode(arena, bytes.p, bytes.n, false, &v, NULL) < 0)
        return sel_value_null;
    return v;
}

static void echo(struct memory *memory, const struct sel_value *v)
{
    struct sel_buf text = {0};
    sel_json_write(v, memory->echo_json ? SEL_JSON_SORT | SEL_JSON_PRETTY : SEL_JSON_SPACED, &text);
    if (sel_buf_error(&text) == 0) { /* else there is no memory for it: an echo is no promise */
        pthread_mutex_lock(&memory->echo_lock);
        memory->echo_fn(memory->echo_ctx, memory->echo_to_stderr, sel_buf_str(&text));
        pthread_mutex_unlock(&memory->echo_lock);
    }
    sel_buf_done(&text);
}

static void echo_value(struct memory *memory, struct sel_str value)
{
    struct sel_arena arena = {0};
    struct sel_value v = decoded(&arena, value);
    echo(memory, &v);
    sel_arena_done(&arena);
}

static void echo_record(struct memory *memory, const struct sel_storage_item *item)
{
    struct sel_arena arena = {0};
    struct sel_value_builder b;
    struct sel_value v;
    sel_value_begin_map(&b, &arena);
    sel_value_put_c(&b, "node_args", decoded(&arena, item->node_args));
    sel_value_put_c(&b, "task_name", sel_value_from_str(item->task));
    sel_value_put_c(&b, "flow_name", sel_value_from_str(item->flow));
    sel_value_put_c(&b, "task_id", sel_value_from_str(item->id));
    sel_value_put_c(&b, "result", decoded(&arena, item->value));
    if (sel_value_end(&b, &v) == 0)
        echo(memory, &v);
    sel_arena_done(&arena);
}

/* ---- operations ---- */

static void store_one(struct memory *memory, struct sel_storage_item *item)
{
    struct place place;
    if (!place_of(memory, item, &place))
        return;
    struct record *record = record_new(&place, item->value); /* outside of the lock */
    pthread_mutex_lock(&place.shard->lock);
    item->status = insert_locked(place.shard, &place, &record);
    pthread_mutex_unlock(&place.shard->lock);
    sel_mem_free(record); /* NULL if it is in the table */
    if (item->status == SEL_STORE_FAILED)
        item->message = "out of memory";
    if (item->status == SEL_STORE_OK) {
        item->record_id = item->id;
        if (memory->echo)
            echo_record(memory, item);
    }
}

static int memory_store(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                        struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)io, (void)arena, (void)err;
    for (uint32_t i = 0; i < count; i++)
        store_one((struct memory *)s, &items[i]);
    return 0;
}

static void retrieve_one(struct memory *memory, struct sel_arena *arena,
                         struct sel_storage_item *item)
{
    struct place place;
    if (!place_of(memory, item, &place))
        return;
    item->status = SEL_STORE_MISSING;
    pthread_mutex_lock(&place.shard->lock);
    struct record *record = place.shard->count ? *find_locked(place.shard, &place) : NULL;
    if (record) { /* copied under the lock: a delete may free it at once */
        const uint8_t *value = record->bytes + record->key_n;
        char *copy =
            sel_arena_strdup(arena, (struct sel_str){(const char *)value, record->value_n});
        item->value = (struct sel_str){copy, record->value_n};
        item->status = copy ? SEL_STORE_OK : SEL_STORE_FAILED;
    }
    pthread_mutex_unlock(&place.shard->lock);
    if (item->status == SEL_STORE_FAILED)
        item->message = "out of memory";
    if (item->status == SEL_STORE_OK && memory->echo)
        echo_value(memory, item->value);
}

static int memory_retrieve(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                           struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)io, (void)err;
    for (uint32_t i = 0; i < count; i++)
        retrieve_one((struct memory *)s, arena, &items[i]);
    return 0;
}

static void delete_one(struct memory *memory, struct sel_storage_item *item)
{
    struct place place;
    if (!place_of(memory, item, &place))
        return;
    struct record *record = NULL;
    pthread_mutex_lock(&place.shard->lock);
    if (place.shard->count > 0) {
        struct record **link = find_locked(place.shard, &place);
        record = *link;
        if (record) {
            *link = record->next;
            place.shard->count--;
        }
    }
    pthread_mutex_unlock(&place.shard->lock);
    item->status = record ? SEL_STORE_OK : SEL_STORE_MISSING;
    sel_mem_free(record);
}

static int memory_delete(struct sel_storage *s, struct sel_io *io, struct sel_arena *arena,
                         struct sel_storage_item *items, uint32_t count, struct sel_error *err)
{
    (void)io, (void)arena, (void)err;
    for (uint32_t i = 0; i < count; i++)
        delete_one((struct memory *)s, &items[i]);
    return 0;
}

static void echo_event(struct memory *memory, const struct sel_storage_event *event)
{
    struct sel_arena arena = {0};
    struct sel_value_builder b;
    struct sel_value v;
    sel_value_begin_map(&b, &arena);
    sel_value_put_c(&b, "event", sel_value_from_str(event->name));
    sel_value_put_c(&b, "details", decoded(&arena, event->details));
    if (sel_value_end(&b, &v) == 0)
        echo(memory, &v);
    sel_arena_done(&arena);
}

static int memory_trace(struct sel_storage *s, struct sel_io *io,
                        const struct sel_storage_event *events, uint32_t count,
                        struct sel_error *err)
{
    (void)io, (void)err;
    struct memory *memory = (struct memory *)s;
    for (uint32_t i = 0; i < count && memory->echo; i++)
        echo_event(memory, &events[i]);
    return 0;
}

static void memory_close(struct sel_storage *s)
{
    struct memory *memory = (struct memory *)s;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &memory->shards[i];
        for (uint32_t b = 0; b < shard->bucket_count; b++)
            for (struct record *r = shard->buckets[b], *next; r; r = next) {
                next = r->next;
                sel_mem_free(r);
            }
        sel_mem_free(shard->buckets);
        pthread_mutex_destroy(&shard->lock);
    }
    pthread_mutex_destroy(&memory->echo_lock);
    sel_mem_free(memory);
}

static const struct sel_storage_ops_i memory_ops = {
    .retrieve = memory_retrieve,
    .store = memory_store,
    .del = memory_delete,
    .trace = memory_trace,
    .close = memory_close,
};

/* ---- opening ---- */

static int read_echo(const struct sel_value *config, bool *ret_echo, bool *ret_to_stderr,
                     struct sel_error *err)
{
    const struct sel_value *v =
        sel_value_kind(config) == SEL_MAP ? sel_value_get_c(config, "echo") : NULL;
    enum sel_kind kind = sel_value_kind(v);
    *ret_to_stderr = kind == SEL_TEXT && sel_str_eq_c(sel_value_str(v), "stderr");
    bool to_stdout = kind == SEL_TEXT && sel_str_eq_c(sel_value_str(v), "stdout");
    *ret_echo = *ret_to_stderr || to_stdout || (kind == SEL_BOOL && sel_value_bool(v));
    if (kind == SEL_NULL || kind == SEL_BOOL || *ret_echo)
        return 0;
    return sel_error_set(err, SEL_ECONFIG, nowhere,
                         "%s: 'echo' must be true, false, 'stdout' or 'stderr'", what);
}

static int read_config(struct memory *memory, const struct sel_storage_options *options,
                       struct sel_error *err)
{
    static const char *const names[] = {"echo", "json", SEL_STORAGE_ARG_RETRY};
    int r = sel_storage_args_check(what, options->config, names, SEL_COUNT(names), err);
    if (r == 0)
        r = read_echo(options->config, &memory->echo, &memory->echo_to_stderr, err);
    if (r == 0)
        r = sel_storage_arg_bool(what, options->config, "json", &memory->echo_json, err);
    if (r < 0)
        return r;
    if (memory->echo_json && !memory->echo)
        return sel_error_set(err, SEL_ECONFIG, nowhere,
                             "%s: 'json' needs 'echo': 'stdout' or 'stderr'", what);
    memory->echo = memory->echo && options->echo;
    memory->echo_fn = options->echo;
    memory->echo_ctx = options->echo_ctx;
    return 0;
}

int sel_storage_memory_open(const struct sel_storage_options *options, struct sel_io *io,
                            struct sel_storage **ret, struct sel_error *err)
{
    (void)io;
    struct memory *memory = SEL_NEW(struct memory);
    if (!memory)
        return sel_error_set(err, SEL_ENOMEM, nowhere, "out of memory");
    int r = read_config(memory, options, err);
    if (r < 0) {
        sel_mem_free(memory);
        return r;
    }
    memory->base.ops = &memory_ops;
    pthread_mutex_init(&memory->echo_lock, NULL);
    for (uint32_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&memory->shards[i].lock, NULL);
    *ret = &memory->base;
    return 0;
}
