/* Cannot be used on any thread. */
#include <selinon/task.h>

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int refuse(void)
{
    return -1;
}

static const struct sel_module_entry entries[] = {SEL_TASK("One", nothing)};

SEL_API const struct sel_module sel_module_table;
const struct sel_module sel_module_table = {
    .size = sizeof(struct sel_module),
    .abi = SEL_MODULE_ABI,
    .entry_size = sizeof(struct sel_module_entry),
    .entry_count = 1,
    .name = "init_fails",
    .entries = entries,
    .thread_init = refuse,
};
