/* cli/inspect.h - a compiled system as text for people and as a graph, for `inspect --dump`. */
#ifndef SEL_CLI_INSPECT_H
#define SEL_CLI_INSPECT_H

struct sel_buf;
struct sel_system;

/* Tasks, storages and flows in the order of the files, one line for each task, storage and edge;
 * what has its default value is left out. Errors stick in `buf`. */
void sel_cli_inspect_text(const struct sel_system *s, struct sel_buf *buf);

/* All flows as one graph in Graphviz' language: a cluster for each flow, an edge of several sources
 * through a point, fallbacks dashed. Errors stick in `buf`. */
void sel_cli_inspect_dot(const struct sel_system *s, struct sel_buf *buf);

#endif
