#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "worker/options.h"
#include "worker/process.h"

#define ARGS_MAX 16

static const char *no_variable(void *ctx, const char *name)
{
    (void)ctx, (void)name;
    return NULL;
}

/* `ctx`: pairs of name and value, ended by NULL. */
static const char *variable(void *ctx, const char *name)
{
    for (const char *const *pair = ctx; *pair; pair += 2) {
        if (strcmp(pair[0], name) == 0)
            return pair[1];
    }
    return NULL;
}

static int parse(struct sel_arena *arena, const char *const *args, const char *const *vars,
                 struct sel_worker_settings *ret, struct sel_error *err)
{
    char *argv[ARGS_MAX + 2] = {(char[]){"selinon-worker"}};
    int argc = 1;
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)args[argc - 1];
    return sel_worker_settings_parse(argc, argv, vars ? variable : no_variable,
                                     (void *)(uintptr_t)vars, arena, ret, err);
}

static void test_defaults(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const args[] = {"-n", "nodes.yaml", NULL};
    assert_ok(parse(&arena, args, NULL, &s, NULL));
    assert_string_equal(s.nodes, "nodes.yaml");
    assert_int_equal(s.brokers.count, 1);
    assert_string_equal(s.brokers.items[0], SEL_WORKER_BROKER_DEFAULT);
    assert_int_equal(s.flows.count, 0);
    assert_int_equal(s.queues.count, 0);
    assert_null(s.queues.items);
    assert_int_equal(s.threads, -1);
    assert_int_equal(s.dispatchers, 0);
    assert_int_equal(s.flow_window, SEL_WORKER_FLOWS_DEFAULT);
    assert_int_equal(s.flow_nodes_max, 10000000);
    assert_null(s.mock);
    assert_int_equal(s.slots, 0);
    assert_int_equal(s.window, 0);
    assert_int_equal(s.drain_timeout_us, 60000000);
    assert_false(s.pin || s.no_supervisor);
    sel_arena_done(&arena);
}

static void test_all_options(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const args[] = {"--nodes-definition=n",
                                       "-f",
                                       "a",
                                       "b",
                                       "-Q",
                                       "q1,q2",
                                       "--broker=tcp://a:1,ipc:///b",
                                       "-t4",
                                       "--slots=7",
                                       "-w",
                                       "9",
                                       "--drain-timeout=1.5",
                                       "--pin",
                                       "-vv",
                                       "--no-supervisor",
                                       NULL};
    assert_ok(parse(&arena, args, NULL, &s, NULL));
    assert_int_equal(s.flows.count, 2);
    assert_string_equal(s.flows.items[1], "b");
    assert_int_equal(s.queues.count, 2);
    assert_string_equal(s.queues.items[1], "q2");
    assert_int_equal(s.brokers.count, 2);
    assert_string_equal(s.brokers.items[1], "ipc:///b");
    assert_int_equal(s.threads, 4);
    assert_int_equal(s.slots, 7);
    assert_int_equal(s.window, 9);
    assert_int_equal(s.drain_timeout_us, 1500000);
    assert_int_equal(s.verbosity, 2);
    assert_true(s.pin && s.no_supervisor);
    sel_arena_done(&arena);
}

static void test_variables_stand_in_and_the_command_line_wins(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const args[] = {"-t", "2", NULL};
    static const char *const vars[] = {"SELINON_NODES_DEFINITION",
                                       "n",
                                       "SELINON_FLOW_DEFINITIONS",
                                       "f1:f2",
                                       "SELINON_BROKER",
                                       "ipc:///x",
                                       "SELINON_WORKER_THREADS",
                                       "9",
                                       "SELINON_WORKER_SLOTS",
                                       "3",
                                       "SELINON_WORKER_PIN",
                                       "0",
                                       "SELINON_WORKER_NO_SUPERVISOR",
                                       "yes",
                                       "SELINON_WORKER_NAME",
                                       "",
                                       NULL};
    assert_ok(parse(&arena, args, vars, &s, NULL));
    assert_string_equal(s.nodes, "n");
    assert_int_equal(s.flows.count, 2);
    assert_string_equal(s.brokers.items[0], "ipc:///x");
    assert_int_equal(s.brokers.count, 1);
    assert_int_equal(s.threads, 2);
    assert_int_equal(s.slots, 3);
    assert_false(s.pin);
    assert_true(s.no_supervisor);
    assert_null(s.name);
    sel_arena_done(&arena);
}

static void test_a_worker_may_only_decide_or_only_run(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const decides[] = {"-nn", "-t0", "--dispatchers", "2", NULL};
    static const char *const runs[] = {"-nn", "-t3", NULL};
    static const char *const vars[] = {"SELINON_WORKER_FLOWS", "0", NULL};
    static const char *const limits[] = {"SELINON_WORKER_FLOW_NODES_MAX", "20", NULL};
    assert_ok(parse(&arena, decides, NULL, &s, NULL));
    assert_int_equal(s.threads, 0);
    assert_int_equal(s.dispatchers, 2);
    assert_ok(parse(&arena, runs, vars, &s, NULL));
    assert_int_equal(s.threads, 3);
    assert_int_equal(s.flow_window, 0);
    assert_ok(parse(&arena, runs, limits, &s, NULL));
    assert_int_equal(s.flow_nodes_max, 20);
    sel_arena_done(&arena);
}

static void test_a_mock_has_files(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const args[] = {"-nn", "--mock=m",     "--mock-state", "s", "--mock-report",
                                       "r",   "--mock-speed", "50",           NULL};
    assert_ok(parse(&arena, args, NULL, &s, NULL));
    assert_string_equal(s.mock, "m");
    assert_string_equal(s.mock_state, "s");
    assert_string_equal(s.mock_report, "r");
    assert_int_equal(s.mock_speed, 50);
    sel_arena_done(&arena);
}

static void test_refusals_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *args[5];
        const char *vars[3];
        const char *text;
    } cases[] = {
        {{NULL}, {NULL}, "--nodes-definition is missing"},
        {{"-n", NULL}, {NULL}, "option '-n' needs a value"},
        {{"-n", "n", "--quark", NULL}, {NULL}, "there is no option '--quark'"},
        {{"-n", "n", "word", NULL}, {NULL}, "'word' is no option"},
        {{"-n", "n", "-t-1", NULL}, {NULL}, "--threads cannot be '-1': it is a number from 0"},
        {{"-n", "n", "-t0", NULL}, {NULL}, "--threads 0 leaves nothing to do"},
        {{"-nn", "-t0", "--flows=0", "--dispatchers=1"}, {NULL}, "--threads 0 leaves nothing"},
        {{"-nn", "--flows=0", "--dispatchers=1"}, {NULL}, "--dispatchers have nothing to do"},
        {{"-nn", "-t1000", "--dispatchers=25"}, {NULL}, "more than 1024 together"},
        {{"-nn", "--flows=1000001"}, {NULL}, "--flows cannot be '1000001'"},
        {{"-nn", "--flow-nodes-max=0"}, {NULL}, "--flow-nodes-max cannot be '0'"},
        {{"-nn", "--flow-nodes-max=4000000001"}, {NULL}, "is a number from 1 to 4000000000"},
        {{"-nn", "--mock-state=s"}, {NULL}, "are for --mock"},
        {{"-nn", "--mock=m", "--mock-speed=0"}, {NULL}, "--mock-speed cannot be '0'"},
        {{"-n", "n", "-s1.5", NULL}, {NULL}, "--slots cannot be '1.5'"},
        {{"-n", "n", "-s65537", NULL}, {NULL}, "--slots cannot be '65537'"},
        {{"-n", "n", "-wx", NULL}, {NULL}, "--window cannot be 'x'"},
        {{"-n", "n", "--drain-timeout=-1", NULL}, {NULL}, "--drain-timeout cannot be '-1'"},
        {{"-n", "n", "--drain-timeout=nan", NULL}, {NULL}, "--drain-timeout cannot be 'nan'"},
        {{"-n", "n", NULL},
         {"SELINON_WORKER_THREADS", "many", NULL},
         "SELINON_WORKER_THREADS: --threads cannot be 'many'"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_arena arena = {0};
        struct sel_worker_settings s;
        struct sel_error err = {0};
        assert_code(parse(&arena, cases[i].args, cases[i].vars, &s, &err), SEL_EREQUEST);
        if (!strstr(err.text, cases[i].text))
            fail_msg("'%s' is not in '%s'", cases[i].text, err.text);
        sel_arena_done(&arena);
    }
}

static void test_help_needs_nothing_else_and_tells_all(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_worker_settings s;
    static const char *const args[] = {"--help", NULL};
    assert_ok(parse(&arena, args, NULL, &s, NULL));
    assert_true(s.help);
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    sel_worker_settings_help(file);
    assert_int_equal(fclose(file), 0);
    static const char *const words[] = {"--broker", "SELINON_BROKER", "-Q", "--drain-timeout",
                                        "--pin",    "--window",       "-f"};
    for (size_t i = 0; i < SEL_COUNT(words); i++)
        assert_non_null(strstr(text, words[i]));
    free(text);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_options),
        cmocka_unit_test(test_variables_stand_in_and_the_command_line_wins),
        cmocka_unit_test(test_a_worker_may_only_decide_or_only_run),
        cmocka_unit_test(test_a_mock_has_files),
        cmocka_unit_test(test_refusals_say_what_is_wrong),
        cmocka_unit_test(test_help_needs_nothing_else_and_tells_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
