/* worker/failures.h - what the runs of a flow failed with, by ordinal. One thread at a time. */
#ifndef SEL_WORKER_FAILURES_H
#define SEL_WORKER_FAILURES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/assert.h"
#include "core/error.h"
#include "core/str.h"

#define SEL_RUN_FAILURE_CLASS_MAX 255u  /* bytes that are kept of a class, */
#define SEL_RUN_FAILURE_TEXT_MAX 16384u /* and of a message */

struct sel_run_failure {
    uint32_t ordinal;
    char *error_class, *message; /* one piece of memory */
};

/* Zeroed is empty. */
struct sel_run_failures {
    struct sel_run_failure *items; /* in the order in which they came */
    uint32_t count, cap;
    uint32_t *index; /* hash table of item number + 1 */
    uint32_t index_cap;
};

void sel_run_failures_done(struct sel_run_failures *failures);
/* The first failure of a run counts. Texts are cut at the limits above. 0 or SEL_ENOMEM. */
int sel_run_failures_add(struct sel_run_failures *failures, uint32_t ordinal,
                         struct sel_str error_class, struct sel_str message) SEL_WARN_UNUSED;
/* false: nothing is known. Texts live as long as the table. */
bool sel_run_failures_find(const struct sel_run_failures *failures, uint32_t ordinal,
                           const char **ret_class, const char **ret_message);

#endif
