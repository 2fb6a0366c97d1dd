/* A module that ends the process if a thread calls it outside of its thread_init and thread_done.
 */
#include <selinon/storage.h>
#include <selinon/task.h>

static _Thread_local bool is_ready;

static void check(void)
{
    if (!is_ready)
        __builtin_trap();
}

static int begin_thread(void)
{
    if (is_ready)
        __builtin_trap();
    is_ready = true;
    return 0;
}

static void end_thread(void)
{
    check();
    is_ready = false;
}

static int nothing(struct sel_task *task)
{
    (void)task;
    check();
    return 0;
}

static int watch(uint32_t event, const char *name, const struct sel_value *details)
{
    (void)event, (void)name, (void)details;
    check();
    return 0;
}

static int open_it(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    (void)task, (void)config;
    check();
    *ret_self = 0;
    return 0;
}

static void close_it(void *self)
{
    (void)self;
    check();
}

static int accept_all(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)task, (void)self;
    check();
    for (uint32_t i = 0; i < count; i++)
        items[i].status = SEL_STORE_OK;
    return 0;
}

static int keep_event(struct sel_task *task, void *self, const char *event,
                      const struct sel_value *details)
{
    (void)task, (void)self, (void)event, (void)details;
    check();
    return 0;
}

static const struct sel_storage_ops storage = {.size = sizeof(storage),
                                               .open = open_it,
                                               .close = close_it,
                                               .retrieve = accept_all,
                                               .store = accept_all,
                                               .del = accept_all,
                                               .trace = keep_event};

static const struct sel_module_entry entries[] = {
    SEL_TASK("Nothing", nothing),
    SEL_TRACE_FUNCTION("watch", watch),
    SEL_STORAGE("Storage", &storage),
};

SEL_API const struct sel_module sel_module_table;
const struct sel_module sel_module_table = {
    .size = sizeof(struct sel_module),
    .abi = SEL_MODULE_ABI,
    .entry_size = sizeof(struct sel_module_entry),
    .entry_count = sizeof(entries) / sizeof(entries[0]),
    .name = "picky",
    .entries = entries,
    .thread_init = begin_thread,
    .thread_done = end_thread,
};
