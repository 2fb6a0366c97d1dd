/* selinon-sim - a cluster in one process, from one seed.
 *
 * What it does: --help. Ends with 0 if all promises were kept, 1 if one was broken, 2 for a wrong
 * command line. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/run.h"

struct command {
    struct sel_run_options options;
    uint64_t first, last; /* seeds */
    double for_s;
    const char *seed_file;
    bool is_cut_every, is_quiet, is_twice, is_expecting;
    const char *self;
    struct {
        uint64_t runs, tasks, executions, frames, cuts, deaths, writes, virtual_us;
    } sum;
};

static const char help[] =
    "selinon-sim [option]...\n"
    "  --seed N            one history; the same one each time\n"
    "  --seeds A..B        the histories from A to B\n"
    "  --from FILE         those of a list: a seed a line, `#` comments\n"
    "  --for SECONDS       others each time, as many as there is time for\n"
    "  --flows             histories of flows, not of tasks alone\n"
    "  --cut-every-write   each seed is a short history; the power fails at each write in turn\n"
    "  --verbose           what happens, with frames in words\n"
    "  --only A,B          these modes and no others; --without A,B: not these\n"
    "  --cheat NAME        the world breaks a promise; all is well if that is found\n"
    "  --twice             each history twice; they must be the same\n"
    "  --quiet             nothing but what is broken\n"
    "  --list              modes and cheats\n"
    "To look at one write of --cut-every-write: --seed N --cut WRITE[,after][,kill] --disk-seed "
    "N\n";

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- what to type to see it again ---- */

static char replay_text[512];

static void format_modes(char *out, size_t size, uint64_t modes)
{
    size_t n = 0;
    for (int i = 0; i < SEL_MODE_COUNT; i++)
        if ((modes >> i) & 1)
            n += (size_t)snprintf(out + n, n < size ? size - n : 0, "%s%s", n ? "," : "",
                                  sel_mode_name(i));
    if (n == 0)
        (void)snprintf(out, size, "none");
}

static void format_replay(const struct command *command, const struct sel_run_options *options)
{
    char more[300] = "", modes[250];
    size_t n = 0;
    if (options->has_flows)
        n += (size_t)snprintf(more + n, sizeof(more) - n, " --flows");
    if (options->cut_write)
        n += (size_t)snprintf(more + n, sizeof(more) - n, " --cut %llu%s%s --disk-seed %llu",
                              (unsigned long long)options->cut_write,
                              options->cut_after ? ",after" : "", options->cut_kills ? ",kill" : "",
                              (unsigned long long)options->disk_seed);
    else if (options->is_short)
        n += (size_t)snprintf(more + n, sizeof(more) - n, " --short");
    if (options->cheat)
        n += (size_t)snprintf(more + n, sizeof(more) - n, " --cheat %s",
                              sel_cheat_name(options->cheat));
    if (options->modes_only) {
        format_modes(modes, sizeof(modes), options->modes_only);
        n += (size_t)snprintf(more + n, sizeof(more) - n, " --only %.120s", modes);
    }
    if (options->modes_without) {
        format_modes(modes, sizeof(modes), options->modes_without);
        (void)snprintf(more + n, sizeof(more) - n, " --without %.120s", modes);
    }
    (void)snprintf(replay_text, sizeof(replay_text), "%s --seed %llu%s --verbose", command->self,
                   (unsigned long long)options->seed, more);
}

/* An assertion of the product is a broken promise too; it must not hide its seed. */
static void on_abort(int signal)
{
    static const char before[] = "\naborted; again: ";
    (void)!write(2, before, sizeof(before) - 1);
    (void)!write(2, replay_text, strlen(replay_text));
    (void)!write(2, "\n", 1);
    (void)!raise(signal); /* the handler is gone after its first call */
}

/* ---- runs ---- */

static bool report(struct command *command, const struct sel_run_options *options,
                   const struct sel_run_report *r)
{
    char modes[256];
    if (command->is_expecting) {
        const char *promise = sel_cheat_promise(options->cheat);
        return !r->is_broken || (*promise && strcmp(r->promise, promise) != 0);
    }
    format_modes(modes, sizeof(modes), r->modes);
    if (r->is_broken)
        printf("seed %llu: BROKEN %s: %s\n  modes: %s\n  again: %s\n",
               (unsigned long long)options->seed, r->promise, r->text, modes, replay_text);
    else if (command->first == command->last && !command->is_cut_every && !command->seed_file)
        printf("seed %llu: kept; %llu tasks, %llu runs, %llu frames, %llu events, %.1f s; hash "
               "%016llx; modes: %s\n",
               (unsigned long long)options->seed, (unsigned long long)r->tasks,
               (unsigned long long)r->runs, (unsigned long long)r->frames,
               (unsigned long long)r->events, (double)r->virtual_us / 1e6,
               (unsigned long long)r->hash, modes);
    return !r->is_broken;
}

/* One history; false: a promise was broken. */
static bool run_one(struct command *command, const struct sel_run_options *options,
                    struct sel_run_report *ret)
{
    format_replay(command, options);
    sel_run_history(options, ret);
    command->sum.runs++;
    command->sum.tasks += ret->tasks;
    command->sum.executions += ret->runs;
    command->sum.frames += ret->frames;
    command->sum.cuts += ret->cuts;
    command->sum.deaths += ret->deaths;
    command->sum.writes += ret->writes;
    command->sum.virtual_us += (uint64_t)ret->virtual_us;
    if (command->is_twice) {
        struct sel_run_report again;
        sel_run_history(options, &again);
        if (again.hash != ret->hash) {
            printf("seed %llu: two runs differ: %016llx, %016llx\n  again: %s\n",
                   (unsigned long long)options->seed, (unsigned long long)ret->hash,
                   (unsigned long long)again.hash, replay_text);
            return false;
        }
    }
    return report(command, options, ret);
}

/* The power fails at each write of one history: at once, or when what depends on the write has been
 * said; and the process alone dies. */
static bool run_cuts(struct command *command, uint64_t seed)
{
    struct sel_run_options options = command->options;
    struct sel_run_report whole, r;
    options.seed = seed;
    options.is_short = true;
    if (!run_one(command, &options, &whole))
        return false;
    bool is_kept = true;
    for (uint64_t write = 1; write <= whole.writes && is_kept; write++) {
        options.cut_write = write;
        for (uint64_t how = 0; how < 8 && is_kept; how++) {
            options.disk_seed = how;
            options.cut_after = how & 1;
            options.cut_kills = how == 6 || how == 7;
            is_kept = run_one(command, &options, &r);
        }
    }
    return is_kept;
}

static bool run_seed(struct command *command, uint64_t seed)
{
    if (command->is_cut_every)
        return run_cuts(command, seed);
    struct sel_run_options options = command->options;
    struct sel_run_report r;
    options.seed = seed;
    return run_one(command, &options, &r);
}

static uint64_t run_file(struct command *command, int *ret_status)
{
    char line[256];
    uint64_t broken = 0;
    FILE *file = fopen(command->seed_file, "r");
    if (!file) {
        fprintf(stderr, "selinon-sim: %s cannot be read\n", command->seed_file);
        *ret_status = 2;
        return 0;
    }
    while (fgets(line, sizeof(line), file)) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end != line)
            broken += !run_seed(command, seed);
    }
    fclose(file);
    return broken;
}

static uint64_t run_seeds(struct command *command, double begun)
{
    uint64_t broken = 0;
    for (uint64_t seed = command->first; seed <= command->last; seed++) {
        if (command->for_s > 0 && seconds() - begun >= command->for_s)
            break;
        broken += !run_seed(command, seed);
        if (broken && (command->is_expecting || broken >= 20))
            break;
    }
    return broken;
}

/* ---- the command line ---- */

static void list(void)
{
    for (int i = 0; i < SEL_MODE_COUNT; i++)
        printf("mode  %-9s %s\n", sel_mode_name(i), sel_mode_text(i));
    for (int i = 1; i < SEL_CHEAT_COUNT; i++)
        printf("cheat %-9s %s\n", sel_cheat_name(i), sel_cheat_text(i));
}

static int parse_modes(const char *text, uint64_t *ret)
{
    char copy[512];
    (void)snprintf(copy, sizeof(copy), "%s", text);
    char *rest = copy, *name;
    while ((name = strsep(&rest, ","))) {
        int mode = sel_mode_find(name);
        if (mode < 0) {
            fprintf(stderr, "selinon-sim: there is no mode '%s'; see --list\n", name);
            return -1;
        }
        *ret |= UINT64_C(1) << mode;
    }
    return 0;
}

static int parse_cheat(const char *name, enum sel_cheat *ret)
{
    for (int i = 1; i < SEL_CHEAT_COUNT; i++)
        if (strcmp(name, sel_cheat_name(i)) == 0) {
            *ret = (enum sel_cheat)i;
            return 0;
        }
    fprintf(stderr, "selinon-sim: there is no cheat '%s'; see --list\n", name);
    return -1;
}

static int parse_seeds(const char *text, struct command *command)
{
    char *end;
    command->first = command->last = strtoull(text, &end, 10);
    if (strncmp(end, "..", 2) == 0)
        command->last = strtoull(end + 2, &end, 10);
    if (*end || end == text || command->last < command->first) {
        fprintf(stderr, "selinon-sim: '%s' is no range of seeds, as 1..100\n", text);
        return -1;
    }
    return 0;
}

enum {
    OPT_SEEDS = 256,
    OPT_FROM,
    OPT_FOR,
    OPT_CUTS,
    OPT_ONLY,
    OPT_WITHOUT,
    OPT_CHEAT,
    OPT_TWICE,
    OPT_QUIET,
    OPT_LIST,
    OPT_CUT,
    OPT_DISK,
    OPT_SHORT,
    OPT_FLOWS,
    OPT_VERBOSE,
    OPT_HELP
};

static const struct option table[] = {
    {"seed", 1, NULL, OPT_SEEDS},
    {"seeds", 1, NULL, OPT_SEEDS},
    {"from", 1, NULL, OPT_FROM},
    {"for", 1, NULL, OPT_FOR},
    {"cut-every-write", 0, NULL, OPT_CUTS},
    {"only", 1, NULL, OPT_ONLY},
    {"without", 1, NULL, OPT_WITHOUT},
    {"cheat", 1, NULL, OPT_CHEAT},
    {"twice", 0, NULL, OPT_TWICE},
    {"quiet", 0, NULL, OPT_QUIET},
    {"list", 0, NULL, OPT_LIST},
    {"cut", 1, NULL, OPT_CUT},
    {"disk-seed", 1, NULL, OPT_DISK},
    {"short", 0, NULL, OPT_SHORT},
    {"flows", 0, NULL, OPT_FLOWS},
    {"verbose", 0, NULL, OPT_VERBOSE},
    {"help", 0, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int take_option(struct command *command, int option, const char *text)
{
    struct sel_run_options *o = &command->options;
    switch (option) {
    case OPT_SEEDS:
        return parse_seeds(text, command);
    case OPT_FROM:
        command->seed_file = text;
        return 0;
    case OPT_FOR:
        command->for_s = strtod(text, NULL);
        command->first = (uint64_t)time(NULL) * 100000;
        command->last = UINT64_MAX - 1;
        return 0;
    case OPT_CUTS:
        command->is_cut_every = true;
        return 0;
    case OPT_ONLY:
        return parse_modes(text, &o->modes_only);
    case OPT_WITHOUT:
        return parse_modes(text, &o->modes_without);
    case OPT_CHEAT:
        command->is_expecting = true;
        return parse_cheat(text, &o->cheat);
    case OPT_TWICE:
        command->is_twice = true;
        return 0;
    case OPT_QUIET:
        command->is_quiet = true;
        return 0;
    case OPT_CUT:
        o->is_short = true;
        o->cut_write = strtoull(text, NULL, 10);
        o->cut_after = strstr(text, ",after") != NULL;
        o->cut_kills = strstr(text, ",kill") != NULL;
        return 0;
    case OPT_DISK:
        o->disk_seed = strtoull(text, NULL, 10);
        return 0;
    case OPT_SHORT:
        o->is_short = true;
        return 0;
    case OPT_FLOWS:
        o->has_flows = true;
        return 0;
    case OPT_VERBOSE:
        o->is_verbose = true;
        return 0;
    default:
        return -1;
    }
}

static int finish(struct command *command, uint64_t broken, double took)
{
    if (!command->is_quiet && command->sum.runs > 1)
        printf(
            "%llu histories in %.1f s (%.0f a minute): %llu tasks, %llu runs, %llu frames, %llu "
            "cuts, %llu deaths of the broker, %llu writes, %.0f s of virtual time; %llu broken\n",
            (unsigned long long)command->sum.runs, took, (double)command->sum.runs / took * 60,
            (unsigned long long)command->sum.tasks, (unsigned long long)command->sum.executions,
            (unsigned long long)command->sum.frames, (unsigned long long)command->sum.cuts,
            (unsigned long long)command->sum.deaths, (unsigned long long)command->sum.writes,
            (double)command->sum.virtual_us / 1e6, (unsigned long long)broken);
    if (!command->is_expecting)
        return broken ? 1 : 0;
    if (broken)
        return 0;
    printf("the cheat '%s' was not found\n", sel_cheat_name(command->options.cheat));
    return 1;
}

int main(int argc, char **argv)
{
    struct command command = {.self = argv[0], .first = 1, .last = 1};
    int option;
    while ((option = getopt_long(argc, argv, "", table, NULL)) >= 0) {
        if (option == OPT_LIST || option == OPT_HELP) {
            if (option == OPT_LIST)
                list();
            else
                fputs(help, stdout);
            return 0;
        }
        if (take_option(&command, option, optarg) < 0)
            return 2;
    }
    if (optind < argc) {
        fprintf(stderr, "selinon-sim: '%s' is not an option; see --help\n", argv[optind]);
        return 2;
    }
    const struct sigaction action = {.sa_handler = on_abort, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* nothing is lost if it is killed */
    int status = 0;
    double begun = seconds();
    uint64_t broken = command.seed_file ? run_file(&command, &status) : run_seeds(&command, begun);
    return status ? status : finish(&command, broken, seconds() - begun);
}
