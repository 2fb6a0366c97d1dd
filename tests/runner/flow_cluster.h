/* tests/runner/flow_cluster.h - a case of the topic `flows` on a cluster.
 *
 * For each case a broker with a journal and some workers are started, all in a private folder, with
 * one producer: the runner. Each worker plays the case's mock; how often a task ran, results in
 * memory and what is seen are files that they share. Delays pass faster. */
#ifndef SEL_TESTS_RUNNER_FLOW_CLUSTER_H
#define SEL_TESTS_RUNNER_FLOW_CLUSTER_H

#include "tests/runner/flow_case.h"

/* Runs the case, which was loaded, and compares. */
void sel_flow_cluster_run(struct sel_flow_case *c);

#endif
