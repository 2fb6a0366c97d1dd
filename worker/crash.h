/* worker/crash.h - who was at work when a worker process died.
 *
 * A page that the process shares with its supervisor: each thread notes which task it is running
 * now, by a store or two and no system call. When the process has died, the supervisor reads who
 * was at it, and the next one tells the broker in HELLO (`crashed`). A task that waits in the ring
 * is not running, and nobody blames it.
 *
 * If the thread that got the fatal signal could still say so, only its task counts; after a SIGKILL
 * or an exit all that were running do. */
#ifndef SEL_WORKER_CRASH_H
#define SEL_WORKER_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/id.h"
#include "worker/co.h"

/* A task in a slot of a thread; what it is says the broker's record. */
struct sel_crash_task {
    struct sel_id id;
    uint64_t handle;
    uint16_t try_count, delivery;
    uint32_t on_pool; /* runs on a thread for blocking work: its mark, else 0 */
    bool is_run;      /* of a flow */
};

/* One loop thread, on a cache line of its own. */
struct sel_crash_thread {
    uint32_t running; /* mark: 1 + the slot of the task that runs, and flags; 0: none */
    uint32_t told;    /* the broker has heard of earlier crashes of this thread */
    uint8_t pad[56];
};
_Static_assert(sizeof(struct sel_crash_thread) == 64, "a cache line");

struct sel_crash_page {
    uint32_t thread_count, slot_count;
    size_t size;
    uint32_t has_ended; /* the process ends as it wants to: its exit status is meant */
    uint8_t pad[44];
    struct sel_crash_thread threads[];
    /* then thread_count * slot_count of struct sel_crash_task */
};
_Static_assert(sizeof(struct sel_crash_page) == 64, "threads begin at a cache line");

/* Shared with processes that are forked later; zeroed. NULL: out of memory. */
struct sel_crash_page *sel_crash_page_new(uint32_t thread_count, uint32_t slot_count);
struct sel_crash_page *sel_crash_page_free(struct sel_crash_page *page); /* NULL allowed */
void sel_crash_page_clear(struct sel_crash_page *page);                  /* for the next process */

static inline struct sel_crash_task *sel_crash_tasks(struct sel_crash_page *page, uint32_t thread)
{
    struct sel_crash_task *tasks =
        (struct sel_crash_task *)(void *)&page->threads[page->thread_count];
    return tasks + (size_t)thread * page->slot_count;
}

/* Fatal signals that worker/co.c does not look at leave a note in the thread's place too, then take
 * their usual way. For the whole process. */
void sel_crash_watch_signals(void);

/* Around what runs on a thread for blocking work, on that thread. */
void sel_crash_begin_on_pool(struct sel_crash_task *task, uint32_t slot);
void sel_crash_end_on_pool(struct sel_crash_task *task);

/* Appends what `thread` was running (sel_wire_put_held), at most SEL_WIRE_CRASHED_MAX records in
 * `held`, those of before included. By the supervisor, when the process is dead. How many. */
uint32_t sel_crash_collect(struct sel_crash_page *page, uint32_t thread, struct sel_buf *held);

#endif
