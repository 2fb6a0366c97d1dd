#include "core/compile_internal.h"

#include <inttypes.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/suggest.h"

#define SHOW_BYTES_MAX 80

void *sel_compile_alloc(struct sel_compiler *c, struct sel_arena *arena, size_t count, size_t size)
{
    void *p = sel_arena_alloc_array(arena, count ? count : 1, size);
    if (!p)
        c->no_memory = true;
    return p;
}

struct sel_str sel_compile_keep(struct sel_compiler *c, struct sel_str text)
{
    const char *copy = sel_arena_strdup(c->arena, text);
    if (copy)
        return (struct sel_str){copy, text.n};
    c->no_memory = true;
    return SEL_STR("");
}

struct sel_pos sel_compile_keep_pos(struct sel_compiler *c, struct sel_pos pos)
{
    /* Neighbours in the work are neighbours in a file, so that one remembered copy is enough. */
    if (pos.file && pos.file != c->file_theirs) {
        c->file_ours = sel_compile_keep(c, sel_str_c(pos.file)).p;
        c->file_theirs = pos.file;
    }
    if (pos.file)
        pos.file = c->file_ours;
    return pos;
}

struct sel_value sel_compile_value(struct sel_compiler *c, const struct sel_ynode *node)
{
    struct sel_value borrowed, kept;
    if (sel_yaml_to_value(&c->scratch, node, &borrowed) == 0 &&
        sel_value_copy(c->arena, &borrowed, &kept) == 0)
        return kept;
    c->no_memory = true;
    return sel_value_null;
}

void sel_compile_inconsistent(struct sel_compiler *c, struct sel_pos pos, const char *fmt, ...)
{
    if (c->options->no_check)
        return;
    va_list args;
    va_start(args, fmt);
    const char *text = sel_arena_vprintf(&c->scratch, fmt, args);
    va_end(args);
    if (!text)
        c->no_memory = true;
    sel_diag_error(c->diag, pos, "%s", text ? text : "out of memory");
}

/* --- texts of messages --- */

static const char *scratch_text(struct sel_compiler *c, struct sel_buf *buf)
{
    const char *copy = buf->failed ? NULL : sel_arena_strdup(&c->scratch, sel_buf_str(buf));
    sel_buf_done(buf);
    if (!copy)
        c->no_memory = true;
    return copy ? copy : "";
}

const char *sel_compile_show(struct sel_compiler *c, struct sel_str text)
{
    struct sel_buf out = {0};
    size_t n = text.n;
    if (n > SHOW_BYTES_MAX) {
        n = SHOW_BYTES_MAX;
        while (n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80)
            n--; /* never within a character */
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text.p[i];
        if (byte == '\n')
            sel_buf_put_c(&out, "\\n");
        else if (byte < 0x20 || byte == 0x7f)
            sel_buf_printf(&out, "\\x%02x", byte);
        else
            sel_buf_put_u8(&out, byte);
    }
    if (n < text.n)
        sel_buf_put_c(&out, "...");
    return scratch_text(c, &out);
}

const char *sel_compile_got(struct sel_compiler *c, const struct sel_ynode *node)
{
    struct sel_buf out = {0};
    switch (node ? node->kind : SEL_NULL) {
    case SEL_NULL:
        return "nothing";
    case SEL_LIST:
        return node->list.count ? "a list" : "an empty list";
    case SEL_MAP:
        return node->map.count ? "a mapping" : "an empty mapping";
    case SEL_BIN:
        return "binary data";
    case SEL_BOOL:
        sel_buf_printf(&out, "the boolean %s", sel_compile_show(c, node->text));
        break;
    case SEL_INT:
    case SEL_FLOAT:
        sel_buf_printf(&out, "the number %s", sel_compile_show(c, node->text));
        break;
    case SEL_TEXT:
    case SEL_EXT:
        if (node->text.n == 0)
            return "an empty text";
        sel_buf_printf(&out, "the text '%s'", sel_compile_show(c, node->text));
        break;
    }
    return scratch_text(c, &out);
}

/* False when the run has compared enough: thousands of unknown names among thousands of known ones
 * would else take minutes, and nobody reads that many hints. */
static bool may_suggest(struct sel_compiler *c, uint32_t count)
{
    if (count > c->suggest_left)
        return false;
    c->suggest_left -= count;
    return true;
}

static const char *hint(struct sel_compiler *c, const struct sel_suggest *suggest,
                        const char *otherwise)
{
    struct sel_str best;
    if (!sel_suggest_get(suggest, &best))
        return otherwise;
    const char *text =
        sel_arena_printf(&c->scratch, "; did you mean '%s'?", sel_compile_show(c, best));
    if (!text)
        c->no_memory = true;
    return text ? text : otherwise;
}

const char *sel_compile_hint(struct sel_compiler *c, struct sel_str wanted,
                             const char *const *names, uint32_t count, const char *otherwise)
{
    struct sel_suggest suggest;
    sel_suggest_init(&suggest, wanted);
    if (!may_suggest(c, count))
        return otherwise;
    for (uint32_t i = 0; i < count; i++)
        sel_suggest_offer(&suggest, sel_str_c(names[i]));
    return hint(c, &suggest, otherwise);
}

const char *sel_compile_hint_node(struct sel_compiler *c, struct sel_str wanted,
                                  enum sel_compile_names among, const char *otherwise)
{
    const struct sel_system *s = c->system;
    struct sel_suggest suggest;
    sel_suggest_init(&suggest, wanted);
    if (!may_suggest(c, s->task_count + s->flow_count))
        return otherwise;
    for (uint32_t i = 0; (among & SEL_COMPILE_TASKS) && i < s->task_count; i++)
        sel_suggest_offer(&suggest, s->tasks[i].name);
    for (uint32_t i = 0; (among & SEL_COMPILE_FLOWS) && i < s->flow_count; i++)
        sel_suggest_offer(&suggest, s->flows[i].name);
    return hint(c, &suggest, otherwise);
}

/* --- types and keys --- */

bool sel_compile_is_map(struct sel_compiler *c, const struct sel_ynode *node, const char *what)
{
    if (node->kind == SEL_MAP)
        return true;
    sel_diag_error(c->diag, node->pos, "%s must be a mapping of keys and values; got %s", what,
                   sel_compile_got(c, node));
    return false;
}

static uint32_t count_names(const char *const *names)
{
    uint32_t count = 0;
    while (names[count])
        count++;
    return count;
}

static bool is_known(const struct sel_ynode *key, const char *const *known)
{
    for (; sel_compile_is_text(key) && *known; known++) {
        if (sel_str_eq_c(key->text, *known))
            return true;
    }
    return false;
}

/* "unknown key 'x' in a task; did you mean 'y'?", or the keys there are. */
static const char *unknown_key(struct sel_compiler *c, const struct sel_ynode *key,
                               const char *what, const char *const *known)
{
    struct sel_buf out = {0};
    if (sel_compile_is_text(key))
        sel_buf_printf(&out, "unknown key '%s' in %s", sel_compile_show(c, key->text), what);
    else
        sel_buf_printf(&out, "unknown key in %s: %s", what, sel_compile_got(c, key));
    const char *near = "";
    if (sel_compile_is_text(key))
        near = sel_compile_hint(c, key->text, known, count_names(known), "");
    sel_buf_put_c(&out, near);
    for (uint32_t i = 0; *near == '\0' && known[i]; i++)
        sel_buf_printf(&out, "%s%s", i ? ", " : "; known are ", known[i]);
    return scratch_text(c, &out);
}

bool sel_compile_check_keys(struct sel_compiler *c, const struct sel_ynode *map, const char *what,
                            const char *const *known)
{
    bool ok = true;
    for (uint32_t i = 0; i < map->map.count; i++) {
        const struct sel_ynode *key = map->map.pairs[i].key;
        if (is_known(key, known))
            continue;
        sel_diag_error(c->diag, key->pos, "%s", unknown_key(c, key, what, known));
        ok = false;
    }
    return ok;
}

void sel_compile_warn_keys(struct sel_compiler *c, const struct sel_ynode *map, const char *what,
                           const char *const *known)
{
    for (uint32_t i = 0; i < map->map.count; i++) {
        const struct sel_ynode *key = map->map.pairs[i].key;
        if (!is_known(key, known))
            sel_diag_warning(c->diag, key->pos, "ignored: %s", unknown_key(c, key, what, known));
    }
}

bool sel_compile_is_falsy(const struct sel_ynode *node)
{
    if (!node)
        return true;
    switch (node->kind) {
    case SEL_NULL:
        return true;
    case SEL_BOOL:
        return !node->b;
    case SEL_INT:
    case SEL_FLOAT:
        return !sel_value_is_true(&node->num);
    case SEL_TEXT:
    case SEL_BIN:
    case SEL_EXT:
        return node->text.n == 0;
    case SEL_LIST:
        return node->list.count == 0;
    case SEL_MAP:
        return node->map.count == 0;
    }
    return false;
}

struct sel_str sel_compile_any_text(struct sel_compiler *c, const struct sel_ynode *node,
                                    const char *what)
{
    if (!node)
        return SEL_STR("");
    if (node->kind == SEL_TEXT)
        return sel_compile_keep(c, node->text);
    struct sel_value value = sel_compile_value(c, node);
    struct sel_buf out = {0};
    sel_json_write(&value, 0, &out);
    const char *text = scratch_text(c, &out);
    bool is_scalar = node->kind != SEL_LIST && node->kind != SEL_MAP;
    struct sel_str read = is_scalar && node->text.n > 0 ? node->text : sel_str_c(text);
    sel_diag_warning(c->diag, node->pos, "%s should be a text; got %s, read as '%s'", what,
                     sel_compile_got(c, node), sel_compile_show(c, read));
    return sel_compile_keep(c, read);
}

bool sel_compile_bool(struct sel_compiler *c, const struct sel_ynode *map, const char *key,
                      bool *ret)
{
    const struct sel_ynode *node = sel_yaml_get(map, key);
    if (!node)
        return true;
    if (node->kind == SEL_BOOL) {
        *ret = node->b;
        return true;
    }
    sel_diag_error(c->diag, node->pos, "`%s` must be true or false; got %s", key,
                   sel_compile_got(c, node));
    return false;
}

void sel_compile_items(struct sel_compile_items *items, const struct sel_ynode *node)
{
    if (node->kind == SEL_LIST) {
        *items = (struct sel_compile_items){.p = node->list.items, .count = node->list.count};
        return;
    }
    items->one = node;
    items->p = &items->one;
    items->count = 1;
}

/* --- names --- */

/* False after an error: only texts are names. */
static bool is_name(struct sel_compiler *c, const struct sel_ynode *name, const char *what)
{
    if (sel_compile_is_text(name))
        return true;
    const char *advice = name->kind == SEL_BOOL ? "; in YAML this word is a boolean, quote it" : "";
    sel_diag_error(c->diag, name->pos, "%s must be named by a text; got %s%s", what,
                   sel_compile_got(c, name), advice);
    return false;
}

uint32_t sel_compile_node(struct sel_compiler *c, const struct sel_ynode *name)
{
    if (!is_name(c, name, "a task or flow"))
        return SEL_NONE;
    uint32_t node = sel_system_find(c->system, name->text);
    if (node == SEL_NONE && !c->names_unknown)
        sel_diag_error(c->diag, name->pos, "task or flow '%s' is not declared%s",
                       sel_compile_show(c, name->text),
                       sel_compile_hint_node(c, name->text, SEL_COMPILE_NODES,
                                             "; add it to `tasks` or `flows`"));
    return node;
}

uint32_t sel_compile_flow_node(struct sel_compiler *c, const struct sel_ynode *name)
{
    if (!is_name(c, name, "a flow"))
        return SEL_NONE;
    uint32_t node = sel_system_find(c->system, name->text);
    if (node != SEL_NONE && sel_compile_is_flow(c, node))
        return node;
    if (node != SEL_NONE)
        sel_diag_error(c->diag, name->pos, "'%s' is a task, a flow is needed here",
                       sel_compile_show(c, name->text));
    else if (!c->names_unknown)
        sel_diag_error(
            c->diag, name->pos, "flow '%s' is not declared%s", sel_compile_show(c, name->text),
            sel_compile_hint_node(c, name->text, SEL_COMPILE_FLOWS, "; list it under `flows`"));
    return SEL_NONE;
}

/* Whether the storage `index` was given the name that `name` is: 5 is not '5'. */
static bool storage_has_name(struct sel_compiler *c, uint32_t index, const struct sel_ynode *name)
{
    struct sel_value a = sel_compile_value(c, c->storage_names[index]);
    struct sel_value b = sel_compile_value(c, name);
    return sel_value_equal(&a, &b);
}

uint32_t sel_compile_storage_index(struct sel_compiler *c, const struct sel_ynode *name)
{
    const struct sel_system *s = c->system;
    uint32_t index;
    if (sel_compile_is_text(name)) {
        if (sel_map_get(&s->storage_names, name->text, &index) &&
            sel_compile_is_text(c->storage_names[index]))
            return index;
    } else {
        for (index = 0; index < s->storage_count; index++) {
            if (storage_has_name(c, index, name))
                return index;
        }
        sel_diag_error(c->diag, name->pos, "`storage` must name a storage; got %s",
                       sel_compile_got(c, name));
        return SEL_NONE;
    }
    if (c->storages_unknown)
        return SEL_NONE;
    struct sel_suggest suggest;
    sel_suggest_init(&suggest, name->text);
    for (index = 0; may_suggest(c, 1) && index < s->storage_count; index++)
        sel_suggest_offer(&suggest, s->storages[index].name);
    sel_diag_error(c->diag, name->pos, "storage '%s' is not declared%s",
                   sel_compile_show(c, name->text), hint(c, &suggest, "; add it to `storages`"));
    return SEL_NONE;
}

uint32_t sel_compile_slot(struct sel_compiler *c, uint32_t node, struct sel_pos pos)
{
    if (c->slot_round[node] == c->round)
        return c->slot_of[node];
    if (!sel_mem_grow(&c->slots, &c->slot_cap, (uint64_t)c->slot_count + 1, sizeof(*c->slots))) {
        c->no_memory = true;
        return SEL_NONE;
    }
    uint32_t slot = c->slot_count++;
    c->slots[slot] = (struct sel_compile_slot){.node = node, .pos = pos};
    c->slot_of[node] = slot;
    c->slot_round[node] = c->round;
    if (!sel_compile_is_flow(c, node))
        c->task_used[node] = true;
    return slot;
}

uint32_t sel_compile_slot_get(const struct sel_compiler *c, uint32_t node)
{
    return c->slot_round[node] == c->round ? c->slot_of[node] : SEL_NONE;
}

const char *sel_compile_node_name(const struct sel_compiler *c, uint32_t node)
{
    return sel_system_node_name(c->system, node).p; /* kept texts are terminated */
}

const char *sel_compile_slot_name(const struct sel_compiler *c, uint32_t slot)
{
    return sel_compile_node_name(c, c->slots[slot].node);
}
