/* The journal in processes that are killed, on disks that are full, broken or damaged, and the
 * command that looks into it. */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "tests/support/child.h"
#include "tests/support/journal_files.h"
#include "tests/support/program.h"

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

static const char *journal_in(void **state)
{
    static char path[PATH_MAX];
    const struct sel_test_folder *folder = *state;
    sel_test_path(path, folder->path, "journal");
    return path;
}

/* ---- SIGKILL ---- */

/* What a child says of its progress, in memory that is shared. */
struct progress {
    const char *path;
    uint64_t seed;
    _Atomic uint64_t returned; /* the last batch that append returned */
};

static void append_for_ever(void *arg)
{
    struct progress *progress = arg;
    struct sel_prng prng = {progress->seed};
    struct sel_journal_stats stats;
    struct sel_journal *j = sel_test_journal_open(progress->path);
    j->ops->stats(j, &stats);
    for (uint64_t last = stats.last;;) {
        uint32_t count = 1 + (uint32_t)sel_prng_below(&prng, 4);
        sel_test_append_ok(j, last, count, sel_prng_below(&prng, 3) == 0);
        last += count;
        atomic_store(&progress->returned, last);
        if (last > 300 && sel_prng_below(&prng, 10) == 0)
            SEL_ASSERT(j->ops->drop(j, last - 300, NULL) == 0);
    }
}

static void test_a_killed_process_loses_nothing_that_returned(void **state)
{
    struct progress *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(progress, MAP_FAILED);
    progress->path = journal_in(state);
    uint64_t before = 0;
    for (uint64_t seed = 0; seed < 25; seed++) {
        progress->seed = seed;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            append_for_ever(progress);
            _exit(0);
        }
        uint64_t enough = before + 10 + seed * 13 % 70;
        while (atomic_load(&progress->returned) < enough)
            (void)sched_yield();
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct sel_journal *j = sel_test_journal_open(progress->path);
        struct sel_test_walk walk = {0};
        struct sel_error err = {0};
        if (j->ops->walk(j, 0, sel_test_visit, &walk, &err) < 0)
            fail_msg("%s", err.text);
        assert_false(walk.is_wrong);
        before = atomic_load(&progress->returned);
        assert_in_range(walk.last, before, before + 4); /* one that did not return may be there */
        before = walk.last;
        atomic_store(&progress->returned, before);
        j->ops->close(j);
    }
    assert_int_equal(munmap(progress, sizeof(*progress)), 0);
}

/* ---- disks that fail ---- */

/* Each system call of a sync fails in turn, in a process of its own, behind five good batches. */
struct failing {
    const char *path;
    int number; /* of the system call */
};

static void append_with_failure(void *arg)
{
    const struct failing *failing = arg;
    struct sel_journal *j = sel_test_journal_open(failing->path);
    struct sel_error err = {0};
    struct sel_journal_stats stats;
    j->ops->stats(j, &stats);
    sel_child_refuse(failing->number, -1, 0, EIO);
    SEL_ASSERT(sel_test_append(j, stats.last, 2, true, true, &err) == -EIO);
    SEL_ASSERT(strstr(err.text, "cannot be written"));
    /* What became of it is not known, and so the journal is of no use any more. */
    SEL_ASSERT(sel_test_append(j, stats.last, 1, false, true, &err) == -EIO);
    SEL_ASSERT(j->ops->sync(j, &err) == -EIO);
    SEL_ASSERT(j->ops->drop(j, 2, &err) == -EIO);
    j->ops->close(j);
}

static void test_a_broken_disk_ends_the_journal_and_loses_nothing(void **state)
{
    static const int numbers[] = {SYS_fdatasync, SYS_pwrite64};
    for (size_t i = 0; i < SEL_COUNT(numbers); i++) {
        struct failing failing = {journal_in(state), numbers[i]};
        struct sel_journal *j = sel_test_journal_open(failing.path);
        struct sel_journal_stats stats;
        j->ops->stats(j, &stats);
        for (int n = 0; n < 5; n++)
            sel_test_append_ok(j, stats.last + (uint64_t)n, 1, n % 2 == 0);
        j->ops->close(j);
        struct sel_child_end end = sel_in_child(append_with_failure, &failing);
        if (end.status != 0)
            fail_msg("status %d: %s", end.status, end.stderr_text);
        j = sel_test_journal_open(failing.path);
        uint64_t last = stats.last + 5;
        j->ops->stats(j, &stats);
        assert_in_range(stats.last, last, last + 2);
        sel_test_holds(j, 1, stats.last);
        j->ops->close(j);
    }
}

/* A file that may not grow any more is a disk without room. */
static void append_at_the_limit(void *arg)
{
    struct sel_journal *j = sel_test_journal_open(arg);
    struct sel_journal_stats stats;
    struct sel_error err = {0};
    (void)signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {2 << 20, RLIM_INFINITY};
    SEL_ASSERT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    int r = 0;
    uint64_t last = 0;
    for (int i = 0; i < 10000 && r == 0; i++) {
        r = sel_test_append(j, last, 4, i % 3 == 0, false, &err);
        last += r == 0 ? 4 : 0;
    }
    SEL_ASSERT(r == -ENOSPC);
    for (int i = 0; i < 3; i++) {
        SEL_ASSERT(sel_test_append(j, last, 16, true, true, &err) == -ENOSPC);
        sel_test_holds(j, 1, last);
    }
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    SEL_ASSERT(setrlimit(RLIMIT_FSIZE, &none) == 0);
    sel_test_append_ok(j, last, 16, true);
    j->ops->stats(j, &stats);
    SEL_ASSERT(stats.last == last + 16);
    sel_test_holds(j, 1, last + 16);
    j->ops->close(j);
}

static void test_a_file_that_may_not_grow_is_no_room_until_it_may(void **state)
{
    struct sel_child_end end =
        sel_in_child(append_at_the_limit, (void *)(uintptr_t)journal_in(state));
    if (end.status != 0)
        fail_msg("status %d: %s", end.status, end.stderr_text);
}

#define DISK_SIZE "size=12m"
#define CANNOT_MOUNT 77

static void remove_file(const char *path)
{
    SEL_ASSERT(unlink(path) == 0);
}

/* Something else takes what is left of the disk. */
static void fill_disk(const char *path)
{
    static const char zeros[65536];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    SEL_ASSERT(fd >= 0);
    for (size_t n = sizeof(zeros); n > 0;)
        if (write(fd, zeros, n) != (ssize_t)n)
            n /= 2;
    SEL_ASSERT(close(fd) == 0);
}

static void use_a_full_disk(void *arg)
{
    const char *mountpoint = arg;
    char path[PATH_MAX], filler[PATH_MAX];
    struct sel_error err = {0};
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", mountpoint, "tmpfs", 0, DISK_SIZE) < 0)
        _exit(CANNOT_MOUNT);
    sel_test_path(path, mountpoint, "journal");
    sel_test_path(filler, mountpoint, "filler");
    struct sel_journal *j = sel_test_journal_open(path);
    uint64_t last = 0;
    for (; last < 40; last += 4)
        sel_test_append_ok(j, last, 4, last % 8 == 0);
    fill_disk(filler);
    int r = 0;
    for (int i = 0; i < 1000 && r == 0; i++) {
        r = sel_test_append(j, last, 4, i % 2 == 0, false, &err);
        last += r == 0 ? 4 : 0;
    }
    SEL_ASSERT(r == -ENOSPC);
    uint64_t refused = last;
    for (int i = 0; i < 8; i++, last += 2) { /* the ballast makes way for what is urgent */
        if (sel_test_append(j, last, 2, true, true, &err) < 0)
            fail_msg("%s", err.text);
    }
    SEL_ASSERT(sel_test_append(j, last, 1, true, false, &err) == -ENOSPC);
    SEL_ASSERT(sel_test_append(j, last, 1, false, false, &err) == -ENOSPC);
    j->ops->close(j);
    j = sel_test_journal_open(path); /* also on a full disk */
    SEL_ASSERT(sel_test_append(j, last, 1, true, false, &err) == -ENOSPC);
    sel_test_holds(j, 1, last);
    remove_file(filler);
    sel_test_append_ok(j, last, 4, true); /* it goes on, and the ballast is there again */
    sel_test_append_ok(j, last + 4, 4, false);
    SEL_ASSERT(refused < last);
    fill_disk(filler);
    if (sel_test_append(j, last + 8, 16, true, true, &err) < 0)
        fail_msg("%s", err.text);
    j->ops->close(j);
}

static void test_a_full_disk_refuses_what_is_not_urgent_until_there_is_room(void **state)
{
    const struct sel_test_folder *folder = *state;
    struct sel_child_end end = sel_in_child(use_a_full_disk, (void *)(uintptr_t)folder->path);
    if (WIFEXITED(end.status) && WEXITSTATUS(end.status) == CANNOT_MOUNT) {
        print_message("skipped: this process may not mount a small disk of its own\n");
        skip();
    }
    if (end.status != 0)
        fail_msg("status %d: %s", end.status, end.stderr_text);
}

/* ---- damage, more than a unit test has time for ---- */

/* One bit, eight bytes at random, or a sector that is zero. */
static uint8_t damaged_byte(struct sel_prng *prng, size_t n, uint8_t byte)
{
    if (n == 512)
        return 0;
    return (uint8_t)(n == 8 ? sel_prng_next(prng) : byte ^ UINT64_C(1) << sel_prng_below(prng, 8));
}

static void test_damage_anywhere_is_found_or_does_no_harm(void **state)
{
    struct sel_test_image image = {0};
    struct sel_test_walk walk;
    struct sel_prng prng = {2024};
    char path[PATH_MAX];
    sel_test_quick_folder(path, journal_in(state));
    struct sel_journal *j = sel_test_journal_open(path);
    uint64_t last = 0;
    for (; last < 600; last += 10)
        sel_test_append_ok(j, last, 10, true);
    assert_ok(j->ops->drop(j, 100, NULL)); /* so that there are lists of free pages */
    for (; last < 630; last += 10)
        sel_test_append_ok(j, last, 10, true);
    sel_test_image_load(&image, path);
    j->ops->close(j);
    uint32_t found = 0;
    for (int i = 0; i < 600; i++) {
        size_t n = i % 4 == 0 ? 512 : i % 4 == 1 ? 8 : 1;
        size_t pages = image.data.n / 4096, at = (size_t)sel_prng_below(&prng, pages) * 4096;
        if (i % 3 == 0) /* the heads of the file and what comes next */
            at = (size_t)sel_prng_below(&prng, 6) * 4096;
        at += i % 2 == 0 ? (size_t)sel_prng_below(&prng, 64) : (size_t)sel_prng_below(&prng, 3584);
        uint8_t saved[512];
        memcpy(saved, image.data.p + at, n);
        for (size_t k = 0; k < n; k++)
            image.data.p[at + k] = damaged_byte(&prng, n, saved[k]);
        sel_test_image_store(&image, path);
        int r = sel_test_open_damaged(path, i % 5 == 0, &walk);
        if (r == 0 && (walk.first > 100 || walk.last != 630))
            fail_msg("byte %zu: holds %llu to %llu", at, (unsigned long long)walk.first,
                     (unsigned long long)walk.last);
        found += r < 0;
        memcpy(image.data.p + at, saved, n);
    }
    assert_true(found > 200);
    sel_test_image_done(&image);
    sel_test_remove_tree(path);
}

/* ---- selinon-cli journal ---- */

#define JOURNAL(run, state, ...)                                                                   \
    sel_test_run((run), *(state),                                                                  \
                 (const char *const[]){SEL_TEST_CLI, "journal", __VA_ARGS__, NULL}, NULL)

static void expect(struct sel_test_run *run, int status, const char *in_out, const char *in_err)
{
    if (run->status != status || !strstr(run->out, in_out) || !strstr(run->err, in_err) ||
        (!*in_err && *run->err))
        fail_msg("exit status %d, printed '%s', errors '%s'; expected %d, '%s', '%s'", run->status,
                 run->out, run->err, status, in_out, in_err);
    sel_test_run_done(run);
}

static void make_journal(void **state)
{
    struct sel_journal *j = sel_test_journal_open(journal_in(state));
    const struct sel_str batches[] = {SEL_STR("first"), SEL_STR("second"), SEL_STR("third")};
    uint64_t last;
    assert_ok(j->ops->append(j, batches, 3, true, false, &last, NULL));
    j->ops->close(j);
}

static void test_show_lists_the_batches(void **state)
{
    struct sel_test_run run;
    make_journal(state);
    JOURNAL(&run, state, "show", "journal");
    assert_string_equal(run.out, "       BATCH           BYTES  CHECKSUM\n"
                                 "           1               5  8a3ea150\n"
                                 "           2               6  7afd9428\n"
                                 "           3               5  095a6947\n"
                                 "3 batches with 16 B; the journal uses 16 KiB\n");
    expect(&run, 0, "", "");
    JOURNAL(&run, state, "show", "journal", "--from", "3", "--json");
    expect(&run, 0,
           "{\"batches\":[{\"batch\":3,\"bytes\":5,\"checksum\":\"095a6947\"}],\"ok\":true,"
           "\"first\":1,\"last\":3,\"bytes_live\":16,",
           "");
    JOURNAL(&run, state, "show", "journal", "--records"); /* these are no broker's */
    expect(&run, 1, "BATCH", "batch 1: ");
}

static void test_verify_names_the_damage(void **state)
{
    struct sel_test_run run;
    struct sel_test_image image = {0};
    make_journal(state);
    JOURNAL(&run, state, "verify", "journal");
    expect(&run, 0, "The journal is right: 3 batches with 16 B.\n", "");
    JOURNAL(&run, state, "verify", "journal", "--json");
    expect(&run, 0, "{\"ok\":true,\"first\":1,\"last\":3,\"bytes_live\":16,", "");
    sel_test_image_load(&image, journal_in(state));
    uint8_t *second = memmem(image.data.p, image.data.n, "second", 6);
    assert_non_null(second);
    for (; second;
         second = memmem(second, image.data.n - (size_t)(second - image.data.p), "second", 6))
        second[3] ^= 1; /* old pages have it too */
    sel_test_image_store(&image, journal_in(state));
    JOURNAL(&run, state, "verify", "journal");
    expect(&run, 1, "", "batch 2 has a wrong checksum; restore the whole folder from a copy");
    JOURNAL(&run, state, "verify", "journal", "--json");
    expect(&run, 1, "{\"ok\":false,\"code\":\"SEL_EFORMAT\",\"error\":\"'journal/data.mdb' is", "");
    JOURNAL(&run, state, "show", "journal");
    expect(&run, 1, "", "batch 2 has a wrong checksum");
    JOURNAL(&run, state, "compact", "journal");
    expect(&run, 1, "", "batch 2 has a wrong checksum");
    sel_test_image_done(&image);
}

static void test_compact_makes_it_smaller(void **state)
{
    struct sel_test_run run;
    struct sel_journal *j = sel_test_journal_open(journal_in(state));
    uint64_t last = 0;
    for (; last < 400; last += 10)
        sel_test_append_ok(j, last, 10, true);
    assert_ok(j->ops->drop(j, 390, NULL));
    for (; last < 410; last++)
        sel_test_append_ok(j, last, 1, true);
    JOURNAL(&run, state, "verify", "journal");
    expect(&run, 1, "", "is in use by another process");
    j->ops->close(j);
    JOURNAL(&run, state, "compact", "journal");
    expect(&run, 0, " before, ", "");
    JOURNAL(&run, state, "compact", "journal", "--json");
    expect(&run, 0, "{\"before\":", "");
    JOURNAL(&run, state, "verify", "journal");
    expect(&run, 0, "21 batches", "");
    j = sel_test_journal_open(journal_in(state));
    sel_test_holds(j, 390, 410);
    j->ops->close(j);
}

static void test_wrong_usage_is_told(void **state)
{
    struct sel_test_run run;
    JOURNAL(&run, state, "show");
    expect(&run, 2, "", "Error: PATH is missing");
    JOURNAL(&run, state, "show", "nowhere");
    expect(&run, 2, "", "Error: PATH: 'nowhere' does not exist");
    JOURNAL(&run, state, "look", ".");
    expect(&run, 2, "", "Error: ACTION: 'look' is none of show, verify, compact");
    JOURNAL(&run, state, "show", ".");
    expect(&run, 1, "", "'.' holds no journal");
    JOURNAL(&run, state, "--help");
    expect(&run, 0, "Usage: selinon-cli journal ACTION PATH [OPTIONS]", "");
}

#define with_journal(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_journal(test_a_killed_process_loses_nothing_that_returned),
        with_journal(test_a_broken_disk_ends_the_journal_and_loses_nothing),
        with_journal(test_a_file_that_may_not_grow_is_no_room_until_it_may),
        with_journal(test_a_full_disk_refuses_what_is_not_urgent_until_there_is_room),
        with_journal(test_damage_anywhere_is_found_or_does_no_harm),
        with_journal(test_show_lists_the_batches),
        with_journal(test_verify_names_the_damage),
        with_journal(test_compact_makes_it_smaller),
        with_journal(test_wrong_usage_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
