/* The tasks of selinon-bench. */
#include <selinon/task.h>

static int noop(struct sel_task *task)
{
    return sel_result(task, "{s:i}", "n", (int64_t)1);
}

/* Sleeps for `us` microseconds; what else is in the arguments is ballast. */
static int sleep_us(struct sel_task *task)
{
    int64_t us;
    SEL_TRY(sel_arg_i64(task, "us", &us));
    SEL_TRY(sel_sleep(task, (double)us / 1e6));
    return sel_result(task, "{s:i}", "n", (int64_t)1);
}

/* Sleeps for a millisecond. */
static int nap(struct sel_task *task)
{
    SEL_TRY(sel_sleep(task, 1e-3));
    return sel_result(task, "{s:i}", "n", (int64_t)1);
}

/* A list of sel_task_args items. */
static int many(struct sel_task *task)
{
    int64_t count = 0;
    if (sel_value_kind(sel_task_args(task)) == SEL_INT)
        (void)sel_value_i64(sel_task_args(task), &count);
    struct sel_list *list = sel_list_begin(task);
    const struct sel_value *value;
    if (!list)
        return SEL_ERR_FAILED;
    for (int64_t i = 0; i < count; i++)
        SEL_TRY(sel_list_add(list, "i", i));
    SEL_TRY(sel_list_end(list, &value));
    return sel_result_value(task, value);
}

SEL_MODULE("bench", SEL_TASK("Noop", noop), SEL_TASK("Sleep", sleep_us), SEL_TASK("Nap", nap),
           SEL_FOREACH("many", many));
