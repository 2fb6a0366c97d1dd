/* tests/sim/crew.h - workers: processes with several sessions that run tasks in virtual time. */
#ifndef SEL_TESTS_SIM_CREW_H
#define SEL_TESTS_SIM_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"
#include "worker/holder.h"

struct sel_dispatcher;
struct sel_worker;

struct sel_job {
    struct sel_held_task *task; /* NULL: the slot is free */
    uint32_t run;               /* UINT32_MAX: it is not known here and goes back */
    uint32_t part;              /* 1 + what it is for a flow, see stage.h; 0: a bare task */
    uint64_t token;             /* of the event that ends it */
    uint8_t progress;
    bool is_stopping; /* was cancelled and takes notice */
};

/* An end that was put and is not settled. */
struct sel_put_end {
    uint32_t run;
    uint64_t number; /* in the direction of the broker */
};

/* A session of a worker: a thread with a loop, slots and a holder. */
struct sel_member {
    struct sel_run *run;
    struct sel_worker *worker;
    uint32_t index;
    struct sel_actor actor;
    struct sel_link link;
    struct sel_holder *holder;
    struct sel_dispatcher *dispatcher; /* NULL: it decides no flows */
    struct sel_id id;
    uint32_t incarnation;
    struct sel_job jobs[SEL_SIM_SLOTS];
    uint32_t job_count;
    uint64_t tokens;
    uint64_t beats, turns;
    struct sel_put_end *ends; /* in the order of their numbers */
    uint32_t end_count, end_cap;
    struct sel_buf page;         /* what ran when the process died, for its next life */
    int64_t started_us, busy_us; /* this life; when a slot was taken or left last */
    struct sel_peer_ops spy;     /* the holder's, with an ear for what is settled */
    const struct sel_peer_ops *spied;
    void *spied_ctx;
    /* what the oracle knows */
    int64_t lapsed_us;         /* when the broker may last have given it up; 0: never */
    uint32_t hello_connection; /* on which the broker heard its HELLO; 0: it was not told of it */
};

struct sel_worker {
    struct sel_process process;
    uint32_t index;
    struct sel_prng prng;
    struct sel_actor beat_actor;
    struct sel_link beat_link;
    struct sel_member members[SEL_SIM_SESSIONS];
    uint32_t member_count;
    bool is_leaving;
};

void sel_crew_init(struct sel_run *run);
void sel_crew_done(struct sel_run *run);
void sel_crew_start(struct sel_run *run, struct sel_worker *worker);
void sel_crew_crash(struct sel_run *run, struct sel_worker *worker);
void sel_crew_leave(struct sel_run *run, struct sel_worker *worker);
bool sel_crew_is_idle(struct sel_run *run);
/* The session that has this peer id now; NULL: none. */
struct sel_member *sel_crew_find(struct sel_run *run, struct sel_id id);

#endif
