/* load - the producer of libselinon that tests/fault tortures. What it submits and its log are
 * those of load.py; see there.
 *
 *   load --broker ENDPOINT --log FILE [--level L] [--rate N] [--window N] [--first N] [--flows A,B]
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <selinon/client.h>

#define BATCH_MAX 200
#define LEVEL_COUNT 4
#define FLOWS_MAX 64
#define FLOW_EVERY 40
#define VARIANTS 6

static const char *const level_names[LEVEL_COUNT] = {"default", "memory", "interval", "commit"};
static volatile sig_atomic_t is_stopping;

struct load {
    struct sel_client *client;
    FILE *log;
    uint8_t level;
    uint64_t rate, window, first;
    uint64_t submitted, finished, settled;
    const char *flows[FLOWS_MAX];
    uint64_t flow_count;
};

static void stop(int number)
{
    (void)number;
    is_stopping = 1;
}

static void say(void *ctx, const char *text)
{
    (void)ctx;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    fprintf(stderr, "%lld.%03ld %s\n", (long long)now.tv_sec, now.tv_nsec / 1000000, text);
}

static int fail(const char *what, int64_t error)
{
    fprintf(stderr, "%s: %s\n", what, sel_client_error_text((int)error));
    return 1;
}

static int64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- which tasks ---- */

static bool is_flow(const struct load *load, uint64_t n)
{
    return load->flow_count > 0 && n % FLOW_EVERY == FLOW_EVERY - 1;
}

static const char *name_of(const struct load *load, uint64_t n)
{
    if (is_flow(load, n))
        return load->flows[n / FLOW_EVERY % load->flow_count];
    return n % 20 == 17 ? "fails" : n % 20 == 18 ? "hesitates" : "square";
}

static int args_of(const struct load *load, uint64_t n, struct sel_bytes *ret)
{
    char text[96];
    uint64_t kind = n % 20;
    int size;
    if (is_flow(load, n))
        size = snprintf(text, sizeof(text), "{\"n\": %llu, \"v\": %llu}", (unsigned long long)n,
                        (unsigned long long)(n / FLOW_EVERY / load->flow_count % VARIANTS));
    else if (kind >= 14 && kind != 17 && kind != 18)
        size = snprintf(text, sizeof(text), "{\"n\": %llu, \"sleep\": 0.%03u}",
                        (unsigned long long)n, (unsigned)(n % 50));
    else
        size = snprintf(text, sizeof(text), "{\"n\": %llu}", (unsigned long long)n);
    return sel_client_from_json(text, (size_t)size, ret, NULL);
}

static int64_t submit(struct load *load, uint64_t count)
{
    struct sel_client_task tasks[BATCH_MAX];
    struct sel_bytes args[BATCH_MAX];
    if (count > BATCH_MAX)
        count = BATCH_MAX;
    memset(tasks, 0, sizeof(tasks));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n = load->first + load->submitted + i;
        const char *name = name_of(load, n);
        int r = args_of(load, n, &args[i]);
        if (r < 0)
            return r;
        tasks[i].name = (struct sel_str){name, strlen(name)};
        tasks[i].args = args[i];
        tasks[i].tag = n;
        tasks[i].level = load->level;
        tasks[i].flags = SEL_CLIENT_TELL_SETTLED;
        if (is_flow(load, n))
            tasks[i].flags |= SEL_CLIENT_FLOW | (n / FLOW_EVERY % 5 == 0 ? SEL_CLIENT_ALL : 0u);
    }
    int64_t done = sel_client_submit_many(load->client, tasks, count, NULL, 0);
    for (uint64_t i = 0; i < count; i++)
        sel_client_bytes_free(&args[i]);
    if (done > 0)
        load->submitted += (uint64_t)done;
    return done == -EAGAIN ? 0 : done;
}

/* ---- what comes back ---- */

static int note(struct load *load, const struct sel_client_result *result)
{
    static const char *const outcomes[] = {"finished", "failed", "cancelled", "refused"};
    char id[SEL_CLIENT_ID_SIZE];
    (void)sel_client_id_format(&result->id, id);
    if (result->status == SEL_CLIENT_SETTLED) {
        load->settled++;
        fprintf(load->log, "S %s %s %llu\n", id, name_of(load, result->tag),
                (unsigned long long)result->tag);
        return 0;
    }
    load->finished++;
    if (result->status == SEL_CLIENT_REFUSED) {
        fprintf(load->log, "R %s refused {\"message\": \"code %u\"}\n", id, result->code);
        return 0;
    }
    struct sel_bytes text;
    int r = sel_client_to_json(result->payload, &text, NULL);
    if (r < 0)
        return r;
    fprintf(load->log, "R %s %s %s\n", id, outcomes[result->status], (const char *)text.p);
    sel_client_bytes_free(&text);
    return 0;
}

static int64_t take(struct load *load)
{
    struct sel_client_batch *batch;
    int64_t count = sel_client_listen(load->client, &batch, 5000);
    if (count <= 0)
        return count == -ETIMEDOUT || count == -EAGAIN ? 0 : count;
    int r = 0;
    for (int64_t i = 0; i < count && r == 0; i++)
        r = note(load, &batch->results[i]);
    sel_client_batch_free(batch);
    return fflush(load->log) == 0 ? r : -EIO;
}

static int run(struct load *load)
{
    int64_t begin = now_us(), r;
    while (!is_stopping || load->finished < load->submitted) {
        uint64_t want = (uint64_t)(now_us() - begin) * load->rate / 1000000;
        uint64_t under_way = load->submitted - load->finished;
        if (want > load->submitted + load->window) { /* it was stopped: no flood afterwards */
            begin += (int64_t)((want - load->submitted) * 1000000 / load->rate);
            want = load->submitted;
        }
        if (!is_stopping && want > load->submitted && under_way < load->window) {
            uint64_t count = want - load->submitted, room = load->window - under_way;
            r = submit(load, count < room ? count : room);
            if (r < 0)
                return fail("submit", r);
        }
        r = take(load);
        if (r < 0)
            return fail("take", r);
    }
    return 0;
}

static void divide(struct load *load, char *names)
{
    char *rest = names;
    for (char *name; (name = strsep(&rest, ",")) && load->flow_count < FLOWS_MAX;)
        load->flows[load->flow_count++] = name;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"broker", 1, NULL, 'b'}, {"log", 1, NULL, 'o'},
                                          {"level", 1, NULL, 'l'},  {"rate", 1, NULL, 'r'},
                                          {"window", 1, NULL, 'w'}, {"first", 1, NULL, 'f'},
                                          {"flows", 1, NULL, 'F'},  {NULL, 0, NULL, 0}};
    struct load load = {.rate = 500, .window = 2000, .level = SEL_CLIENT_LEVEL_COMMIT};
    const char *broker = NULL;
    (void)signal(SIGTERM, stop); /* before there is a log: whoever sees it may send SIGTERM */
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 'b')
            broker = optarg;
        else if (c == 'o')
            load.log = fopen(optarg, "a");
        else if (c == 'r')
            load.rate = strtoull(optarg, NULL, 10);
        else if (c == 'w')
            load.window = strtoull(optarg, NULL, 10);
        else if (c == 'f')
            load.first = strtoull(optarg, NULL, 10);
        else if (c == 'F')
            divide(&load, optarg);
        else if (c != 'l')
            return 2;
        for (uint8_t i = 0; c == 'l' && i < LEVEL_COUNT; i++)
            if (strcmp(optarg, level_names[i]) == 0)
                load.level = i;
    }
    if (!broker || !load.log || load.rate == 0)
        return 2;
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    char error[SEL_CLIENT_ERROR_SIZE];
    options.endpoints = &broker;
    options.endpoint_count = 1;
    options.name = "c";
    options.log = say;
    int r = sel_client_open(&options, &load.client, error);
    if (r < 0) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    int status = run(&load);
    r = sel_client_close(load.client, 30000000);
    if (r < 0)
        status = fail("close", r);
    fprintf(stderr, "%llu submitted\n", (unsigned long long)load.submitted);
    return fclose(load.log) == 0 ? status : 1;
}
