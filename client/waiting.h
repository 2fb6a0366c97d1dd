/* client/waiting.h - the tasks that a producer waits for, by id.
 *
 * Open addressing with linear probing, kept in the order of the places where entries belong ("robin
 * hood"): a search ends early and a removal moves little, without marks for what was removed. An id
 * belongs where its low bits say, as ids of one maker count there and so lie side by side; if that
 * makes long searches (ids that others made up), places are mixed from then on. Not thread safe. */
#ifndef SEL_CLIENT_WAITING_H
#define SEL_CLIENT_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/id.h"

#define SEL_WAITING_NUMBER_MAX (UINT64_MAX >> 1)
struct sel_waiting_entry {
    struct sel_id id; /* 0: free */
    void *tag;
    uint64_t number : 63;
    uint64_t is_all : 1; /* its owner's; false when it is added */
};

/* Zeroed is empty. */
struct sel_waiting {
    struct sel_waiting_entry *entries;
    uint32_t cap; /* 0 or a power of two */
    uint32_t count;
    bool is_mixed;
};

void sel_waiting_done(struct sel_waiting *waiting);
/* 0; SEL_EEXISTS, SEL_ENOMEM. `id` is not 0. */
int sel_waiting_add(struct sel_waiting *waiting, struct sel_id id, void *tag,
                    uint64_t number) SEL_WARN_UNUSED;
/* NULL: not there. Lives until something is added or removed. */
struct sel_waiting_entry *sel_waiting_get(const struct sel_waiting *waiting, struct sel_id id);
/* `entry` of sel_waiting_get. */
void sel_waiting_remove(struct sel_waiting *waiting, struct sel_waiting_entry *entry);

#endif
