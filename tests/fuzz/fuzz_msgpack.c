/* Whatever decodes is encoded, decoded again and must be the same; what is encoded once is in the
 * shortest form, so encoding it again gives the same bytes. */
#include "core/arena.h"
#include "core/buf.h"
#include "core/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory beside the input: far above what decoding may need, far below what a wrong count asks for.
 */
#define MEMORY_MAX(size) (65536 + 256 * (size))

static void check_again(struct sel_arena *arena, const struct sel_value *value)
{
    struct sel_buf first = {0}, second = {0};
    struct sel_value again, copy;
    sel_value_encode(value, &first);
    SEL_ASSERT(sel_buf_error(&first) == 0);
    SEL_ASSERT(sel_value_decode(arena, first.p, first.n, false, &again, NULL) == 0);
    SEL_ASSERT(sel_value_copy(arena, &again, &copy) == 0);
    SEL_ASSERT(sel_value_same(value, &again));
    SEL_ASSERT(sel_value_same(&copy, value));
    sel_value_encode(&copy, &second);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&first), sel_buf_str(&second)));
    sel_buf_done(&first);
    sel_buf_done(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_arena arena;
    struct sel_value value, copied;
    struct sel_error err;
    sel_arena_init(&arena, MEMORY_MAX(size));
    int r = sel_value_decode(&arena, data, size, false, &value, &err);
    int r_copied = sel_value_decode(&arena, data, size, true, &copied, NULL);
    SEL_ASSERT(r == r_copied);
    SEL_ASSERT(r == 0 || r == SEL_EFORMAT || r == SEL_ELIMIT);
    if (r == 0) {
        SEL_ASSERT(sel_value_same(&value, &copied));
        check_again(&arena, &value);
    } else {
        SEL_ASSERT(err.code == r && err.text[0]);
    }
    sel_arena_done(&arena);
    return 0;
}
