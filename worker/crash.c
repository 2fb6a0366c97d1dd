#include "worker/crash.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "core/assert.h"
#include "proto/wire.h"

#define SLOT_MASK (SEL_CO_MARK_FAULT - 1)
#define FLAGS (SEL_CO_MARK_OVERFLOW | SEL_CO_MARK_FAULT)

struct sel_crash_page *sel_crash_page_new(uint32_t thread_count, uint32_t slot_count)
{
    struct sel_crash_page *page;
    size_t size = sizeof(*page) + thread_count * sizeof(struct sel_crash_thread) +
                  (size_t)thread_count * slot_count * sizeof(struct sel_crash_task);
    SEL_ASSERT(slot_count < SEL_CO_MARK_FAULT);
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    page->thread_count = thread_count;
    page->slot_count = slot_count;
    page->size = size;
    return page;
}

struct sel_crash_page *sel_crash_page_free(struct sel_crash_page *page)
{
    if (page)
        (void)munmap(page, page->size);
    return NULL;
}

void sel_crash_page_clear(struct sel_crash_page *page)
{
    page->has_ended = 0;
    memset(page->threads, 0, page->size - sizeof(*page));
}

/* ---- in the process ---- */

/* SA_RESETHAND: a fault repeats and meets the default; what somebody sent comes once. */
static void on_fatal_signal(int number, siginfo_t *info, void *context)
{
    uint32_t *place = sel_co_mark_place();
    (void)context;
    if (place)
        *place |= SEL_CO_MARK_FAULT;
    if (info->si_code <= 0)
        (void)raise(number);
}

void sel_crash_watch_signals(void)
{
    static const int numbers[] = {SIGABRT, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    struct sigaction action = {.sa_sigaction = on_fatal_signal,
                               .sa_flags = (int)SA_RESETHAND | SA_ONSTACK | SA_SIGINFO};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < SEL_COUNT(numbers); i++)
        (void)sigaction(numbers[i], &action, NULL); /* cannot fail for these */
}

void sel_crash_begin_on_pool(struct sel_crash_task *task, uint32_t slot)
{
    __atomic_store_n(&task->on_pool, slot + 1, __ATOMIC_RELAXED);
    sel_co_set_mark_place(&task->on_pool);
}

void sel_crash_end_on_pool(struct sel_crash_task *task)
{
    sel_co_set_mark_place(NULL);
    __atomic_store_n(&task->on_pool, 0, __ATOMIC_RELAXED);
}

/* ---- in the supervisor ---- */

/* Whether some thread could say that the fault was its own. */
static bool has_culprit(struct sel_crash_page *page)
{
    bool found = false;
    const struct sel_crash_task *tasks = sel_crash_tasks(page, 0);
    for (uint32_t i = 0; i < page->thread_count && !found; i++)
        found = page->threads[i].running & FLAGS;
    for (size_t i = 0; i < (size_t)page->thread_count * page->slot_count && !found; i++)
        found = tasks[i].on_pool & FLAGS;
    return found;
}

static uint32_t blame(const struct sel_crash_task *task, uint32_t mark, bool culprits_only,
                      struct sel_buf *held)
{
    if (!(mark & SLOT_MASK) || (culprits_only && !(mark & FLAGS)) ||
        held->n / SEL_WIRE_HELD_SIZE >= SEL_WIRE_CRASHED_MAX)
        return 0;
    struct sel_wire_held one = {.id = task->id,
                                .handle = task->handle,
                                .try_count = task->try_count,
                                .delivery = task->delivery,
                                .is_done = mark & SEL_CO_MARK_OVERFLOW,
                                .is_run = task->is_run};
    sel_wire_put_held(held, &one);
    return 1;
}

uint32_t sel_crash_collect(struct sel_crash_page *page, uint32_t thread, struct sel_buf *held)
{
    SEL_ASSERT(thread < page->thread_count);
    const struct sel_crash_task *tasks = sel_crash_tasks(page, thread);
    bool culprits_only = has_culprit(page);
    uint32_t mark = page->threads[thread].running, slot = mark & SLOT_MASK, count = 0;
    if (slot >= 1 && slot <= page->slot_count) /* the process may have written anything there */
        count += blame(&tasks[slot - 1], mark, culprits_only, held);
    for (uint32_t i = 0; i < page->slot_count; i++)
        count += blame(&tasks[i], tasks[i].on_pool, culprits_only, held);
    return count;
}
