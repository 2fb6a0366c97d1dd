/* tests/sim/server.h - the process of the broker: loop, commits, journal, deaths. */
#ifndef SEL_TESTS_SIM_SERVER_H
#define SEL_TESTS_SIM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/broker.h"
#include "storage/journal.h"
#include "tests/sim/net.h"
#include "tests/sim/world.h"

struct sel_server {
    struct sel_process process;
    struct sel_actor actor;
    struct sel_prng prng;
    struct sel_journal_disk *disk;
    struct sel_journal *journal;
    struct sel_broker *core;
    struct sel_frames inbox;
    bool is_starting;
    /* a commit under way */
    bool is_committing, is_appended;
    struct sel_broker_batches batches;
    int result;
    int64_t started_us; /* the last start */
    uint32_t starts;
    bool is_cut_due, was_cut; /* of sel_run_options.cut_write */
    struct sel_broker_stats stats;
};

void sel_server_init(struct sel_run *run);
void sel_server_done(struct sel_run *run);
/* Starts in `delay_us`, if it is not up. */
void sel_server_start(struct sel_run *run, int64_t delay_us);
/* SIGKILL, or the end of the power. */
void sel_server_kill(struct sel_run *run, bool is_power);
void sel_server_take(struct sel_run *run, struct sel_frame *take_frame);
bool sel_server_is_idle(struct sel_run *run);

#endif
