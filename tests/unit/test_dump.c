/* sel_system_dump. The corpus (tests/conformance/inspect) has the ordinary cases; here is what it
 * does not hold. */
#include "core/compile.h"
#include "core/system.h"
#include "tests/support/test.h"

struct dumped {
    struct sel_arena arena;
    struct sel_system *system;
    struct sel_value tables;
};

static void dump(struct dumped *d, struct sel_str text)
{
    const struct sel_predicate_world world = {0};
    const struct sel_source source = {"f.yaml", text};
    const struct sel_compile_options options = {
        .nodes = source, .flows = &source, .flow_count = 1, .world = &world};
    struct sel_diag diag;
    *d = (struct dumped){0};
    sel_diag_init(&diag, &d->arena);
    if (sel_compile(&options, &diag, &d->system) < 0)
        fail_msg("%s", diag.first ? diag.first->text : "refused without a reason");
    assert_ok(sel_system_dump(&d->arena, d->system, &d->tables));
}

static void dumped_done(struct dumped *d)
{
    sel_system_free(d->system);
    sel_arena_done(&d->arena);
}

#define ODD                                                                                        \
    "tasks:\n"                                                                                     \
    "  - {name: A, import: m.a, classname: K, storage: S, max_retry: 1, retry_countdown: 5}  \n"   \
    "  - {name: B, import: m.b, storage: T}\n"                                                     \
    "flows: [f, g]\n"                                                                              \
    "storages:\n"                                                                                  \
    "  - name: S\n"                                                                                \
    "    import: s\n"                                                                              \
    "    configuration: [1, 2]\n"                                                                  \
    "    cache: {name: Remote, import: c, configuration: {host: h}}\n"                             \
    "  - {name: T, import: s, cache: {name: LRU}}\n"                                               \
    "flow-definitions:\n"                                                                          \
    "  - name: f\n"                                                                                \
    "    eager_failures: true\n"                                                                   \
    "    throttling: {milliseconds: 1}\n"                                                          \
    "    edges:\n"                                                                                 \
    "      - {from: null, to: A}\n"                                                                \
    "      - {from: A, to: g, selective: {tasks: [B], run_subsequent: [g]}}\n"                     \
    "  - {name: g, edges: [{from: null, to: B}]}\n"

static void test_unusual_options_are_shown(void **state)
{
    (void)state;
    const struct {
        const char *table, *json;
    } cases[] = {
        {"task_imports", "{\"A\":[\"m.a\",\"K\"],\"B\":[\"m.b\",\"B\"]}"},
        {"storage_imports", "{\"S\":[\"s\",\"S\"],\"T\":[\"s\",\"T\"]}"},
        {"retry_countdown", "{\"A\":5,\"B\":0,\"f\":0,\"g\":0}"},
        {"storages", "{\"S\":[\"S\",{}],\"T\":[\"T\",{}]}"},
        {"storage_cache", "{\"S\":[\"Remote\",{\"host\":\"h\"}],\"T\":[\"LRU\",0]}"},
        {"eager_failures", "{\"f\":true,\"g\":[]}"},
        {"throttle_flows", "{\"f\":0.001,\"g\":null}"},
        {"failures", "{}"},
        {"migration_dir", "null"},
    };
    struct dumped d;
    dump(&d, SEL_STR(ODD));
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_json(sel_value_get_c(&d.tables, cases[i].table), cases[i].json);
    const struct sel_value *edges = sel_value_get_c(sel_value_get_c(&d.tables, "edge_table"), "f");
    assert_json(sel_value_get_c(sel_value_at(edges, 1), "selective"),
                "{\"follow_subflows\":false,\"run_subsequent\":[\"g\"],\"task_names\":[\"B\"]}");
    dumped_done(&d);
}

static void put_names(struct sel_buf *buf, int count)
{
    for (int i = 0; i < count; i++)
        sel_buf_printf(buf, "%sT%03d", i ? ", " : "", i);
}

/* A set of many failed nodes must not become a value too deep to be written or read. */
static void test_a_long_set_of_failed_nodes_stays_shallow(void **state)
{
    (void)state;
    enum { TASKS = 700 };
    struct sel_buf buf = {0};
    sel_buf_put_c(&buf, "tasks:\n  - {name: Z, import: m}\n");
    for (int i = 0; i < TASKS; i++)
        sel_buf_printf(&buf, "  - {name: T%03d, import: m}\n", i);
    sel_buf_put_c(&buf,
                  "flows: [f]\nflow-definitions:\n  - name: f\n    edges: [{from: null, to: [");
    put_names(&buf, TASKS);
    sel_buf_put_c(&buf, "]}]\n    failures:\n      - {fallback: Z, nodes: [");
    put_names(&buf, TASKS);
    sel_buf_put_c(&buf, "]}\n      - {fallback: Z, nodes: [T000, T001]}\n");

    struct dumped d;
    dump(&d, sel_buf_str(&buf));
    const struct sel_value *at = sel_value_get_c(sel_value_get_c(&d.tables, "failures"), "f");
    uint32_t depth = 0, fallbacks = 0;
    struct sel_str last = {0};
    while (sel_value_count(at) > 0) {
        assert_int_equal(sel_value_count(at), 1);
        last = sel_value_str(sel_value_key_at(at, 0));
        const struct sel_value *entry = sel_value_val_at(at, 0);
        fallbacks += sel_value_count(sel_value_get_c(entry, "fallback"));
        at = sel_value_get_c(entry, "next");
        depth++;
    }
    assert_int_equal(depth, 64);
    assert_int_equal(fallbacks, 2);
    assert_int_equal(last.n, (TASKS - 63) * 5 - 1); /* the rest of the names, with commas */
    assert_memory_equal(last.p, "T063,T064,", 10);
    dumped_done(&d);
    sel_buf_done(&buf);
}

static int dump_once(void *system)
{
    struct sel_arena arena = {0};
    struct sel_value tables;
    int r = sel_system_dump(&arena, system, &tables);
    sel_arena_done(&arena);
    return r;
}

static void test_running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    struct dumped d;
    dump(&d, SEL_STR(ODD));
    sel_test_each_alloc_fails(dump_once, d.system);
    dumped_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unusual_options_are_shown),
        cmocka_unit_test(test_a_long_set_of_failed_nodes_stays_shallow),
        cmocka_unit_test(test_running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
