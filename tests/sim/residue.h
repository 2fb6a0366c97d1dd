/* tests/sim/residue.h - what a broker has for flows, and still has when all has ended.
 *
 * A look into the broker's own table, which nobody outside is shown: alone in its file. */
#ifndef SEL_TESTS_SIM_RESIDUE_H
#define SEL_TESTS_SIM_RESIDUE_H

#include <stdint.h>

struct sel_broker;

struct sel_residue {
    uint32_t open;       /* entries that have not ended */
    uint32_t runs;       /* ended runs of tasks that their flow has not let go of */
    uint32_t pieces;     /* of what is kept for flows */
    uint64_t flow_bytes; /* in memory, for what flows started */
};

void sel_residue_look(const struct sel_broker *broker, struct sel_residue *ret);

#endif
