#include "core/yaml.h"

#include <math.h>

#include "tests/support/test.h"

struct parsed {
    struct sel_arena arena;
    struct sel_diag diag;
    const struct sel_ynode *root;
    int r;
};

static void parse(struct parsed *p, struct sel_str text)
{
    *p = (struct parsed){0};
    sel_diag_init(&p->diag, &p->arena);
    p->r = sel_yaml_parse(&p->arena, "f.yaml", text, &p->diag, &p->root);
}

static void parse_ok(struct parsed *p, const char *text)
{
    parse(p, sel_str_c(text));
    if (p->r != 0)
        fail_msg("%s: %s", text, p->diag.first ? p->diag.first->text : "failed without a reason");
}

static void parsed_done(struct parsed *p)
{
    sel_arena_done(&p->arena);
}

/* The tree as JSON, which tells 1 from 1.0 from "1". */
static void assert_tree(const char *text, const char *json)
{
    struct parsed p;
    struct sel_value value;
    struct sel_buf buf = {0};
    parse_ok(&p, text);
    assert_ok(sel_yaml_to_value(&p.arena, p.root, &value));
    sel_json_write(&value, 0, &buf);
    if (strcmp(sel_buf_cstr(&buf), json) != 0)
        fail_msg("%s: expected %s, got %s", text, json, sel_buf_cstr(&buf));
    sel_buf_done(&buf);
    parsed_done(&p);
}

/* What PyYAML 6 answers to the same text, timestamps apart. */
static void test_plain_scalars_mean_what_pyyaml_makes_of_them(void **state)
{
    (void)state;
    const struct {
        const char *text, *json;
    } cases[] = {
        /* null and bool */
        {"", "null"},
        {"~", "null"},
        {"null", "null"},
        {"Null", "null"},
        {"NULL", "null"},
        {"nUll", "\"nUll\""},
        {"yes", "true"},
        {"Yes", "true"},
        {"YES", "true"},
        {"yEs", "\"yEs\""},
        {"y", "\"y\""},
        {"N", "\"N\""},
        {"no", "false"},
        {"On", "true"},
        {"OFF", "false"},
        {"True", "true"},
        {"FALSE", "false"},
        {"tRue", "\"tRue\""},
        {"'yes'", "\"yes\""},
        /* integers */
        {"0", "0"},
        {"-0", "0"},
        {"+12", "12"},
        {"1_000", "1000"},
        {"1__", "1"},
        {"_1", "\"_1\""},
        {"010", "8"},
        {"0_1_0", "8"},
        {"0_", "0"},
        {"08", "\"08\""},
        {"0o17", "\"0o17\""},
        {"0b1010_0111", "167"},
        {"-0x1F", "-31"},
        {"0x_0A_74_AE", "685230"},
        {"0x", "\"0x\""},
        {"0b12", "\"0b12\""},
        {"1:30", "90"},
        {"-1:30", "-90"},
        {"190:20:30", "685230"},
        {"1_:30", "90"},
        {"1:60", "\"1:60\""},
        {"0:30", "\"0:30\""},
        {"1:3:x", "\"1:3:x\""},
        {"18446744073709551615", "18446744073709551615"},
        {"-9223372036854775808", "-9223372036854775808"},
        /* floats */
        {"1.5", "1.5"},
        {"1.", "1.0"},
        {"-1.", "-1.0"},
        {".5", "0.5"},
        {"-.5", "\"-.5\""},
        {"._5", "\"._5\""},
        {".", "\".\""},
        {"1_000.5", "1000.5"},
        {"1.5e+3", "1500.0"},
        {"1.e+5", "100000.0"},
        {"1.5e3", "\"1.5e3\""},
        {"1e5", "\"1e5\""},
        {"12e+03", "\"12e+03\""},
        {"1.5e+", "\"1.5e+\""},
        {"190:20:30.15", "685230.15"},
        {"0:30.5", "30.5"},
        {"1:2._", "62.0"},
        {"1:2.5e+1", "\"1:2.5e+1\""},
        {"1:.5", "\"1:.5\""},
        {"inf", "\"inf\""},
        /* text */
        {"2001-01-01", "\"2001-01-01\""},
        {"2001-12-14t21:59:43.10-05:00", "\"2001-12-14t21:59:43.10-05:00\""},
        {"a b", "\"a b\""},
        {"'12'", "\"12\""},
        {"\"\\u00e9\\ttab\"", "\"\xc3\xa9\\ttab\""},
        {"|\n  a\n  b\n", "\"a\\nb\\n\""},
        {">-\n  a\n  b\n", "\"a b\""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_tree(cases[i].text, cases[i].json);
}

static void test_floats_that_are_no_numbers_are_read(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int sign; /* 0: not a number */
    } cases[] = {{".inf", 1}, {"+.Inf", 1}, {"-.INF", -1}, {".nan", 0}, {".NaN", 0}, {".NAN", 0}};
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct parsed p;
        parse_ok(&p, cases[i].text);
        assert_int_equal(p.root->kind, SEL_FLOAT);
        double d = sel_value_num(&p.root->num);
        if (cases[i].sign == 0)
            assert_true(isnan(d));
        else
            assert_true(isinf(d) && (d > 0) == (cases[i].sign > 0));
        parsed_done(&p);
    }
}

static void test_tags_are_honoured(void **state)
{
    (void)state;
    const struct {
        const char *text, *json;
    } cases[] = {
        {"!!str 12", "\"12\""},
        {"!!str", "\"\""},
        {"!!int '12'", "12"},
        {"!!float 3", "3.0"},
        {"!!float 1e5", "100000.0"},
        {"!!float -.5", "-0.5"},
        {"!!bool 'YES'", "true"},
        {"!!null abc", "null"},
        {"!!seq [1]", "[1]"},
        {"!!map {a: 1}", "{\"a\":1}"},
        {"!!set {a, b: 1}", "{\"a\":null,\"b\":null}"},
        {"!!omap [b: 1, a: 2]", "{\"b\":1,\"a\":2}"},
        {"!!pairs [a: 1, a: 2]", "[[\"a\",1],[\"a\",2]]"},
        {"!!timestamp 2001-01-01", "\"2001-01-01\""},
        {"! 12", "12"},
        {"! [a]", "[\"a\"]"},
        {"!<tag:yaml.org,2002:str> 1", "\"1\""},
        {"%TAG !y! tag:yaml.org,2002:\n--- !y!str 1", "\"1\""},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_tree(cases[i].text, cases[i].json);

    struct parsed p;
    parse_ok(&p, "!!binary |\n  AAH/\n  aGk=\n");
    assert_int_equal(p.root->kind, SEL_BIN);
    assert_int_equal(p.root->text.n, 5);
    assert_memory_equal(p.root->text.p, "\0\1\377hi", 5);
    parsed_done(&p);
}

static void test_aliases_and_merges_are_copies(void **state)
{
    (void)state;
    const struct {
        const char *text, *json;
    } cases[] = {
        {"- &a [1, 2]\n- *a", "[[1,2],[1,2]]"},
        {"&a k: *a", "{\"k\":\"k\"}"},
        {"&a : 1\n", "{\"null\":1}"},
        /* merged keys first, the own ones win, wherever the `<<` stands */
        {"a: 1\n<<: {a: 2, b: 3}\nc: 4", "{\"a\":1,\"b\":3,\"c\":4}"},
        /* the earlier of a list wins */
        {"<<: [{a: 1, x: 1}, {a: 2, b: 3}]\nc: 4", "{\"a\":1,\"b\":3,\"x\":1,\"c\":4}"},
        /* the later of two `<<` wins */
        {"<<: {a: 1}\n<<: {a: 2, b: 1}", "{\"a\":2,\"b\":1}"},
        {"<<: []\na: 1", "{\"a\":1}"},
        {"'<<': 1", "{\"<<\":1}"},
        {"!!merge x: {a: 1}", "{\"a\":1}"},
        {"- &a {x: 1}\n- &b {<<: *a, y: 2}\n- {<<: *b, z: 3}",
         "[{\"x\":1},{\"x\":1,\"y\":2},{\"x\":1,\"y\":2,\"z\":3}]"},
        {"=: 1", "{\"=\":1}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_tree(cases[i].text, cases[i].json);
}

static void test_whole_documents(void **state)
{
    (void)state;
    const struct {
        const char *text, *json;
    } cases[] = {
        {"# only a comment\n", "null"},
        {"---\n", "null"},
        {"--- a\n...\n", "\"a\""},
        {"a: 1\r\nb:\r\n  - 2\r\n", "{\"a\":1,\"b\":[2]}"},
        {"\xef\xbb\xbf"
         "a: 1\n",
         "{\"a\":1}"},
        {"? a\n? b", "{\"a\":null,\"b\":null}"},
        {"{}", "{}"},
        {"[]", "[]"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++)
        assert_tree(cases[i].text, cases[i].json);

    struct parsed p;
    parse(&p, (struct sel_str){NULL, 0});
    assert_int_equal(p.r, 0);
    assert_int_equal(p.root->kind, SEL_NULL);
    parsed_done(&p);
    parse(&p, SEL_STR("a: \"x\\0y\""));
    assert_int_equal(p.r, 0);
    assert_int_equal(sel_yaml_get(p.root, "a")->text.n, 3);
    parsed_done(&p);
}

static void assert_pos(const struct sel_ynode *node, uint32_t line, uint32_t col)
{
    assert_non_null(node);
    assert_string_equal(node->pos.file, "f.yaml");
    assert_int_equal(node->pos.line, line);
    assert_int_equal(node->pos.col, col);
}

static void test_nodes_know_their_place(void **state)
{
    (void)state;
    struct parsed p;
    parse_ok(&p, "a: &x\n  - {\xc3\xa9: 1, b: two}\nc: *x\n<<: {m: 5}\n");
    assert_pos(p.root, 1, 1);
    assert_pos(sel_yaml_get_key(p.root, "c"), 3, 1);
    const struct sel_ynode *item = sel_yaml_get(p.root, "a")->list.items[0];
    assert_pos(item, 2, 5);
    assert_pos(sel_yaml_get_key(item, "b"), 2, 12); /* columns count characters */
    assert_pos(sel_yaml_get(item, "b"), 2, 15);
    assert_ptr_equal(sel_yaml_get(p.root, "c"), sel_yaml_get(p.root, "a"));
    assert_pos(sel_yaml_get(p.root, "m"), 4, 9);
    assert_null(sel_yaml_get(p.root, "d"));
    assert_null(sel_yaml_get_key(item->map.pairs[0].val, "d"));
    parsed_done(&p);
}

static void test_the_later_of_duplicate_keys_counts_with_a_warning(void **state)
{
    (void)state;
    const struct {
        const char *text, *json;
        uint32_t warnings, line, col; /* of the last warning */
    } cases[] = {
        {"a: 1\nb: 2\na: 3", "{\"a\":3,\"b\":2}", 1, 3, 1},
        {"{1: a, 1.0: b, true: c}", "{\"1\":\"c\"}", 2, 1, 16},
        {"{~: 1, null: 2}", "{\"null\":2}", 1, 1, 8},
        {"<<: {a: 1}\na: 2\na: 3", "{\"a\":3}", 1, 3, 1},
        {"<<: [{a: 1}, {a: 2}]\na: 3", "{\"a\":3}", 0, 0, 0},
        {"'1': a\n1: b", "{\"1\":\"a\",\"1\":\"b\"}", 0, 0, 0},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct parsed p;
        assert_tree(cases[i].text, cases[i].json);
        parse_ok(&p, cases[i].text);
        assert_int_equal(p.diag.warning_count, cases[i].warnings);
        if (cases[i].warnings > 0) {
            assert_int_equal(p.diag.last->pos.line, cases[i].line);
            assert_int_equal(p.diag.last->pos.col, cases[i].col);
        }
        parsed_done(&p);
    }
}

static void test_large_mappings_keep_order_and_find_duplicates(void **state)
{
    (void)state;
    enum { KEYS = 3000 };
    struct sel_buf buf = {0};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < KEYS; i++)
            sel_buf_printf(&buf, i % 3 == 0 ? "%d: %d\n" : "k%d: %d\n", i, i + round);
    }
    struct parsed p;
    parse(&p, sel_buf_str(&buf));
    assert_int_equal(p.r, 0);
    assert_int_equal(p.root->map.count, KEYS);
    assert_int_equal(p.diag.warning_count, KEYS);
    for (uint32_t i = 0; i < KEYS; i++) {
        int64_t n;
        assert_true(sel_value_i64(&p.root->map.pairs[i].val->num, &n));
        assert_int_equal(n, i + 1);
    }
    parsed_done(&p);
    sel_buf_done(&buf);
}

static void test_refusals_say_where_and_why(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int code;
        uint32_t line, col;
        const char *part; /* of the message */
    } cases[] = {
        {"a: 18446744073709551616", SEL_ERANGE, 1, 4, "64 bits"},
        {"a: -9223372036854775809", SEL_ERANGE, 1, 4, "64 bits"},
        {"a: 0xfffffffffffffffff", SEL_ERANGE, 1, 4, "64 bits"},
        {"a: 99999999999999999999:59", SEL_ERANGE, 1, 4, "64 bits"},
        {"a: 0b_", SEL_ESYNTAX, 1, 4, "is no number"},
        {"a: <<", SEL_ETYPE, 1, 4, "only be a key"},
        {"- =", SEL_ETYPE, 1, 3, "cannot stand alone"},
        {"a: !foo b", SEL_ETYPE, 1, 4, "'!foo' is unknown"},
        {"a: !!python/name:os.system x", SEL_ETYPE, 1, 4, "'python/name:os.system' is unknown"},
        {"a: !foo [b]", SEL_ETYPE, 1, 4, "'!foo' is unknown"},
        {"!!int x", SEL_ESYNTAX, 1, 1, "'x' is not a valid !!int"},
        {"!!bool y", SEL_ESYNTAX, 1, 1, "!!bool"},
        {"!!float ''", SEL_ESYNTAX, 1, 1, "!!float"},
        {"!!float '1:'", SEL_ESYNTAX, 1, 1, "!!float"},
        {"!!timestamp x", SEL_ESYNTAX, 1, 1, "!!timestamp"},
        {"!!binary a", SEL_ESYNTAX, 1, 1, "!!binary"},
        {"!!binary ab=c", SEL_ESYNTAX, 1, 1, "!!binary"},
        {"!!binary ====", SEL_ESYNTAX, 1, 1, "!!binary"},
        {"!!str [a]", SEL_ETYPE, 1, 1, "a list cannot be !!str"},
        {"!!seq {a: b}", SEL_ETYPE, 1, 1, "a mapping cannot be !!seq"},
        {"!!seq a", SEL_ETYPE, 1, 1, "!!seq"},
        {"!!omap [{a: 1, b: 2}]", SEL_ETYPE, 1, 9, "one key"},
        {"!!pairs [a]", SEL_ETYPE, 1, 10, "one key"},
        {"? [a]\n: 1", SEL_ETYPE, 1, 3, "a key must be"},
        {"{a: 1}: b", SEL_ETYPE, 1, 1, "a key must be"},
        {"<<: 3", SEL_ETYPE, 1, 5, "merges a mapping"},
        {"<<: [{a: 1}, 2]", SEL_ETYPE, 1, 5, "merges a mapping"},
        {"a: &x 1\nb: &x 2", SEL_EEXISTS, 2, 4, "'x' is defined already in line 1"},
        {"a: *x", SEL_ESYNTAX, 1, 4, "no anchor"},
        {"&a [*a]", SEL_ESYNTAX, 1, 5, "inside what it refers to"},
        {"&a {<<: *a}", SEL_ESYNTAX, 1, 9, "inside what it refers to"},
        {"--- a\n--- b", SEL_ESYNTAX, 2, 1, "second document"},
        {"a:\n\t- b", SEL_ESYNTAX, 2, 1, "a tab cannot stand here"},
        {"a: b: c", SEL_ESYNTAX, 1, 5, "mapping values"},
        {"a:\n  - b\n c", SEL_ESYNTAX, 3, 2, "begins at 1:1"},
        {"a: 'b", SEL_ESYNTAX, 1, 6, "end of stream"},
        {"a: @b", SEL_ESYNTAX, 1, 4, "cannot start any token"},
        {"%YAML 2.0\n--- a", SEL_ESYNTAX, 1, 1, "incompatible"},
        {"a: b\nc: \xff\n", SEL_ESYNTAX, 2, 4, "UTF-8"},
        {"a: \xc3", SEL_ESYNTAX, 1, 4, "UTF-8"},
        {"a: \xed\xa0\x80", SEL_ESYNTAX, 1, 4, "UTF-8"},
        {"a: \x01", SEL_ESYNTAX, 1, 4, "U+0001"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct parsed p;
        parse(&p, sel_str_c(cases[i].text));
        if (p.r != cases[i].code)
            fail_msg("%s: %s", cases[i].text, sel_error_name(p.r));
        assert_non_null(p.diag.first);
        assert_false(p.diag.first->is_warning);
        assert_string_equal(p.diag.first->pos.file, "f.yaml");
        if (!strstr(p.diag.first->text, cases[i].part) || p.diag.first->pos.line != cases[i].line ||
            p.diag.first->pos.col != cases[i].col)
            fail_msg("%s: %u:%u: %s", cases[i].text, p.diag.first->pos.line, p.diag.first->pos.col,
                     p.diag.first->text);
        assert_null(p.root);
        parsed_done(&p);
    }
}

static void test_all_faults_of_values_are_reported_in_one_run(void **state)
{
    (void)state;
    struct parsed p;
    parse(&p, SEL_STR("a: !x 1\nb: 99999999999999999999\nc: &a 1\nd: &a 2\n"));
    assert_int_equal(p.r, SEL_ETYPE);
    assert_int_equal(p.diag.error_count, 3);
    parsed_done(&p);
}

static void test_control_characters_do_not_reach_messages(void **state)
{
    (void)state;
    const struct {
        const char *text, *part;
    } cases[] = {
        {"{\"a\\nb\": 1, \"a\\nb\": 2}", "'a\\nb'"},
        {"!!int \"\\e[31m\"", "'\\x1b[31m'"},
        {"!%1b%0ax y", "'!\\x1b\\nx'"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct parsed p;
        parse(&p, sel_str_c(cases[i].text));
        assert_non_null(p.diag.first);
        if (!strstr(p.diag.first->text, cases[i].part))
            fail_msg("%s: %s", cases[i].text, p.diag.first->text);
        parsed_done(&p);
    }
}

static void test_long_texts_are_cut_in_messages(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    sel_buf_put_c(&buf, "!!int ");
    for (int i = 0; i < 5000; i++)
        sel_buf_put_c(&buf, "\xc3\xa9");
    struct parsed p;
    parse(&p, sel_buf_str(&buf));
    assert_int_equal(p.r, SEL_ESYNTAX);
    assert_true(strlen(p.diag.first->text) < 100);
    assert_true(sel_str_is_utf8(sel_str_c(p.diag.first->text)));
    parsed_done(&p);
    sel_buf_done(&buf);
}

/* Ten lines that stand for 10^10 nodes: refused long before anything is copied. */
static void test_alias_bombs_are_refused(void **state)
{
    (void)state;
    const char *const inner[] = {"[%s,%s,%s,%s,%s,%s,%s,%s,%s,%s]",
                                 "{<<: %s, k1: %s, k2: %s, k3: %s, k4: %s, k5: %s, k6: %s, k7: %s, "
                                 "k8: %s, k9: %s}"};
    for (size_t shape = 0; shape < SEL_COUNT(inner); shape++) {
        struct sel_buf buf = {0};
        sel_buf_put_c(&buf, shape == 0 ? "- &a0 lol\n" : "- &a0 {x: y}\n");
        for (int i = 1; i < 11; i++) {
            char ref[8];
            (void)snprintf(ref, sizeof(ref), "*a%d ", i - 1);
            sel_buf_printf(&buf, "- &a%d ", i);
            for (const char *p = inner[shape]; *p; p++) {
                if (p[0] == '%' && p[1] == 's') {
                    sel_buf_put_c(&buf, ref);
                    p++;
                } else {
                    sel_buf_put_u8(&buf, (uint8_t)*p);
                }
            }
            sel_buf_put_c(&buf, "\n");
        }
        struct parsed p;
        parse(&p, sel_buf_str(&buf));
        assert_int_equal(p.r, SEL_ELIMIT);
        assert_non_null(strstr(p.diag.last->text, "aliases expanded"));
        assert_true(p.arena.reserved < (1 << 20));
        parsed_done(&p);
        sel_buf_done(&buf);
    }
}

static void put_times(struct sel_buf *buf, const char *text, int count)
{
    for (int i = 0; i < count; i++)
        sel_buf_put_c(buf, text);
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    const struct {
        const char *open, *close;
        int depth, code;
    } cases[] = {
        {"[", "]", SEL_YAML_DEPTH_MAX, 0}, {"[", "]", SEL_YAML_DEPTH_MAX + 1, SEL_ELIMIT},
        {"[", "]", 10000, SEL_ELIMIT},     {"{a: ", "}", 10000, SEL_ELIMIT},
        {"- ", "", 10000, SEL_ELIMIT},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct sel_buf buf = {0};
        put_times(&buf, cases[i].open, cases[i].depth);
        put_times(&buf, cases[i].close, cases[i].depth);
        struct parsed p;
        parse(&p, sel_buf_str(&buf));
        if (p.r != cases[i].code)
            fail_msg("%d times %s: %s", cases[i].depth, cases[i].open, sel_error_name(p.r));
        parsed_done(&p);
        sel_buf_done(&buf);
    }
}

/* Each list is shallow, but what it stands for is not: readers of the tree recurse. */
static void test_nesting_by_aliases_is_bounded(void **state)
{
    (void)state;
    for (int levels = 250; levels <= 260; levels += 10) {
        struct sel_buf buf = {0};
        sel_buf_put_c(&buf, "- &a0 []\n");
        for (int i = 1; i < levels; i++)
            sel_buf_printf(&buf, "- &a%d [*a%d]\n", i, i - 1);
        struct parsed p;
        parse(&p, sel_buf_str(&buf));
        assert_int_equal(p.r, levels > SEL_YAML_DEPTH_MAX ? SEL_ELIMIT : 0);
        parsed_done(&p);
        sel_buf_done(&buf);
    }
}

static int parse_once(void *text)
{
    struct parsed p;
    parse(&p, *(const struct sel_str *)text);
    parsed_done(&p);
    return p.r;
}

static void test_running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    struct sel_buf buf = {0};
    sel_buf_put_c(&buf, "- &a {x: 1}\n- {<<: *a, y: !!binary aGk=}\n- !!pairs [a: 1]\n- {");
    for (int i = 0; i < 100; i++)
        sel_buf_printf(&buf, "key_%d: 1.5, ", i);
    sel_buf_put_c(&buf, "}\n");
    struct sel_str text = sel_buf_str(&buf);
    sel_test_each_alloc_fails(parse_once, &text);
    sel_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_scalars_mean_what_pyyaml_makes_of_them),
        cmocka_unit_test(test_floats_that_are_no_numbers_are_read),
        cmocka_unit_test(test_tags_are_honoured),
        cmocka_unit_test(test_aliases_and_merges_are_copies),
        cmocka_unit_test(test_whole_documents),
        cmocka_unit_test(test_nodes_know_their_place),
        cmocka_unit_test(test_the_later_of_duplicate_keys_counts_with_a_warning),
        cmocka_unit_test(test_large_mappings_keep_order_and_find_duplicates),
        cmocka_unit_test(test_refusals_say_where_and_why),
        cmocka_unit_test(test_all_faults_of_values_are_reported_in_one_run),
        cmocka_unit_test(test_control_characters_do_not_reach_messages),
        cmocka_unit_test(test_long_texts_are_cut_in_messages),
        cmocka_unit_test(test_alias_bombs_are_refused),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_nesting_by_aliases_is_bounded),
        cmocka_unit_test(test_running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
