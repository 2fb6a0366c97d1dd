/* tests/support/in_loop.h - runs a test's function as a coroutine on a loop of its own, or plainly
 * on the thread: everything of the task API must behave the same in both. */
#ifndef SEL_TESTS_IN_LOOP_H
#define SEL_TESTS_IN_LOOP_H

#include "core/error.h"
#include "worker/loop.h"
#include "worker/offload.h"

struct sel_in_loop {
    void (*fn)(void *arg);
    void *arg;
    struct sel_loop *loop;
};

static inline void sel_in_loop_main(void *arg)
{
    struct sel_in_loop *main = arg;
    main->fn(main->arg);
    sel_loop_stop(main->loop);
}

/* Until fn and every coroutine that it started have ended. */
static inline void sel_in_loop(void (*fn)(void *arg), void *arg)
{
    struct sel_error err = {0};
    struct sel_offload *offload = sel_offload_new(2, 16);
    SEL_ASSERT(offload);
    struct sel_loop_options options = {.ring_entries = 64, .stacks_max = 256, .offload = offload};
    struct sel_in_loop main = {fn, arg, NULL};
    SEL_ASSERT(sel_loop_new(&options, &main.loop, &err) == 0);
    SEL_ASSERT(sel_loop_spawn(main.loop, sel_in_loop_main, &main, NULL) == 0);
    sel_loop_run(main.loop);
    sel_loop_free(main.loop);
    sel_offload_free(offload);
}

static inline void sel_in_both(void (*fn)(void *arg), void *arg)
{
    fn(arg);
    sel_in_loop(fn, arg);
}

#endif
