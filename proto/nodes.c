#include "proto/nodes.h"

#include "core/assert.h"
#include "core/mem.h"
#include "proto/le.h"
#include "proto/wire.h"

/* Offsets of the head, as in the table of PROTOCOL.md; the index follows. */
enum { HEAD_VERSION = 0, HEAD_ATTEMPT = 4, HEAD_PAGES = 8, HEAD_END = 12 };
_Static_assert(HEAD_END == SEL_NODES_HEAD_SIZE, "the table and the head have one size");

/* What a number of a page begins, by its lower bits. */
enum { OP_RUN = 0, OP_FLOW = 1, OP_REUSE = 2, OP_GROUP = 3, OP_BITS = 2, OP_MASK = 3 };

#define STATES 3u
#define ID_SIZE 16u

/* ---- writing ---- */

void sel_nodes_writer_done(struct sel_nodes_writer *w)
{
    sel_buf_done(&w->pages);
    sel_buf_done(&w->ends);
    sel_mem_free(w->known);
    *w = (struct sel_nodes_writer){0};
}

static void put32(struct sel_buf *buf, uint32_t v)
{
    uint8_t bytes[4];
    sel_le_put32(bytes, v);
    sel_buf_put(buf, bytes, sizeof(bytes));
}

static void put_number(struct sel_buf *buf, uint64_t v)
{
    if (v < 0x80) /* nearly all */
        sel_buf_put_u8(buf, (uint8_t)v);
    else
        sel_buf_put_varint(buf, v);
}

static void end_page(struct sel_nodes_writer *w)
{
    if (w->page_runs == 0)
        return;
    if (w->pages.n > UINT32_MAX)
        sel_buf_fail_limit(&w->pages);
    put32(&w->ends, (uint32_t)w->pages.n);
    w->page_count++;
    w->page_at = w->pages.n;
    w->page_runs = w->page_names = w->last_ordinal = 0;
    w->has_group = false;
}

/* The number of the name in this page; it is told with its first group. */
static void begin_group(struct sel_nodes_writer *w, const struct sel_nodes_run *run, uint32_t node)
{
    uint32_t old_cap = w->known_cap;
    if (!sel_mem_grow(&w->known, &w->known_cap, (uint64_t)node + 1, sizeof(*w->known))) {
        w->pages.failed = true;
        return;
    }
    for (uint32_t i = old_cap; i < w->known_cap; i++)
        w->known[i] = (struct sel_nodes_known){0, 0};
    struct sel_nodes_known *known = &w->known[node];
    bool is_new = known->page != w->page_count + 1;
    if (is_new)
        *known = (struct sel_nodes_known){w->page_count + 1, w->page_names++};
    uint64_t what = (uint64_t)known->name * STATES + run->state;
    sel_buf_put_varint(&w->pages, what << OP_BITS | OP_GROUP);
    if (is_new) {
        sel_buf_put_varint(&w->pages, run->name.n);
        sel_buf_put_str(&w->pages, run->name);
    }
    w->has_group = true;
    w->group_state = run->state;
    w->group_node = node;
}

static void put_run(struct sel_nodes_writer *w, const struct sel_nodes_run *run)
{
    bool is_flow = (run->flow.hi | run->flow.lo) != 0;
    unsigned op = run->reuse.n ? OP_REUSE : is_flow ? OP_FLOW : OP_RUN;
    /* Zigzag: ends of runs come about in the order of their starts. */
    int64_t step = (int64_t)run->ordinal - w->last_ordinal;
    uint64_t zigzag = (uint64_t)step << 1 ^ (step < 0 ? UINT64_MAX : 0);
    put_number(&w->pages, zigzag << OP_BITS | op);
    if (op == OP_FLOW) {
        char bytes[ID_SIZE];
        sel_le_put_id(bytes, run->flow);
        sel_buf_put(&w->pages, bytes, sizeof(bytes));
    } else if (op == OP_REUSE) {
        sel_buf_put_varint(&w->pages, run->reuse.n);
        sel_buf_put_str(&w->pages, run->reuse);
    }
    w->last_ordinal = run->ordinal;
    w->page_runs++;
    w->run_count++;
}

void sel_nodes_add(struct sel_nodes_writer *w, const struct sel_nodes_run *run, uint32_t node)
{
    SEL_ASSERT(run->state >= w->group_state);
    if (w->pages.failed)
        return;
    if (run->name.n == 0 || run->name.n > SEL_WIRE_NAME_MAX || run->reuse.n > SEL_NODES_TEXT_MAX ||
        (run->reuse.n && !sel_str_is_utf8(run->reuse))) {
        sel_buf_fail_limit(&w->pages);
        return;
    }
    if (w->page_runs == SEL_NODES_PAGE_RUNS || w->pages.n - w->page_at >= SEL_NODES_PAGE_FULL)
        end_page(w);
    if (!w->has_group || run->state != w->group_state || node != w->group_node)
        begin_group(w, run, node);
    put_run(w, run);
}

int sel_nodes_writer_end(struct sel_nodes_writer *w, uint32_t attempt, struct sel_buf *out)
{
    uint8_t head[HEAD_END] = {[HEAD_VERSION] = SEL_NODES_VERSION};
    if (!w->pages.failed)
        end_page(w);
    int r = sel_buf_error(&w->pages);
    if (r == 0)
        r = sel_buf_error(&w->ends);
    size_t first = HEAD_END + 4 * ((size_t)w->page_count + 1);
    if (r == 0 && w->pages.n > UINT32_MAX - first)
        r = SEL_ELIMIT;
    if (r < 0)
        return r;
    sel_le_put32(head + HEAD_ATTEMPT, attempt);
    sel_le_put32(head + HEAD_PAGES, w->page_count);
    sel_buf_put(out, head, sizeof(head));
    put32(out, (uint32_t)first);
    for (uint32_t i = 0; i < w->page_count; i++)
        put32(out, (uint32_t)first + sel_le_get32((const char *)w->ends.p + (size_t)i * 4));
    sel_buf_put_str(out, sel_buf_str(&w->pages));
    return sel_buf_error(out);
}

/* ---- reading ---- */

int sel_nodes_decode(struct sel_str head, uint64_t size, struct sel_nodes *ret)
{
    if (head.n < HEAD_END || size < HEAD_END)
        return SEL_EFORMAT;
    if ((uint8_t)head.p[HEAD_VERSION] != SEL_NODES_VERSION)
        return SEL_EVERSION;
    struct sel_nodes nodes = {.attempt = sel_le_get32(head.p + HEAD_ATTEMPT),
                              .page_count = sel_le_get32(head.p + HEAD_PAGES),
                              .size = size};
    if (((uint64_t)nodes.page_count + 1) * 4 > size - HEAD_END)
        return SEL_EFORMAT;
    *ret = nodes;
    return 0;
}

uint64_t sel_nodes_place_at(const struct sel_nodes *nodes, uint32_t page)
{
    SEL_ASSERT(page < nodes->page_count);
    return HEAD_END + (uint64_t)page * 4;
}

int sel_nodes_place(const struct sel_nodes *nodes, struct sel_str bytes, uint64_t *ret_offset,
                    size_t *ret_size)
{
    if (bytes.n < SEL_NODES_PLACE_SIZE)
        return SEL_EFORMAT;
    uint64_t begin = sel_le_get32(bytes.p), end = sel_le_get32(bytes.p + 4);
    if (begin < HEAD_END + ((uint64_t)nodes->page_count + 1) * 4 || begin > end ||
        end > nodes->size || end - begin > SEL_NODES_PAGE_MAX)
        return SEL_EFORMAT;
    *ret_offset = begin;
    *ret_size = (size_t)(end - begin);
    return 0;
}

void sel_nodes_page_init(struct sel_nodes_page *page, struct sel_str bytes)
{
    /* The lists are written before they are read. */
    page->rest = bytes;
    page->runs = page->name_count = page->ordinal = 0;
    page->has_group = false;
    page->state = SEL_NODES_ACTIVE;
    page->name = 0;
}

static bool take_number(struct sel_nodes_page *page, uint64_t *ret)
{
    size_t at = 0;
    if (!sel_buf_get_varint((const uint8_t *)page->rest.p, page->rest.n, &at, ret))
        return false;
    page->rest = (struct sel_str){page->rest.p + at, page->rest.n - at};
    return true;
}

static bool take_bytes(struct sel_nodes_page *page, uint64_t n, struct sel_str *ret)
{
    if (n > page->rest.n)
        return false;
    *ret = (struct sel_str){page->rest.p, (size_t)n};
    page->rest = (struct sel_str){page->rest.p + n, page->rest.n - (size_t)n};
    return true;
}

/* A page is read into maps by name: within a state none may come twice, but for active runs, which
 * are a list. */
static bool take_group(struct sel_nodes_page *page, uint64_t what)
{
    enum sel_nodes_state state = (enum sel_nodes_state)(what % STATES);
    uint64_t name = what / STATES, size;
    if (state < page->state || name > page->name_count || name >= SEL_NODES_PAGE_RUNS)
        return false;
    if (name == page->name_count) {
        struct sel_str *text = &page->names[name];
        if (!take_number(page, &size) || size == 0 || size > SEL_WIRE_NAME_MAX ||
            !take_bytes(page, size, text) || !sel_str_is_utf8(*text))
            return false;
        page->seen[name] = 0;
        page->name_count++;
    }
    if (state != SEL_NODES_ACTIVE && page->seen[name] >> state & 1)
        return false;
    page->seen[name] |= (uint8_t)(1u << state);
    page->state = state;
    page->name = (uint32_t)name;
    page->has_group = true;
    return true;
}

static bool take_run(struct sel_nodes_page *page, uint64_t number, struct sel_nodes_run *ret)
{
    uint64_t zigzag = number >> OP_BITS, size;
    int64_t step = (int64_t)(zigzag >> 1) ^ -(int64_t)(zigzag & 1);
    struct sel_str bytes;
    if (!page->has_group || page->runs == SEL_NODES_PAGE_RUNS || step > UINT32_MAX ||
        step < -(int64_t)UINT32_MAX)
        return false;
    int64_t ordinal = page->ordinal + step;
    if (ordinal < 0 || ordinal > UINT32_MAX)
        return false;
    *ret = (struct sel_nodes_run){.state = page->state, .name = page->names[page->name]};
    ret->ordinal = page->ordinal = (uint32_t)ordinal;
    page->runs++;
    switch (number & OP_MASK) {
    case OP_FLOW:
        if (!take_bytes(page, ID_SIZE, &bytes))
            return false;
        ret->flow = sel_le_get_id(bytes.p);
        return (ret->flow.hi | ret->flow.lo) != 0;
    case OP_REUSE:
        return take_number(page, &size) && size > 0 && size <= SEL_NODES_TEXT_MAX &&
               take_bytes(page, size, &ret->reuse) && sel_str_is_utf8(ret->reuse);
    default:
        return true;
    }
}

int sel_nodes_next(struct sel_nodes_page *page, struct sel_nodes_run *ret)
{
    while (page->rest.n > 0) {
        uint64_t number;
        if (!take_number(page, &number))
            return SEL_EFORMAT;
        if ((number & OP_MASK) != OP_GROUP)
            return take_run(page, number, ret) ? 1 : SEL_EFORMAT;
        if (!take_group(page, number >> OP_BITS))
            return SEL_EFORMAT;
    }
    return 0;
}
