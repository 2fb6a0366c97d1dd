/* Every case of tests/conformance/config/strict: is the configuration valid, yes or no? */
#include "tests/support/test.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/compile.h"

#define STRICT "tests/conformance/config/strict"
#define FLOW_FILES_MAX 8

struct test_case {
    struct sel_arena arena;
    struct sel_value expected;
    struct sel_source nodes;
    struct sel_source flows[FLOW_FILES_MAX];
    uint32_t flow_count;
};

static const char *case_getenv(void *ctx, const char *name)
{
    const struct test_case *t = ctx;
    const struct sel_value *value = sel_value_get_c(sel_value_get_c(&t->expected, "env"), name);
    return value ? sel_arena_strdup((struct sel_arena *)(uintptr_t)&t->arena, sel_value_str(value))
                 : NULL;
}

/* Reads a file of the case; its bare name is what messages show. */
static struct sel_source read_source(struct test_case *t, const char *dir, struct sel_str name)
{
    char path[PATH_MAX];
    struct sel_buf text = {0};
    snprintf(path, sizeof(path), "%s/%s/%.*s", STRICT, dir, SEL_STR_ARG(name));
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be opened", path);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), file)) > 0;)
        sel_buf_put(&text, chunk, n);
    fclose(file);
    assert_ok(sel_buf_error(&text));
    struct sel_source source = {sel_arena_strdup(&t->arena, name),
                                {sel_arena_strdup(&t->arena, sel_buf_str(&text)), text.n}};
    assert_non_null(source.file);
    assert_non_null(source.text.p);
    sel_buf_done(&text);
    return source;
}

static void load(struct test_case *t, const char *dir)
{
    *t = (struct test_case){0};
    struct sel_source expected = read_source(t, dir, SEL_STR("expected.json"));
    t->expected = sel_test_json(&t->arena, expected.text.p);
    t->nodes = read_source(t, dir, SEL_STR("nodes.yaml"));
    const struct sel_value *files = sel_value_get_c(&t->expected, "flow_files");
    t->flow_count = files ? sel_value_count(files) : 1;
    assert_true(t->flow_count <= FLOW_FILES_MAX);
    for (uint32_t i = 0; i < t->flow_count; i++)
        t->flows[i] = read_source(
            t, dir, files ? sel_value_str(sel_value_at(files, i)) : SEL_STR("flows.yaml"));
}

/* Tells what differs; true if nothing does. */
static bool is_as_expected(struct test_case *t, const char *dir)
{
    struct sel_predicate_world world = {case_getenv, t};
    struct sel_compile_options options = {
        .nodes = t->nodes, .flows = t->flows, .flow_count = t->flow_count, .world = &world};
    struct sel_system *system = NULL;
    struct sel_diag diag;
    sel_diag_init(&diag, &t->arena);
    int r = sel_compile(&options, &diag, &system);
    sel_system_free(system);
    bool is_valid = sel_value_bool(sel_value_get_c(&t->expected, "valid"));
    assert_true(r == 0 || r == SEL_ECONFIG);
    assert_true((r == 0) == (diag.error_count == 0));
    bool ok = (r == 0) == is_valid;
    if (!ok)
        print_error("%s must be %s\n", dir, is_valid ? "valid" : "refused");
    for (const struct sel_diag_item *i = diag.first; i; i = i->next) {
        if (!ok)
            print_error("  %s:%u:%u: %s\n", i->pos.file, i->pos.line, i->pos.col, i->text);
        assert_non_null(i->pos.file); /* every one has its place */
        assert_true(i->pos.line > 0 && i->pos.col > 0);
    }
    return ok;
}

static void test_strict_cases_are_accepted_and_refused_as_by_the_original(void **state)
{
    (void)state;
    DIR *dir = opendir(STRICT);
    if (!dir)
        fail_msg("%s cannot be read; run this from the top of the repository", STRICT);
    uint32_t count = 0, wrong = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        struct test_case *t = SEL_NEW(struct test_case);
        assert_non_null(t);
        load(t, entry->d_name);
        wrong += !is_as_expected(t, entry->d_name);
        count++;
        sel_arena_done(&t->arena);
        (void)sel_mem_free(t);
    }
    closedir(dir);
    assert_true(count >= 218); /* as many as there were when this was written */
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strict_cases_are_accepted_and_refused_as_by_the_original),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
