/* `selinon-cli execute` as a person runs it: how it ends, what it prints, above all when something
 * is wrong. */
#include "tests/support/program.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <time.h>

/* Two tasks in a row, in C functions that only a script stands in for. */
#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Fetch, import: demo.tasks, storage: Memory, max_retry: 1, retry_countdown: "       \
    "3600}\n"                                                                                      \
    "  - {name: Store, import: demo.tasks, storage: Memory, queue: slow}\n"                        \
    "flows: [ingest]\n"                                                                            \
    "storages:\n"                                                                                  \
    "  - {name: Memory, import: selinon.storages.memory, classname: InMemoryStorage}\n"
#define FLOWS                                                                                      \
    "flow-definitions:\n"                                                                          \
    "  - name: ingest\n"                                                                           \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: Fetch}\n"                                                            \
    "      - from: Fetch\n"                                                                        \
    "        to: Store\n"                                                                          \
    "        condition: {name: argsFieldEqual, args: {key: go, value: true}}\n"
#define SCRIPT "{\"tasks\": {\"Fetch\": [{\"result\": 1}]}}"
#define FAILING "{\"tasks\": {\"Fetch\": [{\"raise\": \"KeyError\"}]}}"

static int setup(void **state)
{
    static struct sel_test_folder folder;
    sel_test_folder_init(&folder);
    sel_test_write(&folder, "nodes.yaml", SEL_STR(NODES));
    sel_test_write(&folder, "flows/ingest.yaml", SEL_STR(FLOWS));
    sel_test_write(&folder, "mock.json", SEL_STR(SCRIPT));
    sel_test_write(&folder, "failing.json", SEL_STR(FAILING));
    *state = &folder;
    return 0;
}

static int teardown(void **state)
{
    sel_test_folder_done(*state);
    return 0;
}

#define EXECUTE(run, folder, ...)                                                                  \
    sel_test_run((run), (folder),                                                                  \
                 (const char *const[]){SEL_TEST_CLI, "execute", "-n", "nodes.yaml", "-f", "flows", \
                                       "--flow-name", "ingest", __VA_ARGS__, NULL},                \
                 NULL)

/* Checks status, that both texts are in the outputs, and frees them. "" in err: it must be empty.
 */
static void expect(struct sel_test_run *run, int status, const char *in_out, const char *in_err)
{
    if (run->status != status || !strstr(run->out, in_out) || !strstr(run->err, in_err) ||
        strstr(run->err, "Sanitizer"))
        fail_msg("exit status %d, printed '%s', errors '%s'; expected %d, '%s', '%s'", run->status,
                 run->out, run->err, status, in_out, in_err);
    sel_test_run_done(run);
}

static bool exists(const struct sel_test_folder *folder, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    return access(path, F_OK) == 0;
}

/* ---- outcomes ---- */

static void test_success_ends_with_0_and_says_how_it_went(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "mock.json");
    expect(&run, 0, "", "ingest finished in ");
    EXECUTE(&run, *state, "--mock", "mock.json", "--json", "-j", "-a", "{\"go\": true}");
    expect(&run, 0, "\"outcome\": \"success\"", ": 2 nodes finished");
    EXECUTE(&run, *state, "--mock", "mock.json", "-c", "4", "--json", "-j", "-a", "{\"go\": 1.5}");
    expect(&run, 0, "\"finished\": 1,", ": 1 nodes finished");
}

static void test_failure_ends_with_1_and_names_the_task(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "failing.json", "--virtual-time", "--json");
    expect(&run, 1, "\"outcome\": \"failure\"", "Fetch: KeyError");
    EXECUTE(&run, *state, "--mock", "failing.json", "--virtual-time");
    expect(&run, 1, "", "ingest failed after 1 h 0 min (virtual time): 0 nodes finished, 1 failed");
}

static void test_verbose_shows_every_action(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "mock.json", "-v");
    expect(&run, 0, "", "TASK_START : {");
    EXECUTE(&run, *state, "--mock", "mock.json");
    assert_null(strstr(run.err, "TASK_START"));
    sel_test_run_done(&run);
}

static void test_what_no_queue_serves_is_a_failure(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "mock.json", "-Q", "celery", "-j", "-a", "{\"go\": true}");
    expect(&run, 1, "", "-Q");
    EXECUTE(&run, *state, "--mock", "mock.json", "-Q", "celery,slow", "-j", "-a", "{\"go\": true}");
    expect(&run, 0, "", "2 nodes finished");
}

/* ---- scripts and the example ---- */

static void test_options_win_over_a_whole_case(void **state)
{
    static const char *const variables[] = {"QUEUE=from_process", NULL};
    struct sel_test_run run;
    sel_test_write(*state, "queue.yaml",
                   SEL_STR("tasks:\n  - {name: Fetch, import: demo.tasks, queue: '{QUEUE}'}\n"
                           "  - {name: Store, import: demo.tasks}\nflows: [ingest]\n"));
    sel_test_write(
        *state, "case.json",
        SEL_STR("{\"flow\": \"ingest\", \"node_args\": {\"go\": true}, \"selective\": null,"
                "\"env\": {\"QUEUE\": \"from_case\"}, \"mock\": {\"tasks\": {}}}"));
    const char *words[] = {SEL_TEST_CLI, "execute", "-n",        "queue.yaml", "-f",
                           "flows",      "--mock",  "case.json", "-Q",         "celery,from_case",
                           NULL,         NULL,      NULL,        NULL};
    sel_test_run(&run, *state, words, variables);
    expect(&run, 0, "", ": 2 nodes finished");
    words[10] = "-j";
    words[11] = "-a";
    words[12] = "{}";
    sel_test_run(&run, *state, words, variables);
    expect(&run, 0, "", ": 1 nodes finished");
    words[10] = "--flow-name";
    words[11] = "other";
    words[12] = NULL;
    sel_test_run(&run, *state, words, variables);
    expect(&run, 1, "", "other");
}

static void test_a_selective_run_runs_what_leads_to_the_task(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "mock.json", "--selective-task-names", "Fetch", "-j", "-a",
            "{\"go\": true}");
    expect(&run, 0, "", ": 1 nodes finished");
}

static void test_the_example_runs(void **state)
{
    const struct sel_test_folder *folder = *state;
    char path[512];
    struct sel_test_run run;
    (void)snprintf(path, sizeof(path), "%s/examples", folder->path);
    assert_int_equal(symlink(SEL_TEST_SOURCE "/examples", path), 0);
    sel_test_write(folder, "build/.keep", SEL_STR(""));
    (void)snprintf(path, sizeof(path), "%s/build/texts", folder->path);
    assert_int_equal(mkdir(path, 0777), 0); /* where the report goes */
    sel_test_run(&run, folder,
                 (const char *const[]){SEL_TEST_CLI, "execute", "-n", "examples/texts/nodes.yaml",
                                       "-f", "examples/texts/flows", "--flow-name", "library", "-j",
                                       "--node-args-file", "examples/texts/args.json",
                                       "--module-path", SEL_TEST_EXAMPLES, NULL},
                 (const char *const[]){"PATH=/usr/bin:/bin", NULL});
    assert_non_null(strstr(run.err, "taken over by `Quarantine` (1)"));
    expect(&run, 0, "", "results: lmdb:build/texts/results");
    (void)snprintf(path, sizeof(path), "%s/build/texts/report.txt", folder->path);
    char *report = sel_test_take(path);
    assert_non_null(strstr(report, "files       7\n"));
    assert_non_null(strstr(report, "words       414\n"));
    assert_non_null(strstr(report, "copies      1\n"));
    assert_non_null(strstr(report, "lost.txt: FileNotFound\n"));
    (void)sel_mem_free(report);
}

/* ---- requests ---- */

static void test_bad_requests_end_with_1(void **state)
{
    struct sel_test_run run;
    sel_test_write(*state, "args.json", SEL_STR("{\"go\": true,}"));
    sel_test_write(*state, "list.json", SEL_STR("[]"));
    sel_test_write(*state, "step.json", SEL_STR("{\"tasks\": {\"Fetch\": [{\"explode\": 1}]}}"));
    sel_test_write(*state, "latin1.txt", SEL_STR("caf\xe9"));
    static const struct {
        const char *words[5];
        const char *in_err;
    } cases[] = {
        {{"-a", "x", "--node-args-file", "args.json"}, "not both"},
        {{"-j"}, "--node-args-json needs arguments"},
        {{"-j", "-a", "{bad"}, "--node-args:1:2: "},
        {{"-j", "-a", "[18446744073709551616]"}, "64 bits"},
        {{"-j", "-a", "[NaN]"}, "--node-args:1:2"},
        {{"-j", "-a", ""}, "--node-args:1:1"},
        {{"-j", "--node-args-file", "args.json"}, "args.json:1:13: "},
        {{"--node-args-file", "none.json"}, "none.json: "},
        {{"--node-args-file", "flows"}, "flows: "},
        {{"--node-args-file", "latin1.txt"}, "latin1.txt: is not UTF-8"},
        {{"--selective-follow-subflows"}, "needs --selective-task-names"},
        {{"--selective-run-subsequent"}, "needs --selective-task-names"},
        {{"--selective-task-names", "Stroe"}, "Stroe"},
        {{"--flow-name", "ingset"}, "ingset"},
        {{"--mock", "args.json"}, "args.json:1:13: "},
        {{"--mock", "list.json"}, "list.json: "},
        {{"--mock", "step.json"}, "step.json"},
        {{"--config-py", "none/dump.json"}, "none/dump.json"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        const char *const *w = cases[i].words;
        EXECUTE(&run, *state, "--mock", "mock.json", w[0], w[1], w[2], w[3]);
        expect(&run, 1, "", cases[i].in_err);
    }
}

static void test_wrong_usage_ends_with_2(void **state)
{
    static const struct {
        const char *words[5];
        const char *in_err;
    } cases[] = {
        {{"execute"}, "--nodes-definition is missing"},
        {{"execute", "-n", "nodes.yaml"}, "--flow-definitions is missing"},
        {{"execute", "-n", "none.yaml"}, "'none.yaml' does not exist"},
        {{"execute", "-n", "flows"}, "is a folder"},
        {{"execute", "--concurrency", "0"}, "'0' is below 1"},
        {{"execute", "--concurrency=many"}, "no whole number"},
        {{"execute", "-s", "-1"}, "'-1' is below 0"},
        {{"execute", "--no-such"}, "there is no option --no-such"},
        {{"execute", "stray"}, "unexpected argument 'stray'"},
        {{"execute", "-n"}, "needs a value"},
        {{"exceute"}, "did you mean 'execute'?"},
        {{"--verbos=1"}, "takes no value"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        const char *const *w = cases[i].words;
        sel_test_run(&run, *state,
                     (const char *const[]){SEL_TEST_CLI, w[0], w[1], w[2], w[3], NULL}, NULL);
        assert_non_null(strstr(run.err, "Usage: selinon-cli"));
        assert_non_null(strstr(run.err, "\nError: "));
        expect(&run, 2, "", cases[i].in_err);
    }
}

static void test_help_and_version(void **state)
{
    struct sel_test_run run;
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, NULL}, NULL);
    expect(&run, 0, "Commands:", "");
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, "--version", "nonsense", NULL},
                 NULL);
    assert_string_equal(run.out, SEL_VERSION "\n");
    expect(&run, 0, "", "");
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, "version", NULL}, NULL);
    assert_int_equal(strncmp(run.out, "selinon " SEL_VERSION "\n", strlen(SEL_VERSION) + 9), 0);
    expect(&run, 0, "\nlmdb ", "");
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, "execute", "--help", NULL},
                 NULL);
    expect(&run, 0, "--node-args-file", "");
    const char *const codename[] = {"SELINON_VERSION_CODENAME=yes", NULL};
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, "version", NULL}, codename);
    assert_null(strchr(run.out, ' '));
    expect(&run, 0, "", "");
}

static void test_options_come_from_the_environment(void **state)
{
    struct sel_test_run run;
    const char *const variables[] = {"SELINON_NODES_DEFINITION=nodes.yaml",
                                     "SELINON_EXECUTE_FLOW_DEFINITIONS=flows",
                                     "SELINON_EXECUTE_FLOW_NAME=ingest",
                                     "SELINON_EXECUTE_NODE_ARGS={\"go\": true}",
                                     "SELINON_EXECUTE_NODE_ARGS_JSON=on",
                                     "SELINON_EXECUTE_MOCK=mock.json",
                                     "SELINON_EXECUTE_JSON=1",
                                     NULL};
    sel_test_run(&run, *state, (const char *const[]){SEL_TEST_CLI, "execute", NULL}, variables);
    expect(&run, 0, "\"finished\": 2", "2 nodes finished");
    sel_test_run(&run, *state,
                 (const char *const[]){SEL_TEST_CLI, "execute", "-a", "{\"go\": false}", NULL},
                 variables);
    expect(&run, 0, "\"finished\": 1", "1 nodes finished");
}

static void test_standard_output_that_cannot_be_written_is_told(void **state)
{
    struct sel_test_run run;
    sel_test_run_to(&run, *state,
                    (const char *const[]){SEL_TEST_CLI, "execute", "-n", "nodes.yaml", "-f",
                                          "flows", "--flow-name", "ingest", "--mock", "mock.json",
                                          "--json", NULL},
                    NULL, "/dev/full");
    expect(&run, 1, "", "Error: standard output: No space left");
}

/* ---- the configuration ---- */

static void test_broken_configurations_end_with_1(void **state)
{
    struct sel_test_run run;
    static const struct sel_str broken[] = {SEL_STR(""), SEL_STR("[]"), SEL_STR("tasks: [\n")};
    for (size_t i = 0; i < SEL_COUNT(broken); i++) {
        sel_test_write(*state, "broken.yaml", broken[i]);
        EXECUTE(&run, *state, "--mock", "mock.json", "-n", "broken.yaml");
        expect(&run, 1, "", "Error: the configuration has ");
    }
    sel_test_write(*state, "empty/readme.txt", SEL_STR("no flow\n"));
    sel_test_run(&run, *state,
                 (const char *const[]){SEL_TEST_CLI, "execute", "-n", "nodes.yaml", "-f", "empty",
                                       "--flow-name", "ingest", NULL},
                 NULL);
    expect(&run, 1, "", "empty: warning: no *.yaml or *.yml file");
}

static void test_flow_folders_are_searched_but_hidden_names_are_not(void **state)
{
    const struct sel_test_folder *folder = *state;
    char from[512];
    struct sel_test_run run;
    sel_test_write(folder, "all/.hidden.yaml", SEL_STR("this: [is no flow\n"));
    sel_test_write(folder, "all/notes.txt", SEL_STR("nor is this\n"));
    (void)snprintf(from, sizeof(from), "%s/all/linked", folder->path);
    assert_int_equal(symlink("../flows", from), 0);
    (void)snprintf(from, sizeof(from), "%s/all/circle", folder->path);
    assert_int_equal(symlink(".", from), 0);
    sel_test_run(&run, folder,
                 (const char *const[]){SEL_TEST_CLI, "execute", "-n", "nodes.yaml", "-f", "all",
                                       "--flow-name", "ingest", "--mock", "mock.json", NULL},
                 NULL);
    expect(&run, 0, "", "ingest finished");
}

static void test_the_dump_is_there_only_if_it_is_to_be_kept(void **state)
{
    struct sel_test_run run;
    EXECUTE(&run, *state, "--mock", "mock.json", "--config-py", "gone.json");
    expect(&run, 0, "", "");
    assert_false(exists(*state, "gone.json"));
    EXECUTE(&run, *state, "--mock", "mock.json", "--config-py", "kept.json", "--keep-config-py");
    expect(&run, 0, "", "");
    assert_true(exists(*state, "kept.json"));
    EXECUTE(&run, *state, "--mock", "mock.json", "--config-py", "-");
    expect(&run, 0, "{\n  ", "");

    char link[512];
    (void)snprintf(link, sizeof(link), "%s/link.json", ((struct sel_test_folder *)*state)->path);
    assert_int_equal(symlink("kept.json", link), 0);
    EXECUTE(&run, *state, "--mock", "mock.json", "--config-py", "link.json");
    expect(&run, 0, "", "");
    assert_true(exists(*state, "link.json"));
}

/* A device of our own: the program, run by root, could take the system's away. */
static void test_a_dump_to_a_device_leaves_it_there(void **state)
{
    char device[512];
    struct sel_test_run run;
    (void)snprintf(device, sizeof(device), "%s/sink", ((struct sel_test_folder *)*state)->path);
    if (mknod(device, S_IFCHR | 0666, makedev(1, 3)) < 0) {
        print_message("not allowed to make a device: skipped\n");
        skip();
    }
    EXECUTE(&run, *state, "--mock", "mock.json", "--config-py", "sink");
    assert_true(exists(*state, "sink"));
    sel_test_run_done(&run);
}

/* ---- code ---- */

#define ONE_TASK(task, storage)                                                                    \
    "tasks:\n  - {name: Work, " task "}\n"                                                         \
    "flows: [one]\n" storage
#define ONE_FLOW "flow-definitions:\n  - name: one\n    edges: [{from: null, to: Work}]\n"
#define MEMORY                                                                                     \
    "storages:\n  - {name: S, import: selinon.storages.memory, classname: InMemoryStorage}\n"

static void run_one(struct sel_test_run *run, const struct sel_test_folder *folder,
                    struct sel_str nodes)
{
    sel_test_write(folder, "one.yaml", nodes);
    sel_test_write(folder, "one-flow.yaml", SEL_STR(ONE_FLOW));
    sel_test_run(run, folder,
                 (const char *const[]){SEL_TEST_CLI, "execute", "-n", "one.yaml", "-f",
                                       "one-flow.yaml", "--flow-name", "one", "--module-path",
                                       SEL_TEST_MODULES, NULL},
                 (const char *const[]){"PATH=/usr/bin:/bin", NULL});
}

static void test_missing_and_foreign_code_is_found_before_anything_runs(void **state)
{
    struct sel_test_run run;
    run_one(&run, *state, SEL_STR(ONE_TASK("import: not_there", "")));
    expect(&run, 1, "", "not_there");
    run_one(&run, *state, SEL_STR(ONE_TASK("import: wrong_abi", "")));
    expect(&run, 1, "", "wrong_abi.so: was built for module interface ");
    run_one(&run, *state, SEL_STR(ONE_TASK("import: no_table", "")));
    expect(&run, 1, "", "no_table.so");
    run_one(&run, *state, SEL_STR(ONE_TASK("import: plain", "")));
    expect(&run, 1, "", "Work");
    run_one(&run, *state, SEL_STR(ONE_TASK("import: exec, command: [no-such-program]", "")));
    expect(&run, 1, "", "no-such-program");
}

static void test_what_executables_do_wrong_fails_the_task(void **state)
{
    static const struct {
        const char *command, *in_err;
        int status;
    } cases[] = {
        {"echo '{\"x\": 1}'", "finished in", 0},
        {"cat >/dev/null", "finished in", 0},
        {"true", "finished in", 0},
        {"echo garbage", "Work: ", 1},
        {"printf '\\377'", "Work: ", 1},
        {"exit 3", "Work: ", 1},
        {"exit 76", "Work: FatalTaskError", 1},
        {"kill -KILL $$", "Work: ", 1},
        {"kill -SEGV $$", "Work: ", 1},
        {"echo '{\"class\": \"Sorry\", \"message\": \"no luck\"}' >&2; exit 1",
         "Work: Sorry: no luck", 1},
        {"sleep 600 & sleep 600", "Work: ", 1},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        struct sel_buf nodes = {0};
        sel_test_write(*state, "work.sh", sel_str_c(cases[i].command));
        sel_buf_put_c(&nodes, ONE_TASK("import: exec, command: [sh, work.sh], timeout: 1, "
                                       "storage: S",
                                       MEMORY));
        run_one(&run, *state, sel_buf_str(&nodes));
        expect(&run, cases[i].status, "", cases[i].in_err);
        sel_buf_done(&nodes);
    }
}

static void test_a_storage_that_cannot_be_opened_is_told_before_anything_runs(void **state)
{
    struct sel_test_run run;
    sel_test_write(*state, "file", SEL_STR("in the way"));
    run_one(&run, *state,
            SEL_STR(ONE_TASK("import: exec, command: ['true'], storage: S",
                             "storages:\n  - {name: S, import: selinon.storages.lmdb, classname: "
                             "LMDB, configuration: {path: file}}\n")));
    expect(&run, 1, "", "file");
    run_one(&run, *state,
            SEL_STR(ONE_TASK("import: exec, command: ['true'], storage: S",
                             "storages:\n  - {name: S, import: selinon.storages.redis, classname: "
                             "Redis}\n")));
    expect(&run, 1, "", "storage 'S': this build has no adapter");
    run_one(&run, *state,
            SEL_STR(ONE_TASK("import: exec, command: ['true'], storage: S",
                             "storages:\n  - {name: S, import: selinon.storages.lmdb, classname: "
                             "LMDB, configuration: {path: '{NOT_SET_ANYWHERE}'}}\n")));
    expect(&run, 1, "", "NOT_SET_ANYWHERE");
}

/* ---- disks ---- */

#define BIG_RESULT "head -c 3000000 /dev/zero | tr '\\0' x | sed 's/^/\"/; s/$/\"/'\n"

static void run_on_disk(struct sel_test_run *run, const struct sel_test_folder *folder,
                        const char *storage)
{
    struct sel_buf nodes = {0};
    sel_test_write(folder, "work.sh", SEL_STR(BIG_RESULT));
    sel_buf_printf(&nodes,
                   "tasks:\n  - {name: Work, import: exec, command: [sh, work.sh], storage: S}\n"
                   "flows: [one]\nstorages:\n  - {name: S, %s, configuration: {path: disk/results"
                   "%s}}\n",
                   storage, strstr(storage, "lmdb") ? "" : ", sync: false");
    run_one(run, folder, sel_buf_str(&nodes));
    sel_buf_done(&nodes);
}

/* A file system of 2 MiB in the folder `disk`; false where this may not be done. */
static bool mount_small_disk(const struct sel_test_folder *folder, unsigned long flags, char *path,
                             size_t size)
{
    (void)snprintf(path, size, "%s/disk", folder->path);
    assert_true(mkdir(path, 0777) == 0 || errno == EEXIST);
    return mount("tmpfs", path, "tmpfs", flags, "size=2m") == 0;
}

static const char *const disk_storages[] = {
    "import: selinon.storages.lmdb, classname: LMDB",
    "import: selinon.storages.filesystem, classname: Filesystem",
};

static void test_a_full_disk_is_told_and_ends_with_1(void **state)
{
    for (size_t i = 0; i < SEL_COUNT(disk_storages); i++) {
        char disk[512];
        struct sel_test_run run;
        if (!mount_small_disk(*state, 0, disk, sizeof(disk))) {
            print_message("not allowed to mount: skipped\n");
            skip();
        }
        run_on_disk(&run, *state, disk_storages[i]);
        assert_int_equal(umount(disk), 0);
        expect(&run, 1, "", "one failed");
    }
}

static void test_a_read_only_disk_is_told_and_ends_with_1(void **state)
{
    for (size_t i = 0; i < SEL_COUNT(disk_storages); i++) {
        char disk[512];
        struct sel_test_run run;
        if (!mount_small_disk(*state, MS_RDONLY, disk, sizeof(disk))) {
            print_message("not allowed to mount: skipped\n");
            skip();
        }
        run_on_disk(&run, *state, disk_storages[i]);
        assert_int_equal(umount(disk), 0);
        expect(&run, 1, "", "Read-only file system");
    }
}

/* ---- signals ---- */

/* Waits until the task says that it runs, by a file; at most about 20 s. */
static void wait_for(const struct sel_test_folder *folder, const char *name)
{
    for (int i = 0; i < 2000 && !exists(folder, name); i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(exists(folder, name));
}

static void test_ctrl_c_cancels_the_flow_and_ends_its_programs(void **state)
{
    const struct sel_test_folder *folder = *state;
    sel_test_write(folder, "work.sh", SEL_STR("echo $$ >pid.new; mv pid.new pid; exec sleep 600"));
    sel_test_write(folder, "one.yaml",
                   SEL_STR(ONE_TASK("import: exec, command: [sh, work.sh]", "")));
    sel_test_write(folder, "one-flow.yaml", SEL_STR(ONE_FLOW));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (chdir(folder->path) < 0)
            _exit(126);
        sel_test_redirect(".cancel-err", STDERR_FILENO);
        (void)execl(SEL_TEST_CLI, SEL_TEST_CLI, "execute", "-n", "one.yaml", "-f", "one-flow.yaml",
                    "--flow-name", "one", (char *)NULL);
        _exit(126);
    }
    wait_for(folder, "pid");
    assert_int_equal(kill(pid, SIGINT), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);

    char path[512];
    (void)snprintf(path, sizeof(path), "%s/.cancel-err", folder->path);
    char *err = sel_test_take(path);
    assert_non_null(strstr(err, "one was cancelled after "));
    (void)sel_mem_free(err);
    (void)snprintf(path, sizeof(path), "%s/pid", folder->path);
    char *text = sel_test_take(path);
    pid_t sleeper = (pid_t)strtol(text, NULL, 10);
    (void)sel_mem_free(text);
    assert_true(sleeper > 1);
    assert_int_equal(kill(sleeper, 0), -1);
    assert_int_equal(errno, ESRCH);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_success_ends_with_0_and_says_how_it_went),
        TEST(test_failure_ends_with_1_and_names_the_task),
        TEST(test_verbose_shows_every_action),
        TEST(test_what_no_queue_serves_is_a_failure),
        TEST(test_options_win_over_a_whole_case),
        TEST(test_a_selective_run_runs_what_leads_to_the_task),
        TEST(test_the_example_runs),
        TEST(test_bad_requests_end_with_1),
        TEST(test_wrong_usage_ends_with_2),
        TEST(test_help_and_version),
        TEST(test_options_come_from_the_environment),
        TEST(test_standard_output_that_cannot_be_written_is_told),
        TEST(test_broken_configurations_end_with_1),
        TEST(test_flow_folders_are_searched_but_hidden_names_are_not),
        TEST(test_the_dump_is_there_only_if_it_is_to_be_kept),
        TEST(test_a_dump_to_a_device_leaves_it_there),
        TEST(test_missing_and_foreign_code_is_found_before_anything_runs),
        TEST(test_what_executables_do_wrong_fails_the_task),
        TEST(test_a_storage_that_cannot_be_opened_is_told_before_anything_runs),
        TEST(test_a_full_disk_is_told_and_ends_with_1),
        TEST(test_a_read_only_disk_is_told_and_ends_with_1),
        TEST(test_ctrl_c_cancels_the_flow_and_ends_its_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
