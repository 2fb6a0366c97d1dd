#include "core/system.h"

#include "core/compile.h"
#include "tests/support/test.h"

static struct sel_system *compile(const char *nodes, struct sel_arena *arena)
{
    const struct sel_predicate_world world = {0};
    const struct sel_source source = {"f.yaml", sel_str_c(nodes)};
    const struct sel_compile_options options = {
        .nodes = source, .flows = &source, .flow_count = 1, .world = &world};
    struct sel_diag diag;
    struct sel_system *s = NULL;
    sel_diag_init(&diag, arena);
    if (sel_compile(&options, &diag, &s) < 0)
        fail_msg("%s", diag.first ? diag.first->text : "refused without a reason");
    return s;
}

static void test_names_are_found(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_system *s = compile("tasks:\n"
                                   "  - {name: A, import: m}\n"
                                   "  - {name: B, import: m}\n"
                                   "flows: [f, g]\n"
                                   "flow-definitions:\n"
                                   "  - {name: g, edges: [{from: null, to: A}]}\n"
                                   "  - name: f\n"
                                   "    edges:\n"
                                   "      - {from: null, to: [B, g]}\n",
                                   &arena);
    /* tasks first, then flows as listed */
    assert_int_equal(sel_system_find(s, SEL_STR("A")), 0);
    assert_int_equal(sel_system_find(s, SEL_STR("B")), 1);
    assert_int_equal(sel_system_find(s, SEL_STR("f")), 2);
    assert_int_equal(sel_system_find(s, SEL_STR("g")), 3);
    assert_int_equal(sel_system_find(s, SEL_STR("C")), SEL_NONE);
    assert_int_equal(sel_system_find(s, SEL_STR("")), SEL_NONE);

    const struct sel_flow_def *f = sel_system_find_flow(s, SEL_STR("f"));
    assert_non_null(f);
    assert_int_equal(f->index, 0);
    assert_null(sel_system_find_flow(s, SEL_STR("A")));
    assert_null(sel_system_find_flow(s, SEL_STR("C")));

    uint32_t slot = sel_system_slot(s, f, SEL_STR("g"));
    assert_true(slot < f->node_count);
    assert_int_equal(f->nodes[slot].node, 3);
    assert_int_equal(sel_system_slot(s, f, SEL_STR("A")), SEL_NONE);
    assert_int_equal(sel_system_slot(s, f, SEL_STR("C")), SEL_NONE);

    sel_system_free(s);
    sel_system_free(NULL);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
