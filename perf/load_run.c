#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/load.h"

#define CHUNK 256
#define ARGS_MORE 64 /* what arguments may have more than their bytes */
#define ARGS_MAX (SEL_LOAD_BYTES_MAX + ARGS_MORE)
#define FULL_WAIT_US 1000 /* until submitting is tried again where nothing ends meanwhile */

/* What a task is known by: phase, kind, and when it was due. */
#define DUE_BITS 51
#define KIND_BITS 4
_Static_assert(SEL_LOAD_KINDS_MAX == 1 << KIND_BITS, "a kind fits its bits");
_Static_assert(SEL_LOAD_PHASES_MAX == 1 << (64 - DUE_BITS - KIND_BITS), "a phase fits its bits");

struct load {
    struct sel_load_run *run;
    struct sel_load_port *port;
    struct sel_prng prng;
    int64_t begin_us;
    uint32_t phase;        /* of the next task; phase_count: no more */
    double phase_begin_us; /* since begin_us, as all of these */
    double due_us;         /* of the next task */
    uint32_t kind, bytes;  /* of the next task */
    /* Drawn and not submitted. */
    struct sel_load_task tasks[CHUNK];
    uint32_t task_count;
    uint8_t *args; /* of them; ARGS_MAX */
    size_t args_n;
    uint64_t *left; /* tasks of each phase that have not ended */
    uint32_t reported;
};

int64_t sel_load_now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static double unit_random(struct sel_prng *prng)
{
    return ((double)(sel_prng_next(prng) >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
}

static uint64_t between(struct sel_prng *prng, uint64_t min, uint64_t max)
{
    return min + (max > min ? sel_prng_below(prng, max - min + 1) : 0);
}

/* ---- tasks ---- */

static struct sel_load_tally *tally_of(const struct load *load, uint64_t tag)
{
    uint64_t phase = tag >> (DUE_BITS + KIND_BITS);
    uint64_t kind = tag >> DUE_BITS & (SEL_LOAD_KINDS_MAX - 1);
    return &load->run->tallies[phase * load->run->plan->kind_count + kind];
}

static int64_t due_of(const struct load *load, uint64_t tag)
{
    return load->begin_us + (int64_t)(tag & ((UINT64_C(1) << DUE_BITS) - 1));
}

static uint32_t pick_kind(struct load *load)
{
    const struct sel_load_plan *plan = load->run->plan;
    double sum = 0, at;
    if (plan->phases[load->phase].kind >= 0)
        return (uint32_t)plan->phases[load->phase].kind;
    for (uint32_t i = 0; i < plan->kind_count; i++)
        sum += plan->kinds[i].weight;
    at = unit_random(&load->prng) * sum;
    for (uint32_t i = 0; i + 1 < plan->kind_count; i++) {
        at -= plan->kinds[i].weight;
        if (at < 0)
            return i;
    }
    return plan->kind_count - 1;
}

static uint8_t *put_be(uint8_t *p, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = bytes; i-- > 0; value >>= 8)
        p[i] = (uint8_t)value;
    return p + bytes;
}

/* A msgpack bin that takes `size` bytes with its head, at least 2. What lies there is its content.
 */
static uint8_t *put_bin(uint8_t *p, uint32_t size)
{
    uint32_t head = size < 2 + 256 ? 2 : size < 3 + 65536 ? 3 : 5;
    uint32_t content = size > head ? size - head : 0;
    *p++ = (uint8_t)(head == 2 ? 0xc4 : head == 3 ? 0xc5 : 0xc6);
    return put_be(p, content, head - 1) + content;
}

/* Arguments of about `bytes`: nothing, one byte, a bin; those that sleep: {us, data}. */
static struct sel_str put_args(struct load *load, const struct sel_load_kind *kind, uint32_t bytes)
{
    uint8_t *begin = load->args + load->args_n, *p = begin;
    if (kind->work_us_max > 0) {
        static const char head[] = "\x82\xa2us\xd3";
        uint64_t work_us =
            between(&load->prng, (uint64_t)kind->work_us_min, (uint64_t)kind->work_us_max);
        memcpy(p, head, sizeof(head) - 1);
        p = put_be(p + sizeof(head) - 1, work_us, 8);
        memcpy(p,
               "\xa4"
               "data",
               5);
        p = put_bin(p + 5, bytes);
    } else if (bytes == 1) {
        *p++ = 1;
    } else if (bytes > 1) {
        p = put_bin(p, bytes);
    }
    load->args_n += (size_t)(p - begin);
    return (struct sel_str){(const char *)begin, (size_t)(p - begin)};
}

/* Draws what the next task is. */
static void pick(struct load *load)
{
    if (load->phase == load->run->plan->phase_count)
        return;
    load->kind = pick_kind(load);
    const struct sel_load_kind *kind = &load->run->plan->kinds[load->kind];
    load->bytes = (uint32_t)between(&load->prng, kind->bytes_min, kind->bytes_max);
}

/* Moves on to the next task: when it is due, and in which phase. */
static void advance(struct load *load)
{
    const struct sel_load_plan *plan = load->run->plan;
    double gap_us = 1e6 / plan->phases[load->phase].rate;
    if (load->run->options->arrivals == SEL_LOAD_POISSON)
        gap_us *= -log(unit_random(&load->prng));
    load->due_us += gap_us;
    while (load->phase < plan->phase_count) {
        double end_us = load->phase_begin_us + (double)plan->phases[load->phase].duration_us;
        if (load->due_us < end_us)
            break;
        load->phase_begin_us = load->due_us = end_us; /* each phase begins with a task */
        load->phase++;
    }
    pick(load);
}

/* Makes the tasks that are due by now, as many as there is room for. */
static void draw(struct load *load, int64_t now_us)
{
    const struct sel_load_plan *plan = load->run->plan;
    if (load->task_count == 0)
        load->args_n = 0;
    while (load->task_count < CHUNK && load->phase < plan->phase_count &&
           load->begin_us + (int64_t)load->due_us <= now_us &&
           load->args_n + load->bytes + ARGS_MORE <= ARGS_MAX) {
        const struct sel_load_kind *kind = &plan->kinds[load->kind];
        uint64_t tag = (uint64_t)load->phase << (DUE_BITS + KIND_BITS) |
                       (uint64_t)load->kind << DUE_BITS | (uint64_t)load->due_us;
        load->tasks[load->task_count++] = (struct sel_load_task){
            .kind = kind, .args = put_args(load, kind, load->bytes), .tag = tag};
        tally_of(load, tag)->due++;
        load->left[load->phase]++;
        advance(load);
    }
}

static int submit(struct load *load)
{
    int64_t n = load->task_count;
    if (n > 0)
        n = load->port->submit(load->port, load->tasks, load->task_count);
    if (n <= 0)
        return (int)n;
    int64_t now_us = sel_load_now_us();
    for (int64_t i = 0; i < n; i++) {
        struct sel_load_tally *tally = tally_of(load, load->tasks[i].tag);
        tally->submitted++;
        sel_histogram_add(&tally->late_us, now_us - due_of(load, load->tasks[i].tag));
    }
    load->task_count -= (uint32_t)n;
    memmove(load->tasks, load->tasks + n, load->task_count * sizeof(load->tasks[0]));
    return 0;
}

static void on_end(void *ctx, uint64_t tag, enum sel_load_end how)
{
    struct load *load = ctx;
    struct sel_load_tally *tally = tally_of(load, tag);
    load->left[tag >> (DUE_BITS + KIND_BITS)]--;
    tally->finished += how == SEL_LOAD_FINISHED;
    tally->failed += how == SEL_LOAD_FAILED;
    tally->refused += how == SEL_LOAD_REFUSED;
    int64_t now_us = sel_load_now_us();
    sel_histogram_add(&tally->latency_us, now_us - due_of(load, tag));
    tally->last_us = now_us - load->begin_us;
}

/* ---- the loop ---- */

static void report_ended(struct load *load, void (*ended)(struct sel_load_run *, uint32_t),
                         bool is_over)
{
    while (load->reported < load->run->plan->phase_count &&
           (is_over || (load->reported < load->phase && load->left[load->reported] == 0)))
        ended(load->run, load->reported++);
}

static int loop(struct load *load, void (*ended)(struct sel_load_run *, uint32_t))
{
    const struct sel_load_run *run = load->run;
    int64_t end_us = INT64_MAX; /* when waiting for results ends */
    for (;;) {
        int64_t now_us = sel_load_now_us();
        draw(load, now_us);
        int r = submit(load);
        if (r < 0)
            return r;
        bool is_drawn = load->phase == run->plan->phase_count && load->task_count == 0;
        if (is_drawn && end_us == INT64_MAX)
            end_us = now_us + run->options->drain_us;
        report_ended(load, ended, false);
        if (is_drawn && (load->reported == run->plan->phase_count || now_us >= end_us))
            return 0;
        int64_t wake_us = load->begin_us + (int64_t)load->due_us;
        if (load->task_count > 0)
            wake_us = now_us + FULL_WAIT_US;
        else if (is_drawn)
            wake_us = end_us;
        r = load->port->receive(load->port, wake_us, on_end, load);
        if (r < 0)
            return r;
    }
}

static void note_lost(const struct load *load)
{
    const struct sel_load_run *run = load->run;
    for (uint32_t i = 0; i < run->plan->phase_count * run->plan->kind_count; i++) {
        struct sel_load_tally *tally = &run->tallies[i];
        tally->lost = tally->due - tally->finished - tally->failed - tally->refused;
    }
}

int sel_load_run(struct sel_load_run *run, void (*ended)(struct sel_load_run *, uint32_t))
{
    struct load *load = SEL_NEW(struct load);
    int r = load ? 0 : SEL_ENOMEM;
    if (r == 0) {
        load->run = run;
        load->prng.state = run->options->seed;
        load->args = sel_mem_zalloc(ARGS_MAX);
        load->left = sel_mem_zalloc(run->plan->phase_count * sizeof(*load->left));
        r = load->args && load->left ? 0 : SEL_ENOMEM;
    }
    if (r == 0)
        r = (run->options->producers > 1 ? sel_load_open_many : sel_load_open_client)(run->options,
                                                                                      &load->port);
    if (r == 0) {
        pick(load);
        load->begin_us = sel_load_now_us();
        r = loop(load, ended);
        run->took_us = sel_load_now_us() - load->begin_us;
        note_lost(load);
        report_ended(load, ended, true);
        load->port->close(load->port);
    }
    if (r < 0)
        fprintf(stderr, "selinon-load: %s\n", sel_error_text(r));
    if (load) {
        (void)sel_mem_free(load->args);
        (void)sel_mem_free(load->left);
    }
    (void)sel_mem_free(load);
    return r;
}
