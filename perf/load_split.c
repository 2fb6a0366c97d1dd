#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "perf/load.h"

#define PRODUCERS_MAX 4000 /* a process: two descriptors each, below the 10,000 of many systems */
#define PROCESSES_MAX 32

uint32_t sel_load_processes(uint32_t producers)
{
    return (producers + PRODUCERS_MAX - 1) / PRODUCERS_MAX;
}

static void keep_quiet(struct sel_load_run *run, uint32_t phase)
{
    (void)run;
    (void)phase;
}

/* In a child: its share of the load, counted into `tallies`. */
static int run_share(const struct sel_load_run *whole, uint32_t index, uint32_t count,
                     struct sel_load_tally *tallies)
{
    struct sel_load_options options = *whole->options;
    static struct sel_load_plan plan; /* too large for a stack; a child has it for itself */
    plan = *whole->plan;
    options.producers =
        whole->options->producers / count + (index < whole->options->producers % count ? 1 : 0);
    options.seed += index;
    for (uint32_t i = 0; i < plan.phase_count; i++)
        plan.phases[i].rate /= count;
    struct sel_load_run run = {.options = &options, .plan = &plan, .tallies = tallies};
    return sel_load_run(&run, keep_quiet);
}

static void merge(struct sel_load_tally *into, const struct sel_load_tally *from)
{
    into->due += from->due;
    into->submitted += from->submitted;
    into->finished += from->finished;
    into->failed += from->failed;
    into->refused += from->refused;
    into->lost += from->lost;
    into->last_us = into->last_us > from->last_us ? into->last_us : from->last_us;
    sel_histogram_merge(&into->latency_us, &from->latency_us);
    sel_histogram_merge(&into->late_us, &from->late_us);
}

static int wait_for(const pid_t *pids, uint32_t count)
{
    int r = 0;
    for (uint32_t i = 0; i < count; i++) {
        int status = 1;
        if (pids[i] < 0 || waitpid(pids[i], &status, 0) < 0 || status != 0)
            r = SEL_EFAILED;
    }
    return r;
}

int sel_load_run_split(struct sel_load_run *run)
{
    uint32_t count = sel_load_processes(run->options->producers);
    size_t tallies = (size_t)run->plan->phase_count * run->plan->kind_count;
    size_t size = count * tallies * sizeof(*run->tallies);
    pid_t pids[PROCESSES_MAX], parent = getpid();
    SEL_ASSERT(count <= PROCESSES_MAX);
    struct sel_load_tally *all =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return -errno;
    int64_t begin_us = sel_load_now_us();
    (void)fflush(stdout); /* or each child has what is in it */
    for (uint32_t i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] != 0)
            continue;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent && run_share(run, i, count, all + i * tallies) == 0 ? 0 : 1);
    }
    int r = wait_for(pids, count);
    run->took_us = sel_load_now_us() - begin_us;
    for (size_t i = 0; i < count * tallies; i++)
        merge(&run->tallies[i % tallies], &all[i]);
    (void)munmap(all, size);
    return r;
}
