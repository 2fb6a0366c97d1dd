#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "worker/module.h"

#include <selinon/task.h>

static struct sel_modules *open_path(const char *path)
{
    struct sel_modules *modules = sel_modules_new(path);
    assert_non_null(modules);
    return modules;
}

static int find(struct sel_modules *modules, enum sel_module_kind kind, const char *import,
                const char *name, struct sel_error *err)
{
    const struct sel_module_entry *entry;
    return sel_modules_find(modules, kind, sel_str_c(import), sel_str_c(name), &entry, err);
}

static void test_every_kind_is_found_by_name(void **state)
{
    (void)state;
    const struct {
        enum sel_module_kind kind;
        const char *import, *name;
        uint32_t arg_count;
    } cases[] = {
        {SEL_MODULE_TASK, "good", "Greet", 0},
        {SEL_MODULE_FOREACH, "good", "numbers", 0},
        {SEL_MODULE_SELECTIVE, "good", "reuse", 0},
        {SEL_MODULE_PREDICATE, "good", "isOdd", 0},
        {SEL_MODULE_PREDICATE, "good", "argsIsOdd", 2},
        {SEL_MODULE_PREDICATE, "good", "never", 1},
        {SEL_MODULE_SAMPLING, "good", "hourly", 0},
        {SEL_MODULE_SAMPLING, "good", "every", 1},
        {SEL_MODULE_TRACE, "good", "watch", 0},
        {SEL_MODULE_STORAGE, "good", "VoidStorage", 0},
        {SEL_MODULE_CACHE, "good", "VoidCache", 0},
        {SEL_MODULE_TASK, "plain", "Nothing", 0}, /* one name, two kinds */
        {SEL_MODULE_FOREACH, "plain", "Nothing", 0},
        {SEL_MODULE_PREDICATE, "cxx", "isOdd", 0}, /* written in C++ */
        {SEL_MODULE_PREDICATE, "cxx", "argsIsOdd", 2},
        {SEL_MODULE_SELECTIVE, "selinon.routines", "always_run", 0},
    };
    struct sel_modules *modules = open_path("/no/such/folder:" SEL_TEST_MODULES);
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const struct sel_module_entry *entry = NULL;
        struct sel_error err = {0};
        assert_ok(sel_modules_find(modules, cases[i].kind, sel_str_c(cases[i].import),
                                   sel_str_c(cases[i].name), &entry, &err));
        assert_string_equal(entry->name, cases[i].name);
        assert_int_equal(entry->kind, cases[i].kind);
        assert_int_equal(entry->arg_count, cases[i].arg_count);
    }
    sel_modules_free(modules);
}

static void test_refusals_say_what_and_where(void **state)
{
    (void)state;
    const struct {
        const char *path;
        enum sel_module_kind kind;
        const char *import, *name;
        int code;
        const char *text; /* a part of the message */
    } cases[] = {
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "good", "Gret", SEL_ENOTFOUND, "mean 'Greet'?"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "good", "Zzz", SEL_ENOTFOUND, "no task 'Zzz'"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "good", "numbers", SEL_ENOTFOUND,
         "'numbers' is a foreach function there and no task"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "wrong_abi", "One", SEL_EVERSION,
         "wrong_abi.so: was built for module interface 2.0 and this program has 1.0"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "newer_abi", "One", SEL_EVERSION, "interface 1.1"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "wrong_size", "One", SEL_EFORMAT, "its size is"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "bad_kind", "One", SEL_EFORMAT,
         "entry 1 (unknown kind 'One'): kind 99 is unknown"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "duplicate", "One", SEL_EFORMAT,
         "entry 2 (task 'One'): entry 1 has the same name"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "no_table", "One", SEL_EFORMAT,
         "no symbol sel_module_table"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "unresolved", "One", SEL_EFORMAT,
         "sel_test_nobody_has_this"},
        {"/x:/y/z", SEL_MODULE_TASK, "a.b", "One", SEL_ENOTFOUND,
         "neither a/b.so nor a.b.so is in the module path: /x, /y/z"},
        {"::/x:", SEL_MODULE_TASK, "a", "One", SEL_ENOTFOUND, "no a.so is in the module path: /x"},
        {"", SEL_MODULE_TASK, "a", "One", SEL_ENOTFOUND, "module path is empty"},
        {NULL, SEL_MODULE_TASK, "a", "One", SEL_ENOTFOUND, "SELINON_MODULE_PATH"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "../modules/good", "Greet", SEL_ENOTFOUND,
         "is no module"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "", "Greet", SEL_ENOTFOUND, "is no module"},
        {SEL_TEST_MODULES, SEL_MODULE_TASK, "good.", "Greet", SEL_ENOTFOUND, "is no module"},
        {SEL_TEST_MODULES, SEL_MODULE_SELECTIVE, "selinon.routines", "always_ran", SEL_ENOTFOUND,
         "mean 'always_run'?"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_modules *modules = open_path(cases[i].path);
        struct sel_error err = {0};
        assert_code(find(modules, cases[i].kind, cases[i].import, cases[i].name, &err),
                    cases[i].code);
        if (!strstr(err.text, cases[i].text))
            fail_msg("case %zu: '%s' is not in '%s'", i, cases[i].text, err.text);
        /* the same again: a refused module leaves nothing behind */
        assert_code(find(modules, cases[i].kind, cases[i].import, cases[i].name, NULL),
                    cases[i].code);
        sel_modules_free(modules);
    }
}

static void test_dots_are_folders_first_and_then_part_of_the_name(void **state)
{
    (void)state;
    char dir[] = SEL_TEST_MODULES "/made-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char a[512], a_b[512], ab[512];
    snprintf(a, sizeof(a), "%s/a", dir);
    snprintf(ab, sizeof(ab), "%s/a.b.so", dir);
    snprintf(a_b, sizeof(a_b), "%s/a/b.so", dir);
    assert_int_equal(symlink(SEL_TEST_MODULES "/plain.so", ab), 0);
    struct sel_modules *modules = open_path(dir);
    assert_ok(find(modules, SEL_MODULE_TASK, "a.b", "Nothing", NULL));
    sel_modules_free(modules);

    assert_int_equal(mkdir(a, 0700), 0);
    assert_int_equal(symlink(SEL_TEST_MODULES "/good.so", a_b), 0);
    modules = open_path(dir);
    assert_ok(find(modules, SEL_MODULE_TASK, "a.b", "Greet", NULL));
    sel_modules_free(modules);

    unlink(a_b);
    unlink(ab);
    rmdir(a);
    rmdir(dir);
}

static void test_a_file_that_is_no_shared_object_is_refused(void **state)
{
    (void)state;
    char dir[] = SEL_TEST_MODULES "/made-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char file[512];
    snprintf(file, sizeof(file), "%s/text.so", dir);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("no ELF at all\n", f);
    fclose(f);
    struct sel_modules *modules = open_path(dir);
    struct sel_error err = {0};
    assert_code(find(modules, SEL_MODULE_TASK, "text", "One", &err), SEL_EFORMAT);
    assert_non_null(strstr(err.text, "module 'text' cannot be loaded"));
    sel_modules_free(modules);
    unlink(file);
    rmdir(dir);
}

/* ---- tables by hand ---- */

static int nothing(struct sel_task *task)
{
    (void)task;
    return 0;
}

static int is_true(struct sel_task *task, const struct sel_value *input,
                   const struct sel_value *args)
{
    (void)task;
    (void)input;
    (void)args;
    return 1;
}

static const char *const two_names[] = {"a", "b"};
static const char *const same_names[] = {"a", "a"};
static const char *const bad_names[] = {"a", "b c"};
static const char *const null_names[] = {"a", NULL};
static const struct sel_storage_ops empty_storage = {.size = sizeof(empty_storage)};
static const struct sel_storage_ops short_storage = {.size = 8};
static const struct sel_cache_ops empty_cache = {.size = sizeof(empty_cache)};

static void test_bad_entries_are_refused(void **state)
{
    (void)state;
    char long_name[SEL_MODULE_NAME_MAX + 2];
    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    const struct {
        struct sel_module_entry entry;
        const char *text;
    } cases[] = {
        {{0, "x", 0, 0, 0, {nothing}}, "kind 0 is unknown"},
        {{SEL_MODULE_CACHE + 1, "x", 0, 0, 0, {nothing}}, "kind 9 is unknown"},
        {SEL_TASK(NULL, nothing), "no identifier"},
        {SEL_TASK("", nothing), "no identifier"},
        {SEL_TASK("a b", nothing), "no identifier"},
        {SEL_TASK("1a", nothing), "no identifier"},
        {SEL_TASK("\xc3\xa4", nothing), "no identifier"},
        {SEL_TASK(long_name, nothing), "no identifier"},
        {SEL_TASK("x", NULL), "there is no function"},
        {SEL_STORAGE("x", NULL), "there is no function"},
        {{SEL_MODULE_TASK, "x", two_names, 2, 0, {nothing}}, "only predicates"},
        {{SEL_MODULE_PREDICATE, "x", NULL, 2, 0, {nothing}}, "have no names"},
        {{SEL_MODULE_PREDICATE, "x", two_names, SEL_MODULE_ARGS_MAX + 1, 0, {nothing}}, "at most"},
        {{SEL_MODULE_PREDICATE, "x", same_names, 2, 0, {nothing}}, "'a' occurs twice"},
        {{SEL_MODULE_PREDICATE, "x", bad_names, 2, 0, {nothing}}, "argument 2"},
        {{SEL_MODULE_PREDICATE, "x", null_names, 2, 0, {nothing}}, "argument 2"},
        {{SEL_MODULE_PREDICATE, "x", two_names, 2, 3, {nothing}}, "takes_message is 3"},
        {{SEL_MODULE_SAMPLING, "x", two_names, 2, 1, {nothing}}, "takes_message is 1"},
        {SEL_STORAGE("x", &empty_storage), "is missing"},
        {SEL_STORAGE("x", &short_storage), "size 8"},
        {SEL_CACHE("x", &empty_cache), "is missing"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_module table = {sizeof(table),
                                   SEL_MODULE_ABI,
                                   sizeof(struct sel_module_entry),
                                   1,
                                   "hand",
                                   &cases[i].entry,
                                   0,
                                   NULL,
                                   NULL};
        struct sel_error err = {0};
        assert_code(sel_modules_check_table(&table, "hand.so", &err), SEL_EFORMAT);
        if (!strstr(err.text, cases[i].text) ||
            !strstr(err.text, "hand.so: damaged table: entry 1"))
            fail_msg("case %zu: '%s' is not in '%s'", i, cases[i].text, err.text);
    }
}

static void test_bad_heads_are_refused(void **state)
{
    (void)state;
    static const struct sel_module_entry entry = SEL_TASK("x", nothing);
    const struct sel_module good = {
        sizeof(good), SEL_MODULE_ABI, sizeof(entry), 1, "hand", &entry, 0, NULL, NULL};
    assert_ok(sel_modules_check_table(&good, "hand.so", NULL));
    struct sel_module empty = good;
    empty.entry_count = 0;
    empty.entries = NULL;
    assert_ok(sel_modules_check_table(&empty, "hand.so", NULL));

    struct sel_module bad[7];
    for (size_t i = 0; i < SEL_COUNT(bad); i++)
        bad[i] = good;
    bad[0].abi = 0;
    bad[1].capabilities = 1;
    bad[2].size++;
    bad[3].entry_size--;
    bad[4].entry_count = SEL_MODULE_ENTRIES_MAX + 1;
    bad[5].entries = NULL;
    bad[6].name = NULL;
    for (size_t i = 0; i < SEL_COUNT(bad); i++) {
        struct sel_error err = {0};
        assert_code(sel_modules_check_table(&bad[i], "hand.so", &err),
                    i < 2 ? SEL_EVERSION : SEL_EFORMAT);
        assert_int_equal(strncmp(err.text, "hand.so: ", 9), 0);
    }
}

static const struct sel_module_entry macro_entries[] = {
    SEL_PREDICATE_MESSAGE("none", is_true),
    SEL_PREDICATE_ARGS("one", is_true, "a"),
    SEL_PREDICATE_NONE("three", is_true, "a", "b", "c"),
};

static void test_macros_count_their_names(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 3}, inputs[] = {1, 0, 2};
    for (uint32_t i = 0; i < SEL_COUNT(macro_entries); i++) {
        assert_int_equal(macro_entries[i].arg_count, counts[i]);
        assert_int_equal(macro_entries[i].takes_message, inputs[i]);
        assert_ptr_equal(macro_entries[i].u.predicate, is_true);
    }
    assert_string_equal(macro_entries[2].args[2], "c");
}

/* ---- threads, the compiler ---- */

struct probe {
    struct sel_modules *modules;
    int result;
};

static void *init_twice(void *arg)
{
    struct probe *probe = arg;
    struct sel_error err = {0};
    probe->result = sel_modules_thread_init(probe->modules, &err);
    if (probe->result == 0)
        probe->result = sel_modules_thread_init(probe->modules, &err);
    return NULL; /* thread_done runs with the end of the thread */
}

/* The counter that good.so keeps of its threads. */
static int thread_count(void)
{
    void *handle = dlopen(SEL_TEST_MODULES "/good.so", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(handle);
    int (*count)(void) = (int (*)(void))(uintptr_t)dlsym(handle, "sel_test_thread_count");
    assert_non_null(count);
    int n = count();
    dlclose(handle);
    return n;
}

static void test_threads_begin_and_end_once(void **state)
{
    (void)state;
    struct sel_modules *modules = open_path(SEL_TEST_MODULES);
    assert_ok(find(modules, SEL_MODULE_TASK, "good", "Greet", NULL));
    struct sel_error err = {0};
    assert_ok(sel_modules_thread_init(modules, &err));
    assert_ok(sel_modules_thread_init(modules, &err));
    assert_int_equal(thread_count(), 1);

    struct probe probe = {modules, -1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, init_twice, &probe), 0);
    pthread_join(thread, NULL);
    assert_ok(probe.result);
    assert_int_equal(thread_count(), 1); /* the other one has gone */

    sel_modules_thread_done(modules);
    sel_modules_thread_done(modules);
    assert_int_equal(thread_count(), 0);
    sel_modules_free(modules);
}

static void test_a_module_opened_later_is_initialised_by_the_next_call(void **state)
{
    (void)state;
    struct sel_modules *modules = open_path(SEL_TEST_MODULES);
    assert_ok(sel_modules_thread_init(modules, NULL));
    assert_ok(find(modules, SEL_MODULE_TASK, "good", "Greet", NULL));
    assert_ok(sel_modules_thread_init(modules, NULL));
    assert_int_equal(thread_count(), 1);
    sel_modules_free(modules); /* ends this thread's use as well */
}

static void test_a_thread_that_a_module_refuses_is_an_error(void **state)
{
    (void)state;
    struct sel_modules *modules = open_path(SEL_TEST_MODULES);
    struct sel_error err = {0};
    assert_ok(find(modules, SEL_MODULE_TASK, "init_fails", "One", NULL));
    assert_code(sel_modules_thread_init(modules, &err), SEL_EFAILED);
    assert_non_null(strstr(err.text, "module 'init_fails'"));
    sel_modules_free(modules);
}

static void test_the_compiler_learns_what_functions_need(void **state)
{
    (void)state;
    struct sel_modules *modules = open_path(SEL_TEST_MODULES);
    struct sel_compile_user user = sel_modules_compile_user(modules);
    enum sel_predicate_input input;
    const char *const *args;
    uint32_t count;
    assert_ok(
        user.predicate(user.ctx, SEL_STR("good"), SEL_STR("argsIsOdd"), &input, &args, &count));
    assert_int_equal(input, SEL_INPUT_ARGS);
    assert_int_equal(count, 2);
    assert_string_equal(args[0], "key");
    assert_ok(user.predicate(user.ctx, SEL_STR("good"), SEL_STR("isOdd"), &input, &args, &count));
    assert_int_equal(input, SEL_INPUT_MESSAGE);
    assert_ok(user.predicate(user.ctx, SEL_STR("good"), SEL_STR("never"), &input, &args, &count));
    assert_int_equal(input, SEL_INPUT_NONE);
    assert_ok(user.sampling(user.ctx, SEL_STR("good"), SEL_STR("every"), &args, &count));
    assert_string_equal(args[0], "seconds");
    assert_code(user.sampling(user.ctx, SEL_STR("good"), SEL_STR("isOdd"), &args, &count),
                SEL_ENOTFOUND);
    assert_code(
        user.predicate(user.ctx, SEL_STR("absent"), SEL_STR("isOdd"), &input, &args, &count),
        SEL_EUNSUPPORTED);
    sel_modules_free(modules);
}

static int make(void *ctx)
{
    (void)ctx;
    struct sel_modules *modules = sel_modules_new("/a:/b");
    if (!modules)
        return SEL_ENOMEM;
    sel_modules_free(modules);
    return 0;
}

static void test_survives_every_failed_allocation(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(make, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_is_found_by_name),
        cmocka_unit_test(test_refusals_say_what_and_where),
        cmocka_unit_test(test_dots_are_folders_first_and_then_part_of_the_name),
        cmocka_unit_test(test_a_file_that_is_no_shared_object_is_refused),
        cmocka_unit_test(test_bad_entries_are_refused),
        cmocka_unit_test(test_bad_heads_are_refused),
        cmocka_unit_test(test_macros_count_their_names),
        cmocka_unit_test(test_threads_begin_and_end_once),
        cmocka_unit_test(test_a_module_opened_later_is_initialised_by_the_next_call),
        cmocka_unit_test(test_a_thread_that_a_module_refuses_is_an_error),
        cmocka_unit_test(test_the_compiler_learns_what_functions_need),
        cmocka_unit_test(test_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
