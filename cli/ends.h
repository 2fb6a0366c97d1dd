/* cli/ends.h - what the commands share that submit to brokers or wait: for the ends of tasks and of
 * flows. */
#ifndef SEL_CLI_ENDS_H
#define SEL_CLI_ENDS_H

#include <selinon/client.h>

#include "cli/cli.h"
#include "core/arena.h"
#include "core/buf.h"
#include "core/value.h"

/* Where a broker takes producers unless it is told otherwise (broker/config.c, `listen`). */
#define SEL_CLI_ENDS_BROKER "tcp://127.0.0.1:5711"
#define SEL_CLI_ENDS_ANSWER_US INT64_C(30000000) /* for a broker's answers, without --timeout */

struct sel_cli_ends_values {
    struct sel_cli_texts brokers;
    double timeout; /* seconds; 0: not given */
    bool json;
};

/* The options of `member`, a struct sel_cli_ends_values in `type`. */
#define SEL_CLI_ENDS_OPTIONS(type, member)                                                         \
    {.name = "broker",                                                                             \
     .letter = 'b',                                                                                \
     .kind = SEL_CLI_NAMES,                                                                        \
     .offset = offsetof(type, member.brokers),                                                     \
     .env = {"SELINON_BROKER"},                                                                    \
     .value_name = "ENDPOINT,...",                                                                 \
     .help = "the broker, or all brokers of a cluster in one order everywhere; default "           \
             "" SEL_CLI_ENDS_BROKER},                                                              \
        {.name = "timeout",                                                                        \
         .kind = SEL_CLI_NUMBER,                                                                   \
         .min = 0.001,                                                                             \
         .max = 1e9,                                                                               \
         .offset = offsetof(type, member.timeout),                                                 \
         .value_name = "SECONDS",                                                                  \
         .help = "give up after so long; default 30 for a broker's answers, for ever for ends"},   \
    {                                                                                              \
        .name = "json", .kind = SEL_CLI_FLAG, .offset = offsetof(type, member.json),               \
        .help = "print one JSON object"                                                            \
    }

extern const char *const sel_cli_ends_levels[];                      /* choices of --level */
extern const char *const sel_cli_ends_names[SEL_CLIENT_REFUSED + 1]; /* "finished", "failed", ... */
uint8_t sel_cli_ends_level(const char *name); /* of a level; NULL: the default */

/* One call of a command. Zeroed it can be closed. */
struct sel_cli_ends {
    const struct sel_cli *cli;
    const struct sel_cli_ends_values *values;
    struct sel_client *client;
    struct sel_arena arena;
    struct sel_value_builder list; /* --json: the ends */
    bool is_listing;               /* each end is told; else only how many, and some failures */
    bool is_flow;                  /* ends are told as those of flows */
    uint64_t counts[SEL_CLIENT_REFUSED + 1];
    uint64_t failures_told;
    int64_t begin_us, end_us; /* of submitting, and when the last end came */
};

int64_t sel_cli_ends_now_us(void);

/* Connects to all brokers and waits until they answer. An exit status, all has been said then. */
int sel_cli_ends_open(struct sel_cli_ends *ends, const struct sel_cli *cli,
                      const struct sel_cli_ends_values *values);
void sel_cli_ends_close(struct sel_cli_ends *ends);
/* How long to wait for what takes `us` by default: --timeout wins. */
int64_t sel_cli_ends_patience(const struct sel_cli_ends *ends, int64_t us);
/* Says that `what` went wrong, and what the client complained about last. SEL_CLI_FAILED. */
int sel_cli_ends_fail(struct sel_cli_ends *ends, const char *what, int code);

/* Submits `count` of `task`, waits until they are settled, and, unless the task is QUIET, for their
 * ends. `ret_first` is the id if `count` is 1. An exit status: that they could be submitted. */
int sel_cli_ends_submit(struct sel_cli_ends *ends, const struct sel_client_task *task,
                        uint64_t count, struct sel_client_id *ret_first);
/* Watches all `ids`; with `cancel` they are cancelled too. An exit status. */
int sel_cli_ends_watch(struct sel_cli_ends *ends, const struct sel_cli_texts *ids, uint32_t flags,
                       bool cancel);
/* Takes ends until nothing is outstanding, or `wait_us` is over. 0, or an error of the client. */
int sel_cli_ends_take(struct sel_cli_ends *ends, int64_t wait_us);

/* The id, as text or as {id}. An exit status, as of what follows. */
int sel_cli_ends_print_id(struct sel_cli_ends *ends, const struct sel_client_id *id);
/* How many ended how; `noun` is "tasks". Whether all finished. */
int sel_cli_ends_report_many(struct sel_cli_ends *ends, uint64_t count, bool has_waited,
                             const char *noun);
/* --json: the list of what ended, under `key`; people have seen it come. Whether all finished. */
int sel_cli_ends_report_list(struct sel_cli_ends *ends, const char *key);

/* One end as a map {id, status, result or error, tries}; it does not live longer than `result`.
 * SEL_ENOMEM. */
int sel_cli_ends_to_value(struct sel_cli_ends *ends, const struct sel_client_result *result,
                          struct sel_value *ret) SEL_WARN_UNUSED;
/* The value of a result, in the arena; refusals are text. */
struct sel_value sel_cli_ends_value(struct sel_arena *arena,
                                    const struct sel_client_result *result);
/* Ends a map and prints it as one line of JSON. */
int sel_cli_ends_print_json(struct sel_cli_ends *ends, struct sel_value_builder *map);

/* The result of a flow as one line: "12 nodes finished, 2 failed (Fetch, Store), 1 active:
 * FlowError: ...". false: the value is no flow's, nothing was put. */
bool sel_cli_ends_put_flow(const struct sel_value *value, struct sel_buf *out);

#endif
