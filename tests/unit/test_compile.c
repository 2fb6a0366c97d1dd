#include "tests/support/test.h"

#include <stdio.h>

#include "core/compile.h"

/* ---- compiling small texts ---- */

struct run {
    struct sel_arena arena;
    struct sel_diag diag;
    struct sel_system *system;
    int result;
};

static const char *fake_getenv(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "STAGE") == 0 ? "test" : NULL;
}

static const struct sel_predicate_world world = {fake_getenv, NULL};

static void compile_with(struct run *run, const char *nodes, const char *flows,
                         const struct sel_compile_options *base)
{
    struct sel_source source = {"f.yaml", sel_str_c(flows)};
    struct sel_compile_options options = base ? *base : (struct sel_compile_options){0};
    options.nodes = (struct sel_source){"n.yaml", sel_str_c(nodes)};
    options.flows = &source;
    options.flow_count = 1;
    options.world = &world;
    *run = (struct run){0};
    sel_diag_init(&run->diag, &run->arena);
    run->result = sel_compile(&options, &run->diag, &run->system);
}

static void done(struct run *run)
{
    sel_system_free(run->system);
    sel_arena_done(&run->arena);
}

/* All messages, a line each: "f.yaml:1:2: text". */
static const char *messages(struct run *run)
{
    const char *text = "";
    for (const struct sel_diag_item *i = run->diag.first; i; i = i->next) {
        text = sel_arena_printf(&run->arena, "%s%s:%u:%u: %s%s\n", text, i->pos.file, i->pos.line,
                                i->pos.col, i->is_warning ? "warning: " : "", i->text);
        assert_non_null(text);
    }
    return text;
}

/* Tasks A (stored), B, C, D and flows f, g; a column of a line below is that of this text. */
#define STORAGES "storages: [{name: S, import: m, configuration: {x: 1}}]\n"
#define TASKS                                                                                      \
    "tasks:\n- {name: A, import: m, storage: S}\n- {name: B, import: m}\n"                         \
    "- {name: C, import: m}\n- {name: D, import: m}\n"
#define NODES STORAGES TASKS "flows: [f, g]\n"
#define FLOW_G "- {name: g, edges: [{from: , to: C}, {from: C, to: D}]}\n"
/* Flow f is what a test is about; its text begins in line 3. */
#define FLOW_F "flow-definitions:\n" FLOW_G "- name: f\n"
#define EDGES "  edges: [{from: , to: A}, {from: A, to: B}, {from: B, to: g}]\n"

static void compile(struct run *run, const char *nodes, const char *flows)
{
    compile_with(run, nodes, flows, NULL);
}

static const struct sel_flow_def *flow_of(const struct run *run, const char *name)
{
    if (run->result < 0)
        fail_msg("%s", messages((struct run *)(uintptr_t)run));
    const struct sel_flow_def *flow = sel_system_find_flow(run->system, sel_str_c(name));
    assert_non_null(flow);
    return flow;
}

/* The names of slots, "A B g". */
static const char *slot_names(struct run *run, const struct sel_flow_def *flow,
                              const uint32_t *slots, uint32_t count)
{
    const char *text = "";
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = flow->nodes[slots ? slots[i] : i].node;
        text = sel_arena_printf(&run->arena, "%s%s%s", text, i ? " " : "",
                                sel_system_node_name(run->system, node).p);
        assert_non_null(text);
    }
    return text;
}

/* ---- errors ---- */

static void test_all_errors_of_a_configuration_are_told_in_one_run(void **state)
{
    (void)state;
    struct run run;
    compile(&run,
            "tasks:\n"
            "- {name: Fetch, import: web, storage: Box, max_retry: -1}\n"
            "- {name: 2nd, import: web}\n"
            "- {name: Store, import: 5, quee: fast}\n"
            "flows: [main, main]\n"
            "storages:\n"
            "- {name: Box, import: m}\n"
            "- {name: Box, import: m}\n",
            "flow-definitions:\n"
            "- name: main\n"
            "  edges:\n"
            "  - {from: , to: Ftech}\n"
            "  - {from: Fetch}\n"
            "  - {from: Fetch, to: Store, condition: {name: fieldEqual, args: {key: a}}}\n"
            "- name: mian\n"
            "  edges: []\n");
    assert_code(run.result, SEL_ECONFIG);
    assert_null(run.system);
    assert_string_equal(
        messages(&run),
        "n.yaml:2:55: `max_retry` must be a whole number of 0 or more; got the number -1\n"
        "n.yaml:3:10: the name of a task must be letters, digits and _, and not begin with a "
        "digit; got the text '2nd'\n"
        "n.yaml:4:25: a task needs `import`, the module of its code; got the number 5\n"
        "n.yaml:4:28: unknown key 'quee' in a task; did you mean 'queue'?\n"
        "n.yaml:5:15: flow 'main' is declared twice, first as a flow in line 5; tasks and flows "
        "share their names\n"
        "n.yaml:8:10: storage 'Box' is declared twice, first in line 7\n"
        "f.yaml:4:18: task or flow 'Ftech' is not declared; did you mean 'Fetch'?\n"
        "f.yaml:5:5: an edge needs `to`, the task or flow that it starts; got nothing\n"
        "f.yaml:6:66: the predicate 'fieldEqual' needs the argument 'value'; it takes key, value\n"
        "f.yaml:7:9: flow 'mian' is not declared; did you mean 'main'?\n"
        "f.yaml:8:10: a flow needs `edges`, a list of edges; got an empty list\n");
    done(&run);
}

struct fault {
    const char *text;  /* what follows the name of flow f, or the nodes file */
    const char *place; /* the one error begins so */
    const char *part;  /* and has this in it */
};

/* The texts have one error each. */
static void check_faults(const struct fault *faults, size_t count, bool in_nodes)
{
    for (size_t i = 0; i < count; i++) {
        struct run run;
        char text[2048];
        snprintf(text, sizeof(text), "%s%s", in_nodes ? NODES : FLOW_F, faults[i].text);
        compile(&run, in_nodes ? text : NODES, in_nodes ? FLOW_F EDGES : text);
        const char *all = messages(&run);
        if (run.result != SEL_ECONFIG || run.diag.error_count != 1 ||
            !strstr(all, faults[i].place) || !strstr(all, faults[i].part))
            fail_msg("%s\nexpected: %s ... %s\ngot:\n%s", text, faults[i].place, faults[i].part,
                     all);
        done(&run);
    }
}

static void test_faults_of_a_flow_have_their_place(void **state)
{
    (void)state;
    const struct fault faults[] = {
        {"  edges: [{from: , to: Z}]\n", "f.yaml:4:24:", "'Z' is not declared"},
        {"  edges: [{from: , to: yes}]\n", "f.yaml:4:24:", "quote it"},
        {"  edges: [{from: , to: A}, {from: [A, A], to: B}]\n", "f.yaml:4:39:", "twice in `from`"},
        {"  edges: [{from: A, to: A}]\n", "f.yaml:4:3:", "no edge starts the flow 'f'"},
        {"  edges: [{from: , to: A}, {from: B, to: A}]\n", "f.yaml:4:35:", "never starts it"},
        {"  edges: [{from: , to: A, form: B}]\n", "f.yaml:4:27:", "did you mean 'from'"},
        {"  edges: [{from: , to: A, condition: {name: fieldExists}}]\n",
         "f.yaml:4:45:", "did you mean 'fieldExist'"},
        {"  edges: [{from: , to: A, condition: {nam: empty}}]\n",
         "f.yaml:4:39:", "did you mean 'name'"},
        {"  edges: [{from: , to: A, condition: {name: envExist, args: {env: 5}}}]\n",
         "f.yaml:4:67:", "the number 5"},
        {"  edges: [{from: , to: A, condition: {and: []}}]\n",
         "f.yaml:4:44:", "`and` needs a list"},
        {"  edges: [{from: , to: [A, B]},\n    {from: [A, B], to: C, condition: {name: empty}}]\n",
         "f.yaml:5:38:", "say which with `node`"},
        {"  edges: [{from: , to: B}, {from: B, to: C, condition: {name: empty}}]\n",
         "f.yaml:4:56:", "give the task a `storage`"},
        {"  edges: [{from: , to: g, foreach: {import: m}}]\n", "f.yaml:4:36:", "`function`"},
        {"  edges: [{from: , to: B, selective: {tasks: [A]}}]\n", "f.yaml:4:24:", "'B' is a task"},
        {EDGES "  nowiat: A\n", "f.yaml:5:3:", "did you mean 'nowait'"},
        {EDGES "  nowait: A\n", "f.yaml:5:11:", "waits for it"},
        {EDGES "  eager_failures: [C]\n", "f.yaml:5:20:", "no such node"},
        {EDGES "  failures: {nodes: A, fallback: false}\n", "f.yaml:5:34:", "the boolean false"},
        {EDGES "  failures: [{nodes: [A, A], fallback: B}]\n", "f.yaml:5:22:", "stands twice"},
        {EDGES "  failures: [{nodes: A, fallback: A}]\n", "f.yaml:5:35:", "its own fallback"},
        {EDGES "  failures: [{nodes: A, fallback: B, condition: {name: isDict}}]\n",
         "f.yaml:5:49:", "a failed task has none"},
        {EDGES "  propagate_parent: A\n", "f.yaml:5:21:", "'A' is a task"},
        {"  edges: [{from: , to: g}, {from: g, to: A}]\n  propagate_finished: g\n"
         "  propagate_compound_finished: true\n",
         "f.yaml:6:32:", "exclude each other"},
        {EDGES "  node_args_from_first: 1\n", "f.yaml:5:25:", "true or false"},
        {EDGES "  sampling: {name: constnat}\n", "f.yaml:5:20:", "did you mean 'constant'"},
        {EDGES "  sampling: {name: constant, args: {retry: x}}\n", "f.yaml:5:44:", "a number"},
        {EDGES "  sampling: {name: constant, args: }\n", "f.yaml:5:36:", "`args`"},
        {EDGES "  throttling: {second: 1}\n", "f.yaml:5:16:", "did you mean 'seconds'"},
        {EDGES "  throttling: {seconds: -1}\n", "f.yaml:5:25:", "the number -1"},
        {EDGES "  queue: '{NOPE}'\n", "f.yaml:5:10:", "'NOPE' is not set"},
        {EDGES "  retry_countdown: 1.5\n", "f.yaml:5:20:", "whole number"},
        {EDGES "  cache: LRU\n", "f.yaml:5:10:", "must be a mapping"},
    };
    check_faults(faults, SEL_COUNT(faults), false);
}

static void test_faults_of_the_nodes_file_have_their_place(void **state)
{
    (void)state;
    const struct fault faults[] = {
        {"global: {trace: }\n", "n.yaml:8:17:", "`trace` is empty"},
        {"global: {trace: [{storage: {name: T}}]}\n", "n.yaml:8:35:", "storage 'T'"},
        {"global: {trace: [{function: {name: f}}]}\n", "n.yaml:8:29:", "`import`"},
        {"global: {default_queue: q}\n", "n.yaml:8:10:", "known are predicates_module"},
        {"global: {default_task_queue: }\n", "n.yaml:8:30:", "must be a text"},
        {"global: {migration_dir: '{NOPE}'}\n", "n.yaml:8:25:", "'NOPE' is not set"},
        {"global: 5\n", "n.yaml:8:9:", "`global` must be a mapping"},
    };
    check_faults(faults, SEL_COUNT(faults), true);
}

static void test_own_task_keys_are_checked(void **state)
{
    (void)state;
    const struct {
        const char *task, *message;
    } cases[] = {
        {"{name: A, import: exec, command: [sort, -n], timeout: 1.5}", ""},
        {"{name: A, import: m, blocking: true, cache: {name: LRU}}", ""},
        {"{name: A, import: m, storage_read_only: false}", ""},
        {"{name: A, import: exec}", "n.yaml:1:9: a task with `import: exec` needs `command`"},
        {"{name: A, import: exec, command: []}", "n.yaml:1:42: `command` must be a list"},
        {"{name: A, import: exec, command: sort}", "n.yaml:1:42: `command` must be a list"},
        {"{name: A, import: exec, command: [sort, 1]}", "n.yaml:1:49: `command` must hold texts"},
        {"{name: A, import: m, command: [sort]}", "n.yaml:1:30: `command` needs `import: exec`"},
        {"{name: A, import: m, timeout: 1}", "n.yaml:1:30: `timeout` needs `import: exec`"},
        {"{name: A, import: exec, command: [x], timeout: 0}", "n.yaml:1:56: `timeout` must be"},
        {"{name: A, import: m, blocking: 1}", "n.yaml:1:40: `blocking` must be true or false"},
        {"{name: A, import: m, priority: 1}", "n.yaml:1:30: unknown key 'priority'"},
        {"{name: A, import: m, storage_readonly: true, storage_read_only: true}",
         "n.yaml:1:30: `storage_readonly` and `storage_read_only` are the same option"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct run run;
        char nodes[512];
        snprintf(nodes, sizeof(nodes), "tasks: [%s]\nflows: [f]\n", cases[i].task);
        compile(&run, nodes, "flow-definitions: [{name: f, edges: [{from: , to: A}]}]\n");
        if (strncmp(messages(&run), cases[i].message, strlen(cases[i].message)) != 0 ||
            (run.result == 0) != (cases[i].message[0] == '\0'))
            fail_msg("%s: got '%s'", nodes, messages(&run));
        done(&run);
    }
}

static void test_files_that_are_no_configuration_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *nodes, *flows;
    } cases[] = {
        {"", "flow-definitions: []"},
        {"[]", "flow-definitions: []"},
        {"5", "flow-definitions: []"},
        {"tasks: []\nflows: [", "flow-definitions: []"},
        {"tasks: []\nflows: []", ""},
        {"tasks: []\nflows: []", "x"},
        {"tasks: []\nflows: []", "flow-definitions: 5"},
        {"tasks: []\nflows: []", "flow-definitions: {a: 1}"},
        {"tasks: []\nflows: abc", "flow-definitions: []"},
        {"tasks: []\nflows: [f]", "flow-definitions: []"},
        {"tasks: []\nflows: []\nstorages:", "flow-definitions: []"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct run run;
        compile(&run, cases[i].nodes, cases[i].flows);
        assert_code(run.result, SEL_ECONFIG);
        assert_true(run.diag.error_count > 0);
        done(&run);
    }
}

static void test_unknown_names_say_nothing_when_their_section_is_broken(void **state)
{
    (void)state;
    struct run run;
    compile(&run, "tasks: 5\nflows: [f]\n",
            "flow-definitions: [{name: f, edges: [{from: , to: A}]}]\n");
    assert_string_equal(messages(&run),
                        "n.yaml:1:8: `tasks` must be a list of tasks; got the number 5\n");
    done(&run);
}

/* ---- warnings ---- */

static void test_odd_configurations_are_warned_about(void **state)
{
    (void)state;
    const struct {
        const char *nodes, *flows, *message;
    } cases[] = {
        {NODES "notes: 1\n", FLOW_F EDGES, "n.yaml:8:1: warning: ignored: unknown key 'notes'"},
        {NODES, FLOW_F "  edges: [{from: , to: A}]\n",
         "n.yaml:4:10: warning: no flow runs the task 'B'"},
        {"storages: [{name: T, import: m}]\n" TASKS "flows: [f, g]\n", FLOW_F EDGES,
         "storage 'S' is not declared"},
        {STORAGES "tasks:\n- {name: A, import: m}\nflows: [f]\n",
         "flow-definitions: [{name: f, edges: [{from: , to: A}]}]\n",
         "n.yaml:1:19: warning: no task uses the storage 'S'"},
        {"tasks: [{name: A, import: m, retry_countdown: 5}]\nflows: [f]\n",
         "flow-definitions: [{name: f, edges: [{from: , to: A}]}]\n",
         "n.yaml:1:30: warning: `retry_countdown` has no effect"},
        {"tasks: [{name: A, import: m, classname: X, max_retry: 1},\n"
         "  {name: B, import: m, classname: X, output_schema: s}]\nflows: [f]\n",
         "flow-definitions: [{name: f, edges: [{from: , to: [A, B]}]}]\n",
         "n.yaml:2:3: warning: tasks 'A' and 'B' are of one class ('X'), but have different "
         "`max_retry`: 1 and 0"},
        {NODES, FLOW_F "  edges: [{from: , to: A}, {from: g, to: B}]\n",
         "f.yaml:4:35: warning: nothing ever starts 'g' in this flow"},
        {NODES, FLOW_F "  edges: [{from: , to: A}, {from: g, to: B}]\n",
         "f.yaml:4:28: warning: this edge can never fire: nothing ever starts 'g'"},
        {NODES,
         FLOW_F "  edges: [{from: , to: A}, {from: A, to: B, condition: {name: alwaysFalse}}]",
         "f.yaml:4:28: warning: this edge can never fire: its condition is always false"},
        {NODES, FLOW_F "  edges: [{from: , to: A}, {from: A, to: B}, {from: B, to: [C, A]}]\n",
         "warning: the flow never ends: A -> B -> A goes round without a condition"},
        {NODES, FLOW_F "  edges: [{from: , to: f}]\n",
         "n.yaml:7:9: warning: the flow starts itself without a condition, so that it never "
         "ends: f -> f"},
        {NODES, FLOW_F "  edges: [{from: , to: g, selective: {tasks: [A, C, Z]}}]\n",
         "f.yaml:4:47: warning: selective runs of this edge fail: no edge of 'g' starts 'A'"},
        {NODES, FLOW_F "  edges: [{from: , to: g, selective: {tasks: [A, C, Z]}}]\n",
         "f.yaml:4:53: warning: selective runs of this edge fail: task 'Z' is not declared"},
        {NODES, FLOW_F "  edges: [{from: , to: g}, {from: g, to: f}]\n  propagate_finished: g\n",
         "f.yaml:5:23: warning: what 'g' finished is not passed on to 'f'"},
        {STORAGES TASKS "flows: [f, g, e]\n",
         FLOW_F "  edges: [{from: , to: e}, {from: e, to: A}]\n  propagate_finished: e\n"
                "- {name: e, edges: [{from: , to: e, condition: {name: argsEmpty}}]}\n",
         "f.yaml:5:23: warning: the flow 'e' has no tasks"},
        {NODES, FLOW_F EDGES "  cache: {name: LUR}\n",
         "f.yaml:5:10: warning: selinon.caches has no cache 'LUR'; did you mean 'LRU'?"},
        {NODES, FLOW_F "  edges: [{from: , to: g, foreach: {import: m, function: f, x: 1}}]\n",
         "f.yaml:4:61: warning: ignored: unknown key 'x' in `foreach`"},
        {NODES "global: {trace: [{logging: maybe}]}\n", FLOW_F EDGES,
         "n.yaml:8:28: warning: trace `logging` should be true or false"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct run run;
        compile(&run, cases[i].nodes, cases[i].flows);
        if (!strstr(messages(&run), cases[i].message))
            fail_msg("%s%s\nexpected: %s\ngot:\n%s", cases[i].nodes, cases[i].flows,
                     cases[i].message, messages(&run));
        done(&run);
    }
}

static void test_a_sound_configuration_has_no_warnings(void **state)
{
    (void)state;
    struct run run;
    compile(&run, NODES,
            FLOW_F "  edges: [{from: , to: A}, {from: A, to: B}, {from: B, to: g},\n"
                   "    {from: g, to: A, condition: {name: argsFieldExist, args: {key: again}}}]\n"
                   "  failures: [{nodes: A, fallback: D}]\n");
    assert_string_equal(messages(&run), "");
    assert_code(run.result, 0);
    done(&run);
}

/* ---- the compiled flow ---- */

static void test_slots_follow_the_first_mention(void **state)
{
    (void)state;
    struct run run;
    compile(&run, NODES,
            FLOW_F "  edges: [{from: , to: [B, A]}, {from: [A, B], to: [g, g]}]\n"
                   "  failures: [{nodes: A, fallback: D}]\n"
                   "  nowait: [D]\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    assert_string_equal(slot_names(&run, f, NULL, f->node_count), "B A g D");
    assert_int_equal(f->start_edge_count, 1);
    assert_int_equal(f->start_edges[0], 0);
    assert_string_equal(slot_names(&run, f, f->edges[1].from, f->edges[1].from_count), "A B");
    assert_string_equal(slot_names(&run, f, f->edges[1].to, f->edges[1].to_count), "g g");
    assert_string_equal(f->edges[1].cond_text, "True");
    const struct sel_flow_node *b = &f->nodes[0];
    assert_int_equal(b->out_edge_count, 1);
    assert_int_equal(b->out_edges[0], 1);
    assert_int_equal(b->out_pos[0], 1); /* B is the second in `from` */
    assert_int_equal(sel_system_slot(run.system, f, SEL_STR("g")), 2);
    assert_true(f->nodes[3].nowait);
    done(&run);
}

static void test_choices_are_ordered_and_equal_sets_are_one(void **state)
{
    (void)state;
    struct run run;
    compile(&run, NODES,
            FLOW_F "  edges: [{from: , to: [A, B, C]}]\n"
                   "  failures:\n"
                   "  - {nodes: [C], fallback: D}\n"
                   "  - {nodes: [C, A], fallback: D, propagate_failure: true}\n"
                   "  - {nodes: [B, A], fallback: g}\n"
                   "  - {nodes: [A, C], fallback: [g, D], condition: {name: argsEmpty}}\n"
                   "  - {nodes: [C, B, A], fallback: true}\n"
                   "  - {nodes: A, fallback: D}\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    const char *sets[] = {"A B C", "A B", "A C", "A", "C"};
    assert_int_equal(f->choice_count, SEL_COUNT(sets));
    for (uint32_t i = 0; i < f->choice_count; i++)
        assert_string_equal(slot_names(&run, f, f->choices[i].failed, f->choices[i].failed_count),
                            sets[i]);
    assert_int_equal(f->choices[0].fallbacks[0].node_count, 0); /* true */
    const struct sel_choice_def *ac = &f->choices[2];
    assert_int_equal(ac->fallback_count, 2);
    assert_true(ac->fallbacks[0].propagate_failure);
    assert_string_equal(slot_names(&run, f, ac->fallbacks[0].nodes, ac->fallbacks[0].node_count),
                        "D");
    assert_string_equal(slot_names(&run, f, ac->fallbacks[1].nodes, ac->fallbacks[1].node_count),
                        "g D");
    assert_string_equal(ac->fallbacks[1].cond_text, "argsEmpty()");
    const struct sel_flow_node *c = &f->nodes[sel_system_slot(run.system, f, SEL_STR("C"))];
    assert_int_equal(c->choice_count, 3);
    assert_int_equal(c->choices[0], 0);
    assert_int_equal(c->choices[1], 2);
    assert_int_equal(c->choices[2], 4);
    done(&run);
}

static void test_flags_are_resolved_for_each_node(void **state)
{
    (void)state;
    struct run run;
    compile(&run, STORAGES TASKS "flows: [f, g, h]\n",
            FLOW_F "  edges: [{from: , to: [A, g, h]}, {from: [g, h], to: g}, {from: , to: D}]\n"
                   "  nowait: D\n  eager_failures: true\n  propagate_parent: true\n"
                   "  propagate_finished: g\n  propagate_compound_finished: [h]\n"
                   "  propagate_node_args: [g, f]\n"
                   "- {name: h, edges: [{from: , to: B}]}\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    const struct sel_flow_node *a = &f->nodes[0], *g = &f->nodes[1], *h = &f->nodes[2],
                               *d = &f->nodes[3];
    assert_true(a->eager && g->eager && h->eager);
    assert_false(d->eager); /* nobody learns of the failure of a nowait node */
    assert_true(d->nowait && f->eager_all);
    assert_true(g->propagate_parent && h->propagate_parent);
    assert_false(a->propagate_parent); /* a task */
    assert_true(g->propagate_finished && !h->propagate_finished);
    assert_true(h->propagate_compound_finished && !g->propagate_compound_finished);
    assert_true(g->propagate_node_args && !h->propagate_node_args);
    assert_int_equal(f->propagate_node_args.flow_count, 2); /* as written */
    done(&run);
}

static void test_options_are_read(void **state)
{
    (void)state;
    struct run run;
    compile(&run,
            STORAGES "tasks:\n"
                     "- {name: A, import: m, classname: X, storage: S, max_retry: 3,\n"
                     "   retry_countdown: 7, queue: '{STAGE}_q', storage_task_name: T,\n"
                     "   throttling: {seconds: 0.5, milliseconds: 2},\n"
                     "   selective_run_function: {function: fresh, import: mine}}\n"
                     "- {name: B, import: exec, command: [wc, -l], timeout: 2}\n"
                     "flows: [f]\n"
                     "global: {default_task_queue: tq, default_dispatcher_queue: 'd{{}}',\n"
                     "  migration_dir: 'm/{STAGE}', trace: [{json: true}, {logging: true},\n"
                     "  {storage: {name: S}}, {json: false}]}\n",
            "flow-definitions:\n"
            "- name: f\n"
            "  edges:\n"
            "  - {from: , to: A}\n"
            "  - {from: A, to: B, foreach: {import: m, function: each}}\n"
            "  cache: {}\n  sampling: {name: linear_adapt}\n  max_retry: 0x10\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    const struct sel_task_def *a = sel_system_task(run.system, 0);
    assert_str_is(a->import.name, "X");
    assert_int_equal(a->max_retry, 3);
    assert_int_equal(a->retry_countdown_us, 7000000);
    assert_str_is(a->queue, "test_q");
    assert_str_is(a->storage_task_name, "T");
    assert_int_equal(a->throttle_us, 502000);
    assert_str_is(a->selective_run_function.name, "fresh");
    const struct sel_task_def *b = sel_system_task(run.system, 1);
    assert_str_is(b->queue, "tq");
    assert_int_equal(b->storage, SEL_NONE);
    assert_int_equal(b->command_count, 2);
    assert_str_is(b->command[1], "-l");
    assert_int_equal(b->timeout_us, 2000000);
    assert_str_is(f->queue, "d{}");
    assert_str_is(run.system->migration_dir, "m/test");
    assert_int_equal(f->max_retry, 16);
    assert_str_is(f->cache.import.name, "LRU");
    assert_json(&f->cache.config, "{\"max_cache_size\":0}");
    assert_json(&f->sampling_args, "{\"max_retry\":120,\"start_retry\":2,\"step\":1}");
    assert_string_equal(f->edges[1].foreach->text, "foreach m.each");
    assert_int_equal(run.system->trace_count, 2); /* json is off in the end */
    assert_int_equal(run.system->traces[0].kind, SEL_TRACE_LOGGING);
    assert_int_equal(run.system->traces[1].kind, SEL_TRACE_STORAGE);
    assert_str_is(run.system->traces[1].method, "trace");
    done(&run);
}

static void test_conditions_know_their_sources(void **state)
{
    (void)state;
    struct run run;
    compile(&run,
            STORAGES "tasks: [{name: A, import: m, storage: S}, {name: B, import: m, "
                     "storage: S}]\nflows: [f]\n",
            "flow-definitions:\n"
            "- name: f\n"
            "  edges:\n"
            "  - {from: , to: [A, B]}\n"
            "  - from: [B, A]\n"
            "    to: A\n"
            "    condition: {or: [{name: fieldEqual, node: A, args: {value: 1, key: [a, b]}},\n"
            "                     {not: {name: argsEmpty}}]}\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    const struct sel_cond *cond = f->edges[1].cond;
    assert_int_equal(cond->op, SEL_COND_OR);
    const struct sel_cond *leaf = cond->children[0];
    assert_int_equal(leaf->from_index, 1);
    assert_str_is(leaf->node, "A");
    assert_json(leaf->arg_values[0], "[\"a\",\"b\"]"); /* key first, however it is written */
    assert_json(leaf->arg_values[1], "1");
    assert_int_equal(cond->children[1]->children[0]->from_index, SEL_COND_NO_NODE);
    assert_string_equal(f->edges[1].cond_text,
                        "(fieldEqual(db.get('A'), value=1, key=['a', 'b']) or (not argsEmpty()))");
    done(&run);
}

/* ---- options of the compiler ---- */

static void test_no_check_skips_consistency_and_stays_safe(void **state)
{
    (void)state;
    const struct sel_compile_options options = {.no_check = true};
    struct run run;
    compile_with(&run, NODES,
                 FLOW_F "  edges: [{from: [A, A, B], to: [A, C], condition: {name: fieldEqual, "
                        "node: A}}]\n  nowait: D\n",
                 &options);
    const struct sel_flow_def *f = flow_of(&run, "f");
    assert_string_equal(messages(&run), "");
    assert_int_equal(f->start_edge_count, 0);
    assert_string_equal(slot_names(&run, f, f->edges[0].from, f->edges[0].from_count), "A B");
    assert_null(f->edges[0].cond->arg_values[0]);
    done(&run);
    compile_with(&run, NODES, FLOW_F "  edges: [{from: , to: Z}]\n", &options);
    assert_code(run.result, SEL_ECONFIG); /* names are no matter of consistency */
    done(&run);
}

static int user_predicate(void *ctx, struct sel_str module, struct sel_str name,
                          enum sel_predicate_input *ret_input, const char *const **ret_args,
                          uint32_t *ret_arg_count)
{
    static const char *const args[] = {"limit"};
    (void)ctx;
    assert_str_is(module, "mine");
    if (sel_str_eq_c(name, "dark"))
        return SEL_EUNSUPPORTED;
    if (!sel_str_eq_c(name, "heavy"))
        return SEL_ENOTFOUND;
    *ret_input = SEL_INPUT_MESSAGE;
    *ret_args = args;
    *ret_arg_count = 1;
    return 0;
}

static int user_sampling(void *ctx, struct sel_str module, struct sel_str name,
                         const char *const **ret_args, uint32_t *ret_arg_count)
{
    static const char *const args[] = {"pace"};
    (void)ctx;
    assert_str_is(module, "mine");
    *ret_args = args;
    *ret_arg_count = 1;
    return sel_str_eq_c(name, "calm") ? 0 : SEL_ENOTFOUND;
}

static void test_functions_of_modules_are_checked_if_they_can_be_seen(void **state)
{
    (void)state;
    const struct sel_compile_user user = {NULL, user_predicate, user_sampling};
    const struct sel_compile_options options = {.user = &user};
    const struct {
        const char *edge, *sampling, *message; /* of the module's author; NULL: fine */
    } cases[] = {
        {"{name: heavy, args: {limit: 5}}", "{name: calm, import: mine, args: {pace: 1}}", NULL},
        {"{name: dark, args: {any: 5}}", "{name: calm, import: mine, args: {pace: fast}}", NULL},
        {"{name: heavy}", "", "needs the argument 'limit'"},
        {"{name: heavy, args: {limit: 1, x: 1}}", "", "no argument 'x'"},
        {"{name: light}", "", "the module 'mine' has no predicate 'light'"},
        {"{name: dark}", "{name: wild, import: mine}", "has no sampling 'wild'"},
        {"{name: dark}", "{name: calm, import: mine, args: {}}", "needs the argument 'pace'"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct run run;
        char flows[512];
        snprintf(flows, sizeof(flows),
                 FLOW_F "  edges: [{from: , to: A}, {from: A, to: B, condition: %s}]\n"
                        "  sampling: %s\n",
                 cases[i].edge, cases[i].sampling);
        compile_with(&run, NODES "global: {predicates_module: mine}\n", flows, &options);
        if (cases[i].message ? !strstr(messages(&run), cases[i].message) : run.result != 0)
            fail_msg("%s: got '%s'", flows, messages(&run));
        done(&run);
    }
}

static void test_functions_of_unseen_modules_are_accepted(void **state)
{
    (void)state;
    struct run run;
    compile(&run, NODES "global: {predicates_module: mine}\n",
            FLOW_F "  edges: [{from: , to: A, condition: {name: p}},\n"
                   "    {from: A, to: B, condition: {name: p, args: {x: 1}}},\n"
                   "    {from: B, to: D, condition: {name: p}}]\n"
                   "  sampling: {name: s, import: mine}\n");
    const struct sel_flow_def *f = flow_of(&run, "f");
    assert_int_equal(f->edges[0].cond->input, SEL_INPUT_ARGS);
    assert_int_equal(f->edges[1].cond->input, SEL_INPUT_MESSAGE); /* A is stored */
    assert_int_equal(f->edges[2].cond->input, SEL_INPUT_ARGS);
    assert_null(f->edges[1].cond->builtin);
    assert_json(&f->edges[1].cond->args, "{\"x\":1}");
    assert_json(&f->sampling_args, "{}");
    done(&run);
}

static void test_one_file_may_hold_everything(void **state)
{
    (void)state;
    static const char text[] = "tasks: [{name: A, import: m}]\nflows: [f]\n"
                               "flow-definitions: [{name: f, edges: [{from: , to: A}]}]\n";
    struct sel_source source = {"all.yaml", SEL_STR(text)};
    struct sel_compile_options options = {.nodes = source, .flows = &source, .flow_count = 1};
    struct run run = {0};
    sel_diag_init(&run.diag, &run.arena);
    assert_ok(sel_compile(&options, &run.diag, &run.system));
    assert_string_equal(messages(&run), "");
    assert_string_equal(run.system->tasks[0].pos.file, "all.yaml");
    assert_ptr_not_equal(run.system->tasks[0].pos.file, source.file); /* the system's own */
    done(&run);
}

/* ---- memory ---- */

static int compile_once(void *ctx)
{
    (void)ctx;
    struct run run;
    compile(&run,
            STORAGES "tasks: [{name: A, import: m, storage: S, cache: {}}, {name: B, import: m}]\n"
                     "flows: [f]\nglobal: {trace: [{logging: true}]}\n",
            "flow-definitions:\n- name: f\n"
            "  edges: [{from: , to: A}, {from: A, to: [B, f], condition: {name: isDict}},\n"
            "    {from: B, to: B}, {from: f, to: A}]\n"
            "  failures: [{nodes: [A, B], fallback: true}]\n"
            "  propagate_finished: f\n  sampling: {name: constant}\n  nowait: []\n");
    int r = run.result;
    done(&run);
    return r;
}

static void test_running_out_of_memory_is_told(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(compile_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_errors_of_a_configuration_are_told_in_one_run),
        cmocka_unit_test(test_faults_of_a_flow_have_their_place),
        cmocka_unit_test(test_faults_of_the_nodes_file_have_their_place),
        cmocka_unit_test(test_own_task_keys_are_checked),
        cmocka_unit_test(test_files_that_are_no_configuration_are_refused),
        cmocka_unit_test(test_unknown_names_say_nothing_when_their_section_is_broken),
        cmocka_unit_test(test_odd_configurations_are_warned_about),
        cmocka_unit_test(test_a_sound_configuration_has_no_warnings),
        cmocka_unit_test(test_slots_follow_the_first_mention),
        cmocka_unit_test(test_choices_are_ordered_and_equal_sets_are_one),
        cmocka_unit_test(test_flags_are_resolved_for_each_node),
        cmocka_unit_test(test_options_are_read),
        cmocka_unit_test(test_conditions_know_their_sources),
        cmocka_unit_test(test_no_check_skips_consistency_and_stays_safe),
        cmocka_unit_test(test_functions_of_modules_are_checked_if_they_can_be_seen),
        cmocka_unit_test(test_functions_of_unseen_modules_are_accepted),
        cmocka_unit_test(test_one_file_may_hold_everything),
        cmocka_unit_test(test_running_out_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
