/* Tasks for the tests of the worker: some that behave, some that do not. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <selinon/task.h>

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int echo(struct sel_task *task)
{
    return sel_result_value(task, sel_task_args(task));
}

/* {id, dispatcher, flow, try} as the task sees them. */
static int who(struct sel_task *task)
{
    return sel_result(task, "{s:s, s:s, s:s, s:i}", "id", sel_task_id(task), "dispatcher",
                      sel_task_dispatcher_id(task), "flow", sel_task_flow_name(task), "try",
                      (int64_t)sel_task_retried_count(task));
}

/* [its parents, what the parent "Fails" failed with]. */
static int heir(struct sel_task *task)
{
    const struct sel_value *parents, *failure;
    SEL_TRY(sel_task_parents(task, &parents));
    SEL_TRY(sel_parent_exception(task, "Fails", &failure));
    return sel_result(task, "[v, v]", parents, failure);
}

/* As many seconds as its argument says, on the ring. */
static int sleeps(struct sel_task *task)
{
    double seconds;
    SEL_TRY(sel_arg_f64(task, "seconds", &seconds));
    SEL_TRY(sel_sleep(task, seconds));
    return sel_result(task, "b", 1);
}

/* The same, holding the thread. */
static int computes(struct sel_task *task)
{
    double seconds;
    SEL_TRY(sel_arg_f64(task, "seconds", &seconds));
    int64_t end_us = sel_now_us(task) + (int64_t)(seconds * 1e6);
    while (sel_now_us(task) < end_us)
        ;
    return sel_result(task, "b", 1);
}

static int fails(struct sel_task *task)
{
    return sel_fail(task, "BadInput", "try %u", (unsigned)sel_task_retried_count(task));
}

static int fails_for_good(struct sel_task *task)
{
    return sel_fail_fatal(task, "never");
}

static int asks_again(struct sel_task *task)
{
    if (sel_task_retried_count(task) < 2)
        return sel_retry(task, 0.25);
    return sel_result(task, "i", (int64_t)sel_task_retried_count(task));
}

/* A result of so many bytes. */
static int large(struct sel_task *task)
{
    int64_t size;
    SEL_TRY(sel_arg_i64(task, "size", &size));
    void *p = sel_alloc(task, (size_t)size);
    if (!p)
        return SEL_ERR_FAILED;
    return sel_result(task, "B", (struct sel_bytes){p, (size_t)size});
}

/* ---- what ends the process ---- */

static int deeper(volatile char *above, int64_t depth)
{
    volatile char here[1024];
    here[0] = (char)(above[0] + (char)depth);
    return depth == 0 ? here[0] : deeper(here, depth - 1) + here[1023];
}

static int overflows(struct sel_task *task)
{
    volatile char first[1] = {0};
    return sel_result(task, "i", (int64_t)deeper(first, INT64_C(1) << 40));
}

static int crashes(struct sel_task *task)
{
    (void)task;
    (void)raise(SIGSEGV);
    return 0;
}

static int aborts(struct sel_task *task)
{
    (void)task;
    abort();
}

static int leaves(struct sel_task *task)
{
    (void)task;
    _exit(0);
}

SEL_MODULE("worker_tasks", SEL_TASK("Nothing", nothing), SEL_TASK("Echo", echo),
           SEL_TASK("Who", who), SEL_TASK("Heir", heir), SEL_TASK("Sleeps", sleeps),
           SEL_TASK("Computes", computes), SEL_TASK("Fails", fails),
           SEL_TASK("FailsForGood", fails_for_good), SEL_TASK("AsksAgain", asks_again),
           SEL_TASK("Large", large), SEL_TASK("Overflows", overflows), SEL_TASK("Crashes", crashes),
           SEL_TASK("Aborts", aborts), SEL_TASK("Leaves", leaves), SEL_FOREACH("dies", aborts));
