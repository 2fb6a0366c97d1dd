#include "cli/nodes.h"

#include "cli/table.h"
#include "core/json.h"

struct printing {
    struct sel_cli_ends *ends;
    struct sel_arena arena; /* of one line */
    struct sel_buf line;
    uint64_t count;
    int error;
};

static const char *const states[] = {
    [SEL_CLIENT_NODE_ACTIVE] = "active",
    [SEL_CLIENT_NODE_FINISHED] = "finished",
    [SEL_CLIENT_NODE_FAILED] = "failed",
};

uint32_t sel_cli_nodes_pages(const struct sel_value *value)
{
    const struct sel_value *pages =
        sel_value_is(value, SEL_MAP) ? sel_value_get_c(value, "pages") : NULL;
    int64_t count;
    return pages && sel_value_is(pages, SEL_INT) && sel_value_i64(pages, &count) && count > 0 &&
                   count <= UINT32_MAX
               ? (uint32_t)count
               : 0;
}

/* ---- a line ---- */

static int put_json(struct printing *p, const char *state, struct sel_str name, struct sel_str id)
{
    struct sel_value_builder map;
    struct sel_value value;
    sel_arena_reset(&p->arena);
    sel_value_begin_map(&map, &p->arena);
    sel_value_put_c(&map, "state", sel_value_from_c(state));
    sel_value_put_c(&map, "name", sel_value_from_str(name));
    sel_value_put_c(&map, "id", sel_value_from_str(id));
    int r = sel_value_end(&map, &value);
    if (r == 0)
        sel_json_write(&value, SEL_JSON_SPACED, &p->line);
    return r;
}

static void print(struct printing *p, enum sel_client_node_state state, struct sel_str name,
                  struct sel_str id)
{
    sel_buf_clear(&p->line);
    if (p->ends->values->json) {
        p->error = put_json(p, states[state], name, id);
    } else {
        sel_buf_printf(&p->line, "%-8s  ", states[state]);
        sel_buf_put_str(&p->line, name);
        sel_buf_put_c(&p->line, "  ");
        sel_buf_put_str(&p->line, id);
        if (sel_buf_error(&p->line) == 0)
            sel_cli_table_clean((char *)p->line.p, p->line.n);
    }
    sel_buf_put_u8(&p->line, '\n');
    if (p->error == 0)
        p->error = sel_buf_error(&p->line);
    if (p->error == 0)
        (void)fwrite(p->line.p, 1, p->line.n, p->ends->cli->out); /* sel_cli_finish sees it */
    p->count++;
}

static struct sel_str text_of(const struct sel_value *value)
{
    return value && sel_value_is(value, SEL_TEXT) ? sel_value_str(value) : SEL_STR("?");
}

/* ---- what the result has ---- */

static void print_active(struct printing *p, const struct sel_value *list)
{
    if (!list || !sel_value_is(list, SEL_LIST))
        return;
    for (uint32_t i = 0; p->error == 0 && i < sel_value_count(list); i++) {
        const struct sel_value *node = sel_value_at(list, i);
        if (sel_value_is(node, SEL_MAP))
            print(p, SEL_CLIENT_NODE_ACTIVE, text_of(sel_value_get_c(node, "name")),
                  text_of(sel_value_get_c(node, "id")));
    }
}

static void print_ended(struct printing *p, enum sel_client_node_state state,
                        const struct sel_value *map)
{
    if (!map || !sel_value_is(map, SEL_MAP))
        return;
    for (uint32_t i = 0; i < sel_value_count(map); i++) {
        const struct sel_value *ids = sel_value_val_at(map, i);
        uint32_t count = sel_value_is(ids, SEL_LIST) ? sel_value_count(ids) : 0;
        for (uint32_t k = 0; p->error == 0 && k < count; k++)
            print(p, state, text_of(sel_value_key_at(map, i)), text_of(sel_value_at(ids, k)));
    }
}

/* ---- pages ---- */

static int print_page(struct printing *p, struct sel_client_asker *asker,
                      const struct sel_client_id *id, uint32_t page, uint32_t *ret_pages)
{
    char error[SEL_CLIENT_ERROR_SIZE];
    struct sel_client_nodes *nodes;
    int64_t timeout_us = sel_cli_ends_patience(p->ends, SEL_CLI_ENDS_ANSWER_US);
    int r = sel_client_flow_nodes(asker, id, page, timeout_us, &nodes, error);
    if (r < 0)
        return sel_cli_fail(p->ends->cli, "page %u of the nodes: %s", page, error);
    for (uint32_t i = 0; p->error == 0 && i < nodes->count; i++)
        print(p, (enum sel_client_node_state)nodes->nodes[i].state, nodes->nodes[i].name,
              nodes->nodes[i].id);
    *ret_pages = nodes->page_count;
    sel_client_nodes_free(nodes);
    (void)fflush(p->ends->cli->out); /* whoever reads a pipe sees each page as it comes */
    return SEL_CLI_OK;
}

static int print_pages(struct printing *p, const char *query, const struct sel_client_id *id,
                       uint32_t pages)
{
    char error[SEL_CLIENT_ERROR_SIZE];
    struct sel_client_asker *asker;
    int r = sel_client_asker_open(query, &asker, error);
    if (r < 0)
        return sel_cli_fail(p->ends->cli, "%s", error);
    int status = SEL_CLI_OK;
    uint32_t there = pages;
    for (uint32_t page = 0; status == SEL_CLI_OK && p->error == 0 && page < pages; page++) {
        status = print_page(p, asker, id, page, &there);
        if (status == SEL_CLI_OK && there != pages)
            status = sel_cli_fail(p->ends->cli,
                                  "the result tells of %u pages of nodes, the broker at %s of %u",
                                  pages, query, there);
    }
    sel_client_asker_close(asker);
    return status;
}

int sel_cli_nodes_print(struct sel_cli_ends *ends, const char *query,
                        const struct sel_client_result *result)
{
    struct printing p = {.ends = ends};
    struct sel_buf text = {0};
    int status = SEL_CLI_OK;
    const struct sel_value value = sel_cli_ends_value(&ends->arena, result);
    uint32_t pages = sel_cli_nodes_pages(&value);
    if (!sel_value_is(&value, SEL_MAP) ||
        (!sel_cli_ends_put_flow(&value, &text) && !sel_value_get_c(&value, "class"))) {
        status = sel_cli_fail(ends->cli, "this is not the result of a flow");
    } else if (pages > 0) {
        status = print_pages(&p, query, &result->id, pages);
    } else if (sel_value_get_c(&value, "pages")) {
        status = sel_cli_fail(ends->cli, "only numbers are known: %s", sel_buf_cstr(&text));
    } else {
        print_active(&p, sel_value_get_c(&value, "active_nodes"));
        print_ended(&p, SEL_CLIENT_NODE_FINISHED, sel_value_get_c(&value, "finished_nodes"));
        print_ended(&p, SEL_CLIENT_NODE_FAILED, sel_value_get_c(&value, "failed_nodes"));
    }
    if (p.error < 0)
        status = sel_cli_fail(ends->cli, "%s", sel_error_text(p.error));
    sel_buf_done(&text);
    sel_buf_done(&p.line);
    sel_arena_done(&p.arena);
    return status;
}
