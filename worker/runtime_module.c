#include "worker/exec.h"

#include "worker/loop.h"
#include "worker/module.h"
#include "worker/sys.h"
#include "worker/task_internal.h"

#define WAIT_FIRST_US INT64_C(1000)
#define WAIT_MAX_US (INT64_C(100) * 1000)

static int prepare(void *self, const struct sel_task_def *task, void **ret_code,
                   struct sel_error *err)
{
    const struct sel_module_entry *entry;
    int r = sel_modules_find(self, SEL_MODULE_TASK, task->import.module, task->import.name, &entry,
                             err);
    if (r < 0) {
        if (err)
            err->pos = task->import.pos;
        return r;
    }
    *ret_code = (void *)(uintptr_t)entry; /* only read, but the interface has no const */
    return 0;
}

/* One run of a C function, on whichever thread. */
struct call {
    struct sel_modules *modules;
    const struct sel_module_entry *entry;
    struct sel_task *task;
    struct sel_exec_result *ret;
};

/* The clean-ups belong to the thread of the function: they may block as it does. The result is
 * taken first, while all that it may point to is still there. */
static void run_here(struct call *call)
{
    int code = call->entry->u.task(call->task);
    sel_task_take_result(call->task, code, call->ret);
    sel_task_run_deferred(call->task);
}

static void run_blocking(void *arg)
{
    struct call *call = arg;
    struct sel_error err = {0};
    if (sel_modules_thread_init(call->modules, &err) < 0) {
        int code = sel_task_note_error(call->task, "ModuleError", &err);
        sel_task_take_result(call->task, code, call->ret);
        return;
    }
    const struct sel_task_env *env = call->task->env;
    if (env->host && env->host->on_pool)
        env->host->on_pool(env->host->ctx, env, true);
    run_here(call);
    if (env->host && env->host->on_pool)
        env->host->on_pool(env->host->ctx, env, false);
}

/* A full pool is back-pressure and no failure: the task waits for its turn. */
static int run_on_pool(struct call *call)
{
    int64_t wait_us = WAIT_FIRST_US;
    int r = sel_co_offload(run_blocking, call);
    while (r == SEL_ELIMIT) {
        r = sel_co_sleep(wait_us);
        if (r < 0)
            break;
        wait_us = wait_us * 2 < WAIT_MAX_US ? wait_us * 2 : WAIT_MAX_US;
        r = sel_co_offload(run_blocking, call);
    }
    return r;
}

static void run(void *self, void *code, struct sel_task *task, struct sel_exec_result *ret)
{
    struct call call = {self, code, task, ret};
    struct sel_co *co = sel_co_current();
    if (!co) {
        run_blocking(&call);
        return;
    }
    if (!task->env->task || !task->env->task->blocking) {
        /* What the crash report calls it: "task 'T' (id) of flow 'F'". */
        const char *const parts[] = {"task '",      task->name,      "' (", sel_task_id(task),
                                     ") of flow '", task->flow_name, "'"};
        const char *const bare_parts[] = {"task '", task->name, "' (", sel_task_id(task), ")"};
        if (task->flow_name[0])
            sel_co_set_name_parts(co, parts, SEL_COUNT(parts));
        else
            sel_co_set_name_parts(co, bare_parts, SEL_COUNT(bare_parts));
        run_here(&call);
        sel_co_set_name(co, "a task that has ended"); /* the parts lie here */
        return;
    }
    int r = run_on_pool(&call);
    if (r < 0) {
        r = sel_task_note_os(task, r, "LimitError", "run the blocking task '%s'", task->name);
        sel_task_take_result(task, r, ret);
    }
}

const struct sel_runtime_ops sel_runtime_module = {prepare, run};
