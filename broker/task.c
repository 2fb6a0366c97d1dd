#include "broker/internal.h"
#include "core/mem.h"
#include "core/prng.h"

#define PLACE_BITS_MIN 10
#define EMPTY SEL_NONE

/* ---- the table of ids ---- */

/* The place comes from its upper bits, the lower ones tell neighbours apart: entries, which are far
 * away, are looked at only to be sure. Ids come from producers, who must not be able to choose a
 * crowd: hence the secret factors. */
static uint32_t tag_of(const struct sel_task_table *t, struct sel_id id)
{
    uint64_t h = (id.hi ^ (id.lo * t->factors[0])) * t->factors[1];
    h ^= h >> 32;
    return (uint32_t)((h * UINT64_C(0x94d049bb133111eb)) >> 32);
}

static uint32_t place_of(const struct sel_task_table *t, uint32_t tag)
{
    return tag >> (32 - t->place_bits);
}

static bool places_new(uint32_t bits, struct sel_task_place **ret)
{
    size_t count = (size_t)1 << bits;
    struct sel_task_place *places = sel_mem_alloc(count * sizeof(*places));
    if (!places)
        return false;
    memset(places, 0xff, count * sizeof(*places));
    *ret = places;
    return true;
}

static void place_put(struct sel_task_table *t, uint32_t tag, uint32_t index)
{
    uint32_t mask = (1u << t->place_bits) - 1;
    uint32_t i = place_of(t, tag);
    while (t->places[i].index != EMPTY)
        i = (i + 1) & mask;
    t->places[i] = (struct sel_task_place){tag, index};
}

static struct sel_task_entry *entry_at(const struct sel_task_table *t, uint32_t i)
{
    return &t->chunks[i >> SEL_TASK_CHUNK_BITS][i & (SEL_TASK_CHUNK - 1)];
}

/* At most 4 of 5 places are taken. */
static bool places_grow(struct sel_task_table *t)
{
    if ((uint64_t)(t->count + 1) * 5 <= ((uint64_t)4 << t->place_bits))
        return true;
    struct sel_task_place *old = t->places;
    uint32_t old_count = 1u << t->place_bits;
    if (t->place_bits == 31 || !places_new(t->place_bits + 1, &t->places)) {
        t->places = old;
        return false;
    }
    t->place_bits++;
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i].index != EMPTY)
            place_put(t, old[i].tag, old[i].index);
    }
    sel_mem_free(old);
    return true;
}

/* Removes with backward shift, so that no tombstones gather. */
static void place_remove(struct sel_task_table *t, uint32_t i)
{
    uint32_t mask = (1u << t->place_bits) - 1;
    uint32_t hole = i;
    for (uint32_t k = (i + 1) & mask; t->places[k].index != EMPTY; k = (k + 1) & mask) {
        uint32_t home = place_of(t, t->places[k].tag);
        if (((k - home) & mask) >= ((k - hole) & mask)) {
            t->places[hole] = t->places[k];
            hole = k;
        }
    }
    t->places[hole].index = EMPTY;
}

static uint32_t find_place(const struct sel_task_table *t, struct sel_id id)
{
    uint32_t tag = tag_of(t, id);
    uint32_t mask = (1u << t->place_bits) - 1;
    for (uint32_t i = place_of(t, tag); t->places[i].index != EMPTY; i = (i + 1) & mask) {
        if (t->places[i].tag == tag && sel_id_eq(entry_at(t, t->places[i].index)->id, id))
            return i;
    }
    return SEL_NONE;
}

/* ---- entries ---- */

int sel_broker_tasks_init(struct sel_task_table *t, uint64_t seed)
{
    struct sel_prng prng = {seed};
    *t = (struct sel_task_table){.free = SEL_NONE, .place_bits = PLACE_BITS_MIN};
    t->factors[0] = sel_prng_next(&prng) | 1;
    t->factors[1] = sel_prng_next(&prng) | 1;
    return places_new(PLACE_BITS_MIN, &t->places) ? 0 : SEL_ENOMEM;
}

void sel_broker_tasks_done(struct sel_task_table *t)
{
    for (uint32_t i = 0; i < t->chunk_count; i++)
        sel_mem_free(t->chunks[i]);
    sel_mem_free(t->chunks);
    sel_mem_free(t->places);
    *t = (struct sel_task_table){0};
}

static bool add_chunk(struct sel_task_table *t)
{
    if (t->chunk_count == UINT32_MAX >> SEL_TASK_CHUNK_BITS ||
        !sel_mem_grow(&t->chunks, &t->chunk_cap, (uint64_t)t->chunk_count + 1, sizeof(*t->chunks)))
        return false;
    struct sel_task_entry *chunk = sel_mem_alloc(SEL_TASK_CHUNK * sizeof(*chunk));
    if (!chunk)
        return false;
    uint32_t first = t->chunk_count << SEL_TASK_CHUNK_BITS;
    for (uint32_t i = 0; i < SEL_TASK_CHUNK; i++) {
        chunk[i].state = SEL_TASK_FREE;
        chunk[i].next = i + 1 < SEL_TASK_CHUNK ? first + i + 1 : t->free;
    }
    t->chunks[t->chunk_count++] = chunk;
    t->free = first;
    return true;
}

uint32_t sel_broker_task_find(const struct sel_broker *b, struct sel_id id)
{
    uint32_t place = find_place(&b->tasks, id);
    return place == SEL_NONE ? SEL_NONE : b->tasks.places[place].index;
}

void sel_broker_task_prefetch_id(const struct sel_broker *b, struct sel_id id)
{
    __builtin_prefetch(&b->tasks.places[place_of(&b->tasks, tag_of(&b->tasks, id))], 1);
}

void sel_broker_task_prefetch(const struct sel_broker *b, uint32_t i)
{
    if (i >> SEL_TASK_CHUNK_BITS >= b->tasks.chunk_count)
        return;
    const char *entry = (const char *)sel_broker_task_at(b, i);
    __builtin_prefetch(entry, 1);
    __builtin_prefetch(entry + 64, 1);
}

static bool is_listed(struct sel_id id)
{
    return (id.hi | id.lo) != 0;
}

uint32_t sel_broker_task_add(struct sel_broker *b, struct sel_id id)
{
    struct sel_task_table *t = &b->tasks;
    if (!places_grow(t) || (t->free == SEL_NONE && !add_chunk(t)))
        return SEL_NONE;
    uint32_t i = t->free;
    struct sel_task_entry *task = entry_at(t, i);
    t->free = task->next;
    *task = (struct sel_task_entry){
        .id = id,
        .sequence = ++b->sequence,
        .next = SEL_NONE,
        .prev = SEL_NONE,
        .holder = SEL_NONE,
        .watcher = SEL_NONE,
        .extra = SEL_NONE,
        .priority = SEL_WIRE_PRIORITY,
        .level = SEL_LEVEL_MEMORY,
        .state = SEL_TASK_ORPHAN,
        .at_us = b->now.mono_us,
    };
    if (is_listed(id))
        place_put(t, tag_of(t, id), i);
    t->count++;
    t->by_state[SEL_TASK_ORPHAN]++;
    return i;
}

void sel_broker_task_remove(struct sel_broker *b, uint32_t i)
{
    struct sel_task_table *t = &b->tasks;
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    SEL_ASSERT(task->state != SEL_TASK_FREE && !task->blob && task->extra == SEL_NONE);
    SEL_ASSERT(task->log_seq == 0 && (task->state != SEL_TASK_ENDED || task->pins == 0));
    if (is_listed(task->id))
        place_remove(t, find_place(t, task->id));
    t->by_state[task->state]--;
    task->state = SEL_TASK_FREE;
    task->next = t->free;
    t->free = i;
    t->count--;
}

void sel_broker_task_set_state(struct sel_broker *b, uint32_t i, enum sel_task_state state)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    b->tasks.by_state[task->state]--;
    b->tasks.by_state[state]++;
    task->state = (unsigned)state & 15;
}

/* ---- blobs ---- */

static bool is_in_log(const struct sel_task_entry *task)
{
    return task->log_seq != 0;
}

bool sel_broker_task_keep_blob(struct sel_broker *b, uint32_t i, struct sel_str fields,
                               struct sel_str payload)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    uint8_t **at = sel_broker_blob_at(task);
    SEL_ASSERT(!*at && fields.n <= SEL_TASK_FIELDS_MAX);
    size_t size = fields.n + payload.n;
    task->blob_size = (uint32_t)size;
    task->fields_size = (uint16_t)fields.n;
    if (size == 0)
        return true;
    /* What is in the journal need not be here too, once there is much of it. */
    if (is_in_log(task) && b->payload_bytes + size > b->options.payload_memory)
        return true;
    uint8_t *blob = sel_pool_alloc(&b->pool, size);
    if (!blob)
        return is_in_log(task);
    if (fields.n)
        memcpy(blob, fields.p, fields.n);
    if (payload.n)
        memcpy(blob + fields.n, payload.p, payload.n);
    *at = blob;
    if (is_in_log(task))
        b->payload_bytes += size;
    return true;
}

void sel_broker_task_free_blob(struct sel_broker *b, uint32_t i)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    uint8_t **at = sel_broker_blob_at(task);
    if (*at) {
        if (is_in_log(task))
            b->payload_bytes -= task->blob_size;
        sel_pool_free(&b->pool, *at, task->blob_size);
    }
    *at = NULL;
    task->blob_size = task->fields_size = 0;
}

int sel_broker_task_get_blob(struct sel_broker *b, uint32_t i, struct sel_str *ret_fields,
                             struct sel_str *ret_payload)
{
    struct sel_task_entry *task = sel_broker_task_at(b, i);
    if (task->kind == SEL_KIND_RUN && task->state != SEL_TASK_ENDED) {
        *ret_fields = (struct sel_str){(const char *)task->group->fields, task->group->fields_size};
        *ret_payload = (struct sel_str){NULL, 0};
        return 0;
    }
    const uint8_t *blob = *sel_broker_blob_at(task);
    struct sel_str all = {(const char *)blob, task->blob_size};
    if (!blob && task->blob_size) {
        SEL_ASSERT(is_in_log(task));
        int r = sel_broker_log_read(b, task->log_seq, task->log_offset, task->blob_size, &all);
        if (r < 0)
            return r;
    }
    *ret_fields = (struct sel_str){all.p, task->fields_size};
    *ret_payload = (struct sel_str){all.p ? all.p + task->fields_size : NULL,
                                    task->blob_size - task->fields_size};
    return 0;
}

struct sel_str sel_broker_task_name(struct sel_str fields)
{
    uint8_t tag;
    struct sel_str value;
    while (sel_wire_next_field(&fields, &tag, &value) > 0) {
        if (tag == SEL_FIELD_TASK)
            return value;
    }
    return (struct sel_str){NULL, 0};
}
