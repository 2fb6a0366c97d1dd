#include "broker/internal.h"
#include "core/mem.h"

#define BITS_MIN 6

static uint32_t place_of(const struct sel_table32 *t, uint32_t key)
{
    return (key * UINT32_C(0x9e3779b1)) >> (32 - t->bits);
}

void sel_broker_table32_done(struct sel_table32 *t)
{
    sel_mem_free(t->keys);
    sel_mem_free(t->values);
    *t = (struct sel_table32){0};
}

static void put(struct sel_table32 *t, uint32_t key, uint32_t value)
{
    uint32_t mask = (1u << t->bits) - 1, i = place_of(t, key);
    while (t->values[i] != SEL_NONE && t->keys[i] != key)
        i = (i + 1) & mask;
    if (t->values[i] == SEL_NONE)
        t->count++;
    t->keys[i] = key;
    t->values[i] = value;
}

static bool grow(struct sel_table32 *t)
{
    struct sel_table32 old = *t, new = {.bits = t->keys ? t->bits + 1 : BITS_MIN};
    size_t size = sizeof(uint32_t) << new.bits;
    new.keys = sel_mem_alloc(size);
    new.values = sel_mem_alloc(size);
    if (!new.keys || !new.values) {
        sel_broker_table32_done(&new);
        return false;
    }
    memset(new.values, 0xff, size);
    for (uint32_t i = 0; old.keys && i < 1u << old.bits; i++) {
        if (old.values[i] != SEL_NONE)
            put(&new, old.keys[i], old.values[i]);
    }
    sel_broker_table32_done(&old);
    *t = new;
    return true;
}

bool sel_broker_table32_put(struct sel_table32 *t, uint32_t key, uint32_t value)
{
    if ((!t->keys || t->count >= 1u << (t->bits - 1)) && !grow(t))
        return false;
    put(t, key, value);
    return true;
}

static uint32_t find(const struct sel_table32 *t, uint32_t key)
{
    if (!t->keys)
        return SEL_NONE;
    uint32_t mask = (1u << t->bits) - 1;
    for (uint32_t i = place_of(t, key); t->values[i] != SEL_NONE; i = (i + 1) & mask) {
        if (t->keys[i] == key)
            return i;
    }
    return SEL_NONE;
}

uint32_t sel_broker_table32_get(const struct sel_table32 *t, uint32_t key)
{
    uint32_t i = find(t, key);
    return i == SEL_NONE ? SEL_NONE : t->values[i];
}

void sel_broker_table32_remove(struct sel_table32 *t, uint32_t key)
{
    uint32_t hole = find(t, key);
    if (hole == SEL_NONE)
        return;
    uint32_t mask = (1u << t->bits) - 1;
    for (uint32_t k = (hole + 1) & mask; t->values[k] != SEL_NONE; k = (k + 1) & mask) {
        if (((k - place_of(t, t->keys[k])) & mask) >= ((k - hole) & mask)) {
            t->keys[hole] = t->keys[k];
            t->values[hole] = t->values[k];
            hole = k;
        }
    }
    t->values[hole] = SEL_NONE;
    t->count--;
}
