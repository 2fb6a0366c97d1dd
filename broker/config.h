/* broker/config.h - the settings of selinon-broker: one table for the file, the command line, the
 * help and the documentation.
 *
 * `memory_max` in the YAML file is `--memory-max` on the command line, which wins. All faults of a
 * file and a command line are reported in one run. Sizes are written as 64MiB, times as 100ms. */
#ifndef SEL_BROKER_CONFIG_H
#define SEL_BROKER_CONFIG_H

#include <stdint.h>

#include "broker/broker.h"
#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"

#define SEL_BROKER_ENDPOINTS_MAX 16
struct sel_broker_endpoints {
    const char *items[SEL_BROKER_ENDPOINTS_MAX];
    uint32_t count;
};

struct sel_broker_config {
    struct sel_broker_options options; /* 0 where the broker shall choose */
    const char *name;
    struct sel_broker_endpoints listen, query;
    const char *journal;       /* its folder; NULL: nothing outlives the process */
    uint64_t journal_size_max; /* 0: as struct sel_journal_lmdb_options */
    uint64_t journal_reserve;
    const char *ready_file; /* NULL: none */
    uint32_t io_threads;
    uint32_t socket_messages; /* high-water mark of each connection and direction */
    int32_t pin;              /* processor of the broker's own thread; -1: any */
    uint8_t log_level;        /* enum sel_broker_log: what is less is not logged */
};

/* All defaults. */
void sel_broker_config_init(struct sel_broker_config *config);

/* Takes over what a YAML text says. Texts live in `arena`. 0, or SEL_ECONFIG (`diag` has every
 * fault) or SEL_ENOMEM. */
int sel_broker_config_yaml(struct sel_broker_config *config, struct sel_arena *arena,
                           const char *file, struct sel_str text,
                           struct sel_diag *diag) SEL_WARN_UNUSED;

enum sel_broker_action {
    SEL_BROKER_RUN,
    SEL_BROKER_HELP,
    SEL_BROKER_VERSION,
    SEL_BROKER_PRINT_CONFIG,
};

/* The whole of it: defaults, the file that the command line names, the command line, and what must
 * fit together. 0; SEL_EREQUEST: the command line is at fault; SEL_ECONFIG, -errno (the file cannot
 * be read), SEL_ENOMEM. `diag` has every fault, those of the command line without a place. Uses
 * getopt_long: one call at a time. */
int sel_broker_config_load(struct sel_broker_config *config, struct sel_arena *arena, int argc,
                           char **argv, enum sel_broker_action *ret_action,
                           struct sel_diag *diag) SEL_WARN_UNUSED;

/* What `--help` says. */
void sel_broker_config_help(struct sel_buf *out);
/* The settings as a YAML file that means the same. */
void sel_broker_config_print(const struct sel_broker_config *config, struct sel_buf *out);
/* The rows of the table in docs/operations.md. */
void sel_broker_config_document(struct sel_buf *out);

/* "10s", "1h"; "64MiB": the largest unit without a fraction. Returns out. */
#define SEL_BROKER_AMOUNT_SIZE 32
const char *sel_broker_config_format_time(uint64_t us, char out[SEL_BROKER_AMOUNT_SIZE]);
const char *sel_broker_config_format_size(uint64_t bytes, char out[SEL_BROKER_AMOUNT_SIZE]);

#endif
