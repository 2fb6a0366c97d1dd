#include "core/hash.h"

#include <endian.h>

#include "core/error.h"
#include "core/mem.h"

/* Multiply-and-fold over 16 bytes at a time, the construction of wyhash (Wang Yi, public domain):
 * the 128-bit product of two words, folded, lets every bit of both reach every bit of the result.
 * The constants are odd and random. Words are little-endian on every machine, since digests made of
 * it are kept in journals: it never changes. */
#define HASH_K0 UINT64_C(0x2d358dccaa6c78a5)
#define HASH_K1 UINT64_C(0x8bb84b93962eacc9)
#define HASH_K2 UINT64_C(0x4b33a62ed433d4a3)

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

/* Up to 8 bytes as one word; unambiguous together with `n`. */
static uint64_t load_tail(const uint8_t *p, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, p, n);
    return le64toh(word);
}

uint64_t sel_hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const uint8_t *at = p;
    size_t left = n;
    uint64_t hash = seed ^ fold(seed ^ HASH_K0, HASH_K1);
    while (left > 16) {
        hash = fold(load64(at) ^ HASH_K1, load64(at + 8) ^ hash);
        at += 16;
        left -= 16;
    }
    uint64_t a = 0, b = 0;
    if (left > 8) {
        a = load64(at);
        b = load_tail(at + 8, left - 8);
    } else if (left) {
        a = load_tail(at, left);
    }
    return fold(HASH_K1 ^ n, fold(a ^ HASH_K1, b ^ hash) ^ HASH_K2);
}

struct sel_map_slot {
    struct sel_str key;
    uint32_t hash; /* 0: free */
    uint32_t value;
};

static uint32_t key_hash(struct sel_str key)
{
    uint32_t hash = (uint32_t)(sel_hash_bytes(key.p, key.n, 0) >> 32);
    return hash ? hash : 1;
}

void sel_map_done(struct sel_map *map)
{
    sel_mem_free(map->slots);
    *map = (struct sel_map){0};
}

/* The slot of the key, or the free one where it belongs. There is always a free one. */
static struct sel_map_slot *find_slot(struct sel_map_slot *slots, uint32_t cap, struct sel_str key,
                                      uint32_t hash)
{
    uint32_t i = hash & (cap - 1);
    while (slots[i].hash && (slots[i].hash != hash || !sel_str_eq(slots[i].key, key)))
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static bool grow(struct sel_map *map)
{
    if (map->cap > UINT32_MAX / 2)
        return false;
    uint32_t cap = map->cap ? map->cap * 2 : 16;
    struct sel_map_slot *slots = sel_mem_zalloc((size_t)cap * sizeof(*slots));
    if (!slots)
        return false;
    for (uint32_t i = 0; i < map->cap; i++)
        if (map->slots[i].hash)
            *find_slot(slots, cap, map->slots[i].key, map->slots[i].hash) = map->slots[i];
    sel_mem_free(map->slots);
    map->slots = slots;
    map->cap = cap;
    return true;
}

int sel_map_add(struct sel_map *map, struct sel_str key, uint32_t value, uint32_t *ret_old)
{
    /* At most three quarters full: linear probing stays at a few steps. */
    if (map->count >= map->cap - map->cap / 4 && !grow(map))
        return SEL_ENOMEM;
    uint32_t hash = key_hash(key);
    struct sel_map_slot *slot = find_slot(map->slots, map->cap, key, hash);
    if (slot->hash) {
        if (ret_old)
            *ret_old = slot->value;
        return 0;
    }
    *slot = (struct sel_map_slot){.key = key, .hash = hash, .value = value};
    map->count++;
    return 1;
}

bool sel_map_get(const struct sel_map *map, struct sel_str key, uint32_t *ret_value)
{
    if (map->count == 0)
        return false;
    const struct sel_map_slot *slot = find_slot(map->slots, map->cap, key, key_hash(key));
    if (!slot->hash)
        return false;
    *ret_value = slot->value;
    return true;
}
