#include "core/compile_internal.h"

/* Tarjan's algorithm with its own stack: a chain of a million vertices must not need a million
 * frames. */
struct walk {
    const struct sel_compile_graph *g;
    uint32_t *order; /* when a vertex was first seen, from 1; 0: not yet */
    uint32_t *low;   /* the earliest vertex that it reaches */
    uint32_t *open;  /* seen, but not yet in a component */
    bool *is_open;
    uint32_t *path; /* from the root to the vertex at hand */
    uint32_t *arc;  /* the next arc of each vertex on the path */
    uint32_t open_count, path_count, seen;
    uint32_t *component; /* the result */
    uint32_t component_count;
};

static void enter(struct walk *w, uint32_t vertex)
{
    w->order[vertex] = w->low[vertex] = ++w->seen;
    w->arc[vertex] = w->g->first[vertex];
    w->open[w->open_count++] = vertex;
    w->is_open[vertex] = true;
    w->path[w->path_count++] = vertex;
}

/* All arcs of `vertex` are followed: it may be the root of a component. */
static void leave(struct walk *w, uint32_t vertex)
{
    w->path_count--;
    if (w->path_count > 0) {
        uint32_t parent = w->path[w->path_count - 1];
        if (w->low[vertex] < w->low[parent])
            w->low[parent] = w->low[vertex];
    }
    if (w->low[vertex] != w->order[vertex])
        return;
    uint32_t member;
    do {
        member = w->open[--w->open_count];
        w->is_open[member] = false;
        w->component[member] = w->component_count;
    } while (member != vertex);
    w->component_count++;
}

static void walk_from(struct walk *w, uint32_t root)
{
    enter(w, root);
    while (w->path_count > 0) {
        uint32_t vertex = w->path[w->path_count - 1];
        if (w->arc[vertex] == w->g->first[vertex + 1]) {
            leave(w, vertex);
            continue;
        }
        uint32_t next = w->g->head[w->arc[vertex]++];
        if (w->order[next] == 0)
            enter(w, next);
        else if (w->is_open[next] && w->order[next] < w->low[vertex])
            w->low[vertex] = w->order[next];
    }
}

const uint32_t *sel_compile_graph_components(struct sel_compiler *c,
                                             const struct sel_compile_graph *g)
{
    struct walk w = {.g = g};
    w.order = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    w.low = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    w.open = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    w.is_open = SEL_COMPILE_SCRATCH(c, bool, g->vertex_count);
    w.path = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    w.arc = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    w.component = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    if (c->no_memory)
        return NULL;
    for (uint32_t vertex = 0; vertex < g->vertex_count; vertex++) {
        if (w.order[vertex] == 0)
            walk_from(&w, vertex);
    }
    return w.component;
}

const uint32_t *sel_compile_graph_cycles(struct sel_compiler *c, const struct sel_compile_graph *g,
                                         const uint32_t *component, uint32_t *ret_count)
{
    bool *told = SEL_COMPILE_SCRATCH(c, bool, g->vertex_count);
    uint32_t *found = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    *ret_count = 0;
    if (c->no_memory)
        return NULL;
    for (uint32_t tail = 0; tail < g->vertex_count; tail++) {
        for (uint32_t a = g->first[tail]; a < g->first[tail + 1]; a++) {
            uint32_t own = component[tail];
            if (component[g->head[a]] != own || told[own])
                continue;
            told[own] = true;
            found[(*ret_count)++] = tail;
        }
    }
    return found;
}

const uint32_t *sel_compile_graph_way(struct sel_compiler *c, const struct sel_compile_graph *g,
                                      const uint32_t *component, uint32_t vertex,
                                      uint32_t *ret_count)
{
    uint32_t *before = SEL_COMPILE_SCRATCH(c, uint32_t, g->vertex_count);
    uint32_t *queue = SEL_COMPILE_SCRATCH(c, uint32_t, (size_t)g->vertex_count + 1);
    *ret_count = 0;
    if (c->no_memory)
        return NULL;
    memset(before, 0xff, g->vertex_count * sizeof(*before)); /* SEL_NONE */
    uint32_t count = 0;
    queue[count++] = vertex;
    for (uint32_t at = 0; at < count && before[vertex] == SEL_NONE; at++) {
        for (uint32_t a = g->first[queue[at]]; a < g->first[queue[at] + 1]; a++) {
            uint32_t next = g->head[a];
            if (component[next] != component[vertex] || before[next] != SEL_NONE)
                continue;
            before[next] = queue[at];
            queue[count++] = next;
        }
    }
    SEL_ASSERT(before[vertex] != SEL_NONE); /* the caller knows that there is a cycle */
    uint32_t length = 1;
    for (uint32_t v = before[vertex]; v != vertex; v = before[v])
        length++;
    *ret_count = length;
    for (uint32_t v = before[vertex]; v != vertex; v = before[v])
        queue[--length] = v;
    queue[0] = vertex;
    return queue;
}
