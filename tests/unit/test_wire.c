#include <dirent.h>
#include <stdio.h>

#include "tests/support/wire_json.h"

#include "core/prng.h"
#include "proto/le.h"
#include "proto/wire.h"

#define VECTORS "proto/vectors"
#define VECTORS_MIN 130 /* fewer: they were not found */

/* ---- the vectors ---- */

static struct sel_value read_json(struct sel_arena *arena, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: cannot be opened", path);
    struct sel_buf text = {0};
    size_t n;
    do {
        assert_true(sel_buf_reserve(&text, 4096));
        n = fread(text.p + text.n, 1, 4096, file);
        text.n += n;
    } while (n);
    (void)fclose(file); /* only read */
    const char *copy = sel_arena_strdup(arena, sel_buf_str(&text));
    sel_buf_done(&text);
    return sel_test_json(arena, copy);
}

/* Calls fn for each vector; `path` is for messages. */
static void each_vector(void (*fn)(const char *path, struct sel_arena *arena,
                                   const struct sel_value *vector))
{
    DIR *folder = opendir(VECTORS);
    assert_non_null(folder);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[512];
        if (!strstr(entry->d_name, ".json"))
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", VECTORS, entry->d_name);
        struct sel_arena arena = {0};
        struct sel_value vector = read_json(&arena, path);
        fn(path, &arena, &vector);
        sel_arena_done(&arena);
        count++;
    }
    (void)closedir(folder); /* only read */
    assert_true(count >= VECTORS_MIN);
}

/* The frame in memory of its exact size, so that a sanitizer sees each byte read beyond it. */
static struct sel_str frame_of(struct sel_arena *arena, const struct sel_value *vector)
{
    struct sel_str frame = sel_test_unhex(arena, sel_value_str(sel_value_get_c(vector, "hex")));
    char *exact = sel_mem_alloc(frame.n ? frame.n : 1);
    assert_non_null(exact);
    memcpy(exact, frame.p, frame.n);
    return (struct sel_str){exact, frame.n};
}

static void check_decodes(const char *path, struct sel_arena *arena, const struct sel_value *vector)
{
    const struct sel_value *expected = sel_value_get_c(vector, "json");
    if (!expected)
        return;
    struct sel_str frame = frame_of(arena, vector);
    struct sel_value value;
    uint32_t record;
    int r = sel_test_wire_to_json(arena, frame, &value, &record);
    if (r < 0)
        fail_msg("%s: %s, record %u", path, sel_error_name(r), record);
    if (!sel_value_same(&value, expected))
        fail_msg("%s:\ngot:      %s\nexpected: %s", path, sel_test_json_text(arena, &value),
                 sel_test_json_text(arena, expected));
    sel_mem_free((void *)(uintptr_t)frame.p);
}

static void check_encodes(const char *path, struct sel_arena *arena, const struct sel_value *vector)
{
    const struct sel_value *json = sel_value_get_c(vector, "json");
    if (!json || sel_value_get_c(vector, "decode_only"))
        return;
    struct sel_buf buf = {0};
    sel_test_wire_from_json(arena, json, &buf);
    assert_ok(sel_buf_error(&buf));
    struct sel_str expected = sel_test_unhex(arena, sel_value_str(sel_value_get_c(vector, "hex")));
    if (!sel_str_eq(sel_buf_str(&buf), expected))
        fail_msg("%s: encodes to other bytes", path);
    sel_buf_done(&buf);
}

static void check_refused(const char *path, struct sel_arena *arena, const struct sel_value *vector)
{
    const struct sel_value *refused = sel_value_get_c(vector, "refused");
    const struct sel_value *number = sel_value_get_c(vector, "record");
    if (!refused)
        return;
    struct sel_str frame = frame_of(arena, vector);
    struct sel_value value;
    uint32_t record;
    int r = sel_test_wire_to_json(arena, frame, &value, &record);
    if (r == 0)
        fail_msg("%s: was taken", path);
    const char *name = sel_wire_code_name(sel_wire_code_of(r));
    if (!sel_str_eq_c(sel_value_str(refused), name))
        fail_msg("%s: refused as '%s' (%s)", path, name, sel_error_name(r));
    if (record != (number ? number->o.via.u64 : 0))
        fail_msg("%s: it is record %u", path, record);
    sel_mem_free((void *)(uintptr_t)frame.p);
}

/* Whatever is cut off a frame, it is refused and nothing beyond it is read. */
static void check_prefixes(const char *path, struct sel_arena *arena,
                           const struct sel_value *vector)
{
    struct sel_str whole = sel_test_unhex(arena, sel_value_str(sel_value_get_c(vector, "hex")));
    if (!sel_value_get_c(vector, "json") || whole.n > 1000)
        return;
    for (size_t n = 0; n < whole.n; n++) {
        struct sel_arena memory = {0};
        struct sel_value value;
        uint32_t record;
        char *exact = sel_mem_alloc(n ? n : 1);
        memcpy(exact, whole.p, n);
        if (sel_test_wire_to_json(&memory, (struct sel_str){exact, n}, &value, &record) == 0)
            fail_msg("%s: taken with %zu of %zu bytes", path, n, whole.n);
        sel_mem_free(exact);
        sel_arena_done(&memory);
    }
}

static void test_vectors_decode(void **state)
{
    (void)state;
    each_vector(check_decodes);
}

static void test_vectors_encode(void **state)
{
    (void)state;
    each_vector(check_encodes);
}

static void test_vectors_are_refused_with_their_code(void **state)
{
    (void)state;
    each_vector(check_refused);
}

static void test_cut_frames_are_refused(void **state)
{
    (void)state;
    each_vector(check_prefixes);
}

/* ---- records ---- */

static const struct sel_wire_item submit = {
    .type = SEL_RECORD_SUBMIT,
    .id = {1, 2},
    .queue = 1,
    .priority = SEL_WIRE_PRIORITY,
    .task = {"echo", 4},
    .payload = {"\x90", 1},
};

static void test_both_forms_of_fields_give_the_same_bytes(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value json = sel_test_json(
        &arena, "{\"type\": \"SUBMIT\", \"id\": \"0198f3c2-7b1c-7001-8000-4a0000000007\", "
                "\"queue\": 1, \"fields\": {\"task\": \"t\", \"countdown\": 5, "
                "\"not_before\": -5, \"idempotency_key\": \"k\", "
                "\"content_type\": \"c\"}}");
    struct sel_buf buf[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        struct sel_wire_item item = sel_test_item_from_json(&arena, &json, i == 1);
        assert_int_equal(item.fields.n > 0, i == 1);
        sel_wire_encode_item(&item, &buf[i]);
        assert_int_equal(buf[i].n, sel_wire_item_size(&item));
    }
    assert_true(sel_str_eq(sel_buf_str(&buf[0]), sel_buf_str(&buf[1])));
    sel_buf_done(&buf[0]);
    sel_buf_done(&buf[1]);
    sel_arena_done(&arena);
}

static void test_what_is_over_a_limit_is_not_encoded(void **state)
{
    (void)state;
    static char large[SEL_WIRE_RECORD_MAX + 1];
    struct sel_wire_item items[4] = {submit, submit, submit, submit};
    items[0].payload = (struct sel_str){large, sizeof(large)};
    items[1].task = (struct sel_str){large, SEL_WIRE_NAME_MAX + 1};
    items[2].fields = (struct sel_str){large, sizeof(large)};
    items[3].idempotency_key = (struct sel_str){large, SEL_WIRE_NAME_MAX + 1};
    for (size_t i = 0; i < SEL_COUNT(items); i++) {
        struct sel_buf buf = {0};
        assert_int_equal(sel_wire_item_size(&items[i]), 0);
        sel_wire_encode_item(&items[i], &buf);
        assert_code(sel_buf_error(&buf), SEL_ELIMIT);
        sel_buf_done(&buf);
    }
}

/* A DATA of `count` records of `size` bytes each, which may be more than is allowed. */
static int decode_large(uint32_t count, uint32_t size)
{
    struct sel_buf buf = {0}, one = {0};
    struct sel_wire_writer writer;
    struct sel_wire_head head = {.first = 1};
    struct sel_str records;
    sel_wire_encode_item(&submit, &one);
    assert_true(sel_buf_reserve(&one, size));
    memset(one.p + one.n, 0, size - one.n);
    one.n = size;
    sel_le_put32(one.p, size);
    sel_wire_begin(&writer, &buf);
    for (uint32_t i = 0; i < count; i++)
        sel_wire_put_raw(&writer, sel_buf_str(&one), 1);
    sel_wire_end(&writer, &head);
    int r = sel_buf_error(&buf);
    if (r == 0)
        r = sel_wire_decode_data(sel_buf_str(&buf), &head, &records, NULL);
    sel_buf_done(&buf);
    sel_buf_done(&one);
    return r;
}

static void test_sizes_are_limited(void **state)
{
    (void)state;
    assert_ok(decode_large(1, SEL_WIRE_RECORD_MAX));
    assert_code(decode_large(1, SEL_WIRE_RECORD_MAX + 1), SEL_ELIMIT);
    assert_ok(decode_large(3, SEL_WIRE_RECORD_MAX));
    assert_code(decode_large(4, SEL_WIRE_RECORD_MAX), SEL_ELIMIT);
}

static void test_a_message_over_its_limit_is_refused_before_its_records_are_read(void **state)
{
    (void)state;
    struct sel_wire_head head;
    struct sel_str records;
    struct sel_error err;
    char byte = 0;
    struct sel_str frame = {&byte, SEL_WIRE_MESSAGE_MAX + 1}; /* nobody may look into it */
    assert_code(sel_wire_decode_data(frame, &head, &records, &err), SEL_ELIMIT);
    assert_non_null(strstr(err.text, "4194304"));
}

/* Random bytes over good frames: nothing crashes, and what is taken stays within the frame. */
static void damage(const char *path, struct sel_arena *arena, const struct sel_value *vector)
{
    struct sel_prng prng = {(uint64_t)strlen(path)};
    struct sel_str frame = frame_of(arena, vector);
    char *bytes = (char *)(uintptr_t)frame.p;
    for (int i = 0; i < 200 && frame.n && frame.n < 1000; i++) {
        struct sel_arena memory;
        sel_arena_init(&memory, 1u << 20);
        size_t at = sel_prng_below(&prng, frame.n);
        char was = bytes[at];
        bytes[at] = (char)sel_prng_next(&prng);
        struct sel_wire_head head;
        struct sel_wire_item item;
        struct sel_wire_hello hello;
        struct sel_wire_beat beat;
        struct sel_str records;
        if (sel_wire_decode_hello(&memory, frame, &hello, NULL) == 0)
            assert_true(hello.version_min <= hello.version_max);
        if (sel_wire_decode_beat(frame, &beat, NULL) == 0)
            assert_true(beat.progress.n < frame.n);
        if (sel_wire_decode_data(frame, &head, &records, NULL) == 0) {
            uint32_t count = 0;
            while (sel_wire_next(&records, &item, NULL) != 0) {
                assert_in_range((uintptr_t)item.raw.p, (uintptr_t)frame.p,
                                (uintptr_t)frame.p + frame.n - item.raw.n);
                count++;
            }
            assert_int_equal(count, head.count);
        }
        bytes[at] = was;
        sel_arena_done(&memory);
    }
    sel_mem_free(bytes);
}

static void test_damaged_frames_do_no_harm(void **state)
{
    (void)state;
    each_vector(damage);
}

static void test_records_that_are_not_of_a_checked_message_do_no_harm(void **state)
{
    (void)state;
    struct sel_buf one = {0};
    struct sel_wire_item item;
    sel_wire_encode_item(&submit, &one);
    for (size_t n = 1; n < one.n; n++) {
        struct sel_str records = {(const char *)one.p, n};
        assert_code(sel_wire_next(&records, &item, NULL), SEL_EFORMAT);
        assert_int_equal(records.n, 0);
        assert_null(item.raw.p);
    }
    sel_buf_done(&one);
}

static void test_several_messages_share_a_buffer(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    struct sel_wire_writer writer;
    struct sel_wire_head head = {.first = 5}, back;
    struct sel_str records;
    size_t begin[3];
    for (size_t i = 0; i < SEL_COUNT(begin); i++) {
        begin[i] = buf.n;
        sel_wire_begin(&writer, &buf);
        for (size_t k = 0; k < i; k++)
            sel_wire_put(&writer, &submit);
        sel_wire_end(&writer, &head);
        assert_int_equal(head.count, i);
    }
    for (size_t i = 0; i < SEL_COUNT(begin); i++) {
        size_t end = i + 1 < SEL_COUNT(begin) ? begin[i + 1] : buf.n;
        struct sel_str frame = {(const char *)buf.p + begin[i], end - begin[i]};
        assert_ok(sel_wire_decode_data(frame, &back, &records, NULL));
        assert_int_equal(back.count, i);
        sel_wire_skip(&records, back.count);
        assert_int_equal(records.n, 0);
    }
    sel_buf_done(&buf);
}

static void test_who_may_send_what(void **state)
{
    (void)state;
    const struct {
        unsigned type;
        const char *ways; /* p and w: from producer, worker; P and W: to them */
    } cases[] = {
        {SEL_RECORD_QUEUE, "pPwW"}, {SEL_RECORD_SUBMIT, "p"},  {SEL_RECORD_REFUSED, "P"},
        {SEL_RECORD_RESULT, "P"},   {SEL_RECORD_TASK, "W"},    {SEL_RECORD_DONE, "w"},
        {SEL_RECORD_RETURN, "w"},   {SEL_RECORD_CANCEL, "pW"}, {SEL_RECORD_CANCELLED, "w"},
        {SEL_RECORD_WANT, "w"},     {SEL_RECORD_WATCH, "p"},   {0, ""},
        {SEL_RECORD_END, ""},       {UINT32_MAX, ""},
    };
    const enum sel_wire_role b = SEL_ROLE_BROKER, p = SEL_ROLE_PRODUCER, w = SEL_ROLE_WORKER;
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        unsigned type = cases[i].type;
        const char *ways = cases[i].ways;
        assert_int_equal(sel_wire_is_legal(type, p, b), strchr(ways, 'p') != NULL);
        assert_int_equal(sel_wire_is_legal(type, b, p), strchr(ways, 'P') != NULL);
        assert_int_equal(sel_wire_is_legal(type, w, b), strchr(ways, 'w') != NULL);
        assert_int_equal(sel_wire_is_legal(type, b, w), strchr(ways, 'W') != NULL);
        assert_false(sel_wire_is_legal(type, p, w));
        assert_false(sel_wire_is_legal(type, b, b));
    }
}

static int encode_all(void *ctx)
{
    struct sel_arena arena = {0};
    struct sel_buf buf = {0};
    struct sel_wire_hello hello;
    struct sel_str frame = *(const struct sel_str *)ctx;
    int r = sel_wire_decode_hello(&arena, frame, &hello, NULL);
    if (r == 0) {
        sel_wire_encode_hello(&hello, &buf);
        r = sel_buf_error(&buf);
    }
    if (r == 0) {
        struct sel_wire_writer writer;
        struct sel_wire_head head = {.first = 1};
        sel_buf_done(&buf);
        sel_wire_begin(&writer, &buf);
        sel_wire_put(&writer, &submit);
        sel_wire_end(&writer, &head);
        r = sel_buf_error(&buf);
    }
    sel_buf_done(&buf);
    sel_arena_done(&arena);
    return r;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    struct sel_arena arena = {0};
    struct sel_value vector = read_json(&arena, VECTORS "/hello-worker.json");
    struct sel_str frame = sel_test_unhex(&arena, sel_value_str(sel_value_get_c(&vector, "hex")));
    sel_test_each_alloc_fails(encode_all, &frame);
    sel_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_decode),
        cmocka_unit_test(test_vectors_encode),
        cmocka_unit_test(test_vectors_are_refused_with_their_code),
        cmocka_unit_test(test_cut_frames_are_refused),
        cmocka_unit_test(test_both_forms_of_fields_give_the_same_bytes),
        cmocka_unit_test(test_what_is_over_a_limit_is_not_encoded),
        cmocka_unit_test(test_sizes_are_limited),
        cmocka_unit_test(test_a_message_over_its_limit_is_refused_before_its_records_are_read),
        cmocka_unit_test(test_damaged_frames_do_no_harm),
        cmocka_unit_test(test_records_that_are_not_of_a_checked_message_do_no_harm),
        cmocka_unit_test(test_several_messages_share_a_buffer),
        cmocka_unit_test(test_who_may_send_what),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
