#include "core/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <yajl/yajl_parse.h>

#include "core/arena.h"
#include "core/hash.h"
#include "core/mem.h"

/* Elements and keys of a line of open lists and maps are collected on one stack; the end of a list
 * or map moves its part of the stack to the arena in one piece. */
struct item {
    struct sel_value value;
    uint32_t line, col; /* of a key, for a warning about duplicates; 0 without diag */
};

struct frame {
    uint32_t first; /* item that begins it */
};

struct parser {
    yajl_handle handle;
    struct sel_arena *arena;
    struct sel_arena scratch; /* of yajl */
    const char *file;
    struct sel_str text;
    struct sel_diag *diag;
    struct sel_error *err;
    struct item *items;
    uint32_t item_count, item_cap;
    struct frame frames[SEL_VALUE_DEPTH_MAX];
    uint32_t depth;
    bool at_end; /* yajl is being told that nothing follows */
    int code;    /* of the error that made a callback stop */
    size_t seen; /* where `pos` is */
    struct sel_pos pos;
    jmp_buf no_memory;
};

/* Places */

/* Moves `pos` on to byte `offset` of the text. Columns count code points. */
static void move_to(struct parser *p, size_t offset)
{
    for (; p->seen < offset; p->seen++) {
        unsigned char c = (unsigned char)p->text.p[p->seen];
        if (c == '\n') {
            p->pos.line++;
            p->pos.col = 1;
        } else if ((c & 0xc0) != 0x80) {
            p->pos.col++;
        }
    }
}

static void move_to_start(struct parser *p)
{
    p->seen = 0;
    p->pos = (struct sel_pos){.file = p->file, .line = 1, .col = 1};
}

/* The place of an error, which may lie before the last key that was looked at. */
static struct sel_pos place_of(struct parser *p, size_t offset)
{
    if (offset < p->seen)
        move_to_start(p);
    move_to(p, offset < p->text.n ? offset : p->text.n);
    return p->pos;
}

/* Where yajl stands: behind the token that it reports. */
static size_t consumed(const struct parser *p)
{
    return p->at_end ? p->text.n : yajl_get_bytes_consumed(p->handle);
}

/* The quote that opens the text whose closing quote ends at `end`. */
static size_t opening_quote(const struct parser *p, size_t end)
{
    size_t at = end - 1;
    while (at > 0) {
        if (p->text.p[--at] != '"')
            continue;
        size_t backslashes = 0;
        while (backslashes < at && p->text.p[at - backslashes - 1] == '\\')
            backslashes++;
        if (backslashes % 2 == 0)
            break;
    }
    return at;
}

/* Memory. yajl uses what its allocator returns without a check, so the allocator never returns
 * NULL but leaves yajl; what yajl held goes with its arena. */

struct scratch {
    size_t size;
    _Alignas(16) unsigned char data[];
};

static void *scratch_alloc(void *ctx, size_t size)
{
    struct parser *p = ctx;
    struct scratch *piece = NULL;
    if (size < SIZE_MAX - sizeof(*piece))
        piece = sel_arena_alloc_raw(&p->scratch, sizeof(*piece) + size, 16);
    if (!piece)
        longjmp(p->no_memory, 1);
    piece->size = size;
    return piece->data;
}

static void scratch_free(void *ctx, void *ptr)
{
    (void)ctx; /* all at once, with the arena */
    (void)ptr;
}

static void *scratch_realloc(void *ctx, void *ptr, size_t size)
{
    void *copy = scratch_alloc(ctx, size);
    if (ptr) {
        size_t old = ((struct scratch *)((char *)ptr - offsetof(struct scratch, data)))->size;
        memcpy(copy, ptr, old < size ? old : size);
    }
    return copy;
}

static __attribute__((noreturn)) void leave_without_memory(struct parser *p)
{
    longjmp(p->no_memory, 1);
}

/* Values */

static struct item *push(struct parser *p, struct sel_value value)
{
    if (!sel_mem_grow(&p->items, &p->item_cap, (uint64_t)p->item_count + 1, sizeof(*p->items)))
        leave_without_memory(p);
    struct item *item = &p->items[p->item_count++];
    *item = (struct item){.value = value};
    return item;
}

static int on_null(void *ctx)
{
    push(ctx, sel_value_null);
    return 1;
}

static int on_boolean(void *ctx, int b)
{
    push(ctx, sel_value_from_bool(b != 0));
    return 1;
}

static struct item *push_text(struct parser *p, const unsigned char *text, size_t n)
{
    char *copy = sel_arena_alloc_raw(p->arena, n, 1);
    if (!copy)
        leave_without_memory(p);
    memcpy(copy, text, n);
    return push(p, sel_value_from_str((struct sel_str){copy, n}));
}

static int on_string(void *ctx, const unsigned char *text, size_t n)
{
    push_text(ctx, text, n);
    return 1;
}

static int on_map_key(void *ctx, const unsigned char *text, size_t n)
{
    struct parser *p = ctx;
    struct item *key = push_text(p, text, n);
    if (p->diag) {
        move_to(p, opening_quote(p, consumed(p)));
        key->line = p->pos.line;
        key->col = p->pos.col;
    }
    return 1;
}

static int refuse_number(struct parser *p, struct sel_str number, const char *why)
{
    size_t shown = number.n < 48 ? number.n : 48;
    p->code = sel_error_set(p->err, SEL_ERANGE, place_of(p, consumed(p) - number.n), "%.*s%s %s",
                            (int)shown, number.p, shown < number.n ? "..." : "", why);
    return 0;
}

/* `number` is an integer as RFC 8259 writes it. */
static bool parse_integer(struct sel_str number, struct sel_value *ret)
{
    bool is_negative = number.p[0] == '-';
    uint64_t value = 0;
    for (size_t i = is_negative; i < number.n; i++) {
        uint64_t digit = (uint64_t)(number.p[i] - '0');
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    if (is_negative && value > (uint64_t)INT64_MAX + 1)
        return false;
    *ret = is_negative ? sel_value_from_i64((int64_t)(0 - value)) : sel_value_from_u64(value);
    return true;
}

/* strtod wants a terminator, which the text does not promise. */
static double parse_float(struct parser *p, struct sel_str number)
{
    char small[64];
    if (number.n < sizeof(small)) {
        memcpy(small, number.p, number.n);
        small[number.n] = '\0';
        return strtod(small, NULL);
    }
    char *copy = sel_arena_strdup(&p->scratch, number);
    if (!copy)
        leave_without_memory(p);
    return strtod(copy, NULL);
}

static int on_number(void *ctx, const char *text, size_t n)
{
    struct parser *p = ctx;
    struct sel_str number = {text, n};
    if (memchr(text, '.', n) || memchr(text, 'e', n) || memchr(text, 'E', n)) {
        double f = parse_float(p, number);
        if (!isfinite(f))
            return refuse_number(p, number, "is too large for a float");
        push(p, sel_value_from_f64(f));
        return 1;
    }
    struct sel_value value;
    if (!parse_integer(number, &value))
        return refuse_number(p, number, "does not fit 64 bits");
    push(p, value);
    return 1;
}

static int on_start(void *ctx)
{
    struct parser *p = ctx;
    if (p->depth == SEL_VALUE_DEPTH_MAX) {
        p->code = sel_error_set(p->err, SEL_ELIMIT, place_of(p, consumed(p) - 1),
                                "lists and maps nest more than %d deep", SEL_VALUE_DEPTH_MAX);
        return 0;
    }
    p->frames[p->depth++].first = p->item_count;
    return 1;
}

/* Replaces the items of the innermost list or map by its value. */
static void pop(struct parser *p, bool is_map)
{
    SEL_ASSERT(p->depth > 0);
    uint32_t first = p->frames[--p->depth].first;
    uint32_t count = p->item_count - first;
    struct sel_value_builder builder = {.arena = p->arena, .is_map = is_map, .cap = count};
    if (count)
        builder.items = sel_arena_alloc_raw(p->arena, count * sizeof(*builder.items), 8);
    if (count && !builder.items)
        leave_without_memory(p);
    for (uint32_t i = 0; i < count; i++)
        builder.items[builder.count++] = p->items[first + i].value;
    struct sel_value value;
    if (sel_value_end(&builder, &value) < 0)
        leave_without_memory(p);
    p->item_count = first;
    push(p, value);
}

static int on_end_array(void *ctx)
{
    pop(ctx, false);
    return 1;
}

/* Duplicate keys */

/* From here on keys are looked up in a map instead of one by one. */
#define KEYS_INDEXED_FROM 16

struct keys {
    struct item *entries; /* key, value, key, value */
    struct sel_map index;
    bool is_indexed;
};

/* The entry before `count` with the same key, or `count`; takes the key in. */
static uint32_t find_or_add(struct keys *keys, uint32_t count, struct sel_str key, bool *ret_failed)
{
    uint32_t found = count;
    if (keys->is_indexed) {
        *ret_failed = sel_map_add(&keys->index, key, count, &found) < 0;
        return found;
    }
    for (found = 0; found < count; found++)
        if (sel_str_eq(sel_value_str(&keys->entries[2 * found].value), key))
            break;
    return found;
}

/* Packs the entries so that each key is left once, at its first place with its last value. */
static void merge_duplicates(struct parser *p, uint32_t first)
{
    uint32_t total = (p->item_count - first) / 2, count = 0;
    if (total == 0)
        return; /* there may be no stack yet to point into */
    struct keys keys = {.entries = &p->items[first], .is_indexed = total >= KEYS_INDEXED_FROM};
    bool failed = false;
    for (uint32_t i = 0; i < total && !failed; i++) {
        const struct item *entry = &keys.entries[2 * i];
        struct sel_str key = sel_value_str(&entry[0].value);
        uint32_t at = find_or_add(&keys, count, key, &failed);
        if (at < count && p->diag) {
            struct sel_pos pos = {.file = p->file, .line = entry[0].line, .col = entry[0].col};
            sel_diag_warning(p->diag, pos, "duplicate key '%.*s'; the last one counts",
                             SEL_STR_ARG(key));
        }
        keys.entries[2 * at + 1] = entry[1];
        if (at < count)
            continue;
        keys.entries[2 * at] = entry[0];
        count++;
    }
    sel_map_done(&keys.index);
    if (failed)
        leave_without_memory(p);
    p->item_count = first + 2 * count;
}

static int on_end_map(void *ctx)
{
    struct parser *p = ctx;
    SEL_ASSERT(p->depth > 0);
    merge_duplicates(p, p->frames[p->depth - 1].first);
    pop(p, true);
    return 1;
}

/* Checks that yajl leaves to us */

static int hex4(const char *p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The offset of the first \u escape that is half of a surrogate pair, text.n if there is none;
 * yajl would make garbage of it. Backslashes are only legal within texts. */
static size_t find_lone_surrogate(struct sel_str text)
{
    size_t at = 0;
    while (at < text.n) {
        const char *found = memchr(text.p + at, '\\', text.n - at);
        if (!found)
            break;
        at = (size_t)(found - text.p);
        int unit = text.n - at >= 6 && text.p[at + 1] == 'u' ? hex4(text.p + at + 2) : -1;
        if (unit < 0xd800 || unit > 0xdfff) {
            at += 2;
            continue;
        }
        const char *next = text.p + at + 6;
        int low = text.n - at >= 12 && next[0] == '\\' && next[1] == 'u' ? hex4(next + 2) : -1;
        if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff)
            return at;
        at += 12;
    }
    return text.n;
}

static bool begins_with(struct sel_str text, size_t at, struct sel_str word)
{
    return text.n - at >= word.n && memcmp(text.p + at, word.p, word.n) == 0;
}

/* Where the token begins that ends at `end`. */
static size_t token_start(const struct parser *p, size_t end)
{
    static const char word[] = "0123456789+-.ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const char *text = p->text.p;
    if (end == 0)
        return 0;
    if (text[end - 1] == '"')
        return opening_quote(p, end);
    size_t start = end - 1;
    if (!memchr(word, text[start], sizeof(word) - 1))
        return start;
    while (start > 0 && memchr(word, text[start - 1], sizeof(word) - 1))
        start--;
    return start;
}

/* Turns what yajl says into our error. It stands behind the token that it refuses, but for the
 * end of the text and for faults inside a string, where it stands at the fault. */
static int refuse_syntax(struct parser *p)
{
    const char *why = (const char *)yajl_get_error(p->handle, 0, NULL, 0);
    const char *colon = strchr(why, ':'); /* after "lexical error" or "parse error" */
    if (colon && colon[1] == ' ')
        why = colon + 2;
    size_t at = consumed(p);
    at = at < p->text.n ? at : p->text.n;
    if (!strstr(why, "premature EOF") && !strstr(why, "inside"))
        at = token_start(p, at);
    static const struct sel_str words[] = {SEL_STR("NaN"), SEL_STR("Infinity"),
                                           SEL_STR("-Infinity")};
    for (size_t i = 0; i < SEL_COUNT(words); i++)
        if (begins_with(p->text, at, words[i]))
            return sel_error_set(p->err, SEL_ESYNTAX, place_of(p, at), "%s is not JSON",
                                 words[i].p);
    if (strstr(why, "premature EOF"))
        why = "the text ends too early";
    return sel_error_set(p->err, SEL_ESYNTAX, place_of(p, at), "%.*s", (int)strcspn(why, "\n"),
                         why);
}

static int check_text(struct parser *p)
{
    if (p->text.n > UINT32_MAX)
        return sel_error_set(p->err, SEL_ELIMIT, (struct sel_pos){.file = p->file},
                             "more than 4 GiB of JSON");
    if (begins_with(p->text, 0, SEL_STR("\xef\xbb\xbf")))
        return sel_error_set(p->err, SEL_ESYNTAX, place_of(p, 0),
                             "begins with a byte order mark; save it without");
    size_t whole = sel_str_utf8_prefix(p->text);
    if (whole < p->text.n)
        return sel_error_set(p->err, SEL_ESYNTAX, place_of(p, whole), "not UTF-8");
    return 0;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number, /* as text, or yajl would make its own choice of 64-bit and double */
    .yajl_string = on_string,
    .yajl_start_map = on_start,
    .yajl_map_key = on_map_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start,
    .yajl_end_array = on_end_array,
};

static int run(struct parser *p)
{
    if (setjmp(p->no_memory) != 0)
        return sel_error_set(p->err, SEL_ENOMEM, (struct sel_pos){.file = p->file},
                             "no memory for the JSON text");
    yajl_alloc_funcs funcs = {scratch_alloc, scratch_realloc, scratch_free, p};
    p->handle = yajl_alloc(&callbacks, &funcs, p);
    yajl_config(p->handle, yajl_dont_validate_strings, 1); /* check_text did, and more strictly */
    yajl_status status = yajl_parse(p->handle, (const unsigned char *)p->text.p, p->text.n);
    if (status == yajl_status_ok) {
        p->at_end = true;
        status = yajl_complete_parse(p->handle);
    }
    size_t lone = find_lone_surrogate(p->text);
    if (lone < (status == yajl_status_ok ? p->text.n : consumed(p)))
        return sel_error_set(p->err, SEL_ESYNTAX, place_of(p, lone),
                             "half of a surrogate pair without the other half");
    if (status == yajl_status_ok)
        return 0;
    return p->code ? p->code : refuse_syntax(p);
}

int sel_json_parse(struct sel_arena *arena, const char *file, struct sel_str text,
                   struct sel_value *ret, struct sel_diag *diag, struct sel_error *err)
{
    struct parser p = {.arena = arena, .file = file, .text = text, .diag = diag, .err = err};
    move_to_start(&p);
    int r = check_text(&p);
    if (r == 0)
        r = run(&p);
    if (r == 0) {
        SEL_ASSERT(p.item_count == 1 && p.depth == 0);
        *ret = p.items[0].value;
    }
    sel_mem_free(p.items);
    sel_arena_done(&p.scratch);
    return r;
}
