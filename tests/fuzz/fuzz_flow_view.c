/* Arbitrary bytes as answers of a broker about a flow: `flow`, `flow.runs` and `flow.history`, each
 * behind its length of two bytes. What is made of them is printed and becomes a value. */
#include "cli/flow_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANSWERS_MAX 64

struct input {
    const uint8_t *p;
    size_t n;
};

static struct sel_value next_answer(struct input *input, struct sel_arena *arena)
{
    struct sel_value value;
    size_t size = input->n >= 2 ? (size_t)input->p[0] | (size_t)input->p[1] << 8 : 0;
    size_t head = input->n < 2 ? input->n : 2;
    input->p += head;
    input->n -= head;
    size = size < input->n ? size : input->n;
    const uint8_t *p = input->p;
    input->p += size;
    input->n -= size;
    return sel_value_decode(arena, p, size, false, &value, NULL) < 0 ? sel_value_null : value;
}

static void show(struct sel_flow_view *view)
{
    struct sel_buf out = {0};
    struct sel_value all;
    int r = sel_flow_view_end(view);
    SEL_ASSERT(r == 0);
    r = sel_flow_view_print(view, INT64_C(1800000000000000), 20, &out);
    SEL_ASSERT(r == 0);
    r = sel_flow_view_to_value(view, INT64_C(1800000000000000), &all);
    SEL_ASSERT(r == 0 && sel_value_is(&all, SEL_MAP));
    SEL_ASSERT(view->has_state == (view->state.slots != NULL) || view->problem);
    sel_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_arena arena = {0};
    struct sel_flow_view view;
    struct input input = {data, size};
    int64_t next;
    struct sel_value head = next_answer(&input, &arena);
    int r = sel_flow_view_init(&view, &arena, &head);
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
    if (r == 0) {
        struct sel_value runs = next_answer(&input, &arena);
        r = sel_flow_view_add_runs(&view, &runs, &next);
        SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
        for (int i = 0; i < ANSWERS_MAX && input.n > 0; i++) {
            struct sel_value history = next_answer(&input, &arena);
            r = sel_flow_view_add_history(&view, &history, &next);
            SEL_ASSERT(r == 0 || r == SEL_EFORMAT);
        }
        show(&view);
    }
    sel_flow_view_done(&view);
    sel_arena_done(&arena);
    return 0;
}
