#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/fake_host.h"
#include "tests/support/in_loop.h"

static struct sel_fake *fake;
static char folder[512]; /* of each test, empty at its begin */

static int setup(void **state)
{
    static struct sel_fake the_fake;
    (void)state;
    fake = &the_fake;
    sel_fake_init(fake);
    snprintf(folder, sizeof(folder), "%s/io-XXXXXX", SEL_TEST_MODULES);
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    sel_fake_done(fake);
    return rmdir(folder); /* a test that leaves something behind fails */
}

static const char *in_folder(const char *name)
{
    const char *path = sel_arena_printf(&fake->arena, "%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static bool is_root(void)
{
    return geteuid() == 0;
}

/* ---- files ---- */

static void check_round_trip(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    const char *path = in_folder("file");
    const size_t sizes[] = {0, 1, 4096, 8191, 8192, 8193, 300000};
    for (size_t i = 0; i < SEL_COUNT(sizes); i++) {
        size_t n = sizes[i];
        char *text = sel_alloc(task, n);
        for (size_t k = 0; k < n; k++)
            text[k] = (char)(k * 7 + i);
        assert_ok(sel_write_file(task, path, text, n, i % 2 == 0));
        struct sel_bytes bytes;
        assert_ok(sel_read_file(task, path, &bytes));
        assert_int_equal(bytes.n, n);
        assert_memory_equal(bytes.p, text, n);
        struct sel_file_info info;
        assert_ok(sel_stat(task, path, &info));
        assert_int_equal(info.size, n);
        assert_true(info.is_file && !info.is_dir);
        assert_true(info.modified_unix_us > INT64_C(1600000000000000));
    }
    const struct sel_value *names;
    assert_ok(sel_list_dir(task, folder, &names)); /* and no temporary file */
    assert_json(names, "[\"file\"]");
    assert_ok(sel_remove(task, path));
}

static void test_what_is_written_is_read_back(void **state)
{
    (void)state;
    sel_in_both(check_round_trip, NULL);
}

static void check_proc(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_bytes bytes;
    assert_ok(sel_read_file(task, "/proc/self/status", &bytes)); /* says that its size is 0 */
    assert_true(bytes.n > 100);
    assert_memory_equal(bytes.p, "Name:", 5);
}

static void test_files_without_a_size_are_read_to_their_end(void **state)
{
    (void)state;
    sel_in_both(check_proc, NULL);
}

static void check_descriptors(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    const char *path = in_folder("file");
    int fd = sel_open(task, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    char text[8] = {0};
    assert_int_equal(sel_write(task, fd, "abcdef", 6, -1), 6);
    assert_int_equal(sel_write(task, fd, "XY", 2, 2), 2);
    assert_int_equal(sel_read(task, fd, text, 4, 1), 4);
    assert_memory_equal(text, "bXYe", 4);
    assert_int_equal(sel_read(task, fd, text, 4, 6), 0); /* the end */
    assert_ok(sel_fsync(task, fd));
    assert_ok(sel_close(task, fd));
    assert_code((int)sel_read(task, 9999, text, 1, -1), SEL_ERR_FAILED);
    assert_noted(task, "OSError", "read from descriptor 9999");
    assert_ok(sel_remove(task, path));
}

static void test_descriptors_are_read_and_written_at_offsets(void **state)
{
    (void)state;
    sel_in_both(check_descriptors, NULL);
}

static void check_folders(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    assert_ok(sel_make_dirs(task, in_folder("a/b//c/"), 0700));
    assert_ok(sel_make_dirs(task, in_folder("a/b"), 0700)); /* is there */
    assert_ok(sel_write_file(task, in_folder("a/z"), "", 0, false));
    assert_ok(sel_write_file(task, in_folder("a/Z"), "", 0, false));
    assert_ok(sel_rename(task, in_folder("a/z"), in_folder("a/\xc3\xa4")));
    const struct sel_value *names;
    assert_ok(sel_list_dir(task, in_folder("a"), &names));
    assert_json(names, "[\"Z\",\"b\",\"\xc3\xa4\"]");
    assert_ok(sel_list_dir(task, in_folder("a/b/c"), &names));
    assert_json(names, "[]");
    struct sel_file_info info;
    assert_ok(sel_stat(task, in_folder("a"), &info));
    assert_true(info.is_dir && !info.is_file);
    static const char *const rest[] = {"a/b/c", "a/b", "a/Z", "a/\xc3\xa4", "a"};
    for (size_t i = 0; i < SEL_COUNT(rest); i++)
        assert_ok(sel_remove(task, in_folder(rest[i])));
}

static void test_folders_are_made_listed_and_removed(void **state)
{
    (void)state;
    sel_in_both(check_folders, NULL);
}

static void check_classes(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_bytes bytes;
    struct sel_file_info info;
    const struct sel_value *names;
    assert_ok(sel_write_file(task, in_folder("file"), "x", 1, false));
    assert_code(sel_read_file(task, in_folder("absent"), &bytes), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "/absent': ");
    assert_code(sel_read_file(task, folder, &bytes), SEL_ERR_FAILED);
    assert_noted(task, "IsADirectory", folder);
    assert_code(sel_read_file(task, in_folder("file/x"), &bytes), SEL_ERR_FAILED);
    assert_noted(task, "NotADirectory", "read");
    assert_code(sel_stat(task, in_folder("absent"), &info), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "stat");
    assert_code(sel_open(task, in_folder("file"), O_CREAT | O_EXCL | O_WRONLY, 0600),
                SEL_ERR_FAILED);
    assert_noted(task, "FileExists", "open");
    assert_code(sel_list_dir(task, in_folder("file"), &names), SEL_ERR_FAILED);
    assert_noted(task, "NotADirectory", "list");
    assert_code(sel_list_dir(task, in_folder("absent"), &names), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "list");
    assert_code(sel_make_dirs(task, in_folder("file/x"), 0700), SEL_ERR_FAILED);
    assert_noted(task, "NotADirectory", "make folder");
    assert_code(sel_make_dirs(task, in_folder("file"), 0700), SEL_ERR_FAILED);
    assert_noted(task, "FileExists", "make folder");
    assert_code(sel_make_dirs(task, "", 0700), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "make folder ''");
    assert_code(sel_rename(task, in_folder("absent"), in_folder("b")), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "rename");
    assert_code(sel_write_file(task, in_folder("absent/x"), "x", 1, false), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "write");
    assert_ok(sel_make_dirs(task, in_folder("dir"), 0700));
    assert_code(sel_write_file(task, in_folder("dir"), "x", 1, false), SEL_ERR_FAILED);
    assert_noted(task, "IsADirectory", "write"); /* and the temporary file is gone: teardown */
    assert_code((int)sel_write(task, open("/dev/full", O_WRONLY), "x", 1, -1), SEL_ERR_FAILED);
    assert_noted(task, "DiskFull", "write to descriptor");
    if (!is_root()) { /* who may do everything is refused nothing */
        assert_code(sel_read_file(task, "/etc/shadow", &bytes), SEL_ERR_FAILED);
        assert_noted(task, "PermissionDenied", "/etc/shadow");
    }
    assert_ok(sel_remove(task, in_folder("dir")));
    assert_ok(sel_remove(task, in_folder("file")));
    assert_code(sel_remove(task, in_folder("file")), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "remove");
}

static void test_errors_have_classes_that_a_flow_can_react_to(void **state)
{
    (void)state;
    sel_in_both(check_classes, NULL);
}

static void check_too_large(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    const char *path = in_folder("sparse");
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)SEL_READ_FILE_MAX + 1), 0);
    close(fd);
    struct sel_bytes bytes;
    assert_code(sel_read_file(task, path, &bytes), SEL_ERR_FAILED);
    assert_noted(task, "TooLarge", "sparse");
    assert_ok(sel_remove(task, path));
}

static void test_a_file_over_the_limit_is_not_read(void **state)
{
    (void)state;
    sel_in_both(check_too_large, NULL);
}

static void check_foreign_name(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *names;
    const char *path = in_folder("caf\xe9");
    assert_ok(sel_write_file(task, path, "", 0, false));
    assert_code(sel_list_dir(task, folder, &names), SEL_ERR_FAILED);
    assert_noted(task, "OSError", "name 'caf?' is not UTF-8");
    assert_ok(sel_remove(task, path));
}

static void test_a_name_that_no_text_can_hold_is_an_error(void **state)
{
    (void)state;
    sel_in_both(check_foreign_name, NULL);
}

/* ---- time ---- */

static void check_sleep(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    int64_t begin_us = sel_now_us(task);
    assert_ok(sel_sleep(task, 0.002));
    assert_true(sel_now_us(task) - begin_us >= 2000);
    assert_ok(sel_sleep(task, 0.0));
    assert_ok(sel_sleep(task, -1.0));
    assert_code(sel_sleep(task, NAN), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "NaN");
}

static void test_sleeping_takes_its_time(void **state)
{
    (void)state;
    sel_in_both(check_sleep, NULL);
}

/* ---- sockets ---- */

/* Answers one connection with what it gets, in capitals, until the peer stops. */
static void *serve_once(void *arg)
{
    int listener = *(int *)arg;
    int fd = accept(listener, NULL, NULL);
    char text[256];
    ssize_t n;
    while ((n = recv(fd, text, sizeof(text), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            text[i] = (char)(text[i] - 'a' + 'A');
        if (send(fd, text, (size_t)n, MSG_NOSIGNAL) < 0)
            break;
    }
    close(fd);
    return NULL;
}

static int listen_tcp(uint16_t *ret_port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &n), 0);
    *ret_port = ntohs(addr.sin_port);
    return fd;
}

static void converse(struct sel_task *task, int fd)
{
    assert_true(fd >= 0);
    char text[8];
    assert_int_equal(sel_send(task, fd, "hello", 5), 5);
    size_t got = 0;
    while (got < 5) {
        int64_t n = sel_recv(task, fd, text + got, 5 - got, 5.0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_memory_equal(text, "HELLO", 5);
    assert_int_equal((int)sel_recv(task, fd, text, 1, 0.001), SEL_ERR_FAILED);
    assert_noted(task, "TimeoutError", "receive from");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_int_equal(sel_recv(task, fd, text, 1, 5.0), 0); /* the peer has closed */
    assert_ok(sel_close(task, fd));
}

static void check_tcp(void *arg)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    for (size_t i = 0; i < SEL_COUNT(hosts); i++) {
        uint16_t port;
        int listener = listen_tcp(&port);
        pthread_t server;
        assert_int_equal(pthread_create(&server, NULL, serve_once, &listener), 0);
        converse(task, sel_connect(task, hosts[i], port, 5.0));
        pthread_join(server, NULL);
        close(listener);
        assert_code(sel_connect(task, hosts[i], port, 5.0), SEL_ERR_FAILED);
        assert_noted(task, "ConnectionError", hosts[i]);
    }
    assert_code(sel_connect(task, "no such host", 1, 5.0), SEL_ERR_FAILED);
    assert_noted(task, "NameError", "no such host");
}

static void test_tcp_connections(void **state)
{
    (void)state;
    sel_in_both(check_tcp, NULL);
}

static void check_unix(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    static const char path[] = "socket"; /* the folder's own path may be too long */
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, path, sizeof(path));
    int home = open(".", O_PATH | O_CLOEXEC);
    assert_true(home >= 0);
    assert_int_equal(chdir(folder), 0);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(listener, 4), 0);
    pthread_t server;
    assert_int_equal(pthread_create(&server, NULL, serve_once, &listener), 0);
    converse(task, sel_connect_unix(task, path));
    pthread_join(server, NULL);
    close(listener);
    assert_code(sel_connect_unix(task, path), SEL_ERR_FAILED); /* nobody listens any more */
    assert_noted(task, "ConnectionError", path);
    assert_int_equal(unlink(path), 0);
    assert_code(sel_connect_unix(task, path), SEL_ERR_FAILED);
    assert_noted(task, "ConnectionError", path);
    char long_path[300];
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    assert_code(sel_connect_unix(task, long_path), SEL_ERR_FAILED);
    assert_noted(task, "ConnectionError", "1 to 107 bytes");
    assert_int_equal(fchdir(home), 0);
    close(home);
}

static void test_unix_connections(void **state)
{
    (void)state;
    sel_in_both(check_unix, NULL);
}

static void check_gone_peer(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[1]);
    assert_int_equal((int)sel_send(task, pair[0], "x", 1), SEL_ERR_FAILED); /* and no SIGPIPE */
    assert_noted(task, "ConnectionError", "send to");
    assert_ok(sel_close(task, pair[0]));
}

static void test_sending_to_a_peer_that_is_gone_is_an_error(void **state)
{
    (void)state;
    sel_in_both(check_gone_peer, NULL);
}

/* ---- subprocesses ---- */

static void check_run(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_run_result result;
    const char *const tr[] = {"tr", "a-z", "A-Z", NULL};
    assert_ok(sel_run(task, tr, (struct sel_bytes){"shout", 5}, 10.0, 100, &result));
    assert_int_equal(result.exit_status, 0);
    assert_int_equal(result.out.n, 5);
    assert_memory_equal(result.out.p, "SHOUT", 5);
    assert_int_equal(result.err.n, 0);

    const char *const fails[] = {"sh", "-c", "echo no >&2; exit 4", NULL};
    assert_ok(sel_run(task, fails, (struct sel_bytes){0}, 0.0, 100, &result));
    assert_int_equal(result.exit_status, 4);
    assert_memory_equal(result.err.p, "no\n", 3);

    const char *const absent[] = {"sel-no-such-program", NULL};
    assert_code(sel_run(task, absent, (struct sel_bytes){0}, 0.0, 1, &result), SEL_ERR_FAILED);
    assert_noted(task, "FileNotFound", "run 'sel-no-such-program'");
    const char *const slow[] = {"sleep", "1000", NULL};
    assert_code(sel_run(task, slow, (struct sel_bytes){0}, 0.01, 1, &result), SEL_ERR_FAILED);
    assert_noted(task, "TimeoutError", "0.01 s");
    const char *const loud[] = {"yes", NULL};
    assert_code(sel_run(task, loud, (struct sel_bytes){0}, 0.0, 1, &result), SEL_ERR_FAILED);
    assert_noted(task, "TooLarge", "more than 1 bytes");
    const char *const none[] = {NULL};
    assert_code(sel_run(task, none, (struct sel_bytes){0}, 0.0, 1, &result), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "no program");
}

static void test_programs_are_run(void **state)
{
    (void)state;
    sel_in_both(check_run, NULL);
}

/* ---- cancellation ---- */

static void use_everything_cancelled(void *arg)
{
    int *count = arg;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_bytes bytes;
    struct sel_file_info info;
    struct sel_run_result result;
    const struct sel_value *v;
    const char *const argv[] = {"true", NULL};
    char byte = 0;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_code(sel_sleep(task, 1000.0), SEL_ERR_CANCELED);
    assert_true(sel_task_is_cancelled(task));
    assert_noted(task, "Cancelled", "cancelled");
    const int64_t results[] = {
        sel_sleep(task, 1.0),
        sel_read_file(task, "/etc/passwd", &bytes),
        sel_write_file(task, in_folder("never"), "x", 1, false),
        sel_open(task, "/etc/passwd", O_RDONLY, 0),
        sel_read(task, fd, &byte, 1, -1),
        sel_write(task, fd, &byte, 1, -1),
        sel_fsync(task, fd),
        sel_stat(task, "/", &info),
        sel_list_dir(task, "/", &v),
        sel_make_dirs(task, in_folder("never"), 0700),
        sel_rename(task, in_folder("a"), in_folder("b")),
        sel_remove(task, in_folder("a")),
        sel_connect(task, "127.0.0.1", 1, 1.0),
        sel_connect_unix(task, "/nowhere"),
        sel_send(task, fd, &byte, 1),
        sel_recv(task, fd, &byte, 1, 1.0),
        sel_run(task, argv, (struct sel_bytes){0}, 1.0, 1, &result),
    };
    for (size_t i = 0; i < SEL_COUNT(results); i++) {
        if (results[i] != SEL_ERR_CANCELED)
            fail_msg("call %zu gave %d", i, (int)results[i]);
        ++*count;
    }
    assert_ok(sel_close(task, fd)); /* closing always works */
    struct sel_exec_result outcome;
    sel_task_take_result(task, SEL_ERR_CANCELED, &outcome);
    assert_int_equal(outcome.outcome, SEL_EXEC_CANCELED);
    sel_task_done(task);
}

static void check_cancelled(void *arg)
{
    struct sel_co *co;
    assert_ok(sel_loop_spawn(sel_loop_current(), use_everything_cancelled, arg, &co));
    sel_loop_yield();
    sel_loop_cancel(sel_loop_current(), co);
}

static void test_after_a_cancellation_every_call_says_so(void **state)
{
    (void)state;
    int count = 0;
    sel_in_loop(check_cancelled, &count);
    assert_int_equal(count, 17);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_written_is_read_back),
        TEST(test_files_without_a_size_are_read_to_their_end),
        TEST(test_descriptors_are_read_and_written_at_offsets),
        TEST(test_folders_are_made_listed_and_removed),
        TEST(test_errors_have_classes_that_a_flow_can_react_to),
        TEST(test_a_file_over_the_limit_is_not_read),
        TEST(test_a_name_that_no_text_can_hold_is_an_error),
        TEST(test_sleeping_takes_its_time),
        TEST(test_tcp_connections),
        TEST(test_unix_connections),
        TEST(test_sending_to_a_peer_that_is_gone_is_an_error),
        TEST(test_programs_are_run),
        TEST(test_after_a_cancellation_every_call_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
