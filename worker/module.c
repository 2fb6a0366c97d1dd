#include "worker/module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include <selinon/task.h>

#include "core/buf.h"
#include "core/hash.h"
#include "core/mem.h"
#include "core/suggest.h"

#define ABI_MAJOR(abi) ((abi) >> 16)
#define ABI_MINOR(abi) ((abi)&0xffff)
#define MODULES_MAX 1024
#define PATH_FOLDERS_MAX 256
#define SYMBOL "sel_module_table"

static const struct sel_pos no_pos;

struct folder {
    struct folder *next;
    char *name;
};

struct module {
    char *import;
    char *file; /* "built in" for ours */
    void *handle;
    const struct sel_module *table;
};

struct sel_modules {
    struct sel_arena arena; /* under `lock` once made */
    struct folder *folders; /* in the order of the path */
    pthread_mutex_t lock;
    struct module **loaded;        /* in the order of loading, MODULES_MAX places */
    _Atomic uint32_t loaded_count; /* grows under `lock`, read anywhere */
    pthread_key_t thread_key;      /* value: struct thread_state * */
};

/* Which modules a thread has initialised: the first `count` of `loaded`. */
struct thread_state {
    struct sel_modules *modules;
    uint32_t count;
};

/* ---- built in ---- */

/* selinon.routines.always_run: a null result means that the task runs. */
static int always_run(struct sel_task *task, const struct sel_selective_info *info)
{
    (void)task;
    (void)info;
    return 0;
}

static const struct sel_module_entry routine_entries[] = {SEL_SELECTIVE("always_run", always_run)};

static const struct sel_module routines = {.size = sizeof(routines),
                                           .abi = SEL_MODULE_ABI,
                                           .entry_size = sizeof(struct sel_module_entry),
                                           .entry_count = SEL_COUNT(routine_entries),
                                           .name = "selinon.routines",
                                           .entries = routine_entries};

/* ---- names ---- */

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {NULL,
                                        "task",
                                        "foreach function",
                                        "selective run function",
                                        "predicate",
                                        "sampling function",
                                        "trace function",
                                        "storage",
                                        "cache"};
    return kind > 0 && kind < SEL_COUNT(names) ? names[kind] : NULL;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* A Python identifier, since the same names are written in the YAML. */
static bool is_identifier(struct sel_str s)
{
    if (s.n == 0 || s.n > SEL_MODULE_NAME_MAX || !is_letter(s.p[0]))
        return false;
    for (size_t i = 1; i < s.n; i++) {
        if (!is_letter(s.p[i]) && !(s.p[i] >= '0' && s.p[i] <= '9'))
            return false;
    }
    return true;
}

/* Identifiers with dots between them; so an import can never leave the folders of the path. */
static bool is_import(struct sel_str s)
{
    if (s.n == 0 || s.n > SEL_MODULE_NAME_MAX)
        return false;
    size_t begin = 0;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && s.p[i] != '.')
            continue;
        if (!is_identifier((struct sel_str){s.p + begin, i - begin}))
            return false;
        begin = i + 1;
    }
    return true;
}

/* The name as far as the limit; a foreign table may hold anything. */
static struct sel_str bounded(const char *name)
{
    return (struct sel_str){name, name ? strnlen(name, SEL_MODULE_NAME_MAX + 1) : 0};
}

/* ---- checking a table ---- */

static int check_head(const struct sel_module *table, const char *file, struct sel_error *err)
{
    if (ABI_MAJOR(table->abi) != ABI_MAJOR(SEL_MODULE_ABI) ||
        ABI_MINOR(table->abi) > ABI_MINOR(SEL_MODULE_ABI))
        return sel_error_set(err, SEL_EVERSION, no_pos,
                             "%s: was built for module interface %u.%u and this program has %u.%u; "
                             "build it with the headers of this program",
                             file, ABI_MAJOR(table->abi), ABI_MINOR(table->abi),
                             ABI_MAJOR(SEL_MODULE_ABI), ABI_MINOR(SEL_MODULE_ABI));
    if (table->size != sizeof(struct sel_module))
        return sel_error_set(err, SEL_EFORMAT, no_pos,
                             "%s: damaged table: its size is %u and should be %zu", file,
                             (unsigned)table->size, sizeof(struct sel_module));
    if (table->entry_size != sizeof(struct sel_module_entry))
        return sel_error_set(err, SEL_EFORMAT, no_pos,
                             "%s: damaged table: an entry has size %u and should have %zu", file,
                             (unsigned)table->entry_size, sizeof(struct sel_module_entry));
    if (table->capabilities != 0)
        return sel_error_set(err, SEL_EVERSION, no_pos,
                             "%s: asks for capabilities %#llx, which this program does not have",
                             file, (unsigned long long)table->capabilities);
    if (table->entry_count > SEL_MODULE_ENTRIES_MAX)
        return sel_error_set(err, SEL_EFORMAT, no_pos,
                             "%s: damaged table: %u entries; at most %d are allowed", file,
                             (unsigned)table->entry_count, SEL_MODULE_ENTRIES_MAX);
    if (table->entry_count > 0 && !table->entries)
        return sel_error_set(err, SEL_EFORMAT, no_pos, "%s: damaged table: no entries", file);
    struct sel_str name = bounded(table->name);
    if (!is_import(name))
        return sel_error_set(err, SEL_EFORMAT, no_pos,
                             "%s: damaged table: the module's name is not of the form a.b", file);
    return 0;
}

/* Where an entry is, for messages: "x.so: entry 3 (predicate 'isOdd')". */
struct place {
    const char *file;
    uint32_t index;
    const struct sel_module_entry *entry;
    struct sel_error *err;
};

__attribute__((format(printf, 2, 3))) static int bad_entry(const struct place *place,
                                                           const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    const char *kind = kind_name(place->entry->kind);
    struct sel_str name = bounded(place->entry->name);
    if (!is_identifier(name))
        name = SEL_STR("?");
    return sel_error_set(
        place->err, SEL_EFORMAT, no_pos, "%s: damaged table: entry %u (%s '%.*s'): %s", place->file,
        (unsigned)place->index + 1, kind ? kind : "unknown kind", SEL_STR_ARG(name), what);
}

static int check_args(const struct place *place)
{
    const struct sel_module_entry *e = place->entry;
    bool may_have = e->kind == SEL_MODULE_PREDICATE || e->kind == SEL_MODULE_SAMPLING;
    if (!may_have && e->arg_count > 0)
        return bad_entry(place, "only predicates and sampling functions have arguments");
    if (e->arg_count > SEL_MODULE_ARGS_MAX)
        return bad_entry(place, "%u arguments; at most %d are allowed", (unsigned)e->arg_count,
                         SEL_MODULE_ARGS_MAX);
    if (e->arg_count > 0 && !e->args)
        return bad_entry(place, "its arguments have no names");
    for (uint32_t i = 0; i < e->arg_count; i++) {
        struct sel_str name = bounded(e->args[i]);
        if (!is_identifier(name))
            return bad_entry(place, "the name of argument %u is no identifier", (unsigned)i + 1);
        for (uint32_t j = 0; j < i; j++) {
            if (sel_str_eq_c(name, e->args[j]))
                return bad_entry(place, "argument '%.*s' occurs twice", SEL_STR_ARG(name));
        }
    }
    if (e->takes_message > (e->kind == SEL_MODULE_PREDICATE ? 2 : 0))
        return bad_entry(place, "takes_message is %u", (unsigned)e->takes_message);
    return 0;
}

static int check_ops(const struct place *place)
{
    const struct sel_module_entry *e = place->entry;
    if (e->kind == SEL_MODULE_STORAGE) {
        const struct sel_storage_ops *ops = e->u.storage;
        if (ops->size != sizeof(*ops))
            return bad_entry(place, "its functions have size %zu and should have %zu", ops->size,
                             sizeof(*ops));
        if (!ops->open || !ops->close || !ops->retrieve || !ops->store || !ops->del)
            return bad_entry(place, "one of open, close, retrieve, store, del is missing");
    }
    if (e->kind == SEL_MODULE_CACHE) {
        const struct sel_cache_ops *ops = e->u.cache;
        if (ops->size != sizeof(*ops))
            return bad_entry(place, "its functions have size %zu and should have %zu", ops->size,
                             sizeof(*ops));
        if (!ops->open || !ops->close || !ops->add || !ops->get)
            return bad_entry(place, "one of open, close, add, get is missing");
    }
    return 0;
}

/* All members of the union are pointers; function and object pointers are alike on POSIX. */
static bool has_function(const struct sel_module_entry *e)
{
    return e->kind == SEL_MODULE_STORAGE || e->kind == SEL_MODULE_CACHE ? e->u.storage != NULL
                                                                        : e->u.task != NULL;
}

static int check_entry(const struct place *place, struct sel_map seen[])
{
    const struct sel_module_entry *e = place->entry;
    if (!kind_name(e->kind))
        return bad_entry(place, "kind %u is unknown", (unsigned)e->kind);
    struct sel_str name = bounded(e->name);
    if (!is_identifier(name))
        return bad_entry(place, "its name is no identifier of at most %d letters",
                         SEL_MODULE_NAME_MAX);
    if (!has_function(e))
        return bad_entry(place, "there is no function");
    int r = check_args(place);
    if (r == 0)
        r = check_ops(place);
    if (r < 0)
        return r;
    uint32_t first = 0;
    r = sel_map_add(&seen[e->kind], name, place->index, &first);
    if (r < 0)
        return sel_error_set(place->err, r, no_pos, "%s: out of memory", place->file);
    return r > 0 ? 0 : bad_entry(place, "entry %u has the same name", (unsigned)first + 1);
}

int sel_modules_check_table(const struct sel_module *table, const char *file, struct sel_error *err)
{
    int r = check_head(table, file, err);
    if (r < 0)
        return r;
    struct sel_map seen[SEL_MODULE_CACHE + 1] = {0}; /* names, by kind */
    for (uint32_t i = 0; i < table->entry_count && r == 0; i++) {
        struct place place = {file, i, &table->entries[i], err};
        r = check_entry(&place, seen);
    }
    for (size_t kind = 0; kind < SEL_COUNT(seen); kind++)
        sel_map_done(&seen[kind]);
    return r;
}

/* ---- the set of modules ---- */

static void thread_exit(void *value)
{
    struct thread_state *state = value;
    for (uint32_t i = state->count; i > 0; i--) {
        const struct sel_module *table = state->modules->loaded[i - 1]->table;
        if (table->thread_done)
            table->thread_done();
    }
    sel_mem_free(state);
}

/* `path` is split at ':'; empty parts are skipped. false: out of memory. */
static bool add_folders(struct sel_modules *modules, const char *path)
{
    struct folder **last = &modules->folders;
    const char *at = path ? path : "";
    for (uint32_t i = 0; i < PATH_FOLDERS_MAX; i++) {
        size_t n = strcspn(at, ":");
        if (n > 0) {
            struct folder *folder = SEL_ARENA_NEW(&modules->arena, struct folder);
            char *name = sel_arena_strdup(&modules->arena, (struct sel_str){at, n});
            if (!folder || !name)
                return false;
            folder->name = name;
            *last = folder;
            last = &folder->next;
        }
        at += n;
        if (*at++ == '\0')
            break;
    }
    return true;
}

static struct module *append(struct sel_modules *modules, struct sel_str import, const char *file,
                             void *handle, const struct sel_module *table)
{
    struct module *module = SEL_ARENA_NEW(&modules->arena, struct module);
    char *import_copy = sel_arena_strdup(&modules->arena, import);
    char *file_copy = sel_arena_strdup(&modules->arena, sel_str_c(file));
    uint32_t count = atomic_load_explicit(&modules->loaded_count, memory_order_relaxed);
    if (!module || !import_copy || !file_copy || count == MODULES_MAX)
        return NULL;
    *module = (struct module){import_copy, file_copy, handle, table};
    modules->loaded[count] = module;
    atomic_store_explicit(&modules->loaded_count, count + 1, memory_order_release);
    return module;
}

struct sel_modules *sel_modules_new(const char *path)
{
    struct sel_modules *modules = SEL_NEW(struct sel_modules);
    if (!modules)
        return NULL;
    if (pthread_key_create(&modules->thread_key, thread_exit) != 0)
        return sel_mem_free(modules);
    if (pthread_mutex_init(&modules->lock, NULL) != 0) {
        (void)pthread_key_delete(modules->thread_key); /* it exists */
        return sel_mem_free(modules);
    }
    modules->loaded = SEL_ARENA_NEW_ARRAY(&modules->arena, struct module *, MODULES_MAX);
    if (!modules->loaded || !add_folders(modules, path) ||
        !append(modules, sel_str_c(routines.name), "built in", NULL, &routines))
        return sel_modules_free(modules);
    return modules;
}

struct sel_modules *sel_modules_free(struct sel_modules *modules)
{
    if (!modules)
        return NULL;
    sel_modules_thread_done(modules);
    (void)pthread_key_delete(modules->thread_key); /* it exists */
    for (uint32_t i = modules->loaded_count; i > 0; i--) {
        if (modules->loaded[i - 1]->handle)
            (void)dlclose(modules->loaded[i - 1]->handle); /* nothing can be done about it */
    }
    (void)pthread_mutex_destroy(&modules->lock);
    sel_arena_done(&modules->arena);
    return sel_mem_free(modules);
}

/* ---- loading, under the lock ---- */

static bool is_file(const char *file)
{
    struct stat info;
    return stat(file, &info) == 0 && !S_ISDIR(info.st_mode);
}

/* a.b is looked for as a/b.so, then as a.b.so. NULL: out of memory. */
static char *candidate(struct sel_modules *modules, const struct folder *folder,
                       struct sel_str import, bool dots_are_folders)
{
    char *file = sel_arena_printf(&modules->arena, "%s/%.*s.so", folder->name, SEL_STR_ARG(import));
    char *name = file ? file + strlen(folder->name) + 1 : NULL;
    for (size_t i = 0; name && dots_are_folders && i < import.n; i++) {
        if (name[i] == '.')
            name[i] = '/';
    }
    return file;
}

/* 1: *ret is the file; 0: in none of the folders. */
static int search(struct sel_modules *modules, struct sel_str import, char **ret)
{
    for (const struct folder *f = modules->folders; f; f = f->next) {
        for (int dots_are_folders = 1; dots_are_folders >= 0; dots_are_folders--) {
            char *file = candidate(modules, f, import, dots_are_folders);
            if (!file)
                return SEL_ENOMEM;
            if (is_file(file)) {
                *ret = file;
                return 1;
            }
        }
    }
    return 0;
}

/* Says where it was looked for, as written on the path. */
static int not_found(const struct sel_modules *modules, struct sel_str import,
                     struct sel_error *err)
{
    struct sel_buf text = {0};
    sel_buf_printf(&text, "module '%.*s' is not found: ", SEL_STR_ARG(import));
    if (!modules->folders) {
        sel_buf_put_c(&text, "the module path is empty; give --module-path or set "
                             "SELINON_MODULE_PATH");
    } else {
        bool has_dot = memchr(import.p, '.', import.n) != NULL;
        if (has_dot) {
            sel_buf_put_c(&text, "neither ");
            for (size_t i = 0; i < import.n; i++)
                sel_buf_put_u8(&text, (uint8_t)(import.p[i] == '.' ? '/' : import.p[i]));
            sel_buf_put_c(&text, ".so nor ");
        }
        sel_buf_printf(&text, "%s%.*s.so is in the module path: ", has_dot ? "" : "no ",
                       SEL_STR_ARG(import));
        for (const struct folder *f = modules->folders; f; f = f->next)
            sel_buf_printf(&text, "%s%s", f->name, f->next ? ", " : "");
    }
    int r = sel_error_set(err, SEL_ENOTFOUND, no_pos, "%s", sel_buf_cstr(&text));
    sel_buf_done(&text);
    return r;
}

static int load(struct sel_modules *modules, struct sel_str import, const char *file,
                struct module **ret, struct sel_error *err)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();
        return sel_error_set(err, SEL_EFORMAT, no_pos, "module '%.*s' cannot be loaded: %s",
                             SEL_STR_ARG(import), why ? why : file);
    }
    const struct sel_module *table = dlsym(handle, SYMBOL);
    int r;
    if (!table)
        r = sel_error_set(err, SEL_EFORMAT, no_pos,
                          "%s: is no module: it has no symbol %s; write SEL_MODULE(...) in one of "
                          "its files",
                          file, SYMBOL);
    else
        r = sel_modules_check_table(table, file, err);
    if (r == 0) {
        *ret = append(modules, import, file, handle, table);
        if (*ret)
            return 0;
        r = sel_error_set(err, SEL_ELIMIT, no_pos,
                          "%s: no memory, or more than %d modules are in use", file, MODULES_MAX);
    }
    (void)dlclose(handle); /* nothing of it is used */
    return r;
}

static int open_locked(struct sel_modules *modules, struct sel_str import, struct module **ret,
                       struct sel_error *err)
{
    for (uint32_t i = 0; i < modules->loaded_count; i++) {
        if (sel_str_eq_c(import, modules->loaded[i]->import)) {
            *ret = modules->loaded[i];
            return 0;
        }
    }
    char *file = NULL;
    int r = search(modules, import, &file);
    if (r < 0)
        return sel_error_set(err, r, no_pos, "module '%.*s': out of memory", SEL_STR_ARG(import));
    return r == 0 ? not_found(modules, import, err) : load(modules, import, file, ret, err);
}

static int open_module(struct sel_modules *modules, struct sel_str import, struct module **ret,
                       struct sel_error *err)
{
    if (!is_import(import))
        return sel_error_set(err, SEL_ENOTFOUND, no_pos,
                             "'%.*s' is no module: an import is names with dots between them",
                             (int)(import.n < SEL_MODULE_NAME_MAX ? import.n : SEL_MODULE_NAME_MAX),
                             import.p);
    (void)pthread_mutex_lock(&modules->lock); /* a normal mutex, never locked twice */
    int r = open_locked(modules, import, ret, err);
    (void)pthread_mutex_unlock(&modules->lock);
    return r;
}

/* ---- finding ---- */

static const struct sel_module_entry *find_entry(const struct module *module,
                                                 enum sel_module_kind kind, struct sel_str name)
{
    for (uint32_t i = 0; i < module->table->entry_count; i++) {
        const struct sel_module_entry *e = &module->table->entries[i];
        if (e->kind == (uint32_t)kind && sel_str_eq_c(name, e->name))
            return e;
    }
    return NULL;
}

static int no_entry(const struct module *module, enum sel_module_kind kind, struct sel_str name,
                    struct sel_error *err)
{
    struct sel_suggest suggest;
    struct sel_str similar;
    sel_suggest_init(&suggest, name);
    for (uint32_t i = 0; i < module->table->entry_count; i++) {
        const struct sel_module_entry *e = &module->table->entries[i];
        if (e->kind == (uint32_t)kind)
            sel_suggest_offer(&suggest, sel_str_c(e->name));
        else if (sel_str_eq_c(name, e->name))
            return sel_error_set(err, SEL_ENOTFOUND, no_pos,
                                 "module '%s' (%s): '%s' is a %s there and no %s", module->import,
                                 module->file, e->name, kind_name(e->kind), kind_name(kind));
    }
    if (sel_suggest_get(&suggest, &similar))
        return sel_error_set(
            err, SEL_ENOTFOUND, no_pos, "module '%s' (%s) has no %s '%.*s'; did you mean '%.*s'?",
            module->import, module->file, kind_name(kind), SEL_STR_ARG(name), SEL_STR_ARG(similar));
    return sel_error_set(err, SEL_ENOTFOUND, no_pos, "module '%s' (%s) has no %s '%.*s'",
                         module->import, module->file, kind_name(kind), SEL_STR_ARG(name));
}

int sel_modules_find(struct sel_modules *modules, enum sel_module_kind kind, struct sel_str import,
                     struct sel_str name, const struct sel_module_entry **ret,
                     struct sel_error *err)
{
    struct module *module;
    int r = open_module(modules, import, &module, err);
    if (r < 0)
        return r;
    const struct sel_module_entry *entry = find_entry(module, kind, name);
    if (!entry)
        return no_entry(module, kind, name, err);
    *ret = entry;
    return 0;
}

/* ---- threads ---- */

static struct thread_state *thread_state_get(struct sel_modules *modules)
{
    struct thread_state *state = pthread_getspecific(modules->thread_key);
    if (state)
        return state;
    state = SEL_NEW(struct thread_state);
    if (!state)
        return NULL;
    state->modules = modules;
    if (pthread_setspecific(modules->thread_key, state) != 0)
        return sel_mem_free(state);
    return state;
}

int sel_modules_thread_init(struct sel_modules *modules, struct sel_error *err)
{
    struct thread_state *state = thread_state_get(modules);
    if (!state)
        return sel_error_set(err, SEL_ENOMEM, no_pos, "out of memory for a thread of modules");
    uint32_t count = atomic_load_explicit(&modules->loaded_count, memory_order_acquire);
    for (; state->count < count; state->count++) {
        const struct module *module = modules->loaded[state->count];
        int r = module->table->thread_init ? module->table->thread_init() : 0;
        if (r < 0)
            return sel_error_set(err, SEL_EFAILED, no_pos,
                                 "module '%s' (%s): thread_init failed with %d", module->import,
                                 module->file, r);
    }
    return 0;
}

void sel_modules_thread_done(struct sel_modules *modules)
{
    struct thread_state *state = pthread_getspecific(modules->thread_key);
    if (!state)
        return;
    (void)pthread_setspecific(modules->thread_key, NULL); /* the place exists */
    thread_exit(state);
}

/* ---- the compiler's questions ---- */

/* The entry, or SEL_ENOTFOUND if the module is there and has no such name; a module that is not
 * there at all is reported at the start of a worker, with better words. */
static int ask(void *ctx, enum sel_module_kind kind, struct sel_str import, struct sel_str name,
               const struct sel_module_entry **ret)
{
    struct module *module;
    if (open_module(ctx, import, &module, NULL) < 0)
        return SEL_EUNSUPPORTED;
    *ret = find_entry(module, kind, name);
    return *ret ? 0 : SEL_ENOTFOUND;
}

static int ask_predicate(void *ctx, struct sel_str module, struct sel_str name,
                         enum sel_predicate_input *ret_input, const char *const **ret_args,
                         uint32_t *ret_arg_count)
{
    static const enum sel_predicate_input inputs[] = {SEL_INPUT_ARGS, SEL_INPUT_MESSAGE,
                                                      SEL_INPUT_NONE};
    const struct sel_module_entry *entry;
    int r = ask(ctx, SEL_MODULE_PREDICATE, module, name, &entry);
    if (r < 0)
        return r;
    *ret_input = inputs[entry->takes_message]; /* 0..2, checked with the table */
    *ret_args = entry->args;
    *ret_arg_count = entry->arg_count;
    return 0;
}

static int ask_sampling(void *ctx, struct sel_str module, struct sel_str name,
                        const char *const **ret_args, uint32_t *ret_arg_count)
{
    const struct sel_module_entry *entry;
    int r = ask(ctx, SEL_MODULE_SAMPLING, module, name, &entry);
    if (r < 0)
        return r;
    *ret_args = entry->args;
    *ret_arg_count = entry->arg_count;
    return 0;
}

struct sel_compile_user sel_modules_compile_user(struct sel_modules *modules)
{
    return (struct sel_compile_user){modules, ask_predicate, ask_sampling};
}
