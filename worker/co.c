#include "worker/co.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/error.h"
#include "core/mem.h"

#if defined(SEL_CO_ASAN) || defined(SEL_CO_TSAN)
#define SANITIZED
#endif
#ifdef SEL_CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SEL_CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13: a guard in the page table, no mapping of its own */
#endif

/* More than a page: a frame of several KiB must not step over it. Also one page of 64 KiB. */
#if defined(__x86_64__)
#define GUARD_SIZE ((size_t)16 * 1024)
#else
#define GUARD_SIZE ((size_t)64 * 1024)
#endif
#define SLAB_STACKS 64u /* mapped at once; 16 MiB of addresses */
#define SLAB_SIZE (SLAB_STACKS * SEL_CO_STACK_SIZE)
#define CHUNK_COROUTINES 64u
/* Stacks begin at different cache lines. Else the hot frames of all coroutines, 256 KiB apart,
 * share a few sets of the cache: 1000 that take turns need 51 ns a switch, with colours 41. */
#define COLOUR_COUNT 32u
#define COLOUR_SIZE 64u

struct sel_co {
    void *sp;         /* while suspended */
    void *resumer_sp; /* while running: the stack of whoever resumed */
    uint8_t *stack;   /* its lowest byte; NULL before the first resume */
    struct sel_co_pool *pool;
    sel_co_fn fn;
    void *arg;
    void *user;
    const char *name;
    const char *const *name_parts; /* of the name, in place of it */
    uint32_t name_part_count;
    struct sel_co *next_free;
    uint32_t mark;
    uint8_t *pulse; /* or NULL */
#ifdef SANITIZED
    bool has_ended;
#endif
#ifdef SEL_CO_ASAN
    void *fake_stack, *resumer_fake_stack;
    const void *resumer_stack;
    size_t resumer_stack_size;
#endif
#ifdef SEL_CO_TSAN
    void *fiber, *resumer_fiber;
#endif
    _Alignas(16) uint8_t space[SEL_CO_SPACE];
};

struct chunk {
    struct chunk *next;
    struct sel_co coroutines[CHUNK_COROUTINES];
};

struct sel_co_pool {
    struct sel_co *free; /* coroutine objects */
    struct chunk *chunks;
    uint32_t alive;
    uint32_t stacks_max;
    uint32_t stack_count;      /* mapped */
    uint32_t free_stack_count; /* the last one freed is the next one used: it is in the cache */
    uint8_t **free_stacks;     /* has room for stack_count */
    uint32_t free_stacks_cap;
    uint8_t **slabs;
    uint32_t slab_count, slabs_cap;
    bool mprotect_guards; /* the kernel lacks MADV_GUARD_INSTALL */
};

/* What belongs to a thread by nature: which coroutine it runs, and its signal stack. */
static _Thread_local struct {
    struct sel_co *current;
    uint32_t *mark_place; /* NULL: none */
    uint32_t guards;      /* nested sel_co_guard_install */
    void *signal_stack;
    stack_t previous_stack;
} thread;

/* Returns, on the other stack, `message` to whoever saved to_sp. */
bool sel_co_switch(void **save_sp, void *to_sp, bool message);
void sel_co_entry(void);
__attribute__((noreturn)) void sel_co_main(struct sel_co *co);

/* ---- stacks ---- */

static int guard(struct sel_co_pool *pool, uint8_t *stack)
{
    if (!pool->mprotect_guards) {
        if (madvise(stack, GUARD_SIZE, MADV_GUARD_INSTALL) == 0)
            return 0;
        if (errno != EINVAL)
            return SEL_ENOMEM;
        pool->mprotect_guards = true;
    }
    /* Splits the mapping, which fails at vm.max_map_count. */
    return mprotect(stack, GUARD_SIZE, PROT_NONE) == 0 ? 0 : SEL_ENOMEM;
}

static int map_slab(struct sel_co_pool *pool)
{
    uint32_t count = pool->stacks_max - pool->stack_count;
    if (count == 0)
        return SEL_ELIMIT;
    if (count > SLAB_STACKS)
        count = SLAB_STACKS;
    if (!sel_mem_grow(&pool->slabs, &pool->slabs_cap, pool->slab_count + 1, sizeof(uint8_t *)) ||
        !sel_mem_grow(&pool->free_stacks, &pool->free_stacks_cap, pool->stack_count + count,
                      sizeof(uint8_t *)))
        return SEL_ENOMEM;
    uint8_t *slab = mmap(NULL, SLAB_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (slab == MAP_FAILED)
        return SEL_ENOMEM;
    /* A huge page would make one touched stack cost as much as eight. A kernel that has no huge
     * pages refuses, which is as good. */
    (void)madvise(slab, SLAB_SIZE, MADV_NOHUGEPAGE);
    for (uint32_t i = 0; i < count; i++) {
        if (guard(pool, slab + i * SEL_CO_STACK_SIZE) < 0) {
            (void)munmap(slab, SLAB_SIZE);
            return SEL_ENOMEM;
        }
    }
    pool->slabs[pool->slab_count++] = slab;
    for (uint32_t i = count; i-- > 0;)
        pool->free_stacks[pool->free_stack_count++] = slab + i * SEL_CO_STACK_SIZE;
    pool->stack_count += count;
    return 0;
}

/* Lays out what sel_co_switch pops (co_switch.S). */
static void prepare_frame(struct sel_co *co)
{
    size_t colour = ((uintptr_t)co->stack / SEL_CO_STACK_SIZE) % COLOUR_COUNT * COLOUR_SIZE;
    uint64_t *top = (uint64_t *)(void *)(co->stack + SEL_CO_STACK_SIZE - colour);
#if defined(__x86_64__)
    uint64_t *sp = top - 8;
    memset(sp, 0, 8 * sizeof(*sp));
    uint32_t mxcsr;
    uint16_t control;
    __asm__("stmxcsr %0" : "=m"(mxcsr));
    __asm__("fnstcw %0" : "=m"(control));
    sp[0] = mxcsr | (uint64_t)control << 32;
    sp[4] = (uintptr_t)co;
    sp[7] = (uintptr_t)sel_co_entry;
#else
    uint64_t *sp = top - 22;
    memset(sp, 0, 22 * sizeof(*sp));
    sp[0] = (uintptr_t)co;
    sp[11] = (uintptr_t)sel_co_entry;
    __asm__("mrs %0, fpcr" : "=r"(sp[20]));
#endif
    co->sp = sp;
}

int sel_co_prepare(struct sel_co *co)
{
    struct sel_co_pool *pool = co->pool;
    SEL_ASSERT(!co->stack);
    if (pool->free_stack_count == 0) {
        int r = map_slab(pool);
        if (r < 0)
            return r;
    }
    co->stack = pool->free_stacks[--pool->free_stack_count];
    prepare_frame(co);
#ifdef SEL_CO_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
    return 0;
}

static void release_stack(struct sel_co *co)
{
    struct sel_co_pool *pool = co->pool;
#ifdef SEL_CO_ASAN
    /* The frames of sel_co_main and below never returned, so their red zones are still marked. */
    __asan_unpoison_memory_region(co->stack + GUARD_SIZE, SEL_CO_STACK_SIZE - GUARD_SIZE);
#endif
#ifdef SEL_CO_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
    SEL_ASSERT(pool->free_stack_count < pool->stack_count);
    pool->free_stacks[pool->free_stack_count++] = co->stack;
    co->stack = NULL;
}

/* ---- pool and coroutine objects ---- */

struct sel_co_pool *sel_co_pool_new(uint32_t stacks_max)
{
    SEL_ASSERT(stacks_max >= 1 && stacks_max <= SEL_CO_STACKS_MAX);
    struct sel_co_pool *pool = SEL_NEW(struct sel_co_pool);
    if (!pool)
        return NULL;
    pool->stacks_max = stacks_max;
    if (map_slab(pool) < 0)
        return sel_co_pool_free(pool);
    return pool;
}

struct sel_co_pool *sel_co_pool_free(struct sel_co_pool *pool)
{
    if (!pool)
        return NULL;
    SEL_ASSERT(pool->alive == 0);
    SEL_ASSERT(pool->free_stack_count == pool->stack_count);
    for (uint32_t i = 0; i < pool->slab_count; i++)
        (void)munmap(pool->slabs[i], SLAB_SIZE);
    while (pool->chunks) {
        struct chunk *next = pool->chunks->next;
        sel_mem_free(pool->chunks);
        pool->chunks = next;
    }
    sel_mem_free(pool->slabs);
    sel_mem_free(pool->free_stacks);
    return sel_mem_free(pool);
}

uint32_t sel_co_pool_alive(const struct sel_co_pool *pool)
{
    return pool->alive;
}

uint32_t sel_co_pool_stacks(const struct sel_co_pool *pool)
{
    return pool->stack_count;
}

static bool grow_objects(struct sel_co_pool *pool)
{
    struct chunk *chunk = SEL_NEW(struct chunk);
    if (!chunk)
        return false;
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    for (uint32_t i = CHUNK_COROUTINES; i-- > 0;) {
        chunk->coroutines[i].pool = pool;
        chunk->coroutines[i].next_free = pool->free;
        pool->free = &chunk->coroutines[i];
    }
    return true;
}

int sel_co_new(struct sel_co_pool *pool, sel_co_fn fn, void *arg, struct sel_co **ret)
{
    SEL_ASSERT(fn);
    if (pool->alive >= SEL_CO_ALIVE_MAX)
        return SEL_ELIMIT;
    if (!pool->free && !grow_objects(pool))
        return SEL_ENOMEM;
    struct sel_co *co = pool->free;
    pool->free = co->next_free;
    *co = (struct sel_co){.pool = pool, .fn = fn, .arg = arg};
    pool->alive++;
    *ret = co;
    return 0;
}

static void free_object(struct sel_co *co)
{
    struct sel_co_pool *pool = co->pool;
    SEL_ASSERT(pool->alive > 0);
    pool->alive--;
    co->next_free = pool->free;
    pool->free = co;
}

void *sel_co_space(struct sel_co *co)
{
    return co->space;
}

struct sel_co *sel_co_of_space(void *space)
{
    return (struct sel_co *)(void *)((uint8_t *)space - offsetof(struct sel_co, space));
}

void *sel_co_user(const struct sel_co *co)
{
    return co->user;
}

void sel_co_set_user(struct sel_co *co, void *user)
{
    co->user = user;
}

void sel_co_set_name(struct sel_co *co, const char *name)
{
    co->name = name;
    co->name_part_count = 0;
}

void sel_co_set_name_parts(struct sel_co *co, const char *const *parts, uint32_t count)
{
    co->name_parts = parts;
    co->name_part_count = count;
}

/* ---- switching ---- */

#define SEL_INLINE inline __attribute__((always_inline))

/* The sanitizers keep a stack of their own for each of ours and must hear of a switch just before
 * it and just after. A NULL place for the fake stack says that the old one ends. Always inline:
 * TSan notes each entry and exit of a function, and these would enter on one stack and leave on
 * another. */

#ifdef SANITIZED
static SEL_INLINE void before_resume(struct sel_co *co)
{
#ifdef SEL_CO_ASAN
    __sanitizer_start_switch_fiber(&co->resumer_fake_stack, co->stack, SEL_CO_STACK_SIZE);
#endif
#ifdef SEL_CO_TSAN
    co->resumer_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->fiber, 0);
#endif
}

static SEL_INLINE void after_resume(struct sel_co *co)
{
#ifdef SEL_CO_ASAN
    __sanitizer_finish_switch_fiber(co->resumer_fake_stack, NULL, NULL);
#endif
    (void)co;
}
#endif

static SEL_INLINE void before_suspend(struct sel_co *co)
{
#ifdef SEL_CO_ASAN
    __sanitizer_start_switch_fiber(co->has_ended ? NULL : &co->fake_stack, co->resumer_stack,
                                   co->resumer_stack_size);
#endif
#ifdef SEL_CO_TSAN
    __tsan_switch_to_fiber(co->resumer_fiber, 0);
#endif
    (void)co;
}

static SEL_INLINE void after_suspend(struct sel_co *co)
{
#ifdef SEL_CO_ASAN
    __sanitizer_finish_switch_fiber(co->fake_stack, &co->resumer_stack, &co->resumer_stack_size);
#endif
    (void)co;
}

/* The end of a coroutine: its stack and object are for the next one. */
static void retire(struct sel_co *co)
{
    release_stack(co);
    free_object(co);
}

/* Read by another process, so that it must not stay in a register. */
static SEL_INLINE void show_mark(uint32_t mark)
{
    if (thread.mark_place)
        __atomic_store_n(thread.mark_place, mark, __ATOMIC_RELAXED);
}

static SEL_INLINE void beat_pulse(uint8_t *pulse)
{
    __atomic_store_n(pulse, (uint8_t)((*pulse + 2) | 1), __ATOMIC_RELAXED);
}

/* Nothing is left to do after the switch, which so becomes a jump, and the jump back goes straight
 * to our caller. A `ret` here would be predicted wrong each time, for the processor would expect it
 * where the coroutine called: that alone costs as much as the rest of the switch. */
bool sel_co_resume(struct sel_co *co)
{
    SEL_ASSERT(!thread.current);
    SEL_ASSERT(co->stack);
    thread.current = co;
    show_mark(co->mark);
    if (co->pulse)
        beat_pulse(co->pulse);
#ifndef SANITIZED
    return sel_co_switch(&co->resumer_sp, co->sp, false);
#else
    before_resume(co);
    bool has_ended = sel_co_switch(&co->resumer_sp, co->sp, false);
    after_resume(co);
    if (has_ended)
        retire(co);
    return has_ended;
#endif
}

void sel_co_suspend(void)
{
    struct sel_co *co = thread.current;
    SEL_ASSERT(co);
    thread.current = NULL;
    show_mark(0);
    before_suspend(co);
    (void)sel_co_switch(&co->sp, co->resumer_sp, false);
    after_suspend(co);
}

/* The bottom of every coroutine's stack, called by sel_co_entry. Not instrumented by TSan: it never
 * returns, and the call stack that TSan keeps would not end balanced. */
#ifdef SEL_CO_TSAN
__attribute__((no_sanitize("thread")))
#endif
void sel_co_main(struct sel_co *co)
{
    after_suspend(co);
    co->fn(co->arg);
    thread.current = NULL;
    show_mark(0);
    void *resumer_sp = co->resumer_sp, *nowhere;
#ifndef SANITIZED
    retire(co); /* still stands on that stack: nobody else takes it before the switch */
#else
    co->has_ended = true;
    before_suspend(co);
#endif
    (void)sel_co_switch(&nowhere, resumer_sp, true);
    __builtin_unreachable();
}

struct sel_co *sel_co_current(void)
{
    return thread.current;
}

/* ---- marks ---- */

void sel_co_set_mark_place(uint32_t *place)
{
    thread.mark_place = place;
}

uint32_t *sel_co_mark_place(void)
{
    return thread.mark_place;
}

void sel_co_set_mark(uint32_t mark, uint8_t *pulse)
{
    SEL_ASSERT(mark < SEL_CO_MARK_FAULT && thread.current);
    thread.current->mark = mark;
    thread.current->pulse = pulse;
    show_mark(mark);
    if (pulse)
        beat_pulse(pulse);
}

/* ---- stack overflow ---- */

#define SIGNAL_STACK_SIZE ((size_t)64 * 1024)

/* Signal dispositions belong to the process, so these do too. */
static struct sigaction previous_segv, previous_bus;
static atomic_flag actions_busy = ATOMIC_FLAG_INIT;
static uint32_t actions_users; /* under actions_busy */

static bool is_in_guard(const struct sel_co_pool *pool, const uint8_t *address)
{
    for (uint32_t i = 0; i < pool->slab_count; i++) {
        size_t offset = (uintptr_t)address - (uintptr_t)pool->slabs[i];
        if (offset < SLAB_SIZE)
            return offset % SEL_CO_STACK_SIZE < GUARD_SIZE;
    }
    return false;
}

static size_t append(char *line, size_t size, size_t n, const char *text)
{
    while (*text && n < size)
        line[n++] = *text++;
    return n;
}

/* Only async-signal-safe calls from here on. */
__attribute__((noreturn)) static void die_of_overflow(const struct sel_co *co)
{
    char line[512], size_text[16];
    size_t n = append(line, sizeof(line), 0, "selinon: stack overflow in ");
    /* A long name is cut, the advice behind it never. */
    for (uint32_t i = 0; i < co->name_part_count; i++)
        n = append(line, 300, n, co->name_parts[i]);
    if (co->name_part_count == 0)
        n = append(line, 300, n, co->name ? co->name : "a coroutine without a name");
    n = append(line, sizeof(line), n, ": its stack is ");
    size_t kib = SEL_CO_STACK_SIZE / 1024, at = sizeof(size_text) - 1;
    size_text[at] = '\0';
    for (; kib > 0; kib /= 10)
        size_text[--at] = (char)('0' + kib % 10);
    n = append(line, sizeof(line), n, size_text + at);
    n = append(line, sizeof(line), n,
               " KiB; use less of it, or allocate large buffers with sel_alloc\n");
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written; /* nobody is left to tell */
    _exit(SEL_CO_OVERFLOW_STATUS);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    const struct sel_co *co = thread.current;
    bool is_overflow = co && is_in_guard(co->pool, info->si_addr);
    if (thread.mark_place)
        *thread.mark_place |= is_overflow ? SEL_CO_MARK_OVERFLOW : SEL_CO_MARK_FAULT;
    if (is_overflow)
        die_of_overflow(co);
    /* Not ours: put back what was there and return, so that the fault repeats and meets it. */
    (void)sigaction(number, number == SIGSEGV ? &previous_segv : &previous_bus, NULL);
    if (info->si_code <= 0) /* somebody sent it: it comes once */
        (void)raise(number);
}

static void lock_actions(void)
{
    while (atomic_flag_test_and_set_explicit(&actions_busy, memory_order_acquire))
        ; /* held for two system calls, at the start and the end of threads */
}

static void unlock_actions(void)
{
    atomic_flag_clear_explicit(&actions_busy, memory_order_release);
}

static int install_actions(void)
{
    int r = 0;
    lock_actions();
    if (actions_users == 0) {
        struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGSEGV, &action, &previous_segv) < 0 ||
            sigaction(SIGBUS, &action, &previous_bus) < 0)
            r = -errno;
    }
    if (r == 0)
        actions_users++;
    unlock_actions();
    return r;
}

static void remove_actions(void)
{
    lock_actions();
    SEL_ASSERT(actions_users > 0);
    if (--actions_users == 0) {
        (void)sigaction(SIGSEGV, &previous_segv, NULL);
        (void)sigaction(SIGBUS, &previous_bus, NULL);
    }
    unlock_actions();
}

int sel_co_guard_install(void)
{
    if (thread.guards > 0) {
        thread.guards++;
        return 0;
    }
    void *p =
        mmap(NULL, SIGNAL_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return SEL_ENOMEM;
    stack_t stack = {.ss_sp = p, .ss_size = SIGNAL_STACK_SIZE};
    int r = sigaltstack(&stack, &thread.previous_stack) < 0 ? -errno : 0;
    if (r == 0) {
        r = install_actions();
        if (r < 0)
            (void)sigaltstack(&thread.previous_stack, NULL);
    }
    if (r < 0) {
        (void)munmap(p, SIGNAL_STACK_SIZE);
        return r;
    }
    thread.signal_stack = p;
    thread.guards = 1;
    return 0;
}

void sel_co_guard_remove(void)
{
    SEL_ASSERT(thread.guards > 0);
    if (--thread.guards > 0)
        return;
    remove_actions();
    /* A sanitizer unmaps at the end of the thread what it finds here: it must be its own. */
    (void)sigaltstack(&thread.previous_stack, NULL);
    (void)munmap(thread.signal_stack, SIGNAL_STACK_SIZE);
    thread.signal_stack = NULL;
}
