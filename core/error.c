#include "core/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"

const char *sel_error_text(int code)
{
    switch (code) {
    case 0:
        return "no error";
#define ERROR_TEXT(name, value, text)                                                              \
    case name:                                                                                     \
        return text;
        SEL_ERROR_LIST(ERROR_TEXT)
#undef ERROR_TEXT
    default:
        break;
    }
    /* strerror may return a buffer that the next call overwrites; this one does not */
    const char *text = code < 0 && code > -4096 ? strerrordesc_np(-code) : NULL;
    return text ? text : "unknown error";
}

const char *sel_error_name(int code)
{
    switch (code) {
#define ERROR_NAME(name, value, text)                                                              \
    case name:                                                                                     \
        return #name;
        SEL_ERROR_LIST(ERROR_NAME)
#undef ERROR_NAME
    default:
        break;
    }
    const char *name = code < 0 && code > -4096 ? strerrorname_np(-code) : NULL;
    return name ? name : "?";
}

int sel_error_set(struct sel_error *err, int code, struct sel_pos pos, const char *fmt, ...)
{
    if (!err)
        return code;
    char text[SEL_ERROR_TEXT_MAX]; /* not err->text: it may be an argument, to add to it */
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0)
        text[0] = '\0';
    size_t size = strlen(text);
    if (n >= (int)sizeof(text)) { /* do not leave half a character where it was cut */
        size_t whole = sel_str_utf8_prefix((struct sel_str){text, size});
        if (size - whole < 4)
            size = whole;
    }
    memcpy(err->text, text, size);
    err->text[size] = '\0';
    err->code = code;
    err->pos = pos;
    return code;
}

const char *sel_error_format(const struct sel_error *err, char *out, size_t size)
{
    SEL_ASSERT(size > 0);
    char place[32] = "";
    if (err->pos.line && err->pos.col)
        (void)snprintf(place, sizeof(place), "%u:%u", err->pos.line, err->pos.col);
    else if (err->pos.line)
        (void)snprintf(place, sizeof(place), "%u", err->pos.line);
    const char *file = err->pos.file ? err->pos.file : "";
    (void)snprintf(out, size, "%s%s%s%s%s", file, *file && *place ? ":" : "", place,
                   *file || *place ? ": " : "", err->text); /* cutting is the contract */
    return out;
}

void sel_diag_init(struct sel_diag *diag, struct sel_arena *arena)
{
    *diag = (struct sel_diag){.arena = arena};
}

static SEL_PRINTF(4, 0) void add(struct sel_diag *diag, bool is_warning, struct sel_pos pos,
                                 const char *fmt, va_list args)
{
    /* An error that finds no room is counted all the same: the run must not pass for clean. */
    uint32_t *count = is_warning ? &diag->warning_count : &diag->error_count;
    struct sel_diag_item *item = NULL;
    if ((*count)++ < SEL_DIAG_MAX)
        item = SEL_ARENA_NEW(diag->arena, struct sel_diag_item);
    const char *text = item ? sel_arena_vprintf(diag->arena, fmt, args) : NULL;
    if (!text) {
        diag->dropped_count++;
        return;
    }
    *item = (struct sel_diag_item){.pos = pos, .is_warning = is_warning, .text = text};
    if (diag->last)
        diag->last->next = item;
    else
        diag->first = item;
    diag->last = item;
}

void sel_diag_error(struct sel_diag *diag, struct sel_pos pos, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(diag, false, pos, fmt, args);
    va_end(args);
}

void sel_diag_warning(struct sel_diag *diag, struct sel_pos pos, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(diag, true, pos, fmt, args);
    va_end(args);
}

struct ranked {
    struct sel_diag_item *item;
    uint32_t file; /* index of the first item of the same file */
    uint32_t seq;
};

static bool same_file(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static int compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int compare_ranked(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    int r = compare_u32(a->file, b->file);
    r = r ? r : compare_u32(a->item->pos.line, b->item->pos.line);
    r = r ? r : compare_u32(a->item->pos.col, b->item->pos.col);
    return r ? r : compare_u32(a->seq, b->seq);
}

/* Whether an item before `i` says the same of the same place. */
static bool is_repeated(const struct ranked *all, uint32_t i)
{
    const struct sel_diag_item *item = all[i].item;
    for (uint32_t j = i; j-- > 0;) {
        const struct sel_diag_item *other = all[j].item;
        if (all[j].file != all[i].file || other->pos.line != item->pos.line ||
            other->pos.col != item->pos.col)
            return false;
        if (other->is_warning == item->is_warning && strcmp(other->text, item->text) == 0)
            return true;
    }
    return false;
}

void sel_diag_sort(struct sel_diag *diag)
{
    uint32_t count = 0;
    for (const struct sel_diag_item *item = diag->first; item; item = item->next)
        count++;
    struct ranked *all = SEL_ARENA_NEW_ARRAY(diag->arena, struct ranked, count);
    if (!all)
        return; /* no memory: as they came is better than not at all */
    uint32_t i = 0;
    for (struct sel_diag_item *item = diag->first; item; item = item->next, i++) {
        uint32_t file = 0; /* quadratic, but of at most 2 * SEL_DIAG_MAX items */
        while (file < i && !same_file(all[file].item->pos.file, item->pos.file))
            file++;
        all[i] = (struct ranked){.item = item, .file = file, .seq = i};
    }
    qsort(all, count, sizeof(*all), compare_ranked);
    struct sel_diag_item **tail = &diag->first;
    diag->last = NULL;
    for (i = 0; i < count; i++) {
        if (is_repeated(all, i)) {
            *(all[i].item->is_warning ? &diag->warning_count : &diag->error_count) -= 1;
            continue;
        }
        *tail = diag->last = all[i].item;
        tail = &all[i].item->next;
    }
    *tail = NULL;
}
