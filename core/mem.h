/* core/mem.h - the only way to the heap besides core/arena.c.
 *
 * tests/fault makes the n-th call fail through sel_mem_fail_at; nothing else of the project calls
 * malloc. Thread safe. */
#ifndef SEL_CORE_MEM_H
#define SEL_CORE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"

void *sel_mem_alloc(size_t size) SEL_WARN_UNUSED;  /* not zeroed; NULL on failure */
void *sel_mem_zalloc(size_t size) SEL_WARN_UNUSED; /* zeroed */
void *sel_mem_realloc(void *p, size_t size) SEL_WARN_UNUSED;
/* `align` a power of two, `size` a multiple of it. Not zeroed. */
void *sel_mem_alloc_aligned(size_t align, size_t size) SEL_WARN_UNUSED;
void *sel_mem_free(void *p); /* NULL allowed; returns NULL */

#define SEL_NEW(type) ((type *)sel_mem_zalloc(sizeof(type)))

/* Grows `*array` of `*cap` elements to hold at least `need`; doubles. false: out of memory,
 * nothing changed. New elements are not zeroed. */
bool sel_mem_grow(void *array_pp, uint32_t *cap, uint64_t need, size_t elem_size) SEL_WARN_UNUSED;

/* For tests: the n-th allocation from now fails (1: the next); 0 turns it off. Process-wide. */
void sel_mem_fail_at(int64_t n);
/* Calls of the heap so far (process-wide, relaxed). */
uint64_t sel_mem_alloc_count(void);

#endif
