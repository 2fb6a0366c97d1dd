/* tests/sim/solo.h - a flow as the engine alone decides it: no broker, no time, no faults.
 *
 * core/decide and nothing else around it; tasks do what plot.h says. */
#ifndef SEL_TESTS_SIM_SOLO_H
#define SEL_TESTS_SIM_SOLO_H

#include "tests/sim/plot.h"

enum sel_solo_order { SEL_SOLO_FIRST, SEL_SOLO_LAST, SEL_SOLO_ANY };

#define SEL_SOLO_RUNS_MAX 250 /* of all flows below */

struct sel_solo_report {
    bool has_failed;       /* the flow */
    bool is_eager;         /* some flow was failed at once: what else began depends on the order */
    struct sel_buf counts; /* sel_plot_count of its nodes; borrowed by nobody */
    struct sel_cast cast;  /* runs of tasks */
    uint64_t starts;       /* the sum of who they are */
};

/* false: it has more than SEL_SOLO_RUNS_MAX runs. In any case `ret` is filled for
 * sel_solo_report_done. */
bool sel_solo_run(const struct sel_plot *plot, const struct sel_flow_def *flow, struct sel_str args,
                  enum sel_solo_order order, uint64_t seed, struct sel_solo_report *ret);
void sel_solo_report_done(struct sel_solo_report *report);

#endif
