/* Flows on a cluster as a person runs them: `selinon-cli run`, `wait`, `result`, `flows`, `status`,
 * with a broker and a worker. */
#include "tests/support/server.h"

#include "core/id.h"
#include "core/json.h"

#define NODES                                                                                      \
    "tasks:\n"                                                                                     \
    "  - {name: Nothing, import: trouble}\n"                                                       \
    "  - {name: Fails, import: trouble}\n"                                                         \
    "  - {name: Hangs, import: trouble}\n"                                                         \
    "  - {name: Slow, import: exec, command: [sleep, '1.5']}\n"                                    \
    "  - {name: Repair, import: trouble, classname: Nothing}\n"                                    \
    "  - {name: Each, import: trouble, classname: Nothing}\n"                                      \
    "flows: [pair, bad, mended, hung, loose, outer, crowd]\n"
#define FLOWS                                                                                      \
    "flow-definitions:\n"                                                                          \
    "  - name: pair\n"                                                                             \
    "    queue: deciders\n"                                                                        \
    "    edges: [{from: null, to: Nothing}, {from: Nothing, to: Repair}]\n"                        \
    "  - name: bad\n"                                                                              \
    "    edges: [{from: null, to: [Nothing, Fails]}]\n"                                            \
    "  - name: mended\n"                                                                           \
    "    edges: [{from: null, to: Fails}]\n"                                                       \
    "    failures: [{nodes: Fails, fallback: Repair}]\n"                                           \
    "  - name: hung\n"                                                                             \
    "    edges: [{from: null, to: Nothing}, {from: Nothing, to: Hangs}]\n"                         \
    "  - name: loose\n"                                                                            \
    "    nowait: Slow\n"                                                                           \
    "    edges: [{from: null, to: [Slow, Nothing]}]\n"                                             \
    "  - name: outer\n"                                                                            \
    "    edges: [{from: null, to: hung}]\n"                                                        \
    "  - name: crowd\n"                                                                            \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: [Nothing, pair]}\n"                                                  \
    "      - from: Nothing\n"                                                                      \
    "        to: [Each, Fails]\n"                                                                  \
    "        foreach: {import: trouble, function: numbers}\n"                                      \
    "    failures: [{nodes: Fails, fallback: Repair, propagate_failure: true}]\n"
#define UNKNOWN "0198f3c2-7b1c-7001-8000-00000000002a"

struct world {
    struct sel_test_folder folder;
    char endpoint[512], query[512], broker_variable[600], query_variable[600];
    struct sel_test_server broker, worker;
    struct sel_arena arena;
};

static void start_broker(struct world *w)
{
    const char *const argv[] = {SEL_TEST_BROKER, "--listen",  w->endpoint, "--query",
                                w->query,        "--journal", "journal",   NULL};
    sel_test_server_run(&w->broker, &w->folder, ".broker", argv);
    sel_test_server_expect(&w->broker, "broker.ready");
}

static int setup(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    sel_test_folder_init(&w.folder);
    (void)snprintf(w.endpoint, sizeof(w.endpoint), "ipc://%s/broker", w.folder.path);
    (void)snprintf(w.query, sizeof(w.query), "ipc://%s/query", w.folder.path);
    (void)snprintf(w.broker_variable, sizeof(w.broker_variable), "SELINON_BROKER=%s", w.endpoint);
    (void)snprintf(w.query_variable, sizeof(w.query_variable), "SELINON_BROKER_QUERY=%s", w.query);
    sel_test_write(&w.folder, "nodes.yaml", SEL_STR(NODES));
    sel_test_write(&w.folder, "flows.yaml", SEL_STR(FLOWS));
    start_broker(&w);
    const char *const worker[] = {SEL_TEST_WORKER,
                                  "-n",
                                  "nodes.yaml",
                                  "-f",
                                  "flows.yaml",
                                  "-b",
                                  w.endpoint,
                                  "-t",
                                  "1",
                                  "--module-path",
                                  SEL_TEST_MODULES,
                                  "--no-supervisor",
                                  "--drain-timeout", /* what hangs is not waited for */
                                  "0.2",
                                  NULL};
    sel_test_server_run(&w.worker, &w.folder, ".worker", worker);
    sel_test_server_expect(&w.worker, "worker.session");
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    assert_int_equal(sel_test_server_end(&w->worker, SIGTERM), 0);
    assert_int_equal(sel_test_server_end(&w->broker, SIGTERM), 0);
    sel_test_server_done(&w->worker);
    sel_test_server_done(&w->broker);
    sel_test_folder_done(&w->folder);
    sel_arena_done(&w->arena);
    return 0;
}

static void run_cli(struct world *w, struct sel_test_run *run, int status, const char *const *words)
{
    const char *argv[32] = {SEL_TEST_CLI};
    const char *const vars[] = {w->broker_variable, w->query_variable, "TZ=UTC", NULL};
    size_t count = 1;
    for (; *words; words++)
        argv[count++] = *words;
    sel_test_run(run, &w->folder, argv, vars);
    if (run->status != status)
        fail_msg("status %d, not %d: '%s', '%s'\n%s\n%s", run->status, status, run->out, run->err,
                 sel_test_server_log(&w->broker), sel_test_server_log(&w->worker));
}

#define CLI(w, run, status, ...)                                                                   \
    run_cli((w), (run), (status), (const char *const[]){__VA_ARGS__, NULL})

/* Runs it and takes its JSON. */
static struct sel_value json_of(struct world *w, int status, const char *const *words)
{
    struct sel_test_run run;
    run_cli(w, &run, status, words);
    char *copy = sel_arena_strdup(&w->arena, sel_str_c(run.out));
    sel_test_run_done(&run);
    return sel_test_json(&w->arena, copy);
}

#define JSON(w, status, ...)                                                                       \
    json_of((w), (status), (const char *const[]){__VA_ARGS__, "--json", NULL})

static const char *text_in(struct world *w, const struct sel_value *map, const char *key)
{
    const struct sel_value *v = sel_value_get_c(map, key);
    assert_true(v && sel_value_is(v, SEL_TEXT));
    return sel_arena_strdup(&w->arena, sel_value_str(v));
}

/* Submits a flow; its id. */
static const char *submit(struct world *w, const char *flow)
{
    struct sel_value answer = JSON(w, 0, "run", flow);
    return text_in(w, &answer, "id");
}

/* Waits until `status ID` says that run of `node`. */
static struct sel_value expect_open(struct world *w, const char *id, const char *node)
{
    struct sel_value status = sel_value_null;
    for (int i = 0; i < 2000; i++) {
        status = JSON(w, 0, "status", id);
        const struct sel_value *open = sel_value_get_c(&status, "waits_for");
        for (uint32_t k = 0; open && k < sel_value_count(open); k++)
            if (strcmp(text_in(w, sel_value_at(open, k), "name"), node) == 0)
                return status;
        sel_test_pause();
    }
    fail_msg("%s never waits for %s: %s", id, node, sel_test_json_text(&w->arena, &status));
    return status;
}

static void test_a_flow_is_run_and_its_end_printed(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    CLI(w, &run, 0, "run", "mended", "--wait");
    assert_non_null(strstr(run.out, " finished: 1 node finished, in "));
    sel_test_run_done(&run);
    struct sel_value end = JSON(w, 0, "run", "mended", "--wait");
    assert_json(sel_value_get_c(&end, "outcome"), "\"success\"");
    assert_json(sel_value_get_c(&end, "flow_name"), "\"mended\"");
    const struct sel_value *nodes = sel_value_get_c(&end, "state");
    assert_json(sel_value_get_c(nodes, "active_nodes"), "[]");
    assert_int_equal(
        sel_value_count(sel_value_get_c(sel_value_get_c(nodes, "finished_nodes"), "Repair")), 1);
    assert_json(sel_value_get_c(nodes, "failed_nodes"), "{}"); /* a fallback took it */
    assert_json(sel_value_get_c(&end, "reason"), "null");
}

static void test_a_flow_goes_to_its_queue_in_the_configuration(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    CLI(w, &run, 0, "run", "pair", "-w", "-n", "nodes.yaml", "-f", "flows.yaml");
    assert_non_null(strstr(run.out, " finished: 2 nodes finished, in "));
    sel_test_run_done(&run);
    CLI(w, &run, 0, "run", "pair", "-w", "--queue", "deciders");
    sel_test_run_done(&run);
    CLI(w, &run, 1, "run", "pair", "-w", "--queue", "nobody", "--timeout", "0.3");
    assert_non_null(strstr(run.err, "It is flow "));
    sel_test_run_done(&run);
}

static void test_what_failed_says_why(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    struct sel_value end = JSON(w, 1, "run", "bad", "--wait");
    assert_json(sel_value_get_c(&end, "outcome"), "\"failure\"");
    assert_true(sel_value_is(sel_value_get_c(&end, "reason"), SEL_TEXT));
    const char *id = text_in(w, &end, "flow_id");
    CLI(w, &run, 1, "wait", id);
    assert_non_null(strstr(run.out, " failed: 1 node finished, 1 failed (Fails): "));
    sel_test_run_done(&run);
    CLI(w, &run, 1, "result", id);
    assert_non_null(strstr(run.out, "\"failed_nodes\": {"));
    assert_non_null(strstr(run.err, " failed\n"));
    sel_test_run_done(&run);
    end = JSON(w, 1, "result", id);
    assert_json(sel_value_get_c(&end, "status"), "\"failed\"");
    CLI(w, &run, 1, "result", UNKNOWN);
    assert_non_null(strstr(run.err, UNKNOWN));
    sel_test_run_done(&run);
}

static void test_a_selective_run_runs_what_leads_to_it(void **state)
{
    struct world *w = *state;
    struct sel_value end = JSON(w, 0, "run", "hung", "--wait", "--selective-task-names", "Nothing");
    const struct sel_value *nodes = sel_value_get_c(&end, "state");
    assert_int_equal(sel_value_count(sel_value_get_c(nodes, "finished_nodes")), 1);
    end = JSON(w, 1, "run", "hung", "--wait", "--selective-task-names", "Slow");
    assert_non_null(strstr(text_in(w, &end, "reason"), "SelectiveNoPathError"));
}

static void test_where_a_flow_is(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    const char *id = submit(w, "hung");
    struct sel_value status = expect_open(w, id, "Hangs");
    assert_json(sel_value_get_c(&status, "problem"), "null");
    assert_json(sel_value_get_c(sel_value_get_c(&status, "flow"), "state"), "\"running\"");
    const struct sel_value *nodes = sel_value_get_c(&status, "nodes");
    assert_int_equal(sel_value_count(nodes), 2);
    assert_json(sel_value_get_c(sel_value_at(nodes, 0), "finished"), "1");
    assert_json(sel_value_get_c(sel_value_at(nodes, 1), "active"), "1");
    CLI(w, &run, 0, "status", id);
    assert_non_null(strstr(run.out, "\nNodes\nname"));
    assert_non_null(strstr(run.out, "the flow begins, Nothing started\n"));
    assert_non_null(strstr(run.out, "Nothing finished, Hangs started\n"));
    sel_test_run_done(&run);
    CLI(w, &run, 1, "result", id);
    assert_non_null(strstr(run.err, "has not ended"));
    sel_test_run_done(&run);
    CLI(w, &run, 0, "task", "cancel", id);
    assert_non_null(strstr(run.out, " cancelled "));
    sel_test_run_done(&run);
}

static void test_flows_are_found(void **state)
{
    struct world *w = *state;
    const char *id = submit(w, "outer");
    (void)expect_open(w, id, "hung");
    struct sel_value list = JSON(w, 0, "flows", "--name", "outer", "--state", "running");
    assert_int_equal(sel_value_count(&list), 1);
    assert_string_equal(text_in(w, sel_value_at(&list, 0), "id"), id);
    list = JSON(w, 0, "flows", "--name", "hung", "--state", "running");
    assert_int_equal(sel_value_count(&list), 1); /* its sub-flow */
    assert_string_equal(text_in(w, sel_value_at(&list, 0), "parent"), id);
    struct sel_test_run run;
    CLI(w, &run, 0, "task", "cancel", id);
    sel_test_run_done(&run);
    CLI(w, &run, 0, "flows", "--name", "nobody");
    assert_string_equal(run.out, "No such flow.\n");
    sel_test_run_done(&run);
}

static void test_detached_work_is_waited_for_if_wanted(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    struct sel_value end = JSON(w, 0, "run", "loose", "--wait");
    const char *id = text_in(w, &end, "flow_id");
    assert_true(sel_value_num(sel_value_get_c(&end, "seconds")) < 1.5);
    CLI(w, &run, 0, "wait", id, "--all");
    sel_test_run_done(&run);
    end = JSON(w, 0, "run", "loose", "--wait-all");
    assert_true(sel_value_num(sel_value_get_c(&end, "seconds")) >= 1.5);
}

#define EACH 2000u
#define CROWD (3 * EACH + 2) /* its nodes */

struct crowd {
    uint32_t finished_each, finished_repair, failed, others;
    bool seen[CROWD]; /* by ordinal */
    uint32_t ordinals;
    const char *child; /* the id that no ordinal has */
};

static void note_node(struct world *w, struct crowd *crowd, const char *flow,
                      const struct sel_value *node)
{
    const char *state = text_in(w, node, "state"), *name = text_in(w, node, "name");
    const char *id = text_in(w, node, "id");
    struct sel_id of;
    uint32_t attempt, ordinal;
    char text[SEL_ID_TEXT_SIZE];
    bool has_failed = strcmp(state, "failed") == 0;
    assert_true(has_failed || strcmp(state, "finished") == 0);
    assert_int_equal(has_failed, strcmp(name, "Fails") == 0);
    crowd->failed += has_failed;
    crowd->finished_each += strcmp(name, "Each") == 0;
    crowd->finished_repair += strcmp(name, "Repair") == 0;
    crowd->others += strcmp(name, "Nothing") == 0 || strcmp(name, "pair") == 0;
    if (strcmp(name, "pair") == 0) {
        crowd->child = id;
        return;
    }
    assert_true(sel_id_parse_run(sel_str_c(id), &of, &attempt, &ordinal));
    assert_string_equal(sel_id_format(of, text), flow);
    assert_int_equal(attempt, 0);
    assert_true(ordinal < CROWD && !crowd->seen[ordinal]);
    crowd->seen[ordinal] = true;
    crowd->ordinals++;
}

/* `result ID --nodes --json`: each node once, under its id. The text is in the arena. */
static char *check_crowd(struct world *w, const char *id)
{
    static struct crowd crowd;
    struct sel_test_run run;
    struct sel_value children = JSON(w, 0, "flows", "--name", "pair");
    CLI(w, &run, 1, "result", id, "--nodes", "--json"); /* it has failed: some did */
    char *text = sel_arena_strdup(&w->arena, sel_str_c(run.out));
    crowd = (struct crowd){0};
    for (char *at = run.out, *end; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        struct sel_value node = sel_test_json(&w->arena, at);
        note_node(w, &crowd, id, &node);
    }
    sel_test_run_done(&run);
    assert_int_equal(crowd.finished_each, EACH);
    assert_int_equal(crowd.finished_repair, EACH);
    assert_int_equal(crowd.failed, EACH);
    assert_int_equal(crowd.others, 2);
    assert_int_equal(crowd.ordinals, CROWD - 1); /* all but that of the sub-flow */
    bool is_there = false;
    for (uint32_t i = 0; i < sel_value_count(&children); i++) {
        const struct sel_value *child = sel_value_at(&children, i);
        is_there |= crowd.child && strcmp(text_in(w, child, "id"), crowd.child) == 0 &&
                    strcmp(text_in(w, child, "parent"), id) == 0;
    }
    assert_true(is_there);
    return text;
}

static void test_all_nodes_of_a_large_flow_are_told_after_a_kill(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    struct sel_value answer = JSON(w, 0, "run", "crowd", "--node-args", "{\"count\": 2000}", "-j");
    const char *id = text_in(w, &answer, "id");
    CLI(w, &run, 1, "wait", id);
    if (!strstr(run.out, " failed: 4,002 nodes finished, 2,000 failed (`result ID"))
        fail_msg("%s", run.out);
    sel_test_run_done(&run);
    CLI(w, &run, 1, "result", id);
    assert_non_null(strstr(run.out, "\"pages\": 7"));
    assert_non_null(strstr(run.err, "--nodes\n"));
    sel_test_run_done(&run);
    const char *before = check_crowd(w, id);
    assert_int_equal(sel_test_server_end(&w->broker, SIGKILL), -SIGKILL);
    sel_test_server_done(&w->broker);
    start_broker(w);
    assert_string_equal(check_crowd(w, id), before);
    CLI(w, &run, 1, "result", id, "--nodes");
    assert_non_null(strstr(run.out, "finished  Nothing  "));
    assert_non_null(strstr(run.out, "failed    Fails  "));
    sel_test_run_done(&run);
    CLI(w, &run, 1, "result", id, "--nodes", "--query", "ipc://nobody", "--timeout", "0.3");
    assert_non_null(strstr(run.err, "page 0 of the nodes: no broker answered at ipc://nobody"));
    sel_test_run_done(&run);
}

/* The result has them itself. */
static void test_the_nodes_of_a_small_flow_are_told_too(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    struct sel_value end = JSON(w, 1, "run", "bad", "--wait");
    const char *id = text_in(w, &end, "flow_id");
    CLI(w, &run, 1, "result", id, "--nodes", "--query", "ipc://nobody");
    char line[128];
    (void)snprintf(line, sizeof(line), "finished  Nothing  %s-0.", id);
    assert_non_null(strstr(run.out, line));
    (void)snprintf(line, sizeof(line), "failed    Fails  %s-0.", id);
    assert_non_null(strstr(run.out, line));
    sel_test_run_done(&run);
}

static void test_many_are_counted(void **state)
{
    struct world *w = *state;
    struct sel_value answer = JSON(w, 0, "run", "mended", "--count", "200", "--wait");
    assert_json(sel_value_get_c(&answer, "submitted"), "200");
    assert_json(sel_value_get_c(&answer, "finished"), "200");
    assert_true(sel_value_num(sel_value_get_c(&answer, "flows_per_s")) > 0);
}

static void test_a_key_stands_for_one_flow(void **state)
{
    struct world *w = *state;
    struct sel_test_run run;
    CLI(w, &run, 0, "run", "mended", "--key", "once", "--wait", "--level", "commit");
    sel_test_run_done(&run);
    struct sel_value before = JSON(w, 0, "flows", "--name", "mended", "--limit", "100000");
    CLI(w, &run, 0, "run", "mended", "--key", "once", "--wait");
    sel_test_run_done(&run);
    struct sel_value after = JSON(w, 0, "flows", "--name", "mended", "--limit", "100000");
    assert_int_equal(sel_value_count(&before), sel_value_count(&after));
    CLI(w, &run, 1, "run", "bad", "--key", "once", "--wait");
    assert_non_null(strstr(run.out, " refused "));
    sel_test_run_done(&run);
}

static void test_what_is_wrong_is_named(void **state)
{
    struct world *w = *state;
    const struct {
        const char *words[8];
        int status;
        const char *says;
    } cases[] = {
        {{"run"}, 2, "FLOW"},
        {{"run", "a", "b"}, 2, "'b'"},
        {{"run", "pairs", "-n", "nodes.yaml", "-f", "flows.yaml"}, 1, "did you mean 'pair'"},
        {{"run", "pair", "-n", "nodes.yaml"}, 2, "go together"},
        {{"run", "pair", "-a", "1", "--node-args-file", "nodes.yaml"}, 1, "not both"},
        {{"run", "pair", "-j"}, 1, "needs arguments"},
        {{"run", "pair", "-j", "-a", "{"}, 1, "--node-args:1:2"},
        {{"run", "pair", "--selective-run-subsequent"}, 1, "needs --selective-task-names"},
        {{"run", "pair", "--eta", "tomorrow"}, 2, "--eta"},
        {{"wait", "me"}, 1, "'me' is no id"},
        {{"result", "me"}, 1, "'me' is no id"},
        {{"flows", "--state", "lost"}, 2, "--state"},
        {{"status", UNKNOWN}, 1, "unknown task"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_test_run run;
        run_cli(w, &run, cases[i].status, cases[i].words);
        if (!strstr(run.err, cases[i].says) || *run.out)
            fail_msg("'%s', '%s' does not say %s", run.out, run.err, cases[i].says);
        sel_test_run_done(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_a_flow_is_run_and_its_end_printed),
        cmocka_unit_test(test_a_flow_goes_to_its_queue_in_the_configuration),
        cmocka_unit_test(test_what_failed_says_why),
        cmocka_unit_test(test_a_selective_run_runs_what_leads_to_it),
        cmocka_unit_test(test_where_a_flow_is),
        cmocka_unit_test(test_flows_are_found),
        cmocka_unit_test(test_detached_work_is_waited_for_if_wanted),
        cmocka_unit_test(test_many_are_counted),
        cmocka_unit_test(test_a_key_stands_for_one_flow),
        cmocka_unit_test(test_the_nodes_of_a_small_flow_are_told_too),
        cmocka_unit_test(test_all_nodes_of_a_large_flow_are_told_after_a_kill),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
