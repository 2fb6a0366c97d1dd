/* worker/module_storage.h - a storage of a module (include/selinon/storage.h) as the engine sees
 * storages.
 *
 * Its functions run in the calling coroutine, or on the calling thread if that is none. */
#ifndef SEL_WORKER_MODULE_STORAGE_H
#define SEL_WORKER_MODULE_STORAGE_H

#include "core/error.h"
#include "core/system.h"
#include "storage/storage.h"
#include "worker/exec.h"

struct sel_modules;

/* Finds and opens it. `host` is what its functions may ask (logging); it and `def` outlive the
 * storage. 0; SEL_ENOTFOUND and what sel_modules_find says; SEL_ESTORAGE: its open failed. */
int sel_module_storage_open(struct sel_modules *modules, const struct sel_system *system,
                            const struct sel_storage_def *def, const struct sel_task_host *host,
                            struct sel_storage **ret, struct sel_error *err) SEL_WARN_UNUSED;

#endif
