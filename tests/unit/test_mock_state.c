#include "tests/support/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/support/program.h"
#include "worker/mock_state.h"

/* Two processes with one file. */
struct scene {
    struct sel_test_folder folder;
    char path[600];
    struct sel_mock_state *states[2];
};

static void open_both(struct scene *s)
{
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(sel_mock_state_open(s->path, &s->states[i], NULL));
}

static void close_both(struct scene *s)
{
    for (uint32_t i = 0; i < 2; i++)
        s->states[i] = sel_mock_state_close(s->states[i]);
}

static int setup(void **state)
{
    static struct scene s;
    sel_test_folder_init(&s.folder);
    (void)snprintf(s.path, sizeof(s.path), "%s/steps", s.folder.path);
    open_both(&s);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    close_both(s);
    sel_test_folder_done(&s->folder);
    return 0;
}

static uint32_t count(struct scene *s, uint32_t i, const char *task, const char *id, uint32_t tries)
{
    uint32_t n = UINT32_MAX;
    assert_ok(sel_mock_state_count(s->states[i], sel_str_c(task), id, tries, &n));
    return n;
}

static void test_executions_are_counted_together(void **state)
{
    struct scene *s = *state;
    assert_int_equal(count(s, 0, "a", "x-0.1", 0), 0);
    assert_int_equal(count(s, 1, "a", "x-0.2", 0), 1);
    assert_int_equal(count(s, 0, "a", "x-0.1", 1), 2); /* another try is another execution */
    assert_int_equal(count(s, 1, "b c", "x-0.3", 0), 0);
    assert_int_equal(count(s, 0, "b c", "x-0.4", 0), 1);
    assert_int_equal(count(s, 0, "b", "x-0.5", 0), 0);
}

static void test_what_is_delivered_again_keeps_its_number(void **state)
{
    struct scene *s = *state;
    assert_int_equal(count(s, 0, "a", "x-0.1", 0), 0);
    assert_int_equal(count(s, 0, "a", "x-0.2", 0), 1);
    assert_int_equal(count(s, 1, "a", "x-0.1", 0), 0);
    close_both(s);
    open_both(s); /* all processes have died */
    assert_int_equal(count(s, 1, "a", "x-0.2", 0), 1);
    assert_int_equal(count(s, 0, "a", "x-0.3", 0), 2);
}

static void append(struct scene *s, const char *text)
{
    int fd = open(s->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_return_code(close(fd), errno);
}

/* Its process died in the midst of the line. */
static void test_half_a_line_does_not_count(void **state)
{
    struct scene *s = *state;
    assert_int_equal(count(s, 0, "a", "x-0.1", 0), 0);
    append(s, "x-0.2 0 a");
    assert_int_equal(count(s, 1, "a", "x-0.3", 0), 1);
    assert_int_equal(count(s, 0, "a", "x-0.2", 0), 2);
    assert_int_equal(count(s, 0, "a", "x-0.3", 0), 1);
}

static void test_another_file_is_refused(void **state)
{
    struct scene *s = *state;
    uint32_t n;
    append(s, "tasks:\n");
    assert_code(sel_mock_state_count(s->states[0], SEL_STR("a"), "x", 0, &n), SEL_EFORMAT);
    assert_code(sel_mock_state_count(s->states[0], SEL_STR("a\nb"), "x", 0, &n), SEL_EREQUEST);
    struct sel_mock_state *none;
    assert_code(sel_mock_state_open("/no/such/folder/file", &none, NULL), -ENOENT);
}

struct job {
    struct scene *scene;
    uint32_t number, sum;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    for (uint32_t i = 0; i < 50; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "%u-%u", job->number, i);
        job->sum += count(job->scene, job->number % 2, "a", id, 0);
    }
    return NULL;
}

/* Whoever asks, each number is given once. */
static void test_threads_of_several_processes(void **state)
{
    struct job jobs[4];
    pthread_t threads[4];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 4; i++) {
        jobs[i] = (struct job){.scene = *state, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum += jobs[i].sum;
    }
    assert_int_equal(sum, 199 * 200 / 2);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(executions_are_counted_together), T(what_is_delivered_again_keeps_its_number),
        T(half_a_line_does_not_count),      T(another_file_is_refused),
        T(threads_of_several_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
