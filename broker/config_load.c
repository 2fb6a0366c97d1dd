/* The sources of settings: YAML, the command line; and what must fit together. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/config_table.h"
#include "core/suggest.h"
#include "core/yaml.h"
#include "proto/wire.h"

#define SETTINGS_MAX 64
#define FILE_MAX ((size_t)1 << 20)
#define NAME_MAX_TEXT 64 /* of a setting, and of what is shown of a wrong one */
#define LONG_BASE 256    /* getopt_long gives LONG_BASE + index for a setting */

static const struct sel_pos no_pos = {0};

static void suggest(struct sel_str wanted, char out[NAME_MAX_TEXT + 32], bool dashes)
{
    struct sel_suggest s;
    struct sel_str best;
    char underscores[NAME_MAX_TEXT];
    size_t n = wanted.n < sizeof(underscores) ? wanted.n : sizeof(underscores);
    for (size_t i = 0; i < n; i++)
        underscores[i] = wanted.p[i] == '-' ? '_' : wanted.p[i];
    sel_suggest_init(&s, (struct sel_str){underscores, n});
    for (uint32_t i = 0; i < sel_broker_setting_count; i++)
        sel_suggest_offer(&s, sel_str_c(sel_broker_settings[i].name));
    out[0] = '\0';
    if (!sel_suggest_get(&s, &best))
        return;
    (void)snprintf(out, NAME_MAX_TEXT + 32, "; did you mean %s%.*s?", dashes ? "--" : "",
                   SEL_STR_ARG(best));
    for (char *p = out + strlen("; did you mean --"); dashes && *p; p++)
        *p = *p == '_' ? '-' : *p;
}

/* ---- YAML ---- */

struct loader {
    struct sel_broker_config *config;
    struct sel_arena *arena;
    struct sel_diag *diag;
};

static int set_scalar(struct loader *loader, const struct sel_broker_setting *setting,
                      const struct sel_ynode *node)
{
    char why[SEL_BROKER_WHY_SIZE];
    if (node->kind == SEL_LIST || node->kind == SEL_MAP || node->kind == SEL_BIN) {
        sel_diag_error(loader->diag, node->pos, "%s: one value is expected, got a %s",
                       setting->name,
                       node->kind == SEL_LIST  ? "list"
                       : node->kind == SEL_MAP ? "mapping"
                                               : "binary");
        return 0;
    }
    if (node->kind == SEL_NULL) {
        sel_diag_error(loader->diag, node->pos, "%s: has no value; its default is %s",
                       setting->name, setting->initial);
        return 0;
    }
    int r = sel_broker_setting_set(setting, loader->config, loader->arena, node->text, why);
    if (r == SEL_ECONFIG)
        sel_diag_error(loader->diag, node->pos, "%s: %s", setting->name, why);
    return r == SEL_ECONFIG ? 0 : r;
}

static int set_endpoints(struct loader *loader, const struct sel_broker_setting *setting,
                         const struct sel_ynode *node)
{
    struct sel_broker_endpoints *endpoints = sel_broker_setting_member(setting, loader->config);
    endpoints->count = 0;
    if (node->kind != SEL_LIST)
        return set_scalar(loader, setting, node);
    if (node->list.count == 0)
        sel_diag_error(loader->diag, node->pos, "%s: at least one endpoint is needed",
                       setting->name);
    for (uint32_t i = 0; i < node->list.count; i++) {
        int r = set_scalar(loader, setting, node->list.items[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_pair(struct loader *loader, const struct sel_ypair *pair)
{
    if (pair->key->kind != SEL_TEXT) {
        sel_diag_error(loader->diag, pair->key->pos, "the name of a setting is expected");
        return 0;
    }
    const struct sel_broker_setting *setting = sel_broker_setting_find(pair->key->text);
    if (!setting) {
        char better[NAME_MAX_TEXT + 32];
        suggest(pair->key->text, better, false);
        sel_diag_error(loader->diag, pair->key->pos, "there is no setting '%.*s'%s",
                       (int)(pair->key->text.n < NAME_MAX_TEXT ? pair->key->text.n : NAME_MAX_TEXT),
                       pair->key->text.p, better);
        return 0;
    }
    if (setting->kind == SEL_BROKER_ENDPOINTS)
        return set_endpoints(loader, setting, pair->val);
    return set_scalar(loader, setting, pair->val);
}

int sel_broker_config_yaml(struct sel_broker_config *config, struct sel_arena *arena,
                           const char *file, struct sel_str text, struct sel_diag *diag)
{
    struct loader loader = {config, arena, diag};
    const struct sel_ynode *root;
    uint32_t before = diag->error_count;
    int r = sel_yaml_parse(arena, file, text, diag, &root);
    if (r < 0)
        return r == SEL_ENOMEM ? r : SEL_ECONFIG;
    if (root->kind == SEL_NULL) /* an empty file: nothing but defaults */
        return 0;
    if (root->kind != SEL_MAP) {
        sel_diag_error(diag, root->pos, "settings are expected, as `memory_max: 1GiB`");
        return SEL_ECONFIG;
    }
    for (uint32_t i = 0; i < root->map.count; i++) {
        r = set_pair(&loader, &root->map.pairs[i]);
        if (r < 0)
            return r;
    }
    return diag->error_count > before ? SEL_ECONFIG : 0;
}

/* The whole file, at most FILE_MAX bytes. */
static int read_file(struct sel_arena *arena, const char *path, struct sel_str *ret)
{
    char *p = sel_arena_alloc_raw(arena, FILE_MAX + 1, 1);
    int fd = p ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return p ? -errno : SEL_ENOMEM;
    size_t n = 0;
    ssize_t got;
    while ((got = read(fd, p + n, FILE_MAX + 1 - n)) > 0)
        n += (size_t)got;
    int r = got < 0 ? -errno : n > FILE_MAX ? -EFBIG : 0;
    (void)close(fd);
    *ret = (struct sel_str){p, n};
    return r;
}

static int load_file(struct loader *loader, const char *path)
{
    struct sel_str text;
    int r = read_file(loader->arena, path, &text);
    if (r == SEL_ENOMEM)
        return r;
    if (r < 0) {
        sel_diag_error(loader->diag, (struct sel_pos){.file = path}, "cannot be read: %s",
                       sel_error_text(r));
        return r;
    }
    return sel_broker_config_yaml(loader->config, loader->arena, path, text, loader->diag);
}

/* ---- the command line ---- */

struct given {
    const char *texts[SEL_BROKER_ENDPOINTS_MAX + 1]; /* one too many, so that it is refused */
    uint32_t count;
};

struct command {
    const char *file;
    enum sel_broker_action action;
    bool is_wrong;
    struct given given[SETTINGS_MAX];
};

enum { CONFIG = 1, PRINT_CONFIG, VERSION, HELP };

/* The name on the command line. */
static const char *with_dashes(const struct sel_broker_setting *setting, char out[NAME_MAX_TEXT])
{
    (void)snprintf(out, NAME_MAX_TEXT, "%s", setting->name);
    for (char *p = out; *p; p++)
        *p = *p == '_' ? '-' : *p;
    return out;
}

static void describe(struct option longs[SETTINGS_MAX + 5], char names[SETTINGS_MAX][NAME_MAX_TEXT])
{
    static const struct option fixed[] = {{"config", required_argument, NULL, CONFIG},
                                          {"print-config", no_argument, NULL, PRINT_CONFIG},
                                          {"version", no_argument, NULL, VERSION},
                                          {"help", no_argument, NULL, HELP},
                                          {0}};
    SEL_ASSERT(sel_broker_setting_count <= SETTINGS_MAX);
    for (uint32_t i = 0; i < sel_broker_setting_count; i++)
        longs[i] = (struct option){with_dashes(&sel_broker_settings[i], names[i]),
                                   required_argument, NULL, LONG_BASE + (int)i};
    memcpy(longs + sel_broker_setting_count, fixed, sizeof(fixed));
}

static void wrong(struct loader *loader, struct command *command, const char *fmt, ...)
    SEL_PRINTF(3, 4);
static void wrong(struct loader *loader, struct command *command, const char *fmt, ...)
{
    char text[SEL_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sel_diag_error(loader->diag, no_pos, "%s", text);
    command->is_wrong = true;
}

static void wrong_option(struct loader *loader, struct command *command, const char *word)
{
    char better[NAME_MAX_TEXT + 32] = "";
    size_t n = strcspn(word, "=");
    if (strncmp(word, "--", 2) == 0)
        suggest((struct sel_str){word + 2, n - 2}, better, true);
    wrong(loader, command, "there is no option %.*s%s",
          (int)(n < NAME_MAX_TEXT ? n : NAME_MAX_TEXT), word, better);
}

static void take(struct loader *loader, struct command *command, int c, const char *word)
{
    if (c >= LONG_BASE) {
        struct given *given = &command->given[c - LONG_BASE];
        bool is_list = sel_broker_settings[c - LONG_BASE].kind == SEL_BROKER_ENDPOINTS;
        if (!is_list) /* the last one counts */
            given->count = 0;
        if (given->count < SEL_COUNT(given->texts))
            given->texts[given->count++] = optarg;
        return;
    }
    switch (c) {
    case CONFIG:
        command->file = optarg;
        return;
    case PRINT_CONFIG:
        command->action = SEL_BROKER_PRINT_CONFIG;
        return;
    case VERSION:
        command->action = SEL_BROKER_VERSION;
        return;
    case HELP:
    case 'h':
        command->action = SEL_BROKER_HELP;
        return;
    case ':':
        wrong(loader, command, "option %s needs a value", word);
        return;
    default:
        wrong_option(loader, command, word);
    }
}

static void parse_command_line(struct loader *loader, struct command *command, int argc,
                               char **argv)
{
    struct option longs[SETTINGS_MAX + 5];
    char names[SETTINGS_MAX][NAME_MAX_TEXT];
    describe(longs, names);
    optind = 0; /* glibc: start anew */
    for (int c; (c = getopt_long(argc, argv, "+:h", longs, NULL)) != -1;)
        take(loader, command, c, optind > 0 && optind <= argc ? argv[optind - 1] : "");
    if (optind < argc)
        wrong(loader, command, "unexpected argument '%s'", argv[optind]);
}

static int apply_command_line(struct loader *loader, struct command *command)
{
    for (uint32_t i = 0; i < sel_broker_setting_count; i++) {
        const struct sel_broker_setting *setting = &sel_broker_settings[i];
        struct given *given = &command->given[i];
        if (given->count > 0 && setting->kind == SEL_BROKER_ENDPOINTS)
            ((struct sel_broker_endpoints *)sel_broker_setting_member(setting, loader->config))
                ->count = 0;
        for (uint32_t t = 0; t < given->count; t++) {
            char why[SEL_BROKER_WHY_SIZE];
            int r = sel_broker_setting_set(setting, loader->config, loader->arena,
                                           sel_str_c(given->texts[t]), why);
            char name[NAME_MAX_TEXT];
            if (r == SEL_ECONFIG)
                wrong(loader, command, "--%s: %s", with_dashes(setting, name), why);
            else if (r < 0)
                return r;
        }
    }
    return 0;
}

/* ---- what must fit together ---- */

static void check(struct loader *loader)
{
    const struct sel_broker_config *c = loader->config;
    const struct sel_broker_options *o = &c->options;
    struct sel_diag *diag = loader->diag;
    if (o->beat_us > o->lease_us / 2)
        sel_diag_error(diag, no_pos,
                       "beat must be at most half of lease, or a single lost message "
                       "costs a worker its tasks");
    if (!c->journal && (o->level_max > SEL_LEVEL_MEMORY || o->level_default > SEL_LEVEL_MEMORY))
        sel_diag_error(diag, no_pos,
                       "without a journal there is no other level than memory; set journal, or "
                       "level_max and level_default to memory or auto");
    else if (o->level_max && o->level_default > o->level_max)
        sel_diag_error(diag, no_pos, "level_default is stronger than level_max");
    if (o->window_bytes < o->record_max)
        sel_diag_error(diag, no_pos, "window_bytes must be at least record_max");
    if (o->outbox_bytes_max < o->record_max)
        sel_diag_error(diag, no_pos, "outbox_bytes_max must be at least record_max");
    if (o->memory_max < 4 * (uint64_t)o->record_max)
        sel_diag_error(diag, no_pos, "memory_max must be at least four times record_max");
    if (c->journal_size_max && c->journal_reserve > c->journal_size_max / 2)
        sel_diag_error(diag, no_pos, "journal_reserve must be at most half of journal_size_max");
}

int sel_broker_config_load(struct sel_broker_config *config, struct sel_arena *arena, int argc,
                           char **argv, enum sel_broker_action *ret_action, struct sel_diag *diag)
{
    struct loader loader = {config, arena, diag};
    struct command command = {0};
    sel_broker_config_init(config);
    parse_command_line(&loader, &command, argc, argv);
    *ret_action = command.action;
    if (command.action == SEL_BROKER_HELP || command.action == SEL_BROKER_VERSION)
        return 0;
    int r = command.file ? load_file(&loader, command.file) : 0;
    if (r == SEL_ENOMEM)
        return r;
    int a = apply_command_line(&loader, &command);
    if (a < 0)
        return a;
    if (command.is_wrong)
        return SEL_EREQUEST;
    if (r < 0)
        return r;
    check(&loader); /* of values that are right one by one */
    return diag->error_count > 0 ? SEL_ECONFIG : 0;
}
