#include "core/strategy.h"

#include <math.h>

#include "core/assert.h"

/* Doubles count whole numbers one by one up to here. */
#define RANDOM_SPAN_MAX 9007199254740992.0

static bool has_started_something(const struct sel_strategy_status *status)
{
    return status->new_started_count > 0 || status->new_fallback_count > 0;
}

static double at_most(double value, double limit)
{
    return value < limit ? value : limit;
}

static double at_least(double value, double limit)
{
    return value > limit ? value : limit;
}

static double eval_constant(const double args[], const struct sel_strategy_status *status,
                            struct sel_prng *prng)
{
    (void)prng;
    return status->active_count == 0 ? -1 : args[0];
}

/* args: start_retry, max_retry. A range without a whole number answers its lower end. */
static double eval_random(const double args[], const struct sel_strategy_status *status,
                          struct sel_prng *prng)
{
    if (status->active_count == 0)
        return -1;
    double low = ceil(args[0]), high = floor(args[1]);
    if (!(low <= high))
        return args[0];
    double count = at_most(high - low + 1, RANDOM_SPAN_MAX);
    return low + (double)sel_prng_below(prng, (uint64_t)count);
}

/* args: start_retry, max_retry, step */
static double eval_linear_increase(const double args[], const struct sel_strategy_status *status,
                                   struct sel_prng *prng)
{
    (void)prng;
    if (status->active_count == 0)
        return -1;
    if (!status->has_previous_retry || has_started_something(status))
        return args[0];
    return at_most(status->previous_retry_s + args[2], args[1]);
}

/* args: start_retry, max_retry, step */
static double eval_linear_adapt(const double args[], const struct sel_strategy_status *status,
                                struct sel_prng *prng)
{
    (void)prng;
    if (status->active_count == 0)
        return -1;
    if (!status->has_previous_retry)
        return args[0];
    if (has_started_something(status))
        return at_least(status->previous_retry_s - args[2], args[0]);
    return at_most(status->previous_retry_s + args[2], args[1]);
}

/* args: start_retry, max_retry */
static double eval_biexponential_increase(const double args[],
                                          const struct sel_strategy_status *status,
                                          struct sel_prng *prng)
{
    (void)prng;
    if (status->active_count == 0)
        return -1;
    if (!status->has_previous_retry || has_started_something(status))
        return args[0];
    return at_most(status->previous_retry_s * 2, args[1]);
}

/* args: start_retry, stop_retry. Halves whatever happened: the end of the flow comes nearer. */
static double eval_biexponential_decrease(const double args[],
                                          const struct sel_strategy_status *status,
                                          struct sel_prng *prng)
{
    (void)prng;
    if (status->active_count == 0)
        return -1;
    if (!status->has_previous_retry)
        return args[0];
    return at_least(status->previous_retry_s / 2, args[1]);
}

/* args: start_retry, max_retry */
static double eval_biexponential_adapt(const double args[],
                                       const struct sel_strategy_status *status,
                                       struct sel_prng *prng)
{
    (void)prng;
    if (status->active_count == 0)
        return -1;
    if (!status->has_previous_retry)
        return args[0];
    if (has_started_something(status))
        return at_least(status->previous_retry_s / 2, args[0]);
    return at_most(status->previous_retry_s * 2, args[1]);
}

static const struct sel_strategy strategies[] = {
    {"biexponential_adapt", 2, {"start_retry", "max_retry"}, {2, 120}, eval_biexponential_adapt},
    {"biexponential_decrease",
     2,
     {"start_retry", "stop_retry"},
     {2, 2},
     eval_biexponential_decrease},
    {"biexponential_increase",
     2,
     {"start_retry", "max_retry"},
     {2, 120},
     eval_biexponential_increase},
    {"constant", 1, {"retry"}, {2}, eval_constant},
    {"linear_adapt", 3, {"start_retry", "max_retry", "step"}, {2, 120, 1}, eval_linear_adapt},
    {"linear_increase", 3, {"start_retry", "max_retry", "step"}, {2, 120, 1}, eval_linear_increase},
    {"random", 2, {"start_retry", "max_retry"}, {2, 120}, eval_random},
};

const struct sel_strategy *sel_strategy_find(struct sel_str name)
{
    for (size_t i = 0; i < SEL_COUNT(strategies); i++) {
        if (sel_str_eq_c(name, strategies[i].name))
            return &strategies[i];
    }
    return NULL;
}

const struct sel_strategy *sel_strategy_table(uint32_t *ret_count)
{
    *ret_count = (uint32_t)SEL_COUNT(strategies);
    return strategies;
}
