/* The suspending calls of worker/loop.h: files, sockets, time limits, cancellation. What a
 * coroutine expects is a SEL_ASSERT: cmocka's asserts jump, and must not jump from one stack to
 * another. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/test.h"
#include "worker/loop.h"
#include "worker/offload.h"

static struct sel_loop *make_loop(struct sel_offload *offload)
{
    struct sel_loop_options options = {.ring_entries = 16, .offload = offload};
    struct sel_loop *loop = NULL;
    struct sel_error err = {0};
    if (sel_loop_new(&options, &loop, &err) < 0)
        fail_msg("%s", err.text);
    return loop;
}

static struct sel_co *spawn(struct sel_loop *loop, sel_co_fn fn, void *arg)
{
    struct sel_co *co = NULL;
    SEL_ASSERT(sel_loop_spawn(loop, fn, arg, &co) == 0);
    return co;
}

/* Runs fn(arg) as a coroutine, and what it spawns, to the end. */
static void run(sel_co_fn fn, void *arg)
{
    struct sel_loop *loop = make_loop(NULL);
    (void)spawn(loop, fn, arg);
    sel_loop_stop(loop);
    sel_loop_run(loop);
    assert_null(sel_loop_free(loop));
}

/* ---- files ---- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strncpy(folder, "/tmp/selinon-test-XXXXXX", sizeof(folder) - 1);
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static void write_move_and_read(void *arg)
{
    (void)arg;
    char text[32] = "";
    struct statx stat;
    SEL_ASSERT(sel_co_mkdir("d", 0700) == 0);
    SEL_ASSERT(sel_co_mkdir("d", 0700) == -EEXIST);
    int fd = sel_co_openat(AT_FDCWD, "d/a", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    SEL_ASSERT(fd >= 0);
    SEL_ASSERT(sel_co_write(fd, "hello", 5, -1) == 5);
    SEL_ASSERT(sel_co_write(fd, "HE", 2, 0) == 2);
    SEL_ASSERT(sel_co_write(fd, "!", 1, 5) == 1);
    SEL_ASSERT(sel_co_fsync(fd) == 0);
    SEL_ASSERT(sel_co_read(fd, text, sizeof(text), 0) == 6); /* a short read */
    SEL_ASSERT(memcmp(text, "HEllo!", 6) == 0);
    SEL_ASSERT(sel_co_read(fd, text, sizeof(text), 6) == 0);
    SEL_ASSERT(sel_co_close(fd) == 0);
    SEL_ASSERT(sel_co_close(fd) == -EBADF);
    SEL_ASSERT(sel_co_link("d/a", "d/b") == 0);
    SEL_ASSERT(sel_co_link("d/a", "d/b") == -EEXIST);
    SEL_ASSERT(sel_co_rename("d/a", "d/c") == 0);
    SEL_ASSERT(sel_co_statx(AT_FDCWD, "d/c", 0, STATX_SIZE | STATX_NLINK, &stat) == 0);
    SEL_ASSERT(stat.stx_size == 6 && stat.stx_nlink == 2);
    SEL_ASSERT(sel_co_unlink("d/b", 0) == 0);
    SEL_ASSERT(sel_co_unlink("d", 0) == -EISDIR);
    SEL_ASSERT(sel_co_unlink("d", AT_REMOVEDIR) == -ENOTEMPTY);
    SEL_ASSERT(sel_co_unlink("d/c", 0) == 0);
    SEL_ASSERT(sel_co_unlink("d", AT_REMOVEDIR) == 0);
}

static void test_files_are_written_moved_and_read(void **state)
{
    (void)state;
    run(write_move_and_read, NULL);
}

static void meet_errors(void *arg)
{
    (void)arg;
    char byte;
    struct statx stat;
    SEL_ASSERT(sel_co_openat(AT_FDCWD, "absent/x", O_RDONLY, 0) == -ENOENT);
    SEL_ASSERT(sel_co_openat(AT_FDCWD, "/", O_WRONLY, 0) == -EISDIR);
    SEL_ASSERT(sel_co_read(-1, &byte, 1, 0) == -EBADF);
    SEL_ASSERT(sel_co_write(-1, "x", 1, 0) == -EBADF);
    SEL_ASSERT(sel_co_fsync(-1) == -EBADF);
    SEL_ASSERT(sel_co_rename("absent", "x") == -ENOENT);
    SEL_ASSERT(sel_co_link("absent", "x") == -ENOENT);
    SEL_ASSERT(sel_co_unlink("absent", 0) == -ENOENT);
    SEL_ASSERT(sel_co_mkdir("absent/x", 0700) == -ENOENT);
    SEL_ASSERT(sel_co_statx(AT_FDCWD, "absent", 0, STATX_SIZE, &stat) == -ENOENT);
    SEL_ASSERT(sel_co_accept(-1) == -EBADF);
    SEL_ASSERT(sel_co_send(-1, "x", 1, 0) == -EBADF);
    SEL_ASSERT(sel_co_recv(-1, &byte, 1, 0, 1000000) == -EBADF);
    SEL_ASSERT(sel_co_poll(-1, POLLIN, 1000000) == -EBADF);
    SEL_ASSERT(sel_co_read_file("absent", &byte, 1) == -ENOENT);
    SEL_ASSERT(sel_co_read_file("/", &byte, 1) == -EISDIR);
    SEL_ASSERT(sel_co_offload(meet_errors, NULL) == SEL_EUNSUPPORTED);
}

static void test_errors_are_those_of_the_system_calls(void **state)
{
    (void)state;
    run(meet_errors, NULL);
}

#define FILE_COUNT 300 /* more operations than the ring has entries */

static void make_files(const char *text)
{
    for (uint32_t i = 0; i < FILE_COUNT; i++) {
        char path[16];
        (void)snprintf(path, sizeof(path), "%u", i);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_true(fprintf(file, "%s %u", text, i) > 0);
        assert_int_equal(fclose(file), 0);
    }
}

static void remove_files(void)
{
    for (uint32_t i = 0; i < FILE_COUNT; i++) {
        char path[16];
        (void)snprintf(path, sizeof(path), "%u", i);
        assert_int_equal(unlink(path), 0);
    }
}

static void read_numbered_file(void *arg)
{
    uint32_t number = (uint32_t)(uintptr_t)arg;
    char path[16], text[64] = "", expected[64];
    (void)snprintf(path, sizeof(path), "%u", number);
    (void)snprintf(expected, sizeof(expected), "text %u", number);
    ssize_t n = sel_co_read_file(path, text, sizeof(text));
    SEL_ASSERT(n == (ssize_t)strlen(expected) && strcmp(text, expected) == 0);
    SEL_ASSERT(sel_co_read_file(path, text, 2) == 2); /* not more than asked for */
}

static void read_all_files(void *arg)
{
    for (uintptr_t i = 0; i < FILE_COUNT; i++)
        (void)spawn(arg, read_numbered_file, (void *)i);
}

static int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void read_files_with_a_loop(void *arg)
{
    (void)arg;
    int before = count_descriptors();
    struct sel_loop *loop = make_loop(NULL);
    read_all_files(loop);
    sel_loop_stop(loop);
    sel_loop_run(loop);
    sel_loop_free(loop);
    SEL_ASSERT(count_descriptors() == before);
}

static void test_whole_files_are_read_side_by_side(void **state)
{
    (void)state;
    make_files("text");
    read_files_with_a_loop(NULL);
    remove_files();
}

static void read_files_without_a_table(void *arg)
{
    sel_child_refuse(SYS_io_uring_register, 1, 13 /* IORING_REGISTER_FILES2 */, EINVAL);
    read_files_with_a_loop(arg);
}

static void read_files_without_registered_ring(void *arg)
{
    sel_child_refuse(SYS_io_uring_register, 1, 20 /* IORING_REGISTER_RING_FDS */, EINVAL);
    read_files_with_a_loop(arg);
}

static void test_whole_files_are_read_without_what_newer_kernels_offer(void **state)
{
    (void)state;
    make_files("text");
    struct sel_child_end end = sel_in_child(read_files_without_a_table, NULL);
    assert_string_equal(end.stderr_text, "");
    assert_int_equal(end.status, 0);
    end = sel_in_child(read_files_without_registered_ring, NULL);
    assert_string_equal(end.stderr_text, "");
    assert_int_equal(end.status, 0);
    remove_files();
}

/* ---- sockets ---- */

/* A listening socket of the loopback; `backlog` 0: one connection fits. */
static int make_listener(int backlog, struct sockaddr_in *ret_addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof(*ret_addr);
    *ret_addr =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    SEL_ASSERT(fd >= 0 && bind(fd, (struct sockaddr *)ret_addr, n) == 0);
    SEL_ASSERT(listen(fd, backlog) == 0);
    SEL_ASSERT(getsockname(fd, (struct sockaddr *)ret_addr, &n) == 0);
    return fd;
}

static int make_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SEL_ASSERT(fd >= 0);
    return fd;
}

struct talk {
    struct sockaddr_in addr;
    int listener;
};

static void answer_in_capitals(void *arg)
{
    const struct talk *talk = arg;
    char text[16];
    int fd = sel_co_accept(talk->listener);
    SEL_ASSERT(fd >= 0);
    SEL_ASSERT((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    SEL_ASSERT(sel_co_recv(fd, text, sizeof(text), 0, 0) == 5);
    for (size_t i = 0; i < 5; i++)
        text[i] = (char)(text[i] - 'a' + 'A');
    SEL_ASSERT(sel_co_send(fd, text, 5, 0) == 5);
    SEL_ASSERT(sel_co_recv(fd, text, sizeof(text), 0, 0) == 0); /* closed over there */
    SEL_ASSERT(sel_co_close(fd) == 0);
}

static void ask(void *arg)
{
    const struct talk *talk = arg;
    char text[16];
    int fd = make_socket();
    SEL_ASSERT(
        sel_co_connect(fd, (const struct sockaddr *)&talk->addr, sizeof(talk->addr), 5000000) == 0);
    SEL_ASSERT(sel_co_send(fd, "hello", 5, 0) == 5);
    SEL_ASSERT(sel_co_poll(fd, POLLIN, 5000000) & POLLIN);
    SEL_ASSERT(sel_co_recv(fd, text, sizeof(text), 0, 5000000) == 5);
    SEL_ASSERT(memcmp(text, "HELLO", 5) == 0);
    SEL_ASSERT(sel_co_close(fd) == 0);
}

static void talk_over_loopback(void *arg)
{
    (void)spawn(sel_loop_current(), answer_in_capitals, arg);
    (void)spawn(sel_loop_current(), ask, arg);
}

static void test_two_coroutines_talk_over_loopback(void **state)
{
    (void)state;
    struct talk talk;
    talk.listener = make_listener(5, &talk.addr);
    run(talk_over_loopback, &talk);
    (void)close(talk.listener);
}

static void connect_to_nobody(void *arg)
{
    int fd = make_socket();
    SEL_ASSERT(sel_co_connect(fd, arg, sizeof(struct sockaddr_in), 0) == -ECONNREFUSED);
    SEL_ASSERT(sel_co_close(fd) == 0);
}

static void test_a_refused_connection_says_so(void **state)
{
    (void)state;
    struct sockaddr_in addr;
    (void)close(make_listener(1, &addr));
    run(connect_to_nobody, &addr);
}

/* Everything that can wait for ever, with a time limit. */
static void wait_with_limits(void *arg)
{
    struct talk *talk = arg;
    int pair[2], fd = make_socket();
    char byte;
    SEL_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    SEL_ASSERT(sel_co_recv(pair[0], &byte, 1, 0, 1000) == -ETIMEDOUT);
    SEL_ASSERT(sel_co_poll(pair[0], POLLIN, 1000) == 0);
    SEL_ASSERT(sel_co_connect(fd, (const struct sockaddr *)&talk->addr, sizeof(talk->addr), 2000) ==
               -ETIMEDOUT);
    /* The socket is as before: what comes later is received. */
    SEL_ASSERT(sel_co_send(pair[1], "x", 1, 0) == 1);
    SEL_ASSERT(sel_co_recv(pair[0], &byte, 1, 0, 1000000) == 1 && byte == 'x');
    SEL_ASSERT(sel_co_close(pair[0]) == 0 && sel_co_close(pair[1]) == 0 && sel_co_close(fd) == 0);
}

/* A listener whose queue is full: who connects to it waits. Returns the socket that fills it. */
static int fill_backlog(const struct sockaddr_in *addr)
{
    int fd = make_socket();
    SEL_ASSERT(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0);
    return fd;
}

static void test_a_time_limit_ends_a_wait(void **state)
{
    (void)state;
    struct talk talk;
    talk.listener = make_listener(0, &talk.addr);
    int filler = fill_backlog(&talk.addr);
    run(wait_with_limits, &talk);
    (void)close(filler);
    (void)close(talk.listener);
}

/* ---- cancellation ---- */

struct victim {
    const char *name;
    ssize_t (*call)(struct victim *victim);
    int pipe[2];
    struct talk talk;
    int filler;
    ssize_t result;
    bool has_begun;
};

static ssize_t call_sleep(struct victim *victim)
{
    (void)victim;
    return sel_co_sleep(60000000);
}

static ssize_t call_read(struct victim *victim)
{
    char byte;
    return sel_co_read(victim->pipe[0], &byte, 1, -1);
}

/* The pipe is full by then. */
static ssize_t call_write(struct victim *victim)
{
    char block[4096] = "";
    while (poll(&(struct pollfd){victim->pipe[1], POLLOUT, 0}, 1, 0) == 1) {
        ssize_t n = sel_co_write(victim->pipe[1], block, sizeof(block), -1);
        if (n < 0)
            return n;
    }
    return sel_co_write(victim->pipe[1], block, sizeof(block), -1);
}

static ssize_t call_poll(struct victim *victim)
{
    return sel_co_poll(victim->pipe[0], POLLIN, 0);
}

static ssize_t call_poll_with_limit(struct victim *victim)
{
    return sel_co_poll(victim->pipe[0], POLLIN, 60000000);
}

static ssize_t call_accept(struct victim *victim)
{
    struct sockaddr_in addr;
    int fd = make_listener(1, &addr), r = sel_co_accept(fd);
    (void)victim;
    SEL_ASSERT(sel_co_close(fd) == 0);
    return r;
}

static ssize_t call_connect(struct victim *victim)
{
    int fd = make_socket();
    int r = sel_co_connect(fd, (const struct sockaddr *)&victim->talk.addr,
                           sizeof(victim->talk.addr), 60000000);
    SEL_ASSERT(sel_co_close(fd) == 0);
    return r;
}

static ssize_t call_recv(struct victim *victim)
{
    char byte;
    int pair[2];
    (void)victim;
    SEL_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    ssize_t r = sel_co_recv(pair[0], &byte, 1, 0, 60000000);
    SEL_ASSERT(sel_co_close(pair[0]) == 0 && sel_co_close(pair[1]) == 0);
    return r;
}

/* A fifo that a writer has open and writes nothing to. */
static ssize_t call_read_file(struct victim *victim)
{
    char byte;
    (void)victim;
    return sel_co_read_file("fifo", &byte, 1);
}

static ssize_t call_yield(struct victim *victim)
{
    (void)victim;
    while (!sel_loop_is_cancelled(sel_co_current()))
        sel_loop_yield();
    return SEL_ECANCELED;
}

static void be_cancelled(void *arg)
{
    struct victim *victim = arg;
    char byte;
    struct statx stat;
    victim->has_begun = true;
    victim->result = victim->call(victim);
    SEL_ASSERT(sel_loop_is_cancelled(sel_co_current()));
    /* and from now on everything at once, but for close */
    SEL_ASSERT(sel_co_sleep(60000000) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_sleep(0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_openat(AT_FDCWD, "/", O_RDONLY, 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_read(victim->pipe[0], &byte, 1, -1) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_write(victim->pipe[1], "x", 1, -1) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_fsync(victim->pipe[1]) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_statx(AT_FDCWD, "/", 0, STATX_SIZE, &stat) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_rename("a", "b") == SEL_ECANCELED);
    SEL_ASSERT(sel_co_link("a", "b") == SEL_ECANCELED);
    SEL_ASSERT(sel_co_unlink("a", 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_mkdir("a", 0700) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_connect(victim->filler, (const struct sockaddr *)&victim->talk.addr,
                              sizeof(victim->talk.addr), 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_accept(victim->talk.listener) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_send(victim->filler, "x", 1, 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_recv(victim->filler, &byte, 1, 0, 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_poll(victim->pipe[0], POLLIN, 0) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_read_file("/dev/null", &byte, 1) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_offload(be_cancelled, NULL) == SEL_ECANCELED);
    SEL_ASSERT(sel_co_close(victim->pipe[1]) == 0);
}

struct canceller {
    struct victim *victim;
    struct sel_co *co;
};

static void cancel_once_it_waits(void *arg)
{
    struct canceller *canceller = arg;
    while (!canceller->victim->has_begun)
        sel_loop_yield();
    SEL_ASSERT(sel_co_sleep(2000) == 0); /* so that the kernel has it */
    sel_loop_cancel(sel_loop_current(), canceller->co);
    sel_loop_cancel(sel_loop_current(), canceller->co); /* twice is once */
}

static void cancel_at_once(void *arg)
{
    struct canceller *canceller = arg;
    while (!canceller->victim->has_begun)
        sel_loop_yield();
    sel_loop_cancel(sel_loop_current(), canceller->co);
}

static void cancel_victim(struct victim *victim, sel_co_fn how)
{
    struct sel_loop *loop = make_loop(NULL);
    assert_int_equal(pipe2(victim->pipe, O_CLOEXEC), 0);
    victim->has_begun = false;
    victim->talk.listener = make_listener(0, &victim->talk.addr);
    victim->filler = fill_backlog(&victim->talk.addr);
    struct canceller canceller = {victim, spawn(loop, be_cancelled, victim)};
    (void)spawn(loop, how, &canceller);
    sel_loop_stop(loop);
    sel_loop_run(loop);
    if (victim->result != SEL_ECANCELED)
        fail_msg("%s: %zd", victim->name, victim->result);
    sel_loop_free(loop);
    (void)close(victim->pipe[0]);
    (void)close(victim->talk.listener);
    (void)close(victim->filler);
}

static struct victim victims[] = {
    {.name = "sleep", .call = call_sleep},
    {.name = "read", .call = call_read},
    {.name = "write", .call = call_write},
    {.name = "poll", .call = call_poll},
    {.name = "poll with a limit", .call = call_poll_with_limit},
    {.name = "accept", .call = call_accept},
    {.name = "connect", .call = call_connect},
    {.name = "recv", .call = call_recv},
    {.name = "read_file", .call = call_read_file},
    {.name = "yield", .call = call_yield},
};

static void cancel_all_victims(sel_co_fn how)
{
    assert_int_equal(mkfifo("fifo", 0600), 0);
    int writer = open("fifo", O_RDWR | O_CLOEXEC);
    assert_true(writer >= 0);
    for (size_t i = 0; i < SEL_COUNT(victims); i++)
        cancel_victim(&victims[i], how);
    (void)close(writer);
    assert_int_equal(unlink("fifo"), 0);
}

static void test_each_waiting_call_can_be_cancelled(void **state)
{
    (void)state;
    cancel_all_victims(cancel_once_it_waits);
}

static void test_a_call_can_be_cancelled_before_the_kernel_has_seen_it(void **state)
{
    (void)state;
    cancel_all_victims(cancel_at_once);
}

static void cancel_self_and_sleep(void *arg)
{
    sel_loop_cancel(sel_loop_current(), sel_co_current());
    *(int *)arg = sel_co_sleep(60000000);
}

static void sleep_long(void *arg)
{
    *(int *)arg = sel_co_sleep(60000000);
}

static void test_a_coroutine_can_be_cancelled_by_itself_or_before_it_starts(void **state)
{
    (void)state;
    int results[2] = {0};
    struct sel_loop *loop = make_loop(NULL);
    (void)spawn(loop, cancel_self_and_sleep, &results[0]);
    struct sel_co *co = spawn(loop, sleep_long, &results[1]);
    assert_false(sel_loop_is_cancelled(co));
    sel_loop_cancel(loop, co);
    assert_true(sel_loop_is_cancelled(co));
    sel_loop_stop(loop);
    sel_loop_run(loop);
    assert_code(results[0], SEL_ECANCELED);
    assert_code(results[1], SEL_ECANCELED);
    sel_loop_free(loop);
}

/* ---- blocking work ---- */

struct blocking {
    sem_t begun, gate;
    int runs, results[3];
    struct sel_co *coroutines[3];
};

static void block(void *arg)
{
    struct blocking *blocking = arg;
    SEL_ASSERT(!sel_co_current());
    (void)sem_post(&blocking->begun);
    while (sem_wait(&blocking->gate) < 0)
        ;
    blocking->runs++;
}

static void offload_first(void *arg)
{
    struct blocking *blocking = arg;
    blocking->results[0] = sel_co_offload(block, blocking);
}

static void offload_second(void *arg)
{
    struct blocking *blocking = arg;
    blocking->results[1] = sel_co_offload(block, blocking);
}

static void offload_third(void *arg)
{
    struct blocking *blocking = arg;
    blocking->results[2] = sel_co_offload(block, blocking);
}

static void cancel_both(void *arg)
{
    struct blocking *blocking = arg;
    while (sem_trywait(&blocking->begun) < 0)
        sel_loop_yield();
    sel_loop_cancel(sel_loop_current(), blocking->coroutines[0]); /* runs: goes on */
    sel_loop_cancel(sel_loop_current(), blocking->coroutines[1]); /* waits: never runs */
    SEL_ASSERT(sel_co_sleep(1000) == 0);
    SEL_ASSERT(blocking->results[0] == 1 && blocking->results[1] == SEL_ECANCELED);
    (void)sem_post(&blocking->gate);
}

static void test_blocking_work_is_cancelled_only_before_it_begins(void **state)
{
    (void)state;
    struct blocking blocking = {.results = {1, 1, 1}};
    struct sel_offload *offload = sel_offload_new(1, 2);
    struct sel_loop *loop = make_loop(offload);
    assert_int_equal(sem_init(&blocking.begun, 0, 0), 0);
    assert_int_equal(sem_init(&blocking.gate, 0, 0), 0);
    blocking.coroutines[0] = spawn(loop, offload_first, &blocking);
    blocking.coroutines[1] = spawn(loop, offload_second, &blocking);
    (void)spawn(loop, cancel_both, &blocking);
    sel_loop_stop(loop);
    sel_loop_run(loop);
    assert_int_equal(blocking.results[0], 0);
    assert_int_equal(blocking.runs, 1);
    sel_loop_free(loop);
    sel_offload_free(offload);
}

static void offload_two_more(void *arg)
{
    struct blocking *blocking = arg;
    while (sem_trywait(&blocking->begun) < 0)
        sel_loop_yield();
    (void)spawn(sel_loop_current(), offload_second, arg);
    (void)spawn(sel_loop_current(), offload_third, arg);
    while (blocking->results[2] == 1)
        sel_loop_yield();
    (void)sem_post(&blocking->gate);
    (void)sem_post(&blocking->gate);
}

static void test_a_full_pool_is_a_limit(void **state)
{
    (void)state;
    struct blocking blocking = {.results = {1, 1, 1}};
    struct sel_offload *offload = sel_offload_new(1, 1);
    struct sel_loop *loop = make_loop(offload);
    assert_int_equal(sem_init(&blocking.begun, 0, 0), 0);
    assert_int_equal(sem_init(&blocking.gate, 0, 0), 0);
    (void)spawn(loop, offload_first, &blocking);
    (void)spawn(loop, offload_two_more, &blocking);
    sel_loop_stop(loop);
    sel_loop_run(loop);
    assert_int_equal(blocking.results[0], 0);
    assert_int_equal(blocking.results[1], 0);
    assert_code(blocking.results[2], SEL_ELIMIT);
    sel_loop_free(loop);
    sel_offload_free(offload);
}

/* ---- the interface of storages ---- */

static void count_up(void *arg)
{
    ++*(int *)arg;
}

static void use_io(void *arg)
{
    struct sel_io *io = arg;
    char text[8];
    int runs = 0;
    SEL_ASSERT(io->ops->mkdir(io, "d", 0700) == 0);
    int fd = io->ops->open(io, "d/a", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    SEL_ASSERT(fd >= 0);
    SEL_ASSERT(io->ops->pwrite(io, fd, "abc", 3, 0) == 3);
    SEL_ASSERT(io->ops->fsync(io, fd) == 0);
    SEL_ASSERT(io->ops->pread(io, fd, text, sizeof(text), 1) == 2 && text[0] == 'b');
    SEL_ASSERT(io->ops->close(io, fd) == 0);
    SEL_ASSERT(io->ops->close(io, fd) == -EBADF);
    SEL_ASSERT(io->ops->link(io, "d/a", "d/b") == 0);
    SEL_ASSERT(io->ops->link(io, "d/a", "d/b") == -EEXIST);
    SEL_ASSERT(io->ops->rename(io, "d/a", "d/b2") == 0);
    SEL_ASSERT(io->ops->unlink(io, "d/b") == 0);
    SEL_ASSERT(io->ops->unlink(io, "d/b") == -ENOENT);
    SEL_ASSERT(io->ops->unlink(io, "d/b2") == 0);
    SEL_ASSERT(io->ops->offload(io, count_up, &runs) == 0 && runs == 1);
    struct sel_io_waiter w = {.io = io};
    sel_io_wake(&w);
    io->ops->wait(io, &w);
}

static void test_storages_get_the_same_from_a_loop_and_from_a_blocking_thread(void **state)
{
    (void)state;
    use_io(sel_io_blocking());
    assert_int_equal(rmdir("d"), 0);
    struct sel_offload *offload = sel_offload_new(1, 1);
    struct sel_loop *loop = make_loop(offload);
    (void)spawn(loop, use_io, sel_loop_io(loop));
    sel_loop_stop(loop);
    sel_loop_run(loop);
    assert_int_equal(rmdir("d"), 0);
    sel_loop_free(loop);
    sel_offload_free(offload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_are_written_moved_and_read),
        cmocka_unit_test(test_errors_are_those_of_the_system_calls),
        cmocka_unit_test(test_whole_files_are_read_side_by_side),
        cmocka_unit_test(test_whole_files_are_read_without_what_newer_kernels_offer),
        cmocka_unit_test(test_two_coroutines_talk_over_loopback),
        cmocka_unit_test(test_a_refused_connection_says_so),
        cmocka_unit_test(test_a_time_limit_ends_a_wait),
        cmocka_unit_test(test_each_waiting_call_can_be_cancelled),
        cmocka_unit_test(test_a_call_can_be_cancelled_before_the_kernel_has_seen_it),
        cmocka_unit_test(test_a_coroutine_can_be_cancelled_by_itself_or_before_it_starts),
        cmocka_unit_test(test_blocking_work_is_cancelled_only_before_it_begins),
        cmocka_unit_test(test_a_full_pool_is_a_limit),
        cmocka_unit_test(test_storages_get_the_same_from_a_loop_and_from_a_blocking_thread),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
