/* cli/options.h - options of a command as a table.
 *
 *   struct values { const char *nodes; struct sel_cli_texts flows; bool check; };
 *   static const struct sel_cli_option options[] = {
 *       {.name = "nodes-definition", .letter = 'n', .kind = SEL_CLI_FILE, .required = true,
 *        .offset = offsetof(struct values, nodes), .env = {"SELINON_NODES_DEFINITION"},
 *        .help = "the nodes file"},
 *       ...
 *   };
 *
 * An option on the command line wins over its variables, of which the first that is set to
 * something counts; what is neither keeps the default. Long options may be cut as long as they are
 * unambiguous, `--name=value` and `--name value` are the same, and so are `-x1` and `-x 1`. A list
 * takes every word up to the next option, and may be given again. `--help` is added by itself.
 * Words that stand for themselves, as in `journal show PATH`, are in the table too. */
#ifndef SEL_CLI_OPTIONS_H
#define SEL_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/assert.h"
#include "core/error.h"

struct sel_arena;

enum sel_cli_option_kind {
    SEL_CLI_FLAG,   /* bool */
    SEL_CLI_COUNT,  /* int: how often it was given; has no variable */
    SEL_CLI_TEXT,   /* const char *, NULL if not given */
    SEL_CLI_FILE,   /* const char *: a regular file (or pipe, ...) that exists and can be read */
    SEL_CLI_FOLDER, /* const char *: a folder that exists */
    SEL_CLI_PATHS,  /* struct sel_cli_texts: files or folders that exist; variable: like PATH */
    SEL_CLI_NAMES,  /* struct sel_cli_texts: texts separated by commas, may be given again */
    SEL_CLI_INT,    /* int64_t within [min, max] */
    SEL_CLI_NUMBER, /* double within [min, max] */
    SEL_CLI_CHOICE, /* const char *: one of `choices` */
};

struct sel_cli_texts {
    const char **items;
    uint32_t count;
};

#define SEL_CLI_ENV_MAX 2 /* variables of one option */

struct sel_cli_option {
    const char *name; /* long form without dashes; of a word what --help calls it, "PATH" */
    char letter;      /* 0: has no short form */
    bool is_word;     /* stands without its name, in the order of the table; a list of them takes
                         all that follow */
    enum sel_cli_option_kind kind;
    bool required;
    bool hidden;   /* not in --help */
    size_t offset; /* of its member in the values */
    const char *env[SEL_CLI_ENV_MAX];
    const char *value_name;     /* in --help; NULL: by kind */
    const char *const *choices; /* ended by NULL */
    double min, max;            /* numbers; max <= min: no upper bound */
    const char *help;           /* default included, if it has one to tell */
};

struct sel_cli_option_set {
    const struct sel_cli_option *options;
    uint32_t count;
    bool stop_at_word; /* the first word that is no option ends the options */
};

/* Where variables come from; NULL: there are none. */
struct sel_cli_environment {
    const char *(*getenv)(void *ctx, const char *name);
    void *ctx;
};

/* Parses argv[1..]. Texts point into argv, the environment or `arena`.
 *
 * > 0: index in argv of the first word that was not consumed (argc if all were); `values` is
 * filled. SEL_ECANCELED: --help was among them, nothing else counts. SEL_EREQUEST: wrong usage,
 * `err` says what; SEL_ENOMEM. Uses getopt_long: one call at a time. */
int sel_cli_options_parse(const struct sel_cli_option_set *set, int argc, char **argv,
                          const struct sel_cli_environment *environment, struct sel_arena *arena,
                          void *values, struct sel_error *err) SEL_WARN_UNUSED;

/* The part of a --help that lists the options. */
void sel_cli_options_print(const struct sel_cli_option_set *set, FILE *out);

#endif
