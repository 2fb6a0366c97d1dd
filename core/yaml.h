/* core/yaml.h - YAML text to a tree with places.
 *
 * Scalars resolve as YAML 1.1 does in PyYAML's safe loader (`010` is 8, `1:30` is 90, `yes` is
 * true, `1e5` is text), with one exception: a timestamp is text, as it is written. Anchors and
 * `<<` merges become copies: merged keys come first, the mapping's own win, of a list of mappings
 * the earlier wins. One document only. `!!set` is a mapping with null values, `!!omap` a mapping,
 * `!!pairs` a list of lists [key, value]; other tags than the standard ones are refused, and so are
 * lists and mappings as keys, an anchor defined twice, an alias inside what it refers to, and
 * integers beyond 64 bits. Expansion by aliases is bounded. Of duplicate keys (1, 1.0 and true are
 * one) the later counts, with a warning. Uses libyaml. Pure: the text is handed in. */
#ifndef SEL_CORE_YAML_H
#define SEL_CORE_YAML_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/str.h"
#include "core/value.h"

struct sel_arena;

struct sel_ynode;

struct sel_ypair {
    const struct sel_ynode *key, *val;
};

struct sel_ynode {
    enum sel_kind kind;  /* SEL_NULL, BOOL, INT, FLOAT, TEXT, BIN (!!binary), LIST, MAP */
    struct sel_pos pos;  /* where it begins in the file; for an alias, where the original stands */
    struct sel_str text; /* scalars: as written; SEL_TEXT: the value; SEL_BIN: the bytes; all
                            terminated */
    union {
        bool b;
        struct sel_value num; /* SEL_INT, SEL_FLOAT */
        struct {
            const struct sel_ynode *const *items;
            uint32_t count;
        } list;
        struct {
            const struct sel_ypair *pairs; /* merged, without duplicates, in order */
            uint32_t count;
        } map;
    };
};

#define SEL_YAML_NODES_MAX 8000000 /* nodes of one document after alias expansion */
#define SEL_YAML_DEPTH_MAX 256     /* levels of nesting after alias expansion */

/* Parses `text` of file `file` (kept by reference). An empty document is a SEL_NULL node.
 * 0; < 0: `diag` has the error(s), and the code is that of the first: SEL_ESYNTAX, SEL_ETYPE (a tag
 * or merge that does not fit), SEL_ERANGE (an integer), SEL_EEXISTS (an anchor), SEL_ELIMIT (nodes
 * or depth), SEL_ENOMEM. After a fault that is none of syntax or limit the rest is read for more.
 * Nodes live in `arena`. Shared sub-trees of aliases may be one object: nodes never change. */
int sel_yaml_parse(struct sel_arena *arena, const char *file, struct sel_str text,
                   struct sel_diag *diag, const struct sel_ynode **ret) SEL_WARN_UNUSED;

/* The value of a text key, NULL if absent or `map` is no map. */
const struct sel_ynode *sel_yaml_get(const struct sel_ynode *map, const char *key);
/* The key node itself, for its place. */
const struct sel_ynode *sel_yaml_get_key(const struct sel_ynode *map, const char *key);

/* The tree as a value in `arena` (keys that are no text are kept as they are). 0 or SEL_ENOMEM. */
int sel_yaml_to_value(struct sel_arena *arena, const struct sel_ynode *node,
                      struct sel_value *ret) SEL_WARN_UNUSED;

#endif
