#include "tests/support/test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <selinon/client.h>

#include "core/mem.h"
#include "tests/support/echo_broker.h"
#include "tests/support/program.h"

#define SECOND INT64_C(1000000)
#define LONG (20 * SECOND) /* never used up, unless something is wrong */
#define MANY 20000u

struct world {
    struct sel_test_folder folder;
    struct echo_broker brokers[3];
    uint32_t count;
    struct sel_client *client;
};

static struct sel_client_options options_for(struct world *w, const char **endpoints)
{
    struct sel_client_options options = SEL_CLIENT_OPTIONS;
    for (uint32_t i = 0; i < w->count; i++)
        endpoints[i] = w->brokers[i].endpoint;
    options.endpoints = endpoints;
    options.endpoint_count = w->count;
    return options;
}

static void start(struct world *w, uint32_t brokers)
{
    memset(w, 0, sizeof(*w));
    sel_test_folder_init(&w->folder);
    w->count = brokers;
    for (uint32_t i = 0; i < brokers; i++)
        echo_start(&w->brokers[i], w->folder.path, i);
}

static void open_client(struct world *w)
{
    const char *endpoints[3];
    const struct sel_client_options options = options_for(w, endpoints);
    char error[SEL_CLIENT_ERROR_SIZE];
    assert_int_equal(sel_client_open(&options, &w->client, error), 0);
}

static void begin(struct world *w, uint32_t brokers)
{
    start(w, brokers);
    open_client(w);
}

static void end(struct world *w)
{
    (void)sel_client_close(w->client, LONG);
    for (uint32_t i = 0; i < w->count; i++)
        echo_stop(&w->brokers[i]);
    sel_test_folder_done(&w->folder);
}

static struct sel_client_task task_of(struct sel_str name, uint64_t tag)
{
    return (struct sel_client_task){.name = name, .tag = tag, .args = {"\xa2hi", 3}};
}

static struct sel_client_id submit(struct world *w, struct sel_str name, uint64_t tag,
                                   uint32_t flags)
{
    struct sel_client_task task = task_of(name, tag);
    struct sel_client_id id;
    task.flags = flags;
    assert_int_equal(sel_client_submit(w->client, &task, &id, LONG), 0);
    return id;
}

/* The next result, which must be alone. */
static struct sel_client_batch *next_one(struct world *w)
{
    struct sel_client_batch *batch = NULL;
    assert_int_equal(sel_client_next(w->client, &batch, LONG), 1);
    assert_int_equal(batch->count, 1);
    return batch;
}

static bool is_payload(const struct sel_client_result *result, const char *text)
{
    return result->payload.n == strlen(text) && memcmp(result->payload.p, text, strlen(text)) == 0;
}

static void test_a_task_comes_back_with_its_result(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    assert_int_equal(sel_client_ready(w.client, LONG), 0);
    struct sel_client_id id = submit(&w, ECHO_TASK, 7, 0);
    struct sel_client_batch *batch = next_one(&w);
    assert_memory_equal(&batch->results[0].id, &id, sizeof(id));
    assert_int_equal(batch->results[0].tag, 7);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_OK);
    assert_int_equal(batch->results[0].level, SEL_CLIENT_LEVEL_MEMORY);
    assert_true(is_payload(&batch->results[0], "\xa2hi"));
    sel_client_batch_free(batch);
    batch = NULL;
    assert_int_equal(sel_client_next(w.client, &batch, LONG), 0); /* nothing is outstanding */
    assert_null(batch);
    assert_int_equal(sel_client_listen(w.client, &batch, 0), -EAGAIN);
    assert_int_equal(sel_client_listen(w.client, &batch, 1000), -ETIMEDOUT);
    end(&w);
    assert_int_equal(w.brokers[0].goodbyes, 1);
}

static void test_ends_of_all_kinds_are_told(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    (void)submit(&w, ECHO_FAIL, 1, 0);
    struct sel_client_batch *batch = next_one(&w);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_FAILED);
    sel_client_batch_free(batch);

    (void)submit(&w, ECHO_REFUSE, 2, 0);
    batch = next_one(&w);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_REFUSED);
    assert_int_equal(batch->results[0].code, SEL_CLIENT_CODE_CONFLICT);
    assert_true(is_payload(&batch->results[0], "as the test wants it"));
    sel_client_batch_free(batch);

    struct sel_client_id id = submit(&w, ECHO_HANG, 3, 0);
    assert_int_equal(sel_client_next(w.client, &batch, 1000), -ETIMEDOUT);
    assert_int_equal(sel_client_cancel(w.client, &id, LONG), 0);
    batch = next_one(&w);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_CANCELLED);
    sel_client_batch_free(batch);

    (void)submit(&w, ECHO_FULL, 4, 0); /* is submitted again by itself */
    batch = next_one(&w);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_OK);
    sel_client_batch_free(batch);
    struct sel_client_stats stats = {.size = sizeof(stats)};
    assert_int_equal(sel_client_get_stats(w.client, &stats), 0);
    assert_int_equal(stats.submitted, 4);
    assert_int_equal(stats.finished, 4);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.deferred, 1);
    assert_int_equal(stats.connected, 1);
    end(&w);
}

static void test_many_tasks_all_come_back_once(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    struct sel_client_task *tasks = calloc(MANY, sizeof(*tasks));
    struct sel_client_id *ids = calloc(MANY, sizeof(*ids));
    uint8_t *seen = calloc(MANY, 1);
    for (uint32_t i = 0; i < MANY; i++)
        tasks[i] = task_of(ECHO_TASK, i);
    assert_int_equal(sel_client_submit_many(w.client, tasks, MANY, ids, LONG), MANY);
    uint32_t count = 0;
    struct sel_client_batch *batch;
    int64_t r;
    while ((r = sel_client_next(w.client, &batch, LONG)) > 0) {
        assert_int_equal(r, batch->count);
        for (uint32_t i = 0; i < batch->count; i++) {
            uint64_t tag = batch->results[i].tag;
            assert_true(tag < MANY);
            assert_int_equal(seen[tag]++, 0);
            assert_memory_equal(&batch->results[i].id, &ids[tag], sizeof(ids[tag]));
            assert_true(is_payload(&batch->results[i], "\xa2hi"));
            count++;
        }
        sel_client_batch_free(batch);
    }
    assert_int_equal(r, 0);
    assert_int_equal(count, MANY);
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    free(tasks);
    free(ids);
    free(seen);
    end(&w);
}

static void test_what_is_kept_is_waited_for_by_id(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    struct sel_client_id kept = submit(&w, ECHO_TASK, 1, SEL_CLIENT_KEEP);
    struct sel_client_id hangs = submit(&w, ECHO_HANG, 2, SEL_CLIENT_KEEP);
    (void)submit(&w, ECHO_TASK, 3, 0);
    struct sel_client_batch *batch = next_one(&w);
    assert_int_equal(batch->results[0].tag, 3);
    sel_client_batch_free(batch);
    assert_int_equal(sel_client_next(w.client, &batch, LONG), 0); /* the others are not its own */
    assert_int_equal(sel_client_wait(w.client, &kept, &batch, LONG), 0);
    assert_int_equal(batch->count, 1);
    assert_int_equal(batch->results[0].tag, 1);
    sel_client_batch_free(batch);
    assert_int_equal(sel_client_wait(w.client, &kept, &batch, LONG), -ENOENT);
    assert_int_equal(sel_client_wait(w.client, &hangs, &batch, 0), -EAGAIN);
    assert_int_equal(sel_client_wait(w.client, &hangs, &batch, 1000), -ETIMEDOUT);
    assert_int_equal(sel_client_forget(w.client, &hangs), 0);
    assert_int_equal(sel_client_forget(w.client, &hangs), -ENOENT);
    assert_int_equal(sel_client_wait(w.client, &hangs, &batch, LONG), -ENOENT);
    (void)submit(&w, ECHO_TASK, 4, SEL_CLIENT_KEEP); /* never taken: close frees it */
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    end(&w);
}

static void test_tasks_of_others_are_watched(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    const struct sel_client_id theirs = {{1, 2, 3}};
    struct sel_client_id unknown = {{0}};
    unknown.bytes[14] = 404 >> 8;
    unknown.bytes[15] = 404 & 255;
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_watch(w.client, &theirs, 5, SEL_CLIENT_KEEP, LONG), 0);
    assert_int_equal(sel_client_wait(w.client, &theirs, &batch, LONG), 0);
    assert_true(is_payload(&batch->results[0], "\xa7watched"));
    sel_client_batch_free(batch);
    assert_int_equal(sel_client_watch(w.client, &unknown, 6, 0, LONG), 0);
    batch = next_one(&w);
    assert_int_equal(batch->results[0].status, SEL_CLIENT_REFUSED);
    assert_int_equal(batch->results[0].code, SEL_CLIENT_CODE_UNKNOWN_TASK);
    assert_int_equal(batch->results[0].tag, 6);
    sel_client_batch_free(batch);
    end(&w);
}

static struct sel_client_flow flow_of(uint64_t tag)
{
    return (struct sel_client_flow){
        .size = sizeof(struct sel_client_flow), .name = ECHO_TASK, .tag = tag, .args = {"\x2a", 1}};
}

/* Runs the flow; its result must be `payload`. */
static void run_flow(struct world *w, const struct sel_client_flow *flow, const char *payload,
                     size_t size)
{
    struct sel_client_id id;
    assert_int_equal(sel_client_run_flow(w->client, flow, &id, LONG), 0);
    struct sel_client_batch *batch = next_one(w);
    assert_memory_equal(&batch->results[0].id, &id, sizeof(id));
    assert_int_equal(batch->results[0].tag, flow->tag);
    assert_int_equal(batch->results[0].payload.n, size);
    assert_memory_equal(batch->results[0].payload.p, payload, size);
    sel_client_batch_free(batch);
}

static void test_flows_are_run(void **state)
{
    (void)state;
    static const struct sel_str tasks[] = {{"A", 1}, {"B", 1}};
    static const struct sel_str flows[] = {{"f", 1}};
    static const char plain[] = "\x83\xa5tasks\x92\xa1"
                                "A\xa1"
                                "B\xaf"
                                "follow_subflows\xc2\xae"
                                "run_subsequent\xc2";
    static const char full[] = "\x84\xa5tasks\x91\xa1"
                               "A\xaf"
                               "follow_subflows\xc3\xae"
                               "run_subsequent\xc3\xb0"
                               "subsequent_flows\x91\xa1"
                               "f";
    struct world w;
    begin(&w, 1);
    struct sel_client_flow flow = flow_of(3);
    run_flow(&w, &flow, "\x2a", 1);
    assert_int_equal(w.brokers[0].flows, 1);
    assert_int_equal(w.brokers[0].alls, 0);
    flow.flags = SEL_CLIENT_ALL;
    flow.selective_tasks = tasks;
    flow.selective_task_count = 2;
    run_flow(&w, &flow, plain, sizeof(plain) - 1);
    assert_int_equal(w.brokers[0].alls, 1);
    flow.selective_task_count = 1;
    flow.follow_subflows = flow.run_subsequent = true;
    flow.subsequent_flows = flows;
    flow.subsequent_flow_count = 1;
    run_flow(&w, &flow, full, sizeof(full) - 1);
    assert_int_equal(w.brokers[0].flows, 3);
    const struct sel_client_id theirs = {{1, 2, 3}};
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_watch(w.client, &theirs, 5, SEL_CLIENT_KEEP | SEL_CLIENT_ALL, LONG),
                     0);
    assert_int_equal(sel_client_wait(w.client, &theirs, &batch, LONG), 0);
    sel_client_batch_free(batch);
    assert_int_equal(w.brokers[0].alls, 3);
    end(&w);
}

static void test_wrong_flows_are_refused(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    static struct sel_str names[5000];
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        names[i] = SEL_STR("a name of a task");
    const struct sel_str bad[] = {{NULL, 0}, SEL_STR("\xff")};
    struct sel_client_flow wrong[9];
    for (size_t i = 0; i < SEL_COUNT(wrong); i++)
        wrong[i] = flow_of(1);
    wrong[0].size--;
    wrong[1].name.n = 0;
    wrong[2].selective_task_count = 1;
    wrong[3].follow_subflows = true;
    wrong[4].run_subsequent = true;
    wrong[5].flags = SEL_CLIENT_QUIET | SEL_CLIENT_ALL;
    wrong[6].selective_tasks = &bad[0];
    wrong[7].selective_tasks = &bad[1];
    wrong[8].selective_tasks = names; /* a field has at most 64 KiB */
    wrong[6].selective_task_count = wrong[7].selective_task_count = 1;
    wrong[8].selective_task_count = SEL_COUNT(names);
    for (size_t i = 0; i < SEL_COUNT(wrong); i++)
        assert_int_equal(sel_client_run_flow(w.client, &wrong[i], NULL, LONG),
                         i == 8 ? -EMSGSIZE : -EINVAL);
    struct sel_client_flow subsequent = flow_of(1); /* without run_subsequent they mean nothing */
    subsequent.selective_tasks = subsequent.subsequent_flows = names;
    subsequent.selective_task_count = subsequent.subsequent_flow_count = 1;
    assert_int_equal(sel_client_run_flow(w.client, &subsequent, NULL, LONG), -EINVAL);
    end(&w);
    assert_int_equal(w.brokers[0].submits, 0);
}

static void test_what_a_selective_run_says_needs_memory(void **state)
{
    (void)state;
    static const struct sel_str tasks[] = {{"A", 1}};
    struct sel_client_flow flow = flow_of(1);
    struct sel_bytes bytes = {NULL, 7};
    assert_int_equal(sel_client_make_selective(&flow, &bytes), 0);
    assert_int_equal(bytes.n, 0); /* it is not selective */
    flow.selective_tasks = flow.subsequent_flows = tasks;
    flow.selective_task_count = flow.subsequent_flow_count = 1;
    flow.run_subsequent = true;
    int r = -ENOMEM;
    for (int64_t n = 1; r < 0; n++) {
        assert_true(n < 100);
        sel_mem_fail_at(n);
        r = sel_client_make_selective(&flow, &bytes);
        sel_mem_fail_at(0);
        assert_true(r == 0 || r == -ENOMEM);
    }
    assert_true(bytes.n > 40);
    sel_client_bytes_free(&bytes);
}

/* Tasks as they were before they had `selective`. */
static void test_old_programs_submit_to_new_libraries(void **state)
{
    (void)state;
    struct world w;
    start(&w, 1);
    const char *endpoints[3];
    struct sel_client_options options = options_for(&w, endpoints);
    options.task_size = offsetof(struct sel_client_task, selective);
    assert_int_equal(sel_client_open(&options, &w.client, NULL), 0);
    char *tasks = sel_mem_zalloc(2 * options.task_size); /* what lies behind is not looked at */
    assert_non_null(tasks);
    for (uint64_t i = 0; i < 2; i++) {
        struct sel_client_task task = task_of(ECHO_TASK, i);
        task.flags = SEL_CLIENT_FLOW;
        memcpy(tasks + i * options.task_size, &task, options.task_size);
    }
    assert_int_equal(sel_client_submit_many(w.client, (const void *)tasks, 2, NULL, LONG), 2);
    for (uint64_t taken = 0; taken < 2;) {
        struct sel_client_batch *batch;
        assert_true(sel_client_next(w.client, &batch, LONG) > 0);
        for (uint32_t i = 0; i < batch->count; i++)
            assert_int_equal(batch->results[i].tag, taken + i);
        taken += batch->count;
        sel_client_batch_free(batch);
    }
    sel_mem_free(tasks);
    end(&w);
}

static void test_settling_is_told_to_who_asks(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    w.brokers[0].settles = false;
    (void)submit(&w, ECHO_HANG, 1, SEL_CLIENT_TELL_SETTLED);
    (void)submit(&w, ECHO_TASK, 2, SEL_CLIENT_QUIET | SEL_CLIENT_TELL_SETTLED);
    assert_int_equal(sel_client_flush(w.client, 20000), -ETIMEDOUT);
    assert_int_equal(sel_client_flush(w.client, 0), -EAGAIN);
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_next(w.client, &batch, 1000), -ETIMEDOUT);
    w.brokers[0].settles = true;
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    uint32_t count = 0;
    while (count < 2) {
        assert_true(sel_client_next(w.client, &batch, LONG) > 0);
        for (uint32_t i = 0; i < batch->count; i++, count++) {
            assert_int_equal(batch->results[i].status, SEL_CLIENT_SETTLED);
            assert_int_equal(batch->results[i].tag, count + 1);
        }
        sel_client_batch_free(batch);
    }
    end(&w);
}

static void test_a_forgotten_session_loses_nothing(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    (void)submit(&w, ECHO_HANG, 1, 0); /* settled, no result */
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    w.brokers[0].settles = false;
    (void)submit(&w, ECHO_HANG, 2, 0); /* not settled */
    while (w.brokers[0].submits < 2)
        (void)usleep(1000);
    w.brokers[0].forget = true;
    w.brokers[0].settles = true;
    (void)submit(&w, ECHO_TASK, 3, 0);
    uint32_t count = 0;
    struct sel_client_batch *batch;
    while (count < 2) { /* of 3, and what the WATCH of 1 brought */
        assert_true(sel_client_next(w.client, &batch, LONG) > 0);
        for (uint32_t i = 0; i < batch->count; i++, count++)
            assert_int_equal(batch->results[i].tag & 1, 1);
        sel_client_batch_free(batch);
    }
    assert_int_equal(w.brokers[0].watches, 1);
    assert_true(w.brokers[0].submits >= 4); /* 2 came again */
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    end(&w);
}

static void test_a_silent_broker_is_connected_to_anew(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    assert_int_equal(sel_client_ready(w.client, LONG), 0);
    w.brokers[0].silent = true;
    (void)submit(&w, ECHO_TASK, 1, 0);
    while (w.brokers[0].hellos < 2) /* after three beats of 100 ms */
        (void)usleep(1000);
    w.brokers[0].silent = false;
    sel_client_batch_free(next_one(&w));
    char problem[SEL_CLIENT_ERROR_SIZE];
    assert_string_equal(sel_client_problem(w.client, problem, sizeof(problem)), "");
    end(&w);
}

static void test_an_absent_broker_is_waited_for_up_to_the_timeout(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0);
    const char *endpoints[3] = {"ipc:///nobody/is/here"};
    w.count = 0;
    struct sel_client_options options = options_for(&w, endpoints);
    options.endpoint_count = 1;
    options.waiting_max = 1;
    options.lost_after_us = 1; /* at once */
    assert_int_equal(sel_client_open(&options, &w.client, NULL), 0);
    assert_int_equal(sel_client_ready(w.client, 10000), -ETIMEDOUT);
    struct sel_client_task task = task_of(ECHO_TASK, 1);
    assert_int_equal(sel_client_submit(w.client, &task, NULL, LONG), -ETIMEDOUT);
    assert_int_equal(sel_client_close(w.client, 0), 0);

    options.lost_after_us = 0;
    assert_int_equal(sel_client_open(&options, &w.client, NULL), 0);
    assert_int_equal(sel_client_submit(w.client, &task, NULL, LONG), 0);
    assert_int_equal(sel_client_submit(w.client, &task, NULL, 0), -EAGAIN);
    assert_int_equal(sel_client_submit(w.client, &task, NULL, 1000), -ETIMEDOUT);
    struct sel_client_batch *batch;
    assert_int_equal(sel_client_next(w.client, &batch, 1000), -ETIMEDOUT);
    assert_int_equal(sel_client_close(w.client, 1000), -ETIMEDOUT); /* it was never settled */
    sel_test_folder_done(&w.folder);
}

static void test_a_broker_that_refuses_us_is_told(void **state)
{
    (void)state;
    struct world w;
    start(&w, 1);
    w.brokers[0].refuses_hello = true;
    open_client(&w);
    assert_int_equal(sel_client_ready(w.client, LONG), -ECONNREFUSED);
    struct sel_client_task task = task_of(ECHO_TASK, 1);
    assert_int_equal(sel_client_submit(w.client, &task, NULL, LONG), -ECONNREFUSED);
    char problem[SEL_CLIENT_ERROR_SIZE];
    assert_non_null(strstr(sel_client_problem(w.client, problem, sizeof(problem)), "illegal"));
    end(&w);
}

static void test_wrong_options_are_named(void **state)
{
    (void)state;
    const char *const good[] = {"ipc:///tmp/x"}, *const bad[] = {"tcp:/127.0.0.1"}, *none[] = {""};
    const struct {
        const char *const *endpoints;
        uint32_t count;
        size_t size;
        const char *says;
    } cases[] = {
        {good, 0, sizeof(struct sel_client_options), "no endpoint"},
        {NULL, 1, sizeof(struct sel_client_options), "no endpoint"},
        {good, 65, sizeof(struct sel_client_options), "64"},
        {none, 1, sizeof(struct sel_client_options), "empty"},
        {good, 1, 8, "SEL_CLIENT_OPTIONS"},
        {bad, 1, sizeof(struct sel_client_options), "tcp://HOST:PORT"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_client_options options = SEL_CLIENT_OPTIONS;
        struct sel_client *client = NULL;
        char error[SEL_CLIENT_ERROR_SIZE] = "";
        options.endpoints = cases[i].endpoints;
        options.endpoint_count = cases[i].count;
        options.size = cases[i].size;
        assert_int_equal(sel_client_open(&options, &client, error), -EINVAL);
        assert_null(client);
        if (!strstr(error, cases[i].says))
            fail_msg("'%s' does not name %s", error, cases[i].says);
    }
}

static void test_wrong_tasks_are_refused_alone(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    static char text[300], large[SEL_WIRE_RECORD_MAX];
    memset(text, 'x', sizeof(text));
    const struct sel_client_task good = task_of(ECHO_TASK, 1);
    struct sel_client_task wrong[13];
    for (size_t i = 0; i < SEL_COUNT(wrong); i++)
        wrong[i] = good;
    wrong[0].name.n = 0;
    wrong[1].name = (struct sel_str){text, 256};
    wrong[2].queue = (struct sel_str){text, 256};
    wrong[3].key = (struct sel_str){text, 256};
    wrong[4].content_type = (struct sel_str){text, 256};
    wrong[5].level = 4;
    wrong[6].countdown_us = -1;
    wrong[7].flags = 32;
    wrong[8].flags = SEL_CLIENT_QUIET | SEL_CLIENT_KEEP;
    wrong[9].args = (struct sel_bytes){large, sizeof(large)};
    wrong[10].flags = SEL_CLIENT_ALL;
    wrong[11].flags = SEL_CLIENT_FLOW | SEL_CLIENT_ALL | SEL_CLIENT_QUIET;
    wrong[12].selective = (struct sel_bytes){"\x80", 1};
    for (size_t i = 0; i < SEL_COUNT(wrong); i++)
        assert_int_equal(sel_client_submit(w.client, &wrong[i], NULL, LONG),
                         i == 9 ? -EMSGSIZE : -EINVAL);
    const struct sel_client_task three[] = {good, good, wrong[0]};
    assert_int_equal(sel_client_submit_many(w.client, three, 3, NULL, LONG), 2);
    struct sel_client_task twice = task_of(ECHO_HANG, 1);
    twice.id.bytes[15] = 1;
    assert_int_equal(sel_client_submit(w.client, &twice, NULL, LONG), 0);
    assert_int_equal(sel_client_submit(w.client, &twice, NULL, LONG), -EEXIST);
    const struct sel_client_id none = {{0}};
    assert_int_equal(sel_client_cancel(w.client, &none, LONG), -EINVAL);
    assert_int_equal(sel_client_watch(w.client, &none, 0, 0, LONG), -EINVAL);
    assert_int_equal(sel_client_submit_many(w.client, NULL, 0, NULL, 0), 0);
    end(&w);
}

static void test_several_brokers_share_the_tasks(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 3);
    for (uint32_t i = 0; i < 300; i++)
        (void)submit(&w, ECHO_TASK, i, 0);
    uint32_t count = 0;
    struct sel_client_batch *batch;
    while (sel_client_next(w.client, &batch, LONG) > 0) {
        count += batch->count;
        sel_client_batch_free(batch);
    }
    assert_int_equal(count, 300);
    for (uint32_t i = 0; i < 3; i++)
        assert_in_range(w.brokers[i].submits, 50, 150);
    end(&w);
}

static void test_a_key_and_the_id_minted_for_it_lead_to_one_broker(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 3);
    uint64_t before[3], after[3];
    for (uint32_t n = 0; n < 30; n++) {
        struct sel_client_task task = task_of(ECHO_HANG, n);
        char key[16];
        struct sel_client_id id;
        (void)snprintf(key, sizeof(key), "key-%u", n % 10);
        task.key = sel_str_c(key);
        task.flags = SEL_CLIENT_QUIET; /* so that only the id leads the cancel */
        for (uint32_t i = 0; i < 3; i++)
            before[i] = w.brokers[i].submits;
        assert_int_equal(sel_client_submit(w.client, &task, &id, LONG), 0);
        assert_int_equal(sel_client_cancel(w.client, &id, LONG), 0);
        assert_int_equal(sel_client_flush(w.client, LONG), 0);
        for (uint32_t i = 0; i < 3; i++) {
            after[i] = w.brokers[i].submits;
            assert_int_equal(w.brokers[i].cancels, after[i]);
        }
        assert_int_equal(after[0] + after[1] + after[2], before[0] + before[1] + before[2] + 1);
    }
    /* FNV-1a is what other programs are told: "key-0" has the hash 0x71135bf295f28059 */
    assert_int_equal(UINT64_C(0x71135bf295f28059) % 3, 2);
    assert_true(w.brokers[2].submits >= 3);
    end(&w);
}

static void test_results_that_nobody_takes_stop_the_broker(void **state)
{
    (void)state;
    struct world w;
    start(&w, 1);
    const char *endpoints[3];
    struct sel_client_options options = options_for(&w, endpoints);
    options.result_bytes_max = 100000;
    assert_int_equal(sel_client_open(&options, &w.client, NULL), 0);
    static char payload[100000];
    payload[0] = '\xc6'; /* bin 32 */
    payload[2] = (char)((sizeof(payload) - 5) >> 16 & 255);
    payload[3] = (char)((sizeof(payload) - 5) >> 8 & 255);
    payload[4] = (char)((sizeof(payload) - 5) & 255);
    struct sel_client_task task = task_of(ECHO_TASK, 0);
    task.args = (struct sel_bytes){payload, sizeof(payload)};
    const uint32_t count = 400; /* 40 MB, more than the window and the limit */
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(sel_client_submit(w.client, &task, NULL, LONG), 0);
    assert_int_equal(sel_client_flush(w.client, LONG), 0);
    struct sel_client_stats stats = {.size = sizeof(stats)};
    uint64_t before = 0;
    do { /* until no more come */
        before = stats.results;
        (void)usleep(50000);
        assert_int_equal(sel_client_get_stats(w.client, &stats), 0);
    } while (stats.results > before || stats.results == 0);
    assert_in_range(stats.result_bytes, 100000, 20 << 20);
    assert_true(stats.results < count);
    uint32_t taken = 0;
    struct sel_client_batch *batch;
    while (sel_client_next(w.client, &batch, LONG) > 0) {
        taken += batch->count;
        for (uint32_t i = 0; i < batch->count; i++)
            assert_int_equal(batch->results[i].payload.n, sizeof(payload));
        sel_client_batch_free(batch);
    }
    assert_int_equal(taken, count);
    end(&w);
}

struct crowd {
    struct world *w;
    uint64_t base;
    _Atomic uint64_t *sum;
};

#define CROWD 4u
#define EACH 3000u

static void *crowd_submit(void *arg)
{
    struct crowd *me = arg;
    for (uint64_t i = 0; i < EACH; i++)
        (void)submit(me->w, ECHO_TASK, me->base + i, 0);
    return NULL;
}

static void *crowd_take(void *arg)
{
    struct crowd *me = arg;
    struct sel_client_batch *batch;
    while (sel_client_listen(me->w->client, &batch, 200000) > 0) {
        for (uint32_t i = 0; i < batch->count; i++)
            *me->sum += batch->results[i].tag;
        sel_client_batch_free(batch);
    }
    return NULL;
}

static void test_threads_share_a_client(void **state)
{
    (void)state;
    struct world w;
    start(&w, 2);
    const char *endpoints[3];
    struct sel_client_options options = options_for(&w, endpoints);
    options.waiting_max = 500; /* so that they wait for room too */
    assert_int_equal(sel_client_open(&options, &w.client, NULL), 0);
    _Atomic uint64_t sum = 0;
    struct crowd crowd[CROWD + 2];
    pthread_t threads[CROWD + 2];
    for (uint32_t i = 0; i < CROWD + 2; i++) {
        crowd[i] = (struct crowd){&w, 1 + (uint64_t)i * EACH, &sum};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < CROWD ? crowd_submit : crowd_take, &crowd[i]), 0);
    }
    for (uint32_t i = 0; i < CROWD + 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    const uint64_t n = (uint64_t)CROWD * EACH;
    assert_int_equal(sum, n * (n + 1) / 2);
    end(&w);
}

static void test_a_child_of_fork_has_no_client(void **state)
{
    (void)state;
    struct world w;
    begin(&w, 1);
    assert_int_equal(sel_client_ready(w.client, LONG), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct sel_client_task task = task_of(ECHO_TASK, 1);
        struct sel_client_batch *batch;
        struct sel_client_stats stats = {.size = sizeof(stats)};
        const struct sel_client_id id = {{1}};
        bool good = sel_client_submit(w.client, &task, NULL, LONG) == -ECHILD &&
                    sel_client_next(w.client, &batch, LONG) == -ECHILD &&
                    sel_client_wait(w.client, &id, &batch, LONG) == -ECHILD &&
                    sel_client_watch(w.client, &id, 0, 0, LONG) == -ECHILD &&
                    sel_client_cancel(w.client, &id, LONG) == -ECHILD &&
                    sel_client_forget(w.client, &id) == -ECHILD &&
                    sel_client_flush(w.client, LONG) == -ECHILD &&
                    sel_client_ready(w.client, LONG) == -ECHILD &&
                    sel_client_get_stats(w.client, &stats) == -ECHILD &&
                    sel_client_close(w.client, LONG) == -ECHILD;
        _exit(good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)submit(&w, ECHO_TASK, 1, 0); /* the parent's goes on */
    sel_client_batch_free(next_one(&w));
    end(&w);
}

static void test_json_becomes_msgpack_and_back(void **state)
{
    (void)state;
    struct sel_bytes bytes = {NULL, 0}, text;
    char error[SEL_CLIENT_ERROR_SIZE] = "";
    assert_int_equal(sel_client_from_json("{\"a\": [1, 2.5, null]}", 21, &bytes, error), 0);
    assert_memory_equal(bytes.p, "\x81\xa1\x61\x93\x01\xcb\x40\x04\0\0\0\0\0\0\xc0", 15);
    assert_int_equal(bytes.n, 15);
    assert_int_equal(sel_client_to_json(bytes, &text, error), 0);
    assert_string_equal(text.p, "{\"a\":[1,2.5,null]}");
    assert_int_equal(text.n, 18);
    sel_client_bytes_free(&text);
    sel_client_bytes_free(&bytes);
    assert_null(bytes.p);
    assert_int_equal(sel_client_to_json(bytes, &text, NULL), 0);
    assert_string_equal(text.p, "null");
    sel_client_bytes_free(&text);
    assert_int_equal(sel_client_from_json("{\"a\":", 5, &bytes, error), -EINVAL);
    assert_true(error[0] != '\0');
    error[0] = '\0';
    assert_int_equal(sel_client_to_json((struct sel_bytes){"\xc1", 1}, &text, error), -EINVAL);
    assert_true(error[0] != '\0');
    assert_int_equal(sel_client_from_json("x", 1, &bytes, NULL), -EINVAL);
}

static void test_ids_have_a_text(void **state)
{
    (void)state;
    struct sel_client_id id = {{0}};
    char text[SEL_CLIENT_ID_SIZE];
    const char *some = "0198f3c2-7b1c-7001-8000-00000000002a";
    assert_int_equal(sel_client_id_parse(some, strlen(some), &id), 0);
    assert_int_equal(id.bytes[0], 1);
    assert_int_equal(id.bytes[15], 42);
    assert_string_equal(sel_client_id_format(&id, text), some);
    assert_int_equal(sel_client_id_parse("0198", 4, &id), -EINVAL);
    assert_int_equal(sel_client_id_parse(NULL, 0, &id), -EINVAL);
    assert_string_equal(sel_client_version(), SEL_VERSION);
    for (int code = -200; code <= 0; code++)
        assert_true(sel_client_error_text(code)[0] != '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_task_comes_back_with_its_result),
        cmocka_unit_test(test_ends_of_all_kinds_are_told),
        cmocka_unit_test(test_many_tasks_all_come_back_once),
        cmocka_unit_test(test_what_is_kept_is_waited_for_by_id),
        cmocka_unit_test(test_tasks_of_others_are_watched),
        cmocka_unit_test(test_flows_are_run),
        cmocka_unit_test(test_wrong_flows_are_refused),
        cmocka_unit_test(test_what_a_selective_run_says_needs_memory),
        cmocka_unit_test(test_old_programs_submit_to_new_libraries),
        cmocka_unit_test(test_settling_is_told_to_who_asks),
        cmocka_unit_test(test_a_forgotten_session_loses_nothing),
        cmocka_unit_test(test_a_silent_broker_is_connected_to_anew),
        cmocka_unit_test(test_an_absent_broker_is_waited_for_up_to_the_timeout),
        cmocka_unit_test(test_a_broker_that_refuses_us_is_told),
        cmocka_unit_test(test_wrong_options_are_named),
        cmocka_unit_test(test_wrong_tasks_are_refused_alone),
        cmocka_unit_test(test_several_brokers_share_the_tasks),
        cmocka_unit_test(test_a_key_and_the_id_minted_for_it_lead_to_one_broker),
        cmocka_unit_test(test_results_that_nobody_takes_stop_the_broker),
        cmocka_unit_test(test_threads_share_a_client),
        cmocka_unit_test(test_a_child_of_fork_has_no_client),
        cmocka_unit_test(test_json_becomes_msgpack_and_back),
        cmocka_unit_test(test_ids_have_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
