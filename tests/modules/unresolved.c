/* Calls a function that no program has. */
#include <selinon/task.h>

SEL_API int sel_test_nobody_has_this(struct sel_task *task);

SEL_MODULE("unresolved", SEL_TASK("One", sel_test_nobody_has_this));
