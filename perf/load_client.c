#include <errno.h>
#include <selinon/client.h>
#include <stdio.h>
#include <time.h>

#include "core/error.h"
#include "core/mem.h"
#include "perf/load.h"

#define CHUNK 256
#define READY_US 10000000
#define CLOSE_US 5000000

struct client_port {
    struct sel_load_port port;
    struct sel_client *client;
    uint8_t level;
    struct sel_client_task tasks[CHUNK];
};

static int64_t submit(struct sel_load_port *port, const struct sel_load_task *tasks, uint32_t count)
{
    struct client_port *self = (struct client_port *)port;
    count = count < CHUNK ? count : CHUNK;
    for (uint32_t i = 0; i < count; i++) {
        const struct sel_load_kind *kind = tasks[i].kind;
        self->tasks[i] = (struct sel_client_task){
            .name = sel_str_c(kind->task),
            .args = {tasks[i].args.p, tasks[i].args.n},
            .queue = sel_str_c(kind->queue),
            .tag = tasks[i].tag,
            .priority = kind->priority,
            .level = self->level,
        };
    }
    int64_t n = sel_client_submit_many(self->client, self->tasks, count, NULL, 0);
    return n == -EAGAIN || n == -ETIMEDOUT ? 0 : n;
}

static enum sel_load_end end_of(const struct sel_client_result *result)
{
    switch (result->status) {
    case SEL_CLIENT_OK:
        return SEL_LOAD_FINISHED;
    case SEL_CLIENT_REFUSED:
        return SEL_LOAD_REFUSED;
    default:
        return SEL_LOAD_FAILED;
    }
}

static void sleep_until(int64_t wake_us)
{
    const struct timespec at = {.tv_sec = wake_us / 1000000, .tv_nsec = (wake_us % 1000000) * 1000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL); /* the caller looks again */
}

static int receive(struct sel_load_port *port, int64_t wake_us,
                   void (*ended)(void *ctx, uint64_t tag, enum sel_load_end how), void *ctx)
{
    struct client_port *self = (struct client_port *)port;
    struct sel_client_batch *batch = NULL;
    int64_t left_us = wake_us - sel_load_now_us();
    int64_t n = sel_client_next(self->client, &batch, left_us > 0 ? left_us : 0);
    if (n == -EAGAIN || n == -ETIMEDOUT)
        return 0;
    if (n == 0) /* nothing is under way */
        sleep_until(wake_us);
    for (uint32_t i = 0; n > 0 && i < batch->count; i++)
        ended(ctx, batch->results[i].tag, end_of(&batch->results[i]));
    sel_client_batch_free(batch);
    return n < 0 ? (int)n : 0;
}

static void close_port(struct sel_load_port *port)
{
    struct client_port *self = (struct client_port *)port;
    if (sel_client_close(self->client, CLOSE_US) < 0)
        fprintf(stderr, "selinon-load: not everything was settled at the end\n");
    (void)sel_mem_free(self);
}

int sel_load_open_client(const struct sel_load_options *options, struct sel_load_port **ret)
{
    char problem[SEL_CLIENT_ERROR_SIZE] = "";
    struct sel_client_options client = SEL_CLIENT_OPTIONS;
    struct client_port *self = SEL_NEW(struct client_port);
    if (!self)
        return SEL_ENOMEM;
    self->port = (struct sel_load_port){submit, receive, close_port};
    self->level = options->level;
    client.endpoints = options->brokers;
    client.endpoint_count = options->broker_count;
    client.name = "selinon-load";
    int r = sel_client_open(&client, &self->client, problem);
    if (r < 0) {
        fprintf(stderr, "selinon-load: %s\n", problem);
        (void)sel_mem_free(self);
        return r;
    }
    r = sel_client_ready(self->client, READY_US);
    if (r < 0) {
        fprintf(stderr, "selinon-load: no broker answers: %s %s\n", sel_client_error_text(r),
                sel_client_problem(self->client, problem, sizeof(problem)));
        (void)sel_client_close(self->client, 0);
        (void)sel_mem_free(self);
        return r;
    }
    *ret = &self->port;
    return 0;
}
