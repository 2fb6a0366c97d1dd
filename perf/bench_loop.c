/* The event loop: what a switch costs, how many can sleep, how fast files are read. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/bench.h"
#include "worker/co.h"
#include "worker/loop.h"

#define SWITCHES 4000000u /* both directions counted */
#define SPAWNS 1000000u
#define SLEEPERS 10000u
#define SLEEP_US 100000
#define FILES 10000u
#define FILE_SIZE 4096u
#define PATH_SIZE 64u

/* ---- switching ---- */

static void suspend_for_ever(void *arg)
{
    const bool *stop = arg;
    while (!*stop)
        sel_co_suspend();
}

static int measure_switch(void *arg, double *ret)
{
    struct sel_co_pool *pool = arg;
    struct sel_co *co;
    bool stop = false;
    int r = sel_co_new(pool, suspend_for_ever, &stop, &co);
    if (r < 0)
        return r;
    r = sel_co_prepare(co);
    SEL_ASSERT(r == 0); /* the pool is empty and has stacks from the start */
    (void)sel_co_resume(co);
    int64_t begin_ns = sel_bench_now_ns();
    for (uint32_t i = 0; i < SWITCHES / 2; i++)
        (void)sel_co_resume(co);
    *ret = (double)(sel_bench_now_ns() - begin_ns) / SWITCHES;
    stop = true;
    (void)sel_co_resume(co);
    return 0;
}

#ifdef SEL_HAVE_FCONTEXT
/* boost.context has no C header; these are its two functions with C linkage. */
struct transfer {
    void *context, *data;
};
struct transfer jump_fcontext(void *to, void *data);
void *make_fcontext(void *stack_top, size_t size, void (*fn)(struct transfer));

static void jump_back_for_ever(struct transfer from)
{
    for (;;)
        from = jump_fcontext(from.context, NULL);
}

static int measure_fcontext(void *arg, double *ret)
{
    (void)arg;
    void *stack =
        mmap(NULL, SEL_CO_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    struct transfer to = {
        make_fcontext((char *)stack + SEL_CO_STACK_SIZE, SEL_CO_STACK_SIZE, jump_back_for_ever),
        NULL};
    to = jump_fcontext(to.context, NULL);
    int64_t begin_ns = sel_bench_now_ns();
    for (uint32_t i = 0; i < SWITCHES / 2; i++)
        to = jump_fcontext(to.context, NULL);
    *ret = (double)(sel_bench_now_ns() - begin_ns) / SWITCHES;
    (void)munmap(stack, SEL_CO_STACK_SIZE);
    return 0;
}
#else
static int measure_fcontext(void *arg, double *ret)
{
    (void)arg;
    *ret = NAN;
    return 0;
}
#endif

static void end_at_once(void *arg)
{
    (void)arg;
}

static int measure_spawn(void *arg, double *ret)
{
    struct sel_co_pool *pool = arg;
    int64_t begin_ns = sel_bench_now_ns();
    for (uint32_t i = 0; i < SPAWNS; i++) {
        struct sel_co *co;
        int r = sel_co_new(pool, end_at_once, NULL, &co);
        if (r == 0)
            r = sel_co_prepare(co);
        if (r < 0)
            return r;
        (void)sel_co_resume(co);
    }
    *ret = (double)(sel_bench_now_ns() - begin_ns) / SPAWNS;
    return 0;
}

int sel_bench_switch(struct sel_bench_run *run)
{
    struct sel_co_pool *pool = sel_co_pool_new(SEL_CO_STACKS_MAX);
    if (!pool)
        return SEL_ENOMEM;
    struct sel_bench_probe probes[] = {{.fn = measure_switch, .arg = pool},
                                       {.fn = measure_fcontext},
                                       {.fn = measure_spawn, .arg = pool}};
    int r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    (void)sel_co_pool_free(pool);
    if (r < 0)
        return r;
    double theirs = probes[1].median;
    const char *why = isnan(theirs) ? "built without libboost-context-dev" : NULL;
    const struct sel_bench_metric metrics[] = {
        {"switch_ratio", sel_bench_ratio(run, &probes[0], &probes[1]), "", SEL_BENCH_AT_MOST, 1.5,
         why},
        {"switch_ns", probes[0].median, "ns", SEL_BENCH_NO_TARGET, 0, NULL},
        {"fcontext_switch_ns", theirs, "ns", SEL_BENCH_NO_TARGET, 0, why},
        {"spawn_ns", probes[2].median, "ns", SEL_BENCH_AT_MOST, 100, "new, run to the end, free"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}

/* ---- sleeping ---- */

struct sleepers {
    struct sel_loop *loop;
    uint32_t left;
};

static void sleep_once(void *arg)
{
    struct sleepers *sleepers = arg;
    int r = sel_co_sleep(SLEEP_US);
    SEL_ASSERT(r == 0); /* nobody cancels */
    if (--sleepers->left == 0)
        sel_loop_stop(sleepers->loop);
}

static int measure_sleep(void *arg, double *ret)
{
    (void)arg;
    struct sleepers sleepers = {NULL, SLEEPERS};
    int64_t begin_ns = sel_bench_now_ns();
    int r = sel_loop_new(&(struct sel_loop_options){0}, &sleepers.loop, NULL);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < SLEEPERS; i++) {
        r = sel_loop_spawn(sleepers.loop, sleep_once, &sleepers, NULL);
        SEL_ASSERT(r == 0); /* half-started we could not go back */
    }
    sel_loop_run(sleepers.loop);
    *ret = (double)(sel_bench_now_ns() - begin_ns) / 1e6;
    (void)sel_loop_free(sleepers.loop);
    return 0;
}

int sel_bench_sleep(struct sel_bench_run *run)
{
    struct sel_bench_probe probe = {.fn = measure_sleep};
    int r = sel_bench_measure(run, &probe, 1);
    if (r < 0)
        return r;
    sel_bench_report(run, &(struct sel_bench_metric){"sleep_10000_ms", probe.median, "ms",
                                                     SEL_BENCH_AT_MOST, 200,
                                                     "with the start of the loop"});
    return 0;
}

/* ---- files ---- */

struct files {
    char folder[PATH_SIZE - 16];
    char (*paths)[PATH_SIZE];
};

static int make_file(const char *path)
{
    char text[FILE_SIZE];
    memset(text, 'x', sizeof(text));
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | O_EXCL, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, sizeof(text));
    int r = n < 0 ? -errno : n != (ssize_t)sizeof(text) ? -ENOSPC : 0;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}

static void files_done(struct files *files)
{
    for (uint32_t i = 0; files->paths && i < FILES; i++)
        if (files->paths[i][0])
            (void)unlink(files->paths[i]); /* in a temporary folder: what stays is no harm */
    if (files->folder[0])
        (void)rmdir(files->folder);
    files->paths = sel_mem_free(files->paths);
}

static int files_init(struct files *files)
{
    *files = (struct files){0};
    files->paths = sel_mem_zalloc(FILES * sizeof(*files->paths));
    if (!files->paths)
        return SEL_ENOMEM;
    const char *base = getenv("TMPDIR");
    int n = snprintf(files->folder, sizeof(files->folder), "%s/selinon-bench-XXXXXX",
                     base && strlen(base) < 20 ? base : "/tmp");
    SEL_ASSERT(n > 0 && (size_t)n < sizeof(files->folder));
    if (!mkdtemp(files->folder)) {
        files->folder[0] = '\0';
        return -errno;
    }
    for (uint32_t i = 0; i < FILES; i++) {
        (void)snprintf(files->paths[i], PATH_SIZE, "%s/%05u", files->folder, i);
        int r = make_file(files->paths[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_plainly(void *arg, double *ret)
{
    struct files *files = arg;
    char text[FILE_SIZE];
    int64_t begin_ns = sel_bench_now_ns();
    for (uint32_t i = 0; i < FILES; i++) {
        int fd = open(files->paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        ssize_t n = read(fd, text, sizeof(text));
        (void)close(fd); /* only read from */
        if (n != (ssize_t)sizeof(text))
            return n < 0 ? -errno : -EIO;
    }
    *ret = FILES / ((double)(sel_bench_now_ns() - begin_ns) / 1e9);
    return 0;
}

struct readers {
    struct files *files;
    struct sel_loop *loop;
    uint32_t next, left;
    int error;
};

static void read_one(struct readers *readers)
{
    char text[FILE_SIZE];
    ssize_t n = sel_co_read_file(readers->files->paths[readers->next++], text, sizeof(text));
    if (n != (ssize_t)sizeof(text))
        readers->error = n < 0 ? (int)n : -EIO;
    if (--readers->left == 0)
        sel_loop_stop(readers->loop);
}

static void read_one_each(void *arg)
{
    read_one(arg);
}

static void read_all_alone(void *arg)
{
    struct readers *readers = arg;
    for (uint32_t i = 0; i < FILES; i++)
        read_one(readers);
}

/* Files a second of `coroutines` that share the files; the start of the loop is included. */
static int read_by_coroutines(struct files *files, uint32_t coroutines, sel_co_fn fn, double *ret)
{
    struct readers readers = {.files = files, .left = FILES};
    int64_t begin_ns = sel_bench_now_ns();
    int r = sel_loop_new(&(struct sel_loop_options){0}, &readers.loop, NULL);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < coroutines; i++) {
        r = sel_loop_spawn(readers.loop, fn, &readers, NULL);
        SEL_ASSERT(r == 0); /* half-started we could not go back */
    }
    sel_loop_run(readers.loop);
    *ret = FILES / ((double)(sel_bench_now_ns() - begin_ns) / 1e9);
    (void)sel_loop_free(readers.loop);
    return readers.error;
}

static int read_batched(void *arg, double *ret)
{
    return read_by_coroutines(arg, FILES, read_one_each, ret);
}

static int read_unbatched(void *arg, double *ret)
{
    return read_by_coroutines(arg, 1, read_all_alone, ret);
}

static int measure_files(struct sel_bench_run *run, struct files *files)
{
    double warm;
    struct sel_bench_probe probes[] = {{.fn = read_batched, .arg = files},
                                       {.fn = read_plainly, .arg = files},
                                       {.fn = read_unbatched, .arg = files}};
    int r = read_plainly(files, &warm);
    if (r == 0)
        r = sel_bench_measure(run, probes, SEL_COUNT(probes));
    if (r < 0)
        return r;
    const struct sel_bench_metric metrics[] = {
        {"io_files_per_s_ratio", sel_bench_ratio(run, &probes[0], &probes[1]), "",
         SEL_BENCH_AT_LEAST, 0.5,
         "a coroutine a file, with the start of the loop, to a plain loop"},
        {"io_uring_files_per_s", probes[0].median, "/s", SEL_BENCH_NO_TARGET, 0, NULL},
        {"plain_files_per_s", probes[1].median, "/s", SEL_BENCH_NO_TARGET, 0, NULL},
        {"io_uring_unbatched_files_per_s", probes[2].median, "/s", SEL_BENCH_NO_TARGET, 0,
         "one coroutine, file after file: the difference is what batching gains"},
    };
    for (size_t i = 0; i < SEL_COUNT(metrics); i++)
        sel_bench_report(run, &metrics[i]);
    return 0;
}

int sel_bench_files(struct sel_bench_run *run)
{
    struct files files;
    int r = files_init(&files);
    if (r == 0)
        r = measure_files(run, &files);
    files_done(&files);
    return r;
}
