/* Caches for the tests: one that works and takes its time, and some that do not. */
#include <string.h>

#include <selinon/storage.h>
#include <selinon/task.h>

#define ENTRIES 64

/* Keeps whole numbers. One instance is enough for a test. */
static struct keeper {
    int is_open;
    unsigned count;
    char ids[ENTRIES][64];
    int64_t numbers[ENTRIES];
} keeper;

static int open_keeper(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    const struct sel_value *refuse = sel_value_get_c(config, "refuse");
    if (refuse)
        return sel_fail(task, "Refused", "the configuration says so");
    memset(&keeper, 0, sizeof(keeper));
    keeper.is_open = 1;
    *ret_self = &keeper;
    return 0;
}

static void close_keeper(void *self)
{
    ((struct keeper *)self)->is_open = 0;
}

SEL_API int sel_test_keeper_is_open(void);
int sel_test_keeper_is_open(void)
{
    return keeper.is_open;
}

static int find(const struct keeper *k, const char *id)
{
    for (unsigned i = 0; i < k->count; i++)
        if (strcmp(k->ids[i], id) == 0)
            return (int)i;
    return -1;
}

static int keep(struct sel_task *task, void *self, const char *id, const struct sel_value *item)
{
    struct keeper *k = self;
    int64_t number;
    SEL_TRY(sel_sleep(task, 0.0001)); /* it may suspend */
    if (k->count == ENTRIES || strlen(id) >= sizeof(k->ids[0]) || !sel_value_i64(item, &number) ||
        find(k, id) >= 0)
        return 0;
    memcpy(k->ids[k->count], id, strlen(id) + 1);
    k->numbers[k->count++] = number;
    return 0;
}

static int look_up(struct sel_task *task, void *self, const char *id, const struct sel_value **ret)
{
    const struct keeper *k = self;
    SEL_TRY(sel_sleep(task, 0.0001));
    int i = find(k, id);
    if (i < 0)
        return 0;
    SEL_TRY(sel_build(task, ret, "i", k->numbers[i]));
    return 1;
}

static int add_fails(struct sel_task *task, void *self, const char *id,
                     const struct sel_value *item)
{
    (void)self, (void)id, (void)item;
    return sel_fail(task, "Away", "nobody answers");
}

static int get_fails(struct sel_task *task, void *self, const char *id,
                     const struct sel_value **ret)
{
    (void)self, (void)id, (void)ret;
    return sel_fail(task, "Away", "nobody answers");
}

static int add_hangs(struct sel_task *task, void *self, const char *id,
                     const struct sel_value *item)
{
    (void)self, (void)id, (void)item;
    return sel_sleep(task, 3600);
}

static int get_hangs(struct sel_task *task, void *self, const char *id,
                     const struct sel_value **ret)
{
    (void)self, (void)id, (void)ret;
    return sel_sleep(task, 3600);
}

static const struct sel_cache_ops keeps = {
    .size = sizeof(keeps), .open = open_keeper, .close = close_keeper, .add = keep, .get = look_up};
static const struct sel_cache_ops away = {.size = sizeof(away),
                                          .open = open_keeper,
                                          .close = close_keeper,
                                          .add = add_fails,
                                          .get = get_fails};

static const struct sel_cache_ops hangs = {.size = sizeof(hangs),
                                           .open = open_keeper,
                                           .close = close_keeper,
                                           .add = add_hangs,
                                           .get = get_hangs};

static int seven(struct sel_task *task)
{
    return sel_result(task, "i", (int64_t)7);
}

/* Keeps a record by hand, reads it and takes it away again. */
static int keeps_by_hand(struct sel_task *task)
{
    const struct sel_value *number;
    SEL_TRY(sel_build(task, &number, "i", (int64_t)1));
    SEL_TRY(sel_storage_store(task, 0, "main", "other", "by-hand", number));
    SEL_TRY(sel_storage_retrieve(task, 0, "main", "other", "by-hand", &number));
    return sel_storage_delete(task, 0, "main", "other", "by-hand");
}

static int old_run(struct sel_task *task, const struct sel_selective_info *info)
{
    (void)info;
    return sel_result(task, "s", "an-old-run");
}

SEL_MODULE("caches", SEL_TASK("Seven", seven), SEL_TASK("KeepsByHand", keeps_by_hand),
           SEL_SELECTIVE("old_run", old_run), SEL_CACHE("Keeps", &keeps), SEL_CACHE("Away", &away),
           SEL_CACHE("Hangs", &hangs));
