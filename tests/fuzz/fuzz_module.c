/* Tables of modules, as bytes would have them: sizes, versions, kinds, names, counts. Pointers are
 * NULL or valid, as far as the counts that are not refused say. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/assert.h"
#include "core/error.h"
#include "worker/module.h"

#define ENTRIES 24
#define TEXT_SIZE 600 /* longer than the longest name */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reader {
    const uint8_t *p;
    size_t n;
};

static uint32_t take(struct reader *r)
{
    if (r->n == 0)
        return 0;
    r->n--;
    return *r->p++;
}

/* What is right in most cases, so that the checks behind it are reached too. */
static uint32_t mostly(struct reader *r, uint32_t right)
{
    uint32_t b = take(r);
    if (b < 240)
        return right;
    return b == 255 ? take(r) << 24 | take(r) << 16 | take(r) << 8 | take(r) : right + b - 247;
}

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int open_any(struct sel_task *task, const struct sel_value *config, void **ret_self)
{
    (void)task;
    (void)config;
    (void)ret_self;
    return 0;
}

static void close_any(void *self)
{
    (void)self;
}

static int items_any(struct sel_task *task, void *self, struct sel_record *items, uint32_t count)
{
    (void)task;
    (void)self;
    (void)items;
    (void)count;
    return 0;
}

static const char *pick_text(struct reader *r, const char *text, size_t n)
{
    size_t at = take(r);
    return at == 255 ? NULL : text + at % n;
}

static void fill_entry(struct reader *r, struct sel_module_entry *e, const char *const *names,
                       const struct sel_storage_ops *ops, const char *text, size_t n)
{
    e->kind = mostly(r, 1 + take(r) % SEL_MODULE_CACHE);
    e->name = pick_text(r, text, n);
    e->args = take(r) < 200 ? names : NULL;
    e->arg_count = mostly(r, 0);
    e->takes_message = mostly(r, 0);
    if (e->kind == SEL_MODULE_STORAGE)
        e->u.storage = take(r) < 240 ? ops : NULL;
    else if (e->kind == SEL_MODULE_CACHE)
        e->u.cache = NULL;
    else
        e->u.task = take(r) < 240 ? nothing : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = {data, size};
    char text[TEXT_SIZE];
    size_t n = take(&r) * 2 + 1;
    size_t have = r.n < n - 1 ? r.n : n - 1;
    memset(text, 'a', sizeof(text));
    memcpy(text, r.p, have);
    text[n] = '\0';
    r.p += have;
    r.n -= have;

    const char *names[SEL_MODULE_ARGS_MAX];
    for (size_t i = 0; i < SEL_MODULE_ARGS_MAX; i++)
        names[i] = pick_text(&r, text, n);
    struct sel_storage_ops ops = {.size = mostly(&r, sizeof(ops)),
                                  .open = open_any,
                                  .close = close_any,
                                  .retrieve = items_any,
                                  .store = take(&r) < 240 ? items_any : NULL,
                                  .del = items_any};
    struct sel_module_entry entries[ENTRIES];
    for (size_t i = 0; i < ENTRIES; i++)
        fill_entry(&r, &entries[i], names, &ops, text, n);
    struct sel_module table = {.size = mostly(&r, sizeof(table)),
                               .abi = mostly(&r, SEL_MODULE_ABI),
                               .entry_size = mostly(&r, sizeof(entries[0])),
                               .entry_count = mostly(&r, take(&r) % (ENTRIES + 1)),
                               .name = pick_text(&r, text, n),
                               .entries = take(&r) < 240 ? entries : NULL,
                               .capabilities = mostly(&r, 0)};
    if (table.entry_count > ENTRIES && table.entry_count <= SEL_MODULE_ENTRIES_MAX)
        table.entry_count = ENTRIES; /* no check can know how long an array really is */

    struct sel_error err = {0};
    int code = sel_modules_check_table(&table, "fuzz.so", &err);
    if (code < 0) {
        SEL_ASSERT(code == SEL_EVERSION || code == SEL_EFORMAT || code == SEL_ENOMEM);
        SEL_ASSERT(strncmp(err.text, "fuzz.so: ", 9) == 0);
        return 0;
    }
    for (uint32_t i = 0; i < table.entry_count; i++) {
        SEL_ASSERT(strlen(entries[i].name) <= SEL_MODULE_NAME_MAX);
        for (uint32_t j = 0; j < i; j++)
            SEL_ASSERT(entries[i].kind != entries[j].kind ||
                       strcmp(entries[i].name, entries[j].name) != 0);
    }
    return 0;
}
