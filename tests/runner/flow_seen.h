/* tests/runner/flow_seen.h - what a run of a flow has shown, compared with what a case expects.
 *
 * Both runtimes tell it as lines of a mock's report (worker/mock_report.h). */
#ifndef SEL_TESTS_RUNNER_FLOW_SEEN_H
#define SEL_TESTS_RUNNER_FLOW_SEEN_H

#include "core/hash.h"
#include "core/trace.h"
#include "tests/runner/flow_case.h"

/* A task or flow that began. */
struct sel_flow_begun {
    struct sel_str name;
    int64_t at_us;
};

/* All of it is in the arena of the case. */
struct sel_flow_seen {
    struct sel_flow_case *c;
    /* Processes died: what was seen may have been seen twice, some of it not at all. Executions are
     * those of different runs and tries, ends and stored results different ones; events and starts
     * are not compared, and nothing is too late. */
    bool is_disturbed;
    struct sel_map tries;        /* "ID TRY" of executions, if so */
    struct sel_map result_index; /* id of a run -> position in results */
    struct sel_value_builder results, executions, ends, stored;
    uint64_t events[SEL_TRACE_COUNT];
    struct sel_flow_begun *begun;
    uint32_t begun_count, begun_cap;
    int64_t last_end_us; /* of a task or flow */
};

void sel_flow_seen_init(struct sel_flow_seen *seen, struct sel_flow_case *c, bool is_disturbed);
void sel_flow_seen_done(struct sel_flow_seen *seen);
/* Takes the whole report in; `text` lives as long as the case. What is wrong with it fails the
 * case. */
void sel_flow_seen_read(struct sel_flow_seen *seen, struct sel_str text);

/* How the top flow ended. */
struct sel_flow_top {
    const char *outcome;
    struct sel_value state; /* {finished_nodes, failed_nodes}: name -> ids */
    /* Delays passed so many times as fast, at least as long as that. 0: time was virtual, and is
     * compared exactly. */
    double speed;
    int64_t begin_us; /* nothing can have happened before */
};

void sel_flow_seen_compare(struct sel_flow_seen *seen, const struct sel_flow_top *top);

#endif
