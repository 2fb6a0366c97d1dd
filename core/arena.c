#include "core/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"

/* Under AddressSanitizer what is not given out is poisoned, and a gap follows each piece, so that
 * overruns and uses after a reset are found although the heap sees whole blocks only. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define ARENA_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#define ARENA_GAP 16u
#define ARENA_ALIGN_MIN 8u /* one shadow byte stands for 8 bytes */
#else
#define ARENA_POISON(p, n) ((void)(p), (void)(n))
#define ARENA_UNPOISON(p, n) ((void)(p), (void)(n))
#define ARENA_GAP 0u
#define ARENA_ALIGN_MIN 1u
#endif

#define ARENA_ALIGN 16u
#define ARENA_BLOCK_MIN ((size_t)1024)
#define ARENA_BLOCK_MAX ((size_t)1 << 20) /* larger pieces get a block of their own */

struct sel_arena_block {
    struct sel_arena_block *next;
    size_t size; /* of data */
    size_t used;
    alignas(ARENA_ALIGN) unsigned char data[];
};

void sel_arena_init(struct sel_arena *arena, size_t limit)
{
    *arena = (struct sel_arena){.limit = limit};
}

static void free_block(struct sel_arena_block *block)
{
    ARENA_UNPOISON(block->data, block->size);
    sel_mem_free(block);
}

void sel_arena_done(struct sel_arena *arena)
{
    struct sel_arena_block *block = arena->head;
    while (block) {
        struct sel_arena_block *next = block->next;
        free_block(block);
        block = next;
    }
    sel_arena_init(arena, arena->limit);
}

void sel_arena_reset(struct sel_arena *arena)
{
    struct sel_arena_block *kept = arena->head;
    if (!kept)
        return;
    for (struct sel_arena_block *block = kept->next; block; block = block->next)
        if (block->size > kept->size)
            kept = block;
    struct sel_arena_block *block = arena->head;
    while (block) {
        struct sel_arena_block *next = block->next;
        if (block != kept)
            free_block(block);
        block = next;
    }
    kept->next = NULL;
    kept->used = 0;
    ARENA_POISON(kept->data, kept->size);
    arena->head = kept;
    arena->used = 0;
    arena->reserved = sizeof(*kept) + kept->size;
}

/* The size of the next block for a piece of `size` bytes, 0 if the limit forbids it. Blocks double
 * with what the arena holds: little for a small one, few calls for a large one. */
static size_t next_block_size(const struct sel_arena *arena, size_t size)
{
    size_t need = sizeof(struct sel_arena_block) + size;
    size_t want = arena->reserved;
    if (want < ARENA_BLOCK_MIN)
        want = ARENA_BLOCK_MIN;
    if (want > ARENA_BLOCK_MAX)
        want = ARENA_BLOCK_MAX;
    if (want < need)
        want = need;
    if (arena->limit) {
        size_t room = arena->limit > arena->reserved ? arena->limit - arena->reserved : 0;
        if (need > room)
            return 0;
        if (want > room)
            want = room;
    }
    return want;
}

static __attribute__((noinline)) void *alloc_in_new_block(struct sel_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL; /* the sums below would overflow */
    size_t total = next_block_size(arena, size + ARENA_GAP);
    struct sel_arena_block *block = total ? sel_mem_alloc(total) : NULL;
    if (!block)
        return NULL;
    block->size = total - sizeof(*block);
    block->used = size + ARENA_GAP;
    ARENA_POISON(block->data, block->size);
    arena->reserved += total;
    arena->used += size;
    struct sel_arena_block *head = arena->head;
    if (head && head->size - head->used > block->size - block->used) {
        block->next = head->next; /* the old block has more room left: it stays first */
        head->next = block;
    } else {
        block->next = head;
        arena->head = block;
    }
    ARENA_UNPOISON(block->data, size);
    return block->data;
}

void *sel_arena_alloc_raw(struct sel_arena *arena, size_t size, size_t align)
{
    SEL_ASSERT(align - 1 < ARENA_ALIGN && (align & (align - 1)) == 0);
    if (align < ARENA_ALIGN_MIN)
        align = ARENA_ALIGN_MIN;
    if (size == 0)
        size = 1; /* NULL means failure */
    struct sel_arena_block *block = arena->head;
    if (block) {
        size_t at = (block->used + align - 1) & ~(align - 1);
        if (at <= block->size && size <= SIZE_MAX / 2 && size + ARENA_GAP <= block->size - at) {
            block->used = at + size + ARENA_GAP;
            arena->used += size;
            ARENA_UNPOISON(block->data + at, size);
            return block->data + at;
        }
    }
    return alloc_in_new_block(arena, size);
}

void *sel_arena_alloc(struct sel_arena *arena, size_t size)
{
    void *p = sel_arena_alloc_raw(arena, size, ARENA_ALIGN);
    return p ? memset(p, 0, size) : NULL;
}

void *sel_arena_alloc_array(struct sel_arena *arena, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    return sel_arena_alloc(arena, total);
}

char *sel_arena_strdup(struct sel_arena *arena, struct sel_str s)
{
    if (s.n == SIZE_MAX)
        return NULL;
    char *copy = sel_arena_alloc_raw(arena, s.n + 1, 1);
    if (!copy)
        return NULL;
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

void *sel_arena_memdup(struct sel_arena *arena, const void *p, size_t size)
{
    void *copy = sel_arena_alloc_raw(arena, size, ARENA_ALIGN);
    if (copy && size)
        memcpy(copy, p, size);
    return copy;
}

char *sel_arena_vprintf(struct sel_arena *arena, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *text = n < 0 ? NULL : sel_arena_alloc_raw(arena, (size_t)n + 1, 1);
    if (text)
        (void)vsnprintf(text, (size_t)n + 1, fmt, again); /* the size is known to fit */
    va_end(again);
    return text;
}

char *sel_arena_printf(struct sel_arena *arena, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = sel_arena_vprintf(arena, fmt, args);
    va_end(args);
    return text;
}
