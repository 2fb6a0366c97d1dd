/* Whatever parses is written, parsed again and must be the same; sorted text is written the same
 * again; what has no text in JSON does not come from JSON. Values also survive msgpack. */
#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_json(struct sel_arena *arena, const struct sel_value *value, unsigned flags)
{
    struct sel_buf first = {0}, second = {0};
    struct sel_value again;
    struct sel_diag diag;
    sel_diag_init(&diag, arena);
    sel_json_write(value, flags, &first);
    SEL_ASSERT(sel_buf_error(&first) == 0);
    SEL_ASSERT(sel_json_parse(arena, NULL, sel_buf_str(&first), &again, &diag, NULL) == 0);
    SEL_ASSERT(diag.warning_count == 0); /* duplicates were merged at first */
    SEL_ASSERT(sel_value_same(value, &again));
    sel_json_write(&again, flags, &second);
    SEL_ASSERT(sel_str_eq(sel_buf_str(&first), sel_buf_str(&second)));
    sel_buf_done(&first);
    sel_buf_done(&second);
}

static void check_msgpack(struct sel_arena *arena, const struct sel_value *value)
{
    struct sel_buf bytes = {0};
    struct sel_value again;
    sel_value_encode(value, &bytes);
    SEL_ASSERT(sel_buf_error(&bytes) == 0);
    SEL_ASSERT(sel_value_decode(arena, bytes.p, bytes.n, true, &again, NULL) == 0);
    SEL_ASSERT(sel_value_same(value, &again));
    SEL_ASSERT(sel_value_equal(value, &again)); /* no NaN comes from JSON */
    sel_buf_done(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sel_arena arena = {0};
    struct sel_value value;
    struct sel_error err;
    struct sel_diag diag;
    struct sel_str text = {(const char *)data, size};
    sel_diag_init(&diag, &arena);
    int r = sel_json_parse(&arena, "fuzz.json", text, &value, &diag, &err);
    SEL_ASSERT(r == 0 || r == SEL_ESYNTAX || r == SEL_ERANGE || r == SEL_ELIMIT);
    SEL_ASSERT(diag.error_count == 0);
    if (r == 0) {
        check_json(&arena, &value, 0);
        check_json(&arena, &value, SEL_JSON_SORT | SEL_JSON_ASCII);
        check_json(&arena, &value, SEL_JSON_PRETTY);
        check_msgpack(&arena, &value);
    } else {
        SEL_ASSERT(err.code == r && err.text[0]);
        SEL_ASSERT(err.pos.line >= 1 && err.pos.col >= 1);
    }
    sel_arena_done(&arena);
    return 0;
}
