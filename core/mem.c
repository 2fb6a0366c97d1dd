#include "core/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The only mutable globals of core/: allocations are failed and counted for a whole process,
 * because a test cannot know which object of it will allocate next. */
static _Atomic int64_t fail_in;
static _Atomic uint64_t alloc_count;

static bool must_fail(void)
{
    atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed);
    if (__builtin_expect(atomic_load_explicit(&fail_in, memory_order_relaxed) <= 0, 1))
        return false;
    return atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) == 1;
}

#define HUGE_PAGE ((uintptr_t)2 << 20)
#define HUGE_SIZE_MIN ((size_t)4 << 20)

/* Large blocks are filled from end to end: huge pages save most of their page faults. Advice only,
 * failure changes nothing. */
static void *advise(void *p, size_t size)
{
    if (__builtin_expect(p && size >= HUGE_SIZE_MIN, 0)) {
        uintptr_t begin = ((uintptr_t)p + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
        uintptr_t end = ((uintptr_t)p + size) & ~(HUGE_PAGE - 1);
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
    }
    return p;
}

void *sel_mem_alloc(size_t size)
{
    if (must_fail())
        return NULL;
    /* malloc(0) may be NULL, which would read as a failure */
    return advise(malloc(size ? size : 1), size);
}

void *sel_mem_zalloc(size_t size)
{
    if (must_fail())
        return NULL;
    return advise(calloc(1, size ? size : 1), size);
}

void *sel_mem_realloc(void *p, size_t size)
{
    if (must_fail())
        return NULL;
    return advise(realloc(p, size ? size : 1), size);
}

void *sel_mem_alloc_aligned(size_t align, size_t size)
{
    if (must_fail())
        return NULL;
    return advise(aligned_alloc(align, size), size);
}

void *sel_mem_free(void *p)
{
    free(p);
    return NULL;
}

bool sel_mem_grow(void *array_pp, uint32_t *cap, uint64_t need, size_t elem_size)
{
    if (need <= *cap)
        return true;
    if (need > UINT32_MAX)
        return false;
    uint64_t want = (uint64_t)*cap * 2;
    if (want < 8)
        want = 8;
    if (want < need)
        want = need;
    if (want > UINT32_MAX)
        want = UINT32_MAX;
    size_t size;
    if (__builtin_mul_overflow((size_t)want, elem_size, &size))
        return false;
    void *array; /* memcpy, because `array_pp` points to a pointer of any type */
    memcpy(&array, array_pp, sizeof(array));
    array = sel_mem_realloc(array, size);
    if (!array)
        return false;
    memcpy(array_pp, &array, sizeof(array));
    *cap = (uint32_t)want;
    return true;
}

void sel_mem_fail_at(int64_t n)
{
    atomic_store_explicit(&fail_in, n, memory_order_relaxed);
}

uint64_t sel_mem_alloc_count(void)
{
    return atomic_load_explicit(&alloc_count, memory_order_relaxed);
}
