/* proto/nodes.h - the runs of a flow that has ended, in pages: what the `events` of a DECIDE carry
 * that ends a root flow whose RESULT has numbers in place of ids.
 *
 * The dispatcher writes them, the broker keeps the bytes and reads one page when it is asked for
 * it: any page is found by its place in an index. Within a page a run is a number or two; ids are
 * told only where they cannot be derived. proto/PROTOCOL.md, "Nodes", has the layout. Reading
 * checks everything. Pure; any thread. */
#ifndef SEL_PROTO_NODES_H
#define SEL_PROTO_NODES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/error.h"
#include "core/id.h"
#include "core/str.h"

#define SEL_NODES_VERSION 1
#define SEL_NODES_PAGE_RUNS 1000u
#define SEL_NODES_PAGE_FULL ((size_t)64 << 10) /* a page of more bytes gets no more runs */
#define SEL_NODES_PAGE_MAX ((size_t)256 << 10) /* nor is it read */
#define SEL_NODES_TEXT_MAX ((size_t)64 << 10)  /* of an id that is text */
#define SEL_NODES_HEAD_SIZE 12
#define SEL_NODES_PLACE_SIZE 8 /* what sel_nodes_place needs of the index */

enum sel_nodes_state { SEL_NODES_ACTIVE, SEL_NODES_FINISHED, SEL_NODES_FAILED };

struct sel_nodes_run {
    enum sel_nodes_state state;
    struct sel_str name; /* of the node, 1 to 255 bytes of UTF-8 */
    uint32_t ordinal;
    struct sel_id flow;   /* a sub-flow: its id; 0: none */
    struct sel_str reuse; /* the result of another flow's run was taken: its id; n == 0: none */
};

/* ---- writing ---- */

/* Pages under construction. Zeroed it is empty; `limit` of `pages` bounds them. */
struct sel_nodes_writer {
    struct sel_buf pages, ends; /* ends: u32 of each page that is complete */
    uint32_t page_count;
    uint64_t run_count;
    /* Private: the page at the end. */
    size_t page_at;
    uint32_t page_runs, page_names, last_ordinal;
    bool has_group;
    enum sel_nodes_state group_state;
    uint32_t group_node;
    struct sel_nodes_known {
        uint32_t page, name; /* 1 + number of the page in which the node has that number */
    } * known;               /* by node */
    uint32_t known_cap;
};
void sel_nodes_writer_done(struct sel_nodes_writer *writer);
/* Appends a run of the node `node`, the caller's number for the name. Runs of one state follow each
 * other, ascending states; those of a name that finished or failed too. Errors stick. */
void sel_nodes_add(struct sel_nodes_writer *writer, const struct sel_nodes_run *run, uint32_t node);
/* Appends all to `out`; the writer is to be done with after it. 0; SEL_ELIMIT: over the limit, or
 * something that no page can hold; SEL_ENOMEM. */
int sel_nodes_writer_end(struct sel_nodes_writer *writer, uint32_t attempt,
                         struct sel_buf *out) SEL_WARN_UNUSED;

/* ---- reading ---- */

struct sel_nodes {
    uint32_t attempt;
    uint32_t page_count;
    uint64_t size; /* of all */
};
/* `head`: the first SEL_NODES_HEAD_SIZE bytes of `size`. 0; SEL_EFORMAT; SEL_EVERSION: of a newer
 * program. */
int sel_nodes_decode(struct sel_str head, uint64_t size, struct sel_nodes *ret) SEL_WARN_UNUSED;
/* Where the place of a page is told: an offset into all. */
uint64_t sel_nodes_place_at(const struct sel_nodes *nodes, uint32_t page);
/* `bytes`: SEL_NODES_PLACE_SIZE from there. 0 or SEL_EFORMAT. */
int sel_nodes_place(const struct sel_nodes *nodes, struct sel_str bytes, uint64_t *ret_offset,
                    size_t *ret_size) SEL_WARN_UNUSED;

/* The runs of a page, one after the other. */
struct sel_nodes_page {
    struct sel_str rest;
    uint32_t runs, name_count, ordinal;
    bool has_group;
    enum sel_nodes_state state;
    uint32_t name;
    struct sel_str names[SEL_NODES_PAGE_RUNS];
    uint8_t seen[SEL_NODES_PAGE_RUNS]; /* bits of states that had the name */
};
void sel_nodes_page_init(struct sel_nodes_page *page, struct sel_str bytes);
/* 1: the next run; texts point into the bytes. 0: there are no more. SEL_EFORMAT. */
int sel_nodes_next(struct sel_nodes_page *page, struct sel_nodes_run *ret) SEL_WARN_UNUSED;

#endif
