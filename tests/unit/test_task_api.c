#include <math.h>

#include "tests/support/fake_host.h"
#include "tests/support/in_loop.h"

static struct sel_fake *fake;

static int setup(void **state)
{
    static struct sel_fake the_fake;
    (void)state;
    fake = &the_fake;
    sel_fake_init(fake);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sel_fake_done(fake);
    return 0;
}

/* ---- identity, arguments ---- */

static void test_a_task_knows_who_it_is(void **state)
{
    (void)state;
    fake->env.retried_count = 3;
    struct sel_task *task = sel_fake_task(fake);
    assert_string_equal(sel_task_name(task), "T");
    assert_string_equal(sel_task_flow_name(task), "F");
    assert_string_equal(sel_task_id(task), "task-1");
    assert_string_equal(sel_task_dispatcher_id(task), "flow-1");
    assert_int_equal(sel_task_retried_count(task), 3);
    assert_int_equal(sel_value_kind(sel_task_args(task)), SEL_NULL);
}

static void test_a_function_of_a_flow_has_no_task(void **state)
{
    (void)state;
    fake->env.task = NULL;
    fake->env.task_id = NULL;
    struct sel_task *task = sel_fake_task(fake);
    assert_string_equal(sel_task_name(task), "");
    assert_string_equal(sel_task_id(task), "");
    const struct sel_value *v;
    assert_code(sel_storage_retrieve(task, NULL, "F", "T", "1", &v), SEL_ERR_FAILED);
    assert_noted(task, "UnknownStorageError", "name one");
}

static void test_arguments_that_are_no_value_make_no_task(void **state)
{
    (void)state;
    fake->env.args = SEL_STR("\xc1");
    assert_null(sel_task_new(&fake->arena, &fake->env));
}

static void test_arguments_by_kind(void **state)
{
    (void)state;
    sel_fake_set_args(fake, "{\"s\": \"text\", \"i\": -7, \"f\": 1.5, \"b\": true, \"n\": null}");
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    const char *s;
    int64_t i;
    double f;
    bool b;
    assert_ok(sel_arg(task, "n", &v));
    assert_int_equal(sel_value_kind(v), SEL_NULL);
    assert_ok(sel_arg_str(task, "s", &s));
    assert_string_equal(s, "text");
    assert_ok(sel_arg_i64(task, "i", &i));
    assert_int_equal(i, -7);
    assert_ok(sel_arg_f64(task, "f", &f));
    assert_true(f == 1.5);
    assert_ok(sel_arg_f64(task, "i", &f)); /* a whole number is a number */
    assert_true(f == -7.0);
    assert_ok(sel_arg_bool(task, "b", &b));
    assert_true(b);
    assert_true(sel_has_arg(task, "n"));
    assert_false(sel_has_arg(task, "absent"));
}

static void test_wrong_arguments_name_themselves(void **state)
{
    (void)state;
    sel_fake_set_args(fake, "{\"path\": 1, \"big\": 18446744073709551615, \"nul\": \"a\\u0000b\","
                            " \"half\": 0.5}");
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    const char *s;
    int64_t i;
    double f;
    bool b;
    assert_code(sel_arg(task, "pth", &v), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "argument 'pth' is missing; there is 'path'");
    assert_code(sel_arg(task, "somethingElse", &v), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "argument 'somethingElse' is missing");
    assert_code(sel_arg_str(task, "path", &s), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "'path' must be text and is int");
    assert_code(sel_arg_str(task, "nul", &s), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "NUL");
    assert_code(sel_arg_i64(task, "big", &i), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "does not fit");
    assert_code(sel_arg_i64(task, "half", &i), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "must be int and is float");
    assert_code(sel_arg_f64(task, "nul", &f), SEL_ERR_FAILED);
    assert_code(sel_arg_bool(task, "path", &b), SEL_ERR_FAILED);

    sel_fake_set_args(fake, "[1]");
    task = sel_fake_task(fake);
    assert_code(sel_arg(task, "path", &v), SEL_ERR_FAILED);
    assert_noted(task, "ArgumentError", "the arguments are list and no map");
    assert_false(sel_has_arg(task, "path"));
}

/* ---- building values ---- */

static void test_formats_build_values(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v, *inner;
    assert_ok(sel_build(task, &inner, "[n, b, i, f]", 1, (int64_t)-3, 0.5));
    assert_json(inner, "[null,true,-3,0.5]");
    char on_the_stack[] = "copied";
    assert_ok(sel_build(task, &v, "{s:s, S:v s : [] s:{}}", "a", on_the_stack, SEL_STR("b"), inner,
                        "c", "d"));
    on_the_stack[0] = 'X';
    assert_json(v, "{\"a\":\"copied\",\"b\":[null,true,-3,0.5],\"c\":[],\"d\":{}}");
    assert_ok(sel_build(task, &v, "s", (const char *)NULL));
    assert_json(v, "null");
    assert_ok(sel_build(task, &v, "v", (const struct sel_value *)NULL));
    assert_json(v, "null");
    assert_ok(sel_build(task, &v, " S ", ((struct sel_str){NULL, 0})));
    assert_json(v, "\"\"");
    assert_ok(sel_build(task, &v, "B", ((struct sel_bytes){"\xff\x00", 2})));
    assert_int_equal(sel_value_kind(v), SEL_BIN);
    assert_int_equal(sel_value_str(v).n, 2);
}

static void test_wrong_formats_are_refused_with_their_place(void **state)
{
    (void)state;
    const struct {
        const char *fmt, *part;
    } cases[] = {
        {"", "position 1: a value is missing"},
        {"x", "position 1: one of"},
        {"n n", "position 3: a format is one value"},
        {"[n", "position 3: a value is missing"},
        {"]", "position 1"},
        {"{n:n}", "position 2: a key of a map"},
        {"{", "position 2: a key of a map"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "too deeply"},
    };
    struct sel_task *task = sel_fake_task(fake);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const struct sel_value *v = NULL;
        assert_code(sel_build(task, &v, cases[i].fmt), SEL_ERR_FAILED);
        assert_noted(task, "FormatError", cases[i].part);
        assert_null(v);
    }
    const struct sel_value *v = NULL;
    assert_code(sel_build(task, &v, "{s n}", "key"), SEL_ERR_FAILED);
    assert_noted(task, "FormatError", "position 4: ':' must follow");
    assert_code(sel_build(task, &v, "{s:}", "key"), SEL_ERR_FAILED);
    assert_noted(task, "FormatError", "position 4");
    assert_code(sel_build(task, &v, "{s:n}", (const char *)NULL), SEL_ERR_FAILED);
    assert_noted(task, "FormatError", "key of a map is NULL");
}

static void test_lists_and_maps_grow_piece_by_piece(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_list *list = sel_list_begin(task);
    struct sel_map_maker *map = sel_map_begin(task);
    assert_non_null(list);
    assert_non_null(map);
    for (int64_t i = 0; i < 3; i++)
        assert_ok(sel_list_add(list, "{s:i}", "i", i));
    const struct sel_value *v;
    assert_ok(sel_list_end(list, &v));
    assert_ok(sel_map_put(map, "list", "v", v));
    assert_ok(sel_map_put(map, "n", "n"));
    assert_code(sel_map_put(map, "\xff", "n"), SEL_ERR_FAILED);
    assert_code(sel_map_put(map, "k", "s", "\xff"), SEL_ERR_FAILED);
    assert_noted(task, "ResultError", "not UTF-8");
    assert_ok(sel_map_end(map, &v));
    assert_json(v, "{\"list\":[{\"i\":0},{\"i\":1},{\"i\":2}],\"n\":null}");
}

/* ---- results ---- */

static struct sel_exec_result take(struct sel_task *task, int code)
{
    struct sel_exec_result result;
    sel_task_take_result(task, code, &result);
    sel_task_done(task);
    return result;
}

static void assert_value(const struct sel_exec_result *result, const char *json)
{
    struct sel_value v;
    assert_int_equal(result->outcome, SEL_EXEC_SUCCESS);
    assert_ok(sel_value_decode(&fake->arena, result->value.p, result->value.n, true, &v, NULL));
    assert_json(&v, json);
}

static void test_a_task_without_a_result_gives_null(void **state)
{
    (void)state;
    struct sel_exec_result result = take(sel_fake_task(fake), 0);
    assert_value(&result, "null");
}

static void test_the_last_result_counts(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    assert_ok(sel_result(task, "i", (int64_t)1));
    assert_ok(sel_result_json(task, "{\"a\": [1, 2.0]}", 15));
    struct sel_exec_result result = take(task, 7); /* a count is a success too */
    assert_value(&result, "{\"a\":[1,2.0]}");
}

static void test_results_that_cannot_be_kept_are_refused(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    assert_code(sel_result(task, "s", "\xc0\xaf"), SEL_ERR_FAILED);
    assert_noted(task, "ResultError", "UTF-8");
    assert_code(sel_result_json(task, "{\"a\": nan}", 10), SEL_ERR_FAILED);
    assert_noted(task, "ResultError", "result:1:");

    /* as deep as may be read back, and one more */
    const struct sel_value *v = NULL;
    for (uint32_t i = 0; i < SEL_VALUE_DEPTH_MAX; i++)
        assert_ok(sel_build(task, &v, "[v]", v));
    assert_ok(sel_result_value(task, v));
    struct sel_exec_result result = take(task, 0);
    struct sel_value back;
    assert_int_equal(result.outcome, SEL_EXEC_SUCCESS);
    assert_ok(sel_value_decode(&fake->arena, result.value.p, result.value.n, true, &back, NULL));
    assert_ok(sel_build(task, &v, "{s:v}", "k", v));
    assert_code(sel_result_value(task, v), SEL_ERR_FAILED);
    assert_noted(task, "ResultError", "nested too deeply");
}

/* ---- endings ---- */

static void test_every_ending_has_its_outcome(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    struct sel_exec_result r = take(task, sel_fail(task, "BadInput", "line %d", 3));
    assert_int_equal(r.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(r.error_class, "BadInput");
    assert_string_equal(r.error_message, "line 3");
    assert_true(r.retry_s < 0.0);

    task = sel_fake_task(fake);
    r = take(task, sel_fail_fatal(task, "never again"));
    assert_int_equal(r.outcome, SEL_EXEC_FATAL);
    assert_string_equal(r.error_class, "FatalTaskError");
    assert_string_equal(r.error_message, "never again");

    task = sel_fake_task(fake);
    r = take(task, sel_retry(task, 2.5));
    assert_int_equal(r.outcome, SEL_EXEC_RETRY);
    assert_true(r.retry_s == 2.5);
    r = take(task, sel_retry(task, NAN));
    assert_true(r.retry_s == 0.0);

    r = take(sel_fake_task(fake), -5); /* a code of the user's own */
    assert_int_equal(r.outcome, SEL_EXEC_FAILURE);
    assert_string_equal(r.error_class, "TaskError");
    assert_non_null(strstr(r.error_message, "-5"));

    r = take(sel_fake_task(fake), SEL_ERR_CANCELED); /* nobody has cancelled it */
    assert_int_equal(r.outcome, SEL_EXEC_FAILURE);
}

static void test_a_success_after_a_noted_error_is_a_success(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    (void)sel_fail(task, "Tried", "and went another way");
    struct sel_exec_result r = take(task, 0);
    assert_int_equal(r.outcome, SEL_EXEC_SUCCESS);
    assert_string_equal(sel_error_class(task), "Tried");
}

static void test_error_texts_become_utf8_and_bounded(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    (void)sel_fail(task, "B\xff", "caf\xc3\xa9 \xc3 \xe2\x82");
    assert_string_equal(sel_error_class(task), "B?");
    assert_string_equal(sel_error_message(task), "caf\xc3\xa9 ? ??");
    char *text = sel_arena_alloc(&fake->arena, 100001);
    memset(text, 'x', 100000);
    (void)sel_fail(task, text, "%s", text);
    assert_int_equal(strlen(sel_error_class(task)), SEL_TASK_CLASS_MAX);
    assert_int_equal(strlen(sel_error_message(task)), SEL_TASK_MESSAGE_MAX);
}

static void append_letter(void *arg)
{
    sel_buf_put_c(&fake->log, arg);
}

static void test_deferred_clean_ups_run_last_first(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    static char a[] = "a", b[] = "b", c[] = "c";
    assert_ok(sel_defer(task, append_letter, a));
    assert_ok(sel_defer(task, append_letter, b));
    assert_ok(sel_defer(task, append_letter, c));
    assert_int_equal(fake->log.n, 0);
    sel_task_done(task);
    assert_string_equal(sel_buf_cstr(&fake->log), "cba");
    sel_task_done(task); /* once only */
    assert_int_equal(fake->log.n, 3);
    sel_task_done(NULL);
}

static void test_log_lines_reach_the_host(void **state)
{
    (void)state;
    struct sel_task *task = sel_fake_task(fake);
    sel_task_log(task, SEL_LOG_WARNING, "%d of %s\xff", 3, "four");
    assert_string_equal(sel_buf_cstr(&fake->log), "2 3 of four?\n");
    sel_buf_clear(&fake->log);
    sel_task_log(task, SEL_LOG_INFO, "%04000d", 1);
    assert_int_equal(fake->log.n, 4000 + 3);
}

static void test_a_full_arena_is_a_memory_error(void **state)
{
    (void)state;
    struct sel_arena small;
    sel_arena_init(&small, 64 * 1024);
    struct sel_task *task = sel_task_new(&small, &fake->env);
    assert_non_null(task);
    assert_null(sel_alloc(task, 1 << 20));
    assert_string_equal(sel_error_class(task), "MemoryError");
    int r = 0;
    struct sel_list *list = sel_list_begin(task);
    assert_non_null(list);
    for (int i = 0; i < 100000 && r == 0; i++)
        r = sel_list_add(list, "i", (int64_t)i);
    assert_code(r, SEL_ERR_FAILED);
    assert_string_equal(sel_error_class(task), "MemoryError");
    (void)sel_fail(task, "Other", "%065000d", 1);
    struct sel_exec_result result = take(task, SEL_ERR_FAILED);
    assert_int_equal(result.outcome, SEL_EXEC_FAILURE);
    assert_true(result.error_class[0] != '\0');
    sel_arena_done(&small);
}

/* ---- parents ---- */

static void test_results_of_parents(void **state)
{
    (void)state;
    fake->parents = "{\"T\": \"id-t\", \"N\": \"id-n\", \"sub\": {\"T\": [\"r0\", \"r1\", \"r2\"],"
                    " \"inner\": {\"T\": [\"deep\"]}}}";
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    const char *const sub[] = {"sub"}, *const inner[] = {"sub", "inner"};
    assert_ok(sel_parent_result(task, "T", &v));
    assert_json(v, "{\"id\":\"id-t\"}");
    const struct {
        int index;
        const char *json;
    } runs[] = {{0, "{\"id\":\"r0\"}"},
                {2, "{\"id\":\"r2\"}"},
                {-1, "{\"id\":\"r2\"}"},
                {-3, "{\"id\":\"r0\"}"}};
    for (size_t i = 0; i < SEL_COUNT(runs); i++) {
        assert_ok(sel_parent_flow_result(task, sub, 1, "T", runs[i].index, &v));
        assert_json(v, runs[i].json);
    }
    assert_ok(sel_parent_flow_result(task, inner, 2, "T", -1, &v));
    assert_json(v, "{\"id\":\"deep\"}");
    assert_ok(sel_task_parents(task, &v));
    assert_int_equal(sel_value_count(v), 3);
}

static void test_parents_that_are_not_there(void **state)
{
    (void)state;
    fake->parents = "{\"N\": \"id-n\", \"sub\": {\"T\": [\"r0\"], \"none\": []}}";
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    const char *const sub[] = {"sub"}, *const other[] = {"sub", "other"};
    assert_code(sel_parent_result(task, "T", &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "'T' has no parent task 'T' in flow 'F'");
    assert_code(sel_parent_result(task, "sub", &v), SEL_ERR_FAILED); /* a flow is no task */
    assert_noted(task, "NoParentNodeError", "'sub'");
    assert_code(sel_parent_result(task, "N", &v), SEL_ERR_FAILED);
    assert_noted(task, "UnknownStorageError", "'N' has no storage");
    assert_code(sel_parent_flow_result(task, sub, 1, "X", -1, &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "no task 'X' ended in parent flow 'sub'");
    assert_code(sel_parent_flow_result(task, sub, 1, "none", -1, &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "no task 'none'");
    assert_code(sel_parent_flow_result(task, sub, 1, "T", 1, &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "run 1 of task 'T' was asked for, but it ran 1 times");
    assert_code(sel_parent_flow_result(task, sub, 1, "T", -2, &v), SEL_ERR_FAILED);
    assert_code(sel_parent_flow_result(task, other, 2, "T", -1, &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "no parent flow 'other'");
    assert_code(sel_parent_flow_result(task, NULL, 0, "T", -1, &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "at least one");
}

static void test_what_failed_parents_raised(void **state)
{
    (void)state;
    fake->parents = "{\"N\": \"id-n\", \"sub\": {\"N\": [\"id\"]}}";
    fake->failed_parents = "{\"T\": \"id-t\", \"X\": \"fine\", \"B\": \"trouble\","
                           " \"sub\": {\"T\": [\"fine\", \"id\"]}}";
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    const char *const sub[] = {"sub"};
    assert_ok(sel_parent_exception(task, "T", &v));
    assert_json(v, "{\"class\":\"Boom\",\"message\":\"it went off\"}");
    assert_ok(sel_parent_flow_exception(task, sub, 1, "T", -1, &v));
    assert_json(v, "{\"class\":\"Boom\",\"message\":\"it went off\"}");

    assert_code(sel_parent_exception(task, "N", &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "'N' did not fail");
    assert_code(sel_parent_exception(task, "X", &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "'X' did not fail");
    assert_code(sel_parent_flow_exception(task, sub, 1, "T", 0, &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "'T' did not fail");
    assert_code(sel_parent_flow_exception(task, sub, 1, "N", -1, &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "'N' did not fail");
    assert_code(sel_parent_exception(task, "Y", &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "'Y'");
    assert_code(sel_parent_exception(task, "B", &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "the flow is gone");
}

static void test_a_host_that_knows_nothing(void **state)
{
    (void)state;
    fake->host = (struct sel_task_host){0};
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    assert_ok(sel_task_parents(task, &v));
    assert_json(v, "{}");
    assert_code(sel_parent_exception(task, "T", &v), SEL_ERR_FAILED);
    assert_noted(task, "NoParentNodeError", "'T'");
    assert_code(sel_storage_retrieve(task, "Main", "F", "T", "1", &v), SEL_ERR_FAILED);
    assert_noted(task, "StorageError", "no access");
    sel_task_log(task, SEL_LOG_INFO, "into the void");
}

static void test_parents_that_cannot_be_had_are_an_error(void **state)
{
    (void)state;
    fake->parents = NULL;
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    assert_code(sel_task_parents(task, &v), SEL_ERR_FAILED);
    assert_noted(task, "RequestError", "the flow is gone");
}

/* ---- storages ---- */

static void check_storages(void *arg)
{
    (void)arg;
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    assert_ok(sel_storage_retrieve(task, NULL, "F", "T", "1", &v));
    assert_json(v, "{\"id\":\"1\"}");
    assert_ok(sel_storage_store(task, "Other", "F", "T", "2", v)); /* T is kept as T_kept */
    assert_ok(sel_storage_store(task, NULL, "G", "Stranger", "3", NULL));
    assert_string_equal(sel_buf_cstr(&fake->stored),
                        "F/T_kept/2={\"id\":\"1\"}\nG/Stranger/3=null\n");
    sel_buf_clear(&fake->stored);
    assert_ok(sel_storage_store(task, NULL, "F", "T", "exists", v)); /* the first one stays */
    assert_ok(sel_storage_delete(task, "Other", "F", "T", "2"));
}

static void test_a_task_uses_any_storage(void **state)
{
    (void)state;
    sel_in_both(check_storages, NULL);
}

static void test_trouble_with_storages_has_its_class(void **state)
{
    (void)state;
    const struct {
        const char *storage, *id, *error_class, *part;
        bool is_read_only;
    } cases[] = {
        {"Mian", "1", "UnknownStorageError",
         "no storage 'Mian' in the configuration; did you "
         "mean 'Main'?",
         false},
        {"zzzzzzzz", "1", "UnknownStorageError", "no storage 'zzzzzzzz'", false},
        {"Main", "missing", "SelinonMissingDataException", "no record of task 'T' with id", false},
        {"Main", "broken", "StorageError", "checksum", false},
        {"Main", "trouble", "StorageError", "the disk is on fire", false},
        {"Main", "foreign", "StorageError", "damaged record", true},
        {"Main", NULL, "RequestError", "must be given", false},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_task *task = sel_fake_task(fake);
        const struct sel_value *v = NULL;
        assert_code(sel_storage_retrieve(task, cases[i].storage, "F", "T", cases[i].id, &v),
                    SEL_ERR_FAILED);
        assert_noted(task, cases[i].error_class, cases[i].part);
        if (cases[i].is_read_only)
            continue;
        assert_code(sel_storage_delete(task, cases[i].storage, "F", "T", cases[i].id),
                    SEL_ERR_FAILED);
        assert_noted(task, cases[i].error_class, cases[i].part);
    }
    struct sel_task *task = sel_fake_task(fake);
    fake->is_closed = true;
    assert_code(sel_storage_store(task, "Main", "F", "T", "1", NULL), SEL_ERR_FAILED);
    assert_noted(task, "StorageError", "no route to it");
}

static void test_storage_trouble_tells_when_to_try_again(void **state)
{
    (void)state;
    const struct {
        const char *storage;
        double retry_s;
    } cases[] = {{"Main", 5.0}, {"Other", SEL_STORAGE_RETRY_S_DEFAULT}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_task *task = sel_fake_task(fake);
        struct sel_exec_result r =
            take(task, sel_storage_delete(task, cases[i].storage, "F", "T", "trouble"));
        assert_int_equal(r.outcome, SEL_EXEC_FAILURE);
        assert_true(r.retry_s == cases[i].retry_s);
    }
    struct sel_task *task = sel_fake_task(fake);
    int code = sel_storage_delete(task, "Main", "F", "T", "trouble");
    assert_code(code, SEL_ERR_FAILED);
    code = sel_fail(task, "Mine", "another reason"); /* what was noted last counts */
    assert_true(take(task, code).retry_s < 0.0);
}

#define KEYS                                                                                       \
    "\"flow_name\":\"F\",\"storage_name\":\"Main\",\"storage_task_name\":\"T_kept\","              \
    "\"task_id\":\"1\",\"task_name\":\"T\""

static void test_storage_operations_are_traced(void **state)
{
    (void)state;
    fake->host.tracing = true;
    sel_fake_set_args(fake, "7");
    struct sel_task *task = sel_fake_task(fake);
    const struct sel_value *v;
    assert_ok(sel_storage_retrieve(task, NULL, "F", "T", "1", &v));
    assert_ok(sel_storage_store(task, NULL, "F", "T", "1", v));
    assert_ok(sel_storage_delete(task, NULL, "F", "T", "1"));
    assert_code(sel_storage_delete(task, NULL, "F", "T", "trouble"), SEL_ERR_FAILED);
    assert_string_equal(
        sel_buf_cstr(&fake->trace),
        "STORAGE_RETRIEVE {" KEYS "}\n"
        "STORAGE_RETRIEVED {" KEYS "}\n"
        "STORAGE_STORE {\"flow_name\":\"F\",\"node_args\":7,\"record_id\":null,\"storage_name\":"
        "\"Main\",\"storage_task_name\":\"T_kept\",\"task_id\":\"1\",\"task_name\":\"T\"}\n"
        "STORAGE_STORED {\"flow_name\":\"F\",\"node_args\":7,\"record_id\":\"record-1\","
        "\"storage_name\":\"Main\",\"storage_task_name\":\"T_kept\",\"task_id\":\"1\","
        "\"task_name\":\"T\"}\n"
        "STORAGE_DELETE {" KEYS "}\n"
        "STORAGE_DELETED {" KEYS "}\n"
        "STORAGE_DELETE {\"flow_name\":\"F\",\"storage_name\":\"Main\",\"storage_task_name\":"
        "\"T_kept\",\"task_id\":\"trouble\",\"task_name\":\"T\"}\n"
        "STORAGE_ISSUE {\"flow_name\":\"F\",\"storage_name\":\"Main\",\"storage_task_name\":"
        "\"T_kept\",\"task_id\":\"trouble\",\"task_name\":\"T\",\"what\":\"storage 'Main': "
        "delete: the disk is on fire\"}\n");
}

static void test_parent_results_are_asked_of_the_cache_first(void **state)
{
    (void)state;
    fake->host.cache_get = sel_fake_cache_get;
    fake->host.cache_add = sel_fake_cache_add;
    fake->host.tracing = true;
    fake->parents = "{\"T\": \"1\"}";
    const struct {
        const char *cached;
        int cache_result;
        const char *json, *trace;
    } cases[] = {
        {"\"hit\"", 0, "\"hit\"",
         "TASK_RESULT_CACHE_GET {" KEYS "}\nTASK_RESULT_CACHE_HIT {" KEYS "}\n"
         "TASK_RESULT_CACHE_ADD {" KEYS "}\n"},
        {NULL, 0, "{\"id\":\"1\"}",
         "TASK_RESULT_CACHE_GET {" KEYS "}\n"
         "TASK_RESULT_CACHE_MISS {" KEYS ",\"what\":\"CacheMissError\"}\n"
         "STORAGE_RETRIEVE {" KEYS "}\nSTORAGE_RETRIEVED {" KEYS "}\n"
         "TASK_RESULT_CACHE_ADD {" KEYS "}\n"},
        {NULL, SEL_EFAILED, "{\"id\":\"1\"}",
         "TASK_RESULT_CACHE_GET {" KEYS "}\n"
         "TASK_RESULT_CACHE_ISSUE {" KEYS ",\"what\":\"cache is ill\"}\n"
         "STORAGE_RETRIEVE {" KEYS "}\nSTORAGE_RETRIEVED {" KEYS "}\n"
         "TASK_RESULT_CACHE_ADD {" KEYS "}\n"
         "TASK_RESULT_CACHE_ISSUE {" KEYS ",\"what\":\"cache is ill\"}\n"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        fake->cached = cases[i].cached;
        fake->cache_result = cases[i].cache_result;
        sel_buf_clear(&fake->trace);
        const struct sel_value *v;
        assert_ok(sel_parent_result(sel_fake_task(fake), "T", &v));
        assert_json(v, cases[i].json);
        assert_string_equal(sel_buf_cstr(&fake->trace), cases[i].trace);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_task_knows_who_it_is),
        TEST(test_a_function_of_a_flow_has_no_task),
        TEST(test_arguments_that_are_no_value_make_no_task),
        TEST(test_arguments_by_kind),
        TEST(test_wrong_arguments_name_themselves),
        TEST(test_formats_build_values),
        TEST(test_wrong_formats_are_refused_with_their_place),
        TEST(test_lists_and_maps_grow_piece_by_piece),
        TEST(test_a_task_without_a_result_gives_null),
        TEST(test_the_last_result_counts),
        TEST(test_results_that_cannot_be_kept_are_refused),
        TEST(test_every_ending_has_its_outcome),
        TEST(test_a_success_after_a_noted_error_is_a_success),
        TEST(test_error_texts_become_utf8_and_bounded),
        TEST(test_deferred_clean_ups_run_last_first),
        TEST(test_log_lines_reach_the_host),
        TEST(test_a_full_arena_is_a_memory_error),
        TEST(test_results_of_parents),
        TEST(test_parents_that_are_not_there),
        TEST(test_what_failed_parents_raised),
        TEST(test_a_host_that_knows_nothing),
        TEST(test_parents_that_cannot_be_had_are_an_error),
        TEST(test_a_task_uses_any_storage),
        TEST(test_trouble_with_storages_has_its_class),
        TEST(test_storage_trouble_tells_when_to_try_again),
        TEST(test_storage_operations_are_traced),
        TEST(test_parent_results_are_asked_of_the_cache_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
