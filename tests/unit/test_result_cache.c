#include "worker/result_cache.h"

#include <stdlib.h>

#include "tests/support/fake_host.h"
#include "tests/support/storage.h"
#include "worker/module.h"

struct opened {
    struct sel_fake fake;
    struct sel_modules *modules;
    struct sel_cache_def def;
    struct sel_result_cache *cache;
    struct sel_error err;
};

static int open_cache(struct opened *o, const char *module, const char *name, const char *config)
{
    *o = (struct opened){0};
    sel_fake_init(&o->fake);
    o->modules = sel_modules_new(SEL_TEST_MODULES);
    assert_non_null(o->modules);
    struct sel_result_cache_options options = {
        .system = &o->fake.system, .modules = o->modules, .host = &o->fake.host};
    o->def =
        (struct sel_cache_def){.import = {sel_str_c(module), sel_str_c(name), {"nodes.yaml", 3, 5}},
                               .config = sel_test_json(&o->fake.arena, config)};
    return sel_result_cache_open(&options, &o->def, &o->cache, &o->err);
}

static void done(struct opened *o)
{
    assert_null(sel_result_cache_close(o->cache));
    sel_modules_free(o->modules);
    sel_fake_done(&o->fake);
}

static struct sel_str number(struct opened *o, int64_t i)
{
    struct sel_value v = sel_value_from_i64(i);
    return sel_fake_encode(&o->fake.arena, &v);
}

/* The number under an id; -1: a miss. */
static int64_t look_up(struct opened *o, const char *id)
{
    struct sel_str bytes;
    struct sel_value v;
    int64_t i = -1;
    int r = sel_result_cache_get(o->cache, &o->fake.arena, sel_str_c(id), &bytes, &o->err);
    if (r < 0)
        fail_msg("%s", o->err.text);
    if (r > 0) {
        assert_ok(sel_value_decode(&o->fake.arena, bytes.p, bytes.n, true, &v, NULL));
        assert_true(sel_value_i64(&v, &i));
    }
    return i;
}

static void test_every_kind_keeps_first_items(void **state)
{
    char lmdb[PATH_MAX];
    (void)snprintf(lmdb, sizeof(lmdb), "{\"path\": \"%s\", \"max_cache_size\": 10}",
                   (char *)*state);
    const struct {
        const char *module, *name, *config;
    } cases[] = {
        {"selinon.caches", "FIFO", "{\"max_cache_size\": 10}"},
        {"selinon.caches.fifo", "FIFO", "{\"max_cache_size\": 10}"},
        {"selinon.caches.lifo", "LIFO", "{\"max_cache_size\": 10}"},
        {"selinon.caches.lru", "LRU", "{\"max_cache_size\": 10}"},
        {"selinon.caches.mru", "MRU", "{\"max_cache_size\": 10}"},
        {"selinon.caches.rr", "RR", "{\"max_cache_size\": 10}"},
        {"selinon.caches", "LMDB", lmdb},
        {"selinon.caches.lmdb", "LMDB", lmdb},
        {"caches", "Keeps", "{}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct opened o;
        if (open_cache(&o, cases[i].module, cases[i].name, cases[i].config) < 0)
            fail_msg("case %zu: %s", i, o.err.text);
        assert_non_null(o.cache);
        char id[16]; /* LMDB's outlives its case */
        (void)snprintf(id, sizeof(id), "id-%zu", i);
        assert_int_equal(look_up(&o, id), -1);
        assert_ok(sel_result_cache_add(o.cache, &o.fake.arena, sel_str_c(id), number(&o, 7), NULL));
        assert_ok(sel_result_cache_add(o.cache, &o.fake.arena, sel_str_c(id), number(&o, 8), NULL));
        assert_int_equal(look_up(&o, id), 7);
        done(&o);
    }
}

static void test_none_is_opened_without_a_size_or_a_name(void **state)
{
    (void)state;
    const struct {
        const char *module, *name, *config;
    } cases[] = {
        {"selinon.caches", "", "{}"},
        {"selinon.caches", "LRU", "null"},
        {"selinon.caches", "LRU", "{\"max_cache_size\": 0}"},
        {"selinon.caches", "LMDB", "{\"max_cache_size\": 0}"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct opened o;
        assert_ok(open_cache(&o, cases[i].module, cases[i].name, cases[i].config));
        assert_null(o.cache);
        done(&o);
    }
}

static void test_refusals_say_where_and_why(void **state)
{
    (void)state;
    const struct {
        const char *module, *name, *config;
        int code;
        const char *text;
    } cases[] = {
        {"selinon.caches", "LUR", "{}", SEL_ENOTFOUND, "no 'LUR' in 'selinon.caches'"},
        {"selinon.caches.fifo", "LRU", "{}", SEL_ENOTFOUND, "no 'LRU' in 'selinon.caches.fifo'"},
        {"selinon.caches.redis", "Redis", "{}", SEL_EUNSUPPORTED, "needs an adapter"},
        {"selinon.caches", "Redis", "{}", SEL_EUNSUPPORTED, "needs an adapter"},
        {"selinon.caches", "LRU", "{\"size\": 1}", SEL_ECONFIG, "no argument 'size'"},
        {"selinon.caches", "LMDB", "{\"size\": 1}", SEL_ECONFIG, "no argument 'size'"},
        {"no.such", "Cache", "{}", SEL_ENOTFOUND, "no.such"},
        {"caches", "Kept", "{}", SEL_ENOTFOUND, "Kept"},
        {"caches", "Seven", "{}", SEL_ENOTFOUND, "Seven"},
        {"caches", "Keeps", "{\"refuse\": true}", SEL_ESTORAGE, "open: Refused"},
    };
    for (size_t i = 0; i < SEL_COUNT(cases); i++) {
        struct opened o;
        assert_code(open_cache(&o, cases[i].module, cases[i].name, cases[i].config), cases[i].code);
        assert_null(o.cache);
        if (!strstr(o.err.text, cases[i].text))
            fail_msg("case %zu: %s", i, o.err.text);
        assert_int_equal(o.err.pos.line, 3);
        done(&o);
    }
}

static void test_without_modules_there_are_only_ours(void **state)
{
    (void)state;
    struct sel_result_cache_options options = {0};
    struct sel_cache_def def = {.import = {SEL_STR("caches"), SEL_STR("Keeps"), {0}}};
    struct sel_result_cache *cache;
    assert_code(sel_result_cache_open(&options, &def, &cache, NULL), SEL_ENOTFOUND);
}

/* Two threads of a worker: one folder, opened once. */
static void test_threads_share_a_cache_in_lmdb(void **state)
{
    char config[PATH_MAX];
    struct opened o = {0};
    struct sel_shared_caches shared = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct sel_result_cache *caches[2];
    sel_fake_init(&o.fake);
    (void)snprintf(config, sizeof(config), "{\"path\": \"%s\", \"max_cache_size\": 10}",
                   (char *)*state);
    struct sel_result_cache_options options = {
        .system = &o.fake.system, .host = &o.fake.host, .shared = &shared};
    struct sel_cache_def def = {.import = {SEL_STR("selinon.caches"), SEL_STR("LMDB"), {0}},
                                .config = sel_test_json(&o.fake.arena, config)};
    for (uint32_t round = 0; round < 2; round++) { /* the second opens it anew */
        for (uint32_t i = 0; i < 2; i++)
            assert_ok(sel_result_cache_open(&options, &def, &caches[i], NULL));
        assert_ptr_not_equal(caches[0], caches[1]);
        o.cache = caches[0];
        assert_ok(sel_result_cache_add(o.cache, &o.fake.arena, SEL_STR("a"), number(&o, 7), NULL));
        (void)sel_result_cache_close(caches[0]);
        o.cache = caches[1];
        assert_int_equal(look_up(&o, "a"), 7);
        (void)sel_result_cache_close(caches[1]);
        assert_null(shared.first);
    }
    sel_fake_done(&o.fake);
}

static void test_trouble_of_a_module_is_a_text(void **state)
{
    (void)state;
    struct opened o;
    struct sel_str bytes;
    assert_ok(open_cache(&o, "caches", "Away", "{}"));
    assert_code(sel_result_cache_get(o.cache, &o.fake.arena, SEL_STR("a"), &bytes, &o.err),
                SEL_ESTORAGE);
    assert_string_equal(o.err.text, "Away: get: Away: nobody answers");
    assert_code(sel_result_cache_add(o.cache, &o.fake.arena, SEL_STR("a"), number(&o, 1), &o.err),
                SEL_ESTORAGE);
    assert_string_equal(o.err.text, "Away: add: Away: nobody answers");
    done(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_folder(test_every_kind_keeps_first_items),
        cmocka_unit_test(test_none_is_opened_without_a_size_or_a_name),
        cmocka_unit_test(test_refusals_say_where_and_why),
        cmocka_unit_test(test_without_modules_there_are_only_ours),
        with_folder(test_threads_share_a_cache_in_lmdb),
        cmocka_unit_test(test_trouble_of_a_module_is_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
