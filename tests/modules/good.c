/* A module with one function of every kind, as a user would write it. */
#include <selinon/storage.h>
#include <selinon/task.h>

static int greet(struct sel_task *task)
{
    const char *name;
    SEL_TRY(sel_arg_str(task, "name", &name));
    return sel_result(task, "{s:s, s:i}", "greeting", name, "retried",
                      (int64_t)sel_task_retried_count(task));
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

/* Sets the flag whose address is in its arguments when it has ended. */
static int defers(struct sel_task *task)
{
    int64_t address;
    SEL_TRY(sel_arg_i64(task, "flag", &address));
    SEL_TRY(sel_defer(task, set_flag, (void *)(intptr_t)address));
    return sel_fail(task, "Deliberate", "failed after deferring");
}

static int sleeps(struct sel_task *task)
{
    double seconds;
    SEL_TRY(sel_arg_f64(task, "seconds", &seconds));
    return sel_sleep(task, seconds);
}

static int thread_init_count;

static int thread_count(struct sel_task *task)
{
    return sel_result(task, "i", (int64_t)__atomic_load_n(&thread_init_count, __ATOMIC_SEQ_CST));
}

SEL_API int sel_test_thread_count(void);
int sel_test_thread_count(void)
{
    return __atomic_load_n(&thread_init_count, __ATOMIC_SEQ_CST);
}

static int numbers(struct sel_task *task)
{
    return sel_result(task, "[i, i, i]", (int64_t)1, (int64_t)2, (int64_t)3);
}

static int reuse(struct sel_task *task, const struct sel_selective_info *info)
{
    return sel_result(task, "s", info->node_name);
}

static int is_odd(struct sel_task *task, const struct sel_value *input,
                  const struct sel_value *args)
{
    (void)task;
    (void)args;
    int64_t i;
    return sel_value_kind(input) == SEL_INT && sel_value_i64(input, &i) && i % 2 != 0;
}

static int hourly(struct sel_task *task, const struct sel_sampling_status *status,
                  const struct sel_value *args, double *ret)
{
    (void)task;
    (void)status;
    (void)args;
    *ret = 3600.0;
    return 0;
}

static int watch(uint32_t event, const char *event_name, const struct sel_value *details)
{
    (void)event;
    (void)event_name;
    (void)details;
    return 0;
}

/* A storage that has no record at all, and a cache that keeps nothing. */
static int open_nothing(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    (void)task;
    (void)config;
    *ret_self = NULL;
    return 0;
}

static void close_nothing(void *self)
{
    (void)self;
}

static int all_missing(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)task;
    (void)self;
    for (uint32_t i = 0; i < count; i++)
        items[i].status = SEL_STORE_MISSING;
    return 0;
}

static int forget(struct sel_task *task, void *self, const char *id, const struct sel_value *item)
{
    (void)task;
    (void)self;
    (void)id;
    (void)item;
    return 0;
}

static int miss(struct sel_task *task, void *self, const char *id, const struct sel_value **ret)
{
    (void)task;
    (void)self;
    (void)id;
    (void)ret;
    return 0;
}

static const struct sel_storage_ops void_storage = {.size = sizeof(void_storage),
                                                    .open = open_nothing,
                                                    .close = close_nothing,
                                                    .retrieve = all_missing,
                                                    .store = all_missing,
                                                    .del = all_missing};

static const struct sel_cache_ops void_cache = {.size = sizeof(void_cache),
                                                .open = open_nothing,
                                                .close = close_nothing,
                                                .add = forget,
                                                .get = miss};

static const struct sel_module_entry entries[] = {
    SEL_TASK("Greet", greet),
    SEL_TASK("Defers", defers),
    SEL_TASK("Sleeps", sleeps),
    SEL_TASK("ThreadCount", thread_count),
    SEL_FOREACH("numbers", numbers),
    SEL_SELECTIVE("reuse", reuse),
    SEL_PREDICATE_MESSAGE("isOdd", is_odd),
    SEL_PREDICATE_ARGS("argsIsOdd", is_odd, "key", "other"),
    SEL_PREDICATE_NONE("never", is_odd, "why"),
    SEL_SAMPLING("hourly", hourly),
    SEL_SAMPLING("every", hourly, "seconds"),
    SEL_TRACE_FUNCTION("watch", watch),
    SEL_STORAGE("VoidStorage", &void_storage),
    SEL_CACHE("VoidCache", &void_cache),
};

static int count_thread(void)
{
    __atomic_add_fetch(&thread_init_count, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void uncount_thread(void)
{
    __atomic_sub_fetch(&thread_init_count, 1, __ATOMIC_SEQ_CST);
}

SEL_API const struct sel_module sel_module_table;
const struct sel_module sel_module_table = {
    .size = sizeof(struct sel_module),
    .abi = SEL_MODULE_ABI,
    .entry_size = sizeof(struct sel_module_entry),
    .entry_count = sizeof(entries) / sizeof(entries[0]),
    .name = "good",
    .entries = entries,
    .thread_init = count_thread,
    .thread_done = uncount_thread,
};
