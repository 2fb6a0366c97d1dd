#include "core/answers.h"

#include "core/mem.h"

void sel_answers_done(struct sel_answers *answers)
{
    sel_arena_done(&answers->arena);
    sel_mem_free(answers->items);
    sel_mem_free(answers->index);
    sel_mem_free(answers->needs);
    memset(answers, 0, sizeof(*answers));
}

void sel_answers_clear(struct sel_answers *answers)
{
    if (answers->count > 0)
        memset(answers->index, 0, sizeof(*answers->index) * answers->index_cap);
    answers->count = answers->need_count = 0;
    if (answers->arena.used > 0)
        sel_arena_reset(&answers->arena);
}

size_t sel_answers_bytes(const struct sel_answers *answers)
{
    return answers->arena.reserved + answers->cap * sizeof(*answers->items) +
           answers->index_cap * sizeof(*answers->index) +
           answers->need_cap * sizeof(*answers->needs);
}

/* ---- finding ---- */

static struct sel_answer key_of(const struct sel_need *need)
{
    struct sel_answer key = {.kind = need->kind};
    switch (need->kind) {
    case SEL_NEED_RESULT:
        key.number = need->ordinal;
        break;
    case SEL_NEED_SELECTIVE:
        key.number = need->slot;
        key.combination = need->combination.number;
        break;
    case SEL_NEED_FOREACH:
    case SEL_NEED_LEAF:
        key.combination = need->combination.number;
        key.leaf = need->leaf;
        break;
    }
    return key;
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    return h ^ h >> 29;
}

static uint64_t key_hash(const struct sel_answer *key)
{
    return mix(mix((uint64_t)key->number << 3 | (uint64_t)key->kind) + key->combination * 31 +
               (uint64_t)(uintptr_t)key->leaf);
}

static bool key_equal(const struct sel_answer *a, const struct sel_answer *b)
{
    return a->kind == b->kind && a->number == b->number && a->combination == b->combination &&
           a->leaf == b->leaf;
}

/* SEL_NONE: never asked nor answered. */
static uint32_t find_item(const struct sel_answers *answers, const struct sel_answer *key)
{
    if (answers->count == 0)
        return SEL_NONE;
    uint32_t mask = answers->index_cap - 1;
    for (uint32_t i = (uint32_t)key_hash(key) & mask; answers->index[i]; i = (i + 1) & mask) {
        uint32_t number = answers->index[i] - 1;
        if (key_equal(&answers->items[number], key))
            return number;
    }
    return SEL_NONE;
}

const struct sel_value *sel_answers_find(const struct sel_answers *answers,
                                         const struct sel_need *need)
{
    struct sel_answer key = key_of(need);
    uint32_t i = find_item(answers, &key);
    return i == SEL_NONE || answers->items[i].need ? NULL : &answers->items[i].value;
}

/* ---- adding ---- */

static void enter(struct sel_answers *answers, uint32_t number)
{
    uint32_t mask = answers->index_cap - 1;
    uint32_t i = (uint32_t)key_hash(&answers->items[number]) & mask;
    while (answers->index[i])
        i = (i + 1) & mask;
    answers->index[i] = number + 1;
}

static int grow_index(struct sel_answers *answers)
{
    uint32_t cap = answers->index_cap ? answers->index_cap * 2 : 16;
    uint32_t *index = sel_mem_zalloc(sizeof(*index) * cap);
    if (!index)
        return SEL_ENOMEM;
    sel_mem_free(answers->index);
    answers->index = index;
    answers->index_cap = cap;
    for (uint32_t i = 0; i < answers->count; i++)
        enter(answers, i);
    return 0;
}

static int add(struct sel_answers *answers, const struct sel_answer *item)
{
    if (!sel_mem_grow(&answers->items, &answers->cap, (uint64_t)answers->count + 1,
                      sizeof(*answers->items)))
        return SEL_ENOMEM;
    if ((uint64_t)answers->count * 2 + 2 > answers->index_cap && grow_index(answers) < 0)
        return SEL_ENOMEM;
    answers->items[answers->count] = *item;
    enter(answers, answers->count++);
    return 0;
}

int sel_answers_add(struct sel_answers *answers, const struct sel_need *need,
                    struct sel_value value)
{
    struct sel_answer item = key_of(need);
    item.value = value;
    return add(answers, &item);
}

void sel_answers_take(struct sel_answers *answers)
{
    /* Items are in the order in which they came: those that were asked are the last ones. */
    for (uint32_t i = answers->count; answers->need_count > 0; i--) {
        struct sel_answer *item = &answers->items[i - 1];
        if (!item->need)
            continue;
        item->value = answers->needs[item->need - 1].value;
        item->need = 0;
        answers->need_count--;
    }
}

/* ---- asking ---- */

int sel_answers_ask(struct sel_answers *answers, const struct sel_need *need,
                    const struct sel_value **ret)
{
    struct sel_answer key = key_of(need);
    uint32_t i = find_item(answers, &key);
    if (i != SEL_NONE && answers->items[i].need)
        return SEL_ENEED;
    *ret = i == SEL_NONE ? NULL : &answers->items[i].value;
    if (*ret)
        return 0;
    if (!sel_mem_grow(&answers->needs, &answers->need_cap, (uint64_t)answers->need_count + 1,
                      sizeof(*answers->needs)))
        return SEL_ENOMEM;
    struct sel_need copy = *need;
    if (copy.combination.count > 0) {
        /* the runs change while needs of further combinations are collected */
        copy.combination.runs = sel_arena_memdup(&answers->arena, need->combination.runs,
                                                 need->combination.count * sizeof(uint32_t));
        if (!copy.combination.runs)
            return SEL_ENOMEM;
    }
    key.need = answers->need_count + 1;
    int r = add(answers, &key);
    if (r < 0)
        return r;
    answers->needs[answers->need_count++] = copy;
    return SEL_ENEED;
}
