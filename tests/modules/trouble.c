/* Code that hangs, answers rubbish or fails, for the tests of what the executor does about it. */
#include <math.h>
#include <time.h>

#include <selinon/storage.h>
#include <selinon/task.h>

static int hangs(struct sel_task *task)
{
    return sel_sleep(task, 3600);
}

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int fails(struct sel_task *task)
{
    return sel_fail(task, "Deliberate", "as it is for");
}

static int counts(struct sel_task *task)
{
    return sel_result(task, "{s:i}", "n", (int64_t)1);
}

/* Never lets the thread look up. */
static int computes(struct sel_task *task)
{
    const struct timespec wait = {0, 30 * 1000 * 1000};
    (void)task;
    (void)nanosleep(&wait, 0);
    return 0;
}

/* The first run in the process keeps its thread busy, so that much has come together when the
 * thread looks up; the others hang. */
static int holds_up(struct sel_task *task)
{
    static int run_count;
    const struct timespec wait = {0, 200 * 1000 * 1000};
    if (__atomic_fetch_add(&run_count, 1, __ATOMIC_RELAXED) == 0)
        (void)nanosleep(&wait, 0);
    return sel_sleep(task, 3600);
}

static int numbers(struct sel_task *task)
{
    int64_t count;
    const struct sel_value *all;
    SEL_TRY(sel_arg_i64(task, "count", &count));
    struct sel_list *list = sel_list_begin(task);
    if (!list)
        return SEL_ERR_FAILED;
    for (int64_t i = 0; i < count; i++)
        SEL_TRY(sel_list_add(list, "i", i));
    SEL_TRY(sel_list_end(list, &all));
    return sel_result_value(task, all);
}

static int hanging_predicate(struct sel_task *task, const struct sel_value *input,
                             const struct sel_value *args)
{
    (void)input, (void)args;
    return sel_sleep(task, 3600);
}

static int hanging_selective(struct sel_task *task, const struct sel_selective_info *info)
{
    (void)info;
    return sel_sleep(task, 3600);
}

static int hanging_sampling(struct sel_task *task, const struct sel_sampling_status *status,
                            const struct sel_value *args, double *ret)
{
    (void)status, (void)args;
    *ret = 1;
    return sel_sleep(task, 3600);
}

static int nan_sampling(struct sel_task *task, const struct sel_sampling_status *status,
                        const struct sel_value *args, double *ret)
{
    (void)task, (void)status, (void)args;
    *ret = NAN;
    return 0;
}

static int asks_for_a_retry(struct sel_task *task)
{
    return sel_retry(task, 1);
}

/* ---- storages ---- */

static int open_plain(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    (void)task, (void)config;
    *ret_self = 0;
    return 0;
}

static void close_plain(void *self)
{
    (void)self;
}

static int store_ok(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)task, (void)self;
    for (uint32_t i = 0; i < count; i++)
        items[i].status = SEL_STORE_OK;
    return 0;
}

/* Says that it found everything, and gives nothing. */
static int retrieve_nothing(struct sel_task *task, void *self, struct sel_record *items,
                            uint32_t count)
{
    (void)task, (void)self;
    for (uint32_t i = 0; i < count; i++)
        items[i].status = SEL_STORE_OK;
    return 0;
}

static int odd_status(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)task, (void)self;
    for (uint32_t i = 0; i < count; i++)
        items[i].status = (enum sel_store_status)77;
    return 0;
}

static int always_away(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)self, (void)items, (void)count;
    return sel_fail(task, "Unreachable", "the storage is away");
}

static int hanging(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)self, (void)items, (void)count;
    return sel_sleep(task, 3600);
}

#define STORAGE(name, store_fn, retrieve_fn)                                                       \
    static const struct sel_storage_ops name = {.size = sizeof(name),                              \
                                                .open = open_plain,                                \
                                                .close = close_plain,                              \
                                                .retrieve = (retrieve_fn),                         \
                                                .store = (store_fn),                               \
                                                .del = store_ok}

STORAGE(empty_handed, store_ok, retrieve_nothing);
STORAGE(odd, odd_status, odd_status);
STORAGE(away, store_ok, always_away);
STORAGE(slow, store_ok, hanging);

SEL_MODULE("trouble", SEL_TASK("Hangs", hangs), SEL_TASK("Nothing", nothing),
           SEL_TASK("Fails", fails), SEL_TASK("Computes", computes), SEL_TASK("Counts", counts),
           SEL_TASK("HoldsUp", holds_up), SEL_FOREACH("numbers", numbers),
           SEL_FOREACH("hangs", hangs), SEL_FOREACH("retries", asks_for_a_retry),
           SEL_SELECTIVE("hangingSelective", hanging_selective),
           SEL_PREDICATE_ARGS("hangingPredicate", hanging_predicate),
           SEL_SAMPLING("hangingSampling", hanging_sampling),
           SEL_SAMPLING("nanSampling", nan_sampling), SEL_STORAGE("EmptyHanded", &empty_handed),
           SEL_STORAGE("Odd", &odd), SEL_STORAGE("Away", &away), SEL_STORAGE("Slow", &slow));
