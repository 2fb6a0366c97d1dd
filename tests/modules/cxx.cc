/* The macros of module.h in C++. */
#include <selinon/task.h>

static int nothing(struct sel_task *task)
{
    return sel_result(task, "n");
}

static int is_odd(struct sel_task *, const struct sel_value *input, const struct sel_value *)
{
    int64_t i;
    return sel_value_kind(input) == SEL_INT && sel_value_i64(input, &i) && i % 2 != 0;
}

SEL_MODULE("cxx", SEL_TASK("Nothing", nothing), SEL_PREDICATE_MESSAGE("isOdd", is_odd),
           SEL_PREDICATE_ARGS("argsIsOdd", is_odd, "key", "other"));
