/* A producer in C with libselinon.
 *
 *   producer [--flow] ENDPOINT TASK [JSON [COUNT]]
 *   producer tcp://127.0.0.1:5711 Resize '{"path": "a.jpg"}' 1000
 *   producer --flow tcp://127.0.0.1:5711 album '{"folder": "photos"}'
 *
 * Submits the task, or flow, COUNT times, waits for the results, prints the first of them and how
 * many ended in which way. Built with: cc producer.c $(pkg-config --cflags --libs selinon) */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <selinon/client.h>

#define TOGETHER 1000 /* submitted in one call: cheaper than one by one */
#define PATIENCE_US INT64_C(30000000)

static int fail(struct sel_client *client, const char *what, int code)
{
    char problem[SEL_CLIENT_ERROR_SIZE];
    fprintf(stderr, "%s: %s\n", what, sel_client_error_text(code));
    if (*sel_client_problem(client, problem, sizeof(problem)))
        fprintf(stderr, "last: %s\n", problem);
    (void)sel_client_close(client, 0);
    return 1;
}

/* 0, or the error of the first that could not be submitted. */
static int submit_all(struct sel_client *client, const char *name, struct sel_bytes args,
                      uint32_t flags, uint64_t count)
{
    static struct sel_client_task tasks[TOGETHER];
    for (uint64_t done = 0; done < count;) {
        size_t n = count - done < TOGETHER ? (size_t)(count - done) : TOGETHER;
        for (size_t i = 0; i < n; i++)
            tasks[i] = (struct sel_client_task){
                .name = {name, strlen(name)}, .args = args, .tag = done + i, .flags = flags};
        int64_t r = sel_client_submit_many(client, tasks, n, NULL, PATIENCE_US);
        if (r < 0)
            return (int)r;
        done += (uint64_t)r;
    }
    return 0;
}

static void print_result(const struct sel_client_result *result)
{
    static const char *const ends[] = {"finished", "failed", "cancelled", "refused"};
    char id[SEL_CLIENT_ID_SIZE];
    struct sel_bytes text;
    (void)sel_client_id_format(&result->id, id);
    if (result->status == SEL_CLIENT_REFUSED) { /* its payload is text for people */
        printf("%s refused: %.*s\n", id, (int)result->payload.n, (const char *)result->payload.p);
    } else if (sel_client_to_json(result->payload, &text, NULL) == 0) {
        printf("%s %s: %s\n", id, ends[result->status], (const char *)text.p);
        sel_client_bytes_free(&text);
    }
}

/* How many ended in each way; an error if they do not come. */
static int take_all(struct sel_client *client, uint64_t counts[4])
{
    struct sel_client_batch *batch;
    int64_t r;
    while ((r = sel_client_next(client, &batch, PATIENCE_US)) > 0) {
        for (uint32_t i = 0; i < batch->count; i++) {
            if (batch->results[i].tag == 0)
                print_result(&batch->results[i]);
            counts[batch->results[i].status]++;
        }
        sel_client_batch_free(batch);
    }
    return (int)r; /* 0: all are here */
}

/* One flow has a call of its own, which can be told more, such as which tasks are wanted. */
static int run_flow(struct sel_client *client, const char *name, struct sel_bytes args)
{
    const struct sel_client_flow flow = {
        .size = sizeof(flow), .name = {name, strlen(name)}, .args = args};
    return sel_client_run_flow(client, &flow, NULL, PATIENCE_US);
}

int main(int argc, char **argv)
{
    bool is_flow = argc > 1 && strcmp(argv[1], "--flow") == 0;
    argc -= is_flow;
    argv += is_flow;
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: producer [--flow] ENDPOINT TASK [JSON [COUNT]]\n");
        return 2;
    }
    const char *endpoint = argv[1], *json = argc > 3 ? argv[3] : "null";
    uint64_t count = argc > 4 ? strtoull(argv[4], NULL, 10) : 1, counts[4] = {0};
    char error[SEL_CLIENT_ERROR_SIZE];

    struct sel_bytes args;
    if (sel_client_from_json(json, strlen(json), &args, error) < 0) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    options.endpoints = &endpoint;
    options.endpoint_count = 1;
    struct sel_client *client;
    if (sel_client_open(&options, &client, error) < 0) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    int r = sel_client_ready(client, PATIENCE_US);
    if (r < 0)
        return fail(client, endpoint, r);
    if (is_flow && count == 1)
        r = run_flow(client, argv[2], args);
    else
        r = submit_all(client, argv[2], args, is_flow ? SEL_CLIENT_FLOW : 0, count);
    if (r < 0)
        return fail(client, "submit", r);
    r = take_all(client, counts);
    if (r < 0)
        return fail(client, "results", r);
    printf("%" PRIu64 " finished, %" PRIu64 " failed, %" PRIu64 " cancelled, %" PRIu64 " refused\n",
           counts[SEL_CLIENT_OK], counts[SEL_CLIENT_FAILED], counts[SEL_CLIENT_CANCELLED],
           counts[SEL_CLIENT_REFUSED]);
    sel_client_bytes_free(&args);
    (void)sel_client_close(client, PATIENCE_US);
    return counts[SEL_CLIENT_OK] == count ? 0 : 1;
}
