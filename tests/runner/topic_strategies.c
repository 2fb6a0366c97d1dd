/* Sampling strategies: a sequence of looks at a flow, and the wait after each. */
#include <math.h>
#include <stdio.h>

#include "core/strategy.h"
#include "tests/runner/runner.h"

struct sequence {
    const struct sel_strategy *strategy;
    double args[SEL_STRATEGY_ARGS_MAX];
    struct sel_prng prng;
    struct sel_runner_report *report;
    const char *name;
    bool failed;
};

static bool read_args(struct sequence *seq, const struct sel_value *args)
{
    for (uint32_t i = 0; i < seq->strategy->arg_count; i++) {
        const struct sel_value *arg = sel_value_get_c(args, seq->strategy->args[i]);
        if (!arg && sel_value_is(args, SEL_MAP)) {
            sel_runner_fail(seq->report, seq->name, "argument '%s' is missing",
                            seq->strategy->args[i]);
            return false;
        }
        seq->args[i] = arg ? sel_value_num(arg) : seq->strategy->defaults[i];
    }
    return true;
}

static struct sel_strategy_status read_status(const struct sel_value *step, bool has_previous,
                                              double previous)
{
    return (struct sel_strategy_status){
        .has_previous_retry = has_previous,
        .previous_retry_s = previous,
        .active_count = sel_value_count(sel_value_get_c(step, "active_nodes")),
        .new_started_count = sel_value_count(sel_value_get_c(step, "new_started_nodes")),
        .new_fallback_count = sel_value_count(sel_value_get_c(step, "new_fallback_nodes")),
    };
}

/* Draws so often that missing an end by chance is out of the question. */
static void check_range(struct sequence *seq, uint32_t i, const struct sel_strategy_status *status,
                        const struct sel_value *range)
{
    double low = sel_value_num(sel_value_at(range, 0)),
           high = sel_value_num(sel_value_at(range, 1));
    bool saw_low = false, saw_high = false;
    double draws = (high - low + 1) * 100;
    for (double n = 0; n < draws && n < 1e6; n++) {
        double wait = seq->strategy->eval(seq->args, status, &seq->prng);
        if (wait < low || wait > high || wait != floor(wait)) {
            sel_runner_fail(seq->report, seq->name,
                            "step %u: expected a whole number from %g to %g, got %g", i, low, high,
                            wait);
            seq->failed = true;
            return;
        }
        saw_low = saw_low || wait == low;
        saw_high = saw_high || wait == high;
    }
    if (!saw_low || !saw_high) {
        sel_runner_fail(seq->report, seq->name, "step %u: %g never came", i, saw_low ? high : low);
        seq->failed = true;
    }
}

/* The wait after this step, negative: none. */
static double check_step(struct sequence *seq, uint32_t i, const struct sel_value *step,
                         const struct sel_strategy_status *status)
{
    const struct sel_value *range = sel_value_get_c(step, "expected_range");
    if (range) {
        check_range(seq, i, status, range);
        return sel_value_num(sel_value_at(range, 0));
    }
    double wait = seq->strategy->eval(seq->args, status, &seq->prng);
    const struct sel_value *expected = sel_value_get_c(step, "expected");
    bool ends = sel_value_is(expected, SEL_NULL);
    if (ends ? wait >= 0 : wait != sel_value_num(expected)) {
        sel_runner_fail(seq->report, seq->name, "step %u: expected %.17g, got %.17g", i,
                        ends ? -1.0 : sel_value_num(expected), wait);
        seq->failed = true;
    }
    return wait;
}

static void run_sequence(void *ctx, const char *name, const struct sel_value *line,
                         struct sel_arena *arena, struct sel_runner_report *report)
{
    (void)ctx, (void)arena;
    struct sel_str wanted = sel_value_str(sel_value_get_c(line, "strategy"));
    struct sequence seq = {
        .strategy = sel_strategy_find(wanted), .report = report, .name = name, .prng = {7}};
    if (!seq.strategy) {
        sel_runner_fail(report, name, "no strategy '%.*s'", SEL_STR_ARG(wanted));
        return;
    }
    if (!read_args(&seq, sel_value_get_c(line, "args")))
        return;

    double wait = -1;
    const struct sel_value *steps = sel_value_get_c(line, "steps");
    for (uint32_t i = 0; i < sel_value_count(steps); i++) {
        const struct sel_value *step = sel_value_at(steps, i);
        const struct sel_value *previous = sel_value_get_c(step, "previous_retry");
        if (previous)
            wait = sel_value_is(previous, SEL_NULL) ? -1 : sel_value_num(previous);
        struct sel_strategy_status status = read_status(step, wait >= 0, wait);
        wait = check_step(&seq, i, step, &status);
    }
    if (!seq.failed)
        sel_runner_pass(report);
}

int sel_topic_strategies(const char *dir, const struct sel_runner_options *options,
                         struct sel_runner_report *report, struct sel_error *err)
{
    (void)options;
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/sequences.jsonl", dir);
    return sel_runner_each_line(path, run_sequence, NULL, report, err);
}
