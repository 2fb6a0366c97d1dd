#include "core/yaml.h"

#include <stdio.h>
#include <yaml.h>

#include "core/arena.h"
#include "core/hash.h"
#include "core/mem.h"
#include "core/yaml_pairs.h"
#include "core/yaml_scalar.h"

/* A list or mapping that is being read. */
struct frame {
    struct sel_ynode *node;
    enum sel_yaml_tag tag;
    uint32_t base;   /* its first child in composer.children */
    uint32_t anchor; /* position in composer.anchors or NO_ANCHOR */
    uint32_t height; /* of the highest child */
    uint64_t before; /* nodes of the document before it */
};

#define NO_ANCHOR UINT32_MAX

struct anchor {
    const struct sel_ynode *node;
    uint64_t node_count; /* with everything below it, aliases expanded */
    uint32_t height;     /* 1: a scalar or something empty */
    bool is_open;        /* still being read: an alias now would contain itself */
};

struct composer {
    struct sel_arena *arena;
    struct sel_diag *diag;
    const char *file;
    struct sel_str source;
    yaml_parser_t parser;

    struct frame frames[SEL_YAML_DEPTH_MAX];
    uint32_t depth;
    const struct sel_ynode **children; /* of all open frames, one behind the other */
    uint32_t child_count, child_cap;
    struct anchor *anchors;
    uint32_t anchor_count, anchor_cap;
    struct sel_map anchor_names;
    struct sel_yaml_pairs pairs; /* of one mapping; reused for each */

    uint64_t node_count; /* aliases expanded */
    const struct sel_ynode *root;
    int result; /* code of the first error that did not stop the reading */
};

/* Stands for a `<<` among the children of a mapping. */
static const struct sel_ynode merge_mark = {.kind = SEL_TEXT, .text = {"<<", 2}};

#define SHOWN_MAX 60

/* ---- errors ---- */

static struct sel_pos pos_of(const struct composer *c, const yaml_mark_t *mark)
{
    return (struct sel_pos){c->file, (uint32_t)mark->line + 1, (uint32_t)mark->column + 1};
}

/* An error after which reading goes on, to find more of them. */
#define NOTE_ERROR(c, code, ...)                                                                   \
    do {                                                                                           \
        sel_diag_error((c)->diag, __VA_ARGS__);                                                    \
        if ((c)->result == 0)                                                                      \
            (c)->result = (code);                                                                  \
    } while (0)

static int out_of_memory(const struct composer *c)
{
    sel_diag_error(c->diag, (struct sel_pos){.file = c->file},
                   "the file needs more memory than there is");
    return SEL_ENOMEM;
}

/* As much of a user's text as a message can bear, cut between characters; control characters, which
 * would break its line, are spelled out. */
static const char *shown(const struct composer *c, struct sel_str text)
{
    size_t n = text.n < SHOWN_MAX ? text.n : SHOWN_MAX, out_n = 0;
    while (n < text.n && n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80)
        n--;
    char *out = sel_arena_alloc_raw(c->arena, n * 4 + 1, 1);
    if (!out)
        return "";
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text.p[i];
        if (byte >= 0x20 && byte != 0x7f)
            out[out_n++] = (char)byte;
        else if (byte == '\n')
            out_n += (size_t)snprintf(out + out_n, 3, "\\n");
        else
            out_n += (size_t)snprintf(out + out_n, 5, "\\x%02x", byte);
    }
    out[out_n] = 0;
    return out;
}

/* The place of a byte. libyaml gives no mark for bytes that are no characters at all. */
static struct sel_pos pos_of_byte(const struct composer *c, size_t offset)
{
    struct sel_pos pos = {c->file, 1, 1};
    size_t end = offset < c->source.n ? offset : c->source.n;
    for (size_t i = 0; i < end; i++) {
        unsigned char byte = (unsigned char)c->source.p[i];
        if (byte == '\n') {
            pos.line++;
            pos.col = 1;
        } else if ((byte & 0xc0) != 0x80) {
            pos.col++; /* columns count characters */
        }
    }
    return pos;
}

/* Whether the place is at a tab, which YAML forbids for indentation: worth saying plainly. */
static bool is_tab_at(const struct composer *c, struct sel_pos pos)
{
    const char *p = c->source.p, *end = p + c->source.n;
    for (uint32_t line = 1; line < pos.line && p; line++) {
        p = memchr(p, '\n', (size_t)(end - p));
        p = p ? p + 1 : NULL;
    }
    return p && pos.col <= (size_t)(end - p) && p[pos.col - 1] == '\t';
}

static int reader_error(const struct composer *c)
{
    const yaml_parser_t *parser = &c->parser;
    struct sel_pos pos = pos_of_byte(c, parser->problem_offset);
    if (parser->problem && strcmp(parser->problem, "control characters are not allowed") == 0)
        sel_diag_error(c->diag, pos, "control character U+%04X is not allowed; remove it",
                       (unsigned)parser->problem_value);
    else
        sel_diag_error(c->diag, pos, "invalid UTF-8 (%s); save the file as UTF-8",
                       parser->problem ? parser->problem : "unreadable");
    return SEL_ESYNTAX;
}

/* What libyaml found wrong, in our form. */
static int parser_error(const struct composer *c)
{
    const yaml_parser_t *parser = &c->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory(c);
    if (parser->error == YAML_READER_ERROR)
        return reader_error(c);
    struct sel_pos pos = pos_of(c, &parser->problem_mark);
    const char *problem = parser->problem ? parser->problem : "syntax error";
    if (is_tab_at(c, pos))
        sel_diag_error(c->diag, pos, "a tab cannot stand here; indent with spaces");
    else if (parser->context && parser->context_mark.index != parser->problem_mark.index)
        sel_diag_error(c->diag, pos, "%s %s that begins at %zu:%zu", problem, parser->context,
                       parser->context_mark.line + 1, parser->context_mark.column + 1);
    else
        sel_diag_error(c->diag, pos, "%s", problem);
    return SEL_ESYNTAX;
}

/* ---- pairs of one mapping ---- */

/* Adds a pair, or gives the key that is there its new value, in its old position. 0 or
 * SEL_ENOMEM. */
static int put(struct composer *c, struct sel_ypair pair, bool is_own)
{
    struct sel_yaml_pair *old = NULL;
    int r = sel_yaml_pairs_put(&c->pairs, pair, is_own, &old);
    if (r < 0)
        return out_of_memory(c);
    if (r == 1)
        return 0;
    if (is_own && old->is_own)
        sel_diag_warning(c->diag, pair.key->pos,
                         "key '%s' is here twice, first in line %u; the later one counts",
                         shown(c, pair.key->text), old->pair.key->pos.line);
    if (old->pair.key->kind != pair.key->kind)
        pair.key = old->pair.key; /* 1, then 1.0: the key stays what it was first */
    *old = (struct sel_yaml_pair){pair, is_own};
    return 0;
}

static int put_all(struct composer *c, const struct sel_ynode *map)
{
    for (uint32_t i = 0; i < map->map.count; i++) {
        int r = put(c, map->map.pairs[i], false);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Merges what stands behind a `<<`: of a list the earlier mapping wins, so it comes later. */
static int merge(struct composer *c, const struct sel_ynode *from)
{
    if (from->kind == SEL_MAP)
        return put_all(c, from);
    bool is_good = from->kind == SEL_LIST;
    for (uint32_t i = 0; is_good && i < from->list.count; i++)
        is_good = from->list.items[i]->kind == SEL_MAP;
    if (!is_good) {
        NOTE_ERROR(c, SEL_ETYPE, from->pos,
                   "`<<` merges a mapping or a list of mappings, this is neither");
        return 0;
    }
    for (uint32_t i = from->list.count; i > 0; i--) {
        int r = put_all(c, from->list.items[i - 1]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_pairs(struct composer *c, struct sel_ynode *node)
{
    const struct sel_yaml_pairs *from = &c->pairs;
    struct sel_ypair *pairs = sel_arena_alloc_raw(
        c->arena, (from->count ? from->count : 1) * sizeof(*pairs), _Alignof(struct sel_ypair));
    if (!pairs)
        return out_of_memory(c);
    for (uint32_t i = 0; i < from->count; i++)
        pairs[i] = from->items[i].pair;
    node->kind = SEL_MAP;
    node->map.pairs = pairs;
    node->map.count = from->count;
    return 0;
}

/* ---- ends of lists and mappings ---- */

/* `!!set`: only the keys count. */
static int drop_values(struct composer *c, struct sel_ynode *node)
{
    struct sel_ypair *pairs = SEL_ARENA_NEW_ARRAY(c->arena, struct sel_ypair, node->map.count);
    struct sel_ynode *null = SEL_ARENA_NEW(c->arena, struct sel_ynode);
    if (!null || (!pairs && node->map.count))
        return out_of_memory(c);
    *null = (struct sel_ynode){.kind = SEL_NULL, .pos = node->pos, .text = SEL_STR("")};
    for (uint32_t i = 0; i < node->map.count; i++)
        pairs[i] = (struct sel_ypair){node->map.pairs[i].key, null};
    node->map.pairs = pairs;
    return 0;
}

static int finish_map(struct composer *c, const struct frame *f)
{
    uint32_t count = c->child_count - f->base;
    const struct sel_ynode *const *items = count ? c->children + f->base : NULL;
    SEL_ASSERT(count % 2 == 0);
    int r = 0;
    c->pairs.count = 0;
    for (uint32_t i = 0; i < count && r == 0; i += 2) {
        if (items[i] == &merge_mark)
            r = merge(c, items[i + 1]);
    }
    for (uint32_t i = 0; i < count && r == 0; i += 2) {
        if (items[i] != &merge_mark)
            r = put(c, (struct sel_ypair){items[i], items[i + 1]}, true);
    }
    if (r == 0)
        r = take_pairs(c, f->node);
    return r == 0 && f->tag == SEL_YAML_SET ? drop_values(c, f->node) : r;
}

static int make_list(struct composer *c, struct sel_ynode *node,
                     const struct sel_ynode *const *from, uint32_t count)
{
    const struct sel_ynode **items = sel_arena_alloc_raw(
        c->arena, (count ? count : 1) * sizeof(const struct sel_ynode *), sizeof(void *));
    if (!items)
        return out_of_memory(c);
    if (count)
        memcpy(items, from, count * sizeof(const struct sel_ynode *));
    node->kind = SEL_LIST;
    node->list.items = items;
    node->list.count = count;
    return 0;
}

/* `!!pairs`: a list of mappings with one pair each becomes a list of lists [key, value]. */
static int finish_pairs(struct composer *c, const struct frame *f)
{
    for (uint32_t i = f->base; i < c->child_count; i++) {
        const struct sel_ynode *item = c->children[i];
        struct sel_ynode *two = sel_arena_alloc_raw(c->arena, sizeof(*two), _Alignof(max_align_t));
        if (!two)
            return out_of_memory(c);
        *two = (struct sel_ynode){.pos = item->pos};
        const struct sel_ynode *items[2] = {item->map.pairs[0].key, item->map.pairs[0].val};
        int r = make_list(c, two, items, 2);
        if (r < 0)
            return r;
        c->children[i] = two;
    }
    uint32_t count = c->child_count - f->base;
    return make_list(c, f->node, count ? c->children + f->base : NULL, count);
}

/* `!!omap`: the same becomes a mapping, since ours keep their order. */
static int finish_omap(struct composer *c, const struct frame *f)
{
    c->pairs.count = 0;
    for (uint32_t i = f->base; i < c->child_count; i++) {
        int r = put(c, c->children[i]->map.pairs[0], true);
        if (r < 0)
            return r;
    }
    return take_pairs(c, f->node);
}

static int finish_list(struct composer *c, const struct frame *f)
{
    uint32_t count = c->child_count - f->base;
    if (f->tag != SEL_YAML_OMAP && f->tag != SEL_YAML_PAIRS)
        return make_list(c, f->node, count ? c->children + f->base : NULL, count);
    for (uint32_t i = f->base; i < c->child_count; i++) {
        const struct sel_ynode *item = c->children[i];
        if (item->kind == SEL_MAP && item->map.count == 1)
            continue;
        NOTE_ERROR(c, SEL_ETYPE, item->pos, "expected a mapping with one key here, for %s",
                   f->tag == SEL_YAML_OMAP ? "!!omap" : "!!pairs");
        return make_list(c, f->node, NULL, 0);
    }
    return f->tag == SEL_YAML_OMAP ? finish_omap(c, f) : finish_pairs(c, f);
}

/* ---- nodes ---- */

static bool is_key_next(const struct composer *c)
{
    if (c->depth == 0)
        return false;
    const struct frame *f = &c->frames[c->depth - 1];
    return f->node->kind == SEL_MAP && (c->child_count - f->base) % 2 == 0;
}

static int count_nodes(struct composer *c, struct sel_pos pos, uint64_t more)
{
    if (more > SEL_YAML_NODES_MAX - c->node_count) {
        sel_diag_error(c->diag, pos, "too much: with aliases expanded at most %d nodes are allowed",
                       SEL_YAML_NODES_MAX);
        return SEL_ELIMIT;
    }
    c->node_count += more;
    return 0;
}

static int check_depth(struct composer *c, struct sel_pos pos, uint32_t height)
{
    if (height > SEL_YAML_DEPTH_MAX - c->depth) {
        sel_diag_error(c->diag, pos, "too deep: at most %d levels of nesting are allowed",
                       SEL_YAML_DEPTH_MAX);
        return SEL_ELIMIT;
    }
    return 0;
}

/* Hands a finished node to the list or mapping around it. */
static int attach(struct composer *c, const struct sel_ynode *node, uint32_t height)
{
    if (c->depth == 0) {
        c->root = node;
        return 0;
    }
    struct frame *f = &c->frames[c->depth - 1];
    if (height > f->height)
        f->height = height;
    if (is_key_next(c) && (node->kind == SEL_LIST || node->kind == SEL_MAP))
        NOTE_ERROR(c, SEL_ETYPE, node->pos, "a key must be a text or a number, not a %s",
                   node->kind == SEL_LIST ? "list" : "mapping");
    if (!sel_mem_grow(&c->children, &c->child_cap, (uint64_t)c->child_count + 1,
                      sizeof(*c->children)))
        return out_of_memory(c);
    c->children[c->child_count++] = node;
    return 0;
}

/* Notes an anchor, if there is one, for a node that is complete or about to be read. */
static int add_anchor(struct composer *c, const yaml_char_t *name, struct anchor anchor,
                      struct sel_pos pos, uint32_t *ret)
{
    *ret = NO_ANCHOR;
    if (!name)
        return 0;
    const char *copy = sel_arena_strdup(c->arena, sel_str_c((const char *)name));
    if (!copy || !sel_mem_grow(&c->anchors, &c->anchor_cap, (uint64_t)c->anchor_count + 1,
                               sizeof(*c->anchors)))
        return out_of_memory(c);
    uint32_t old;
    int r = sel_map_add(&c->anchor_names, sel_str_c(copy), c->anchor_count, &old);
    if (r < 0)
        return out_of_memory(c);
    if (r == 0) {
        NOTE_ERROR(c, SEL_EEXISTS, pos, "anchor '%s' is defined already in line %u; rename one",
                   shown(c, sel_str_c(copy)), c->anchors[old].node->pos.line);
        return 0;
    }
    c->anchors[c->anchor_count] = anchor;
    *ret = c->anchor_count++;
    return 0;
}

static int on_alias(struct composer *c, const yaml_event_t *event)
{
    struct sel_str name = sel_str_c((const char *)event->data.alias.anchor);
    struct sel_pos pos = pos_of(c, &event->start_mark);
    uint32_t i;
    if (!sel_map_get(&c->anchor_names, name, &i)) {
        const char *text = shown(c, name);
        sel_diag_error(c->diag, pos, "alias '%s' has no anchor before it; write `&%s` there", text,
                       text);
        return SEL_ESYNTAX;
    }
    const struct anchor *anchor = &c->anchors[i];
    if (anchor->is_open) {
        sel_diag_error(c->diag, pos, "alias '%s' stands inside what it refers to", shown(c, name));
        return SEL_ESYNTAX;
    }
    int r = count_nodes(c, pos, anchor->node_count);
    if (r == 0)
        r = check_depth(c, pos, anchor->height);
    return r < 0 ? r : attach(c, anchor->node, anchor->height);
}

static struct sel_ynode *new_node(struct composer *c, const yaml_event_t *event,
                                  struct sel_str text)
{
    struct sel_ynode *node =
        sel_arena_alloc_raw(c->arena, sizeof(*node) + text.n + 1, _Alignof(max_align_t));
    if (!node)
        return NULL;
    char *copy = (char *)(node + 1);
    if (text.n)
        memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    *node = (struct sel_ynode){.pos = pos_of(c, &event->start_mark), .text = {copy, text.n}};
    return node;
}

/* ---- scalars ---- */

static const char *tag_shown(const struct composer *c, const yaml_char_t *tag)
{
    static const char prefix[] = "tag:yaml.org,2002:";
    const char *name = (const char *)tag;
    size_t skip = strncmp(name, prefix, sizeof(prefix) - 1) == 0 ? sizeof(prefix) - 1 : 0;
    return shown(c, sel_str_c(name + skip));
}

/* Gives a scalar its kind and value. 0, or the reason against it. */
static int set_scalar(struct composer *c, struct sel_ynode *node, enum sel_yaml_tag tag)
{
    double d;
    int r;
    switch (tag) {
    case SEL_YAML_NULL:
        node->kind = SEL_NULL;
        return 0;
    case SEL_YAML_BOOL:
        node->kind = SEL_BOOL;
        return sel_yaml_scalar_bool(node->text, &node->b);
    case SEL_YAML_INT:
        node->kind = SEL_INT;
        return sel_yaml_scalar_int(node->text, &node->num);
    case SEL_YAML_FLOAT:
        node->kind = SEL_FLOAT;
        r = sel_yaml_scalar_float(c->arena, node->text, &d);
        if (r == 0)
            node->num = sel_value_from_f64(d);
        return r;
    case SEL_YAML_BINARY:
        node->kind = SEL_BIN;
        return sel_yaml_scalar_binary(c->arena, node->text, &node->text);
    case SEL_YAML_TIMESTAMP:
        node->kind = SEL_TEXT;
        return sel_yaml_scalar_is_timestamp(node->text) ? 0 : SEL_ESYNTAX;
    case SEL_YAML_STR:
        node->kind = SEL_TEXT;
        return 0;
    default:
        return SEL_ETYPE;
    }
}

/* Says why a scalar cannot be what its tag or its form says; it then counts as null. */
static int refuse_scalar(struct composer *c, struct sel_ynode *node, enum sel_yaml_tag tag,
                         const yaml_char_t *tag_text, int code)
{
    if (code == SEL_ENOMEM)
        return out_of_memory(c);
    const char *text = shown(c, node->text);
    if (code == SEL_ERANGE)
        NOTE_ERROR(c, code, node->pos,
                   "integer %s is beyond 64 bits; if it is a text, write it in quotes", text);
    else if (tag == SEL_YAML_MERGE || tag == SEL_YAML_VALUE)
        NOTE_ERROR(c, code, node->pos, "%s; if it is a text, write it in quotes",
                   tag == SEL_YAML_MERGE ? "`<<` can only be a key" : "`=` cannot stand alone");
    else if (tag == SEL_YAML_FOREIGN)
        NOTE_ERROR(c, code, node->pos, "tag '%s' is unknown; remove it", tag_shown(c, tag_text));
    else if (tag_text)
        NOTE_ERROR(c, code, node->pos, "'%s' is not a valid !!%s", text, tag_shown(c, tag_text));
    else
        NOTE_ERROR(c, code, node->pos, "'%s' is no number; if it is a text, write it in quotes",
                   text);
    node->kind = SEL_NULL;
    return 0;
}

static enum sel_yaml_tag scalar_tag(const yaml_event_t *event, struct sel_str text)
{
    enum sel_yaml_tag tag = sel_yaml_tag_parse((const char *)event->data.scalar.tag);
    if (tag != SEL_YAML_NONE)
        return tag;
    return event->data.scalar.plain_implicit ? sel_yaml_scalar_resolve(text) : SEL_YAML_STR;
}

static int on_scalar(struct composer *c, const yaml_event_t *event)
{
    struct sel_str text = {(const char *)event->data.scalar.value, event->data.scalar.length};
    enum sel_yaml_tag tag = scalar_tag(event, text);
    bool is_key = is_key_next(c);
    if (tag == SEL_YAML_MERGE && is_key)
        return attach(c, &merge_mark, 1);
    if (tag == SEL_YAML_VALUE && is_key)
        tag = SEL_YAML_STR;

    struct sel_ynode *node = new_node(c, event, text);
    if (!node)
        return out_of_memory(c);
    int r = count_nodes(c, node->pos, 1);
    if (r == 0)
        r = check_depth(c, node->pos, 0);
    if (r < 0)
        return r;
    r = set_scalar(c, node, tag);
    if (r < 0)
        r = refuse_scalar(c, node, tag, event->data.scalar.tag, r);
    uint32_t ignored;
    struct anchor anchor = {.node = node, .node_count = 1, .height = 1};
    if (r == 0)
        r = add_anchor(c, event->data.scalar.anchor, anchor, node->pos, &ignored);
    return r < 0 ? r : attach(c, node, 1);
}

/* ---- lists and mappings ---- */

/* Whether a list or mapping may have this tag. */
static bool fits(enum sel_kind kind, enum sel_yaml_tag tag)
{
    if (tag == SEL_YAML_NONE)
        return true;
    if (kind == SEL_MAP)
        return tag == SEL_YAML_MAP || tag == SEL_YAML_SET;
    return tag == SEL_YAML_SEQ || tag == SEL_YAML_OMAP || tag == SEL_YAML_PAIRS;
}

static int on_start(struct composer *c, const yaml_event_t *event, enum sel_kind kind,
                    const yaml_char_t *tag_text, const yaml_char_t *anchor_name)
{
    struct sel_ynode *node = new_node(c, event, SEL_STR(""));
    if (!node)
        return out_of_memory(c);
    node->kind = kind;
    enum sel_yaml_tag tag = sel_yaml_tag_parse((const char *)tag_text);
    if (!fits(kind, tag)) {
        const char *what = kind == SEL_MAP ? "mapping" : "list";
        if (tag == SEL_YAML_FOREIGN)
            NOTE_ERROR(c, SEL_ETYPE, node->pos, "tag '%s' is unknown; remove it",
                       tag_shown(c, tag_text));
        else
            NOTE_ERROR(c, SEL_ETYPE, node->pos, "a %s cannot be !!%s", what,
                       tag_shown(c, tag_text));
        tag = SEL_YAML_NONE;
    }
    struct frame f = {.node = node, .tag = tag, .base = c->child_count, .before = c->node_count};
    struct anchor anchor = {.node = node, .is_open = true};
    int r = count_nodes(c, node->pos, 1);
    if (r == 0)
        r = check_depth(c, node->pos, 1);
    if (r == 0)
        r = add_anchor(c, anchor_name, anchor, node->pos, &f.anchor);
    if (r == 0)
        c->frames[c->depth++] = f;
    return r;
}

static int on_end(struct composer *c)
{
    SEL_ASSERT(c->depth > 0);
    struct frame f = c->frames[c->depth - 1];
    int r = f.node->kind == SEL_MAP ? finish_map(c, &f) : finish_list(c, &f);
    if (r < 0)
        return r;
    c->child_count = f.base;
    c->depth--;
    if (f.anchor != NO_ANCHOR) {
        struct anchor *anchor = &c->anchors[f.anchor];
        anchor->is_open = false;
        anchor->node_count = c->node_count - f.before;
        anchor->height = f.height + 1;
    }
    return attach(c, f.node, f.height + 1);
}

/* ---- the document ---- */

/* 1: go on, 0: the end, < 0. */
static int on_event(struct composer *c, const yaml_event_t *event)
{
    int r = 0;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        r = on_scalar(c, event);
        break;
    case YAML_ALIAS_EVENT:
        r = on_alias(c, event);
        break;
    case YAML_SEQUENCE_START_EVENT:
        r = on_start(c, event, SEL_LIST, event->data.sequence_start.tag,
                     event->data.sequence_start.anchor);
        break;
    case YAML_MAPPING_START_EVENT:
        r = on_start(c, event, SEL_MAP, event->data.mapping_start.tag,
                     event->data.mapping_start.anchor);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r = on_end(c);
        break;
    case YAML_DOCUMENT_START_EVENT:
        if (c->root) {
            sel_diag_error(c->diag, pos_of(c, &event->start_mark),
                           "a second document begins here; use one file for each");
            r = SEL_ESYNTAX;
        }
        break;
    case YAML_STREAM_END_EVENT:
        return 0;
    default:
        break;
    }
    return r < 0 ? r : 1;
}

static int compose(struct composer *c)
{
    int r;
    do {
        yaml_event_t event;
        if (!yaml_parser_parse(&c->parser, &event))
            return parser_error(c);
        r = on_event(c, &event);
        yaml_event_delete(&event);
    } while (r > 0);
    return r;
}

static void composer_done(struct composer *c)
{
    yaml_parser_delete(&c->parser);
    (void)sel_mem_free(c->children);
    (void)sel_mem_free(c->anchors);
    sel_yaml_pairs_done(&c->pairs);
    sel_map_done(&c->anchor_names);
    (void)sel_mem_free(c);
}

int sel_yaml_parse(struct sel_arena *arena, const char *file, struct sel_str text,
                   struct sel_diag *diag, const struct sel_ynode **ret)
{
    struct composer *c = SEL_NEW(struct composer);
    struct sel_ynode *empty = SEL_ARENA_NEW(arena, struct sel_ynode);
    if (!c || !empty || !yaml_parser_initialize(&c->parser)) {
        (void)sel_mem_free(c);
        sel_diag_error(diag, (struct sel_pos){.file = file}, "out of memory");
        return SEL_ENOMEM;
    }
    *empty = (struct sel_ynode){.kind = SEL_NULL, .pos = {file, 1, 1}, .text = SEL_STR("")};
    c->arena = arena;
    c->diag = diag;
    c->file = file;
    c->source = text.n ? text : SEL_STR(""); /* libyaml wants a pointer even to nothing */
    yaml_parser_set_input_string(&c->parser, (const unsigned char *)c->source.p, c->source.n);
    int r = compose(c);
    if (r == 0)
        r = c->result;
    if (r == 0)
        *ret = c->root ? c->root : empty;
    composer_done(c);
    return r;
}
