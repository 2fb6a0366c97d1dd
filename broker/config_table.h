/* broker/config_table.h - the table behind broker/config.h. Used by config*.c only. */
#ifndef SEL_BROKER_CONFIG_TABLE_H
#define SEL_BROKER_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/config.h"

enum sel_broker_setting_kind {
    SEL_BROKER_TEXT,      /* const char *, never empty; "none" is NULL where that is the default or
                             has_none */
    SEL_BROKER_ENDPOINTS, /* struct sel_broker_endpoints */
    SEL_BROKER_COUNT,
    SEL_BROKER_SIZE, /* bytes */
    SEL_BROKER_TIME, /* microseconds */
    SEL_BROKER_CHOICE,
    SEL_BROKER_CPU, /* int32_t, "none" is -1 */
};

struct sel_broker_setting {
    const char *name; /* as in YAML */
    enum sel_broker_setting_kind kind;
    size_t offset, width; /* of its member in struct sel_broker_config; numbers by their width */
    const char *initial;  /* the default, as it is written */
    uint64_t min, max;    /* numbers; the default may be "auto" (0) besides */
    const char *const *choices; /* by value, ended by NULL; NULL entries do not occur */
    bool has_none;              /* the text may be "none" */
    const char *help;           /* in a sentence, without the default */
};

extern const struct sel_broker_setting sel_broker_settings[];
extern const uint32_t sel_broker_setting_count;

/* By its name in YAML, `n` bytes; with dashes for underscores too. NULL: there is none. */
const struct sel_broker_setting *sel_broker_setting_find(struct sel_str name);

#define SEL_BROKER_WHY_SIZE 256
/* Sets one from its text. Endpoints are added. Texts are copied to `arena`. 0; SEL_ECONFIG: `why`
 * says what is expected; SEL_ENOMEM. */
int sel_broker_setting_set(const struct sel_broker_setting *setting,
                           struct sel_broker_config *config, struct sel_arena *arena,
                           struct sel_str text, char why[SEL_BROKER_WHY_SIZE]) SEL_WARN_UNUSED;

/* The place of a setting's member. */
static inline void *sel_broker_setting_member(const struct sel_broker_setting *setting,
                                              struct sel_broker_config *config)
{
    return (char *)config + setting->offset;
}

#endif
