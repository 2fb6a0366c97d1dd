/* Arbitrary bytes as what dispatchers tell each other: the first byte chooses the form. Parents and
 * flows that ended are the same once more when what was read is written and read again, and can be
 * shown. */
#include "core/arena.h"
#include "core/compile.h"
#include "worker/flow_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sel_system *the_system(void)
{
    static struct sel_system *system;
    static struct sel_predicate_world world;
    struct sel_source flows = {
        .file = "f",
        .text = SEL_STR("flow-definitions:\n  - {name: inner, edges: [{from: , to: [A, B]}]}\n"
                        "  - {name: outer, edges: [{from: , to: [A, inner]}]}\n")};
    struct sel_compile_options options = {
        .nodes = {.file = "n",
                  .text = SEL_STR("tasks: [{name: A, import: t}, {name: B, import: t}]\n"
                                  "flows: [inner, outer]\n")},
        .flows = &flows,
        .flow_count = 1,
        .world = &world};
    struct sel_arena arena = {0};
    struct sel_diag diag;
    if (system)
        return system;
    sel_diag_init(&diag, &arena);
    SEL_ASSERT(sel_compile(&options, &diag, &system) == 0);
    sel_arena_done(&arena);
    return system;
}

static void check_error(int r)
{
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT || r == SEL_ENOTFOUND || r == SEL_ELIMIT ||
               r == SEL_EVERSION);
}

static void check_parents(struct sel_str bytes)
{
    const struct sel_system *system = the_system();
    struct sel_parents *parents = NULL, *again = NULL;
    struct sel_buf first = {0}, second = {0};
    struct sel_arena arena = {0};
    struct sel_value value;
    const char *error_class, *message;
    int r = sel_flow_take_parents(system, bytes, &parents, NULL);
    check_error(r);
    if (r < 0)
        return;
    sel_flow_put_parents(system, parents, &first);
    SEL_ASSERT(sel_flow_take_parents(system, sel_buf_str(&first), &again, NULL) == 0);
    sel_flow_put_parents(system, again, &second);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&first), sel_buf_str(&second)));
    for (int failed = 0; failed < 2; failed++)
        SEL_ASSERT(sel_parents_to_value(system, again, failed, &arena, &value) == 0);
    (void)sel_parents_find_failure(again, SEL_STR("x"), &error_class, &message);
    sel_parents_unref(parents);
    sel_parents_unref(again);
    sel_buf_done(&first);
    sel_buf_done(&second);
    sel_arena_done(&arena);
}

static void check_end(struct sel_str bytes)
{
    const struct sel_system *system = the_system();
    struct sel_arena arena = {0};
    struct sel_flow_run_end end;
    struct sel_ended_flow *ended = NULL;
    struct sel_buf again = {0};
    SEL_ASSERT(sel_flow_take_end(bytes, &arena, &end) == 0);
    int r = end.ended.n ? sel_flow_take_ended(system, end.ended, &ended, NULL) : SEL_EFORMAT;
    check_error(r);
    if (r == 0)
        sel_flow_put_end(system, true, end.error_class, end.message, ended, &again);
    SEL_ASSERT(sel_flow_take_end(sel_buf_str(&again), &arena, &end) == 0);
    SEL_ASSERT(r < 0 || end.ended.n);
    sel_ended_flow_unref(ended);
    sel_buf_done(&again);
    sel_arena_done(&arena);
}

static void check_selective(struct sel_str bytes)
{
    struct sel_arena arena = {0};
    struct sel_flow_selective selective;
    struct sel_buf again = {0};
    int r = sel_flow_take_selective(bytes, &arena, &selective, NULL);
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
    if (r == 0) {
        sel_flow_put_selective(&selective, &again);
        SEL_ASSERT(sel_flow_take_selective(sel_buf_str(&again), &arena, &selective, NULL) == 0);
    }
    sel_buf_done(&again);
    sel_arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    struct sel_str bytes = {(const char *)data + 1, size - 1};
    struct sel_str rest = {NULL, 0};
    const struct sel_flow_def *flow = &the_system()->flows[0];
    switch (data[0] % 4) {
    case 0:
        check_parents(bytes);
        break;
    case 1:
        check_end(bytes);
        break;
    case 2:
        if (sel_flow_take_history(the_system(), flow, bytes, &rest, NULL) >= 0)
            SEL_ASSERT(rest.p + rest.n == bytes.p + bytes.n);
        break;
    default:
        check_selective(bytes);
        break;
    }
    return 0;
}
