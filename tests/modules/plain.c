/* The table as SEL_MODULE makes it. */
#include <selinon/task.h>

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

SEL_MODULE("plain", SEL_TASK("Nothing", nothing), SEL_FOREACH("Nothing", nothing));
