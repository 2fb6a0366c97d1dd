#include "worker/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"
#include "worker/process.h"

#define DRAIN_S_DEFAULT 60
#define DRAIN_S_MAX 86400
#define LIST_MAX 65536u
#define MOCK_SPEED_MAX 1000000
#define LINE_MAX_SIZE 256

enum kind {
    KIND_TEXT,
    KIND_COMMAS,  /* a list: items between commas, may be given again */
    KIND_PATHS,   /* a list: words up to the next option; in the variable between colons */
    KIND_NUMBER,  /* int64_t */
    KIND_SECONDS, /* int64_t, microseconds */
    KIND_FLAG,
    KIND_COUNT, /* int64_t: how often */
};

struct option_def {
    const char *name;
    int letter; /* or 0 */
    enum kind kind;
    size_t offset;
    const char *env; /* NULL: has no variable */
    double min, max;
    const char *value; /* its name in the help */
    const char *help;
};

#define MEMBER(name) offsetof(struct sel_worker_settings, name)

static const struct option_def options[] = {
    {"broker", 'b', KIND_COMMAS, MEMBER(brokers), "SELINON_BROKER", 0, 0, "ENDPOINT,...",
     "the broker: tcp://HOST:PORT or ipc:///PATH; several endpoints of it are tried in turn "
     "(default: " SEL_WORKER_BROKER_DEFAULT ")"},
    {"nodes-definition", 'n', KIND_TEXT, MEMBER(nodes), "SELINON_NODES_DEFINITION", 0, 0, "FILE",
     "the nodes file (required)"},
    {"flow-definitions", 'f', KIND_PATHS, MEMBER(flows), "SELINON_FLOW_DEFINITIONS", 0, 0,
     "PATH ...", "flow files, or folders searched through all levels for *.yaml and *.yml"},
    {"queues", 'Q', KIND_COMMAS, MEMBER(queues), "SELINON_WORKER_QUEUES", 0, 0, "QUEUE,...",
     "serve these queues (default: those of all tasks and flows of the configuration)"},
    {"module-path", 0, KIND_TEXT, MEMBER(module_path), "SELINON_MODULE_PATH", 0, 0, "FOLDER:...",
     "where modules are looked for"},
    {"threads", 't', KIND_NUMBER, MEMBER(threads), "SELINON_WORKER_THREADS", 0,
     SEL_WORKER_THREADS_MAX, "N",
     "threads that run tasks (default: as many as CPUs may be used; 0 with --dispatchers: none)"},
    {"slots", 's', KIND_NUMBER, MEMBER(slots), "SELINON_WORKER_SLOTS", 1, SEL_WIRE_SLOTS_MAX, "N",
     "tasks that run at a time on each thread (default: 1024)"},
    {"window", 'w', KIND_NUMBER, MEMBER(window), "SELINON_WORKER_WINDOW", 1, SEL_WIRE_HELD_MAX, "N",
     "tasks that each thread may hold, running or not (default: 8192 or more)"},
    {"dispatchers", 0, KIND_NUMBER, MEMBER(dispatchers), "SELINON_WORKER_DISPATCHERS", 0,
     SEL_WORKER_THREADS_MAX, "N",
     "threads of their own that decide what flows do next (default: 0, those that run tasks do)"},
    {"flows", 0, KIND_NUMBER, MEMBER(flow_window), "SELINON_WORKER_FLOWS", 0, SEL_WORKER_FLOWS_MAX,
     "N",
     "flows that each thread that decides has at a time; 0: this worker decides none (default: "
     "4096)"},
    {"flow-nodes-max", 0, KIND_NUMBER, MEMBER(flow_nodes_max), "SELINON_WORKER_FLOW_NODES_MAX", 1,
     SEL_DISPATCHER_FLOW_NODES_MAX, "N",
     "nodes that a flow may start; one that would start more fails (default: 10000000)"},
    {"drain-timeout", 0, KIND_SECONDS, MEMBER(drain_timeout_us), "SELINON_WORKER_DRAIN_TIMEOUT", 0,
     DRAIN_S_MAX, "SECONDS", "how long what runs may go on after SIGTERM (default: 60)"},
    {"name", 0, KIND_TEXT, MEMBER(name), "SELINON_WORKER_NAME", 0, 0, "TEXT",
     "what people see (default: HOST:PROCESS)"},
    {"pin", 0, KIND_FLAG, MEMBER(pin), "SELINON_WORKER_PIN", 0, 0, NULL,
     "keep each thread on a CPU of its own"},
    {"no-supervisor", 0, KIND_FLAG, MEMBER(no_supervisor), "SELINON_WORKER_NO_SUPERVISOR", 0, 0,
     NULL, "run in this process; what starts it again must be something else"},
    {"mock", 0, KIND_TEXT, MEMBER(mock), NULL, 0, 0, "FILE",
     "no code: tasks and functions do what this script says, as with selinon-cli execute"},
    {"mock-state", 0, KIND_TEXT, MEMBER(mock_state), NULL, 0, 0, "FILE",
     "count the steps of the script in this file, together with other workers; results of storages "
     "in memory go to the folder FILE.results"},
    {"mock-report", 0, KIND_TEXT, MEMBER(mock_report), NULL, 0, 0, "FILE",
     "append what runs, is stored, ends and is traced to this file, as lines of JSON"},
    {"mock-speed", 0, KIND_NUMBER, MEMBER(mock_speed), NULL, 1, MOCK_SPEED_MAX, "N",
     "delays pass N times as fast"},
    {"verbose", 'v', KIND_COUNT, MEMBER(verbosity), NULL, 0, 0, NULL,
     "say more: once what tasks and traces tell, twice everything"},
    {"version", 0, KIND_FLAG, MEMBER(version), NULL, 0, 0, NULL, "print the version and stop"},
    {"help", 'h', KIND_FLAG, MEMBER(help), NULL, 0, 0, NULL, "print this and stop"},
};

#define COUNT SEL_COUNT(options)

struct parser {
    struct sel_arena *arena;
    struct sel_worker_settings *settings;
    struct sel_error *err;
    bool given[COUNT];
};

static void *member(struct parser *p, const struct option_def *def)
{
    return (char *)p->settings + def->offset;
}

static int usage(struct parser *p, const char *fmt, ...) SEL_PRINTF(2, 3);

static int usage(struct parser *p, const char *fmt, ...)
{
    char text[SEL_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return sel_error_set(p->err, SEL_EREQUEST, (struct sel_pos){0}, "%s", text);
}

static int add_item(struct parser *p, struct sel_worker_texts *list, struct sel_str item)
{
    if (item.n == 0)
        return 0;
    const char **items = SEL_ARENA_NEW_ARRAY(p->arena, const char *, list->count + 1);
    char *text = sel_arena_strdup(p->arena, item);
    if (!items || !text || list->count == LIST_MAX)
        return sel_error_set(p->err, SEL_ENOMEM, (struct sel_pos){0}, "out of memory");
    if (list->count)
        memcpy(items, list->items, sizeof(*items) * list->count);
    items[list->count++] = text;
    list->items = items;
    return 0;
}

static int add_items(struct parser *p, struct sel_worker_texts *list, const char *text,
                     char separator)
{
    int r = 0;
    while (r == 0 && text) {
        const char *end = strchr(text, separator);
        size_t n = end ? (size_t)(end - text) : strlen(text);
        r = add_item(p, list, (struct sel_str){text, n});
        text = end ? end + 1 : NULL;
    }
    return r;
}

static int set_number(struct parser *p, const struct option_def *def, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    bool is_whole = value == (double)(int64_t)(value > -9e18 && value < 9e18 ? value : 0.5);
    if (end == text || *end || errno || !(value >= def->min && value <= def->max) ||
        (def->kind == KIND_NUMBER && !is_whole)) {
        return usage(p, "--%s cannot be '%.100s': it is a number from %.0f to %.0f", def->name,
                     text, def->min, def->max);
    }
    *(int64_t *)member(p, def) = (int64_t)(def->kind == KIND_SECONDS ? value * 1e6 : value);
    return 0;
}

/* `path_separator` 0: a path is the whole text. */
static int set_option(struct parser *p, const struct option_def *def, const char *text,
                      char path_separator)
{
    p->given[def - options] = true;
    switch (def->kind) {
    case KIND_TEXT:
        *(const char **)member(p, def) = text;
        return 0;
    case KIND_COMMAS:
        return add_items(p, member(p, def), text, ',');
    case KIND_PATHS:
        return path_separator ? add_items(p, member(p, def), text, path_separator)
                              : add_item(p, member(p, def), sel_str_c(text));
    case KIND_NUMBER:
    case KIND_SECONDS:
        return set_number(p, def, text);
    case KIND_FLAG:
        *(bool *)member(p, def) = true;
        return 0;
    case KIND_COUNT:
        ++*(int64_t *)member(p, def);
        return 0;
    }
    return 0;
}

static bool is_off(const char *text)
{
    return strcmp(text, "0") == 0 || strcmp(text, "no") == 0 || strcmp(text, "false") == 0;
}

static int take_environment(struct parser *p, const char *(*getenv_fn)(void *, const char *),
                            void *ctx)
{
    int r = 0;
    for (size_t i = 0; i < COUNT && r == 0; i++) {
        const char *text = options[i].env && !p->given[i] ? getenv_fn(ctx, options[i].env) : NULL;
        if (!text || !*text || (options[i].kind == KIND_FLAG && is_off(text)))
            continue;
        r = set_option(p, &options[i], text, ':');
        if (r == SEL_EREQUEST) {
            struct sel_error own = *p->err;
            r = usage(p, "%s: %s", options[i].env, own.text);
        }
    }
    return r;
}

static void fill_table(struct option longs[COUNT + 1], char shorts[3 * COUNT + 2])
{
    size_t n = 0;
    shorts[n++] = ':';
    for (size_t i = 0; i < COUNT; i++) {
        bool has_value = options[i].kind != KIND_FLAG && options[i].kind != KIND_COUNT;
        longs[i] = (struct option){options[i].name, has_value ? required_argument : no_argument,
                                   NULL, (int)(256 + i)};
        if (!options[i].letter)
            continue;
        shorts[n++] = (char)options[i].letter;
        if (has_value)
            shorts[n++] = ':';
    }
    longs[COUNT] = (struct option){0};
    shorts[n] = '\0';
}

static const struct option_def *find_option(int code)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (code == (int)(256 + i) || (options[i].letter && code == options[i].letter))
            return &options[i];
    }
    return NULL;
}

static int take_command_line(struct parser *p, int argc, char **argv)
{
    struct option longs[COUNT + 1];
    char shorts[3 * COUNT + 2];
    fill_table(longs, shorts);
    optind = 0; /* glibc: begin anew */
    int code, r = 0;
    while (r == 0 && (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        const struct option_def *def = find_option(code);
        if (!def)
            return code == ':' ? usage(p, "option '%s' needs a value", argv[optind - 1])
                               : usage(p, "there is no option '%s'", argv[optind - 1]);
        r = set_option(p, def, optarg, '\0');
        while (r == 0 && def->kind == KIND_PATHS && optind < argc && argv[optind][0] != '-')
            r = set_option(p, def, argv[optind++], '\0');
    }
    if (r == 0 && optind < argc)
        return usage(p, "'%s' is no option", argv[optind]);
    return r;
}

static int check(struct parser *p)
{
    struct sel_worker_settings *s = p->settings;
    if (s->help || s->version)
        return 0;
    if (!s->nodes)
        return usage(p, "--nodes-definition is missing");
    if (!s->mock && (s->mock_state || s->mock_report || s->mock_speed))
        return usage(p, "--mock-state, --mock-report and --mock-speed are for --mock");
    if (s->threads == 0 && (s->dispatchers == 0 || s->flow_window == 0))
        return usage(p, "--threads 0 leaves nothing to do without --dispatchers and --flows");
    if (s->dispatchers > 0 && s->flow_window == 0)
        return usage(p, "--dispatchers have nothing to do with --flows 0");
    if (s->threads + s->dispatchers > (int64_t)SEL_WORKER_THREADS_MAX)
        return usage(p, "--threads and --dispatchers are more than %u together",
                     SEL_WORKER_THREADS_MAX);
    if (s->brokers.count > SEL_WORKER_BROKERS_MAX)
        return usage(p, "--broker has too many endpoints");
    return s->brokers.count ? 0 : add_item(p, &s->brokers, SEL_STR(SEL_WORKER_BROKER_DEFAULT));
}

int sel_worker_settings_parse(int argc, char **argv,
                              const char *(*getenv_fn)(void *ctx, const char *name), void *ctx,
                              struct sel_arena *arena, struct sel_worker_settings *ret,
                              struct sel_error *err)
{
    struct sel_error own;
    struct parser p = {.arena = arena, .settings = ret, .err = err ? err : &own};
    *ret = (struct sel_worker_settings){.drain_timeout_us = DRAIN_S_DEFAULT * INT64_C(1000000),
                                        .threads = -1,
                                        .flow_window = SEL_WORKER_FLOWS_DEFAULT,
                                        .flow_nodes_max = SEL_DISPATCHER_FLOW_NODES_DEFAULT};
    int r = take_command_line(&p, argc, argv);
    if (r == 0 && getenv_fn)
        r = take_environment(&p, getenv_fn, ctx);
    return r == 0 ? check(&p) : r;
}

void sel_worker_settings_help(FILE *out)
{
    fprintf(out, "Usage: selinon-worker -n FILE [OPTIONS]\n\n"
                 "Runs the tasks and decides the flows that a broker has for the queues that it "
                 "serves.\n\nOptions:\n");
    for (size_t i = 0; i < COUNT; i++) {
        const struct option_def *def = &options[i];
        char head[LINE_MAX_SIZE];
        char letter[8] = "    ";
        if (def->letter)
            (void)snprintf(letter, sizeof(letter), "-%c, ", def->letter);
        (void)snprintf(head, sizeof(head), "%s--%s%s%s", letter, def->name, def->value ? " " : "",
                       def->value ? def->value : "");
        fprintf(out, "  %-34s %s%s%s%s\n", head, def->help, def->env ? " [" : "",
                def->env ? def->env : "", def->env ? "]" : "");
    }
    fprintf(
        out,
        "\nA variable in [brackets] gives the option a value where the command line does not.\n"
        "SIGTERM and SIGINT let it drain; a second one ends it at once.\n"
        "Ends with 0 when all was handed over, 1 if it cannot start, 2 if this command line is\n"
        "wrong, 3 if it had to leave something behind, 4 if the broker refuses it.\n");
}
