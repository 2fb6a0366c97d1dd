/* Tasks, a storage and sampling functions for the tests of whole flows. */
#include <string.h>

#include <selinon/storage.h>
#include <selinon/task.h>

static int fails(struct sel_task *task)
{
    return sel_fail(task, "Deliberate", "as %s does", sel_task_name(task));
}

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

/* Results in {class, message} of a failed parent, or in the class of what asking failed with. */
static int tell(struct sel_task *task, int r, const struct sel_value *exception)
{
    return r < 0 ? sel_result(task, "s", sel_error_class(task)) : sel_result(task, "v", exception);
}

static int tells_failure(struct sel_task *task)
{
    const struct sel_value *exception = NULL;
    int r = sel_parent_exception(task, "broken", &exception);
    return tell(task, r, exception);
}

static int tells_flow_failure(struct sel_task *task)
{
    static const char *const flows[] = {"inner"};
    const struct sel_value *exception = NULL;
    int r = sel_parent_flow_exception(task, flows, 1, "broken", -1, &exception);
    return tell(task, r, exception);
}

static int tells_deep_failure(struct sel_task *task)
{
    static const char *const flows[] = {"middle", "inner"};
    const struct sel_value *exception = NULL;
    int r = sel_parent_flow_exception(task, flows, 2, "broken", -1, &exception);
    return tell(task, r, exception);
}

static int failed_parents(struct sel_task *task)
{
    const struct sel_value *parents;
    SEL_TRY(sel_task_failed_parents(task, &parents));
    return sel_result(task, "i", (int64_t)sel_value_count(parents));
}

static int sleeps_long(struct sel_task *task)
{
    return sel_sleep(task, 3600);
}

/* A storage that fails as often as its configuration says ({store: n, retrieve: n, kind: "call" or
 * "item"}) before it works; all records are {x: 1}. It serves one test at a time. */
struct flaky {
    int64_t store, retrieve;
    bool by_item;
};

static struct flaky the_flaky;

static int64_t number(const struct sel_value *config, const char *key)
{
    const struct sel_value *v = sel_value_get_c(config, key);
    int64_t i = 0;
    return v && sel_value_kind(v) == SEL_INT && sel_value_i64(v, &i) ? i : 0;
}

static int flaky_open(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    (void)task;
    the_flaky = (struct flaky){.store = number(config, "store"),
                               .retrieve = number(config, "retrieve"),
                               .by_item = number(config, "by_item") != 0};
    *ret_self = &the_flaky;
    return 0;
}

static void flaky_close(void *self)
{
    (void)self;
}

static int flaky_call(struct sel_task *task, struct flaky *f, int64_t *left,
                      struct sel_record *items, uint32_t count)
{
    const struct sel_value *record;
    bool works = *left == 0;
    if (!works)
        (*left)--;
    if (!works && !f->by_item)
        return sel_fail(task, "Unreachable", "the storage is away");
    SEL_TRY(sel_build(task, &record, "{s:i}", "x", (int64_t)1));
    for (uint32_t i = 0; i < count; i++) {
        items[i].status = works ? SEL_STORE_OK : SEL_STORE_FAILED;
        items[i].message = works ? NULL : "the storage is full";
        if (left == &f->retrieve)
            items[i].value = record;
    }
    return 0;
}

static int flaky_retrieve(struct sel_task *task, void *self, struct sel_record *items,
                          uint32_t count)
{
    struct flaky *f = self;
    return flaky_call(task, f, &f->retrieve, items, count);
}

static int flaky_store(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    struct flaky *f = self;
    return flaky_call(task, f, &f->store, items, count);
}

static const struct sel_storage_ops flaky_storage = {.size = sizeof(flaky_storage),
                                                     .open = flaky_open,
                                                     .close = flaky_close,
                                                     .retrieve = flaky_retrieve,
                                                     .store = flaky_store,
                                                     .del = flaky_retrieve};

/* Looks after `seconds`, and ends the flow when it has waited for an hour. */
static int patient(struct sel_task *task, const struct sel_sampling_status *status,
                   const struct sel_value *args, double *ret)
{
    const struct sel_value *seconds = sel_value_get_c(args, "seconds");
    (void)task;
    *ret = seconds ? sel_value_num(seconds) : 1;
    if (status->has_previous_retry && status->previous_retry_s >= 3600)
        *ret = -1;
    return 0;
}

static int impatient(struct sel_task *task, const struct sel_sampling_status *status,
                     const struct sel_value *args, double *ret)
{
    (void)status, (void)args, (void)ret;
    return sel_fail(task, "Impatient", "no more waiting");
}

static int bad_list(struct sel_task *task)
{
    return sel_result(task, "i", (int64_t)7);
}

static int refuses(uint32_t event, const char *event_name, const struct sel_value *details)
{
    (void)event, (void)event_name, (void)details;
    return -1;
}

SEL_MODULE("flows", SEL_TASK("Fails", fails), SEL_TASK("Nothing", nothing),
           SEL_TASK("TellsFailure", tells_failure),
           SEL_TASK("TellsFlowFailure", tells_flow_failure),
           SEL_TASK("TellsDeepFailure", tells_deep_failure),
           SEL_TASK("FailedParents", failed_parents), SEL_TASK("SleepsLong", sleeps_long),
           SEL_STORAGE("Flaky", &flaky_storage), SEL_SAMPLING("patient", patient, "seconds"),
           SEL_SAMPLING("impatient", impatient), SEL_FOREACH("notAList", bad_list),
           SEL_FOREACH("fails", fails), SEL_TRACE_FUNCTION("refuses", refuses));
