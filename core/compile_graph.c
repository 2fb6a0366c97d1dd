#include "core/compile_internal.h"

void sel_compile_graph_flow(struct sel_compiler *c, const struct sel_compile_flow *flow)
{
    (void)c;
    (void)flow;
}

void sel_compile_graph_system(struct sel_compiler *c)
{
    (void)c;
}
