#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/in_loop.h"
#include "worker/subprocess.h"
#include "worker/sys.h"

#define LIMIT ((size_t)8 * 1024 * 1024)

static const char *const *shell(const char *script)
{
    static _Thread_local const char *argv[4];
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = NULL;
    return argv;
}

static struct sel_subprocess_options options_for(const char *const *argv)
{
    return (struct sel_subprocess_options){.argv = argv, .out_max = LIMIT, .err_max = LIMIT};
}

static int run(const struct sel_subprocess_options *options, struct sel_subprocess_result *ret)
{
    return sel_subprocess_run(options, ret);
}

static bool out_is(const struct sel_subprocess_result *result, const char *text)
{
    return sel_str_eq_c(sel_buf_str(&result->out), text);
}

static int open_fd_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void assert_no_child(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* Whether a process ends (or has ended) soon; a zombie counts as ended. */
static bool ends(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == ESRCH;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r = poll(&p, 1, 5000);
    close(fd);
    return r == 1;
}

/* ---- ends ---- */

static void check_input_comes_back(void *arg)
{
    (void)arg;
    size_t n = 1 << 20; /* more than all pipes hold */
    char *text = sel_mem_alloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + i % 23);
    const char *const argv[] = {"cat", NULL};
    struct sel_subprocess_options options = options_for(argv);
    options.in = (struct sel_bytes){text, n};
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), 0);
    assert_int_equal(result.exit_status, 0);
    assert_int_equal(result.out.n, n);
    assert_memory_equal(result.out.p, text, n);
    sel_subprocess_result_done(&result);
    sel_mem_free(text);
}

static void test_input_comes_back_through_a_filter(void **state)
{
    (void)state;
    sel_in_both(check_input_comes_back, NULL);
}

static void check_ends(void *arg)
{
    (void)arg;
    const struct {
        const char *script;
        int exit_status, signal;
        const char *out, *err;
    } cases[] = {
        {"exit 0", 0, 0, "", ""},
        {"echo out; echo err >&2; exit 75", 75, 0, "out\n", "err\n"},
        {"kill -TERM $$", -1, SIGTERM, "", ""},
        {"kill -KILL $$", -1, SIGKILL, "", ""},
        {"exec >&- 2>&-; exit 3", 3, 0, "", ""}, /* closes its output first */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_subprocess_options options = options_for(shell(cases[i].script));
        struct sel_subprocess_result result;
        assert_int_equal(run(&options, &result), 0);
        assert_int_equal(result.exit_status, cases[i].exit_status);
        assert_int_equal(result.signal, cases[i].signal);
        assert_true(out_is(&result, cases[i].out));
        assert_true(sel_str_eq_c(sel_buf_str(&result.err), cases[i].err));
        sel_subprocess_result_done(&result);
    }
}

static void test_ends_are_told_apart(void **state)
{
    (void)state;
    sel_in_both(check_ends, NULL);
    assert_no_child();
}

static void check_not_started(void *arg)
{
    (void)arg;
    const struct {
        const char *program;
        int code;
    } cases[] = {
        {"sel-no-such-program", -ENOENT},
        {"/no/such/program", -ENOENT},
        {"/etc/passwd", -EACCES},
        {"/", -EACCES},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const char *const argv[] = {cases[i].program, NULL};
        struct sel_subprocess_options options = options_for(argv);
        struct sel_subprocess_result result;
        assert_int_equal(run(&options, &result), cases[i].code);
        sel_subprocess_result_done(&result);
    }
}

static void test_what_cannot_be_started_says_why(void **state)
{
    (void)state;
    sel_in_both(check_not_started, NULL);
    assert_no_child();
    assert_int_equal(sel_subprocess_check("sh"), 0);
    assert_int_equal(sel_subprocess_check("/bin/sh"), 0);
    assert_int_equal(sel_subprocess_check("sel-no-such-program"), -ENOENT);
    assert_int_equal(sel_subprocess_check("/no/such/program"), -ENOENT);
}

static void check_unread_input(void *arg)
{
    (void)arg;
    size_t n = 1 << 20;
    char *zeros = sel_mem_zalloc(n);
    assert_non_null(zeros);
    struct sel_subprocess_options options = options_for(shell("exec <&-; echo deaf"));
    options.in = (struct sel_bytes){zeros, n};
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), 0);
    assert_int_equal(result.exit_status, 0);
    assert_true(out_is(&result, "deaf\n"));
    sel_subprocess_result_done(&result);
    sel_mem_free(zeros);
}

static void test_a_program_that_does_not_read_its_input_kills_nobody(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_DFL);
    sel_in_both(check_unread_input, NULL);
    sigset_t pending;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE)); /* taken back, not left for later */
}

/* ---- limits ---- */

static void check_time_limit(void *arg)
{
    (void)arg;
    /* both ignore everything that can be ignored */
    struct sel_subprocess_options options =
        options_for(shell("trap '' TERM INT HUP; sleep 1000 & echo $!; wait; sleep 1000"));
    options.timeout_us = 200 * 1000; /* long enough for the shell to write the number */
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), SEL_ETIMEOUT);
    int pid = 0;
    assert_int_equal(sscanf(sel_buf_cstr(&result.out), "%d", &pid), 1);
    assert_true(ends(pid));
    sel_subprocess_result_done(&result);
}

static void test_the_time_limit_kills_the_whole_group(void **state)
{
    (void)state;
    sel_in_both(check_time_limit, NULL);
    assert_no_child();
}

static void check_left_behind(void *arg)
{
    (void)arg;
    struct sel_subprocess_options options = options_for(shell("sleep 1000 & echo $!"));
    struct sel_subprocess_result result;
    int64_t begin_us = sel_sys_now_us();
    assert_int_equal(run(&options, &result), 0);
    assert_true(sel_sys_now_us() - begin_us < 100 * INT64_C(1000000)); /* did not wait for it */
    int pid = 0;
    assert_int_equal(sscanf(sel_buf_cstr(&result.out), "%d", &pid), 1);
    assert_true(ends(pid));
    sel_subprocess_result_done(&result);
}

static void test_what_a_program_leaves_behind_is_killed(void **state)
{
    (void)state;
    sel_in_both(check_left_behind, NULL);
}

static void check_output_limit(void *arg)
{
    (void)arg;
    const char *const scripts[] = {"yes", "yes >&2", "printf 123456789"};
    for (size_t i = 0; i < SEL_COUNT(scripts); i++) {
        struct sel_subprocess_options options = options_for(shell(scripts[i]));
        options.out_max = options.err_max = 8;
        struct sel_subprocess_result result;
        assert_int_equal(run(&options, &result), SEL_ELIMIT);
        sel_subprocess_result_done(&result);
    }
    struct sel_subprocess_options options = options_for(shell("printf 12345678"));
    options.out_max = 8;
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), 0);
    assert_true(out_is(&result, "12345678"));
    sel_subprocess_result_done(&result);
}

static void test_too_much_output_ends_a_program(void **state)
{
    (void)state;
    sel_in_both(check_output_limit, NULL);
    assert_no_child();
}

static void check_tail(void *arg)
{
    (void)arg;
    struct sel_subprocess_options options =
        options_for(shell("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done >&2"));
    options.err_max = 19;
    options.err_tail = true;
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), 0);
    assert_true(result.err_cut);
    assert_true(sel_str_eq_c(sel_buf_str(&result.err), "ine 1998\nline 1999\n"));
    sel_subprocess_result_done(&result);
}

static void test_of_a_long_standard_error_the_end_is_kept(void **state)
{
    (void)state;
    sel_in_both(check_tail, NULL);
}

/* ---- what a program inherits ---- */

static void check_inheritance(void *arg)
{
    (void)arg;
    int leak = fcntl(2, F_DUPFD, 77); /* without O_CLOEXEC */
    assert_true(leak >= 77);
    struct sel_subprocess_options options =
        options_for(shell("ls /proc/$$/fd; [ $(cut -d' ' -f5 /proc/$$/stat) -eq $$ ]"));
    struct sel_subprocess_result result;
    assert_int_equal(run(&options, &result), 0);
    close(leak);
    assert_string_equal(sel_buf_cstr(&result.out), "0\n1\n2\n");
    assert_int_equal(result.exit_status, 0);
    sel_subprocess_result_done(&result);
}

static void test_programs_inherit_three_descriptors_and_lead_a_group(void **state)
{
    (void)state;
    sel_in_both(check_inheritance, NULL);
}

static void check_signals(void *arg)
{
    (void)arg;
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    void (*old)(int) = signal(SIGPIPE, SIG_IGN);
    const struct {
        const char *script;
        int signal;
    } cases[] = {{"kill -PIPE $$", SIGPIPE}, {"kill -USR1 $$", SIGUSR1}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_subprocess_options options = options_for(shell(cases[i].script));
        struct sel_subprocess_result result;
        assert_int_equal(run(&options, &result), 0);
        assert_int_equal(result.signal, cases[i].signal);
        sel_subprocess_result_done(&result);
    }
    signal(SIGPIPE, old);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void test_ignored_and_blocked_signals_are_not_inherited(void **state)
{
    (void)state;
    sel_in_both(check_signals, NULL);
}

static void check_closed_standard_descriptors(void *arg)
{
    (void)arg;
    const char *const argv[] = {"cat", NULL};
    struct sel_subprocess_options options = options_for(argv);
    options.in = (struct sel_bytes){"through", 7};
    struct sel_subprocess_result result;
    int saved[3];
    for (int fd = 0; fd < 3; fd++) {
        saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        close(fd);
    }
    int r = run(&options, &result);
    for (int fd = 0; fd < 3; fd++) {
        dup2(saved[fd], fd);
        close(saved[fd]);
    }
    assert_int_equal(r, 0);
    assert_true(out_is(&result, "through"));
    sel_subprocess_result_done(&result);
}

static void test_works_in_a_process_without_standard_descriptors(void **state)
{
    (void)state;
    check_closed_standard_descriptors(NULL);
}

static void test_leaves_no_descriptor_open(void **state)
{
    (void)state;
    int before = open_fd_count();
    sel_in_both(check_ends, NULL);
    sel_in_both(check_not_started, NULL);
    sel_in_both(check_output_limit, NULL);
    assert_int_equal(open_fd_count(), before);
}

/* ---- cancellation, concurrency ---- */

struct cancelled_run {
    int result;
    int pid;
};

static void run_for_ever(void *arg)
{
    struct cancelled_run *c = arg;
    struct sel_subprocess_options options = options_for(shell("sleep 1000 & echo $!; wait"));
    struct sel_subprocess_result result;
    c->result = run(&options, &result);
    (void)sscanf(sel_buf_cstr(&result.out), "%d", &c->pid);
    sel_subprocess_result_done(&result);
}

static void check_cancel(void *arg)
{
    struct sel_co *co;
    assert_int_equal(sel_loop_spawn(sel_loop_current(), run_for_ever, arg, &co), 0);
    assert_int_equal(sel_co_sleep(200 * 1000), 0); /* for the shell to write the number */
    sel_loop_cancel(sel_loop_current(), co);
}

static void test_a_cancellation_kills_the_group(void **state)
{
    (void)state;
    struct cancelled_run c = {0};
    int before = open_fd_count();
    sel_in_loop(check_cancel, &c);
    assert_int_equal(c.result, SEL_ECANCELED);
    assert_true(c.pid > 0);
    assert_true(ends(c.pid));
    assert_no_child();
    assert_int_equal(open_fd_count(), before);
}

struct crowd {
    uint32_t done;
};

static void run_one(void *arg)
{
    struct crowd *crowd = arg;
    const char *const argv[] = {"cat", NULL};
    struct sel_subprocess_options options = options_for(argv);
    options.in = (struct sel_bytes){"crowd", 5};
    struct sel_subprocess_result result;
    if (run(&options, &result) == 0 && out_is(&result, "crowd"))
        crowd->done++;
    sel_subprocess_result_done(&result);
}

static void check_crowd(void *arg)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(sel_loop_spawn(sel_loop_current(), run_one, arg, NULL), 0);
}

static void *crowd_thread(void *arg)
{
    for (int i = 0; i < 5; i++)
        run_one(arg);
    return NULL;
}

static void test_many_run_at_once(void **state)
{
    (void)state;
    struct crowd on_loop = {0}, on_thread[3] = {{0}};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_thread, &on_thread[i]), 0);
    sel_in_loop(check_crowd, &on_loop);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(on_thread[i].done, 5);
    }
    assert_int_equal(on_loop.done, 20);
    assert_no_child();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_input_comes_back_through_a_filter),
        cmocka_unit_test(test_ends_are_told_apart),
        cmocka_unit_test(test_what_cannot_be_started_says_why),
        cmocka_unit_test(test_a_program_that_does_not_read_its_input_kills_nobody),
        cmocka_unit_test(test_the_time_limit_kills_the_whole_group),
        cmocka_unit_test(test_what_a_program_leaves_behind_is_killed),
        cmocka_unit_test(test_too_much_output_ends_a_program),
        cmocka_unit_test(test_of_a_long_standard_error_the_end_is_kept),
        cmocka_unit_test(test_programs_inherit_three_descriptors_and_lead_a_group),
        cmocka_unit_test(test_ignored_and_blocked_signals_are_not_inherited),
        cmocka_unit_test(test_works_in_a_process_without_standard_descriptors),
        cmocka_unit_test(test_leaves_no_descriptor_open),
        cmocka_unit_test(test_a_cancellation_kills_the_group),
        cmocka_unit_test(test_many_run_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
