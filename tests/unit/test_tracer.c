#include "tests/support/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/module.h"
#include "worker/tracer.h"

#define NOW_US INT64_C(1700000000012345) /* 2023-11-14 22:13:20.012345 UTC */

/* ---- a storage that keeps events, or refuses them ---- */

struct fake_storage {
    struct sel_storage base; /* first */
    struct sel_buf kept;     /* "EVENT details" lines */
    int64_t refuses_below;   /* events whose "n" is smaller, as often as they come */
    uint64_t calls;
    pthread_mutex_t *gate; /* it gets no further while this is locked; or NULL */
};

static int keep_event(struct fake_storage *fake, const struct sel_storage_event *event,
                      struct sel_error *err)
{
    struct sel_arena arena = {0};
    struct sel_value value;
    fake->calls++;
    if (fake->gate) {
        pthread_mutex_lock(fake->gate);
        pthread_mutex_unlock(fake->gate);
        return 0;
    }
    assert_ok(sel_value_decode(&arena, event->details.p, event->details.n, false, &value, NULL));
    int64_t n = 0;
    if (fake->refuses_below > 0 && sel_value_i64(sel_value_get_c(&value, "n"), &n) &&
        n < fake->refuses_below) {
        sel_arena_done(&arena);
        return sel_error_set(err, SEL_ESTORAGE, (struct sel_pos){0}, "out of paper");
    }
    sel_buf_printf(&fake->kept, "%.*s ", SEL_STR_ARG(event->name));
    sel_json_write(&value, SEL_JSON_SORT, &fake->kept);
    sel_buf_put_c(&fake->kept, "\n");
    sel_arena_done(&arena);
    return 0;
}

static int fake_trace(struct sel_storage *storage, struct sel_io *io,
                      const struct sel_storage_event *events, uint32_t count, struct sel_error *err)
{
    int r = 0;
    (void)io;
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = keep_event((struct fake_storage *)storage, &events[i], err);
    return r;
}

static const struct sel_storage_ops_i keeps_events = {.trace = fake_trace};
static const struct sel_storage_ops_i keeps_none = {0};

/* ---- a tracer with its sinks, and what they wrote ---- */

struct scene {
    struct sel_arena arena;
    struct sel_trace_def traces[2];
    struct sel_storage_def storages[1];
    struct sel_system system;
    struct fake_storage storage;
    struct sel_tracer_options options;
    struct sel_modules *modules;
    struct sel_tracer *tracer;
    struct sel_error err;
    FILE *out, *errors;
    uint32_t observed;
    int64_t observed_age_us; /* of the last one */
    char host[256];
};

static int64_t clock_us(void *ctx)
{
    (void)ctx;
    return NOW_US;
}

static int give_storage(void *ctx, uint32_t index, struct sel_storage **ret, struct sel_error *err)
{
    struct scene *s = ctx;
    (void)err;
    assert_int_equal(index, 0);
    *ret = &s->storage.base;
    return 0;
}

static void observe(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                    int64_t age_us)
{
    struct scene *s = ctx;
    s->observed_age_us = age_us;
    (void)event;
    assert_true(sel_value_is(details, SEL_MAP));
    s->observed++;
}

static void init(struct scene *s, enum sel_trace_sink_kind first, uint32_t count,
                 enum sel_trace_sink_kind second)
{
    memset(s, 0, sizeof(*s));
    s->traces[0].kind = first;
    s->traces[1].kind = second;
    s->storages[0].name = SEL_STR("Events");
    s->storage.base.ops = &keeps_events;
    s->system = (struct sel_system){
        .traces = s->traces, .trace_count = count, .storages = s->storages, .storage_count = 1};
    s->out = tmpfile();
    s->errors = tmpfile();
    assert_true(s->out && s->errors);
    s->options = (struct sel_tracer_options){.system = &s->system,
                                             .storage = give_storage,
                                             .storage_ctx = s,
                                             .unix_us = clock_us,
                                             .out_fd = fileno(s->out),
                                             .err_fd = fileno(s->errors),
                                             .log_info = true};
    assert_ok(gethostname(s->host, sizeof(s->host) - 1));
}

static void done(struct scene *s)
{
    sel_tracer_free(s->tracer);
    sel_modules_free(s->modules);
    sel_buf_done(&s->storage.kept);
    (void)fclose(s->out);
    (void)fclose(s->errors);
    sel_arena_done(&s->arena);
}

static void emit(struct scene *s, enum sel_trace_event event, const char *details)
{
    struct sel_value value = sel_test_json(&s->arena, details);
    sel_tracer_emit(s->tracer, event, &value);
}

static const char *content(struct scene *s, FILE *file)
{
    char *text = sel_arena_alloc(&s->arena, 65536);
    assert_non_null(text);
    ssize_t n = pread(fileno(file), text, 65535, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

#define TIME "\"time\": \"2023-11-14 22:13:20.012345\"}\n"

static void test_nobody_listens_to_a_tracer_without_sinks(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_LOGGING, 0, SEL_TRACE_LOGGING);
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    assert_false(sel_tracer_is_on(s.tracer));
    sel_tracer_free(s.tracer);
    s.options.observer = observe;
    s.options.observer_ctx = &s;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    assert_true(sel_tracer_is_on(s.tracer));
    emit(&s, SEL_TRACE_FLOW_START, "{}");
    emit(&s, SEL_TRACE_FLOW_END, "{\"a\": 1}");
    assert_int_equal(s.observed, 2);
    done(&s);
}

static void test_logging_writes_a_line_with_host_event_and_sorted_keys(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_LOGGING, 1, SEL_TRACE_LOGGING);
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    emit(&s, SEL_TRACE_FLOW_START, "{\"b\": [1, 2.0], \"a\": null}");
    emit(&s, SEL_TRACE_NODE_FAILURE, "{\"what\": \"two\\nlines\"}");
    const char *expected = sel_arena_printf(
        &s.arena,
        "SELINON %10s - FLOW_START : {\"details\": {\"a\": null, \"b\": [1, 2.0]}, "
        "\"event\": \"FLOW_START\", " TIME
        "SELINON %10s - NODE_FAILURE : {\"details\": {\"what\": \"two\\nlines\"}, "
        "\"event\": \"NODE_FAILURE\", " TIME,
        s.host, s.host);
    assert_string_equal(content(&s, s.errors), expected);
    assert_string_equal(content(&s, s.out), "");
    done(&s);
}

static void test_logging_leaves_out_info_unless_asked(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_LOGGING, 1, SEL_TRACE_LOGGING);
    s.options.log_info = false;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    emit(&s, SEL_TRACE_TASK_START, "{}");
    assert_string_equal(content(&s, s.errors), "");
    emit(&s, SEL_TRACE_TASK_RETRY, "{}");
    emit(&s, SEL_TRACE_DISPATCHER_FAILURE, "{}");
    assert_non_null(strstr(content(&s, s.errors), "TASK_RETRY"));
    assert_non_null(strstr(content(&s, s.errors), "DISPATCHER_FAILURE"));
    done(&s);
}

static void test_what_is_emitted_late_has_its_own_time(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_JSON, 1, SEL_TRACE_JSON);
    s.options.observer = observe;
    s.options.observer_ctx = &s;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    struct sel_value details = sel_test_json(&s.arena, "{}");
    sel_tracer_emit_late(s.tracer, SEL_TRACE_FLOW_END, &details, 1012000);
    assert_int_equal(s.observed_age_us, 1012000);
    assert_non_null(strstr(content(&s, s.out), "\"time\": \"2023-11-14 22:13:19.000345\"}"));
    emit(&s, SEL_TRACE_FLOW_END, "{}");
    assert_int_equal(s.observed_age_us, 0);
    done(&s);
}

static void test_json_lines_go_out_by_their_level(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_JSON, 1, SEL_TRACE_JSON);
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    emit(&s, SEL_TRACE_TASK_END, "{\"task_name\": \"a\"}");
    emit(&s, SEL_TRACE_FLOW_RETRY, "{\"countdown\": 5}");
    emit(&s, SEL_TRACE_DISPATCHER_FAILURE, "{}");
    assert_string_equal(content(&s, s.out),
                        sel_arena_printf(&s.arena,
                                         "{\"details\": {\"task_name\": \"a\"}, \"event\": "
                                         "\"TASK_END\", \"node\": \"%s\", " TIME,
                                         s.host));
    assert_string_equal(
        content(&s, s.errors),
        sel_arena_printf(
            &s.arena,
            "{\"details\": {\"countdown\": 5}, \"event\": \"FLOW_RETRY\", \"node\": \"%s\", " TIME
            "{\"details\": {}, \"event\": \"DISPATCHER_FAILURE\", \"node\": \"%s\", " TIME,
            s.host, s.host));
    done(&s);
}

struct writer {
    struct sel_tracer *tracer;
    struct sel_value details;
    pthread_t thread;
};

static void *write_many(void *arg)
{
    struct writer *writer = arg;
    for (int i = 0; i < 50; i++)
        sel_tracer_emit(writer->tracer, SEL_TRACE_TASK_END, &writer->details);
    return NULL;
}

/* Lines longer than a pipe takes at once, from two threads. */
static void test_long_lines_of_several_threads_stay_whole(void **state)
{
    (void)state;
    enum { SIZE = 20000, LINES = 100 };
    struct scene s;
    int ends[2];
    init(&s, SEL_TRACE_JSON, 1, SEL_TRACE_JSON);
    assert_ok(pipe(ends));
    s.options.out_fd = ends[1];
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    struct writer writers[2];
    for (int i = 0; i < 2; i++) {
        char *text = sel_arena_alloc(&s.arena, SIZE);
        assert_non_null(text);
        memset(text, 'a' + i, SIZE);
        writers[i] = (struct writer){.tracer = s.tracer};
        struct sel_value_builder list;
        sel_value_begin_list(&list, &s.arena);
        sel_value_add(&list, sel_value_from_str((struct sel_str){text, SIZE}));
        assert_ok(sel_value_end(&list, &writers[i].details));
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_many, &writers[i]), 0);
    }
    FILE *in = fdopen(ends[0], "r");
    char *line = NULL;
    size_t cap = 0;
    for (int i = 0; i < LINES; i++) {
        ssize_t n = getline(&line, &cap, in);
        assert_true(n > SIZE);
        char *body = strchr(line, '[');
        assert_non_null(body);
        assert_int_equal(strspn(body + 2, (char[]){body[2], '\0'}), SIZE);
    }
    for (int i = 0; i < 2; i++)
        (void)pthread_join(writers[i].thread, NULL);
    free(line);
    (void)fclose(in);
    close(ends[1]);
    done(&s);
}

static void test_a_sink_that_fails_is_reported_once_and_the_others_go_on(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_FUNCTION, 2, SEL_TRACE_JSON);
    s.traces[0].function = (struct sel_import){SEL_STR("flows"), SEL_STR("refuses"), {0}};
    s.modules = sel_modules_new(SEL_TEST_MODULES);
    s.options.modules = s.modules;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    for (int i = 0; i < 3; i++)
        emit(&s, SEL_TRACE_TASK_END, "{}");
    assert_int_equal(sel_tracer_lost(s.tracer), 3);
    const char *said = strstr(content(&s, s.errors), "trace sink failed");
    assert_non_null(said);
    assert_null(strstr(said + 1, "trace sink failed"));
    uint32_t lines = 0;
    for (const char *p = content(&s, s.out); (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 3);
    done(&s);
}

static void test_a_line_that_cannot_be_written_is_counted(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_JSON, 1, SEL_TRACE_JSON);
    s.options.out_fd = -1;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    emit(&s, SEL_TRACE_TASK_END, "{}");
    emit(&s, SEL_TRACE_TASK_FAILURE, "{}"); /* to the other descriptor */
    assert_int_equal(sel_tracer_lost(s.tracer), 1);
    assert_non_null(strstr(content(&s, s.errors), "Bad file descriptor"));
    assert_non_null(strstr(content(&s, s.errors), "TASK_FAILURE"));
    done(&s);
}

static void test_a_storage_gets_all_events_in_order_before_the_tracer_ends(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct scene s;
    struct sel_buf expected = {0};
    init(&s, SEL_TRACE_STORAGE, 1, SEL_TRACE_STORAGE);
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    for (int i = 0; i < COUNT; i++) {
        emit(&s, SEL_TRACE_TASK_END, sel_arena_printf(&s.arena, "{\"n\": %d}", i));
        sel_buf_printf(&expected, "TASK_END {\"n\":%d}\n", i);
    }
    s.tracer = sel_tracer_free(s.tracer);
    assert_int_equal(s.storage.calls, COUNT);
    assert_string_equal(sel_buf_cstr(&s.storage.kept), sel_buf_cstr(&expected));
    sel_buf_done(&expected);
    done(&s);
}

static void test_events_that_a_storage_refuses_do_not_take_others_with_them(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_STORAGE, 1, SEL_TRACE_STORAGE);
    s.storage.refuses_below = 2;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    for (int i = 0; i < 3; i++)
        emit(&s, SEL_TRACE_FLOW_END, sel_arena_printf(&s.arena, "{\"n\": %d}", i));
    s.tracer = sel_tracer_free(s.tracer);
    assert_string_equal(sel_buf_cstr(&s.storage.kept), "FLOW_END {\"n\":2}\n");
    const char *said = strstr(content(&s, s.errors), "out of paper");
    assert_non_null(said);
    assert_null(strstr(said + 1, "out of paper"));
    done(&s);
}

static struct sel_value one_mebibyte(struct scene *s)
{
    char *text = sel_arena_alloc(&s->arena, 1 << 20);
    struct sel_value_builder map;
    struct sel_value details;
    assert_non_null(text);
    memset(text, 'x', 1 << 20);
    sel_value_begin_map(&map, &s->arena);
    sel_value_put_c(&map, "text", sel_value_from_str((struct sel_str){text, 1 << 20}));
    assert_ok(sel_value_end(&map, &details));
    return details;
}

/* 100 events of 1 MiB, of which 64 MiB may wait. */
static void test_a_storage_that_hangs_holds_up_nobody_and_no_memory_without_end(void **state)
{
    (void)state;
    struct scene s;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    init(&s, SEL_TRACE_STORAGE, 1, SEL_TRACE_LOGGING);
    s.storage.gate = &gate;
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    struct sel_value details = one_mebibyte(&s);
    pthread_mutex_lock(&gate);
    for (int i = 0; i < 100; i++)
        sel_tracer_emit(s.tracer, SEL_TRACE_TASK_END, &details);
    uint64_t lost = sel_tracer_lost(s.tracer);
    pthread_mutex_unlock(&gate);
    s.tracer = sel_tracer_free(s.tracer);
    assert_in_range(lost, 1, 37); /* those that were taken before the gate are on their way */
    assert_int_equal(s.storage.calls, 100 - lost);
    assert_non_null(strstr(content(&s, s.errors), "do not keep up"));
    assert_non_null(strstr(content(&s, s.errors), "trace events did not reach a sink"));
    done(&s);
}

static void *read_slowly(void *arg)
{
    static char bytes[1 << 20];
    const int *fd = arg;
    size_t total = 0;
    for (ssize_t n = 1; n > 0; total += (size_t)n)
        n = read(*fd, bytes, sizeof(bytes));
    return (void *)total;
}

static void test_a_pipe_that_does_not_block_still_gets_whole_lines(void **state)
{
    (void)state;
    struct scene s;
    int ends[2];
    pthread_t reader;
    void *total;
    init(&s, SEL_TRACE_JSON, 1, SEL_TRACE_JSON);
    assert_ok(pipe2(ends, O_NONBLOCK));
    assert_ok(fcntl(ends[0], F_SETFL, 0));
    s.options.out_fd = ends[1];
    assert_ok(sel_tracer_new(&s.options, &s.tracer, &s.err));
    assert_ok(pthread_create(&reader, NULL, read_slowly, &ends[0]));
    struct sel_value details = one_mebibyte(&s);
    sel_tracer_emit(s.tracer, SEL_TRACE_TASK_END, &details);
    assert_int_equal(sel_tracer_lost(s.tracer), 0);
    assert_ok(close(ends[1]));
    assert_ok(pthread_join(reader, &total));
    assert_true((size_t)total > (1 << 20));
    assert_ok(close(ends[0]));
    done(&s);
}

static void test_what_is_missing_shows_at_the_start(void **state)
{
    (void)state;
    struct scene s;
    init(&s, SEL_TRACE_STORAGE, 1, SEL_TRACE_STORAGE);
    s.storage.base.ops = &keeps_none;
    assert_code(sel_tracer_new(&s.options, &s.tracer, &s.err), SEL_EUNSUPPORTED);
    assert_non_null(strstr(s.err.text, "Events"));
    done(&s);
    init(&s, SEL_TRACE_JSON, 2, SEL_TRACE_FUNCTION);
    s.traces[1].function = (struct sel_import){SEL_STR("flows"), SEL_STR("nowhere"), {0}};
    assert_code(sel_tracer_new(&s.options, &s.tracer, &s.err), SEL_ENOTFOUND);
    s.modules = sel_modules_new(SEL_TEST_MODULES);
    s.options.modules = s.modules;
    assert_code(sel_tracer_new(&s.options, &s.tracer, &s.err), SEL_ENOTFOUND);
    assert_non_null(strstr(s.err.text, "nowhere"));
    done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_listens_to_a_tracer_without_sinks),
        cmocka_unit_test(test_logging_writes_a_line_with_host_event_and_sorted_keys),
        cmocka_unit_test(test_logging_leaves_out_info_unless_asked),
        cmocka_unit_test(test_what_is_emitted_late_has_its_own_time),
        cmocka_unit_test(test_json_lines_go_out_by_their_level),
        cmocka_unit_test(test_long_lines_of_several_threads_stay_whole),
        cmocka_unit_test(test_a_sink_that_fails_is_reported_once_and_the_others_go_on),
        cmocka_unit_test(test_a_line_that_cannot_be_written_is_counted),
        cmocka_unit_test(test_a_storage_gets_all_events_in_order_before_the_tracer_ends),
        cmocka_unit_test(test_events_that_a_storage_refuses_do_not_take_others_with_them),
        cmocka_unit_test(test_a_storage_that_hangs_holds_up_nobody_and_no_memory_without_end),
        cmocka_unit_test(test_a_pipe_that_does_not_block_still_gets_whole_lines),
        cmocka_unit_test(test_what_is_missing_shows_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
