/* Preloaded into a process it counts the calls of the heap, those of libzmq by themselves. */
#include "perf/modules/malloc_count.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own names for what is replaced here. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

#define RANGES_MAX 4
static struct {
    uintptr_t begin, end;
} ranges[RANGES_MAX]; /* of libzmq and libstdc++ */
static unsigned range_count;
static struct sel_malloc_count before_start, *counts = &before_start;

static int note_library(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    if (!strstr(info->dlpi_name, "libzmq") && !strstr(info->dlpi_name, "libstdc++"))
        return 0;
    for (unsigned i = 0; i < info->dlpi_phnum && range_count < RANGES_MAX; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
            continue;
        ranges[range_count].begin = info->dlpi_addr + segment->p_vaddr;
        ranges[range_count].end = ranges[range_count].begin + segment->p_memsz;
        range_count++;
    }
    return 0;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("SEL_MALLOC_COUNT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    (void)dl_iterate_phdr(note_library, NULL);
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (p != MAP_FAILED)
        counts = p;
}

static void note(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    _Atomic uint64_t *count = &counts->own;
    for (unsigned i = 0; i < range_count; i++)
        if (at >= ranges[i].begin && at < ranges[i].end)
            count = &counts->libzmq;
    atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
}

#define PUBLIC __attribute__((visibility("default")))

PUBLIC void *malloc(size_t size)
{
    note(__builtin_return_address(0));
    return __libc_malloc(size);
}

PUBLIC void *calloc(size_t count, size_t size)
{
    note(__builtin_return_address(0));
    return __libc_calloc(count, size);
}

PUBLIC void *realloc(void *p, size_t size)
{
    note(__builtin_return_address(0));
    return __libc_realloc(p, size);
}

PUBLIC void *memalign(size_t align, size_t size)
{
    note(__builtin_return_address(0));
    return __libc_memalign(align, size);
}

PUBLIC void *aligned_alloc(size_t align, size_t size)
{
    note(__builtin_return_address(0));
    return __libc_memalign(align, size);
}

PUBLIC int posix_memalign(void **ret, size_t align, size_t size)
{
    note(__builtin_return_address(0));
    void *p = __libc_memalign(align, size);
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}
