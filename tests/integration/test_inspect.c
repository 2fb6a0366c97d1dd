/* `selinon-cli inspect` as a person runs it, above all with input that is wrong. */
#include "tests/support/program.h"

#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Fetch, import: demo.tasks, queue: slow}\n"                                         \
    "  - {name: Store, import: demo.tasks}\n"                                                      \
    "flows: [ingest]\n"
#define FLOWS                                                                                      \
    "flow-definitions:\n"                                                                          \
    "  - name: ingest\n"                                                                           \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: Fetch}\n"                                                            \
    "      - {from: Fetch, to: Store}\n"
#define LOOKS_OK "Your configuration looks OK.\n"

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    sel_test_write(&folder, "nodes.yaml", SEL_STR(NODES));
    sel_test_write(&folder, "flows.yaml", SEL_STR(FLOWS));
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

/* Up to eight words after `inspect`. */
#define INSPECT(run, folder, ...)                                                                  \
    sel_test_run((run), (folder),                                                                  \
                 (const char *const[]){SEL_TEST_CLI, "inspect", __VA_ARGS__, NULL}, NULL)

static void expect(struct sel_test_run *run, int status, const char *out, const char *in_err)
{
    if (run->status != status || (out && strcmp(run->out, out) != 0) || !strstr(run->err, in_err) ||
        (!*in_err && *run->err))
        fail_msg("exit status %d, printed '%s', errors '%s'; expected %d, '%s', '%s'", run->status,
                 run->out, run->err, status, out ? out : "anything", in_err);
    sel_test_run_done(run);
}

static void test_what_was_asked_for_is_printed_and_nothing_else(void **state)
{
    struct sel_test_run run;
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml");
    expect(&run, 0, LOOKS_OK, "");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "--list-dispatcher-queues",
            "--list-task-queues");
    expect(&run, 0, "Fetch:slow\nStore:celery\ningest:celery\n", "");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "out.txt");
    expect(&run, 0, "", "");
}

static void test_paths_that_are_not_there_are_wrong_usage(void **state)
{
    struct sel_test_run run;
    INSPECT(&run, *state, "-n", "none.yaml", "-f", "flows.yaml");
    expect(&run, 2, "", "none.yaml");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "none.yaml");
    expect(&run, 2, "", "none.yaml");
    INSPECT(&run, *state, "-n", "nodes.yaml");
    expect(&run, 2, "", "flow-definitions");
    INSPECT(&run, *state, "-n", ".", "-f", "flows.yaml");
    expect(&run, 2, "", "Error: ");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "--dump-format", "xml");
    expect(&run, 2, "", "xml");
}

/* Each as the flow file; the first line of the errors. */
static void test_bad_files_are_refused_with_their_place(void **state)
{
    const struct {
        struct sel_str text;
        const char *in_err;
    } cases[] = {
        {SEL_STR(""), "error: "},
        {SEL_STR("# nothing\n"), "error: "},
        {SEL_STR("flow-definitions:\n"), "error: "},
        {SEL_STR("just a text\n"), "bad.yaml:1:1: error: "},
        {SEL_STR("- a\n- list\n"), "bad.yaml:1:3: error: "},
        {SEL_STR("flow-definitions:\n\t- name: x\n"), "bad.yaml:2:1: error: a tab"},
        {SEL_STR("flow-definitions: [\n"), "bad.yaml:2:1: error: "},
        {SEL_STR("a: \xc3\x28\n"), "bad.yaml:1:5: error: invalid UTF-8"},
        {SEL_STR("a: b\0c\n"), "bad.yaml:1:5: error: control character U+0000"},
        {SEL_STR("--- {}\n--- {}\n"), "bad.yaml:2:1: error: a second document"},
        {SEL_STR("a: !!python/object:os.system x\n"), "bad.yaml:1:4: error: tag"},
        {SEL_STR("flow-definitions:\n  - name: ingest\n    max_retry: 18446744073709551616\n"),
         "bad.yaml:3:16: error: integer 18446744073709551616 is beyond 64 bits"},
        {SEL_STR("flow-definitions:\n  - name: ingest\n    edges: &e [*e]\n"),
         "bad.yaml:3:16: error: alias 'e' stands inside"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        sel_test_write(*state, "bad.yaml", cases[i].text);
        INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "bad.yaml");
        expect(&run, 1, "", cases[i].in_err);
        INSPECT(&run, *state, "-n", "bad.yaml", "-f", "flows.yaml");
        expect(&run, 1, "", "error: ");
    }
}

static void test_bombs_and_deep_nesting_are_refused(void **state)
{
    struct sel_test_run run;
    struct sel_buf buf = {0};
    sel_buf_put_c(&buf, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 12; i++) {
        sel_buf_printf(&buf, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            sel_buf_printf(&buf, "*a%d, ", i - 1);
        sel_buf_put_c(&buf, "]\n");
    }
    sel_test_write(*state, "bomb.yaml", sel_buf_str(&buf));
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "bomb.yaml");
    expect(&run, 1, "", "with aliases expanded");

    sel_buf_clear(&buf);
    sel_buf_put_c(&buf, "a: ");
    for (int i = 0; i < 10000; i++)
        sel_buf_put_c(&buf, "[");
    sel_test_write(*state, "deep.yaml", sel_buf_str(&buf));
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "deep.yaml");
    expect(&run, 1, "", "deep.yaml:1:259: error: too deep");
    sel_buf_done(&buf);
}

static void test_conditions_nested_without_end_are_refused(void **state)
{
    struct sel_test_run run;
    struct sel_buf buf = {0};
    sel_buf_put_c(&buf, FLOWS "        condition: ");
    for (int i = 0; i < 10000; i++)
        sel_buf_put_c(&buf, "{not: ");
    sel_test_write(*state, "deep.yaml", sel_buf_str(&buf));
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "deep.yaml");
    expect(&run, 1, "", "deep.yaml:");
    sel_buf_done(&buf);
}

static void test_duplicate_keys_are_a_warning_and_strict_makes_it_an_error(void **state)
{
    struct sel_test_run run;
    sel_test_write(*state, "twice.yaml", SEL_STR("tasks: []\n" NODES));
    INSPECT(&run, *state, "-n", "twice.yaml", "-f", "flows.yaml");
    expect(&run, 0, LOOKS_OK, "twice.yaml:2:1: warning: key 'tasks' is here twice");
    INSPECT(&run, *state, "-n", "twice.yaml", "-f", "flows.yaml", "--strict");
    expect(&run, 1, "", "twice.yaml:2:1: ");
}

static void test_all_errors_come_in_one_run_each_on_its_line(void **state)
{
    struct sel_test_run run;
    sel_test_write(*state, "nodes2.yaml",
                   SEL_STR("tasks:\n"
                           "  - {name: Fetch, import: demo.tasks, max_rety: 1}\n"
                           "  - {name: \"St\\nore\", import: demo.tasks}\n"
                           "  - {name: Store, import: demo.tasks, storage: Nowhere}\n"
                           "flows: [ingest]\n"));
    INSPECT(&run, *state, "-n", "nodes2.yaml", "-f", "flows.yaml");
    assert_int_equal(run.status, 1);
    assert_non_null(strstr(run.err, "nodes2.yaml:2:39: error: "));
    assert_non_null(strstr(run.err, "max_retry"));
    assert_non_null(strstr(run.err, "nodes2.yaml:3:12: error: "));
    assert_non_null(strstr(run.err, "nodes2.yaml:4:48: error: "));
    sel_test_run_done(&run);
}

/* Folders through all levels, following links, without hidden names and other endings. */
static void test_folders_are_searched_for_flow_files(void **state)
{
    const struct sel_test_folder *folder = *state;
    struct sel_test_run run;
    sel_test_write(folder, "nodes3.yaml",
                   SEL_STR("tasks: [{name: T, import: m}]\nflows: [a, b, c]\n"));
#define FLOW(name) "flow-definitions: [{name: " name ", edges: [{from: null, to: T}]}]\n"
    sel_test_write(folder, "tree/a.yaml", SEL_STR(FLOW("a")));
    sel_test_write(folder, "tree/.hidden.yaml", SEL_STR("[broken"));
    sel_test_write(folder, "tree/notes.txt", SEL_STR("[broken"));
    sel_test_write(folder, "beside/b.yml", SEL_STR(FLOW("b")));
    sel_test_write(folder, "c.yaml", SEL_STR(FLOW("c")));
    char link[512];
    (void)snprintf(link, sizeof(link), "%s/tree/link", folder->path);
    assert_int_equal(symlink("../beside", link), 0);
    INSPECT(&run, folder, "-n", "nodes3.yaml", "-f", "tree", "c.yaml", "--list-dispatcher-queues");
    expect(&run, 0, "a:celery\nb:celery\nc:celery\n", "");
    INSPECT(&run, folder, "-n", "nodes3.yaml", "-f", "tree", "-f", "c.yaml");
    expect(&run, 0, LOOKS_OK, "");
    INSPECT(&run, folder, "-n", "nodes3.yaml", "-f", "tree");
    expect(&run, 1, "", "'c'");
}

static void test_variables_stand_in_for_options(void **state)
{
    struct sel_test_run run;
    const char *const argv[] = {SEL_TEST_CLI, "inspect", NULL};
    const char *const vars[] = {"SELINON_NODES_DEFINITION=nodes.yaml",
                                "SELINON_INSPECT_FLOW_DEFINITIONS=flows.yaml",
                                "SELINON_INSPECT_LIST_DISPATCHER_QUEUES=yes", NULL};
    sel_test_run(&run, *state, argv, vars);
    expect(&run, 0, "ingest:celery\n", "");
}

static void test_the_dump_has_three_forms(void **state)
{
    struct sel_test_run run;
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "-");
    expect(&run, 0,
           "task Fetch: demo.tasks.Fetch, queue slow\n"
           "task Store: demo.tasks.Store, queue celery\n"
           "flow ingest: queue celery\n"
           "  start -> Fetch\n"
           "  Fetch -> Store\n",
           "");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "-", "--dump-format",
            "json");
    struct sel_arena arena = {0};
    struct sel_value tables = sel_test_json(&arena, run.out);
    assert_json(sel_value_get_c(&tables, "task_queues"),
                "{\"Fetch\":\"slow\",\"Store\":\"celery\"}");
    sel_arena_done(&arena);
    expect(&run, 0, NULL, "");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "-", "--dump-format",
            "dot");
    assert_non_null(strstr(run.out, "digraph selinon {"));
    expect(&run, 0, NULL, "");
}

static void test_a_dump_that_cannot_be_written_is_an_error(void **state)
{
    struct sel_test_run run;
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "none/dump.json");
    expect(&run, 1, "", "none/dump.json");
    INSPECT(&run, *state, "-n", "nodes.yaml", "-f", "flows.yaml", "-d", "/dev/full");
    expect(&run, 1, "", "/dev/full");
    const char *const argv[] = {SEL_TEST_CLI, "inspect",    "-n", "nodes.yaml",
                                "-f",         "flows.yaml", NULL};
    sel_test_run_to(&run, *state, argv, NULL, "/dev/full");
    expect(&run, 1, "", "Error: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_asked_for_is_printed_and_nothing_else),
        cmocka_unit_test(test_paths_that_are_not_there_are_wrong_usage),
        cmocka_unit_test(test_bad_files_are_refused_with_their_place),
        cmocka_unit_test(test_bombs_and_deep_nesting_are_refused),
        cmocka_unit_test(test_conditions_nested_without_end_are_refused),
        cmocka_unit_test(test_duplicate_keys_are_a_warning_and_strict_makes_it_an_error),
        cmocka_unit_test(test_all_errors_come_in_one_run_each_on_its_line),
        cmocka_unit_test(test_folders_are_searched_for_flow_files),
        cmocka_unit_test(test_variables_stand_in_for_options),
        cmocka_unit_test(test_the_dump_has_three_forms),
        cmocka_unit_test(test_a_dump_that_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
