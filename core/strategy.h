/* core/strategy.h - when a dispatcher looks at its flow again, for flows that configure `sampling`.
 *
 * Pure functions of the last wait and of what the last look did. */
#ifndef SEL_CORE_STRATEGY_H
#define SEL_CORE_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/prng.h"
#include "core/str.h"
#include "core/value.h"

struct sel_strategy_status {
    bool has_previous_retry;
    double previous_retry_s;
    uint32_t active_count;
    uint32_t new_started_count; /* nodes started by edges */
    uint32_t new_fallback_count;
};

#define SEL_STRATEGY_ARGS_MAX 4

struct sel_strategy {
    const char *name;
    uint8_t arg_count;
    const char *args[SEL_STRATEGY_ARGS_MAX];
    double defaults[SEL_STRATEGY_ARGS_MAX]; /* when `args` is absent altogether */
    /* Seconds until the next look; negative: do not look again. */
    double (*eval)(const double args[], const struct sel_strategy_status *status,
                   struct sel_prng *prng);
};

/* constant, random, linear_increase, linear_adapt, biexponential_increase,
 * biexponential_decrease, biexponential_adapt; NULL if unknown. */
const struct sel_strategy *sel_strategy_find(struct sel_str name);
const struct sel_strategy *sel_strategy_table(uint32_t *ret_count);

#endif
