/* worker/parents.h - what a node run knows of the runs whose end started it.
 *
 * A parent that is a sub-flow is kept as a reference to the ended flow and only becomes a map of
 * names and ids when somebody asks. Once made, parents and ended flows do not change: any thread
 * may read them; references are counted by the hub thread alone. */
#ifndef SEL_WORKER_PARENTS_H
#define SEL_WORKER_PARENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/state.h"
#include "core/system.h"
#include "core/value.h"
#include "worker/failures.h"

/* A flow that has ended, as far as others may ask about it. */
struct sel_ended_flow {
    uint32_t refs;
    const struct sel_flow_def *flow;
    struct sel_state state; /* its final one */
    struct sel_ended_flow *
        *children; /* parallel to state.children; NULL: nobody asked to keep it */
    struct sel_run_failures failures; /* of its runs, on a cluster */
};

/* Takes over `take_state` and the array `take_children` (references included). One reference; NULL:
 * out of memory, nothing taken. */
struct sel_ended_flow *sel_ended_flow_new(const struct sel_flow_def *flow,
                                          struct sel_state *take_state,
                                          struct sel_ended_flow **take_children);
struct sel_ended_flow *sel_ended_flow_ref(struct sel_ended_flow *ended); /* NULL allowed */
void sel_ended_flow_unref(struct sel_ended_flow *ended);                 /* NULL allowed */

struct sel_parent {
    struct sel_str name;          /* of the system: outlives everything here */
    char *id;                     /* a task's run id, terminated; NULL: a sub-flow */
    struct sel_ended_flow *ended; /* a sub-flow's */
    bool compound;                /* its tasks in one map, whatever flow below they ran in */
    char *error_class, *message;  /* on a cluster: what it failed with; NULL: not known */
};

struct sel_parents {
    uint32_t refs;
    uint32_t count, failed_count;
    struct sel_parent parents[]; /* `count` that finished, then `failed_count` that failed */
};

/* Room for `count` parents, to be filled with sel_parents_set_*; one reference. NULL: out of
 * memory. */
struct sel_parents *sel_parents_new(uint32_t count, uint32_t failed_count);
struct sel_parents *sel_parents_ref(struct sel_parents *parents); /* NULL allowed */
void sel_parents_unref(struct sel_parents *parents);              /* NULL allowed */
/* `index` counts the finished ones, then the failed ones. 0 or SEL_ENOMEM. */
int sel_parents_set_task(struct sel_parents *parents, uint32_t index, struct sel_str name,
                         struct sel_str id) SEL_WARN_UNUSED;
/* Refs `ended`. */
void sel_parents_set_flow(struct sel_parents *parents, uint32_t index, struct sel_str name,
                          struct sel_ended_flow *ended, bool compound);
/* What entry `index` failed with. 0 or SEL_ENOMEM. */
int sel_parents_set_failure(struct sel_parents *parents, uint32_t index, const char *error_class,
                            const char *message) SEL_WARN_UNUSED;
/* Copies one entry of another. 0 or SEL_ENOMEM. */
int sel_parents_copy(struct sel_parents *parents, uint32_t index,
                     const struct sel_parent *from) SEL_WARN_UNUSED;

/* The finished ones of `parents` (NULL allowed), the failed ones, or both, as one reference in
 * *ret; NULL if there is nothing to hand on. 0 or SEL_ENOMEM. */
int sel_parents_part(struct sel_parents *parents, bool finished, bool failed,
                     struct sel_parents **ret) SEL_WARN_UNUSED;

/* What the failed run `id` (of a task, in sub-flows too) failed with; false: it is none of the
 * failed parents, or it is not known. Texts live as long as `parents`, which may be NULL. */
bool sel_parents_find_failure(const struct sel_parents *parents, struct sel_str id,
                              const char **ret_class, const char **ret_message);

/* As tasks see them: {task: id, flow: {task: [ids], ...}}, flows inside flows nested, in the order
 * in which the nodes were started. `parents` may be NULL. 0, SEL_ENOMEM, or SEL_ELIMIT: flows are
 * nested too deeply to be shown. */
int sel_parents_to_value(const struct sel_system *system, const struct sel_parents *parents,
                         bool failed, struct sel_arena *arena,
                         struct sel_value *ret) SEL_WARN_UNUSED;

#endif
