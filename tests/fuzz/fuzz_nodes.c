#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "proto/nodes.h"

/* Bytes as pages of nodes, read as the broker does, in pieces. What can be read of a page, written
 * anew, is read the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sel_nodes_page page, again;

static bool is_same(const struct sel_nodes_run *a, const struct sel_nodes_run *b)
{
    return a->state == b->state && a->ordinal == b->ordinal && sel_str_eq(a->name, b->name) &&
           sel_id_eq(a->flow, b->flow) && sel_str_eq(a->reuse, b->reuse);
}

static void compare(struct sel_str bytes, struct sel_str written)
{
    struct sel_nodes_run run, other;
    sel_nodes_page_init(&page, bytes);
    sel_nodes_page_init(&again, written);
    while (sel_nodes_next(&page, &run) > 0) {
        int r = sel_nodes_next(&again, &other);
        SEL_ASSERT(r == 1 && is_same(&run, &other));
    }
    SEL_ASSERT(sel_nodes_next(&again, &other) == 0);
}

static int place_of(struct sel_str all, const struct sel_nodes *nodes, uint32_t number,
                    struct sel_str *ret)
{
    uint64_t at = sel_nodes_place_at(nodes, number), offset;
    size_t n;
    SEL_ASSERT(at + SEL_NODES_PLACE_SIZE <= all.n);
    int r = sel_nodes_place(nodes, (struct sel_str){all.p + at, SEL_NODES_PLACE_SIZE}, &offset, &n);
    if (r == 0)
        *ret = (struct sel_str){all.p + offset, n};
    return r;
}

static void read_page(struct sel_str bytes)
{
    struct sel_nodes_writer w = {0};
    struct sel_nodes_run run;
    struct sel_buf out = {0};
    struct sel_nodes nodes;
    struct sel_str first;
    sel_nodes_page_init(&page, bytes);
    while (sel_nodes_next(&page, &run) > 0)
        sel_nodes_add(&w, &run, page.name); /* names are numbers already */
    /* With less bytes than the reader allows a page is full: then there may be two. */
    int r = w.pages.failed ? 0 : sel_nodes_writer_end(&w, 0, &out);
    SEL_ASSERT(r == 0);
    if (out.n && sel_nodes_decode(sel_buf_str(&out), out.n, &nodes) == 0 && nodes.page_count == 1) {
        r = place_of(sel_buf_str(&out), &nodes, 0, &first);
        SEL_ASSERT(r == 0);
        compare(bytes, first);
    }
    sel_nodes_writer_done(&w);
    sel_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_str all = {(const char *)data, size}, bytes;
    struct sel_nodes nodes;
    read_page(all); /* pages are quickly found so */
    if (sel_nodes_decode(all, size, &nodes) < 0)
        return 0;
    for (uint32_t i = 0; i < nodes.page_count && i < 64; i++) {
        if (place_of(all, &nodes, i, &bytes) == 0)
            read_page(bytes);
    }
    return 0;
}
