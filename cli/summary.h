/* cli/summary.h - what is said when a run has ended. */
#ifndef SEL_CLI_SUMMARY_H
#define SEL_CLI_SUMMARY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/cli.h"
#include "core/arena.h"
#include "core/system.h"
#include "worker/executor.h"

#define SEL_CLI_FAILURES_MAX 16 /* kinds that are told; the others are counted */

/* The failures of tasks, by task, class and message. Zeroed is not enough: see init. */
struct sel_cli_failure {
    struct sel_str task;
    const char *error_class, *message;
    uint64_t count;
};
struct sel_cli_failures {
    pthread_mutex_t lock;
    struct sel_arena arena;
    struct sel_cli_failure items[SEL_CLI_FAILURES_MAX];
    uint32_t count;
    uint64_t others;
};
void sel_cli_failures_init(struct sel_cli_failures *failures);
void sel_cli_failures_done(struct sel_cli_failures *failures);
/* The member `execution` of an observer; `ctx` is the struct sel_cli_failures. Any thread. */
void sel_cli_failures_see(void *ctx, const struct sel_execution *execution);

struct sel_cli_summary {
    const struct sel_system *system;
    const struct sel_executor *executor;
    const struct sel_executor_report *report;
    struct sel_cli_failures *failures;
    const char *flow_name;
    bool virtual_time;
    bool scripted; /* the times of tasks say nothing */
    /* for paths of storages with {VARIABLES} */
    const char *(*getenv)(void *ctx, const char *name);
    void *getenv_ctx;
};

/* Prints to cli->err: how it ended, what failed and why, the slowest tasks, retries, where the
 * results are. */
void sel_cli_summary_print(const struct sel_cli *cli, const struct sel_cli_summary *summary);

/* Prints to cli->out one JSON object: flow_name, flow_id, outcome, state, reason, seconds,
 * finished, failed, retried, stuck. 0 or SEL_ENOMEM. */
int sel_cli_summary_print_json(const struct sel_cli *cli,
                               const struct sel_cli_summary *summary) SEL_WARN_UNUSED;

/* "success", "failure", "cancelled" */
const char *sel_cli_outcome_name(enum sel_flow_outcome outcome);

#endif
