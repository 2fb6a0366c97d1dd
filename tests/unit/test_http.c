#include "tests/support/test.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/http.h"
#include "worker/loop.h"
#include "worker/offload.h"

/* ---- a server that says what a test gave it ---- */

struct server {
    struct sel_str response; /* n == 0 and `hangs`: none until the client goes */
    bool hangs;
    int fd;
    uint16_t port;
    pthread_t thread;
    char request[2048];
};

static void serve_one(struct server *server, int fd)
{
    size_t n = 0;
    while (n < sizeof(server->request) - 1 && !strstr(server->request, "\r\n\r\n")) {
        ssize_t got = recv(fd, server->request + n, sizeof(server->request) - 1 - n, 0);
        if (got <= 0)
            return;
        n += (size_t)got;
        server->request[n] = '\0';
    }
    for (struct sel_str rest = server->response; rest.n > 0;) {
        ssize_t sent = send(fd, rest.p, rest.n, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the client has heard enough */
        rest = (struct sel_str){rest.p + sent, rest.n - (size_t)sent};
    }
    char byte;
    if (server->hangs)
        (void)recv(fd, &byte, 1, 0); /* returns when the client closes */
}

static void *serve(void *arg)
{
    struct server *server = arg;
    for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
        serve_one(server, fd);
        (void)close(fd);
    }
    return NULL;
}

static void start(struct server *server)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(addr);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(server->fd >= 0);
    assert_int_equal(bind(server->fd, (struct sockaddr *)&addr, size), 0);
    assert_int_equal(listen(server->fd, 8), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&addr, &size), 0);
    server->port = ntohs(addr.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void stop(struct server *server)
{
    (void)shutdown(server->fd, SHUT_RDWR);
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    (void)close(server->fd);
}

/* ---- a client in a loop ---- */

struct client {
    struct sel_loop *loop;
    struct sel_value host, path, status;
    struct sel_co *co;
    struct sel_timer timer;
    int answer;
    bool cancels;
};

static void ask(void *arg)
{
    struct client *client = arg;
    client->answer = sel_http_head_status(&client->host, &client->path, &client->status);
    sel_loop_stop(client->loop);
}

static void on_timer(struct sel_loop *loop, struct sel_timer *timer)
{
    struct client *client = (struct client *)((char *)timer - offsetof(struct client, timer));
    sel_loop_cancel(loop, client->co);
}

static int run(struct client *client)
{
    struct sel_offload *offload = sel_offload_new(1, 4);
    struct sel_error err;
    assert_non_null(offload);
    assert_ok(sel_loop_new(&(struct sel_loop_options){.ring_entries = 16, .offload = offload},
                           &client->loop, &err));
    client->timer = (struct sel_timer)SEL_TIMER_INIT;
    client->timer.fn = on_timer;
    assert_ok(sel_loop_spawn(client->loop, ask, client, &client->co));
    if (client->cancels) /* soon enough for a test, late enough to be in the middle of it */
        assert_ok(sel_loop_timer_start(client->loop, &client->timer,
                                       sel_loop_now_us(client->loop) + 2000));
    sel_loop_run(client->loop);
    client->loop = sel_loop_free(client->loop);
    (void)sel_offload_free(offload);
    return client->answer;
}

static int ask_server(struct server *server, const char *host, const char *path, int status)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "%s:%u", host, server->port);
    struct client client = {
        .host = sel_value_from_c(text),
        .path = sel_value_from_c(path),
        .status = sel_value_from_i64(status),
    };
    return run(&client);
}

/* ---- tests ---- */

static void test_statuses_are_read_as_the_original_reads_them(void **state)
{
    (void)state;
    const struct {
        const char *response;
        int status; /* 0: none is understood */
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200},
        {"HTTP/1.0 204\n\n", 204},
        {"HTTP/1.1 301 Moved\r\nLocation: /else\r\n\r\n", 301},
        {"HTTP/1.1 418 I'm a teapot\r\nA: b\r\n", 418}, /* ends among the headers */
        {"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200},
        {"  HTTP/1.1   0200\tOK\r\n\r\n", 200},
        {"HTTP/0.9 200 OK\r\n\r\n", 200},
        {"HTTP/2 200 OK\r\n\r\n", 0},
        {"SSH-2.0-x\r\n", 0},
        {"HTTP/1.1\r\n\r\n", 0},
        {"HTTP/1.1 OK\r\n\r\n", 0},
        {"HTTP/1.1 2x0 OK\r\n\r\n", 0},
        {"HTTP/1.1 99 Low\r\n\r\n", 0},
        {"HTTP/1.1 1000 High\r\n\r\n", 0},
        {"HTTP/1.1 100 Continue\r\n\r\n", 0},
        {"", 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct server server = {.response = sel_str_c(cases[i].response)};
        int status = cases[i].status;
        start(&server);
        if (ask_server(&server, "127.0.0.1", "/", status ? status : 200) != (status != 0))
            fail_msg("'%s' should be %d", cases[i].response, status);
        assert_int_equal(ask_server(&server, "127.0.0.1", "/", 599), 0);
        stop(&server);
    }
}

static void test_endless_headers_and_lines_are_given_up(void **state)
{
    (void)state;
    struct sel_buf many = {0}, fits = {0}, wide = {0};
    sel_buf_put_c(&many, "HTTP/1.1 200 OK\r\n");
    sel_buf_put_c(&fits, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100; i++)
        sel_buf_put_c(i < 99 ? &fits : &many, "A: b\r\n");
    sel_buf_put_str(&many, sel_buf_str(&fits));
    sel_buf_put_c(&fits, "\r\n");
    sel_buf_put_c(&wide, "HTTP/1.1 200 OK\r\nA: ");
    for (int i = 0; i < 70000; i++)
        sel_buf_put_u8(&wide, 'b');
    sel_buf_put_c(&wide, "\r\n\r\n");
    struct sel_buf *const responses[] = {&many, &wide, &fits};
    for (size_t i = 0; i < SEL_COUNT(responses); i++) {
        struct server server = {.response = sel_buf_str(responses[i])};
        start(&server);
        assert_int_equal(ask_server(&server, "127.0.0.1", "/", 200), responses[i] == &fits);
        stop(&server);
        sel_buf_done(responses[i]);
    }
}

static void test_the_request_names_path_and_host(void **state)
{
    (void)state;
    const struct {
        const char *path, *line, *host; /* NULL: the address and port themselves */
    } cases[] = {
        {"/a?b=c", "HEAD /a?b=c HTTP/1.1\r\n", NULL},
        {"", "HEAD / HTTP/1.1\r\n", NULL},
        {"http", "HEAD http HTTP/1.1\r\n", NULL},
        {"http://else.example:81/x", "HEAD http://else.example:81/x HTTP/1.1\r\n",
         "else.example:81"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct server server = {.response = SEL_STR("HTTP/1.1 200 OK\r\n\r\n")};
        char own[32], expected[256];
        start(&server);
        assert_int_equal(ask_server(&server, "127.0.0.1", cases[i].path, 200), 1);
        (void)snprintf(own, sizeof(own), "127.0.0.1:%u", server.port);
        (void)snprintf(expected, sizeof(expected),
                       "%sHost: %s\r\nAccept-Encoding: identity\r\n\r\n", cases[i].line,
                       cases[i].host ? cases[i].host : own);
        stop(&server);
        assert_string_equal(server.request, expected);
    }
}

static void test_names_are_looked_up(void **state)
{
    (void)state;
    struct server server = {.response = SEL_STR("HTTP/1.1 200 OK\r\n\r\n")};
    start(&server);
    assert_int_equal(ask_server(&server, "localhost", "/", 200), 1);
    stop(&server);
}

static void test_what_cannot_be_asked_is_false(void **state)
{
    (void)state;
    const struct {
        const char *host, *path; /* JSON */
    } cases[] = {
        {"null", "\"/\""},
        {"5", "\"/\""},
        {"[\"127.0.0.1\"]", "\"/\""},
        {"\"\"", "\"/\""},
        {"\":80\"", "\"/\""},
        {"\"127.0.0.1:x\"", "\"/\""},
        {"\"127.0.0.1:0\"", "\"/\""},
        {"\"127.0.0.1:-1\"", "\"/\""},
        {"\"127.0.0.1:65536\"", "\"/\""},
        {"\"127.0.0.1 :1\"", "\"/\""},
        {"\"127.0.0.1\\r\\nX: y\"", "\"/\""},
        {"\"h\\u00e9.example\"", "\"/\""},
        {"\"127.0.0.1:1\"", "\"/u p\""},
        {"\"127.0.0.1:1\"", "\"/a\\r\\nX: y\""},
        {"\"127.0.0.1:1\"", "\"/\\u00e9\""},
        {"\"127.0.0.1:1\"", "7"},
        {"\"127.0.0.1:1\"", "\"/\""}, /* nobody listens */
    };
    struct sel_arena arena = {0};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct client client = {
            .host = sel_test_json(&arena, cases[i].host),
            .path = sel_test_json(&arena, cases[i].path),
            .status = sel_value_from_i64(200),
        };
        assert_int_equal(run(&client), 0);
    }
    sel_arena_done(&arena);
}

static void test_the_expected_status_is_compared_as_a_value(void **state)
{
    (void)state;
    const struct {
        const char *status;
        int answer;
    } cases[] = {{"200", 1}, {"200.0", 1}, {"\"200\"", 0}, {"null", 0}, {"[200]", 0}};
    struct server server = {.response = SEL_STR("HTTP/1.1 200 OK\r\n\r\n")};
    struct sel_arena arena = {0};
    start(&server);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char host[32];
        (void)snprintf(host, sizeof(host), "127.0.0.1:%u", server.port);
        struct client client = {
            .host = sel_value_from_c(host),
            .path = sel_value_null, /* as good as "/" */
            .status = sel_test_json(&arena, cases[i].status),
        };
        assert_int_equal(run(&client), cases[i].answer);
    }
    stop(&server);
    sel_arena_done(&arena);
}

static void test_a_cancelled_wait_says_so(void **state)
{
    (void)state;
    struct server server = {.hangs = true};
    char host[32];
    start(&server);
    (void)snprintf(host, sizeof(host), "127.0.0.1:%u", server.port);
    struct client client = {
        .host = sel_value_from_c(host),
        .path = sel_value_from_c("/"),
        .status = sel_value_from_i64(200),
        .cancels = true,
    };
    assert_code(run(&client), SEL_ECANCELED);
    stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses_are_read_as_the_original_reads_them),
        cmocka_unit_test(test_endless_headers_and_lines_are_given_up),
        cmocka_unit_test(test_the_request_names_path_and_host),
        cmocka_unit_test(test_names_are_looked_up),
        cmocka_unit_test(test_what_cannot_be_asked_is_false),
        cmocka_unit_test(test_the_expected_status_is_compared_as_a_value),
        cmocka_unit_test(test_a_cancelled_wait_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
