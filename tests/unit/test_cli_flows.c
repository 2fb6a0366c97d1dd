/* `flows` and `status ID` against a broker that gives canned answers. */
#include "tests/support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <zmq.h>

#include "cli/cli.h"
#include "core/id.h"
#include "proto/wire.h"
#include "tests/support/flow_answers.h"

#define FLOWS 2500u /* that the broker has */
#define TASK_ID "0198f3c2-7b1c-7001-8000-000000000063"

/* The part of cli/main.c that commands need. */
int sel_cli_usage(const struct sel_cli *cli, const char *command, const char *text)
{
    fprintf(cli->err, "%s: %s\n", command, text);
    return SEL_CLI_USAGE;
}

struct end {
    void *zmq, *socket;
    char endpoint[128];
    pthread_t thread;
    char asked[4096];     /* the questions, one after the other */
    bool is_old;          /* knows no flows */
    pthread_mutex_t lock; /* of what both threads touch; ThreadSanitizer cannot see ZeroMQ's */
};

static int64_t arg_int(const struct sel_wire_query *query, const char *key)
{
    const struct sel_value *value = sel_value_get_c(&query->args, key);
    int64_t out = -1;
    return value && sel_value_is(value, SEL_INT) && sel_value_i64(value, &out) ? out : -1;
}

static struct sel_str arg_str(const struct sel_wire_query *query, const char *key)
{
    const struct sel_value *value = sel_value_get_c(&query->args, key);
    return value ? sel_value_str(value) : (struct sel_str){NULL, 0};
}

/* A page of flows in the order of their ids, whose lower half is a number. */
static struct sel_value flows_after(struct sel_arena *arena, const struct sel_wire_query *query)
{
    struct sel_id after = {0, 0};
    struct sel_value_builder map, list;
    struct sel_value answer, flows, row, id = sel_value_null;
    (void)sel_id_parse(arg_str(query, "after"), &after);
    uint64_t n = after.lo;
    sel_value_begin_list(&list, arena);
    for (int64_t i = 0; i < arg_int(query, "limit") && n < FLOWS; i++) {
        char text[SEL_ID_TEXT_SIZE];
        (void)sel_id_format((struct sel_id){UINT64_C(1) << 56, ++n}, text);
        id = sel_value_from_c(sel_arena_strdup(arena, sel_str_c(text)));
        sel_value_begin_map(&map, arena);
        sel_value_put_c(&map, "id", id);
        sel_value_put_c(&map, "name", sel_value_from_c("f"));
        sel_value_put_c(&map, "state", sel_value_from_c(n % 2 ? "running" : "failed"));
        sel_value_put_c(&map, "level", sel_value_from_u64(1));
        sel_value_put_c(&map, "age_us", sel_value_from_i64((int64_t)n * 1000000));
        assert_ok(sel_value_end(&map, &row));
        sel_value_add(&list, row);
    }
    assert_ok(sel_value_end(&list, &flows));
    sel_value_begin_map(&map, arena);
    sel_value_put_c(&map, "flows", flows);
    if (n < FLOWS)
        sel_value_put_c(&map, "next", id);
    assert_ok(sel_value_end(&map, &answer));
    return answer;
}

static struct sel_value about_flow(struct end *end, struct sel_arena *arena,
                                   const struct sel_wire_query *query, uint32_t *ret_code)
{
    struct sel_id id = {0, 0};
    (void)sel_id_parse(arg_str(query, "id"), &id);
    uint8_t last = (uint8_t)id.lo;
    if (sel_str_eq_c(query->what, "task"))
        return sel_test_json(arena, "{\"name\": \"T\", \"state\": \"queued\"}");
    if (!end->is_old && sel_str_eq_c(query->what, "flow") && last == 0x63)
        return sel_test_json(arena, "{\"task\": true, \"name\": \"T\"}");
    if (end->is_old || last != 0x2a)
        *ret_code = SEL_CODE_UNKNOWN_TASK;
    else if (sel_str_eq_c(query->what, "flow"))
        return flow_answers_flow(arena);
    else if (sel_str_eq_c(query->what, "flow.runs"))
        return flow_answers_runs(arena);
    else if (arg_int(query, "from") < 0) /* the history has two pages */
        return flow_answers_history(arena, 1, 2, 3);
    else
        return flow_answers_history(arena, 3, 3, -1);
    return sel_value_null;
}

static void note(struct end *end, const struct sel_wire_query *query)
{
    size_t at = strlen(end->asked);
    struct sel_arena arena = {0};
    struct sel_value_builder map;
    struct sel_value shown; /* what is no id */
    sel_value_begin_map(&map, &arena);
    for (uint32_t i = 0; sel_value_is(&query->args, SEL_MAP) && i < sel_value_count(&query->args);
         i++)
        if (!sel_str_eq_c(sel_value_str(sel_value_key_at(&query->args, i)), "after") &&
            (!sel_str_eq_c(sel_value_str(sel_value_key_at(&query->args, i)), "id") ||
             sel_str_eq_c(query->what, "task")))
            sel_value_put_key(&map, *sel_value_key_at(&query->args, i),
                              *sel_value_val_at(&query->args, i));
    assert_ok(sel_value_end(&map, &shown));
    (void)snprintf(end->asked + at, sizeof(end->asked) - at, "%.*s%s;", SEL_STR_ARG(query->what),
                   sel_test_json_text(&arena, &shown));
    sel_arena_done(&arena);
}

static void *serve(void *arg)
{
    struct end *end = arg;
    char id[64], question[1024];
    for (;;) {
        int id_size = zmq_recv(end->socket, id, sizeof(id), 0);
        int n = id_size < 0 ? -1 : zmq_recv(end->socket, question, sizeof(question), 0);
        if (n <= 0) /* the context ends */
            return NULL;
        struct sel_arena arena = {0};
        struct sel_wire_query query = {0};
        struct sel_buf frame = {0};
        assert_ok(
            sel_wire_decode_query(&arena, (struct sel_str){question, (size_t)n}, &query, NULL));
        pthread_mutex_lock(&end->lock);
        note(end, &query);
        struct sel_wire_reply reply = {.n = query.n, .text = SEL_STR("nobody knows it")};
        reply.body = sel_str_eq_c(query.what, "flows")
                         ? flows_after(&arena, &query)
                         : about_flow(end, &arena, &query, &reply.code);
        pthread_mutex_unlock(&end->lock);
        sel_wire_encode_reply(&reply, &frame);
        (void)zmq_send(end->socket, id, (size_t)id_size, ZMQ_SNDMORE);
        (void)zmq_send(end->socket, frame.p, frame.n, 0);
        sel_buf_done(&frame);
        sel_arena_done(&arena);
    }
}

static int setup(void **state)
{
    static struct end end;
    size_t size = sizeof(end.endpoint);
    const int linger = 0;
    end = (struct end){.zmq = zmq_ctx_new(), .lock = PTHREAD_MUTEX_INITIALIZER};
    end.socket = zmq_socket(end.zmq, ZMQ_ROUTER);
    (void)zmq_setsockopt(end.socket, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_bind(end.socket, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(end.socket, ZMQ_LAST_ENDPOINT, end.endpoint, &size), 0);
    assert_int_equal(pthread_create(&end.thread, NULL, serve, &end), 0);
    *state = &end;
    return 0;
}

static int teardown(void **state)
{
    struct end *end = *state;
    assert_int_equal(zmq_ctx_shutdown(end->zmq), 0);
    assert_int_equal(pthread_join(end->thread, NULL), 0);
    (void)zmq_close(end->socket);
    assert_int_equal(zmq_ctx_term(end->zmq), 0);
    return 0;
}

static const char *getenv_of(void *ctx, const char *name)
{
    const struct end *end = ctx;
    return strcmp(name, "SELINON_BROKER_QUERY") == 0 ? end->endpoint : NULL;
}

struct output {
    char *out, *err;
    size_t out_size, err_size;
};

static void output_done(struct output *output)
{
    free(output->out);
    free(output->err);
}

/* Runs the command; what it printed is freed by output_done. */
static void run(struct end *end, const struct sel_cli_command *command, int status,
                const char *const *words, struct output *output)
{
    struct sel_cli cli = {.program = "selinon-cli", .getenv = getenv_of, .getenv_ctx = end};
    const struct sel_cli_option_set set = {command->options, command->option_count, false};
    const struct sel_cli_environment environment = {getenv_of, end};
    struct sel_arena arena = {0};
    struct sel_error err = {.code = 0};
    char *argv[16] = {(char *)(uintptr_t)command->name};
    int argc = 1;
    *output = (struct output){0};
    for (; *words; words++)
        if (strcmp(*words, "-v") == 0)
            cli.verbosity++;
        else
            argv[argc++] = (char *)(uintptr_t)*words;
    cli.out = open_memstream(&output->out, &output->out_size);
    cli.err = open_memstream(&output->err, &output->err_size);
    void *values = sel_arena_alloc(&arena, command->values_size);
    if (command->defaults)
        memcpy(values, command->defaults, command->values_size);
    assert_int_equal(sel_cli_options_parse(&set, argc, argv, &environment, &arena, values, &err),
                     argc);
    pthread_mutex_lock(&end->lock);
    end->asked[0] = '\0';
    pthread_mutex_unlock(&end->lock);
    int r = command->run(&cli, values);
    pthread_mutex_lock(&end->lock); /* what the other thread wrote is seen from here on */
    pthread_mutex_unlock(&end->lock);
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    if (r != status)
        fail_msg("status %d, not %d: '%s', '%s'", r, status, output->out, output->err);
    sel_arena_done(&arena);
}

#define RUN(end, command, status, output, ...)                                                     \
    run((end), &sel_cli_cmd_##command, (status), (const char *const[]){__VA_ARGS__, NULL}, (output))

static void test_flows_are_listed_up_to_a_limit(void **state)
{
    struct end *end = *state;
    struct output output;
    RUN(end, flows, 0, &output, "--limit", "2");
    assert_string_equal(output.out,
                        "id                                    name  state    level   age_us\n"
                        "01000000-0000-0000-0000-000000000001  f     running  memory     1 s\n"
                        "01000000-0000-0000-0000-000000000002  f     failed   memory     2 s\n");
    assert_string_equal(output.err, "There are more than these: --limit.\n");
    assert_string_equal(end->asked, "flows{\"limit\":3};");
    output_done(&output);
}

static void test_long_lists_are_asked_for_in_pages(void **state)
{
    struct end *end = *state;
    struct sel_arena arena = {0};
    struct output output;
    RUN(end, flows, 0, &output, "--limit", "100000", "--name", "f", "--state", "running", "--json");
    struct sel_value list = sel_test_json(&arena, output.out);
    assert_int_equal(sel_value_count(&list), FLOWS);
    assert_json(sel_value_get_c(sel_value_at(&list, FLOWS - 1), "id"),
                "\"01000000-0000-0000-0000-0000000009c4\"");
    assert_string_equal(end->asked, "flows{\"limit\":1000,\"name\":\"f\",\"state\":\"running\"};"
                                    "flows{\"limit\":1000,\"name\":\"f\",\"state\":\"running\"};"
                                    "flows{\"limit\":1000,\"name\":\"f\",\"state\":\"running\"};");
    assert_string_equal(output.err, "");
    output_done(&output);
    sel_arena_done(&arena);
}

static void test_times_choose_flows(void **state)
{
    struct end *end = *state;
    struct sel_arena arena = {0};
    struct output output;
    RUN(end, flows, 0, &output, "--age", "2100.5", "--limit", "100000", "--json");
    struct sel_value list = sel_test_json(&arena, output.out);
    assert_int_equal(sel_value_count(&list), 2100); /* those of 1 to 2100 seconds */
    output_done(&output);
    RUN(end, flows, 0, &output, "--since", "2020-01-31T12:00:00Z", "--until",
        "2021-01-31T12:00:00Z");
    assert_string_equal(output.out, "No such flow.\n");
    output_done(&output);
    RUN(end, flows, 2, &output, "--since", "yesterday");
    assert_non_null(strstr(output.err, "--since: no time like"));
    output_done(&output);
    RUN(end, flows, 2, &output, "--since", "2020-01-31T12:00:00Z", "--age", "1");
    output_done(&output);
    sel_arena_done(&arena);
}

static void test_a_flow_is_asked_for_all_that_is_known(void **state)
{
    struct end *end = *state;
    struct sel_arena arena = {0};
    struct output output;
    RUN(end, status, 0, &output, FLOW_ANSWERS_ID);
    assert_string_equal(end->asked, "flow{};flow.runs{\"limit\":20};flow.history{};"
                                    "flow.history{\"from\":3};");
    assert_non_null(strstr(output.out, "\nNodes\nname  active"));
    assert_non_null(strstr(output.out, "\nWaits for\nordinal  name"));
    assert_non_null(strstr(output.out, "  1  the flow begins, A started 2x\n"));
    output_done(&output);
    RUN(end, status, 0, &output, FLOW_ANSWERS_ID, "--json");
    struct sel_value all = sel_test_json(&arena, output.out);
    assert_int_equal(sel_value_count(sel_value_get_c(&all, "history")), 3);
    assert_int_equal(sel_value_count(sel_value_get_c(&all, "waits_for")), 1);
    assert_string_equal(end->asked, "flow{};flow.runs{\"limit\":1000};flow.history{};"
                                    "flow.history{\"from\":3};");
    output_done(&output);
    sel_arena_done(&arena);
}

static void test_a_task_is_shown_as_ever(void **state)
{
    struct end *end = *state;
    struct output output;
    for (int i = 0; i < 2; i++) { /* also of a broker that knows no flows */
        end->is_old = i == 1;
        RUN(end, status, 0, &output, TASK_ID);
        assert_string_equal(output.out, "name   T\nstate  queued\n");
        assert_string_equal(end->asked, "flow{};task{\"id\":\"" TASK_ID "\"};");
        output_done(&output);
    }
    end->is_old = false;
    RUN(end, status, 2, &output, "0198");
    output_done(&output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flows_are_listed_up_to_a_limit),
        cmocka_unit_test(test_long_lists_are_asked_for_in_pages),
        cmocka_unit_test(test_times_choose_flows),
        cmocka_unit_test(test_a_flow_is_asked_for_all_that_is_known),
        cmocka_unit_test(test_a_task_is_shown_as_ever),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
