/* core/yaml_pairs.h - the pairs of one YAML mapping while merges and duplicates are worked out.
 *
 * Keeps the order in which keys first came and finds a key in constant time, however many there
 * are. Keys are equal as in the original's language: 1, 1.0 and true are one key. Used by
 * core/yaml.c only. */
#ifndef SEL_CORE_YAML_PAIRS_H
#define SEL_CORE_YAML_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/yaml.h"

struct sel_yaml_pair {
    struct sel_ypair pair;
    bool is_own; /* written in the mapping itself, not merged into it */
};

/* Zeroed is empty; so is `count = 0`, which keeps the memory for the next mapping. */
struct sel_yaml_pairs {
    struct sel_yaml_pair *items;
    uint32_t count, cap;
    uint32_t *table;      /* private: open addressing, position + 1, 0 is free */
    uint32_t table_cap;   /* private: places in use, a power of two */
    uint32_t table_alloc; /* private: places there is memory for */
};

void sel_yaml_pairs_done(struct sel_yaml_pairs *pairs);

/* 1: added; 0: the key is there, nothing changed, *ret_old is its pair, valid until the next put;
 * SEL_ENOMEM. Keys that are lists or mappings are never equal. */
int sel_yaml_pairs_put(struct sel_yaml_pairs *pairs, struct sel_ypair pair, bool is_own,
                       struct sel_yaml_pair **ret_old) SEL_WARN_UNUSED;

#endif
