/* worker/co.h - stackful coroutines of one thread.
 *
 * A coroutine belongs to the loop that started it and never leaves its thread. Stacks come from a
 * slab with guard pages; a coroutine that waits to start has none. co.c tells ASan and TSan of
 * each switch. Functions marked SEL_CO may suspend and are called from a coroutine only. */
#ifndef SEL_WORKER_CO_H
#define SEL_WORKER_CO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/assert.h"

#define SEL_CO /* before a prototype: may suspend, coroutine only */

#if defined(__has_feature)
#define SEL_CO_HAS_FEATURE(name) __has_feature(name)
#else
#define SEL_CO_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || SEL_CO_HAS_FEATURE(address_sanitizer)
#define SEL_CO_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || SEL_CO_HAS_FEATURE(thread_sanitizer)
#define SEL_CO_TSAN 1
#endif

/* Virtual, the guard included; only touched pages cost memory. Sanitizers make frames several
 * times larger, so there stacks are too. */
#if defined(SEL_CO_ASAN) || defined(SEL_CO_TSAN)
#define SEL_CO_STACK_SIZE ((size_t)1024 * 1024)
#else
#define SEL_CO_STACK_SIZE ((size_t)256 * 1024)
#endif
#define SEL_CO_STACKS_MAX 30000 /* a thread; before Linux 6.13 each guard costs a mapping */
#define SEL_CO_ALIVE_MAX                                                                           \
    4000000             /* coroutines of a thread, those that wait for a stack included            \
                         */
#define SEL_CO_SPACE 64 /* bytes in each coroutine for its loop */
#define SEL_CO_OVERFLOW_STATUS 70

struct sel_co;
typedef void (*sel_co_fn)(void *arg);

/* The stacks and coroutine objects of one thread. */
struct sel_co_pool;
/* `stacks_max` at most; grows as needed, and has some from the start, so that whoever waits for a
 * stack waits for a coroutine to end. NULL: out of memory. */
struct sel_co_pool *sel_co_pool_new(uint32_t stacks_max);
struct sel_co_pool *sel_co_pool_free(struct sel_co_pool *pool); /* none may be alive */
uint32_t sel_co_pool_alive(const struct sel_co_pool *pool);
uint32_t sel_co_pool_stacks(const struct sel_co_pool *pool); /* mapped so far */

/* A coroutine that will run fn(arg) at its first resume; it has no stack yet. 0, SEL_ELIMIT (too
 * many coroutines) or SEL_ENOMEM. It is freed by its return from fn. */
int sel_co_new(struct sel_co_pool *pool, sel_co_fn fn, void *arg,
               struct sel_co **ret) SEL_WARN_UNUSED;
/* Gives a new coroutine its stack; needed before the first resume. 0; SEL_ELIMIT: all
 * `stacks_max` are in use, SEL_ENOMEM: no more can be mapped; either way try again when another
 * has ended. */
int sel_co_prepare(struct sel_co *co) SEL_WARN_UNUSED;
/* Runs it until it suspends or ends; from the thread's own stack only. true: it has ended. */
bool sel_co_resume(struct sel_co *co);
/* Back to whoever resumed. */
SEL_CO void sel_co_suspend(void);
/* The running coroutine of this thread, NULL outside of one. */
struct sel_co *sel_co_current(void);

/* SEL_CO_SPACE bytes for the loop, zeroed in a new coroutine, aligned to 16; its coroutine. */
void *sel_co_space(struct sel_co *co);
struct sel_co *sel_co_of_space(void *space);
/* A word for the user of a coroutine, NULL in a new one. */
void *sel_co_user(const struct sel_co *co);
void sel_co_set_user(struct sel_co *co, void *user);

/* ---- stack overflow ----
 * Installs a handler on an alternate stack for this thread. When a fault lies in a guard page, it
 * writes one line to standard error that names what sel_co_set_name gave, and ends the process
 * with status 70 and no clean-up. Other faults take their usual way. */
int sel_co_guard_install(void) SEL_WARN_UNUSED;
void sel_co_guard_remove(void);
/* `name` is borrowed until the coroutine ends or another is set ("task 'WordCount' (id)"). */
void sel_co_set_name(struct sel_co *co, const char *name);
/* The same in `count` pieces, which are put together only when they are needed. */
void sel_co_set_name_parts(struct sel_co *co, const char *const *parts, uint32_t count);

/* ---- marks: who was at work when the process died ----
 * A thread may have a place, in memory that outlives the process, in which the mark of the
 * coroutine that it runs stands; 0: none runs, or it has none. Costs a store a switch. */
#define SEL_CO_MARK_OVERFLOW (UINT32_C(1) << 31) /* set beside the mark: its stack overflowed, */
#define SEL_CO_MARK_FAULT (UINT32_C(1) << 30)    /* or a fatal signal was this thread's own */
/* Of this thread; NULL: none. */
void sel_co_set_mark_place(uint32_t *place);
uint32_t *sel_co_mark_place(void);
/* The mark of the running coroutine from now on, less than SEL_CO_MARK_FAULT; 0: none. `pulse`
 * (NULL: none) is not 0 and changes each time it goes on; other threads may read it. */
void sel_co_set_mark(uint32_t mark, uint8_t *pulse);

#endif
