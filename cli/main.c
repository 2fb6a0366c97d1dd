/* selinon-cli - the commands and their general options. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/arena.h"

#define PROGRAM "selinon-cli"
#define SUGGESTION_DISTANCE_MAX 3

static const struct sel_cli_command *const commands[] = {
    &sel_cli_cmd_dev,     &sel_cli_cmd_drain,   &sel_cli_cmd_execute, &sel_cli_cmd_flows,
    &sel_cli_cmd_inspect, &sel_cli_cmd_journal, &sel_cli_cmd_queues,  &sel_cli_cmd_result,
    &sel_cli_cmd_run,     &sel_cli_cmd_status,  &sel_cli_cmd_task,    &sel_cli_cmd_version,
    &sel_cli_cmd_wait,    &sel_cli_cmd_workers,
};

struct general {
    int verbosity;
    bool version;
    bool no_color;
};

static const struct sel_cli_option general_options[] = {
    {.name = "verbose",
     .letter = 'v',
     .kind = SEL_CLI_COUNT,
     .offset = offsetof(struct general, verbosity),
     .help = "say more: once what is done, twice also why"},
    {.name = "no-color",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct general, no_color),
     .help = "plain text on terminals"},
    {.name = "version",
     .kind = SEL_CLI_FLAG,
     .offset = offsetof(struct general, version),
     .help = "print the version and stop"},
};

#define COMMAND_GENERAL_COUNT 2 /* of those above: what every command takes too */

static const char *process_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return getenv(name);
}

static void print_help(FILE *out)
{
    fprintf(out,
            "Usage: %s [OPTIONS] COMMAND [OPTIONS]\n\n"
            "Runs flows of tasks that are described in YAML.\n\nCommands:\n",
            PROGRAM);
    for (size_t i = 0; i < SEL_COUNT(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->about);
    fprintf(out, "\nOptions (of every command too, except --version):\n");
    sel_cli_options_print(
        &(struct sel_cli_option_set){general_options, SEL_COUNT(general_options), true}, out);
    fprintf(out,
            "\n`%s COMMAND --help` tells the options of a command. A variable in [brackets] gives\n"
            "the option a value where the command line does not.\n",
            PROGRAM);
}

static const struct sel_cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < SEL_COUNT(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

/* One line: how a command (NULL: the program) is called. */
static void print_usage(FILE *out, const char *name)
{
    const struct sel_cli_command *command = name ? find_command(name) : NULL;
    fprintf(out, "Usage: " PROGRAM " %s", name ? name : "[OPTIONS] COMMAND");
    for (uint32_t i = 0; command && i < command->option_count; i++) {
        if (command->options[i].is_word)
            fprintf(out, " %s", command->options[i].name);
    }
    fprintf(out, " [OPTIONS]\n");
}

int sel_cli_usage(const struct sel_cli *cli, const char *command, const char *text)
{
    print_usage(cli->err, command);
    fprintf(cli->err, "Try '%s%s%s --help'.\n\nError: %s\n", cli->program, command ? " " : "",
            command ? command : "", text);
    return SEL_CLI_USAGE;
}

static int unknown_command(const struct sel_cli *cli, const char *name)
{
    const char *best = NULL;
    unsigned best_distance = SUGGESTION_DISTANCE_MAX + 1;
    for (size_t i = 0; i < SEL_COUNT(commands); i++) {
        unsigned distance = sel_str_distance(sel_str_c(name), sel_str_c(commands[i]->name),
                                             SUGGESTION_DISTANCE_MAX);
        if (distance < best_distance) {
            best = commands[i]->name;
            best_distance = distance;
        }
    }
    char text[256];
    (void)snprintf(text, sizeof(text),
                   best ? "no such command '%s'; did you mean '%s'?" : "no such command '%s'", name,
                   best);
    return sel_cli_usage(cli, NULL, text);
}

static void print_command_help(const struct sel_cli *cli, const struct sel_cli_command *command,
                               const struct sel_cli_option_set *set)
{
    print_usage(cli->out, command->name);
    fprintf(cli->out, "\n%s\n", command->about);
    if (command->more)
        fprintf(cli->out, "\n%s", command->more);
    fprintf(cli->out, "\nOptions:\n");
    sel_cli_options_print(set, cli->out);
}

/* The options of a command and behind them the general ones, whose values lie at `offset`. */
static int join_options(struct sel_arena *arena, const struct sel_cli_command *command,
                        size_t offset, struct sel_cli_option_set *ret)
{
    uint32_t count = command->option_count + COMMAND_GENERAL_COUNT;
    struct sel_cli_option *options = SEL_ARENA_NEW_ARRAY(arena, struct sel_cli_option, count);
    if (!options)
        return SEL_ENOMEM;
    memcpy(options, command->options, command->option_count * sizeof(*options));
    for (uint32_t i = 0; i < COMMAND_GENERAL_COUNT; i++) {
        options[command->option_count + i] = general_options[i];
        options[command->option_count + i].offset += offset;
    }
    *ret = (struct sel_cli_option_set){options, count, false};
    return 0;
}

/* argv[0] is the name of the command. */
static int run_command(struct sel_cli *cli, const struct sel_cli_command *command, int argc,
                       char **argv, struct sel_arena *arena)
{
    size_t offset = (command->values_size + 15) / 16 * 16;
    char *values = sel_arena_alloc(arena, offset + sizeof(struct general));
    struct sel_cli_option_set set;
    if (!values || join_options(arena, command, offset, &set) < 0)
        return sel_cli_fail(cli, "%s", sel_error_text(SEL_ENOMEM));
    if (command->defaults)
        memcpy(values, command->defaults, command->values_size);

    struct sel_cli_environment environment = {cli->getenv, cli->getenv_ctx};
    struct sel_error err;
    int r = sel_cli_options_parse(&set, argc, argv, &environment, arena, values, &err);
    if (r == SEL_ECANCELED) {
        print_command_help(cli, command, &set);
        return sel_cli_finish(cli, SEL_CLI_OK);
    }
    if (r == SEL_EREQUEST)
        return sel_cli_usage(cli, command->name, err.text);
    if (r < 0)
        return sel_cli_fail_with(cli, &err);
    if (r < argc) { /* behind a `--` */
        (void)snprintf(err.text, sizeof(err.text), "unexpected argument '%s'", argv[r]);
        return sel_cli_usage(cli, command->name, err.text);
    }

    const struct general *general = (const void *)(values + offset);
    cli->verbosity += general->verbosity;
    cli->no_color = cli->no_color || general->no_color;
    return command->run(cli, values);
}

static int run(struct sel_cli *cli, int argc, char **argv, struct sel_arena *arena)
{
    struct general general = {0};
    struct sel_cli_option_set set = {general_options, SEL_COUNT(general_options), true};
    struct sel_error err;
    int r = sel_cli_options_parse(&set, argc, argv, NULL, arena, &general, &err);
    if (r < 0 && r != SEL_ECANCELED)
        return sel_cli_usage(cli, NULL, err.text);
    if (general.version) {
        fprintf(cli->out, "%s\n", SEL_VERSION);
        return sel_cli_finish(cli, SEL_CLI_OK);
    }
    if (r == SEL_ECANCELED || r == argc) {
        print_help(cli->out);
        return sel_cli_finish(cli, SEL_CLI_OK);
    }
    cli->verbosity = general.verbosity;
    const char *no_color = cli->getenv(cli->getenv_ctx, "NO_COLOR"); /* no-color.org */
    cli->no_color = general.no_color || (no_color && *no_color);
    const struct sel_cli_command *command = find_command(argv[r]);
    if (!command)
        return unknown_command(cli, argv[r]);
    return run_command(cli, command, argc - r, argv + r, arena);
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN); /* cannot fail; a closed pipe is an error of the write */
    struct sel_cli cli = {
        .program = PROGRAM, .out = stdout, .err = stderr, .getenv = process_getenv};
    struct sel_arena arena = {0};
    int status = run(&cli, argc, argv, &arena);
    sel_arena_done(&arena);
    return status;
}
