#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/format.h"
#include "core/json.h"

#define COLUMNS_MAX 64
#define DEPTH_MAX 4 /* of maps in maps; what is deeper is shown as JSON */
#define GAP 2

struct cell {
    const char *text;
    uint32_t width; /* code points */
    bool right;
};

/* ---- one value ---- */

static bool has_word(const char *text, size_t n, const char *word)
{
    const char *at = memmem(text, n, word, strlen(word));
    if (!at)
        return false;
    const char *end = at + strlen(word);
    return (at == text || at[-1] == '_') && (end == text + n || *end == '_');
}

enum unit { UNIT_NONE, UNIT_COUNT, UNIT_TIME, UNIT_SIZE };

static enum unit unit_of_part(const char *part, size_t n)
{
    if (n == 5 && memcmp(part, "count", 5) == 0)
        return UNIT_COUNT;
    if (has_word(part, n, "us"))
        return UNIT_TIME;
    if (has_word(part, n, "bytes") || has_word(part, n, "memory"))
        return UNIT_SIZE;
    return UNIT_NONE;
}

/* The last part of the name that has one: `p99` of `commit_us.p99` is a time. */
static enum unit unit_of(const char *key)
{
    const char *end = key + strlen(key);
    for (;;) {
        const char *dot = memrchr(key, '.', (size_t)(end - key));
        const char *part = dot ? dot + 1 : key;
        enum unit unit = unit_of_part(part, (size_t)(end - part));
        if (unit != UNIT_NONE || !dot)
            return unit;
        end = dot;
    }
}

static const char *format_size(uint64_t bytes, char out[SEL_CLI_FORMAT_SIZE])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i + 1 < SEL_COUNT(names); i++)
        value /= 1024;
    if (i == 0)
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(out, SEL_CLI_FORMAT_SIZE, "%.*f %s", value < 10 ? 1 : 0, value, names[i]);
    return out;
}

static const char *int_cell(struct sel_arena *arena, const char *key, const struct sel_value *value)
{
    char text[SEL_CLI_FORMAT_SIZE];
    int64_t i;
    uint64_t u = value->o.via.u64;
    bool fits = sel_value_i64(value, &i);
    if (fits && i < 0)
        return sel_arena_printf(arena, "%" PRId64, i);
    switch (unit_of(key)) {
    case UNIT_TIME:
        (void)sel_cli_format_time(fits ? i : INT64_MAX, text);
        break;
    case UNIT_SIZE:
        (void)format_size(u, text);
        break;
    default:
        (void)sel_cli_format_count(u, text);
    }
    return sel_arena_strdup(arena, sel_str_c(text));
}

void sel_cli_table_clean(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool is_c1 = (unsigned char)text[i] == 0xc2 && i + 1 < n &&
                     (unsigned char)text[i + 1] >= 0x80 && (unsigned char)text[i + 1] < 0xa0;
        if (is_c1)
            text[i + 1] = '?';
        if (is_c1 || (unsigned char)text[i] < ' ' || text[i] == 0x7f)
            text[i] = '?';
    }
}

static const char *text_cell(struct sel_arena *arena, struct sel_str s)
{
    char *text = sel_arena_strdup(arena, s);
    if (text)
        sel_cli_table_clean(text, s.n);
    return text;
}

static const char *json_cell(struct sel_arena *arena, const struct sel_value *value)
{
    struct sel_buf buf = {0};
    sel_json_write(value, SEL_JSON_SPACED | SEL_JSON_ASCII, &buf);
    const char *text = sel_buf_error(&buf) == 0 ? sel_arena_strdup(arena, sel_buf_str(&buf)) : NULL;
    sel_buf_done(&buf);
    return text;
}

/* "a, b, c" for a list of texts, as the queues of a worker. */
static const char *list_cell(struct sel_arena *arena, const struct sel_value *list)
{
    struct sel_buf buf = {0};
    for (uint32_t i = 0; i < sel_value_count(list); i++) {
        const struct sel_value *item = sel_value_at(list, i);
        if (!sel_value_is(item, SEL_TEXT)) {
            sel_buf_done(&buf);
            return json_cell(arena, list);
        }
        sel_buf_put_c(&buf, i ? ", " : "");
        sel_buf_put_str(&buf, sel_value_str(item));
    }
    const char *text = NULL;
    if (sel_buf_error(&buf) == 0)
        text = buf.n > 0 ? text_cell(arena, sel_buf_str(&buf)) : "-";
    sel_buf_done(&buf);
    return text;
}

const char *sel_cli_table_cell(struct sel_arena *arena, const char *key,
                               const struct sel_value *value)
{
    switch (sel_value_kind(value)) {
    case SEL_NULL:
        return "-";
    case SEL_BOOL:
        return sel_value_bool(value) ? "yes" : "no";
    case SEL_INT:
        return int_cell(arena, key, value);
    case SEL_FLOAT:
        return sel_arena_printf(arena, "%.6g", sel_value_num(value));
    case SEL_TEXT:
        return text_cell(arena, sel_value_str(value));
    case SEL_LIST:
        return list_cell(arena, value);
    default:
        return json_cell(arena, value);
    }
}

static bool is_number(const struct sel_value *value)
{
    return sel_value_is(value, SEL_INT) || sel_value_is(value, SEL_FLOAT);
}

static int make_cell(struct sel_arena *arena, const char *key, const struct sel_value *value,
                     struct cell *ret)
{
    const char *text = sel_cli_table_cell(arena, key, value);
    if (!text)
        return SEL_ENOMEM;
    *ret = (struct cell){text, (uint32_t)sel_str_code_points(sel_str_c(text)), is_number(value)};
    return 0;
}

/* ---- lines ---- */

static void put_cell(struct sel_buf *out, const struct cell *cell, uint32_t width, bool is_last)
{
    uint32_t fill = width > cell->width ? width - cell->width : 0;
    if (cell->right)
        sel_buf_printf(out, "%*s%s", (int)fill, "", cell->text);
    else
        sel_buf_printf(out, "%s%*s", cell->text, is_last ? 0 : (int)fill, "");
    if (!is_last)
        sel_buf_printf(out, "%*s", GAP, "");
}

static void put_grid(struct sel_buf *out, const struct cell *cells, uint32_t rows, uint32_t columns)
{
    uint32_t widths[COLUMNS_MAX] = {0};
    for (uint32_t i = 0; i < rows * columns; i++) {
        if (cells[i].width > widths[i % columns])
            widths[i % columns] = cells[i].width;
    }
    for (uint32_t i = 0; i < rows * columns; i++) {
        bool is_last = i % columns == columns - 1;
        put_cell(out, &cells[i], widths[i % columns], is_last);
        if (is_last)
            sel_buf_put_u8(out, '\n');
    }
}

/* ---- a map ---- */

struct rows {
    struct sel_arena *arena;
    struct cell *cells; /* two a row */
    uint32_t count, cap;
};

static int add_row(struct rows *rows, const char *key, const struct sel_value *value)
{
    if (rows->count == rows->cap) {
        uint32_t cap = rows->cap ? rows->cap * 2 : 32;
        struct cell *cells = SEL_ARENA_NEW_ARRAY(rows->arena, struct cell, (size_t)cap * 2);
        if (!cells)
            return SEL_ENOMEM;
        if (rows->count > 0)
            memcpy(cells, rows->cells, (size_t)rows->count * 2 * sizeof(*cells));
        rows->cells = cells;
        rows->cap = cap;
    }
    struct cell *row = rows->cells + (size_t)rows->count++ * 2;
    row[0] = (struct cell){key, (uint32_t)sel_str_code_points(sel_str_c(key)), false};
    int r = make_cell(rows->arena, key, value, &row[1]);
    row[1].right = false; /* values of all kinds stand below each other */
    return r;
}

static int add_map(struct rows *rows, const char *prefix, const struct sel_value *map,
                   uint32_t depth)
{
    for (uint32_t i = 0; i < sel_value_count(map); i++) {
        const struct sel_value *value = sel_value_val_at(map, i);
        const char *name = sel_cli_table_cell(rows->arena, "", sel_value_key_at(map, i));
        const char *key =
            name ? sel_arena_printf(rows->arena, "%s%s%s", prefix, *prefix ? "." : "", name) : NULL;
        if (!key)
            return SEL_ENOMEM;
        int r = sel_value_is(value, SEL_MAP) && depth < DEPTH_MAX
                    ? add_map(rows, key, value, depth + 1)
                    : add_row(rows, key, value);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- a list of maps ---- */

static const struct sel_value *value_in(const struct sel_value *row, const char *key)
{
    const struct sel_value *value = sel_value_get_c(row, key);
    return value ? value : &sel_value_null;
}

/* The keys of all rows, in the order in which they first come. Returns their number, 0 also if
 * there is no memory. */
static uint32_t collect_columns(struct sel_arena *arena, const struct sel_value *list,
                                const char *columns[COLUMNS_MAX])
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < sel_value_count(list); r++) {
        const struct sel_value *row = sel_value_at(list, r);
        for (uint32_t i = 0; i < sel_value_count(row); i++) {
            const struct sel_value *key = sel_value_key_at(row, i);
            if (!sel_value_is(key, SEL_TEXT) || count == COLUMNS_MAX)
                continue;
            uint32_t c = 0;
            while (c < count && !sel_str_eq_c(sel_value_str(key), columns[c]))
                c++;
            if (c == count && !(columns[count++] = text_cell(arena, sel_value_str(key))))
                return 0;
        }
    }
    return count;
}

static int print_list(struct sel_arena *arena, const struct sel_value *list, struct sel_buf *out)
{
    const char *names[COLUMNS_MAX];
    uint32_t columns = collect_columns(arena, list, names), rows = sel_value_count(list) + 1;
    struct cell *cells = SEL_ARENA_NEW_ARRAY(arena, struct cell, (size_t)rows * columns);
    if (columns == 0 || !cells)
        return SEL_ENOMEM;
    for (uint32_t c = 0; c < columns; c++) {
        bool right = false;
        for (uint32_t r = 1; r < rows; r++) {
            const struct sel_value *row = sel_value_at(list, r - 1);
            struct cell *cell = &cells[r * columns + c];
            int error = make_cell(arena, names[c], value_in(row, names[c]), cell);
            if (error < 0)
                return error;
            right |= cell->right;
        }
        cells[c] =
            (struct cell){names[c], (uint32_t)sel_str_code_points(sel_str_c(names[c])), right};
    }
    put_grid(out, cells, rows, columns);
    return 0;
}

static bool is_table(const struct sel_value *value)
{
    if (!sel_value_is(value, SEL_LIST))
        return false;
    for (uint32_t i = 0; i < sel_value_count(value); i++) {
        const struct sel_value *row = sel_value_at(value, i);
        if (!sel_value_is(row, SEL_MAP) || sel_value_count(row) == 0)
            return false;
    }
    return true;
}

int sel_cli_table_print(struct sel_arena *arena, const struct sel_value *value, const char *empty,
                        struct sel_buf *out)
{
    int r = 0;
    if (sel_value_is(value, SEL_MAP)) {
        struct rows rows = {.arena = arena};
        r = add_map(&rows, "", value, 0);
        if (r == 0)
            put_grid(out, rows.cells, rows.count, 2);
    } else if (is_table(value) && sel_value_count(value) > 0) {
        r = print_list(arena, value, out);
    } else if (is_table(value)) {
        sel_buf_printf(out, "%s\n", empty);
    } else {
        const char *text = sel_cli_table_cell(arena, "", value);
        if (!text)
            return SEL_ENOMEM;
        sel_buf_printf(out, "%s\n", text);
    }
    return r == 0 ? sel_buf_error(out) : r;
}
