/* Pages of nodes: what is written is read, a page at a time, and what cannot be is refused. */
#include "proto/nodes.h"

#include "core/prng.h"
#include "proto/le.h"
#include "tests/support/test.h"

static void put_runs(struct sel_nodes_writer *w, enum sel_nodes_state state, uint32_t node,
                     const char *name, uint32_t first, uint32_t count)
{
    struct sel_nodes_run run = {.state = state, .name = sel_str_c(name)};
    for (uint32_t i = 0; i < count; i++) {
        run.ordinal = first + i;
        sel_nodes_add(w, &run, node);
    }
}

static void end(struct sel_nodes_writer *w, struct sel_buf *out)
{
    assert_int_equal(sel_nodes_writer_end(w, 3, out), 0);
    sel_nodes_writer_done(w);
}

/* The bytes of a page, found as the broker finds them. */
static struct sel_str page_of(struct sel_str all, uint32_t page)
{
    struct sel_nodes nodes;
    uint64_t offset;
    size_t size;
    assert_int_equal(sel_nodes_decode((struct sel_str){all.p, SEL_NODES_HEAD_SIZE}, all.n, &nodes),
                     0);
    uint64_t at = sel_nodes_place_at(&nodes, page);
    assert_true(at + SEL_NODES_PLACE_SIZE <= all.n);
    assert_int_equal(
        sel_nodes_place(&nodes, (struct sel_str){all.p + at, SEL_NODES_PLACE_SIZE}, &offset, &size),
        0);
    return (struct sel_str){all.p + offset, size};
}

static struct sel_nodes head_of(struct sel_str all)
{
    struct sel_nodes nodes = {0};
    assert_int_equal(sel_nodes_decode(all, all.n, &nodes), 0);
    return nodes;
}

/* All runs of all pages as text, a word a run. */
static void tell(struct sel_str all, struct sel_buf *out)
{
    static struct sel_nodes_page page;
    struct sel_nodes_run run;
    uint32_t count = head_of(all).page_count;
    for (uint32_t p = 0; p < count; p++) {
        int r;
        sel_nodes_page_init(&page, page_of(all, p));
        while ((r = sel_nodes_next(&page, &run)) > 0) {
            sel_buf_printf(out, "%c:%.*s:%u", "AfF"[run.state], SEL_STR_ARG(run.name), run.ordinal);
            if (run.flow.lo)
                sel_buf_printf(out, "=%u", (unsigned)run.flow.lo);
            if (run.reuse.n)
                sel_buf_printf(out, "=%.*s", SEL_STR_ARG(run.reuse));
            sel_buf_put_u8(out, ' ');
        }
        assert_int_equal(r, 0);
        sel_buf_put_c(out, "| ");
    }
}

static void test_runs_of_all_kinds_are_read_as_written(void **state)
{
    (void)state;
    struct sel_nodes_writer w = {0};
    struct sel_buf out = {0}, text = {0};
    put_runs(&w, SEL_NODES_ACTIVE, 0, "A", 7, 1);
    put_runs(&w, SEL_NODES_ACTIVE, 5, "B", 8, 1);
    put_runs(&w, SEL_NODES_ACTIVE, 0, "A", 9, 1); /* a list: names may come again */
    put_runs(&w, SEL_NODES_FINISHED, 0, "A", UINT32_MAX, 1);
    put_runs(&w, SEL_NODES_FINISHED, 0, "A", 0, 2);
    sel_nodes_add(
        &w,
        &(struct sel_nodes_run){
            .state = SEL_NODES_FINISHED, .name = SEL_STR("sub"), .ordinal = 4, .flow = {7, 77}},
        9);
    sel_nodes_add(&w,
                  &(struct sel_nodes_run){.state = SEL_NODES_FAILED,
                                          .name = SEL_STR("B"),
                                          .ordinal = 3,
                                          .reuse = SEL_STR("of-another")},
                  5);
    end(&w, &out);
    assert_int_equal(head_of(sel_buf_str(&out)).attempt, 3);
    tell(sel_buf_str(&out), &text);
    assert_string_equal(sel_buf_cstr(&text),
                        "A:A:7 A:B:8 A:A:9 f:A:4294967295 f:A:0 f:A:1 f:sub:4=77 "
                        "F:B:3=of-another | ");
    sel_buf_done(&out);
    sel_buf_done(&text);
}

static void test_a_page_has_a_thousand_runs_and_stands_alone(void **state)
{
    (void)state;
    struct sel_nodes_writer w = {0};
    struct sel_buf out = {0};
    static struct sel_nodes_page page;
    struct sel_nodes_run run;
    put_runs(&w, SEL_NODES_FINISHED, 2, "Resize", 0, 2500);
    put_runs(&w, SEL_NODES_FAILED, 2, "Resize", 2500, 1);
    end(&w, &out);
    assert_int_equal(head_of(sel_buf_str(&out)).page_count, 3);
    for (uint32_t p = 0; p < 3; p++) {
        uint32_t count = 0;
        sel_nodes_page_init(&page, page_of(sel_buf_str(&out), p));
        while (sel_nodes_next(&page, &run) > 0) {
            assert_int_equal(run.ordinal, p * 1000 + count++);
            assert_true(sel_str_eq_c(run.name, "Resize"));
            assert_int_equal(run.state,
                             run.ordinal == 2500 ? SEL_NODES_FAILED : SEL_NODES_FINISHED);
        }
        assert_int_equal(count, p < 2 ? 1000 : 501);
    }
    sel_buf_done(&out);
}

static void test_nothing_is_no_page(void **state)
{
    (void)state;
    struct sel_nodes_writer w = {0};
    struct sel_buf out = {0};
    end(&w, &out);
    assert_int_equal(head_of(sel_buf_str(&out)).page_count, 0);
    sel_buf_done(&out);
}

/* In the order of their starts a byte each, in any order not more than four. */
static void test_a_hundred_thousand_runs_are_small(void **state)
{
    (void)state;
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        struct sel_nodes_writer w = {0};
        struct sel_buf out = {0};
        struct sel_prng prng = {1};
        struct sel_nodes_run run = {.state = SEL_NODES_FINISHED, .name = SEL_STR("Resize")};
        for (uint32_t i = 0; i < 100000; i++) {
            run.ordinal = shuffled ? (uint32_t)(sel_prng_next(&prng) % 1000000) : i;
            sel_nodes_add(&w, &run, 0);
        }
        end(&w, &out);
        assert_true(out.n < (shuffled ? 402000 : 102000));
        sel_buf_done(&out);
    }
}

static void test_long_ids_make_pages_of_fewer_runs(void **state)
{
    (void)state;
    static char id[SEL_NODES_TEXT_MAX + 1];
    struct sel_nodes_writer w = {0};
    struct sel_buf out = {0}, text = {0};
    struct sel_nodes_run run = {.state = SEL_NODES_FINISHED, .name = SEL_STR("A")};
    memset(id, 'x', sizeof(id));
    run.reuse = (struct sel_str){id, SEL_NODES_TEXT_MAX};
    for (run.ordinal = 0; run.ordinal < 5; run.ordinal++)
        sel_nodes_add(&w, &run, 0);
    end(&w, &out);
    assert_int_equal(head_of(sel_buf_str(&out)).page_count, 5);
    tell(sel_buf_str(&out), &text); /* all can be read */
    sel_buf_clear(&out);
    run.reuse.n++;
    sel_nodes_add(&w, &run, 0);
    assert_int_equal(sel_nodes_writer_end(&w, 0, &out), SEL_ELIMIT);
    assert_int_equal(out.n, 0);
    sel_nodes_writer_done(&w);
    sel_buf_done(&out);
    sel_buf_done(&text);
}

static void test_a_limit_is_kept(void **state)
{
    (void)state;
    struct sel_nodes_writer w = {.pages.limit = 500};
    struct sel_buf out = {0};
    put_runs(&w, SEL_NODES_FINISHED, 0, "A", 0, 1000);
    assert_int_equal(sel_nodes_writer_end(&w, 0, &out), SEL_ELIMIT);
    sel_nodes_writer_done(&w);
    sel_buf_done(&out);
}

static void test_without_memory_there_is_an_error_and_no_leak(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 8; n++) {
        struct sel_nodes_writer w = {0};
        struct sel_buf out = {0};
        sel_mem_fail_at(n);
        put_runs(&w, SEL_NODES_FINISHED, 0, "A", 0, 2500);
        int r = sel_nodes_writer_end(&w, 0, &out);
        sel_mem_fail_at(0);
        assert_true(r == 0 || r == SEL_ENOMEM);
        assert_true(n > 1 || r == SEL_ENOMEM);
        sel_nodes_writer_done(&w);
        sel_buf_done(&out);
    }
}

static void test_heads_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct sel_nodes nodes;
    uint64_t offset;
    size_t size;
    char head[SEL_NODES_HEAD_SIZE] = {SEL_NODES_VERSION, 0, 0, 0, 9, 0, 0, 0, 2};
    struct sel_str bytes = {head, sizeof(head)};
    assert_int_equal(sel_nodes_decode(bytes, 24, &nodes), 0);
    assert_int_equal(sel_nodes_decode(bytes, 23, &nodes), SEL_EFORMAT); /* no room for the index */
    assert_int_equal(sel_nodes_decode((struct sel_str){head, 11}, 24, &nodes), SEL_EFORMAT);
    memset(head + 8, 0xff, 4);
    assert_int_equal(sel_nodes_decode(bytes, 48 << 20, &nodes), SEL_EFORMAT);
    head[0] = SEL_NODES_VERSION + 1;
    assert_int_equal(sel_nodes_decode(bytes, 24, &nodes), SEL_EVERSION);
    static const struct {
        uint32_t begin, end;
    } places[] = {{23, 30}, {30, 29}, {24, 1000001}, {24, 24 + SEL_NODES_PAGE_MAX + 1}, {0, 0}};
    nodes = (struct sel_nodes){.page_count = 2, .size = 1000000};
    for (size_t i = 0; i < SEL_COUNT(places); i++) {
        char place[SEL_NODES_PLACE_SIZE];
        sel_le_put32(place, places[i].begin);
        sel_le_put32(place + 4, places[i].end);
        assert_int_equal(
            sel_nodes_place(&nodes, (struct sel_str){place, sizeof(place)}, &offset, &size),
            SEL_EFORMAT);
    }
}

static void test_pages_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static struct sel_nodes_page page;
    struct sel_nodes_run run;
    /* A group: name number * 3 + state, times 4, plus 3. A run: zigzag step times 4. */
    static const struct {
        struct sel_str bytes;
        int good; /* runs before the refusal */
    } cases[] = {
        {SEL_STR("\x08"), 0},                         /* a run without a group */
        {SEL_STR("\x80"), 0},                         /* cut within a number */
        {SEL_STR("\x13\x01\x41"), 0},                 /* the second name without a first */
        {SEL_STR("\x07\x00"), 0},                     /* an empty name */
        {SEL_STR("\x07\x05\x41"), 0},                 /* a name that is cut */
        {SEL_STR("\x07\x01\xff"), 0},                 /* one that is no UTF-8 */
        {SEL_STR("\x07\x01\x41\x00\x03"), 1},         /* states go up */
        {SEL_STR("\x07\x01\x41\x00\x07\x00"), 1},     /* a name twice in a state */
        {SEL_STR("\x07\x01\x41\x04"), 0},             /* ordinal -1 */
        {SEL_STR("\x07\x01\x41\x01\x01\x02\x03"), 0}, /* an id that is cut */
        {SEL_STR("\x07\x01\x41\x02\x00"), 0},         /* an empty id */
        {SEL_STR("\x07\x01\x41\x02\x05\x41"), 0},     /* a text that is cut */
        {SEL_STR("\x07\x01\x41\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0}, /* a giant's step */
        {SEL_STR("\x07\x01\x41\xf8\xff\xff\xff\x7f\x08"), 1}, /* past the last ordinal */
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        int r, count = 0;
        sel_nodes_page_init(&page, cases[i].bytes);
        while ((r = sel_nodes_next(&page, &run)) > 0)
            count++;
        if (r != SEL_EFORMAT || count != cases[i].good)
            fail_msg("case %zu: %d after %d", i, r, count);
    }
}

static void test_a_page_of_too_many_runs_is_refused(void **state)
{
    (void)state;
    static struct sel_nodes_page page;
    static char bytes[3 + SEL_NODES_PAGE_RUNS + 1] = "\x07\x01\x41";
    struct sel_nodes_run run;
    uint32_t count = 0;
    memset(bytes + 3, 0, sizeof(bytes) - 3); /* the ordinal 0 again and again */
    sel_nodes_page_init(&page, (struct sel_str){bytes, sizeof(bytes)});
    while (sel_nodes_next(&page, &run) > 0)
        count++;
    assert_int_equal(count, SEL_NODES_PAGE_RUNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_of_all_kinds_are_read_as_written),
        cmocka_unit_test(test_a_page_has_a_thousand_runs_and_stands_alone),
        cmocka_unit_test(test_nothing_is_no_page),
        cmocka_unit_test(test_a_hundred_thousand_runs_are_small),
        cmocka_unit_test(test_long_ids_make_pages_of_fewer_runs),
        cmocka_unit_test(test_a_limit_is_kept),
        cmocka_unit_test(test_without_memory_there_is_an_error_and_no_leak),
        cmocka_unit_test(test_heads_that_cannot_be_are_refused),
        cmocka_unit_test(test_pages_that_cannot_be_are_refused),
        cmocka_unit_test(test_a_page_of_too_many_runs_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
