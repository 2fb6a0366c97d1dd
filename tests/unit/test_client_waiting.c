#include "tests/support/test.h"

#include "client/waiting.h"
#include "core/prng.h"

static void *tag_of(uint64_t n)
{
    return (void *)(uintptr_t)n;
}

static void test_what_was_added_is_found_until_it_is_removed(void **state)
{
    (void)state;
    struct sel_waiting waiting = {0};
    const struct sel_id a = {1, 5}, b = {2, 5}, c = {1, 6};
    assert_null(sel_waiting_get(&waiting, a));
    assert_ok(sel_waiting_add(&waiting, a, tag_of(10), 100));
    assert_ok(sel_waiting_add(&waiting, b, tag_of(20), 200));
    assert_ok(sel_waiting_add(&waiting, c, tag_of(30), 300));
    assert_code(sel_waiting_add(&waiting, b, tag_of(9), 9), SEL_EEXISTS);
    assert_ptr_equal(sel_waiting_get(&waiting, b)->tag, tag_of(20));
    sel_waiting_remove(&waiting, sel_waiting_get(&waiting, a));
    assert_null(sel_waiting_get(&waiting, a));
    assert_int_equal(sel_waiting_get(&waiting, b)->number, 200);
    assert_int_equal(sel_waiting_get(&waiting, c)->number, 300);
    assert_null(sel_waiting_get(&waiting, (struct sel_id){0, 0}));
    assert_int_equal(waiting.count, 2);
    sel_waiting_done(&waiting);
}

/* Makes the ids of one kind: of one maker, random, all for one place, for two places. */
static struct sel_id id_of(unsigned kind, uint64_t n)
{
    struct sel_prng prng = {n};
    uint64_t random = sel_prng_next(&prng);
    switch (kind) {
    case 0:
        return (struct sel_id){n / 1000 + 1, UINT64_C(1) << 63 | n};
    case 1:
        return (struct sel_id){random, sel_prng_next(&prng)};
    case 2:
        return (struct sel_id){n + 1, 77};
    default:
        return (struct sel_id){random, (n & 1) << 40};
    }
}

#define IDS 20000u

static void test_ids_of_any_kind_come_and_go(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        struct sel_waiting waiting = {0};
        struct sel_prng prng = {kind};
        uint64_t first = 0, next = 0;
        static bool is_in[IDS];
        memset(is_in, 0, sizeof(is_in));
        uint32_t count = 0;
        for (unsigned step = 0; step < 3 * IDS; step++) {
            uint64_t way = sel_prng_below(&prng, 5);
            if (way < 3 && next < IDS) {
                assert_ok(sel_waiting_add(&waiting, id_of(kind, next), tag_of(next), next));
                is_in[next++] = true;
                count++;
            } else if (next > first) {
                uint64_t n = way == 3 ? first++ : first + sel_prng_below(&prng, next - first);
                struct sel_waiting_entry *entry = sel_waiting_get(&waiting, id_of(kind, n));
                assert_int_equal(entry != NULL, is_in[n]);
                if (entry) {
                    assert_ptr_equal(entry->tag, tag_of(n));
                    sel_waiting_remove(&waiting, entry);
                    is_in[n] = false;
                    count--;
                }
            }
            assert_int_equal(waiting.count, count);
        }
        for (uint64_t n = 0; n < IDS; n++)
            assert_int_equal(sel_waiting_get(&waiting, id_of(kind, n)) != NULL, is_in[n]);
        assert_int_equal(waiting.is_mixed, kind >= 2);
        sel_waiting_done(&waiting);
    }
}

static int add_many(void *ctx)
{
    (void)ctx;
    struct sel_waiting waiting = {0};
    int r = 0;
    for (uint64_t n = 0; r == 0 && n < 3000; n++) {
        r = sel_waiting_add(&waiting, id_of(0, n), NULL, n);
        if (r < 0) /* what was there before is still there */
            for (uint64_t m = 0; m < n; m++)
                assert_non_null(sel_waiting_get(&waiting, id_of(0, m)));
    }
    sel_waiting_done(&waiting);
    return r;
}

static void test_lack_of_memory_loses_nothing(void **state)
{
    (void)state;
    sel_test_each_alloc_fails(add_many, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_added_is_found_until_it_is_removed),
        cmocka_unit_test(test_ids_of_any_kind_come_and_go),
        cmocka_unit_test(test_lack_of_memory_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
