#include "core/yaml_pairs.h"

#include "core/hash.h"
#include "core/mem.h"

/* Up to this many pairs comparing keys one by one beats hashing; nearly all mappings are so. */
#define SMALL_MAX 12
#define TABLE_MIN 64

static bool is_number(const struct sel_ynode *n)
{
    return n->kind == SEL_BOOL || n->kind == SEL_INT || n->kind == SEL_FLOAT;
}

static struct sel_value number_of(const struct sel_ynode *n)
{
    return n->kind == SEL_BOOL ? sel_value_from_bool(n->b) : n->num;
}

static bool is_same_key(const struct sel_ynode *a, const struct sel_ynode *b)
{
    if (a->kind == SEL_TEXT || a->kind == SEL_BIN)
        return a->kind == b->kind && sel_str_eq(a->text, b->text);
    if (is_number(a) && is_number(b)) {
        struct sel_value x = number_of(a), y = number_of(b);
        return sel_value_equal(&x, &y);
    }
    return a->kind == SEL_NULL && b->kind == SEL_NULL;
}

static uint64_t hash_key(const struct sel_ynode *key)
{
    if (key->kind == SEL_TEXT || key->kind == SEL_BIN)
        return sel_hash_bytes(key->text.p, key->text.n, 0);
    if (!is_number(key))
        return 0;
    struct sel_value num = number_of(key);
    double d = (key->kind == SEL_BOOL ? (double)key->b : sel_value_num(&num)) + 0.0;
    return sel_hash_bytes(&d, sizeof(d), 0); /* + 0.0: of -0.0 and 0.0, which are equal, the same */
}

/* Where `key` is in the table, or the free place for it. */
static uint32_t *table_place(const struct sel_yaml_pairs *pairs, const struct sel_ynode *key)
{
    uint32_t mask = pairs->table_cap - 1;
    uint32_t i = (uint32_t)hash_key(key) & mask;
    while (pairs->table[i] != 0 && !is_same_key(pairs->items[pairs->table[i] - 1].pair.key, key))
        i = (i + 1) & mask;
    return &pairs->table[i];
}

/* Builds the table anew with room for one pair more. Its size follows this mapping alone, whatever
 * memory an earlier, larger one has left. */
static bool table_build(struct sel_yaml_pairs *pairs)
{
    uint32_t cap = TABLE_MIN;
    while (cap / 2 <= pairs->count)
        cap *= 2;
    if (cap > pairs->table_alloc) {
        uint32_t *table = sel_mem_realloc(pairs->table, cap * sizeof(*table));
        if (!table)
            return false;
        pairs->table = table;
        pairs->table_alloc = cap;
    }
    pairs->table_cap = cap;
    memset(pairs->table, 0, cap * sizeof(*pairs->table));
    for (uint32_t i = 0; i < pairs->count; i++)
        *table_place(pairs, pairs->items[i].pair.key) = i + 1;
    return true;
}

static struct sel_yaml_pair *find(const struct sel_yaml_pairs *pairs, const struct sel_ynode *key)
{
    if (pairs->count > SMALL_MAX) {
        uint32_t place = *table_place(pairs, key);
        return place ? &pairs->items[place - 1] : NULL;
    }
    for (uint32_t i = 0; i < pairs->count; i++) {
        if (is_same_key(pairs->items[i].pair.key, key))
            return &pairs->items[i];
    }
    return NULL;
}

int sel_yaml_pairs_put(struct sel_yaml_pairs *pairs, struct sel_ypair pair, bool is_own,
                       struct sel_yaml_pair **ret_old)
{
    struct sel_yaml_pair *old = find(pairs, pair.key);
    if (old) {
        *ret_old = old;
        return 0;
    }
    if (!sel_mem_grow(&pairs->items, &pairs->cap, (uint64_t)pairs->count + 1,
                      sizeof(*pairs->items)))
        return SEL_ENOMEM;
    uint32_t at = pairs->count;
    if (at == SMALL_MAX || (at > SMALL_MAX && at >= pairs->table_cap / 2)) {
        if (!table_build(pairs))
            return SEL_ENOMEM;
    }
    pairs->items[at] = (struct sel_yaml_pair){pair, is_own};
    if (at >= SMALL_MAX)
        *table_place(pairs, pair.key) = at + 1;
    pairs->count++;
    return 1;
}

void sel_yaml_pairs_done(struct sel_yaml_pairs *pairs)
{
    (void)sel_mem_free(pairs->items);
    (void)sel_mem_free(pairs->table);
    *pairs = (struct sel_yaml_pairs){0};
}
