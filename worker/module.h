/* worker/module.h - finding functions of modules by `import` and name.
 *
 * `import: a.b` finds a/b.so, then a.b.so, in each folder of the module path in turn. A module is
 * opened once, its table checked (size, ABI, kinds, names, duplicates) before anything is used.
 * Lookups are thread safe after sel_modules_new. */
#ifndef SEL_WORKER_MODULE_H
#define SEL_WORKER_MODULE_H

#include <selinon/module.h>
#include <selinon/storage.h>

#include "core/compile.h"
#include "core/error.h"
#include "core/str.h"

struct sel_modules;

/* `path`: folders separated by ':', may be NULL or empty. NULL: out of memory. */
struct sel_modules *sel_modules_new(const char *path);
/* After all other threads that used them have ended; returns NULL. */
struct sel_modules *sel_modules_free(struct sel_modules *modules);

/* 0 and *ret (lives as long as `modules`); SEL_ENOTFOUND: no such module or no such name in it,
 * with a suggestion; SEL_EVERSION: wrong ABI; SEL_EFORMAT: a damaged table. `err` says all that. */
int sel_modules_find(struct sel_modules *modules, enum sel_module_kind kind, struct sel_str import,
                     struct sel_str name, const struct sel_module_entry **ret,
                     struct sel_error *err) SEL_WARN_UNUSED;

/* Checks a table as if it had been loaded from `file`; what the fuzzer calls. 0 or as above. */
int sel_modules_check_table(const struct sel_module *table, const char *file,
                            struct sel_error *err) SEL_WARN_UNUSED;

/* Runs thread_init (thread_done) of all opened modules on this thread, once for each: a later call
 * is for modules that were opened meanwhile. A thread that ends without thread_done does it then.
 */
int sel_modules_thread_init(struct sel_modules *modules, struct sel_error *err) SEL_WARN_UNUSED;
void sel_modules_thread_done(struct sel_modules *modules);

/* The compiler's questions about user predicates and sampling functions (core/compile.h). */
struct sel_compile_user sel_modules_compile_user(struct sel_modules *modules);

#endif
