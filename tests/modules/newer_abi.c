/* Built for a newer minor version of the interface. */
#include <selinon/task.h>

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static const struct sel_module_entry entries[] = {
    {SEL_MODULE_TASK, "One", 0, 0, 0, {nothing}},
    {SEL_MODULE_TASK, "Two", 0, 0, 0, {nothing}},
};

SEL_API const struct sel_module sel_module_table;
const struct sel_module sel_module_table = {sizeof(struct sel_module),
                                            SEL_MODULE_ABI + 1,
                                            sizeof(struct sel_module_entry),
                                            2,
                                            "newer_abi",
                                            entries,
                                            0,
                                            0,
                                            0};
