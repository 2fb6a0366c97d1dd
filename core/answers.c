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

const struct sel_value *sel_answers_find(const struct sel_answers *answers,
                                         const struct sel_need *need)
{
    if (answers->count == 0)
        return NULL;
    struct sel_answer key = key_of(need);
    uint32_t mask = answers->index_cap - 1;
    for (uint32_t i = (uint32_t)key_hash(&key) & mask; answers->index[i]; i = (i + 1) & mask) {
        const struct sel_answer *a = &answers->items[answers->index[i] - 1];
        if (key_equal(a, &key))
            return &a->value;
    }
    return NULL;
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

int sel_answers_add(struct sel_answers *answers, const struct sel_need *need,
                    struct sel_value value)
{
    if (!sel_mem_grow(&answers->items, &answers->cap, (uint64_t)answers->count + 1,
                      sizeof(*answers->items)))
        return SEL_ENOMEM;
    if ((uint64_t)answers->count * 2 + 2 > answers->index_cap && grow_index(answers) < 0)
        return SEL_ENOMEM;
    answers->items[answers->count] = key_of(need);
    answers->items[answers->count].value = value;
    enter(answers, answers->count++);
    return 0;
}

int sel_answers_take(struct sel_answers *answers)
{
    while (answers->need_count > 0) { /* from the end: what was taken is not taken again */
        const struct sel_need *need = &answers->needs[answers->need_count - 1];
        int r = sel_answers_add(answers, need, need->value);
        if (r < 0)
            return r;
        answers->need_count--;
    }
    return 0;
}

/* ---- asking ---- */

static bool is_noted(const struct sel_answers *answers, const struct sel_need *need)
{
    struct sel_answer key = key_of(need);
    for (uint32_t i = 0; i < answers->need_count; i++) {
        struct sel_answer other = key_of(&answers->needs[i]);
        if (key_equal(&other, &key))
            return true;
    }
    return false;
}

int sel_answers_ask(struct sel_answers *answers, const struct sel_need *need,
                    const struct sel_value **ret)
{
    *ret = sel_answers_find(answers, need);
    if (*ret)
        return 0;
    if (is_noted(answers, need))
        return SEL_ENEED;
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
    answers->needs[answers->need_count++] = copy;
    return SEL_ENEED;
}
