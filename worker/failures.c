#include "worker/failures.h"

#include <string.h>

#include "core/mem.h"

void sel_run_failures_done(struct sel_run_failures *failures)
{
    for (uint32_t i = 0; i < failures->count; i++)
        sel_mem_free(failures->items[i].error_class);
    sel_mem_free(failures->items);
    sel_mem_free(failures->index);
    *failures = (struct sel_run_failures){0};
}

/* Ordinals follow each other: a multiplication scatters them well enough. */
static uint32_t first_place(const struct sel_run_failures *failures, uint32_t ordinal)
{
    return (ordinal * UINT32_C(0x9e3779b1)) & (failures->index_cap - 1);
}

/* The place of the run's failure, or the empty one where it would be. */
static uint32_t find_place(const struct sel_run_failures *failures, uint32_t ordinal)
{
    uint32_t at = first_place(failures, ordinal);
    while (failures->index[at] && failures->items[failures->index[at] - 1].ordinal != ordinal)
        at = (at + 1) & (failures->index_cap - 1);
    return at;
}

static bool grow_index(struct sel_run_failures *failures)
{
    if ((uint64_t)failures->count * 2 + 2 <= failures->index_cap)
        return true;
    uint32_t cap = failures->index_cap ? failures->index_cap * 2 : 8;
    uint32_t *index = cap ? sel_mem_zalloc(sizeof(*index) * cap) : NULL;
    if (!index)
        return false;
    sel_mem_free(failures->index);
    failures->index = index;
    failures->index_cap = cap;
    for (uint32_t i = 0; i < failures->count; i++)
        index[find_place(failures, failures->items[i].ordinal)] = i + 1;
    return true;
}

static struct sel_str cut(struct sel_str text, size_t max)
{
    return text.n <= max
               ? text
               : (struct sel_str){text.p, sel_str_utf8_prefix((struct sel_str){text.p, max})};
}

/* Both texts in one piece, each with its terminator. */
static char *join(struct sel_str a, struct sel_str b)
{
    char *text = sel_mem_zalloc(a.n + b.n + 2);
    if (text && a.n)
        memcpy(text, a.p, a.n);
    if (text && b.n)
        memcpy(text + a.n + 1, b.p, b.n);
    return text;
}

int sel_run_failures_add(struct sel_run_failures *failures, uint32_t ordinal,
                         struct sel_str error_class, struct sel_str message)
{
    error_class = cut(error_class, SEL_RUN_FAILURE_CLASS_MAX);
    message = cut(message, SEL_RUN_FAILURE_TEXT_MAX);
    if (!grow_index(failures) ||
        !sel_mem_grow(&failures->items, &failures->cap, (uint64_t)failures->count + 1,
                      sizeof(*failures->items)))
        return SEL_ENOMEM;
    uint32_t at = find_place(failures, ordinal);
    if (failures->index[at])
        return 0;
    char *text = join(error_class, message);
    if (!text)
        return SEL_ENOMEM;
    failures->items[failures->count] = (struct sel_run_failure){
        .ordinal = ordinal, .error_class = text, .message = text + error_class.n + 1};
    failures->index[at] = ++failures->count;
    return 0;
}

bool sel_run_failures_find(const struct sel_run_failures *failures, uint32_t ordinal,
                           const char **ret_class, const char **ret_message)
{
    uint32_t at = failures->index_cap ? find_place(failures, ordinal) : 0;
    if (!failures->index_cap || !failures->index[at])
        return false;
    const struct sel_run_failure *failure = &failures->items[failures->index[at] - 1];
    *ret_class = failure->error_class;
    *ret_message = failure->message;
    return true;
}
