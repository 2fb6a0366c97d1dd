#include "tests/support/test.h"

#include "core/suggest.h"

/* What is suggested for `wanted` among load, store, Transform; "" for nothing. */
static struct sel_str suggested(const char *wanted)
{
    static const char *const names[] = {"load", "store", "Transform", "x"};
    struct sel_suggest s;
    struct sel_str best = SEL_STR("");
    sel_suggest_init(&s, sel_str_c(wanted));
    for (size_t i = 0; i < SEL_COUNT(names); i++)
        sel_suggest_offer(&s, sel_str_c(names[i]));
    (void)sel_suggest_get(&s, &best); /* "" stays */
    return best;
}

static void test_near_names_are_suggested(void **state)
{
    (void)state;
    const struct {
        const char *wanted, *best;
    } cases[] = {
        {"lod", "load"},
        {"laod", "load"},
        {"Load", "load"},
        {"stroe", "store"},
        {"Tarnsfrom", "Transform"},
        {"TRANSFORM", "Transform"},
        {"entirely other", ""},
        {"Transfigure", ""},
        {"y", ""},
        {"", ""},
        {"lo", ""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_str_is(suggested(cases[i].wanted), cases[i].best);
}

static void test_the_first_of_equally_near_names_wins(void **state)
{
    (void)state;
    struct sel_suggest s;
    struct sel_str best;
    sel_suggest_init(&s, SEL_STR("cat"));
    sel_suggest_offer(&s, SEL_STR("hat"));
    sel_suggest_offer(&s, SEL_STR("rat"));
    assert_true(sel_suggest_get(&s, &best));
    assert_str_is(best, "hat");
    sel_suggest_offer(&s, SEL_STR("cat"));
    assert_true(sel_suggest_get(&s, &best));
    assert_str_is(best, "cat");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_near_names_are_suggested),
        cmocka_unit_test(test_the_first_of_equally_near_names_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
