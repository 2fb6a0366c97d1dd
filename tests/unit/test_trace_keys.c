/* Every trace event has exactly the keys that tests/conformance/trace-events.md lists: over all
 * flows of the reference corpus, and over some of our own that reach what it does not. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/compile.h"
#include "core/trace.h"
#include "storage/lmdb_cache.h"
#include "tests/support/storage.h"
#include "worker/executor.h"
#include "worker/mock.h"
#include "worker/module.h"

#define TABLE "tests/conformance/trace-events.md"
#define FLOWS "tests/conformance/flows"

/* ---- the table ---- */

static const char *table_keys[SEL_TRACE_COUNT]; /* "a,b,c", sorted */
static struct sel_arena table_arena;

static struct sel_str read_file(struct sel_arena *arena, const char *path)
{
    struct sel_buf text = {0};
    char chunk[4096];
    FILE *file = fopen(path, "rb");
    if (!file)
        return (struct sel_str){NULL, 0};
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), file)) > 0;)
        sel_buf_put(&text, chunk, n);
    fclose(file);
    assert_ok(sel_buf_error(&text));
    struct sel_str copy = {sel_arena_strdup(arena, sel_buf_str(&text)), text.n};
    assert_non_null(copy.p);
    sel_buf_done(&text);
    return copy;
}

/* "`a`, `b`" to "a,b". */
static const char *keys_of_cell(struct sel_str cell)
{
    struct sel_buf keys = {0};
    bool inside = false;
    for (size_t i = 0; i < cell.n; i++) {
        if (cell.p[i] == '`') {
            inside = !inside;
            if (inside && keys.n > 0)
                sel_buf_put_c(&keys, ",");
        } else if (inside) {
            sel_buf_put(&keys, &cell.p[i], 1);
        }
    }
    const char *copy = sel_arena_strdup(&table_arena, sel_buf_str(&keys));
    assert_non_null(copy);
    sel_buf_done(&keys);
    return copy;
}

/* | number | event | level | keys | remark | */
static void read_row(const char *line)
{
    static const char *const levels[] = {
        [SEL_LEVEL_INFO] = "info", [SEL_LEVEL_WARNING] = "warning", [SEL_LEVEL_ERROR] = "error"};
    char name[64], level[16];
    int number, keys_at = 0;
    if (sscanf(line, "| %d | %63s | %15s | %n", &number, name, level, &keys_at) != 3)
        return;
    assert_in_range(number, 0, SEL_TRACE_COUNT - 1);
    assert_string_equal(sel_trace_name((uint32_t)number), name);
    assert_string_equal(levels[sel_trace_level_of((uint32_t)number)], level);
    const char *end = strchr(line + keys_at, '|');
    assert_non_null(end);
    table_keys[number] =
        keys_of_cell((struct sel_str){line + keys_at, (size_t)(end - line) - (size_t)keys_at});
}

static void read_table(void)
{
    struct sel_str text = read_file(&table_arena, TABLE);
    assert_non_null(text.p);
    for (const char *line = text.p; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        read_row(line);
    }
    /* Events that the original defines or documents but never emits, a key that it misnames, and
     * one event that is ours. */
    table_keys[SEL_TRACE_STORAGE_DISCONNECT] = "storage_name";
    table_keys[SEL_TRACE_STORAGE_RETRIEVED] = table_keys[SEL_TRACE_STORAGE_RETRIEVE];
    table_keys[SEL_TRACE_STORAGE_STORED] = table_keys[SEL_TRACE_STORAGE_STORE];
    table_keys[SEL_TRACE_EDGE_COND_FALSE] =
        "condition,condition_str,dispatcher_id,flow_name,node_args,nodes_from,nodes_to,parent,"
        "selective";
    table_keys[SEL_TRACE_TASK_DUPLICATE] = "dispatcher_id,flow_name,task_id,task_name";
    for (uint32_t i = 0; i < SEL_TRACE_COUNT; i++)
        assert_non_null(table_keys[i]);
}

/* ---- what is emitted ---- */

static uint64_t seen[SEL_TRACE_COUNT]; /* over the whole program */

struct trial {
    struct sel_arena arena;
    const char *name;
    struct sel_value script; /* case.json */
    struct sel_diag diag;
    struct sel_system *system;
    struct sel_modules *modules;
    struct sel_mock *mock;
    struct sel_buf args;
    struct sel_executor_options options;
    struct sel_executor_observer observer;
    struct sel_error err;
    int code;
    pthread_mutex_t lock;
    struct sel_buf events; /* names, one after the other, each with a space behind it */
    uint32_t differing;
    char told_id[SEL_RUN_ID_TEXT_SIZE]; /* of the node `told`, when its state was added */
};

static int by_text(const void *a, const void *b)
{
    return sel_str_cmp(*(const struct sel_str *)a, *(const struct sel_str *)b);
}

static void put_sorted_keys(const struct sel_value *details, struct sel_buf *out)
{
    struct sel_str keys[32];
    uint32_t count = sel_value_count(details);
    assert_true(count <= SEL_COUNT(keys));
    for (uint32_t i = 0; i < count; i++)
        keys[i] = sel_value_str(sel_value_key_at(details, i));
    qsort(keys, count, sizeof(*keys), by_text);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            sel_buf_put_c(out, ",");
        sel_buf_put_str(out, keys[i]);
    }
}

static void note_told(struct trial *t, const struct sel_value *details)
{
    if (sel_str_eq_c(sel_value_str(sel_value_get_c(details, "node_name")), "told"))
        (void)snprintf(t->told_id, sizeof(t->told_id), "%.*s",
                       SEL_STR_ARG(sel_value_str(sel_value_get_c(details, "node_id"))));
}

static void on_trace(void *ctx, enum sel_trace_event event, const struct sel_value *details,
                     int64_t age_us)
{
    (void)age_us;
    struct trial *t = ctx;
    struct sel_buf keys = {0};
    put_sorted_keys(details, &keys);
    pthread_mutex_lock(&t->lock);
    seen[event]++;
    if (event == SEL_TRACE_NODE_STATE_CACHE_ADD)
        note_told(t, details);
    sel_buf_put_c(&t->events, sel_trace_name(event));
    sel_buf_put_c(&t->events, " ");
    if (strcmp(sel_buf_cstr(&keys), table_keys[event]) != 0) {
        if (t->differing++ == 0)
            print_error("%s: %s\n  has      %s\n  expected %s\n", t->name, sel_trace_name(event),
                        sel_buf_cstr(&keys), table_keys[event]);
    }
    pthread_mutex_unlock(&t->lock);
    sel_buf_done(&keys);
}

static void quiet(void *ctx, enum sel_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

/* ---- running ---- */

static const char *case_getenv(void *ctx, const char *name)
{
    struct trial *t = ctx;
    const struct sel_value *value = sel_value_get_c(sel_value_get_c(&t->script, "env"), name);
    return value ? sel_arena_strdup(&t->arena, sel_value_str(value)) : getenv(name);
}

static int compile(struct trial *t, struct sel_str nodes, struct sel_str flow)
{
    const struct sel_predicate_world world = {case_getenv, t};
    struct sel_source flows = {"flows.yaml", flow};
    struct sel_compile_options options = {
        .nodes = {"nodes.yaml", nodes}, .flows = &flows, .flow_count = 1, .world = &world};
    sel_diag_init(&t->diag, &t->arena);
    return sel_compile(&options, &t->diag, &t->system);
}

/* Nodes and flows in one text. */
static void compile_ok(struct trial *t, const char *yaml)
{
    if (compile(t, sel_str_c(yaml), sel_str_c(yaml)) == 0)
        return;
    for (const struct sel_diag_item *d = t->diag.first; d; d = d->next)
        if (!d->is_warning)
            fail_msg("%s: %u: %s", t->name, d->pos.line, d->text);
    fail_msg("%s: refused without a reason", t->name);
}

static struct trial *new_trial(const char *name)
{
    struct trial *t = SEL_NEW(struct trial);
    assert_non_null(t);
    t->name = name;
    pthread_mutex_init(&t->lock, NULL);
    t->observer = (struct sel_executor_observer){.ctx = t, .trace = on_trace};
    t->options = (struct sel_executor_options){.threads = 2,
                                               .virtual_time = true,
                                               .ignore_sampling = true,
                                               .getenv = case_getenv,
                                               .getenv_ctx = t,
                                               .observer = &t->observer,
                                               .flow_name = SEL_STR("main"),
                                               .log = quiet};
    return t;
}

static void run(struct trial *t)
{
    struct sel_executor *executor = NULL;
    const struct sel_executor_report *report;
    t->options.system = t->system;
    t->options.mock = t->mock;
    t->options.modules = t->modules;
    t->options.node_args = sel_buf_str(&t->args);
    t->code = sel_executor_new(&t->options, &executor, &t->err);
    if (t->code == 0)
        t->code = sel_executor_run(executor, &report, &t->err);
    sel_executor_free(executor);
}

static void free_trial(struct trial *t)
{
    sel_mock_free(t->mock);
    sel_modules_free(t->modules);
    sel_system_free(t->system);
    sel_buf_done(&t->args);
    sel_buf_done(&t->events);
    sel_arena_done(&t->arena);
    pthread_mutex_destroy(&t->lock);
    sel_mem_free(t);
}

/* ---- the corpus ---- */

static void fill_request(struct trial *t, const struct sel_value *v,
                         struct sel_selective_request *request)
{
    const struct sel_value *tasks = sel_value_get_c(v, "tasks");
    uint32_t count = sel_value_count(tasks);
    struct sel_str *names = SEL_ARENA_NEW_ARRAY(&t->arena, struct sel_str, (size_t)count + 1);
    assert_non_null(names);
    for (uint32_t i = 0; i < count; i++)
        names[i] = sel_value_str(sel_value_at(tasks, i));
    *request = (struct sel_selective_request){
        .tasks = names,
        .task_count = count,
        .follow_subflows = sel_value_is_true(sel_value_get_c(v, "follow_subflows")),
        .run_subsequent = sel_value_is_true(sel_value_get_c(v, "run_subsequent"))};
    t->options.selective = request;
}

static void fill_presets(struct trial *t)
{
    const struct sel_value *list = sel_value_get_c(&t->script, "preset");
    uint32_t count = sel_value_is(list, SEL_LIST) ? sel_value_count(list) : 0;
    struct sel_executor_preset *presets =
        SEL_ARENA_NEW_ARRAY(&t->arena, struct sel_executor_preset, (size_t)count + 1);
    assert_non_null(presets);
    for (uint32_t i = 0; i < count; i++) {
        const struct sel_value *v = sel_value_at(list, i);
        presets[i] = (struct sel_executor_preset){
            .id = sel_arena_strdup(&t->arena, sel_value_str(sel_value_get_c(v, "id"))),
            .task = sel_value_str(sel_value_get_c(v, "task")),
            .result = *sel_value_get_c(v, "result")};
    }
    t->options.presets = presets;
    t->options.preset_count = count;
}

/* In the folder of the case; true: it ran. */
static bool run_case(struct trial *t)
{
    struct sel_selective_request request;
    t->script = sel_test_json(&t->arena, read_file(&t->arena, "case.json").p);
    if (compile(t, read_file(&t->arena, "nodes.yaml"), read_file(&t->arena, "flows.yaml")) < 0)
        return false;
    const struct sel_value *selective = sel_value_get_c(&t->script, "selective");
    const struct sel_value *args = sel_value_get_c(&t->script, "node_args");
    const struct sel_value *mock = sel_value_get_c(&t->script, "mock");
    assert_ok(sel_mock_new(t->system, mock ? mock : &sel_value_null, &t->mock, &t->err));
    sel_value_encode(args ? args : &sel_value_null, &t->args);
    t->options.flow_name = sel_value_str(sel_value_get_c(&t->script, "flow"));
    if (sel_value_is(selective, SEL_MAP))
        fill_request(t, selective, &request);
    fill_presets(t);
    run(t);
    return t->code == 0;
}

static void test_all_flows_of_the_corpus(void **state)
{
    (void)state;
    int back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = opendir(FLOWS);
    uint32_t ran = 0, differing = 0;
    assert_true(back >= 0);
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.' || e->d_type == DT_REG)
            continue;
        struct trial *t = new_trial(e->d_name);
        assert_int_equal(fchdir(dirfd(dir)), 0);
        assert_int_equal(chdir(e->d_name), 0);
        ran += run_case(t);
        assert_int_equal(fchdir(back), 0);
        differing += t->differing;
        free_trial(t);
    }
    closedir(dir);
    close(back);
    assert_true(ran > 100);
    assert_int_equal(differing, 0);
}

/* ---- what the corpus does not reach ---- */

/* Runs flow `main` with the code of tests/modules. */
static struct trial *run_yaml(const char *name, const char *yaml)
{
    struct trial *t = new_trial(name);
    t->modules = sel_modules_new(SEL_TEST_MODULES);
    assert_non_null(t->modules);
    compile_ok(t, yaml);
    run(t);
    return t;
}

/* The events of `t` whose names begin so, in their order. */
static const char *events_of(struct trial *t, const char *prefix)
{
    struct sel_buf out = {0};
    const char *text = sel_buf_cstr(&t->events);
    for (const char *at = text, *end; (end = strchr(at, ' ')); at = end + 1) {
        struct sel_str name = {at, (size_t)(end - at)};
        if (name.n < strlen(prefix) || memcmp(at, prefix, strlen(prefix)) != 0)
            continue;
        sel_buf_printf(&out, "%s%.*s", out.n ? " " : "", (int)(name.n - strlen(prefix)),
                       at + strlen(prefix));
    }
    const char *copy = sel_arena_strdup(&t->arena, sel_buf_str(&out));
    assert_non_null(copy);
    sel_buf_done(&out);
    return copy;
}

#define SEVEN "{name: a, import: caches, classname: Seven, storage: S}"
#define MEMORY "name: S, import: selinon.storages.memory, classname: InMemoryStorage"

static void test_results_go_through_their_cache(void **state)
{
    (void)state;
    static const char flow[] = "flows: [main]\n"
                               "flow-definitions:\n"
                               "  - name: main\n"
                               "    edges:\n"
                               "      - {from: , to: a}\n"
                               "      - {from: a, to: b, condition: {name: isInt}}\n"
                               "      - {from: a, to: b, condition: {name: isList}}\n"
                               "      - {from: [a, b], to: c, condition: {name: isStr, node: a}}\n";
    static const char b_and_c[] = ", {name: b, import: caches, classname: Seven},"
                                  " {name: c, import: caches, classname: Seven}]\n";
    const struct {
        const char *tasks, *storages, *events;
    } cases[] = {
        {"[" SEVEN, "[{" MEMORY ", cache: {configuration: {max_cache_size: 4}}}]\n",
         "GET MISS ADD GET HIT ADD"},
        {"[" SEVEN, "[{" MEMORY ", cache: {name: Keeps, import: caches}}]\n",
         "GET MISS ADD GET HIT ADD"},
        {"[" SEVEN, "[{" MEMORY ", cache: {name: Away, import: caches}}]\n",
         "GET ISSUE ADD ISSUE GET ISSUE ADD ISSUE"},
        {"[{name: a, import: caches, classname: Seven, storage: S,"
         " cache: {name: Keeps, import: caches}}",
         "[{" MEMORY ", cache: {name: Away, import: caches}}]\n", "GET MISS ADD GET HIT ADD"},
        {"[" SEVEN, "[{" MEMORY "}]\n", ""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char yaml[2048];
        (void)snprintf(yaml, sizeof(yaml), "tasks: %s%sstorages: %s%s", cases[i].tasks, b_and_c,
                       cases[i].storages, flow);
        struct trial *t = run_yaml("results", yaml);
        assert_ok(t->code);
        assert_string_equal(events_of(t, "TASK_RESULT_CACHE_"), cases[i].events);
        assert_int_equal(t->differing, 0);
        free_trial(t);
    }
}

static void test_states_go_through_the_cache_of_their_flow(void **state)
{
    (void)state;
    static const char yaml[] = "tasks:\n"
                               "  - {name: a, import: caches, classname: Seven}\n"
                               "  - {name: b, import: caches, classname: Seven}\n"
                               "flows: [main, plain, told]\n"
                               "flow-definitions:\n"
                               "  - name: main\n"
                               "    cache: {name: %s, import: %s, %s}\n"
                               "    propagate_finished: told\n"
                               "    edges:\n"
                               "      - {from: , to: a}\n"
                               "      - {from: a, to: plain}\n"
                               "      - {from: plain, to: told}\n"
                               "      - {from: told, to: b}\n"
                               "  - {name: plain, edges: [{from: , to: a}]}\n"
                               "  - {name: told, edges: [{from: , to: a}]}\n";
    const struct {
        const char *name, *import, *config, *events;
    } cases[] = {
        {"LRU", "selinon.caches", "configuration: {max_cache_size: 9}", "ADD ADD GET MISS ADD ADD"},
        {"Away", "caches", "configuration: {}",
         "ADD ISSUE ADD ISSUE GET ISSUE ADD ISSUE ADD ISSUE"},
        {"LRU", "selinon.caches", "configuration: {max_cache_size: 0}", ""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char text[2048];
        (void)snprintf(text, sizeof(text), yaml, cases[i].name, cases[i].import, cases[i].config);
        struct trial *t = run_yaml("states", text);
        assert_ok(t->code);
        assert_string_equal(events_of(t, "NODE_STATE_CACHE_"), cases[i].events);
        assert_int_equal(t->differing, 0);
        free_trial(t);
    }
}

static void note_warning(void *ctx, enum sel_log_level level, const char *line)
{
    const char **ret = ctx;
    if (level == SEL_LOG_WARNING && strstr(line, "which failed"))
        *ret = "failed";
    if (level == SEL_LOG_WARNING && strstr(line, "has no result"))
        *ret = "missing";
}

/* Between two runs: checks, or adds, the item of `id`. */
static void look_into(const char *path, const char *id, const char *expected, const char *added)
{
    struct sel_arena arena = {0};
    struct sel_lmdb_cache *cache;
    struct sel_str item;
    struct sel_value config, value;
    config = sel_test_json(
        &arena, sel_arena_printf(&arena, "{\"path\": \"%s\", \"max_cache_size\": 9}", path));
    const struct sel_storage_options options = {.config = &config};
    assert_ok(sel_lmdb_cache_open(&options, &cache, NULL));
    if (expected) {
        assert_code(sel_lmdb_cache_get(cache, &arena, sel_str_c(id), &item, NULL), 1);
        assert_ok(sel_value_decode(&arena, item.p, item.n, true, &value, NULL));
        assert_json(&value, expected);
    }
    if (added) {
        struct sel_buf bytes = {0};
        value = sel_test_json(&arena, added);
        sel_value_encode(&value, &bytes);
        assert_ok(sel_lmdb_cache_add(cache, sel_str_c(id), sel_buf_str(&bytes), NULL));
        sel_buf_done(&bytes);
    }
    sel_lmdb_cache_close(cache);
    sel_arena_done(&arena);
}

/* The cache lives in LMDB: a later run knows what an earlier one has looked up. */
static void test_the_state_of_a_reused_run_is_looked_up(void **state)
{
    static const char yaml[] =
        "tasks:\n"
        "  - {name: a, import: caches, classname: Seven, storage: S,\n"
        "     selective_run_function: {import: caches, function: old_run}}\n"
        "  - {name: b, import: caches, classname: Seven}\n"
        "storages: [{" MEMORY "}]\n"
        "flows: [main]\n"
        "flow-definitions:\n"
        "  - name: main\n"
        "    cache: {name: LMDB, configuration: {path: %s/%s, max_cache_size: 9}}\n"
        "    edges: [{from: , to: a}, {from: a, to: b}]\n";
    const struct {
        const char *folder;
        bool is_stored;
        const char *events, *warning;
    } cases[] = {
        {"one", false, "GET MISS ADD", "missing"},
        {"one", true, "GET MISS ADD ADD", NULL},
        {"one", false, "GET HIT ADD", NULL},
        {"two", true, "GET HIT ADD", "failed"},
    };
    struct sel_str task = SEL_STR("b");
    const struct sel_selective_request request = {.tasks = &task, .task_count = 1};
    const struct sel_executor_preset preset = {"an-old-run", SEL_STR("a"), sel_value_null};
    char one[PATH_MAX], two[PATH_MAX];
    (void)snprintf(one, sizeof(one), "%s/one", (char *)*state);
    (void)snprintf(two, sizeof(two), "%s/two", (char *)*state);
    look_into(two, "an-old-run", NULL, "{\"state\": \"failed\"}");
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        char text[2048];
        const char *warning = NULL;
        (void)snprintf(text, sizeof(text), yaml, (char *)*state, cases[i].folder);
        struct trial *t = new_trial("reuse");
        t->modules = sel_modules_new(SEL_TEST_MODULES);
        compile_ok(t, text);
        t->options.selective = &request;
        t->options.presets = &preset;
        t->options.preset_count = cases[i].is_stored;
        t->options.log = note_warning;
        t->options.log_ctx = &warning;
        run(t);
        assert_ok(t->code);
        assert_string_equal(events_of(t, "NODE_STATE_CACHE_"), cases[i].events);
        assert_string_equal(events_of(t, "SELECTIVE_TASK_"), "REUSE");
        assert_string_equal(warning ? warning : "", cases[i].warning ? cases[i].warning : "");
        assert_int_equal(t->differing, 0);
        free_trial(t);
    }
    look_into(one, "an-old-run", "{\"state\":\"finished\"}", NULL);
}

static void test_the_state_of_a_sub_flow_says_what_ran_in_it(void **state)
{
    static const char yaml[] =
        "tasks: [{name: a, import: caches, classname: Seven},"
        " {name: b, import: good, classname: Greet}, {name: c, import: caches, classname: Seven}]\n"
        "flows: [main, told]\n"
        "flow-definitions:\n"
        "  - name: main\n"
        "    cache: {name: LMDB, configuration: {path: %s/cache, max_cache_size: 9}}\n"
        "    propagate_failures: true\n"
        "    edges: [{from: , to: told}]\n"
        "    failures: [{nodes: told, fallback: c}]\n"
        "  - {name: told, edges: [{from: , to: a}, {from: a, to: b}]}\n";
    struct sel_arena arena = {0};
    char *text = sel_arena_printf(&arena, yaml, (char *)*state);
    struct trial *t = run_yaml("sub-flow", text);
    assert_ok(t->code);
    assert_string_equal(events_of(t, "NODE_STATE_CACHE_"), "GET MISS ADD ADD");
    look_into(sel_arena_printf(&arena, "%s/cache", (char *)*state), t->told_id,
              sel_arena_printf(&arena,
                               "{\"failed_nodes\":{\"b\":[\"%s-0.1\"]},"
                               "\"finished_nodes\":{\"a\":[\"%s-0.0\"]},\"state\":\"failed\"}",
                               t->told_id, t->told_id),
              NULL);
    assert_int_equal(t->differing, 0);
    free_trial(t);
    sel_arena_done(&arena);
}

static void test_a_cache_that_is_missing_shows_at_the_start(void **state)
{
    (void)state;
    static const char *const caches[] = {"{name: Nothing, import: no.such}",
                                         "{name: Redis, import: selinon.caches.redis}",
                                         "{name: Nothing}"};
    static const char *const places[][3] = {
        {"cache: ", "", ""}, {"", "cache: ", ""}, {"", "", "cache: "}};
    for (size_t i = 0; i < SEL_COUNT(caches) * SEL_COUNT(places) * 2; i++) {
        const char *const *place = places[i / 2 % 3], *cache = caches[i / 6];
        char text[2048];
        (void)snprintf(text, sizeof(text),
                       "tasks: [{name: a, import: caches, classname: Seven, storage: S, %s%s}]\n"
                       "storages: [{" MEMORY ", %s%s}]\n"
                       "flows: [main]\n"
                       "flow-definitions: [{name: main, edges: [{from: , to: a}], %s%s}]\n",
                       place[0], place[0][0] ? cache : "", place[1], place[1][0] ? cache : "",
                       place[2], place[2][0] ? cache : "");
        struct trial *t = new_trial("missing");
        bool is_mock = i % 2;
        t->modules = sel_modules_new(SEL_TEST_MODULES);
        compile_ok(t, text);
        t->script = sel_test_json(&t->arena, "{}");
        if (is_mock)
            assert_ok(sel_mock_new(t->system, &t->script, &t->mock, &t->err));
        run(t);
        int missing = strstr(cache, "Redis") ? SEL_EUNSUPPORTED : SEL_ENOTFOUND;
        assert_code(t->code, is_mock ? 0 : missing);
        assert_true(is_mock || t->err.pos.line > 0);
        free_trial(t);
    }
}

static bool stop_at_once(void *ctx)
{
    (void)ctx;
    return true;
}

static void test_a_cancel_reaches_a_cache_that_hangs(void **state)
{
    (void)state;
    static const char *const caches[][2] = {{"cache: {name: Hangs, import: caches}", ""},
                                            {"", "cache: {name: Hangs, import: caches}"}};
    for (size_t i = 0; i < SEL_COUNT(caches); i++) {
        char text[2048];
        (void)snprintf(text, sizeof(text),
                       "tasks: [" SEVEN "]\n"
                       "storages: [{" MEMORY ", %s}]\n"
                       "flows: [main]\n"
                       "flow-definitions: [{name: main, edges: [{from: , to: a},"
                       " {from: a, to: a, condition: {name: isNone}}], %s}]\n",
                       caches[i][0], caches[i][1]);
        struct trial *t = new_trial("hanging");
        t->modules = sel_modules_new(SEL_TEST_MODULES);
        t->options.should_stop = stop_at_once;
        compile_ok(t, text);
        run(t);
        assert_ok(t->code);
        assert_string_equal(events_of(t, "FLOW_END"), "");
        assert_int_equal(t->differing, 0);
        free_trial(t);
    }
}

static void test_the_rest(void **state)
{
    static const char *const yamls[] = {
        /* a record kept by hand */
        "tasks: [{name: a, import: caches, classname: KeepsByHand, storage: S}]\n"
        "storages: [{" MEMORY "}]\n"
        "flows: [main]\n"
        "flow-definitions: [{name: main, edges: [{from: , to: a}]}]\n",
        /* errors are kept */
        "tasks: [{name: a, import: good, classname: Greet, storage: S}]\n"
        "storages: [{name: S, import: selinon.storages.lmdb, classname: LMDB,"
        " configuration: {path: %s}}]\n"
        "flows: [main]\n"
        "flow-definitions: [{name: main, edges: [{from: , to: a}]}]\n",
        /* a function of the flow that fails */
        "tasks: [{name: a, import: caches, classname: Seven}]\n"
        "flows: [main]\n"
        "flow-definitions:\n"
        "  - {name: main, edges: [{from: , to: a, foreach: {import: trouble,"
        " function: retries}}]}\n",
        /* a storage that is away, in a decision and in a task */
        "tasks: [{name: a, import: caches, classname: Seven, storage: S},"
        " {name: b, import: caches, classname: KeepsByHand, storage: S}]\n"
        "storages: [{name: S, import: trouble, classname: Away}]\n"
        "flows: [main]\n"
        "flow-definitions:\n"
        "  - {name: main, edges: [{from: , to: [a, b]},"
        " {from: a, to: a, condition: {name: isNone}}]}\n",
        /* which a reused result is looked for in, too */
        "tasks: [{name: a, import: caches, classname: Seven, storage: S,"
        " selective_run_function: {import: caches, function: old_run}},"
        " {name: b, import: caches, classname: Seven}]\n"
        "storages: [{name: S, import: trouble, classname: Away}]\n"
        "flows: [main]\n"
        "flow-definitions:\n"
        "  - {name: main, cache: {configuration: {max_cache_size: 1}},"
        " edges: [{from: , to: a}, {from: a, to: b}]}\n",
    };
    struct sel_str task = SEL_STR("b");
    const struct sel_selective_request request = {.tasks = &task, .task_count = 1};
    for (size_t i = 0; i < SEL_COUNT(yamls); i++) {
        char text[2048];
        struct trial *t = new_trial("the rest");
        t->modules = sel_modules_new(SEL_TEST_MODULES);
        const char *folder = strstr(yamls[i], "%s");
        (void)snprintf(text, sizeof(text), "%.*s%s%s",
                       (int)(folder ? folder - yamls[i] : (ptrdiff_t)strlen(yamls[i])), yamls[i],
                       folder ? (char *)*state : "", folder ? folder + 2 : "");
        compile_ok(t, text);
        if (strstr(yamls[i], "old_run"))
            t->options.selective = &request;
        run(t);
        if (t->code < 0)
            fail_msg("%zu: %s", i, t->err.text);
        assert_int_equal(t->differing, 0);
        free_trial(t);
    }
}

/* A test that sees nothing finds nothing wrong. */
static void test_no_event_was_missed(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SEL_TRACE_COUNT; i++) {
        bool is_later = (i >= SEL_TRACE_MIGRATION && i <= SEL_TRACE_MIGRATION_ERROR) ||
                        i == SEL_TRACE_TASK_DUPLICATE; /* one process delivers nothing twice */
        if (!is_later && seen[i] == 0)
            print_error("%s was not seen\n", sel_trace_name(i));
        if (!is_later)
            assert_true(seen[i] > 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    read_table();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sel_arena_done(&table_arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_flows_of_the_corpus),
        cmocka_unit_test(test_results_go_through_their_cache),
        cmocka_unit_test(test_states_go_through_the_cache_of_their_flow),
        with_folder(test_the_state_of_a_reused_run_is_looked_up),
        with_folder(test_the_state_of_a_sub_flow_says_what_ran_in_it),
        cmocka_unit_test(test_a_cache_that_is_missing_shows_at_the_start),
        cmocka_unit_test(test_a_cancel_reaches_a_cache_that_hangs),
        with_folder(test_the_rest),
        cmocka_unit_test(test_no_event_was_missed), /* the last one */
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
