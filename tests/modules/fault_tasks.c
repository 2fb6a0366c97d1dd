/* Tasks for tests/fault: each execution leaves a line in the file that SEL_FAULT_LOG names, so that
 * what ran twice can be told from what ran once. A line is one write at the end of the file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <selinon/task.h>

static int note(struct sel_task *task)
{
    const char *path = getenv("SEL_FAULT_LOG");
    char line[160];
    if (!path)
        return 0;
    int n = snprintf(line, sizeof(line), "%s %s %ld %u %lld\n", sel_task_id(task),
                     sel_task_name(task), (long)getpid(), (unsigned)sel_task_retried_count(task),
                     (long long)sel_now_us(task));
    if (n < 0 || (size_t)n >= sizeof(line))
        return sel_fail(task, "NoteError", "the line is too long");
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return sel_fail(task, "NoteError", "%s cannot be opened", path);
    ssize_t written = write(fd, line, (size_t)n);
    (void)close(fd);
    return written == n ? 0 : sel_fail(task, "NoteError", "%s cannot be written", path);
}

/* {n, sleep (seconds, may be missing)}: n and its square, and who says so: no two executions answer
 * the same. */
static int square(struct sel_task *task)
{
    static uint64_t count;
    int64_t n;
    double seconds = 0;
    SEL_TRY(note(task));
    SEL_TRY(sel_arg_i64(task, "n", &n));
    if (sel_has_arg(task, "sleep"))
        SEL_TRY(sel_arg_f64(task, "sleep", &seconds));
    if (seconds > 0)
        SEL_TRY(sel_sleep(task, seconds));
    uint64_t mine = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
    return sel_result(task, "{s:i, s:i, s:i, s:i}", "n", n, "square", n * n, "pid",
                      (int64_t)getpid(), "count", (int64_t)mine);
}

/* Fails for good, in a way that says which one it is. */
static int fails(struct sel_task *task)
{
    int64_t n;
    SEL_TRY(note(task));
    SEL_TRY(sel_arg_i64(task, "n", &n));
    return sel_fail_fatal(task, "task %lld", (long long)n);
}

/* Asks for another run twice, then as square. */
static int hesitates(struct sel_task *task)
{
    if (sel_task_retried_count(task) < 2) {
        SEL_TRY(note(task));
        return sel_retry(task, 0.02);
    }
    return square(task);
}

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int crashes(struct sel_task *task)
{
    volatile int *volatile nowhere = 0;
    SEL_TRY(note(task));
    *nowhere = 1;
    return 0;
}

static int deeper(volatile char *above, int64_t depth)
{
    volatile char here[1024];
    here[0] = (char)(above[0] + (char)depth);
    return depth == 0 ? here[0] : deeper(here, depth - 1) + here[1023];
}

static int overflows(struct sel_task *task)
{
    volatile char first[1] = {0};
    SEL_TRY(note(task));
    return sel_result(task, "i", (int64_t)deeper(first, INT64_C(1) << 40));
}

SEL_MODULE("fault_tasks", SEL_TASK("square", square), SEL_TASK("fails", fails),
           SEL_TASK("hesitates", hesitates), SEL_TASK("nothing", nothing),
           SEL_TASK("crashes", crashes), SEL_TASK("overflows", overflows));
