#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/str.h"

#define OPTIONS_MAX 64
#define LONG_BASE 256 /* getopt_long gives LONG_BASE + index for a long option */
#define NOT_AN_OPTION 1
#define SUGGESTION_DISTANCE_MAX 3
#define NAME_TEXT_SIZE 96 /* "-n, --nodes-definition" */

struct parser {
    const struct sel_cli_option_set *set;
    const struct sel_cli_environment *environment;
    struct sel_arena *arena;
    char *values;
    struct sel_error *err;
    bool given[OPTIONS_MAX];
    const struct sel_cli_option *list; /* takes the words that follow, or NULL */
};

static int usage(struct parser *parser, const char *fmt, ...) SEL_PRINTF(2, 3);
static int usage(struct parser *parser, const char *fmt, ...)
{
    char text[SEL_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return sel_error_set(parser->err, SEL_EREQUEST, (struct sel_pos){0}, "%s", text);
}

static int no_memory(struct parser *parser)
{
    return sel_error_set(parser->err, SEL_ENOMEM, (struct sel_pos){0}, "%s",
                         sel_error_text(SEL_ENOMEM));
}

static const char *name_of(const struct sel_cli_option *option, char out[NAME_TEXT_SIZE])
{
    if (option->is_word)
        (void)snprintf(out, NAME_TEXT_SIZE, "%s", option->name);
    else if (option->letter)
        (void)snprintf(out, NAME_TEXT_SIZE, "-%c, --%s", option->letter, option->name);
    else
        (void)snprintf(out, NAME_TEXT_SIZE, "--%s", option->name);
    return out;
}

static int bad_value(struct parser *parser, const struct sel_cli_option *option, const char *text,
                     const char *why)
{
    char name[NAME_TEXT_SIZE];
    return usage(parser, "%s: '%s' %s", name_of(option, name), text, why);
}

static void *member(struct parser *parser, const struct sel_cli_option *option)
{
    return parser->values + option->offset;
}

/* ---- one value ---- */

static int add_text(struct parser *parser, const struct sel_cli_option *option, const char *text)
{
    struct sel_cli_texts *texts = member(parser, option);
    uint32_t count = texts->count;
    if ((count & (count - 1)) == 0) { /* full: 0, 1, 2, 4, ... */
        const char **items =
            SEL_ARENA_NEW_ARRAY(parser->arena, const char *, count ? (size_t)count * 2 : 1);
        if (!items)
            return no_memory(parser);
        if (count > 0)
            memcpy(items, texts->items, count * sizeof(*items));
        texts->items = items;
    }
    texts->items[texts->count++] = text;
    return 0;
}

/* Each part of `text` between separators; empty parts are left out. */
static int add_split(struct parser *parser, const struct sel_cli_option *option, const char *text,
                     char separator,
                     int (*add)(struct parser *, const struct sel_cli_option *, const char *))
{
    while (*text) {
        const char *end = strchr(text, separator);
        size_t n = end ? (size_t)(end - text) : strlen(text);
        if (n > 0) {
            char *part = sel_arena_strdup(parser->arena, (struct sel_str){text, n});
            if (!part)
                return no_memory(parser);
            int r = add(parser, option, part);
            if (r < 0)
                return r;
        }
        text += n + (end ? 1 : 0);
    }
    return 0;
}

static const char *refuse_path(enum sel_cli_option_kind kind, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == ENOENT ? "does not exist" : strerror(errno);
    if (kind == SEL_CLI_FILE && S_ISDIR(st.st_mode))
        return "is a folder, not a file";
    if (kind == SEL_CLI_FOLDER && !S_ISDIR(st.st_mode))
        return "is no folder";
    if (access(path, R_OK) < 0)
        return "cannot be read";
    return NULL;
}

static int add_path(struct parser *parser, const struct sel_cli_option *option, const char *path)
{
    const char *why = refuse_path(option->kind, path);
    return why ? bad_value(parser, option, path, why) : add_text(parser, option, path);
}

static int set_path(struct parser *parser, const struct sel_cli_option *option, const char *path)
{
    const char *why = refuse_path(option->kind, path);
    if (why)
        return bad_value(parser, option, path, why);
    *(const char **)member(parser, option) = path;
    return 0;
}

static int set_choice(struct parser *parser, const struct sel_cli_option *option, const char *text)
{
    for (const char *const *choice = option->choices; *choice; choice++) {
        if (strcmp(*choice, text) == 0) {
            *(const char **)member(parser, option) = *choice;
            return 0;
        }
    }
    char all[256] = "";
    size_t n = 0;
    for (const char *const *choice = option->choices; *choice && n < sizeof(all); choice++)
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", n ? ", " : "", *choice);
    char name[NAME_TEXT_SIZE];
    return usage(parser, "%s: '%s' is none of %s", name_of(option, name), text, all);
}

static int check_range(struct parser *parser, const struct sel_cli_option *option, const char *text,
                       double value)
{
    char why[96];
    if (value < option->min)
        (void)snprintf(why, sizeof(why), "is below %g", option->min);
    else if (option->max > option->min && value > option->max)
        (void)snprintf(why, sizeof(why), "is above %.15g", option->max);
    else
        return 0;
    return bad_value(parser, option, text, why);
}

static int set_int(struct parser *parser, const struct sel_cli_option *option, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0')
        return bad_value(parser, option, text, "is no whole number");
    if (errno == ERANGE)
        return bad_value(parser, option, text, "is too large a number");
    int r = check_range(parser, option, text, (double)value);
    if (r == 0)
        *(int64_t *)member(parser, option) = value;
    return r;
}

static int set_number(struct parser *parser, const struct sel_cli_option *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return bad_value(parser, option, text, "is no number");
    int r = check_range(parser, option, text, value);
    if (r == 0)
        *(double *)member(parser, option) = value;
    return r;
}

static int set_value(struct parser *parser, const struct sel_cli_option *option, const char *text)
{
    switch (option->kind) {
    case SEL_CLI_FLAG:
        *(bool *)member(parser, option) = true;
        return 0;
    case SEL_CLI_COUNT:
        ++*(int *)member(parser, option);
        return 0;
    case SEL_CLI_TEXT:
        *(const char **)member(parser, option) = text;
        return 0;
    case SEL_CLI_FILE:
    case SEL_CLI_FOLDER:
        return set_path(parser, option, text);
    case SEL_CLI_PATHS:
        return add_path(parser, option, text);
    case SEL_CLI_NAMES:
        return add_split(parser, option, text, ',', add_text);
    case SEL_CLI_INT:
        return set_int(parser, option, text);
    case SEL_CLI_NUMBER:
        return set_number(parser, option, text);
    case SEL_CLI_CHOICE:
        return set_choice(parser, option, text);
    }
    return usage(parser, "--%s: unknown kind of option", option->name);
}

/* ---- environment ---- */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++) {
        if (strcasecmp(text, *words) == 0)
            return true;
    }
    return false;
}

static int set_flag_text(struct parser *parser, const struct sel_cli_option *option,
                         const char *variable, const char *text)
{
    static const char *const yes[] = {"1", "true", "yes", "on", "y", "t", NULL};
    static const char *const no[] = {"0", "false", "no", "off", "n", "f", NULL};
    if (!is_one_of(text, yes) && !is_one_of(text, no))
        return usage(parser, "variable %s: '%s' is neither true nor false", variable, text);
    *(bool *)member(parser, option) = is_one_of(text, yes);
    return 0;
}

static int take_variable(struct parser *parser, uint32_t i)
{
    const struct sel_cli_option *option = &parser->set->options[i];
    for (int e = 0; e < SEL_CLI_ENV_MAX && option->env[e]; e++) {
        const char *text = parser->environment->getenv(parser->environment->ctx, option->env[e]);
        if (!text || !*text)
            continue;
        parser->given[i] = true;
        if (option->kind == SEL_CLI_FLAG)
            return set_flag_text(parser, option, option->env[e], text);
        if (option->kind == SEL_CLI_PATHS)
            return add_split(parser, option, text, ':', add_path);
        return set_value(parser, option, text);
    }
    return 0;
}

static int take_variables(struct parser *parser)
{
    for (uint32_t i = 0; parser->environment && i < parser->set->count; i++) {
        if (parser->given[i])
            continue;
        int r = take_variable(parser, i);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_required(struct parser *parser)
{
    for (uint32_t i = 0; i < parser->set->count; i++) {
        const struct sel_cli_option *option = &parser->set->options[i];
        char name[NAME_TEXT_SIZE];
        if (option->required && !parser->given[i])
            return usage(parser, option->is_word ? "%s is missing" : "option %s is missing",
                         name_of(option, name));
    }
    return 0;
}

/* ---- the command line ---- */

static bool takes_value(const struct sel_cli_option *option)
{
    return option->kind != SEL_CLI_FLAG && option->kind != SEL_CLI_COUNT;
}

static void describe(const struct sel_cli_option_set *set, struct option longs[OPTIONS_MAX + 2],
                     char letters[2 * OPTIONS_MAX + 8])
{
    SEL_ASSERT(set->count <= OPTIONS_MAX);
    /* In order, so that a list knows which words follow it; ':' tells a missing value apart. */
    *letters++ = set->stop_at_word ? '+' : '-';
    *letters++ = ':';
    *letters++ = 'h';
    uint32_t count = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct sel_cli_option *option = &set->options[i];
        int has_arg = takes_value(option) ? required_argument : no_argument;
        if (option->is_word)
            continue;
        longs[count++] = (struct option){option->name, has_arg, NULL, LONG_BASE + (int)i};
        if (option->letter) {
            *letters++ = option->letter;
            if (takes_value(option))
                *letters++ = ':';
        }
    }
    *letters = '\0';
    longs[count] = (struct option){"help", no_argument, NULL, 'h'};
    longs[count + 1] = (struct option){0};
}

static const struct sel_cli_option *find(const struct sel_cli_option_set *set, int c,
                                         uint32_t *ret_index)
{
    for (uint32_t i = 0; i < set->count; i++) {
        if (c == LONG_BASE + (int)i || (c < LONG_BASE && c == set->options[i].letter)) {
            *ret_index = i;
            return &set->options[i];
        }
    }
    return NULL;
}

static const char *suggest(const struct sel_cli_option_set *set, struct sel_str word)
{
    const char *best = NULL;
    unsigned best_distance = SUGGESTION_DISTANCE_MAX + 1;
    for (uint32_t i = 0; i < set->count; i++) {
        const struct sel_cli_option *option = &set->options[i];
        unsigned distance =
            sel_str_distance(word, sel_str_c(option->name), SUGGESTION_DISTANCE_MAX);
        if (!option->hidden && !option->is_word && distance < best_distance) {
            best = option->name;
            best_distance = distance;
        }
    }
    return best;
}

static bool is_ambiguous(const struct sel_cli_option_set *set, struct sel_str word)
{
    uint32_t matches = 0;
    for (uint32_t i = 0; i < set->count; i++)
        matches += !set->options[i].is_word && strncmp(set->options[i].name, word.p, word.n) == 0;
    return matches > 1;
}

static int unknown_option(struct parser *parser, const char *word)
{
    uint32_t index;
    char name[NAME_TEXT_SIZE];
    const struct sel_cli_option *known = optopt ? find(parser->set, optopt, &index) : NULL;
    if (known) /* only --flag=value ends here */
        return usage(parser, "option %s takes no value", name_of(known, name));
    if (optopt)
        return usage(parser, "there is no option -%c", optopt);
    struct sel_str text = {word + 2, strcspn(word + 2, "=")};
    if (is_ambiguous(parser->set, text))
        return usage(parser, "option --%.*s could be one of several", SEL_STR_ARG(text));
    const char *better = suggest(parser->set, text);
    if (better)
        return usage(parser, "there is no option --%.*s; did you mean --%s?", SEL_STR_ARG(text),
                     better);
    return usage(parser, "there is no option --%.*s", SEL_STR_ARG(text));
}

static bool takes_many(const struct sel_cli_option *option)
{
    return option->kind == SEL_CLI_NAMES || option->kind == SEL_CLI_PATHS;
}

/* The next word that stands for itself. */
static int take_word(struct parser *parser, const char *word)
{
    for (uint32_t i = 0; i < parser->set->count; i++) {
        const struct sel_cli_option *option = &parser->set->options[i];
        if (!option->is_word || (parser->given[i] && !takes_many(option)))
            continue;
        parser->given[i] = true;
        return set_value(parser, option, word);
    }
    return usage(parser, "unexpected argument '%s'", word);
}

/* `c` as getopt_long gave it; `word` is the word of argv that was looked at last. */
static int take(struct parser *parser, int c, const char *word)
{
    uint32_t index = 0;
    if (c == NOT_AN_OPTION) {
        return parser->list ? set_value(parser, parser->list, optarg) : take_word(parser, optarg);
    }
    if (c == '?')
        return unknown_option(parser, word);
    const struct sel_cli_option *option = find(parser->set, c == ':' ? optopt : c, &index);
    SEL_ASSERT(option);
    char name[NAME_TEXT_SIZE];
    if (c == ':')
        return usage(parser, "option %s needs a value", name_of(option, name));

    parser->given[index] = true;
    parser->list = option->kind == SEL_CLI_PATHS ? option : NULL;
    return set_value(parser, option, optarg);
}

int sel_cli_options_parse(const struct sel_cli_option_set *set, int argc, char **argv,
                          const struct sel_cli_environment *environment, struct sel_arena *arena,
                          void *values, struct sel_error *err)
{
    struct option longs[OPTIONS_MAX + 2];
    char letters[2 * OPTIONS_MAX + 8];
    describe(set, longs, letters);
    struct parser parser = {
        .set = set, .environment = environment, .arena = arena, .values = values, .err = err};
    int failure = 0; /* --help wins over a fault beside it */
    optind = 0;      /* glibc: start anew */
    for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (c == 'h')
            return sel_error_set(err, SEL_ECANCELED, (struct sel_pos){0}, "help");
        if (failure < 0)
            continue;
        failure = take(&parser, c, optind > 0 && optind <= argc ? argv[optind - 1] : "");
    }
    int end = optind;
    if (failure == 0)
        failure = take_variables(&parser);
    if (failure == 0)
        failure = check_required(&parser);
    return failure < 0 ? failure : end;
}

/* ---- help ---- */

#define HELP_COLUMN 38
#define HELP_WIDTH 100

static const char *value_name(const struct sel_cli_option *option)
{
    if (option->value_name)
        return option->value_name;
    switch (option->kind) {
    case SEL_CLI_FILE:
        return "FILE";
    case SEL_CLI_FOLDER:
        return "FOLDER";
    case SEL_CLI_PATHS:
        return "PATH...";
    case SEL_CLI_NAMES:
        return "NAME,...";
    case SEL_CLI_INT:
        return "N";
    case SEL_CLI_NUMBER:
        return "NUMBER";
    default:
        return "TEXT";
    }
}

/* Words of `text` from `column` on, in lines that begin at HELP_COLUMN; returns the column. */
static int print_words(FILE *out, int column, const char *text)
{
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        bool first = column <= HELP_COLUMN;
        fprintf(out, "%s%.*s", first ? "" : " ", n, text);
        column += n + (first ? 0 : 1);
        text += n;
        text += strspn(text, " ");
    }
    return column;
}

static void print_option(FILE *out, const struct sel_cli_option *option)
{
    char left[NAME_TEXT_SIZE + 32];
    int column = option->is_word
                     ? snprintf(left, sizeof(left), "  %s", option->name)
                     : snprintf(left, sizeof(left), "  %c%c%s --%s%s%s", option->letter ? '-' : ' ',
                                option->letter ? option->letter : ' ', option->letter ? "," : " ",
                                option->name, takes_value(option) ? " " : "",
                                takes_value(option) ? value_name(option) : "");
    fputs(left, out);
    if (column + 2 > HELP_COLUMN)
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(out, "%*s", HELP_COLUMN - column, "");
    column = print_words(out, HELP_COLUMN, option->help);
    if (option->required)
        column = print_words(out, column, "(required)");
    for (int e = 0; e < SEL_CLI_ENV_MAX && option->env[e]; e++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "[%s]", option->env[e]);
        column = print_words(out, column, text);
    }
    fputc('\n', out);
}

void sel_cli_options_print(const struct sel_cli_option_set *set, FILE *out)
{
    for (uint32_t i = 0; i < set->count; i++) {
        if (!set->options[i].hidden)
            print_option(out, &set->options[i]);
    }
    static const struct sel_cli_option help = {.name = "help", .letter = 'h', .help = "this text"};
    print_option(out, &help);
}
