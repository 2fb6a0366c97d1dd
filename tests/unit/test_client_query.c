/* One question, one answer: against a broker's endpoint by hand. */
#include "tests/support/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include <zmq.h>

#include <selinon/client.h>

#include "client/query.h"
#include "core/json.h"
#include "proto/wire.h"

#define SECOND_US 1000000

/* A ROUTER that answers each question with the frames of `answer`. */
struct end {
    void *zmq, *socket;
    char endpoint[128];
    pthread_t thread;
    void (*answer)(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame);
    uint32_t frames; /* of an answer */
    uint32_t i;
    char asked[128];
};

static void reply(struct sel_buf *frame, uint64_t n, bool more, const char *json)
{
    struct sel_arena arena = {0};
    struct sel_wire_reply answer = {.n = n, .more = more, .body = sel_test_json(&arena, json)};
    sel_wire_encode_reply(&answer, frame);
    sel_arena_done(&arena);
}

static void *serve(void *arg)
{
    struct end *end = arg;
    char id[64], question[512];
    for (;;) {
        int id_size = zmq_recv(end->socket, id, sizeof(id), 0);
        int n = id_size < 0 ? -1 : zmq_recv(end->socket, question, sizeof(question), 0);
        if (n <= 0) /* the context ends */
            return NULL;
        struct sel_arena arena = {0};
        struct sel_wire_query query = {0};
        struct sel_error err;
        assert_ok(
            sel_wire_decode_query(&arena, (struct sel_str){question, (size_t)n}, &query, &err));
        const struct sel_value *id_arg = sel_value_get_c(&query.args, "id");
        size_t at = strlen(end->asked);
        (void)snprintf(end->asked + at, sizeof(end->asked) - at, "%.*s %.*s, ",
                       SEL_STR_ARG(query.what),
                       SEL_STR_ARG(id_arg ? sel_value_str(id_arg) : SEL_STR("-")));
        for (end->i = 0; end->i < end->frames; end->i++) {
            struct sel_buf frame = {0};
            end->answer(end, &query, &frame);
            (void)zmq_send(end->socket, id, (size_t)id_size, ZMQ_SNDMORE);
            (void)zmq_send(end->socket, frame.p, frame.n, 0);
            sel_buf_done(&frame);
        }
        sel_arena_done(&arena);
    }
}

static struct end *end_start(uint32_t frames,
                             void (*answer)(struct end *end, const struct sel_wire_query *query,
                                            struct sel_buf *frame))
{
    static struct end end;
    size_t size = sizeof(end.endpoint);
    end = (struct end){.answer = answer, .frames = frames, .zmq = zmq_ctx_new()};
    end.socket = zmq_socket(end.zmq, ZMQ_ROUTER);
    int linger = 0;
    (void)zmq_setsockopt(end.socket, ZMQ_LINGER, &linger, sizeof(linger));
    assert_int_equal(zmq_bind(end.socket, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(end.socket, ZMQ_LAST_ENDPOINT, end.endpoint, &size), 0);
    assert_int_equal(pthread_create(&end.thread, NULL, serve, &end), 0);
    return &end;
}

static void end_stop(struct end *end)
{
    assert_int_equal(zmq_ctx_shutdown(end->zmq), 0);
    assert_int_equal(pthread_join(end->thread, NULL), 0);
    (void)zmq_close(end->socket);
    assert_int_equal(zmq_ctx_term(end->zmq), 0);
}

/* Asks `end`; the answer as JSON, or the code. */
static int ask(struct end *end, const char *what, const char *args, int64_t timeout_us,
               char json[256], struct sel_error *err)
{
    struct sel_client_query *query = NULL;
    struct sel_arena arena = {0};
    struct sel_value body, value;
    if (args)
        value = sel_test_json(&arena, args);
    assert_ok(sel_client_query_open(end->endpoint, &query, err));
    int r = sel_client_query_ask(query, what, args ? &value : NULL, timeout_us, &arena, &body, err);
    if (r == 0)
        (void)snprintf(json, 256, "%s", sel_test_json_text(&arena, &body));
    assert_null(sel_client_query_close(query));
    sel_arena_done(&arena);
    return r;
}

static void answer_status(struct end *end, const struct sel_wire_query *query,
                          struct sel_buf *frame)
{
    (void)end;
    reply(frame, query->n, false, "{\"tasks\": 3}");
}

static void test_an_answer_comes_back(void **state)
{
    (void)state;
    struct end *end = end_start(1, answer_status);
    char json[256];
    struct sel_error err;
    assert_ok(ask(end, "status", NULL, 10 * SECOND_US, json, &err));
    assert_string_equal(json, "{\"tasks\":3}");
    assert_ok(ask(end, "task", "{\"id\": \"x\"}", 10 * SECOND_US, json, &err));
    end_stop(end);
    assert_string_equal(end->asked, "status -, task x, ");
}

/* The first is an answer to a question of earlier. */
static void answer_late_and_in_parts(struct end *end, const struct sel_wire_query *query,
                                     struct sel_buf *frame)
{
    static const char *const parts[] = {"[\"old\"]", "[1, 2]", "[]", "[3]"};
    reply(frame, end->i == 0 ? query->n + 7 : query->n, end->i < 3, parts[end->i]);
}

static void test_parts_are_joined_and_old_answers_ignored(void **state)
{
    (void)state;
    struct end *end = end_start(4, answer_late_and_in_parts);
    char json[256];
    struct sel_error err;
    assert_ok(ask(end, "queues", NULL, 10 * SECOND_US, json, &err));
    assert_string_equal(json, "[1,2,3]");
    end_stop(end);
}

static void refuse(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    (void)end;
    struct sel_wire_reply answer = {
        .n = query->n, .code = SEL_CODE_UNKNOWN_TASK, .text = SEL_STR("no such task")};
    sel_wire_encode_reply(&answer, frame);
}

static void say_error(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    (void)end;
    (void)query;
    struct sel_wire_error error = {.code = SEL_CODE_UNKNOWN_SESSION, .text = SEL_STR("say HELLO")};
    sel_wire_encode_error(&error, frame);
}

static void say_goodbye(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    (void)end;
    (void)query;
    sel_wire_encode_goodbye(&(struct sel_wire_goodbye){.session = 1}, frame);
}

static void say_rubbish(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    (void)end;
    (void)query;
    sel_buf_put_c(frame, "HTTP/1.1 400");
}

static void part_of_no_list(struct end *end, const struct sel_wire_query *query,
                            struct sel_buf *frame)
{
    (void)end;
    reply(frame, query->n, true, "{}");
}

static void test_what_is_no_answer_is_told(void **state)
{
    (void)state;
    const struct {
        void (*answer)(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame);
        int code;
        const char *text;
    } cases[] = {
        {refuse, SEL_EREQUEST, "says: no such task (unknown task)"},
        {say_error, SEL_EREQUEST, "says: say HELLO (unknown session); is that its"},
        {say_goodbye, SEL_EFORMAT, "is that its endpoint for queries?"},
        {say_rubbish, SEL_EFORMAT, ""},
        {part_of_no_list, SEL_EFORMAT, "no list in parts"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct end *end = end_start(1, cases[i].answer);
        char json[256];
        struct sel_error err;
        assert_code(ask(end, "status", NULL, 10 * SECOND_US, json, &err), cases[i].code);
        if (!strstr(err.text, cases[i].text))
            fail_msg("got '%s', expected '%s'", err.text, cases[i].text);
        end_stop(end);
    }
}

static void test_silence_names_the_endpoint_and_what_to_do(void **state)
{
    (void)state;
    struct end *end = end_start(0, NULL);
    char json[256];
    struct sel_error err;
    assert_code(ask(end, "status", NULL, 20000, json, &err), SEL_ETIMEOUT);
    assert_non_null(strstr(err.text, end->endpoint));
    assert_non_null(strstr(err.text, "within 0.02 s"));
    assert_non_null(strstr(err.text, "SELINON_BROKER_QUERY"));
    end_stop(end);
}

static void test_what_is_no_endpoint_is_refused(void **state)
{
    (void)state;
    struct sel_client_query *query = NULL;
    struct sel_error err;
    assert_code(sel_client_query_open("localhost", &query, &err), -EINVAL);
    assert_string_equal(err.text,
                        "'localhost' is no endpoint; write tcp://HOST:PORT or ipc://PATH");
    assert_null(query);
}

/* ---- the nodes of a flow ---- */

static const struct sel_client_id flow_id = {{1, 2, 3}};

/* Asks `end` for page `page`; 0, or the error with its text. */
static int ask_nodes(struct end *end, uint32_t page, int64_t timeout_us,
                     struct sel_client_nodes **ret, char *error)
{
    struct sel_client_asker *asker = NULL;
    error[0] = '\0';
    assert_int_equal(sel_client_asker_open(end->endpoint, &asker, error), 0);
    int r = sel_client_flow_nodes(asker, &flow_id, page, timeout_us, ret, error);
    sel_client_asker_close(asker);
    return r;
}

static void answer_page(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    int64_t page = -1;
    (void)end;
    assert_true(sel_value_i64(sel_value_get_c(&query->args, "page"), &page));
    reply(frame, query->n, false,
          page == 1 ? "{\"page\": 1, \"pages\": 2, \"active_nodes\": [{\"name\": \"A\", \"id\": "
                      "\"x\"}], \"finished_nodes\": {\"B\": [\"y\", \"z\"], \"C\": []}, "
                      "\"failed_nodes\": {\"A\": [\"w\"]}}"
                    : "{\"page\": 0, \"pages\": 0}");
}

static void test_a_page_of_nodes_is_a_list(void **state)
{
    (void)state;
    static const struct {
        uint32_t state;
        const char *name, *id;
    } expected[] = {
        {SEL_CLIENT_NODE_ACTIVE, "A", "x"},
        {SEL_CLIENT_NODE_FINISHED, "B", "y"},
        {SEL_CLIENT_NODE_FINISHED, "B", "z"},
        {SEL_CLIENT_NODE_FAILED, "A", "w"},
    };
    struct end *end = end_start(1, answer_page);
    struct sel_client_nodes *nodes = NULL;
    char error[SEL_CLIENT_ERROR_SIZE];
    assert_int_equal(ask_nodes(end, 1, SEL_CLIENT_FOREVER, &nodes, error), 0);
    assert_int_equal(nodes->page, 1);
    assert_int_equal(nodes->page_count, 2);
    assert_int_equal(nodes->count, SEL_COUNT(expected));
    for (uint32_t i = 0; i < nodes->count; i++) {
        assert_int_equal(nodes->nodes[i].state, expected[i].state);
        assert_string_equal(nodes->nodes[i].name.p, expected[i].name);
        assert_string_equal(nodes->nodes[i].id.p, expected[i].id);
        assert_int_equal(nodes->nodes[i].id.n, 1);
    }
    sel_client_nodes_free(nodes);
    assert_int_equal(ask_nodes(end, 0, 10 * SECOND_US, &nodes, error), 0);
    assert_int_equal(nodes->page_count, 0);
    assert_int_equal(nodes->count, 0);
    sel_client_nodes_free(nodes);
    sel_client_nodes_free(NULL);
    sel_client_asker_close(NULL);
    end_stop(end);
    assert_non_null(strstr(end->asked, "flow.nodes 01020300-0000-0000-0000-000000000000"));
}

static enum sel_wire_code code_now;

static void refuse_with_code(struct end *end, const struct sel_wire_query *query,
                             struct sel_buf *frame)
{
    (void)end;
    struct sel_wire_reply answer = {.n = query->n, .code = code_now, .text = SEL_STR("because")};
    sel_wire_encode_reply(&answer, frame);
}

static const char *odd_now;

static void answer_oddly(struct end *end, const struct sel_wire_query *query, struct sel_buf *frame)
{
    (void)end;
    reply(frame, query->n, false, odd_now);
}

static void test_refusals_of_nodes_are_errors_of_their_own(void **state)
{
    (void)state;
    static const struct {
        enum sel_wire_code code;
        int error;
    } codes[] = {{SEL_CODE_UNKNOWN_TASK, -ENOENT},
                 {SEL_CODE_ILLEGAL, -EAGAIN},
                 {SEL_CODE_MALFORMED, -EINVAL},
                 {SEL_CODE_UNSUPPORTED, -EPROTO}};
    static const char *const odd[] = {
        "[]",
        "{\"page\": 0}",
        "{\"page\": 0, \"pages\": -1}",
        "{\"page\": 0, \"pages\": 1}",
        "{\"page\": 0, \"pages\": 1, \"active_nodes\": [7], \"finished_nodes\": {}, "
        "\"failed_nodes\": {}}",
        "{\"page\": 0, \"pages\": 1, \"active_nodes\": [], \"finished_nodes\": {\"A\": 7}, "
        "\"failed_nodes\": {}}",
        "{\"page\": 0, \"pages\": 1, \"active_nodes\": [], \"finished_nodes\": {}, "
        "\"failed_nodes\": {\"A\": [7]}}",
    };
    struct sel_client_nodes *nodes = NULL;
    char error[SEL_CLIENT_ERROR_SIZE];
    for (size_t i = 0; i < SEL_COUNT(codes); i++) {
        code_now = codes[i].code;
        struct end *end = end_start(1, refuse_with_code);
        assert_int_equal(ask_nodes(end, 0, 10 * SECOND_US, &nodes, error), codes[i].error);
        assert_non_null(strstr(error, "because"));
        end_stop(end);
    }
    for (size_t i = 0; i < SEL_COUNT(odd); i++) {
        odd_now = odd[i];
        struct end *end = end_start(1, answer_oddly);
        assert_int_equal(ask_nodes(end, 0, 10 * SECOND_US, &nodes, error), -EPROTO);
        assert_non_null(strstr(error, "the broker's answer"));
        end_stop(end);
    }
    struct end *end = end_start(0, NULL);
    assert_int_equal(ask_nodes(end, 0, 20000, &nodes, error), -ETIMEDOUT);
    assert_non_null(strstr(error, end->endpoint));
    end_stop(end);
    struct sel_client_asker *asker = NULL;
    assert_int_equal(sel_client_asker_open("localhost", &asker, error), -EINVAL);
    assert_null(asker);
    assert_null(nodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_comes_back),
        cmocka_unit_test(test_parts_are_joined_and_old_answers_ignored),
        cmocka_unit_test(test_what_is_no_answer_is_told),
        cmocka_unit_test(test_silence_names_the_endpoint_and_what_to_do),
        cmocka_unit_test(test_what_is_no_endpoint_is_refused),
        cmocka_unit_test(test_a_page_of_nodes_is_a_list),
        cmocka_unit_test(test_refusals_of_nodes_are_errors_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
