/* tests/sim/run.h - one history, from a seed to a verdict. */
#ifndef SEL_TESTS_SIM_RUN_H
#define SEL_TESTS_SIM_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/crew.h"
#include "tests/sim/net.h"
#include "tests/sim/oracle.h"
#include "tests/sim/scenario.h"
#include "tests/sim/server.h"
#include "tests/sim/source.h"
#include "tests/sim/stage.h"
#include "tests/sim/world.h"

/* Ways in which the simulated world itself breaks a promise, to prove that it is seen.
 * name, what it does, the promise that breaks */
#define SEL_CHEAT_LIST(X)                                                                          \
    X(UNSYNCED, "unsynced", "the journal says that it synced, and did not", "lost")                \
    X(FORGET, "forget", "a worker forgets the end of a task", "")                                  \
    X(REPEAT, "repeat", "a worker runs a task a second time by itself", "twice")                   \
    X(READDRESS, "readdress", "the network repeats a TASK to another worker, numbered to fit",     \
      "twice")                                                                                     \
    X(OVERFILL, "overfill", "a worker takes more than it says", "window")                          \
    X(HURRY, "hurry", "the broker's clock runs ahead", "early")                                    \
    X(SWAP, "swap", "a producer is given another task's result", "invented")                       \
    X(DOUBLE, "double", "a producer is given the result of another run", "differs")                \
    X(STUTTER, "stutter", "a producer is given a result twice", "once")                            \
    X(BLUR, "blur", "the arguments of a task change on their way", "mixed-up")                     \
    X(TWIST, "twist", "a run of a flow ends as it should not", "outcome")                          \
    X(WHIM, "whim", "a function that a flow asks answers something else", "starts")

#define SEL_CHEAT_ENUM(name, text, what, promise) SEL_CHEAT_##name,
enum sel_cheat { SEL_CHEAT_NONE, SEL_CHEAT_LIST(SEL_CHEAT_ENUM) SEL_CHEAT_COUNT };
#undef SEL_CHEAT_ENUM

struct sel_run_options {
    uint64_t seed;
    uint64_t modes_only, modes_without; /* as sel_scenario_draw */
    bool is_verbose;
    bool is_short;  /* sel_scenario_draw_short */
    bool has_flows; /* sel_scenario_add_flows */
    enum sel_cheat cheat;
    uint64_t cut_write; /* the power fails at this write of the journal; 0: it does not */
    bool cut_after;     /* not at once, but when the broker has said what depends on it */
    bool cut_kills;     /* the process dies, the power stays */
    uint64_t disk_seed; /* what the disk keeps then */
};

struct sel_run_report {
    uint64_t hash;
    bool is_broken;
    char promise[24];
    char text[400];
    uint64_t modes;
    uint64_t events, frames, runs, tasks, writes, cuts, deaths;
    int64_t virtual_us;
};

struct sel_run {
    struct sel_run_options options;
    struct sel_scenario scenario;
    struct sel_world world;
    struct sel_net net;
    struct sel_oracle oracle;
    struct sel_stage stage;
    struct sel_server server;
    struct sel_worker workers[SEL_SIM_WORKERS];
    struct sel_source sources[SEL_SIM_PRODUCERS];
    struct sel_prng faults;
    bool is_healing; /* no more faults */
};

void sel_run_history(const struct sel_run_options *options, struct sel_run_report *ret);

/* Plans the faults of the scenario; ends them all. */
void sel_faults_plan(struct sel_run *run);
void sel_faults_heal(struct sel_run *run);

/* Names of peers, for the record. */
const char *sel_run_who(struct sel_run *run, const struct sel_link *link);
/* Prints what a frame says. */
void sel_show_frame(struct sel_run *run, const char *from, const char *to, struct sel_str frame);

const char *sel_cheat_name(enum sel_cheat cheat);
const char *sel_cheat_text(enum sel_cheat cheat);
const char *sel_cheat_promise(enum sel_cheat cheat);

#endif
