#include <pthread.h>

#include "tests/support/storage.h"

#define MODULE "selinon.storages.memory"
#define NAME "InMemoryStorage"

static void test_the_first_result_of_an_id_wins(void **state)
{
    (void)state;
    struct sel_storage *s = sel_test_must_open(MODULE, NAME, "null", NULL);
    assert_missing(s, "a");
    assert_int_equal(sel_test_store(s, "a", "{\"x\":1}"), SEL_STORE_OK);
    assert_int_equal(sel_test_store(s, "a", "2"), SEL_STORE_EXISTS);
    assert_stored(s, "a", "{\"x\":1}");
    assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_OK);
    assert_int_equal(sel_test_delete(s, "a"), SEL_STORE_MISSING);
    assert_missing(s, "a");
    assert_int_equal(sel_test_store(s, "a", "3"), SEL_STORE_OK);
    assert_stored(s, "a", "3");
    s->ops->close(s);
}

static void test_ids_that_look_alike_are_different(void **state)
{
    (void)state;
    const char *const ids[] = {
        "0198f3c2-0000-7000-8000-00000000000a-1.2",
        "0198F3C2-0000-7000-8000-00000000000A-1.2",
        "0198f3c2-0000-7000-8000-00000000000a-1.02",
        "0198f3c2-0000-7000-8000-00000000000a-2.1",
        "0198f3c2-0000-7000-8000-00000000000a",
        "x",
        "x ",
    };
    struct sel_storage *s = sel_test_must_open(MODULE, NAME, "{}", NULL);
    for (size_t i = 0; i < SEL_COUNT(ids); i++) {
        char json[8];
        (void)snprintf(json, sizeof(json), "%zu", i);
        assert_int_equal(sel_test_store(s, ids[i], json), SEL_STORE_OK);
    }
    for (size_t i = 0; i < SEL_COUNT(ids); i++) {
        char json[8];
        (void)snprintf(json, sizeof(json), "%zu", i);
        assert_stored(s, ids[i], json);
    }
    s->ops->close(s);
}

static void test_an_id_that_is_no_key_fails_alone(void **state)
{
    (void)state;
    char text[600];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct sel_storage *s = sel_test_must_open(MODULE, NAME, "null", NULL);
    struct sel_storage_item items[] = {sel_test_item(text, SEL_STR("\x01")),
                                       sel_test_item("", SEL_STR("\x01")),
                                       sel_test_item("fine", SEL_STR("\x01"))};
    struct sel_arena arena = {0};
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, items, 3, NULL));
    assert_int_equal(items[0].status, SEL_STORE_FAILED);
    assert_non_null(items[0].message);
    assert_int_equal(items[1].status, SEL_STORE_FAILED);
    assert_int_equal(items[2].status, SEL_STORE_OK);
    assert_str_is(items[2].record_id, "fine");
    sel_arena_done(&arena);
    s->ops->close(s);
}

static void test_it_keeps_no_errors(void **state)
{
    (void)state;
    struct sel_storage *s = sel_test_must_open(MODULE, NAME, "null", NULL);
    assert_null(s->ops->put_error);
    assert_null(s->ops->get_error);
    s->ops->close(s);
}

/* ---- echo ---- */

struct echoed {
    struct sel_buf text;
    bool to_stderr;
};

static void note_echo(void *ctx, bool to_stderr, struct sel_str line)
{
    struct echoed *echoed = ctx;
    sel_buf_put_str(&echoed->text, line);
    sel_buf_put_c(&echoed->text, "|");
    echoed->to_stderr = to_stderr;
}

static void test_echo_prints_what_is_stored_and_retrieved(void **state)
{
    (void)state;
    const struct {
        const char *config, *text;
        bool to_stderr;
    } cases[] = {
        {"{\"echo\": false}", "", false},
        {"{\"echo\": null}", "", false},
        {"{\"echo\": true}",
         "{\"node_args\": null, \"task_name\": \"Task1\", \"flow_name\": \"flow1\", "
         "\"task_id\": \"a\", \"result\": [1]}|[1]|",
         false},
        {"{\"echo\": \"stderr\"}",
         "{\"node_args\": null, \"task_name\": \"Task1\", \"flow_name\": \"flow1\", "
         "\"task_id\": \"a\", \"result\": [1]}|[1]|",
         true},
        {"{\"echo\": \"stdout\", \"json\": true}",
         "{\n  \"flow_name\": \"flow1\",\n  \"node_args\": null,\n  \"result\": [\n    1\n  ],\n"
         "  \"task_id\": \"a\",\n  \"task_name\": \"Task1\"\n}|[\n  1\n]|",
         false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct echoed echoed = {0};
        struct sel_value config = sel_test_json(&arena, cases[i].config);
        struct sel_storage_options options = {
            .name = SEL_STR("S"), .config = &config, .echo = note_echo, .echo_ctx = &echoed};
        struct sel_storage *s = NULL;
        assert_ok(sel_storage_find(SEL_STR(MODULE), SEL_STR(NAME))
                      ->open(&options, sel_io_blocking(), &s, NULL));
        assert_int_equal(sel_test_store(s, "a", "[1]"), SEL_STORE_OK);
        assert_int_equal(sel_test_store(s, "a", "[2]"), SEL_STORE_EXISTS);
        assert_stored(s, "a", "[1]");
        assert_missing(s, "b");
        assert_string_equal(sel_buf_cstr(&echoed.text), cases[i].text);
        assert_int_equal(echoed.to_stderr, cases[i].to_stderr);
        s->ops->close(s);
        sel_buf_done(&echoed.text);
        sel_arena_done(&arena);
    }
}

static void test_bad_configurations_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *config, *text;
    } cases[] = {
        {"{\"echo\": \"stdin\"}", "'echo' must be true, false, 'stdout' or 'stderr'"},
        {"{\"echo\": 1}", "'echo' must be true, false, 'stdout' or 'stderr'"},
        {"{\"json\": true}", "'json' needs 'echo'"},
        {"{\"json\": 1, \"echo\": true}", "'json' must be true or false, not int"},
        {"{\"ecco\": true}", "did you mean 'echo'?"},
        {"{\"something\": true}", "it takes echo, json"},
        {"{\"retry_seconds\": -1}", "retry_seconds must be a number of seconds"},
        {"[true]", "write a mapping, not list"},
        {"\"stdout\"", "write a mapping, not text"},
        {"0", "write a mapping, not int"},
        {"false", "write a mapping, not bool"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_storage *s = NULL;
        struct sel_error err = {0};
        assert_code(sel_test_open(MODULE, NAME, cases[i].config, NULL, &s, &err), SEL_ECONFIG);
        assert_null(s);
        if (!strstr(err.text, cases[i].text))
            fail_msg("%s: %s", cases[i].config, err.text);
    }
}

static void test_adapters_of_servers_say_that_they_are_not_built_in(void **state)
{
    (void)state;
    const struct {
        const char *module, *name;
    } cases[] = {{"selinon.storages.redis", "Redis"},
                 {"selinon.storages.postgresql", "PostgreSQL"},
                 {"selinon.storages.mongodb", "MongoDB"},
                 {"selinon.storages.s3", "S3Storage"},
                 {"selinon.storages.s3", "S3"}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_storage *s = NULL;
        struct sel_error err;
        assert_code(sel_test_open(cases[i].module, cases[i].name, "{}", NULL, &s, &err),
                    SEL_EUNSUPPORTED);
        assert_non_null(strstr(err.text, "storage 'S'"));
    }
    assert_null(sel_storage_find(SEL_STR("selinon.storages.memory"), SEL_STR("Memory")));
    assert_null(sel_storage_find(SEL_STR("memory"), SEL_STR("InMemoryStorage")));
}

static void test_environment_variables_are_expanded(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int code;
        const char *expanded;
    } cases[] = {
        {"a", 0, "a"},
        {"", 0, ""},
        {"{FOLDER}/x", 0, "here/x"},
        {"{{FOLDER}}", 0, "{FOLDER}"},
        {"{{{FOLDER}}}", 0, "{here}"},
        {"{FOLDER}{FOLDER}", 0, "herehere"},
        {"{NONE}", SEL_ENOTFOUND, NULL},
        {"{FOLDER", SEL_ESYNTAX, NULL},
        {"{", SEL_ESYNTAX, NULL},
        {"{}", SEL_ESYNTAX, NULL},
        {"}", SEL_ESYNTAX, NULL},
        {"a}b", SEL_ESYNTAX, NULL},
        {"{a{FOLDER}}", SEL_ESYNTAX, NULL},
    };
    char here[] = "here";
    struct sel_storage_options options = {.getenv = sel_test_getenv, .getenv_ctx = here};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_str out = SEL_STR("untouched");
        struct sel_error err;
        assert_code(sel_storage_expand(&arena, &options, sel_str_c(cases[i].text), &out, &err),
                    cases[i].code);
        assert_str_is(out, cases[i].code ? "untouched" : cases[i].expanded);
        sel_arena_done(&arena);
    }
}

/* ---- threads ---- */

#define THREADS 4
#define IDS 500

static void *store_all(void *arg)
{
    struct sel_storage *s = arg;
    uintptr_t won = 0;
    for (int i = 0; i < IDS; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "id-%d", i);
        won += sel_test_store(s, id, "[1,2,3]") == SEL_STORE_OK;
        assert_stored(s, id, "[1,2,3]");
    }
    return (void *)won;
}

static void test_threads_store_each_id_once(void **state)
{
    (void)state;
    struct sel_storage *s = sel_test_must_open(MODULE, NAME, "null", NULL);
    pthread_t threads[THREADS];
    uintptr_t sum = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, store_all, s), 0);
    for (int i = 0; i < THREADS; i++) {
        void *won;
        assert_int_equal(pthread_join(threads[i], &won), 0);
        sum += (uintptr_t)won;
    }
    assert_int_equal(sum, IDS);
    s->ops->close(s);
}

static void test_without_memory_a_store_fails_and_changes_nothing(void **state)
{
    (void)state;
    struct sel_storage *s = NULL;
    struct sel_arena arena = {0};
    struct sel_storage_item item = sel_test_item("a", SEL_STR("\x01"));
    struct sel_error err;
    sel_mem_fail_at(1);
    const struct sel_storage_adapter *adapter = sel_storage_find(SEL_STR(MODULE), SEL_STR(NAME));
    struct sel_storage_options options = {.name = SEL_STR("S")};
    assert_code(adapter->open(&options, sel_io_blocking(), &s, &err), SEL_ENOMEM);
    sel_mem_fail_at(0);
    s = sel_test_must_open(MODULE, NAME, "null", NULL);
    for (int n = 1; n <= 2; n++) {
        sel_mem_fail_at(n);
        assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
        sel_mem_fail_at(0);
        assert_int_equal(item.status, SEL_STORE_FAILED);
        assert_string_equal(item.message, "out of memory");
        assert_missing(s, "a");
    }
    assert_ok(s->ops->store(s, sel_io_blocking(), &arena, &item, 1, NULL));
    assert_int_equal(item.status, SEL_STORE_OK);
    s->ops->close(s);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_result_of_an_id_wins),
        cmocka_unit_test(test_ids_that_look_alike_are_different),
        cmocka_unit_test(test_an_id_that_is_no_key_fails_alone),
        cmocka_unit_test(test_it_keeps_no_errors),
        cmocka_unit_test(test_echo_prints_what_is_stored_and_retrieved),
        cmocka_unit_test(test_bad_configurations_are_refused),
        cmocka_unit_test(test_adapters_of_servers_say_that_they_are_not_built_in),
        cmocka_unit_test(test_environment_variables_are_expanded),
        cmocka_unit_test(test_threads_store_each_id_once),
        cmocka_unit_test(test_without_memory_a_store_fails_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
