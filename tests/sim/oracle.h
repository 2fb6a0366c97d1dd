/* tests/sim/oracle.h - what was promised, and whether it was kept.
 *
 * The oracle stands outside: it knows true time, sees what the processes of the simulator are told
 * and do, and never talks to them. A broken promise ends the run. Promises, by the names that it
 * prints:
 *
 *   lost          a settled SUBMIT gets a result            once       ... and only one report
 *   differs       the result of a task never changes        invented   ... and somebody made it
 *   twice         a second run has a reason                 after-end  no run after a final success
 *   early         no run before its time                    order      by priority, then age
 *   mixed-up      what runs is what was submitted           window     not more than a worker takes
 *   refused       only what may be refused is               error      nobody speaks wrongly
 *   memory        the broker stays below its limit          stats      its numbers add up
 *   journal       the journal can be read after any end     idle       everything ends
 *   late          a dead worker's tasks run elsewhere soon  spin       nobody turns without need */
#ifndef SEL_TESTS_SIM_ORACLE_H
#define SEL_TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/producer.h"
#include "core/buf.h"
#include "core/id.h"
#include "proto/wire.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

struct sel_member; /* a session of a worker, crew.h */

/* A task as the world knows it: what was planned for it, and what became of it. */
struct sel_deed {
    struct sel_id id;
    uint32_t index;
    /* planned */
    uint8_t kind, queue, priority, level; /* level: never DEFAULT here */
    bool says_default;                    /* the SUBMIT says level 0 */
    bool is_quiet;
    uint32_t flow; /* 0: a task; else which flow, about: see stage.h */
    uint32_t key;  /* 0: none; tasks with the same key ... */
    uint32_t body; /* ... and the same body (an index) are one task, the one with that index */
    uint32_t payload_size;
    int64_t countdown_us;
    int64_t later_us; /* not before: so much after the submit, by the producer's clock */
    uint32_t retries; /* tries that fail first */
    uint32_t outcome; /* enum sel_wire_outcome of the last */
    int64_t retry_countdown_us;
    int64_t run_us;
    /* happened */
    int64_t submitted_us;       /* first; 0: not yet */
    uint32_t age;               /* in the order of the first submits */
    int64_t not_before_unix_us; /* as the first SUBMIT said it */
    int64_t settled_us;         /* a producer was told first */
    int64_t cancelled_us;       /* somebody cancelled it first */
    int64_t given_us;           /* to a worker, last */
    int64_t overflowed_us;      /* its stack overflowed, a worker said */
    int64_t success_us;         /* a worker was told that its success is kept */
    uint32_t runs;              /* number of its runs */
    uint32_t last_run;          /* 1 + index of the last one, which knows the one before */
    bool has_result;
    uint32_t code;
    int64_t result_us;
    uint64_t result_hash;
};

/* A wish of a producer to know a result. */
enum sel_wish_state { SEL_WISH_NEW, SEL_WISH_SENT, SEL_WISH_OVER };
struct sel_wish {
    uint32_t deed, producer;
    int64_t at_us;
    enum sel_wish_state state;
    bool is_settled; /* this producer was told, in this or an earlier life */
    bool is_watch;   /* as a WATCH now */
    bool is_refused;
    bool is_listed; /* its producer has it under way in this life */
};

/* GOING is first: a run begins so. */
enum sel_run_state { SEL_RUN_GOING, SEL_RUN_ENDED, SEL_RUN_SETTLED, SEL_RUN_DEAD };
/* One time that a worker did a task. */
struct sel_sim_execution {
    uint32_t deed, before; /* before: 1 + index of the run before of the same task */
    struct sel_member *member;
    uint64_t life; /* of its process */
    uint16_t try_count, delivery;
    int64_t begun_us, ended_us;
    int64_t lapsed_us; /* as its member's, when the process ended */
    uint32_t code;
    bool is_called_off; /* its worker was told to stop: somebody else had the task */
    enum sel_run_state state;
};

#define SEL_ORACLE_DEATHS 256

struct sel_oracle {
    int64_t workers_us; /* when the first worker started */
    uint32_t submits;   /* that were seen: the age of tasks */
    struct sel_deed deeds[SEL_SIM_TASKS];
    uint32_t deed_count;
    struct sel_wish *wishes;
    uint32_t wish_count, wish_cap;
    struct sel_sim_execution *runs;
    uint32_t run_count, run_cap;
    struct {
        int64_t at_us;
        bool is_power;
    } deaths[SEL_ORACLE_DEATHS]; /* of the broker */
    uint32_t death_count;
    int64_t last_jump_us; /* of the broker's clock of the day; 0: none */
    struct sel_buf scratch;
};

void sel_oracle_init(struct sel_run *run);
void sel_oracle_done(struct sel_run *run);

/* NULL: not one of ours. */
struct sel_deed *sel_oracle_deed(struct sel_run *run, struct sel_id id);
/* What its SUBMIT carries: one msgpack value; in `buf`, which is cleared. */
void sel_oracle_payload(const struct sel_deed *deed, struct sel_buf *buf);
/* What run number `run_index` of it answers. */
void sel_oracle_result(const struct sel_deed *deed, uint32_t run_index, uint32_t size,
                       struct sel_buf *buf);

/* Whether what was kept of the task at `since_us` may be gone by right. */
bool sel_oracle_is_forgiven(const struct sel_run *run, const struct sel_deed *deed,
                            int64_t since_us);

/* ---- what happens ---- */

void sel_oracle_submitted(struct sel_run *run, struct sel_wish *wish, int64_t not_before_unix_us);
void sel_oracle_settled(struct sel_run *run, struct sel_wish *wish);
void sel_oracle_finished(struct sel_run *run, struct sel_wish *wish,
                         const struct sel_producer_result *result);
/* A worker begins it; the index of the run. */
uint32_t sel_oracle_begun(struct sel_run *run, struct sel_member *member,
                          const struct sel_wire_item *item);
void sel_oracle_ended(struct sel_run *run, uint32_t run_index, uint32_t code);
void sel_oracle_end_settled(struct sel_run *run, uint32_t run_index);
/* Another run that went as this one did; its index. */
uint32_t sel_oracle_double(struct sel_run *run, uint32_t run_index);
void sel_oracle_broker_died(struct sel_run *run, bool is_power);
void sel_oracle_broker_started(struct sel_run *run);
/* The broker took a frame of a peer. */
void sel_oracle_heard(struct sel_run *run, uint32_t connection, struct sel_str frame, bool is_copy);
/* A frame between a peer and the broker. */
void sel_oracle_said(struct sel_run *run, uint32_t connection, struct sel_str frame, bool is_up);

/* ---- looks ---- */

/* A worker has died; is what ran there begun elsewhere in time? */
void sel_oracle_expect_elsewhere(struct sel_run *run, uint32_t run_index);
/* What a session of a worker has at a time. */
void sel_oracle_check_member(struct sel_run *run, struct sel_member *member);

void sel_oracle_check_broker(struct sel_run *run);
/* Everything has healed and nothing moves: is everything there? */
void sel_oracle_check_end(struct sel_run *run);

#endif
