/* cli/nodes.h - the nodes of a flow that has ended, a line each. */
#ifndef SEL_CLI_NODES_H
#define SEL_CLI_NODES_H

#include "cli/ends.h"

/* Prints the nodes that the result of the flow has, or has numbers for: those come from `query`,
 * where its broker answers questions, page by page. People get state, name and id, --json an object
 * of them. An exit status: that they could be told. */
int sel_cli_nodes_print(struct sel_cli_ends *ends, const char *query,
                        const struct sel_client_result *result);

/* How many pages the result of a flow says that there are; 0: it has all, or is none of a flow. */
uint32_t sel_cli_nodes_pages(const struct sel_value *value);

#endif
