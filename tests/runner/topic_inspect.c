/* What `selinon-cli inspect` prints, and how each option was understood. The program is run as a
 * person would run it; the tables come from the compiler itself. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/buf.h"
#include "tests/runner/config_case.h"

#define ARGS_MAX 32
#define OUTPUT_SIZE_MAX ((size_t)16 << 20)

struct topic {
    const char *program; /* selinon-cli, beside this program */
    struct sel_runner_report *report;
};

struct run_result {
    struct sel_buf out;
    int status; /* exit status, or -1 if it was ended otherwise */
    int err;    /* a file in memory with what it said besides; shown if the run is not as it must */
};

/* ---- running the program ---- */

/* In the child, until it becomes the program: nothing here may fail silently. */
static _Noreturn void child(const struct topic *topic, const struct sel_runner_config *config,
                            char *const argv[], int out, int err)
{
    bool is_ready = chdir(config->dir) == 0 && dup2(out, STDOUT_FILENO) >= 0 &&
                    dup2(err, STDERR_FILENO) >= 0 && clearenv() == 0;
    for (uint32_t i = 0; i < config->env.count && is_ready; i++)
        is_ready = setenv(config->env.names[2 * i], config->env.names[2 * i + 1], 1) == 0;
    if (is_ready)
        execv(topic->program, argv);
    perror(topic->program);
    _exit(126);
}

static int read_to_end(int fd, struct sel_buf *buf)
{
    for (;;) {
        if (!sel_buf_reserve(buf, 4096) || buf->n > OUTPUT_SIZE_MAX)
            return SEL_ELIMIT;
        ssize_t n = read(fd, buf->p + buf->n, 4096);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        buf->n += n > 0 ? (size_t)n : 0;
    }
}

static int run_program(const struct topic *topic, const struct sel_runner_config *config,
                       char *const argv[], struct run_result *ret)
{
    int pipe_fds[2];
    ret->err = memfd_create("err", MFD_CLOEXEC);
    if (ret->err < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    fflush(NULL); /* what waits in our buffers must not be written twice */
    pid_t pid = fork();
    if (pid == 0)
        child(topic, config, argv, pipe_fds[1], ret->err);
    int r = pid < 0 ? -errno : 0;
    (void)close(pipe_fds[1]);
    if (r == 0)
        r = read_to_end(pipe_fds[0], &ret->out);
    (void)close(pipe_fds[0]);
    int status = 0;
    if (pid > 0 && waitpid(pid, &status, 0) < 0)
        r = -errno;
    ret->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return r;
}

/* What the program said to standard error, on ours. */
static void show_err(int err)
{
    char text[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(err, text, sizeof(text), at)) > 0; at += n)
        (void)fwrite(text, 1, (size_t)n, stderr);
}

/* ---- comparing what it printed ---- */

/* On one line, however many it has. */
static const char *quoted(struct sel_arena *arena, struct sel_str text)
{
    struct sel_value v = sel_value_from_str(text);
    return sel_runner_json(arena, &v);
}

static bool build_args(struct sel_arena *arena, const struct sel_value *options,
                       char *argv[ARGS_MAX + 1])
{
    static const char *const start[] = {"selinon-cli", "inspect", "-n",
                                        "nodes.yaml",  "-f",      "flows.yaml"};
    uint32_t n = 0, count = sel_value_count(options);
    if (count > ARGS_MAX - SEL_COUNT(start))
        return false;
    for (size_t i = 0; i < SEL_COUNT(start); i++)
        argv[n++] = sel_arena_strdup(arena, sel_str_c(start[i]));
    for (uint32_t i = 0; i < count; i++)
        argv[n++] = sel_arena_strdup(arena, sel_value_str(sel_value_at(options, i)));
    for (uint32_t i = 0; i < n; i++) {
        if (!argv[i])
            return false;
    }
    argv[n] = NULL;
    return true;
}

/* Whether the run went as it must; says so if not. */
static bool check_run(const struct topic *topic, struct sel_runner_config *config, const char *name,
                      const struct sel_value *run)
{
    const struct sel_value *options = sel_value_get_c(run, "options");
    const char *shown = sel_runner_json(&config->arena, options);
    struct sel_str want = sel_value_str(sel_value_get_c(run, "stdout"));
    int64_t want_status = -1;
    (void)sel_value_i64(sel_value_get_c(run, "exit_status"), &want_status);
    char *argv[ARGS_MAX + 1];
    struct run_result result = {.err = -1};
    int r = build_args(&config->arena, options, argv) ? run_program(topic, config, argv, &result)
                                                      : SEL_ELIMIT;
    struct sel_str got = sel_buf_str(&result.out);
    bool is_good = false;
    if (r < 0)
        sel_runner_fail(topic->report, name, "options %s: %s", shown, sel_error_text(r));
    else if (result.status != want_status)
        sel_runner_fail(topic->report, name, "options %s: exit status %d instead of %d", shown,
                        result.status, (int)want_status);
    else if (!sel_str_eq(got, want))
        sel_runner_fail(topic->report, name, "options %s: printed %s instead of %s", shown,
                        quoted(&config->arena, got), quoted(&config->arena, want));
    else
        is_good = true;
    if (!is_good)
        show_err(result.err);
    if (result.err >= 0)
        (void)close(result.err);
    sel_buf_done(&result.out);
    return is_good;
}

/* ---- comparing tables ---- */

/* The entries of a failure tree that carry a fallback, as a list of [names, entry] with the names
 * sorted; a set of names that several paths lead to is there once. The depth is that of the tree,
 * which a JSON file bounds. */
struct flattening {
    struct sel_arena *arena;
    struct sel_value_builder list;
    struct sel_str path[SEL_VALUE_DEPTH_MAX];
    const char **seen; /* JSON texts of the entries that are in the list */
    uint32_t seen_count, seen_cap;
};

static int by_text(const void *a, const void *b)
{
    return sel_str_cmp(*(const struct sel_str *)a, *(const struct sel_str *)b);
}

static bool add_entry(struct flattening *f, uint32_t depth, const struct sel_value *entry)
{
    struct sel_str *names = sel_arena_memdup(f->arena, f->path, depth * sizeof(*names));
    if (!names)
        return false;
    qsort(names, depth, sizeof(*names), by_text);
    struct sel_value_builder b;
    sel_value_begin_list(&b, f->arena);
    for (uint32_t i = 0; i < depth; i++)
        sel_value_add(&b, sel_value_from_str(names[i]));
    static const char *const keys[] = {"fallback", "propagate_failure", "condition_strs"};
    for (size_t i = 0; i < SEL_COUNT(keys); i++) {
        const struct sel_value *v = sel_value_get_c(entry, keys[i]);
        sel_value_add(&b, v ? *v : sel_value_null);
    }
    struct sel_value item;
    if (sel_value_end(&b, &item) < 0)
        return false;
    const char *text = sel_runner_json(f->arena, &item);
    for (uint32_t i = 0; i < f->seen_count; i++) {
        if (strcmp(f->seen[i], text) == 0)
            return true;
    }
    if (f->seen_count == f->seen_cap) {
        uint32_t cap = f->seen_cap ? 2 * f->seen_cap : 64;
        const char **seen = SEL_ARENA_NEW_ARRAY(f->arena, const char *, cap);
        if (!seen)
            return false;
        if (f->seen_count)
            memcpy(seen, f->seen, f->seen_count * sizeof(*seen));
        f->seen = seen;
        f->seen_cap = cap;
    }
    f->seen[f->seen_count++] = text;
    sel_value_add(&f->list, item);
    return true;
}

static bool flatten(struct flattening *f, const struct sel_value *tree, uint32_t depth)
{
    uint32_t count = sel_value_is(tree, SEL_MAP) ? sel_value_count(tree) : 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct sel_value *entry = sel_value_val_at(tree, i);
        const struct sel_value *fallback = sel_value_get_c(entry, "fallback");
        if (depth + 1 >= SEL_COUNT(f->path))
            return false;
        f->path[depth] = sel_value_str(sel_value_key_at(tree, i));
        if (fallback && sel_value_count(fallback) > 0 && !add_entry(f, depth + 1, entry))
            return false;
        if (!flatten(f, sel_value_get_c(entry, "next"), depth + 1))
            return false;
    }
    return true;
}

static const struct sel_value *flat(struct sel_arena *arena, const struct sel_value *tree)
{
    struct flattening *f = SEL_ARENA_NEW(arena, struct flattening);
    struct sel_value *ret = SEL_ARENA_NEW(arena, struct sel_value);
    if (!f || !ret)
        return NULL;
    f->arena = arena;
    sel_value_begin_list(&f->list, arena);
    return flatten(f, tree, 0) && sel_value_end(&f->list, ret) == 0 ? ret : NULL;
}

/* NULL: the same fallbacks for the same sets of failed nodes, whatever the paths. */
static const char *diff_failures(struct sel_arena *arena, const struct sel_value *expected,
                                 const struct sel_value *actual)
{
    if (sel_value_count(expected) != sel_value_count(actual))
        return "not the same flows";
    for (uint32_t i = 0; i < sel_value_count(expected); i++) {
        struct sel_str flow = sel_value_str(sel_value_key_at(expected, i));
        const struct sel_value *mine = sel_value_get(actual, flow);
        if (!mine)
            return sel_arena_printf(arena, "flow '%.*s' is missing", SEL_STR_ARG(flow));
        const struct sel_value *a = flat(arena, sel_value_val_at(expected, i)),
                               *b = flat(arena, mine);
        const char *difference = a && b ? sel_runner_diff_multiset(arena, a, b) : "out of memory";
        if (difference)
            return difference;
    }
    return NULL;
}

/* Each table of the original is compared; the dump may hold more. */
static bool check_tables(const struct topic *topic, struct sel_runner_config *config,
                         const char *name)
{
    const struct sel_value *expected = sel_value_get_c(&config->expected, "tables");
    struct sel_value actual;
    if (!config->system || sel_system_dump(&config->arena, config->system, &actual) < 0) {
        sel_runner_fail(topic->report, name, "the configuration cannot be dumped");
        return false;
    }
    bool is_good = true;
    for (uint32_t i = 0; i < sel_value_count(expected); i++) {
        struct sel_str table = sel_value_str(sel_value_key_at(expected, i));
        const struct sel_value *mine = sel_value_get(&actual, table);
        const struct sel_value *theirs = sel_value_val_at(expected, i);
        const char *difference = "is missing";
        if (mine && sel_str_eq_c(table, "failures"))
            difference = diff_failures(&config->arena, theirs, mine);
        else if (mine)
            difference = sel_runner_diff(&config->arena, theirs, mine);
        if (difference) {
            sel_runner_fail(topic->report, name, "table %.*s: %s", SEL_STR_ARG(table), difference);
            is_good = false;
        }
    }
    return is_good;
}

/* ---- cases ---- */

static void run_case(const struct topic *topic, const char *dir, const char *name)
{
    struct sel_runner_config config;
    struct sel_error err = {0};
    if (sel_runner_config_load(&config, dir, name, &err) < 0) {
        char text[SEL_ERROR_TEXT_MAX + 512];
        sel_runner_fail(topic->report, name, "%s", sel_error_format(&err, text, sizeof(text)));
    } else {
        const struct sel_value *runs = sel_value_get_c(&config.expected, "runs");
        bool is_good = check_tables(topic, &config, name);
        for (uint32_t i = 0; i < sel_value_count(runs); i++)
            is_good = check_run(topic, &config, name, sel_value_at(runs, i)) && is_good;
        if (is_good)
            sel_runner_pass(topic->report);
    }
    sel_runner_config_done(&config);
}

/* The path of selinon-cli in the folder that holds this program. */
static int find_program(char *out, size_t size, struct sel_error *err)
{
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n < 0)
        return sel_error_set(err, -errno, (struct sel_pos){"/proc/self/exe", 0, 0}, "%s",
                             sel_error_text(-errno));
    out[n] = '\0';
    char *name = strrchr(out, '/') + 1;
    int written = snprintf(name, size - (size_t)(name - out), "selinon-cli");
    if (written < 0 || (size_t)written >= size - (size_t)(name - out) || access(out, X_OK) < 0)
        return sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){out, 0, 0},
                             "selinon-cli must lie beside this program");
    return 0;
}

int sel_topic_inspect(const char *dir, const struct sel_runner_options *options,
                      struct sel_runner_report *report, struct sel_error *err)
{
    (void)options;
    char program[PATH_MAX];
    int r = find_program(program, sizeof(program), err);
    if (r < 0)
        return r;
    struct topic topic = {program, report};
    struct sel_arena arena = {0};
    const char *const *names = NULL;
    uint32_t count = 0;
    r = sel_runner_list_dirs(&arena, dir, &names, &count, err);
    for (uint32_t i = 0; i < count; i++)
        run_case(&topic, dir, names[i]);
    if (r == 0 && count == 0)
        r = sel_error_set(err, SEL_ENOTFOUND, (struct sel_pos){dir, 0, 0}, "holds no case");
    sel_arena_done(&arena);
    return r;
}
