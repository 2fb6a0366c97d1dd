/* tests/sim/source.h - producers: processes that submit, wait, cancel, die and ask again. */
#ifndef SEL_TESTS_SIM_SOURCE_H
#define SEL_TESTS_SIM_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/producer.h"
#include "tests/sim/net.h"
#include "tests/sim/oracle.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

struct sel_source {
    struct sel_run *run;
    struct sel_process process;
    uint32_t index;
    struct sel_prng prng;
    struct sel_actor actor;
    struct sel_link link;
    int64_t told_us; /* when the broker sent what is being taken in */
    struct sel_producer *producer;
    uint16_t queues[SEL_SIM_QUEUES];
    uint32_t *due; /* wishes whose time has come and that could not be said yet */
    uint32_t due_count, due_cap;
    struct sel_buf kept; /* of a result, to be told another time; see enum sel_cheat */
};

void sel_source_init(struct sel_run *run);
void sel_source_done(struct sel_run *run);
void sel_source_start(struct sel_run *run, struct sel_source *source);
void sel_source_crash(struct sel_run *run, struct sel_source *source);
void sel_source_cancel(struct sel_run *run, struct sel_source *source, struct sel_deed *deed);
/* Asks for the results of all tasks, once more. */
void sel_source_audit(struct sel_run *run);
bool sel_source_is_idle(struct sel_run *run);

#endif
