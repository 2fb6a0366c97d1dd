/* A mock from files, and the report of what an observer sees. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/program.h"
#include "worker/config.h"
#include "worker/mock.h"
#include "worker/mock_files.h"
#include "worker/mock_report.h"

struct scene {
    struct sel_test_folder folder;
    struct sel_arena arena;
    struct sel_task_def task;
    struct sel_flow_def flow;
    struct sel_storage_def storage;
    struct sel_system system;
    struct sel_mock_files files;
    struct sel_error err;
};

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    sel_test_folder_init(&s->folder);
    s->task = (struct sel_task_def){.name = SEL_STR("T"), .storage_task_name = SEL_STR("T_kept")};
    s->flow.name = SEL_STR("F");
    s->storage.name = SEL_STR("S");
    s->system = (struct sel_system){.tasks = &s->task, .task_count = 1};
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    sel_mock_files_done(&s->files);
    sel_arena_done(&s->arena);
    sel_test_folder_done(&s->folder);
    free(s);
    return 0;
}

static const char *path(struct scene *s, const char *name)
{
    return sel_arena_printf(&s->arena, "%s/%s", s->folder.path, name);
}

static int open_files(struct scene *s, const char *state, const char *report)
{
    return sel_mock_files_open(&s->files, &s->system, path(s, "mock.json"), state, report, &s->err);
}

static int64_t at_five(void *ctx)
{
    (void)ctx;
    return 5;
}

/* The lines of the report so far, with '|' between them. */
static const char *report_text(struct scene *s)
{
    struct sel_str text;
    assert_ok(sel_config_read_file(&s->arena, path(s, "report"), &text, NULL));
    char *copy = sel_arena_strdup(&s->arena, text);
    for (char *p = copy; *p; p++)
        *p = *p == '\n' ? '|' : *p;
    return copy;
}

static void test_a_script_or_a_case_is_loaded(void **state)
{
    struct scene *s = *state;
    static const char *const texts[] = {"{\"tasks\": {\"T\": [{\"result\": 1}]}}",
                                        "{\"flow\": \"F\", \"mock\": {\"tasks\": {\"T\": "
                                        "[{\"result\": 1}]}}}"};
    for (uint32_t i = 0; i < 2; i++) {
        struct sel_exec_result result;
        void *code;
        sel_test_write(&s->folder, "mock.json", sel_str_c(texts[i]));
        assert_ok(open_files(s, NULL, NULL));
        assert_null(s->files.observer);
        assert_null(s->files.results);
        assert_ok(sel_runtime_mock.prepare(s->files.mock, &s->task, &code, NULL));
        sel_runtime_mock.run(s->files.mock, code, NULL, &result);
        assert_int_equal(result.value.n, 1);
        assert_int_equal(result.value.p[0], 1);
        sel_mock_files_done(&s->files);
    }
}

static void test_the_file_at_fault_is_named(void **state)
{
    struct scene *s = *state;
    static const struct {
        const char *text;
        int code;
        const char *why;
    } cases[] = {
        {NULL, -ENOENT, ""},
        {"{\"tasks\": ", SEL_ESYNTAX, ""},
        {"{\"tasks\": {\"T\": []}}", SEL_EREQUEST, "at least one step"},
        {"[]", SEL_EREQUEST, "expected an object"},
    };
    for (uint32_t i = 0; i < SEL_COUNT(cases); i++) {
        if (cases[i].text)
            sel_test_write(&s->folder, "mock.json", sel_str_c(cases[i].text));
        assert_code(open_files(s, NULL, NULL), cases[i].code);
        assert_non_null(strstr(s->err.pos.file, "mock.json"));
        assert_non_null(strstr(s->err.text, cases[i].why));
        sel_mock_files_done(&s->files);
    }
    sel_test_write(&s->folder, "mock.json", SEL_STR("{}"));
    assert_code(open_files(s, "/no/such/file", NULL), -ENOENT);
    assert_string_equal(s->err.pos.file, "/no/such/file");
    sel_mock_files_done(&s->files);
    assert_code(open_files(s, NULL, "/no/such/report"), -ENOENT);
    assert_string_equal(s->err.pos.file, "/no/such/report");
}

static void test_executions_become_lines(void **state)
{
    struct scene *s = *state;
    sel_test_write(&s->folder, "mock.json", SEL_STR("{}"));
    assert_ok(open_files(s, path(s, "steps"), path(s, "report")));
    sel_mock_report_clock(s->files.report, at_five, NULL);
    const struct sel_executor_observer *o = s->files.observer;
    struct sel_value parents = sel_test_json(&s->arena, "{\"P\": \"id\"}");
    struct sel_exec_result result = {.value = {"\x07", 1}, .error_class = ""};
    struct sel_execution e = {.task = &s->task,
                              .flow = &s->flow,
                              .task_id = "f-0.1",
                              .try_count = 2,
                              .node_args = {"\xc3", 1},
                              .parents = &parents,
                              .result = &result};
    o->execution(o->ctx, &e);
    assert_string_equal(
        report_text(s),
        "|{\"what\":\"execution\",\"at_us\":5,\"task\":\"T\",\"flow\":\"F\",\"id\":\"f-0.1\","
        "\"try\":2,\"node_args\":true,\"parents\":{\"P\":\"id\"},\"outcome\":"
        "\"success\",\"result\":7}|");
    static const struct {
        enum sel_exec_outcome outcome;
        bool will_retry;
        const char *end;
    } cases[] = {
        {SEL_EXEC_FAILURE, false, "\"outcome\":\"failure\",\"error\":\"KeyError\"}|"},
        {SEL_EXEC_FAILURE, true,
         "\"outcome\":\"retry\",\"error\":\"KeyError\",\"countdown\":1.5}|"},
        {SEL_EXEC_RETRY, true, "\"outcome\":\"retry\",\"error\":\"Retry\",\"countdown\":1.5}|"},
        {SEL_EXEC_CANCELED, false, "\"outcome\":\"returned\"}|"},
    };
    e.flow = NULL; /* a bare task */
    e.node_args = SEL_STR("\xc1");
    e.countdown_s = 1.5;
    for (uint32_t i = 0; i < SEL_COUNT(cases); i++) {
        result = (struct sel_exec_result){.outcome = cases[i].outcome, .error_class = "KeyError"};
        e.will_retry = cases[i].will_retry;
        o->execution(o->ctx, &e);
        const char *text = report_text(s);
        size_t n = strlen(text), end_n = strlen(cases[i].end);
        assert_true(n > end_n);
        assert_string_equal(text + n - end_n, cases[i].end);
    }
    assert_non_null(strstr(report_text(s),
                           "{\"what\":\"execution\",\"at_us\":5,\"task\":\"T\",\"id\":\"f-0.1\","
                           "\"try\":2,\"node_args\":null,"));
}

static void test_results_ends_and_events_become_lines(void **state)
{
    struct scene *s = *state;
    sel_test_write(&s->folder, "mock.json", SEL_STR("{}"));
    assert_ok(open_files(s, NULL, path(s, "report")));
    sel_mock_report_clock(s->files.report, at_five, NULL);
    const struct sel_executor_observer *o = s->files.observer;
    struct sel_value finished = sel_test_json(&s->arena, "{\"T\": [\"f-0.1\"]}");
    struct sel_value failed = sel_test_json(&s->arena, "{}");
    struct sel_flow_end end = {.flow = &s->flow,
                               .id = {1, 2},
                               .start_args = {"\xc0", 1},
                               .outcome = SEL_FLOW_RETRY,
                               .finished_nodes = &finished,
                               .failed_nodes = &failed,
                               .is_top = true};
    o->stored(o->ctx, &s->storage, &s->task, &s->flow, SEL_STR("\x07"));
    o->flow_end(o->ctx, &end);
    o->trace(o->ctx, SEL_TRACE_FLOW_START, &finished, 2);
    assert_string_equal(
        report_text(s),
        "|{\"what\":\"stored\",\"at_us\":5,\"storage\":\"S\",\"task\":\"T\",\"storage_task_name\":"
        "\"T_kept\","
        "\"flow\":\"F\",\"result\":7}|"
        "|{\"what\":\"flow\",\"at_us\":5,\"flow\":\"F\",\"id\":\"00000000-0000-0001-0000-"
        "000000000002\","
        "\"node_args\":null,\"outcome\":\"retry\",\"finished_nodes\":{\"T\":[\"f-0.1\"]},"
        "\"failed_nodes\":{},\"top\":true}|"
        "|{\"what\":\"event\",\"at_us\":3,\"event\":\"FLOW_START\",\"details\":{\"T\":[\"f-0.1\"]}}"
        "|");
    assert_int_equal(sel_mock_report_lost(s->files.report), 0);
}

static void test_a_line_begins_anew_after_one_whose_writer_was_killed(void **state)
{
    struct scene *s = *state;
    sel_test_write(&s->folder, "mock.json", SEL_STR("{}"));
    sel_test_write(&s->folder, "report", SEL_STR("{\"what\":\"exec"));
    assert_ok(open_files(s, NULL, path(s, "report")));
    sel_mock_report_clock(s->files.report, at_five, NULL);
    const struct sel_executor_observer *o = s->files.observer;
    o->stored(o->ctx, &s->storage, &s->task, NULL, SEL_STR("\x07"));
    assert_string_equal(report_text(s),
                        "{\"what\":\"exec|{\"what\":\"stored\",\"at_us\":5,\"storage\":\"S\","
                        "\"task\":\"T\",\"storage_task_name\":\"T_kept\",\"result\":7}|");
}

static void test_a_report_that_cannot_be_written_counts_what_is_lost(void **state)
{
    struct scene *s = *state;
    sel_test_write(&s->folder, "mock.json", SEL_STR("{}"));
    assert_ok(open_files(s, NULL, "/dev/full"));
    const struct sel_executor_observer *o = s->files.observer;
    o->stored(o->ctx, &s->storage, &s->task, NULL, SEL_STR("\x07"));
    assert_int_equal(sel_mock_report_lost(s->files.report), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_script_or_a_case_is_loaded),
        T(the_file_at_fault_is_named),
        T(executions_become_lines),
        T(results_ends_and_events_become_lines),
        T(a_line_begins_anew_after_one_whose_writer_was_killed),
        T(a_report_that_cannot_be_written_counts_what_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
