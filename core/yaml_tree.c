/* Reading the tree that core/yaml.c makes. */
#include "core/yaml.h"

static const struct sel_ypair *find_pair(const struct sel_ynode *map, const char *key)
{
    if (!map || map->kind != SEL_MAP)
        return NULL;
    struct sel_str name = sel_str_c(key);
    for (uint32_t i = 0; i < map->map.count; i++) {
        const struct sel_ypair *pair = &map->map.pairs[i];
        if (pair->key->kind == SEL_TEXT && sel_str_eq(pair->key->text, name))
            return pair;
    }
    return NULL;
}

const struct sel_ynode *sel_yaml_get(const struct sel_ynode *map, const char *key)
{
    const struct sel_ypair *pair = find_pair(map, key);
    return pair ? pair->val : NULL;
}

const struct sel_ynode *sel_yaml_get_key(const struct sel_ynode *map, const char *key)
{
    const struct sel_ypair *pair = find_pair(map, key);
    return pair ? pair->key : NULL;
}

/* Recursion is bounded: no tree is deeper than SEL_YAML_DEPTH_MAX, aliases included. */
static int list_to_value(struct sel_arena *arena, const struct sel_ynode *node,
                         struct sel_value *ret)
{
    struct sel_value_builder b;
    sel_value_begin_list(&b, arena);
    for (uint32_t i = 0; i < node->list.count; i++) {
        struct sel_value item;
        int r = sel_yaml_to_value(arena, node->list.items[i], &item);
        if (r < 0)
            return r;
        sel_value_add(&b, item);
    }
    return sel_value_end(&b, ret);
}

static int map_to_value(struct sel_arena *arena, const struct sel_ynode *node,
                        struct sel_value *ret)
{
    struct sel_value_builder b;
    sel_value_begin_map(&b, arena);
    for (uint32_t i = 0; i < node->map.count; i++) {
        struct sel_value key, val;
        int r = sel_yaml_to_value(arena, node->map.pairs[i].key, &key);
        if (r == 0)
            r = sel_yaml_to_value(arena, node->map.pairs[i].val, &val);
        if (r < 0)
            return r;
        sel_value_put_key(&b, key, val);
    }
    return sel_value_end(&b, ret);
}

static struct sel_value bytes_value(struct sel_str bytes)
{
    struct sel_value v = {.o = {.type = MSGPACK_OBJECT_BIN}};
    v.o.via.bin.ptr = bytes.p;
    v.o.via.bin.size = (uint32_t)bytes.n;
    return v;
}

int sel_yaml_to_value(struct sel_arena *arena, const struct sel_ynode *node, struct sel_value *ret)
{
    switch (node->kind) {
    case SEL_BOOL:
        *ret = sel_value_from_bool(node->b);
        return 0;
    case SEL_INT:
    case SEL_FLOAT:
        *ret = node->num;
        return 0;
    case SEL_TEXT:
        *ret = sel_value_from_str(node->text);
        return 0;
    case SEL_BIN:
        *ret = bytes_value(node->text);
        return 0;
    case SEL_LIST:
        return list_to_value(arena, node, ret);
    case SEL_MAP:
        return map_to_value(arena, node, ret);
    default:
        *ret = sel_value_null;
        return 0;
    }
}
