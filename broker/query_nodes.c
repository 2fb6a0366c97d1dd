/* What people ask about the nodes of a large flow that has ended: a page at a time. What
 * dispatchers wrote is looked into here for the first time. */
#include "broker/query.h"
#include "proto/nodes.h"

static const char *const lists[] = {"active_nodes", "finished_nodes", "failed_nodes"};

/* ---- reading what is kept ---- */

static int read_head(struct sel_broker *b, uint32_t piece, struct sel_nodes *ret)
{
    struct sel_str head = {NULL, 0};
    int r = sel_broker_question_read(b, piece, 0, SEL_NODES_HEAD_SIZE, &head);
    return r < 0 ? r : sel_nodes_decode(head, sel_broker_task_at(b, piece)->blob_size, ret);
}

static int read_page(struct sel_broker *b, uint32_t piece, const struct sel_nodes *nodes,
                     uint32_t page, struct sel_str *ret)
{
    struct sel_str place = {NULL, 0};
    uint64_t offset = 0;
    size_t size = 0;
    int r = sel_broker_question_read(b, piece, sel_nodes_place_at(nodes, page),
                                     SEL_NODES_PLACE_SIZE, &place);
    if (r == 0)
        r = sel_nodes_place(nodes, place, &offset, &size);
    return r < 0 ? r : sel_broker_question_read(b, piece, offset, size, ret);
}

/* ---- telling ---- */

struct telling {
    struct sel_arena *arena;
    struct sel_id flow;
    uint32_t attempt;
    struct sel_value_builder active, by_name[SEL_COUNT(lists)], ids;
    struct sel_str name; /* of `ids`; n == 0: none yet */
    enum sel_nodes_state state;
};

/* As results have it: the id under which storages know the run. */
static struct sel_value id_of(struct telling *t, const struct sel_nodes_run *run)
{
    char text[SEL_RUN_ID_TEXT_SIZE];
    struct sel_str id = run->reuse;
    if (id.n == 0)
        id = sel_str_c((run->flow.hi | run->flow.lo)
                           ? sel_id_format(run->flow, text)
                           : sel_id_format_run(t->flow, t->attempt, run->ordinal, text));
    char *copy = sel_arena_strdup(t->arena, id);
    t->active.failed |= !copy;
    return copy ? sel_value_from_str((struct sel_str){copy, id.n}) : sel_value_null;
}

static void add_active(struct telling *t, struct sel_str name, struct sel_value id)
{
    struct sel_value_builder map;
    struct sel_value value = sel_value_null;
    sel_value_begin_map(&map, t->arena);
    sel_value_put_c(&map, "name", sel_value_from_str(name));
    sel_value_put_c(&map, "id", id);
    t->active.failed |= sel_value_end(&map, &value) < 0;
    sel_value_add(&t->active, value);
}

static void end_name(struct telling *t)
{
    struct sel_value ids = sel_value_null;
    if (t->name.n == 0)
        return;
    t->active.failed |= sel_value_end(&t->ids, &ids) < 0;
    sel_value_put(&t->by_name[t->state], t->name, ids);
}

/* Names lie in the page, which a buffer holds that is used again. */
static struct sel_str copy_of(struct telling *t, struct sel_str name)
{
    char *copy = sel_arena_strdup(t->arena, name);
    t->active.failed |= !copy;
    return copy ? (struct sel_str){copy, name.n} : SEL_STR("?");
}

static void add_run(struct telling *t, const struct sel_nodes_run *run)
{
    if (run->state == SEL_NODES_ACTIVE) {
        add_active(t, copy_of(t, run->name), id_of(t, run));
        return;
    }
    if (run->state != t->state || !sel_str_eq(run->name, t->name)) {
        end_name(t);
        t->name = copy_of(t, run->name);
        t->state = run->state;
        sel_value_begin_list(&t->ids, t->arena);
    }
    sel_value_add(&t->ids, id_of(t, run));
}

static int put_page(struct sel_broker_question *q, struct telling *t, struct sel_str bytes,
                    struct sel_value_builder *map)
{
    struct sel_nodes_page *page = SEL_ARENA_NEW(q->arena, struct sel_nodes_page);
    struct sel_nodes_run run;
    struct sel_value value = sel_value_null;
    int r = page ? 1 : SEL_ENOMEM;
    if (page)
        sel_nodes_page_init(page, bytes);
    while (r > 0) {
        r = sel_nodes_next(page, &run);
        if (r > 0)
            add_run(t, &run);
    }
    end_name(t);
    if (r < 0)
        return r;
    for (size_t i = 0; i < SEL_COUNT(lists); i++) {
        r = sel_value_end(i == SEL_NODES_ACTIVE ? &t->active : &t->by_name[i], &value);
        if (r < 0)
            return r;
        sel_value_put_c(map, lists[i], value);
    }
    return 0;
}

static int put_nodes(struct sel_broker_question *q, const struct sel_flow *flow,
                     const struct sel_nodes *nodes, uint32_t page, struct sel_value_builder *map)
{
    struct sel_str bytes = {NULL, 0};
    struct telling t = {.arena = q->arena, .flow = flow->id, .attempt = nodes->attempt};
    int r = read_page(q->b, flow->nodes, nodes, page, &bytes);
    sel_value_begin_list(&t.active, q->arena);
    for (size_t i = 0; i < SEL_COUNT(lists); i++)
        sel_value_begin_map(&t.by_name[i], q->arena);
    return r < 0 ? r : put_page(q, &t, bytes, map);
}

/* ---- the question ---- */

/* The flow, if its result could be told. */
static int ended_flow(struct sel_broker_question *q, const struct sel_flow **ret)
{
    uint32_t i;
    int r = sel_broker_question_flow(q, &i);
    if (r < 0)
        return r;
    const struct sel_task_entry *entry = sel_broker_task_at(q->b, i);
    if (entry->state != SEL_TASK_ENDED || !(entry->flags & SEL_TASK_SETTLED)) {
        q->text = "the flow has not ended: ask again when it has; flow.runs tells what is open";
        return SEL_ESTATE;
    }
    *ret = entry->flow;
    return 0;
}

int sel_broker_ask_flow_nodes(struct sel_broker_question *q)
{
    const struct sel_flow *flow = NULL;
    struct sel_nodes nodes = {0};
    struct sel_value_builder map;
    uint64_t page = sel_broker_question_number(q, "page", 0);
    int r = ended_flow(q, &flow);
    if (r < 0)
        return r;
    if (flow->nodes != SEL_NONE)
        r = read_head(q->b, flow->nodes, &nodes);
    if (r == 0 && page > 0 && page >= nodes.page_count) {
        q->text = "there is no such page; they are counted from 0, `pages` says how many there are";
        return SEL_ERANGE;
    }
    sel_value_begin_map(&map, q->arena);
    sel_broker_put_u64(&map, "page", page);
    sel_broker_put_u64(&map, "pages", nodes.page_count);
    if (r == 0 && nodes.page_count > 0)
        r = put_nodes(q, flow, &nodes, (uint32_t)page, &map);
    if (r == SEL_EFORMAT || r == SEL_EVERSION) {
        q->text = r == SEL_EVERSION ? "the nodes were written by a newer program"
                                    : "what the dispatcher wrote of the nodes cannot be read";
        return SEL_EUNSUPPORTED;
    }
    return r < 0 ? r : sel_value_end(&map, q->body);
}
