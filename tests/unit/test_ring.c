#include "worker/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/child.h"
#include "tests/support/test.h"

/* ---- what the kernel may lack or forbid ---- */

struct refusal {
    int number, error; /* the system call, and how it fails */
    int code;          /* what sel_ring_open answers */
    const char *text;  /* part of what it says */
};

/* Tells on standard error what a ring says in a process in which a call fails. */
static void open_refused(void *arg)
{
    const struct refusal *refusal = arg;
    struct sel_error err = {0};
    struct sel_ring *ring = NULL;
    sel_child_refuse(refusal->number, -1, 0, refusal->error);
    int r = sel_ring_open(8, &ring, &err);
    SEL_ASSERT(r < 0 && !ring && err.code == r);
    fprintf(stderr, "%d %s", r, err.text);
}

static void test_a_refused_ring_says_what_to_do(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {SYS_io_uring_setup, ENOSYS, SEL_EUNSUPPORTED, "has no io_uring; Linux 6.1"},
        {SYS_io_uring_setup, EINVAL, SEL_EUNSUPPORTED, "too old: it lacks SINGLE_ISSUER"},
        {SYS_io_uring_setup, EPERM, SEL_EUNSUPPORTED, "kernel.io_uring_disabled"},
        {SYS_io_uring_setup, ENOMEM, SEL_ENOMEM, "ulimit -l"},
        {SYS_io_uring_setup, EMFILE, -EMFILE, "ulimit -n"},
        {SYS_io_uring_setup, EIO, -EIO, "cannot make an io_uring"},
        {SYS_io_uring_register, EPERM, SEL_EUNSUPPORTED, "io_uring is forbidden here"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct refusal refusal = cases[i];
        struct sel_child_end end = sel_in_child(open_refused, &refusal);
        char code[16];
        (void)snprintf(code, sizeof(code), "%d ", cases[i].code);
        assert_int_equal(end.status, 0);
        if (strncmp(end.stderr_text, code, strlen(code)) != 0 ||
            !strstr(end.stderr_text, cases[i].text))
            fail_msg("case %zu: %s", i, end.stderr_text);
    }
}

/* ---- operations ---- */

struct note {
    struct sel_ring_op op;
    int32_t result;
    uint32_t calls;
};

static void on_done(struct sel_ring_op *op, int32_t result)
{
    struct note *note = (struct note *)op;
    note->result = result;
    note->calls++;
}

static struct sel_ring *open_ring(uint32_t entries)
{
    struct sel_ring *ring = NULL;
    assert_ok(sel_ring_open(entries, &ring, NULL));
    return ring;
}

static void test_operations_end_once_with_their_result(void **state)
{
    (void)state;
    struct sel_ring *ring = open_ring(8);
    struct note notes[3] = {{{on_done}, 1, 0}, {{on_done}, 1, 0}, {{on_done}, 1, 0}};
    assert_ok(sel_ring_reserve(ring, 3));
    sel_ring_openat(ring, &notes[0].op, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    sel_ring_fsync(ring, &notes[1].op, -1);
    sel_ring_mkdir(ring, &notes[2].op, "/", 0700);
    assert_int_equal(sel_ring_prepared(ring), 3);
    uint32_t count = 0;
    while (count < 3) {
        sel_ring_enter(ring, true, INT64_MAX);
        count += sel_ring_reap(ring);
    }
    assert_int_equal(sel_ring_prepared(ring), 0);
    assert_true(notes[0].result >= 0);
    (void)close(notes[0].result);
    assert_int_equal(notes[1].result, -EBADF);
    assert_int_equal(notes[2].result, -EEXIST);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(notes[i].calls, 1);
    struct sel_ring_stats stats;
    sel_ring_get_stats(ring, &stats);
    assert_int_equal(stats.sqes, 3);
    assert_int_equal(stats.cqes, 3);
    assert_null(sel_ring_close(ring));
}

/* Far more than the queues hold: none is lost, and no entry is overwritten. */
static void test_more_operations_than_entries_all_end(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    static struct note notes[COUNT];
    struct sel_ring *ring = open_ring(4);
    uint32_t ended = 0;
    for (size_t i = 0; i < COUNT; i++) {
        notes[i] = (struct note){{on_done}, 1, 0};
        while (sel_ring_reserve(ring, 1) < 0)
            ended += sel_ring_reap(ring);
        sel_ring_fsync(ring, &notes[i].op, -1);
    }
    while (ended < COUNT) {
        sel_ring_enter(ring, true, INT64_MAX);
        ended += sel_ring_reap(ring);
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_true(notes[i].calls == 1 && notes[i].result == -EBADF);
    sel_ring_close(ring);
}

static void test_a_wait_ends_with_its_time(void **state)
{
    (void)state;
    struct sel_ring *ring = open_ring(4);
    sel_ring_enter(ring, true, 500);
    sel_ring_enter(ring, true, 0);
    assert_int_equal(sel_ring_reap(ring), 0);
    sel_ring_close(ring);
}

static void test_nothing_to_do_costs_no_system_call(void **state)
{
    (void)state;
    struct sel_ring *ring = open_ring(4);
    struct sel_ring_stats before, after;
    sel_ring_get_stats(ring, &before);
    for (uint32_t i = 0; i < 100; i++) {
        sel_ring_enter(ring, false, 0);
        assert_int_equal(sel_ring_reap(ring), 0);
    }
    sel_ring_get_stats(ring, &after);
    assert_int_equal(after.submits, before.submits);
    sel_ring_close(ring);
}

static int open_and_close(void *ctx)
{
    (void)ctx;
    struct sel_ring *ring;
    int r = sel_ring_open(4, &ring, NULL);
    if (r == 0)
        sel_ring_close(ring);
    return r;
}

static void test_out_of_memory_is_an_answer(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(open_and_close, NULL);
    assert_null(sel_ring_close(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_refused_ring_says_what_to_do),
        cmocka_unit_test(test_operations_end_once_with_their_result),
        cmocka_unit_test(test_more_operations_than_entries_all_end),
        cmocka_unit_test(test_a_wait_ends_with_its_time),
        cmocka_unit_test(test_nothing_to_do_costs_no_system_call),
        cmocka_unit_test(test_out_of_memory_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
