/* worker/mpsc.h - a lock-free list: many threads push, one takes everything.
 *
 * Intrusive: an element begins with, or contains, a struct sel_mpsc_node that is the list's from
 * push until take. A stack that the consumer turns round, because a push is then one
 * compare-and-swap that cannot be caught half done, unlike a linked queue. */
#ifndef SEL_WORKER_MPSC_H
#define SEL_WORKER_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct sel_mpsc_node {
    struct sel_mpsc_node *next;
} __attribute__((may_alias)); /* an element may have a `next` of its own type in this place */

struct sel_mpsc {
    _Atomic(struct sel_mpsc_node *) head; /* newest first; zeroed is empty */
};

/* Any thread. The consumer may have freed `node` when this returns. Sequentially consistent, so
 * that a producer which then asks whether the consumer sleeps, and a consumer which says that it
 * sleeps and then asks whether the list is empty, cannot both be told no. */
static inline void sel_mpsc_push(struct sel_mpsc *list, struct sel_mpsc_node *node)
{
    struct sel_mpsc_node *head = atomic_load_explicit(&list->head, memory_order_relaxed);
    do {
        node->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&list->head, &head, node, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

static inline bool sel_mpsc_is_empty(struct sel_mpsc *list)
{
    return !atomic_load_explicit(&list->head, memory_order_seq_cst);
}

/* The consumer only: all elements, oldest first, linked by next. */
static inline struct sel_mpsc_node *sel_mpsc_take(struct sel_mpsc *list)
{
    if (!atomic_load_explicit(&list->head, memory_order_relaxed))
        return NULL;
    struct sel_mpsc_node *node = atomic_exchange_explicit(&list->head, NULL, memory_order_acquire);
    struct sel_mpsc_node *first = NULL;
    while (node) {
        struct sel_mpsc_node *next = node->next;
        node->next = first;
        first = node;
        node = next;
    }
    return first;
}

#endif
