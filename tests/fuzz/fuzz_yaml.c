/* Any bytes as YAML: a tree within its bounds, or an error with a place. A tree becomes a value
 * that survives encoding. */
#include <stdint.h>

#include "core/arena.h"
#include "core/assert.h"
#include "core/buf.h"
#include "core/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Values with more nodes than this are not built: they only repeat aliases. */
#define BUILT_NODES_MAX 20000

static uint32_t height_of(const struct sel_ynode *node, uint32_t *count)
{
    uint32_t height = 0;
    if (++*count > BUILT_NODES_MAX)
        return 1;
    SEL_ASSERT(node->pos.line > 0 && node->pos.col > 0);
    for (uint32_t i = 0; node->kind == SEL_LIST && i < node->list.count; i++) {
        uint32_t h = height_of(node->list.items[i], count);
        height = h > height ? h : height;
    }
    for (uint32_t i = 0; node->kind == SEL_MAP && i < node->map.count; i++) {
        const struct sel_ypair *pair = &node->map.pairs[i];
        SEL_ASSERT(pair->key->kind != SEL_LIST && pair->key->kind != SEL_MAP);
        ++*count;
        uint32_t h = height_of(pair->val, count);
        height = h > height ? h : height;
        if (pair->key->kind == SEL_TEXT && strlen(pair->key->text.p) == pair->key->text.n)
            SEL_ASSERT(sel_yaml_get(node, pair->key->text.p) == pair->val);
    }
    return height + 1;
}

static void check_tree(struct sel_arena *arena, const struct sel_ynode *root)
{
    uint32_t count = 0;
    SEL_ASSERT(height_of(root, &count) <= SEL_YAML_DEPTH_MAX);
    if (count > BUILT_NODES_MAX)
        return;
    struct sel_value value, back;
    struct sel_buf first = {0}, second = {0};
    int r = sel_yaml_to_value(arena, root, &value);
    SEL_ASSERT(r == 0);
    sel_value_encode(&value, &first);
    SEL_ASSERT(sel_buf_error(&first) == 0);
    r = sel_value_decode(arena, first.p, first.n, false, &back, NULL);
    SEL_ASSERT(r == 0);
    sel_value_encode(&back, &second);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&first), sel_buf_str(&second)));
    sel_buf_done(&first);
    sel_buf_done(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_arena arena = {0};
    struct sel_diag diag;
    const struct sel_ynode *root = NULL;
    sel_diag_init(&diag, &arena);
    int r =
        sel_yaml_parse(&arena, "f.yaml", (struct sel_str){(const char *)data, size}, &diag, &root);
    if (r == 0) {
        SEL_ASSERT(diag.error_count == 0);
        check_tree(&arena, root);
    } else {
        SEL_ASSERT(diag.error_count > 0 && diag.first->pos.line > 0);
    }
    sel_arena_done(&arena);
    return 0;
}
