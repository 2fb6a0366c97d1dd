#include "cli/inspect.h"

#include "core/buf.h"
#include "core/system.h"

/* A quoted text; line breaks of conditions become those of a label. */
static void put_quoted(struct sel_buf *buf, struct sel_str text)
{
    sel_buf_put_u8(buf, '"');
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '"' || c == '\\')
            sel_buf_put_u8(buf, '\\');
        if (c == '\n')
            sel_buf_put_c(buf, "\\n");
        else
            sel_buf_put_u8(buf, (uint8_t)c);
    }
    sel_buf_put_u8(buf, '"');
}

/* Names of vertices: f<flow>n<slot> a node, f<flow>e<edge> the point of an edge, f<flow>c<choice>
 * that of a set of failed nodes. */
static void put_node(struct sel_buf *buf, const struct sel_system *s,
                     const struct sel_flow_def *flow, uint32_t slot)
{
    uint32_t node = flow->nodes[slot].node;
    sel_buf_printf(buf, "    f%un%u [shape=%s, label=", flow->index, slot,
                   sel_system_is_flow(s, node) ? "box" : "ellipse");
    put_quoted(buf, sel_system_node_name(s, node));
    sel_buf_put_c(buf, "];\n");
}

/* What stands at an edge: its condition and its foreach. */
static void put_edge_label(struct sel_buf *buf, const struct sel_edge_def *edge)
{
    bool has_cond = edge->cond->op != SEL_COND_TRUE;
    if (!has_cond && !edge->foreach)
        return;
    struct sel_buf label = {0};
    if (has_cond)
        sel_buf_put_c(&label, edge->cond_text);
    if (edge->foreach)
        sel_buf_printf(&label, "%s%s", has_cond ? "\n" : "", edge->foreach->text);
    buf->failed = buf->failed || label.failed;
    sel_buf_put_c(buf, ", xlabel=");
    put_quoted(buf, sel_buf_str(&label));
    sel_buf_done(&label);
}

static void put_edge(struct sel_buf *buf, const struct sel_flow_def *flow, uint32_t e)
{
    const struct sel_edge_def *edge = &flow->edges[e];
    sel_buf_printf(buf, "    f%ue%u [shape=%s, label=\"\"", flow->index, e,
                   edge->from_count ? "point" : "circle, width=0.15");
    put_edge_label(buf, edge);
    sel_buf_put_c(buf, "];\n");
    for (uint32_t i = 0; i < edge->from_count; i++)
        sel_buf_printf(buf, "    f%un%u -> f%ue%u [arrowhead=none];\n", flow->index, edge->from[i],
                       flow->index, e);
    for (uint32_t i = 0; i < edge->to_count; i++)
        sel_buf_printf(buf, "    f%ue%u -> f%un%u%s;\n", flow->index, e, flow->index, edge->to[i],
                       edge->foreach ? " [arrowhead=normalnormal]" : "");
}

static void put_choice(struct sel_buf *buf, const struct sel_flow_def *flow, uint32_t c)
{
    const struct sel_choice_def *choice = &flow->choices[c];
    sel_buf_printf(buf, "    f%uc%u [shape=diamond, width=0.15, height=0.15, label=\"\"];\n",
                   flow->index, c);
    for (uint32_t i = 0; i < choice->failed_count; i++)
        sel_buf_printf(buf, "    f%un%u -> f%uc%u [style=dashed, arrowhead=none];\n", flow->index,
                       choice->failed[i], flow->index, c);
    for (uint32_t k = 0; k < choice->fallback_count; k++) {
        const struct sel_fallback_def *fallback = &choice->fallbacks[k];
        for (uint32_t i = 0; i < fallback->node_count; i++) {
            sel_buf_printf(buf, "    f%uc%u -> f%un%u [style=dashed", flow->index, c, flow->index,
                           fallback->nodes[i]);
            if (fallback->cond->op != SEL_COND_TRUE) {
                sel_buf_put_c(buf, ", label=");
                put_quoted(buf, sel_str_c(fallback->cond_text));
            }
            sel_buf_put_c(buf, "];\n");
        }
    }
}

void sel_cli_inspect_dot(const struct sel_system *s, struct sel_buf *buf)
{
    sel_buf_put_c(buf, "digraph selinon {\n");
    for (uint32_t i = 0; i < s->flow_count; i++) {
        const struct sel_flow_def *flow = &s->flows[i];
        sel_buf_printf(buf, "  subgraph cluster_%u {\n    label=", i);
        put_quoted(buf, flow->name);
        sel_buf_put_c(buf, ";\n");
        for (uint32_t slot = 0; slot < flow->node_count; slot++)
            put_node(buf, s, flow, slot);
        for (uint32_t e = 0; e < flow->edge_count; e++)
            put_edge(buf, flow, e);
        for (uint32_t c = 0; c < flow->choice_count; c++)
            put_choice(buf, flow, c);
        sel_buf_put_c(buf, "  }\n");
    }
    sel_buf_put_c(buf, "}\n");
}
