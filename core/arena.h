/* core/arena.h - memory that is freed all at once.
 *
 * A zeroed `struct sel_arena` is an empty arena without a limit. Not thread safe. Memory is
 * zeroed, aligned to 16. NULL means out of memory or the limit is reached. */
#ifndef SEL_CORE_ARENA_H
#define SEL_CORE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "core/assert.h"
#include "core/str.h"

struct sel_arena_block;

struct sel_arena {
    struct sel_arena_block *head; /* newest first */
    size_t used;                  /* bytes given out */
    size_t reserved;              /* bytes taken from the heap */
    size_t limit;                 /* of `reserved`; 0: none */
};

/* `limit` in bytes, 0 for none. */
void sel_arena_init(struct sel_arena *arena, size_t limit);
/* Frees everything; the arena is empty and usable again. */
void sel_arena_done(struct sel_arena *arena);
/* Like done, but keeps the largest block for reuse. */
void sel_arena_reset(struct sel_arena *arena);

void *sel_arena_alloc(struct sel_arena *arena, size_t size) SEL_WARN_UNUSED;
/* Like alloc, but neither zeroed nor aligned beyond `align` (a power of two up to 16). */
void *sel_arena_alloc_raw(struct sel_arena *arena, size_t size, size_t align) SEL_WARN_UNUSED;
/* Copies with a terminator; NULL on failure. */
char *sel_arena_strdup(struct sel_arena *arena, struct sel_str s) SEL_WARN_UNUSED;
void *sel_arena_memdup(struct sel_arena *arena, const void *p, size_t size) SEL_WARN_UNUSED;
char *sel_arena_printf(struct sel_arena *arena, const char *fmt, ...) SEL_PRINTF(2, 3);
char *sel_arena_vprintf(struct sel_arena *arena, const char *fmt, va_list args) SEL_PRINTF(2, 0);

#define SEL_ARENA_NEW(arena, type) ((type *)sel_arena_alloc((arena), sizeof(type)))
/* NULL also if count * sizeof overflows. */
#define SEL_ARENA_NEW_ARRAY(arena, type, count)                                                    \
    ((type *)sel_arena_alloc_array((arena), (count), sizeof(type)))
void *sel_arena_alloc_array(struct sel_arena *arena, size_t count, size_t size) SEL_WARN_UNUSED;

#endif
